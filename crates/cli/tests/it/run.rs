//! `run` on emulated deployments: counts, files, exit codes, nothing left behind.

use crate::support::{Lab, emulated, free_port, json_lines, marked_processes, root, say};

const QUICK: &str =
    "mode = \"closed\"\nconcurrency = [2, 4]\nrequests = \"5x\"\nwarmup = 2\nrepeats = 2\n";

/// Codes of the doubts that do not depend on how busy this machine is.
fn doubts_of_requests(point: &serde_json::Value) -> Vec<String> {
    let codes = point["trust"]["reasons"].as_array().unwrap().iter().map(|r| r["code"].as_str());
    let of_machine =
        ["client_cpu", "cpu_throttled", "foreign_load", "late", "cold_start", "merged_reads"];
    codes.flatten().filter(|c| !of_machine.contains(c)).map(str::to_owned).collect()
}

#[test]
fn every_count_equals_the_server_s_own_log() {
    let dir = tempfile::tempdir().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let params = format!("ttft = \"5ms\", itl = \"1ms\", truth_log = \"{}\"", truth.display());
    let lab = Lab::new(&emulated(&["one"], &params, QUICK));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let run = lab.run_dir().file_name().unwrap().to_string_lossy().into_owned();
    let log: Vec<_> = json_lines(&truth)
        .into_iter()
        .filter(|r| r["id"].as_str().is_some_and(|id| id.starts_with(&run)))
        .collect();
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    let mut measured = 0;
    for (point, n) in points.iter().zip([20, 40]) {
        assert_eq!(point["outcomes"]["completed"], n, "two repeats of five times the concurrency");
        assert_eq!(point["outcomes"].as_object().unwrap().len(), 1);
        assert_eq!(point["metrics"]["output_tokens"]["mean"], 8.0);
        assert_eq!(point["trials"].as_array().unwrap().len(), 2);
        assert_eq!(doubts_of_requests(point), [""; 0], "{point:#}");
        measured += n;
    }
    let trial = lab.run_dir().join("points/one/l/c2/1/trial.json");
    let trial: serde_json::Value = serde_json::from_slice(&std::fs::read(trial).unwrap()).unwrap();
    assert_eq!(
        trial["ended"]["info"]["preemptions"], 0,
        "by /metrics, before and after: {trial:#}"
    );
    // What the engine says is what its own log says, trial by trial.
    let engine = &trial["ended"]["info"]["engines"]["instances"][0];
    assert_eq!(engine["name"], "aggregated 0", "{engine:#}");
    assert_eq!(engine["values"]["requests_done"]["counter"]["risen"], 10.0, "{engine:#}");
    assert_eq!(engine["values"]["generation_tokens"]["counter"]["risen"], 80.0);
    assert_eq!(engine["values"]["ttft"]["histogram"]["count"], 10.0);
    assert_eq!(engine["values"]["queue_time"]["histogram"]["count"], 10.0);
    assert_eq!(engine["values"]["kv_received_bytes"]["absent"], "not_exported");
    let pages =
        std::fs::read_to_string(lab.run_dir().join("points/one/l/c2/1/engine.prom")).unwrap();
    assert_eq!(pages.matches("# scalebeam: ").count(), 2, "before and after");
    assert_eq!(pages.matches("\nvllm:num_preemptions_total{").count(), 2);
    assert_eq!(points[0]["metrics"]["preemptions"], 0.0);
    // Two points, two trials, two warm-up requests each.
    assert_eq!(log.len(), measured + 8);
    assert!(log.iter().all(|r| r["tokens"] == 8 && r["outcome"] == "completed"));
    let prompts: std::collections::BTreeSet<_> = log.iter().map(|r| r["id"].to_string()).collect();
    assert_eq!(prompts.len(), log.len(), "no request twice");
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn engines_are_looked_at_while_the_load_runs_and_not_where_the_file_says_no() {
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 60\n";
    let text = emulated(&["one"], "ttft = \"40ms\", itl = \"5ms\"", load)
        + "[output]\nformats = [\"json\", \"md\"]\n";
    let lab = Lab::new(&(text.clone() + "[telemetry]\ninterval = \"100ms\"\n"));
    let said = lab.say("run", &["--json"]);
    let point = &said.json()["points"][0];
    let running = &point["metrics"]["running"];
    assert!(running["count"].as_f64().unwrap() >= 5.0, "{point:#}");
    assert_eq!(running["max"], 4.0, "all slots, and not more: {point:#}");
    assert_eq!(point["metrics"]["queue"]["max"], 0.0, "{point:#}");
    let engine = &point["trials"][0]["engines"][0];
    assert_eq!(engine["missed"], 0, "{engine:#}");
    assert_eq!(engine["called"]["running"], "vllm:num_requests_running");
    let page = std::fs::read_to_string(lab.run_dir().join("results.md")).unwrap();
    assert!(page.contains("## Engines, by their own metrics"), "{page}");
    // Nobody waits where there is a place for everyone; the first token and seven gaps are as planned.
    for (name, planned_ms) in
        [("engine_queue_ms", 0.0), ("engine_prefill_ms", 40.0), ("engine_decode_ms", 35.0)]
    {
        let said_ms = point["metrics"][name].as_f64().unwrap();
        assert!((said_ms - planned_ms).abs() < 1.0, "{name}: {said_ms} ms, planned {planned_ms}");
    }
    assert!(page.contains("Of ") && page.contains("in its prefill"), "{page}");

    let lab = Lab::new(&(text + "[telemetry]\nengine = false\n"));
    let results = lab.say("run", &["--json"]).json();
    assert_eq!(results["points"][0]["trials"][0].get("engines"), None);
    assert!(!lab.run_dir().join("points/one/l/c4/1/engine.prom").exists());
}

#[test]
fn files_are_the_ones_that_the_design_names_and_valid_by_their_schema() {
    let text = emulated(&["one", "two"], "ttft = \"5ms\", itl = \"1ms\"", QUICK)
        + "[[report]]\nkind = \"compare\"\nbaseline = \"one\"\nmetrics = [\"output_tps\"]\n\
           [[report]]\nkind = \"panels\"\nby = \"load\"\nmetrics = [\"rps\", \"ttft.p50\"]\n\
           [[report]]\nkind = \"curve\"\nx = \"concurrency\"\nmetrics = [\"output_tps\"]\n\
           [[report]]\nkind = \"table\"\nmetrics = [\"rps\", \"e2e.p95\"]\n\
           [output]\nformats = [\"json\", \"csv\", \"md\", \"html\", \"svg\", \"png\"]\n";
    let lab = Lab::new(&text);
    let said = lab.say("run", &[]).expect_code(0);
    assert!(said.stdout.contains("Verdict"), "{}", said.stdout);
    let dir = lab.run_dir();
    for file in [
        "manifest.json",
        "experiment.toml",
        "plan.json",
        "journal.jsonl",
        "results.json",
        "results.csv",
        "results.md",
        "report.html",
        "points/one/l/c2/1/requests.parquet",
        "points/two/l/c4/2/tokens.parquet",
    ] {
        assert!(dir.join(file).is_file(), "{file} is not there");
    }
    let charts = std::fs::read_dir(dir.join("charts")).unwrap().count();
    assert!(charts >= 6, "{charts} charts");
    let schema = std::fs::read_to_string(root().join("schemas/results.schema.json")).unwrap();
    let schema = serde_json::from_str(&schema).unwrap();
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("results.json")).unwrap()).unwrap();
    let problems: Vec<_> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&results)
        .map(|e| e.to_string())
        .collect();
    assert_eq!(problems, [""; 0]);
    // Deleted results are made again from the records, to the byte.
    let before = std::fs::read(dir.join("results.json")).unwrap();
    std::fs::remove_file(dir.join("results.json")).unwrap();
    say(["report", dir.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::read(dir.join("results.json")).unwrap(), before);
}

