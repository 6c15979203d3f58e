//! Result files of other tools held against each other.
//!
//! **Invariants.** A file has one value of a metric and not what runs differ by, so a ratio has an interval only where
//! there are several files a side, and is then over files. Nothing is called better or worse. Numbers that do not mean
//! the same carry in what they differ. Files of one side are repeats of one thing.

use super::{ImportedFile, ImportedPoint, SINGLE};
use crate::results::Estimate;
use crate::stats::contrast::between;
use serde::Serialize;
use std::collections::BTreeSet;

/// The version of what is said of two files.
pub const BESIDE_FORMAT: u32 = 1;

/// What is said of ratios without an interval.
pub const NO_SPREAD: &str =
    "a file has one run and not what runs differ by: nobody can say how surely they differ";

/// What is said of ratios with one.
pub const BY_FILES: &str = "intervals are over files, each of which is a run; of many metrics some lie beside 1 by \
                            chance, so that nothing is called better or worse";

/// Two sides, and what is held against each other in them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Beside {
    /// [`BESIDE_FORMAT`].
    pub format: u32,
    /// The baseline.
    pub a: BesideSide,
    /// What is held against it.
    pub b: BesideSide,
    /// What was not asked the same, in words.
    pub unlike: Vec<String>,
    /// Points that both have, in the order of the first.
    pub points: Vec<BesidePoint>,
    /// Points that only one of them has.
    pub alone: Vec<String>,
    /// [`NO_SPREAD`] or [`BY_FILES`].
    pub sure: &'static str,
}

/// One of two sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BesideSide {
    /// Name of its file; of several, the first.
    pub file: String,
    /// The others that are taken together with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// What wrote it.
    pub tool: String,
}

/// A load that both were under.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BesidePoint {
    /// What the first calls it.
    pub label: String,
    /// Metrics that both have.
    pub metrics: Vec<BesideMetric>,
    /// What speaks against either side.
    pub flaws: Vec<String>,
}

/// A metric of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BesideMetric {
    /// Its name, with the statistic: `ttft_sent_ms.p99`.
    pub metric: String,
    /// In the first; of several files, their geometric mean.
    pub a: f64,
    /// In the second, likewise.
    pub b: f64,
    /// The second / the first.
    pub ratio: f64,
    /// With its interval, where there are enough files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Estimate>,
    /// In what either is another metric, where they do not say the same of it.
    pub differs: Vec<String>,
}

/// Why two sides are not held against each other.
#[derive(Debug, thiserror::Error)]
pub enum NotBeside {
    /// They were not asked the same.
    #[error("the two were not asked the same: {0}")]
    Unlike(String),
    /// Files of one side were not.
    #[error("files {} and {} of {side} are no repeats of one thing: {unlike}", .files.0, .files.1)]
    NoRepeats {
        /// Of which side.
        side: &'static str,
        /// Their names.
        files: (String, String),
        /// In what they differ.
        unlike: String,
    },
    /// A file is no repeat of itself, and no other than itself.
    #[error("files {} and {} hold the same numbers: one is a copy of the other, or the table beside it", .0, .1)]
    Copies(String, String),
    /// No load was met by both, or no metric.
    #[error("the two have no load and metric in common")]
    NothingInCommon,
}

/// Metrics in the order in which they are shown, with the statistics that most tools have.
const METRICS: &[(&str, &[&str])] = &[
    ("rps", &[SINGLE]),
    ("output_tps", &[SINGLE]),
    ("total_tps", &[SINGLE]),
    ("output_tps_per_gpu", &[SINGLE]),
    ("ttft_sent_ms", &["mean", "p50", "p95", "p99"]),
    ("ttft_ms", &["mean", "p50", "p95", "p99"]),
    ("tpot_ms", &["mean", "p50", "p95", "p99"]),
    ("itl_ms", &["mean", "p50", "p95", "p99"]),
    ("e2e_sent_ms", &["mean", "p50", "p95", "p99"]),
    ("e2e_ms", &["mean", "p50", "p95", "p99"]),
];

