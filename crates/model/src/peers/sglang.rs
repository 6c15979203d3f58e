//! `python -m sglang.bench_serving`.

use super::parts::{self, MS, REQUESTS, REQUESTS_PER_S, S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary};
use crate::request::RequestRecord;

/// As `sgl-project/sglang` computes them in `do_calculate_metrics`.
pub(super) const PEER: Peer = Peer {
    name: "sglang",
    tool: "python -m sglang.bench_serving",
    sources: &[
        "sgl-project/sglang python/sglang/benchmark/metrics.py",
        "sgl-project/sglang python/sglang/benchmark/backends/oai_client.py",
    ],
    differs: &[
        parts::FROM_START,
        "e2e_latency and tpot reach to the end of the stream ([DONE]), not to the last token",
        "each request opens a connection of its own, which is in its ttft; here only where one was opened",
        "itl pools gaps between chunks, chunks of one read being 0 apart; with speculative decoding a chunk is a step",
        "duration holds ramp and drain",
        "the _retokenized keys need the text of the answers, which no record holds",
    ],
    counts: RequestRecord::is_completed,
    statistics: &[
        ("mean", Statistic::Mean),
        ("median", Statistic::Percentile(50.0)),
        ("std", Statistic::Std),
        ("p90", Statistic::Percentile(90.0)),
        ("p95", Statistic::Percentile(95.0)),
        ("p99", Statistic::Percentile(99.0)),
    ],
    summary: Summary::Numpy,
    says_unit: false,
    quantities: &[
        Quantity {
            key: "duration",
            unit: S,
            like: Like::Same("wall_s"),
            formula: "first start to last end",
            of: Of::Trial(parts::whole),
        },
        Quantity {
            key: "completed",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests without an error",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "total_input_tokens",
            unit: TOKENS,
            like: Like::Nothing,
            formula: "sum of prompt lengths",
            of: Of::Trial(parts::input),
        },
        Quantity {
            key: "total_output_tokens",
            unit: TOKENS,
            like: Like::Nothing,
            formula: "sum of usage.completion_tokens, else of what was asked",
            of: Of::Trial(parts::output),
        },
        Quantity {
            key: "request_throughput",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "completed / duration",
            of: Of::Trial(parts::requests_per_s),
        },
        Quantity {
            key: "input_throughput",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "total_input_tokens / duration",
            of: Of::Trial(parts::input_per_s),
        },
        Quantity {
            key: "output_throughput",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "total_output_tokens / duration",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "total_throughput",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "(total_input_tokens + total_output_tokens) / duration",
            of: Of::Trial(parts::all_per_s),
        },
        Quantity {
            key: "{}_e2e_latency_ms",
            unit: MS,
            like: Like::Same("e2e_sent_ms"),
            formula: "end of stream - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_end(r))),
        },
        Quantity {
            key: "{}_ttft_ms",
            unit: MS,
            like: Like::Same("ttft_sent_ms"),
            formula: "first chunk with text - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "{}_tpot_ms",
            unit: MS,
            like: Like::Near("tpot_ms", "it reaches to the end of the stream"),
            formula: "(e2e_latency - ttft) / (output tokens - 1), of requests with two at least",
            of: Of::Counted(tpot),
        },
        Quantity {
            key: "{}_itl_ms",
            unit: MS,
            like: Like::Near("itl_ms", "chunks of one read are 0 apart"),
            formula: "gaps between chunks with text, all requests pooled",
            of: Of::Counted(parts::chunk_gaps),
        },
        Quantity {
            key: "max_itl_ms",
            unit: MS,
            like: Like::Nothing,
            formula: "the longest such gap",
            of: Of::Trial(|t| {
                let mut gaps = Vec::new();
                t.counted().for_each(|r| parts::chunk_gaps(r, &mut gaps));
                gaps.iter().map(|g| g.value).reduce(f64::max)
            }),
        },
        Quantity {
            key: "concurrency",
            unit: REQUESTS,
            like: Like::Same("concurrency_reached"),
            formula: "sum of e2e_latency / duration",
            of: Of::Trial(parts::mean_concurrency),
        },
    ],
};

fn tpot(r: &RequestRecord, out: &mut Vec<Sample>) {
    let span = parts::to_end(r).zip(parts::ttft(r)).map(|(end, ttft)| end - ttft);
    parts::push(out, parts::per_later_token(r, span));
}
