//! From a run directory to results, reports and an exit code. A new run and an old one end here alike.

use super::SKIPPED;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::analysis::{Frame, analyse};
use scalebeam_model::results::{Results, Skipped};
use scalebeam_model::spec::{Experiment, ReportKind};
use scalebeam_model::trust::TrustLevel;
use scalebeam_record::{RunReader, RunStatus, write_results};
use scalebeam_report::{Format, Profile, ReportInput, ReportSpec};

/// Analyses the run, writes its results and reports, prints them, and says how to end.
pub(crate) fn conclude(
    reader: &RunReader,
    formats: Option<Vec<Format>>,
    json: bool,
) -> Result<Status, Failure> {
    let experiment = experiment(reader)?;
    let results = results(reader, &experiment)?;
    write_results(reader.dir(), &results)?;
    let specs: Vec<ReportSpec> =
        experiment.report.iter().filter_map(ReportSpec::from_file).collect();
    let output = experiment.output.clone().unwrap_or_default();
    let of_file: Vec<Format> =
        output.formats.iter().filter_map(|f| Format::from_file(*f)).collect();
    let input = ReportInput {
        results: &results,
        plan: reader.plan(),
        specs: &specs,
        formats: &formats.unwrap_or(of_file),
        profile: output.profile.and_then(Profile::from_file),
    };
    let files = scalebeam_report::write_all(&input, reader.dir())?;
    if json {
        printer::json(&results)?;
    } else {
        let colour = printer::wants_colour();
        let text = scalebeam_report::terminal(&results, reader.plan(), printer::width(), colour);
        printer::data(&text);
    }
    say_where(reader, &files);
    Ok(match reader.manifest().status {
        RunStatus::Failed => Status::Deployment,
        _ => status(&results),
    })
}

fn say_where(reader: &RunReader, files: &[std::path::PathBuf]) {
    let page = files.iter().find(|f| f.extension().is_some_and(|e| e == "html"));
    match page {
        Some(page) => printer::say(&format!("report {}", page.display())),
        None => printer::say(&format!("results {}", reader.dir().display())),
    }
}

fn experiment(reader: &RunReader) -> Result<Experiment, Failure> {
    let shown = reader.dir().join("experiment.toml").display().to_string();
    let loaded =
        crate::experiment::from_text(reader.experiment().to_owned(), &shown, Default::default())?;
    Ok(loaded.experiment)
}

/// Everything that is said of the run, from its records alone.
fn results(reader: &RunReader, experiment: &Experiment) -> Result<Results, Failure> {
    let plan = reader.plan();
    let points = reader.measured_points()?;
    let compared = experiment.report.iter().filter(|r| r.kind == ReportKind::Compare);
    let frame = Frame {
        run: &reader.manifest().run,
        // A deployment that failed is named with its reason; the rest of the run went on.
        incomplete: matches!(reader.manifest().status, RunStatus::Running | RunStatus::Interrupted),
        skipped: skipped(reader)?,
        baseline: compared.clone().find_map(|r| r.baseline.as_deref()),
        metrics: compared.flat_map(|r| &r.metrics).map(String::as_str).collect(),
        expects: &experiment.expect,
    };
    Ok(analyse(plan, &points, &frame))
}

fn skipped(reader: &RunReader) -> Result<Vec<Skipped>, Failure> {
    let path = reader.dir().join(SKIPPED);
    let Ok(text) = std::fs::read(&path) else { return Ok(Vec::new()) };
    serde_json::from_slice(&text)
        .map_err(|e| Failure::internal(format!("{} is damaged: {e}", path.display())))
}

/// An expectation that failed decides; only then whether the numbers can be relied on.
fn status(results: &Results) -> Status {
    // What was not measured to its end has not failed an expectation.
    if results.incomplete {
        return Status::NotTrustworthy;
    }
    if results.expects.iter().any(|e| !e.holds && !e.warn_only) {
        return Status::ExpectationFailed;
    }
    if results.points.iter().any(|p| p.trust.level == TrustLevel::Invalid) {
        return Status::NotTrustworthy;
    }
    Status::Ok
}
