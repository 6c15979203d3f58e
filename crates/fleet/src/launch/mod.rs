//! Bringing a deployment up: start everything, watch everything, pass every gate, or leave nothing.
//!
//! **Invariants.** The state machine is `Absent -> Starting -> Alive -> Serving -> Verified -> Draining
//! -> Gone`, with `Failed` from any; each step is in the journal. From the start of the first process
//! on, every exit is noticed, also while a gate waits. A bring-up that fails takes down what it started
//! (unless the plan says `stop.always = false` and nobody cancelled it), so an error never leaves
//! processes behind.

mod external;
mod local;
mod log;
mod managed;
mod nodes;
mod remote;
mod scratch;
mod spawned;

pub(crate) use local::Executable;
pub use local::{deployment_available, program_available};
pub(crate) use log::Search;
pub(crate) use managed::{Held, Manager, Removal, ToolError};
pub use managed::{InsideClient, InsideEnd, InsideJob, InsideUnknown, LAST_LINE};
pub use nodes::{NotKept, OnNodes};
pub(crate) use spawned::{Spawned, stage_of};

use crate::agent::{self, AgentProgram, Carried, FarHost};
use crate::error::FleetError;
use crate::host::Shell;
use crate::http::{self, Client};
use crate::journal::{Event, Journal};
use crate::process::Mark;
use crate::ready;
use crate::teardown::{self, Target, TeardownReport};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan, Gate, Plan, Platform, ProcessPlan};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A death on another host that was asked for is known by itself within so long.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Between the last connection that a process closes and its end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// How soon the caller wants to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    Not,
    /// What is being brought up is taken down, with its grace.
    Orderly,
    /// What is being taken down has no grace any more.
    AtOnce,
}

/// What a bring-up needs to know beside the plan.
#[derive(Debug, Clone)]
pub struct Context {
    /// The run directory; it exists.
    pub run_dir: PathBuf,
    /// The run's id, which marks every process.
    pub run_id: String,
    /// This program, for processes whose program is `scalebeam`.
    pub exe: PathBuf,
    /// Where managed engines and models are.
    pub cache_dir: PathBuf,
    /// Where relative paths of the experiment file start.
    pub base: PathBuf,
    /// The whole plan: its hosts, and what files for a platform are rendered from.
    pub plan: Arc<Plan>,
    /// The run's journal.
    pub journal: Arc<Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How soon the caller wants to stop. It grows.
    pub stop: watch::Receiver<Stop>,
    /// Who takes what the doctor says of machines that are known only once a platform has given them; absent where
    /// it is not to be asked.
    pub on_nodes: Option<OnNodes>,
}

impl Context {
    /// How host `name` of `plan` is talked to.
    pub(crate) fn shell(&self, plan: &DeploymentPlan, name: &str) -> Shell {
        Shell::of(plan.platform, self.plan.hosts.iter().find(|h| h.name == name))
    }

    /// Returns once the caller wants to stop; never, where it no longer can.
    pub(crate) async fn cancelled(&self) {
        self.asked(Stop::Orderly).await;
    }

    /// Returns once the caller wants that to be at once; never, where it no longer can.
    async fn hurried(&self) {
        self.asked(Stop::AtOnce).await;
    }

