//! What analysis says of a run: the content of `results.json`, and what reports draw.
//!
//! Computed from records by [`crate::metrics`], never stored instead of them: the file can be deleted
//! and made again with `scalebeam report RUN`.

use crate::analysis::account::Account;
use crate::analysis::fairness::Fairness;
use crate::analysis::fairness::ways::Ways;
use crate::analysis::pareto::Front;
use crate::engine_metrics::InstanceReading;
use crate::metrics::Timeline;
use crate::plan::{Level, Mode};
use crate::request::Outcome;
use crate::stats::percentile::{self, percentile_of};
use crate::telemetry::Usage;
use crate::trust::Trust;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the form of `results.json`.
pub const RESULTS_FORMAT: u32 = 1;

/// Many values of one quantity, described by exact order statistics (linear interpolation).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Distribution {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; zero for one value.
    pub std: f64,
    /// Smallest.
    pub min: f64,
    /// 1st percentile.
    pub p1: f64,
    /// 5th percentile.
    pub p5: f64,
    /// Lower quartile.
    pub p25: f64,
    /// Median.
    pub p50: f64,
    /// Upper quartile.
    pub p75: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
    /// Number of values.
    pub count: u64,
}

impl Distribution {
    /// The statistic called `name` (`mean`, `p95`, `p99.9`, ..); absent for a percentile that is not kept.
    pub fn stat(&self, name: &str) -> Option<f64> {
        Some(match name {
            "mean" => self.mean,
            "std" => self.std,
            "min" => self.min,
            "max" => self.max,
            "count" => self.count as f64,
            _ => {
                let asked = percentile_of(name)?;
                let is_asked = |(kept, _): &(f64, f64)| (kept - asked).abs() < 1e-9;
                self.percentiles().into_iter().find(is_asked)?.1
            }
        })
    }

    /// Of a hundred, and the value.
    fn percentiles(&self) -> [(f64, f64); 11] {
        [
            (0.0, self.min),
            (1.0, self.p1),
            (5.0, self.p5),
            (25.0, self.p25),
            (50.0, self.p50),
            (75.0, self.p75),
            (90.0, self.p90),
            (95.0, self.p95),
            (99.0, self.p99),
            (99.9, self.p999),
            (100.0, self.max),
        ]
    }
}

/// The value of a metric at a point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum MetricValue {
    /// One number.
    Number(f64),
    /// A distribution over requests or token gaps.
    Distribution(Distribution),
}

/// Metrics by name; a metric that has no value at a point is absent, never zero. A percentile that was asked
/// for and that distributions do not keep is a number of its own, as `ttft_ms.p87.5`.
pub type Metrics = BTreeMap<String, MetricValue>;

/// A range that holds the true value with the stated confidence, under the stated method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Estimate {
    /// The point estimate.
    pub point: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// `0.95`.
    pub confidence: f64,
    /// How the range was found.
    pub method: String,
}

/// One repeat of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrialResult {
    /// From 1.
    pub number: u32,
    /// Which bring-up of its deployment it was measured on, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bring_up: Option<u32>,
    /// Its own metrics.
    pub metrics: Metrics,
    /// What it did over time; absent where nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Requests by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// What the machines did meanwhile, where they were watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What each engine, and each frontend, said of itself meanwhile; empty where none was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<InstanceReading>,
}

/// One deployment under one load level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PointResult {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Label of the level, as `c64`.
    pub level: String,
    /// Load mode.
    pub mode: Mode,
    /// Requests in flight asked for.
    pub concurrency: Option<u32>,
    /// Requests per second asked for.
    pub rate_rps: Option<f64>,
    /// Prompts per request asked for.
    pub batch: Option<u32>,
    /// A search measured it on its way: it was not asked for by itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_probe: bool,
    /// Allocated GPUs; absent in the file (zero here) where they are not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: u32,
    /// Over all trials: distributions pooled, rates as the mean of the trials' rates.
    pub metrics: Metrics,
    /// Measured requests by outcome, over all trials. Outcomes that did not occur are absent.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests that were not completed, by class of failure.
    pub failures: BTreeMap<String, u64>,
    /// Metrics by class of a mixed workload, where there is more than one class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Metrics>,
    /// Metrics by entry (its URL), where requests went to more than one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Metrics>,
    /// Metrics by turn of a session, from zero, where requests are turns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub turns: BTreeMap<u32, Metrics>,
    /// Requests by entry, where there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_target: Vec<u64>,
    /// Whether it meets its service-level objective, where the load has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloResult>,
    /// Where it went: what its machines did, and what its time to the first token held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Whether the numbers can be relied on.
    pub trust: Trust,
    /// Each repeat.
    pub trials: Vec<TrialResult>,
}

/// Whether a point meets its service-level objective, over all its trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SloResult {
    /// Preset and bounds, in words.
    pub slo: String,
    /// Every bound holds.
    pub met: bool,
    /// Chance does not explain it, at 95 %, where requests are independent of each other.
    pub sure: bool,
    /// Each bound.
    pub bounds: Vec<SloBoundResult>,
}

