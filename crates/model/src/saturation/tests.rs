//! The rule against queues whose load is known.

use super::*;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// One server, exponential gaps and services: the load is `arrivals / services`. Returns after how many
/// requests the rule spoke.
fn queue(arrivals_rps: f64, services_rps: f64, requests: usize, seed: u64) -> Option<usize> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut exponential = |rate: f64| -(1.0 - rng.random::<f64>()).ln() / rate;
    let (mut due, mut free) = (0.0_f64, 0.0_f64);
    let mut jobs = Vec::new();
    for _ in 0..requests {
        due += exponential(arrivals_rps);
        let begins = due.max(free);
        free = begins + exponential(services_rps);
        jobs.push((due, begins, free));
    }
    watch(&jobs)
}

/// Jobs as (due, first token, end), in the order of their ends.
fn watch(jobs: &[(f64, f64, f64)]) -> Option<usize> {
    let mut detector = Detector::default();
    let mut arrived = 0;
    jobs.iter().enumerate().position(|(done, (due, begins, end))| {
        while jobs.get(arrived).is_some_and(|j| j.0 <= *end) {
            arrived += 1;
        }
        detector.step(Ended {
            at: Nanos::from_secs_f64(*end),
            in_flight: (arrived - done) as u64,
            ttft_ms: 1e3 * (begins - due),
        })
    })
}

#[test]
fn a_line_is_that_of_the_textbook() {
    // y = 1 + 2x with residuals 1, -2, 1 by turns: slope 2 exactly, residual variance 6 / 1.
    let line = slope(&[(0.0, 2.0), (1.0, 1.0), (2.0, 6.0)]).unwrap();
    assert!((line.slope - 2.0).abs() < 1e-12);
    assert!((line.standard_error - (6.0_f64 / 1.0 / 2.0).sqrt()).abs() < 1e-12);
    assert!(!line.is_rising(), "2 against 12.7 times 1.73");
    assert!(slope(&[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]).is_none());
}

#[test]
fn a_load_beyond_capacity_is_told_early() {
    for (load, within) in [(1.5, 1_500), (2.0, 800), (4.0, 400)] {
        let spoke = (0..50)
            .filter(|seed| queue(100.0 * load, 100.0, 4_000, *seed).is_some_and(|n| n <= within));
        let spoke = spoke.count();
        assert!(spoke >= 48, "load {load}: {spoke} of 50 within {within}");
    }
}

#[test]
fn a_load_that_is_sustained_is_left_alone() {
    for load in [0.3, 0.7, 0.9, 0.95] {
        let spoke =
            (0..200).filter(|seed| queue(100.0 * load, 100.0, 5_000, *seed).is_some()).count();
        assert!(spoke <= 1, "load {load}: {spoke} of 200");
    }
}

/// Many slots fill for as long as a request takes; nothing waits meanwhile, or each a little longer.
#[test]
fn slots_that_fill_are_no_queue() {
    for wait in [0.0, 0.2] {
        let jobs: Vec<(f64, f64, f64)> = (0..2_000)
            .map(|i| {
                let due = f64::from(i) / 100.0;
                // A batch that fills makes each token dearer, up to its size.
                let first = due + 0.05 + wait * (due / 5.0).min(1.0);
                (due, first, first + 5.0)
            })
            .collect();
        assert_eq!(watch(&jobs), None, "{wait}");
    }
}

#[test]
fn a_stall_that_ends_is_no_saturation() {
    // Ten seconds at half load, with half a second in which nothing is served.
    let mut free = 0.0_f64;
    let jobs: Vec<(f64, f64, f64)> = (0..1_000)
        .map(|i| {
            let due = f64::from(i) / 100.0;
            let begins = if due < 5.0 { due.max(free) } else { due.max(free).max(5.5) };
            free = begins + 0.005;
            (due, begins, free)
        })
        .collect();
    assert_eq!(watch(&jobs), None);
}

proptest! {
    /// Whatever comes, memory stays and nothing panics.
    #[test]
    fn anything_can_be_taken_in(ended in prop::collection::vec((any::<u64>(), any::<u64>(), 0.0f64..1e9), 0..300)) {
        let mut detector = Detector::default();
        for (at, in_flight, ttft_ms) in ended {
            detector.step(Ended { at: Nanos(at), in_flight, ttft_ms });
            prop_assert!(detector.spans.len() <= SPANS);
        }
    }
}
