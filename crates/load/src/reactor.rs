//! What a load thread waits for: sockets, the next instant, a word from outside.
//!
//! **Invariants:** due times are absolute, so one late wake does not make the next late; a wait ends at
//! the instant, never before it, and early only for a socket or a word. On Linux the kernel's
//! high-resolution timer (`timerfd`) wakes the thread a little before the instant and the rest is spent
//! in a loop that looks at the sockets each time round; elsewhere timers count whole milliseconds and
//! the loop is longer.

use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long before the instant the timer wakes us, and we begin to spin: what waking a thread costs.
const SPIN: Nanos =
    if cfg!(target_os = "linux") { Nanos::from_micros(120) } else { Nanos::from_micros(1_500) };

/// Sockets that one look at the kernel brings. A longer list would only make what is due wait longer.
const BATCH: usize = 256;

const WORD: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// A socket that wants attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// What it was registered with.
    pub(crate) token: usize,
    pub(crate) writable: bool,
    /// The other side will send no more, or the connection broke.
    pub(crate) closing: bool,
}

/// Waits. Belongs to one thread.
#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    ready: Vec<Ready>,
    word: Arc<Waker>,
    alarm: alarm::Alarm,
    /// The instant that the alarm is set to.
    set_to: Option<Nanos>,
    clock: Arc<dyn Clock>,
}

impl Reactor {
    /// A reactor, and the register for the sockets that it waits for.
    ///
    /// # Errors
    /// When the system has no more of what it takes: file descriptors, mostly.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> io::Result<(Self, Registry)> {
        let poll = Poll::new()?;
        let word = Arc::new(Waker::new(poll.registry(), WORD)?);
        let alarm = alarm::Alarm::new(poll.registry())?;
        let (events, ready) = (Events::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let registry = poll.registry().try_clone()?;
        Ok((Self { poll, events, ready, word, alarm, set_to: None, clock }, registry))
    }

    /// Ends a wait from another thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.word)
    }

    /// Waits until a socket is ready, `until` has come, or a word was given.
    ///
    /// # Errors
    /// When the system cannot wait, which is a fault of ours or its.
    pub(crate) fn wait(&mut self, until: Option<Nanos>) -> io::Result<()> {
        let timeout = match until {
            None => None,
            Some(at) => self.time_until(at)?,
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        self.ready.clear();
        for event in &self.events {
            match event.token() {
                WORD => {}
                ALARM => {
                    self.alarm.clear();
                    self.set_to = None;
                }
                Token(token) => self.ready.push(ready(token, event)),
            }
        }
        Ok(())
    }

    /// How long the kernel may sleep; `None` where the alarm or a socket will end it.
    fn time_until(&mut self, at: Nanos) -> io::Result<Option<Duration>> {
        let now = self.clock.now();
        let left = at.since(now);
        if now >= at || left <= SPIN {
            return Ok(Some(Duration::ZERO));
        }
        // An alarm that is set too early costs one wake; setting it anew costs a system call.
        let fire_at = Nanos(at.0 - SPIN.0);
        if self.set_to.is_some_and(|set| set <= fire_at && set > now) {
            return Ok(self.alarm.timeout(fire_at, now));
        }
        self.alarm.set(left.since(SPIN))?;
        self.set_to = Some(fire_at);
        Ok(self.alarm.timeout(fire_at, now))
    }

    /// The `nth` socket that the last wait found ready.
    pub(crate) fn ready(&self, nth: usize) -> Option<Ready> {
        self.ready.get(nth).copied()
    }
}

fn ready(token: usize, event: &Event) -> Ready {
    Ready {
        token,
        writable: event.is_writable(),
        closing: event.is_read_closed() || event.is_write_closed() || event.is_error(),
    }
}

#[cfg(target_os = "linux")]
mod alarm {
    use super::ALARM;
    use mio::unix::SourceFd;
    use mio::{Interest, Registry};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use scalebeam_model::units::Nanos;
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    /// A kernel timer that is waited for like a socket.
    #[derive(Debug)]
    pub(super) struct Alarm(OwnedFd);

    impl Alarm {
        pub(super) fn new(registry: &Registry) -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            registry.register(&mut SourceFd(&fd.as_raw_fd()), ALARM, Interest::READABLE)?;
            Ok(Self(fd))
        }

        /// Fires `after` from now, and no more at the time that was set before.
        pub(super) fn set(&mut self, after: Nanos) -> io::Result<()> {
            let span = after.to_std().max(Duration::from_nanos(1));
            let value = Timespec::try_from(span).map_err(io::Error::other)?;
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
            Ok(())
        }

        /// It fired.
        pub(super) fn clear(&mut self) {
            // Fails where it was set anew after it had fired; it will fire again then.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }

        /// The timer itself ends the sleep.
        #[expect(clippy::unused_self, reason = "the other systems' alarm needs it")]
        pub(super) fn timeout(&self, _: Nanos, _: Nanos) -> Option<Duration> {
            None
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod alarm {
    use mio::Registry;
    use scalebeam_model::units::Nanos;
    use std::io;
    use std::time::Duration;

    /// The kernel's own time-out, which counts milliseconds.
    #[derive(Debug)]
    pub(super) struct Alarm;

    impl Alarm {
        pub(super) fn new(_: &Registry) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn set(&mut self, _: Nanos) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn clear(&mut self) {}

        pub(super) fn timeout(&self, fire_at: Nanos, now: Nanos) -> Option<Duration> {
            Some(fire_at.since(now).to_std())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MonotonicClock;

    fn reactor() -> (Reactor, Arc<dyn Clock>) {
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
        (Reactor::new(Arc::clone(&clock)).unwrap().0, clock)
    }

    fn wait_until(reactor: &mut Reactor, clock: &Arc<dyn Clock>, at: Nanos) {
        while clock.now() < at {
            reactor.wait(Some(at)).unwrap();
        }
    }

    #[test]
    fn a_wait_ends_at_its_instant() {
        let (mut reactor, clock) = reactor();
        let mut late = Vec::new();
        let mut at = clock.now();
        for step_us in [0, 50, 200, 900, 1_700, 2_300, 700, 5_100] {
            at += Nanos::from_micros(step_us);
            wait_until(&mut reactor, &clock, at);
            late.push(clock.now().since(at));
        }
        late.sort();
        assert!(late[0] < Nanos::from_millis(1), "{late:?}");
    }

    #[test]
    fn an_earlier_instant_replaces_a_later_one() {
        let (mut reactor, clock) = reactor();
        let far = clock.now() + Nanos::from_secs(100);
        reactor.time_until(far).unwrap();
        let near = clock.now() + Nanos::from_millis(3);
        wait_until(&mut reactor, &clock, near);
        assert!(clock.now() < far);
    }

    #[test]
    fn a_word_ends_a_wait_without_an_end() {
        let (mut reactor, _) = reactor();
        let waker = reactor.waker();
        std::thread::spawn(move || waker.wake().unwrap());
        reactor.wait(None).unwrap();
        assert!(reactor.ready(0).is_none());
    }
}
