//! Seed 3: `results.csv` and plots of `process_results.py`, and the artifact folders that it reads.

use super::{Files, cell, json, number, plan_of};
use crate::chart;
use crate::csv::as_text;
use crate::error::ReportError;
use crate::export::perf::{Folders, configuration_of, lengths_folder};
use crate::export::plain;
use crate::png::png;
use crate::spec::{Kind, ReportInput, ReportSpec};
use scalebeam_model::results::{MetricValue, PointResult, Results, lookup};
use scalebeam_model::telemetry::civil;
use scalebeam_model::trust::TrustLevel;
use scalebeam_model::units::Nanos;
use serde_json::{Map, Value, json};

const DIR: &str = "profile-seed3";

/// The columns of `process_results.py`, in its order.
const COLUMNS: [&str; 8] = [
    "label",
    "configuration",
    "concurrency",
    "output_token_throughput_per_request",
    "output_token_throughput_per_gpu",
    "time_to_first_token",
    "inter_token_latency",
    "is_pareto_efficient",
];

const NOTES: &str = "\
# What these files mean

Names are those of Dynamo's `benchmark_loop.sh` and `process_results.py`; the numbers are scalebeam's. Each load has a
folder, since there a concurrency is measured once.

| column or key | here | there |
| --- | --- | --- |
| configuration | the deployment, and `_tpXdpY` of its roles where its name does not say its GPUs, so that the sum of X x Y are these; X holds pipeline-parallel ranks too | the prefix that was typed |
| label | the first word of the configuration | the same, with `context` as `disagg` |
| output_token_throughput_per_request | output tokens/s over the requests in flight | mean of each request's output tokens / its latency |
| output_token_throughput_per_gpu | output tokens/s over all allocated GPUs | over GPUs counted from the folder's name, 0 where it has none |
| time_to_first_token | ms from sending to the first non-empty chunk, mean | the same |
| inter_token_latency | ms, (last token - first) / (tokens - 1) per request, mean | the same |
| is_pareto_efficient | no other point of the label is at least as good in both throughputs and better in one: of equal points each is | equal points rule each other out |

Points that are `invalid` in `results.json` have no word on Pareto efficiency and rule out no other. A value that was not
measured is empty (CSV) or absent (JSON), never 0. pandas' column of row numbers is left out. Open loops have no
concurrency, and are not in `results.csv`.

The JSON files of the points are in the form of genai-perf, over all trials. With the tool's own definitions, a folder a
trial: `scalebeam export RUN --as genai-perf`.

`pareto_plot.png` is not made: `plot.png` has its points and axes.
";

/// A plot: its file, its title, and what stands on its axes.
const PLOTS: &[(&str, &str, Option<&str>, &str)] = &[
    ("plot", "Throughput vs. tokens per user", Some("output_tps_per_user"), "output_tps_per_gpu"),
    ("plot_itl", "Inter-token latency", None, "tpot.mean"),
    ("plot_ttft", "Time to first token", None, "ttft_sent.mean"),
    ("plot_req", "Throughput", None, "rps_per_gpu"),
];

/// A point with a concurrency, and what the CSV file says of it.
struct Row<'a> {
    point: &'a PointResult,
    configuration: String,
    label: String,
    per_request: Option<f64>,
    per_gpu: Option<f64>,
}

pub(super) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    let mut files = vec![(format!("{DIR}/NOTES.md"), NOTES.as_bytes().to_vec())];
    let mut roots: Vec<(String, Vec<&PointResult>)> = Vec::new();
    for point in &input.results.points {
        let root = root(point, input);
        match roots.iter_mut().find(|(known, _)| *known == root) {
            Some((_, points)) => points.push(point),
            None => roots.push((root, vec![point])),
        }
    }
    for (root, points) in &roots {
        files.push((format!("{root}/results.csv"), csv(&rows(points, input))?.into_bytes()));
        files.extend(exports(root, points, input)?);
        files.extend(plots(root, points, input)?);
    }
    Ok(files)
}

/// The folder above the configurations.
fn root(point: &PointResult, input: &ReportInput<'_>) -> String {
    let lengths = plan_of(point, input.plan).map(lengths_folder);
    let lengths = lengths.map_or_else(String::new, |folder| format!("/{folder}"));
    format!("{DIR}/{}{lengths}", plain(&point.load))
}

fn configuration(point: &PointResult, input: &ReportInput<'_>) -> String {
    configuration_of(input.plan.deployment(&point.deployment), &point.deployment, point.gpus)
}

