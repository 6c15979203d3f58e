//! Processes on hosts that are reached by the site's own ssh.
//!
//! **Invariants.** Those of [`super::local`] hold: the intent is on the disk before the process exists,
//! its pid and start time right after. It runs in a session of its own, so a broken connection does
//! not end it, and everybody finds it by its marks. Its log is copied here while it grows: what an
//! error shows is here even where the host is gone. A host that cannot be asked for longer than
//! [`LOST_AFTER`] is lost, and with it what it ran.

use super::local::open_log;
use super::scratch::{fill, fill_env};
use super::spawned::{Spawned, Unreached, shown, stage_of};
use super::{Context, within};
use crate::error::{Exit, FleetError};
use crate::host::{Question, Shell, ShellError, ask_all};
use crate::journal::{Event, Intent, Journal};
use crate::process::{Identity, Mark};
use crate::remote::{self, Fate, Seen};
use crate::teardown::{self, Target};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, ProcessPlan};
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// For one question to a host.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// For the question whether processes live, between two trials.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);
/// A host that cannot be asked for so long is lost.
const LOST_AFTER: Nanos = Nanos::from_secs(45);
/// A connection that lasted so long had been made.
const LASTED: Nanos = Nanos::from_secs(30);
/// Between two attempts to reach a host again.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// Looks at every host of `plan` that is not this machine, all of them at once.
///
/// # Errors
/// A host that cannot be asked, lacks a program, or has a port taken; the first in the plan's order.
pub(super) async fn look_at_all(
    plan: &DeploymentPlan,
    ctx: &Context,
) -> Result<BTreeMap<String, Seen>, FleetError> {
    let mut wanted: BTreeMap<&str, Vec<&ProcessPlan>> = BTreeMap::new();
    for process in plan.processes.iter().filter(|p| ctx.shell(plan, &p.host) != Shell::Here) {
        wanted.entry(&process.host).or_default().push(process);
    }
    let question = |(host, processes): (&&str, &Vec<&ProcessPlan>)| Question {
        shell: ctx.shell(plan, host),
        script: remote::look(processes),
        limit: ASK_LIMIT,
    };
    let answers = ask_all(wanted.iter().map(question).collect()).await;
    let mut seen = BTreeMap::new();
    for ((host, processes), answer) in wanted.iter().zip(answers) {
        let ran = answer.map_err(|source| cannot_ask(host, "", source))?;
        let found = remote::parse_look(&ran.stdout).ok_or_else(|| FleetError::HostUnfit {
            host: (*host).to_owned(),
            said: format!("its shell gave no answer that can be read: {}", ran.stderr.trim()),
            advice: "it needs a POSIX sh and /proc (Linux)".to_owned(),
        })?;
        fit(host, &found, processes)?;
        seen.insert((*host).to_owned(), found);
    }
    Ok(seen)
}

fn cannot_ask(host: &str, needed_for: &str, source: ShellError) -> FleetError {
    let needed_for = needed_for.to_owned();
    FleetError::Host { host: host.to_owned(), needed_for, source }
}

/// Whether `processes` can be started on a host that looks like `seen`.
fn fit(host: &str, seen: &Seen, processes: &[&ProcessPlan]) -> Result<(), FleetError> {
    if !seen.lacks.is_empty() {
        return Err(FleetError::HostUnfit {
            host: host.to_owned(),
            said: format!("it lacks {}", seen.lacks.join(", ")),
            advice: "install them there (util-linux, coreutils, awk, grep)".to_owned(),
        });
    }
    for process in processes {
        if seen.absent.contains(&process.program) {
            let advice = format!(
                "install it on {host}, or name it with its whole path there in params, or put its \
                 folder into PATH by [host.{host}] env; ssh runs no login shell"
            );
            let (process, program) = (process.id.clone(), process.program.clone());
            let host = host.to_owned();
            return Err(FleetError::ProgramMissing { process, host, program, advice });
        }
        for port in &process.ports {
            if let Some(who) = seen.taken.get(&port.port) {
                let by = match who.as_str() {
                    "" => format!(" on host {host}"),
                    who => format!(" by {who} on host {host}"),
                };
                let (process, addr) = (process.id.clone(), port.addr.clone());
                return Err(FleetError::PortTaken { process, addr, port: port.port, by });
            }
        }
    }
    Ok(())
}

/// A process to start.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) plan: &'a DeploymentPlan,
    pub(super) process: &'a ProcessPlan,
    pub(super) seen: &'a Seen,
    /// Position among the deployment's processes, told to `died`.
    pub(super) index: usize,
    pub(super) died: Arc<watch::Sender<Option<usize>>>,
}

