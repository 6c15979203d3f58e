//! Numbers against a server that somebody else wrote, and that logs when it wrote each token.

use crate::support::{json_lines, say, truth_server, writes};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use scalebeam_record::RunReader;
use serde_json::Value;
use std::collections::BTreeMap;

fn bench(url: &str, model: &str, args: &[&str]) -> Value {
    let out = tempfile::tempdir().unwrap();
    let fixed = ["bench", url, "--model", model, "--warmup", "0", "--isl", "16", "--json"];
    let fixed = [&fixed[..], &["--selftest", "never", "--out"]].concat();
    say([&fixed[..], &[out.path().to_str().unwrap()], args].concat()).json()["points"][0].clone()
}

/// Each behaviour of the server gives the outcome that it is.
#[test]
fn every_behaviour_has_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let server =
        truth_server(&["--ttft-ms", "10", "--itl-ms", "2", "--log", log.to_str().unwrap()]);
    for (model, outcome, failure) in [
        ("plain", "completed", None),
        ("role-first", "completed", None),
        ("k-tokens", "completed", None),
        ("no-usage", "completed", None),
        ("crlf", "completed", None),
        ("byte-split", "completed", None),
        ("utf8-cut", "completed", None),
        ("no-space", "completed", None),
        ("comments", "completed", None),
        ("no-done", "completed", None),
        ("reset", "failed", Some("reset")),
        ("cut", "truncated", Some("truncated")),
        ("429", "rejected", Some("http_status")),
        ("500", "failed", Some("http_status")),
        ("error-event", "failed", Some("server_error")),
        ("empty", "failed", Some("empty_output")),
        ("reasoning", "completed", None),
        ("tool", "completed", None),
        ("redirect", "failed", Some("http_status")),
        ("multi-line", "completed", None),
        ("huge", "completed", None),
        ("content-length", "completed", None),
    ] {
        let out = tempfile::tempdir().unwrap();
        // A server that only fails would not pass the gates; attach without the probe.
        let text = format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"{model}\"\n[[deploy]]\nname = \"there\"\nplatform = \"external\"\n\
             engine = \"openai\"\nendpoint = \"{}\"\nready = {{ probe = \"health\" }}\n\
             [[workload]]\nname = \"w\"\nkind = \"prompts\"\nforce_len = true\nprompts = [ {{ id = \"p\", max_tokens = 12, text = \"hi\" }} ]\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 2\nrequests = 6\ntimeout = \"20s\"\n",
            server.url
        );
        let file = out.path().join("e.toml");
        std::fs::write(&file, text).unwrap();
        let runs = out.path().join("runs");
        let said = say(["run", file.to_str().unwrap(), "--out", runs.to_str().unwrap(), "--json"]);
        let point = said.json()["points"][0].clone();
        assert_eq!(point["outcomes"][outcome], 6, "{model}: {point:#}");
        match failure {
            Some(class) => assert_eq!(point["failures"][class], 6, "{model}: {point:#}"),
            None => {
                assert_eq!(point["metrics"]["output_tokens"]["mean"], 12.0, "{model}");
                assert_eq!(point["metrics"]["output_tokens"]["min"], 12.0, "{model}");
            }
        }
        let served = json_lines(&log).iter().filter(|r| r["model"] == model).count();
        assert_eq!(served, 6, "{model}: nothing is retried in silence");
    }
}

/// Every endpoint family, through the gates of the readiness probe, to the numbers of a point.
#[test]
fn every_family_is_weighed() {
    let server = truth_server(&["--ttft-ms", "10", "--itl-ms", "2"]);
    for api in Api::ALL {
        for model in ["plain", "json-type"] {
            let args = ["--requests", "6", "--concurrency", "2", "--api", api.name()];
            let osl: &[&str] = if api.generates() { &["--osl", "12"] } else { &[] };
            let point = bench(&server.url, model, &[&args[..], osl].concat());
            let what = format!("{} {model}: {point:#}", api.name());
            assert_eq!(point["outcomes"]["completed"], 6, "{what}");
            assert!(point["metrics"]["e2e_ms"]["p50"].as_f64().unwrap() >= 9.0, "{what}");
            assert_eq!(point["metrics"]["prompt_tokens"]["mean"], 16.0, "{what}");
            let (tokens, ttft) = (&point["metrics"]["output_tokens"], &point["metrics"]["ttft_ms"]);
            if api.generates() {
                assert_eq!(
                    (&tokens["min"], &tokens["max"]),
                    (&12.0.into(), &12.0.into()),
                    "{what}"
                );
                assert!(ttft["p50"].as_f64().unwrap() >= 9.0, "{what}");
            } else {
                assert!(tokens["mean"].is_null() && ttft["p50"].is_null(), "{what}");
                let reasons = point["trust"].to_string();
                assert!(!reasons.is_empty() && !reasons.contains("no_usage"), "{what}");
            }
        }
    }
}

