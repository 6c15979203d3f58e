//! `import`: power logs that other tools left, with our numbers beside theirs.

use crate::args::ImportArgs;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::telemetry::log_results::{self, Imported, LogSummary, LoggedPoint, NamedLog};
use scalebeam_model::telemetry::power_log::{self, LogFlaw, PowerSummary};
use scalebeam_model::telemetry::usage::THIS_MACHINE;
use std::fmt::Write;
use std::path::Path;

pub(super) fn run(args: &ImportArgs) -> Result<Status, Failure> {
    let logs = args.logs.iter().map(|path| log(path)).collect::<Result<Vec<_>, _>>()?;
    let results = args.results.as_deref().map(text).transpose()?;
    let window = args.from.as_deref().zip(args.to.as_deref());
    let window = window.map(|(from, to)| log_results::window(from, to)).transpose();
    let window = window.map_err(|why| Failure::usage(format!("--from, --to: {why}")))?;
    let imported = log_results::import(&logs, results.as_deref(), window).map_err(|why| {
        let file = args.results.as_deref().unwrap_or(Path::new("the logs"));
        Failure::usage(format!("{}: {why}", file.display()))
    })?;
    if args.json {
        printer::json(&imported)?;
    } else {
        printer::data(&shown(&imported));
    }
    Ok(Status::Ok)
}

fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))
}

fn log(path: &Path) -> Result<NamedLog, Failure> {
    let log = power_log::read(&text(path)?, THIS_MACHINE).map_err(|why| {
        Failure::usage(format!("{} is no power log: {why}", path.display())).hint(
            "known are seed 4's power_log_*.csv, CSV of nvidia-smi and amd-smi with their heads and timestamps, and srt-slurm's samples.csv",
        )
    })?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(NamedLog { file, log })
}

/// For people. A string takes all that is written to it.
fn shown(imported: &Imported) -> String {
    let mut out = String::new();
    for log in &imported.logs {
        show_log(log, &mut out);
    }
    for point in &imported.points {
        show_point(point, &mut out);
    }
    out
}

fn show_log(log: &LogSummary, out: &mut String) {
    let whole = &log.whole;
    let _ = writeln!(
        out,
        "{}: {}, {} GPUs, {} rows, one each {:.3} s",
        log.file, whole.maker, whole.gpus, whole.samples, whole.interval_s
    );
    show_power("over its time", whole, out);
    if let Some(busy) = &log.busy {
        show_power("while busy", busy, out);
    }
    let watts = number(whole.busy_sample_power_w, "W");
    let _ = writeln!(
        out,
        "  busy_sample_power_w  {watts}  a GPU, seed 4's own: mean of the rows above 5 % utilisation"
    );
    show_flaws(&whole.flaws, out);
}

fn show_power(when: &str, summary: &PowerSummary, out: &mut String) {
    let (watts, joules) = (number(summary.power_w, "W"), number(summary.energy_j, "J"));
    let seconds = summary.seconds;
    let _ =
        writeln!(out, "  power_w  {watts}, energy_j  {joules}  all GPUs, {when} ({seconds:.1} s)");
}

fn show_point(point: &LoggedPoint, out: &mut String) {
    let log = point.log.as_deref().unwrap_or("no log");
    let _ = writeln!(out, "{} ({log}), GPU power only", point.config);
    for (name, value, unit) in [
        ("output_tps", Some(point.output_tps), "tok/s"),
        ("seed4_output_tps_per_kw", point.seed4_output_tps_per_kw, "tok/s/kW"),
        ("output_tps_per_kw", point.output_tps_per_kw, "tok/s/kW"),
        ("joules_per_output_token", point.joules_per_output_token, "J/token"),
    ] {
        let _ = writeln!(out, "  {name}  {}", number(value, unit));
    }
    show_flaws(&point.flaws, out);
}

fn show_flaws(flaws: &[LogFlaw], out: &mut String) {
    for flaw in flaws {
        let _ = writeln!(out, "  ! {}: {}", flaw.code, flaw.message);
    }
}

fn number(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.4} {unit}"))
}
