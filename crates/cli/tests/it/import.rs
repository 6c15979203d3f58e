//! Result files of other tools, read through the binary.

use crate::support::{Said, root, say, unwrapped};

/// What the tools themselves wrote (see the tests of `model::import`).
fn fixture(name: &str) -> String {
    root().join("crates/model/src/import/fixtures").join(name).display().to_string()
}

fn import(args: &[&str]) -> Said {
    say(["import"].iter().chain(args))
}

#[test]
fn results_of_several_tools_stand_under_the_same_names() {
    let files = [fixture("vllm.json"), fixture("sglang.jsonl"), fixture("inference-perf.json")];
    let args: Vec<&str> = files.iter().map(String::as_str).collect();
    insta::assert_snapshot!(import(&args).expect_code(0).stdout);
}

#[test]
fn a_table_of_seed_1_is_shown_with_what_speaks_against_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deepseek_benchmark_dual.csv");
    std::fs::write(
        &file,
        "scenario,timestamp,total_requests,successful_requests,failed_requests,success_rate,avg_latency,\
         median_latency,p95_latency,p99_latency,max_latency,min_latency,avg_ttft,median_ttft,p95_ttft,\
         avg_tpot,median_tpot,requests_per_second,tokens_per_second,avg_prompt_tokens,avg_completion_tokens,\
         total_tokens_generated\n\
         heavy_load,t,200,200,0,100.0,130.1,128.0,150.0,160.0,170.0,90.0,15.6,0.69,69.0,0.05,0.05,1.471,\
         1139.4,40,774.6,154920\n\
         stress_test,t,500,416,84,83.2,250.0,249.0,290.0,298.0,299.9,9.0,90.0,88.0,200.0,0.06,0.06,1.386,\
         988.3,40,713.1,296650\n",
    )
    .unwrap();
    insta::assert_snapshot!(import(&[&file.display().to_string()]).expect_code(0).stdout);
}

#[test]
fn every_number_is_in_the_json() {
    let json = import(&[&fixture("vllm.json"), "--json"]).expect_code(0).json();
    assert_eq!(json["format"], 1);
    assert_eq!(json["logs"].as_array().map(Vec::len), Some(0));
    let point = &json["files"][0]["points"][0];
    assert_eq!(point["completed"], 24.0);
    assert_eq!(point["metrics"]["ttft_sent_ms"]["mean"], 14.642717206394687);
    assert_eq!(point["other"]["/max_output_tokens_per_s"], 384.0);
}

#[test]
fn a_file_of_nobody_is_refused_with_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("what.json");
    std::fs::write(&file, "{\"a\": 1}").unwrap();
    let said = import(&[&file.display().to_string()]).expect_code(2);
    for part in
        ["what.json is no result", "vllm bench serve", "and no power log", "hint: power logs"]
    {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let said = import(&["/nowhere.json"]).expect_code(2);
    assert!(said.stderr.contains("cannot read /nowhere.json"), "{}", said.stderr);
    let said = import(&[&fixture("vllm.json"), "--results", &fixture("vllm.json")]).expect_code(2);
    assert!(said.stderr.contains("are for power logs"), "{}", said.stderr);
}

#[test]
fn several_files_a_side_give_an_interval_over_files() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("vllm.json")).unwrap();
    let file = |name: &str, rps: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text.replace("34.622002744353736", rps)).unwrap();
        path.display().to_string()
    };
    let [a, b] = [file("a1.json", "34.0"), file("a2.json", "35.0")];
    let [c, d] = [file("b1.json", "30.0"), file("b2.json", "30.5")];
    let said = say(["compare", &a, &b, "--", &c, &d]).expect_code(0);
    let words = unwrapped(&said.stdout);
    for part in [
        "A a1.json, a2.json (vllm bench serve)",
        "B / A [95 %]",
        "rps 34.5 30.2 0.88x [0.82, 0.94]",
        "intervals: Student over 2 and 2 files, on logarithms",
        "intervals are over files",
        "A, a2.json: ",
    ] {
        assert!(words.contains(part), "{part}: {}", said.stdout);
    }
    // Under another name it is the same measurement still, on one side or on both.
    let copy = file("copy.json", "34.0");
    for args in [&["compare", &a, &copy, "--", &c][..], &["compare", &a, &copy]] {
        let said = say(args).expect_code(2);
        let want = "files a1.json and copy.json hold the same numbers: one is a copy";
        assert!(said.stderr.contains(want), "{}", said.stderr);
    }
    let said = say(["compare", &a, &a, "--", &c]).expect_code(2);
    assert!(said.stderr.contains("a1.json is there twice on one side"), "{}", said.stderr);
    let other = file("c.json", "30.0");
    std::fs::write(&other, text.replace("\"max_concurrency\": 4", "\"max_concurrency\": 8"))
        .unwrap();
    let said = say(["compare", &a, &other, "--", &c]).expect_code(2);
    let want =
        "files a1.json and c.json of A are no repeats of one thing: requests at once: 4 and 8";
    assert!(said.stderr.contains(want), "{}", said.stderr);
}

#[test]
fn two_files_are_compared_without_a_verdict() {
    let (a, b) = (fixture("vllm.json"), fixture("sglang.jsonl"));
    insta::assert_snapshot!(say(["compare", &a, &b]).expect_code(0).stdout);
    let json = say(["compare", &a, &b, "--json"]).expect_code(0).json();
    assert_eq!(json["points"][0]["metrics"][0]["metric"], "rps");
    let said = say(["compare", &a, &b, "--fail-on", "regression"]).expect_code(2);
    assert!(said.stderr.contains("does not say what runs differ by"), "{}", said.stderr);
    let said = say(["compare", &a, "/nowhere"]).expect_code(2);
    assert!(said.stderr.contains("hint: scalebeam export RUN --as vllm"), "{}", said.stderr);
    let said = say(["compare", &a, &fixture("inference-perf.json")]).expect_code(2);
    assert!(
        said.stderr.contains("not asked the same") || said.stderr.contains("in common"),
        "{}",
        said.stderr
    );
}
