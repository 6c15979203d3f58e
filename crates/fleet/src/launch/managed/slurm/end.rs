//! How a job ends: its steps stage by stage, then the job.
//!
//! **Invariants.** What is to end is found by the claim's name, and by its id, since partitions may be hidden from a
//! list. A stage is found by the names that the job script gives its steps; the script waits for the rest and clears
//! up, since its comment says that the job is taken down, and that step is not signalled. No step that fails keeps
//! another from being taken.

use super::job::{self, Queued};
use super::{ASK_LIMIT, call, logs, same_cluster};
use crate::journal::{Claim, Stage};
use crate::launch::managed::tool::ToolError;
use crate::launch::managed::{Removal, gone_within, pause};
use crate::render;
use crate::teardown::Ended;
use std::path::Path;
use std::time::Duration;

/// Between two looks at a job that is ending.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After SIGKILL: nodes report that nothing is left, and a site's epilog runs.
const KILL_WAIT: Duration = Duration::from_secs(90);
/// A stage that was killed is waited for no longer: what is left of it goes with the job.
const STAGE_KILL_WAIT: Duration = Duration::from_secs(10);
/// What the script of a job needs after its last step, where nothing is in its way.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);
/// It gives up to clear the nodes after a minute.
const SWEPT_WITHIN: Duration = Duration::from_secs(70);
/// For one question of who was interrupted twice.
const HURRIED_LIMIT: Duration = Duration::from_secs(15);
/// An `sbatch` that outlived a killed scalebeam has submitted by then.
const SUBMITTED_WITHIN: Duration = Duration::from_secs(3);
/// The word in the comment of a job that is taken down.
const END: &str = "end";
/// The name of the step that clears the nodes.
const SWEEP: &str = "sweep";

/// Jobs of `claim` that have not left the queue; `known` are ids of it, by which the controller knows a job whose
/// partition no list shows.
async fn queued(claim: &Claim, known: &[&str], limit: Duration) -> Result<Vec<Queued>, ToolError> {
    let user = rustix::process::getuid().as_raw();
    let said = call("squeue", &claim.scope)
        .args(["--all", "--noheader", "--format=%A|%T|%j"])
        .args([format!("--user={user}"), format!("--name={}", claim.name)])
        .ask(limit)
        .await?;
    let mut jobs = job::queue(&said, &claim.name);
    for id in known {
        if jobs.iter().any(|job| job.id == *id) {
            continue;
        }
        let told = super::job(claim, id).await?.filter(|job| job.name == claim.name);
        jobs.extend(told.and_then(|job| job.queued(id)));
    }
    Ok(jobs)
}

pub(in super::super) async fn find(claim: &Claim) -> Result<Vec<String>, ToolError> {
    same_cluster(claim).await?;
    let jobs = queued(claim, &[], ASK_LIMIT).await?;
    Ok(jobs.iter().map(|job| format!("job {} ({})", job.id, job.state)).collect())
}

pub(in super::super) async fn remove(
    claim: &Claim,
    id: Option<&str>,
) -> Result<Vec<Removal>, ToolError> {
    let limit = limit(claim);
    same_cluster(claim).await?;
    let known: Vec<&str> = id.into_iter().collect();
    let mut jobs = queued(claim, &known, limit).await?;
    if jobs.is_empty() && id.is_none() {
        pause(SUBMITTED_WITHIN).await;
        jobs = queued(claim, &known, limit).await?;
    }
    if jobs.is_empty() {
        return Ok(vec![gone(claim, id).await]);
    }
    let is_hurried = claim.grace.0 == 0;
    for queued in jobs.iter().filter(|job| job.has_processes() && !is_hurried) {
        if let Ok(Some(job)) = super::job(claim, &queued.id).await {
            logs::bring(claim, &queued.id, &job).await;
        }
    }
    let (ended, was_cut) = Ending::new(claim, &jobs).end().await?;
    let mut removals = Vec::new();
    for job in &jobs {
        let left = match job.has_processes() {
            true => left_behind(claim, &job.id, was_cut).await,
            false => None,
        };
        removals.push(Removal { what: format!("job {}", job.id), ended, left });
    }
    Ok(removals)
}

/// A job that had left the queue before.
async fn gone(claim: &Claim, id: Option<&str>) -> Removal {
    let what = id.map_or_else(|| claim.name.clone(), |id| format!("job {id}"));
    let left = match id {
        Some(id) => left_behind(claim, id, false).await,
        None => None,
    };
    Removal { what, ended: Ended::WasGone, left }
}

/// For one question. Who gives no grace waits.
fn limit(claim: &Claim) -> Duration {
    if claim.grace.0 == 0 { HURRIED_LIMIT } else { ASK_LIMIT }
}

/// What processes of job `id` may have left on its nodes, in words: it did not clear up, or could not. Slurm knows that
/// for minutes; where it does not, by whether its script `was_cut`.
async fn left_behind(claim: &Claim, id: &str, was_cut: bool) -> Option<String> {
    let scratch = |file: &String| {
        let script = std::fs::read_to_string(Path::new(&claim.run_dir).join(file)).ok()?;
        render::scratch_of_job(&script, &claim.name, id)
    };
    let scratch = claim.files.iter().find_map(scratch)?;
    match super::job(claim, id).await.ok().flatten().filter(|job| job.name == claim.name) {
        Some(job) => job.left(id, &scratch),
        None => was_cut.then(|| job::cut(id, &scratch, "its nodes")),
    }
}

/// Jobs of a claim that end.
struct Ending<'a> {
    claim: &'a Claim,
    jobs: Vec<&'a Queued>,
    /// Those that may have processes.
    running: Vec<&'a Queued>,
    grace: Duration,
    /// For one question.
    limit: Duration,
}

