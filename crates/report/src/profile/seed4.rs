//! Seed 4: one JSON list of GPU and user counts, and the five-panel picture.

use super::{Files, json, number, plan_of};
use crate::chart;
use crate::error::ReportError;
use crate::png::png;
use crate::spec::{Kind, ReportInput, ReportSpec};
use scalebeam_model::plan::Plan;
use scalebeam_model::request::Outcome;
use scalebeam_model::results::{PointResult, lookup};
use serde_json::{Value, json};

const DIR: &str = "profile-seed4";

const NOTES: &str = "\
# What these keys mean

The names are those of `benchmark_gpu_users.py`; the numbers are scalebeam's.

| key | here | in `benchmark_gpu_users.py` |
| --- | --- | --- |
| n_users | requests in flight asked for; what was reached is in `results.json` | size of a semaphore, which 50 requests never filled |
| isl, osl | prompt and answer length asked for, null where the workload has none | the command line's |
| throughput_total | output tokens of completed requests over measured wall time; tokens by the server's usage | number of content chunks over wall time |
| avg_latency_s, avg_ttft_s | from the moment a request was due | from the moment it was sent |
| interactivity_tokens_per_sec_per_user | mean of 1 / TPOT per request | mean of tokens / (total - TTFT) |

A value that was not measured is null, never 0. Power is taken over the measured window of each point; one
number per GPU count is not used.
";

pub(super) fn files(input: &ReportInput<'_>) -> Result<Files, ReportError> {
    let rows: Vec<Value> = input.results.points.iter().map(|p| row(p, input.plan)).collect();
    let (isl, osl) = input.results.points.first().map_or((None, None), |p| lengths(p, input.plan));
    let shown = |n: Option<u32>| n.map_or_else(|| "n/a".to_owned(), |n| n.to_string());
    let metrics =
        ["output_tps_per_gpu", "e2e.mean", "output_tps_per_user", "ttft.mean", "output_tps_per_kw"];
    let spec = ReportSpec {
        kind: Kind::Panels,
        title: format!("{} (ISL: {}, OSL: {})", input.plan.model.id, shown(isl), shown(osl)),
        metrics: metrics.map(str::to_owned).to_vec(),
        by: Some("config".to_owned()),
        ..ReportSpec::default()
    };
    let scene = chart::chart("panels", input.results, input.plan, &spec)?;
    Ok(vec![
        (format!("{DIR}/NOTES.md"), NOTES.as_bytes().to_vec()),
        (format!("{DIR}/benchmark_gpu_users_results.json"), json(&Value::Array(rows))?),
        (format!("{DIR}/gpu_users_bar_comparison.png"), png(&scene)?),
    ])
}

fn row(point: &PointResult, plan: &Plan) -> Value {
    let of = |name: &str| lookup(&point.metrics, name).filter(|v| v.is_finite());
    let (total, good) = (point.expected(), point.ended(Outcome::Completed));
    let (isl, osl) = lengths(point, plan);
    json!({
        "n_gpu": (point.gpus > 0).then_some(point.gpus),
        "n_users": point.concurrency,
        "config_label": chart::config_label(point),
        "isl": isl,
        "osl": osl,
        "throughput_total": number(of("output_tps")),
        "throughput_per_gpu": number(of("output_tps_per_gpu")),
        "avg_latency_s": number(of("e2e_ms.mean").map(|ms| ms / 1e3)),
        "avg_ttft_s": number(of("ttft_ms.mean").map(|ms| ms / 1e3)),
        "interactivity_tokens_per_sec_per_user": number(of("interactivity_tps.mean")),
        "total_requests": total,
        "successful_requests": good,
        "failed_requests": total - good,
    })
}

/// Prompt and answer length of the point's workload, where it has them.
fn lengths(point: &PointResult, plan: &Plan) -> (Option<u32>, Option<u32>) {
    let lengths = plan_of(point, plan).and_then(crate::export::lengths);
    (lengths.map(|l| l.isl), lengths.map(|l| l.osl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_seeds_keys_in_its_order() {
        let (results, plan) = testing::run();
        let row = row(&results.points[0], &plan);
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys.join(","),
            "n_gpu,n_users,config_label,isl,osl,throughput_total,throughput_per_gpu,avg_latency_s,\
             avg_ttft_s,interactivity_tokens_per_sec_per_user,total_requests,successful_requests,\
             failed_requests"
        );
        assert_eq!((&row["config_label"], &row["isl"]), (&json!("4GPU/16U"), &json!(1024)));
    }

    #[test]
    fn the_picture_says_that_there_is_no_power_data() {
        let (results, plan) = testing::run();
        let input =
            ReportInput { results: &results, plan: &plan, specs: &[], formats: &[], profile: None };
        let files = files(&input).unwrap();
        assert!(files.iter().any(|(name, bytes)| name.ends_with(".png") && bytes.len() > 1000));
        if let Some(dir) = std::env::var_os("SCALEBEAM_LOOK") {
            let dir = std::path::PathBuf::from(dir);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("seed4.png"), &files[2].1).unwrap();
        }
    }
}
