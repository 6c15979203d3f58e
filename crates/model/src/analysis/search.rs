//! The answer of a search, from records alone.

use super::compare::may_be_another;
use super::{MeasuredPoint, TrialRecords};
use crate::plan::{Plan, PointPlan};
use crate::results::{PointResult, SearchInterval, SearchResult, SearchSide};
use crate::search::{End, Measured, Probe, Progress, SearchPlan, Side, Step, value};
use crate::slo::{CONFIDENCE, Slo};
use crate::trust::TrustLevel;
use crate::units::{Nanos, significant};

/// What an `[[expect]]` calls the highest level that met the objective.
pub const SLO_CAPACITY: &str = "slo_capacity";

/// What a level's trials say, as the search takes them: those that are whole, up to the first that is
/// not, which is measured again before any other.
pub fn probes(slo: &Slo, trials: &[TrialRecords]) -> Vec<Probe> {
    let whole = (1..)
        .zip(trials)
        .take_while(|(number, t)| t.number == *number && !t.partial && t.damaged.is_none());
    let probe = |t: &TrialRecords| Probe {
        tallies: slo.tallies(&t.records),
        wall: wall(t),
        is_oversaturated: t.facts.oversaturated_at.is_some(),
    };
    whole.map(|(_, t)| probe(t)).collect()
}

fn wall(trial: &TrialRecords) -> Nanos {
    let first = trial.records.iter().map(|r| r.scheduled_at).min();
    let last = trial.records.iter().map(|r| r.finished_at).max();
    last.zip(first).map_or(Nanos::ZERO, |(last, first)| last - first)
}

