//! Lengths of prompts and answers in tokens, and how they are spread.
//!
//! **Invariants:** a drawn length is at least one token and never above a bound that the plan names, so
//! that no draw exceeds a server's limit by surprise; the mean in the plan is that of the draws.

use super::Pick;
use rand::RngExt;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest prompt or answer that a file may ask for, in tokens.
pub const LONGEST: u32 = 10_000_000;

/// A lognormal length is cut off at this many times the mean asked for, where the file gives no `max`.
pub const LOGNORMAL_CUT: u32 = 10;

/// Lengths of a synthetic workload, in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Lengths {
    /// Mean unique prompt length.
    pub isl: u32,
    /// Standard deviation of the prompt length.
    pub isl_dev: f64,
    /// Shared tokens before the unique ones.
    pub prefix: u32,
    /// Mean answer length.
    pub osl: u32,
    /// Standard deviation of the answer length.
    pub osl_dev: f64,
    /// Spread of the prompt length; absent = fixed, or normal by `isl_dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isl_dist: Option<LengthDist>,
    /// Spread of the answer length; absent = fixed, or normal by `osl_dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osl_dist: Option<LengthDist>,
    /// Distinct shared prefixes; absent = one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_groups: Option<PrefixGroups>,
}

/// Distinct prefixes, each shared by the requests of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PrefixGroups {
    /// Their number.
    pub count: u32,
    /// How requests are assigned: in turn, or drawn.
    pub pick: Pick,
}

impl Lengths {
    /// Every prompt of `isl` tokens, every answer of `osl`, nothing shared.
    pub const fn fixed(isl: u32, osl: u32) -> Self {
        Self {
            isl,
            isl_dev: 0.0,
            prefix: 0,
            osl,
            osl_dev: 0.0,
            isl_dist: None,
            osl_dist: None,
            prefix_groups: None,
        }
    }

    /// Draws the unique prompt length and the answer length of one request.
    pub(super) fn draw(&self, rng: &mut impl rand::Rng) -> (u32, u32) {
        let isl = draw(self.isl, self.isl_dev, self.isl_dist.as_ref(), rng);
        (isl, self.draw_osl(rng))
    }

    /// Draws the answer length of one request.
    pub(super) fn draw_osl(&self, rng: &mut impl rand::Rng) -> u32 {
        draw(self.osl, self.osl_dev, self.osl_dist.as_ref(), rng)
    }
}

fn draw(mean: u32, dev: f64, dist: Option<&LengthDist>, rng: &mut impl rand::Rng) -> u32 {
    match dist {
        Some(dist) => dist.draw(rng),
        None => normal(mean, dev, rng),
    }
}

/// How a length is spread, as planned. The mean is that of what is drawn, cut-off included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LengthDist {
    /// `exp(mu + sigma z)` with a standard normal `z`, kept within 1 and `max`.
    Lognormal {
        /// Mean of the logarithm.
        mu: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Longest, in tokens.
        max: u32,
        /// Mean, in tokens.
        mean: f64,
    },
    /// Every whole number from `min` to `max` alike, both included.
    Uniform {
        /// Shortest, in tokens.
        min: u32,
        /// Longest, in tokens.
        max: u32,
        /// Mean, in tokens.
        mean: f64,
    },
}

/// What a "range ratio" `r` of a length `L` means. The same flag has meant both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RangeMeaning {
    /// `[L (1 - r), L (1 + r)]`, the lower end rounded down and the upper one up: `vllm bench serve`
    /// since 2025. The mean is `L`.
    Vllm,
    /// `[L r, L]`, the lower end rounded down: `sglang.bench_serving`, vLLM before that, `InferenceX`.
    /// The mean is `L (1 + r) / 2`.
    Sglang,
}

impl LengthDist {
    /// Every whole number from `min` to `max`.
    pub fn uniform(min: u32, max: u32) -> Self {
        let (min, max) = (min.max(1), max.max(min).max(1));
        Self::Uniform { min, max, mean: f64::midpoint(f64::from(min), f64::from(max)) }
    }

