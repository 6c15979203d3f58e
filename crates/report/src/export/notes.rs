//! What is said beside the files of an export.

use super::{ExportForm, ExportInput, ExportTrial, grave, point_id};
use scalebeam_model::results::PointResult;
use scalebeam_model::trust::TrustLevel;
use std::fmt::Write as _;

/// `NOTES.md`. A string takes all that is written to it.
pub(super) fn notes(form: &ExportForm, input: &ExportInput<'_>) -> String {
    let mut out = String::from("# What these files are\n\n");
    let ExportForm { name, about, .. } = form;
    let (run, tool) = (&input.results.run, input.tool);
    let _ = writeln!(out, "Run `{run}`, exported by scalebeam {tool} as `{name}`: {about}.\n");
    definitions(form, &mut out);
    trust(input, &mut out);
    if !input.missing.is_empty() {
        out.push_str("\n## What is not here\n\n");
        for why in &input.missing {
            let _ = writeln!(out, "- {why}");
        }
    }
    out
}

fn definitions(form: &ExportForm, out: &mut String) {
    match form.definitions() {
        Some(peer) => {
            let _ = writeln!(
                out,
                "The numbers are made from the records of the run under the definitions of `{}`, and stand under its own keys. \
                 In these they may still differ from what it would have written, or from scalebeam's:\n",
                peer.tool
            );
            for text in peer.differs {
                let _ = writeln!(out, "- {text}");
            }
        }
        None => out.push_str("The numbers are scalebeam's own, under its definitions.\n\n"),
    }
    for text in form.says {
        let _ = writeln!(out, "- {text}");
    }
    out.push_str("- a value that was not measured is left out or null, never 0\n");
}

fn trust(input: &ExportInput<'_>, out: &mut String) {
    out.push_str("\n## How far each point can be relied on\n\n");
    for (point, trials) in input.points() {
        out.push_str(&of_point(point, &trials));
    }
}

/// How far the numbers of `point` can be relied on, and what speaks against them.
pub(super) fn of_point(point: &PointResult, trials: &[ExportTrial<'_>]) -> String {
    let numbers: Vec<String> = trials.iter().map(|t| t.number.to_string()).collect();
    let level = match point.trust.level {
        TrustLevel::Sound => "sound",
        TrustLevel::Caution => "**caution**",
        TrustLevel::Invalid => "**invalid: its numbers do not say what they seem to say**",
    };
    let word = if trials.len() == 1 { "trial" } else { "trials" };
    let mut out = format!("- `{}`, {word} {}: {level}\n", point_id(point), numbers.join(", "));
    for reason in grave(point) {
        let _ = writeln!(out, "  - `{}`: {}", reason.code, reason.message);
    }
    out
}
