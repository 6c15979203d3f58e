//! Telemetry agents on hosts that are reached by ssh, on nodes of a job of Slurm and in pods: carried there, started, and
//! ways to them.
//!
//! **Invariants.** An agent is a process of the run like any other: its intent is in the journal, on the
//! disk, before anything of it is on its host, it carries the run's marks, and what it writes lies in the
//! deployment's directory there, so teardown needs nothing else to remove it. On a node of a job all of it is done by
//! steps of that job, which end with it; in a pod by `kubectl exec`, and with the pod it goes. A host that cannot have one
//! is told with the reason; no run fails for it.

mod door;
mod program;

pub use door::{Door, Way};
pub use program::AgentProgram;

use crate::host::{Shell, ShellError, side_by_side};
use crate::journal::{Event, Intent, Stage};
use crate::launch::{Context, Held};
use crate::process::Identity;
use crate::remote::{self, AgentSeen};
use crate::teardown::Target;
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_model::telemetry::agent::WatchedPod;
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// For one question to a host.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// For the program on its way to a host.
const COPY_LIMIT: Duration = Duration::from_secs(120);
/// An agent ends at once when it is told to.
const GRACE: Nanos = Nanos::from_secs(2);

/// A host, and the way to its agent, or why it has none.
#[derive(Debug)]
pub struct Carried {
    /// Host in the file, or the name of a pod.
    pub host: String,
    /// Which pod it is; absent for a machine.
    pub pod: Option<WatchedPod>,
    /// The way, or the reason with a hint.
    pub door: Result<Door, String>,
}

/// A host of a deployment that an agent can be brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarHost {
    pub(crate) name: String,
    pub(crate) shell: Shell,
    pub(crate) pod: Option<WatchedPod>,
}

impl FarHost {
    /// What is said of it where nothing could be brought there.
    pub fn without(self, why: String) -> Carried {
        Carried { host: self.name, pod: self.pod, door: Err(why) }
    }
}

/// What came of one host.
pub(crate) struct Placed {
    pub(crate) carried: Carried,
    /// What there is to take down.
    pub(crate) target: Option<Target>,
}

/// The id of the agent of `deployment` on `host`.
pub fn agent_id(deployment: &str, host: &str) -> String {
    format!("{deployment}/agent/{host}")
}

/// Brings an agent to each of `hosts`, all of them at once.
pub(crate) async fn carry(
    plan: &DeploymentPlan,
    hosts: Vec<FarHost>,
    program: &Arc<AgentProgram>,
    ctx: &Context,
) -> Vec<Placed> {
    let work = hosts.clone().into_iter().map(|host| {
        let FarHost { name: host, shell, pod } = host;
        let (deployment, program, ctx) = (plan.name.clone(), Arc::clone(program), ctx.clone());
        Carry { host, shell, pod, deployment, program, ctx }.carry()
    });
    let placed = side_by_side(work).await;
    let broke_off = |host: FarHost| Placed {
        carried: host.without("bringing an agent there broke off".to_owned()),
        target: None,
    };
    hosts.into_iter().zip(placed).map(|(host, p)| p.unwrap_or_else(|| broke_off(host))).collect()
}

/// The other hosts of `plan` that can be talked to; `held` is what a platform was given, where one starts its processes.
///
/// # Errors
/// Why nobody knows which they are.
pub(crate) async fn far(
    plan: &DeploymentPlan,
    ctx: &Context,
    held: Option<&Held>,
) -> Result<Vec<FarHost>, String> {
    if let Some(held) = held {
        return held.hosts(&ctx.plan.hosts).await;
    }
    let hosts: BTreeSet<&str> = plan.processes.iter().map(|p| p.host.as_str()).collect();
    let far = hosts.into_iter().map(|host| (host, ctx.shell(plan, host)));
    let far = far.filter(|(_, shell)| *shell != Shell::Here);
    Ok(far.map(|(host, shell)| FarHost { name: host.to_owned(), shell, pod: None }).collect())
}

/// One agent on its way to one host.
struct Carry {
    host: String,
    shell: Shell,
    pod: Option<WatchedPod>,
    deployment: String,
    program: Arc<AgentProgram>,
    ctx: Context,
}

impl Carry {
    async fn carry(self) -> Placed {
        let (mut target, host, pod) = (None, self.host.clone(), self.pod.clone());
        let door = self.place(&mut target).await;
        Placed { carried: Carried { host, pod, door }, target }
    }

    async fn place(&self, target: &mut Option<Target>) -> Result<Door, String> {
        let seen = self.unless_stopped(self.look()).await?;
        let mark = self.ctx.mark();
        let dir = remote::dir_of(&seen.host.base, &mark, &self.deployment);
        // Two hosts of the file may be one machine.
        let own = remote::file(&dir, &format!("agent-{}", self.host));
        let copied = format!("{own}.program");
        let path = if seen.has_it { self.program.path().to_owned() } else { copied };
        let intent = self.intent(&seen, &dir, &path, &own);
        let journal = &self.ctx.journal;
        journal.write(Event::ProcessIntent(Box::new(intent.clone()))).map_err(|e| e.to_string())?;
        *target = Some(Target::of_intent(&intent));
        let started = self.start(&intent, &dir, &own, &seen).await;
        let identity = started.inspect_err(|reason| {
            // Not as a process that failed, of which nothing is left: it may run, where only the answer was lost.
            let text = format!("{}: {reason}", intent.process);
            // A journal that cannot be written is told by whoever must write it.
            let _ = journal.write(Event::Note { text });
        })?;
        let event = Event::ProcessStarted {
            process: intent.process.clone(),
            pid: identity.pid,
            pgid: identity.pgid,
            start_ticks: identity.start_ticks,
            boot_id: identity.boot_id.clone(),
        };
        journal.write(event).map_err(|e| e.to_string())?;
        if let Some(target) = target {
            target.known.insert(identity.leader());
            target.leader = Some(identity);
        }
        Ok(Door::new(self.shell.clone(), remote::agent_attach(&intent, &own)))
    }

