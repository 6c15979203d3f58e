//! Engines: from a shape to command lines, while the plan is made.
//!
//! **Invariants.** Pure: no file, no environment, no clock. A flag that the shape decides is derived
//! here and refused in `args` ([`Engine::owned_flags`]); everything else of the user's passes through
//! verbatim, after what is derived. A value that `args` gives is never given twice. Secrets are
//! inherited by name.
//!
//! Ports: of `LaunchRequest::extra_ports` an engine uses at most four, and llama.cpp one per rpc worker
//! (the plan gives sixteen to each instance); what is missing falls back to the engine's documented
//! default, shifted by the instance's index.
//!
//! To add an engine: one file here, one line in [`engines`], and what CONTRIBUTING.md lists beside; the tests
//! hold it to the rules.

mod command;
mod dynamo;
mod emulated;
mod llama_cpp;
mod lmdeploy;
mod openai;
mod ray;
mod ray_serve;
mod router;
mod sglang;
mod vllm;

#[cfg(test)]
mod tests;

use scalebeam_model::engine::{
    CacheReset, Engine, Engines, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft,
};
use scalebeam_model::plan::{EngineKind, EnvValue, HostPlan, Platform, PortPlan};
use std::collections::BTreeMap;

/// Every engine.
pub fn engines() -> Engines<'static> {
    const ALL: &[&dyn Engine] = &[
        &vllm::Vllm,
        &sglang::Sglang,
        &dynamo::Dynamo::Vllm,
        &dynamo::Dynamo::Sglang,
        &dynamo::Dynamo::Mocker,
        &ray_serve::RayServe,
        &llama_cpp::LlamaCpp,
        &lmdeploy::Lmdeploy,
        &command::Command,
        &openai::Openai,
        &emulated::Emulated,
    ];
    ALL
}

/// Tokens and caches that Hugging Face's libraries read; passed on by name where they are set.
const HUB_ENV: &[&str] = &[
    "HF_TOKEN",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HUGGING_FACE_HUB_TOKEN",
];

/// Passes on the platforms that the engine is `able` to run on; says what to do on others.
fn only_on(able: &[Platform], engine: EngineKind, platform: Platform) -> Result<(), String> {
    if able.contains(&platform) {
        return Ok(());
    }
    let means = match platform.renders() {
        true => "with the files that `scalebeam plan FILE --render DIR` writes",
        false => "by its own means",
    };
    Err(format!(
        "engine {} on platform {} cannot be brought up by this version of scalebeam; bring it up \
         {means} and attach with platform = \"external\"",
        engine.name(),
        platform.name()
    ))
}

/// Where the file says how a prefix cache is emptied, since nobody else can know.
const CACHE_RESET: ParamSpec = ParamSpec {
    name: "cache_reset",
    kind: ParamKind::Text,
    doc: "path that is posted to where a workload says cache = \"reset\"",
};

/// What [`CACHE_RESET`] was given.
fn given_reset(params: &Params) -> Option<CacheReset> {
    text(params, CACHE_RESET.name).map(CacheReset::post)
}

/// A host of the instance, with its share.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    rank: u32,
    host: &'a HostPlan,
    ids: &'a [u32],
}

/// The hosts of an instance in rank order. A platform that chooses hosts itself has one, nameless.
fn places<'a>(
    request: &'a LaunchRequest<'_>,
    anywhere: &'a HostPlan,
) -> Result<Vec<Place<'a>>, String> {
    if request.instance.place.is_empty() {
        return Ok(vec![Place { rank: 0, host: anywhere, ids: &[] }]);
    }
    let mut places = Vec::new();
    for (rank, place) in (0u32..).zip(&request.instance.place) {
        let host = request.hosts.get(&place.host).ok_or_else(|| {
            format!(
                "instance {} is placed on host {}, which is not in the plan",
                request.instance.index, place.host
            )
        })?;
        places.push(Place { rank, host, ids: &place.ids });
    }
    Ok(places)
}

