//! SGLang: `python -m sglang.launch_server`. Derived for the plan; not brought up by this version.

use super::{
    Args, Env, HUB_ENV, Place, anywhere, bind_addr, draft, extra_port, head_addr, node_rank,
    only_on, own_ip, places, port, rank_interface, reach_addr, text, visible_gpus,
};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft,
};
use scalebeam_model::plan::{EngineKind, Platform, Role};

#[derive(Debug)]
pub(super) struct Sglang;

const DIST_INIT_PORT: u16 = 5000;
const BOOTSTRAP_PORT: u16 = 8998;

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
        &[ParamSpec {
            name: "python",
            kind: ParamKind::Text,
            doc: "path of the Python that has sglang",
        }]
    }

    fn default_port(&self) -> u16 {
        30_000
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    /// Refused with 400 while requests run.
    fn cache_reset(&self, _params: &Params) -> Option<CacheReset> {
        Some(CacheReset::post("/flush_cache"))
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        use Platform::{External, K8s, Lws, Modal, Skypilot};
        only_on(&[K8s, Lws, Modal, Skypilot, External], self.kind(), platform)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
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
        // Only rank 0 answers.
        process.ports.push(port("http", &reach_addr(request, place.host), request.instance.port));
    }
    process
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
    args.pair("--tp", instance.tp).degree("--pp-size", instance.pp).degree("--dp", instance.dp);
    args.degree("--ep", instance.ep.unwrap_or(1));
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
        args.pair("--disaggregation-bootstrap-port", extra_port(request, 2, BOOTSTRAP_PORT));
    }
}

pub(super) fn environment(request: &LaunchRequest<'_>, place: Place<'_>, spans: bool) -> Env {
    let mut env = Env::new();
    visible_gpus(&mut env, request, place.ids);
    if spans && !request.platform.isolates() {
        own_ip(&mut env, "SGLANG_HOST_IP", place.host, spans);
        rank_interface(&mut env, place.host);
    }
    env
}
