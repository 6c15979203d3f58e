//! Result files of other tools, for a terminal: a table a file, what speaks against each point, and in what the
//! numbers are not ours.

use crate::number::{ABSENT, plain};
use crate::table::{Grid, some_of};
use crate::text::{draw_grid, item, line};
use scalebeam_model::import::{ImportedFile, ImportedPoint};
use scalebeam_model::trust::TrustLevel;
use std::collections::{BTreeMap, BTreeSet};

/// A column: its head, and what it shows of a point.
type Column = (&'static str, fn(&ImportedPoint) -> Option<f64>);

/// What a point is compared by. A column without a value in any point is left out.
const COLUMNS: &[Column] = &[
    ("GPUs", |p| p.asked.gpus),
    ("asked at once", |p| p.asked.concurrency),
    ("asked req/s", |p| p.asked.rate),
    ("ok", |p| p.completed),
    ("failed", |p| p.failed),
    ("req/s", |p| p.single("rps")),
    ("out tok/s", |p| p.single("output_tps")),
    ("per GPU", ImportedPoint::output_tps_per_gpu),
    ("TTFT mean", |p| p.value("ttft_sent_ms", "mean")),
    ("TTFT p50", |p| p.value("ttft_sent_ms", "p50")),
    ("TTFT p99", |p| p.value("ttft_sent_ms", "p99")),
    ("TPOT mean", |p| p.value("tpot_ms", "mean")),
    ("TPOT p50", |p| p.value("tpot_ms", "p50")),
    ("E2E mean", |p| p.value("e2e_sent_ms", "mean")),
    ("E2E p99", |p| p.value("e2e_sent_ms", "p99")),
];

/// `files` one below the other, at most `width` columns wide where that is possible.
pub fn imported(files: &[ImportedFile], width: usize) -> String {
    let mut out = String::new();
    for (n, file) in files.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        show(file, width, &mut out);
    }
    out
}

fn show(file: &ImportedFile, width: usize, out: &mut String) {
    out.push_str(&draw_grid(&grid(file)));
    for point in &file.points {
        for flaw in &point.flaws {
            item(out, "!", &format!("{}: {} ({})", point.label, flaw.message, flaw.code), width);
        }
    }
    line(out, "Not as ours");
    let near: BTreeMap<&String, &String> = file.points.iter().flat_map(|p| &p.near).collect();
    for (metric, why) in near {
        item(out, "-", &format!("{metric}: {why}"), width);
    }
    for text in &file.differs {
        item(out, "-", text, width);
    }
    let kept: Vec<&String> =
        file.points.iter().flat_map(|p| p.other.keys()).chain(file.other.keys()).collect();
    if !kept.is_empty() {
        let named = named(&kept);
        let text = format!(
            "{} further numbers are no metric of ours; --json has them: {named}",
            kept.len()
        );
        item(out, "-", &text, width);
    }
}

/// How many of the tool's names are told.
const NAMES: usize = 6;

/// The first parts of `places`, as the file has them.
fn named(places: &[&String]) -> String {
    let first = |place: &&String| {
        place.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned()
    };
    let names: BTreeSet<String> = places.iter().map(first).collect();
    some_of(&names.into_iter().collect::<Vec<_>>(), NAMES)
}

fn grid(file: &ImportedFile) -> Grid {
    let is_there = |(_, of): &&Column| file.points.iter().any(|p| of(p).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(is_there).collect();
    let row = |point: &ImportedPoint| {
        let cell = |column: &&Column| (column.1)(point).map_or_else(|| ABSENT.to_owned(), shown);
        let cells = columns.iter().map(cell).chain([codes(point)]);
        std::iter::once(point.label.clone()).chain(cells).collect()
    };
    let heads = columns.iter().map(|(head, _)| *head);
    let head = std::iter::once("point").chain(heads).chain(["against it"]);
    Grid {
        title: format!("{}: {}, times in ms", file.file, file.tool),
        head: head.map(str::to_owned).collect(),
        names: 1,
        rows: file.points.iter().map(row).collect(),
        trust: file.points.iter().map(trust).collect(),
        note: None,
    }
}

/// Counts are whole.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1000.0 { format!("{value}") } else { plain(value) }
}

fn codes(point: &ImportedPoint) -> String {
    let codes: Vec<&str> = point.flaws.iter().map(|flaw| flaw.code.as_str()).collect();
    if codes.is_empty() { "nothing seen".to_owned() } else { codes.join(", ") }
}

const fn trust(point: &ImportedPoint) -> TrustLevel {
    if point.flaws.is_empty() { TrustLevel::Sound } else { TrustLevel::Caution }
}
