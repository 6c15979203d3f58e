//! What the terminal shows: a table per load level, the verdicts, and why a number is doubted.
//!
//! The same text with and without colour: nothing is said by colour alone.

use crate::denominators;
use crate::engines;
use crate::fairness;
use crate::fronts;
use crate::metric::Named;
use crate::number;
use crate::ran;
use crate::scaling;
use crate::spec::ReportSpec;
use crate::table::{self, COLUMNS, Grid, Section};
use scalebeam_model::plan::Plan;
use scalebeam_model::results::Results;
use scalebeam_model::trust::TrustLevel;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Narrower than this no table can be laid out.
const MIN_WIDTH: usize = 60;
const MAX_NAME: usize = 28;
/// Rows of parts that a terminal shows.
const MAX_PARTS: usize = 12;
/// Steps of scaling that it shows.
const MAX_STEPS: usize = 16;
/// Losses that are told in sentences.
const MAX_LOSSES: usize = 4;
const MIN_NAME: usize = 10;

/// The verdict tables of a run, at most `width` columns wide where that is possible.
pub fn terminal(results: &Results, plan: &Plan, width: usize, colour: bool) -> String {
    let width = width.max(MIN_WIDTH);
    let pen = Pen { colour };
    let mut out = String::new();
    line(&mut out, &pen.bold(&format!("{}  {}", results.name, plan.model.id)));
    line(&mut out, &pen.dim(&format!("run {}", results.run)));
    if results.incomplete {
        let text = "The run was cut short: points or trials are missing, and what was cut in its middle says so.";
        line(&mut out, &pen.alert(text));
    }
    for section in table::sections(results) {
        out.push('\n');
        line(&mut out, &pen.bold(&section.title));
        draw_section(&mut out, &section, width, pen);
    }
    if let Some(grid) = denominators::grid(results, plan).filter(|g| g.rows.len() <= MAX_PARTS) {
        out.push('\n');
        out.push_str(&draw_grid(&grid));
        if let Some(note) = &grid.note {
            item(&mut out, "", note, width);
        }
    }
    // More of them would bury the verdict; `parts.csv` and the page have all.
    if let Some(parts) = table::parts(results).filter(|g| g.rows.len() <= MAX_PARTS) {
        out.push('\n');
        out.push_str(&draw_grid(&parts));
    }
    for grid in engines::grids(results).filter(|g| g.rows.len() <= MAX_PARTS) {
        out.push('\n');
        out.push_str(&draw_grid(&grid));
    }
    if let Some(grid) = scaling::overview(results) {
        out.push('\n');
        match grid.rows.len() {
            n if n > MAX_STEPS => {
                line(&mut out, &format!("Scaling: {n} rows, in results.md and report.html"))
            }
            _ => out.push_str(&draw_grid(&grid)),
        }
    }
    closing(&mut out, results, plan, width, pen);
    out
}

/// A reason that may have several lines: the further ones below it as they were written.
fn reason(out: &mut String, mark: &str, text: &str, width: usize) {
    let (first, rest) = table::first_line(text);
    item(out, mark, first, width);
    for text in rest {
        item(out, "    ", text.trim_start(), width);
    }
}

/// A `table` report as text.
pub fn terminal_table(results: &Results, spec: &ReportSpec) -> String {
    draw_grid(&table::grid(results, spec))
}

/// Percentiles, each of a hundred, of every distribution that a point has.
pub fn terminal_percentiles(results: &Results, percentiles: &[f64]) -> String {
    draw_grid(&table::percentiles(results, percentiles))
}

