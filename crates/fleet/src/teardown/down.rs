//! `down`: from the journal of a run directory to nothing left.
//!
//! **Invariant:** needs nothing but the journal and `/proc`, and the way to hosts and platforms that it names. It works on a journal whose last line is
//! torn, on one that cannot be written any more, beside a run that is still going on, and after one
//! that was killed between an intent and its record.

use super::{
    Claimed, Ended, ProcessEnd, Survey, Target, apart, claims, clean, end_in_pods, remote,
    take_down,
};
use crate::error::FleetError;
use crate::host::Shell;
use crate::journal::{self, Contents, Event, Journal};
use crate::process::{self, Identity, Mark, Marked, Table};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What `down` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownReport {
    /// Processes that were there and were ended, or could not be.
    pub ends: Vec<ProcessEnd>,
    /// What went wrong.
    pub problems: Vec<String>,
    /// What was looked at and left alone, with the reason.
    pub untouched: Vec<String>,
    /// Lines of the journal that a crash had torn.
    pub torn: usize,
}

impl DownReport {
    /// Whether there was nothing to take down.
    pub fn nothing_left(&self) -> bool {
        self.ends.is_empty() && self.problems.is_empty()
    }
}

/// A process of an earlier run that still lives, or what a platform still has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its deployment.
    pub deployment: String,
    /// Id in the plan; what a platform calls it.
    pub process: String,
    /// Its host, or the platform.
    pub host: String,
    /// Its command line, or its name there.
    pub command: String,
    /// What lives of it, where that is processes.
    pub pids: Vec<i32>,
}

/// Takes down whatever the run of `run_dir` has left, with `grace` or what its plan said.
///
/// # Errors
/// When the journal or `/proc` is there and cannot be read. Anything later is in the report.
pub async fn down_run(
    run_dir: &Path,
    grace: Option<Nanos>,
    clock: Arc<dyn Clock>,
) -> Result<DownReport, FleetError> {
    let path = run_dir.join(journal::FILE);
    let contents = journal::read(&path)?;
    let (named, claimed) = (targets_of(&contents), claims::of(&contents));
    let here = look(run_dir, &named)?;
    let unnamed = unnamed(&named, &claimed, &here);
    let (mut targets, untouched) = living(named, &here);
    targets.extend(unnamed);
    let mut report = DownReport { untouched, torn: contents.torn.len(), ..DownReport::default() };
    let (gone, mut given): (Vec<_>, Vec<_>) =
        claimed.into_iter().partition(|claimed| claimed.is_gone);
    let is_given = |name: &String| given.iter().any(|c| c.claim.deployment == *name);
    let gone = gone.into_iter().map(|claimed| claimed.claim.deployment);
    let gone_before: Vec<String> = gone.filter(|name| !is_given(name)).collect();
    if targets.is_empty() && given.is_empty() {
        return Ok(report);
    }
    if let Some(grace) = grace {
        targets.iter_mut().for_each(|target| target.grace = grace);
        given.iter_mut().for_each(|given| given.claim.grace = grace);
    }
    let journal = match Journal::open(&path, clock) {
        Ok(journal) => Some(journal),
        Err(error) => {
            report.problems.push(format!("{error}; going on without it"));
            None
        }
    };
    let (in_pods, targets) = apart(targets);
    let mut done = take_down(&targets, journal.as_ref()).await;
    clean(&targets, &mut done).await;
    let mut gone = claims::remove(&given, journal.as_ref(), &mut done).await;
    gone.extend(gone_before);
    end_in_pods(in_pods, &gone, journal.as_ref(), &mut done).await;
    report.ends = done.ends.into_iter().filter(|e| e.ended != Ended::WasGone).collect();
    report.problems.extend(done.problems);
    Ok(report)
}

/// What the run of `run_dir` has left, here and on other hosts, so that another is not started over it.
/// Hosts are asked only of what the journal does not say that it is gone.
///
/// # Errors
/// When the journal or `/proc` is there and cannot be read, or a host cannot be asked.
pub async fn leftovers(run_dir: &Path) -> Result<Vec<Leftover>, FleetError> {
    let contents = journal::read(&run_dir.join(journal::FILE))?;
    let (named, claimed) = (targets_of(&contents), claims::of(&contents));
    let here = look(run_dir, &named)?;
    let unnamed = unnamed(&named, &claimed, &here);
    let asked = named.into_iter().filter(|t| t.shell == Shell::Here || !t.gone);
    let targets: Vec<Target> = asked.chain(unnamed).collect();
    let mut living = remote::look(&targets).await?;
    for (index, target) in targets.iter().enumerate() {
        let survey = here.survey(target);
        if !survey.is_empty() {
            let pids = survey.in_group.iter().chain(&survey.strays).map(|m| m.pid).collect();
            living.insert(index, pids);
        }
    }
    let of = |(index, pids): (usize, Vec<i32>)| {
        let Target { deployment, process, host, command, .. } = targets.get(index)?.clone();
        Some(Leftover { deployment, process, host, command, pids })
    };
    let mut left: Vec<Leftover> = living.into_iter().filter_map(of).collect();
    left.extend(claims::left(&claimed).await?);
    Ok(left)
}

