//! Server-sent events, parsed as the bytes come.
//!
//! **Invariants:** however the bytes of a stream are cut into reads, the same events come out (kept by
//! a property test and a fuzz target); an event that lies whole in one read is borrowed from it, so
//! the common path neither copies nor allocates; nothing is decoded, so a read that ends inside a
//! UTF-8 sequence is no special case.

use memchr::{memchr, memchr2};

/// Longest line, and most data in one event, that is accepted.
pub const EVENT_LIMIT: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty where the stream names none.
    pub name: &'a [u8],
    /// The `data` lines, joined by line feeds.
    pub data: &'a [u8],
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is longer than the limit.
    #[error("an event is longer than {0} bytes")]
    TooLong(usize),
}

/// An incremental parser of one event stream.
///
/// Fields other than `event` and `data` (`id`, `retry`, unknown ones) and comments are skipped: they
/// steer reconnection, and a measured request is never resumed.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// The line that the last read cut.
    carry: Vec<u8>,
    /// Data lines of the event under way that could not stay borrowed.
    data: Vec<u8>,
    name: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR: an LF that comes first now belongs to it.
    after_cr: bool,
    at_start: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

/// What a line does to the event under way.
enum Line<'a> {
    Data(&'a [u8]),
    Name(&'a [u8]),
    Dispatch,
    Skip,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new() -> Self {
        Self::with_limit(EVENT_LIMIT)
    }

    /// A parser that accepts lines and events of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            carry: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Takes in what one read brought and hands on the events that it completed.
    ///
    /// # Errors
    /// When a line or an event exceeds the limit; the parser is of no use afterwards.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<(), SseError> {
        let mut rest = bytes;
        // The first data line of the event under way, while it lies in this read.
        let mut borrowed: Option<&[u8]> = None;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.keep(rest)?;
                break;
            };
            let (line, is_cr) = (&rest[..end], rest[end] == b'\r');
            rest = &rest[end + 1..];
            self.after_cr = is_cr;
            if self.carry.is_empty() {
                let line = self.without_mark(line);
                self.check(line.len())?;
                self.line(line, &mut borrowed, &mut on_event)?;
            } else {
                self.keep(line)?;
                self.carried_line(&mut on_event)?;
            }
        }
        if let Some(line) = borrowed {
            self.append(line)?;
        }
        Ok(())
    }

    /// Says that the stream ended, and hands on an event that lacks its blank line.
    ///
    /// # Errors
    /// When the last line exceeds the limit.
    pub fn finish(&mut self, mut on_event: impl FnMut(Event<'_>)) -> Result<(), SseError> {
        if !self.carry.is_empty() {
            self.carried_line(&mut on_event)?;
        }
        self.dispatch(None, &mut on_event);
        Ok(())
    }

    /// A line that was cut: it is copied once more, so that `self` is free to be written to.
    fn carried_line(&mut self, on_event: &mut impl FnMut(Event<'_>)) -> Result<(), SseError> {
        let carry = std::mem::take(&mut self.carry);
        let line = self.without_mark(&carry);
        let mut borrowed = None;
        let fed = self.check(line.len()).and_then(|()| self.line(line, &mut borrowed, on_event));
        let fed = fed.and_then(|()| borrowed.map_or(Ok(()), |line| self.append(line)));
        self.carry = carry;
        self.carry.clear();
        fed
    }

    fn line<'a>(
        &mut self,
        line: &'a [u8],
        borrowed: &mut Option<&'a [u8]>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), SseError> {
        match classify(line) {
            Line::Data(value) if !self.has_data && borrowed.is_none() => *borrowed = Some(value),
            Line::Data(value) => {
                if let Some(first) = borrowed.take() {
                    self.append(first)?;
                }
                self.append(value)?;
            }
            Line::Name(value) => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            Line::Dispatch => self.dispatch(borrowed.take(), on_event),
            Line::Skip => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, borrowed: Option<&[u8]>, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some(data) = borrowed {
            on_event(Event { name: &self.name, data });
        } else if self.has_data {
            on_event(Event { name: &self.name, data: &self.data });
        }
        self.name.clear();
        self.data.clear();
        self.has_data = false;
    }

    fn append(&mut self, line: &[u8]) -> Result<(), SseError> {
        self.check(self.data.len() + usize::from(self.has_data) + line.len())?;
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(line);
        self.has_data = true;
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), SseError> {
        let mark = if self.at_start { BYTE_ORDER_MARK.len() } else { 0 };
        self.check((self.carry.len() + part.len()).saturating_sub(mark))?;
        self.carry.extend_from_slice(part);
        Ok(())
    }

    fn check(&self, size: usize) -> Result<(), SseError> {
        if size > self.limit { Err(SseError::TooLong(self.limit)) } else { Ok(()) }
    }

    /// The first line of a stream may begin with a byte order mark.
    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if std::mem::take(&mut self.at_start) {
            line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
        } else {
            line
        }
    }
}

fn classify(line: &[u8]) -> Line<'_> {
    if line.is_empty() {
        return Line::Dispatch;
    }
    let (field, value) = match memchr(b':', line) {
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, &line[..0]),
    };
    match field {
        b"data" => Line::Data(value),
        b"event" => Line::Name(value),
        _ => Line::Skip,
    }
}

#[cfg(test)]
mod tests;
