//! `check`: is the file right, and if not, where.

use crate::args::FileArgs;
use crate::exit::{Failure, Status};
use crate::experiment::{self, Unreadable};
use crate::printer;
use scalebeam_model::plan::Plan;
use scalebeam_model::spec::Diagnostics;
use serde_json::json;

pub(super) fn run(args: &FileArgs) -> Result<Status, Failure> {
    let loaded = experiment::load(&args.file)
        .and_then(|loaded| loaded.can_start(&args.file).map(|()| loaded));
    match loaded {
        Ok(mut loaded) => {
            loaded.plan.notes.extend(loaded.refused());
            if args.json {
                printer::json(&json!({
                    "file": args.file, "ok": true,
                    "deployments": loaded.plan.deployments.len(),
                    "points": loaded.plan.points.len(),
                    "searches": loaded.plan.searches.len(),
                    "problems": [], "notes": loaded.plan.notes,
                }))?;
            } else {
                printer::data(&summary(&args.file.display().to_string(), &loaded.plan));
            }
            Ok(Status::Ok)
        }
        Err(Unreadable::Problems(problems)) if args.json => {
            printer::json(&json!({
                "file": args.file, "ok": false, "problems": as_json(&problems),
            }))?;
            Ok(Status::Usage)
        }
        Err(error) => Err(error.into()),
    }
}

fn summary(file: &str, plan: &Plan) -> String {
    let mut text = format!("{file}: ok, {}", crate::show::size(plan));
    for note in &plan.notes {
        text.push_str(&format!(
            "\nnote: {}: {}\n      hint: {}",
            note.path, note.message, note.hint
        ));
    }
    text
}

fn as_json(problems: &Diagnostics) -> Vec<serde_json::Value> {
    let one = |d: &scalebeam_model::spec::Diagnostic| {
        json!({
            "file": d.file, "line": d.line, "column": d.column, "key": d.key,
            "message": d.message, "hint": d.hint,
        })
    };
    problems.0.iter().map(one).collect()
}
