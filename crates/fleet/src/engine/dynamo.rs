//! NVIDIA Dynamo: a frontend, workers of one of three kinds, and etcd with NATS, or files on one host.
//!
//! Ports per worker: extra 0 ranks over hosts, 1 system port, 2 key-value side channel or bootstrap,
//! 3 key-value events.

use super::{
    Args, Env, HUB_ENV, Place, anywhere, bind_addr, control_host, draft, entry_port, extra_port,
    have_addresses, head_addr, node_rank, only_on, own_addr, own_ip, places, port, rank_interface,
    reach_addr, set, sglang, text, visible_gpus, vllm,
};
use scalebeam_model::engine::{Engine, Infra, LaunchRequest, ParamKind, ParamSpec, ProcessDraft};
use scalebeam_model::plan::{EngineKind, HostPlan, Platform, Role};
use std::collections::BTreeSet;

/// What the workers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dynamo {
    Vllm,
    Sglang,
    Mocker,
}

const ETCD: u16 = 2379;
const NATS: u16 = 4222;
/// A worker's port for its health and its metrics.
const SYSTEM: &str = "system";
const SYSTEM_PORT: u16 = 8081;
const SIDE_CHANNEL: u16 = 20_097;
const MASTER_PORT: u16 = 29_501;

impl Engine for Dynamo {
    fn kind(&self) -> EngineKind {
        match self {
            Self::Vllm => EngineKind::DynamoVllm,
            Self::Sglang => EngineKind::DynamoSglang,
            Self::Mocker => EngineKind::DynamoMocker,
        }
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Vllm => VLLM_OWNED,
            Self::Sglang => sglang::OWNED,
            Self::Mocker => MOCKER_OWNED,
        }
    }

    fn context_flags(&self) -> &'static [&'static str] {
        match self {
            Self::Sglang => sglang::CONTEXT,
            Self::Vllm | Self::Mocker => &["--max-model-len"],
        }
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                name: "python",
                kind: ParamKind::Text,
                doc: "path of the Python that has dynamo",
            },
            ParamSpec {
                name: "router_mode",
                kind: ParamKind::Text,
                doc: "of the frontend: kv, round-robin or random",
            },
        ]
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        use Platform::{Dgd, External, Local, Slurm, Ssh};
        let able: &[Platform] = match self {
            // Its workers are planned alike, and have not been seen to come up.
            Self::Sglang => &[Dgd, External],
            Self::Vllm | Self::Mocker => &[Local, Ssh, Slurm, Dgd, External],
        };
        only_on(able, self.kind(), platform)
    }

    fn has_own_entry(&self) -> bool {
        true
    }

    /// A worker's system port, which shows its engine's own counts beside those of Dynamo. The mocker's are none of
    /// vLLM's, which is then told.
    fn kv_page(&self) -> Option<&'static str> {
        Some(SYSTEM)
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        find_each_other(request)?;
        let anywhere = anywhere(request.platform);
        let host = control_host(request, &anywhere)?;
        let place = Place { rank: 0, host, ids: &[] };
        let mut processes = Vec::new();
        if let Some(infra) = request.infra.filter(|_| !has_operator(request)) {
            processes.push(etcd(request, place, infra));
            processes.push(nats(request, place, infra));
        }
        processes.push(frontend(request, place));
        Ok(processes)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let anywhere = anywhere(request.platform);
        let hosts = places(request, &anywhere)?;
        let control = control_host(request, &anywhere)?;
        let head = head_addr(request, &hosts);
        let worker = |place: &Place<'_>| {
            let mut args = match self {
                Self::Vllm => vllm_worker(request, *place, hosts.len(), head),
                Self::Sglang => sglang_worker(request, *place, hosts.len(), head),
                Self::Mocker => mocker(request),
            };
            planes(&mut args, request);
            args.user(request.args);
            let env = self.environment(request, *place, control, hosts.len() > 1);
            let what =
                if place.rank == 0 { "worker".to_owned() } else { format!("rank{}", place.rank) };
            let mut process = draft(&what, *place, python(request), args.done(), env);
            if !has_operator(request) {
                let system = extra_port(request, 1, SYSTEM_PORT);
                process.ports.push(port(SYSTEM, &reach_addr(request, place.host), system));
            }
            process
        };
        Ok(hosts.iter().map(worker).collect())
    }
}

const VLLM_OWNED: &[(&str, &str)] = &[
    ("--model", "[model] id"),
    ("--tensor-parallel-size", "tp"),
    ("-tp", "tp"),
    ("--pipeline-parallel-size", "pp"),
    ("-pp", "pp"),
    ("--data-parallel-size", "dp"),
    ("-dp", "dp"),
    ("--nnodes", "place"),
    ("--node-rank", "place"),
    ("--master-addr", "host.addr"),
    ("--master-port", "place"),
    ("--headless", "place"),
    ("--disaggregation-mode", "role"),
    ("--is-prefill-worker", "role"),
    ("--is-decode-worker", "role"),
    ("--distributed-executor-backend", "launcher"),
];

