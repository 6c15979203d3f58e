use super::share::{Answered, jain, overtaken};
use super::*;
use crate::analysis::tests::{deployment, plan, point_plan};
use crate::analysis::{Frame, MeasuredPoint, TrialFacts, TrialRecords, analyse};
use crate::plan::PointPlan;
use crate::request::{Outcome, Phase, RequestRecord, TokenSource};
use crate::results::Results;
use crate::spec::ExpectSpec;
use crate::units::Nanos;
use crate::workload::Source;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A request due at `due_ms`, with its first token `ttft_ms` later and its end at twice that.
fn request(index: u64, class: &str, due_ms: f64, ttft_ms: f64) -> RequestRecord {
    let at = |ms: f64| Nanos::from_secs_f64(ms / 1e3);
    let mut r = RequestRecord::new(index, Phase::Measure, 0, at(due_ms));
    r.class = class.to_owned();
    r.sent_at = Some(at(due_ms));
    r.first_token_at = Some(at(due_ms + ttft_ms));
    r.last_token_at = Some(at(due_ms + 2.0 * ttft_ms));
    r.finished_at = at(due_ms + 2.0 * ttft_ms);
    r.output_tokens = Some(10);
    r.token_source = Some(TokenSource::Usage);
    r.outcome = Outcome::Completed;
    r
}

fn trial(number: u32, records: Vec<RequestRecord>) -> TrialRecords {
    TrialRecords { number, records, partial: false, damaged: None, facts: TrialFacts::default() }
}

fn load(name: &str, trials: u32) -> PointPlan {
    PointPlan { load: name.to_owned(), ..point_plan("a", 4, trials) }
}

fn report(text: &str) -> ReportSpec {
    toml::from_str(&format!("kind = \"fairness\"\n{text}")).unwrap()
}

const SHORT: &str = "alone = \"alone\"\nmixed = \"mixed\"\nby = \"short\"";

/// Two longs and two shorts at once, over and over, against two shorts alone.
fn weighed(
    alone: Vec<TrialRecords>,
    mixed: Vec<TrialRecords>,
    reports: &[ReportSpec],
    expects: &[ExpectSpec],
) -> Results {
    let plan = plan(vec![deployment("a", 4)]);
    let (pa, mut pm) = (load("alone", 20), load("mixed", 20));
    pm.workload.source = Source::Mix { parts: Vec::new() };
    let points =
        [MeasuredPoint { plan: &pa, trials: alone }, MeasuredPoint { plan: &pm, trials: mixed }];
    analyse(&plan, &points, &Frame { reports, expects, ..Frame::default() })
}

/// `trials` of both, where a short takes `slowdown` times as long beside longs; each trial has a speed of its own.
fn planted(trials: u32, slowdown: f64, seed: u64) -> (Vec<TrialRecords>, Vec<TrialRecords>) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (of_run, of_request) = (Normal::new(0.0, 0.05).unwrap(), Normal::new(0.0, 0.1).unwrap());
    let mut run = |number: u32, base_ms: f64, is_mixed: bool| {
        let speed: f64 = of_run.sample(&mut rng);
        let mut short = |i| {
            let wobble: f64 = of_request.sample(&mut rng);
            request(i, "short", 0.0, base_ms * (speed + wobble).exp())
        };
        let mut records = vec![short(0), short(1)];
        if is_mixed {
            records.extend([request(2, "long", 0.0, 400.0), request(3, "long", 0.0, 420.0)]);
        }
        trial(number, records)
    };
    let alone = (1..=trials).map(|n| run(n, 50.0, false)).collect();
    let mixed = (1..=trials).map(|n| run(n, 50.0 * slowdown, true)).collect();
    (alone, mixed)
}

#[test]
fn a_planted_slowdown_is_in_its_interval_as_often_as_it_says() {
    let (mut held, rounds) = (0, 100);
    for seed in 0..rounds {
        let (alone, mixed) = planted(20, 3.0, seed);
        let results = weighed(alone, mixed, &[report(SHORT)], &[]);
        let class = results.fairness[0].classes.iter().find(|c| c.class == "short").unwrap();
        let of = class.slowdowns.iter().find(|s| s.metric == "ttft.p50").unwrap();
        let ratio = of.ratio.as_ref().unwrap();
        assert_eq!(ratio.method, "bootstrap over 20 and 20 whole trials");
        held += u64::from(ratio.low <= 3.0 && 3.0 <= ratio.high);
    }
    assert!((88..=100).contains(&held), "{held} of {rounds}");
}

