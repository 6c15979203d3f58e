//! How many requests per second arrive, over time, and the inverse: when so many have.
//!
//! **Invariants:** the inverse is exact to a nanosecond wherever the rate is above zero and the numbers
//! fit a double (a million seconds, ten million requests); an arrival never falls into a stretch of
//! rate zero; rates that are no numbers, or below zero, count as zero.

use crate::units::{Nanos, significant};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use std::fmt;

/// Requests per second of an open loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum ArrivalRate {
    /// The same all the time.
    Constant(f64),
    /// Changing over time.
    Profile(RateProfile),
}

/// A rate that changes over time, counted from the start of the phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RateProfile {
    /// In a straight line from one rate to another, which then holds.
    Ramp {
        /// Requests per second at the start.
        from_rps: f64,
        /// Requests per second at the end.
        to_rps: f64,
        /// How long it takes.
        over: Nanos,
    },
    /// One constant rate after the other.
    Steps {
        /// In this order; nothing arrives after the last one that ends.
        steps: Vec<RateStep>,
    },
    /// `mean + amplitude * sin(2 pi t / period)`.
    Sine {
        /// Mean requests per second.
        mean_rps: f64,
        /// By how much it rises and falls; at most the mean.
        amplitude_rps: f64,
        /// From crest to crest.
        period: Nanos,
    },
}

/// A stretch of constant rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RateStep {
    /// Requests per second; may be zero.
    pub rate_rps: f64,
    /// How long it holds; absent = without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Nanos>,
}

impl From<f64> for ArrivalRate {
    fn from(rate_rps: f64) -> Self {
        Self::Constant(rate_rps)
    }
}

impl ArrivalRate {
    /// The instant by which `count` requests are expected: the `t` at which the integral of the rate
    /// from 0 to `t` reaches `count`. `None` where it never does.
    pub fn due(&self, count: f64) -> Option<Nanos> {
        Course::new(self).due(count)
    }

    /// The highest rate that it ever has, in requests per second.
    pub fn peak_rps(&self) -> f64 {
        let peak = match self {
            Self::Constant(rate) => *rate,
            Self::Profile(RateProfile::Ramp { from_rps, to_rps, .. }) => from_rps.max(*to_rps),
            Self::Profile(RateProfile::Steps { steps }) => {
                steps.iter().map(|s| s.rate_rps).fold(0.0, f64::max)
            }
            Self::Profile(RateProfile::Sine { mean_rps, amplitude_rps, .. }) => {
                mean_rps + amplitude_rps.min(*mean_rps)
            }
        };
        sound(peak)
    }

    /// When the last of its requests may be due, where it has an end.
    pub fn ends_at(&self) -> Option<Nanos> {
        let Form::Pieces { pieces, .. } = Course::new(self).0 else { return None };
        let last = pieces.iter().rposition(|p| p.units_after > p.units_before);
        match last {
            None => Some(Nanos::ZERO),
            Some(i) if pieces[i].units_after.is_infinite() => None,
            Some(i) => pieces.get(i + 1).map(|p| p.from).or(pieces[i].until),
        }
    }
}

impl fmt::Display for ArrivalRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(rate) => write!(f, "{} requests/s", significant(*rate)),
            Self::Profile(profile) => profile.fmt(f),
        }
    }
}

impl fmt::Display for RateProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ramp { from_rps, to_rps, over } => {
                let (from, to) = (significant(*from_rps), significant(*to_rps));
                write!(f, "{from} to {to} requests/s over {over}")
            }
            Self::Steps { steps } => {
                for (i, step) in steps.iter().enumerate() {
                    let then = if i == 0 { "" } else { ", then " };
                    write!(f, "{then}{} requests/s", significant(step.rate_rps))?;
                    if let Some(lasts) = step.lasts {
                        write!(f, " for {lasts}")?;
                    }
                }
                Ok(())
            }
            Self::Sine { mean_rps, amplitude_rps, period } => {
                let (mean, amplitude) = (significant(*mean_rps), significant(*amplitude_rps));
                write!(f, "{mean} +- {amplitude} requests/s in waves of {period}")
            }
        }
    }
}

fn sound(rate: f64) -> f64 {
    if rate.is_finite() { rate.max(0.0) } else { 0.0 }
}

/// A sum of products that ought to be a whole number is made one: `"0.1/s"` for 30 s is 3 requests, and
/// the fourth of a constant process belongs to the next step, whatever doubles make of 0.1.
fn whole(units: f64) -> f64 {
    let near = units.round();
    if (units - near).abs() <= 4.0 * f64::EPSILON * near { near } else { units }
}

/// The inverse of a rate's integral, for counts that are asked for in ascending order.
#[derive(Debug, Clone)]
pub(super) struct Course(Form);

#[derive(Debug, Clone)]
enum Form {
    Pieces { pieces: Vec<Piece>, current: usize },
    Wave(Wave),
}

/// A stretch in which the rate is a straight line.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: Nanos,
    until: Option<Nanos>,
    rate_rps: f64,
    /// Change of the rate per second.
    slope: f64,
    /// The integral at its start and at its end.
    units_before: f64,
    units_after: f64,
}

