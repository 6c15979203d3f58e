//! Result files of the engines' own clients: `vllm bench serve --save-result` and `sglang.bench_serving`.

use super::{ExportFiles, ExportForm, ExportInput, ExportTrial, json};
use crate::error::ReportError;
use scalebeam_model::arrival::ArrivalKind;
use scalebeam_model::driver::LoadShape;
use scalebeam_model::peers::{self, Peer};
use scalebeam_model::telemetry::civil;
use scalebeam_model::workload::Api;
use serde_json::{Map, Value, json};

pub(super) const VLLM: ExportForm = ExportForm {
    name: "vllm",
    about: "one JSON file a trial, as `vllm bench serve --save-result` writes it",
    peer: Some("vllm"),
    says: &[
        "keys that begin with `scalebeam_` are metadata, as `--metadata` of the tool adds them: the run, its trust, and what speaks against it",
        "`request_rate` is `inf` in a closed loop, and the mean rate where it changes over time",
        "`num_prompts` counts the measured requests, and warm-up is in no number",
        "lists of single requests are not here; `scalebeam report RUN --records jsonl` has them",
    ],
    write: vllm,
};

pub(super) const SGLANG: ExportForm = ExportForm {
    name: "sglang",
    about: "one file with a line a trial, as `python -m sglang.bench_serving` appends it",
    peer: Some("sglang"),
    says: &[
        "`tag` is the point, its trial and its trust",
        "`request_rate` is null in a closed loop, where the tool writes Infinity, which is no JSON",
    ],
    write: sglang,
};

fn vllm(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let Some(peer) = peers::find("vllm") else { return Ok(Vec::new()) };
    let file = |trial: &ExportTrial<'_>| {
        let mut object = vllm_head(input, trial);
        extend(&mut object, counted(peer, trial));
        Ok((format!("{}.json", trial.stem()), json(&Value::Object(object))?))
    };
    input.trials.iter().map(file).collect()
}

/// What the tool says of the load, in its order, and of the run as metadata.
fn vllm_head(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Map<String, Value> {
    let family = family(trial.plan.workload.api);
    let date = trial.began.map(|at| civil::stamp(at).replace('_', "-"));
    let (rate, burstiness) = pace(trial);
    let head = json!({
        "date": date,
        "endpoint_type": family,
        "backend": family,
        "label": trial.id(),
        "model_id": input.model(trial),
        "tokenizer_id": input.plan.model.tokenizer,
        "num_prompts": trial.records.len(),
        "scalebeam_run": input.results.run,
        "scalebeam_trial": trial.number,
        "scalebeam_gpus": (trial.point.gpus > 0).then_some(trial.point.gpus),
        "scalebeam_trust": trial.point.trust.level.name(),
        "scalebeam_reasons": trial.reasons().join(","),
        "request_rate": rate.map_or_else(|| "inf".into(), Value::from),
        "burstiness": burstiness,
        "max_concurrency": trial.point.concurrency,
    });
    match head {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// What the tool calls a family of endpoints; our own name of those that it does not know.
fn family(api: Api) -> &'static str {
    match api {
        Api::Chat => "openai-chat",
        Api::Completions => "openai",
        Api::Embeddings => "openai-embeddings",
        other => other.name(),
    }
}

/// Requests per second asked for, and how bursty they come: a Poisson process is 1.
fn pace(trial: &ExportTrial<'_>) -> (Option<f64>, Option<f64>) {
    let LoadShape::Open { arrival, .. } = &trial.plan.measure.shape else {
        return (trial.point.rate_rps, None);
    };
    let burstiness = match arrival {
        ArrivalKind::Poisson => Some(1.0),
        ArrivalKind::Gamma { burstiness } => Some(*burstiness),
        ArrivalKind::Constant => None,
    };
    (trial.point.rate_rps, burstiness)
}

/// The trial under the definitions of `peer`; what is counted is whole.
pub(super) fn counted(peer: &Peer, trial: &ExportTrial<'_>) -> Value {
    let mut values = ExportInput::redefined(peer, trial);
    let of_trial = peer.quantities.iter().filter(|q| !q.key.contains("{}"));
    for quantity in of_trial.filter(|q| matches!(q.unit.name, "requests" | "tokens")) {
        let Some(value) = values.get_mut(quantity.key) else { continue };
        let whole = value.as_f64().filter(|n| n.fract() == 0.0);
        if let Some(count) = whole.and_then(|n| format!("{n:.0}").parse::<u64>().ok()) {
            *value = Value::from(count);
        }
    }
    values
}

fn extend(object: &mut Map<String, Value>, values: Value) {
    if let Value::Object(values) = values {
        object.extend(values);
    }
}

fn sglang(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let Some(peer) = peers::find("sglang") else { return Ok(Vec::new()) };
    let mut lines = String::new();
    for trial in &input.trials {
        let lengths = trial.lengths();
        let head = json!({
            "tag": format!("{}, trial {}, {}", trial.id(), trial.number, trial.trust()),
            "backend": family(trial.plan.workload.api),
            "dataset_name": trial.plan.workload.name,
            "request_rate": trial.point.rate_rps,
            "max_concurrency": trial.point.concurrency,
            "random_input_len": lengths.map(|l| l.isl),
            "random_output_len": lengths.map(|l| l.osl),
        });
        let Value::Object(mut object) = head else { continue };
        extend(&mut object, counted(peer, trial));
        lines.push_str(&Value::Object(object).to_string());
        lines.push('\n');
    }
    Ok(vec![("sglang.jsonl".to_owned(), lines.into_bytes())])
}