#[test]
fn only_the_class_that_counts_is_held_against_itself() {
    let (alone, mixed) = planted(3, 2.0, 1);
    let results = weighed(alone, mixed, &[report(SHORT)], &[]);
    let [fairness] = results.fairness.as_slice() else { panic!("{:?}", results.fairness) };
    assert_eq!((fairness.load.as_str(), fairness.alone_level.as_deref()), ("mixed", Some("c4")));
    let told: Vec<(&str, u64, usize)> = fairness
        .classes
        .iter()
        .map(|c| (c.class.as_str(), c.requests, c.slowdowns.len()))
        .collect();
    assert_eq!(told, [("long", 6, 0), ("short", 6, 4)]);
    let ratio = fairness.classes[1].slowdowns[0].ratio.as_ref().unwrap();
    assert!(ratio.method.contains("over requests, widened by 5 %"), "{}", ratio.method);
    assert!(ratio.low < 2.0 && 2.0 < ratio.high, "{ratio:?}");
}

#[test]
fn what_has_no_yardstick_says_so_and_fails_its_expectation() {
    let (_, mixed) = planted(3, 2.0, 1);
    let expect = |metric: &str| ExpectSpec {
        metric: metric.to_owned(),
        op: "<=".to_owned(),
        value: 3.0,
        place: None,
        severity: None,
    };
    let expects = ["slowdown.ttft.p95", "slowdown.ttft_ms.p99", "slowdown.rps", "jain"].map(expect);
    let results = weighed(Vec::new(), mixed, &[report(SHORT)], &expects);
    let told: Vec<(bool, Option<&str>)> =
        results.expects.iter().map(|e| (e.holds, e.absent.as_deref())).collect();
    let missing = Some("load 'alone' was not measured here");
    assert_eq!(told, [(false, missing), (false, missing), (false, missing), (true, None)]);
    assert_eq!(results.expects[0].point, "a/mixed/c4");

    let (alone, mixed) = planted(3, 2.0, 1);
    let results = weighed(alone, mixed, &[report(SHORT)], &expects);
    let value = |i: usize| results.expects[i].value;
    assert!(value(0).is_some_and(|v| (1.5..2.6).contains(&v)) && value(1).is_some());
    let why = results.expects[2].absent.as_deref().unwrap();
    assert_eq!(why, "rps is of a whole load, not of the requests of a class");
}

#[test]
fn a_mix_that_no_report_names_has_no_slowdown_and_is_not_asked_for_one() {
    let (alone, mixed) = planted(3, 2.0, 1);
    let expect = ExpectSpec {
        metric: "slowdown.ttft.p95".to_owned(),
        op: "<=".to_owned(),
        value: 3.0,
        place: None,
        severity: None,
    };
    let results = weighed(alone, mixed, &[], &[expect]);
    assert_eq!(results.fairness.len(), 1);
    assert!(results.fairness[0].classes.iter().all(|c| c.slowdowns.is_empty()));
    assert_eq!(results.expects, []);
}

#[test]
fn without_a_class_that_counts_the_worst_of_all_counts() {
    let (mut alone, mixed) = planted(3, 2.0, 1);
    for t in &mut alone {
        t.records.extend([request(2, "long", 0.0, 40.0), request(3, "long", 0.0, 42.0)]);
    }
    let both = report("alone = \"alone\"\nmixed = \"mixed\"");
    let results = weighed(alone, mixed, &[both], &[]);
    let fairness = results.fairness.iter().find(|f| f.load == "mixed").unwrap();
    assert!((fairness.slowdown("ttft.p50").unwrap() - 10.0).abs() < 0.2);
    assert!(fairness.slowdown("tpot.p50").is_err());
}

#[test]
fn a_request_is_overtaken_by_another_class_that_was_due_no_earlier() {
    let at = |class, due, first_token| Answered {
        class,
        due: Nanos::from_millis(due),
        first_token: Nanos::from_millis(first_token),
    };
    let told = |all: Vec<Answered<'_>>| {
        let mut told: Vec<(String, bool)> =
            overtaken(all).into_iter().map(|(class, is)| (class.to_owned(), is)).collect();
        told.sort();
        told
    };
    let as_told = |list: [(&str, bool); 2]| list.map(|(c, is)| (c.to_owned(), is)).to_vec();
    // At once: who came first overtook the other.
    let at_once = told(vec![at("long", 0, 80), at("short", 0, 90)]);
    assert_eq!(at_once, as_told([("long", false), ("short", true)]));
    // The long came before: the short only stood behind it.
    let behind = told(vec![at("long", 0, 80), at("short", 10, 90)]);
    assert_eq!(behind, as_told([("long", false), ("short", false)]));
    // The short jumped ahead.
    let ahead = told(vec![at("long", 0, 80), at("short", 10, 20)]);
    assert_eq!(ahead, as_told([("long", true), ("short", false)]));
    let own = told(vec![at("short", 0, 80), at("short", 0, 90)]);
    assert_eq!(own, as_told([("short", false), ("short", false)]));
}

