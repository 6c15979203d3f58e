//! Wakes a poll loop at an instant, to the microsecond where the system can.
//!
//! A poll's own time-out counts whole milliseconds on Linux, so there a timer of the kernel
//! (`timerfd`) is one of the things polled. Elsewhere the time-out has to do.

use mio::{Poll, Token};
use scalebeam_model::units::Nanos;
use std::io;
use std::time::Duration;

/// At most one instant at a time.
#[derive(Debug)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
    set_to: Option<Nanos>,
}

impl Alarm {
    /// An alarm that wakes `poll` with `token`.
    #[cfg(target_os = "linux")]
    pub(crate) fn new(poll: &Poll, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = timer.as_raw_fd();
        let mut source = mio::unix::SourceFd(&raw);
        poll.registry().register(&mut source, token, mio::Interest::READABLE)?;
        Ok(Self { timer, set_to: None })
    }

    /// An alarm that wakes `poll`.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new(_: &Poll, _: Token) -> io::Result<Self> {
        Ok(Self { set_to: None })
    }

    /// Prepares for a poll that is to return at `due`, and says with which time-out to call it.
    pub(crate) fn until(&mut self, due: Option<Nanos>, now: Nanos) -> io::Result<Option<Duration>> {
        let Some(due) = due else { return Ok(None) };
        if due <= now {
            return Ok(Some(Duration::ZERO));
        }
        self.set(due, now)
    }

    #[cfg(target_os = "linux")]
    fn set(&mut self, due: Nanos, now: Nanos) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        // One that is set to earlier wakes once for nothing, which costs no more than setting it anew.
        if self.set_to.is_none_or(|set| set <= now || set > due) {
            let it_value = Timespec::try_from(due.to_std()).map_err(io::Error::other)?;
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = Itimerspec { it_interval, it_value };
            // The poll is told of edges, and setting makes a new one: the timer need not be read.
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.set_to = Some(due);
        }
        Ok(None)
    }

    #[cfg(not(target_os = "linux"))]
    fn set(&mut self, due: Nanos, now: Nanos) -> io::Result<Option<Duration>> {
        self.set_to = Some(due);
        Ok(Some(due.since(now).to_std()))
    }
}
