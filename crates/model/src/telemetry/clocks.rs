//! Two monotonic clocks: how far one is from the other, by questions and answers over one channel.
//!
//! A question leaves here at `sent`, is read there at `got`, answered there at `answered`, and the answer is
//! here at `arrived`. Whatever the two ways took, `got` is not before `sent` and `arrived` not before
//! `answered`. So the far clock is ahead of ours by at most `got - sent` and at least `answered - arrived`:
//! the middle of the two is wrong by no more than half of what both ways took together, however unequal
//! they were. Of a burst of questions the one whose ways took least is believed.

use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// By how much the rate of a clock may change between two bursts: ten times what quartz does in a room.
const WANDER: f64 = 20e-6;
/// The most that NTP lets a clock run fast or slow: what moved more was set, or slept.
const FASTEST_DRIFT: f64 = 500e-6;

/// One question and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Before it was sent, by our clock.
    pub sent: Nanos,
    /// When it was there, by the far clock.
    pub got: Nanos,
    /// When the answer left there, by the far clock.
    pub answered: Nanos,
    /// When that was here, by our clock.
    pub arrived: Nanos,
}

impl Ping {
    /// What both ways took; nothing where the times cannot be.
    fn on_the_way(&self) -> Option<Nanos> {
        let (here, there) =
            (self.arrived.0.checked_sub(self.sent.0)?, self.answered.0.checked_sub(self.got.0)?);
        here.checked_sub(there).map(Nanos)
    }
}

/// How far the far clock was ahead at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fix {
    /// When, by the far clock.
    pub far: Nanos,
    /// The far clock minus ours, in nanoseconds.
    pub offset_ns: i128,
    /// By how much that may be wrong either way.
    pub bound: Nanos,
}

impl Fix {
    /// From the best of a burst; nothing where no answer can be used.
    pub fn of(burst: &[Ping]) -> Option<Self> {
        let usable = burst.iter().filter_map(|p| Some((p.on_the_way()?, p)));
        let (way, best) = usable.min_by_key(|(way, _)| *way)?;
        let most = i128::from(best.got.0) - i128::from(best.sent.0);
        let least = i128::from(best.answered.0) - i128::from(best.arrived.0);
        let far = Nanos(best.got.0 / 2 + best.answered.0 / 2);
        // Half of an odd number is rounded up: the bound is one.
        Some(Self { far, offset_ns: (most + least).div_euclid(2), bound: Nanos(way.0 / 2 + 1) })
    }
}

/// The clock of a host against ours over a measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostClock {
    /// Host in the file.
    pub host: String,
    /// Its monotonic clock minus ours at the end of the measurement, in seconds; of a host that a Prometheus server tells
    /// of, that server's wall clock minus the one of this machine.
    pub offset_s: f64,
    /// By how much its clock is faster, in parts per million; absent with fewer than two bursts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_ppm: Option<f64>,
    /// By how much a time of it, as readings have it, may be wrong either way, in seconds.
    pub bound_s: f64,
    /// By how much it was set, or slept, between two bursts, in seconds; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stepped_s: Option<f64>,
}

/// The clock of one host, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FarClock {
    /// In the order of their times.
    fixes: Vec<Fix>,
}

/// Between two fixes: where, how wide, and what changed.
#[derive(Debug, Clone, Copy)]
struct Leg {
    from: Fix,
    to: Fix,
}

impl Leg {
    fn nanos(&self) -> f64 {
        self.to.far.0.saturating_sub(self.from.far.0) as f64
    }

    fn grown(&self) -> f64 {
        (self.to.offset_ns - self.from.offset_ns) as f64
    }

    /// What the two fixes cannot explain by their bounds and the rate of a clock, in nanoseconds.
    fn step(&self) -> Option<f64> {
        let explained = (self.from.bound + self.to.bound).0 as f64 + FASTEST_DRIFT * self.nanos();
        (self.grown().abs() > explained).then(|| self.grown())
    }

