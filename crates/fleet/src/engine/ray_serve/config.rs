//! What `serve run` is told: Ray's `LLMConfig` of the replicas, and the application around them.

use super::{APPLICATION, DEPLOYMENT, METRICS_PORT, PAGES, count, is_split, proxy_port};
use crate::engine::{Place, bind_addr, extra_port, integer, vllm};
use scalebeam_model::engine::LaunchRequest;
use scalebeam_model::plan::{InstancePlan, Role};
use serde_json::{Map, Value, json};

pub(super) const IMPORT_PATH: &str = "ray.serve.llm:build_openai_app";
const SPLIT_IMPORT_PATH: &str = "ray.serve.llm:build_pd_openai_app";
/// Where Ray reads from which port on it numbers the side channels of NIXL.
const SIDE_CHANNELS: &str = "NIXL_SIDE_CHANNEL_PORT_BASE";

/// What `serve run` reads: one proxy, on the head of `hosts`, and the application.
pub(super) fn application(request: &LaunchRequest<'_>, hosts: &[Place<'_>]) -> Value {
    let (import_path, mut args) = match is_split(request.pools) {
        true => {
            let of_prefill = side_channels(request, hosts);
            let of_decode = of_prefill.saturating_add(gpus(request, Role::Prefill));
            let prefill = pool(request, Role::Prefill, of_prefill);
            let decode = pool(request, Role::Decode, of_decode);
            (SPLIT_IMPORT_PATH, json!({ "prefill_config": prefill, "decode_config": decode }))
        }
        false => {
            let replicas = of_role(request, Role::Aggregated);
            (IMPORT_PATH, json!({ "llm_configs": [replicas] }))
        }
    };
    let replicas = count(request.pools, |i| i.role != Role::Prefill);
    let ingress = integer(request.params, "ingress_replicas").unwrap_or(replicas.into());
    // Raylets offer a CPU a GPU, and these would take them from the replicas.
    args["ingress_deployment_config"] = json!({
        "num_replicas": ingress,
        "ray_actor_options": { "num_cpus": 0 },
    });
    let listens = hosts.first().map(|head| bind_addr(request, head.host));
    json!({
        "proxy_location": "HeadOnly",
        "http_options": { "host": listens, "port": proxy_port(request) },
        "applications": [{
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": import_path,
            "args": args,
        }],
    })
}

/// The first of the ports by which replicas say where their blocks are. Ray gives each replica as many as it has GPUs,
/// from this number on.
fn side_channels(request: &LaunchRequest<'_>, hosts: &[Place<'_>]) -> u16 {
    let pages = u16::try_from(hosts.len()).unwrap_or(u16::MAX);
    extra_port(request, PAGES, METRICS_PORT).saturating_add(pages)
}

fn gpus(request: &LaunchRequest<'_>, role: Role) -> u16 {
    let of_role = request.pools.iter().filter(|i| i.role == role);
    u16::try_from(of_role.map(InstancePlan::gpus).sum::<u32>()).unwrap_or(u16::MAX)
}

/// The instances of `role`, as one deployment that hands blocks over by NIXL.
fn pool(request: &LaunchRequest<'_>, role: Role, side_channels: u16) -> Value {
    let mut config = of_role(request, role);
    config["experimental_configs"] = json!({ SIDE_CHANNELS: side_channels });
    let kwargs = &mut config["engine_kwargs"];
    if kwargs["kv_transfer_config"].is_null() {
        kwargs["kv_transfer_config"] = typed(vllm::KV_TRANSFER);
    }
    config
}

/// The instances of `role` as one deployment, on the GPUs that raylets offer, with what the user gives them.
fn of_role(request: &LaunchRequest<'_>, role: Role) -> Value {
    let mut ours = request.pools.iter().zip(request.given).filter(|(i, _)| i.role == role);
    let Some((instance, given)) = ours.next() else { return Value::Null };
    let instances = count(request.pools, |i| i.role == role);
    let mut config = replicas(&LaunchRequest { instance, args: given.args, instances, ..*request });
    let strategy = if instance.place.len() > 1 { "PACK" } else { "STRICT_PACK" };
    config["placement_group_config"] = placement(instance, strategy);
    config["deployment_config"]["name"] = DEPLOYMENT.into();
    if !given.env.is_empty() {
        config["runtime_env"] = json!({ "env_vars": given.env });
    }
    config
}

/// The resource of raylets that an instance of `role` takes one of with each GPU.
pub(super) fn slot_of(role: Role) -> String {
    format!("scalebeam-pool:{}", role.name())
}

/// A bundle a GPU of an instance, where pools are split on a GPU of its pool.
pub(super) fn placement(instance: &InstancePlan, strategy: &str) -> Value {
    let gpus = usize::try_from(instance.gpus()).unwrap_or(0);
    let mut bundle = json!({ "GPU": 1 });
    if instance.role != Role::Aggregated {
        bundle[slot_of(instance.role)] = 1.into();
    }
    json!({ "strategy": strategy, "bundles": vec![bundle; gpus] })
}

/// A deployment of `instances` replicas, as Ray's `LLMConfig`.
pub(super) fn replicas(request: &LaunchRequest<'_>) -> Value {
    json!({
        "model_loading_config": {
            "model_id": request.model.served,
            "model_source": request.model.id,
        },
        "engine_kwargs": engine_kwargs(request),
        "deployment_config": { "num_replicas": request.instances },
    })
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
