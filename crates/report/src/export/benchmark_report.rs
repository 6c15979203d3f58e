//! Benchmark Report v0.2.1 of llm-d, a file a trial: its stack, its load, and what was measured.

use super::{ExportFiles, ExportForm, ExportInput, ExportTrial, grave, json};
use crate::error::ReportError;
use scalebeam_model::plan::{DeploymentPlan, InstancePlan, Role};
use scalebeam_model::results::{Distribution, MetricValue};
use scalebeam_model::telemetry::civil;
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Source, derive_seed};
use serde_json::{Map, Value, json};

const VERSION: &str = "0.2.1";

pub(super) const FORM: ExportForm = ExportForm {
    name: "benchmark-report",
    about: "one Benchmark Report v0.2.1 of llm-d a trial, as JSON, which is YAML too",
    peer: None,
    says: &[
        "latencies begin when the request was sent (`ttft_sent_ms`, `e2e_sent_ms`), as those of the load generators that llm-d runs; from the moment that a request was due they are in `results.json`",
        "`time_per_output_token` is one value a request (`tpot_ms`), `inter_token_latency` pools the gaps of all requests (`itl_ms`)",
        "rates are of one trial, so that they have a mean and no spread",
        "`run.description` has the trust of the point and what speaks against it; `scenario.load.native.config.scalebeam` has the codes",
        "an engine whose kind of GPU is not known is a component of kind `generic`",
        "`input_seq_len` is what was asked for; of a workload without one length it is the mean that was measured, called `other`",
    ],
    write,
};

fn write(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let file = |trial: &ExportTrial<'_>| {
        Ok((format!("{}.json", trial.stem()), json(&report(input, trial))?))
    };
    input.trials.iter().map(file).collect()
}

