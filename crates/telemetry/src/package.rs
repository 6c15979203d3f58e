//! Energy of processor packages and their memory, by RAPL (`/sys/class/powercap`).
//!
//! The kernel's counter wraps at `max_energy_range_uj`; it is unwrapped here, since only who reads it often
//! enough can tell a wrap from a fresh start.

use crate::readings::{Readings, Roots, Source, device, number};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Part, Quantity};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Every zone that has a counter.
#[derive(Debug)]
pub(crate) struct Packages(Vec<Zone>);

#[derive(Debug)]
struct Zone {
    device: Device,
    counter: PathBuf,
    range_uj: Option<f64>,
    last_uj: f64,
    wrapped_uj: f64,
}

impl Packages {
    /// # Errors
    /// Says why there is no counter, or who may read it.
    pub(crate) fn open(roots: &Roots, host: &str) -> Result<Self, String> {
        let dir = roots.sys.join("class/powercap");
        let entries = std::fs::read_dir(&dir)
            .map_err(|e| format!("no energy counter of the processors: {}: {e}", dir.display()))?;
        let mut zones = Vec::new();
        let mut refused = None;
        for path in entries.flatten().map(|e| e.path()) {
            let counter = path.join("energy_uj");
            if !counter.exists() {
                continue;
            }
            match std::fs::read_to_string(&counter) {
                Ok(_) => zones.extend(Zone::open(host, &path, counter)),
                Err(e) => refused = Some(why_unread(&counter, &e)),
            }
        }
        zones.sort_by(|a, b| a.device.cmp(&b.device));
        match (zones.is_empty(), refused) {
            // A sum over some of the zones is not the sum.
            (_, Some(why)) => Err(why),
            (false, None) => Ok(Self(zones)),
            (true, None) => Err(format!("{} has no energy counter", dir.display())),
        }
    }
}

/// Since CVE-2020-8694 only root may read these counters, which many take for a machine without them.
fn why_unread(counter: &Path, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            ": only root may; 'chmod -R a+r /sys/class/powercap' as root lets others until the next start"
        }
        _ => "",
    };
    format!("cannot read {}: {error}{hint}", counter.display())
}

impl Zone {
    /// `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it.
    fn open(host: &str, dir: &Path, counter: PathBuf) -> Option<Self> {
        let zone = dir.file_name()?.to_str()?;
        let called = std::fs::read_to_string(dir.join("name")).ok()?;
        Some(Self {
            device: device(host, Part::Package, &format!("{zone} {}", called.trim())),
            range_uj: number(&dir.join("max_energy_range_uj")),
            last_uj: number(&counter)?,
            counter,
            wrapped_uj: 0.0,
        })
    }

    /// Joules since some time, without wraps.
    fn joules(&mut self) -> Option<f64> {
        let now = number(&self.counter)?;
        if now < self.last_uj {
            // Without a range it is a fresh start, which whoever looks at the numbers will see.
            self.wrapped_uj += self.range_uj.unwrap_or(0.0);
        }
        self.last_uj = now;
        Some((self.wrapped_uj + now) / 1e6)
    }
}

impl Source for Packages {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        for zone in &mut self.0 {
            let from = clock.now();
            if let Some(joules) = zone.joules() {
                out.add(&zone.device, from, clock.now(), &[(Quantity::Energy, joules)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::units::Nanos;

    fn zone(tree: &Path, name: &str, called: &str, uj: &str) -> PathBuf {
        let dir = tree.join("class/powercap").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in
            [("name", called), ("energy_uj", uj), ("max_energy_range_uj", "1000000000")]
        {
            std::fs::write(dir.join(file), text).unwrap();
        }
        dir.join("energy_uj")
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { sys: tree.path().to_owned(), ..Roots::default() };
        assert!(Packages::open(&roots, "a").unwrap_err().contains("powercap"));
        std::fs::create_dir_all(tree.path().join("class/powercap/intel-rapl")).unwrap();
        assert!(Packages::open(&roots, "a").unwrap_err().contains("has no energy counter"));
        let counter = zone(tree.path(), "intel-rapl:0", "package-0\n", "999000000\n");
        let mut packages = Packages::open(&roots, "a").unwrap();
        let mut readings = Readings::default();
        for uj in ["999500000", "500000", "1500000"] {
            std::fs::write(&counter, uj).unwrap();
            packages.read(&ManualClock::default(), &mut readings);
        }
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        let joules: Vec<f64> = found.series[0].readings.iter().map(|r| r.value).collect();
        assert_eq!(joules, [999.5, 1000.5, 1001.5]);
        assert_eq!(found.series[0].device.name, "intel-rapl:0 package-0");
    }
    #[test]
    fn counters_that_only_root_may_read_are_absent_with_what_to_do() {
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        let why = why_unread(Path::new("/sys/class/powercap/intel-rapl:0/energy_uj"), &denied);
        assert!(why.contains("intel-rapl:0/energy_uj") && why.contains("only root may"), "{why}");
        // A zone that cannot be read leaves none: what is left would look like the whole.
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { sys: tree.path().to_owned(), ..Roots::default() };
        zone(tree.path(), "intel-rapl:0", "package-0", "1");
        std::fs::create_dir_all(tree.path().join("class/powercap/intel-rapl:1/energy_uj")).unwrap();
        let why = Packages::open(&roots, "a").unwrap_err();
        assert!(why.starts_with("cannot read ") && why.contains("intel-rapl:1"), "{why}");
    }
}
