//! What is exported is imported again as the same numbers, and says what it is worth.

use super::*;
use crate::testing;
use scalebeam_model::exposition;
use scalebeam_model::import::{self, ImportedPoint, SINGLE};
use scalebeam_model::request::{Arrival, Outcome, Phase};
use scalebeam_model::results::Distribution;
use scalebeam_model::trust::TrustLevel;
use serde_json::json;
use std::collections::BTreeSet;

fn request(index: u64, sent: u64, tokens_at: &[u64]) -> RequestRecord {
    let ms = Nanos::from_millis;
    let mut r = RequestRecord::new(index, Phase::Measure, 0, ms(0));
    r.sent_at = Some(ms(sent));
    let arrival = |at: &u64| Arrival { at: ms(*at), chunks: 1, lag_ns: 0 };
    r.arrivals = tokens_at.iter().map(arrival).collect();
    r.first_token_at = r.arrivals.first().map(|a| a.at);
    r.last_token_at = r.arrivals.last().map(|a| a.at);
    r.finished_at = r.last_token_at.unwrap_or(ms(504)) + ms(6);
    r.prompt_tokens = Some(64);
    r.output_tokens = u32::try_from(tokens_at.len()).ok();
    r.outcome = if tokens_at.is_empty() { Outcome::Failed } else { Outcome::Completed };
    r
}

/// Two answers of three tokens, and a failure at 510 ms. From sending to the first token 50 and 80 ms, to the last 90
/// and 160 ms, 20 and 40 ms a later token.
fn records() -> Vec<RequestRecord> {
    vec![request(0, 10, &[60, 80, 100]), request(1, 20, &[100, 140, 180]), request(2, 30, &[])]
}

const BEGAN: Nanos = Nanos(1_767_323_045_250_000_000);

