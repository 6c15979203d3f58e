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
    let missing = plan.points.iter().filter(|p| !is_there(p));
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

/// Why nothing is there of trials `missing` of `point`.
fn why(point: &PointPlan, missing: &[u32], frame: &Frame<'_>) -> String {
    let has_ended = |number: &&u32| frame.ended.contains(&(point.id.clone(), **number));
    let ended: Vec<u32> = missing.iter().filter(has_ended).copied().collect();
    match (ended.is_empty(), frame.incomplete) {
        (false, _) => format!(
            "by the journal {} measured to the end, and the record is gone",
            if ended.len() == 1 {
                format!("trial {} was", ended[0])
            } else {
                format!("trials {} were", listed(&ended))
            }
        ),
        (true, true) => "the run was cut short".to_owned(),
        (true, false) => "nothing is recorded of it".to_owned(),
    }
}

fn listed(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// What is said of a point of which some trials ran to their end and others did not.
pub(super) fn trials(measured: &MeasuredPoint<'_>, frame: &Frame<'_>) -> Option<Reason> {
    let is_there = |number: &u32| measured.trials.iter().any(|t| t.number == *number);
    let planned = numbers(measured.plan);
    let missing: Vec<u32> = planned.iter().copied().filter(|number| !is_there(number)).collect();
    let is_cut = measured.trials.iter().any(|t| t.partial);
    if missing.is_empty() || is_cut {
        return None;
    }
    let message = format!(
        "{} of {} trials are in these numbers; of {} {} there is no whole record: {}",
        planned.len() - missing.len(),
        planned.len(),
        if missing.len() == 1 { "trial" } else { "trials" },
        listed(&missing),
        why(measured.plan, &missing, frame)
    );
    Some(reason("partial", TrustLevel::Caution, message, "continue with scalebeam run --resume"))
}
