//! What stands before instances that have no frontend of their own: before prefill and decode pools our own
//! two-step routing (`scalebeam route`) or a router that the file names; before whole copies one that the file
//! names, and else nothing. Before SGLang's pools stands its own router, which alone takes part in its handing over of
//! prompts. It is a process of the deployment, on the host of its first instance or of `infra`, and its one entry.

use super::{
    Args, Env, Place, anywhere, bind_addr, control_host, draft, entry_port, extra_port, given,
    have_addresses, port, reach_addr, sglang, text,
};
use scalebeam_model::engine::{
    LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft, RouterFacts,
};
use scalebeam_model::plan::{InstancePlan, Role};

pub(super) const ROUTER: ParamSpec = ParamSpec {
    name: "router",
    kind: ParamKind::Text,
    doc: "what stands before the instances: vllm-router, sglang-router, or scalebeam, the default before \
          prefill and decode pools of vLLM",
};
pub(super) const ROUTER_BIN: ParamSpec = ParamSpec {
    name: "router_bin",
    kind: ParamKind::Text,
    doc: "path of the router's program, where it is not scalebeam itself",
};
pub(super) const ROUTER_ARGS: ParamSpec =
    ParamSpec { name: "router_args", kind: ParamKind::TextList, doc: "flags of the router" };

const VLLM_ROUTER: &str = "vllm-router";
const SGLANG_ROUTER: &str = "sglang-router";
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
    "--worker-urls",
    "--pd-disaggregation",
    "--vllm-pd-disaggregation",
    "--kv-connector",
    "--prometheus-host",
    "--prometheus-port",
];

/// How prompts are handed from prefill to decode, which a router takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handover {
    /// By what the first server answers to the second, as vLLM's connectors do.
    Answer,
    /// By a place to meet that both are told, as SGLang does.
    Bootstrap,
}

/// A router that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    VllmRouter,
    SglangRouter,
}

impl Kind {
    fn of(params: &Params, handover: Handover) -> Result<Self, String> {
        match text(params, ROUTER.name) {
            None if handover == Handover::Bootstrap => Ok(Self::SglangRouter),
            None | Some("scalebeam") => Ok(Self::Ours),
            Some(VLLM_ROUTER) => Ok(Self::VllmRouter),
            Some(SGLANG_ROUTER) => Ok(Self::SglangRouter),
            Some(other) => Err(format!(
                "router '{other}' is not known: leave it out for scalebeam's own, or say \"{VLLM_ROUTER}\" \
                 or \"{SGLANG_ROUTER}\""
            )),
        }
    }

    /// sglang-router as of 0.3.2: it answers at once that it is well, calls every model `unknown`, and takes in
    /// its workers one by one.
    const fn facts(self) -> RouterFacts {
        let is_sglang = matches!(self, Self::SglangRouter);
        RouterFacts {
            lists_models: !is_sglang,
            workers: if is_sglang { Some("/workers") } else { None },
        }
    }

