//! Where load threads wait for each other before a phase begins.
//!
//! **Invariant:** the instant from which due times count is chosen when every thread is up and waiting,
//! so that what it costs to start a thread is not in anybody's first request.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Between the opening and the first due time, so that nobody is woken too late for it.
const HEAD_START: Nanos = Nanos::from_millis(2);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    opened_at: Option<Nanos>,
}

/// Opens once, for all.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the opening, and says from when due times count.
    pub(crate) fn pass(&self) -> Nanos {
        let mut state = self.state();
        state.waiting += 1;
        self.changed.notify_all();
        loop {
            if let Some(at) = state.opened_at {
                return at;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens once `threads` wait, and says from when due times count.
    pub(crate) fn open_for(&self, threads: usize, clock: &dyn Clock) -> Nanos {
        let mut state = self.state();
        while state.waiting < threads {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.open(clock.now() + HEAD_START)
    }

    /// Opens now, whoever waits.
    pub(crate) fn open(&self, at: Nanos) -> Nanos {
        self.state().opened_at = Some(at);
        self.changed.notify_all();
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;

    #[test]
    fn it_opens_for_all_at_one_instant_after_the_last_has_come() {
        let (gate, clock) = (Gate::default(), ManualClock::default());
        clock.set(Nanos::from_secs(7));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| gate.pass())).collect();
            let at = gate.open_for(3, &clock);
            assert_eq!(at, Nanos::from_secs(7) + HEAD_START);
            assert!(threads.into_iter().all(|t| t.join().unwrap() == at));
        });
        assert_eq!(gate.pass(), Nanos::from_secs(7) + HEAD_START, "who comes late passes at once");
    }
}
