//! D60: what the cluster that a file names says, by the site's own `kubectl`.

use super::{Verdict, fail, many, pass, skip, unless};
use crate::doctor::sections::{Known, Unknown};
use crate::doctor::seen::Seen;
use crate::host::quote;
use crate::render::kube;
use scalebeam_model::plan::{DeploymentPlan, Platform};
use std::fmt::Write as _;

/// Platforms that `kubectl` reaches.
pub(crate) const PLATFORMS: &[Platform] =
    &[Platform::K8s, Platform::Lws, Platform::Kuberay, Platform::Dgd, Platform::InferencePool];

/// Calls of the probe: what is asked of each cluster and namespace, and, where it answers, of the objects in it
/// that the file names.
pub(crate) fn calls(deployments: &[&DeploymentPlan]) -> String {
    let ours: Vec<&DeploymentPlan> =
        deployments.iter().copied().filter(|d| PLATFORMS.contains(&d.platform)).collect();
    let mut calls = String::new();
    for first in ours.iter().filter(|d| site(&ours, d) == d.name) {
        let (key, made, at) = (quote(&first.name), quote(&workload(first)), place(first));
        // Writing to a String cannot fail.
        let _ = writeln!(calls, "if kubernetes {key} {made}{at}; then");
        for d in ours.iter().filter(|d| site(&ours, d) == first.name) {
            for (kind, name) in objects(d) {
                let (key, name) = (quote(&d.name), quote(name));
                let _ = writeln!(calls, "kube_object {key} {kind} {name}{at}");
            }
        }
        calls.push_str(":\nfi\n");
    }
    calls
}

/// The deployment under whose name the cluster and namespace of `d` are asked about: the first that needs to know
/// the same.
fn site<'d>(deployments: &[&'d DeploymentPlan], d: &'d DeploymentPlan) -> &'d str {
    let at = |d: &DeploymentPlan| ["context", "namespace"].map(|n| d.text(n).map(str::to_owned));
    let same = |other: &&DeploymentPlan| workload(other) == workload(d) && at(other) == at(d);
    deployments.iter().copied().find(same).unwrap_or(d).name.as_str()
}

/// Flags of `kubectl` that lead to where `d` goes.
fn place(d: &DeploymentPlan) -> String {
    let flag = |name: &str| Some(format!(" --{name}={}", quote(d.text(name)?)));
    ["context", "namespace"].into_iter().filter_map(flag).collect()
}

/// The resources that `d` is made of, beside Services, with spaces between them.
fn workload(d: &DeploymentPlan) -> String {
    let plain = || kube::plain_resources(d.platform).iter().map(|r| kube::full_name(*r));
    let made: Vec<String> = match (d.platform, d.instances.len()) {
        (Platform::K8s, 0 | 1) => vec!["deployments.apps".to_owned()],
        (Platform::K8s, _) => vec!["statefulsets.apps".to_owned()],
        (platform, _) => custom_resources(platform).into_iter().chain(plain()).collect(),
    };
    // Services are asked about wherever something is made.
    made.into_iter().filter(|r| r != "services").collect::<Vec<_>>().join(" ")
}

/// The resources that operators must have brought, as `kubectl` calls them in full.
fn custom_resources(platform: Platform) -> Vec<String> {
    kube::custom_resources(platform).iter().map(|r| kube::full_name(*r)).collect()
}

/// A volume claim, as `kubectl` calls it for short.
const CLAIM: &str = "pvc";

