//! One JSON document a line (NDJSON), cut as the bytes come.
//!
//! **Invariants:** however the bytes are cut into reads, the same lines come out; a line that lies whole
//! in one read is borrowed from it.

use crate::sse::{EVENT_LIMIT, SseError};
use memchr::memchr;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An incremental splitter of one body.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The line that the last read cut.
    carry: Vec<u8>,
    at_start: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::with_limit(EVENT_LIMIT)
    }
}

impl Splitter {
    /// A splitter that accepts lines of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit, carry: Vec::new(), at_start: true }
    }

    /// Takes in what one read brought and hands on the lines that it completed, empty ones left out.
    ///
    /// # Errors
    /// When a line exceeds the limit; the splitter is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8], mut on_line: impl FnMut(&[u8])) -> Result<(), SseError> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.carry.is_empty() {
                self.check(line.len())?;
                self.hand_on(line, &mut on_line);
            } else {
                self.keep(line)?;
                self.hand_on_carry(&mut on_line);
            }
        }
        self.keep(rest)
    }

    /// Says that the body ended, and hands on a line that lacks its line feed.
    pub fn finish(&mut self, mut on_line: impl FnMut(&[u8])) {
        self.hand_on_carry(&mut on_line);
    }

    fn hand_on_carry(&mut self, on_line: &mut impl FnMut(&[u8])) {
        let carry = std::mem::take(&mut self.carry);
        self.hand_on(&carry, on_line);
        self.carry = carry;
        self.carry.clear();
    }

    fn hand_on(&mut self, line: &[u8], on_line: &mut impl FnMut(&[u8])) {
        let line = if std::mem::take(&mut self.at_start) {
            line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
        } else {
            line
        };
        let line = line.trim_ascii();
        if !line.is_empty() {
            on_line(line);
        }
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), SseError> {
        self.check(self.carry.len() + part.len())?;
        self.carry.extend_from_slice(part);
        Ok(())
    }

    fn check(&self, size: usize) -> Result<(), SseError> {
        if size > self.limit { Err(SseError::TooLong(self.limit)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, SseError> {
        let mut splitter = Splitter::with_limit(24);
        let mut lines = Vec::new();
        for part in parts {
            splitter.feed(part, |line| lines.push(line.to_vec()))?;
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        Ok(lines)
    }

    #[test]
    fn lines_come_out_without_their_ends() {
        let text = b"\xEF\xBB\xBF{\"a\":1}\r\n\n{\"b\":2}\n  \n{\"c\":3}";
        assert_eq!(split([&text[..]]).unwrap(), [b"{\"a\":1}", b"{\"b\":2}", b"{\"c\":3}"]);
        assert_eq!(split([&b"012345678901234567890123456789"[..]]), Err(SseError::TooLong(24)));
    }

    proptest! {
        #[test]
        fn any_split_into_reads_gives_the_same_lines(
            text in "[a-c\r\n]{0,60}",
            size in 1usize..9,
        ) {
            prop_assert_eq!(split(text.as_bytes().chunks(size)), split([text.as_bytes()]));
        }
    }
}
