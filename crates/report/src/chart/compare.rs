//! Each deployment against the baseline: ratios with their intervals, one panel a metric.

use super::bars::{Bar, Bars, Quantity};
use super::figure::{Body, Figure, Legend, Panel, Swatch};
use super::view::View;
use crate::metric::{Better, Named};
use crate::number;
use crate::spec::ReportSpec;
use scalebeam_model::results::{Comparison, ComparisonVerdict};
use scalebeam_model::trust::TrustLevel;

/// Verdict in words.
pub(crate) const fn verdict_words(verdict: ComparisonVerdict) -> &'static str {
    match verdict {
        ComparisonVerdict::Better => "better",
        ComparisonVerdict::Worse => "worse",
        ComparisonVerdict::Equivalent => "alike within the margin",
        ComparisonVerdict::NoDifferenceSeen => "no difference seen",
        ComparisonVerdict::NotTrusted => "not trusted",
    }
}

/// Builds the figure of a `compare` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let rows = comparisons(view, spec);
    let mut metrics: Vec<Named> = Named::all(&spec.metrics);
    if metrics.is_empty() {
        for row in &rows {
            let named = Named::new(&row.metric);
            if !metrics.iter().any(|m| m.key == named.key) {
                metrics.push(named);
            }
        }
    }
    let baselines: Vec<&str> = rows.iter().map(|r| r.baseline.as_str()).collect();
    let baseline = spec.baseline.as_deref().or_else(|| baselines.first().copied());
    let shown: Vec<(usize, &str)> =
        view.shown().into_iter().filter(|(_, d)| rows.iter().any(|r| r.deployment == *d)).collect();
    let panels = metrics.iter().map(|m| panel(view, m, &rows, &shown)).collect();
    let legend = shown.iter().map(|(series, name)| Legend {
        series: *series,
        label: (*name).to_owned(),
        swatch: Swatch::Area,
    });
    let mut notes = vec![confidence_note(&rows)];
    notes.retain(|n| !n.is_empty());
    notes.extend(view.notes(&[]));
    Figure {
        title: view.title(spec, "against the baseline"),
        subtitle: baseline.map_or_else(
            || view.subtitle(),
            |b| format!("ratio to {b} (dashed line) - {}", view.subtitle()),
        ),
        panels,
        columns: if metrics.len() > 4 { 3 } else { metrics.len().min(2) },
        legend: legend.collect(),
        notes,
    }
}

fn confidence_note(rows: &[&Comparison]) -> String {
    rows.first().map_or(String::new(), |r| {
        let share = number::tick(r.ratio.confidence * 100.0);
        format!("Whiskers: {share} % interval of the ratio ({}).", r.ratio.method)
    })
}

/// The comparisons that a report selects.
pub(crate) fn comparisons<'a>(view: &View<'a>, spec: &ReportSpec) -> Vec<&'a Comparison> {
    let is_shown = |c: &&Comparison| {
        let point = |p: &&&scalebeam_model::results::PointResult| {
            p.deployment == c.deployment && p.load == c.load && p.level == c.level
        };
        let is_of_baseline = spec.baseline.as_ref().is_none_or(|b| *b == c.baseline);
        is_of_baseline && view.points.iter().any(|p| point(&p))
    };
    view.results.comparisons.iter().filter(is_shown).collect()
}

fn panel(view: &View<'_>, metric: &Named, rows: &[&Comparison], shown: &[(usize, &str)]) -> Panel {
    let groups = view.groups();
    let mut bars = Vec::new();
    for (group, (_, points)) in groups.iter().enumerate() {
        for (slot, (series, deployment)) in shown.iter().enumerate() {
            let Some(point) = points.iter().find(|p| p.deployment == *deployment) else { continue };
            let row = rows.iter().find(|r| {
                r.deployment == *deployment
                    && r.load == point.load
                    && r.level == point.level
                    && Named::new(&r.metric).key == metric.key
            });
            bars.push(bar(view, metric, point, row.copied(), (group, slot, *series)));
        }
    }
    let is_empty = bars.iter().all(|b| b.value.is_none());
    let direction = match metric.better {
        Better::Higher => "times the baseline, above 1 is better",
        Better::Lower => "times the baseline, below 1 is better",
        Better::Neither => "times the baseline",
    };
    Panel {
        title: metric.label.clone(),
        subtitle: direction.to_owned(),
        body: if is_empty {
            Body::Empty("nothing to compare".to_owned())
        } else {
            Body::Bars(Bars {
                groups: groups.into_iter().map(|(name, _)| name).collect(),
                slots: shown.len(),
                bars,
                reference: Some(1.0),
                quantity: Quantity::Ratio,
            })
        },
    }
}

fn bar(
    view: &View<'_>,
    metric: &Named,
    point: &scalebeam_model::results::PointResult,
    row: Option<&Comparison>,
    (group, slot, series): (usize, usize, usize),
) -> Bar {
    let tip = match row {
        Some(r) => format!(
            "{} under {} {}: {} {} ({} to {}), {}",
            r.deployment,
            r.load,
            r.level,
            metric.short,
            number::ratio(r.ratio.point),
            number::ratio(r.ratio.low),
            number::ratio(r.ratio.high),
            verdict_words(r.verdict)
        ),
        None => view.tip(point, metric),
    };
    let is_trusted = row.is_none_or(|r| r.verdict != ComparisonVerdict::NotTrusted);
    let range = row.map(|r| (r.ratio.low, r.ratio.high));
    Bar {
        group,
        slot,
        series,
        value: row.map(|r| r.ratio.point).filter(|v| v.is_finite()),
        from: 0.0,
        range: range.filter(|(low, high)| low.is_finite() && high.is_finite()),
        trust: if is_trusted { TrustLevel::Sound } else { TrustLevel::Invalid },
        tip,
    }
}
