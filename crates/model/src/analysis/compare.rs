//! One deployment against another: ratios with intervals that say what they hold, and what follows from them.
//!
//! All metrics of a pair are one family: the chance that any of them is called different where nothing is, is held
//! at 5 % (Holm). How a ratio is found: `ratio`.

use super::{Frame, TrialRecords};
use crate::metrics::{self, Better};
use crate::plan::{Plan, PointPlan};
use crate::request::RequestRecord;
use crate::results::{Comparison, ComparisonVerdict, Estimate, PointResult};
use crate::stats::contrast::holm;
use crate::stats::percentile::split;
use crate::stats::scaling::Spread;
use crate::trust::TrustLevel;
use ratio::{Ratio, ratio};
pub(super) use ratio::{RunToRun, is_beside_others, may_be_another, of_loads};

mod blocks;
pub(super) mod draws;
mod ratio;

/// The smallest relative difference that is called one. Two runs of one deployment differ by that much.
pub const SMALLEST_DIFFERENCE: f64 = 0.01;

/// The chance at which any metric of a pair may be called different where none is.
const ALPHA: f64 = 0.05;

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What is said of the point.
    pub result: &'a PointResult,
    /// Its records.
    pub trials: &'a [TrialRecords],
    /// What was asked.
    pub point: &'a PointPlan,
    /// The plan that it is part of.
    pub plan: &'a Plan,
    /// Only requests of this class, where it names one.
    pub class: Option<&'a str>,
}

impl<'a> Side<'a> {
    /// The same point, looked at through the requests of one class.
    pub(super) fn of_class<'b>(&self, class: &'b str) -> Side<'b>
    where
        'a: 'b,
    {
        Side { class: Some(class), ..*self }
    }

    /// Its requests, each with the number of its trial.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, &'a RequestRecord)> + use<'a> {
        let (trials, class) = (self.trials, self.class);
        let all = trials.iter().flat_map(|t| t.records.iter().map(|r| (t.number, r)));
        all.filter(move |(_, r)| class.is_none_or(|c| r.class == c))
    }
}

/// Metrics that every pair is compared on.
pub(super) const DEFAULT_METRICS: [&str; 5] =
    ["output_tps_per_gpu", "output_tps", "ttft.p50", "tpot.p50", "e2e.p95"];

/// Every deployment against the baseline, wherever both met the same load.
pub(super) fn all(plan: &Plan, sides: &[Side<'_>], frame: &Frame<'_>) -> Vec<Comparison> {
    let first = plan.deployments.first().map(|d| d.name.as_str());
    let Some(baseline) = frame.baseline.or(first) else { return Vec::new() };
    let names = names(&frame.metrics);
    let mut out = Vec::new();
    for group in groups(sides) {
        let Some(base) = group.iter().find(|s| s.result.deployment == baseline) else { continue };
        for side in group.iter().filter(|s| s.result.deployment != baseline) {
            out.extend(family(&names, side, base, None));
        }
    }
    out
}

/// The metrics that every pair is compared on, and those asked for besides.
pub(super) fn names<'a>(asked: &[&'a str]) -> Vec<&'a str> {
    let more = asked.iter().filter(|m| !DEFAULT_METRICS.contains(m));
    DEFAULT_METRICS.iter().chain(more).copied().collect()
}

/// Points of one load at its n-th level, over deployments. Weak-scaling loads have other labels at
/// other sizes, so levels are matched by place.
pub(super) fn groups<'a, 'b>(sides: &'b [Side<'a>]) -> Vec<Vec<&'b Side<'a>>> {
    let ordinal = |side: &Side<'_>| {
        let same = |s: &&Side<'_>| {
            s.result.deployment == side.result.deployment && s.result.load == side.result.load
        };
        sides.iter().filter(same).position(|s| s.result.level == side.result.level).unwrap_or(0)
    };
    let mut groups: Vec<(&str, String, Vec<&Side<'a>>)> = Vec::new();
    for side in sides {
        let same_label = |(load, label, _): &&mut (&str, String, Vec<&Side<'a>>)| {
            *load == side.result.load && *label == side.result.level
        };
        if let Some((_, _, group)) = groups.iter_mut().find(same_label) {
            group.push(side);
            continue;
        }
        let place = ordinal(side);
        let by_place = groups.iter_mut().find(|(load, _, group)| {
            *load == side.result.load
                && group
                    .iter()
                    .all(|s| ordinal(s) == place && s.result.deployment != side.result.deployment)
        });
        match by_place {
            Some((_, _, group)) => group.push(side),
            None => groups.push((&side.result.load, side.result.level.clone(), vec![side])),
        }
    }
    groups.into_iter().map(|(_, _, group)| group).collect()
}

