//! One deployment against another in the terminal: what differs, a table per level, and a sentence per metric.

use crate::chart::verdict_words;
use crate::metric::Named;
use crate::number;
use crate::table::{self, Grid};
use crate::text::{draw_grid, item, line};
use scalebeam_model::analysis::compare::SMALLEST_DIFFERENCE;
use scalebeam_model::analysis::versus::{Contestant, Matched, Provenance, Versus};
use scalebeam_model::results::{Comparison, ComparisonVerdict};
use scalebeam_model::trust::TrustLevel;

/// The comparison as text, its sentences at most `width` columns wide.
pub fn versus(of: &Versus, width: usize) -> String {
    let mut out = String::new();
    line(&mut out, &format!("A  {}", name(&of.a)));
    line(&mut out, &format!("B  {}", name(&of.b)));
    out.push('\n');
    write_provenance(&mut out, of, width);
    for point in &of.points {
        out.push('\n');
        let grid = grid(point);
        match point.comparisons.is_empty() {
            true => line(&mut out, &grid.title),
            false => out.push_str(&draw_grid(&grid)),
        }
        write_methods(&mut out, point, width);
        if let Some(text) = &point.not_held {
            item(&mut out, "in no interval:", text, width);
        }
        for difference in &point.unlike {
            let text = format!("{}: {} and {}", difference.what, difference.a, difference.b);
            item(&mut out, "* forced, not asked the same:", &text, width);
        }
        if !point.absent.is_empty() {
            let text =
                format!("{} (a side has no value, or none above zero)", point.absent.join(", "));
            item(&mut out, "n/a:", &text, width);
        }
        for reason in &point.reasons {
            item(&mut out, "!", reason, width);
        }
        out.push('\n');
        for comparison in &point.comparisons {
            item(&mut out, "", &sentence(comparison, of), width);
        }
    }
    if !of.unmatched.is_empty() {
        out.push('\n');
        item(&mut out, "met by one of them only:", &of.unmatched.join(", "), width);
    }
    for text in &of.without {
        item(&mut out, "not of every run:", text, width);
    }
    out
}

fn name(of: &Contestant) -> String {
    let cut = if of.incomplete { ", cut short" } else { "" };
    let (runs, plural) = match of.more.len() {
        0 => (of.run.clone(), ""),
        _ => (format!("{}, {}", of.run, of.more.join(", ")), "s"),
    };
    format!("{} of {} (run{plural} {runs}{cut})", of.deployment, of.experiment)
}

fn write_provenance(out: &mut String, of: &Versus, width: usize) {
    line(
        out,
        match of.provenance {
            Provenance::Nothing => {
                "What differs: nothing that is looked at. What the numbers differ by is chance, or the machine."
            }
            Provenance::Single if of.not_known.is_empty() => "What differs: one thing.",
            Provenance::Single => "What differs: one thing, as far as is known.",
            Provenance::Several => {
                "What differs: several things, so that no difference can be laid to one of them."
            }
            Provenance::Unknown => {
                "What differs: nothing that is known, but not everything is known."
            }
        },
    );
    for d in &of.differences {
        item(out, "", &format!("{}: {} -> {}", d.what, d.a, d.b), width);
    }
    for n in &of.not_known {
        item(out, "not known:", &format!("{} ({})", n.what, n.why), width);
    }
}

fn grid(point: &Matched) -> Grid {
    let mark = if point.unlike.is_empty() { "" } else { " *" };
    let row = |c: &Comparison| {
        let metric = Named::new(&c.metric);
        let shown = |v: f64| number::in_unit(v * metric.scale(), &metric.unit);
        vec![
            metric.head(),
            shown(c.baseline_value) + mark,
            shown(c.value) + mark,
            table::ratio(&c.ratio) + mark,
            would_decide(c).unwrap_or_default(),
            verdict_words(c.verdict).to_owned(),
        ]
    };
    let trials = match point.trials {
        (n, m) if n == m => format!("{n} trial{} each", if n == 1 { "" } else { "s" }),
        (n, m) => format!("{n} and {m} trials"),
    };
    let trials = match point.runs {
        (1, 1) => trials,
        (n, m) => format!("{trials}, of {n} and {m} runs"),
    };
    let heads = ["Metric", "A", "B", "B / A [95 %]", "Would decide", "B is"];
    Grid {
        title: format!("{} {}: {trials}", point.load, point.level),
        head: heads.map(str::to_owned).to_vec(),
        names: 1,
        rows: point.comparisons.iter().map(row).collect(),
        trust: vec![TrustLevel::Sound; point.comparisons.len()],
        note: None,
    }
}

/// What it takes, where nothing was decided.
fn would_decide(c: &Comparison) -> Option<String> {
    if c.verdict != ComparisonVerdict::NoDifferenceSeen {
        return None;
    }
    Some(match (c.trials_to_decide, c.detectable) {
        (Some(n), _) => format!("{n} {} each", c.drawn.name()),
        (None, Some(_)) if is_surely_too_small(c) => "none: below 1 %".to_owned(),
        (None, Some(_)) if is_too_small(c) => "not told".to_owned(),
        (None, Some(_)) => format!("> 100 {} each", c.drawn.name()),
        (None, None) => "repeats = 3".to_owned(),
    })
}