#[test]
fn an_expectation_decides_the_exit_code() {
    let base =
        emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", "mode = \"serial\"\nrequests = 4\n");
    let expect = |severity: &str| {
        format!(
            "{base}[[expect]]\nmetric = \"ttft.p50\"\nop = \"<\"\nvalue = 1.0\nseverity = \"{severity}\"\n"
        )
    };
    let said = Lab::new(&expect("error")).say("run", &[]).expect_code(1);
    assert!(said.stdout.contains("ttft.p50 < 1"), "{}", said.stdout);
    Lab::new(&expect("warn")).say("run", &[]).expect_code(0);
}

#[test]
fn failures_are_outcomes_and_make_a_point_untrustworthy() {
    let text = emulated(
        &["one"],
        "ttft = \"5ms\", itl = \"1ms\"",
        "mode = \"closed\"\nconcurrency = 4\nrequests = 40\n",
    )
    .replace(
        "stop = ",
        "args = [\"--interrupt\", \"reset:3:0.4\"]\nready = { probe = \"health\" }\nstop = ",
    );
    let lab = Lab::new(&text);
    let said = lab.say("run", &["--json"]).expect_code(3);
    let point = &said.json()["points"][0];
    let count = |o: &str| point["outcomes"][o].as_u64().unwrap_or(0);
    assert_eq!(count("completed") + count("failed"), 40, "{point:#}");
    assert!(count("failed") > 5, "{point:#}");
    assert_eq!(point["failures"]["reset"].as_u64(), Some(count("failed")));
    assert_eq!(point["trust"]["level"], "invalid");
    assert_eq!(point["trust"]["reasons"][0]["code"], "failures");
}

