//! Why a run directory could not be written or read. Every variant names the file.

use crate::version::VersionError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A JSON file could not be read as what it should hold.
    #[error("{} is damaged or not a file of a run", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A Parquet file could not be written or read.
    #[error("cannot {action} {}", path.display())]
    Parquet {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<parquet::errors::ParquetError>,
    },
    /// A file can be parsed but contradicts itself or a neighbour.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The run was written by another version.
    #[error("cannot read {}", path.display())]
    Version {
        /// The file that states the version.
        path: PathBuf,
        /// What can read it.
        #[source]
        source: VersionError,
    },
    /// The directory is no run directory.
    #[error("{} is not a run directory: it has no {}", path.display(), crate::layout::MANIFEST)]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// Another process is writing the run.
    #[error("{} is being written by another scalebeam; wait for it or stop it first", path.display())]
    InUse {
        /// The run directory.
        path: PathBuf,
    },
    /// The experiment was edited after the run began, so the two halves would not be comparable.
    #[error(
        "{} has changed since the run began (sha256 {found}, expected {expected}); start a new run instead",
        path.display()
    )]
    ExperimentChanged {
        /// The experiment file in the run directory.
        path: PathBuf,
        /// Hash in the manifest.
        expected: String,
        /// Hash of the file.
        found: String,
    },
    /// The plan has no such point or trial.
    #[error("the plan has no trial {trial} of point '{point}'")]
    UnknownTrial {
        /// Point id.
        point: String,
        /// Trial number.
        trial: u32,
    },
    /// The trial was measured already.
    #[error("{} is complete already; it is never overwritten", path.display())]
    AlreadySealed {
        /// Trial directory.
        path: PathBuf,
    },
}

impl RecordError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }

    pub(crate) fn parquet(
        action: &'static str,
        path: &Path,
    ) -> impl Fn(parquet::errors::ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet { action, path: path.clone(), source: Box::new(source) }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }
}
