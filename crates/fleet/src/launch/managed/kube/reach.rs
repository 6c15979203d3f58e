//! Where a deployment in a cluster answers, seen from where scalebeam runs.
//!
//! **Invariant:** no port-forward: one TCP stream through the API server would be measured instead of the
//! deployment. What cannot be reached is refused before it is brought up.

use super::objects::{Object, Pod};
use super::pods;
use crate::journal::Claim;
use crate::render::kube::ENTRY;
use scalebeam_model::plan::{DeploymentPlan, entry_host};
use std::collections::BTreeMap;

/// Where an entry that does not say is listening.
const DEFAULT_PORT: u16 = 8000;

/// Which way requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the names that the cluster gives: this is a pod, or the file says that they can be reached.
    Names,
    /// By Services for clients outside.
    Services,
}

/// The ways out of a cluster, for an error.
pub(super) const WAYS: &str = "add params = { expose = \"NodePort\" } where this machine reaches the nodes, or \
     \"LoadBalancer\" where the cluster gives addresses, or \"ClusterIP\" where its own network reaches to \
     here; or run scalebeam in a pod of the cluster";

impl Way {
    /// How a deployment that is exposed so is reached from inside or outside of the cluster; nothing where
    /// it is not.
    pub(super) fn of(expose: Option<&str>, inside: bool) -> Option<Self> {
        match expose {
            Some("NodePort" | "LoadBalancer") if !inside => Some(Self::Services),
            Some(_) => Some(Self::Names),
            None => inside.then_some(Self::Names),
        }
    }
}

/// The names by which other pods know the entries of `plan`: its Service, or, where it has several, its pods
/// in the order of their numbers.
pub(super) fn inside(
    claim: &Claim,
    plan: &DeploymentPlan,
    namespace: &str,
    pods: &[Pod],
) -> Vec<String> {
    let port = port(plan);
    if plan.entries.len() <= 1 {
        let host = entry_host(plan.platform, &claim.name);
        return vec![format!("http://{host}.{namespace}.svc:{port}")];
    }
    let mut served: Vec<&Pod> = pods.iter().filter(|pod| pods::role(pod) != "worker").collect();
    served.sort_by_key(|pod| numbers(&pod.metadata.name, &claim.name));
    let host = |pod: &Pod| match &pod.spec.subdomain {
        Some(service) => format!("{}.{service}.{namespace}.svc", pod.metadata.name),
        None => format!("{}.{namespace}.svc", pod.metadata.name),
    };
    served.into_iter().map(|pod| format!("http://{}:{port}", host(pod))).collect()
}

/// The numbers in the name of a pod of the set `name`: which set, and which pod of it.
fn numbers(pod: &str, name: &str) -> Vec<u32> {
    let rest = pod.strip_prefix(name).unwrap_or(pod);
    rest.split('-').filter_map(|part| part.parse().ok()).collect()
}

/// The port at which `plan` answers.
pub(super) fn port(plan: &DeploymentPlan) -> u16 {
    let url = plan.entries.first().and_then(|e| e.url.parse::<http::Uri>().ok());
    url.and_then(|url| url.port_u16()).unwrap_or(DEFAULT_PORT)
}

/// Addresses of the Services for clients outside, in the order of the entries; words where one has none yet.
pub(super) fn outside(objects: &[Object], pods: &[Pod]) -> Result<Vec<String>, String> {
    let mut services: Vec<(u32, &Object)> = objects
        .iter()
        .filter_map(|o| Some((o.metadata.labels.get(ENTRY)?.parse().ok()?, o)))
        .collect();
    services.sort_by_key(|(index, _)| *index);
    if services.is_empty() {
        return Err("no Service for clients outside of the cluster is there".to_owned());
    }
    services.into_iter().map(|(_, service)| address(service, pods)).collect()
}

fn address(service: &Object, pods: &[Pod]) -> Result<String, String> {
    let name = &service.metadata.name;
    let port = service.spec.ports.first().ok_or_else(|| format!("Service {name} has no port"))?;
    if service.spec.r#type.as_deref() == Some("LoadBalancer") {
        let ingress = service.status.load_balancer.ingress.first();
        let host = ingress.and_then(|i| i.ip.as_ref().or(i.hostname.as_ref()));
        let host = host
            .ok_or_else(|| format!("Service {name} waits for an address of its load balancer"))?;
        return Ok(url(host, port.port));
    }
    let node_port =
        port.node_port.ok_or_else(|| format!("Service {name} waits for a port of the nodes"))?;
    let behind = pods.iter().filter(|pod| selects(service, pod) && pods::is_ready(pod));
    let host = behind.filter_map(|pod| pod.status.host_ip.as_ref()).next();
    let host = host.ok_or_else(|| format!("Service {name} waits for a ready pod"))?;
    Ok(url(host, node_port))
}

pub(super) fn url(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{port}")
    } else {
        format!("http://{host}:{port}")
    }
}

fn selects(service: &Object, pod: &Pod) -> bool {
    let wanted: BTreeMap<String, String> =
        serde_json::from_value(service.spec.selector.clone()).unwrap_or_default();
    !wanted.is_empty() && wanted.iter().all(|(k, v)| pod.metadata.labels.get(k) == Some(v))
}
