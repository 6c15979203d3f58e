//! How a job ends: its steps stage by stage, then the job.
//!
//! **Invariants.** What is to end is found by the claim's name, and a stage by the names that the job script gives its
//! steps; the script waits for the rest, since its comment says that the job is taken down. No step that fails keeps
//! another from being taken.

use super::job::Queued;
use super::{ASK_LIMIT, call, job, logs, same_cluster};
use crate::journal::{Claim, Stage};
use crate::launch::managed::tool::ToolError;
use crate::launch::managed::{Removal, gone_within, pause};
use crate::teardown::Ended;
use std::time::Duration;

/// Between two looks at a job that is ending.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After SIGKILL: nodes report that nothing is left, and a site's epilog runs.
const KILL_WAIT: Duration = Duration::from_secs(90);
/// A stage that was killed is waited for no longer: what is left of it goes with the job.
const STAGE_KILL_WAIT: Duration = Duration::from_secs(10);
/// The script of a job needs no longer to clear up after its last step.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);
/// An `sbatch` that outlived a killed scalebeam has submitted by then.
const SUBMITTED_WITHIN: Duration = Duration::from_secs(3);
/// The word in the comment of a job that is taken down.
const END: &str = "end";

/// Jobs of `claim` that have not left the queue.
async fn queued(claim: &Claim) -> Result<Vec<Queued>, ToolError> {
    let user = rustix::process::getuid().as_raw();
    let said = call("squeue", &claim.scope)
        .args(["--noheader", "--format=%A|%T|%j"])
        .args([format!("--user={user}"), format!("--name={}", claim.name)])
        .ask(ASK_LIMIT)
        .await?;
    Ok(job::queue(&said, &claim.name))
}

pub(in super::super) async fn find(claim: &Claim) -> Result<Vec<String>, ToolError> {
    same_cluster(claim).await?;
    let jobs = queued(claim).await?;
    Ok(jobs.iter().map(|job| format!("job {} ({})", job.id, job.state)).collect())
}

pub(in super::super) async fn remove(
    claim: &Claim,
    id: Option<&str>,
) -> Result<Vec<Removal>, ToolError> {
    same_cluster(claim).await?;
    let mut jobs = queued(claim).await?;
    if jobs.is_empty() && id.is_none() {
        pause(SUBMITTED_WITHIN).await;
        jobs = queued(claim).await?;
    }
    if jobs.is_empty() {
        let what = id.map_or_else(|| claim.name.clone(), |id| format!("job {id}"));
        return Ok(vec![Removal { what, ended: Ended::WasGone }]);
    }
    for queued in jobs.iter().filter(|job| job.has_processes()) {
        if let Ok(Some(job)) = job(claim, &queued.id).await {
            logs::bring(claim, &queued.id, &job).await;
        }
    }
    let ended = end(claim, &jobs).await?;
    Ok(jobs.iter().map(|job| Removal { what: format!("job {}", job.id), ended }).collect())
}

/// Ends `jobs`: SIGTERM to the processes of each stage, grace, SIGKILL, and then the job itself. Without a grace all
/// are killed at once. The script of the job outlives its steps, and clears up after those that were killed.
async fn end(claim: &Claim, jobs: &[Queued]) -> Result<Ended, ToolError> {
    let grace = claim.grace.to_std();
    let (running, waiting): (Vec<&Queued>, Vec<&Queued>) =
        jobs.iter().partition(|job| job.has_processes());
    // A step that fails keeps no other from being taken. What is left in the end, and the last word on that,
    // is what counts.
    let _ = cancel(claim, &waiting, None).await;
    for job in &running {
        let _ = super::tell(claim, &job.id, END).await;
    }
    let have_obeyed = end_stages(claim, &running, grace).await;
    let how = |has_obeyed: bool| {
        if has_obeyed || running.is_empty() { Ended::Terminated } else { Ended::Killed }
    };
    if left_within(claim, CLEARED_WITHIN).await.unwrap_or(false) {
        return Ok(how(have_obeyed));
    }
    // What is in no stage: questions that are on their way.
    let _ = cancel(claim, &running, Some("TERM")).await;
    if have_obeyed && left_within(claim, grace).await.unwrap_or(false) {
        return Ok(how(true));
    }
    let _ = cancel(claim, &running, Some("KILL")).await;
    let cancelled = cancel(claim, &jobs.iter().collect::<Vec<_>>(), None).await;
    if left_within(claim, KILL_WAIT).await? {
        return Ok(how(false));
    }
    cancelled.map(|()| Ended::Alive)
}

/// Ends the steps of `jobs`, entries before workers before what these need; whether all of them obeyed.
async fn end_stages(claim: &Claim, jobs: &[&Queued], grace: Duration) -> bool {
    if grace.is_zero() {
        for stage in Stage::ALL {
            let _ = signal(claim, jobs, stage, "KILL").await;
        }
        return false;
    }
    let mut have_obeyed = true;
    for stage in Stage::ALL {
        let _ = signal(claim, jobs, stage, "TERM").await;
        if !ended_within(claim, jobs, stage, grace).await {
            have_obeyed = false;
            let _ = signal(claim, jobs, stage, "KILL").await;
            ended_within(claim, jobs, stage, STAGE_KILL_WAIT).await;
        }
    }
    have_obeyed
}

/// Ids of the steps of `jobs` that belong to `stage`.
async fn steps(claim: &Claim, jobs: &[&Queued], stage: Stage) -> Result<Vec<String>, ToolError> {
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let said = call("squeue", &claim.scope)
        .args(["--steps", "--noheader", "--format=%i|%j"])
        .args([format!("--jobs={}", ids.join(","))])
        .ask(ASK_LIMIT)
        .await?;
    Ok(job::steps(&said, stage.name()))
}

async fn signal(
    claim: &Claim,
    jobs: &[&Queued],
    stage: Stage,
    signal: &str,
) -> Result<(), ToolError> {
    let steps = steps(claim, jobs, stage).await?;
    if steps.is_empty() {
        return Ok(());
    }
    let call = call("scancel", &claim.scope);
    call.args(["--quiet".to_owned(), format!("--signal={signal}")])
        .args(steps)
        .run(ASK_LIMIT)
        .await
        .map(drop)
}

/// Whether no step of `stage` is left before `limit` is over.
async fn ended_within(claim: &Claim, jobs: &[&Queued], stage: Stage, limit: Duration) -> bool {
    let is_gone = || async { Ok(steps(claim, jobs, stage).await?.is_empty()) };
    gone_within(limit, LOOK_EVERY, is_gone).await.unwrap_or(false)
}

/// Signals the steps of `jobs`, or cancels them. A job that has just ended is none to complain of.
async fn cancel(claim: &Claim, jobs: &[&Queued], signal: Option<&str>) -> Result<(), ToolError> {
    if jobs.is_empty() {
        return Ok(());
    }
    let call = call("scancel", &claim.scope)
        .args(["--quiet".to_owned(), format!("--name={}", claim.name)])
        .args(signal.map(|signal| format!("--signal={signal}")))
        .args(jobs.iter().map(|job| &job.id));
    let ran = call.run(ASK_LIMIT).await?;
    if ran.ok || queued(claim).await?.is_empty() || signal.is_some() {
        return Ok(());
    }
    Err(ran.refusal("scancel"))
}

/// Whether all jobs of `claim` have left the queue before `limit` is over.
async fn left_within(claim: &Claim, limit: Duration) -> Result<bool, ToolError> {
    let is_gone = || async { Ok(queued(claim).await?.is_empty()) };
    gone_within(limit, LOOK_EVERY, is_gone).await
}
