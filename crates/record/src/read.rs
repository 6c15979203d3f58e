//! Reading a run directory, at any moment of its life.
//!
//! Nothing in it is trusted: a file that was cut, edited or written by something else gives an error
//! that names it.

use crate::digest;
use crate::engines;
use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::manifest::{Manifest, sha256};
use crate::seal::FORMAT_KEY;
use crate::segment::SegmentReader;
use crate::table::{self, TokenRow};
use crate::telemetry;
use crate::trial::{TrialFile, TrialInfo, TrialState};
use crate::version::StoreFormat;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use scalebeam_model::analysis::{self, MeasuredPoint};
use scalebeam_model::engine_metrics::Said;
use scalebeam_model::plan::{PLAN_FORMAT, Plan, PointPlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::telemetry::Telemetry;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// A run directory, opened.
#[derive(Debug)]
pub struct RunReader {
    dir: PathBuf,
    manifest: Manifest,
    plan: Plan,
    experiment: String,
}

impl RunReader {
    /// Opens the run in `dir`.
    ///
    /// # Errors
    /// When it is no run, is of a version that cannot be read, or one of its files is damaged.
    pub fn open(dir: &Path) -> Result<Self, RecordError> {
        let manifest = Manifest::read(dir)?;
        let plan = read_plan(&dir.join(layout::PLAN))?;
        let path = dir.join(layout::EXPERIMENT);
        let experiment = std::fs::read_to_string(&path).map_err(RecordError::io("read", &path))?;
        Ok(Self { dir: dir.to_owned(), manifest, plan, experiment })
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the run says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The plan, as executed.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The experiment file, as given.
    pub fn experiment(&self) -> &str {
        &self.experiment
    }

    /// Whether the experiment file is still the one that was run.
    pub fn is_experiment_intact(&self) -> bool {
        sha256(self.experiment.as_bytes()) == self.manifest.experiment.sha256
    }

    /// Whether some process is writing the run now.
    pub fn is_being_written(&self) -> bool {
        let Ok(lock) = File::open(self.dir.join(layout::LOCK)) else { return false };
        matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// Trials of a point that were begun, in order. Those that were set aside by a resume are not here.
    ///
    /// # Errors
    /// When a state file is damaged.
    pub fn trials(&self, point: &PointPlan) -> Result<Vec<TrialReader>, RecordError> {
        let level = &point.level.label;
        let numbers = point.trials.iter().map(|t| t.number);
        numbers
            .map(|n| (n, layout::trial_dir(&self.dir, &point.deployment, &point.load, level, n)))
            .filter(|(_, dir)| dir.is_dir())
            .map(|(n, dir)| TrialReader::open_as(&dir, &point.id, n))
            .collect()
    }

    /// The measured requests of every point, as analysis takes them. Points of which no trial was begun
    /// have none; a trial that was cut short is marked so.
    ///
    /// # Errors
    /// When a file is damaged.
    pub fn measured_points(&self) -> Result<Vec<MeasuredPoint<'_>>, RecordError> {
        let points = self.plan.every_point();
        points.map(|plan| Ok(MeasuredPoint { plan, trials: self.measured_trials(plan)? })).collect()
    }

    /// The same of one point's trials.
    ///
    /// # Errors
    /// When a file is damaged.
    pub fn measured_trials(
        &self,
        point: &PointPlan,
    ) -> Result<Vec<analysis::TrialRecords>, RecordError> {
        let mut trials = Vec::new();
        for trial in &point.trials {
            trials.extend(self.measured(point, trial.number)?);
        }
        Ok(trials)
    }

    fn measured(
        &self,
        point: &PointPlan,
        number: u32,
    ) -> Result<Option<analysis::TrialRecords>, RecordError> {
        let level = &point.level.label;
        let dir = layout::trial_dir(&self.dir, &point.deployment, &point.load, level, number);
        if !dir.is_dir() {
            return Ok(None);
        }
        let trial = TrialReader::open_as(&dir, &point.id, number)?;
        let mut facts = trial.info().map(TrialInfo::facts).unwrap_or_default();
        facts.telemetry = telemetry::read_or_why(&dir)?;
        facts.bring_up = trial.bring_up();
        let read = match trial.records() {
            Ok(read) => read,
            // One damaged file must not cost the points that are whole.
            Err(error @ RecordError::Damaged { .. }) => {
                let damaged = Some(error.to_string());
                let records = Vec::new();
                return Ok(Some(analysis::TrialRecords {
                    number,
                    records,
                    partial: false,
                    damaged,
                    facts,
                }));
            }
            Err(error) => return Err(error),
        };
        let mut records = read.records;
        records.retain(|r| r.phase == Phase::Measure);
        let partial = read.state == TrialState::Partial;
        Ok(Some(analysis::TrialRecords { number, records, partial, damaged: None, facts }))
    }

    /// Whether every trial of the planned points is complete, searches apart.
    ///
    /// # Errors
    /// When a state file is damaged.
    pub fn is_complete(&self) -> Result<bool, RecordError> {
        for point in &self.plan.points {
            let trials = self.trials(point)?;
            let complete = trials.iter().filter(|t| t.state() == TrialState::Complete).count();
            if complete < point.trials.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn read_plan(path: &Path) -> Result<Plan, RecordError> {
    let format: u32 = file::read_format(path)?;
    if format > PLAN_FORMAT {
        let why = format!("it has plan format {format} and this scalebeam reads {PLAN_FORMAT}");
        return Err(RecordError::damaged(path, why));
    }
    file::read_json(path)
}

/// One trial, as far as it got.
#[derive(Debug)]
pub struct TrialReader {
    dir: PathBuf,
    state: TrialState,
    file: Option<TrialFile>,
    /// Why its state file says nothing, where it is there.
    unreadable: Option<String>,
}

/// Records of a trial and what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialRecords {
    /// The records, in the order in which their requests ended.
    pub records: Vec<RequestRecord>,
    /// Records that were cut off when the writer was killed: 0 or 1.
    pub torn: u64,
    /// Whether they are all there.
    pub state: TrialState,
    /// When its phases were; absent for a partial trial.
    pub info: Option<TrialInfo>,
}

impl TrialReader {
    /// Opens the trial in `dir`. One whose state file cannot be read is partial, and its records are an error: it must
    /// not cost those that are whole.
    ///
    /// # Errors
    /// When the system refuses to read the state file.
    pub fn open(dir: &Path) -> Result<Self, RecordError> {
        let (file, unreadable) = match TrialFile::found(dir)? {
            Some(Ok(file)) => (Some(file), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        Ok(Self {
            dir: dir.to_owned(),
            state: TrialFile::state_of(file.as_ref()),
            file,
            unreadable,
        })
    }

    /// Opens the trial in `dir` as what lies there: one that says of itself that it is another is an error when its
    /// records are read, and no result.
    ///
    /// # Errors
    /// When the system refuses to read the state file.
    pub fn open_as(dir: &Path, point: &str, number: u32) -> Result<Self, RecordError> {
        let read = Self::open(dir)?;
        match read.file.as_ref().and_then(|file| file.is_another_than(point, number)) {
            Some(why) => {
                Ok(Self { state: TrialState::Partial, file: None, unreadable: Some(why), ..read })
            }
            None => Ok(read),
        }
    }

    /// Its directory, where telemetry and logs of the trial lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it can be used as a result.
    pub fn state(&self) -> TrialState {
        self.state
    }

    /// Its number, from 1; absent where it was killed before it could say so.
    pub fn number(&self) -> Option<u32> {
        self.file.as_ref().map(|f| f.trial)
    }

    /// Position in [`Manifest::sessions`] of the process that measured it.
    pub fn session(&self) -> Option<u32> {
        self.file.as_ref().map(|f| f.session)
    }

    /// Which bring-up of its deployment it was begun on, from 1. Absent where it was killed before it could say so.
    pub fn bring_up(&self) -> Option<u32> {
        let at_the_end = || self.info().and_then(|info| info.bring_up);
        // Before it was written at all, each session brought a deployment up once.
        let by_session = || self.session()?.checked_add(1);
        self.file.as_ref()?.bring_up.or_else(at_the_end).or_else(by_session)
    }

    /// When its phases were; absent for a partial trial.
    pub fn info(&self) -> Option<&TrialInfo> {
        self.file.as_ref()?.ended.as_ref().map(|e| &e.info)
    }

    /// What the engines said at each look at them while it was measured; empty where nobody looked.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn engine_looks(&self) -> Result<Vec<Vec<Said>>, RecordError> {
        engines::read(&self.dir)
    }

    /// What was read of machines meanwhile; nothing where they were not watched.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn telemetry(&self) -> Result<Option<Telemetry>, RecordError> {
        telemetry::read(&self.dir)
    }

    /// Reads its records, from wherever they are.
    ///
    /// # Errors
    /// When a file is damaged, or a complete trial has not the records that it said it had.
    pub fn records(&self) -> Result<TrialRecords, RecordError> {
        let mut records = Vec::new();
        let torn = self.each(&mut |record| {
            records.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(TrialRecords { records, torn, state: self.state, info: self.info().cloned() })
    }

    /// Hands over its records one by one, so that any number of them take the memory of a few thousand, and
    /// says how many were cut off. Who breaks off gets no more of them.
    ///
    /// # Errors
    /// When a file is damaged, or a complete trial has not the records that it said it had. Records before
    /// the damage have been handed over by then.
    pub fn each(&self, take: &mut Take<'_>) -> Result<u64, RecordError> {
        if let Some(why) = &self.unreadable {
            return Err(RecordError::damaged(&self.dir.join(layout::TRIAL), why));
        }
        let requests = self.dir.join(layout::REQUESTS);
        let segment = self.dir.join(layout::SEGMENT);
        let (mut taken, mut is_left) = (0, false);
        let mut count = |record| {
            taken += 1;
            let flow = take(record);
            is_left = flow.is_break();
            flow
        };
        let (torn, source) = if requests.exists() {
            digest::verify(&self.dir)?;
            let why = format!("it, or {} beside it, has impossible metadata", layout::TOKENS);
            let tokens = self.dir.join(layout::TOKENS);
            guarded(&requests, &why, || read_tables(&requests, &tokens, &mut count))?;
            (0, requests)
        } else if segment.exists() {
            (read_segment(&segment, &mut count)?, segment)
        } else {
            (0, segment)
        };
        let expected = self.file.as_ref().and_then(|f| f.ended.as_ref()).map(|e| e.records);
        match expected {
            Some(made) if made != taken && !is_left => {
                let why = format!("it holds {taken} records where the trial made {made}");
                Err(RecordError::damaged(&source, why))
            }
            _ => Ok(torn),
        }
    }
}

/// Takes a record, and says whether it wants more.
pub type Take<'a> = dyn FnMut(RequestRecord) -> ControlFlow<()> + 'a;

fn read_segment(path: &Path, take: &mut Take<'_>) -> Result<u64, RecordError> {
    let mut reader = SegmentReader::open(path)?;
    while let Some(record) = reader.next_record()? {
        if take(record).is_break() {
            break;
        }
    }
    Ok(reader.torn())
}

/// The Parquet reader asserts some properties of a file's metadata instead of checking them, so a
/// damaged file can make it panic; here, at the border, that becomes an error like any other: of `path`,
/// with `why`.
pub(crate) fn guarded<T>(
    path: &Path,
    why: &str,
    read: impl FnOnce() -> Result<T, RecordError>,
) -> Result<T, RecordError> {
    // What a panic leaves behind is never looked at: the error ends the reading.
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(RecordError::damaged(path, why)))
}

fn read_tables(requests: &Path, tokens: &Path, take: &mut Take<'_>) -> Result<(), RecordError> {
    let mut arrivals = Tokens::open(tokens)?;
    let failed = RecordError::parquet("read", requests);
    for batch in open_parquet(requests)?.1 {
        let batch = batch.map_err(|e| failed(e.into()))?;
        for (mut record, count) in table::read_requests(requests, &batch)? {
            let mut before = record.scheduled_at;
            for _ in 0..count {
                let arrival = arrivals.next_of(record.index)?.after(before);
                before = arrival.at;
                record.arrivals.push(arrival);
            }
            if take(record).is_break() {
                return Ok(());
            }
        }
    }
    arrivals.must_be_at_end()
}

/// Notes in a file's metadata, by key.
pub(crate) type Notes = BTreeMap<String, String>;

pub(crate) fn open_parquet(path: &Path) -> Result<(Notes, ParquetRecordBatchReader), RecordError> {
    let file = File::open(path).map_err(RecordError::io("open", path))?;
    let failed = RecordError::parquet("read", path);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(&failed)?;
    let notes = builder.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let notes: Notes = notes.filter_map(|n| Some((n.key.clone(), n.value.clone()?))).collect();
    check_format(path, notes.get(FORMAT_KEY).map(String::as_str))?;
    Ok((notes, builder.with_batch_size(8192).build().map_err(failed)?))
}

fn check_format(path: &Path, text: Option<&str>) -> Result<(), RecordError> {
    let parsed = text.and_then(|t| t.split_once('.')).and_then(|(major, minor)| {
        Some(StoreFormat { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    let Some(format) = parsed else {
        return Err(RecordError::damaged(path, "it does not say its format version"));
    };
    format.check_readable().map_err(|source| RecordError::Version { path: path.to_owned(), source })
}

/// Rows of `tokens.parquet`, one after the other.
struct Tokens<'a> {
    path: &'a Path,
    batches: ParquetRecordBatchReader,
    rows: VecDeque<TokenRow>,
}

impl<'a> Tokens<'a> {
    fn open(path: &'a Path) -> Result<Self, RecordError> {
        Ok(Self { path, batches: open_parquet(path)?.1, rows: VecDeque::new() })
    }

    fn next(&mut self) -> Result<Option<TokenRow>, RecordError> {
        while self.rows.is_empty() {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(|e| RecordError::parquet("read", self.path)(e.into()))?;
            self.rows = table::read_tokens(self.path, &batch)?.into();
        }
        Ok(self.rows.pop_front())
    }

    fn next_of(&mut self, index: u64) -> Result<TokenRow, RecordError> {
        match self.next()? {
            Some(row) if row.index == index => Ok(row),
            Some(row) => {
                let why = format!("it has arrivals of request {} where {index} is due", row.index);
                Err(RecordError::damaged(self.path, why))
            }
            None => Err(RecordError::damaged(self.path, "it has fewer arrivals than the requests")),
        }
    }

    fn must_be_at_end(&mut self) -> Result<(), RecordError> {
        match self.next()? {
            None => Ok(()),
            Some(_) => {
                Err(RecordError::damaged(self.path, "it has more arrivals than the requests"))
            }
        }
    }
}
