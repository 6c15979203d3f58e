//! The plan: everything that a run will do, decided before it begins.
//!
//! **Architecture invariant:** executing a plan decides nothing. Hosts, GPUs, ports, ranks, flags,
//! environment, seeds, phases and requests are all here, so `scalebeam plan` can print them, a run can
//! be repeated or resumed, and a load can be sharded by index. Secrets are here by name only.

use crate::api::HttpVersion;
use crate::driver::{Balance, LoadShape, PhasePlan};
use crate::engine_metrics::Part;
use crate::limit::Limit;
use crate::search::SearchPlan;
use crate::telemetry::TelemetryPlan;
use crate::units::{Nanos, parse_duration};
use crate::workload::{Workload, derive_seed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

mod gate;
mod notes;
mod order;
mod platform;
pub(crate) mod points;
mod resolve;
mod servers;
pub(crate) mod shape;
pub(crate) mod workloads;

pub use gate::GateKind;
pub use order::{Interleave, Turn};
pub use platform::{
    ParamValue, entry_host, object_name, params as platform_params, run_object_name,
};
pub use resolve::{PlanError, resolve};
pub use servers::{DpBalance, RankedServer};

/// Version of the plan's JSON form. Raised when a reader of an older plan would misread a newer one.
pub const PLAN_FORMAT: u32 = 1;

/// Who starts the processes of a deployment.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Processes on this machine.
    Local,
    /// Processes on hosts reached by the site's own ssh.
    Ssh,
    /// Steps of a Slurm allocation.
    Slurm,
    /// A Kubernetes Deployment or StatefulSet.
    K8s,
    /// A Kubernetes LeaderWorkerSet.
    Lws,
    /// A RayService of the KubeRay operator.
    Kuberay,
    /// A DynamoGraphDeployment.
    Dgd,
    /// Pods behind an InferencePool, an endpoint picker and a gateway, as llm-d has them.
    InferencePool,
    /// A Modal app.
    Modal,
    /// A SkyPilot task.
    Skypilot,
    /// Somebody else's: attach to an endpoint that is already there.
    External,
}

impl Platform {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Slurm => "slurm",
            Self::K8s => "k8s",
            Self::Lws => "lws",
            Self::Kuberay => "kuberay",
            Self::Dgd => "dgd",
            Self::InferencePool => "inferencepool",
            Self::Modal => "modal",
            Self::Skypilot => "skypilot",
            Self::External => "external",
        }
    }

    /// Whether hosts are this tool's business, so that GPUs must be placed on them in the file.
    pub const fn places_processes(self) -> bool {
        matches!(self, Self::Local | Self::Ssh)
    }

    /// Whether a router can stand before the instances there: each process of the plan is one of its own, at an address
    /// that the plan knows.
    pub const fn takes_routers(self) -> bool {
        self.has_entry_per_instance()
    }

    /// Whether requests come to each instance, and not to one address that the platform gives all of them.
    pub const fn has_entry_per_instance(self) -> bool {
        matches!(self, Self::Local | Self::Ssh | Self::Slurm)
    }

    /// Whether each instance has a network and devices of its own there: the same ports in all, and GPUs
    /// that the platform gives.
    pub const fn isolates(self) -> bool {
        matches!(
            self,
            Self::K8s | Self::Lws | Self::Kuberay | Self::Dgd | Self::InferencePool | Self::Modal
        )
    }

    /// Whether `plan --render` writes the files that bring a deployment up there.
    pub const fn renders(self) -> bool {
        !matches!(self, Self::Local | Self::Ssh | Self::External)
    }
}

/// What serves the model.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// NVIDIA Dynamo with vLLM workers.
    DynamoVllm,
    /// NVIDIA Dynamo with SGLang workers.
    DynamoSglang,
    /// Ray Serve LLM.
    RayServeLlm,
    /// llama.cpp's server.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// LMDeploy's API server.
    Lmdeploy,
    /// Any program, as the file says it.
    Command,
    /// Any OpenAI-compatible endpoint.
    Openai,
    /// The built-in emulated engine.
    #[serde(alias = "mock")]
    Emulated,
    /// Dynamo's own mocker behind a real Dynamo frontend.
    #[serde(alias = "dynamo-mock")]
    DynamoMocker,
}

