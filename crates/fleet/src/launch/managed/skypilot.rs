//! SkyPilot, by the site's own `sky` client: launch, look, down.
//!
//! **Invariants.** A cluster has a name that no other run has: it is found and taken down by that alone, also
//! after a kill while it was launched. A launch goes on in SkyPilot's API server whatever becomes of its
//! client, and its cluster may not be in the list yet: so a teardown asks again until the launch has ended
//! and no cluster of that name is left.

use super::errand::{self, Errand};
use super::tool::{Call, ToolError};
use super::{Ask, End, Look, Removal};
use crate::journal::Claim;
use crate::launch::log::last_lines;
use crate::teardown::Ended;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan, EnvValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

const SKY: &str = "sky";
/// One question to SkyPilot's API server, which may ask a cloud for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Machines are given back within so long.
const GONE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Between two looks at what is taken down.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Word of a claim's scope: the variable that is passed on by name.
const SECRET: &str = "secret";
const TOKEN: &str = "HF_TOKEN";
/// States of the task of a cluster before and while it serves.
const COMING: [&str; 3] = ["INIT", "PENDING", "SETTING_UP"];
const RUNNING: &str = "RUNNING";

/// What SkyPilot's client says (0.14), and what helps.
const HINTS: &[(&str, &str)] = &[
    ("No cloud", "let SkyPilot have a cloud: `sky check`"),
    ("not enabled", "let SkyPilot have that cloud: `sky check`"),
    (
        "ResourcesUnavailable",
        "no machine of that kind is free: try another region, cloud or GPU in params",
    ),
    (
        "Failed to acquire resources",
        "no machine of that kind is free: try another region, cloud or GPU in params",
    ),
    (
        "Failed to provision",
        "no machine of that kind is free: try another region, cloud or GPU in params",
    ),
    ("Catalog does not contain", "SkyPilot knows no such machine: `sky show-gpus` lists them"),
    ("quota", "the cloud's quota is used up: raise it, or try another region in params"),
    ("API server", "SkyPilot's API server does not answer: `sky api start`, or `sky api info`"),
    ("No such option", "this client of SkyPilot may be too old: scalebeam was written for 0.14"),
    ("is not set in local environment", "export the variable that it names"),
];

/// What to do where SkyPilot's client said `said`.
pub(super) fn hint(said: &str) -> String {
    let known = HINTS.iter().find(|(words, _)| said.contains(words));
    known.map_or("try the same command by hand", |(_, hint)| hint).to_owned()
}

/// A record of `sky status -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Cluster {
    name: String,
    status: String,
    #[serde(default)]
    resources_str: Option<String>,
    #[serde(default)]
    init_status_reason: Option<String>,
}

/// The variable with the token, where the plan passes it on and the shell has it. SkyPilot is asked for its
/// clusters, so that one that does not work is known before anything is begun.
pub(super) async fn scope(plan: &DeploymentPlan) -> Result<BTreeMap<String, String>, ToolError> {
    clusters(&["status", "-o", "json"]).await?;
    let wanted = |p: &scalebeam_model::plan::ProcessPlan| {
        matches!(p.env.get(TOKEN), Some(EnvValue::Inherit { .. }))
    };
    let has_token = plan.processes.iter().any(wanted) && std::env::var_os(TOKEN).is_some();
    Ok(has_token.then(|| (SECRET.to_owned(), TOKEN.to_owned())).into_iter().collect())
}

fn call(args: &[&str]) -> Call {
    Call::new(SKY).args(args).env("COLUMNS", "500").env("NO_COLOR", "1")
}

async fn clusters(args: &[&str]) -> Result<Vec<Cluster>, ToolError> {
    let text = call(args).ask(ANSWER_WITHIN).await?;
    records(&text).ok_or_else(|| ToolError::Unclear {
        program: SKY,
        said: text.lines().last().unwrap_or_default().to_owned(),
    })
}

