//! A curve through points that neither overshoots nor bends back: what lies between two measurements.
//!
//! Piecewise cubic Hermite interpolation with the slopes of Fritsch and Butland (*A method for constructing local
//! monotone piecewise cubic interpolants*, SIAM J. Sci. Stat. Comput. 5, 1984), which is what `PCHIP` of Fritsch and
//! Carlson is in SLATEC, MATLAB and SciPy: the weighted harmonic mean of the two secants, zero where they differ in
//! sign.

/// A curve through points.
#[derive(Debug, Clone, PartialEq)]
pub struct Monotone {
    /// Places and values, by place.
    points: Vec<(f64, f64)>,
    /// Slope at each.
    slopes: Vec<f64>,
}

impl Monotone {
    /// Through `points`, whose places must rise strictly; absent for none, or where a number is not finite.
    pub fn through(points: Vec<(f64, f64)>) -> Option<Self> {
        let is_rising = points.windows(2).all(|w| w[0].0 < w[1].0);
        let is_finite = points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        if points.is_empty() || !is_rising || !is_finite {
            return None;
        }
        let slopes = slopes(&points);
        Some(Self { points, slopes })
    }

    /// The value at `x`; absent outside of the points: nothing is known there.
    pub fn at(&self, x: f64) -> Option<f64> {
        let (low, high) = self.around(x)?;
        let ((x0, y0), (x1, y1)) = (self.points[low], self.points[high]);
        if low == high {
            return Some(y0);
        }
        let width = x1 - x0;
        let t = (x - x0) / width;
        let (d0, d1) = (self.slopes[low] * width, self.slopes[high] * width);
        let s = 1.0 - t;
        // In Hermite's basis; clamped, since the last digit of a sum may lie outside.
        let value = y0 * s * s * (1.0 + 2.0 * t)
            + y1 * t * t * (1.0 + 2.0 * s)
            + d0 * t * s * s
            + -d1 * t * t * s;
        Some(value.clamp(y0.min(y1), y0.max(y1)))
    }

    /// Positions of the two points that `x` lies between, twice the same where it is at one; absent outside.
    pub fn around(&self, x: f64) -> Option<(usize, usize)> {
        let above = self.points.partition_point(|p| p.0 < x);
        let next = self.points.get(above)?;
        #[expect(clippy::float_cmp, reason = "at a point its own value is given, at no other")]
        if next.0 == x {
            return Some((above, above));
        }
        Some((above.checked_sub(1).filter(|_| x.is_finite())?, above))
    }
}

fn slopes(points: &[(f64, f64)]) -> Vec<f64> {
    let widths: Vec<f64> = points.windows(2).map(|w| w[1].0 - w[0].0).collect();
    let secants: Vec<f64> =
        points.windows(2).zip(&widths).map(|(w, h)| (w[1].1 - w[0].1) / h).collect();
    let n = points.len();
    match secants.as_slice() {
        [] => return vec![0.0; n],
        [only] => return vec![*only; n],
        _ => {}
    }
    let mut out = Vec::with_capacity(n);
    out.push(end_slope((widths[0], widths[1]), (secants[0], secants[1])));
    for i in 1..n - 1 {
        out.push(inner_slope((widths[i - 1], widths[i]), (secants[i - 1], secants[i])));
    }
    let last = n - 2;
    let (widths, secants) = (&widths[last - 1..], &secants[last - 1..]);
    out.push(end_slope((widths[1], widths[0]), (secants[1], secants[0])));
    out
}

/// Between two secants: their harmonic mean, weighted by the widths; zero at a turn.
fn inner_slope((h0, h1): (f64, f64), (d0, d1): (f64, f64)) -> f64 {
    if d0 * d1 <= 0.0 {
        return 0.0;
    }
    let (w0, w1) = (2.0 * h1 + h0, h1 + 2.0 * h0);
    (w0 + w1) / (w0 / d0 + w1 / d1)
}

