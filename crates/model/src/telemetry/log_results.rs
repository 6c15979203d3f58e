//! Power logs of other tools beside the results of the benchmark that they were written for.

use super::power_log::{PowerLog, PowerSummary};
use super::window::Window;
use crate::import::ImportFlaw;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A log, by its file.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedLog {
    /// Name of the file, without its directory.
    pub file: String,
    /// What it holds.
    pub log: PowerLog,
}

impl NamedLog {
    /// GPUs that it is of: seed 4 says so in the file's name.
    fn gpus(&self) -> u64 {
        let named = self.file.strip_prefix("power_log_").and_then(|rest| rest.split_once("gpu"));
        let count = named.and_then(|(n, _)| n.parse().ok());
        count.unwrap_or(self.log.telemetry.devices(super::Part::Gpu).len() as u64)
    }
}

/// A log over all of its time, and while its GPUs were busy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogSummary {
    /// Name of the file.
    pub file: String,
    /// Over all of its time.
    pub whole: PowerSummary,
    /// From the first to the last busy row.
    pub busy: Option<PowerSummary>,
}

/// What a result and the power of its log give. GPU power only: no log has that of the machines around.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggedPoint {
    /// What the benchmark calls it.
    pub config: String,
    /// The log whose power is taken.
    pub log: Option<String>,
    /// Output tokens per second, as the benchmark says.
    pub output_tps: f64,
    /// Seed 4's own: over GPUs x mean power of the busy rows.
    pub seed4_output_tps_per_kw: Option<f64>,
    /// Over the energy of the window, idle time and idle GPUs included.
    pub output_tps_per_kw: Option<f64>,
    /// Energy of the window / output tokens.
    pub joules_per_output_token: Option<f64>,
    /// What speaks against these numbers.
    pub flaws: Vec<ImportFlaw>,
}

/// What was read of all files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    /// Each log.
    pub logs: Vec<LogSummary>,
    /// Each result, where a result file was given.
    pub points: Vec<LoggedPoint>,
}

/// A row of seed 4's results.
#[derive(Debug, Deserialize)]
struct Seed4Row {
    n_gpu: u64,
    config_label: String,
    throughput_total: f64,
}

/// Results that say when they were measured (InferenceX, and vLLM's benchmark with its times).
#[derive(Debug, Deserialize)]
struct TimedResult {
    benchmark_start_time_unix: f64,
    benchmark_end_time_unix: f64,
    total_output_tokens: f64,
}

/// Puts `logs` beside `results`, the text of a result file; `window` is looked at in place of all of each log.
///
/// # Errors
/// When the result file is none that is known, or the logs do not reach over the window.
pub fn import(
    logs: &[NamedLog],
    results: Option<&str>,
    window: Option<Window>,
) -> Result<Imported, String> {
    let summaries = logs.iter().map(|log| summary(log, window)).collect::<Result<_, _>>()?;
    let points = results.map(|text| points(logs, text)).transpose()?.unwrap_or_default();
    Ok(Imported { logs: summaries, points })
}

fn summary(log: &NamedLog, window: Option<Window>) -> Result<LogSummary, String> {
    let none = || format!("{}: its GPUs have no time in common", log.file);
    let whole = window.or_else(|| log.log.span()).ok_or_else(none)?;
    let busy = log.log.busy_span().filter(|_| window.is_none());
    Ok(LogSummary {
        file: log.file.clone(),
        whole: log.log.summary(whole),
        busy: busy.map(|busy| log.log.summary(busy)),
    })
}

fn points(logs: &[NamedLog], text: &str) -> Result<Vec<LoggedPoint>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    if let Ok(rows) = serde_json::from_value::<Vec<Seed4Row>>(value.clone()) {
        return Ok(rows.iter().map(|row| seed4_point(logs, row)).collect());
    }
    let timed = serde_json::from_value::<TimedResult>(value).map_err(|_| {
        "it is neither seed 4's list (n_gpu, config_label, throughput_total) nor a result with \
         benchmark_start_time_unix, benchmark_end_time_unix and total_output_tokens"
    })?;
    timed_point(logs, &timed).map(|point| vec![point])
}

