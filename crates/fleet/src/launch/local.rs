//! Processes on this machine.
//!
//! **Invariants.** Never a shell: program and arguments go to `exec` as they are. Each process leads a
//! group of its own, reads nothing, and writes to its log only. Its intent is on the disk before it
//! exists, its pid and start time right after. The output of an earlier start in the same log is never
//! taken for this one's.

use super::log::tail;
use super::{Context, RunningProcess, within};
use crate::error::{Death, Exit, FleetError, Stuck};
use crate::failure;
use crate::journal::{Event, Intent, Journal, Stage};
use crate::process::{self, DIR_MARKER, Identity, Mark, Member, PROCESS_MARKER, RUN_MARKER, Table};
use crate::setup::llama_cpp;
use crate::teardown::Target;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, ProcessPlan};
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 15;
/// Lines of a log in which known failures are looked for.
const SEARCH_LINES: usize = 400;

/// What is really executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

/// A process to start.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) plan: &'a DeploymentPlan,
    pub(super) process: &'a ProcessPlan,
    pub(super) executable: Executable,
    /// Position among the deployment's processes, told to `died`.
    pub(super) index: usize,
    pub(super) died: Arc<watch::Sender<Option<usize>>>,
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    plan: ProcessPlan,
    command: String,
    identity: Identity,
    stage: Stage,
    log: PathBuf,
    /// Where in the log its output begins.
    log_from: u64,
    exit: watch::Receiver<Option<Exit>>,
    known: Arc<Mutex<BTreeSet<Member>>>,
}

/// Every port of the plan is free, and no two processes want the same one.
pub(super) fn check_ports(plan: &DeploymentPlan) -> Result<(), FleetError> {
    let mut wanted: BTreeMap<(&str, u16), &str> = BTreeMap::new();
    for process in &plan.processes {
        for port in &process.ports {
            let taken = |by: String| FleetError::PortTaken {
                process: process.id.clone(),
                addr: port.addr.clone(),
                port: port.port,
                by,
            };
            if let Some(other) = wanted.insert((&port.addr, port.port), &process.id) {
                return Err(taken(format!(" by process {other} of the same plan")));
            }
            match process::try_listen(&port.addr, port.port) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    let by = process::listener(port.port);
                    return Err(taken(by.map_or_else(String::new, |who| format!(" by {who}"))));
                }
                Err(source) => {
                    return Err(FleetError::PortUnusable {
                        process: process.id.clone(),
                        addr: port.addr.clone(),
                        port: port.port,
                        source,
                    });
                }
            }
        }
    }
    Ok(())
}

/// What each process of `plan` really executes; found before the first one is started.
pub(super) fn resolve_all(
    plan: &DeploymentPlan,
    ctx: &Context,
) -> Result<Vec<Executable>, FleetError> {
    plan.processes.iter().map(|p| resolve(p, &ctx.exe, &ctx.cache_dir)).collect()
}

fn resolve(process: &ProcessPlan, exe: &Path, cache: &Path) -> Result<Executable, FleetError> {
    if process.program == "scalebeam" {
        return Ok(Executable { program: exe.to_owned(), args: process.args.clone() });
    }
    let path = match process.env.get("PATH") {
        Some(EnvValue::Set(path)) => Some(OsString::from(path)),
        _ => std::env::var_os("PATH"),
    };
    let found = find_program(&process.program, path.as_deref());
    if is_llama_server(&process.program) {
        return llama_cpp::executable(process, found, cache);
    }
    let program = found.ok_or_else(|| FleetError::ProgramMissing {
        process: process.id.clone(),
        host: process.host.clone(),
        program: process.program.clone(),
        advice: format!(
            "install it, put its folder on PATH, or name it with its whole path (params.{})",
            if process.program.contains("python") { "python" } else { "bin" }
        ),
    })?;
    Ok(Executable { program, args: process.args.clone() })
}

fn is_llama_server(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "llama-server")
}

/// The file that `program` names: a path as it is, a name on `path`.
fn find_program(program: &str, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let runs = |file: &Path| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let file = PathBuf::from(program);
        return runs(&file).then_some(file);
    }
    std::env::split_paths(path?).map(|dir| dir.join(program)).find(|file| runs(file))
}

/// Whether `program`, as a plan names it, can be started on this machine.
pub fn program_available(program: &str, cache_dir: &Path) -> bool {
    program == "scalebeam"
        || find_program(program, std::env::var_os("PATH").as_deref()).is_some()
        || (program == "llama-server" && llama_cpp::installed(cache_dir).is_some())
}

