//! What is read of the nodes of a job: the agents there, as steps beside the engine's, and what becomes of them.
//!
//! Nodes of these tests share this machine's processes, so each of them could take those of both for its own.

use super::{Cluster, FAST, LOAD, LONG, Live, SLOW, run};
use crate::interrupt::{records, signal};
use crate::support::{marked_processes, wait_for};
use crate::usage::{mean, rows, usage, why};
use serde_json::Value;
use std::path::PathBuf;

/// Two replicas, one on each node, with `telemetry` behind them.
fn watched(cluster: &Cluster, params: &str, load: &str, telemetry: &str) -> String {
    let file = cluster.pair(params, load);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "[telemetry]\ninterval = \"100ms\"\n" + telemetry + "\n").unwrap();
    file
}

/// Command lines of srun that are beside those of the job script: what holds agents, and ways to them.
fn own_sruns(cluster: &Cluster) -> Vec<String> {
    let tmp = format!("TMPDIR={}", cluster.path("tmp").display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    let of_cluster = processes.filter(|path| {
        let environ = std::fs::read(path.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).split('\0').any(|v| v == tmp)
    });
    let commands = of_cluster.filter_map(|path| {
        let line = std::fs::read(path.join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    commands.filter(|line| line.starts_with("srun --quiet ")).collect()
}

/// As [`Cluster::nothing_is_left`]; what held a step here ends just after it.
#[track_caller]
fn nothing_left(cluster: &Cluster) {
    cluster.nothing_is_left();
    wait_for("no srun", || own_sruns(cluster).is_empty());
}

fn agents(cluster: &Cluster) -> Vec<u32> {
    let all = marked_processes(&cluster.runs()).into_iter();
    let is = |command: &str| command.contains(" agent --id pair/agent/");
    all.filter(|(_, command)| is(command)).map(|(pid, _)| u32::try_from(pid).unwrap()).collect()
}

/// A run whose load is under way, with an agent on each node.
fn under_load(cluster: &Cluster, telemetry: &str) -> Live {
    let live = cluster.start_run(&watched(cluster, SLOW, LONG, telemetry));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    assert_eq!(agents(cluster).len(), 2, "{:?} {}", marked_processes(&cluster.runs()), live.said());
    live
}

/// This scalebeam, which nobody may execute where it is: it has to be copied.
fn to_be_copied(cluster: &Cluster) -> PathBuf {
    let path = cluster.path("agent-program");
    run(std::process::Command::new("strip")
        .arg("-o")
        .args([&path, &PathBuf::from(env!("CARGO_BIN_EXE_scalebeam"))]));
    run(std::process::Command::new("chmod").arg("644").arg(&path));
    path
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_every_node_is_watched_by_an_agent_that_goes_away() {
    let cluster = Cluster::new();
    let file = watched(&cluster, FAST, LOAD, "[output]\nformats = [\"csv\"]");
    let said = cluster.run(&file, &["--json"]).expect_code(0);
    let results = said.json();
    let usage = usage(&results);
    for (node, own) in [("n1", "pair/0/serve"), ("n2", "pair/1/serve")] {
        assert_eq!(why(usage, node), "", "{}", said.stderr);
        let machine = rows(usage, "hosts", node)[0];
        assert_eq!(machine["serves"], true, "{usage:#}");
        assert!(mean(&machine["cpu_pct"]) > 0.0 && mean(&machine["memory_pct"]) > 0.0, "{machine}");
        let processes = rows(usage, "processes", node);
        let engines: Vec<_> = processes.iter().filter(|p| p["role"] == "aggregated").collect();
        assert!(engines.iter().any(|p| mean(&p["memory_bytes"]) > 1e6), "{processes:#?}");
        let is_own = |p: &&&Value| p["name"].as_str().unwrap().starts_with(own);
        assert_eq!(engines.iter().find(|p| !is_own(p)), None, "{processes:#?}");
        let agent = processes.iter().find(|p| p["name"] == "telemetry agent");
        let agent = agent.unwrap_or_else(|| panic!("no agent in {processes:#?}"));
        assert!(mean(&agent["cpu_cores"]) < 0.5, "{agent}");
        let clock = rows(usage, "clocks", node)[0];
        // They have this machine's clock.
        let (offset, bound) =
            (clock["offset_s"].as_f64().unwrap(), clock["bound_s"].as_f64().unwrap());
        assert!(offset.abs() <= bound && bound < 0.1, "{clock}");
    }
    nothing_left(&cluster);
    let journal = cluster.journal();
    for node in ["n1", "n2"] {
        let id = format!("\"process\":\"pair/agent/{node}\"");
        for event in ["process_intent", "process_started", "process_gone"] {
            let is = |line: &&str| line.contains(event) && line.contains(&id);
            assert_eq!(journal.lines().filter(is).count(), 1, "{event} of {node}: {journal}");
        }
    }
    let table = std::fs::read_to_string(cluster.run_dir().join("machines.csv")).unwrap();
    for row in [",n1,process,pair/0/serve ", ",n2,process,pair/1/serve ", ",n1,host,", ",n2,host,"]
    {
        assert!(table.contains(row), "no {row} in {table}");
    }
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_after_kill_9_down_takes_the_agents_away() {
    let cluster = Cluster::new();
    let program = format!("agent = \"{}\"", to_be_copied(&cluster).display());
    let mut live = under_load(&cluster, &program);
    signal(live.child.id(), "KILL");
    live.child.wait().unwrap();
    assert_eq!(agents(&cluster).len(), 2, "they outlive who asked for them");
    let said = cluster.down().expect_code(0);
    for node in ["n1", "n2"] {
        let line = format!("pair/agent/{node} on {node}: terminated");
        assert!(said.stdout.contains(&line), "{}", said.stdout);
    }
    nothing_left(&cluster);
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_agents_end_with_their_job_and_take_along_what_they_wrote() {
    let cluster = Cluster::new();
    let program = format!("agent = \"{}\"", to_be_copied(&cluster).display());
    let mut live = under_load(&cluster, &program);
    cluster.ask("scancel", &["1"]).expect_code(0);
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("job 1 was cancelled, and not by scalebeam"), "{said}");
    assert!(!said.contains("could not be asked"), "{said}");
    nothing_left(&cluster);
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_node_without_an_agent_is_absent_with_the_reason_and_the_run_is_sound() {
    let cluster = Cluster::new();
    // Texts of Slurm 20.02 and of 22.05. The job script writes `--nodelist=n1`.
    let srun = "#!/bin/sh\ncase \"$*\" in\n\
                *'--nodelist n1'*) echo \"srun: unrecognized option '--overlap'\" >&2; exit 255 ;;\n\
                *'--nodelist n2'*) echo 'srun: error: Unable to create step for job 1: Requested \
                nodes are busy' >&2; exit 1 ;;\nesac\nexec /usr/bin/srun \"$@\"\n";
    let path = cluster.path("bin/srun");
    std::fs::write(&path, srun).unwrap();
    run(std::process::Command::new("chmod").arg("755").arg(&path));
    let said = cluster.run(&watched(&cluster, FAST, LOAD, ""), &["--json"]).expect_code(0);
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80, "{results:#}");
    let usage = usage(&results);
    let (old, busy) = (why(usage, "n1"), why(usage, "n2"));
    assert!(old.contains("--overlap") && old.contains("Slurm 20.11"), "{old}");
    assert!(busy.contains("Requested nodes are busy") && busy.contains("scontrol"), "{busy}");
    nothing_left(&cluster);
}
