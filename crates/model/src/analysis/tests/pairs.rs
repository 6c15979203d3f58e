//! How often comparisons keep what they promise: pairs of sides whose truth is known, in numbers. Seeds are fixed,
//! so each count is the same every time. What came of them is in the journal, 2026-11-26.

use super::*;
use crate::analysis::compare::{Side, family, names};
use crate::metrics::{Of, find};
use crate::results::{Comparison, MetricValue};
use crate::stats::percentile::split;
use crate::stats::quantile::distribution;
use rand::RngExt;

/// Requests of a trial: few, so that many pairs can be drawn.
const REQUESTS: usize = 24;

/// One answered request: time to the first token and from token to token, and its tokens.
#[derive(Clone, Copy)]
struct Seen {
    first_ms: f64,
    gap_ms: f64,
    tokens: u32,
}

/// What is drawn from: a long tail of first tokens (one in thirty has waited four times as long), paces of their own.
fn pool() -> Vec<Seen> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut normal = |sd: f64| {
        let z: f64 = StandardNormal.sample(&mut rng);
        (sd * z).exp()
    };
    (0..600_u32)
        .map(|i| Seen {
            first_ms: 30.0 * normal(0.2) * if i % 30 == 0 { 4.0 } else { 1.0 },
            gap_ms: 8.0 * normal(0.04),
            tokens: 32,
        })
        .collect()
}

/// A trial of requests of the pool, two at a time, all times as many times as long as `slower` says.
fn resampled(
    pool: &[Seen],
    number: u32,
    slower: f64,
    rng: &mut Xoshiro256PlusPlus,
) -> TrialRecords {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ms")]
    let ns = |ms: f64| (ms * 1e6) as u64;
    let mut free = [0_u64; 2];
    let mut one = |index: usize| {
        let seen = pool[rng.random_range(0..pool.len())];
        let slot = usize::from(free[1] < free[0]);
        let start = Nanos(free[slot]);
        let mut r = RequestRecord::new(index as u64, Phase::Measure, 0, start);
        r.sent_at = Some(start);
        let first = Nanos(start.0 + ns(seen.first_ms * slower));
        r.first_token_at = Some(first);
        r.finished_at = Nanos(first.0 + ns(seen.gap_ms * slower) * u64::from(seen.tokens - 1));
        r.last_token_at = Some(r.finished_at);
        r.output_tokens = Some(seen.tokens);
        r.prompt_tokens = Some(5);
        r.token_source = Some(TokenSource::Usage);
        r.outcome = Outcome::Completed;
        free[slot] = r.finished_at.0;
        r
    };
    let records = (0..REQUESTS).map(&mut one).collect();
    TrialRecords { number, records, partial: false, damaged: None, facts: TrialFacts::default() }
}

/// A comparison to be drawn.
#[derive(Clone, Copy)]
struct Case {
    trials: u32,
    /// By how much runs of one deployment differ.
    run_sd: f64,
    /// How much faster the first side is.
    effect: f64,
    margin: Option<f64>,
}

impl Case {
    fn side(self, pool: &[Seen], faster: f64, rng: &mut Xoshiro256PlusPlus) -> Vec<TrialRecords> {
        let one = |number| {
            let z: f64 = StandardNormal.sample(rng);
            resampled(pool, number, (self.run_sd * z).exp() / faster, rng)
        };
        (1..=self.trials).map(one).collect()
    }

    /// `n` comparisons, each of all metrics that every pair is compared on.
    fn draw(self, n: u64) -> Vec<Vec<Comparison>> {
        let (pool, mut rng) = (pool(), Xoshiro256PlusPlus::seed_from_u64(u64::from(self.trials)));
        let like = self.side(&pool, 1.0, &mut rng);
        let mut sides = || [1.0 + self.effect, 1.0].map(|f| self.side(&pool, f, &mut rng));
        compared(Like::quiet(2, &like), self.margin, n, &mut sides)
    }
}