/// Objects that `d` names and that must be there before it.
fn objects(d: &DeploymentPlan) -> Vec<(&'static str, &str)> {
    let of = |(param, kind): (&str, &'static str)| Some((kind, d.text(param)?));
    let named = [("hf_secret", "secret"), ("env_secret", "secret"), ("model_pvc", CLAIM)];
    named.into_iter().filter_map(of).collect()
}

/// What the cluster of `d` says of `kind`; before that, whether it answers at all.
fn told<'s>(seen: &'s Seen<'_>, kind: &str, d: &DeploymentPlan) -> Known<&'s str> {
    let ours: Vec<&DeploymentPlan> =
        seen.deployments.iter().copied().filter(|d| PLATFORMS.contains(&d.platform)).collect();
    let (client, key) = (seen.client()?, site(&ours, d));
    client.tool(&format!("kube_may {key}"))?;
    client.tool(&format!("{kind} {key}"))
}

/// `context prod, namespace bench`
fn named(seen: &Seen<'_>, d: &DeploymentPlan) -> String {
    let current = || told(seen, "kube_context", d).map(str::trim).unwrap_or_default();
    let context = match d.text("context").unwrap_or_else(current) {
        "" => "the cluster around here".to_owned(),
        context => format!("context {context}"),
    };
    match d.text("namespace") {
        Some(namespace) => format!("{context}, namespace {namespace}"),
        None => context,
    }
}

/// Lines `VERB RESOURCE: yes`.
pub(super) fn may(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = told(seen, "kube_may", d)?;
    let place = named(seen, d);
    let answers = || said.lines().filter_map(|line| line.split_once(": "));
    let denied: Vec<&str> =
        answers().filter(|(_, answer)| answer.starts_with("no")).map(|(what, _)| what).collect();
    if denied.is_empty() {
        let all: Vec<&str> = answers().map(|(what, _)| what).collect();
        return pass(format!("{place}: may {}", all.join(", ")));
    }
    fail(
        format!("{place}: may not {}", denied.join(", ")),
        "name another context or namespace in params, or ask for a role in that namespace",
    )
}

/// Without it a deployment is measured, and nothing is read of its pods.
pub(super) fn exec(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = told(seen, "kube_exec", d)?;
    if said.trim().starts_with("yes") {
        return pass("may create pods/exec");
    }
    fail(
        "may not create pods/exec: nothing will be read of pods",
        "ask for `create` and `get` of pods/exec in that namespace",
    )
}

pub(super) fn kind(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let needed = custom_resources(d.platform);
    if needed.is_empty() {
        return skip("a plain Deployment needs no resource of an operator");
    }
    let said = told(seen, "kube_kinds", d)?;
    let missing: Vec<&str> =
        needed.iter().map(String::as_str).filter(|r| !said.contains(r)).collect();
    if missing.is_empty() {
        return pass(needed.join(", "));
    }
    let lacks = format!("the cluster has no {}", missing.join(", "));
    fail(lacks, "install the operator that brings it")
}

/// GPUs of a pod that has the most.
fn of_a_pod(d: &DeploymentPlan) -> u64 {
    let hosts = |places: usize| u32::try_from(places.max(1)).unwrap_or(u32::MAX);
    let each = d.instances.iter().map(|i| i.gpus().div_ceil(hosts(i.place.len())));
    u64::from(each.max().unwrap_or(0))
}

/// Lines `GPUS<tab>UNSCHEDULABLE`, a node each; empty where it has none, or is not cordoned.
pub(super) fn gpus(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = told(seen, "kube_gpus", d)?;
    let node = |line: &str| {
        let (gpus, cordoned) = line.split_once('\t').unwrap_or((line, ""));
        gpus.trim().parse::<u64>().ok().filter(|_| cordoned.trim() != "true")
    };
    let each: Vec<u64> = said.lines().filter_map(node).collect();
    let (all, most) = (each.iter().sum::<u64>(), each.iter().max().copied().unwrap_or(0));
    let nodes = many(each.len(), "schedulable node", "s");
    let words = format!("{} on {nodes}, {} asked for", many(all, "GPU", "s"), d.gpus);
    let hint = "add nodes, install the NVIDIA device plugin, or ask for fewer GPUs";
    if all < u64::from(d.gpus) {
        return fail(words, hint);
    }
    match of_a_pod(d) {
        wanted if wanted > most => fail(
            format!("{words}; a pod wants {wanted}, and no node has more than {most}"),
            "lower tp, or spread an instance over nodes (platform = \"lws\")",
        ),
        _ => pass(words),
    }
}

/// What is left of quotas for GPUs, by lines `NAME<tab>HARD<tab>USED`.
pub(super) fn quota(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = told(seen, "kube_quota", d)?;
    let quota = |line: &str| -> Option<(String, u64)> {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [name, hard, used] = cells.as_slice() else { return None };
        let hard: u64 = hard.parse().ok()?;
        Some(((*name).to_owned(), hard.saturating_sub(used.parse().unwrap_or(0))))
    };
    let Some((name, left)) = said.lines().filter_map(quota).min_by_key(|(_, left)| *left) else {
        return pass("no quota for GPUs");
    };
    let words = format!("quota {name} leaves {}, {} asked for", many(left, "GPU", "s"), d.gpus);
    if left >= u64::from(d.gpus) {
        return pass(words);
    }
    fail(words, "free some of the namespace's quota, or ask for less")
}

pub(super) fn there(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let named = objects(d);
    if named.is_empty() {
        return skip("the file names no Secret and no volume claim");
    }
    told(seen, "kube_may", d)?;
    let client = seen.client()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (kind, name) in named {
        let object = format!("{kind} {name}");
        match client.tool(&format!("kube_object {} {kind}/{name}", d.name)) {
            Ok(said) if said.starts_with("Lost") => missing.push(format!("{object} is lost")),
            // Of a Secret it is enough that it is there.
            Ok(said) if kind == CLAIM => found.push(format!("{object} {said}")),
            Ok(_) => found.push(object),
            Err(Unknown(why)) if is_absent(&why) => missing.push(format!("no {object}")),
            Err(why) => return Err(why),
        }
    }
    unless(
        missing,
        found.join(", "),
        "create it in the namespace of the deployment, or correct hf_secret, env_secret, model_pvc in params",
    )
}

fn is_absent(why: &str) -> bool {
    why.contains("(NotFound)") || why.contains("not found")
}
