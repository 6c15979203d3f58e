//! The site's own `kubectl`: its kubeconfig, contexts and ways to log in.

use super::super::errand;
use super::super::tool::{Call, ToolError};
use super::objects::{List, Object, Pod};
use crate::journal::Claim;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

pub(super) const KUBECTL: &str = "kubectl";
/// One question to the API server.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The same, as kubectl is told it, so that it says itself what it waited for.
const REQUEST_TIMEOUT: &str = "--request-timeout=45s";
/// Where a pod finds who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Lines of the log of a container that ended.
const LAST_WORDS: &str = "--tail=15";

/// What kubectl says, and what helps.
const HINTS: &[(&str, &str)] = &[
    ("exceeded quota", "free some of the namespace's quota, or ask for less"),
    ("context was not found", "correct params.context: `kubectl config get-contexts` lists them"),
    ("context \"", "correct params.context: `kubectl config get-contexts` lists them"),
    ("namespaces \"", "create the namespace, or correct params.namespace"),
    ("must be logged in", "log in to the cluster: try `kubectl auth whoami`"),
    ("Unauthorized", "log in to the cluster: try `kubectl auth whoami`"),
    ("orbidden", "this user may not do that: see `kubectl auth can-i --list`"),
    ("x509", "the API server's certificate is not trusted: see `kubectl config view --minify`"),
    ("was refused", "the API server does not answer: see `kubectl cluster-info`"),
    ("Unable to connect", "the API server does not answer: see `kubectl cluster-info`"),
    ("timeout", "the API server does not answer: see `kubectl cluster-info`"),
    (
        "conflict",
        "somebody else owns a field of that object: take it down, or use another namespace",
    ),
    (
        "is invalid",
        "the cluster does not take what was rendered: see rendered/ in the run directory",
    ),
    (
        "strict decoding",
        "the cluster's version of that kind lacks a field: see its operator's version",
    ),
];

/// What to do where kubectl said `said`.
pub(in super::super) fn hint(said: &str) -> String {
    let known = HINTS.iter().find(|(words, _)| said.contains(words));
    known.map_or("try the same command by hand", |(_, hint)| hint).to_owned()
}

/// Where in which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    /// Context of the kubeconfig; nothing for a pod that uses its service account.
    pub(super) context: Option<String>,
    pub(super) namespace: String,
}

