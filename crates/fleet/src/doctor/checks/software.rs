//! D30 to D33: programs, versions, the model and where it lies.

use super::{Verdict, fail, gib, pass, skip, unless};
use crate::doctor::machine::Duty;
use crate::doctor::sections::{Known, Unknown, told};
use crate::doctor::seen::{Host, Seen};
use scalebeam_model::plan::{DeploymentPlan, EngineKind, EnvValue, RankLauncher};
use scalebeam_model::units::{Nanos, significant};
use std::collections::{BTreeMap, BTreeSet};

/// Packages of which every host must have the same version: Ray refuses to join otherwise.
const STRICT: [&str; 2] = ["python", "ray"];
/// A download that fills the disk is noticed late; a 7B model in 16 bits has 15 GB.
const ROOM_FOR_A_MODEL: u64 = 20 << 30;
/// Of the time for a bring-up, reading the weights may take this part.
const READ_PART: u64 = 4;
/// Kinds of file systems that are on the network, as `stat -f` calls them.
const NETWORKED: [&str; 8] = ["nfs", "cifs", "smb2", "fuseblk", "fuse", "lustre", "gpfs", "ceph"];

/// What gives a program, for the hint.
const PACKAGES: [(&str, &str); 13] = [
    ("vllm", "pip install vllm"),
    ("lmdeploy", "pip install lmdeploy"),
    ("vllm-router", "pip install vllm-router"),
    ("sglang-router", "pip install sglang-router"),
    ("ray", "pip install 'ray[serve,llm]'"),
    ("serve", "pip install 'ray[serve,llm]'"),
    ("dynamo", "pip install 'ai-dynamo[vllm]'"),
    ("etcd", "the etcd release, or apt install etcd-server"),
    ("nats-server", "the nats-server release, or apt install nats-server"),
    ("llama-server", "scalebeam setup llama.cpp, or llama.cpp's own release"),
    ("python3", "apt install python3"),
    ("nvidia-smi", "the NVIDIA driver"),
    ("docker", "apt install docker.io"),
];

pub(super) fn strict(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    if !is_joined_by_ray(d) {
        return skip("no Ray joins its hosts");
    }
    versions(seen, d, |package| STRICT.contains(&package))
}

pub(super) fn loose(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let ray = is_joined_by_ray(d);
    versions(seen, d, |package| !(ray && STRICT.contains(&package)))
}

fn is_joined_by_ray(d: &DeploymentPlan) -> bool {
    d.launcher == Some(RankLauncher::Ray) || d.engine == EngineKind::RayServeLlm
}

/// Package to version to hosts.
type ByPackage<'s> = BTreeMap<&'s str, BTreeMap<&'s str, BTreeSet<&'s str>>>;

fn versions(seen: &Seen<'_>, d: &DeploymentPlan, ours: impl Fn(&str) -> bool) -> Verdict {
    seen.several(d)?;
    let found = by_package(seen, d, ours)?;
    if found.is_empty() {
        return skip("no host has such a package beside the plan's programs");
    }
    let differs = found.iter().filter(|(_, versions)| versions.len() > 1);
    let wrong = differs.map(|(package, versions)| {
        let hosts = |(v, hosts): (&&str, &BTreeSet<&str>)| {
            format!("{v} on {}", hosts.iter().copied().collect::<Vec<_>>().join(", "))
        };
        format!("{package}: {}", versions.iter().map(hosts).collect::<Vec<_>>().join(" and "))
    });
    let same = |(package, versions): (&&str, &BTreeMap<&str, BTreeSet<&str>>)| {
        format!("{package} {}", versions.keys().next().unwrap_or(&"?"))
    };
    let words = found.iter().map(same).collect::<Vec<_>>().join(", ");
    unless(wrong.collect(), words, "install the same environment on every host")
}

fn by_package<'s>(
    seen: &'s Seen<'_>,
    d: &'s DeploymentPlan,
    ours: impl Fn(&str) -> bool,
) -> Known<ByPackage<'s>> {
    let mut found = ByPackage::new();
    for host in seen.of(d) {
        outside_of_containers(host)?;
        let facts = host.facts()?;
        if facts.versions.is_empty() {
            let why = format!("{} has no Python program of the plan", host.machine.label);
            return Err(Unknown(why));
        }
        for versions in facts.versions.values() {
            for (package, version) in told(versions)? {
                if ours(package) {
                    let hosts = found.entry(package).or_default().entry(version).or_default();
                    hosts.insert(&host.machine.label);
                }
            }
        }
    }
    Ok(found)
}

/// What is in an image is not seen from its host.
fn outside_of_containers(host: &Host<'_>) -> Known<()> {
    match host.machine.is_in_containers() {
        true => Err(Unknown::because("its processes are in containers, which are not looked into")),
        false => Ok(()),
    }
}

