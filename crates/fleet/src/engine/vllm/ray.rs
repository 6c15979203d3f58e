//! vLLM over hosts that a Ray cluster joins, or on one that is such a cluster by itself: a raylet on each, the
//! head's first, and the server beside the head.
//!
//! **Invariants.** A raylet offers what the plan gives it, so Ray guesses neither GPUs nor CPUs. Ray's
//! workers have the environment of their raylet, so what ranks need is set on each. What Ray writes is in
//! the deployment's directory. A dashboard would run code for whoever reaches it, so there is none. A server
//! that comes before the cluster is whole fails or hangs, so it is started after.
//!
//! The head's port and that of its client server (which Ray always starts) are the plan's, so that clusters
//! on one host do not meet; all other ports are free ones of Ray's choice.

use super::{common, environment, program, server};
use crate::engine::{Args, Place, draft, extra_port, integer, port, set};
use scalebeam_model::engine::{LaunchRequest, ProcessDraft};
use scalebeam_model::plan::{Platform, RayNode, StartGate};
use serde_json::json;

/// Where Ray's head listens, unless the file says otherwise.
const HEAD_PORT: u16 = 6379;
/// Where clients of Ray connect that are not of the cluster.
const CLIENT_PORT: u16 = 10_001;

/// The raylets of an instance, in rank order, and its server.
///
/// # Errors
/// Where Ray would take another address for that of a host.
pub(super) fn over_hosts(
    request: &LaunchRequest<'_>,
    hosts: &[Place<'_>],
) -> Result<Vec<ProcessDraft>, String> {
    let Some(head) = hosts.first().copied() else { return Ok(Vec::new()) };
    let is_here = request.platform == Platform::Local;
    if let Some(place) = hosts.iter().find(|p| is_here && is_replaced(&p.host.addr)) {
        return Err(format!(
            "Ray takes another address of the machine for {} of host {}, and its ranks do not meet: give the \
             host addr = \"127.0.0.2\", or its address in the network",
            place.host.addr, place.host.name
        ));
    }
    let cluster = Cluster { program: ray_beside(program(request)), head, port: head_port(request) };
    let raylets = hosts.iter().map(|place| cluster.raylet(request, *place));
    Ok(raylets.chain([cluster.server(request, hosts)]).collect())
}

/// Ray puts the address by which a machine reaches the network in the place of these.
fn is_replaced(addr: &str) -> bool {
    matches!(addr, "127.0.0.1" | "localhost" | "::1")
}

/// `ray` as it was installed with the `vllm` that the plan names.
fn ray_beside(vllm: &str) -> String {
    match vllm.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/ray"),
        None => "ray".to_owned(),
    }
}

/// Instances whose heads share a host have neighbouring ports.
fn head_port(request: &LaunchRequest<'_>) -> u16 {
    let given = integer(request.params, "ray_port").and_then(|p| u16::try_from(p).ok());
    let index = u16::try_from(request.instance.index).unwrap_or(0);
    given.unwrap_or(HEAD_PORT).saturating_add(index)
}

struct Cluster<'a> {
    program: String,
    head: Place<'a>,
    port: u16,
}

impl Cluster<'_> {
    fn address(&self) -> String {
        format!("{}:{}", self.head.host.addr, self.port)
    }

    /// Keeps a node in the cluster, and ends with it.
    fn raylet(&self, request: &LaunchRequest<'_>, place: Place<'_>) -> ProcessDraft {
        let is_head = place.rank == self.head.rank;
        let client_port = extra_port(request, 0, CLIENT_PORT);
        let mut args = Args::new(&["start"]);
        if is_head {
            args.flag("--head")
                .pair("--port", self.port)
                .pair("--ray-client-server-port", client_port)
                .pair("--include-dashboard", "false")
                .pair("--dashboard-host", "127.0.0.1");
        } else {
            args.pair("--address", self.address());
        }
        args.pair("--node-ip-address", &place.host.addr)
            .pair("--num-gpus", place.ids.len())
            // vLLM's workers ask for none; of every CPU, Ray would make an idle process of its own.
            .pair("--num-cpus", place.ids.len())
            .pair("--resources", json!({ resource_of(place): 1 }))
            // Its own range for workers, which may hold the ports above, is not taken.
            .pair("--min-worker-port", 0)
            .pair("--max-worker-port", 0)
            .pair("--temp-dir", "{scratch}")
            .flag("--disable-usage-stats")
            .flag("--block");
        let env = environment(request, place, true);
        let what = format!("ray{}", place.rank);
        let mut raylet = draft(&what, place, &self.program, args.done(), env);
        if is_head {
            let listens = |name, number| port(name, &place.host.addr, number);
            raylet.ports.extend([listens("ray", self.port), listens("ray-client", client_port)]);
        } else {
            // It would give up on a head that is slow to come.
            let (host, port) = (self.head.host.name.clone(), self.port);
            raylet.after = Some(StartGate::Listening { host, port });
        }
        raylet
    }

    fn server(&self, request: &LaunchRequest<'_>, hosts: &[Place<'_>]) -> ProcessDraft {
        let mut args = common(request);
        args.pair("--distributed-executor-backend", "ray");
        let mut env = environment(request, self.head, true);
        // Ray gives the GPUs; hiding them from the driver would hide them from its check too.
        env.remove("CUDA_VISIBLE_DEVICES");
        set(&mut env, "RAY_ADDRESS", self.address());
        let mut serve = server(request, self.head, args, env);
        // They are the raylet's; a GPU is not in the plan twice.
        serve.gpus.clear();
        serve.after = Some(self.is_whole(hosts));
        serve
    }

    fn is_whole(&self, hosts: &[Place<'_>]) -> StartGate {
        let node = |place: &Place<'_>| RayNode {
            host: place.host.name.clone(),
            resource: resource_of(*place),
            gpus: u32::try_from(place.ids.len()).unwrap_or(u32::MAX),
        };
        StartGate::RayCluster {
            ray: self.program.clone(),
            head: self.head.host.name.clone(),
            address: self.address(),
            nodes: hosts.iter().map(node).collect(),
        }
    }
}

/// Tells nodes apart in `ray status`, which adds up what all of them offer.
fn resource_of(place: Place<'_>) -> String {
    format!("scalebeam:{}", place.host.name)
}
