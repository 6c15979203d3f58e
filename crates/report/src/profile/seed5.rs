//! Seed 5: the course's scaling report: throughput, speedup and efficiency by tensor-parallel size.

use super::{Files, cell, json, number};
use crate::csv::as_text;
use crate::error::ReportError;
use crate::spec::ReportInput;
use scalebeam_model::plan::{Mode, Plan};
use scalebeam_model::results::{PointResult, Results, lookup};
use scalebeam_model::trust::TrustLevel;
use serde_json::{Value, json};
use std::fmt::Write as _;

const DIR: &str = "profile-seed5";

/// Below this share the course calls it poor.
const POOR: f64 = 0.7;

const NOTES: &str = "\
# What these numbers mean

The table is that of the course's week 5; the numbers are scalebeam's.

| column | here | in the course |
| --- | --- | --- |
| tensor_parallel_size | ranks of the instance; empty where a deployment has several instances | the same |
| gpus | allocated GPUs | equal to the tensor-parallel size |
| throughput_tok_s | output tokens of completed requests over measured wall time, tokens by the server's usage | words of the texts over elapsed time |
| speedup | throughput / throughput of the deployment with the fewest GPUs under the same load and level | throughput / that of one GPU |
| efficiency_pct | speedup / (GPUs / GPUs of that deployment) x 100 | speedup / tensor-parallel size x 100 |

The load is the same in every row of a table: this is strong scaling. A value that was not measured, or that an `invalid`
point would have given, is empty (CSV), null (JSON) or n/a, never 0; so are speedup and efficiency of an open load, whose
rate was given, and of another kind of GPU than that of the deployment with the fewest. Whether as many GPUs as independent replicas would
do better is not in this table: measure them too, as one more deployment.
";

pub(super) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    let rows = rows(input.results, input.plan);
    Ok(vec![
        (format!("{DIR}/NOTES.md"), NOTES.as_bytes().to_vec()),
        (format!("{DIR}/scaling_report.json"), json(&as_json(&rows))?),
        (format!("{DIR}/scaling_report.csv"), as_csv(&rows)?.into_bytes()),
        (format!("{DIR}/scaling_report.md"), as_markdown(&rows, input).into_bytes()),
    ])
}

struct Row<'a> {
    point: &'a PointResult,
    tp: Option<u32>,
    throughput: Option<f64>,
    scaling: Option<Scaling>,
}

/// How a point stands against the one with the fewest GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaling {
    speedup: f64,
    /// 1 where twice the GPUs give twice the throughput.
    efficiency: f64,
}

fn rows<'a>(results: &'a Results, plan: &Plan) -> Vec<Row<'a>> {
    let row = |point: &'a PointResult| {
        let of_load =
            results.points.iter().filter(|p| p.load == point.load && p.level == point.level);
        let base = of_load.filter(|p| p.gpus > 0).min_by_key(|p| p.gpus);
        let instances = plan.deployment(&point.deployment).map(|d| d.instances.as_slice());
        Row {
            point,
            tp: match instances {
                Some([only]) => Some(only.tp),
                _ => None,
            },
            throughput: throughput(point),
            scaling: base
                .filter(|base| kinds(plan, point) == kinds(plan, base))
                .and_then(|base| scaling(point, base)),
        }
    };
    let mut rows: Vec<Row<'_>> = results.points.iter().map(row).collect();
    // By load and level in the order of the run, then by GPUs.
    let place = |p: &PointResult| {
        results.points.iter().position(|q| q.load == p.load && q.level == p.level)
    };
    rows.sort_by_key(|row| (place(row.point), row.point.gpus));
    rows
}

/// Another kind of GPU is no multiple of the first.
fn kinds<'p>(plan: &'p Plan, point: &PointResult) -> &'p [String] {
    plan.deployment(&point.deployment).map_or(&[], |d| &d.gpu_kinds)
}

fn throughput(point: &PointResult) -> Option<f64> {
    lookup(&point.metrics, "output_tps").filter(|v| v.is_finite())
}

/// `(X_n / X_1) / (n / n_1)`; absent where one of the two is not to be trusted.
fn scaling(point: &PointResult, base: &PointResult) -> Option<Scaling> {
    let is_invalid = |p: &PointResult| p.trust.level == TrustLevel::Invalid;
    // What came at a given rate is what was asked, and no throughput.
    if is_invalid(point) || is_invalid(base) || point.gpus == 0 || point.mode == Mode::Open {
        return None;
    }
    let speedup = throughput(point)? / throughput(base).filter(|x| *x > 0.0)?;
    let times = f64::from(point.gpus) / f64::from(base.gpus);
    Some(Scaling { speedup, efficiency: speedup / times })
}

