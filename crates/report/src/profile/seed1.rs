//! Seed 1: 22 columns per deployment as CSV and JSON, and the 2x3 picture.

use super::{Files, json, number};
use crate::chart;
use crate::csv::as_text;
use crate::error::ReportError;
use crate::export::plain;
use crate::png::png;
use crate::spec::{Kind, ReportInput, ReportSpec};
use scalebeam_model::distinct::distinct;
use scalebeam_model::request::Outcome;
use scalebeam_model::results::{PointResult, Results, lookup};
use serde_json::{Map, Value};

const DIR: &str = "profile-seed1";

/// The seed's columns, in its order.
pub(super) const COLUMNS: [&str; 22] = [
    "scenario",
    "timestamp",
    "total_requests",
    "successful_requests",
    "failed_requests",
    "success_rate",
    "avg_latency",
    "median_latency",
    "p95_latency",
    "p99_latency",
    "max_latency",
    "min_latency",
    "avg_ttft",
    "median_ttft",
    "p95_ttft",
    "avg_tpot",
    "median_tpot",
    "requests_per_second",
    "tokens_per_second",
    "avg_prompt_tokens",
    "avg_completion_tokens",
    "total_tokens_generated",
];

const NOTES: &str = "\
# What these columns mean

The names and their order are those of `benchmarker.py`; the numbers are scalebeam's.

| column | here | in `benchmarker.py` |
| --- | --- | --- |
| scenario | load, with the level where a load has several | scenario name |
| timestamp | when the run began, UTC | when the scenario ended, local time |
| success_rate | requests answered whole, in % | HTTP 200 without an exception, in % |
| *_latency | seconds from the moment a request was due to the end of its stream | seconds from the call to the end |
| *_ttft | seconds from the moment a request was due to its first non-empty chunk | to the first chunk, which may be the empty role-only one |
| *_tpot | (last token - first token) / (tokens - 1) per request, seconds | mean gap between chunks per request |
| requests_per_second | completed requests over measured wall time | the same |
| tokens_per_second | output tokens of completed requests over measured wall time | the same |
| total_tokens_generated | output tokens of completed requests, all trials | of the one trial |

Counts are sums over all trials; rates are means of the trials' rates. Warm-up is in none of them. A value
that was not measured is empty (CSV) or null (JSON), never 0. Whether a point can be relied on is not in
these columns: see `results.json`.
";

pub(super) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    let results = input.results;
    let mut files = vec![(format!("{DIR}/NOTES.md"), NOTES.as_bytes().to_vec())];
    for deployment in distinct(results.points.iter().map(|p| p.deployment.as_str())) {
        let points = results.points.iter().filter(|p| p.deployment == deployment);
        let rows: Vec<Map<String, Value>> = points.map(|p| row(results, p)).collect();
        let stem = format!("{DIR}/{}_{}", plain(&results.run), plain(deployment));
        files.push((format!("{stem}.csv"), csv(&rows)?));
        let rows = Value::Array(rows.into_iter().map(Value::Object).collect());
        files.push((format!("{stem}.json"), json(&rows)?));
    }
    let metrics = ["rps", "output_tps", "e2e.mean", "e2e.p95", "ttft.mean", "success_rate"];
    let spec = ReportSpec {
        kind: Kind::Panels,
        title: format!("{} Performance Analysis", results.name),
        metrics: metrics.map(str::to_owned).to_vec(),
        by: Some("load".to_owned()),
        ..ReportSpec::default()
    };
    let scene = chart::chart("panels", results, input.plan, &spec)?;
    files.push((format!("{DIR}/{}_performance.png", plain(&results.run)), png(&scene)?));
    Ok(files)
}

