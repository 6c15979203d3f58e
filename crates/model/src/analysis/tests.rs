//! Verdicts on records whose truth is known.

use super::*;
use crate::driver::{Balance, LoadShape, PhasePlan, SessionPlan, Think, Turns};
use crate::plan::{
    DeploymentPlan, EngineKind, EntryPlan, Estimate, Level, Mode, ModelPlan, Platform, PointPlan,
    ReadyPlan, StopPlan, TrialPlan,
};
use crate::request::{Arrival, Failure, FailureClass, Outcome, Phase, TokenSource};
use crate::results::{ComparisonVerdict, lookup};
use crate::telemetry::TelemetryPlan;
use crate::trust::TrustLevel;
use crate::units::Nanos;
use crate::workload::{Api, CachePolicy, History, Source, Spread, Talk, Workload};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::{BTreeMap, BTreeSet};

mod advise;
mod doubts;
mod draws;
mod machines;
mod pairs;
mod real;
mod versus;

pub(crate) fn deployment(name: &str, gpus: u32) -> DeploymentPlan {
    DeploymentPlan {
        name: name.to_owned(),
        platform: Platform::Local,
        engine: EngineKind::Emulated,
        version: None,
        image: None,
        params: BTreeMap::new(),
        launcher: None,
        model: "m".into(),
        served_model: "m".into(),
        gpus,
        gpu_kinds: vec![],
        instances: vec![],
        processes: vec![],
        entries: vec![],
        balance: Balance::None,
        api_key_env: None,
        headers_env: BTreeMap::new(),
        ca_file: None,
        http: crate::api::HttpVersion::Http1,
        cache_reset: None,
        ready: ReadyPlan { timeout: Nanos::ZERO, within: BTreeMap::new(), gates: vec![] },
        stop: StopPlan { grace: Nanos::ZERO, always: true },
        price_per_hour: None,
        price_is_of_hosts: false,
        optional: false,
        cannot_run: None,
    }
}

pub(crate) fn point_plan(deployment: &str, concurrency: u32, trials: u32) -> PointPlan {
    let shape = LoadShape::closed(concurrency);
    PointPlan {
        id: format!("{deployment}/load/c{concurrency}"),
        deployment: deployment.to_owned(),
        load: "load".into(),
        mode: Mode::Closed,
        level: Level {
            label: format!("c{concurrency}"),
            concurrency: Some(concurrency),
            rate_rps: None,
            batch: None,
        },
        workload: Workload {
            name: "w".into(),
            api: Api::Chat,
            stream: true,
            temperature: None,
            system: None,
            force_len: true,
            body: serde_json::Map::new(),
            seed: 0,
            cache: CachePolicy::default(),
            source: Source::Prompts { pick: Default::default(), prompts: vec![] },
        },
        batch: 1,
        warmup: None,
        measure: PhasePlan {
            phase: Phase::Measure,
            shape,
            requests: Some(64),
            duration: None,
            timeout: Nanos::from_secs(60),
            targets: 1,
            balance: Balance::None,
            cancel: None,
            max_prefill: None,
            sessions: None,
        },
        pause: Nanos::ZERO,
        stop_oversaturated: false,
        slo: None,
        trials: (1..=trials)
            .map(|number| TrialPlan { number, warmup_seed: 0, measure_seed: 0 })
            .collect(),
    }
}

pub(crate) fn plan(deployments: Vec<DeploymentPlan>) -> Plan {
    Plan {
        format: 1,
        name: "test".into(),
        about: None,
        model: ModelPlan {
            id: "m".into(),
            served: "m".into(),
            revision: None,
            tokenizer: None,
            dtype: None,
            max_len: None,
        },
        sources: vec![],
        hosts: vec![],
        deployments,
        points: vec![],
        interleave: Default::default(),
        searches: vec![],
        notes: vec![],
        prices: None,
        limit: crate::limit::Limit::default(),
        telemetry: TelemetryPlan::default(),
        estimate: Estimate { wall: Nanos::ZERO, cost: None, basis: String::new() },
    }
}

/// A closed loop on two slots: each request takes `tpot` ms a token, give or take.
fn trial(number: u32, requests: u64, tpot_us: u64, wobble: u64) -> TrialRecords {
    let mut records = Vec::new();
    let mut free = [0u64; 2];
    for i in 0..requests {
        let slot = usize::from(free[1] < free[0]);
        let start = free[slot];
        let gap = tpot_us * 1_000 + (i * 7_919 + u64::from(number) * 104_729) % 17 * wobble * 1_000;
        let mut r = RequestRecord::new(i, Phase::Measure, 0, Nanos(start));
        r.sent_at = Some(Nanos(start + 100_000));
        r.arrivals = (1..=10)
            .map(|k| Arrival { at: Nanos(start + k * gap), chunks: 1, lag_ns: 0 })
            .collect();
        r.first_token_at = Some(Nanos(start + gap));
        r.last_token_at = Some(Nanos(start + 10 * gap));
        r.finished_at = Nanos(start + 10 * gap);
        r.output_tokens = Some(10);
        r.prompt_tokens = Some(5);
        r.token_source = Some(TokenSource::Usage);
        r.outcome = Outcome::Completed;
        free[slot] = r.finished_at.0;
        records.push(r);
    }
    TrialRecords { number, records, partial: false, damaged: None, facts: TrialFacts::default() }
}

