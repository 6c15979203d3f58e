//! A shell on a host: this machine's own, the far end of the site's own `ssh`, a step of a job of Slurm, or in a
//! container of a pod.
//!
//! **Invariants.** What runs there is a POSIX `sh` script that goes in by standard input, so nothing of
//! it, values of variables least of all, is on a command line for others to see. `ssh` is the program
//! of the site with its configuration, agent and jump hosts; it never asks anything, and a host that
//! does not answer is an error after seconds, not a wait. A script that takes too long is given up:
//! its near end is ended, and what it started has to be found by its marks.

mod hold;
mod pod;
mod step;

pub use pod::Pod;
pub use step::Step;
pub(crate) use step::{CONF_VARIABLE, is_foreign};

use rustix::process::{Pid, Signal};
use scalebeam_model::plan::{HostPlan, Platform};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Options that make ssh answer or fail. `StrictHostKeyChecking` stays as the site has it: with
/// `BatchMode` an unknown key is refused where it would otherwise be asked about.
const SSH_OPTIONS: [&str; 10] = [
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=3",
    "-o",
    "ClearAllForwardings=yes",
];

/// What `ssh` itself ends with when it, and not the far end, failed.
const SSH_FAILED: i32 = 255;

/// Where scripts run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shell {
    /// On this machine.
    Here,
    /// On the host that the site's `ssh` knows by this name.
    Ssh(String),
    /// In a step of its own beside the others of a job.
    Step(Step),
    /// In a container of a pod.
    Pod(Pod),
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status; absent where a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Why a script did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Neither `sh`, `ssh`, `srun` nor `kubectl` could be started.
    #[error("cannot start {program}")]
    Start {
        /// Which of them.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ssh` could not reach the host, or was not let in.
    #[error("ssh {host}: {said}")]
    Ssh {
        /// Its name, as the file gives it.
        host: String,
        /// What ssh said.
        said: String,
    },
    /// `srun` could not start a step.
    #[error("srun on {node}: {said}")]
    Step {
        /// Slurm's name of the node.
        node: String,
        /// What srun said.
        said: String,
    },
    /// `kubectl` could not run a shell in the pod.
    #[error("kubectl exec in {pod}: {said}")]
    Pod {
        /// Its name.
        pod: String,
        /// What kubectl said.
        said: String,
    },
    /// It took too long.
    #[error("no answer from {host} within {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The host, or `this machine`.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// Talking to it failed.
    #[error("talking to the shell on {host} failed")]
    Pipe {
        /// The host, or `this machine`.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ShellError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Start { program, .. } => format!("install {program}, or put it on PATH"),
            Self::Ssh { host, said } => ssh_hint(host, said),
            Self::Step { said, .. } => step::hint(said),
            Self::Pod { said, .. } => pod::hint(said),
            Self::TimedOut { host, .. } => format!("see whether a shell on {host} answers by hand"),
            Self::Pipe { .. } => "try again; if it stays, look at the host's load".to_owned(),
        }
    }

    /// Whether the job or the pod that was asked has ended: nothing lives there, by the word of Slurm or the cluster.
    pub(crate) fn is_place_gone(&self) -> bool {
        match self {
            Self::Step { said, .. } => step::is_over(said),
            Self::Pod { said, .. } => pod::is_over(said),
            _ => false,
        }
    }
}

/// ssh says in words what went wrong; these are its own (OpenSSH 9).
fn ssh_hint(host: &str, said: &str) -> String {
    let has = |words: &str| said.contains(words);
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return format!(
            "its key is not the one in known_hosts: make sure that it is the right machine, then \
             ssh-keygen -R {host}"
        );
    }
    if has("Host key verification failed") {
        return format!("its key is not known yet: log in once by hand (ssh {host}), look, accept");
    }
    if has("Permission denied") {
        return format!(
            "scalebeam never types a password: set up a key or an agent so that ssh -o BatchMode=yes \
             {host} true works"
        );
    }
    if has("Could not resolve") {
        return format!("'{host}' is neither a name in ssh_config nor in DNS: correct host.ssh");
    }
    format!("make ssh -o BatchMode=yes {host} true work first")
}

impl Shell {
    /// How `host` is talked to by a deployment on `platform`. A host without an ssh name is this machine,
    /// and every one is where nothing is started by ssh.
    pub fn of(platform: Platform, host: Option<&HostPlan>) -> Self {
        let ssh = host.filter(|_| platform == Platform::Ssh).and_then(|h| h.ssh.clone());
        ssh.map_or(Self::Here, Self::Ssh)
    }