    async fn asked(&self, stop: Stop) {
        let mut asked = self.stop.clone();
        if asked.wait_for(|asked| *asked >= stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What marks the processes of this run. Canonical, so that `down` may be given any spelling.
    pub fn mark(&self) -> Mark {
        let dir = std::fs::canonicalize(&self.run_dir).unwrap_or_else(|_| self.run_dir.clone());
        Mark { run: self.run_id.clone(), dir: dir.to_string_lossy().into_owned() }
    }
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of it exists.
    Absent,
    /// Its processes are being started.
    Starting,
    /// All of them run.
    Alive,
    /// Entries answer and list the model.
    Serving,
    /// A real request was answered; it can be measured.
    Verified,
    /// It is being taken down.
    Draining,
    /// Nothing of it is left.
    Gone,
    /// It could not be brought up, or died.
    Failed,
}

impl State {
    /// The name in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Alive => "alive",
            Self::Serving => "serving",
            Self::Verified => "verified",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

/// One line for a display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The deployment.
    pub deployment: String,
    /// Where it stands.
    pub state: State,
    /// What is being done or waited for.
    pub text: String,
    /// A platform's scheduler has it, and `text` is its reason: it may stay so for hours.
    pub is_queued: bool,
}

/// Takes progress.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// A process of a running deployment, for telemetry and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningProcess {
    /// Id in the plan.
    pub id: String,
    /// Its instance.
    pub instance: Option<u32>,
    /// Host in the file.
    pub host: String,
    /// Pid of the leader of its group.
    pub pid: i32,
    /// GPU ids it may use.
    pub gpus: Vec<u32>,
    /// Its log.
    pub log: PathBuf,
    /// Where in it this start's output begins, in bytes.
    pub log_from: u64,
}

/// A deployment that passed every gate.
///
/// Dropping it leaves its processes running; they are in the journal, and `down_run` finds them. Call
/// [`Running::take_down`].
#[derive(Debug)]
pub struct Running {
    deployment: String,
    entries: Vec<EntryPlan>,
    processes: Vec<Spawned>,
    /// Telemetry agents on hosts; that one ends is no death of the deployment.
    agents: Vec<Target>,
    deaths: watch::Receiver<Option<usize>>,
    /// What a platform was given that starts processes itself.
    held: Option<Held>,
    notes: Vec<String>,
    /// When its first process was about to be started.
    begun: Nanos,
    ready_after: Nanos,
    state: State,
    ctx: Context,
}

/// Brings `plan` up and passes its gates.
///
/// # Errors
/// When it cannot be started, a process ends, a gate is not passed in time or gets a wrong answer, or
/// the caller cancels. What was started is taken down before the error is returned, unless the plan's
/// `stop.always` is false and the caller did not cancel.
pub async fn bring_up(
    plan: &DeploymentPlan,
    ctx: &Context,
    progress: OnProgress<'_>,
) -> Result<Running, FleetError> {
    refuse(plan)?;
    for entry in &plan.entries {
        http::check_url(&entry.url)?;
    }
    let client = Client::new(plan, &ctx.base, manner(plan))?;
    let (died, deaths) = watch::channel(None);
    let mut running = Running {
        deployment: plan.name.clone(),
        entries: plan.entries.clone(),
        processes: Vec::new(),
        agents: Vec::new(),
        deaths,
        held: None,
        notes: Vec::new(),
        begun: ctx.clock.now(),
        ready_after: Nanos::ZERO,
        state: State::Absent,
        ctx: ctx.clone(),
    };
    match running.start_and_verify(plan, &client, &Arc::new(died), progress).await {
        Ok(()) => Ok(running),
        Err(error) => {
            running.fail(&error, plan, progress).await;
            Err(error)
        }
    }
}

/// The family whose manners an endpoint expects of everybody: that of all its workloads, or OpenAI's.
pub(crate) fn manner(plan: &DeploymentPlan) -> Api {
    let apis = plan.ready.gates.iter().filter_map(|gate| match gate {
        Gate::Completion { apis } => Some(apis.as_slice()),
        _ => None,
    });
    match apis.flatten().collect::<Vec<_>>().as_slice() {
        [only] => **only,
        _ => Api::Chat,
    }
}

fn refuse(plan: &DeploymentPlan) -> Result<(), FleetError> {
    let unsupported =
        |reason: String| FleetError::Unsupported { deployment: plan.name.clone(), reason };
    if let Some(reason) = &plan.cannot_run {
        return Err(unsupported(reason.clone()));
    }
    match plan.platform {
        Platform::External => external::check(plan),
        _ => Ok(()),
    }
}

impl Running {
    async fn start_and_verify(
        &mut self,
        plan: &DeploymentPlan,
        client: &Client,
        died: &Arc<watch::Sender<Option<usize>>>,
        progress: OnProgress<'_>,
    ) -> Result<(), FleetError> {
        self.enter(State::Starting, None)?;
        match Manager::of(plan.platform) {
            Some(manager) => self.submit(manager, plan, progress).await?,
            None => self.start_all(plan, client, died, progress).await?,
        }
        // Where it answers is known by now.
        let plan = &DeploymentPlan { entries: self.entries.clone(), ..plan.clone() };
        let deaths = self.deaths.clone();
        let (processes, held) = (std::mem::take(&mut self.processes), self.held.take());
        let outcome = {
            let ctx = self.ctx.clone();
            // What it waited in a platform's queue is not its own slowness.
            let begun = if held.is_some() { ctx.clock.now() } else { self.begun };
            let mut step = |state| self.step(state, &processes, progress);
            let (processes, held) = (processes.as_slice(), held.as_ref());
            let wait =
                ready::Wait { plan, processes, held, deaths, client, progress, ctx: &ctx, begun };
            wait.until_ready(&mut step).await
        };
        (self.processes, self.held) = (processes, held);
        self.notes = outcome?;
        for note in &self.notes {
            self.ctx.journal.write(Event::Note { text: note.clone() })?;
        }
        self.ready_after = self.ctx.clock.now().since(self.begun);
        Ok(())
    }

