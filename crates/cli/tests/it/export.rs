//! `export` of a finished run, read again by `import`.

use crate::support::{Lab, Said, emulated, emulator, say};
use scalebeam_model::exposition;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A run of twenty requests for eight tokens each, two at a time; the directory goes with the guard.
fn run() -> (tempfile::TempDir, PathBuf) {
    let server = emulator(&["--ttft", "20ms", "--itl", "5ms", "--model", "m"]);
    let out = tempfile::tempdir().unwrap();
    let fixed =
        ["-c", "2", "-n", "20", "--warmup", "3", "--isl", "16", "--osl", "8", "--gpus", "2"];
    let args = [&["bench", &server.url][..], &fixed, &["--out", out.path().to_str().unwrap()]];
    say(args.concat()).expect_code(0);
    let dir = std::fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    (out, dir)
}

fn export(dir: &Path, form: &str, more: &[&str]) -> Said {
    say([&["export", dir.to_str().unwrap(), "--as", form][..], more].concat())
}

/// The files that were written, as stdout names them.
fn written(said: &Said) -> Vec<PathBuf> {
    said.stdout.lines().map(PathBuf::from).collect()
}

#[test]
fn every_form_that_is_imported_has_the_numbers_of_the_run() {
    let (_guard, dir) = run();
    let tools = ["--define", "vllm,sglang", "--json"];
    let defined = say([&["report", dir.to_str().unwrap()][..], &tools].concat()).json();
    let values = |tool: usize| defined[tool]["trials"][0]["values"].clone();
    let (vllm, sglang) = (values(0), values(1));
    let ours = say(["report", dir.to_str().unwrap(), "--json"]).json()["points"][0].clone();
    for form in ["vllm", "sglang", "genai-perf", "aiperf", "inferencex", "benchmark-report"] {
        let files = written(&export(&dir, form, &[]).expect_code(0));
        assert!(files.last().unwrap().ends_with("NOTES.md"), "{files:?}");
        let json = say(["import", files[0].to_str().unwrap(), "--json"]).expect_code(0).json();
        let point = &json["files"][0]["points"][0];
        let at = |metric: &str, stat: &str| {
            let found = point["metrics"][metric][stat].as_f64();
            found.unwrap_or_else(|| panic!("{form}: no {stat} of {metric}: {point:#}"))
        };
        // A connection that was opened is inside of every tool's own clock, and apart in ours.
        let ttft = vllm["p99_ttft_ms"].as_f64().unwrap();
        let same = if form == "benchmark-report" {
            ours["metrics"]["ttft_sent_ms"]["p99"].as_f64().unwrap()
        } else {
            ttft
        };
        assert!((at("ttft_sent_ms", "p99") / same - 1.0).abs() < 1e-9, "{form}");
        // SGLang counts to the end of the stream.
        let tool = if form == "sglang" { &sglang } else { &vllm };
        let tpot = tool["mean_tpot_ms"].as_f64().unwrap();
        assert!((at("tpot_ms", "mean") / tpot - 1.0).abs() < 1e-6, "{form}");
        assert_eq!(point["asked"]["concurrency"], 2.0, "{form}");
        // Beside their JSON files these have a table with two decimals, which is told by what is in it.
        for table in files.iter().filter(|f| f.extension().is_some_and(|e| e == "csv")) {
            let renamed = table.with_file_name("numbers.txt");
            std::fs::copy(table, &renamed).unwrap();
            let said = say(["import", renamed.to_str().unwrap(), "--json"]).expect_code(0).json();
            let rounded = said["files"][0]["points"][0]["metrics"]["ttft_sent_ms"]["p99"].as_f64();
            assert!(
                (rounded.unwrap() - at("ttft_sent_ms", "p99")).abs() <= 0.006,
                "{form}: {said:#}"
            );
        }
    }
}

#[test]
fn forms_for_databases_say_what_results_json_says() {
    let (_guard, dir) = run();
    let out = tempfile::tempdir().unwrap();
    let to = |form: &str| {
        let said = export(&dir, form, &["--out", out.path().to_str().unwrap(), "--json"]);
        let files = said.expect_code(0).json();
        std::fs::read_to_string(files[0].as_str().unwrap()).unwrap()
    };
    let results = say(["report", dir.to_str().unwrap(), "--json"]).json();
    let rps = results["points"][0]["metrics"]["rps"].as_f64().unwrap();
    let page = to("openmetrics");
    let found = exposition::samples(&page).find(|s| s.name == "scalebeam_rps").unwrap();
    assert!((found.value / rps - 1.0).abs() < 1e-12);
    let otlp: Value = serde_json::from_str(&to("otlp")).unwrap();
    let metrics = &otlp["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let gauge = metrics.as_array().unwrap().iter().find(|m| m["name"] == "scalebeam.rps").unwrap();
    assert_eq!(gauge["gauge"]["dataPoints"][0]["asDouble"].as_f64(), Some(rps));
    let meta = to("mlflow");
    assert!(meta.contains("lifecycle_stage: active"), "{meta}");
}

#[test]
fn what_cannot_be_exported_is_refused_with_what_can() {
    let (_guard, dir) = run();
    let said = export(&dir, "excel", &[]).expect_code(2);
    assert!(
        said.stderr.contains("benchmark-report") && said.stderr.contains("mlflow"),
        "{}",
        said.stderr
    );
    let said = export(&dir, "vllm", &["--deploy", "tp4"]).expect_code(2);
    assert!(said.stderr.contains("no deployment 'tp4'"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: it has endpoint"), "{}", said.stderr);
    let said = export(Path::new("/nowhere"), "vllm", &[]).expect_code(2);
    assert!(!said.stderr.is_empty());
}

#[test]
fn profiles_of_seeds_2_3_and_5_are_beside_the_run() {
    for (profile, file, head, row) in [
        (
            "seed2",
            "profile-seed2/summary.csv",
            "Model,Inference Nodes,Devices,GPUs,Per Replica batch size",
            "Qwen/Qwen2.5-7B-Instruct,Single Node,box,1xH100-SXM-80G,2,8,2,",
        ),
        (
            "seed3",
            "profile-seed3/l/isl_shared_0_isl_unique_32_osl_8/results.csv",
            "label,configuration,concurrency",
            "two,two_tp1dp1,2.0,",
        ),
        (
            "seed5",
            "profile-seed5/scaling_report.csv",
            "load,level,deployment,tensor_parallel_size",
            "l,c2,one,1,1,",
        ),
    ] {
        let load = "mode = \"closed\"\nconcurrency = [2]\nrequests = 10\n";
        let text = emulated(&["one", "two"], "ttft = \"5ms\", itl = \"1ms\"", load);
        let lab = Lab::new(&format!("{text}[output]\nprofile = \"{profile}\"\n"));
        let said = lab.say("run", &[]);
        assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
        let text = std::fs::read_to_string(lab.run_dir().join(file)).unwrap();
        assert!(text.starts_with(head), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().any(|line| line.starts_with(row)), "{text}");
        let files = written(&export(&lab.run_dir(), "vllm", &["--deploy", "two"]));
        assert!(files.iter().all(|f| !f.to_str().unwrap().contains("/one/")), "{files:?}");
        assert_eq!(files.len(), 2, "{files:?}");
    }
}
