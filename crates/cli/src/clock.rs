//! The one clock of the program.

use rustix::time::{ClockId, clock_gettime};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::sync::Arc;
use std::time::Duration;

/// `CLOCK_MONOTONIC`: comparable between processes of one machine, never set back.
#[derive(Debug)]
pub(crate) struct WallClock;

impl WallClock {
    pub(crate) fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

/// Waits about `span`: for looking again, and not for pacing.
pub(crate) async fn pause(span: Duration) {
    // Never done: the time-out is the pause.
    let _ = tokio::time::timeout(span, std::future::pending::<()>()).await;
}

fn read(id: ClockId) -> Nanos {
    let t = clock_gettime(id);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Nanos(seconds * 1_000_000_000 + nanos)
}

impl Clock for WallClock {
    fn now(&self) -> Nanos {
        read(ClockId::Monotonic)
    }

    fn unix_now(&self) -> Nanos {
        read(ClockId::Realtime)
    }
}
