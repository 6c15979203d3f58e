//! The experiment file: what the user wants, strictly read.
//!
//! The types here are the file, key for key; the JSON schema is generated from them. What follows from
//! them (ranks, ports, flags, points) is made by [`crate::plan::resolve`].

use crate::analysis::pareto;
use crate::api::HttpVersion;
use crate::driver::Balance;
use crate::engine::Infra;
use crate::limit::Limit;
use crate::plan::{DpBalance, EngineKind, Interleave, Mode, Platform, RankLauncher, Role};
use crate::results::PointResult;
use crate::telemetry::TelemetryPlan;
use crate::workload::lengths::LOGNORMAL_CUT;
use crate::workload::{
    Api, CachePolicy, FileFormat, History, LengthDist, Pick, PromptText, RangeMeaning,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

mod check;
pub mod diagnostic;
mod extend;
pub mod pace;
mod pages;
pub mod place;
mod search;
pub mod values;

pub use check::check;
pub use diagnostic::{Diagnostic, Diagnostics, Problem};
pub use pace::{
    ArrivalSpec, CancelSpec, RateProfileKind, RateProfileSpec, RateStepSpec, ThinkSpec, WindowSpec,
};
pub use pages::{PageAccess, PageSpec};
pub use search::{SearchEnd, SearchSpec};
pub use values::{Count, Dur, Levels, Numbers, Rates};

/// The version of the file format that this crate reads.
pub const SCHEMA: u32 = 1;

/// A whole experiment file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Version of the file format: `1`.
    pub schema: u32,
    /// Name of the experiment; part of the run directory's name.
    pub name: String,
    /// What it is about.
    #[serde(default)]
    pub about: Option<String>,
    /// The model that all deployments serve.
    pub model: Model,
    /// Machines by name.
    #[serde(default)]
    pub host: BTreeMap<String, Host>,
    /// Environment of every engine process, never interpreted.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The machine that sends the load.
    #[serde(default)]
    pub client: Option<ClientSpec>,
    /// Deployments, brought up one after the other in this order.
    #[serde(default)]
    pub deploy: Vec<Deploy>,
    /// What GPUs, machines, platforms and power cost.
    #[serde(default)]
    pub prices: Option<crate::cost::Prices>,
    /// What a run may take before it is stopped.
    #[serde(default)]
    pub limit: Option<LimitSpec>,
    /// What is asked.
    #[serde(default)]
    pub workload: Vec<WorkloadSpec>,
    /// How it is asked.
    #[serde(default)]
    pub load: Vec<LoadSpec>,
    /// Which deployment meets which load; absent = all with all.
    #[serde(default)]
    pub run: Vec<RunSpec>,
    /// What repeats go round over; default `points`.
    #[serde(default)]
    pub interleave: Option<Interleave>,
    /// What is watched meanwhile.
    #[serde(default)]
    pub telemetry: Option<TelemetrySpec>,
    /// Reports to write.
    #[serde(default)]
    pub report: Vec<ReportSpec>,
    /// What must hold; decides the exit code.
    #[serde(default)]
    pub expect: Vec<ExpectSpec>,
    /// Where results go.
    #[serde(default)]
    pub output: Option<OutputSpec>,
    /// Whether the instrument is measured before the run; default `auto`.
    #[serde(default)]
    pub selftest: Option<SelftestWhen>,
}

/// Whether the instrument is measured before a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SelftestWhen {
    /// Where the run is planned to last at least ten times as long.
    #[default]
    Auto,
    /// Before every run.
    Always,
    /// Never: no point is held against a floor.
    Never,
}

/// The machine that sends the load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    /// Its addresses that connections start from, in turn; default: as the system chooses. Each has as
    /// many connections to a target as there are local ports.
    #[serde(default)]
    pub source: Vec<IpAddr>,
}

