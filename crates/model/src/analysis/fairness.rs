//! What the requests of one class suffer from those of others: the mixed load of seed 5.
//!
//! **Invariants:** a slowdown is of one class on one deployment, beside others against alone; both values are of all
//! its completed requests, pooled. What has no value says why.

use super::compare::Side;
use crate::distinct::distinct;
use crate::metrics;
use crate::spec::{ExpectSpec, ReportKind, ReportSpec};
use crate::stats::percentile::split;
use crate::trust::TrustLevel;
use crate::workload::Source;
use serde::{Deserialize, Serialize};

mod share;
mod slowdown;
#[cfg(test)]
mod tests;
pub mod ways;

pub use share::Evenness;
pub use slowdown::Slowdown;

/// What an `[[expect]]` calls Jain's index.
pub const JAIN: &str = "jain";

/// Begins the names of slowdowns: `slowdown.ttft.p95`.
const SLOWDOWN: &str = "slowdown.";

/// Metrics that every class is held against itself on.
pub const USUAL: [&str; 4] = ["ttft.p50", "ttft.p95", "e2e.p50", "e2e.p95"];

/// How the requests of a mixed load fared beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Fairness {
    /// Deployment name.
    pub deployment: String,
    /// The load that has several classes.
    pub load: String,
    /// Label of its level.
    pub level: String,
    /// The class that counts, where a report names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The load where its classes are alone; absent where no report names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// Label of the level there that slowdowns are against; absent where none was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_level: Option<String>,
    /// How evenly latency is spread; absent where fewer than two requests have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evenness: Option<Evenness>,
    /// Each class, by name.
    pub classes: Vec<ClassFairness>,
    /// How far its numbers can be relied on: the less of both points.
    pub trust: TrustLevel,
}

/// How one class fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClassFairness {
    /// Its name.
    pub class: String,
    /// Its measured requests that had a first token, over all trials.
    pub requests: u64,
    /// Those of them that waited behind others: the first token came after that of a request of another class that
    /// was due no earlier.
    pub overtaken: u64,
    /// Against itself alone; empty where it does not count, or no load is named where it is alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowdowns: Vec<Slowdown>,
}

impl Fairness {
    /// The slowdown on `metric` (`ttft.p95`): of the classes that count, the largest.
    ///
    /// # Errors
    /// Why there is none.
    pub fn slowdown(&self, metric: &str) -> Result<f64, String> {
        let found = self.classes.iter().flat_map(|c| &c.slowdowns).filter(|s| s.metric == metric);
        let mut largest: Option<f64> = None;
        for slowdown in found {
            match (&slowdown.ratio, &slowdown.absent) {
                (Some(ratio), _) => {
                    largest = Some(largest.map_or(ratio.point, |l| l.max(ratio.point)));
                }
                (None, why) => return Err(why.clone().unwrap_or_default()),
            }
        }
        largest.ok_or_else(|| self.why_no_slowdown())
    }

    /// Jain's index.
    ///
    /// # Errors
    /// Why there is none.
    pub fn jain(&self) -> Result<f64, String> {
        let why = || "fewer than two of its requests have a latency per output token".to_owned();
        self.evenness.as_ref().map(|e| e.jain).ok_or_else(why)
    }

    fn why_no_slowdown(&self) -> String {
        match (&self.alone, &self.alone_level) {
            (None, _) => "no report of kind fairness names where its classes are alone".to_owned(),
            (Some(alone), None) => format!("load '{alone}' was not measured here"),
            (Some(alone), Some(_)) => format!("none of its classes was measured in load '{alone}'"),
        }
    }
}

/// The metric whose slowdown `name` is, under the name that results have: `ttft.p95` of `slowdown.ttft_ms.p95`.
pub fn slowdown_of(name: &str) -> Option<String> {
    let (stem, stat) = split(name.strip_prefix(SLOWDOWN)?);
    let metric = metrics::find(stem)?;
    let short = metric.name.strip_suffix("_ms").unwrap_or(metric.name);
    Some(format!("{short}.{}", stat.unwrap_or("mean")))
}

/// Of every fairness report, and of every other point of a mix, which has no slowdown then.
pub(super) fn all(
    sides: &[Side<'_>],
    reports: &[ReportSpec],
    expects: &[ExpectSpec],
) -> Vec<Fairness> {
    let mut out = Vec::new();
    let asked = |name: &String| slowdown_of(name);
    let expected: Vec<String> = expects.iter().filter_map(|e| asked(&e.metric)).collect();
    for report in reports.iter().filter(|r| r.kind == ReportKind::Fairness) {
        let metrics = names(report.metrics.iter().filter_map(asked).chain(expected.clone()));
        let is_mixed = |s: &&Side<'_>| Some(&s.result.load) == report.mixed.as_ref();
        let is_shown = |s: &&Side<'_>| {
            report.deploy.is_empty() || report.deploy.contains(&s.result.deployment)
        };
        for mixed in sides.iter().filter(is_mixed).filter(is_shown) {
            out.push(of_report(mixed, sides, report, &metrics));
        }
    }
    let is_mix = |s: &&Side<'_>| matches!(s.point.workload.source, Source::Mix { .. });
    for side in sides.iter().filter(is_mix) {
        if !out.iter().any(|f| is_of(f, side)) {
            out.push(without_alone(side));
        }
    }
    out
}

fn is_of(fairness: &Fairness, side: &Side<'_>) -> bool {
    let point = side.result;
    fairness.deployment == point.deployment
        && fairness.load == point.load
        && fairness.level == point.level
}

/// The usual metrics, and those asked for besides.
fn names(asked: impl Iterator<Item = String>) -> Vec<String> {
    distinct(USUAL.map(str::to_owned).into_iter().chain(asked))
}

fn without_alone(mixed: &Side<'_>) -> Fairness {
    Fairness {
        deployment: mixed.result.deployment.clone(),
        load: mixed.result.load.clone(),
        level: mixed.result.level.clone(),
        by: None,
        alone: None,
        alone_level: None,
        evenness: share::evenness(mixed),
        classes: share::classes(mixed),
        trust: mixed.result.trust.level,
    }
}

fn of_report(
    mixed: &Side<'_>,
    sides: &[Side<'_>],
    report: &ReportSpec,
    metrics: &[String],
) -> Fairness {
    let mut out =
        Fairness { by: report.by.clone(), alone: report.alone.clone(), ..without_alone(mixed) };
    let Some(alone_load) = &report.alone else { return out };
    let alone = slowdown::alone(mixed, sides, alone_load);
    if let Ok(alone) = alone {
        out.alone_level = Some(alone.result.level.clone());
        out.trust = out.trust.max(alone.result.trust.level);
    }
    for class in &mut out.classes {
        let counts = match (&report.by, &alone) {
            (Some(by), _) => class.class == *by,
            (None, Ok(alone)) => alone.records().any(|(_, r)| r.class == class.class),
            (None, Err(_)) => true,
        };
        let of = |name: &String| slowdown::one(name, &class.class, mixed, alone.as_ref());
        class.slowdowns = metrics.iter().filter(|_| counts).map(of).collect();
    }
    out
}
