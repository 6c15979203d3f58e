//! When requests are due: pure functions of a sequence number.
//!
//! Due times are absolute, counted from the start of the phase, so the loop that carries them out can
//! be late once without being late for ever (the classic mistake is to sleep for a gap after each
//! request, which adds the loop's own time to every gap).
//!
//! Two things are kept apart: the *process* (how irregular arrivals are, [`ArrivalKind`]) is drawn at
//! one arrival per unit of time, and the *rate* (how many come per second, [`ArrivalRate`]) stretches
//! that time. An arrival at unit time `u` is due at the `t` at which the rate's integral from 0 to `t`
//! reaches `u` (time rescaling; Daley and Vere-Jones, An Introduction to the Theory of Point
//! Processes, vol. I, 7.4). So one seed gives the same pattern, stretched, at every rate.

use crate::units::Nanos;
use rand::SeedableRng;
use rand_distr::{Distribution, Exp1, Gamma};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

pub mod rate;

use rate::Course;
pub use rate::{ArrivalRate, RateProfile, RateStep};

/// The process by which an open loop's requests arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalKind {
    /// Independent arrivals: exponential gaps. What many independent users look like.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution with the same mean: shape `burstiness`, scale `1 / burstiness`
    /// mean gaps. Its coefficient of variation is `1 / sqrt(burstiness)`.
    Gamma {
        /// The shape, as in vLLM's `--burstiness`: 1 is Poisson, less is burstier, more is more regular.
        burstiness: f64,
    },
}

/// Draws gaps whose mean is one.
#[derive(Debug, Clone)]
enum Gaps {
    Equal,
    Exponential(Xoshiro256PlusPlus),
    Gamma(Gamma<f64>, Xoshiro256PlusPlus),
}

impl Gaps {
    fn new(kind: ArrivalKind, seed: u64) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        match kind {
            ArrivalKind::Constant => Self::Equal,
            ArrivalKind::Poisson => Self::Exponential(rng),
            // A shape that is none is refused by the check of the file; a plan edited by hand gets the
            // limit of ever more regular gaps.
            ArrivalKind::Gamma { burstiness } => match Gamma::new(burstiness, 1.0 / burstiness) {
                Ok(gamma) => Self::Gamma(gamma, rng),
                Err(_) => Self::Equal,
            },
        }
    }
}

/// A sum of gaps in fixed point: 64 bits after the point. Adding never rounds, so no error grows with
/// the run; reading it rounds once.
#[derive(Debug, Clone, Copy, Default)]
struct UnitTime(u128);

impl UnitTime {
    const ONE: f64 = 18_446_744_073_709_551_616.0;

    fn advance(&mut self, gap: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a gap is never negative; `as` saturates"
        )]
        let gap = (gap * Self::ONE) as u128;
        self.0 = self.0.saturating_add(gap);
    }

    fn get(self) -> f64 {
        self.0 as f64 / Self::ONE
    }
}

/// A sequence of due times, as offsets from the start of the phase. Ends where its rate ends.
///
/// Due times do not decrease, but for the rounding of each to a nanosecond.
#[derive(Debug, Clone)]
pub struct Arrivals {
    course: Course,
    gaps: Gaps,
    next_seq: u64,
    unit_time: UnitTime,
}

impl Arrivals {
    /// Arrivals of the process `kind` at `rate`.
    pub fn new(kind: ArrivalKind, rate: &ArrivalRate, seed: u64) -> Self {
        Self {
            course: Course::new(rate),
            gaps: Gaps::new(kind, seed),
            next_seq: 0,
            unit_time: UnitTime::default(),
        }
    }

    /// Draws the next arrival of the process at rate one.
    fn next_unit(&mut self) -> f64 {
        let gap = match &mut self.gaps {
            // From the sequence number: the first is due at once.
            Gaps::Equal => {
                self.next_seq += 1;
                return (self.next_seq - 1) as f64;
            }
            Gaps::Exponential(rng) => Exp1.sample(rng),
            Gaps::Gamma(gamma, rng) => gamma.sample(rng),
        };
        self.unit_time.advance(gap);
        self.unit_time.get()
    }
}

impl Iterator for Arrivals {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let unit = self.next_unit();
        self.course.due(unit)
    }

    /// Of those that are passed over only the gaps are drawn: a shard is interested in few of them.
    fn nth(&mut self, n: usize) -> Option<Nanos> {
        for _ in 0..n {
            self.next_unit();
        }
        self.next()
    }
}

#[cfg(test)]
mod tests;