/// The model.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Hub id or path.
    pub id: String,
    /// Revision of the weights.
    #[serde(default)]
    pub revision: Option<String>,
    /// Name in requests; default: the id.
    #[serde(default)]
    pub served: Option<String>,
    /// Tokenizer directory or `tokenizer.json`, for token-exact synthetic prompts.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// Weight type.
    #[serde(default)]
    pub dtype: Option<String>,
    /// Longest context in tokens.
    #[serde(default)]
    pub max_len: Option<u32>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Data-plane address; default: 127.0.0.1 for this machine.
    #[serde(default)]
    pub addr: Option<String>,
    /// Name in the site's `ssh_config`; absent = this machine.
    #[serde(default)]
    pub ssh: Option<String>,
    /// GPUs in it.
    #[serde(default)]
    pub gpus: u32,
    /// Kind of GPU, as `H100-SXM-80G`.
    #[serde(default)]
    pub gpu: Option<String>,
    /// Network interface of the data plane; becomes `NCCL_SOCKET_IFNAME` where an instance spans hosts.
    #[serde(default)]
    pub iface: Option<String>,
    /// Number of such machines, named `NAME-0`, `NAME-1`, .. when above one.
    #[serde(default)]
    pub count: Option<u32>,
    /// Kubernetes node labels or Slurm features that pick it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Environment of engine processes on it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Price of the machine per hour, in any currency. Goes before `[prices]`.
    #[serde(default)]
    pub price_per_hour: Option<f64>,
}

/// A deployment: instances in pools behind an entry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// Its name.
    pub name: String,
    /// Who starts its processes.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What serves the model.
    #[serde(default)]
    pub engine: Option<EngineKind>,
    /// Take what is not said here from this deployment (one level).
    #[serde(default)]
    pub extends: Option<String>,
    /// Only there to be extended.
    #[serde(default)]
    pub template: bool,
    /// What joins the ranks of an instance that spans hosts.
    #[serde(default)]
    pub launcher: Option<RankLauncher>,
    /// Engine version.
    #[serde(default)]
    pub version: Option<String>,
    /// Container image.
    #[serde(default)]
    pub image: Option<String>,
    /// Another model id or path than `[model]`'s.
    #[serde(default)]
    pub model: Option<String>,
    /// Kind of GPU, where no host names it.
    #[serde(default)]
    pub gpu: Option<String>,
    /// Tensor-parallel degree.
    #[serde(default)]
    pub tp: Option<u32>,
    /// Pipeline-parallel degree.
    #[serde(default)]
    pub pp: Option<u32>,
    /// Data-parallel degree inside one instance.
    #[serde(default)]
    pub dp: Option<u32>,
    /// What spreads requests over data-parallel ranks; default `"internal"`.
    #[serde(default)]
    pub dp_balance: Option<DpBalance>,
    /// Expert-parallel degree.
    #[serde(default)]
    pub ep: Option<u32>,
    /// Whole copies.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// One text per instance: `"host"`, `"host:0-3"`, `"host:0,2"`, `"a:0-3 + b:0-3"`.
    #[serde(default)]
    pub place: Option<Vec<String>>,
    /// Pools of unlike instances, in place of `tp` .. `place`.
    #[serde(default)]
    pub pool: Vec<Pool>,
    /// First port; each further instance on a host takes the next.
    #[serde(default)]
    pub port: Option<u16>,
    /// URL, or several, of a deployment that is already there (`platform = "external"`).
    #[serde(default)]
    pub endpoint: Option<values::OneOrMany>,
    /// Environment variable that holds the API key.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Request headers whose values are in environment variables: `{ "X-Team" = "TEAM_HEADER" }`.
    #[serde(default)]
    pub headers_env: BTreeMap<String, String>,
    /// PEM file of certificates that are trusted beside the system's, relative to the experiment file.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Version of HTTP that requests are sent with; default `"1.1"`.
    #[serde(default)]
    pub http: Option<HttpVersion>,
    /// How requests are spread over replicas; done by the load generator.
    #[serde(default)]
    pub balance: Option<Balance>,
    /// Host and ports of the control plane.
    #[serde(default)]
    pub infra: Option<Infra>,
    /// Engine flags, verbatim.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment of its engine processes.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The platform's and the engine's own parameters.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub params: toml::Table,
    /// Readiness.
    #[serde(default)]
    pub ready: Option<ReadySpec>,
    /// Teardown.
    #[serde(default)]
    pub stop: Option<StopSpec>,
    /// Price of the whole deployment per hour. Goes before those of its hosts, and before `[prices]`.
    #[serde(default)]
    pub price_per_hour: Option<f64>,
    /// Skip it, with a note, where its program is not installed.
    #[serde(default)]
    pub optional: Option<bool>,
}