/// Each method once, with the metrics that it is of where there are several.
fn write_methods(out: &mut String, point: &Matched, width: usize) {
    let mut methods: Vec<(&str, Vec<String>)> = Vec::new();
    for c in &point.comparisons {
        let label = Named::new(&c.metric).label;
        match methods.iter_mut().find(|(method, _)| *method == c.ratio.method) {
            Some((_, of)) => of.push(label),
            None => methods.push((&c.ratio.method, vec![label])),
        }
    }
    for (method, of) in &methods {
        let of = if methods.len() > 1 { format!(" ({})", of.join(", ")) } else { String::new() };
        item(out, "intervals:", &format!("{method}{of}"), width);
    }
}

fn sentence(c: &Comparison, of: &Versus) -> String {
    let label = Named::new(&c.metric).label;
    let percent = |ratio: f64| number::percent((ratio - 1.0).abs() * 100.0);
    let ratio = &c.ratio;
    let way = if ratio.point > 1.0 { "more" } else { "less" };
    match c.verdict {
        ComparisonVerdict::Better | ComparisonVerdict::Worse => format!(
            "{label}: B is {}, {} % {way} than A; the ratio lies between {} with 95 % confidence.",
            verdict_words(c.verdict),
            percent(ratio.point),
            between(c)
        ),
        ComparisonVerdict::Equivalent => format!(
            "{label}: B and A are alike within the margin of {} %; {} % {way} was seen.",
            number::percent(of.margin.unwrap_or(0.0) * 100.0),
            percent(ratio.point)
        ),
        ComparisonVerdict::NotTrusted => {
            format!("{label}: not judged, since the numbers of a side are not to be trusted.")
        }
        ComparisonVerdict::NoDifferenceSeen => format!(
            "{label}: no difference that we can see{}; the ratio lies between {}.{}",
            in_spite(c),
            between(c),
            sensitivity(c)
        ),
    }
}

fn between(c: &Comparison) -> String {
    format!("{:.3} and {:.3}", c.ratio.low, c.ratio.high)
}

/// Why there is none, where the interval by itself says that there is one.
fn in_spite(c: &Comparison) -> &'static str {
    match c.ratio.low > 1.0 || c.ratio.high < 1.0 {
        false => "",
        true if is_too_small(c) => ", since less than 1 % is not called one",
        true => ", since as many metrics as these show one as large by chance",
    }
}

/// What was seen is not called a difference, however surely it is there.
fn is_too_small(c: &Comparison) -> bool {
    (c.ratio.point - 1.0).abs() < SMALLEST_DIFFERENCE
}

/// Nor is anything that the interval holds.
fn is_surely_too_small(c: &Comparison) -> bool {
    let is_small = |ratio: f64| (ratio - 1.0).abs() < SMALLEST_DIFFERENCE;
    is_small(c.ratio.low) && is_small(c.ratio.high)
}

/// A larger difference is not told as a number; a part of the baseline.
const MOST_SAID: f64 = 10.0;

