//! A real vLLM on CPU, in the shapes that two cores can carry.

use crate::hosts::Hosts;
use crate::support::{Lab, marked_processes, root, setting};
use crate::usage::rows;
use serde_json::Value;
use std::path::PathBuf;

/// `experiments/real-vllm-cpu.toml` with this machine's program and a model of our choice.
pub(crate) fn experiment(model: &str) -> String {
    let text = std::fs::read_to_string(root().join("experiments/real-vllm-cpu.toml")).unwrap();
    let bin = setting("SCALEBEAM_E2E_VLLM");
    text.replacen("/path/to/smollm2", model, 1).replacen(
        "ready    = {",
        &format!("params   = {{ bin = \"{bin}\" }}\nready    = {{"),
        1,
    )
}

fn weigh(model: &str, deployments: &[&str]) {
    weigh_in(&Lab::new(&experiment(model)), deployments);
}

#[track_caller]
fn weigh_in(lab: &Lab, deployments: &[&str]) {
    let mut args = vec!["--json"];
    for name in deployments {
        args.extend(["--deploy", name]);
    }
    let results = lab.say("run", &args).expect_code(0).json();
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), deployments.len() * 2);
    for point in points {
        assert_eq!(point["outcomes"].as_object().unwrap().len(), 1, "{point:#}");
        assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
        assert_eq!(point["metrics"]["success_rate"], 1.0);
        engines_count_what_was_asked(point);
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// By its own metrics, over all ranks and instances: no request more or less than the client's.
#[track_caller]
fn engines_count_what_was_asked(point: &Value) {
    let done = |trial: &Value| -> f64 {
        let engines = trial["engines"].as_array().unwrap().iter();
        let risen = |e: &serde_json::Value| {
            e["values"]["requests_done"]["counter"]["risen"]
                .as_f64()
                .unwrap_or_else(|| panic!("{e:#}"))
        };
        engines.map(risen).sum()
    };
    for trial in point["trials"].as_array().unwrap() {
        assert_eq!(Some(done(trial)), trial["outcomes"]["completed"].as_f64(), "{trial:#}");
        let metrics = &trial["metrics"];
        let of =
            |name: &str| metrics[name].as_f64().unwrap_or_else(|| panic!("{name}: {metrics:#}"));
        assert_eq!(metrics["preemptions"], 0.0);
        let outside = of("outside_engine_ms");
        let ttft = metrics["ttft_sent_ms"]["mean"].as_f64().unwrap();
        assert!(outside > -1.0 && outside < ttft, "{outside} of {ttft}: {metrics:#}");
    }
}

#[test]
#[ignore = "needs a real vLLM; ci/test --all runs it"]
fn two_nodes_of_a_tiny_model() {
    weigh(&setting("SCALEBEAM_E2E_VLLM_MODEL"), &["tp2-two-nodes"]);
}

#[test]
#[ignore = "needs a real vLLM; ci/test --all runs it"]
fn tp2_pp2_and_dp2_of_a_tiny_model() {
    weigh(&setting("SCALEBEAM_E2E_VLLM_MODEL"), &["tp2", "pp2", "dp2"]);
}

/// A Ray cluster of one host, on this machine, where somebody's own Ray has left its token: a raylet that finds one asks
/// for it, and `ray status` gives none.
#[test]
#[ignore = "needs a real vLLM with Ray; ci/test --all runs it"]
fn tp2_on_one_host_that_is_a_ray_cluster() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ray")).unwrap();
    std::fs::write(home.path().join(".ray/auth_token"), "0123456789abcdef0123456789abcdef")
        .unwrap();
    let env = format!("CPU_RAY = \"1\", HOME = \"{}\"", home.path().display());
    let text = experiment(&setting("SCALEBEAM_E2E_VLLM_MODEL"));
    let with_token = text.replace("CPU_RAY = \"1\"", &env);
    assert_ne!(with_token, text);
    weigh_in(&Lab::new(&with_token), &["tp2-ray"]);
}

/// Seed 1's shape on hosts that are reached by ssh: TP2 over two of them by `--nnodes`, and two copies behind a router
/// that has a host of its own. Every process is watched where it is, in the time that was measured.
#[test]
#[ignore = "needs a real vLLM, sglang-router, root, ip and sshd; ci/test --all runs it"]
fn over_three_ssh_hosts_as_one_instance_and_as_copies_behind_a_router() {
    let hosts = Hosts::new(&["a", "b", "r"]);
    let router = setting("SCALEBEAM_E2E_SGLANG_ROUTER");
    let text = example("real-vllm-ssh").replace("/path/to/sglang-router", &router);
    let results = weigh_over_ssh(&hosts, &text, &["tp2-mp", "two-routed"]);
    let [split, routed] = results["points"].as_array().unwrap().as_slice() else {
        panic!("{results:#}")
    };
    for (point, host) in [(split, "a"), (split, "b"), (routed, "a"), (routed, "b")] {
        is_watched(point, host, Some("aggregated"), "VLLM::Worker");
    }
    is_watched(routed, "r", None, "sglang::router");
    let log = std::fs::read_to_string(logs(&hosts).join("two-routed/infra-router.log")).unwrap();
    assert_eq!(log.matches("Activated 1 worker(s)").count(), 2, "{log}");
}

