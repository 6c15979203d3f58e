//! Which deployment is best, by how much, how surely, why the others are not, and what would change the answer: one
//! sentence per load level, and a few more.

use super::compare::draws::{missed, of_two};
use super::compare::{Side, groups, is_beside_others, one};
use super::doubt::percent;
use super::loss::Loss;
use crate::plan::Mode;
use crate::results::{Comparison, ComparisonVerdict, Drawn, Verdict};
use crate::stats::contrast::FOR_WELCH;
use crate::trust::TrustLevel;
use crate::units::significant;

pub(super) fn all(sides: &[Side<'_>], losses: &[Loss]) -> Vec<Verdict> {
    groups(sides).iter().filter(|g| g.len() > 1).map(|group| verdict(group, losses)).collect()
}

fn verdict(group: &[&Side<'_>], losses: &[Loss]) -> Verdict {
    // Per allocated GPU is what is paid for; without GPUs on every side only the whole can be compared.
    let per_gpu = group.iter().all(|s| s.result.gpus > 0);
    let metric = if per_gpu { "output_tps_per_gpu" } else { "output_tps" };
    let unit = if per_gpu { "output tokens/s per GPU" } else { "output tokens/s" };
    let first = group[0].result;
    let mut verdict = Verdict {
        load: first.load.clone(),
        level: first.level.clone(),
        metric: metric.to_owned(),
        best: None,
        text: String::new(),
        more: Vec::new(),
    };
    let ranked = ranked(group, metric);
    let note = match group.len() - ranked.len() {
        0 => String::new(),
        n => format!(" ({n} not to be trusted, left out)"),
    };
    let [(value, best), rest @ ..] = ranked.as_slice() else {
        verdict.text = format!("no verdict: no deployment has numbers that can be trusted{note}");
        return verdict;
    };
    let name = &best.result.deployment;
    if rest.is_empty() {
        verdict.text = format!("no verdict: only {name} has numbers that can be trusted{note}");
        return verdict;
    }
    let against: Vec<Comparison> = rest.iter().filter_map(|(_, s)| one(metric, best, s)).collect();
    let (is_best, text) = words(name, &significant(*value), unit, &against);
    if is_best {
        verdict.text = text + &most_in_all(group, best) + &note;
        verdict.more.extend(rest.iter().filter_map(|(_, side)| why(side, losses)));
        // At a given rate nothing can give more than was asked of it.
        let nearest = against.first().filter(|_| best.result.mode != Mode::Open);
        let rival = |c: &Comparison| rest.iter().find(|(_, s)| s.result.deployment == c.baseline);
        let prices = nearest.and_then(|c| Some((per_gpu_hour(rival(c)?.1)?, per_gpu_hour(best)?)));
        verdict.more.extend(nearest.map(|c| change(c, per_gpu, prices)));
        verdict.best = Some(name.clone());
    } else {
        verdict.text = text + &note;
        verdict.more.extend(undecided(&against));
    }
    if per_gpu && best.result.mode == Mode::Open {
        let asked = "the rate was asked for, and nothing gives more: of those that keep up with it, the one with the fewest GPUs gives the most per GPU";
        verdict.more.push(asked.to_owned());
    }
    verdict.more.extend(assumed(&against, group));
    verdict.more.extend(beside_others(best, rest));
    verdict.more.extend(fewer_trials(group));
    let missing = |(_, side): &&(f64, &Side<'_>)| missed(best, side, true).is_some();
    let missing: Vec<&str> =
        rest.iter().filter(missing).map(|(_, side)| side.result.deployment.as_str()).collect();
    verdict.more.extend(not_held(name, &missing, missing.len() == rest.len()));
    verdict
}

/// That bring-ups of `best` or of one of `missing` are too few to tell how they differ; of a part of the pairs only by
/// name.
fn not_held(best: &str, missing: &[&str], are_all: bool) -> Option<String> {
    let pairs = match are_all {
        true => String::new(),
        false => format!(" between {best} and {}", missing.join(", ")),
    };
    (!missing.is_empty()).then(|| {
        format!(
            "what differs from one bring-up to the next is in no interval{pairs}, since a side has only one of them: \
             interleave = \"bring-ups\" measures it"
        )
    })
}

/// Who has a value that can be trusted, the best first.
fn ranked<'a, 'b>(group: &[&'b Side<'a>], metric: &str) -> Vec<(f64, &'b Side<'a>)> {
    let mut ranked: Vec<(f64, &Side<'_>)> = group
        .iter()
        .filter(|s| s.result.trust.level < TrustLevel::Invalid)
        .filter_map(|s| Some((s.result.value(metric)?, *s)))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked
}

/// Whether `name` is the best of all, and the sentence.
fn words(name: &str, value: &str, unit: &str, against: &[Comparison]) -> (bool, String) {
    let (beaten, ties): (Vec<&Comparison>, Vec<&Comparison>) =
        against.iter().partition(|c| c.verdict == ComparisonVerdict::Better);
    let times = |c: &&Comparison| {
        let [p, l, h] = [c.ratio.point, c.ratio.low, c.ratio.high].map(significant);
        format!("{p} times {} (95 % interval {l} to {h})", c.baseline)
    };
    let beaten: Vec<String> = beaten.iter().map(times).collect();
    if ties.is_empty() {
        return (true, format!("{name} is best: {value} {unit}, {}", beaten.join(", ")));
    }
    let names: Vec<&str> = ties.iter().map(|c| c.baseline.as_str()).collect();
    let ties: Vec<String> = ties.iter().map(times).collect();
    let mut text = format!(
        "no difference that we can see between {name} and {}: {value} {unit}, {}",
        names.join(", "),
        ties.join(", ")
    );
    if !beaten.is_empty() {
        text.push_str(&format!("; {}", beaten.join(", ")));
    }
    (false, text)
}

/// What a deployment that lost lost most to, where it is held against a smaller one.
fn why(side: &Side<'_>, losses: &[Loss]) -> Option<String> {
    let result = side.result;
    let loss = losses.iter().find(|l| {
        (&l.deployment, &l.load, &l.level) == (&result.deployment, &result.load, &result.level)
    })?;
    let first = loss.shares.first().filter(|s| s.share >= SMALLEST && loss.lost >= SMALLEST)?;
    let gained = match loss.gained() >= SMALLEST {
        true => format!(" ({} of it was gained elsewhere)", percent(loss.gained())),
        false => String::new(),
    };
    Some(format!(
        "{} gave {} less than {} times {} would; the largest part, {} of that ideal{gained}, went to {}: {}",
        loss.deployment,
        percent(loss.lost),
        times(loss.size),
        loss.baseline,
        percent(first.share),
        first.cause.label(),
        first.evidence
    ))
}

/// `2`, or `1.5`.
pub(super) fn times(size: f64) -> String {
    if (size - size.round()).abs() < 1e-9 { format!("{size:.0}") } else { significant(size) }
}

/// A smaller share is no reason.
const SMALLEST: f64 = 0.01;

/// What a GPU of it costs an hour, by the price of the whole.
fn per_gpu_hour(side: &Side<'_>) -> Option<f64> {
    let price = side.plan.deployment(&side.result.deployment)?.price_per_hour?;
    (side.result.gpus > 0).then(|| price / f64::from(side.result.gpus))
}

/// How far the nearest rival is from being the answer; `prices` of its GPUs and of those of the best, where both are
/// known.
fn change(nearest: &Comparison, per_gpu: bool, prices: Option<(f64, f64)>) -> String {
    let (rival, best) = (&nearest.baseline, &nearest.deployment);
    let more = percent(nearest.ratio.point - 1.0);
    let price = percent(1.0 / nearest.ratio.point);
    if prices.is_some_and(|(_, of_best)| of_best <= 0.0) {
        return format!(
            "{rival} would be the answer if it gave {more} more; at the prices that are given {best} costs nothing"
        );
    }
    let known = prices.filter(|_| per_gpu).map(|(of_rival, of_best)| of_rival / of_best);
    if let Some(ratio) = known {
        let follows = if ratio * nearest.ratio.high < 1.0 {
            format!("{rival} gives more for the money")
        } else if ratio * nearest.ratio.low > 1.0 {
            format!("{best} gives more for the money too; below {price} {rival} would")
        } else {
            "which of them gives more for the money cannot be told".to_owned()
        };
        return format!(
            "{rival} would be the answer if it gave {more} more; at the prices that are given its GPUs cost {} of what those of {best} cost: {follows}",
            percent(ratio)
        );
    }
    match per_gpu {
        true => format!(
            "{rival} would be the answer if it gave {more} more, or if its GPUs cost less than {price} of what those of {best} cost"
        ),
        false => format!("{rival} would be the answer if it gave {more} more"),
    }
}

/// What would decide where nothing did, and of whom nothing would.
fn undecided(against: &[Comparison]) -> Option<String> {
    let open = against.iter().filter(|c| c.verdict == ComparisonVerdict::NoDifferenceSeen);
    let needs = open.clone().filter_map(|c| Some((c.trials_to_decide?, c.drawn)));
    let (trials, drawn) = needs.max_by_key(|(n, _)| *n)?;
    let is_hopeless = |c: &&Comparison| c.p_value.is_some() && c.trials_to_decide.is_none();
    let never: Vec<&str> = open.clone().filter(is_hopeless).map(|c| c.baseline.as_str()).collect();
    let but = match never.is_empty() {
        true => String::new(),
        false => format!(
            "; not from {}: a hundred are too few, or less than 1 % is not called a difference",
            never.join(", ")
        ),
    };
    let repeats = match drawn {
        Drawn::Trials => format!(" (repeats = {trials})"),
        _ => String::new(),
    };
    let drawn = drawn.name();
    Some(format!("{trials} {drawn} a side would tell them apart in 80 of 100 cases{repeats}{but}"))
}

/// Intervals that hold an assumption in place of what runs differ by.
fn assumed(against: &[Comparison], group: &[&Side<'_>]) -> Option<String> {
    let first = against.iter().find(|c| c.p_value.is_none())?;
    let trials = |name: &str| {
        let side = group.iter().find(|s| s.result.deployment == name);
        side.map_or(0, |s| Drawn::Trials.count(s))
    };
    let n = match (trials(&first.deployment), trials(&first.baseline)) {
        (1, 1) => "one trial a side".to_owned(),
        (n, m) if n == m => format!("no more than {n} trials a side"),
        (n, m) => format!("no more than {n} and {m} trials"),
    };
    Some(format!("how much runs differ is assumed, since there is {n}: repeats = 3 measures it"))
}

/// With little that is drawn as a whole, of a machine that others use, hardly any difference can be told.
fn beside_others(best: &Side<'_>, rest: &[(f64, &Side<'_>)]) -> Option<String> {
    let few = |(_, other): &(f64, &Side<'_>)| {
        let drawn = of_two(best, other).unwrap_or_default();
        (drawn.count(best).min(drawn.count(other)) < FOR_WELCH).then(|| drawn.name())
    };
    let drawn = rest.iter().find_map(few)?;
    let others: Vec<&str> = std::iter::once(best)
        .chain(rest.iter().map(|(_, side)| *side))
        .filter(|side| is_beside_others(side.result))
        .map(|side| side.result.deployment.as_str())
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "something else took time from the machines of {}, and with fewer than {FOR_WELCH} {drawn} a side only a \
             very large difference can be told from that: {FOR_WELCH} of them, or machines of their own",
            others.join(", ")
        )
    })
}

