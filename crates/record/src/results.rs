//! `results.json`: computed from the records, so it can be deleted and made again; and `floor.json`,
//! `doctor.json` and `fingerprint.json`, which were found beside them and cannot.

use crate::error::RecordError;
use crate::file;
use crate::layout;
use scalebeam_model::doctor::DoctorReport;
use scalebeam_model::fingerprint::Fingerprint;
use scalebeam_model::floor::Floor;
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

/// Keeps what the instrument was worth before the run in `dir`.
///
/// # Errors
/// When it cannot be written.
pub fn write_floor(dir: &Path, floor: &Floor) -> Result<(), RecordError> {
    file::write_json(&dir.join(layout::FLOOR), floor)
}

/// Keeps what the preflight of the run in `dir` found.
///
/// # Errors
/// When it cannot be written.
pub fn write_doctor(dir: &Path, report: &DoctorReport) -> Result<(), RecordError> {
    file::write_json(&dir.join(layout::DOCTOR), report)
}

/// What the preflight of the run in `dir` found; absent where there was none.
///
/// # Errors
/// When the file is damaged.
pub fn read_doctor(dir: &Path) -> Result<Option<DoctorReport>, RecordError> {
    let path = dir.join(layout::DOCTOR);
    if path.exists() { file::read_json(&path).map(Some) } else { Ok(None) }
}

/// Keeps what really ran in the run in `dir`.
///
/// # Errors
/// When it cannot be written.
pub fn write_fingerprint(dir: &Path, fingerprint: &Fingerprint) -> Result<(), RecordError> {
    file::write_json(&dir.join(layout::FINGERPRINT), fingerprint)
}

/// What really ran in the run in `dir`; nothing where nothing came up yet.
///
/// # Errors
/// When the file is damaged.
pub fn read_fingerprint(dir: &Path) -> Result<Fingerprint, RecordError> {
    let path = dir.join(layout::FINGERPRINT);
    if path.exists() { file::read_json(&path) } else { Ok(Fingerprint::default()) }
}

/// What the instrument was worth before the run in `dir`; absent where it was not measured.
///
/// # Errors
/// When the file is damaged.
pub fn read_floor(dir: &Path) -> Result<Option<Floor>, RecordError> {
    let path = dir.join(layout::FLOOR);
    if path.exists() { file::read_json(&path).map(Some) } else { Ok(None) }
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
