//! One trial: warm-up, measurement, seal.

use super::engines::{Engines, Watched};
use super::machines::Machines;
use super::{Campaign, Ended, reach};
use crate::exit::{Failure, chain};
use crate::interrupt::{Asked, reached};
use crate::machine::{Cores, cpu_share};
use crate::settings;
use scalebeam_fleet::Running;
use scalebeam_fleet::agent::Carried;
use scalebeam_fleet::journal::Event;
use scalebeam_fleet::launch::RunningProcess;
use scalebeam_load::{
    Control, Endpoint, LoadError, PhaseReport, PhaseSpec, Tokenizer, Turns, probe, run_phase,
};
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{LoadShape, PhasePlan, Turn};
use scalebeam_model::engine_metrics::Word;
use scalebeam_model::plan::{DeploymentPlan, Platform, PointPlan, TrialPlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::saturation::{self, Detector};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{
    Api, CachePolicy, Files, PromptStream, Salt, Sizing, Words, Workload,
};
use scalebeam_record::{PhaseSpan, RecordError, TrialInfo, TrialWriter};
use scalebeam_telemetry::scrape::Scraped;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// After Ctrl-C, how long requests in flight may still take.
const DRAIN: Duration = Duration::from_secs(30);
/// Streams that one load thread carries before a second one is worth its cost.
const STREAMS_PER_THREAD: u64 = 512;

/// What all trials of a deployment share.
pub(super) struct Bench {
    /// By family, where its requests go.
    endpoints: BTreeMap<Api, Arc<Endpoint>>,
    files: Arc<Files>,
    tokenizer: Option<Arc<Tokenizer>>,
    clock: Arc<dyn Clock>,
    /// By API: a chat template and a plain prompt are counted by the same tokenizer, but a server may
    /// report usage for one only.
    words: BTreeMap<Api, Arc<Words>>,
    engines: Engines,
    machines: Arc<Machines>,
    /// Which bring-up of the deployment this is, from 1.
    bring_up: u32,
}

impl Bench {
    pub(super) fn new(
        campaign: &Campaign<'_>,
        deployment: &DeploymentPlan,
        started: &[RunningProcess],
        agents: Vec<Carried>,
        bring_up: u32,
    ) -> Result<Self, Failure> {
        let (loaded, prepared) = (campaign.loaded, &campaign.prepared);
        let endpoint = |api| Ok((api, Arc::new(reach::endpoint(loaded, deployment, api)?)));
        Ok(Self {
            endpoints: Api::ALL.into_iter().map(endpoint).collect::<Result<_, Failure>>()?,
            files: Arc::clone(&prepared.files),
            tokenizer: prepared.tokenizer.clone(),
            clock: Arc::clone(&campaign.clock),
            words: BTreeMap::new(),
            engines: Engines::new(loaded, deployment, &campaign.clock),
            machines: Arc::new(Machines::watch(campaign, deployment, started, agents)?),
            bring_up,
        })
    }

    fn endpoint(&self, api: Api) -> &Arc<Endpoint> {
        // Made for every family there is.
        &self.endpoints[&api]
    }

    /// Words to write the point's prompts with: sized by the tokenizer, else by the server's own usage.
    pub(super) async fn words(&mut self, point: &PointPlan) -> Result<Arc<Words>, Failure> {
        let api = point.workload.api;
        if let Some(words) = self.words.get(&api) {
            return Ok(Arc::clone(words));
        }
        let words = match &self.tokenizer {
            _ if !point.workload.is_synthetic() => {
                return Ok(Arc::new(Words::common(1.0, Sizing::Guess)));
            }
            Some(tokenizer) => tokenizer.words().map_err(|e| Failure::usage(chain(&e)))?,
            None => self.measured_words(api, &point.workload).await?,
        };
        crate::printer::say(&sizing_note(&words));
        let words = Arc::new(words);
        self.words.insert(api, Arc::clone(&words));
        Ok(words)
    }

    async fn measured_words(&self, api: Api, workload: &Workload) -> Result<Words, Failure> {
        let (clock, endpoint) = (Arc::clone(&self.clock), Arc::clone(self.endpoint(api)));
        let workload = workload.clone();
        let probed =
            tokio::task::spawn_blocking(move || probe::measure_words(&clock, &endpoint, &workload));
        Ok(probed.await.map_err(|e| Failure::internal(e.to_string()))??)
    }
}

/// What a reader of the trial should know of its prompts.
fn sizing_note(words: &Words) -> String {
    let per_word = words.tokens_per_word;
    match words.sizing {
        Sizing::Tokenizer => "prompts are token-exact by the model's tokenizer".to_owned(),
        Sizing::ServerUsage => {
            format!("prompts are sized by the server's usage: {per_word:.3} tokens a word")
        }
        Sizing::Guess => {
            format!(
                "prompt lengths are a guess ({per_word:.2} tokens a word): there is no tokenizer, and no usage that grows with the prompt"
            )
        }
    }
}

/// One trial's work, which a thread of its own does.
struct Job {
    point: PointPlan,
    trial: TrialPlan,
    salt: Option<Salt>,
    words: Arc<Words>,
    files: Arc<Files>,
    endpoint: Arc<Endpoint>,
    tokenizer: Option<Arc<Tokenizer>>,
    clock: Arc<dyn Clock>,
    /// What is posted to, to empty the prefix cache.
    cache_reset: Option<String>,
    control: Control,
    writer: TrialWriter,
    engines: Engines,
    machines: Arc<Machines>,
    bring_up: u32,
    id_prefix: String,
    /// When its queue was seen to grow without end.
    oversaturated_at: Option<Nanos>,
}

/// Where the records of a phase go.
struct Sink<'a> {
    writer: &'a mut TrialWriter,
    failed: Option<RecordError>,
    /// There where a phase may be ended early.
    detector: Option<Detector>,
    oversaturated_at: Option<Nanos>,
}

