//! The files of one run of another client: what it printed, and the result that it may leave.

use crate::exit::Failure;
use crate::settings;
use std::path::{Path, PathBuf};

/// A directory that goes with this value.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
}

/// Lines of its output that a failure shows.
const LAST_LINES: usize = 5;

impl Scratch {
    pub(super) fn new() -> Result<Self, Failure> {
        let dir = settings::cache_dir().join(format!("selftest-beside-{}", std::process::id()));
        let made = std::fs::create_dir_all(&dir);
        made.map_err(|e| Failure::usage(format!("cannot create {}: {e}", dir.display())))?;
        Ok(Self { dir })
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the client may leave its result.
    pub(super) fn result(&self) -> PathBuf {
        self.dir.join("result.json")
    }

    /// What the client prints goes here.
    pub(super) fn output(&self) -> PathBuf {
        self.dir.join("output.txt")
    }

    /// The result; empty where there is none.
    pub(super) fn result_text(&self) -> String {
        std::fs::read_to_string(self.result()).unwrap_or_default()
    }

    /// The last lines that it printed.
    pub(super) fn said_last(&self) -> Vec<String> {
        let bytes = std::fs::read(self.output()).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&bytes))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in a folder that the user may empty at any time.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<String> =
        text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// A line without what would colour a terminal or move its cursor.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // A sequence ends with its first letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_plain() {
        let text = "1\n2\n\n3\r\n4\n \n\u{1b}[0;36mfive\u{1b}[0m is\tred\n6\n7\n";
        assert_eq!(last_lines(text), ["3", "4", "five isred", "6", "7"]);
        assert!(last_lines("").is_empty());
    }
}
