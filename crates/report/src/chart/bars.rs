//! A panel of bars, in groups along the horizontal axis.

use super::axis::Axis;
use super::figure::{LABEL, Margins};
use super::scene::{Anchor, Area, Fill, Mark, Text, Tone, shortened, text_width, wrapped};
use crate::number::{self, ABSENT};
use scalebeam_model::trust::TrustLevel;

const VALUE: f64 = 10.5;
const LINE: f64 = 14.5;
/// Turned labels: their angle, and the widest that is not shortened.
const TURN: f64 = -38.0;
const TURNED_WIDTH: f64 = 150.0;
/// Turned labels that are nearer to each other than this would touch.
pub(super) const MIN_SLOT: f64 = 19.0;

/// What the panel shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bars {
    /// Labels of the groups.
    pub(crate) groups: Vec<String>,
    /// Places for bars in a group.
    pub(crate) slots: usize,
    pub(crate) bars: Vec<Bar>,
    /// A line across, as 1 for ratios.
    pub(crate) reference: Option<f64>,
    pub(crate) quantity: Quantity,
}

/// What the numbers of a panel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Numbers in the panel's unit.
    Number,
    /// Shares of a whole.
    Percent,
    /// Ratios to something.
    Ratio,
    /// Shares of a whole, taken away or added one after the other.
    Steps,
}

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) group: usize,
    pub(crate) slot: usize,
    pub(crate) series: usize,
    pub(crate) value: Option<f64>,
    /// Where it begins: 0, unless it is a step from one value to another, up or down.
    pub(crate) from: f64,
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) trust: TrustLevel,
    pub(crate) tip: String,
}

impl Bar {
    fn high(&self) -> Option<f64> {
        self.value.map(|v| self.range.map_or(v, |(_, high)| high.max(v)).max(self.from))
    }

    /// Of a step its height, with the sign of its way.
    fn step(&self, to: f64) -> String {
        let sign = if to > self.from { "+" } else { "-" };
        format!("{sign}{}", number::percent((to - self.from).abs()))
    }

    fn label(&self, quantity: Quantity) -> Option<String> {
        let mark = if self.trust == TrustLevel::Invalid { "! " } else { "" };
        let shown = |v| match quantity {
            Quantity::Number => number::compact(v),
            Quantity::Percent => number::percent(v),
            Quantity::Ratio => number::ratio(v),
            Quantity::Steps if self.from > 0.0 => self.step(v),
            Quantity::Steps => number::percent(v),
        };
        self.value.map(|v| format!("{mark}{}", shown(v)))
    }
}

/// How values are written above their bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Upright,
    Turned,
    Left,
}

impl Bars {
    fn bar_width(&self, plot_width: f64) -> f64 {
        let group = plot_width / self.groups.len().max(1) as f64;
        let slots = self.slots.max(1) as f64;
        (group * 0.84 / slots).min(if self.slots == 1 { 64.0 } else { 52.0 })
    }

    fn values(&self, plot_width: f64) -> Values {
        let bar = self.bar_width(plot_width);
        let group = plot_width / self.groups.len().max(1) as f64;
        let room = if self.slots == 1 { group - 6.0 } else { bar - 3.0 };
        let labels = self.bars.iter().filter_map(|b| b.label(self.quantity));
        let widest = labels.map(|l| text_width(&l, VALUE)).fold(0.0, f64::max);
        match () {
            () if widest <= room => Values::Upright,
            () if bar >= VALUE + 1.0 => Values::Turned,
            () => Values::Left,
        }
    }

    fn axis(&self, plot_width: f64) -> Axis {
        let highs = self.bars.iter().filter_map(Bar::high).chain(self.reference);
        let highest = highs.fold(0.0, f64::max);
        // Room for the values above the highest bar.
        let headroom: f64 = match self.values(plot_width) {
            Values::Upright => 1.08,
            Values::Turned => 1.22,
            Values::Left => 1.02,
        };
        match self.quantity {
            Quantity::Percent | Quantity::Steps => Axis::percent(highest, headroom),
            Quantity::Number => Axis::up_to(highest * headroom, ""),
            Quantity::Ratio => Axis::up_to(highest * headroom, "x"),
        }
    }

    pub(super) fn margins(&self, cell: f64) -> Margins {
        let ticks = self.axis(cell * 0.88).width();
        let slot = (cell - ticks) / self.groups.len().max(1) as f64;
        let Some(first) = self.groups.first() else { return Margins { left: ticks, below: 20.0 } };
        match flat_labels(&self.groups, slot) {
            Some(labels) => {
                let lines = labels.iter().map(Vec::len).max().unwrap_or(1);
                Margins { left: ticks, below: 8.0 + lines as f64 * LINE }
            }
            None => {
                let (sin, cos) = TURN.abs().to_radians().sin_cos();
                let width = |name: &String| text_width(name, LABEL).min(TURNED_WIDTH);
                let longest = self.groups.iter().map(width).fold(0.0, f64::max);
                let left = ticks.max(width(first) * cos - slot / 2.0 + 8.0);
                Margins { left, below: 18.0 + longest * sin }
            }
        }
    }
}

fn flat_labels(groups: &[String], slot: f64) -> Option<Vec<Vec<String>>> {
    groups.iter().map(|name| wrapped(name, LABEL, slot - 6.0, 3)).collect()
}