#[test]
fn replicas_share_the_load() {
    for balance in ["round-robin", "least-inflight"] {
        let text = emulated(
            &["two"],
            "ttft = \"5ms\", itl = \"1ms\"",
            "mode = \"closed\"\nconcurrency = 4\nrequests = 40\n",
        )
        .replace(
            "place = [\"box:0\"]",
            &format!("replicas = 2\nplace = [\"box:0\", \"box:1\"]\nbalance = \"{balance}\""),
        );
        let results = Lab::new(&text).say("run", &["--json"]).expect_code(0).json();
        let shares: Vec<u64> = results["points"][0]["by_target"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect();
        assert_eq!(shares.iter().sum::<u64>(), 40);
        assert!(shares.iter().all(|n| (15..=25).contains(n)), "{balance}: {shares:?}");
        assert_eq!(results["points"][0]["gpus"], 2);
    }
}

#[test]
fn every_load_mode_sends_what_it_says() {
    let text = emulated(
        &["one"],
        "ttft = \"5ms\", itl = \"1ms\"",
        "mode = \"burst\"\nrequests = 30\n",
    ) + "[[workload]]\nname = \"texts\"\nkind = \"prompts\"\napi = \"completions\"\nprompts = [ { id = \"a\", max_tokens = 4, text = \"hello there\" } ]\n\
           [[load]]\nname = \"serial\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 3\n\
           [[load]]\nname = \"open\"\nworkload = \"w\"\nmode = \"open\"\nrate = \"100/s\"\narrival = \"constant\"\nduration = \"500ms\"\n\
           [[load]]\nname = \"poisson\"\nworkload = \"w\"\nmode = \"open\"\nrate = \"200/s\"\nrequests = 20\n\
           [[load]]\nname = \"batch\"\nworkload = \"texts\"\nmode = \"batch\"\nbatch = [1, 4]\nrequests = 2\n";
    // Lateness on a busy machine may cost trust (exit code 3); what was sent is the same.
    let results = Lab::new(&text).say("run", &["--json"]).json();
    let rows: Vec<_> = results["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let tokens = p["metrics"]["output_tokens"]["mean"].as_f64().unwrap();
            format!(
                "{} {} {} {tokens}",
                p["load"].as_str().unwrap(),
                p["level"].as_str().unwrap(),
                p["outcomes"]["completed"]
            )
        })
        .collect();
    let want = ["l n30 30 8", "serial c1 3 8", "open r100 50 8", "poisson r200 20 8"];
    assert_eq!(rows[..4], want);
    assert!(rows[4].starts_with("batch b1 2 ") && rows[5].starts_with("batch b4 2 "), "{rows:?}");
}

