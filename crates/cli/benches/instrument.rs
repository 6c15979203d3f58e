//! The instrument's table: the load client beside a raw reader, against a server that knows the truth.
//!
//! `cargo bench --bench instrument -- [--case NAME] [--rounds N] [--beside COMMAND]` prints Markdown for the
//! journal. It is `scalebeam selftest --full --markdown` of a build with optimisations, so that what a user
//! sees and what the journal says come from the same code.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo adds `--bench` to what it is given.
    let given = std::env::args().skip(1).filter(|a| a != "--bench");
    let mut command = Command::new(env!("CARGO_BIN_EXE_scalebeam"));
    let status = command.args(["selftest", "--full", "--markdown"]).args(given).status();
    match status.map(|s| s.code()) {
        Ok(Some(0)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
