//! Ray Serve LLM, as Ray 2.60 has it: an application of a Ray cluster, whose replicas are the instances.
//!
//! On hosts of the file, as nodes of a job of Slurm too, the cluster is the plan's own: a raylet a host with the GPUs that
//! instances have there, and `serve run` of a file beside the head. Which replica gets which of these GPUs is Ray's
//! choice. On KubeRay the same configuration is the `serveConfigV2` of a RayService.
//!
//! Prefill and decode pools are two deployments of one application (`build_pd_openai_app`): a decode replica has the
//! prompt computed by a prefill replica, and loads the blocks by NIXL.
//!
//! Ray lists the model before a replica has loaded it, and `serve run` goes on when an application could not be
//! deployed: `serve status` tells, which needs the cluster's dashboard.
//!
//! Extra ports: 0 Ray's client server, 1 the dashboard, from 2 on the nodes' pages of metrics, after them the side
//! channels of NIXL.

mod config;

use super::ray::{self, CLIENT_PORT, Cluster, DASHBOARD, Watched};
use super::{
    HUB_ENV, Place, anywhere, control_host, draft, entry_port, extra_port, only_on, places, port,
    reach_addr, router, text, vllm,
};
use scalebeam_model::engine::{Engine, LaunchRequest, ParamKind, ParamSpec, ProcessDraft};
use scalebeam_model::plan::{
    EngineKind, Gate, HostPlan, InstancePlan, Platform, ProcessPlan, Role,
};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct RayServe;

/// Of vLLM, which Ray sets for each replica unless somebody has.
const SIDE_CHANNEL: [&str; 2] = ["VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"];
/// What the process of the application is called, and the file that it reads.
const APP: &str = "app";
const CONFIG: &str = "serve.json";
/// Names of the application, and of its deployment whose replicas are the instances. Ray puts its class before
/// that, and else a form of the model's name behind.
const APPLICATION: &str = "llms";
const DEPLOYMENT: &str = "instances";
const DASHBOARD_PORT: u16 = 8265;
const METRICS_PORT: u16 = 8080;
/// The extra port that is the first of the nodes' pages of metrics.
const PAGES: usize = 2;

impl Engine for RayServe {
    fn kind(&self) -> EngineKind {
        EngineKind::RayServeLlm
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        vllm::OWNED
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                name: "bin",
                kind: ParamKind::Text,
                doc: "path of the serve program, for example of a venv; ray is beside it",
            },
            ParamSpec {
                name: "ray_port",
                kind: ParamKind::Integer,
                doc: "port of the Ray head; 6379 by default",
            },
            ParamSpec {
                name: "ingress_replicas",
                kind: ParamKind::Integer,
                doc: "processes that take requests and pass them on; one an instance by default",
            },
        ]
    }

    /// That of its proxy says nothing of the application.
    fn health_path(&self) -> Option<&'static str> {
        Some("/v1/models")
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        use Platform::{External, Kuberay, Local, Slurm, Ssh};
        only_on(&[Local, Ssh, Slurm, Kuberay, External], self.kind(), platform)
    }

    fn has_own_entry(&self) -> bool {
        true
    }

    fn count_gate(&self, processes: &[ProcessPlan], instances: &[InstancePlan]) -> Option<Gate> {
        let port = processes.iter().flat_map(|p| &p.ports).find(|port| port.name == DASHBOARD)?;
        let app = processes.iter().find(|p| p.files.contains_key(CONFIG))?;
        Some(Gate::Application {
            serve: app.program.clone(),
            host: app.host.clone(),
            dashboard: format!("http://{}:{}", port.addr, port.port),
            name: APPLICATION.to_owned(),
            deployment: format!(
                "{}:{DEPLOYMENT}",
                if is_split(instances) { "Decode" } else { "LLMServer" }
            ),
            replicas: count(instances, |i| i.role != Role::Prefill),
            also: match is_split(instances) {
                true => {
                    let prefill = count(instances, |i| i.role == Role::Prefill);
                    [(format!("Prefill:{DEPLOYMENT}"), prefill)].into()
                }
                false => BTreeMap::new(),
            },
        })
    }

    /// Replicas are Ray Serve's own, so one application stands for all instances.
    fn processes(&self, _request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        Ok(Vec::new())
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        match request.platform {
            Platform::External => Ok(Vec::new()),
            Platform::Local | Platform::Ssh | Platform::Slurm => on_own_cluster(request),
            _ => Ok(vec![on_their_cluster(request)?]),
        }
    }
}

fn is_split(instances: &[InstancePlan]) -> bool {
    router::is_split(instances.iter().map(|i| &i.role))
}

fn count(instances: &[InstancePlan], ours: impl Fn(&&InstancePlan) -> bool) -> u32 {
    u32::try_from(instances.iter().filter(ours).count()).unwrap_or(u32::MAX)
}

/// The application as `serve run` would be given it, where an operator makes the cluster.
fn on_their_cluster(request: &LaunchRequest<'_>) -> Result<ProcessDraft, String> {
    if is_split(request.pools) {
        return Err(format!(
            "prefill and decode pools of Ray Serve are not rendered for platform {}: use platform = \"local\", \
             \"ssh\" or \"slurm\", or engine = \"dynamo-vllm\" on \"dgd\"",
            request.platform.name()
        ));
    }
    let anywhere = anywhere(request.platform);
    let hosts = places(request, &anywhere)?;
    let host = hosts.first().map_or(&anywhere, |place| place.host);
    let mut config = config::replicas(request);
    if hosts.len() > 1 {
        config["placement_group_config"] = config::placement(request.instance, "PACK");
    }
    let config = Value::Array(vec![config]);
    let args =
        vec!["run".to_owned(), config::IMPORT_PATH.to_owned(), format!("llm_configs={config}")];
    let place = Place { rank: 0, host, ids: &[] };
    let mut process = draft(APP, place, "serve", args, super::Env::new());
    process.ports.push(port("http", &reach_addr(request, host), entry_port(request)));
    Ok(process)
}

