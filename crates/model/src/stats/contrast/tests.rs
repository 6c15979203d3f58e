//! Numbers worked out by hand, and how often promises are kept on draws whose truth is known. Seeds are fixed, so
//! each count is the same every time.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

const DRAWS: u64 = 2_000;

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-3 * want.abs().max(1e-3), "{got}, not {want}");
}

#[test]
fn errors_and_degrees_of_freedom_are_those_of_a_hand() {
    // Variances 1 and 4, three values each: 5/3, and (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 50/17.
    let (a, b) = ([1.0, 2.0, 3.0], [0.0, 2.0, 4.0]);
    let c = welch(&a, &b).unwrap();
    near(c.error, (5.0_f64 / 3.0).sqrt());
    near(c.freedom, 50.0 / 17.0);
    assert!(c.log_ratio.abs() < 1e-12 && (c.p_value() - 1.0).abs() < 1e-9);
    // Pooled: (2 + 8) / 4 x (1/3 + 1/3), four degrees.
    let s = student(&a, &b).unwrap();
    near(s.error, (10.0_f64 / 4.0 * 2.0 / 3.0).sqrt());
    near(s.freedom, 4.0);
    let (low, high) = Contrast { log_ratio: 0.1, error: 0.02, freedom: 4.0 }.interval(0.95);
    near(low, (0.1 - 2.776_4 * 0.02_f64).exp());
    near(high, (0.1 + 2.776_4 * 0.02_f64).exp());
}

#[test]
fn one_value_tells_of_its_spread_only_by_the_other_side() {
    assert_eq!(welch(&[1.0], &[1.0, 2.0, 3.0]), None);
    assert_eq!(student(&[1.0], &[1.0, 2.0]), None, "one degree of freedom says nothing");
    near(student(&[1.0], &[1.0, 2.0, 3.0]).unwrap().freedom, 2.0);
    assert_eq!(student(&[], &[1.0, 2.0, 3.0, 4.0]), None);
}

#[test]
fn values_that_do_not_spread_leave_no_doubt() {
    let same = welch(&[0.5; 3], &[0.5; 3]).unwrap();
    assert!(same.is_within(0.001) && (same.p_value() - 1.0).abs() < 1e-12);
    let other = welch(&[0.75; 3], &[0.5; 3]).unwrap();
    assert!(other.p_value() < 1e-12 && !other.is_within(0.03));
    assert_eq!(other.interval(0.95), (0.25_f64.exp(), 0.25_f64.exp()));
}

#[test]
fn chances_are_corrected_as_holm_does_it() {
    let got = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (got, want) in got.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        near(*got, want);
    }
    assert_eq!((holm(&[]), holm(&[0.7, 0.9])), (vec![], vec![1.0, 1.0]));
}

/// Trials' values of two sides: the first `effect` better, both spread by `sd`.
fn sides(n: usize, effect: f64, sd: f64, rng: &mut Xoshiro256PlusPlus) -> (Vec<f64>, Vec<f64>) {
    let mut draw = |mean: f64| -> Vec<f64> {
        let one = |_| mean + sd * Distribution::<f64>::sample(&StandardNormal, rng);
        (0..n).map(one).collect()
    };
    (draw(effect.ln_1p()), draw(0.0))
}

fn share(seed: u64, mut holds: impl FnMut(&mut Xoshiro256PlusPlus) -> bool) -> f64 {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..DRAWS).filter(|_| holds(&mut rng)).count() as f64 / DRAWS as f64
}

