//! Modal, by the site's own `modal` client: deploy, look, stop.
//!
//! **Invariants.** An app has a name that no other run has: it is found and stopped by that alone, also after
//! a kill while it was deployed. What deploys is ended before the app is stopped, so that none appears
//! afterwards. Stopping is done when the list of apps has no live app of that name. Containers may still
//! start when the app is up: the gates wait for them.

use super::errand::{self, Errand};
use super::tool::{Call, ToolError};
use super::{Ask, End, Look, Removal, gone_within};
use crate::journal::Claim;
use crate::launch::log::last_lines;
use crate::teardown::Ended;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

const MODAL: &str = "modal";
/// One question to Modal.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// A stopped app gives its containers up within so long.
const GONE_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at what is being stopped.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Word of a claim's scope.
const ENVIRONMENT: &str = "environment";
/// Modal's own variable for it.
const ENVIRONMENT_VARIABLE: &str = "MODAL_ENVIRONMENT";
/// The function of a rendered app.
const FUNCTION: &str = "serve";

/// What Modal's client says (1.6), and what helps.
const HINTS: &[(&str, &str)] = &[
    ("Token missing", "log in: `modal token new`, or export MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"),
    ("Token ID", "the token is not accepted: `modal token new`"),
    ("Modal profile", "MODAL_PROFILE names a profile that is not there: `modal profile list`"),
    ("Environment '", "correct MODAL_ENVIRONMENT: `modal environment list`"),
    ("No such option", "this client of Modal is too old: `pip install -U modal`"),
    ("No such command", "this client of Modal is too old: `pip install -U modal`"),
    (
        "Could not connect",
        "Modal cannot be reached from here: see the proxy, and try `modal app list`",
    ),
    ("Secret '", "create the Secret that params.secrets names: `modal secret create`"),
    ("limit", "the workspace's limit is reached: raise it, or stop other apps"),
    ("Error", "the rendered file may not suit this client: `pip install -U modal`"),
];

/// What to do where Modal's client said `said`.
pub(super) fn hint(said: &str) -> String {
    let known = HINTS.iter().find(|(words, _)| said.contains(words));
    known.map_or("try the same command by hand", |(_, hint)| hint).to_owned()
}

/// A row of `modal app list --json`. Keys of clients before 1.5 are the heads of their table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct App {
    #[serde(alias = "App ID")]
    app_id: String,
    #[serde(alias = "Description")]
    description: String,
    #[serde(alias = "State")]
    state: String,
    #[serde(alias = "Tasks", default)]
    tasks: String,
}

impl App {
    fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "stopped" | "disabled")
    }
}

/// Of what `modal function info --json` says.
#[derive(Debug, Deserialize)]
struct Function {
    web_info: Option<Web>,
}

#[derive(Debug, Deserialize)]
struct Web {
    web_url: String,
}

/// In which environment apps are deployed, where the shell names one. Modal is asked for its apps, so that a
/// missing token is known before anything is begun.
pub(super) async fn scope() -> Result<BTreeMap<String, String>, ToolError> {
    let named = std::env::var(ENVIRONMENT_VARIABLE).ok().filter(|name| !name.is_empty());
    let scope = named.map(|name| (ENVIRONMENT.to_owned(), name)).into_iter().collect();
    list(&scope).await?;
    Ok(scope)
}

fn call(scope: &BTreeMap<String, String>, args: &[&str]) -> Call {
    let environment = scope.get(ENVIRONMENT);
    let environment = environment.into_iter().flat_map(|e| ["--env", e.as_str()]);
    // Neither tables nor addresses are to be broken into lines.
    Call::new(MODAL).args(args).args(environment).env("COLUMNS", "500").env("NO_COLOR", "1")
}

async fn ask<T: DeserializeOwned>(
    scope: &BTreeMap<String, String>,
    args: &[&str],
) -> Result<T, ToolError> {
    let text = call(scope, args).ask(ANSWER_WITHIN).await?;
    serde_json::from_str(&text)
        .map_err(|error| ToolError::Unclear { program: MODAL, said: error.to_string() })
}

async fn list(scope: &BTreeMap<String, String>) -> Result<Vec<App>, ToolError> {
    ask(scope, &["app", "list", "--json"]).await
}

/// The app of `claim`: a live one before those that were.
async fn app(claim: &Claim) -> Result<Option<App>, ToolError> {
    let mut apps = list(&claim.scope).await?;
    apps.retain(|app| app.description == claim.name);
    apps.sort_by_key(|app| !app.is_live());
    Ok(apps.into_iter().next())
}

/// Begins to deploy the file of `claim` as an app of its name. That takes as long as its image takes to be
/// built.
pub(super) fn submit(claim: &Claim) -> Result<String, ToolError> {
    let file = errand::file(claim);
    let args = ["deploy", &file.to_string_lossy(), "--name", &claim.name];
    errand::start(call(&claim.scope, &args), claim)?;
    Ok(claim.name.clone())
}

