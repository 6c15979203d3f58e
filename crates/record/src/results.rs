//! `results.json`: computed from the records, so it can be deleted and made again.

use crate::error::RecordError;
use crate::file;
use crate::layout;
use scalebeam_model::results::{RESULTS_FORMAT, Results};
use std::path::{Path, PathBuf};

/// Writes `results.json` of the run in `dir` and says where it is.
///
/// # Errors
/// When it cannot be written.
pub fn write_results(dir: &Path, results: &Results) -> Result<PathBuf, RecordError> {
    let path = dir.join(layout::RESULTS);
    file::write_json(&path, results)?;
    Ok(path)
}

/// Reads `results.json` of the run in `dir`.
///
/// # Errors
/// When there is none, or it is damaged or of another version; it can then be made again from the
/// records with `scalebeam report`.
pub fn read_results(dir: &Path) -> Result<Results, RecordError> {
    let path = dir.join(layout::RESULTS);
    let format: u32 = file::read_format(&path)?;
    if format != RESULTS_FORMAT {
        let why = format!(
            "it has format {format} and this scalebeam reads {RESULTS_FORMAT}; \
             `scalebeam report` makes it again from the records"
        );
        return Err(RecordError::damaged(&path, why));
    }
    file::read_json(&path)
}
