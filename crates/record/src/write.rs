//! Writing a run directory: made once, then only added to.
//!
//! One process writes a run at a time; it holds a lock on [`layout::LOCK`] that ends with the process.

use crate::digest;
use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::manifest::{ExperimentRef, HostInfo, Manifest, RunStatus, Session, sha256};
use crate::read::read_plan;
use crate::seal;
use crate::segment::SegmentWriter;
use crate::trial::{Ended, TrialFile, TrialInfo, TrialState};
use crate::version::StoreFormat;
use scalebeam_model::clock::Clock;
use scalebeam_model::engine_metrics::Said;
use scalebeam_model::plan::{Plan, PointPlan, TrialPlan};
use scalebeam_model::request::RequestRecord;
use scalebeam_model::telemetry::Telemetry;
use scalebeam_model::units::Nanos;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What a new run is made of.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// Experiment name.
    pub name: &'a str,
    /// The id that somebody else knows it by already; absent where it follows from the time and the name.
    pub id: Option<&'a str>,
    /// The experiment file, as given.
    pub experiment_text: &'a str,
    /// What will be executed.
    pub plan: &'a Plan,
    /// Version of scalebeam.
    pub tool: &'a str,
    /// Machines, as far as they are known now.
    pub hosts: Vec<HostInfo>,
}

/// A run directory that this process writes.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    manifest: Manifest,
    plan: Plan,
    /// Held for its lock.
    _lock: File,
}

impl RunWriter {
    /// Makes a run directory below `root`, which is made where it does not exist. The directory is this
    /// run's alone: where the name is taken, `-2`, `-3`, .. is put behind it, or it is refused if it was given.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be written.
    pub fn create(root: &Path, clock: &dyn Clock, new: NewRun<'_>) -> Result<Self, RecordError> {
        let created = clock.unix_now();
        std::fs::create_dir_all(root).map_err(RecordError::io("create", root))?;
        let (dir, run) = match new.id {
            Some(id) => (make_as(root, id)?, id.to_owned()),
            None => make_exclusively(root, &layout::run_id(created.0, new.name))?,
        };
        let lock = lock(&dir)?;
        let text = new.experiment_text;
        file::write_atomically(&dir.join(layout::EXPERIMENT), text.as_bytes())?;
        file::write_json(&dir.join(layout::PLAN), new.plan)?;
        let manifest = Manifest {
            format: StoreFormat::CURRENT,
            tool: new.tool.to_owned(),
            run,
            experiment: ExperimentRef {
                name: new.name.to_owned(),
                sha256: sha256(text.as_bytes()),
            },
            created_unix_ns: created.0,
            sessions: vec![session(clock, new.tool)],
            hosts: new.hosts,
            status: RunStatus::Running,
            note: None,
        };
        // Last: a directory with a manifest has everything that a reader asks for.
        manifest.write(&dir)?;
        Ok(Self { dir, manifest, plan: new.plan.clone(), _lock: lock })
    }

