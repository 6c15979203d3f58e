//! Expectations: what the file says must hold.

use super::fairness::{self, Fairness};
use super::scaling::{Basis, Scaling, Step};
use super::search::SLO_CAPACITY;
use crate::results::{ExpectResult, PointResult, SearchResult, Skipped};
use crate::spec::{ExpectSpec, Severity};

/// The metric of which something is asked of the steps of a study of scaling.
pub(super) fn of_scaling(name: &str) -> Option<&str> {
    name.strip_prefix(SPEEDUP).or_else(|| name.strip_prefix(EFFICIENCY))
}

const SPEEDUP: &str = "speedup.";
const EFFICIENCY: &str = "efficiency.";

/// What is found of a run besides its points.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'a> {
    /// Searches of the highest load.
    pub searches: &'a [SearchResult],
    /// Studies of scaling.
    pub scaling: &'a [Scaling],
    /// Mixed loads.
    pub mixed: &'a [Fairness],
    /// Deployments and loads of the plan, without those that could not be measured here: what is asked of others is
    /// not asked of this run.
    pub deployments: &'a [&'a str],
    /// Loads of it.
    pub loads: &'a [&'a str],
    /// Deployments of it that could not be measured here.
    pub skipped: &'a [Skipped],
}

impl Found<'_> {
    /// Whether `expect` asks something of what was to be measured in this run.
    fn asks(&self, expect: &ExpectSpec) -> bool {
        let is_in = |asked: Option<&String>, known: &[&str]| {
            asked.is_none_or(|name| known.contains(&name.as_str()))
        };
        expect.place.as_ref().is_none_or(|place| {
            is_in(place.deploy.as_ref(), self.deployments) && is_in(place.load.as_ref(), self.loads)
        })
    }
}

/// What is asked of a deployment that was not measured, which nobody has looked at.
fn not_checked(expect: &ExpectSpec, found: &Found<'_>) -> Option<ExpectResult> {
    let place = expect.place.as_ref()?;
    let skipped = found.skipped.iter().find(|s| place.deploy.as_ref() == Some(&s.deployment))?;
    let named = [Some(skipped.deployment.as_str()), place.load.as_deref()];
    let named: Vec<&str> = named.into_iter().flatten().collect();
    let why = skipped.reason.lines().next().unwrap_or_default();
    let why = format!("{} was skipped because {why}", skipped.deployment);
    Some(ExpectResult { not_checked: true, ..result(expect, named.join("/"), None, Some(why)) })
}

/// An expectation that nothing was found for has not been met.
fn unmet(expect: &ExpectSpec) -> ExpectResult {
    let place = expect.place.as_ref();
    let named = place.map(|p| [p.deploy.as_deref(), p.load.as_deref()]);
    let named: Vec<&str> = named.into_iter().flatten().flatten().collect();
    let point = if named.is_empty() { "the run".to_owned() } else { named.join("/") };
    let why = match of_scaling(&expect.metric) {
        Some(_) => {
            "no study of scaling has it: two deployments of different size must have met the same load"
        }
        None => "nothing that was measured is meant by it",
    };
    result(expect, point, None, Some(why.to_owned()))
}

/// Every expectation at every point that it names, or at every search, size or mixed load. A metric without a value
/// does not hold: missing is not met. The probes of a search are not points that were asked for: some must fail.
pub fn all(points: &[PointResult], found: &Found<'_>, expects: &[ExpectSpec]) -> Vec<ExpectResult> {
    let mut out = Vec::new();
    for expect in expects {
        let of_it = of_one(points, found, expect);
        if of_it.is_empty() && found.asks(expect) && !is_of_others(points, found, expect) {
            out.push(unmet(expect));
        } else if of_it.is_empty() {
            out.extend(not_checked(expect, found));
        }
        out.extend(of_it);
    }
    out
}