/// At an end: of the parabola through three points, cut where it would bend back. Nearest first.
fn end_slope((h0, h1): (f64, f64), (d0, d1): (f64, f64)) -> f64 {
    let slope = ((2.0 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
    if slope * d0 <= 0.0 {
        0.0
    } else if d0 * d1 <= 0.0 && slope.abs() > 3.0 * d0.abs() {
        3.0 * d0
    } else {
        slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_what_scipy_makes_of_the_same_points() {
        // SciPy 1.17.1, scipy.interpolate.PchipInterpolator([0, 1, 3, 4], [0, 1, 2, 5])([0.5, 2, 3.5])
        let curve =
            Monotone::through(vec![(0.0, 0.0), (1.0, 1.0), (3.0, 2.0), (4.0, 5.0)]).unwrap();
        for (x, want) in SCIPY {
            let is = curve.at(x).unwrap();
            assert!((is - want).abs() < 1e-9, "{x}: {is}, not {want}");
        }
    }

    const SCIPY: [(f64, f64); 3] =
        [(0.5, 0.559_294_871_794_872), (2.0, 1.440_318_302_387_268), (3.5, 3.137_212_643_678_161)];

    #[test]
    fn nothing_is_said_outside_of_the_points() {
        let curve = Monotone::through(vec![(1.0, 5.0), (2.0, 4.0)]).unwrap();
        assert_eq!(curve.at(1.5), Some(4.5));
        assert_eq!([0.99, 2.01, f64::NAN, f64::INFINITY].map(|x| curve.at(x)), [None; 4]);
        assert_eq!((curve.around(1.5), curve.around(2.0)), (Some((0, 1)), Some((1, 1))));
        let one = Monotone::through(vec![(1.0, 5.0)]).unwrap();
        assert_eq!((one.at(1.0), one.at(1.1)), (Some(5.0), None));
    }

    #[test]
    fn points_that_are_no_curve_are_refused() {
        for points in [vec![], vec![(1.0, 1.0), (1.0, 2.0)], vec![(2.0, 1.0), (1.0, 2.0)]] {
            assert_eq!(Monotone::through(points), None);
        }
        assert_eq!(Monotone::through(vec![(1.0, f64::NAN)]), None);
    }

    prop_compose! {
        /// Places that rise, and values that go one way.
        fn one_way()(steps in prop::collection::vec((0.01_f64..50.0, 0.0_f64..50.0), 1..12), falls: bool)
            -> Vec<(f64, f64)> {
            let sign = if falls { -1.0 } else { 1.0 };
            let mut at = (0.0, 0.0);
            steps.iter().map(|(dx, dy)| {
                at = (at.0 + dx, at.1 + sign * dy);
                at
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn it_goes_through_its_points(points in one_way()) {
            let curve = Monotone::through(points.clone()).unwrap();
            for (x, y) in points {
                prop_assert_eq!(curve.at(x), Some(y));
            }
        }

        #[test]
        fn what_goes_one_way_is_read_one_way(points in one_way()) {
            let curve = Monotone::through(points.clone()).unwrap();
            let (first, last) = (points[0], points[points.len() - 1]);
            let sign = if last.1 < first.1 { -1.0 } else { 1.0 };
            let at = |i: u32| first.0 + (last.0 - first.0) * f64::from(i) / 200.0;
            let read: Vec<f64> = (0..=200).filter_map(|i| curve.at(at(i))).collect();
            prop_assert!(read.len() >= 200, "inside there is always a value");
            for w in read.windows(2) {
                prop_assert!(sign * (w[1] - w[0]) >= -1e-9, "{:?}", w);
            }
        }

        #[test]
        fn it_lies_between_its_neighbours(
            values in prop::collection::vec(-1e3_f64..1e3, 2..10), share in 0.0_f64..=1.0,
        ) {
            let points: Vec<(f64, f64)> =
                values.iter().zip(0_u32..).map(|(y, i)| (f64::from(i), *y)).collect();
            let x = share * (values.len() - 1) as f64;
            let curve = Monotone::through(points.clone()).unwrap();
            let (low, high) = curve.around(x).unwrap();
            let (a, b) = (points[low].1, points[high].1);
            let y = curve.at(x).unwrap();
            prop_assert!(a.min(b) <= y && y <= a.max(b));
        }
    }
}
