//! What a trial did over time: in flight, sent, ended and tokens, in buckets of equal width.
//!
//! **Invariant:** there are at most [`MAX_BUCKETS`] of them, however long the trial was and however many
//! requests it had.

use crate::request::RequestRecord;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// More would say nothing more on a chart.
pub const MAX_BUCKETS: u64 = 100;

/// Shorter buckets hold single events and not a rate.
const SHORTEST: Nanos = Nanos::from_millis(10);

/// A trial over time, counted from its first send. The lists have one value a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Timeline {
    /// Width of a bucket in seconds; the last one ends with the trial.
    pub bucket_s: f64,
    /// First send to last byte, in seconds.
    pub wall_s: f64,
    /// Requests in flight, averaged over the bucket.
    pub in_flight: Vec<f64>,
    /// Requests that were sent in it.
    pub sent: Vec<u64>,
    /// Requests whose answer became whole in it.
    pub completed: Vec<u64>,
    /// Requests that were lost in it.
    pub failed: Vec<u64>,
    /// Output tokens of completed requests that arrived in it, each request's tokens shared out over its
    /// chunks; absent where one of these requests has no count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Vec<f64>>,
}

/// A bucket of a [`Timeline`], as rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Its begin, in seconds from the first send.
    pub from_s: f64,
    /// Its width in seconds.
    pub width_s: f64,
    /// Requests in flight, averaged over it.
    pub in_flight: f64,
    /// Requests sent per second.
    pub sent_rps: f64,
    /// Requests completed per second.
    pub completed_rps: f64,
    /// Requests lost per second.
    pub failed_rps: f64,
    /// Output tokens per second.
    pub output_tps: Option<f64>,
}

/// The buckets of a trial.
struct Buckets {
    from: Nanos,
    to: Nanos,
    width: Nanos,
    count: usize,
}

impl Buckets {
    fn of(records: &[RequestRecord]) -> Option<Self> {
        let sent = || records.iter().filter_map(|r| Some((r.sent_at?, r.finished_at)));
        let from = sent().map(|(at, _)| at).min()?;
        let to = sent().map(|(_, at)| at).max()?;
        let wall = to - from;
        if wall == Nanos::ZERO {
            return None;
        }
        let width = round_up(Nanos(wall.0.div_ceil(MAX_BUCKETS)).max(SHORTEST));
        let count = usize::try_from(wall.0.div_ceil(width.0)).ok()?;
        Some(Self { from, to, width, count })
    }

    /// The bucket of an instant; those outside belong to the nearest.
    fn at(&self, instant: Nanos) -> usize {
        let place = (instant - self.from).0 / self.width.0;
        usize::try_from(place).unwrap_or(usize::MAX).min(self.count - 1)
    }

