//! A real vLLM split into a prefill and a decode instance, key-value blocks moved by NIXL.

use crate::support::{Lab, marked_processes, setting, with_nixl};
use serde_json::Value;

/// `experiments/real-vllm-pd.toml` with what is installed here.
fn lab() -> Lab {
    let text = with_nixl("real-vllm-pd.toml");
    Lab::new(
        &text
            .replace("/path/to/vllm/bin/vllm", &setting("SCALEBEAM_E2E_VLLM"))
            .replace("/path/to/vllm-router", &setting("SCALEBEAM_E2E_VLLM_ROUTER"))
            .replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1),
    )
}

/// Weighs `deployment`. Three processes on two cores: whether it is to be trusted is not asked here.
fn weigh(deployment: &str) {
    let lab = lab();
    let said = lab.say("run", &["--json", "--deploy", deployment]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    each_request_passed_both_pools(&said.json());
    // The gate looked whether blocks move, and found nothing to remark.
    let journal = std::fs::read_to_string(lab.run_dir().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("key-value blocks"), "{journal}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
#[ignore = "needs a real vLLM with NIXL; ci/test --all runs it"]
fn prefill_and_decode_behind_our_router() {
    weigh("pd");
}

#[test]
#[ignore = "needs a real vLLM with NIXL, and vllm-router; ci/test --all runs it"]
fn prefill_and_decode_behind_vllm_router() {
    weigh("pd-vllm-router");
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
