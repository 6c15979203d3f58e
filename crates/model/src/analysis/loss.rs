//! Where the rest was lost: from what a deployment's size promises to what it gave, in named shares.
//!
//! **How the shares are found.** By Little's law a rate is `X = L w / E`: requests in flight, output tokens of a
//! request, and the time that one is in flight. The ideal is the baseline's rate times the size, under the load that
//! this one met. What `L`, `w` and each stage of `E` (outside of the engines, queue, prefill, decode) are short of the
//! ideal are shares of it that sum up to the loss exactly, whatever the causes are. Stages are read from engines; where
//! they do not say theirs, a stage is as coarse as what is known.
//!
//! **How causes are found.** A stage that takes longer than it should is claimed by causes for which something was read
//! that the baseline did not show: each claims no more than its evidence is worth and no more than what is left. The
//! rest of a stage stays what it is, a stage, and is named as unexplained. A cause is a suspect with its evidence, and
//! no proof.

use super::compare::Side;
use super::scaling::{Basis, Growth, Scaling, Step};
use crate::doctor::MeasuredPath;
use crate::plan::{Mode, Role};
use crate::telemetry::Usage;
use serde::{Deserialize, Serialize};

mod causes;
mod stages;
mod words;

pub(super) use stages::Stages;

/// A loss against the ideal, in shares of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Loss {
    /// Deployment name.
    pub deployment: String,
    /// What it is held against.
    pub baseline: String,
    /// Load name.
    pub load: String,
    /// Label of its level.
    pub level: String,
    /// Its size over that of the baseline.
    pub size: f64,
    /// Output tokens/s: the baseline's times the size.
    pub ideal_tps: f64,
    /// Output tokens/s that it gave.
    pub measured_tps: f64,
    /// What was lost, of the ideal: below 0 where it gave more.
    pub lost: f64,
    /// What it went to, the largest first. They sum up to `lost`; below 0 is a gain.
    pub shares: Vec<Share>,
    /// What was not read, so that nothing could be held against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// In words.
    pub text: String,
}

/// A part of a loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Share {
    /// What it went to.
    pub cause: Cause,
    /// Of the ideal rate.
    pub share: f64,
    /// What speaks for it.
    pub evidence: String,
}

/// Time that the ranks of one instance spend in moving activations to each other, by a model of its links: a microbatch of
/// `n` tokens takes `step_s + token_s * n` seconds of it through all stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Deployment name.
    pub deployment: String,
    /// Of these instances.
    pub role: Role,
    /// However few tokens there are.
    pub step_s: f64,
    /// For each token.
    pub token_s: f64,
    /// What moves over what, in words.
    pub over: String,
}

/// What is known of a run besides its points.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    /// What paths between hosts carried before it.
    pub(super) paths: &'a [MeasuredPath],
    /// Of deployments whose links are known.
    pub(super) exchanges: &'a [Exchange],
}

/// What a part of a loss went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The network between the machines.
    Link,
    /// Ranks that moved activations to each other, by a model of their links.
    Collectives,
    /// Requests waited in an engine's queue.
    Queue,
    /// The key-value cache had no room: requests waited for it, or were computed again.
    KvCache,
    /// A pool had nothing to do while requests waited for the other.
    PoolImbalance,
    /// Copies that the load does not fill: a step for fewer requests takes nearly as long.
    TooLittleLoad,
    /// Stages of a pipeline that waited for each other.
    PipelineBubble,
    /// A router, frontend or API server whose processor was the limit.
    Frontend,
    /// The load generator.
    Client,
    /// Clocks that were held down by power or heat.
    Throttled,
    /// A rank that the others waited for.
    SlowRank,
    /// Processes that had used up their quota of cores.
    CpuQuota,
    /// Fewer requests in flight than the load asked for.
    InFlight,
    /// Answers of another length, and requests that failed.
    Answers,
    /// Outside of the engines, unexplained.
    Outside,
    /// To the first token, where engines do not say its parts; unexplained.
    FirstToken,
    /// In prefill, unexplained.
    Prefill,
    /// In decode, unexplained.
    Decode,
}

