//! Two metrics against each other: the points that no other beats, joined, and those that are beaten, faded.

use super::axis::Axis;
use super::curve::{Horizontal, label_with_unit};
use super::figure::{Body, Figure, LABEL, Legend, Margins, Panel, Swatch};
use super::scene::{Anchor, Area, Mark, Text, Tone, text_width};
use super::view::View;
use crate::fronts;
use crate::metric::{self, Better, Named};
use crate::number;
use crate::palette;
use crate::spec::ReportSpec;
use scalebeam_model::analysis::pareto::{self as model, FrontPoint};
use scalebeam_model::trust::TrustLevel;

/// What a panel of points shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Front {
    dots: Vec<Dot>,
    /// Targets on the horizontal axis.
    targets: Vec<f64>,
    x_label: String,
    suffix: &'static str,
}

/// A point.
#[derive(Debug, Clone, PartialEq)]
struct Dot {
    series: usize,
    at: (f64, f64),
    is_on_front: bool,
    trust: TrustLevel,
    /// Its level.
    label: String,
    tip: String,
}

/// Builds the figure of a `pareto` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let (x, y) = fronts::axes(spec);
    let (x, y) = (Named::new(x), Named::new(y));
    let found: Vec<&model::Front> = fronts::of_spec(view.results, spec).collect();
    let has_several = found.len() > 1;
    let mut panels: Vec<Panel> =
        found.iter().map(|front| panel(view, front, (&x, &y), has_several)).collect();
    if panels.is_empty() {
        panels.push(empty(&y, view.why_nothing(&y)));
    }
    let legend = view.shown().into_iter().map(|(series, name)| Legend {
        series,
        label: name.to_owned(),
        swatch: Swatch::Marker,
    });
    let mut notes = vec![
        "Joined: no point beats these on both. Faded: another is better. Hollow: not to be trusted."
            .to_owned(),
    ];
    notes.extend(found.iter().flat_map(|front| outside_note(front, &x)));
    notes.extend(
        fronts::absences(&found)
            .into_iter()
            .map(|(why, what)| format!("{} ({why}): {what}", number::ABSENT)),
    );
    notes.extend(view.notes(&[]));
    Figure {
        title: view.title(spec, "points that no other beats"),
        subtitle: view.subtitle(),
        columns: panels.len().min(2),
        panels,
        legend: legend.collect(),
        notes,
    }
}