/// Runs `look` over the first point of the made-up run with the records above as its first trial.
fn with_input(change: impl FnOnce(&mut PointResult), look: impl FnOnce(&ExportInput<'_>)) {
    let (mut results, plan) = testing::run();
    results.points.truncate(1);
    for metrics in results.points[0].trials.iter_mut().map(|t| &mut t.metrics) {
        let ttft = metrics["ttft_ms"];
        metrics.insert("ttft_sent_ms".to_owned(), ttft);
    }
    change(&mut results.points[0]);
    let records = records();
    let trial = ExportTrial {
        plan: &plan.points[0],
        point: &results.points[0],
        number: 1,
        records: &records,
        began: Some(BEGAN),
        ended: Some(BEGAN + Nanos::from_secs(2)),
    };
    let missing = vec!["`a/b/c8`, trial 2: it was cut short".to_owned()];
    look(&ExportInput {
        results: &results,
        plan: &plan,
        tool: "9.9.9",
        trials: vec![trial],
        missing,
    });
}

fn files(name: &str, input: &ExportInput<'_>) -> Vec<(String, String)> {
    let files = export(export_form(name).unwrap(), input).unwrap();
    let text = |(name, bytes): (String, Vec<u8>)| (name, String::from_utf8(bytes).unwrap());
    files.into_iter().map(text).collect()
}

/// The one point of the first file of `name`, read again.
fn imported(name: &str, input: &ExportInput<'_>) -> ImportedPoint {
    let files = files(name, input);
    let (file, text) = &files[0];
    let read = import::read(file, text).unwrap_or_else(|why| panic!("{file}: {why}\n{text}"));
    assert_eq!(read.points.len(), 1, "{text}");
    read.points[0].clone()
}

#[track_caller]
fn holds(point: &ImportedPoint, want: &[(&str, &str, f64)]) {
    for (metric, stat, want) in want {
        let found = point.value(metric, stat);
        let near = found.is_some_and(|f| (f - want).abs() < 1e-9 * want.abs().max(1.0));
        assert!(near, "{stat} of {metric} is {found:?}, not {want}: {point:#?}");
    }
}

/// What every client finds in these records.
const LATENCIES: [(&str, &str, f64); 6] = [
    ("ttft_sent_ms", "mean", 65.0),
    ("ttft_sent_ms", "p50", 65.0),
    ("ttft_sent_ms", "p99", 79.7),
    ("tpot_ms", "mean", 30.0),
    ("tpot_ms", "p99", 39.8),
    ("e2e_sent_ms", "mean", 125.0),
];

/// Over half a second, failures included.
const RATES: [(&str, &str, f64); 3] =
    [("rps", SINGLE, 4.0), ("output_tps", SINGLE, 12.0), ("total_tps", SINGLE, 268.0)];

#[test]
fn vllms_file_is_read_again() {
    with_input(
        |_| {},
        |input| {
            let point = imported("vllm", input);
            holds(&point, &LATENCIES);
            holds(&point, &RATES);
            assert_eq!((point.completed, point.failed), (Some(2.0), Some(1.0)));
            assert_eq!(point.label, "single-4gpu/users/c16");
            assert_eq!((point.asked.concurrency, point.asked.requests), (Some(16.0), Some(3.0)));
            let (name, text) = &files("vllm", input)[0];
            assert_eq!(name, "single-4gpu/users-c16-t1.json");
            let json: Value = serde_json::from_str(text).unwrap();
            assert_eq!(json["completed"], 2, "counts are whole");
            assert_eq!(
                (&json["request_rate"], &json["date"]),
                (&"inf".into(), &"20260102-030405".into())
            );
        },
    );
}

#[test]
fn sglangs_line_is_read_again() {
    with_input(
        |_| {},
        |input| {
            let point = imported("sglang", input);
            holds(&point, &LATENCIES[..3]);
            // It counts to the end of the stream, 6 ms after the last token.
            holds(&point, &[("tpot_ms", "mean", 33.0), ("e2e_sent_ms", "mean", 131.0)]);
            holds(&point, &RATES);
            assert_eq!((point.asked.isl, point.asked.osl), (Some(1024.0), Some(256.0)));
        },
    );
}

#[test]
fn folders_of_genai_perf_and_aiperf_are_read_again() {
    with_input(
        |_| {},
        |input| {
            // The time of genai-perf ends with the last token: 170 ms after the first request was sent.
            let rates = [("rps", SINGLE, 2.0 / 0.17), ("output_tps", SINGLE, 6.0 / 0.17)];
            for (name, rates) in [("genai-perf", &rates[..]), ("aiperf", &RATES)] {
                let point = imported(name, input);
                holds(&point, &LATENCIES);
                holds(&point, rates);
                assert_eq!(point.completed, Some(2.0), "{name}");
                assert_eq!(point.asked.concurrency, Some(16.0), "{name}");
                assert_eq!(point.asked.model.as_deref(), Some("llm"), "{name}");
                assert_eq!(
                    (point.asked.isl, point.asked.osl),
                    (Some(1024.0), Some(256.0)),
                    "{name}"
                );
            }
            let names: Vec<String> = files("genai-perf", input).into_iter().map(|f| f.0).collect();
            let folder = "users/isl_shared_0_isl_unique_1024_osl_256/single-4gpu_tp4dp1/concurrency_16.0_20260102_030405";
            assert_eq!(names[0], format!("{folder}/my_profile_export_genai_perf.json"));
            assert_eq!(names[1], format!("{folder}/my_profile_export_genai_perf.csv"));
            let names: Vec<String> = files("aiperf", input).into_iter().map(|f| f.0).collect();
            let folder = "single-4gpu/users-c16-t1/llm-openai-chat-concurrency16";
            assert_eq!(names[0], format!("{folder}/profile_export_aiperf.json"));
        },
    );
}

#[test]
fn csv_files_of_genai_perf_and_aiperf_are_as_the_tools_write_them() {
    with_input(
        |_| {},
        |input| {
            let csv = |name| files(name, input)[1].1.replace("\r\n", "\n");
            insta::assert_snapshot!(format!("{}\n---\n{}", csv("genai-perf"), csv("aiperf")));
        },
    );
}

/// Told by what is in it: a file of one tool is none of the other.
#[test]
fn csv_files_of_genai_perf_and_aiperf_are_read_again() {
    with_input(
        |_| {},
        |input| {
            for (name, tool) in [("genai-perf", "genai-perf profile"), ("aiperf", "aiperf profile")]
            {
                let of_json = imported(name, input);
                let file = import::read("numbers", &files(name, input)[1].1).unwrap();
                assert_eq!((file.tool.as_str(), file.points.len()), (tool, 1));
                let of_csv = &file.points[0];
                assert_eq!(of_csv.completed, Some(2.0));
                assert_eq!(of_csv.near, of_json.near);
                for (metric, stats) in &of_csv.metrics {
                    for (stat, value) in stats {
                        let exact = of_json.value(metric, stat).unwrap();
                        assert!(
                            (value - exact).abs() <= 0.005 + 1e-9,
                            "{name} {metric} {stat}: {value}"
                        );
                    }
                }
                let shared =
                    of_csv.metrics.keys().filter(|m| of_json.metrics.contains_key(*m)).count();
                assert!(shared >= 8 && shared == of_json.metrics.len(), "{name}: {of_csv:#?}");
            }
        },
    );
}

#[test]
fn an_aggregate_of_inferencex_is_read_again() {
    with_input(
        |_| {},
        |input| {
            let point = imported("inferencex", input);
            holds(&point, &LATENCIES);
            // Four GPUs; prompts and answers at 268 tokens/s.
            assert_eq!(point.other.get("/tput_per_gpu"), Some(&67.0));
            assert_eq!(point.single("output_tps_per_gpu"), Some(3.0));
            assert!((point.other["/mean_intvty"] - 1e3 / 30.0).abs() < 1e-9);
        },
    );
}

#[test]
fn a_benchmark_report_is_read_again() {
    with_input(
        |_| {},
        |input| {
            let trial = input.trials[0];
            let point = imported("benchmark-report", input);
            for (metric, stat, ours) in [
                ("ttft_sent_ms", "p99.9", "ttft_sent_ms.p99.9"),
                ("tpot_ms", "mean", "tpot_ms.mean"),
                ("itl_ms", "p95", "itl_ms.p95"),
                ("output_tokens", "mean", "output_tokens.mean"),
                ("rps", SINGLE, "rps"),
                ("output_tps", SINGLE, "output_tps"),
                ("total_tps", SINGLE, "total_tps"),
            ] {
                holds(&point, &[(metric, stat, trial.value(ours).unwrap())]);
            }
            assert_eq!((point.failed, point.asked.requests), (Some(1.0), Some(3.0)));
            assert_eq!((point.asked.concurrency, point.asked.isl), (Some(16.0), Some(1024.0)));
            let json: Value = serde_json::from_str(&files("benchmark-report", input)[0].1).unwrap();
            assert_eq!(json["run"]["time"]["start"], "2026-01-02T03:04:05.250000Z");
            assert_eq!(json["run"]["time"]["duration"], "PT2S");
        },
    );
}

#[test]
fn a_page_of_openmetrics_is_read_by_our_own_reader() {
    with_input(
        |point| point.deployment = "a\"b\\c".to_owned(),
        |input| {
            let files = files("openmetrics", input);
            let page = &files[0].1;
            assert!(page.ends_with("# EOF\n"), "{page}");
            let find = |name: &str, stat: Option<&str>| {
                let mut samples = exposition::samples(page);
                let found = samples.find(|s| s.name == name && s.label("stat") == stat);
                found.unwrap_or_else(|| panic!("no {name} {stat:?}\n{page}"))
            };
            let point = input.trials[0].point;
            let rps = find("scalebeam_rps", None);
            assert_eq!(Some(rps.value), point.value("rps"));
            assert_eq!((rps.label("level"), rps.label("trust")), (Some("c16"), Some("sound")));
            assert_eq!(rps.label("deployment"), Some("a\\\"b\\\\c"));
            assert_eq!(Some(find("scalebeam_ttft_ms", Some("p99")).value), point.value("ttft.p99"));
            assert!(find("scalebeam_distrust", None).value.abs() < 1e-12);
            let families = page.lines().filter(|l| l.starts_with("# TYPE")).count();
            assert_eq!(families, point.metrics.len() + 1);
            assert!(page.contains(" 1767323047.250\n"), "{page}");
        },
    );
}

#[test]
fn otlp_is_one_line_of_resource_scope_and_gauges() {
    with_input(
        |_| {},
        |input| {
            let files = files("otlp", input);
            assert_eq!(files[0].1.lines().count(), 1);
            let json: Value = serde_json::from_str(&files[0].1).unwrap();
            let resource = &json["resourceMetrics"][0];
            assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "scalebeam");
            let scope = &resource["scopeMetrics"][0];
            assert_eq!(scope["scope"]["version"], "9.9.9");
            let metrics = scope["metrics"].as_array().unwrap();
            let rps = metrics.iter().find(|m| m["name"] == "scalebeam.rps").unwrap();
            let point = &rps["gauge"]["dataPoints"][0];
            assert_eq!(point["timeUnixNano"], "1767323047250000000");
            assert_eq!(point["startTimeUnixNano"], "1767323045250000000");
            assert_eq!(point["asDouble"].as_f64(), input.trials[0].point.value("rps"));
        },
    );
}