/// What sides of comparisons are like.
#[derive(Clone, Copy)]
pub(super) struct Like<'a> {
    pub(super) in_flight: u32,
    /// Something else took time from the machine.
    pub(super) is_beside_others: bool,
    /// As many trials, whose result is the form of theirs.
    pub(super) trials: &'a [TrialRecords],
}

impl<'a> Like<'a> {
    fn quiet(in_flight: u32, trials: &'a [TrialRecords]) -> Self {
        Self { in_flight, is_beside_others: false, trials }
    }

    fn result(self, plan: &Plan, point: &PointPlan) -> PointResult {
        let measured = MeasuredPoint { plan: point, trials: self.trials.to_vec() };
        let frame = Frame::default();
        let result = super::super::point(plan, &measured, &[], &Percentiles::default(), &frame);
        // What few requests are doubted for is not asked here.
        let mut trust = crate::trust::Trust::default();
        if self.is_beside_others {
            trust.add(crate::trust::Reason {
                code: "foreign_load".to_owned(),
                level: TrustLevel::Caution,
                message: "1.2 of the 2 cores of local were in use by something else".to_owned(),
                next_step: "end it".to_owned(),
            });
        }
        PointResult { trust, ..result }
    }
}

/// `n` comparisons of the two sides that `draw` gives.
pub(super) fn compared(
    like: Like<'_>,
    margin: Option<f64>,
    n: u64,
    mut draw: impl FnMut() -> [Vec<TrialRecords>; 2],
) -> Vec<Vec<Comparison>> {
    let plan = plan(vec![deployment("a", 4)]);
    let point = point_plan("a", like.in_flight, u32::try_from(like.trials.len()).unwrap());
    let like = like.result(&plan, &point);
    let one = |_| {
        let trials = draw();
        let results = [0, 1].map(|i| remade(&like, &plan, &point, &trials[i]));
        let [a, b] = [0, 1].map(|i| Side {
            result: &results[i],
            trials: &trials[i],
            point: &point,
            plan: &plan,
            class: None,
        });
        family(&names(&[]), &a, &b, margin)
    };
    (0..n).map(one).collect()
}

/// `like`, with the numbers of other trials: only those that are compared, since thousands are drawn.
fn remade(
    like: &PointResult,
    plan: &Plan,
    point: &PointPlan,
    trials: &[TrialRecords],
) -> PointResult {
    let context = context(plan, point);
    let numbers = |trials: &[TrialRecords]| -> Metrics {
        let views: Vec<TrialView<'_>> = trials.iter().map(|t| t.view(&context)).collect();
        let one = |name: &str| {
            let metric = find(split(name).0).unwrap();
            let value = match metric.of {
                Of::Trial(f) => {
                    let all: Vec<f64> = views.iter().filter_map(f).collect();
                    MetricValue::Number(all.iter().sum::<f64>() / all.len() as f64)
                }
                _ => MetricValue::Distribution(
                    distribution(views.iter().flat_map(|v| metric.samples(v)).collect()).unwrap(),
                ),
            };
            (metric.name.to_owned(), value)
        };
        names(&[]).into_iter().map(one).collect()
    };
    let mut result = PointResult { metrics: numbers(trials), ..like.clone() };
    for (of_trial, trial) in result.trials.iter_mut().zip(trials) {
        of_trial.metrics = numbers(std::slice::from_ref(trial));
    }
    result
}

pub(super) fn is_called_different(c: &Comparison) -> bool {
    matches!(c.verdict, ComparisonVerdict::Better | ComparisonVerdict::Worse)
}

/// Of a hundred.
pub(super) fn share<T>(all: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    100.0 * all.iter().filter(|x| holds(x)).count() as f64 / all.len() as f64
}

/// By metric, of a hundred.
pub(super) fn by_metric(
    all: &[Vec<Comparison>],
    holds: impl Fn(&Comparison) -> bool,
) -> Vec<(String, f64)> {
    let of = |i: usize| (all[0][i].metric.clone(), share(all, |family| holds(&family[i])));
    (0..all[0].len()).map(of).collect()
}

