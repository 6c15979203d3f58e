//! vLLM over hosts that a Ray cluster joins, or on one that is such a cluster by itself: a raylet on each, and the
//! server beside the head.
//!
//! **Invariants.** Nobody reads the cluster, so it has no dashboard. A server that comes before the cluster is
//! whole fails or hangs, so it is started after.

use super::{common, environment, program, server};
use crate::engine::ray::{self, CLIENT_PORT, Cluster, Slots};
use crate::engine::{Place, extra_port};
use scalebeam_model::engine::{LaunchRequest, ProcessDraft};

/// The raylets of an instance, in rank order, and its server.
///
/// # Errors
/// Where Ray would take another address for that of a host.
pub(super) fn over_hosts(
    request: &LaunchRequest<'_>,
    hosts: &[Place<'_>],
) -> Result<Vec<ProcessDraft>, String> {
    let Some(head) = hosts.first().copied() else { return Ok(Vec::new()) };
    ray::check_addresses(request, hosts)?;
    let cluster = Cluster {
        program: ray::beside(program(request), "ray"),
        head,
        port: ray::head_port(request, request.instance.index),
        client_port: extra_port(request, 0, CLIENT_PORT),
        watched: None,
        has_scratch: request.platform.places_processes(),
    };
    let raylet = |place: &Place<'_>| {
        cluster.raylet(*place, &Slots::new(), environment(request, *place, true))
    };
    let raylets = hosts.iter().map(raylet);
    Ok(raylets.chain([driver(&cluster, request, hosts)]).collect())
}

/// The server, which has Ray place its workers.
fn driver(cluster: &Cluster<'_>, request: &LaunchRequest<'_>, hosts: &[Place<'_>]) -> ProcessDraft {
    let mut args = common(request);
    args.pair("--distributed-executor-backend", "ray");
    let mut env = environment(request, cluster.head, true);
    // Ray gives the GPUs; hiding them from the driver would hide them from its check too.
    env.remove("CUDA_VISIBLE_DEVICES");
    cluster.joined(&mut env);
    let mut serve = server(request, cluster.head, args, env);
    // They are the raylet's; a GPU is not in the plan twice.
    serve.gpus.clear();
    serve.after = Some(cluster.is_whole(hosts));
    serve
}