/// The searches of the plan of which anything was measured.
pub(super) fn all(
    plan: &Plan,
    points: &[&MeasuredPoint<'_>],
    results: &[PointResult],
) -> Vec<SearchResult> {
    let measured = |search: &SearchPlan| -> Measured {
        let trials = |level: &PointPlan| points.iter().find(|p| p.plan.id == level.id);
        let levels = search.levels.iter().enumerate();
        levels.filter_map(|(i, l)| Some((i, probes(&search.slo, &trials(l)?.trials)))).collect()
    };
    let begun = plan.searches.iter().map(|s| (s, measured(s))).filter(|(_, m)| !m.is_empty());
    begun.map(|(search, measured)| result(search, &search.progress(&measured), results)).collect()
}

fn result(search: &SearchPlan, progress: &Progress, results: &[PointResult]) -> SearchResult {
    let of_level = |level: usize| {
        let label = &search.levels.get(level)?.level.label;
        let mut of_search =
            results.iter().filter(|r| r.deployment == search.deployment && r.load == search.load);
        of_search.find(|r| r.level == *label)
    };
    let may_be_another = |level: usize| of_level(level).is_some_and(may_be_another);
    let side = |side: Option<Side>| {
        let Side { level, is_sure } = side?;
        let (point, result) = (search.levels.get(level)?, of_level(level));
        Some(SearchSide {
            level: point.level.label.clone(),
            value: value(point)?,
            sure: is_sure && !may_be_another(level),
            trust: result.map_or(TrustLevel::Sound, |r| r.trust.level),
        })
    };
    let is_rate = search.levels.iter().any(|p| p.level.rate_rps.is_some());
    let mut out = SearchResult {
        deployment: search.deployment.clone(),
        load: search.load.clone(),
        slo: search.slo.to_string(),
        unit: if is_rate { "req/s" } else { "requests in flight" }.to_owned(),
        met: side(progress.met),
        missed: side(progress.missed),
        interval: interval(search, progress, may_be_another),
        precision: search.precision,
        probes: progress.probes,
        end: match progress.next {
            Step::Done(end) => Some(end),
            Step::Measure { .. } => None,
        },
        text: String::new(),
    };
    out.text = words(&out);
    out
}

/// Between the nearest levels whose verdicts chance does not explain.
fn interval(
    search: &SearchPlan,
    progress: &Progress,
    may_be_another: impl Fn(usize) -> bool,
) -> Option<SearchInterval> {
    let is_sure = |level: &usize| !may_be_another(*level);
    let at = |level: Option<usize>| value(search.levels.get(level.filter(is_sure)?)?);
    let (low, high) = (at(progress.sure_met), at(progress.sure_missed));
    (low.is_some() || high.is_some()).then_some(SearchInterval {
        low,
        high,
        confidence: CONFIDENCE,
    })
}

fn words(s: &SearchResult) -> String {
    let (what, slo) = (if s.unit == "req/s" { "rate" } else { "concurrency" }, &s.slo);
    let number = |value: f64| match what {
        "rate" => significant(value),
        _ => format!("{value:.0}"),
    };
    let shown = |side: &SearchSide| format!("{} {}", number(side.value), s.unit);
    let range = match (&s.met, &s.missed) {
        (Some(met), Some(missed)) => {
            format!("{} meets it, {} does not", shown(met), shown(missed))
        }
        (Some(met), None) => format!("{} meets it, nothing above was tried", shown(met)),
        (None, Some(missed)) => format!("{} does not meet it", shown(missed)),
        (None, None) => "no level was judged".to_owned(),
    };
    let answer = match (s.end, &s.met, &s.missed) {
        (Some(End::Found), Some(met), Some(missed)) => format!(
            "highest {what} that meets the SLO ({slo}): {}; {} does not",
            shown(met),
            number(missed.value)
        ),
        (Some(End::AllMeet), Some(met), _) => format!(
            "highest {what} that meets the SLO ({slo}): not reached; {}, the highest that was searched, meets it",
            shown(met)
        ),
        (Some(End::NoneMeets), _, Some(missed)) => format!(
            "highest {what} that meets the SLO ({slo}): none; {}, the lowest that was searched, does not",
            shown(missed)
        ),
        (Some(_), ..) => format!(
            "highest {what} that meets the SLO ({slo}): not narrowed down within the budget; {range}"
        ),
        (None, ..) => format!(
            "highest {what} that meets the SLO ({slo}): not finished; {range}; continue with scalebeam run --resume"
        ),
    };
    let plural = if s.probes == 1 { "" } else { "s" };
    let between = between(s, number);
    format!("{answer} ({} trial{plural}{}{between})", s.probes, doubts(s, shown))
}

/// How far the highest load may lie from the answer, where its own ends are not sure.
fn between(s: &SearchResult, number: impl Fn(f64) -> String) -> String {
    let unit = &s.unit;
    if s.met.iter().chain(&s.missed).all(|side| side.sure) {
        return String::new();
    }
    match s.interval.map(|i| (i.low, i.high)) {
        Some((Some(low), Some(high))) => {
            format!("; at 95 % it lies between {} and {} {unit}", number(low), number(high))
        }
        Some((Some(low), None)) => format!("; at 95 % it is at least {} {unit}", number(low)),
        Some((None, Some(high))) => format!("; at 95 % it is below {} {unit}", number(high)),
        Some((None, None)) | None => "; no level is sure at 95 %".to_owned(),
    }
}

/// What the ends rest on.
fn doubts(s: &SearchResult, shown: impl Fn(&SearchSide) -> String) -> String {
    let sides = || s.met.iter().chain(&s.missed);
    let mut out = match sides().filter(|side| !side.sure).map(&shown).collect::<Vec<_>>() {
        list if list.is_empty() && sides().next().is_some() => {
            ", sure at 95 % at each end".to_owned()
        }
        list if list.is_empty() => String::new(),
        list => format!(", chance may explain the verdict at {}", list.join(" and at ")),
    };
    // What was missed was perhaps beyond capacity, where little can be relied on.
    if let Some(met) = s.met.iter().find(|side| side.trust == TrustLevel::Invalid) {
        out.push_str(&format!("; the numbers at {} are INVALID, see trust", shown(met)));
    }
    out
}
