//! What a reader of a plan should know before it is run: the seeds' own mistakes, seen in advance.

use super::{DeploymentPlan, EngineKind, HostPlan, Mode, PlanNote, Platform, PointPlan, Role};
use crate::spec::{Experiment, TelemetrySpec, WorkloadSpec};
use crate::workload::CachePolicy;
use std::collections::BTreeMap;

mod control;
mod order;
mod prices;

fn note(path: String, message: String, hint: &str) -> PlanNote {
    PlanNote { path, message, hint: hint.to_owned() }
}

/// `asked` are the points that are no level of a search; `points` are these and those.
pub(super) fn notes(
    experiment: &Experiment,
    deployments: &[DeploymentPlan],
    asked: &[PointPlan],
    points: &[&PointPlan],
    hosts: &[HostPlan],
) -> Vec<PlanNote> {
    let mut out = Vec::new();
    order::order(experiment, deployments, asked, &mut out);
    loads(experiment, points, &mut out);
    tails(experiment, points, &mut out);
    lengths(experiment, &mut out);
    least_lengths(experiment, deployments, &mut out);
    caches(experiment, deployments, &mut out);
    control::control(experiment, deployments, &mut out);
    prices::prices(experiment, deployments, hosts, &mut out);
    later(experiment, deployments, &mut out);
    cannot_run(experiment, deployments, &mut out);
    out
}

/// One note for each reason, however many deployments share it.
fn cannot_run(experiment: &Experiment, deployments: &[DeploymentPlan], out: &mut Vec<PlanNote>) {
    let mut by_reason: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, deploy) in experiment.deployments() {
        let plan = deployments.iter().find(|d| d.name == deploy.name);
        if let Some(why) = plan.and_then(|d| d.cannot_run.as_deref()) {
            by_reason.entry(why).or_default().push(i);
        }
    }
    for (why, indices) in by_reason {
        let names: Vec<&str> =
            indices.iter().filter_map(|i| Some(experiment.deploy.get(*i)?.name.as_str())).collect();
        let path = indices.first().map_or_else(String::new, |i| format!("deploy[{i}]"));
        let message = format!("{}: {why}", names.join(", "));
        out.push(note(path, message, "check and plan work; run refuses before it starts anything"));
    }
}

fn loads(experiment: &Experiment, points: &[&PointPlan], out: &mut Vec<PlanNote>) {
    let mut cold = Vec::new();
    for (i, load) in experiment.load.iter().enumerate() {
        let mut mine = points.iter().filter(|p| p.load == load.name);
        let few = mine.clone().find(|p| {
            let asked = p.level.concurrency.map(u64::from);
            p.mode == Mode::Closed
                && p.measure.duration.is_none()
                && p.measure.requests.zip(asked).is_some_and(|(n, c)| c > 1 && n < 3 * c)
        });
        if let (Some(p), Some(n)) = (few, few.and_then(|p| p.measure.requests)) {
            let c = p.level.concurrency.unwrap_or(0);
            out.push(note(
                format!("load[{i}].requests"),
                format!("{n} requests at concurrency {c}: mostly ramp and tail, hardly ever {c} in flight"),
                "give at least three times the concurrency, as requests = \"10x\"",
            ));
        }
        let first = mine.next();
        if first.is_some_and(|p| p.warmup.is_none() && p.mode != Mode::Serial) {
            cold.push((i, load.name.as_str()));
        }
    }
    if let Some((i, _)) = cold.first() {
        let names: Vec<&str> = cold.iter().map(|(_, name)| *name).collect();
        out.push(note(
            format!("load[{i}].warmup"),
            format!(
                "no warm-up in {}: the first requests pay for cold caches and connections",
                names.join(", ")
            ),
            "add warmup = 8",
        ));
    }
}

