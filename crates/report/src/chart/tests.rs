//! What must hold for every chart: nothing outside, nothing on top of something else.

use super::*;
use crate::testing;

#[test]
fn names_of_the_catalogue_are_unique() {
    let mut names: Vec<&str> = CHARTS.iter().map(|c| c.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHARTS.len());
    assert!(CHARTS.iter().all(|c| c.doc.ends_with('?')));
}

#[test]
fn an_unknown_chart_is_an_error_that_names_those_there_are() {
    let (results, plan) = testing::run();
    let error = chart("pie", &results, &plan, &ReportSpec::default()).unwrap_err().to_string();
    assert!(error.contains("panels, compare, curve, timeline"), "{error}");
}

/// The upright box around a text, also of a turned one.
fn bounds(text: &Text) -> Area {
    let width = text_width(&text.text, text.size) / 1.07;
    let (x, y) = text.at;
    let start = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
    };
    let (sin, cos) = text.turn.to_radians().sin_cos();
    let corners = [
        (start, 0.0),
        (start + width, 0.0),
        (start, -text.size * 0.72),
        (start + width, -text.size * 0.72),
    ]
    .map(|(dx, dy)| (x + dx * cos - dy * sin, y + dx * sin + dy * cos));
    let xs = corners.map(|c| c.0);
    let ys = corners.map(|c| c.1);
    let (left, right) =
        (xs.iter().copied().fold(f64::MAX, f64::min), xs.iter().copied().fold(f64::MIN, f64::max));
    let (top, bottom) =
        (ys.iter().copied().fold(f64::MAX, f64::min), ys.iter().copied().fold(f64::MIN, f64::max));
    Area { x: left, y: top, w: right - left, h: bottom - top }
}

#[test]
fn no_text_leaves_the_picture_or_lies_on_another() {
    for (results, plan) in [testing::run(), testing::crowded()] {
        check_texts(&results, &plan);
    }
}

fn check_texts(results: &Results, plan: &Plan) {
    for spec in testing::specs() {
        let Some(scene) = of_spec(results, plan, &spec) else { continue };
        let texts: Vec<&Text> = scene
            .marks
            .iter()
            .filter_map(|m| match m {
                Mark::Text(t) => Some(t),
                _ => None,
            })
            .collect();
        for (i, text) in texts.iter().enumerate() {
            let a = bounds(text);
            let is_inside =
                a.x >= 0.0 && a.y >= 0.0 && a.right() <= scene.width && a.bottom() <= scene.height;
            assert!(is_inside, "{}: '{}' leaves the picture: {a:?}", scene.title, text.text);
            // Boxes of slanted texts overlap where the texts do not.
            if text.turn.abs() > 1.0 && text.turn.abs() < 89.0 {
                continue;
            }
            for other in &texts[i + 1..] {
                let b = bounds(other);
                let is_apart =
                    a.right() <= b.x || b.right() <= a.x || a.bottom() <= b.y || b.bottom() <= a.y;
                let is_slanted = other.turn.abs() > 1.0 && other.turn.abs() < 89.0;
                assert!(
                    is_apart || is_slanted,
                    "{}: '{}' lies on '{}'",
                    scene.title,
                    text.text,
                    other.text
                );
            }
        }
    }
}

#[test]
fn what_is_invalid_is_hatched_and_what_is_missing_is_said() {
    let (results, plan) = testing::run();
    let scene = chart("panels", &results, &plan, &testing::specs()[0]).unwrap();
    let hatched =
        scene.marks.iter().any(|m| matches!(m, Mark::Rect { fill: Fill::Hatched(_), .. }));
    assert!(hatched);
    let says = |words: &str| {
        scene.marks.iter().any(|m| matches!(m, Mark::Text(t) if t.text.contains(words)))
    };
    assert!(says("n/a") && says("! Not to be trusted"));
}

#[test]
fn an_empty_run_is_drawn_and_not_a_panic() {
    let (mut results, plan) = testing::run();
    results.points.clear();
    results.comparisons.clear();
    for entry in CHARTS {
        let scene = chart(entry.name, &results, &plan, &ReportSpec::default()).unwrap();
        assert!(crate::svg(&scene).contains("</svg>"));
    }
}

#[test]
fn every_file_that_is_drawn_is_a_picture() {
    let runs = [("", testing::run()), ("crowded-", testing::crowded())];
    let specs = testing::specs();
    let all =
        runs.iter().flat_map(|(name, run)| specs.iter().enumerate().map(move |s| (name, run, s)));
    for (name, (results, plan), (i, spec)) in all {
        let Some(scene) = of_spec(results, plan, spec) else { continue };
        let picture = crate::png(&scene).unwrap();
        assert!(picture.starts_with(b"\x89PNG"));
        // `SCALEBEAM_LOOK=/tmp/look cargo nextest run` leaves the pictures there to be looked at.
        if let Some(dir) = std::env::var_os("SCALEBEAM_LOOK") {
            let dir = std::path::PathBuf::from(dir);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("{name}{i}.png")), picture).unwrap();
            std::fs::write(dir.join(format!("{name}{i}.svg")), crate::svg(&scene)).unwrap();
        }
    }
}

#[test]
fn levels_of_different_kinds_are_not_on_one_axis() {
    let (mut results, plan) = testing::run();
    let mut steady = results.points[0].clone();
    steady.load = "steady".to_owned();
    steady.level = "r5".to_owned();
    steady.mode = scalebeam_model::plan::Mode::Open;
    (steady.concurrency, steady.rate_rps) = (None, Some(5.0));
    results.points.push(steady);
    let texts = |x: &str| {
        let spec = ReportSpec { x: Some(x.to_owned()), ..ReportSpec::default() };
        let scene = chart("curve", &results, &plan, &spec).unwrap();
        let text = |m: &Mark| match m {
            Mark::Text(t) => Some(t.text.clone()),
            _ => None,
        };
        scene.marks.iter().filter_map(text).collect::<Vec<_>>().join("\n")
    };
    let users = texts("concurrency");
    assert!(
        users.contains("requests in flight asked for") && users.contains("of another kind: steady")
    );
    assert!(!users.contains(", steady"), "{users}");
    let rates = texts("rate");
    assert!(
        rates.contains("requests per second asked for") && rates.contains("another kind: users")
    );
}

#[test]
fn no_number_is_struck_through_by_the_baseline() {
    let (results, plan) = testing::run();
    for near in [0.9, 0.93, 0.96, 1.0, 1.03] {
        let mut results = results.clone();
        for c in &mut results.comparisons {
            (c.ratio.point, c.ratio.low, c.ratio.high) = (near, near - 0.01, near + 0.01);
        }
        let scene = chart("compare", &results, &plan, &ReportSpec::default()).unwrap();
        let lines: Vec<(f64, f64, f64)> = scene
            .marks
            .iter()
            .filter_map(|m| match m {
                Mark::Line { from, to, dash: "5 3", .. } => Some((from.0, to.0, from.1)),
                _ => None,
            })
            .collect();
        assert!(!lines.is_empty());
        for mark in &scene.marks {
            let Mark::Text(text) = mark else { continue };
            if !text.is_on_paper || text.turn.abs() > 1.0 {
                continue;
            }
            let b = bounds(text);
            let is_crossed = lines
                .iter()
                .any(|(x, to, y)| *x <= b.x && b.right() <= *to && b.y < *y && *y < b.bottom());
            assert!(!is_crossed, "{near}: '{}' at {b:?}", text.text);
        }
    }
}
