//! Files that the tools themselves wrote of runs against the emulated engine (24 requests, 4 at once, answers of 16
//! tokens; lists of single requests are cut; `LoadGen` of a system under test that sleeps; genai-perf 0.0.16 with a
//! load generator of ours in the place of `perf_analyzer`, 40 requests; llmperf with another tokenizer; what
//! `process_result.py` of InferenceX makes of vLLM's file, and `rollup.py` of srt-slurm of two of its own client), and
//! the tables of the seeds.

use super::*;

const FILES: &[(&str, &str)] = &[
    ("vllm.json", include_str!("fixtures/vllm.json")),
    ("sglang.jsonl", include_str!("fixtures/sglang.jsonl")),
    ("aiperf.json", include_str!("fixtures/aiperf.json")),
    ("guidellm.json", include_str!("fixtures/guidellm.json")),
    ("genai-bench.json", include_str!("fixtures/genai-bench.json")),
    ("inference-perf.json", include_str!("fixtures/inference-perf.json")),
    ("evalscope.json", include_str!("fixtures/evalscope.json")),
    ("evalscope-percentiles.json", include_str!("fixtures/evalscope-percentiles.json")),
    ("llama-benchy.json", include_str!("fixtures/llama-benchy.json")),
    ("mlperf_log_summary.txt", include_str!("fixtures/mlperf_log_summary.txt")),
    ("aiperf.csv", include_str!("fixtures/aiperf.csv")),
    ("genai-perf.json", include_str!("fixtures/genai-perf.json")),
    ("genai-perf.csv", include_str!("fixtures/genai-perf.csv")),
    ("llmperf.json", include_str!("fixtures/llmperf.json")),
    ("inferencex.json", include_str!("fixtures/inferencex.json")),
];