    /// The range that `ratio` of `length` means to a tool.
    pub fn range_ratio(length: u32, ratio: f64, meaning: RangeMeaning) -> Self {
        let length_f = f64::from(length);
        let (low, high) = match meaning {
            RangeMeaning::Vllm => {
                ((length_f * (1.0 - ratio)).floor(), (length_f * (1.0 + ratio)).ceil())
            }
            RangeMeaning::Sglang => ((length_f * ratio).floor(), length_f),
        };
        Self::uniform(tokens(low), tokens(high))
    }

    /// Lognormal around `mean`: `mu = ln(mean) - sigma^2 / 2`, so that without the cut at `max` the
    /// mean is the one asked for.
    pub fn lognormal(mean: u32, sigma: f64, max: u32) -> Self {
        let mu = f64::from(mean.max(1)).ln() - sigma * sigma / 2.0;
        Self::Lognormal { mu, sigma, max, mean: lognormal_mean(mu, sigma, f64::from(max)) }
    }

    /// Mean of what is drawn, in tokens.
    pub const fn mean(&self) -> f64 {
        match self {
            Self::Lognormal { mean, .. } | Self::Uniform { mean, .. } => *mean,
        }
    }

    /// Longest that can be drawn, in tokens.
    pub const fn max(&self) -> u32 {
        match self {
            Self::Lognormal { max, .. } | Self::Uniform { max, .. } => *max,
        }
    }

    pub(crate) fn draw(&self, rng: &mut impl rand::Rng) -> u32 {
        match *self {
            Self::Uniform { min, max, .. } => rng.random_range(min.min(max)..=max),
            Self::Lognormal { mu, sigma, max, .. } => {
                // A plan that was written by hand may hold a sigma that is none.
                let z = Normal::new(0.0, 1.0).map_or(0.0, |standard| standard.sample(rng));
                tokens((mu + sigma * z).exp().round()).clamp(1, max.max(1))
            }
        }
    }
}

impl fmt::Display for LengthDist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lognormal { sigma, max, mean, .. } => {
                write!(f, "lognormal (sigma {sigma}) up to {max}, mean {mean:.1}")
            }
            Self::Uniform { min, max, mean } => write!(f, "{min} to {max}, mean {mean:.1}"),
        }
    }
}

/// Nearest length to `value`, which may be out of range or no number at all.
fn tokens(value: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a positive u32 range first; what is no number becomes 1"
    )]
    let n = value.clamp(1.0, f64::from(LONGEST)).max(1.0) as u32;
    n
}

