//! The numbers of a run as rows and columns of text; the terminal, Markdown and HTML show the same.

use crate::metric::Named;
use crate::number::{self, ABSENT};
use crate::spec::ReportSpec;
use scalebeam_model::plan::{Mode, Plan};
use scalebeam_model::request::Outcome;
use scalebeam_model::results::{
    Comparison, Estimate, ExpectResult, MetricValue, PointResult, Results, SloBoundResult,
    percentile_key,
};
use scalebeam_model::stats::percentile;
use scalebeam_model::trust::TrustLevel;
use std::collections::BTreeMap;

/// Metrics of the verdict table: name, head, and the order in which columns give way on a narrow
/// terminal (0 = never).
pub(crate) const COLUMNS: [ColumnHead; 9] = [
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

/// A column of the table: name, head, second line of the head, and when it gives way.
pub(crate) type ColumnHead = (&'static str, &'static str, &'static str, u8);

/// Beside every number, where a server says it: a latency with a warm cache is another quantity.
const CACHED: ColumnHead = ("prefix_hit_ratio", "cached", "%", 2);

/// Where a load has a service-level objective: what it was all about.
const GOOD: ColumnHead = ("slo_attainment", "good", "%", 2);

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
    let mut keys: Vec<(&str, Option<&str>)> = Vec::new();
    for point in &results.points {
        let level = (!point.is_probe).then_some(point.level.as_str());
        let key = (point.load.as_str(), level);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let section = |(load, level)| match level {
        Some(level) => section(results, (load, level)),
        None => probes(results, load),
    };
    keys.into_iter().map(section).collect()
}

/// The levels that searches of a load tried, in one table.
fn probes<'a>(results: &'a Results, load: &str) -> Section<'a> {
    Section {
        title: format!("{load}: levels that the search tried"),
        points: results.points.iter().filter(|p| p.is_probe && p.load == load).collect(),
        against: None,
        comparisons: Vec::new(),
    }
}

fn section<'a>(results: &'a Results, (load, level): (&'a str, &'a str)) -> Section<'a> {
    let points: Vec<&PointResult> = results
        .points
        .iter()
        .filter(|p| !p.is_probe && p.load == load && p.level == level)
        .collect();
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
    // A slot, and an arrival, is a session with all its turns.
    let has_turns = !point.turns.is_empty();
    let asked = match (point.mode, point.concurrency, point.rate_rps, point.batch) {
        (Mode::Open, _, Some(rate), _) if has_turns => {
            format!("{} sessions/s asked for", number::tick(rate))
        }
        (Mode::Open, _, Some(rate), _) => format!("{} req/s asked for", number::tick(rate)),
        (Mode::Batch, _, _, Some(n)) => format!("{n} prompt{} per request", plural(n)),
        (Mode::Burst, Some(n), _, _) => format!("{n} request{} at once", plural(n)),
        (Mode::Closed, Some(n), _, _) if has_turns => format!("{n} session{} at a time", plural(n)),
        (Mode::Closed, Some(n), _, _) => format!("{n} request{} in flight", plural(n)),
        (mode, ..) => format!("{} load", mode.name()),
    };
    format!("{load} {level}: {asked}")
}

const fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

impl Section<'_> {
    /// The columns of this section.
    pub(crate) fn columns(&self) -> Vec<ColumnHead> {
        let is_said = |c: &ColumnHead| self.points.iter().any(|p| p.value(c.0).is_some());
        COLUMNS.into_iter().chain([CACHED, GOOD].into_iter().filter(is_said)).collect()
    }

    /// Ratio to the baseline with its interval.
    pub(crate) fn ratio(&self, point: &PointResult) -> String {
        match (&self.against, self.comparisons.iter().find(|c| c.deployment == point.deployment)) {
            (Some((_, baseline)), _) if *baseline == point.deployment => "baseline".to_owned(),
            (_, Some(c)) => ratio(&c.ratio),
            _ => ABSENT.to_owned(),
        }
    }
}

/// `0.88x [0.85, 0.91]`, with as many digits as show on which side of 1 an end lies.
pub(crate) fn ratio(ratio: &Estimate) -> String {
    let (point, low, high) = (ratio.point, ratio.low, ratio.high);
    let is_shown = |digits: usize| {
        let is_one = |text: String| text.trim_end_matches('0') == "1.";
        [low, high]
            .iter()
            .all(|end| (end - 1.0).abs() < f64::EPSILON || !is_one(format!("{end:.digits$}")))
    };
    let digits = (2..5).find(|d| is_shown(*d)).unwrap_or(5);
    let first = if digits == 2 { number::ratio(point) } else { format!("{point:.digits$}x") };
    format!("{first} [{low:.digits$}, {high:.digits$}]")
}

