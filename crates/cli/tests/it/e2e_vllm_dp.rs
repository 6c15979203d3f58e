//! Data-parallel ranks of a real vLLM over two hosts, by what spreads requests over them.

use crate::e2e_vllm::{example, logs, nothing_left, weigh_over_ssh, written};
use crate::hosts::Hosts;

/// One server for both hosts' ranks, and a server a host. A gate has asked each rank by its number.
#[test]
#[ignore = "needs a real vLLM, root, ip and sshd; ci/test --all runs it"]
fn ranks_on_two_hosts_answer_one_by_one() {
    let hosts = Hosts::new(&["a", "b"]);
    let results = weigh_over_ssh(&hosts, &example("real-vllm-dp"), &["internal", "hybrid"]);
    assert_eq!(results["points"].as_array().unwrap().len(), 2, "{results:#}");
    let said = |log: &str| std::fs::read_to_string(logs(&hosts).join(log)).unwrap();
    // Requests were answered by both servers of the hybrid, and by the only one of the other.
    for log in ["internal/0-serve.log", "hybrid/0-serve.log", "hybrid/0-serve2.log"] {
        assert!(said(log).contains("POST /v1/chat/completions"), "{log}");
    }
    assert!(!said("internal/0-rank1.log").contains("POST"), "a headless host answered");
}

/// vLLM refuses a server a rank where ranks share nothing, and we say what to do instead.
#[test]
#[ignore = "needs a real vLLM, root, ip and sshd; ci/test --all runs it"]
fn a_dense_model_has_no_ranks_with_servers_of_their_own() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = written(&hosts, &example("real-vllm-dp"));
    let out = hosts.path("runs").display().to_string();
    let args = ["run", &file, "--out", &out, "--selftest", "never", "--deploy", "external"];
    let said = hosts.say(&args);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("replicas in place of dp"), "{}", said.stderr);
    nothing_left(&hosts);
}
