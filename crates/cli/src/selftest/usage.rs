//! What this process has cost so far.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// User and system time of all threads of this process, those that have ended included.
pub(crate) fn cpu() -> Nanos {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Nanos::from_secs(part(spent.tv_sec)) + Nanos(part(spent.tv_nsec))
}

/// The same of another process that is not waited for yet, without its children; absent where the system
/// does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_of(process: rustix::process::Pid) -> Option<Nanos> {
    use nix::sys::time::TimeValLike;
    let process = nix::unistd::Pid::from_raw(process.as_raw_nonzero().get());
    let spent = nix::time::clock_getcpuclockid(process).and_then(nix::time::ClockId::now).ok()?;
    u64::try_from(spent.num_nanoseconds()).ok().map(Nanos)
}

/// The same of another process, which this system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_of(_: rustix::process::Pid) -> Option<Nanos> {
    None
}

/// The most memory that was resident at once, in bytes; absent where `/proc` does not tell.
pub(crate) fn peak_rss() -> Option<u64> {
    // Not getrusage: its figure is inherited over exec from the process that started this one.
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The 1-minute load average of the machine; absent where `/proc` does not tell.
pub(crate) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Between two looks at the CPU clock: each look costs some microseconds and is part of what is seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at the CPU clock now and then, so that it can be told afterwards what it said at an instant that
/// nobody knew of beforehand.
#[derive(Debug)]
pub(crate) struct CpuWatch {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Look>>,
}

/// What a CPU clock said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: Nanos,
    /// CPU time until then.
    pub(crate) cpu: Nanos,
}

impl CpuWatch {
    /// Begins.
    pub(crate) fn start(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let watch = move || {
            let look = || Look { at: clock.now(), cpu: cpu() };
            let mut looks = vec![look()];
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                looks.push(look());
            }
            looks
        };
        let thread = std::thread::Builder::new().name("cpu-watch".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread })
    }

    /// Ends the looking: no instant that is asked for lies ahead.
    pub(crate) fn enough(&self) {
        // Where the thread has ended already, there is nothing to tell it.
        let _ = self.stop.send(());
    }

    /// CPU time that was spent since `instant`.
    pub(crate) fn spent_since(self, instant: Nanos) -> Nanos {
        let spent = cpu();
        drop(self.stop);
        let looks = self.thread.join().unwrap_or_default();
        spent.since(between(&looks, instant))
    }
}

/// The CPU clock at `instant`, by a line between the looks around it.
pub(crate) fn between(looks: &[Look], instant: Nanos) -> Nanos {
    let after = looks.partition_point(|l| l.at <= instant);
    let Some(before) = after.checked_sub(1).map(|i| looks[i]) else {
        return looks.first().map_or(Nanos::ZERO, |l| l.cpu);
    };
    let Some(after) = looks.get(after) else { return before.cpu };
    let part = instant.since(before.at).as_secs_f64() / after.at.since(before.at).as_secs_f64();
    before.cpu + Nanos::from_secs_f64(after.cpu.since(before.cpu).as_secs_f64() * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status() {
        let status = "Name:\tx\nVmPeak:\t  100 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(peak_of(status), Some(2048 * 1024));
        assert_eq!(peak_of("Name:\tx\n"), None);
    }

    #[test]
    fn cpu_at_an_instant_lies_between_two_looks() {
        let look = |at, cpu| Look { at: Nanos(at), cpu: Nanos(cpu) };
        let looks = [look(100, 10), look(200, 20), look(300, 60)];
        for (at, want) in [(50, 10), (100, 10), (150, 15), (200, 20), (250, 40), (999, 60)] {
            assert_eq!(between(&looks, Nanos(at)), Nanos(want), "at {at}");
        }
        assert_eq!(between(&[], Nanos(5)), Nanos::ZERO);
    }
}
