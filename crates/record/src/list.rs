//! The runs below a directory.

use crate::error::RecordError;
use crate::layout;
use crate::manifest::{Manifest, RunStatus};
use std::path::{Path, PathBuf};

/// A run, as far as its manifest tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Its directory.
    pub dir: PathBuf,
    /// Run id.
    pub run: String,
    /// Experiment name.
    pub name: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was made.
    pub created_unix_ns: u64,
}

/// The readable runs below `root`, oldest first. Directories that are no runs are passed over, and so
/// are runs of versions that this one cannot read.
///
/// # Errors
/// When `root` cannot be listed; a `root` that does not exist holds no runs.
pub fn list_runs(root: &Path) -> Result<Vec<RunSummary>, RecordError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(root).map_err(RecordError::io("list", root))? {
        let dir = entry.map_err(RecordError::io("list", root))?.path();
        if !dir.join(layout::MANIFEST).is_file() {
            continue;
        }
        if let Ok(manifest) = Manifest::read(&dir) {
            runs.push(RunSummary {
                dir,
                run: manifest.run,
                name: manifest.experiment.name,
                status: manifest.status,
                created_unix_ns: manifest.created_unix_ns,
            });
        }
    }
    runs.sort_by(|a, b| (a.created_unix_ns, &a.run).cmp(&(b.created_unix_ns, &b.run)));
    Ok(runs)
}
