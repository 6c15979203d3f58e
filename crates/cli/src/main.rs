//! The binary `scalebeam`: flags, settings, terminal, exit codes. Everything else is in the rooms.

use std::process::ExitCode;

mod args;
mod campaign;
mod clock;
mod commands;
mod exit;
mod experiment;
mod findings;
mod interrupt;
mod limits;
mod machine;
mod printer;
mod rendered;
mod selftest;
mod settings;
mod show;

fn main() -> ExitCode {
    let command = match args::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    match commands::run(command) {
        Ok(exit::Status::Ok) if printer::lost_data() => exit::Status::Usage.into(),
        Ok(status) => status.into(),
        Err(failure) => {
            printer::error(&failure);
            failure.status().into()
        }
    }
}