impl Cause {
    /// As a chart and a table call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Link => "network link",
            Self::Collectives => "collectives (by model)",
            Self::Queue => "queueing",
            Self::KvCache => "KV cache full",
            Self::PoolImbalance => "pools out of balance",
            Self::TooLittleLoad => "too little load",
            Self::PipelineBubble => "pipeline bubble",
            Self::Frontend => "router or API server",
            Self::Client => "load generator",
            Self::Throttled => "clocks held down",
            Self::SlowRank => "slow rank",
            Self::CpuQuota => "CPU quota",
            Self::InFlight => "fewer in flight",
            Self::Answers => "shorter answers, failures",
            Self::Outside => "outside of engines (rest)",
            Self::FirstToken => "first token (rest)",
            Self::Prefill => "prefill (rest)",
            Self::Decode => "decode (rest)",
        }
    }

    /// Nothing that was read speaks for more than the stage.
    pub const fn is_rest(self) -> bool {
        matches!(self, Self::Outside | Self::FirstToken | Self::Prefill | Self::Decode)
    }
}

/// A share that is smaller is nothing that a reader could act upon.
const SMALLEST: f64 = 1e-4;

/// What the steps of the studies under one load lost, each against its baseline. Nothing of steps without an
/// efficiency, since they have no ideal.
pub(super) fn all(scaling: &[Scaling], sides: &[Side<'_>], beside: Beside<'_>) -> Vec<Loss> {
    let mut out: Vec<Loss> = Vec::new();
    for study in scaling.iter().filter(|s| matches!(s.basis, Basis::Load { .. })) {
        let side = |step: &Step| {
            sides.iter().find(|s| {
                s.result.deployment == step.deployment
                    && s.result.load == study.load
                    && s.result.level == step.level
            })
        };
        let Some((base_step, rest)) = study.steps.split_first() else { continue };
        let Some(base) = side(base_step) else { continue };
        // What came at a given rate has no ideal.
        let is_given = base.result.mode == Mode::Open;
        let with_ideal = |s: &&Step| s.efficiency.is_some() && !s.has("not_trusted") && !is_given;
        for step in rest.iter().filter(with_ideal) {
            // Studies of several metrics have the same steps.
            let is_told = out.iter().any(|l| l.is_of(study, step));
            let over = side(step).filter(|_| !is_told);
            out.extend(over.and_then(|over| of_pair((over, base), step, beside)));
        }
    }
    out
}

fn of_pair((over, base): (&Side<'_>, &Side<'_>), step: &Step, beside: Beside<'_>) -> Option<Loss> {
    let (of, ideal) = (Stages::of(&over.result.metrics)?, Stages::of(&base.result.metrics)?);
    let grown = match over.result.level_value().zip(base.result.level_value()) {
        Some((asked, base_asked)) if base_asked > 0.0 => asked / base_asked,
        _ => 1.0,
    };
    let (parts, ideal_tps) = stages::parts(&of, &ideal, step.size, grown)?;
    let is_copies = step.growth == Growth::Copies;
    let (of, ideal, size) = (&of, &ideal, step.size);
    let seen = causes::Seen { over, base, of, ideal, size, grown, is_copies, beside };
    let mut shares = causes::shares(&seen, parts);
    shares.retain(|s| s.share.abs() >= SMALLEST);
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    let mut loss = Loss {
        deployment: over.result.deployment.clone(),
        baseline: base.result.deployment.clone(),
        load: over.result.load.clone(),
        level: over.result.level.clone(),
        size: step.size,
        ideal_tps,
        measured_tps: of.tps,
        lost: 1.0 - of.tps / ideal_tps,
        shares,
        unread: unread(over, of),
        text: String::new(),
    };
    loss.text = words::text(&loss);
    Some(loss)
}

impl Loss {
    /// What stages took less than in the ideal, as a share of it.
    pub(super) fn gained(&self) -> f64 {
        -self.shares.iter().map(|s| s.share.min(0.0)).sum::<f64>()
    }

    fn is_of(&self, study: &Scaling, step: &Step) -> bool {
        (&self.deployment, &self.baseline, &self.load, &self.level)
            == (&step.deployment, &study.baseline, &study.load, &step.level)
    }
}

/// What a cause could not be looked for in.
fn unread(side: &Side<'_>, stages: &Stages) -> Vec<String> {
    let mut out = Vec::new();
    if stages.queue_ms.is_none() {
        out.push("the engines do not say their queue and prefill times".to_owned());
    }
    let usages: Vec<&Usage> = usages(side).collect();
    if usages.is_empty() {
        out.push("the machines were not watched".to_owned());
    } else if usages.iter().all(|u| u.all_links().all(|l| l.name == "lo")) {
        out.push("no link between machines was read".to_owned());
    }
    if side.result.value("kv_usage.max").is_none() {
        out.push("the engines do not say how full their caches were".to_owned());
    }
    out
}

fn usages<'a>(side: &Side<'a>) -> impl Iterator<Item = &'a Usage> {
    side.result.trials.iter().filter_map(|t| t.usage.as_ref())
}

#[cfg(test)]
mod tests;