fn report(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Value {
    let mut scenario = Map::new();
    let stack = stack(input, trial);
    if !stack.is_empty() {
        scenario.insert("stack".to_owned(), Value::Array(stack));
    }
    if let Some(load) = load(input, trial) {
        scenario.insert("load".to_owned(), load);
    }
    let aggregate = json!({
        "requests": requests(trial),
        "latency": latency(trial),
        "throughput": throughput(trial),
    });
    json!({
        "version": VERSION,
        "run": run(input, trial),
        "scenario": scenario,
        "results": {"request_performance": {"aggregate": aggregate}},
    })
}

fn run(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Value {
    let run = &input.results.run;
    let mut description = format!("{}, trial {}: {}", trial.id(), trial.number, trial.trust());
    for reason in grave(trial.point) {
        description.push_str(&format!("; {}", reason.message));
    }
    json!({
        "uid": format!("{run}/{}/{}", trial.id(), trial.number),
        "eid": run,
        "time": time(trial),
        "description": description,
    })
}

fn time(trial: &ExportTrial<'_>) -> Option<Value> {
    let (began, ended) = (trial.began?, trial.ended?);
    let iso = |at: Nanos| civil::iso(at) + "Z";
    let seconds = ended.since(began).as_secs_f64();
    Some(json!({"start": iso(began), "end": iso(ended), "duration": format!("PT{seconds}S")}))
}

/// One component for each role and shape of instances.
fn stack(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Vec<Value> {
    let Some(deployment) = input.deployment(trial) else { return Vec::new() };
    let shape = |i: &InstancePlan| (i.role, i.tp, i.pp, i.dp, i.ep);
    let mut pools: Vec<Vec<&InstancePlan>> = Vec::new();
    for instance in &deployment.instances {
        match pools.iter_mut().find(|p| p.first().map(|i| shape(i)) == Some(shape(instance))) {
            Some(pool) => pool.push(instance),
            None => pools.push(vec![instance]),
        }
    }
    let components = pools.iter().enumerate();
    components.filter_map(|(n, pool)| component(input, deployment, n, pool)).collect()
}

fn component(
    input: &ExportInput<'_>,
    deployment: &DeploymentPlan,
    n: usize,
    pool: &[&InstancePlan],
) -> Option<Value> {
    let first = pool.first()?;
    let ran = input.results.ran.iter().find(|r| r.deployment == deployment.name);
    let version =
        ran.and_then(|r| r.engine.known().cloned()).or_else(|| deployment.version.clone());
    let mut standardized = json!({
        "kind": "generic",
        "tool": deployment.engine.name(),
        "tool_version": version.unwrap_or_else(|| "unknown".to_owned()),
        "role": match first.role {
            Role::Aggregated => "replica",
            Role::Prefill => "prefill",
            Role::Decode => "decode",
        },
        "replicas": pool.len(),
        "model": {"name": deployment.model},
    });
    if let [kind] = deployment.gpu_kinds.as_slice()
        && deployment.gpus > 0
    {
        standardized["kind"] = "inference_engine".into();
        standardized["accelerator"] = json!({
            "model": kind,
            // Of one replica, as llm-d's own reports have it.
            "count": first.gpus(),
            "parallelism": {
                "tp": first.tp,
                "pp": first.pp,
                "dp": first.dp,
                "ep": first.ep.unwrap_or(1),
            },
        });
    }
    Some(json!({
        "metadata": {
            "label": format!("{}-{n}", deployment.name),
            "cfg_id": digest(&standardized.to_string()),
        },
        "standardized": standardized,
        "native": {},
    }))
}

/// The same text has the same one.
fn digest(text: &str) -> String {
    let bytes: Vec<u64> = text.bytes().map(u64::from).collect();
    format!("{:016x}", derive_seed(&bytes))
}

/// Absent where nobody knows how long the prompts were, which the form demands.
fn load(input: &ExportInput<'_>, trial: &ExportTrial<'_>) -> Option<Value> {
    let lengths = trial.lengths();
    let length = |mean: f64, dev: f64| match dev > 0.0 {
        true => json!({"distribution": "gaussian", "value": mean, "std_dev": dev}),
        false => json!({"distribution": "fixed", "value": mean}),
    };
    let measured =
        || Some(json!({"distribution": "other", "value": trial.value("prompt_tokens.mean")?}));
    let prompt = match lengths {
        Some(l) if l.isl_dist.is_none() => length(f64::from(l.isl), l.isl_dev),
        _ => measured()?,
    };
    let answer = lengths.filter(|l| l.osl_dist.is_none() && trial.plan.workload.force_len);
    let mut standardized = json!({
        "tool": "scalebeam",
        "tool_version": input.tool,
        "source": if matches!(trial.plan.workload.source, Source::Synthetic { .. }) { "random" } else { "sampled" },
        "input_seq_len": prompt,
    });
    if let Some(l) = answer {
        standardized["output_seq_len"] = length(f64::from(l.osl), l.osl_dev);
    }
    if let Some(rate) = trial.point.rate_rps.filter(|r| *r > 0.0) {
        standardized["rate_qps"] = json!(rate);
    }
    if let Some(n) = trial.point.concurrency.filter(|n| *n > 0) {
        standardized["concurrency"] = json!(n);
    }
    let workload = serde_json::to_value(&trial.plan.workload).ok()?;
    Some(json!({
        "metadata": {
            "cfg_id": digest(&workload.to_string()),
            "description": format!("load {}, level {}", trial.point.load, trial.point.level),
        },
        "standardized": standardized,
        "native": {"config": {
            "mode": trial.plan.mode.name(),
            "workload": workload,
            "scalebeam": {"trust": trial.point.trust.level.name(), "reasons": trial.reasons()},
        }},
    }))
}

fn requests(trial: &ExportTrial<'_>) -> Value {
    let sent = || trial.records.iter().filter(|r| r.sent_at.is_some());
    without_nulls(json!({
        "total": sent().count(),
        "failures": sent().filter(|r| r.outcome.is_loss()).count(),
        "input_length": spread(trial, "prompt_tokens", "count"),
        "output_length": spread(trial, "output_tokens", "count"),
    }))
}

fn latency(trial: &ExportTrial<'_>) -> Value {
    without_nulls(json!({
        "time_to_first_token": spread(trial, "ttft_sent_ms", "ms"),
        "time_per_output_token": spread(trial, "tpot_ms", "ms/token"),
        "inter_token_latency": spread(trial, "itl_ms", "ms/token"),
        "request_latency": spread(trial, "e2e_sent_ms", "ms"),
    }))
}

fn throughput(trial: &ExportTrial<'_>) -> Value {
    let rate = |name: &str, units: &str| {
        trial.value(name).map(|mean| json!({"units": units, "mean": mean}))
    };
    let (total, output) = (trial.value("total_tps"), trial.value("output_tps"));
    let input = total.zip(output).map(|(total, output)| total - output);
    without_nulls(json!({
        "input_token_rate": input.map(|mean| json!({"units": "tokens/s", "mean": mean})),
        "output_token_rate": rate("output_tps", "tokens/s"),
        "total_token_rate": rate("total_tps", "tokens/s"),
        "request_rate": rate("rps", "queries/s"),
    }))
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(object) = &mut value {
        object.retain(|_, v| !v.is_null());
    }
    value
}

/// A distribution by the form's names of statistics.
fn spread(trial: &ExportTrial<'_>, metric: &str, units: &str) -> Option<Value> {
    let MetricValue::Distribution(d) = trial.metrics()?.get(metric)? else { return None };
    let Distribution { mean, std, min, p1, p5, p25, p50, p75, p90, p95, p99, p999, max, .. } = *d;
    Some(json!({
        "units": units, "mean": mean, "stddev": std, "min": min, "p1": p1, "p5": p5, "p25": p25,
        "p50": p50, "p75": p75, "p90": p90, "p95": p95, "p99": p99, "p99p9": p999, "max": max,
    }))
}
