//! The only place that writes to the terminal: data to stdout, everything else to stderr.

use crate::exit::Failure;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when data could not be written, so that the exit code says so.
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes data. A reader that has gone away is no error; a full disk is.
pub(crate) fn data(text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    stream(|out| {
        out.write_all(text.as_bytes())?;
        out.write_all(end.as_bytes())
    });
}

/// Writes data bit by bit, where it is too much to be held; `write` ends with the first error.
pub(crate) fn stream(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    // What is left in the buffer after an error would only fail again.
    drop(out.into_parts());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
        say(&format!("error: cannot write to stdout: {error}"));
    }
}

/// Whether data could not be written.
pub(crate) fn lost_data() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Writes a value as JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::internal(format!("cannot write JSON: {e}")))?;
    data(&text);
    Ok(())
}

/// Tells the user something.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells the user what went wrong.
pub(crate) fn error(failure: &Failure) {
    say(&format!("error: {}", failure.text()));
}

/// Whether a person reads what goes to stderr.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether colour is wanted on stdout.
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stdout().is_terminal()
}

/// Columns to write tables for.
pub(crate) fn width() -> usize {
    let from_env = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let terminal =
        || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|w| usize::from(w.ws_col));
    from_env.or_else(terminal).filter(|w| *w >= 40).unwrap_or(110)
}
