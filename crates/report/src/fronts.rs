//! Fronts in tables: the points that no other beats, and what each deployment gives at a target.

use crate::metric::Named;
use crate::number::{self, ABSENT};
use crate::spec::ReportSpec;
use crate::table::{Grid, trust_word};
use scalebeam_model::analysis::pareto::{self, Front, FrontPoint, ReadOut};
use scalebeam_model::results::Results;
use scalebeam_model::trust::TrustLevel;

/// The metrics of a front.
pub(crate) fn axes(spec: &ReportSpec) -> (&str, &str) {
    let y = spec.y.first().map_or(pareto::USUAL_Y, String::as_str);
    (spec.x.as_deref().unwrap_or(pareto::USUAL_X), y)
}

/// The fronts of a `pareto` report, one a workload.
pub(crate) fn of_spec<'a>(
    results: &'a Results,
    spec: &ReportSpec,
) -> impl Iterator<Item = &'a Front> {
    let (x, y) = axes(spec);
    let is_of = move |f: &&Front| {
        (f.x.as_str(), f.y.as_str()) == (x, y)
            && f.deploy == spec.deploy
            && f.load == spec.load
            && f.at == spec.at
    };
    let mut seen: Vec<&str> = Vec::new();
    // Two reports that ask the same have the same fronts.
    let found: Vec<&Front> = results.fronts.iter().filter(is_of).collect();
    found.into_iter().filter(move |f| {
        let is_new = !seen.contains(&f.workload.as_str());
        seen.push(&f.workload);
        is_new
    })
}

/// A table a front, and one of its targets.
pub(crate) fn grids(results: &Results) -> impl Iterator<Item = Grid> {
    results.fronts.iter().flat_map(|front| [on_front(front), at_targets(front)]).flatten()
}

fn named(front: &Front) -> (Named, Named) {
    (Named::new(&front.x), Named::new(&front.y))
}

fn shown(value: Option<f64>, metric: &Named) -> String {
    let value = value.map(|v| number::in_unit(v * metric.scale(), &metric.unit));
    value.unwrap_or_else(|| ABSENT.to_owned())
}

fn on_front(front: &Front) -> Option<Grid> {
    let (x, y) = named(front);
    let mut on: Vec<&FrontPoint> = front.points.iter().filter(|p| p.is_on_front).collect();
    on.sort_by(|a, b| a.x.unwrap_or(0.0).total_cmp(&b.x.unwrap_or(0.0)));
    let row = |p: &&FrontPoint| {
        let names = [&p.deployment, &p.load, &p.level].map(String::clone);
        let values = [shown(p.x, &x), shown(p.y, &y), trust_word(p.trust).to_owned()];
        names.into_iter().chain(values).collect()
    };
    let head = ["Deployment", "Load", "Level"].map(str::to_owned).into_iter();
    (!on.is_empty()).then(|| Grid {
        note: None,
        title: format!(
            "Points that no other beats on {} and {}, {}",
            y.short, x.short, front.workload
        ),
        head: head.chain([x.head(), y.head(), "Trust".to_owned()]).collect(),
        names: 3,
        rows: on.iter().map(row).collect(),
        trust: on.iter().map(|p| p.trust).collect(),
    })
}

fn at_targets(front: &Front) -> Option<Grid> {
    let (x, y) = named(front);
    let trust = |r: &ReadOut| {
        let is_beside = |p: &&FrontPoint| {
            p.deployment == r.deployment
                && r.between.iter().any(|n| n.load == p.load && n.level == p.level)
        };
        let beside = front.points.iter().filter(is_beside);
        beside.map(|p| p.trust).max().unwrap_or(TrustLevel::Sound)
    };
    let row = |r: &ReadOut| {
        vec![
            number::plain(r.at * x.scale()),
            r.deployment.clone(),
            shown(r.y, &y),
            ratio(r),
            source(r, &x, &y),
            trust_word(trust(r)).to_owned(),
        ]
    };
    let baseline = front.read_outs.iter().find_map(|r| r.baseline.as_deref());
    let against = baseline.map_or_else(|| "Ratio".to_owned(), |b| format!("vs {b}"));
    let head = [format!("At {}", x.head()), "Deployment".to_owned(), y.head(), against];
    let more = ["From", "Trust"].map(str::to_owned);
    (!front.read_outs.is_empty()).then(|| Grid {
        note: None,
        title: format!("{} at a target of {}, {}", y.short, x.short, front.workload),
        head: head.into_iter().chain(more).collect(),
        names: 2,
        rows: front.read_outs.iter().map(row).collect(),
        trust: front.read_outs.iter().map(trust).collect(),
    })
}

fn ratio(r: &ReadOut) -> String {
    match (r.ratio, &r.baseline) {
        (Some(ratio), _) => number::ratio(ratio),
        (None, None) if r.y.is_some() => "baseline".to_owned(),
        (None, _) => ABSENT.to_owned(),
    }
}

/// Where a value comes from.
fn source(r: &ReadOut, x: &Named, y: &Named) -> String {
    let said = |n: &pareto::Neighbour| {
        format!("{} ({}, {})", n.level, shown(Some(n.x), x), shown(Some(n.y), y))
    };
    match r.between.as_slice() {
        [] => r.absent.clone().unwrap_or_default(),
        [one] => format!("measured at {}", said(one)),
        [low, .., high] => format!("interpolated between {} and {}", said(low), said(high)),
    }
}

/// What deployments give at targets in sentences, for where there is no room for a table: of what, and what is said.
pub(crate) fn sentences(results: &Results) -> Vec<(String, String)> {
    let of = |front: &Front, at: f64| {
        let (x, y) = named(front);
        let said = |r: &ReadOut| {
            let against = r.ratio.zip(r.baseline.as_ref());
            let against =
                against.map_or_else(String::new, |(v, b)| format!(", {} {b}", number::ratio(v)));
            let value = shown(r.y, &y);
            let unit = if r.y.is_some() { format!(" {}", y.unit) } else { String::new() };
            format!("{} {value}{unit} ({}){against}", r.deployment, source(r, &x, &y))
        };
        let reads = front.read_outs.iter().filter(|r| r.at.total_cmp(&at).is_eq());
        let said: Vec<String> = reads.map(said).collect();
        let what =
            format!("at {} {} of {}", number::plain(at * x.scale()), x.head(), front.workload);
        (what, said.join("; "))
    };
    let fronts = results.fronts.iter();
    fronts.flat_map(|front| front.at.iter().map(move |at| of(front, *at))).collect()
}

/// Points that are on no front since they lack a value: `(why, what)`.
pub(crate) fn absences(fronts: &[&Front]) -> Vec<(String, String)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for front in fronts {
        let (x, y) = named(front);
        for p in &front.points {
            let missing = match (p.x, p.y) {
                (Some(_), Some(_)) => continue,
                (None, Some(_)) => x.short.clone(),
                (Some(_), None) => y.short.clone(),
                (None, None) => format!("{} and {}", x.short, y.short),
            };
            let why = format!("has no {missing}");
            let id = format!("{} {} {}", p.deployment, p.load, p.level);
            match all.iter_mut().find(|(w, _)| *w == why) {
                Some((_, ids)) => ids.push(id),
                None => all.push((why, vec![id])),
            }
        }
    }
    all.into_iter().map(|(why, ids)| (why, ids.join(", "))).collect()
}
