//! Whether an application of Ray Serve runs with all its replicas, by `serve status` beside the cluster's head.
//!
//! **Invariants.** Its proxy lists the model and answers its health with no replica at all, so replicas are counted.
//! An application that could not be deployed is not tried again by Ray: that ends the wait, in Ray's words.

use super::start::given_to;
use super::{Doing, Wait, begin};
use crate::error::FleetError;
use crate::host::{Ran, quote};
use crate::remote::{self, COMMON};
use scalebeam_model::plan::ProcessPlan;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Between two questions, each of which starts a program on its host.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The program takes seconds on a host that is busy with loading.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What is before it was said by a login script.
const ANSWER: &str = "scalebeam-asked-serve-status";

/// The application that is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The program `serve`, on this host.
    pub(super) serve: &'a str,
    pub(super) host: &'a str,
    /// Base URL of the dashboard there.
    pub(super) dashboard: &'a str,
    /// The application, and its deployment with this many replicas.
    pub(super) name: &'a str,
    pub(super) deployment: &'a str,
    pub(super) replicas: u32,
    /// Further deployments of it, which are counted first: the one above asks them.
    pub(super) also: &'a BTreeMap<String, u32>,
}

impl Wait<'_> {
    /// Returns once `wanted` runs with all its replicas.
    pub(super) async fn application(
        &self,
        wanted: Wanted<'_>,
        doing: &Mutex<Doing>,
    ) -> Result<(), FleetError> {
        let there = self.held.and_then(|held| held.shell(wanted.host));
        let shell = there.unwrap_or_else(|| self.ctx.shell(self.plan, wanted.host));
        let script = self.question(wanted);
        let mut turn = tokio::time::interval(ASK_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let what = format!("waiting for application {} of Ray Serve", wanted.name);
        begin(&what, "not asked yet", doing);
        loop {
            turn.tick().await;
            let found = match shell.run(&script, ANSWER_WITHIN).await {
                Ok(ran) => judge(&ran, wanted),
                // Whether the host is lost, those who follow its processes find out.
                Err(error) => Found::NotYet(error.to_string()),
            };
            match found {
                Found::Whole => return Ok(()),
                Found::NotYet(why) => self.say(&what, &why, doing),
                Found::Failed(said) => {
                    let (deployment, application) =
                        (self.plan.name.clone(), wanted.name.to_owned());
                    return Err(FleetError::NotDeployed { deployment, application, said });
                }
            }
        }
    }

    /// Asks for the status, with the marks of what is asked about: a question that outlives the asking is taken
    /// down with that.
    fn question(&self, wanted: Wanted<'_>) -> String {
        let mark = self.ctx.mark();
        let asked = self.processes.iter().find(|p| p.plan().host == wanted.host);
        let id = asked.map_or("", |p| p.plan().id.as_str());
        // Found, and let through, as the application's own process is.
        let is_app = |p: &&ProcessPlan| p.host == wanted.host && p.program == wanted.serve;
        let app = self.plan.processes.iter().find(is_app);
        let given = app.into_iter().flat_map(given_to);
        let exports = remote::exports(given.chain(remote::marks_of(&mark.run, &mark.dir, id)));
        let [serve, dashboard] = [wanted.serve, wanted.dashboard].map(quote);
        format!("{COMMON}\n{exports}echo {ANSWER}\nexec {serve} status --address {dashboard}\n")
    }
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Whole,
    NotYet(String),
    Failed(String),
}

/// What `serve status` prints, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    applications: BTreeMap<String, Application>,
}

#[derive(Debug, Deserialize)]
struct Application {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    deployments: BTreeMap<String, Deployment>,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    #[serde(default)]
    message: String,
    #[serde(default)]
    replica_states: BTreeMap<String, u32>,
}

fn judge(ran: &Ran, wanted: Wanted<'_>) -> Found {
    if ran.status != Some(0) {
        let last = ran.stderr.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.unwrap_or_default().trim();
        return Found::NotYet(format!("`serve status` failed: {last}"));
    }
    let said_before = ran.stdout.split_once(ANSWER);
    let answer = said_before.map_or(ran.stdout.as_str(), |(_, answer)| answer);
    let Ok(status) = serde_saphyr::from_str::<Status>(answer) else {
        return Found::NotYet("`serve status` printed what is not understood".to_owned());
    };
    let Some(application) = status.applications.get(wanted.name) else {
        return Found::NotYet("the cluster does not know it yet".to_owned());
    };
    let own = (wanted.deployment, wanted.replicas);
    let all = wanted.also.iter().map(|(name, n)| (name.as_str(), *n)).chain([own]);
    let all: Vec<Counted<'_>> = all.map(|of| Counted::of(application, of)).collect();
    match application.status.as_str() {
        "RUNNING" if all.iter().all(|c| c.running >= c.wanted) => Found::Whole,
        "DEPLOY_FAILED" => Found::Failed(said(application)),
        state => {
            let counts: Vec<String> = all.iter().map(|c| c.words(all.len() > 1)).collect();
            let why = all.iter().map(|c| &c.why).find(|why| !why.is_empty());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            Found::NotYet(format!("{}, it is {state}{why}", counts.join(" and ")))
        }
    }
}

