//! `plan`: complete, deterministic, and valid by its published schema.

use crate::support::{Lab, root, say};

fn experiment(name: &str) -> String {
    root().join(format!("experiments/{name}.toml")).display().to_string()
}

#[test]
fn the_quickstart_in_words() {
    insta::assert_snapshot!(say(["plan", &experiment("quickstart")]).expect_code(0).stdout);
}

#[test]
fn the_two_node_vllm_in_words() {
    let file = experiment("real-vllm-cpu");
    let said = say(["plan", &file, "--deploy", "tp2-two-nodes", "--deploy", "two-replicas"]);
    insta::assert_snapshot!(said.expect_code(0).stdout);
}

#[test]
fn data_parallel_ranks_on_two_hosts_in_words() {
    insta::assert_snapshot!(say(["plan", &experiment("real-vllm-dp")]).expect_code(0).stdout);
}

#[test]
fn dynamo_as_jobs_of_slurm_in_words() {
    let file = experiment("real-dynamo-slurm");
    insta::assert_snapshot!(say(["plan", &file]).expect_code(0).stdout);
}

/// Every process, variable, port and point of the documents that the product came from, to the byte.
#[test]
fn the_seeds_in_words() {
    for name in [
        "seed1-4gpu-vs-8gpu",
        "seed2-kuberay-scaling",
        "seed3-dynamo-pd-multinode",
        "seed4-modal-gpu-users",
        "seed5-course-week5",
    ] {
        insta::assert_snapshot!(name, say(["plan", &experiment(name)]).expect_code(0).stdout);
    }
}

/// Seed 3's script puts prefill TP2 x 3 and decode TP4 on one host: ten GPUs on its eight.
#[test]
fn ten_gpus_on_a_host_of_eight_are_refused() {
    let text = std::fs::read_to_string(experiment("seed3-dynamo-pd-multinode")).unwrap();
    let six = r#"["node0:0-1", "node0:2-3", "node0:4-5", "node0:6-7", "node1:0-1", "node1:2-3"]"#;
    let three = text.replace("workers = 6", "workers = 3");
    let refused = |prefill: &str, decode: &str| {
        let text = three.replace(six, prefill).replace(r#"["node1:4-7"]"#, decode);
        let lab = crate::support::Lab::new(&text);
        lab.say("plan", &[]).expect_code(2).stderr
    };
    let beyond = refused(r#"["node0:0-1", "node0:2-3", "node0:4-5"]"#, r#"["node0:6-9"]"#);
    assert!(beyond.contains("GPU 8 is not on host 'node0', which has 8"), "{beyond}");
    let twice = refused(r#"["node0:0-1", "node0:2-3", "node0:4-5"]"#, r#"["node0:4-7"]"#);
    assert!(twice.contains("taken twice (prefill and decode)"), "{twice}");
}

#[test]
fn every_load_shape_in_words() {
    let said = say(["plan", &experiment("load-shapes")]).expect_code(0).stdout;
    let points = said.lines().filter_map(|l| l.trim_start().strip_prefix("point one/"));
    // Up to the time-out, behind which stand seeds.
    let shapes: Vec<&str> = points.filter_map(|l| Some(l.split_once(", time-out")?.0)).collect();
    insta::assert_snapshot!(shapes.join("\n"), @"
    users/c16: closed at concurrency 16 reached over 2.00 s, for 6.00 s, thinking 200 ms on average after each answer, warm-up 4
    impatient/c16: closed at concurrency 16, 160 requests, 20.0 % given up 100 ms after sending, warm-up 4
    bursty/r50: open at 50.0 requests/s (gamma, burstiness 0.500), 200 requests, warm-up 4
    morning/ramp1-50: open at 1.00 to 50.0 requests/s over 4.00 s (poisson), for 6.00 s, warm-up 4
    stairs/steps3: open at 10.0 requests/s for 2.00 s, then 0 requests/s for 1.00 s, then 40.0 requests/s for 2.00 s (poisson), to the end of its schedule, warm-up 4
    tides/sine30: open at 30.0 +- 20.0 requests/s in waves of 2.00 s (constant), for 6.00 s, warm-up 4
    ");
}

#[test]
fn the_same_file_gives_the_same_bytes_and_the_published_form() {
    let schema = std::fs::read_to_string(root().join("schemas/plan.schema.json")).unwrap();
    let schema = serde_json::from_str(&schema).unwrap();
    for name in [
        "seed1-4gpu-vs-8gpu",
        "seed2-kuberay-scaling",
        "seed3-dynamo-pd-multinode",
        "seed4-modal-gpu-users",
        "seed5-course-week5",
        "quickstart",
        "real-cpu",
        "real-vllm-cpu",
        "load-shapes",
        "capacity",
        "platforms",
    ] {
        let first = say(["plan", &experiment(name), "--json"]).expect_code(0);
        let second = say(["plan", &experiment(name), "--json"]).expect_code(0);
        assert_eq!(first.stdout, second.stdout, "{name}");
        let plan = first.json();
        assert!(plan["deployments"].is_array() && plan["points"].is_array());
        let problems: Vec<_> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&plan)
            .map(|e| e.to_string())
            .collect();
        assert_eq!(problems, [""; 0], "{name}");
    }
}

#[test]
fn experiments_are_valid_by_the_published_schema() {
    let schema = std::fs::read_to_string(root().join("schemas/experiment.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for entry in std::fs::read_dir(root().join("experiments")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = toml::from_str(&text).unwrap();
        let problems: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(problems, [""; 0], "{}", path.display());
    }
}

#[test]
fn seeds_requests_and_weak_scaling_are_as_the_file_says() {
    let plan = say(["plan", &experiment("seed2-kuberay-scaling"), "--json"]).expect_code(0).json();
    let users: Vec<_> = plan["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["level"]["concurrency"].as_u64().unwrap())
        .collect();
    assert_eq!(users, [32, 64, 96, 128, 256, 512, 768, 1024, 32]);
    let plan =
        say(["plan", &experiment("seed3-dynamo-pd-multinode"), "--json"]).expect_code(0).json();
    let requests: Vec<_> = plan["points"].as_array().unwrap()[..8]
        .iter()
        .map(|p| p["measure"]["requests"].as_u64().unwrap())
        .collect();
    assert_eq!(requests, [100, 100, 100, 100, 160, 320, 640, 1280]);
    assert_eq!(plan["deployments"][0]["gpus"], 16);
}

#[test]
fn a_selection_keeps_what_it_names_and_refuses_what_is_not_there() {
    let file = experiment("seed5-course-week5");
    let plan = say(["plan", &file, "--load", "exp4-mixed", "--json"]).expect_code(0).json();
    assert_eq!(plan["points"].as_array().unwrap().len(), 2);
    let said = say(["plan", &file, "--load", "exp4-mixd"]).expect_code(2);
    assert!(said.stderr.contains("hint: did you mean 'exp4-mixed'?"), "{}", said.stderr);
}

/// llama.cpp runs without GPUs too, so the shape does not say that there are any. A host without ids is all of
/// its GPUs.
#[test]
fn gpus_that_a_place_names_count_for_an_engine_that_can_do_without() {
    for (place, gpus) in [("", 0), ("place = [\"box\"]", 4), ("place = [\"box:0,2\"]", 2)] {
        let lab = Lab::new(&format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.box]\ngpus = 4\n[[deploy]]\nname = \"d\"\n\
             platform = \"local\"\nengine = \"llama.cpp\"\n{place}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n"
        ));
        let plan = lab.say("plan", &["--json"]).expect_code(0).json();
        assert_eq!(plan["deployments"][0]["gpus"], gpus, "{place}");
    }
}
