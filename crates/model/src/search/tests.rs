//! The search against servers whose capacity is known.

use super::*;
use crate::stats::binomial;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

fn slo() -> Slo {
    Slo::parse(&["ttft.p99 <= 1s".to_owned()]).unwrap()
}

fn rules(slo: &Slo, values: Vec<f64>) -> Rules<'_> {
    Rules { slo, values, tries: 3, probes: 60, time: None }
}

fn probe(within: u64, of: u64) -> Probe {
    Probe {
        tallies: vec![Tally { within, of }],
        wall: Nanos::from_secs(10),
        is_oversaturated: false,
    }
}

/// A server whose tail grows steeply: at its knee exactly one request in a hundred is late. What it does
/// in a trial follows from seed, level and trial alone.
fn noisy(knee: f64, seed: u64, value: f64, trial: usize) -> Probe {
    const REQUESTS: u64 = 300;
    let late = (0.01 * (value / knee).powi(20)).min(1.0);
    let mixed = crate::workload::derive_seed(&[seed, value.to_bits(), trial as u64]);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(mixed);
    probe((0..REQUESTS).filter(|_| rng.random::<f64>() >= late).count() as u64, REQUESTS)
}

/// Searches to the end; also every trial in its order.
fn search(
    rules: &Rules<'_>,
    mut measure: impl FnMut(f64, usize) -> Probe,
) -> (Progress, Vec<(usize, Probe)>) {
    let (mut measured, mut order) = (Measured::new(), Vec::new());
    loop {
        let progress = rules.progress(&measured);
        let Step::Measure { level, trial } = progress.next else { return (progress, order) };
        let probe = measure(rules.values[level], trial);
        order.push((level, probe.clone()));
        let trials = measured.entry(level).or_default();
        assert_eq!(trials.len(), trial, "trials of a level are begun in order, and once");
        trials.push(probe);
    }
}

#[test]
fn levels_are_steps_of_the_precision_with_both_ends() {
    assert_eq!(rates(1.0, 2.0, 0.25), [1.0, 1.25, 1.56, 1.95, 2.0]);
    assert_eq!(rates(0.5, 0.51, 0.5), [0.5, 0.51]);
    assert_eq!(counts(1, 8, 0.5), [1, 2, 3, 5, 8]);
    let fine = rates(0.1, 1_000.0, 0.01);
    assert!(fine.windows(2).all(|w| w[0] < w[1] && w[1] < w[0] * 1.02), "no level is there twice");
    assert!(fine.len() as f64 <= number_of_levels(0.1, 1_000.0, 0.01));
    let labels: std::collections::BTreeSet<String> =
        fine.iter().map(|v| crate::units::significant(*v)).collect();
    assert_eq!(labels.len(), fine.len(), "each has a label of its own");
}

/// The path of a search without noise, worked out by hand.
#[test]
fn it_doubles_to_the_first_miss_and_halves_to_neighbours() {
    let slo = slo();
    let values: Vec<f64> = (1..=64).map(f64::from).collect();
    let sure = |meets: bool| probe(if meets { 1_000 } else { 0 }, 1_000);
    let (progress, order) = search(&rules(&slo, values), |v, _| sure(v <= 21.0));
    let path: Vec<usize> = order.iter().map(|(level, _)| level + 1).collect();
    assert_eq!(path, [1, 2, 4, 8, 16, 32, 24, 20, 22, 21]);
    assert_eq!(progress.next, Step::Done(End::Found));
    assert_eq!(progress.met, Some(Side { level: 20, is_sure: true }));
    assert_eq!(progress.missed, Some(Side { level: 21, is_sure: true }));
    assert_eq!(progress.probes, 10);
}

#[test]
fn what_lies_outside_the_levels_is_told() {
    let slo = slo();
    let values = || vec![1.0, 2.0, 4.0, 5.0];
    let (all, order) = search(&rules(&slo, values()), |_, _| probe(1_000, 1_000));
    assert_eq!((all.next, all.missed, order.len()), (Step::Done(End::AllMeet), None, 4));
    let (none, order) = search(&rules(&slo, values()), |_, _| probe(500, 1_000));
    assert_eq!((none.next, none.met, order.len()), (Step::Done(End::NoneMeets), None, 1));
    let (empty, _) = search(&rules(&slo, vec![]), |_, _| probe(1, 1));
    assert_eq!(empty.next, Step::Done(End::NoneMeets));
}

