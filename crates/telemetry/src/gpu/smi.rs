//! GPUs by their maker's program, where its library or the kernel does not tell: one process that prints a table
//! every interval, not one process an interval.

use crate::poll::PATIENCE;
use crate::program::printed;
use crate::readings::{Readings, Source};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::Device;
use scalebeam_model::telemetry::table::{Maker, Row, Table};
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Columns that are asked for. A driver that does not know one of them refuses the table, so only those that every
/// one since 2016 knows.
const NVIDIA: &str = "index,uuid,utilization.gpu,utilization.memory,memory.used,memory.total,\
    power.draw,enforced.power.limit,temperature.gpu,clocks.current.sm,clocks.current.memory";
/// What is asked of `amd-smi`: power, clocks, temperatures, utilisation, memory.
pub(super) const AMD: [&str; 6] = ["metric", "-p", "-c", "-t", "-u", "-m"];
/// Whether a card is cut into instances, which drivers know from branch 450 on. Of the instances there is no table.
const MIG: &str = "mig.mode.current";
const GAUDI: &str =
    "index,uuid,utilization.aip,memory.used,memory.total,power.draw,temperature.aip";
/// Utilisation, power, frequency, temperature of the chip, energy, memory's bandwidth and memory in use.
const INTEL: &str = "0,1,2,3,8,17,18";

/// A running program.
#[derive(Debug)]
pub(crate) struct Smi {
    child: Child,
    rows: Receiver<(Row, Nanos)>,
    /// GPUs that it told of in this measurement.
    gpus: BTreeSet<Device>,
}

/// Rows of the end are waited for no longer than this, whoever still prints some.
const END_LIMIT: Nanos = Nanos::from_secs(5);

/// The program of `maker` with what makes it print every `interval`.
fn command(maker: Maker, interval: Nanos, clock: &dyn Clock) -> Option<Command> {
    let millis = (interval.0 / 1_000_000).max(100).to_string();
    // Those that count in seconds print each second at the most.
    let seconds = (interval.0 / 1_000_000_000).max(1).to_string();
    let query = if maker == Maker::Nvidia { nvidia_query(clock) } else { String::new() };
    let (program, args): (&str, Vec<&str>) = match maker {
        Maker::Nvidia => ("nvidia-smi", vec![&query, "--format=csv", "-lms", &millis]),
        Maker::Amd => {
            ("amd-smi", AMD.into_iter().chain(["-w", seconds.as_str(), "--csv"]).collect())
        }
        Maker::Intel => ("xpu-smi", vec!["dump", "-d", "-1", "-m", INTEL, "-i", &seconds]),
        Maker::Gaudi => ("hl-smi", vec!["-Q", GAUDI, "-f", "csv", "-l", &seconds]),
        Maker::Seed4 | Maker::SrtSlurm => return None,
    };
    let mut command = Command::new(program);
    // One of them is written in Python, which holds back what goes to a pipe.
    command.args(args).env("PYTHONUNBUFFERED", "1");
    Some(command)
}

/// Asks for the columns that every driver knows, and for [`MIG`] where this one does.
fn nvidia_query(clock: &dyn Clock) -> String {
    let known = printed(clock, "nvidia-smi", &[&format!("--query-gpu={MIG}"), "--format=csv"]);
    match known {
        Ok(head) if head.contains(MIG) => format!("--query-gpu={NVIDIA},{MIG}"),
        _ => format!("--query-gpu={NVIDIA}"),
    }
}

impl Smi {
    /// Starts it.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub(crate) fn start(
        maker: Maker,
        host: &str,
        interval: Nanos,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let command = command(maker, interval, clock.as_ref());
        let mut command = command.ok_or("there is no such program")?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let out = child.stdout.take().ok_or_else(|| format!("{program} has no output"))?;
        let (sender, rows) = channel();
        let (host, clock) = (host.to_owned(), Arc::clone(clock));
        let follow = move || follow(out, Table::new(maker), &host, clock.as_ref(), &sender);
        let thread = std::thread::Builder::new().name(program.clone());
        thread.spawn(follow).map_err(|e| format!("cannot follow {program}: {e}"))?;
        Ok(Self { child, rows, gpus: BTreeSet::new() })
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
    /// Of what it printed since the last measurement only the newest row of each GPU is of use; where there is none,
    /// the first is waited for.
    fn begin(&mut self, _: &dyn Clock, out: &mut Readings) {
        let mut newest: BTreeMap<Device, (Row, Nanos)> = BTreeMap::new();
        for (row, at) in self.rows.try_iter() {
            newest.insert(row.device.clone(), (row, at));
        }
        if newest.is_empty() {
            let first = self.rows.recv_timeout(PATIENCE).ok();
            newest.extend(first.map(|(row, at)| (row.device.clone(), (row, at))));
        }
        self.gpus = newest.keys().cloned().collect();
        for (row, at) in newest.into_values() {
            out.add(&row.device, at, at, &row.values);
        }
    }

    fn read(&mut self, _: &dyn Clock, out: &mut Readings) {
        for (row, at) in self.rows.try_iter() {
            out.add(&row.device, at, at, &row.values);
            self.gpus.insert(row.device);
        }
    }

    /// Waits for a row of each GPU that is not of a time before the end.
    fn end(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let end = clock.now();
        let mut open = std::mem::take(&mut self.gpus);
        // One that falls out while others go on is not waited for.
        while !open.is_empty() && clock.now() - end < END_LIMIT {
            let Ok((row, at)) = self.rows.recv_timeout(PATIENCE) else { return };
            out.add(&row.device, at, at, &row.values);
            if at >= end {
                open.remove(&row.device);
            }
        }
    }
}

/// Hands on what the program prints until it ends or nobody listens.
fn follow(
    out: ChildStdout,
    mut table: Table,
    host: &str,
    clock: &dyn Clock,
    rows: &Sender<(Row, Nanos)>,
) {
    for line in BufReader::new(out).lines() {
        let Ok(line) = line else { return };
        if let Some(row) = table.row(host, &line)
            && rows.send((row, clock.now())).is_err()
        {
            return;
        }
    }
}
