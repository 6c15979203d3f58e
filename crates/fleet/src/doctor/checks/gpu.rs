//! D20 to D25, and NUMA of D41: GPUs of NVIDIA, by what `nvidia-smi` says of those that the plan uses.

use super::{Verdict, fail, pass, skip, unless};
use crate::doctor::nvidia::{Gpu, Row};
use crate::doctor::sections::{Known, Unknown, told};
use crate::doctor::seen::{Host, Seen};
use scalebeam_model::plan::DeploymentPlan;
use std::collections::{BTreeMap, BTreeSet};

/// A GPU is free while at least this share of its memory is.
const FREE: f64 = 0.9;
/// An application clock below this share of the highest was set by somebody.
const LOW_CLOCK: f64 = 0.8;

/// GPUs that `nvidia-smi` lists, of those that the plan uses here.
fn planned<'h>(host: &'h Host<'_>) -> Known<Vec<&'h Gpu>> {
    let ids = host.machine.gpu_ids()?;
    let all = told(&host.facts()?.gpus)?;
    let ours: Vec<&Gpu> = all.iter().filter(|g| ids.contains(&g.index)).collect();
    if ours.is_empty() {
        return Err(Unknown::because("none of the plan's GPUs is there (D20)"));
    }
    Ok(ours)
}

pub(super) fn present(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let ids = host.machine.gpu_ids()?;
    let all = told(&host.facts()?.gpus)?;
    let there: BTreeSet<u32> = all.iter().map(|g| g.index).collect();
    let missing: Vec<String> = ids.difference(&there).map(u32::to_string).collect();
    if missing.is_empty() {
        return pass(kinds(all));
    }
    fail(
        format!("the plan uses GPU {}, and there are {}", missing.join(", "), kinds(all)),
        "correct place or gpus of the host; a GPU that has fallen off the bus needs a reboot",
    )
}

/// `4 x NVIDIA H100 80GB HBM3, driver 550.54`.
fn kinds(gpus: &[Gpu]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in gpus {
        *counts.entry(gpu.name.as_deref().unwrap_or("GPU")).or_default() += 1;
    }
    let mut words: Vec<String> = counts.iter().map(|(name, n)| format!("{n} x {name}")).collect();
    words.extend(gpus.iter().find_map(|g| g.driver.as_ref()).map(|d| format!("driver {d}")));
    if words.is_empty() { "no GPU".to_owned() } else { words.join(", ") }
}

pub(super) fn modes(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let gpus = planned(host)?;
    if gpus.iter().all(|g| g.mig.is_none() && g.persistence.is_none()) {
        return skip("nvidia-smi tells neither mode");
    }
    let mut wrong = Vec::new();
    for gpu in &gpus {
        if gpu.mig.as_deref() == Some("Enabled") {
            wrong.push(format!("GPU {} is cut by MIG", gpu.index));
        }
        if gpu.persistence.as_deref() == Some("Disabled") {
            wrong.push(format!("GPU {} has persistence mode off", gpu.index));
        }
    }
    let ecc: BTreeSet<&str> = gpus.iter().filter_map(|g| g.ecc.as_deref()).collect();
    if ecc.len() > 1 {
        wrong.push("ECC is on for some GPUs only".to_owned());
    }
    let mode = |f: fn(&Gpu) -> Option<&String>| {
        gpus.iter().find_map(|g| f(g)).map_or("not told", String::as_str)
    };
    let (mig, persistence) = (mode(|g| g.mig.as_ref()), mode(|g| g.persistence.as_ref()));
    let ecc = ecc.first().map_or("not told", |e| e);
    unless(
        wrong,
        format!("MIG {mig}, persistence {persistence}, ECC {ecc}"),
        "ask an administrator: nvidia-smi -mig 0, nvidia-smi -pm 1, nvidia-smi -e 1",
    )
}

pub(super) fn alike(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    seen.several(d)?;
    let mut by_kind: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in seen.of(d) {
        let gpus = planned(host)?;
        let of = |f: fn(&Gpu) -> Option<&str>| {
            let found: BTreeSet<&str> = gpus.iter().filter_map(|g| f(g)).collect();
            found.into_iter().collect::<Vec<_>>().join("+")
        };
        let kind = format!("{}, driver {}", of(|g| g.name.as_deref()), of(|g| g.driver.as_deref()));
        by_kind.entry(kind).or_default().push(&host.machine.label);
    }
    let words: Vec<String> =
        by_kind.iter().map(|(kind, hosts)| format!("{}: {kind}", hosts.join(", "))).collect();
    if by_kind.len() == 1 {
        return pass(words.join("; "));
    }
    fail(words.join("; "), "the slowest GPU sets the pace: place the deployment on like hosts")
}

