//! Logs of GPU power that other tools left, and what can be said from one; and seed 4's own form of it, written from
//! our readings.

use super::table::{Maker, Row, Table};
use super::usage::{Allocated, AllocatedGpu, Usage, usage};
use super::window::Window;
use super::{Device, Part, Quantity, Reading, Series, Telemetry, civil};
use crate::import::ImportFlaw;
use crate::plan::Role;
use crate::units::Nanos;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Seed 4 takes a GPU for busy above this utilisation, in percent.
pub const BUSY_PCT: f64 = 5.0;

/// A log that was read. Its times are nanoseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerLog {
    /// Who wrote it.
    pub maker: String,
    /// Its rows.
    pub telemetry: Telemetry,
}

/// What can be said of the power in a log, over a window of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PowerSummary {
    /// Who wrote it.
    pub maker: String,
    /// GPUs in it.
    pub gpus: usize,
    /// Rows with power, of all GPUs.
    pub samples: usize,
    /// From row to row of a GPU, in seconds: the median.
    pub interval_s: f64,
    /// Begin of the window, in seconds since the Unix epoch.
    pub from_unix_s: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Energy of all GPUs over the window.
    pub energy_j: Option<f64>,
    /// That / time: power of all GPUs together.
    pub power_w: Option<f64>,
    /// Seed 4's own number: the mean of all rows of the log with more than 5 % utilisation, watts of one GPU.
    pub busy_sample_power_w: Option<f64>,
    /// What speaks against these numbers, each under a stable code.
    pub flaws: Vec<ImportFlaw>,
}

/// Reads a log of whichever form; `host` is what its machine is called where the log does not say.
///
/// # Errors
/// When it is none that is known, or has no power at a time.
pub fn read(text: &str, host: &str) -> Result<PowerLog, String> {
    let read_as = |maker: Maker| {
        let mut table = Table::new(maker);
        let rows: Vec<Row> = text.lines().filter_map(|line| table.row(host, line)).collect();
        (table, rows)
    };
    let values = |rows: &[Row]| rows.iter().map(|row| row.values.len()).sum::<usize>();
    let all = Maker::ALL.into_iter().map(read_as).filter(|(table, _)| table.has_head());
    let best = all.max_by_key(|(_, rows)| values(rows));
    let (table, rows) = best.ok_or("its first line is the head of no log that is known")?;
    let telemetry = gathered(&rows)?;
    Ok(PowerLog { maker: table.maker().to_owned(), telemetry })
}

/// Rows as readings, in order of time; a row that was written twice is one.
fn gathered(rows: &[Row]) -> Result<Telemetry, String> {
    let mut found: BTreeMap<(Device, Quantity), BTreeMap<u64, f64>> = BTreeMap::new();
    for row in rows {
        let Some(Nanos(at)) = row.time.as_deref().and_then(civil::parse) else { continue };
        for (quantity, value) in &row.values {
            let key = (row.device.clone(), *quantity);
            // The first is kept: some monitors repeat their last row, torn, when they are stopped.
            found.entry(key).or_default().entry(at).or_insert(*value);
        }
    }
    let series: Vec<Series> = found
        .into_iter()
        .map(|((device, quantity), values)| {
            let reading = |(at, value)| Reading { from: Nanos(at), to: Nanos(at), value };
            Series { device, quantity, readings: values.into_iter().map(reading).collect() }
        })
        .collect();
    if !series.iter().any(|s| s.quantity == Quantity::Power) {
        return Err("it has no row with a time and a power".to_owned());
    }
    Ok(Telemetry { interval: interval(&series), series, ..Telemetry::default() })
}

/// The median step of power; a second where there is none.
fn interval(series: &[Series]) -> Nanos {
    let of_power = series.iter().filter(|s| s.quantity == Quantity::Power);
    let steps = of_power.flat_map(|s| s.readings.windows(2)).filter_map(|pair| match pair {
        [a, b] => Some(b.from - a.from),
        _ => None,
    });
    let mut steps: Vec<Nanos> = steps.collect();
    steps.sort();
    steps.get(steps.len() / 2).copied().unwrap_or(super::INTERVAL)
}

impl PowerLog {
    fn powers(&self) -> impl Iterator<Item = &Series> {
        self.telemetry.series.iter().filter(|s| s.quantity == Quantity::Power)
    }

    /// The time in which every GPU of the log has rows.
    pub fn span(&self) -> Option<Window> {
        let from = self.powers().filter_map(|s| s.readings.first()).map(|r| r.from).max()?;
        let to = self.powers().filter_map(|s| s.readings.last()).map(|r| r.from).min()?;
        (from < to).then_some(Window { from, to })
    }

    /// The time from the first to the last row in which some GPU was busy.
    pub fn busy_span(&self) -> Option<Window> {
        let times = || self.telemetry.series.iter().filter(|s| s.quantity == Quantity::GpuBusy);
        let busy = || times().flat_map(|s| &s.readings).filter(|r| r.value > BUSY_PCT);
        let (from, to) = (busy().map(|r| r.from).min()?, busy().map(|r| r.from).max()?);
        (from < to).then_some(Window { from, to })
    }

    /// What the log says of `window`.
    pub fn summary(&self, window: Window) -> PowerSummary {
        let usage = usage(&self.telemetry, window, &self.everything(), None);
        let energy = usage.energy.as_ref();
        PowerSummary {
            maker: self.maker.clone(),
            gpus: self.telemetry.devices(Part::Gpu).len(),
            samples: self.powers().map(|s| s.readings.len()).sum(),
            interval_s: self.telemetry.interval.as_secs_f64(),
            from_unix_s: window.from.as_secs_f64(),
            seconds: window.seconds(),
            energy_j: energy.map(|e| e.joules),
            power_w: energy.map(|e| e.mean_w),
            busy_sample_power_w: self.busy_sample_power_w(),
            flaws: self.flaws(&usage, window),
        }
    }

