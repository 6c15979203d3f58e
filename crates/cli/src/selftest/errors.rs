//! What a reader said, held against what the server did.
//!
//! "Sent" is the instant at which the kernel had the whole request, "arrived" the instant at which the
//! server began to hand the token to the kernel; both are the server's to say. Where a reader's clocks
//! differ from these, that is its error. An error of a statistic is the reader's value minus the true
//! one (so it can be negative, and outliers can hide each other); the error of each request or gap is
//! kept beside it, where nothing hides.

use super::server::answer::Answer;
use super::trace::{Mark, Trace};
use scalebeam_model::stats::quantile::distribution;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How far a distribution is from the true one, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Off {
    /// Difference of the means.
    pub(crate) mean_ms: f64,
    /// Difference of the medians.
    pub(crate) p50_ms: f64,
    /// Difference of the 99th percentiles.
    pub(crate) p99_ms: f64,
    /// 99th percentile of the absolute errors, one by one.
    pub(crate) each_ms_p99: f64,
}

/// A distribution, shortened, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Median.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// The largest.
    pub(crate) max_ms: f64,
}

/// One run of one reader against the truth. What there is no value for is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// Requests that were planned.
    pub(crate) requests: u64,
    /// Of these, not read to their end, or never seen by the server.
    pub(crate) lost: u64,
    /// Whole for both sides, with another number of tokens than the server wrote.
    pub(crate) miscounted: u64,
    /// Tokens that the server wrote for the requests compared.
    pub(crate) tokens: u64,
    /// Arrivals (reads that brought tokens) in which they came.
    pub(crate) arrivals: u64,
    /// First token minus sent.
    pub(crate) ttft: Option<Off>,
    /// Gaps between tokens, all requests together; two in one read are no gap apart.
    pub(crate) itl: Option<Off>,
    /// End minus sent.
    pub(crate) e2e: Option<Off>,
    /// Stamp of a token minus the instant at which it was written.
    pub(crate) read_lag: Option<Spread>,
    /// The reader's "sent" minus the instant at which the kernel had the request.
    pub(crate) send_lag: Option<Spread>,
    /// In the server's kernel minus due.
    pub(crate) lateness: Option<Spread>,
    /// End minus due, as the server knows it and as the reader said it: what a queue costs the user.
    pub(crate) e2e_due_true: Option<Spread>,
    /// The same, by the reader.
    pub(crate) e2e_due_seen: Option<Spread>,
}

/// Holds `seen` against `truth`; `requests` were planned. Amounts of both are tokens.
pub(crate) fn compare(truth: &[Trace], seen: &[Trace], requests: u64) -> Errors {
    let by_index: HashMap<u64, &Trace> =
        truth.iter().filter(|t| t.is_whole).map(|t| (t.index, t)).collect();
    let mut pairs = Pairs::default();
    let mut whole = 0;
    for seen in seen.iter().filter(|t| t.is_whole) {
        let Some(truth) = by_index.get(&seen.index) else { continue };
        whole += 1;
        pairs.add(truth, seen);
    }
    let Pairs { ttft, itl, e2e, read_lag, send_lag, lateness, due_true, due_seen, .. } = pairs;
    Errors {
        requests,
        lost: requests.saturating_sub(whole),
        miscounted: pairs.miscounted,
        tokens: pairs.tokens,
        arrivals: pairs.arrivals,
        ttft: off(&ttft),
        itl: off(&itl),
        e2e: off(&e2e),
        read_lag: spread(read_lag),
        send_lag: spread(send_lag),
        lateness: spread(lateness),
        e2e_due_true: spread(due_true),
        e2e_due_seen: spread(due_seen),
    }
}

/// Seen and true values, side by side, in milliseconds.
#[derive(Default)]
struct Pairs {
    miscounted: u64,
    tokens: u64,
    arrivals: u64,
    ttft: Vec<(f64, f64)>,
    itl: Vec<(f64, f64)>,
    e2e: Vec<(f64, f64)>,
    read_lag: Vec<f64>,
    send_lag: Vec<f64>,
    lateness: Vec<f64>,
    due_true: Vec<f64>,
    due_seen: Vec<f64>,
}