fn imported(name: &str) -> ImportedFile {
    let (_, text) = FILES.iter().find(|(file, _)| *file == name).unwrap();
    read(name, text).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn only(file: &ImportedFile) -> &ImportedPoint {
    assert_eq!(file.points.len(), 1, "{file:#?}");
    &file.points[0]
}

/// What each tool printed, in its own digits.
#[test]
fn numbers_are_those_that_the_tool_printed() {
    let printed: &[(&str, &str, &str, f64)] = &[
        ("vllm.json", "rps", "value", 34.62),
        ("vllm.json", "output_tps", "value", 553.95),
        ("vllm.json", "total_tps", "value", 3150.60),
        ("vllm.json", "ttft_sent_ms", "mean", 14.64),
        ("vllm.json", "ttft_sent_ms", "p99", 22.77),
        ("vllm.json", "tpot_ms", "p50", 6.70),
        ("vllm.json", "itl_ms", "p95", 9.31),
        ("vllm.json", "e2e_sent_ms", "mean", 114.92),
        ("vllm.json", "wall_s", "value", 0.69),
        ("sglang.jsonl", "rps", "value", 34.15),
        ("sglang.jsonl", "output_tps", "value", 546.36),
        ("sglang.jsonl", "total_tps", "value", 2731.78),
        ("sglang.jsonl", "concurrency_reached", "value", 3.91),
        ("sglang.jsonl", "e2e_sent_ms", "p99", 117.31),
        ("sglang.jsonl", "ttft_sent_ms", "p50", 13.63),
        ("sglang.jsonl", "tpot_ms", "p90", 6.79),
        ("sglang.jsonl", "itl_ms", "p99", 9.55),
        ("guidellm.json", "ttft_sent_ms", "mean", 12.0),
        ("guidellm.json", "ttft_sent_ms", "p95", 17.4),
        ("guidellm.json", "tpot_ms", "p50", 6.7),
        ("guidellm.json", "token_latency_ms", "p95", 7.3),
        ("guidellm.json", "prompt_tokens", "p50", 71.0),
        ("evalscope.json", "rps", "value", 36.74),
        ("evalscope.json", "output_tps", "value", 506.64),
        ("evalscope.json", "ttft_sent_ms", "mean", 13.52),
        ("evalscope-percentiles.json", "ttft_sent_ms", "p99", 17.23),
        ("evalscope-percentiles.json", "tpot_ms", "max", 6.99),
        ("evalscope-percentiles.json", "prompt_tokens", "p50", 49.0),
        ("llama-benchy.json", "ttft_sent_ms", "mean", 15.28),
        ("aiperf.csv", "rps", "value", 14.32),
        ("aiperf.csv", "output_tps", "value", 303.70),
        ("aiperf.csv", "wall_s", "value", 1.60),
        ("aiperf.csv", "ttft_sent_ms", "p99", 262.22),
        ("aiperf.csv", "tpot_ms", "mean", 3.08),
        ("aiperf.csv", "itl_ms", "p90", 17.01),
        ("aiperf.csv", "e2e_sent_ms", "std", 78.12),
        ("aiperf.csv", "output_tokens", "max", 27.0),
        // It prints seconds.
        ("llmperf.json", "ttft_sent_ms", "p99", 58.16106737969675),
        ("llmperf.json", "ttft_sent_ms", "max", 62.325747989234515),
        ("llmperf.json", "token_latency_ms", "mean", 6.885017492967928),
        ("llmperf.json", "e2e_sent_ms", "p50", 149.90070948988432),
        ("llmperf.json", "output_tokens", "mean", 20.625),
        ("llmperf.json", "prompt_tokens", "max", 232.0),
        ("llmperf.json", "output_tps", "value", 185.64156423985048),
        // As vLLM printed them of the file that it was made of.
        ("inferencex.json", "ttft_sent_ms", "mean", 14.64),
        ("inferencex.json", "tpot_ms", "p50", 6.70),
        ("inferencex.json", "output_tps_per_gpu", "value", 553.95),
        ("inferencex.json", "itl_ms", "p95", 9.31),
        ("inferencex.json", "e2e_sent_ms", "mean", 114.92),
        ("genai-perf.json", "rps", "value", 18.00),
        ("genai-perf.json", "output_tps", "value", 593.66),
        ("genai-perf.json", "ttft_sent_ms", "mean", 14.06),
        ("genai-perf.json", "ttft_sent_ms", "p90", 14.60),
        ("genai-perf.json", "ttst_ms", "p99", 7.96),
        ("genai-perf.json", "e2e_sent_ms", "min", 220.65),
        ("genai-perf.json", "tpot_ms", "p75", 6.68),
        ("genai-perf.json", "interactivity_tps", "max", 168.38),
        ("genai-perf.json", "output_tokens", "mean", 32.98),
        ("genai-perf.json", "prompt_tokens", "p99", 64.00),
        ("genai-perf.csv", "rps", "value", 18.00),
        ("genai-perf.csv", "output_tps", "value", 593.66),
        ("genai-perf.csv", "ttft_sent_ms", "mean", 14.06),
        ("genai-perf.csv", "ttft_sent_ms", "p90", 14.60),
        ("genai-perf.csv", "ttst_ms", "p99", 7.96),
        ("genai-perf.csv", "e2e_sent_ms", "min", 220.65),
        ("genai-perf.csv", "tpot_ms", "p75", 6.68),
        ("genai-perf.csv", "interactivity_tps", "max", 168.38),
        ("genai-perf.csv", "output_tokens", "mean", 32.98),
        ("genai-perf.csv", "prompt_tokens", "p99", 64.00),
    ];
    for (file, metric, stat, printed) in printed {
        let file = imported(file);
        let value = only(&file).value(metric, stat);
        let value = value.unwrap_or_else(|| panic!("{}: no {stat} of {metric}", file.file));
        let half_a_digit = if format!("{printed}").contains('.') { 0.051 } else { 0.51 };
        let digits = format!("{printed}").split('.').nth(1).map_or(0, str::len);
        let within = if digits >= 2 { 0.0051 } else { half_a_digit };
        assert!((value - printed).abs() <= within, "{} {metric} {stat}: {value}", file.file);
    }
}

/// Seconds of the file are milliseconds of ours.
#[test]
fn units_become_ours() {
    let file = imported("inference-perf.json");
    let point = only(&file);
    let near = |metric: &str, stat: &str, value: f64| {
        let found = point.value(metric, stat).unwrap();
        assert!((found / value - 1.0).abs() < 1e-9, "{metric} {stat}: {found}");
    };
    near("e2e_sent_ms", "mean", 110.55865649844539);
    near("ttft_sent_ms", "p99", 14.750068252324127);
    near("lateness_ms", "mean", 0.38774603308411315);
    near("rps", "value", 8.458652800547627);
    let genai = imported("genai-bench.json");
    let tpot = only(&genai).value("tpot_ms", "p90").unwrap();
    assert!((tpot - 8.001652033514498).abs() < 1e-9, "{tpot}");
}

#[test]
fn the_load_that_was_asked_for_is_known() {
    for name in [
        "vllm.json",
        "sglang.jsonl",
        "aiperf.json",
        "guidellm.json",
        "genai-bench.json",
        "evalscope.json",
        "llama-benchy.json",
    ] {
        assert_eq!(only(&imported(name)).asked.concurrency, Some(4.0), "{name}");
    }
    for name in ["vllm.json", "aiperf.json", "guidellm.json", "llama-benchy.json"] {
        let model = only(&imported(name)).asked.model.clone();
        assert_eq!(model.as_deref(), Some("smollm2"), "{name}");
    }
    let open = imported("inference-perf.json");
    assert_eq!((only(&open).asked.rate, only(&open).label.as_str()), (Some(8.0), "r8"));
    let aiperf = imported("aiperf.json");
    let asked = &only(&aiperf).asked;
    assert_eq!((asked.isl, asked.osl, asked.requests), (Some(64.0), Some(16.0), Some(24.0)));
}

/// Each number of a file is a metric, what was asked, an outcome, or kept under its own key.
#[test]
fn no_number_is_lost() {
    for (name, text) in FILES {
        let file = imported(name);
        let whole = format!("{:?} {:?}", file.points, file.other);
        let mut count = 0;
        for root in text::roots(text).unwrap() {
            leaves(&root, &mut |number| {
                count += 1;
                let is_there = [1.0, 1e3, 1e-6, 1.0 / 60.0]
                    .iter()
                    .any(|scale| whole.contains(&format!("{:?}", number * scale)));
                assert!(is_there, "{name}: {number} is nowhere");
            });
        }
        assert!(count > 10, "{name}");
    }
}

fn leaves(value: &Value, see: &mut dyn FnMut(f64)) {
    match value {
        Value::Object(object) => object.values().for_each(|v| leaves(v, see)),
        // Lists are of points, which are objects, of single requests, and of values that the statistics are of.
        Value::Array(list) => list
            .iter()
            .filter(|v| v["metrics"].is_object() || v["tg_throughput"].is_object())
            .for_each(|v| leaves(v, see)),
        other => number(other).into_iter().for_each(see),
    }
}

/// A difference of definition comes with the number.
#[test]
fn what_is_not_quite_ours_is_told() {
    let file = imported("vllm.json");
    assert!(file.differs.iter().any(|d| d.contains("role only")), "{:?}", file.differs);
    let point = only(&file);
    assert!(point.near["e2e_sent_ms"].contains("last token"));
    assert!(!point.near.contains_key("ttft_sent_ms"));
    let guidellm = imported("guidellm.json");
    assert!(only(&guidellm).near["token_latency_ms"].contains("weighted by tokens"));
    let rows = imported("evalscope-percentiles.json");
    assert!(only(&rows).near["itl_ms"].contains("chunks of one read"));
}

/// A time in another unit of time is the same time. A number in a unit that nobody knows stays under its own key.
#[test]
fn a_number_is_in_the_unit_that_the_file_says() {
    let (_, text) = FILES[2];
    let read_in = |unit: &str| {
        let mut file: Value = serde_json::from_str(text).unwrap();
        file["time_to_first_token"]["unit"] = unit.into();
        only(&read("aiperf.json", &file.to_string()).unwrap()).clone()
    };
    let mean = read_in("ms").value("ttft_sent_ms", "mean").unwrap();
    let in_us = read_in("us").value("ttft_sent_ms", "mean").unwrap();
    assert!((in_us * 1e3 / mean - 1.0).abs() < 1e-12, "{in_us} us of {mean} ms");
    let point = read_in("ticks");
    assert_eq!(point.value("ttft_sent_ms", "mean"), None);
    assert!(point.other.contains_key("/time_to_first_token/avg"), "{:?}", point.other);
}

#[test]
fn python_writes_numbers_that_json_does_not_have() {
    let file = imported("sglang.jsonl");
    assert_eq!(only(&file).asked.rate, None);
    let text = r#"{"name": "Infinity \" NaN", "request_throughput": NaN, "mean_ttft_ms": -Infinity, "completed": 3}"#;
    let roots = text::roots(text).unwrap();
    assert_eq!(roots[0]["name"], "Infinity \" NaN");
    assert_eq!(roots[0]["mean_ttft_ms"], Value::Null);
}

#[test]
fn what_nobody_writes_is_refused() {
    for text in [
        "",
        "hello",
        "{}",
        "[]",
        "{\"a\": 1}",
        "{\"a\": ",
        "a,b\n1,2\n",
        "\u{0}",
        "{\"a\"",
        "[1, 2",
        "\"\\",
    ] {
        let said = read("x", text).unwrap_err().to_string();
        assert!(!said.is_empty(), "{text}");
    }
    let said = read("x", "{\"a\": 1}").unwrap_err().to_string();
    assert!(said.contains("vllm bench serve") && said.contains("guidellm run"), "{said}");
}

/// Seed 1's rows: the last two hit the client's time limit, and the text calls them a success.
const SEED1: &str = "scenario,timestamp,total_requests,successful_requests,failed_requests,success_rate,avg_latency,\
median_latency,p95_latency,p99_latency,max_latency,min_latency,avg_ttft,median_ttft,p95_ttft,avg_tpot,median_tpot,\
requests_per_second,tokens_per_second,avg_prompt_tokens,avg_completion_tokens,total_tokens_generated\n\
heavy_load,t,200,200,0,100.0,60.1,58.0,120.0,130.0,136.0,9.0,15.6,0.69,69.0,0.05,0.05,1.471,1139.4,40,774.6,154920\n\
stress_test,t,500,416,84,83.2,150.0,149.0,280.0,298.0,299.9,9.0,90.0,88.0,200.0,0.06,0.06,1.386,988.3,40,713.1,296650\n";

#[test]
fn the_failures_of_seed_1_are_told() {
    let file = read("deepseek_benchmark.csv", SEED1).unwrap();
    assert_eq!(file.tool, "benchmarker.py");
    let codes =
        |n: usize| -> Vec<&str> { file.points[n].flaws.iter().map(|f| f.code.as_str()).collect() };
    assert_eq!(codes(0), ["concurrency_not_reached", "ttft_is_queueing"]);
    assert_eq!(codes(1), ["censored", "requests_failed", "concurrency_not_reached"]);
    let said = &file.points[1].flaws[0].message;
    assert!(
        said.starts_with("84 of 500 requests were cut off by the client's limit of 300 s"),
        "{said}"
    );
    let said = &file.points[1].flaws[1].message;
    assert!(said.starts_with("84 of 500 requests failed"), "{said}");
    assert_eq!(file.points[0].value("ttft_sent_ms", "mean"), Some(15_600.0));
}

/// Seed 4's table: 50 requests for 128 users.
#[test]
fn the_users_of_seed_4_never_were() {
    let row = r#"[{"n_gpu": 1, "n_users": 128, "config_label": "1GPU/128U", "isl": 1024, "osl": 256,
        "throughput_total": 1255.0, "throughput_per_gpu": 1255.0, "avg_latency_s": 10.2, "avg_ttft_s": 0.9,
        "interactivity_tokens_per_sec_per_user": 27.5, "total_requests": 50, "successful_requests": 50,
        "failed_requests": 0}]"#;
    let file = read("results.json", row).unwrap();
    let point = only(&file);
    assert_eq!((point.label.as_str(), point.asked.gpus), ("1GPU/128U", Some(1.0)));
    let messages: Vec<&str> = point.flaws.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    let few = "50 requests were sent for 128 at once: so many were never in flight together";
    assert_eq!(messages[0], few);
    let little = "128 at once were asked for; by Little's law 50.0 were in flight";
    assert_eq!(messages[1], little);
}