impl Sink<'_> {
    /// Whether the phase is beyond capacity by now.
    fn is_saturated(&mut self, record: &RequestRecord, in_flight: u64) -> bool {
        let (Some(detector), Some(ended)) =
            (&mut self.detector, saturation::Ended::of(record, in_flight))
        else {
            return false;
        };
        if !detector.step(ended) {
            return false;
        }
        self.detector = None;
        self.oversaturated_at = Some(record.finished_at);
        true
    }
}

/// What keeps a prefix cache that has seen other trials from answering this one. Deployments that we start
/// have a cache of their own and are sent the same texts, so that they are weighed on equal terms; a
/// server that was there before may be behind several deployments, and may have seen this trial before it
/// was cut short.
fn salt(campaign: &Campaign<'_>, point: &PointPlan, trial: &TrialPlan) -> Option<Salt> {
    if point.workload.cache != CachePolicy::Salt {
        return None;
    }
    let deployment = campaign.loaded.plan.deployment(&point.deployment);
    let is_ours = deployment.is_some_and(|d| d.platform != Platform::External);
    let (name, now) =
        if is_ours { ("", 0) } else { (point.deployment.as_str(), campaign.clock.now().0) };
    let texts = [campaign.writer.id(), name, &point.load, &point.level.label];
    Some(Salt::of(&texts, &[u64::from(trial.number), now]))
}

/// Why a trial has no result.
enum Lost {
    Load(LoadError),
    Record(RecordError),
}

/// Measures one trial and seals it; a trial that is cut short stays readable, and partial.
pub(super) async fn measure(
    campaign: &Campaign<'_>,
    running: &Running,
    bench: &Bench,
    point: &PointPlan,
    trial: &TrialPlan,
    words: Arc<Words>,
) -> Result<Ended, Failure> {
    if pause(campaign, point).await {
        return Ok(Ended::Interrupted);
    }
    let now = campaign.clock.now();
    let writer = campaign.writer.trial(&point.id, trial.number, now, bench.bring_up)?;
    let control = Control::new();
    let salt = salt(campaign, point, trial);
    let mut point = point.clone();
    if let Some(salt) = salt {
        point.workload = point.workload.salted(salt);
    }
    if let LoadShape::Replay { due, .. } = &mut point.measure.shape {
        *due = bench.files.due(&point.workload).unwrap_or_default();
    }
    let job = Job {
        id_prefix: format!("{}-{}", campaign.writer.id(), point.id.replace('/', "-")),
        endpoint: Arc::clone(bench.endpoint(point.workload.api)),
        point: point.clone(),
        salt,
        trial: trial.clone(),
        words,
        files: Arc::clone(&bench.files),
        tokenizer: bench.tokenizer.clone(),
        clock: Arc::clone(&campaign.clock),
        cache_reset: campaign
            .loaded
            .plan
            .deployment(&point.deployment)
            .and_then(|d| d.cache_reset.clone()),
        control: control.clone(),
        engines: bench.engines.clone(),
        machines: Arc::clone(&bench.machines),
        bring_up: bench.bring_up,
        writer,
        oversaturated_at: None,
    };
    let bar = campaign.display.trial(&point, trial, &control);
    let work = tokio::task::spawn_blocking(move || job.run());
    let (done, death) = attend(campaign, running, &control, work).await?;
    bar.finish();
    match (done, death) {
        (Ok(()), None) if !control.is_stopped() => {
            let ended = Event::TrialEnded { point: point.id, trial: trial.number };
            campaign.context.journal.write(ended)?;
            Ok(Ended::Whole)
        }
        (_, Some(death)) => Ok(Ended::Failed(death)),
        (Err(Lost::Record(error)), _) => Err(error.into()),
        (Err(Lost::Load(error)), _) => Ok(Ended::Failed(error.into())),
        (Ok(()), None) => Ok(Ended::Interrupted),
    }
}