/// What stands for the host where the platform chooses one.
fn anywhere(platform: Platform) -> HostPlan {
    HostPlan {
        name: platform.name().to_owned(),
        addr: "0.0.0.0".to_owned(),
        ssh: None,
        gpus: 0,
        gpu: None,
        iface: None,
        labels: BTreeMap::new(),
    }
}

/// Where a server on `host` listens. On this machine at the one address that the entry has, so that
/// nobody else can reach it by accident; elsewhere on all.
fn bind_addr(request: &LaunchRequest<'_>, host: &HostPlan) -> String {
    let here = request.platform == Platform::Local
        || (request.platform.places_processes() && request.hosts.values().all(|h| h.ssh.is_none()));
    match host.addr.as_str() {
        "" | "localhost" if here => "127.0.0.1".to_owned(),
        addr if here && addr.parse::<std::net::IpAddr>().is_ok() => addr.to_owned(),
        _ => "0.0.0.0".to_owned(),
    }
}

/// Where that server is reached, and whose port must be free: the host's address unless bound closer.
fn reach_addr(request: &LaunchRequest<'_>, host: &HostPlan) -> String {
    match bind_addr(request, host) {
        open if open == "0.0.0.0" => host.addr.clone(),
        closed => closed,
    }
}

/// Where what serves the whole deployment runs: its entry, and what its instances find each other by.
fn control_host<'a>(
    request: &'a LaunchRequest<'_>,
    anywhere: &'a HostPlan,
) -> Result<&'a HostPlan, String> {
    let name = match (request.infra, request.instance.place.first()) {
        (Some(infra), _) => &infra.host,
        (None, Some(place)) => &place.host,
        (None, None) => return Ok(anywhere),
    };
    request.hosts.get(name).ok_or_else(|| format!("infra.host {name} is not a host of the plan"))
}

/// Whether `who` can be told where the instances are before a job of Slurm has any node.
///
/// # Errors
/// The first instance without a place, or host without an address.
fn have_addresses(request: &LaunchRequest<'_>, who: &str) -> Result<(), String> {
    if request.platform != Platform::Slurm {
        return Ok(());
    }
    if request.pools.iter().any(|instance| instance.place.is_empty()) {
        return Err(format!(
            "{who} is told where its instances are before Slurm gives any node: name nodes by `place`, each with \
             addr in its [host.NAME]"
        ));
    }
    let placed = request.pools.iter().flat_map(|instance| &instance.place).map(|place| &place.host);
    let mut named = placed.chain(request.infra.map(|infra| &infra.host));
    let lacks = |name: &&String| request.hosts.get(*name).is_some_and(|host| !host.has_address());
    match named.find(lacks) {
        Some(name) => {
            Err(format!("{who} reaches its instances at addresses: add addr to [host.{name}]"))
        }
        None => Ok(()),
    }
}

/// The deployment's own port, where the engine has an entry of its own: the plan gives its first
/// instance the next one.
fn entry_port(request: &LaunchRequest<'_>) -> u16 {
    request.instance.port.saturating_sub(1)
}

fn port(name: &str, addr: &str, port: u16) -> PortPlan {
    PortPlan { name: name.to_owned(), addr: addr.to_owned(), port }
}

/// The `index`-th extra port, else `default` shifted so that instances do not meet.
fn extra_port(request: &LaunchRequest<'_>, index: usize, default: u16) -> u16 {
    let shift = u16::try_from(request.instance.index).unwrap_or(0);
    request.extra_ports.get(index).copied().unwrap_or(default.saturating_add(shift))
}

/// Whether the user gave one of `flags`, as `--flag value` or `--flag=value`.
fn given(args: &[String], flags: &[&str]) -> bool {
    args.iter().any(|arg| {
        flags.iter().any(|flag| {
            arg == flag || arg.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
        })
    })
}

/// A command line under construction.
#[derive(Debug, Default)]
struct Args(Vec<String>);

