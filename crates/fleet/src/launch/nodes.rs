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

/// Takes what the doctor says of the machines that a deployment was given.
#[derive(Clone)]
pub struct OnNodes(Arc<dyn Fn(&DoctorReport) -> Result<(), NotKept> + Send + Sync>);

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

/// Looks at the machines of `held`, where somebody wants to know, and lets its processes start.
///
/// # Errors
/// When a check failed that stops it, it ended, the caller cancels, or the platform cannot be asked.
pub(super) async fn look_and_release(
    held: &Held,
    plan: &DeploymentPlan,
    ctx: &Context,
) -> Result<(), FleetError> {
    let Some(take) = &ctx.on_nodes else { return Ok(()) };
    let report = tokio::select! {
        biased;
        () = ctx.cancelled() => {
            return Err(FleetError::Cancelled { deployment: plan.name.clone() });
        }
        end = held.ended() => return Err(end),
        report = look(held, plan, ctx) => report?,
    };
    let Some(report) = report else { return Ok(()) };
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
) -> Result<Option<DoctorReport>, FleetError> {
    let Some(granted) = held.granted().await? else { return Ok(None) };
    let place = |node: &super::managed::Node| {
        let (name, addr) = (node.name.clone(), node.addr.clone());
        Some(Place { shell: held.shell(&name)?, name, addr })
    };
    let places: Vec<Place> = granted.nodes.iter().filter_map(place).collect();
    let report =
        doctor::examine_granted(&ctx.plan, plan, &places, granted.env, &ctx.cache_dir, &ctx.clock);
    Ok(Some(report.await))
}
