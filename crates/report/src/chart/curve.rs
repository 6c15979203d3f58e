//! Metrics over a level or over another metric: one line a deployment.

use super::axis::{Axis, ticks_between};
use super::bars::draw_whisker;
use super::figure::{Body, Figure, LABEL, Legend, Margins, Panel, Swatch};
use super::scene::{Anchor, Area, Mark, Text, Tone, text_width};
use super::view::{View, level_label};
use crate::metric::Named;
use crate::number;
use crate::palette;
use crate::spec::ReportSpec;
use scalebeam_model::results::PointResult;
use scalebeam_model::trust::TrustLevel;

/// What a panel of lines shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curves {
    pub(crate) lines: Vec<Line>,
    pub(crate) x_label: String,
    /// The horizontal axis is a level: its ticks are the levels, and it doubles where they do.
    pub(crate) is_level: bool,
    /// So many points that only some of them get their marker.
    pub(crate) is_dense: bool,
    pub(crate) suffix: &'static str,
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) series: usize,
    pub(crate) points: Vec<Spot>,
}

/// A point of a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spot {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) trust: TrustLevel,
    pub(crate) tip: String,
}

/// Markers of a line that has many points.
const MARKERS: usize = 8;

/// Metrics of a curve that names none.
const USUAL: [&str; 4] = ["output_tps", "ttft.p50", "tpot.p50", "e2e.p95"];

/// Builds the figure of a `curve` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let asked = if spec.y.is_empty() { &spec.metrics } else { &spec.y };
    let metrics = if asked.is_empty() { Named::all(&USUAL) } else { Named::all(asked) };
    let x = spec.x.as_deref().unwrap_or("concurrency");
    let (of_mode, left_out) = view.of_mode(view.level_mode(x));
    let view = if is_level(x) { &of_mode } else { view };
    let lines = view.lines();
    let panels = metrics.iter().map(|m| panel(view, m, x, &lines)).collect();
    let legend = lines.iter().enumerate();
    let legend = legend.map(|(series, (label, _))| Legend {
        series,
        label: label.clone(),
        swatch: Swatch::Line,
    });
    let mut notes = view.notes(&metrics);
    notes.extend(left_out.filter(|_| is_level(x)));
    Figure {
        title: view.title(spec, "over the load"),
        subtitle: view.subtitle(),
        panels,
        columns: if metrics.len() > 4 { 3 } else { 2 },
        legend: legend.collect(),
        notes,
    }
}

/// Whether the horizontal axis is the variable that was stepped.
fn is_level(x: &str) -> bool {
    matches!(x, "concurrency" | "rate" | "rate_rps" | "batch" | "level" | "users")
}

fn panel(view: &View<'_>, metric: &Named, x: &str, lines: &[(String, Vec<&PointResult>)]) -> Panel {
    let is_level = is_level(x);
    let horizontal = Named::new(x);
    let place = |p: &PointResult| if is_level { p.level_value() } else { horizontal.of(p) };
    let (factor, unit) = view.unit(metric);
    let lines: Vec<Line> = lines
        .iter()
        .enumerate()
        .map(|(series, (_, points))| {
            let spots = points.iter().filter_map(|p| {
                Some(Spot {
                    x: place(p)?,
                    y: metric.of(p)? * factor,
                    range: metric.range(p).map(|(low, high)| (low * factor, high * factor)),
                    trust: p.trust.level,
                    tip: view.tip(p, metric),
                })
            });
            Line { series, points: spots.collect() }
        })
        .collect();
    let x_label = match x {
        _ if !is_level => label_with_unit(&horizontal),
        _ => level_label(view.level_mode(x)).to_owned(),
    };
    let is_empty = lines.iter().all(|l| l.points.is_empty());
    let suffix = if unit == "%" { "%" } else { "" };
    Panel {
        title: metric.label.clone(),
        subtitle: view.panel_subtitle(metric, &unit),
        body: if is_empty {
            Body::Empty(view.why_nothing(metric))
        } else {
            Body::Curves(Curves { lines, x_label, is_level, is_dense: false, suffix })
        },
    }
}

pub(super) fn label_with_unit(metric: &Named) -> String {
    if metric.unit.is_empty() {
        metric.label.clone()
    } else {
        format!("{} ({})", metric.label, metric.unit)
    }
}

impl Curves {
    fn axis(&self) -> Axis {
        let spots = self.lines.iter().flat_map(|l| &l.points);
        let highest = spots.map(|s| s.range.map_or(s.y, |(_, h)| h.max(s.y)));
        Axis::up_to(highest.fold(0.0, f64::max) * 1.03, self.suffix)
    }