    /// Opens a run again, to measure what is missing. Trials that had ended but were not sealed are
    /// sealed now.
    ///
    /// # Errors
    /// When another process writes the run, its experiment was edited, or a file is damaged.
    pub fn reopen(dir: &Path, clock: &dyn Clock, tool: &str) -> Result<Self, RecordError> {
        let mut manifest = Manifest::read(dir)?;
        let lock = lock(dir)?;
        let path = dir.join(layout::EXPERIMENT);
        let text = std::fs::read(&path).map_err(RecordError::io("read", &path))?;
        let (expected, found) = (manifest.experiment.sha256.clone(), sha256(&text));
        if expected != found {
            return Err(RecordError::ExperimentChanged { path, expected, found });
        }
        let plan = read_plan(&dir.join(layout::PLAN))?;
        manifest.sessions.push(session(clock, tool));
        manifest.status = RunStatus::Running;
        manifest.note = None;
        manifest.write(dir)?;
        let run = Self { dir: dir.to_owned(), manifest, plan, _lock: lock };
        run.finish_sealing()?;
        Ok(run)
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Run id.
    pub fn id(&self) -> &str {
        &self.manifest.run
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the run says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Directory of a trial, for telemetry and logs; absent where the plan has no such trial.
    pub fn trial_dir(&self, point_id: &str, trial: u32) -> Option<PathBuf> {
        let point = self.plan.every_point().find(|p| p.id == point_id)?;
        point.trials.iter().find(|t| t.number == trial)?;
        Some(self.dir_of(point, trial))
    }

    fn dir_of(&self, point: &PointPlan, trial: u32) -> PathBuf {
        layout::trial_dir(&self.dir, &point.deployment, &point.load, &point.level.label, trial)
    }

    /// Whether a trial is complete, so that a resumed run passes it over.
    ///
    /// # Errors
    /// When its state file is damaged.
    pub fn is_complete(&self, point_id: &str, trial: u32) -> Result<bool, RecordError> {
        match self.trial_dir(point_id, trial) {
            Some(dir) => is_whole(&dir, point_id, trial),
            None => Ok(false),
        }
    }

    /// What is still to be measured, in the order of the points. Of a search nothing is listed: which of its levels
    /// come next follows from those that were measured.
    ///
    /// # Errors
    /// When a state file is damaged.
    pub fn remaining(&self) -> Result<Vec<(&PointPlan, &TrialPlan)>, RecordError> {
        let mut left = Vec::new();
        for point in &self.plan.points {
            for trial in &point.trials {
                if !is_whole(&self.dir_of(point, trial.number), &point.id, trial.number)? {
                    left.push((point, trial));
                }
            }
        }
        Ok(left)
    }

    fn finish_sealing(&self) -> Result<(), RecordError> {
        for point in self.plan.every_point() {
            for trial in &point.trials {
                let dir = self.dir_of(point, trial.number);
                if let (TrialState::Complete, Some(file)) = TrialFile::state(&dir)? {
                    seal::seal(&dir, &file)?;
                }
            }
        }
        Ok(())
    }

    /// Begins a trial at `begun_at`, on the `bring_up`-th bring-up of its deployment, from 1. What an earlier attempt left is set aside as `<trial>.partial-N`.
    ///
    /// # Errors
    /// When the plan has no such trial, it is complete already, or its directory cannot be written.
    pub fn trial(
        &self,
        point_id: &str,
        trial: u32,
        begun_at: Nanos,
        bring_up: u32,
    ) -> Result<TrialWriter, RecordError> {
        let dir = self
            .trial_dir(point_id, trial)
            .ok_or_else(|| RecordError::UnknownTrial { point: point_id.to_owned(), trial })?;
        if dir.exists() {
            if is_whole(&dir, point_id, trial)? {
                return Err(RecordError::AlreadySealed { path: dir });
            }
            set_aside(&dir)?;
        }
        std::fs::create_dir_all(&dir).map_err(RecordError::io("create", &dir))?;
        let file = TrialFile {
            point: point_id.to_owned(),
            trial,
            session: self.session(),
            begun_at,
            bring_up: Some(bring_up),
            ended: None,
        };
        file.write(&dir)?;
        let segment = SegmentWriter::create(&dir.join(layout::SEGMENT))?;
        Ok(TrialWriter { dir, file, segment })
    }

    /// The session of this writer, from 0.
    pub fn session(&self) -> u32 {
        u32::try_from(self.manifest.sessions.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Replaces what is known of the machines.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn set_hosts(&mut self, hosts: Vec<HostInfo>) -> Result<(), RecordError> {
        self.manifest.hosts = hosts;
        self.manifest.write(&self.dir)
    }

    /// Writes how the run ended, and gives up the lock.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn finish(mut self, status: RunStatus, note: Option<String>) -> Result<(), RecordError> {
        self.manifest.status = status;
        self.manifest.note = note;
        self.manifest.write(&self.dir)
    }
}

/// A trial that is being measured.
#[derive(Debug)]
pub struct TrialWriter {
    dir: PathBuf,
    file: TrialFile,
    segment: SegmentWriter,
}

impl TrialWriter {
    /// Its directory, for telemetry and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a record. It is on its way to the disk when this returns; waits only while the writer is
    /// thousands of records behind.
    ///
    /// # Errors
    /// When the disk is full or gone; of this record or of one before it.
    pub fn append(&mut self, record: RequestRecord) -> Result<(), RecordError> {
        self.segment.append(record)
    }

    /// Keeps what was read of the machines meanwhile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn telemetry(&self, telemetry: &Telemetry) -> Result<(), RecordError> {
        crate::telemetry::write(&self.dir, telemetry)
    }

    /// Keeps what the engines said at each look at them meanwhile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn engine_looks(&self, looks: &[Vec<Said>]) -> Result<(), RecordError> {
        crate::engines::write(&self.dir, looks)
    }

    /// Keeps the engines' pages of metrics from before and after the measurement.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_engine_pages(&self, pages: &str) -> Result<(), RecordError> {
        file::write_atomically(&self.dir.join(layout::ENGINE_METRICS), pages.as_bytes())
    }