fn weigh(a: Vec<TrialRecords>, b: Vec<TrialRecords>, gpus: [u32; 2]) -> Results {
    let plan = plan(vec![deployment("a", gpus[0]), deployment("b", gpus[1])]);
    let (pa, pb) = (point_plan("a", 2, 1), point_plan("b", 2, 1));
    let points = [MeasuredPoint { plan: &pa, trials: a }, MeasuredPoint { plan: &pb, trials: b }];
    analyse(&plan, &points, &Frame { run: "r", ..Frame::default() })
}

fn comparison<'a>(results: &'a Results, metric: &str) -> &'a crate::results::Comparison {
    results.comparisons.iter().find(|c| c.metric == metric).unwrap()
}

#[test]
fn a_real_difference_is_found_and_its_size_is_in_the_interval() {
    let results = weigh(vec![trial(1, 60, 1_000, 5)], vec![trial(1, 60, 2_000, 5)], [4, 4]);
    let c = comparison(&results, "output_tps");
    assert_eq!(c.verdict, ComparisonVerdict::Worse);
    let truth = c.value / c.baseline_value;
    assert!(c.ratio.low < truth && truth < c.ratio.high && c.ratio.high < 0.6);
    assert_eq!(comparison(&results, "tpot.p50").verdict, ComparisonVerdict::Worse);
    assert_eq!(results.verdicts[0].best.as_deref(), Some("a"));
    assert!(results.verdicts[0].text.starts_with("a is best: "));
}

#[test]
fn the_same_thing_twice_is_no_difference() {
    let results = weigh(vec![trial(1, 60, 1_000, 20)], vec![trial(2, 60, 1_000, 20)], [4, 4]);
    assert_eq!(comparison(&results, "output_tps").verdict, ComparisonVerdict::NoDifferenceSeen);
    assert_eq!(results.verdicts[0].best, None);
    assert!(results.verdicts[0].text.starts_with("no difference that we can see between"));
}

/// Requests of very different lengths, each exactly 1.2 times as long on one side: pairs show it at
/// once, where the spread of lengths would hide it.
#[test]
fn what_differs_between_requests_is_not_taken_for_a_difference_between_deployments() {
    let stretched = |factor_percent: u64| {
        let mut t = trial(1, 60, 1_000, 500);
        let mut at = 0;
        for r in &mut t.records {
            let span = (r.finished_at - r.scheduled_at).0 * factor_percent / 100;
            r.scheduled_at = Nanos(at);
            r.sent_at = Some(Nanos(at));
            r.finished_at = Nanos(at + span);
            at += span;
        }
        t
    };
    let results = weigh(vec![stretched(100)], vec![stretched(120)], [4, 4]);
    let mut compared = results.comparisons.iter().filter(|c| c.metric == "e2e.p95");
    let ratio = &compared.next().unwrap().ratio;
    assert!(ratio.method.starts_with("bootstrap over pairs"), "{}", ratio.method);
    assert!(ratio.low > 1.08 && ratio.high < 1.33, "no more than the 10 % for tails: {ratio:?}");
}

/// One run of a deployment: requests whose lengths are the plan's, whose speed is their own by some
/// 10 %, in a run whose speed is its own by `run_sd`.
fn noisy(number: u32, run_sd: f64, rng: &mut Xoshiro256PlusPlus) -> TrialRecords {
    let mut normal = |sd: f64| {
        let z: f64 = StandardNormal.sample(rng);
        (sd * z).exp()
    };
    let speed = normal(run_sd);
    let mut t = trial(number, 80, 1_000, 0);
    let mut free = [0u64; 2];
    for r in &mut t.records {
        let slot = usize::from(free[1] < free[0]);
        let start = free[slot];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ms")]
        let ns = |ms: f64| (ms * 1e6) as u64;
        let tokens = 5 + u32::try_from(r.index * 31 % 40).unwrap();
        let (first, gap) = (ns(30.0 * speed * normal(0.2)), ns(8.0 * speed * normal(0.1)));
        (r.scheduled_at, r.sent_at) = (Nanos(start), Some(Nanos(start)));
        r.first_token_at = Some(Nanos(start + first));
        r.last_token_at = Some(Nanos(start + first + gap * u64::from(tokens - 1)));
        r.finished_at = r.last_token_at.unwrap();
        r.output_tokens = Some(tokens);
        free[slot] = r.finished_at.0;
    }
    t
}

/// A tool that weighs deployments is asked first what it says of two that are one. The seeds are
/// fixed, so the count is the same every time; five in a hundred is what the intervals promise.
#[test]
fn two_runs_of_one_deployment_are_seldom_told_apart() {
    for (trials, run_sd) in [(1, 0.015), (2, 0.01), (3, 0.03)] {
        let pairs = 200;
        let mut wrong: BTreeMap<String, u32> = BTreeMap::new();
        for seed in 0..pairs {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut side = || (1..=trials).map(|n| noisy(n, run_sd, &mut rng)).collect();
            let results = weigh(side(), side(), [4, 4]);
            for c in &results.comparisons {
                let is_wrong = c.verdict != ComparisonVerdict::NoDifferenceSeen;
                *wrong.entry(c.metric.clone()).or_default() += u32::from(is_wrong);
            }
        }
        println!("{trials} trials, runs {run_sd} apart: {wrong:?} of {pairs}");
        assert!(!wrong.is_empty());
        for (metric, n) in wrong {
            // Three standard errors above one in twenty.
            assert!(n <= 19, "{metric}: {n} of {pairs} with {trials} trials, runs {run_sd} apart");
        }
    }
}

