//! What a platform is told in `params = { .. }`, and how a deployment is called there.

use super::{InstancePlan, Platform};
use crate::engine::{ParamKind, ParamSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const fn param(name: &'static str, kind: ParamKind, doc: &'static str) -> ParamSpec {
    ParamSpec { name, kind, doc }
}

/// Everything that runs as pods.
const PODS: &[ParamSpec] = &[
    param("namespace", ParamKind::Text, "Kubernetes namespace; that of the context by default"),
    param("cpus", ParamKind::Integer, "CPUs of an engine's pod"),
    param("memory", ParamKind::Text, "memory of an engine's pod, with its unit"),
    param("shm", ParamKind::Text, "size of /dev/shm, with its unit; 16Gi by default"),
    param("hf_secret", ParamKind::Text, "Secret with HF_TOKEN under the key 'token'"),
    param(
        "env_secret",
        ParamKind::Text,
        "Secret with variables that are passed on by name; scalebeam-env by default",
    ),
    param(
        "model_pvc",
        ParamKind::Text,
        "volume claim for models, mounted as HF_HOME; ReadWriteMany where several pods have it",
    ),
    param("context", ParamKind::Text, "context of the kubeconfig; the current one by default"),
    param(
        "client_image",
        ParamKind::Text,
        "image with scalebeam and kubectl, in which `run --in-cluster` measures inside of the cluster",
    ),
    param(
        "results_pvc",
        ParamKind::Text,
        "volume claim in which the run stays that is measured inside; it is fetched from there all the same",
    ),
    param(
        "expose",
        ParamKind::Text,
        "how it is reached from outside of the cluster: NodePort, LoadBalancer, or ClusterIP where the \
         cluster's own network reaches to here",
    ),
];

const KUBERAY: &[ParamSpec] = &[
    param(
        "ray_version",
        ParamKind::Text,
        "version of Ray in the image, where its tag does not say",
    ),
    param("head_cpus", ParamKind::Integer, "CPUs of the head's pod; 4 by default"),
    param("head_memory", ParamKind::Text, "memory of the head's pod; 16Gi by default"),
];

const INFERENCE_POOL: &[ParamSpec] = &[
    param("gateway_class", ParamKind::Text, "class of its Gateway, as the cluster has it"),
    param(
        "gateway_address",
        ParamKind::Text,
        "where its Gateway answers, as HOST or HOST:PORT; the address that the cluster gives it by default",
    ),
    param("picker_image", ParamKind::Text, "image of llm-d's endpoint picker"),
    param(
        "picker",
        ParamKind::TextList,
        "what the picker weighs, as \"prefix-cache-scorer=3\"; by default as llm-d's chart",
    ),
    param("picker_args", ParamKind::TextList, "flags of the picker beside ours"),
];

const MODAL: &[ParamSpec] = &[
    param(
        "app",
        ParamKind::Text,
        "name of the app before the deployment's; the experiment's by default",
    ),
    param("python", ParamKind::Text, "version of Python in the image; 3.12 by default"),
    param("pip", ParamKind::TextList, "packages beside the engine's own, as pip takes them"),
    param(
        "hf_cache",
        ParamKind::Text,
        "Volume for Hugging Face's cache; created where it is missing",
    ),
    param("secrets", ParamKind::TextList, "Secrets whose variables the server gets"),
    param("min_containers", ParamKind::Integer, "containers that stay up; all by default"),
    param("max_containers", ParamKind::Integer, "containers at most: the replicas"),
    param("scaledown", ParamKind::Duration, "how long an idle container lives; 15m by default"),
    param(
        "startup",
        ParamKind::Duration,
        "how long the server may take to listen; ready.timeout by default",
    ),
    param("timeout", ParamKind::Duration, "how long one request may take; 1h by default"),
];

const SLURM: &[ParamSpec] = &[
    param("partition", ParamKind::Text, "partition of the job"),
    param("account", ParamKind::Text, "account that pays"),
    param("qos", ParamKind::Text, "quality of service"),
    param("time", ParamKind::Duration, "limit of the job; 2h by default"),
    param("queue", ParamKind::Duration, "how long it may wait for nodes; 24h by default"),
    param("setup", ParamKind::TextList, "lines of the job script before the engine starts"),
    param(
        "scratch",
        ParamKind::Text,
        "folder of each node that processes write in; /tmp by default",
    ),
];

const SKYPILOT: &[ParamSpec] = &[
    param("cloud", ParamKind::Text, "cloud, as SkyPilot names it"),
    param("region", ParamKind::Text, "region of the cloud"),
    param("disk_size", ParamKind::Integer, "disk of each node in GB; 512 by default"),
    param("setup", ParamKind::TextList, "commands that install the engine; by pip by default"),
];

/// The parameters of `platform`, common ones first. The one table of them: files are checked against it,
/// and `fleet` renders from nothing else.
pub fn params(platform: Platform) -> impl Iterator<Item = &'static ParamSpec> {
    let (common, own): (&[ParamSpec], &[ParamSpec]) = match platform {
        Platform::Local | Platform::Ssh | Platform::External => (&[], &[]),
        Platform::K8s | Platform::Lws | Platform::Dgd => (PODS, &[]),
        Platform::Kuberay => (PODS, KUBERAY),
        Platform::InferencePool => (PODS, INFERENCE_POOL),
        Platform::Modal => (&[], MODAL),
        Platform::Slurm => (&[], SLURM),
        Platform::Skypilot => (&[], SKYPILOT),
    };
    common.iter().chain(own)
}

