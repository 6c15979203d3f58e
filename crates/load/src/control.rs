//! The hand on a running phase: stop it, abort it, watch its counters.
//!
//! **Invariant:** counters are for a progress display; no result is computed from them.

use mio::Waker;
use scalebeam_model::request::RequestRecord;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How far a phase may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Run,
    Stop,
    Abort,
}

#[derive(Debug, Default)]
struct Shared {
    level: AtomicU8,
    /// Somebody wants it ended, as opposed to its own rule.
    told: AtomicBool,
    /// One per shard of the phase under way.
    wakers: Mutex<Vec<Arc<Waker>>>,
    started: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    output_tokens: AtomicU64,
}

/// Steers a phase from another thread. Clones steer the same phase; it may be used for several
/// phases in a row, of which a stop ends the one under way and all that follow.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Shared>);

/// How far a phase is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that were dispatched.
    pub started: u64,
    /// Requests that ended, in whatever way.
    pub finished: u64,
    /// Of these, those that were to be answered and were not.
    pub failed: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Output tokens of the requests that ended.
    pub output_tokens: u64,
}

impl Control {
    /// A control that lets everything run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends nothing new; what is in flight goes on to its end.
    pub fn stop(&self) {
        self.tell(Level::Stop);
    }

    /// The same, because the load itself has come to its end: what was measured is whole, and
    /// [`Control::is_stopped`] says no.
    pub fn end(&self) {
        self.raise(Level::Stop);
    }

    /// Sends nothing new and gives up what is in flight.
    pub fn abort(&self) {
        self.tell(Level::Abort);
    }

    /// Whether it was told to stop or to abort.
    pub fn is_stopped(&self) -> bool {
        self.0.told.load(Ordering::SeqCst)
    }

    /// The counters, over all phases that it steered.
    pub fn progress(&self) -> Progress {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (finished, started) = (read(&self.0.finished), read(&self.0.started));
        Progress {
            started,
            finished,
            failed: read(&self.0.failed),
            in_flight: started.saturating_sub(finished),
            output_tokens: read(&self.0.output_tokens),
        }
    }

    fn tell(&self, level: Level) {
        self.0.told.store(true, Ordering::SeqCst);
        self.raise(level);
    }

    fn raise(&self, level: Level) {
        self.0.level.fetch_max(level as u8, Ordering::SeqCst);
        for waker in self.wakers().iter() {
            // A wake that is lost is made up for by the next socket or instant.
            let _ = waker.wake();
        }
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waker>>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn level(&self) -> Level {
        match self.0.level.load(Ordering::SeqCst) {
            0 => Level::Run,
            1 => Level::Stop,
            _ => Level::Abort,
        }
    }

    /// A phase begins, whose shards are woken by these.
    pub(crate) fn attach(&self, wakers: Vec<Arc<Waker>>) {
        *self.wakers() = wakers;
    }

    pub(crate) fn count_started(&self) {
        self.0.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ended(&self, record: &RequestRecord) {
        let tokens = u64::from(record.output_tokens.unwrap_or(0));
        self.0.output_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.0.failed.fetch_add(u64::from(record.outcome.is_loss()), Ordering::Relaxed);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}
