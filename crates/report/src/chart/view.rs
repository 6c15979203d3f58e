//! The part of the results that a report shows, and the words around it.

use super::figure::NOTE;
use super::scene::shortened;
use crate::metric::{self, Better, Named};
use crate::number::{self, ABSENT};
use crate::spec::ReportSpec;
use crate::table::{first_line, some_of};
use scalebeam_model::distinct::distinct;
use scalebeam_model::plan::{Mode, Plan};
use scalebeam_model::results::{PointResult, Results};
use scalebeam_model::trust::TrustLevel;

/// Footnotes name at most this many points one by one.
const MAX_NAMED: usize = 4;

/// The part of the results that a report shows.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) results: &'a Results,
    pub(crate) plan: &'a Plan,
    pub(crate) points: Vec<&'a PointResult>,
    /// Deployments of the whole run: their place decides colour and marker, also where some are hidden.
    deployments: Vec<&'a str>,
}

/// What the level of a load is.
pub(crate) const fn level_label(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "requests per second asked for",
        Mode::Batch => "prompts per request",
        Mode::Burst => "requests sent at once",
        Mode::Closed | Mode::Serial => "requests in flight asked for",
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(results: &'a Results, plan: &'a Plan, spec: &ReportSpec) -> Self {
        let deployments = distinct(results.points.iter().map(|p| p.deployment.as_str()));
        let points = results.points.iter().filter(|p| spec.shows(p)).collect();
        Self { results, plan, points, deployments }
    }

    /// The series of a deployment.
    pub(crate) fn series(&self, deployment: &str) -> usize {
        self.deployments.iter().position(|d| *d == deployment).unwrap_or(0)
    }

    /// Deployments that are shown, with their series.
    pub(crate) fn shown(&self) -> Vec<(usize, &'a str)> {
        let all = self.deployments.iter().enumerate();
        all.filter(|(_, d)| self.points.iter().any(|p| p.deployment == **d))
            .map(|(i, d)| (i, *d))
            .collect()
    }

    /// Points by load level, in order, under a label that is as short as it can be.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<&'a PointResult>)> {
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for point in &self.points {
            let key = (point.load.as_str(), point.level.as_str());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.iter()
            .map(|(load, level)| {
                let at = |p: &&&PointResult| p.load == *load && p.level == *level;
                (self.level_name(load, level), self.points.iter().filter(at).copied().collect())
            })
            .collect()
    }

    fn level_name(&self, load: &str, level: &str) -> String {
        let has_levels = self.points.iter().any(|p| p.load == load && p.level != level);
        let has_loads = self.points.iter().any(|p| p.load != load);
        match (has_loads, has_levels) {
            (true, true) => format!("{load} {level}"),
            (false, true) => level.to_owned(),
            (_, false) => load.to_owned(),
        }
    }

    /// Name of a single point.
    pub(crate) fn point_name(&self, point: &PointResult) -> String {
        if self.points.iter().all(|p| p.load == point.load && p.level == point.level) {
            return point.deployment.clone();
        }
        format!("{} {}", point.deployment, self.level_name(&point.load, &point.level))
    }

    /// Lines of a curve: a deployment, or a deployment under a load where there are several, each by
    /// level.
    pub(crate) fn lines(&self) -> Vec<(String, Vec<&'a PointResult>)> {
        let first = self.points.first().map(|p| &p.load);
        let has_loads = self.points.iter().any(|p| Some(&p.load) != first);
        let mut lines: Vec<(String, Vec<&PointResult>)> = Vec::new();
        for point in &self.points {
            let label = if has_loads {
                format!("{}, {}", point.deployment, point.load)
            } else {
                point.deployment.clone()
            };
            match lines.iter_mut().find(|(name, _)| *name == label) {
                Some((_, points)) => points.push(point),
                None => lines.push((label, vec![point])),
            }
        }
        for (_, points) in &mut lines {
            let level = |p: &PointResult| p.level_value().unwrap_or(f64::INFINITY);
            points.sort_by(|a, b| level(a).total_cmp(&level(b)));
        }
        lines
    }

    /// The mode whose levels an axis called `x` holds: levels of different kinds are not on one axis.
    pub(crate) fn level_mode(&self, x: &str) -> Mode {
        let is_asked = |mode: Mode| match x {
            "rate" | "rate_rps" => mode == Mode::Open,
            "batch" => mode == Mode::Batch,
            "concurrency" | "users" => !matches!(mode, Mode::Open | Mode::Batch),
            _ => true,
        };
        let modes = || self.points.iter().map(|p| p.mode);
        modes().find(|m| is_asked(*m)).or_else(|| modes().next()).unwrap_or(Mode::Closed)
    }

    /// The same view with the points of one kind of level only, and what is left out, in words.
    pub(crate) fn of_mode(&self, mode: Mode) -> (Self, Option<String>) {
        let is_alike = |p: &PointResult| level_label(p.mode) == level_label(mode);
        let mut left_out: Vec<&str> = Vec::new();
        for point in self.points.iter().filter(|p| !is_alike(p)) {
            if !left_out.contains(&point.load.as_str()) {
                left_out.push(&point.load);
            }
        }
        let note = (!left_out.is_empty()).then(|| {
            format!(
                "Not on this axis, because its levels are of another kind: {}",
                left_out.join(", ")
            )
        });
        let points = self.points.iter().filter(|p| is_alike(p)).copied().collect();
        let deployments = self.deployments.clone();
        (Self { results: self.results, plan: self.plan, points, deployments }, note)
    }

    /// The same view with the points of some loads only.
    pub(crate) fn of_loads(&self, loads: &[&str]) -> Self {
        let is_one = |p: &&&PointResult| loads.contains(&p.load.as_str());
        let points = self.points.iter().filter(is_one).copied().collect();
        let deployments = self.deployments.clone();
        Self { results: self.results, plan: self.plan, points, deployments }
    }

    /// A title, where the report has none.
    pub(crate) fn title(&self, spec: &ReportSpec, what: &str) -> String {
        if spec.title.is_empty() {
            format!("{}, {what}", self.results.name)
        } else {
            spec.title.clone()
        }
    }

    /// Model and run.
    pub(crate) fn subtitle(&self) -> String {
        let incomplete = if self.results.incomplete { " - the run was cut short" } else { "" };
        format!("{} - run {}{incomplete}", self.plan.model.id, self.results.run)
    }

    /// What values in the unit of the metric are multiplied by for a chart, and the unit then: long
    /// times are shown in seconds.
    pub(crate) fn unit(&self, metric: &Named) -> (f64, String) {
        let highest = self.points.iter().filter_map(|p| metric.of(p)).fold(0.0, f64::max);
        if metric.unit == "ms" && highest >= 5000.0 {
            (1e-3, "s".to_owned())
        } else {
            (1.0, metric.unit.clone())
        }
    }

    /// Unit and direction.
    pub(crate) fn panel_subtitle(&self, named: &Named, unit: &str) -> String {
        match (unit, named.better) {
            ("", better) => metric::words(better).to_owned(),
            (unit, Better::Neither) => unit.to_owned(),
            (unit, better) => format!("{unit}, {}", metric::words(better)),
        }
    }

    /// What a browser shows of a point.
    pub(crate) fn tip(&self, point: &PointResult, metric: &Named) -> String {
        let id = format!("{} under {} {}", point.deployment, point.load, point.level);
        let value = match metric.of(point) {
            Some(v) => format!("{} {}", number::in_unit(v, &metric.unit), metric.unit),
            None => format!("{ABSENT}: {}", metric.why_absent(point, self.plan)),
        };
        let range = metric.range(point).map_or(String::new(), |(low, high)| {
            let show = |v| number::in_unit(v, &metric.unit);
            format!(", trials from {} to {}", show(low), show(high))
        });
        let trust = match point.trust.reasons.first() {
            Some(r) if point.trust.level != TrustLevel::Sound => {
                format!(" ({}: {})", point.trust.level.name(), r.message)
            }
            _ => String::new(),
        };
        format!("{id}: {} {}{range}{trust}", metric.short, value.trim_end())
    }

    /// Why no point has a value.
    pub(crate) fn why_nothing(&self, metric: &Named) -> String {
        self.points
            .first()
            .map_or_else(|| "no points".to_owned(), |p| metric.why_absent(p, self.plan))
    }

    /// Footnotes: what is marked and why.
    pub(crate) fn notes(&self, metrics: &[Named]) -> Vec<String> {
        let mut notes = Vec::new();
        let invalid: Vec<&&PointResult> =
            self.points.iter().filter(|p| p.trust.level == TrustLevel::Invalid).collect();
        for point in invalid.iter().take(MAX_NAMED) {
            let why = point.trust.reasons.first().map_or("", |r| r.message.as_str());
            notes.push(format!("! Not to be trusted: {}: {why}", self.point_name(point)));
        }
        if invalid.len() > MAX_NAMED {
            let more = invalid.len() - MAX_NAMED;
            let points = if more == 1 { "point" } else { "points" };
            notes.push(format!("! Not to be trusted: {more} more {points}"));
        }
        notes.extend(self.absent_notes(metrics));
        if metrics.iter().any(|m| self.points.iter().any(|p| m.range(p).is_some())) {
            notes.push("Whiskers reach from the lowest to the highest trial.".to_owned());
        }
        for skipped in &self.results.skipped {
            let (why, _) = first_line(&skipped.reason);
            let why = shortened(why, NOTE, 560.0);
            notes.push(format!("Not measured: {}: {why}", skipped.deployment));
        }
        notes
    }

    fn absent_notes(&self, metrics: &[Named]) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for metric in metrics {
            let absent: Vec<&&PointResult> =
                self.points.iter().filter(|p| metric.of(p).is_none()).collect();
            // A panel without any value says why itself.
            if absent.len() == self.points.len() {
                continue;
            }
            for point in absent {
                let why = metric.why_absent(point, self.plan);
                let what = format!("{} of {}", metric.short, self.point_name(point));
                match reasons.iter_mut().find(|(reason, _)| *reason == why) {
                    Some((_, list)) => list.push(what),
                    None => reasons.push((why, vec![what])),
                }
            }
        }
        let note = |(why, list): (String, Vec<String>)| {
            format!("{ABSENT} ({why}): {}", some_of(&list, MAX_NAMED))
        };
        reasons.into_iter().map(note).collect()
    }
}
