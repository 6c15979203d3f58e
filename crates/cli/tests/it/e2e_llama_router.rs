//! Two real llama.cpp servers behind sglang-router: one entry, which is measured once both are known to it.

use crate::support::{Lab, free_port, marked_processes, setting};

/// llama.cpp's server closes connections that a router has kept: what was sent on one is tried again.
fn lab() -> Lab {
    Lab::new(&format!(
        "schema = 1\nname = \"routed\"\n[model]\nid = \"{}\"\nserved = \"small\"\n\
         [[deploy]]\nname = \"two\"\nplatform = \"local\"\nengine = \"llama.cpp\"\nport = {}\nreplicas = 2\n\
         ready = {{ timeout = \"2m\" }}\nstop = {{ grace = \"20s\" }}\n\
         params = {{ threads = 1, parallel = 4, ctx = 4096, router = \"sglang-router\", router_bin = \"{}\", \
         router_args = [\"--retry-max-retries\", \"2\"] }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 48\nosl = 16\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 24\n\
         warmup = 4\ntimeout = \"120s\"\n",
        setting("SCALEBEAM_E2E_TINY_GGUF"),
        free_port(),
        setting("SCALEBEAM_E2E_SGLANG_ROUTER"),
    ))
}

#[test]
#[ignore = "needs a real engine and sglang-router; ci/test runs it"]
fn two_replicas_behind_sglang_router() {
    let lab = lab();
    let said = lab.say("run", &["--json"]);
    // Three processes and the client on two cores: whether such a point is to be trusted is not asked here.
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(marked_processes(&lab.runs()), []);
    let point = &said.json()["points"][0];
    assert_eq!(point["outcomes"]["completed"], 24, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 16.0, "{point:#}");
    // One entry, with both behind it.
    assert!(point["by_target"].as_array().is_none_or(|targets| targets.len() < 2), "{point:#}");
    let log = lab.run_dir().join("logs/two/infra-router.log");
    let said = std::fs::read_to_string(log).unwrap();
    assert_eq!(said.matches("Activated 1 worker(s)").count(), 2, "{said}");
}
