//! Definitions of other tools against numbers worked out by hand.

use super::*;
use crate::request::{Arrival, Outcome, Phase};
use std::collections::BTreeSet;

/// Scheduled at `due`, sent after a wait of 100 ms of which 20 ms went into a connection, then chunks at
/// `arrivals` (ms after sending, chunks in it), and the end of the stream 6 ms after the last.
fn request(index: u64, due: u64, arrivals: &[(u64, u32)], tokens: u32) -> RequestRecord {
    let ms = Nanos::from_millis;
    let mut r = RequestRecord::new(index, Phase::Measure, 0, ms(due));
    let sent = due + 100;
    r.sent_at = Some(ms(sent));
    r.connect = Some(ms(20));
    r.arrivals = arrivals
        .iter()
        .map(|(at, chunks)| Arrival { at: ms(sent + at), chunks: *chunks, lag_ns: 0 })
        .collect();
    r.first_token_at = r.arrivals.first().map(|a| a.at);
    r.first_answer_at = r.arrivals.get(1).map(|a| a.at);
    r.last_token_at = r.arrivals.last().map(|a| a.at);
    r.finished_at = r.last_token_at.unwrap_or(ms(sent)) + ms(6);
    r.prompt_tokens = Some(90);
    r.output_tokens = Some(tokens);
    r.outcome = Outcome::Completed;
    r
}

/// Two answers and a failure. Every peer's clock starts 20 ms before `sent_at`.
///
/// | | start | first | last | end | tokens | gaps between chunks |
/// | a | 80 | 160 (ttft 80) | 240 (160) | 246 (166) | 5 | 0, 40, 40 |
/// | b | 280 | 340 (ttft 60) | 400 (120) | 406 (126) | 3 | 30, 30 |
fn trial() -> Vec<RequestRecord> {
    let mut failed = request(2, 400, &[], 0);
    failed.outcome = Outcome::Failed;
    failed.finished_at = Nanos::from_millis(580);
    vec![
        request(0, 0, &[(60, 2), (100, 1), (140, 1)], 5),
        request(1, 200, &[(40, 1), (70, 1), (100, 1)], 3),
        failed,
    ]
}

#[track_caller]
fn holds(peer: &str, want: &[(&str, f64)]) {
    let peer = find(peer).unwrap();
    let json = peer.json(&peer.rows(&trial()));
    for (key, want) in want {
        let found = key.split('/').try_fold(&json, |object, part| object.get(part));
        let found = found.and_then(Value::as_f64);
        let near = found.is_some_and(|f| (f - want).abs() < 1e-6 * want.abs().max(1.0));
        assert!(near, "{}: {key} is {found:?}, not {want}\n{json:#}", peer.name);
    }
}

// First start at 80 ms; the last end of any request is at 580 ms: half a second.

#[test]
fn vllm() {
    holds(
        "vllm",
        &[
            ("duration", 0.5),
            ("completed", 2.0),
            ("failed", 1.0),
            ("total_input_tokens", 180.0),
            ("total_output_tokens", 8.0),
            ("request_throughput", 4.0),
            ("output_throughput", 16.0),
            ("total_token_throughput", 376.0),
            ("max_output_tokens_per_s", 7.0),
            ("max_concurrent_requests", 1.0),
            ("mean_ttft_ms", 70.0),
            ("std_ttft_ms", 10.0),
            ("p99_ttft_ms", 79.8),
            ("mean_tpot_ms", (80.0 / 4.0 + 60.0 / 2.0) / 2.0),
            ("mean_itl_ms", 140.0 / 5.0),
            ("median_itl_ms", 30.0),
            ("mean_e2el_ms", 140.0),
        ],
    );
}

#[test]
fn sglang() {
    holds(
        "sglang",
        &[
            ("input_throughput", 360.0),
            ("total_throughput", 376.0),
            ("mean_e2e_latency_ms", 146.0),
            ("mean_ttft_ms", 70.0),
            ("mean_tpot_ms", (86.0 / 4.0 + 66.0 / 2.0) / 2.0),
            ("p95_itl_ms", 40.0),
            ("max_itl_ms", 40.0),
            ("concurrency", 0.292 / 0.5),
        ],
    );
}

