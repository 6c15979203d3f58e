//! `vllm bench serve`, and its drop-in in Rust.

use super::parts::{self, MS, REQUESTS, REQUESTS_PER_S, S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Seen, Statistic, Summary};
use crate::request::RequestRecord;
use crate::units::Nanos;

/// As `vllm-project/vllm` computes them in `calculate_metrics`, from instants that
/// `async_request_openai_completions` and `async_request_openai_chat_completions` take.
pub(super) const PEER: Peer = Peer {
    name: "vllm",
    tool: "vllm bench serve",
    sources: &[
        "vllm-project/vllm vllm/benchmarks/serve.py",
        "vllm-project/vllm vllm/benchmarks/lib/endpoint_request_func.py",
    ],
    differs: &[
        parts::FROM_START,
        "a chat answer's first chunk counts as its first token also where it holds a role only: its ttft may be lower than this one, and its itl has a gap more",
        "an empty chunk with the finish reason counts as a token of its own: its e2el, tpot and itl may reach a little further than these",
        "itl pools gaps between chunks, chunks of one read being 0 apart; ours has one gap an arrival",
        "duration holds ramp and drain",
        "max_output_tokens_per_s counts chunks in whole seconds, so several tokens a chunk count as one",
    ],
    counts: RequestRecord::is_completed,
    statistics: &[
        ("mean", Statistic::Mean),
        ("median", Statistic::Percentile(50.0)),
        ("std", Statistic::Std),
        ("p50", Statistic::Percentile(50.0)),
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
            formula: "requests with a token",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "failed",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "all others",
            of: Of::Trial(parts::failed),
        },
        Quantity {
            key: "total_input_tokens",
            unit: TOKENS,
            like: Like::Nothing,
            formula: "sum of usage.prompt_tokens",
            of: Of::Trial(parts::input),
        },
        Quantity {
            key: "total_output_tokens",
            unit: TOKENS,
            like: Like::Nothing,
            formula: "sum of usage.completion_tokens, else re-tokenised text",
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
            key: "output_throughput",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "total_output_tokens / duration",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "total_token_throughput",
            unit: TOKENS_PER_S,
            like: Like::Same("total_tps"),
            formula: "(total_input_tokens + total_output_tokens) / duration",
            of: Of::Trial(parts::all_per_s),
        },
        Quantity {
            key: "max_output_tokens_per_s",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "most chunks in one whole second from the first start",
            of: Of::Trial(busiest_second),
        },
        Quantity {
            key: "max_concurrent_requests",
            unit: REQUESTS,
            like: Like::Nothing,
            formula: "most completed requests between start and last token at once",
            of: Of::Trial(peak),
        },
        Quantity {
            key: "{}_ttft_ms",
            unit: MS,
            like: Like::Same("ttft_sent_ms"),
            formula: "first chunk - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "{}_tpot_ms",
            unit: MS,
            like: Like::Same("tpot_ms"),
            formula: "(last chunk - first chunk) / (output tokens - 1), of requests with two at least",
            of: Of::Counted(|r, out| {
                parts::push(out, parts::per_later_token(r, parts::decoding(r)))
            }),
        },
        Quantity {
            key: "{}_itl_ms",
            unit: MS,
            like: Like::Near(
                "itl_ms",
                "chunks of one read are 0 apart, and a role chunk adds a gap",
            ),
            formula: "gaps between chunks, all requests pooled",
            of: Of::Counted(parts::chunk_gaps),
        },
        Quantity {
            key: "{}_e2el_ms",
            unit: MS,
            like: Like::Near("e2e_sent_ms", "it ends with the last token, not with the stream"),
            formula: "last chunk - start",
            of: Of::Counted(|r, out: &mut Vec<Sample>| parts::push(out, parts::to_last_token(r))),
        },
    ],
};

fn busiest_second(t: &Seen<'_>) -> Option<f64> {
    let from = t.counted().filter_map(parts::begun).min()?;
    let mut seconds: std::collections::BTreeMap<u64, u64> = Default::default();
    for arrival in t.counted().flat_map(|r| &r.arrivals) {
        let second = (arrival.at - from).0 / Nanos::from_secs(1).0;
        *seconds.entry(second).or_default() += u64::from(arrival.chunks);
    }
    seconds.into_values().max().map(|n| n as f64)
}

/// Who leaves at an instant leaves before the next one comes.
fn peak(t: &Seen<'_>) -> Option<f64> {
    let mut edges: Vec<(Nanos, i64)> = t
        .counted()
        .filter_map(|r| Some([(parts::begun(r)?, 1), (r.last_token_at?, -1)]))
        .flatten()
        .collect();
    edges.sort_unstable();
    let mut level = 0;
    let levels = edges.into_iter().map(|(_, change)| {
        level += change;
        level
    });
    levels.max().map(|n| n as f64)
}
