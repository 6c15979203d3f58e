//! A page for a repository or a pull request.

use crate::chart::shortened;
use crate::denominators;
use crate::engines;
use crate::fairness;
use crate::fronts;
use crate::machines;
use crate::metric::Named;
use crate::number;
use crate::ran;
use crate::scaling;
use crate::spec::Kind;
use crate::spec::ReportInput;
use crate::table::{self, COLUMNS, Section};
use scalebeam_model::trust::TrustLevel;
use std::fmt::Write;
use std::path::Path;

/// Writes the run as Markdown; `charts` are pictures by title, relative to the page.
pub fn markdown(input: &ReportInput<'_>, charts: &[(String, std::path::PathBuf)]) -> String {
    let results = input.results;
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "# {}\n", escaped(&results.name));
    let _ = writeln!(out, "Model `{}`, run `{}`.\n", input.plan.model.id, results.run);
    if results.incomplete {
        out.push_str(
            "**The run was cut short: points or trials are missing, and what was cut in its middle says so.**\n\n",
        );
    }
    out.push_str("## Verdict\n\n");
    if let Some(text) = table::no_verdict(results) {
        let _ = writeln!(out, "- {}", escaped(&text));
    }
    for verdict in &results.verdicts {
        let _ = writeln!(
            out,
            "- **{} {}**: {}",
            escaped(&verdict.load),
            escaped(&verdict.level),
            escaped(&verdict.text)
        );
        for text in &verdict.more {
            let _ = writeln!(out, "  - {}", escaped(text));
        }
    }
    for search in &results.searches {
        let _ = writeln!(
            out,
            "- **{} {}**: {}",
            escaped(&search.load),
            escaped(&search.deployment),
            escaped(&search.text)
        );
    }
    for section in table::sections(results) {
        let _ = writeln!(out, "\n## {}\n", escaped(&section.title));
        write_section(&mut out, &section);
    }
    let grids = input.specs.iter().filter(|s| s.kind == Kind::Table);
    let grids = grids.map(|s| table::grid(results, s)).filter(|g| !g.rows.is_empty());
    let found = denominators::grid(results, input.plan).into_iter();
    let found = found.chain(table::parts(results));
    let found = found.chain(scaling::grids(results)).chain(scaling::loss_grid(results));
    let found = found.chain(fairness::grids(results)).chain(fronts::grids(results));
    let found = found.chain(machines::grid(results)).chain(machines::pods(results));
    let found = found.chain(engines::grids(results));
    for grid in grids.chain(found) {
        let _ = writeln!(out, "\n## {}\n", escaped(&grid.title));
        let is_words = |i: usize| i < grid.names || !grid.rows.iter().any(|row| is_number(&row[i]));
        let rule = |i| if is_words(i) { "---" } else { "---:" }.to_owned();
        let rule: Vec<String> = (0..grid.head.len()).map(rule).collect();
        write_row(&mut out, &grid.head);
        write_row(&mut out, &rule);
        for row in &grid.rows {
            write_row(&mut out, row);
        }
        if let Some(note) = &grid.note {
            let _ = writeln!(out, "\n{}", escaped(note));
        }
    }
    if !charts.is_empty() {
        out.push_str("\n## Charts\n");
    }
    for (title, path) in charts {
        let title = escaped(&shortened(title, 10.0, 900.0));
        let _ = writeln!(out, "\n![{title}]({})", link(path));
    }
    closing(&mut out, input);
    out
}

/// Numbers stand under each other by their last digit, words by their first letter.
fn is_number(cell: &str) -> bool {
    let begins = cell.trim_start_matches(['<', '>', '+', '-', '~', '!', ' ']);
    begins.starts_with(|c: char| c.is_ascii_digit())
}

fn write_section(out: &mut String, section: &Section<'_>) {
    let mut head = vec!["Deployment".to_owned()];
    let mut rule = vec!["---".to_owned()];
    let columns = section.columns();
    for (_, top, below, _) in &columns {
        head.push(format!("{top} {below}").trim_end().to_owned());
        rule.push("---:".to_owned());
    }
    if let Some((metric, baseline)) = &section.against {
        head.push(format!("{} vs {baseline}", metric.short));
        rule.push("---".to_owned());
    }
    head.push("Trust".to_owned());
    rule.push("---".to_owned());
    write_row(out, &head);
    write_row(out, &rule);
    for point in &section.points {
        let mut row = vec![table::row_name(point)];
        row.extend(columns.iter().map(|(name, ..)| table::cell(&Named::new(name), point)));
        if section.against.is_some() {
            row.push(section.ratio(point));
        }
        row.push(table::trust_word(point.trust.level).to_owned());
        write_row(out, &row);
    }
}