/// Whether every program and managed model of `plan` is on this machine.
///
/// # Errors
/// What is missing, with a hint; for a deployment that is `optional`, the reason to skip it.
pub fn deployment_available(
    plan: &DeploymentPlan,
    exe: &Path,
    cache_dir: &Path,
) -> Result<(), FleetError> {
    plan.processes.iter().try_for_each(|p| resolve(p, exe, cache_dir).map(drop))
}

fn stage_of(plan: &DeploymentPlan, process: &ProcessPlan) -> Stage {
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

/// Starts one process: intent to the disk, spawn, identity to the disk, watch.
pub(super) fn start(start: Start<'_>, ctx: &Context) -> Result<Spawned, FleetError> {
    let Start { plan, process, executable, index, died } = start;
    let log = within(&ctx.run_dir, &process.log);
    let (out, log_from) = open_log(&log)?;
    let err = out.try_clone().map_err(|source| file_error("write", &log, source))?;
    let mark = ctx.mark();
    let stage = stage_of(plan, process);
    let boot_id = process::boot_id().map_err(|e| file_error("read", Path::new("/proc"), e))?;
    let program = executable.program.to_string_lossy().into_owned();
    let command = shown(&program, &executable.args);
    ctx.journal.write(Event::ProcessIntent(Box::new(Intent {
        run: mark.run.clone(),
        run_dir: mark.dir.clone(),
        boot_id,
        deployment: plan.name.clone(),
        process: process.id.clone(),
        host: process.host.clone(),
        program,
        args: executable.args.clone(),
        env: process.env.clone(),
        ports: process.ports.clone(),
        log: process.log.clone(),
        stage,
        grace: plan.stop.grace,
    })))?;

    let mut child = command_of(&executable, process, &mark, out, err)
        .spawn()
        .map_err(|source| failed_to_start(process, &command, source, &ctx.journal))?;
    let identity = match identify(&child) {
        Ok(identity) => identity,
        Err(source) => {
            // Without an identity it could never be taken down safely, so it must not live.
            let _ = child.start_kill();
            return Err(failed_to_start(process, &command, source, &ctx.journal));
        }
    };
    let recorded = ctx.journal.write(Event::ProcessStarted {
        process: process.id.clone(),
        pid: identity.pid,
        pgid: identity.pgid,
        start_ticks: identity.start_ticks,
        boot_id: identity.boot_id.clone(),
    });
    if let Err(error) = recorded {
        let _ = process::signal_group(identity.pgid, rustix::process::Signal::KILL);
        let _ = child.start_kill();
        return Err(error);
    }

    let known = Arc::new(Mutex::new(BTreeSet::from([identity.leader()])));
    let (ended, exit) = watch::channel(None);
    let watcher = Watcher {
        process: process.id.clone(),
        identity: identity.clone(),
        known: known.clone(),
        journal: ctx.journal.clone(),
        index,
        ended,
        died,
    };
    tokio::spawn(watcher.watch(child));
    Ok(Spawned { plan: process.clone(), command, identity, stage, log, log_from, exit, known })
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> FleetError {
    FleetError::File { action, path: path.to_owned(), source }
}

fn failed_to_start(
    process: &ProcessPlan,
    command: &str,
    source: std::io::Error,
    journal: &Journal,
) -> FleetError {
    let _ = journal
        .write(Event::ProcessFailed { process: process.id.clone(), reason: source.to_string() });
    FleetError::Spawn {
        process: process.id.clone(),
        host: process.host.clone(),
        command: command.to_owned(),
        source,
    }
}

fn open_log(log: &Path) -> Result<(File, u64), FleetError> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).map_err(|e| file_error("create", dir, e))?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|e| file_error("create", log, e))?;
    let from = file.metadata().map_err(|e| file_error("read", log, e))?.len();
    Ok((file, from))
}

fn command_of(
    executable: &Executable,
    process: &ProcessPlan,
    mark: &Mark,
    out: File,
    err: File,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&executable.program);
    command.args(&executable.args).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    for (name, value) in &process.env {
        // An inherited one is in our own environment already, or not set at all.
        if let EnvValue::Set(value) = value {
            command.env(name, value);
        }
    }
    command.env(RUN_MARKER, &mark.run).env(DIR_MARKER, &mark.dir).env(PROCESS_MARKER, &process.id);
    command
}

