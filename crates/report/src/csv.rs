//! `results.csv`: one row a point, every metric and statistic in a column of its own.
//!
//! A value that is not there is an empty cell. Units are in the names: `ttft_ms_p50`.

use crate::error::ReportError;
use crate::number::unsigned_zero;
use scalebeam_model::metrics::Timeline;
use scalebeam_model::plan::Plan;
use scalebeam_model::request::{FailureClass, Outcome};
use scalebeam_model::results::{MetricValue, Metrics, PointResult, Results};
use std::collections::BTreeSet;

const STATISTICS: [&str; 13] =
    ["mean", "std", "min", "p1", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "p999", "max"];

const FIXED: [&str; 15] = [
    "run",
    "experiment",
    "deploy",
    "load",
    "level",
    "mode",
    "concurrency",
    "rate_rps",
    "batch",
    "gpus",
    "gpu",
    "model",
    "trials",
    "trust",
    "trust_codes",
];

const TIMELINE: [&str; 11] = [
    "deploy",
    "load",
    "level",
    "trial",
    "from_s",
    "width_s",
    "in_flight",
    "sent_rps",
    "completed_rps",
    "failed_rps",
    "output_tps",
];

/// A metric's column, and how to get its value.
enum Column {
    Number(String),
    Statistic(String, &'static str),
    Count(String),
}

impl Column {
    fn head(&self) -> String {
        match self {
            // A percentile that was asked for is a number of its own: `ttft_ms.p87.5`.
            Self::Number(name) => name.replacen('.', "_", 1),
            Self::Statistic(name, stat) => format!("{name}_{stat}"),
            Self::Count(name) => format!("{name}_count"),
        }
    }

    fn value(&self, metrics: &Metrics) -> Option<f64> {
        match self {
            Self::Number(name) => match metrics.get(name)? {
                MetricValue::Number(n) => Some(*n),
                MetricValue::Distribution(_) => None,
            },
            Self::Statistic(name, _) | Self::Count(name) => match metrics.get(name)? {
                MetricValue::Distribution(d) => match self {
                    Self::Statistic(_, stat) => d.stat(stat),
                    _ => d.stat("count"),
                },
                MetricValue::Number(_) => None,
            },
        }
    }
}

fn metric_columns<'a>(rows: impl Iterator<Item = &'a Metrics>) -> Vec<Column> {
    let mut numbers = BTreeSet::new();
    let mut distributions = BTreeSet::new();
    for (name, value) in rows.flatten() {
        match value {
            MetricValue::Number(_) => numbers.insert(name.clone()),
            MetricValue::Distribution(_) => distributions.insert(name.clone()),
        };
    }
    // Some metrics repeat what the plan says: a column of a name is there once.
    let is_new = |name: &String| !FIXED.contains(&name.as_str());
    let mut columns: Vec<Column> = numbers.into_iter().filter(is_new).map(Column::Number).collect();
    for name in distributions {
        columns.extend(STATISTICS.map(|stat| Column::Statistic(name.clone(), stat)));
        columns.push(Column::Count(name));
    }
    columns
}

/// Writes the points of a run as CSV.
///
/// # Errors
/// Only when memory cannot be written.
pub fn results_csv(results: &Results, plan: &Plan) -> Result<String, ReportError> {
    let columns = metric_columns(results.points.iter().map(|p| &p.metrics));
    let mut head: Vec<String> = FIXED.map(str::to_owned).into_iter().collect();
    head.extend(Outcome::ALL.map(|o| format!("requests_{}", o.name())));
    head.extend(FailureClass::ALL.map(|c| format!("failures_{}", c.name())));
    head.extend(columns.iter().map(Column::head));
    as_text(|out| {
        out.write_record(&head)?;
        for point in &results.points {
            let mut row = fixed(results, plan, point);
            let count = |o: Outcome| point.ended(o).to_string();
            row.extend(Outcome::ALL.map(count));
            let lost = |c: FailureClass| point.failures.get(c.name()).copied().unwrap_or(0);
            row.extend(FailureClass::ALL.map(|c| lost(c).to_string()));
            row.extend(
                columns.iter().map(|c| optional(c.value(&point.metrics).map(unsigned_zero))),
            );
            out.write_record(&row)?;
        }
        Ok(())
    })
}

/// Writes classes of mixed workloads and entries as CSV, a row a part of a point.
///
/// # Errors
/// Only when memory cannot be written.
pub fn parts_csv(results: &Results) -> Result<String, ReportError> {
    let parts = || results.points.iter().flat_map(PointResult::parts);
    let columns = metric_columns(parts().map(|(_, _, metrics)| metrics));
    let mut head = ["deploy", "load", "level", "by", "part"].map(str::to_owned).to_vec();
    head.extend(columns.iter().map(Column::head));
    as_text(|out| {
        out.write_record(&head)?;
        for point in &results.points {
            for (by, part, metrics) in point.parts() {
                let place = [point.deployment.as_str(), &point.load, &point.level, by, &part];
                let mut row = place.map(str::to_owned).to_vec();
                row.extend(columns.iter().map(|c| optional(c.value(metrics).map(unsigned_zero))));
                out.write_record(&row)?;
            }
        }
        Ok(())
    })
}

