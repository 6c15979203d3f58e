//! `bench`: no file needed, words that users of other tools know.

use crate::support::{emulator, say};

fn bench(url: &str, args: &[&str]) -> crate::support::Said {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    say([&["bench", url, "--selftest", "never", "--out", out], args].concat())
}

#[test]
fn levels_counts_and_the_model_come_out() {
    let server = emulator(&["--ttft", "10ms", "--itl", "2ms", "--model", "the-model"]);
    let args = [
        "--concurrency",
        "1,4",
        "--requests",
        "20",
        "--isl",
        "64",
        "--osl",
        "16",
        "--warmup",
        "2",
        "--json",
    ];
    let said = bench(&server.url, &args).expect_code(0);
    assert!(said.stderr.contains("prompts are sized by the server's usage"), "{}", said.stderr);
    let results = said.json();
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    for (point, c) in points.iter().zip([1, 4]) {
        assert_eq!(point["concurrency"], c);
        assert_eq!(point["outcomes"]["completed"], 20);
        assert_eq!(point["metrics"]["output_tokens"]["mean"], 16.0);
        // Sized by the server's own usage: within a few tokens of what was asked.
        let prompt = point["metrics"]["prompt_tokens"]["p50"].as_f64().unwrap();
        assert!((prompt - 64.0).abs() <= 24.0, "{prompt}");
        for name in
            ["ttft_ms", "ttft_sent_ms", "tpot_ms", "itl_ms", "e2e_ms", "e2e_sent_ms", "lateness_ms"]
        {
            for stat in [
                "mean", "std", "min", "p1", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "p999",
                "max", "count",
            ] {
                assert!(point["metrics"][name][stat].is_number(), "{name}.{stat}");
            }
        }
        for name in ["output_tps", "rps"] {
            assert!(point["metrics"][name].is_number(), "{name}");
        }
        assert!(point["metrics"].get("output_tps_per_gpu").is_none(), "GPUs are not known");
    }
}

#[test]
fn an_open_loop_keeps_its_rate_against_a_server_that_queues() {
    let server = emulator(&["--ttft", "100ms", "--itl", "1ms", "--slots", "1", "--model", "m"]);
    let args = [
        "--request-rate",
        "50",
        "--arrival",
        "constant",
        "--requests",
        "20",
        "--osl",
        "2",
        "--warmup",
        "0",
        "--json",
    ];
    let results = bench(&server.url, &args).json();
    let metrics = &results["points"][0]["metrics"];
    assert_eq!(results["points"][0]["outcomes"]["completed"], 20);
    // One at a time at 101 ms each: the last of twenty waits some 1.6 s, and its TTFT says so.
    let last = metrics["ttft_ms"]["max"].as_f64().unwrap();
    assert!(last > 1_300.0, "{last}");
    assert!(
        metrics["lateness_ms"]["p50"].as_f64().unwrap() < 50.0,
        "the generator itself is on time"
    );
}

#[test]
fn a_rate_that_changes_over_time_sends_as_many_as_it_says() {
    let server = emulator(&["--ttft", "2ms", "--itl", "1ms", "--model", "m"]);
    let short = ["--osl", "2", "--isl", "16", "--warmup", "0", "--json"];
    for (profile, level, count) in [
        // Steps have an end of their own: 10 in the first, 40 in the last.
        ("steps:50/s@200ms,0/s@100ms,200/s@200ms", "steps3", 50),
        ("ramp:0/s,100/s,200ms", "ramp0-100", 30),
        ("sine:100/s,100/s,50ms", "sine100", 30),
    ] {
        let mut args = vec!["--rate-profile", profile, "--arrival", "constant"];
        args.extend(short);
        if count == 30 {
            args.extend(["--requests", "30"]);
        }
        let results = bench(&server.url, &args).json();
        let point = &results["points"][0];
        assert_eq!(
            (&point["level"], &point["outcomes"]["completed"]),
            (&level.into(), &count.into())
        );
        assert!(point["rate_rps"].is_null(), "no one rate was asked for");
    }
    let mut args = vec!["--request-rate", "200", "--burstiness", "0.5", "--requests", "20"];
    args.extend(short);
    assert_eq!(bench(&server.url, &args).json()["points"][0]["outcomes"]["completed"], 20);
}

