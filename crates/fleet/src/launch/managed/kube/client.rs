//! The Job that measures a run inside of its cluster, as the scalebeam outside sees it.
//!
//! **Invariants.** The claim of the Job is in the journal before it is applied, and behind it those of the deployments
//! that it will make: their names follow from the run, so that what a pod leaves that was killed is found and removed
//! without it. What the pod is asked goes to scalebeam itself by `kubectl exec`: its image needs no shell and no tar.
//! A connection that breaks is made again; the run goes on without one.

use super::super::hold::{Unanswered, pause_after, write};
use super::super::pause;
use super::super::tool::{Call, ToolError};
use super::kubectl::{ANSWER_WITHIN, KUBECTL, Site, hint};
use super::objects::Pod;
use super::pods::{self, IMAGE_HINT, Standing, Trouble};
use super::{CONTEXT, End, NAMESPACE, ended, scope_of, selector, submit, takes};
use crate::error::FleetError;
use crate::host::end_group;
use crate::journal::{Claim, Event, Journal};
use crate::render::client::{CONTAINER, Inside, PROGRAM, RUNS, STATE, grace, job};
use crate::teardown::{Claimed, TeardownReport, remove_claims};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{DeploymentPlan, run_object_name};
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::MissedTickBehavior;

/// Its name where deployments have theirs. No deployment is called so.
const CLIENT: &str = "the client";
/// The last line of its log.
pub const LAST_LINE: &str = "scalebeam inside: the run has ended";
/// How long one question waits in the pod for the end of the run.
const WAIT: &str = "60s";
/// How long it may take with all that is around it.
const WAIT_WITHIN: Duration = Duration::from_secs(90);
/// Between two tries of what a connection broke.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at the pod.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that do not find the pod before that is believed.
const GONE_AFTER: u32 = 2;
/// How often a question is asked before its answer is given up.
const TRIES: u32 = 3;
/// A stream of which nothing comes for so long is dead, whatever its connection says.
const SILENT_AFTER: Duration = Duration::from_secs(60);
/// A cluster that cannot be asked for so long is not waited for any more. The run goes on without it, and an upgrade of
/// a control plane takes minutes.
const UNREACHED_AFTER: Nanos = Nanos::from_secs(15 * 60);
/// So long a pod that is to be deleted is told that nothing of it is needed.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// How a container that was ended for want of memory is told of.
const OUT_OF_MEMORY: &str = "OOMKilled";
const MEMORY_HINT: &str = "it was ended for want of memory: see the limits of that namespace, or have fewer requests in \
     flight";
const CLIENT_IMAGE_HINT: &str = "its image cannot be pulled: check `client_image` in params, and that the namespace \
     has the registry's pull secret";
const DELETED_HINT: &str = "see who deletes pods in that namespace, and what became of its node";
const PROGRAM_HINT: &str = "`client_image` must have scalebeam and kubectl on its PATH";

/// What is to be measured inside of a cluster, and by which run.
#[derive(Debug, Clone, Copy)]
pub struct InsideJob<'a> {
    /// What goes there.
    pub inside: Inside<'a>,
    /// Run id, there too.
    pub run: &'a str,
    /// The run directory outside.
    pub run_dir: &'a Path,
    /// What scalebeam does there.
    pub words: &'a [String],
}

/// How the run in a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InsideEnd {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A Job that measures inside of a cluster.
#[derive(Debug)]
pub struct InsideClient {
    site: Site,
    claim: Claim,
    /// Of the deployments that it makes.
    within: Vec<Claim>,
    patience: Nanos,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    pod: String,
}

/// Why nobody knows how the run in a pod ended.
#[derive(Debug)]
pub enum InsideUnknown {
    /// Its pod is no more, or will never answer.
    Over(FleetError),
    /// The cluster does not answer: the pod may run on, and has its run.
    Unreached(FleetError),
}

