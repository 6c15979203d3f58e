//! llama.cpp's server, and its rpc workers.
//!
//! The plan names `llama-server` and the model as the user did; the launcher makes files of both when
//! it starts them (`llama-server` on PATH, else the managed one; see [`crate::setup::llama_cpp`]).
//! `params.rpc_workers = n` takes n of the extra ports.

use super::{
    Args, Env, Place, anywhere, bind_addr, draft, integer, only_on, places, port, reach_addr,
    router, text, visible_gpus,
};
use scalebeam_model::engine::{
    Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft, RouterFacts,
};
use scalebeam_model::plan::{EngineKind, Platform, Role, StartGate};

#[derive(Debug)]
pub(super) struct LlamaCpp;

/// Slots whose context is reserved unless the file says otherwise.
const PARALLEL: u64 = 8;
/// Context of all slots together.
const CTX: u64 = 16_384;

const PARAMS: &[ParamSpec] = &[
    ParamSpec {
        name: "threads",
        kind: ParamKind::Integer,
        doc: "threads that compute; 1 by default, for more than one spins while it waits",
    },
    ParamSpec {
        name: "parallel",
        kind: ParamKind::Integer,
        doc: "requests batched at once; 8 by default",
    },
    ParamSpec {
        name: "ctx",
        kind: ParamKind::Integer,
        doc: "context tokens, divided among the requests; max_len x parallel, or 16384, by default",
    },
    ParamSpec {
        name: "rpc_workers",
        kind: ParamKind::Integer,
        doc: "ggml-rpc-server processes that the layers are split over",
    },
    ParamSpec { name: "server", kind: ParamKind::Text, doc: "path of llama-server" },
    router::ROUTER,
    router::ROUTER_BIN,
    router::ROUTER_ARGS,
];

impl Engine for LlamaCpp {
    fn kind(&self) -> EngineKind {
        EngineKind::LlamaCpp
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("-m", "[model] id"),
            ("--model", "[model] id"),
            ("-a", "[model] served"),
            ("--alias", "[model] served"),
            ("-np", "params.parallel"),
            ("--parallel", "params.parallel"),
            ("-c", "params.ctx"),
            ("--ctx-size", "params.ctx"),
            ("-t", "params.threads"),
            ("--threads", "params.threads"),
            ("-tb", "params.threads"),
            ("--threads-batch", "params.threads"),
            ("--rpc", "params.rpc_workers"),
            ("--host", "host.addr"),
            ("--port", "port"),
        ]
    }

    fn params(&self) -> &'static [ParamSpec] {
        PARAMS
    }

    fn takes_gpus(&self) -> bool {
        false
    }

    fn default_port(&self) -> u16 {
        8080
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        use Platform::{External, Local, Slurm, Ssh};
        only_on(&[Local, Ssh, Slurm, External], self.kind(), platform)
    }

    fn router(&self, roles: &[Role], params: &Params) -> Option<RouterFacts> {
        // Pools are refused with the instances.
        let is_whole = roles.iter().all(|role| *role == Role::Aggregated);
        router::before(roles, params, router::Handover::Answer).filter(|_| is_whole)
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        let is_whole = request.pools.iter().all(|i| i.role == Role::Aggregated);
        if is_whole { router::processes(request, router::Handover::Answer) } else { Ok(Vec::new()) }
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let anywhere = anywhere(request.platform);
        let place = one_place(request, &places(request, &anywhere)?)?;
        let workers = rpc_workers(request, place)?;
        let peers: Vec<String> = workers
            .iter()
            .flat_map(|w| &w.ports)
            .map(|p| format!("{}:{}", p.addr, p.port))
            .collect();
        let mut env = Env::new();
        visible_gpus(&mut env, request, place.ids);
        let program = text(request.params, "server").unwrap_or("llama-server");
        let mut server = draft("serve", place, program, arguments(request, place, &peers), env);
        server.ports.push(port("http", &reach_addr(request, place.host), request.instance.port));
        // It aborts where a worker does not listen yet.
        server.after = workers.last().and_then(listens);
        let mut processes = workers;
        processes.push(server);
        Ok(processes)
    }
}

fn one_place<'a>(request: &LaunchRequest<'_>, places: &[Place<'a>]) -> Result<Place<'a>, String> {
    let instance = request.instance;
    if instance.role != Role::Aggregated {
        return Err(format!("llama.cpp has no {} role", instance.role.name()));
    }
    if instance.dp > 1 {
        return Err("llama.cpp has no dp: say replicas instead".to_owned());
    }
    match places {
        [place] if instance.tp * instance.pp == 1 || !place.ids.is_empty() => Ok(*place),
        [_] => Err(
            "llama.cpp without GPUs has no tp or pp: params.rpc_workers splits the layers over \
                    processes"
                .to_owned(),
        ),
        _ => Err("an instance of llama.cpp does not span hosts in this version".to_owned()),
    }
}

fn rpc_workers(request: &LaunchRequest<'_>, place: Place<'_>) -> Result<Vec<ProcessDraft>, String> {
    let count = integer(request.params, "rpc_workers").unwrap_or(0);
    let threads = integer(request.params, "threads").unwrap_or(1);
    // Built beside the server, so found beside it.
    let program = match text(request.params, "server").and_then(|s| s.rsplit_once('/')) {
        Some((dir, _)) => format!("{dir}/ggml-rpc-server"),
        None => "ggml-rpc-server".to_owned(),
    };
    let mut workers = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        let at = *request.extra_ports.get(index).ok_or_else(|| {
            format!(
                "{count} rpc workers need as many ports, and {} are free",
                request.extra_ports.len()
            )
        })?;
        let mut args = Args::new(&["-H", "127.0.0.1"]);
        args.pair("-p", at).pair("-t", threads);
        let mut worker = draft(&format!("rpc{index}"), place, &program, args.done(), Env::new());
        worker.gpus.clear();
        worker.ports.push(port("rpc", "127.0.0.1", at));
        worker.after = workers.last().and_then(listens);
        workers.push(worker);
    }
    Ok(workers)
}

/// That `worker` listens.
fn listens(worker: &ProcessDraft) -> Option<StartGate> {
    let port = worker.ports.first()?.port;
    Some(StartGate::Listening { host: worker.host.clone(), port })
}

fn arguments(request: &LaunchRequest<'_>, place: Place<'_>, peers: &[String]) -> Vec<String> {
    let (model, params, user) = (request.model, request.params, request.args);
    let parallel = integer(params, "parallel").unwrap_or(PARALLEL);
    let longest = model.max_len.map(|n| u64::from(n) * parallel);
    let ctx = integer(params, "ctx").or(longest).unwrap_or(CTX);
    let threads = integer(params, "threads").unwrap_or(1);
    let mut args = Args::default();
    args.pair("-m", &model.id)
        .pair("-np", parallel)
        .pair("-c", ctx)
        .pair("-t", threads)
        .pair("-tb", threads)
        .pair("--host", bind_addr(request, place.host))
        .pair("--port", request.instance.port);
    if !given_metrics(user) {
        args.flag("--metrics");
    }
    args.pair("--alias", &model.served);
    if !peers.is_empty() {
        args.pair("--rpc", peers.join(",")).unless_given(user, &["-ngl"], Some(99));
    }
    if request.instance.tp > 1 {
        args.unless_given(user, &["--split-mode", "-sm"], Some("row"));
    }
    args.user(user).done()
}

fn given_metrics(user: &[String]) -> bool {
    super::given(user, &["--metrics"])
}
