//! Reading the log of a process while it is written.
//!
//! **Invariant:** bounded, whatever the size of the log: only its end is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes from the end of a log that are looked at.
const TAIL_BYTES: u64 = 128 << 10;
/// Characters of a line that are kept.
const LINE_LIMIT: usize = 400;

/// The last `lines` lines of `log` from byte `from` on, without colours, blank lines, and what a
/// progress bar overwrote.
pub(super) fn tail(log: &Path, from: u64, lines: usize) -> std::io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    let start = from.max(length.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut kept: Vec<String> =
        text.lines().rev().map(plain).filter(|l| !l.is_empty()).take(lines).collect();
    kept.reverse();
    Ok(kept)
}

fn plain(line: &str) -> String {
    let line = line.trim_end();
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                // A control sequence ends with its first letter.
                chars.by_ref().find(char::is_ascii_alphabetic);
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
        if out.len() > LINE_LIMIT {
            out.push('…');
            break;
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_plain_and_begin_where_this_start_began() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        std::fs::write(&log, "old\n\u{1b}[31mred\u{1b}[0m\n\nload 10%\rload 90%\nend").unwrap();
        assert_eq!(tail(&log, 4, 15).unwrap(), ["red", "load 90%", "end"]);
        assert_eq!(tail(&log, 0, 2).unwrap(), ["load 90%", "end"]);
    }
}