impl EngineKind {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::DynamoVllm => "dynamo-vllm",
            Self::DynamoSglang => "dynamo-sglang",
            Self::RayServeLlm => "ray-serve-llm",
            Self::LlamaCpp => "llama.cpp",
            Self::Lmdeploy => "lmdeploy",
            Self::Command => "command",
            Self::Openai => "openai",
            Self::Emulated => "emulated",
            Self::DynamoMocker => "dynamo-mocker",
        }
    }

    /// Its GPUs are an idea: whatever a machine has, nothing of it is at work.
    pub const fn emulates_gpus(self) -> bool {
        matches!(self, Self::Emulated | Self::DynamoMocker)
    }

    /// Whether a program of its own stands before its engines and takes the requests.
    pub const fn has_frontend(self) -> bool {
        matches!(
            self,
            Self::DynamoVllm | Self::DynamoSglang | Self::DynamoMocker | Self::RayServeLlm
        )
    }
}

/// What an instance does for a request.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Prefill and decode.
    #[default]
    #[serde(alias = "agg")]
    Aggregated,
    /// Prefill only.
    Prefill,
    /// Decode only.
    Decode,
}

impl Role {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    /// What instance `index` of this role is called: `prefill 0`.
    pub fn instance_name(self, index: u32) -> String {
        format!("{} {index}", self.name())
    }

    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aggregated, Self::Prefill, Self::Decode];

    /// Reads the name in the file.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What joins the ranks of an instance that spans hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RankLauncher {
    /// The engine's own multiprocessing over `--nnodes`.
    Mp,
    /// A Ray cluster.
    Ray,
}

/// GPUs of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostGpus {
    /// Host name in the file.
    pub host: String,
    /// GPU ids on that host.
    pub ids: Vec<u32>,
}

/// One engine: tp x pp x dp ranks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstancePlan {
    /// Position in the deployment.
    pub index: u32,
    /// Its role.
    pub role: Role,
    /// Tensor-parallel degree.
    pub tp: u32,
    /// Pipeline-parallel degree.
    pub pp: u32,
    /// Data-parallel degree.
    pub dp: u32,
    /// What spreads requests over its data-parallel ranks, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dp_balance: Option<DpBalance>,
    /// Expert-parallel degree, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ep: Option<u32>,
    /// Where its ranks run, in rank order.
    pub place: Vec<HostGpus>,
    /// The port that its rank 0 serves on; of several servers the first on each host.
    pub port: u16,
}

impl InstancePlan {
    /// Ranks, and GPUs, of this instance.
    pub const fn gpus(&self) -> u32 {
        self.tp * self.pp * self.dp
    }
}

/// The value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", untagged)]
pub enum EnvValue {
    /// As given.
    Set(String),
    /// Taken from the environment of scalebeam when the process starts; never written anywhere.
    Inherit {
        /// Always true; says so to a reader of the JSON.
        inherit: bool,
    },
}

impl EnvValue {
    /// Inherited by name.
    pub const INHERIT: Self = Self::Inherit { inherit: true };

    /// The value, where the plan gives it.
    pub fn given(&self) -> Option<&str> {
        match self {
            Self::Set(text) => Some(text),
            Self::Inherit { .. } => None,
        }
    }
}

/// A port that a process listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PortPlan {
    /// What it is for: `http`, `master`, `rpc`.
    pub name: String,
    /// The address it is bound to or reached at.
    pub addr: String,
    /// The port.
    pub port: u16,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProcessPlan {
    /// Unique in the plan: `deployment/instance/what`.
    pub id: String,
    /// The instance it belongs to; absent for infrastructure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// The host it runs on.
    pub host: String,
    /// The program: a name looked up on `PATH`, a path, or `scalebeam` for ourselves.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables added to its environment.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports it listens on.
    pub ports: Vec<PortPlan>,
    /// GPU ids it may use.
    pub gpus: Vec<u32>,
    /// Rank of its node in the instance.
    pub rank: u32,
    /// File of the run directory that its output goes to.
    pub log: String,
    /// What it is started after. Without it, it is started as soon as those before it in the plan were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<StartGate>,
    /// Texts of files that it reads, by their names in the deployment's directory on its host (`{scratch}`);
    /// written there just before it is started, word for word.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// What must hold before a process is started, asked on a host where earlier processes of the plan run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum StartGate {
    /// Somebody listens on a port.
    Listening {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// Every node has joined a Ray cluster with its GPUs, by `ray status` on the host of its head.
    RayCluster {
        /// The program `ray`, as the plan names it.
        ray: String,
        /// Host of the head.
        head: String,
        /// `ADDRESS:PORT` of the head.
        address: String,
        /// Its nodes.
        nodes: Vec<RayNode>,
    },
}

/// Name of the port on which a raylet shows what the engines on its node count.
pub const RAY_METRICS: &str = "ray-metrics";

/// A node of a Ray cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RayNode {
    /// Its host.
    pub host: String,
    /// A resource that its raylet alone offers, by which it is known.
    pub resource: String,
    /// GPUs that it offers.
    pub gpus: u32,
}