/// The value of a platform's parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum ParamValue {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(u64),
    /// A text; of a span, as it was written.
    Text(String),
    /// Texts.
    List(Vec<String>),
}

impl ParamValue {
    /// As the file has it; nothing for what no parameter of a platform can be.
    fn from_file(value: &toml::Value) -> Option<Self> {
        Some(match value {
            toml::Value::String(text) => Self::Text(text.clone()),
            toml::Value::Integer(number) => Self::Integer(u64::try_from(*number).ok()?),
            toml::Value::Boolean(flag) => Self::Flag(*flag),
            toml::Value::Array(items) => Self::List(
                items.iter().map(|i| i.as_str().map(str::to_owned)).collect::<Option<_>>()?,
            ),
            _ => return None,
        })
    }
}

/// `params` in two: what the platform is told, and what the engine is. A name that both have is the
/// platform's: there, `python` of Modal is a version and no program.
pub(crate) fn split(
    platform: Platform,
    table: &toml::Table,
) -> (BTreeMap<String, ParamValue>, toml::Table) {
    let (own, rest): (Vec<_>, Vec<_>) =
        table.iter().partition(|(key, _)| params(platform).any(|p| p.name == key.as_str()));
    let value =
        |(key, value): (&String, &toml::Value)| Some((key.clone(), ParamValue::from_file(value)?));
    let rest = rest.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    (own.into_iter().filter_map(value).collect(), rest)
}

/// Longest name that KubeRay and the names it derives leave room for.
const OBJECT_NAME: usize = 40;