#[test]
fn twice_the_gpus_for_the_same_rate_is_half_as_good() {
    let results = weigh(vec![trial(1, 60, 1_000, 5)], vec![trial(1, 60, 1_000, 5)], [4, 8]);
    let c = comparison(&results, "output_tps_per_gpu");
    assert!((c.ratio.point - 0.5).abs() < 1e-9 && c.verdict == ComparisonVerdict::Worse);
    assert_eq!(results.verdicts[0].best.as_deref(), Some("a"));
}

#[test]
fn three_trials_a_side_bring_the_variance_between_trials_in() {
    let runs = |tpot: [u64; 3]| tpot.iter().zip(1..).map(|(t, n)| trial(n, 30, *t, 1)).collect();
    let results = weigh(runs([1_000, 1_300, 900]), runs([1_100, 950, 1_250]), [4, 4]);
    let c = comparison(&results, "output_tps");
    assert!(c.ratio.method.starts_with("Welch over 3 and 3 trials"));
    assert_eq!(c.verdict, ComparisonVerdict::NoDifferenceSeen, "{:?}", c.ratio);
}

#[test]
fn failures_are_counted_flagged_and_keep_a_point_out_of_the_verdict() {
    let mut bad = trial(1, 60, 500, 5);
    for r in bad.records.iter_mut().take(20) {
        r.outcome = Outcome::TimedOut;
        r.failure =
            Some(Failure { class: FailureClass::Timeout, status: None, detail: String::new() });
    }
    let results = weigh(vec![trial(1, 60, 1_000, 5)], vec![bad], [4, 4]);
    let point = &results.points[1];
    assert_eq!(point.outcomes["timed_out"], 20);
    assert_eq!(point.failures["timeout"], 20);
    assert_eq!(point.trust.level, TrustLevel::Invalid);
    assert_eq!(point.trust.reasons[0].code, "timeouts");
    assert_eq!(comparison(&results, "output_tps").verdict, ComparisonVerdict::NotTrusted);
    assert_eq!(results.verdicts[0].best, None);
}

#[test]
fn doubts_name_what_was_seen_and_what_to_do() {
    let mut few = trial(1, 4, 1_000, 5);
    few.records[0].token_source = Some(TokenSource::Chunks);
    few.records[1].unparsed_events = 3;
    few.records[2].forced_length = true;
    few.records[2].asked_output_tokens = 99;
    let results = weigh(vec![few], vec![trial(1, 60, 1_000, 5)], [4, 4]);
    let codes: Vec<_> = results.points[0].trust.reasons.iter().map(|r| r.code.as_str()).collect();
    for code in ["few_requests", "few_samples", "no_usage", "unparsed_events", "osl_mismatch"] {
        assert!(codes.contains(&code), "{code} is not among {codes:?}");
    }
    assert!(results.points[0].trust.reasons.iter().all(|r| !r.next_step.is_empty()));
    assert_eq!(results.points[1].trust.level, TrustLevel::Sound, "{:?}", results.points[1].trust);
}

fn codes_of(trial: TrialRecords, mode: Mode) -> Vec<String> {
    codes_under(trial, mode, |_| {})
}

fn codes_under(
    trial: TrialRecords,
    mode: Mode,
    change: impl FnOnce(&mut PhasePlan),
) -> Vec<String> {
    let plan = plan(vec![deployment("a", 4)]);
    let mut pa = point_plan("a", 2, 1);
    pa.mode = mode;
    change(&mut pa.measure);
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial] }];
    let results = analyse(&plan, &points, &Frame::default());
    results.points[0].trust.reasons.iter().map(|r| r.code.clone()).collect()
}

#[test]
fn an_answer_that_came_whole_and_a_request_sent_twice_are_told() {
    let mut odd = trial(1, 60, 1_000, 5);
    odd.records[7].first_token_at = None;
    odd.records[9].resent = true;
    let codes = codes_of(odd, Mode::Closed);
    assert!(codes.contains(&"not_streamed".to_owned()) && codes.contains(&"resent".to_owned()));
    assert_eq!(codes_of(trial(1, 60, 1_000, 5), Mode::Closed), [""; 0]);
}

#[test]
fn gaps_that_a_late_client_swallowed_are_told_and_those_of_the_server_are_not() {
    // Every second arrival came in one read with the one before it.
    let merged = |lag_ns: u32| {
        let mut t = trial(1, 60, 10_000, 1);
        for r in &mut t.records {
            let pairs = r.arrivals.chunks(2).map(|p| Arrival { chunks: 2, lag_ns, ..p[1] });
            r.arrivals = pairs.collect();
        }
        codes_of(t, Mode::Closed)
    };
    assert!(merged(15_000_000).contains(&"merged_reads".to_owned()));
    assert!(!merged(100_000).contains(&"merged_reads".to_owned()));
}

#[test]
fn an_open_loop_whose_queue_grows_to_its_end_is_told() {
    // Sixty requests due within 60 ms, served two at a time in some 10 ms each: 300 ms.
    let mut flooded = trial(1, 60, 1_000, 5);
    for r in &mut flooded.records {
        r.scheduled_at = Nanos::from_millis(r.index);
    }
    let codes = codes_of(flooded, Mode::Open);
    assert!(codes.contains(&"rate_not_sustained".to_owned()), "{codes:?}");
    // The same requests, due as fast as they are served.
    let codes = codes_of(trial(1, 60, 1_000, 5), Mode::Open);
    assert!(!codes.contains(&"rate_not_sustained".to_owned()), "{codes:?}");
}

