//! What the unit tests share.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;

/// `CLOCK_MONOTONIC`.
#[derive(Debug)]
pub(crate) struct MonotonicClock;

fn read(clock: rustix::time::ClockId) -> Nanos {
    let t = rustix::time::clock_gettime(clock);
    Nanos(u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap())
}

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        read(rustix::time::ClockId::Monotonic)
    }

    fn unix_now(&self) -> Nanos {
        read(rustix::time::ClockId::Realtime)
    }
}
