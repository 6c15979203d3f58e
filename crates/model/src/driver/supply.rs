//! Where due requests come from: a schedule, a trace, or the slots of a closed loop.
//!
//! Times are offsets from the start of the phase.

use super::{LoadShape, Shard, Think};
use crate::arrival::Arrivals;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

/// A part of a trace, by offsets from its start before it is sped up.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Window {
    /// From here on, and this becomes the start of the phase.
    pub from: Nanos,
    /// What is due at or after this is left out; absent = to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Nanos>,
}

impl Window {
    /// The positions of `due`, which does not decrease, that lie in it. Whoever takes the content of
    /// requests from the trace as well finds request 0 at the start of this range.
    pub fn range(&self, due: &[Nanos]) -> Range<usize> {
        let first = due.partition_point(|at| *at < self.from);
        let end = self.to.map_or(due.len(), |to| due.partition_point(|at| *at < to));
        first..end.max(first)
    }
}

/// What will be due.
#[derive(Debug)]
pub(super) enum Supply {
    /// Everything at the start.
    AtOnce,
    /// Nothing any more.
    Spent,
    /// The idle slots of a closed loop, by when each sends again.
    Slots { idle: BinaryHeap<Reverse<Nanos>>, think: Option<Think> },
    /// This shard's part of an endless or a bounded schedule.
    Schedule { arrivals: Arrivals, shard: Shard, next: Option<Nanos> },
    /// This shard's part of a trace.
    Trace(Trace),
}

#[derive(Debug)]
pub(super) struct Trace {
    due: Arc<[Nanos]>,
    shard: Shard,
    range: Range<usize>,
    from: Nanos,
    speed: f64,
    next: Option<Nanos>,
}

impl Supply {
    pub(super) fn new(shape: &LoadShape, shard: Shard) -> Self {
        match shape {
            LoadShape::Burst => Self::AtOnce,
            LoadShape::Closed { concurrency, ramp_up, think } => {
                let of = u64::from(*concurrency);
                let ramp_up = ramp_up.unwrap_or(Nanos::ZERO);
                let comes_in = |n| Reverse(part(ramp_up, shard.index_of(n), of));
                let idle = (0..shard.share(of)).map(comes_in).collect();
                Self::Slots { idle, think: *think }
            }
            LoadShape::Open { arrival, rate_rps, seed, .. } => {
                let mut arrivals = Arrivals::new(*arrival, rate_rps, *seed);
                let next = arrivals.nth(usize::from(shard.index));
                Self::Schedule { arrivals, shard, next }
            }
            LoadShape::Replay { speed, window, due, .. } => {
                let mut range = window.range(due);
                range.start = (range.start + usize::from(shard.index)).min(range.end);
                let (due, from, speed) = (Arc::clone(due), window.from, *speed);
                let mut trace = Trace { due, shard, range, from, speed, next: None };
                trace.advance();
                Self::Trace(trace)
            }
        }
    }

    /// When the next request is due; `None` where none is, as far as is known now.
    pub(super) fn next(&self) -> Option<Nanos> {
        match self {
            Self::AtOnce | Self::Spent => None,
            Self::Slots { idle, .. } => idle.peek().map(|Reverse(at)| *at),
            Self::Schedule { next, .. } => *next,
            Self::Trace(trace) => trace.next,
        }
    }

    /// Takes the next request.
    pub(super) fn advance(&mut self) {
        match self {
            Self::AtOnce | Self::Spent => {}
            Self::Slots { idle, .. } => {
                idle.pop();
            }
            // Every shard draws the whole sequence and keeps its own share, so that the union over
            // shards is the sequence of one.
            Self::Schedule { arrivals, shard, next } => {
                *next = arrivals.nth(usize::from(shard.count.max(1)) - 1);
            }
            Self::Trace(trace) => trace.advance(),
        }
    }

    /// The slot of request `index`, which ended at `at`, sends again when it has thought.
    pub(super) fn slot_freed(&mut self, index: u64, at: Nanos) {
        if let Self::Slots { idle, think } = self {
            idle.push(Reverse(at + think.map_or(Nanos::ZERO, |t| t.after(index))));
        }
    }
}

impl Trace {
    fn advance(&mut self) {
        let at = self.due.get(self.range.start).filter(|_| !self.range.is_empty());
        self.next = at.map(|at| faster(*at - self.from, self.speed));
        let step = usize::from(self.shard.count.max(1));
        self.range.start = self.range.start.saturating_add(step).min(self.range.end);
    }
}

fn faster(offset: Nanos, speed: f64) -> Nanos {
    // At the trace's own speed nothing is rounded, also after the 104 days that a double holds.
    if (speed - 1.0).abs() < f64::EPSILON {
        return offset;
    }
    Nanos::from_secs_f64(offset.as_secs_f64() / speed)
}

/// `span * n / of`, without rounding in between.
fn part(span: Nanos, n: u64, of: u64) -> Nanos {
    let product = u128::from(span.0) * u128::from(n) / u128::from(of.max(1));
    Nanos(u64::try_from(product).unwrap_or(u64::MAX))
}
