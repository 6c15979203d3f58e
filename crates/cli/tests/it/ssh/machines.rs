//! What is read of hosts that are reached by ssh: the agents there, and what becomes of them.
//!
//! Hosts of these tests share this machine's processes, so each of them could take those of all for its own.

use super::{LOAD, Live, experiment, nothing_left, only_run, run_args, runs};
use crate::hosts::{Hosts, fill};
use crate::interrupt::signal;
use crate::known::{CORES, Truth, measured, within_two_percent_and_a_reading};
use crate::support::{marked_processes, wait_for};
use crate::usage::{cores_in_use, mean, rows, usage, why};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FAST: &str = "ttft = \"10ms\", itl = \"2ms\"";
/// Some nine seconds of load.
pub(super) const SLOW: &str = "ttft = \"100ms\", itl = \"10ms\"";
pub(super) const NINE_SECONDS: &str =
    "mode = \"closed\"\nconcurrency = 4\nrequests = 200\nwarmup = 4\n";

/// The experiment of [`experiment`] with `telemetry` behind it.
pub(super) fn watched(hosts: &Hosts, params: &str, load: &str, telemetry: &str) -> String {
    let file = experiment(hosts, &["a", "b"], params, load);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "[telemetry]\n" + telemetry + "\n").unwrap();
    file.display().to_string()
}

fn run(hosts: &Hosts, file: &str) -> Value {
    let out = runs(hosts).display().to_string();
    let mut args = run_args(file, &out);
    args.push("--json");
    hosts.say(&args).expect_code(0).json()
}

/// Pids of agents and of ways to them: what waits for one is a shell.
fn of_agents(hosts: &Hosts, host: &str, is_way: bool) -> Vec<u32> {
    let is = |command: &str| {
        let id = command.contains(&format!("--id pair/agent/{host} "));
        !command.starts_with("sh ") && if is_way { command.contains("--attach") } else { id }
    };
    let all = marked_processes(&runs(hosts)).into_iter();
    all.filter(|(_, command)| is(command)).map(|(pid, _)| u32::try_from(pid).unwrap()).collect()
}

fn agent(hosts: &Hosts, host: &str) -> u32 {
    wait_for("an agent", || !of_agents(hosts, host, false).is_empty());
    of_agents(hosts, host, false)[0]
}

/// Begins a run; when this returns its load is under way.
pub(super) fn under_load(hosts: &Hosts, file: &str) -> Live {
    let live = Live::start(hosts, file);
    wait_for("the load", || crate::interrupt::records(&runs(hosts), "pair") > 4);
    live
}

