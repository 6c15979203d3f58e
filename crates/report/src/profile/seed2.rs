//! Seed 2: the summary sheet of the KubeRay workbook with its columns per node, and the sheet of network rates.

use super::{Files, cell, cells, concurrency_of};
use crate::csv::as_text;
use crate::error::ReportError;
use crate::export::lengths;
use crate::machines::{MachineNumbers, hosts_and_pods, machine_numbers};
use crate::spec::ReportInput;
use scalebeam_model::plan::{DeploymentPlan, Plan, Role};
use scalebeam_model::results::{PointResult, lookup};
use std::collections::BTreeSet;

const DIR: &str = "profile-seed2";

/// The workbook's columns of a point, in its order.
const SUMMARY: [&str; 13] = [
    "Model",
    "Inference Nodes",
    "Devices",
    "GPUs",
    "Per Replica batch size",
    "Max output tokens",
    "Concurrent Requests",
    "RPS",
    "Throughput (Tokens/s)",
    "P50",
    "P95",
    "P95 Token latency (ms)",
    "P99",
];

/// The workbook's columns of a node, in its order.
const NODE: [&str; 6] =
    ["Avg GPU compute util", "GPU mem util", "CPU util", "Mem util", "Avg n/w", "Max n/w"];

/// The detail sheet splits the network.
const NETWORK: [&str; 6] =
    ["Avg sent", "Max sent", "Avg received", "Max received", "Avg total", "Max total"];

const NOTES: &str = "\
# What these columns mean

The names and their order are those of the workbook; the numbers are scalebeam's. Columns of a node have its name before
them. In a cluster they are of a pod, which does not see its node: CPU util and Mem util are of its own limits, and
empty where it has none.

| column | here | in the workbook |
| --- | --- | --- |
| Inference Nodes | hosts that ranks run on | the same, in words |
| Devices | those hosts | models of servers |
| GPUs | allocated GPUs by kind | the same |
| Per Replica batch size | requests in flight asked for / instances that answer | users of Locust / replicas |
| Max output tokens | answer length asked for; empty where the workload has none | 256, and answers ended earlier |
| RPS, Throughput (Tokens/s) | completed requests, and their output tokens by the server's usage, over measured wall time | of Locust's run, and of the engine |
| P50, P95, P99 | seconds from the moment a request was due to the end of its stream | seconds of Locust, two digits above 10 s |
| P95 Token latency (ms) | P95 x 1000 / Max output tokens, as there: no measured time per token, which is `tpot_ms` in `results.json` | P95 x 1000 / 256 |
| Avg GPU compute util | share of the time in which any kernel ran, mean over the GPUs that the deployment was given, in % | the same, over all of the node |
| GPU mem util, CPU util, Mem util | in %, mean over the measured window | the same |
| Avg n/w, Max n/w | Gbit/s received and sent over all interfaces but loopback; the largest is the sum of each interface's largest rates between two readings | Gb/s |

Rates are means of the trials' rates, latencies are over all trials, warm-up is in none of them. A value that was not
measured is empty, never 0. The last column, Trust, is not the workbook's: a point that is `invalid` does not say what
it seems to say, and `results.json` has the reasons.

This is weak scaling where the users grow with the replicas: a row against the first is not a speedup at the same load.
Rows with other kinds of GPU than the first are no scaling at all.
";

pub(super) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    let points = &input.results.points;
    let nodes: BTreeSet<String> = points.iter().flat_map(hosts_and_pods).collect();
    let summary = as_text(|out| {
        let of_node = |node: &String| NODE.map(|column| format!("{node} {column}"));
        let head = SUMMARY.into_iter().map(str::to_owned).chain(nodes.iter().flat_map(of_node));
        out.write_record(head.chain(["Trust".to_owned()]))?;
        for point in points {
            let of_nodes = nodes.iter().flat_map(|node| node_cells(point, node));
            let trust = [point.trust.level.name().to_owned()];
            out.write_record(summary(point, input.plan).into_iter().chain(of_nodes).chain(trust))?;
        }
        Ok(())
    })?;
    let network = as_text(|out| {
        let head = ["Deployment", "Load", "Concurrent Requests", "Node"];
        out.write_record(head.iter().chain(&NETWORK))?;
        for point in points {
            for node in hosts_and_pods(point) {
                let place = [point.deployment.clone(), point.load.clone(), concurrency_of(point)];
                let numbers = network_cells(point, &node);
                out.write_record(place.into_iter().chain([node]).chain(numbers))?;
            }
        }
        Ok(())
    })?;
    Ok(vec![
        (format!("{DIR}/NOTES.md"), NOTES.as_bytes().to_vec()),
        (format!("{DIR}/summary.csv"), summary.into_bytes()),
        (format!("{DIR}/network.csv"), network.into_bytes()),
    ])
}

