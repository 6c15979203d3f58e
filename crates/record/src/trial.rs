//! The state file of a trial.
//!
//! It is written when the trial begins, and again when it has ended and all its records are on disk.
//! From the second writing on the trial is complete; turning the segment into Parquet is a change of
//! form that can be done, or done again, at any later time.

use crate::error::RecordError;
use crate::file;
use crate::layout;
use scalebeam_model::analysis::TrialFacts;
use scalebeam_model::engine_metrics::EngineReadings;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// When a phase began and ended, on the run's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSpan {
    /// When the driver was started.
    pub started_at: Nanos,
    /// When its last request had ended.
    pub ended_at: Nanos,
}

impl PhaseSpan {
    /// How long it took.
    pub const fn wall(&self) -> Nanos {
        self.ended_at.since(self.started_at)
    }
}

/// What is known of a trial besides its records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialInfo {
    /// The warm-up, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<PhaseSpan>,
    /// The measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<PhaseSpan>,
    /// CPU time of the load generator over wall time of the measurement, in cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cpu_cores: Option<f64>,
    /// The busiest of its load threads: CPU time over wall time, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busiest_worker_cpu: Option<f64>,
    /// The part of all cores of the machine that was in use during the measurement, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_cpu: Option<f64>,
    /// Requests that the engines put back in their queues between the begin and the end of the trial's
    /// measurement, by their own count. Also among [`TrialInfo::engines`], where that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptions: Option<u64>,
    /// What the engines said of themselves meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engines: Option<EngineReadings>,
    /// When it was ended because its queue grew without end, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oversaturated_at: Option<Nanos>,
    /// Why the prefix cache was not emptied before the measurement, where it was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_not_reset: Option<String>,
    /// Which bring-up of its deployment it was measured on, from 1. Earlier versions brought one up once a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bring_up: Option<u32>,
    /// Load generators that shared the schedule.
    pub shards: u16,
    /// What a reader should know, as how prompts were sized.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl TrialInfo {
    /// What analysis wants of it.
    pub(crate) fn facts(&self) -> TrialFacts {
        TrialFacts {
            busiest_worker_cpu: self.busiest_worker_cpu,
            machine_cpu: self.machine_cpu,
            preemptions: self.preemptions,
            engines: self.engines.clone(),
            oversaturated_at: self.oversaturated_at,
            cache_not_reset: self.cache_not_reset.clone(),
            telemetry: None,
            bring_up: self.bring_up,
            run: 0,
        }
    }
}

/// What the trial's own state file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialFile {
    /// `deployment/load/level`.
    pub(crate) point: String,
    /// From 1.
    pub(crate) trial: u32,
    /// Position in [`crate::Manifest::sessions`] of the process that measured it.
    pub(crate) session: u32,
    /// When it was begun.
    pub(crate) begun_at: Nanos,
    /// Which bring-up of its deployment it was begun on, from 1: a trial that was cut short has nothing else that says
    /// so. Earlier versions wrote it at the end only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bring_up: Option<u32>,
    /// Written when the trial has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
}

/// The second half of a trial's state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Records that the trial has; a reader that finds another number calls the file damaged.
    pub(crate) records: u64,
    /// Everything else.
    pub(crate) info: TrialInfo,
}

/// Whether a trial can be used as a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialState {
    /// It ran to its end and every record is there.
    Complete,
    /// It was begun and not ended: killed, interrupted, or still running.
    Partial,
}

impl TrialFile {
    pub(crate) fn read(dir: &Path) -> Result<Self, RecordError> {
        file::read_json(&dir.join(layout::TRIAL))
    }

    /// Why it is not the state of trial `number` of `point`, where it is not.
    pub(crate) fn is_another_than(&self, point: &str, number: u32) -> Option<String> {
        let is_it = self.point == point && self.trial == number;
        (!is_it).then(|| {
            format!(
                "it is of trial {} of {}, and lies where trial {number} of {point} does",
                self.trial, self.point
            )
        })
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        file::write_json(&dir.join(layout::TRIAL), self)
    }

    /// The state of the trial in `dir`. A directory without a state file was made and nothing more; one
    /// whose state file cannot be read says nothing that could be relied on.
    pub(crate) fn state(dir: &Path) -> Result<(TrialState, Option<Self>), RecordError> {
        let file = Self::found(dir)?.and_then(Result::ok);
        Ok((Self::state_of(file.as_ref()), file))
    }

    /// What is said by a state file that may not be there.
    pub(crate) fn state_of(file: Option<&Self>) -> TrialState {
        match file.is_some_and(|file| file.ended.is_some()) {
            true => TrialState::Complete,
            false => TrialState::Partial,
        }
    }

    /// The state file of the trial in `dir`, or why it says nothing; absent where there is none.
    pub(crate) fn found(dir: &Path) -> Result<Option<Result<Self, String>>, RecordError> {
        if !dir.join(layout::TRIAL).exists() {
            return Ok(None);
        }
        match Self::read(dir) {
            Ok(file) => Ok(Some(Ok(file))),
            Err(RecordError::Json { source, .. }) => Ok(Some(Err(source.to_string()))),
            Err(error) => Err(error),
        }
    }
}
