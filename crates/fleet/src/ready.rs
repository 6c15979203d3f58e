//! Readiness is counted, not believed: every gate of the plan is passed, in order, or says why not.
//!
//! **Invariants.** While a gate waits, every process is watched: a death ends the wait at once. A wrong
//! answer (a page for people, another model, a refusal) is an error as soon as it is steady, long
//! before the timeout. "Not yet" (no connection, 503, an empty model list) is waited for. Nothing is
//! measured before one real streamed completion came back from every entry.

mod answers;
mod kv;
mod probe;
mod progress;
mod ranks;
mod ray;
mod routed;
mod serve;
mod start;

use crate::error::FleetError;
use crate::http::{Answer, Client, NoAnswer};
use crate::launch::{Context, Held, OnProgress, Progress, Search, Spawned, State, first_end};
use answers::Verdict;
use progress::Watch;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan, Gate, GateKind, Platform, Role};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use serve::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Between two questions to an entry.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A question that is not answered for so long is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same for the completion, which on a CPU may be slow.
const COMPLETION_WITHIN: Duration = Duration::from_secs(120);
/// A wrong answer that stays for so long is an error.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long a process that broke a connection has to be seen dead.
const DEATH_WITHIN: Duration = Duration::from_millis(500);

/// Waits until a deployment can be measured.
pub(crate) struct Wait<'a> {
    pub(crate) plan: &'a DeploymentPlan,
    pub(crate) processes: &'a [Spawned],
    /// What a platform was given that starts processes itself, instead.
    pub(crate) held: Option<&'a Held>,
    pub(crate) deaths: watch::Receiver<Option<usize>>,
    pub(crate) client: &'a Client,
    pub(crate) progress: OnProgress<'a>,
    pub(crate) ctx: &'a Context,
    /// When the first process was started: from then on the time counts.
    pub(crate) begun: Nanos,
}

type OnState<'a> = &'a mut (dyn FnMut(State) -> Result<(), FleetError> + Send);

/// What is waited for, for the display and for the error after the timeout.
#[derive(Debug)]
struct Doing {
    state: State,
    text: String,
    watch: Watch,
}

impl Doing {
    fn at(state: State) -> Self {
        Self { state, text: String::new(), watch: Watch::default() }
    }
}

/// What an entry is asked.
#[derive(Debug)]
enum Question<'a> {
    Health {
        url: String,
    },
    Models {
        url: String,
        model: &'a str,
    },
    Instances {
        url: String,
        expected: &'a BTreeMap<String, u32>,
    },
    Workers {
        url: String,
        expected: u32,
    },
    Completion {
        base: &'a str,
    },
    Answer {
        api: Api,
        url: String,
    },
    /// Asked by a client that names the rank.
    Rank {
        client: Box<Client>,
        base: &'a str,
        api: Option<Api>,
    },
    Prompt {
        url: String,
        prompt: String,
    },
}

