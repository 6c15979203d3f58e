//! What a person sees meanwhile: bars on a terminal, a line a step elsewhere.

use crate::printer;
use indicatif::{ProgressBar, ProgressStyle};
use scalebeam_fleet::{Progress, State};
use scalebeam_load::Control;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{PointPlan, TrialPlan};
use scalebeam_model::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(200);

/// Between two lines of a wait.
const TELL_EVERY: Nanos = Nanos::from_secs(30);

/// When a line was last written.
#[derive(Debug)]
struct Told {
    at: Nanos,
}

impl Told {
    const fn new(now: Nanos) -> Self {
        Self { at: now }
    }

    /// Whether it is time for another; then that is it.
    fn is_due(&mut self, now: Nanos) -> bool {
        let is_due = now.since(self.at) >= TELL_EVERY;
        if is_due {
            self.at = now;
        }
        is_due
    }
}

/// The display of one run. Copies of it are the same display.
#[derive(Debug, Clone)]
pub(super) struct Display {
    interactive: bool,
    spinner: Arc<Mutex<Option<ProgressBar>>>,
}

impl Display {
    pub(super) fn new() -> Self {
        Self { interactive: printer::is_interactive(), spinner: Arc::default() }
    }

    /// Writes a line above whatever moves.
    pub(super) fn line(&self, text: &str) {
        self.clear();
        printer::say(text);
    }

    /// Removes what moves.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.spinner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the fleet says while a deployment comes up. Where nothing can move, a line is written now
    /// and then, so that a log tells a wait from a hang.
    pub(super) fn on_fleet(&self, clock: Arc<dyn Clock>) -> impl Fn(Progress) + Send + Sync + '_ {
        let last = Mutex::new((State::Absent, String::new()));
        let told = Mutex::new(Told::new(clock.now()));
        move |progress: Progress| {
            let Progress { deployment, state, text, is_queued } = progress;
            let text = if text.is_empty() { state.name().to_owned() } else { text };
            if self.interactive {
                let mut guard = self.lock();
                let bar = guard.get_or_insert_with(|| {
                    let bar = ProgressBar::new_spinner();
                    bar.enable_steady_tick(TICK);
                    bar
                });
                bar.set_message(format!("{deployment}: {text}"));
                return;
            }
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.0 != state && state == State::Starting {
                printer::say(&format!("{deployment}: starting"));
            }
            // A queue may be long, and its reason is what there is to know.
            let is_news = is_queued && last.1 != text;
            if told.lock().unwrap_or_else(PoisonError::into_inner).is_due(clock.now()) || is_news {
                printer::say(&format!("{deployment}: {text}"));
            }
            *last = (state, text);
        }
    }

    /// The bar of one trial; it lives until it is finished.
    pub(super) fn trial(
        &self,
        point: &PointPlan,
        trial: &TrialPlan,
        control: &Control,
    ) -> TrialBar {
        self.clear();
        let label = match point.trials.len() {
            1 => point.id.clone(),
            n => format!("{} trial {}/{n}", point.id, trial.number),
        };
        let warmup = point.warmup.as_ref().and_then(|w| w.requests).unwrap_or(0);
        let total = point.measure.requests.map(|n| n + warmup);
        let bar = self.interactive.then(|| bar(&label, total));
        let stop = Arc::new(AtomicBool::new(false));
        if let Some(bar) = &bar {
            let (bar, control, stop) = (bar.clone(), control.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(TICK);
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    show(&bar, &control);
                }
            });
        }
        TrialBar { label, bar, stop, control: control.clone() }
    }
}

fn bar(label: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(n) => ProgressBar::new(n),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{prefix} [{bar:30}] {pos}/{len} {msg} {elapsed}",
        None => "{prefix} {spinner} {pos} {msg} {elapsed}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(label.to_owned());
    bar
}

fn show(bar: &ProgressBar, control: &Control) {
    let p = control.progress();
    bar.set_position(p.finished);
    let failed = if p.failed > 0 { format!(", {} failed", p.failed) } else { String::new() };
    bar.set_message(format!("{} in flight{failed}", p.in_flight));
}

/// A trial that is under way.
#[derive(Debug)]
pub(super) struct TrialBar {
    label: String,
    bar: Option<ProgressBar>,
    stop: Arc<AtomicBool>,
    control: Control,
}

impl TrialBar {
    /// Ends it, with a line that stays.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let p = self.control.progress();
        let failed =
            if p.failed > 0 { format!(", {} not completed", p.failed) } else { String::new() };
        printer::say(&format!(
            "{}: {} requests, {} tokens{failed}",
            self.label, p.finished, p.output_tokens
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_every_half_minute() {
        let mut told = Told::new(Nanos::from_secs(5));
        let due: Vec<u64> = (0..100).filter(|s| told.is_due(Nanos::from_secs(*s))).collect();
        assert_eq!(due, [35, 65, 95]);
    }
}
