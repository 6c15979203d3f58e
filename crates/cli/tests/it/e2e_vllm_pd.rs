//! A real vLLM split into a prefill and a decode instance, key-value blocks moved by NIXL.

use crate::e2e_vllm::{example, logs, weigh_over_ssh};
use crate::hosts::Hosts;
use crate::support::{Lab, marked_processes, root, setting};
use serde_json::Value;

/// `experiments/real-vllm-pd.toml` with what is installed here.
fn lab() -> Lab {
    let text = std::fs::read_to_string(root().join("experiments/real-vllm-pd.toml")).unwrap();
    Lab::new(
        &text
            .replace("/path/to/vllm/bin/vllm", &setting("SCALEBEAM_E2E_VLLM"))
            .replace("/path/to/vllm-router", &setting("SCALEBEAM_E2E_VLLM_ROUTER"))
            .replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1),
    )
}

#[test]
#[ignore = "needs a real vLLM with NIXL, and vllm-router; ci/test --all runs it"]
fn prefill_and_decode_behind_vllm_router() {
    let lab = lab();
    let said = lab.say("run", &["--json", "--deploy", "pd-vllm-router"]);
    // Three processes on two cores: whether it is to be trusted is not asked here.
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    each_request_passed_both_pools(&said.json());
    gate_had_no_remark(&lab.run_dir());
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// Our own router, a prefill and a decode instance, each on a host of its own.
#[test]
#[ignore = "needs a real vLLM with NIXL, root, ip and sshd; ci/test --all runs it"]
fn prefill_and_decode_on_hosts_of_their_own_behind_our_router() {
    let hosts = Hosts::new(&["r", "p", "d"]);
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_scalebeam")).parent().unwrap();
    let path = format!("[env]\nPATH = \"{}:/usr/bin:/bin\"\n", bin.display());
    let text = example("real-vllm-pd-ssh").replacen("[env]\n", &path, 1);
    let results = weigh_over_ssh(&hosts, &text, &["pd"]);
    each_request_passed_both_pools(&results);
    gate_had_no_remark(logs(&hosts).parent().unwrap());
    let trial = &results["points"][0]["trials"][0];
    each_process_is_watched(trial, "r", Value::Null, &["scalebeam"]);
    each_process_is_watched(trial, "p", "prefill".into(), &["vllm", "VLLM::EngineCor"]);
    each_process_is_watched(trial, "d", "decode".into(), &["vllm", "VLLM::EngineCor"]);
    blocks_came_over_the_link(trial);
}

/// The rows of `what` on `host`.
fn rows<'a>(trial: &'a Value, what: &str, host: &str) -> Vec<&'a Value> {
    trial["usage"][what].as_array().unwrap().iter().filter(|row| row["host"] == host).collect()
}

#[track_caller]
fn positive(row: &Value, name: &str) {
    let (mean, max) = (row[name]["mean"].as_f64(), row[name]["max"].as_f64());
    assert!(mean > Some(0.0) && max >= mean, "{name}: {row:#}");
}

/// Each of `programs` on `host` with its role, cores and memory; the machine, its link and its clock beside them.
fn each_process_is_watched(trial: &Value, host: &str, role: Value, programs: &[&str]) {
    let processes = rows(trial, "processes", host);
    for program in programs {
        let named = |p: &&&Value| {
            let name = p["name"].as_str().unwrap();
            name.starts_with("pd/") && name.ends_with(&format!(" {program}"))
        };
        let row = processes.iter().find(named);
        let row = row.unwrap_or_else(|| panic!("{program}: {processes:#?}"));
        assert_eq!(row["role"], role, "{row:#}");
        positive(row, "memory_bytes");
        positive(row, "cpu_cores");
    }
    let machine = rows(trial, "hosts", host)[0];
    positive(machine, "cpu_pct");
    positive(machine, "memory_bytes");
    let links = rows(trial, "links", host);
    let eth0 = links.iter().find(|l| l["name"] == "eth0").unwrap();
    positive(eth0, "sent_gbps");
    positive(eth0, "received_gbps");
    let clock = rows(trial, "clocks", host)[0];
    assert!(clock["bound_s"].as_f64().unwrap() < 0.1, "{clock:#}");
}

/// What vLLM says that it received has crossed the link of the decode instance's host in that time.
fn blocks_came_over_the_link(trial: &Value) {
    let said = trial["metrics"]["kv_received_bytes"].as_f64().unwrap();
    let links = rows(trial, "links", "d");
    let eth0 = links.iter().find(|l| l["name"] == "eth0").unwrap();
    let gbit = eth0["received_gbps"]["mean"].as_f64().unwrap();
    let bytes = gbit * 1e9 / 8.0 * trial["metrics"]["wall_s"].as_f64().unwrap();
    assert!(bytes > said * 0.98 && bytes < said * 1.5, "{bytes} of {said}");
}

fn each_request_passed_both_pools(results: &Value) {
    let point = &results["points"][0];
    assert_eq!(point["metrics"]["success_rate"], 1.0, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
    // Blocks moved while it was measured, and each request passed both pools.
    let trial = &point["trials"][0];
    assert!(trial["metrics"]["kv_received_bytes"].as_f64() > Some(0.0), "{trial:#}");
    for engine in trial["engines"].as_array().unwrap() {
        let done = &engine["values"]["requests_done"]["counter"]["risen"];
        assert_eq!(*done, 32.0, "{engine:#}");
    }
}

/// The gate looked whether blocks move.
fn gate_had_no_remark(run: &std::path::Path) {
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("key-value blocks"), "{journal}");
}
