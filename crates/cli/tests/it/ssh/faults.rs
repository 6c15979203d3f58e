//! Faults at any moment of a life: whatever happens, nothing is left, nothing hangs, and whoever failed
//! says where, and what to do.

use super::{Live, engines, experiment, nothing_left, runs};
use crate::hosts::{Hosts, fill};
use crate::interrupt::signal;
use crate::support::wait_for;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// What goes wrong in one life of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ScalebeamKilled,
    EngineKilled,
    ConnectionKilled,
    LinkCut,
    Interrupted,
    /// A host loses its power.
    HostGone,
    /// Somebody else takes the port of an engine.
    PortTaken,
    /// The disk of a host is full.
    HostDiskFull,
    /// The disk that the run is written to is full.
    OwnDiskFull,
}

const FAULTS: [Fault; 9] = [
    Fault::ScalebeamKilled,
    Fault::EngineKilled,
    Fault::ConnectionKilled,
    Fault::LinkCut,
    Fault::Interrupted,
    Fault::HostGone,
    Fault::PortTaken,
    Fault::HostDiskFull,
    Fault::OwnDiskFull,
];

impl Fault {
    /// How a life that meets it may end. 0 and 3: it was over already, or bore it.
    const fn may_end_with(self) -> &'static [Option<i32>] {
        match self {
            Self::ScalebeamKilled => &[None, Some(0)],
            Self::Interrupted => &[Some(130), Some(0)],
            Self::OwnDiskFull => &[Some(0), Some(2), Some(3), Some(4)],
            _ => &[Some(0), Some(3), Some(4)],
        }
    }
}

/// Pids of the connections that the run holds.
fn connections(hosts: &Hosts) -> Vec<u32> {
    let config = hosts.path("ssh_config").display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(&config) && line.contains("/usr/bin/ssh")
    };
    pids.filter(is_ours).collect()
}

/// What a fault leaves that is the test's own to take away.
#[derive(Default)]
struct Struck {
    squatter: Option<Child>,
    filler: Option<PathBuf>,
}

impl Struck {
    fn filling(dir: &Path) -> Self {
        Self { filler: Some(fill(dir)), ..Self::default() }
    }

    fn mend(self, fault: Fault, hosts: &mut Hosts) {
        if let Some(mut squatter) = self.squatter {
            let _ = squatter.kill();
            squatter.wait().unwrap();
        }
        if let Some(filler) = self.filler {
            std::fs::remove_file(filler).unwrap();
        }
        match fault {
            Fault::HostGone => hosts.revive("b"),
            Fault::LinkCut => {
                hosts.link("b", "up");
                wait_for("the link", || hosts.ssh("b", "true").code == Some(0));
            }
            _ => {}
        }
    }
}

const SQUAT: &str = "import socket, time\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, \
                     socket.SO_REUSEADDR, 1)\ns.bind(('10.77.0.2', 8101))\ns.listen()\ntime.sleep(600)\n";

fn strike(fault: Fault, live: &Live, hosts: &Hosts) -> Struck {
    match fault {
        Fault::ScalebeamKilled => signal(live.child.id(), "KILL"),
        Fault::Interrupted => signal(live.child.id(), "INT"),
        Fault::LinkCut => hosts.link("b", "down"),
        Fault::HostGone => hosts.lose("b"),
        Fault::EngineKilled => {
            if let Some(pid) = engines(hosts).last() {
                signal(u32::try_from(*pid).unwrap(), "KILL");
            }
        }
        Fault::ConnectionKilled => {
            if let Some(pid) = connections(hosts).last() {
                signal(*pid, "KILL");
            }
        }
        Fault::PortTaken => {
            let squatter = Some(hosts.start_on("b", &["python3", "-c", SQUAT]));
            return Struck { squatter, ..Struck::default() };
        }
        Fault::HostDiskFull => return Struck::filling(&hosts.tmp_seen_there("b")),
        Fault::OwnDiskFull => return Struck::filling(&runs(hosts)),
    }
    Struck::default()
}

/// Waits for the end of a life; it hangs where that takes two minutes.
fn end_of(live: &mut Live) -> Option<std::process::ExitStatus> {
    for _ in 0..2_400 {
        if let Some(status) = live.child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// One life with one fault after `delay_ms`; afterwards nothing is left, and whoever failed said why.
fn live_through(fault: Fault, delay_ms: u64) {
    let mut hosts = Hosts::new(&["a", "b"]);
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 400\nwarmup = 4\ntimeout = \"5s\"\n";
    let file = experiment(&hosts, &["a", "b"], "ttft = \"20ms\", itl = \"4ms\"", load);
    hosts.small_disk(runs(&hosts));
    hosts.disk_of("b", "size=4m");
    let mut live = Live::start(&hosts, &file.display().to_string());
    std::thread::sleep(Duration::from_millis(delay_ms));
    let struck = strike(fault, &live, &hosts);
    let status = end_of(&mut live);
    let said = std::fs::read_to_string(hosts.path("run.log")).unwrap();
    let life = format!("{fault:?} after {delay_ms} ms");
    let status = status.unwrap_or_else(|| panic!("{life}: it hangs\n{said}"));
    assert!(fault.may_end_with().contains(&status.code()), "{life}: {status}\n{said}");
    explained(fault, status.code(), &said, &life);
    struck.mend(fault, &mut hosts);
    let out = runs(&hosts).display().to_string();
    let down = hosts.say(&["down", "--out", &out]);
    assert_eq!(down.code, Some(0), "{life}: {down:?}\n{said}");
    nothing_left(&hosts);
}

/// A failure names the host and the next step; where our own disk is full, the file.
#[track_caller]
fn explained(fault: Fault, code: Option<i32>, said: &str, life: &str) {
    if !matches!(code, Some(2 | 4)) {
        return;
    }
    assert!(said.contains("hint:"), "{life}: {said}");
    let place = if fault == Fault::OwnDiskFull { "No space left on device" } else { "host " };
    assert!(said.contains(place), "{life}: {said}");
}

/// `SCALEBEAM_FAULTS` lives, one of each fault by default, each at a moment of its own.
#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_faults_at_any_moment_leave_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let lives = number("SCALEBEAM_FAULTS").unwrap_or(FAULTS.len() as u64);
    let from = number("SCALEBEAM_FAULTS_FROM").unwrap_or(0);
    for life in from..from + lives {
        let fault = FAULTS[usize::try_from(life).unwrap() % FAULTS.len()];
        // Spread over the 5 s of a life, without a pattern that the faults share.
        live_through(fault, life.wrapping_mul(2_654_435_761) % 5_000);
    }
}
