//! `doctor`: whether a plan could work on its machines, before anything of it exists.
//!
//! ```text
//! plan ─► machine ─► probe (sh, here or over ssh) ─► sections ─► facts ─┐
//!           │                                                          ├─► checks ─► findings
//!           └────────────────────────── what the plan needs of each ───┘
//! ```
//!
//! **Invariants.** Strictly read-only: nothing is written, started or changed anywhere, but for a listener
//! of seconds between hosts that are to talk (`transfer`). It and `probe` are the only parts that do IO;
//! all others are pure, so each check is tested on text. A check that could not
//! look is skipped with the reason, never passed.

mod checks;
pub(crate) mod facts;
mod granted;
pub(crate) mod machine;
pub(crate) mod nvidia;
pub(crate) mod probe;
pub(crate) mod sections;
mod seen;
mod transfer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::host::Shell;
use crate::setup::llama_cpp;
pub(crate) use granted::Place;
use machine::Machine;
use scalebeam_model::clock::Clock;
use scalebeam_model::doctor::{DOCTOR_FORMAT, DoctorReport, MeasuredPath};
use scalebeam_model::plan::{DeploymentPlan, Plan};
use seen::{Host, Seen};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use transfer::{Moved, Speed};

/// Looks at every machine of `deployments` of `plan`, all at the same time, and asks every check.
///
/// `cache_dir` is where managed engines are. It never fails: what could not be looked at is in the report.
pub async fn examine(
    plan: &Plan,
    deployments: Vec<&DeploymentPlan>,
    cache_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> DoctorReport {
    let machines = machine::machines(plan, &deployments);
    let brought = probe::run(probe::errands(plan, &deployments, &machines), clock).await;
    let hosts = hosts(machines, brought, cache_dir).await;
    report(&Seen { plan, deployments, hosts })
}

/// Looks at the machines that `deployment` was given, all at the same time, and asks every check that is about hosts or
/// the plan. Its processes will have the variables `env`; where these are not known, nothing is looked at.
pub(crate) async fn examine_granted(
    plan: &Plan,
    deployment: &DeploymentPlan,
    places: &[Place],
    env: Result<BTreeMap<String, String>, String>,
    cache_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> DoctorReport {
    let variables = env.as_ref().cloned().unwrap_or_default();
    let on_nodes = granted::plan_on(plan, places);
    let deployment = granted::deployment_on(deployment, places, &variables);
    let deployments = vec![&deployment];
    let shell = |_: &DeploymentPlan, host: &str| {
        places.iter().find(|place| place.name == host).map(|place| place.shell.clone())
    };
    let machines = machine::machines_by(&on_nodes, &deployments, shell);
    let brought = match env {
        Ok(_) => probe::run(probe::errands(plan, &deployments, &machines), clock).await,
        Err(why) => machines.iter().map(|_| probe::Brought::nothing_because(&why)).collect(),
    };
    let hosts = hosts(machines, brought, cache_dir).await;
    report(&Seen { plan, deployments, hosts }).of_nodes(&deployment.name)
}

async fn hosts<'a>(
    machines: Vec<Machine<'a>>,
    brought: Vec<probe::Brought>,
    cache_dir: &Path,
) -> Vec<Host<'a>> {
    let reached: Vec<bool> = brought.iter().map(|b| b.facts.is_ok()).collect();
    let sent = transfer::run(&machines, &reached).await;
    let found = machines.into_iter().zip(brought).zip(sent);
    found.map(|((machine, brought), sent)| host(machine, brought, sent, cache_dir)).collect()
}

fn host<'a>(
    machine: Machine<'a>,
    brought: probe::Brought,
    sent: Option<transfer::Sent>,
    cache_dir: &Path,
) -> Host<'a> {
    let probe::Brought { facts, clock, rtt } = brought;
    Host { managed: managed(&machine, cache_dir), machine, facts, clock, rtt, sent }
}

fn report(seen: &Seen<'_>) -> DoctorReport {
    DoctorReport {
        format: DOCTOR_FORMAT,
        experiment: seen.plan.name.clone(),
        deployments: seen.deployments.iter().map(|d| d.name.clone()).collect(),
        not_run: None,
        findings: checks::findings(seen),
        paths: seen.hosts.iter().filter_map(path).collect(),
    }
}

fn path(host: &Host<'_>) -> Option<MeasuredPath> {
    let sent = host.sent.as_ref()?;
    let Ok(Moved::At(Speed { bytes_per_s, .. })) = &sent.moved else { return None };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of bytes")]
    let bytes_per_s = bytes_per_s.max(0.0) as u64;
    Some(MeasuredPath { from: host.machine.label.clone(), to: sent.to.clone(), bytes_per_s })
}

/// Programs and models of the plan that scalebeam has installed itself.
fn managed(machine: &Machine<'_>, cache_dir: &Path) -> Vec<String> {
    if machine.shell != Shell::Here || llama_cpp::installed(cache_dir).is_none() {
        return Vec::new();
    }
    let models = machine.duties.iter().map(|d| d.deployment.model.clone());
    let models = models.filter(|m| llama_cpp::is_managed_model(m));
    std::iter::once("llama-server".to_owned()).chain(models).collect()
}