/// What a row of a section is called.
pub(crate) fn row_name(point: &PointResult) -> String {
    if point.is_probe {
        format!("{} {}", point.deployment, point.level)
    } else {
        point.deployment.clone()
    }
}

/// The value of a metric, or that there is none.
pub(crate) fn cell(metric: &Named, point: &PointResult) -> String {
    shown(metric, metric.of(point))
}

fn shown(metric: &Named, value: Option<f64>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |v| number::in_unit(v, &metric.unit))
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
    /// What was seen at the first of the points.
    message: &'a str,
    pub(crate) next_step: &'a str,
    pub(crate) points: Vec<String>,
    /// The others were seen with other figures.
    differs: bool,
}

impl Doubt<'_> {
    /// What was seen, and of how many points that is said.
    pub(crate) fn message(&self) -> String {
        match (self.differs, self.points.len()) {
            (true, n @ 2..) => format!(
                "{} (so at the first of these {n} points; the others' figures are in results.json)",
                self.message
            ),
            _ => self.message.to_owned(),
        }
    }
}

/// Reasons not to rely on points, gravest first, each once.
pub(crate) fn doubts(results: &Results) -> Vec<Doubt<'_>> {
    let mut all: Vec<Doubt<'_>> = Vec::new();
    for point in &results.points {
        let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
        for reason in point.trust.reasons.iter().filter(|r| r.level > TrustLevel::Sound) {
            let same = all.iter_mut().find(|d| {
                d.level == reason.level && d.code == reason.code && d.next_step == reason.next_step
            });
            match same {
                Some(doubt) => {
                    doubt.points.push(id.clone());
                    doubt.differs |= doubt.message != reason.message;
                }
                None => all.push(Doubt {
                    level: reason.level,
                    code: &reason.code,
                    message: &reason.message,
                    next_step: &reason.next_step,
                    points: vec![id.clone()],
                    differs: false,
                }),
            }
        }
    }
    all.sort_by_key(|d| std::cmp::Reverse(d.level));
    all
}

/// Missing values of the given metrics: `(why, what)`.
pub(crate) fn absences(results: &Results, plan: &Plan, metrics: &[Named]) -> Vec<(String, String)> {
    // Why, which metrics, of which points.
    let mut all: Vec<(String, String, Vec<String>)> = Vec::new();
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
            let what = list.join(", ");
            match all.iter_mut().find(|(w, m, _)| *w == why && *m == what) {
                Some((.., ids)) => ids.push(id),
                None => all.push((why, what, vec![id])),
            }
        }
    }
    let row = |(why, what, ids): (String, String, Vec<String>)| {
        (why, format!("{what} of {}", ids.join(", ")))
    };
    all.into_iter().map(row).chain(unrecorded(results)).collect()
}