/// Where its pod stands.
enum Stand {
    Waiting(End),
    Running(String),
    /// Somebody deletes it, and it has not ended yet.
    Leaving(End),
    Over(End),
}

impl InsideClient {
    /// Writes its file into the run directory, and its claims to the journal. Nothing is applied yet.
    ///
    /// # Errors
    /// When it cannot be rendered or written, or the cluster cannot be asked, or lacks what a deployment needs.
    pub async fn claim(
        of: InsideJob<'_>,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FleetError> {
        let deployments = of.inside.deployments;
        let Some(first) = deployments.first() else { return Err(nothing()) };
        let site = Site::find(first.text(CONTEXT), first.text(NAMESPACE)).await;
        let site = site.map_err(|e| failed(&e))?;
        for d in deployments {
            takes(&site, d.platform).await.map_err(|e| failed(&e))?;
        }
        let dir = std::fs::canonicalize(of.run_dir).unwrap_or_else(|_| of.run_dir.to_owned());
        let name = run_object_name(CONTAINER, of.run, &dir.to_string_lossy());
        let files = write(&[job(&of.inside, &name, of.words)?], &dir)?;
        let within: Vec<Claim> =
            deployments.iter().map(|d| claim_within(&of, &dir, &site, d)).collect();
        let claim = Claim {
            deployment: CLIENT.to_owned(),
            name,
            files,
            grace: grace(deployments),
            is_client: true,
            ..claim_within(&of, &dir, &site, first)
        };
        for claim in std::iter::once(&claim).chain(&within) {
            journal.write(Event::PlatformIntent(Box::new(claim.clone())))?;
        }
        let patience = deployments.iter().map(|d| d.ready.timeout).max().unwrap_or_default();
        Ok(Self { site, claim, within, patience, journal, clock, pod: String::new() })
    }

    /// Applies it. It goes to its end whoever cancels: what is applied must be known.
    ///
    /// # Errors
    /// When it is refused, or that it was taken cannot be recorded.
    pub async fn submit(&self) -> Result<(), FleetError> {
        let id = submit(&self.claim).await.map_err(|e| failed(&e))?;
        self.journal.write(Event::PlatformAccepted { deployment: CLIENT.to_owned(), id })
    }

    /// The name of its pod, once that runs.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Waits until its pod runs; `say` takes what is waited for.
    ///
    /// # Errors
    /// When the pod never will, was waited for too long, or the cluster cannot be asked any more.
    pub async fn until_running(
        &mut self,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), FleetError> {
        let begun = self.clock.now();
        let mut unanswered = Unanswered::default();
        loop {
            let doing = match self.stand().await {
                Ok(Stand::Running(pod)) => {
                    self.pod = pod;
                    return Ok(());
                }
                Ok(Stand::Over(end) | Stand::Leaving(end)) => return Err(over(end)),
                Ok(Stand::Waiting(end)) => {
                    unanswered = Unanswered::default();
                    end
                }
                Err(error) if unanswered.for_long(self.clock.as_ref()) => {
                    return Err(failed(&error));
                }
                Err(error) => End::new(error.to_string()),
            };
            let waited = self.clock.now().since(begun);
            if waited >= self.patience {
                return Err(too_late(self.patience, doing));
            }
            say(doing.reason);
            pause(pause_after(waited)).await;
        }
    }

    async fn stand(&self) -> Result<Stand, ToolError> {
        let pods = self.site.pods(&selector(&self.claim)).await?;
        match pods.first() {
            Some(pod) => Ok(self.stand_of(pod).await),
            None => Ok(Stand::Waiting(match self.site.warning(&self.claim.name).await {
                Some(said) => End::new(format!("no pod yet: {said}")).hint(hint(&said)),
                None => End::new("no pod yet"),
            })),
        }
    }

