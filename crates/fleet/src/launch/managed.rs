//! Platforms that start processes themselves: a deployment is submitted, watched and removed as a whole.
//!
//! **Invariants.** The claim, with the name by which it is found again, is on the disk before anything is
//! submitted, and the id right after. Removing needs nothing but the claim: it works by the name where no
//! id was recorded, as often as wanted, and what has another name is never touched. Where a deployment
//! answers is a fact of the platform; commands and ports are the plan's. Every question is a call of the
//! site's own program ([`tool`]), and what that prints is read by pure functions.
//!
//! To add a platform: a module here with the functions that [`Manager`] calls, and an arm in each.

mod errand;
mod hold;
mod kube;
mod modal;
mod skypilot;
mod slurm;
mod tool;

pub(crate) use hold::Held;
pub use kube::{InsideClient, InsideEnd, InsideJob, InsideUnknown, LAST_LINE};
pub(crate) use tool::ToolError;

use crate::agent::FarHost;
use crate::error::FleetError;
use crate::host::Shell;
use crate::journal::Claim;
use crate::teardown::Ended;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan, GateKind, HostPlan, Platform};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// What a look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whether it runs. Nobody is asked where it answers: that is known, costs the load's machine another call,
    /// and a refused answer to it would end a measurement that goes well.
    Runs,
    /// Where it answers, too.
    Where,
}

/// What became of a deployment that was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// The platform does not know it.
    Absent,
    /// It does not run yet, in words: `pending (Resources)`.
    Pending(String),
    /// The same, and what holds it up is known: it may pass, and a person can do something about it.
    Blocked(End),
    /// It runs.
    Up {
        /// Where it answers: as many entries as its plan has, in the plan's order; none where nobody asked.
        entries: Vec<EntryPlan>,
        /// Where it runs, in words.
        text: String,
    },
    /// It will not run any more.
    Ended(End),
}

/// Why a deployment does not run any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// What happened, in words.
    pub(crate) reason: String,
    /// What to do about it, where the platform's word says that.
    pub(crate) hint: Option<String>,
}

impl End {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A machine that a deployment was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The platform's name of it.
    pub(crate) name: String,
    /// Its address, or its name where the platform knows none.
    pub(crate) addr: String,
}

/// What a deployment was given whose processes are held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Its machines, in the platform's order.
    pub(crate) nodes: Vec<Node>,
    /// Variables that its processes will have beside the plan's, or why they are not known.
    pub(crate) env: Result<BTreeMap<String, String>, String>,
}

/// What removing one thing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removal {
    /// What it is there: `job 17`.
    pub(crate) what: String,
    /// How it ended.
    pub(crate) ended: Ended,
    /// What it may have left behind, in words.
    pub(crate) left: Option<String>,
}

/// The platforms that this version submits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// `sbatch`, `scontrol`, `squeue`, `scancel`.
    Slurm,
    /// `kubectl`.
    Kube,
    /// `modal`.
    Modal,
    /// `sky`.
    Skypilot,
}

impl Manager {
    /// Who manages deployments on `platform`, where this version knows how.
    pub(crate) const fn of(platform: Platform) -> Option<Self> {
        match platform {
            Platform::Slurm => Some(Self::Slurm),
            Platform::K8s
            | Platform::Lws
            | Platform::Kuberay
            | Platform::Dgd
            | Platform::InferencePool => Some(Self::Kube),
            Platform::Modal => Some(Self::Modal),
            Platform::Skypilot => Some(Self::Skypilot),
            Platform::Local | Platform::Ssh | Platform::External => None,
        }
    }

    /// Who manages what `claim` is about.
    ///
    /// # Errors
    /// Where it was written by a version that knows more platforms than this one.
    pub(crate) fn of_claim(claim: &Claim) -> Result<Self, ToolError> {
        Self::of(claim.platform).ok_or_else(|| ToolError::Unfit {
            said: format!("this version does not manage platform {}", claim.platform.name()),
            hint: "use the version of scalebeam that started it".to_owned(),
        })
    }

    /// Which cluster, namespace or account `plan` would be given to. Asked before anything is written.
    ///
    /// # Errors
    /// When it cannot be asked, or what it says shows that `plan` could not be reached there.
    async fn scope(self, plan: &DeploymentPlan) -> Result<BTreeMap<String, String>, ToolError> {
        match self {
            Self::Slurm => slurm::scope(plan).await,
            Self::Kube => kube::scope(plan).await,
            Self::Modal => modal::scope().await,
            Self::Skypilot => skypilot::scope(plan).await,
        }
    }

