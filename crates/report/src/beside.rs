//! Result files of other tools against each other, for a terminal: a table a load, and what is to be said of it.

use crate::number::{plain, ratio};
use crate::table::Grid;
use crate::text::{draw_grid, item, line};
use scalebeam_model::import::beside::{Beside, BesideMetric, BesidePoint};
use scalebeam_model::trust::TrustLevel;

/// `of` as text, its sentences at most `width` columns wide.
pub fn beside(of: &Beside, width: usize) -> String {
    let mut out = String::new();
    line(&mut out, &format!("A  {} ({})", of.a.file, of.a.tool));
    line(&mut out, &format!("B  {} ({})", of.b.file, of.b.tool));
    for text in &of.unlike {
        item(&mut out, "* forced, not asked the same:", text, width);
    }
    for point in &of.points {
        out.push('\n');
        out.push_str(&draw_grid(&grid(point)));
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

/// In what each metric is not the same in both, once for all of its statistics.
fn differences(point: &BesidePoint) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for metric in point.metrics.iter().filter(|m| !m.differs.is_empty()) {
        let name = metric.metric.split('.').next().unwrap_or(&metric.metric);
        let text = format!("{name}: {}", metric.differs.join("; "));
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

fn grid(point: &BesidePoint) -> Grid {
    let row = |m: &BesideMetric| vec![m.metric.clone(), plain(m.a), plain(m.b), ratio(m.ratio)];
    let trust = if point.flaws.is_empty() { TrustLevel::Sound } else { TrustLevel::Caution };
    Grid {
        note: None,
        title: point.label.clone(),
        head: ["metric", "A", "B", "B / A"].map(str::to_owned).to_vec(),
        names: 1,
        rows: point.metrics.iter().map(row).collect(),
        trust: vec![trust; point.metrics.len()],
    }
}
