//! What the machines did: a row a host of a point, and a long table of everything.

use crate::csv::as_text;
use crate::error::ReportError;
use crate::number::{ABSENT, plain};
use crate::table::{Grid, GridRow};
use scalebeam_model::results::{PointResult, Results};
use scalebeam_model::telemetry::HostClock;
use scalebeam_model::telemetry::usage::{GpuUse, HostUse, LinkUse, MeanMax, ProcessUse, Usage};

/// Columns of the table of machines: mean, then largest.
const HEAD: [&str; 13] = [
    "CPU (%)",
    "CPU max (%)",
    "Memory (%)",
    "Memory max (%)",
    "Received (Gbit/s)",
    "Received max (Gbit/s)",
    "Sent (Gbit/s)",
    "Sent max (Gbit/s)",
    "GPU busy (%)",
    "GPU busy max (%)",
    "GPU memory (%)",
    "GPU power (W)",
    "Host power, GPUs included (W)",
];

/// Columns of the clocks of other hosts, where there are any: as they were at the last trial of the point, but
/// for the bound, which is the widest.
const CLOCK_HEAD: [&str; 3] = ["Clock ahead (s)", "Clock drift (ppm)", "Clock bound (ms)"];

/// A row a host of a point; absent where no machine was watched.
pub(crate) fn grid(results: &Results) -> Option<Grid> {
    let has_clocks = results.points.iter().flat_map(usages).any(|u| !u.clocks.is_empty());
    let row = |point: &PointResult, host: String| {
        let shown = |n: Option<f64>| n.map_or_else(|| ABSENT.to_owned(), plain);
        let clocks = has_clocks.then(|| clock(point, &host)).into_iter().flatten();
        let numbers = numbers(point, &host).into_iter().chain(clocks).map(shown);
        let numbers: Vec<String> = numbers.collect();
        [host].into_iter().chain(numbers).collect()
    };
    let of_point = |p| hosts(p).into_iter().map(move |host| (p, row(p, host)));
    let rows: Vec<GridRow<'_>> = results.points.iter().flat_map(of_point).collect();
    let clock_heads = if has_clocks { CLOCK_HEAD.as_slice() } else { &[] };
    let heads = HEAD.iter().chain(clock_heads).map(|head| (*head).to_owned());
    let title = "Machines, while they were measured";
    (!rows.is_empty()).then(|| Grid::of_points(title, &["Host"], heads, rows))
}

fn usages(point: &PointResult) -> impl Iterator<Item = &Usage> + Clone {
    point.trials.iter().filter_map(|t| t.usage.as_ref())
}

/// Offset in seconds, drift in parts per million, bound in milliseconds.
fn clock(point: &PointResult, host: &str) -> [Option<f64>; 3] {
    let clocks = || usages(point).flat_map(|u| &u.clocks).filter(|c| c.host == host);
    let last = clocks().last();
    let bound = clocks().map(|c| c.bound_s * 1e3).reduce(f64::max);
    [last.map(|c| c.offset_s), last.and_then(|c| c.drift_ppm), bound]
}