#[test]
fn a_difference_that_is_said_to_be_detectable_is_found_as_often_as_was_said() {
    // Welch's own degrees of freedom are fewer than those of both sides where trials are few.
    type Method = fn(&[f64], &[f64]) -> Option<Contrast>;
    let cases: [(usize, f64, Method); 4] =
        [(2, 0.01, student), (3, 0.01, student), (5, 0.03, welch), (10, 0.03, welch)];
    for (n, sd, method) in cases {
        // What is said of the spread that there truly is.
        let error = sd * (2.0 / n as f64).sqrt();
        let known = Contrast { log_ratio: 0.0, error, freedom: 2.0 * n as f64 - 2.0 };
        let effect = known.detectable(0.05);
        let found = share(1, |rng| {
            let (a, b) = sides(n, effect, sd, rng);
            method(&a, &b).unwrap().p_value() < 0.05
        });
        println!("{n} trials, {sd} apart: {effect:.4} found in {found}");
        assert!((0.75..=0.84).contains(&found), "{n} trials: {effect:.4} found in {found}");
    }
}

#[test]
fn an_equivalence_is_seldom_said_of_what_is_as_far_apart_as_the_margin() {
    for (n, sd) in [(3, 0.005), (5, 0.01), (10, 0.02)] {
        let of = |effect: f64| {
            share(2, |rng| {
                let (a, b) = sides(n, effect, sd, rng);
                welch(&a, &b).unwrap().is_within(0.03)
            })
        };
        let (wrong, right) = (of(0.03), of(0.0));
        println!("{n} trials, {sd} apart: {wrong} at the margin, {right} without a difference");
        assert!(wrong <= 0.06, "{n} trials: {wrong}");
        assert!(right > 0.5, "{n} trials: {right}");
    }
}

#[test]
fn as_many_trials_as_were_said_decide() {
    // 2 % apart, trials 2 % around that: three do not tell.
    let now = Contrast { log_ratio: 0.02, error: 0.02 * (2.0_f64 / 3.0).sqrt(), freedom: 4.0 };
    let n = now.trials_to_decide((3, 3), (0.05, 0.01), None).unwrap();
    let of = |n: usize| {
        share(3, |rng| {
            let (a, b) = sides(n, 0.02_f64.exp_m1(), 0.02, rng);
            let found = welch(&a, &b).unwrap();
            found.p_value() < 0.05 && (found.ratio() - 1.0).abs() >= 0.01
        })
    };
    let (enough, less) = (of(n as usize), of(n as usize - 3));
    assert!(enough >= 0.77 && less < 0.8, "{n} trials: {enough}, three less: {less}");

    // Surely there, and too small to be called a difference: no number of trials decides.
    let small = Contrast { log_ratio: 0.006, error: 0.000_5, freedom: 4.0 };
    assert_eq!(small.trials_to_decide((3, 3), (0.05, 0.01), None), None);
    assert!(small.trials_to_decide((3, 3), (0.05, 0.0), None).is_some());

    // Nothing apart: only a margin can be decided about.
    let none = Contrast { log_ratio: 0.0, ..now };
    assert_eq!(none.trials_to_decide((3, 3), (0.05, 0.01), None), None);
    let n = none.trials_to_decide((3, 3), (0.05, 0.01), Some(0.03)).unwrap();
    let shown = share(4, |rng| {
        let (a, b) = sides(n as usize, 0.0, 0.02, rng);
        welch(&a, &b).unwrap().is_within(0.03)
    });
    assert!(shown >= 0.77, "{n} trials: {shown}");
}

proptest! {
    #[test]
    fn swapped_sides_are_the_inverse_ratio(
        a in prop::collection::vec(-1.0f64..1.0, 2..8), b in prop::collection::vec(-1.0f64..1.0, 2..8),
    ) {
        for by in [welch, student] {
            let (Some(x), Some(y)) = (by(&a, &b), by(&b, &a)) else { continue };
            prop_assert!((x.log_ratio + y.log_ratio).abs() < 1e-12 && (x.error - y.error).abs() < 1e-12);
            prop_assert!((x.p_value() - y.p_value()).abs() < 1e-9);
            let ((low, _), (_, high)) = (x.interval(0.95), y.interval(0.95));
            prop_assert!((low * high - 1.0).abs() < 1e-6);
        }
    }
}
