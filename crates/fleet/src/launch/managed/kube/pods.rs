//! What a pod says about itself: whether it serves, what it waits for, or why it never will.
//!
//! **Invariants.** Pure: from what `kubectl get` printed. A pod is given up only over what nobody but a
//! person can heal: what the cluster itself may yet heal (a node that comes, a registry that answers again)
//! is waited for, in the cluster's own words.

use super::objects::{Container, Pod, Terminated, Waiting};
use crate::render::kube::ROLE;
use scalebeam_model::plan::Role;

/// What a pod of a Ray cluster is for, by KubeRay.
const RAY_ROLE: &str = "ray.io/node-type";

/// Which container of a pod is meant where nobody says, by whoever adds some.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Where a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers its readiness probe, or has none.
    Ready,
    /// It does not yet, in words.
    Waiting(String),
    /// It never will by itself.
    Doomed(Trouble),
}

/// Why a pod will never serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) pod: String,
    pub(super) container: Option<String>,
    /// What the cluster calls it, with its message.
    pub(super) what: String,
    /// What to do about it.
    pub(super) hint: &'static str,
    /// Whether the container that failed is gone, so that its log is the one before this.
    pub(super) restarted: bool,
}

/// Reasons for which a container waits that no wait will end.
const DEAD_ENDS: &[(&str, &str)] = &[
    ("CrashLoopBackOff", "it ends again and again: see its log below"),
    ("InvalidImageName", "the name of its image cannot be read: correct `image` of the deployment"),
    (
        "ErrImageNeverPull",
        "its image is not on the node and may not be pulled: pull it there, or name another",
    ),
    (
        "CreateContainerConfigError",
        "a Secret or ConfigMap that it names is missing: create it in this namespace, or correct \
         hf_secret, env_secret",
    ),
    (
        "CreateContainerError",
        "the node could not make its container: correct what the message names",
    ),
    (
        "RunContainerError",
        "its command could not be started: the program is not in the image, or params name the \
         wrong one",
    ),
];

/// What a registry says that answers later.
const MAY_PASS: [&str; 7] = [
    "timeout",
    "timed out",
    "connection re",
    "temporar",
    "toomanyrequests",
    "too many requests",
    "unavailable",
];

pub(super) const IMAGE_HINT: &str = "its image cannot be pulled: check `image` and `version` of the deployment, and that \
     the namespace has the registry's pull secret";
const MEMORY_HINT: &str = "it was ended for want of memory: raise `memory` or `shm` in params, or use a \
     smaller model";
const CLAIM_HINT: &str =
    "the volume claim is not in this namespace: create it, or correct model_pvc";

/// The kind of a pod, for counting.
pub(super) fn role(pod: &Pod) -> &str {
    let labels = &pod.metadata.labels;
    labels.get(ROLE).or_else(|| labels.get(RAY_ROLE)).map_or("", String::as_str)
}

/// What a pod works for; nothing where it is no instance of an engine. Pods of most kinds are all alike.
pub(super) fn works_as(pod: &Pod) -> Option<Role> {
    match role(pod) {
        "frontend" | "picker" | "head" => None,
        "prefill" => Some(Role::Prefill),
        "decode" => Some(Role::Decode),
        _ => Some(Role::Aggregated),
    }
}

/// The container that an engine is in, of a pod that is there to stay: the first is ours, unless whoever puts others
/// before it says which is meant.
pub(super) fn main_container(pod: &Pod) -> Option<&str> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let containers = &pod.spec.containers;
    let meant = pod.metadata.annotations.get(DEFAULT_CONTAINER);
    let meant = meant.and_then(|name| containers.iter().find(|c| c.name == *name));
    meant.or(containers.first()).map(|container| container.name.as_str())
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.condition("Ready").is_some_and(super::objects::Condition::is_true)
}

/// Where `pod` stands.
pub(super) fn standing(pod: &Pod) -> Standing {
    let status = &pod.status;
    if status.phase == "Failed" {
        return Standing::Doomed(failed(pod));
    }
    if let Some(trouble) = containers(pod).find_map(|c| trouble(pod, c)) {
        return Standing::Doomed(trouble);
    }
    if is_ready(pod) {
        return Standing::Ready;
    }
    match pod.condition("PodScheduled").filter(|c| !c.is_true()) {
        Some(condition) => unscheduled(pod, &condition.message),
        None => Standing::Waiting(doing(pod)),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses)
}