/// `side` against `base` on each of `names`, as one family. A metric of which either has no value, or no interval can
/// be given, is not among them. Where the spread between runs is an assumption, so is every chance, and each interval
/// stands for itself.
pub(super) fn family(
    names: &[&str],
    side: &Side<'_>,
    base: &Side<'_>,
    margin: Option<f64>,
) -> Vec<Comparison> {
    let found: Vec<Weighed<'_>> = names.iter().filter_map(|n| weigh(n, side, base)).collect();
    let chances: Vec<f64> = found.iter().map(|w| w.ratio.contrast.p_value()).collect();
    let chances = if is_spread_told(side, base) { holm(&chances) } else { chances };
    let alpha = ALPHA / found.len().max(1) as f64;
    let judged = found.into_iter().zip(chances);
    judged.map(|(weighed, p)| weighed.judged(side, base, Test { p, alpha, margin })).collect()
}

/// `side` against `base` on `name`, judged as one of the family that tables show.
pub(super) fn one(name: &str, side: &Side<'_>, base: &Side<'_>) -> Option<Comparison> {
    // By itself it is the same without a family, and a bootstrap of each metric takes its time.
    let names = if is_spread_told(side, base) { names(&[]) } else { vec![name] };
    family(&names, side, base, None).into_iter().find(|c| c.metric == name)
}

/// The ratio of `side` over `base` on `name` with its interval, by itself.
pub(super) fn ratio_of(name: &str, side: &Side<'_>, base: &Side<'_>) -> Option<Estimate> {
    Some(weigh(name, side, base)?.ratio.estimate)
}

/// How well a side's own value of `name` is known.
pub(super) fn spread(name: &str, side: &Side<'_>) -> Option<Spread> {
    let (stem, stat) = split(name);
    Some(ratio::spread(metrics::find(stem)?, (name, stat.unwrap_or("mean")), side))
}

fn is_spread_told(side: &Side<'_>, base: &Side<'_>) -> bool {
    draws::of_two(side, base).is_some()
}

/// A metric of two sides, not yet judged.
struct Weighed<'a> {
    name: &'a str,
    better: Better,
    values: (f64, f64),
    ratio: Ratio,
}

/// What a family says of one of its metrics.
#[derive(Clone, Copy)]
struct Test {
    /// Its chance, corrected.
    p: f64,
    /// The chance at which it is called different, were no other metric.
    alpha: f64,
    margin: Option<f64>,
}

fn weigh<'a>(name: &'a str, side: &Side<'_>, base: &Side<'_>) -> Option<Weighed<'a>> {
    let (stem, stat) = split(name);
    let metric = metrics::find(stem)?;
    let values = (side.result.value(name)?, base.result.value(name)?);
    let named = (name, stat.unwrap_or("mean"));
    let ratio = ratio(metric, named, side, base, values.0 / values.1)?;
    Some(Weighed { name, better: metric.better, values, ratio })
}

impl Weighed<'_> {
    fn judged(self, side: &Side<'_>, base: &Side<'_>, test: Test) -> Comparison {
        let verdict = self.verdict(side, base, test);
        let (contrast, is_measured) = (self.ratio.contrast, self.ratio.is_measured);
        let is_open = verdict == ComparisonVerdict::NoDifferenceSeen && is_measured;
        let drawn = draws::of_two(side, base).unwrap_or_default();
        let units = (drawn.count(side), drawn.count(base));
        let needed =
            || contrast.trials_to_decide(units, (test.alpha, SMALLEST_DIFFERENCE), test.margin);
        Comparison {
            metric: self.name.to_owned(),
            load: side.result.load.clone(),
            level: side.result.level.clone(),
            deployment: side.result.deployment.clone(),
            baseline: base.result.deployment.clone(),
            value: self.values.0,
            baseline_value: self.values.1,
            ratio: self.ratio.estimate,
            verdict,
            p_value: is_measured.then_some(test.p),
            detectable: is_measured.then(|| contrast.detectable(test.alpha)),
            trials_to_decide: is_open.then(needed).flatten(),
            drawn,
        }
    }

    fn verdict(&self, side: &Side<'_>, base: &Side<'_>, test: Test) -> ComparisonVerdict {
        let trusted = |s: &Side<'_>| s.result.trust.level < TrustLevel::Invalid;
        if !trusted(side) || !trusted(base) {
            return ComparisonVerdict::NotTrusted;
        }
        let Ratio { contrast, is_measured, .. } = &self.ratio;
        // What differs between runs must have been measured before two can be called alike.
        if *is_measured && test.margin.is_some_and(|m| contrast.is_within(m)) {
            return ComparisonVerdict::Equivalent;
        }
        let ratio = contrast.ratio();
        let is_different = (ratio - 1.0).abs() >= SMALLEST_DIFFERENCE && test.p < ALPHA;
        match (is_different, ratio > 1.0, self.better) {
            (true, true, Better::Higher) | (true, false, Better::Lower) => {
                ComparisonVerdict::Better
            }
            (true, true, Better::Lower) | (true, false, Better::Higher) => ComparisonVerdict::Worse,
            _ => ComparisonVerdict::NoDifferenceSeen,
        }
    }
}