    pub(super) fn margins(&self) -> Margins {
        Margins { left: self.axis().width(), below: 42.0 }
    }

    fn horizontal(&self) -> Horizontal {
        let spots = self.lines.iter().flat_map(|l| &l.points);
        Horizontal::holding(spots.map(|s| s.x).collect(), self.is_level)
    }
}

/// The horizontal axis.
pub(super) struct Horizontal {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<f64>,
}

impl Horizontal {
    /// An axis that holds all of `xs`.
    pub(super) fn holding(mut xs: Vec<f64>, is_level: bool) -> Self {
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let low = xs.first().copied().unwrap_or(0.0);
        let high = xs.last().copied().unwrap_or(1.0);
        let is_log = is_level && low > 0.0 && high / low >= 8.0;
        if is_log {
            return Self { low, high, is_log, ticks: xs };
        }
        let low = if is_level || low < high * 0.5 { 0.0 } else { low };
        let high = if high > low { high } else { low + 1.0 };
        let ticks = if is_level && xs.len() <= 8 { xs } else { ticks_between(low, high) };
        Self { low, high, is_log, ticks }
    }

    pub(super) fn x(&self, plot: &Area, value: f64) -> f64 {
        let share = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        // A little room at both ends, so that markers do not sit on the frame.
        plot.x + plot.w * (0.03 + 0.94 * share.clamp(0.0, 1.0))
    }
}

pub(super) fn draw(marks: &mut Vec<Mark>, data: &Curves, plot: Area) {
    let axis = data.axis();
    let horizontal = data.horizontal();
    axis.draw(marks, &plot);
    horizontal.draw(marks, &plot, &data.x_label);
    let mut alerts = Vec::new();
    for line in &data.lines {
        let mut has_alert = false;
        let place = |s: &Spot| (horizontal.x(&plot, s.x), axis.y(&plot, s.y));
        let points: Vec<(f64, f64)> = line.points.iter().map(place).collect();
        for (spot, at) in line.points.iter().zip(&points) {
            if let Some((low, high)) = spot.range {
                draw_whisker(marks, at.0, axis.y(&plot, low), axis.y(&plot, high), 20.0);
            }
        }
        if points.len() > 1 {
            marks.push(Mark::Path { points: points.clone(), series: line.series });
        }
        let every = if data.is_dense { points.len().div_ceil(MARKERS).max(1) } else { 1 };
        // Lines of one figure have their markers at different places.
        let first = if data.is_dense { (line.series * 3) % every } else { 0 };
        for (spot, at) in line.points.iter().zip(points).skip(first).step_by(every) {
            let is_invalid = spot.trust == TrustLevel::Invalid;
            marks.push(Mark::Symbol {
                at,
                shape: palette::shape(line.series),
                series: line.series,
                is_hollow: is_invalid,
                is_faint: false,
                tip: spot.tip.clone(),
            });
            if is_invalid && !(data.is_dense && has_alert) {
                has_alert = true;
                // Beside the point: other lines' points at the same level are above and below it.
                let text = Text::new((at.0 + 8.0, at.1 + 4.6), 13.5, "!").bold();
                alerts.push(Mark::Text(text.toned(Tone::Alert).on_paper()));
            }
        }
    }
    marks.extend(alerts);
}

impl Horizontal {
    /// Draws the ticks, and what they are of below them.
    pub(super) fn draw(&self, marks: &mut Vec<Mark>, plot: &Area, label: &str) {
        draw_ticks(marks, self, plot);
        let at = (plot.x + plot.w / 2.0, plot.bottom() + 36.0);
        let label = Text::new(at, LABEL, label).anchored(Anchor::Middle);
        marks.push(Mark::Text(label.toned(Tone::Soft)));
    }
}

fn draw_ticks(marks: &mut Vec<Mark>, horizontal: &Horizontal, plot: &Area) {
    let mut free_from = f64::MIN;
    for tick in &horizontal.ticks {
        let x = horizontal.x(plot, *tick);
        let label = number::tick(*tick);
        let half = text_width(&label, LABEL) / 2.0;
        let (from, to) = ((x, plot.bottom()), (x, plot.bottom() + 5.0));
        marks.push(Mark::Line { from, to, tone: Tone::Ink, width: 1.0, dash: "" });
        if x - half < free_from {
            continue;
        }
        free_from = x + half + 6.0;
        let text = Text::new((x, plot.bottom() + 18.0), LABEL, label).anchored(Anchor::Middle);
        marks.push(Mark::Text(text.toned(Tone::Soft)));
    }
}