fn summary(point: &PointResult, plan: &Plan) -> Vec<String> {
    let of = |name: &str| lookup(&point.metrics, name).filter(|v| v.is_finite());
    let seconds = |name: &str| of(name).map(|ms| ms / 1e3);
    let deployment = plan.deployment(&point.deployment);
    let replicas = deployment.map_or(0, replicas);
    let per_replica = point.concurrency.filter(|_| replicas > 0);
    let per_replica = per_replica.map(|n| f64::from(n) / f64::from(replicas));
    let longest = longest_answer(point, plan);
    let token_ms = seconds("e2e_ms.p95").zip(longest).map(|(s, n)| s * 1e3 / f64::from(n));
    vec![
        plan.model.id.clone(),
        deployment.map(|d| node_word(nodes_of(d).len())).unwrap_or_default(),
        deployment.map(|d| nodes_of(d).join(" + ")).unwrap_or_default(),
        deployment.map(|d| gpus(d, plan)).unwrap_or_default(),
        cell(per_replica),
        longest.map(|n| n.to_string()).unwrap_or_default(),
        concurrency_of(point),
        cell(of("rps")),
        cell(of("output_tps")),
        cell(seconds("e2e_ms.p50")),
        cell(seconds("e2e_ms.p95")),
        cell(token_ms),
        cell(seconds("e2e_ms.p99")),
    ]
}

/// Instances that answer requests: those that only prefill do not.
fn replicas(deployment: &DeploymentPlan) -> u32 {
    let answering = deployment.instances.iter().filter(|i| i.role != Role::Prefill);
    answering.map(|i| i.dp).sum()
}

fn longest_answer(point: &PointResult, plan: &Plan) -> Option<u32> {
    super::plan_of(point, plan).and_then(lengths).map(|l| l.osl).filter(|n| *n > 0)
}

/// Hosts of its ranks, in their order, each once.
fn nodes_of(deployment: &DeploymentPlan) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    for place in deployment.instances.iter().flat_map(|i| &i.place) {
        if !out.contains(&place.host.as_str()) {
            out.push(&place.host);
        }
    }
    out
}

/// As the workbook says it.
fn node_word(nodes: usize) -> String {
    match nodes {
        0 => String::new(),
        1 => "Single Node".to_owned(),
        2 => "Two Nodes".to_owned(),
        3 => "Three Nodes".to_owned(),
        4 => "Four Nodes".to_owned(),
        more => format!("{more} Nodes"),
    }
}

/// `12xNVIDIA A100 SXM 80GB + 4xNVIDIA H100 PCIe 80GB`; only the number where the kinds are not known.
fn gpus(deployment: &DeploymentPlan, plan: &Plan) -> String {
    let kind = |host: &str| plan.hosts.iter().find(|h| h.name == host)?.gpu.as_deref();
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for place in deployment.instances.iter().flat_map(|i| &i.place) {
        let Some(kind) = kind(&place.host) else {
            return if deployment.gpus > 0 { deployment.gpus.to_string() } else { String::new() };
        };
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += place.ids.len(),
            None => counts.push((kind, place.ids.len())),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(kind, n)| format!("{n}x{kind}")).collect();
    counts.join(" + ")
}

fn node_cells(point: &PointResult, node: &str) -> Vec<String> {
    let MachineNumbers { cpu, memory, received, sent, gpu_busy, gpu_memory, .. } =
        machine_numbers(point, node);
    let total = |i: usize| Some(received[i]? + sent[i]?);
    cells(&[gpu_busy[0], gpu_memory, cpu[0], memory[0], total(0), total(1)])
}

fn network_cells(point: &PointResult, node: &str) -> Vec<String> {
    let MachineNumbers { received, sent, .. } = machine_numbers(point, node);
    let total = |i: usize| Some(received[i]? + sent[i]?);
    cells(&[sent[0], sent[1], received[0], received[1], total(0), total(1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::seed2_run;

    #[test]
    fn the_workbooks_columns_in_its_order() {
        let (results, plan) = seed2_run();
        let input =
            ReportInput { results: &results, plan: &plan, specs: &[], formats: &[], profile: None };
        let files = files(&input).unwrap();
        let text = |name: &str| {
            let found = files.iter().find(|(file, _)| file.ends_with(name)).unwrap();
            String::from_utf8(found.1.clone()).unwrap()
        };
        assert!(text("summary.csv").starts_with(&SUMMARY.join(",")));
        insta::assert_snapshot!(format!("{}\n{}", text("summary.csv"), text("network.csv")));
    }

    #[test]
    fn nodes_are_counted_in_words() {
        assert_eq!(
            [1, 2, 3, 5].map(node_word),
            ["Single Node", "Two Nodes", "Three Nodes", "5 Nodes"]
        );
    }
}
