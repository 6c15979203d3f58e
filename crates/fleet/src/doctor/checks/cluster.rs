//! D50 to D62: what only a running deployment can tell, and what the tools of clusters say.

use super::{Verdict, fail, pass, skip};
use crate::doctor::seen::Seen;
use scalebeam_model::plan::{DeploymentPlan, Platform};
use std::collections::BTreeMap;

/// Checks of entries, tokens and caches are passed by gates and warm-ups of a run.
pub(super) fn running(_: &Seen<'_>, _: &DeploymentPlan) -> Verdict {
    skip("needs a running deployment; run asks it before it measures")
}

pub(super) fn may(seen: &Seen<'_>, _: &DeploymentPlan) -> Verdict {
    let client = seen.client()?;
    let context = client.tool("kube_context")?.trim();
    let said = client.tool("kube_may")?;
    if said.lines().any(|l| l.trim() == "yes") {
        return pass(format!("context {context} may create pods"));
    }
    fail(
        format!("context {context} may not create pods: {}", first(said)),
        "choose another context (kubectl config use-context), or ask for a role in the namespace",
    )
}

/// The resource that an operator must have brought; plain Kubernetes needs none.
const fn custom_resource(platform: Platform) -> Option<&'static str> {
    match platform {
        Platform::Lws => Some("leaderworkersets.leaderworkerset.x-k8s.io"),
        Platform::Kuberay => Some("rayservices.ray.io"),
        Platform::Dgd => Some("dynamographdeployments.nvidia.com"),
        _ => None,
    }
}

pub(super) fn kind(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let Some(resource) = custom_resource(d.platform) else {
        return skip("a plain Deployment needs no resource of an operator");
    };
    // Without a cluster that answers, silence about a resource means nothing.
    seen.client()?.tool("kube_may")?;
    match seen.client()?.tool("kube_kinds")? {
        said if said.contains(resource) => pass(resource),
        _ => fail(format!("the cluster has no {resource}"), "install the operator that brings it"),
    }
}

pub(super) fn kube_gpus(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = seen.client()?.tool("kube_gpus")?;
    let each: Vec<u64> = said.lines().filter_map(|l| l.trim().parse().ok()).collect();
    let all: u64 = each.iter().sum();
    let words = format!("{all} GPUs on {} nodes, {} asked for", each.len(), d.gpus);
    if all >= u64::from(d.gpus) {
        return pass(words);
    }
    fail(words, "add nodes, install the NVIDIA device plugin, or ask for fewer GPUs")
}

/// Rows of `sinfo -h -o '%P|%a|%G|%D|%t|%l'`.
pub(super) fn slurm(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = seen.client()?.tool("slurm")?;
    let mut gpus: BTreeMap<&str, u64> = BTreeMap::new();
    for line in said.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [partition, "up", resources, nodes, state, _] = cells.as_slice() else { continue };
        let usable = ["idle", "mix", "alloc", "comp"].iter().any(|s| state.starts_with(s));
        if let (true, Ok(nodes)) = (usable, nodes.parse::<u64>()) {
            *gpus.entry(partition).or_default() += nodes * gpus_of(resources);
        }
    }
    let words = gpus.iter().map(|(p, n)| format!("{p} {n} GPUs")).collect::<Vec<_>>().join(", ");
    if gpus.values().any(|n| *n >= u64::from(d.gpus.max(1))) {
        return pass(words);
    }
    let words = if words.is_empty() { "no partition is up".to_owned() } else { words };
    fail(format!("{words}; {} asked for", d.gpus), "choose another partition, or ask for fewer")
}

/// `gpu:h100:8(S:0-1),nvme:1` has eight.
fn gpus_of(resources: &str) -> u64 {
    // A comma within brackets is part of a list of sockets; what follows it names no GPU.
    let of = |r: &str| -> Option<u64> {
        let gpus = r.split('(').next()?.strip_prefix("gpu:")?;
        gpus.rsplit(':').next()?.parse().ok()
    };
    resources.split(',').filter_map(of).sum()
}

pub(super) fn modal(seen: &Seen<'_>, _: &DeploymentPlan) -> Verdict {
    let client = seen.client()?;
    match client.tool("modal") {
        Ok(_) => pass("the token is valid"),
        Err(why) if why.0.contains("not installed") || why.0.contains("no answer") => Err(why),
        Err(why) => fail(why.0, "modal token new, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"),
    }
}

fn first(said: &str) -> &str {
    said.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("nothing")
}
