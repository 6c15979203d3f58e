//! Where the rest was lost: from what a size promises down to what it gave, share by share.

use super::bars::{Bar, Bars, Quantity};
use super::figure::{Body, Figure, Panel};
use super::view::View;
use crate::number;
use crate::spec::ReportSpec;
use scalebeam_model::analysis::loss::{Loss, Share};
use scalebeam_model::trust::TrustLevel;

/// Losses that one figure shows.
const MAX_PANELS: usize = 6;
/// Shares that are smaller are one bar together.
const SMALL: f64 = 0.01;
/// Colours of the ends, and of what was lost and gained between them; the signs say it too.
const END: usize = 6;
const LOST: usize = 3;
const GAINED: usize = 2;

/// Builds the figure of a `waterfall` report.
pub(crate) fn figure(view: &View<'_>, spec: &ReportSpec) -> Figure {
    let is_asked = |l: &&Loss| {
        let is_base = spec.baseline.as_ref().is_none_or(|b| *b == l.baseline);
        is_base && view.points.iter().any(|p| p.deployment == l.deployment && p.load == l.load)
    };
    // The heaviest loads come last, and are those that a size is bought for.
    let all: Vec<&Loss> = view.results.losses.iter().filter(is_asked).collect();
    let hidden = all.len().saturating_sub(MAX_PANELS);
    let mut panels: Vec<Panel> = all[hidden..].iter().map(|l| panel(l)).collect();
    if panels.is_empty() {
        let body = Body::Empty("no two deployments of different size met the same load".to_owned());
        panels.push(Panel { title: "Losses".to_owned(), subtitle: String::new(), body });
    }
    let mut notes = vec![
        "Stages are measured; a cause is claimed by what was read, or by a model where its words say so; what nothing explains is called (rest).".to_owned(),
    ];
    if hidden > 0 {
        notes.push(format!("{hidden} more under lighter loads: results.md has all."));
    }
    Figure {
        title: view.title(spec, "where the rest was lost"),
        subtitle: view.subtitle(),
        panels,
        columns: 1,
        legend: Vec::new(),
        notes,
    }
}

fn panel(loss: &Loss) -> Panel {
    let mut groups = vec![format!("{} times {}", number::tick(loss.size), loss.baseline)];
    let mut bars = vec![whole(100.0, 0)];
    let mut level = 100.0;
    let (large, small): (Vec<&Share>, Vec<&Share>) =
        loss.shares.iter().partition(|s| s.share.abs() >= SMALL);
    let rest: f64 = small.iter().map(|s| s.share).sum();
    let named = large.iter().map(|s| (s.cause.label().to_owned(), s.share, s.evidence.clone()));
    let others = (rest.abs() >= SMALL / 10.0).then(|| ("others".to_owned(), rest, String::new()));
    for (name, share, evidence) in named.chain(others) {
        let next = level - share * 100.0;
        bars.push(Bar {
            group: groups.len(),
            slot: 0,
            series: if share > 0.0 { LOST } else { GAINED },
            value: Some(next),
            from: level,
            range: None,
            trust: TrustLevel::Sound,
            tip: format!("{name}: {} of the ideal. {evidence}", number::percent(share * 100.0)),
        });
        groups.push(name);
        level = next;
    }
    bars.push(whole(100.0 * (1.0 - loss.lost), groups.len()));
    groups.push(loss.deployment.clone());
    Panel {
        title: format!("{} under {} {}", loss.deployment, loss.load, loss.level),
        subtitle: "output tokens/s, of what its size promises".to_owned(),
        body: Body::Bars(Bars {
            groups,
            slots: 1,
            bars,
            reference: None,
            quantity: Quantity::Steps,
        }),
    }
}

fn whole(value: f64, group: usize) -> Bar {
    Bar {
        group,
        slot: 0,
        series: END,
        value: Some(value),
        from: 0.0,
        range: None,
        trust: TrustLevel::Sound,
        tip: number::percent(value),
    }
}