#[test]
fn what_cannot_be_run_yet_says_so_before_anything_starts() {
    for (engine, platform) in [("lmdeploy", "local"), ("lmdeploy", "ssh"), ("emulated", "k8s")] {
        let text = format!(
            "schema = 1\nname = \"later\"\n[model]\nid = \"m\"\n[host.a]\naddr = \"127.0.0.1\"\nssh = \"a\"\n\
             gpus = 1\n[[deploy]]\nname = \"one\"\nplatform = \"{platform}\"\nengine = \"{engine}\"\n\
             {}\n[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 4\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n",
            if platform == "k8s" { "image = \"x\"" } else { "place = [\"a:0\"]" },
        );
        let lab = Lab::new(&text);
        let said = lab.say("run", &[]).expect_code(4);
        assert!(said.stderr.contains("nothing was started"), "{}", said.stderr);
        let pair = format!("{engine} on platform {platform}");
        assert!(said.stderr.contains(&pair), "{pair}: {}", said.stderr);
        assert!(!lab.runs().exists(), "no run directory was made");
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_a_deployment_failure() {
    let text = format!(
        "schema = 1\nname = \"gone\"\n[model]\nid = \"m\"\n[[deploy]]\nname = \"there\"\nplatform = \"external\"\n\
         engine = \"openai\"\nendpoint = \"http://127.0.0.1:{}\"\nready = {{ timeout = \"1s\" }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 4\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n",
        free_port()
    );
    let said = Lab::new(&text).say("run", &[]).expect_code(4);
    assert!(said.stderr.contains("127.0.0.1"), "{}", said.stderr);
}

#[test]
fn one_deployment_that_fails_does_not_cost_the_others() {
    let text = emulated(
        &["bad", "good"],
        "ttft = \"5ms\", itl = \"1ms\"",
        "mode = \"serial\"\nrequests = 4\n",
    )
    .replacen("params = { ttft", "args = [\"--no-such-flag\"]\nparams = { ttft", 1);
    let lab = Lab::new(&text);
    let said = lab.say("run", &["--json"]).expect_code(4);
    assert!(said.stderr.contains("--no-such-flag"), "the log's tail is shown: {}", said.stderr);
    let results = said.json();
    assert_eq!(results["points"][0]["deployment"], "good");
    assert_eq!(results["skipped"][0]["deployment"], "bad");
}

#[test]
fn an_optional_deployment_without_its_program_is_skipped_with_its_reason() {
    let text = emulated(
        &["good"],
        "ttft = \"5ms\", itl = \"1ms\"",
        "mode = \"serial\"\nrequests = 4\n",
    ) + "[[deploy]]\nname = \"absent\"\nplatform = \"local\"\nengine = \"vllm\"\nparams = { bin = \"/no/such/vllm\" }\nplace = [\"box:0\"]\noptional = true\n";
    let results = Lab::new(&text).say("run", &["--json"]).expect_code(0).json();
    assert_eq!(results["skipped"][0]["deployment"], "absent");
    let text = text.replace("optional = true", "");
    let said = Lab::new(&text).say("run", &[]).expect_code(4);
    assert!(said.stderr.contains("/no/such/vllm"), "{}", said.stderr);
}

#[test]
fn a_prompt_file_is_read_from_beside_the_experiment() {
    let text =
        emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", "mode = \"serial\"\nrequests = 4\n")
            .replace(
                "kind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true",
                "kind = \"file\"\nfile = \"p.jsonl\"\nmax_tokens = 5\nforce_len = true",
            );
    let lab = Lab::new(&text);
    let said = lab.say("run", &[]).expect_code(2);
    assert!(said.stderr.contains("cannot read the prompt file") && said.stderr.contains("p.jsonl"));
    std::fs::write(
        lab.dir.path().join("p.jsonl"),
        "{\"prompt\": \"one\"}\n{\"prompt\": \"two\", \"max_tokens\": 3}\n",
    )
    .unwrap();
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(results["points"][0]["metrics"]["output_tokens"]["mean"], 4.0);
}

#[test]
fn no_secret_reaches_a_file_or_a_report() {
    let secret = "sk-this-is-the-secret-value";
    let server = crate::support::emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", "m"]);
    let text = format!(
        "schema = 1\nname = \"s\"\n[model]\nid = \"m\"\n[[deploy]]\nname = \"there\"\nplatform = \"external\"\n\
         engine = \"openai\"\nendpoint = \"{}\"\napi_key_env = \"LAB_KEY\"\nheaders_env = {{ \"X-Team\" = \"LAB_TEAM\" }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 4\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 2\n\
         [output]\nformats = [\"json\", \"csv\", \"md\", \"html\"]\n",
        server.url
    );
    let lab = Lab::new(&text);
    let said = lab.say("run", &[]).expect_code(2);
    assert!(said.stderr.contains("environment variable LAB_KEY is not set"), "{}", said.stderr);
    let said: crate::support::Said =
        lab.command("run").env("LAB_KEY", secret).env("LAB_TEAM", secret).output().unwrap().into();
    let said = said.expect_code(0);
    assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret));
    let mut dirs = vec![lab.run_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let content = std::fs::read(&path).unwrap();
                assert!(!String::from_utf8_lossy(&content).contains(secret), "{}", path.display());
            }
        }
    }
}

