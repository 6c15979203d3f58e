//! The doctor on machines that a platform gave a deployment, before anything is started on them.
//!
//! **Invariants.** What it says is told before it is acted on. Processes are held back until it has looked, and a
//! finding that stops ends the deployment with none of them started.

use super::Context;
use super::managed::Held;
use crate::doctor::{self, Place};
use crate::error::FleetError;
use scalebeam_model::doctor::{DoctorReport, Severity};
use scalebeam_model::plan::DeploymentPlan;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why what was found could not be kept.
pub type NotKept = Box<dyn Error + Send + Sync>;

type Take = dyn Fn(&DoctorReport) -> Result<(), NotKept> + Send + Sync;

/// Takes what the doctor says of the machines that a deployment was given.
#[derive(Clone)]
pub struct OnNodes(Arc<Take>);

impl OnNodes {
    /// What `take` does with a report. One that cannot be kept ends the deployment.
    pub fn new(
        take: impl Fn(&DoctorReport) -> Result<(), NotKept> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for OnNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnNodes")
    }
}

/// Looks at the machines of `held`, where somebody wants to know and its processes are held back, and lets these start.
///
/// # Errors
/// When a check failed that stops it, it ended, the caller cancels, or the platform cannot be asked.
pub(super) async fn look_and_release(
    held: &Held,
    plan: &DeploymentPlan,
    ctx: &Context,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(), FleetError> {
    let Some(take) = ctx.on_nodes.as_ref().filter(|_| held.can_wait()) else { return Ok(()) };
    say("looking at its nodes".to_owned());
    let report = tokio::select! {
        biased;
        () = ctx.cancelled() => {
            return Err(FleetError::Cancelled { deployment: plan.name.clone() });
        }
        end = held.ended() => return Err(end),
        report = look(held, plan, ctx) => report?,
    };
    (take.0)(&report)
        .map_err(|source| FleetError::FindingsNotKept { deployment: plan.name.clone(), source })?;
    let stops: Vec<_> = report.failed(Severity::Stops).cloned().collect();
    if !stops.is_empty() {
        return Err(FleetError::NodesUnfit { deployment: plan.name.clone(), findings: stops });
    }
    held.release().await
}

async fn look(
    held: &Held,
    plan: &DeploymentPlan,
    ctx: &Context,
) -> Result<DoctorReport, FleetError> {
    let granted = held.granted().await?;
    let place = |node: &super::managed::Node| {
        let (name, addr) = (node.name.clone(), node.addr.clone());
        Some(Place { shell: held.shell(&name)?, name, addr })
    };
    let places: Vec<Place> = granted.nodes.iter().filter_map(place).collect();
    let report =
        doctor::examine_granted(&ctx.plan, plan, &places, granted.env, &ctx.cache_dir, &ctx.clock);
    Ok(report.await)
}
