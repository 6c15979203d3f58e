//! D50 to D56: what only a running deployment can tell.

use super::{Verdict, skip};
use crate::doctor::seen::Seen;
use scalebeam_model::plan::DeploymentPlan;

/// Checks of entries, tokens and caches are passed by gates and warm-ups of a run.
pub(super) fn running(_: &Seen<'_>, _: &DeploymentPlan) -> Verdict {
    skip("needs a running deployment; run asks it before it measures")
}
