//! The cost guard: a run that has taken what it may is stopped as Ctrl-C stops it.
//!
//! **Invariant:** what the guard does is to ask, through the same channel as the user. So a bring-up is
//! cancelled, a load is drained and sealed, everything is taken down and the run can be resumed, without
//! a second way of stopping.

use super::{Campaign, search};
use crate::exit::Failure;
use crate::interrupt::Asked;
use crate::printer;
use scalebeam_model::clock::Clock;
use scalebeam_model::limit::{Limit, Meter, Reached, Spent};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks at what was spent.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Points that are named where they were not measured.
const NAMED: usize = 8;

/// What was spent when a limit was reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stop {
    reached: Reached,
    spent: Spent,
}

#[derive(Debug)]
struct State {
    meter: Meter,
    stop: Option<Stop>,
}

/// Watches what a session of a run spends.
#[derive(Debug)]
pub(super) struct Guard {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    watching: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

impl Guard {
    /// Watches from now on, where there is a limit, and asks through `ask`. Must be called on the runtime.
    pub(super) fn watch(limit: Limit, clock: &Arc<dyn Clock>, ask: watch::Sender<Asked>) -> Self {
        let state = Arc::new(Mutex::new(State { meter: Meter::new(limit), stop: None }));
        let watching = (!limit.is_none()).then(|| {
            let (state, clock) = (Arc::clone(&state), Arc::clone(clock));
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(LOOK_EVERY);
                loop {
                    tick.tick().await;
                    if look(&mut lock(&state), clock.now(), &ask) {
                        return;
                    }
                }
            })
        });
        Self { state, clock: Arc::clone(clock), watching }
    }

    /// A deployment begins to come up.
    pub(super) fn begin(&self, price_per_hour: Option<f64>) {
        lock(&self.state).meter.begin(self.clock.now(), price_per_hour);
    }

    /// It is gone.
    pub(super) fn end(&self) {
        lock(&self.state).meter.end(self.clock.now());
    }

    /// The limit that stopped the run, and what is spent by now.
    fn stopped(&self) -> Option<(Stop, Spent)> {
        let state = lock(&self.state);
        state.stop.map(|stop| (stop, state.meter.spent(self.clock.now())))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks to stop where a limit is reached; whether it is. Who was asked to stop before is not asked again:
/// a second time would end what is in flight.
fn look(state: &mut State, now: Nanos, ask: &watch::Sender<Asked>) -> bool {
    let Some(reached) = state.meter.reached(now) else { return false };
    let is_new = ask.send_if_modified(|asked| {
        let is_new = *asked == Asked::Not;
        *asked = (*asked).max(Asked::Once);
        is_new
    });
    if is_new {
        state.stop = Some(Stop { reached, spent: state.meter.spent(now) });
        printer::say(&format!(
            "{reached} is reached: finishing what is in flight, then taking down (Ctrl-C: at once)"
        ));
    }
    true
}

impl Campaign<'_> {
    /// The limit that ended the command, and what was spent; nothing where none did.
    pub(super) fn limit_reached(&self) -> Option<String> {
        let (Stop { reached, spent }, by_now) = self.guard.stopped()?;
        let mut text = format!("stopped at {reached}, after {spent}");
        if by_now.up > spent.up {
            text += &format!("; {by_now} with draining and teardown");
        }
        Some(text)
    }

    /// Why the limit ended the run, and what is missing for it; nothing where it did not.
    pub(super) fn stopped_by_limit(&self) -> Result<Option<String>, Failure> {
        let Some(mut text) = self.limit_reached() else { return Ok(None) };
        let missing = self.not_measured()?;
        if !missing.is_empty() {
            text += &format!("\nnot measured: {}", named(&missing));
        }
        Ok(Some(text))
    }

    /// Points with their trials that are missing, and searches that have not come to their end.
    fn not_measured(&self) -> Result<Vec<String>, Failure> {
        let mut trials: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (point, _) in self.writer.remaining()? {
            if !self.is_selected(point) || self.prepared.is_skipped(&point.deployment) {
                continue;
            }
            trials.entry(&point.id).or_insert((0, point.trials.len())).0 += 1;
        }
        // In the order of the file, whatever round comes next.
        let of_plan = self.writer.plan().points.iter().map(|p| p.id.as_str());
        let order: Vec<&str> = of_plan.filter(|id| trials.contains_key(id)).collect();
        let words = |id: &&str| match trials.get(id) {
            Some((left, all)) if left < all => format!("{id} ({left} of {all} trials)"),
            _ => (*id).to_owned(),
        };
        let mut missing: Vec<String> = order.iter().map(words).collect();
        let all = self.loaded.plan.deployments.iter();
        for deployment in all.filter(|d| !self.prepared.is_skipped(&d.name)) {
            let unfinished = search::unfinished(&self.writer, &self.loaded.plan, &deployment.name)?;
            missing.extend(unfinished.iter().map(|s| format!("search {}", s.name())));
        }
        Ok(missing)
    }
}

/// The first few, and how many more.
fn named(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text += &format!(" and {} more", all.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(limit: Limit) -> State {
        let mut meter = Meter::new(limit);
        meter.begin(Nanos::ZERO, Some(3_600.0));
        State { meter, stop: None }
    }

    #[test]
    fn a_limit_asks_once_and_knows_what_was_spent() {
        let (ask, asked) = watch::channel(Asked::Not);
        let mut state = state(Limit { wall: None, spend: Some(60.0) });
        assert!(!look(&mut state, Nanos::from_secs(59), &ask));
        assert_eq!(*asked.borrow(), Asked::Not);
        assert!(look(&mut state, Nanos::from_secs(61), &ask));
        assert_eq!(*asked.borrow(), Asked::Once);
        let stop = state.stop.unwrap();
        assert_eq!(stop.reached, Reached::Spend(60.0));
        assert_eq!(stop.spent.to_string(), "1.02 min up, which cost about 61.0");
    }

    #[test]
    fn whoever_asked_before_is_not_hurried() {
        for before in [Asked::Once, Asked::Twice] {
            let (ask, asked) = watch::channel(before);
            let mut state = state(Limit { wall: Some(Nanos::from_secs(1)), spend: None });
            assert!(look(&mut state, Nanos::from_secs(2), &ask));
            assert_eq!(*asked.borrow(), before);
            assert_eq!(state.stop, None, "the user stopped it");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let all: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
        assert_eq!(named(&all[..2]), "p0, p1");
        assert_eq!(named(&all), "p0, p1, p2, p3, p4, p5, p6, p7 and 2 more");
    }
}
