//! The binomial distribution: how much a count says about the share behind it.

/// The chance of at most `k` successes in `n` draws of chance `p`.
pub fn at_most(k: u64, n: u64, p: f64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    // The smaller tail is summed, so that a chance near one keeps its digits.
    if k as f64 <= n as f64 * p { lower(k, n, p) } else { 1.0 - lower(n - k - 1, n, 1.0 - p) }
}

/// The chance of at least `k` successes in `n` draws of chance `p`.
pub fn at_least(k: u64, n: u64, p: f64) -> f64 {
    match k {
        0 => 1.0,
        k if k > n => 0.0,
        k => at_most(n - k, n, 1.0 - p),
    }
}

/// The two-sided interval of Clopper and Pearson for the share behind `k` of `n`, with the given
/// confidence: exact, so never too narrow where draws are independent.
pub fn interval(k: u64, n: u64, confidence: f64) -> (f64, f64) {
    let tail = (1.0 - confidence) / 2.0;
    let low = if k == 0 { 0.0 } else { solve(|p| at_least(k, n, p) > tail) };
    let high = if k >= n { 1.0 } else { solve(|p| at_most(k, n, p) <= tail) };
    (low, high)
}

/// The smallest share from which on `is_beyond` holds, by bisection.
fn solve(is_beyond: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if is_beyond(middle) { high = middle } else { low = middle }
    }
    high
}

/// Sums from `k` down: terms fall, so the sum ends when they no longer count.
fn lower(k: u64, n: u64, p: f64) -> f64 {
    if p >= 1.0 {
        return 0.0;
    }
    let odds = (1.0 - p) / p;
    let mut term = ln_chance(k, n, p).exp();
    let mut sum = 0.0;
    for i in (0..=k).rev() {
        sum += term;
        if term < 1e-18 * sum {
            break;
        }
        term *= i as f64 / (n - i + 1) as f64 * odds;
    }
    sum.min(1.0)
}

fn ln_chance(k: u64, n: u64, p: f64) -> f64 {
    let choose = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    choose + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()
}

/// Stirling's series, whose error is below 1e-12 from 16 on; the product itself below.
fn ln_factorial(n: u64) -> f64 {
    if n < 16 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let x = n as f64;
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1_260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-9 * want.max(1e-3), "{got}, not {want}");
    }

    #[test]
    fn chances_are_those_worked_out_by_hand() {
        // Three throws of a fair coin: 1, 3, 3, 1 eighths.
        for (k, want) in [(0, 0.125), (1, 0.5), (2, 0.875), (3, 1.0)] {
            near(at_most(k, 3, 0.5), want);
        }
        near(at_least(2, 3, 0.5), 0.5);
        near(at_most(0, 299, 0.01), 0.99_f64.powi(299));
        near(at_least(1, 10, 0.1), 1.0 - 0.9_f64.powi(10));
        near(at_most(0, 1_000_000, 1e-6), (1.0 - 1e-6_f64).powi(1_000_000));
        assert_eq!((at_most(3, 9, 0.0), at_least(1, 9, 0.0), at_most(3, 9, 1.0)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn intervals_are_those_of_the_exact_sums() {
        // Solved from the sums of exact binomial terms.
        for ((k, n), (low, high)) in [
            ((8, 10), (0.443_904_5, 0.974_789_3)),
            ((0, 20), (0.0, 0.168_433_5)),
            ((299, 300), (0.981_568_7, 0.999_915_6)),
        ] {
            let got = interval(k, n, 0.95);
            assert!((got.0 - low).abs() < 1e-6 && (got.1 - high).abs() < 1e-6, "{k}/{n}: {got:?}");
        }
    }

    proptest! {
        #[test]
        fn the_two_tails_make_a_whole(n in 1u64..5_000, k in 0u64..5_000, p in 0.001f64..0.999) {
            let k = k.min(n);
            let whole = at_most(k, n, p) + at_least(k + 1, n, p);
            prop_assert!((whole - 1.0).abs() < 1e-9, "{whole}");
        }
    }
}
