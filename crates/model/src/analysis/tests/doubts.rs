//! Each doubt once where there is cause for it, and once where there is none.

use super::*;
use crate::engine_metrics::{EngineReadings, Part, Snapshot, Watch};
use crate::floor::{Floor, FloorAt};
use crate::plan::Role;
use crate::spec::{ExpectSpec, ExpectWhere};
use crate::trust::Reason;

/// What is said of `trials` of a closed load on two slots.
fn doubts(trials: Vec<TrialRecords>) -> Vec<Reason> {
    doubts_under(trials, |_| {}, &Frame::default())
}

fn doubts_under(
    trials: Vec<TrialRecords>,
    change: impl FnOnce(&mut PointPlan),
    frame: &Frame<'_>,
) -> Vec<Reason> {
    let plan = plan(vec![deployment("a", 4)]);
    let mut pa = point_plan("a", 2, 1);
    change(&mut pa);
    let points = [MeasuredPoint { plan: &pa, trials }];
    analyse(&plan, &points, frame).points[0].trust.reasons.clone()
}

fn found<'a>(reasons: &'a [Reason], code: &str) -> Option<&'a Reason> {
    reasons.iter().find(|r| r.code == code)
}

#[track_caller]
fn said<'a>(reasons: &'a [Reason], code: &str) -> &'a Reason {
    found(reasons, code).unwrap_or_else(|| panic!("no {code} among {reasons:#?}"))
}

/// A change of the plan.
fn mode(mode: Mode) -> impl FnOnce(&mut PointPlan) {
    move |p| p.mode = mode
}

#[test]
fn slots_that_were_held_by_what_has_no_latency_break_littles_law() {
    // One request in sixty holds its slot for 600 ms, the others for 10 ms each: 590 of 1190 ms.
    let with_one_lost = |held_ms: u64| {
        let mut t = trial(1, 60, 1_000, 0);
        let lost = &mut t.records[59];
        lost.outcome = Outcome::TimedOut;
        lost.finished_at = lost.sent_at.unwrap() + Nanos::from_millis(held_ms);
        doubts(vec![t])
    };
    let reasons = with_one_lost(600);
    let reason = said(&reasons, "little_law");
    assert!(reason.message.contains("50.7 % less"), "{}", reason.message);
    assert_eq!(reason.level, TrustLevel::Invalid);
    assert_eq!(said(&with_one_lost(100), "little_law").level, TrustLevel::Caution);
    assert_eq!(
        found(&with_one_lost(10), "little_law"),
        None,
        "it held its slot no longer than others"
    );
    assert_eq!(found(&doubts(vec![trial(1, 60, 1_000, 5)]), "little_law"), None);
}

/// A trial whose every first token came `later` ms later than that of [`trial`].
fn slower(number: u32, later: u64) -> TrialRecords {
    let mut t = trial(number, 60, 1_000, 5);
    for r in &mut t.records {
        r.first_token_at = r.first_token_at.map(|at| at + Nanos::from_millis(later));
    }
    t
}

#[test]
fn a_first_trial_that_is_slower_than_its_repeats_was_cold() {
    let reasons = doubts(vec![slower(1, 3), trial(2, 60, 1_000, 5), trial(3, 60, 1_000, 5)]);
    let reason = said(&reasons, "cold_start");
    assert!(
        reason.message.contains("of the first trial is 4.04 ms, of the later ones 1.04 ms"),
        "{}",
        reason.message
    );
    assert!(reason.next_step.contains("warmup"));
    // The last one slower, or all alike, is not the start's affair.
    for trials in [
        vec![trial(1, 60, 1_000, 5), slower(2, 3)],
        (1..=3).map(|n| trial(n, 60, 1_000, 5)).collect(),
        vec![slower(1, 3)],
    ] {
        assert_eq!(found(&doubts(trials), "cold_start"), None);
    }
}

#[test]
fn first_requests_that_are_slower_than_the_rest_were_cold() {
    let cold_until = |n: u64, as_mode: Mode| {
        let mut t = trial(1, 60, 1_000, 5);
        for r in t.records.iter_mut().filter(|r| r.index < n) {
            r.first_token_at = r.first_token_at.map(|at| at + Nanos::from_millis(3));
        }
        let reasons = doubts_under(vec![t], mode(as_mode), &Frame::default());
        found(&reasons, "cold_start").is_some()
    };
    assert!(cold_until(8, Mode::Open) && cold_until(8, Mode::Serial));
    assert!(!cold_until(0, Mode::Open) && !cold_until(60, Mode::Serial));
    // Slots that begin at once wait for each other at first.
    assert!(!cold_until(8, Mode::Closed));
}

