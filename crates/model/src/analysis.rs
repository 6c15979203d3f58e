//! From records to results: metrics, trust, comparison, verdict, expectations. Pure: the same records
//! give the same results, of a real run and of a simulated one.

use crate::cost::Taken;
use crate::doctor::MeasuredPath;
use crate::engine_metrics::{EngineReadings, Said};
use crate::floor::Floor;
use crate::metrics::{Percentiles, Timeline, TrialView, of_part, of_trials, steady};
use crate::plan::{InstancePlan, Plan, PointPlan, Role};
use crate::request::RequestRecord;
use crate::results::{
    Metrics, PointContext, PointResult, RESULTS_FORMAT, Results, Skipped, TrialResult,
};
use crate::telemetry::samples::{self, Sample};
use crate::telemetry::{Allocated, Telemetry, Usage, Window, usage};
use crate::units::Nanos;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub mod account;
pub mod advise;
pub mod compare;
mod doubt;
pub mod expect;
pub mod fairness;
pub mod loss;
pub mod pareto;
pub mod scaling;
pub mod search;
mod sharing;
mod slo;
mod unrecorded;
mod verdict;
pub mod versus;

/// The measured requests of one repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialRecords {
    /// From 1.
    pub number: u32,
    /// Requests of the measure phase, all outcomes.
    pub records: Vec<RequestRecord>,
    /// The trial was cut short.
    pub partial: bool,
    /// Why its records cannot be read, where they cannot.
    pub damaged: Option<String>,
    /// What is known of it besides its requests.
    pub facts: TrialFacts,
}

impl TrialRecords {
    /// As metrics look at it.
    pub(crate) fn view<'a>(&'a self, context: &'a PointContext<'a>) -> TrialView<'a> {
        TrialView {
            context,
            records: &self.records,
            engines: self.facts.engines.as_ref(),
            usage: None,
        }
    }
}

/// What is known of a trial besides its requests. What could not be read is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrialFacts {
    /// The busiest load thread's CPU time over the wall time of the measurement; 1 is all of a core.
    pub busiest_worker_cpu: Option<f64>,
    /// The part of all cores of the client's machine that was in use meanwhile, by whomever.
    pub machine_cpu: Option<f64>,
    /// Requests that the deployment's engines put back in their queues meanwhile, by their own count.
    pub preemptions: Option<u64>,
    /// What they said of themselves besides.
    pub engines: Option<EngineReadings>,
    /// When it was ended because its queue grew without end; absent where it ran as long as was asked.
    pub oversaturated_at: Option<Nanos>,
    /// Why the prefix cache was not emptied before it, where it was to be.
    pub cache_not_reset: Option<String>,
    /// What was read of the machines, where they were watched.
    pub telemetry: Option<Telemetry>,
    /// Which bring-up of its deployment it was measured on, from 1.
    pub bring_up: Option<u32>,
    /// Which of the runs that are taken together it is of, from 0.
    pub run: u32,
}

/// A point with its records.
#[derive(Debug, Clone)]
pub struct MeasuredPoint<'a> {
    /// What was asked.
    pub plan: &'a PointPlan,
    /// What happened.
    pub trials: Vec<TrialRecords>,
}

impl MeasuredPoint<'_> {
    /// As it is where only trials that ran to their end count. A point of which none did is what it is, and so is one of
    /// a deployment that is among `failed`: what cut its trial short is its own, and must not be left out of its numbers.
    pub fn of_whole_trials(&self, failed: &[Skipped]) -> Cow<'_, Self> {
        let is_whole = |trial: &&TrialRecords| !trial.partial;
        let whole: Vec<&TrialRecords> = self.trials.iter().filter(is_whole).collect();
        let has_failed = failed.iter().any(|s| s.deployment == self.plan.deployment);
        if has_failed || whole.is_empty() || whole.len() == self.trials.len() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(MeasuredPoint { plan: self.plan, trials: whole.into_iter().cloned().collect() })
    }
}

