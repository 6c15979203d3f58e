//! One deployment against another: a ratio with an interval that says what it holds.
//!
//! With three or more trials on each side the interval is Welch's on the logarithms of the trials'
//! values, so it holds the variance between trials. With fewer it is a bootstrap over requests, which
//! holds the variance within the run alone; it is widened by what two runs usually differ by, and its
//! method says so. Where both sides answered the same
//! requests, which one plan gives them, the bootstrap draws pairs: what differs between requests is then
//! not taken for a difference between deployments.

use super::{Frame, TrialRecords};
use crate::metrics::{self, Better, Metric, Of};
use crate::plan::{Plan, PointPlan};
use crate::request::RequestRecord;
use crate::results::{Comparison, ComparisonVerdict, Estimate, PointResult, lookup};
use crate::stats::bootstrap::{interval, resample};
use crate::stats::percentile::{percentile_of, split};
use crate::stats::quantile::quantile_sorted;
use crate::stats::student::t_975;
use crate::trust::TrustLevel;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Trials a side from which the variance between trials can be told.
const TRIALS_FOR_WELCH: usize = 3;

/// The smallest relative difference that is called one. Two runs of one deployment differ by that much.
const SMALLEST_DIFFERENCE: f64 = 0.01;

/// By how much two single runs of one deployment may differ, which neither of them can show: an
/// assumption, added to intervals over fewer trials than [`TRIALS_FOR_WELCH`]. Tails vary most.
fn run_to_run(metric: &Metric, stat: &str) -> f64 {
    let is_tail = match stat {
        "min" | "max" => true,
        _ => percentile_of(stat).is_some_and(|p| !(10.0..90.0).contains(&p)),
    };
    match metric.of {
        Of::Trial(_) => 0.03,
        _ if is_tail => 0.10,
        _ => 0.05,
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What is said of the point.
    pub result: &'a PointResult,
    /// Its records.
    pub trials: &'a [TrialRecords],
    /// What was asked.
    pub plan: &'a PointPlan,
}

/// Metrics of the verdict table.
const DEFAULT_METRICS: [&str; 5] =
    ["output_tps_per_gpu", "output_tps", "ttft.p50", "tpot.p50", "e2e.p95"];

/// Every deployment against the baseline, wherever both met the same load.
pub(super) fn all(plan: &Plan, sides: &[Side<'_>], frame: &Frame<'_>) -> Vec<Comparison> {
    let first = plan.deployments.first().map(|d| d.name.as_str());
    let Some(baseline) = frame.baseline.or(first) else { return Vec::new() };
    let mut names: Vec<&str> = DEFAULT_METRICS.to_vec();
    names.extend(frame.metrics.iter().filter(|m| !DEFAULT_METRICS.contains(m)));
    let mut out = Vec::new();
    for group in groups(sides) {
        let Some(base) = group.iter().find(|s| s.result.deployment == baseline) else { continue };
        for side in group.iter().filter(|s| s.result.deployment != baseline) {
            for name in &names {
                out.extend(compare(plan, name, side, base));
            }
        }
    }
    out
}

/// Points of one load at its n-th level, over deployments. Weak-scaling loads have other labels at
/// other sizes, so levels are matched by place.
pub(super) fn groups<'a, 'b>(sides: &'b [Side<'a>]) -> Vec<Vec<&'b Side<'a>>> {
    let ordinal = |side: &Side<'_>| {
        let same = |s: &&Side<'_>| {
            s.result.deployment == side.result.deployment && s.result.load == side.result.load
        };
        sides.iter().filter(same).position(|s| s.result.level == side.result.level).unwrap_or(0)
    };
    let mut groups: Vec<(&str, String, Vec<&Side<'a>>)> = Vec::new();
    for side in sides {
        let same_label = |(load, label, _): &&mut (&str, String, Vec<&Side<'a>>)| {
            *load == side.result.load && *label == side.result.level
        };
        if let Some((_, _, group)) = groups.iter_mut().find(same_label) {
            group.push(side);
            continue;
        }
        let place = ordinal(side);
        let by_place = groups.iter_mut().find(|(load, _, group)| {
            *load == side.result.load
                && group
                    .iter()
                    .all(|s| ordinal(s) == place && s.result.deployment != side.result.deployment)
        });
        match by_place {
            Some((_, _, group)) => group.push(side),
            None => groups.push((&side.result.load, side.result.level.clone(), vec![side])),
        }
    }
    groups.into_iter().map(|(_, _, group)| group).collect()
}