impl Pairs {
    fn add(&mut self, truth: &Trace, seen: &Trace) {
        let written: Vec<Nanos> = one_by_one(&truth.marks);
        let arrived: Vec<Nanos> = one_by_one(&seen.marks);
        if written.len() != arrived.len() {
            self.miscounted += 1;
            return;
        }
        self.tokens += written.len() as u64;
        self.arrivals += seen.marks.iter().filter(|m| m.amount > 0).count() as u64;
        let (Some(received), Some(sent)) = (truth.sent_at, seen.sent_at) else { return };
        self.send_lag.push(sent.millis_after(received));
        if let (Some(first_written), Some(first_arrived)) = (written.first(), arrived.first()) {
            let truth = first_written.millis_after(received);
            self.ttft.push((first_arrived.millis_after(sent), truth));
        }
        self.e2e.push((seen.ended_at.millis_after(sent), truth.ended_at.millis_after(received)));
        self.read_lag.extend(arrived.iter().zip(&written).map(|(a, w)| a.millis_after(*w)));
        let gaps = arrived.windows(2).zip(written.windows(2));
        self.itl.extend(gaps.map(|(a, w)| (a[1].millis_after(a[0]), w[1].millis_after(w[0]))));
        if let Some(due) = seen.scheduled_at {
            self.lateness.push(received.millis_after(due));
            self.due_true.push(truth.ended_at.millis_after(due));
            self.due_seen.push(seen.ended_at.millis_after(due));
        }
    }
}

/// The instant of each token.
fn one_by_one(marks: &[Mark]) -> Vec<Nanos> {
    marks.iter().flat_map(|m| std::iter::repeat_n(m.at, m.amount as usize)).collect()
}

fn off(pairs: &[(f64, f64)]) -> Option<Off> {
    let seen = distribution(pairs.iter().map(|p| p.0).collect())?;
    let truth = distribution(pairs.iter().map(|p| p.1).collect())?;
    let each = distribution(pairs.iter().map(|p| (p.0 - p.1).abs()).collect())?;
    Some(Off {
        mean_ms: seen.mean - truth.mean,
        p50_ms: seen.p50 - truth.p50,
        p99_ms: seen.p99 - truth.p99,
        each_ms_p99: each.p99,
    })
}

fn spread(samples: Vec<f64>) -> Option<Spread> {
    let d = distribution(samples)?;
    Some(Spread { p50_ms: d.p50, p99_ms: d.p99, max_ms: d.max })
}

/// The raw reader's traces, whose amounts are bytes, with tokens in their place.
pub(crate) fn bytes_to_tokens(traces: &mut [Trace], answer: &Answer) {
    for trace in traces {
        let (mut bytes, mut tokens) = (0, 0);
        for mark in &mut trace.marks {
            bytes += u64::from(mark.amount);
            let now = answer.tokens_in(bytes);
            mark.amount = now - tokens;
            tokens = now;
        }
    }
}