/// What is to be said of a run besides its points.
#[derive(Debug, Clone, Default)]
pub struct Frame<'a> {
    /// Run id.
    pub run: &'a str,
    /// The run was cut short.
    pub incomplete: bool,
    /// Deployments that were not measured.
    pub skipped: Vec<Skipped>,
    /// Deployment that the others are held against; default: the first.
    pub baseline: Option<&'a str>,
    /// Metrics to compare besides those of the verdict.
    pub metrics: Vec<&'a str>,
    /// Metrics that reports show; percentiles that no distribution keeps are found for them.
    pub shown: Vec<&'a str>,
    /// Percentiles of every distribution, of a hundred.
    pub percentiles: Vec<f64>,
    /// What is to be reported: scaling, fairness and fronts are found for those who ask.
    pub reports: &'a [crate::spec::ReportSpec],
    /// What must hold.
    pub expects: &'a [crate::spec::ExpectSpec],
    /// What the instrument was worth before the run, where that was measured.
    pub floor: Option<&'a Floor>,
    /// What paths between hosts carried before the run, where that was measured.
    pub paths: Vec<MeasuredPath>,
    /// What ranks exchange, of deployments whose links are known.
    pub exchanges: Vec<loss::Exchange>,
    /// Trials that ran to their end by the run's journal: id of the point, and number.
    pub ended: BTreeSet<(String, u32)>,
}

/// Numbers of the trials of `begun` that `whole` is without.
fn left_out(begun: &MeasuredPoint<'_>, whole: &MeasuredPoint<'_>) -> Vec<u32> {
    let numbers = |p: &MeasuredPoint<'_>| p.trials.iter().map(|t| t.number).collect::<Vec<u32>>();
    let whole = numbers(whole);
    numbers(begun).into_iter().filter(|number| !whole.contains(number)).collect()
}

/// Everything that is said of a run.
pub fn analyse(plan: &Plan, points: &[MeasuredPoint<'_>], frame: &Frame<'_>) -> Results {
    let begun: Vec<&MeasuredPoint<'_>> = points.iter().filter(|p| !p.trials.is_empty()).collect();
    let whole: Vec<Cow<'_, MeasuredPoint<'_>>> =
        begun.iter().map(|p| p.of_whole_trials(&frame.skipped)).collect();
    let measured: Vec<&MeasuredPoint<'_>> = whole.iter().map(AsRef::as_ref).collect();
    let asked = asked(frame);
    let results: Vec<PointResult> = measured
        .iter()
        .zip(&begun)
        .map(|(p, begun)| point(plan, p, &left_out(begun, p), &asked, frame))
        .collect();
    let sides: Vec<compare::Side<'_>> = measured
        .iter()
        .zip(&results)
        .map(|(m, result)| compare::Side {
            result,
            trials: &m.trials,
            point: m.plan,
            plan,
            class: None,
        })
        .collect();
    let searches = search::all(plan, &measured, &results);
    // Searches go their own ways: their levels are not those of another deployment.
    let (probes, asked): (Vec<compare::Side<'_>>, Vec<compare::Side<'_>>) =
        sides.into_iter().partition(|s| s.result.is_probe);
    let comparisons = compare::all(plan, &asked, frame);
    let scaling = scaling::sides::all(&asked, &probes, &searches, &scaling_asks(frame));
    let beside = loss::Beside { paths: &frame.paths, exchanges: &frame.exchanges };
    let losses = loss::all(&scaling, &asked, beside);
    let verdicts = verdict::all(&asked, &losses);
    let fairness = fairness::all(&asked, frame.reports, frame.expects);
    let ways = fairness::ways::all(&asked);
    let fronts = pareto::all(plan, &measured, &results, frame.reports);
    let is_there = |name: &str| !frame.skipped.iter().any(|s| s.deployment == name);
    let deployments: Vec<&str> =
        plan.deployments.iter().map(|d| d.name.as_str()).filter(|name| is_there(name)).collect();
    let loads: Vec<&str> = plan.every_point().map(|p| p.load.as_str()).collect();
    let found = expect::Found {
        searches: &searches,
        scaling: &scaling,
        mixed: &fairness,
        deployments: &deployments,
        loads: &loads,
        skipped: &frame.skipped,
    };
    let expects = expect::all(&results, &found, frame.expects);
    Results {
        format: RESULTS_FORMAT,
        name: plan.name.clone(),
        run: frame.run.to_owned(),
        incomplete: frame.incomplete,
        points: results,
        comparisons,
        verdicts,
        searches,
        scaling,
        losses,
        fairness,
        ways,
        fronts,
        expects,
        skipped: frame.skipped.clone(),
        unrecorded: unrecorded::points(plan, points, frame),
        // It is beside the records.
        ran: Vec::new(),
    }
}

/// Those of the file, else the usual one; and what expectations are about besides.
fn scaling_asks<'a>(frame: &Frame<'a>) -> Vec<scaling::ScalingAsk<'a>> {
    let mut asks: Vec<scaling::ScalingAsk<'a>> =
        frame.reports.iter().filter_map(scaling::ScalingAsk::of).collect();
    if asks.is_empty() {
        asks.push(scaling::ScalingAsk::usual());
    }
    for metric in frame.expects.iter().filter_map(|e| expect::of_scaling(&e.metric)) {
        if !asks.iter().any(|a| a.metrics.contains(&metric)) {
            asks.push(scaling::ScalingAsk { metrics: vec![metric], ..Default::default() });
        }
    }
    asks
}

