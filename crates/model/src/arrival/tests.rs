use super::*;
use proptest::prelude::*;

const RATES: [f64; 5] = [0.1, 150.0, 999.0, 1_500.0, 20_000.0];

fn arrivals(kind: ArrivalKind, rate: impl Into<ArrivalRate>, seed: u64) -> Arrivals {
    Arrivals::new(kind, &rate.into(), seed)
}

fn gamma(burstiness: f64) -> ArrivalKind {
    ArrivalKind::Gamma { burstiness }
}

/// The greatest distance between the distribution of `values` and the one that `cdf` says
/// (Kolmogorov-Smirnov, two-sided), times the square root of their number.
fn kolmogorov_smirnov(mut values: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let (below, want, with) = (i as f64 / n, cdf(*x), (i + 1) as f64 / n);
        (want - below).abs().max((with - want).abs())
    };
    values.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
}

/// One in a thousand samples of the distribution itself is further off than this.
const KS_LIMIT: f64 = 1.95;

/// The gamma distribution of shape `k` and mean one, by the series of the incomplete gamma function;
/// `gamma_k1` is Gamma(k + 1).
fn gamma_cdf(k: f64, gamma_k1: f64) -> impl Fn(f64) -> f64 {
    move |x| {
        let x = k * x;
        if x > 60.0 {
            return 1.0;
        }
        let (mut term, mut sum) = (1.0, 1.0);
        for n in 1..400 {
            term *= x / (k + f64::from(n));
            sum += term;
        }
        (x.powf(k) * (-x).exp() / gamma_k1) * sum
    }
}

/// The gaps between arrivals, in mean gaps.
fn gaps(kind: ArrivalKind, rate: f64, seed: u64) -> Vec<f64> {
    let mut last = Nanos::ZERO;
    let due = arrivals(kind, rate, seed).take(20_000);
    due.map(|at| rate * (at - std::mem::replace(&mut last, at)).as_secs_f64()).collect()
}

#[test]
fn gaps_follow_their_distribution() {
    let sqrt_pi = std::f64::consts::PI.sqrt();
    let shapes = [
        (ArrivalKind::Poisson, 1.0, 1.0),
        (gamma(1.0), 1.0, 1.0),
        (gamma(0.5), 0.5, sqrt_pi / 2.0),
        (gamma(2.0), 2.0, 2.0),
        (gamma(4.0), 4.0, 24.0),
    ];
    for (kind, k, gamma_k1) in shapes {
        for seed in 0..6 {
            // Slow enough that a nanosecond is nothing against the smallest gaps.
            let d = kolmogorov_smirnov(gaps(kind, 0.1, seed), gamma_cdf(k, gamma_k1));
            assert!(d < KS_LIMIT, "{kind:?}, seed {seed}: {d}");
        }
    }
}

#[test]
fn the_test_of_distributions_tells_neighbours_apart() {
    let exponential = gamma_cdf(1.0, 1.0);
    for kind in [gamma(0.8), gamma(1.25), ArrivalKind::Constant] {
        let d = kolmogorov_smirnov(gaps(kind, 0.1, 1), &exponential);
        assert!(d > 2.0 * KS_LIMIT, "{kind:?}: {d}");
    }
}

#[test]
fn constant_due_times_do_not_drift_at_any_rate() {
    for rate in RATES {
        let mut due = arrivals(ArrivalKind::Constant, rate, 1);
        assert_eq!(due.next(), Some(Nanos::ZERO));
        let got = due.nth(999_999).unwrap().as_secs_f64();
        assert!((got * rate / 1e6 - 1.0).abs() < 1e-9, "at {rate}/s: {got} s");
    }
}

#[test]
fn the_mean_rate_is_the_one_asked_for() {
    // Statistical error of the mean of n gaps: 1 / sqrt(n) = 0.026 %.
    const N: usize = 15_000_000;
    let unit = arrivals(ArrivalKind::Poisson, 1.0, 7).nth(N - 1).unwrap().as_secs_f64();
    assert!((unit / N as f64 - 1.0).abs() < 1e-3, "{unit}");
    // The same arrivals at other rates: only the stretch can be wrong.
    let few = N / 1_000;
    let unit = arrivals(ArrivalKind::Poisson, 1.0, 7).nth(few).unwrap().as_secs_f64();
    for rate in RATES {
        let got = arrivals(ArrivalKind::Poisson, rate, 7).nth(few).unwrap().as_secs_f64();
        assert!((got * rate / unit - 1.0).abs() < 1e-9, "at {rate}/s");
    }
}

