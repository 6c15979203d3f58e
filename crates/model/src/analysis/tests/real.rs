//! The same promises, held by trials of real engines: drawn from many trials of one deployment, so that they differ as
//! trials do. Two pools: vLLM on an H100 that nothing else used (two bring-ups), and llama.cpp on two cores that were
//! busy with other things. How they were measured is in the journal, 2026-11-27.

use super::pairs::{Like, by_metric, compared, is_called_different, share};
use super::*;
use crate::results::Comparison;
use rand::seq::SliceRandom;

/// `trial,sent_us,first_us,last_us,finished_us,tokens`, a row a request.
const H100: &str = include_str!("real/h100-vllm.csv");
const BUSY: &str = include_str!("real/busy-llama.csv");

/// More requests than any trial has.
const ALL: usize = usize::MAX;

/// Trials of a pool, by request: the four instants in microseconds, and tokens.
type Pool = Vec<Vec<[u64; 5]>>;

fn pool(text: &str) -> Pool {
    let mut trials: BTreeMap<u64, Vec<[u64; 5]>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let row: Vec<u64> = line.split(',').map(|n| n.parse().unwrap()).collect();
        trials.entry(row[0]).or_default().push(row[1..].try_into().unwrap());
    }
    trials.into_values().collect()
}

/// A trial of the pool, all times so many times as short.
fn trial_of(rows: &[[u64; 5]], number: u32, faster: f64) -> TrialRecords {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some minutes")]
    let at = |us: u64| Nanos((us as f64 * 1e3 / faster) as u64);
    let one = |(index, &[sent, first, last, finished, tokens]): (usize, &[u64; 5])| {
        let mut r = RequestRecord::new(index as u64, Phase::Measure, 0, at(sent));
        r.sent_at = Some(at(sent));
        r.first_token_at = Some(at(first));
        r.last_token_at = Some(at(last));
        r.finished_at = at(finished);
        r.output_tokens = Some(u32::try_from(tokens).unwrap());
        r.prompt_tokens = Some(512);
        r.token_source = Some(TokenSource::Usage);
        r.outcome = Outcome::Completed;
        r
    };
    let records = rows.iter().enumerate().map(one).collect();
    TrialRecords { number, records, partial: false, damaged: None, facts: TrialFacts::default() }
}

/// `n` pairs of sides of `trials` trials; no trial is on both, so a pool that differs by nothing but chance is what
/// both sides are of.
fn pairs(
    (name, in_flight): (&str, u32),
    (trials, requests): (u32, usize),
    effect: f64,
    n: u64,
) -> Vec<Vec<Comparison>> {
    let is_beside_others = name == "busy";
    let mut pool = pool(if is_beside_others { BUSY } else { H100 });
    pool.iter_mut().for_each(|trial| trial.truncate(requests));
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(trials));
    let mut sides = || {
        pool.shuffle(&mut rng);
        let mut rest = pool.iter();
        [1.0 + effect, 1.0].map(|faster| {
            let mut one = |number| trial_of(rest.next().unwrap(), number, faster);
            (1..=trials).map(&mut one).collect::<Vec<_>>()
        })
    };
    let [_, like] = sides();
    compared(Like { in_flight, is_beside_others, trials: &like }, None, n, sides)
}

#[test]
fn a_thousand_comparisons_of_real_trials_of_one_deployment() {
    for (name, in_flight) in [("H100", 16), ("busy", 4)] {
        for trials in [1, 2, 3, 5] {
            let all = pairs((name, in_flight), (trials, ALL), 0.0, 1_000);
            let wrong = share(&all, |family| family.iter().any(is_called_different));
            let covered = by_metric(&all, |c| c.ratio.low <= 1.0 && 1.0 <= c.ratio.high);
            println!("{name}, {trials} trials: {wrong} % told apart, holds 1: {covered:?}");
            assert!(wrong <= 5.0, "{name}, {trials} trials: {wrong} %");
            for (metric, held) in covered {
                assert!(held >= 93.0, "{name}, {trials} trials: {metric} {held} %");
            }
        }
    }
}

/// Of one trial a side only, the less the shorter it is: with as many requests as are in flight there is one wave.
#[test]
fn short_trials_of_one_deployment_are_not_told_apart_either() {
    for requests in [64, 48, 32, 24, 16] {
        let all = pairs(("H100", 16), (1, requests), 0.0, 500);
        let wrong = share(&all, |family| family.iter().any(is_called_different));
        let covered = by_metric(&all, |c| c.ratio.low <= 1.0 && 1.0 <= c.ratio.high);
        println!("{requests} requests: {wrong} % told apart, holds 1: {covered:?}");
        assert!(wrong <= 5.0, "{requests} requests: {wrong} %");
    }
}

#[test]
fn planted_differences_between_real_trials_are_found_as_often_as_is_said() {
    for (trials, effect) in [(8, 0.03), (5, 0.05), (3, 0.10)] {
        let all = pairs(("H100", 16), (trials, ALL), effect, 250);
        let found = by_metric(&all, |c| c.verdict == ComparisonVerdict::Better);
        for (i, (metric, found)) in found.into_iter().enumerate() {
            let is_rate = metric.contains("tps");
            let truth = if is_rate { 1.0 + effect } else { 1.0 / (1.0 + effect) };
            let held = share(&all, |f| f[i].ratio.low <= truth && truth <= f[i].ratio.high);
            let mut said: Vec<f64> = all.iter().filter_map(|f| f[i].detectable).collect();
            said.sort_by(f64::total_cmp);
            let said = said[said.len() / 2];
            println!(
                "{trials} trials, {effect} planted: {metric} found {found} %, {said:.4} said, held {held} %"
            );
            assert!(held >= 92.0, "{metric}: {held}");
            // Three standard errors below 80 of 100.
            assert!(effect < said || found >= 72.0, "{metric}: {effect} found {found} %");
            assert!(!is_rate || effect > said, "{metric} decides nothing: {said}");
        }
    }
}