/// Starts one process: intent to the disk, start, identity to the disk, follow its log.
pub(super) async fn start(start: Start<'_>, ctx: &Context) -> Result<Spawned, FleetError> {
    let Start { plan, process, seen, index, died } = start;
    let shell = ctx.shell(plan, &process.host);
    let log = within(&ctx.run_dir, &process.log);
    let (out, log_from) = open_log(&log)?;
    let mark = ctx.mark();
    let dir = remote::dir_of(&seen.base, &mark, &plan.name);
    let intent = intent(plan, process, seen, &mark, &shell, &dir);
    ctx.journal.write(Event::ProcessIntent(Box::new(intent.clone())))?;
    let identity = match begin(&intent, &process.files, &shell, seen, &ctx.journal).await {
        Ok(identity) => identity,
        Err(error) => {
            // It may run all the same, where only the answer was lost.
            let targets = vec![Target::of_intent(&intent)];
            let mut report = teardown::take_down(&targets, Some(&ctx.journal)).await;
            teardown::clean(&targets, &mut report).await;
            for text in report.problems {
                ctx.journal.write(Event::Note { text })?;
            }
            return Err(error);
        }
    };
    ctx.journal.write(Event::ProcessStarted {
        process: process.id.clone(),
        pid: identity.pid,
        pgid: identity.pgid,
        start_ticks: identity.start_ticks,
        boot_id: identity.boot_id.clone(),
    })?;
    let (ended, exit) = watch::channel(None);
    let unreached = Arc::new(Mutex::new(None));
    let follower = Follower {
        process: process.id.clone(),
        shell: shell.clone(),
        file: remote::file(&dir, &process.id),
        identity: identity.clone(),
        log: out,
        copied: 0,
        journal: ctx.journal.clone(),
        clock: ctx.clock.clone(),
        unreached: unreached.clone(),
        index,
        ended,
        died,
    };
    tokio::spawn(follower.follow());
    let known = Arc::new(Mutex::new(BTreeSet::from([identity.leader()])));
    Ok(Spawned {
        plan: process.clone(),
        shell,
        scratch: Some(dir),
        command: shown(&intent.program, &intent.args),
        identity,
        stage: intent.stage,
        log,
        log_from,
        exit,
        known,
        unreached,
    })
}

fn intent(
    plan: &DeploymentPlan,
    process: &ProcessPlan,
    seen: &Seen,
    mark: &Mark,
    shell: &Shell,
    dir: &str,
) -> Intent {
    Intent {
        run: mark.run.clone(),
        run_dir: mark.dir.clone(),
        boot_id: seen.boot_id.clone(),
        deployment: plan.name.clone(),
        process: process.id.clone(),
        host: process.host.clone(),
        ssh: Some(shell.name().to_owned()),
        step: None,
        pod: None,
        scratch: Some(dir.to_owned()),
        program: process.program.clone(),
        args: process.args.iter().map(|arg| fill(arg, mark, dir)).collect(),
        env: fill_env(&process.env, mark, dir),
        ports: process.ports.clone(),
        log: process.log.clone(),
        stage: stage_of(plan, process),
        grace: plan.stop.grace,
    }
}

/// Starts what `intent` says; who it is by then.
async fn begin(
    intent: &Intent,
    files: &BTreeMap<String, String>,
    shell: &Shell,
    seen: &Seen,
    journal: &Journal,
) -> Result<Identity, FleetError> {
    let inherited = intent.env.iter().filter(|(_, v)| matches!(v, EnvValue::Inherit { .. }));
    let secrets: BTreeMap<String, String> =
        inherited.filter_map(|(k, _)| Some((k.clone(), std::env::var(k).ok()?))).collect();
    let ran = shell.run(&remote::start(intent, files, &secrets), ASK_LIMIT).await;
    // Where the answer was lost it may run: the journal has its intent, and its marks find it.
    let ran = ran.map_err(|e| cannot_ask(&intent.host, " to start a process", e))?;
    let Some((pid, pgid, start_ticks)) = remote::parse_start(&ran.stdout) else {
        let reason = ran.stderr.trim().to_owned();
        let process = intent.process.clone();
        let _ = journal.write(Event::ProcessFailed { process, reason: reason.clone() });
        return Err(FleetError::Spawn {
            process: intent.process.clone(),
            host: intent.host.clone(),
            command: shown(&intent.program, &intent.args),
            source: std::io::Error::other(reason),
        });
    };
    Ok(Identity { pid, pgid, start_ticks, boot_id: seen.boot_id.clone() })
}