/// Writes what each trial did over time, a row a bucket.
///
/// # Errors
/// Only when memory cannot be written.
pub fn timeline_csv(results: &Results) -> Result<String, ReportError> {
    as_text(|out| {
        out.write_record(TIMELINE)?;
        for point in &results.points {
            for trial in &point.trials {
                let place =
                    [point.deployment.as_str(), &point.load, &point.level].map(str::to_owned);
                for slice in trial.timeline.iter().flat_map(Timeline::slices) {
                    let mut row = place.to_vec();
                    row.push(trial.number.to_string());
                    let times = [slice.from_s, slice.width_s, slice.in_flight];
                    let rates = [slice.sent_rps, slice.completed_rps, slice.failed_rps];
                    row.extend(
                        times.into_iter().chain(rates).map(|v| unsigned_zero(v).to_string()),
                    );
                    row.push(optional(slice.output_tps.map(unsigned_zero)));
                    out.write_record(&row)?;
                }
            }
        }
        Ok(())
    })
}

/// What `write` writes.
///
/// # Errors
/// Only when memory cannot be written.
pub(crate) fn as_text(
    write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>,
) -> Result<String, ReportError> {
    let failed =
        |e: &dyn std::fmt::Display| ReportError::Encode { format: "CSV", why: e.to_string() };
    let mut out = csv::Writer::from_writer(Vec::new());
    write(&mut out).map_err(|e| failed(&e))?;
    let bytes = out.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn fixed(results: &Results, plan: &Plan, point: &PointResult) -> Vec<String> {
    let deployment = plan.deployment(&point.deployment);
    let codes: Vec<&str> = point.trust.reasons.iter().map(|r| r.code.as_str()).collect();
    vec![
        results.run.clone(),
        results.name.clone(),
        point.deployment.clone(),
        point.load.clone(),
        point.level.clone(),
        point.mode.name().to_owned(),
        optional(point.concurrency),
        optional(point.rate_rps),
        optional(point.batch),
        optional((point.gpus > 0).then_some(point.gpus)),
        deployment.map(|d| d.gpu_kinds.join("+")).unwrap_or_default(),
        deployment.map_or_else(|| plan.model.id.clone(), |d| d.model.clone()),
        point.trials.len().to_string(),
        point.trust.level.name().to_owned(),
        codes.join(" "),
    ]
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn every_point_is_a_row_and_every_value_is_exact() {
        let (results, plan) = testing::run();
        let text = results_csv(&results, &plan).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        let place = |name: &str| head.iter().position(|h| h == name).unwrap();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), results.points.len());
        let number = |row: &csv::StringRecord, name: &str| row[place(name)].parse::<f64>().ok();
        for (row, point) in rows.iter().zip(&results.points) {
            for (name, value) in &point.metrics {
                match value {
                    MetricValue::Number(n) => assert_eq!(number(row, name), Some(*n), "{name}"),
                    MetricValue::Distribution(d) => {
                        for stat in STATISTICS.into_iter().chain(["count"]) {
                            let head = format!("{name}_{stat}");
                            assert_eq!(number(row, &head), d.stat(stat), "{head}");
                        }
                    }
                }
            }
            let counts = Outcome::ALL.len() + FailureClass::ALL.len();
            let of_metrics = head.iter().skip(FIXED.len() + counts);
            let filled = of_metrics.filter(|h| !row[place(h)].is_empty()).count();
            let values = point.metrics.values().map(|v| match v {
                MetricValue::Number(_) => 1,
                MetricValue::Distribution(_) => STATISTICS.len() + 1,
            });
            assert_eq!(filled, values.sum::<usize>(), "what is absent is an empty cell");
            for outcome in Outcome::ALL {
                let count = point.ended(outcome);
                let head = format!("requests_{}", outcome.name());
                assert_eq!(row[place(&head)], count.to_string());
            }
        }
        let lost: Vec<&str> = rows.iter().map(|r| &r[place("failures_timeout")]).collect();
        assert!(lost.contains(&"81") && lost.contains(&"0"), "{lost:?}");
        insta::assert_snapshot!(head.iter().collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn every_bucket_is_a_row() {
        let (results, _) = testing::run();
        let text = timeline_csv(&results).unwrap();
        let trials = results.points.iter().flat_map(|p| &p.trials);
        let buckets = trials.filter_map(|t| t.timeline.as_ref()).map(|t| t.in_flight.len());
        assert_eq!(text.lines().count(), 1 + buckets.sum::<usize>());
        let first: Vec<&str> = text.lines().nth(2).unwrap().split(',').collect();
        assert_eq!(first[..6], ["single-4gpu", "users", "c16", "1", "2", "2"]);
        assert_eq!((first[7], first[9]), ("4", "0"), "8 requests in 2 s, none lost");
    }

    #[test]
    fn every_part_is_a_row() {
        let (mut results, _) = testing::run();
        let metrics = results.points[0].metrics.clone();
        let [a, b] = ["a", "b, c"].map(|name| (name.to_owned(), metrics.clone()));
        results.points[0].classes = [a, b].into();
        let text = parts_csv(&results).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        let place = head.iter().position(|h| h == "ttft_ms_p95").unwrap();
        assert_eq!((&rows[1][3], &rows[1][4]), ("class", "b, c"));
        assert_eq!(rows[1][place].parse().ok(), results.points[0].value("ttft.p95"));
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        let (mut results, plan) = testing::run();
        for (name, value) in [("gpus", 4.0), ("concurrency", 16.0), ("output_tps", -0.0)] {
            results.points[0].metrics.insert(name.to_owned(), MetricValue::Number(value));
        }
        let text = results_csv(&results, &plan).unwrap();
        let mut head: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let all = head.len();
        head.sort_unstable();
        head.dedup();
        assert_eq!(head.len(), all);
        assert!(!text.contains(",-0,"), "zero has no sign");
    }
}