/// One bound of an objective at a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SloBoundResult {
    /// `ttft.p99 <= 450 ms`.
    pub bound: String,
    /// The percentile by nearest rank, requests that were not completed last; absent where it is one of
    /// those.
    pub value_ms: Option<f64>,
    /// Share of the requests within the limit; absent where there was none that counts.
    pub within: Option<Estimate>,
    /// It holds.
    pub holds: bool,
    /// Chance does not explain it, at 95 %.
    pub sure: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

/// The answer of a search: the highest load that meets the objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SearchResult {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// What was to be met, in words.
    pub slo: String,
    /// What the numbers count: `req/s`, or `requests in flight`.
    pub unit: String,
    /// The highest level that met it.
    pub met: Option<SearchSide>,
    /// The lowest that did not.
    pub missed: Option<SearchSide>,
    /// Where the highest load lies for sure, as far as the levels that were tried tell; absent where the verdict on
    /// none of them was sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<SearchInterval>,
    /// Step from level to level.
    pub precision: f64,
    /// Trials that it took.
    pub probes: u32,
    /// Why it ended; absent where it was cut short and can be continued.
    pub end: Option<crate::search::End>,
    /// In words.
    pub text: String,
}

/// The interval of the highest load that meets an objective. It is as wide as the levels whose verdicts chance may
/// explain make it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SearchInterval {
    /// The highest level that met it for sure; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// The lowest level that did not, for sure; absent where none was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// `0.95`, of each end by itself.
    pub confidence: f64,
}

/// One end of the range that a search leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SearchSide {
    /// Label of the level.
    pub level: String,
    /// Its number.
    pub value: f64,
    /// Chance does not explain its verdict, at 95 %.
    pub sure: bool,
    /// How far the level's own numbers can be relied on.
    pub trust: crate::trust::TrustLevel,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl PointResult {
    /// A metric by the name that files use: `rps`, `ttft.p95`, `ttft_ms.p95`, `output_tps_per_gpu`.
    ///
    /// A distribution named without a statistic is its mean.
    pub fn value(&self, name: &str) -> Option<f64> {
        lookup(&self.metrics, name)
    }

    /// Parts of its requests: what they are told apart by, the part, and its metrics.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, String, &Metrics)> {
        let named_parts = named("class", &self.classes).chain(named("entry", &self.targets));
        named_parts.chain(named("turn", &self.turns))
    }

    /// Measured requests that ended as `outcome`.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.name()).copied().unwrap_or(0)
    }

    /// Measured requests that were to be answered: all but those that the client gave up as planned.
    pub fn expected(&self) -> u64 {
        self.outcomes.values().sum::<u64>() - self.ended(Outcome::Abandoned)
    }

    /// The level's number on an axis: concurrency, rate or batch.
    pub fn level_value(&self) -> Option<f64> {
        self.rate_rps.or(self.batch.map(f64::from)).or(self.concurrency.map(f64::from))
    }
}

fn named<'a, K: ToString>(
    by: &'static str,
    parts: &'a BTreeMap<K, Metrics>,
) -> impl Iterator<Item = (&'static str, String, &'a Metrics)> {
    parts.iter().map(move |(part, metrics)| (by, part.to_string(), metrics))
}

/// Finds `name` in `metrics`; see [`PointResult::value`].
pub fn lookup(metrics: &Metrics, name: &str) -> Option<f64> {
    if let Some(MetricValue::Number(n)) = metrics.get(name) {
        return Some(*n);
    }
    let (base, statistic) = percentile::split(name);
    let found = metrics.get_key_value(base);
    let (key, value) = found.or_else(|| metrics.get_key_value(&format!("{base}_ms")))?;
    let asked = statistic.unwrap_or("mean");
    match value {
        MetricValue::Number(n) => (asked == "mean").then_some(*n),
        MetricValue::Distribution(d) => d.stat(asked).or_else(|| {
            let MetricValue::Number(n) =
                metrics.get(&percentile_key(key, percentile_of(asked)?))?
            else {
                return None;
            };
            Some(*n)
        }),
    }
}

/// What a percentile that no [`Distribution`] keeps is called among the metrics: `ttft_ms.p87.5`.
pub fn percentile_key(metric: &str, of_hundred: f64) -> String {
    format!("{metric}.{}", percentile::name_of(of_hundred))
}

/// One deployment against the baseline on one metric, under one load level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Comparison {
    /// Metric, as `output_tps_per_gpu`.
    pub metric: String,
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// Deployment held against the baseline.
    pub deployment: String,
    /// Baseline deployment.
    pub baseline: String,
    /// Value of the deployment.
    pub value: f64,
    /// Value of the baseline.
    pub baseline_value: f64,
    /// Value / baseline value, with its interval. Where the spread between trials was measured, it is of the
    /// geometric means of the trials' values, which for percentiles are not those of all requests pooled.
    pub ratio: Estimate,
    /// What follows.
    pub verdict: ComparisonVerdict,
    /// The chance of a ratio so far from 1 where there is no difference, corrected (Holm) for all metrics that this
    /// pair is compared on; absent where the spread between runs was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The least relative difference that would be called one in 80 of 100 such comparisons; absent where the spread
    /// between runs was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detectable: Option<f64>,
    /// Trials a side that would decide in 80 of 100 cases, where this many did not; absent where it is decided, or
    /// where a hundred would not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials_to_decide: Option<u32>,
    /// What the interval is over, each of which counts once; of these are the trials that would decide.
    #[serde(default, skip_serializing_if = "Drawn::is_default")]
    pub drawn: Drawn,
}

