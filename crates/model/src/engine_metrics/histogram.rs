//! Observations by bucket, as Prometheus counts them.

use serde::{Deserialize, Serialize};

/// A bound as far is none: `+Inf`, or a page of nonsense.
const FARTHEST: f64 = 1e290;

/// How many observations were at most each bound, and their sum.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Finite upper bounds with the number of observations up to each, in order. None where the engine counts
    /// and adds up only, or its buckets contradict each other.
    buckets: Vec<(f64, f64)>,
    count: f64,
    sum: f64,
}

/// A quantile read from buckets. The truth is somewhere in its bucket; the value is interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Quantile {
    /// Straight between the bucket's ends; in the last bucket, which has no end, its lower one.
    pub value: f64,
    /// Lower end of the bucket.
    pub low: f64,
    /// Upper end; absent where the bucket has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

impl Histogram {
    /// Of finite bounds with cumulative counts, in any order. Buckets that contradict each other, or the
    /// count, are left out: count and sum are still what they are.
    pub fn new(mut buckets: Vec<(f64, f64)>, count: f64, sum: f64) -> Self {
        buckets.retain(|(bound, _)| bound.abs() < FARTHEST);
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.dedup_by(|a, b| a.0.total_cmp(&b.0).is_eq());
        let rises = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        let is_within = buckets.last().is_none_or(|(_, n)| *n <= count);
        let starts = buckets.first().is_none_or(|(_, n)| *n >= 0.0);
        if !(rises && is_within && starts) {
            buckets.clear();
        }
        Self { buckets, count, sum }
    }

    /// Observations.
    pub const fn count(&self) -> f64 {
        self.count
    }

    /// Their sum.
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Their mean; absent where there is none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count).filter(|mean| mean.is_finite())
    }

    /// With bounds and sum in another unit.
    pub(super) fn scaled(mut self, by: f64) -> Self {
        self.buckets.iter_mut().for_each(|(bound, _)| *bound *= by);
        self.sum *= by;
        self
    }

    /// The observations of both. Of bounds that only one of them has nothing is known of the other, so they
    /// are left out.
    pub(super) fn joined(&self, other: &Self) -> Self {
        if self.count <= 0.0 {
            return other.clone();
        }
        if other.count <= 0.0 {
            return self.clone();
        }
        let both = self.at_bounds_of(other).map(|(bound, a, b)| (bound, a + b));
        Self::new(both.collect(), self.count + other.count, self.sum + other.sum)
    }

    /// What came since `before`; absent where it holds less than then.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let fell = self.at_bounds_of(before).any(|(_, now, then)| now < then);
        if fell || self.count < before.count || self.sum < before.sum {
            return None;
        }
        let new = self.at_bounds_of(before).map(|(bound, now, then)| (bound, now - then));
        Some(Self::new(new.collect(), self.count - before.count, self.sum - before.sum))
    }

    /// The bounds that both have, with both counts.
    fn at_bounds_of<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (f64, f64, f64)> + 'a {
        self.buckets.iter().filter_map(|(bound, mine)| {
            let at = other.buckets.binary_search_by(|(theirs, _)| theirs.total_cmp(bound)).ok()?;
            Some((*bound, *mine, other.buckets.get(at)?.1))
        })
    }

    /// The quantile `q`, 0 to 1; absent without observations or buckets.
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        let rank = q.clamp(0.0, 1.0) * self.count;
        let (last, _) = self.buckets.last()?;
        if self.count <= 0.0 {
            return None;
        }
        let holds = |(_, up_to): &(f64, f64)| *up_to >= rank && *up_to > 0.0;
        let Some(at) = self.buckets.iter().position(holds) else {
            return Some(Quantile { value: *last, low: *last, high: None });
        };
        let (high, up_to) = self.buckets[at];
        // Times and tokens begin at zero; a first bound below that has no lower end that is known.
        let (low, before) = match at.checked_sub(1) {
            Some(previous) => self.buckets[previous],
            None => (high.min(0.0), 0.0),
        };
        let part = if up_to > before { ((rank - before) / (up_to - before)).max(0.0) } else { 1.0 };
        let value = (low + part * (high - low)).clamp(low, high);
        Some(Quantile { value, low, high: Some(high) })
    }
}
