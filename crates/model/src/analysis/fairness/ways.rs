//! The same prompts as one batch, at once, and one after the other: what it brings to ask together.

use crate::analysis::compare::{self, Side};
use crate::plan::Mode;
use crate::results::Estimate;
use crate::trust::TrustLevel;
use serde::{Deserialize, Serialize};

/// One workload, so many prompts of it, asked in several ways of one deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ways {
    /// Deployment name.
    pub deployment: String,
    /// Workload name.
    pub workload: String,
    /// Prompts of a trial, the same in each way.
    pub prompts: u64,
    /// The ways, in the order of the run.
    pub ways: Vec<Way>,
}

/// One way of asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Way {
    /// `serial`, `burst`, `closed` or `batch`.
    pub mode: Mode,
    /// Load name.
    pub load: String,
    /// Label of the level.
    pub level: String,
    /// Output tokens per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tps: Option<f64>,
    /// Median of the time to the end of an answer; of a batch, of all its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e_ms_p50: Option<f64>,
    /// `output_tps` over that of the same prompts one after the other; absent of that itself, and where it was not
    /// measured or no interval can be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speedup: Option<Estimate>,
    /// How far its numbers can be relied on.
    pub trust: TrustLevel,
}

/// Deployment, workload, prompts of a trial.
type Key<'a> = (&'a str, &'a str, u64);

/// Wherever a deployment was asked the same prompts in two ways or more.
pub(in crate::analysis) fn all(sides: &[Side<'_>]) -> Vec<Ways> {
    let mut groups: Vec<(Key<'_>, Vec<&Side<'_>>)> = Vec::new();
    for side in sides {
        let Some(prompts) = prompts(side) else { continue };
        let key = (side.result.deployment.as_str(), side.point.workload.name.as_str(), prompts);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.push(side),
            None => groups.push((key, vec![side])),
        }
    }
    groups.retain(|(_, group)| group.iter().any(|s| s.result.mode != group[0].result.mode));
    groups.into_iter().map(|(key, group)| ways(key, &group)).collect()
}

/// Prompts of a trial; absent where they are not counted before, or come at times of their own.
fn prompts(side: &Side<'_>) -> Option<u64> {
    let measure = &side.point.measure;
    let is_counted = side.point.mode != Mode::Open && measure.sessions.is_none();
    let requests = measure.requests.filter(|_| is_counted && measure.duration.is_none())?;
    Some(requests * u64::from(side.point.batch.max(1)))
}

fn ways((deployment, workload, prompts): Key<'_>, group: &[&Side<'_>]) -> Ways {
    let serial = group.iter().find(|s| s.result.mode == Mode::Serial);
    let way = |side: &&Side<'_>| {
        let base = serial.filter(|s| s.result.mode != side.result.mode);
        let speedup = base.and_then(|base| compare::one("output_tps", side, base));
        Way {
            mode: side.result.mode,
            load: side.result.load.clone(),
            level: side.result.level.clone(),
            output_tps: side.result.value("output_tps"),
            e2e_ms_p50: side.result.value("e2e_ms.p50"),
            speedup: speedup.map(|c| c.ratio),
            trust: side.result.trust.level,
        }
    };
    Ways {
        deployment: deployment.to_owned(),
        workload: workload.to_owned(),
        prompts,
        ways: group.iter().map(way).collect(),
    }
}
