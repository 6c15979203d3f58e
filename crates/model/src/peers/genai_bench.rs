//! `genai-bench benchmark`.

use super::parts::{self, REQUESTS, REQUESTS_PER_S, S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary, unit};
use crate::request::RequestRecord;

/// Faster answers are taken for errors of the clock and left out.
const FASTEST_TOKENS_PER_S: f64 = 1_000.0;

/// As `sgl-project/genai-bench` computes them in `RequestMetricsCollector` and
/// `AggregatedMetricsCollector`.
pub(super) const PEER: Peer = Peer {
    name: "genai-bench",
    tool: "genai-bench benchmark",
    sources: &[
        "sgl-project/genai-bench genai_bench/metrics/request_metrics_collector.py",
        "sgl-project/genai-bench genai_bench/metrics/aggregated_metrics_collector.py",
    ],
    differs: &[
        parts::FROM_START,
        "every time is in seconds",
        "tpot reaches to the end of the stream, not to the last token",
        "answers of more than 1000 tokens/s after their first token are left out of everything",
        "its run_duration is that of the whole level, ramp and drain included",
    ],
    counts,
    statistics: &[
        ("min", Statistic::Min),
        ("max", Statistic::Max),
        ("mean", Statistic::Mean),
        ("stddev", Statistic::Std),
        ("sum", Statistic::Sum),
        ("p25", Statistic::Percentile(25.0)),
        ("p50", Statistic::Percentile(50.0)),
        ("p75", Statistic::Percentile(75.0)),
        ("p90", Statistic::Percentile(90.0)),
        ("p95", Statistic::Percentile(95.0)),
        ("p99", Statistic::Percentile(99.0)),
    ],
    summary: Summary::Numpy,
    says_unit: false,
    quantities: &[
        Quantity {
            key: "aggregated_metrics/run_duration",
            unit: S,
            like: Like::Same("wall_s"),
            formula: "first start to last end",
            of: Of::Trial(parts::whole),
        },
        Quantity {
            key: "aggregated_metrics/mean_output_throughput_tokens_per_s",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "sum of output tokens / run_duration",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "aggregated_metrics/mean_input_throughput_tokens_per_s",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "sum of prompt tokens / run_duration",
            of: Of::Trial(parts::input_per_s),
        },
        Quantity {
            key: "aggregated_metrics/mean_total_tokens_throughput_tokens_per_s",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "sum of both / run_duration",
            of: Of::Trial(parts::all_per_s),
        },
        Quantity {
            key: "aggregated_metrics/requests_per_second",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "completed / run_duration",
            of: Of::Trial(parts::requests_per_s),
        },
        Quantity {
            key: "aggregated_metrics/num_completed_requests",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests without an error",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "aggregated_metrics/num_error_requests",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "requests with one",
            of: Of::Trial(parts::failed),
        },
        Quantity {
            key: "aggregated_metrics/stats/ttft/{}",
            unit: S,
            like: Like::Same("ttft_sent_ms"),
            formula: "first token - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/tpot/{}",
            unit: unit("s/token", 1.0),
            like: Like::Near("tpot_ms", "it reaches to the end of the stream"),
            formula: "output_latency / (output tokens - 1)",
            of: Of::Counted(|r, out| parts::push(out, tpot(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/e2e_latency/{}",
            unit: S,
            like: Like::Same("e2e_sent_ms"),
            formula: "end - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_end(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/output_latency/{}",
            unit: S,
            like: Like::Nothing,
            formula: "e2e_latency - ttft",
            of: Of::Counted(|r, out| parts::push(out, output_latency(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/output_inference_speed/{}",
            unit: TOKENS_PER_S,
            like: Like::Near("interactivity_tps", "it reaches to the end of the stream"),
            formula: "1 / tpot",
            of: Of::Counted(|r, out| parts::push(out, speed(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/num_input_tokens/{}",
            unit: TOKENS,
            like: Like::Same("prompt_tokens"),
            formula: "prompt tokens",
            of: Of::Counted(|r, out| parts::push(out, r.prompt_tokens.map(f64::from))),
        },
        Quantity {
            key: "aggregated_metrics/stats/num_output_tokens/{}",
            unit: TOKENS,
            like: Like::Same("output_tokens"),
            formula: "output tokens by usage, else re-tokenised text",
            of: Of::Counted(|r, out| parts::push(out, parts::output_tokens(r))),
        },
        Quantity {
            key: "aggregated_metrics/stats/input_throughput/{}",
            unit: TOKENS_PER_S,
            like: Like::Near(
                "prefill_tps",
                "it begins when the request is sent, not when it is due",
            ),
            formula: "prompt tokens / ttft",
            of: Of::Counted(input_throughput),
        },
        Quantity {
            key: "aggregated_metrics/stats/output_throughput/{}",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "(output tokens - 1) / output_latency",
            of: Of::Counted(|r, out| parts::push(out, speed(r))),
        },
    ],
};

fn counts(r: &RequestRecord) -> bool {
    r.is_completed() && speed(r).is_none_or(|s| s <= FASTEST_TOKENS_PER_S)
}

fn output_latency(r: &RequestRecord) -> Option<f64> {
    Some(parts::to_end(r)? - parts::ttft(r)?)
}

fn tpot(r: &RequestRecord) -> Option<f64> {
    parts::per_later_token(r, output_latency(r))
}

fn speed(r: &RequestRecord) -> Option<f64> {
    tpot(r).filter(|t| *t > 0.0).map(|t| 1.0 / t)
}

fn input_throughput(r: &RequestRecord, out: &mut Vec<Sample>) {
    let ttft = parts::ttft(r).filter(|s| *s > 0.0);
    parts::push(out, r.prompt_tokens.zip(ttft).map(|(n, s)| f64::from(n) / s));
}
