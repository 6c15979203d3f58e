//! From a run directory to results, reports and an exit code. A new run and an old one end here alike.

use super::{SKIPPED, exchange};
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_fleet::journal::{self, Entry, Event};
use scalebeam_model::analysis::{Frame, MeasuredPoint, TrialRecords, analyse};
use scalebeam_model::peers::{self, PEERS, Peer};
use scalebeam_model::plan::PointPlan;
use scalebeam_model::ran::ran;
use scalebeam_model::results::{Results, Skipped};
use scalebeam_model::spec::{Experiment, ReportKind, ReportSpec as FileReportSpec};
use scalebeam_model::trust::TrustLevel;
use scalebeam_record::{
    RunReader, RunStatus, read_doctor, read_fingerprint, read_floor, write_results,
};
use scalebeam_report::{Format, Profile, Redefined, ReportInput, ReportSpec};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What goes to stdout.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    json: bool,
    define: Vec<&'static Peer>,
    percentiles: Vec<f64>,
}

impl Shown {
    /// `define` has names of tools.
    pub(crate) fn new(json: bool, define: &[String]) -> Result<Self, Failure> {
        let find = |name: &String| {
            peers::find(name).ok_or_else(|| {
                let known: Vec<_> = PEERS.iter().map(|p| p.name).collect();
                Failure::usage(format!("--define: no definitions of '{name}'"))
                    .hint(format!("known are {}", known.join(", ")))
            })
        };
        let define = define.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { json, define, percentiles: Vec::new() })
    }

    /// Also these percentiles of every distribution, each of a hundred.
    pub(crate) fn with_percentiles(self, of_hundred: &[f64]) -> Self {
        Self { percentiles: of_hundred.to_vec(), ..self }
    }
}

/// Analyses the run, writes its results and reports, prints them, and says how to end.
pub(crate) fn conclude(
    reader: &RunReader,
    formats: Option<Vec<Format>>,
    shown: &Shown,
) -> Result<Status, Failure> {
    let experiment = experiment(reader)?;
    let points = reader.measured_points()?;
    let results = results(reader, &experiment, &points, &shown.percentiles, &[])?;
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
        profile: output.profile.map(Profile::from_file),
    };
    let files = scalebeam_report::write_all(&input, reader.dir())?;
    if !shown.define.is_empty() {
        say_trust(&results);
        say_redefined(shown, &counted(reader, points)?)?;
    } else if shown.json {
        printer::json(&results)?;
    } else {
        let colour = printer::wants_colour();
        let text = scalebeam_report::terminal(&results, reader.plan(), printer::width(), colour);
        printer::data(&text);
        if !shown.percentiles.is_empty() {
            let text = scalebeam_report::terminal_percentiles(&results, &shown.percentiles);
            printer::data(&format!("\n{text}"));
        }
    }
    say_where(reader, &files);
    Ok(match reader.manifest().status {
        RunStatus::Failed => Status::Deployment,
        _ => status(&results),
    })
}

/// Other tools' words know no trust, so it is said beside them.
pub(crate) fn say_trust(results: &Results) {
    for point in results.points.iter().filter(|p| p.trust.level > TrustLevel::Sound) {
        let grave = point.trust.reasons.iter().filter(|r| r.level > TrustLevel::Sound);
        let codes: Vec<&str> = grave.map(|r| r.code.as_str()).collect();
        printer::say(&format!(
            "{} ({}): {}/{}/{}",
            point.trust.level.name(),
            codes.join(", "),
            point.deployment,
            point.load,
            point.level
        ));
    }
}

/// The same requests as other tools would have told of them.
fn say_redefined(shown: &Shown, points: &[MeasuredPoint<'_>]) -> Result<(), Failure> {
    let of_peer = |peer: &'static Peer| -> (&'static Peer, Vec<Redefined>) {
        let trials = points.iter().flat_map(|p| p.trials.iter().map(move |t| (p.plan, t)));
        let redefine = |(plan, trial): (&PointPlan, &TrialRecords)| Redefined {
            deployment: plan.deployment.clone(),
            load: plan.load.clone(),
            level: plan.level.label.clone(),
            trial: trial.number,
            rows: peer.rows(&trial.records),
        };
        (peer, trials.map(redefine).collect())
    };
    let all = shown.define.iter().map(|peer| of_peer(peer));
    if shown.json {
        let all: Vec<_> = all.map(|(p, t)| scalebeam_report::redefined_json(p, &t)).collect();
        return printer::json(&all);
    }
    let texts = all.map(|(p, t)| scalebeam_report::redefined(p, &t, printer::width()));
    printer::data(&texts.collect::<Vec<_>>().join("\n"));
    Ok(())
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

/// What was measured, as the results of the run count it.
pub(crate) fn measured(reader: &RunReader) -> Result<Vec<MeasuredPoint<'_>>, Failure> {
    counted(reader, reader.measured_points()?)
}

