//! `genai-perf profile`, the predecessor of AIPerf.

use super::aiperf::{PER_USER, STATISTICS};
use super::parts::{self, MS, REQUESTS, REQUESTS_PER_S, TOKENS, TOKENS_PER_S};
use super::{Like, Of, Peer, Quantity, Sample, Statistic, Summary};
use crate::request::RequestRecord;

/// As `triton-inference-server/perf_analyzer` computes them in `LLMProfileDataParser._parse_requests`.
pub(super) const PEER: Peer = Peer {
    name: "genai-perf",
    tool: "genai-perf profile",
    sources: &[
        "triton-inference-server/perf_analyzer genai-perf/genai_perf/profile_data_parser/llm_profile_data_parser.py",
        "triton-inference-server/perf_analyzer genai-perf/genai_perf/metrics/statistics.py",
    ],
    differs: &[
        parts::FROM_START,
        "request_latency ends with the last response that has content, not with the stream",
        "inter_token_latency is one value a request, our tpot_ms, rounded to whole nanoseconds",
        "chunks of one read are one response, as they are one arrival of ours",
        "sequence lengths are re-tokenised text; these are the server's usage",
    ],
    counts: has_content,
    statistics: DISTRIBUTION,
    summary: Summary::Numpy,
    says_unit: true,
    // In the order of its tables and of its CSV file.
    quantities: &[
        Quantity {
            key: "time_to_first_token/{}",
            unit: MS,
            like: Like::Same("ttft_sent_ms"),
            formula: "first response with content - start",
            of: Of::Counted(|r, out| parts::push(out, parts::ttft(r))),
        },
        Quantity {
            key: "time_to_second_token/{}",
            unit: MS,
            like: Like::Same("ttst_ms"),
            formula: "second response - first",
            of: Of::Counted(second_response),
        },
        Quantity {
            key: "request_latency/{}",
            unit: MS,
            like: Like::Near("e2e_sent_ms", "it ends with the last token, not with the stream"),
            formula: "last response - start",
            of: Of::Counted(|r, out| parts::push(out, parts::to_last_token(r))),
        },
        Quantity {
            key: "inter_token_latency/{}",
            unit: MS,
            like: Like::Same("tpot_ms"),
            formula: "(request_latency - time_to_first_token) / (output_sequence_length - 1)",
            of: Of::Counted(|r, out| parts::push(out, itl(r))),
        },
        Quantity {
            key: "output_token_throughput_per_user/{}",
            unit: PER_USER,
            like: Like::Same("interactivity_tps"),
            formula: "1 / inter_token_latency",
            of: Of::Counted(|r, out| parts::push(out, itl(r).map(|itl| 1.0 / itl))),
        },
        Quantity {
            key: "output_token_throughput_per_request/{}",
            unit: TOKENS_PER_S,
            like: Like::Near(
                "output_tps_per_user",
                "the mean of each request's own output tokens / its latency",
            ),
            formula: "output_sequence_length / request_latency, as versions of early 2025 had it",
            of: Of::Counted(per_request),
        },
        Quantity {
            key: "output_sequence_length/{}",
            unit: TOKENS,
            like: Like::Near("output_tokens", "text tokenised by the tool"),
            formula: "output tokens",
            of: Of::Counted(|r, out| parts::push(out, parts::output_tokens(r))),
        },
        Quantity {
            key: "input_sequence_length/{}",
            unit: TOKENS,
            like: Like::Near("prompt_tokens", "text tokenised by the tool, without the template"),
            formula: "prompt tokens",
            of: Of::Counted(|r, out| parts::push(out, r.prompt_tokens.map(f64::from))),
        },
        Quantity {
            key: "output_token_throughput/avg",
            unit: TOKENS_PER_S,
            like: Like::Same("output_tps"),
            formula: "sum of output_sequence_length / (first start to last response)",
            of: Of::Trial(|t| Some(parts::output(t)? / parts::to_last_content(t)?)),
        },
        Quantity {
            key: "request_throughput/avg",
            unit: REQUESTS_PER_S,
            like: Like::Same("rps"),
            formula: "requests / (first start to last response)",
            of: Of::Trial(|t| Some(parts::count(t)? / parts::to_last_content(t)?)),
        },
        Quantity {
            key: "request_count/avg",
            unit: REQUESTS,
            like: Like::Completed,
            formula: "requests with content",
            of: Of::Trial(parts::count),
        },
    ],
};

/// AIPerf's without the last two, which are new there.
const DISTRIBUTION: &[(&str, Statistic)] = STATISTICS.split_at(STATISTICS.len() - 2).0;

/// An answer without content is skipped.
fn has_content(r: &RequestRecord) -> bool {
    r.is_completed() && r.first_token_at.is_some()
}

fn itl(r: &RequestRecord) -> Option<f64> {
    parts::per_later_token(r, parts::decoding(r)).map(|s| (s * 1e9).round() / 1e9)
}

fn per_request(r: &RequestRecord, out: &mut Vec<Sample>) {
    let latency = parts::to_last_token(r).filter(|s| *s > 0.0);
    parts::push(out, parts::output_tokens(r).zip(latency).map(|(tokens, s)| tokens / s));
}

fn second_response(r: &RequestRecord, out: &mut Vec<Sample>) {
    if let [first, second, ..] = r.arrivals.as_slice() {
        out.push(Sample::one(second.at.millis_after(first.at) / 1e3));
    }
}
