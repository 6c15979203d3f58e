//! A scene as SVG.
//!
//! Colours are presentation attributes with a class beside them, so that the file stands alone on white
//! and a page around it can override them for a dark scheme.

use crate::chart::{Anchor, Area, Fill, Mark, Scene, Text, Tone};
use crate::palette::{self, Shape};
use std::fmt::Write;

/// The font family that PNG is drawn with, then what browsers have.
const FONTS: &str = "Ubuntu, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', Roboto, 'Noto Sans', sans-serif";

/// Writes `scene` as a standalone SVG document.
pub fn svg(scene: &Scene) -> String {
    let mut out = String::with_capacity(scene.marks.len() * 160);
    let (w, h) = (num(scene.width), num(scene.height));
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
         role=\"img\" font-family=\"{FONTS}\">\n<title>{}</title>\n<desc>{}</desc>\n",
        escaped(&scene.title),
        escaped(&scene.description)
    );
    hatches(&mut out, scene);
    for mark in &scene.marks {
        write_mark(&mut out, mark);
        out.push('\n');
    }
    out.push_str("</svg>\n");
    out
}

fn hatches(out: &mut String, scene: &Scene) {
    let mut used: Vec<usize> = scene
        .marks
        .iter()
        .filter_map(|m| match m {
            Mark::Rect { fill: Fill::Hatched(series), .. } => Some(series % palette::SERIES.len()),
            _ => None,
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    if used.is_empty() {
        return;
    }
    out.push_str("<defs>");
    for series in used {
        let colour = palette::colour(series);
        let _ = write!(
            out,
            "<pattern id=\"hatch{series}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"{colour}\" \
             fill-opacity=\"0.18\"/><rect width=\"2\" height=\"6\" fill=\"{colour}\"/></pattern>"
        );
    }
    out.push_str("</defs>\n");
}

fn write_mark(out: &mut String, mark: &Mark) {
    match mark {
        Mark::Rect { area, fill, tip } => write_rect(out, area, *fill, tip),
        Mark::Line { from, to, tone, width, dash } => {
            let _ = write!(
                out,
                "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}-stroke\" stroke=\"{}\" \
                 stroke-width=\"{}\"{}/>",
                num(from.0),
                num(from.1),
                num(to.0),
                num(to.1),
                class(*tone),
                tint(*tone),
                num(*width),
                dashed(dash)
            );
        }
        Mark::Path { points, series } => {
            let points: Vec<String> =
                points.iter().map(|(x, y)| format!("{},{}", num(*x), num(*y))).collect();
            let _ = write!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" \
                 stroke-linejoin=\"round\"{}/>",
                points.join(" "),
                palette::colour(*series),
                dashed(palette::dash(*series))
            );
        }
        Mark::Symbol { at, shape, series, is_hollow, is_faint, tip } => {
            write_symbol(out, *at, *shape, palette::colour(*series), (*is_hollow, *is_faint));
            if !tip.is_empty() {
                let end = out.len() - 2;
                out.truncate(end);
                let _ = write!(out, "><title>{}</title></path>", escaped(tip));
            }
        }
        Mark::Text(text) => write_text(out, text),
    }
}

fn write_rect(out: &mut String, area: &Area, fill: Fill, tip: &str) {
    let paint = match fill {
        Fill::Series(s) => format!("fill=\"{}\"", palette::colour(s)),
        Fill::Hatched(s) => format!(
            "fill=\"url(#hatch{})\" stroke=\"{}\"",
            s % palette::SERIES.len(),
            palette::colour(s)
        ),
        Fill::Tone(t) => format!("class=\"{}-fill\" fill=\"{}\"", class(t), tint(t)),
    };
    let _ = write!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {paint}",
        num(area.x),
        num(area.y),
        num(area.w),
        num(area.h)
    );
    if tip.is_empty() {
        out.push_str("/>");
    } else {
        let _ = write!(out, "><title>{}</title></rect>", escaped(tip));
    }
}