/// What would have been seen, and what it takes to see more.
fn sensitivity(c: &Comparison) -> String {
    let Some(detectable) = c.detectable else {
        return " How runs differ was not measured: repeats = 3 or more on both sides would tell."
            .to_owned();
    };
    let drawn = c.drawn.name();
    let decides = match c.trials_to_decide {
        Some(n) => format!("{n} {drawn} a side would decide, were they like these"),
        None if is_surely_too_small(c) => {
            format!("more {drawn} would not decide, since less than 1 % is not called a difference")
        }
        None if is_too_small(c) => format!(
            "more {drawn} would tell it better; one as small as was seen, less than 1 %, is not called one"
        ),
        None => format!("a hundred {drawn} a side like these would not decide"),
    };
    // With one degree of freedom it may be any number.
    let (which, seen) = match detectable > MOST_SAID {
        true => ("Not even one", number::percent(MOST_SAID * 100.0)),
        false => ("One", number::percent(detectable * 100.0)),
    };
    format!(" {which} of {seen} % would have been found in 80 of 100 such comparisons; {decides}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::analysis::versus::{COMPARE_FORMAT, Difference, NotKnown};

    /// The third deployment of a run against its first, each verdict once.
    fn example() -> Versus {
        let (results, _) = testing::run();
        let first = &results.comparisons[0];
        let row = |metric: &str, ratio: (f64, f64, f64), verdict| {
            let mut c = first.clone();
            metric.clone_into(&mut c.metric);
            "Welch over 4 and 4 trials, on logarithms".clone_into(&mut c.ratio.method);
            (c.ratio.point, c.ratio.low, c.ratio.high) = ratio;
            (c.baseline_value, c.value, c.verdict) = (200.0, 200.0 * ratio.0, verdict);
            (c.detectable, c.trials_to_decide) = (Some(0.042), None);
            c
        };
        use ComparisonVerdict as Is;
        let mut open = row("ttft.p50", (1.02, 0.98, 1.06), Is::NoDifferenceSeen);
        open.trials_to_decide = Some(17);
        let mut once = row("e2e.p95", (0.93, 0.82, 1.05), Is::NoDifferenceSeen);
        once.detectable = None;
        "bootstrap over requests".clone_into(&mut once.ratio.method);
        let comparisons = vec![
            row("output_tps", (0.9, 0.87, 0.93), Is::Worse),
            row("tpot.p50", (1.004, 0.996, 1.012), Is::Equivalent),
            open,
            row("itl.p50", (0.97, 0.95, 0.99), Is::NoDifferenceSeen),
            row("rps", (0.995, 0.991, 0.999), Is::NoDifferenceSeen),
            row("itl.mean", (1.001, 0.62, 1.6), Is::NoDifferenceSeen),
            once,
        ];
        let of = |deployment: &str, incomplete| Contestant {
            run: "20260101T000000Z-r".to_owned(),
            more: Vec::new(),
            experiment: "example".to_owned(),
            deployment: deployment.to_owned(),
            incomplete,
        };
        let difference = |what: &str, a: &str, b: &str| Difference {
            what: what.to_owned(),
            a: a.to_owned(),
            b: b.to_owned(),
        };
        Versus {
            format: COMPARE_FORMAT,
            a: of("old", false),
            b: of("new", true),
            margin: Some(0.02),
            provenance: Provenance::Single,
            differences: vec![difference("engine version", "0.11.0", "0.12.0")],
            not_known: vec![NotKnown {
                what: "GPU driver".to_owned(),
                why: "of B: nobody looked".to_owned(),
            }],
            forced: false,
            points: vec![Matched {
                load: "users".to_owned(),
                level: "c8".to_owned(),
                trials: (4, 4),
                runs: (1, 1),
                not_held: Some("what bring-ups differ by".to_owned()),
                trust: (TrustLevel::Sound, TrustLevel::Caution),
                reasons: vec!["B: caution (few_samples): p95 of 40 requests".to_owned()],
                unlike: Vec::new(),
                comparisons,
                absent: vec!["preemptions".to_owned()],
            }],
            unmatched: vec!["users/c16".to_owned()],
            without: Vec::new(),
        }
    }

    #[test]
    fn what_differs_comes_first_and_every_verdict_has_its_sentence() {
        let text = versus(&example(), 200);
        for part in [
            "A  old of example (run 20260101T000000Z-r)",
            "B  new of example (run 20260101T000000Z-r, cut short)",
            "What differs: one thing, as far as is known.",
            "engine version: 0.11.0 -> 0.12.0",
            "not known: GPU driver (of B: nobody looked)",
            "users c8: 4 trials each",
            "0.90x [0.87, 0.93]",
            "17 trials each",
            "> 100 trials each",
            "repeats = 3",
            "in no interval: what bring-ups differ by",
            "n/a: preemptions (a side has no value, or none above zero)",
            "! B: caution (few_samples): p95 of 40 requests",
            "B is worse, 10.0 % less than A; the ratio lies between 0.870 and 0.930 with 95 % confidence.",
            "B and A are alike within the margin of 2.0 %; 0.4 % more was seen.",
            "One of 4.2 % would have been found in 80 of 100 such comparisons; 17 trials a side would decide",
            "no difference that we can see, since as many metrics as these show one as large by chance",
            "no difference that we can see, since less than 1 % is not called one",
            "repeats = 3 or more on both sides would tell.",
            "none: below 1 %",
            "trials would not decide, since less than 1 % is not called a difference.",
            "not told",
            "more trials would tell it better;",
            "met by one of them only: users/c16",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let at = |part: &str| text.find(part).unwrap_or(usize::MAX);
        assert!(at("What differs") < at("users c8"), "{text}");
    }

    #[test]
    fn several_runs_a_side_are_named_and_counted() {
        let mut of = example();
        of.a.more = vec!["20260102T000000Z-r".to_owned()];
        of.points[0].runs = (2, 3);
        for c in &mut of.points[0].comparisons {
            c.drawn = scalebeam_model::results::Drawn::Runs;
        }
        let text = versus(&of, 200);
        for part in [
            "A  old of example (runs 20260101T000000Z-r, 20260102T000000Z-r)",
            "users c8: 4 trials each, of 2 and 3 runs",
            "17 runs each",
            "> 100 runs each",
            "17 runs a side would decide",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn numbers_that_were_forced_are_marked() {
        let mut of = example();
        let (a, b) = ("8.0 on average".to_owned(), "12.0".to_owned());
        of.points[0].unlike = vec![Difference { what: "output tokens".to_owned(), a, b }];
        let text = versus(&of, 110);
        assert!(text.contains("180 *"), "{text}");
        assert!(
            text.contains("* forced, not asked the same: output tokens: 8.0 on average and 12.0")
        );
    }
}