/// Waits as the load asks; whether the user interrupted.
async fn pause(campaign: &Campaign<'_>, point: &PointPlan) -> bool {
    let asked = reached(&campaign.asked, Asked::Once);
    tokio::time::timeout(point.pause.to_std(), asked).await.is_ok() && point.pause.0 > 0
}

/// Waits for the work, while it watches the deployment and the user.
async fn attend(
    campaign: &Campaign<'_>,
    running: &Running,
    control: &Control,
    work: tokio::task::JoinHandle<Result<(), Lost>>,
) -> Result<(Result<(), Lost>, Option<Failure>), Failure> {
    tokio::pin!(work);
    let mut death = None;
    let mut draining = false;
    loop {
        tokio::select! {
            done = &mut work => {
                let done = done.map_err(|e| Failure::internal(format!("the load generator failed: {e}")))?;
                // What died on another host may have ended the trial before it was noticed.
                let death = match death {
                    None => running.look().await.err().map(Failure::from),
                    told => told,
                };
                return Ok((done, death));
            }
            error = running.died(), if death.is_none() => {
                death = Some(Failure::from(error));
                control.abort();
            }
            () = reached(&campaign.asked, Asked::Once), if !draining => {
                draining = true;
                control.stop();
            }
            () = give_up(campaign), if draining => {
                control.abort();
                // Aborting takes a moment; the work ends by itself.
                let done = work.await.map_err(|e| Failure::internal(e.to_string()))?;
                return Ok((done, death));
            }
        }
    }
}

/// Returns when requests in flight have had their time, or the user asked twice.
async fn give_up(campaign: &Campaign<'_>) {
    let _ = tokio::time::timeout(DRAIN, reached(&campaign.asked, Asked::Twice)).await;
}

impl Job {
    fn run(mut self) -> Result<(), Lost> {
        let mut info = TrialInfo {
            shards: shards(&self.point.measure),
            bring_up: Some(self.bring_up),
            ..TrialInfo::default()
        };
        if self.point.workload.is_synthetic() {
            info.notes.push(sizing_note(&self.words));
        }
        info.notes.extend(self.files.about(&self.point.workload));
        if let Some(warmup) = self.point.warmup.clone() {
            let report = self.phase(warmup, self.trial.warmup_seed, "w")?;
            info.warmup = Some(span(&report));
        }
        if self.point.workload.cache == CachePolicy::Reset && !self.control.is_stopped() {
            match self.reset_cache() {
                Ok(note) => info.notes.push(note),
                Err(why) => {
                    crate::printer::say(&format!("the prefix cache was not emptied: {why}"));
                    info.cache_not_reset = Some(why);
                }
            }
        }
        if !self.control.is_stopped() {
            let (watched, cores) = (self.engines.begin(), Cores::now());
            let measure = self.point.measure_of(&self.trial);
            let begun = self.machines.begin();
            let report = self.phase(measure, self.trial.measure_seed, "m");
            let telemetry = self.machines.end(&begun);
            let report = report?;
            let of_machine = Cores::now().zip(cores).and_then(|(now, then)| now.busy_since(then));
            let wall = report.ended_at.since(report.started_at);
            info.measure = Some(span(&report));
            info.oversaturated_at = self.oversaturated_at;
            info.client_cpu_cores = report
                .client_cpu
                .filter(|_| wall > Nanos::ZERO)
                .map(|cpu| cpu.as_secs_f64() / wall.as_secs_f64());
            info.busiest_worker_cpu = report.busiest_cpu.and_then(|cpu| cpu_share(cpu, wall));
            info.machine_cpu = of_machine;
            if let Some(telemetry) = telemetry {
                self.writer.telemetry(&telemetry).map_err(Lost::Record)?;
            }
            if let Some(scraped) = watched.and_then(Watched::end) {
                self.keep(scraped, &mut info)?;
            }
        }
        if self.control.is_stopped() {
            return self.writer.abandon().map_err(Lost::Record);
        }
        self.writer.seal(info).map_err(Lost::Record)
    }