/// Mean of `exp(mu + sigma z)` kept within 1 and `max`: the integral over `z` from -8 to 8 by Simpson's
/// rule, which leaves out 1e-15 of the mass.
fn lognormal_mean(mu: f64, sigma: f64, max: f64) -> f64 {
    const STEPS: u32 = 4_000;
    const REACH: f64 = 8.0;
    let width = 2.0 * REACH / f64::from(STEPS);
    let mut sum = 0.0;
    for i in 0..=STEPS {
        let z = f64::from(i).mul_add(width, -REACH);
        let weight = match i {
            0 | STEPS => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
        sum += weight * density * (mu + sigma * z).exp().clamp(1.0, max);
    }
    sum * width / 3.0
}

/// Normal around `mean`, at least one token and at most twice the mean, so that one draw cannot
/// exceed a server's limit by surprise.
fn normal(mean: u32, dev: f64, rng: &mut impl rand::Rng) -> u32 {
    let Some(normal) = (dev > 0.0).then(|| Normal::new(f64::from(mean), dev).ok()).flatten() else {
        return mean.max(1);
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a positive u32 range first"
    )]
    let drawn = normal.sample(rng).round().clamp(1.0, f64::from(mean.saturating_mul(2))) as u32;
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    const DRAWS: u32 = 4_000;

    /// Mean of many draws, and the standard error of it.
    fn sampled(dist: &LengthDist, seed: u64) -> (f64, f64) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let drawn: Vec<f64> = (0..DRAWS).map(|_| f64::from(dist.draw(&mut rng))).collect();
        let n = f64::from(DRAWS);
        let mean = drawn.iter().sum::<f64>() / n;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    fn ends(dist: &LengthDist) -> (u32, u32, f64) {
        match *dist {
            LengthDist::Uniform { min, max, mean } => (min, max, mean),
            LengthDist::Lognormal { max, mean, .. } => (1, max, mean),
        }
    }

    #[test]
    fn a_range_ratio_is_what_the_named_tool_makes_of_it() {
        let of = |length, ratio, meaning| ends(&LengthDist::range_ratio(length, ratio, meaning));
        assert_eq!(of(1024, 0.8, RangeMeaning::Sglang), (819, 1024, 921.5));
        assert_eq!(of(1024, 0.8, RangeMeaning::Vllm), (204, 1844, 1024.0));
        assert_eq!(of(1024, 0.0, RangeMeaning::Vllm), (1024, 1024, 1024.0));
        assert_eq!(of(1024, 0.0, RangeMeaning::Sglang), (1, 1024, 512.5));
        assert_eq!(of(1024, 1.0, RangeMeaning::Sglang), (1024, 1024, 1024.0));
        assert_eq!(of(1, 0.9, RangeMeaning::Vllm), (1, 2, 1.5));
    }

    #[test]
    fn a_lognormal_keeps_the_mean_that_was_asked_until_it_is_cut() {
        let whole = LengthDist::lognormal(1_000, 0.5, LONGEST);
        assert!((whole.mean() - 1_000.0).abs() < 0.01, "{whole:?}");
        // Partial expectation below the cut by hand: 1000 * Phi(-0.25) + 1000 * (1 - Phi(0.25)).
        let cut = LengthDist::lognormal(1_000, 0.5, 1_000);
        assert!((cut.mean() - 802.587).abs() < 0.1, "{cut:?}");
    }

    proptest! {
        #[test]
        fn normal_lengths_stay_in_range(mean in 1u32..10_000, dev in 0.0f64..5_000.0, seed: u64) {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let n = normal(mean, dev, &mut rng);
            prop_assert!(n >= 1 && n <= mean.saturating_mul(2));
        }

        #[test]
        fn a_uniform_length_stays_within_its_ends_and_has_their_mean(
            min in 1u32..4_000, more in 0u32..4_000, seed: u64,
        ) {
            let dist = LengthDist::uniform(min, min + more);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            for _ in 0..100 {
                let n = dist.draw(&mut rng);
                prop_assert!((min..=min + more).contains(&n));
            }
            let (mean, error) = sampled(&dist, seed);
            prop_assert!((mean - dist.mean()).abs() <= 6.0 * error + 1e-9, "{mean} of {dist:?}");
        }

        #[test]
        fn range_ratios_have_the_mean_that_the_plan_says(
            length in 2u32..8_000, ratio in 0.0f64..1.0, vllm: bool, seed: u64,
        ) {
            let meaning = if vllm { RangeMeaning::Vllm } else { RangeMeaning::Sglang };
            let dist = LengthDist::range_ratio(length, ratio, meaning);
            let length = f64::from(length);
            let said = if vllm { length } else { length * (1.0 + ratio) / 2.0 };
            // Ends are whole numbers, at least 1.
            prop_assert!((dist.mean() - said).abs() <= 1.0, "{dist:?}");
            let (mean, error) = sampled(&dist, seed);
            prop_assert!((mean - dist.mean()).abs() <= 6.0 * error + 1e-9, "{mean} of {dist:?}");
        }

        #[test]
        fn lognormal_lengths_have_the_mean_that_the_plan_says(
            mean in 8u32..4_000, sigma in 0.01f64..1.0, cut in 1u32..20, seed: u64,
        ) {
            let dist = LengthDist::lognormal(mean, sigma, mean * cut);
            let (sample, error) = sampled(&dist, seed);
            // Six standard errors, and what rounding to whole tokens does.
            prop_assert!((sample - dist.mean()).abs() <= 6.0 * error + 0.6, "{sample} of {dist:?}");
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            prop_assert!((0..100).all(|_| (1..=mean * cut).contains(&dist.draw(&mut rng))));
        }
    }
}