proptest! {
    #[test]
    fn who_is_overtaken_is_what_every_pair_says(
        asked in prop::collection::vec((0_usize..3, 0_u64..5, 0_u64..5), 0..30),
    ) {
        let classes = ["long", "middle", "short"];
        let all: Vec<Answered<'_>> = asked
            .iter()
            .map(|(class, due, after)| Answered {
                class: classes[*class],
                due: Nanos(*due),
                first_token: Nanos(due + after),
            })
            .collect();
        let is_overtaken = |a: &Answered<'_>| {
            let by = |b: &Answered<'_>| {
                b.class != a.class && b.due >= a.due && b.first_token < a.first_token
            };
            all.iter().any(by)
        };
        let mut wanted: Vec<(&str, bool)> = all.iter().map(|a| (a.class, is_overtaken(a))).collect();
        let mut told = overtaken(all.clone());
        wanted.sort_unstable();
        told.sort_unstable();
        prop_assert_eq!(told, wanted);
    }
}

#[test]
fn the_index_is_jain_s() {
    // Jain, Chiu and Hawe's own example: 20 dollars over 100 people, 10 of whom get 2 each, is fair to 10 %.
    let shares: Vec<f64> = (0..10).map(|_| 2.0).chain((0..90).map(|_| 1e-9)).collect();
    assert!((jain(&shares).unwrap().0 - 0.1).abs() < 1e-6);
    assert_eq!(jain(&[3.0; 7]), Some((1.0, 1.0)));
    assert_eq!((jain(&[1.0]), jain(&[1.0, 0.0]), jain(&[1.0, f64::NAN])), (None, None, None));
}

proptest! {
    #[test]
    fn the_index_lies_between_one_over_n_and_one_whatever_the_unit(
        values in prop::collection::vec(1e-3_f64..1e6, 2..50), unit in 1e-9_f64..1e9,
    ) {
        let (index, spread) = jain(&values).unwrap();
        let n = values.len() as f64;
        prop_assert!(1.0 / n - 1e-9 <= index && index <= 1.0 + 1e-9, "{index}");
        prop_assert!(spread >= 1.0);
        let scaled: Vec<f64> = values.iter().map(|x| x * unit).collect();
        prop_assert!((jain(&scaled).unwrap().0 - index).abs() < 1e-9);
    }
}

#[test]
fn the_same_prompts_are_held_together_in_the_ways_they_were_asked() {
    use crate::plan::Mode;
    let plan = plan(vec![deployment("a", 1)]);
    let way = |name: &str, mode: Mode, requests: u64, batch: u32| {
        let mut point = load(name, 1);
        (point.mode, point.batch) = (mode, batch);
        point.measure.requests = Some(requests);
        point
    };
    let plans = [
        way("serial", Mode::Serial, 10, 1),
        way("at-once", Mode::Burst, 10, 1),
        way("batch", Mode::Batch, 1, 10),
        way("more", Mode::Batch, 3, 10),
        way("open", Mode::Open, 10, 1),
    ];
    // One after the other takes ten times as long as at once.
    let one_by_one = || (0..10).map(|i| request(i, "w", 20.0 * i as f64, 10.0)).collect();
    let at_once = || (0..10).map(|i| request(i, "w", 0.0, 10.0)).collect();
    let trials = |i: usize| -> Vec<TrialRecords> {
        (1..=3).map(|n| trial(n, if i == 0 { one_by_one() } else { at_once() })).collect()
    };
    let points: Vec<MeasuredPoint<'_>> = plans
        .iter()
        .enumerate()
        .map(|(i, plan)| MeasuredPoint { plan, trials: trials(i) })
        .collect();
    let results = analyse(&plan, &points, &Frame::default());
    let [ways] = results.ways.as_slice() else { panic!("{:?}", results.ways) };
    assert_eq!((ways.workload.as_str(), ways.prompts), ("w", 10));
    let told: Vec<&str> = ways.ways.iter().map(|w| w.load.as_str()).collect();
    assert_eq!(told, ["serial", "at-once", "batch"]);
    assert_eq!(ways.ways[0].speedup, None);
    assert!((ways.ways[1].speedup.as_ref().unwrap().point - 10.0).abs() < 0.1);
}