/// Raylets on the hosts of all instances, and the application beside the head.
fn on_own_cluster(request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
    check(request)?;
    let anywhere = anywhere(request.platform);
    let shares = shares(request, control_host(request, &anywhere)?)?;
    let ranked = (0..).zip(&shares);
    let hosts: Vec<Place<'_>> =
        ranked.map(|(rank, (host, ids))| Place { rank, host, ids }).collect();
    ray::check_addresses(request, &hosts)?;
    let Some(head) = hosts.first().copied() else { return Ok(Vec::new()) };
    let cluster = Cluster {
        program: ray::beside(program(request), "ray"),
        head,
        port: ray::head_port(request, 0),
        client_port: extra_port(request, 0, CLIENT_PORT),
        watched: Some(Watched {
            dashboard: extra_port(request, 1, DASHBOARD_PORT),
            metrics: extra_port(request, PAGES, METRICS_PORT),
        }),
        // In a job of Slurm it is told by a variable where to write.
        has_scratch: request.platform.places_processes(),
    };
    let raylet = |place: &Place<'_>| {
        let slots = slots(request, place.host);
        let mut raylet = cluster.raylet(*place, &slots, environment(request, *place));
        if place.rank == head.rank {
            // The proxy is an actor: it ends with its raylet, and not with the process that asked for it.
            let http = port("http", &reach_addr(request, head.host), proxy_port(request));
            raylet.ports.push(http);
        }
        raylet
    };
    let raylets = hosts.iter().map(raylet);
    Ok(raylets.chain([application(request, &cluster, &hosts)]).collect())
}

/// What vLLM needs on `place`. Replicas of one raylet must not share a side channel.
fn environment(request: &LaunchRequest<'_>, place: Place<'_>) -> super::Env {
    let mut env = vllm::environment(request, place, true);
    env.retain(|name, _| !SIDE_CHANNEL.contains(&name.as_str()));
    env
}

/// Where the one proxy listens, as the entry of the plan says.
fn proxy_port(request: &LaunchRequest<'_>) -> u16 {
    request.infra.and_then(|infra| infra.frontend).unwrap_or_else(|| entry_port(request))
}

fn program<'a>(request: &'a LaunchRequest<'_>) -> &'a str {
    text(request.params, "bin").unwrap_or("serve")
}

fn check(request: &LaunchRequest<'_>) -> Result<(), String> {
    if request.pools.iter().any(|i| i.place.is_empty()) {
        return Err("the nodes of a Ray cluster are known by their addresses: say place = [\"HOST:GPUS\", ..], and \
                    addr of each host"
            .to_owned());
    }
    let roles: Vec<Role> = request.pools.iter().map(|i| i.role).collect();
    router::check_roles(&roles)?;
    if request.pools.iter().any(|i| i.dp > 1) {
        return Err("an instance of Ray Serve has no dp: say replicas instead".to_owned());
    }
    let kinds = request.pools.iter().zip(request.given);
    let kinds = kinds.map(|(i, given)| (i.role, (i.tp, i.pp, i.place.len() > 1, given)));
    let kinds: Vec<_> = kinds.collect();
    let is_like_first = |(role, kind): &(Role, _)| {
        let first = kinds.iter().find(|(of, _)| of == role);
        first.is_none_or(|(_, first)| first == kind)
    };
    match kinds.iter().all(is_like_first) {
        true => Ok(()),
        false => {
            Err("replicas of Ray Serve are alike: give all instances of a role one shape, and the same args and env"
                .to_owned())
        }
    }
}

/// GPUs of `host` by the role of the instances that have them. Ray would place a replica of any role on them, so that
/// one of several GPUs could find none free together.
fn slots(request: &LaunchRequest<'_>, host: &HostPlan) -> ray::Slots {
    let mut slots = ray::Slots::new();
    for instance in request.pools.iter().filter(|i| i.role != Role::Aggregated) {
        let here = instance.place.iter().filter(|place| place.host == host.name);
        let gpus: usize = here.map(|place| place.ids.len()).sum();
        if gpus > 0 {
            *slots.entry(config::slot_of(instance.role)).or_default() += gpus;
        }
    }
    slots
}

/// Every host of the cluster, `head` first, with the GPUs that instances have there.
fn shares<'a>(
    request: &'a LaunchRequest<'_>,
    head: &'a HostPlan,
) -> Result<Vec<(&'a HostPlan, Vec<u32>)>, String> {
    let mut shares: Vec<(&HostPlan, Vec<u32>)> = vec![(head, Vec::new())];
    for place in request.pools.iter().flat_map(|i| &i.place) {
        let host = request.hosts.get(&place.host);
        let host = host.ok_or_else(|| format!("host {} is not in the plan", place.host))?;
        match shares.iter_mut().find(|(known, _)| known.name == host.name) {
            Some((_, ids)) => ids.extend(&place.ids),
            None => shares.push((host, place.ids.clone())),
        }
    }
    Ok(shares)
}

fn application(
    request: &LaunchRequest<'_>,
    cluster: &Cluster<'_>,
    hosts: &[Place<'_>],
) -> ProcessDraft {
    let place = Place { ids: &[], ..cluster.head };
    let mut env = environment(request, place);
    cluster.joined(&mut env);
    let args = vec!["run".to_owned(), format!("{{scratch}}/{CONFIG}")];
    let mut app = draft(APP, place, program(request), args, env);
    app.files.insert(CONFIG.to_owned(), config::application(request, hosts).to_string());
    app.after = Some(cluster.is_whole(hosts));
    app
}
