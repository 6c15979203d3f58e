//! A process that was started, wherever it runs: what is known of it, and how it ended.

use super::RunningProcess;
use super::log::{SEARCH_LINES, SHOWN_LINES, Search, tail};
use crate::error::{Death, Exit, FleetError};
use crate::failure;
use crate::host::Shell;
use crate::journal::{Event, Journal, Stage};
use crate::process::{Identity, Mark, Member, Table};
use crate::teardown::Target;
use scalebeam_model::plan::{DeploymentPlan, ProcessPlan};
use scalebeam_model::units::Nanos;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// ssh gives up to connect after 10 s.
const CONNECTS_WITHIN: Nanos = Nanos::from_secs(15);

/// An end is noticed by the kernel's word here, and by asking elsewhere.
const SETTLED_HERE: Duration = Duration::from_secs(2);
const SETTLED_ELSEWHERE: Duration = Duration::from_secs(6);

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(super) plan: ProcessPlan,
    /// Where it runs.
    pub(super) shell: Shell,
    /// What scalebeam wrote there is in this directory.
    pub(super) scratch: Option<String>,
    pub(super) command: String,
    pub(super) identity: Identity,
    pub(super) stage: Stage,
    pub(super) log: PathBuf,
    /// Where in the log its output begins.
    pub(super) log_from: u64,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    pub(super) known: Arc<Mutex<BTreeSet<Member>>>,
    /// Why it cannot be watched now, or any more.
    pub(super) unreached: Arc<Mutex<Option<Unreached>>>,
}

/// A host that cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreached {
    pub(crate) since: Nanos,
    /// When it was asked again: a connection that did not fail for [`CONNECTS_WITHIN`] has been made.
    pub(super) asked: Option<Nanos>,
    /// What was said of it last.
    pub(crate) said: String,
    /// It was given up, and with it what it runs.
    pub(super) is_lost: bool,
}

/// When a process is taken down.
pub(crate) fn stage_of(plan: &DeploymentPlan, process: &ProcessPlan) -> Stage {
    let is_entry = plan.entries.iter().any(|entry| {
        let port = entry.url.parse::<http::Uri>().ok().and_then(|u| u.port_u16());
        process.ports.iter().any(|p| Some(p.port) == port)
    });
    match (is_entry, process.instance) {
        (true, _) => Stage::Entry,
        (false, Some(_)) => Stage::Worker,
        (false, None) => Stage::Infra,
    }
}

