//! What the order of a run leaves out of its intervals.

use super::note;
use crate::plan::order::{Interleave, turns};
use crate::plan::resolve::bring_up_seconds;
use crate::plan::{DeploymentPlan, PlanNote, Platform, PointPlan};
use crate::spec::Experiment;
use crate::units::Nanos;

/// Repeats of one bring-up do not show what differs between bring-ups; and to go round takes two and repeats.
pub(super) fn order(
    experiment: &Experiment,
    deployments: &[DeploymentPlan],
    points: &[PointPlan],
    out: &mut Vec<PlanNote>,
) {
    let interleave = experiment.interleave.unwrap_or_default();
    let is_repeated =
        |d: &DeploymentPlan| points.iter().any(|p| p.deployment == d.name && p.trials.len() > 1);
    let repeated: Vec<&DeploymentPlan> = deployments.iter().filter(|d| is_repeated(d)).collect();
    let ours = repeated.iter().filter(|d| d.platform != Platform::External).count();
    let goes_round = interleave != Interleave::Points;
    if goes_round && (repeated.len() < 2 && interleave == Interleave::Deployments || ours == 0) {
        out.push(note(
            "interleave".to_owned(),
            format!(
                "interleave = \"{}\" has nothing to go round over: {}",
                interleave.name(),
                if repeated.is_empty() { "no load is repeated" } else { "one deployment is" }
            ),
            "give repeats = 3 in the [[load]]s of two deployments, or leave interleave out",
        ));
    }
    if goes_round || ours < 2 {
        return;
    }
    let seconds = |interleave| {
        let turns = turns(interleave, deployments, points, &[]);
        turns.iter().map(|turn| bring_up_seconds(turn.deployment)).sum::<f64>()
    };
    let more = seconds(Interleave::BringUps) - seconds(Interleave::Points);
    out.push(note(
        "interleave".to_owned(),
        "the repeats of a deployment are of one bring-up, and deployments are measured one after the other: what \
         differs from one bring-up to the next, or drifts from one deployment to the next, is in no interval"
            .to_owned(),
        &format!(
            "interleave = \"bring-ups\" goes round over the deployments and brings each up anew for each repeat, \
             which takes about {} more",
            Nanos::from_secs_f64(more)
        ),
    ));
}