/// Of several logs of as many GPUs seed 4 takes the one with the highest power.
fn seed4_point(logs: &[NamedLog], row: &Seed4Row) -> LoggedPoint {
    let of_count = logs.iter().filter(|log| log.gpus() == row.n_gpu);
    let power = |log: &NamedLog| {
        let window = log.log.busy_span().or_else(|| log.log.span())?;
        Some((log.file.clone(), log.log.summary(window)))
    };
    let highest = of_count.filter_map(power).max_by(|(_, a), (_, b)| {
        let watts = |s: &PowerSummary| s.busy_sample_power_w.unwrap_or(0.0);
        watts(a).total_cmp(&watts(b))
    });
    let (file, summary) = highest.map_or((None, None), |(file, s)| (Some(file), Some(s)));
    let per_kw = |watts: Option<f64>| {
        watts.filter(|w| *w > 0.0).map(|watts| row.throughput_total / (watts / 1e3))
    };
    let busy_w = summary.as_ref().and_then(|s| s.busy_sample_power_w);
    let all_w = summary.as_ref().and_then(|s| s.power_w);
    LoggedPoint {
        config: row.config_label.clone(),
        log: file,
        output_tps: row.throughput_total,
        seed4_output_tps_per_kw: per_kw(busy_w.map(|w| w * row.n_gpu as f64)),
        output_tps_per_kw: per_kw(all_w),
        joules_per_output_token: all_w
            .filter(|_| row.throughput_total > 0.0)
            .map(|watts| watts / row.throughput_total),
        flaws: seed4_flaws(row, summary),
    }
}

fn seed4_flaws(row: &Seed4Row, summary: Option<PowerSummary>) -> Vec<ImportFlaw> {
    let Some(summary) = summary else {
        let why = format!("no log of {} GPUs was given", row.n_gpu);
        return vec![ImportFlaw::new("no_log", why)];
    };
    let mut flaws = summary.flaws;
    flaws.push(ImportFlaw::new(
        "one_power_for_all_levels",
        format!(
            "the results do not say when each was measured, so all of {} GPUs have the power of one log",
            row.n_gpu
        ),
    ));
    if summary.gpus as u64 != row.n_gpu {
        let why = format!("the log has {} GPUs, and the result {}", summary.gpus, row.n_gpu);
        flaws.push(ImportFlaw::new("gpus_differ", why));
    }
    flaws
}

fn timed_point(logs: &[NamedLog], timed: &TimedResult) -> Result<LoggedPoint, String> {
    let [log] = logs else {
        return Err("a result of one window goes with one log".to_owned());
    };
    let at = |seconds: f64| super::civil::parse(&format!("{seconds:.9}"));
    let window = at(timed.benchmark_start_time_unix)
        .zip(at(timed.benchmark_end_time_unix))
        .filter(|(from, to)| from < to);
    let (from, to) = window.ok_or("the result's times are no window")?;
    let window = Window { from, to };
    let overlaps = log.log.span().is_some_and(|span| span.from < to && from < span.to);
    if !overlaps {
        return Err(format!(
            "{} has no row in the result's time: times of logs are taken as UTC",
            log.file
        ));
    }
    let summary = log.log.summary(window);
    let tokens = Some(timed.total_output_tokens).filter(|n| *n > 0.0);
    let output_tps = timed.total_output_tokens / window.seconds();
    let energy = summary.energy_j.filter(|j| *j > 0.0);
    Ok(LoggedPoint {
        config: log.file.clone(),
        log: Some(log.file.clone()),
        output_tps,
        seed4_output_tps_per_kw: summary
            .busy_sample_power_w
            .map(|w| output_tps / (w * summary.gpus as f64 / 1e3)),
        output_tps_per_kw: energy.map(|joules| 1e3 * timed.total_output_tokens / joules),
        joules_per_output_token: energy.zip(tokens).map(|(joules, n)| joules / n),
        flaws: summary.flaws,
    })
}