/// A command line for a message. Not for a shell.
pub(super) fn shown(program: &str, args: &[String]) -> String {
    std::iter::once(program)
        .chain(args.iter().map(String::as_str))
        .map(|word| {
            if word.is_empty() || word.contains(char::is_whitespace) {
                format!("'{word}'")
            } else {
                word.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The death of process `index`, for the user.
pub(super) fn death(processes: &[Spawned], index: usize) -> Option<FleetError> {
    processes.get(index).map(Spawned::death)
}

/// Returns when the first of `processes` has ended.
pub(super) async fn first_death(
    processes: &[Spawned],
    mut deaths: watch::Receiver<Option<usize>>,
) -> FleetError {
    loop {
        let first = *deaths.borrow_and_update();
        if let Some(error) = first.and_then(|index| death(processes, index)) {
            return error;
        }
        if deaths.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Spawned {
    /// A command line for a message. Not for a shell.
    pub(crate) fn command_line(program: &str, args: &[String]) -> String {
        shown(program, args)
    }

    /// What it was planned as.
    pub(crate) const fn plan(&self) -> &ProcessPlan {
        &self.plan
    }

    pub(super) fn public(&self) -> RunningProcess {
        RunningProcess {
            id: self.plan.id.clone(),
            instance: self.plan.instance,
            host: self.plan.host.clone(),
            pid: self.identity.pid,
            gpus: self.plan.gpus.clone(),
            log: self.log.clone(),
            log_from: self.log_from,
        }
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits briefly until its end has been noticed and journalled, and its log is here to the end.
    pub(super) async fn settled(&self) {
        let mut exit = self.exit.clone();
        let noticed = exit.wait_for(Option::is_some);
        let limit = if self.shell == Shell::Here { SETTLED_HERE } else { SETTLED_ELSEWHERE };
        let _ = tokio::time::timeout(limit, noticed).await;
    }

    /// The instance that it belongs to; none for infrastructure.
    pub(crate) const fn instance(&self) -> Option<u32> {
        self.plan.instance
    }

    /// Whether its host cannot be asked `now`.
    pub(crate) fn unreached(&self, now: Nanos) -> Option<Unreached> {
        let known = self.out_of_reach()?;
        let is_there = known.asked.is_some_and(|asked| now.since(asked) >= CONNECTS_WITHIN);
        (known.is_lost || !is_there).then_some(known)
    }

    /// What its follower met last, where that was no answer.
    fn out_of_reach(&self) -> Option<Unreached> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for `text` in what it writes.
    pub(crate) fn search<'a>(&'a self, text: &'a str) -> Search<'a> {
        Search::new(&self.log, self.log_from, text)
    }

    /// Last line that it wrote and is not empty.
    pub(crate) fn last_line(&self) -> String {
        self.tail(1).pop().unwrap_or_default()
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// Bytes that its log holds by now.
    pub(crate) fn log_length(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |file| file.len())
    }

    /// The end of what it wrote.
    pub(crate) fn recent_lines(&self) -> Vec<String> {
        self.tail(SEARCH_LINES)
    }

    /// What is known about what its log says.
    pub(crate) fn known_failure(&self) -> Option<&'static str> {
        failure::recognise(&self.recent_lines()).map(|k| k.hint)
    }

    fn tail(&self, lines: usize) -> Vec<String> {
        tail(&self.log, self.log_from, lines).unwrap_or_default()
    }

    fn death(&self) -> FleetError {
        if let Some(Unreached { said, .. }) = self.out_of_reach().filter(|host| host.is_lost) {
            let (process, host) = (self.plan.id.clone(), self.plan.host.clone());
            let last_line = self.last_line();
            return FleetError::HostLost { process, host, said, last_line, log: self.log.clone() };
        }
        let exit = (*self.exit.borrow()).unwrap_or(Exit { code: None, signal: None });
        FleetError::Exited(Box::new(Death {
            process: self.plan.id.clone(),
            host: self.plan.host.clone(),
            pid: self.identity.pid,
            command: self.command.clone(),
            exit,
            tail: self.tail(SHOWN_LINES),
            log: self.log.clone(),
            known: self.known_failure(),
        }))
    }

    /// Journals who belongs to it now: descendants that clear or overwrite their environment, or leave
    /// the group, are known by this alone.
    pub(super) fn record_members(&self, journal: &Journal) -> Result<(), FleetError> {
        // Of another host its own teardown finds them.
        if self.shell != Shell::Here || !self.identity.leader().is_alive() {
            return Ok(());
        }
        let members = Table::read().family(self.identity.pid, self.identity.pgid);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.extend(members.iter().copied());
        if known.len() == before {
            return Ok(());
        }
        drop(known);
        journal.write(Event::ProcessMembers { process: self.plan.id.clone(), members })
    }

    pub(super) fn target(&self, deployment: &str, mark: &Mark, grace: Nanos) -> Target {
        Target {
            process: self.plan.id.clone(),
            deployment: deployment.to_owned(),
            host: self.plan.host.clone(),
            shell: self.shell.clone(),
            scratch: self.scratch.clone(),
            command: self.command.clone(),
            stage: self.stage,
            grace,
            mark: mark.clone(),
            boot_id: self.identity.boot_id.clone(),
            leader: Some(self.identity.clone()),
            known: self.known.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ports: self.plan.ports.clone(),
            gone: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_shown_readably() {
        let args = ["-c".to_owned(), "a b".to_owned(), String::new()];
        assert_eq!(shown("sh", &args), "sh -c 'a b' ''");
    }
}
