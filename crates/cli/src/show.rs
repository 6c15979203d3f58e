//! A plan in words.

use scalebeam_fleet::host::quote;
use scalebeam_model::arrival::ArrivalKind;
use scalebeam_model::driver::{LoadShape, PhasePlan, Think};
use scalebeam_model::plan::{
    DeploymentPlan, EnvValue, Gate, Interleave, Plan, PointPlan, ProcessPlan, StartGate, Turn,
};
use scalebeam_model::search::SearchPlan;
use scalebeam_model::units::{Nanos, significant};
use scalebeam_model::workload::{
    Api, LengthDist, Lengths, MixPart, Source, Spread, Talk, Workload,
};
use std::fmt::Write as _;

/// How much there is to do.
pub(crate) fn size(plan: &Plan) -> String {
    let counted = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let deployments = counted(plan.deployments.len(), "deployment");
    let points = counted(plan.points.len(), "point");
    match plan.searches.len() {
        0 => format!("{deployments}, {points}"),
        1 => format!("{deployments}, {points}, 1 search"),
        n => format!("{deployments}, {points}, {n} searches"),
    }
}

/// Everything that a run would do.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut out = format!("{}: {}\n", plan.name, size(plan));
    if let Some(about) = &plan.about {
        let _ = writeln!(out, "  {about}");
    }
    let _ = writeln!(out, "model {} (in requests: {})", plan.model.id, plan.model.served);
    for host in &plan.hosts {
        let at =
            host.ssh.as_ref().map_or_else(|| "this machine".to_owned(), |s| format!("ssh {s}"));
        let gpu = host.gpu.as_deref().unwrap_or("GPU");
        let _ =
            writeln!(out, "host {}: {at}, address {}, {} x {gpu}", host.name, host.addr, host.gpus);
    }
    for d in &plan.deployments {
        deployment(&mut out, d);
        for point in plan.points_of(&d.name) {
            show_point(&mut out, point);
        }
        for search in plan.searches_of(&d.name) {
            show_search(&mut out, search);
        }
    }
    order(&mut out, plan);
    for note in &plan.notes {
        let _ = write!(out, "\nnote: {}: {}\n      hint: {}", note.path, note.message, note.hint);
    }
    estimate(&mut out, plan);
    out
}

/// Who is up when, where that is not once each in the order of the file, and what it costs.
fn order(out: &mut String, plan: &Plan) {
    if plan.interleave == Interleave::Points {
        return;
    }
    let (turns, of_once) = (plan.turns(), plan.turns_of(Interleave::Points).len());
    let words = |turn: &Turn<'_>| {
        let mut numbers: Vec<u32> = turn.trials.iter().map(|(_, trial)| trial.number).collect();
        numbers.dedup();
        let trials = match numbers.as_slice() {
            [] => String::new(),
            [one] => format!(" trial {one}"),
            [first, .., last] => format!(" trials {first} to {last}"),
        };
        let searches = if turn.searches { " and its search" } else { "" };
        format!("{}{trials}{searches}", turn.deployment.name)
    };
    let in_order: Vec<String> = turns.iter().map(words).collect();
    let _ = writeln!(
        out,
        "\norder (interleave = \"{}\"): {}\n  {} bring-ups, where each deployment up once takes {of_once}",
        plan.interleave.name(),
        in_order.join(", then "),
        turns.len(),
    );
}

/// What it may take, beside what it is limited to.
fn estimate(out: &mut String, plan: &Plan) {
    let limit = plan.limit;
    let wall = limit.wall.map_or(String::new(), |w| format!(" of limit.wall = {w}"));
    let spend =
        limit.spend.map_or(String::new(), |s| format!(" of limit.spend = {}", significant(s)));
    let cost = plan.estimate.cost;
    let cost = cost.map_or(String::new(), |c| format!(", cost about {}{spend}", significant(c)));
    let _ = write!(out, "\nestimate: {}{wall}{cost} ({})", plan.estimate.wall, plan.estimate.basis);
}

