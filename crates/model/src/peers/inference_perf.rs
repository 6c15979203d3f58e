//! `inference-perf`.

use super::parts::{self, REQUESTS, REQUESTS_PER_S, S, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary};
use crate::request::RequestRecord;

/// As `kubernetes-sigs/inference-perf` computes them in `compute_request_latency_metrics` and
/// `summarize_requests`.
pub(super) const PEER: Peer = Peer {
    name: "inference-perf",
    tool: "inference-perf",
    sources: &["kubernetes-sigs/inference-perf inference_perf/reportgen/base.py"],
    differs: &[
        parts::FROM_START,
        "every time is in seconds",
        "what a request waited for its turn is in schedule_delay and in no latency",
        "each token has the instant of its chunk, so inter_token_latency is 0 within a chunk and its median may be near 0; ours has one gap an arrival",
        "normalized_time_per_output_token holds the first token; our tpot_ms is its time_per_output_token",
        "tokens are re-tokenised text unless use_server_output_tokens is set; these are the server's usage",
    ],
    counts: RequestRecord::is_completed,
    statistics: &[
        ("mean", Statistic::Mean),
        ("min", Statistic::Min),
        ("p0.1", Statistic::Percentile(0.1)),
        ("p1", Statistic::Percentile(1.0)),
        ("p5", Statistic::Percentile(5.0)),
        ("p10", Statistic::Percentile(10.0)),
        ("p25", Statistic::Percentile(25.0)),
        ("median", Statistic::Percentile(50.0)),
        ("p75", Statistic::Percentile(75.0)),
        ("p90", Statistic::Percentile(90.0)),
        ("p95", Statistic::Percentile(95.0)),
        ("p99", Statistic::Percentile(99.0)),
        ("p99.9", Statistic::Percentile(99.9)),
        ("max", Statistic::Max),
    ],
    summary: Summary::Numpy,
    says_unit: false,
    quantities: &[
        Quantity {
            key: "benchmark_time_seconds",
            unit: S,
            like: Like::Same("wall_s"),
            formula: "first start to last end",
            of: Of::Trial(parts::whole),
        },
        Quantity {
            key: "load_summary/count",
            unit: REQUESTS,
            like: Like::Same("requests"),
            formula: "requests sent",
            of: Of::Trial(|t| Some(t.sent().count() as f64)),
        },
        Quantity {
            key: "load_summary/schedule_delay/{}",
            unit: S,
            like: Like::Same("lateness_ms"),
            formula: "start - scheduled time, of all requests",
            of: Of::Sent(schedule_delay),
        },
        Quantity {
            key: "successes/count",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests without an error",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "successes/latency/request_latency/{}",
            unit: S,
            like: Like::Same("e2e_sent_ms"),
            formula: "end - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_end(r))),
        },
        Quantity {
            key: "successes/latency/normalized_time_per_output_token/{}",
            unit: S,
            like: Like::Near(
                "token_latency_ms",
                "it begins when the request is sent, not when it is due",
            ),
            formula: "request_latency / output tokens",
            of: Of::Counted(normalised),
        },
        Quantity {
            key: "successes/latency/time_per_output_token/{}",
            unit: S,
            like: Like::Same("tpot_ms"),
            formula: "(last token - first token) / (output tokens - 1)",
            of: Of::Counted(|r, out| {
                parts::push(out, parts::per_later_token(r, parts::decoding(r)))
            }),
        },
        Quantity {
            key: "successes/latency/time_to_first_token/{}",
            unit: S,
            like: Like::Near("ttft_sent_ms", "of answers with two tokens at least"),
            formula: "first token - start, of answers with two tokens at least",
            of: Of::Counted(ttft),
        },
        Quantity {
            key: "successes/latency/inter_token_latency/{}",
            unit: S,
            like: Like::Near("itl_ms", "tokens of one chunk are 0 apart"),
            formula: "gaps between tokens, those of one chunk 0 apart, all requests pooled",
            of: Of::Counted(token_gaps),
        },
        Quantity {
            key: "successes/throughput/input_tokens_per_sec",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "prompt tokens / benchmark time",
            of: Of::Trial(parts::input_per_s),
        },
        Quantity {
            key: "successes/throughput/output_tokens_per_sec",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "output tokens / benchmark time",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "successes/throughput/total_tokens_per_sec",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "prompt and output tokens / benchmark time",
            of: Of::Trial(parts::all_per_s),
        },
        Quantity {
            key: "successes/throughput/requests_per_sec",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "successes / benchmark time",
            of: Of::Trial(parts::requests_per_s),
        },
        Quantity {
            key: "failures/count",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "requests with an error",
            of: Of::Trial(parts::failed),
        },
    ],
};

fn schedule_delay(r: &RequestRecord, out: &mut Vec<Sample>) {
    parts::push(out, parts::begun(r).map(|at| at.millis_after(r.scheduled_at) / 1e3));
}

fn normalised(r: &RequestRecord, out: &mut Vec<Sample>) {
    let tokens = parts::output_tokens(r).filter(|n| *n > 0.0);
    parts::push(out, parts::to_end(r).zip(tokens).map(|(s, n)| s / n));
}

fn ttft(r: &RequestRecord, out: &mut Vec<Sample>) {
    if r.output_tokens.is_some_and(|n| n > 1) {
        parts::push(out, parts::ttft(r));
    }
}

/// How many tokens each chunk held is not known and makes no difference: so many gaps are 0.
fn token_gaps(r: &RequestRecord, out: &mut Vec<Sample>) {
    let gaps = r.arrivals.windows(2).map(|w| w[1].at.millis_after(w[0].at) / 1e3);
    out.extend(gaps.map(Sample::one));
    let arrivals = u32::try_from(r.arrivals.len()).unwrap_or(u32::MAX);
    let within = r.output_tokens.map_or(0, |n| n.saturating_sub(arrivals));
    if arrivals > 0 {
        out.extend((0..within).map(|_| Sample::one(0.0)));
    }
}