    /// Gives it to a platform, and waits until that says where it answers.
    async fn submit(
        &mut self,
        manager: Manager,
        plan: &DeploymentPlan,
        progress: OnProgress<'_>,
    ) -> Result<(), FleetError> {
        let ctx = self.ctx.clone();
        progress(self.progress(format!("submitting to {}", plan.platform.name())));
        let mut held = tokio::select! {
            biased;
            () = ctx.cancelled() => Err(FleetError::Cancelled { deployment: plan.name.clone() }),
            held = Held::claim(manager, plan, &ctx) => held,
        }?;
        let submitted = held.submit(&ctx).await;
        let up = match submitted {
            Ok(()) => {
                let say = |text, is_queued| {
                    progress(Progress { is_queued, ..self.progress(text) });
                };
                held.until_up(&ctx, &say).await
            }
            Err(error) => Err(error),
        };
        let held = self.held.insert(held);
        self.entries = up?;
        for entry in &self.entries {
            http::check_url(&entry.url)?;
        }
        let state = self.state;
        let say = |text| {
            progress(Progress { deployment: plan.name.clone(), state, text, is_queued: false });
        };
        nodes::look_and_release(held, plan, &ctx, &say).await
    }

    /// Starts every process where it belongs; what can be known before is looked at before.
    async fn start_all(
        &mut self,
        plan: &DeploymentPlan,
        client: &Client,
        died: &Arc<watch::Sender<Option<usize>>>,
        progress: OnProgress<'_>,
    ) -> Result<(), FleetError> {
        if !plan.platform.places_processes() {
            return Ok(());
        }
        local::check_ports(plan, &self.ctx)?;
        let here = plan.processes.iter().filter(|p| self.ctx.shell(plan, &p.host) == Shell::Here);
        let resolve = |p| local::resolve(p, &self.ctx.exe, &self.ctx.cache_dir);
        let mut executables = here.map(resolve).collect::<Result<Vec<_>, _>>()?.into_iter();
        let seen = tokio::select! {
            () = self.ctx.cancelled() => Err(FleetError::Cancelled { deployment: plan.name.clone() }),
            seen = remote::look_at_all(plan, &self.ctx) => seen,
        }?;
        for (index, process) in plan.processes.iter().enumerate() {
            if *self.ctx.stop.borrow() >= Stop::Orderly {
                return Err(FleetError::Cancelled { deployment: plan.name.clone() });
            }
            self.may_start(plan, process, client, progress).await?;
            progress(self.progress(format!("starting {}", process.id)));
            let died = died.clone();
            let started = match seen.get(&process.host) {
                Some(seen) => {
                    let start = remote::Start { plan, process, seen, index, died };
                    remote::start(start, &self.ctx).await?
                }
                None => {
                    let Some(executable) = executables.next() else { break };
                    local::start(
                        local::Start { plan, process, executable, index, died },
                        &self.ctx,
                    )?
                }
            };
            self.processes.push(started);
        }
        Ok(())
    }