#[test]
fn a_queue_that_comes_first_is_no_cold_start_where_another_comes_later() {
    let mut t = trial(1, 60, 1_000, 5);
    let in_queue = |i: u64| i < 8 || (24..32).contains(&i);
    for r in t.records.iter_mut().filter(|r| in_queue(r.index)) {
        r.first_token_at = r.first_token_at.map(|at| at + Nanos::from_millis(3));
    }
    let reasons = doubts_under(vec![t], mode(Mode::Open), &Frame::default());
    assert_eq!(found(&reasons, "cold_start"), None);
}

#[test]
fn a_percentile_that_is_asked_for_needs_its_samples() {
    let expect = |metric: &str, load: Option<&str>| ExpectSpec {
        metric: metric.into(),
        op: "<".into(),
        value: 1e9,
        place: Some(ExpectWhere { deploy: None, load: load.map(str::to_owned) }),
        severity: None,
    };
    let asked = |requests, metric: &str, load| {
        let expects = [expect(metric, load)];
        let frame = Frame { expects: &expects, ..Frame::default() };
        let reasons = doubts_under(vec![trial(1, requests, 1_000, 5)], |_| {}, &frame);
        found(&reasons, "tail_samples").map(|r| r.message.clone())
    };
    let said = asked(298, "ttft.p99", None).unwrap();
    assert!(
        said.starts_with("ttft.p99 is of 298 values: it has no upper bound at 95 % confidence below 299, and lies above "),
        "{said}"
    );
    assert_eq!(asked(299, "ttft.p99", None), None);
    assert!(asked(58, "ttft.p95", None).is_some() && asked(59, "ttft.p95", None).is_none());
    // 1 - 0.999^n and 1 - 0.995^n reach 0.95 at 2,995 and 598; both spellings are one percentile.
    for (metric, need) in [("ttft.p99.9", "2995"), ("ttft.p999", "2995"), ("ttft.p99.5", "598")] {
        let said = asked(300, metric, None).unwrap();
        assert!(said.contains(&format!("below {need}")), "{metric}: {said}");
    }
    assert_eq!(asked(58, "ttft.p50", None), None);
    assert_eq!(asked(58, "ttft.p95", Some("another")), None, "it is not asked of this load");
    let frame = Frame { shown: vec!["rps", "e2e.p99"], ..Frame::default() };
    let reasons = doubts_under(vec![trial(1, 100, 1_000, 5)], |_| {}, &frame);
    assert!(said_of(&reasons, "tail_samples").starts_with("e2e.p99 is of 100 values"));
    assert_eq!(found(&doubts(vec![trial(1, 100, 1_000, 5)]), "tail_samples"), None, "nobody asked");
}

fn said_of(reasons: &[Reason], code: &str) -> String {
    said(reasons, code).message.clone()
}

#[test]
fn a_longest_answer_of_the_time_out_s_length_is_a_tail_cut_off() {
    let longest = |ms: u64| {
        let mut t = trial(1, 60, 1_000, 5);
        let last = &mut t.records[59];
        last.finished_at = last.sent_at.unwrap() + Nanos::from_millis(ms);
        found(&doubts(vec![t]), "max_is_timeout").is_some()
    };
    assert!(longest(59_500) && longest(60_400));
    assert!(!longest(59_000) && !longest(30_000));
}