#[test]
fn a_thousand_comparisons_of_one_deployment_with_itself() {
    for (trials, run_sd) in [(1, 0.01), (2, 0.02), (3, 0.02), (5, 0.03)] {
        let all = Case { trials, run_sd, effect: 0.0, margin: None }.draw(1_000);
        let wrong = share(&all, |family| family.iter().any(is_called_different));
        let covered = by_metric(&all, |c| c.ratio.low <= 1.0 && 1.0 <= c.ratio.high);
        println!(
            "{trials} trials, runs {run_sd} apart: {wrong} % told apart, holds 1: {covered:?}"
        );
        assert!(wrong <= 5.0, "{trials} trials: {wrong} %");
        for (metric, held) in covered {
            // Welch's degrees of freedom err on the safe side with three trials; so does any t of the tail of few
            // requests, which has gaps. What is assumed of one trial is more than what these differ by.
            let is_safe = trials == 3 || metric == "e2e.p95";
            let most = match trials {
                1 => 100.0,
                _ if is_safe => 99.0,
                _ => 97.0,
            };
            assert!((93.0..=most).contains(&held), "{trials} trials: {metric} {held} %");
        }
    }
}

#[test]
fn planted_differences_are_found_as_often_as_is_said() {
    for (trials, run_sd, effect) in [(16, 0.005, 0.03), (8, 0.01, 0.05), (5, 0.02, 0.10)] {
        let case = Case { trials, run_sd, effect, margin: None };
        let all = case.draw(250);
        for (i, (metric, found)) in
            by_metric(&all, |c| c.verdict == ComparisonVerdict::Better).into_iter().enumerate()
        {
            let covered = share(&all, |f| {
                let truth =
                    if metric.contains("tps") { 1.0 + effect } else { 1.0 / (1.0 + effect) };
                f[i].ratio.low <= truth && truth <= f[i].ratio.high
            });
            let mut said: Vec<f64> = all.iter().filter_map(|f| f[i].detectable).collect();
            said.sort_by(f64::total_cmp);
            let said = said[said.len() / 2];
            println!(
                "{trials} trials, {effect} planted: {metric} found {found} %, {said:.3} said to be detectable, \
                 interval holds it {covered} %"
            );
            assert!(covered >= 92.0, "{metric}: {covered}");
            // Three standard errors below 80 of 100.
            assert!(effect < said || found >= 72.0, "{metric}: {effect} found {found} %");
            assert!(!metric.contains("tps") || effect > said, "{metric} decides nothing: {said}");
        }
    }
}

#[test]
fn what_is_alike_is_called_so_only_within_a_margin_and_by_trials_of_its_own() {
    let margin = Some(0.05);
    let of = |trials, effect| {
        let all = Case { trials, run_sd: 0.005, effect, margin }.draw(200);
        share(&all, |f| {
            f[1].metric == "output_tps" && f[1].verdict == ComparisonVerdict::Equivalent
        })
    };
    let (alike, at_the_margin, once) = (of(8, 0.0), of(8, 0.05), of(1, 0.0));
    println!("alike {alike} %, at the margin {at_the_margin} %, of one trial {once} %");
    assert!(alike >= 80.0, "{alike}");
    assert!(at_the_margin <= 9.0, "{at_the_margin}");
    assert!(once < 0.1, "a spread that was not measured shows nothing: {once}");
}

#[test]
fn a_comparison_that_decides_nothing_says_what_would() {
    let undecided = |c: &Comparison| c.verdict == ComparisonVerdict::NoDifferenceSeen;
    let case = Case { trials: 3, run_sd: 0.03, effect: 0.03, margin: Some(0.02) };
    let open: Vec<Comparison> = case.draw(20).concat().into_iter().filter(undecided).collect();
    assert!(!open.is_empty());
    assert!(open.iter().all(|c| c.detectable.is_some_and(|d| d > 0.01)));
    let more: Vec<u32> = open.iter().filter_map(|c| c.trials_to_decide).collect();
    assert!(more.len() > open.len() / 4 && more.iter().all(|n| (4..=100).contains(n)), "{more:?}");
    let once = Case { trials: 1, ..case }.draw(1).concat();
    assert!(once.iter().all(|c| c.detectable.is_none() && c.trials_to_decide.is_none()));
    assert!(once.iter().all(|c| c.ratio.method.contains("an assumption; 3 repeats measure it")));
}