#[track_caller]
fn positive(row: &Value, name: &str) {
    let (mean, max) = (row[name]["mean"].as_f64(), row[name]["max"].as_f64());
    assert!(mean > Some(0.0) && max >= mean, "{name}: {row:#}");
}

/// A process of `program` on `host` with its role, cores and memory; the machine, its link and its clock beside it.
#[track_caller]
fn is_watched(point: &Value, host: &str, role: Option<&str>, program: &str) {
    let usage = &point["trials"][0]["usage"];
    let processes = rows(usage, "processes", host);
    let is_it = |p: &&&Value| p["name"].as_str().is_some_and(|name| name.contains(program));
    let row = processes.iter().find(is_it);
    let row = row.unwrap_or_else(|| panic!("{program} on {host}: {processes:#?}"));
    assert_eq!(row["role"].as_str(), role, "{row:#}");
    positive(row, "memory_bytes");
    positive(row, "cpu_cores");
    let machine = rows(usage, "hosts", host)[0];
    positive(machine, "cpu_pct");
    positive(machine, "memory_bytes");
    let links = rows(usage, "links", host);
    let eth0 = links.iter().find(|l| l["name"] == "eth0").unwrap();
    positive(eth0, "sent_gbps");
    positive(eth0, "received_gbps");
    let clock = rows(usage, "clocks", host)[0];
    assert!(clock["bound_s"].as_f64().unwrap() < 0.1, "{clock:#}");
    assert!(point["account"]["roles"][0]["cpu_cores"].as_f64() > Some(0.0), "{point:#}");
}

/// Seed 1's own way: over two hosts that a Ray cluster joins. Nothing of it is left, not of what raylets
/// started either.
#[test]
#[ignore = "needs a real vLLM, root, ip and sshd; ci/test --all runs it"]
fn over_two_hosts_that_ray_joins() {
    let hosts = Hosts::new(&["a", "b"]);
    let results = weigh_over_ssh(&hosts, &example("real-vllm-ray"), &["tp2-ray"]);
    assert_eq!(results["points"].as_array().unwrap().len(), 1, "{results:#}");
    let log = logs(&hosts).join("tp2-ray/0-serve.log");
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("RayWorkerProc"), "{said}");
}

/// The directory with the logs of the only run.
pub(crate) fn logs(hosts: &Hosts) -> PathBuf {
    let mut runs = std::fs::read_dir(hosts.path("runs")).unwrap().flatten().map(|e| e.path());
    runs.find(|dir| dir.join("journal.jsonl").exists()).unwrap().join("logs")
}

/// An experiment of this repository with this machine's program and the tiny model.
pub(crate) fn example(name: &str) -> String {
    let text = std::fs::read_to_string(root().join(format!("experiments/{name}.toml"))).unwrap();
    text.replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1)
        .replace("/path/to/vllm", &setting("SCALEBEAM_E2E_VLLM"))
}

pub(crate) fn written(hosts: &Hosts, text: &str) -> String {
    let file = hosts.path("vllm.toml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

pub(crate) fn weigh_over_ssh(hosts: &Hosts, text: &str, deployments: &[&str]) -> Value {
    let file = written(hosts, text);
    let out = hosts.path("runs").display().to_string();
    let mut args = vec!["run", &file, "--out", &out, "--selftest", "never", "--json"];
    for name in deployments {
        args.extend(["--deploy", name]);
    }
    let said = hosts.say(&args);
    // Two engines and the client on two cores: whether such a point is to be trusted is not asked here.
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    let results = said.json();
    for point in results["points"].as_array().unwrap() {
        assert_eq!(point["metrics"]["success_rate"], 1.0, "{point:#}");
    }
    nothing_left(hosts);
    results
}

pub(crate) fn nothing_left(hosts: &Hosts) {
    assert_eq!(marked_processes(&hosts.path("runs")), []);
    for host in hosts.names() {
        assert_eq!(hosts.processes(host), [""; 0]);
    }
    // Caches of compilers are the user's, and are there for the next start.
    let is_cache = |p: &PathBuf| p.ends_with(".cache") || p.ends_with("torchinductor_root");
    let left: Vec<_> = hosts.remote_files().into_iter().filter(|p| !is_cache(p)).collect();
    assert!(left.is_empty(), "{left:?}");
}
