//! What the load costs the machine that makes it.

use scalebeam_model::units::Nanos;

/// CPU time of the calling thread; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn of_this_thread() -> Option<Nanos> {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(spent.tv_sec).ok()?;
    Some(Nanos::from_secs(seconds) + Nanos(u64::try_from(spent.tv_nsec).ok()?))
}

/// CPU time of the calling thread; `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of_this_thread() -> Option<Nanos> {
    None
}