impl<'a> Ending<'a> {
    /// Without a grace somebody waits.
    fn new(claim: &'a Claim, jobs: &'a [Queued]) -> Self {
        let grace = claim.grace.to_std();
        Self {
            claim,
            jobs: jobs.iter().collect(),
            running: jobs.iter().filter(|job| job.has_processes()).collect(),
            grace,
            limit: limit(claim),
        }
    }

    /// SIGTERM to the processes of each stage, grace, SIGKILL, and then the job itself. Without a grace all are killed at
    /// once. The script of the job outlives its steps, and clears up after those that were killed. How they ended, and
    /// whether the script had to be ended too.
    async fn end(&self) -> Result<(Ended, bool), ToolError> {
        // A step that fails keeps no other from being taken. What is left in the end, and the last word on that,
        // is what counts.
        let waiting: Vec<&Queued> =
            self.jobs.iter().copied().filter(|job| !job.has_processes()).collect();
        let _ = self.cancel(&waiting, None).await;
        for job in &self.running {
            let _ = super::tell(self.claim, &job.id, END, self.limit).await;
        }
        let have_obeyed = self.end_stages().await;
        let how = |has_obeyed: bool| {
            if has_obeyed || self.running.is_empty() { Ended::Terminated } else { Ended::Killed }
        };
        if self.left_within(CLEARED_WITHIN).await.unwrap_or(false) {
            return Ok((how(have_obeyed), false));
        }
        // What is in no stage: questions that are on their way.
        let _ = self.signal(|name| name != SWEEP, "TERM").await;
        if have_obeyed && self.left_within(self.grace).await.unwrap_or(false) {
            return Ok((how(true), false));
        }
        if self.swept_within(SWEPT_WITHIN).await {
            return Ok((how(have_obeyed), false));
        }
        let _ = self.cancel(&self.running, Some("KILL")).await;
        let cancelled = self.cancel(&self.jobs, None).await;
        if self.left_within(KILL_WAIT).await? {
            return Ok((how(false), true));
        }
        cancelled.map(|()| (Ended::Alive, true))
    }

    /// Ends the steps, entries before workers before what these need; whether all of them obeyed.
    async fn end_stages(&self) -> bool {
        if self.grace.is_zero() {
            let is_of_a_stage = |name: &str| Stage::ALL.iter().any(|stage| stage.name() == name);
            let _ = self.signal(is_of_a_stage, "KILL").await;
            return false;
        }
        let mut have_obeyed = true;
        for stage in Stage::ALL {
            let _ = self.signal(|name| name == stage.name(), "TERM").await;
            if !self.stage_ended_within(stage, self.grace).await {
                have_obeyed = false;
                let _ = self.signal(|name| name == stage.name(), "KILL").await;
                self.stage_ended_within(stage, STAGE_KILL_WAIT).await;
            }
        }
        have_obeyed
    }

    /// Ids of the steps whose name `is_it`.
    async fn steps(&self, is_it: impl Fn(&str) -> bool) -> Result<Vec<String>, ToolError> {
        let ids: Vec<&str> = self.running.iter().map(|job| job.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let said = call("squeue", &self.claim.scope)
            .args(["--all", "--steps", "--noheader", "--format=%i|%j"])
            .args([format!("--jobs={}", ids.join(","))])
            .ask(self.limit)
            .await?;
        Ok(job::steps(&said, is_it))
    }

    /// Signals the steps whose name `is_it`.
    async fn signal(&self, is_it: impl Fn(&str) -> bool, signal: &str) -> Result<(), ToolError> {
        let steps = self.steps(is_it).await?;
        if steps.is_empty() {
            return Ok(());
        }
        let call = call("scancel", &self.claim.scope);
        call.args(["--quiet".to_owned(), format!("--signal={signal}")])
            .args(steps)
            .run(self.limit)
            .await
            .map(drop)
    }

    /// Whether no step of `stage` is left before `limit` is over.
    async fn stage_ended_within(&self, stage: Stage, limit: Duration) -> bool {
        let is_gone = || async { Ok(self.steps(|name| name == stage.name()).await?.is_empty()) };
        gone_within(limit, LOOK_EVERY, is_gone).await.unwrap_or(false)
    }

    /// Signals `jobs`, or cancels them. A job that has just ended is none to complain of.
    async fn cancel(&self, jobs: &[&Queued], signal: Option<&str>) -> Result<(), ToolError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let call = call("scancel", &self.claim.scope)
            .args(["--quiet".to_owned(), format!("--name={}", self.claim.name)])
            .args(signal.map(|signal| format!("--signal={signal}")))
            .args(jobs.iter().map(|job| &job.id));
        let ran = call.run(self.limit).await?;
        if ran.ok || self.are_gone().await? || signal.is_some() {
            return Ok(());
        }
        Err(ran.refusal("scancel"))
    }

    async fn are_gone(&self) -> Result<bool, ToolError> {
        let known: Vec<&str> = self.jobs.iter().map(|job| job.id.as_str()).collect();
        Ok(queued(self.claim, &known, self.limit).await?.is_empty())
    }

    /// Whether all jobs have left the queue before `limit` is over.
    async fn left_within(&self, limit: Duration) -> Result<bool, ToolError> {
        gone_within(limit, LOOK_EVERY, || self.are_gone()).await
    }

    /// Whether all jobs left while their scripts cleared the nodes, for which nobody needs more than `limit`.
    async fn swept_within(&self, limit: Duration) -> bool {
        let is_over = || async { Ok(self.steps(|name| name == SWEEP).await?.is_empty()) };
        let _ = gone_within(limit, LOOK_EVERY, is_over).await;
        self.left_within(LOOK_EVERY * 2).await.unwrap_or(false)
    }
}
