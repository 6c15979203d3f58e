//! A side that several runs make: their trials at a level of a load taken together, with what each run is doubted for.
//!
//! **Invariant:** runs of a side are repeats of one thing. What differs between them is found before anything is taken
//! together, and refused unless it is forced.

use super::{Asked, Contender, Difference, NotComparable, provenance};
use crate::analysis::compare::Side;
use crate::analysis::{Frame, MeasuredPoint, TrialRecords, point};
use crate::metrics::Percentiles;
use crate::plan::{Plan, PointPlan};
use crate::results::PointResult;
use crate::trust::{Reason, Trust};
use std::borrow::Cow;

/// One level of a load, of all runs of a side that met it.
pub(super) struct Pooled<'a> {
    result: Cow<'a, PointResult>,
    trials: Cow<'a, [TrialRecords]>,
    point: &'a PointPlan,
    plan: &'a Plan,
    /// Runs that met it.
    pub(super) runs: usize,
}

impl Pooled<'_> {
    /// As comparisons look at it.
    pub(super) fn side(&self) -> Side<'_> {
        Side {
            result: &self.result,
            trials: &self.trials,
            point: self.point,
            plan: self.plan,
            class: None,
        }
    }
}

/// What the runs of the side called `name` differ in, which is nothing unless it is forced.
///
/// # Errors
/// When they are not repeats of one thing and it is not forced, or one is there twice.
pub(super) fn repeats(
    name: &'static str,
    runs: &[Contender<'_>],
    asked: &Asked<'_>,
) -> Result<Vec<Difference>, NotComparable> {
    let Some((first, more)) = runs.split_first() else { return Ok(Vec::new()) };
    let id = |of: &Contender<'_>| of.results.run.clone();
    let mut forced = Vec::new();
    for (n, run) in more.iter().enumerate() {
        if runs.iter().take(n + 1).any(|other| other.is_same(run)) {
            return Err(NotComparable::Twice { side: name, run: id(run) });
        }
        let points = first.sides().flat_map(|x| {
            let met = run.sides().find(|y| super::is_met_by(&x, y));
            met.map_or_else(Vec::new, |y| provenance::unlike_points(&x, &y))
        });
        let currencies = provenance::unlike_currencies(first, run, &asked.metrics);
        let unlike = [provenance::unlike(first, run), provenance::differences(first, run)].concat();
        let unlike: Vec<Difference> = unlike.into_iter().chain(currencies).chain(points).collect();
        if !unlike.is_empty() && !asked.force {
            return Err(NotComparable::NoRepeats {
                side: name,
                runs: (id(first), id(run)),
                unlike,
            });
        }
        let told = |d: Difference| Difference {
            what: format!("{} of runs {} and {} of {name}", d.what, id(first), id(run)),
            ..d
        };
        forced.extend(unlike.into_iter().map(told));
    }
    Ok(forced)
}

/// The levels that any of the runs met, in the order in which they were met first.
pub(super) fn pooled<'a>(runs: &[Contender<'a>], asked: &Asked<'_>) -> Vec<Pooled<'a>> {
    let mut levels: Vec<Vec<(&str, Side<'a>)>> = Vec::new();
    for run in runs {
        for side in run.sides() {
            let known = levels.iter_mut().find(|met| super::is_met_by(&met[0].1, &side));
            match known {
                Some(met) => met.push((&run.results.run, side)),
                None => levels.push(vec![(&run.results.run, side)]),
            }
        }
    }
    levels.iter().map(|met| of_level(met, asked)).collect()
}

fn of_level<'a>(met: &[(&str, Side<'a>)], asked: &Asked<'_>) -> Pooled<'a> {
    let Side { result, trials, point: level, plan, .. } = met[0].1;
    if met.len() == 1 {
        let (result, trials) = (Cow::Borrowed(result), Cow::Borrowed(trials));
        return Pooled { result, trials, point: level, plan, runs: 1 };
    }
    let of_run = |(run, (_, side)): (u32, &(&str, Side<'a>))| {
        side.trials.iter().cloned().map(move |mut trial| {
            trial.facts.run = run;
            trial
        })
    };
    let all = (0..).zip(met).flat_map(of_run);
    // Their own numbers are those of their runs, and no longer one of each.
    let trials: Vec<TrialRecords> =
        (1..).zip(all).map(|(number, trial)| TrialRecords { number, ..trial }).collect();
    let measured = MeasuredPoint { plan: level, trials };
    let percentiles = Percentiles::new(asked.metrics.iter().copied(), &[]);
    let result = point(plan, &measured, &[], &percentiles, &Frame::default());
    let result = PointResult { trust: trust(met), ..result };
    let trials = Cow::Owned(measured.trials);
    Pooled { result: Cow::Owned(result), trials, point: level, plan, runs: met.len() }
}

/// What any of the runs is doubted for, each code once, by the run that it weighs most on.
fn trust(met: &[(&str, Side<'_>)]) -> Trust {
    let of_run = |(run, side): &(&str, Side<'_>)| {
        let run = (*run).to_owned();
        side.result.trust.reasons.clone().into_iter().map(move |reason| (run.clone(), reason))
    };
    let mut all: Vec<(String, Reason)> = met.iter().flat_map(of_run).collect();
    all.sort_by_key(|(_, reason)| std::cmp::Reverse(reason.level));
    let mut trust = Trust::default();
    for (n, (run, reason)) in all.iter().enumerate() {
        let is_same = |(_, other): &&(String, Reason)| other.code == reason.code;
        if all.iter().take(n).any(|other| is_same(&other)) {
            continue;
        }
        let more = match all.iter().filter(is_same).count() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let message = format!("run {run}{more}: {}", reason.message);
        trust.add(Reason { message, ..reason.clone() });
    }
    trust
}
