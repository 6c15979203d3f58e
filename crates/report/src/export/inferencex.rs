//! Aggregates of InferenceX (`agg_NAME.json` of its `utils/process_result.py`), which are made of vLLM's file.

use super::{ExportFiles, ExportForm, ExportInput, ExportTrial, json, plain, serve};
use crate::error::ReportError;
use scalebeam_model::peers;
use scalebeam_model::plan::{DeploymentPlan, InstancePlan, Role};
use serde_json::{Map, Value, json};

pub(super) const FORM: ExportForm = ExportForm {
    name: "inferencex",
    about: "one agg_NAME.json a trial, as InferenceX's process_result.py makes it of vLLM's file",
    peer: Some("vllm"),
    says: &[
        "times are in seconds, as there",
        "as there, `output_tput_per_gpu` and `input_tput_per_gpu` of a deployment with prefill and decode pools are over the GPUs of one role, `tput_per_gpu` is over all; otherwise each is over all GPUs that were allocated, replicas and data-parallel ranks included, where InferenceX has tp x pp",
        "`*_intvty` is 1 / the TPOT of the same statistic, so that its p99 is the slow tail, and `std_intvty` means nothing",
        "what the run does not know (image, precision, speculative decoding) is null, and so are numbers per GPU where the GPUs are not known",
        "the `scalebeam_` keys hold the run, its trust, and what speaks against it",
    ],
    write,
};

fn write(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let Some(peer) = peers::find("vllm") else { return Ok(Vec::new()) };
    let file = |trial: &ExportTrial<'_>| {
        let Value::Object(vllm) = serve::counted(peer, trial) else { return Ok(None) };
        let mut object = head(input, trial);
        object.extend(shape(input.deployment(trial), trial, &vllm));
        object.extend(in_seconds(&vllm));
        let name = plain(&trial.stem());
        Ok(Some((format!("agg_{name}.json"), json(&Value::Object(object))?)))
    };
    input.trials.iter().filter_map(|trial| file(trial).transpose()).collect()
}

fn head(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Map<String, Value> {
    let deployment = input.deployment(trial);
    let lengths = trial.lengths();
    let model = input.model(trial);
    let kinds = deployment.map(|d| d.gpu_kinds.join("+")).filter(|kinds| !kinds.is_empty());
    object(json!({
        "hw": kinds,
        "conc": trial.point.concurrency,
        "image": deployment.and_then(|d| d.image.as_deref()),
        "model": model,
        "infmax_model_prefix": model.rsplit('/').next(),
        "framework": deployment.map(|d| d.engine.name()),
        "precision": input.plan.model.dtype,
        "spec_decoding": null,
        "disagg": deployment.is_some_and(has_roles),
        "isl": lengths.map(|l| l.isl),
        "osl": lengths.map(|l| l.osl),
        "scalebeam_run": input.results.run,
        "scalebeam_point": trial.id(),
        "scalebeam_trial": trial.number,
        "scalebeam_trust": trial.point.trust.level.name(),
        "scalebeam_reasons": trial.reasons().join(","),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn has_roles(deployment: &DeploymentPlan) -> bool {
    deployment.instances.iter().any(|i| i.role != Role::Aggregated)
}

/// Degrees, GPUs, and throughput over these.
fn shape(
    deployment: Option<&DeploymentPlan>,
    trial: &ExportTrial<'_>,
    vllm: &Map<String, Value>,
) -> Map<String, Value> {
    let all = f64::from(trial.point.gpus);
    let of = |key: &str| vllm.get(key).and_then(Value::as_f64);
    let (total, output) = (of("total_token_throughput"), of("output_throughput"));
    let input = total.zip(output).map(|(total, output)| total - output);
    let over = |rate: Option<f64>, gpus: f64| rate.filter(|_| gpus > 0.0).map(|r| r / gpus);
    let instances = deployment.map_or(&[][..], |d| d.instances.as_slice());
    if deployment.is_some_and(has_roles) {
        let (prefill, decode) = (pool(instances, Role::Prefill), pool(instances, Role::Decode));
        let mut out = object(json!({"is_multinode": true}));
        out.extend(prefill.keys("prefill"));
        out.extend(decode.keys("decode"));
        out.extend(object(json!({
            "tput_per_gpu": over(total, all),
            "output_tput_per_gpu": over(output, f64::from(decode.gpus)),
            "input_tput_per_gpu": over(input, f64::from(prefill.gpus)),
        })));
        return out;
    }
    let first = instances.first();
    let hosts = instances.iter().flat_map(|i| &i.place).map(|place| place.host.as_str());
    let hosts: std::collections::BTreeSet<&str> = hosts.collect();
    object(json!({
        "is_multinode": hosts.len() > 1,
        "tp": first.map(|i| i.tp),
        "pp": first.map(|i| i.pp),
        "ep": first.and_then(|i| i.ep),
        "dp_attention": null,
        "tput_per_gpu": over(total, all),
        "output_tput_per_gpu": over(output, all),
        "input_tput_per_gpu": over(input, all),
    }))
}

/// The instances of one role.
struct Pool<'a> {
    first: Option<&'a InstancePlan>,
    workers: usize,
    gpus: u32,
}

fn pool(instances: &[InstancePlan], role: Role) -> Pool<'_> {
    let mine: Vec<&InstancePlan> = instances.iter().filter(|i| i.role == role).collect();
    Pool {
        first: mine.first().copied(),
        workers: mine.len(),
        gpus: mine.iter().map(|i| i.gpus()).sum(),
    }
}

impl Pool<'_> {
    fn keys(&self, role: &str) -> Map<String, Value> {
        let keys = [
            (format!("{role}_tp"), json!(self.first.map(|i| i.tp))),
            (format!("{role}_pp"), json!(self.first.map(|i| i.pp))),
            (format!("{role}_ep"), json!(self.first.and_then(|i| i.ep))),
            (format!("{role}_num_workers"), json!(self.workers)),
            (format!("num_{role}_gpu"), json!(self.gpus)),
        ];
        keys.into_iter().collect()
    }
}

/// Every latency in seconds, and TPOT as interactivity too.
fn in_seconds(vllm: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in vllm {
        let (Some(name), Some(ms)) = (key.strip_suffix("_ms"), value.as_f64()) else { continue };
        out.insert(name.to_owned(), json!(ms / 1e3));
        if name.contains("tpot") && ms > 0.0 {
            out.insert(name.replace("tpot", "intvty"), json!(1e3 / ms));
        }
    }
    out
}