const MOCKER_OWNED: &[(&str, &str)] = &[
    ("--model-path", "[model] id"),
    ("--model-name", "[model] served"),
    ("--disaggregation-mode", "role"),
    ("--is-prefill-worker", "role"),
    ("--is-decode-worker", "role"),
    ("--bootstrap-ports", "place"),
];

impl Dynamo {
    fn environment(
        self,
        request: &LaunchRequest<'_>,
        place: Place<'_>,
        control: &HostPlan,
        spans: bool,
    ) -> Env {
        let mut env = control_env(request, control);
        listen_on(&mut env, request, place.host);
        visible_gpus(&mut env, request, place.ids);
        if !has_operator(request) {
            set(&mut env, "DYN_SYSTEM_PORT", extra_port(request, 1, SYSTEM_PORT));
        }
        if self == Self::Vllm {
            if !request.platform.isolates() {
                own_ip(&mut env, "VLLM_HOST_IP", place.host, spans);
            }
            // Equal hashes of equal prefixes on every worker.
            set(&mut env, "PYTHONHASHSEED", 0);
            if request.instance.role != Role::Aggregated {
                // Its default is localhost, which the other host cannot reach.
                set(&mut env, "VLLM_NIXL_SIDE_CHANNEL_HOST", own_addr(request, place.host));
                let side = extra_port(request, 2, SIDE_CHANNEL);
                set(&mut env, "VLLM_NIXL_SIDE_CHANNEL_PORT", side);
            }
        }
        if spans {
            rank_interface(&mut env, place.host);
        }
        env
    }
}

/// Whether Dynamo's operator says how its parts find each other.
fn has_operator(request: &LaunchRequest<'_>) -> bool {
    request.platform == Platform::Dgd
}

/// Whether the parts of the deployment can find each other.
fn find_each_other(request: &LaunchRequest<'_>) -> Result<(), String> {
    if has_operator(request) {
        return Ok(());
    }
    have_addresses(request, "Dynamo's frontend")?;
    let spans = request.pools.iter().any(|instance| instance.place.len() > 1);
    // Hosts of a deployment on this machine share its disk.
    let is_apart = request.platform != Platform::Local && hosts_of(request).len() > 1;
    if request.infra.is_none() && (spans || is_apart) {
        let what = if spans { "an instance over hosts" } else { "instances on several hosts" };
        return Err(format!(
            "{what} cannot be discovered through files: say infra = {{ host = \"..\", etcd = 2379, nats = 4222 }}"
        ));
    }
    Ok(())
}

fn hosts_of<'a>(request: &LaunchRequest<'a>) -> BTreeSet<&'a str> {
    let places = request.pools.iter().flat_map(|instance| &instance.place);
    places.map(|place| place.host.as_str()).collect()
}

fn python<'a>(request: &'a LaunchRequest<'_>) -> &'a str {
    text(request.params, "python").unwrap_or("python3")
}

/// How a process finds the others. The namespace keeps leases of an earlier, killed deployment apart.
fn control_env(request: &LaunchRequest<'_>, control: &HostPlan) -> Env {
    let mut env = Env::new();
    if has_operator(request) {
        return env;
    }
    if has_hosts(request) {
        // The mocker leaves its settings in the place for temporary files.
        set(&mut env, "TMPDIR", "{scratch}");
    }
    // A job has nodes of its own; elsewhere another run may have left something.
    let run = if request.platform.places_processes() { "{run}-" } else { "" };
    set(&mut env, "DYN_NAMESPACE", format!("scalebeam-{run}{}", request.deployment));
    match request.infra {
        Some(infra) => {
            let (etcd, nats) = (infra.etcd.unwrap_or(ETCD), infra.nats.unwrap_or(NATS));
            set(&mut env, "ETCD_ENDPOINTS", format!("http://{}:{etcd}", control.addr));
            set(&mut env, "NATS_SERVER", format!("nats://{}:{nats}", control.addr));
        }
        None => {
            set(&mut env, "DYN_FILE_KV", "{scratch}/discovery");
        }
    }
    env
}

/// Whether its processes are started one by one, on hosts whose addresses the plan knows.
fn has_hosts(request: &LaunchRequest<'_>) -> bool {
    request.platform.takes_routers()
}

/// Its services take the first network card's address for their own unless they are told, and the mocker of prefill what
/// its host's name resolves to, which need not be one that others reach.
fn listen_on(env: &mut Env, request: &LaunchRequest<'_>, host: &HostPlan) {
    if !has_hosts(request) {
        return;
    }
    for service in ["TCP_RPC", "HTTP_RPC", "TCP_RESPONSE_STREAM", "EVENT_PLANE", "SYSTEM"] {
        own_ip(env, &format!("DYN_{service}_HOST"), host, false);
    }
}