pub(super) fn free(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let gpus = planned(host)?;
    let processes = told(&host.facts()?.gpu_processes)?;
    let mut wrong: Vec<String> = gpus.iter().filter_map(|g| too_full(g)).collect();
    wrong.extend(processes.iter().filter(|p| is_on(p, &gpus)).map(foreign));
    if wrong.is_empty() && gpus.iter().any(|g| share_free(g).is_none()) {
        return skip("nvidia-smi tells no free memory");
    }
    unless(
        wrong,
        "memory free, no other process",
        "end what uses the GPUs if it is yours; scalebeam never stops what it did not start",
    )
}

fn share_free(gpu: &Gpu) -> Option<f64> {
    Some(gpu.memory_free_mib? / gpu.memory_total_mib.filter(|m| *m > 0.0)?)
}

fn too_full(gpu: &Gpu) -> Option<String> {
    let free = share_free(gpu).filter(|f| *f < FREE)?;
    Some(format!("GPU {} has {:.0} % of its memory free", gpu.index, free * 100.0))
}

/// A process whose GPU is not told may be on any.
fn is_on(process: &Row, gpus: &[&Gpu]) -> bool {
    let Some(uuid) = process.get("gpu_uuid") else { return true };
    gpus.iter().any(|g| g.uuid.as_ref().is_none_or(|own| own == uuid))
}

fn foreign(process: &Row) -> String {
    let cell = |name: &str| process.get(name).map_or("not told", String::as_str);
    format!("{} (pid {}) computes there", cell("process_name"), cell("pid"))
}

/// Every two GPUs of each tensor group.
fn pairs(host: &Host<'_>) -> Known<Vec<(u32, u32)>> {
    let groups = host.machine.tensor_groups()?;
    let of = |group: &Vec<u32>| {
        let group = group.clone();
        let each = group.clone();
        each.into_iter().flat_map(move |a| group.clone().into_iter().map(move |b| (a, b)))
    };
    let all: BTreeSet<(u32, u32)> = groups.iter().flat_map(of).filter(|(a, b)| a < b).collect();
    Ok(all.into_iter().collect())
}

/// What the matrix has between GPUs of a group: link to the pairs that have it.
fn links<'h>(
    host: &'h Host<'_>,
    matrix: &'h Known<crate::doctor::nvidia::Matrix>,
) -> Known<BTreeMap<&'h str, Vec<String>>> {
    let pairs = pairs(host)?;
    planned(host)?;
    let matrix = told(matrix)?;
    let mut links: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (a, b) in pairs {
        let never = || Unknown(format!("nvidia-smi topo has nothing between GPU {a} and {b}"));
        links.entry(matrix.between(a, b).ok_or_else(never)?).or_default().push(format!("{a}-{b}"));
    }
    Ok(links)
}

pub(super) fn nvlink(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let links = links(host, &host.facts()?.topology)?;
    let slow = links.iter().filter(|(link, _)| !link.starts_with("NV"));
    let wrong = slow.map(|(link, pairs)| format!("{link} between GPUs {}", pairs.join(", ")));
    let kinds = links.keys().copied().collect::<Vec<_>>().join(", ");
    unless(
        wrong.collect(),
        kinds,
        "all-reduces cross PCIe: place a group on GPUs with NVLink, or use pp or replicas instead",
    )
}

pub(super) fn peer_access(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let links = links(host, &host.facts()?.p2p)?;
    let without = links.iter().filter(|(link, _)| **link != "OK");
    let wrong = without.map(|(link, pairs)| format!("{link} between GPUs {}", pairs.join(", ")));
    unless(
        wrong.collect(),
        "reads between all GPUs of a group",
        "IOMMU or ACS may be in the way (pci=noacs), or NCCL_P2P_DISABLE=1 gets it going, slower",
    )
}

