//! Studies of scaling from the points of a run.

use super::{Basis, LeftOut, Mark, Measured, Scaling, Shape, study};
use crate::analysis::compare::{self, Side, groups};
use crate::distinct::distinct;
use crate::metrics::{self, Better};
use crate::plan::{DeploymentPlan, InstancePlan, Mode, Plan};
use crate::results::{Estimate, SearchResult};
use crate::spec::{ReportKind, ReportSpec};
use crate::stats::percentile::split;
use crate::trust::TrustLevel;
use std::collections::BTreeSet;

mod users;

/// A study that is asked for. What it leaves open is what a run has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScalingAsk<'a> {
    /// The deployment that the others are held against; default: the one with the fewest GPUs.
    pub baseline: Option<&'a str>,
    /// Only these deployments; empty = all.
    pub deploy: Vec<&'a str>,
    /// Only these loads; empty = all.
    pub load: Vec<&'a str>,
    /// Metrics.
    pub metrics: Vec<&'a str>,
}

const USUAL: [&str; 1] = ["output_tps"];

/// Every study that is asked for: at the load first, then at the objective, then where users get as much.
pub(in crate::analysis) fn all(
    sides: &[Side<'_>],
    probes: &[Side<'_>],
    searches: &[SearchResult],
    asks: &[ScalingAsk<'_>],
) -> Vec<Scaling> {
    let mut out = Vec::new();
    for ask in asks {
        let taken: Vec<Side<'_>> = sides.iter().filter(|s| ask.takes(s)).copied().collect();
        let probes: Vec<Side<'_>> = probes.iter().filter(|s| ask.takes(s)).copied().collect();
        for metric in &ask.metrics {
            for group in groups(&taken) {
                out.extend(ask.at_load(metric, &group));
            }
            out.extend(ask.at_objective(metric, &taken, &probes, searches));
            out.extend(users::at_interactivity(ask, metric, &taken));
        }
    }
    // Two reports may ask for the same.
    distinct(out)
}

impl<'a> ScalingAsk<'a> {
    /// Output tokens/s of all deployments.
    pub fn usual() -> Self {
        Self { metrics: USUAL.to_vec(), ..Self::default() }
    }

    /// What a `scaling` report wants to know.
    pub fn of(report: &'a ReportSpec) -> Option<Self> {
        fn all(names: &[String]) -> Vec<&str> {
            names.iter().map(String::as_str).collect()
        }
        let is_none = report.metrics.is_empty();
        (report.kind == ReportKind::Scaling).then(|| Self {
            baseline: report.baseline.as_deref(),
            deploy: all(&report.deploy),
            load: all(&report.load),
            metrics: if is_none { USUAL.to_vec() } else { all(&report.metrics) },
        })
    }
}

impl ScalingAsk<'_> {
    fn takes(&self, side: &Side<'_>) -> bool {
        let is_in = |list: &[&str], name: &str| list.is_empty() || list.contains(&name);
        is_in(&self.deploy, &side.result.deployment) && is_in(&self.load, &side.result.load)
    }

    /// The baseline first. Nothing where it is not among them, or nothing differs in size.
    fn ordered<'a, 'b>(&self, group: &[&'b Side<'a>]) -> Option<Vec<&'b Side<'a>>> {
        let gpus = |s: &Side<'_>| s.result.gpus;
        let base = match self.baseline {
            Some(name) => group.iter().find(|s| s.result.deployment == name)?,
            None => group.iter().filter(|s| gpus(s) > 0).min_by_key(|s| gpus(s))?,
        };
        let mut out = vec![*base];
        let others = group.iter().filter(|s| s.result.deployment != base.result.deployment);
        // What was not asked for by name is no study where sizes are alike or unknown.
        let is_asked = self.baseline.is_some() || !self.deploy.is_empty();
        out.extend(others.filter(|s| is_asked || gpus(s) > 0).copied());
        let grows = out.iter().any(|s| gpus(s) != gpus(base));
        (out.len() > 1 && (grows || is_asked)).then_some(out)
    }

    fn at_load(&self, metric: &str, group: &[&Side<'_>]) -> Option<Scaling> {
        let ordered = self.ordered(group)?;
        let better = metrics::find(split(metric).0)?.better;
        let base = ordered[0];
        let (sizes, left_out) = measured(metric, &ordered);
        let is_base = sizes.first().is_some_and(|m| m.deployment == base.result.deployment);
        let basis = Basis::Load { level: base.result.level.clone() };
        let study = || study((metric, better), &base.result.load, basis, &sizes, left_out);
        is_base.then(study).flatten()
    }

    /// Each deployment at the highest level that met the objective, load by load.
    fn at_objective(
        &self,
        metric: &str,
        sides: &[Side<'_>],
        probes: &[Side<'_>],
        searches: &[SearchResult],
    ) -> Vec<Scaling> {
        let Some(better) = metrics::find(split(metric).0).map(|m| m.better) else {
            return Vec::new();
        };
        if better != Better::Higher {
            return Vec::new();
        }
        let all: Vec<&Side<'_>> = sides.iter().chain(probes).collect();
        let with_slo = all.iter().filter(|s| s.result.slo.is_some());
        let loads: BTreeSet<&str> = with_slo.map(|s| s.result.load.as_str()).collect();
        loads
            .into_iter()
            .filter_map(|load| {
                let (best, mut left_out) = best(&all, load, searches);
                let ordered = self.ordered(&best)?;
                let slo = ordered[0].result.slo.as_ref()?.slo.clone();
                let (mut sizes, more) = measured(metric, &ordered);
                left_out.extend(more);
                for size in &mut sizes {
                    size.mark = grid(&all, load, size);
                }
                let is_base = sizes.first()?.deployment == ordered[0].result.deployment;
                let basis = Basis::Slo { slo };
                is_base.then(|| study((metric, better), load, basis, &sizes, left_out)).flatten()
            })
            .collect()
    }
}

/// Of each deployment the highest trusted level that met its objective, and who has none.
fn best<'a, 'b>(
    all: &[&'b Side<'a>],
    load: &str,
    searches: &[SearchResult],
) -> (Vec<&'b Side<'a>>, Vec<LeftOut>) {
    let of_load = all.iter().filter(|s| s.result.load == load);
    let names = distinct(of_load.map(|s| s.result.deployment.as_str()));
    let (mut out, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        let mine = all.iter().filter(|s| s.result.load == load && s.result.deployment == name);
        let found = searches.iter().find(|s| s.load == load && s.deployment == name);
        let is_best = |s: &&&Side<'_>| match found {
            Some(search) => search.met.as_ref().is_some_and(|m| m.level == s.result.level),
            None => s.result.slo.as_ref().is_some_and(|slo| slo.met),
        };
        let trusted = mine.filter(|s| s.result.trust.level < TrustLevel::Invalid);
        let level = |s: &Side<'_>| s.result.level_value().unwrap_or(0.0);
        match trusted.filter(is_best).max_by(|a, b| level(a).total_cmp(&level(b))) {
            Some(side) => out.push(*side),
            None => left_out.push(LeftOut {
                deployment: name.to_owned(),
                why: "it met the objective at no level that was measured and can be trusted"
                    .to_owned(),
            }),
        }
    }
    (out, left_out)
}

/// What the levels that were measured leave open above the one that `size` stands on.
fn grid(all: &[&Side<'_>], load: &str, size: &Measured) -> Option<Mark> {
    let mine =
        all.iter().filter(|s| s.result.load == load && s.result.deployment == size.deployment);
    let above = mine.filter(|s| s.result.level_value() > size.asked);
    let next = above.min_by(|a, b| {
        let level = |s: &Side<'_>| s.result.level_value().unwrap_or(f64::INFINITY);
        level(a).total_cmp(&level(b))
    });
    let (code, message) = match next {
        None => (
            "slo_open",
            format!("{} is the highest level that was measured: it may carry more", size.level),
        ),
        Some(next) => {
            let coarse = next.result.level_value()? / size.asked.filter(|a| *a > 0.0)?;
            if coarse < COARSE {
                return None;
            }
            let level = &next.result.level;
            ("slo_coarse", format!("nothing was measured between {} and {level}", size.level))
        }
    };
    Some(Mark { code: code.to_owned(), message })
}

/// Levels that are further apart leave open where the highest load lies.
const COARSE: f64 = 1.25;

/// Sides with a value, and those without.
fn measured(metric: &str, ordered: &[&Side<'_>]) -> (Vec<Measured>, Vec<LeftOut>) {
    let (mut sizes, mut left_out) = (Vec::new(), Vec::new());
    let base = ordered[0];
    for side in ordered {
        match side.result.value(metric).filter(|v| v.is_finite()) {
            Some(value) => sizes.push(Measured {
                deployment: side.result.deployment.clone(),
                shape: shape(side.plan, &side.result.deployment),
                level: side.result.level.clone(),
                asked: side.result.level_value(),
                is_rate_given: side.result.mode == Mode::Open,
                value,
                spread: compare::spread(metric, side),
                ratio_range: (!std::ptr::eq(*side, base))
                    .then(|| compare::ratio_of(metric, side, base).map(range))
                    .flatten(),
                failed: failed(side),
                trust: side.result.trust.level,
                mark: None,
            }),
            None => left_out.push(LeftOut {
                deployment: side.result.deployment.clone(),
                why: format!("it has no {metric}"),
            }),
        }
    }
    (sizes, left_out)
}

fn range(estimate: Estimate) -> [f64; 2] {
    [estimate.low, estimate.high]
}

fn failed(side: &Side<'_>) -> f64 {
    let expected = side.result.expected();
    let completed = side.result.ended(crate::request::Outcome::Completed);
    if expected == 0 { 0.0 } else { expected.saturating_sub(completed) as f64 / expected as f64 }
}

/// What the plan gives to a deployment.
pub(in crate::analysis) fn shape(plan: &Plan, name: &str) -> Shape {
    plan.deployment(name).map_or_else(Shape::default, of_deployment)
}

fn of_deployment(deployment: &DeploymentPlan) -> Shape {
    let hosts = |i: &InstancePlan| -> BTreeSet<String> {
        i.place.iter().map(|share| share.host.clone()).collect()
    };
    let all: BTreeSet<String> = deployment.instances.iter().flat_map(hosts).collect();
    let most = deployment.instances.iter().map(|i| hosts(i).len()).max().unwrap_or(0);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Shape {
        gpus: (deployment.gpus > 0).then_some(deployment.gpus),
        nodes: (!all.is_empty()).then(|| count(all.len())),
        replicas: count(deployment.instances.len()).max(1),
        serves: format!("{} {}", deployment.engine.name(), deployment.model),
        instance: instance_words(deployment),
        hosts_per_instance: count(most),
        gpu_kinds: deployment.gpu_kinds.clone(),
    }
}

/// `TP4`, or with roles `prefill TP2, decode TP4`.
fn instance_words(deployment: &DeploymentPlan) -> String {
    let words = |instance: &InstancePlan| {
        let degrees = [("TP", instance.tp), ("PP", instance.pp), ("DP", instance.dp)];
        let above = degrees.iter().filter(|(name, n)| *n > 1 || *name == "TP");
        let words: String = above.map(|(name, n)| format!("{name}{n}")).collect();
        match instance.role {
            crate::plan::Role::Aggregated => words,
            role => format!("{} {words}", role.name()),
        }
    };
    let kinds = distinct(deployment.instances.iter().map(words));
    if kinds.is_empty() { deployment.engine.name().to_owned() } else { kinds.join(", ") }
}