/// A window between two times that a user wrote.
///
/// # Errors
/// When one of them is no time, or the end is not after the begin.
pub fn window(from: &str, to: &str) -> Result<Window, String> {
    let at = |text: &str| -> Result<Nanos, String> {
        let no_time =
            || format!("'{text}' is no time; write 2026-01-02T03:04:05 or seconds since the epoch");
        super::civil::parse(text).ok_or_else(no_time)
    };
    let (from, to) = (at(from)?, at(to)?);
    if from >= to {
        return Err("the end is not after the begin".to_owned());
    }
    Ok(Window { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::power_log::{self, HEAD};

    fn log(file: &str, watts: f64) -> NamedLog {
        let row = |s: u32| format!("2026-01-02T03:04:{s:02}.0,0,{watts},41,97,30,1\n");
        let text = format!("{HEAD}\n{}", (0..=20).map(row).collect::<String>());
        NamedLog { file: file.to_owned(), log: power_log::read(&text, "x").unwrap() }
    }

    fn codes(point: &LoggedPoint) -> Vec<&str> {
        point.flaws.iter().map(|f| f.code.as_str()).collect()
    }

    #[test]
    fn the_highest_log_of_a_count_of_gpus_is_taken_for_all_its_levels_and_that_is_said() {
        let logs = [
            log("power_log_1gpu_20260102_030400.csv", 100.0),
            log("power_log_1gpu_20260102_040400.csv", 500.0),
        ];
        let row = |n: u32, users: u32| {
            serde_json::json!({"n_gpu": n, "n_users": users, "config_label": format!("{n}GPU/{users}U"),
                "throughput_total": 1000.0, "total_requests": 50})
        };
        let results = serde_json::json!([row(1, 64), row(1, 128), row(2, 64)]).to_string();
        let points = import(&logs, Some(&results), None).unwrap().points;
        assert_eq!(points[0].log.as_deref(), Some("power_log_1gpu_20260102_040400.csv"));
        for point in &points[..2] {
            assert!((point.seed4_output_tps_per_kw.unwrap() - 2_000.0).abs() < 1e-6);
            assert!((point.joules_per_output_token.unwrap() - 0.5).abs() < 1e-9);
            assert_eq!(codes(point), ["one_power_for_all_levels"]);
        }
        assert_eq!(points[2].output_tps_per_kw, None);
        assert_eq!(codes(&points[2]), ["no_log"]);
    }

    #[test]
    fn a_result_that_says_when_has_the_energy_of_just_that_time() {
        let begin = 1_767_323_040.0;
        let result = |from: f64, to: f64| {
            serde_json::json!({"benchmark_start_time_unix": begin + from,
                "benchmark_end_time_unix": begin + to, "total_output_tokens": 2500, "completed": 5})
            .to_string()
        };
        let logs = [log("gpu_metrics.csv", 500.0)];
        let points = import(&logs, Some(&result(2.5, 12.5)), None).unwrap().points;
        assert!((points[0].joules_per_output_token.unwrap() - 2.0).abs() < 1e-6, "{points:?}");
        let short = import(&logs, Some(&result(5.0, 40.0)), None).unwrap().points;
        assert_eq!(codes(&short[0])[0], "not_covered");
        assert_eq!(short[0].joules_per_output_token, None);
        let other_day = import(&logs, Some(&result(9_000.0, 9_010.0)), None).unwrap_err();
        assert!(other_day.contains("taken as UTC"), "{other_day}");
    }

    #[test]
    fn files_that_are_no_results_are_refused() {
        for text in ["", "{}", "[1]", "{\"throughput_total\": 3}"] {
            assert!(import(&[log("a", 1.0)], Some(text), None).is_err(), "{text}");
        }
        assert!(window("2026-01-02T03:04:05", "2026-01-02T03:04:05").is_err());
        assert!(window("now", "later").unwrap_err().contains("is no time"));
    }
}
