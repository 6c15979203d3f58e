//! What the readings of a window say, and when they say nothing.
//!
//! Between two readings a value is taken to lie on the line between them. Where a border of the window lies
//! between two readings, the value there is found the same way; where readings do not reach the border,
//! that part of the window is not covered. A value is given only where readings cover the window and have
//! no hole that a change could hide in. In a hole a counter counts on: what one grew by is known from both sides
//! of it, where it is known not to have begun anew inside.

use super::{Quantity, Reading, Series};
use crate::units::{Nanos, significant};
use serde::{Deserialize, Serialize};

/// A longer hole between two readings makes what is said of them worthless, where they were to come oftener.
pub const LONGEST_GAP: Nanos = Nanos::from_secs(3);
/// The share of a window that readings must cover.
pub const LEAST_COVERAGE: f64 = 0.95;

/// A span of the run's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
}

impl Window {
    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }
}

/// Why there is no number, or why it is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum FlawKind {
    /// Fewer than two readings in or around the window.
    TooFewReadings,
    /// Two readings lie too far apart.
    Gap {
        /// How far, in seconds.
        seconds: f64,
    },
    /// Readings do not reach over the window.
    NotCovered {
        /// The part that they cover, 0 to 1.
        share: f64,
    },
    /// A counter began anew inside the window.
    CounterReset,
    /// A value that cannot be: not a number, below zero.
    Impossible,
    /// The device was to be read and was not.
    DeviceMissing,
    /// It is cut into instances, and what was read is of all of it.
    CutIntoInstances,
    /// The clock of its host is known worse than readings lie apart.
    ClockUncertain {
        /// By how much a time may be wrong either way, in seconds.
        bound_s: f64,
    },
    /// Two ways to find the same number disagree.
    Disagrees {
        /// The number / what the other way gives.
        ratio: f64,
    },
}

impl FlawKind {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooFewReadings => "too_few_readings",
            Self::Gap { .. } => "gap",
            Self::NotCovered { .. } => "not_covered",
            Self::CounterReset => "counter_reset",
            Self::Impossible => "impossible",
            Self::DeviceMissing => "device_missing",
            Self::CutIntoInstances => "cut_into_instances",
            Self::ClockUncertain { .. } => "clock_uncertain",
            Self::Disagrees { .. } => "disagrees",
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::TooFewReadings => "there are fewer than two readings in its time".to_owned(),
            Self::Gap { seconds } => {
                format!("no reading for {} s", significant(*seconds))
            }
            Self::NotCovered { share } => {
                format!("readings cover {} % of its time", significant(share * 100.0))
            }
            Self::CounterReset => "its counter began anew".to_owned(),
            Self::Impossible => "a reading is impossible".to_owned(),
            Self::DeviceMissing => "it was not read".to_owned(),
            Self::CutIntoInstances => {
                "it is cut into MIG instances, and power is known of the whole card only".to_owned()
            }
            Self::ClockUncertain { bound_s } => {
                format!("its clock may be off by {} s", significant(*bound_s))
            }
            Self::Disagrees { ratio } => format!(
                "the integral of its power is {} times what its energy counter says",
                significant(*ratio)
            ),
        }
    }
}

/// A flaw, and of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Flaw {
    /// The device, as `localhost gpu 0`.
    pub device: String,
    /// The quantity.
    pub quantity: Quantity,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: FlawKind,
}

/// A gauge over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaugeStat {
    /// The integral over the window, in unit x seconds.
    pub integral: f64,
    /// The integral / the time that readings cover.
    pub mean: f64,
    /// The largest reading in the window, its borders included.
    pub max: f64,
    /// The smallest.
    pub min: f64,
}

/// A counter over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CounterStat {
    /// What it grew by.
    pub delta: f64,
    /// That, per second of the window.
    pub rate: f64,
    /// The largest rate between two neighbouring readings in the window; absent where a hole may hide a larger one.
    pub max_rate: Option<f64>,
}

/// Value and time in seconds after the begin of the window.
type Knot = (f64, f64);

/// A gauge over `window`, when readings were to come every `interval`.
///
/// # Errors
/// Says why the readings give no number.
pub fn gauge(series: &Series, window: Window, interval: Nanos) -> Result<GaugeStat, FlawKind> {
    gauge_of(&series.readings, window, interval)
}

