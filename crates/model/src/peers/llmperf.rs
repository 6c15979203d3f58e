//! `token_benchmark_ray.py` of LLMPerf.

use super::parts::{self, REQUESTS, S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary, unit};
use crate::request::RequestRecord;

/// As `ray-project/llmperf` computes them in `metrics_summary`, from what `OpenAIChatCompletionsClient`
/// notes.
pub(super) const PEER: Peer = Peer {
    name: "llmperf",
    tool: "token_benchmark_ray.py",
    sources: &[
        "ray-project/llmperf token_benchmark_ray.py",
        "ray-project/llmperf src/llmperf/ray_clients/openai_chat_completions_client.py",
    ],
    differs: &[
        parts::FROM_START,
        "every time is in seconds",
        "inter_token_latency_s holds the time to the first token: it is about (last token - start) / tokens, once a request",
        "output tokens are counted by one tokenizer for every model; these are the server's usage",
        "a request of more than 180 s is an error there",
    ],
    counts: RequestRecord::is_completed,
    statistics: &[
        ("quantiles_p25", Statistic::Percentile(25.0)),
        ("quantiles_p50", Statistic::Percentile(50.0)),
        ("quantiles_p75", Statistic::Percentile(75.0)),
        ("quantiles_p90", Statistic::Percentile(90.0)),
        ("quantiles_p95", Statistic::Percentile(95.0)),
        ("quantiles_p99", Statistic::Percentile(99.0)),
        ("mean", Statistic::Mean),
        ("min", Statistic::Min),
        ("max", Statistic::Max),
        ("stddev", Statistic::Std),
    ],
    summary: Summary::Pandas,
    says_unit: false,
    quantities: &[
        Quantity {
            key: "results_inter_token_latency_s_{}",
            unit: S,
            like: Like::Near(
                "token_latency_ms",
                "the sum of the gaps with the time to first token in it, over all tokens",
            ),
            formula: "(time to first token + gaps between chunks) / output tokens",
            of: Of::Counted(itl),
        },
        Quantity {
            key: "results_ttft_s_{}",
            unit: S,
            like: Like::Same("ttft_sent_ms"),
            formula: "first chunk with content - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "results_end_to_end_latency_s_{}",
            unit: S,
            like: Like::Same("e2e_sent_ms"),
            formula: "end of stream - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_end(r))),
        },
        Quantity {
            key: "results_request_output_throughput_token_per_s_{}",
            unit: TOKENS_PER_S,
            like: Like::Nothing,
            formula: "output tokens / end_to_end_latency",
            of: Of::Counted(throughput),
        },
        Quantity {
            key: "results_number_input_tokens_{}",
            unit: TOKENS,
            like: Like::Near("prompt_tokens", "by a Llama tokenizer, whatever the model"),
            formula: "prompt tokens",
            of: Of::Counted(|r, out| parts::push(out, r.prompt_tokens.map(f64::from))),
        },
        Quantity {
            key: "results_number_output_tokens_{}",
            unit: TOKENS,
            like: Like::Near("output_tokens", "by a Llama tokenizer, whatever the model"),
            formula: "output tokens",
            of: Of::Counted(|r, out| parts::push(out, parts::output_tokens(r))),
        },
        Quantity {
            key: "results_num_requests_started",
            unit: REQUESTS,
            like: Like::Same("requests"),
            formula: "requests that ended",
            of: Of::Trial(|t| Some(parts::count(t)? + parts::failed(t)?)),
        },
        Quantity {
            key: "results_error_rate",
            unit: unit("ratio", 1.0),
            like: Like::Nothing,
            formula: "errors / requests that ended",
            of: Of::Trial(|t| {
                let all = parts::count(t)? + parts::failed(t)?;
                (all > 0.0).then_some(parts::failed(t)? / all)
            }),
        },
        Quantity {
            key: "results_number_errors",
            unit: REQUESTS,
            like: Like::Failed,
            formula: "requests with an error",
            of: Of::Trial(parts::failed),
        },
        Quantity {
            key: "results_mean_output_throughput_token_per_s",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "sum of output tokens / (first start to last end)",
            of: Of::Trial(parts::output_per_s),
        },
        Quantity {
            key: "results_num_completed_requests",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests without an error",
            of: Of::Trial(parts::count),
        },
        Quantity {
            key: "results_num_completed_requests_per_min",
            unit: unit("requests/min", 60.0),
            like: Like::Same("rps"),
            formula: "completed / minutes",
            of: Of::Trial(parts::requests_per_s),
        },
    ],
};

/// Its gaps and its time to first token add up to the last chunk.
fn itl(r: &RequestRecord, out: &mut Vec<Sample>) {
    let tokens = parts::output_tokens(r).filter(|n| *n > 0.0);
    parts::push(out, parts::to_last_token(r).zip(tokens).map(|(s, n)| s / n));
}

fn throughput(r: &RequestRecord, out: &mut Vec<Sample>) {
    let end = parts::to_end(r).filter(|s| *s > 0.0);
    parts::push(out, parts::output_tokens(r).zip(end).map(|(n, s)| n / s));
}