    /// Waits for what `process` is started after; those before it are watched meanwhile.
    async fn may_start(
        &self,
        plan: &DeploymentPlan,
        process: &ProcessPlan,
        client: &Client,
        progress: OnProgress<'_>,
    ) -> Result<(), FleetError> {
        let Some(gate) = &process.after else { return Ok(()) };
        let (processes, deaths) = (self.processes.as_slice(), self.deaths.clone());
        let (ctx, begun) = (&self.ctx, self.begun);
        let held = None;
        let wait = ready::Wait { plan, processes, held, deaths, client, progress, ctx, begun };
        wait.until_may_start(process, gate).await
    }

    /// Enters `state`, unless it is there already, and records who belongs to each process now.
    fn step(
        &mut self,
        state: State,
        processes: &[Spawned],
        progress: OnProgress<'_>,
    ) -> Result<(), FleetError> {
        if self.state == state {
            return Ok(());
        }
        for process in processes {
            process.record_members(&self.ctx.journal)?;
        }
        self.enter(state, None)?;
        progress(self.progress(String::new()));
        Ok(())
    }

    fn enter(&mut self, to: State, reason: Option<String>) -> Result<(), FleetError> {
        let from = std::mem::replace(&mut self.state, to);
        self.ctx.journal.write(Event::DeploymentState {
            deployment: self.deployment.clone(),
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            reason,
        })
    }

    fn progress(&self, text: String) -> Progress {
        let deployment = self.deployment.clone();
        Progress { deployment, state: self.state, text, is_queued: false }
    }

    async fn fail(&mut self, error: &FleetError, plan: &DeploymentPlan, progress: OnProgress<'_>) {
        // The error itself goes to the caller; a journal that cannot be written must not stop us here.
        let _ = self.enter(State::Failed, Some(error.to_string()));
        progress(self.progress(error.to_string()));
        // Who cancels is not there to look at what is left.
        let is_cancelled = matches!(error, FleetError::Cancelled { .. });
        if (plan.stop.always || is_cancelled) && self.has_started() {
            let report = self.drain(plan.stop.grace).await;
            for problem in report.problems {
                progress(self.progress(problem));
            }
        }
    }

    fn has_started(&self) -> bool {
        !self.processes.is_empty() || self.held.is_some()
    }

    /// Name of the deployment.
    pub fn name(&self) -> &str {
        &self.deployment
    }

