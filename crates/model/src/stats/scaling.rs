//! Laws of scaling: how throughput grows with size, fitted to what was measured.
//!
//! A size is a multiple of the smallest deployment, which has size 1. With `C(n)` for the throughput at size `n`
//! over that at size 1:
//!
//! - Amdahl (1967), the same load at every size: `C(n) = n / (1 + s (n - 1))`.
//! - Gustafson (1988), a load that grows with size: `C(n) = n - s (n - 1)`.
//! - The universal scalability law (Gunther 1993): `C(n) = n / (1 + a (n - 1) + b n (n - 1))`; `a` is contention for
//!   what is shared, `b` the cost of each pair's keeping together, which makes throughput fall beyond `sqrt((1 - a) / b)`.
//! - Karp and Flatt (1990): the serial fraction that one measured speedup alone shows.

use super::bootstrap::interval;
use super::student::exceeded_by;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

/// What one size gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// As a multiple of the smallest.
    pub n: f64,
    /// What was measured, above zero.
    pub value: f64,
    /// How well that is known.
    pub spread: Option<Spread>,
}

/// How far a value may lie from the true one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Standard error of its logarithm.
    pub error: f64,
    /// Degrees of freedom of that error; infinite where it is taken as known.
    pub freedom: f64,
}

/// A law that can be fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Part of the work is done once, whatever the size.
    Amdahl,
    /// The same, where the rest of the work grows with size.
    Gustafson,
    /// Contention and coherence.
    Universal,
}

/// A law with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// Which.
    pub law: Law,
    /// `s`, or `a`: from 0 to 1.
    pub serial: f64,
    /// `b`; 0 for the other laws.
    pub coherence: f64,
}

impl Curve {
    /// Throughput at size `n` over that at size 1.
    pub fn at(&self, n: f64) -> f64 {
        match self.law {
            Law::Gustafson => n - self.serial * (n - 1.0),
            Law::Amdahl | Law::Universal => {
                n / (1.0 + self.serial * (n - 1.0) + self.coherence * n * (n - 1.0))
            }
        }
    }

    /// The size beyond which throughput falls; absent where it never does.
    pub fn peak(&self) -> Option<f64> {
        (self.coherence > 0.0)
            .then(|| ((1.0 - self.serial) / self.coherence).max(0.0).sqrt().max(1.0))
    }
}

/// The serial fraction that a speedup over size 1 shows by itself (Karp and Flatt 1990):
/// `(1 / speedup - 1 / n) / (1 - 1 / n)`. Below 0 where the speedup is more than ideal; absent at size 1 and below.
pub fn karp_flatt(n: f64, speedup: f64) -> Option<f64> {
    (n > 1.0 && speedup > 0.0).then(|| (1.0 / speedup - 1.0 / n) / (1.0 - 1.0 / n))
}

/// The curve of `law` that lies nearest to `sizes`, by least squares of relative differences; the size 1 is the first of
/// them, and is taken as it was measured. Absent where fewer other sizes are there than the law has parameters.
pub fn fit(law: Law, sizes: &[Size]) -> Option<Curve> {
    let (base, rest) = sizes.split_first()?;
    let grown: Vec<(f64, f64)> = rest.iter().map(|s| (s.n, s.value / base.value)).collect();
    let is_sound = |(n, c): &(f64, f64)| *n > 1.0 && *c > 0.0 && c.is_finite();
    let mut distinct: Vec<f64> = grown.iter().map(|(n, _)| *n).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let parameters = if law == Law::Universal { 2 } else { 1 };
    if base.value <= 0.0 || distinct.len() < parameters || !grown.iter().all(is_sound) {
        return None;
    }
    let (serial, coherence) = match law {
        Law::Amdahl => (of_one(&grown, |n| n - 1.0), 0.0),
        Law::Gustafson => (gustafson(&grown), 0.0),
        Law::Universal => universal(&grown),
    };
    Some(Curve { law, serial: serial.clamp(0.0, 1.0), coherence })
}

/// What a row of the linear form `n / C - 1 = ..` weighs: an error of `C` is multiplied by `n / C` in it.
fn row((n, c): (f64, f64)) -> (f64, f64) {
    (n / c - 1.0, (c / n).powi(2))
}

/// The factor of one regressor.
fn of_one(grown: &[(f64, f64)], regressor: fn(f64) -> f64) -> f64 {
    let sums = grown.iter().fold((0.0, 0.0), |(xy, xx), size| {
        let ((y, weight), x) = (row(*size), regressor(size.0));
        (xy + weight * x * y, xx + weight * x * x)
    });
    sums.0 / sums.1
}

/// `n - C = s (n - 1)`, weighed by the square of `1 / C`.
fn gustafson(grown: &[(f64, f64)]) -> f64 {
    let sums = grown.iter().fold((0.0, 0.0), |(xy, xx), (n, c)| {
        let (x, weight) = (n - 1.0, c.powi(-2));
        (xy + weight * x * (n - c), xx + weight * x * x)
    });
    sums.0 / sums.1
}

/// Contention and coherence, neither below 0: where one would be, the other alone.
fn universal(grown: &[(f64, f64)]) -> (f64, f64) {
    let contention = |n: f64| n - 1.0;
    let coherence = |n: f64| n * (n - 1.0);
    let (mut aa, mut ab, mut bb, mut ay, mut by) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for size in grown {
        let ((y, weight), a, b) = (row(*size), contention(size.0), coherence(size.0));
        aa += weight * a * a;
        ab += weight * a * b;
        bb += weight * b * b;
        ay += weight * a * y;
        by += weight * b * y;
    }
    let determinant = aa * bb - ab * ab;
    let (serial, pairs) = ((ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant);
    if serial >= 0.0 && pairs >= 0.0 {
        return (serial, pairs);
    }
    if serial < 0.0 {
        return (0.0, of_one(grown, |n| n * (n - 1.0)).max(0.0));
    }
    (of_one(grown, |n| n - 1.0).max(0.0), 0.0)
}

/// The 95 % interval of what `of` makes of the fitted curve, where the values of all sizes are drawn anew from their
/// spreads. It holds how well the sizes were measured, and not whether the law is the right one. Absent where a size
/// has no spread.
pub fn range(law: Law, sizes: &[Size], of: impl Fn(&Curve) -> f64) -> Option<(f64, f64)> {
    let spreads: Vec<Spread> = sizes.iter().map(|s| s.spread).collect::<Option<_>>()?;
    let seed = sizes.len() as u64;
    interval(seed, |rng| {
        let drawn: Vec<Size> = sizes
            .iter()
            .zip(&spreads)
            .map(|(size, spread)| Size { value: size.value * spread.draw(rng).exp(), ..*size })
            .collect();
        fit(law, &drawn).map(|curve| of(&curve))
    })
}

impl Spread {
    /// A draw of Student's distribution, scaled, by its quantile at a uniform place.
    fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> f64 {
        /// Beyond one in two thousand the quantiles of few degrees of freedom say nothing about machines.
        const TAIL: f64 = 5e-4;
        let place: f64 = rng.random_range(TAIL..1.0 - TAIL);
        self.error * exceeded_by(place, self.freedom)
    }
}

#[cfg(test)]
mod tests;
