//! Digests of a sealed trial's tables.
//!
//! A flipped bit inside a Parquet page can decode to other numbers without a word. What was sealed is
//! therefore remembered by its SHA-256, written before the tables get their names, and every reader
//! looks before it believes.

use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::manifest::sha256;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Debug, Serialize, Deserialize)]
struct Digests {
    requests_sha256: String,
    tokens_sha256: String,
    /// Absent where the machines were not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    telemetry_sha256: Option<String>,
    /// Absent where the engines were not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engines_sha256: Option<String>,
}

fn of(path: &Path) -> Result<String, RecordError> {
    Ok(sha256(&std::fs::read(path).map_err(RecordError::io("read", path))?))
}

/// Remembers the tables that lie in `dir` under their temporary names.
pub(crate) fn remember(dir: &Path) -> Result<(), RecordError> {
    let of_any = |name| {
        let path = dir.join(name);
        path.exists().then(|| of(&path)).transpose()
    };
    let digests = Digests {
        telemetry_sha256: of_any(layout::TELEMETRY)?,
        engines_sha256: of_any(layout::ENGINES)?,
        requests_sha256: of(&file::temporary(&dir.join(layout::REQUESTS)))?,
        tokens_sha256: of(&file::temporary(&dir.join(layout::TOKENS)))?,
    };
    file::write_json(&dir.join(layout::DIGESTS), &digests)
}

/// Whether the sealed tables in `dir` are the ones that were sealed.
///
/// # Errors
/// Names the table that is not.
pub(crate) fn verify(dir: &Path) -> Result<(), RecordError> {
    let digests = read(dir)?;
    for (name, sealed) in
        [(layout::REQUESTS, digests.requests_sha256), (layout::TOKENS, digests.tokens_sha256)]
    {
        compare(&dir.join(name), &sealed)?;
    }
    Ok(())
}

/// Whether the readings in `dir` are the ones that were sealed.
///
/// # Errors
/// When they are not, or nothing vouches for them.
pub(crate) fn verify_telemetry(dir: &Path) -> Result<(), RecordError> {
    vouched(&dir.join(layout::TELEMETRY), read(dir)?.telemetry_sha256)
}

/// The same of what the engines said.
///
/// # Errors
/// When it is not what was sealed, or nothing vouches for it.
pub(crate) fn verify_engines(dir: &Path) -> Result<(), RecordError> {
    vouched(&dir.join(layout::ENGINES), read(dir)?.engines_sha256)
}

fn vouched(path: &Path, sealed: Option<String>) -> Result<(), RecordError> {
    match sealed {
        Some(sealed) => compare(path, &sealed),
        None => Err(RecordError::damaged(path, "it was not there when its trial was sealed")),
    }
}

fn read(dir: &Path) -> Result<Digests, RecordError> {
    let path = dir.join(layout::DIGESTS);
    if !path.exists() {
        return Err(RecordError::damaged(
            &path,
            "it is missing beside the tables that it vouches for",
        ));
    }
    file::read_json(&path)
}

fn compare(path: &Path, sealed: &str) -> Result<(), RecordError> {
    let found = of(path).map_err(|e| RecordError::damaged(path, e.to_string()))?;
    if found != sealed {
        return Err(RecordError::damaged(path, "it is not what was sealed: its SHA-256 differs"));
    }
    Ok(())
}