/// What must hold before a deployment is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum Gate {
    /// Every process of the plan runs; watched at all times.
    Alive {
        /// Expected number.
        processes: u32,
    },
    /// `GET` of this path answers 200 at every entry.
    Http {
        /// The path.
        path: String,
    },
    /// A line in the log of one process of each instance holds this text.
    Log {
        /// The text.
        text: String,
    },
    /// The served model is listed at every entry.
    ModelListed {
        /// Its name.
        model: String,
    },
    /// Behind a router, each server of an instance answers for itself.
    Servers {
        /// Base URLs, and whose they are.
        servers: Vec<EntryPlan>,
        /// `GET` of this path answers 200, where one is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// It lists this model, where lists are asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// The router lists this many workers that are well.
    Workers {
        /// Where it lists them.
        path: String,
        /// Expected number.
        expected: u32,
    },
    /// An application of Ray Serve runs with this many replicas, by `serve status` on a host of the plan.
    Application {
        /// The program `serve`, as the plan names it.
        serve: String,
        /// The host where it is asked.
        host: String,
        /// Base URL of the cluster's dashboard, as that host sees it.
        dashboard: String,
        /// Name of the application.
        name: String,
        /// Its deployment whose replicas are the instances.
        deployment: String,
        /// Expected number.
        replicas: u32,
        /// Further deployments of it, each with its number: those that compute prompts for the first.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        also: BTreeMap<String, u32>,
    },
    /// This many instances of each role answer.
    Instances {
        /// Count by role.
        expected: BTreeMap<String, u32>,
    },
    /// One real answer with at least one token and usage, at every entry, streamed where the family
    /// can.
    Completion {
        /// The families that are measured here, each of which must answer; empty = chat, or text
        /// completions where there is no chat.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        apis: Vec<crate::api::Api>,
    },
    /// Each data-parallel rank gives a real answer to a request that asks for it by number.
    Ranks {
        /// The header that names the rank.
        header: String,
        /// Servers that choose between ranks.
        servers: Vec<RankedServer>,
    },
    /// While prompts that nobody has seen before are answered by the entry, every decode instance that
    /// answers one is sent key-value bytes.
    BlocksMoved {
        /// The decode instances, and where each has its page of metrics. Pages without an instance are of nodes of one
        /// cluster, which count all instances together.
        decode: Vec<EntryPlan>,
        /// So many prompts.
        prompts: u32,
    },
}

/// Readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReadyPlan {
    /// Give up after this long.
    pub timeout: Nanos,
    /// Give up a gate after this long, from when the one before it was passed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub within: BTreeMap<GateKind, Nanos>,
    /// In this order.
    pub gates: Vec<Gate>,
}

/// Teardown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StopPlan {
    /// Between SIGTERM and SIGKILL.
    pub grace: Nanos,
    /// Take down also when the run failed or was interrupted.
    pub always: bool,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EntryPlan {
    /// Base URL, without a path.
    pub url: String,
    /// The instance behind it, where there is just one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
}

