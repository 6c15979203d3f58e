//! How well a deployment grows: throughput at each size over that of a baseline, held against the size.
//!
//! `efficiency = (X_n / X_1) / (n / n_1)`, where `n` is GPUs, or copies where GPUs are not known. It is strong
//! scaling where every size met the same load, weak where the load grew as the size did, and of neither kind
//! otherwise. What cannot be called scaling is not averaged in: another kind of GPU, a size that lost requests, a point
//! that is not to be trusted. Each keeps its row, with a mark that says so.
//!
//! [`study`] is of plain data, so that measured, simulated and imported sizes are told alike. From a run's records they
//! are made in `sides`.

use crate::metrics::Better;
use crate::stats::scaling::{Size, Spread};
use crate::trust::TrustLevel;
use serde::{Deserialize, Serialize};

mod laws;
pub(super) mod sides;
mod step;
mod words;

pub use laws::{Fit, LawName, NextStep, Ranged};
pub use sides::ScalingAsk;
use step::Context;

/// Sizes of one deployment, or of several, against the smallest, on one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Scaling {
    /// Metric, as `output_tps`.
    pub metric: String,
    /// Load name.
    pub load: String,
    /// What is alike in all of them.
    pub basis: Basis,
    /// The deployment that the others are held against.
    pub baseline: String,
    /// The baseline, then the others by size.
    pub steps: Vec<Step>,
    /// Laws through those of them that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<Fit>,
    /// Deployments that are not among the steps, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// In words.
    pub text: String,
}

/// What is alike in all steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Basis {
    /// The load, or its level by place where it grows with size.
    Load {
        /// Label of the level at the baseline.
        level: String,
    },
    /// The objective: each at the highest level that it was measured at and met it.
    Slo {
        /// In words.
        slo: String,
    },
    /// What one user sees: each where its users got as many tokens per second.
    Interactivity {
        /// Output tokens/s of a user.
        tps: f64,
    },
}

/// Whether the load grew with size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadGrowth {
    /// The same load at every size.
    Strong,
    /// As much more load as there is size.
    Weak,
    /// Neither.
    Other,
}

/// What a step has more of than the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// Nothing.
    Same,
    /// Instances like the baseline's.
    Copies,
    /// GPUs in each instance.
    Instance,
    /// Both, or other instances.
    Mixed,
}

/// One size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Step {
    /// Deployment name.
    pub deployment: String,
    /// Label of its level.
    pub level: String,
    /// What it is made of.
    pub shape: Shape,
    /// Its size over that of the baseline.
    pub size: f64,
    /// What it has more of.
    pub growth: Growth,
    /// Whether its load grew with it; absent where not the load is alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_growth: Option<LoadGrowth>,
    /// Its value of the metric.
    pub value: f64,
    /// How many times as good as the baseline: its value over the baseline's, or the other way round where less is
    /// better.
    pub speedup: Ranged,
    /// Speedup over size; of a latency whose load grew with size the speedup itself. Absent where there is none, which a
    /// mark says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Ranged>,
    /// Speedup over the number of nodes relative to the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency_by_nodes: Option<f64>,
    /// Speedup over the number of instances relative to the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency_by_replicas: Option<f64>,
    /// The serial fraction that this step shows by itself (Karp and Flatt), under the same load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_fraction: Option<f64>,
    /// The same GPUs as copies of the baseline, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// It is among what laws are fitted to.
    pub counts: bool,
    /// What a reader must know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// How far its numbers can be relied on.
    pub trust: TrustLevel,
}

/// What a deployment is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Shape {
    /// GPUs that were given to it; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Hosts that they are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Instances.
    pub replicas: u32,
    /// What serves which model, as `vllm m/8B`.
    pub serves: String,
    /// What an instance is, as `TP4` or `prefill TP2, decode TP4`.
    pub instance: String,
    /// The most hosts that one instance is cut over; 0 where that is not known.
    pub hosts_per_instance: u32,
    /// Kinds of GPU, where they are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_kinds: Vec<String>,
}