#[test]
fn requests_given_up_as_planned_are_told_and_cost_no_trust() {
    let mut given_up = trial(1, 60, 1_000, 5);
    for r in given_up.records.iter_mut().step_by(4) {
        r.outcome = Outcome::Abandoned;
    }
    assert_eq!(codes_of(given_up.clone(), Mode::Closed), ["abandoned"]);
    let results = weigh(vec![given_up], vec![trial(1, 60, 1_000, 5)], [4, 4]);
    let point = &results.points[0];
    assert_eq!((point.trust.level, point.expected()), (TrustLevel::Sound, 45));
    assert_eq!((point.outcomes["abandoned"], point.failures.len()), (15, 0));
}

#[test]
fn what_the_load_itself_keeps_out_of_flight_is_not_held_against_it() {
    let not_reached = "concurrency_not_reached".to_owned();
    // Two slots were asked for, and the second comes in only after nine tenths of the time.
    let mut slow_start = trial(1, 60, 1_000, 5);
    slow_start.records.retain(|r| r.index % 2 == 0 || r.index > 54);
    let without = codes_of(slow_start.clone(), Mode::Closed);
    assert!(without.contains(&not_reached), "{without:?}");
    let closed = |ramp_up, think| LoadShape::Closed { concurrency: 2, ramp_up, think };
    let span = Nanos::from_millis(900);
    for shape in [closed(Some(span), None), closed(None, Some(Think::Fixed { span }))] {
        let codes = codes_under(slow_start.clone(), Mode::Closed, |p| p.shape = shape);
        assert!(!codes.contains(&not_reached), "{codes:?}");
    }
    let sessions = |think| SessionPlan { think, sticky: true, turns: Turns::Fixed(3) };
    for (think, is_told) in [(None, true), (Some(Think::Fixed { span }), false)] {
        let sessions = Some(sessions(think));
        let codes = codes_under(slow_start.clone(), Mode::Closed, |p| p.sessions = sessions);
        assert_eq!(codes.contains(&not_reached), is_told, "{codes:?}");
    }
    // Lateness is by intent where the file puts a limit on what is in flight.
    let mut late = trial(1, 60, 1_000, 5);
    for r in &mut late.records {
        r.scheduled_at = Nanos::ZERO;
    }
    let is_late = |change: fn(&mut PhasePlan)| {
        codes_under(late.clone(), Mode::Open, change).contains(&"late".to_owned())
    };
    let open = |max_in_flight| LoadShape::Open {
        arrival: crate::arrival::ArrivalKind::Poisson,
        rate_rps: 100.0.into(),
        seed: 1,
        max_in_flight,
    };
    assert!(is_late(|p| p.shape = LoadShape::Burst));
    assert!(!is_late(|p| p.max_prefill = Some(1)));
    for (cap, want) in [(None, true), (Some(2), false)] {
        let codes = codes_under(late.clone(), Mode::Open, |p| p.shape = open(cap));
        assert_eq!(codes.contains(&"late".to_owned()), want, "{cap:?}");
    }
}

#[test]
fn a_trial_that_cannot_be_read_is_damaged_and_nothing_else() {
    let lost = TrialRecords {
        number: 1,
        records: Vec::new(),
        partial: false,
        damaged: Some("its SHA-256 differs".to_owned()),
        facts: TrialFacts::default(),
    };
    assert_eq!(codes_of(lost, Mode::Closed), ["damaged"]);
}

#[test]
fn repeats_of_an_open_load_differ_in_their_arrivals() {
    let mut point = point_plan("a", 2, 3);
    point.measure.shape = LoadShape::Open {
        arrival: crate::arrival::ArrivalKind::Poisson,
        rate_rps: 5.0.into(),
        seed: 7,
        max_in_flight: None,
    };
    let seeds: BTreeSet<u64> = point
        .trials
        .iter()
        .filter_map(|trial| match point.measure_of(trial).shape {
            LoadShape::Open { seed, .. } => Some(seed),
            _ => None,
        })
        .collect();
    assert_eq!(seeds.len(), 3);
    assert_eq!(point.measure_of(&point.trials[0]), point.measure, "the first is as planned");
    let closed = point_plan("a", 2, 2);
    assert_eq!(closed.measure_of(&closed.trials[1]), closed.measure);
}

/// One instance of `tp` ranks that is nowhere yet.
fn instance(tp: u32) -> crate::plan::InstancePlan {
    crate::plan::InstancePlan {
        index: 0,
        role: crate::plan::Role::Aggregated,
        tp,
        pp: 1,
        dp: 1,
        dp_balance: None,
        ep: None,
        place: vec![],
        port: 8000,
    }
}

