//! What several tools mean alike. Times are in seconds.

use super::{Sample, Seen, Unit, unit};
use crate::request::{Outcome, RequestRecord};
use crate::units::Nanos;

pub(super) const MS: Unit = unit("ms", 1e3);
pub(super) const S: Unit = unit("s", 1.0);
pub(super) const TOKENS: Unit = unit("tokens", 1.0);
pub(super) const TOKENS_PER_S: Unit = unit("tokens/sec", 1.0);
pub(super) const REQUESTS: Unit = unit("requests", 1.0);
pub(super) const REQUESTS_PER_S: Unit = unit("requests/sec", 1.0);

/// Why every tool's latencies lie a little above ours from `sent_at`.
pub(super) const FROM_START: &str = "latencies begin when the client starts to send, so connecting counts and waiting for a slot or a due time does not; ours begin at scheduled_at";

/// When a tool's own clock starts. Opening a connection is inside it; our record holds it apart.
pub(super) fn begun(r: &RequestRecord) -> Option<Nanos> {
    r.sent_at.map(|at| at - r.connect.unwrap_or(Nanos::ZERO))
}

fn from_start(r: &RequestRecord, to: Option<Nanos>) -> Option<f64> {
    to.zip(begun(r)).map(|(to, from)| to.millis_after(from) / 1e3)
}

pub(super) fn ttft(r: &RequestRecord) -> Option<f64> {
    from_start(r, r.first_token_at)
}

/// To the first chunk that is no reasoning.
pub(super) fn ttfo(r: &RequestRecord) -> Option<f64> {
    from_start(r, r.first_answer_at)
}

/// To the last chunk with output.
pub(super) fn to_last_token(r: &RequestRecord) -> Option<f64> {
    from_start(r, r.last_token_at)
}

/// To the end of the stream, or to when it was known to have failed.
pub(super) fn to_end(r: &RequestRecord) -> Option<f64> {
    from_start(r, Some(r.finished_at))
}

/// From the first to the last chunk with output.
pub(super) fn decoding(r: &RequestRecord) -> Option<f64> {
    Some(r.last_token_at?.millis_after(r.first_token_at?) / 1e3)
}

pub(super) fn output_tokens(r: &RequestRecord) -> Option<f64> {
    r.output_tokens.map(f64::from)
}

/// `span / (tokens - 1)` where there are two tokens at least.
pub(super) fn per_later_token(r: &RequestRecord, span: Option<f64>) -> Option<f64> {
    let tokens = output_tokens(r)?;
    (tokens > 1.0).then_some(span? / (tokens - 1.0))
}

pub(super) fn push(out: &mut Vec<Sample>, value: Option<f64>) {
    out.extend(value.map(Sample::one));
}

/// Gaps between chunks. Those of one read cannot be told apart in time, and are 0 for every client.
pub(super) fn chunk_gaps(r: &RequestRecord, out: &mut Vec<Sample>) {
    let mut before: Option<Nanos> = None;
    for arrival in &r.arrivals {
        push(out, before.map(|b| arrival.at.millis_after(b) / 1e3));
        out.extend((1..arrival.chunks).map(|_| Sample::one(0.0)));
        before = Some(arrival.at);
    }
}

pub(super) fn count(t: &Seen<'_>) -> Option<f64> {
    Some(t.counted().count() as f64)
}

/// Requests that went wrong, those apart that never left.
pub(super) fn failed(t: &Seen<'_>) -> Option<f64> {
    let is_failed = |r: &&RequestRecord| {
        r.outcome.is_loss() && !matches!(r.outcome, Outcome::Dropped | Outcome::Cancelled)
    };
    Some(t.records.iter().filter(is_failed).count() as f64)
}

pub(super) fn input(t: &Seen<'_>) -> Option<f64> {
    t.total(|r| r.prompt_tokens)
}

pub(super) fn output(t: &Seen<'_>) -> Option<f64> {
    t.total(|r| r.output_tokens)
}

pub(super) fn input_and_output(t: &Seen<'_>) -> Option<f64> {
    Some(input(t)? + output(t)?)
}

/// From the first request's start to the last end of any.
pub(super) fn whole(t: &Seen<'_>) -> Option<f64> {
    t.seconds_to(t.sent().map(|r| r.finished_at))
}

/// From the first request's start to the last chunk with output.
pub(super) fn to_last_content(t: &Seen<'_>) -> Option<f64> {
    t.seconds_to(t.counted().filter_map(|r| r.last_token_at))
}

pub(super) fn requests_per_s(t: &Seen<'_>) -> Option<f64> {
    Some(count(t)? / whole(t)?)
}

pub(super) fn input_per_s(t: &Seen<'_>) -> Option<f64> {
    Some(input(t)? / whole(t)?)
}

pub(super) fn output_per_s(t: &Seen<'_>) -> Option<f64> {
    Some(output(t)? / whole(t)?)
}

pub(super) fn all_per_s(t: &Seen<'_>) -> Option<f64> {
    Some(input_and_output(t)? / whole(t)?)
}

/// Seconds in flight of the requests that count / all seconds.
pub(super) fn mean_concurrency(t: &Seen<'_>) -> Option<f64> {
    let seconds: Option<f64> = t.counted().map(to_end).sum();
    Some(seconds? / whole(t)?)
}