#[test]
fn gamma_keeps_its_mean_and_has_the_spread_that_was_asked() {
    for burstiness in [0.1, 0.5, 3.0, 20.0] {
        let gaps = gaps(gamma(burstiness), 2.0, 5);
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n;
        let spread = 1.0 / burstiness.sqrt();
        assert!((mean - 1.0).abs() < 5.0 * spread / n.sqrt(), "{burstiness}: mean {mean}");
        assert!((variance.sqrt() / spread - 1.0).abs() < 0.1, "{burstiness}: {variance}");
    }
}

#[test]
fn gamma_of_shape_one_is_poisson() {
    let take = |kind| arrivals(kind, 30.0, 3).take(1_000).collect::<Vec<_>>();
    assert_eq!(take(gamma(1.0)), take(ArrivalKind::Poisson));
}

#[test]
fn adding_gaps_never_rounds() {
    let (mut forward, mut backward) = (UnitTime::default(), UnitTime::default());
    let gap = |i: u32| f64::from(i).sqrt() * if i.is_multiple_of(3) { 1e-9 } else { 1e3 };
    (0..10_000).for_each(|i| forward.advance(gap(i)));
    (0..10_000).rev().for_each(|i| backward.advance(gap(i)));
    assert_eq!(forward.0, backward.0, "a sum that rounds depends on the order");
}

fn ramp(from_rps: f64, to_rps: f64, over_s: u64) -> ArrivalRate {
    ArrivalRate::Profile(RateProfile::Ramp { from_rps, to_rps, over: Nanos::from_secs(over_s) })
}

fn steps(of: &[(f64, Option<u64>)]) -> ArrivalRate {
    let step =
        |&(rate_rps, s): &(f64, Option<u64>)| RateStep { rate_rps, lasts: s.map(Nanos::from_secs) };
    ArrivalRate::Profile(RateProfile::Steps { steps: of.iter().map(step).collect() })
}

fn seconds(rate: &ArrivalRate, n: usize) -> Vec<f64> {
    let due = Arrivals::new(ArrivalKind::Constant, rate, 1);
    due.take(n).map(Nanos::as_secs_f64).collect()
}

#[test]
fn due_times_of_profiles_are_those_worked_out_by_hand() {
    // From 0 to 10/s over 10 s: the n-th at sqrt(2 n), 50 in the ramp, then ten a second.
    let up = seconds(&ramp(0.0, 10.0, 10), 71);
    for n in [0usize, 1, 2, 8, 18, 50] {
        assert!((up[n] - (2.0 * n as f64).sqrt()).abs() < 1e-9, "{n}: {}", up[n]);
    }
    assert!((up[70] - 12.0).abs() < 1e-9);
    // A pause of ten seconds; the request that would be due at its start is due at its end.
    let paused = steps(&[(0.1, Some(30)), (0.0, Some(10)), (1.0, Some(2))]);
    assert_eq!(seconds(&paused, 100), [0.0, 10.0, 20.0, 40.0, 41.0]);
    assert_eq!(paused.ends_at(), Some(Nanos::from_secs(42)));
    // It begins with a pause.
    assert_eq!(seconds(&steps(&[(0.0, Some(5)), (2.0, None)]), 3), [5.0, 5.5, 6.0]);
    // Down to nothing: 50 requests and no more.
    let down = ramp(10.0, 0.0, 10);
    assert_eq!(seconds(&down, 100).len(), 50);
    assert_eq!(down.ends_at(), Some(Nanos::from_secs(10)));
    assert_eq!((up.len(), ramp(0.0, 10.0, 10).ends_at()), (71, None));
    // A whole wave has as many as its mean says.
    let wave = ArrivalRate::Profile(RateProfile::Sine {
        mean_rps: 5.0,
        amplitude_rps: 5.0,
        period: Nanos::from_secs(60),
    });
    for n in 0..1_000u32 {
        let got = wave.due(300.0 * f64::from(n)).unwrap();
        assert!(got.0.abs_diff(Nanos::from_secs(60 * u64::from(n)).0) < 100_000, "{n}: {got:?}");
    }
    assert!((wave.peak_rps() - 10.0).abs() < 1e-12);
}

