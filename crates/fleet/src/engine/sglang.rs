//! SGLang: `python -m sglang.launch_server`, with the flags that the parser of 0.5.23 has.
//!
//! Over hosts one process a host, which its own ranks join; rank 0 answers. Prefill and decode pools meet at the
//! prefill server's bootstrap port, which sglang-router ([`super::router`]) tells both of: a prompt is handed over or
//! the request fails, so none is computed twice in silence.
//!
//! Extra ports: 0 joins ranks, and SGLang takes the next seven of it; 8 is the bootstrap.

use super::router::{self, Handover};
use super::{
    Args, Env, HUB_ENV, Place, anywhere, bind_addr, draft, extra_port, head_addr, node_rank,
    only_on, own_ip, places, port, rank_interface, reach_addr, set, text, visible_gpus,
};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft, RouterFacts,
};
use scalebeam_model::plan::{EngineKind, InstancePlan, Platform, PortPlan, RankLauncher, Role};

#[derive(Debug)]
pub(super) struct Sglang;

const DIST_INIT_PORT: u16 = 5000;
const BOOTSTRAP_PORT: u16 = 8998;
/// Its place among an instance's extra ports.
const BOOTSTRAP: u16 = 8;

/// Flags of SGLang that the shape decides, whoever starts it.
pub(super) const OWNED: &[(&str, &str)] = &[
    ("--model-path", "[model] id"),
    ("--tp", "tp"),
    ("--tp-size", "tp"),
    ("--tensor-parallel-size", "tp"),
    ("--pp", "pp"),
    ("--pp-size", "pp"),
    ("--pipeline-parallel-size", "pp"),
    ("--dp", "dp"),
    ("--dp-size", "dp"),
    ("--data-parallel-size", "dp"),
    ("--ep", "ep"),
    ("--ep-size", "ep"),
    ("--nnodes", "place"),
    ("--node-rank", "place"),
    ("--dist-init-addr", "host.addr"),
    ("--host", "host.addr"),
    ("--port", "port"),
    ("--disaggregation-mode", "role"),
    ("--disaggregation-bootstrap-port", "place"),
];

/// Flags of SGLang that say how long the context is, whoever starts it.
pub(super) const CONTEXT: &[&str] = &["--context-length"];

impl Engine for Sglang {
    fn kind(&self) -> EngineKind {
        EngineKind::Sglang
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        OWNED
    }

    fn context_flags(&self) -> &'static [&'static str] {
        CONTEXT
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                name: "python",
                kind: ParamKind::Text,
                doc: "path of the Python that has sglang",
            },
            router::ROUTER,
            router::ROUTER_BIN,
            router::ROUTER_ARGS,
        ]
    }

    fn default_port(&self) -> u16 {
        30_000
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    /// Refused with 400 while requests run.
    fn cache_reset(&self, params: &Params) -> Option<CacheReset> {
        router::passes_on_resets(params, Handover::Bootstrap)
            .then(|| CacheReset::post("/flush_cache"))
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
        router::before(roles, params, Handover::Bootstrap)
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        router::processes(request, Handover::Bootstrap)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        if request.launcher == Some(RankLauncher::Ray) {
            return Err(
                "SGLang joins its ranks over hosts by itself: say launcher = \"mp\"".to_owned()
            );
        }
        let anywhere = anywhere(request.platform);
        let hosts = places(request, &anywhere)?;
        let head = head_addr(request, &hosts);
        Ok(hosts.iter().map(|place| rank(request, *place, hosts.len(), head)).collect())
    }
}

