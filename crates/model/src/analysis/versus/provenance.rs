//! What differs between two deployments: what was asked of them, which must be the same, and what they are, which is
//! what a comparison is about. By the plans, and by what really ran, where that was kept.

use super::{Contender, Difference, NotKnown};
use crate::analysis::compare::Side;
use crate::fingerprint::Fact;
use crate::metrics;
use crate::plan::{DeploymentPlan, EnvValue, ProcessPlan};
use crate::ran::{Ran, RanHost};
use crate::request::{Outcome, TokenSource};
use crate::stats::percentile::split;
use std::collections::{BTreeMap, BTreeSet};

/// Mean lengths that differ by more than this, relative to the first, are not of one workload.
const LIKE_LENGTHS: f64 = 0.05;

/// Shares of prompts from a prefix cache that differ by more than this are not of one load.
const LIKE_HIT_RATES: f64 = 0.05;

fn difference(what: &str, a: impl Into<String>, b: impl Into<String>) -> Option<Difference> {
    let (a, b) = (a.into(), b.into());
    (a != b).then(|| Difference { what: what.to_owned(), a, b })
}

/// What must be the same of two deployments, and is not.
pub(in crate::analysis) fn unlike(a: &Contender<'_>, b: &Contender<'_>) -> Vec<Difference> {
    let model = |c: &Contender<'_>| c.deployed().map_or_else(String::new, |d| d.model.clone());
    let (m, n) = (&a.plan.model, &b.plan.model);
    let all = [
        difference("model", model(a), model(b)),
        difference("revision of the model", text(&m.revision), text(&n.revision)),
        difference("tokenizer", text(&m.tokenizer), text(&n.tokenizer)),
    ];
    all.into_iter().flatten().collect()
}

/// What must be the same of two points, and is not.
pub(super) fn unlike_points(a: &Side<'_>, b: &Side<'_>) -> Vec<Difference> {
    let modes = [a, b].map(|s| s.point.mode.name());
    let mode = difference(&under(a, "load mode"), modes[0], modes[1]);
    mode.into_iter().chain(unlike_requests(a, b)).collect()
}

/// The currency, where both have a price and one of `metrics` is of it.
pub(super) fn unlike_currencies(
    a: &Contender<'_>,
    b: &Contender<'_>,
    metrics: &[&str],
) -> Option<Difference> {
    let is_cost = |name: &&str| {
        metrics::find(split(name).0).is_some_and(|metric| metric.unit.contains("currency"))
    };
    let has_price = |c: &Contender<'_>| c.deployed().is_some_and(|d| d.price_per_hour.is_some());
    let currency = |c: &Contender<'_>| {
        text(&c.plan.prices.as_ref().and_then(|prices| prices.currency.clone()))
    };
    let is_asked = metrics.iter().any(is_cost) && has_price(a) && has_price(b);
    is_asked.then(|| difference("currency", currency(a), currency(b))).flatten()
}

fn under(side: &Side<'_>, what: &str) -> String {
    format!("{what} under {}/{}", side.result.load, side.result.level)
}

/// What must be the same of the requests of two points, and is not.
pub(in crate::analysis) fn unlike_requests(a: &Side<'_>, b: &Side<'_>) -> Vec<Difference> {
    let at = |what: &str| under(a, what);
    // Where nothing was answered, or no record can be read, nobody counted: that is said of the point itself.
    let counted = token_sources(a).zip(token_sources(b));
    let mut out = vec![counted.and_then(|(x, y)| difference(&at("who counts tokens"), x, y))];
    for (what, metric) in
        [("input tokens", "prompt_tokens.mean"), ("output tokens", "output_tokens.mean")]
    {
        if let Some((x, y)) = a.result.value(metric).zip(b.result.value(metric))
            && (x - y).abs() > LIKE_LENGTHS * x.abs()
        {
            out.push(difference(&at(what), format!("{x:.1} on average"), format!("{y:.1}")));
        }
    }
    for metric in ["prefix_hit_ratio", "engine_prefix_hit_ratio"] {
        if let Some((x, y)) = a.result.value(metric).zip(b.result.value(metric))
            && (x - y).abs() > LIKE_HIT_RATES
        {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            out.push(difference(&at(metric), percent(x), percent(y)));
        }
    }
    out.into_iter().flatten().collect()
}

/// A request that broke off before the server's count came has only what was counted here.
/// Absent where none was completed.
fn token_sources(side: &Side<'_>) -> Option<String> {
    let records = side.trials.iter().flat_map(|t| &t.records);
    let mut completed = records.filter(|r| r.outcome == Outcome::Completed).peekable();
    completed.peek()?;
    let sources: BTreeSet<TokenSource> = completed.filter_map(|r| r.token_source).collect();
    Some(joined(sources.into_iter().map(TokenSource::name)))
}

