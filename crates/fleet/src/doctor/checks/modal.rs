//! D62: what Modal's client says of the account, and of what a deployment names there.

use super::{Verdict, fail, pass, skip, unless};
use crate::doctor::sections::{Known, Unknown};
use crate::doctor::seen::Seen;
use scalebeam_model::plan::{DeploymentPlan, Platform, object_name};
use serde::Deserialize;
use std::fmt::Write as _;

/// Calls of the probe: only what a deployment names is looked for.
pub(crate) fn calls(deployments: &[&DeploymentPlan]) -> String {
    let ours: Vec<&&DeploymentPlan> =
        deployments.iter().filter(|d| d.platform == Platform::Modal).collect();
    if ours.is_empty() {
        return String::new();
    }
    let mut calls = String::from("if modal_list modal app; then\n");
    let wants = [
        ("modal_secrets", "secret", ours.iter().any(|d| !secrets(d).is_empty())),
        ("modal_volumes", "volume", ours.iter().any(|d| d.text("hf_cache").is_some())),
    ];
    for (section, what, _) in wants.into_iter().filter(|(.., is_wanted)| *is_wanted) {
        let _ = writeln!(calls, "modal_list {section} {what}");
    }
    calls + ":\nfi\n"
}

fn secrets(d: &DeploymentPlan) -> &[String] {
    d.list("secrets")
}

/// A row of `modal app list --json`. Keys of clients before 1.5 are the heads of their tables.
#[derive(Debug, Deserialize)]
struct App {
    #[serde(alias = "Description")]
    description: String,
    #[serde(alias = "State")]
    state: String,
    #[serde(alias = "Tasks", default)]
    tasks: String,
}

/// A row of `modal secret list --json` or `modal volume list --json`.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(alias = "Name")]
    name: String,
}

/// The rows of a table; the client may say something of itself before it.
fn rows<T: serde::de::DeserializeOwned>(said: &str) -> Known<Vec<T>> {
    let table = said.find('[').and_then(|at| said.get(at..)).unwrap_or_default();
    serde_json::from_str(table).map_err(|error| Unknown(format!("modal says no table: {error}")))
}

pub(super) fn token(seen: &Seen<'_>, _: &DeploymentPlan) -> Verdict {
    match seen.client()?.tool("modal") {
        Ok(_) => pass("the token is valid"),
        Err(why) if why.0.contains("not installed") || why.0.contains("no answer") => Err(why),
        Err(why) => fail(why.0, "modal token new, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"),
    }
}

/// Apps that were made of this deployment before, by hand or by a run, and still live.
pub(super) fn others(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let apps: Vec<App> = rows(seen.client()?.tool("modal")?)?;
    let by_hand = format!("{}-{}", d.text("app").unwrap_or(&seen.plan.name), d.name);
    let of_a_run = format!("{}-", object_name(&d.name));
    // A run's name ends with twelve digits of a hash.
    let is_run = |name: &str| {
        name.strip_prefix(&of_a_run)
            .is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let is_live = |app: &&App| !matches!(app.state.as_str(), "stopped" | "disabled");
    let live = apps.iter().filter(is_live);
    let ours = live.filter(|app| app.description == by_hand || is_run(&app.description));
    let words =
        ours.map(|a| format!("app {} is {}, {} containers", a.description, a.state, a.tasks));
    unless(
        words.collect(),
        "no other app of it lives",
        "it costs, and may hold the GPUs that this one needs: `scalebeam down`, or `modal app stop`",
    )
}

pub(super) fn there(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let named = secrets(d);
    if named.is_empty() {
        return skip("the file names no Secret");
    }
    let client = seen.client()?;
    client.tool("modal")?;
    let known: Vec<Named> = rows(client.tool("modal_secrets")?)?;
    let missing = named.iter().filter(|name| known.iter().all(|k| k.name != **name));
    unless(
        missing.map(|name| format!("there is no Secret {name}")).collect(),
        named.join(", "),
        "create it: `modal secret create`, or correct secrets in params",
    )
}

pub(super) fn volume(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let Some(name) = d.text("hf_cache") else { return skip("the file names no Volume") };
    let client = seen.client()?;
    client.tool("modal")?;
    let known: Vec<Named> = rows(client.tool("modal_volumes")?)?;
    match known.iter().any(|k| k.name == name) {
        true => pass(format!("Volume {name} is there")),
        false => pass(format!("Volume {name} is created; the first start downloads the model")),
    }
}