/// `b` against `a`, each one file or several that are repeats of one thing. What was not asked the same is only told
/// where it is forced.
///
/// # Errors
/// When they were asked for different things, files of a side are no repeats, one is a copy of another, or there is
/// nothing in common.
pub fn beside(a: &[ImportedFile], b: &[ImportedFile], force: bool) -> Result<Beside, NotBeside> {
    let (Some(first_a), Some(first_b)) = (a.first(), b.first()) else {
        return Err(NotBeside::NothingInCommon);
    };
    if let Some((one, other)) = copies(&[a, b].concat()) {
        return Err(NotBeside::Copies(one, other));
    }
    let mut unlike = [repeats("A", a, force)?, repeats("B", b, force)?].concat();
    let pairs = pairs(&first_a.points, &first_b.points);
    let of_pairs: BTreeSet<String> = pairs.iter().flat_map(|(a, b)| self::unlike(a, b)).collect();
    unlike.extend(of_pairs);
    if !unlike.is_empty() && !force {
        return Err(NotBeside::Unlike(unlike.join("; ")));
    }
    let both = |(x, y): &(&ImportedPoint, &ImportedPoint)| point(&alike(x, a), &alike(y, b));
    let points: Vec<BesidePoint> = pairs.iter().map(both).collect();
    let points: Vec<BesidePoint> = points.into_iter().filter(|p| !p.metrics.is_empty()).collect();
    if points.is_empty() {
        return Err(NotBeside::NothingInCommon);
    }
    let is_met = |point: &ImportedPoint| {
        pairs.iter().any(|(a, b)| std::ptr::eq(*a, point) || std::ptr::eq(*b, point))
    };
    let alone = |file: &ImportedFile| -> Vec<String> {
        let alone = file.points.iter().filter(|p| !is_met(p));
        alone.map(|p| format!("{} of {}", p.label, file.file)).collect()
    };
    let side = |files: &[ImportedFile], first: &ImportedFile| BesideSide {
        file: first.file.clone(),
        more: files.iter().skip(1).map(|f| f.file.clone()).collect(),
        tool: first.tool.clone(),
    };
    let has_interval = points.iter().flat_map(|p| &p.metrics).any(|m| m.interval.is_some());
    Ok(Beside {
        format: BESIDE_FORMAT,
        a: side(a, first_a),
        b: side(b, first_b),
        unlike,
        points,
        alone: [alone(first_a), alone(first_b)].concat(),
        sure: if has_interval { BY_FILES } else { NO_SPREAD },
    })
}

/// The names of two files with the same numbers. Times of two measurements are never the same to the last digit.
fn copies(files: &[ImportedFile]) -> Option<(String, String)> {
    let numbers = |file: &ImportedFile| file.points.iter().map(|p| p.metrics.len()).sum::<usize>();
    let is_same = |one: &ImportedFile, other: &ImportedFile| {
        numbers(one) > 0 && one.points == other.points && one.other == other.other
    };
    let is_copy = |one: &ImportedFile, other: &ImportedFile| {
        one.tool == other.tool && (is_same(one, other) || is_rounded(one, other))
    };
    let pairs = files
        .iter()
        .enumerate()
        .flat_map(|(n, one)| files[n + 1..].iter().map(move |other| (one, other)));
    let (one, other) = pairs.into_iter().find(|(one, other)| is_copy(one, other))?;
    Some((one.file.clone(), other.file.clone()))
}

/// Whether two files tell of one measurement, one of them in fewer digits: tools write a table beside their JSON. Where
/// they share no latency, rates that agree in more digits than two runs have in common tell it.
fn is_rounded(one: &ImportedFile, other: &ImportedFile) -> bool {
    /// Of a table with two decimals.
    const ROUNDED: f64 = 0.005_001;
    /// Of a rate with three decimals.
    const SAME_RATE: f64 = 1e-5;
    let (mut times, mut rates) = (0_u32, 0_u32);
    let mut agree = |(a, b): (&ImportedPoint, &ImportedPoint)| {
        unlike(a, b).is_empty()
            && a.metrics.iter().all(|(metric, stats)| {
                let Some(there) = b.metrics.get(metric) else { return true };
                let mut shared = stats.iter().filter_map(|(stat, x)| Some((x, there.get(stat)?)));
                shared.all(|(x, y)| {
                    times += u32::from(metric.ends_with("_ms"));
                    rates += u32::from(metric.ends_with("tps") && (x - y).abs() < SAME_RATE * x);
                    (x - y).abs() <= ROUNDED
                })
            })
    };
    let is_alike = one.points.len() == other.points.len()
        && one.points.iter().zip(&other.points).all(&mut agree);
    is_alike && (times > 0 || rates as usize >= one.points.len().max(2))
}