/// Targets between the lowest and the highest of the points.
fn inside(front: &model::Front) -> impl Iterator<Item = f64> {
    let xs = || front.points.iter().filter_map(|p| p.x);
    let (low, high) = (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
    front.at.iter().copied().filter(move |at| (low..=high).contains(at))
}

/// An axis that held a target far away would have no room for the points.
fn outside_note(front: &model::Front, x: &Named) -> Option<String> {
    let inside: Vec<f64> = inside(front).collect();
    let outside = front.at.iter().filter(|at| !inside.contains(at));
    let outside: Vec<String> = outside.map(|at| number::plain(at * x.scale())).collect();
    let unit = format!("{} {}", outside.join(", "), x.unit);
    (!outside.is_empty()).then(|| format!("Not on the axis: targets outside of all points: {unit}"))
}

fn empty(y: &Named, why: String) -> Panel {
    Panel { title: y.label.clone(), subtitle: String::new(), body: Body::Empty(why) }
}

fn panel(
    view: &View<'_>,
    front: &model::Front,
    (x, y): (&Named, &Named),
    has_several: bool,
) -> Panel {
    let has_loads = front.points.iter().any(|p| p.load != front.points[0].load);
    let dots: Vec<Dot> =
        front.points.iter().filter_map(|p| dot(view, p, (x, y), has_loads)).collect();
    if dots.is_empty() {
        return empty(y, view.why_nothing(y));
    }
    let title =
        if has_several { format!("{}, {}", y.label, front.workload) } else { y.label.clone() };
    let direction = match x.better {
        Better::Neither => String::new(),
        better => format!(", {}", metric::words(better)),
    };
    Panel {
        title,
        subtitle: view.panel_subtitle(y, &y.unit),
        body: Body::Front(Front {
            dots,
            targets: inside(front).map(|at| at * x.scale()).collect(),
            x_label: format!("{}{direction}", label_with_unit(x)),
            suffix: if y.unit == "%" { "%" } else { "" },
        }),
    }
}

fn dot(view: &View<'_>, p: &FrontPoint, (x, y): (&Named, &Named), has_loads: bool) -> Option<Dot> {
    let at = (p.x? * x.scale(), p.y? * y.scale());
    let place = match p.is_on_front {
        true => "no point beats it",
        false if p.trust == TrustLevel::Invalid => "not to be trusted",
        false => "another point beats it",
    };
    let said =
        |v: f64, m: &Named| format!("{} {} {}", m.short, number::in_unit(v, &m.unit), m.unit);
    Some(Dot {
        series: view.series(&p.deployment),
        at,
        is_on_front: p.is_on_front,
        trust: p.trust,
        label: if has_loads { format!("{} {}", p.load, p.level) } else { p.level.clone() },
        tip: format!(
            "{} under {} {}: {}, {}; {place}",
            p.deployment,
            p.load,
            p.level,
            said(at.0, x),
            said(at.1, y)
        ),
    })
}

impl Front {
    fn axis(&self) -> Axis {
        let highest = self.dots.iter().map(|d| d.at.1).fold(0.0, f64::max);
        Axis::up_to(highest * 1.08, self.suffix)
    }

    fn horizontal(&self) -> Horizontal {
        Horizontal::holding(self.dots.iter().map(|d| d.at.0).collect(), false)
    }

    pub(super) fn margins(&self) -> Margins {
        Margins { left: self.axis().width(), below: 42.0 }
    }
}

pub(super) fn draw(marks: &mut Vec<Mark>, data: &Front, plot: Area) {
    let (axis, horizontal) = (data.axis(), data.horizontal());
    axis.draw(marks, &plot);
    horizontal.draw(marks, &plot, &data.x_label);
    let place = |at: (f64, f64)| (horizontal.x(&plot, at.0), axis.y(&plot, at.1));
    let mut labels = Labels { plot, taken: Vec::new(), lines: Vec::new(), marks: Vec::new() };
    for dot in &data.dots {
        labels.take(around(place(dot.at), 6.0));
    }
    for target in &data.targets {
        let x = horizontal.x(&plot, *target);
        let (from, to) = ((x, plot.y), (x, plot.bottom()));
        marks.push(Mark::Line { from, to, tone: Tone::Soft, width: 1.2, dash: "5 3" });
        labels.put((x, plot.y + 16.0), &format!("at {}", number::tick(*target)), Tone::Soft);
    }
    for (from, to) in segments(data, place) {
        marks.push(Mark::Line { from, to, tone: Tone::Ink, width: 1.6, dash: "" });
        labels.lines.push((from, to));
    }
    // What counts is drawn last, on top.
    let (on, off): (Vec<&Dot>, Vec<&Dot>) = data.dots.iter().partition(|d| d.is_on_front);
    for dot in off.iter().chain(&on) {
        let is_invalid = dot.trust == TrustLevel::Invalid;
        marks.push(Mark::Symbol {
            at: place(dot.at),
            shape: palette::shape(dot.series),
            series: dot.series,
            is_hollow: is_invalid,
            is_faint: !dot.is_on_front && !is_invalid,
            tip: dot.tip.clone(),
        });
        if is_invalid {
            labels.put(place(dot.at), "!", Tone::Alert);
        }
    }
    on.iter().for_each(|dot| labels.put(place(dot.at), &dot.label, Tone::Ink));
    marks.append(&mut labels.marks);
}

/// A straight piece of a line.
type Segment = ((f64, f64), (f64, f64));

/// Between neighbours of the front, by their place on the horizontal axis.
fn segments(data: &Front, place: impl Fn((f64, f64)) -> (f64, f64)) -> Vec<Segment> {
    let front = data.dots.iter().filter(|d| d.is_on_front);
    let mut points: Vec<(f64, f64)> = front.map(|d| place(d.at)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points.windows(2).map(|w| (w[0], w[1])).collect()
}

/// Whether a piece of a line goes through `area`: what is left of it once each side has cut it (Liang and Barsky).
fn crosses(((x0, y0), (x1, y1)): Segment, area: &Area) -> bool {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let sides =
        [(-dx, x0 - area.x), (dx, area.right() - x0), (-dy, y0 - area.y), (dy, area.bottom() - y0)];
    let (mut from, mut to) = (0.0_f64, 1.0_f64);
    for (step, room) in sides {
        match step {
            s if s < 0.0 => from = from.max(room / s),
            s if s > 0.0 => to = to.min(room / s),
            _ if room < 0.0 => return false,
            _ => {}
        }
    }
    from < to
}

/// The square about a point.
fn around((x, y): (f64, f64), half: f64) -> Area {
    Area { x: x - half, y: y - half, w: 2.0 * half, h: 2.0 * half }
}

/// Words beside points, where there is room for them: one that fits nowhere is left to the point's tip.
struct Labels {
    plot: Area,
    taken: Vec<Area>,
    /// Better not to be written across.
    lines: Vec<Segment>,
    marks: Vec<Mark>,
}

impl Labels {
    fn take(&mut self, area: Area) {
        self.taken.push(area);
    }

    fn is_free(&self, area: Area) -> bool {
        let is_apart = |other: &Area| {
            area.right() <= other.x
                || other.right() <= area.x
                || area.bottom() <= other.y
                || other.bottom() <= area.y
        };
        let plot = &self.plot;
        let is_inside = plot.x <= area.x
            && area.right() <= plot.right()
            && plot.y <= area.y
            && area.bottom() <= plot.bottom();
        is_inside && self.taken.iter().all(is_apart)
    }

    /// Above to the right first: a front that falls leaves that side free.
    fn put(&mut self, (x, y): (f64, f64), text: &str, tone: Tone) {
        let width = text_width(text, LABEL);
        let places = [
            ((x + 8.0, y - 7.0), Anchor::Start),
            ((x, y - 10.0), Anchor::Middle),
            ((x + 9.0, y + 4.2), Anchor::Start),
            ((x - 8.0, y + 16.0), Anchor::End),
            ((x, y + 19.0), Anchor::Middle),
            ((x - 9.0, y + 4.2), Anchor::End),
        ];
        let placed = places.map(|(at, anchor)| {
            let left = match anchor {
                Anchor::Start => at.0,
                Anchor::Middle => at.0 - width / 2.0,
                Anchor::End => at.0 - width,
            };
            (at, anchor, Area { x: left, y: at.1 - LABEL * 0.85, w: width, h: LABEL * 1.1 })
        });
        let free: Vec<_> = placed.into_iter().filter(|(.., area)| self.is_free(*area)).collect();
        let is_clear = |area: &Area| !self.lines.iter().any(|line| crosses(*line, area));
        let best = free.iter().find(|(.., area)| is_clear(area)).or(free.first());
        let Some((at, anchor, area)) = best.copied() else { return };
        self.take(area);
        let text = Text::new(at, LABEL, text).anchored(anchor).toned(tone).on_paper();
        self.marks.push(Mark::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_crosses_what_it_goes_through_and_not_what_it_passes() {
        let area = Area { x: 10.0, y: 10.0, w: 10.0, h: 10.0 };
        for (line, want) in [
            (((0.0, 15.0), (30.0, 15.0)), true),
            (((0.0, 5.0), (30.0, 5.0)), false),
            (((12.0, 12.0), (14.0, 14.0)), true),
            (((0.0, 0.0), (9.0, 9.0)), false),
            (((15.0, 0.0), (15.0, 30.0)), true),
            (((0.0, 25.0), (12.0, 35.0)), false),
            (((21.0, 0.0), (21.0, 30.0)), false),
        ] {
            assert_eq!(crosses(line, &area), want, "{line:?}");
        }
    }
}
