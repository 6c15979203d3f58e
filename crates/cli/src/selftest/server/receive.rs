//! Reading, with the kernel's own receive time where the system has it.

use mio::net::TcpStream;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io;
use std::net::TcpListener;

/// Asks the kernel to stamp what arrives. Connections inherit it from their listener.
#[cfg(target_os = "linux")]
pub(super) fn stamp_arrivals(listener: &TcpListener) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
    setsockopt(listener, ReceiveTimestampns, &true).map_err(io::Error::from)
}

/// There is nothing to ask for.
#[cfg(not(target_os = "linux"))]
pub(super) fn stamp_arrivals(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

/// Reads once: how many bytes, and when the last of them was in the kernel.
#[cfg(target_os = "linux")]
pub(super) fn receive(
    tcp: &mut TcpStream,
    into: &mut [u8],
    clock: &dyn Clock,
) -> io::Result<(usize, Nanos)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use nix::sys::time::TimeSpec;
    use std::os::fd::AsRawFd;
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [io::IoSliceMut::new(into)];
    let read = recvmsg::<()>(tcp.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let (now, unix_now) = (clock.now(), clock.unix_now());
    let stamp = read.cmsgs().ok().and_then(|mut all| {
        all.find_map(
            |c| if let ControlMessageOwned::ScmTimestampns(t) = c { Some(t) } else { None },
        )
    });
    let at = stamp.and_then(|t| {
        let seconds = u64::try_from(t.tv_sec()).ok()?;
        Some(Nanos::from_secs(seconds) + Nanos(u64::try_from(t.tv_nsec()).ok()?))
    });
    // The kernel stamps in wall time; what has passed since is the same on both clocks.
    Ok((read.bytes, at.map_or(now, |at| now.since(unix_now.since(at)))))
}

/// Reads once: how many bytes, and when.
#[cfg(not(target_os = "linux"))]
pub(super) fn receive(
    tcp: &mut TcpStream,
    into: &mut [u8],
    clock: &dyn Clock,
) -> io::Result<(usize, Nanos)> {
    use std::io::Read;
    let n = tcp.read(into)?;
    Ok((n, clock.now()))
}