/// The middle of the values that are there: of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    distribution(values.into_iter().flatten().collect()).map(|d| d.p50)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn trace(index: u64, sent: u64, marks: &[(u64, u32)], end: u64) -> Trace {
        let mark = |&(at, amount): &(u64, u32)| Mark { at: Nanos(at * MS), amount };
        Trace {
            index,
            scheduled_at: None,
            sent_at: Some(Nanos(sent * MS)),
            ended_at: Nanos(end * MS),
            is_whole: true,
            marks: marks.iter().map(mark).collect(),
        }
    }

    #[track_caller]
    fn near(value: f64, want: f64) {
        assert!((value - want).abs() < 1e-6, "{value} is not {want}");
    }

    #[test]
    fn the_truth_has_no_error() {
        let truth = [trace(0, 10, &[(60, 1), (70, 1), (80, 1)], 80), trace(1, 0, &[(5, 1)], 5)];
        let errors = compare(&truth, &truth, 2);
        assert_eq!((errors.requests, errors.lost, errors.miscounted), (2, 0, 0));
        assert_eq!((errors.tokens, errors.arrivals), (4, 4));
        for off in [errors.ttft, errors.itl, errors.e2e] {
            assert_eq!(off, Some(Off::default()));
        }
        assert_eq!(errors.lateness, None);
    }

    #[test]
    fn errors_have_the_sign_of_what_was_said_too_much() {
        let truth = [trace(0, 10, &[(60, 1), (70, 1), (80, 1)], 80)];
        // Sent stamped 2 early; first token 1 late, the two others merged at 83; end 4 late.
        let seen = [trace(0, 8, &[(61, 1), (83, 2)], 84)];
        let errors = compare(&truth, &seen, 1);
        near(errors.ttft.unwrap().mean_ms, 53.0 - 50.0);
        near(errors.e2e.unwrap().mean_ms, 76.0 - 70.0);
        near(errors.send_lag.unwrap().p50_ms, -2.0);
        near(errors.read_lag.unwrap().max_ms, 13.0);
        // Gaps seen: 22 and 0; true: 10 and 10.
        let itl = errors.itl.unwrap();
        near(itl.mean_ms, 1.0);
        near(itl.each_ms_p99, 10.0 + 0.99 * 2.0);
        assert_eq!((errors.tokens, errors.arrivals), (3, 2));
    }

    #[test]
    fn outliers_that_cancel_out_are_seen_one_by_one() {
        let truth: Vec<_> = (0..2).map(|i| trace(i, 0, &[(10 + 10 * i, 1)], 30)).collect();
        let seen: Vec<_> = (0..2).map(|i| trace(i, 0, &[(20 - 10 * i, 1)], 30)).collect();
        let ttft = compare(&truth, &seen, 2).ttft.unwrap();
        near(ttft.mean_ms, 0.0);
        near(ttft.p99_ms, 0.0);
        near(ttft.each_ms_p99, 10.0);
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_too_much_is_miscounted() {
        let mut cut = trace(1, 0, &[(5, 1)], 5);
        cut.is_whole = false;
        let truth =
            [trace(0, 0, &[(5, 1)], 5), trace(1, 0, &[(5, 1)], 5), trace(2, 0, &[(5, 1)], 5)];
        let seen = [trace(0, 0, &[(5, 2)], 5), cut, trace(9, 0, &[(5, 1)], 5)];
        let errors = compare(&truth, &seen, 4);
        assert_eq!((errors.lost, errors.miscounted, errors.tokens), (3, 1, 0));
        assert_eq!(errors.ttft, None, "nothing compared is no error of zero");
    }

    #[test]
    fn lateness_counts_from_the_schedule_to_the_servers_kernel() {
        let truth = [trace(0, 12, &[(20, 1)], 20)];
        let mut seen = trace(0, 11, &[(20, 1)], 21);
        seen.scheduled_at = Some(Nanos(10 * MS));
        let errors = compare(&truth, &[seen], 1);
        near(errors.lateness.unwrap().p50_ms, 2.0);
        near(errors.e2e_due_true.unwrap().p50_ms, 10.0);
        near(errors.e2e_due_seen.unwrap().p50_ms, 11.0);
    }

    #[test]
    fn bytes_become_tokens_where_their_last_byte_came() {
        use super::super::server::answer::Piece;
        let answer = Answer::new(3, false);
        let len = |n| u32::try_from(answer.bytes(Piece::Token(n)).len()).unwrap();
        let marks = [(1, len(0) - 1), (2, 1), (3, 0), (4, len(1) + len(2))];
        let mut traces = [trace(0, 0, &marks, 4)];
        bytes_to_tokens(&mut traces, &answer);
        let tokens: Vec<u32> = traces[0].marks.iter().map(|m| m.amount).collect();
        assert_eq!(tokens, [0, 1, 0, 2]);
    }

    #[test]
    fn a_median_is_of_what_is_there() {
        assert_eq!(median([Some(3.0), None, Some(1.0), Some(2.0)]), Some(2.0));
        assert_eq!(median([None]), None);
    }
}