fn planes(args: &mut Args, request: &LaunchRequest<'_>) {
    if has_operator(request) {
        return;
    }
    let (discovery, requests, events) =
        if request.infra.is_some() { ("etcd", "tcp", "nats") } else { ("file", "tcp", "zmq") };
    args.pair("--discovery-backend", discovery)
        .pair("--request-plane", requests)
        .pair("--event-plane", events);
}

fn etcd(request: &LaunchRequest<'_>, place: Place<'_>, infra: &Infra) -> ProcessDraft {
    let at = infra.etcd.unwrap_or(ETCD);
    let (bind, reach) = (bind_addr(request, place.host), reach_addr(request, place.host));
    let mut args = Args::default();
    // On a local disk: etcd on NFS loses leases.
    args.pair("--data-dir", "{scratch}/etcd")
        .pair("--listen-client-urls", format!("http://{bind}:{at}"))
        .pair("--advertise-client-urls", format!("http://{reach}:{at}"));
    // It has no peers, and listens for them all the same.
    let peers = at.saturating_add(1);
    let url = format!("http://127.0.0.1:{peers}");
    args.pair("--listen-peer-urls", &url)
        .pair("--initial-advertise-peer-urls", &url)
        .pair("--initial-cluster", format!("default={url}"));
    let mut process = draft("etcd", place, "etcd", args.done(), Env::new());
    process.ports.push(port("etcd", &reach, at));
    process.ports.push(port("etcd-peers", "127.0.0.1", peers));
    process
}

fn nats(request: &LaunchRequest<'_>, place: Place<'_>, infra: &Infra) -> ProcessDraft {
    let at = infra.nats.unwrap_or(NATS);
    let mut args = Args::new(&["-js"]);
    args.pair("-sd", "{scratch}/nats").pair("-a", bind_addr(request, place.host)).pair("-p", at);
    let mut process = draft("nats", place, "nats-server", args.done(), Env::new());
    process.ports.push(port("nats", &reach_addr(request, place.host), at));
    process
}

fn frontend(request: &LaunchRequest<'_>, place: Place<'_>) -> ProcessDraft {
    let at = request.infra.and_then(|i| i.frontend).unwrap_or_else(|| entry_port(request));
    let mut args = Args::new(&["-m", "dynamo.frontend"]);
    args.pair("--http-host", bind_addr(request, place.host)).pair("--http-port", at);
    if let Some(mode) = text(request.params, "router_mode") {
        args.pair("--router-mode", mode);
    }
    planes(&mut args, request);
    let mut env = control_env(request, place.host);
    listen_on(&mut env, request, place.host);
    let mut process = draft("frontend", place, python(request), args.done(), env);
    process.ports.push(port("http", &reach_addr(request, place.host), at));
    process
}

fn vllm_worker(request: &LaunchRequest<'_>, place: Place<'_>, nodes: usize, head: &str) -> Args {
    let mut args = Args::new(&["-m", "dynamo.vllm", "--model", &request.model.id]);
    args.unless_given(request.args, &["--served-model-name"], Some(&request.model.served));
    vllm::degrees(&mut args, request);
    if request.instance.ep.is_some_and(|ep| ep > 1) {
        args.flag("--enable-expert-parallel");
    }
    vllm::model_flags(&mut args, request);
    if nodes > 1 {
        args.pair("--nnodes", nodes)
            .pair("--node-rank", node_rank(request, place))
            .pair("--master-addr", head)
            .pair("--master-port", extra_port(request, 0, MASTER_PORT));
        if place.rank > 0 {
            args.flag("--headless");
        }
    }
    if request.instance.role != Role::Aggregated {
        args.pair("--disaggregation-mode", request.instance.role.name()).unless_given(
            request.args,
            &["--kv-transfer-config"],
            Some(vllm::KV_TRANSFER),
        );
    }
    args
}

fn sglang_worker(request: &LaunchRequest<'_>, place: Place<'_>, nodes: usize, head: &str) -> Args {
    let mut args = Args::new(&["-m", "dynamo.sglang", "--model-path", &request.model.id]);
    args.unless_given(request.args, &["--served-model-name"], Some(&request.model.served));
    sglang::shape(&mut args, request, place, nodes, head);
    args
}

fn mocker(request: &LaunchRequest<'_>) -> Args {
    let mut args = Args::new(&["-m", "dynamo.mocker", "--model-path", &request.model.id]);
    args.pair("--model-name", &request.model.served);
    if request.instance.role != Role::Aggregated {
        args.pair("--disaggregation-mode", request.instance.role.name());
    }
    if request.instance.role == Role::Prefill {
        args.pair("--bootstrap-ports", extra_port(request, 2, SIDE_CHANNEL));
    }
    args
}