/// One deployment, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeploymentPlan {
    /// Its name.
    pub name: String,
    /// Who starts it.
    pub platform: Platform,
    /// What it is.
    pub engine: EngineKind,
    /// Engine version asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Container image asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the platform is told, by the names of [`platform_params`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, ParamValue>,
    /// What joins ranks over hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<RankLauncher>,
    /// Model id or path.
    pub model: String,
    /// Model name in requests.
    pub served_model: String,
    /// Allocated GPUs: the denominator of every per-GPU number. Zero where they are not known.
    pub gpus: u32,
    /// Kinds of GPU, where hosts name them.
    pub gpu_kinds: Vec<String>,
    /// Instances in order.
    pub instances: Vec<InstancePlan>,
    /// Processes in start order.
    pub processes: Vec<ProcessPlan>,
    /// Where requests go.
    pub entries: Vec<EntryPlan>,
    /// How requests are spread over entries.
    pub balance: Balance,
    /// Name of the environment variable that holds the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Extra request headers: name to the environment variable that holds the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_env: BTreeMap<String, String>,
    /// PEM file of certificates that are trusted beside the system's, relative to the experiment file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Version of HTTP that requests are sent with.
    #[serde(default, skip_serializing_if = "HttpVersion::is_default")]
    pub http: HttpVersion,
    /// What is posted to, at every entry, to empty the prefix cache before each measurement; absent where
    /// no workload asks for that, or the engine has no such path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_reset: Option<String>,
    /// Readiness.
    pub ready: ReadyPlan,
    /// Teardown.
    pub stop: StopPlan,
    /// Price per hour of the whole deployment while it is up, where it, its hosts or its GPUs have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
    /// That is the price of its machines, whole: other deployments, or copies of it, may be on them for nothing more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub price_is_of_hosts: bool,
    /// Skip, with a note, where its program is not installed.
    #[serde(default)]
    pub optional: bool,
    /// Why this version of scalebeam cannot bring it up, where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_run: Option<String>,
}

impl DeploymentPlan {
    /// The text that the platform is told as `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.params.get(name)? {
            ParamValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The span that the platform is told as `name`.
    pub fn span(&self, name: &str) -> Option<Nanos> {
        parse_duration(self.text(name)?).ok()
    }