    fn check(self, handover: Handover, is_split: bool) -> Result<(), String> {
        match (self, handover, is_split) {
            (Self::Ours, _, false) => {
                Err("scalebeam's own router is for prefill and decode pools: without a \
                                        router requests are spread over whole copies by `balance`"
                    .to_owned())
            }
            (Self::Ours | Self::VllmRouter, Handover::Bootstrap, true) => Err(format!(
                "prefill and decode pools of SGLang meet at a place that only its own router tells them: leave \
                 router out, or say \"{SGLANG_ROUTER}\""
            )),
            (Self::SglangRouter, Handover::Answer, true) => Err(format!(
                "{SGLANG_ROUTER} hands prompts over by SGLang's bootstrap, which vLLM does not take part in: \
                 leave router out, or say \"{VLLM_ROUTER}\""
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a request to empty the prefix cache reaches every instance: SGLang's router knows SGLang's.
pub(super) fn passes_on_resets(params: &Params, handover: Handover) -> bool {
    let knows = |kind| match handover {
        Handover::Answer => kind == Kind::Ours,
        Handover::Bootstrap => kind == Kind::SglangRouter,
    };
    // A name that is not known is refused elsewhere.
    Kind::of(params, handover).is_ok_and(knows)
}

/// The router before instances of these roles, where there is one.
pub(super) fn before(roles: &[Role], params: &Params, handover: Handover) -> Option<RouterFacts> {
    let is_named = text(params, ROUTER.name).is_some();
    let kind = Kind::of(params, handover).unwrap_or(Kind::Ours);
    (is_named || is_split(roles)).then(|| kind.facts())
}

/// Whether pools share what a request needs.
pub(super) fn is_split<'a>(roles: impl IntoIterator<Item = &'a Role>) -> bool {
    roles.into_iter().any(|role| *role != Role::Aggregated)
}

/// Whether a router can stand before these roles.
pub(super) fn check_roles(roles: &[Role]) -> Result<(), String> {
    let has = |role| roles.contains(&role);
    let problem = match (has(Role::Prefill), has(Role::Decode), has(Role::Aggregated)) {
        (true, true, false) | (false, false, _) => return Ok(()),
        (_, _, true) => {
            "aggregated instances beside prefill and decode pools are not sent anything"
        }
        (false, _, _) => "a decode pool needs a [[deploy.pool]] with role = \"prefill\" beside it",
        (true, _, _) => "a prefill pool needs a [[deploy.pool]] with role = \"decode\" beside it",
    };
    Err(problem.to_owned())
}

/// The router of the deployment, where it has one.
pub(super) fn processes(
    request: &LaunchRequest<'_>,
    handover: Handover,
) -> Result<Vec<ProcessDraft>, String> {
    let roles: Vec<Role> = request.pools.iter().map(|i| i.role).collect();
    if before(&roles, request.params, handover).is_none() {
        return Ok(Vec::new());
    }
    match request.platform.takes_routers() {
        true => process(request, &roles, handover).map(|process| vec![process]),
        // What pools can do there is said with the platform.
        false if is_split(&roles) => Ok(Vec::new()),
        false => Err(format!(
            "no router is started on platform {}: leave it out of params, or use platform = \"local\", \
             \"ssh\" or \"slurm\"",
            request.platform.name()
        )),
    }
}

fn process(
    request: &LaunchRequest<'_>,
    roles: &[Role],
    handover: Handover,
) -> Result<ProcessDraft, String> {
    check_roles(roles)?;
    have_addresses(request, "a router")?;
    let kind = Kind::of(request.params, handover)?;
    kind.check(handover, is_split(roles))?;
    let user = flags(request.params);
    if let Some(flag) = OWNED.iter().find(|flag| given(&user, &[flag])) {
        return Err(format!("router_args must not have {flag}: the shape decides it"));
    }
    let anywhere = anywhere(request.platform);
    let host = control_host(request, &anywhere)?;
    let place = Place { rank: 0, host, ids: &[] };
    let at = request.infra.and_then(|i| i.frontend).unwrap_or_else(|| entry_port(request));
    let metrics = extra_port(request, METRICS_PORT, USUAL_METRICS_PORT);
    let program = program(kind, request.params)?;
    let mut args = match kind {
        Kind::Ours => Args::new(&["route"]),
        Kind::VllmRouter => vllm_router(&user, metrics, is_split(roles)),
        Kind::SglangRouter => sglang_router(&user, metrics, is_split(roles)),
    };
    args.pair("--host", bind_addr(request, host)).pair("--port", at);
    workers(&mut args, request, handover)?;
    args.user(&user);
    let mut process = draft("router", place, program, args.done(), Env::new());
    process.ports.push(port("http", &reach_addr(request, host), at));
    if kind != Kind::Ours {
        process.ports.push(port("metrics", "127.0.0.1", metrics));
    }
    Ok(process)
}

fn program(kind: Kind, params: &Params) -> Result<&str, String> {
    match (kind, text(params, ROUTER_BIN.name)) {
        (Kind::Ours, Some(_)) => Err(
            "router_bin is for a router that is named: scalebeam's own is this program here, and on PATH \
             elsewhere"
                .to_owned(),
        ),
        (Kind::Ours, None) => Ok("scalebeam"),
        (Kind::VllmRouter, bin) => Ok(bin.unwrap_or(VLLM_ROUTER)),
        (Kind::SglangRouter, bin) => Ok(bin.unwrap_or(SGLANG_ROUTER)),
    }
}

fn vllm_router(user: &[String], metrics: u16, is_split: bool) -> Args {
    let split = ["--vllm-pd-disaggregation", "--kv-connector", "nixl"];
    let mut args = Args::new(if is_split { &split } else { &[] });
    without_second_chances(&mut args, user, metrics);
    args
}

fn sglang_router(user: &[String], metrics: u16, is_split: bool) -> Args {
    let mut args = Args::new(&["launch"]);
    if is_split {
        args.flag("--pd-disaggregation");
    }
    // Told to end, it would wait three minutes for requests that nobody waits for any more.
    args.unless_given(user, &["--shutdown-grace-period-secs"], Some(5))
        .pair("--prometheus-host", "127.0.0.1");
    without_second_chances(&mut args, user, metrics);
    args
}

/// A request that failed is to be seen, unless the file says how often it may be tried. Workers come up after
/// the router, and how long they may take is the plan's business. Both routers come from one, and have these
/// flags.
fn without_second_chances(args: &mut Args, user: &[String], metrics: u16) {
    args.unless_given(user, &["--policy"], Some("round_robin"))
        .unless_given(user, &["--worker-startup-timeout-secs"], Some(86_400))
        .unless_given(user, &["--worker-startup-check-interval"], Some(1))
        .pair("--prometheus-port", metrics);
    for (flag, asked) in [
        ("--disable-retries", "--retry-max-retries"),
        ("--disable-circuit-breaker", "--cb-failure-threshold"),
    ] {
        if !given(user, &[flag, asked]) {
            args.flag(flag);
        }
    }
}

fn flags(params: &Params) -> Vec<String> {
    let list = params.get(ROUTER_ARGS.name).and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn workers(args: &mut Args, request: &LaunchRequest<'_>, handover: Handover) -> Result<(), String> {
    if request.pools.iter().all(|i| i.role == Role::Aggregated) {
        args.flag("--worker-urls");
    }
    for instance in request.pools {
        for url in urls(request, instance)? {
            match instance.role {
                Role::Prefill => args.pair("--prefill", url),
                Role::Decode => args.pair("--decode", url),
                Role::Aggregated => args.flag(&url),
            };
            if handover == Handover::Bootstrap && instance.role == Role::Prefill {
                args.flag(&sglang::bootstrap_port_of(request, instance).to_string());
            }
        }
    }
    Ok(())
}

/// Where the servers of `instance` are reached.
fn urls(request: &LaunchRequest<'_>, instance: &InstancePlan) -> Result<Vec<String>, String> {
    let url = |(name, port): (&str, u16)| {
        if name.is_empty() {
            return Ok(format!("http://127.0.0.1:{port}"));
        }
        let host = request.hosts.get(name).ok_or_else(|| {
            format!("instance {} is on host {name}, which is not in the plan", instance.index)
        })?;
        Ok(format!("http://{}:{port}", reach_addr(request, host)))
    };
    instance.servers().into_iter().map(url).collect()
}