#[test]
fn rates_that_are_none_end_at_once_instead_of_hanging() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(arrivals(ArrivalKind::Poisson, rate, 1).next(), None, "{rate}");
        assert_eq!(Arrivals::new(ArrivalKind::Poisson, &ramp(rate, rate, 1), 1).next(), None);
    }
    for period in [Nanos::ZERO, Nanos::from_secs(1)] {
        let flat = RateProfile::Sine { mean_rps: f64::NAN, amplitude_rps: 1.0, period };
        assert_eq!(ArrivalRate::Profile(flat).due(1.0), None);
    }
    assert_eq!(Arrivals::new(ArrivalKind::Constant, &steps(&[]), 1).next(), None);
    assert_eq!(arrivals(gamma(f64::NAN), 1.0, 1).nth(5), Some(Nanos::from_secs(5)));
}

#[test]
fn a_rate_is_a_number_or_a_profile_in_json() {
    let read = |text: &str| serde_json::from_str::<ArrivalRate>(text).unwrap();
    assert_eq!(read("5"), ArrivalRate::Constant(5.0));
    let profile = ramp(1.0, 50.0, 60);
    let json = serde_json::to_string(&profile).unwrap();
    assert_eq!(json, r#"{"kind":"ramp","from_rps":1.0,"to_rps":50.0,"over":60000000000}"#);
    assert_eq!(read(&json), profile);
    let kinds = [r#""poisson""#, r#""constant""#, r#"{"gamma":{"burstiness":0.5}}"#];
    for kind in kinds {
        let read: ArrivalKind = serde_json::from_str(kind).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), kind);
    }
}

/// The rate at an instant, as the definitions say; the inverse is held against its integral.
fn rps_at(rate: &ArrivalRate, t: f64) -> f64 {
    match rate {
        ArrivalRate::Constant(rate) => *rate,
        ArrivalRate::Profile(RateProfile::Ramp { from_rps, to_rps, over }) => {
            let part = (t / over.as_secs_f64()).min(1.0);
            from_rps + (to_rps - from_rps) * part
        }
        ArrivalRate::Profile(RateProfile::Steps { steps }) => {
            let mut until = 0.0;
            let now = steps.iter().find(|s| {
                until += s.lasts.map_or(f64::INFINITY, Nanos::as_secs_f64);
                t < until
            });
            now.map_or(0.0, |s| s.rate_rps)
        }
        ArrivalRate::Profile(RateProfile::Sine { mean_rps, amplitude_rps, period }) => {
            mean_rps + amplitude_rps * (std::f64::consts::TAU * t / period.as_secs_f64()).sin()
        }
    }
}

/// Instants that a rule of integration must not step over: kinks, jumps, quarters of waves.
fn edges(rate: &ArrivalRate, from: f64, to: f64) -> Vec<f64> {
    let inner: Vec<f64> = match rate {
        ArrivalRate::Constant(_) => Vec::new(),
        ArrivalRate::Profile(RateProfile::Ramp { over, .. }) => vec![over.as_secs_f64()],
        ArrivalRate::Profile(RateProfile::Steps { steps }) => {
            let spans = steps.iter().filter_map(|s| s.lasts).map(Nanos::as_secs_f64);
            spans
                .scan(0.0, |t, span| {
                    *t += span;
                    Some(*t)
                })
                .collect()
        }
        ArrivalRate::Profile(RateProfile::Sine { period, .. }) => {
            let quarter = period.as_secs_f64() / 4.0;
            let first = (from / quarter).floor();
            (0..).map(|i| (first + f64::from(i)) * quarter).take_while(|t| *t < to).collect()
        }
    };
    let inner = inner.into_iter().filter(|t| *t > from && *t < to);
    [from].into_iter().chain(inner).chain([to]).collect()
}

/// The integral of the rate over `from..to` by Gauss-Legendre of three points on short stretches.
fn integral(rate: &ArrivalRate, from: f64, to: f64) -> f64 {
    const PARTS: u32 = 12;
    let node = (3.0f64 / 5.0).sqrt();
    let mut sum = 0.0;
    for edge in edges(rate, from, to).windows(2) {
        let half = (edge[1] - edge[0]) / f64::from(2 * PARTS);
        for i in 0..PARTS {
            let middle = edge[0] + f64::from(2 * i + 1) * half;
            let at = |x: f64| rps_at(rate, middle + half * x);
            sum += half * (5.0 * at(-node) + 8.0 * at(0.0) + 5.0 * at(node)) / 9.0;
        }
    }
    sum
}