/// `name` as the name of an object of Kubernetes: lower case, letters, digits and '-', a letter first, at
/// most 40 characters. A name that is not so already gets a mark of what it was, so that two never meet.
///
/// ```
/// use scalebeam_model::plan::object_name;
/// assert_eq!(object_name("b32-1n-4g"), "b32-1n-4g");
/// assert!(object_name("4gpu").starts_with("d-4gpu-"));
/// assert_ne!(object_name("a_b"), object_name("a.b"));
/// ```
pub fn object_name(name: &str) -> String {
    let lowered = name.to_ascii_lowercase();
    let mut object: String =
        lowered.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if !object.starts_with(|c: char| c.is_ascii_lowercase()) {
        object.insert_str(0, "d-");
    }
    if object == name && object.len() <= OBJECT_NAME && !object.ends_with('-') {
        return object;
    }
    object.truncate(OBJECT_NAME - 7);
    format!("{}-{:06x}", object.trim_end_matches('-'), mark(name))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// 24 bits of it.
fn mark(text: &str) -> u64 {
    let hash = hash(text);
    (hash ^ (hash >> 32)) & 0x00ff_ffff
}

/// Characters of a deployment's name that one of its runs keeps of it.
const RUN_NAME_HEAD: usize = 20;

/// The name of what a run has a platform start for a deployment: an [`object_name`] of at most 33
/// characters, which no other run has. It is known before anything exists, so that what was started can be
/// found where nothing could be written down any more.
///
/// ```
/// use scalebeam_model::plan::run_object_name;
/// let name = run_object_name("4gpu", "20261121T101500Z-lab", "/home/me/runs/20261121T101500Z-lab");
/// assert!(name.starts_with("d-4gpu-"));
/// assert_ne!(name, run_object_name("4gpu", "20261121T101500Z-lab", "/home/you/runs/20261121T101500Z-lab"));
/// ```
pub fn run_object_name(deployment: &str, run: &str, run_dir: &str) -> String {
    let mut head = object_name(deployment);
    head.truncate(RUN_NAME_HEAD);
    let hash = hash(&format!("{deployment}\0{run}\0{run_dir}"));
    format!("{}-{:012x}", head.trim_end_matches('-'), (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

/// The host of an entry of Slurm until the job runs: the node that an instance is placed on, or a word for
/// the one that it is given.
pub(crate) fn node_of(instance: &InstancePlan) -> String {
    let placed = instance.place.first().map(|p| p.host.clone());
    placed.unwrap_or_else(|| format!("NODE{}", instance.index))
}

/// The host of the entry of what is called `deployment`, where the platform gives it a name.
pub fn entry_host(platform: Platform, deployment: &str) -> String {
    match platform {
        Platform::K8s => object_name(deployment),
        // The plain name is the headless Service's that the controller makes for the ranks.
        Platform::Lws => format!("{}-leader", object_name(deployment)),
        Platform::Kuberay => format!("{}-serve-svc", object_name(deployment)),
        Platform::Dgd => format!("{}-frontend", object_name(deployment)),
        Platform::InferencePool => format!("{}-gateway", object_name(deployment)),
        _ => deployment.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_s_name_is_one_of_kubernetes_and_tells_deployments_apart() {
        let long = "a".repeat(100);
        let names =
            ["ok", "4gpu", "d-4gpu", "A", "a", "a_b", "a.b", "end-", "x.Y_z", &long, &long[1..]];
        let objects: Vec<String> = names.iter().map(|n| object_name(n)).collect();
        for object in &objects {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(object.chars().all(fine) && object.len() <= OBJECT_NAME, "{object}");
            assert!(object.starts_with(|c: char| c.is_ascii_lowercase()), "{object}");
            assert!(!object.ends_with('-'), "{object}");
        }
        let distinct: std::collections::BTreeSet<&String> = objects.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn a_run_s_name_is_an_object_s_and_its_own() {
        let long = "B_".repeat(50);
        let runs = [("a", "r1", "/d"), ("a", "r2", "/d"), ("a", "r1", "/e"), (&long, "r1", "/d")];
        let names: Vec<String> = runs.iter().map(|(d, r, p)| run_object_name(d, r, p)).collect();
        for name in &names {
            assert!(name.len() <= 33 && object_name(name) == *name, "{name}");
        }
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn no_platform_names_a_parameter_twice() {
        use Platform::{Dgd, InferencePool, K8s, Kuberay, Lws, Modal, Skypilot, Slurm};
        for platform in [K8s, Lws, Kuberay, Dgd, InferencePool, Modal, Slurm, Skypilot] {
            let mut names: Vec<&str> = params(platform).map(|p| p.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{platform:?}");
        }
    }

    #[test]
    fn a_name_that_platform_and_engine_share_is_the_platform_s() {
        let table = "python = \"3.12\"\nbin = \"/opt/vllm\"\npip = [\"a\"]".parse().unwrap();
        let (platform, engine) = split(Platform::Modal, &table);
        assert_eq!(platform["python"], ParamValue::Text("3.12".into()));
        assert_eq!(platform["pip"], ParamValue::List(vec!["a".into()]));
        assert_eq!(engine.keys().collect::<Vec<_>>(), ["bin"]);
    }
}
