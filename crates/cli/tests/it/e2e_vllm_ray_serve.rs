//! A real Ray Serve LLM over a real Ray cluster of two nodes, with a real vLLM in each replica.

use crate::e2e_vllm::weigh_over_ssh;
use crate::hosts::Hosts;
use crate::support::{Lab, marked_processes, setting, with_nixl};
use std::path::Path;

/// `experiments/real-ray-serve.toml` with what is installed here.
fn example() -> String {
    let text = with_nixl("real-ray-serve.toml");
    let vllm = setting("SCALEBEAM_E2E_VLLM");
    let serve = Path::new(&vllm).with_file_name("serve").display().to_string();
    text.replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1)
        .replace("/path/to/serve", &serve)
}

fn lab() -> Lab {
    Lab::new(&example())
}

/// Both replicas are waited for and answer, each by the page of its node's own agent; then nothing is left, of the
/// detached actors and of what Ray wrote either.
#[test]
#[ignore = "needs a real vLLM with Ray Serve; ci/test --all runs it"]
fn two_replicas_on_two_nodes_are_counted_weighed_and_gone() {
    let lab = lab();
    let tmp = lab.dir.path().join("t");
    std::fs::create_dir(&tmp).unwrap();
    let mut command = lab.command("run");
    command.args(["--deploy", "two", "--json"]).env("TMPDIR", &tmp);
    let said = crate::support::Said::from(command.output().unwrap());
    // A dozen processes on two cores: whether such a point is to be trusted is not asked here.
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert!(said.stderr.contains("application llms of Ray Serve: 0 of 2 replicas"), "{said:?}");
    let results = said.json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 32, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
    both_nodes_count_requests(&point["trials"][0]);
    assert_eq!(marked_processes(&lab.runs()), []);
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[track_caller]
fn both_nodes_count_requests(trial: &serde_json::Value) {
    let engines = trial["engines"].as_array().unwrap();
    for node in ["node a", "node b"] {
        let engine = engines.iter().find(|e| e["name"] == node);
        let engine = engine.unwrap_or_else(|| panic!("no {node}: {engines:#?}"));
        let done = engine["values"]["requests_done"]["counter"]["risen"].as_f64();
        assert!(done > Some(0.0), "{engine:#}");
    }
}

/// One replica computes the prompts of the other, as Ray's own builder has it: both are counted, each request is
/// answered, and the nodes count bytes that moved.
#[test]
#[ignore = "needs a real vLLM with Ray Serve and NIXL; ci/test --all runs it"]
fn prefill_and_decode_are_two_deployments_of_one_application() {
    let lab = lab();
    let said = lab.say("run", &["--deploy", "split", "--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert!(said.stderr.contains("1 replicas of Prefill:instances run"), "{said:?}");
    let results = said.json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 32, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
    // Each pool is where its place says: bytes are counted on the node of decode.
    let engines = point["trials"][0]["engines"].as_array().unwrap();
    let received = |node: &str| {
        let engine = engines.iter().find(|e| e["name"] == node);
        engine.and_then(|e| e["values"]["kv_received_bytes"]["counter"]["risen"].as_f64())
    };
    assert!(received("node b") > Some(0.0), "{engines:#?}");
    assert_eq!(received("node a"), None, "{engines:#?}");
    // The gate looked whether blocks move, and found nothing to remark.
    let journal = std::fs::read_to_string(lab.run_dir().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("key-value blocks"), "{journal}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// Both pools on hosts that are reached by ssh: raylets join over the network between them, and blocks move there. An
/// engine takes the first raylet among the processes of its machine for its own, so hosts have processes of their own.
#[test]
#[ignore = "needs a real vLLM with Ray Serve and NIXL, root, ip and sshd; ci/test --everything runs it"]
fn over_two_ssh_hosts_prefill_and_decode_are_one_application() {
    let hosts = Hosts::apart(&["a", "b"]);
    let text = example()
        .replace("platform = \"local\"", "platform = \"ssh\"")
        .replace("addr = \"127.0.0.2\"", "addr = \"10.77.0.1\"\nssh = \"a\"\niface = \"eth0\"")
        .replace("addr = \"127.0.0.3\"", "addr = \"10.77.0.2\"\nssh = \"b\"\niface = \"eth0\"")
        .replace("GLOO_SOCKET_IFNAME         = \"lo\"\n", "")
        .replace("UCX_NET_DEVICES            = \"lo\"", "UCX_NET_DEVICES = \"eth0\"");
    let results = weigh_over_ssh(&hosts, &text, &["split"]);
    let engines = results["points"][0]["trials"][0]["engines"].as_array().unwrap();
    let decode = engines.iter().find(|e| e["name"] == "node b").unwrap();
    let received = &decode["values"]["kv_received_bytes"]["counter"]["risen"];
    assert!(received.as_f64() > Some(0.0), "{engines:#?}");
}