/// What the files of the side called `name` differ in, which is nothing unless it is forced.
fn repeats(
    name: &'static str,
    files: &[ImportedFile],
    force: bool,
) -> Result<Vec<String>, NotBeside> {
    let Some((first, more)) = files.split_first() else { return Ok(Vec::new()) };
    let mut forced = Vec::new();
    for file in more {
        let tools =
            (first.tool != file.tool).then(|| format!("tool: {} and {}", first.tool, file.tool));
        let asked: BTreeSet<String> =
            pairs(&first.points, &file.points).iter().flat_map(|(a, b)| unlike(a, b)).collect();
        let differ: Vec<String> = tools.into_iter().chain(asked).collect();
        if !differ.is_empty() && !force {
            return Err(NotBeside::NoRepeats {
                side: name,
                files: (first.file.clone(), file.file.clone()),
                unlike: differ.join("; "),
            });
        }
        let files = format!("{} and {} of {name}", first.file, file.file);
        forced.extend(differ.into_iter().map(|d| format!("{files}: {d}")));
    }
    Ok(forced)
}

/// `point`, which is of the first of `files`, and what the others have in its place, each with its file.
fn alike<'a>(
    point: &'a ImportedPoint,
    files: &'a [ImportedFile],
) -> Vec<(&'a str, &'a ImportedPoint)> {
    let Some((first, more)) = files.split_first() else { return Vec::new() };
    let of = |file: &'a ImportedFile| {
        let pairs = pairs(&first.points, &file.points);
        let (_, own) = pairs.into_iter().find(|(x, _)| std::ptr::eq(*x, point))?;
        Some((file.file.as_str(), own))
    };
    std::iter::once((first.file.as_str(), point)).chain(more.iter().filter_map(of)).collect()
}

/// Each point of the first with the one of the second that was under the same load, else that is called the same; of
/// two files with a point each, these.
fn pairs<'a>(
    a: &'a [ImportedPoint],
    b: &'a [ImportedPoint],
) -> Vec<(&'a ImportedPoint, &'a ImportedPoint)> {
    if let ([a], [b]) = (a, b) {
        return vec![(a, b)];
    }
    let load = |p: &ImportedPoint| (p.asked.concurrency, p.asked.rate);
    let has_load = |p: &ImportedPoint| load(p) != (None, None);
    let only = |found: Vec<&'a ImportedPoint>| match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let of_load = |p: &ImportedPoint| only(b.iter().filter(|q| load(q) == load(p)).collect());
    let named = |p: &ImportedPoint| only(b.iter().filter(|q| q.label == p.label).collect());
    let is_single = |p: &ImportedPoint| a.iter().filter(|q| load(q) == load(p)).count() == 1;
    let partner =
        |p: &ImportedPoint| named(p).or_else(|| of_load(p).filter(|_| has_load(p) && is_single(p)));
    a.iter().filter_map(|p| Some((p, partner(p)?))).collect()
}