/// Sides of which not every trial was measured.
fn fewer_trials(group: &[&Side<'_>]) -> Option<String> {
    let is_short = |side: &&&Side<'_>| side.trials.len() < side.point.trials.len();
    let told = |side: &&Side<'_>| {
        let (n, all) = (side.trials.len(), side.point.trials.len());
        format!("{} has {n} of {all} trials", side.result.deployment)
    };
    let short: Vec<String> = group.iter().filter(is_short).map(told).collect();
    (!short.is_empty()).then(|| short.join(", "))
}

/// Per GPU the smallest often wins; a reader who has the GPUs wants to know which gives the most, where it gives more
/// than the best that can be told from it.
fn most_in_all(group: &[&Side<'_>], best: &Side<'_>) -> String {
    let sound = group.iter().filter(|s| s.result.trust.level < TrustLevel::Invalid);
    let all: Option<Vec<_>> = sound.map(|s| Some((s.result.value("output_tps")?, *s))).collect();
    let most = all.and_then(|v| v.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)));
    let is_more = |side: &Side<'_>| {
        let more = one("output_tps", side, best);
        more.is_some_and(|c| c.verdict == ComparisonVerdict::Better)
    };
    match most {
        Some((tps, most)) if most.result.deployment != best.result.deployment && is_more(most) => {
            format!(
                "; {} gives the most in all, {} output tokens/s",
                most.result.deployment,
                significant(tps)
            )
        }
        _ => String::new(),
    }
}