/// What the two are, as far as it differs.
pub(super) fn differences(a: &Contender<'_>, b: &Contender<'_>) -> Vec<Difference> {
    let (Some(x), Some(y)) = (a.deployed(), b.deployed()) else { return Vec::new() };
    let shapes = difference("shape", shape(x), shape(y));
    let engines = difference("engine", x.engine.name(), y.engine.name());
    let platforms = difference("platform", x.platform.name(), y.platform.name());
    // Flags follow from these; to name each of them would hide that one thing was changed.
    let is_one_kind = shapes.is_none() && engines.is_none() && platforms.is_none();
    let kinds = |d: &DeploymentPlan| joined(d.gpu_kinds.iter().map(String::as_str));
    let weights = |c: &Contender<'_>| text(&c.plan.model.dtype);
    let mut out = vec![platforms, engines, shapes];
    out.push(difference("weight type", weights(a), weights(b)));
    out.push(difference("kind of GPU in the file", kinds(x), kinds(y)));
    out.push(difference("image", text(&x.image), text(&y.image)));
    if is_one_kind {
        out.extend(command_lines(x, y));
    }
    out.push(difference("scalebeam", a.tool, b.tool));
    [out.into_iter().flatten().collect(), ran_differences(a, b)].concat()
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "not given".to_owned())
}

/// `2 x aggregated tp4, 8 GPUs`
fn shape(d: &DeploymentPlan) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for i in &d.instances {
        let mut words = format!("{} tp{}", i.role.name(), i.tp);
        for (name, degree) in [("pp", i.pp), ("dp", i.dp), ("ep", i.ep.unwrap_or(1))] {
            if degree > 1 {
                words.push_str(&format!(" {name}{degree}"));
            }
        }
        if i.place.len() > 1 {
            words.push_str(&format!(" over {} hosts", i.place.len()));
        }
        *counts.entry(words).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(what, n)| format!("{n} x {what}")).collect();
    let gpus = if d.gpus == 0 { "GPUs not known".to_owned() } else { format!("{} GPUs", d.gpus) };
    [parts, vec![gpus]].concat().join(", ")
}

/// Arguments and variables that only one of them has, ports, devices and its own name apart.
fn command_lines(x: &DeploymentPlan, y: &DeploymentPlan) -> Vec<Option<Difference>> {
    let (of_x, of_y) = (commands(x), commands(y));
    let only = |here: &BTreeSet<String>, there: &BTreeSet<String>| {
        let words: Vec<&str> = here.difference(there).map(String::as_str).collect();
        if words.is_empty() { "nothing more".to_owned() } else { words.join(" ") }
    };
    vec![difference("command line", only(&of_x, &of_y), only(&of_y, &of_x))]
}

fn commands(d: &DeploymentPlan) -> BTreeSet<String> {
    let ports: Vec<String> =
        d.processes.iter().flat_map(|p| p.ports.iter().map(|p| p.port.to_string())).collect();
    let neutral = |word: &str| {
        let word = ports.iter().fold(word.to_owned(), |w, port| without(&w, port, "PORT"));
        without(&word, &d.name, "NAME")
    };
    let of_process = |p: &ProcessPlan| -> Vec<String> {
        let is_device = |name: &str| name.ends_with("_VISIBLE_DEVICES");
        let variables = p.env.iter().filter(|(name, _)| !is_device(name));
        let variables = variables.map(|(name, value)| match value {
            EnvValue::Set(value) => format!("{name}={}", neutral(value)),
            EnvValue::Inherit { .. } => format!("{name}=(inherited)"),
        });
        with_values(&p.args)
            .iter()
            .map(|w| neutral(w))
            .chain([p.program.clone()])
            .chain(variables)
            .collect()
    };
    d.processes.iter().flat_map(of_process).collect()
}

/// `text` with `by` wherever `word` stands alone: a name may be a part of any flag.
fn without(text: &str, word: &str, by: &str) -> String {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let is_alone = !before.ends_with(is_of_word) && !after.starts_with(is_of_word);
        out.push_str(before);
        out.push_str(if is_alone { by } else { word });
        rest = after;
    }
    out + rest
}

/// A flag and its value are one word, so that a value that changed is told with its flag.
fn with_values(args: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut takes_value = false;
    for arg in args {
        let is_flag = arg.starts_with("--");
        match out.last_mut().filter(|_| takes_value && !is_flag) {
            Some(flag) => {
                flag.push(' ');
                flag.push_str(arg);
                takes_value = false;
            }
            None => {
                out.push(arg.clone());
                takes_value = is_flag && !arg.contains('=');
            }
        }
    }
    out
}

