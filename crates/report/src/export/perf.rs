//! Artifact folders of `genai-perf profile` and its successor `aiperf profile`: a JSON and a CSV file a trial.

mod csv;

use super::{ExportFiles, ExportForm, ExportInput, ExportTrial, json, plain};
use crate::error::ReportError;
use scalebeam_model::peers::{self, Peer, Row};
use scalebeam_model::plan::{DeploymentPlan, PointPlan, Role};
use scalebeam_model::telemetry::civil;
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(super) const GENAI_PERF: ExportForm = ExportForm {
    name: "genai-perf",
    about: "an artifact folder a trial with my_profile_export_genai_perf.json and .csv, named as Dynamo's benchmark.py names it",
    peer: Some("genai-perf"),
    says: &[
        "folders are LOAD/isl_shared_S_isl_unique_N_osl_M/CONFIGURATION/concurrency_N_TIME: give process_results.py the folder above the configurations. It takes the newest trial of each concurrency",
        "it reads GPUs from the folder's name: X of _tpXdpY holds pipeline-parallel ranks too, so that X x Y are the GPUs",
        "open loops are rps_R_TIME, which process_results.py passes over",
        "`input_config.scalebeam` holds the run, its trust, and what speaks against it",
        "the CSV file has two decimals, as the tool's; the JSON file has all",
    ],
    write: genai_perf,
};

pub(super) const AIPERF: ExportForm = ExportForm {
    name: "aiperf",
    about: "an artifact folder a trial with profile_export_aiperf.json and .csv",
    peer: Some("aiperf"),
    says: &[
        "`aiperf_version` says that scalebeam wrote the file",
        "`input_config.scalebeam` holds the run, its trust, and what speaks against it",
        "the CSV file has two decimals, as the tool's; the JSON file has all",
    ],
    write: aiperf,
};

fn genai_perf(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let Some(peer) = peers::find("genai-perf") else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    let mut folders = Folders::default();
    for trial in &input.trials {
        let root = format!("{}/{}", plain(&trial.point.load), lengths_folder(trial.plan));
        let configuration = configuration(input.deployment(trial), trial);
        let folder = folders.genai_perf(&format!("{root}/{configuration}"), trial);
        let stem = format!("{folder}/my_profile_export_genai_perf");
        let rows = peer.rows(trial.records);
        files.push((format!("{stem}.json"), json(&genai_perf_json(input, trial, peer, &rows))?));
        files.push((format!("{stem}.csv"), csv::GENAI_PERF.text(&rows).into_bytes()));
    }
    Ok(files)
}

fn aiperf(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let Some(peer) = peers::find("aiperf") else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for trial in &input.trials {
        let model = plain(input.model(trial));
        let stem = format!(
            "{}/{model}-{}-{}/profile_export_aiperf",
            trial.stem(),
            family(trial.plan.workload.api),
            load(trial)
        );
        let rows = peer.rows(trial.records);
        files.push((format!("{stem}.json"), json(&aiperf_json(input, trial, peer, &rows))?));
        files.push((format!("{stem}.csv"), csv::AIPERF.text(&rows).into_bytes()));
    }
    Ok(files)
}

/// As the tools name a load in a folder: `concurrency8`, `request_rate2.5`.
fn load(trial: &ExportTrial<'_>) -> String {
    match (trial.point.rate_rps, trial.point.concurrency) {
        (Some(rate), _) => format!("request_rate{rate:?}"),
        (None, Some(n)) => format!("concurrency{n}"),
        (None, None) => plain(&trial.point.level),
    }
}

fn family(api: Api) -> &'static str {
    match api {
        Api::Chat => "openai-chat",
        Api::Completions => "openai-completions",
        Api::Embeddings => "openai-embeddings",
        other => other.name(),
    }
}

/// `isl_shared_0_isl_unique_3000_osl_150`, or the name of a workload that has no lengths.
pub(crate) fn lengths_folder(point: &PointPlan) -> String {
    super::lengths(point).map_or_else(
        || plain(&point.workload.name),
        |l| format!("isl_shared_{}_isl_unique_{}_osl_{}", l.prefix, l.isl, l.osl),
    )
}