fn asked(frame: &Frame<'_>) -> Percentiles {
    // Of `speedup.ttft.p95` it is `ttft.p95` that must be there.
    let expected = frame.expects.iter().map(|e| expect::of_scaling(&e.metric).unwrap_or(&e.metric));
    let names = frame.metrics.iter().chain(&frame.shown).copied().chain(expected);
    Percentiles::new(names, &frame.percentiles)
}

/// What a point's metrics need to know besides its records.
pub fn context<'a>(plan: &'a Plan, point: &'a PointPlan) -> PointContext<'a> {
    let deployment = plan.deployment(&point.deployment);
    let of_role = |role| {
        let instances = deployment.iter().flat_map(|d| &d.instances);
        instances.filter(|i| i.role == role).map(InstancePlan::gpus).sum()
    };
    let nodes = deployment.map_or(0, |d| Taken::of(d, &plan.hosts).hosts.len());
    PointContext {
        deployment: &point.deployment,
        load: &point.load,
        level: &point.level,
        mode: point.mode,
        gpus: deployment.map_or(0, |d| d.gpus),
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        prefill_gpus: of_role(Role::Prefill),
        decode_gpus: of_role(Role::Decode),
        price_per_hour: deployment.and_then(|d| d.price_per_hour),
        timeout: point.measure.timeout,
        batch: point.batch,
        slo: point.slo.as_ref(),
    }
}

fn point(
    plan: &Plan,
    measured: &MeasuredPoint<'_>,
    cut: &[u32],
    asked: &Percentiles,
    frame: &Frame<'_>,
) -> PointResult {
    let context = context(plan, measured.plan);
    let usages: Vec<Option<Usage>> =
        measured.trials.iter().map(|t| machines(plan, &context, t)).collect();
    let views: Vec<TrialView<'_>> = measured
        .trials
        .iter()
        .zip(&usages)
        .map(|(t, usage)| TrialView { usage: usage.as_ref(), ..t.view(&context) })
        .collect();
    let all = || measured.trials.iter().flat_map(|t| &t.records);
    let with_asked = |views: &[TrialView<'_>]| {
        let mut metrics = of_trials(views);
        metrics.extend(asked.of_trials(views));
        metrics
    };
    let metrics = with_asked(&views);
    let mut trust = doubt::doubts(&context, measured, &metrics, &usages, frame);
    let is_probe = plan.is_probe(context.deployment, context.load);
    if let Some(reason) = unrecorded::trials(measured, cut, is_probe, frame) {
        trust.add(reason);
    }
    let account = account::account(&metrics, &usages);
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for failure in all().filter_map(|r| r.failure.as_ref()) {
        *failures.entry(failure.class.name().to_owned()).or_default() += 1;
    }
    PointResult {
        deployment: measured.plan.deployment.clone(),
        load: measured.plan.load.clone(),
        level: measured.plan.level.label.clone(),
        mode: measured.plan.mode,
        concurrency: measured.plan.level.concurrency,
        rate_rps: measured.plan.level.rate_rps,
        batch: measured.plan.level.batch,
        is_probe,
        gpus: context.gpus,
        classes: breakdown(measured, |r| r.class.clone()),
        targets: breakdown(measured, |r| entry_name(plan, context.deployment, r.target)),
        turns: turns(measured),
        by_target: by_target(measured),
        metrics,
        outcomes: outcomes(all()),
        failures,
        // Of records that cannot be read nothing is known, not that requests failed.
        slo: context
            .slo
            .filter(|_| measured.trials.iter().all(|t| t.damaged.is_none()))
            .map(|slo| slo::result(slo, &measured.trials)),
        account,
        trust,
        trials: measured
            .trials
            .iter()
            .zip(&views)
            .map(|(t, view)| TrialResult {
                number: t.number,
                bring_up: t.facts.bring_up,
                metrics: with_asked(&[*view]),
                timeline: Timeline::of(&t.records),
                outcomes: outcomes(t.records.iter()),
                usage: view.usage.cloned(),
                engines: t.facts.engines.as_ref().map_or_else(Vec::new, |e| e.instances.clone()),
            })
            .collect(),
    }
}

