//! `down`: nothing is left behind, whatever happened. Legal from any state, and idempotent.

use super::{runtime, span};
use crate::args::DownArgs;
use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::{experiment, printer, settings};
use scalebeam_fleet::teardown::{Ended, ProcessEnd};
use scalebeam_fleet::{DownReport, down_run, journal};
use scalebeam_model::units::Nanos;
use scalebeam_record::{RunReader, layout, list_runs};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Why a run is left alone.
const LIVE: &str =
    "is being measured right now; stop it with Ctrl-C where it runs, or take it down with --force";

pub(super) fn run(args: &DownArgs) -> Result<Status, Failure> {
    let grace = args.grace.as_deref().map(|text| span("--grace", text)).transpose()?;
    let runs = runs(args)?;
    let runtime = runtime(2)?;
    let mut done = Vec::new();
    let mut problems = false;
    for dir in &runs {
        if !args.force && RunReader::open(dir).is_ok_and(|r| r.is_being_written()) {
            problems = true;
            done.push((dir, Err(LIVE.to_owned())));
            continue;
        }
        let report = runtime.block_on(take_down(dir, grace));
        problems |= report.as_ref().map_or(true, |r| !r.problems.is_empty());
        done.push((dir, report));
    }
    if args.json {
        let rows: Vec<_> = done.iter().map(|(dir, report)| as_json(dir, report)).collect();
        printer::json(&json!({ "runs": rows }))?;
    } else {
        printer::data(&words(&done));
    }
    Ok(if problems { Status::Deployment } else { Status::Ok })
}

async fn take_down(dir: &Path, grace: Option<Nanos>) -> Result<DownReport, String> {
    down_run(dir, grace, WallClock::shared()).await.map_err(|e| chain(&e))
}

/// The run directories that are meant.
fn runs(args: &DownArgs) -> Result<Vec<PathBuf>, Failure> {
    let Some(what) = &args.what else {
        let root = args.out.clone().unwrap_or_else(|| PathBuf::from(settings::RUNS));
        return Ok(list_runs(&root)?.into_iter().map(|r| r.dir).collect());
    };
    if what.is_dir() {
        return below(what);
    }
    let loaded = experiment::load(what)?;
    let root = super::run::out_dir(args.out.as_deref(), &loaded.experiment);
    let name = &loaded.experiment.name;
    let runs = list_runs(&root)?.into_iter().filter(|r| r.name == *name);
    Ok(runs.map(|r| r.dir).collect())
}

/// A run directory itself, or every run in a directory of runs.
fn below(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    // Of a run whose manifest is lost the journal may be there yet.
    if [layout::MANIFEST, journal::FILE].iter().any(|file| dir.join(file).is_file()) {
        return Ok(vec![dir.to_owned()]);
    }
    let runs: Vec<PathBuf> = list_runs(dir)?.into_iter().map(|r| r.dir).collect();
    if runs.is_empty() {
        let shown = dir.display();
        return Err(Failure::usage(format!("{shown} is no run directory, and holds none"))
            .hint("name one, as runs/20260101T000000Z-name, or the directory of runs, or an experiment file"));
    }
    Ok(runs)
}

fn words(done: &[(&PathBuf, Result<DownReport, String>)]) -> String {
    let mut lines = Vec::new();
    for (dir, report) in done {
        let dir = dir.display();
        match report {
            Err(why) => lines.push(format!("{dir}: {why}")),
            Ok(report) => {
                lines.extend(report.ends.iter().map(|e| format!("{dir}: {}", end(e))));
                lines.extend(report.problems.iter().map(|p| format!("{dir}: problem: {p}")));
                lines.extend(report.untouched.iter().map(|u| format!("{dir}: left alone: {u}")));
            }
        }
    }
    if lines.is_empty() {
        lines.push(format!("nothing left running ({} runs looked at)", done.len()));
    }
    lines.join("\n")
}

fn end(end: &ProcessEnd) -> String {
    let how = match end.ended {
        Ended::WasGone => "was gone",
        Ended::Terminated => "terminated",
        Ended::Killed => "killed",
        Ended::Alive => "could not be ended",
    };
    let strays = match end.strays {
        0 => String::new(),
        n => format!(" (and {n} of its descendants)"),
    };
    format!("{} on {}: {how}{strays}", end.process, end.host)
}

fn as_json(dir: &Path, report: &Result<DownReport, String>) -> serde_json::Value {
    match report {
        Err(why) => json!({ "run": dir, "error": why }),
        Ok(r) => json!({
            "run": dir,
            "ended": r.ends.iter().map(end).collect::<Vec<_>>(),
            "problems": r.problems, "untouched": r.untouched,
        }),
    }
}