#[test]
fn aiperf() {
    holds(
        "aiperf",
        &[
            ("request_latency/avg", 140.0),
            ("request_latency/sum", 280.0),
            ("request_latency/count", 2.0),
            ("time_to_first_output_token/max", 120.0),
            ("time_to_second_token/min", 0.0),
            ("time_to_second_token/max", 30.0),
            ("inter_token_latency/avg", 25.0),
            ("inter_token_latency/p10", 21.0),
            ("inter_chunk_latency/avg", 28.0),
            ("output_token_throughput_per_user/avg", (50.0 + 1e3 / 30.0) / 2.0),
            ("prefill_throughput_per_user/max", 1_500.0),
            // To the last chunk with content, at 400 ms.
            ("benchmark_duration/avg", 0.32),
            // Rates are over all of it: what failed ended at 580 ms.
            ("request_throughput/avg", 4.0),
            ("output_token_throughput/avg", 16.0),
            ("error_request_count/avg", 1.0),
        ],
    );
}

#[test]
fn genai_perf() {
    holds(
        "genai-perf",
        &[
            ("request_throughput/avg", 6.25),
            ("request_latency/max", 160.0),
            // The two chunks of one read are one response.
            ("time_to_second_token/max", 40.0),
            ("inter_token_latency/max", 30.0),
            ("inter_token_latency/std", 5.0),
            ("output_sequence_length/avg", 4.0),
            // 5 tokens in 160 ms and 3 in 120 ms.
            ("output_token_throughput_per_request/avg", 28.125),
            ("request_count/avg", 2.0),
        ],
    );
    let peer = find("genai-perf").unwrap();
    let json = peer.json(&peer.rows(&trial()));
    assert_eq!(json["request_latency"]["unit"], "ms");
    assert!(json["request_latency"].get("sum").is_none());
}

#[test]
fn guidellm() {
    let m = |name: &str| format!("metrics/{name}");
    let keys = [
        ("request_totals/successful", 2.0),
        ("request_totals/errored", 1.0),
        ("request_totals/incomplete", 0.0),
        ("requests_per_second/successful/mean", 4.0),
        ("output_tokens_per_second/successful/mean", 16.0),
        ("request_latency/successful/mean", 0.146),
        ("request_latency/successful/percentiles/p50", 0.126),
        ("time_to_first_token_ms/successful/median", 60.0),
        ("time_to_first_output_token_ms/successful/median", 90.0),
        // 160 / 5 of weight 5 and 120 / 3 of weight 3.
        ("time_per_output_token_ms/successful/mean", 280.0 / 8.0),
        ("time_per_output_token_ms/successful/median", 32.0),
        ("time_per_output_token_ms/successful/count", 8.0),
        // 80 / 4 of weight 4 and 60 / 2 of weight 2.
        ("inter_token_latency_ms/successful/mean", 140.0 / 6.0),
        ("inter_token_latency_ms/successful/percentiles/p90", 30.0),
        ("inter_token_latency_ms/successful/std_dev", (1_000.0_f64 / 45.0).sqrt()),
    ];
    let keys = keys.map(|(name, want)| (m(name), want));
    let keys: Vec<(&str, f64)> = keys.iter().map(|(name, want)| (name.as_str(), *want)).collect();
    holds("guidellm", &keys);
}

