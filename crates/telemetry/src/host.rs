//! Cores, memory, pressure and TCP of a Linux machine, by `/proc`.

use crate::readings::{Readings, Roots, Source, device, timed_text};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Part, Quantity};

/// What a file says.
type Values = Vec<(Quantity, f64)>;

/// What tasks wait for, by the name that the kernel gives it.
pub(crate) const PRESSURES: [(&str, Quantity); 3] = [
    ("cpu", Quantity::CpuPressure),
    ("memory", Quantity::MemoryPressure),
    ("io", Quantity::IoPressure),
];

/// The machine itself.
#[derive(Debug)]
pub(crate) struct Host {
    roots: Roots,
    device: Device,
    ticks_per_s: f64,
}

impl Host {
    /// # Errors
    /// Says why this machine cannot be read.
    pub(crate) fn open(roots: &Roots, host: &str) -> Result<Self, String> {
        let stat = roots.proc.join("stat");
        let text = std::fs::read_to_string(&stat);
        let text = text.map_err(|e| format!("cannot read {}: {e}", stat.display()))?;
        cores(&text, 1.0).ok_or_else(|| format!("{} has no line 'cpu'", stat.display()))?;
        Ok(Self {
            roots: roots.clone(),
            device: device(host, Part::Host, host),
            ticks_per_s: ticks_per_s(),
        })
    }
}

/// Ticks of the kernel's accounts in a second.
pub(crate) fn ticks_per_s() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

impl Source for Host {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let ticks = self.ticks_per_s;
        let mut add = |file: &str, values: &dyn Fn(&str) -> Option<Values>| {
            let read = timed_text(clock, &self.roots.proc.join(file));
            if let Some((from, to, text)) = read {
                out.add(&self.device, from, to, &values(&text).unwrap_or_default());
            }
        };
        add("stat", &|text| cores(text, ticks));
        add("meminfo", &memory);
        add("net/snmp", &tcp);
        for (name, quantity) in PRESSURES {
            add(&format!("pressure/{name}"), &|text| Some(vec![(quantity, waited(text)?)]));
        }
    }
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guests are in user and nice already.
fn cores(stat: &str, ticks_per_s: f64) -> Option<Values> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, idle, iowait, rest @ ..] = ticks.as_slice() else { return None };
    let stolen = rest.get(2).copied().unwrap_or(0.0);
    let interrupts: f64 = rest.iter().take(2).sum();
    let busy = user + nice + system + interrupts;
    let seconds = |ticks: f64| ticks / ticks_per_s;
    Some(vec![
        (Quantity::CpuBusy, seconds(busy)),
        (Quantity::CpuAll, seconds(busy + idle + iowait + stolen)),
        (Quantity::CpuStolen, seconds(stolen)),
    ])
}

/// `MemTotal:  131072000 kB`.
fn memory(meminfo: &str) -> Option<Values> {
    let bytes = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024.0)
    };
    let (total, available) = (bytes("MemTotal")?, bytes("MemAvailable")?);
    Some(vec![(Quantity::MemoryUsed, (total - available).max(0.0)), (Quantity::MemoryTotal, total)])
}

/// A line of names and one of numbers, both of which begin with `Tcp:`.
pub(crate) fn tcp(snmp: &str) -> Option<Values> {
    let mut lines = snmp.lines().filter_map(|l| l.strip_prefix("Tcp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let of = |name: &str| -> Option<f64> {
        let at = names.split_whitespace().position(|n| n == name)?;
        numbers.split_whitespace().nth(at)?.parse().ok()
    };
    Some(vec![(Quantity::TcpSent, of("OutSegs")?), (Quantity::TcpResent, of("RetransSegs")?)])
}

/// Seconds from `some avg10=0.19 avg60=0.43 avg300=0.13 total=756109`, whose total is in microseconds.
pub(crate) fn waited(pressure: &str) -> Option<f64> {
    let line = pressure.lines().find_map(|l| l.strip_prefix("some "))?;
    let total = line.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    Some(total.parse::<f64>().ok()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_with_what_others_stole() {
        let found = cores("cpu  100 20 30 800 50 5 5 40 7 7\ncpu0 1 2 3 4\n", 100.0).unwrap();
        let want = [(Quantity::CpuBusy, 1.6), (Quantity::CpuAll, 10.5), (Quantity::CpuStolen, 0.4)];
        assert_eq!(found, want);
        for text in ["", "cpu 1 2 3", "cpu a b c d e", "cpu0 1 2 3 4 5 6 7 8"] {
            assert_eq!(cores(text, 100.0), None, "{text}");
        }
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let text = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    400 kB\n";
        let want = [(Quantity::MemoryUsed, 614_400.0), (Quantity::MemoryTotal, 1_024_000.0)];
        assert_eq!(memory(text).unwrap(), want);
        assert_eq!(memory("MemTotal: 1000 kB\nMemFree: 100 kB\n"), None, "kernels before 3.14");
    }

    #[test]
    fn segments_are_found_by_their_names() {
        let text =
            "Ip: Forwarding\nIp: 1\nTcp: RtoMin InSegs OutSegs RetransSegs\nTcp: 200 7 90 3\n";
        let want = [(Quantity::TcpSent, 90.0), (Quantity::TcpResent, 3.0)];
        assert_eq!(tcp(text).unwrap(), want);
        assert_eq!(tcp("Tcp: OutSegs\n"), None);
    }

    #[test]
    fn pressure_is_a_count_of_seconds() {
        let text = "some avg10=0.19 avg60=0.43 avg300=0.13 total=756109\nfull avg10=0.00 total=1\n";
        assert_eq!(waited(text), Some(0.756_109));
        assert_eq!(waited("full total=3"), None);
    }
}
