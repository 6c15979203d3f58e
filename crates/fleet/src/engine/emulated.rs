//! The built-in emulated engine: `scalebeam serve`, one process per instance on its first host.

use super::{
    Args, Env, Place, anywhere, bind_addr, draft, only_on, places, port, reach_addr, scalar, text,
};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft,
};
use scalebeam_model::plan::{EngineKind, Platform, Role};

#[derive(Debug)]
pub(super) struct Emulated;

const fn spec(name: &'static str, kind: ParamKind, doc: &'static str) -> ParamSpec {
    ParamSpec { name, kind, doc }
}

const PARAMS: &[ParamSpec] = &[
    spec("gpu", ParamKind::Text, "emulated kind of GPU; the host's where absent"),
    spec("inter_node_gbps", ParamKind::Number, "network between the emulated nodes of an instance"),
    spec("max_num_seqs", ParamKind::Count, "requests batched at once"),
    spec("max_num_batched_tokens", ParamKind::Count, "tokens per engine step"),
    spec("kv_tokens", ParamKind::Count, "tokens in the key-value cache; what fits where absent"),
    spec("max_model_len", ParamKind::Count, "longest context"),
    spec("ttft", ParamKind::Duration, "fixed time to first token, instead of the roofline model"),
    spec("itl", ParamKind::Duration, "fixed time between tokens, instead of the roofline model"),
    spec("slots", ParamKind::Count, "requests served at once with fixed times"),
    spec("speed", ParamKind::Number, "how many times faster than the emulated hardware"),
    spec("seed", ParamKind::Integer, "seed of texts and jitter"),
    spec("truth_log", ParamKind::Text, "file for the true instants of every token"),
];

/// Parameters that become the flag of the same name.
const PASSED: &[(&str, &str)] = &[
    ("inter_node_gbps", "--inter-node-gbps"),
    ("max_num_seqs", "--max-num-seqs"),
    ("max_num_batched_tokens", "--max-num-batched-tokens"),
    ("kv_tokens", "--kv-tokens"),
    ("ttft", "--ttft"),
    ("itl", "--itl"),
    ("slots", "--slots"),
    ("seed", "--seed"),
    ("speed", "--speed"),
    ("truth_log", "--truth-log"),
];

impl Engine for Emulated {
    fn kind(&self) -> EngineKind {
        EngineKind::Emulated
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("--host", "host.addr"),
            ("--port", "port"),
            ("--model", "[model] id"),
            ("--served-model-name", "[model] served"),
            ("--gpu", "host.gpu or params.gpu"),
            ("--tp", "tp"),
            ("--pp", "pp"),
            ("--nodes", "place"),
            ("--timing", "params.ttft and params.itl"),
        ]
    }

    fn params(&self) -> &'static [ParamSpec] {
        PARAMS
    }

    fn cache_reset(&self, _params: &Params) -> Option<CacheReset> {
        Some(CacheReset::post("/reset_prefix_cache"))
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        only_on(
            &[Platform::Local, Platform::Ssh, Platform::Slurm, Platform::External],
            self.kind(),
            platform,
        )
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let instance = request.instance;
        if instance.role != Role::Aggregated {
            return Err(format!(
                "an emulated endpoint serves whole requests, so a {} pool cannot be brought up; \
                 `scalebeam sim` simulates split pools",
                instance.role.name()
            ));
        }
        if instance.dp > 1 {
            return Err("the emulated engine has no dp: say replicas instead".to_owned());
        }
        let anywhere = anywhere(request.platform);
        let hosts = places(request, &anywhere)?;
        let Some(first) = hosts.first().copied() else { return Ok(Vec::new()) };
        let mut process =
            draft("serve", first, "scalebeam", arguments(request, first, hosts.len()), Env::new());
        // The emulated GPUs of every node count, though the process needs none.
        process.ports.push(port("http", &reach_addr(request, first.host), instance.port));
        Ok(vec![process])
    }
}

fn arguments(request: &LaunchRequest<'_>, place: Place<'_>, nodes: usize) -> Vec<String> {
    let (model, params, user) = (request.model, request.params, request.args);
    let mut args = Args::new(&["serve"]);
    args.pair("--host", bind_addr(request, place.host))
        .pair("--port", request.instance.port)
        .pair("--model", &model.id);
    if model.served != model.id {
        args.pair("--served-model-name", &model.served);
    }
    args.unless_given(user, &["--gpu"], text(params, "gpu").or(place.host.gpu.as_deref()))
        .pair("--tp", request.instance.tp)
        .pair("--pp", request.instance.pp)
        .pair("--nodes", nodes);
    let fixed = params.contains_key("ttft") || params.contains_key("itl");
    args.pair("--timing", if fixed { "fixed" } else { "roofline" });
    let longest = scalar(params, "max_model_len").or(model.max_len.map(|n| n.to_string()));
    args.unless_given(user, &["--max-model-len"], longest);
    for (key, flag) in PASSED {
        args.unless_given(user, &[flag], scalar(params, key));
    }
    args.user(user).done()
}
