//! What a reader of a plan should know before it is run: the seeds' own mistakes, seen in advance.

use super::{DeploymentPlan, Mode, PlanNote, PointPlan};
use crate::spec::{Experiment, ReportKind};

fn note(path: String, message: String, hint: &str) -> PlanNote {
    PlanNote { path, message, hint: hint.to_owned() }
}

pub(super) fn notes(
    experiment: &Experiment,
    deployments: &[DeploymentPlan],
    points: &[PointPlan],
) -> Vec<PlanNote> {
    let mut out = Vec::new();
    loads(experiment, points, &mut out);
    control(experiment, deployments, &mut out);
    later(experiment, &mut out);
    for (i, deploy) in experiment.deployments() {
        let plan = deployments.iter().find(|d| d.name == deploy.name);
        if let Some(why) = plan.and_then(|d| d.cannot_run.as_ref()) {
            let path = format!("deploy[{i}]");
            out.push(note(
                path,
                why.clone(),
                "plan and check it here; attach with platform = \"external\"",
            ));
        }
    }
    out
}

fn loads(experiment: &Experiment, points: &[PointPlan], out: &mut Vec<PlanNote>) {
    for (i, load) in experiment.load.iter().enumerate() {
        let mut mine = points.iter().filter(|p| p.load == load.name);
        let few = mine.clone().find(|p| {
            let asked = p.level.concurrency.map(u64::from);
            p.mode == Mode::Closed
                && p.measure.duration.is_none()
                && p.measure.requests.zip(asked).is_some_and(|(n, c)| c > 1 && n < 3 * c)
        });
        if let (Some(p), Some(n)) = (few, few.and_then(|p| p.measure.requests)) {
            let c = p.level.concurrency.unwrap_or(0);
            out.push(note(
                format!("load[{i}].requests"),
                format!("{n} requests at concurrency {c}: mostly ramp and tail, hardly ever {c} in flight"),
                "give at least three times the concurrency, as requests = \"10x\"",
            ));
        }
        let first = mine.next();
        if first.is_some_and(|p| p.warmup.is_none() && p.mode != Mode::Serial) {
            out.push(note(
                format!("load[{i}].warmup"),
                "no warm-up: the first requests pay for cold caches and connections".to_owned(),
                "add warmup = 8",
            ));
        }
    }
}

/// A deployment over more GPUs than another says nothing about scaling without the same GPUs as
/// whole copies.
fn control(experiment: &Experiment, deployments: &[DeploymentPlan], out: &mut Vec<PlanNote>) {
    for (i, deploy) in experiment.deployments() {
        let Some(plan) = deployments.iter().find(|d| d.name == deploy.name) else { continue };
        let spans = plan.instances.iter().any(|x| x.place.len() > 1);
        let has_control = deployments.iter().any(|d| {
            d.gpus == plan.gpus
                && d.instances.len() > 1
                && d.instances.iter().all(|x| x.place.len() <= 1)
        });
        if spans && !has_control {
            out.push(note(
                format!("deploy[{i}]"),
                format!(
                    "'{}' spans hosts and has no control: the same {} GPUs as whole copies",
                    plan.name, plan.gpus
                ),
                "add a [[deploy]] with replicas, one per host",
            ));
        }
    }
}

fn later(experiment: &Experiment, out: &mut Vec<PlanNote>) {
    if experiment.telemetry.is_some() {
        out.push(note(
            "telemetry".to_owned(),
            "this version does not read machines yet: metrics of CPU, GPU, network and power will be absent".to_owned(),
            "they are shown as n/a, never as 0",
        ));
    }
    for (i, report) in experiment.report.iter().enumerate() {
        if matches!(report.kind, ReportKind::Scaling | ReportKind::Pareto | ReportKind::Fairness) {
            out.push(note(
                format!("report[{i}].kind"),
                "this version does not draw this kind of report yet".to_owned(),
                "table, compare, panels and curve are there",
            ));
        }
    }
}