#[test]
fn an_mlflow_store_has_a_run_a_point_and_a_step_a_trial() {
    with_input(
        |_| {},
        |input| {
            let files = files("mlflow", input);
            let text = |end: &str| &files.iter().find(|(name, _)| name.ends_with(end)).unwrap().1;
            let run = "mlruns/1767323045/single-4gpu_users_c16";
            let metric = text(&format!("{run}/metrics/ttft_sent_ms.p99"));
            let trial = input.trials[0];
            let want = trial.value("ttft_sent_ms.p99").unwrap();
            assert_eq!(*metric, format!("1767323047250 {want:?} 1\n"));
            assert_eq!(text(&format!("{run}/params/gpus")), "4");
            assert_eq!(text(&format!("{run}/tags/scalebeam.trust")), "sound");
            assert!(text(&format!("{run}/artifacts/TRUST.md")).ends_with("trial 1: sound\n"));
            assert!(text(&format!("{run}/meta.yaml")).contains("experiment_id: '1767323045'\n"));
        },
    );
}

/// Seed 3's shape: six prefill instances over two GPUs each, and one that decodes over four.
fn prefill_and_decode() -> DeploymentPlan {
    let instance = |index: u32, role: &str, tp: u32, host: &str| {
        let ids: Vec<u32> = (0..tp).collect();
        json!({"index": index, "role": role, "tp": tp, "pp": 1, "dp": 1, "port": 8000 + index,
               "place": [{"host": host, "ids": ids}]})
    };
    let prefill = (0..6).map(|n| instance(n, "prefill", 2, if n < 4 { "node0" } else { "node1" }));
    let instances: Vec<Value> = prefill.chain([instance(6, "decode", 4, "node1")]).collect();
    serde_json::from_value(json!({
        "name": "single-4gpu", "platform": "local", "engine": "dynamo-vllm", "model": "m",
        "served_model": "llm", "gpus": 16, "gpu_kinds": ["H100"], "instances": instances,
        "processes": [], "entries": [], "balance": "round-robin",
        "ready": {"timeout": 1, "gates": []}, "stop": {"grace": 1, "always": true}
    }))
    .unwrap()
}

