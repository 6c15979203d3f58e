//! The mistakes of the five seeds, each caught: before the run by a note of the plan, after it by a
//! reason not to trust the number.

use crate::support::{Lab, emulated, root};
use serde_json::Value;

fn seed(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("experiments/{name}.toml"))).unwrap()
}

fn notes(text: &str) -> Vec<String> {
    let json = Lab::new(text).say("check", &["--json"]).expect_code(0).json();
    let notes = json["notes"].as_array().unwrap();
    notes
        .iter()
        .map(|n| format!("{}: {}", n["path"].as_str().unwrap(), n["message"].as_str().unwrap()))
        .collect()
}

fn measured(params: &str, load: &str) -> Value {
    Lab::new(&emulated(&["one"], params, load)).say("run", &["--json"]).json()["points"][0].clone()
}

fn codes(point: &Value) -> Vec<&str> {
    point["trust"]["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["code"].as_str().unwrap())
        .collect()
}

/// Seed 1 compares one node with two and lacks the same GPUs as two whole copies.
#[test]
fn a_deployment_over_hosts_without_its_control_is_noted() {
    let whole = seed("seed1-4gpu-vs-8gpu");
    assert!(!notes(&whole).iter().any(|n| n.contains("has no control")));
    let from = whole.find("[[deploy]]                    # the control").unwrap();
    let to = whole.find("[[workload]]").unwrap();
    let without = format!("{}{}", &whole[..from], &whole[to..]);
    assert!(
        notes(&without).contains(&"deploy[1]: 'dual-8gpu' spans hosts and has no control: the same 8 GPUs as whole copies".to_owned()),
        "{:#?}",
        notes(&without)
    );
}

/// Seed 4 sends 50 requests for "128 users".
#[test]
fn fewer_requests_than_users_are_noted_before_and_doubted_after() {
    let few = seed("seed4-modal-gpu-users").replace("requests = \"10x>=50\"", "requests = 50");
    assert!(
        notes(&few)
            .iter()
            .any(|n| n.starts_with("load[0].requests: 50 requests at concurrency 128"))
    );
    let point = measured(
        "ttft = \"20ms\", itl = \"2ms\"",
        "mode = \"closed\"\nconcurrency = 32\nrequests = 40\n",
    );
    assert!(codes(&point).contains(&"few_requests"), "{point:#}");
    assert!(codes(&point).contains(&"concurrency_not_reached"), "{point:#}");
    let ratio = point["metrics"]["concurrency_effective_ratio"].as_f64().unwrap();
    assert!(ratio < 0.9, "{ratio}");
}

/// Seeds 1 and 4 measure their first configuration cold.
#[test]
fn a_load_without_a_warm_up_is_noted() {
    let found = notes(&seed("seed1-4gpu-vs-8gpu"));
    assert!(
        found.iter().any(|n| n.contains("no warm-up in medium, heavy, burst, stress")),
        "{found:#?}"
    );
}

/// Seed 1's stress run is cut off at its client's time-out and averaged over the survivors.
#[test]
fn a_tail_cut_off_by_the_time_out_is_not_trusted() {
    let point = measured(
        "ttft = \"150ms\", itl = \"1ms\", slots = 4",
        "mode = \"burst\"\nrequests = 40\ntimeout = \"900ms\"\n",
    );
    let outcomes = &point["outcomes"];
    let (done, late) =
        (outcomes["completed"].as_u64().unwrap(), outcomes["timed_out"].as_u64().unwrap());
    assert!(done + late == 40 && late >= 10, "{point:#}");
    assert_eq!(point["trust"]["level"], "invalid");
    assert!(codes(&point).contains(&"timeouts"));
    assert_eq!(
        point["metrics"]["ttft_ms"]["count"].as_u64(),
        Some(done),
        "survivors only, and said so"
    );
}

/// Seed 1 takes queueing for prefill: with more requests than slots, TTFT is the queue, and shows it.
#[test]
fn a_queue_is_in_the_time_to_first_token() {
    let point =
        measured("ttft = \"50ms\", itl = \"1ms\", slots = 2", "mode = \"burst\"\nrequests = 20\n");
    let ttft = &point["metrics"]["ttft_ms"];
    let (p50, max) = (ttft["p50"].as_f64().unwrap(), ttft["max"].as_f64().unwrap());
    // Ten rounds of 57 ms on two slots.
    assert!((200.0..400.0).contains(&p50) && max > 500.0, "p50 {p50}, max {max}");
}

/// Seed 4 lets answers end early and counts chunks; forced lengths are verified against usage.
#[test]
fn answers_that_are_not_as_long_as_forced_are_doubted() {
    let text =
        emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", "mode = \"serial\"\nrequests = 6\n")
            .replace(
                "force_len = true",
                "force_len = true\nbody = { ignore_eos = false, min_tokens = 0 }",
            )
            .replace("osl = 8", "osl = 64");
    let point = Lab::new(&text).say("run", &["--json"]).expect_code(0).json()["points"][0].clone();
    assert!(codes(&point).contains(&"osl_mismatch"), "{point:#}");
}