/// A pod that the node gave up: evicted, out of disk, past its deadline.
fn failed(pod: &Pod) -> Trouble {
    let ended = containers(pod).find_map(|c| Some((c, c.state.terminated.as_ref()?)));
    let what = match ended {
        Some((_, how)) if pod.status.reason.is_empty() => exit(how),
        _ => said(&pod.status.reason, &pod.status.message),
    };
    Trouble {
        pod: pod.metadata.name.clone(),
        container: ended.map(|(container, _)| container.name.clone()),
        what,
        hint: "see `kubectl describe pod` of it, and what else its node had to do",
        restarted: false,
    }
}

fn trouble(pod: &Pod, container: &Container) -> Option<Trouble> {
    let because = |what: String, hint, restarted| Trouble {
        pod: pod.metadata.name.clone(),
        container: Some(container.name.clone()),
        what,
        hint,
        restarted,
    };
    let last = container.last_state.terminated.as_ref();
    let now = container.state.terminated.as_ref();
    if let Some(ended) = [now, last].into_iter().flatten().find(|e| e.reason == "OOMKilled") {
        return Some(because(exit(ended), MEMORY_HINT, now.is_none()));
    }
    let waiting = container.state.waiting.as_ref()?;
    if is_lost_image(waiting) {
        return Some(because(said(&waiting.reason, &waiting.message), IMAGE_HINT, false));
    }
    let (_, hint) = DEAD_ENDS.iter().find(|(reason, _)| *reason == waiting.reason)?;
    let what = match last {
        Some(ended) => format!("{}: {}", waiting.reason, exit(ended)),
        None => said(&waiting.reason, &waiting.message),
    };
    Some(because(what, hint, last.is_some()))
}

/// Whether an image was asked for again and again, and not because a registry had no time.
fn is_lost_image(waiting: &Waiting) -> bool {
    let message = waiting.message.to_lowercase();
    waiting.reason == "ImagePullBackOff" && !MAY_PASS.iter().any(|words| message.contains(words))
}

/// A pod without a node. The scheduler tries again whenever something changes, so it is waited for; a claim
/// that does not exist is made by nobody.
fn unscheduled(pod: &Pod, message: &str) -> Standing {
    let what = said("Unschedulable", message);
    if message.contains("persistentvolumeclaim") && message.contains("not found") {
        return Standing::Doomed(Trouble {
            pod: pod.metadata.name.clone(),
            container: None,
            what,
            hint: CLAIM_HINT,
            restarted: false,
        });
    }
    Standing::Waiting(what)
}

/// What a pod that has a node is doing.
fn doing(pod: &Pod) -> String {
    let busy = containers(pod).find_map(|c| {
        let text = match (&c.state.waiting, &c.state.terminated) {
            (Some(waiting), _) => said(&waiting.reason, &waiting.message),
            (None, Some(ended)) if ended.exit_code != 0 => exit(ended),
            _ => return None,
        };
        Some(text)
    });
    let restarts: u32 = containers(pod).map(|c| c.restart_count).sum();
    let last = containers(pod).find_map(|c| c.last_state.terminated.as_ref());
    match (busy, restarts, last) {
        (Some(text), ..) => text,
        (None, 0, _) if pod.status.container_statuses.is_empty() => {
            "waiting for its node".to_owned()
        }
        (None, 0, _) => "starting".to_owned(),
        (None, n, Some(ended)) => format!("starting again ({n} restarts, last: {})", exit(ended)),
        (None, n, None) => format!("starting again ({n} restarts)"),
    }
}

fn exit(ended: &Terminated) -> String {
    let reason = if ended.reason.is_empty() { "Error" } else { &ended.reason };
    let text = format!("{reason}, exit status {}", ended.exit_code);
    match ended.message.trim() {
        "" => text,
        message => format!("{text}: {message}"),
    }
}

fn said(reason: &str, message: &str) -> String {
    match (reason, message.trim()) {
        ("", "") => "no reason given".to_owned(),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.container {
            Some(container) => write!(f, "pod {}, container {container}: {}", self.pod, self.what),
            None => write!(f, "pod {}: {}", self.pod, self.what),
        }
    }
}