/// Two runs of its client, whose print-out has these digits, in both files that srt-slurm makes of them.
#[test]
fn both_rollups_of_srt_slurm_have_what_its_client_printed() {
    let of = |name: &str, text: &str| {
        let file = read(name, text).unwrap();
        assert_eq!((file.tool.as_str(), file.points.len()), ("srt-slurm benchmark-rollup", 2));
        file.points
    };
    let near = |value: Option<f64>, printed: f64| {
        let value = value.unwrap();
        assert!((value - printed).abs() <= 0.0051, "{value}, not {printed}");
    };
    let csv = of("benchmark-rollup.csv", include_str!("fixtures/srt-rollup.csv"));
    let json = of("benchmark-rollup.json", include_str!("fixtures/srt-rollup.json"));
    for (i, (users, tps, median_ttft, mean_ttft, tpot, e2e)) in
        [(2.0, 281.0, 12.89, 12.96, 6.71, 113.05), (4.0, 552.73, 13.82, 13.89, 6.79, 114.58)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(csv[i].asked.concurrency, Some(users));
        assert_eq!(json[i].asked.concurrency, Some(users));
        near(csv[i].single("output_tps"), tps);
        near(json[i].single("output_tps"), tps);
        near(csv[i].value("ttft_sent_ms", "p50"), median_ttft);
        near(json[i].value("ttft_sent_ms", "mean"), mean_ttft);
        near(json[i].value("tpot_ms", "p99"), tpot);
        near(json[i].value("e2e_sent_ms", "mean"), e2e);
        assert_eq!(json[i].flaws.len(), 1, "{:?}", json[i].flaws);
    }
    let labels = |points: &[ImportedPoint]| -> Vec<String> {
        points.iter().map(|p| p.label.clone()).collect()
    };
    assert_eq!(labels(&csv), ["dep4 c2", "dep4 c4"]);
    assert_eq!(labels(&json), ["c2", "c4"]);
    assert_eq!((json[0].asked.isl, json[0].completed), (Some(64.0), Some(24.0)));
}