#[test]
fn an_impatient_user_costs_neither_trust_nor_success() {
    let load = "concurrency = 10\nrequests = 60\ncancel = { share = 0.3, after = \"60ms\" }\n\
                ramp_up = \"40ms\"\nthink = { mean = \"5ms\" }";
    let text = emulated(&["one"], "ttft = \"250ms\", itl = \"1ms\"", load);
    let lab = Lab::new(&text);
    let results = lab.say("run", &["--json"]).json();
    let point = &results["points"][0];
    let count = |name: &str| point["outcomes"][name].as_u64().unwrap_or(0);
    assert_eq!(count("abandoned") + count("completed"), 60, "{point}");
    assert!((8..30).contains(&count("abandoned")), "{}", count("abandoned"));
    assert_eq!(point["metrics"]["success_rate"], 1.0);
    assert_eq!(point["metrics"]["ttft_ms"]["count"], count("completed"));
    assert_eq!(point["failures"], serde_json::json!({}));
    let reasons = point["trust"]["reasons"].as_array().unwrap();
    let code = |r: &serde_json::Value| r["code"].as_str().unwrap().to_owned();
    let codes: Vec<String> = reasons.iter().map(code).collect();
    assert!(codes.contains(&"abandoned".to_owned()), "{codes:?}");
    for doubt in ["failures", "concurrency_not_reached"] {
        assert!(!codes.contains(&doubt.to_owned()), "{codes:?}");
    }
}

/// Half a second of requests in the middle of a trace, at twice its speed, with the lengths that belong
/// to them.
#[test]
fn a_part_of_a_trace_is_replayed_at_its_times_and_lengths() {
    let load = "mode = \"open\"\narrival = \"trace\"\nspeed = 2.0\nwindow = { from = \"1s\", to = \"2s\" }";
    let workload = "[[workload]]\nname = \"w\"\nkind = \"file\"\nformat = \"mooncake\"\nfile = \"trace.jsonl\"\nforce_len = true\n";
    let text = emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", load);
    let (before, rest) = text.split_once("[[workload]]").unwrap();
    let after = &rest[rest.find("[[load]]").unwrap()..];
    let lab = Lab::new(&format!("{before}{workload}{after}"));
    let trace: String = (0..30)
        .map(|i| {
            let (at, out) = (i * 100, i + 1);
            format!("{{\"timestamp\":{at},\"input_length\":40,\"output_length\":{out},\"hash_ids\":[{i}]}}\n")
        })
        .collect();
    std::fs::write(lab.file().with_file_name("trace.jsonl"), trace).unwrap();
    let plan = lab.say("plan", &[]).expect_code(0).stdout;
    let want = "open of a trace from 1.00 s to 2.00 s at 2.00 times its speed";
    assert!(plan.contains("one/l/trace-x2: ") && plan.contains(want), "{plan}");
    let point = lab.say("run", &["--json"]).expect_code(0).json()["points"][0].clone();
    assert_eq!(point["outcomes"]["completed"], 10);
    let tokens = &point["metrics"]["output_tokens"];
    assert_eq!((&tokens["min"], &tokens["max"]), (&11.0.into(), &20.0.into()));
    // Nine gaps of 100 ms at twice the speed, and the last answer.
    assert!(point["metrics"]["wall_s"].as_f64().unwrap() > 0.45);
}

#[test]
fn a_replay_of_nothing_is_refused_before_anything_starts() {
    let load = "mode = \"open\"\narrival = \"trace\"";
    let lab = Lab::new(&emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", load));
    let said = lab.say("check", &[]).expect_code(2);
    assert!(said.stderr.contains("is no trace, and has no times to replay"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: "), "{}", said.stderr);
}
