//! The seam to engines: what an engine is asked while a plan is made.
//!
//! Adding an engine means implementing [`Engine`] in the room `fleet`; adding a launcher never touches
//! this file. Nothing here does IO: an engine turns a shape into command lines.

use crate::plan::{
    EngineKind, EnvValue, Gate, HostPlan, InstancePlan, ModelPlan, Platform, PortPlan, ProcessPlan,
    RankLauncher, Role, StartGate,
};
use std::collections::BTreeMap;

/// Parameters of the platform or the engine, from `params = { .. }`.
pub type Params = toml::Table;

/// One parameter that an engine understands, for validation and help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamSpec {
    /// Its key.
    pub name: &'static str,
    /// What its value must be.
    pub kind: ParamKind,
    /// One line for help.
    pub doc: &'static str,
}

/// What the value of a parameter must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// A text.
    Text,
    /// A whole number, zero or above.
    Integer,
    /// How many, one or above.
    Count,
    /// A number above zero.
    Number,
    /// `true` or `false`.
    Flag,
    /// A span with its unit, as `"50ms"`.
    Duration,
    /// A list of texts.
    TextList,
}

/// Everything an engine needs to know to write the command lines of one instance.
#[derive(Debug)]
pub struct LaunchRequest<'a> {
    /// Deployment name.
    pub deployment: &'a str,
    /// Who will start the processes.
    pub platform: Platform,
    /// The model, with what the deployment overrides.
    pub model: &'a ModelPlan,
    /// The instance.
    pub instance: &'a InstancePlan,
    /// Number of instances in the deployment.
    pub instances: u32,
    /// All of them, in order, for what stands before them.
    pub pools: &'a [InstancePlan],
    /// Hosts by name; every host of `instance.place` is among them.
    pub hosts: &'a BTreeMap<String, HostPlan>,
    /// What joins ranks over hosts.
    pub launcher: Option<RankLauncher>,
    /// The user's flags, verbatim, duplicates already resolved.
    pub args: &'a [String],
    /// What the user gives each of `pools`, in their order.
    pub given: &'a [Given<'a>],
    /// The deployment's `params`, already checked against [`Engine::params`].
    pub params: &'a Params,
    /// Infrastructure ports and host of a control plane (`infra = { .. }`), by name.
    pub infra: Option<&'a Infra>,
    /// Ports of this plan that nothing else uses, for master, rpc and the like.
    pub extra_ports: &'a [u16],
}

/// What the user gives an instance, for an engine that starts several by one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<'a> {
    /// Its flags, as [`LaunchRequest::args`].
    pub args: &'a [String],
    /// Variables that the deployment as a whole does not have, or has with another value.
    pub env: BTreeMap<&'a str, &'a str>,
}

/// Where the control plane of a deployment runs.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Infra {
    /// Host in the file.
    pub host: String,
    /// Port of etcd.
    #[serde(default)]
    pub etcd: Option<u16>,
    /// Port of NATS.
    #[serde(default)]
    pub nats: Option<u16>,
    /// Port of the frontend.
    #[serde(default)]
    pub frontend: Option<u16>,
}

/// One process of an instance, before the plan adds environment, GPUs and log.
///
/// In an argument and in a value of the environment, `{scratch}` stands for a directory on the host that
/// is made for the deployment and removed with it, and `{run}` for the run's id: neither is known while
/// a plan is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessDraft {
    /// Last part of its id: `serve`, `rank1`, `rpc0`.
    pub what: String,
    /// Host in the file.
    pub host: String,
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment that the engine itself needs; the user's own values win over it.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports it listens on.
    pub ports: Vec<PortPlan>,
    /// GPU ids on its host.
    pub gpus: Vec<u32>,
    /// Node rank.
    pub rank: u32,
    /// What it is started after, where the start of those before it is not enough.
    pub after: Option<StartGate>,
    /// Files that it reads, by their names in `{scratch}`; written there just before it is started.
    pub files: BTreeMap<String, String>,
}

/// How an engine is asked to empty its prefix cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheReset {
    /// What is posted to, below the base of each entry; the answer is 200.
    pub path: String,
    /// What its processes need in their environment for that.
    pub env: &'static [(&'static str, &'static str)],
}

