//! Which files a report consists of.

use crate::chart::{self, Scene};
use crate::csv::{parts_csv, results_csv, timeline_csv};
use crate::error::ReportError;
use crate::html::html;
use crate::json::results_json;
use crate::machines::machines_csv;
use crate::markdown::markdown;
use crate::png::png;
use crate::profile;
use crate::spec::{Format, Kind, ReportInput, ReportSpec};
use crate::svg::svg;
use crate::text::{terminal, terminal_table};
use scalebeam_model::results::Results;
use std::path::{Path, PathBuf};

/// Directory of charts.
const CHARTS: &str = "charts";
/// Width of the text file.
const TEXT_WIDTH: usize = 120;

/// Writes every file that `input` asks for below `dir`, and says which.
///
/// # Errors
/// When a file cannot be written or a picture not be drawn. Files that were written stay.
pub fn write_all(input: &ReportInput<'_>, dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let usual;
    let mut input = input.clone();
    if input.specs.is_empty() {
        usual = usual_specs(input.results);
        input.specs = &usual;
    }
    let mut out = Output { dir: dir.to_owned(), written: Vec::new() };
    let charts = charts(&input);
    let mut pictures = Vec::new();
    for (stem, scene) in &charts {
        if input.formats.contains(&Format::Svg) {
            out.write(&format!("{CHARTS}/{stem}.svg"), svg(scene).as_bytes())?;
        }
        if input.formats.contains(&Format::Png) {
            out.write(&format!("{CHARTS}/{stem}.png"), &png(scene)?)?;
        }
        let kinds = [Format::Svg, Format::Png];
        if let Some(kind) = kinds.into_iter().find(|f| input.formats.contains(f)) {
            let path = Path::new(CHARTS).join(format!("{stem}.{}", kind.name()));
            pictures.push((scene.title.clone(), path));
        }
    }
    for format in input.formats {
        match format {
            Format::Json => out.write("results.json", results_json(input.results)?.as_bytes())?,
            Format::Csv => {
                out.write("results.csv", results_csv(input.results, input.plan)?.as_bytes())?;
                out.write("timeline.csv", timeline_csv(input.results)?.as_bytes())?;
                if input.results.points.iter().any(|p| p.parts().next().is_some()) {
                    out.write("parts.csv", parts_csv(input.results)?.as_bytes())?;
                }
                if is_watched(input.results) {
                    out.write("machines.csv", machines_csv(input.results)?.as_bytes())?;
                }
            }
            Format::Html => {
                let scenes: Vec<Scene> = charts.iter().map(|(_, scene)| scene.clone()).collect();
                out.write("report.html", html(&input, &scenes)?.as_bytes())?;
            }
            Format::Markdown => out.write("results.md", markdown(&input, &pictures).as_bytes())?,
            Format::Text => out.write("report.txt", text(&input).as_bytes())?,
            Format::Svg | Format::Png => {}
        }
    }
    for (name, content) in profile::files(&input)? {
        out.write(&name, &content)?;
    }
    Ok(out.written)
}

fn is_watched(results: &Results) -> bool {
    results.points.iter().flat_map(|p| &p.trials).any(|t| t.usage.is_some())
}

fn text(input: &ReportInput<'_>) -> String {
    let mut text = terminal(input.results, input.plan, TEXT_WIDTH, false);
    for spec in input.specs.iter().filter(|s| s.kind == Kind::Table) {
        text.push('\n');
        text.push_str(&terminal_table(input.results, spec));
    }
    text
}

/// What is shown of a run whose file asks for nothing.
fn usual_specs(results: &Results) -> Vec<ReportSpec> {
    let of = |kind| ReportSpec { kind, ..ReportSpec::default() };
    let mut specs = vec![of(Kind::Panels)];
    let first = results.points.first();
    let has_levels = first.is_some_and(|f| {
        results
            .points
            .iter()
            .any(|p| p.deployment == f.deployment && p.load == f.load && p.level != f.level)
    });
    if has_levels {
        specs.push(of(Kind::Curve));
    }
    if !results.comparisons.is_empty() {
        specs.push(of(Kind::Compare));
    }
    if !results.scaling.is_empty() {
        specs.push(of(Kind::Scaling));
    }
    if !results.losses.is_empty() {
        specs.push(of(Kind::Waterfall));
    }
    specs.push(of(Kind::Timeline));
    specs
}

/// Charts with their file names, which are all different.
fn charts(input: &ReportInput<'_>) -> Vec<(String, Scene)> {
    let mut all: Vec<(String, Scene)> = Vec::new();
    if input.results.points.is_empty() {
        // Empty axes would say nothing.
        return all;
    }
    for spec in input.specs {
        let Some(scene) = chart::of_spec(input.results, input.plan, spec) else { continue };
        let wanted = spec.file.as_deref().unwrap_or(&scene.title);
        let stem = stem(wanted);
        let mut name = stem.clone();
        let mut n = 2;
        while all.iter().any(|(taken, _)| *taken == name) {
            name = format!("{stem}-{n}");
            n += 1;
        }
        all.push((name, scene));
    }
    all
}

/// A file name without extension: letters, digits and hyphens of `text`.
fn stem(text: &str) -> String {
    let text = [".svg", ".png"].into_iter().fold(text, |t, end| t.strip_suffix(end).unwrap_or(t));
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let out: String = out.trim_end_matches('-').chars().take(80).collect();
    if out.is_empty() { "chart".to_owned() } else { out }
}

struct Output {
    dir: PathBuf,
    written: Vec<PathBuf>,
}

impl Output {
    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), ReportError> {
        let path = self.dir.join(name);
        let parent = path.parent().unwrap_or(&self.dir);
        let done = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, content));
        done.map_err(|source| ReportError::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Profile;
    use crate::testing;

    #[test]
    fn every_format_is_written_under_its_name() {
        let (results, plan) = testing::run();
        let dir = tempfile::tempdir().unwrap();
        let input = ReportInput {
            results: &results,
            plan: &plan,
            specs: &[],
            formats: &Format::ALL,
            profile: Some(Profile::Seed1),
        };
        let written = write_all(&input, dir.path()).unwrap();
        let names: Vec<String> = written
            .iter()
            .map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert!(written.iter().all(|p| p.metadata().unwrap().len() > 0));
        insta::assert_snapshot!(names.join("\n"));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let (results, plan) = testing::run();
        let file = tempfile::NamedTempFile::new().unwrap();
        let formats = [Format::Json];
        let input = ReportInput {
            results: &results,
            plan: &plan,
            specs: &[],
            formats: &formats,
            profile: None,
        };
        let error = write_all(&input, file.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.ends_with("results.json"), "{error}");
    }

    #[test]
    fn titles_become_file_names_that_stay_below_the_directory() {
        for (title, name) in [
            ("How it scales", "how-it-scales"),
            ("../../etc/passwd", "etc-passwd"),
            ("fig1.png", "fig1"),
            ("…", "chart"),
        ] {
            assert_eq!(stem(title), name);
        }
    }
}