#[test]
fn a_rollup_and_an_aggregate_are_read_by_their_names() {
    let rollup = "Config,Total GPU Count,Decode GPU Count,Total Working GPU Count,Decode Working GPU Count,Prefill Working GPU Count,\
Concurrency,Total Token Throughput,Output Token Throughput,Median TTFT,Median TPOT,Median ITL,P90 Decode Running Requests,\
Output Token Throughput per User,Total Token Throughput per GPU\n1P_4D,40,32,40,32,8,512,81000.5,9000.25,812.5,21.5,21.4,100,17.6,2025\n";
    let file = read("benchmark-rollup.csv", rollup).unwrap();
    let point = only(&file);
    assert_eq!((point.asked.gpus, point.single("output_tps")), (Some(40.0), Some(9000.25)));
    assert_eq!(point.other.get("/Decode GPU Count"), Some(&32.0));
    let aggregate = r#"{"hw": "h200", "conc": 64, "model": "m", "infmax_model_prefix": "m", "isl": 1024, "osl": 1024, "tp": 8,
        "tput_per_gpu": 812.5, "output_tput_per_gpu": 400.0, "mean_ttft": 0.25, "p99_ttft": 1.5, "mean_tpot": 0.0125, "p99.9_itl": 0.1}"#;
    let file = read("agg_x.json", aggregate).unwrap();
    let point = only(&file);
    assert_eq!(point.value("ttft_sent_ms", "mean"), Some(250.0));
    assert_eq!(point.value("itl_ms", "p99.9"), Some(100.0));
    assert!(point.value("tpot_ms", "mean").is_some_and(|v| (v - 12.5).abs() < 1e-9));
    assert_eq!(point.other.get("/output_tput_per_gpu"), Some(&400.0));
}

proptest::proptest! {
    /// Whatever stands in a file: what it is, or why it is nothing.
    #[test]
    fn no_text_panics(text in ".{0,200}", head in proptest::sample::select(vec!["{\"", "[{\"", "a,b\n", "{\"completed\": \"", ""])) {
        let _ = read("x", &format!("{head}{text}"));
    }
}