/// The first `most` of `names`, and how many more there are.
pub(crate) fn some_of(names: &[String], most: usize) -> String {
    let named = names[..names.len().min(most)].join(", ");
    match names.len().saturating_sub(most) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// How many points of a deployment are named.
const NAMED_POINTS: usize = 6;

/// Points of the plan without a record, a row a deployment and reason.
fn unrecorded(results: &Results) -> Vec<(String, String)> {
    let mut all: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for point in &results.unrecorded {
        let place = format!("{}/{}", point.load, point.level);
        let is_same = |(why, name, _): &&mut (&str, &str, Vec<String>)| {
            *why == point.reason && *name == point.deployment
        };
        match all.iter_mut().find(is_same) {
            Some((.., places)) => places.push(place),
            None => all.push((&point.reason, &point.deployment, vec![place])),
        }
    }
    let row = |(why, name, places): (&str, &str, Vec<String>)| {
        let named = some_of(&places, NAMED_POINTS);
        (why.to_owned(), format!("everything of {name} under {named}"))
    };
    all.into_iter().map(row).collect()
}

/// Points whose requests were not all completed: the point, and what became of them.
pub(crate) fn failures(results: &Results) -> Vec<(String, String)> {
    let row = |p: &PointResult| {
        let all = p.expected();
        let lost = all - p.ended(Outcome::Completed);
        if lost == 0 && p.failures.is_empty() {
            return None;
        }
        let counted = |counts: &BTreeMap<String, u64>| {
            let is_loss = |name: &str| Outcome::from_name(name).is_none_or(Outcome::is_loss);
            let named = counts.iter().filter(|(name, _)| is_loss(name));
            let named = named.map(|(name, n)| format!("{n} {}", name.replace('_', " ")));
            named.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("{lost} of {all} requests not completed");
        let outcomes = counted(&p.outcomes);
        if !outcomes.is_empty() {
            text.push_str(&format!(" ({outcomes})"));
        }
        let classes = counted(&p.failures);
        if !classes.is_empty() {
            text.push_str(&format!("; failures: {classes}"));
        }
        Some((format!("{}/{}/{}", p.deployment, p.load, p.level), text))
    };
    results.points.iter().filter_map(row).collect()
}

/// Where each point went: the point, and its account in sentences.
pub(crate) fn accounts(results: &Results) -> Vec<(String, String)> {
    let row = |p: &PointResult| {
        let text = p.account.as_ref()?.text();
        Some((format!("{}/{}/{}", p.deployment, p.load, p.level), text))
    };
    results.points.iter().filter_map(row).collect()
}

/// Points with a service-level objective: the point, whether it meets it, and what it comes down to.
pub(crate) fn objectives(results: &Results) -> Vec<(String, bool, String)> {
    let row = |p: &PointResult| {
        let slo = p.slo.as_ref()?;
        let bounds: Vec<String> = slo.bounds.iter().map(bound).collect();
        let name = slo.slo.split_once(": ").map_or(String::new(), |(name, _)| format!(" {name}"));
        let doubt = if slo.sure { "" } else { "; chance may explain it, more requests are needed" };
        let id = format!("{}/{}/{}", p.deployment, p.load, p.level);
        let word = if slo.met { "meets its SLO" } else { "does NOT meet its SLO" };
        Some((id, slo.met, format!("{word}{name}: {}{doubt}", bounds.join(", "))))
    };
    results.points.iter().filter_map(row).collect()
}

/// `ttft.p99 <= 450 ms (is 432 ms, 99.4 % within [98.9, 99.7])`.
fn bound(b: &SloBoundResult) -> String {
    let is = b.value_ms.map_or_else(
        || "not reached: too many were not completed".to_owned(),
        |ms| format!("is {} ms", number::plain(ms)),
    );
    let share = b.within.as_ref().map_or(String::new(), |share| {
        let percent = |x: f64| number::plain(100.0 * x);
        let (low, high) = (percent(share.low), percent(share.high));
        format!(", {} % within [{low}, {high}]", percent(share.point))
    });
    format!("{} ({is}{share})", b.bound)
}

/// Why there is no verdict, where analysis gives none.
pub(crate) fn no_verdict(results: &Results) -> Option<String> {
    if !results.verdicts.is_empty() || !results.searches.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = results.points.iter().map(|p| p.deployment.as_str()).collect();
    names.dedup();
    Some(match names.as_slice() {
        [] => "no verdict: nothing was measured".to_owned(),
        [one] => {
            format!(
                "no verdict: only of one deployment, {one}, there are numbers; nothing to hold it against"
            )
        }
        _ => "no verdict: no two deployments were measured under the same load".to_owned(),
    })
}

/// How many expectations hold, in words; absent where there are none.
pub(crate) fn expectations(results: &Results) -> Option<String> {
    let all = results.expects.len();
    let held = results.expects.iter().filter(|e| e.holds).count();
    let not_checked = results.expects.iter().filter(|e| e.not_checked).count();
    let beside =
        if not_checked > 0 { format!(", {not_checked} not checked") } else { String::new() };
    (all > 0).then(|| format!("{held} of {all} hold{beside}"))
}

/// What an expectation was held against, or why there is nothing.
pub(crate) fn expected_value(e: &ExpectResult) -> String {
    match (e.value, &e.absent) {
        (Some(value), _) => number::plain(value),
        (None, Some(why)) => format!("{ABSENT}: {why}"),
        (None, None) => ABSENT.to_owned(),
    }
}

/// A reason of several lines: its first line, and the others as they were written.
pub(crate) fn first_line(text: &str) -> (&str, Vec<&str>) {
    let mut lines = text.lines().map(str::trim_end).filter(|l| !l.trim().is_empty());
    (lines.next().unwrap_or("").trim_start(), lines.collect())
}

/// A `table` report: points in rows, metrics in columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    /// How many of the first columns are names.
    pub(crate) names: usize,
    pub(crate) rows: Vec<Vec<String>>,
    /// Of each row.
    pub(crate) trust: Vec<TrustLevel>,
    /// What stands below it.
    pub(crate) note: Option<String>,
}

/// A row of a grid: of which point, what stands behind deployment, load and level, and its cells.
pub(crate) type GridRow<'a> = (&'a PointResult, Vec<String>);

