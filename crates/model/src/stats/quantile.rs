//! Exact order statistics.

use crate::results::Distribution;

/// The `q` quantile of sorted values by linear interpolation (Hyndman and Fan's type 7, numpy's
/// default): `h = (n - 1) q`, between the neighbours of `h`. Absent for no values.
pub fn quantile_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let h = last as f64 * q.clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the index of the last value"
    )]
    let low = h.floor() as usize;
    let high = (low + 1).min(last);
    Some(sorted[low] + (h - low as f64) * (sorted[high] - sorted[low]))
}

/// Describes `samples`; absent for none.
pub fn distribution(mut samples: Vec<f64>) -> Option<Distribution> {
    samples.retain(|x| x.is_finite());
    samples.sort_by(f64::total_cmp);
    let n = samples.len();
    let (min, max) = (*samples.first()?, *samples.last()?);
    let mean = samples.iter().sum::<f64>() / n as f64;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    let std = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
    let q = |p: f64| quantile_sorted(&samples, p).unwrap_or(mean);
    Some(Distribution {
        mean,
        std,
        min,
        p1: q(0.01),
        p5: q(0.05),
        p25: q(0.25),
        p50: q(0.5),
        p75: q(0.75),
        p90: q(0.9),
        p95: q(0.95),
        p99: q(0.99),
        p999: q(0.999),
        max,
        count: n as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.percentile([15, 20, 35, 40, 50], [5, 30, 40, 95]) = 16, 23, 29, 48
        let x = [15.0, 20.0, 35.0, 40.0, 50.0];
        for (q, want) in [(0.05, 16.0), (0.3, 23.0), (0.4, 29.0), (0.95, 48.0)] {
            assert!((quantile_sorted(&x, q).unwrap() - want).abs() < 1e-9);
        }
        assert_eq!(quantile_sorted(&[], 0.5), None);
        assert_eq!(quantile_sorted(&[7.0], 0.99), Some(7.0));
    }

    proptest! {
        #[test]
        fn order_statistics_are_ordered(samples in prop::collection::vec(-1e9f64..1e9, 1..200)) {
            let d = distribution(samples).unwrap();
            let row = [d.min, d.p1, d.p5, d.p25, d.p50, d.p75, d.p90, d.p95, d.p99, d.p999, d.max];
            prop_assert!(row.windows(2).all(|w| w[0] <= w[1]));
            prop_assert!(d.mean >= d.min - 1e-3 && d.mean <= d.max + 1e-3);
        }
    }
}
