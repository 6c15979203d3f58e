//! When requests are due: pure functions of a sequence number.
//!
//! Due times are absolute, counted from the start of the phase, so the loop that carries them out can
//! be late once without being late for ever (the classic mistake is to sleep for a gap after each
//! request, which adds the loop's own time to every gap).

use crate::units::Nanos;
use rand::SeedableRng;
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// The process by which an open loop's requests arrive.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalKind {
    /// Independent arrivals: exponential gaps. What many independent users look like.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
}

/// An endless, non-decreasing sequence of due times, as offsets from the start of the phase.
#[derive(Debug, Clone)]
pub struct Arrivals {
    rate_rps: f64,
    kind: ArrivalKind,
    rng: Xoshiro256PlusPlus,
    next_seq: u64,
    /// Seconds of the last due time. Kept as a sum of unit-rate gaps, so that one seed gives the same
    /// pattern, stretched, at every rate.
    unit_time: f64,
}

impl Arrivals {
    /// Arrivals at `rate_rps` requests per second.
    pub fn new(kind: ArrivalKind, rate_rps: f64, seed: u64) -> Self {
        Self {
            rate_rps,
            kind,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            next_seq: 0,
            unit_time: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let due = match self.kind {
            // From the sequence number, not by adding gaps: no rounding error grows with the run.
            ArrivalKind::Constant => self.next_seq as f64 / self.rate_rps,
            ArrivalKind::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.rng);
                self.unit_time += gap;
                self.unit_time / self.rate_rps
            }
        };
        self.next_seq += 1;
        Some(Nanos::from_secs_f64(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constant_due_times_do_not_drift_at_any_rate() {
        for rate in [0.1, 3.0, 150.0, 999.0, 1_500.0, 20_000.0] {
            let due: Vec<_> = Arrivals::new(ArrivalKind::Constant, rate, 1).take(10_001).collect();
            assert_eq!(due[0], Nanos::ZERO);
            let want = 10_000.0 / rate;
            let got = due[10_000].as_secs_f64();
            assert!((got - want).abs() < 1e-8, "at {rate}/s: {got} is not {want}");
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        let n = 20_000;
        let due: Vec<_> = Arrivals::new(ArrivalKind::Poisson, 150.0, 7).take(n).collect();
        let mean = due[n - 1].as_secs_f64() / n as f64;
        assert!((mean * 150.0 - 1.0).abs() < 0.03, "mean gap {mean}");
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let var = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((var.sqrt() / mean - 1.0).abs() < 0.05, "coefficient of variation");
    }

    proptest! {
        #[test]
        fn due_times_are_ordered_and_repeat_with_their_seed(
            rate in 0.01f64..50_000.0, seed: u64, poisson: bool,
        ) {
            let kind = if poisson { ArrivalKind::Poisson } else { ArrivalKind::Constant };
            let a: Vec<_> = Arrivals::new(kind, rate, seed).take(200).collect();
            let b: Vec<_> = Arrivals::new(kind, rate, seed).take(200).collect();
            prop_assert_eq!(&a, &b);
            prop_assert!(a.windows(2).all(|w| w[0] <= w[1]));
        }
    }
}
