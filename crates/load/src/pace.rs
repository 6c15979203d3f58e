//! Waiting for an instant of the run's clock, and reading sockets meanwhile.
//!
//! **Invariants:** due times are absolute, so one late wake does not make the next late; the wait ends
//! at the instant, never before. tokio's own timers count whole milliseconds, so on Linux the kernel's
//! high-resolution timer (`timerfd`) wakes the thread a little early and the rest is spent in a loop
//! that yields to the reactor each time round. Elsewhere tokio's timer does it, with a longer loop.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How long before the instant the timer wakes us, and we begin to spin: what waking a thread costs.
const SPIN: Nanos =
    if cfg!(target_os = "linux") { Nanos::from_micros(120) } else { Nanos::from_micros(1_500) };

/// Waits for instants of a clock. Belongs to one task.
#[derive(Debug)]
pub(crate) struct Pacer {
    clock: Arc<dyn Clock>,
    alarm: alarm::Alarm,
    /// The instant that the alarm is set to.
    set_to: Option<Nanos>,
}

impl Pacer {
    /// A pacer; to be made inside the runtime that will poll it.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> io::Result<Self> {
        Ok(Self { clock, alarm: alarm::Alarm::new()?, set_to: None })
    }

    /// Ready from the instant `at` on.
    pub(crate) fn poll_reached(&mut self, cx: &mut Context<'_>, at: Nanos) -> Poll<()> {
        loop {
            let now = self.clock.now();
            if now >= at {
                return Poll::Ready(());
            }
            let left = at.since(now);
            if left <= SPIN {
                // Comes back after the reactor has been looked at, without waking the thread by hand.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            // An alarm that is set too early costs one wake; setting it anew costs a system call.
            let fire_at = Nanos(at.0 - SPIN.0);
            if self.set_to.is_none_or(|set| set > fire_at || set <= now) {
                if self.alarm.set(left.since(SPIN)).is_err() {
                    let _ = pin!(tokio::task::yield_now()).poll(cx);
                    return Poll::Pending;
                }
                self.set_to = Some(fire_at);
            }
            if self.alarm.poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
            self.set_to = None;
        }
    }
}

#[cfg(target_os = "linux")]
mod alarm {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use scalebeam_model::units::Nanos;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub(super) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe for the sake of types that do not own their \
                    descriptor; an OwnedFd does, for as long as it is registered"
            )]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
            Ok(Self(fd))
        }

        /// Fires `after` from now, and no more at the time that was set before.
        pub(super) fn set(&mut self, after: Nanos) -> io::Result<()> {
            let span = after.to_std().max(std::time::Duration::from_nanos(1));
            let value = Timespec::try_from(span).map_err(io::Error::other)?;
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
            Ok(())
        }

        pub(super) fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            loop {
                let Poll::Ready(Ok(mut guard)) = self.0.poll_read_ready(cx) else {
                    return Poll::Pending;
                };
                let mut count = [0; 8];
                match rustix::io::read(&self.0, &mut count) {
                    Ok(_) => {
                        guard.clear_ready();
                        return Poll::Ready(());
                    }
                    // It was set anew after it had fired.
                    Err(_) => guard.clear_ready(),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod alarm {
    use scalebeam_model::units::Nanos;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::time::{Sleep, sleep};

    #[derive(Debug)]
    pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(None))
        }

        pub(super) fn set(&mut self, after: Nanos) -> io::Result<()> {
            #[expect(clippy::disallowed_methods, reason = "the coarse half of the wait")]
            let sleep = sleep(after.to_std());
            self.0 = Some(Box::pin(sleep));
            Ok(())
        }

        pub(super) fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            match &mut self.0 {
                Some(sleep) => sleep.as_mut().poll(cx),
                None => Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MonotonicClock;
    use std::future::poll_fn;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_wait_ends_at_its_instant_and_not_before() {
        runtime().block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
            let mut pacer = Pacer::new(Arc::clone(&clock)).unwrap();
            let mut late = Vec::new();
            let mut at = clock.now();
            for step_us in [0, 50, 200, 900, 1_700, 2_300, 700, 5_100] {
                at += Nanos::from_micros(step_us);
                poll_fn(|cx| pacer.poll_reached(cx, at)).await;
                let now = clock.now();
                assert!(now >= at, "woken {} early", at.since(now));
                late.push(now.since(at));
            }
            late.sort();
            assert!(late[late.len() / 2] < Nanos::from_millis(1), "{late:?}");
        });
    }

    #[test]
    fn an_earlier_instant_replaces_a_later_one() {
        runtime().block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
            let mut pacer = Pacer::new(Arc::clone(&clock)).unwrap();
            let far = clock.now() + Nanos::from_secs(100);
            let waits = poll_fn(|cx| Poll::Ready(pacer.poll_reached(cx, far).is_pending()));
            assert!(waits.await);
            let near = clock.now() + Nanos::from_millis(3);
            poll_fn(|cx| pacer.poll_reached(cx, near)).await;
            assert!(clock.now() < far);
        });
    }
}