/// A deployment of an application, with the replicas that run and those that are wanted.
struct Counted<'a> {
    name: &'a str,
    running: u32,
    wanted: u32,
    why: String,
}

impl<'a> Counted<'a> {
    fn of(application: &Application, (name, wanted): (&'a str, u32)) -> Self {
        let found = application.deployments.get(name);
        let running = found.and_then(|d| d.replica_states.get("RUNNING")).copied();
        let why = found.map(|d| one_line(&d.message)).unwrap_or_default();
        Self { name, running: running.unwrap_or_default(), wanted, why }
    }

    fn words(&self, is_named: bool) -> String {
        let of = if is_named { format!(" of {}", self.name) } else { String::new() };
        format!("{} of {} replicas{of} run", self.running, self.wanted)
    }
}

/// Why it was not deployed: its own message, and the last line of each of its deployments that has one.
fn said(application: &Application) -> String {
    let own = one_line(&application.message);
    let of = application.deployments.values().filter_map(|d| {
        let last = d.message.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(last.trim().to_owned())
    });
    let all: Vec<String> = std::iter::once(own).filter(|text| !text.is_empty()).chain(of).collect();
    all.join("; ")
}

/// `text` on one line, and not without end.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 400;
    let words = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static NONE: BTreeMap<String, u32> = BTreeMap::new();

    const WANTED: Wanted<'_> = Wanted {
        serve: "serve",
        host: "a",
        dashboard: "http://127.0.0.1:8265",
        name: "llms",
        deployment: "LLMServer:instances",
        replicas: 2,
        also: &NONE,
    };

    /// `serve status` of Ray 2.60.0, while `state`, with `running` replicas and `message` of the instances.
    fn status(state: &str, running: u32, message: &str) -> Ran {
        let stdout = format!(
            "proxies:\n  2e69c1af67d804132992947bdd5c4664: HEALTHY\n\napplications:\n  llms:\n    \
             status: {state}\n    message: ''\n    last_deployed_time_s: 1795699831.9411886\n    \
             deployments:\n      LLMServer:instances:\n        status: UPDATING\n        \
             status_trigger: CONFIG_UPDATE_STARTED\n        replica_states:\n          RUNNING: {running}\n        \
             message: '{message}'\n      OpenAiIngress:\n        status: HEALTHY\n        \
             status_trigger: CONFIG_UPDATE_COMPLETED\n        replica_states:\n          RUNNING: 2\n        \
             message: ''\n\ntarget_capacity: null\n"
        );
        Ran { status: Some(0), stdout, stderr: String::new() }
    }

    #[test]
    fn replicas_of_the_instances_are_counted_and_not_those_before_them() {
        assert_eq!(judge(&status("RUNNING", 2, ""), WANTED), Found::Whole);
        let waits = |ran: Ran| match judge(&ran, WANTED) {
            Found::NotYet(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(waits(status("RUNNING", 1, "")), "1 of 2 replicas run, it is RUNNING");
        let scarce = "has 1 replicas that\n          have taken more than 30s to be scheduled";
        assert_eq!(
            waits(status("DEPLOYING", 1, scarce)),
            "1 of 2 replicas run, it is DEPLOYING: has 1 replicas that have taken more than 30s to be scheduled"
        );
        let early = "proxies: {}\n\napplications: {}\n\ntarget_capacity: null\n";
        let early = Ran { stdout: early.to_owned(), ..status("", 0, "") };
        assert_eq!(waits(early), "the cluster does not know it yet");
        let refused = Ran {
            status: Some(1),
            stderr: "Traceback\nConnection refused\n".into(),
            ..status("", 0, "")
        };
        assert_eq!(waits(refused), "`serve status` failed: Connection refused");
    }

    #[test]
    fn pools_are_counted_one_by_one() {
        let also = [("OpenAiIngress".to_owned(), 2)].into();
        assert_eq!(
            judge(&status("RUNNING", 2, ""), Wanted { also: &also, ..WANTED }),
            Found::Whole
        );
        let also = [("Prefill:instances".to_owned(), 3)].into();
        let waits = judge(&status("RUNNING", 2, ""), Wanted { also: &also, ..WANTED });
        let want = "0 of 3 replicas of Prefill:instances run and 2 of 2 replicas of LLMServer:instances run, it is \
                    RUNNING";
        assert_eq!(waits, Found::NotYet(want.to_owned()));
    }

    #[test]
    fn what_ray_gave_up_is_told_in_its_words() {
        let said = status(
            "DEPLOY_FAILED",
            0,
            "Traceback:\n\n          ValueError: Unknown engine argument: x",
        );
        let Found::Failed(said) = judge(&said, WANTED) else { panic!("it has failed") };
        assert!(said.ends_with("ValueError: Unknown engine argument: x"), "{said}");
    }
}