    async fn stand_of(&self, pod: &Pod) -> Stand {
        let name = &pod.metadata.name;
        if let Standing::Doomed(trouble) = pods::standing(pod) {
            let hint = advice(&trouble);
            return Stand::Over(ended(&self.site, &trouble).await.hint(hint));
        }
        match (pod.status.phase.as_str(), pods::standing(pod)) {
            ("Succeeded", _) => Stand::Over(End::new(format!("pod {name} has ended"))),
            _ if pod.metadata.deletion_timestamp.is_some() => {
                Stand::Leaving(End::new(format!("pod {name} is being deleted")).hint(DELETED_HINT))
            }
            ("Running", _) => Stand::Running(name.clone()),
            (_, Standing::Waiting(what)) => {
                Stand::Waiting(End::new(format!("{name}: {what}")).hint(hint(&what)))
            }
            _ => Stand::Waiting(End::new(format!("{name}: starting"))),
        }
    }

    /// Waits until the run in the pod has ended; `say` is told where somebody deletes the pod, and where the cluster does
    /// not answer.
    ///
    /// # Errors
    /// When the pod came to its end before, or the cluster cannot be asked any more.
    pub async fn until_ended(
        &self,
        say: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<InsideEnd, InsideUnknown> {
        tokio::select! {
            end = self.until_told() => end,
            unknown = self.until_gone(say) => Err(unknown),
        }
    }

    async fn until_told(&self) -> Result<InsideEnd, InsideUnknown> {
        let mut was_answered = false;
        let mut unanswered = Unanswered::default();
        loop {
            let told = self.ask(&["wait", "--limit", WAIT], WAIT_WITHIN).await;
            let error = match told.map(|text| serde_json::from_str::<Option<InsideEnd>>(&text)) {
                Ok(Ok(Some(end))) => return Ok(end),
                Ok(Ok(None)) => {
                    (unanswered, was_answered) = (Unanswered::default(), true);
                    continue;
                }
                Ok(Err(error)) => ToolError::Unclear { program: KUBECTL, said: error.to_string() },
                Err(error) => error,
            };
            // Whether there is still a pod to ask is looked at beside this.
            // Who was let in once has the right: a refusal then is of a moment, like any other.
            if !was_answered && is_denied(&error) {
                return Err(InsideUnknown::Over(failed(&error)));
            }
            if unanswered.for_span(UNREACHED_AFTER, self.clock.as_ref()) {
                return Err(InsideUnknown::Unreached(failed(&error)));
            }
            pause(AGAIN_AFTER).await;
        }
    }

    /// One that is only being deleted has its grace, in which its run ends and can be fetched.
    async fn until_gone(&self, say: &(dyn Fn(&str) + Send + Sync)) -> InsideUnknown {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut missed, mut is_leaving) = (0, false);
        let mut unanswered = Unanswered::default();
        loop {
            tick.tick().await;
            let error = match self.stand().await {
                Ok(stand) => {
                    unanswered = Unanswered::default();
                    missed = if matches!(stand, Stand::Waiting(_)) { missed + 1 } else { 0 };
                    match stand {
                        Stand::Over(end) => return InsideUnknown::Over(over(end)),
                        Stand::Waiting(_) if missed >= GONE_AFTER => {
                            return InsideUnknown::Over(over(self.vanished()));
                        }
                        Stand::Leaving(end) if !is_leaving => {
                            is_leaving = true;
                            say(&format!("{}: waiting for its run to end", end.reason));
                        }
                        Stand::Running(_) | Stand::Waiting(_) | Stand::Leaving(_) => {}
                    }
                    continue;
                }
                Err(error) => error,
            };
            if unanswered.is_first() {
                say(&format!("the cluster does not answer, asking again: {error}"));
            }
            if unanswered.for_span(UNREACHED_AFTER, self.clock.as_ref()) {
                let text = format!("the cluster did not answer for {UNREACHED_AFTER}: {error}");
                let hint = hint(&error.to_string());
                return InsideUnknown::Unreached(over(End::new(text).hint(hint)));
            }
        }
    }

