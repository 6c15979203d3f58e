//! Files that the tools themselves wrote of runs against the emulated engine (24 requests, 4 at once, answers of 16
//! tokens; lists of single requests are cut), and the tables of the seeds.

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
                let is_there = [1.0, 1e3, 1.0 / 60.0]
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

/// A number in a unit that the catalogue does not name stays under its own key.
#[test]
fn another_unit_is_no_metric_of_ours() {
    let (_, text) = FILES[2];
    let mut file: Value = serde_json::from_str(text).unwrap();
    file["time_to_first_token"]["unit"] = "s".into();
    let read = read("aiperf.json", &file.to_string()).unwrap();
    let point = only(&read);
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
    assert_eq!(codes(1), ["requests_failed", "concurrency_not_reached"]);
    let said = &file.points[1].flaws[0].message;
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
