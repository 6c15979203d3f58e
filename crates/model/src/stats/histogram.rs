//! Histograms with a stated relative error, in memory that does not grow with the number of values.
//!
//! Buckets are evenly spaced on a logarithmic scale (as those of Masson, Rim and Lee, "DDSketch", VLDB 2019):
//! with an error of e each ends at (1 + e) / (1 - e) times its begin, so that any value is within e of the
//! middle, 2 x begin x end / (begin + end), of its bucket, relative to itself.

use std::collections::BTreeMap;

/// Nearer to zero than this is zero: no quantity of ours is known so well.
const SMALLEST: f64 = 1e-9;

/// Counts of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    relative_error: f64,
    /// By the logarithm of their end.
    positive: BTreeMap<i32, u64>,
    zero: u64,
    /// By the logarithm of their end, the sign taken off.
    negative: BTreeMap<i32, u64>,
}

/// How many values lie above `low` and up to `high`; both are 0 for the values that are 0.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Bucket {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Values in it; never 0.
    pub count: u64,
}

impl Histogram {
    /// An empty one; `relative_error` is held between a millionth and one half.
    pub fn new(relative_error: f64) -> Self {
        Self {
            relative_error: relative_error.clamp(1e-6, 0.5),
            positive: BTreeMap::new(),
            zero: 0,
            negative: BTreeMap::new(),
        }
    }

    /// The error that it was made with.
    pub fn relative_error(&self) -> f64 {
        self.relative_error
    }

    fn growth(&self) -> f64 {
        (1.0 + self.relative_error) / (1.0 - self.relative_error)
    }

    /// Counts a value; what is not finite is no value.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let size = value.abs();
        if size < SMALLEST {
            self.zero += 1;
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "logarithms of floats are small")]
        let place = (size.ln() / self.growth().ln()).ceil() as i32;
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        *side.entry(place).or_default() += 1;
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.zero + self.positive.values().chain(self.negative.values()).sum::<u64>()
    }

    /// The buckets that hold something, from the least on.
    pub fn buckets(&self) -> Vec<Bucket> {
        let growth = self.growth();
        let end = |place: i32| growth.powi(place);
        let below = self.negative.iter().rev().map(|(place, count)| Bucket {
            low: -end(*place),
            high: -end(place - 1),
            count: *count,
        });
        let zero = (self.zero > 0).then_some(Bucket { low: 0.0, high: 0.0, count: self.zero });
        let above = self.positive.iter().map(|(place, count)| Bucket {
            low: end(place - 1),
            high: end(*place),
            count: *count,
        });
        below.chain(zero).chain(above).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_worked_out_by_hand_are_in_their_buckets() {
        // With an error of one third each bucket ends at twice its begin.
        let mut histogram = Histogram::new(1.0 / 3.0);
        for value in [0.0, 1.5, 1.9, 3.0, -1.5, f64::NAN, f64::INFINITY] {
            histogram.add(value);
        }
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let want = [(-2.0, -1.0, 1), (0.0, 0.0, 1), (1.0, 2.0, 2), (2.0, 4.0, 1)];
        let got = histogram.buckets();
        assert_eq!((got.len(), histogram.count()), (4, 5));
        for (bucket, (low, high, count)) in got.iter().zip(want) {
            assert!(near(bucket.low, low) && near(bucket.high, high), "{bucket:?}");
            assert_eq!(bucket.count, count);
        }
    }

    proptest! {
        #[test]
        fn every_value_is_within_the_error_of_the_middle_of_a_bucket(
            values in prop::collection::vec(1e-6f64..1e9, 1..100),
            error in 0.001f64..0.2,
        ) {
            let mut all = Histogram::new(error);
            for value in &values {
                let mut one = Histogram::new(error);
                one.add(*value);
                all.add(*value);
                let bucket = one.buckets()[0];
                let middle = 2.0 * bucket.low * bucket.high / (bucket.low + bucket.high);
                prop_assert!((middle - value).abs() <= error * value * (1.0 + 1e-6));
            }
            prop_assert_eq!(all.count(), values.len() as u64);
            let buckets = all.buckets();
            prop_assert!(buckets.windows(2).all(|w| w[0].high <= w[1].low * (1.0 + 1e-9)));
            // From 1e-6 to 1e9 there are not more buckets than the error asks for.
            prop_assert!(buckets.len() as f64 <= 35.0 / (2.0 * error) + 2.0);
        }
    }
}
