//! How deployments grow, and where the rest was lost, as tables and sentences.

use crate::metric::Named;
use crate::number::{self, ABSENT};
use crate::table::Grid;
use scalebeam_model::analysis::loss::Loss;
use scalebeam_model::analysis::scaling::{Basis, Ranged, Scaling, Step};
use scalebeam_model::results::Results;
use scalebeam_model::trust::TrustLevel;

const HEAD: [&str; 12] = [
    "deployment",
    "level",
    "GPUs",
    "nodes",
    "instances",
    "value",
    "speedup",
    "efficiency",
    "by nodes",
    "by instances",
    "serial part",
    "marks",
];

/// A table for each study, for a page.
pub(crate) fn grids(results: &Results) -> impl Iterator<Item = Grid> {
    results.scaling.iter().map(grid)
}

fn grid(scaling: &Scaling) -> Grid {
    let metric = Named::new(&scaling.metric);
    Grid {
        note: None,
        title: format!("Scaling of {}, {}", metric.label, place(scaling)),
        names: 2,
        head: HEAD.map(str::to_owned).to_vec(),
        rows: scaling.steps.iter().map(|s| row(s, &metric)).collect(),
        trust: scaling.steps.iter().map(|s| s.trust).collect(),
    }
}

/// `light c16`, or at what objective.
pub(crate) fn place(scaling: &Scaling) -> String {
    let load = &scaling.load;
    match &scaling.basis {
        Basis::Load { level } => format!("{load} {level}"),
        Basis::Slo { slo } => format!("{load} at its SLO ({slo})"),
        Basis::Interactivity { tps } => format!("{load} at {} tokens/s a user", number::tick(*tps)),
    }
}

fn row(step: &Step, metric: &Named) -> Vec<String> {
    let count = |n: Option<u32>| n.map_or_else(|| ABSENT.to_owned(), |n| n.to_string());
    let share = |v: Option<f64>| v.map_or_else(|| ABSENT.to_owned(), percent);
    let marks: Vec<&str> = step.marks.iter().map(|m| m.code.as_str()).collect();
    let speedup = ranged(&step.speedup, number::ratio);
    vec![
        step.deployment.clone(),
        step.level.clone(),
        count(step.shape.gpus),
        count(step.shape.nodes),
        format!("{} x {}", step.shape.replicas, step.shape.instance),
        number::in_unit(step.value * metric.scale(), &metric.unit),
        speedup,
        step.efficiency.as_ref().map_or_else(|| ABSENT.to_owned(), |e| ranged(e, percent)),
        share(step.efficiency_by_nodes),
        share(step.efficiency_by_replicas),
        share(step.serial_fraction),
        marks.join(", "),
    ]
}

fn ranged(value: &Ranged, show: fn(f64) -> String) -> String {
    let range = value.range.map(|[low, high]| format!(" [{}, {}]", show(low), show(high)));
    format!("{}{}", show(value.point), range.unwrap_or_default())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Everything in one table, as a terminal has room for: each step, and what it lost most to.
pub(crate) fn overview(results: &Results) -> Option<Grid> {
    let rows: Vec<Vec<String>> = results
        .scaling
        .iter()
        .flat_map(|study| study.steps.iter().skip(1).map(move |step| (study, step)))
        .map(|(study, step)| overview_row(results, study, step))
        .collect();
    let trust = vec![TrustLevel::Sound; rows.len()];
    (!rows.is_empty()).then(|| Grid {
        note: None,
        title: "Scaling: times as good, and that over the size".to_owned(),
        names: 4,
        head: [
            "under",
            "deployment",
            "against",
            "metric",
            "size",
            "speedup",
            "efficiency",
            "lost most to",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
        trust,
    })
}

fn overview_row(results: &Results, study: &Scaling, step: &Step) -> Vec<String> {
    let efficiency = step.efficiency.as_ref().map(|e| ranged(e, percent));
    let marks: Vec<&str> = step.marks.iter().map(|m| m.code.as_str()).collect();
    // Once for each point, whatever the metrics.
    let is_first = results.scaling.iter().find(|s| s.basis == study.basis && s.load == study.load);
    let is_first = is_first.is_some_and(|s| s.metric == study.metric);
    let loss = loss_of(results, study, step).filter(|_| is_first);
    let most = loss.and_then(first_cause);
    let marks = (!marks.is_empty()).then(|| format!("({})", marks.join(", ")));
    let last: Vec<String> = most.into_iter().chain(marks).collect();
    vec![
        place(study),
        step.deployment.clone(),
        study.baseline.clone(),
        Named::new(&study.metric).short,
        format!("{}x", number::tick(step.size)),
        ranged(&step.speedup, number::ratio),
        efficiency.unwrap_or_else(|| ABSENT.to_owned()),
        last.join(" "),
    ]
}

fn loss_of<'a>(results: &'a Results, study: &Scaling, step: &Step) -> Option<&'a Loss> {
    let is_at_load = matches!(study.basis, Basis::Load { .. });
    results.losses.iter().filter(|_| is_at_load).find(|l| {
        l.deployment == step.deployment
            && l.baseline == study.baseline
            && l.load == study.load
            && l.level == step.level
    })
}

fn first_cause(loss: &Loss) -> Option<String> {
    let first = loss.shares.first().filter(|s| s.share >= 0.01 && loss.lost >= 0.01)?;
    Some(format!("{} {}", first.cause.label(), percent(first.share)))
}

/// Studies in sentences: where, and what.
pub(crate) fn sentences(results: &Results) -> Vec<(String, &str)> {
    results.scaling.iter().map(|s| (place(s), s.text.as_str())).collect()
}

/// Losses in sentences: which point, and what.
pub(crate) fn losses(results: &Results) -> Vec<(String, &str)> {
    let point = |l: &Loss| format!("{} {} {}", l.load, l.level, l.deployment);
    results.losses.iter().map(|l| (point(l), l.text.as_str())).collect()
}

/// A table of every loss by its shares.
pub(crate) fn loss_grid(results: &Results) -> Option<Grid> {
    let rows: Vec<Vec<String>> = results
        .losses
        .iter()
        .flat_map(|l| l.shares.iter().map(move |s| (l, s)))
        .map(|(l, s)| {
            vec![
                format!("{} {}", l.load, l.level),
                l.deployment.clone(),
                l.baseline.clone(),
                s.cause.label().to_owned(),
                percent(s.share),
                s.evidence.clone(),
            ]
        })
        .collect();
    let trust = vec![TrustLevel::Sound; rows.len()];
    (!rows.is_empty()).then(|| Grid {
        note: None,
        title: "Shares of what the size promises".to_owned(),
        names: 4,
        head: ["under", "deployment", "against", "lost to", "of the ideal", "evidence"]
            .map(str::to_owned)
            .to_vec(),
        rows,
        trust,
    })
}
