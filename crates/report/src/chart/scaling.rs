//! How deployments grow: speedup over size beside the ideal, and efficiency by load.

use super::bars::{Bar, Bars, Quantity};
use super::curve::{Curves, Line, Spot};
use super::figure::{Body, Figure, Legend, Panel, Swatch};
use super::view::View;
use crate::metric::Named;
use crate::number;
use crate::scaling::place;
use crate::spec::ReportSpec;
use scalebeam_model::analysis::scaling::{Scaling, Step};
use scalebeam_model::distinct::distinct;
use scalebeam_model::trust::TrustLevel;

/// Series of lines that are no deployment's: beyond those of the run.
const IDEAL: usize = 6;

/// Builds the figure of a `scaling` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let studies: Vec<&Scaling> =
        view.results.scaling.iter().filter(|s| is_asked(s, spec)).collect();
    let metrics = distinct(studies.iter().map(|s| s.metric.as_str()));
    let mut panels = Vec::new();
    for metric in metrics {
        let of: Vec<&Scaling> = studies.iter().filter(|s| s.metric == metric).copied().collect();
        panels.extend(last_of_each_basis(&of).into_iter().map(|study| over_size(view, study)));
        panels.push(by_load(view, &of));
    }
    if panels.is_empty() {
        let body = Body::Empty("no two deployments of different size met the same load".to_owned());
        panels.push(Panel { title: "Scaling".to_owned(), subtitle: String::new(), body });
    }
    let shown = view.shown().into_iter().filter(|(_, name)| {
        studies.iter().any(|s| s.steps.iter().any(|step| step.deployment == *name))
    });
    let mut legend: Vec<Legend> = shown
        .map(|(series, name)| Legend { series, label: name.to_owned(), swatch: Swatch::Area })
        .collect();
    if !studies.is_empty() {
        legend.push(Legend { series: IDEAL, label: "ideal".to_owned(), swatch: Swatch::Line });
    }
    Figure {
        title: view.title(spec, "scaling"),
        subtitle: subtitle(view, &studies),
        panels,
        columns: 2,
        legend,
        notes: notes(&studies),
    }
}

/// The heaviest load comes last, and shows best what size is worth; so does the last of each other way to compare.
fn last_of_each_basis<'a>(studies: &[&'a Scaling]) -> Vec<&'a Scaling> {
    let kinds = distinct(studies.iter().map(|s| std::mem::discriminant(&s.basis)));
    let last = |kind| studies.iter().rfind(|s| std::mem::discriminant(&s.basis) == kind).copied();
    kinds.into_iter().filter_map(last).collect()
}

fn subtitle(view: &View<'_>, studies: &[&Scaling]) -> String {
    studies.first().map_or_else(
        || view.subtitle(),
        |s| format!("against {} - {}", s.baseline, view.subtitle()),
    )
}

/// A report shows the studies that it asked for.
fn is_asked(study: &Scaling, spec: &ReportSpec) -> bool {
    let is_metric = spec.metrics.is_empty() || spec.metrics.contains(&study.metric);
    let is_base = spec.baseline.as_ref().is_none_or(|b| *b == study.baseline);
    let is_load = spec.load.is_empty() || spec.load.contains(&study.load);
    let is_shown = |s: &Step| spec.deploy.is_empty() || spec.deploy.contains(&s.deployment);
    is_metric && is_base && is_load && study.steps.iter().all(is_shown)
}