/// The same GPUs as whole copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Control {
    /// Deployment name.
    pub deployment: String,
    /// Its value.
    pub value: f64,
    /// The step's value over it, turned so that below 1 the copies are better.
    pub ratio: f64,
}

/// Something that a reader must know of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Mark {
    /// Stable name, as `heterogeneous`.
    pub code: String,
    /// In words.
    pub message: String,
}

/// A deployment without a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeftOut {
    /// Its name.
    pub deployment: String,
    /// Why.
    pub why: String,
}

/// A size as it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Deployment name.
    pub deployment: String,
    /// What it is made of.
    pub shape: Shape,
    /// Label of the level.
    pub level: String,
    /// Its number; absent where it has none.
    pub asked: Option<f64>,
    /// Requests came at a rate that was given, which no deployment can exceed.
    pub is_rate_given: bool,
    /// Its value of the metric.
    pub value: f64,
    /// How well it is known.
    pub spread: Option<Spread>,
    /// Its value over the baseline's, 95 %: what trials of both say.
    pub ratio_range: Option<[f64; 2]>,
    /// Share of its requests that were not completed.
    pub failed: f64,
    /// How far its numbers can be relied on.
    pub trust: TrustLevel,
    /// What else a reader must know of it.
    pub mark: Option<Mark>,
}

/// What the sizes say. `sizes` begins with the baseline; it is absent where there is none but that, or where it has no
/// value above zero.
pub fn study(
    metric: (&str, Better),
    load: &str,
    basis: Basis,
    sizes: &[Measured],
    left_out: Vec<LeftOut>,
) -> Option<Scaling> {
    let (base, rest) = sizes.split_first()?;
    if rest.is_empty() || base.value <= 0.0 || metric.1 == Better::Neither {
        return None;
    }
    let context =
        Context { better: metric.1, is_at_load: matches!(basis, Basis::Load { .. }), base };
    let mut steps: Vec<Step> = sizes.iter().map(|m| context.step(m)).collect();
    steps[1..].sort_by(|a, b| a.size.total_cmp(&b.size));
    add_controls(&mut steps, metric.1);
    let fits = laws::fits(&steps, sizes, metric.1);
    let mut scaling = Scaling {
        metric: metric.0.to_owned(),
        load: load.to_owned(),
        basis,
        baseline: base.deployment.clone(),
        steps,
        fits,
        left_out,
        text: String::new(),
    };
    scaling.text = words::text(&scaling);
    Some(scaling)
}

impl Step {
    /// Whether it carries the mark `code`.
    pub fn has(&self, code: &str) -> bool {
        self.marks.iter().any(|m| m.code == code)
    }
}

/// Every step that is not copies itself is held against copies of the same GPUs.
fn add_controls(steps: &mut [Step], better: Better) {
    let copies: Vec<(Option<u32>, String, f64)> = steps
        .iter()
        .filter(|s| s.growth == Growth::Copies && s.counts)
        .map(|s| (s.shape.gpus, s.deployment.clone(), s.value))
        .collect();
    for step in steps.iter_mut().filter(|s| matches!(s.growth, Growth::Instance | Growth::Mixed)) {
        let same = copies.iter().find(|(gpus, ..)| gpus.is_some() && *gpus == step.shape.gpus);
        step.control = same.map(|(_, deployment, value)| Control {
            deployment: deployment.clone(),
            value: *value,
            ratio: if better == Better::Lower { value / step.value } else { step.value / value },
        });
    }
}

/// Sizes of `steps` that count and grow in one way, the baseline first.
fn sizes_of(steps: &[Step], measured: &[Measured], growth: Growth) -> Vec<Size> {
    let is_of = |s: &&Step| s.counts && (s.growth == growth || s.growth == Growth::Same);
    let spread = |s: &Step| measured.iter().find(|m| m.deployment == s.deployment)?.spread;
    steps
        .iter()
        .filter(is_of)
        .map(|s| Size { n: s.size, value: s.value, spread: spread(s) })
        .collect()
}

#[cfg(test)]
mod tests;
