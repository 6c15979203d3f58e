//! Reading the log of a process while it is written.
//!
//! **Invariant:** memory is bounded, whatever the size of the log. Of a tail only the end is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes from the end of a log that are looked at.
const TAIL_BYTES: u64 = 128 << 10;
/// Lines of a log that an error shows.
pub(super) const SHOWN_LINES: usize = 15;
/// Lines of a log in which known failures are looked for.
pub(super) const SEARCH_LINES: usize = 400;
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
    Ok(last_lines(&String::from_utf8_lossy(&bytes), lines))
}

/// The last `lines` lines of `text`, as [`tail`] keeps them.
pub(super) fn last_lines(text: &str, lines: usize) -> Vec<String> {
    let kept = text.lines().rev().map(plain).filter(|l| !l.is_empty()).take(lines);
    let mut kept: Vec<String> = kept.collect();
    kept.reverse();
    kept
}

/// Looks for a text in the lines of a log that grows; what was looked at is not read again.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    log: &'a Path,
    /// Where the first line begins that was not looked at whole.
    at: u64,
    text: &'a str,
}

impl<'a> Search<'a> {
    /// For `text` in `log` from byte `from` on.
    pub(super) const fn new(log: &'a Path, from: u64, text: &'a str) -> Self {
        Self { log, at: from, text }
    }

    /// Whether a line that was not looked at before holds it. A log that is not there yet has none.
    pub(crate) fn finds(&mut self) -> bool {
        self.look().unwrap_or(false)
    }

    fn look(&mut self) -> std::io::Result<bool> {
        let mut file = File::open(self.log)?;
        loop {
            file.seek(SeekFrom::Start(self.at))?;
            let mut bytes = Vec::new();
            let read = file.by_ref().take(TAIL_BYTES).read_to_end(&mut bytes)?;
            let block = String::from_utf8_lossy(&bytes);
            // Colours may stand within the text, and what is kept of a long line may lack it.
            if block.lines().any(|l| l.contains(self.text) || plain(l).contains(self.text)) {
                return Ok(true);
            }
            let is_full = read as u64 == TAIL_BYTES;
            let whole = bytes.iter().rposition(|b| *b == b'\n').map(|last| last + 1);
            // A line longer than a block is looked at in parts that overlap.
            let step = whole.unwrap_or(if is_full { read / 2 } else { 0 });
            self.at += step as u64;
            if !is_full {
                return Ok(false);
            }
        }
    }
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

    #[test]
    fn a_text_is_found_however_its_line_comes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let mut search = Search::new(&log, 6, "it is up");
        assert!(!search.finds(), "there is no log yet");
        let append = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&log).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        append("it is up, said an earlier start\nloading\nit is");
        let mut search = Search::new(&log, 10, "it is up");
        assert!(!search.finds(), "what another start wrote");
        append(" up");
        assert!(search.finds(), "a line in two parts, without its end");
        append("\n\u{1b}[32mit is\u{1b}[0m down\n");
        let mut search = Search::new(&log, 10, "it is down");
        assert!(search.finds(), "colours within");
        append(&"x".repeat(3 * 128 * 1024 + 7));
        append("needle");
        let mut search = Search::new(&log, 10, "needle");
        assert!(search.finds(), "a line longer than a block");
    }
}
