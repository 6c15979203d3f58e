//! A real llama.cpp server: a tiny model on every change, SmolLM2 once.

use crate::support::{Lab, free_port, marked_processes, root, setting};

fn experiment(model: &str, extra: &str) -> String {
    format!(
        "schema = 1\nname = \"llama\"\n[model]\nid = \"{model}\"\nserved = \"small\"\n\
         [[deploy]]\nname = \"one\"\nplatform = \"local\"\nengine = \"llama.cpp\"\nport = {}\n\
         params = {{ threads = 1, parallel = 4, ctx = 4096 }}\nready = {{ timeout = \"2m\" }}\n{extra}\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 48\nosl = 16\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 24\nwarmup = 2\ntimeout = \"120s\"\n",
        free_port()
    )
}

#[track_caller]
fn weigh(model: &str, extra: &str) -> serde_json::Value {
    let lab = Lab::new(&experiment(model, extra));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(marked_processes(&lab.runs()), []);
    results
}

#[test]
#[ignore = "needs a real engine; ci/test runs it"]
fn a_tiny_model_is_served_measured_and_taken_down() {
    let results = weigh(&setting("SCALEBEAM_E2E_TINY_GGUF"), "");
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 24, "{point:#}");
    assert_eq!(point["metrics"]["tokens_from_usage"], 1.0);
    assert_eq!(point["metrics"]["output_tokens"]["min"], 16.0, "{point:#}");
    let engine = &point["trials"][0]["engines"][0]["values"];
    assert_eq!(engine["generation_tokens"]["counter"]["risen"], 384.0, "{engine:#}");
    assert_eq!(engine["preemptions"]["absent"], "not_exported", "{engine:#}");
}

#[test]
#[ignore = "needs a real engine; ci/test runs it"]
fn two_replicas_share_the_load() {
    let results =
        weigh(&setting("SCALEBEAM_E2E_TINY_GGUF"), "replicas = 2\nbalance = \"least-inflight\"\n");
    let shares = results["points"][0]["by_target"].as_array().unwrap().clone();
    assert_eq!(shares.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 24);
    assert!(shares.iter().all(|n| n.as_u64().unwrap() >= 6), "{shares:?}");
}

#[test]
#[ignore = "needs a real engine; ci/test runs it"]
fn smollm2_by_its_managed_name() {
    let results = weigh("SmolLM2-135M-Instruct", "");
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 24, "{point:#}");
    assert!(point["metrics"]["tpot_ms"]["p50"].as_f64().unwrap() > 0.1);
}

/// The same server, of which scalebeam knows nothing but what the file says.
#[test]
#[ignore = "needs a real engine; ci/test runs it"]
fn a_real_server_as_a_program_of_the_file() {
    let (model, python) = (setting("SCALEBEAM_E2E_TINY_GGUF"), setting("SCALEBEAM_E2E_LLAMA"));
    let script = root().join("crates/fleet/assets/llama_serve.py");
    let known = "engine = \"llama.cpp\"";
    let params =
        "params = { threads = 1, parallel = 4, ctx = 4096 }\nready = { timeout = \"2m\" }\n";
    let text = experiment(&model, "replicas = 2\n");
    assert!(text.contains(known) && text.contains(params), "{text}");
    let text = text.replace(known, "engine = \"command\"").replace(
        params,
        &format!(
            "params = {{ program = \"{python}\" }}\nready = {{ timeout = \"2m\", log = \"listening \" }}\n\
             args = [\"{}\", \"--model\", \"{{model}}\", \"--alias={{served}}\", \"--host\", \"{{host}}\", \
             \"--port\", \"{{port}}\", \"--parallel\", \"4\", \"--ctx\", \"4096\"]\n",
            script.display()
        ),
    );
    let lab = Lab::new(&text);
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(marked_processes(&lab.runs()), []);
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 24, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 16.0, "{point:#}");
    // Who has least to do is asked: on a busy machine one replica may be the faster.
    let by_target = point["by_target"].as_array().unwrap();
    assert!(by_target.len() == 2 && by_target.iter().all(|n| n.as_u64() >= Some(6)), "{point:#}");
}