impl Wait<'_> {
    /// Passes every gate; says what could not be told.
    pub(crate) async fn until_ready(
        &self,
        on_state: OnState<'_>,
    ) -> Result<Vec<String>, FleetError> {
        let doing = Mutex::new(Doing::at(State::Starting));
        self.watched(Box::pin(self.gates(on_state, &doing)), &doing).await
    }

    /// What comes of `work`, unless a process ends, the caller cancels, or the time is over before.
    async fn watched<T: Send>(
        &self,
        work: impl Future<Output = Result<T, FleetError>> + Send,
        doing: &Mutex<Doing>,
    ) -> Result<T, FleetError> {
        let spent = self.ctx.clock.now().since(self.begun);
        let work = tokio::time::timeout(self.plan.ready.timeout.since(spent).to_std(), work);
        tokio::select! {
            biased;
            () = self.ctx.cancelled() => {
                Err(FleetError::Cancelled { deployment: self.plan.name.clone() })
            }
            death = self.death() => Err(death),
            outcome = work => match outcome {
                Ok(Ok(done)) => Ok(done),
                // A crash breaks connections a moment before it is seen, and says more.
                Ok(Err(error)) => Err(tokio::time::timeout(DEATH_WITHIN, self.death()).await.unwrap_or(error)),
                Err(_) => Err(self.not_ready(None, self.plan.ready.timeout, doing).await),
            },
        }
    }

    async fn death(&self) -> FleetError {
        first_end(self.processes, self.deaths.clone(), self.held).await
    }

    /// That the time of `gate`, or of all gates, is over: `waited`.
    async fn not_ready(
        &self,
        gate: Option<GateKind>,
        waited: Nanos,
        doing: &Mutex<Doing>,
    ) -> FleetError {
        let (text, stuck) = {
            let mut doing = doing.lock().unwrap_or_else(PoisonError::into_inner);
            let stuck = doing.watch.stuck(self.processes, self.ctx.clock.now());
            (doing.text.clone(), stuck)
        };
        let (stuck, known) = match self.held {
            Some(held) => {
                let (stuck, known) = held.stuck().await;
                (vec![stuck], known)
            }
            None => (stuck, self.processes.iter().find_map(Spawned::known_failure)),
        };
        let deployment = self.plan.name.clone();
        FleetError::NotReady { deployment, gate, waited, doing: text, stuck, known }
    }

    async fn gates(
        &self,
        on_state: OnState<'_>,
        doing: &Mutex<Doing>,
    ) -> Result<Vec<String>, FleetError> {
        let mut notes = Vec::new();
        for gate in &self.plan.ready.gates {
            let passed = Box::pin(self.pass(gate, doing));
            notes.extend(self.within(gate.kind(), passed, doing).await?);
            if let Some(state) = reached(gate) {
                self.enter(state, on_state, doing)?;
            }
        }
        self.enter(State::Verified, on_state, doing)?;
        Ok(notes)
    }

    /// What comes of `work`, the wait at a gate of `kind`, unless its own time is over before.
    async fn within<T: Send>(
        &self,
        kind: Option<GateKind>,
        work: impl Future<Output = Result<T, FleetError>> + Send,
        doing: &Mutex<Doing>,
    ) -> Result<T, FleetError> {
        let limit = kind.and_then(|kind| self.plan.ready.limit(kind));
        let Some(limit) = limit else { return work.await };
        match tokio::time::timeout(limit.to_std(), work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.not_ready(kind, limit, doing).await),
        }
    }

    /// Waits until `gate` holds; says what could not be told.
    async fn pass(&self, gate: &Gate, doing: &Mutex<Doing>) -> Result<Vec<String>, FleetError> {
        let mut notes = Vec::new();
        match gate {
            Gate::Alive { processes } => self.alive(*processes)?,
            Gate::Http { path } => {
                for entry in &self.plan.entries {
                    self.http(entry, path, doing).await?;
                }
            }
            Gate::Log { text } => self.logged(text, doing).await,
            Gate::ModelListed { model } => {
                for entry in &self.plan.entries {
                    notes.extend(self.model_listed(entry, model, doing).await?);
                }
            }
            Gate::Servers { servers, path, model } => {
                notes = self.servers(servers, path.as_deref(), model.as_deref(), doing).await?;
            }
            Gate::Workers { path, expected } => self.workers(path, *expected, doing).await?,
            Gate::Application { serve, host, dashboard, name, deployment, replicas, also } => {
                let replicas = *replicas;
                let wanted = Wanted { serve, host, dashboard, name, deployment, replicas, also };
                self.application(wanted, doing).await?;
            }
            Gate::Instances { expected } => notes.extend(self.instances(expected, doing).await?),
            Gate::Completion { apis } => {
                for entry in &self.plan.entries {
                    notes.extend(self.completions(entry, apis, doing).await?);
                }
            }
            Gate::Ranks { header, servers } => {
                notes.extend(self.ranks(header, servers, doing).await?);
            }
            Gate::BlocksMoved { decode, prompts } => {
                notes = self.blocks_moved(decode, *prompts, doing).await?;
            }
        }
        Ok(notes)
    }

    fn enter(
        &self,
        state: State,
        on_state: OnState<'_>,
        doing: &Mutex<Doing>,
    ) -> Result<(), FleetError> {
        doing.lock().unwrap_or_else(PoisonError::into_inner).state = state;
        on_state(state)
    }

    fn alive(&self, expected: u32) -> Result<(), FleetError> {
        let running = self.processes.iter().filter(|p| p.is_running()).count();
        // Of what a platform holds it has said that it runs, and is asked again and again.
        if self.held.is_some() || running >= usize::try_from(expected).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(FleetError::InstanceCount {
            deployment: self.plan.name.clone(),
            found: format!("{running} running processes"),
            expected: format!("{expected}"),
        })
    }

    async fn http(
        &self,
        entry: &EntryPlan,
        path: &str,
        doing: &Mutex<Doing>,
    ) -> Result<(), FleetError> {
        let what = format!("waiting for {path} at {}", base(entry));
        let question = Question::Health { url: format!("{}{path}", base(entry)) };
        self.until_pass(&what, &question, doing).await.map(drop)
    }

    /// Waits until a line in the log of each instance holds `text`.
    async fn logged(&self, text: &str, doing: &Mutex<Doing>) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for instance in &self.plan.instances {
            let what =
                format!("waiting for '{text}' in the log of {}/{}", self.plan.name, instance.index);
            let mine = self.processes.iter().filter(|p| p.instance() == Some(instance.index));
            let mut logs: Vec<_> = mine.map(|p| p.search(text)).collect();
            while !logs.iter_mut().any(Search::finds) {
                self.say(&what, "no such line yet", doing);
                tick.tick().await;
            }
        }
    }

    async fn model_listed(
        &self,
        entry: &EntryPlan,
        model: &str,
        doing: &Mutex<Doing>,
    ) -> Result<Option<String>, FleetError> {
        let url = format!("{}/v1/models", base(entry));
        let what = format!("waiting for model {model} at {url}");
        self.until_pass(&what, &Question::Models { url, model }, doing).await
    }

    /// Counts instances: by entries where each has one, by the frontend's own list where it gives one.
    async fn instances(
        &self,
        expected: &BTreeMap<String, u32>,
        doing: &Mutex<Doing>,
    ) -> Result<Option<String>, FleetError> {
        if self.plan.entries.iter().all(|e| e.instance.is_some()) {
            return self.count_entries(expected).map(|()| None);
        }
        let Some(entry) = self.plan.entries.first() else { return Ok(None) };
        let url = format!("{}/health", base(entry));
        let what = format!("waiting for {} at {url}", counts(expected));
        self.until_pass(&what, &Question::Instances { url, expected }, doing).await
    }

    fn count_entries(&self, expected: &BTreeMap<String, u32>) -> Result<(), FleetError> {
        // Each of these has passed a gate before this one: an entry answered, or an instance's log.
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        // An instance may have several entries.
        let there: BTreeSet<Option<u32>> = self.plan.entries.iter().map(|e| e.instance).collect();
        for index in there {
            let instance = self.plan.instances.iter().find(|i| Some(i.index) == index);
            let role = instance.map_or(Role::Aggregated, |i| i.role);
            *found.entry(role.name().to_owned()).or_default() += 1;
        }
        if expected.iter().all(|(role, n)| found.get(role).copied().unwrap_or(0) >= *n) {
            return Ok(());
        }
        Err(FleetError::InstanceCount {
            deployment: self.plan.name.clone(),
            found: counts(&found),
            expected: counts(expected),
        })
    }

    /// One real answer in every family that will be measured.
    async fn completions(
        &self,
        entry: &EntryPlan,
        apis: &[Api],
        doing: &Mutex<Doing>,
    ) -> Result<Vec<String>, FleetError> {
        let base = base(entry);
        let what = format!("waiting for a first answer of {base}");
        if apis.is_empty() {
            let note = self.until_pass(&what, &Question::Completion { base }, doing).await?;
            return Ok(note.into_iter().collect());
        }
        let mut notes = Vec::new();
        for &api in apis {
            let url = format!("{base}{}", api.path(true));
            notes.extend(self.until_pass(&what, &Question::Answer { api, url }, doing).await?);
        }
        Ok(notes)
    }

    async fn ask(&self, question: &Question<'_>) -> Verdict {
        match question {
            Question::Health { url } => answers::health(url, self.client.get(url).await),
            Question::Models { url, model } => {
                answers::models(url, model, !self.is_ours(), self.client.get(url).await)
            }
            Question::Instances { url, expected } => {
                answers::instances(url, expected, self.client.get(url).await)
            }
            Question::Workers { url, expected } => {
                answers::workers(url, *expected, self.client.get(url).await)
            }
            Question::Completion { base } => self.ask_completion(self.client, base).await,
            Question::Answer { api, url } => self.ask_answer(self.client, *api, url).await,
            Question::Rank { client, base, api: Some(api) } => {
                self.ask_answer(client, *api, &format!("{base}{}", api.path(true))).await
            }
            Question::Rank { client, base, api: None } => self.ask_completion(client, base).await,
            Question::Prompt { url, prompt } => self.ask_prompt(url, prompt).await,
        }
    }

    fn is_ours(&self) -> bool {
        self.plan.platform != Platform::External
    }

    async fn post(&self, client: &Client, api: Api, url: &str) -> Result<Answer, NoAnswer> {
        client.post(api, url, &probe::request(api, &self.plan.served_model)).await
    }

    async fn ask_answer(&self, client: &Client, api: Api, url: &str) -> Verdict {
        let answer = self.post(client, api, url).await;
        answers::completion(api, url, self.is_ours(), answer)
    }

    /// Chat, or plain text where there is no chat.
    async fn ask_completion(&self, client: &Client, base: &str) -> Verdict {
        let url = format!("{base}{}", Api::Chat.path(true));
        let answer = self.post(client, Api::Chat, &url).await;
        if !answers::has_no_chat(&answer) {
            return answers::completion(Api::Chat, &url, self.is_ours(), answer);
        }
        self.ask_answer(client, Api::Completions, &format!("{base}{}", Api::Completions.path(true)))
            .await
    }

    /// Asks until the verdict is final, or a wrong answer is steady.
    async fn until_pass(
        &self,
        what: &str,
        question: &Question<'_>,
        doing: &Mutex<Doing>,
    ) -> Result<Option<String>, FleetError> {
        let within = match question {
            Question::Completion { .. }
            | Question::Answer { .. }
            | Question::Rank { .. }
            | Question::Prompt { .. } => COMPLETION_WITHIN,
            _ => ANSWER_WITHIN,
        };
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wrong_since = None;
        // A gate whose time is over before its first question was answered says so.
        begin(what, "no answer yet", doing);
        loop {
            tick.tick().await;
            let verdict = match tokio::time::timeout(within, self.ask(question)).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict::Wait(format!("no answer within {} s", within.as_secs())),
            };
            let why = match verdict {
                Verdict::Pass(note) => return Ok(note),
                Verdict::Fail(error) => return Err(error),
                Verdict::Wait(why) => {
                    wrong_since = None;
                    why
                }
                Verdict::Wrong(error) => {
                    let now = self.ctx.clock.now();
                    let since = *wrong_since.get_or_insert(now);
                    if now.since(since).to_std() >= PATIENCE {
                        return Err(error);
                    }
                    error.to_string()
                }
            };
            self.say(what, &why, doing);
        }
    }

    fn say(&self, what: &str, why: &str, doing: &Mutex<Doing>) {
        let mut text = format!("{what}: {why}");
        let mut doing = doing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.ctx.clock.now();
        let told = match self.held {
            Some(held) => doing.watch.look_at(held, now),
            None => doing.watch.look(self.plan, self.processes, now),
        };
        if !told.is_empty() {
            text += &format!("; {told}");
        }
        if doing.text != text {
            doing.text.clone_from(&text);
            let (deployment, state) = (self.plan.name.clone(), doing.state);
            drop(doing);
            (self.progress)(Progress { deployment, state, text, is_queued: false });
        }
    }
}

/// Begins to wait for `what`. The display hears of it once there is an answer to show.
fn begin(what: &str, why: &str, doing: &Mutex<Doing>) {
    doing.lock().unwrap_or_else(PoisonError::into_inner).text = format!("{what}: {why}");
}

/// Where a deployment stands once it has passed `gate`; nothing where that does not tell.
const fn reached(gate: &Gate) -> Option<State> {
    match gate {
        Gate::Alive { .. } => Some(State::Alive),
        Gate::Http { .. } | Gate::Log { .. } | Gate::ModelListed { .. } => Some(State::Serving),
        Gate::Instances { .. }
        | Gate::Completion { .. }
        | Gate::Ranks { .. }
        | Gate::Servers { .. }
        | Gate::Workers { .. }
        | Gate::Application { .. }
        | Gate::BlocksMoved { .. } => None,
    }
}

fn base(entry: &EntryPlan) -> &str {
    entry.url.trim_end_matches('/')
}

/// `6 prefill and 1 decode`.
fn counts(by_role: &BTreeMap<String, u32>) -> String {
    if by_role.is_empty() {
        return "no instances".to_owned();
    }
    by_role.iter().map(|(role, n)| format!("{n} {role}")).collect::<Vec<_>>().join(" and ")
}