#[test]
fn loadgens_latencies_begin_when_a_query_was_scheduled() {
    let file = imported("mlperf_log_summary.txt");
    assert_eq!(file.tool, "MLPerf LoadGen");
    let point = only(&file);
    assert_eq!((point.label.as_str(), point.asked.rate), ("Server", Some(20.0)));
    let near = |metric: &str, stat: &str, value: f64| {
        let found = point.value(metric, stat).unwrap_or_else(|| panic!("no {stat} of {metric}"));
        assert!((found / value - 1.0).abs() < 1e-9, "{metric} {stat}: {found}");
    };
    near("rps", SINGLE, 18.43);
    near("output_tps", SINGLE, 299.81);
    near("e2e_ms", "mean", 117.136049);
    near("ttft_ms", "p99", 43.904149);
    near("ttft_ms", "min", 20.57411);
    near("tpot_ms", "p50", 6.012307);
    near("tpot_ms", "max", 6.771719);
    assert_eq!(point.other.get("/min_query_count"), Some(&60.0));
    // It says so itself: too few queries for its early stopping.
    assert_eq!(point.flaws[0].code, "its_own_verdict");
    assert!(point.flaws[0].message.ends_with("INVALID"), "{:?}", point.flaws);
}

/// Keys as the tool's `writers.rs` has them; the numbers are made up.
#[test]
fn an_entry_of_inference_benchmarker_is_a_point() {
    let percentiles = |avg: f64| serde_json::json!({"p50": avg, "p60": avg, "p70": avg, "p80": avg, "p90": avg, "p95": avg, "p99": avg * 2.0, "avg": avg});
    let entry = |id: &str, rate: Option<f64>| {
        serde_json::json!({
            "id": id, "executor_type": if rate.is_some() { "ConstantArrivalRate" } else { "ConstantVUs" },
            "config": {"max_vus": 128, "duration_secs": 120, "rate": rate},
            "total_requests": 240, "total_tokens": 48000, "token_throughput_secs": 400.5, "duration_ms": 120_000,
            "time_to_first_token_ms": percentiles(35.25), "inter_token_latency_ms": percentiles(9.5),
            "failed_requests": 2, "successful_requests": 238, "request_rate": 1.98, "total_tokens_sent": 47600,
            "e2e_latency_ms": percentiles(1_950.0)
        })
    };
    let text = serde_json::json!({
        "config": {"max_vus": 128, "model_name": "m", "num_rates": 10},
        "results": [entry("throughput", None), entry("constant@2.00req/s", Some(2.0))],
        "start_time": "2026-01-01T00:00:00+00:00", "end_time": "2026-01-01T00:04:00+00:00",
        "system": {"cpu": [], "memory": "1.00 GB"}
    });
    let file = read("results.json", &text.to_string()).unwrap();
    assert_eq!((file.tool.as_str(), file.points.len()), ("inference-benchmarker", 2));
    let point = &file.points[1];
    assert_eq!((point.label.as_str(), point.asked.rate), ("constant@2.00req/s", Some(2.0)));
    assert_eq!((point.completed, point.failed), (Some(238.0), Some(2.0)));
    assert_eq!(point.value("tpot_ms", "p99"), Some(19.0));
    assert_eq!(point.single("wall_s"), Some(120.0));
    assert_eq!(point.asked.model.as_deref(), Some("m"));
    // A bound beside a rate is no load that could have been missed, and stays where it was.
    assert_eq!(point.other.get("/config/max_vus"), Some(&128.0));
    assert!(point.flaws.iter().all(|f| f.code != "concurrency_not_reached"), "{:?}", point.flaws);
}

/// Keys as the published schema of v0.2.1 has them; the numbers are made up.
const BENCHMARK_REPORT: &str = r#"{"version": "0.2.1", "run": {"uid": "u"},
    "scenario": {"stack": [
        {"metadata": {"label": "p", "cfg_id": "1"}, "native": {}, "standardized": {"kind": "inference_engine", "tool": "vllm",
            "tool_version": "1", "role": "prefill", "replicas": 4, "model": {"name": "m"},
            "accelerator": {"model": "H100", "count": 2, "parallelism": {"tp": 2}}}},
        {"metadata": {"label": "d", "cfg_id": "2"}, "native": {}, "standardized": {"kind": "inference_engine", "tool": "vllm",
            "tool_version": "1", "role": "decode", "replicas": 1, "model": {"name": "m"},
            "accelerator": {"model": "H100", "count": 8, "parallelism": {"tp": 8}}}}],
      "load": {"metadata": {}, "native": {}, "standardized": {"tool": "inference-perf", "tool_version": "0.3.0", "source": "random",
        "input_seq_len": {"distribution": "fixed", "value": 1024}, "rate_qps": 10.5}}},
    "results": {"request_performance": {"aggregate": {
      "requests": {"total": 500, "failures": 3, "output_length": {"units": "count", "mean": 120.5}},
      "latency": {"time_to_first_token": {"units": "s", "mean": 0.25, "p99p9": 1.5},
                  "time_per_output_token": {"units": "ms/token", "mean": 11.25}},
      "throughput": {"request_rate": {"units": "queries/s", "mean": 10.25}}}}}}"#;

