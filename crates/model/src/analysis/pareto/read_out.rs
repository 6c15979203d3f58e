//! What each deployment gives at a target: its own front, read between two of its points.
//!
//! A deployment's points need not go one way: beyond its capacity a curve bends back, and near each other points
//! wobble. Those that another point of the same deployment beats are left out, since nobody would run it there; what
//! is left goes one way by itself, and [`Monotone`] keeps it so in between.

use super::{Axes, FrontPoint};
use crate::distinct::distinct;
use crate::stats::monotone::Monotone;
use crate::units::significant;
use serde::{Deserialize, Serialize};

/// What a deployment gives at a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReadOut {
    /// The target, in the unit of the horizontal metric.
    pub at: f64,
    /// Deployment name.
    pub deployment: String,
    /// The vertical metric there: measured where one neighbour is named, interpolated where two are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<f64>,
    /// The measured points that it follows from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Neighbour>,
    /// `y` over that of the baseline; absent where either is. No interval is known for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Deployment that the ratio is against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Why there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// A measured point beside a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Neighbour {
    /// Load name.
    pub load: String,
    /// Label of the level.
    pub level: String,
    /// Value of the horizontal metric.
    pub x: f64,
    /// Value of the vertical metric.
    pub y: f64,
}

/// Every deployment at one target, in the order of its points.
pub(super) fn all(
    points: &[FrontPoint],
    axes: Axes,
    (metric, at): (&str, f64),
    baseline: Option<&str>,
) -> Vec<ReadOut> {
    let names = distinct(points.iter().map(|p| p.deployment.as_str()));
    let of = |name: &&str| {
        let own: Vec<&FrontPoint> = points.iter().filter(|p| p.deployment == *name).collect();
        one(name, &own, axes, (metric, at))
    };
    let mut out: Vec<ReadOut> = names.iter().map(of).collect();
    let base = out.iter().find(|r| Some(r.deployment.as_str()) == baseline);
    let Some((name, base)) = base.map(|r| (r.deployment.clone(), r.y)) else { return out };
    for read in out.iter_mut().filter(|r| r.deployment != name) {
        read.ratio = read.y.zip(base.filter(|b| *b > 0.0)).map(|(y, b)| y / b);
        read.baseline = Some(name.clone());
    }
    out
}

fn one(name: &str, own: &[&FrontPoint], axes: Axes, (metric, at): (&str, f64)) -> ReadOut {
    let curve = own_front(own, axes);
    let found = read(&curve, at);
    let absent = found.is_none().then(|| why_absent(&curve, own, (metric, at)));
    let (y, between) = found.map_or((None, Vec::new()), |(y, between)| (Some(y), between));
    let deployment = name.to_owned();
    ReadOut { at, deployment, y, between, ratio: None, baseline: None, absent }
}

/// The points of one deployment that none of its others beats, by `x`; of equal ones the first.
pub(super) fn own_front(own: &[&FrontPoint], axes: Axes) -> Vec<Neighbour> {
    let placed = own.iter().filter_map(|p| Some((*p, p.place()?))).collect();
    let neighbour = |(p, (x, y)): (&FrontPoint, (f64, f64))| Neighbour {
        load: p.load.clone(),
        level: p.level.clone(),
        x,
        y,
    };
    axes.curve(placed).into_iter().map(neighbour).collect()
}

/// The value at `at`, and the points that it lies between.
pub(super) fn read(curve: &[Neighbour], at: f64) -> Option<(f64, Vec<Neighbour>)> {
    let through = Monotone::through(curve.iter().map(|n| (n.x, n.y)).collect())?;
    let (low, high) = through.around(at)?;
    Some((through.at(at)?, curve[low..=high].to_vec()))
}

fn why_absent(curve: &[Neighbour], own: &[&FrontPoint], (metric, at): (&str, f64)) -> String {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else {
        let has_values = own.iter().any(|p| p.x.is_some() && p.y.is_some());
        return if has_values {
            "none of its points can be relied on".to_owned()
        } else {
            format!("no point has both metrics, {metric} and the one that is read")
        };
    };
    format!(
        "{metric} of {} was not measured: its points lie between {} ({} {}) and {} ({} {})",
        significant(at),
        significant(first.x),
        first.load,
        first.level,
        significant(last.x),
        last.load,
        last.level
    )
}