    /// Says that the trial ran to its end, and gives its records their lasting form.
    ///
    /// # Errors
    /// When a file cannot be written. Records that reached the segment stay readable.
    pub fn seal(mut self, info: TrialInfo) -> Result<(), RecordError> {
        self.end(info)?;
        seal::seal(&self.dir, &self.file)
    }

    /// Closes a trial that did not run to its end. It stays partial.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn abandon(mut self) -> Result<(), RecordError> {
        self.segment.close().map(drop)
    }

    fn end(&mut self, info: TrialInfo) -> Result<(), RecordError> {
        let records = self.segment.close()?;
        self.file.ended = Some(Ended { records, info });
        self.file.write(&self.dir)
    }
}

fn session(clock: &dyn Clock, tool: &str) -> Session {
    Session { tool: tool.to_owned(), unix_ns: clock.unix_now().0, mono_ns: clock.now().0 }
}

fn make_exclusively(root: &Path, id: &str) -> Result<(PathBuf, String), RecordError> {
    let mut run = id.to_owned();
    for n in 2_u32.. {
        let dir = root.join(&run);
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok((dir, run)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => run = format!("{id}-{n}"),
            Err(e) => return Err(RecordError::io("create", dir)(e)),
        }
    }
    Err(RecordError::damaged(root, "every name for a run is taken"))
}

fn make_as(root: &Path, id: &str) -> Result<PathBuf, RecordError> {
    let dir = root.join(layout::component(id));
    std::fs::create_dir(&dir).map_err(RecordError::io("create", &dir))?;
    Ok(dir)
}

fn lock(dir: &Path) -> Result<File, RecordError> {
    let path = dir.join(layout::LOCK);
    let file = File::create(&path).map_err(RecordError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecordError::InUse { path: dir.to_owned() }),
        // Some network file systems know no locks; a run there is only not protected from a second
        // writer.
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(RecordError::io("lock", path)(e)),
    }
}

/// Whether the trial in `dir` is that of `point`, ran to its end, and its records are the ones that were sealed; one
/// that is damaged or another is measured again.
fn is_whole(dir: &Path, point: &str, number: u32) -> Result<bool, RecordError> {
    let (state, file) = TrialFile::state(dir)?;
    let is_another = file.is_some_and(|file| file.is_another_than(point, number).is_some());
    if state != TrialState::Complete || is_another {
        return Ok(false);
    }
    let is_sealed = dir.join(layout::REQUESTS).exists();
    match digest::verify(dir) {
        _ if !is_sealed => Ok(true),
        Ok(()) => Ok(true),
        Err(RecordError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn set_aside(dir: &Path) -> Result<(), RecordError> {
    for n in 1_u32.. {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".partial-{n}"));
        let aside = PathBuf::from(name);
        if !aside.exists() {
            return std::fs::rename(dir, &aside).map_err(RecordError::io("set aside", dir));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
