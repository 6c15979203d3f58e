//! Processes on this machine.
//!
//! **Invariants.** Never a shell: program and arguments go to `exec` as they are. Each process leads a
//! group of its own, reads nothing, and writes to its log only. Its intent is on the disk before it
//! exists, its pid and start time right after. The output of an earlier start in the same log is never
//! taken for this one's.

use super::scratch::{self, fill, fill_env};
use super::spawned::{Spawned, shown, stage_of};
use super::{Context, within};
use crate::error::{Exit, FleetError};
use crate::host::Shell;
use crate::journal::{Event, Intent, Journal};
use crate::process::{self, DIR_MARKER, Identity, Mark, Member, PROCESS_MARKER, RUN_MARKER, Table};
use crate::setup::llama_cpp;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, Platform, ProcessPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

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

/// Every port of the plan is free, and no two processes want the same one.
pub(super) fn check_ports(plan: &DeploymentPlan, ctx: &Context) -> Result<(), FleetError> {
    let mut wanted: BTreeMap<(&str, u16), &str> = BTreeMap::new();
    for process in plan.processes.iter().filter(|p| ctx.shell(plan, &p.host) == Shell::Here) {
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

/// What `process` really executes on this machine.
pub(super) fn resolve(
    process: &ProcessPlan,
    exe: &Path,
    cache: &Path,
) -> Result<Executable, FleetError> {
    if process.program == "scalebeam" {
        return Ok(Executable { program: exe.to_owned(), args: process.args.clone() });
    }
    let given = process.env.get("PATH").and_then(EnvValue::given);
    let path = given.map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let found = find_program(&process.program, path.as_deref());
    if is_llama_server(&process.program) {
        return llama_cpp::executable(process, found, cache);
    }
    let program = found.ok_or_else(|| FleetError::ProgramMissing {
        process: process.id.clone(),
        host: process.host.clone(),
        program: process.program.clone(),
        advice: "install it, put its folder on PATH, or name it with its whole path in params"
            .to_owned(),
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
    // What is on other hosts is looked for there, when it is about to be started.
    if plan.platform != Platform::Local {
        return Ok(());
    }
    plan.processes.iter().try_for_each(|p| resolve(p, exe, cache_dir).map(drop))
}

/// Starts one process: intent to the disk, spawn, identity to the disk, watch.
pub(super) fn start(start: Start<'_>, ctx: &Context) -> Result<Spawned, FleetError> {
    let Start { plan, process, executable, index, died } = start;
    let log = within(&ctx.run_dir, &process.log);
    let (out, log_from) = open_log(&log)?;
    let err = out.try_clone().map_err(|source| file_error("write", &log, source))?;
    let mark = ctx.mark();
    let stage = stage_of(plan, process);
    let scratch = scratch::of(plan, &mark)?;
    let at = scratch.as_deref().unwrap_or_default();
    let args: Vec<String> = executable.args.iter().map(|arg| fill(arg, &mark, at)).collect();
    let executable = Executable { args, ..executable };
    let env = fill_env(&process.env, &mark, at);
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
        ssh: None,
        step: None,
        pod: None,
        scratch: scratch.clone(),
        program,
        args: executable.args.clone(),
        env: env.clone(),
        ports: process.ports.clone(),
        log: process.log.clone(),
        stage,
        grace: plan.stop.grace,
    })))?;
    scratch::write(&process.files, at)?;

    let mut child = command_of(&executable, (&process.id, &env), &mark, out, err)
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
    Ok(Spawned {
        plan: process.clone(),
        shell: Shell::Here,
        scratch,
        command,
        identity,
        stage,
        log,
        log_from,
        exit,
        known,
        unreached: Arc::default(),
    })
}

pub(super) fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> FleetError {
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

pub(super) fn open_log(log: &Path) -> Result<(File, u64), FleetError> {
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
    (id, env): (&str, &BTreeMap<String, EnvValue>),
    mark: &Mark,
    out: File,
    err: File,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&executable.program);
    command.args(&executable.args).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    for (name, value) in env {
        // An inherited one is in our own environment already, or not set at all.
        if let Some(value) = value.given() {
            command.env(name, value);
        }
    }
    command.env(RUN_MARKER, &mark.run).env(DIR_MARKER, &mark.dir).env(PROCESS_MARKER, id);
    command
}

fn identify(child: &tokio::process::Child) -> std::io::Result<Identity> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    // The child is not reaped before the watcher polls it, so its `/proc` entry is there.
    Identity::of(pid.ok_or_else(|| std::io::Error::other("it has no pid"))?)
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
}
