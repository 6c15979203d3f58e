//! Pages that are made here, so that what comes of them is known.

use super::*;
use scalebeam_model::clock::ManualClock;
use scalebeam_model::engine_metrics::{Gap, Part, Reading};
use scalebeam_model::plan::Role;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

/// Each answer counts one more; `slow` targets wait until they are let go.
#[derive(Debug, Default)]
struct Counting {
    asked: AtomicU32,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
    go: Notify,
}

impl Pages for Counting {
    async fn read(&self, url: &str) -> Option<String> {
        if url.contains("silent") {
            return None;
        }
        if url.contains("slow") {
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            self.go.notified().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
        }
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        Some(format!("vllm:num_requests_waiting {n}\nvllm:num_preemptions_total {n}\n"))
    }
}

/// Time that passes by itself: a thousandth of a second a look at the clock.
#[derive(Debug, Default)]
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Nanos {
        let now = self.0.now();
        self.0.set(Nanos(now.0 + 1_000_000));
        now
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}

fn target(url: Option<&str>) -> MetricsTarget {
    let url = url.map(str::to_owned);
    MetricsTarget { name: "one".to_owned(), url, part: Part::Engine, role: Role::Aggregated }
}

fn scraper(pages: &Arc<Counting>, targets: Vec<MetricsTarget>) -> Scraper<Counting> {
    let interval = Nanos::from_millis(10);
    Scraper { pages: Arc::clone(pages), clock: Arc::new(Ticking::default()), interval, targets }
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn counts_span_the_measurement_and_levels_are_of_within() {
    let pages = Arc::new(Counting::default());
    let scraping = scraper(&pages, vec![target(Some("http://h:1"))]).begin().await;
    until(|| pages.asked.load(Ordering::SeqCst) >= 4).await;
    let scraped = scraping.end().await.unwrap();
    let last = f64::from(pages.asked.load(Ordering::SeqCst) - 1);
    let values = &scraped.readings.instances[0].values;
    assert_eq!(values[&Word::Preemptions], Reading::Counter { risen: last });
    let Reading::Level { max, samples, .. } = values[&Word::Queued] else { panic!("{values:?}") };
    assert!(samples >= 2 && max < last, "neither the page before nor the one after: {values:?}");
    assert_eq!(scraped.looks.len(), usize::try_from(samples).unwrap());
    assert_eq!(scraped.readings.samples(Word::Queued).len(), scraped.looks.len());
    let said = &scraped.looks[0][0];
    assert!(said.asked_at < said.answered_at);
    let headings = scraped.pages.lines().filter(|l| l.starts_with("# scalebeam: "));
    let headings: Vec<&str> = headings.collect();
    assert_eq!(headings.len(), 2, "{}", scraped.pages);
    assert!(
        headings[0].starts_with("# scalebeam: before the measurement, one (http://h:1), asked")
    );
    assert!(headings[1].starts_with("# scalebeam: after the measurement"));
    assert!(scraped.pages.contains("vllm:num_preemptions_total 0\n"), "{}", scraped.pages);
}

#[tokio::test]
async fn a_slow_engine_is_asked_for_one_page_at_a_time() {
    let pages = Arc::new(Counting::default());
    let targets = vec![target(Some("http://slow")), target(Some("http://h:1"))];
    let beginning = tokio::spawn(scraper(&pages, targets).begin());
    let mut scraping = None;
    let mut beginning = Some(beginning);
    for _ in 0..3 {
        until(|| pages.at_once.load(Ordering::SeqCst) == 1).await;
        pages.go.notify_one();
        if let Some(begun) = beginning.take() {
            scraping = Some(begun.await.unwrap());
        }
    }
    let ending = tokio::spawn(scraping.unwrap().end());
    let ended = async {
        while !ending.is_finished() {
            pages.go.notify_one();
            tokio::task::yield_now().await;
        }
    };
    ended.await;
    let scraped = ending.await.unwrap().unwrap();
    assert_eq!(pages.most_at_once.load(Ordering::SeqCst), 1);
    assert!(scraped.looks.iter().all(|look| look.len() == 2));
}

#[tokio::test]
async fn what_does_not_answer_or_has_no_address_is_missing() {
    let pages = Arc::new(Counting::default());
    let targets = vec![target(Some("http://silent")), target(None), target(Some("http://h:1"))];
    let scraping = scraper(&pages, targets).begin().await;
    until(|| pages.asked.load(Ordering::SeqCst) >= 2).await;
    let scraped = scraping.end().await.unwrap();
    for instance in &scraped.readings.instances[..2] {
        assert_eq!(instance.values[&Word::Queued], Reading::Absent(Gap::NotRead));
        assert_eq!(instance.reads, 0);
    }
    assert_eq!(scraped.readings.gap(Word::Preemptions), Some(Gap::NotRead), "no sum over some");
    assert!(scraped.readings.samples(Word::Queued).is_empty());
    assert!(scraped.pages.contains("one (no address that is reached from here), no page at"));
}

#[tokio::test]
async fn who_is_dropped_looks_no_more() {
    let pages = Arc::new(Counting::default());
    let scraping = scraper(&pages, vec![target(Some("http://h:1"))]).begin().await;
    let Scraping { stop, work } = scraping;
    drop(stop);
    let state = work.await.unwrap();
    let asked = pages.asked.load(Ordering::SeqCst);
    drop(state);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pages.asked.load(Ordering::SeqCst), asked);
}
