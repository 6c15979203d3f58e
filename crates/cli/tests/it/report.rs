//! `report` on a finished run: any percentile, histograms, raw records, and other tools' definitions.

use crate::support::{Lab, Said, emulated, emulator, say, scalebeam};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const REQUESTS: usize = 20;
const WARMUP: usize = 3;

/// A run of twenty requests for eight tokens each, two at a time; the directory goes with the guard.
fn run(more: &[&str]) -> (tempfile::TempDir, PathBuf, Said) {
    let server = emulator(&["--ttft", "20ms", "--itl", "5ms", "--model", "m"]);
    let out = tempfile::tempdir().unwrap();
    let fixed = ["-c", "2", "-n", "20", "--warmup", "3", "--isl", "16", "--osl", "8", "--out"];
    let args = [&["bench", &server.url][..], &fixed, &[out.path().to_str().unwrap()], more];
    let said = say(args.concat()).expect_code(0);
    let dir = std::fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    (out, dir, said)
}

fn report(dir: &Path, more: &[&str]) -> Said {
    say([&["report", dir.to_str().unwrap()][..], more].concat())
}

#[test]
fn other_tools_tell_of_the_same_requests_under_their_own_keys() {
    let (_guard, dir, said) = run(&["--define", "vllm", "--json"]);
    let values = &said.json()[0]["trials"][0]["values"];
    assert_eq!(values["completed"], 20.0, "{values:#}");
    assert_eq!(values["total_output_tokens"], 160.0);
    let at = |key: &str| values[key].as_f64().unwrap_or_else(|| panic!("{key}: {values:#}"));
    assert!(at("mean_ttft_ms") >= 19.0 && at("mean_e2el_ms") >= 19.0 + 7.0 * 4.9);
    assert!(at("max_concurrent_requests") <= 2.0);

    let tools =
        ["sglang", "aiperf", "genai-perf", "guidellm", "inference-perf", "llmperf", "genai-bench"];
    let said = report(&dir, &["--define", &tools.join(","), "--json"]).expect_code(0);
    let told = said.json();
    let names: Vec<&str> =
        told.as_array().unwrap().iter().map(|t| t["definitions"].as_str().unwrap()).collect();
    assert_eq!(names, tools);
    let values = |tool: usize| told[tool]["trials"][0]["values"].clone();
    assert_eq!(values(1)["request_latency"]["count"], 20.0);
    assert_eq!(values(3)["metrics"]["request_totals"]["successful"], 20.0);
    // Of one request: with the first token in it the time per token is longer than without.
    let token = &values(3)["metrics"];
    let mean = |name: &str| token[name]["successful"]["mean"].as_f64().unwrap();
    assert!(mean("time_per_output_token_ms") > mean("inter_token_latency_ms"));

    let text = report(&dir, &["--define", "llmperf"]).expect_code(0).stdout;
    for part in
        ["endpoint/load/c2, trial 1", "results_ttft_s_*", "holds the time to the first token"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said = report(&dir, &["--define", "wrk"]).expect_code(2);
    assert!(said.stderr.contains("known are vllm, sglang"), "{}", said.stderr);
}

#[test]
fn every_request_comes_out_as_it_was_recorded() {
    let (_guard, dir, _) = run(&[]);
    let jsonl = report(&dir, &["--records", "jsonl"]).expect_code(0).stdout;
    let records: Vec<Value> = jsonl.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(records.len(), REQUESTS + WARMUP);
    let measured: Vec<&Value> = records.iter().filter(|r| r["phase"] == "measure").collect();
    assert_eq!(measured.len(), REQUESTS);
    for record in measured {
        assert_eq!((&record["deploy"], &record["level"]), (&"endpoint".into(), &"c2".into()));
        let chunks =
            record["arrivals"].as_array().unwrap().iter().map(|a| a["chunks"].as_u64().unwrap());
        assert_eq!(chunks.sum::<u64>(), 8, "{record:#}");
    }
    let csv = report(&dir, &["--records", "csv"]).expect_code(0).stdout;
    assert_eq!(csv.lines().count(), 1 + REQUESTS + WARMUP);
    assert!(csv.starts_with("deploy,load,level,trial,index,"), "{csv}");

    // A reader that goes away after a line is no failure.
    let mut child = scalebeam();
    child.args(["report", dir.to_str().unwrap(), "--records", "jsonl"]).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_histogram_counts_every_sample_once() {
    let (_guard, dir, _) = run(&[]);
    let said = report(&dir, &["--histogram", "ttft,itl_ms", "--json"]).expect_code(0);
    let counts: Vec<u64> =
        said.json().as_array().unwrap().iter().map(|h| h["count"].as_u64().unwrap()).collect();
    let results = report(&dir, &["--json"]).expect_code(0).json();
    let metrics = &results["points"][0]["metrics"];
    let count = |name: &str| metrics[name]["count"].as_u64().unwrap();
    assert_eq!(counts, [count("ttft_ms"), count("itl_ms")]);
    let csv = report(&dir, &["--histogram", "ttft_ms"]).expect_code(0).stdout;
    let (least, most) = (&metrics["ttft_ms"]["min"], &metrics["ttft_ms"]["max"]);
    let row = |line: &str| -> (f64, f64, usize) {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[5].parse().unwrap(), cells[6].parse().unwrap(), cells[7].parse().unwrap())
    };
    let rows: Vec<(f64, f64, usize)> = csv.lines().skip(1).map(row).collect();
    assert_eq!(rows.iter().map(|r| r.2).sum::<usize>(), REQUESTS);
    let (first, last) = (rows[0], rows[rows.len() - 1]);
    assert!(first.0 <= least.as_f64().unwrap() && last.1 >= most.as_f64().unwrap());
    let said = report(&dir, &["--histogram", "rps"]).expect_code(2);
    assert!(said.stderr.contains("'rps' is no distribution"), "{}", said.stderr);
}

#[test]
fn any_percentile_can_be_expected_and_shown() {
    let text = emulated(
        &["a"],
        "ttft = \"5ms\", itl = \"1ms\"",
        "mode = \"closed\"\nconcurrency = 2\nrequests = 12\nwarmup = 0",
    ) + "[[expect]]\nmetric = \"ttft.p87.5\"\nop = \">=\"\nvalue = 4.0\n";
    let lab = Lab::new(&text);
    let said = lab.say("run", &["--json"]).expect_code(0);
    let results = said.json();
    let expect = &results["expects"][0];
    assert_eq!((&expect["holds"], &expect["what"]), (&true.into(), &"ttft.p87.5 >= 4".into()));
    let metrics = &results["points"][0]["metrics"];
    let at = |stat: &str| metrics["ttft_ms"][stat].as_f64().unwrap();
    let asked = metrics["ttft_ms.p87.5"].as_f64().unwrap();
    assert!(at("p75") <= asked && asked <= at("p90"), "{metrics:#}");
    assert_eq!(expect["value"], asked);

    let said = report(&lab.run_dir(), &["--percentiles", "50,99.95"]).expect_code(0);
    let row = said.stdout.lines().find(|l| l.contains("Metric")).unwrap();
    assert!(row.contains("p50") && row.contains("p99.95"), "{}", said.stdout);
    let said = report(&lab.run_dir(), &["--percentiles", "101"]).expect_code(2);
    assert!(said.stderr.contains("101 is not between 0 and 100"), "{}", said.stderr);
}