/// Six tokens of reasoning and six of the answer: counted by the server where it counts them, else by chunks,
/// and the first token of the answer is not the first token.
#[test]
fn reasoning_is_told_apart_from_the_answer() {
    let server = truth_server(&["--ttft-ms", "10", "--itl-ms", "5"]);
    let args = ["--requests", "6", "--concurrency", "1", "--osl", "12", "--no-force-len", "--api"];
    let of = |model: &str, api: &str| bench(&server.url, model, &[&args[..], &[api]].concat());
    for (api, source) in [
        ("chat", "usage"),
        ("responses", "usage"),
        ("messages", "chunks"),
        ("ollama_chat", "chunks"),
    ] {
        for (model, source) in [("reasoning", source), ("reasoning-uncounted", "chunks")] {
            let point = of(model, api);
            let metrics = &point["metrics"];
            let what = format!("{api} {model} by {source}: {point:#}");
            let tokens = &metrics["reasoning_tokens"];
            assert_eq!((&tokens["min"], &tokens["max"]), (&6.0.into(), &6.0.into()), "{what}");
            let at = |name: &str| metrics[name]["p50"].as_f64().unwrap_or_else(|| panic!("{what}"));
            assert!(at("ttfo_ms") - at("ttft_ms") >= 5.0 * 5.0, "{what}");
        }
        let plain = of("plain", api);
        let metrics = &plain["metrics"];
        assert_eq!(metrics["ttfo_ms"]["p50"], metrics["ttft_ms"]["p50"], "{plain:#}");
        assert!(metrics["reasoning_tokens"]["max"].as_f64().is_none_or(|n| n == 0.0), "{plain:#}");
    }
}

/// A family that cannot force a length is told so before the run, and its answers are not held to it.
#[test]
fn a_length_that_cannot_be_forced_is_a_note() {
    let check = |api: &str, more: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("e.toml");
        let text = format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[[deploy]]\nname = \"there\"\nplatform = \"external\"\n\
             engine = \"openai\"\nendpoint = \"http://127.0.0.1:9\"\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\napi = \"{api}\"\n{more}\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nconcurrency = 2\nrequests = 6\nwarmup = 1\n"
        );
        std::fs::write(&file, text).unwrap();
        say(["check", file.to_str().unwrap()])
    };
    let forced = "osl = 4\nforce_len = true\n";
    for api in Api::ALL.into_iter().filter(|api| api.generates()) {
        let said = check(api.name(), forced).expect_code(0);
        let all = said.stdout + &said.stderr;
        let is_noted = all.contains("cannot force a length");
        assert_eq!(is_noted, !api.can_force_len(), "{}: {all}", api.name());
    }
    check("embeddings", "").expect_code(0);
    let refused = check("embeddings", &format!("{forced}stream = true\n")).expect_code(2).stderr;
    for key in ["'osl'", "'force_len'", "'stream'"] {
        assert!(refused.contains(&format!("{key} has no meaning")), "{refused}");
    }
    let refused = check("tgi", "osl = 4\nsystem = \"be brief\"\n").expect_code(2).stderr;
    assert!(refused.contains("api tgi has no system message"), "{refused}");
}

