//! Logs of a job: in the run directory, where its nodes share that with this machine. Elsewhere they are on
//! the node of its script, in a folder that goes with the job, and are brought here while it runs.

use super::job::{self, Job};
use super::{LOGS_LIMIT, call};
use crate::journal::Claim;
use crate::launch::log::tail;
use std::path::{Path, PathBuf};

/// Bytes of a log that are brought: its end.
const BROUGHT: usize = 4 << 20;

/// The end of the log of the process that ended first, or of the one that wrote last.
pub(in super::super) async fn log_tail(claim: &Claim, id: &str, lines: usize) -> Vec<String> {
    if let Ok(Some(job)) = super::job(claim, id).await {
        bring(claim, id, &job).await;
    }
    let dir = claim.logs();
    let ended = ended_first(&dir, id).map(|stem| dir.join(format!("{stem}-{id}.log")));
    let log = ended.filter(|log| log.exists()).or_else(|| newest(&dir, id));
    log.and_then(|log| tail(&log, 0, lines).ok()).unwrap_or_default()
}

/// The last line of the log that was written last.
pub(in super::super) fn last_line(claim: &Claim, id: &str) -> String {
    let log = newest(&claim.logs(), id);
    let lines = log.and_then(|log| tail(&log, 0, 1).ok()).unwrap_or_default();
    lines.into_iter().next().unwrap_or_default()
}

/// Brings the logs of a job that runs from its node, unless they are here. What cannot be brought is
/// absent: it must not keep the job from being ended.
pub(super) async fn bring(claim: &Claim, id: &str, job: &Job) {
    let dir = claim.logs();
    if !job.is_running() || dir.join(script_log(id)).exists() {
        return;
    }
    let there = folder(&job.name, id);
    let on_node = |words: &[&str]| {
        call("srun", &claim.scope)
            .args(["--jobid", id, "--overlap", "--nodes=1", "--ntasks=1", "--immediate=15"])
            .args(["--nodelist", &job.batch_host])
            .args(words)
            .ask(LOGS_LIMIT)
    };
    let Ok(names) = on_node(&["ls", &there]).await else { return };
    for name in names.lines().filter(|name| is_log(name, id)) {
        let bytes = BROUGHT.to_string();
        let Ok(text) = on_node(&["tail", "-c", &bytes, &format!("{there}/{name}")]).await else {
            return;
        };
        // A disk that is full here must not keep the job from being ended either.
        let _ = std::fs::write(dir.join(name), text);
    }
}

/// Where a job writes on its node, until its logs are brought.
pub(super) fn folder(name: &str, id: &str) -> String {
    format!("/tmp/{name}-{id}")
}

pub(super) fn script_log(id: &str) -> String {
    format!("job-{id}.out")
}

/// Whether `name` is that of a log of job `id`, and leads nowhere else.
fn is_log(name: &str, id: &str) -> bool {
    let is_file = Path::new(name).file_name().is_some_and(|file| file == name);
    is_file && (name == script_log(id) || name.ends_with(&format!("-{id}.log")))
}

/// The log's name of the process that the job script named first.
fn ended_first(dir: &Path, id: &str) -> Option<String> {
    let said = std::fs::read_to_string(dir.join(script_log(id))).ok()?;
    let line = said.lines().find(|line| job::named(line).is_some())?;
    let process = line.strip_prefix("process ")?.split(' ').next()?;
    let (_, part) = process.split_once('/')?;
    Some(part.replace('/', "-"))
}

fn newest(dir: &Path, id: &str) -> Option<PathBuf> {
    let written = |entry: &std::fs::DirEntry| {
        let meta = entry.metadata().ok()?;
        (meta.len() > 0).then(|| meta.modified().ok())?
    };
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let steps = entries.filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        is_log(&name, id) && name != script_log(id)
    });
    steps.filter_map(|e| Some((written(&e)?, e.path()))).max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_the_process_that_ended_first_is_the_one_that_tells() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("0-serve-17.log", "older");
        write("1-serve-17.log", "newer");
        write("0-serve-16.log", "of another job");
        assert_eq!(newest(dir.path(), "17"), Some(dir.path().join("1-serve-17.log")));
        assert_eq!(ended_first(dir.path(), "17"), None);
        let said = "nodes: n1 n2\nprocess pair/0/serve ended with status 1: x\n\
                    process pair/1/serve ended with status 143: y\n";
        write("job-17.out", said);
        assert_eq!(ended_first(dir.path(), "17").as_deref(), Some("0-serve"));
    }

    #[test]
    fn a_node_names_no_file_outside() {
        assert!(is_log("0-serve-17.log", "17") && is_log("job-17.out", "17"));
        assert!(!is_log("../0-serve-17.log", "17") && !is_log("0-serve-117.log.x", "17"));
        assert!(!is_log("/tmp/x-17.log", "17") && !is_log("job-18.out", "17"));
    }
}