impl Grid {
    /// Rows of points. `more` are names of columns that tell rows of a point apart, whose cells come first.
    pub(crate) fn of_points(
        title: impl Into<String>,
        more: &[&str],
        heads: impl IntoIterator<Item = String>,
        rows: Vec<GridRow<'_>>,
    ) -> Self {
        let names = ["Deployment", "Load", "Level"].iter().chain(more).map(|n| (*n).to_owned());
        let trust = rows.iter().map(|(point, _)| point.trust.level).collect();
        let row = |(point, cells): GridRow<'_>| {
            let place = [&point.deployment, &point.load, &point.level].map(String::clone);
            let word = trust_word(point.trust.level).to_owned();
            place.into_iter().chain(cells).chain([word]).collect()
        };
        Self {
            title: title.into(),
            head: names.chain(heads).chain(["Trust".to_owned()]).collect(),
            names: 3 + more.len(),
            rows: rows.into_iter().map(row).collect(),
            trust,
            note: None,
        }
    }
}

/// Builds a `table` report.
pub(crate) fn grid(results: &Results, spec: &ReportSpec) -> Grid {
    let metrics = if spec.metrics.is_empty() {
        COLUMNS.iter().map(|(name, ..)| Named::new(name)).collect()
    } else {
        Named::all(&spec.metrics)
    };
    let shown = results.points.iter().filter(|p| spec.shows(p));
    let rows = shown.map(|p| (p, metrics.iter().map(|m| cell(m, p)).collect())).collect();
    let title = if spec.title.is_empty() { "Table" } else { &spec.title };
    Grid::of_points(title, &[], metrics.iter().map(Named::head), rows)
}

/// Metrics of the parts of a point.
const PART_COLUMNS: [&str; 8] = [
    "requests",
    "success_rate",
    "ttft_ms.p50",
    "ttft_ms.p95",
    "tpot_ms.p50",
    "itl_ms.p99",
    "e2e_ms.p50",
    "e2e_ms.p95",
];

/// Classes of mixed workloads and entries; absent where no point has parts.
pub(crate) fn parts(results: &Results) -> Option<Grid> {
    let metrics = Named::all(&PART_COLUMNS);
    let of_point = |point: &'_ PointResult| {
        let row = |(by, part, values): (&str, String, &scalebeam_model::results::Metrics)| {
            let names = [by.to_owned(), part].into_iter();
            names.chain(metrics.iter().map(|m| shown(m, m.value(values)))).collect()
        };
        point.parts().map(row).collect::<Vec<Vec<String>>>()
    };
    let rows: Vec<GridRow<'_>> =
        results.points.iter().flat_map(|p| of_point(p).into_iter().map(move |r| (p, r))).collect();
    let heads = metrics.iter().map(Named::head);
    (!rows.is_empty())
        .then(|| Grid::of_points("Parts of the requests", &["By", "Part"], heads, rows))
}

