//! Reading a socket together with the instant at which the kernel had the bytes.
//!
//! A client on a busy machine reads late, and a stamp that it takes itself says when it read, not when
//! the bytes arrived. Linux stamps every received segment (`SO_TIMESTAMPNS`, see
//! `Documentation/networking/timestamping.rst` in the kernel's tree) and hands the stamp of the last
//! segment of a read out beside the bytes. Elsewhere, and where a stamp is missing or cannot be right,
//! the instant of the read stands for it, and [`Stamp::is_kernel`] says so.
//!
//! **Invariant:** both instants are kept of every read, so that their difference, the read lag, tells
//! how much of an error the kernel's stamp took away, or how much is left without it.

use mio::net::TcpStream;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

/// A kernel stamp that lies further back is not believed: the wall clock was set meanwhile.
const OLDEST: Nanos = Nanos::from_secs(60);

/// Readings of two clocks that lie no further apart were made together.
const TOGETHER: Nanos = Nanos::from_micros(5);
/// So often the clocks are compared, until the readings were made together.
const ALIGNMENTS: u32 = 8;

/// The two instants of one read, on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When the bytes were there: by the kernel where it tells, else when the read returned.
    pub(crate) at: Nanos,
    /// When the read returned.
    pub(crate) read_at: Nanos,
    /// Whether `at` is the kernel's.
    pub(crate) is_kernel: bool,
}

impl Stamp {
    /// A stamp taken by ourselves.
    pub(crate) fn own(at: Nanos) -> Self {
        Self { at, read_at: at, is_kernel: false }
    }
}

/// A socket that receives nothing. The kernel stamps as long as any socket asks for it, and takes a moment
/// to begin: kept open through a phase, this one has the first answer stamped like the last, and spares
/// the phase the switching.
#[derive(Debug)]
pub(crate) struct Keeper(#[expect(dead_code, reason = "held open")] Option<UdpSocket>);

impl Keeper {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok();
        Self(socket.inspect(kernel::watch))
    }
}

/// Reads sockets of one thread.
#[derive(Debug)]
pub(crate) struct Receiver {
    clock: Arc<dyn Clock>,
    /// The wall clock minus the run's clock: the kernel stamps by the wall clock.
    offset: i128,
    last_read: Nanos,
    kernel: kernel::Reader,
}

