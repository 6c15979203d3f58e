//! What a plan has and a run has not: points without a record, and trials that are missing beside others.

use super::doubt::reason;
use super::{Frame, MeasuredPoint};
use crate::plan::{Plan, PointPlan};
use crate::results::Unrecorded;
use crate::trust::{Reason, TrustLevel};

/// Points that were asked for and of which nothing is there. Why a deployment was not measured is said of it as a whole.
pub(super) fn points(
    plan: &Plan,
    measured: &[MeasuredPoint<'_>],
    frame: &Frame<'_>,
) -> Vec<Unrecorded> {
    let is_there = |p: &PointPlan| {
        frame.skipped.iter().any(|s| s.deployment == p.deployment)
            || measured.iter().any(|m| m.plan.id == p.id && !m.trials.is_empty())
    };
    // A search tries some of its levels only: those that the journal says were measured.
    let was_tried = |p: &&PointPlan| numbers(p).iter().any(|n| has_ended(p, *n, frame));
    let probes = plan.searches.iter().flat_map(|search| &search.levels).filter(was_tried);
    let missing = plan.points.iter().chain(probes).filter(|p| !is_there(p));
    let unrecorded = |p: &PointPlan| Unrecorded {
        deployment: p.deployment.clone(),
        load: p.load.clone(),
        level: p.level.label.clone(),
        reason: why(p, &numbers(p), frame),
    };
    missing.map(unrecorded).collect()
}

fn numbers(point: &PointPlan) -> Vec<u32> {
    point.trials.iter().map(|t| t.number).collect()
}

fn has_ended(point: &PointPlan, number: u32, frame: &Frame<'_>) -> bool {
    frame.ended.contains(&(point.id.clone(), number))
}

/// Why nothing is there of trials `missing` of `point`.
fn why(point: &PointPlan, missing: &[u32], frame: &Frame<'_>) -> String {
    let ended: Vec<u32> =
        missing.iter().copied().filter(|number| has_ended(point, *number, frame)).collect();
    match (ended.is_empty(), frame.incomplete) {
        (false, _) => format!(
            "by the journal {} {} measured to the end, and the record is gone",
            trials_of(&ended),
            if ended.len() == 1 { "was" } else { "were" }
        ),
        (true, true) => "the run was cut short".to_owned(),
        (true, false) => "nothing is recorded of it".to_owned(),
    }
}

fn listed(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// What is said of a point of which some trials ran to their end and others did not; `cut` are those that were begun
/// and are left out. A search may end before it has tried a level as often as was planned.
pub(super) fn trials(
    measured: &MeasuredPoint<'_>,
    cut: &[u32],
    is_probe: bool,
    frame: &Frame<'_>,
) -> Option<Reason> {
    let there = |number: &u32| measured.trials.iter().find(|t| t.number == *number);
    let was_begun = |number: &u32| {
        there(number).is_some() || cut.contains(number) || has_ended(measured.plan, *number, frame)
    };
    let mut planned = numbers(measured.plan);
    planned.retain(|number| !is_probe || was_begun(number));
    let (gone, cut): (Vec<u32>, Vec<u32>) =
        planned.iter().filter(|n| there(n).is_none()).partition(|number| !cut.contains(number));
    let holds_cut = measured.trials.iter().any(|t| t.partial);
    if (gone.is_empty() && cut.is_empty()) || holds_cut {
        return None;
    }
    let sound = measured.trials.iter().filter(|t| t.damaged.is_none()).count();
    let short = (!cut.is_empty()).then(|| {
        format!("{} {} cut short", trials_of(&cut), if cut.len() == 1 { "was" } else { "were" })
    });
    let lost = (!gone.is_empty()).then(|| {
        let why = why(measured.plan, &gone, frame);
        format!("of {} there is no whole record: {why}", trials_of(&gone))
    });
    let message = format!(
        "{sound} of {} trials are in these numbers; {}",
        planned.len(),
        short.into_iter().chain(lost).collect::<Vec<_>>().join("; ")
    );
    Some(reason("partial", TrustLevel::Caution, message, "continue with scalebeam run --resume"))
}

/// `trial 2`, or `trials 2, 3`.
fn trials_of(numbers: &[u32]) -> String {
    format!("{} {}", if numbers.len() == 1 { "trial" } else { "trials" }, listed(numbers))
}
