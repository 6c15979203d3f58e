//! Ray Serve LLM: an application of a Ray cluster. Derived for the plan; not brought up by this version.
//!
//! The application is shown as `serve run` would be given it; on KubeRay the same configuration is the
//! `serveConfigV2` of a RayService.

use super::{HUB_ENV, anywhere, draft, entry_port, only_on, places, port, reach_addr};
use scalebeam_model::engine::{Engine, LaunchRequest, ParamSpec, ProcessDraft};
use scalebeam_model::plan::{EngineKind, Platform};
use serde_json::{Map, Value, json};

#[derive(Debug)]
pub(super) struct RayServe;

impl Engine for RayServe {
    fn kind(&self) -> EngineKind {
        EngineKind::RayServeLlm
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        super::vllm::OWNED
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[]
    }

    fn health_path(&self) -> Option<&'static str> {
        Some("/v1/models")
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        only_on(&[Platform::Kuberay, Platform::External], self.kind(), platform)
    }

    fn has_own_entry(&self) -> bool {
        true
    }

    /// Replicas are Ray Serve's own, so one application stands for all instances.
    fn processes(&self, _request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        Ok(Vec::new())
    }

    fn infra_processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let anywhere = anywhere(request.platform);
        let hosts = places(request, &anywhere)?;
        let Some(first) = hosts.first().copied() else { return Ok(Vec::new()) };
        let place = super::Place { ids: &[], ..first };
        let config = Value::Array(vec![config(request, hosts.len())]);
        let args = vec![
            "run".to_owned(),
            "ray.serve.llm:build_openai_app".to_owned(),
            format!("llm_configs={config}"),
        ];
        let mut process = draft("app", place, "serve", args, super::Env::new());
        process.ports.push(port("http", &reach_addr(request, place.host), entry_port(request)));
        Ok(vec![process])
    }
}

fn config(request: &LaunchRequest<'_>, nodes: usize) -> Value {
    let mut config = json!({
        "model_loading_config": {
            "model_id": request.model.served,
            "model_source": request.model.id,
        },
        "engine_kwargs": engine_kwargs(request),
        "deployment_config": { "num_replicas": request.instances },
    });
    if nodes > 1 {
        let bundle = json!({ "GPU": 1 });
        config["placement_group_config"] = json!({
            "strategy": "PACK",
            "bundles": vec![bundle; usize::try_from(request.instance.gpus()).unwrap_or(0)],
        });
    }
    config
}

/// The user's flags as keyword arguments: `--max-num-seqs 32` is `max_num_seqs: 32`.
fn engine_kwargs(request: &LaunchRequest<'_>) -> Map<String, Value> {
    let (model, instance) = (request.model, request.instance);
    let mut kwargs = Map::new();
    kwargs.insert("tensor_parallel_size".to_owned(), instance.tp.into());
    if instance.pp > 1 {
        kwargs.insert("pipeline_parallel_size".to_owned(), instance.pp.into());
    }
    for (key, value) in [
        ("revision", model.revision.clone().map(Value::from)),
        ("dtype", model.dtype.clone().map(Value::from)),
        ("max_model_len", model.max_len.map(Value::from)),
    ] {
        if let Some(value) = value {
            kwargs.insert(key.to_owned(), value);
        }
    }
    let mut args = request.args.iter().peekable();
    while let Some(flag) = args.next() {
        let Some(name) = flag.strip_prefix("--") else { continue };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, typed(value)),
            None => (
                name,
                args.next_if(|a| !a.starts_with("--")).map_or(Value::Bool(true), |v| typed(v)),
            ),
        };
        match name.strip_prefix("no-") {
            Some(name) if value == Value::Bool(true) => {
                kwargs.insert(name.replace('-', "_"), Value::Bool(false))
            }
            _ => kwargs.insert(name.replace('-', "_"), value),
        };
    }
    kwargs
}

fn typed(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Object(_))) => value,
        _ => Value::from(text),
    }
}