/// A search over the levels 1, 2 and 4, whose trials take `tpot` microseconds a token.
fn searched(levels: &[(u32, Vec<TrialRecords>)]) -> Results {
    let slo = crate::slo::Slo::parse(&["tpot.p50 <= 1500us".to_owned()]).unwrap();
    let level = |c| PointPlan { slo: Some(slo.clone()), ..point_plan("a", c, 2) };
    let plan = Plan {
        searches: vec![crate::search::SearchPlan {
            deployment: "a".into(),
            load: "load".into(),
            slo: slo.clone(),
            precision: 1.0,
            tries: 2,
            probes: 9,
            time: None,
            levels: [1, 2, 4].map(level).into(),
        }],
        ..machines::plan_of(&["a"])
    };
    let point = |(c, trials): &(u32, Vec<TrialRecords>)| {
        let id = format!("a/load/c{c}");
        let plan = plan.every_point().find(|p| p.id == id).unwrap();
        MeasuredPoint { plan, trials: trials.clone() }
    };
    let points: Vec<MeasuredPoint<'_>> = levels.iter().map(point).collect();
    let expects: Vec<crate::spec::ExpectSpec> = ["slo_capacity", "success_rate"]
        .map(|metric| crate::spec::ExpectSpec {
            metric: metric.into(),
            op: ">=".into(),
            value: 1.0,
            place: None,
            severity: None,
        })
        .into();
    analyse(&plan, &points, &Frame { expects: &expects, ..Frame::default() })
}

#[test]
fn the_answer_of_a_search_follows_from_its_records() {
    let at = |tpot_us| vec![trial(1, 60, tpot_us, 1)];
    let text = |results: &Results| results.searches[0].text.clone();
    let found = searched(&[(1, at(1_000)), (2, at(1_100)), (4, at(2_000))]);
    assert_eq!(
        text(&found),
        "highest concurrency that meets the SLO (tpot.p50 <= 1.50 ms): 2 requests in flight; 4 does not (3 trials, sure at 95 % at each end)"
    );
    let interval = found.searches[0].interval.unwrap();
    assert_eq!((interval.low, interval.high), (Some(2.0), Some(4.0)));
    assert!(found.points.iter().all(|p| p.is_probe));
    // Probes are no points that were asked for; the answer of the search is.
    let expects: Vec<(&str, Option<f64>)> =
        found.expects.iter().map(|e| (e.point.as_str(), e.value)).collect();
    assert_eq!(expects, [("a/load", Some(2.0))]);
    let all = searched(&[(1, at(1_000)), (2, at(1_100)), (4, at(1_200))]);
    assert!(
        text(&all).contains("not reached; 4 requests in flight, the highest that was searched")
    );
    let none = searched(&[(1, at(2_000))]);
    assert!(text(&none).contains("none; 1 requests in flight, the lowest that was searched"));
    assert_eq!((none.expects[0].value, none.expects[0].holds), (None, false));
}

/// However many requests say so, they are of one moment of it.
#[test]
fn nothing_is_sure_of_one_trial_of_a_machine_that_others_use() {
    let at = |tpot_us| {
        let mut trial = trial(1, 60, tpot_us, 1);
        trial.facts.telemetry = Some(machines::crowded());
        vec![trial]
    };
    let results = searched(&[(1, at(1_000)), (2, at(1_100)), (4, at(2_000))]);
    let search = &results.searches[0];
    let sides = [&search.met, &search.missed].map(|s| s.as_ref().map(|s| (s.value, s.sure)));
    assert_eq!(sides, [Some((2.0, false)), Some((4.0, false))]);
    assert_eq!(search.interval, None);
    assert!(search.text.contains("no level is sure at 95 %"), "{}", search.text);
}

/// Half of the requests within the limit: too few to tell whether the median is.
#[test]
fn an_answer_that_chance_may_explain_has_an_interval_up_to_the_nearest_sure_levels() {
    let at = |tpot_us| vec![trial(1, 60, tpot_us, 1)];
    let on_the_edge = |number| {
        let mut t = trial(number, 60, 1_000, 1);
        let slow = trial(number, 60, 2_000, 1);
        t.records.iter_mut().zip(slow.records).skip(29).for_each(|(r, s)| *r = s);
        t
    };
    let edge = || vec![on_the_edge(1), on_the_edge(2)];
    let results = searched(&[(1, at(1_000)), (2, edge()), (4, at(2_000))]);
    let search = &results.searches[0];
    let (interval, side) = (search.interval.unwrap(), search.missed.as_ref().unwrap());
    assert_eq!((side.value, side.sure), (2.0, false), "{search:?}");
    assert_eq!((interval.low, interval.high), (Some(1.0), None), "4 was not tried: {search:?}");
    assert!(
        search
            .text
            .ends_with("at 2 requests in flight; at 95 % it is at least 1 requests in flight)"),
        "{}",
        search.text
    );
}

#[test]
fn a_search_takes_nothing_from_a_trial_that_is_not_whole() {
    let whole = |number| trial(number, 60, 1_000, 1);
    let mut cut = whole(1);
    cut.partial = true;
    // The second is whole, but is only looked at once the first has been measured again.
    let results = searched(&[(1, vec![cut, whole(2)])]);
    let search = &results.searches[0];
    assert_eq!((search.probes, search.end, &search.met), (0, None, &None));
    assert!(search.text.contains("not finished; no level was judged; continue with"));
    let mut ended = trial(1, 60, 1_000, 1);
    ended.facts.oversaturated_at = Some(Nanos::from_secs(1));
    let results = searched(&[(1, vec![whole(1)]), (2, vec![ended])]);
    let search = &results.searches[0];
    assert_eq!(search.missed.as_ref().map(|side| (side.value, side.sure)), Some((2.0, true)));
    assert_eq!(search.end, Some(crate::search::End::Found));
}

