//! vLLM: `vllm serve`.
//!
//! On one host one process, or one beside a Ray cluster of that host. Over hosts one process a host, joined by
//! vLLM's own `--nnodes` (launcher mp) or by a Ray cluster (launcher ray, in [`ray`]). Data-parallel ranks over
//! hosts, and those that have a server each, are in [`data_parallel`]. Routers are in [`super::router`].
//!
//! Extra ports: 0 joins ranks, from 1 on NIXL's side channel, one a data-parallel rank.

mod data_parallel;
mod ray;

use super::router::Handover;
use super::{
    Args, Env, HUB_ENV, Place, anywhere, bind_addr, draft, extra_port, head_addr, node_rank,
    only_on, own_addr, own_ip, places, port, rank_interface, reach_addr, router, set, text,
    visible_gpus,
};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft, RouterFacts,
};
use scalebeam_model::plan::{DpBalance, EngineKind, Platform, RankLauncher, Role};

#[derive(Debug)]
pub(super) struct Vllm;

const MASTER_PORT: u16 = 29_501;
const NIXL_PORT: u16 = 5600;
/// Key-value blocks travel by NIXL in both directions.
pub(super) const KV_TRANSFER: &str = r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#;

/// Flags of vLLM that the shape decides, whoever starts it.
pub(super) const OWNED: &[(&str, &str)] = &[
    ("--model", "[model] id"),
    ("--tensor-parallel-size", "tp"),
    ("-tp", "tp"),
    ("--pipeline-parallel-size", "pp"),
    ("-pp", "pp"),
    ("--data-parallel-size", "dp"),
    ("-dp", "dp"),
    ("--data-parallel-size-local", "place"),
    ("-dpl", "place"),
    ("--data-parallel-start-rank", "place"),
    ("-dpr", "place"),
    ("--data-parallel-rank", "place"),
    ("-dpn", "place"),
    ("--data-parallel-address", "host.addr"),
    ("-dpa", "host.addr"),
    ("--data-parallel-rpc-port", "place"),
    ("-dpp", "place"),
    ("--data-parallel-hybrid-lb", "dp_balance"),
    ("-dph", "dp_balance"),
    ("--data-parallel-external-lb", "dp_balance"),
    ("-dpe", "dp_balance"),
    ("--data-parallel-multi-port-external-lb", "dp_balance"),
    ("-dpm", "dp_balance"),
    ("--enable-expert-parallel", "ep"),
    ("--nnodes", "place"),
    ("--node-rank", "place"),
    ("--master-addr", "host.addr"),
    ("--master-port", "place"),
    ("--headless", "place"),
    ("--host", "host.addr"),
    ("--port", "port"),
    ("--distributed-executor-backend", "launcher"),
];

impl Engine for Vllm {
    fn kind(&self) -> EngineKind {
        EngineKind::Vllm
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        OWNED
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                name: "bin",
                kind: ParamKind::Text,
                doc: "path of the vllm program, for example of a venv",
            },
            ParamSpec {
                name: "ray_port",
                kind: ParamKind::Integer,
                doc: "port of the first instance's Ray head, of the next one's the next; 6379 by default",
            },
            router::ROUTER,
            router::ROUTER_BIN,
            router::ROUTER_ARGS,
        ]
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    /// A development server only. It answers 200 whether or not it could; the cached tokens of the answers
    /// tell.
    fn cache_reset(&self, params: &Params) -> Option<CacheReset> {
        // A router of somebody else would ask one of the instances, if any.
        router::passes_on_resets(params, Handover::Answer).then_some(CacheReset {
            env: &[("VLLM_SERVER_DEV_MODE", "1")],
            ..CacheReset::post("/reset_prefix_cache")
        })
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        use Platform::{External, InferencePool, K8s, Local, Lws, Modal, Skypilot, Slurm, Ssh};
        let able = [Local, Ssh, Slurm, K8s, Lws, InferencePool, Modal, Skypilot, External];
        only_on(&able, self.kind(), platform)
    }

    fn can_run_roles(&self, platform: Platform, roles: &[Role]) -> Result<(), String> {
        if platform.takes_routers() { router::check_roles(roles) } else { Ok(()) }
    }

    fn router(&self, roles: &[Role], params: &Params) -> Option<RouterFacts> {
        router::before(roles, params, Handover::Answer)
    }

    /// Since 0.10; before that it is not looked at, and any rank answers.
    fn rank_header(&self) -> Option<&'static str> {
        Some("X-data-parallel-rank")
    }

    fn kv_page(&self) -> Option<&'static str> {
        Some("http")
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        router::processes(request, Handover::Answer)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let instance = request.instance;
        let anywhere = anywhere(request.platform);
        let hosts = places(request, &anywhere)?;
        let launcher = request.launcher;
        // Where a platform starts them, the processes of one host need nobody to join them.
        let is_cluster = hosts.len() > 1 || request.platform.places_processes();
        let by_ray = is_cluster && launcher == Some(RankLauncher::Ray);
        match (hosts.as_slice(), instance.dp > 1) {
            (_, true) if by_ray => {
                Err("vLLM's own processes join data-parallel ranks: say launcher = \"mp\", \
                                        or replicas in place of dp"
                    .to_owned())
            }
            _ if by_ray => ray::over_hosts(request, &hosts),
            (_, true) if instance.dp_balance == Some(DpBalance::External) => {
                data_parallel::a_server_a_rank(request, &hosts)
            }
            ([place], _) => Ok(vec![single(request, *place)]),
            (_, true) => data_parallel::over_hosts(request, &hosts),
            _ if launcher == Some(RankLauncher::Mp) => Ok(multiprocessing(request, &hosts)),
            _ => Err("an instance spans hosts: say launcher = \"mp\" or \"ray\"".to_owned()),
        }
    }
}

