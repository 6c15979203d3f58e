//! One class beside others against itself alone.

use crate::analysis::compare::{Side, of_loads};
use crate::metrics;
use crate::results::Estimate;
use crate::stats::percentile::split;
use serde::{Deserialize, Serialize};

/// By how much a metric of one class is larger beside others than alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Slowdown {
    /// Metric, as `ttft.p95`.
    pub metric: String,
    /// Value beside others, of all completed requests of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<f64>,
    /// Value alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<f64>,
    /// `beside / alone`; 1 is no slowdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Estimate>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// The point of load `alone` that `mixed` is held against: of the same deployment at the level of the same name, or at
/// the only one.
pub(super) fn alone<'a, 'b>(
    mixed: &Side<'_>,
    sides: &'b [Side<'a>],
    alone: &str,
) -> Result<&'b Side<'a>, String> {
    let is_there =
        |s: &&Side<'_>| s.result.deployment == mixed.result.deployment && s.result.load == alone;
    let there: Vec<&Side<'a>> = sides.iter().filter(is_there).collect();
    let same = there.iter().find(|s| s.result.level == mixed.result.level);
    match (there.as_slice(), same) {
        ([], _) => Err(format!("load '{alone}' was not measured here")),
        ([only], _) => Ok(only),
        (_, Some(same)) => Ok(same),
        (_, None) => Err(format!("load '{alone}' has no level {}", mixed.result.level)),
    }
}

/// `class` on the metric `name`.
pub(super) fn one(
    name: &str,
    class: &str,
    mixed: &Side<'_>,
    alone: Result<&&Side<'_>, &String>,
) -> Slowdown {
    let none = |absent: String| Slowdown {
        metric: name.to_owned(),
        beside: None,
        alone: None,
        ratio: None,
        absent: Some(absent),
    };
    let alone = match alone {
        Ok(alone) => alone,
        Err(why) => return none(why.clone()),
    };
    let (stem, stat) = split(name);
    let Some(metric) = metrics::find(stem).filter(|m| m.is_of_requests()) else {
        return none(format!("{stem} is of a whole load, not of the requests of a class"));
    };
    let (beside, alone) = (mixed.of_class(class), alone.of_class(class));
    for (side, place) in [(&beside, "beside others"), (&alone, "alone")] {
        if completed(side) < 2 {
            return none(format!("fewer than two requests of class '{class}' completed {place}"));
        }
    }
    match of_loads(metric, stat.unwrap_or("mean"), &beside, &alone) {
        Some(found) => Slowdown {
            metric: name.to_owned(),
            beside: Some(found.value),
            alone: Some(found.base_value),
            ratio: Some(found.ratio),
            absent: None,
        },
        None => none(format!("the requests of class '{class}' have no {stem} to be compared")),
    }
}

fn completed(side: &Side<'_>) -> usize {
    side.records().filter(|(_, r)| r.is_completed()).count()
}