pub(super) fn programs(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    outside_of_containers(host)?;
    let facts = host.facts()?;
    let mut missing = Vec::new();
    let mut optional = Vec::new();
    let mut there = Vec::new();
    for (program, only_optional) in host.machine.programs() {
        let managed = host.managed.iter().any(|m| m == program);
        match facts.programs.get(program) {
            _ if managed => there.push(format!("{program} (installed by scalebeam)")),
            Some(Ok(path)) => there.push(path.clone()),
            Some(Err(_)) if only_optional => optional.push(program),
            Some(Err(_)) => missing.push(program),
            // Our own program is there where we are.
            None => {}
        }
    }
    if !missing.is_empty() {
        let hint = missing.iter().map(|p| from(p)).collect::<Vec<_>>().join("; ");
        return fail(format!("not found: {}", missing.join(", ")), hint);
    }
    if !optional.is_empty() {
        optional.insert(0, "of optional deployments, not found:");
    }
    match (there.is_empty(), optional.join(" ")) {
        (true, without) if without.is_empty() => {
            skip("the plan runs no program but scalebeam here")
        }
        (true, without) => skip(without),
        (false, without) if without.is_empty() => pass(there.join(", ")),
        (false, without) => pass(format!("{}; {without}", there.join(", "))),
    }
}

fn from(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let known = PACKAGES.iter().find(|(p, _)| *p == name);
    match known {
        Some((_, package)) => format!("{program}: {package}; or name its path in params"),
        None => format!("install {program}, or put its folder on PATH there"),
    }
}

fn is_path(model: &str) -> bool {
    model.starts_with(['/', '.', '~'])
}

pub(super) fn model(seen: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let duties = host.machine.loading()?;
    outside_of_containers(host)?;
    let facts = host.facts()?;
    let id = seen.plan.model.id.as_str();
    let why = match &facts.model.place {
        Ok(place) => return pass(place.clone()),
        Err(why) => why,
    };
    if duties.iter().all(|d| d.deployment.optional) {
        return skip(format!("of optional deployments, {why}"));
    }
    if host.managed.iter().any(|m| m == id) {
        return pass("installed by scalebeam");
    }
    if is_path(id) || duties.iter().any(never_asks_the_hub) {
        return fail(why.to_string(), "copy the model to this host, or correct [model] id");
    }
    skip(format!("{why}; the engine has to load it from the hub"))
}

/// llama.cpp wants a file; the others may be told to.
fn never_asks_the_hub(duty: &Duty<'_>) -> bool {
    let offline = |value: &EnvValue| value.given() == Some("1");
    duty.deployment.engine == EngineKind::LlamaCpp
        || duty.process.env.get("HF_HUB_OFFLINE").is_some_and(offline)
}

pub(super) fn same_model(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    seen.several(d)?;
    let mut by_hash: BTreeMap<&BTreeMap<String, String>, Vec<&str>> = BTreeMap::new();
    for host in seen.of(d) {
        host.machine.loading()?;
        let model = &host.facts()?.model;
        told(&model.place)?;
        let hashes = told(&model.hashes)?;
        by_hash.entry(hashes).or_default().push(&host.machine.label);
    }
    if by_hash.len() == 1 {
        let files = by_hash.keys().flat_map(|h| h.keys().cloned()).collect::<Vec<_>>().join(", ");
        return pass(format!("same {files}"));
    }
    let groups: Vec<String> = by_hash.values().map(|hosts| hosts.join(", ")).collect();
    fail(
        format!("files differ between {}", groups.join(" and ")),
        "say revision in [model], and copy or load the same one on every host",
    )
}

/// Its value is passed on from this machine by name, and never looked at.
pub(super) fn token(seen: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    if is_path(&seen.plan.model.id) {
        return skip("the model is a path: no hub is asked");
    }
    let here = told(&seen.client()?.environment)?;
    let is_set = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().any(|n| here.contains(*n));
    pass(if is_set {
        "HF_TOKEN is set on this machine and passed on"
    } else {
        "HF_TOKEN is not set: the hub would refuse a gated model"
    })
}

pub(super) fn space(seen: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    if is_path(&seen.plan.model.id) {
        return skip("the model is a path: nothing is loaded into the cache");
    }
    let facts = host.facts()?;
    let free = told(&facts.disk)?.free_bytes;
    if facts.model.place.is_ok() {
        return pass(format!("the model is there, {} left", gib(free)));
    }
    if free >= ROOM_FOR_A_MODEL {
        return pass(format!("{} in the model cache", gib(free)));
    }
    let want = gib(ROOM_FOR_A_MODEL);
    fail(
        format!("{} in the model cache, and the model is yet to be loaded", gib(free)),
        format!(
            "make room for the model (a small one has {want}), or set HF_HOME to a larger disk"
        ),
    )
}

pub(super) fn disk_kind(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    let kind = told(&host.facts()?.disk_kind)?;
    if NETWORKED.contains(&kind.as_str()) {
        return fail(
            format!("the model cache is on {kind}"),
            "every start reads the weights over the network: set HF_HOME to a local disk",
        );
    }
    pass(kind.clone())
}

/// Whether the weights are read in a part of the time that the deployment has to come up.
pub(super) fn disk_speed(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let duties = host.machine.loading()?;
    let model = &host.facts()?.model;
    let (bytes, speed) = (*told(&model.weight_bytes)?, *told(&model.read_bytes_per_s)?);
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let takes = Nanos::from_secs_f64(bytes as f64 / speed);
    let mib = significant(speed / f64::from(1u32 << 20));
    let words = format!("{} of weights take {takes} at {mib} MiB/s", gib(bytes));
    let patience = duties.iter().map(|d| d.deployment.ready.timeout).min().unwrap_or(Nanos::MAX);
    if takes.0 <= patience.0 / READ_PART {
        return pass(words);
    }
    fail(
        format!("{words}, and the deployment has {patience} to come up"),
        "copy the model to a local disk (HF_HOME), or raise ready.timeout",
    )
}