fn write_symbol(
    out: &mut String,
    (x, y): (f64, f64),
    shape: Shape,
    colour: &str,
    (is_hollow, is_faint): (bool, bool),
) {
    let faint = if is_faint { " opacity=\"0.4\"" } else { "" };
    let at = |dx: f64, dy: f64| format!("{} {}", num(x + dx), num(y + dy));
    let path = match shape {
        Shape::Circle => {
            format!("M{} a4.5 4.5 0 1 0 9 0 a4.5 4.5 0 1 0 -9 0 Z", at(-4.5, 0.0))
        }
        Shape::Square => format!("M{} h8 v8 h-8 Z", at(-4.0, -4.0)),
        Shape::Triangle => format!("M{} L{} L{} Z", at(0.0, -5.5), at(5.0, 4.0), at(-5.0, 4.0)),
        Shape::Diamond => {
            format!("M{} L{} L{} L{} Z", at(0.0, -6.0), at(6.0, 0.0), at(0.0, 6.0), at(-6.0, 0.0))
        }
        Shape::Cross => {
            format!("M{} L{} M{} L{}", at(-4.5, -4.5), at(4.5, 4.5), at(-4.5, 4.5), at(4.5, -4.5))
        }
    };
    if is_hollow {
        let _ = write!(
            out,
            "<path d=\"{path}\" class=\"paper-fill\" fill=\"{}\" stroke=\"{colour}\" \
             stroke-width=\"2\"{faint}/>",
            tint(Tone::Paper)
        );
    } else {
        let _ = write!(
            out,
            "<path d=\"{path}\" fill=\"{colour}\" stroke=\"{colour}\" stroke-width=\"1.5\"{faint}/>"
        );
    }
}

fn write_text(out: &mut String, text: &Text) {
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let (x, y) = (num(text.at.0), num(text.at.1));
    let turn = if text.turn.abs() < f64::EPSILON {
        String::new()
    } else {
        format!(" transform=\"rotate({} {x} {y})\"", num(text.turn))
    };
    // The embedded font has one weight; a thin outline stands in for a bolder one. Light weights at
    // small sizes need a little of it too.
    let outline = if text.is_bold { text.size * 0.045 } else { text.size * 0.014 };
    if text.is_on_paper {
        let paper = tint(Tone::Paper);
        let _ = write!(
            out,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\"{anchor}{turn} class=\"paper-text\" \
             aria-hidden=\"true\" fill=\"{paper}\" stroke=\"{paper}\" stroke-width=\"3\" \
             stroke-linejoin=\"round\">{}</text>",
            num(text.size),
            escaped(&text.text)
        );
    }
    let (class, tint) = (class(text.tone), tint(text.tone));
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\"{anchor}{turn} class=\"{class}-text\" \
         fill=\"{tint}\" stroke=\"{tint}\" stroke-width=\"{}\">{}</text>",
        num(text.size),
        num(outline),
        escaped(&text.text)
    );
}

fn dashed(dash: &str) -> String {
    if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") }
}

const fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Ink => "ink",
        Tone::Soft => "soft",
        Tone::Faint => "faint",
        Tone::Paper => "paper",
        Tone::Alert => "alert",
    }
}

const fn tint(tone: Tone) -> &'static str {
    match tone {
        Tone::Ink => "#1a1a1a",
        Tone::Soft => "#5c5c5c",
        Tone::Faint => "#dedede",
        Tone::Paper => "#ffffff",
        Tone::Alert => "#b3261e",
    }
}

fn num(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text for XML; control characters, which XML cannot hold, are left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chart, testing};

    #[test]
    fn a_small_picture() {
        let (results, plan) = testing::run();
        let scene = chart::of_spec(&results, &plan, &testing::specs()[6]).unwrap();
        insta::assert_snapshot!(svg(&scene));
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"x\">&\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }
}