    /// The count that the platform is told as `name`.
    pub fn whole(&self, name: &str) -> Option<u32> {
        match self.params.get(name)? {
            ParamValue::Integer(n) => u32::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The texts that the platform is told as `name`; none where it is told nothing.
    pub fn list(&self, name: &str) -> &[String] {
        match self.params.get(name) {
            Some(ParamValue::List(texts)) => texts,
            _ => &[],
        }
    }

    /// Where its engines, and what stands before them, say what they count. Of an instance its own address, also
    /// behind a router: at an address that several share each page would be of another.
    pub fn metrics_targets(&self) -> Vec<MetricsTarget> {
        let nodes = self.ray_nodes();
        if !nodes.is_empty() {
            return nodes;
        }
        let mut targets: Vec<MetricsTarget> = match self.platform {
            Platform::External => {
                self.entries.iter().map(|e| self.entry(e, Part::Engine)).collect()
            }
            _ => self.instances.iter().flat_map(|x| self.instance_targets(x)).collect(),
        };
        if self.engine.has_frontend() && self.platform != Platform::External {
            targets.extend(self.entries.iter().map(|entry| self.entry(entry, Part::Frontend)));
        }
        targets
    }

    /// Nodes of a Ray cluster whose raylets show what is counted on them: each its engines, and the first what
    /// stands before them too. That page is of Ray's own agent, so no engine is asked twice.
    fn ray_nodes(&self) -> Vec<MetricsTarget> {
        let page = |process: &ProcessPlan| {
            let port = process.ports.iter().find(|port| port.name == RAY_METRICS)?;
            Some((process.host.clone(), format!("http://{}:{}", port.addr, port.port)))
        };
        let pages: Vec<(String, String)> = self.processes.iter().filter_map(page).collect();
        let target = |name: String, url: &String, part: Part| MetricsTarget {
            name,
            url: Some(url.clone()),
            part,
            role: Role::Aggregated,
        };
        let engines =
            pages.iter().map(|(host, url)| target(format!("node {host}"), url, Part::Engine));
        let frontend =
            pages.iter().take(1).map(|(_, url)| target("frontend".to_owned(), url, Part::Frontend));
        engines.chain(frontend).collect()
    }

    fn entry(&self, entry: &EntryPlan, part: Part) -> MetricsTarget {
        let name = match (part, self.entries.len()) {
            (Part::Frontend, 1) => "frontend".to_owned(),
            _ => entry.url.clone(),
        };
        MetricsTarget { name, url: Some(entry.url.clone()), part, role: Role::Aggregated }
    }

    /// One of an instance, and of one whose data-parallel ranks have several servers one of each server.
    fn instance_targets(&self, instance: &InstancePlan) -> Vec<MetricsTarget> {
        let name = instance.role.instance_name(instance.index);
        let target = |name: String, url: Option<String>| MetricsTarget {
            name,
            url,
            part: Part::Engine,
            role: instance.role,
        };
        let servers: Vec<String> = match self.knows_servers() {
            true => servers::port_urls(&self.processes, instance.index, "http").collect(),
            false => Vec::new(),
        };
        if servers.len() < 2 || self.engine.has_frontend() {
            return vec![target(name, self.instance_url(instance.index))];
        }
        let of_server = |url: String| target(format!("{name} at {url}"), Some(url));
        servers.into_iter().map(of_server).collect()
    }

    /// Whether servers are where the plan has them. Slurm's nodes have an address in the plan where a router needs it;
    /// else it is asked of Slurm, and stands in the entries.
    fn knows_servers(&self) -> bool {
        let is_behind_one = self.entries.iter().all(|entry| entry.instance.is_none());
        self.platform.places_processes() || (self.platform.takes_routers() && is_behind_one)
    }

    /// Base URL at which instance `index` alone answers, where it can be asked from here.
    fn instance_url(&self, index: u32) -> Option<String> {
        let port = |name| servers::port_url(&self.processes, index, name);
        // Elsewhere the planned address is that of a pod or a container, which nobody reaches from here.
        let own = self.knows_servers().then(|| port("system")).flatten();
        if self.engine.has_frontend() {
            return own;
        }
        let http = || self.knows_servers().then(|| port("http")).flatten();
        let entry = || match self.entries.as_slice() {
            [one] if self.instances.len() == 1 => Some(one.url.clone()),
            all => all.iter().find(|e| e.instance == Some(index)).map(|e| e.url.clone()),
        };
        own.or_else(http).or_else(entry)
    }
}

/// A page of metrics that is to be read while a load runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsTarget {
    /// `prefill 0`, `frontend`, or a URL.
    pub name: String,
    /// Base URL, beside which the page is; absent where it cannot be asked from here.
    pub url: Option<String>,
    /// What it is.
    pub part: Part,
    /// What it does for a request.
    pub role: Role,
}

/// The variable of a load that a point fixes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Level {
    /// Short label, part of the run directory's path: `c64`, `r5`, `b8`, `n200`.
    pub label: String,
    /// Requests in flight asked for, where that is what the load fixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests per second, where that is what the load fixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rps: Option<f64>,
    /// Prompts per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
}

/// Mode of a load.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All requests at once.
    Burst,
    /// N users without think time.
    #[default]
    Closed,
    /// A schedule of arrivals.
    Open,
    /// One by one.
    Serial,
    /// One request with a list of prompts, one by one.
    Batch,
}

impl Mode {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Serial => "serial",
            Self::Batch => "batch",
        }
    }
}

/// One repeat of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrialPlan {
    /// From 1.
    pub number: u32,
    /// Seed of its warm-up prompts.
    pub warmup_seed: u64,
    /// Seed of its measured prompts.
    pub measure_seed: u64,
}

/// One deployment under one load level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PointPlan {
    /// `deployment/load/level`.
    pub id: String,
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Load mode.
    pub mode: Mode,
    /// The level.
    pub level: Level,
    /// What is asked.
    pub workload: Workload,
    /// Prompts per request.
    pub batch: u32,
    /// The warm-up, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<PhasePlan>,
    /// The measurement.
    pub measure: PhasePlan,
    /// Wait before each trial.
    pub pause: Nanos,
    /// A trial ends early once its queue surely grows without end: [`crate::saturation`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_oversaturated: bool,
    /// What it must meet, where the load says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<crate::slo::Slo>,
    /// The repeats.
    pub trials: Vec<TrialPlan>,
}

impl PointPlan {
    /// The measurement of one trial. Repeats draw their arrivals anew, as they do their prompts: the same
    /// bursts at the same places would make of them one trial seen twice.
    pub fn measure_of(&self, trial: &TrialPlan) -> PhasePlan {
        let mut measure = self.measure.clone();
        if let LoadShape::Open { seed, .. } = &mut measure.shape
            && trial.number > 1
        {
            *seed = derive_seed(&[*seed, u64::from(trial.number)]);
        }
        measure
    }
}

