//! Which deployment is best, by how much, how surely: one sentence per load level.

use super::compare::{Side, groups, one};
use crate::results::{Comparison, ComparisonVerdict, Verdict};
use crate::trust::TrustLevel;
use crate::units::significant;

pub(super) fn all(sides: &[Side<'_>]) -> Vec<Verdict> {
    groups(sides).iter().filter(|g| g.len() > 1).map(|group| verdict(group)).collect()
}

fn verdict(group: &[&Side<'_>]) -> Verdict {
    // Per allocated GPU is what is paid for; without GPUs on every side only the whole can be compared.
    let per_gpu = group.iter().all(|s| s.result.gpus > 0);
    let metric = if per_gpu { "output_tps_per_gpu" } else { "output_tps" };
    let unit = if per_gpu { "output tokens/s per GPU" } else { "output tokens/s" };
    let (best, text) = words(group, metric, unit);
    let first = group[0].result;
    Verdict {
        load: first.load.clone(),
        level: first.level.clone(),
        metric: metric.to_owned(),
        best,
        text,
    }
}

fn words(group: &[&Side<'_>], metric: &str, unit: &str) -> (Option<String>, String) {
    let mut ranked: Vec<(f64, &Side<'_>)> = group
        .iter()
        .filter(|s| s.result.trust.level < TrustLevel::Invalid)
        .filter_map(|s| Some((s.result.value(metric)?, *s)))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let left_out = group.len() - ranked.len();
    let note = match left_out {
        0 => String::new(),
        n => format!(" ({n} not to be trusted, left out)"),
    };
    let [(value, best), rest @ ..] = ranked.as_slice() else {
        return (None, format!("no verdict: no deployment has numbers that can be trusted{note}"));
    };
    let name = &best.result.deployment;
    if rest.is_empty() {
        return (None, format!("no verdict: only {name} has numbers that can be trusted{note}"));
    }
    let against: Vec<Comparison> = rest.iter().filter_map(|(_, s)| one(metric, best, s)).collect();
    let ties: Vec<&str> = against
        .iter()
        .filter(|c| c.verdict != ComparisonVerdict::Better)
        .map(|c| c.baseline.as_str())
        .collect();
    let beaten: Vec<String> = against
        .iter()
        .filter(|c| c.verdict == ComparisonVerdict::Better)
        .map(|c| {
            let r = |x: f64| significant(x);
            let (p, l, h) = (r(c.ratio.point), r(c.ratio.low), r(c.ratio.high));
            format!("{p} times {} (95 % interval {l} to {h})", c.baseline)
        })
        .collect();
    let value = significant(*value);
    if !ties.is_empty() {
        let mut text = format!(
            "no difference that we can see between {name} and {}: {value} {unit}",
            ties.join(", ")
        );
        if !beaten.is_empty() {
            text.push_str(&format!("; {}", beaten.join(", ")));
        }
        return (None, text + &note);
    }
    let most = most_in_all(group, name);
    (
        Some(name.clone()),
        format!("{name} is best: {value} {unit}, {}{most}{note}", beaten.join(", ")),
    )
}

/// Per GPU the smallest often wins; a reader who has the GPUs wants to know which gives the most.
fn most_in_all(group: &[&Side<'_>], best: &str) -> String {
    let sound = group.iter().filter(|s| s.result.trust.level < TrustLevel::Invalid);
    let all: Option<Vec<_>> =
        sound.map(|s| Some((s.result.value("output_tps")?, s.result))).collect();
    let most = all.and_then(|v| v.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)));
    match most {
        Some((tps, result)) if result.deployment != best => {
            format!(
                "; {} gives the most in all, {} output tokens/s",
                result.deployment,
                significant(tps)
            )
        }
        _ => String::new(),
    }
}