fn rows<'a>(points: &[&'a PointResult], input: &ReportInput<'_>) -> Vec<Row<'a>> {
    let row = |point: &&'a PointResult| {
        let configuration = configuration(point, input);
        let first = configuration.split('_').next().unwrap_or(&configuration);
        Row {
            point,
            label: first.replace("context", "disagg"),
            per_request: value(point, "output_tps_per_user"),
            per_gpu: value(point, "output_tps_per_gpu"),
            configuration,
        }
    };
    points.iter().filter(|p| p.concurrency.is_some()).map(row).collect()
}

fn value(point: &PointResult, name: &str) -> Option<f64> {
    lookup(&point.metrics, name).filter(|v| v.is_finite())
}

impl Row<'_> {
    /// Both throughputs, of a point that can be relied on.
    fn place(&self) -> Option<(f64, f64)> {
        let is_ranked = self.point.trust.level != TrustLevel::Invalid;
        self.per_request.zip(self.per_gpu).filter(|_| is_ranked)
    }

    /// Whether no other point of the label is better; absent where it has no place among them.
    fn is_efficient(&self, all: &[Self]) -> Option<bool> {
        let (user, gpu) = self.place()?;
        let is_better = |(u, g): (f64, f64)| u >= user && g >= gpu && (u > user || g > gpu);
        let rivals = all.iter().filter(|row| row.label == self.label);
        Some(!rivals.filter_map(Row::place).any(is_better))
    }
}