/// Like instances of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// What they do.
    pub role: Role,
    /// How many.
    pub workers: u32,
    /// Tensor-parallel degree.
    #[serde(default)]
    pub tp: Option<u32>,
    /// Pipeline-parallel degree.
    #[serde(default)]
    pub pp: Option<u32>,
    /// Data-parallel degree.
    #[serde(default)]
    pub dp: Option<u32>,
    /// Expert-parallel degree.
    #[serde(default)]
    pub ep: Option<u32>,
    /// One text per worker.
    #[serde(default)]
    pub place: Option<Vec<String>>,
    /// Engine flags; win over the deployment's.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment; wins over the deployment's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// When a deployment counts as up.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadySpec {
    /// Give up after this long; default 30 minutes, or 30 s for an endpoint that is already there.
    #[serde(default)]
    pub timeout: Option<Dur>,
    /// Give up single gates sooner.
    #[serde(default)]
    pub within: Option<WithinSpec>,
    /// `completion` (default) or `health` for a server that cannot answer a probe.
    #[serde(default)]
    pub probe: Option<ProbeKind>,
    /// Path that is 200 at every entry once it serves; default: the engine's own, where it has one.
    #[serde(default)]
    pub health: Option<String>,
    /// Text that a line of each instance's log holds once it serves, in place of the engine's own path.
    #[serde(default)]
    pub log: Option<String>,
    /// Whether every entry must list the model under `/v1/models`; default true.
    #[serde(default)]
    pub models: Option<bool>,
}

/// How long single gates of readiness may take, each from when the one before it was passed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithinSpec {
    /// A process may be started: what it comes after is there. Where a platform starts processes: it runs.
    #[serde(default)]
    pub start: Option<Dur>,
    /// The path of `health`, or the engine's own, is 200.
    #[serde(default)]
    pub health: Option<Dur>,
    /// The text of `log` is in the log.
    #[serde(default)]
    pub log: Option<Dur>,
    /// The model is listed.
    #[serde(default)]
    pub models: Option<Dur>,
    /// As many instances of each role as were asked for are counted.
    #[serde(default)]
    pub instances: Option<Dur>,
    /// Every entry gave a real answer.
    #[serde(default)]
    pub completion: Option<Dur>,
    /// Key-value blocks moved from prefill to decode.
    #[serde(default)]
    pub blocks: Option<Dur>,
}

/// The last gate of readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// One real streamed completion.
    Completion,
    /// The health path alone.
    Health,
}

/// How a deployment is taken down.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopSpec {
    /// Between SIGTERM and SIGKILL; default 60 s.
    #[serde(default)]
    pub grace: Option<Dur>,
    /// Take down whatever happens; default true.
    #[serde(default)]
    pub always: Option<bool>,
}

/// What a run may take before it is stopped. Time counts while a deployment is up, bring-up and teardown
/// included; what is in flight then may still end, and everything is taken down.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Time that deployments may be up, all together.
    #[serde(default)]
    pub wall: Option<Dur>,
    /// Cost of that time at `price_per_hour` or `[prices]`, one of which every deployment then needs.
    #[serde(default)]
    pub spend: Option<f64>,
}

impl LimitSpec {
    /// As the guard reads it.
    pub fn limit(&self) -> Limit {
        Limit { wall: self.wall.map(|w| w.0), spend: self.spend }
    }
}

/// What a workload is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Texts in this file.
    Prompts,
    /// A file of prompts.
    File,
    /// Random words of a given length.
    Synthetic,
    /// Other workloads in turn.
    Mix,
}

