//! The doctor before a run: whoever is to start processes asks it first, and keeps what it says.

use super::prepare::{self, Prepared};
use super::progress::Display;
use super::{Asked, reached};
use crate::exit::Failure;
use crate::experiment::Loaded;
use crate::{findings, printer, settings};
use scalebeam_fleet::OnNodes;
use scalebeam_fleet::doctor::examine;
use scalebeam_model::clock::Clock;
use scalebeam_model::doctor::{DoctorReport, Finding, Severity};
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_record::{read_doctor, write_doctor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether the doctor is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doctor {
    /// Where processes are started on hosts of ours.
    Asked,
    /// The command line says not to.
    NotAsked,
}

/// What it says of a plan; nothing where no deployment is started on hosts of ours.
pub(super) async fn ask(
    loaded: &Loaded,
    prepared: &Prepared,
    doctor: Doctor,
    clock: &Arc<dyn Clock>,
    asked: &watch::Receiver<Asked>,
) -> Option<DoctorReport> {
    let plan = &loaded.plan;
    let will_run = |d: &&DeploymentPlan| !prepared.is_skipped(&d.name);
    let deployments: Vec<&DeploymentPlan> = prepare::wanted(plan).filter(will_run).collect();
    if !deployments.iter().any(|d| d.platform.places_processes()) {
        return None;
    }
    if doctor == Doctor::NotAsked {
        return Some(DoctorReport::not_run(&plan.name, "--no-doctor"));
    }
    let cache = settings::cache_dir();
    tokio::select! {
        report = examine(plan, deployments, &cache, clock) => Some(report),
        () = reached(asked, Asked::Once) => Some(DoctorReport::not_run(&plan.name, "interrupted")),
    }
}

/// Counts what was found, and says each warning.
fn tell(who: &str, report: &DoctorReport, say: &dyn Fn(&str)) {
    say(&format!("{who}: {}", findings::counted(report)));
    for warning in report.failed(Severity::Warns) {
        say(&warning.line());
    }
}

/// Keeps in the run directory `dir` what it says of nodes that a deployment was given, and tells what is wrong, on
/// lines of `display`. Nobody where it is not asked.
pub(super) fn on_nodes(doctor: Doctor, dir: PathBuf, display: Display) -> Option<OnNodes> {
    let take = move |report: &DoctorReport| {
        let mut all = read_doctor(&dir)?.unwrap_or_else(|| DoctorReport {
            deployments: Vec::new(),
            findings: Vec::new(),
            paths: Vec::new(),
            ..report.clone()
        });
        all.take_in(report.clone());
        write_doctor(&dir, &all)?;
        let who = format!("{}: doctor on its nodes", report.deployments.join(", "));
        tell(&who, report, &|text| display.line(text));
        Ok(())
    };
    (doctor == Doctor::Asked).then(|| OnNodes::new(take))
}

/// Keeps it in the run directory, and tells what is wrong.
///
/// # Errors
/// When a check failed that stops a deployment.
pub(super) fn keep(dir: &Path, report: &DoctorReport) -> Result<(), Failure> {
    write_doctor(dir, report)?;
    if let Some(why) = &report.not_run {
        printer::say(&format!("doctor: not asked ({why})"));
        return Ok(());
    }
    tell("doctor", report, &printer::say);
    let stops: Vec<String> = report.failed(Severity::Stops).map(Finding::line).collect();
    if stops.is_empty() {
        return Ok(());
    }
    Err(Failure::deployment(format!(
        "nothing was started; it could not work\n{}",
        stops.join("\n")
    ))
    .hint("all findings are in doctor.json of the run; --no-doctor starts in spite of them"))
}
