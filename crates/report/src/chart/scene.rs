//! A picture as a list of marks: what SVG and PNG are written from, and what tests look at.

use crate::palette::Shape;

/// Meaning of a colour that follows the page's light or dark scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Text and axes.
    Ink,
    /// Secondary text.
    Soft,
    /// Grid lines.
    Faint,
    /// The background.
    Paper,
    /// Something to take notice of.
    Alert,
}

/// How an area is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The colour of a series.
    Series(usize),
    /// Strokes in the colour of a series: a value that is not to be trusted.
    Hatched(usize),
    /// A tone.
    Tone(Tone),
}

/// Which end of a text stands at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// One mark.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// An area.
    Rect {
        /// Left, top, width, height.
        area: Area,
        /// Its filling.
        fill: Fill,
        /// Shown by a browser when pointed at, and read aloud.
        tip: String,
    },
    /// A straight line.
    Line {
        /// From.
        from: (f64, f64),
        /// To.
        to: (f64, f64),
        /// Its colour.
        tone: Tone,
        /// Its width.
        width: f64,
        /// Its dash pattern; empty = solid.
        dash: &'static str,
    },
    /// A line through points, in the colour and pattern of a series.
    Path {
        /// The points.
        points: Vec<(f64, f64)>,
        /// The series.
        series: usize,
    },
    /// A marker of a series.
    Symbol {
        /// Its middle.
        at: (f64, f64),
        /// Its shape.
        shape: Shape,
        /// The series.
        series: usize,
        /// Not filled: a value that is not to be trusted.
        is_hollow: bool,
        /// Not what counts: another is better.
        is_faint: bool,
        /// Shown by a browser when pointed at.
        tip: String,
    },
    /// A line of text.
    Text(Text),
}

/// A line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Where its baseline is.
    pub at: (f64, f64),
    /// What it says.
    pub text: String,
    /// Font size in pixels.
    pub size: f64,
    /// Which end is at `at`.
    pub anchor: Anchor,
    /// Its colour.
    pub tone: Tone,
    /// Heavier.
    pub is_bold: bool,
    /// Turned about `at`, in degrees clockwise.
    pub turn: f64,
    /// On a rim of paper, so that lines behind it do not cross it.
    pub is_on_paper: bool,
}

impl Text {
    /// An upright text in ink.
    pub fn new(at: (f64, f64), size: f64, text: impl Into<String>) -> Self {
        Self {
            at,
            text: text.into(),
            size,
            anchor: Anchor::Start,
            tone: Tone::Ink,
            is_bold: false,
            turn: 0.0,
            is_on_paper: false,
        }
    }

    /// With another end at its position.
    #[must_use]
    pub fn anchored(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    /// In another tone.
    #[must_use]
    pub fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// Heavier.
    #[must_use]
    pub fn bold(mut self) -> Self {
        self.is_bold = true;
        self
    }

    /// On a rim of paper.
    #[must_use]
    pub fn on_paper(mut self) -> Self {
        self.is_on_paper = true;
        self
    }

    /// Turned.
    #[must_use]
    pub fn turned(mut self, degrees: f64) -> Self {
        self.turn = degrees;
        self
    }
}

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left.
    pub x: f64,
    /// Top.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

impl Area {
    /// Its lower edge.
    pub fn bottom(&self) -> f64 {
        self.y + self.h
    }

    /// Its right edge.
    pub fn right(&self) -> f64 {
        self.x + self.w
    }
}

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
    /// What it shows, in a line.
    pub title: String,
    /// What it shows, for who cannot see it.
    pub description: String,
    /// What it is made of, back to front.
    pub marks: Vec<Mark>,
}

/// Advance widths of the printable ASCII characters of Ubuntu Light, in thousandths of the font size.
#[rustfmt::skip]
const WIDTHS: [u16; 95] = [
    228, 274, 392, 653, 564, 831, 648, 240, 310, 310, 472, 564, 246, 282, 246, 359, 564, 564, 564, 564,
    564, 564, 564, 564, 564, 564, 246, 246, 564, 564, 564, 380, 940, 641, 630, 609, 702, 555, 520, 658,
    692, 248, 487, 599, 502, 865, 709, 774, 592, 774, 618, 517, 548, 680, 624, 921, 608, 569, 560, 310,
    359, 310, 564, 490, 376, 509, 583, 460, 583, 548, 376, 573, 569, 237, 237, 495, 255, 863, 569, 582,
    583, 583, 374, 428, 387, 569, 480, 775, 499, 474, 455, 319, 262, 319, 564,
];

/// How wide a browser's own sans-serif may draw the same text.
const OTHER_FONTS: f64 = 1.07;

/// The width that a text takes, at most.
pub fn text_width(text: &str, size: f64) -> f64 {
    let of = |c: char| {
        let place = u32::from(c).checked_sub(32).and_then(|i| usize::try_from(i).ok());
        place.and_then(|i| WIDTHS.get(i)).map_or(620.0, |w| f64::from(*w))
    };
    text.chars().map(of).sum::<f64>() / 1000.0 * size * OTHER_FONTS
}

/// Cuts a text that is wider than `width`, in its middle, so that both ends can be told apart.
pub fn shortened(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    for kept in (2..chars.len()).rev() {
        let head = kept.div_ceil(2);
        let tail = chars.len() - (kept - head);
        let cut: String = chars[..head].iter().chain(&['…']).chain(&chars[tail..]).collect();
        if text_width(&cut, size) <= width {
            return cut;
        }
    }
    chars.first().map(|c| format!("{c}…")).unwrap_or_default()
}

/// Breaks a text into lines of at most `width`, after spaces and joining marks; `None` where a piece
/// is wider than that or there would be more than `max_lines`.
pub fn wrapped(text: &str, size: f64, width: f64, max_lines: usize) -> Option<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for piece in text.split_inclusive([' ', '-', '_', '/', ',']) {
        let longer = format!("{line}{piece}");
        if text_width(longer.trim_end(), size) <= width {
            line = longer;
        } else {
            if text_width(piece.trim_end(), size) > width {
                return None;
            }
            if !line.is_empty() {
                lines.push(line.trim_end().to_owned());
            }
            piece.clone_into(&mut line);
        }
    }
    lines.push(line.trim_end().to_owned());
    (lines.len() <= max_lines).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_wrap_at_their_joints_or_not_at_all() {
        let wrap = |text, width| wrapped(text, 10.0, width, 3);
        assert_eq!(wrap("dual-8gpu", 200.0), Some(vec!["dual-8gpu".to_owned()]));
        assert_eq!(wrap("dual-8gpu", 30.0), Some(vec!["dual-".to_owned(), "8gpu".to_owned()]));
        assert_eq!(wrap("extraordinarily", 30.0), None);
    }

    #[test]
    fn a_text_is_shortened_in_its_middle() {
        let cut = shortened("a-deployment-with-a-very-long-name-8gpu", 10.0, 100.0);
        assert!(cut.starts_with("a-dep") && cut.ends_with("gpu") && cut.contains('…'), "{cut}");
        assert!(text_width(&cut, 10.0) <= 100.0);
    }
}
