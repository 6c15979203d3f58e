//! `journal.jsonl`: every act of fleet, written before it is done.
//!
//! **Invariants.** A line is flushed before the act that it announces; intents and starts of processes
//! are on the disk (`fsync`). Lines are only ever appended, one `write` each, so that two writers do
//! not tear each other's. A reader takes a torn line for absent: the act it announced may have
//! happened, which is why a process is also found by its marker. Secrets are here by name only.

use crate::error::{Exit, FleetError};
use crate::host::{Pod, Shell, Step};
use crate::process::Member;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{EnvValue, Platform, PortPlan};
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the journal in a run directory.
pub const FILE: &str = "journal.jsonl";
/// Name of the journal of a scalebeam that measured the run inside of a cluster, beside that of the one outside.
pub const INSIDE: &str = "journal.inside.jsonl";

/// What was written by who measured the run in `run_dir`, which may have been inside of a cluster. What `down` goes by is
/// [`FILE`] always.
///
/// # Errors
/// As [`read`].
pub fn of_measurement(run_dir: &Path) -> Result<Contents, FleetError> {
    let inside = run_dir.join(INSIDE);
    read(&if inside.exists() { inside } else { run_dir.join(FILE) })
}

/// In which order a process is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Requests come in here: first, so that admission stops.
    Entry,
    /// Works for an entry.
    Worker,
    /// Everything else needs it: last.
    Infra,
}

impl Stage {
    /// In the order in which they are taken down.
    pub(crate) const ALL: [Self; 3] = [Self::Entry, Self::Worker, Self::Infra];

    /// The name in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Worker => "worker",
            Self::Infra => "infra",
        }
    }
}

/// What was signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// A whole process group, `pid` is its number.
    Group,
    /// One process that had left its group.
    Process,
}

/// What happened or is about to happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process will be started.
    ProcessIntent(Box<Intent>),
    /// It exists.
    ProcessStarted {
        /// Id in the plan.
        process: String,
        /// Its pid.
        pid: i32,
        /// Its process group.
        pgid: i32,
        /// Start time in clock ticks since boot.
        start_ticks: u64,
        /// The boot.
        boot_id: String,
    },
    /// It could not be started.
    ProcessFailed {
        /// Id in the plan.
        process: String,
        /// What the kernel said.
        reason: String,
    },
    /// Who belongs to it at this moment.
    ProcessMembers {
        /// Id in the plan.
        process: String,
        /// Its group and descendants.
        members: Vec<Member>,
    },
    /// It ended.
    ProcessExited {
        /// Id in the plan.
        process: String,
        /// Its pid.
        pid: i32,
        /// How.
        exit: Exit,
    },
    /// A signal will be sent.
    Signal {
        /// Id in the plan.
        process: String,
        /// `SIGTERM` or `SIGKILL`.
        signal: String,
        /// To what.
        reach: Reach,
        /// Pid, or number of the group.
        pid: i32,
    },
    /// Nothing of it is left.
    ProcessGone {
        /// Id in the plan.
        process: String,
    },
    /// Nobody listens on its port any more.
    PortReleased {
        /// Id in the plan.
        process: String,
        /// Address.
        addr: String,
        /// Port.
        port: u16,
    },
    /// A platform that starts processes itself will be given a deployment.
    PlatformIntent(Box<Claim>),
    /// It took it.
    PlatformAccepted {
        /// Deployment.
        deployment: String,
        /// What the platform calls it.
        id: String,
    },
    /// Nothing of it is left there.
    PlatformGone {
        /// Deployment.
        deployment: String,
    },
    /// A deployment changed its state.
    DeploymentState {
        /// Its name.
        deployment: String,
        /// State left.
        from: String,
        /// State entered.
        to: String,
        /// Why, where it says more than the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A trial was measured to its end, and is on the disk.
    TrialEnded {
        /// Id of its point in the plan.
        point: String,
        /// Its number, from 1.
        trial: u32,
    },
    /// Something a reader should know.
    Note {
        /// What.
        text: String,
    },
    /// An event of a newer version.
    #[serde(other)]
    Unknown,
}

/// A process that will be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Run id, the value of its marker.
    pub run: String,
    /// Run directory, the value of its marker.
    pub run_dir: String,
    /// The boot in which it will be started.
    pub boot_id: String,
    /// Deployment.
    pub deployment: String,
    /// Id in the plan.
    pub process: String,
    /// Host in the file.
    pub host: String,
    /// Its name for the site's ssh; absent for this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// The node of a job on which it is a step of its own; absent where no scheduler gave its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// The container that it is brought into; absent where its host is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The directory on it that goes with the deployment: what scalebeam and its processes wrote there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
    /// What is executed.
    pub program: String,
    /// With these arguments.
    pub args: Vec<String>,
    /// Variables that the plan adds; inherited ones by name only.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports it will listen on.
    pub ports: Vec<PortPlan>,
    /// Its log.
    pub log: String,
    /// When it is taken down.
    pub stage: Stage,
    /// Between SIGTERM and SIGKILL.
    pub grace: Nanos,
}

impl Intent {
    /// How its host is talked to.
    pub(crate) fn shell(&self) -> Shell {
        match (&self.pod, &self.step, &self.ssh) {
            (Some(pod), ..) => Shell::Pod(pod.clone()),
            (None, Some(step), _) => Shell::Step(step.clone()),
            (None, None, Some(host)) => Shell::Ssh(host.clone()),
            (None, None, None) => Shell::Here,
        }
    }
}

