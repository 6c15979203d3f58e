//! Result files of other tools held against each other.
//!
//! **Invariants.** A file has one value of a metric and not what runs differ by, so a ratio has no interval, and nothing
//! is called better or worse. Numbers that do not mean the same carry in what they differ.

use super::{ImportedFile, ImportedPoint, SINGLE};
use serde::Serialize;
use std::collections::BTreeSet;

/// The version of what is said of two files.
pub const BESIDE_FORMAT: u32 = 1;

/// What is said of every ratio.
pub const NO_SPREAD: &str =
    "a file has one run and not what runs differ by: nobody can say how surely they differ";

/// Two files, and what is held against each other in them.
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
    /// [`NO_SPREAD`].
    pub sure: &'static str,
}

/// One of two files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BesideSide {
    /// Its name.
    pub file: String,
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
    /// In the first.
    pub a: f64,
    /// In the second.
    pub b: f64,
    /// The second / the first.
    pub ratio: f64,
    /// In what either is another metric, where they do not say the same of it.
    pub differs: Vec<String>,
}

/// Why two files are not held against each other.
#[derive(Debug, thiserror::Error)]
pub enum NotBeside {
    /// They were not asked the same.
    #[error("the two were not asked the same: {0}")]
    Unlike(String),
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

/// `b` against `a`. What was not asked the same is only told where it is forced.
///
/// # Errors
/// When they were asked for different things, or have nothing in common.
pub fn beside(a: &ImportedFile, b: &ImportedFile, force: bool) -> Result<Beside, NotBeside> {
    let pairs = pairs(&a.points, &b.points);
    let unlike: BTreeSet<String> = pairs.iter().flat_map(|(a, b)| unlike(a, b)).collect();
    if !unlike.is_empty() && !force {
        return Err(NotBeside::Unlike(unlike.into_iter().collect::<Vec<_>>().join("; ")));
    }
    let points: Vec<BesidePoint> = pairs.iter().map(|(a, b)| point(a, b)).collect();
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
    let side =
        |file: &ImportedFile| BesideSide { file: file.file.clone(), tool: file.tool.clone() };
    Ok(Beside {
        format: BESIDE_FORMAT,
        a: side(a),
        b: side(b),
        unlike: unlike.into_iter().collect(),
        points,
        alone: [alone(a), alone(b)].concat(),
        sure: NO_SPREAD,
    })
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

fn point(a: &ImportedPoint, b: &ImportedPoint) -> BesidePoint {
    let metrics = METRICS
        .iter()
        .flat_map(|(metric, stats)| stats.iter().filter_map(|stat| compared(a, b, metric, stat)));
    let flaws = |side: &str, point: &ImportedPoint| -> Vec<String> {
        let said = point.flaws.iter().map(|f| format!("{side}: {} ({})", f.message, f.code));
        said.collect()
    };
    BesidePoint {
        label: a.label.clone(),
        metrics: metrics.collect(),
        flaws: [flaws("A", a), flaws("B", b)].concat(),
    }
}

/// Absent where one has no value, or none that can be divided by.
fn compared(
    a: &ImportedPoint,
    b: &ImportedPoint,
    metric: &str,
    stat: &str,
) -> Option<BesideMetric> {
    let value = |point: &ImportedPoint| match metric {
        "output_tps_per_gpu" => point.output_tps_per_gpu(),
        _ => point.value(metric, stat),
    };
    let (in_a, in_b) = (value(a)?, value(b)?);
    let ratio = (in_a > 0.0).then(|| in_b / in_a).filter(|r| r.is_finite())?;
    let name = if stat == SINGLE { metric.to_owned() } else { format!("{metric}.{stat}") };
    let said = [("A", a.near.get(metric)), ("B", b.near.get(metric))];
    let is_same = said[0].1 == said[1].1;
    let differs = said.into_iter().filter_map(|(side, why)| Some(format!("{side}: {}", why?)));
    let differs = if is_same { Vec::new() } else { differs.collect() };
    Some(BesideMetric { metric: name, a: in_a, b: in_b, ratio, differs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::read;

    const VLLM: &str = include_str!("fixtures/vllm.json");
    const SGLANG: &str = include_str!("fixtures/sglang.jsonl");

    fn find<'a>(of: &'a Beside, metric: &str) -> &'a BesideMetric {
        let found = of.points[0].metrics.iter().find(|m| m.metric == metric);
        found.unwrap_or_else(|| panic!("no {metric}: {of:#?}"))
    }

    #[test]
    fn a_ratio_of_two_tools_stands_with_what_each_means() {
        let (a, b) = (read("a.json", VLLM).unwrap(), read("b.jsonl", SGLANG).unwrap());
        let found = beside(&a, &b, false).unwrap();
        assert_eq!(found.a.tool, "vllm bench serve");
        let rps = find(&found, "rps");
        assert!((rps.ratio - 34.147_250_356 / 34.622_002_744).abs() < 1e-9, "{rps:?}");
        assert!(rps.differs.is_empty());
        let latency = find(&found, "e2e_sent_ms.mean");
        assert!(
            latency.differs.iter().any(|d| d.starts_with("A: it ends with the last token")),
            "{latency:?}"
        );
        assert!(
            found.points[0].flaws.iter().any(|f| f.starts_with("A: ") && f.contains("few_samples"))
        );
        assert_eq!(found.sure, NO_SPREAD);
    }

    #[test]
    fn what_was_not_asked_the_same_is_refused_unless_it_is_forced() {
        let other = VLLM
            .replace("\"smollm2\"", "\"llama\"")
            .replace("\"max_concurrency\": 4", "\"max_concurrency\": 8");
        let (a, b) = (read("a.json", VLLM).unwrap(), read("b.json", &other).unwrap());
        let said = beside(&a, &b, false).unwrap_err().to_string();
        assert!(said.contains("model: smollm2 and llama"), "{said}");
        assert!(said.contains("requests at once: 4 and 8"), "{said}");
        let forced = beside(&a, &b, true).unwrap();
        assert_eq!(forced.unlike.len(), 2);
        assert!((find(&forced, "rps").ratio - 1.0).abs() < 1e-12);
    }

    /// By load where names differ; what only one has is named.
    #[test]
    fn points_of_the_same_load_are_held_against_each_other() {
        let lines = |of: &[(u32, f64)]| {
            let line = |(n, rps): &(u32, f64)| {
                format!(
                    "{{\"request_throughput\": {rps}, \"mean_ttft_ms\": 5, \"completed\": 200, \"max_concurrency\": {n}}}"
                )
            };
            of.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let a = read("a", &lines(&[(1, 10.0), (8, 40.0)])).unwrap();
        let b = read("b", &lines(&[(8, 60.0), (16, 70.0)])).unwrap();
        let found = beside(&a, &b, false).unwrap();
        assert_eq!(found.points.len(), 1);
        assert!((find(&found, "rps").ratio - 1.5).abs() < 1e-12);
        assert_eq!(found.alone, ["c1 of a", "c16 of b"]);
        let nothing = read("b", &lines(&[(2, 60.0), (16, 70.0)])).unwrap();
        assert!(matches!(beside(&a, &nothing, false), Err(NotBeside::NothingInCommon)));
    }
}