/// Hosts that were watched while the point was measured, in order of their names.
pub(crate) fn hosts(point: &PointResult) -> Vec<String> {
    let mut hosts: Vec<String> =
        usages(point).flat_map(|u| &u.hosts).map(|h| h.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Over the trials of a point: the mean of the means, and the largest of the largest.
fn over(values: impl Iterator<Item = MeanMax>) -> [Option<f64>; 2] {
    let all: Vec<MeanMax> = values.collect();
    let n = all.len() as f64;
    let mean = (!all.is_empty()).then(|| all.iter().map(|v| v.mean).sum::<f64>() / n);
    [mean, all.iter().map(|v| v.max).reduce(f64::max)]
}

/// What one host did while a point was measured; mean and largest where there are two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineNumbers {
    /// Percent of all cores.
    pub(crate) cpu: [Option<f64>; 2],
    /// Percent of its memory.
    pub(crate) memory: [Option<f64>; 2],
    /// Gbit/s that came in, over all interfaces but loopback.
    pub(crate) received: [Option<f64>; 2],
    /// Gbit/s that went out.
    pub(crate) sent: [Option<f64>; 2],
    /// Percent of the time in which its GPUs were busy: those that the deployment was given.
    pub(crate) gpu_busy: [Option<f64>; 2],
    /// Percent of their memory in use, mean.
    pub(crate) gpu_memory: Option<f64>,
    /// Watts of them, mean.
    pub(crate) gpu_power: Option<f64>,
}

/// Over all trials of the point.
pub(crate) fn machine_numbers(point: &PointResult, host: &str) -> MachineNumbers {
    let of_host = |of: fn(&HostUse) -> Option<MeanMax>| {
        let mine = usages(point).flat_map(|u| &u.hosts).filter(|h| h.host == host);
        over(mine.filter_map(of))
    };
    let of_links = |of: fn(&LinkUse) -> Option<MeanMax>| {
        over(usages(point).filter_map(|u| sum(links_of(u, host).map(of))))
    };
    let of_gpus = |of: fn(&GpuUse) -> Option<MeanMax>| {
        let mine = usages(point).flat_map(Usage::given_gpus).filter(|g| g.host == host);
        over(mine.filter_map(of))
    };
    let power =
        |usage: &Usage| sum(usage.given_gpus().filter(|g| g.host == host).map(|g| g.power_w));
    let [gpu_memory, _] = of_gpus(|g| g.memory_pct);
    let [gpu_power, _] = over(usages(point).filter_map(power));
    MachineNumbers {
        cpu: of_host(|h| h.cpu_pct),
        memory: of_host(|h| h.memory_pct),
        received: of_links(|l| l.received_gbps),
        sent: of_links(|l| l.sent_gbps),
        gpu_busy: of_gpus(|g| g.busy_pct),
        gpu_memory,
        gpu_power,
    }
}

fn numbers(point: &PointResult, host: &str) -> Vec<Option<f64>> {
    let MachineNumbers { cpu, memory, received, sent, gpu_busy, gpu_memory, gpu_power } =
        machine_numbers(point, host);
    let pairs = [cpu, memory, received, sent, gpu_busy].into_iter().flatten();
    pairs.chain([gpu_memory, gpu_power, host_power(point, host)]).collect()
}

/// Mean over the trials; absent where it is not known of every machine.
fn host_power(point: &PointResult, host: &str) -> Option<f64> {
    let all = usages(point).filter_map(|u| u.host_energy.as_ref()).flat_map(|e| &e.by_host);
    let mine: Vec<f64> = all.filter(|h| h.host == host).map(|h| h.mean_w).collect();
    (!mine.is_empty()).then(|| mine.iter().sum::<f64>() / mine.len() as f64)
}

/// Everything that leaves or enters a host: interfaces but loopback, and RDMA ports.
fn links_of<'a>(usage: &'a Usage, host: &'a str) -> impl Iterator<Item = &'a LinkUse> {
    usage.all_links().filter(move |link| link.host == host && link.name != "lo")
}

/// The sum of all; absent where one is, or none is there.
fn sum(values: impl Iterator<Item = Option<MeanMax>>) -> Option<MeanMax> {
    let add = |a: MeanMax, b: MeanMax| MeanMax { mean: a.mean + b.mean, max: a.max + b.max };
    let values: Vec<MeanMax> = values.collect::<Option<_>>()?;
    values.into_iter().reduce(add)
}

/// Writes all that is known of machines as CSV, a row a number: `deploy, load, level, trial, host, kind, name,
/// role, metric, mean, max`.
///
/// # Errors
/// Only when memory cannot be written.
pub fn machines_csv(results: &Results) -> Result<String, ReportError> {
    as_text(|out| {
        out.write_record([
            "deploy", "load", "level", "trial", "host", "kind", "name", "role", "metric", "mean",
            "max",
        ])?;
        for point in &results.points {
            for trial in &point.trials {
                let number = trial.number.to_string();
                let place = [&point.deployment, &point.load, &point.level, &number];
                for row in trial.usage.iter().flat_map(rows) {
                    let mut record = place.map(String::clone).to_vec();
                    record.extend(row);
                    out.write_record(&record)?;
                }
            }
        }
        Ok(())
    })
}

/// Host, kind, name, role, metric, mean and largest.
type Row = [String; 7];

fn rows(usage: &Usage) -> Vec<Row> {
    let hosts = usage.hosts.iter().flat_map(host_rows);
    let links = usage.links.iter().flat_map(|l| link_rows("nic", l));
    let rdma = usage.rdma.iter().flat_map(|l| link_rows("rdma", l));
    let gpus = usage.gpus.iter().flat_map(gpu_rows);
    let processes = usage.processes.iter().flat_map(process_rows);
    let clocks = usage.clocks.iter().flat_map(clock_rows);
    hosts.chain(links).chain(rdma).chain(gpus).chain(processes).chain(clocks).collect()
}

/// One number is all that there is of each: it stands for the mean and for the largest.
fn clock_rows(clock: &HostClock) -> Vec<Row> {
    let only = |n: f64| MeanMax { mean: n, max: n };
    numbered(
        &[&clock.host, "clock", &clock.host, ""],
        &[
            ("offset_s", Some(only(clock.offset_s))),
            ("drift_ppm", clock.drift_ppm.map(only)),
            ("bound_s", Some(only(clock.bound_s))),
            ("stepped_s", clock.stepped_s.map(only)),
        ],
    )
}

fn numbered(place: &[&str; 4], values: &[(&str, Option<MeanMax>)]) -> Vec<Row> {
    let row = |(metric, value): &(&str, Option<MeanMax>)| {
        let value = (*value)?;
        let [host, kind, name, role] = place.map(str::to_owned);
        let text = |n: f64| n.to_string();
        Some([host, kind, name, role, (*metric).to_owned(), text(value.mean), text(value.max)])
    };
    values.iter().filter_map(row).collect()
}

fn host_rows(host: &HostUse) -> Vec<Row> {
    numbered(
        &[&host.host, "host", &host.host, ""],
        &[
            ("cpu_pct", host.cpu_pct),
            ("cpu_stolen_pct", host.cpu_stolen_pct),
            ("cpu_pressure_pct", host.cpu_pressure_pct),
            ("memory_pct", host.memory_pct),
            ("memory_bytes", host.memory_bytes),
        ],
    )
}

fn link_rows(kind: &str, link: &LinkUse) -> Vec<Row> {
    numbered(
        &[&link.host, kind, &link.name, ""],
        &[("received_gbps", link.received_gbps), ("sent_gbps", link.sent_gbps)],
    )
}

fn gpu_rows(gpu: &GpuUse) -> Vec<Row> {
    let number = gpu.index.map(|index| index.to_string());
    let name = number.or_else(|| gpu.name.clone()).unwrap_or_default();
    let role = gpu.role.map_or("", |role| role.name());
    numbered(
        &[&gpu.host, "gpu", &name, role],
        &[
            ("busy_pct", gpu.busy_pct),
            ("memory_busy_pct", gpu.memory_busy_pct),
            ("memory_pct", gpu.memory_pct),
            ("memory_bytes", gpu.memory_bytes),
            ("power_w", gpu.power_w),
            ("temperature_c", gpu.temperature_c),
            ("sm_clock_mhz", gpu.sm_clock_mhz),
            ("sm_active_pct", gpu.sm_active_pct),
            ("tensor_active_pct", gpu.tensor_active_pct),
            ("dram_active_pct", gpu.dram_active_pct),
            ("pcie_sent_gbytes_per_s", gpu.pcie_sent_gbytes_per_s),
            ("pcie_received_gbytes_per_s", gpu.pcie_received_gbytes_per_s),
            ("nvlink_sent_gbytes_per_s", gpu.nvlink_sent_gbytes_per_s),
        ],
    )
}

fn process_rows(process: &ProcessUse) -> Vec<Row> {
    let role = process.role.map_or("", |role| role.name());
    numbered(
        &[&process.host, "process", &process.name, role],
        &[
            ("cpu_cores", process.cpu_cores),
            ("memory_bytes", process.memory_bytes),
            ("quota_waits_pct", process.quota_waits_pct.map(|n| MeanMax { mean: n, max: n })),
        ],
    )
}
