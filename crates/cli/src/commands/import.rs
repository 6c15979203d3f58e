//! `import`: results of other tools under our names, and power logs that they left, with our numbers beside theirs.

use crate::args::ImportArgs;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::import::{self, IMPORT_FORMAT, ImportFlaw, ImportedFile};
use scalebeam_model::telemetry::log_results::{self, Imported, LogSummary, LoggedPoint, NamedLog};
use scalebeam_model::telemetry::power_log::{self, PowerSummary};
use scalebeam_model::telemetry::usage::THIS_MACHINE;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What all files say.
#[derive(Debug, Serialize)]
struct Said {
    format: u32,
    files: Vec<ImportedFile>,
    #[serde(flatten)]
    power: Imported,
}

pub(super) fn run(args: &ImportArgs) -> Result<Status, Failure> {
    let mut files = Vec::new();
    let mut logs = Vec::new();
    for path in &args.files {
        match read(path)? {
            Read::Results(file) => files.push(file),
            Read::Log(log) => logs.push(log),
        }
    }
    if logs.is_empty() && (args.results.is_some() || args.from.is_some()) {
        return Err(Failure::usage(
            "--results, --from and --to are for power logs, and no file is one",
        ));
    }
    let said = Said { format: IMPORT_FORMAT, files, power: power(args, &logs)? };
    if args.json {
        printer::json(&said)?;
    } else {
        let results = scalebeam_report::imported(&said.files, printer::width());
        printer::data(&(results + &shown(&said.power)));
    }
    Ok(Status::Ok)
}

fn power(args: &ImportArgs, logs: &[NamedLog]) -> Result<Imported, Failure> {
    let results = args.results.as_deref().map(text).transpose()?;
    let window = args.from.as_deref().zip(args.to.as_deref());
    let window = window.map(|(from, to)| log_results::window(from, to)).transpose();
    let window = window.map_err(|why| Failure::usage(format!("--from, --to: {why}")))?;
    log_results::import(logs, results.as_deref(), window).map_err(|why| {
        let file = args.results.as_deref().unwrap_or(Path::new("the logs"));
        Failure::usage(format!("{}: {why}", file.display()))
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))
}

/// What a file is.
pub(super) enum Read {
    Results(ImportedFile),
    Log(NamedLog),
}

pub(super) fn read(path: &Path) -> Result<Read, Failure> {
    let text = text(path)?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let no_log = match power_log::read(&text, THIS_MACHINE) {
        Ok(log) => return Ok(Read::Log(NamedLog { file, log })),
        Err(why) => why,
    };
    import::read(&file, &text).map(Read::Results).map_err(|why| {
        Failure::usage(format!(
            "{} is no result ({why}), and no power log ({no_log})",
            path.display()
        ))
        .hint(
            "power logs that are known are seed 4's power_log_*.csv, CSV of nvidia-smi and amd-smi with their heads and timestamps, and srt-slurm's samples.csv",
        )
    })
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

fn show_flaws(flaws: &[ImportFlaw], out: &mut String) {
    for flaw in flaws {
        let _ = writeln!(out, "  ! {}: {}", flaw.code, flaw.message);
    }
}

fn number(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.4} {unit}"))
}
