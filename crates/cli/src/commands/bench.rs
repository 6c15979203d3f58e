//! `bench`: an experiment written from the command line, against an endpoint that is already there.

use super::span;
use crate::args::{ApiArg, ArrivalArg, BenchArgs, CacheArg, HistoryArg, RangeRatioArg};
use crate::campaign::outcome::Shown;
use crate::campaign::{Doctor, Goal, Place, reach};
use crate::exit::{Failure, Status};
use crate::{experiment, settings};
use scalebeam_model::api::HttpVersion;
use scalebeam_model::workload::{Api, CachePolicy, FileFormat, History};
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::{Table, Value};

/// Name of the one workload.
const WORKLOAD: &str = "synthetic";
/// The same, where it is read from a file.
const DATASET: &str = "dataset";

/// Answer length where nothing says one, in tokens.
const USUAL_OSL: u32 = 128;

/// What stands for the file in messages.
const SHOWN: &str = "the command line";

pub(super) fn run(args: &BenchArgs) -> Result<Status, Failure> {
    let shown = Shown::new(args.json, &args.define)?;
    let headers = headers(&args.header)?;
    let base = std::env::current_dir().unwrap_or_default();
    // A wrong flag is told before anybody is asked for a model.
    let asked = args.model.as_deref().unwrap_or("model");
    experiment::from_text(text(args, asked, &headers)?, SHOWN, base.clone())?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => {
            let key = args.api_key_env.as_deref();
            let ca_file = args.ca_file.as_deref();
            reach::first_model(&args.url[0], api_of(args.api), key, &headers, ca_file)?
        }
    };
    let text = text(args, &model, &headers)?;
    let mut loaded = experiment::from_text(text, SHOWN, base)?;
    super::run::ask_for_floor(&mut loaded, args.selftest);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(settings::RUNS));
    super::run::weigh(&loaded, Goal::New { out, place: Place::Here }, Doctor::Asked, &shown)
}

const fn api_of(arg: ApiArg) -> Api {
    match arg {
        ApiArg::Chat => Api::Chat,
        ApiArg::Completions => Api::Completions,
        ApiArg::Responses => Api::Responses,
        ApiArg::Embeddings => Api::Embeddings,
        ApiArg::Messages => Api::Messages,
        ApiArg::Tgi => Api::Tgi,
        ApiArg::Sglang => Api::Sglang,
        ApiArg::OllamaChat => Api::OllamaChat,
        ApiArg::OllamaGenerate => Api::OllamaGenerate,
    }
}