#[test]
fn a_trace_asks_for_its_own_lengths_and_a_wrong_line_is_named() {
    let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", "m"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.jsonl");
    let line = |at: u32, input: u32, output: u32, ids: &str| {
        format!(
            "{{\"timestamp\":{at},\"input_length\":{input},\"output_length\":{output},\"hash_ids\":{ids}}}\n"
        )
    };
    let text = line(0, 600, 3, "[1,2]") + &line(9, 100, 5, "[3]");
    std::fs::write(&file, &text).unwrap();
    let dataset = format!("mooncake:{}", file.display());
    let args = ["--dataset", &dataset, "-c", "1", "-n", "20", "--warmup", "0", "--json"];
    let said = bench(&server.url, &args).expect_code(0);
    assert!(
        said.stderr.contains("2 requests over 9.00 ms, on average 350 prompt and 4 answer tokens"),
        "{}",
        said.stderr
    );
    let metrics = said.json()["points"][0]["metrics"].clone();
    assert_eq!(metrics["output_tokens"]["min"], 3.0);
    assert_eq!(metrics["output_tokens"]["max"], 5.0);
    assert_eq!(metrics["output_tokens"]["mean"], 4.0);
    let [low, high] = ["min", "max"].map(|s| metrics["prompt_tokens"][s].as_f64().unwrap());
    assert!((80.0..140.0).contains(&low) && (560.0..680.0).contains(&high), "{low} {high}");

    std::fs::write(&file, text + "{}\n").unwrap();
    let said = bench(&server.url, &args).expect_code(2);
    assert!(
        said.stderr.contains("is not of format mooncake: line 3: missing field"),
        "{}",
        said.stderr
    );
}

#[test]
fn conversations_shared_prefixes_and_range_ratios_are_sent() {
    let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", "m"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.json");
    let answer = "one two three four five six";
    let talk = format!(
        "[{{\"id\":\"a\",\"conversations\":[{{\"from\":\"human\",\"value\":\"{answer}\"}},\
         {{\"from\":\"gpt\",\"value\":\"{answer}\"}}]}},{{\"id\":\"b\",\"conversations\":[]}}]"
    );
    std::fs::write(&file, talk).unwrap();
    let dataset = format!("sharegpt:{}", file.display());
    let common = ["-c", "1", "-n", "20", "--warmup", "1", "--json"];
    let said = bench(&server.url, &[&["--dataset", &dataset][..], &common].concat()).expect_code(0);
    assert!(said.stderr.contains("tokens by the rule of four for three words"), "{}", said.stderr);
    let mean = |said: &crate::support::Said| {
        said.json()["points"][0]["metrics"]["output_tokens"]["mean"].clone()
    };
    assert_eq!(mean(&said), 8.0, "six words are eight tokens by the rule");

    let ratio =
        ["--isl", "40", "--osl", "10", "--range-ratio", "0.5", "--range-ratio-as", "sglang"];
    let prefix = ["--prefix", "32", "--prefix-groups", "2"];
    let said = bench(&server.url, &[&ratio[..], &prefix, &common].concat()).expect_code(0);
    let metrics = said.json()["points"][0]["metrics"].clone();
    let at = |name: &str, stat: &str| metrics[name][stat].as_f64().unwrap();
    assert!(at("output_tokens", "min") >= 5.0 && at("output_tokens", "max") <= 10.0);
    assert!(at("output_tokens", "min") < at("output_tokens", "max"), "twenty draws of six lengths");
    assert!(at("prompt_tokens", "min") > 40.0, "20 to 40 behind a prefix of 32");
}