/// The folder of a deployment, whose name GPUs are counted from.
fn configuration(deployment: Option<&DeploymentPlan>, trial: &ExportTrial<'_>) -> String {
    configuration_of(deployment, &trial.point.deployment, trial.point.gpus)
}

/// The name of a deployment where its GPUs can be counted from it, as `prefill_tp2dp6_generate_tp4dp1`; else with
/// `_tpXdpY` of its roles behind it. `gpus` stands for them where no instance is known.
pub(crate) fn configuration_of(
    deployment: Option<&DeploymentPlan>,
    name: &str,
    gpus: u32,
) -> String {
    let name = plain(name);
    let mut out = match counted_gpus(&name) {
        Some(counted) if counted == gpus => return name,
        // What would be counted from a name that says something else must not be.
        Some(_) => name.replace("_tp", "-tp"),
        None => name,
    };
    let instances = deployment.map_or(&[][..], |d| d.instances.as_slice());
    for (role, word) in
        [(Role::Aggregated, ""), (Role::Prefill, "_prefill"), (Role::Decode, "_generate")]
    {
        let mine = || instances.iter().filter(move |i| i.role == role);
        let widths: BTreeSet<u32> = mine().map(|i| i.tp * i.pp).collect();
        if !widths.is_empty() {
            out.push_str(word);
        }
        for width in widths {
            let copies: u32 = mine().filter(|i| i.tp * i.pp == width).map(|i| i.dp).sum();
            out.push_str(&tp_dp(width, copies));
        }
    }
    if instances.is_empty() && gpus > 0 {
        out.push_str(&tp_dp(gpus, 1));
    }
    out
}

fn tp_dp(tp: u32, dp: u32) -> String {
    format!("_tp{tp}dp{dp}")
}

/// As `process_results.py` counts them: X x Y of every `_tpXdpY`, summed; absent where there is none.
fn counted_gpus(name: &str) -> Option<u32> {
    let part = |text: &str| {
        let (tp, rest) = leading_number(text)?;
        let (dp, _) = leading_number(rest.strip_prefix("dp")?)?;
        tp.checked_mul(dp)
    };
    let parts: Vec<u32> = name.split("_tp").skip(1).filter_map(part).collect();
    let sum = parts.iter().try_fold(0_u32, |sum, n| sum.checked_add(*n));
    sum.filter(|_| !parts.is_empty())
}

/// A number, and what stands behind it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Folders that are taken: their names have a second in them, and two trials may begin in the same one.
#[derive(Debug, Default)]
pub(crate) struct Folders(BTreeSet<String>);

impl Folders {
    fn genai_perf(&mut self, below: &str, trial: &ExportTrial<'_>) -> String {
        self.free(below, trial.point, trial.began.unwrap_or(Nanos::ZERO))
    }

    /// `concurrency_8.0_20260102_030405` of the first free second.
    pub(crate) fn free(
        &mut self,
        below: &str,
        point: &scalebeam_model::results::PointResult,
        mut at: Nanos,
    ) -> String {
        let load = match (point.rate_rps, point.concurrency) {
            (Some(rate), _) => format!("rps_{rate:?}"),
            (None, Some(n)) => format!("concurrency_{:?}", f64::from(n)),
            (None, None) => plain(&point.level),
        };
        loop {
            let folder = format!("{below}/{load}_{}", civil::stamp(at));
            if self.0.insert(folder.clone()) {
                return folder;
            }
            at += Nanos::from_secs(1);
        }
    }
}