impl Args {
    fn new(words: &[&str]) -> Self {
        Self(words.iter().map(|w| (*w).to_owned()).collect())
    }

    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    fn pair(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push(name.to_owned());
        self.0.push(value.to_string());
        self
    }

    /// `name value`, unless there is no value or the user gave the flag in one of its spellings.
    fn unless_given(
        &mut self,
        user: &[String],
        names: &[&str],
        value: Option<impl std::fmt::Display>,
    ) -> &mut Self {
        if let (Some(value), Some(name)) = (value, names.first())
            && !given(user, names)
        {
            self.pair(name, value);
        }
        self
    }

    fn degree(&mut self, name: &str, degree: u32) -> &mut Self {
        if degree > 1 {
            self.pair(name, degree);
        }
        self
    }

    fn user(&mut self, args: &[String]) -> &mut Self {
        self.0.extend(args.iter().cloned());
        self
    }

    fn done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

type Env = BTreeMap<String, EnvValue>;

fn set(env: &mut Env, name: &str, value: impl std::fmt::Display) {
    env.insert(name.to_owned(), EnvValue::Set(value.to_string()));
}

/// `CUDA_VISIBLE_DEVICES`, where the plan gives ids. Where the platform gives the devices, the ids in a
/// file say how many, and the first is 0 in each pod.
fn visible_gpus(env: &mut Env, request: &LaunchRequest<'_>, ids: &[u32]) {
    if !ids.is_empty() && !request.platform.isolates() {
        let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        set(env, "CUDA_VISIBLE_DEVICES", ids);
    }
}

/// Which interface the ranks talk over; a wrong guess of the libraries is the top cause of hangs.
fn rank_interface(env: &mut Env, host: &HostPlan) {
    if let Some(iface) = &host.iface {
        set(env, "NCCL_SOCKET_IFNAME", iface);
        set(env, "GLOO_SOCKET_IFNAME", iface);
    }
}

/// Where the other ranks find rank 0. In a LeaderWorkerSet its controller says, in a variable that
/// Kubernetes expands in arguments.
fn head_addr<'a>(request: &LaunchRequest<'_>, hosts: &[Place<'a>]) -> &'a str {
    match request.platform {
        Platform::Lws => "$(LWS_LEADER_ADDRESS)",
        _ => hosts.first().map_or("", |h| h.host.addr.as_str()),
    }
}

/// The rank of a node. All workers of a LeaderWorkerSet have one template, so there it is a variable.
fn node_rank(request: &LaunchRequest<'_>, place: Place<'_>) -> String {
    match request.platform {
        Platform::Lws => "$(LWS_WORKER_INDEX)".to_owned(),
        _ => place.rank.to_string(),
    }
}

/// Where other instances reach this one: a pod learns its address when it starts.
fn own_addr<'a>(request: &LaunchRequest<'_>, host: &'a HostPlan) -> &'a str {
    if request.platform.isolates() { "$(POD_IP)" } else { &host.addr }
}

/// An address that the engine may take for its own: a name would be resolved otherwise on each host.
fn own_ip(env: &mut Env, name: &str, host: &HostPlan, spans: bool) {
    if spans || host.addr.parse::<std::net::IpAddr>().is_ok() {
        set(env, name, &host.addr);
    }
}

fn text<'a>(params: &'a Params, key: &str) -> Option<&'a str> {
    params.get(key).and_then(toml::Value::as_str)
}

fn integer(params: &Params, key: &str) -> Option<u64> {
    params.get(key).and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok())
}

/// A scalar as the user would write it after a flag.
fn scalar(params: &Params, key: &str) -> Option<String> {
    match params.get(key)? {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// One process on `place`.
fn draft(what: &str, place: Place<'_>, program: &str, args: Vec<String>, env: Env) -> ProcessDraft {
    ProcessDraft {
        what: what.to_owned(),
        host: place.host.name.clone(),
        program: program.to_owned(),
        args,
        env,
        ports: Vec::new(),
        gpus: place.ids.to_vec(),
        rank: place.rank,
        after: None,
        files: BTreeMap::new(),
    }
}