#[test]
fn a_trial_that_was_ended_for_its_queue_is_invalid() {
    let mut ended = trial(1, 60, 1_000, 5);
    ended.facts.oversaturated_at = Some(Nanos::from_secs(3));
    let codes = codes_of(ended, Mode::Open);
    assert!(codes.contains(&"oversaturated".to_owned()), "{codes:?}");
}

/// Of trials that ran to their end the numbers are whole, whatever became of another.
#[test]
fn a_trial_that_was_cut_short_takes_nothing_from_the_others() {
    let plan = plan(vec![deployment("a", 4)]);
    let pa = point_plan("a", 2, 3);
    let mut cut = trial(2, 7, 1_000, 5);
    cut.partial = true;
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial(1, 60, 1_000, 5), cut.clone()] }];
    let ended = [(pa.id.clone(), 3)].into();
    let results = analyse(&plan, &points, &Frame { ended, ..Frame::default() });
    let point = &results.points[0];
    assert_eq!((point.trials.len(), point.outcomes["completed"]), (1, 60));
    let partial = point.trust.reasons.iter().find(|r| r.code == "partial").unwrap();
    assert_eq!(partial.level, TrustLevel::Caution);
    let want = "1 of 3 trials are in these numbers; trial 2 was cut short; of trial 3 there is no whole record: by the journal trial 3 was measured to the end, and the record is gone";
    assert_eq!(partial.message, want);
    // What cut it short was the deployment's own: then it is a part of what was measured.
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial(1, 60, 1_000, 5), cut.clone()] }];
    let skipped = vec![Skipped { deployment: "a".to_owned(), reason: "it died".to_owned() }];
    let results = analyse(&plan, &points, &Frame { skipped, ..Frame::default() });
    let point = &results.points[0];
    assert_eq!((point.trials.len(), point.trust.level), (2, TrustLevel::Invalid));
    let points = [MeasuredPoint { plan: &pa, trials: vec![cut] }];
    let results = analyse(&plan, &points, &Frame::default());
    let trust = &results.points[0].trust;
    assert_eq!(trust.level, TrustLevel::Invalid, "of a part alone there is no result: {trust:?}");
}

#[test]
fn prices_that_are_given_say_who_gives_more_for_the_money() {
    let (pa, pb) = (point_plan("a", 2, 1), point_plan("b", 2, 1));
    let told = |prices: [Option<f64>; 2]| {
        let mut both = vec![deployment("a", 4), deployment("b", 4)];
        both.iter_mut().zip(prices).for_each(|(d, price)| d.price_per_hour = price);
        let trials = [trial(1, 60, 1_000, 5), trial(1, 60, 2_000, 5)].map(|t| vec![t]);
        let [a, b] = trials;
        let points =
            [MeasuredPoint { plan: &pa, trials: a }, MeasuredPoint { plan: &pb, trials: b }];
        let verdict = analyse(&plan(both), &points, &Frame::default()).verdicts[0].clone();
        verdict.more.into_iter().find(|t| t.starts_with("b would be the answer")).unwrap()
    };
    let said = told([None, Some(1.0)]);
    assert!(said.contains("or if its GPUs cost less than 51.0 % of what"), "{said}");
    let said = told([Some(10.0), Some(4.0)]);
    assert!(
        said.ends_with("its GPUs cost 40.0 % of what those of a cost: b gives more for the money"),
        "{said}"
    );
    let said = told([Some(10.0), Some(8.0)]);
    assert!(said.ends_with("cost 80.0 % of what those of a cost: a gives more for the money too; below 51.0 % b would"), "{said}");
    let said = told([Some(100.0), Some(51.0)]);
    assert!(said.ends_with("which of them gives more for the money cannot be told"), "{said}");
    let said = told([Some(0.0), Some(4.0)]);
    assert!(said.ends_with("at the prices that are given a costs nothing"), "{said}");
    let said = told([Some(10.0), Some(0.0)]);
    assert!(said.ends_with("b gives more for the money"), "{said}");
}

#[test]
fn classes_of_a_mix_are_told_apart() {
    let mut mixed = trial(1, 40, 1_000, 5);
    for (i, r) in mixed.records.iter_mut().enumerate() {
        r.class = if i % 4 == 0 { "long" } else { "short" }.into();
    }
    let results = weigh(vec![mixed], vec![trial(1, 60, 1_000, 5)], [4, 4]);
    let classes = &results.points[0].classes;
    assert_eq!(lookup(&classes["long"], "ttft.count"), Some(10.0));
    assert_eq!(lookup(&classes["short"], "ttft.count"), Some(30.0));
    assert!(results.points[1].parts().next().is_none(), "one class is no part");
}

