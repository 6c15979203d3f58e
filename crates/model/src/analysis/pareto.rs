//! Which points no other point beats on both of two metrics, and what each deployment gives at a target between its
//! own points.
//!
//! **Invariants:** a point is beaten only by one that is nowhere worse and somewhere better, so equal points are kept,
//! all of them. A point that is not to be trusted neither stands on a front nor beats another. Nothing is read outside
//! of what was measured.

use super::MeasuredPoint;
use crate::metrics::{self, Better};
use crate::plan::Plan;
use crate::results::PointResult;
use crate::spec::{ReportKind, ReportSpec};
use crate::stats::percentile::split;
use crate::trust::TrustLevel;
use serde::{Deserialize, Serialize};

mod read_out;
#[cfg(test)]
mod tests;

pub use read_out::{Neighbour, ReadOut};

/// Horizontal axis of a `pareto` report that names none.
pub const USUAL_X: &str = "interactivity_tps.p50";
/// Vertical axis of a `pareto` report that names none.
pub const USUAL_Y: &str = "output_tps_per_gpu";

/// The points of one workload on two metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Front {
    /// Horizontal metric, as the report names it.
    pub x: String,
    /// Vertical metric.
    pub y: String,
    /// Deployments that the report is restricted to; empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deploy: Vec<String>,
    /// Loads that it is restricted to; empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<String>,
    /// Targets of the report on the horizontal axis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<f64>,
    /// What was asked: points of another workload have a front of their own.
    pub workload: String,
    /// Points in the order of the run.
    pub points: Vec<FrontPoint>,
    /// What each deployment gives at each target of the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_outs: Vec<ReadOut>,
}

/// A point on two metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FrontPoint {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Label of the level.
    pub level: String,
    /// Value of the horizontal metric; absent where the point has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// Value of the vertical metric; absent where the point has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<f64>,
    /// No other trusted point beats it.
    pub is_on_front: bool,
    /// Whether its numbers can be relied on.
    pub trust: TrustLevel,
}

impl FrontPoint {
    /// Where it is, if it may be on a front at all.
    fn place(&self) -> Option<(f64, f64)> {
        let is_trusted = self.trust < TrustLevel::Invalid;
        self.x.zip(self.y).filter(|(x, y)| is_trusted && x.is_finite() && y.is_finite())
    }
}

/// Which way is better on the axes of a front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    x: Better,
    y: Better,
}

impl Axes {
    /// Of two metrics; absent where either is neither better high nor low, or is not known.
    pub fn of(x: &str, y: &str) -> Option<Self> {
        let better = |name: &str| Some(metrics::find(split(name).0)?.better);
        let axes = Self { x: better(x)?, y: better(y)? };
        (axes.x != Better::Neither && axes.y != Better::Neither).then_some(axes)
    }

    /// Both values so that more is better.
    fn raised(self, (x, y): (f64, f64)) -> (f64, f64) {
        // Zero is added so that there is but one zero to be ordered.
        let up = |better, v: f64| if better == Better::Lower { 0.0 - v } else { v + 0.0 };
        (up(self.x, x), up(self.y, y))
    }

    /// Whether `a` is nowhere worse than `b` and somewhere better.
    pub fn beats(self, a: (f64, f64), b: (f64, f64)) -> bool {
        let (a, b) = (self.raised(a), self.raised(b));
        a.0 >= b.0 && a.1 >= b.1 && (a.0 > b.0 || a.1 > b.1)
    }

    /// Of each point, whether no other beats it.
    pub fn front(self, points: &[(f64, f64)]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..points.len()).collect();
        let at = |i: &usize| self.raised(points[*i]);
        // Best on x first, of those the best on y: what beats a point comes before it.
        order.sort_by(|a, b| at(b).0.total_cmp(&at(a).0).then(at(b).1.total_cmp(&at(a).1)));
        let mut out = vec![false; points.len()];
        let mut best: Option<(f64, f64)> = None;
        for i in order {
            let point = at(&i);
            out[i] = match best {
                Some((x, y)) if point.1 > y || (point.0 >= x && point.1 >= y) => true,
                Some(_) => false,
                None => true,
            };
            if out[i] {
                best = Some(point);
            }
        }
        out
    }

    /// Those of one deployment that none of its others beats, by `x`; of equal ones the first.
    pub(super) fn curve<T>(self, placed: Vec<(T, (f64, f64))>) -> Vec<(T, (f64, f64))> {
        let places: Vec<(f64, f64)> = placed.iter().map(|(_, place)| *place).collect();
        let kept = placed.into_iter().zip(self.front(&places)).filter(|(_, is_kept)| *is_kept);
        let mut curve: Vec<(T, (f64, f64))> = kept.map(|(placed, _)| placed).collect();
        curve.sort_by(|(_, a), (_, b)| a.0.total_cmp(&b.0));
        // On a front two points of one place on x are one point.
        curve.dedup_by(|(_, b), (_, a)| a.0 >= b.0);
        curve
    }
}

/// The fronts of all `pareto` reports, one a workload.
pub(super) fn all(
    plan: &Plan,
    measured: &[&MeasuredPoint<'_>],
    results: &[PointResult],
    reports: &[ReportSpec],
) -> Vec<Front> {
    let reports = reports.iter().filter(|r| r.kind == ReportKind::Pareto);
    reports.flat_map(|report| of_report(plan, measured, results, report)).collect()
}

fn of_report(
    plan: &Plan,
    measured: &[&MeasuredPoint<'_>],
    results: &[PointResult],
    report: &ReportSpec,
) -> Vec<Front> {
    let (x, y) = report.axes();
    let Some(axes) = Axes::of(x, y) else { return Vec::new() };
    let mut fronts: Vec<Front> = Vec::new();
    for (measured, result) in measured.iter().zip(results).filter(|(_, r)| report.shows(r)) {
        let point = FrontPoint {
            deployment: result.deployment.clone(),
            load: result.load.clone(),
            level: result.level.clone(),
            x: result.value(x),
            y: result.value(y),
            is_on_front: false,
            trust: result.trust.level,
        };
        let workload = &measured.plan.workload.name;
        match fronts.iter_mut().find(|f| f.workload == *workload) {
            Some(front) => front.points.push(point),
            None => fronts.push(Front {
                x: x.to_owned(),
                y: y.to_owned(),
                deploy: report.deploy.clone(),
                load: report.load.clone(),
                at: report.at.as_ref().map_or_else(Vec::new, |at| at.0.clone()),
                workload: workload.clone(),
                points: vec![point],
                read_outs: Vec::new(),
            }),
        }
    }
    let first = plan.deployments.first().map(|d| d.name.as_str());
    let baseline = report.baseline.as_deref().or(first);
    for front in &mut fronts {
        mark(&mut front.points, axes);
        let read = |at: &f64| read_out::all(&front.points, axes, (x, *at), baseline);
        front.read_outs = front.at.iter().flat_map(read).collect();
    }
    fronts
}

fn mark(points: &mut [FrontPoint], axes: Axes) {
    let (who, places): (Vec<usize>, Vec<(f64, f64)>) =
        points.iter().enumerate().filter_map(|(i, p)| Some((i, p.place()?))).unzip();
    for (i, is_on_front) in who.into_iter().zip(axes.front(&places)) {
        points[i].is_on_front = is_on_front;
    }
}