fn as_json(rows: &[Row<'_>]) -> Value {
    let row = |row: &Row<'_>| {
        json!({
            "load": row.point.load,
            "level": row.point.level,
            "deployment": row.point.deployment,
            "tensor_parallel_size": row.tp,
            "gpus": (row.point.gpus > 0).then_some(row.point.gpus),
            "throughput_tok_s": number(row.throughput),
            "speedup": number(row.scaling.map(|s| s.speedup)),
            "efficiency_pct": number(row.scaling.map(|s| s.efficiency * 100.0)),
            "trust": row.point.trust.level.name(),
        })
    };
    rows.iter().map(row).collect()
}

fn as_csv(rows: &[Row<'_>]) -> Result<String, ReportError> {
    as_text(|out| {
        out.write_record([
            "load",
            "level",
            "deployment",
            "tensor_parallel_size",
            "gpus",
            "throughput_tok_s",
            "speedup",
            "efficiency_pct",
            "trust",
        ])?;
        for row in rows {
            let count = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
            out.write_record([
                row.point.load.clone(),
                row.point.level.clone(),
                row.point.deployment.clone(),
                count(row.tp),
                count((row.point.gpus > 0).then_some(row.point.gpus)),
                cell(row.throughput),
                cell(row.scaling.map(|s| s.speedup)),
                cell(row.scaling.map(|s| s.efficiency * 100.0)),
                row.point.trust.level.name().to_owned(),
            ])?;
        }
        Ok(())
    })
}

/// The course's table, one for each load and level. A string takes all that is written to it.
fn as_markdown(rows: &[Row<'_>], input: &ReportInput<'_>) -> String {
    let mut out = format!("# Scaling of {}\n", input.plan.model.id);
    let mut table = None;
    for row in rows {
        let place = (&row.point.load, &row.point.level);
        if table != Some(place) {
            table = Some(place);
            let _ = write!(
                out,
                "\n## {}, {}\n\n| GPUs | Deployment | Throughput | Speedup | Efficiency |\n\
                 | --- | --- | --- | --- | --- |\n",
                place.0, place.1
            );
        }
        let shown = |value: Option<String>| value.unwrap_or_else(|| "n/a".to_owned());
        let mark = if row.point.trust.level == TrustLevel::Sound { "" } else { " !" };
        let poor = if row.scaling.is_some_and(|s| s.efficiency < POOR) { " (poor)" } else { "" };
        let _ = writeln!(
            out,
            "| {} | {}{mark} | {} | {} | {}{poor} |",
            shown((row.point.gpus > 0).then(|| row.point.gpus.to_string())),
            row.point.deployment,
            shown(row.throughput.map(|x| format!("{x:.0} tok/s"))),
            shown(row.scaling.map(|s| format!("{:.1}x", s.speedup))),
            shown(row.scaling.map(|s| format!("{:.0}%", s.efficiency * 100.0))),
        );
    }
    out.push_str("\nPoor: less than 70 % of what as many times the GPUs would give. !: see trust in results.json.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::results::MetricValue;

    /// The course's expected table: 450, 800 and 1400 tokens/s.
    fn course() -> (Results, Plan) {
        let (mut results, plan) = testing::run();
        let wanted = [("tp4", 4, 1400.0), ("tp1", 1, 450.0), ("tp2", 2, 800.0)];
        results.points.truncate(3);
        for (point, (name, gpus, tps)) in results.points.iter_mut().zip(wanted) {
            name.clone_into(&mut point.deployment);
            "c16".clone_into(&mut point.level);
            point.gpus = gpus;
            point.metrics.insert("output_tps".to_owned(), MetricValue::Number(tps));
        }
        (results, plan)
    }

    #[test]
    fn the_courses_table_comes_out() {
        let (results, plan) = course();
        let input =
            ReportInput { results: &results, plan: &plan, specs: &[], formats: &[], profile: None };
        let text = as_markdown(&rows(&results, &plan), &input);
        for row in [
            "| 1 | tp1 | 450 tok/s | 1.0x | 100% |",
            "| 2 | tp2 | 800 tok/s | 1.8x | 89% |",
            "| 4 | tp4 | 1400 tok/s | 3.1x | 78% |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        let files = files(&input).unwrap();
        assert_eq!(files.len(), 4);
    }

    #[test]
    fn nothing_is_held_against_a_point_that_is_invalid() {
        let (mut results, plan) = course();
        results.points[1].trust.level = TrustLevel::Invalid;
        let rows = rows(&results, &plan);
        assert!(rows.iter().all(|row| row.scaling.is_none()));
        let json = as_json(&rows);
        assert_eq!((&json[0]["speedup"], &json[0]["trust"]), (&Value::Null, &json!("invalid")));
        assert_eq!(json[2]["throughput_tok_s"], 1400.0);
    }
}
