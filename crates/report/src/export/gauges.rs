//! What forms for time-series databases have in common: every metric of every point as a gauge.

use super::{ExportInput, ExportTrial};
use scalebeam_model::metrics::{self, Metric};
use scalebeam_model::results::{MetricValue, PointResult};
use scalebeam_model::trust::TrustLevel;
use scalebeam_model::units::Nanos;

/// One metric over all points.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Our name of it.
    pub(super) name: String,
    /// Its unit; empty where it has none.
    pub(super) unit: String,
    /// Its definition.
    pub(super) doc: String,
    pub(super) points: Vec<GaugePoint>,
}

/// One value.
#[derive(Debug)]
pub(super) struct GaugePoint {
    /// Names and values of what tells it apart.
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
    /// From the begin of the first trial to the end of the last.
    pub(super) began: Option<Nanos>,
    pub(super) ended: Option<Nanos>,
}

/// Statistics of a distribution; the mean first.
pub(super) const STATISTICS: [&str; 11] =
    ["mean", "std", "min", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "max"];

/// Metrics by name, and the trust of each point last.
pub(super) fn gauges(input: &ExportInput<'_>) -> Vec<Gauge> {
    let points = input.points();
    let mut names: Vec<&String> = points.iter().flat_map(|(p, _)| p.metrics.keys()).collect();
    names.sort();
    names.dedup();
    let of_name = |name: &&String| {
        // A percentile that was asked for is a number beside the metric that it is of.
        let metric: &Metric = metrics::METRICS.iter().find(|m| m.name == **name)?;
        let points =
            points.iter().flat_map(|(point, trials)| values(point, trials, name)).collect();
        Some(Gauge {
            name: (*name).clone(),
            unit: metric.unit.to_owned(),
            doc: metric.doc.to_owned(),
            points,
        })
    };
    let mut out: Vec<Gauge> = names.iter().filter_map(of_name).collect();
    out.push(trust(&points));
    out
}

fn trust(points: &[(&PointResult, Vec<ExportTrial<'_>>)]) -> Gauge {
    let level = |point: &PointResult| match point.trust.level {
        TrustLevel::Sound => 0.0,
        TrustLevel::Caution => 1.0,
        TrustLevel::Invalid => 2.0,
    };
    let of_point = |(point, trials): &(&PointResult, Vec<ExportTrial<'_>>)| {
        gauge_point(point, trials, None, level(point))
    };
    Gauge {
        name: "distrust".to_owned(),
        unit: String::new(),
        doc: "how far the point's numbers can be relied on: 0 sound, 1 caution, 2 invalid"
            .to_owned(),
        points: points.iter().map(of_point).collect(),
    }
}

fn values(point: &PointResult, trials: &[ExportTrial<'_>], name: &str) -> Vec<GaugePoint> {
    match point.metrics.get(name) {
        None => Vec::new(),
        Some(MetricValue::Number(n)) if n.is_finite() => vec![gauge_point(point, trials, None, *n)],
        Some(MetricValue::Number(_)) => Vec::new(),
        Some(MetricValue::Distribution(d)) => {
            let stats = STATISTICS.iter().filter_map(|s| Some((*s, d.stat(s)?)));
            let finite = stats.filter(|(_, value)| value.is_finite());
            finite.map(|(stat, value)| gauge_point(point, trials, Some(stat), value)).collect()
        }
    }
}

fn gauge_point(
    point: &PointResult,
    trials: &[ExportTrial<'_>],
    stat: Option<&str>,
    value: f64,
) -> GaugePoint {
    let mut labels = vec![
        ("deployment", point.deployment.clone()),
        ("load", point.load.clone()),
        ("level", point.level.clone()),
        ("trust", point.trust.level.name().to_owned()),
    ];
    labels.extend(stat.map(|stat| ("stat", stat.to_owned())));
    GaugePoint {
        labels,
        value,
        began: trials.iter().filter_map(|t| t.began).min(),
        ended: trials.iter().filter_map(|t| t.ended).max(),
    }
}
