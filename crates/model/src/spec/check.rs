//! Checks of a file that reads well: names, references, shapes, flags, modes.
//!
//! Every problem is found in one pass, so that a user mends a file once.

use super::diagnostic::nearest;
use super::{Deploy, Dur, Experiment, Problem, TelemetrySpec};
use crate::engine::{Engine, Engines, find};
use crate::plan::shape::{check_params, flag_name, shapes};
use crate::plan::{EngineKind, Platform};
use crate::units::Nanos;
use std::collections::BTreeSet;

mod asks;
mod dp_balance;
mod pace;
mod ready;
mod reports;
mod search;
mod slo;
mod workloads;

/// All problems of `experiment`.
pub fn check(experiment: &Experiment, engines: Engines<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    header(experiment, &mut problems);
    for (i, deploy) in experiment.deploy.iter().enumerate() {
        name(&format!("deploy[{i}].name"), &deploy.name, &mut problems);
        secrets(&format!("deploy[{i}].env"), &deploy.env, &mut problems);
        if !deploy.template {
            deployment(i, deploy, experiment, engines, &mut problems);
        }
    }
    unique("deploy", experiment.deploy.iter().map(|d| &d.name), &mut problems);
    telemetry(experiment.telemetry.as_ref(), &mut problems);
    super::pages::check(experiment, &mut problems);
    prices(experiment, &mut problems);
    problems.extend(experiment.limit.iter().flat_map(|l| l.limit().check()));
    asks::check(experiment, &mut problems);
    if problems.is_empty() {
        // Points need sound references; only then can their own problems be told.
        if let Err(error) = crate::plan::resolve(experiment, engines) {
            problems.extend(error.0);
        }
    }
    problems
}

fn header(experiment: &Experiment, problems: &mut Vec<Problem>) {
    name("name", &experiment.name, problems);
    if experiment.model.id.trim().is_empty() {
        problems.push(Problem::new("model.id", "the model has no id", ""));
    }
    secrets("env", &experiment.env, problems);
    for (host_name, host) in &experiment.host {
        name(&format!("host.{host_name}"), host_name, problems);
        secrets(&format!("host.{host_name}.env"), &host.env, problems);
        if host.count == Some(0) {
            problems.push(Problem::new(
                format!("host.{host_name}.count"),
                "count must be at least 1",
                "",
            ));
        }
        if host.gpus > 1_024 {
            let path = format!("host.{host_name}.gpus");
            problems.push(Problem::new(
                path,
                format!("{} GPUs in one machine", host.gpus),
                "at most 1024",
            ));
        }
        price(&format!("host.{host_name}.price_per_hour"), host.price_per_hour, problems);
    }
    if experiment.deployments().next().is_none() {
        problems.push(Problem::new("deploy", "there is no deployment to run", "add a [[deploy]]"));
    }
    if experiment.load.is_empty() {
        problems.push(Problem::new("load", "there is no load", "add a [[load]]"));
    }
}

/// Oftener than this, reading would be a load of its own; more seldom, no point would be covered.
const INTERVALS: std::ops::RangeInclusive<Nanos> = Nanos::from_millis(100)..=Nanos::from_secs(60);

fn telemetry(spec: Option<&TelemetrySpec>, problems: &mut Vec<Problem>) {
    let Some(spec) = spec else { return };
    if spec.interval.is_some_and(|Dur(interval)| !INTERVALS.contains(&interval)) {
        let why = "machines are read every 100 ms to every minute".to_owned();
        problems.push(Problem::new("telemetry.interval", why, "leave it out for \"1s\""));
    }
    if spec.seed4_util_floor.is_some_and(|floor| !(0.0..100.0).contains(&floor)) {
        let why = "a utilisation is between 0 and 100 percent".to_owned();
        problems.push(Problem::new("telemetry.seed4_util_floor", why, "seed 4 has 5.0"));
    }
    if spec.agent.as_ref().is_some_and(|path| path.trim().is_empty()) {
        let why = "the path of a program is empty".to_owned();
        problems.push(Problem::new("telemetry.agent", why, "leave it out for this scalebeam"));
    }
}

fn price(path: &str, price: Option<f64>, problems: &mut Vec<Problem>) {
    if let Some(price) = price {
        crate::cost::amount(path.to_owned(), price, problems);
    }
}

fn prices(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let Some(prices) = &experiment.prices else { return };
    problems.extend(prices.check("prices."));
    let is_a_machine = |name: &&String| super::place::host_names(&experiment.host).contains(name);
    for name in prices.host.keys() {
        if experiment.host.contains_key(name) || is_a_machine(&name) {
            continue;
        }
        let known = experiment.host.keys().map(String::as_str);
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("add [host.{name}], or price its GPUs below [prices.gpu]"),
        };
        let path = format!("prices.host.{name}");
        problems.push(Problem::new(path, format!("there is no host '{name}'"), hint));
    }
}