    fn vanished(&self) -> End {
        End::new(format!("pod {} is not there any more", self.pod)).hint(DELETED_HINT)
    }

    /// Why nothing can be fetched from its pod ever again; nothing where it is there, or nobody knows.
    pub async fn lost(&self) -> Option<FleetError> {
        for _ in 0..GONE_AFTER {
            match self.stand().await {
                Ok(Stand::Over(end)) => return Some(over(end)),
                Ok(Stand::Waiting(_)) => pause(LOOK_EVERY).await,
                Ok(Stand::Running(_) | Stand::Leaving(_)) | Err(_) => return None,
            }
        }
        Some(over(self.vanished()))
    }

    /// Gives each line of its log to `say`, until the last one.
    pub async fn follow(&self, say: &(dyn Fn(&str) + Send + Sync)) {
        let mut last: Option<String> = None;
        loop {
            let call = self.site.follow(&self.pod, CONTAINER, last.as_deref());
            if let Ok(mut child) = Call::new(KUBECTL).args(call).stream()
                && let Some(out) = child.stdout.take()
            {
                let mut lines = BufReader::new(out).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let (at, text) = line.split_once(' ').unwrap_or((&line, ""));
                    // What comes again from the second of the last line. Times are of one width.
                    if last.as_deref().is_some_and(|last| at <= last) {
                        continue;
                    }
                    if text == LAST_LINE {
                        return;
                    }
                    say(text);
                    last = Some(at.to_owned());
                }
            }
            pause(AGAIN_AFTER).await;
        }
    }

    /// Has the run in the pod finish what is in flight, seal, and take down, as Ctrl-C does here.
    ///
    /// # Errors
    /// When the pod cannot be asked.
    pub async fn stop(&self) -> Result<(), FleetError> {
        let mut tries = 1;
        loop {
            match self.ask(&["stop"], ANSWER_WITHIN).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == TRIES => return Err(failed(&error)),
                Err(_) => pause(AGAIN_AFTER).await,
            }
            tries += 1;
        }
    }

    /// Gives the packed run directory of the pod to `take`, as a stream; what came of that, and what kubectl said where
    /// it failed. A stream that falls silent is ended.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub async fn fetch<T: Send + 'static>(
        &self,
        take: impl FnOnce(Box<dyn Read + Send>) -> T + Send + 'static,
    ) -> Result<(Option<T>, Option<String>), FleetError> {
        let place = self.run_place();
        let words = [PROGRAM, "inside", "pack", &place];
        let call = Call::new(KUBECTL).args(self.site.exec(&self.pod, CONTAINER, &words));
        let cannot = |source| failed(&ToolError::Start { program: KUBECTL, source });
        let mut child = call.stream().map_err(|e| failed(&e))?;
        let leader = child.id();
        let Some(out) = child.stdout.take() else { return Ok((None, None)) };
        let out = File::from(out.into_owned_fd().map_err(cannot)?);
        let came = Arc::new(AtomicU64::new(0));
        let out = Box::new(Counted { inner: out, came: Arc::clone(&came) });
        let taking = tokio::task::spawn_blocking(move || take(out));
        let mut done = std::pin::pin!(child.wait_with_output());
        let (done, is_silent) = tokio::select! {
            done = &mut done => (done, false),
            () = until_silent(&came) => {
                end_group(leader);
                (done.await, true)
            }
        };
        let done = done.map_err(cannot)?;
        let said = match is_silent {
            true => format!("nothing came for {} s", SILENT_AFTER.as_secs()),
            false => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        };
        Ok((taking.await.ok(), (!done.status.success()).then_some(said)))
    }

    /// Where the run directory is in the pod.
    pub fn run_place(&self) -> String {
        format!("{RUNS}/{}", self.claim.run)
    }

    async fn ask(&self, words: &[&str], limit: Duration) -> Result<String, ToolError> {
        let words: Vec<&str> = [PROGRAM, "inside"]
            .into_iter()
            .chain(words.iter().copied())
            .chain(["--state", STATE])
            .collect();
        Call::new(KUBECTL).args(self.site.exec(&self.pod, CONTAINER, &words)).ask(limit).await
    }

    /// Removes the Job with its account, and then what it left of the deployments that it made.
    pub async fn remove(self) -> TeardownReport {
        let mut report = TeardownReport::default();
        let claimed = |claim: Claim| Claimed { claim, id: None, is_gone: false };
        let all: Vec<Claimed> =
            std::iter::once(self.claim).chain(self.within).map(claimed).collect();
        remove_claims(&all, Some(&self.journal), &mut report).await;
        report
    }
}

