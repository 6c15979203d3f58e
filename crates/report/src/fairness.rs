//! Fairness in tables: each class beside others against itself alone, how evenly a mixed load was served, and the
//! same prompts asked in several ways.

use crate::metric::Named;
use crate::number::{self, ABSENT};
use crate::spec::ReportSpec;
use crate::table::{self, Grid, trust_word};
use scalebeam_model::analysis::fairness::ways::{Way, Ways};
use scalebeam_model::analysis::fairness::{ClassFairness, Fairness, Slowdown};
use scalebeam_model::plan::Mode;
use scalebeam_model::results::Results;
use scalebeam_model::trust::TrustLevel;

/// Classes that are all named in a sentence; of more, only those that count.
const MAX_CLASSES: usize = 6;

/// What a `fairness` report is about.
pub(crate) fn of_spec<'a>(
    results: &'a Results,
    spec: &ReportSpec,
) -> impl Iterator<Item = &'a Fairness> {
    let is_of = move |f: &&Fairness| {
        let is_same =
            |asked: &Option<String>, is: Option<&String>| asked.is_none() || asked.as_ref() == is;
        is_same(&spec.alone, f.alone.as_ref())
            && is_same(&spec.mixed, Some(&f.load))
            && is_same(&spec.by, f.by.as_ref())
            && (spec.deploy.is_empty() || spec.deploy.contains(&f.deployment))
    };
    let found: Vec<&Fairness> = results.fairness.iter().filter(is_of).collect();
    found.into_iter()
}

/// All tables, as far as there is something to say.
pub(crate) fn grids(results: &Results) -> impl Iterator<Item = Grid> {
    [slowdowns(results), shares(results), ways(results)].into_iter().flatten()
}

pub(crate) fn shown(value: Option<f64>, metric: &Named) -> String {
    let value = value.map(|v| number::in_unit(v * metric.scale(), &metric.unit));
    value.unwrap_or_else(|| ABSENT.to_owned())
}

/// A row with how far it can be relied on.
type Row = (Vec<String>, TrustLevel);

fn grid(title: &str, head: &[&str], names: usize, rows: Vec<Row>) -> Option<Grid> {
    let with_trust = |(mut cells, trust): Row| {
        cells.push(trust_word(trust).to_owned());
        (cells, trust)
    };
    let (rows, trust): (Vec<_>, Vec<_>) = rows.into_iter().map(with_trust).unzip();
    let head = head.iter().chain(&["Trust"]).map(|h| (*h).to_owned()).collect();
    (!rows.is_empty()).then(|| Grid {
        note: None,
        title: title.to_owned(),
        head,
        names,
        rows,
        trust,
    })
}

fn place(f: &Fairness, class: &ClassFairness) -> Vec<String> {
    [&f.deployment, &f.load, &f.level, &class.class].map(String::clone).to_vec()
}

fn of_classes(results: &Results) -> impl Iterator<Item = (&Fairness, &ClassFairness)> {
    results.fairness.iter().flat_map(|f| f.classes.iter().map(move |c| (f, c)))
}

fn slowdowns(results: &Results) -> Option<Grid> {
    let row = |f: &Fairness, class: &ClassFairness, slowdown: &Slowdown| {
        let named = Named::new(&slowdown.metric);
        let ratio = slowdown.ratio.as_ref().map_or_else(|| ABSENT.to_owned(), table::ratio);
        let values = [shown(slowdown.beside, &named), shown(slowdown.alone, &named), ratio];
        let name = named.head();
        (place(f, class).into_iter().chain([name]).chain(values).collect(), f.trust)
    };
    let rows = of_classes(results)
        .flat_map(|(f, class)| class.slowdowns.iter().map(move |s| row(f, class, s)));
    let head =
        ["Deployment", "Load", "Level", "Class", "Metric", "Beside others", "Alone", "Slowdown"];
    grid("Each class beside others, against itself alone", &head, 5, rows.collect())
}

fn shares(results: &Results) -> Option<Grid> {
    let row = |(f, class): (&Fairness, &ClassFairness)| {
        let even = f.evenness.as_ref();
        let absent = || ABSENT.to_owned();
        let values = [
            class.requests.to_string(),
            class.overtaken.to_string(),
            even.map_or_else(absent, |e| format!("{:.3}", e.jain)),
            even.map_or_else(absent, |e| number::ratio(e.max_over_min)),
        ];
        (place(f, class).into_iter().chain(values).collect(), f.trust)
    };
    let head = [
        "Deployment",
        "Load",
        "Level",
        "Class",
        "Requests",
        "Waited behind another class",
        "Jain's index of the load",
        "Longest / shortest",
    ];
    let rows = of_classes(results).map(row).collect();
    grid("How evenly mixed loads were served (E2E per output token)", &head, 4, rows)
}

