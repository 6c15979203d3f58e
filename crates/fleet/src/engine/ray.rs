//! A Ray cluster of the plan: a raylet on each host, the head's first.
//!
//! **Invariants.** A raylet offers what the plan gives it, so Ray guesses neither GPUs nor CPUs. Ray's
//! workers have the environment of their raylet, so what ranks need is set on each. What Ray writes is in
//! the deployment's directory, where it has one.
//!
//! The head's port, that of its client server (which Ray always starts) and what is read are the plan's, so that
//! clusters on one host do not meet; all other ports are free ones of Ray's choice.

use super::{Args, Env, Place, draft, integer, port, set};
use scalebeam_model::engine::{LaunchRequest, ProcessDraft};
use scalebeam_model::plan::{EnvValue, Platform, RAY_METRICS, RayNode, StartGate};
use serde_json::json;
use std::collections::BTreeMap;

/// Where Ray's head listens, unless the file says otherwise.
const HEAD_PORT: u16 = 6379;
/// Where clients of Ray connect that are not of the cluster, unless the plan has a free port.
pub(super) const CLIENT_PORT: u16 = 10_001;

/// Name of the dashboard's port.
pub(super) const DASHBOARD: &str = "dashboard";

/// A program of Ray, as it was installed with `program`, which the plan names.
pub(super) fn beside(program: &str, name: &str) -> String {
    match program.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/{name}"),
        None => name.to_owned(),
    }
}

/// Where the head of a cluster listens. Instances whose heads share a host have neighbouring ports.
pub(super) fn head_port(request: &LaunchRequest<'_>, index: u32) -> u16 {
    let given = integer(request.params, "ray_port").and_then(|p| u16::try_from(p).ok());
    given.unwrap_or(HEAD_PORT).saturating_add(u16::try_from(index).unwrap_or(0))
}

/// Refuses hosts that Ray would know by another address than the plan does.
///
/// # Errors
/// The first of them, with what to write instead.
pub(super) fn check_addresses(
    request: &LaunchRequest<'_>,
    hosts: &[Place<'_>],
) -> Result<(), String> {
    let is_here = request.platform == Platform::Local;
    match hosts.iter().find(|p| is_here && is_replaced(&p.host.addr)) {
        None => Ok(()),
        Some(place) => Err(format!(
            "Ray takes another address of the machine for {} of host {}, and its ranks do not meet: give the \
             host addr = \"127.0.0.2\", or its address in the network",
            place.host.addr, place.host.name
        )),
    }
}

/// Ray puts the address by which a machine reaches the network in the place of these.
fn is_replaced(addr: &str) -> bool {
    matches!(addr, "127.0.0.1" | "localhost" | "::1")
}

/// Ports that somebody reads a cluster by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    /// Of the dashboard, on the head's loopback alone: who reaches it has code run.
    pub(super) dashboard: u16,
    /// Of the first node's page of metrics, of the next one's the next.
    pub(super) metrics: u16,
}

impl Watched {
    fn metrics_of(self, place: Place<'_>) -> u16 {
        self.metrics.saturating_add(u16::try_from(place.rank).unwrap_or(0))
    }
}

/// What a raylet offers beside GPUs and CPUs, by the name of a resource of Ray.
pub(super) type Slots = BTreeMap<String, usize>;

/// The cluster that the raylets of a deployment make.
pub(super) struct Cluster<'a> {
    /// The program `ray`.
    pub(super) program: String,
    pub(super) head: Place<'a>,
    pub(super) port: u16,
    pub(super) client_port: u16,
    /// Where nobody reads it there is no dashboard.
    pub(super) watched: Option<Watched>,
    /// Whether the deployment has a directory of its own on its hosts, where Ray then writes.
    pub(super) has_scratch: bool,
}

impl Cluster<'_> {
    /// `ADDRESS:PORT` of its head.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.head.host.addr, self.port)
    }

    /// What finds the cluster by `env`, and asks it as its raylets are asked.
    pub(super) fn joined(&self, env: &mut Env) {
        set(env, "RAY_ADDRESS", self.address());
        without_tokens(env);
    }

    /// Keeps a node in the cluster, and ends with it.
    pub(super) fn raylet(&self, place: Place<'_>, slots: &Slots, mut env: Env) -> ProcessDraft {
        // Told to end, it would wait half a minute for requests that nobody waits for any more.
        set(&mut env, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", 0);
        without_tokens(&mut env);
        if self.watched.is_some() {
            // Every ten seconds, a short measurement would be over before its counts are on the page.
            set(&mut env, "RAY_metrics_report_interval_ms", 1_000);
        }
        let what = format!("ray{}", place.rank);
        let mut raylet = draft(&what, place, &self.program, self.start(place, slots), env);
        let listens = |name, number| port(name, &place.host.addr, number);
        if self.is_head(place) {
            raylet
                .ports
                .extend([listens("ray", self.port), listens("ray-client", self.client_port)]);
            let dashboard = self.watched.map(|at| port(DASHBOARD, "127.0.0.1", at.dashboard));
            raylet.ports.extend(dashboard);
        } else {
            // It would give up on a head that is slow to come.
            let (host, port) = (self.head.host.name.clone(), self.port);
            raylet.after = Some(StartGate::Listening { host, port });
        }
        raylet.ports.extend(self.watched.map(|at| listens(RAY_METRICS, at.metrics_of(place))));
        raylet
    }

    fn is_head(&self, place: Place<'_>) -> bool {
        place.rank == self.head.rank
    }

    /// The arguments of `ray` that start the raylet of a node.
    fn start(&self, place: Place<'_>, slots: &Slots) -> Vec<String> {
        let mut args = Args::new(&["start"]);
        let mut offered = slots.clone();
        offered.insert(resource_of(place), 1);
        if self.is_head(place) {
            args.flag("--head")
                .pair("--port", self.port)
                .pair("--ray-client-server-port", self.client_port)
                .pair("--include-dashboard", self.watched.is_some())
                .pair("--dashboard-host", "127.0.0.1");
            if let Some(at) = self.watched {
                args.pair("--dashboard-port", at.dashboard);
            }
        } else {
            args.pair("--address", self.address());
        }
        if let Some(at) = self.watched {
            args.pair("--metrics-export-port", at.metrics_of(place));
        }
        args.pair("--node-ip-address", &place.host.addr)
            .pair("--num-gpus", place.ids.len())
            // vLLM's workers ask for none; of every CPU, Ray would make an idle process of its own.
            .pair("--num-cpus", place.ids.len())
            .pair("--resources", json!(offered))
            // Its own range for workers, which may hold the ports above, is not taken.
            .pair("--min-worker-port", 0)
            .pair("--max-worker-port", 0);
        if self.has_scratch {
            args.pair("--temp-dir", "{scratch}");
        }
        args.flag("--disable-usage-stats").flag("--block");
        args.done()
    }

    /// That every one of `hosts` has joined with its GPUs.
    pub(super) fn is_whole(&self, hosts: &[Place<'_>]) -> StartGate {
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

/// A host where somebody's own Ray once made a token (`~/.ray/auth_token`, as `ray.init()` of 2.60 does) would have its
/// raylet ask for it, and `ray status` and the other hosts give none. A file that wants tokens says so in `env`.
fn without_tokens(env: &mut Env) {
    let mode = || EnvValue::Set("disabled".to_owned());
    env.entry("RAY_AUTH_MODE".to_owned()).or_insert_with(mode);
}

/// Tells nodes apart in `ray status`, which adds up what all of them offer.
fn resource_of(place: Place<'_>) -> String {
    format!("scalebeam:{}", place.host.name)
}