/// Whether PCI bridges send what GPUs of a group say to each other over the root complex.
pub(super) fn acs(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    let links = links(host, &facts.topology)?;
    if links.keys().all(|link| link.starts_with("NV")) {
        return pass("NVLink joins each group: no bridge is in between");
    }
    let bridges = told(&facts.acs)?;
    let redirects: Vec<&str> = bridges
        .iter()
        .filter(|(_, ctl)| ctl.contains("ReqRedir+"))
        .map(|(b, _)| b.as_str())
        .collect();
    let some = redirects.iter().take(4).copied().collect::<Vec<_>>().join(", ");
    let wrong = (!redirects.is_empty())
        .then(|| format!("{} of {} bridges redirect ({some})", redirects.len(), bridges.len()));
    unless(
        wrong.into_iter().collect(),
        format!("none of {} bridges redirects", bridges.len()),
        "ranks may hang or crawl: turn ACS off (setpci, or in the firmware), or set \
         NCCL_P2P_DISABLE = \"1\" in env; a virtual machine has to live with it",
    )
}

/// Whether a group that fits on one NUMA node is on one.
pub(super) fn numa(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let groups = host.machine.tensor_groups()?;
    planned(host)?;
    let numa = told(&host.facts()?.topology)?.numa();
    let mut rooms: BTreeMap<u32, usize> = BTreeMap::new();
    for node in numa.values() {
        *rooms.entry(*node).or_default() += 1;
    }
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for group in &groups {
        let nodes: Option<BTreeSet<u32>> = group.iter().map(|id| numa.get(id).copied()).collect();
        let nodes = nodes.ok_or_else(|| Unknown::because("nvidia-smi topo tells no NUMA nodes"))?;
        let words = format!("GPUs {} on {}", listed(group), listed(&nodes));
        let would_fit = rooms.values().any(|room| *room >= group.len());
        if nodes.len() > 1 && would_fit { wrong.push(words) } else { seen.push(words) }
    }
    unless(
        wrong,
        seen.join("; "),
        "place the group on GPUs of one NUMA node: nvidia-smi topo -m lists them",
    )
}

fn listed<'a>(numbers: impl IntoIterator<Item = &'a u32>) -> String {
    numbers.into_iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn throttle(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let gpus = planned(host)?;
    let reasons = host.facts()?.gpu_throttle.as_ref();
    let mut wrong: Vec<String> = gpus.iter().flat_map(|g| held_back(g)).collect();
    for row in reasons.into_iter().flatten() {
        let index = row.get("index").and_then(|i| i.parse::<u32>().ok());
        if gpus.iter().any(|g| Some(g.index) == index) {
            wrong.extend(active(row).map(|(gpu, why)| format!("GPU {gpu}: {why} is active")));
        }
    }
    if wrong.is_empty() {
        reasons.map_err(Clone::clone)?;
    }
    let is_told = gpus.iter().all(|g| g.power_limit_w.is_some() && g.power_default_w.is_some());
    let power = if is_told { "as shipped" } else { "not told" };
    unless(
        wrong,
        format!("nothing throttles, power limits {power}"),
        "nvidia-smi -pl and -rgc undo caps and clocks (as administrator); heat needs air",
    )
}

fn held_back(gpu: &Gpu) -> Vec<String> {
    let mut held = Vec::new();
    if let (Some(limit), Some(default)) = (gpu.power_limit_w, gpu.power_default_w)
        && limit < default
    {
        held.push(format!("GPU {} is capped at {limit} W of {default} W", gpu.index));
    }
    if let (Some(set), Some(most)) = (gpu.set_sm_mhz, gpu.max_sm_mhz)
        && set < LOW_CLOCK * most
    {
        held.push(format!("GPU {} has its clock set to {set} MHz of {most} MHz", gpu.index));
    }
    held
}

/// Reasons of a row that are active, each with the index of the GPU.
fn active(row: &Row) -> impl Iterator<Item = (&str, &str)> {
    let index = row.get("index").map_or("?", String::as_str);
    row.iter()
        .filter(|(_, state)| *state == "Active")
        .filter_map(move |(name, _)| Some((index, name.rsplit('.').next()?)))
}

pub(super) fn fabric(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let ids = host.machine.gpu_ids()?;
    planned(host)?;
    let rows = told(&host.facts()?.gpu_fabric)?;
    let state = |row: &Row| {
        let index: u32 = row.get("index")?.parse().ok()?;
        let state = row.get("fabric.state")?.clone();
        ids.contains(&index).then_some((index, state))
    };
    let states: Vec<(u32, String)> = rows.iter().filter_map(state).collect();
    if states.is_empty() {
        return skip("the GPUs have no fabric state: no NVSwitch");
    }
    let wrong = states.iter().filter(|(_, state)| state != "Completed");
    let wrong = wrong.map(|(index, state)| format!("GPU {index}: {state}")).collect();
    unless(wrong, "Completed", "start nvidia-fabricmanager of the driver's own version")
}
