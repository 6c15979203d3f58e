//! A figure: a title, panels in a grid, a legend below them, and footnotes.
//!
//! All panels of a figure share their margins, so their axes line up; nothing is drawn outside a
//! panel's own cell, so labels of neighbours cannot meet.

use super::bars::{self, Bars};
use super::curve::{self, Curves};
use super::pareto::{self, Front};
use super::scene::{Anchor, Area, Fill, Mark, Scene, Text, Tone, shortened, text_width, wrapped};
use crate::palette;

const PAD: f64 = 28.0;
const GAP: f64 = 34.0;
const PLOT_HEIGHT: f64 = 216.0;
const FRONT_HEIGHT: f64 = 380.0;
const HEAD: f64 = 50.0;
pub(super) const LABEL: f64 = 12.0;
pub(super) const NOTE: f64 = 12.5;
const LEGEND: f64 = 13.0;
/// Lines over the whole width leave room for fonts still wider than [`text_width`] expects: a browser
/// takes what it has.
const WIDEST_FONT: f64 = 0.89;

/// A figure before it is laid out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) panels: Vec<Panel>,
    pub(crate) columns: usize,
    pub(crate) legend: Vec<Legend>,
    pub(crate) notes: Vec<String>,
}

/// One small picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Unit and direction.
    pub(crate) subtitle: String,
    pub(crate) body: Body,
}

/// What a panel shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Bars(Bars),
    Curves(Curves),
    Front(Front),
    /// Why there is nothing to show.
    Empty(String),
}

/// An entry of the legend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Legend {
    pub(crate) series: usize,
    pub(crate) label: String,
    /// What it looks like.
    pub(crate) swatch: Swatch,
}

/// How an entry of the legend is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swatch {
    /// An area, as bars are.
    Area,
    /// A line with its marker.
    Line,
    /// A marker alone.
    Marker,
}

impl Swatch {
    const fn width(self) -> f64 {
        match self {
            Self::Area | Self::Marker => 14.0,
            Self::Line => 34.0,
        }
    }
}

/// Margins that all panels of a figure share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Margins {
    pub(super) left: f64,
    pub(super) below: f64,
}

impl Figure {
    /// Lays the figure out.
    pub(crate) fn scene(&self) -> Scene {
        let (columns, width) = self.columns_and_width();
        let count = columns as f64;
        let cell = (width - 2.0 * PAD - (count - 1.0) * GAP) / count;
        let margins = self.margins(cell);
        let mut marks = Vec::new();
        let mut y = self.head(&mut marks, width);
        let plot_height = self.plot_height();
        let row_height = HEAD + plot_height + margins.below + 20.0;
        for (i, panel) in self.panels.iter().enumerate() {
            let x = PAD + (i % columns) as f64 * (cell + GAP);
            let area = Area { x, y: y + (i / columns) as f64 * row_height, w: cell, h: row_height };
            draw_panel(&mut marks, panel, area, margins, plot_height);
        }
        y += self.panels.len().div_ceil(columns) as f64 * row_height;
        y = self.draw_legend(&mut marks, y, width);
        y = self.draw_notes(&mut marks, y, width);
        let height = (y + PAD * 0.6).ceil();
        let paper = Area { x: 0.0, y: 0.0, w: width, h: height };
        let paper = Mark::Rect { area: paper, fill: Fill::Tone(Tone::Paper), tip: String::new() };
        marks.insert(0, paper);
        Scene { width, height, title: self.title.clone(), description: self.description(), marks }
    }

    /// Both axes of a front are measurements, and points lie close where they are good.
    fn plot_height(&self) -> f64 {
        let is_front = self.panels.iter().any(|p| matches!(p.body, Body::Front(_)));
        if is_front { FRONT_HEIGHT } else { PLOT_HEIGHT }
    }

    /// As many columns as asked for, unless that leaves names of bars no room; then one wide one.
    fn columns_and_width(&self) -> (usize, f64) {
        const WIDTHS: [f64; 3] = [780.0, 1020.0, 1380.0];
        let columns = self.columns.clamp(1, 3).min(self.panels.len().max(1));
        let width = WIDTHS[columns - 1];
        let groups = self.panels.iter().map(|p| match &p.body {
            Body::Bars(bars) => bars.groups.len(),
            Body::Curves(_) | Body::Front(_) | Body::Empty(_) => 0,
        });
        let groups = groups.max().unwrap_or(0).max(1) as f64;
        let is_crowded = width / columns as f64 * 0.8 / groups < bars::MIN_SLOT;
        if is_crowded { (1, WIDTHS[2]) } else { (columns, width) }
    }

    fn description(&self) -> String {
        let titles: Vec<&str> = self.panels.iter().map(|p| p.title.as_str()).collect();
        let names: Vec<&str> = self.legend.iter().map(|l| l.label.as_str()).collect();
        let mut text = format!("{} Panels: {}.", self.subtitle, titles.join("; "));
        if !names.is_empty() {
            text.push_str(&format!(" Compared: {}.", names.join(", ")));
        }
        text
    }