/// The same of readings that belong to no series.
///
/// # Errors
/// Says why the readings give no number.
pub fn gauge_of(
    readings: &[Reading],
    window: Window,
    interval: Nanos,
) -> Result<GaugeStat, FlawKind> {
    let knots = knots(readings, window, interval)?.without_gap()?;
    let integral: f64 = pairs(&knots).map(|((t0, v0), (t1, v1))| (t1 - t0) * (v0 + v1) / 2.0).sum();
    let covered = span(&knots);
    let values = || knots.iter().map(|(_, v)| *v);
    Ok(GaugeStat {
        // What is not covered is at most one part in twenty, and is taken to be like the rest.
        integral: integral / covered * window.seconds(),
        mean: integral / covered,
        max: values().fold(f64::NEG_INFINITY, f64::max),
        min: values().fold(f64::INFINITY, f64::min),
    })
}

/// A counter over `window`, when readings were to come every `interval`.
///
/// # Errors
/// Says why the readings give no number.
pub fn counter(series: &Series, window: Window, interval: Nanos) -> Result<CounterStat, FlawKind> {
    counter_of(&series.readings, window, interval)
}

/// The readings in and around a window that is short beside all of them: what is further away says nothing of it.
pub fn around(readings: &[Reading], window: Window) -> &[Reading] {
    // One beyond each border is needed, and a few may have taken too long to be of use.
    const BEYOND: usize = 4;
    let begin = readings.partition_point(|r| r.at() <= window.from).saturating_sub(BEYOND);
    let end = readings.partition_point(|r| r.at() < window.to) + BEYOND;
    readings.get(begin..end.min(readings.len())).unwrap_or_default()
}

/// The same of readings that belong to no series.
///
/// # Errors
/// Says why the readings give no number.
pub fn counter_of(
    readings: &[Reading],
    window: Window,
    interval: Nanos,
) -> Result<CounterStat, FlawKind> {
    grown(&knots(readings, window, interval)?.without_gap()?, window, interval)
}

/// A counter over `window` that is known not to have begun anew between two readings, however far apart: with what it
/// grew by, the hole where there is one. Its fastest piece is absent then.
///
/// # Errors
/// Says why the readings give no number. A hole at a border is one: what was counted on which side of it nobody knows.
pub fn counter_over_gaps(
    series: &Series,
    window: Window,
    interval: Nanos,
) -> Result<(CounterStat, Option<FlawKind>), FlawKind> {
    let Knots { all, gap } = knots(&series.readings, window, interval)?;
    let stat = match gap {
        Some(gap) if !gap.is_inside => Err(gap.flaw()),
        _ => grown(&all, window, interval),
    }?;
    let max_rate = stat.max_rate.filter(|_| gap.is_none());
    Ok((CounterStat { max_rate, ..stat }, gap.map(|gap| gap.flaw())))
}

/// Whether a counter stands behind each hole higher than it could have counted in that time from 0 on, at the fastest
/// that it was seen to count: then it did not begin anew in one.
pub fn outlasts_gaps(series: &Series, window: Window, interval: Nanos) -> bool {
    let Ok(Knots { all, .. }) = knots(&series.readings, window, interval) else { return false };
    let longest = longest_step(interval).as_secs_f64();
    let (gaps, others): (Vec<_>, Vec<_>) =
        pairs(&all).partition(|((t0, _), (t1, _))| t1 - t0 > longest);
    let fastest = rates(others.into_iter(), interval).fold(0.0, f64::max);
    fastest > 0.0 && gaps.iter().all(|((t0, _), (t1, v1))| *v1 > fastest * (t1 - t0))
}

fn grown(knots: &[Knot], window: Window, interval: Nanos) -> Result<CounterStat, FlawKind> {
    if pairs(knots).any(|((_, v0), (_, v1))| v1 < v0) {
        return Err(FlawKind::CounterReset);
    }
    let grown = match (knots.first(), knots.last()) {
        (Some((_, first)), Some((_, last))) => last - first,
        _ => return Err(FlawKind::TooFewReadings),
    };
    let rate = grown / span(knots);
    let max_rate = Some(rates(pairs(knots), interval).fold(rate, f64::max));
    Ok(CounterStat { delta: rate * window.seconds(), rate, max_rate })
}

/// Rates from knot to knot. Pieces that the borders cut are too short to be a rate of their own: a counter has a grain.
fn rates(pairs: impl Iterator<Item = (Knot, Knot)>, interval: Nanos) -> impl Iterator<Item = f64> {
    let shortest = interval.as_secs_f64() / 2.0;
    pairs
        .filter(move |((t0, _), (t1, _))| t1 - t0 >= shortest)
        .map(|((t0, v0), (t1, v1))| (v1 - v0) / (t1 - t0))
}

