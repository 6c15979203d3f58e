//! A deployment that a platform was given: from its files to its entries, and watched from then on.

use super::{Ask, End, Granted, Look, Manager};
use crate::agent::FarHost;
use crate::error::{FleetError, Stuck};
use crate::failure;
use crate::host::Shell;
use crate::journal::{Claim, Event};
use crate::launch::Context;
use crate::launch::log::{SEARCH_LINES, SHOWN_LINES};
use crate::render::{self, RenderedFile};
use crate::teardown::{Claimed, TeardownReport, remove_claims};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{
    DeploymentPlan, EntryPlan, GateKind, HostPlan, platform_params, run_object_name,
};
use scalebeam_model::units::Nanos;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Folder of a run directory with the files that were submitted.
const FOLDER: &str = "rendered";
/// The shortest and the longest pause between two looks while it is pending: schedulers are shared.
const PAUSES: (Nanos, Nanos) = (Nanos::from_secs(1), Nanos::from_secs(15));
/// A platform that cannot be asked for so long is lost, and with it what it runs. A restart of a scheduler
/// takes less.
const LOST_AFTER: Nanos = Nanos::from_secs(120);

/// A deployment that a platform was given, or is about to be.
#[derive(Debug)]
pub(crate) struct Held {
    manager: Manager,
    claim: Claim,
    id: Option<String>,
    plan: Arc<DeploymentPlan>,
    ended: watch::Receiver<Option<Ending>>,
    watcher: Option<JoinHandle<()>>,
}

/// Why it does not run any more, with the end of its log.
#[derive(Debug, Clone)]
struct Ending {
    end: End,
    tail: Vec<String>,
    known: Option<&'static str>,
}

impl Held {
    /// Writes the files of `plan` into the run directory, and the claim to the journal. Nothing is
    /// submitted yet.
    ///
    /// # Errors
    /// When it cannot be rendered or written, or the platform cannot be asked where that would be.
    pub(crate) async fn claim(
        manager: Manager,
        plan: &DeploymentPlan,
        ctx: &Context,
    ) -> Result<Self, FleetError> {
        let mark = ctx.mark();
        let name = run_object_name(&plan.name, &mark.run, &mark.dir);
        let rendered = render::for_run(&ctx.plan, plan, &name)?;
        let scope = manager.scope(plan).await.map_err(|e| manager.failed(plan, &e))?;
        let files = write(&rendered.files, &ctx.run_dir)?;
        let claim = Claim {
            run: mark.run,
            run_dir: mark.dir,
            deployment: plan.name.clone(),
            platform: plan.platform,
            name,
            scope,
            files,
            grace: plan.stop.grace,
            is_client: false,
        };
        ctx.journal.write(Event::PlatformIntent(Box::new(claim.clone())))?;
        let (_, ended) = watch::channel(None);
        let plan = Arc::new(plan.clone());
        Ok(Self { manager, claim, id: None, plan, ended, watcher: None })
    }

    /// Submits it. It goes to its end whoever cancels: what is submitted must be known.
    ///
    /// # Errors
    /// When it is refused, or its id cannot be recorded.
    pub(crate) async fn submit(&mut self, ctx: &Context) -> Result<(), FleetError> {
        let is_held = ctx.on_nodes.is_some();
        let id = self.manager.submit(&self.claim, is_held).await;
        let id = id.map_err(|e| self.manager.failed(&self.plan, &e))?;
        self.id = Some(id.clone());
        ctx.journal.write(Event::PlatformAccepted { deployment: self.plan.name.clone(), id })
    }

    /// Waits until it runs and is watched from then on; where it answers. `say` takes what is waited for, and
    /// whether that is a scheduler's reason.
    ///
    /// # Errors
    /// When it ended, was pending for too long, cannot be asked for, or the caller cancels.
    pub(crate) async fn until_up(
        &mut self,
        ctx: &Context,
        say: &(dyn Fn(String, bool) + Send + Sync),
    ) -> Result<Vec<EntryPlan>, FleetError> {
        let (begun, patience) = (ctx.clock.now(), self.manager.patience(&self.plan));
        let mut unanswered = Unanswered::default();
        loop {
            let looked = tokio::select! {
                () = ctx.cancelled() => Err(self.cancelled()),
                looked = self.manager.look(&self.claim, &self.plan, self.id(), Ask::Where) => Ok(looked),
            }?;
            let is_pending = matches!(looked, Ok(Look::Pending(_) | Look::Blocked(_)));
            let is_queued = self.manager.schedules() && is_pending;
            if is_pending {
                unanswered = Unanswered::default();
            }
            let doing = match looked {
                Ok(Look::Up { entries, text }) => {
                    say(text, false);
                    self.watch(Arc::clone(&ctx.clock));
                    return self.counted(entries);
                }
                Ok(Look::Pending(text)) => End::new(text),
                Ok(Look::Blocked(end)) => end,
                Ok(Look::Ended(end)) => return Err(self.failure(self.ending(end).await)),
                Ok(Look::Absent) => return Err(self.failure(self.ending(absent()).await)),
                Err(error) if unanswered.for_long(ctx.clock.as_ref()) => {
                    return Err(self.manager.failed(&self.plan, &error));
                }
                Err(error) => End::new(error.to_string()),
            };
            let waited = ctx.clock.now().since(begun);
            if waited >= patience {
                return Err(self.too_long(patience, doing));
            }
            say(doing.reason, is_queued);
            if tokio::time::timeout(pause_after(waited), ctx.cancelled()).await.is_ok() {
                return Err(self.cancelled());
            }
        }
    }

