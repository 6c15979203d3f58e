//! Pages of metrics of every engine while a measurement runs: one right before it, one at each interval, one
//! right after, once the engines say that they are idle.
//!
//! **Invariants.** An engine is asked for one page at a time, and at no instant is more than one look at the
//! deployment under way: a page that takes long makes looks rarer, never denser. What is not had within
//! [`PATIENCE`] is missing. A look that was not over when the measurement ended is no sample of it. What had no
//! page before the measurement is not asked again: many servers have none.
//!
//! Who reads a page knows keys and certificates, and this room knows neither: [`Pages`] is given.

use scalebeam_model::clock::Clock;
use scalebeam_model::engine_metrics::{EngineReadings, Said, Snapshot, Watch, Word};
use scalebeam_model::plan::MetricsTarget;
use scalebeam_model::units::Nanos;
use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than an engine takes to write its page while it is loaded.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Counts may be shown some steps of an engine after the last answer: while it says that it runs requests, its
/// page is read again, this much later and so many times.
const SETTLING: (Duration, u32) = (Duration::from_millis(50), 20);

/// Reads pages of metrics.
pub trait Pages: Send + Sync + 'static {
    /// The page beside the API at `base_url`; `None` where there is none.
    fn read(&self, base_url: &str) -> impl Future<Output = Option<String>> + Send;
}

/// What is asked, and how often.
#[derive(Debug)]
pub struct Scraper<P> {
    /// Reads a page.
    pub pages: Arc<P>,
    /// Stamps each page.
    pub clock: Arc<dyn Clock>,
    /// From look to look.
    pub interval: Nanos,
    /// Whose pages.
    pub targets: Vec<MetricsTarget>,
}

/// A page, as it came.
#[derive(Debug, Clone, PartialEq)]
struct Page {
    asked_at: Nanos,
    answered_at: Nanos,
    body: Option<String>,
}

impl Page {
    fn is_busy(&self) -> bool {
        let page = self.body.as_deref().map(Snapshot::read);
        page.and_then(|p| p.number(Word::Running)).is_some_and(|n| n > 0.0)
    }
}

/// What came of it all.
#[derive(Debug, Clone, Default)]
pub struct Scraped {
    /// Over the measurement.
    pub readings: EngineReadings,
    /// The pages before and after, one below the other, each under a comment that says whose it is and when it
    /// was read.
    pub pages: String,
    /// Each look, in order.
    pub looks: Vec<Vec<Said>>,
}

/// Looks at engines until it is ended, or dropped.
#[derive(Debug)]
pub struct Scraping<P> {
    stop: oneshot::Sender<()>,
    work: JoinHandle<State<P>>,
}

#[derive(Debug)]
struct State<P> {
    scraper: Scraper<P>,
    watches: Vec<Watch>,
    /// Those that had a page before the measurement.
    answering: Vec<usize>,
    scraped: Scraped,
}

impl<P: Pages> Scraper<P> {
    /// Reads the pages before the measurement, and begins to look. Each is waited for at most [`PATIENCE`].
    pub async fn begin(self) -> Scraping<P> {
        let watch = |t: &MetricsTarget| Watch::new(t.name.clone(), t.part, t.role);
        let watches = self.targets.iter().map(watch).collect();
        let all: Vec<usize> = (0..self.targets.len()).collect();
        let scraped = Scraped::default();
        let mut state = State { scraper: self, watches, answering: all, scraped };
        let pages = state.look().await;
        state.keep("before", &pages);
        state.answering.retain(|at| pages.get(*at).is_some_and(|page| page.body.is_some()));
        for (watch, page) in state.watches.iter_mut().zip(&pages) {
            watch.begin(page.body.as_deref().map(Snapshot::read));
        }
        let (stop, stopped) = oneshot::channel();
        Scraping { stop, work: tokio::spawn(state.look_until(stopped)) }
    }