impl WorkloadKind {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::File => "file",
            Self::Synthetic => "synthetic",
            Self::Mix => "mix",
        }
    }
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: WorkloadKind,
    /// Endpoint family; default `chat`.
    #[serde(default)]
    pub api: Option<Api>,
    /// How prompts are taken from a list or a file.
    #[serde(default)]
    pub pick: Option<Pick>,
    /// Seed of every draw; default 0.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Unique prompt length in tokens.
    #[serde(default)]
    pub isl: Option<u32>,
    /// Its standard deviation.
    #[serde(default)]
    pub isl_dev: Option<f64>,
    /// Its spread, in place of `isl_dev`.
    #[serde(default)]
    pub isl_dist: Option<DistSpec>,
    /// Shared tokens before the unique ones.
    #[serde(default)]
    pub prefix: Option<u32>,
    /// Distinct shared prefixes; default 1. Requests take them in turn, or at random by `pick`.
    #[serde(default)]
    pub prefix_groups: Option<u32>,
    /// Answer length in tokens; embeddings have none.
    #[serde(default)]
    pub osl: Option<u32>,
    /// Its standard deviation.
    #[serde(default)]
    pub osl_dev: Option<f64>,
    /// Its spread, in place of `osl_dev`.
    #[serde(default)]
    pub osl_dist: Option<DistSpec>,
    /// Longest answer of a `file` workload: where a line does not say (`jsonl`), or in place of the
    /// answers' own lengths (`sharegpt`).
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Force the answer length, as the family writes it (`ignore_eos` and `min_tokens`, or their like).
    #[serde(default)]
    pub force_len: Option<bool>,
    /// Distinct prompts; default: each request has its own.
    #[serde(default)]
    pub entries: Option<u32>,
    /// Sampling temperature.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// System message.
    #[serde(default)]
    pub system: Option<String>,
    /// Stream the answer; default true where the family can.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Extra fields of the request body, verbatim.
    #[serde(default)]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Texts of a `prompts` workload.
    #[serde(default)]
    pub prompts: Vec<PromptText>,
    /// File of a `file` workload, relative to the experiment file.
    #[serde(default)]
    pub file: Option<String>,
    /// How the file is written; default `jsonl`.
    #[serde(default)]
    pub format: Option<FileFormat>,
    /// What keeps a prefix cache from answering for an earlier point; default `salt`.
    #[serde(default)]
    pub cache: Option<CachePolicy>,
    /// Requests are turns of sessions, each of which carries those before it: turns of a session; of a
    /// file, at most this many of each conversation.
    #[serde(default)]
    pub turns: Option<u32>,
    /// Their spread.
    #[serde(default)]
    pub turns_dist: Option<DistSpec>,
    /// What a user adds in each later turn of a synthetic session, in tokens.
    #[serde(default)]
    pub turn_isl: Option<u32>,
    /// Its spread.
    #[serde(default)]
    pub turn_isl_dist: Option<DistSpec>,
    /// What later turns carry as the answers to earlier ones; default `real`.
    #[serde(default)]
    pub history: Option<History>,
    /// Parts of a `mix`, in this order.
    #[serde(default)]
    pub parts: Vec<Part>,
}

impl WorkloadSpec {
    /// Whether its requests are turns of sessions.
    pub const fn has_sessions(&self) -> bool {
        self.turns.is_some() || self.turns_dist.is_some()
    }
}

/// How a length is spread.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistSpec {
    /// Which spread.
    pub kind: DistKind,
    /// Lognormal: standard deviation of the logarithm.
    #[serde(default)]
    pub sigma: Option<f64>,
    /// Uniform: shortest, in tokens.
    #[serde(default)]
    pub min: Option<u32>,
    /// Uniform: longest, in tokens. Lognormal: cut off here; default ten times the mean.
    #[serde(default)]
    pub max: Option<u32>,
    /// Range ratio: from 0 to 1.
    #[serde(default)]
    pub ratio: Option<f64>,
    /// Range ratio: whose meaning of it.
    #[serde(default, rename = "as")]
    pub meaning: Option<RangeMeaning>,
}

impl DistSpec {
    /// The spread around `mean` tokens; `None` where a key is missing, which the check says.
    pub fn resolve(&self, mean: Option<u32>) -> Option<LengthDist> {
        Some(match self.kind {
            DistKind::Lognormal => {
                let mean = mean?;
                let max = self.max.unwrap_or_else(|| mean.saturating_mul(LOGNORMAL_CUT));
                LengthDist::lognormal(mean, self.sigma?, max)
            }
            DistKind::Uniform => LengthDist::uniform(self.min?, self.max?),
            DistKind::RangeRatio => LengthDist::range_ratio(mean?, self.ratio?, self.meaning?),
        })
    }
}