/// Whether what it is about was measured, and is not asked: levels that a search tried, and mixes of which no report
/// names what they are held against.
fn is_of_others(points: &[PointResult], found: &Found<'_>, expect: &ExpectSpec) -> bool {
    let is_of_mixes = fair(expect, found.mixed).is_some();
    let mixed = || found.mixed.iter().any(|f| is_about(expect, &f.deployment, &f.load));
    let tried = || points.iter().any(|p| p.is_probe && is_about(expect, &p.deployment, &p.load));
    let is_of_points =
        !is_of_mixes && expect.metric != SLO_CAPACITY && of_scaling(&expect.metric).is_none();
    (is_of_mixes && mixed()) || (is_of_points && tried())
}

/// What is found for one of them.
fn of_one(points: &[PointResult], found: &Found<'_>, expect: &ExpectSpec) -> Vec<ExpectResult> {
    let mut out = Vec::new();
    let mut add = |point: String, value| out.push(result(expect, point, value, None));
    if expect.metric == SLO_CAPACITY {
        for s in found.searches.iter().filter(|s| is_about(expect, &s.deployment, &s.load)) {
            let value = s.met.as_ref().map(|side| side.value);
            add(format!("{}/{}", s.deployment, s.load), value);
        }
        return out;
    }
    if let Some(metric) = of_scaling(&expect.metric) {
        for (study, step) in steps(found.scaling, metric) {
            if is_about(expect, &step.deployment, &study.load) {
                let point = format!("{}/{}/{}", step.deployment, study.load, step.level);
                let value = grown(step, &expect.metric);
                let marks: Vec<&str> = step.marks.iter().map(|m| m.message.as_str()).collect();
                let why = value.is_none().then(|| marks.join("; "));
                out.push(result(expect, point, value, why));
            }
        }
        return out;
    }
    if let Some(results) = fair(expect, found.mixed) {
        return results;
    }
    for p in points.iter().filter(|p| !p.is_probe && is_about(expect, &p.deployment, &p.load)) {
        add(format!("{}/{}/{}", p.deployment, p.load, p.level), p.value(&expect.metric));
    }
    out
}

/// Sizes beside their baseline, each at the load of its study.
fn steps<'a>(
    scaling: &'a [Scaling],
    metric: &'a str,
) -> impl Iterator<Item = (&'a Scaling, &'a Step)> {
    let is_asked = move |s: &&Scaling| s.metric == metric && matches!(s.basis, Basis::Load { .. });
    scaling.iter().filter(is_asked).flat_map(|s| s.steps.iter().skip(1).map(move |step| (s, step)))
}

fn grown(step: &Step, name: &str) -> Option<f64> {
    match name.starts_with(SPEEDUP) {
        true => Some(step.speedup.point),
        false => step.efficiency.map(|e| e.point),
    }
}

fn result(
    expect: &ExpectSpec,
    point: String,
    value: Option<f64>,
    absent: Option<String>,
) -> ExpectResult {
    ExpectResult {
        what: format!("{} {} {}", expect.metric, expect.op, expect.value),
        point,
        value,
        holds: value.is_some_and(|v| holds(v, &expect.op, expect.value)),
        absent,
        not_checked: false,
        warn_only: expect.severity == Some(Severity::Warn),
    }
}

/// What is found of mixed loads only; absent for what points have themselves.
fn fair(expect: &ExpectSpec, mixed: &[Fairness]) -> Option<Vec<ExpectResult>> {
    let slowdown = fairness::slowdown_of(&expect.metric);
    if slowdown.is_none() && expect.metric != fairness::JAIN {
        return None;
    }
    // A load that no report names a yardstick for is asked only by its name.
    let is_named = expect.place.as_ref().is_some_and(|place| place.load.is_some());
    let is_asked = |f: &&Fairness| slowdown.is_none() || f.alone.is_some() || is_named;
    let mut out: Vec<ExpectResult> = Vec::new();
    for f in mixed.iter().filter(|f| is_about(expect, &f.deployment, &f.load)).filter(is_asked) {
        let found = match &slowdown {
            Some(metric) => f.slowdown(metric),
            None => f.jain(),
        };
        let (value, absent) = found.map_or_else(|why| (None, Some(why)), |v| (Some(v), None));
        let result =
            result(expect, format!("{}/{}/{}", f.deployment, f.load, f.level), value, absent);
        // Two reports of one load say the same.
        if !out.contains(&result) {
            out.push(result);
        }
    }
    Some(out)
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
