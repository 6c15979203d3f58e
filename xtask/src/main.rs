//! Generated files and architecture checks: `cargo xtask schema`, `cargo xtask check`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod layering;
mod schema;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let root = root();
    let outcome = match task.as_str() {
        "schema" => schema::write(&root),
        "check" => schema::check(&root).and_then(|()| layering::check(&root)),
        _ => Err("usage: cargo xtask schema | check".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            report(&why);
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

#[expect(clippy::print_stderr, reason = "a task's only way to talk to its user")]
fn report(why: &str) {
    eprintln!("xtask: {why}");
}