/// Spreads of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DistKind {
    /// Lognormal around `isl` or `osl`, by `sigma`.
    Lognormal,
    /// Every whole number from `min` to `max` alike.
    Uniform,
    /// Uniform by the `ratio` of other tools, `as` one of them means it.
    RangeRatio,
}

impl DistKind {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lognormal => "lognormal",
            Self::Uniform => "uniform",
            Self::RangeRatio => "range-ratio",
        }
    }
}

/// Part of a mix.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Workload name.
    pub workload: String,
    /// Requests of it per round, in the order of the parts.
    #[serde(default)]
    pub count: Option<u32>,
    /// Each request is of it with this probability, over the sum of all weights.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// A load.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// Its name.
    pub name: String,
    /// Workload name.
    pub workload: String,
    /// How requests come about; default `closed`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Stop after this many requests: `100`, `"10x"` or `"10x>=100"` times the concurrency.
    #[serde(default)]
    pub requests: Option<Count>,
    /// Send nothing new after this long.
    #[serde(default)]
    pub duration: Option<Dur>,
    /// Requests in flight: `8`, `[1, 2, 4]` or `"pow2:0..7"`. In open mode: at most this many.
    #[serde(default)]
    pub concurrency: Option<Levels>,
    /// Requests in flight per replica.
    #[serde(default)]
    pub concurrency_per_replica: Option<u32>,
    /// Arrivals per time in open mode: `"5/s"` or a list.
    #[serde(default)]
    pub rate: Option<Rates>,
    /// Arrivals per time in open mode that change over time, in place of `rate`.
    #[serde(default)]
    pub profile: Option<RateProfileSpec>,
    /// Arrival process in open mode; default `poisson`.
    #[serde(default)]
    pub arrival: Option<ArrivalSpec>,
    /// Shape of `arrival = "gamma"`: 1 is Poisson, less is burstier, more is more regular.
    #[serde(default)]
    pub burstiness: Option<f64>,
    /// How many times faster `arrival = "trace"` goes than its trace; default 1.
    #[serde(default)]
    pub speed: Option<f64>,
    /// The part of the trace that is replayed; default: all.
    #[serde(default)]
    pub window: Option<WindowSpec>,
    /// Slots of a closed loop come in evenly over this time; default: all at once.
    #[serde(default)]
    pub ramp_up: Option<Dur>,
    /// Wait of a closed loop's slot after an answer, and of a session before its next turn: `"2s"`, or
    /// `{ mean = "2s" }` for exponential ones.
    #[serde(default)]
    pub think: Option<ThinkSpec>,
    /// All turns of a session go to one entry; default true.
    #[serde(default)]
    pub sticky: Option<bool>,
    /// Requests that the client gives up, as an impatient user does.
    #[serde(default)]
    pub cancel: Option<CancelSpec>,
    /// At most this many requests that still wait for their first token; the others wait unsent.
    #[serde(default)]
    pub max_prefill: Option<u32>,
    /// Prompts per request in batch mode.
    #[serde(default)]
    pub batch: Option<Levels>,
    /// What the load must meet: bounds, as `"ttft.p99 <= 450ms"`, or a preset's name, or several.
    #[serde(default)]
    pub slo: Option<values::OneOrMany>,
    /// In open mode at one rate: end a level early once its queue surely grows without end; default true
    /// where a rate is searched.
    #[serde(default)]
    pub stop_oversaturated: Option<bool>,
    /// Searches the highest rate, or concurrency, that meets `slo`, in place of levels that are given.
    #[serde(default)]
    pub search: Option<SearchSpec>,
    /// Requests sent before the measurement, with other texts.
    #[serde(default)]
    pub warmup: Option<u64>,
    /// A request is given up after this long; default 10 minutes.
    #[serde(default)]
    pub timeout: Option<Dur>,
    /// Repeats with fresh prompts and arrivals; default 1.
    #[serde(default)]
    pub repeats: Option<u32>,
    /// Wait before each repeat.
    #[serde(default)]
    pub pause: Option<Dur>,
}