/// GPUs of a role, of all, and of a replica: each form has its own denominator.
#[test]
fn pools_are_told_apart_as_each_form_does() {
    with_input(
        |point| point.gpus = 16,
        |input| {
            let mut plan = input.plan.clone();
            plan.deployments = vec![prefill_and_decode()];
            let input = ExportInput { plan: &plan, ..input.clone() };
            let folder = &files("genai-perf", &input)[0].0;
            assert!(folder.contains("/single-4gpu_prefill_tp2dp6_generate_tp4dp1/"), "{folder}");
            let of = |name| -> Value { serde_json::from_str(&files(name, &input)[0].1).unwrap() };
            let aggregate = of("inferencex");
            assert_eq!(
                (&aggregate["num_prefill_gpu"], &aggregate["num_decode_gpu"]),
                (&json!(12), &json!(4))
            );
            assert_eq!(
                (&aggregate["prefill_num_workers"], &aggregate["decode_tp"]),
                (&json!(6), &json!(4))
            );
            // 12 of 268 tokens/s are output.
            assert_eq!(aggregate["tput_per_gpu"], 268.0 / 16.0);
            assert_eq!(aggregate["output_tput_per_gpu"], 12.0 / 4.0);
            assert_eq!(aggregate["input_tput_per_gpu"], 256.0 / 12.0);
            let stack = of("benchmark-report")["scenario"]["stack"].clone();
            let told = |n: usize| {
                let of = &stack[n]["standardized"];
                (of["role"].clone(), of["replicas"].clone(), of["accelerator"]["count"].clone())
            };
            assert_eq!(told(0), (json!("prefill"), json!(6), json!(2)));
            assert_eq!(told(1), (json!("decode"), json!(1), json!(4)));
            assert_eq!(imported("benchmark-report", &input).asked.gpus, Some(16.0));
        },
    );
}