fn profiles() -> impl Strategy<Value = ArrivalRate> {
    let rate = || prop_oneof![1 => Just(0.0), 6 => 0.05f64..200.0];
    let step = (rate(), 1u64..20);
    prop_oneof![
        (0.05f64..500.0).prop_map(ArrivalRate::Constant),
        (rate(), 0.05f64..200.0, 1u64..60).prop_map(|(a, b, s)| ramp(a, b, s)),
        proptest::collection::vec(step, 1..6).prop_map(|of| {
            let mut all: Vec<_> = of.into_iter().map(|(r, s)| (r, Some(s))).collect();
            all.push((3.0, None));
            steps(&all)
        }),
        (0.5f64..200.0, 0.0f64..0.99, 1u64..60).prop_map(|(mean, share, s)| {
            let (amplitude, period) = (mean * share, Nanos::from_secs(s));
            ArrivalRate::Profile(RateProfile::Sine {
                mean_rps: mean,
                amplitude_rps: amplitude,
                period,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn due_times_are_ordered_and_repeat_with_their_seed(
        rate in profiles(), seed: u64, shape in 0.05f64..20.0, pick in 0u8..3,
    ) {
        let kind = [ArrivalKind::Poisson, ArrivalKind::Constant, gamma(shape)][usize::from(pick)];
        let take = || Arrivals::new(kind, &rate, seed).take(200).collect::<Vec<_>>();
        let a = take();
        prop_assert_eq!(a.len(), 200);
        prop_assert_eq!(&a, &take());
        // Each is rounded by itself: two at one instant may change places by a nanosecond.
        prop_assert!(a.windows(2).all(|w| w[0] <= w[1] + Nanos(1)));
    }

    /// Passing over arrivals, as shards do, changes none.
    #[test]
    fn every_third_arrival_is_the_same_alone(rate in profiles(), seed: u64, skip in 0usize..5) {
        let all: Vec<_> = Arrivals::new(gamma(0.5), &rate, seed).take(120).collect();
        let mut alone = Arrivals::new(gamma(0.5), &rate, seed);
        let mut got = Vec::new();
        while got.len() < 120 / (skip + 1) {
            got.extend(alone.nth(skip));
        }
        let want: Vec<_> = all.into_iter().skip(skip).step_by(skip + 1).collect();
        prop_assert_eq!(got, want);
    }

    /// The n-th arrival of a constant process is due when the rate's integral is n, to a nanosecond.
    #[test]
    fn due_times_invert_the_integral_of_the_rate(rate in profiles(), upto in 1usize..1_000) {
        let mut due = Arrivals::new(ArrivalKind::Constant, &rate, 1).take(upto);
        let last = due.by_ref().last().unwrap().as_secs_f64();
        let count = integral(&rate, 0.0, last);
        let n = (upto - 1) as f64;
        let nanosecond = 1e-9 * rps_at(&rate, last).max(rate.peak_rps() * 1e-3) + 1e-12 * n;
        prop_assert!((count - n).abs() <= nanosecond + 1e-9, "{} is not {} at {} s", count, n, last);
        prop_assert!(rps_at(&rate, last + 1e-9) > 0.0, "due in a pause");
    }

    /// Undoing the stretch leaves the process of rate one: exponential gaps under every profile.
    #[test]
    fn a_profile_does_not_change_the_process(rate in profiles(), seed in 0u64..1_000) {
        let due: Vec<f64> =
            Arrivals::new(ArrivalKind::Poisson, &rate, seed).take(300).map(Nanos::as_secs_f64).collect();
        let mut last = 0.0;
        let gaps = due.iter().map(|t| integral(&rate, std::mem::replace(&mut last, *t), *t)).collect();
        let d = kolmogorov_smirnov(gaps, gamma_cdf(1.0, 1.0));
        // Far out: this runs over hundreds of samples, each of which may be an unusual one.
        prop_assert!(d < 2.8, "{}", d);
    }
}
