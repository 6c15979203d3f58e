//! A program of the site that is at work for minutes: it builds an image, or finds a machine.
//!
//! **Invariants.** What it says goes to a file of the run directory, and how it ended to one beside that, so
//! that both are known to whoever looks, and when. It is marked as a process of its run: it is found and
//! ended where scalebeam was killed while it was at work, since it would finish after the teardown.

use super::tool::{Call, ToolError};
use super::{End, Look, pause};
use crate::journal::Claim;
use crate::launch::log::{SHOWN_LINES, tail};
use crate::process::{self, DIR_MARKER, Identity, Mark, Member, PROCESS_MARKER, RUN_MARKER};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What it said, how it ended, and which process it is.
const LOG: &str = "submit.log";
const STATUS: &str = "submit.status";
const PID: &str = "submit.pid";
/// Its end is recorded within so long.
const RECORDED_WITHIN: Duration = Duration::from_millis(500);

/// Where an errand stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Errand {
    /// It is at work; the last line that it said.
    Busy(String),
    /// It did what it was sent for.
    Done,
    /// It failed, or was ended; its last lines.
    Failed(String),
}

/// Marks `call` as what brings up the deployment of `claim`.
pub(super) fn marked(call: Call, claim: &Claim) -> Call {
    call.env(RUN_MARKER, &claim.run)
        .env(DIR_MARKER, &claim.run_dir)
        .env(PROCESS_MARKER, submission(claim))
}

/// Starts `call` for `claim`, and returns at once.
///
/// # Errors
/// When it cannot be started, or its output not be kept.
pub(super) fn start(call: Call, claim: &Claim) -> Result<(), ToolError> {
    let log = file_of(claim, LOG);
    let failed = |source| ToolError::File { path: log.display().to_string(), source };
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let said = std::fs::File::create(&log).map_err(failed)?;
    let status = file_of(claim, STATUS);
    // Of an earlier try of the same run, where there was one.
    for old in [&status, &file_of(claim, PID)] {
        let _ = std::fs::remove_file(old);
    }
    let mut child = marked(call, claim).start(said)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(member) = pid.and_then(|pid| Identity::of(pid).ok()).map(|i| i.leader()) {
        let text = serde_json::to_vec(&member).unwrap_or_default();
        std::fs::write(file_of(claim, PID), text).map_err(failed)?;
    }
    tokio::spawn(async move {
        let text = match child.wait().await {
            Ok(status) => status.code().map_or_else(|| status.to_string(), |code| code.to_string()),
            Err(error) => error.to_string(),
        };
        // Whoever looks takes a status that is not there for one that ended without us.
        let _ = std::fs::write(status, text);
    });
    Ok(())
}

/// The file that is submitted of `claim`.
pub(super) fn file(claim: &Claim) -> PathBuf {
    let file = claim.files.first().map(|file| Path::new(&claim.run_dir).join(file));
    file.unwrap_or_default()
}

/// What to say of a deployment as long as its errand `what` has not done its work; `hint` says what to do
/// about what it said.
pub(super) async fn unfinished(
    claim: &Claim,
    what: &str,
    hint: fn(&str) -> String,
) -> Option<Look> {
    match state(claim).await {
        Errand::Busy(line) => Some(Look::Pending(format!("{what}: {line}"))),
        Errand::Failed(said) => {
            let hint = hint(&said);
            Some(Look::Ended(End::new(format!("{what}: {said}")).hint(hint)))
        }
        Errand::Done => None,
    }
}

/// Where the errand of `claim` stands.
pub(super) async fn state(claim: &Claim) -> Errand {
    if let Some(ended) = ended(claim) {
        return ended;
    }
    if is_busy(claim) {
        return Errand::Busy(said(claim, 1).pop().unwrap_or_default());
    }
    // Between its end and the record of it there is a moment.
    pause(RECORDED_WITHIN).await;
    ended(claim).unwrap_or_else(|| Errand::Failed(format!("it was ended{}", shown(claim))))
}

fn ended(claim: &Claim) -> Option<Errand> {
    let status = std::fs::read_to_string(file_of(claim, STATUS)).ok()?;
    Some(match status.as_str() {
        "0" => Errand::Done,
        status => Errand::Failed(format!("it ended with {}{}", words(status), shown(claim))),
    })
}

fn words(status: &str) -> String {
    match status.parse::<i32>() {
        Ok(code) => format!("status {code}"),
        Err(_) => status.to_owned(),
    }
}

fn shown(claim: &Claim) -> String {
    said(claim, SHOWN_LINES).iter().map(|line| format!("\n    {line}")).collect()
}

/// The last `lines` lines that it said.
pub(super) fn said(claim: &Claim, lines: usize) -> Vec<String> {
    tail(&file_of(claim, LOG), 0, lines).unwrap_or_default()
}

/// Everything that it said.
pub(super) fn output(claim: &Claim) -> String {
    std::fs::read_to_string(file_of(claim, LOG)).unwrap_or_default()
}

/// Ends what is still at work for `claim`, whoever started it.
pub(super) fn end(claim: &Claim) {
    for left in submissions(claim) {
        // It leads a group of its own. Gone already: nothing to end.
        let _ = process::signal_group(left.pid, Signal::KILL);
        let _ = left.signal(Signal::KILL);
    }
}

/// Whether something is still at work for `claim`.
pub(super) fn is_busy(claim: &Claim) -> bool {
    !submissions(claim).is_empty()
}

/// The process that was recorded; where scalebeam was killed before it could do that, those with its mark.
/// Not these otherwise: what a program leaves behind for others to use, as a server of its own, has the mark
/// too.
fn submissions(claim: &Claim) -> Vec<Member> {
    let recorded = std::fs::read(file_of(claim, PID)).ok();
    if let Some(member) = recorded.and_then(|text| serde_json::from_slice::<Member>(&text).ok()) {
        return Some(member).filter(|m| m.is_alive()).into_iter().collect();
    }
    let mark = Mark { run: claim.run.clone(), dir: claim.run_dir.clone() };
    let name = submission(claim);
    let marked = process::marked(&BTreeSet::from([mark]));
    marked.into_iter().filter(|m| m.process == name).map(|m| m.member).collect()
}

/// What submits a deployment, among the processes of its run.
fn submission(claim: &Claim) -> String {
    format!("{}/submit", claim.deployment)
}

fn file_of(claim: &Claim, name: &str) -> PathBuf {
    claim.logs().join(name)
}