    /// Every GPU of the log was given to whoever wrote it.
    fn everything(&self) -> Allocated {
        let gpu = |device: &&Device| {
            let (host, id) = (device.host.clone(), device.index?);
            Some(AllocatedGpu { host, id, instance: Some(0), role: Role::Aggregated })
        };
        let gpus = self.telemetry.devices(Part::Gpu);
        Allocated { gpus: gpus.iter().filter_map(gpu).collect(), ..Allocated::default() }
    }

    /// Over all rows of the log, whatever the window is: so seed 4 does.
    fn busy_sample_power_w(&self) -> Option<f64> {
        let mut samples = Vec::new();
        for power in self.powers() {
            let busy = self.telemetry.of(&power.device, Quantity::GpuBusy)?;
            let busy: BTreeMap<Nanos, f64> =
                busy.readings.iter().map(|r| (r.from, r.value)).collect();
            let is_busy = |r: &&Reading| busy.get(&r.from).is_some_and(|busy| *busy > BUSY_PCT);
            samples.extend(power.readings.iter().filter(is_busy).map(|r| r.value));
        }
        (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
    }

    fn flaws(&self, usage: &Usage, window: Window) -> Vec<ImportFlaw> {
        let of_power = usage.flaws.iter().filter(|f| f.quantity == Quantity::Power);
        let said = |f: &super::Flaw| {
            ImportFlaw::new(f.kind.code(), format!("of {}, {}", f.device, f.kind.text()))
        };
        let mut flaws: Vec<ImportFlaw> = Vec::new();
        for found in of_power.map(said) {
            // Of a GPU without a number its power says so, and its energy again.
            if !flaws.contains(&found) {
                flaws.push(found);
            }
        }
        let has_busy = self.telemetry.series.iter().any(|s| s.quantity == Quantity::GpuBusy);
        if !has_busy {
            let why = "the log has no utilisation: nothing tells load from idleness in it";
            flaws.push(ImportFlaw::new("no_utilisation", why.to_owned()));
        }
        flaws.extend(self.busy_span().and_then(|busy| covers_more(window, busy)));
        if has_busy && self.busy_span().is_none() {
            let why = format!("no GPU was above {BUSY_PCT} % utilisation for two rows");
            flaws.push(ImportFlaw::new("never_busy", why));
        }
        flaws
    }
}

/// A log that begins with the server says more of its start than of its load.
fn covers_more(window: Window, busy: Window) -> Option<ImportFlaw> {
    let (before, after) = (busy.from - window.from, window.to - busy.to);
    let idle = before.as_secs_f64() + after.as_secs_f64();
    (idle > 0.05 * window.seconds()).then(|| {
        let share = 100.0 * idle / window.seconds();
        ImportFlaw::new(
            "log_covers_start_up",
            format!(
                "no GPU was busy for {:.1} s at its begin and {:.1} s at its end ({share:.0} % of the time): its mean is not that of the load",
                before.as_secs_f64(),
                after.as_secs_f64()
            ),
        )
    })
}

/// The head of seed 4's logs, to the byte.
pub const HEAD: &str =
    "timestamp,gpu_id,power_draw_w,temperature_c,gpu_util_pct,mem_util_pct,mem_used_mb";

/// What seed 4 would have logged of the GPUs in `telemetry`: name of the file and its text. `unix` is the epoch's time at
/// zero of the readings' clock. Nothing where no GPU told its power.
pub fn seed4(telemetry: &Telemetry, unix: Nanos) -> Option<(String, String)> {
    let powers = || telemetry.series.iter().filter(|s| s.quantity == Quantity::Power);
    let gpus: Vec<&Series> = powers().filter(|s| s.device.part == Part::Gpu).collect();
    let mut rows: BTreeSet<(Nanos, u32, String)> = BTreeSet::new();
    let hosts: BTreeSet<&str> = gpus.iter().map(|s| s.device.host.as_str()).collect();
    for (n, power) in (0u32..).zip(&gpus) {
        let Some(index) = power.device.index else { continue };
        // Several hosts number theirs alike.
        let index = if hosts.len() > 1 { n } else { index };
        for reading in &power.readings {
            let at = unix + reading.at();
            let more = SEED4.map(|(quantity, unit)| {
                let series = telemetry.of(&power.device, quantity);
                let value = series.and_then(|s| s.near(reading.at(), telemetry.interval));
                value.map_or_else(String::new, |v| (v / unit).round().to_string())
            });
            let row = format!("{},{index},{:.2},{}", civil::iso(at), reading.value, more.join(","));
            rows.insert((at, index, row));
        }
    }
    let (first, ..) = rows.first()?;
    let name = format!("power_log_{}gpu_{}.csv", gpus.len(), civil::stamp(*first));
    let mut text = format!("{HEAD}\n");
    for (.., row) in &rows {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{row}");
    }
    Some((name, text))
}

/// Columns behind the power, and our units in one of theirs.
const SEED4: [(Quantity, f64); 4] = [
    (Quantity::Temperature, 1.0),
    (Quantity::GpuBusy, 1.0),
    (Quantity::GpuMemoryBusy, 1.0),
    (Quantity::GpuMemoryUsed, 1_048_576.0),
];

#[cfg(test)]
mod tests;
