//! Data-parallel ranks of vLLM that are not all behind one process: over hosts, or with a server each.
//!
//! - `internal`: the first host's server chooses among all ranks; the other hosts only compute (`--headless`).
//! - `hybrid`: each host's server chooses among the ranks of its host.
//! - `external`: each rank is a process with a server. vLLM refuses that of dense models, whose ranks share
//!   nothing; for those there are replicas.
//!
//! Read in the argument parser and the launch of vLLM 0.32.0.

use super::{common, environment, headless, server_at};
use crate::engine::{Args, Place, extra_port, head_addr, port};
use scalebeam_model::engine::{LaunchRequest, ProcessDraft};
use scalebeam_model::plan::DpBalance;

const RPC_PORT: u16 = 13_345;

/// A process a host: internal or hybrid balancing.
pub(super) fn over_hosts(
    request: &LaunchRequest<'_>,
    hosts: &[Place<'_>],
) -> Result<Vec<ProcessDraft>, String> {
    let group = Group::new(request, hosts);
    let is_hybrid = request.instance.dp_balance == Some(DpBalance::Hybrid);
    let mut start = 0;
    let mut processes = Vec::new();
    for place in hosts {
        let local = group.ranks_on(*place)?;
        let mut args = common(request);
        args.pair("--data-parallel-size-local", local);
        group.joined(&mut args);
        if start > 0 {
            args.pair("--data-parallel-start-rank", start);
        }
        if is_hybrid {
            args.flag("--data-parallel-hybrid-lb");
        }
        processes.push(match is_hybrid || start == 0 {
            true => group.server(*place, start, request.instance.port, args),
            false => headless(request, *place, args),
        });
        start += local;
    }
    Ok(processes)
}

/// A process a rank: external balancing.
pub(super) fn a_server_a_rank(
    request: &LaunchRequest<'_>,
    hosts: &[Place<'_>],
) -> Result<Vec<ProcessDraft>, String> {
    let group = Group::new(request, hosts);
    let mut processes = Vec::new();
    for place in hosts {
        group.ranks_on(*place)?;
        for (ids, at) in place.ids.chunks_exact(group.per_rank).zip(request.instance.port..) {
            let rank = processes.len();
            let mut args = common(request);
            args.pair("--data-parallel-rank", rank);
            group.joined(&mut args);
            processes.push(group.server(Place { ids, ..*place }, rank, at, args));
        }
    }
    Ok(processes)
}

/// What the ranks of an instance have in common.
struct Group<'a, 'r> {
    request: &'a LaunchRequest<'r>,
    /// GPUs of a rank.
    per_rank: usize,
    /// Where rank 0 is met.
    head: &'a str,
    rpc: u16,
    /// Whether ranks talk over a network.
    spans: bool,
}

impl<'a, 'r> Group<'a, 'r> {
    fn new(request: &'a LaunchRequest<'r>, hosts: &[Place<'a>]) -> Self {
        let per_rank = usize::try_from(request.instance.gpus_per_rank()).unwrap_or(usize::MAX);
        let head = head_addr(request, hosts);
        let rpc = extra_port(request, 0, RPC_PORT);
        Self { request, per_rank, head, rpc, spans: hosts.len() > 1 }
    }

    fn ranks_on(&self, place: Place<'_>) -> Result<usize, String> {
        let (gpus, per_rank) = (place.ids.len(), self.per_rank);
        if gpus == 0 || !gpus.is_multiple_of(per_rank) {
            return Err(format!(
                "{gpus} GPUs of host {} are not whole data-parallel ranks of {per_rank} (tp x pp); a rank \
                 does not span hosts",
                place.host.name
            ));
        }
        Ok(gpus / per_rank)
    }

    /// Where the ranks find each other.
    fn joined(&self, args: &mut Args) {
        args.pair("--data-parallel-address", self.head).pair("--data-parallel-rpc-port", self.rpc);
    }

    /// A server whose first rank is `rank`.
    fn server(&self, place: Place<'_>, rank: usize, at: u16, args: Args) -> ProcessDraft {
        let what = match rank {
            0 => "serve".to_owned(),
            rank => format!("serve{rank}"),
        };
        let env = environment(self.request, place, self.spans);
        let mut process = server_at(self.request, place, (&what, at), args, env);
        if rank == 0 {
            process.ports.push(port("dp-rpc", self.head, self.rpc));
        }
        process
    }
}
