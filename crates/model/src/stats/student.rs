//! Student's t: chances and quantiles for intervals over few trials.

use std::f64::consts::TAU;

/// Degrees of freedom that stand for any more: quantiles are then within 3e-5 of the normal distribution's.
const MOST_FREEDOM: f64 = 1e5;

/// The two-sided 95 % quantile of Student's t with `df` degrees of freedom.
///
/// A table for whole degrees up to 30 (interpolated in 1/df between them, where the quantile is nearly
/// linear), beyond that `1.96 + 2.37/df + 2.8/df^2` (Cornish-Fisher), whose error is below 0.001.
/// Infinite below one degree: one trial says nothing about spread.
pub fn t_975(df: f64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    if !df.is_finite() || df < 1.0 {
        return f64::INFINITY;
    }
    if df >= 30.0 {
        return 1.959_964 + 2.372 / df + 2.82 / (df * df);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 29")]
    let low = df.floor() as usize;
    let (a, b) = (TABLE[low - 1], TABLE[low]);
    let (x, y) = (1.0 / low as f64, 1.0 / (low + 1) as f64);
    a + (b - a) * (x - 1.0 / df) / (x - y)
}

/// The chance of a value above `t` with `df` degrees of freedom; infinitely many are the normal distribution.
/// One half below one degree, where nothing is known of the spread.
pub fn above(t: f64, df: f64) -> f64 {
    if df.is_nan() || df < 1.0 || t.is_nan() {
        return 0.5;
    }
    let df = df.min(MOST_FREEDOM);
    let tail = 0.5 * incomplete_beta(df / (df + t * t), df / 2.0, 0.5);
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// The value that is exceeded with the chance `tail`, between 0 and 1; infinite below one degree of freedom.
pub fn exceeded_by(tail: f64, df: f64) -> f64 {
    if df.is_nan() || df < 1.0 {
        return f64::INFINITY;
    }
    if tail > 0.5 {
        return -exceeded_by(1.0 - tail, df);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while above(high, df) > tail && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if above(middle, df) > tail { low = middle } else { high = middle }
    }
    high
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun, 26.5.8), on the side
/// where that converges fast.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front / a * beta_fraction(x, a, b)
    } else {
        1.0 - front / b * beta_fraction(1.0 - x, b, a)
    }
}

/// Evaluated by the method of Lentz.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let nonzero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for step in 1..2_000_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            factor = c * d;
            value *= factor;
        }
        if (factor - 1.0).abs() < 1e-13 {
            break;
        }
    }
    value
}

/// Stirling's series, whose error is below 1e-12 from 16 on; smaller arguments are raised to that by the
/// recurrence.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 16.0 {
        below += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1_260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * TAU.ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (df, want) in [(1.0, 12.706), (2.0, 4.303), (9.0, 2.262), (60.0, 2.000), (120.0, 1.980)]
        {
            assert!((t_975(df) - want).abs() < 1.5e-3, "{df}: {}", t_975(df));
        }
        assert!(t_975(0.0).is_infinite());
        assert!(
            (1..400).all(|i| t_975(f64::from(i) / 10.0 + 1.0) <= t_975(f64::from(i) / 10.0 + 0.9))
        );
    }

    #[test]
    fn chances_and_quantiles_are_those_of_the_tables() {
        // One degree is Cauchy's distribution, two have a closed form.
        for t in [0.1_f64, 1.0, 4.303, 12.706, 300.0] {
            let cauchy = 0.5 - t.atan() / std::f64::consts::PI;
            assert!((above(t, 1.0) - cauchy).abs() < 1e-10, "{t}");
            let two = 0.5 - 0.5 * t / (2.0 + t * t).sqrt();
            assert!((above(t, 2.0) - two).abs() < 1e-10, "{t}");
        }
        // Tails by Fisher and Yates, table III; the last is the normal distribution.
        for (tail, df, want) in [
            (0.05, 4.0, 2.131_847),
            (0.025, 10.0, 2.228_139),
            (0.005, 30.0, 2.749_996),
            (0.2, 6.0, 0.905_703),
            (0.025, f64::INFINITY, 1.959_964),
        ] {
            let got = exceeded_by(tail, df);
            assert!((got - want).abs() < 1e-4, "{tail} of {df}: {got}");
            assert!((above(got, df) - tail).abs() < 1e-9);
            assert!((exceeded_by(1.0 - tail, df) + got).abs() < 1e-9);
        }
        assert!((above(-1.0, 5.0) + above(1.0, 5.0) - 1.0).abs() < 1e-12);
        assert!(exceeded_by(0.025, 0.5).is_infinite());
        for df in 4..200 {
            let df = f64::from(df) / 2.0;
            assert!((exceeded_by(0.025, df) - t_975(df)).abs() < 0.02 * t_975(df), "{df}");
        }
    }
}