pub(crate) fn draw_grid(grid: &Grid) -> String {
    let widths: Vec<usize> = (0..grid.head.len())
        .map(|i| {
            let cells = grid.rows.iter().map(|r| &r[i]).chain([&grid.head[i]]);
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let is_left = |i: usize| i < grid.names || i + 1 == grid.head.len();
    let row = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(i, c)| pad(c, widths[i], is_left(i)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = String::new();
    line(&mut out, &grid.title);
    line(&mut out, &row(&grid.head));
    line(&mut out, &"─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
    for cells in &grid.rows {
        line(&mut out, &row(cells));
    }
    out
}

#[derive(Debug, Clone, Copy)]
struct Pen {
    colour: bool,
}

impl Pen {
    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn alert(self, text: &str) -> String {
        self.with("31", text)
    }

    fn trust(self, level: TrustLevel, text: &str) -> String {
        match level {
            TrustLevel::Sound => self.with("32", text),
            TrustLevel::Caution => self.with("33", text),
            TrustLevel::Invalid => self.with("1;31", text),
        }
    }
}

pub(crate) fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A column: two lines of head, cells, and its rank in giving way.
struct Column {
    head: [String; 2],
    cells: Vec<String>,
    gives_way: u8,
    is_left: bool,
}

impl Column {
    fn width(&self) -> usize {
        let all = self.cells.iter().chain(&self.head);
        all.map(|c| c.chars().count()).max().unwrap_or(0)
    }
}

fn columns(section: &Section<'_>) -> Vec<Column> {
    let of = |head: [&str; 2], gives_way, is_left, cells| Column {
        head: head.map(str::to_owned),
        cells,
        gives_way,
        is_left,
    };
    let names: Vec<String> = section.points.iter().map(|p| table::row_name(p)).collect();
    let longest = told_apart(&names, MAX_NAME);
    let names = names.iter().map(|n| shorten(n, longest)).collect();
    let mut all = vec![of(["", "deployment"], 0, true, names)];
    for (name, head, below, gives_way) in section.columns() {
        let metric = Named::new(name);
        let cells = section.points.iter().map(|p| table::cell(&metric, p)).collect();
        all.push(of([head, below], gives_way, false, cells));
    }
    if let Some((metric, baseline)) = &section.against {
        let cells = section.points.iter().map(|p| section.ratio(p)).collect();
        let head = format!("vs {}", shorten(baseline, 16));
        all.push(of([metric.short.as_str(), head.as_str()], 6, true, cells));
    }
    let trust = section.points.iter().map(|p| table::trust_word(p.trust.level).to_owned());
    all.push(of(["", "trust"], 0, true, trust.collect()));
    all
}

fn draw_section(out: &mut String, section: &Section<'_>, width: usize, pen: Pen) {
    let mut columns = columns(section);
    let total = |columns: &[Column]| {
        columns.iter().map(Column::width).sum::<usize>() + 2 * columns.len().saturating_sub(1)
    };
    // First the long names give way, then columns, the least telling first.
    shorten_names(&mut columns, MIN_NAME.max(14), total, width);
    for rank in 1..=6 {
        if total(&columns) > width {
            columns.retain(|c| c.gives_way != rank);
        }
    }
    shorten_names(&mut columns, MIN_NAME, total, width);
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    for head in 0..2 {
        let cells = columns.iter().zip(&widths).map(|(c, w)| pad(&c.head[head], *w, c.is_left));
        line(out, &pen.dim(cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    line(out, &pen.dim(&"─".repeat(total(&columns))));
    for (row, point) in section.points.iter().enumerate() {
        let last = columns.len() - 1;
        let cells = columns.iter().zip(&widths).enumerate().map(|(i, (c, w))| {
            let cell = pad(&c.cells[row], *w, c.is_left);
            if i == last { pen.trust(point.trust.level, cell.trim_end()) } else { cell }
        });
        line(out, &cells.collect::<Vec<_>>().join("  "));
    }
}

/// The least width from `target` on at which no two names look the same.
fn told_apart(names: &[String], target: usize) -> usize {
    let distinct =
        |width: usize| names.iter().map(|n| shorten(n, width)).collect::<BTreeSet<String>>().len();
    let full = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let wanted = distinct(full);
    (target..full).find(|width| distinct(*width) == wanted).unwrap_or(full.max(target))
}

fn shorten_names(
    columns: &mut [Column],
    at_least: usize,
    total: impl Fn(&[Column]) -> usize,
    width: usize,
) {
    let excess = total(columns).saturating_sub(width);
    let Some(names) = columns.first_mut() else { return };
    let target = names.width().saturating_sub(excess).max(at_least);
    let target = told_apart(&names.cells, target);
    for cell in &mut names.cells {
        *cell = shorten(cell, target);
    }
}

fn closing(out: &mut String, results: &Results, plan: &Plan, width: usize, pen: Pen) {
    verdicts(out, results, width, pen);
    findings(out, results, width, pen);
    trust(out, results, width, pen);
    missing(out, results, plan, width, pen);
    expectations(out, results, width, pen);
}

fn verdicts(out: &mut String, results: &Results, width: usize, pen: Pen) {
    heading(out, "Verdict", pen);
    for verdict in &results.verdicts {
        let text = format!("{} {}: {}", verdict.load, verdict.level, verdict.text);
        item(out, "", &text, width);
        for text in &verdict.more {
            item(out, "  -", text, width);
        }
    }
    for search in &results.searches {
        let text = format!("{} {}: {}", search.load, search.deployment, search.text);
        item(out, "", &text, width);
    }
    if let Some(text) = table::no_verdict(results) {
        item(out, "", &text, width);
    }
}

/// Where the rest was lost, how classes fared, and what objectives were met.
fn findings(out: &mut String, results: &Results, width: usize, pen: Pen) {
    let losses = scaling::losses(results);
    if !losses.is_empty() {
        heading(out, "Where the rest was lost", pen);
        // The heaviest loads come last.
        let hidden = losses.len().saturating_sub(MAX_LOSSES);
        for (point, text) in losses.iter().skip(hidden) {
            item(out, "", &format!("{point}: {text}"), width);
        }
        if hidden > 0 {
            item(
                out,
                "",
                &format!("{hidden} more under lighter loads, in results.md and report.html"),
                width,
            );
        }
    }
    for (title, sentences) in [
        ("Beside each other", fairness::sentences(results)),
        ("At a target", fronts::sentences(results)),
    ] {
        if !sentences.is_empty() {
            heading(out, title, pen);
        }
        for (what, text) in sentences {
            item(out, "", &format!("{what}: {text}"), width);
        }
    }
    let objectives = table::objectives(results);
    if !objectives.is_empty() {
        heading(out, "Service-level objective", pen);
        for (point, is_met, text) in objectives {
            let text = format!("{point}: {text}");
            item(out, "", &if is_met { text } else { pen.alert(&text) }, width);
        }
    }
}

fn trust(out: &mut String, results: &Results, width: usize, pen: Pen) {
    let doubts = table::doubts(results);
    let changed = ran::changed(results);
    if !doubts.is_empty() || !changed.is_empty() {
        heading(out, "Trust", pen);
        for text in changed {
            item(out, &pen.alert("!"), &text, width);
        }
        for doubt in doubts {
            let word = format!("{} ({})", table::trust_word(doubt.level), doubt.code);
            let text = format!("{}: {}", doubt.points.join(", "), doubt.message());
            item(out, &pen.trust(doubt.level, &word), &text, width);
            item(out, "   next:", doubt.next_step, width);
        }
    }
    let failures = table::failures(results);
    if !failures.is_empty() {
        heading(out, "Failures", pen);
        for (point, text) in failures {
            item(out, "", &format!("{point}: {text}"), width);
        }
    }
}

fn missing(out: &mut String, results: &Results, plan: &Plan, width: usize, pen: Pen) {
    let metrics = COLUMNS.map(|(name, ..)| Named::new(name));
    let mut absences = table::absences(results, plan, &metrics);
    absences.extend(engines::absences(results));
    absences.extend(fairness::absences(&results.fairness));
    if !absences.is_empty() || !results.skipped.is_empty() {
        heading(out, "Missing", pen);
        for (why, what) in absences {
            item(out, &format!("{}:", number::ABSENT), &format!("{what}: {why}"), width);
        }
        for skipped in &results.skipped {
            let text = format!("{}: {}", skipped.deployment, skipped.reason);
            reason(out, "not measured:", &text, width);
        }
    }
}

fn expectations(out: &mut String, results: &Results, width: usize, pen: Pen) {
    if let Some(text) = table::expectations(results) {
        heading(out, "Expectations", pen);
        item(out, "", &text, width);
        for e in results.expects.iter().filter(|e| !e.holds) {
            let got = table::expected_value(e);
            if e.not_checked {
                let why = e.absent.as_deref().unwrap_or_default();
                item(out, "not checked:", &format!("{} at {}: {why}", e.what, e.point), width);
                continue;
            }
            let word = if e.warn_only { "warning:" } else { "FAILED:" };
            let text = format!("{} at {} (is {got})", e.what, e.point);
            item(out, &pen.alert(word), &text, width);
        }
    }
}

fn heading(out: &mut String, text: &str, pen: Pen) {
    out.push('\n');
    line(out, &pen.bold(text));
}

/// A sentence, wrapped, with its further lines indented.
pub(crate) fn item(out: &mut String, mark: &str, text: &str, width: usize) {
    let mut current = if mark.is_empty() { "  ".to_owned() } else { format!("  {mark} ") };
    let mut used = visible(&current);
    let mut is_first = true;
    for word in text.split_whitespace() {
        let size = word.chars().count();
        if !is_first && used + 1 + size > width {
            line(out, &current);
            current = "     ".to_owned();
            used = 5;
            is_first = true;
        }
        if !is_first {
            current.push(' ');
            used += 1;
        }
        // Writing to a String cannot fail.
        let _ = write!(current, "{word}");
        used += size;
        is_first = false;
    }
    line(out, &current);
}

/// Columns that a text takes, without its colour codes.
fn visible(text: &str) -> usize {
    let mut is_code = false;
    text.chars()
        .filter(|c| {
            let counts = !is_code && *c != '\x1b';
            is_code = *c == '\x1b' || (is_code && *c != 'm');
            counts
        })
        .count()
}

fn pad(text: &str, width: usize, is_left: bool) -> String {
    if is_left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

/// Cuts in the middle, so that both ends can be told apart.
fn shorten(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head = kept.div_ceil(2);
    let tail = chars.len() - (kept - head);
    chars[..head].iter().chain(&['…']).chain(&chars[tail..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::results::{SearchResult, SearchSide};
    use scalebeam_model::search::End;

    #[test]
    fn the_verdict_fits_the_terminal() {
        let (results, plan) = testing::run();
        for width in [60, 80, 100, 110, 160] {
            let text = terminal(&results, &plan, width, false);
            let longest = text.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(longest <= width.max(84), "{width}: {longest}\n{text}");
            assert!(!text.contains('\x1b'));
        }
    }

    #[test]
    fn the_verdict_at_110_columns() {
        let (results, plan) = testing::run();
        insta::assert_snapshot!(terminal(&results, &plan, 110, false));
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let (results, plan) = testing::run();
        let plain = terminal(&results, &plan, 110, false);
        let colour = terminal(&results, &plan, 110, true);
        let lines = colour.lines().map(|l| {
            let mut is_code = false;
            l.chars()
                .filter(|c| {
                    let counts = !is_code && *c != '\x1b';
                    is_code = *c == '\x1b' || (is_code && *c != 'm');
                    counts
                })
                .collect::<String>()
        });
        let stripped: Vec<String> = lines.collect();
        assert_eq!(stripped.join("\n"), plain.trim_end());
    }

    #[test]
    fn names_are_never_cut_until_two_look_the_same() {
        let (mut results, plan) = testing::run();
        let names = [
            ("qwen-32b-tensor-4-over-ray-a", "qwen-32b-tensor-8-over-ray-a"),
            (
                "qwen-32b-on-the-large-machine-tensor-4-over-ray-with-chunks",
                "qwen-32b-on-the-large-machine-tensor-8-over-ray-with-chunks",
            ),
        ];
        let (old, _) = testing::run();
        for (first, second) in names {
            for (point, before) in results.points.iter_mut().zip(&old.points) {
                point.deployment = match before.deployment.as_str() {
                    "single-4gpu" => first.to_owned(),
                    "dual-2x4gpu" => second.to_owned(),
                    other => other.to_owned(),
                };
            }
            for width in [60, 80, 120] {
                let text = terminal(&results, &plan, width, false);
                let (table, _) = text.split_once("users c64").unwrap();
                let names = table.lines().filter_map(|l| l.split(' ').next());
                let names: BTreeSet<&str> = names.filter(|n| n.starts_with("qwen")).collect();
                assert_eq!(names.len(), 2, "{text}");
            }
        }
    }

    #[test]
    fn a_search_has_its_answer_and_one_table_of_what_it_tried() {
        let (mut results, plan) = testing::run();
        results.points.iter_mut().for_each(|p| p.is_probe = true);
        let side = |level: &str, value| SearchSide {
            level: level.to_owned(),
            value,
            sure: true,
            trust: TrustLevel::Sound,
        };
        results.searches.push(SearchResult {
            deployment: "single-4gpu".to_owned(),
            load: "users".to_owned(),
            slo: "ttft.p99 <= 1.00 s".to_owned(),
            unit: "requests in flight".to_owned(),
            met: Some(side("c64", 64.0)),
            missed: Some(side("c256", 256.0)),
            interval: None,
            precision: 3.0,
            probes: 2,
            end: Some(End::Found),
            text: "the answer".to_owned(),
        });
        let text = terminal(&results, &plan, 110, false);
        assert!(text.contains("users single-4gpu: the answer"), "{text}");
        assert_eq!(text.matches("users: levels that the search tried").count(), 1, "{text}");
        // A long name gives way in its middle, the level behind it never does.
        for (name, level) in [("single-4gpu", "c64"), ("dual-8gpu-tp4-", "c256")] {
            let is_row = |l: &str| l.starts_with(name) && l.contains(&format!(" {level} "));
            assert_eq!(text.lines().filter(|l| is_row(l)).count(), 1, "{name} {level}\n{text}");
        }
    }

    #[test]
    fn a_table_report_as_text() {
        let (results, _) = testing::run();
        insta::assert_snapshot!(terminal_table(&results, &testing::specs()[5]));
    }
}