#[test]
fn a_benchmark_report_has_its_units_beside_its_numbers() {
    let file = read("report.json", BENCHMARK_REPORT).unwrap();
    assert_eq!(file.tool, "llm-d Benchmark Report");
    let point = only(&file);
    assert_eq!(point.value("ttft_sent_ms", "mean"), Some(250.0));
    assert_eq!(point.value("ttft_sent_ms", "p99.9"), Some(1_500.0));
    assert_eq!(point.value("tpot_ms", "mean"), Some(11.25));
    assert_eq!((point.single("rps"), point.asked.rate), (Some(10.25), Some(10.5)));
    // Four times two and once eight.
    assert_eq!((point.asked.gpus, point.asked.requests), (Some(16.0), Some(500.0)));
    assert_eq!(point.other.get("/scenario/stack/1/standardized/replicas"), Some(&1.0));
    assert_eq!(point.flaws[0].code, "requests_failed");
}

/// What is published of seed 1: requests, successes, req/s and tokens/s of both sides. Latencies of the stress rows are
/// those of [`SEED1`]; cells that nobody published are empty.
#[test]
fn eight_gpus_of_two_nodes_are_less_than_half_as_good_each() {
    const NAMES: [&str; 5] =
        ["light_load", "medium_load", "heavy_load", "burst_load", "stress_test"];
    const TOTAL: [u32; 5] = [50, 100, 200, 300, 500];
    let table = |rows: [(u32, f64, f64, &str); 5]| {
        let head = SEED1.lines().next().unwrap();
        let row = |((name, total), (ok, rps, tps, max)): ((&str, u32), (u32, f64, f64, &str))| {
            let failed = total - ok;
            format!("{name},t,{total},{ok},{failed},,,,,,{max},,,,,,,{rps},{tps},,,")
        };
        let rows = NAMES.into_iter().zip(TOTAL).zip(rows).map(row);
        std::iter::once(head.to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
    };
    let single = table([
        (50, 0.744, 624.9, ""),
        (100, 1.182, 892.6, ""),
        (200, 1.471, 1139.4, ""),
        (300, 1.586, 1213.1, ""),
        (491, 1.632, 1289.9, "299.9"),
    ]);
    let dual = table([
        (50, 0.637, 550.9, ""),
        (100, 1.015, 755.2, ""),
        (200, 1.153, 931.9, ""),
        (300, 1.317, 1021.2, ""),
        (416, 1.386, 988.3, "299.9"),
    ]);
    let (single, dual) = (read("single.csv", &single).unwrap(), read("dual.csv", &dual).unwrap());
    let tps = |p: &ImportedPoint| p.single("output_tps").unwrap();
    // Over twice the GPUs.
    let efficiency =
        single.points.iter().zip(&dual.points).map(|(one, two)| tps(two) / tps(one) / 2.0);
    let shown: Vec<String> = efficiency.map(|e| format!("{e:.2}")).collect();
    assert_eq!(shown, ["0.44", "0.42", "0.41", "0.42", "0.38"]);
    for file in [&single, &dual] {
        let is_censored = |p: &ImportedPoint| p.flaws.iter().any(|f| f.code == "censored");
        let censored: Vec<&str> =
            file.points.iter().filter(|p| is_censored(p)).map(|p| p.label.as_str()).collect();
        assert_eq!(censored, ["stress_test"]);
    }
}

/// Laid out as genai-perf's `csv_exporter.py` does, with a quantity that nobody knows; the numbers are made up.
const GENAI_PERF_CSV: &str = "\
Metric,avg,min,max,p99,p95,p90,p75,p50,p25\r
Time To First Token (ms),\"1,250.50\",200.00,\"3,400.00\",\"3,390.00\",\"3,300.00\",\"3,200.00\",\"1,300.00\",640.00,280.00\r
Request Latency (ms),\"6,400.00\",\"5,300.00\",\"9,600.00\",\"9,400.00\",\"9,000.00\",\"8,900.00\",\"6,500.00\",\"5,700.00\",\"5,400.00\"\r
Inter Token Latency (ns),\"30,000,000\",27000000,35000000,35000000,33000000,32000000,31000000,30000000,29000000\r
Output Sequence Length,172.00,164.00,187.00,186.00,183.00,180.00,177.00,174.00,171.00\r
Input Sequence Length (tokens),\"3,000.00\",\"2,999.00\",\"3,001.00\",\"3,001.00\",\"3,001.00\",\"3,000.00\",\"3,000.00\",\"3,000.00\",\"3,000.00\"\r
Cache Hits (blocks),7.00,1.00,9.00,9.00,9.00,9.00,8.00,7.00,6.00\r
\r
Metric,Value\r
Output Token Throughput (per sec),258.00\r
Request Throughput (per sec),1.50\r
Request Count (count),\"1,040.00\"\r
\r
Metric,GPU,avg,min,max,p99,p95,p90,p75,p50,p25\r
GPU Power Usage (W),0,312.50,90.00,400.00,399.00,395.00,390.00,350.00,320.00,290.00\r
\r
Metric,GPU,Value\r
Total GPU Memory (GB),0,80.00\r
";

#[test]
fn a_csv_file_of_genai_perf_is_told_by_what_is_in_it() {
    let file = read("numbers.csv", GENAI_PERF_CSV).unwrap();
    assert_eq!(file.tool, "genai-perf profile");
    assert!(file.differs.iter().any(|d| d.contains("two decimals")), "{:?}", file.differs);
    let point = only(&file);
    for (metric, stat, want) in [
        ("ttft_sent_ms", "mean", 1_250.5),
        ("ttft_sent_ms", "p25", 280.0),
        ("e2e_sent_ms", "max", 9_600.0),
        ("tpot_ms", "mean", 30.0),
        ("output_tokens", "mean", 172.0),
        ("prompt_tokens", "p99", 3_001.0),
        ("output_tps", SINGLE, 258.0),
        ("rps", SINGLE, 1.5),
    ] {
        let found = point.value(metric, stat).unwrap_or_else(|| panic!("{stat} of {metric}"));
        assert!((found / want - 1.0).abs() < 1e-12, "{stat} of {metric}: {found}");
    }
    assert_eq!((point.completed, point.asked.concurrency), (Some(1_040.0), None));
    assert_eq!(point.other.get("/cache_hits/p25"), Some(&6.0));
    assert_eq!(point.other.get("/0/gpu_power_usage/avg"), Some(&312.5));
    assert_eq!(point.other.get("/0/total_gpu_memory/avg"), Some(&80.0));
}

#[test]
fn rows_of_sglang_are_called_what_its_user_called_them() {
    let line = |tag: &str, users: u32| {
        format!(
            "{{\"request_throughput\": 2.0, \"mean_e2e_latency_ms\": 900.0, \"completed\": 24, \
             \"max_concurrency\": {users}, \"tag\": {tag}}}"
        )
    };
    let text = [line("\"a\"", 4), line("\"b\"", 4), line("null", 8)].join("\n");
    let file = read("a.jsonl", &text).unwrap();
    let labels: Vec<&str> = file.points.iter().map(|p| p.label.as_str()).collect();
    assert_eq!(labels, ["a", "b", "c8"]);
}

/// What a report has no number of is the rest of those that it has.
#[test]
fn completed_requests_of_a_benchmark_report_are_those_that_did_not_fail() {
    let report = |failures: &str| {
        format!(
            r#"{{"version": "0.2", "run": {{"uid": "u"}}, "results": {{"request_performance": {{"aggregate": {{
                "requests": {{"total": 20{failures}}},
                "latency": {{"time_to_first_token": {{"units": "ms", "mean": 12.0, "p99": 20.0}}}}}}}}}}}}"#
        )
    };
    for (failures, completed) in [(", \"failures\": 3", 17.0), ("", 20.0)] {
        let file = read("r.json", &report(failures)).unwrap();
        let point = only(&file);
        assert_eq!(point.completed, Some(completed));
        assert!(point.flaws.iter().any(|f| f.code == "few_samples"), "{:?}", point.flaws);
    }
}