    async fn look(&self) -> Result<AgentSeen, String> {
        let program = &self.program;
        let script = remote::agent_look(program.path(), program.size(), program.digest());
        let ran = self.shell.run(&script, ASK_LIMIT).await.map_err(|e| self.cannot_ask(&e))?;
        let seen = remote::parse_agent_look(&ran.stdout);
        let seen =
            seen.ok_or("its shell gave no answer that can be read: it needs a POSIX sh and /proc")?;
        if !seen.host.lacks.is_empty() {
            return Err(format!("it lacks {}", seen.host.lacks.join(", ")));
        }
        self.program.fits(&seen.system)?;
        Ok(seen)
    }

    fn cannot_ask(&self, error: &ShellError) -> String {
        format!("it cannot be asked: {error}; {}", error.hint())
    }

    fn intent(&self, seen: &AgentSeen, dir: &str, path: &str, own: &str) -> Intent {
        let mark = self.ctx.mark();
        let process = agent_id(&self.deployment, &self.host);
        Intent {
            run: mark.run,
            run_dir: mark.dir,
            boot_id: seen.host.boot_id.clone(),
            deployment: self.deployment.clone(),
            host: self.host.clone(),
            ssh: matches!(self.shell, Shell::Ssh(_)).then(|| self.shell.name().to_owned()),
            step: match &self.shell {
                Shell::Step(step) => Some(step.clone()),
                Shell::Here | Shell::Ssh(_) | Shell::Pod(_) => None,
            },
            pod: match &self.shell {
                Shell::Pod(pod) => Some(pod.clone()),
                Shell::Here | Shell::Ssh(_) | Shell::Step(_) => None,
            },
            scratch: Some(dir.to_owned()),
            program: path.to_owned(),
            args: ["agent", "--id", &process, own].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            ports: Vec::new(),
            log: String::new(),
            stage: Stage::Infra,
            grace: GRACE,
            process,
        }
    }

    /// Brings the program there where it is not, proves that it runs, and starts it.
    async fn start(
        &self,
        intent: &Intent,
        dir: &str,
        own: &str,
        seen: &AgentSeen,
    ) -> Result<Identity, String> {
        let path = &intent.program;
        if !seen.has_it {
            self.unless_stopped(self.copy(intent, dir, path)).await?;
        }
        self.unless_stopped(self.prove(intent, path)).await?;
        // Not stopped any more: what it starts must not come up behind the teardown.
        let ran = match &self.shell {
            // A step ends with its shell, and takes along what was detached there.
            Shell::Step(_) => {
                let copied = (!seen.has_it).then_some(path.as_str());
                self.shell.hold(&remote::hold(intent, own, copied), ASK_LIMIT).await
            }
            Shell::Here | Shell::Ssh(_) | Shell::Pod(_) => {
                let script = remote::start(intent, &BTreeMap::new(), &BTreeMap::new());
                self.shell.run(&script, ASK_LIMIT).await
            }
        };
        let ran = ran.map_err(|e| self.cannot_ask(&e))?;
        let started = remote::parse_start(&ran.stdout);
        let (pid, pgid, start_ticks) =
            started.ok_or_else(|| format!("its agent did not come up: {}", ran.stderr.trim()))?;
        Ok(Identity { pid, pgid, start_ticks, boot_id: seen.host.boot_id.clone() })
    }

    /// What comes of `work`, unless the run is stopped before.
    async fn unless_stopped<T: Send>(
        &self,
        work: impl Future<Output = Result<T, String>> + Send,
    ) -> Result<T, String> {
        tokio::select! {
            biased;
            () = self.ctx.cancelled() => Err("the run was stopped before".to_owned()),
            done = work => done,
        }
    }

    async fn copy(&self, intent: &Intent, dir: &str, path: &str) -> Result<(), String> {
        let program = &self.program;
        let script = remote::marks(intent)
            + &remote::agent_take(dir, path, program.size(), program.digest());
        let sent = self.shell.send(&script, std::path::Path::new(program.path()), COPY_LIMIT).await;
        let ran = sent.map_err(|e| format!("copying scalebeam there failed: {e}; {}", e.hint()))?;
        if ran.status == Some(0) {
            return Ok(());
        }
        let said = ran.stderr.trim().replace('\n', "; ");
        let cure = match self.shell {
            Shell::Pod(_) => {
                "it needs a directory that can be written: TMPDIR in the deployment's env, or /tmp"
            }
            _ => "make room, or give it another TMPDIR",
        };
        Err(format!("copying scalebeam there failed: {said}; {cure}"))
    }

    /// The same program may be for another C library, or lie where nothing may be executed.
    async fn prove(&self, intent: &Intent, path: &str) -> Result<(), String> {
        let script = remote::marks(intent) + &remote::agent_prove(path);
        let ran = self.shell.run(&script, ASK_LIMIT).await.map_err(|e| self.cannot_ask(&e))?;
        if ran.status == Some(0) && ran.stdout.contains("scalebeam ") {
            return Ok(());
        }
        let said = ran.stderr.lines().next_back().unwrap_or("it said nothing").trim().to_owned();
        Err(format!(
            "scalebeam does not run there ({said}); name one that does, as a static build, by \
             telemetry.agent in the file"
        ))
    }
}