/// `side` against `base` on one metric; absent where either has no value, or no interval can be given.
pub(super) fn compare(
    plan: &Plan,
    name: &str,
    side: &Side<'_>,
    base: &Side<'_>,
) -> Option<Comparison> {
    let (stem, stat) = split(name);
    let stat = stat.unwrap_or("mean");
    let metric = metrics::find(stem)?;
    let (value, baseline_value) = (side.result.value(name)?, base.result.value(name)?);
    let ratio = ratio(plan, metric, name, stat, side, base, value / baseline_value)?;
    let trusted =
        |s: &Side<'_>| s.result.trust.level < TrustLevel::Invalid && s.result.value(name).is_some();
    let verdict = if trusted(side) && trusted(base) {
        judge(&ratio, metric.better)
    } else {
        ComparisonVerdict::NotTrusted
    };
    Some(Comparison {
        metric: name.to_owned(),
        load: side.result.load.clone(),
        level: side.result.level.clone(),
        deployment: side.result.deployment.clone(),
        baseline: base.result.deployment.clone(),
        value,
        baseline_value,
        ratio,
        verdict,
    })
}

fn judge(ratio: &Estimate, better: Better) -> ComparisonVerdict {
    let counts = (ratio.point - 1.0).abs() >= SMALLEST_DIFFERENCE;
    match (counts && ratio.low > 1.0, counts && ratio.high < 1.0, better) {
        (true, _, Better::Higher) | (_, true, Better::Lower) => ComparisonVerdict::Better,
        (true, _, Better::Lower) | (_, true, Better::Higher) => ComparisonVerdict::Worse,
        _ => ComparisonVerdict::NoDifferenceSeen,
    }
}

fn ratio(
    plan: &Plan,
    metric: &Metric,
    name: &str,
    stat: &str,
    side: &Side<'_>,
    base: &Side<'_>,
    point: f64,
) -> Option<Estimate> {
    if !point.is_finite() || point <= 0.0 {
        return None;
    }
    let few = side.trials.len().min(base.trials.len()) < TRIALS_FOR_WELCH;
    if !few {
        return welch(name, side, base, point);
    }
    let (a, b) = (blocks(plan, metric, side)?, blocks(plan, metric, base)?);
    let is_paired = a.keys == b.keys;
    let (mut pick, mut pool) = (Vec::new(), Vec::new());
    let mut draw = |rng: &mut Xoshiro256PlusPlus| {
        resample(a.keys.len(), rng, &mut pick);
        let over = a.of.value(&pick, stat, &mut pool)?;
        if !is_paired {
            resample(b.keys.len(), rng, &mut pick);
        }
        Some(over / b.of.value(&pick, stat, &mut pool)?)
    };
    let seed = crate::workload::derive_seed(&[a.keys.len() as u64, b.keys.len() as u64]);
    let (low, high) = interval(seed, |rng| draw(rng))?;
    let how =
        if is_paired { "bootstrap over pairs of like requests" } else { "bootstrap over requests" };
    let unseen = run_to_run(metric, stat);
    Some(Estimate {
        point,
        low: low.min(point) / (1.0 + unseen),
        high: high.max(point) * (1.0 + unseen),
        confidence: 0.95,
        method: format!(
            "{how}, widened by {:.0} % for what differs between runs (an assumption; {TRIALS_FOR_WELCH} repeats measure it)",
            unseen * 100.0
        ),
    })
}

/// Welch's interval on the logarithms of the trials' values (Welch 1947; log scale, since a ratio's
/// error is relative).
fn welch(name: &str, side: &Side<'_>, base: &Side<'_>, point: f64) -> Option<Estimate> {
    let logs = |s: &Side<'_>| -> Option<Vec<f64>> {
        let of = |t: &crate::results::TrialResult| {
            lookup(&t.metrics, name).filter(|v| *v > 0.0).map(f64::ln)
        };
        s.result.trials.iter().map(of).collect()
    };
    let moments = |x: &[f64]| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, var / n, n)
    };
    let (a, b) = (logs(side)?, logs(base)?);
    let ((ma, va, na), (mb, vb, nb)) = (moments(&a), moments(&b));
    let se2 = va + vb;
    let df = if se2 > 0.0 {
        se2 * se2 / (va * va / (na - 1.0) + vb * vb / (nb - 1.0))
    } else {
        na + nb - 2.0
    };
    let half = t_975(df) * se2.sqrt();
    let centre = ma - mb;
    Some(Estimate {
        point,
        low: (centre - half).exp().min(point),
        high: (centre + half).exp().max(point),
        confidence: 0.95,
        method: format!("Welch over {} and {} trials, on logarithms", a.len(), b.len()),
    })
}