#[test]
fn entries_are_told_apart_by_their_url() {
    let mut spread = trial(1, 40, 1_000, 5);
    for r in &mut spread.records {
        r.target = u16::from(r.index % 4 == 0);
    }
    // Eight of the ten requests of the second entry are lost.
    for r in spread.records.iter_mut().filter(|r| r.target == 1).take(8) {
        r.outcome = Outcome::Failed;
    }
    let mut plan = plan(vec![deployment("a", 4)]);
    let entry = |url: &str| EntryPlan { url: url.into(), instance: None };
    plan.deployments[0].entries = vec![entry("http://one"), entry("http://two")];
    let pa = point_plan("a", 2, 1);
    let points = [MeasuredPoint { plan: &pa, trials: vec![spread] }];
    let results = analyse(&plan, &points, &Frame::default());
    let parts: Vec<_> = results.points[0].parts().collect();
    let told: Vec<_> = parts.iter().map(|(by, name, _)| (*by, name.as_str())).collect();
    assert_eq!(told, [("entry", "http://one"), ("entry", "http://two")]);
    let of = |i: usize, metric: &str| lookup(parts[i].2, metric);
    assert_eq!((of(0, "requests"), of(1, "requests")), (Some(30.0), Some(10.0)));
    assert_eq!((of(0, "success_rate"), of(1, "success_rate")), (Some(1.0), Some(0.2)));
    assert_eq!(of(1, "ttft.count"), Some(2.0));
    assert_eq!(of(0, "output_tps"), None, "the parts share one wall time");
}

#[test]
fn an_expectation_without_a_value_does_not_hold() {
    let expect = |metric: &str, value: f64| crate::spec::ExpectSpec {
        metric: metric.into(),
        op: "==".into(),
        value,
        place: None,
        severity: None,
    };
    let plan = plan(vec![deployment("a", 4)]);
    let pa = point_plan("a", 2, 1);
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial(1, 60, 1_000, 5)] }];
    let expects = [expect("success_rate", 1.0), expect("gpu_mem.imbalance", 0.0)];
    let frame = Frame { expects: &expects, ..Frame::default() };
    let results = analyse(&plan, &points, &frame);
    assert!(results.expects[0].holds);
    assert!(!results.expects[1].holds && results.expects[1].value.is_none());
}

/// A typing error in a pipeline's bound must not pass for a bound that holds; what a run leaves out on purpose is not
/// asked of it.
#[test]
fn an_expectation_that_nothing_is_meant_by_fails_and_one_of_another_run_is_not_asked() {
    let expect = |metric: &str, deploy: Option<&str>, load: Option<&str>| crate::spec::ExpectSpec {
        metric: metric.into(),
        op: ">=".into(),
        value: 0.0,
        place: Some(crate::spec::ExpectWhere {
            deploy: deploy.map(str::to_owned),
            load: load.map(str::to_owned),
        }),
        severity: None,
    };
    let mut plan = plan(vec![deployment("a", 4), deployment("b", 8)]);
    let (pa, mut pb) = (point_plan("a", 2, 1), point_plan("b", 2, 1));
    (pb.load, pb.id) = ("other".into(), "b/other/c2".into());
    plan.points = vec![pa.clone(), pb.clone()];
    let points = [
        MeasuredPoint { plan: &pa, trials: vec![trial(1, 60, 1_000, 5)] },
        MeasuredPoint { plan: &pb, trials: vec![trial(1, 60, 1_000, 5)] },
    ];
    let expects = [
        expect("success_rate", Some("a"), Some("other")),
        expect("efficiency.output_tps", Some("b"), None),
        expect("success_rate", Some("c"), None),
        expect("success_rate", Some("a"), Some("load")),
    ];
    let frame = Frame { expects: &expects, ..Frame::default() };
    let found = analyse(&plan, &points, &frame).expects;
    let told: Vec<(&str, bool)> = found.iter().map(|e| (e.point.as_str(), e.holds)).collect();
    assert_eq!(told, [("a/other", false), ("b", false), ("a/load/c2", true)]);
    assert!(found.iter().take(2).all(|e| e.absent.is_some()));
    // A deployment that could not be measured here says so itself.
    let skipped = vec![Skipped { deployment: "b".into(), reason: "not installed".into() }];
    let frame = Frame { expects: &expects[1..2], skipped, ..Frame::default() };
    let found = analyse(&plan, &points[..1], &frame).expects;
    let told: Vec<_> =
        found.iter().map(|e| (e.holds, e.not_checked, e.absent.as_deref())).collect();
    assert_eq!(told, [(false, true, Some("b was skipped because not installed"))]);
    assert!(!found[0].has_failed());
}

/// What is said of cached prompt tokens where 60 requests of 100 prompt tokens had `cached` each.
fn cache_doubt(source: Source, cache: CachePolicy, cached: impl Fn(u64) -> u32) -> Option<String> {
    let plan = plan(vec![deployment("a", 4)]);
    let mut pa = point_plan("a", 2, 1);
    pa.workload.source = source;
    pa.workload.cache = cache;
    let mut trial = trial(1, 60, 1_000, 5);
    for r in &mut trial.records {
        r.prompt_tokens = Some(100);
        r.asked_input_tokens = Some(90);
        r.cached_prompt_tokens = Some(cached(r.index)).filter(|n| *n > 0);
        r.class = "p".into();
    }
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial] }];
    let results = analyse(&plan, &points, &Frame::default());
    let reason = results.points[0].trust.reasons.iter().find(|r| r.code == "cache_hits")?;
    Some(format!("{} / {}", reason.message, reason.next_step))
}

fn synthetic(prefix: u32, entries: Option<u32>) -> Source {
    let lengths = crate::workload::Lengths { prefix, ..crate::workload::Lengths::fixed(40, 8) };
    Source::Synthetic { lengths, entries }
}

