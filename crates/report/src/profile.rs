//! Files in the form of the seeds, so that what read those still works.
//!
//! The columns are theirs, the definitions are ours; each profile's `NOTES.md` says where they differ.

mod seed1;
mod seed2;
mod seed3;
mod seed4;
mod seed5;
#[cfg(test)]
mod testing;

use crate::error::ReportError;
use crate::spec::{Profile, ReportInput};
use scalebeam_model::plan::{Plan, PointPlan};
use scalebeam_model::results::PointResult;

/// Files by name, relative to the report's directory.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// The files that the asked profile adds.
pub(crate) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    match input.profile {
        None => Ok(Vec::new()),
        Some(Profile::Seed1) => seed1::files(input),
        Some(Profile::Seed2) => seed2::files(input),
        Some(Profile::Seed3) => seed3::files(input),
        Some(Profile::Seed4) => seed4::files(input),
        Some(Profile::Seed5) => seed5::files(input),
    }
}

fn json(value: &serde_json::Value) -> Result<Vec<u8>, ReportError> {
    let text = serde_json::to_vec_pretty(value);
    text.map_err(|e| ReportError::Encode { format: "JSON", why: e.to_string() })
}

/// A number, or null where there is none.
fn number(value: Option<f64>) -> serde_json::Value {
    value.and_then(serde_json::Number::from_f64).map_or(serde_json::Value::Null, Into::into)
}

/// A cell of a table, empty where there is no number.
fn cell(value: Option<f64>) -> String {
    value.map(|n| n.to_string()).unwrap_or_default()
}

fn cells(values: &[Option<f64>]) -> Vec<String> {
    values.iter().map(|value| cell(*value)).collect()
}

fn concurrency_of(point: &PointResult) -> String {
    point.concurrency.map(|n| n.to_string()).unwrap_or_default()
}

/// What was planned of a point that is no probe of a search.
fn plan_of<'a>(point: &PointResult, plan: &'a Plan) -> Option<&'a PointPlan> {
    let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
    plan.points.iter().find(|p| p.id == id)
}
