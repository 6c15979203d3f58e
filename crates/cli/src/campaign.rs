//! One life of a run: preflight, then for every deployment bring up, load, take down.
//!
//! Executing decides nothing: everything here follows the plan. Whatever happens to one deployment,
//! it is taken down, what was measured is kept, and the others are still weighed.

use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::experiment::Loaded;
use crate::interrupt::{self, Asked, Signals, reached};
use crate::{printer, settings};
use scalebeam_fleet::journal::{self, Event, Journal};
use scalebeam_fleet::{Context, Running, Stop, bring_up};
use scalebeam_model::clock::Clock;
use scalebeam_model::doctor::DoctorReport;
use scalebeam_model::plan::{DeploymentPlan, PointPlan, TrialPlan};
use scalebeam_model::results::Skipped;
use scalebeam_record::{HostInfo, Manifest, NewRun, RunStatus, RunWriter};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

mod agents;
mod doctor;
mod engines;
mod exchange;
mod fingerprint;
mod floor;
mod guard;
pub(crate) mod inside;
mod machines;
pub(crate) mod outcome;
mod pages;
mod prepare;
mod progress;
pub(crate) mod reach;
mod search;
mod trial;
mod turns;

pub(crate) use doctor::Doctor;
pub(crate) use trial::shards;

use guard::Guard;
use prepare::Prepared;
use progress::Display;
use search::Search;

/// The machine that sends the load, in a manifest.
pub(crate) const CLIENT: &str = "client";
/// Where relative paths of the experiment file start, in a manifest.
pub(crate) const BASE: &str = "base";
/// What was not measured, and why, beside the manifest.
pub(crate) const SKIPPED: &str = "skipped.json";

/// That a run is measured in a pod of its deployments' own cluster, in a manifest.
const INSIDE: &str = "inside";

/// Whether a run is measured in such a pod, and ends with it.
pub(crate) fn is_inside(manifest: &Manifest) -> bool {
    manifest.hosts.iter().any(|host| host.facts.contains_key(INSIDE))
}

/// Where a run is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this process.
    Here,
    /// In a pod of its deployments' cluster, for which this process waits.
    Sent,
    /// In this process, which is in such a pod; whoever waits knows the run by this id.
    Inside(String),
}

/// Begin a run, or go on with one.
#[derive(Debug)]
pub(crate) enum Goal {
    /// A new run directory below `out`.
    New {
        /// Directory of run directories.
        out: PathBuf,
        /// Where it is measured.
        place: Place,
    },
    /// This run directory.
    Resume(PathBuf),
}

/// What came of a run, results apart.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) dir: PathBuf,
    pub(crate) status: Status,
}

/// A deployment that was left running.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) dir: PathBuf,
    pub(crate) endpoints: Vec<String>,
}

/// Runs everything that the plan holds and the run directory lacks.
pub(crate) async fn run(loaded: &Loaded, goal: Goal, doctor: Doctor) -> Result<Done, Failure> {
    let signals = interrupt::watch()?;
    let clock = WallClock::shared();
    let prepared = prepare::prepare(loaded, &goal).await?;
    let findings = doctor::ask(loaded, &prepared, doctor, &clock, &signals.1).await;
    let writer = keep(open(loaded, &goal, clock.as_ref())?, findings)?;
    let mut campaign = Campaign::new(loaded, prepared, writer, clock, signals, doctor)?;
    printer::say(&format!("run {}", campaign.writer.dir().display()));
    match campaign.measured().await {
        Ok(()) => campaign.finish(),
        Err(failure) => Err(campaign.abandon(failure)),
    }
}

/// Brings the one deployment of the plan up and leaves it; nothing where the user interrupted.
pub(crate) async fn up(loaded: &Loaded, goal: Goal, doctor: Doctor) -> Result<Option<Up>, Failure> {
    let signals = interrupt::watch()?;
    let clock = WallClock::shared();
    let prepared = prepare::prepare(loaded, &goal).await?;
    let findings = doctor::ask(loaded, &prepared, doctor, &clock, &signals.1).await;
    let writer = keep(open(loaded, &goal, clock.as_ref())?, findings)?;
    let campaign = Campaign::new(loaded, prepared, writer, clock, signals, doctor)?;
    let Some(deployment) = loaded.plan.deployments.first() else { return Ok(None) };
    campaign.guard.begin(deployment.price_per_hour);
    let outcome = bring_up(deployment, &campaign.context, &campaign.on_fleet()).await;
    let dir = campaign.writer.dir().to_owned();
    let endpoints = |running: &Running| running.endpoints().iter().map(|e| e.url.clone()).collect();
    match outcome {
        Ok(running) => {
            let endpoints = endpoints(&running);
            if !loaded.plan.limit.is_none() {
                printer::say(
                    "the limit of the file ends with this command: nobody counts from here on",
                );
            }
            campaign.writer.finish(RunStatus::Complete, Some("brought up by hand".to_owned()))?;
            Ok(Some(Up { dir, endpoints }))
        }
        Err(error) => {
            let interrupted = *campaign.asked.borrow() != Asked::Not;
            let status = if interrupted { RunStatus::Interrupted } else { RunStatus::Failed };
            let limit = if interrupted { campaign.limit_reached() } else { None };
            limit.iter().for_each(|text| printer::say(text));
            campaign.writer.finish(status, Some(limit.unwrap_or_else(|| error.to_string())))?;
            if interrupted { Ok(None) } else { Err(error.into()) }
        }
    }
}