fn deployment(out: &mut String, d: &DeploymentPlan) {
    let gpus = match (d.gpus, d.gpu_kinds.as_slice()) {
        (0, _) => "GPUs not known".to_owned(),
        (n, []) => format!("{n} GPUs"),
        (n, kinds) => format!("{n} GPUs ({})", kinds.join(", ")),
    };
    let _ = writeln!(
        out,
        "\ndeployment {}: {} on {}, {gpus}",
        d.name,
        d.engine.name(),
        d.platform.name()
    );
    if let Some(why) = &d.cannot_run {
        let _ = writeln!(out, "  cannot be run: {why}");
    }
    for i in &d.instances {
        let place: Vec<String> =
            i.place
                .iter()
                .map(|p| {
                    if p.ids.is_empty() {
                        p.host.clone()
                    } else {
                        format!("{} {:?}", p.host, p.ids)
                    }
                })
                .collect();
        let place =
            if place.is_empty() { "placed by the platform".to_owned() } else { place.join(" + ") };
        let _ = writeln!(
            out,
            "  instance {}: {}, tp {} x pp {} x dp {}, {place}, port {}",
            i.index,
            i.role.name(),
            i.tp,
            i.pp,
            i.dp,
            i.port
        );
    }
    d.processes.iter().for_each(|p| process(out, p));
    let entries: Vec<&str> = d.entries.iter().map(|e| e.url.as_str()).collect();
    let balance =
        if entries.len() > 1 { format!(", balance {}", kebab(d.balance)) } else { String::new() };
    let _ = writeln!(out, "  entry {}{balance}", entries.join(", "));
    let gates: Vec<String> = d.ready.gates.iter().map(gate).collect();
    let _ = writeln!(out, "  ready within {}: {}", d.ready.timeout, gates.join(", then "));
    if !d.ready.within.is_empty() {
        let limits: Vec<String> =
            d.ready.within.iter().map(|(kind, limit)| format!("{kind} in {limit}")).collect();
        let _ = writeln!(out, "  and of that: {}", limits.join(", "));
    }
    if let Some(path) = &d.cache_reset {
        let _ = writeln!(
            out,
            "  prefix cache emptied before each measurement: POST {path} at every entry"
        );
    }
    let always = if d.stop.always { "always" } else { "unless the run fails" };
    let _ = writeln!(out, "  stop: SIGTERM, {} grace, SIGKILL; {always}", d.stop.grace);
}

fn kebab(balance: scalebeam_model::driver::Balance) -> &'static str {
    use scalebeam_model::driver::Balance;
    match balance {
        Balance::RoundRobin => "round-robin",
        Balance::LeastInflight => "least-inflight",
        Balance::None => "none",
    }
}

fn gate(gate: &Gate) -> String {
    match gate {
        Gate::Alive { processes } => format!("{processes} processes alive"),
        Gate::Http { path } => format!("GET {path} is 200"),
        Gate::Log { text } => format!("'{text}' in the log of each instance"),
        Gate::ModelListed { model } => format!("'{model}' listed"),
        Gate::Servers { servers, path, model } => {
            let path = path.iter().map(|path| format!("GET {path} is 200"));
            let model = model.iter().map(|model| format!("'{model}' listed"));
            let asked = path.chain(model).collect::<Vec<_>>().join(" and ");
            format!("{asked} at each of {} servers behind the entry", servers.len())
        }
        Gate::Workers { path, expected } => format!("{expected} workers well by GET {path}"),
        Gate::Application { name, deployment, replicas, also, .. } if !also.is_empty() => {
            let all = also.iter().chain([(deployment, replicas)]);
            let all: Vec<String> = all.map(|(name, n)| format!("{n} of {name}")).collect();
            format!("application {name} of Ray Serve runs with replicas: {}", all.join(" and "))
        }
        Gate::Application { name, replicas, .. } => {
            format!("application {name} of Ray Serve runs with {replicas} replicas")
        }
        Gate::Instances { expected } => {
            let of = expected.iter().map(|(role, n)| format!("{n} {role}"));
            format!("instances: {}", of.collect::<Vec<_>>().join(", "))
        }
        Gate::Completion { apis } => match apis.as_slice() {
            [] | [Api::Chat] => "one streamed completion".to_owned(),
            apis => {
                let names: Vec<&str> = apis.iter().map(|api| api.name()).collect();
                format!("one real answer by {}", names.join(", "))
            }
        },
        Gate::Ranks { servers, .. } => {
            let ranks: u32 = servers.iter().map(|server| server.ranks).sum();
            format!("an answer of each of {ranks} data-parallel ranks")
        }
        Gate::BlocksMoved { decode, prompts } if decode.iter().all(|e| e.instance.is_none()) => {
            format!("key-value bytes moved on {} nodes by {prompts} new prompts", decode.len())
        }
        Gate::BlocksMoved { decode, prompts } => {
            format!(
                "key-value bytes moved to {} decode instances by {prompts} new prompts",
                decode.len()
            )
        }
    }
}

