//! What is drawn for single requests: who is abandoned, how long a slot thinks.
//!
//! **Invariant:** a draw is a function of seed and index, never of the order of drawing, so shards and
//! repeated runs agree.

use crate::units::Nanos;
use crate::workload::derive_seed;
use serde::{Deserialize, Serialize};

/// Uniform in `[0, 1)`.
fn uniform(seed: u64, index: u64) -> f64 {
    /// 2^-53: the upper 53 bits are all that a double holds.
    const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;
    (derive_seed(&[seed, index]) >> 11) as f64 * STEP
}

/// How long a slot of a closed loop waits between the end of an answer and its next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Think {
    /// The same each time.
    Fixed {
        /// How long.
        span: Nanos,
    },
    /// Exponentially distributed.
    Exponential {
        /// The mean.
        mean: Nanos,
        /// Seed of the draws.
        seed: u64,
    },
}

impl Think {
    /// The mean wait.
    pub const fn mean(self) -> Nanos {
        match self {
            Self::Fixed { span } => span,
            Self::Exponential { mean, .. } => mean,
        }
    }

    /// The wait after the request `index` ended.
    pub fn after(self, index: u64) -> Nanos {
        match self {
            Self::Fixed { span } => span,
            Self::Exponential { mean, seed } => {
                // By inversion; `1 - u` is never zero.
                let times = -(1.0 - uniform(seed, index)).ln();
                Nanos::from_secs_f64(mean.as_secs_f64() * times)
            }
        }
    }
}

/// Requests that the client gives up on its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cancellation {
    /// The share of requests, in 0 to 1, that are given up unless they ended before.
    pub share: f64,
    /// How long after it was sent.
    pub after: Nanos,
    /// Seed of the draws.
    pub seed: u64,
}

impl Cancellation {
    /// Whether request `index` is one of them.
    pub fn picks(&self, index: u64) -> bool {
        uniform(self.seed, index) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_given_up_is_the_one_asked_for() {
        const N: u64 = 100_000;
        for share in [0.0, 0.01, 0.1, 0.5, 1.0] {
            let cancel = Cancellation { share, after: Nanos(1), seed: 4 };
            let picked = (0..N).filter(|i| cancel.picks(*i)).count() as f64;
            let error = 5.0 * (share * (1.0 - share) * N as f64).sqrt();
            assert!((picked - share * N as f64).abs() <= error, "{share}: {picked}");
        }
        let other = |seed| Cancellation { share: 0.5, after: Nanos(1), seed };
        let agree = (0..N).filter(|i| other(1).picks(*i) == other(2).picks(*i)).count() as f64;
        assert!((agree / N as f64 - 0.5).abs() < 0.01, "seeds are independent: {agree}");
    }

    #[test]
    fn think_times_are_exponential_and_a_function_of_the_index() {
        let mean = Nanos::from_millis(200);
        let think = Think::Exponential { mean, seed: 9 };
        let n = 50_000u64;
        let spans: Vec<f64> = (0..n).map(|i| think.after(i).as_secs_f64() / 0.2).collect();
        let average = spans.iter().sum::<f64>() / n as f64;
        assert!((average - 1.0).abs() < 0.02, "{average}");
        for (x, want) in
            [(0.105_36, 0.1), (std::f64::consts::LN_2, 0.5), (std::f64::consts::LN_10, 0.9)]
        {
            let below = spans.iter().filter(|s| **s < x).count() as f64 / n as f64;
            assert!((below - want).abs() < 0.01, "{below} below {x}");
        }
        assert_eq!(think.after(77), think.after(77));
        assert_eq!(Think::Fixed { span: mean }.after(3), mean);
    }
}
