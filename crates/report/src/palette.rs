//! Colours, markers and line styles of deployments.
//!
//! The colours are Okabe and Ito's, which stay apart under every common colour blindness; no meaning is
//! carried by colour alone.

/// Series colours, in order.
pub(crate) const SERIES: [&str; 7] =
    ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8C8C8C"];

/// Dash patterns of lines, in order.
pub(crate) const DASHES: [&str; 4] = ["", "7 4", "2 3", "10 3 2 3"];

/// Shape of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A square on its corner.
    Diamond,
    /// Two strokes.
    Cross,
}

const SHAPES: [Shape; 5] =
    [Shape::Circle, Shape::Square, Shape::Triangle, Shape::Diamond, Shape::Cross];

pub(crate) fn colour(series: usize) -> &'static str {
    SERIES[series % SERIES.len()]
}

pub(crate) fn dash(series: usize) -> &'static str {
    DASHES[series % DASHES.len()]
}

pub(crate) fn shape(series: usize) -> Shape {
    SHAPES[series % SHAPES.len()]
}
