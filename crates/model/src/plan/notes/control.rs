//! What a larger instance is to be held against: the same GPUs as whole copies of a smaller one.

use super::note;
use crate::plan::{DeploymentPlan, HostGpus, InstancePlan, PlanNote, Role};
use crate::spec::{Deploy, Experiment};
use std::fmt::Write;

/// A deployment that grows its instances, or cuts them over hosts, says little about scaling without the same GPUs as
/// whole copies. The hint is the block to paste.
pub(super) fn control(
    experiment: &Experiment,
    deployments: &[DeploymentPlan],
    out: &mut Vec<PlanNote>,
) {
    for (i, deploy) in experiment.deployments() {
        let Some(plan) = deployments.iter().find(|d| d.name == deploy.name) else { continue };
        let spans = plan.instances.iter().any(spans_hosts);
        let base = smallest(deployments, plan);
        let grows = base.is_some_and(|base| largest(plan) > largest(base));
        let is_control = |d: &DeploymentPlan| {
            let is_whole = !d.instances.iter().any(spans_hosts);
            let is_of_copies = d.instances.len() > plan.instances.len() || spans;
            d.name != plan.name && d.gpus == plan.gpus && is_whole && is_of_copies
        };
        let is_asked = plan.gpus > 0 && (spans || grows);
        if !is_asked || deployments.iter().any(is_control) {
            continue;
        }
        let what = if spans { "spans hosts" } else { "grows its instance" };
        let hint = base.and_then(|base| block(experiment, plan, base));
        out.push(note(
            format!("deploy[{i}]"),
            format!(
                "'{}' {what} and has no control: the same {} GPUs as whole copies",
                plan.name, plan.gpus
            ),
            &hint.unwrap_or_else(|| "add a [[deploy]] with replicas, one per host".to_owned()),
        ));
    }
}

fn spans_hosts(instance: &InstancePlan) -> bool {
    instance.place.len() > 1
}

/// GPUs of its largest instance.
fn largest(plan: &DeploymentPlan) -> u32 {
    plan.instances.iter().map(InstancePlan::gpus).max().unwrap_or(0)
}

/// The deployment of the same engine whose copies could be the control: one kind of instance, each on one host.
fn smallest<'a>(
    deployments: &'a [DeploymentPlan],
    plan: &DeploymentPlan,
) -> Option<&'a DeploymentPlan> {
    let is_base = |d: &&DeploymentPlan| {
        let first = d.instances.first();
        let is_one_kind = first.is_some_and(|first| {
            let alike = |i: &InstancePlan| (i.tp, i.pp, i.dp) == (first.tp, first.pp, first.dp);
            first.role == Role::Aggregated && d.instances.iter().all(alike)
        });
        let is_smaller =
            largest(d) > 0 && largest(d) < plan.gpus && plan.gpus.is_multiple_of(largest(d));
        let is_whole = !d.instances.iter().any(spans_hosts);
        (d.engine, d.platform) == (plan.engine, plan.platform)
            && is_one_kind
            && is_smaller
            && is_whole
    };
    deployments.iter().filter(is_base).min_by_key(|d| (d.gpus, largest(d)))
}

/// A `[[deploy]]` of as many copies of `base` as the GPUs of `plan` are, where those are.
fn block(experiment: &Experiment, plan: &DeploymentPlan, base: &DeploymentPlan) -> Option<String> {
    let written = experiment.deploy.iter().find(|d| d.name == base.name)?;
    let copies = plan.gpus / largest(base);
    let mut out = "measure it too, by adding\n".to_owned();
    // A string takes all that is written to it.
    let _ = writeln!(out, "        [[deploy]]\n        name = \"{}-copies\"", plan.name);
    write_origin(&mut out, written);
    let _ = writeln!(out, "        replicas = {copies}");
    let places = places(plan, largest(base)).filter(|p| p.len() == copies as usize);
    if let Some(places) = places {
        let texts: Vec<String> = places.iter().map(|p| format!("\"{p}\"")).collect();
        let _ = writeln!(out, "        place = [{}]", texts.join(", "));
    }
    let names_deployments = experiment.run.iter().any(|r| !r.deploy.is_empty() || !r.at.is_empty());
    if names_deployments {
        let _ = writeln!(out, "      and its name where [[run]] has '{}'", plan.name);
    }
    Some(out.trim_end().to_owned())
}

/// There is one level of `extends`, so that what extends itself is said by its parent and its own degrees.
fn write_origin(out: &mut String, base: &Deploy) {
    let Some(parent) = &base.extends else {
        let _ = writeln!(out, "        extends = \"{}\"", base.name);
        return;
    };
    let _ =
        writeln!(out, "        extends = \"{parent}\"    # and whatever else '{}' says", base.name);
    for (key, value) in [("tp", base.tp), ("pp", base.pp), ("dp", base.dp)] {
        if let Some(value) = value {
            let _ = writeln!(out, "        {key} = {value}");
        }
    }
}

/// The GPUs of `plan` in parts of `each`, none of them over two hosts. Absent where they do not come out even.
fn places(plan: &DeploymentPlan, each: u32) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for share in plan.instances.iter().flat_map(|i| &i.place) {
        let HostGpus { host, ids } = share;
        let parts = ids.chunks_exact(each as usize);
        if !parts.remainder().is_empty() {
            return None;
        }
        out.extend(parts.map(|ids| format!("{host}:{}", list(ids))));
    }
    Some(out)
}

/// `0-3`, or `0,2` where they do not follow each other.
fn list(ids: &[u32]) -> String {
    let follows = ids.windows(2).all(|w| w[1] == w[0] + 1);
    match ids {
        [first, .., last] if follows => format!("{first}-{last}"),
        _ => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    }
}
