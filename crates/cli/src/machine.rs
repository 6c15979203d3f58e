//! How busy this machine is, by the kernel's own count.

use scalebeam_model::units::Nanos;

/// Time of all cores since the machine was started, in ticks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    busy: u64,
    all: u64,
}

impl Cores {
    /// As it is now; absent where `/proc` does not tell.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; what guests used is in the
    /// user's time already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, iowait, rest @ ..] = ticks.as_slice() else { return None };
        let interrupts: u64 = rest.iter().take(3).sum();
        let busy = user + system + interrupts;
        // Work that was made nice gives way, so it keeps nobody waiting.
        Some(Self { busy, all: busy + nice + idle + iowait })
    }

    /// The part of all cores that was in use from `earlier` to `self`; absent below a time that ticks of
    /// 10 ms can tell.
    pub(crate) fn busy_since(self, earlier: Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all)?;
        let busy = self.busy.checked_sub(earlier.busy)?;
        (all >= FEWEST_TICKS).then(|| busy as f64 / all as f64)
    }
}

/// Of all cores together; half a second of one.
const FEWEST_TICKS: u64 = 50;
/// Below this a phase is all start and end.
const SHORTEST: Nanos = Nanos::from_millis(200);

/// CPU time over wall time; absent where there is too little of the latter.
pub(crate) fn cpu_share(cpu: Nanos, wall: Nanos) -> Option<f64> {
    (wall >= SHORTEST).then(|| cpu.as_secs_f64() / wall.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_all_cores_are_read() {
        let cores = Cores::parse("cpu  100 20 30 800 50 5 5 40 7 7\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
        assert_eq!(cores, Some(Cores { busy: 180, all: 1_050 }));
        for text in ["", "cpu 1 2 3", "cpu a b c d e", "cpu0 1 2 3 4 5 6 7 8"] {
            assert_eq!(Cores::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_needs_time_to_be_one_of() {
        let at = |busy, all| Cores { busy, all };
        assert_eq!(at(175, 300).busy_since(at(100, 200)), Some(0.75));
        assert_eq!(at(100, 249).busy_since(at(100, 200)), None);
        assert_eq!(at(0, 0).busy_since(at(100, 200)), None, "the count began anew");
        assert_eq!(cpu_share(Nanos::from_millis(100), Nanos::from_millis(400)), Some(0.25));
        assert_eq!(cpu_share(Nanos::from_millis(100), Nanos::from_millis(199)), None);
    }
}