/// A name becomes part of paths and labels.
fn name(path: &str, name: &str, problems: &mut Vec<Problem>) {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ok = !name.is_empty()
        && name.len() <= 100
        && name.chars().all(fine)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !ok {
        problems.push(Problem::new(
            path,
            format!("'{name}' cannot be a name"),
            "use letters, digits, '-', '_' and '.', at most 100, a letter or digit first",
        ));
    }
}

fn unique<'a>(table: &str, names: impl Iterator<Item = &'a String>, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let path = format!("{table}[{i}].name");
            problems.push(Problem::new(path, format!("the name '{name}' is used twice"), ""));
        }
    }
}

/// Secrets are named, never written: a file ends up in every run directory.
fn secrets(
    path: &str,
    env: &std::collections::BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    const MARKS: [&str; 4] = ["TOKEN", "SECRET", "PASSWORD", "API_KEY"];
    for (key, value) in env {
        let upper = key.to_ascii_uppercase();
        // TOKENIZERS_PARALLELISM and the like are no secrets.
        let looks_secret =
            MARKS.iter().any(|m| upper.ends_with(m) || upper.contains(&format!("{m}_")));
        if looks_secret && !value.is_empty() && value.parse::<f64>().is_err() {
            problems.push(Problem::new(
                format!("{path}.{key}"),
                format!("'{key}' looks like a secret; secrets are named in a file, never written"),
                "leave it out and export it: engines inherit HF_TOKEN and the like by name; \
                 for requests use api_key_env = \"NAME\"",
            ));
        }
    }
}

/// A reference to a named table.
fn reference<'a>(
    path: String,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    problems: &mut Vec<Problem>,
) {
    if known.clone().any(|k| k == name) {
        return;
    }
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    };
    problems.push(Problem::new(path, format!("no {what} '{name}'"), hint));
}

fn deployment(
    index: usize,
    deploy: &Deploy,
    experiment: &Experiment,
    engines: Engines<'_>,
    problems: &mut Vec<Problem>,
) {
    let path = |key: &str| format!("deploy[{index}].{key}");
    price(&path("price_per_hour"), deploy.price_per_hour, problems);
    let (Some(platform), Some(kind)) = (deploy.platform, deploy.engine) else {
        for (key, absent) in
            [("platform", deploy.platform.is_none()), ("engine", deploy.engine.is_none())]
        {
            if absent {
                let hint = format!("add {key} = \"..\", or extends a deployment that has it");
                problems.push(Problem::new(
                    path("name"),
                    format!("'{}' has no {key}", deploy.name),
                    hint,
                ));
            }
        }
        return;
    };
    endpoint(index, deploy, platform, kind, problems);
    ready::check(index, deploy, platform, problems);
    infra(index, deploy, experiment, problems);
    let Some(engine) = find(engines, kind) else {
        let message = format!("no engine '{}' in this version", kind.name());
        problems.push(Problem::new(path("engine"), message, ""));
        return;
    };
    owned_flags(&path("args"), deploy.args.as_deref(), engine, problems);
    for (p, pool) in deploy.pool.iter().enumerate() {
        let args = format!("deploy[{index}].pool[{p}].args");
        owned_flags(&args, pool.args.as_deref(), engine, problems);
        secrets(&format!("deploy[{index}].pool[{p}].env"), &pool.env, problems);
    }
    problems.extend(check_params(index, &deploy.params, engine, platform));
    match shapes(index, deploy, &experiment.host, engine, platform) {
        Ok(shapes) => problems.extend(dp_balance::check(index, deploy, kind, platform, &shapes)),
        Err(more) => problems.extend(more),
    }
    lengths(index, deploy, experiment, engine, problems);
}

fn infra(index: usize, deploy: &Deploy, experiment: &Experiment, problems: &mut Vec<Problem>) {
    if let Some(infra) = &deploy.infra {
        let names = super::place::host_names(&experiment.host);
        let known = names.iter().map(String::as_str);
        reference(format!("deploy[{index}].infra"), "host", &infra.host, known, problems);
    }
}