#[test]
fn cached_tokens_beyond_what_the_workload_shares_are_told() {
    let (keep, salt) = (CachePolicy::Keep, CachePolicy::Salt);
    // A template of 10 and a prefix of 50 are shared by all.
    assert_eq!(cache_doubt(synthetic(50, None), keep, |_| 60), None);
    assert_eq!(cache_doubt(synthetic(50, None), keep, |_| 0), None);
    let said = cache_doubt(synthetic(50, None), keep, |_| 96).unwrap();
    assert!(
        said.starts_with("96.0 % of the prompt tokens came from the server's prefix cache, 36.0 %"),
        "{said}"
    );
    assert!(said.contains("cache = \"salt\""), "{said}");
    let said = cache_doubt(synthetic(0, None), salt, |_| 96).unwrap();
    assert!(said.contains("prompts were salted"), "{said}");
    // Ten entries: from the eleventh request on all has been asked for before.
    assert_eq!(cache_doubt(synthetic(0, Some(10)), keep, |i| if i < 10 { 10 } else { 100 }), None);
    assert!(cache_doubt(synthetic(0, Some(10)), keep, |_| 100).is_some());
}

#[test]
fn repeats_of_a_given_prompt_are_its_own_and_its_first_is_not() {
    let text =
        |id: &str| crate::workload::PromptText { id: id.into(), max_tokens: 8, text: "t".into() };
    let prompts =
        || Source::Prompts { pick: Default::default(), prompts: vec![text("p"), text("q")] };
    assert_eq!(cache_doubt(prompts(), CachePolicy::Keep, |i| if i == 0 { 0 } else { 99 }), None);
    // Of files nothing is known in advance, so nothing is claimed.
    let file = Source::File {
        file: "f".into(),
        format: Default::default(),
        pick: Default::default(),
        max_tokens: Some(8),
    };
    assert_eq!(cache_doubt(file, CachePolicy::Keep, |_| 99), None);
}

/// Five sessions of three turns, whose prompts grow from 50 over 110 to 170 tokens and whose answers have
/// 10; `cached` tokens of each came from the cache.
fn sessions(history: History, cached: impl Fn(u32) -> u32) -> PointResult {
    let plan = plan(vec![deployment("a", 4)]);
    let mut pa = point_plan("a", 2, 1);
    let spread = |mean| Spread { mean, dist: None };
    let lengths = crate::workload::Lengths::fixed(50, 10);
    let talk = Talk::Synthetic { lengths, turns: spread(3), turn_isl: spread(50) };
    pa.workload.source = Source::Sessions { history, talk };
    let mut trial = trial(1, 15, 1_000, 5);
    for r in &mut trial.records {
        let turn = u32::try_from(r.index % 3).unwrap();
        (r.session, r.turn) = (Some(r.index / 3), Some(turn));
        let tokens = 50 + 60 * turn;
        (r.prompt_tokens, r.asked_input_tokens) = (Some(tokens), Some(tokens));
        r.cached_prompt_tokens = Some(cached(turn)).filter(|n| *n > 0);
    }
    let points = [MeasuredPoint { plan: &pa, trials: vec![trial] }];
    analyse(&plan, &points, &Frame::default()).points.remove(0)
}

#[test]
fn later_turns_may_find_what_was_said_before_in_the_cache_and_no_more() {
    let doubt = |history, cached: fn(u32) -> u32| {
        let point = sessions(history, cached);
        point.trust.reasons.iter().any(|r| r.code == "cache_hits")
    };
    // The prompt before and its answer: 60 and 120 tokens.
    let history: fn(u32) -> u32 = |turn| 60 * turn;
    assert!(!doubt(History::Real, history));
    // Of a planned answer the server has seen nothing: 10 of 110 and 10 of 170 tokens are too many.
    assert!(doubt(History::Planned, history));
    assert!(!doubt(History::Planned, |turn| (60 * turn).saturating_sub(10)));
    assert!(doubt(History::Real, |turn| 60 * turn + 40));
    assert!(doubt(History::Real, |turn| if turn == 0 { 45 } else { 0 }), "a first turn is new");
}

#[test]
fn metrics_are_told_by_turn() {
    let point = sessions(History::Real, |turn| 60 * turn);
    assert_eq!(point.turns.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let value = |turn, name| crate::results::lookup(&point.turns[&turn], name);
    for (turn, tokens) in [(0, 50.0), (1, 110.0), (2, 170.0)] {
        assert_eq!(value(turn, "prompt_tokens.p50"), Some(tokens));
        assert_eq!(value(turn, "prompt_tokens.count"), Some(5.0));
        // Of first turns the server says nothing.
        let hit = (turn > 0).then(|| f64::from(60 * turn) / tokens);
        assert_eq!(value(turn, "prefix_hit_ratio"), hit);
        assert_eq!(value(turn, "rps"), None, "turns share one wall time");
    }
    let plan = plan(vec![deployment("a", 4)]);
    let pa = point_plan("a", 2, 1);
    let alone = [MeasuredPoint { plan: &pa, trials: vec![trial(1, 9, 1_000, 5)] }];
    assert!(analyse(&plan, &alone, &Frame::default()).points[0].turns.is_empty());
}

#[test]
fn a_cache_that_was_not_emptied_is_told() {
    let codes = |why: Option<&str>| {
        let cache_not_reset = why.map(str::to_owned);
        let facts = TrialFacts { cache_not_reset, ..TrialFacts::default() };
        codes_of(TrialRecords { facts, ..trial(1, 60, 1_000, 5) }, Mode::Closed)
    };
    assert_eq!(codes(None), [""; 0]);
    assert_eq!(codes(Some("404 at http://there")), ["cache_not_reset"]);
}