fn pairs(knots: &[Knot]) -> impl Iterator<Item = (Knot, Knot)> + '_ {
    knots.windows(2).filter_map(|w| match w {
        [a, b] => Some((*a, *b)),
        _ => None,
    })
}

fn span(knots: &[Knot]) -> f64 {
    match (knots.first(), knots.last()) {
        (Some((first, _)), Some((last, _))) => last - first,
        _ => 0.0,
    }
}

/// The longest time that a reading may be of.
pub(super) fn widest(interval: Nanos) -> Nanos {
    interval.max(Nanos::from_millis(200))
}

/// The readings of a window, and the longest hole between them.
struct Knots {
    all: Vec<Knot>,
    gap: Option<Gap>,
}

/// Two neighbouring readings that lie too far apart.
#[derive(Clone, Copy)]
struct Gap {
    longest: Nanos,
    /// Neither this one nor another such hole reaches over a border of the window.
    is_inside: bool,
}

impl Gap {
    fn flaw(self) -> FlawKind {
        FlawKind::Gap { seconds: self.longest.as_secs_f64() }
    }
}

impl Knots {
    fn without_gap(self) -> Result<Vec<Knot>, FlawKind> {
        match self.gap {
            Some(gap) => Err(gap.flaw()),
            None => Ok(self.all),
        }
    }
}

/// The readings inside the window, with its borders where these lie between two.
fn knots(readings: &[Reading], window: Window, interval: Nanos) -> Result<Knots, FlawKind> {
    if readings.iter().any(|r| !r.value.is_finite() || r.value < 0.0) {
        return Err(FlawKind::Impossible);
    }
    // Whoever took so long to read was suspended meanwhile, and the value may be of any time between.
    let widest = widest(interval);
    let readings: Vec<Reading> =
        readings.iter().filter(|r| r.to - r.from <= widest).copied().collect();
    let readings = readings.as_slice();
    let begin = readings.partition_point(|r| r.at() <= window.from);
    let end = readings.partition_point(|r| r.at() < window.to);
    let seconds = |at: Nanos| at.millis_after(window.from) / 1e3;
    let mut out = Vec::with_capacity(end.saturating_sub(begin) + 2);
    out.extend(border(readings, begin, window.from).map(|v| (0.0, v)));
    let inside = readings.get(begin..end.max(begin)).unwrap_or_default();
    out.extend(inside.iter().map(|r| (seconds(r.at()), r.value)));
    out.extend(border(readings, end, window.to).map(|v| (window.seconds(), v)));
    if out.len() < 2 || span(&out) <= 0.0 {
        return Err(FlawKind::TooFewReadings);
    }
    // Holes are looked for between all readings that are used, those beyond the borders included.
    let used = readings.get(begin.saturating_sub(1)..(end + 1).min(readings.len()));
    let gap = longest_gap(used.unwrap_or_default(), window, interval);
    let share = span(&out) / window.seconds();
    if share < LEAST_COVERAGE {
        return Err(gap.map_or(FlawKind::NotCovered { share }, Gap::flaw));
    }
    Ok(Knots { all: out, gap })
}

/// The value at `border`, where reading `next` is the first that is not before it.
fn border(readings: &[Reading], next: usize, border: Nanos) -> Option<f64> {
    let (after, before) = (readings.get(next)?, readings.get(next.checked_sub(1)?)?);
    let width = after.at().millis_after(before.at());
    if width <= 0.0 {
        return Some(after.value);
    }
    let share = border.millis_after(before.at()) / width;
    Some(before.value + (after.value - before.value) * share)
}

/// From reading to reading, where they were to come every `interval`.
fn longest_step(interval: Nanos) -> Nanos {
    LONGEST_GAP.max(Nanos(interval.0.saturating_mul(3)))
}

fn longest_gap(readings: &[Reading], window: Window, interval: Nanos) -> Option<Gap> {
    let most = longest_step(interval);
    let gaps = readings.windows(2).filter_map(|w| match w {
        [a, b] if b.at() - a.at() > most => {
            let is_inside = window.from <= a.at() && b.at() <= window.to;
            Some(Gap { longest: b.at() - a.at(), is_inside })
        }
        _ => None,
    });
    gaps.reduce(|a, b| Gap {
        longest: a.longest.max(b.longest),
        is_inside: a.is_inside && b.is_inside,
    })
}

#[cfg(test)]
mod tests;