/// A percentile that so few requests cannot show.
fn tails(experiment: &Experiment, points: &[&PointPlan], out: &mut Vec<PlanNote>) {
    for (i, load) in experiment.load.iter().enumerate() {
        let mut mine = points.iter().filter(|p| p.load == load.name);
        let short = mine.find_map(|p| {
            let all = p.measure.requests?.saturating_mul(p.trials.len() as u64);
            let bounds = p.slo.as_ref()?.bounds.iter();
            let (needed, bound) =
                bounds.filter_map(|b| Some((b.fewest_to_be_sure()?, b))).max_by_key(|(n, _)| *n)?;
            (all < needed).then_some((all, needed, bound))
        });
        if let Some((all, needed, bound)) = short {
            out.push(note(
                format!("load[{i}].slo"),
                format!("{all} requests a point cannot show surely that {bound}"),
                &format!("give at least {needed} requests, over all repeats"),
            ));
        }
    }
}

/// Families that have no field with which a length could be forced.
fn lengths(experiment: &Experiment, out: &mut Vec<PlanNote>) {
    for (i, workload) in experiment.workload.iter().enumerate() {
        let api = workload.api.unwrap_or_default();
        if workload.force_len == Some(true) && api.generates() && !api.can_force_len() {
            out.push(note(
                format!("workload[{i}].force_len"),
                format!(
                    "api {} cannot force a length: answers end where the model ends them, at most at their limit",
                    api.name()
                ),
                "leave force_len out, and compare times per token rather than end to end",
            ));
        }
    }
}

/// Ray Serve (2.60) has a prefill replica answer with one token, and leaves the least number as it was: vLLM then
/// refuses the request.
fn least_lengths(experiment: &Experiment, deployments: &[DeploymentPlan], out: &mut Vec<PlanNote>) {
    let is_split = |d: &&DeploymentPlan| {
        d.engine == EngineKind::RayServeLlm && d.instances.iter().any(|i| i.role == Role::Prefill)
    };
    let names: Vec<&str> = deployments.iter().filter(is_split).map(|d| d.name.as_str()).collect();
    for (i, workload) in experiment.workload.iter().enumerate() {
        let least = workload.body.get("min_tokens").and_then(serde_json::Value::as_u64);
        if !names.is_empty() && workload.force_len == Some(true) && least.is_none_or(|n| n > 1) {
            out.push(note(
                format!("workload[{i}].force_len"),
                format!(
                    "{}: Ray Serve's prefill replicas refuse a request whose min_tokens is above 1",
                    names.join(", ")
                ),
                "add body = { min_tokens = 1 } to the workload: ignore_eos alone forces the length with vLLM",
            ));
        }
    }
}

/// Deployments whose prefix cache cannot be emptied although a workload asks for that.
fn caches(experiment: &Experiment, deployments: &[DeploymentPlan], out: &mut Vec<PlanNote>) {
    let asks = |w: &WorkloadSpec| w.cache == Some(CachePolicy::Reset);
    let Some(i) = experiment.workload.iter().position(asks) else { return };
    let names: Vec<&str> =
        deployments.iter().filter(|d| d.cache_reset.is_none()).map(|d| d.name.as_str()).collect();
    if !names.is_empty() {
        out.push(note(
            format!("workload[{i}].cache"),
            format!("{}: the engine has no way to empty its prefix cache", names.join(", ")),
            "use cache = \"salt\"; of an openai endpoint or a command, params = { cache_reset = \"/path\" } says where",
        ));
    }
}

fn later(experiment: &Experiment, deployments: &[DeploymentPlan], out: &mut Vec<PlanNote>) {
    let in_cluster = |d: &DeploymentPlan| {
        !matches!(d.platform, Platform::Local | Platform::External | Platform::Ssh)
    };
    let is_told = experiment.telemetry.as_ref().is_some_and(TelemetrySpec::names_pages);
    if experiment.telemetry.is_some() && deployments.iter().any(in_cluster) && !is_told {
        out.push(note(
            "telemetry".to_owned(),
            "this version reads the machine that it runs on and hosts that it reaches by ssh: CPU, GPU, network and power of a cluster's hosts will be absent".to_owned(),
            "name what runs on them in [telemetry.node_exporter], [telemetry.dcgm] or prometheus; else they are shown as n/a, never as 0",
        ));
    }
}
