//! LMDeploy: `lmdeploy serve api_server`, as its 0.18.0 takes it. Derived for the plan; not brought up by
//! this version.
//!
//! One process an instance. It counts no preemptions, and has no path that empties its prefix cache:
//! `/distserve/free_cache` frees what one transferred session holds.

use super::{
    Args, Env, HUB_ENV, Place, anywhere, bind_addr, draft, only_on, places, port, reach_addr, text,
    visible_gpus,
};
use scalebeam_model::engine::{Engine, LaunchRequest, ParamKind, ParamSpec, ProcessDraft};
use scalebeam_model::plan::{EngineKind, Platform, Role};

#[derive(Debug)]
pub(super) struct Lmdeploy;

impl Engine for Lmdeploy {
    fn kind(&self) -> EngineKind {
        EngineKind::Lmdeploy
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("--tp", "tp"),
            ("--dp", "replicas"),
            ("--ep", "ep"),
            ("--nnodes", "place"),
            ("--node-rank", "place"),
            ("--dist-init-addr", "host.addr"),
            ("--server-name", "host.addr"),
            ("--server-port", "port"),
            ("--role", "role"),
        ]
    }

    fn context_flags(&self) -> &'static [&'static str] {
        &["--session-len"]
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[ParamSpec {
            name: "bin",
            kind: ParamKind::Text,
            doc: "path of the lmdeploy program, for example of a venv",
        }]
    }

    fn default_port(&self) -> u16 {
        23_333
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        only_on(&[Platform::External], self.kind(), platform)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let anywhere = anywhere(request.platform);
        let place = one_place(request, &places(request, &anywhere)?)?;
        let mut env = Env::new();
        visible_gpus(&mut env, request, place.ids);
        let program = text(request.params, "bin").unwrap_or("lmdeploy");
        let mut server = draft("serve", place, program, arguments(request, place), env);
        server.ports.push(port("http", &reach_addr(request, place.host), request.instance.port));
        Ok(vec![server])
    }
}

fn one_place<'a>(request: &LaunchRequest<'_>, places: &[Place<'a>]) -> Result<Place<'a>, String> {
    let instance = request.instance;
    if instance.role != Role::Aggregated {
        return Err(format!(
            "a {} pool of LMDeploy is joined to the others by its own proxy, which this version does not \
             start",
            instance.role.name()
        ));
    }
    if instance.pp > 1 {
        return Err("LMDeploy has no pp: say tp instead".to_owned());
    }
    if instance.dp > 1 {
        // Its PyTorch engine answers at a port a rank then, on an address that it chooses.
        return Err(
            "an instance of LMDeploy with dp is several servers: say replicas instead".to_owned()
        );
    }
    match places {
        [place] => Ok(*place),
        _ => Err("an instance of LMDeploy does not span hosts in this version".to_owned()),
    }
}

fn arguments(request: &LaunchRequest<'_>, place: Place<'_>) -> Vec<String> {
    let (model, instance, user) = (request.model, request.instance, request.args);
    let mut args = Args::new(&["serve", "api_server", &model.id]);
    args.unless_given(user, &["--model-name"], Some(&model.served))
        .pair("--server-name", bind_addr(request, place.host))
        .pair("--server-port", instance.port)
        .pair("--tp", instance.tp)
        .degree("--ep", instance.ep.unwrap_or(1))
        .unless_given(user, &["--revision"], model.revision.as_ref())
        .unless_given(user, &["--dtype"], model.dtype.as_ref())
        .unless_given(user, &["--session-len"], model.max_len);
    args.user(user).done()
}