    fn ends(&self, bucket: usize) -> (Nanos, Nanos) {
        let begin = self.from + Nanos(self.width.0 * bucket as u64);
        (begin, (begin + self.width).min(self.to))
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(width: Nanos) -> Nanos {
    let mut unit = 1u64;
    loop {
        for step in [1, 2, 5] {
            let candidate = unit.saturating_mul(step);
            if candidate >= width.0 {
                return Nanos(candidate);
            }
        }
        unit = unit.saturating_mul(10);
    }
}

impl Timeline {
    /// Absent where nothing was sent.
    pub fn of(records: &[RequestRecord]) -> Option<Self> {
        let buckets = Buckets::of(records)?;
        let none = || vec![0u64; buckets.count];
        let (mut sent, mut completed, mut failed) = (none(), none(), none());
        let mut seconds = vec![0.0; buckets.count];
        for r in records {
            let Some(sent_at) = r.sent_at else { continue };
            let (first, last) = (buckets.at(sent_at), buckets.at(r.finished_at));
            sent[first] += 1;
            if r.is_completed() {
                completed[last] += 1;
            } else if r.outcome.is_loss() {
                failed[last] += 1;
            }
            for (bucket, seconds) in seconds.iter_mut().enumerate().take(last + 1).skip(first) {
                let (begin, end) = buckets.ends(bucket);
                *seconds += (r.finished_at.min(end) - sent_at.max(begin)).as_secs_f64();
            }
        }
        let in_flight = seconds.iter().enumerate().map(|(bucket, seconds)| {
            let (begin, end) = buckets.ends(bucket);
            seconds / (end - begin).as_secs_f64()
        });
        Some(Self {
            bucket_s: buckets.width.as_secs_f64(),
            wall_s: (buckets.to - buckets.from).as_secs_f64(),
            in_flight: in_flight.collect(),
            sent,
            completed,
            failed,
            output_tokens: tokens(records, &buckets),
        })
    }

    /// Its buckets, as rates.
    pub fn slices(&self) -> impl Iterator<Item = Slice> {
        self.in_flight.iter().enumerate().map(|(i, in_flight)| {
            let from_s = self.bucket_s * i as f64;
            let width_s = self.bucket_s.min(self.wall_s - from_s);
            let rate = |counts: &[u64]| counts.get(i).map_or(0.0, |n| *n as f64 / width_s);
            let tokens = self.output_tokens.as_ref().and_then(|t| t.get(i));
            Slice {
                from_s,
                width_s,
                in_flight: *in_flight,
                sent_rps: rate(&self.sent),
                completed_rps: rate(&self.completed),
                failed_rps: rate(&self.failed),
                output_tps: tokens.map(|n| n / width_s),
            }
        })
    }
}

fn tokens(records: &[RequestRecord], buckets: &Buckets) -> Option<Vec<f64>> {
    let mut out = vec![0.0; buckets.count];
    for r in records.iter().filter(|r| r.is_completed()) {
        let (count, chunks) = (f64::from(r.output_tokens?), r.chunks());
        for arrival in &r.arrivals {
            out[buckets.at(arrival.at)] +=
                count * f64::from(arrival.chunks) / f64::from(chunks.max(1));
        }
        // An answer that was not streamed is there when it ends.
        if chunks == 0 {
            out[buckets.at(r.finished_at)] += count;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Arrival, Outcome, Phase};
    use proptest::prelude::*;

    fn request(sent: u64, end: u64, arrivals: &[u64], tokens: u32) -> RequestRecord {
        let ms = Nanos::from_millis;
        let mut r = RequestRecord::new(0, Phase::Measure, 0, ms(sent));
        r.sent_at = Some(ms(sent));
        r.arrivals = arrivals.iter().map(|at| Arrival::new(ms(*at), 1, ms(*at))).collect();
        r.finished_at = ms(end);
        r.output_tokens = Some(tokens);
        r.outcome = Outcome::Completed;
        r
    }

    #[test]
    fn a_trial_worked_out_by_hand_is_in_its_buckets() {
        // 0.95 s in buckets of 10 ms: 95 of them.
        let mut lost = request(1_000, 1_950, &[], 0);
        lost.outcome = Outcome::TimedOut;
        let records = [request(1_005, 1_020, &[1_009, 1_012, 1_019], 6), lost];
        let t = Timeline::of(&records).unwrap();
        assert_eq!((t.bucket_s, t.wall_s, t.in_flight.len()), (0.01, 0.95, 95));
        assert_eq!((t.sent[0], t.completed[2], t.failed[94]), (2, 1, 1));
        for (bucket, want) in [(0, 1.5), (1, 2.0), (2, 1.0), (94, 1.0)] {
            assert!((t.in_flight[bucket] - want).abs() < 1e-9, "{bucket}: {}", t.in_flight[bucket]);
        }
        assert_eq!(t.output_tokens.as_ref().unwrap()[..3], [2.0, 4.0, 0.0]);
        let second = t.slices().nth(1).unwrap();
        assert!(
            (second.from_s - 0.01).abs() < 1e-12
                && (second.output_tps.unwrap() - 400.0).abs() < 1e-9
        );
    }

    #[test]
    fn the_last_bucket_ends_with_the_trial_and_what_is_not_known_is_absent() {
        // 1.03 s in buckets of 20 ms: the last of 52 is 10 ms wide.
        let t = Timeline::of(&[request(0, 1_030, &[1_025], 3)]).unwrap();
        let last = t.slices().last().unwrap();
        assert_eq!(t.in_flight.len(), 52);
        assert!((last.width_s - 0.01).abs() < 1e-9 && (last.in_flight - 1.0).abs() < 1e-9);
        assert!((last.completed_rps - 100.0).abs() < 1e-6);
        let mut uncounted = request(0, 50, &[20], 3);
        uncounted.output_tokens = None;
        assert_eq!(Timeline::of(&[uncounted]).unwrap().output_tokens, None);
        assert_eq!(Timeline::of(&[]), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_between_buckets(
            spans in prop::collection::vec((0u64..100_000, 1u64..50_000, 0u32..9), 1..60),
        ) {
            let records: Vec<_> = spans
                .iter()
                .map(|(sent, long, tokens)| request(*sent, sent + long, &[sent + long / 2], *tokens))
                .collect();
            let t = Timeline::of(&records).unwrap();
            prop_assert!(t.in_flight.len() as u64 <= MAX_BUCKETS);
            prop_assert_eq!(t.sent.iter().sum::<u64>(), spans.len() as u64);
            prop_assert_eq!(t.completed.iter().sum::<u64>(), spans.len() as u64);
            let tokens: f64 = t.output_tokens.as_ref().unwrap().iter().sum();
            prop_assert!((tokens - spans.iter().map(|s| f64::from(s.2)).sum::<f64>()).abs() < 1e-6);
            let seconds: f64 = t.slices().map(|s| s.in_flight * s.width_s).sum();
            let want: f64 = spans.iter().map(|s| s.1 as f64 / 1e3).sum();
            prop_assert!((seconds - want).abs() < 1e-6 * want.max(1.0), "{} {}", seconds, want);
        }
    }
}
