use super::super::{Device, Part, Quantity, Reading, Series};
use super::*;
use proptest::prelude::*;

const SECOND: Nanos = Nanos::from_secs(1);

fn at(seconds: f64, value: f64) -> Reading {
    let at = Nanos::from_secs_f64(seconds);
    Reading { from: at, to: at, value }
}

fn series(readings: Vec<Reading>) -> Series {
    let device =
        Device { host: "a".into(), part: Part::Gpu, name: "g".into(), index: Some(0), role: None };
    Series { device, quantity: Quantity::Power, readings }
}

fn window(from: f64, to: f64) -> Window {
    Window { from: Nanos::from_secs_f64(from), to: Nanos::from_secs_f64(to) }
}

/// Readings every second of what `of` says.
fn every_second(seconds: u32, of: impl Fn(f64) -> f64) -> Series {
    series((0..=seconds).map(|s| at(f64::from(s), of(f64::from(s)))).collect())
}

/// `values`, one a second.
fn listed(values: &[f64]) -> Series {
    series((0..).zip(values).map(|(s, v)| at(f64::from(s), *v)).collect())
}

fn gauge_of(series: &Series, from: f64, to: f64) -> Result<GaugeStat, FlawKind> {
    gauge(series, window(from, to), SECOND)
}

fn assert_near(found: f64, want: f64) {
    assert!((found - want).abs() < 1e-6 * want.abs().max(1.0), "{found} is not {want}");
}

#[test]
fn the_borders_of_the_window_are_interpolated() {
    // 100 W rising by 10 W a second: the integral from 2.5 to 7.25 s is known.
    let ramp = every_second(10, |t| 100.0 + 10.0 * t);
    let stat = gauge_of(&ramp, 2.5, 7.25).unwrap();
    assert_near(stat.integral, 475.0 + 5.0 * (7.25_f64.powi(2) - 2.5_f64.powi(2)));
    assert_near(stat.mean, stat.integral / 4.75);
    assert_near(stat.max, 172.5);
    assert_near(stat.min, 125.0);
}

#[test]
fn a_window_between_two_readings_has_a_value() {
    let ramp = every_second(10, |t| t);
    assert_near(gauge_of(&ramp, 4.25, 4.75).unwrap().mean, 4.5);
}

#[test]
fn a_counter_is_its_growth_and_its_fastest_piece() {
    let count = listed(&[0.0, 10.0, 20.0, 90.0, 100.0, 110.0]);
    let stat = counter(&count, window(0.5, 4.5), SECOND).unwrap();
    assert_near(stat.delta, 100.0);
    assert_near(stat.rate, 25.0);
    assert_near(stat.max_rate.unwrap(), 70.0);
}

#[test]
fn what_readings_cannot_tell_is_a_flaw_and_no_number() {
    let flat = |times: &[f64]| series(times.iter().map(|t| at(*t, 5.0)).collect());
    let code = |series: &Series, from, to| gauge_of(series, from, to).unwrap_err().code();
    assert_eq!(code(&flat(&[]), 0.0, 9.0), "too_few_readings");
    assert_eq!(code(&flat(&[4.0]), 0.0, 9.0), "too_few_readings");
    assert_eq!(code(&flat(&[20.0, 21.0]), 0.0, 9.0), "too_few_readings");
    assert_eq!(code(&flat(&[0.0, 1.0, 2.0, 6.0, 7.0, 8.0, 9.0]), 0.0, 9.0), "gap");
    assert_eq!(code(&flat(&[0.0, 5.5, 6.0, 7.0, 8.0]), 5.0, 8.0), "gap", "at the border too");
    assert_eq!(code(&flat(&[0.0, 1.0, 2.0, 3.0]), 0.0, 9.0), "not_covered");
    assert_eq!(
        code(&every_second(9, |t| if t < 4.0 { 1.0 } else { f64::NAN }), 0.0, 9.0),
        "impossible"
    );
    assert_eq!(code(&every_second(9, |t| 3.0 - t), 0.0, 9.0), "impossible");
}

#[test]
fn a_counter_that_began_anew_gives_no_number() {
    let reset = every_second(9, |t| if t < 5.0 { 100.0 + t } else { t });
    assert_eq!(counter(&reset, window(1.0, 8.0), SECOND), Err(FlawKind::CounterReset));
    // Before the window it does not matter.
    assert!(counter(&reset, window(5.0, 8.0), SECOND).is_ok());
}

/// 5 a second from `first` on, and nobody reads from 3 to 8 s.
fn with_a_hole(first: f64) -> Series {
    let mut count = every_second(12, |t| first + 5.0 * t);
    count.readings.retain(|r| r.at() <= Nanos::from_secs(3) || r.at() >= Nanos::from_secs(8));
    count
}

