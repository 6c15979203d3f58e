//! What a sample says about a percentile of whatever it was drawn from, without a word about its shape.
//!
//! Order statistics (David and Nagaraja, *Order Statistics*, section 7.1): the number of values below the
//! `p` quantile is binomial, so the quantile lies between two of the sorted values with a confidence that
//! depends on `n` and `p` alone. Values are taken as independent of each other.

use super::binomial;

/// Sides of a quantile; absent where the sample is too small to have one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// 97.5 % sure to be below it.
    pub low: Option<f64>,
    /// 97.5 % sure to be above it.
    pub high: Option<f64>,
}

/// The fewest values whose largest is above the `p` quantile with 95 % confidence: `1 - p^n >= 0.95`. MLPerf
/// stops no sooner (299 for p99). Absent for a `p` that is not between 0 and 1.
pub fn fewest(p: f64) -> Option<u64> {
    if !(p > 0.0 && p < 1.0) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; `as` saturates"
    )]
    let n = (0.05_f64.ln() / p.ln()).ceil() as u64;
    Some(n.max(1))
}

/// The 95 % interval of the `p` quantile from sorted values.
pub fn bounds(sorted: &[f64], p: f64) -> Bounds {
    let n = sorted.len();
    if n == 0 || !(p > 0.0 && p < 1.0) {
        return Bounds { low: None, high: None };
    }
    let at_most = |k: usize| binomial::at_most(k as u64, n as u64, p);
    // At least this many values below the quantile, and at most.
    let below = first(n, |k| at_most(k) > 0.025).checked_sub(1);
    let upto = Some(first(n, |k| at_most(k) >= 0.975)).filter(|k| *k < n);
    Bounds { low: below.map(|k| sorted[k]), high: upto.map(|k| sorted[k]) }
}

/// The first number below `n` from which on `holds`, or `n`; by bisection.
fn first(n: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[test]
    fn as_many_as_mlperf_asks_for() {
        let all = [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)];
        for (p, want) in all {
            assert_eq!(fewest(p), Some(want), "{p}");
            assert!(p.powf(want as f64) <= 0.05 && p.powf(want as f64 - 1.0) > 0.05);
        }
        assert_eq!((fewest(0.0), fewest(1.0), fewest(f64::NAN)), (None, None, None));
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        // n = 20: ranks 6 and 15 (Conover, table A3).
        let sorted: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(bounds(&sorted, 0.5), Bounds { low: Some(6.0), high: Some(15.0) });
        // n = 10: ranks 2 and 9; n = 5 has none: 2 (1/2)^5 > 0.05.
        assert_eq!(bounds(&sorted[..10], 0.5), Bounds { low: Some(2.0), high: Some(9.0) });
        assert_eq!(bounds(&sorted[..5], 0.5), Bounds { low: None, high: None });
    }

    #[test]
    fn a_tail_of_few_has_no_upper_side() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        let Bounds { low, high } = bounds(&sorted, 0.99);
        assert_eq!(high, None);
        assert!(low.is_some_and(|low| (95.0..=98.0).contains(&low)), "{low:?}");
        assert_eq!(bounds(&[], 0.5), Bounds { low: None, high: None });
    }

    /// 95 in 100 intervals hold the true quantile, or somewhat more: ranks are whole.
    #[test]
    fn intervals_cover_what_they_say() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut covered = 0;
        for _ in 0..400 {
            let mut sample: Vec<f64> = (0..500).map(|_| rng.random::<f64>()).collect();
            sample.sort_by(f64::total_cmp);
            let Bounds { low, high } = bounds(&sample, 0.95);
            covered += usize::from(low.unwrap() <= 0.95 && 0.95 <= high.unwrap());
        }
        assert!((370..=396).contains(&covered), "{covered} of 400");
    }

    proptest! {
        #[test]
        fn sides_are_in_order_and_of_the_sample(
            mut sample in prop::collection::vec(-1e6_f64..1e6, 0..300), p in 0.0_f64..=1.0,
        ) {
            sample.sort_by(f64::total_cmp);
            let Bounds { low, high } = bounds(&sample, p);
            for side in [low, high].into_iter().flatten() {
                prop_assert!(sample.contains(&side));
            }
            if let (Some(low), Some(high)) = (low, high) {
                prop_assert!(low <= high);
            }
        }
    }
}