/// Where the run stands in a file that has room for it.
fn origin(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Value {
    json!({
        "run": input.results.run,
        "point": trial.id(),
        "trial": trial.number,
        "trust": trial.point.trust.level.name(),
        "reasons": trial.reasons(),
    })
}

fn genai_perf_json(
    input: &ExportInput<'_>,
    trial: &ExportTrial<'_>,
    peer: &Peer,
    rows: &[Row],
) -> Value {
    let mut values = peer.json(rows);
    let mut stimulus = Map::new();
    if let Some(n) = trial.point.concurrency {
        stimulus.insert("concurrency".to_owned(), n.into());
    }
    if let Some(rate) = trial.point.rate_rps {
        stimulus.insert("request_rate".to_owned(), json!(rate));
    }
    let lengths = trial.lengths();
    if let Value::Object(object) = &mut values {
        // The first names are those of earlier versions, the later ones those of 0.0.16.
        let config = json!({
            "model": [input.model(trial)],
            "endpoint_type": trial.plan.workload.api.name(),
            "streaming": trial.plan.workload.stream,
            "request_count": trial.records.len(),
            "synthetic_input_tokens_mean": lengths.map(|l| l.isl),
            "output_tokens_mean": lengths.map(|l| l.osl),
            "model_names": [input.model(trial)],
            "endpoint": {"type": trial.plan.workload.api.name(), "streaming": trial.plan.workload.stream},
            "perf_analyzer": {
                "stimulus": stimulus,
                "measurement": {"mode": "request_count", "num": trial.records.len()},
            },
            "input": {
                "synthetic_tokens": {"mean": lengths.map(|l| l.isl)},
                "output_tokens": {"mean": lengths.map(|l| l.osl)},
            },
            "scalebeam": origin(input, trial),
        });
        object.insert("input_config".to_owned(), config);
    }
    values
}

fn aiperf_json(
    input: &ExportInput<'_>,
    trial: &ExportTrial<'_>,
    peer: &Peer,
    rows: &[Row],
) -> Value {
    let mut object = Map::new();
    object.insert("schema_version".to_owned(), "1.4".into());
    object.insert("aiperf_version".to_owned(), format!("scalebeam {}", input.tool).into());
    if let Value::Object(values) = peer.json(rows) {
        object.extend(values);
    }
    let lengths = trial.lengths();
    let time = |at: Option<Nanos>| at.map(civil::iso);
    object.insert("start_time".to_owned(), json!(time(trial.began)));
    object.insert("end_time".to_owned(), json!(time(trial.ended)));
    let config = json!({
        "models": {"items": [{"name": input.model(trial)}]},
        "endpoint": {"type": trial.plan.workload.api.name(), "streaming": trial.plan.workload.stream},
        "datasets": [{
            "name": trial.plan.workload.name,
            "prompts": {"isl": {"mean": lengths.map(|l| l.isl)}, "osl": {"mean": lengths.map(|l| l.osl)}},
        }],
        "phases": [{
            "name": "profiling",
            "concurrency": trial.point.concurrency,
            "rate": trial.point.rate_rps,
            "requests": trial.records.len(),
        }],
        "scalebeam": origin(input, trial),
    });
    object.insert("input_config".to_owned(), config);
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_counted_from_a_name_as_there() {
        for (name, want) in [
            ("prefill_tp2dp6_generate_tp4dp1", Some(16)),
            ("baseline_tp8dp1", Some(8)),
            ("base_tp4", None),
            ("a_tp2pp2dp1", None),
            ("tp2dp2", None),
            ("a_tp99999dp99999", None),
        ] {
            assert_eq!(counted_gpus(name), want, "{name}");
        }
    }

    /// Counted from the folder, they are the GPUs of the deployment, whatever its name says.
    #[test]
    fn a_folder_has_the_gpus_of_its_deployment() {
        for (name, gpus, want) in [
            ("baseline_tp8dp1", 8, "baseline_tp8dp1"),
            ("baseline_tp8dp1", 4, "baseline-tp8dp1_tp4dp1"),
            ("base_tp4", 4, "base_tp4_tp4dp1"),
            ("single", 4, "single_tp4dp1"),
            ("unknown", 0, "unknown"),
        ] {
            let folder = configuration_of(None, name, gpus);
            assert_eq!(folder, want);
            assert_eq!(counted_gpus(&folder).unwrap_or(0), gpus);
        }
    }
}