    /// The name in messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Here => "this machine",
            Self::Ssh(host) => host,
            Self::Step(step) => &step.node,
            Self::Pod(pod) => &pod.name,
        }
    }

    /// Runs `script` to its end. Any exit status of the script is an `Ok`.
    ///
    /// # Errors
    /// When it could not be run, the host could not be reached, or `limit` passed.
    pub async fn run(&self, script: &str, limit: Duration) -> Result<Ran, ShellError> {
        let child = self.start(Stdio::piped(), Stdio::piped())?;
        let leader = child.id();
        let talk = self.talk(child, script);
        match tokio::time::timeout(limit, talk).await {
            Ok(ran) => ran,
            Err(_) => {
                end_group(leader);
                Err(ShellError::TimedOut { host: self.name().to_owned(), limit })
            }
        }
    }

    async fn talk(&self, mut child: Child, script: &str) -> Result<Ran, ShellError> {
        let pipe = |source| ShellError::Pipe { host: self.name().to_owned(), source };
        let stdin = child.stdin.take();
        let writing = async {
            if let Some(mut stdin) = stdin {
                // One that ends before it has read everything says why by its status.
                let _ = stdin.write_all(script.as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let (out, ()) = tokio::join!(child.wait_with_output(), writing);
        let out = out.map_err(pipe)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let stderr = text(out.stderr);
        self.check(out.status, &stderr)?;
        Ok(Ran { status: out.status.code(), stdout: text(out.stdout), stderr })
    }

    /// Whether it was `ssh`, `srun` or `kubectl` that failed and not what it ran.
    pub(crate) fn check(&self, status: ExitStatus, stderr: &str) -> Result<(), ShellError> {
        match self {
            Self::Ssh(host) if status.code() == Some(SSH_FAILED) => {
                // A changed key comes in a frame of `@`.
                let said = stderr.lines().map(|l| l.trim_matches(|c| c == '@' || c == ' '));
                let said = said.map(str::trim).filter(|l| !l.is_empty());
                let said = said.collect::<Vec<_>>().join("; ");
                let said = if said.is_empty() { "the connection broke".to_owned() } else { said };
                Err(ShellError::Ssh { host: host.clone(), said })
            }
            Self::Step(at) => step::failure(status, stderr)
                .map_or(Ok(()), |said| Err(ShellError::Step { node: at.node.clone(), said })),
            Self::Pod(at) => pod::failure(status, stderr)
                .map_or(Ok(()), |said| Err(ShellError::Pod { pod: at.name.clone(), said })),
            Self::Ssh(_) | Self::Here => Ok(()),
        }
    }

    /// Runs `script`, which ends its lines and says `go` once it wants the bytes of `file` by its standard input.
    ///
    /// # Errors
    /// As [`Shell::run`], or when `file` cannot be read.
    pub(crate) async fn send(
        &self,
        script: &str,
        file: &Path,
        limit: Duration,
    ) -> Result<Ran, ShellError> {
        let child = self.start(Stdio::piped(), Stdio::piped())?;
        let leader = child.id();
        match tokio::time::timeout(limit, self.send_to(child, script, file)).await {
            Ok(ran) => ran,
            Err(_) => {
                end_group(leader);
                Err(ShellError::TimedOut { host: self.name().to_owned(), limit })
            }
        }
    }

    async fn send_to(
        &self,
        mut child: Child,
        script: &str,
        file: &Path,
    ) -> Result<Ran, ShellError> {
        let pipe = |source| ShellError::Pipe { host: self.name().to_owned(), source };
        let mut bytes = tokio::fs::File::open(file).await.map_err(pipe)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let sending = async {
            let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return };
            // One that ends before it has read everything says why by its status.
            let _ = stdin.write_all(script.as_bytes()).await;
            let mut lines = tokio::io::BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "go" {
                    let _ = tokio::io::copy(&mut bytes, &mut stdin).await;
                    break;
                }
            }
            let _ = stdin.shutdown().await;
        };
        let (out, ()) = tokio::join!(child.wait_with_output(), sending);
        let out = out.map_err(pipe)?;
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        self.check(out.status, &stderr)?;
        Ok(Ran { status: out.status.code(), stdout: String::new(), stderr })
    }

    /// Starts a shell that takes its script by standard input. It ends when the value is dropped.
    pub(crate) fn start(&self, stdout: Stdio, stderr: Stdio) -> Result<Child, ShellError> {
        let mut command = Command::from(self.command());
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        command.kill_on_drop(true);
        command.spawn().map_err(|source| ShellError::Start { program: self.program(), source })
    }

    const fn program(&self) -> &'static str {
        match self {
            Self::Here => "sh",
            Self::Ssh(_) => "ssh",
            Self::Step(_) => "srun",
            Self::Pod(_) => "kubectl",
        }
    }

    /// What starts a shell that takes its script by standard input.
    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = match self {
            Self::Step(step) => step.command(),
            Self::Pod(pod) => pod.command(),
            Self::Here | Self::Ssh(_) => std::process::Command::new(self.program()),
        };
        match self {
            Self::Here => {
                command.arg("-s");
            }
            // `--`: a name that begins with a dash is no option. `exec`: no shell of the user's own in
            // between, whichever it is.
            Self::Ssh(host) => {
                command.args(SSH_OPTIONS).args(["-T", "--", host, "exec sh -s"]);
            }
            Self::Step(_) | Self::Pod(_) => {}
        }
        // A group of its own: Ctrl-C is for scalebeam, which has yet to take things down over it.
        command.process_group(0);
        command
    }
}