fn open(loaded: &Loaded, goal: &Goal, clock: &dyn Clock) -> Result<RunWriter, Failure> {
    match goal {
        Goal::Resume(dir) => Ok(RunWriter::reopen(dir, clock, settings::TOOL)?),
        Goal::New { out, place } => {
            let base = std::path::absolute(&loaded.base).unwrap_or_else(|_| loaded.base.clone());
            let mut facts = BTreeMap::from([
                (BASE.to_owned(), base.display().to_string()),
                ("cores".to_owned(), settings::cores().to_string()),
            ]);
            if *place != Place::Here {
                facts.insert(INSIDE.to_owned(), "a pod of the deployments' cluster".to_owned());
            }
            let id = match place {
                Place::Inside(id) => Some(id.as_str()),
                Place::Here | Place::Sent => None,
            };
            let new = NewRun {
                name: &loaded.plan.name,
                id,
                experiment_text: &loaded.text,
                plan: &loaded.plan,
                tool: settings::TOOL,
                hosts: vec![HostInfo { name: CLIENT.to_owned(), facts }],
            };
            Ok(RunWriter::create(out, clock, new)?)
        }
    }
}

/// Keeps what the doctor said with the run; a run that could not work ends here.
fn keep(writer: RunWriter, findings: Option<DoctorReport>) -> Result<RunWriter, Failure> {
    let Some(findings) = findings else { return Ok(writer) };
    match doctor::keep(writer.dir(), &findings) {
        Ok(()) => Ok(writer),
        Err(failure) => {
            printer::say(&format!("run {}", writer.dir().display()));
            writer.finish(RunStatus::Failed, Some(failure.message().to_owned()))?;
            Err(failure)
        }
    }
}

/// Why the rest of a deployment's points is not measured.
enum Ended {
    /// All that was planned is measured.
    Whole,
    /// The user asked to stop.
    Interrupted,
    /// It died or could not be reached.
    Failed(Failure),
}

struct Campaign<'a> {
    loaded: &'a Loaded,
    prepared: Prepared,
    writer: RunWriter,
    context: Context,
    clock: Arc<dyn Clock>,
    asked: watch::Receiver<Asked>,
    guard: Guard,
    display: Display,
    skipped: Vec<Skipped>,
    failed: bool,
    interrupted: bool,
}

impl<'a> Campaign<'a> {
    fn new(
        loaded: &'a Loaded,
        prepared: Prepared,
        writer: RunWriter,
        clock: Arc<dyn Clock>,
        (ask, asked): Signals,
        doctor: Doctor,
    ) -> Result<Self, Failure> {
        let journal = Journal::open(&writer.dir().join(journal::FILE), Arc::clone(&clock))?;
        let (tell, stop) = watch::channel(Stop::Not);
        let signals = asked.clone();
        tokio::spawn(async move {
            reached(&signals, Asked::Once).await;
            let _ = tell.send(Stop::Orderly);
            reached(&signals, Asked::Twice).await;
            let _ = tell.send(Stop::AtOnce);
        });
        let display = Display::new();
        let context = Context {
            run_dir: writer.dir().to_owned(),
            run_id: writer.id().to_owned(),
            exe: std::env::current_exe()
                .map_err(|e| Failure::internal(format!("cannot find this program: {e}")))?,
            cache_dir: settings::cache_dir(),
            base: loaded.base.clone(),
            plan: Arc::new(loaded.plan.clone()),
            journal: Arc::new(journal),
            clock: Arc::clone(&clock),
            stop,
            on_nodes: doctor::on_nodes(doctor, writer.dir().to_owned(), display.clone()),
        };
        let skipped = prepared.skipped.clone();
        let guard = Guard::watch(loaded.plan.limit, &clock, ask);
        Ok(Self {
            loaded,
            prepared,
            writer,
            context,
            clock,
            asked,
            guard,
            display,
            skipped,
            failed: false,
            interrupted: false,
        })
    }