    /// Whether its processes wait to be released, where somebody looks at its machines.
    pub(crate) const fn can_wait(&self) -> bool {
        self.manager.can_hold()
    }

    /// What it was given while its processes are held back.
    ///
    /// # Errors
    /// When the platform cannot be asked, or holds nothing back.
    pub(crate) async fn granted(&self) -> Result<Granted, FleetError> {
        let granted = self.manager.granted(&self.claim, self.id()).await;
        granted.map_err(|e| self.manager.failed(&self.plan, &e))
    }

    /// Lets its processes start.
    ///
    /// # Errors
    /// When the platform refuses, or cannot be asked.
    pub(crate) async fn release(&self) -> Result<(), FleetError> {
        let released = self.manager.release(&self.claim, self.id()).await;
        released.map_err(|e| self.manager.failed(&self.plan, &e))
    }

    /// How host `name` of the plan is talked to, where the platform lets that be.
    pub(crate) fn shell(&self, name: &str) -> Option<Shell> {
        self.manager.shell(&self.claim, self.id.as_deref()?, name)
    }

    /// What of it can be talked to from outside of its processes; `named` are the hosts that the file names.
    ///
    /// # Errors
    /// Why nobody knows.
    pub(crate) async fn hosts(&self, named: &[HostPlan]) -> Result<Vec<FarHost>, String> {
        let Some(id) = self.id.as_deref() else { return Ok(Vec::new()) };
        let found = self.manager.hosts(&self.claim, (&self.plan, named), id).await;
        found.map_err(|error| format!("{error}; {}", self.manager.hint(&error)))
    }

    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    fn cancelled(&self) -> FleetError {
        FleetError::Cancelled { deployment: self.plan.name.clone() }
    }

    /// As many entries as the load was planned for.
    fn counted(&self, entries: Vec<EntryPlan>) -> Result<Vec<EntryPlan>, FleetError> {
        if entries.len() == self.plan.entries.len() {
            return Ok(entries);
        }
        Err(FleetError::InstanceCount {
            deployment: self.plan.name.clone(),
            found: format!("{} entries", entries.len()),
            expected: self.plan.entries.len().to_string(),
        })
    }

    fn too_long(&self, patience: Nanos, doing: End) -> FleetError {
        let End { reason, hint } = doing;
        FleetError::Platform {
            deployment: self.plan.name.clone(),
            platform: self.plan.platform,
            what: format!("it did not begin within {patience}: {reason}"),
            tail: Vec::new(),
            advice: hint
                .unwrap_or_else(|| format!("raise {}, or ask for less", self.patience_key())),
        }
    }