#[test]
fn a_file_without_a_number_and_a_rate_in_no_time_are_told() {
    let vllm = FILES[0].1;
    let codes = |text: &str| -> Vec<String> {
        only(&read("a.json", text).unwrap()).flaws.iter().map(|f| f.code.clone()).collect()
    };
    let mut value: serde_json::Value = serde_json::from_str(vllm).unwrap();
    value["duration"] = 0.into();
    assert!(codes(&value.to_string()).contains(&"impossible_number".to_owned()));
    for nothing in [serde_json::Value::Null, 0.into()] {
        for number in value.as_object_mut().unwrap().values_mut().filter(|v| v.is_number()) {
            *number = serde_json::Value::from(0);
        }
        let empty =
            value.as_object().unwrap().iter().map(|(key, v)| {
                (key.clone(), if v.is_number() { nothing.clone() } else { v.clone() })
            });
        let empty = serde_json::Value::Object(empty.collect());
        assert_eq!(codes(&empty.to_string())[0], "no_numbers", "{empty}");
    }
}

/// Without `--streaming` genai-perf calls the whole answer its first token, in the JSON file only.
#[test]
fn the_first_token_of_an_answer_in_one_piece_is_told_to_be_none() {
    let file = read("a.json", include_str!("fixtures/genai-perf-unstreamed.json")).unwrap();
    let point = only(&file);
    let said = point.flaws.iter().find(|f| f.code == "not_streamed").unwrap();
    assert!(said.message.starts_with("TTFT and the whole answer are both 218 ms"), "{said:?}");
    assert!((point.value("e2e_sent_ms", "mean").unwrap() - 218.22).abs() < 0.01);
    let asked = (point.asked.concurrency, point.asked.isl, point.asked.osl);
    assert_eq!(asked, (Some(2.0), Some(64.0), Some(32.0)));
    for (name, _) in FILES {
        let flaws = &imported(name).points[0].flaws;
        assert!(flaws.iter().all(|f| f.code != "not_streamed"), "{name}");
    }
}

/// An answer of one token is its first token, and ends with it.
#[test]
fn answers_of_one_token_are_not_called_unstreamed() {
    let mut value: serde_json::Value = serde_json::from_str(FILES[0].1).unwrap();
    let number = |value: &serde_json::Value, key: &str| value[key].as_f64().unwrap();
    value["mean_e2el_ms"] = value["mean_ttft_ms"].clone();
    let is_told = |value: &serde_json::Value| {
        let file = read("a.json", &value.to_string()).unwrap();
        only(&file).flaws.iter().any(|f| f.code == "not_streamed")
    };
    assert!(is_told(&value), "{value}");
    value["total_output_tokens"] = number(&value, "completed").into();
    assert!(!is_told(&value), "{value}");
}

