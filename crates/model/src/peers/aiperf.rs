//! `aiperf profile`.

use super::parts::{self, MS, REQUESTS, REQUESTS_PER_S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary, Unit, unit};
use crate::request::RequestRecord;

const SEC: Unit = unit("sec", 1.0);
pub(super) const PER_USER: Unit = unit("tokens/sec/user", 1.0);

/// What AIPerf and its predecessor print of a distribution.
pub(super) const STATISTICS: &[(&str, Statistic)] = &[
    ("avg", Statistic::Mean),
    ("min", Statistic::Min),
    ("max", Statistic::Max),
    ("p1", Statistic::Percentile(1.0)),
    ("p5", Statistic::Percentile(5.0)),
    ("p10", Statistic::Percentile(10.0)),
    ("p25", Statistic::Percentile(25.0)),
    ("p50", Statistic::Percentile(50.0)),
    ("p75", Statistic::Percentile(75.0)),
    ("p90", Statistic::Percentile(90.0)),
    ("p95", Statistic::Percentile(95.0)),
    ("p99", Statistic::Percentile(99.0)),
    ("std", Statistic::Std),
    ("count", Statistic::Count),
    ("sum", Statistic::Sum),
];

/// As `ai-dynamo/aiperf` computes them, one module a metric below `src/aiperf/metrics/types`.
pub(super) const PEER: Peer = Peer {
    name: "aiperf",
    tool: "aiperf profile",
    sources: &[
        "ai-dynamo/aiperf src/aiperf/metrics/types/request_latency_metric.py",
        "ai-dynamo/aiperf src/aiperf/metrics/types/inter_token_latency_metric.py",
        "ai-dynamo/aiperf src/aiperf/metrics/types/inter_chunk_latency_metric.py",
        "ai-dynamo/aiperf src/aiperf/metrics/types/max_response_metric.py",
        "ai-dynamo/aiperf src/aiperf/metrics/metric_dicts.py",
        "ai-dynamo/aiperf src/aiperf/metrics/accumulator.py",
    ],
    differs: &[
        parts::FROM_START,
        "request_latency ends with the last chunk that has content, not with the stream",
        "inter_token_latency is one value a request, our tpot_ms; our itl_ms is its inter_chunk_latency but for chunks of one read, which are 0 apart there",
        "rates are over the whole profiling phase (0.13; over benchmark_duration before), which also holds what was not spent on a request; here it ends with the last stream",
        "sequence lengths are re-tokenised text unless --use-server-token-count is given; these are the server's usage",
    ],
    counts: RequestRecord::is_completed,
    statistics: STATISTICS,
    summary: Summary::Numpy,
    says_unit: true,
    quantities: &[
        Quantity {
            key: "request_latency/{}",
            unit: MS,
            like: Like::Near("e2e_sent_ms", "it ends with the last token, not with the stream"),
            formula: "last chunk with content - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_last_token(r))),
        },
        Quantity {
            key: "time_to_first_token/{}",
            unit: MS,
            like: Like::Same("ttft_sent_ms"),
            formula: "first chunk with content - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "time_to_first_output_token/{}",
            unit: MS,
            like: Like::Near("ttfo_ms", "it begins when the request is sent, not when it is due"),
            formula: "first chunk with content that is no reasoning - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttfo(r))),
        },
        Quantity {
            key: "time_to_second_token/{}",
            unit: MS,
            like: Like::Same("ttst_ms"),
            formula: "second chunk with content - first",
            of: Of::Counted(second_chunk),
        },
        Quantity {
            key: "inter_token_latency/{}",
            unit: MS,
            like: Like::Same("tpot_ms"),
            formula: "(request_latency - time_to_first_token) / (output_sequence_length - 1)",
            of: Of::Counted(|r, out| parts::push(out, itl(r))),
        },
        Quantity {
            key: "inter_chunk_latency/{}",
            unit: MS,
            like: Like::Near("itl_ms", "chunks of one read are 0 apart"),
            formula: "gaps between chunks with content, all requests pooled",
            of: Of::Counted(parts::chunk_gaps),
        },
        Quantity {
            key: "output_token_throughput_per_user/{}",
            unit: PER_USER,
            like: Like::Same("interactivity_tps"),
            formula: "1 / inter_token_latency",
            of: Of::Counted(|r, out| parts::push(out, itl(r).map(|itl| 1.0 / itl))),
        },
        Quantity {
            key: "prefill_throughput_per_user/{}",
            unit: PER_USER,
            like: Like::Near(
                "prefill_tps",
                "it begins when the request is sent, not when it is due",
            ),
            formula: "input_sequence_length / time_to_first_token",
            of: Of::Counted(prefill),
        },
        Quantity {
            key: "output_sequence_length/{}",
            unit: TOKENS,
            like: Like::Near(
                "output_tokens",
                "text tokenised by the tool, unless it was told to ask the server",
            ),
            formula: "output tokens, reasoning included",
            of: Of::Counted(|r, out| parts::push(out, parts::output_tokens(r))),
        },
        Quantity {
            key: "reasoning_token_count/{}",
            unit: TOKENS,
            like: Like::Same("reasoning_tokens"),
            formula: "reasoning tokens",
            of: Of::Counted(|r, out| parts::push(out, r.reasoning_tokens.map(f64::from))),
        },
        Quantity {
            key: "input_sequence_length/{}",
            unit: TOKENS,
            like: Like::Near("prompt_tokens", "text tokenised by the tool, without the template"),
            formula: "prompt tokens",
            of: Of::Counted(|r, out| parts::push(out, r.prompt_tokens.map(f64::from))),
        },
        Quantity {
            key: "request_throughput/avg",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "request_count / the profiling phase",
            of: Of::Trial(parts::requests_per_s),
        },
        Quantity {
            key: "output_token_throughput/avg",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "sum of output_sequence_length / the profiling phase",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "total_token_throughput/avg",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "sum of both sequence lengths / the profiling phase",
            of: Of::Trial(parts::all_per_s),
        },
        Quantity {
            key: "request_count/avg",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests without an error",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "error_request_count/avg",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "requests with one",
            of: Of::Trial(parts::failed),
        },
        Quantity {
            key: "benchmark_duration/avg",
            unit: SEC,
            like: Like::Same("wall_s"),
            formula: "first start to the last chunk with content of any request",
            of: Of::Trial(parts::to_last_content),
        },
    ],
};

fn itl(r: &RequestRecord) -> Option<f64> {
    parts::per_later_token(r, parts::decoding(r))
}

fn second_chunk(r: &RequestRecord, out: &mut Vec<Sample>) {
    let mut gaps = Vec::new();
    parts::chunk_gaps(r, &mut gaps);
    out.extend(gaps.first());
}

fn prefill(r: &RequestRecord, out: &mut Vec<Sample>) {
    let ttft = parts::ttft(r).filter(|t| *t > 0.0);
    parts::push(out, r.prompt_tokens.zip(ttft).map(|(n, ttft)| f64::from(n) / ttft));
}
