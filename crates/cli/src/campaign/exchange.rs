//! What ranks spend in moving activations to each other, by the simulator's model of the links that a run says it had.

use crate::commands::serve;
use scalebeam_model::analysis::loss::Exchange;
use scalebeam_model::distinct::distinct;
use scalebeam_model::doctor::MeasuredPath;
use scalebeam_model::fingerprint::{DeploymentPrint, Fingerprint, HostPrint, LinkPrint, LogValue};
use scalebeam_model::plan::{DeploymentPlan, EngineKind, HostPlan, InstancePlan, Plan, Role};
use scalebeam_sim::config::EmulatedConfig;
use scalebeam_sim::timing::InterNode;

/// What an engine's log says of the transport that crosses nodes with the NIC's own memory access.
const RDMA: &str = "NET/IB";
/// And of the one by TCP.
const SOCKETS: &str = "NET/Socket";

/// What a run left behind that tells of links.
#[derive(Clone, Copy)]
struct Known<'a> {
    plan: &'a Plan,
    print: &'a Fingerprint,
    paths: &'a [MeasuredPath],
}

/// Of each role of every deployment whose model, GPUs and links are known. What has no second rank exchanges nothing,
/// and needs nothing known.
pub(super) fn all(plan: &Plan, print: &Fingerprint, paths: &[MeasuredPath]) -> Vec<Exchange> {
    let known = Known { plan, print, paths };
    let of = |d| roles(d).into_iter().filter_map(move |role| known.of_role(d, role));
    plan.deployments.iter().flat_map(of).collect()
}

fn roles(d: &DeploymentPlan) -> Vec<Role> {
    distinct(d.instances.iter().map(|i| i.role))
}

impl Known<'_> {
    fn of_role(self, d: &DeploymentPlan, role: Role) -> Option<Exchange> {
        let of_role: Vec<&InstancePlan> = d.instances.iter().filter(|i| i.role == role).collect();
        let (instance, others) = of_role.split_first()?;
        // One model is for all of them.
        if !others.iter().all(|other| shape(other) == shape(instance)) {
            return None;
        }
        let exchange = |step_s, token_s, over| Exchange {
            deployment: d.name.clone(),
            role,
            step_s,
            token_s,
            over,
        };
        // How experts are spread is no part of the model.
        if instance.ep.is_some_and(|ep| ep > 1) {
            return None;
        }
        if instance.tp * instance.pp == 1 {
            return Some(exchange(0.0, 0.0, "no ranks".to_owned()));
        }
        let config = match d.engine {
            EngineKind::Emulated => d.processes.iter().find_map(|p| serve::emulated(&p.args))?,
            // Of these it is known that ranks reduce twice a layer and stages hand on what they computed.
            EngineKind::Vllm
            | EngineKind::Sglang
            | EngineKind::DynamoVllm
            | EngineKind::DynamoSglang
            | EngineKind::RayServeLlm
            | EngineKind::Lmdeploy => {
                let config = self.config(d, instance)?;
                let is_like =
                    |other: &&InstancePlan| self.config(d, other).as_ref() == Some(&config);
                others.iter().all(is_like).then_some(config)?
            }
            _ => return None,
        };
        let found = config.exchange().ok()?;
        let (step_s, token_s) = (found.step_s / config.speed, found.token_s / config.speed);
        Some(exchange(step_s, token_s, words(&config)))
    }

    /// What the simulator would make of an instance.
    fn config(self, d: &DeploymentPlan, instance: &InstancePlan) -> Option<EmulatedConfig> {
        let hosts: Vec<&HostPlan> = instance
            .place
            .iter()
            .filter_map(|at| self.plan.hosts.iter().find(|host| host.name == at.host))
            .collect();
        // Where its ranks are is not known of what is elsewhere.
        if hosts.is_empty() || hosts.len() != instance.place.len() {
            return None;
        }
        let of_host = hosts.first().and_then(|host| host.gpu.clone());
        if hosts.iter().any(|host| host.gpu != of_host) {
            return None;
        }
        let config = EmulatedConfig {
            model: d.model.clone(),
            gpu: of_host.or_else(|| d.gpu_kinds.first().cloned())?,
            tp: instance.tp,
            pp: instance.pp,
            nodes: u32::try_from(hosts.len()).ok()?.div_ceil(instance.dp).max(1),
            ..EmulatedConfig::default()
        };
        if config.nodes == 1 {
            return Some(config);
        }
        let print = self.print.deployments.iter().find(|print| print.deployment == d.name)?;
        let said = transport(print);
        let says = |name: &str| said.is_some_and(|said| said.contains(name));
        let (inter_node, inter_node_gbps) = if says(RDMA) {
            (InterNode::Rdma, rdma_gbps(print, &hosts)?)
        } else if says(SOCKETS) || (said.is_none() && have_no_ports(print, &hosts)) {
            (InterNode::Sockets, self.socket_gbps(print, &hosts)?)
        } else {
            // Another transport, or one that nobody knows: with such a port NCCL may have used it.
            return None;
        };
        Some(EmulatedConfig { inter_node, inter_node_gbps, ..config })
    }

    /// Of the slowest host's interface. Absent where one of them is not known, and where one socket found a path that is
    /// not that of the interface.
    fn socket_gbps(self, print: &DeploymentPrint, hosts: &[&HostPlan]) -> Option<f64> {
        /// Between what an interface says and what one socket found on another path; nothing carries more than its link.
        const ANOTHER_PATH: f64 = 10.0;
        const MORE: f64 = 1.1;
        let said = slowest(hosts.iter().map(|host| link_gbps(of_host(print, host)?, host)))?;
        let is_of = |name: &String| hosts.iter().any(|host| host.name == *name);
        let between = self.paths.iter().filter(|path| is_of(&path.from) && is_of(&path.to));
        let mut found = between.map(|path| path.bytes_per_s as f64 * 8.0 / 1e9);
        found.all(|gbps| gbps * ANOTHER_PATH >= said && gbps <= said * MORE).then_some(said)
    }
}