/// Which deployment meets which load.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Deployments.
    #[serde(default)]
    pub deploy: Vec<String>,
    /// Loads.
    #[serde(default)]
    pub load: Vec<String>,
    /// Explicit points in place of the cross product.
    #[serde(default)]
    pub at: Vec<AtSpec>,
}

/// One explicit point.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtSpec {
    /// Deployment.
    pub deploy: String,
    /// Load; may be left out where the `[[run]]` names just one.
    #[serde(default)]
    pub load: Option<String>,
    /// Requests in flight.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Arrivals per time.
    #[serde(default)]
    pub rate: Option<values::Rate>,
}

/// What is watched while the load runs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySpec {
    /// Between readings; default 1 s.
    #[serde(default)]
    pub interval: Option<Dur>,
    /// Read GPUs.
    #[serde(default)]
    pub gpu: Option<bool>,
    /// Read CPU, memory and network.
    #[serde(default)]
    pub host: Option<bool>,
    /// Read InfiniBand and RoCE counters.
    #[serde(default)]
    pub rdma: Option<bool>,
    /// Read the engines' own metrics.
    #[serde(default)]
    pub engine: Option<bool>,
    /// Prometheus servers that already watch the hosts: asked once, after each measurement.
    #[serde(default)]
    pub prometheus: Vec<PageSpec>,
    /// Ask this machine's management controller for its power, by `ipmitool`; default: where there is one.
    #[serde(default)]
    pub ipmi: Option<bool>,
    /// Power resources of hosts' management controllers, by host.
    #[serde(default)]
    pub redfish: BTreeMap<String, PageSpec>,
    /// Pages of dcgm-exporter, by host.
    #[serde(default)]
    pub dcgm: BTreeMap<String, PageSpec>,
    /// Pages of node_exporter, by host.
    #[serde(default)]
    pub node_exporter: BTreeMap<String, PageSpec>,
    /// What a point's readings are integrated over; default `measure`.
    #[serde(default)]
    pub window: Option<WindowKind>,
    /// Also give seed 4's power number: the mean of samples above this utilisation in percent.
    #[serde(default)]
    pub seed4_util_floor: Option<f64>,
    /// The scalebeam that is carried to other hosts; default: the one that runs. A path on this machine.
    #[serde(default)]
    pub agent: Option<String>,
}

impl TelemetrySpec {
    /// What a plan says of it; what the file leaves out is watched.
    pub fn plan(&self) -> TelemetryPlan {
        let default = TelemetryPlan::default();
        TelemetryPlan {
            interval: self.interval.map_or(default.interval, |d| d.0),
            gpu: self.gpu.unwrap_or(default.gpu),
            host: self.host.unwrap_or(default.host),
            rdma: self.rdma.unwrap_or(default.rdma),
            engine: self.engine.unwrap_or(default.engine),
            steady: self.window == Some(WindowKind::Steady),
            busy_floor_pct: self.seed4_util_floor,
            ipmi: self.ipmi,
            pages: self.page_plans(),
            agent: self.agent.clone(),
        }
    }
}

/// What a point's readings are integrated over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// First send to last byte of measured requests.
    Measure,
    /// While at least 90 % of the asked concurrency is in flight.
    Steady,
}

/// Kinds of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// Rows are points, columns are metrics.
    Table,
    /// Deployments against a baseline.
    Compare,
    /// Efficiency over GPUs.
    Scaling,
    /// Where the rest of what a size promises was lost.
    Waterfall,
    /// Metrics over a level.
    Curve,
    /// Two metrics against each other, with the front.
    Pareto,
    /// Small multiples of bars.
    Panels,
    /// Requests in flight and token throughput over the time of a trial.
    Timeline,
    /// What one class suffers from another.
    Fairness,
}

