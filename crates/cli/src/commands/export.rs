//! `export`: a run in the files of other tools.

use crate::args::ExportArgs;
use crate::campaign::outcome;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::analysis::MeasuredPoint;
use scalebeam_model::results::{PointResult, Results, Unrecorded};
use scalebeam_model::trust::TrustLevel;
use scalebeam_model::units::Nanos;
use scalebeam_record::{RunReader, TrialReader, TrialState};
use scalebeam_report::{ExportFiles, ExportInput, ExportTrial, export, export_form};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &ExportArgs) -> Result<Status, Failure> {
    let form = export_form(&args.form)
        .ok_or_else(|| Failure::usage(format!("--as: no form '{}'", args.form)))?;
    let reader = RunReader::open(&args.run)?;
    let mut points = reader.measured_points()?;
    let mut results = outcome::analysed(&reader, &points, &[])?;
    select(&reader, &args.deploy, &mut points, &mut results)?;
    let input = input(&reader, &results, &points)?;
    if input.trials.is_empty() {
        return Err(nothing(&args.run, &input.missing));
    }
    let files = export(form, &input)?;
    let out = args.out.clone().unwrap_or_else(|| args.run.join("export").join(form.name));
    let written = write(&out, &files)?;
    if args.json {
        printer::json(&written)?;
    } else {
        let names = written.iter().map(|path| format!("{}\n", path.display()));
        printer::data(&names.collect::<String>());
    }
    outcome::say_trust(&results);
    input.missing.iter().for_each(|what| printer::say(&format!("not exported: {what}")));
    let is_invalid = input.trials.iter().any(|t| t.point.trust.level == TrustLevel::Invalid);
    // What is not there is no more to be trusted than what is there and invalid.
    let is_whole = !is_invalid && input.missing.is_empty();
    Ok(if is_whole { Status::Ok } else { Status::NotTrustworthy })
}

/// Keeps what is of the `asked` deployments; of all where none is asked.
fn select(
    reader: &RunReader,
    asked: &[String],
    points: &mut Vec<MeasuredPoint<'_>>,
    results: &mut Results,
) -> Result<(), Failure> {
    let names: Vec<&str> = reader.plan().deployments.iter().map(|d| d.name.as_str()).collect();
    if let Some(unknown) = asked.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Failure::usage(format!("--deploy: the run has no deployment '{unknown}'"))
            .hint(format!("it has {}", names.join(", "))));
    }
    let is_asked = |name: &String| asked.is_empty() || asked.contains(name);
    points.retain(|p| is_asked(&p.plan.deployment));
    results.points.retain(|p| is_asked(&p.deployment));
    results.unrecorded.retain(|p| is_asked(&p.deployment));
    Ok(())
}

fn input<'a>(
    reader: &'a RunReader,
    results: &'a Results,
    points: &'a [MeasuredPoint<'_>],
) -> Result<ExportInput<'a>, Failure> {
    let mut trials = Vec::new();
    let lost = |p: &Unrecorded| {
        format!("`{}/{}/{}`, all of it: {}", p.deployment, p.load, p.level, p.reason)
    };
    let mut missing: Vec<String> = results.unrecorded.iter().map(lost).collect();
    let ended = outcome::ended(reader);
    for measured in points {
        let plan = measured.plan;
        let Some(point) = results.points.iter().find(|p| is_of(p, measured)) else {
            // Levels of a search that it did not try have no trials either.
            missing.extend(skipped(reader, results, measured));
            continue;
        };
        let looks = reader.trials(plan)?;
        missing.extend(gone(measured, point.is_probe, &ended));
        for trial in &measured.trials {
            let number = trial.number;
            let look = looks.iter().find(|look| look.number() == Some(number));
            let why = match (&trial.damaged, look) {
                (Some(why), _) => Some(format!("it is damaged: {why}")),
                (None, Some(look)) if look.state() == TrialState::Complete => None,
                _ => Some("it was cut short".to_owned()),
            };
            if let Some(why) = why {
                missing.push(format!("`{}`, trial {number}: {why}", plan.id));
                continue;
            }
            let [began, ended] = look.map_or([None, None], |look| span(reader, look));
            trials.push(ExportTrial { plan, point, number, records: &trial.records, began, ended });
        }
    }
    let tool = env!("CARGO_PKG_VERSION");
    Ok(ExportInput { results, plan: reader.plan(), tool, trials, missing })
}

/// What is to be told of a point whose deployment was not measured, unless the file lets it be absent.
fn skipped(reader: &RunReader, results: &Results, measured: &MeasuredPoint<'_>) -> Option<String> {
    let (plan, point) = (reader.plan(), measured.plan);
    let is_asked = plan.points.iter().any(|p| p.id == point.id);
    let may_be_absent = plan.deployment(&point.deployment).is_none_or(|d| d.optional);
    let why = results.skipped.iter().find(|s| s.deployment == point.deployment)?;
    let why = why.reason.lines().next().unwrap_or_default();
    (is_asked && !may_be_absent).then(|| format!("`{}`, all of it: {why}", point.id))
}

/// Trials of a point of which nothing is there. A search tries a level as often as it has to.
fn gone(
    measured: &MeasuredPoint<'_>,
    is_probe: bool,
    ended: &BTreeSet<(String, u32)>,
) -> Vec<String> {
    let plan = measured.plan;
    let has_ended = |n: u32| ended.contains(&(plan.id.clone(), n));
    let is_there = |n: u32| measured.trials.iter().any(|t| t.number == n);
    let numbers = plan.trials.iter().map(|t| t.number);
    let gone = numbers.filter(|n| !is_there(*n) && (!is_probe || has_ended(*n)));
    let told = |n: u32| {
        let why = match has_ended(n) {
            true => "by the journal it was measured to the end, and the record is gone",
            false => "nothing is recorded of it",
        };
        format!("`{}`, trial {n}: {why}", plan.id)
    };
    gone.map(told).collect()
}

fn is_of(point: &PointResult, measured: &MeasuredPoint<'_>) -> bool {
    let plan = measured.plan;
    point.deployment == plan.deployment
        && point.load == plan.load
        && point.level == plan.level.label
}

/// When the measurement began and ended, since the Unix epoch.
fn span(reader: &RunReader, trial: &TrialReader) -> [Option<Nanos>; 2] {
    let measure = trial.info().and_then(|info| info.measure);
    let Some((span, session)) = measure.zip(trial.session()) else { return [None, None] };
    let unix = |at: Nanos| reader.manifest().unix_ns(session, at.0).map(Nanos);
    [unix(span.started_at), unix(span.ended_at)]
}

fn nothing(run: &Path, missing: &[String]) -> Failure {
    let why = missing.first().map_or_else(String::new, |why| format!(": {why}"));
    Failure::usage(format!("{} has no complete trial{why}", run.display()))
        .hint("scalebeam run --resume RUN measures what is missing")
}

fn write(out: &Path, files: &ExportFiles) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::with_capacity(files.len());
    for (name, content) in files {
        let path = out.join(name);
        let fail =
            |e: std::io::Error| Failure::usage(format!("cannot write {}: {e}", path.display()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        std::fs::write(&path, content).map_err(fail)?;
        written.push(path);
    }
    Ok(written)
}
