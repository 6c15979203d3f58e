//! The bootstrap: an interval from the data alone.
//!
//! Percentile bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*, chapter 13) over
//! whole requests, since the tokens of one request are not independent of each other.

use crate::stats::quantile::quantile_sorted;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Resamples drawn for an interval.
pub const RESAMPLES: usize = 1_000;

/// Draws `n` indices below `n` with replacement into `out`.
pub fn resample(n: usize, rng: &mut Xoshiro256PlusPlus, out: &mut Vec<usize>) {
    out.clear();
    out.extend((0..n).map(|_| rng.random_range(0..n)));
}

/// The 95 % interval of `statistic`, which draws its own resample from the generator it is given.
/// Absent when fewer than nine in ten resamples have a value.
pub fn interval(
    seed: u64,
    mut statistic: impl FnMut(&mut Xoshiro256PlusPlus) -> Option<f64>,
) -> Option<(f64, f64)> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut values: Vec<f64> =
        (0..RESAMPLES).filter_map(|_| statistic(&mut rng)).filter(|v| v.is_finite()).collect();
    if values.len() * 10 < RESAMPLES * 9 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some((quantile_sorted(&values, 0.025)?, quantile_sorted(&values, 0.975)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, Normal};

    /// The 95 % interval of a mean must hold the true mean about 95 times in 100.
    #[test]
    fn the_interval_covers_what_it_says_it_covers() {
        let normal = Normal::new(10.0, 3.0).unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
        let mut covered = 0;
        for trial in 0..200 {
            let sample: Vec<f64> = (0..60).map(|_| normal.sample(&mut rng)).collect();
            let mut pick = Vec::new();
            let (low, high) = interval(trial, |rng| {
                resample(sample.len(), rng, &mut pick);
                Some(pick.iter().map(|i| sample[*i]).sum::<f64>() / sample.len() as f64)
            })
            .unwrap();
            covered += usize::from(low <= 10.0 && 10.0 <= high);
        }
        assert!((175..=200).contains(&covered), "{covered} of 200");
    }
}