    /// Where requests go.
    pub fn endpoints(&self) -> &[EntryPlan] {
        &self.entries
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// From the first start to the last gate.
    pub const fn ready_after(&self) -> Nanos {
        self.ready_after
    }

    /// What a gate could not tell, for the report.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its processes, in start order.
    pub fn processes(&self) -> Vec<RunningProcess> {
        self.processes.iter().map(Spawned::public).collect()
    }

    /// Hosts of `plan` that an agent can be brought to: those that are reached by ssh, nodes of a job, or pods.
    ///
    /// # Errors
    /// Why nobody knows which they are.
    pub async fn far_hosts(&self, plan: &DeploymentPlan) -> Result<Vec<FarHost>, String> {
        agent::far(plan, &self.ctx, self.held.as_ref()).await
    }

    /// Brings a telemetry agent to each of `hosts`. A host that cannot have one says why.
    pub async fn carry_agents(
        &mut self,
        plan: &DeploymentPlan,
        hosts: Vec<FarHost>,
        program: &Arc<AgentProgram>,
    ) -> Vec<Carried> {
        let placed = agent::carry(plan, hosts, program, &self.ctx).await;
        let (carried, targets): (Vec<_>, Vec<_>) =
            placed.into_iter().map(|placed| (placed.carried, placed.target)).unzip();
        self.agents.extend(targets.into_iter().flatten());
        carried
    }

    /// Whether every process still runs.
    ///
    /// # Errors
    /// The first death, with exit status, log tail and hint.
    pub fn check_alive(&self) -> Result<(), FleetError> {
        self.held.as_ref().map_or(Ok(()), Held::check_alive)?;
        let first = *self.deaths.borrow();
        match first.and_then(|index| spawned::death(&self.processes, index)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Looks whether every process still runs. [`Running::died`] tells so by itself, at once for this
    /// machine and within seconds for others; this asks those now.
    ///
    /// # Errors
    /// The first death. A host that cannot be asked is none: what it served will have failed.
    pub async fn look(&self) -> Result<(), FleetError> {
        if let Some(held) = &self.held {
            return held.look().await;
        }
        if remote::all_live(&self.processes).await {
            return self.check_alive();
        }
        // What follows it is about to notice, and knows how it ended.
        tokio::time::timeout(NOTICED_WITHIN, self.died()).await.map_or(Ok(()), Err)
    }

    /// The death behind a question that was left open, where it is one. A process that ends closes its
    /// connections first, so it may be alive at the first look.
    pub async fn death(&self) -> Option<FleetError> {
        match tokio::time::timeout(ENDS_WITHIN, self.died()).await {
            Ok(death) => Some(death),
            Err(_) => self.look().await.err(),
        }
    }

    /// Returns when a process ends; never for a deployment without processes.
    pub async fn died(&self) -> FleetError {
        first_end(&self.processes, self.deaths.clone(), self.held.as_ref()).await
    }

    /// Takes it down: entries, workers, infrastructure; SIGTERM, `grace`, SIGKILL, verify.
    ///
    /// Something that went wrong is in the report; nothing stops the rest.
    pub async fn take_down(mut self, grace: Nanos) -> TeardownReport {
        self.drain(grace).await
    }

    /// With `grace`, unless the caller is in a hurry, or comes to be while that is waited for.
    async fn drain(&mut self, grace: Nanos) -> TeardownReport {
        let ctx = self.ctx.clone();
        let drained = tokio::select! {
            biased;
            () = ctx.hurried() => None,
            report = self.drain_within(grace) => Some(report),
        };
        match drained {
            Some(report) => report,
            None => self.drain_within(Nanos::ZERO).await,
        }
    }

    /// May be given up wherever it waits, and begun anew.
    async fn drain_within(&mut self, grace: Nanos) -> TeardownReport {
        if self.state != State::Draining {
            let _ = self.enter(State::Draining, None);
        }
        for process in &self.processes {
            let _ = process.record_members(&self.ctx.journal);
        }
        let mark = self.ctx.mark();
        let mut targets: Vec<_> =
            self.processes.iter().map(|p| p.target(&self.deployment, &mark, grace)).collect();
        let (in_pods, others) = teardown::apart(self.agents.clone());
        targets.extend(others);
        let mut report = teardown::take_down(&targets, Some(&self.ctx.journal)).await;
        for process in &self.processes {
            process.settled().await;
        }
        // Not before: the end of a log on another host is copied when the process has ended.
        teardown::clean(&targets, &mut report).await;
        if let Some(held) = &self.held {
            let gone = held.remove(grace, &self.ctx, &mut report).await;
            teardown::end_in_pods(in_pods, &gone, Some(&self.ctx.journal), &mut report).await;
        }
        self.held = None;
        self.agents.clear();
        let (state, reason) = if report.is_clean() {
            (State::Gone, None)
        } else {
            (State::Failed, Some(report.problems.join("; ")))
        };
        let _ = self.enter(state, reason);
        report
    }
}

/// Returns when the first of `processes`, or what a platform holds, has ended.
pub(crate) async fn first_end(
    processes: &[Spawned],
    deaths: watch::Receiver<Option<usize>>,
    held: Option<&Held>,
) -> FleetError {
    let given_up = async {
        match held {
            Some(held) => held.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = spawned::first_death(processes, deaths) => error,
        error = given_up => error,
    }
}

/// A path of the run directory.
fn within(run_dir: &Path, relative: &str) -> PathBuf {
    run_dir.join(relative)
}