/// What two points were asked for that is not the same.
fn unlike(a: &ImportedPoint, b: &ImportedPoint) -> Vec<String> {
    let numbers = [
        ("requests at once", a.asked.concurrency, b.asked.concurrency),
        ("requests/s", a.asked.rate, b.asked.rate),
        ("prompt length", a.asked.isl, b.asked.isl),
        ("answer length", a.asked.osl, b.asked.osl),
    ];
    let differ = |(what, a, b): (&str, Option<f64>, Option<f64>)| {
        let (a, b) = (a?, b?);
        ((a - b).abs() > 1e-9 * a.abs()).then(|| format!("{what}: {a} and {b}"))
    };
    let load = |p: &ImportedPoint| match (p.asked.concurrency, p.asked.rate) {
        (Some(n), None) => Some((true, format!("{n} at once"))),
        (None, Some(rate)) => Some((false, format!("{rate} requests/s"))),
        _ => None,
    };
    let loads = load(a).zip(load(b)).filter(|((is_closed, _), (other, _))| is_closed != other);
    let loads = loads.map(|((_, a), (_, b))| format!("load: {a} and {b}"));
    let models = a.asked.model.as_ref().zip(b.asked.model.as_ref());
    let models = models.filter(|(a, b)| a != b).map(|(a, b)| format!("model: {a} and {b}"));
    models.into_iter().chain(loads).chain(numbers.into_iter().filter_map(differ)).collect()
}

/// A point of each file of a side.
type Points<'a> = [(&'a str, &'a ImportedPoint)];

fn point(a: &Points<'_>, b: &Points<'_>) -> BesidePoint {
    let metrics = METRICS
        .iter()
        .flat_map(|(metric, stats)| stats.iter().filter_map(|stat| compared(a, b, metric, stat)));
    let flaws = |side: &str, points: &Points<'_>| -> Vec<String> {
        let of = |(file, point): &(&str, &ImportedPoint)| -> Vec<String> {
            let side = if points.len() > 1 { format!("{side}, {file}") } else { side.to_owned() };
            let said = point.flaws.iter().map(|f| format!("{side}: {} ({})", f.message, f.code));
            said.collect()
        };
        points.iter().flat_map(of).collect()
    };
    BesidePoint {
        label: a.first().map_or_else(String::new, |(_, point)| point.label.clone()),
        metrics: metrics.collect(),
        flaws: [flaws("A", a), flaws("B", b)].concat(),
    }
}

/// Absent where a file has no value, or none that can be divided by.
fn compared(a: &Points<'_>, b: &Points<'_>, metric: &str, stat: &str) -> Option<BesideMetric> {
    let values = |points: &Points<'_>| -> Option<Vec<f64>> {
        let value = |(_, point): &(&str, &ImportedPoint)| match metric {
            "output_tps_per_gpu" => point.output_tps_per_gpu(),
            _ => point.value(metric, stat),
        };
        points.iter().map(value).collect()
    };
    let (of_a, of_b) = (values(a)?, values(b)?);
    let (in_a, in_b) = (middle(&of_a)?, middle(&of_b)?);
    let ratio = (in_a > 0.0).then(|| in_b / in_a).filter(|r| r.is_finite())?;
    let interval = logarithms(&of_b).zip(logarithms(&of_a)).and_then(|(of_b, of_a)| {
        let (contrast, method) = between((&of_b, &of_a), "files", true)?;
        Some(contrast.estimate(method))
    });
    let name = if stat == SINGLE { metric.to_owned() } else { format!("{metric}.{stat}") };
    let near = |points: &Points<'_>| -> BTreeSet<Option<String>> {
        points.iter().map(|(_, p)| p.near.get(metric).cloned()).collect()
    };
    let (said_a, said_b) = (near(a), near(b));
    let told = |side: &str, said: &BTreeSet<Option<String>>| -> Vec<String> {
        said.iter().flatten().map(|why| format!("{side}: {why}")).collect()
    };
    let differs = match said_a == said_b && said_a.len() < 2 {
        true => Vec::new(),
        false => [told("A", &said_a), told("B", &said_b)].concat(),
    };
    Some(BesideMetric { metric: name, a: in_a, b: in_b, ratio, interval, differs })
}

/// The one value, else the geometric mean; absent where there is none above zero.
fn middle(values: &[f64]) -> Option<f64> {
    match values {
        [one] => Some(*one),
        _ => {
            let of = logarithms(values)?;
            Some((of.iter().sum::<f64>() / of.len() as f64).exp())
        }
    }
}

fn logarithms(values: &[f64]) -> Option<Vec<f64>> {
    values.iter().map(|v| Some(*v).filter(|v| *v > 0.0).map(f64::ln)).collect()
}

#[cfg(test)]
mod tests;