/// What a platform that starts processes itself will be given, and where it is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Run id.
    pub run: String,
    /// Run directory.
    pub run_dir: String,
    /// Deployment.
    pub deployment: String,
    /// Where it is started.
    pub platform: Platform,
    /// Its name there, which nothing else has: what was started is found by it where no id was recorded.
    pub name: String,
    /// Which of several clusters, namespaces or accounts it is in, by the platform's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scope: BTreeMap<String, String>,
    /// The files that are submitted, relative to the run directory.
    pub files: Vec<String>,
    /// Between asking it to end and ending it.
    pub grace: Nanos,
    /// Whether it is no deployment, but the Job that measures the run inside of the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_client: bool,
}

impl Claim {
    /// Where logs of its deployment are.
    pub(crate) fn logs(&self) -> PathBuf {
        Path::new(&self.run_dir).join("logs").join(&self.deployment)
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// Position in the journal.
    pub seq: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What was read from a journal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// Whole lines, in order.
    pub entries: Vec<Entry>,
    /// Line numbers (from 1) that could not be read: torn by a crash.
    pub torn: Vec<usize>,
}

/// Appends to a journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    seq: u64,
}

impl Journal {
    /// Opens the journal at `path` for appending, and makes it where it is absent.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, FleetError> {
        let fail = |source| FleetError::File { action: "open", path: path.to_owned(), source };
        let before = read(path)?;
        let mut file = File::options().create(true).append(true).open(path).map_err(fail)?;
        let last = before.entries.last().map_or(0, |e| e.seq + 1);
        if !before.torn.is_empty() && !ends_with_newline(path).map_err(fail)? {
            // Closes a torn line, so that the next one is not lost with it.
            file.write_all(b"\n").map_err(fail)?;
        }
        Ok(Self { path: path.to_owned(), clock, inner: Mutex::new(Inner { file, seq: last }) })
    }

    /// Appends one event.
    ///
    /// # Errors
    /// When it could not be written; the act that it announces must then not be done.
    pub fn write(&self, event: Event) -> Result<(), FleetError> {
        let fail = |source| FleetError::File { action: "write", path: self.path.clone(), source };
        let durable = matches!(
            event,
            Event::ProcessIntent(_)
                | Event::ProcessStarted { .. }
                | Event::PlatformIntent(_)
                | Event::PlatformAccepted { .. }
        );
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { at_unix_ns: self.clock.unix_now().0, seq: inner.seq, event };
        let mut line = serde_json::to_vec(&entry).map_err(|e| fail(e.into()))?;
        line.push(b'\n');
        inner.file.write_all(&line).map_err(fail)?;
        inner.seq += 1;
        if durable {
            inner.file.sync_data().map_err(fail)?;
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn ends_with_newline(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::read(path)?.last().is_none_or(|b| *b == b'\n'))
}

/// Reads the journal at `path`; an absent one is empty.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(path: &Path) -> Result<Contents, FleetError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Contents::default());
        }
        Err(source) => {
            return Err(FleetError::File { action: "read", path: path.to_owned(), source });
        }
    };
    let mut contents = Contents::default();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(entry) => contents.entries.push(entry),
            Err(_) => contents.torn.push(number + 1),
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;

    fn note(text: &str) -> Event {
        Event::Note { text: text.into() }
    }

    /// What ended inside of a cluster is in the journal that came from there.
    #[test]
    fn who_measured_a_run_has_written_the_journal_that_tells_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        for (name, text) in [(FILE, "outside"), (INSIDE, "inside")] {
            let journal = Journal::open(&dir.path().join(name), clock.clone()).unwrap();
            journal.write(note(text)).unwrap();
            let told = of_measurement(dir.path()).unwrap();
            assert_eq!(told.entries[0].event, note(text));
        }
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_closed_by_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        assert_eq!(read(&path).unwrap(), Contents::default());
        let journal = Journal::open(&path, clock.clone()).unwrap();
        journal.write(note("one")).unwrap();
        drop(journal);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"at_unix_ns\":5,\"seq\":1,\"event\":\"no").unwrap();
        drop(file);
        assert_eq!(read(&path).unwrap().torn, [2]);

        let journal = Journal::open(&path, clock).unwrap();
        journal.write(note("two")).unwrap();
        let contents = read(&path).unwrap();
        assert_eq!(contents.torn, [2]);
        let events: Vec<_> = contents.entries.iter().map(|e| (e.seq, e.event.clone())).collect();
        assert_eq!(events, [(0, note("one")), (1, note("two"))]);
    }

    #[test]
    fn events_of_a_newer_version_are_kept_as_unknown() {
        let line = r#"{"at_unix_ns":1,"seq":0,"event":"teleported","where":"mars"}"#;
        let entry: Entry = serde_json::from_str(line).unwrap();
        assert_eq!(entry.event, Event::Unknown);
    }

    #[test]
    fn the_written_form_is_stable() {
        let entry = Entry {
            at_unix_ns: 9,
            seq: 3,
            event: Event::ProcessStarted {
                process: "d/0/serve".into(),
                pid: 10,
                pgid: 10,
                start_ticks: 77,
                boot_id: "b".into(),
            },
        };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"at_unix_ns":9,"seq":3,"event":"process_started","process":"d/0/serve","pid":10,"pgid":10,"start_ticks":77,"boot_id":"b"}"#
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}