/// What an instance looks like to the model: its ranks, and over how many hosts they are.
fn shape(instance: &InstancePlan) -> (u32, u32, u32, Option<u32>, usize) {
    (instance.tp, instance.pp, instance.dp, instance.ep, instance.place.len())
}

/// The least of all; absent where one is not known.
fn slowest(all: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let all: Vec<f64> = all.collect::<Option<_>>()?;
    all.into_iter().reduce(f64::min).filter(|gbps| *gbps > 0.0)
}

/// Whether each host was looked at and has no port of InfiniBand or RoCE.
fn have_no_ports(print: &DeploymentPrint, hosts: &[&HostPlan]) -> bool {
    let has_none = |host: &&HostPlan| {
        of_host(print, host)
            .and_then(|h| h.infiniband.known())
            .is_some_and(|ports| ports.is_empty())
    };
    hosts.iter().all(has_none)
}

fn of_host<'a>(print: &'a DeploymentPrint, host: &HostPlan) -> Option<&'a HostPrint> {
    // A machine of several names is printed once, with all of them.
    print.hosts.iter().find(|h| h.host.split(", ").any(|name| name == host.name))
}

/// Of the interface that the file names, else of the fastest.
fn link_gbps(print: &HostPrint, host: &HostPlan) -> Option<f64> {
    let links = print.links.known()?;
    let gbps = |link: &LinkPrint| link.speed_mbps.map(|mbps| f64::from(mbps) / 1e3);
    match &host.iface {
        Some(name) => gbps(links.get(name)?),
        None => links.values().filter_map(gbps).reduce(f64::max),
    }
}

/// What an engine's log says that its ranks talk over, where it says.
fn transport(print: &DeploymentPrint) -> Option<&str> {
    print.processes.iter().find_map(|process| match process.log.get("nccl_transport")?.known()? {
        LogValue::Text(text) => Some(text.as_str()),
        LogValue::Number(_) => None,
    })
}

/// Of all ports of the host that has least: `4: ACTIVE, 400 Gb/sec (4X NDR)`. A ring of each rank's own card uses all.
fn rdma_gbps(print: &DeploymentPrint, hosts: &[&HostPlan]) -> Option<f64> {
    let rate = |port: &String| {
        let (_, rate) = port.split_once("ACTIVE, ")?;
        rate.split_whitespace().next()?.parse::<f64>().ok()
    };
    let of = |host: &&HostPlan| {
        let ports = of_host(print, host)?.infiniband.known()?;
        Some(ports.values().filter_map(rate).sum::<f64>())
    };
    slowest(hosts.iter().map(of))
}

/// `2 all-reduces a layer over 8 ranks and hops between 2 stages on 2 nodes of 100 Gbit/s by TCP`
fn words(config: &EmulatedConfig) -> String {
    let nodes = match (config.nodes, config.inter_node) {
        (1, _) => "on one node".to_owned(),
        (n, InterNode::Sockets) => {
            format!("on {n} nodes of {} Gbit/s by TCP", config.inter_node_gbps)
        }
        (n, InterNode::Rdma) => {
            format!("on {n} nodes of {} Gbit/s by RDMA", config.inter_node_gbps)
        }
    };
    let reduces =
        (config.tp > 1).then(|| format!("2 all-reduces a layer over {} ranks", config.tp));
    let hops = (config.pp > 1).then(|| format!("hops between {} stages", config.pp));
    let moved: Vec<String> = reduces.into_iter().chain(hops).collect();
    format!("{} {nodes}", moved.join(" and "))
}

#[cfg(test)]
mod tests;