/// What counts once in an interval, whatever it holds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Drawn {
    /// Trials. What differs from one bring-up of a deployment to the next is then not in it, where all are of one.
    #[default]
    Trials,
    /// Bring-ups, each the mean of its trials.
    BringUps,
    /// Runs, each the mean of its trials.
    Runs,
}

impl Drawn {
    /// Several of them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trials => "trials",
            Self::BringUps => "bring-ups",
            Self::Runs => "runs",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a ratio says about the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonVerdict {
    /// Different, and on the better side of 1.
    Better,
    /// Different, and on the worse side of 1.
    Worse,
    /// Different by less than the margin that was asked for.
    Equivalent,
    /// Chance explains what was seen: no difference that we can see.
    NoDifferenceSeen,
    /// One of the two points is not to be trusted.
    NotTrusted,
}

/// The result of an `[[expect]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ExpectResult {
    /// `success_rate == 1`.
    pub what: String,
    /// The point, `deployment/load/level`.
    pub point: String,
    /// The measured value; absent where the metric has none, which is a failure.
    pub value: Option<f64>,
    /// Whether it held.
    pub holds: bool,
    /// Why there is no value, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// It is about a deployment that was not measured here: it neither held nor failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_checked: bool,
    /// A failure is only a warning.
    pub warn_only: bool,
}

impl ExpectResult {
    /// Whether what was asked for is not so, and that is more than a warning.
    pub const fn has_failed(&self) -> bool {
        !self.holds && !self.not_checked && !self.warn_only
    }
}

/// A deployment that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Skipped {
    /// Deployment name.
    pub deployment: String,
    /// Why.
    pub reason: String,
}

/// A point of the plan of which nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Unrecorded {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Label of the level.
    pub level: String,
    /// Why, as far as it is known.
    pub reason: String,
}

/// The answer in one sentence per load level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Verdict {
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// The metric that decides.
    pub metric: String,
    /// The best deployment; absent where none can be called best.
    pub best: Option<String>,
    /// In words.
    pub text: String,
    /// Why the others lost, how sure it is, and what would change the answer: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

/// Everything that is said of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Results {
    /// [`RESULTS_FORMAT`].
    pub format: u32,
    /// Experiment name.
    pub name: String,
    /// Run id.
    pub run: String,
    /// The run was cut short: points or trials are missing.
    pub incomplete: bool,
    /// The measured points in plan order.
    pub points: Vec<PointResult>,
    /// Deployments against the baseline.
    pub comparisons: Vec<Comparison>,
    /// The answer, per load level.
    pub verdicts: Vec<Verdict>,
    /// The highest load that meets an objective, for each search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchResult>,
    /// How well deployments grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<crate::analysis::scaling::Scaling>,
    /// Where what their size promises was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<crate::analysis::loss::Loss>,
    /// How classes fared beside each other, of every mixed load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fairness: Vec<Fairness>,
    /// The same prompts asked in several ways of one deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Ways>,
    /// What no other point beats, and values at targets, of every `pareto` report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fronts: Vec<Front>,
    /// Checked expectations.
    pub expects: Vec<ExpectResult>,
    /// What was not measured, and why.
    pub skipped: Vec<Skipped>,
    /// Points of the plan of which nothing is recorded, deployments that were not measured apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Unrecorded>,
    /// What really ran, for each deployment of which that was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<crate::ran::Ran>,
}

impl Results {
    /// The JSON schema of `results.json`.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

/// Everything about a point that its analysis needs besides the records.
#[derive(Debug, Clone, PartialEq)]
pub struct PointContext<'a> {
    /// Deployment name.
    pub deployment: &'a str,
    /// Load name.
    pub load: &'a str,
    /// The level.
    pub level: &'a Level,
    /// Load mode.
    pub mode: Mode,
    /// Allocated GPUs.
    pub gpus: u32,
    /// Machines that it is placed on; zero where they are not known.
    pub nodes: u32,
    /// Allocated GPUs of its prefill instances.
    pub prefill_gpus: u32,
    /// Allocated GPUs of its decode instances.
    pub decode_gpus: u32,
    /// Price per hour of the deployment.
    pub price_per_hour: Option<f64>,
    /// Time-out of the load.
    pub timeout: crate::units::Nanos,
    /// Prompts per request.
    pub batch: u32,
    /// What the point must meet.
    pub slo: Option<&'a crate::slo::Slo>,
}
