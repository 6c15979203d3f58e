//! What a run leaves on disk, how it is written so that a killed run is readable, and how it is read
//! back.
//!
//! **Architecture invariant:** at every moment of a run each trial has exactly one readable source of
//! its records: the open segment until `requests.parquet` has its final name, that file from then on.
//! A trial is complete once its `trial.json` says when it ended, and only then; everything else is
//! partial, is read with what it holds, and is never mistaken for a result.
//!
//! This room reads no clock and starts nothing: instants come in through `model::clock::Clock`.

mod digest;
mod engines;
mod error;
mod file;
pub mod layout;
mod list;
mod manifest;
mod pack;
mod read;
mod results;
mod seal;
mod segment;
mod table;
mod telemetry;
mod trial;
mod version;
mod write;

pub use error::RecordError;
pub use file::write_atomically;
pub use list::{RunSummary, list_runs};
pub use manifest::{ExperimentRef, HostInfo, Manifest, RunStatus, Session, sha256};
pub use pack::{pack, unpack};
pub use read::{RunReader, Take, TrialReader, TrialRecords};
pub use results::{
    read_doctor, read_fingerprint, read_floor, read_results, write_doctor, write_fingerprint,
    write_floor, write_results,
};
pub use trial::{PhaseSpan, TrialInfo, TrialState};
pub use version::StoreFormat;
pub use write::{NewRun, RunWriter, TrialWriter};
