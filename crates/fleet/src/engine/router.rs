//! What stands before prefill and decode instances that have no frontend of their own: our own two-step
//! routing (`scalebeam route`), or a router that the file names. It is a process of the deployment, on the
//! host of its first instance or of `infra`, and its one entry.

use super::{
    Args, Env, Place, anywhere, bind_addr, control_host, draft, entry_port, extra_port, given,
    port, reach_addr, text,
};
use scalebeam_model::engine::{LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft};
use scalebeam_model::plan::{InstancePlan, Role};

pub(super) const ROUTER: ParamSpec = ParamSpec {
    name: "router",
    kind: ParamKind::Text,
    doc: "what stands before prefill and decode pools: scalebeam (the default) or vllm-router",
};
pub(super) const ROUTER_BIN: ParamSpec = ParamSpec {
    name: "router_bin",
    kind: ParamKind::Text,
    doc: "path of the router's program, where it is not scalebeam itself",
};
pub(super) const ROUTER_ARGS: ParamSpec =
    ParamSpec { name: "router_args", kind: ParamKind::TextList, doc: "flags of the router" };

const VLLM_ROUTER: &str = "vllm-router";
/// The last of an instance's extra ports, which no data-parallel rank reaches.
const METRICS_PORT: usize = 15;
/// Of vllm-router; a second one on the host would meet it.
const USUAL_METRICS_PORT: u16 = 29_000;
/// What the shape decides.
const OWNED: &[&str] = &[
    "--host",
    "--port",
    "--prefill",
    "--decode",
    "--vllm-pd-disaggregation",
    "--kv-connector",
    "--prometheus-host",
    "--prometheus-port",
];

/// A router that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    VllmRouter,
}

impl Kind {
    fn of(params: &Params) -> Result<Self, String> {
        match text(params, ROUTER.name) {
            None | Some("scalebeam") => Ok(Self::Ours),
            Some(VLLM_ROUTER) => Ok(Self::VllmRouter),
            Some(other) => Err(format!(
                "router '{other}' is not known: leave it out for scalebeam's own, or say \"{VLLM_ROUTER}\""
            )),
        }
    }
}

/// Whether a request to empty the prefix cache reaches every instance.
pub(super) fn passes_on_resets(params: &Params) -> bool {
    Kind::of(params) != Ok(Kind::VllmRouter)
}

/// Whether a router can stand before these roles.
pub(super) fn check_roles(roles: &[Role]) -> Result<(), String> {
    let has = |role| roles.contains(&role);
    let problem = match (has(Role::Prefill), has(Role::Decode), has(Role::Aggregated)) {
        (true, true, false) => return Ok(()),
        (_, _, true) => {
            "aggregated instances beside prefill and decode pools are not sent anything"
        }
        (false, _, _) => "a decode pool needs a [[deploy.pool]] with role = \"prefill\" beside it",
        (true, _, _) => "a prefill pool needs a [[deploy.pool]] with role = \"decode\" beside it",
    };
    Err(problem.to_owned())
}

/// The router of the deployment.
pub(super) fn process(request: &LaunchRequest<'_>) -> Result<ProcessDraft, String> {
    check_roles(&request.pools.iter().map(|i| i.role).collect::<Vec<_>>())?;
    let kind = Kind::of(request.params)?;
    let user = flags(request.params);
    if let Some(flag) = OWNED.iter().find(|flag| given(&user, &[flag])) {
        return Err(format!("router_args must not have {flag}: the shape decides it"));
    }
    let anywhere = anywhere(request.platform);
    let host = control_host(request, &anywhere)?;
    let place = Place { rank: 0, host, ids: &[] };
    let at = request.infra.and_then(|i| i.frontend).unwrap_or_else(|| entry_port(request));
    let metrics = extra_port(request, METRICS_PORT, USUAL_METRICS_PORT);
    let bin = text(request.params, ROUTER_BIN.name);
    let (program, mut args) = match (kind, bin) {
        (Kind::Ours, Some(_)) => {
            return Err(
                "router_bin is for a router that is named: scalebeam's own is this program \
                        here, and on PATH elsewhere"
                    .to_owned(),
            );
        }
        (Kind::Ours, None) => ("scalebeam", Args::new(&["route"])),
        (Kind::VllmRouter, bin) => (bin.unwrap_or(VLLM_ROUTER), vllm_router(&user, metrics)),
    };
    args.pair("--host", bind_addr(request, host)).pair("--port", at);
    workers(&mut args, request)?;
    args.user(&user);
    let mut process = draft("router", place, program, args.done(), Env::new());
    process.ports.push(port("http", &reach_addr(request, host), at));
    if kind == Kind::VllmRouter {
        process.ports.push(port("metrics", "127.0.0.1", metrics));
    }
    Ok(process)
}

/// Without its own second chances: a request that failed is to be seen. Workers come up after it, and how
/// long they may take is the plan's business.
fn vllm_router(user: &[String], metrics: u16) -> Args {
    let mut args = Args::new(&["--vllm-pd-disaggregation", "--kv-connector", "nixl"]);
    args.unless_given(user, &["--policy"], Some("round_robin"))
        .unless_given(user, &["--worker-startup-timeout-secs"], Some(86_400))
        .unless_given(user, &["--worker-startup-check-interval"], Some(1))
        .pair("--prometheus-port", metrics);
    for flag in ["--disable-retries", "--disable-circuit-breaker"] {
        if !given(user, &[flag]) {
            args.flag(flag);
        }
    }
    args
}

fn flags(params: &Params) -> Vec<String> {
    let list = params.get(ROUTER_ARGS.name).and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn workers(args: &mut Args, request: &LaunchRequest<'_>) -> Result<(), String> {
    for instance in request.pools {
        let flag = match instance.role {
            Role::Prefill => "--prefill",
            Role::Decode => "--decode",
            Role::Aggregated => continue,
        };
        args.pair(flag, url(request, instance)?);
    }
    Ok(())
}

/// Where the server of `instance` is reached.
fn url(request: &LaunchRequest<'_>, instance: &InstancePlan) -> Result<String, String> {
    let Some(place) = instance.place.first() else {
        return Ok(format!("http://127.0.0.1:{}", instance.port));
    };
    let host = request.hosts.get(&place.host).ok_or_else(|| {
        format!("instance {} is on host {}, which is not in the plan", instance.index, place.host)
    })?;
    Ok(format!("http://{}:{}", reach_addr(request, host), instance.port))
}
