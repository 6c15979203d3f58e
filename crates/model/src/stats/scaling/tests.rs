use super::*;
use proptest::prelude::*;

fn sizes(curve: &Curve, at: &[f64]) -> Vec<Size> {
    at.iter().map(|n| Size { n: *n, value: 100.0 * curve.at(*n), spread: None }).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn speedups_without_loss_show_no_serial_part() {
    let ideal = Curve { law: Law::Amdahl, serial: 0.0, coherence: 0.0 };
    for law in [Law::Amdahl, Law::Gustafson, Law::Universal] {
        let found = fit(law, &sizes(&ideal, &[1.0, 2.0, 3.0, 4.0])).unwrap();
        assert!(near(found.serial, 0.0) && near(found.coherence, 0.0), "{found:?}");
        assert_eq!(found.peak(), None);
    }
    assert!(near(karp_flatt(4.0, 4.0).unwrap(), 0.0));
}

/// Karp and Flatt's own definition: a speedup of 3.11 over 4 is Amdahl's with this fraction.
#[test]
fn one_speedup_shows_the_fraction_that_amdahl_would_need_for_it() {
    let fraction = karp_flatt(4.0, 1400.0 / 450.0).unwrap();
    let curve = Curve { law: Law::Amdahl, serial: fraction, coherence: 0.0 };
    assert!(near(curve.at(4.0), 1400.0 / 450.0));
    assert_eq!(karp_flatt(1.0, 1.0), None, "one size says nothing");
}

#[test]
fn throughput_that_falls_with_size_has_a_peak() {
    let curve = Curve { law: Law::Universal, serial: 0.05, coherence: 0.02 };
    let found = fit(Law::Universal, &sizes(&curve, &[1.0, 2.0, 4.0, 8.0, 16.0])).unwrap();
    let peak = found.peak().unwrap();
    assert!((peak - (0.95_f64 / 0.02).sqrt()).abs() < 1e-6, "{peak}");
    assert!(found.at(peak) > found.at(peak - 1.0) && found.at(peak) > found.at(peak + 1.0));
}

#[test]
fn what_cannot_be_told_is_absent() {
    let curve = Curve { law: Law::Amdahl, serial: 0.1, coherence: 0.0 };
    assert_eq!(fit(Law::Universal, &sizes(&curve, &[1.0, 2.0])), None, "two unknowns, one size");
    assert_eq!(fit(Law::Universal, &sizes(&curve, &[1.0, 2.0, 2.0])), None, "the same size twice");
    assert_eq!(fit(Law::Amdahl, &sizes(&curve, &[1.0])), None);
    assert_eq!(fit(Law::Amdahl, &[]), None);
    let zero = Size { n: 2.0, value: 0.0, spread: None };
    assert_eq!(fit(Law::Amdahl, &[Size { n: 1.0, value: 1.0, spread: None }, zero]), None);
    assert_eq!(range(Law::Amdahl, &sizes(&curve, &[1.0, 2.0]), |c| c.serial), None, "no spread");
}

/// Sizes are measured with 2 % error over and over: the interval must hold the true serial part about 95 times in 100.
#[test]
fn the_interval_holds_the_true_serial_part_as_often_as_it_says() {
    use rand::SeedableRng;
    let curve = Curve { law: Law::Amdahl, serial: 0.15, coherence: 0.0 };
    let spread = Spread { error: 0.02, freedom: f64::INFINITY };
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let mut held = 0;
    for _ in 0..200 {
        let measured: Vec<Size> = sizes(&curve, &[1.0, 2.0, 4.0, 8.0])
            .into_iter()
            .map(|s| Size {
                value: s.value * spread.draw(&mut rng).exp(),
                spread: Some(spread),
                ..s
            })
            .collect();
        let (low, high) = range(Law::Amdahl, &measured, |c| c.serial).unwrap();
        held += usize::from(low <= 0.15 && 0.15 <= high);
    }
    assert!((180..=199).contains(&held), "{held} of 200");
}

proptest! {
    #[test]
    fn a_law_is_found_again_from_what_it_gives(serial in 0.0..0.9_f64, coherence in 0.0..0.05_f64) {
        let at = [1.0, 2.0, 3.0, 4.0, 6.0];
        for (law, coherence) in [(Law::Amdahl, 0.0), (Law::Gustafson, 0.0), (Law::Universal, coherence)] {
            let curve = Curve { law, serial, coherence };
            let found = fit(law, &sizes(&curve, &at)).unwrap();
            prop_assert!((found.serial - serial).abs() < 1e-6, "{law:?} {found:?}");
            prop_assert!((found.coherence - coherence).abs() < 1e-6, "{law:?} {found:?}");
        }
    }

    #[test]
    fn no_fit_says_less_than_nothing_or_more_than_all(values in prop::collection::vec(1.0..500.0_f64, 3..6)) {
        let sizes: Vec<Size> = (1..)
            .zip(&values)
            .map(|(n, value)| Size { n: f64::from(n), value: *value, spread: None })
            .collect();
        for law in [Law::Amdahl, Law::Gustafson, Law::Universal] {
            let found = fit(law, &sizes).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.serial) && found.coherence >= 0.0, "{found:?}");
            prop_assert!(found.at(9.0).is_finite());
        }
    }
}
