//! A real vLLM on CPU, in the shapes that two cores can carry.

use crate::support::{Lab, marked_processes, root};

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run ./ci/test --all"))
}

/// `experiments/real-vllm-cpu.toml` with this machine's program and a model of our choice.
fn experiment(model: &str) -> String {
    let text = std::fs::read_to_string(root().join("experiments/real-vllm-cpu.toml")).unwrap();
    let bin = setting("SCALEBEAM_E2E_VLLM");
    text.replacen("/path/to/smollm2", model, 1).replacen(
        "ready    = {",
        &format!("params   = {{ bin = \"{bin}\" }}\nready    = {{"),
        1,
    )
}

fn weigh(model: &str, deployments: &[&str]) {
    let lab = Lab::new(&experiment(model));
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
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
#[ignore = "needs a real vLLM; ci/test --all runs it"]
fn one_process_and_two_nodes_of_a_tiny_model() {
    weigh(&setting("SCALEBEAM_E2E_VLLM_MODEL"), &["one", "tp2-two-nodes"]);
}

#[test]
#[ignore = "needs a real vLLM; ci/test --all runs it"]
fn tp2_pp2_and_dp2_of_a_tiny_model() {
    weigh(&setting("SCALEBEAM_E2E_VLLM_MODEL"), &["tp2", "pp2", "dp2"]);
}