#[test]
fn a_verdict_that_chance_may_explain_is_measured_again_up_to_the_limit() {
    let slo = slo();
    let rules = rules(&slo, vec![1.0, 2.0]);
    // 100 of 100 show no p99; 300 of 300 do.
    let (progress, order) = search(&rules, |_, _| probe(100, 100));
    assert_eq!(order.len(), 6);
    assert!(progress.met.unwrap().is_sure);
    // On the bound itself it is never sure, and believed as it looks.
    let (progress, order) = search(&rules, |_, _| probe(99, 100));
    assert_eq!((progress.next, order.len()), (Step::Done(End::AllMeet), 6));
    assert!(!progress.met.unwrap().is_sure);
    // One trial is enough where chance explains nothing.
    let (_, order) = search(&rules, |_, _| probe(50, 100));
    assert_eq!(order.len(), 1);
    assert!(binomial::at_least(50, 100, 0.01) < 1e-9);
}

#[test]
fn a_queue_that_grew_without_end_is_missed_whatever_was_met_until_then() {
    let slo = slo();
    let rules = rules(&slo, vec![1.0, 2.0]);
    let (progress, order) =
        search(&rules, |value, _| Probe { is_oversaturated: value > 1.0, ..probe(1_000, 1_000) });
    assert_eq!((progress.next, order.len()), (Step::Done(End::Found), 2));
    assert_eq!(progress.missed, Some(Side { level: 1, is_sure: true }));
}

#[test]
fn time_ends_it_as_trials_do() {
    let slo = slo();
    let values: Vec<f64> = (1..=64).map(f64::from).collect();
    let rules = Rules { time: Some(Nanos::from_secs(25)), ..rules(&slo, values) };
    let (progress, order) = search(&rules, |_, _| probe(1_000, 1_000));
    assert_eq!(progress.next, Step::Done(End::OutOfBudget));
    assert_eq!(order.len(), 3, "10 s each: the third began after 20 s, a fourth would after 30");
    assert_eq!(progress.met, Some(Side { level: 3, is_sure: true }));
}

#[test]
fn it_finds_a_knee_under_noise() {
    let slo = slo();
    let precision = 0.1;
    let mut found = 0;
    for seed in 0..200 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let knee = 2.0 * 50_f64.powf(rng.random::<f64>());
        let rules = rules(&slo, rates(1.0, 500.0, precision));
        let (progress, _) = search(&rules, |value, trial| noisy(knee, seed, value, trial));
        let at = |side: Option<Side>| side.map(|s| rules.values[s.level]);
        let (met, missed) = (at(progress.met).unwrap(), at(progress.missed).unwrap());
        assert!(met < missed && missed < met * (1.0 + precision) * 1.01, "{met} {missed}");
        let slack = 1.0 + precision;
        found += u32::from(met <= knee * slack && knee <= missed * slack);
    }
    assert!(found >= 190, "{found} of 200");
}

proptest! {
    #[test]
    fn it_never_exceeds_its_budget(
        seed in any::<u64>(), knee in 0.5f64..600.0, probes in 1u32..20, tries in 1usize..5,
    ) {
        let slo = slo();
        let rules = Rules { tries, probes, ..rules(&slo, rates(1.0, 500.0, 0.05)) };
        let (progress, order) = search(&rules, |value, trial| noisy(knee, seed, value, trial));
        prop_assert!(order.len() <= probes as usize);
        prop_assert_eq!(progress.probes as usize, order.len());
        if let (Some(met), Some(missed)) = (progress.met, progress.missed) {
            prop_assert!(met.level < missed.level);
        }
    }

    /// Killed after any trial and begun again from the records, it takes the same path.
    #[test]
    fn it_goes_on_from_records_as_if_it_had_never_stopped(seed in any::<u64>(), knee in 1.0f64..500.0) {
        let slo = slo();
        let rules = rules(&slo, rates(1.0, 500.0, 0.05));
        let (end, order) = search(&rules, |value, trial| noisy(knee, seed, value, trial));
        let mut measured = Measured::new();
        for (level, probe) in order {
            let Step::Measure { level: asked, trial } = rules.progress(&measured).next else {
                return Err(TestCaseError::fail("it ended too early"));
            };
            prop_assert_eq!((asked, trial), (level, measured.get(&level).map_or(0, Vec::len)));
            measured.entry(level).or_default().push(probe);
        }
        prop_assert_eq!(rules.progress(&measured), end);
    }
}
