//! Small multiples: one panel a metric, bars by load level or by point.

use super::bars::{Bar, Bars, Quantity};
use super::figure::{Body, Figure, Legend, Panel, Swatch};
use super::view::View;
use crate::metric::Named;
use crate::spec::ReportSpec;
use scalebeam_model::results::PointResult;

/// Metrics of panels that name none.
const USUAL: [&str; 6] =
    ["rps", "output_tps", "output_tps_per_gpu", "ttft.p50", "e2e.p95", "success_rate"];

/// Bars by group: label, and the points in it with the place of their bar.
type Groups<'a> = Vec<(String, Vec<(usize, &'a PointResult)>)>;

/// Builds the figure of a `panels` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let metrics =
        if spec.metrics.is_empty() { Named::all(&USUAL) } else { Named::all(&spec.metrics) };
    let shown = view.shown();
    let by_config = spec.by.as_deref() == Some("config");
    let by_point = by_config || spec.by.as_deref() == Some("point");
    let groups: Groups<'_> = if by_point {
        let name = |p: &PointResult| if by_config { config_label(p) } else { view.point_name(p) };
        view.points.iter().map(|p| (name(p), vec![(0, *p)])).collect()
    } else {
        let slot = |p: &PointResult| shown.iter().position(|(_, d)| *d == p.deployment);
        let place =
            |points: Vec<_>| points.into_iter().map(|p| (slot(p).unwrap_or(0), p)).collect();
        view.groups().into_iter().map(|(name, points)| (name, place(points))).collect()
    };
    let slots = if by_point { 1 } else { shown.len() };
    let panels = metrics.iter().map(|m| panel(view, m, &groups, slots)).collect();
    let legend = shown.iter().map(|(series, name)| Legend {
        series: *series,
        label: (*name).to_owned(),
        swatch: Swatch::Area,
    });
    Figure {
        title: view.title(spec, if by_point { "by point" } else { "by load" }),
        subtitle: view.subtitle(),
        panels,
        columns: if metrics.len() > 4 { 3 } else { metrics.len().min(2) },
        legend: legend.collect(),
        notes: view.notes(&metrics),
    }
}

/// The seed's name of a point: GPUs and users.
pub(crate) fn config_label(point: &PointResult) -> String {
    let users = point.concurrency.map_or_else(|| point.level.clone(), |n| format!("{n}U"));
    format!("{}GPU/{users}", point.gpus)
}

fn panel(view: &View<'_>, metric: &Named, groups: &Groups<'_>, slots: usize) -> Panel {
    let (factor, unit) = view.unit(metric);
    let mut bars = Vec::new();
    for (group, (_, points)) in groups.iter().enumerate() {
        for (slot, point) in points {
            bars.push(Bar {
                group,
                slot: *slot,
                series: view.series(&point.deployment),
                value: metric.of(point).map(|v| v * factor),
                from: 0.0,
                range: metric.range(point).map(|(low, high)| (low * factor, high * factor)),
                trust: point.trust.level,
                tip: view.tip(point, metric),
            });
        }
    }
    let is_empty = bars.iter().all(|b| b.value.is_none());
    let is_percent = unit == "%";
    Panel {
        title: metric.label.clone(),
        subtitle: view.panel_subtitle(metric, &unit),
        body: if is_empty {
            Body::Empty(view.why_nothing(metric))
        } else {
            Body::Bars(Bars {
                groups: groups.iter().map(|(name, _)| name.clone()).collect(),
                slots,
                bars,
                reference: None,
                quantity: if is_percent { Quantity::Percent } else { Quantity::Number },
            })
        },
    }
}
