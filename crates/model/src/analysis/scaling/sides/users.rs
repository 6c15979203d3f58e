//! Sizes where a user of each gets as much: throughput read off between levels, at one interactivity that all of them
//! were measured around.

use super::{Basis, LeftOut, Measured, Scaling, ScalingAsk, Side, shape, study};
use crate::analysis::pareto::Axes;
use crate::distinct::distinct;
use crate::metrics::{self, Better};
use crate::stats::monotone::Monotone;
use crate::stats::percentile::split;
use crate::trust::TrustLevel;
use crate::units::significant;

/// What a user gets.
const INTERACTIVITY: &str = "interactivity_tps.p50";

/// Levels whose users differ by less tell nothing of what lies between them.
const APART: f64 = 1.1;

/// The levels of a deployment that none of its others beats.
struct Grown<'a, 'b> {
    side: &'b Side<'a>,
    points: Vec<(f64, f64)>,
}

impl Grown<'_, '_> {
    /// Its levels differ by more than runs do.
    fn is_apart(&self) -> bool {
        self.reach().is_some_and(|(low, high)| high >= APART * low)
    }

    fn reach(&self) -> Option<(f64, f64)> {
        Some((self.points.first()?.0, self.points.last()?.0))
    }
}

/// A study of each load of which the baseline and another size have several levels. No interval is known for what
/// lies between two levels.
pub(super) fn at_interactivity(
    ask: &ScalingAsk<'_>,
    metric: &str,
    sides: &[Side<'_>],
) -> Vec<Scaling> {
    let better = metrics::find(split(metric).0).map(|m| m.better);
    let axes = Axes::of(INTERACTIVITY, metric);
    let Some(axes) = axes.filter(|_| better == Some(Better::Higher)) else { return Vec::new() };
    let loads = distinct(sides.iter().map(|s| s.result.load.as_str()));
    loads.into_iter().filter_map(|load| of_load(ask, (metric, axes), load, sides)).collect()
}

fn of_load(
    ask: &ScalingAsk<'_>,
    (metric, axes): (&str, Axes),
    load: &str,
    sides: &[Side<'_>],
) -> Option<Scaling> {
    let of_load: Vec<&Side<'_>> = sides.iter().filter(|s| s.result.load == load).collect();
    let mut firsts: Vec<&Side<'_>> = Vec::new();
    for side in &of_load {
        if !firsts.iter().any(|f| f.result.deployment == side.result.deployment) {
            firsts.push(side);
        }
    }
    let grown: Vec<Grown<'_, '_>> = ask
        .ordered(&firsts)?
        .into_iter()
        .map(|side| Grown { side, points: front(metric, axes, side, &of_load) })
        .collect();
    // One level is a point of the study at the load, and nothing to read between.
    let base = grown.first().filter(|g| g.is_apart())?.reach()?;
    let (shared, apart): (Vec<&Grown<'_, '_>>, Vec<&Grown<'_, '_>>) =
        grown.iter().partition(|g| g.is_apart() && meets(base, g.reach()));
    let (low, high) = shared
        .iter()
        .filter_map(|g| g.reach())
        .fold(base, |(low, high), (l, h)| (low.max(l), high.min(h)));
    if shared.len() < 2 || low > high {
        return None;
    }
    // The middle of what all were measured at, as ratios go.
    let tps = (low * high).sqrt().clamp(low, high);
    let sizes: Vec<Measured> = shared.iter().filter_map(|g| read(g, tps)).collect();
    let left_out = apart.iter().map(|g| LeftOut {
        deployment: g.side.result.deployment.clone(),
        why: format!(
            "it was not measured at several levels around {} tokens/s of a user",
            significant(tps)
        ),
    });
    let basis = Basis::Interactivity { tps };
    study((metric, Better::Higher), load, basis, &sizes, left_out.collect())
}

fn meets(base: (f64, f64), reach: Option<(f64, f64)>) -> bool {
    reach.is_some_and(|(low, high)| low.max(base.0) <= high.min(base.1))
}

/// By interactivity; levels that cannot be trusted have no part in it.
fn front(metric: &str, axes: Axes, of: &Side<'_>, sides: &[&Side<'_>]) -> Vec<(f64, f64)> {
    let mine = sides.iter().filter(|s| {
        s.result.deployment == of.result.deployment && s.result.trust.level < TrustLevel::Invalid
    });
    let place = |s: &&&Side<'_>| Some((s.result.value(INTERACTIVITY)?, s.result.value(metric)?));
    let all = mine.filter_map(|s| place(&s)).filter(|(x, y)| x.is_finite() && y.is_finite());
    let curve = axes.curve(all.map(|place| ((), place)).collect());
    curve.into_iter().map(|(_, place)| place).collect()
}

fn read(of: &Grown<'_, '_>, tps: f64) -> Option<Measured> {
    let result = of.side.result;
    Some(Measured {
        deployment: result.deployment.clone(),
        shape: shape(of.side.plan, &result.deployment),
        level: "between levels".to_owned(),
        asked: None,
        is_rate_given: false,
        value: Monotone::through(of.points.clone())?.at(tps)?,
        spread: None,
        ratio_range: None,
        failed: 0.0,
        trust: TrustLevel::Sound,
        mark: None,
    })
}