/// The records in what `sky status -o json` printed; what its server logged stands before them.
fn records(text: &str) -> Option<Vec<Cluster>> {
    let starts = text.match_indices('[').map(|(at, _)| at);
    let of_line = starts.filter(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'));
    of_line.into_iter().find_map(|at| serde_json::from_str(text.get(at..)?.trim()).ok())
}

async fn cluster(claim: &Claim, args: &[&str]) -> Result<Option<Cluster>, ToolError> {
    let args: Vec<&str> = ["status", &claim.name].into_iter().chain(args.iter().copied()).collect();
    Ok(clusters(&args).await?.into_iter().find(|c| c.name == claim.name))
}

/// Begins to launch the file of `claim` as a cluster of its name. That takes minutes.
pub(super) fn submit(claim: &Claim) -> Result<String, ToolError> {
    let file = errand::file(claim);
    let secret = claim.scope.get(SECRET);
    let call = call(&["launch", "-y", "-d", "-c", &claim.name])
        .args(secret.into_iter().flat_map(|name| ["--secret", name.as_str()]))
        .args([&file]);
    errand::start(call, claim)?;
    Ok(claim.name.clone())
}

/// What has become of it.
pub(super) async fn look(
    claim: &Claim,
    plan: &DeploymentPlan,
    ask: Ask,
) -> Result<Look, ToolError> {
    if let Some(look) = errand::unfinished(claim, "sky launch", hint).await {
        return Ok(look);
    }
    let found = cluster(claim, &["--refresh", "-o", "json"]).await?;
    let Some(Cluster { status, resources_str, init_status_reason, .. }) = found else {
        return Ok(Look::Absent);
    };
    let name = &claim.name;
    match status.as_str() {
        "UP" => {}
        "INIT" | "PENDING" => {
            let why = init_status_reason.unwrap_or_default();
            return Ok(Look::Pending(format!("cluster {name} is {status} {why}")));
        }
        other => {
            let end = End::new(format!("cluster {name} is {other}"));
            return Ok(Look::Ended(end.hint("see `sky status` and the cloud's console")));
        }
    }
    let job = job(claim).await?;
    if COMING.contains(&job.as_str()) {
        return Ok(Look::Pending(format!("cluster {name} is up, its task is {job}")));
    }
    if job != RUNNING {
        return Ok(Look::Ended(End::new(format!("the task of cluster {name} is {job}"))));
    }
    let machine = resources_str.unwrap_or_default();
    let text = format!("cluster {name} is up ({machine}), its task runs");
    if ask == Ask::Runs {
        return Ok(Look::Up { entries: Vec::new(), text });
    }
    Ok(match endpoint(claim, plan).await? {
        Some(entry) => Look::Up { entries: vec![entry], text },
        None => Look::Pending(format!("{text}; its port is not open yet")),
    })
}

/// The state of the task of the cluster. The exit status says less: all that fails is 100.
async fn job(claim: &Claim) -> Result<String, ToolError> {
    let ran = call(&["logs", &claim.name, "--status"]).run(ANSWER_WITHIN).await?;
    task_state(&ran.stdout).map(str::to_owned).ok_or_else(|| ran.refusal(SKY))
}

/// `RUNNING` of `Job 1: RUNNING`.
fn task_state(text: &str) -> Option<&str> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("Job "))?;
    line.split_once(": ").map(|(_, state)| state.trim())
}

/// Where the port of its server is reached.
async fn endpoint(claim: &Claim, plan: &DeploymentPlan) -> Result<Option<EntryPlan>, ToolError> {
    let planned = plan.entries.first();
    let port = planned.and_then(|e| e.url.rsplit_once(':')).map_or("8000", |(_, port)| port);
    let ran = call(&["status", &claim.name, "--endpoint", port]).run(ANSWER_WITHIN).await?;
    let said = ran.stdout.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    if !ran.ok || said.is_empty() {
        return Ok(None);
    }
    let url = if said.contains("://") { said.to_owned() } else { format!("http://{said}") };
    Ok(Some(EntryPlan {
        url: url.trim_end_matches('/').to_owned(),
        instance: planned.and_then(|e| e.instance),
    }))
}

/// The last lines of what its task wrote; of the launch, as long as that is all there is.
pub(super) async fn log_tail(claim: &Claim, lines: usize) -> Vec<String> {
    if errand::state(claim).await != Errand::Done {
        return errand::said(claim, lines);
    }
    let tail = lines.to_string();
    let args = ["logs", &claim.name, "--no-follow", "--tail", &tail];
    // A task that failed makes `sky logs` fail, too.
    let text = call(&args).run(ANSWER_WITHIN).await.map(|ran| ran.stdout).unwrap_or_default();
    last_lines(&text, lines)
}

/// What there is of `claim`.
pub(super) async fn find(claim: &Claim) -> Result<Vec<String>, ToolError> {
    let cluster = cluster(claim, &["-o", "json"]).await?;
    let cluster = cluster.map(|c| format!("cluster {} ({})", c.name, c.status));
    let busy = errand::is_busy(claim).then(|| format!("sky launch of cluster {}", claim.name));
    Ok(busy.into_iter().chain(cluster).collect())
}

/// Takes the cluster down, and returns when it is gone, or the time for that is over.
pub(super) async fn remove(claim: &Claim) -> Result<Vec<Removal>, ToolError> {
    if find(claim).await?.is_empty() {
        return Ok(Vec::new());
    }
    let what = format!("cluster {}", claim.name);
    let gone = async {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut refused = None;
        loop {
            tick.tick().await;
            // Who does not answer once may answer the next time.
            if find(claim).await.is_ok_and(|found| found.is_empty()) {
                return Ok(Ended::Terminated);
            }
            // It ends a launch that is under way, too.
            let Ok(ran) = call(&["down", "-y", &claim.name]).run(GONE_WITHIN).await else {
                continue;
            };
            match (ran.ok, refused.take()) {
                (true, _) => {}
                (false, None) => refused = Some(ran),
                // Twice is no accident.
                (false, Some(_)) => return Err(ran.refusal(SKY)),
            }
        }
    };
    let outcome = tokio::time::timeout(GONE_WITHIN, gone).await.unwrap_or(Ok(Ended::Alive));
    errand::end(claim);
    Ok(vec![Removal { what, ended: outcome?, left: None }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_behind_what_the_server_logged() {
        let json = r#"[
  {
    "name": "one", "launched_at": 1, "status": "UP", "resources_str": "1x AWS(p5, gpus=H100:8)",
    "autostop": -1, "to_down": false, "nodes": 1
  }
]"#;
        let found = records(&format!("[warning] refreshing\n{json}\n")).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].status.as_str()), ("one", "UP"));
        assert_eq!(records("[]\n"), Some(vec![]));
        assert_eq!(records("Clusters\nNAME  STATUS\n"), None);
    }

    #[test]
    fn the_state_of_a_task_is_the_last_word() {
        assert_eq!(task_state("I 01-01 log\nJob 1: SETTING_UP\n"), Some("SETTING_UP"));
        assert_eq!(task_state("No job found on cluster 'one'.\n"), None);
    }
}
