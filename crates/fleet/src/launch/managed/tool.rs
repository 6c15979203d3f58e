//! The site's own programs: `sbatch`, `kubectl`, `modal`, `sky`.
//!
//! **Invariants.** Program and arguments go to `exec` as they are, nothing is asked on a terminal, and each
//! call has a limit. A call is in a group of its own: Ctrl-C is for scalebeam, which has yet to take things
//! down over it.

use crate::host::end_group;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Characters of an answer that an error shows.
const SHOWN: usize = 600;

/// Why a program of the site did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{program} gave no answer within {} s", .limit.as_secs_f64())]
    TimedOut {
        /// Its name.
        program: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// It ended with an error.
    #[error("{program}: {said}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// It said something else than this version understands.
    #[error("{program} said what is not understood: {said}")]
    Unclear {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// What it said shows that this cannot work.
    #[error("{said}")]
    Unfit {
        /// Why.
        said: String,
        /// What to do about it.
        hint: String,
    },
    /// A file that goes with it could not be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a program said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) ok: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A call of a program.
#[derive(Debug)]
pub(super) struct Call {
    program: &'static str,
    command: Command,
}

impl Call {
    pub(super) fn new(program: &'static str) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        Self { program, command }
    }

    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Starts it; all that it says goes to `said`.
    pub(super) fn start(mut self, said: File) -> Result<Child, ToolError> {
        let program = self.program;
        let start = |source| ToolError::Start { program, source };
        let errors = said.try_clone().map_err(start)?;
        self.command.stdout(said).stderr(errors).spawn().map_err(start)
    }

    /// Starts it with what it prints as a stream. It ends when the value is dropped.
    pub(super) fn stream(mut self) -> Result<Child, ToolError> {
        let program = self.program;
        self.command.spawn().map_err(|source| ToolError::Start { program, source })
    }

    /// Runs it to its end. Any exit status is an `Ok`.
    pub(super) async fn run(mut self, limit: Duration) -> Result<Ran, ToolError> {
        let program = self.program;
        let start = |source| ToolError::Start { program, source };
        let child = self.command.spawn().map_err(start)?;
        let leader = child.id();
        let mut ended = std::pin::pin!(child.wait_with_output());
        // Dropped before what waits, so that the number of the leader is still its own.
        let mut group = Group(leader);
        match tokio::time::timeout(limit, ended.as_mut()).await {
            Ok(out) => {
                group.0 = None;
                let out = out.map_err(start)?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Ok(Ran {
                    ok: out.status.success(),
                    stdout: text(&out.stdout),
                    stderr: text(&out.stderr),
                })
            }
            Err(_) => Err(ToolError::TimedOut { program, limit }),
        }
    }

    /// What it prints; an exit status other than 0 is an error.
    pub(super) async fn ask(self, limit: Duration) -> Result<String, ToolError> {
        let program = self.program;
        let ran = self.run(limit).await?;
        if ran.ok { Ok(ran.stdout) } else { Err(ran.refusal(program)) }
    }
}

/// A program with all that it started, which ends where nobody waits for it any more: it may be a script around
/// another.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        end_group(self.0);
    }
}

impl Ran {
    /// The error of a call that ended so.
    pub(super) fn refusal(&self, program: &'static str) -> ToolError {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        ToolError::Refused { program, said: shown(said) }
    }
}

/// `said` on one line, shortened.
pub(super) fn shown(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|l| !l.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    let text = if text.is_empty() { "it ended with an error and said nothing" } else { &text };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn words_reach_a_program_as_they_are_and_its_error_is_told() {
        let said = Call::new("printf").args(["%s|", "a b", "$HOME", ""]).ask(LIMIT).await.unwrap();
        assert_eq!(said, "a b|$HOME||");
        let call = Call::new("sh").args(["-c", "echo out; printf 'one\\n\\ntwo\\n' >&2; exit 3"]);
        assert_eq!(call.ask(LIMIT).await.unwrap_err().to_string(), "sh: one; two");
        let missing = Call::new("no-such-program").ask(LIMIT).await.unwrap_err();
        assert!(missing.to_string().starts_with("cannot start no-such-program"), "{missing}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_its_children() {
        let call = Call::new("sh").args(["-c", "sleep 54322 & wait"]);
        let error = call.ask(Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { program: "sh", .. }), "{error}");
        assert!(!lives("54322").await);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_ends_with_its_children() {
        let call = Call::new("sh").args(["-c", "sleep 54323 & wait"]);
        let ask = tokio::spawn(call.ask(LIMIT));
        while !lives("54323").await {
            tokio::task::yield_now().await;
        }
        ask.abort();
        assert!(ask.await.is_err());
        assert!(!lives("54323").await);
    }

    /// Whether a `sleep` of `seconds` runs; one that was killed ends in a moment.
    async fn lives(seconds: &str) -> bool {
        let pattern = format!("^sleep {seconds}$");
        let pgrep = || Call::new("pgrep").args(["-f", &pattern]).run(LIMIT);
        for _ in 0..20 {
            if !pgrep().await.unwrap().ok {
                return false;
            }
            crate::launch::managed::pause(Duration::from_millis(20)).await;
        }
        true
    }
}
