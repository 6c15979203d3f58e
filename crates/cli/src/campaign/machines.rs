//! Watching the machines of a deployment while it is measured.

use super::agents::ByDoor;
use super::{Campaign, pages};
use crate::exit::Failure;
use scalebeam_fleet::agent::{Carried, Door, agent_id};
use scalebeam_fleet::launch::RunningProcess;
use scalebeam_fleet::process::{DIR_MARKER, PROCESS_MARKER};
use scalebeam_model::plan::{DeploymentPlan, HostPlan, ProcessPlan, Role};
use scalebeam_model::telemetry::agent::{THE_MACHINE, THE_POD, WatchedPod, Watching};
use scalebeam_model::telemetry::usage::{LOAD_GENERATOR, machine, this_machine};
use scalebeam_model::telemetry::{Absent, Part, Telemetry, TelemetryPlan};
use scalebeam_telemetry::far::FarWatch;
use scalebeam_telemetry::{Watch, WatchConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The watch over this machine and over others, and what is not watched.
#[derive(Debug)]
pub(super) struct Machines {
    watch: Watch,
    far: Vec<FarWatch>,
    /// What servers kept of them meanwhile.
    history: pages::History,
    /// Hosts of the deployment that nothing is read of.
    unread: Vec<Absent>,
}

impl Machines {
    /// Watches this machine, and those that an agent was carried to, while `deployment` is measured.
    pub(super) fn watch(
        campaign: &Campaign<'_>,
        deployment: &DeploymentPlan,
        started: &[RunningProcess],
        carried: Vec<Carried>,
    ) -> Result<Self, Failure> {
        let plan = &campaign.loaded.plan;
        let here = this_machine(deployment, &plan.hosts).to_owned();
        let in_pods = carried.iter().filter(|c| c.pod.is_some());
        let pods: BTreeSet<String> = in_pods.map(|c| c.host.clone()).collect();
        let of_host = |host: &str, pod: Option<WatchedPod>| Watching {
            host: host.to_owned(),
            pod,
            plan: asked_of(campaign, host, host == here),
            marker: format!("{DIR_MARKER}={}", campaign.context.mark().dir),
            id_variable: PROCESS_MARKER.to_owned(),
            roles: roles(deployment),
            elsewhere: elsewhere(deployment, &plan.hosts, &pods, host),
            started: on_host(deployment, &plan.hosts, started, host),
        };
        let fail = |e: std::io::Error| Failure::internal(format!("cannot watch machines: {e}"));
        let mut why = BTreeMap::new();
        let nodes: BTreeSet<String> =
            carried.iter().filter_map(|c| Some(c.pod.as_ref()?.node.clone())).collect();
        let mut far = Vec::new();
        for Carried { host, pod, door } in carried {
            match door {
                Ok(door) => far.push((host, pod, door)),
                Err(reason) => drop(why.insert(host, reason)),
            }
        }
        let watched: Vec<&str> = far.iter().map(|(host, ..)| host.as_str()).collect();
        let serving: BTreeSet<&str> = deployment
            .processes
            .iter()
            .map(|p| machine(deployment, &plan.hosts, &p.host))
            .collect();
        // Where a platform places processes nobody knows which hosts have them.
        let is_placed = deployment.platform.places_processes();
        let is_wanted = |host: &str| !is_placed || host == here || serving.contains(host);
        let mut unread = match nodes.is_empty() {
            true => unread(campaign, deployment, &here, &watched, &why),
            false => around_pods(&nodes, &why),
        };
        let (polls, unasked) = pages::polls(campaign.loaded, &here, &watched, &is_wanted);
        unread.extend(unasked);
        let watch = |(host, pod, door): (String, Option<WatchedPod>, Door)| {
            let reach = Box::new(ByDoor(door));
            FarWatch::start(of_host(&host, pod), reach, Arc::clone(&campaign.clock))
        };
        let far = far.into_iter().map(watch).collect::<Result<_, _>>().map_err(fail)?;
        let clock = Arc::clone(&campaign.clock);
        let config = WatchConfig::of(of_host(&here, None), LOAD_GENERATOR);
        let watch = Watch::start_with(config, clock, polls).map_err(fail)?;
        let history = pages::History::new(campaign.loaded, &campaign.clock, &is_wanted);
        Ok(Self { watch, far, history, unread })
    }

    /// Everything is read for the first time when this returns, but for hosts that do not answer.
    pub(super) fn begin(&self) -> pages::Begun {
        let history = self.history.begin();
        let begun: Vec<_> = self.far.iter().map(FarWatch::begin).collect();
        self.watch.begin();
        for host in begun {
            // One whose thread has ended says so at the end.
            let _ = host.wait();
        }
        history
    }

    /// What was read since `begun`.
    pub(super) fn end(&self, begun: &pages::Begun) -> Option<Telemetry> {
        let ended: Vec<_> = self.far.iter().map(FarWatch::end).collect();
        let mut telemetry = self.watch.end()?;
        ended.into_iter().filter_map(|host| host.wait()).for_each(|host| telemetry.join(host));
        self.history.end(begun, &mut telemetry);
        let unread = self.unread.iter().filter(|absent| !is_read(absent, &telemetry));
        let unread: Vec<Absent> = unread.cloned().collect();
        telemetry.absent.extend(unread);
        Some(telemetry)
    }
}

/// Whether what was to be absent was read by another program after all.
fn is_read(absent: &Absent, telemetry: &Telemetry) -> bool {
    let hosts = telemetry.devices(Part::Host);
    absent.what == THE_MACHINE && hosts.iter().any(|d| d.host == absent.host)
}

/// What is read of a host; where a page tells its GPUs, its driver is not asked too.
fn asked_of(campaign: &Campaign<'_>, host: &str, is_here: bool) -> TelemetryPlan {
    let plan = &campaign.loaded.plan.telemetry;
    let by_page = pages::tells_gpus_of(campaign.loaded, host, is_here);
    let by_node = pages::tells_machine_of(campaign.loaded, host, is_here);
    TelemetryPlan { gpu: plan.gpu && !by_page, rdma: plan.rdma && !by_node, ..plan.clone() }
}

/// What each process of the plan does, where it works for an instance.
fn roles(deployment: &DeploymentPlan) -> BTreeMap<String, Role> {
    let role = |p: &ProcessPlan| {
        let is = |index| deployment.instances.iter().find(|i| i.index == index);
        Some((p.id.clone(), is(p.instance?)?.role))
    };
    deployment.processes.iter().filter_map(role).collect()
}

/// Pids of the processes that were started on `host`, by their ids.
fn on_host(
    deployment: &DeploymentPlan,
    hosts: &[HostPlan],
    started: &[RunningProcess],
    host: &str,
) -> BTreeMap<String, u32> {
    let here = started.iter().filter(|p| machine(deployment, hosts, &p.host) == host);
    here.filter_map(|p| Some((p.id.clone(), u32::try_from(p.pid).ok()?))).collect()
}

/// Ids of the processes of the plan, and of agents, that are not on `host`; `pods` of a cluster may be on this machine.
fn elsewhere(
    deployment: &DeploymentPlan,
    hosts: &[HostPlan],
    pods: &BTreeSet<String>,
    host: &str,
) -> BTreeSet<String> {
    let is_other = |name: &str| machine(deployment, hosts, name) != host;
    let processes = deployment.processes.iter().filter(|p| is_other(&p.host));
    let agents = hosts.iter().map(|h| h.name.as_str()).filter(|name| is_other(name));
    let in_pods = pods.iter().map(String::as_str).filter(|pod| *pod != host);
    let agents = agents.chain(in_pods).map(|name| agent_id(&deployment.name, name));
    processes.map(|p| p.id.clone()).chain(agents).collect()
}

/// The nodes that pods are on, and the pods that nothing is read of, with the reason.
fn around_pods(nodes: &BTreeSet<String>, why: &BTreeMap<String, String>) -> Vec<Absent> {
    const ITSELF_ALONE: &str = "its pods see what is their own, and not what else it does: let node_exporter tell of it, by \
                                [telemetry.node_exporter]";
    let absent = |host: &str, what: &str, why: &str| Absent {
        host: host.to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
    };
    let nodes = nodes.iter().filter(|node| !node.is_empty());
    let nodes = nodes.map(|node| absent(node, THE_MACHINE, ITSELF_ALONE));
    let pods = why.iter().map(|(pod, why)| absent(pod, THE_POD, why));
    nodes.chain(pods).collect()
}

/// Hosts of the deployment that are neither this machine nor watched, with the reason where it is known.
fn unread(
    campaign: &Campaign<'_>,
    deployment: &DeploymentPlan,
    here: &str,
    watched: &[&str],
    why: &BTreeMap<String, String>,
) -> Vec<Absent> {
    let hosts = &campaign.loaded.plan.hosts;
    let names = deployment.processes.iter().map(|p| machine(deployment, hosts, &p.host));
    let others = names.filter(|name| *name != here && !watched.contains(name));
    let others: BTreeSet<&str> = others.chain(why.keys().map(String::as_str)).collect();
    let unknown =
        || format!("no agent is carried to hosts of platform {} yet", deployment.platform.name());
    let absent = |host: &&str| Absent {
        host: (*host).to_owned(),
        what: THE_MACHINE.to_owned(),
        why: why.get(*host).cloned().unwrap_or_else(unknown),
    };
    others.iter().map(absent).collect()
}