fn start_gate(gate: &StartGate) -> String {
    match gate {
        StartGate::Listening { host, port } => format!("port {port} of {host} is listened on"),
        StartGate::RayCluster { address, nodes, .. } => {
            let gpus: u32 = nodes.iter().map(|node| node.gpus).sum();
            format!("Ray at {address} has {} nodes with {gpus} GPUs", nodes.len())
        }
    }
}

fn process(out: &mut String, p: &ProcessPlan) {
    let _ = writeln!(out, "  process {} on {}", p.id, p.host);
    if let Some(gate) = &p.after {
        let _ = writeln!(out, "    started after {}", start_gate(gate));
    }
    let mut inherited = Vec::new();
    for (name, value) in &p.env {
        match value {
            EnvValue::Set(value) => {
                let _ = writeln!(out, "    env {name}={}", quote(value));
            }
            EnvValue::Inherit { .. } => inherited.push(name.as_str()),
        }
    }
    if !inherited.is_empty() {
        let _ = writeln!(out, "    env inherited where set: {}", inherited.join(" "));
    }
    let words: Vec<String> = std::iter::once(&p.program).chain(&p.args).map(|w| quote(w)).collect();
    let _ = writeln!(out, "    {}", words.join(" "));
    if !p.ports.is_empty() {
        let ports: Vec<String> =
            p.ports.iter().map(|x| format!("{} {}:{}", x.name, x.addr, x.port)).collect();
        let _ = writeln!(out, "    ports {}", ports.join(", "));
    }
    let _ = writeln!(out, "    log {}", p.log);
}

fn show_point(out: &mut String, p: &PointPlan) {
    let warmup = p
        .warmup
        .as_ref()
        .and_then(|w| w.requests)
        .map_or(String::new(), |n| format!(", warm-up {n}"));
    let seeds: Vec<String> = p.trials.iter().map(|t| format!("{:016x}", t.measure_seed)).collect();
    let _ = writeln!(
        out,
        "  point {}: {} {}{warmup}, time-out {}, workload {} (seed {}{}), {} trial{} (seeds {})",
        p.id,
        p.mode.name(),
        phase(&p.measure),
        p.measure.timeout,
        p.workload.name,
        p.workload.seed,
        spreads(&p.workload),
        p.trials.len(),
        if p.trials.len() == 1 { "" } else { "s" },
        seeds.join(" ")
    );
    if p.stop_oversaturated {
        let _ = writeln!(out, "    ends early once its queue surely grows without end");
    }
    if let Some(slo) = &p.slo {
        let _ = writeln!(out, "    must meet {slo}");
    }
}

/// What is searched, and the most that it can cost.
fn show_search(out: &mut String, s: &SearchPlan) {
    let [Some(first), Some(last)] = [s.levels.first(), s.levels.last()] else { return };
    let time = s.time.map_or(String::new(), |t| format!(", none begun after {t} of measuring"));
    let _ = writeln!(
        out,
        "  search {}/{}: the highest level from {} to {} that meets {}\n    \
         steps of {} % ({} levels), each measured up to {} times where chance may explain its verdict\n    \
         at most {} trials{time}; the lowest level is",
        s.deployment,
        s.load,
        first.level.label,
        last.level.label,
        s.slo,
        significant(100.0 * s.precision),
        s.levels.len(),
        s.tries,
        s.probes
    );
    show_point(out, first);
}