#[test]
fn completed_answers_without_an_answer_are_told() {
    let with = |n: usize, tokens: u32| {
        let mut t = trial(1, 60, 1_000, 5);
        for r in &mut t.records {
            r.asked_output_tokens = 10;
        }
        t.records.iter_mut().take(n).for_each(|r| r.output_tokens = Some(tokens));
        doubts(vec![t])
    };
    let one = with(1, 0);
    let reason = said(&one, "empty_outputs");
    assert_eq!(reason.level, TrustLevel::Caution);
    assert!(
        reason.message.starts_with("of 60 requests, 1 were completed without a token and 0 with"),
        "{}",
        reason.message
    );
    assert_eq!(said(&with(4, 0), "empty_outputs").level, TrustLevel::Invalid);
    // A short answer is an answer; many that end at their first token are the model's or a flag's doing.
    assert_eq!(found(&with(3, 1), "empty_outputs"), None);
    assert_eq!(said(&with(4, 1), "empty_outputs").level, TrustLevel::Caution);
    // Embeddings have no output to be empty.
    let mut none_asked = trial(1, 60, 1_000, 5);
    none_asked.records.iter_mut().for_each(|r| r.output_tokens = Some(0));
    assert_eq!(found(&doubts(vec![none_asked]), "empty_outputs"), None);
}

#[test]
fn a_trial_without_a_steady_part_says_why() {
    // Two of the three that were asked for.
    let three = |p: &mut PointPlan| p.level.concurrency = Some(3);
    let reasons = doubts_under(vec![trial(1, 60, 1_000, 5)], three, &Frame::default());
    assert!(said_of(&reasons, "no_steady_window").contains("never in flight"));
    // Everything was due before the first request had been answered.
    let mut at_once = trial(1, 60, 1_000, 5);
    at_once.records.iter_mut().for_each(|r| r.scheduled_at = Nanos(r.index));
    let reasons = doubts_under(vec![at_once.clone()], mode(Mode::Open), &Frame::default());
    assert!(said_of(&reasons, "no_steady_window").contains("due before the first tenth"));
    for (trial, as_mode) in
        [(trial(1, 60, 1_000, 5), Mode::Open), (trial(1, 60, 1_000, 5), Mode::Closed)]
    {
        let reasons = doubts_under(vec![trial], mode(as_mode), &Frame::default());
        assert_eq!(found(&reasons, "no_steady_window"), None, "{as_mode:?}");
    }
    let burst = |p: &mut PointPlan| (p.mode, p.level.concurrency) = (Mode::Burst, None);
    let reasons = doubts_under(vec![at_once], burst, &Frame::default());
    assert_eq!(found(&reasons, "no_steady_window"), None, "a burst has no level to hold");
}

fn with_facts(facts: TrialFacts) -> Vec<Reason> {
    doubts(vec![TrialRecords { facts, ..trial(1, 60, 1_000, 5) }])
}

#[test]
fn a_busy_client_is_told_by_its_thread_or_by_its_machine() {
    let of = |thread, machine| {
        let facts = TrialFacts {
            busiest_worker_cpu: thread,
            machine_cpu: machine,
            ..TrialFacts::default()
        };
        found(&with_facts(facts), "client_cpu").map(|r| r.message.clone())
    };
    assert!(of(Some(0.85), Some(0.99)).unwrap().starts_with("a load thread was busy for 85.0 %"));
    assert!(of(Some(0.1), Some(0.99)).unwrap().starts_with("99.0 % of all cores"));
    assert_eq!((of(Some(0.79), Some(0.94)), of(None, None)), (None, None));
}

#[test]
fn preempted_requests_are_counted_over_trials() {
    let facts = |n| TrialFacts { preemptions: n, ..TrialFacts::default() };
    let two = [Some(3), Some(4)]
        .map(|n| TrialRecords { facts: facts(n), ..trial(1, 60, 1_000, 5) })
        .to_vec();
    assert!(said_of(&doubts(two), "preemptions").contains("put 7 requests back"));
    for none in [None, Some(0)] {
        assert_eq!(found(&with_facts(facts(none)), "preemptions"), None);
    }
}

/// What an engine says that was looked at once, at the second of three pages.
fn engines(pages: [&str; 3]) -> TrialFacts {
    let mut watch = Watch::new("0", Part::Engine, Role::Aggregated);
    let [first, between, last] = pages.map(|page| Some(Snapshot::read(page)));
    watch.begin(first);
    let look = watch.sample(between);
    let mut readings = EngineReadings { instances: vec![watch.end(last)], ..Default::default() };
    readings.add_look(std::iter::once((Part::Engine, Some(&look))));
    TrialFacts { engines: Some(readings), ..TrialFacts::default() }
}

