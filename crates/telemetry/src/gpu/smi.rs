//! GPUs by `nvidia-smi`, where its library cannot be loaded: one process that prints a table every interval,
//! not one process an interval.

use super::device;
use crate::readings::{Readings, Source};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Quantity};
use scalebeam_model::units::Nanos;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Its name; found in `PATH`.
const PROGRAM: &str = "nvidia-smi";

/// Columns, what they are, and what a number in them is multiplied with. A driver that does not know one of
/// them refuses the table, so only those are asked for that every one since 2016 knows.
const COLUMNS: &[(&str, Quantity, f64)] = &[
    ("utilization.gpu", Quantity::GpuBusy, 1.0),
    ("utilization.memory", Quantity::GpuMemoryBusy, 1.0),
    ("memory.used", Quantity::GpuMemoryUsed, MIB),
    ("memory.total", Quantity::GpuMemoryTotal, MIB),
    ("power.draw", Quantity::Power, 1.0),
    ("enforced.power.limit", Quantity::PowerLimit, 1.0),
    ("temperature.gpu", Quantity::Temperature, 1.0),
    ("clocks.current.sm", Quantity::SmClock, 1.0),
    ("clocks.current.memory", Quantity::MemoryClock, 1.0),
];

const MIB: f64 = 1_048_576.0;

/// A row, and when it was printed.
type Row = (Device, Nanos, Vec<(Quantity, f64)>);

/// The running program.
#[derive(Debug)]
pub(crate) struct Smi {
    child: Child,
    rows: Receiver<Row>,
}

impl Smi {
    /// Starts it.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub(crate) fn start(
        host: &str,
        interval: Nanos,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
        let mut child = Command::new(PROGRAM)
            .arg(format!("--query-gpu=index,uuid,{}", names.join(",")))
            .arg("--format=csv")
            .args(["-lms", &(interval.0 / 1_000_000).max(100).to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{PROGRAM}: {e}"))?;
        let out = child.stdout.take().ok_or_else(|| format!("{PROGRAM} has no output"))?;
        let (sender, rows) = channel();
        let (host, clock) = (host.to_owned(), Arc::clone(clock));
        let follow = move || follow(out, &host, clock.as_ref(), &sender);
        let thread = std::thread::Builder::new().name("nvidia-smi".to_owned());
        thread.spawn(follow).map_err(|e| format!("cannot follow {PROGRAM}: {e}"))?;
        Ok(Self { child, rows })
    }
}

impl Drop for Smi {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Source for Smi {
    fn read(&mut self, _: &dyn Clock, out: &mut Readings) {
        for (device, at, values) in self.rows.try_iter() {
            out.add(&device, at, at, &values);
        }
    }
}

/// Hands on what the program prints until it ends or nobody listens.
fn follow(out: ChildStdout, host: &str, clock: &dyn Clock, rows: &Sender<Row>) {
    let mut table = Table::default();
    for line in BufReader::new(out).lines() {
        let Ok(line) = line else { return };
        if let Some((device, values)) = table.row(host, &line)
            && rows.send((device, clock.now(), values)).is_err()
        {
            return;
        }
    }
}

/// A table whose first line names its columns.
#[derive(Debug, Default)]
struct Table {
    columns: Vec<String>,
}

impl Table {
    /// The values of a line. `[N/A]` and its like are left out: absent, not zero.
    fn row(&mut self, host: &str, line: &str) -> Option<(Device, Vec<(Quantity, f64)>)> {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.contains(&"uuid") {
            // `utilization.gpu [%]`; the program may print its head again.
            let name = |cell: &&str| cell.split(' ').next().unwrap_or_default().to_owned();
            self.columns = cells.iter().map(name).collect();
            return None;
        }
        if cells.len() != self.columns.len() {
            return None;
        }
        let cell = |name: &str| {
            let at = self.columns.iter().position(|c| c == name)?;
            cells.get(at).copied()
        };
        let device = device(host, cell("index")?.parse().ok()?, cell("uuid")?);
        let value = |(name, quantity, unit): &(&str, Quantity, f64)| {
            Some((*quantity, amount(cell(name)?)? * unit))
        };
        Some((device, COLUMNS.iter().filter_map(value).collect()))
    }
}

/// `72.19 W`, `345 MHz`, `36`, `[N/A]`.
fn amount(cell: &str) -> Option<f64> {
    let number: f64 = cell.split(' ').next()?.parse().ok()?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests;
