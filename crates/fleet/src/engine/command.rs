//! Any program that serves: what to start is in the file, word for word.
//!
//! Words in braces ([`WORDS`]) stand in `args` and in the deployment's `env` for what the plan decides, so
//! that each replica gets a port of its own. Other braces, as those of JSON, stay. What shows that the
//! program serves is in `ready`; nothing is known about its paths.

use super::{
    CACHE_RESET, Env, HUB_ENV, Place, anywhere, bind_addr, draft, given_reset, only_on, places,
    port, reach_addr, text, visible_gpus,
};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft,
};
use scalebeam_model::plan::{EngineKind, Platform, Role};

#[derive(Debug)]
pub(super) struct Command;

/// A word that may stand in braces, and what it stands for.
type Word = (&'static str, fn(&LaunchRequest<'_>, Place<'_>) -> String);

const WORDS: &[Word] = &[
    ("port", |r, _| r.instance.port.to_string()),
    ("host", |r, place| bind_addr(r, place.host)),
    ("model", |r, _| r.model.id.clone()),
    ("served", |r, _| r.model.served.clone()),
    ("index", |r, _| r.instance.index.to_string()),
    ("tp", |r, _| r.instance.tp.to_string()),
    ("pp", |r, _| r.instance.pp.to_string()),
    ("dp", |r, _| r.instance.dp.to_string()),
];

/// Words that a launcher of ours fills in, since they are not known before.
const LATER: [&str; 2] = ["scratch", "run"];

impl Engine for Command {
    fn kind(&self) -> EngineKind {
        EngineKind::Command
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                name: "program",
                kind: ParamKind::Text,
                doc: "what is started: a name that is looked up on PATH, or a path",
            },
            CACHE_RESET,
        ]
    }

    fn cache_reset(&self, params: &Params) -> Option<CacheReset> {
        given_reset(params)
    }

    /// Only those that its place names.
    fn takes_gpus(&self) -> bool {
        false
    }

    fn health_path(&self) -> Option<&'static str> {
        None
    }

    fn inherited_env(&self) -> &'static [&'static str] {
        HUB_ENV
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        only_on(&[Platform::Local, Platform::Ssh, Platform::External], self.kind(), platform)
    }

    fn processes(&self, request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        if request.platform == Platform::External {
            return Ok(Vec::new());
        }
        let Some(program) = text(request.params, "program").filter(|p| !p.trim().is_empty()) else {
            return Err(
                "engine command says what is started in params = { program = \"..\" }, and its \
                        arguments in args"
                    .to_owned(),
            );
        };
        let anywhere = anywhere(request.platform);
        let place = one_place(request, &places(request, &anywhere)?)?;
        let args = request.args.iter().map(|arg| fill(arg, request, place));
        let mut env = Env::new();
        visible_gpus(&mut env, request, place.ids);
        let mut server = draft("serve", place, program, args.collect::<Result<Vec<_>, _>>()?, env);
        server.ports.push(port("http", &reach_addr(request, place.host), request.instance.port));
        Ok(vec![server])
    }

    fn variable(&self, value: &str, request: &LaunchRequest<'_>) -> Result<String, String> {
        let anywhere = anywhere(request.platform);
        fill(value, request, one_place(request, &places(request, &anywhere)?)?)
    }
}

fn one_place<'a>(request: &LaunchRequest<'_>, places: &[Place<'a>]) -> Result<Place<'a>, String> {
    let role = request.instance.role;
    match places {
        _ if role != Role::Aggregated => Err(format!(
            "what joins a {} pool to the others is not known of a command: say replicas, or put a program \
             that starts them all into one",
            role.name()
        )),
        [place] => Ok(*place),
        _ => Err("a command is one process: an instance of it does not span hosts".to_owned()),
    }
}

/// `text` with its words in braces filled in.
fn fill(text: &str, request: &LaunchRequest<'_>, place: Place<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}').filter(|(name, _)| is_word(name)) {
            Some((name, behind)) => {
                let value = value_of(name, request, place);
                out.push_str(&value.ok_or_else(|| unknown(name, text, request))?);
                rest = behind;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn value_of(name: &str, request: &LaunchRequest<'_>, place: Place<'_>) -> Option<String> {
    if later(request).contains(&name) {
        return Some(format!("{{{name}}}"));
    }
    let (_, value) = WORDS.iter().find(|(word, _)| *word == name)?;
    Some(value(request, place))
}

fn later(request: &LaunchRequest<'_>) -> &'static [&'static str] {
    if request.platform.places_processes() { &LATER } else { &[] }
}

fn unknown(name: &str, text: &str, request: &LaunchRequest<'_>) -> String {
    let words = WORDS.iter().map(|(word, _)| word).chain(later(request));
    let known = words.map(|word| format!("{{{word}}}")).collect::<Vec<_>>().join(", ");
    format!(
        "nothing is known that '{{{name}}}' in '{text}' stands for; known are {known}. A text with braces of \
         its own goes into a file, or into [env] of the experiment, which is passed on as it is"
    )
}