fn ways(results: &Results) -> Option<Grid> {
    let row = |ways: &Ways, way: &Way| {
        let tps = Named::new("output_tps");
        let e2e = Named::new("e2e.p50");
        let speedup = match &way.speedup {
            Some(speedup) => table::ratio(speedup),
            None if way.mode == Mode::Serial => "yardstick".to_owned(),
            None => ABSENT.to_owned(),
        };
        let cells = vec![
            ways.deployment.clone(),
            ways.workload.clone(),
            ways.prompts.to_string(),
            asked(way.mode).to_owned(),
            format!("{} {}", way.load, way.level),
            shown(way.output_tps, &tps),
            shown(way.e2e_ms_p50, &e2e),
            speedup,
        ];
        (cells, way.trust)
    };
    let rows =
        results.ways.iter().flat_map(|all| all.ways.iter().map(move |way| row(all, way))).collect();
    let head = [
        "Deployment",
        "Workload",
        "Prompts",
        "Asked",
        "Load",
        "tok/s",
        "E2E p50 (ms)",
        "tok/s vs one by one",
    ];
    grid("The same prompts as a batch, at once, and one by one", &head, 5, rows)
}

const fn asked(mode: Mode) -> &'static str {
    match mode {
        Mode::Serial => "one by one",
        Mode::Burst => "all at once",
        Mode::Batch => "as one batch",
        Mode::Closed => "some at a time",
        Mode::Open => "at a rate",
    }
}

/// Slowdowns that are not there: `(why, what)`, each reason once.
pub(crate) fn absences<'a>(all: impl IntoIterator<Item = &'a Fairness>) -> Vec<(String, String)> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    for (f, class) in all.into_iter().flat_map(|f| f.classes.iter().map(move |c| (f, c))) {
        let mut by_reason: Vec<(&str, Vec<String>)> = Vec::new();
        for (why, s) in class.slowdowns.iter().filter_map(|s| Some((s.absent.as_deref()?, s))) {
            let metric = Named::new(&s.metric).short;
            match by_reason.iter_mut().find(|(w, _)| *w == why) {
                Some((_, metrics)) => metrics.push(metric),
                None => by_reason.push((why, vec![metric])),
            }
        }
        for (why, metrics) in by_reason {
            let (metrics, class) = (metrics.join(", "), &class.class);
            let what =
                format!("slowdown {metrics} of {class} in {}/{}/{}", f.deployment, f.load, f.level);
            match out.iter_mut().find(|(w, _)| *w == why) {
                Some((_, list)) => list.push(what),
                None => out.push((why.to_owned(), vec![what])),
            }
        }
    }
    out.into_iter().map(|(why, list)| (why, list.join("; "))).collect()
}

/// The tables in sentences, for where there is no room for them: of what, and what is said of it.
pub(crate) fn sentences(results: &Results) -> Vec<(String, String)> {
    let mixed = results.fairness.iter().map(|f| {
        let is_told =
            |c: &&ClassFairness| f.classes.len() <= MAX_CLASSES || !c.slowdowns.is_empty();
        let classes = f.classes.iter().filter(is_told).map(class_sentence);
        let text: Vec<String> = classes.chain([evenness_sentence(f)]).collect();
        (format!("{} {} {}", f.load, f.level, f.deployment), text.join("; ") + trusted(f.trust))
    });
    mixed.chain(results.ways.iter().map(ways_sentence)).collect()
}

const fn trusted(trust: TrustLevel) -> &'static str {
    match trust {
        TrustLevel::Invalid => " (INVALID, see trust)",
        TrustLevel::Sound | TrustLevel::Caution => "",
    }
}

fn class_sentence(class: &ClassFairness) -> String {
    let slowdowns = class.slowdowns.iter().map(|s| {
        let ratio = s.ratio.as_ref().map_or_else(|| ABSENT.to_owned(), table::ratio);
        format!("{} {ratio}", Named::new(&s.metric).short)
    });
    let slowdowns: Vec<String> = slowdowns.collect();
    let (name, of, n) = (&class.class, class.requests, class.overtaken);
    let waited = format!("{n} of {of} waited behind another class");
    match slowdowns.as_slice() {
        [] => format!("{name}: {waited}"),
        list => format!("{name} beside others against alone: {}, {waited}", list.join(", ")),
    }
}

fn evenness_sentence(f: &Fairness) -> String {
    match &f.evenness {
        Some(e) => format!(
            "Jain's index {:.3} over E2E per output token, the longest {} the shortest",
            e.jain,
            number::ratio(e.max_over_min)
        ),
        None => format!("Jain's index {ABSENT}"),
    }
}

fn ways_sentence(ways: &Ways) -> (String, String) {
    let tps = Named::new("output_tps");
    let of = |way: &Way| {
        let speedup = way.speedup.as_ref();
        let speedup =
            speedup.map_or_else(String::new, |s| format!(", {} one by one", table::ratio(s)));
        let value = shown(way.output_tps, &tps);
        format!("{} {value} tok/s{speedup}{}", asked(way.mode), trusted(way.trust))
    };
    let text: Vec<String> = ways.ways.iter().map(of).collect();
    let prompts = if ways.prompts == 1 { "prompt" } else { "prompts" };
    let what = format!("{} {prompts} of {} {}", ways.prompts, ways.workload, ways.deployment);
    (what, text.join("; "))
}

/// Why a panel has no bar.
pub(crate) fn why_nothing<'a>(
    counting: impl Iterator<Item = &'a (&'a Fairness, &'a ClassFairness)>,
    spec: &ReportSpec,
) -> String {
    let mut slowdowns = counting.flat_map(|(_, c)| &c.slowdowns);
    slowdowns.find_map(|s| s.absent.clone()).unwrap_or_else(|| match &spec.mixed {
        Some(mixed) => format!("load '{mixed}' was not measured"),
        None => "no mixed load was measured".to_owned(),
    })
}
