//! What sources read, gathered by device and quantity.

use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{
    Absent, ByDevice, Device, Part, Quantity, Reading, Telemetry, series_of,
};
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Something that can be read again and again.
pub trait Source: std::fmt::Debug {
    /// A measurement is about to begin: what answers slowly is asked now, so that all are asked at once.
    fn before_begin(&mut self) {}

    /// The same of its end.
    fn before_end(&mut self) {}

    /// A measurement begins: as [`Source::read`], and what reads by itself begins to.
    fn begin(&mut self, clock: &dyn Clock, out: &mut Readings) {
        self.read(clock, out);
    }

    /// Reads it once. What is not there this time is left out.
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings);

    /// The measurement has ended: as [`Source::read`], of a time that is not before now.
    fn end(&mut self, clock: &dyn Clock, out: &mut Readings) {
        self.read(clock, out);
    }
}

/// Readings so far.
#[derive(Debug, Default)]
pub struct Readings {
    by_device: ByDevice,
    absent: BTreeSet<Absent>,
}

impl Readings {
    /// Adds values of `device` that were read between `from` and `to`.
    pub fn add(&mut self, device: &Device, from: Nanos, to: Nanos, values: &[(Quantity, f64)]) {
        if values.is_empty() {
            return;
        }
        if !self.by_device.contains_key(device) {
            self.by_device.insert(device.clone(), BTreeMap::new());
        }
        let Some(series) = self.by_device.get_mut(device) else { return };
        for (quantity, value) in values {
            series.entry(*quantity).or_default().push(Reading { from, to, value: *value });
        }
    }

    /// Notes that something could not be read, once.
    pub(crate) fn absent(&mut self, absent: Absent) {
        self.absent.insert(absent);
    }

    /// Takes the values out; what could not be read stays until the end.
    pub(crate) fn take_values(&mut self) -> Self {
        Self { by_device: std::mem::take(&mut self.by_device), absent: BTreeSet::new() }
    }

    /// Everything, with what could not be read: `absent`, and what was noted.
    pub fn finish(self, interval: Nanos, mut absent: Vec<Absent>) -> Telemetry {
        absent.extend(self.absent);
        let series = series_of(self.by_device);
        Telemetry { interval, series, absent, ..Telemetry::default() }
    }

    /// What was read of each device at each time, in order of time.
    pub(crate) fn looks(self) -> Vec<Look> {
        let mut looks = Vec::new();
        for (device, quantities) in self.by_device {
            let mut at: BTreeMap<(Nanos, Nanos), BTreeMap<Quantity, f64>> = BTreeMap::new();
            for (quantity, readings) in quantities {
                for Reading { from, to, value } in readings {
                    at.entry((from, to)).or_default().insert(quantity, value);
                }
            }
            let look = |((from, to), values)| Look { device: device.clone(), from, to, values };
            looks.extend(at.into_iter().map(look));
        }
        looks
    }
}

/// What was read of a device at one time.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) device: Device,
    pub(crate) from: Nanos,
    pub(crate) to: Nanos,
    pub(crate) values: BTreeMap<Quantity, f64>,
}

/// Where the kernel tells of itself; another place in tests.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub(crate) proc: PathBuf,
    pub(crate) sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys") }
    }
}

/// A device of `host` that no plan gives a number or a role.
pub(crate) fn device(host: &str, part: Part, name: &str) -> Device {
    Device { host: host.to_owned(), part, name: name.to_owned(), index: None, role: None }
}

/// The content of a small file of the kernel, and when it was read.
pub(crate) fn timed_text(clock: &dyn Clock, path: &Path) -> Option<(Nanos, Nanos, String)> {
    let from = clock.now();
    let text = std::fs::read_to_string(path).ok()?;
    Some((from, clock.now(), text))
}

/// A file that holds one number.
pub(crate) fn number(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