    fn drift(&self) -> Option<f64> {
        (self.nanos() > 0.0).then(|| self.grown() / self.nanos())
    }

    /// The widest bound of any time in it, in nanoseconds.
    fn bound(&self) -> f64 {
        let fixed = self.from.bound.max(self.to.bound).0 as f64;
        fixed + WANDER * self.nanos() / 2.0 + self.step().map_or(0.0, f64::abs)
    }
}

impl FarClock {
    /// Learns what a burst gave; one that is not after all others is left out.
    pub fn learn(&mut self, fix: Fix) {
        if self.fixes.last().is_none_or(|last| last.far < fix.far) {
            self.fixes.push(fix);
        }
    }

    /// Forgets all bursts but the last, which the next measurement begins with.
    pub fn forget_but_last(&mut self) {
        self.fixes.drain(..self.fixes.len().saturating_sub(1));
    }

    fn legs(&self) -> impl Iterator<Item = Leg> + '_ {
        self.fixes.windows(2).filter_map(|pair| match pair {
            [from, to] => Some(Leg { from: *from, to: *to }),
            _ => None,
        })
    }

    /// How far the far clock is ahead when it shows `far`, and by how much that may be wrong; in nanoseconds.
    fn at(&self, far: Nanos) -> Option<(i128, f64)> {
        let next = self.fixes.partition_point(|fix| fix.far <= far);
        let before = next.checked_sub(1).and_then(|i| self.fixes.get(i));
        match (before, self.fixes.get(next)) {
            (Some(from), Some(to)) => Some(within(Leg { from: *from, to: *to }, far)),
            (Some(only), None) | (None, Some(only)) => {
                let away = far.0.abs_diff(only.far.0) as f64;
                Some((only.offset_ns, only.bound.0 as f64 + FASTEST_DRIFT * away))
            }
            (None, None) => None,
        }
    }

    /// A span of the far clock, as one of ours that holds it whatever the error; nothing where the clock is
    /// not known.
    pub fn here(&self, from: Nanos, to: Nanos) -> Option<(Nanos, Nanos)> {
        let ours = |far: Nanos, side: i128| {
            let (offset, bound) = self.at(far)?;
            let at = i128::from(far.0) - offset + side * whole(bound);
            Some(Nanos(u64::try_from(at.max(0)).unwrap_or(u64::MAX)))
        };
        Some((ours(from, -1)?, ours(to, 1)?))
    }

    /// What is to be said of the clock of `host`, by which readings were taken at the times `read`; nothing where it was
    /// never asked.
    pub fn summary(&self, host: &str, read: impl Iterator<Item = Nanos>) -> Option<HostClock> {
        let (first, last) = (self.fixes.first()?, self.fixes.last()?);
        let whole_span = Leg { from: *first, to: *last };
        let read = read.filter_map(|far| Some(self.at(far)?.1));
        let bounds = self.legs().map(|leg| leg.bound()).chain(read);
        let step =
            self.legs().filter_map(|leg| leg.step()).max_by(|a, b| a.abs().total_cmp(&b.abs()));
        Some(HostClock {
            host: host.to_owned(),
            offset_s: last.offset_ns as f64 / 1e9,
            drift_ppm: whole_span.drift().filter(|_| step.is_none()).map(|drift| drift * 1e6),
            bound_s: bounds.fold(last.bound.0 as f64, f64::max) / 1e9,
            stepped_s: step.map(|ns| ns / 1e9),
        })
    }
}

/// On the line between two fixes.
fn within(leg: Leg, far: Nanos) -> (i128, f64) {
    let done = far.0.saturating_sub(leg.from.far.0) as f64 / leg.nanos().max(1.0);
    (leg.from.offset_ns + whole(leg.grown() * done), leg.bound())
}

#[expect(clippy::cast_possible_truncation, reason = "nanoseconds of a clock; `as` saturates")]
fn whole(nanos: f64) -> i128 {
    nanos.round() as i128
}

#[cfg(test)]
mod tests;
