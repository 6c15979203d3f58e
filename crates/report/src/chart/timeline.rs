//! A trial over time: requests in flight and output tokens, one line a deployment, a row a load level.

use super::curve::{Curves, Line, Spot};
use super::figure::{Body, Figure, Legend, Panel, Swatch};
use super::view::View;
use crate::metric::words;
use crate::number;
use crate::spec::ReportSpec;
use scalebeam_model::metrics::{Better, Slice};
use scalebeam_model::results::PointResult;

/// Load levels that one figure shows.
const MAX_LEVELS: usize = 4;

/// What is shown of a bucket.
struct Quantity {
    label: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Slice) -> Option<f64>,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        label: "Requests in flight",
        unit: "requests",
        better: Better::Neither,
        of: |s| Some(s.in_flight),
    },
    Quantity {
        label: "Token throughput",
        unit: "tok/s",
        better: Better::Higher,
        of: |s| s.output_tps,
    },
];

/// Builds the figure of a `timeline` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let groups = view.groups();
    let shown = &groups[..groups.len().min(MAX_LEVELS)];
    let panels = shown
        .iter()
        .flat_map(|(level, points)| QUANTITIES.iter().map(move |q| panel(view, q, level, points)))
        .collect();
    let legend = view.shown().into_iter().map(|(series, name)| Legend {
        series,
        label: name.to_owned(),
        swatch: Swatch::Line,
    });
    let mut notes = vec!["The first trial of each point, from its first request on.".to_owned()];
    let has_none = |p: &&&PointResult| p.trials.first().is_none_or(|t| t.timeline.is_none());
    let without = shown.iter().flat_map(|(_, points)| points).filter(has_none);
    let without: Vec<String> = without.map(|p| view.point_name(p)).collect();
    if !without.is_empty() {
        notes.push(format!("{} (nothing was sent): {}", number::ABSENT, without.join(", ")));
    }
    let left_out: Vec<&str> =
        groups.iter().skip(MAX_LEVELS).map(|(name, _)| name.as_str()).collect();
    if !left_out.is_empty() {
        notes.push(format!("Not shown here: {}; timeline.csv has all.", left_out.join(", ")));
    }
    notes.extend(view.notes(&[]));
    Figure {
        title: view.title(spec, "over time"),
        subtitle: view.subtitle(),
        panels,
        columns: 2,
        legend: legend.collect(),
        notes,
    }
}

fn panel(view: &View<'_>, quantity: &Quantity, level: &str, points: &[&PointResult]) -> Panel {
    let lines: Vec<Line> = points
        .iter()
        .filter_map(|p| {
            let timeline = p.trials.first()?.timeline.as_ref()?;
            let spots = timeline.slices().filter_map(|s| spot(quantity, p, &s));
            Some(Line { series: view.series(&p.deployment), points: spots.collect() })
        })
        .collect();
    let is_empty = lines.iter().all(|l| l.points.is_empty());
    let direction = match quantity.better {
        Better::Neither => String::new(),
        better => format!(", {}", words(better)),
    };
    Panel {
        title: format!("{}, {level}", quantity.label),
        subtitle: format!("{}{direction}", quantity.unit),
        body: if is_empty {
            Body::Empty("nothing was counted over time".to_owned())
        } else {
            Body::Curves(Curves {
                lines,
                x_label: "seconds from the first request".to_owned(),
                is_level: false,
                is_dense: true,
                suffix: "",
            })
        },
    }
}

fn spot(quantity: &Quantity, point: &PointResult, slice: &Slice) -> Option<Spot> {
    let y = (quantity.of)(slice)?;
    let middle = slice.from_s + slice.width_s / 2.0;
    Some(Spot {
        x: middle,
        y,
        range: None,
        trust: point.trust.level,
        tip: format!(
            "{} under {} {}, at {} s: {} {}",
            point.deployment,
            point.load,
            point.level,
            number::plain(middle),
            number::plain(y),
            quantity.unit
        ),
    })
}
