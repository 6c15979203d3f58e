//! What the machines did: a row a host of a point, and a long table of everything.

use crate::csv::as_text;
use crate::error::ReportError;
use crate::number::{ABSENT, plain};
use crate::table::{Grid, GridRow};
use scalebeam_model::results::{PointResult, Results};
use scalebeam_model::telemetry::HostClock;
use scalebeam_model::telemetry::usage::{
    GpuUse, HostUse, LinkUse, MeanMax, PodUse, ProcessUse, Usage,
};

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
    let has_clocks =
        results.points.iter().flat_map(usages).any(|u| {
            u.clocks.iter().any(|clock| u.hosts.iter().any(|host| host.host == clock.host))
        });
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

/// Columns of the table of pods, in order.
const POD_HEAD: [&str; 14] = [
    "CPU (cores)",
    "CPU max (cores)",
    "CPU limit (cores)",
    "Waited for cores (% of periods)",
    "Memory (GiB)",
    "Memory max (GiB)",
    "Memory limit (GiB)",
    "Received (Gbit/s)",
    "Sent (Gbit/s)",
    "GPU busy (%)",
    "GPU memory (%)",
    "GPU power (W)",
    "Clock ahead (s)",
    "Clock bound (ms)",
];

/// What is no machine must not be read as one.
const OF_PODS: &str = "Each row is the engine's container of one pod, by its own control group, network and GPUs; what else its \
     node does is not in it.";

/// A row a pod of a point; absent where none was watched.
pub(crate) fn pods(results: &Results) -> Option<Grid> {
    let shown = |n: Option<f64>| n.map_or_else(|| ABSENT.to_owned(), plain);
    let row = |point: &PointResult, pod: &PodUse| {
        let role = pod.role.map_or(ABSENT, |role| role.name()).to_owned();
        let names = [pod.host.clone(), pod.node.clone(), role];
        names.into_iter().chain(pod_numbers(point, &pod.host).map(shown)).collect()
    };
    let of_point = |p| each_pod(p).into_iter().map(move |pod| (p, row(p, pod)));
    let rows: Vec<GridRow<'_>> = results.points.iter().flat_map(of_point).collect();
    let heads = POD_HEAD.iter().map(|head| (*head).to_owned());
    let title = "Pods, while they were measured";
    (!rows.is_empty()).then(|| Grid {
        note: Some(OF_PODS.to_owned()),
        ..Grid::of_points(title, &["Pod", "Node", "Role"], heads, rows)
    })
}

/// Each pod of a point once, in order of their names.
fn each_pod(point: &PointResult) -> Vec<&PodUse> {
    let mut pods: Vec<&PodUse> = usages(point).flat_map(|u| &u.pods).collect();
    pods.sort_by(|a, b| a.host.cmp(&b.host));
    pods.dedup_by(|a, b| a.host == b.host);
    pods
}