/// The results of a run that ends with 0.
pub(super) fn results_of(mut live: Live, hosts: &Hosts) -> Value {
    let status = live.child.wait().unwrap();
    let said = std::fs::read_to_string(hosts.path("run.log")).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    let text = std::fs::read(only_run(hosts).join("results.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_every_host_is_watched_by_an_agent_that_goes_away() {
    let hosts = Hosts::new(&["a", "b"]);
    let results = run(&hosts, &watched(&hosts, FAST, LOAD, "interval = \"100ms\""));
    let usage = usage(&results);
    for host in ["a", "b"] {
        let machine = rows(usage, "hosts", host)[0];
        assert_eq!(machine["serves"], true, "{usage:#}");
        assert!(mean(&machine["cpu_pct"]) > 0.0 && mean(&machine["memory_pct"]) > 0.0, "{machine}");
        let links = rows(usage, "links", host);
        let link = links.iter().find(|link| link["name"] == "eth0").unwrap();
        assert!(mean(&link["received_gbps"]) > 0.0 && mean(&link["sent_gbps"]) > 0.0, "{link}");
        let processes = rows(usage, "processes", host);
        let named = |name: &str| {
            let is = |p: &&&Value| p["name"].as_str().unwrap().starts_with(name);
            processes.iter().filter(|p| !p["name"].as_str().unwrap().ends_with(" sh")).find(is)
        };
        let serve = named("pair/").unwrap_or_else(|| panic!("no engine in {processes:#?}"));
        assert_eq!(serve["role"], "aggregated", "{serve}");
        assert!(mean(&serve["memory_bytes"]) > 1e6, "{serve}");
        let engines = processes.iter().filter(|p| p["role"] == "aggregated");
        let mut ids: Vec<&str> =
            engines.filter_map(|p| p["name"].as_str()?.split(' ').next()).collect();
        ids.dedup();
        let own = if host == "a" { "pair/0/serve" } else { "pair/1/serve" };
        assert_eq!(ids, [own], "{processes:#?}");
        let own = named("telemetry agent").unwrap_or_else(|| panic!("no agent in {processes:#?}"));
        assert!(mean(&own["cpu_cores"]) < 0.5, "{own}");
        let clock = rows(usage, "clocks", host)[0];
        // They have this machine's clock.
        let (offset, bound) =
            (clock["offset_s"].as_f64().unwrap(), clock["bound_s"].as_f64().unwrap());
        assert!(offset.abs() <= bound && bound < 0.1, "{clock}");
        assert_eq!(why(usage, host), "");
    }
    nothing_left(&hosts);
    let journal = std::fs::read_to_string(only_run(&hosts).join("journal.jsonl")).unwrap();
    for host in ["a", "b"] {
        let id = format!("\"process\":\"pair/agent/{host}\"");
        let events = |name: &str| {
            let of = |line: &&str| line.contains(name) && line.contains(&id);
            journal.lines().filter(of).count()
        };
        assert_eq!(events("process_intent"), 1, "{journal}");
        assert_eq!(events("process_started"), 1, "{journal}");
        assert_eq!(events("process_gone"), 1, "{journal}");
    }
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_each_bring_up_of_a_deployment_has_agents_of_its_own() {
    let hosts = Hosts::new(&["a", "b"]);
    let load = format!("{LOAD}repeats = 2\n");
    let file = watched(&hosts, FAST, &load, "interval = \"100ms\"");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("[model]", "interleave = \"bring-ups\"\n[model]", 1))
        .unwrap();
    let results = run(&hosts, &file);
    let trials = results["points"][0]["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 2);
    for (trial, bring_up) in trials.iter().zip(1..) {
        assert_eq!(trial["bring_up"], bring_up, "{trial:#}");
        for host in ["a", "b"] {
            assert!(mean(&rows(&trial["usage"], "hosts", host)[0]["cpu_pct"]) > 0.0, "{trial:#}");
        }
    }
    nothing_left(&hosts);
    let journal = std::fs::read_to_string(only_run(&hosts).join("journal.jsonl")).unwrap();
    for process in ["pair/agent/a", "pair/agent/b", "pair/0/serve", "pair/1/serve"] {
        let id = format!("\"process\":\"{process}\"");
        for name in ["process_intent", "process_gone"] {
            let of = |line: &&str| line.contains(name) && line.contains(&id);
            assert_eq!(journal.lines().filter(of).count(), 2, "{name} {process}: {journal}");
        }
    }
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_cut_link_to_an_agent_costs_no_reading() {
    let hosts = Hosts::new(&["a", "b"]);
    let live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, "interval = \"200ms\""));
    // Requests in flight bear two seconds without a link.
    hosts.link("b", "down");
    std::thread::sleep(Duration::from_secs(2));
    hosts.link("b", "up");
    let ways = of_agents(&hosts, "", true);
    assert_eq!(ways.len(), 2);
    ways.iter().for_each(|way| signal(*way, "KILL"));
    let results = results_of(live, &hosts);
    let usage = usage(&results);
    for host in ["a", "b"] {
        assert_eq!(why(usage, host), "");
        assert!(mean(&rows(usage, "hosts", host)[0]["cpu_pct"]) > 0.0, "{usage:#}");
    }
    let flaws = usage["flaws"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Of the ways that were killed the other hosts see the processes.
    let of_ways = |f: &&Value| f["device"].as_str().unwrap().contains("pair/agent/");
    assert_eq!(flaws.iter().find(|f| !of_ways(f)), None, "{usage:#}");
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_an_agent_that_is_killed_or_suspended_is_told_and_gives_no_wrong_number() {
    let hosts = Hosts::new(&["a", "b"]);
    // Before the window begins, or it would tell of another.
    let cores = Truth::start(&hosts, "b", "cores", CORES);
    let live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, "interval = \"200ms\""));
    let (killed, suspended) = (agent(&hosts, "a"), agent(&hosts, "b"));
    signal(killed, "KILL");
    signal(suspended, "STOP");
    std::thread::sleep(Duration::from_secs(4));
    signal(suspended, "CONT");
    let results = results_of(live, &hosts);
    let usage = usage(&results);
    assert!(why(usage, "a").contains("its telemetry agent was ended"), "{usage:#}");
    assert_eq!(rows(usage, "hosts", "a")[0]["cpu_pct"], Value::Null, "{usage:#}");
    // What the cores did meanwhile they counted; when they did most of it nobody saw.
    let machine = rows(usage, "hosts", "b")[0];
    let read = cores_in_use(machine);
    let (from, to) = measured(&only_run(&hosts), "pair");
    let both = (read, cores.rate(from, to));
    within_two_percent_and_a_reading("cores in use", both, (from, to));
    assert_eq!(machine["cpu_pct"]["max"], Value::Null, "{machine}");
    let processes = rows(usage, "processes", "b");
    let serves = |p: &&&Value| p["role"] == "aggregated" && p["cpu_cores"]["mean"].is_f64();
    let serve = processes.iter().find(serves).unwrap_or_else(|| panic!("{processes:#?}"));
    assert_eq!(serve["cpu_cores"]["max"], Value::Null, "{serve}");
    // An interface may have been made anew meanwhile, and memory is no count.
    assert_eq!(machine["memory_pct"], Value::Null, "{machine}");
    assert!(rows(usage, "links", "b").iter().all(|l| l["sent_gbps"].is_null()), "{usage:#}");
    let flaws = usage["flaws"].as_array().unwrap();
    let code = |host: &str| {
        let of = |f: &&Value| f["device"] == host && f["quantity"] == "cpu_busy_s";
        flaws.iter().find(of).map(|f| f["code"].as_str().unwrap())
    };
    assert_eq!((code("a"), code("b")), (Some("not_covered"), Some("gap")), "{flaws:#?}");
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_after_kill_9_down_takes_the_agents_away() {
    let hosts = Hosts::new(&["a", "b"]);
    let mut live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, "interval = \"1s\""));
    let (a, b) = (agent(&hosts, "a"), agent(&hosts, "b"));
    assert_ne!(a, b);
    signal(live.child.id(), "KILL");
    live.child.wait().unwrap();
    let out = runs(&hosts).display().to_string();
    let said = hosts.say(&["down", "--out", &out]).expect_code(0);
    for host in ["a", "b"] {
        let line = format!("pair/agent/{host} on {host}: terminated");
        assert!(said.stdout.contains(&line), "{}", said.stdout);
    }
    nothing_left(&hosts);
}

/// This scalebeam without what only a debugger reads, which nobody may execute: it has to be copied.
fn to_be_copied(hosts: &Hosts) -> PathBuf {
    let path = hosts.path("agent-program");
    crate::hosts::sh(&format!(
        "strip -o {0} {1}; chmod 644 {0}",
        path.display(),
        env!("CARGO_BIN_EXE_scalebeam")
    ));
    path
}

fn with_agent(path: &Path) -> String {
    format!("interval = \"100ms\"\nagent = \"{}\"", path.display())
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_an_agent_is_copied_to_where_it_is_not_and_a_full_disk_is_told() {
    let hosts = Hosts::new(&["a", "b"]);
    let program = to_be_copied(&hosts);
    hosts.disk_of("b", "size=4m");
    let results = run(&hosts, &watched(&hosts, FAST, LOAD, &with_agent(&program)));
    let usage = usage(&results);
    assert_eq!(why(usage, "a"), "");
    assert!(mean(&rows(usage, "hosts", "a")[0]["cpu_pct"]) > 0.0, "{usage:#}");
    let said = why(usage, "b");
    assert!(said.contains("No space left") && said.contains("make room"), "{said}");
    let journal = std::fs::read_to_string(only_run(&hosts).join("journal.jsonl")).unwrap();
    assert!(journal.contains("agent-a.program"), "{journal}");
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_disk_that_fills_up_is_told_by_the_agent() {
    let hosts = Hosts::new(&["a", "b"]);
    hosts.disk_of("b", "size=4m");
    let live = under_load(&hosts, &watched(&hosts, SLOW, NINE_SECONDS, "interval = \"200ms\""));
    let filler = fill(&hosts.tmp_seen_there("b"));
    let results = results_of(live, &hosts);
    std::fs::remove_file(filler).unwrap();
    let usage = usage(&results);
    assert_eq!(why(usage, "a"), "");
    // The last page of the spool may have had room for the end.
    let full = |a: &&Value| a["why"].as_str().unwrap().contains("No space left");
    let absent = rows(usage, "absent", "b").into_iter().find(full).unwrap();
    assert!(
        ["some readings", "the end of its readings"].contains(&absent["what"].as_str().unwrap()),
        "{absent}"
    );
    assert_eq!(rows(usage, "hosts", "b")[0]["cpu_pct"], Value::Null, "{usage:#}");
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_host_on_which_it_cannot_run_is_absent_and_the_run_is_sound() {
    let hosts = Hosts::new(&["a", "b"]);
    let program = hosts.path("other-libc");
    let script = "#!/bin/sh\necho \"scalebeam: /lib/libc.so.6: version 'GLIBC_9.99' not found\" >&2\nexit 1\n";
    std::fs::write(&program, script).unwrap();
    hosts.disk_of("b", "noexec");
    let results = run(&hosts, &watched(&hosts, FAST, LOAD, &with_agent(&program)));
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80, "{results:#}");
    let usage = usage(&results);
    let (libc, noexec) = (why(usage, "a"), why(usage, "b"));
    assert!(libc.contains("GLIBC_9.99") && libc.contains("telemetry.agent"), "{libc}");
    assert!(noexec.contains("ermission denied") && noexec.contains("telemetry.agent"), "{noexec}");
    nothing_left(&hosts);
}