/// What lives on this machine.
struct Here {
    table: Table,
    marked: Vec<Marked>,
    boot: String,
}

impl Here {
    fn survey(&self, target: &Target) -> Survey {
        target.survey(&self.table, &self.marked, &self.boot)
    }
}

/// Looks for processes of `targets`, and for others that carry the mark of the run of `run_dir`.
fn look(run_dir: &Path, targets: &[Target]) -> Result<Here, FleetError> {
    let boot = process::boot_id().map_err(|source| FleetError::File {
        action: "read",
        path: "/proc/sys/kernel/random/boot_id".into(),
        source,
    })?;
    let marks: BTreeSet<Mark> = targets.iter().map(|t| t.mark.clone()).collect();
    Ok(Here { table: Table::read(), marked: process::marked_or_in(&marks, run_dir), boot })
}

/// Whether what it wrote on this machine is still there, although it has ended.
fn has_files(target: &Target) -> bool {
    target.scratch.as_deref().is_some_and(|dir| Path::new(dir).exists())
}

/// Targets of which something is left, and what was left alone.
fn living(all: Vec<Target>, here: &Here) -> (Vec<Target>, Vec<String>) {
    let mut untouched = Vec::new();
    let mut targets = Vec::new();
    for target in all {
        let survey = here.survey(&target);
        // What is on another host is looked for there.
        let is_elsewhere = target.shell != Shell::Here;
        if survey.is_empty() && !target.gone && !is_elsewhere {
            untouched.extend(why_untouched(&target, &survey, &here.boot));
        }
        let is_left =
            if is_elsewhere { !target.gone } else { !survey.is_empty() || has_files(&target) };
        if is_left {
            targets.push(target);
        }
    }
    (targets, untouched)
}

/// Processes here that carry the mark of the run and that its journal does not name: it was cut, or lost. A node or a pod
/// may be on this machine: what a platform started is taken down through it.
fn unnamed(named: &[Target], claimed: &[Claimed], here: &Here) -> Vec<Target> {
    let mut out: Vec<Target> = Vec::new();
    for marked in &here.marked {
        let target = Target::of_mark(marked, &here.boot);
        let is_it = |t: &Target| t.process == target.process && t.mark == target.mark;
        let is_given = claimed.iter().any(|c| c.claim.deployment == target.deployment);
        if !is_given && !named.iter().chain(&out).any(is_it) {
            out.push(target);
        }
    }
    out
}

fn why_untouched(target: &Target, survey: &Survey, boot: &str) -> Option<String> {
    let leader = target.leader.as_ref()?;
    if target.boot_id != boot {
        return Some(format!(
            "process {} (pid {}) was of an earlier boot of this machine",
            target.process, leader.pid
        ));
    }
    let now = process::stat(leader.pid).filter(|s| s.is_alive())?;
    let reused = survey.group.is_none() && now.start_ticks != leader.start_ticks;
    reused
        .then(|| format!("pid {} of process {} is another process now", leader.pid, target.process))
}

/// Every start that the journal tells of, in order.
fn targets_of(contents: &Contents) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    // The latest start of a process is the one that later lines speak of.
    let find = |targets: &mut Vec<Target>, process: &str| -> Option<usize> {
        targets.iter().rposition(|t| t.process == process)
    };
    for entry in &contents.entries {
        match &entry.event {
            Event::ProcessIntent(intent) => {
                let next = Target::of_intent(intent);
                // What is left of a start before would be found again under the mark of this one.
                targets
                    .retain(|t| !t.gone || t.process != next.process || t.scratch != next.scratch);
                targets.push(next);
            }
            Event::ProcessStarted { process, pid, pgid, start_ticks, boot_id } => {
                if let Some(index) = find(&mut targets, process) {
                    let leader = Identity {
                        pid: *pid,
                        pgid: *pgid,
                        start_ticks: *start_ticks,
                        boot_id: boot_id.clone(),
                    };
                    targets[index].known.insert(leader.leader());
                    targets[index].leader = Some(leader);
                }
            }
            Event::ProcessMembers { process, members } => {
                if let Some(index) = find(&mut targets, process) {
                    targets[index].known.extend(members.iter().copied());
                }
            }
            Event::ProcessGone { process } | Event::ProcessFailed { process, .. } => {
                if let Some(index) = find(&mut targets, process) {
                    targets[index].gone = true;
                }
            }
            _ => {}
        }
    }
    targets
}
