//! Time as a parameter.
//!
//! No room reads a clock of its own (`clippy.toml` forbids it): the binary makes one [`Clock`] and
//! hands it down, so that a test, a simulation and a measurement differ in nothing else.

use crate::units::Nanos;

/// A monotonic clock.
///
/// The wall implementation reads `CLOCK_MONOTONIC`, whose zero is the machine's boot: two processes on
/// one machine can therefore compare instants, which is how the ground-truth server and the load
/// generator are held against each other.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present instant.
    fn now(&self) -> Nanos;

    /// Nanoseconds since the Unix epoch, for labels and file names only; never for a difference.
    fn unix_now(&self) -> Nanos;
}

/// A clock that a test sets by hand.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

impl ManualClock {
    /// Moves the clock to `now`.
    pub fn set(&self, now: Nanos) {
        self.0.store(now.0, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}