    fn margins(&self, cell: f64) -> Margins {
        let all = self.panels.iter().filter_map(|p| match &p.body {
            Body::Bars(bars) => Some(bars.margins(cell)),
            Body::Curves(curves) => Some(curves.margins()),
            Body::Front(front) => Some(front.margins()),
            Body::Empty(_) => None,
        });
        all.fold(Margins { left: 34.0, below: 24.0 }, |a, b| Margins {
            left: a.left.max(b.left),
            below: a.below.max(b.below),
        })
    }

    fn head(&self, marks: &mut Vec<Mark>, width: f64) -> f64 {
        let room = (width - 2.0 * PAD) * WIDEST_FONT;
        let title = shortened(&self.title, 21.0, room);
        marks.push(Mark::Text(Text::new((PAD, PAD + 16.0), 21.0, title).bold()));
        if self.subtitle.is_empty() {
            return PAD + 38.0;
        }
        let subtitle = shortened(&self.subtitle, 13.5, room);
        let at = (PAD, PAD + 38.0);
        marks.push(Mark::Text(Text::new(at, 13.5, subtitle).toned(Tone::Soft)));
        PAD + 60.0
    }

    fn draw_legend(&self, marks: &mut Vec<Mark>, top: f64, width: f64) -> f64 {
        let mut x = PAD;
        let mut y = top + 4.0;
        for entry in &self.legend {
            let label = shortened(&entry.label, LEGEND, width - 2.0 * PAD - 60.0);
            let swatch = entry.swatch.width();
            let needed = swatch + 7.0 + text_width(&label, LEGEND) + 26.0;
            if x + needed - 26.0 > width - PAD && x > PAD {
                x = PAD;
                y += 22.0;
            }
            draw_swatch(marks, entry, (x, y));
            marks.push(Mark::Text(Text::new((x + swatch + 7.0, y + 10.5), LEGEND, label)));
            x += needed;
        }
        if self.legend.is_empty() { top } else { y + 26.0 }
    }

    fn draw_notes(&self, marks: &mut Vec<Mark>, top: f64, width: f64) -> f64 {
        let room = (width - 2.0 * PAD) * WIDEST_FONT;
        let mut y = top;
        for note in &self.notes {
            let lines = wrapped(note, NOTE, room, 6);
            for line in lines.unwrap_or_else(|| vec![shortened(note, NOTE, room)]) {
                y += 17.0;
                marks.push(Mark::Text(Text::new((PAD, y), NOTE, line).toned(Tone::Soft)));
            }
        }
        y
    }
}

fn draw_swatch(marks: &mut Vec<Mark>, entry: &Legend, (x, y): (f64, f64)) {
    let (series, width) = (entry.series, entry.swatch.width());
    if entry.swatch == Swatch::Area {
        let area = Area { x, y, w: width, h: 12.0 };
        marks.push(Mark::Rect { area, fill: Fill::Series(series), tip: String::new() });
        return;
    }
    if entry.swatch == Swatch::Line {
        marks.push(Mark::Path { points: vec![(x, y + 6.0), (x + width, y + 6.0)], series });
    }
    marks.push(Mark::Symbol {
        at: (x + width / 2.0, y + 6.0),
        shape: palette::shape(series),
        series,
        is_hollow: false,
        is_faint: false,
        tip: String::new(),
    });
}

fn draw_panel(marks: &mut Vec<Mark>, panel: &Panel, cell: Area, margins: Margins, height: f64) {
    let title = shortened(&panel.title, 15.5, cell.w);
    marks.push(Mark::Text(Text::new((cell.x, cell.y + 14.0), 15.5, title).bold()));
    let subtitle = shortened(&panel.subtitle, LABEL, cell.w);
    let at = (cell.x, cell.y + 31.0);
    marks.push(Mark::Text(Text::new(at, LABEL, subtitle).toned(Tone::Soft)));
    let plot =
        Area { x: cell.x + margins.left, y: cell.y + HEAD, w: cell.w - margins.left, h: height };
    match &panel.body {
        Body::Bars(data) => bars::draw(marks, data, plot),
        Body::Curves(data) => curve::draw(marks, data, plot),
        Body::Front(data) => pareto::draw(marks, data, plot),
        Body::Empty(why) => {
            marks.push(Mark::Line {
                from: (plot.x, plot.bottom()),
                to: (plot.right(), plot.bottom()),
                tone: Tone::Ink,
                width: 1.0,
                dash: "",
            });
            let at = (plot.x + plot.w / 2.0, plot.y + plot.h / 2.0);
            let text = Text::new(at, 14.0, shortened(why, 14.0, plot.w));
            marks.push(Mark::Text(text.anchored(Anchor::Middle).toned(Tone::Soft)));
        }
    }
}
