//! What an agent on a host reads, against known truth: a link of a known rate, a process of known use.

use crate::hosts::{Hosts, sh};
use crate::known::{BURN, FLOOD, Truth, within_two_percent};
use crate::support::wait_for;
use scalebeam_model::telemetry::agent::{Ask, Received, Say, Watching, line};
use scalebeam_model::telemetry::{Part, Quantity, Telemetry, TelemetryPlan, Window, window};
use scalebeam_model::units::Nanos;
use std::io::{BufRead, BufReader, Write};
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

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_the_rate_of_a_link_and_the_cores_of_a_process_are_read_within_two_percent() {
    let hosts = Hosts::new(&["a"]);
    let ns = hosts.namespace("a");
    sh(&format!("tc -n {ns} qdisc add dev eth0 root tbf rate 80mbit burst 32kb latency 200ms"));
    let burn = Truth::start(&hosts, "a", "burn", BURN);
    let flood = Truth::start(&hosts, "a", "flood", FLOOD);
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
