//! Runs a program and says what it cost, in a process that waits for nothing else: what the system counts
//! as spent by waited children is then this program's.
//!
//! **Invariants:** the program has a group of its own, which is ended when the program has ended, when its
//! time is up, or when whoever started this process is gone; no signal is sent to a group whose leader has
//! been waited for.

use crate::selftest::usage::{self, Look};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProgramSpec {
    /// Program and arguments.
    pub(crate) words: Vec<String>,
    /// The file that takes what it says, on both outputs.
    pub(crate) output: PathBuf,
    /// What is removed where nobody is left to read it: the directory of output and result.
    pub(crate) scratch: PathBuf,
    /// After this long it is ended.
    pub(crate) limit: Nanos,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProgramEnd {
    /// Why it is no measurement; absent where it ended well.
    pub(crate) failure: Option<String>,
    /// CPU time of the program and of the children that it has waited for.
    pub(crate) cpu: Nanos,
    /// From its start to its end.
    pub(crate) wall: Nanos,
    /// The most memory that one of these processes had resident at once, in bytes; absent where it is no
    /// more than what every child begins with.
    pub(crate) peak_rss: Option<u64>,
    /// What the program's own CPU clock said while it ran; empty where it cannot be asked.
    pub(crate) looks: Vec<Look>,
}

/// Between two looks at the program.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs it to its end, or until `stop` can be read or is closed.
pub(crate) fn run(
    spec: &ProgramSpec,
    clock: &dyn Clock,
    stop: BorrowedFd<'_>,
) -> io::Result<ProgramEnd> {
    let inherited = usage::peak_rss();
    let started = clock.now();
    let mut child = match start(spec) {
        Ok(child) => child,
        Err(e) => {
            let failure = Some(format!("cannot start {}: {e}", spec.words[0]));
            return Ok(ProgramEnd { failure, ..ProgramEnd::default() });
        }
    };
    let watched = watch(&child, started + spec.limit, clock, stop);
    // Whatever is left of its group; the leader is not waited for yet, so the group is still its own.
    let _ = rustix::process::kill_process_group(pid(&child), Signal::KILL);
    let wall = clock.now().since(started);
    let status = child.wait()?;
    let (end, looks) = watched?;
    let failure = match end {
        End::Own if status.success() => None,
        End::Own => Some(status.to_string()),
        End::TimeUp => Some(format!("not done after {:.0} s, and ended", spec.limit.as_secs_f64())),
        End::Alone => {
            // Nobody reads any of this. What cannot be removed lies in a cache.
            let _ = std::fs::remove_dir_all(&spec.scratch);
            Some("ended with the process that started it".to_owned())
        }
    };
    let spent = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let peak_rss = peak(&spent).filter(|peak| inherited.is_none_or(|floor| *peak > floor));
    Ok(ProgramEnd { failure, cpu: cpu(&spent), wall, peak_rss, looks })
}

fn start(spec: &ProgramSpec) -> io::Result<Child> {
    let output = File::create(&spec.output)?;
    let mut command = Command::new(&spec.words[0]);
    command.args(&spec.words[1..]).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output).process_group(0).spawn()
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Why there is nothing more to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The program ended by itself.
    Own,
    /// It took too long.
    TimeUp,
    /// Whoever started this process is gone.
    Alone,
}

/// Waits until the program ends, until `until`, or until `stop` says so; with what its clock said meanwhile.
fn watch(
    child: &Child,
    until: Nanos,
    clock: &dyn Clock,
    stop: BorrowedFd<'_>,
) -> io::Result<(End, Vec<Look>)> {
    let mut poll = Poll::new()?;
    let stop = stop.as_raw_fd();
    poll.registry().register(&mut SourceFd(&stop), Token(0), Interest::READABLE)?;
    let (mut events, mut looks) = (Events::with_capacity(1), Vec::new());
    // It is left to be waited for: until then its number is nobody else's.
    let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        if rustix::process::waitid(WaitId::Pid(pid(child)), only_look)?.is_some() {
            return Ok((End::Own, looks));
        }
        let now = clock.now();
        if !events.is_empty() {
            return Ok((End::Alone, looks));
        }
        if now >= until {
            return Ok((End::TimeUp, looks));
        }
        looks.extend(usage::cpu_of(pid(child)).map(|cpu| Look { at: now, cpu }));
        match poll.poll(&mut events, Some(LOOK_EVERY)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
    }
}

fn cpu(spent: &Usage) -> Nanos {
    let micros = (spent.user_time() + spent.system_time()).num_microseconds();
    Nanos::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// In bytes, whatever the system counts in.
fn peak(spent: &Usage) -> Option<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(spent.max_rss()).ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallClock;
    use std::os::fd::AsFd;
    use std::path::Path;

    const LONG: Nanos = Nanos::from_secs(600);

    fn spec(dir: &Path, words: &[&str], limit: Nanos) -> ProgramSpec {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        ProgramSpec { words, output: dir.join("output"), scratch: dir.to_owned(), limit }
    }

    fn end(words: &[&str], limit: Nanos) -> (ProgramEnd, String) {
        let dir = tempfile::tempdir().unwrap();
        let (stop, _held) = io::pipe().unwrap();
        let end = run(&spec(dir.path(), words, limit), &WallClock, stop.as_fd()).unwrap();
        (end, std::fs::read_to_string(dir.path().join("output")).unwrap_or_default())
    }

    fn shell(script: &str, limit: Nanos) -> (ProgramEnd, String) {
        end(&["/bin/sh", "-c", script], limit)
    }

    #[test]
    fn a_program_that_ends_well_is_a_measurement() {
        let busy = "echo out; echo err >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let (end, said) = shell(busy, LONG);
        assert_eq!((end.failure, said.as_str()), (None, "out\nerr\n"));
        assert!(end.cpu > Nanos::ZERO && end.wall > Nanos::ZERO);
        assert!(end.looks.is_sorted_by_key(|l| l.cpu));
    }

    #[test]
    fn one_that_does_not_is_a_reason() {
        let failure = |(end, _): (ProgramEnd, String)| end.failure.unwrap();
        assert_eq!(failure(shell("exit 3", LONG)), "exit status: 3");
        let hangs = shell("sleep 600", Nanos::from_millis(200));
        assert_eq!(failure(hangs), "not done after 0 s, and ended");
        let absent = failure(end(&["/nowhere/at-all"], LONG));
        assert!(absent.starts_with("cannot start /nowhere/at-all: "), "{absent}");
    }

    /// The sleeper holds a pipe: were it alive, nobody could read that to its end.
    #[test]
    fn nothing_of_its_group_stays_behind() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("held");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let script = format!("sleep 600 > {} & exec sleep 600", fifo.display());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(fifo).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        assert!(shell(&script, Nanos::from_secs(1)).0.failure.is_some());
        assert_eq!(reader.join().unwrap(), "");
    }

    #[test]
    fn it_ends_with_whoever_started_it_and_leaves_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, held) = io::pipe().unwrap();
        drop(held);
        let spec = spec(dir.path(), &["/bin/sleep", "600"], LONG);
        let end = run(&spec, &WallClock, stop.as_fd()).unwrap();
        assert_eq!(end.failure.unwrap(), "ended with the process that started it");
        assert!(!dir.path().exists());
    }
}