fn identify(child: &tokio::process::Child) -> std::io::Result<Identity> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    // The child is not reaped before the watcher polls it, so its `/proc` entry is there.
    Identity::of(pid.ok_or_else(|| std::io::Error::other("it has no pid"))?)
}

/// A command line for a message. Not for a shell.
fn shown(program: &str, args: &[String]) -> String {
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

/// Waits for the end of one process.
struct Watcher {
    process: String,
    identity: Identity,
    known: Arc<Mutex<BTreeSet<Member>>>,
    journal: Arc<Journal>,
    index: usize,
    ended: watch::Sender<Option<Exit>>,
    died: Arc<watch::Sender<Option<usize>>>,
}

impl Watcher {
    async fn watch(self, mut child: tokio::process::Child) {
        let exit = match child.wait().await {
            Ok(status) => Exit::from(status),
            Err(_) => Exit { code: None, signal: None },
        };
        // Who is left in the group must be known now: its number stays taken only while it has members.
        let left = Table::read().group(self.identity.pgid);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(left.iter().copied());
        if !left.is_empty() {
            let members = Event::ProcessMembers { process: self.process.clone(), members: left };
            let _ = self.journal.write(members);
        }
        let pid = self.identity.pid;
        let _ = self.journal.write(Event::ProcessExited { process: self.process, pid, exit });
        let _ = self.ended.send(Some(exit));
        self.died.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(self.index);
            is_first
        });
    }
}

/// The death of process `index`, for the user.
pub(super) fn death(processes: &[Spawned], index: usize) -> Option<FleetError> {
    processes.get(index).map(Spawned::death)
}

/// Returns when the first of `processes` has ended.
pub(crate) async fn first_death(
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

    pub(super) fn public(&self) -> RunningProcess {
        RunningProcess {
            id: self.plan.id.clone(),
            instance: self.plan.instance,
            host: self.plan.host.clone(),
            pid: self.identity.pid,
            gpus: self.plan.gpus.clone(),
            log: self.log.clone(),
        }
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits briefly until its end has been noticed and journalled.
    pub(super) async fn settled(&self) {
        let mut exit = self.exit.clone();
        let noticed = exit.wait_for(Option::is_some);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), noticed).await;
    }

    /// Last line that it wrote and is not empty.
    pub(crate) fn last_line(&self) -> String {
        self.tail(1).pop().unwrap_or_default()
    }

    pub(crate) fn stuck(&self) -> Stuck {
        Stuck { process: self.plan.id.clone(), last_line: self.last_line(), log: self.log.clone() }
    }

    /// What is known about what its log says.
    pub(crate) fn known_failure(&self) -> Option<&'static str> {
        failure::recognise(&self.tail(SEARCH_LINES)).map(|k| k.hint)
    }

    fn tail(&self, lines: usize) -> Vec<String> {
        tail(&self.log, self.log_from, lines).unwrap_or_default()
    }

    fn death(&self) -> FleetError {
        let exit = (*self.exit.borrow()).unwrap_or(Exit { code: None, signal: None });
        FleetError::Exited(Box::new(Death {
            process: self.plan.id.clone(),
            host: self.plan.host.clone(),
            pid: self.identity.pid,
            command: self.command.clone(),
            exit,
            tail: self.tail(TAIL_LINES),
            log: self.log.clone(),
            known: self.known_failure(),
        }))
    }

    /// Journals who belongs to it now: descendants that clear or overwrite their environment, or leave
    /// the group, are known by this alone.
    pub(super) fn record_members(&self, journal: &Journal) -> Result<(), FleetError> {
        if !self.identity.leader().is_alive() {
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
    fn programs_are_found_on_the_path_or_by_their_path() {
        assert!(find_program("sh", Some("/nope:/bin".as_ref())).is_some());
        assert_eq!(find_program("sh", Some("/nope".as_ref())), None);
        assert_eq!(find_program("/bin/sh", None), Some("/bin/sh".into()));
        assert_eq!(find_program("/etc/passwd", None), None);
        assert!(program_available("scalebeam", Path::new("/nope")));
        assert!(!program_available("no-such-program", Path::new("/nope")));
    }

    #[test]
    fn command_lines_are_shown_readably() {
        let args = ["-c".to_owned(), "a b".to_owned(), String::new()];
        assert_eq!(shown("sh", &args), "sh -c 'a b' ''");
    }
}