/// A report to write.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// Which kind.
    pub kind: ReportKind,
    /// Deployment that the others are held against.
    #[serde(default)]
    pub baseline: Option<String>,
    /// Metrics, as `ttft.p95`.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Horizontal axis.
    #[serde(default)]
    pub x: Option<String>,
    /// Vertical axis.
    #[serde(default)]
    pub y: Option<String>,
    /// Pareto: targets on the horizontal axis at which each deployment is read, between its points.
    #[serde(default)]
    pub at: Option<Numbers>,
    /// What bars are grouped by: `load` or `point`; of a fairness report: the class that counts.
    #[serde(default)]
    pub by: Option<String>,
    /// Only these deployments.
    #[serde(default)]
    pub deploy: Vec<String>,
    /// Only these loads.
    #[serde(default)]
    pub load: Vec<String>,
    /// Fairness: the load where the class is alone.
    #[serde(default)]
    pub alone: Option<String>,
    /// Fairness: the load where it is mixed.
    #[serde(default)]
    pub mixed: Option<String>,
    /// Heading.
    #[serde(default)]
    pub title: Option<String>,
    /// File name without extension.
    #[serde(default)]
    pub file: Option<String>,
}

impl ReportSpec {
    /// The metrics of a front: those of the report, or interactivity against throughput per GPU.
    pub fn axes(&self) -> (&str, &str) {
        (self.x.as_deref().unwrap_or(pareto::USUAL_X), self.y.as_deref().unwrap_or(pareto::USUAL_Y))
    }

    /// Whether `point` belongs to this report.
    pub fn shows(&self, point: &PointResult) -> bool {
        let is_in = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        is_in(&self.deploy, &point.deployment) && is_in(&self.load, &point.load)
    }
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSpec {
    /// Metric, as `ttft.p95`.
    pub metric: String,
    /// `==`, `!=`, `<`, `<=`, `>` or `>=`.
    pub op: String,
    /// The bound, in the metric's own unit.
    pub value: f64,
    /// Only where these match.
    #[serde(default, rename = "where")]
    pub place: Option<ExpectWhere>,
    /// `error` (default) or `warn`.
    #[serde(default)]
    pub severity: Option<Severity>,
}

/// Where an expectation applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectWhere {
    /// Only this deployment.
    #[serde(default)]
    pub deploy: Option<String>,
    /// Only this load.
    #[serde(default)]
    pub load: Option<String>,
}

/// How much a failed expectation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Exit code 1.
    Error,
    /// A line in the report.
    Warn,
}

/// Where results go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Directory that holds run directories; default `runs`.
    #[serde(default)]
    pub dir: Option<String>,
    /// Formats beside the run's own.
    #[serde(default)]
    pub formats: Vec<FormatKind>,
    /// Also write this seed's files.
    #[serde(default)]
    pub profile: Option<ProfileKind>,
}

/// Formats of results and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FormatKind {
    /// `results.json`.
    Json,
    /// `results.csv`.
    Csv,
    /// `results.md`.
    Md,
    /// Charts as SVG.
    Svg,
    /// Charts as PNG.
    Png,
    /// `report.html`.
    Html,
}

/// Profiles of the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProfileKind {
    /// Seed 1.
    Seed1,
    /// Seed 2.
    Seed2,
    /// Seed 3.
    Seed3,
    /// Seed 4.
    Seed4,
    /// Seed 5.
    Seed5,
}

impl Experiment {
    /// Reads a file's text; the engines say which flags and parameters exist.
    ///
    /// # Errors
    /// Every problem that was found, each with its place in the text.
    pub fn parse(
        text: &str,
        file: &str,
        engines: crate::engine::Engines<'_>,
    ) -> Result<Self, Diagnostics> {
        diagnostic::schema_version(text, file, SCHEMA)?;
        let raw: Self = toml::from_str(text)
            .map_err(|e| Diagnostics::one(diagnostic::from_toml(text, file, &e)))?;
        let (merged, mut problems) = extend::extend(raw);
        problems.extend(check(&merged, engines));
        if problems.is_empty() {
            return Ok(merged);
        }
        Err(Diagnostics::locate(text, file, problems))
    }

    /// Deployments that are run, without templates.
    pub fn deployments(&self) -> impl Iterator<Item = (usize, &Deploy)> + Clone {
        self.deploy.iter().enumerate().filter(|(_, d)| !d.template)
    }

    /// The JSON schema of the file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}
