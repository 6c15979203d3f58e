//! A run in the files of other tools, so that what reads those reads ours.
//!
//! [`FORMS`] is the catalogue: a form is one entry and one file. The numbers of a tool are made from the records under
//! that tool's own definitions, by the catalogue of `model::peers`; forms without a tool carry ours, by their names.
//!
//! **Invariants.** A value that was not measured is left out or null, as the form has it, never 0. A point that is not
//! to be trusted is marked in the file where the form has a place for it, and in `NOTES.md` always. Only trials that
//! are complete are exported; what is not here is named.

mod benchmark_report;
mod gauges;
mod inferencex;
mod mlflow;
mod notes;
mod openmetrics;
mod otlp;
pub(crate) mod perf;
mod serve;

use crate::error::ReportError;
use scalebeam_model::peers::{self, Peer};
use scalebeam_model::plan::{DeploymentPlan, Plan, PointPlan};
use scalebeam_model::request::RequestRecord;
use scalebeam_model::results::{Metrics, PointResult, Results, lookup};
use scalebeam_model::trust::{Reason, TrustLevel};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Lengths, Source};
use serde_json::Value;

/// Files by name, relative to the directory of the export.
pub type ExportFiles = Vec<(String, Vec<u8>)>;

/// A form that a run can be exported as.
#[derive(Debug, Clone, Copy)]
pub struct ExportForm {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What its files are.
    pub about: &'static str,
    /// The tool whose definitions its numbers have; ours where there is none.
    peer: Option<&'static str>,
    /// What a reader of its files must know besides.
    says: &'static [&'static str],
    write: fn(&ExportInput<'_>) -> Result<ExportFiles, ReportError>,
}

/// Every form.
pub const FORMS: &[ExportForm] = &[
    serve::VLLM,
    serve::SGLANG,
    perf::GENAI_PERF,
    perf::AIPERF,
    benchmark_report::FORM,
    inferencex::FORM,
    openmetrics::FORM,
    otlp::FORM,
    mlflow::FORM,
];

/// A run, and the trials of it that are exported.
#[derive(Debug, Clone)]
pub struct ExportInput<'a> {
    /// What analysis says.
    pub results: &'a Results,
    /// What was planned.
    pub plan: &'a Plan,
    /// Version of scalebeam that exports.
    pub tool: &'a str,
    /// Complete trials, in the order of the plan.
    pub trials: Vec<ExportTrial<'a>>,
    /// Trials that are not here, and why.
    pub missing: Vec<String>,
}

/// A complete trial of a point.
#[derive(Debug, Clone, Copy)]
pub struct ExportTrial<'a> {
    /// What was planned.
    pub plan: &'a PointPlan,
    /// What analysis says of the point.
    pub point: &'a PointResult,
    /// From 1.
    pub number: u32,
    /// Its measured requests.
    pub records: &'a [RequestRecord],
    /// When its measurement began, since the Unix epoch; absent where nobody knows what time it was.
    pub began: Option<Nanos>,
    /// When it had ended.
    pub ended: Option<Nanos>,
}

/// The form called `name`.
pub fn export_form(name: &str) -> Option<&'static ExportForm> {
    FORMS.iter().find(|form| form.name == name)
}

/// The files of `input` in `form`, `NOTES.md` last.
///
/// # Errors
/// When a value cannot be written in the form.
pub fn export(form: &ExportForm, input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let mut files = (form.write)(input)?;
    files.push(("NOTES.md".to_owned(), notes::notes(form, input).into_bytes()));
    Ok(files)
}

impl ExportForm {
    fn definitions(&self) -> Option<&'static Peer> {
        self.peer.and_then(peers::find)
    }
}

impl<'a> ExportInput<'a> {
    /// Each point once, with its trials in order.
    fn points(&self) -> Vec<(&'a PointResult, Vec<ExportTrial<'a>>)> {
        let mut out: Vec<(&PointResult, Vec<ExportTrial<'_>>)> = Vec::new();
        for trial in &self.trials {
            match out.last_mut() {
                Some((point, trials)) if std::ptr::eq(*point, trial.point) => trials.push(*trial),
                _ => out.push((trial.point, vec![*trial])),
            }
        }
        out
    }

    fn deployment(&self, trial: &ExportTrial<'_>) -> Option<&'a DeploymentPlan> {
        self.plan.deployment(&trial.point.deployment)
    }

    /// The model's name in requests, else as the file has it.
    fn model(&self, trial: &ExportTrial<'_>) -> &'a str {
        let served = self.deployment(trial).map(|d| d.served_model.as_str());
        let known = [served, Some(self.plan.model.served.as_str())].into_iter().flatten();
        known.into_iter().find(|name| !name.is_empty()).unwrap_or(&self.plan.model.id)
    }

    /// The trial under the definitions and keys of `peer`.
    fn redefined(peer: &Peer, trial: &ExportTrial<'_>) -> Value {
        peer.json(&peer.rows(trial.records))
    }
}

impl<'a> ExportTrial<'a> {
    /// `deployment/load/level`.
    fn id(&self) -> String {
        point_id(self.point)
    }

    /// `deployment/load-level-t1`: no two trials of a run have the same.
    fn stem(&self) -> String {
        let PointResult { deployment, load, level, .. } = self.point;
        format!("{}/{}-{}-t{}", plain(deployment), plain(load), plain(level), self.number)
    }

    /// Its own metrics.
    fn metrics(&self) -> Option<&'a Metrics> {
        let trial = self.point.trials.iter().find(|t| t.number == self.number);
        trial.map(|t| &t.metrics)
    }

    /// A number of its own, by the name that files use.
    fn value(&self, name: &str) -> Option<f64> {
        lookup(self.metrics()?, name).filter(|v| v.is_finite())
    }

    /// What was asked of prompts and answers, where it is lengths.
    fn lengths(&self) -> Option<&'a Lengths> {
        lengths(self.plan)
    }

    /// Codes of what speaks against the point.
    fn reasons(&self) -> Vec<&'a str> {
        grave(self.point).map(|r| r.code.as_str()).collect()
    }

    /// `caution (short, few_samples)`.
    fn trust(&self) -> String {
        let level = self.point.trust.level.name();
        let reasons = self.reasons();
        if reasons.is_empty() {
            level.to_owned()
        } else {
            format!("{level} ({})", reasons.join(", "))
        }
    }
}

/// `deployment/load/level`.
fn point_id(point: &PointResult) -> String {
    format!("{}/{}/{}", point.deployment, point.load, point.level)
}

/// What speaks against a point, gravest first.
fn grave(point: &PointResult) -> impl Iterator<Item = &Reason> {
    point.trust.reasons.iter().filter(|r| r.level > TrustLevel::Sound)
}

/// What was asked of prompts and answers, where it is lengths.
pub(crate) const fn lengths(point: &PointPlan) -> Option<&Lengths> {
    match &point.workload.source {
        Source::Synthetic { lengths, .. } => Some(lengths),
        _ => None,
    }
}

/// A name of a file or a folder.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect()
}

fn json(value: &Value) -> Result<Vec<u8>, ReportError> {
    let text = serde_json::to_vec_pretty(value);
    text.map_err(|e| ReportError::Encode { format: "JSON", why: e.to_string() })
}

#[cfg(test)]
mod tests;
