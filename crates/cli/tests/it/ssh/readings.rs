//! What an agent on a host reads, against known truth: a link of a known rate, a process of known use.

use crate::hosts::{Hosts, sh};
use crate::support::{json_lines, wait_for};
use scalebeam_model::telemetry::agent::{Ask, Received, Say, Watching, line};
use scalebeam_model::telemetry::{Part, Quantity, Telemetry, TelemetryPlan, Window, window};
use scalebeam_model::units::Nanos;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const INTERVAL: Nanos = Nanos::from_millis(200);

/// An agent on a host, and a way to it.
struct Agent {
    agent: Child,
    way: Child,
    received: Received,
    lines: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn on(hosts: &Hosts, host: &str, marker: &str) -> Self {
        let dir = hosts.path("agent");
        std::fs::create_dir(&dir).unwrap();
        let path = dir.display().to_string();
        let exe = env!("CARGO_BIN_EXE_scalebeam");
        let agent = hosts.start_on(host, &[exe, "agent", &path]);
        wait_for("the agent", || dir.join("agent.sock").exists());
        let mut way = Command::new(exe)
            .args(["agent", "--attach", &path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(way.stdout.take().unwrap());
        let mut agent = Self { agent, way, received: Received::default(), lines };
        let plan = TelemetryPlan { interval: INTERVAL, gpu: false, ..TelemetryPlan::default() };
        let watching = Watching {
            host: host.to_owned(),
            plan,
            marker: marker.to_owned(),
            id_variable: "SCALEBEAM_PROCESS".into(),
            ..Watching::default()
        };
        agent.ask(&Ask::From { byte: 0 });
        agent.ask(&Ask::Watch(Box::new(watching)));
        agent
    }

    fn ask(&mut self, ask: &Ask) {
        self.way.stdin.as_mut().unwrap().write_all(line(ask).as_bytes()).unwrap();
    }

    /// What was read while `span` passed.
    fn watch(&mut self, span: Duration) -> Telemetry {
        self.ask(&Ask::Begin { measure: 1 });
        std::thread::sleep(span);
        self.ask(&Ask::End { measure: 1 });
        while !self.received.has_ended(1) {
            let mut line = Vec::new();
            assert!(self.lines.read_until(b'\n', &mut line).unwrap() > 0, "it ended");
            let said = self.received.take(line.strip_suffix(b"\n").unwrap());
            assert!(matches!(said, None | Some(Say::Hello { .. })), "{said:?}");
        }
        self.received.readings(INTERVAL)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for child in [&mut self.way, &mut self.agent] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The rate of a counter from its first reading to its last, and when these were.
fn rate(found: &Telemetry, part: Part, name: &str, quantity: Quantity) -> (f64, Nanos, Nanos) {
    let device = found.devices(part).into_iter().find(|d| d.name.starts_with(name));
    let series = found.of(device.unwrap_or_else(|| panic!("no {name}")), quantity).unwrap();
    let (first, last) = (series.readings[0], series.readings[series.readings.len() - 1]);
    let window = Window { from: first.at(), to: last.at() };
    (window::counter(series, window, INTERVAL).unwrap().rate, window.from, window.to)
}

#[track_caller]
fn within_two_percent(what: &str, read: f64, truth: f64) {
    assert!((read / truth - 1.0).abs() < 0.02, "{what}: read {read}, truth {truth}");
}

/// Sends datagrams as fast as the link takes them, and says how many bytes with their heads that were.
const FLOOD: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = 0
while True:
    for _ in range(50):
        s.sendto(bytes(1400), ('10.77.0.254', 9))
    n += 50 * (1400 + 8 + 20 + 14)
    print('{"at": %f, "total": %f}' % (time.monotonic(), n), flush=True)
"#;

/// Works half of each hundredth of a second, and says its own CPU time beside the wall's.
const BURN: &str = r#"
import resource, time
while True:
    until = time.monotonic() + 0.005
    while time.monotonic() < until:
        pass
    time.sleep(0.005)
    u = resource.getrusage(resource.RUSAGE_SELF)
    print('{"at": %f, "total": %f}' % (time.monotonic(), u.ru_utime + u.ru_stime), flush=True)
"#;

/// A Python program on host `a`, which says what it does into a file.
struct Truth {
    child: Child,
    said: PathBuf,
}

impl Truth {
    fn start(hosts: &Hosts, name: &str, program: &str) -> Self {
        let said = hosts.path(name);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts.namespace("a"), "python3", "-c", program]);
        command.envs([("TRUTH", "mine"), ("SCALEBEAM_PROCESS", &format!("d/0/{name}"))]);
        let child = command.stdout(std::fs::File::create(&said).unwrap()).spawn().unwrap();
        Self { child, said }
    }

    /// By how much its total grew in a second, from `from` to `to`.
    fn rate(&self, from: Nanos, to: Nanos) -> f64 {
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

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_the_rate_of_a_link_and_the_cores_of_a_process_are_read_within_two_percent() {
    let hosts = Hosts::new(&["a"]);
    let ns = hosts.namespace("a");
    sh(&format!("tc -n {ns} qdisc add dev eth0 root tbf rate 80mbit burst 32kb latency 200ms"));
    let burn = Truth::start(&hosts, "burn", BURN);
    let flood = Truth::start(&hosts, "flood", FLOOD);
    let mut agent = Agent::on(&hosts, "a", "TRUTH=mine");
    // By then the queue is full, and what enters it is what leaves it.
    std::thread::sleep(Duration::from_secs(1));
    let found = agent.watch(Duration::from_secs(6));
    let (sent, from, to) = rate(&found, Part::Nic, "eth0", Quantity::Sent);
    within_two_percent("bytes per second", sent, flood.rate(from, to));
    assert!(sent < 10e6 * 1.02, "the link carries no more: {sent}");
    let (cores, from, to) = rate(&found, Part::Process, "d/0/burn", Quantity::ProcessCpu);
    within_two_percent("cores of a process", cores, burn.rate(from, to));
}