    /// Keeps what the engines said: as it came, and what came of it.
    fn keep(&self, scraped: Scraped, info: &mut TrialInfo) -> Result<(), Lost> {
        let readings = scraped.readings;
        if readings.instances.iter().any(|instance| instance.reads > 0) {
            self.writer.keep_engine_pages(&scraped.pages).map_err(Lost::Record)?;
        }
        if !scraped.looks.is_empty() {
            self.writer.engine_looks(&scraped.looks).map_err(Lost::Record)?;
        }
        info.preemptions = readings.risen(Word::Preemptions).ok().map(whole);
        info.engines = Some(readings);
        Ok(())
    }

    /// Asks every entry to empty its prefix cache, which answers by its status.
    fn reset_cache(&self) -> Result<String, String> {
        let path = self.cache_reset.as_ref();
        let path = path.ok_or("the engine has no way to do so that is known")?;
        probe::post_to_all(&self.clock, &self.endpoint, path)?;
        let entries = self.endpoint.targets.len();
        Ok(format!("POST {path} was answered with 200 by {entries} entries before the measurement"))
    }

    fn phase(&mut self, mut plan: PhasePlan, seed: u64, tag: &str) -> Result<PhaseReport, Lost> {
        let stream = PromptStream::new(
            &self.point.workload,
            &self.words,
            &self.files,
            seed,
            self.point.batch,
        )
        .salted(self.salt);
        let first = first_entry(&plan.shape);
        let prompts = |index: u64| stream.prompt(first + index);
        let turns = |turn: Turn| stream.turn(turn);
        if let Some(sessions) = &mut plan.sessions {
            sessions.turns = stream.turns().unwrap_or_default();
        }
        let turns: Option<&Turns<'_>> = plan.sessions.is_some().then_some(&turns);
        let spec = PhaseSpec {
            shards: shards(&plan),
            plan,
            endpoint: Arc::clone(&self.endpoint),
            prompts: &prompts,
            turns,
            workload: &self.point.workload,
            tokenizer: self.tokenizer.clone(),
            keep_text: false,
            request_id_prefix: format!("{}-{}{tag}", self.id_prefix, self.trial.number),
        };
        let watches = self.point.stop_oversaturated && spec.plan.phase == Phase::Measure;
        let state = Mutex::new(Sink {
            writer: &mut self.writer,
            failed: None,
            detector: watches.then(Detector::default),
            oversaturated_at: None,
        });
        let sink = |record: RequestRecord| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.is_saturated(&record, self.control.progress().in_flight) {
                self.control.end();
            }
            if let Err(error) = state.writer.append(record) {
                // A record that cannot be kept makes the rest worthless.
                state.failed.get_or_insert(error);
                self.control.abort();
            }
        };
        let report =
            run_phase(&spec, Arc::clone(&self.clock), &self.control, &sink).map_err(Lost::Load)?;
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.oversaturated_at = state.oversaturated_at;
        match state.failed {
            Some(error) => Err(Lost::Record(error)),
            None => Ok(report),
        }
    }
}

/// The entry of a trace that the first request replays: its length belongs to its time.
fn first_entry(shape: &LoadShape) -> u64 {
    match shape {
        LoadShape::Replay { window, due, .. } => window.range(due).start as u64,
        LoadShape::Closed { .. } | LoadShape::Burst | LoadShape::Open { .. } => 0,
    }
}

/// A count, which pages write as a number with a point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count above zero; `as` saturates"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

fn span(report: &PhaseReport) -> PhaseSpan {
    PhaseSpan { started_at: report.started_at, ended_at: report.ended_at }
}

/// Load threads: one, until there are more streams than one carries well.
pub(crate) fn shards(plan: &PhasePlan) -> u16 {
    // Requests of an open loop that take a second each.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate; `as` saturates"
    )]
    let in_a_second = |rps: f64| rps as u64;
    let streams = match (&plan.shape, plan.most_in_flight()) {
        (_, Some(n)) => n,
        (LoadShape::Open { rate_rps, .. }, None) => in_a_second(rate_rps.peak_rps()),
        (LoadShape::Replay { speed, window, due, .. }, None) => {
            let range = window.range(due);
            let span = due.get(range.clone()).and_then(|d| Some(*d.last()? - *d.first()?));
            let seconds = span.map_or(1.0, Nanos::as_secs_f64).max(1.0);
            in_a_second(range.len() as f64 * speed / seconds)
        }
        (LoadShape::Burst | LoadShape::Closed { .. }, None) => 1,
    };
    let cores = u64::try_from(settings::cores()).unwrap_or(1);
    // A thread without a place for a prompt would have nothing to do.
    let most = plan.max_prefill.map_or(cores, |n| cores.min(u64::from(n))).max(1);
    u16::try_from(streams.div_ceil(STREAMS_PER_THREAD).clamp(1, most)).unwrap_or(1)
}