fn closing(out: &mut String, input: &ReportInput<'_>) {
    let results = input.results;
    let objectives = table::objectives(results);
    if !objectives.is_empty() {
        out.push_str("\n## Service-level objective\n\n");
    }
    for (point, _, text) in objectives {
        let _ = writeln!(out, "- **{}** {}", escaped(&point), escaped(&text));
    }
    let doubts = table::doubts(results);
    if !doubts.is_empty() {
        out.push_str("\n## Trust\n\n");
    }
    for doubt in doubts {
        let word = if doubt.level == TrustLevel::Invalid { "INVALID" } else { "caution" };
        let _ = writeln!(
            out,
            "- **{word}** (`{}`) {}: {} Next: {}.",
            doubt.code,
            escaped(&doubt.points.join(", ")),
            sentence(&doubt.message()),
            escaped(doubt.next_step)
        );
    }
    write_list(out, "Scaling", scaling::sentences(results));
    write_list(out, "Where the rest was lost", scaling::losses(results));
    let accounts = table::accounts(results);
    if !accounts.is_empty() {
        out.push_str("\n## Where it went\n\n");
    }
    for (point, text) in accounts {
        let _ = writeln!(out, "- **{}** {}", escaped(&point), escaped(&text));
    }
    let failures = table::failures(results);
    if !failures.is_empty() {
        out.push_str("\n## Failures\n\n");
    }
    for (point, text) in failures {
        let _ = writeln!(out, "- {}: {}", escaped(&point), escaped(&text));
    }
    let metrics = COLUMNS.map(|(name, ..)| Named::new(name));
    let mut absences = table::absences(results, input.plan, &metrics);
    absences.extend(engines::absences(results));
    absences.extend(fairness::absences(&results.fairness));
    if !absences.is_empty() || !results.skipped.is_empty() {
        out.push_str("\n## Missing\n\n");
    }
    for (why, what) in absences {
        let _ = writeln!(out, "- {}: {}: {}", number::ABSENT, escaped(&what), escaped(&why));
    }
    for skipped in &results.skipped {
        let (why, rest) = table::first_line(&skipped.reason);
        let _ = writeln!(out, "- not measured: {}: {}", escaped(&skipped.deployment), escaped(why));
        if !rest.is_empty() {
            let rest: String = rest.iter().map(|l| format!("  {}\n", l.trim_start())).collect();
            // A fence of a length that no log has.
            let _ = write!(out, "\n  ~~~~~~text\n{rest}  ~~~~~~\n");
        }
    }
    write_ran(out, input);
    if let Some(text) = table::expectations(results) {
        let _ = writeln!(out, "\n## Expectations\n\n{text}.\n");
    }
    let (held, broken): (Vec<_>, Vec<_>) = results.expects.iter().partition(|e| e.holds);
    for e in broken.into_iter().chain(held) {
        let got = escaped(&table::expected_value(e));
        let word = match (e.holds, e.not_checked, e.warn_only) {
            (true, ..) => "holds",
            (_, true, _) => "not checked",
            (.., true) => "**warning**",
            (.., false) => "**FAILED**",
        };
        let _ = writeln!(out, "- {word}: `{}` at {} (is {got})", e.what, escaped(&e.point));
    }
}

fn write_list(out: &mut String, head: &str, items: Vec<(String, &str)>) {
    if !items.is_empty() {
        let _ = writeln!(out, "\n## {head}\n");
    }
    for (what, text) in items {
        let _ = writeln!(out, "- **{}** {}", escaped(&what), escaped(text));
    }
}

fn write_ran(out: &mut String, input: &ReportInput<'_>) {
    let rows = ran::rows(input.results);
    let changed = ran::changed(input.results);
    if !rows.is_empty() {
        out.push_str("\n## What ran\n\n");
    }
    for text in changed {
        let _ = writeln!(out, "**{}**\n", sentence(&text));
    }
    for row in rows {
        let (name, engine) = (escaped(&row.name), escaped(&row.engine));
        let _ = writeln!(out, "- **{name}**: engine {engine}");
        for (host, what) in &row.hosts {
            let _ = writeln!(out, "  - {}: {}", escaped(host), escaped(what));
        }
        // A fence of a length that no command line has.
        out.push_str("\n  ~~~~~~text\n");
        for (process, command) in &row.processes {
            let command = command.replace(['\n', '\r'], " ");
            let _ = writeln!(out, "  {process}: {command}");
        }
        out.push_str("  ~~~~~~\n\n");
    }
}

fn sentence(text: &str) -> String {
    let text = escaped(text.trim_end_matches('.'));
    format!("{text}.")
}

fn write_row(out: &mut String, cells: &[String]) {
    let is_rule = |c: &String| c.trim_matches('-').trim_matches(':').is_empty();
    let cells: Vec<String> =
        cells.iter().map(|c| if is_rule(c) { c.clone() } else { escaped(c) }).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// Text that Markdown leaves as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '`' | '\\' | '<' | '>' => {
                out.push('\\');
                out.push(c);
            }
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn link(path: &Path) -> String {
    let parts: Vec<String> =
        path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
    parts.join("/").replace(' ', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_page() {
        let (results, plan) = testing::run();
        let specs = testing::specs();
        let input = ReportInput {
            results: &results,
            plan: &plan,
            specs: &specs,
            formats: &[],
            profile: None,
        };
        let charts = [("How it scales".to_owned(), Path::new("charts/how-it-scales.svg").into())];
        insta::assert_snapshot!(markdown(&input, &charts));
    }
}