    /// What of the file says how long it may be pending.
    fn patience_key(&self) -> &'static str {
        let has_queue = platform_params(self.plan.platform).any(|p| p.name == "queue");
        match has_queue {
            true => "`queue` in params",
            false if self.plan.ready.limit(GateKind::Start).is_some() => {
                "`ready = { within = { start = \"..\" } }`"
            }
            false => "`ready = { timeout = \"..\" }`",
        }
    }

    /// Looks from now on whether it still runs.
    fn watch(&mut self, clock: Arc<dyn Clock>) {
        let (tell, ended) = watch::channel(None);
        self.ended = ended;
        let eye = Eye {
            manager: self.manager,
            claim: self.claim.clone(),
            plan: Arc::clone(&self.plan),
            id: self.id().to_owned(),
        };
        self.watcher = Some(tokio::spawn(async move {
            let ending = eye.until_ended(clock.as_ref()).await;
            let _ = tell.send(Some(ending));
        }));
    }

    async fn ending(&self, end: End) -> Ending {
        ending(self.manager, &self.claim, self.id(), end).await
    }

    fn failure(&self, ending: Ending) -> FleetError {
        let Ending { end, tail, known } = ending;
        let logs = self.claim.logs();
        let hint = end.hint.or_else(|| known.map(str::to_owned));
        FleetError::Platform {
            deployment: self.plan.name.clone(),
            platform: self.plan.platform,
            what: end.reason,
            tail,
            advice: hint.unwrap_or_else(|| format!("the whole logs are in {}", logs.display())),
        }
    }

    /// Whether it was seen to run at the last look.
    ///
    /// # Errors
    /// How it ended.
    pub(crate) fn check_alive(&self) -> Result<(), FleetError> {
        let ending = self.ended.borrow().clone();
        ending.map_or(Ok(()), |ending| Err(self.failure(ending)))
    }

    /// Asks whether it runs now.
    ///
    /// # Errors
    /// How it ended. A platform that cannot be asked is none: what it served will have failed.
    pub(crate) async fn look(&self) -> Result<(), FleetError> {
        self.check_alive()?;
        let mut tick = tokio::time::interval(self.manager.watch_every());
        let mut sighting = Sighting::of(self.manager);
        loop {
            tick.tick().await;
            let looked = self.manager.look(&self.claim, &self.plan, self.id(), Ask::Runs).await;
            match looked.map(|look| sighting.adds(look)) {
                Ok(Seen::Ended(end)) => return Err(self.failure(self.ending(end).await)),
                Ok(Seen::Doubtful) => {}
                Ok(Seen::Up) | Err(_) => return Ok(()),
            }
        }
    }

    /// Returns when it has ended; never before it was up.
    pub(crate) async fn ended(&self) -> FleetError {
        let mut ended = self.ended.clone();
        let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
        match ending {
            Some(ending) => self.failure(ending),
            None => std::future::pending().await,
        }
    }

    /// The line that was logged last, where that is known here.
    pub(crate) fn last_line(&self) -> String {
        self.manager.last_line(&self.claim, self.id())
    }

    /// Where it stands while it does not serve, for the error after a time-out.
    pub(crate) async fn stuck(&self) -> (Stuck, Option<&'static str>) {
        let lines = self.manager.log_tail(&self.claim, self.id(), SEARCH_LINES).await;
        let known = failure::recognise(&lines).map(|k| k.hint);
        let stuck = Stuck {
            process: self.plan.name.clone(),
            place: self.plan.platform.name().to_owned(),
            unreached: None,
            phase: None,
            silent: None,
            last_line: lines.last().cloned().unwrap_or_default(),
            log: self.claim.logs(),
        };
        (stuck, known)
    }

    /// Removes it, whatever of it there is; `report` says how that went. Its name, where nothing of it is left.
    pub(crate) async fn remove(
        &self,
        grace: Nanos,
        ctx: &Context,
        report: &mut TeardownReport,
    ) -> BTreeSet<String> {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
        let claim = Claim { grace, ..self.claim.clone() };
        let claimed = Claimed { claim, id: self.id.clone(), is_gone: false };
        remove_claims(&[claimed], Some(&ctx.journal), report).await
    }
}

/// Since when a platform does not answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Option<Nanos>);

impl Unanswered {
    /// Whether this is the first question that has no answer.
    pub(super) const fn is_first(&self) -> bool {
        self.0.is_none()
    }

    /// That one more question has no answer; whether that is so for `span` by now.
    pub(super) fn for_span(&mut self, span: Nanos, clock: &dyn Clock) -> bool {
        let now = clock.now();
        now.since(*self.0.get_or_insert(now)) >= span
    }

    pub(super) fn for_long(&mut self, clock: &dyn Clock) -> bool {
        self.for_span(LOST_AFTER, clock)
    }
}

/// What looks at a deployment while it is measured.
struct Eye {
    manager: Manager,
    claim: Claim,
    plan: Arc<DeploymentPlan>,
    id: String,
}

impl Eye {
    async fn until_ended(&self, clock: &dyn Clock) -> Ending {
        let mut tick = tokio::time::interval(self.manager.watch_every());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = Unanswered::default();
        let mut sighting = Sighting::of(self.manager);
        loop {
            tick.tick().await;
            let end = match self.manager.look(&self.claim, &self.plan, &self.id, Ask::Runs).await {
                Ok(look) => {
                    unanswered = Unanswered::default();
                    match sighting.adds(look) {
                        Seen::Ended(end) => Some(end),
                        Seen::Up | Seen::Doubtful => None,
                    }
                }
                Err(error) if unanswered.for_long(clock) => {
                    let reason = format!("it was lost: {error}");
                    Some(End::new(reason).hint(self.manager.hint(&error)))
                }
                Err(_) => None,
            };
            if let Some(end) = end {
                return ending(self.manager, &self.claim, &self.id, end).await;
            }
        }
    }
}

