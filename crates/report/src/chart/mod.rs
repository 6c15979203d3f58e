//! Charts: results → scene.
//!
//! [`CHARTS`] is the catalogue; a chart is one entry of it and one file. Every chart keeps to the same
//! rules: bars stand on zero; a deployment has one colour, marker and line style in all charts of a
//! run; a point that is not to be trusted is hatched or hollow and has a `!`; a missing value says
//! `n/a`; names never overlap.

mod axis;
mod bars;
mod compare;
mod curve;
mod fairness;
mod figure;
mod panels;
mod pareto;
mod scaling;
mod scene;
mod timeline;
mod view;
mod waterfall;

use crate::error::ReportError;
use crate::spec::{Kind, ReportSpec};
pub(crate) use compare::verdict_words;
use figure::Figure;
pub(crate) use panels::config_label;
use scalebeam_model::plan::Plan;
use scalebeam_model::results::Results;
pub use scene::{Anchor, Area, Fill, Mark, Scene, Text, Tone, shortened, text_width, wrapped};
use view::View;

/// An entry of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Chart {
    /// Its name; the same as the `kind` of a `[[report]]`.
    pub name: &'static str,
    /// What it answers.
    pub doc: &'static str,
    /// The kind that it draws.
    pub kind: Kind,
    draw: fn(&View<'_>, &ReportSpec) -> Figure,
}

/// All charts.
pub const CHARTS: &[Chart] = &[
    Chart {
        name: "panels",
        doc: "How do the deployments do on each metric, side by side?",
        kind: Kind::Panels,
        draw: panels::figure,
    },
    Chart {
        name: "compare",
        doc: "By how much is each deployment better or worse than the baseline, and how surely?",
        kind: Kind::Compare,
        draw: compare::figure,
    },
    Chart {
        name: "curve",
        doc: "How does a metric change with the load?",
        kind: Kind::Curve,
        draw: curve::figure,
    },
    Chart {
        name: "pareto",
        doc: "Which points does no other beat, on throughput and on what a user sees?",
        kind: Kind::Pareto,
        draw: pareto::figure,
    },
    Chart {
        name: "fairness",
        doc: "By how much is a class slower beside others than alone?",
        kind: Kind::Fairness,
        draw: fairness::figure,
    },
    Chart {
        name: "timeline",
        doc: "What did a trial do over time?",
        kind: Kind::Timeline,
        draw: timeline::figure,
    },
    Chart {
        name: "scaling",
        doc: "What is each size worth, of the ideal?",
        kind: Kind::Scaling,
        draw: scaling::figure,
    },
    Chart {
        name: "waterfall",
        doc: "Where was the rest of what a size promises lost?",
        kind: Kind::Waterfall,
        draw: waterfall::figure,
    },
];

/// Draws the chart called `name` of what `spec` selects.
///
/// # Errors
/// When there is no such chart.
pub fn chart(
    name: &str,
    results: &Results,
    plan: &Plan,
    spec: &ReportSpec,
) -> Result<Scene, ReportError> {
    let found = CHARTS.iter().find(|c| c.name == name).ok_or_else(|| {
        let known: Vec<&str> = CHARTS.iter().map(|c| c.name).collect();
        ReportError::UnknownChart { name: name.to_owned(), known: known.join(", ") }
    })?;
    Ok((found.draw)(&View::new(results, plan, spec), spec).scene())
}

/// Draws what `spec` asks for; `None` for a table.
pub(crate) fn of_spec(results: &Results, plan: &Plan, spec: &ReportSpec) -> Option<Scene> {
    let found = CHARTS.iter().find(|c| c.kind == spec.kind)?;
    Some((found.draw)(&View::new(results, plan, spec), spec).scene())
}

#[cfg(test)]
mod tests;
