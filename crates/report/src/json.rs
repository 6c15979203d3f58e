//! `results.json`: the results as they are, for programs.

use crate::error::ReportError;
use scalebeam_model::results::Results;

/// Writes the results as JSON.
///
/// # Errors
/// When a value has no form in JSON.
pub fn results_json(results: &Results) -> Result<String, ReportError> {
    let text = serde_json::to_string_pretty(results);
    let text = text.map_err(|e| ReportError::Encode { format: "JSON", why: e.to_string() })?;
    Ok(text + "\n")
}
