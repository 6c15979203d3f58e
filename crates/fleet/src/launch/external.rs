//! Somebody else's deployment: nothing is started, nothing is stopped, the same gates apply.

use crate::error::FleetError;
use scalebeam_model::plan::DeploymentPlan;

/// Whether `plan` can be attached to.
pub(super) fn check(plan: &DeploymentPlan) -> Result<(), FleetError> {
    let refuse = |reason: &str| FleetError::Unsupported {
        deployment: plan.name.clone(),
        reason: reason.into(),
    };
    if !plan.processes.is_empty() {
        return Err(refuse("platform external starts no processes, yet its plan has some"));
    }
    if plan.entries.is_empty() {
        return Err(refuse("platform external needs an `endpoint`"));
    }
    Ok(())
}