/// `num` is milliseconds where genai-perf measures for a time.
#[test]
fn an_interval_of_genai_perf_is_no_number_of_requests() {
    let text = include_str!("fixtures/genai-perf.json");
    let asked = |text: &str| only(&read("a.json", text).unwrap()).asked.requests;
    assert_eq!(asked(text), Some(40.0));
    let interval = text.replace("\"mode\": \"request_count\"", "\"mode\": \"interval\"");
    assert_ne!(interval, text);
    assert_eq!(asked(&interval), None);
}

/// One that answered nothing still says what was asked for, and nothing of its latency.
#[test]
fn a_run_of_genai_perf_without_an_answer_is_read() {
    let text = r#"{"request_throughput": {"unit": "requests/sec", "avg": 0.0},
        "request_count": {"unit": "count", "avg": 0.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 0.0},
        "input_config": {"model_names": ["m"], "perf_analyzer": {"stimulus": {"concurrency": 2}}}}"#;
    let file = read("a.json", text).unwrap();
    let point = only(&file);
    assert_eq!((file.tool.as_str(), point.completed), ("genai-perf profile", Some(0.0)));
    assert_eq!(
        (point.asked.model.as_deref(), point.value("e2e_sent_ms", "mean")),
        (Some("m"), None)
    );
}

/// As AIPerf lays out what its own file among [`FILES`] has not: failures, and a table of GPUs with their host.
#[test]
fn a_csv_file_of_aiperf_is_told_by_what_is_in_it() {
    let text = "Metric,avg,min,max,sum,p50,p99,std\n\
        Inter Chunk Latency (ms),9.75,8.00,12.00,,9.50,11.90,0.50\n\
        Request Latency (ms),1652.30,1203.61,6433.87,82615.00,1453.19,6431.16,976.18\n\
        Time to First Token (ms),49.87,17.15,99.91,2493.50,49.87,92.31,9.20\n\
        \nMetric,Value\n\
        Benchmark Duration (sec),41.67\n\
        Error Request Count,2\n\
        Request Count,50.00\n\
        Request Throughput (requests/sec),1.20\n\
        \n\nEndpoint,GPU_Index,GPU_Name,GPU_UUID,Metric,avg,min,max,sum,p50,p99,std,Hostname\n\
        localhost:9401,0,A,GPU-1,GPU Power Usage (W),43.37,26.68,299.28,,26.68,299.28,65.35,node0\n";
    let file = read("x", text).unwrap();
    assert_eq!(file.tool, "aiperf profile");
    let point = only(&file);
    assert_eq!(point.value("ttft_sent_ms", "std"), Some(9.2));
    assert_eq!(point.value("itl_ms", "p99"), Some(11.9));
    assert_eq!(point.single("wall_s"), Some(41.67));
    assert_eq!((point.completed, point.failed), (Some(50.0), Some(2.0)));
    assert_eq!(point.other.get("/localhost:9401 0 A GPU-1/gpu_power_usage/max"), Some(&299.28));
    assert_eq!(point.other.get("/request_latency/sum"), Some(&82_615.0));
    let codes: Vec<&str> = point.flaws.iter().map(|f| f.code.as_str()).collect();
    assert_eq!(codes, ["requests_failed", "few_samples"]);
}

#[test]
fn a_csv_file_that_was_cut_or_joined_is_refused() {
    let cut = &GENAI_PERF_CSV[..GENAI_PERF_CSV.find(",28").unwrap()];
    let twice = format!("{GENAI_PERF_CSV}\r\n{GENAI_PERF_CSV}");
    for (text, why) in [
        (cut, "'Time To First Token (ms)' has 9 cells below a head of 10"),
        (&twice, "'Time To First Token (ms)' is there twice"),
    ] {
        let said = read("x.csv", text).unwrap_err().to_string();
        assert!(said.ends_with(why), "{said}");
    }
}

/// A rate that is not what it counts over the time that it took.
#[test]
fn a_rate_that_its_own_counts_deny_is_told() {
    let (_, text) = FILES[0];
    let flaws = |key: &str, value: f64| {
        let mut file: Value = serde_json::from_str(text).unwrap();
        file[key] = value.into();
        let read = read("vllm.json", &file.to_string()).unwrap();
        let flaws = only(&read).flaws.iter().filter(|f| f.code == "rates_disagree");
        flaws.map(|f| f.message.clone()).collect::<Vec<_>>()
    };
    assert!(flaws("completed", 24.0).is_empty());
    for (key, value, want) in [
        ("request_throughput", 40.0, "40.0 requests/s, and 24 requests in 0.693 s are 34.6"),
        ("output_throughput", 700.0, "700 tokens/s, and 384 tokens in 0.693 s are 554"),
    ] {
        assert_eq!(flaws(key, value), [want], "{key}");
    }
    // 0.0167 requests/s of 1000 tokens, in two decimals.
    let slow = "Metric,avg,p50\nRequest Latency (ms),60000.00,60000.00\nOutput Sequence Length (tokens),1000.00,1000.00\n\nMetric,Value\n\
                Request Count,120.00\nRequest Throughput (requests/sec),0.02\n\
                Output Token Throughput (tokens/sec),16.67\n";
    let file = read("slow.csv", slow).unwrap();
    let codes: Vec<&str> = only(&file).flaws.iter().map(|f| f.code.as_str()).collect();
    assert!(!codes.contains(&"rates_disagree"), "{codes:?}");
}