/// Ends a shell with everything that it runs on this machine.
pub(crate) fn end_group(leader: Option<u32>) {
    let pid = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: nothing to end.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// Does all of `tasks` at the same time; what came of them is in their order, absent where one broke off.
/// Those that are still at work end when this is given up.
pub(crate) async fn side_by_side<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<Option<T>> {
    let mut set = JoinSet::new();
    for (at, task) in tasks.into_iter().enumerate() {
        set.spawn(async move { (at, task.await) });
    }
    let mut out: Vec<Option<T>> = std::iter::repeat_with(|| None).take(set.len()).collect();
    while let Some(done) = set.join_next().await {
        if let Ok((at, came)) = done
            && let Some(place) = out.get_mut(at)
        {
            *place = Some(came);
        }
    }
    out
}

/// What to ask a host, and how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) shell: Shell,
    pub(crate) script: String,
    pub(crate) limit: Duration,
}

/// Asks all of `questions` at the same time; the answers are in their order.
pub(crate) async fn ask_all(questions: Vec<Question>) -> Vec<Result<Ran, ShellError>> {
    let broke_off = |q: &Question| ShellError::Pipe {
        host: q.shell.name().to_owned(),
        source: io::Error::other("the question broke off"),
    };
    let asks = questions
        .clone()
        .into_iter()
        .map(|Question { shell, script, limit }| async move { shell.run(&script, limit).await });
    let answers = side_by_side(asks).await;
    let pairs = questions.iter().zip(answers);
    pairs.map(|(q, answer)| answer.unwrap_or_else(|| Err(broke_off(q)))).collect()
}

/// `text` as one word of a shell, whatever it holds.
pub fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_script_comes_in_by_standard_input_and_its_status_comes_back() {
        let ran = Shell::Here.run("echo out; echo err >&2; exit 7", LIMIT).await.unwrap();
        let expected = Ran { status: Some(7), stdout: "out\n".into(), stderr: "err\n".into() };
        assert_eq!(ran, expected);
    }

    #[tokio::test]
    async fn bytes_are_sent_once_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        // Whatever a shell reads ahead must not be taken from it.
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&from, &bytes).unwrap();
        let script = format!("t() {{ echo go; head -c 300000 > {}; }}\nt\n", to.display());
        let ran = Shell::Here.send(&script, &from, LIMIT).await.unwrap();
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        assert!(std::fs::read(&to).unwrap() == bytes);
        let ran = Shell::Here.send("echo no >&2; exit 3\n", &from, LIMIT).await.unwrap();
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(3), "no\n"));
    }

    #[tokio::test]
    async fn any_text_is_one_word() {
        for text in ["plain", "", "two words", "it's", "$HOME `id` \"q\" \\ * ;", "a\nb", "ü"] {
            let script = format!("printf %s {}", quote(text));
            assert_eq!(Shell::Here.run(&script, LIMIT).await.unwrap().stdout, text);
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_with_its_children() {
        let limit = Duration::from_millis(300);
        let script = "sleep 54321 & echo $! >&2; wait";
        let error = Shell::Here.run(script, limit).await.unwrap_err();
        assert!(matches!(error, ShellError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn what_ssh_says_leads_to_a_hint() {
        for (said, hint) in [
            ("Host key verification failed.", "not known yet"),
            ("gpu-1: Permission denied (publickey).", "never types a password"),
            ("Could not resolve hostname gpu-1: Name or service not known", "ssh_config"),
            ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "ssh-keygen -R gpu-1"),
            ("Connection refused", "make ssh"),
        ] {
            let error = ShellError::Ssh { host: "gpu-1".into(), said: said.into() };
            assert!(error.hint().contains(hint), "{said}: {}", error.hint());
        }
    }
}