/// The mark survives the way through a file of the tool.
#[test]
fn a_point_that_is_not_to_be_trusted_is_marked_in_the_file() {
    let distrust = |point: &mut PointResult| {
        point.trust.add(Reason {
            code: "failures".to_owned(),
            level: TrustLevel::Invalid,
            message: "1 of 3 requests was not completed".to_owned(),
            next_step: "look".to_owned(),
        });
    };
    with_input(distrust, |input| {
        for name in ["vllm", "genai-perf", "aiperf", "inferencex", "benchmark-report"] {
            let point = imported(name, input);
            let said = point.flaws.iter().find(|f| f.code == "its_own_verdict");
            let said = said.unwrap_or_else(|| panic!("{name}: {:?}", point.flaws));
            assert!(said.message.ends_with("invalid"), "{name}: {}", said.message);
        }
        for name in ["sglang", "openmetrics", "otlp", "mlflow"] {
            let files = files(name, input);
            let is_marked = |(_, text): &(String, String)| text.contains("invalid");
            assert!(files[..files.len() - 1].iter().any(is_marked), "{name}");
        }
    });
}

#[test]
fn notes_say_what_is_not_to_be_trusted_and_what_is_missing() {
    let distrust = |point: &mut PointResult| {
        point.trust.add(Reason {
            code: "short".to_owned(),
            level: TrustLevel::Caution,
            message: "the measurement took 2 s".to_owned(),
            next_step: "ask for more".to_owned(),
        });
    };
    with_input(distrust, |input| {
        for form in FORMS {
            let files = files(form.name, input);
            let (name, notes) = files.last().unwrap();
            assert_eq!(name, "NOTES.md");
            for part in [
                "- `single-4gpu/users/c16`, trial 1: **caution**",
                "  - `short`: the measurement took 2 s",
                "- `a/b/c8`, trial 2: it was cut short",
                form.about,
            ] {
                assert!(notes.contains(part), "{}: {part}\n{notes}", form.name);
            }
            let differs = form.definitions().map_or(&[][..], |peer| peer.differs);
            assert!(
                differs.iter().chain(form.says).all(|text| notes.contains(text)),
                "{}",
                form.name
            );
        }
    });
}

/// Nothing was answered: no latency is there, and none is 0.
#[test]
fn what_was_not_measured_is_absent() {
    let nothing = |point: &mut PointResult| {
        for metrics in point.trials.iter_mut().map(|t| &mut t.metrics).chain([&mut point.metrics]) {
            metrics.retain(|name, _| name == "success_rate");
        }
    };
    with_input(nothing, |input| {
        let failed = [request(0, 10, &[])];
        let trial = ExportTrial { records: &failed, ..input.trials[0] };
        let input = ExportInput { trials: vec![trial], ..input.clone() };
        for name in
            ["vllm", "sglang", "aiperf", "inferencex", "benchmark-report", "openmetrics", "otlp"]
        {
            let files = files(name, &input);
            for word in ["ttft", "tpot", "first_token"] {
                assert!(!files[0].1.contains(word), "{name}: {word}\n{}", files[0].1);
            }
        }
        let names: Vec<String> = files("mlflow", &input).into_iter().map(|f| f.0).collect();
        assert_eq!(names.iter().filter(|n| n.contains("/metrics/")).count(), 1, "{names:?}");
    });
}

#[test]
fn files_of_all_forms_have_names_of_their_own() {
    let (results, plan) = testing::run();
    let records = records();
    let trial = |n: usize, number| ExportTrial {
        plan: &plan.points[n],
        point: &results.points[n],
        number,
        records: &records,
        // Of a second each, as far as names go.
        began: Some(BEGAN),
        ended: Some(BEGAN),
    };
    let trials: Vec<ExportTrial<'_>> =
        (0..results.points.len()).flat_map(|n| [trial(n, 1), trial(n, 2)]).collect();
    let input =
        ExportInput { results: &results, plan: &plan, tool: "9", trials, missing: Vec::new() };
    for form in FORMS {
        let names: Vec<String> =
            export(form, &input).unwrap().into_iter().map(|(name, _)| name).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{}: {names:#?}", form.name);
        for name in &names {
            assert!(!name.starts_with('/') && !name.contains(".."), "{}: {name}", form.name);
        }
    }
}

/// A distribution has no percentile that it does not keep.
#[test]
fn statistics_of_gauges_are_kept_ones() {
    let d = Distribution {
        mean: 1.0,
        std: 1.0,
        min: 1.0,
        p1: 1.0,
        p5: 1.0,
        p25: 1.0,
        p50: 1.0,
        p75: 1.0,
        p90: 1.0,
        p95: 1.0,
        p99: 1.0,
        p999: 1.0,
        max: 1.0,
        count: 1,
    };
    assert!(gauges::STATISTICS.iter().all(|stat| d.stat(stat).is_some()));
}
