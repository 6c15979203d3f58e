//! Result files of other tools against each other, for a terminal: a table a load, and what is to be said of it.

use crate::number::{plain, ratio};
use crate::table::{self, Grid};
use crate::text::{draw_grid, item, line};
use scalebeam_model::distinct::distinct;
use scalebeam_model::import::beside::{Beside, BesideMetric, BesidePoint};
use scalebeam_model::trust::TrustLevel;

/// `of` as text, its sentences at most `width` columns wide.
pub fn beside(of: &Beside, width: usize) -> String {
    let mut out = String::new();
    for (side, name) in [(&of.a, "A"), (&of.b, "B")] {
        let files = std::iter::once(&side.file).chain(&side.more).map(String::as_str);
        let files = files.collect::<Vec<_>>().join(", ");
        line(&mut out, &format!("{name}  {files} ({})", side.tool));
    }
    for text in &of.unlike {
        item(&mut out, "* forced, not asked the same:", text, width);
    }
    for point in &of.points {
        out.push('\n');
        out.push_str(&draw_grid(&grid(point)));
        for method in methods(point) {
            item(&mut out, "intervals:", method, width);
        }
        for text in differences(point) {
            item(&mut out, "- not the same:", &text, width);
        }
        for flaw in &point.flaws {
            item(&mut out, "!", flaw, width);
        }
    }
    out.push('\n');
    if !of.alone.is_empty() {
        item(&mut out, "in one of them only:", &of.alone.join(", "), width);
    }
    item(&mut out, "", of.sure, width);
    out
}

/// Each once.
fn methods(point: &BesidePoint) -> Vec<&str> {
    let intervals = point.metrics.iter().filter_map(|m| m.interval.as_ref());
    distinct(intervals.map(|i| i.method.as_str()))
}

/// In what each metric is not the same in both, once for all of its statistics.
fn differences(point: &BesidePoint) -> Vec<String> {
    let told = point.metrics.iter().filter(|m| !m.differs.is_empty()).map(|metric| {
        let name = metric.metric.split('.').next().unwrap_or(&metric.metric);
        format!("{name}: {}", metric.differs.join("; "))
    });
    distinct(told)
}

fn grid(point: &BesidePoint) -> Grid {
    let shown = |m: &BesideMetric| m.interval.as_ref().map_or_else(|| ratio(m.ratio), table::ratio);
    let row = |m: &BesideMetric| vec![m.metric.clone(), plain(m.a), plain(m.b), shown(m)];
    let has_interval = point.metrics.iter().any(|m| m.interval.is_some());
    let last = if has_interval { "B / A [95 %]" } else { "B / A" };
    let trust = if point.flaws.is_empty() { TrustLevel::Sound } else { TrustLevel::Caution };
    Grid {
        note: None,
        title: point.label.clone(),
        head: ["metric", "A", "B", last].map(str::to_owned).to_vec(),
        names: 1,
        rows: point.metrics.iter().map(row).collect(),
        trust: vec![trust; point.metrics.len()],
    }
}
