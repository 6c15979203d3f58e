//! `guidellm run`, earlier `guidellm benchmark`.

use super::parts::{self, MS, REQUESTS, REQUESTS_PER_S, S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Seen, Statistic, Summary};
use crate::request::{Outcome, RequestRecord};

/// As `vllm-project/guidellm` computes them in `GenerativeRequestStats`, summarised by
/// `DistributionSummary` with the weights that `GenerativeMetrics` gives.
pub(super) const PEER: Peer = Peer {
    name: "guidellm",
    tool: "guidellm run",
    sources: &[
        "vllm-project/guidellm src/guidellm/schemas/base/request_stats.py",
        "vllm-project/guidellm src/guidellm/schemas/base/statistics.py",
        "vllm-project/guidellm src/guidellm/benchmark/schemas/generative/metrics.py",
    ],
    differs: &[
        parts::FROM_START,
        "time_per_output_token_ms holds the first token and its wait; our tpot_ms is its inter_token_latency_ms",
        "both are weighted by tokens, so long answers count more; ours counts each request once",
        "a percentile is a value that occurred, without interpolation",
        "request_latency is in seconds, the times of tokens are in milliseconds",
        "rates are over the time from first start to last end, as where nothing is cut off for warm-up or cool-down; only their means are given here",
    ],
    counts: RequestRecord::is_completed,
    statistics: &[
        ("mean", Statistic::Mean),
        ("median", Statistic::Percentile(50.0)),
        ("std_dev", Statistic::Std),
        ("min", Statistic::Min),
        ("max", Statistic::Max),
        ("count", Statistic::Count),
        ("total_sum", Statistic::Sum),
        ("percentiles/p001", Statistic::Percentile(0.1)),
        ("percentiles/p01", Statistic::Percentile(1.0)),
        ("percentiles/p05", Statistic::Percentile(5.0)),
        ("percentiles/p10", Statistic::Percentile(10.0)),
        ("percentiles/p25", Statistic::Percentile(25.0)),
        ("percentiles/p50", Statistic::Percentile(50.0)),
        ("percentiles/p75", Statistic::Percentile(75.0)),
        ("percentiles/p90", Statistic::Percentile(90.0)),
        ("percentiles/p95", Statistic::Percentile(95.0)),
        ("percentiles/p99", Statistic::Percentile(99.0)),
        ("percentiles/p999", Statistic::Percentile(99.9)),
    ],
    summary: Summary::Weighted,
    says_unit: false,
    quantities: &[
        Quantity {
            key: "metrics/request_totals/successful",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "answers that ended",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "metrics/request_totals/errored",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "requests with an error",
            of: Of::Trial(parts::failed),
        },
        Quantity {
            key: "metrics/request_totals/incomplete",
            unit: REQUESTS,
            like: Like::Nothing,
            formula: "requests given up by the client",
            of: Of::Trial(given_up),
        },
        Quantity {
            key: "metrics/requests_per_second/successful/mean",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "ends / measured time",
            of: Of::Trial(parts::requests_per_s),
        },
        Quantity {
            key: "metrics/request_concurrency/successful/mean",
            unit: REQUESTS,
            like: Like::Near("concurrency_reached", "of requests that succeeded"),
            formula: "seconds in flight / measured time",
            of: Of::Trial(parts::mean_concurrency),
        },
        Quantity {
            key: "metrics/request_latency/successful/{}",
            unit: S,
            like: Like::Same("e2e_sent_ms"),
            formula: "end - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_end(r))),
        },
        Quantity {
            key: "metrics/prompt_token_count/successful/{}",
            unit: TOKENS,
            like: Like::Same("prompt_tokens"),
            formula: "usage.prompt_tokens",
            of: Of::Counted(|r, out| parts::push(out, r.prompt_tokens.map(f64::from))),
        },
        Quantity {
            key: "metrics/output_token_count/successful/{}",
            unit: TOKENS,
            like: Like::Same("output_tokens"),
            formula: "usage.completion_tokens, else chunks",
            of: Of::Counted(|r, out| parts::push(out, parts::output_tokens(r))),
        },
        Quantity {
            key: "metrics/time_to_first_token_ms/successful/{}",
            unit: MS,
            like: Like::Same("ttft_sent_ms"),
            formula: "first token - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "metrics/time_to_first_output_token_ms/successful/{}",
            unit: MS,
            like: Like::Near("ttfo_ms", "it begins when the request is sent, not when it is due"),
            formula: "first token that is no reasoning - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttfo(r))),
        },
        Quantity {
            key: "metrics/time_per_output_token_ms/successful/{}",
            unit: MS,
            like: Like::Near(
                "token_latency_ms",
                "it ends with the last token, and is weighted by tokens",
            ),
            formula: "(last token - start) / output tokens, weighted by output tokens",
            of: Of::Counted(per_token),
        },
        Quantity {
            key: "metrics/inter_token_latency_ms/successful/{}",
            unit: MS,
            like: Like::Near("tpot_ms", "weighted by tokens, so long answers count more"),
            formula: "(last token - first token) / (output tokens - 1), weighted by output tokens - 1",
            of: Of::Counted(per_later_token),
        },
        Quantity {
            key: "metrics/prompt_tokens_per_second/successful/mean",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "prompt tokens / measured time",
            of: Of::Trial(parts::input_per_s),
        },
        Quantity {
            key: "metrics/output_tokens_per_second/successful/mean",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "output tokens / measured time",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "metrics/tokens_per_second/successful/mean",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "prompt and output tokens / measured time",
            of: Of::Trial(parts::all_per_s),
        },
    ],
};

fn given_up(t: &Seen<'_>) -> Option<f64> {
    let outcomes = [Outcome::Cancelled, Outcome::Abandoned];
    Some(t.sent().filter(|r| outcomes.contains(&r.outcome)).count() as f64)
}

fn per_token(r: &RequestRecord, out: &mut Vec<Sample>) {
    let tokens = parts::output_tokens(r).filter(|n| *n > 0.0);
    let to_last = parts::to_last_token(r).or_else(|| parts::to_end(r));
    out.extend(to_last.zip(tokens).map(|(s, n)| Sample { value: s / n, weight: n }));
}

fn per_later_token(r: &RequestRecord, out: &mut Vec<Sample>) {
    let value = parts::per_later_token(r, parts::decoding(r));
    out.extend(
        value.zip(parts::output_tokens(r)).map(|(value, n)| Sample { value, weight: n - 1.0 }),
    );
}