/// Whether all of `processes` that are on other hosts live, as far as those can be asked.
pub(super) async fn all_live(processes: &[Spawned]) -> bool {
    let mut by_host: BTreeMap<&Shell, Vec<(i32, u64)>> = BTreeMap::new();
    for process in processes.iter().filter(|p| p.shell != Shell::Here) {
        let leader = process.identity.leader();
        by_host.entry(&process.shell).or_default().push((leader.pid, leader.start_ticks));
    }
    let question = |(shell, leaders): (&Shell, Vec<_>)| Question {
        shell: shell.clone(),
        script: remote::all_live(&leaders),
        limit: ALIVE_LIMIT,
    };
    let answers = ask_all(by_host.into_iter().map(question).collect()).await;
    answers.into_iter().flatten().all(|ran| ran.status == Some(0))
}

/// Copies the log of one process here and waits for its end.
struct Follower {
    process: String,
    shell: Shell,
    file: String,
    identity: Identity,
    log: File,
    /// Bytes of its log that are here.
    copied: u64,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    unreached: Arc<Mutex<Option<Unreached>>>,
    index: usize,
    ended: watch::Sender<Option<Exit>>,
    died: Arc<watch::Sender<Option<usize>>>,
}

impl Follower {
    async fn follow(mut self) {
        let exit = self.until_end().await;
        let (process, pid) = (self.process.clone(), self.identity.pid);
        let _ = self.journal.write(Event::ProcessExited { process, pid, exit });
        let _ = self.ended.send(Some(exit));
        self.died.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(self.index);
            is_first
        });
    }

    async fn until_end(&mut self) -> Exit {
        let mut out_of_reach: Option<Nanos> = None;
        let mut turn = tokio::time::interval(RETRY_EVERY);
        // After a connection of an hour there is still a pause before each attempt.
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let (begun, before) = (self.clock.now(), self.copied);
            if let Some(host) =
                self.unreached.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            {
                host.asked = Some(begun);
            }
            let said = match self.ask().await {
                Ok(Some(exit)) => return exit,
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            };
            let now = self.clock.now();
            // A connection that lasted was there, whatever broke it.
            let was_there = said.is_none() || self.copied > before || now.since(begun) > LASTED;
            let since = if was_there { now } else { *out_of_reach.get_or_insert(now) };
            out_of_reach = Some(since);
            let is_lost = now.since(since) >= LOST_AFTER && !was_there;
            let unreached = said.map(|said| Unreached { since, asked: None, said, is_lost });
            *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = unreached;
            if is_lost {
                return Exit { code: None, signal: None };
            }
        }
    }

    /// Follows the process over one connection, to its end if that holds.
    async fn ask(&mut self) -> Result<Option<Exit>, ShellError> {
        self.watch_once().await?;
        self.take_rest().await
    }

    /// Follows the log over one connection, until the process has ended.
    async fn watch_once(&mut self) -> Result<(), ShellError> {
        let pipe = |source| ShellError::Pipe { host: self.shell.name().to_owned(), source };
        let Identity { pid, start_ticks, .. } = self.identity;
        let script = remote::follow(&self.file, pid, start_ticks, self.copied);
        let mut child = self.shell.start(Stdio::piped(), Stdio::piped())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A connection that fails says why by its status.
            let _ = stdin.write_all(script.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        let mut stdout = child.stdout.take();
        let mut buffer = vec![0; 16 << 10];
        while let Some(out) = &mut stdout {
            match out.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(len) => self.copied += write(&mut self.log, &buffer[..len]),
            }
        }
        let out = child.wait_with_output().await.map_err(pipe)?;
        self.shell.check(out.status, &String::from_utf8_lossy(&out.stderr))
    }

    /// Copies what is left of the log; how the process ended, if it has.
    async fn take_rest(&mut self) -> Result<Option<Exit>, ShellError> {
        let Identity { pid, start_ticks, .. } = self.identity;
        let script = remote::rest(&self.file, pid, start_ticks, self.copied);
        let ran = self.shell.run(&script, ASK_LIMIT).await?;
        self.copied += write(&mut self.log, ran.stdout.as_bytes());
        Ok(match remote::parse_rest(&ran.stderr) {
            None | Some(Fate::Lives) => None,
            Some(Fate::Ended(status)) => Some(Exit::of_shell(status)),
        })
    }
}

/// How much of `bytes` was written: a full disk must not end the watching.
fn write(log: &mut File, bytes: &[u8]) -> u64 {
    let _ = log.write_all(bytes);
    bytes.len() as u64
}