    fn on_fleet(&self) -> impl Fn(scalebeam_fleet::Progress) + Send + Sync + '_ {
        self.display.on_fleet(Arc::clone(&self.clock))
    }

    fn asked(&self) -> Asked {
        *self.asked.borrow()
    }

    async fn measured(&mut self) -> Result<(), Failure> {
        floor::measure(self).await?;
        self.deployments().await
    }

    /// A resumed run has the plan of the run; a new one has what was selected of the file.
    fn is_selected(&self, point: &PointPlan) -> bool {
        self.loaded.plan.points.iter().any(|p| p.id == point.id)
    }

    async fn deployment(
        &mut self,
        deployment: &DeploymentPlan,
        left: &[(&PointPlan, &TrialPlan)],
        searches: Vec<Search<'_>>,
    ) -> Result<(), Failure> {
        let outcome = bring_up(deployment, &self.context, &self.on_fleet()).await;
        let mut running = match outcome {
            Ok(running) => running,
            Err(error) => {
                self.display.clear();
                if self.asked() != Asked::Not {
                    self.interrupted = true;
                    return Ok(());
                }
                return self.give_up(deployment, error.into());
            }
        };
        self.display.line(&format!("{}: ready after {}", deployment.name, running.ready_after()));
        // Where it answers may be known only now.
        let entries = running.endpoints().to_vec();
        let measured = DeploymentPlan { entries, ..deployment.clone() };
        let agents = agents::carry(self, deployment, &mut running).await;
        let ended = match fingerprint::keep(self, deployment, &running).await {
            Ok(bring_up) => {
                let bench =
                    trial::Bench::new(self, &measured, &running.processes(), agents, bring_up);
                match bench {
                    Ok(bench) => self.points(bench, &running, left, searches).await,
                    Err(failure) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        };
        let ended = match ended {
            // It may have failed because what it asked had died.
            Err(failure) => match running.death().await {
                Some(death) => Ok(Ended::Failed(death.into())),
                None => Err(failure),
            },
            ended => ended,
        };
        self.take_down(deployment, running, &ended).await;
        match ended {
            Ok(Ended::Whole) => {}
            Ok(Ended::Interrupted) => self.interrupted = true,
            Ok(Ended::Failed(failure)) => self.give_up(deployment, failure)?,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn points(
        &mut self,
        mut bench: trial::Bench,
        running: &Running,
        left: &[(&PointPlan, &TrialPlan)],
        searches: Vec<Search<'_>>,
    ) -> Result<Ended, Failure> {
        for (point, trial) in left {
            let ended = self.trial(running, &mut bench, point, trial).await?;
            if !matches!(ended, Ended::Whole) {
                return Ok(ended);
            }
        }
        for mut search in searches {
            while let Some((point, trial)) = search.next() {
                let ended = self.trial(running, &mut bench, point, trial).await?;
                if !matches!(ended, Ended::Whole) {
                    return Ok(ended);
                }
                search.read_again(&self.writer, point)?;
            }
        }
        Ok(Ended::Whole)
    }

    async fn trial(
        &self,
        running: &Running,
        bench: &mut trial::Bench,
        point: &PointPlan,
        trial: &TrialPlan,
    ) -> Result<Ended, Failure> {
        if self.asked() != Asked::Not {
            return Ok(Ended::Interrupted);
        }
        match bench.words(point).await {
            Ok(words) => trial::measure(self, running, bench, point, trial, words).await,
            // It may have failed because what it asked had died.
            Err(failure) => {
                let death = running.death().await.map(Failure::from);
                Ok(Ended::Failed(death.unwrap_or(failure)))
            }
        }
    }

    async fn take_down(
        &self,
        deployment: &DeploymentPlan,
        running: Running,
        ended: &Result<Ended, Failure>,
    ) {
        let failed = !matches!(ended, Ok(Ended::Whole | Ended::Interrupted));
        if failed && !deployment.stop.always {
            self.display.line(&format!(
                "{}: left running, as stop.always = false asks; take it down with: scalebeam down {}",
                deployment.name,
                self.writer.dir().display()
            ));
            return;
        }
        let has_processes = !deployment.processes.is_empty();
        let report = running.take_down(deployment.stop.grace).await;
        for problem in &report.problems {
            self.display.line(&format!("{}: {problem}", deployment.name));
        }
        if has_processes && report.is_clean() {
            self.display.line(&format!("{}: taken down", deployment.name));
        }
    }

    /// Writes down that the run failed, as far as that can still be written.
    fn abandon(self, failure: Failure) -> Failure {
        self.display.clear();
        let dir = self.writer.dir().display().to_string();
        let can_go_on = !is_inside(self.writer.manifest());
        let _ = self.writer.finish(RunStatus::Failed, Some(failure.message().to_owned()));
        if can_go_on {
            printer::say(&format!("continue with: scalebeam run --resume {dir}"));
        }
        failure
    }

    fn finish(self) -> Result<Done, Failure> {
        self.display.clear();
        let dir = self.writer.dir().to_owned();
        let text =
            serde_json::to_vec_pretty(&self.skipped).map_err(|e| Failure::internal(chain(&e)))?;
        scalebeam_record::write_atomically(&dir.join(SKIPPED), &text)?;
        let (run, status) = match (self.interrupted, self.failed) {
            (true, _) => (RunStatus::Interrupted, Status::Interrupted),
            (_, true) => (RunStatus::Failed, Status::Deployment),
            _ => (RunStatus::Complete, Status::Ok),
        };
        let limit = if self.interrupted { self.stopped_by_limit()? } else { None };
        if let Some(text) = &limit {
            printer::say(text);
            self.context.journal.write(Event::Note { text: text.clone() })?;
        }
        let can_go_on = !is_inside(self.writer.manifest());
        self.writer.finish(run, limit)?;
        if self.interrupted && can_go_on {
            printer::say(&format!("continue with: scalebeam run --resume {}", dir.display()));
        }
        Ok(Done { dir, status })
    }
}