    /// How long a deployment may be pending.
    fn patience(self, plan: &DeploymentPlan) -> Nanos {
        match self {
            Self::Slurm => slurm::patience(plan),
            Self::Kube | Self::Modal | Self::Skypilot => {
                plan.ready.limit(GateKind::Start).unwrap_or(plan.ready.timeout)
            }
        }
    }

    /// Between two looks at what is measured. A client in Python takes a second of CPU from the load that is
    /// sent from here, so it is called seldom; what stops serving is seen by its requests before.
    const fn watch_every(self) -> Duration {
        match self {
            Self::Slurm | Self::Kube => Duration::from_secs(5),
            Self::Modal | Self::Skypilot => Duration::from_secs(20),
        }
    }

    /// Whether what is pending there waits in a queue, and its reason is what there is to know. Elsewhere it is
    /// being built or booted, and says so line by line.
    const fn schedules(self) -> bool {
        matches!(self, Self::Slurm | Self::Kube)
    }

    /// So many looks in a row at what is measured must find it pending. A scheduler that queues a job again knows
    /// what it did; of a server that failed its probe the next look may find that it was only slow.
    const fn pending_is_believed_after(self) -> u32 {
        match self {
            Self::Slurm => 1,
            Self::Kube | Self::Modal | Self::Skypilot => 2,
        }
    }

    /// Whether it can hold processes back that have been given their machines, so that these are looked at before.
    const fn can_hold(self) -> bool {
        matches!(self, Self::Slurm)
    }

    /// Submits the files of `claim`, with its processes held back where that is asked for and possible; what the
    /// platform calls it.
    ///
    /// # Errors
    /// When it is refused, or no answer came: it may have been accepted then.
    async fn submit(self, claim: &Claim, is_held: bool) -> Result<String, ToolError> {
        match self {
            Self::Slurm => slurm::submit(claim, is_held).await,
            Self::Kube => kube::submit(claim).await,
            Self::Modal => modal::submit(claim),
            Self::Skypilot => skypilot::submit(claim),
        }
    }

