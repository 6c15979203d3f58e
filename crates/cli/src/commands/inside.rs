//! `inside`: the process around a run that a Job of Kubernetes measures inside of its cluster, and what that is asked
//! by `kubectl exec` from outside.
//!
//! **Invariants.** The pod lives until its run directory was fetched, and no longer than its span. Asked to end by the
//! cluster, it has the run take down what it made, hurries it before the grace is over, and can be fetched for the rest of
//! it. What is asked needs nothing in the image but this program.

use super::{runtime, span};
use crate::args::{InsideArgs, InsideCommand};
use crate::clock::pause;
use crate::exit::{Failure, Status};
use crate::printer;
use rustix::process::{Pid, Signal, kill_process};
use scalebeam_fleet::inside::{End, LAST_LINE};
use scalebeam_model::units::Nanos;
use scalebeam_record::{pack, write_atomically};
use std::fs::File;
use std::future::pending;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};

/// Between two looks at what is asked and answered.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A run that the cluster wants to end finishes what is in flight for so long.
const HURRIED_AFTER: Duration = Duration::from_secs(20);

pub(super) fn run(args: &InsideArgs) -> Result<Status, Failure> {
    match &args.what {
        InsideCommand::Run { state, linger, words } => {
            let linger = span("--linger", linger)?;
            runtime(2)?.block_on(around(&Folder(state.state.clone()), linger, words))
        }
        InsideCommand::Wait { state, limit } => {
            let limit = span("--limit", limit)?;
            let folder = Folder(state.state.clone());
            // Without it, it is only not waited for where the cluster wants it to end.
            let _ = write_atomically(&folder.watched(), b"");
            let end = runtime(1)?.block_on(waited(&folder, limit));
            printer::json(&end)?;
            Ok(Status::Ok)
        }
        InsideCommand::Stop(state) => Folder(state.state.clone()).interrupt(),
        InsideCommand::Release(state) => {
            write_atomically(&Folder(state.state.clone()).released(), b"")?;
            Ok(Status::Ok)
        }
        InsideCommand::Pack { dir } => printed(dir),
    }
}

/// Where the process around a run and those who ask it meet.
struct Folder(PathBuf);

impl Folder {
    fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    fn end(&self) -> PathBuf {
        self.0.join("end.json")
    }

    fn released(&self) -> PathBuf {
        self.0.join("released")
    }

    /// Somebody outside waits for the run.
    fn watched(&self) -> PathBuf {
        self.0.join("watched")
    }

    /// It was interrupted before.
    fn stopped(&self) -> PathBuf {
        self.0.join("stopped")
    }

    /// How the run ended, once it has.
    fn ended(&self) -> Option<End> {
        serde_json::from_slice(&std::fs::read(self.end()).ok()?).ok()
    }

    /// Interrupts the process around the run, which lives as long as the container does. Asked again, where the answer was
    /// lost, it does so no second time: that would give up what is in flight.
    fn interrupt(&self) -> Result<Status, Failure> {
        let cannot = |why: String| Failure::internal(format!("cannot interrupt the run: {why}"));
        let text = std::fs::read_to_string(self.pid()).map_err(|e| cannot(e.to_string()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| cannot(format!("'{text}' is no pid")))?;
        match File::create_new(self.stopped()) {
            Ok(_) => kill_process(pid, Signal::INT).map_err(|e| cannot(e.to_string()))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot(error.to_string())),
        }
        Ok(Status::Ok)
    }
}

