//! MLflow's file store: an experiment with a run a point, and a step a trial.

use super::gauges::STATISTICS;
use super::{ExportFiles, ExportForm, ExportInput, ExportTrial, grave, notes, plain, point_id};
use crate::error::ReportError;
use scalebeam_model::metrics;
use scalebeam_model::results::{MetricValue, PointResult};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;

pub(super) const FORM: ExportForm = ExportForm {
    name: "mlflow",
    about: "an MLflow file store: an experiment, a run a point, a step a trial",
    peer: None,
    says: &[
        "`mlflow.set_tracking_uri(\"file:mlruns\")` reads it from the folder of this file; newer versions of MLflow want MLFLOW_ALLOW_FILE_STORE=true",
        "a metric is our name of it, one of a distribution with its statistic: `ttft_ms.p99`",
        "tag `scalebeam.trust` is the trust of the point, `scalebeam.reasons` the codes of what speaks against it; the run's note and its artifact TRUST.md have the sentences",
    ],
    write,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of every form")]
fn write(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let began = input.trials.iter().filter_map(|t| t.began).min().unwrap_or(Nanos::ZERO);
    // Experiments are told apart by a number: that of the second in which the first trial began.
    let experiment = (began.0 / 1_000_000_000).max(1).to_string();
    let dir = format!("mlruns/{experiment}");
    let created = millis(began);
    let meta = [
        ("artifact_location", quoted(&format!("mlruns/{experiment}"))),
        ("creation_time", created.clone()),
        ("experiment_id", quoted(&experiment)),
        ("last_update_time", created),
        ("lifecycle_stage", "active".to_owned()),
        ("name", quoted(&input.results.run)),
    ];
    let mut files = vec![(format!("{dir}/meta.yaml"), yaml(&meta))];
    for (point, trials) in input.points() {
        files.extend(run(input, &experiment, point, &trials));
    }
    Ok(files)
}

/// Keys and values as YAML.
fn yaml(lines: &[(&str, String)]) -> Vec<u8> {
    let lines = lines.iter().map(|(key, value)| format!("{key}: {value}\n"));
    lines.collect::<String>().into_bytes()
}

/// A text in YAML: in single quotes nothing is special but these.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace('\n', " "))
}

fn millis(at: Nanos) -> String {
    (at.0 / 1_000_000).to_string()
}

fn run(
    input: &ExportInput<'_>,
    experiment: &str,
    point: &PointResult,
    trials: &[ExportTrial<'_>],
) -> ExportFiles {
    let id = plain(&point_id(point)).replace('.', "_");
    let dir = format!("mlruns/{experiment}/{id}");
    let began = trials.iter().filter_map(|t| t.began).min().unwrap_or(Nanos::ZERO);
    let ended = trials.iter().filter_map(|t| t.ended).max().unwrap_or(began);
    let meta = [
        ("artifact_uri", quoted(&format!("{dir}/artifacts"))),
        ("end_time", millis(ended)),
        ("entry_point_name", quoted("")),
        ("experiment_id", quoted(experiment)),
        ("lifecycle_stage", "active".to_owned()),
        ("run_id", quoted(&id)),
        ("run_name", quoted(&point_id(point))),
        ("source_name", quoted("scalebeam")),
        ("source_type", "4".to_owned()),
        ("source_version", quoted(input.tool)),
        ("start_time", millis(began)),
        ("status", "3".to_owned()),
        ("tags", "[]".to_owned()),
        ("user_id", quoted("")),
    ];
    let mut files = vec![(format!("{dir}/meta.yaml"), yaml(&meta))];
    let texts = |folder: &str, of: Vec<(&str, String)>| -> ExportFiles {
        let file = |(name, text): (&str, String)| (format!("{dir}/{folder}/{name}"), text.into());
        of.into_iter().map(file).collect()
    };
    files.extend(texts("params", params(input, point, trials)));
    files.extend(texts("tags", tags(point)));
    // A run without a folder of artifacts is none to MLflow.
    files.extend(texts("artifacts", vec![("TRUST.md", notes::of_point(point, trials))]));
    for (name, lines) in history(trials) {
        files.push((format!("{dir}/metrics/{name}"), lines.into_bytes()));
    }
    files
}

fn params(
    input: &ExportInput<'_>,
    point: &PointResult,
    trials: &[ExportTrial<'_>],
) -> Vec<(&'static str, String)> {
    let lengths = trials.first().and_then(ExportTrial::lengths);
    let known = [
        ("deployment", Some(point.deployment.clone())),
        ("load", Some(point.load.clone())),
        ("level", Some(point.level.clone())),
        ("mode", Some(point.mode.name().to_owned())),
        ("model", Some(input.plan.model.id.clone())),
        ("gpus", (point.gpus > 0).then(|| point.gpus.to_string())),
        ("concurrency", point.concurrency.map(|n| n.to_string())),
        ("rate_rps", point.rate_rps.map(|r| r.to_string())),
        ("isl", lengths.map(|l| l.isl.to_string())),
        ("osl", lengths.map(|l| l.osl.to_string())),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn tags(point: &PointResult) -> Vec<(&'static str, String)> {
    let codes: Vec<&str> = grave(point).map(|r| r.code.as_str()).collect();
    let sentences: Vec<String> =
        grave(point).map(|r| format!("- `{}`: {}", r.code, r.message)).collect();
    let level = point.trust.level.name();
    let mut out = vec![
        ("mlflow.runName", point_id(point)),
        ("mlflow.source.name", "scalebeam".to_owned()),
        ("mlflow.source.type", "LOCAL".to_owned()),
        ("scalebeam.trust", level.to_owned()),
    ];
    if !codes.is_empty() {
        out.push(("scalebeam.reasons", codes.join(",")));
        out.push(("mlflow.note.content", format!("{level}:\n{}\n", sentences.join("\n"))));
    }
    out
}

/// `time value step` of each trial, by metric.
fn history(trials: &[ExportTrial<'_>]) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for trial in trials {
        let at = millis(trial.ended.unwrap_or(Nanos::ZERO));
        let mut put = |name: String, value: f64| {
            if value.is_finite() {
                let line = format!("{at} {value:?} {}\n", trial.number);
                out.entry(name).or_default().push_str(&line);
            }
        };
        for (name, value) in trial.metrics().into_iter().flatten() {
            if !metrics::METRICS.iter().any(|m| m.name == name) {
                continue;
            }
            match value {
                MetricValue::Number(n) => put(name.clone(), *n),
                MetricValue::Distribution(d) => {
                    for (stat, value) in STATISTICS.iter().filter_map(|s| Some((s, d.stat(s)?))) {
                        put(format!("{name}.{stat}"), value);
                    }
                }
            }
        }
    }
    out
}
