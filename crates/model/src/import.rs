//! Result files of other tools, as points under our names.
//!
//! What a file is called and where its numbers are is data (`import/forms/NAME.toml`); the quantities of tools whose
//! definitions are known come from the catalogue of [`crate::peers`]. `laws` holds each point against what must be
//! true of any measurement.
//!
//! **Invariants.** No number is lost: what is no metric of ours stays under the tool's own key. No number changes its
//! meaning: where a tool means something else by it, that is said beside it. Nothing is filled in.

pub mod beside;
mod forms;
mod laws;
mod sections;
mod text;

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of what is said of imported files.
pub const IMPORT_FORMAT: u32 = 1;

/// The statistic of a metric that is one number.
pub const SINGLE: &str = "value";

/// A file, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportedFile {
    /// Name of the file, without its directory.
    pub file: String,
    /// What wrote it.
    pub tool: String,
    /// In what the tool's numbers differ from ours, a sentence each.
    pub differs: Vec<String>,
    /// What it measured, in its order.
    pub points: Vec<ImportedPoint>,
    /// Numbers of the file that are of no point, by where they are (RFC 6901).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, f64>,
}

/// A load that was offered, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ImportedPoint {
    /// What the tool calls it, else its load.
    pub label: String,
    /// What was asked for.
    pub asked: Asked,
    /// Requests that were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<f64>,
    /// Requests that were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<f64>,
    /// Output tokens of all of them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub produced: Option<f64>,
    /// Metrics of ours, in our units, by name and statistic.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
    /// In what a metric is not quite ours, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub near: BTreeMap<String, String>,
    /// Every other number, by where it is in the file (RFC 6901).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, f64>,
    /// What speaks against it.
    pub flaws: Vec<ImportFlaw>,
}

/// What a tool was asked for. Absent is what its file does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Asked {
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// GPUs of the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<f64>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<f64>,
    /// Requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Requests in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<f64>,
    /// Tokens of a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isl: Option<f64>,
    /// Tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub osl: Option<f64>,
}

/// What speaks against something that was imported: a point, or a power log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportFlaw {
    /// Stable code.
    pub code: String,
    /// In words, with its numbers.
    pub message: String,
}

impl ImportFlaw {
    pub(crate) fn new(code: &str, message: String) -> Self {
        Self { code: code.to_owned(), message }
    }
}

/// Why a file is no result of a tool that is known.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no JSON, no JSON lines, no table and no summary of LoadGen.
    #[error("it is no JSON, no lines of JSON and no comma-separated table: {0}")]
    Unreadable(String),
    /// It can be read, and nobody is known who writes such a file.
    #[error("nobody who is known writes such a file; known are {}", known().join(", "))]
    Unknown,
}

/// Names of the tools whose files are known.
pub fn known() -> Vec<&'static str> {
    let mut names: Vec<&str> = forms::all().iter().map(|form| form.tool.as_str()).collect();
    names.dedup();
    names
}

impl ImportedPoint {
    /// `stat` of `metric`, where the file has it.
    pub fn value(&self, metric: &str, stat: &str) -> Option<f64> {
        self.metrics.get(metric)?.get(stat).copied()
    }

    /// `value` of `metric`, and in what it is another. Who was there first stays.
    fn put(&mut self, metric: &str, stat: &str, value: f64, near: Option<&String>) {
        let stats = self.metrics.entry(metric.to_owned()).or_default();
        stats.entry(stat.to_owned()).or_insert(value);
        if let Some(why) = near {
            self.near.entry(metric.to_owned()).or_insert_with(|| why.clone());
        }
    }

    /// Output tokens per second and GPU: over the GPUs that the file names, where it has no such number itself.
    pub fn output_tps_per_gpu(&self) -> Option<f64> {
        let over_gpus = || Some(self.single("output_tps")? / self.asked.gpus.filter(|n| *n > 0.0)?);
        self.single("output_tps_per_gpu").or_else(over_gpus)
    }

    /// A metric that is one number.
    pub fn single(&self, metric: &str) -> Option<f64> {
        self.value(metric, SINGLE)
    }
}

/// What the file called `file` with this text says.
///
/// # Errors
/// When it cannot be read, or is of no tool that is known.
pub fn read(file: &str, text: &str) -> Result<ImportedFile, ImportError> {
    let roots = text::roots(text).map_err(ImportError::Unreadable)?;
    let form = forms::all().iter().find(|form| form.writes(&roots)).ok_or(ImportError::Unknown)?;
    let points = form.points(&roots).into_iter().map(|(root, point)| form.point(root, point));
    let mut points: Vec<ImportedPoint> = points.map(finished).collect();
    tell_apart(&mut points);
    Ok(ImportedFile {
        file: file.to_owned(),
        tool: form.tool.clone(),
        differs: form.differs(),
        points,
        other: form.around(&roots),
    })
}

/// With its label, and held against the laws.
fn finished(mut point: ImportedPoint) -> ImportedPoint {
    if point.label.is_empty() {
        point.label = load(&point.asked);
    }
    let broken = laws::broken(&point);
    point.flaws.extend(broken);
    point
}

/// A tool may call points of several loads by one name, which is then followed by the load.
fn tell_apart(points: &mut [ImportedPoint]) {
    let labels: Vec<String> = points.iter().map(|p| p.label.clone()).collect();
    for point in points {
        let load = load(&point.asked);
        let is_one_of_several = labels.iter().filter(|l| **l == point.label).count() > 1;
        if is_one_of_several && point.label != load {
            point.label = format!("{} {load}", point.label);
        }
    }
}

fn load(asked: &Asked) -> String {
    match (asked.concurrency, asked.rate) {
        (Some(n), _) => format!("c{n}"),
        (None, Some(rate)) => format!("r{rate}"),
        (None, None) => "as it was".to_owned(),
    }
}

/// A number, also where the tool wrote it as a text.
fn number(value: &Value) -> Option<f64> {
    let parsed = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    parsed.filter(|n: &f64| n.is_finite())
}

#[cfg(test)]
mod tests;