/// What of `points` the results of the run count.
fn counted<'a>(
    reader: &RunReader,
    points: Vec<MeasuredPoint<'a>>,
) -> Result<Vec<MeasuredPoint<'a>>, Failure> {
    let failed = skipped(reader)?;
    let of = |point: MeasuredPoint<'a>| {
        let without_cut = match point.of_whole_trials(&failed) {
            Cow::Owned(whole) => Some(MeasuredPoint { plan: point.plan, trials: whole.trials }),
            Cow::Borrowed(_) => None,
        };
        without_cut.unwrap_or(point)
    };
    Ok(points.into_iter().map(of).collect())
}

/// What is said of the run, and of `metrics` besides; nothing is written.
pub(crate) fn analysed(
    reader: &RunReader,
    points: &[MeasuredPoint<'_>],
    metrics: &[&str],
) -> Result<Results, Failure> {
    results(reader, &experiment(reader)?, points, &[], metrics)
}

/// Everything that is said of the run, from its records alone.
fn results(
    reader: &RunReader,
    experiment: &Experiment,
    points: &[MeasuredPoint<'_>],
    percentiles: &[f64],
    metrics: &[&str],
) -> Result<Results, Failure> {
    let plan = reader.plan();
    let floor = read_floor(reader.dir())?;
    let paths = read_doctor(reader.dir())?.map_or_else(Vec::new, |report| report.paths);
    let print = read_fingerprint(reader.dir())?;
    let compared = experiment.report.iter().filter(|r| r.kind == ReportKind::Compare);
    let frame = Frame {
        run: &reader.manifest().run,
        // A deployment that failed is named with its reason; the rest of the run went on.
        incomplete: matches!(reader.manifest().status, RunStatus::Running | RunStatus::Interrupted),
        skipped: skipped(reader)?,
        baseline: compared.clone().find_map(|r| r.baseline.as_deref()),
        metrics: compared.flat_map(|r| &r.metrics).map(String::as_str).collect(),
        shown: experiment
            .report
            .iter()
            .flat_map(shown_metrics)
            .chain(metrics.iter().copied())
            .collect(),
        percentiles: percentiles.to_vec(),
        reports: &experiment.report,
        expects: &experiment.expect,
        floor: floor.as_ref(),
        exchanges: exchange::all(plan, &print, &paths),
        paths,
        ended: ended(reader),
    };
    let ran = ran(&print);
    Ok(Results { ran, ..analyse(plan, points, &frame) })
}

/// Trials that the journal says were measured. It was written for `down`: one that cannot be read says nothing here.
pub(crate) fn ended(reader: &RunReader) -> BTreeSet<(String, u32)> {
    let journal = journal::of_measurement(reader.dir()).unwrap_or_default();
    let trial = |entry: Entry| match entry.event {
        Event::TrialEnded { point, trial } => Some((point, trial)),
        _ => None,
    };
    journal.entries.into_iter().filter_map(trial).collect()
}

fn shown_metrics(report: &FileReportSpec) -> impl Iterator<Item = &str> {
    report.metrics.iter().chain(&report.x).chain(&report.y).map(String::as_str)
}

fn skipped(reader: &RunReader) -> Result<Vec<Skipped>, Failure> {
    let path = reader.dir().join(SKIPPED);
    let Ok(text) = std::fs::read(&path) else { return Ok(Vec::new()) };
    serde_json::from_slice(&text)
        .map_err(|e| Failure::internal(format!("{} is damaged: {e}", path.display())))
}

/// An expectation that failed decides; only then whether the numbers can be relied on.
fn status(results: &Results) -> Status {
    // What was not measured to its end has not failed an expectation, and neither has what is gone.
    if results.incomplete {
        return Status::NotTrustworthy;
    }
    let is_whole = results.unrecorded.is_empty();
    if results.expects.iter().any(|e| e.has_failed() && (is_whole || e.value.is_some())) {
        return Status::ExpectationFailed;
    }
    if !is_whole {
        return Status::NotTrustworthy;
    }
    // A search must try what is too much; only the level that its answer rests on has to hold.
    let is_invalid = |level: TrustLevel| level == TrustLevel::Invalid;
    let mut asked = results.points.iter().filter(|p| !p.is_probe);
    let mut found = results.searches.iter().filter_map(|s| s.met.as_ref());
    if asked.any(|p| is_invalid(p.trust.level)) || found.any(|met| is_invalid(met.trust)) {
        return Status::NotTrustworthy;
    }
    Status::Ok
}
