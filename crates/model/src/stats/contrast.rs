//! One side against another by the values of their trials: a ratio, how sure it is, and what would make it surer.
//!
//! Everything is on logarithms, since the error of a ratio is relative. A trial is one value, whatever it holds, so
//! the spread between trials is in the error, and what differs between requests is in it once. What was tried beside
//! this, and how often each interval held the truth, is in the journal, 2026-11-26.

use super::student::{above, exceeded_by};
use crate::results::Estimate;

/// A difference is to be found in 80 of 100: the quantile of the normal distribution that is exceeded in 20.
const FOUND: f64 = 0.841_621;

/// An equivalence is missed on either side, so each may take half of what may be missed: the one exceeded in 10.
const SHOWN: f64 = 1.281_552;

/// The chance at which each of the two tests of an equivalence is held.
const EQUIVALENCE: f64 = 0.05;

/// A difference above this is not told apart from one without bounds.
const MOST_DETECTABLE: f64 = 1e9;

/// More trials a side than this are no advice.
const MOST_TRIALS: u32 = 100;

/// The logarithm of a ratio and what is known of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// Logarithm of the ratio.
    pub log_ratio: f64,
    /// Its standard error.
    pub error: f64,
    /// Degrees of freedom of that error; infinite where it is taken as known.
    pub freedom: f64,
}

/// Number, mean, and sum of the squares around it.
fn moments(values: &[f64]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (n, mean, values.iter().map(|v| (v - mean).powi(2)).sum())
}

/// The standard error of the mean of `values`, and its degrees of freedom. Absent with fewer than two.
pub fn mean_error(values: &[f64]) -> Option<(f64, f64)> {
    let (n, _, squares) = moments(values);
    (n >= 2.0).then(|| ((squares / (n - 1.0) / n).sqrt(), n - 1.0))
}

/// Mean of `a` less mean of `b` with an error of each side's own (Welch 1947, degrees of freedom by Satterthwaite).
/// Absent with fewer than two values a side.
pub fn welch(a: &[f64], b: &[f64]) -> Option<Contrast> {
    if a.len().min(b.len()) < 2 {
        return None;
    }
    let ((na, ma, sa), (nb, mb, sb)) = (moments(a), moments(b));
    let (va, vb) = (sa / (na - 1.0) / na, sb / (nb - 1.0) / nb);
    let square = va + vb;
    let freedom = match square > 0.0 {
        true => square * square / (va * va / (na - 1.0) + vb * vb / (nb - 1.0)),
        false => na + nb - 2.0,
    };
    Some(Contrast { log_ratio: ma - mb, error: square.sqrt(), freedom })
}

/// The same where both sides are taken to spread alike (Student 1908): with two values a side half as wide as
/// Welch's, and too narrow where one side spreads much more. Absent below two degrees of freedom.
pub fn student(a: &[f64], b: &[f64]) -> Option<Contrast> {
    let freedom = (a.len() + b.len()).checked_sub(2).filter(|n| *n >= 2)? as f64;
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let ((na, ma, sa), (nb, mb, sb)) = (moments(a), moments(b));
    let each = 1.0 / na + 1.0 / nb;
    Some(Contrast { log_ratio: ma - mb, error: ((sa + sb) / freedom * each).sqrt(), freedom })
}

/// From so many values a side each has a spread of its own.
pub const FOR_WELCH: usize = 3;

/// Whether values of two sides, so many of each, tell how such values differ: two degrees of freedom, whichever side
/// has them.
pub fn is_spread_told(values: (usize, usize)) -> bool {
    values.0.min(values.1) >= 1 && values.0 + values.1 >= 4
}

/// Mean of `a` less mean of `b`, which are logarithms of what is called `units`, and the method in words: by Welch where
/// either side has three. With fewer by Student where they are taken to spread alike, and else by Welch with the
/// fewest degrees of freedom that it can have. Absent where they do not tell how such values differ.
pub fn between(
    (a, b): (&[f64], &[f64]),
    units: &str,
    are_alike: bool,
) -> Option<(Contrast, String)> {
    let (n, m) = (a.len(), b.len());
    if !is_spread_told((n, m)) {
        return None;
    }
    let over = format!("over {n} and {m} {units}, on logarithms");
    if n.min(m) >= FOR_WELCH {
        return Some((welch(a, b)?, format!("Welch {over}")));
    }
    if are_alike {
        return Some((student(a, b)?, format!("Student {over}, both sides taken to spread alike")));
    }
    let freedom = n.min(m) as f64 - 1.0;
    let why = "something else took time from a machine, so nothing is taken to be alike";
    Some((Contrast { freedom, ..welch(a, b)? }, format!("Welch {over}; {why}")))
}

