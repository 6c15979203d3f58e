//! Load of known size on a host: programs that say themselves what they did, and when.

use crate::hosts::Hosts;
use crate::support::{json_lines, wait_for};
use scalebeam_model::units::Nanos;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// When the first trial of `deployment` was measured, by the clock of all programs of this machine.
pub(crate) fn measured(run_dir: &Path, deployment: &str) -> (Nanos, Nanos) {
    let file = run_dir.join(format!("points/{deployment}/l/c4/1/trial.json"));
    let trial: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let at = |name: &str| Nanos(trial["ended"]["info"]["measure"][name].as_u64().unwrap());
    (at("started_at"), at("ended_at"))
}

#[track_caller]
pub(crate) fn within_two_percent(what: &str, read: f64, truth: f64) {
    assert!((read / truth - 1.0).abs() < 0.02, "{what}: read {read}, truth {truth}");
}

/// The same, and beside it what a machine that others use may do within a reading of 200 ms at either end of the window.
#[track_caller]
pub(crate) fn within_two_percent_and_a_reading(
    what: &str,
    (read, truth): (f64, f64),
    (from, to): (Nanos, Nanos),
) {
    let bound = 0.02 + 2.0 * 0.2 / (to.as_secs_f64() - from.as_secs_f64());
    assert!(
        (read / truth - 1.0).abs() < bound,
        "{what}: read {read}, truth {truth}, within {bound}"
    );
}

/// Sends datagrams as fast as the link takes them, and says how many bytes with their heads that were.
pub(crate) const FLOOD: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = 0
while True:
    for _ in range(50):
        s.sendto(bytes(1400), ('10.77.0.254', 9))
    n += 50 * (1400 + 8 + 20 + 14)
    print('{"at": %f, "total": %f}' % (time.monotonic(), n), flush=True)
"#;

/// Sends 200 datagrams each hundredth of a second, and says how many bytes with their heads that were.
pub(crate) const PACED: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n, due = 0, time.monotonic()
while True:
    for _ in range(200):
        s.sendto(bytes(1400), ('10.77.0.254', 9))
    n += 200 * (1400 + 8 + 20 + 14)
    print('{"at": %f, "total": %f}' % (time.monotonic(), n), flush=True)
    due = max(due + 0.01, time.monotonic())
    time.sleep(max(0, due - time.monotonic()))
"#;

/// Works half of each hundredth of a second, and says its own CPU time beside the wall's.
pub(crate) const BURN: &str = r#"
import resource, time
while True:
    until = time.monotonic() + 0.005
    while time.monotonic() < until:
        pass
    time.sleep(0.005)
    u = resource.getrusage(resource.RUSAGE_SELF)
    print('{"at": %f, "total": %f}' % (time.monotonic(), u.ru_utime + u.ru_stime), flush=True)
"#;

/// Looks at the time that all cores of the machine were in use, waiting for a disk and stolen time apart.
pub(crate) const CORES: &str = r#"
import os, time
while True:
    with open('/proc/stat') as f:
        f = f.readline().split()[1:]
    busy = sum(int(f[i]) for i in (0, 1, 2, 5, 6)) / os.sysconf('SC_CLK_TCK')
    print('{"at": %f, "total": %f}' % (time.monotonic(), busy), flush=True)
    time.sleep(0.02)
"#;

/// A Python program on a host, which says what it does into a file.
pub(crate) struct Truth {
    child: Child,
    said: PathBuf,
}

impl Truth {
    pub(crate) fn start(hosts: &Hosts, host: &str, name: &str, program: &str) -> Self {
        let said = hosts.path(&format!("{host}-{name}"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts.namespace(host), "python3", "-c", program]);
        command.envs([("TRUTH", "mine"), ("SCALEBEAM_PROCESS", &format!("d/0/{name}"))]);
        let child = command.stdout(std::fs::File::create(&said).unwrap()).spawn().unwrap();
        Self { child, said }
    }

    /// By how much its total grew in a second, from `from` to `to`.
    pub(crate) fn rate(&self, from: Nanos, to: Nanos) -> f64 {
        let first_at = |n: Nanos| {
            let line = json_lines(&self.said)
                .into_iter()
                .find(|l| l["at"].as_f64().unwrap() >= n.as_secs_f64())?;
            Some((line["at"].as_f64().unwrap(), line["total"].as_f64().unwrap()))
        };
        wait_for("what it did by then", || first_at(to).is_some());
        let at = |n| first_at(n).unwrap();
        let ((t0, n0), (t1, n1)) = (at(from), at(to));
        (n1 - n0) / (t1 - t0)
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