fn csv(rows: &[Row<'_>]) -> Result<String, ReportError> {
    as_text(|out| {
        out.write_record(COLUMNS)?;
        for row in rows {
            // Python's words for what is so and what is not.
            let efficient = row.is_efficient(rows).map(|is| if is { "True" } else { "False" });
            out.write_record([
                row.label.clone(),
                row.configuration.clone(),
                row.point.concurrency.map(|n| format!("{:?}", f64::from(n))).unwrap_or_default(),
                cell(row.per_request),
                cell(row.per_gpu),
                cell(value(row.point, "ttft_sent_ms.mean")),
                cell(value(row.point, "tpot_ms.mean")),
                efficient.unwrap_or_default().to_owned(),
            ])?;
        }
        Ok(())
    })
}

/// A JSON file a point, in a folder named as `benchmark.py` names it.
fn exports(
    root: &str,
    points: &[&PointResult],
    input: &ReportInput<'_>,
) -> Result<Files, ReportError> {
    let began = began(input.results);
    let mut folders = Folders::default();
    let mut files = Vec::new();
    for point in points {
        let below = format!("{root}/{}", configuration(point, input));
        let folder = folders.free(&below, point, began);
        let name = format!("{folder}/my_profile_export_genai_perf.json");
        files.push((name, json(&genai_perf(point, input))?));
    }
    Ok(files)
}

/// The instant that a run id begins with; the epoch where it begins with none.
fn began(results: &Results) -> Nanos {
    let digits: String = results.run.chars().take_while(|c| *c != 'Z').collect();
    let at = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    let date = format!("{}-{}-{}", at(0, 4), at(4, 6), at(6, 8));
    let time = format!("{}:{}:{}", at(9, 11), at(11, 13), at(13, 15));
    civil::parse(&format!("{date}T{time}")).unwrap_or(Nanos::ZERO)
}

/// Names of genai-perf, units, and our metrics.
const VALUES: &[(&str, &str, &str)] = &[
    ("request_throughput", "requests/sec", "rps"),
    ("request_latency", "ms", "e2e_sent_ms"),
    ("time_to_first_token", "ms", "ttft_sent_ms"),
    ("time_to_second_token", "ms", "ttst_ms"),
    ("inter_token_latency", "ms", "tpot_ms"),
    ("output_token_throughput", "tokens/sec", "output_tps"),
    ("output_token_throughput_per_request", "tokens/sec", "output_tps_per_user"),
    ("output_token_throughput_per_user", "tokens/sec/user", "interactivity_tps"),
    ("output_sequence_length", "tokens", "output_tokens"),
    ("input_sequence_length", "tokens", "prompt_tokens"),
];

fn genai_perf(point: &PointResult, input: &ReportInput<'_>) -> Value {
    let mut out = Map::new();
    for (name, unit, metric) in VALUES {
        let Some(value) = point.metrics.get(*metric) else { continue };
        let mut object = Map::new();
        object.insert("unit".to_owned(), (*unit).into());
        match value {
            MetricValue::Number(n) => {
                object.insert("avg".to_owned(), number(Some(*n)));
            }
            MetricValue::Distribution(d) => {
                let words = [
                    "avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p5", "p1",
                    "std",
                ];
                for word in words {
                    let ours = if word == "avg" { "mean" } else { word };
                    object.insert(word.to_owned(), number(d.stat(ours)));
                }
            }
        }
        out.insert((*name).to_owned(), Value::Object(object));
    }
    out.insert(
        "input_config".to_owned(),
        json!({
            "model": [input.plan.model.id],
            "concurrency": point.concurrency,
            "request_rate": point.rate_rps,
            "scalebeam": {"run": input.results.run, "trust": point.trust.level.name()},
        }),
    );
    Value::Object(out)
}

fn plots(
    root: &str,
    points: &[&PointResult],
    input: &ReportInput<'_>,
) -> Result<Files, ReportError> {
    let Some(first) = points.first() else { return Ok(Vec::new()) };
    let plot = |(file, title, x, y): &(&str, &str, Option<&str>, &str)| {
        let spec = ReportSpec {
            kind: Kind::Curve,
            title: (*title).to_owned(),
            x: x.map(str::to_owned),
            y: vec![(*y).to_owned()],
            load: vec![first.load.clone()],
            ..ReportSpec::default()
        };
        let scene = chart::chart("curve", input.results, input.plan, &spec)?;
        Ok((format!("{root}/{file}.png"), png(&scene)?))
    };
    PLOTS.iter().map(plot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn run() -> (Results, scalebeam_model::plan::Plan) {
        let (mut results, plan) = testing::run();
        for point in &mut results.points {
            let user = MetricValue::Number(f64::from(point.gpus) * 3.0);
            point.metrics.insert("output_tps_per_user".to_owned(), user);
            if let Some(ttft) = point.metrics.get("ttft_ms").copied() {
                point.metrics.insert("ttft_sent_ms".to_owned(), ttft);
            }
        }
        (results, plan)
    }

    fn made(results: &Results, plan: &scalebeam_model::plan::Plan) -> Files {
        let input = ReportInput { results, plan, specs: &[], formats: &[], profile: None };
        files(&input).unwrap()
    }

    fn text(files: &Files, end: &str) -> String {
        let found = files.iter().find(|(name, _)| name.ends_with(end)).unwrap();
        String::from_utf8(found.1.clone()).unwrap()
    }

    #[test]
    fn the_seeds_columns_and_folders() {
        let (results, plan) = run();
        let files = made(&results, &plan);
        let csv = text(&files, "results.csv");
        assert_eq!(csv.lines().next().unwrap(), COLUMNS.join(","));
        insta::assert_snapshot!(csv);
        let folder = "profile-seed3/users/isl_shared_0_isl_unique_1024_osl_256/single-4gpu_tp4dp1/\
                      concurrency_64.0_20261121_101500/my_profile_export_genai_perf.json";
        let point: Value = serde_json::from_str(&text(&files, folder)).unwrap();
        assert_eq!(point["inter_token_latency"]["unit"], "ms");
        assert!(point["output_token_throughput"]["avg"].is_number());
    }

    /// Where the seed's own code has both out, since each is at least as good as the other.
    #[test]
    fn of_equal_points_each_is_efficient() {
        let (mut results, plan) = run();
        results.points.truncate(3);
        let twin = results.points[2].metrics.clone();
        results.points[1].metrics = twin;
        let worse = MetricValue::Number(0.1);
        results.points[0].metrics.insert("output_tps_per_user".to_owned(), worse);
        results.points[0].metrics.insert("output_tps_per_gpu".to_owned(), worse);
        let csv = text(&made(&results, &plan), "results.csv");
        let ends: Vec<&str> = csv.lines().skip(1).map(|l| l.rsplit(',').next().unwrap()).collect();
        assert_eq!(ends, ["False", "True", "True"]);
    }

    #[test]
    fn what_is_not_to_be_trusted_is_not_ranked_and_rules_nothing_out() {
        let (mut results, plan) = run();
        results.points.truncate(2);
        results.points[1].trust.level = TrustLevel::Invalid;
        for name in ["output_tps_per_user", "output_tps_per_gpu"] {
            results.points[1].metrics.insert(name.to_owned(), MetricValue::Number(1e9));
        }
        let csv = text(&made(&results, &plan), "results.csv");
        let ends: Vec<&str> = csv.lines().skip(1).map(|l| l.rsplit(',').next().unwrap()).collect();
        assert_eq!(ends, ["True", ""]);
    }
}