/// Percentiles, each of a hundred, of every distribution: a row a point and metric.
pub(crate) fn percentiles(results: &Results, percentiles: &[f64]) -> Grid {
    let row = |point: &PointResult, name: &str| {
        let of = |p: &f64| cell(&Named::new(&percentile_key(name, *p)), point);
        [name.to_owned()].into_iter().chain(percentiles.iter().map(of)).collect()
    };
    let mut rows: Vec<GridRow<'_>> = Vec::new();
    for point in &results.points {
        let is_distribution =
            |(_, value): &(&String, &MetricValue)| matches!(value, MetricValue::Distribution(_));
        let named = point.metrics.iter().filter(is_distribution);
        rows.extend(named.map(|(name, _)| (point, row(point, name))));
    }
    let heads = percentiles.iter().map(|p| percentile::name_of(*p));
    Grid::of_points("Percentiles", &["Metric"], heads, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::results::Metrics;

    #[test]
    fn a_ratio_shows_on_which_side_of_one_it_lies() {
        let (results, _) = testing::run();
        let mut c = results.comparisons[0].clone();
        for ((point, low, high), shown) in [
            ((0.88, 0.851, 0.91), "0.88x [0.85, 0.91]"),
            ((1.000_9, 1.000_4, 1.001_2), "1.0009x [1.0004, 1.0012]"),
            ((1.0, 0.98, 1.004), "1.000x [0.980, 1.004]"),
            ((1.0, 1.0, 1.0), "1.00x [1.00, 1.00]"),
            ((12.34, 11.0, 14.0), "12.3x [11.00, 14.00]"),
        ] {
            (c.ratio.point, c.ratio.low, c.ratio.high) = (point, low, high);
            assert_eq!(ratio(&c.ratio), shown);
        }
    }

    #[test]
    fn a_load_of_sessions_is_called_so() {
        let (results, _) = testing::run();
        let mut point = results.points[0].clone();
        point.turns.insert(0, Metrics::new());
        for (mode, rate_rps, concurrency, want) in [
            (Mode::Open, Some(10.0), None, "l r10: 10 sessions/s asked for"),
            (Mode::Closed, None, Some(8), "l r10: 8 sessions at a time"),
            (Mode::Closed, None, Some(1), "l r10: 1 session at a time"),
        ] {
            (point.mode, point.rate_rps, point.concurrency) = (mode, rate_rps, concurrency);
            point.batch = None;
            assert_eq!(title(&[&point], "l", "r10"), want);
        }
    }

    #[test]
    fn one_doubt_at_many_points_is_said_once() {
        let (mut results, _) = testing::run();
        let reason = |message: &str| scalebeam_model::trust::Reason {
            code: "client_cpu".to_owned(),
            level: TrustLevel::Caution,
            message: message.to_owned(),
            next_step: "more cores".to_owned(),
        };
        for point in &mut results.points {
            point.trust = scalebeam_model::trust::Trust::default();
        }
        results.points[0].trust.add(reason("99 % were in use"));
        results.points[1].trust.add(reason("99 % were in use"));
        let said = |results: &Results| {
            let [doubt] = &doubts(results)[..] else { panic!("more than one") };
            (doubt.points.len(), doubt.message())
        };
        assert_eq!(said(&results), (2, "99 % were in use".to_owned()));
        results.points[2].trust.add(reason("97 % were in use"));
        let (points, message) = said(&results);
        assert_eq!(points, 3);
        assert!(message.starts_with("99 % were in use (so at the first of these 3"), "{message}");
    }

    #[test]
    fn parts_have_a_row_each_and_are_not_there_without_any() {
        let (mut results, _) = testing::run();
        assert_eq!(parts(&results), None);
        let whole = results.points[0].metrics.clone();
        let point = &mut results.points[0];
        point.classes =
            [("long", &whole), ("short", &whole)].map(|(n, m)| (n.to_owned(), m.clone())).into();
        point.targets =
            [("http://a".to_owned(), Metrics::new()), ("http://b".to_owned(), whole)].into();
        let grid = parts(&results).unwrap();
        let names: Vec<_> = grid.rows.iter().map(|r| (r[3].as_str(), r[4].as_str())).collect();
        let want =
            [("class", "long"), ("class", "short"), ("entry", "http://a"), ("entry", "http://b")];
        assert_eq!(names, want);
        assert!(grid.rows.iter().all(|r| r.len() == grid.head.len()));
        assert_eq!(
            (grid.rows[2][7].as_str(), grid.rows[3][7].as_str()),
            (ABSENT, grid.rows[0][7].as_str())
        );
    }

    #[test]
    fn percentiles_have_a_row_for_each_distribution() {
        let (mut results, _) = testing::run();
        results.points.truncate(1);
        let asked = MetricValue::Number(12.5);
        results.points[0].metrics.insert("ttft_ms.p87.5".to_owned(), asked);
        let is_distribution = |v: &&MetricValue| matches!(v, MetricValue::Distribution(_));
        let distributions = results.points[0].metrics.values().filter(is_distribution).count();
        let grid = percentiles(&results, &[50.0, 87.5]);
        assert_eq!(grid.rows.len(), distributions);
        let row = grid.rows.iter().find(|r| r[3] == "ttft_ms").unwrap();
        assert_eq!(row[5], "12.5");
        assert!(grid.rows.iter().all(|r| r.len() == grid.head.len()));
        assert_eq!(grid.rows.iter().filter(|r| r[5] == ABSENT).count(), distributions - 1);
    }

    #[test]
    fn what_is_missing_is_said_once_for_all_points() {
        let (mut results, plan) = testing::run();
        for point in &mut results.points[..2] {
            point.metrics.remove("ttft_ms");
        }
        let rows = absences(&results, &plan, &[Named::new("ttft.p50"), Named::new("ttft.p95")]);
        let (first, second) = (&results.points[0], &results.points[1]);
        let what = format!(
            "TTFT p50, TTFT p95 of {}/{}/{}, {}/{}/{}",
            first.deployment, first.load, first.level, second.deployment, second.load, second.level
        );
        assert!(rows[0].1.starts_with(&what), "{rows:?}");
    }
}
