//! One module a command; each is the table of contents of what it does.

use crate::args::{Command, SchemaOf};
use crate::exit::{Failure, Status};
use crate::printer;

mod advise;
mod agent;
mod bench;
mod check;
mod compare;
mod doctor;
mod down;
mod export;
mod import;
mod inside;
mod plan;
mod power_logs;
mod report;
mod route;
mod run;
mod selftest;
pub(crate) mod serve;
mod setup;
mod up;

/// Carries `command` out.
pub(crate) fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Inside(args) => inside::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::SelftestPart { spec, streams } => crate::selftest::part::run(&spec, streams),
        Command::Report(args) => report::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Schema { of } => schema(of),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir } => man(&dir),
    }
}

fn schema(of: SchemaOf) -> Result<Status, Failure> {
    use scalebeam_model::{
        analysis::advise::Advice, analysis::versus::Versus, doctor::DoctorReport,
        fingerprint::Fingerprint, plan::Plan, results::Results, spec::Experiment,
    };
    printer::json(&match of {
        SchemaOf::Experiment => Experiment::json_schema(),
        SchemaOf::Plan => Plan::json_schema(),
        SchemaOf::Results => Results::json_schema(),
        SchemaOf::Doctor => DoctorReport::json_schema(),
        SchemaOf::Fingerprint => Fingerprint::json_schema(),
        SchemaOf::Compare => Versus::json_schema(),
        SchemaOf::Advise => Advice::json_schema(),
    })?;
    Ok(Status::Ok)
}

fn completions(shell: clap_complete::Shell) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::args::command(), "scalebeam", &mut text);
    printer::data(&String::from_utf8_lossy(&text));
    Ok(Status::Ok)
}

fn man(dir: &std::path::Path) -> Result<Status, Failure> {
    let fail =
        |e: std::io::Error| Failure::usage(format!("cannot write to {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(fail)?;
    clap_mangen::generate_to(crate::args::command(), dir).map_err(fail)?;
    Ok(Status::Ok)
}

/// A runtime of `threads` threads: one needs no other to be woken on the way of a token. A campaign's load is
/// sent from threads of its own.
fn runtime(threads: u16) -> Result<tokio::runtime::Runtime, Failure> {
    use tokio::runtime::Builder;
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    let built = builder.enable_all().build();
    built.map_err(|e| Failure::internal(format!("cannot start a runtime: {e}")))
}

/// Reads a span given on the command line.
fn span(flag: &str, text: &str) -> Result<scalebeam_model::units::Nanos, Failure> {
    scalebeam_model::units::parse_duration(text).map_err(|e| Failure::usage(format!("{flag}: {e}")))
}