pub(super) fn draw(marks: &mut Vec<Mark>, data: &Bars, plot: Area) {
    let axis = data.axis(plot.w);
    axis.draw(marks, &plot);
    let group = plot.w / data.groups.len().max(1) as f64;
    let width = data.bar_width(plot.w);
    let values = data.values(plot.w);
    let mut labels = Vec::new();
    for bar in &data.bars {
        let first = plot.x + group * (bar.group as f64 + 0.5) - width * data.slots as f64 / 2.0;
        let x = first + width * bar.slot as f64;
        draw_bar(marks, bar, &axis, &plot, (x, width));
        labels.extend(value_label(bar, &axis, &plot, x + width / 2.0, (values, data)));
    }
    if let Some(reference) = data.reference {
        let y = axis.y(&plot, reference);
        let (from, to) = ((plot.x, y), (plot.right(), y));
        marks.push(Mark::Line { from, to, tone: Tone::Ink, width: 1.2, dash: "5 3" });
    }
    marks.extend(labels);
    draw_labels(marks, &data.groups, &plot, group);
}

fn draw_bar(marks: &mut Vec<Mark>, bar: &Bar, axis: &Axis, plot: &Area, (x, width): (f64, f64)) {
    let middle = x + width / 2.0;
    let Some(value) = bar.value else {
        draw_absent(marks, bar, plot, middle, width);
        return;
    };
    let (y, foot) = (axis.y(plot, value.max(bar.from)), axis.y(plot, value.min(bar.from)));
    let area = Area { x: x + 0.75, y, w: (width - 1.5).max(1.0), h: (foot - y).max(1.0) };
    let fill = match bar.trust {
        TrustLevel::Invalid => Fill::Hatched(bar.series),
        TrustLevel::Sound | TrustLevel::Caution => Fill::Series(bar.series),
    };
    marks.push(Mark::Rect { area, fill, tip: bar.tip.clone() });
    if let Some((low, high)) = bar.range {
        draw_whisker(marks, middle, axis.y(plot, low), axis.y(plot, high), width);
    }
}

/// The number above a bar; it is drawn last, so that no line crosses it.
fn value_label(
    bar: &Bar,
    axis: &Axis,
    plot: &Area,
    middle: f64,
    (values, data): (Values, &Bars),
) -> Option<Mark> {
    let mut above = axis.y(plot, bar.high()?) - 5.0;
    if let Some(line) = data.reference.map(|r| axis.y(plot, r)) {
        // A line through a number reads as if it were crossed out.
        let is_crossed = above - VALUE < line && line < above + 4.0;
        if is_crossed && values != Values::Turned {
            above = line - 4.5;
        }
    }
    let label = bar.label(data.quantity)?;
    let is_invalid = bar.trust == TrustLevel::Invalid;
    let text = match values {
        Values::Upright => Text::new((middle, above), VALUE, label).anchored(Anchor::Middle),
        Values::Turned => Text::new((middle + VALUE * 0.36, above), VALUE, label).turned(-90.0),
        Values::Left if is_invalid => {
            Text::new((middle, above), VALUE, "!").anchored(Anchor::Middle)
        }
        Values::Left => return None,
    };
    let tone = if is_invalid { Tone::Alert } else { Tone::Ink };
    Some(Mark::Text(text.toned(tone).on_paper()))
}

fn draw_absent(marks: &mut Vec<Mark>, bar: &Bar, plot: &Area, middle: f64, width: f64) {
    // An area that is not seen carries the reason to who points at it.
    let area = Area { x: middle - width / 2.0, y: plot.bottom() - 19.0, w: width, h: 17.0 };
    let fill = Fill::Tone(Tone::Paper);
    marks.push(Mark::Rect { area, fill, tip: bar.tip.clone() });
    if width < VALUE {
        // No room for a word; the footnote says it.
        return;
    }
    let at = (middle, plot.bottom() - 7.0);
    let text = if text_width(ABSENT, VALUE) <= width {
        Text::new(at, VALUE, ABSENT).anchored(Anchor::Middle)
    } else {
        Text::new((middle + VALUE * 0.36, at.1), VALUE, ABSENT).turned(-90.0)
    };
    marks.push(Mark::Text(text.toned(Tone::Soft)));
}

pub(super) fn draw_whisker(marks: &mut Vec<Mark>, x: f64, low: f64, high: f64, width: f64) {
    if (high - low).abs() < 0.5 {
        return;
    }
    let half = (width * 0.18).clamp(2.0, 6.0);
    let mut line = |from, to| {
        marks.push(Mark::Line { from, to, tone: Tone::Ink, width: 1.3, dash: "" });
    };
    line((x, low), (x, high));
    line((x - half, low), (x + half, low));
    line((x - half, high), (x + half, high));
}

fn draw_labels(marks: &mut Vec<Mark>, groups: &[String], plot: &Area, slot: f64) {
    let flat = flat_labels(groups, slot);
    // Where there is no room even in one wide column, some names are left to the bars' tips.
    let mut free_from = f64::MIN;
    for (i, name) in groups.iter().enumerate() {
        let x = plot.x + slot * (i as f64 + 0.5);
        match flat.as_ref().and_then(|f| f.get(i)) {
            Some(lines) => {
                for (n, line) in lines.iter().enumerate() {
                    let at = (x, plot.bottom() + 16.0 + n as f64 * LINE);
                    let text = Text::new(at, LABEL, line.clone()).anchored(Anchor::Middle);
                    marks.push(Mark::Text(text));
                }
            }
            None if x < free_from => {}
            None => {
                free_from = x + MIN_SLOT - 0.5;
                let name = shortened(name, LABEL, TURNED_WIDTH);
                let at = (x + 4.0, plot.bottom() + 14.0);
                let text = Text::new(at, LABEL, name).anchored(Anchor::End).turned(TURN);
                marks.push(Mark::Text(text));
            }
        }
    }
}