/// Trials of one bring-up are alike, as where a deployment stays up between two rounds: two trials each, of bring-ups
/// that differ by `bring_up_sd` beside what runs do.
fn rounds(pool: &[Seen], bring_ups: u32, rng: &mut Xoshiro256PlusPlus) -> Vec<TrialRecords> {
    let (run_sd, bring_up_sd) = (0.005, 0.03);
    let normal = |sd: f64, rng: &mut Xoshiro256PlusPlus| {
        let z: f64 = StandardNormal.sample(rng);
        (sd * z).exp()
    };
    let mut trials = Vec::new();
    for bring_up in 1..=bring_ups {
        let of_bring_up = normal(bring_up_sd, rng);
        for number in [2 * bring_up - 1, 2 * bring_up] {
            let slower = of_bring_up * normal(run_sd, rng);
            let facts = TrialFacts { bring_up: Some(bring_up), ..TrialFacts::default() };
            trials.push(TrialRecords { facts, ..resampled(pool, number, slower, rng) });
        }
    }
    trials
}

/// What a bring-up decides by chance is in the interval where there are several a side; else it is not, and that is
/// said.
#[test]
fn bring_ups_are_what_is_drawn_where_there_are_enough() {
    let of = |bring_ups: u32, is_told: bool| {
        let (pool, mut rng) = (pool(), Xoshiro256PlusPlus::seed_from_u64(u64::from(bring_ups)));
        let like = rounds(&pool, bring_ups, &mut rng);
        let mut side = || {
            let mut trials = rounds(&pool, bring_ups, &mut rng);
            if !is_told {
                trials.iter_mut().for_each(|t| t.facts.bring_up = None);
            }
            trials
        };
        let all = compared(Like::quiet(2, &like), None, 1_000, || [side(), side()]);
        let wrong = share(&all, |family| family.iter().any(is_called_different));
        let held = share(&all, |f| f[1].ratio.low <= 1.0 && 1.0 <= f[1].ratio.high);
        let method = all[0][1].ratio.method.clone();
        println!(
            "{bring_ups} bring-ups: {wrong} % told apart, output_tps holds 1: {held} % ({method})"
        );
        (wrong, held, method)
    };
    for (bring_ups, want) in [(2, "Student over 2 and 2 bring-ups"), (5, "Welch over 5 and 5")] {
        let (wrong, held, method) = of(bring_ups, true);
        assert!(method.starts_with(want), "{method}");
        assert!(wrong <= 5.0, "{bring_ups} bring-ups: {wrong} %");
        assert!((93.0..=97.0).contains(&held), "{bring_ups} bring-ups: {held} %");
    }
    // What it is not told it cannot hold: as many trials are taken for as many draws.
    let (wrong, held, _) = of(2, false);
    assert!(wrong > 8.0 && held < 90.0, "{wrong} {held}");
}

/// Turns of one session share its fate: four times as many requests are no more sessions.
#[test]
fn a_session_is_one_draw_however_many_turns_it_has() {
    let of = |turns: u64| {
        let in_sessions = |number| {
            let mut t = trial(number, 64, 1_000, 0);
            for r in &mut t.records {
                let session = r.index / turns;
                r.session = Some(session);
                let slow = 1 + (session * 7_919 + u64::from(number) * 13) % 5;
                r.first_token_at = Some(r.scheduled_at + Nanos::from_millis(slow * 10));
            }
            t
        };
        let results = weigh(vec![in_sessions(1)], vec![in_sessions(2)], [4, 4]);
        comparison(&results, "ttft.p50").ratio.clone()
    };
    let (alone, fours) = (of(1), of(4));
    assert!(fours.method.starts_with("bootstrap over sessions"), "{}", fours.method);
    assert!(fours.high / fours.low > alone.high / alone.low, "{fours:?} {alone:?}");
}