fn endpoint(
    index: usize,
    deploy: &Deploy,
    platform: Platform,
    engine: EngineKind,
    problems: &mut Vec<Problem>,
) {
    let path = |key: &str| format!("deploy[{index}].{key}");
    let external = platform == Platform::External;
    match &deploy.endpoint {
        None if external => problems.push(Problem::new(
            path("name"),
            format!("'{}' is external and has no endpoint", deploy.name),
            "add endpoint = \"http://host:8000\"",
        )),
        Some(_) if !external => problems.push(Problem::new(
            path("endpoint"),
            format!("an endpoint has no meaning on platform {}", platform.name()),
            "use platform = \"external\" to attach to a server that is already there",
        )),
        _ => {}
    }
    if engine == EngineKind::Openai && !external {
        problems.push(Problem::new(
            path("engine"),
            format!("engine 'openai' only attaches; it cannot be started on {}", platform.name()),
            "use platform = \"external\" with an endpoint, or name the engine to start",
        ));
    }
    for url in deploy.endpoint.iter().flat_map(|e| &e.0) {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.map(|r| r.split('/').next().unwrap_or_default());
        if host.is_none_or(str::is_empty) || url.contains(char::is_whitespace) {
            let hint = "write for example \"http://localhost:8000\"";
            problems.push(Problem::new(
                path("endpoint"),
                format!("'{url}' is not an http(s) URL"),
                hint,
            ));
        } else if url.contains(['?', '#']) {
            let hint = "give the base; paths as /v1/models are added to it";
            problems.push(Problem::new(
                path("endpoint"),
                format!("'{url}' has a query or a fragment"),
                hint,
            ));
        } else if host.is_some_and(|h| !has_sound_port(h)) {
            let message = format!("'{url}' has no port between 1 and 65535");
            problems.push(Problem::new(path("endpoint"), message, ""));
        } else if host.is_some_and(|h| h.contains('@')) {
            let hint = "use api_key_env or headers_env with the name of an environment variable";
            problems.push(Problem::new(
                path("endpoint"),
                "a URL must not hold a user or password",
                hint,
            ));
        }
    }
}

/// An argv is read by everybody on the machine, and stands in every plan.
fn secret_flag(path: &str, i: usize, flag: &str, problems: &mut Vec<Problem>) {
    let lower = flag.trim_start_matches('-').replace('_', "-").to_ascii_lowercase();
    let is_secret = ["api-key", "api-keys", "hf-token", "token", "password", "secret"]
        .contains(&lower.as_str());
    if is_secret {
        problems.push(Problem::new(
            format!("{path}[{i}]"),
            format!("'{flag}' puts a secret on a command line; secrets are named, never written"),
            "export the variable that the engine reads (vLLM: VLLM_API_KEY) and give api_key_env = \"NAME\"",
        ));
    }
}

/// Whether `host:port` has no port, or one that exists. `[::1]` has colons and no port.
fn has_sound_port(authority: &str) -> bool {
    let after = authority.rsplit(']').next().unwrap_or(authority);
    after.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn owned_flags(
    path: &str,
    args: Option<&[String]>,
    engine: &dyn Engine,
    problems: &mut Vec<Problem>,
) {
    for (i, arg) in args.unwrap_or_default().iter().enumerate() {
        let Some(flag) = flag_name(arg) else { continue };
        secret_flag(path, i, flag, problems);
        let canonical = |f: &str| f.replace('_', "-");
        let owned = engine.owned_flags().iter().find(|(f, _)| canonical(f) == canonical(flag));
        if let Some((_, key)) = owned {
            problems.push(Problem::new(
                format!("{path}[{i}]"),
                format!("'{flag}' follows from the shape and must not be given in args"),
                format!("use the key '{key}' of [[deploy]] or [[deploy.pool]]"),
            ));
        }
    }
}

/// Prompt and answer must fit the context (doctor check D05).
fn lengths(
    index: usize,
    deploy: &Deploy,
    experiment: &Experiment,
    engine: &dyn Engine,
    problems: &mut Vec<Problem>,
) {
    let Some(max_len) = experiment.model.max_len else { return };
    let flags = engine.context_flags();
    let mut given = deploy.args.iter().flatten().filter_map(|a| flag_name(a));
    if given.any(|flag| flags.contains(&flag)) {
        return;
    }
    for (w, workload) in experiment.workload.iter().enumerate() {
        let Some(total) = workloads::longest(workload) else { continue };
        let path = format!("workload[{w}].isl");
        if total > max_len && !problems.iter().any(|p| p.path == path) {
            problems.push(Problem::new(
                path,
                format!(
                    "prefix + isl + osl = {total} tokens do not fit max_len = {max_len} of [model]{}",
                    if workload.isl_dist.is_some() || workload.osl_dist.is_some() {
                        " (the longest that can be drawn)"
                    } else {
                        ""
                    }
                ),
                format!(
                    "shorten it, or raise max_len (deployment '{}', deploy[{index}])",
                    deploy.name
                ),
            ));
        }
    }
}