/// What has become of it.
pub(super) async fn look(
    claim: &Claim,
    plan: &DeploymentPlan,
    ask: Ask,
) -> Result<Look, ToolError> {
    if let Some(look) = errand::unfinished(claim, "modal deploy", hint).await {
        return Ok(look);
    }
    let Some(app) = app(claim).await? else { return Ok(Look::Absent) };
    let name = &claim.name;
    if !app.is_live() || app.state.starts_with("stopping") {
        return Ok(Look::Ended(End::new(format!("app {name} ({}) is {}", app.app_id, app.state))));
    }
    if app.state != "deployed" {
        return Ok(Look::Pending(format!("app {name} is {}", app.state)));
    }
    let text = format!("app {name} is deployed ({}), {} containers", app.app_id, app.tasks);
    if ask == Ask::Runs {
        return Ok(Look::Up { entries: Vec::new(), text });
    }
    match address(claim).await {
        Some(url) => {
            let instance = plan.entries.first().and_then(|e| e.instance);
            Ok(Look::Up { entries: vec![EntryPlan { url, instance }], text })
        }
        None => Ok(Look::Pending(format!("{text}; it has no address yet"))),
    }
}

/// The address of its server: as the client says it, else as the deployment printed it, since not every
/// version of the client says it.
async fn address(claim: &Claim) -> Option<String> {
    let function = format!("{}/{FUNCTION}", claim.name);
    let args = ["function", "info", &function, "--json"];
    let info: Result<Function, ToolError> = ask(&claim.scope, &args).await;
    let said = info.ok().and_then(|f| f.web_info).map(|web| web.web_url);
    said.filter(|url| !url.is_empty()).or_else(|| printed_address(&errand::output(claim)))
}

/// The address of a server in what `modal deploy` printed. That of the dashboard is another's.
fn printed_address(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut urls =
        words.map(|word| word.trim_end_matches('/')).filter(|w| w.starts_with("https://"));
    urls.find(|url| url.ends_with(".modal.run")).map(str::to_owned)
}

/// The last lines of what its containers wrote; of the deployment, as long as that is all there is.
pub(super) async fn log_tail(claim: &Claim, lines: usize) -> Vec<String> {
    if errand::state(claim).await != Errand::Done {
        return errand::said(claim, lines);
    }
    let tail = lines.to_string();
    let args = ["app", "logs", &claim.name, "--tail", &tail];
    let text = call(&claim.scope, &args).ask(ANSWER_WITHIN).await.unwrap_or_default();
    last_lines(&text, lines)
}

/// What there is of `claim`.
pub(super) async fn find(claim: &Claim) -> Result<Vec<String>, ToolError> {
    let app = app(claim).await?.filter(App::is_live);
    let app = app.map(|app| format!("app {} ({}, {})", app.description, app.app_id, app.state));
    let busy = errand::is_busy(claim).then(|| format!("modal deploy of app {}", claim.name));
    Ok(busy.into_iter().chain(app).collect())
}

/// Stops the app, and returns when it is stopped, or the time for that is over.
pub(super) async fn remove(claim: &Claim) -> Result<Vec<Removal>, ToolError> {
    errand::end(claim);
    let Some(before) = app(claim).await?.filter(App::is_live) else { return Ok(Vec::new()) };
    let what = format!("app {} ({})", claim.name, before.app_id);
    // By its id: one that was still being made is not known by its name.
    let stop = call(&claim.scope, &["app", "stop", &before.app_id, "--yes"]);
    let stopped = stop.run(ANSWER_WITHIN).await?;
    let is_gone = || async { Ok(app(claim).await?.filter(App::is_live).is_none()) };
    // Refused, and as it was.
    if !stopped.ok && !is_gone().await? {
        return Err(stopped.refusal(MODAL));
    }
    let limit = claim.grace.to_std().max(GONE_WITHIN);
    let is_gone = gone_within(limit, LOOK_EVERY, is_gone).await?;
    let ended = if is_gone { Ended::Terminated } else { Ended::Alive };
    Ok(vec![Removal { what, ended, left: None }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_server_is_not_that_of_the_dashboard() {
        // As modal 1.6 prints it.
        let text = "✓ Created objects.\n\
            ├── 🔨 Created mount /rendered/one_app.py\n\
            └── ✓ Created web function serve\n    \
            └── https://acme--one-0123-serve.modal.run (unauthenticated)\n\
            ✓ App deployed in 2.345s! 🎉\n\n\
            View Deployment: https://modal.com/apps/acme/main/deployed/one-0123\n";
        let url = printed_address(text).unwrap();
        assert_eq!(url, "https://acme--one-0123-serve.modal.run");
        assert_eq!(printed_address("View Deployment: https://modal.com/apps/acme"), None);
    }

    #[test]
    fn rows_of_old_and_new_clients_are_read() {
        let new = r#"{"app_id":"ap-1","description":"one","state":"deployed","tasks":"2","created_at":"x","stopped_at":null}"#;
        let old = r#"{"App ID":"ap-1","Description":"one","State":"deployed","Tasks":"2"}"#;
        let read = |text| serde_json::from_str::<App>(text).unwrap();
        assert_eq!(read(new), read(old));
        assert!(read(new).is_live());
    }
}
