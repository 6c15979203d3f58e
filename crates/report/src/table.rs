//! The numbers of a run as rows and columns of text; the terminal, Markdown and HTML show the same.

use crate::metric::Named;
use crate::number::{self, ABSENT};
use crate::spec::ReportSpec;
use scalebeam_model::plan::{Mode, Plan};
use scalebeam_model::results::{Comparison, PointResult, Results};
use scalebeam_model::trust::TrustLevel;

/// Metrics of the verdict table: name, head, and the order in which columns give way on a narrow
/// terminal (0 = never).
pub(crate) const COLUMNS: [(&str, &str, &str, u8); 9] = [
    ("gpus", "GPUs", "", 5),
    ("rps", "req/s", "", 0),
    ("output_tps", "tok/s", "", 4),
    ("output_tps_per_gpu", "tok/s", "per GPU", 0),
    ("ttft_ms.p50", "TTFT", "p50 ms", 0),
    ("ttft_ms.p95", "TTFT", "p95 ms", 3),
    ("tpot_ms.p50", "TPOT", "p50 ms", 1),
    ("e2e_ms.p95", "E2E", "p95 ms", 2),
    ("success_rate", "ok", "%", 0),
];

/// All deployments under one load level.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) title: String,
    pub(crate) points: Vec<&'a PointResult>,
    /// What the last column holds: metric and baseline.
    pub(crate) against: Option<(Named, &'a str)>,
    comparisons: Vec<&'a Comparison>,
}

/// The run by load level, in order.
pub(crate) fn sections(results: &Results) -> Vec<Section<'_>> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for point in &results.points {
        let key = (point.load.as_str(), point.level.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| section(results, key)).collect()
}

fn section<'a>(results: &'a Results, (load, level): (&'a str, &'a str)) -> Section<'a> {
    let points: Vec<&PointResult> =
        results.points.iter().filter(|p| p.load == load && p.level == level).collect();
    let all: Vec<&Comparison> =
        results.comparisons.iter().filter(|c| c.load == load && c.level == level).collect();
    let decides = results.verdicts.iter().find(|v| v.load == load && v.level == level);
    let decides = decides.map(|v| v.metric.as_str());
    let metric = all
        .iter()
        .map(|c| c.metric.as_str())
        .find(|m| Some(*m) == decides)
        .or_else(|| all.first().map(|c| c.metric.as_str()));
    let comparisons: Vec<&Comparison> =
        all.into_iter().filter(|c| Some(c.metric.as_str()) == metric).collect();
    let against = comparisons.first().map(|c| (Named::new(&c.metric), c.baseline.as_str()));
    Section { title: title(&points, load, level), points, against, comparisons }
}

fn title(points: &[&PointResult], load: &str, level: &str) -> String {
    let Some(point) = points.first() else { return load.to_owned() };
    let asked = match (point.mode, point.concurrency, point.rate_rps, point.batch) {
        (Mode::Open, _, Some(rate), _) => format!("{} req/s asked for", number::plain(rate)),
        (Mode::Batch, _, _, Some(batch)) => format!("{batch} prompts per request"),
        (Mode::Burst, Some(n), _, _) => format!("{n} requests at once"),
        (Mode::Closed, Some(n), _, _) => format!("{n} requests in flight"),
        (mode, ..) => format!("{} load", mode.name()),
    };
    format!("{load} {level}: {asked}")
}

impl Section<'_> {
    /// Ratio to the baseline with its interval.
    pub(crate) fn ratio(&self, point: &PointResult) -> String {
        match (&self.against, self.comparisons.iter().find(|c| c.deployment == point.deployment)) {
            (Some((_, baseline)), _) if *baseline == point.deployment => "baseline".to_owned(),
            (_, Some(c)) => ratio(c),
            _ => ABSENT.to_owned(),
        }
    }
}

/// `0.88x [0.85, 0.91]`.
pub(crate) fn ratio(c: &Comparison) -> String {
    let (low, high) = (c.ratio.low, c.ratio.high);
    format!("{} [{low:.2}, {high:.2}]", number::ratio(c.ratio.point))
}