/// `NAME=ENV` by name: a value on the command line would be in the shell's history.
fn headers(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let read = |text: &String| {
        let is_name = |n: &str| {
            !n.is_empty() && n.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let (name, env) = text.split_once('=').filter(|(n, e)| is_name(n) && !e.is_empty())?;
        Some((name.to_owned(), env.to_owned()))
    };
    let wrong = |text: &String| {
        Failure::usage(format!("--header: '{text}' is not of the form NAME=ENV"))
            .hint("give the name of an environment variable that holds the header's value")
    };
    given.iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect()
}

fn table(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Table {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn one(table: Table) -> Value {
    Value::Array(vec![Value::Table(table)])
}

fn integer(n: impl Into<i64>) -> Value {
    Value::Integer(n.into())
}

/// The experiment file that says the same.
fn text(
    args: &BenchArgs,
    model: &str,
    headers: &BTreeMap<String, String>,
) -> Result<String, Failure> {
    let mut of_model = table([("id", Value::from(model))]);
    if let Some(tokenizer) = &args.tokenizer {
        of_model.insert("tokenizer".into(), tokenizer.display().to_string().into());
    }
    let mut deploy = table([
        ("name", "endpoint".into()),
        ("platform", "external".into()),
        ("engine", "openai".into()),
        ("endpoint", Value::from(args.url.clone())),
    ]);
    if let Some(gpus) = args.gpus {
        deploy.insert("tp".into(), integer(gpus));
    }
    if let Some(path) = &args.cache_reset {
        let params = table([("cache_reset", Value::from(path.clone()))]);
        deploy.insert("params".into(), Value::Table(params));
    }
    if let Some(env) = &args.api_key_env {
        deploy.insert("api_key_env".into(), env.clone().into());
    }
    if !headers.is_empty() {
        let of = headers.iter().map(|(k, v)| (k.clone(), Value::from(v.clone())));
        deploy.insert("headers_env".into(), Value::Table(of.collect()));
    }
    if let Some(file) = &args.ca_file {
        deploy.insert("ca_file".into(), file.display().to_string().into());
    }
    if args.http2 {
        deploy.insert("http".into(), HttpVersion::Http2.name().into());
    }
    let mut file = table([
        ("schema", integer(1)),
        ("name", "bench".into()),
        ("model", Value::Table(of_model)),
        ("deploy", one(deploy)),
        ("workload", one(workload(args)?)),
        ("load", one(load(args)?)),
    ]);
    if !args.source.is_empty() {
        let of = args.source.iter().map(|ip| Value::from(ip.to_string())).collect();
        file.insert("client".into(), Value::Table(table([("source", Value::Array(of))])));
    }
    toml::to_string(&file)
        .map_err(|e| Failure::internal(format!("cannot write the experiment: {e}")))
}

fn workload(args: &BenchArgs) -> Result<Table, Failure> {
    let seed = i64::try_from(args.seed)
        .map_err(|_| Failure::usage(format!("--seed: {} is above {}", args.seed, i64::MAX)))?;
    let api = api_of(args.api);
    let mut out = match &args.dataset {
        Some(dataset) => from_file(dataset, args.osl)?,
        None => synthetic(args),
    };
    out.insert("name".into(), workload_name(args).into());
    out.insert("api".into(), api.name().into());
    out.insert("seed".into(), integer(seed));
    if api.generates() {
        out.insert("force_len".into(), (!args.no_force_len).into());
    } else {
        out.remove("osl");
    }
    if let Some(turns) = args.turns {
        out.insert("turns".into(), integer(turns));
        if args.dataset.is_none() {
            out.insert("turn_isl".into(), integer(args.turn_isl.unwrap_or(args.isl)));
        }
        let history = match args.history {
            HistoryArg::Real => History::Real,
            HistoryArg::Planned => History::Planned,
        };
        out.insert("history".into(), history.name().into());
    }
    let cache = match args.cache {
        _ if args.cache_reset.is_some() => CachePolicy::Reset,
        CacheArg::Salt => CachePolicy::Salt,
        CacheArg::Keep => CachePolicy::Keep,
    };
    if !cache.is_default() {
        out.insert("cache".into(), cache.name().into());
    }
    if let Some(t) = args.temperature {
        out.insert("temperature".into(), t.into());
    }
    Ok(out)
}

const fn workload_name(args: &BenchArgs) -> &'static str {
    if args.dataset.is_some() { DATASET } else { WORKLOAD }
}

fn synthetic(args: &BenchArgs) -> Table {
    let mut out = table([
        ("kind", "synthetic".into()),
        ("isl", integer(args.isl)),
        ("osl", integer(args.osl.unwrap_or(USUAL_OSL))),
    ]);
    if let Some(ratio) = args.range_ratio {
        let meaning = match args.range_ratio_as {
            RangeRatioArg::Vllm => "vllm",
            RangeRatioArg::Sglang => "sglang",
        };
        for key in ["isl_dist", "osl_dist"] {
            let spread = table([
                ("kind", "range-ratio".into()),
                ("ratio", ratio.into()),
                ("as", meaning.into()),
            ]);
            out.insert(key.into(), Value::Table(spread));
        }
    }
    for (key, value) in [("prefix", args.prefix), ("prefix_groups", args.prefix_groups)] {
        if let Some(n) = value {
            out.insert(key.into(), integer(n));
        }
    }
    out
}

/// `FORMAT:FILE`. Only the first colon parts the two: a path may hold others.
fn from_file(dataset: &str, osl: Option<u32>) -> Result<Table, Failure> {
    let known = FileFormat::ALL.map(FileFormat::name).join(", ");
    let parts = dataset.split_once(':').filter(|(_, file)| !file.is_empty());
    let format = parts.and_then(|(name, _)| FileFormat::ALL.into_iter().find(|f| f.name() == name));
    let (Some((_, file)), Some(format)) = (parts, format) else {
        return Err(Failure::usage(format!(
            "--dataset: '{dataset}' is not of the form FORMAT:FILE"
        ))
        .hint(format!("formats are {known}; write for example sharegpt:conversations.json")));
    };
    let mut out =
        table([("kind", "file".into()), ("file", file.into()), ("format", format.name().into())]);
    let limit = match format {
        FileFormat::Jsonl => Some(osl.unwrap_or(USUAL_OSL)),
        // The check refuses it for a trace, whose requests have lengths of their own.
        _ => osl,
    };
    if let Some(n) = limit {
        out.insert("max_tokens".into(), integer(n));
    }
    Ok(out)
}

fn load(args: &BenchArgs) -> Result<Table, Failure> {
    span("--timeout", &args.timeout)?;
    let count = |flag: &str, n: u64| {
        i64::try_from(n)
            .map(Value::Integer)
            .map_err(|_| Failure::usage(format!("{flag}: {n} is too many")))
    };
    let mut out = table([
        ("name", "load".into()),
        ("workload", workload_name(args).into()),
        ("warmup", count("--warmup", args.warmup)?),
        ("timeout", args.timeout.clone().into()),
    ]);
    let searched = args.search.as_ref().map(|text| search(text, args)).transpose()?;
    if searched.is_none() {
        out.insert("repeats".into(), integer(args.repeats));
    }
    if !args.slo.is_empty() {
        out.insert("slo".into(), Value::from(args.slo.clone()));
    }
    let is_rate_searched = matches!(searched, Some((Searched::Rate, _)));
    let has_rate = !args.request_rate.is_empty() || args.rate_profile.is_some() || is_rate_searched;
    let is_replay = matches!(args.arrival, Some(ArrivalArg::Trace));
    if args.arrival.is_some() && !has_rate && !is_replay {
        return Err(Failure::usage("--arrival needs a rate")
            .hint("add --request-rate 5, or --rate-profile ramp:1/s,50/s,60s"));
    }
    let is_closed = !has_rate && !is_replay;
    if is_closed {
        let levels = if args.concurrency.is_empty() { vec![8] } else { args.concurrency.clone() };
        out.insert("mode".into(), "closed".into());
        if searched.is_none() {
            let levels = levels.into_iter().map(integer).collect();
            out.insert("concurrency".into(), Value::Array(levels));
        }
    } else {
        out.insert("mode".into(), "open".into());
        out.extend(arrivals(args)?);
    }
    if let Some(think) = &args.think {
        out.insert("think".into(), thinking(think)?);
    }
    if let Some(duration) = &args.duration {
        span("--duration", duration)?;
        out.insert("duration".into(), duration.clone().into());
    }
    match (args.requests, &args.duration) {
        (Some(n), _) => {
            out.insert("requests".into(), count("--requests", n)?);
        }
        // As many as a p99 needs at least.
        (None, None) if is_closed && searched.is_some() => {
            out.insert("requests".into(), "10x>=300".into());
        }
        (None, None) if searched.is_some() => {
            out.insert("requests".into(), integer(300));
        }
        (None, None) if is_closed => {
            // Turns are counted, and a slot carries a session of them.
            let turns = u64::from(args.turns.unwrap_or(1));
            out.insert("requests".into(), format!("{}x>={}", 10 * turns, 100 * turns).into());
        }
        // Steps have an end of their own.
        (None, None) if args.rate_profile.as_ref().is_some_and(|p| p.starts_with("steps:")) => {}
        // So has a trace.
        (None, None) if is_replay => {}
        (None, None) => {
            out.insert("requests".into(), integer(100));
        }
        (None, Some(_)) => {}
    }
    if args.stop_oversaturated {
        out.insert("stop_oversaturated".into(), true.into());
    }
    if let Some((_, search)) = searched {
        out.insert("search".into(), Value::Table(search));
    }
    Ok(out)
}

/// What a search varies.
#[derive(Debug, Clone, Copy)]
enum Searched {
    Rate,
    Concurrency,
}

/// `rate:1..200` or `concurrency:1..512`; the values are checked where the file is.
fn search(text: &str, args: &BenchArgs) -> Result<(Searched, Table), Failure> {
    let wrong = || {
        Failure::usage(format!("--search: '{text}' is not of the form KIND:FROM..TO"))
            .hint("write rate:1..200 (requests per second) or concurrency:1..512")
    };
    let (kind, range) = text.split_once(':').ok_or_else(wrong)?;
    let (from, to) = range.split_once("..").ok_or_else(wrong)?;
    let (searched, end): (_, fn(&str) -> Option<Value>) = match kind {
        "rate" => {
            (Searched::Rate, |n| n.parse::<f64>().ok().map(|n| Value::from(format!("{n}/s"))))
        }
        "concurrency" => (Searched::Concurrency, |n| n.parse::<u32>().ok().map(integer)),
        _ => return Err(wrong()),
    };
    let end = |text: &str| end(text.trim()).ok_or_else(wrong);
    let mut out = table([("from", end(from)?), ("to", end(to)?)]);
    if let Some(precision) = args.search_precision {
        out.insert("precision".into(), precision.into());
    }
    for (key, given) in [("probes", args.search_probes), ("tries", args.search_tries)] {
        if let Some(n) = given {
            out.insert(key.into(), integer(n));
        }
    }
    Ok((searched, out))
}

/// `2s`, or `exp:2s`, as the file has it.
fn thinking(text: &str) -> Result<Value, Failure> {
    let (mean, is_exponential) = match text.strip_prefix("exp:") {
        Some(mean) => (mean, true),
        None => (text, false),
    };
    span("--think", mean)?;
    let value = Value::from(mean.to_owned());
    Ok(if is_exponential { Value::Table(table([("mean", value)])) } else { value })
}

/// The keys of an open loop: how many arrive, and how irregularly.
fn arrivals(args: &BenchArgs) -> Result<Table, Failure> {
    if matches!(args.arrival, Some(ArrivalArg::Trace)) {
        return replay(args);
    }
    let arrival = match (args.arrival, args.burstiness) {
        (Some(ArrivalArg::Constant), None) => "constant",
        (Some(ArrivalArg::Poisson | ArrivalArg::Trace) | None, None) => "poisson",
        (Some(ArrivalArg::Gamma) | None, Some(_)) => "gamma",
        (Some(ArrivalArg::Gamma), None) => {
            return Err(Failure::usage("--arrival gamma needs --burstiness")
                .hint("1 is Poisson, less is burstier, more is more regular"));
        }
        (Some(_), Some(_)) => {
            return Err(Failure::usage("--burstiness belongs to --arrival gamma")
                .hint("leave one of the two out"));
        }
    };
    let mut out = table([("arrival", arrival.into())]);
    if let Some(burstiness) = args.burstiness {
        out.insert("burstiness".into(), burstiness.into());
    }
    match &args.rate_profile {
        Some(text) => out.insert("profile".into(), Value::Table(rate_profile(text)?)),
        // A search has levels of its own.
        None if args.search.is_some() => None,
        None => {
            let rates = args.request_rate.iter().map(|r| Value::from(format!("{r}/s")));
            out.insert("rate".into(), Value::Array(rates.collect()))
        }
    };
    Ok(out)
}

/// The keys of a loop whose times are those of a trace.
fn replay(args: &BenchArgs) -> Result<Table, Failure> {
    if args.dataset.is_none() {
        return Err(Failure::usage("--arrival trace needs a trace")
            .hint("add --dataset mooncake:FILE, burstgpt:FILE or azure:FILE"));
    }
    let mut out = table([("arrival", "trace".into())]);
    if !args.request_rate.is_empty() {
        let rates = args.request_rate.iter().map(|r| Value::from(format!("{r}/s")));
        out.insert("rate".into(), Value::Array(rates.collect()));
    }
    if let Some(burstiness) = args.burstiness {
        out.insert("burstiness".into(), burstiness.into());
    }
    if let Some(speed) = args.speed {
        out.insert("speed".into(), speed.into());
    }
    Ok(out)
}

/// `ramp:1/s,50/s,60s`, `sine:20/s,10/s,5m` or `steps:5/s@30s,20/s@30s` as the file has it; the values
/// are checked there.
fn rate_profile(text: &str) -> Result<Table, Failure> {
    let wrong = || {
        Failure::usage(format!("--rate-profile: '{text}' is of no form that is known"))
            .hint("write ramp:1/s,50/s,60s or sine:20/s,10/s,5m or steps:5/s@30s,20/s@30s")
    };
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
    let value = |text: &str| Value::from(text.to_owned());
    let keys = match (kind, parts.as_slice()) {
        ("ramp", [from, to, over]) => {
            table([("from", value(from)), ("to", value(to)), ("over", value(over))])
        }
        ("sine", [mean, amplitude, period]) => table([
            ("mean", value(mean)),
            ("amplitude", value(amplitude)),
            ("period", value(period)),
        ]),
        ("steps", steps) => {
            let step = |text: &&str| {
                let (rate, lasts) =
                    text.split_once('@').map_or((*text, None), |(r, s)| (r, Some(s)));
                let mut step = table([("rate", value(rate))]);
                step.extend(lasts.map(|span| ("for".to_owned(), value(span))));
                Value::Table(step)
            };
            table([("steps", Value::Array(steps.iter().map(step).collect()))])
        }
        _ => return Err(wrong()),
    };
    let mut out = table([("kind", kind.into())]);
    out.extend(keys);
    Ok(out)
}
