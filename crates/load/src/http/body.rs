//! The body of an HTTP/1.1 answer, without its framing.
//!
//! **Invariant:** however the bytes are cut into reads, the same data comes out, borrowed from the
//! read; nothing is copied and nothing is kept but where in the framing we are.

use crate::http::head::Framing;
use memchr::memchr;

/// The longest line of chunk framing (a size with extensions, a trailer field).
const LINE_LIMIT: usize = 16 << 10;

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More is to come.
    More,
    /// It ended, with this many of the bytes fed.
    Ended(usize),
}

/// A body that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// In chunks.
    Chunked(Chunked),
    /// So many bytes more.
    Length(u64),
    /// As long as the connection lasts.
    UntilClose,
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked(Chunked { state: State::Size(0), line: 0 }),
            Framing::Length(length) => Self::Length(length),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing of it is to come, before anything has.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::Length(0)
    }

    /// Takes in what a read brought, and hands on the data in it.
    ///
    /// # Errors
    /// What is wrong with the framing, or what `on_data` says.
    pub(crate) fn feed<E: From<BadFraming>>(
        &mut self,
        bytes: &[u8],
        mut on_data: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, E> {
        match self {
            Self::Chunked(chunked) => chunked.feed(bytes, on_data),
            Self::UntilClose => on_data(bytes).map(|()| Progress::More),
            Self::Length(left) => {
                let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                on_data(&bytes[..len])?;
                *left -= len as u64;
                Ok(if *left == 0 { Progress::Ended(len) } else { Progress::More })
            }
        }
    }
}

/// Chunk framing that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer's chunks cannot be told apart")]
pub(crate) struct BadFraming;

/// The decoder of RFC 9112, section 7.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of the framing line under way.
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the hexadecimal digits of a size.
    Size(u64),
    /// After the digits: extensions, up to the line's end.
    Extension(u64),
    /// So many bytes of data are left.
    Data(u64),
    /// Between data and the next size.
    AfterData,
    /// At the start of a trailer field, or of the empty line that ends the body.
    Trailer,
    /// Within a trailer field.
    TrailerField,
}

impl Chunked {
    fn feed<E: From<BadFraming>>(
        &mut self,
        bytes: &[u8],
        mut on_data: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, E> {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Data(left) = self.state {
                let rest = &bytes[at..];
                let len = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                on_data(&rest[..len])?;
                at += len;
                let left = left - len as u64;
                self.state = if left == 0 { State::AfterData } else { State::Data(left) };
                continue;
            }
            let (used, ended) = self.framing(&bytes[at..])?;
            at += used;
            if ended {
                return Ok(Progress::Ended(at));
            }
        }
        Ok(Progress::More)
    }

    /// Takes in some of the framing: how many bytes, and whether the body ended with them.
    fn framing(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadFraming> {
        let byte = bytes[0];
        let mut used = 1;
        match self.state {
            State::Size(size) => match (digit(byte), byte) {
                (Some(digit), _) if size >> 59 == 0 => {
                    self.state = State::Size(size << 4 | u64::from(digit));
                }
                (None, b'\n') if self.line > 0 => self.end_size(size),
                (None, b'\r' | b';' | b' ' | b'\t') if self.line > 0 => {
                    self.state = State::Extension(size);
                }
                _ => return Err(BadFraming),
            },
            State::Extension(size) => match memchr(b'\n', bytes) {
                Some(end) => {
                    used = end + 1;
                    self.end_size(size);
                }
                None => used = bytes.len(),
            },
            State::AfterData => match byte {
                b'\r' if self.line == 0 => {}
                b'\n' => self.begin(State::Size(0)),
                _ => return Err(BadFraming),
            },
            State::Trailer => match byte {
                b'\r' if self.line == 0 => {}
                b'\n' => return Ok((1, true)),
                _ if self.line == 0 => self.state = State::TrailerField,
                _ => return Err(BadFraming),
            },
            State::TrailerField => match memchr(b'\n', bytes) {
                Some(end) => {
                    used = end + 1;
                    self.begin(State::Trailer);
                }
                None => used = bytes.len(),
            },
            State::Data(_) => return Err(BadFraming),
        }
        // A line that has just ended began anew, and is not counted into.
        if bytes[used - 1] != b'\n' {
            self.line += used;
        }
        if self.line > LINE_LIMIT { Err(BadFraming) } else { Ok((used, false)) }
    }

    fn end_size(&mut self, size: u64) {
        self.begin(if size == 0 { State::Trailer } else { State::Data(size) });
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.line = 0;
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data of `bytes`, fed in pieces that end at `cuts`, and where the body ended.
    fn decode(framing: Framing, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<usize>) {
        let (mut body, mut data, mut at) = (Body::new(framing), Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            let fed = body.feed::<BadFraming>(&bytes[at..end], |piece| {
                data.extend_from_slice(piece);
                Ok(())
            });
            if let Progress::Ended(used) = fed.unwrap() {
                return (data, Some(at + used));
            }
            at = end;
        }
        (data, None)
    }

    fn refused(text: &str) -> bool {
        Body::new(Framing::Chunked).feed::<BadFraming>(text.as_bytes(), |_| Ok(())).is_err()
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let text = b"5;a=\"b\"\r\nhello\r\n1\n!\n00A\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\nnext";
        let (data, end) = decode(Framing::Chunked, text, &[]);
        assert_eq!(data, b"hello!0123456789");
        assert_eq!(end, Some(text.len() - 4));
    }

    #[test]
    fn framing_that_cannot_be_read_is_an_error() {
        for text in ["zz\r\n", "\r\n", "5\r\nhelloX", "-1\r\n", "fffffffffffffffff\r\n", ";\r\n"] {
            assert!(refused(text), "{text:?}");
        }
        assert!(refused(&format!("1;{}", "x".repeat(LINE_LIMIT + 1))));
        assert!(refused(&format!("{}1\r\n", "0".repeat(LINE_LIMIT + 1))));
    }

    #[test]
    fn a_length_is_held_to() {
        assert_eq!(decode(Framing::Length(3), b"abcdef", &[1]), (b"abc".to_vec(), Some(3)));
        assert_eq!(decode(Framing::Length(9), b"abc", &[]), (b"abc".to_vec(), None));
        assert_eq!(decode(Framing::UntilClose, b"abc", &[2]), (b"abc".to_vec(), None));
        assert!(Body::new(Framing::Length(0)).is_empty());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let want = (chunks.concat(), Some(text.len()));
            prop_assert_eq!(decode(Framing::Chunked, &text, &cuts), want);
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for framing in [Framing::Chunked, Framing::Length(7), Framing::UntilClose] {
                let _ = Body::new(framing).feed::<BadFraming>(&bytes, |_| Ok(()));
            }
        }
    }
}