/// What is there under a selector.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) objects: Vec<Object>,
    pub(super) pods: Vec<Pod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Config {
    current_context: String,
    contexts: Vec<NamedContext>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    context: ContextDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContextDetails {
    namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Api {
    resources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    reason: String,
    message: String,
}

/// Whether scalebeam is a pod that may ask the API server.
fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && Path::new(SERVICE_ACCOUNT).join("token").exists()
}

impl Site {
    /// The context and namespace that the file names, or else kubectl's own.
    pub(super) async fn find(
        context: Option<&str>,
        namespace: Option<&str>,
    ) -> Result<Self, ToolError> {
        let args = ["config", "view", "--minify", "-o", "json"].into_iter();
        let args = args.chain(context.into_iter().flat_map(|c| ["--context", c]));
        let ran = Call::new(KUBECTL).args(args).run(ANSWER_WITHIN).await?;
        if ran.ok {
            let config: Config = read(&ran.stdout)?;
            let own = config.contexts.into_iter().next().and_then(|c| c.context.namespace);
            let namespace = namespace.map(str::to_owned).or(own);
            return Ok(Self {
                context: Some(context.map_or(config.current_context, str::to_owned)),
                namespace: namespace.unwrap_or_else(|| "default".to_owned()),
            });
        }
        if context.is_none() && is_pod() {
            let own = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace"));
            let own = own.map_or_else(|_| "default".to_owned(), |n| n.trim().to_owned());
            return Ok(Self { context: None, namespace: namespace.map_or(own, str::to_owned) });
        }
        Err(ToolError::Unfit {
            said: format!("kubectl has no cluster to talk to: {}", ran.refusal(KUBECTL)),
            hint: "name a context in params.context, or set a current one; `kubectl config \
                   get-contexts` lists them"
                .to_owned(),
        })
    }

    /// Whether scalebeam runs in this cluster.
    pub(super) fn is_inside(&self) -> bool {
        self.context.is_none()
    }

    /// What kubectl prints for `args`.
    async fn ask(&self, args: &[&str]) -> Result<String, ToolError> {
        self.call(args).ask(ANSWER_WITHIN).await
    }

    fn call(&self, args: &[&str]) -> Call {
        // `logs` and `--raw` take the limit too, and none of the commands asks for longer. In a pod a flag of the
        // connection would keep kubectl from its service account.
        let at = self.context.iter().flat_map(|c| ["--context", c.as_str(), REQUEST_TIMEOUT]);
        let at = ["--namespace", &self.namespace].into_iter().chain(at);
        Call::new(KUBECTL).args(args).args(at)
    }

    /// Whether the API server answers, and lets this user look.
    pub(super) async fn answers(&self) -> Result<(), ToolError> {
        let pods = format!("/api/v1/namespaces/{}/pods?limit=1", self.namespace);
        self.ask(&["get", "--raw", &pods]).await.map(drop)
    }

    /// Whether the API at `path` has `kinds`; otherwise what brings them.
    pub(super) async fn has_kinds(
        &self,
        path: &str,
        kinds: &[&str],
        operator: &str,
    ) -> Result<(), ToolError> {
        let missing = |said: String| ToolError::Unfit {
            said,
            hint: format!("install {operator} in the cluster, in a version that has that API"),
        };
        let text = match self.ask(&["get", "--raw", path]).await {
            Err(ToolError::Refused { said, .. }) if said.contains("(NotFound)") => {
                let kinds = kinds.join(" and ");
                return Err(missing(format!("the cluster has no API {path}, which {kinds} is in")));
            }
            answer => answer?,
        };
        let api: Api = read(&text)?;
        let has = |kind: &str| api.resources.iter().any(|r| r.kind == kind);
        match kinds.iter().find(|kind| !has(kind)) {
            None => Ok(()),
            Some(kind) => Err(missing(format!("the API {path} of the cluster has no {kind}"))),
        }
    }

    /// Applies `file` for `claim`. Fields that somebody else owns are a conflict, and stay as they are.
    pub(super) async fn apply(&self, file: &str, claim: &Claim) -> Result<(), ToolError> {
        let call = self.call(&["apply", "--server-side", "--field-manager=scalebeam", "-f", file]);
        errand::marked(call, claim).ask(ANSWER_WITHIN).await.map(drop)
    }

    /// Everything of `kinds`, and every pod, that `selector` finds.
    pub(super) async fn see(&self, kinds: &str, selector: &str) -> Result<Seen, ToolError> {
        let kinds = format!("{kinds},pods");
        let text = self.ask(&["get", &kinds, "-l", selector, "-o", "json"]).await?;
        let list: List<Value> = read(&text)?;
        let mut seen = Seen::default();
        for item in list.items {
            match item.get("kind").and_then(Value::as_str) {
                Some("Pod") => seen.pods.push(understood(item)?),
                _ => seen.objects.push(understood(item)?),
            }
        }
        Ok(seen)
    }

    /// Every pod that `selector` finds.
    pub(super) async fn pods(&self, selector: &str) -> Result<Vec<Pod>, ToolError> {
        let text = self.ask(&["get", "pods", "-l", selector, "-o", "json"]).await?;
        read(&text).map(|list: List<Pod>| list.items)
    }

    /// Objects that are there already under the names that `file` gives.
    pub(super) async fn named_in(&self, file: &str) -> Result<Vec<Object>, ToolError> {
        let text = self.ask(&["get", "-f", file, "--ignore-not-found", "-o", "json"]).await?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        // Of one object kubectl prints the object, of several a list.
        let value: Value = read(&text)?;
        match value.get("items") {
            Some(_) => understood(value).map(|list: List<Object>| list.items),
            None => understood(value).map(|object| vec![object]),
        }
    }

    /// Names of what is there of `kinds`, and of pods.
    pub(super) async fn names(
        &self,
        kinds: &str,
        selector: &str,
    ) -> Result<Vec<String>, ToolError> {
        let kinds = format!("{kinds},pods");
        let args = ["get", &kinds, "-l", selector, "-o", "name", "--ignore-not-found"];
        let text = self.ask(&args).await?;
        Ok(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
    }

    /// Asks for everything of `kinds` that `selector` finds to be deleted, dependents first.
    pub(super) async fn delete(&self, kinds: &str, selector: &str) -> Result<(), ToolError> {
        let how = ["--cascade=foreground", "--wait=false", "--ignore-not-found"];
        let args: Vec<&str> = ["delete", kinds, "-l", selector].into_iter().chain(how).collect();
        self.ask(&args).await.map(drop)
    }

    /// The last words of a container: of the one before, where it was `restarted`.
    pub(super) async fn log_of(
        &self,
        pod: &str,
        container: &str,
        restarted: bool,
    ) -> Result<String, ToolError> {
        let args = ["logs", pod, "-c", container, LAST_WORDS].into_iter();
        let args: Vec<&str> = args.chain(restarted.then_some("--previous")).collect();
        self.ask(&args).await
    }

    /// What the cluster warned of the object `name` last; nothing where it did not, or this user may not ask.
    pub(super) async fn warning(&self, name: &str) -> Option<String> {
        let which = format!("involvedObject.name={name},type=Warning");
        let args = ["get", "events", "--field-selector", &which, "-o", "json"];
        let list: List<Event> = read(&self.ask(&args).await.ok()?).ok()?;
        let last = list.items.into_iter().next_back()?;
        Some(format!("{}: {}", last.reason, last.message.trim()))
    }

    fn at(&self) -> impl Iterator<Item = &str> {
        self.context.iter().flat_map(|context| ["--context", context.as_str()])
    }

    /// A call of kubectl that runs `words` in the container of a pod, and gives back what they print.
    pub(super) fn exec(&self, pod: &str, container: &str, words: &[&str]) -> Vec<String> {
        let at = self.at();
        let head =
            ["exec", pod, "--container", container, "--quiet", "--namespace", &self.namespace];
        let args = head.into_iter().chain(at).chain(["--"]).chain(words.iter().copied());
        args.map(str::to_owned).collect()
    }

    /// A call of kubectl that follows what a container prints, each line with its time, from `since` on.
    pub(super) fn follow(&self, pod: &str, container: &str, since: Option<&str>) -> Vec<String> {
        let at = self.at();
        let head = ["logs", pod, "--container", container, "--follow", "--timestamps"];
        let args = head.into_iter().chain(["--namespace", &self.namespace]).chain(at);
        let since = since.map(|at| format!("--since-time={at}"));
        args.map(str::to_owned).chain(since).collect()
    }

    /// The last `lines` lines of every container that `selector` finds.
    pub(super) async fn logs(&self, selector: &str, lines: usize) -> Result<String, ToolError> {
        let tail = format!("--tail={lines}");
        let how =
            ["--all-containers", "--prefix", "--ignore-errors", "--max-log-requests=50", &tail];
        let args: Vec<&str> = ["logs", "-l", selector].into_iter().chain(how).collect();
        self.ask(&args).await
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ToolError> {
    serde_json::from_str(text).map_err(|error| unclear(&error))
}

fn understood<T: DeserializeOwned>(value: Value) -> Result<T, ToolError> {
    serde_json::from_value(value).map_err(|error| unclear(&error))
}

fn unclear(error: &serde_json::Error) -> ToolError {
    ToolError::Unclear { program: KUBECTL, said: error.to_string() }
}