fn over_size(view: &View<'_>, study: &Scaling) -> Panel {
    let base = study.steps.first();
    let unit = base.and_then(|s| s.shape.gpus).map_or(1.0, f64::from);
    let largest = study.steps.iter().map(|s| s.size).fold(1.0, f64::max);
    let ideal = [1.0, largest].map(|n| spot(n * unit, n, String::new()));
    let mut lines = vec![Line { series: IDEAL, points: ideal.to_vec() }];
    lines.extend(study.steps.iter().map(|s| of_step(view, s, unit)));
    let metric = Named::new(&study.metric);
    Panel {
        title: format!("{}, {}", metric.label, place(study)),
        subtitle: "times the baseline, higher is better".to_owned(),
        body: Body::Curves(Curves {
            lines,
            x_label: match base.and_then(|s| s.shape.gpus) {
                Some(_) => "GPUs".to_owned(),
                None => "instances".to_owned(),
            },
            is_level: false,
            is_dense: false,
            suffix: "x",
        }),
    }
}

const fn spot(x: f64, y: f64, tip: String) -> Spot {
    Spot { x, y, range: None, trust: TrustLevel::Sound, tip }
}

fn of_step(view: &View<'_>, step: &Step, unit: f64) -> Line {
    let tip = format!(
        "{} at {}: {} the baseline{}",
        step.deployment,
        step.level,
        number::ratio(step.speedup.point),
        step.marks.iter().map(|m| format!("; {}", m.message)).collect::<String>()
    );
    let mut spot = spot(step.size * unit, step.speedup.point, tip);
    spot.range = step.speedup.range.map(|[low, high]| (low, high));
    // What no law holds is hollow, as what is not to be trusted.
    spot.trust = if step.counts { step.trust } else { TrustLevel::Invalid };
    Line { series: view.series(&step.deployment), points: vec![spot] }
}

fn by_load(view: &View<'_>, studies: &[&Scaling]) -> Panel {
    let grown = studies.iter().flat_map(|s| s.steps.iter().skip(1));
    let names = distinct(grown.map(|step| step.deployment.as_str()));
    let mut bars = Vec::new();
    for (group, study) in studies.iter().enumerate() {
        for step in study.steps.iter().skip(1) {
            let slot = names.iter().position(|n| *n == step.deployment).unwrap_or(0);
            bars.push(bar(view, step, (group, slot)));
        }
    }
    let metric = studies.first().map_or_else(String::new, |s| Named::new(&s.metric).label);
    let is_empty = bars.iter().all(|b| b.value.is_none());
    Panel {
        title: format!("Efficiency of {metric}"),
        subtitle: "of the ideal for its size, higher is better".to_owned(),
        body: if is_empty {
            Body::Empty("the load decided the rate: no efficiency follows".to_owned())
        } else {
            Body::Bars(Bars {
                groups: studies.iter().map(|s| place(s)).collect(),
                slots: names.len(),
                bars,
                reference: None,
                quantity: Quantity::Percent,
            })
        },
    }
}

fn bar(view: &View<'_>, step: &Step, (group, slot): (usize, usize)) -> Bar {
    let share = |v: f64| v * 100.0;
    let value = step.efficiency.map(|e| share(e.point));
    let marks: String = step.marks.iter().map(|m| format!("; {}", m.message)).collect();
    let shown = value.map_or_else(|| number::ABSENT.to_owned(), number::percent);
    Bar {
        group,
        slot,
        series: view.series(&step.deployment),
        value,
        from: 0.0,
        range: step.efficiency.and_then(|e| e.range).map(|[low, high]| (share(low), share(high))),
        trust: if step.counts { step.trust } else { TrustLevel::Invalid },
        tip: format!("{} at {}: {shown}{marks}", step.deployment, step.level),
    }
}

fn notes(studies: &[&Scaling]) -> Vec<String> {
    let mut notes = Vec::new();
    for study in studies {
        for step in study.steps.iter().filter(|s| !s.marks.is_empty()) {
            let why: Vec<&str> = step.marks.iter().map(|m| m.message.as_str()).collect();
            let mark = if step.counts { "" } else { "! " };
            let note = format!("{mark}{}: {}", step.deployment, why.join("; "));
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes.truncate(6);
    }
    notes.push("Whiskers: 95 % interval. Hollow and hatched: not held to be scaling.".to_owned());
    notes
}
