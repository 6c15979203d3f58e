//! Axes: round ticks from zero, and their labels.

use super::figure::LABEL;
use super::scene::{Anchor, Area, Mark, Text, Tone, text_width};
use crate::number;

/// A vertical axis from zero.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) top: f64,
    ticks: Vec<f64>,
    suffix: &'static str,
}

impl Axis {
    /// An axis that holds `highest`, with about five round ticks.
    pub(super) fn up_to(highest: f64, suffix: &'static str) -> Self {
        let highest = if highest.is_finite() && highest > 0.0 { highest } else { 1.0 };
        let step = round_step(highest / 5.0);
        let count = (highest / step).ceil().max(1.0);
        Self::with_step(step, count * step, suffix)
    }

    /// An axis for shares: its ticks end at 100 %, with some room above.
    pub(super) fn percent(highest: f64, room: f64) -> Self {
        if highest > 100.5 {
            return Self::up_to(highest * room, "%");
        }
        Self { top: 100.0 * room, ..Self::with_step(20.0, 100.0, "%") }
    }

    fn with_step(step: f64, top: f64, suffix: &'static str) -> Self {
        let ticks: Vec<f64> = (0..20_u32)
            .map(|i| f64::from(i) * step)
            .take_while(|t| *t <= top * 1.000_001)
            .collect();
        Self { top, ticks, suffix }
    }

    fn label(&self, tick: f64) -> String {
        format!("{}{}", number::tick(tick), self.suffix)
    }

    /// Room that its labels need.
    pub(super) fn width(&self) -> f64 {
        let widths = self.ticks.iter().map(|t| text_width(&self.label(*t), LABEL));
        widths.fold(0.0, f64::max) + 10.0
    }

    /// Where `value` is.
    pub(super) fn y(&self, plot: &Area, value: f64) -> f64 {
        plot.bottom() - (value / self.top).clamp(0.0, 1.0) * plot.h
    }

    pub(super) fn draw(&self, marks: &mut Vec<Mark>, plot: &Area) {
        for tick in &self.ticks {
            let y = self.y(plot, *tick);
            let is_base = *tick <= 0.0;
            marks.push(Mark::Line {
                from: (plot.x, y),
                to: (plot.right(), y),
                tone: if is_base { Tone::Ink } else { Tone::Faint },
                width: 1.0,
                dash: "",
            });
            let text = Text::new((plot.x - 8.0, y + 4.2), LABEL, self.label(*tick));
            marks.push(Mark::Text(text.anchored(Anchor::End).toned(Tone::Soft)));
        }
    }
}

/// The round number next above `rough`: 1, 2, 2.5 or 5 times a power of ten.
pub(super) fn round_step(rough: f64) -> f64 {
    let size = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|d| d * size >= rough * 0.999_999);
    digit.unwrap_or(10.0) * size
}

/// Round ticks inside a range.
pub(super) fn ticks_between(low: f64, high: f64) -> Vec<f64> {
    let step = round_step(((high - low) / 6.0).max(f64::MIN_POSITIVE));
    let first = (low / step).ceil();
    let ticks = (0..12_u32).map(|i| (first + f64::from(i)) * step);
    ticks.take_while(|t| *t <= high * 1.000_001).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_highest_value() {
        for (highest, top, count) in
            [(1.0, 1.0, 6), (37.1, 40.0, 5), (1255.0, 1500.0, 4), (0.004, 0.004, 5), (0.0, 1.0, 6)]
        {
            let axis = Axis::up_to(highest, "");
            assert!((axis.top - top).abs() < top * 1e-9, "{highest}: {}", axis.top);
            assert_eq!(axis.ticks.len(), count, "{highest}: {:?}", axis.ticks);
        }
    }
}
