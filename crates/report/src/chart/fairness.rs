//! A class beside others against itself alone: one panel a measure, deployments side by side.

use super::bars::{Bar, Bars, Quantity};
use super::figure::{Body, Figure, Legend, Panel, Swatch};
use super::view::View;
use crate::fairness as table;
use crate::metric::Named;
use crate::number;
use crate::spec::ReportSpec;
use scalebeam_model::analysis::fairness::{ClassFairness, Fairness, Slowdown, USUAL};

/// Places of bars: a class under a level each.
type Groups<'a> = Vec<(String, Vec<(&'a Fairness, &'a ClassFairness)>)>;

/// Deployments with their series.
type Shown<'a> = [(usize, &'a str)];

/// Builds the figure of a `fairness` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let found: Vec<&Fairness> = table::of_spec(view.results, spec).collect();
    let loads: Vec<&str> =
        found.iter().flat_map(|f| f.alone.iter().chain([&f.load])).map(String::as_str).collect();
    let view = &view.of_loads(&loads);
    let is_told = |d: &str| found.iter().any(|f| f.deployment == d);
    let shown: Vec<(usize, &str)> = view.shown().into_iter().filter(|(_, d)| is_told(d)).collect();
    let counting = groups(&found, |c| !c.slowdowns.is_empty());
    let mut panels: Vec<Panel> =
        metrics(&found).iter().map(|m| slowdown_panel(m, &counting, &shown, spec)).collect();
    if !found.is_empty() {
        panels.push(overtaken_panel(&groups(&found, |_| true), &shown));
        panels.push(evenness_panel(&found, &shown));
    }
    let legend = shown.iter().map(|(series, name)| Legend {
        series: *series,
        label: (*name).to_owned(),
        swatch: Swatch::Area,
    });
    let mut notes: Vec<String> = confidence_note(&found).into_iter().collect();
    let absent = table::absences(found.iter().copied());
    notes.extend(
        absent.into_iter().map(|(why, what)| format!("{} ({why}): {what}", number::ABSENT)),
    );
    notes.extend(view.notes(&[]));
    Figure {
        title: view.title(spec, "beside others against alone"),
        subtitle: view.subtitle(),
        columns: if panels.len() > 4 { 3 } else { 2 },
        panels,
        legend: legend.collect(),
        notes,
    }
}

/// Measures in the order of the results, the usual ones where there are none.
fn metrics(found: &[&Fairness]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for slowdown in found.iter().flat_map(|f| &f.classes).flat_map(|c| &c.slowdowns) {
        if !out.contains(&slowdown.metric) {
            out.push(slowdown.metric.clone());
        }
    }
    if out.is_empty() { USUAL.map(str::to_owned).to_vec() } else { out }
}

fn groups<'a>(found: &[&'a Fairness], counts: fn(&ClassFairness) -> bool) -> Groups<'a> {
    let has_levels = found.iter().any(|f| f.level != found[0].level);
    let mut out: Groups<'a> = Vec::new();
    for fairness in found {
        for class in fairness.classes.iter().filter(|c| counts(c)) {
            let label = match has_levels {
                true => format!("{} {}", class.class, fairness.level),
                false => class.class.clone(),
            };
            match out.iter_mut().find(|(name, _)| *name == label) {
                Some((_, list)) => list.push((fairness, class)),
                None => out.push((label, vec![(fairness, class)])),
            }
        }
    }
    out
}

fn slowdown_panel(
    metric: &str,
    groups: &Groups<'_>,
    shown: &Shown<'_>,
    spec: &ReportSpec,
) -> Panel {
    let named = Named::new(metric);
    let of = |fairness: &Fairness, class: &ClassFairness| {
        let slowdown = class.slowdowns.iter().find(|s| s.metric == metric)?;
        let ratio = slowdown.ratio.as_ref();
        let tip = format!(
            "{} under {} {}, {}: {}",
            fairness.deployment,
            fairness.load,
            fairness.level,
            class.class,
            said(slowdown, &named)
        );
        Some((ratio.map(|r| r.point), ratio.map(|r| (r.low, r.high)), tip))
    };
    let bars = bars(groups, shown, of);
    let body = if bars.iter().all(|b| b.value.is_none()) {
        Body::Empty(table::why_nothing(groups.iter().flat_map(|(_, list)| list), spec))
    } else {
        bars_body(groups, shown, bars, (Some(1.0), Quantity::Ratio))
    };
    let subtitle = "times itself alone, 1 is no slowdown, lower is better".to_owned();
    Panel { title: format!("Slowdown, {}", named.short), subtitle, body }
}