impl Receiver {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let mut receiver =
            Self { clock, offset: 0, last_read: Nanos::ZERO, kernel: kernel::Reader::new() };
        receiver.align();
        receiver
    }

    /// Compares the two clocks. Once per wake is enough: between two wakes a clock that is slewed at
    /// the most that the kernel allows (500 ppm) moves by half a microsecond a millisecond.
    ///
    /// A thread that loses its core between the two readings would date every stamp too early by as
    /// long as it was away. Readings that are not together are therefore made again, and where no core
    /// can be had for so long, the last good comparison stands.
    pub(crate) fn align(&mut self) {
        for _ in 0..ALIGNMENTS {
            let before = self.clock.now();
            let wall = i128::from(self.clock.unix_now().0);
            if self.clock.now().since(before) <= TOGETHER {
                self.offset = wall - i128::from(before.0);
                return;
            }
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// When the last read that brought something returned: the time, without asking for it again.
    pub(crate) fn last_read(&self) -> Nanos {
        self.last_read
    }

    /// Asks the kernel to stamp what `socket` receives. A kernel that refuses leaves us with our own.
    pub(crate) fn watch(socket: &TcpStream) {
        kernel::watch(socket);
    }

    /// Reads once.
    ///
    /// # Errors
    /// As the socket says; `WouldBlock` where nothing is there.
    pub(crate) fn receive(
        &mut self,
        socket: &TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Stamp)> {
        let (len, wall) = self.kernel.receive(socket, buffer)?;
        let read_at = self.clock.now();
        self.last_read = read_at;
        Ok((len, self.stamp(read_at, wall)))
    }

    fn stamp(&self, read_at: Nanos, wall: Option<i128>) -> Stamp {
        let at = wall.and_then(|wall| u64::try_from(wall - self.offset).ok()).map(Nanos);
        match at {
            // The offset was read earlier than the stamp: they may cross by a hair, and no more.
            Some(at) if at <= read_at && read_at.since(at) < OLDEST => {
                Stamp { at, read_at, is_kernel: true }
            }
            Some(at) if at > read_at && at.since(read_at) < Nanos::from_micros(50) => {
                Stamp { at: read_at, read_at, is_kernel: true }
            }
            _ => Stamp::own(read_at),
        }
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use mio::net::TcpStream;
    use nix::sys::socket::{
        ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
    };
    use nix::sys::time::TimeSpec;
    use std::io::{self, IoSliceMut};
    use std::os::fd::{AsFd, AsRawFd};

    #[derive(Debug)]
    pub(super) struct Reader {
        /// Where the kernel writes the stamp.
        control: Vec<u8>,
    }

    impl Reader {
        pub(super) fn new() -> Self {
            Self { control: nix::cmsg_space!(TimeSpec) }
        }

        /// The bytes read, and when the last of them arrived by the wall clock, in nanoseconds.
        pub(super) fn receive(
            &mut self,
            socket: &TcpStream,
            buffer: &mut [u8],
        ) -> io::Result<(usize, Option<i128>)> {
            let mut slices = [IoSliceMut::new(buffer)];
            let read = recvmsg::<()>(
                socket.as_raw_fd(),
                &mut slices,
                Some(&mut self.control),
                MsgFlags::empty(),
            )?;
            Ok((read.bytes, stamp_of(&read)))
        }
    }

    fn stamp_of(read: &RecvMsg<'_, '_, ()>) -> Option<i128> {
        read.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(at) if at.tv_sec() > 0 => {
                Some(i128::from(at.tv_sec()) * 1_000_000_000 + i128::from(at.tv_nsec()))
            }
            _ => None,
        })
    }

    pub(super) fn watch(socket: &impl AsFd) {
        let _ = setsockopt(socket, ReceiveTimestampns, &true);
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use mio::net::TcpStream;
    use std::io::{self, Read};

    #[derive(Debug)]
    pub(super) struct Reader;

    impl Reader {
        pub(super) fn new() -> Self {
            Self
        }

        pub(super) fn receive(
            &mut self,
            socket: &TcpStream,
            buffer: &mut [u8],
        ) -> io::Result<(usize, Option<i128>)> {
            let mut socket = socket;
            Ok((socket.read(buffer)?, None))
        }
    }

    pub(super) fn watch<S>(_: &S) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MonotonicClock;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    fn receiver() -> Receiver {
        Receiver::new(Arc::new(MonotonicClock))
    }

    #[test]
    fn a_stamp_that_cannot_be_right_is_not_believed() {
        let r = Receiver { offset: 1_000_000, ..receiver() };
        let read_at = Nanos::from_secs(100);
        let wall = |at: Nanos| Some(i128::from(at.0) + 1_000_000);
        let early = Nanos(read_at.0 - 30_000);
        assert_eq!(r.stamp(read_at, wall(early)), Stamp { at: early, read_at, is_kernel: true });
        let by_a_hair = Nanos(read_at.0 + 2_000);
        assert_eq!(r.stamp(read_at, wall(by_a_hair)).at, read_at);
        for (wall, why) in [
            (None, "none was given"),
            (wall(Nanos::from_secs(200)), "the future"),
            (wall(Nanos::from_secs(3)), "long ago"),
            (Some(7), "before the clock began"),
        ] {
            assert_eq!(r.stamp(read_at, wall), Stamp::own(read_at), "{why}");
        }
    }

    /// A clock whose reader is put aside for a while at given readings.
    #[derive(Debug, Default)]
    struct Interrupted {
        now: AtomicU64,
        readings: AtomicU64,
        /// From this reading on, and for how many.
        at: AtomicU64,
        times: AtomicU64,
    }

    impl Interrupted {
        fn read(&self) -> Nanos {
            let reading = self.readings.fetch_add(1, Ordering::Relaxed);
            let (at, times) = (self.at.load(Ordering::Relaxed), self.times.load(Ordering::Relaxed));
            let is_away = (at..at + times).contains(&reading);
            let step = if is_away { 3_000_000 } else { 30 };
            Nanos(self.now.fetch_add(step, Ordering::Relaxed) + step)
        }

        /// The reader is put aside before each of the next readings but the first.
        fn interrupt(&self, times: u64) {
            self.at.store(self.readings.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.times.store(times, Ordering::Relaxed);
        }
    }

    impl Clock for Interrupted {
        fn now(&self) -> Nanos {
            self.read()
        }

        fn unix_now(&self) -> Nanos {
            self.read() + Nanos::from_secs(1_000)
        }
    }

    #[test]
    fn a_thread_that_is_put_aside_between_the_clocks_shifts_no_stamp() {
        let clock = Arc::new(Interrupted::default());
        let mut r = Receiver::new(clock.clone());
        let honest = i128::from(Nanos::from_secs(1_000).0);
        let is_honest = |r: &Receiver| (r.offset - honest).abs() < 100;
        assert!(is_honest(&r), "{}", r.offset);
        for times in [1, 2, 5, 100] {
            clock.interrupt(times);
            r.align();
            assert!(is_honest(&r), "{times} times put aside: {}", r.offset);
        }
        // Never a quiet moment: our own instants are taken, and marked as such.
        let clock =
            Arc::new(Interrupted { times: AtomicU64::new(1_000), ..Interrupted::default() });
        let r = Receiver::new(clock);
        let (read_at, wall) = (Nanos::from_secs(5), i128::from(Nanos::from_secs(1_005).0));
        assert_eq!(r.stamp(read_at, Some(wall)), Stamp::own(read_at));
    }

    /// What this is all for: bytes that lie unread are stamped when they came.
    #[test]
    fn a_late_read_has_an_early_stamp() {
        let clock = MonotonicClock;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Receiver::watch(&near);
        let (mut far, _) = listener.accept().unwrap();
        let mut r = receiver();
        let mut buffer = [0; 64];
        // The kernel begins to stamp a moment after the first socket has asked for it.
        for attempt in 0.. {
            let before = clock.now();
            far.write_all(b"hello").unwrap();
            let after = clock.now();
            std::thread::sleep(Duration::from_millis(20));
            r.align();
            let (len, stamp) = r.receive(&near, &mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"hello");
            assert!(stamp.read_at >= after && stamp.at <= stamp.read_at);
            if stamp.is_kernel {
                let slack = Nanos::from_micros(50);
                assert!(stamp.at + slack >= before && stamp.at <= after + slack, "{stamp:?}");
                break;
            }
            assert!(!cfg!(target_os = "linux") || attempt < 100, "no stamp from the kernel");
            if !cfg!(target_os = "linux") {
                break;
            }
        }
        let nothing = r.receive(&near, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"x").unwrap();
    }
}
