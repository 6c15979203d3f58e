//! From a checked file to a plan.
/// stub
#[derive(Debug)]
pub struct PlanError;
/// stub
pub fn resolve() -> Result<super::Plan, PlanError> {
    Err(PlanError)
}
