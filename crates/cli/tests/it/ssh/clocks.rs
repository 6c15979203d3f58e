//! Clocks that are set and counters that begin anew on hosts, while they are measured.

use super::machines::{NINE_SECONDS, SLOW, results_of, under_load, watched};
use super::{nothing_left, only_run};
use crate::hosts::{Hosts, sh};
use crate::known::{CORES, Truth, measured, within_two_percent_and_a_reading};
use crate::usage::{cores_in_use, mean, rows, usage};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// An agent whose clock can be set: this scalebeam, and on the way to it every time that it tells is later by what stands
/// in a file by then. No system lets anybody set CLOCK_MONOTONIC; a machine that slept or was moved has done so.
const SETTABLE: &str = r#"#!/usr/bin/env python3
import json, os, subprocess, sys
exe, steps = 'EXE', 'STEPS'
if '--attach' not in sys.argv:
    os.execv(exe, [exe, *sys.argv[1:]])
agent = subprocess.Popen([exe, *sys.argv[1:]], stdout=subprocess.PIPE)
for line in agent.stdout:
    said = json.loads(line)
    try:
        with open(os.path.join(steps, os.path.basename(sys.argv[-1]))) as file:
            by = int(file.read())
    except FileNotFoundError:
        by = 0
    for time in ('got', 'sent', 'from', 'to'):
        if time in said:
            said[time] += by
    sys.stdout.write(json.dumps(said) + '\n')
    sys.stdout.flush()
"#;

fn codes<'a>(usage: &'a Value, device: &str) -> Vec<(&'a str, &'a str)> {
    let flaws = usage["flaws"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = flaws.iter().filter(|f| f["device"] == device);
    of.map(|f| (f["quantity"].as_str().unwrap(), f["code"].as_str().unwrap())).collect()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_clock_that_is_set_while_the_load_runs_is_told_and_gives_no_wrong_number() {
    let hosts = Hosts::new(&["a", "b"]);
    let (program, steps) = (hosts.path("settable"), hosts.path("steps"));
    std::fs::create_dir(&steps).unwrap();
    let text = SETTABLE.replace("EXE", env!("CARGO_BIN_EXE_scalebeam"));
    std::fs::write(&program, text.replace("STEPS", &steps.display().to_string())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let telemetry = format!("interval = \"200ms\"\nagent = \"{}\"", program.display());
    for (forward, back) in [(5.0, -5.0), (0.05, -0.05)] {
        let cores = Truth::start(&hosts, "a", "cores", CORES);
        let live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, &telemetry));
        std::thread::sleep(Duration::from_secs(3));
        for (host, by) in [("a", forward), ("b", back)] {
            std::fs::write(steps.join(format!("agent-{host}")), format!("{:.0}", by * 1e9))
                .unwrap();
        }
        let results = results_of(live, &hosts);
        let usage = usage(&results);
        let (from, to) = measured(&only_run(&hosts), "pair");
        for (host, by) in [("a", forward), ("b", back)] {
            let clock = rows(usage, "clocks", host)[0];
            let number = |name: &str| clock[name].as_f64().unwrap_or_else(|| panic!("{clock}"));
            assert!((number("stepped_s") - by).abs() < 0.04, "{clock}");
            assert!(number("bound_s") >= by.abs() - 0.04, "{clock}");
            let machine = rows(usage, "hosts", host)[0];
            let codes = codes(usage, host);
            // A reading is as wide as its time is uncertain, and one of ten seconds is of no use.
            if by.abs() > 1.0 {
                assert_eq!(machine["cpu_pct"], Value::Null, "{usage:#}");
                assert!(codes.contains(&("cpu_busy_s", "clock_uncertain")), "{codes:?}");
                assert!(codes.contains(&("cpu_busy_s", "too_few_readings")), "{codes:?}");
                let doubts = results["points"][0]["trust"]["reasons"].to_string();
                assert!(doubts.contains("clock_uncertain"), "{doubts}");
            } else {
                let read = cores_in_use(machine);
                let both = (read, cores.rate(from, to));
                within_two_percent_and_a_reading("cores in use", both, (from, to));
                assert_eq!(codes, [], "{usage:#}");
            }
            std::fs::remove_file(steps.join(format!("agent-{host}"))).unwrap();
        }
        nothing_left(&hosts);
        std::fs::remove_dir_all(super::runs(&hosts)).unwrap();
    }
}

/// An interface on host `a` that has sent a megabyte.
fn make_interface(hosts: &Hosts) {
    let ns = hosts.namespace("a");
    sh(&format!(
        "ip -n {ns} link add x0 type veth peer name x1; ip -n {ns} addr add 10.99.0.1/24 dev x0; \
         ip -n {ns} link set x0 up; ip -n {ns} link set x1 up; \
         ip -n {ns} neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev x0"
    ));
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_an_interface_that_is_made_anew_while_the_load_runs_has_no_rate_and_says_why() {
    let hosts = Hosts::new(&["a", "b"]);
    make_interface(&hosts);
    let send = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for _ in range(1000): s.sendto(bytes(1000), ('10.99.0.2', 9))";
    assert_eq!(hosts.on_host("a", &["python3", "-c", send]).code, Some(0));
    let live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, "interval = \"200ms\""));
    std::thread::sleep(Duration::from_secs(2));
    sh(&format!("ip -n {} link del x0", hosts.namespace("a")));
    make_interface(&hosts);
    let results = results_of(live, &hosts);
    let usage = usage(&results);
    let links = rows(usage, "links", "a");
    let named = |name: &str| *links.iter().find(|link| link["name"] == name).unwrap();
    assert_eq!(named("x0")["sent_gbps"], Value::Null, "{links:#?}");
    let codes = codes(usage, "a nic x0");
    assert!(codes.contains(&("sent_bytes", "counter_reset")), "{codes:?}");
    assert!(mean(&named("eth0")["sent_gbps"]) > 0.0, "{links:#?}");
    nothing_left(&hosts);
}