#[test]
fn inference_perf() {
    holds(
        "inference-perf",
        &[
            ("benchmark_time_seconds", 0.5),
            ("load_summary/count", 3.0),
            ("load_summary/schedule_delay/mean", 0.08),
            ("successes/count", 2.0),
            ("successes/latency/request_latency/median", 0.146),
            ("successes/latency/normalized_time_per_output_token/mean", (0.0332 + 0.042) / 2.0),
            ("successes/latency/time_per_output_token/mean", 0.025),
            ("successes/latency/time_to_first_token/p99.9", 0.07998),
            // Of a two gaps and two tokens within chunks, of b two gaps: six gaps of eight tokens.
            ("successes/latency/inter_token_latency/mean", 0.14 / 6.0),
            ("successes/latency/inter_token_latency/min", 0.0),
            ("successes/throughput/output_tokens_per_sec", 16.0),
            ("failures/count", 1.0),
        ],
    );
}

#[test]
fn llmperf() {
    holds(
        "llmperf",
        &[
            ("results_inter_token_latency_s_mean", (0.032 + 0.04) / 2.0),
            ("results_ttft_s_quantiles_p25", 0.065),
            ("results_ttft_s_stddev", 0.02 / 2.0_f64.sqrt()),
            ("results_end_to_end_latency_s_max", 0.166),
            ("results_request_output_throughput_token_per_s_max", 5.0 / 0.166),
            ("results_error_rate", 1.0 / 3.0),
            ("results_mean_output_throughput_token_per_s", 16.0),
            ("results_num_completed_requests_per_min", 240.0),
        ],
    );
}

#[test]
fn genai_bench() {
    let stats = |name: &str| format!("aggregated_metrics/stats/{name}");
    holds(
        "genai-bench",
        &[
            ("aggregated_metrics/requests_per_second", 4.0),
            ("aggregated_metrics/mean_total_tokens_throughput_tokens_per_s", 376.0),
            (&stats("tpot/mean"), (0.0215 + 0.033) / 2.0),
            (&stats("output_latency/max"), 0.086),
            (&stats("input_throughput/max"), 1_500.0),
            (&stats("e2e_latency/stddev"), 0.02),
        ],
    );
    // 1 ms from first token to the end for four more tokens is faster than it believes.
    let mut records = trial();
    records[0].finished_at = records[0].first_token_at.unwrap() + Nanos::from_millis(1);
    let peer = find("genai-bench").unwrap();
    let json = peer.json(&peer.rows(&records));
    assert_eq!(json["aggregated_metrics"]["num_completed_requests"], 1.0);
}

#[test]
fn what_is_not_known_is_absent() {
    let mut records = trial();
    records[0].output_tokens = None;
    let peer = find("vllm").unwrap();
    let json = peer.json(&peer.rows(&records));
    assert!(json.get("output_throughput").is_none(), "a sum over some is not the sum");
    assert!(json.get("mean_ttft_ms").is_some());
    let rows = peer.rows(&[]);
    assert!(
        rows.iter()
            .filter(|r| r.key.contains("{}"))
            .all(|r| r.values.iter().all(|v| v.1.is_none()))
    );
}

#[test]
fn the_catalogue_is_uniform() {
    let names: BTreeSet<_> = PEERS.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), PEERS.len());
    for peer in PEERS {
        assert!(!peer.sources.is_empty() && !peer.differs.is_empty(), "{}", peer.name);
        assert!(
            peer.sources.iter().all(|s| s
                .split_once(' ')
                .is_some_and(|(p, f)| p.contains('/') && f.contains('.')))
        );
        let keys: Vec<String> = peer
            .quantities
            .iter()
            .flat_map(|q| match q.of {
                Of::Trial(_) => vec![q.key.to_owned()],
                _ => peer.statistics.iter().map(|(s, _)| q.key.replace("{}", s)).collect(),
            })
            .collect();
        let distinct: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{}: no key twice", peer.name);
        for key in &keys {
            let parent = format!("{key}/");
            assert!(!keys.iter().any(|k| k.starts_with(&parent)), "{}: {key}", peer.name);
        }
        for q in peer.quantities {
            assert!(!q.formula.is_empty());
            assert_eq!(
                q.key.contains("{}"),
                !matches!(q.of, Of::Trial(_)),
                "{}: {}",
                peer.name,
                q.key
            );
        }
    }
}