#[test]
fn what_a_counter_counted_in_a_hole_is_known_from_both_sides_and_its_fastest_piece_is_not() {
    let count = with_a_hole(1e4);
    assert_eq!(counter(&count, window(1.0, 11.0), SECOND).unwrap_err().code(), "gap");
    let (stat, gap) = counter_over_gaps(&count, window(1.0, 11.0), SECOND).unwrap();
    assert_near(stat.delta, 50.0);
    assert_near(stat.rate, 5.0);
    assert_eq!((stat.max_rate, gap), (None, Some(FlawKind::Gap { seconds: 5.0 })));
    let (stat, gap) = counter_over_gaps(&count, window(8.5, 11.0), SECOND).unwrap();
    assert_near(stat.max_rate.unwrap(), 5.0);
    assert_eq!(gap, None);
}

#[test]
fn a_hole_over_a_border_leaves_no_number_since_nobody_knows_on_which_side_it_counted() {
    for (from, to) in [(5.0, 11.0), (1.0, 5.0), (4.0, 7.0)] {
        let found = counter_over_gaps(&with_a_hole(1e4), window(from, to), SECOND);
        assert_eq!(found.unwrap_err().code(), "gap", "{from} to {to}");
    }
}

#[test]
fn a_count_that_could_have_been_reached_from_nothing_within_a_hole_proves_nothing() {
    let asked = window(1.0, 11.0);
    assert!(outlasts_gaps(&with_a_hole(1e4), asked, SECOND));
    assert!(outlasts_gaps(&with_a_hole(0.0), asked, SECOND), "40, and 25 is the most");
    // It began anew at 5 s, and stands behind the hole where it stood before.
    let mut anew = with_a_hole(0.0);
    anew.readings.iter_mut().filter(|r| r.at() > Nanos::from_secs(5)).for_each(|r| r.value -= 25.0);
    assert!(!outlasts_gaps(&anew, asked, SECOND));
    assert!(!outlasts_gaps(&every_second(0, |_| 1e4), asked, SECOND), "its pace is not known");
    assert!(outlasts_gaps(&every_second(12, |t| t), asked, SECOND), "without a hole there is none");
}

#[test]
fn a_reading_of_a_suspended_reader_is_not_believed() {
    let mut flat = every_second(9, |_| 5.0);
    // Asked for at 4 s and answered at 8 s: nobody knows when it was true.
    flat.readings.retain(|r| r.at() < Nanos::from_secs(4) || r.at() > Nanos::from_secs(8));
    let suspended = Reading { from: Nanos::from_secs(4), to: Nanos::from_secs(8), value: 900.0 };
    flat.readings.insert(4, suspended);
    assert_eq!(gauge_of(&flat, 0.0, 9.0).unwrap_err().code(), "gap");
}

#[test]
fn holes_are_measured_by_the_interval_that_was_asked_for() {
    let slow = series((0..10).map(|i| at(f64::from(i) * 5.0, 7.0)).collect());
    assert_near(gauge(&slow, window(3.0, 40.0), Nanos::from_secs(5)).unwrap().mean, 7.0);
    assert_eq!(gauge(&slow, window(3.0, 40.0), SECOND).unwrap_err().code(), "gap");
}

proptest! {
    /// However a window is cut in two, its parts add up.
    #[test]
    fn integrals_add_up(
        values in prop::collection::vec(0.0_f64..1e3, 12),
        from in 0.0_f64..4.0, cut in 4.5_f64..6.0, to in 6.5_f64..11.0,
    ) {
        let s = listed(&values);
        let whole = gauge_of(&s, from, to).unwrap().integral;
        let parts = gauge_of(&s, from, cut).unwrap().integral + gauge_of(&s, cut, to).unwrap().integral;
        prop_assert!((whole - parts).abs() < 1e-5 * whole.max(1.0), "{whole} {parts}");
    }

    /// No readings make a panic, and no number is outside of what was read.
    #[test]
    fn no_readings_make_a_wrong_number(
        times in prop::collection::vec((0_u64..20_000_000_000, 0_u64..3_000_000_000, 0.0_f64..1e6), 0..30),
        from in 0_u64..20_000_000_000, long in 1_u64..20_000_000_000,
    ) {
        let mut readings: Vec<Reading> = times.iter()
            .map(|(t, w, v)| Reading { from: Nanos(*t), to: Nanos(t + w), value: *v }).collect();
        readings.sort_by_key(Reading::at);
        let (least, most) = readings.iter().fold((f64::MAX, f64::MIN), |(a, b), r| (a.min(r.value), b.max(r.value)));
        let asked = Window { from: Nanos(from), to: Nanos(from + long) };
        if let Ok(stat) = gauge(&series(readings.clone()), asked, SECOND) {
            prop_assert!(stat.mean >= least - 1e-6 && stat.mean <= most + 1e-6);
        }
        if let Ok(stat) = counter(&series(readings), asked, SECOND) {
            prop_assert!(stat.rate >= 0.0 && stat.max_rate.unwrap() >= stat.rate);
        }
    }
}
