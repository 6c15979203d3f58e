//! The manifest: what a run directory says of itself.
//!
//! It is replaced whole, so it is readable at any moment. A run whose process was killed still says
//! `running`; whether anybody still writes it is told by the lock, not by the manifest.

use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::version::StoreFormat;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Being written, or killed while it was.
    Running,
    /// Every planned trial was measured or is known to be skipped.
    Complete,
    /// Stopped by its user; can be resumed.
    Interrupted,
    /// Ended by an error.
    Failed,
}

/// The experiment file of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentRef {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// One process that wrote the run: the first, and one for each resume.
///
/// Instants of different sessions are not comparable (the machine may have been started anew between
/// them), so every trial names its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Version of scalebeam.
    pub tool: String,
    /// Nanoseconds since the Unix epoch ...
    pub unix_ns: u64,
    /// ... at this instant of the monotonic clock.
    pub mono_ns: u64,
}

/// A machine that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Name in the experiment; `client` for the machine that sends the load.
    pub name: String,
    /// What is known of it: kernel, CPU, memory, GPUs, clock offset.
    #[serde(default)]
    pub facts: std::collections::BTreeMap<String, String>,
}

/// What a run directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of the directory.
    pub format: StoreFormat,
    /// Version of scalebeam that began it.
    pub tool: String,
    /// Run id: the name of the directory when it was made.
    pub run: String,
    /// The experiment.
    pub experiment: ExperimentRef,
    /// When it was made.
    pub created_unix_ns: u64,
    /// Who wrote it, with pairs of wall and monotonic time.
    pub sessions: Vec<Session>,
    /// Machines.
    pub hosts: Vec<HostInfo>,
    /// Where it stands.
    pub status: RunStatus,
    /// What is to be said about the status, as the error that ended the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Manifest {
    /// Nanoseconds since the Unix epoch of instant `mono_ns` of session `session`.
    pub fn unix_ns(&self, session: u32, mono_ns: u64) -> Option<u64> {
        let anchor = self.sessions.get(usize::try_from(session).ok()?)?;
        let unix = i128::from(anchor.unix_ns) + i128::from(mono_ns) - i128::from(anchor.mono_ns);
        u64::try_from(unix).ok()
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, RecordError> {
        let path = dir.join(layout::MANIFEST);
        if !path.exists() {
            return Err(RecordError::NotARun { path: dir.to_owned() });
        }
        let format: StoreFormat = file::read_format(&path)?;
        format
            .check_readable()
            .map_err(|source| RecordError::Version { path: path.clone(), source })?;
        file::read_json(&path)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        file::write_json(&dir.join(layout::MANIFEST), self)
    }
}

/// SHA-256 of `bytes`, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
