//! Expectations: what the file says must hold.

use crate::results::{ExpectResult, PointResult};
use crate::spec::{ExpectSpec, Severity};

/// Every expectation at every point that it names. A metric without a value does not hold: missing is
/// not met.
pub fn all(points: &[PointResult], expects: &[ExpectSpec]) -> Vec<ExpectResult> {
    let mut out = Vec::new();
    for expect in expects {
        let what = format!("{} {} {}", expect.metric, expect.op, expect.value);
        let warn_only = expect.severity == Some(Severity::Warn);
        for point in points.iter().filter(|p| is_about(expect, &p.deployment, &p.load)) {
            let value = point.value(&expect.metric);
            out.push(ExpectResult {
                what: what.clone(),
                point: format!("{}/{}/{}", point.deployment, point.load, point.level),
                value,
                holds: value.is_some_and(|v| holds(v, &expect.op, expect.value)),
                warn_only,
            });
        }
    }
    out
}

/// Whether `expect` asks something of the points of `deployment` under `load`.
pub(super) fn is_about(expect: &ExpectSpec, deployment: &str, load: &str) -> bool {
    let is = |asked: Option<&String>, name: &str| asked.is_none_or(|asked| asked == name);
    expect
        .place
        .as_ref()
        .is_none_or(|place| is(place.deploy.as_ref(), deployment) && is(place.load.as_ref(), load))
}

/// `value op bound`. Equality allows for rounding in the last digits.
fn holds(value: f64, op: &str, bound: f64) -> bool {
    let equal = (value - bound).abs() <= 1e-9 * bound.abs().max(1.0);
    match op {
        "==" => equal,
        "!=" => !equal,
        "<" => value < bound && !equal,
        "<=" => value < bound || equal,
        ">" => value > bound && !equal,
        ">=" => value > bound || equal,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn comparisons_mean_what_they_say() {
        for (op, want) in [
            ("==", [false, true, false]),
            ("!=", [true, false, true]),
            ("<", [true, false, false]),
            ("<=", [true, true, false]),
            (">", [false, false, true]),
            (">=", [false, true, true]),
        ] {
            assert_eq!([0.5, 1.0, 1.5].map(|v| holds(v, op, 1.0)), want, "{op}");
        }
    }
}