impl CacheReset {
    /// A post to `path`.
    pub fn post(path: &str) -> Self {
        Self { path: path.to_owned(), env: &[] }
    }
}

/// A router before instances, as readiness sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterFacts {
    /// Whether its `/v1/models` has the names that its workers serve.
    pub lists_models: bool,
    /// Where it lists its workers and whether they are well, in the form of SGLang's router.
    pub workers: Option<&'static str>,
}

/// An engine, as the plan sees it.
pub trait Engine: Sync + std::fmt::Debug {
    /// Which one it is.
    fn kind(&self) -> EngineKind;

    /// Flags that follow from the shape, so that a user must not give them in `args`; each with the
    /// key to use instead: `("--tensor-parallel-size", "tp")`.
    fn owned_flags(&self) -> &'static [(&'static str, &'static str)];

    /// Parameters it understands.
    fn params(&self) -> &'static [ParamSpec];

    /// Flags by which `args` give another longest context than `[model] max_len`.
    fn context_flags(&self) -> &'static [&'static str] {
        &["--max-model-len"]
    }

    /// Whether an instance occupies GPUs of its hosts.
    fn takes_gpus(&self) -> bool {
        true
    }

    /// Default first port.
    fn default_port(&self) -> u16 {
        8000
    }

    /// Path that is 200 once it serves; none where only the file can know one.
    fn health_path(&self) -> Option<&'static str> {
        Some("/health")
    }

    /// Environment variables that are inherited by name when they are set (tokens, caches).
    fn inherited_env(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether this version of scalebeam can bring the engine up on `platform`; the reason if not.
    ///
    /// # Errors
    /// Says what is missing, in words for the user.
    fn can_run_on(&self, platform: Platform) -> Result<(), String>;

    /// Whether this version can bring up instances of these roles on `platform`, where it can bring up
    /// the engine; the reason if not.
    ///
    /// # Errors
    /// Says what is missing, in words for the user.
    fn can_run_roles(&self, _platform: Platform, _roles: &[Role]) -> Result<(), String> {
        Ok(())
    }

    /// Command lines of one instance, in start order.
    ///
    /// # Errors
    /// When the shape cannot be served, in words for the user.
    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String>;

    /// What the user's variable `value` of the deployment is for one instance.
    ///
    /// # Errors
    /// When it holds what cannot be filled in, in words for the user.
    fn variable(&self, value: &str, _request: &LaunchRequest<'_>) -> Result<String, String> {
        Ok(value.to_owned())
    }

    /// Infrastructure processes that the whole deployment shares, in start order.
    ///
    /// # Errors
    /// When the shape cannot be served, in words for the user.
    fn infra_processes(&self, _request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        Ok(Vec::new())
    }

    /// How its prefix cache is emptied, where it can be.
    fn cache_reset(&self, _params: &Params) -> Option<CacheReset> {
        None
    }

    /// Whether one entry (its own frontend) serves all instances; otherwise each instance is an entry
    /// and the load generator balances over them.
    fn has_own_entry(&self) -> bool {
        false
    }

    /// How instances are counted where the engine tells elsewhere than at an entry: by a program that is asked on
    /// a host of `processes`.
    fn count_gate(&self, _processes: &[ProcessPlan], _instances: &[InstancePlan]) -> Option<Gate> {
        None
    }

    /// The router that stands before instances of these roles as the deployment's entry, where scalebeam starts
    /// the processes: one of [`Engine::infra_processes`].
    fn router(&self, _roles: &[Role], _params: &Params) -> Option<RouterFacts> {
        None
    }

    /// The header of a request that names the data-parallel rank which answers it, as its server numbers
    /// them, where there is one.
    fn rank_header(&self) -> Option<&'static str> {
        None
    }

    /// Name of the port of an instance where `/metrics` counts the key-value bytes that it was sent, where
    /// its engine does so under vLLM's name.
    fn kv_page(&self) -> Option<&'static str> {
        None
    }
}

/// All engines, by kind.
pub type Engines<'a> = &'a [&'static dyn Engine];

/// The engine of `kind`, if it is among `engines`.
pub fn find(engines: Engines<'_>, kind: EngineKind) -> Option<&'static dyn Engine> {
    engines.iter().copied().find(|e| e.kind() == kind)
}