/// The lengths that are spread: what other tools call 1024 may have a mean of 922.
fn spreads(workload: &Workload) -> String {
    match &workload.source {
        Source::Synthetic { lengths, .. } => spreads_of(lengths),
        Source::Sessions { history, talk } => {
            let answers = format!("{} answers", history.name());
            match talk {
                Talk::Synthetic { lengths, turns, turn_isl } => format!(
                    "{}, sessions of {} turns with {} tokens more each, {answers}",
                    spreads_of(lengths),
                    spread(turns),
                    spread(turn_isl)
                ),
                Talk::File { turns, .. } => {
                    format!(", sessions of at most {turns} turns, {answers}")
                }
            }
        }
        Source::Mix { parts } => {
            let of = |p: &MixPart| match spreads(&p.workload) {
                text if text.is_empty() => text,
                text => format!(", {}: {}", p.workload.name, text.trim_start_matches(", ")),
            };
            parts.iter().map(of).collect()
        }
        Source::Prompts { .. } | Source::File { .. } => String::new(),
    }
}

fn spreads_of(lengths: &Lengths) -> String {
    let said = [("isl", &lengths.isl_dist), ("osl", &lengths.osl_dist)];
    let of = |(key, dist): (&str, &Option<LengthDist>)| {
        let dist = dist.as_ref()?;
        Some(format!(", {key} {dist}"))
    };
    said.into_iter().filter_map(of).collect()
}

fn spread(of: &Spread) -> String {
    of.dist.as_ref().map_or_else(|| of.mean.to_string(), ToString::to_string)
}

fn thinking(think: Option<Think>) -> String {
    match think {
        None => String::new(),
        Some(Think::Fixed { span }) => format!(", thinking {span} after each answer"),
        Some(Think::Exponential { mean, .. }) => {
            format!(", thinking {mean} on average after each answer")
        }
    }
}

fn phase(p: &PhasePlan) -> String {
    let end = match (p.requests, p.duration) {
        (Some(n), Some(d)) => format!("{n} requests or {d}"),
        (Some(n), None) => format!("{n} requests"),
        (None, Some(d)) => format!("for {d}"),
        (None, None) => "to the end of its schedule".to_owned(),
    };
    let mut out = shape(&p.shape, &end);
    if let Some(sessions) = &p.sessions {
        out += &thinking(sessions.think);
        out += if sessions.sticky { "" } else { ", turns spread over the entries" };
    }
    if let Some(n) = p.max_prefill {
        let _ = write!(out, ", at most {n} before their first token");
    }
    if let Some(c) = p.cancel {
        let _ =
            write!(out, ", {} % given up {} after sending", significant(100.0 * c.share), c.after);
    }
    out
}

fn shape(shape: &LoadShape, end: &str) -> String {
    let capped =
        shape.max_in_flight().map_or(String::new(), |n| format!(", at most {n} in flight"));
    match shape {
        LoadShape::Closed { concurrency, ramp_up, think } => {
            let ramp_up = ramp_up.map_or(String::new(), |over| format!(" reached over {over}"));
            format!("at concurrency {concurrency}{ramp_up}, {end}{}", thinking(*think))
        }
        LoadShape::Burst => format!("of {end}"),
        LoadShape::Open { rate_rps, arrival, .. } => {
            let arrival = match arrival {
                ArrivalKind::Poisson => "poisson".to_owned(),
                ArrivalKind::Constant => "constant".to_owned(),
                ArrivalKind::Gamma { burstiness } => {
                    format!("gamma, burstiness {}", significant(*burstiness))
                }
            };
            format!("at {rate_rps} ({arrival}), {end}{capped}")
        }
        LoadShape::Replay { speed, window, .. } => {
            let part = match (window.from, window.to) {
                (Nanos::ZERO, None) => String::new(),
                (from, None) => format!(" from {from} on"),
                (from, Some(to)) => format!(" from {from} to {to}"),
            };
            format!("of a trace{part} at {} times its speed, {end}{capped}", significant(*speed))
        }
    }
}