#[test]
fn a_full_cache_is_told_by_the_engine_s_own_share() {
    let at = |share: &str| {
        let page = format!("vllm:kv_cache_usage_perc {share}");
        let facts = engines(["vllm:kv_cache_usage_perc 0", &page, "vllm:kv_cache_usage_perc 0"]);
        found(&with_facts(facts), "kv_cache_full").map(|r| r.message.clone())
    };
    assert!(at("0.97").unwrap().contains("97.0 % full"));
    assert_eq!((at("0.95"), at("NaN")), (None, None));
    let none = found(&with_facts(TrialFacts::default()), "kv_cache_full").is_none();
    assert!(none, "nobody looked");
}

#[test]
fn prefix_hits_are_held_against_what_the_workload_shares() {
    let page = |hits: u32| {
        format!("vllm:prefix_cache_queries_total 1000\nvllm:prefix_cache_hits_total {hits}\n")
    };
    let doubt = |hits: u32, prompt: Option<u32>| {
        let zero = "vllm:prefix_cache_queries_total 0\nvllm:prefix_cache_hits_total 0\n";
        let last = page(hits);
        let mut trial =
            TrialRecords { facts: engines([zero, zero, &last]), ..trial(1, 60, 1_000, 5) };
        for r in &mut trial.records {
            (r.asked_input_tokens, r.prompt_tokens, r.cached_prompt_tokens) =
                (Some(100), prompt, None);
        }
        let own = |p: &mut PointPlan| p.workload.source = synthetic(0, None);
        found(&doubts_under(vec![trial], own, &Frame::default()), "prefix_hits")
            .map(|r| r.message.clone())
    };
    let told = doubt(300, Some(100)).unwrap();
    assert!(told.contains("30.0 % of the prompt tokens"), "{told}");
    assert_eq!(doubt(40, Some(100)), None, "a few");
    assert_eq!(doubt(200, Some(125)), None, "a fifth is the chat template");
    assert_eq!(
        doubt(900, None),
        None,
        "who does not count prompts leaves nothing to hold it against"
    );
}

#[test]
fn a_point_near_the_instrument_s_floor_is_marked() {
    // Medians: TTFT 1.04 ms, gaps 1.04 ms.
    let with = |known: FloorAt| {
        let floor = Floor { at: vec![FloorAt { streams: 2, ..known }], ..Floor::default() };
        let frame = Frame { floor: Some(&floor), ..Frame::default() };
        doubts_under(vec![trial(1, 60, 1_000, 5)], |_| {}, &frame)
    };
    let level = |known| found(&with(known), "instrument_floor").map(|r| r.level);
    let ttft_p99 = |ms| FloorAt { ttft_error_ms_p99: Some(ms), ..FloorAt::default() };
    let ttft_median = |ms| FloorAt { ttft_median_error_ms: Some(ms), ..FloorAt::default() };
    let itl_mean = |ms| FloorAt { itl_mean_error_ms: Some(ms), ..FloorAt::default() };
    assert_eq!(level(ttft_p99(0.08)), None);
    assert_eq!(
        level(ttft_p99(0.3)),
        Some(TrustLevel::Caution),
        "single values are off, not the median"
    );
    assert_eq!(level(ttft_median(0.02)), None);
    assert_eq!(level(ttft_median(-0.05)), Some(TrustLevel::Caution));
    assert_eq!(level(ttft_median(0.5)), Some(TrustLevel::Invalid));
    let message = said_of(&with(itl_mean(0.5)), "instrument_floor");
    assert!(message.starts_with("the median time between tokens is 1.04 ms; on this machine, before the run, the load client said it 0.500 ms, 48.1 % of it, wrong"), "{message}");
    assert_eq!(found(&doubts(vec![trial(1, 60, 1_000, 5)]), "instrument_floor"), None);
}

#[test]
fn lateness_says_how_much_of_it_is_connecting() {
    let late = |connect_ms: Option<u64>| {
        let mut t = trial(1, 60, 1_000, 5);
        for r in &mut t.records {
            r.sent_at = Some(r.scheduled_at + Nanos::from_millis(5));
            r.connect = connect_ms.map(Nanos::from_millis);
        }
        said_of(&doubts(vec![t]), "late")
    };
    let said = late(Some(4));
    assert!(
        said.ends_with(
            "own part is 1.00 ms (p99), connecting took 4.00 ms (p99 of the 60 that had to)"
        ),
        "{said}"
    );
    assert!(late(None).ends_with("all of it is the load generator's own, 5.00 ms (p99)"));
}