/// `2.31x [1.90, 2.80] (120 ms beside others, 52.0 ms alone)`.
fn said(slowdown: &Slowdown, named: &Named) -> String {
    let shown = |v: Option<f64>| table::shown(v, named);
    match &slowdown.ratio {
        Some(ratio) => format!(
            "{} {} ({} {unit} beside others, {} {unit} alone)",
            named.short,
            crate::table::ratio(ratio),
            shown(slowdown.beside),
            shown(slowdown.alone),
            unit = named.unit
        ),
        None => format!(
            "{} {}: {}",
            named.short,
            number::ABSENT,
            slowdown.absent.as_deref().unwrap_or_default()
        ),
    }
}

/// A bar's value, its range, and what is said of it.
type Drawn = (Option<f64>, Option<(f64, f64)>, String);

fn bars(
    groups: &Groups<'_>,
    shown: &Shown<'_>,
    of: impl Fn(&Fairness, &ClassFairness) -> Option<Drawn>,
) -> Vec<Bar> {
    let mut out = Vec::new();
    for (group, (_, list)) in groups.iter().enumerate() {
        for (slot, (series, deployment)) in shown.iter().enumerate() {
            let Some((fairness, class)) = list.iter().find(|(f, _)| f.deployment == *deployment)
            else {
                continue;
            };
            let Some((value, range, tip)) = of(fairness, class) else { continue };
            let trust = fairness.trust;
            let (series, from) = (*series, 0.0);
            out.push(Bar { group, slot, series, value, from, range, trust, tip });
        }
    }
    out
}

fn bars_body(
    groups: &Groups<'_>,
    shown: &Shown<'_>,
    bars: Vec<Bar>,
    (reference, quantity): (Option<f64>, Quantity),
) -> Body {
    let groups = groups.iter().map(|(name, _)| name.clone()).collect();
    Body::Bars(Bars { groups, slots: shown.len(), bars, reference, quantity })
}

fn overtaken_panel(groups: &Groups<'_>, shown: &Shown<'_>) -> Panel {
    let of = |fairness: &Fairness, class: &ClassFairness| {
        let percent = 100.0 * class.overtaken as f64 / class.requests as f64;
        let tip = format!(
            "{} under {} {}, {}: {} of {} requests overtaken",
            fairness.deployment,
            fairness.load,
            fairness.level,
            class.class,
            class.overtaken,
            class.requests
        );
        Some(((class.requests > 0).then_some(percent), None, tip))
    };
    Panel {
        title: "Waited behind another class".to_owned(),
        subtitle: "% of requests whose first token came after one due no earlier".to_owned(),
        body: bars_body(groups, shown, bars(groups, shown, of), (None, Quantity::Percent)),
    }
}

fn evenness_panel(found: &[&Fairness], shown: &Shown<'_>) -> Panel {
    let has_levels = found.iter().any(|f| f.level != found[0].level);
    let mut groups: Groups<'_> = Vec::new();
    for fairness in found {
        let Some(class) = fairness.classes.first() else { continue };
        let label = if has_levels { &fairness.level } else { &fairness.load };
        match groups.iter_mut().find(|(name, _)| name == label) {
            Some((_, list)) => list.push((*fairness, class)),
            None => groups.push((label.clone(), vec![(*fairness, class)])),
        }
    }
    let of = |fairness: &Fairness, _: &ClassFairness| {
        let id = format!("{} under {} {}", fairness.deployment, fairness.load, fairness.level);
        Some(match &fairness.evenness {
            Some(e) => {
                let tip = format!(
                    "{id}: Jain's index {:.3}, longest over shortest {}",
                    e.jain,
                    number::ratio(e.max_over_min)
                );
                (Some(e.jain), None, tip)
            }
            None => (None, None, format!("{id}: {}", fairness.jain().err().unwrap_or_default())),
        })
    };
    Panel {
        title: "Jain's index".to_owned(),
        subtitle: "of E2E per output token over requests, 1 is even, higher is better".to_owned(),
        body: bars_body(&groups, shown, bars(&groups, shown, of), (None, Quantity::Number)),
    }
}

fn confidence_note(found: &[&Fairness]) -> Option<String> {
    let mut slowdowns = found.iter().flat_map(|f| &f.classes).flat_map(|c| &c.slowdowns);
    let ratio = slowdowns.find_map(|s| s.ratio.as_ref())?;
    let share = number::tick(ratio.confidence * 100.0);
    Some(format!("Whiskers: {share} % interval of the slowdown ({}).", ratio.method))
}