/// Counts what is read, so that somebody else sees whether anything comes.
struct Counted<R> {
    inner: R,
    came: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.came.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Returns once `came` has not grown for a while.
async fn until_silent(came: &AtomicU64) {
    let mut before = None;
    loop {
        let now = Some(came.load(Ordering::Relaxed));
        if now == before {
            return;
        }
        before = now;
        pause(SILENT_AFTER).await;
    }
}

/// Tells the pod that `selector` finds, where it runs, that nothing of it is needed any more: it ends with its run then, and
/// only where it cannot be told with its grace.
pub(super) async fn release(site: &Site, selector: &str) {
    let words = [PROGRAM, "inside", "release", "--state", STATE];
    let pods = site.pods(selector).await.unwrap_or_default();
    for pod in pods.iter().filter(|pod| pod.status.phase == "Running") {
        let call = site.exec(&pod.metadata.name, CONTAINER, &words);
        let _ = Call::new(KUBECTL).args(call).ask(RELEASE_WITHIN).await;
    }
}

/// The claim of what the pod will make for `d`, by the name that it gives there.
fn claim_within(of: &InsideJob<'_>, dir: &Path, site: &Site, d: &DeploymentPlan) -> Claim {
    Claim {
        run: of.run.to_owned(),
        run_dir: dir.to_string_lossy().into_owned(),
        deployment: d.name.clone(),
        platform: d.platform,
        name: run_object_name(&d.name, of.run, &format!("{RUNS}/{}", of.run)),
        scope: scope_of(site.clone()),
        files: Vec::new(),
        grace: d.stop.grace,
        is_client: false,
    }
}

fn nothing() -> FleetError {
    FleetError::Inside {
        what: "there is no deployment to measure".to_owned(),
        advice: "choose one with --deploy".to_owned(),
    }
}

/// What to do about the trouble of a pod that is no deployment's.
fn advice(trouble: &Trouble) -> String {
    match trouble.what.as_str() {
        what if what.contains("executable file not found") => PROGRAM_HINT.to_owned(),
        what if what.contains(OUT_OF_MEMORY) => MEMORY_HINT.to_owned(),
        _ if trouble.hint == IMAGE_HINT => CLIENT_IMAGE_HINT.to_owned(),
        _ => trouble.hint.replace("`image` of the deployment", "`client_image` in params"),
    }
}

fn over(end: End) -> FleetError {
    let advice = end.hint.unwrap_or_else(|| "see what it said last, above".to_owned());
    FleetError::Inside { what: end.reason, advice }
}

fn too_late(patience: Nanos, doing: End) -> FleetError {
    let advice = doing.hint.filter(|hint| hint != &super::kubectl::hint(""));
    FleetError::Inside {
        what: format!("its pod did not begin within {patience}: {}", doing.reason),
        advice: advice.unwrap_or_else(|| {
            "raise `ready = { timeout = \"..\" }`, or make room for a pod".to_owned()
        }),
    }
}

fn failed(error: &ToolError) -> FleetError {
    FleetError::Inside { what: error.to_string(), advice: super::super::Manager::Kube.hint(error) }
}

/// Whether this user may not do that, whatever is tried.
fn is_denied(error: &ToolError) -> bool {
    matches!(error, ToolError::Refused { said, .. } if said.contains("orbidden"))
}