/// How long and how much, before anything is started. An estimate, not a promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Estimate {
    /// Bring-up, load and teardown of everything.
    pub wall: Nanos,
    /// At the given prices, where all deployments have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// What the estimate assumes.
    pub basis: String,
}

/// Something a reader of the plan should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlanNote {
    /// Where in the file, as `load[0].requests`.
    pub path: String,
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// The model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelPlan {
    /// Id or path.
    pub id: String,
    /// Name in requests.
    pub served: String,
    /// Revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Tokenizer directory or file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Weight type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Longest context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_len: Option<u32>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostPlan {
    /// Name in the file.
    pub name: String,
    /// Data-plane address.
    pub addr: String,
    /// `ssh_config` name; absent = this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// GPUs.
    pub gpus: u32,
    /// Kind of GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Network interface of the data plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// Labels of a cluster's node, or features of Slurm, that pick it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The address of a host of the file that gives none.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

impl HostPlan {
    /// A host of this name of which the file says nothing.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            addr: LOOPBACK.to_owned(),
            ssh: None,
            gpus: 0,
            gpu: None,
            iface: None,
            labels: BTreeMap::new(),
        }
    }

    /// Whether others can reach it by what the file says.
    pub fn has_address(&self) -> bool {
        self.addr != LOOPBACK
    }
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// Experiment name.
    pub name: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The model.
    pub model: ModelPlan,
    /// The machines.
    pub hosts: Vec<HostPlan>,
    /// Addresses of the load generator that connections start from, in turn; empty = as its system
    /// chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpAddr>,
    /// Deployments in the order in which they are brought up, in the first round.
    pub deployments: Vec<DeploymentPlan>,
    /// Points in the order in which they are measured, in the first round.
    pub points: Vec<PointPlan>,
    /// What repeats go round over; the order that follows: [`Plan::turns`].
    #[serde(default, skip_serializing_if = "Interleave::is_default")]
    pub interleave: Interleave,
    /// Searches, each after the points of its deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchPlan>,
    /// What GPUs, machines, platforms and power cost, where the file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<crate::cost::Prices>,
    /// What it may take before it is stopped, where the file says so.
    #[serde(default, skip_serializing_if = "Limit::is_none")]
    pub limit: Limit,
    /// What is watched while the load runs.
    #[serde(default, skip_serializing_if = "TelemetryPlan::is_default")]
    pub telemetry: TelemetryPlan,
    /// What a reader should know before running it.
    pub notes: Vec<PlanNote>,
    /// How long and how much.
    pub estimate: Estimate,
}

impl Plan {
    /// The JSON schema of a plan.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Estimates anew what is planned, as after a part of it was chosen.
    pub fn estimate_anew(&mut self) {
        self.estimate = resolve::estimate(&self.turns(), &self.searches);
        self.weigh_limit();
    }

    /// Notes where the estimate is above the limit, in place of what was noted of that before.
    pub fn weigh_limit(&mut self) {
        self.notes.retain(|note| !note.path.starts_with("limit."));
        self.notes.extend(self.limit.beyond(&self.estimate));
    }

    /// The deployment called `name`.
    pub fn deployment(&self, name: &str) -> Option<&DeploymentPlan> {
        self.deployments.iter().find(|d| d.name == name)
    }

    /// Points, and levels that a search may probe.
    pub fn every_point(&self) -> impl Iterator<Item = &PointPlan> {
        self.points.iter().chain(self.searches.iter().flat_map(|s| &s.levels))
    }

    /// Whether a point of that deployment and load is a probe of a search.
    pub fn is_probe(&self, deployment: &str, load: &str) -> bool {
        self.searches.iter().any(|s| s.deployment == deployment && s.load == load)
    }

    /// Searches at the deployment called `name`, in order.
    pub fn searches_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a SearchPlan> {
        self.searches.iter().filter(move |s| s.deployment == name)
    }

    /// Points of the deployment called `name`, in order.
    pub fn points_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a PointPlan> {
        self.points.iter().filter(move |p| p.deployment == name)
    }
}