/// What really ran, as far as it is known of both and differs. A package of the engine's own version is the engine,
/// which is told by itself.
fn ran_differences(a: &Contender<'_>, b: &Contender<'_>) -> Vec<Difference> {
    let mut engines = [BTreeSet::new(), BTreeSet::new()];
    let mut out = Vec::new();
    for fact in FACTS.iter().filter(|f| f.is_asked(a) && f.is_asked(b)) {
        let (Ok(of_a), Ok(of_b)) = (told(fact, a), told(fact, b)) else { continue };
        let mut only = [&of_a - &of_b, &of_b - &of_a];
        match fact.of {
            Of::Deployment(_) => engines = only.clone(),
            Of::Packages => {
                for (words, versions) in only.iter_mut().zip(&engines) {
                    words.retain(|w| !versions.iter().any(|v| w.ends_with(&format!(" {v}"))));
                }
            }
            Of::Hosts(_) => {}
        }
        let words = only.map(|words| joined(words.iter().map(String::as_str)));
        out.extend(difference(fact.what, &words[0], &words[1]));
    }
    out
}

/// What is not known of a run of a side, so that nobody can say that it is the same.
pub(super) fn not_known(a: &[Contender<'_>], b: &[Contender<'_>]) -> Vec<NotKnown> {
    let all = || a.iter().chain(b);
    let facts = FACTS.iter().filter(|f| all().all(|run| f.is_asked(run)));
    let of_side =
        |fact: &AFact, runs: &[Contender<'_>]| runs.iter().find_map(|r| told(fact, r).err());
    let why = |fact: &AFact| -> Option<String> {
        match (of_side(fact, a), of_side(fact, b)) {
            (None, None) => None,
            (Some(x), Some(y)) if x == y => Some(format!("of both: {x}")),
            (Some(x), Some(y)) => Some(format!("of A: {x}; of B: {y}")),
            (Some(x), None) => Some(format!("of A: {x}")),
            (None, Some(y)) => Some(format!("of B: {y}")),
        }
    };
    facts.filter_map(|f| Some(NotKnown { what: f.what.to_owned(), why: why(f)? })).collect()
}

/// A fact of what really ran.
struct AFact {
    what: &'static str,
    of: Of,
    /// Emulated GPUs have no hardware.
    is_of_gpus: bool,
}

enum Of {
    Deployment(fn(&Ran) -> &Fact<String>),
    Hosts(fn(&RanHost) -> &Fact<String>),
    Packages,
}

const FACTS: [AFact; 6] = [
    AFact { what: "engine version", of: Of::Deployment(|r| &r.engine), is_of_gpus: false },
    AFact { what: "packages", of: Of::Packages, is_of_gpus: false },
    AFact { what: "GPUs", of: Of::Hosts(|h| &h.gpus), is_of_gpus: true },
    AFact { what: "GPU driver", of: Of::Hosts(|h| &h.gpu_driver), is_of_gpus: true },
    AFact { what: "CUDA", of: Of::Hosts(|h| &h.cuda), is_of_gpus: true },
    AFact { what: "kernel", of: Of::Hosts(|h| &h.kernel), is_of_gpus: false },
];

impl AFact {
    fn is_asked(&self, of: &Contender<'_>) -> bool {
        !self.is_of_gpus || of.deployed().is_none_or(|d| !d.engine.emulates_gpus())
    }
}

/// A fact of a side, over all its hosts and all forms that it had; else why it is not known.
fn told(fact: &AFact, of: &Contender<'_>) -> Result<BTreeSet<String>, String> {
    if of.ran().next().is_none() {
        return Err("what ran was not kept".to_owned());
    }
    let mut words = BTreeSet::new();
    for ran in of.ran() {
        if ran.hosts.is_empty() && !matches!(fact.of, Of::Deployment(_)) {
            return Err("no host was looked at".to_owned());
        }
        match fact.of {
            Of::Deployment(get) => words.extend([known(get(ran))?]),
            Of::Hosts(get) => {
                for host in &ran.hosts {
                    words.insert(known(get(host))?);
                }
            }
            Of::Packages => {
                for packages in ran.hosts.iter().flat_map(|host| host.packages.values()) {
                    words.extend(known(packages)?.iter().map(|(name, v)| format!("{name} {v}")));
                }
            }
        }
    }
    Ok(words)
}

fn known<T: Clone>(fact: &Fact<T>) -> Result<T, String> {
    match fact {
        Fact::Known(value) => Ok(value.clone()),
        Fact::Absent { absent } => Err(absent.clone()),
    }
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    match words.collect::<Vec<_>>() {
        words if words.is_empty() => "none".to_owned(),
        words => words.join(", "),
    }
}