    /// What became of it.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    async fn look(
        self,
        claim: &Claim,
        plan: &DeploymentPlan,
        id: &str,
        ask: Ask,
    ) -> Result<Look, ToolError> {
        match self {
            Self::Slurm => slurm::look(claim, plan, id, ask).await,
            Self::Kube => kube::look(claim, plan, ask).await,
            Self::Modal => modal::look(claim, plan, ask).await,
            Self::Skypilot => skypilot::look(claim, plan, ask).await,
        }
    }

    /// What a deployment was given whose processes are held back.
    ///
    /// # Errors
    /// When the platform cannot be asked, or holds nothing back.
    async fn granted(self, claim: &Claim, id: &str) -> Result<Granted, ToolError> {
        match self {
            Self::Slurm => slurm::granted(claim, id).await,
            Self::Kube | Self::Modal | Self::Skypilot => Err(ToolError::Unfit {
                said: "its machines are not known before it runs".to_owned(),
                hint: "run with --no-doctor".to_owned(),
            }),
        }
    }

    /// Lets processes start that were held back.
    ///
    /// # Errors
    /// When the platform refuses, or cannot be asked.
    async fn release(self, claim: &Claim, id: &str) -> Result<(), ToolError> {
        match self {
            Self::Slurm => slurm::release(claim, id).await,
            Self::Kube | Self::Modal | Self::Skypilot => Ok(()),
        }
    }

    /// How a host of the plan is talked to from outside of its processes, where the platform lets that be.
    fn shell(self, claim: &Claim, id: &str, host: &str) -> Option<Shell> {
        match self {
            Self::Slurm => Some(Shell::Step(slurm::step(claim, id, host))),
            Self::Kube | Self::Modal | Self::Skypilot => None,
        }
    }

    /// What can be talked to from outside of its processes: nodes that `plan` names, or pods; none where the platform
    /// does not let that be.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    async fn hosts(
        self,
        claim: &Claim,
        (plan, named): (&DeploymentPlan, &[HostPlan]),
        id: &str,
    ) -> Result<Vec<FarHost>, ToolError> {
        match self {
            Self::Slurm => Ok(slurm::hosts(claim, (plan, named), id)),
            Self::Kube => kube::hosts(claim).await,
            Self::Modal | Self::Skypilot => Ok(Vec::new()),
        }
    }

    /// The last `lines` lines of the log that tells most: of a process that ended, where one did. What
    /// cannot be read is absent.
    async fn log_tail(self, claim: &Claim, id: &str, lines: usize) -> Vec<String> {
        match self {
            Self::Slurm => slurm::log_tail(claim, id, lines).await,
            Self::Kube => kube::log_tail(claim, lines).await,
            Self::Modal => modal::log_tail(claim, lines).await,
            Self::Skypilot => skypilot::log_tail(claim, lines).await,
        }
    }

    /// The line that was logged last, where logs are on this machine while it runs; empty where not. It is
    /// shown while gates wait, so it asks nobody.
    fn last_line(self, claim: &Claim, id: &str) -> String {
        match self {
            Self::Slurm => slurm::last_line(claim, id),
            // Their logs are not on this machine.
            Self::Kube | Self::Modal | Self::Skypilot => String::new(),
        }
    }

    /// What there is of `claim`, in words: `job 17 (RUNNING)`.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    pub(crate) async fn find(self, claim: &Claim) -> Result<Vec<String>, ToolError> {
        match self {
            Self::Slurm => slurm::find(claim).await,
            Self::Kube => kube::find(claim).await,
            Self::Modal => modal::find(claim).await,
            Self::Skypilot => skypilot::find(claim).await,
        }
    }

    /// Asks what there is of `claim` to end, ends it after its grace, and looks that nothing is left. By
    /// its name where `id` is not known.
    ///
    /// # Errors
    /// When the platform cannot be asked; what could not be ended is a removal that says so.
    pub(crate) async fn remove(
        self,
        claim: &Claim,
        id: Option<&str>,
    ) -> Result<Vec<Removal>, ToolError> {
        match self {
            Self::Slurm => slurm::remove(claim, id).await,
            Self::Kube => kube::remove(claim).await,
            Self::Modal => modal::remove(claim).await,
            Self::Skypilot => skypilot::remove(claim).await,
        }
    }

    /// What to do about `error`.
    pub(crate) fn hint(self, error: &ToolError) -> String {
        match (error, self) {
            (ToolError::Unfit { hint, .. }, _) => hint.clone(),
            (ToolError::Start { program, .. }, _) => {
                format!("run scalebeam where {program} is installed and on PATH")
            }
            (ToolError::File { .. }, _) => {
                "check the path, its permissions, and free space".to_owned()
            }
            (ToolError::TimedOut { program, .. }, _) => {
                format!("see whether the platform is up: try {program} by hand")
            }
            (ToolError::Unclear { program, .. }, _) => {
                format!("see what {program} says by hand; its version may be newer than ours")
            }
            (ToolError::Refused { said, .. }, Self::Slurm) => slurm::hint(said),
            (ToolError::Refused { said, .. }, Self::Kube) => kube::hint(said),
            (ToolError::Refused { said, .. }, Self::Modal) => modal::hint(said),
            (ToolError::Refused { said, .. }, Self::Skypilot) => skypilot::hint(said),
        }
    }

    /// `error` as that of the deployment of `plan`.
    fn failed(self, plan: &DeploymentPlan, error: &ToolError) -> FleetError {
        FleetError::Platform {
            deployment: plan.name.clone(),
            platform: plan.platform,
            what: error.to_string(),
            tail: Vec::new(),
            advice: self.hint(error),
        }
    }
}

/// Waits about `span`: for looking again, and not for pacing.
async fn pause(span: Duration) {
    // Never done: the time-out is the pause.
    let _ = tokio::time::timeout(span, std::future::pending::<()>()).await;
}

/// Asks every so often until `is_gone`, for `limit` at most; whether it came to that. A platform that does not
/// answer once may answer the next time.
///
/// # Errors
/// What the last question met, where that is why nobody knows.
async fn gone_within<F>(
    limit: Duration,
    every: Duration,
    mut is_gone: impl FnMut() -> F,
) -> Result<bool, ToolError>
where
    F: Future<Output = Result<bool, ToolError>>,
{
    let mut unanswered = None;
    let looking = async {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match is_gone().await {
                Ok(true) => return,
                Ok(false) => unanswered = None,
                Err(error) => unanswered = Some(error),
            }
        }
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(()) => Ok(true),
        Err(_) => unanswered.map_or(Ok(false), Err),
    }
}