/// What the machines did in the measured part of a trial.
fn machines(plan: &Plan, context: &PointContext<'_>, trial: &TrialRecords) -> Option<Usage> {
    let telemetry = trial.facts.telemetry.as_ref()?;
    let window = watched_window(plan, context, trial)?;
    let allocated = allocated(plan, context);
    let usage = usage::usage(telemetry, window, &allocated, plan.telemetry.busy_floor_pct);
    Some(Usage { is_steady: plan.telemetry.steady, ..usage })
}

/// The part of a trial that machines are looked at in.
fn watched_window(plan: &Plan, context: &PointContext<'_>, trial: &TrialRecords) -> Option<Window> {
    let view = trial.view(context);
    match plan.telemetry.steady {
        true => steady(&view).map(|(from, to)| Window { from, to }).ok(),
        false => view.window(),
    }
}

fn allocated(plan: &Plan, context: &PointContext<'_>) -> Allocated {
    let deployment = plan.deployment(context.deployment);
    deployment.map(|d| Allocated::of(d, &plan.hosts)).unwrap_or_default()
}

/// What each GPU and each machine of a trial did step by step, beside what the engines said at `looks`; empty
/// where no machine was watched.
pub fn samples(
    plan: &Plan,
    point: &PointPlan,
    trial: &TrialRecords,
    looks: &[Vec<Said>],
) -> Vec<Sample> {
    let context = context(plan, point);
    let window = watched_window(plan, &context, trial);
    let Some((telemetry, window)) = trial.facts.telemetry.as_ref().zip(window) else {
        return Vec::new();
    };
    let given = allocated(plan, &context).seen(telemetry);
    samples::samples(telemetry, looks, window, &given)
}

fn outcomes<'a>(records: impl Iterator<Item = &'a RequestRecord>) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for record in records {
        *out.entry(record.outcome.name().to_owned()).or_default() += 1;
    }
    out
}

fn by_target(measured: &MeasuredPoint<'_>) -> Vec<u64> {
    let targets = usize::from(measured.plan.measure.targets);
    if targets < 2 {
        return Vec::new();
    }
    let mut out = vec![0; targets];
    for record in measured.trials.iter().flat_map(|t| &t.records) {
        if let Some(n) = out.get_mut(usize::from(record.target)) {
            *n += 1;
        }
    }
    out
}

/// The measured requests of a point in parts by `key`; nothing where all have the same.
fn breakdown<K: Ord>(
    measured: &MeasuredPoint<'_>,
    key: impl Fn(&RequestRecord) -> K,
) -> BTreeMap<K, Metrics> {
    let mut parts: BTreeMap<K, Vec<&RequestRecord>> = BTreeMap::new();
    for record in measured.trials.iter().flat_map(|t| &t.records) {
        parts.entry(key(record)).or_default().push(record);
    }
    if parts.len() < 2 {
        return BTreeMap::new();
    }
    parts.into_iter().map(|(key, records)| (key, of_part(&records))).collect()
}

/// What an entry is called: its URL, as the plan has it.
fn entry_name(plan: &Plan, deployment: &str, target: u16) -> String {
    let entries = plan.deployment(deployment).map_or(&[][..], |d| &d.entries);
    let entry = entries.get(usize::from(target));
    entry.map_or_else(|| format!("entry {target}"), |e| e.url.clone())
}

/// Parts by turn of a session, from zero, where requests are turns.
fn turns(measured: &MeasuredPoint<'_>) -> BTreeMap<u32, Metrics> {
    let by_turn = breakdown(measured, |r| r.turn).into_iter();
    by_turn.filter_map(|(turn, metrics)| Some((turn?, metrics))).collect()
}

#[cfg(test)]
pub(crate) mod tests;