fn row(results: &Results, point: &PointResult) -> Map<String, Value> {
    let of = |name: &str| lookup(&point.metrics, name).filter(|v| v.is_finite());
    let seconds = |name: &str| number(of(name).map(|ms| ms / 1e3));
    let (total, good) = (point.expected(), point.ended(Outcome::Completed));
    let tokens = of("output_tokens.mean").zip(of("output_tokens.count"));
    COLUMNS
        .into_iter()
        .map(|column| {
            let value = match column {
                "scenario" => scenario(results, point).into(),
                "timestamp" => timestamp(&results.run).into(),
                "total_requests" => total.into(),
                "successful_requests" => good.into(),
                "failed_requests" => (total - good).into(),
                "success_rate" => number(of("success_rate").map(|share| share * 100.0)),
                "avg_latency" => seconds("e2e_ms.mean"),
                "median_latency" => seconds("e2e_ms.p50"),
                "p95_latency" => seconds("e2e_ms.p95"),
                "p99_latency" => seconds("e2e_ms.p99"),
                "max_latency" => seconds("e2e_ms.max"),
                "min_latency" => seconds("e2e_ms.min"),
                "avg_ttft" => seconds("ttft_ms.mean"),
                "median_ttft" => seconds("ttft_ms.p50"),
                "p95_ttft" => seconds("ttft_ms.p95"),
                "avg_tpot" => seconds("tpot_ms.mean"),
                "median_tpot" => seconds("tpot_ms.p50"),
                "requests_per_second" => number(of("rps")),
                "tokens_per_second" => number(of("output_tps")),
                "avg_prompt_tokens" => number(of("prompt_tokens.mean")),
                "avg_completion_tokens" => number(of("output_tokens.mean")),
                // A sum of whole numbers, through a mean: rounding gives it back.
                _ => number(tokens.map(|(mean, count)| (mean * count).round())),
            };
            (column.to_owned(), value)
        })
        .collect()
}

fn scenario(results: &Results, point: &PointResult) -> String {
    let has_levels = results.points.iter().any(|p| p.load == point.load && p.level != point.level);
    if has_levels { format!("{}_{}", point.load, point.level) } else { point.load.clone() }
}

/// The instant that a run id begins with, as ISO 8601; empty where it begins with none.
fn timestamp(run: &str) -> String {
    let stamp: Vec<char> = run.chars().take(16).collect();
    let is_stamp = stamp.len() == 16
        && stamp.iter().enumerate().all(|(i, c)| match i {
            8 => *c == 'T',
            15 => *c == 'Z',
            _ => c.is_ascii_digit(),
        });
    if !is_stamp {
        return String::new();
    }
    let part = |from: usize, to: usize| stamp[from..to].iter().collect::<String>();
    format!(
        "{}-{}-{}T{}:{}:{}+00:00",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    )
}

fn csv(rows: &[Map<String, Value>]) -> Result<Vec<u8>, ReportError> {
    let text = as_text(|out| {
        out.write_record(COLUMNS)?;
        for row in rows {
            let cells = COLUMNS.iter().map(|c| match row.get(*c) {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            });
            out.write_record(cells)?;
        }
        Ok(())
    })?;
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_seeds_columns_hold_our_numbers_in_its_units() {
        let (results, plan) = testing::run();
        let input =
            ReportInput { results: &results, plan: &plan, specs: &[], formats: &[], profile: None };
        let files = files(&input).unwrap();
        let text = files.iter().find(|(name, _)| name.ends_with("_dual-2x4gpu.csv")).unwrap();
        let text = String::from_utf8(text.1.clone()).unwrap();
        assert_eq!(text.lines().next().unwrap(), COLUMNS.join(","));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn json_and_csv_have_the_same_keys_in_order() {
        let (results, _) = testing::run();
        let row = row(&results, &results.points[0]);
        assert_eq!(row.keys().map(String::as_str).collect::<Vec<_>>(), COLUMNS);
        assert_eq!(row["timestamp"], "2026-11-21T10:15:00+00:00");
        assert_eq!(timestamp("bench"), "");
    }
}