impl Course {
    pub(super) fn new(rate: &ArrivalRate) -> Self {
        Self(match rate {
            ArrivalRate::Constant(rate) => pieces(&[(*rate, *rate, None)]),
            ArrivalRate::Profile(RateProfile::Ramp { from_rps, to_rps, over }) => {
                pieces(&[(*from_rps, *to_rps, Some(*over)), (*to_rps, *to_rps, None)])
            }
            ArrivalRate::Profile(RateProfile::Steps { steps }) => {
                let of = |s: &RateStep| (s.rate_rps, s.rate_rps, s.lasts);
                pieces(&steps.iter().map(of).collect::<Vec<_>>())
            }
            ArrivalRate::Profile(RateProfile::Sine { mean_rps, amplitude_rps, period }) => {
                let mean_rps = sound(*mean_rps);
                let amplitude_rps = sound(*amplitude_rps).min(mean_rps);
                Form::Wave(Wave { mean_rps, amplitude_rps, period: *period })
            }
        })
    }

    /// The instant at which the integral exceeds `unit`; `None` where it never does. Counts must not
    /// decrease from call to call.
    pub(super) fn due(&mut self, unit: f64) -> Option<Nanos> {
        match &mut self.0 {
            Form::Wave(wave) => wave.due(unit),
            Form::Pieces { pieces, current } => {
                while pieces.get(*current)?.units_after <= unit {
                    *current += 1;
                }
                Some(pieces.get(*current)?.due(unit))
            }
        }
    }
}

/// Joins stretches, each from one rate to another over a span, the last perhaps without end.
fn pieces(stretches: &[(f64, f64, Option<Nanos>)]) -> Form {
    let mut out: Vec<Piece> = Vec::with_capacity(stretches.len());
    let (mut from, mut units_before) = (Nanos::ZERO, 0.0);
    for &(first, last, lasts) in stretches {
        let (first, last) = (sound(first), sound(last));
        let (slope, units) = match lasts.map(Nanos::as_secs_f64) {
            None => (0.0, if first > 0.0 { f64::INFINITY } else { 0.0 }),
            Some(s) if s > 0.0 => ((last - first) / s, 0.5 * (first + last) * s),
            Some(_) => (0.0, 0.0),
        };
        let units_after = whole(units_before + units);
        let until = lasts.map(|s| from + s);
        out.push(Piece { from, until, rate_rps: first, slope, units_before, units_after });
        let Some(next) = until else { break };
        (from, units_before) = (next, units_after);
    }
    Form::Pieces { pieces: out, current: 0 }
}

impl Piece {
    fn due(&self, unit: f64) -> Nanos {
        let left = unit - self.units_before;
        if left <= 0.0 {
            return self.from;
        }
        // The root of `rate t + slope t^2 / 2 = left`, in the form that does not cancel.
        let under_root = self.rate_rps * self.rate_rps + 2.0 * self.slope * left;
        let seconds = 2.0 * left / (self.rate_rps + under_root.max(0.0).sqrt());
        let at = self.from + Nanos::from_secs_f64(seconds);
        self.until.map_or(at, |until| at.min(until))
    }
}

#[derive(Debug, Clone, Copy)]
struct Wave {
    mean_rps: f64,
    amplitude_rps: f64,
    period: Nanos,
}

impl Wave {
    fn due(&self, unit: f64) -> Option<Nanos> {
        let period_s = self.period.as_secs_f64();
        let units_per_period = self.mean_rps * period_s;
        if units_per_period <= 0.0 {
            return None;
        }
        // Whole periods apart, so that the search stays as fine at the end of a run as at its start.
        let periods = (unit / units_per_period).floor();
        let left = (unit - periods * units_per_period).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of periods is not negative; `as` saturates"
        )]
        let start = Nanos(self.period.0.saturating_mul(periods as u64));
        Some(start + Nanos::from_secs_f64(self.within_period(left, TAU / period_s)))
    }

    /// Solves `mean t + amplitude / omega (1 - cos(omega t)) = units` for a `t` of the first period:
    /// Newton's steps, kept inside a bracket that every step narrows.
    fn within_period(&self, units: f64, omega: f64) -> f64 {
        /// A hundredth of a nanosecond.
        const FINE: f64 = 1e-11;
        let swing = self.amplitude_rps / omega;
        // The integral lies between `mean t` and `mean t + 2 swing`.
        let mut high = units / self.mean_rps;
        let mut low = ((units - 2.0 * swing) / self.mean_rps).max(0.0);
        let mut t = 0.5 * (low + high);
        // Halving a century down to `FINE` takes 70 steps; Newton's take 4 or so.
        for _ in 0..100 {
            let (sin, cos) = (omega * t).sin_cos();
            let excess = self.mean_rps * t + swing * (1.0 - cos) - units;
            if excess > 0.0 {
                high = t;
            } else {
                low = t;
            }
            let newton = t - excess / (self.mean_rps + self.amplitude_rps * sin);
            // Also where the rate is zero and the step is no number.
            let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
            if (next - t).abs() < FINE {
                return next;
            }
            t = next;
        }
        t
    }
}