impl Contrast {
    /// The ratio.
    pub fn ratio(&self) -> f64 {
        self.log_ratio.exp()
    }

    /// The interval that holds the ratio with this confidence.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let half = self.half((1.0 - confidence) / 2.0);
        ((self.log_ratio - half).exp(), (self.log_ratio + half).exp())
    }

    /// The ratio with its 95 % interval, found by `method`.
    pub fn estimate(&self, method: String) -> Estimate {
        let (low, high) = self.interval(0.95);
        Estimate { point: self.ratio(), low, high, confidence: 0.95, method }
    }

    /// Without an error there is no doubt, whatever the quantile is.
    fn half(&self, tail: f64) -> f64 {
        if self.error > 0.0 { exceeded_by(tail, self.freedom) * self.error } else { 0.0 }
    }

    /// The chance of a ratio as far from 1, on either side, where the true one is 1.
    pub fn p_value(&self) -> f64 {
        if self.error > 0.0 {
            return (2.0 * above(self.log_ratio.abs() / self.error, self.freedom)).min(1.0);
        }
        if self.log_ratio.abs() > 0.0 { 0.0 } else { 1.0 }
    }

    /// Whether the true ratio lies between `1 / (1 + margin)` and `1 + margin`: two one-sided tests at 5 %
    /// (Schuirmann 1987), which is the 90 % interval inside of the margin.
    pub fn is_within(&self, margin: f64) -> bool {
        let half = self.half(EQUIVALENCE);
        self.log_ratio.abs() + half < margin.ln_1p()
    }

    /// The least true difference, relative to the baseline, that is called one at the chance `alpha` in 80 of 100
    /// comparisons like this one; at most 10^9.
    pub fn detectable(&self, alpha: f64) -> f64 {
        (lift(alpha / 2.0, FOUND, self.freedom) * self.error).exp_m1().min(MOST_DETECTABLE)
    }

    /// Trials a side that would decide, were they like the `trials` that there are: with which a difference as large
    /// as this one is found at the chance `alpha`, or shown to lie within `margin`, in 80 of 100. Absent where more
    /// than a hundred would be needed. A difference that is smaller than `floor`, relative, is not called one, however
    /// surely it is there.
    pub fn trials_to_decide(
        &self,
        trials: (usize, usize),
        (alpha, floor): (f64, f64),
        margin: Option<f64>,
    ) -> Option<u32> {
        let each = 1.0 / trials.0 as f64 + 1.0 / trials.1 as f64;
        let variance = self.error * self.error / each;
        let size = self.log_ratio.abs();
        let above = (self.ratio() - 1.0).abs() - floor;
        let room = margin.map_or(0.0, |m| m.ln_1p() - size);
        let decides = |n: u32| {
            let (n, freedom) = (f64::from(n), 2.0 * f64::from(n) - 2.0);
            let error = (2.0 * variance / n).sqrt();
            let is_enough = |apart: f64, lift: f64| apart > 0.0 && apart >= lift * error;
            is_enough(size, lift(alpha / 2.0, FOUND, freedom)) && is_enough(above, FOUND)
                || is_enough(room, lift(EQUIVALENCE, SHOWN, freedom))
        };
        let more = u32::try_from(trials.0.max(trials.1)).unwrap_or(MOST_TRIALS) + 1;
        let (mut low, mut high) = (more.max(3), MOST_TRIALS);
        if low > high || !decides(high) {
            return None;
        }
        while low < high {
            let middle = u32::midpoint(low, high);
            if decides(middle) { high = middle } else { low = middle + 1 }
        }
        Some(high)
    }
}

/// How many standard errors a true difference must have, so that it exceeds the quantile of `tail` as often as `z`
/// says: the non-central t in the approximation of Johnson and Welch (1940).
fn lift(tail: f64, z: f64, freedom: f64) -> f64 {
    let t = exceeded_by(tail, freedom);
    t * (1.0 - 0.25 / freedom) + z * (1.0 + t * t / (2.0 * freedom)).sqrt()
}

/// The chances of several tests, corrected so that none of those that say too much is below a bound more often than
/// the bound says (Holm 1979): the `i`-th smallest of `m`, from 0, times `m - i`, and never less than one before it.
pub fn holm(chances: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|a, b| chances[*a].total_cmp(&chances[*b]));
    let mut out = vec![0.0; chances.len()];
    let mut least: f64 = 0.0;
    for (place, index) in order.into_iter().enumerate() {
        least = least.max(chances[index] * (chances.len() - place) as f64).min(1.0);
        out[index] = least;
    }
    out
}

#[cfg(test)]
mod tests;