fn pod_numbers(point: &PointResult, name: &str) -> [Option<f64>; 14] {
    let mine = || usages(point).flat_map(|u| &u.pods).filter(|pod| pod.host == name);
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let largest = |of: fn(&PodUse) -> Option<f64>| mine().filter_map(of).reduce(f64::max);
    let cpu = over(mine().filter_map(|pod| pod.cpu_cores));
    let memory = over(mine().filter_map(|pod| pod.memory_bytes)).map(|bytes| bytes.map(gib));
    let waits = |pod: &PodUse| pod.quota_waits_pct.map(MeanMax::only);
    let [waited, _] = over(mine().filter_map(waits));
    let MachineNumbers { received, sent, gpu_busy, gpu_memory, gpu_power, .. } =
        machine_numbers(point, name);
    let [ahead, _, bound] = clock(point, name);
    [
        cpu[0],
        cpu[1],
        largest(|pod| pod.limit_cores),
        waited,
        memory[0],
        memory[1],
        largest(|pod| pod.memory_limit_bytes).map(gib),
        received[0],
        sent[0],
        gpu_busy[0],
        gpu_memory,
        gpu_power,
        ahead,
        bound,
    ]
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

/// The same, and pods.
pub(crate) fn hosts_and_pods(point: &PointResult) -> Vec<String> {
    let pods = each_pod(point).into_iter().map(|pod| pod.host.clone());
    hosts(point).into_iter().chain(pods).collect()
}

/// Over the trials of a point: the mean of the means, and the largest of the largest.
fn over(values: impl Iterator<Item = MeanMax>) -> [Option<f64>; 2] {
    let all: Vec<MeanMax> = values.collect();
    let n = all.len() as f64;
    let mean = (!all.is_empty()).then(|| all.iter().map(|v| v.mean).sum::<f64>() / n);
    // Of trials of which one has no largest the largest is not known.
    let largest: Option<Vec<f64>> = all.iter().map(|v| v.max).collect();
    [mean, largest.unwrap_or_default().into_iter().reduce(f64::max)]
}

/// What one host or pod did while a point was measured; mean and largest where there are two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineNumbers {
    /// Percent of all cores; of a pod, of those that it may use.
    pub(crate) cpu: [Option<f64>; 2],
    /// Percent of its memory; of a pod, of what it may use.
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
    let of_host = |of: fn(&HostUse) -> Option<MeanMax>, of_pod: fn(&PodUse) -> Option<MeanMax>| {
        let mine = usages(point).flat_map(|u| &u.hosts).filter(|h| h.host == host);
        let pods = usages(point).flat_map(|u| &u.pods).filter(|pod| pod.host == host);
        over(mine.filter_map(of).chain(pods.filter_map(of_pod)))
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
        cpu: of_host(|h| h.cpu_pct, |pod| pod.cpu_pct),
        memory: of_host(|h| h.memory_pct, |pod| pod.memory_pct),
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
    let add = |a: MeanMax, b: MeanMax| MeanMax {
        mean: a.mean + b.mean,
        max: a.max.zip(b.max).map(|(a, b)| a + b),
    };
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
    let pods = usage.pods.iter().flat_map(pod_rows);
    hosts.chain(pods).chain(links).chain(rdma).chain(gpus).chain(processes).chain(clocks).collect()
}

/// One number is all that there is of each: it stands for the mean and for the largest.
fn clock_rows(clock: &HostClock) -> Vec<Row> {
    numbered(
        &[&clock.host, "clock", &clock.host, ""],
        &[
            ("offset_s", Some(MeanMax::only(clock.offset_s))),
            ("drift_ppm", clock.drift_ppm.map(MeanMax::only)),
            ("bound_s", Some(MeanMax::only(clock.bound_s))),
            ("stepped_s", clock.stepped_s.map(MeanMax::only)),
        ],
    )
}

fn numbered(place: &[&str; 4], values: &[(&str, Option<MeanMax>)]) -> Vec<Row> {
    let row = |(metric, value): &(&str, Option<MeanMax>)| {
        let value = (*value)?;
        let [host, kind, name, role] = place.map(str::to_owned);
        let (mean, max) = (value.mean.to_string(), value.max.map(|n| n.to_string()));
        Some([host, kind, name, role, (*metric).to_owned(), mean, max.unwrap_or_default()])
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

fn pod_rows(pod: &PodUse) -> Vec<Row> {
    let only = |n: Option<f64>| n.map(MeanMax::only);
    let role = pod.role.map_or("", |role| role.name());
    numbered(
        &[&pod.host, "pod", &pod.node, role],
        &[
            ("cpu_cores", pod.cpu_cores),
            ("limit_cores", only(pod.limit_cores)),
            ("cpu_pct", pod.cpu_pct),
            ("quota_waits_pct", only(pod.quota_waits_pct)),
            ("cpu_pressure_pct", pod.cpu_pressure_pct),
            ("memory_bytes", pod.memory_bytes),
            ("memory_limit_bytes", only(pod.memory_limit_bytes)),
            ("memory_pct", pod.memory_pct),
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
    let part = process.part().unwrap_or_default();
    numbered(
        &[&process.host, "process", &process.name, part],
        &[
            ("cpu_cores", process.cpu_cores),
            ("memory_bytes", process.memory_bytes),
            ("quota_waits_pct", process.quota_waits_pct.map(MeanMax::only)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::plan::Role;

    fn watched() -> Results {
        let (mut results, _) = testing::run();
        let of = |mean: f64, max: f64| Some(MeanMax { mean, max: Some(max) });
        let pod = PodUse {
            host: "one-5d9f8-0".to_owned(),
            node: "n1".to_owned(),
            role: Some(Role::Prefill),
            cpu_cores: of(1.25, 1.5),
            limit_cores: Some(2.0),
            memory_bytes: of(3.0 * 1073741824.0, 4.0 * 1073741824.0),
            ..PodUse::default()
        };
        let link = LinkUse {
            host: pod.host.clone(),
            name: "eth0".to_owned(),
            sent_gbps: of(0.5, 2.0),
            ..LinkUse::default()
        };
        let usage = Usage { pods: vec![pod], links: vec![link], ..Usage::default() };
        results.points[0].trials[0].usage = Some(usage);
        results
    }

    #[test]
    fn a_pod_has_a_table_of_its_own_and_is_no_machine() {
        let results = watched();
        assert!(grid(&results).is_none(), "no machine was watched");
        let grid = pods(&results).unwrap();
        assert_eq!(grid.rows.len(), 1);
        let cells = |from: usize, n: usize| grid.rows[0][from..from + n].join(" | ");
        assert_eq!(cells(3, 3), "one-5d9f8-0 | n1 | prefill");
        let want = "1.25 | 1.50 | 2.00 | n/a | 3.00 | 4.00 | n/a | n/a | 0.500 | n/a | n/a | n/a | n/a | n/a";
        assert_eq!(cells(6, 14), want);
        assert!(grid.note.unwrap().contains("what else its node does is not in it"));
    }

    #[test]
    fn pods_are_rows_of_their_own_kind() {
        let csv = machines_csv(&watched()).unwrap();
        let row = "one-5d9f8-0,pod,n1,prefill,cpu_cores,1.25,1.5";
        assert!(csv.contains(row), "no {row} in {csv}");
        let absent = ["pod,n1,prefill,cpu_pct", "pod,n1,prefill,memory_pct"];
        assert!(!absent.iter().any(|row| csv.contains(row)), "{csv}");
    }
}
