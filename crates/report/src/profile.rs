//! Files in the form of the seeds, so that what read those still works.
//!
//! The columns are theirs, the definitions are ours; each profile's `NOTES.md` says where they differ.

mod seed1;
mod seed4;

use crate::error::ReportError;
use crate::spec::{Profile, ReportInput};

/// Files by name, relative to the report's directory.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// The files that the asked profile adds.
pub(crate) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    match input.profile {
        None => Ok(Vec::new()),
        Some(Profile::Seed1) => seed1::files(input),
        Some(Profile::Seed4) => seed4::files(input),
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