/// Runs scalebeam with `words`, passes on what it is signalled, and stays until it is released.
async fn around(folder: &Folder, linger: Nanos, words: &[String]) -> Result<Status, Failure> {
    let internal = |what: &str, e: std::io::Error| Failure::internal(format!("cannot {what}: {e}"));
    std::fs::create_dir_all(&folder.0).map_err(|e| internal("make the folder of its state", e))?;
    let mut asked = Asked::watch().map_err(|e| internal("watch for signals", e))?;
    let exe = std::env::current_exe().map_err(|e| internal("find this program", e))?;
    let mut command = Command::new(exe);
    // Results are fetched with the run; its log is for what a person sees meanwhile.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|e| internal("start the run", e))?;
    write_atomically(&folder.pid(), std::process::id().to_string().as_bytes())?;
    let status =
        asked.until_ended(&mut child).await.map_err(|e| internal("wait for the run", e))?;
    let end = end_of(status);
    let text = serde_json::to_vec(&end).map_err(|e| Failure::internal(e.to_string()))?;
    write_atomically(&folder.end(), &text)?;
    printer::say(LAST_LINE);
    // Over its span nobody will come any more; the cluster's grace ends it before that.
    let _ = timeout(linger.to_std(), asked.until_released(folder)).await;
    Ok(match end {
        End::Code(code) => Status::of_code(code).unwrap_or(Status::Internal),
        End::Signal(_) => Status::Internal,
    })
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

/// What the process around a run is signalled.
struct Asked {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Whether the cluster wants it to end.
    is_ending: bool,
}

impl Asked {
    fn watch() -> std::io::Result<Self> {
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, is_ending: false })
    }

    async fn until_ended(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let mut hurry: Pin<Box<dyn Future<Output = ()>>> = Box::pin(pending());
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => pass_on(child, Signal::INT),
                _ = self.terminate.recv() => {
                    self.is_ending = true;
                    pass_on(child, Signal::TERM);
                    hurry = Box::pin(pause(HURRIED_AFTER));
                }
                () = &mut hurry => {
                    pass_on(child, Signal::TERM);
                    hurry = Box::pin(pending());
                }
            }
        }
    }

    /// Where the cluster wants it to end and nobody ever came in, nobody will fetch it either.
    async fn until_released(&mut self, folder: &Folder) {
        let mut tick = interval(LOOK_EVERY);
        while !folder.released().exists() && (!self.is_ending || folder.watched().exists()) {
            tokio::select! {
                _ = tick.tick() => {}
                _ = self.terminate.recv() => self.is_ending = true,
            }
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: its end is about to be seen.
        let _ = kill_process(pid, signal);
    }
}

async fn waited(folder: &Folder, limit: Nanos) -> Option<End> {
    let ended = async {
        let mut tick = interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            if let Some(end) = folder.ended() {
                return end;
            }
        }
    };
    timeout(limit.to_std(), ended).await.ok()
}

/// A run that ended before it had a directory has no files.
fn printed(dir: &Path) -> Result<Status, Failure> {
    let mut packed = Ok(0);
    printer::stream(|out| {
        packed = pack(dir, out);
        Ok(())
    });
    packed?;
    Ok(Status::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder(dir.path().to_owned());
        (dir, folder)
    }

    /// One Ctrl-C whose answer was lost is asked again, and must not become two.
    #[test]
    fn it_is_interrupted_once_however_often_it_is_asked() {
        let (_dir, folder) = folder();
        assert!(folder.interrupt().is_err(), "nobody knows its pid yet");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(folder.pid(), child.id().to_string()).unwrap();
        assert_eq!(folder.interrupt().unwrap(), Status::Ok);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
        assert_eq!(folder.interrupt().unwrap(), Status::Ok, "a signal would find nobody");
    }

    #[tokio::test]
    async fn one_that_is_to_end_stays_for_who_came_before_until_it_is_released() {
        let (_dir, folder) = folder();
        let mut asked = Asked::watch().unwrap();
        let short = Duration::from_millis(500);
        assert!(timeout(short, asked.until_released(&folder)).await.is_err());
        asked.is_ending = true;
        asked.until_released(&folder).await;
        std::fs::write(folder.watched(), "").unwrap();
        assert!(timeout(short, asked.until_released(&folder)).await.is_err());
        std::fs::write(folder.released(), "").unwrap();
        asked.until_released(&folder).await;
    }
}