fn rank(request: &LaunchRequest<'_>, place: Place<'_>, nodes: usize, head: &str) -> ProcessDraft {
    let mut args = Args::new(&["-m", "sglang.launch_server", "--model-path", &request.model.id]);
    args.unless_given(request.args, &["--served-model-name"], Some(&request.model.served));
    shape(&mut args, request, place, nodes, head);
    args.pair("--host", bind_addr(request, place.host)).pair("--port", request.instance.port);
    if !super::given(request.args, &["--enable-metrics"]) {
        args.flag("--enable-metrics");
    }
    args.user(request.args);
    let env = environment(request, place, nodes > 1);
    let what = if place.rank == 0 { "serve".to_owned() } else { format!("rank{}", place.rank) };
    let python = text(request.params, "python").unwrap_or("python3");
    let mut process = draft(&what, place, python, args.done(), env);
    if place.rank == 0 {
        process.ports.extend(ports(request, place, nodes, head));
    }
    process
}

/// What rank 0 listens on. It alone answers.
fn ports(request: &LaunchRequest<'_>, place: Place<'_>, nodes: usize, head: &str) -> Vec<PortPlan> {
    let reach = reach_addr(request, place.host);
    let mut ports = vec![port("http", &reach, request.instance.port)];
    if nodes > 1 {
        ports.push(port("dist-init", head, extra_port(request, 0, DIST_INIT_PORT)));
    }
    if request.instance.role == Role::Prefill {
        ports.push(port("bootstrap", &reach, bootstrap_port(request)));
    }
    ports
}

/// Where a prefill server is met by those who decode what it computed.
fn bootstrap_port(request: &LaunchRequest<'_>) -> u16 {
    extra_port(request, usize::from(BOOTSTRAP), BOOTSTRAP_PORT)
}

/// The same of `instance`, as seen by what stands before all instances: its extra ports are those right after
/// the last instance's, and each has as many.
pub(super) fn bootstrap_port_of(request: &LaunchRequest<'_>, instance: &InstancePlan) -> u16 {
    let each = u16::try_from(request.extra_ports.len()).unwrap_or(u16::MAX);
    let behind = request.instances.saturating_sub(instance.index);
    let behind = u16::try_from(behind).unwrap_or(u16::MAX).saturating_mul(each);
    match request.extra_ports.first() {
        Some(first) => first.saturating_sub(behind).saturating_add(BOOTSTRAP),
        None => BOOTSTRAP_PORT,
    }
}

/// Degrees, ranks, role and `[model]`, as both plain SGLang and Dynamo's workers take them.
pub(super) fn shape(
    args: &mut Args,
    request: &LaunchRequest<'_>,
    place: Place<'_>,
    nodes: usize,
    head: &str,
) {
    let (instance, model, user) = (request.instance, request.model, request.args);
    // By their whole names: `--dp` is an abbreviation, which the next flag that begins so makes ambiguous.
    args.pair("--tp-size", instance.tp)
        .degree("--pp-size", instance.pp)
        .degree("--dp-size", instance.dp)
        .degree("--ep-size", instance.ep.unwrap_or(1));
    args.unless_given(user, &["--revision"], model.revision.as_ref())
        .unless_given(user, &["--dtype"], model.dtype.as_ref())
        .unless_given(user, CONTEXT, model.max_len);
    if nodes > 1 {
        args.pair("--nnodes", nodes)
            .pair("--node-rank", node_rank(request, place))
            .pair("--dist-init-addr", format!("{head}:{}", extra_port(request, 0, DIST_INIT_PORT)));
    }
    if instance.role != Role::Aggregated {
        args.pair("--disaggregation-mode", instance.role.name()).unless_given(
            user,
            &["--disaggregation-transfer-backend"],
            Some("nixl"),
        );
    }
    if instance.role == Role::Prefill {
        args.pair("--disaggregation-bootstrap-port", bootstrap_port(request));
    }
}

pub(super) fn environment(request: &LaunchRequest<'_>, place: Place<'_>, spans: bool) -> Env {
    let mut env = Env::new();
    visible_gpus(&mut env, request, place.ids);
    if request.platform.has_entry_per_instance() {
        // Its sockets and caches of kernels stay behind in the place for temporary files.
        set(&mut env, "TMPDIR", "{scratch}");
    }
    if spans && !request.platform.isolates() {
        own_ip(&mut env, "SGLANG_HOST_IP", place.host, spans);
        rank_interface(&mut env, place.host);
    }
    env
}
