use super::*;
use proptest::prelude::*;

/// The far clock: ahead by `offset_ns` at time 0 of ours, and faster by `drift`.
#[derive(Debug, Clone, Copy)]
struct Truth {
    offset_ns: f64,
    drift: f64,
}

impl Truth {
    fn far(&self, ours: f64) -> Nanos {
        Nanos(u64::try_from(whole(ours * (1.0 + self.drift) + self.offset_ns)).unwrap())
    }

    /// A question at `at` of ours that takes `there` and `back`.
    fn ping(&self, at: f64, there: f64, back: f64) -> Ping {
        Ping {
            sent: ours(at),
            got: self.far(at + there),
            answered: self.far(at + there),
            arrived: ours(at + there + back),
        }
    }
}

fn ours(at: f64) -> Nanos {
    Nanos(u64::try_from(whole(at)).unwrap())
}

const SECOND: f64 = 1e9;

#[test]
fn the_quickest_answer_of_a_burst_is_believed_and_lies_about_the_offset() {
    let truth = Truth { offset_ns: 5e12, drift: 0.0 };
    let slow = truth.ping(SECOND, 9e6, 1e6);
    let quick = truth.ping(2.0 * SECOND, 1e5, 1e5);
    let fix = Fix::of(&[slow, quick]).unwrap();
    assert_eq!(fix.offset_ns, 5_000_000_000_000);
    assert_eq!(fix.bound, Nanos(100_001));
    assert_eq!(Fix::of(&[]), None);
    let impossible = Ping { arrived: Nanos(0), ..quick };
    assert_eq!(Fix::of(&[impossible]), None);
}

#[test]
fn drift_is_found_between_bursts_and_a_span_is_widened_by_the_bound() {
    let truth = Truth { offset_ns: 7e9, drift: 40e-6 };
    let mut clock = FarClock::default();
    for at in [10.0, 70.0] {
        clock.learn(Fix::of(&[truth.ping(at * SECOND, 2e5, 2e5)]).unwrap());
    }
    let told = clock.summary("node1", std::iter::empty()).unwrap();
    assert!((told.drift_ppm.unwrap() - 40.0).abs() < 7.0, "{told:?}");
    assert!(told.bound_s < 1.5e-3 && told.stepped_s.is_none(), "{told:?}");
    let at = 40.0 * SECOND;
    let (from, to) = clock.here(truth.far(at), truth.far(at + 1e6)).unwrap();
    assert!(from <= ours(at) && ours(at + 1e6) <= to);
    assert!((to - from).as_secs_f64() < 4e-3, "{from:?} {to:?}");
}

#[test]
fn a_host_that_slept_is_found_and_makes_its_readings_as_wide_as_that() {
    let mut clock = FarClock::default();
    let before = Truth { offset_ns: 60e9, drift: 0.0 };
    let after = Truth { offset_ns: 55e9, drift: 0.0 };
    clock.learn(Fix::of(&[before.ping(SECOND, 1e5, 1e5)]).unwrap());
    clock.learn(Fix::of(&[after.ping(61.0 * SECOND, 1e5, 1e5)]).unwrap());
    let told = clock.summary("node1", std::iter::empty()).unwrap();
    assert!((told.stepped_s.unwrap() + 5.0).abs() < 1e-3, "{told:?}");
    assert!(told.bound_s > 5.0 && told.drift_ppm.is_none(), "{told:?}");
}

#[test]
fn what_is_not_known_is_not_said() {
    let mut clock = FarClock::default();
    assert_eq!(clock.summary("node1", std::iter::empty()), None);
    assert_eq!(clock.here(Nanos(1), Nanos(2)), None);
    let fix = Fix { far: Nanos(5), offset_ns: 9, bound: Nanos(1) };
    clock.learn(fix);
    // The same again, or an earlier one, tells nothing.
    clock.learn(fix);
    assert_eq!(clock.summary("node1", std::iter::empty()).unwrap().drift_ppm, None);
    // Before our own boot there is no time.
    assert_eq!(clock.here(Nanos(5), Nanos(6)).unwrap().0, Nanos(0));
}

proptest! {
    /// Whatever the ways took, the truth lies within the bound.
    #[test]
    fn the_bound_holds_for_any_delay(
        offset in -5e8..5e15, drift in -100e-6..100e-6, there in 0.0..5e7, back in 0.0..5e7,
        gap in 1.0..300.0, share in 0.0..1.0,
    ) {
        let truth = Truth { offset_ns: offset, drift };
        let mut clock = FarClock::default();
        let (begin, end) = (10.0 * SECOND, (10.0 + gap) * SECOND);
        clock.learn(Fix::of(&[truth.ping(begin, there, back)]).unwrap());
        clock.learn(Fix::of(&[truth.ping(end, back, there)]).unwrap());
        let at = begin + (end - begin) * share;
        let (from, to) = clock.here(truth.far(at), truth.far(at)).unwrap();
        // Floats of 5e15 have a grain of one.
        prop_assert!(from.0 <= ours(at).0 + 4 && ours(at).0 <= to.0 + 4, "{from:?} {} {to:?}", at);
        prop_assert_eq!(clock.summary("h", std::iter::empty()).unwrap().stepped_s, None);
    }
}
