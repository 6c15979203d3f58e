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
    assert!(error.contains("panels, compare, curve, pareto, fairness, timeline"), "{error}");
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

#[test]
fn what_is_beaten_is_faded_and_what_is_not_trusted_is_hollow_and_on_no_front() {
    let (results, plan) = testing::run();
    let front = &results.fronts[0];
    let spec = testing::specs().into_iter().find(|s| s.kind == Kind::Pareto).unwrap();
    let scene = chart("pareto", &results, &plan, &spec).unwrap();
    // What the legend shows has no tip.
    let symbols: Vec<(&str, bool, bool, (f64, f64))> = scene
        .marks
        .iter()
        .filter_map(|m| match m {
            Mark::Symbol { tip, is_hollow, is_faint, at, .. } if !tip.is_empty() => {
                Some((tip.as_str(), *is_hollow, *is_faint, *at))
            }
            _ => None,
        })
        .collect();
    let placed: Vec<_> = front.points.iter().filter(|p| p.x.is_some() && p.y.is_some()).collect();
    assert_eq!(symbols.len(), placed.len(), "each point once, and none without a place");
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for p in placed {
        let id = format!("{} under {} {}:", p.deployment, p.load, p.level);
        let (_, is_hollow, is_faint, at) = symbols.iter().find(|s| s.0.starts_with(&id)).unwrap();
        let is_invalid = p.trust == scalebeam_model::trust::TrustLevel::Invalid;
        assert_eq!((*is_hollow, *is_faint), (is_invalid, !p.is_on_front && !is_invalid), "{id}");
        if p.is_on_front {
            joined.push(*at);
        }
    }
    joined.sort_by(|a, b| a.0.total_cmp(&b.0));
    let segments: Vec<((f64, f64), (f64, f64))> = scene
        .marks
        .iter()
        .filter_map(|m| match m {
            Mark::Line { from, to, dash: "", width: 1.6, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect();
    let wanted: Vec<_> = joined.windows(2).map(|w| (w[0], w[1])).collect();
    assert!(wanted.len() > 1);
    assert_eq!(segments, wanted, "only what is on the front is joined");
}

#[test]
fn a_slowdown_has_its_line_of_no_slowdown_its_interval_and_its_reason() {
    let (results, plan) = testing::run();
    let spec = testing::specs().into_iter().find(|s| s.kind == Kind::Fairness).unwrap();
    let scene = chart("fairness", &results, &plan, &spec).unwrap();
    let texts: Vec<&str> = scene
        .marks
        .iter()
        .filter_map(|m| match m {
            Mark::Text(t) => Some(t.text.as_str()),
            _ => None,
        })
        .collect();
    for metric in ["TTFT p50", "TTFT p95", "E2E p50", "E2E p95"] {
        assert!(texts.contains(&format!("Slowdown, {metric}").as_str()), "{metric}: {texts:?}");
    }
    let lines = scene.marks.iter().filter(|m| matches!(m, Mark::Line { dash: "5 3", .. })).count();
    assert_eq!(lines, 4, "a line at 1 in each panel of a slowdown");
    let all = texts.join(" ");
    assert!(all.contains("Whiskers: 95 % interval of the slowdown"), "{all}");
    assert!(all.contains("n/a (load 'alone' was not measured here): slowdown TTFT p50"), "{all}");
    let nothing = ReportSpec { mixed: Some("another".to_owned()), ..spec };
    let scene = chart("fairness", &results, &plan, &nothing).unwrap();
    let says = |m: &Mark| matches!(m, Mark::Text(t) if t.text == "load 'another' was not measured");
    assert_eq!(scene.marks.iter().filter(|m| says(m)).count(), 4);
}