fn no_more(text: &str) -> String {
    format!("it does not run any more: {text}")
}

fn absent() -> End {
    End::new("it is not there any more")
}

/// What is made of looks at a deployment that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// It runs.
    Up,
    /// It was not up at this look, which may pass.
    Doubtful,
    /// It does not run any more.
    Ended(End),
}

/// Looks at a deployment that is measured, one after the other.
#[derive(Debug)]
struct Sighting {
    /// So many looks in a row must say that it is pending before that is believed.
    believed_after: u32,
    /// Looks in a row that have said so.
    pending: u32,
}

impl Sighting {
    fn of(manager: Manager) -> Self {
        Self { believed_after: manager.pending_is_believed_after(), pending: 0 }
    }

    /// What `look`, the next one, tells. A deployment that is pending again was preempted or restarted, and what
    /// was measured of it is of two.
    fn adds(&mut self, look: Look) -> Seen {
        let is_pending = matches!(look, Look::Pending(_) | Look::Blocked(_));
        self.pending = if is_pending { self.pending + 1 } else { 0 };
        match look {
            Look::Up { .. } => Seen::Up,
            Look::Ended(end) => Seen::Ended(end),
            Look::Absent => Seen::Ended(absent()),
            Look::Pending(_) | Look::Blocked(_) if self.pending < self.believed_after => {
                Seen::Doubtful
            }
            Look::Pending(text) => Seen::Ended(End::new(no_more(&text))),
            Look::Blocked(end) => Seen::Ended(End { reason: no_more(&end.reason), ..end }),
        }
    }
}

async fn ending(manager: Manager, claim: &Claim, id: &str, end: End) -> Ending {
    let mut tail = manager.log_tail(claim, id, SEARCH_LINES).await;
    let known = failure::recognise(&tail).map(|k| k.hint);
    tail.drain(..tail.len().saturating_sub(SHOWN_LINES));
    Ending { end, tail, known }
}

/// The pause before the next look at something that is pending for so long.
pub(super) fn pause_after(waited: Nanos) -> Duration {
    Nanos(waited.0 / 8).clamp(PAUSES.0, PAUSES.1).to_std()
}

/// Writes what was rendered below the run directory; the paths from there.
pub(super) fn write(rendered: &[RenderedFile], run_dir: &Path) -> Result<Vec<String>, FleetError> {
    let fail = |path: PathBuf| {
        move |source| FleetError::File { action: "write", path: path.clone(), source }
    };
    let dir = run_dir.join(FOLDER);
    std::fs::create_dir_all(&dir).map_err(fail(dir.clone()))?;
    let mut files = Vec::new();
    for file in rendered {
        let path = dir.join(&file.path);
        std::fs::write(&path, &file.text).map_err(fail(path.clone()))?;
        files.push(format!("{FOLDER}/{}", file.path));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_asked_less_often_the_longer_it_takes() {
        let pauses = [0, 8, 60, 3_600].map(|s| pause_after(Nanos::from_secs(s)).as_millis());
        assert_eq!(pauses, [1_000, 1_000, 7_500, 15_000]);
    }

    fn up() -> Look {
        Look::Up { entries: Vec::new(), text: String::new() }
    }

    #[test]
    fn only_what_is_up_is_measured() {
        for manager in [Manager::Slurm, Manager::Kube, Manager::Modal, Manager::Skypilot] {
            let mut sighting = Sighting::of(manager);
            assert_eq!(sighting.adds(up()), Seen::Up);
            for look in [Look::Absent, Look::Ended(End::new("e"))] {
                assert!(matches!(sighting.adds(look), Seen::Ended(_)), "{manager:?}");
            }
        }
    }

    #[test]
    fn a_probe_that_fails_once_ends_no_measurement_and_a_job_that_was_requeued_does() {
        let pending = || Look::Pending("pending: p".into());
        let mut pod = Sighting::of(Manager::Kube);
        assert_eq!(pod.adds(pending()), Seen::Doubtful);
        assert_eq!(pod.adds(up()), Seen::Up);
        assert_eq!(pod.adds(pending()), Seen::Doubtful, "not in a row");
        let end = End::new("it does not run any more: pending: p");
        assert_eq!(pod.adds(pending()), Seen::Ended(end.clone()));
        assert_eq!(Sighting::of(Manager::Slurm).adds(pending()), Seen::Ended(end));
    }
}