/// Requests as resampling units, in the order of their keys.
struct Blocks {
    /// Trial and index: the same request of one plan has the same key on every deployment.
    keys: Vec<(u32, u64)>,
    of: Values,
}

enum Values {
    /// Samples of each request.
    Samples(Vec<Vec<f64>>),
    /// Amount, and seconds in flight, of each request, and the mean number in flight: by Little's law
    /// the rate is `in flight x amount / seconds`.
    Rate { amounts: Vec<(f64, f64)>, in_flight: f64, scale: f64 },
}

impl Values {
    fn value(&self, pick: &[usize], stat: &str, pool: &mut Vec<f64>) -> Option<f64> {
        match self {
            Self::Samples(samples) => {
                pool.clear();
                pick.iter().for_each(|i| pool.extend(&samples[*i]));
                statistic(pool, stat)
            }
            Self::Rate { amounts, in_flight, scale } => {
                let (amount, seconds) = pick
                    .iter()
                    .fold((0.0, 0.0), |(a, s), i| (a + amounts[*i].0, s + amounts[*i].1));
                (seconds > 0.0).then(|| in_flight * amount / seconds * scale)
            }
        }
    }
}

fn statistic(values: &mut [f64], stat: &str) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let q = match stat {
        "mean" => return Some(values.iter().sum::<f64>() / values.len() as f64),
        "min" => 0.0,
        "max" => 1.0,
        p => percentile_of(p)? / 100.0,
    };
    values.sort_unstable_by(f64::total_cmp);
    quantile_sorted(values, q)
}

fn blocks(plan: &Plan, metric: &Metric, side: &Side<'_>) -> Option<Blocks> {
    let mut all: Vec<((u32, u64), &RequestRecord)> = side
        .trials
        .iter()
        .flat_map(|t| t.records.iter().map(|r| ((t.number, r.index), r)))
        .collect();
    all.sort_by_key(|(key, _)| *key);
    let blocks = match metric.of {
        Of::Completed(_) | Of::Sent(_) => {
            let one = |(key, r): &((u32, u64), &RequestRecord)| {
                let mut out = Vec::new();
                metric.sample_one(r, &mut out);
                (!out.is_empty()).then_some((*key, out))
            };
            let (keys, samples) = all.iter().filter_map(one).unzip();
            Blocks { keys, of: Values::Samples(samples) }
        }
        Of::Trial(_) => rate_blocks(plan, metric, side, &all)?,
        // One look follows from the one before: they are no independent values.
        Of::Looks(_) => return None,
    };
    (blocks.keys.len() >= 2).then_some(blocks)
}

fn rate_blocks(
    plan: &Plan,
    metric: &Metric,
    side: &Side<'_>,
    all: &[((u32, u64), &RequestRecord)],
) -> Option<Blocks> {
    let context = super::context(plan, side.plan);
    let amount: fn(&RequestRecord) -> Option<f64> = match metric.name {
        "rps" | "rps_per_gpu" => |_| Some(1.0),
        "output_tps" | "output_tps_per_gpu" => |r| r.output_tokens.map(f64::from),
        "total_tps" => |r| Some(f64::from(r.output_tokens?) + f64::from(r.prompt_tokens?)),
        _ => return None,
    };
    let of = |(key, r): &((u32, u64), &RequestRecord)| {
        let seconds = (r.finished_at - r.sent_at?).as_secs_f64();
        Some((*key, (if r.is_completed() { amount(r)? } else { 0.0 }, seconds)))
    };
    let pairs: Option<Vec<_>> = all.iter().filter(|(_, r)| r.sent_at.is_some()).map(of).collect();
    let (keys, amounts) = pairs?.into_iter().unzip();
    let views = side.trials.iter().map(|t| t.view(&context));
    let reached = metrics::of_trials(&views.collect::<Vec<_>>());
    let scale = match metric.name.ends_with("_per_gpu") {
        true if context.gpus == 0 => return None,
        true => 1.0 / f64::from(context.gpus),
        false => 1.0,
    };
    let in_flight = lookup(&reached, "concurrency_reached")?;
    Some(Blocks { keys, of: Values::Rate { amounts, in_flight, scale } })
}