fn program<'a>(request: &'a LaunchRequest<'_>) -> &'a str {
    text(request.params, "bin").unwrap_or("vllm")
}

/// `vllm serve MODEL`, names, degrees; without where it listens.
fn common(request: &LaunchRequest<'_>) -> Args {
    let (model, instance, user) = (request.model, request.instance, request.args);
    let mut args = Args::new(&["serve", &model.id]);
    args.unless_given(user, &["--served-model-name"], Some(&model.served));
    degrees(&mut args, request);
    if instance.ep.is_some_and(|ep| ep > 1) {
        args.flag("--enable-expert-parallel");
    }
    model_flags(&mut args, request);
    if instance.role != Role::Aggregated {
        args.unless_given(user, &["--kv-transfer-config"], Some(KV_TRANSFER));
    }
    args
}

pub(super) fn degrees(args: &mut Args, request: &LaunchRequest<'_>) {
    let instance = request.instance;
    args.pair("--tensor-parallel-size", instance.tp)
        .degree("--pipeline-parallel-size", instance.pp)
        .degree("--data-parallel-size", instance.dp);
}

/// What `[model]` says, unless the user's flags say otherwise.
pub(super) fn model_flags(args: &mut Args, request: &LaunchRequest<'_>) {
    let (model, user) = (request.model, request.args);
    args.unless_given(user, &["--revision"], model.revision.as_ref())
        .unless_given(user, &["--dtype"], model.dtype.as_ref())
        .unless_given(user, &["--max-model-len"], model.max_len);
}

pub(super) fn environment(request: &LaunchRequest<'_>, place: Place<'_>, spans: bool) -> Env {
    let mut env = Env::new();
    visible_gpus(&mut env, request, place.ids);
    let is_on_nodes = request.platform == Platform::Slurm && spans;
    if request.platform.places_processes() || is_on_nodes {
        own_ip(&mut env, "VLLM_HOST_IP", place.host, spans);
    }
    if request.platform.has_entry_per_instance() {
        // Its sockets and meeting points stay behind in the place for temporary files.
        set(&mut env, "TMPDIR", "{scratch}");
    }
    if spans {
        rank_interface(&mut env, place.host);
    }
    if request.instance.role != Role::Aggregated {
        set(&mut env, "VLLM_NIXL_SIDE_CHANNEL_HOST", own_addr(request, place.host));
        set(&mut env, "VLLM_NIXL_SIDE_CHANNEL_PORT", extra_port(request, 1, NIXL_PORT));
    }
    env
}

/// The process that answers requests.
fn server(request: &LaunchRequest<'_>, place: Place<'_>, args: Args, env: Env) -> ProcessDraft {
    server_at(request, place, ("serve", request.instance.port), args, env)
}

/// One of several, by its name and port.
fn server_at(
    request: &LaunchRequest<'_>,
    place: Place<'_>,
    (what, at): (&str, u16),
    mut args: Args,
    env: Env,
) -> ProcessDraft {
    args.pair("--host", bind_addr(request, place.host)).pair("--port", at).user(request.args);
    let mut process = draft(what, place, program(request), args.done(), env);
    process.ports.push(port("http", &reach_addr(request, place.host), at));
    process
}

/// A process that only computes for [`server`].
fn headless(request: &LaunchRequest<'_>, place: Place<'_>, mut args: Args) -> ProcessDraft {
    args.flag("--headless").user(request.args);
    let what = format!("rank{}", place.rank);
    draft(&what, place, program(request), args.done(), environment(request, place, true))
}

fn single(request: &LaunchRequest<'_>, place: Place<'_>) -> ProcessDraft {
    server(request, place, common(request), environment(request, place, false))
}

fn multiprocessing(request: &LaunchRequest<'_>, hosts: &[Place<'_>]) -> Vec<ProcessDraft> {
    let master = extra_port(request, 0, MASTER_PORT);
    let head = head_addr(request, hosts);
    let rank = |place: &Place<'_>| {
        let mut args = common(request);
        args.pair("--nnodes", hosts.len())
            .pair("--node-rank", node_rank(request, *place))
            .pair("--master-addr", head)
            .pair("--master-port", master);
        if place.rank > 0 {
            return headless(request, *place, args);
        }
        let mut process = server(request, *place, args, environment(request, *place, true));
        process.ports.push(port("master", head, master));
        process
    };
    hosts.iter().map(rank).collect()
}
