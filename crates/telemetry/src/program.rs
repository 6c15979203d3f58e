//! Programs of the system that print something and end.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program that takes longer than this is ended.
const LIMIT: Nanos = Nanos::from_secs(4);
/// From look to look whether it has ended.
const STEP: Duration = Duration::from_millis(20);

/// What `program` prints when it is run with `args`.
///
/// # Errors
/// Says why it cannot be run, took too long, or failed, with its own last words.
pub(crate) fn printed(clock: &dyn Clock, program: &str, args: &[&str]) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    let out = read_aside(child.stdout.take());
    let errors = read_aside(child.stderr.take());
    let has_ended = wait(clock, &mut child)?;
    if !has_ended {
        return Err(format!("{program} did not end within {} s", LIMIT.as_secs_f64()));
    }
    let status = child.wait().map_err(|e| format!("{program}: {e}"))?;
    let text = |read: Option<std::thread::JoinHandle<String>>| {
        read.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (printed, errors) = (text(out), text(errors));
    match status.success() {
        true => Ok(printed),
        false => Err(format!("{program} failed ({status}): {}", last_line(&errors, &printed))),
    }
}

/// A full pipe would hold the program up, so both are read while it runs.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Option<std::thread::JoinHandle<String>> {
    let mut pipe = pipe?;
    let read = move || {
        let mut text = String::new();
        // What is no text is no answer of these programs.
        let _ = pipe.read_to_string(&mut text);
        text
    };
    std::thread::Builder::new().name("program".to_owned()).spawn(read).ok()
}

/// Whether it ended by itself; else it is ended.
fn wait(clock: &dyn Clock, child: &mut Child) -> Result<bool, String> {
    let begin = clock.now();
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if clock.now() - begin > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(false);
        }
        std::thread::sleep(STEP);
    }
    Ok(true)
}

fn last_line<'a>(errors: &'a str, printed: &'a str) -> &'a str {
    let lines = errors.lines().rev().chain(printed.lines().rev());
    lines.map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;

    #[test]
    fn what_a_program_prints_is_had_and_why_it_failed_too() {
        let clock = ManualClock::default();
        assert_eq!(printed(&clock, "sh", &["-c", "echo 7 Watts"]), Ok("7 Watts\n".to_owned()));
        let failed = printed(&clock, "sh", &["-c", "echo no device >&2; exit 3"]).unwrap_err();
        assert!(failed.contains("no device") && failed.contains('3'), "{failed}");
        let missing = printed(&clock, "no-such-program", &[]).unwrap_err();
        assert!(missing.starts_with("no-such-program: "), "{missing}");
    }
}
