//! What the tests share: the binary, servers that end with their test, and a look at `/proc`.

use scalebeam_model::units::Nanos;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn scalebeam() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scalebeam"));
    command.env_remove("SCALEBEAM_RUN").env("NO_COLOR", "1").env("COLUMNS", "110");
    command.stdin(Stdio::null());
    command
}

/// What `ci/setup-engines` says of a real engine.
#[track_caller]
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run ./ci/test --all"))
}

/// `experiments/{name}`, whose engines move key-value blocks by NIXL, with the threads of NIXL and vLLM that wait by
/// looking again put to sleep instead: on two cores they leave nothing to anybody else.
pub(crate) fn with_nixl(name: &str) -> String {
    let text = std::fs::read_to_string(root().join("experiments").join(name)).unwrap();
    let calm = format!("\nLD_PRELOAD = \"{}\"\nUCX_TLS", setting("SCALEBEAM_E2E_SPINS_SLEEP"));
    let calmed = text.replacen("\nUCX_TLS", &calm, 1);
    assert_ne!(calmed, text, "{name} says nothing of UCX");
    calmed
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(out: Output) -> Self {
        Self {
            code: out.status.code(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{self:#?}"))
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

pub(crate) fn say<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Said {
    scalebeam().args(args).output().unwrap().into()
}

/// An experiment file in a directory of its own, and a run directory beside it.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("experiment.toml"), text).unwrap();
        Self { dir }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("experiment.toml")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.dir.path().join("runs")
    }

    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = scalebeam();
        command.arg(verb).arg(self.file());
        if matches!(verb, "run" | "up" | "down") {
            command.arg("--out").arg(self.runs());
        }
        if verb == "run" {
            // It has tests of its own, and takes its time.
            command.args(["--selftest", "never"]);
        }
        command
    }

    pub(crate) fn say(&self, verb: &str, more: &[&str]) -> Said {
        self.command(verb).args(more).output().unwrap().into()
    }

    /// The one run directory.
    #[track_caller]
    pub(crate) fn run_dir(&self) -> PathBuf {
        let mut dirs: Vec<PathBuf> =
            std::fs::read_dir(self.runs()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs.remove(0)
    }
}

impl Drop for Lab {
    /// A test that fails must not leave engines running either.
    fn drop(&mut self) {
        if self.runs().exists() {
            let _ = scalebeam().arg("down").arg("--out").arg(self.runs()).output();
        }
    }
}

/// A free port, with free ones right after it. Below those that the system hands out to connections: one
/// of these would take a neighbour between the look and the use. Tests run side by side, each in a process
/// of its own, so the process says where to begin.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const NEIGHBOURS: u16 = 8;
    let first = u16::try_from(std::process::id() % 340).unwrap() * 64 + 10_000;
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = first + TAKEN.fetch_add(NEIGHBOURS, Ordering::Relaxed) % 1_024;
        if (port..port + NEIGHBOURS).all(is_free) {
            return port;
        }
    }
}

/// An experiment with emulated deployments `names`, each with fixed instants.
pub(crate) fn emulated(names: &[&str], params: &str, load: &str) -> String {
    let mut text = String::from(
        "schema = 1\nname = \"lab\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n[host.box]\ngpus = 8\ngpu = \"H100-SXM-80G\"\n",
    );
    for name in names {
        let port = free_port();
        text.push_str(&format!(
            "[[deploy]]\nname = \"{name}\"\nplatform = \"local\"\nengine = \"emulated\"\nport = {port}\n\
             place = [\"box:0\"]\nparams = {{ {params} }}\nstop = {{ grace = \"5s\" }}\n"
        ));
    }
    text.push_str(
        "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n",
    );
    text.push_str(&format!("[[load]]\nname = \"l\"\nworkload = \"w\"\n{load}\n"));
    text
}

/// Sentences as they were before a terminal broke their lines.
pub(crate) fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A server that ends with its test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program says first.
pub(crate) fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// `scalebeam serve` on a free port.
pub(crate) fn emulator(args: &[&str]) -> Server {
    let mut command = scalebeam();
    command.arg("serve").args(["--port", "0"]).args(args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let line = first_line(&mut child);
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    Server { child, url }
}

/// `scalebeam route` on a free port.
pub(crate) fn route(args: &[&str]) -> Server {
    let mut command = scalebeam();
    command.arg("route").args(["--port", "0"]).args(args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let line = first_line(&mut child);
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    Server { child, url }
}

/// The independent truth server, in Python, on a free port.
pub(crate) fn truth_server(args: &[&str]) -> Server {
    let script = root().join("tests-support/truth_server.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(["--port", "0"]).args(args);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let line = first_line(&mut child);
    let port = line.strip_prefix("listening ").unwrap_or_else(|| panic!("{line}")).to_owned();
    Server { child, url: format!("http://127.0.0.1:{port}") }
}

/// Processes that carry the mark of a run below `runs`, zombies apart.
pub(crate) fn marked_processes(runs: &Path) -> Vec<(i32, String)> {
    let mark =
        format!("SCALEBEAM_RUN_DIR={}", runs.canonicalize().unwrap_or(runs.into()).display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
        let of_run = environ.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes()));
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let is_zombie = stat.rsplit(')').next().is_some_and(|s| s.trim_start().starts_with('Z'));
        if of_run && !is_zombie {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Polls until `done`, and panics with `what` after a minute.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never happened: {what}");
}

/// Lines of a log of JSON objects.
pub(crate) fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// When a truth server wrote each token of a request, by its log.
pub(crate) fn writes(row: &Value) -> Vec<Nanos> {
    let all = row["write_ns"].as_array().unwrap();
    all.iter().map(|n| Nanos(n.as_u64().unwrap())).collect()
}