    /// Asks targets once, all at the same time.
    async fn look(&self, at: &[usize]) -> Vec<Page> {
        let now = self.clock.now();
        let missing = Page { asked_at: now, answered_at: now, body: None };
        let mut pages = vec![missing; self.targets.len()];
        let mut asked = JoinSet::new();
        for at in at.iter().copied() {
            let Some(url) = self.targets.get(at).and_then(|t| t.url.clone()) else { continue };
            let (pages, clock) = (Arc::clone(&self.pages), Arc::clone(&self.clock));
            asked.spawn(async move {
                let asked_at = clock.now();
                let answer = tokio::time::timeout(PATIENCE, pages.read(&url)).await;
                (at, Page { asked_at, answered_at: clock.now(), body: answer.ok().flatten() })
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((at, page)) = answer
                && let Some(place) = pages.get_mut(at)
            {
                *place = page;
            }
        }
        pages
    }
}

impl<P: Pages> Scraping<P> {
    /// Ends the looks, and reads the pages after the measurement. `None` where the looking itself broke.
    pub async fn end(self) -> Option<Scraped> {
        drop(self.stop);
        let mut state = self.work.await.ok()?;
        let mut pages = state.look().await;
        for _ in 0..SETTLING.1 {
            if !pages.iter().any(Page::is_busy) {
                break;
            }
            // There is nothing to be woken by.
            let _ = tokio::time::timeout(SETTLING.0, std::future::pending::<()>()).await;
            pages = state.look().await;
        }
        state.keep("after", &pages);
        let ended = state.watches.into_iter().zip(&pages);
        let ended = ended.map(|(watch, page)| watch.end(page.body.as_deref().map(Snapshot::read)));
        state.scraped.readings.instances = ended.collect();
        Some(state.scraped)
    }
}

impl<P: Pages> State<P> {
    /// Looks in the middle of each interval, so that a measurement that is shorter than two has one.
    async fn look_until(mut self, mut stop: oneshot::Receiver<()>) -> Self {
        let interval = self.scraper.interval.0.max(1);
        let mut due = Nanos(self.scraper.clock.now().0 + interval / 2);
        loop {
            let wait = due.since(self.scraper.clock.now()).to_std();
            if tokio::time::timeout(wait, &mut stop).await.is_ok() {
                return self;
            }
            let pages = self.look().await;
            if stop.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
                return self;
            }
            self.sample(&pages);
            // Looks that would have been due meanwhile are passed over.
            let late = self.scraper.clock.now().since(due).0;
            due = Nanos(due.0 + (late / interval + 1) * interval);
        }
    }

    async fn look(&self) -> Vec<Page> {
        self.scraper.look(&self.answering).await
    }

    fn sample(&mut self, pages: &[Page]) {
        let targets = &self.scraper.targets;
        let said = self.watches.iter_mut().zip(pages).zip(targets).enumerate();
        let said = said.map(|(at, ((watch, page), target))| {
            let snapshot = page.body.as_deref().map(Snapshot::read);
            let (is_asked, is_had) = (self.answering.contains(&at), snapshot.is_some());
            let numbers = is_asked.then(|| watch.sample(snapshot)).filter(|_| is_had);
            Said {
                instance: target.name.clone(),
                part: target.part,
                role: target.role,
                asked_at: page.asked_at,
                answered_at: page.answered_at,
                numbers,
            }
        });
        let look: Vec<Said> = said.collect();
        let parts = look.iter().map(|said| (said.part, said.numbers.as_ref()));
        self.scraped.readings.add_look(parts);
        self.scraped.looks.push(look);
    }

    fn keep(&mut self, when: &str, pages: &[Page]) {
        for (target, page) in self.scraper.targets.iter().zip(pages) {
            let out = &mut self.scraped.pages;
            let (asked, answered) = (page.asked_at.as_secs_f64(), page.answered_at.as_secs_f64());
            let url = target.url.as_deref().unwrap_or("no address that is reached from here");
            // Writing to a String cannot fail.
            let _ = write!(out, "# scalebeam: {when} the measurement, {} ({url}), ", target.name);
            let _ = match &page.body {
                Some(body) => {
                    writeln!(out, "asked at {asked:.6} s, answered at {answered:.6} s\n{body}")
                }
                None => writeln!(out, "no page at {asked:.6} s\n"),
            };
        }
    }
}

#[cfg(test)]
mod tests;