/// The value of a metric, or that there is none.
pub(crate) fn cell(metric: &Named, point: &PointResult) -> String {
    metric.of(point).map_or_else(|| ABSENT.to_owned(), |v| number::in_unit(v, &metric.unit))
}

/// A trust level as a word that stands out where it has to.
pub(crate) const fn trust_word(level: TrustLevel) -> &'static str {
    match level {
        TrustLevel::Sound => "sound",
        TrustLevel::Caution => "caution",
        TrustLevel::Invalid => "INVALID",
    }
}

/// A reason with all the points that it is given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt<'a> {
    pub(crate) level: TrustLevel,
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) next_step: &'a str,
    pub(crate) points: Vec<String>,
}

/// Reasons not to rely on points, gravest first, each once.
pub(crate) fn doubts(results: &Results) -> Vec<Doubt<'_>> {
    let mut all: Vec<Doubt<'_>> = Vec::new();
    for point in &results.points {
        let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
        for reason in point.trust.reasons.iter().filter(|r| r.level > TrustLevel::Sound) {
            let same = all.iter_mut().find(|d| {
                d.level == reason.level
                    && d.message == reason.message
                    && d.next_step == reason.next_step
            });
            match same {
                Some(doubt) => doubt.points.push(id.clone()),
                None => all.push(Doubt {
                    level: reason.level,
                    code: &reason.code,
                    message: &reason.message,
                    next_step: &reason.next_step,
                    points: vec![id.clone()],
                }),
            }
        }
    }
    all.sort_by_key(|d| std::cmp::Reverse(d.level));
    all
}

/// Missing values of the given metrics: `(why, what)`.
pub(crate) fn absences(results: &Results, plan: &Plan, metrics: &[Named]) -> Vec<(String, String)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for point in &results.points {
        let mut by_reason: Vec<(String, Vec<&str>)> = Vec::new();
        for metric in metrics.iter().filter(|m| m.of(point).is_none()) {
            let why = metric.why_absent(point, plan);
            match by_reason.iter_mut().find(|(w, _)| *w == why) {
                Some((_, list)) => list.push(&metric.short),
                None => by_reason.push((why, vec![&metric.short])),
            }
        }
        for (why, list) in by_reason {
            let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
            let what = format!("{} of {id}", list.join(", "));
            match all.iter_mut().find(|(w, _)| *w == why) {
                Some((_, whats)) => whats.push(what),
                None => all.push((why, vec![what])),
            }
        }
    }
    all.into_iter().map(|(why, whats)| (why, whats.join("; "))).collect()
}

/// A `table` report: points in rows, metrics in columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Builds a `table` report.
pub(crate) fn grid(results: &Results, spec: &ReportSpec) -> Grid {
    let metrics = if spec.metrics.is_empty() {
        COLUMNS.iter().map(|(name, ..)| Named::new(name)).collect()
    } else {
        Named::all(&spec.metrics)
    };
    let mut head: Vec<String> =
        ["Deployment", "Load", "Level"].map(str::to_owned).into_iter().collect();
    for metric in &metrics {
        let is_said = metric.unit.is_empty() || metric.short.contains(&metric.unit);
        let unit = if is_said { String::new() } else { format!(" ({})", metric.unit) };
        head.push(format!("{}{unit}", metric.short));
    }
    head.push("Trust".to_owned());
    let row = |p: &PointResult| {
        let mut row = vec![p.deployment.clone(), p.load.clone(), p.level.clone()];
        row.extend(metrics.iter().map(|m| cell(m, p)));
        row.push(trust_word(p.trust.level).to_owned());
        row
    };
    Grid {
        title: if spec.title.is_empty() { "Table".to_owned() } else { spec.title.clone() },
        head,
        rows: results.points.iter().filter(|p| spec.shows(p)).map(row).collect(),
    }
}