#[test]
fn a_stall_shows_and_a_server_that_never_answers_is_a_time_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let server = truth_server(&[
        "--ttft-ms",
        "10",
        "--itl-ms",
        "2",
        "--stall-ms",
        "700",
        "--log",
        log.to_str().unwrap(),
    ]);
    let args = ["--requests", "4", "--concurrency", "2", "--osl", "12"];
    let point = bench(&server.url, "stall", &args);
    assert_eq!(point["outcomes"]["completed"], 4);
    let worst = point["metrics"]["itl_ms"]["max"].as_f64().unwrap();
    assert!((690.0..1_500.0).contains(&worst), "{worst}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Arrivals of some 64 streams against the instants at which the server really wrote, request by request,
/// and the metrics against what those instants give. Medians: a test on a shared machine must not depend
/// on its worst moment. Arrivals are drawn, since streams in lockstep measure who gets the processor
/// first. The server reads requests one after the other, so its own `received_ns` is no truth for when a
/// request arrived; when the kernel took it, is.
#[test]
fn sixty_four_streams_are_timed_as_the_server_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let server =
        truth_server(&["--ttft-ms", "50", "--itl-ms", "10", "--log", log.to_str().unwrap()]);
    let out = dir.path().join("runs");
    let args = [
        "bench",
        &server.url,
        "--selftest",
        "never",
        "--model",
        "plain",
        "--warmup",
        "0",
        "--isl",
        "16",
        "--osl",
        "32",
        "--requests",
        "256",
        "--request-rate",
        "170",
        "--json",
        "--out",
        out.to_str().unwrap(),
    ];
    let point = say(args).json()["points"][0].clone();
    assert_eq!(point["outcomes"]["completed"], 256);
    let run =
        RunReader::open(&std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path()).unwrap();
    let records = run.measured_points().unwrap().remove(0).trials.remove(0).records;

    let of_index = |id: &str| id.rsplit_once("-1m-").and_then(|(_, n)| n.parse::<u64>().ok());
    let rows: BTreeMap<u64, Value> = json_lines(&log)
        .into_iter()
        .filter_map(|r| Some((of_index(r["id"].as_str()?)?, r)))
        .collect();
    assert_eq!((rows.len(), records.len()), (256, 256), "every request once");
    let (mut first, mut last, mut end) = (vec![], vec![], vec![]);
    let (mut gaps, mut ttft, mut e2e) = (vec![], vec![], vec![]);
    for record in &records {
        let row = &rows[&record.index];
        let writes = writes(row);
        assert_eq!(record.chunks(), 32);
        assert_eq!(record.output_tokens, Some(32));
        // Two writes that one read brought are one arrival: a busy machine makes some of these.
        assert!(record.arrivals.len() <= writes.len(), "an arrival is at least one write");
        let sent = record.sent_at.unwrap();
        assert!(
            sent >= record.scheduled_at
                && sent.0 <= row["received_ns"].as_u64().unwrap() + 1_000_000
        );
        first.push(record.first_token_at.unwrap().millis_after(writes[0]));
        last.push(record.last_token_at.unwrap().millis_after(writes[31]));
        gaps.extend(writes.windows(2).map(|w| w[1].millis_after(w[0])));
        ttft.push(writes[0].millis_after(sent));
        let finished = Nanos(row["finished_ns"].as_u64().unwrap());
        end.push(record.finished_at.millis_after(finished));
        e2e.push(finished.millis_after(sent));
    }
    assert!(
        first.iter().chain(&last).all(|lag| *lag > 0.0),
        "nothing is seen before it is written"
    );
    assert!(median(first) < 1.0 && median(last) < 1.0);
    for (metric, truth) in [("ttft_sent_ms", ttft), ("itl_ms", gaps), ("e2e_sent_ms", e2e)] {
        let (ours, truth) = (point["metrics"][metric]["p50"].as_f64().unwrap(), median(truth));
        assert!((ours - truth).abs() < 1.0, "{metric}: {ours} ms against {truth} ms");
    }
    let gaps_seen: usize = records.iter().map(|r| r.arrivals.len() - 1).sum();
    assert_eq!(point["metrics"]["itl_ms"]["count"], gaps_seen);
    let merged = point["metrics"]["merged_arrivals"].as_f64().unwrap();
    let arrivals = gaps_seen + records.len();
    assert!((merged - (1.0 - arrivals as f64 / (256.0 * 32.0))).abs() < 1e-9, "{merged}");
}