#[test]
fn a_wrong_command_line_is_refused_with_a_reason() {
    for (args, want) in [
        (&["--duration", "30"][..], "--duration: '30' has no unit"),
        (&["--header", "nope"], "--header: 'nope' is not of the form NAME=ENV"),
        (
            &["--model", "m", "--header", "X=NO_SUCH_VARIABLE"],
            "environment variable NO_SUCH_VARIABLE is not set",
        ),
        (&["--concurrency", "0", "--model", "m"], "0 is not between 1 and 1000000"),
        (&["--request-rate", "-1"], "-1"),
        (&["--burstiness", "0.5"], "--request-rate"),
        (&["--request-rate", "5", "--arrival", "gamma"], "--arrival gamma needs --burstiness"),
        (
            &["--request-rate", "5", "--arrival", "constant", "--burstiness", "2"],
            "--burstiness belongs to --arrival gamma",
        ),
        (&["--rate-profile", "ramp:1/s,50/s"], "ramp:1/s,50/s,60s"),
        (&["--rate-profile", "ramp:1/s,50,60s", "--model", "m"], "'50' has no unit"),
        (&["--rate-profile", "sine:1/s,2/s,9s", "--model", "m"], "above the mean"),
        (&["--rate-profile", "ramp:1/s,5/s,6s", "--concurrency", "8"], "cannot be used with"),
        (&["--rate-profile", "ramp:1/s,5/s,6s", "--request-rate", "8"], "cannot be used with"),
        (
            &["--dataset", "nope", "--model", "m"],
            "--dataset: 'nope' is not of the form FORMAT:FILE",
        ),
        (&["--dataset", "azure:no-such.csv", "--model", "m"], "cannot read the prompt file"),
        (
            &["--dataset", "azure:f", "--osl", "8", "--model", "m"],
            "each request of a trace has its own",
        ),
        (&["--dataset", "azure:f", "--isl", "8"], "cannot be used with"),
        (&["--prefix-groups", "4"], "--prefix"),
        (&["--range-ratio", "1.5", "--model", "m"], "'ratio' must be between 0 and 1"),
    ] {
        let said = bench("http://127.0.0.1:9", args).expect_code(2);
        assert!(said.stderr.contains(want), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_told_at_once() {
    let url = format!("http://127.0.0.1:{}", crate::support::free_port());
    let said = bench(&url, &[]).expect_code(4);
    assert!(said.stderr.contains(&url), "{}", said.stderr);
}

#[test]
fn help_has_examples_for_every_command() {
    for command in [
        "check", "plan", "run", "bench", "serve", "report", "import", "up", "down", "setup",
        "selftest",
    ] {
        let said = say([command, "--help"]).expect_code(0);
        assert!(said.stdout.contains("Examples:"), "{command}");
        assert!(said.stdout.contains(&format!("scalebeam {command}")), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(say(["completions", shell]).expect_code(0).stdout.contains("scalebeam"));
    }
    let dir = tempfile::tempdir().unwrap();
    say(["man", dir.path().to_str().unwrap()]).expect_code(0);
    assert!(dir.path().join("scalebeam-run.1").exists());
}

#[test]
fn over_http2_the_same_is_measured() {
    let server = emulator(&["--ttft", "40ms", "--itl", "5ms", "--model", "m"]);
    let shape = ["-c", "20", "-n", "60", "--isl", "32", "--osl", "8", "--http2", "--json"];
    let results = bench(&server.url, &shape).expect_code(0).json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 60);
    let of = |name: &str| point["metrics"][name]["p50"].as_f64().unwrap();
    assert!((of("output_tokens") - 8.0).abs() < 1e-9);
    // Never early; how late is a matter of the machine.
    assert!(of("ttft_ms") >= 40.0 && of("tpot_ms") >= 4.5, "{} {}", of("ttft_ms"), of("tpot_ms"));
    // One connection that those of the start waited for, and nobody after them.
    let opened = point["metrics"]["connect_ms"]["count"].as_u64().unwrap();
    assert!(opened <= 20, "{opened}");
}

#[test]
#[cfg(target_os = "linux")]
fn connections_start_from_the_addresses_that_are_named() {
    let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", "m"]);
    let shape = ["-c", "4", "-n", "8", "--isl", "32", "--osl", "4"];
    let from = |source: &'static str| [&shape[..], &["--source", source, "--json"]].concat();
    let results = bench(&server.url, &from("127.0.0.2,127.0.0.3")).expect_code(0).json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 8);
    let said = bench(&server.url, &from("192.0.2.1")).expect_code(2);
    assert!(said.stderr.contains("192.0.2.1 is no address of this machine"), "{}", said.stderr);
    let said = bench(&server.url, &from("nowhere")).expect_code(2);
    assert!(said.stderr.contains("invalid IP address"), "{}", said.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn more_connections_than_the_machine_has_are_refused_before_anything_is_sent() {
    let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", "m"]);
    let shape = ["-c", "900000", "-n", "900000", "--isl", "8", "--osl", "4"];
    let said = bench(&server.url, &shape).expect_code(2);
    assert!(said.stderr.contains("900000"), "{}", said.stderr);
    assert!(said.stderr.contains("hint:"), "{}", said.stderr);
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let said = bench(
        "https://127.0.0.1:1",
        &["-m", "m", "-c", "1", "-n", "1", "--ca-file", "/no/such/ca.pem"],
    )
    .expect_code(2);
    assert!(said.stderr.contains("/no/such/ca.pem"), "{}", said.stderr);
}

#[test]
fn an_objective_is_held_against_every_request() {
    let server = emulator(&["--ttft", "40ms", "--itl", "2ms", "--model", "m"]);
    let common = ["-c", "2", "-n", "40", "--osl", "4", "--warmup", "1"];
    let json = |slo: &str| {
        bench(&server.url, &[&common[..], &["--slo", slo, "--json"]].concat()).expect_code(0).json()
    };
    let results = json("ttft.p50<=10s,tpot.p50<=10s");
    let point = &results["points"][0];
    assert_eq!(point["metrics"]["slo_attainment"], 1.0);
    assert_eq!(point["metrics"]["goodput_rps"], point["metrics"]["rps"]);
    assert_eq!(point["metrics"]["goodput_tps"], point["metrics"]["output_tps"]);
    assert_eq!((&point["slo"]["met"], &point["slo"]["sure"]), (&true.into(), &true.into()));
    assert_eq!(point["slo"]["bounds"].as_array().unwrap().len(), 2);
    // No answer begins before the 40 ms that the server takes for it.
    let results = json("ttft.p50<=39ms");
    let point = &results["points"][0];
    assert_eq!(point["metrics"]["slo_met"], 0.0);
    assert_eq!(point["metrics"]["goodput_rps"], 0.0);
    assert_eq!((&point["slo"]["met"], &point["slo"]["sure"]), (&false.into(), &true.into()));
    let text = bench(&server.url, &[&common[..], &["--slo", "ttft.p50<=39ms"]].concat());
    assert!(text.stdout.contains("does NOT meet its SLO: ttft.p50 <= 39.0 ms"), "{}", text.stdout);
    let wrong = bench(&server.url, &["--model", "m", "--slo", "mlperf-llama2-70"]).expect_code(2);
    assert!(wrong.stderr.contains("did you mean 'mlperf-llama2-70b'?"), "{}", wrong.stderr);
}
