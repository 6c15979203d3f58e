//! The head of an HTTP/1.1 answer: what of it decides how the body is read.
//!
//! **Invariant:** framing follows RFC 9112, section 6.3; a head that could be read in two ways (two
//! lengths, a length that is no number) is refused, not guessed at.

use httparse::{Header, Response, Status};

/// The longest head that is accepted.
const HEAD_LIMIT: usize = 64 << 10;
const MOST_HEADERS: usize = 128;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `transfer-encoding: chunked`.
    Chunked,
    /// `content-length`, or a status that has no body.
    Length(u64),
    /// The end of the connection.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) framing: Framing,
    /// The server will read another request on this connection, as far as it says.
    pub(crate) keep_alive: bool,
}

/// What the first bytes of an answer are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not a whole head yet.
    Partial,
    /// An interim answer (1xx) of this many bytes; the real one follows.
    Interim(usize),
    /// A head of this many bytes.
    Whole(Head, usize),
}

/// Reads the head at the beginning of `bytes`.
///
/// # Errors
/// What is wrong with it, for a failure's detail.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|e| format!("no HTTP answer: {e}"))?;
    let Status::Complete(len) = parsed else {
        return if bytes.len() > HEAD_LIMIT {
            Err(format!("the head is longer than {HEAD_LIMIT} bytes"))
        } else {
            Ok(Parsed::Partial)
        };
    };
    let status = response.code.unwrap_or_default();
    if (100..200).contains(&status) && status != 101 {
        return Ok(Parsed::Interim(len));
    }
    let is_1_1 = response.version == Some(1);
    let framing = framing(status, response.headers)?;
    let head = Head {
        status,
        content_type: text(response.headers, "content-type"),
        framing,
        // After a switch of protocols nothing that we would send is understood.
        keep_alive: keeps_alive(is_1_1, response.headers)
            && framing != Framing::UntilClose
            && status != 101,
    };
    Ok(Parsed::Whole(head, len))
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

fn text(headers: &[Header<'_>], name: &str) -> Option<String> {
    values(headers, name).next().map(|v| String::from_utf8_lossy(v).into_owned())
}

/// Whether the comma-separated header `name` has `token` in it.
fn lists(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    let mut items = values(headers, name).flat_map(|v| v.split(|b| *b == b','));
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn framing(status: u16, headers: &[Header<'_>]) -> Result<Framing, String> {
    if matches!(status, 101 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if values(headers, "transfer-encoding").next().is_some() {
        return if lists(headers, "transfer-encoding", "chunked") {
            Ok(Framing::Chunked)
        } else {
            Ok(Framing::UntilClose)
        };
    }
    let mut lengths = values(headers, "content-length").flat_map(|v| v.split(|b| *b == b','));
    let Some(first) = lengths.next() else { return Ok(Framing::UntilClose) };
    let number = |v: &[u8]| -> Option<u64> {
        let v = v.trim_ascii();
        let is_number = !v.is_empty() && v.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(v).ok().filter(|_| is_number)?.parse().ok()
    };
    let length = number(first);
    if length.is_none() || lengths.any(|other| number(other) != length) {
        return Err("the answer's content-length is no single number".to_owned());
    }
    Ok(Framing::Length(length.unwrap_or_default()))
}

fn keeps_alive(is_1_1: bool, headers: &[Header<'_>]) -> bool {
    if is_1_1 {
        !lists(headers, "connection", "close")
    } else {
        lists(headers, "connection", "keep-alive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Head {
        match parse(text.as_bytes()).unwrap() {
            Parsed::Whole(head, len) => {
                assert_eq!(len, text.find("\r\n\r\n").unwrap() + 4);
                head
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        for (headers, framing, keep_alive) in [
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked, true),
            ("transfer-encoding: gzip, Chunked\r\ncontent-length: 3\r\n", Framing::Chunked, true),
            ("Content-Length: 12\r\n", Framing::Length(12), true),
            ("content-length: 12, 12\r\nConnection: Close\r\n", Framing::Length(12), false),
            ("", Framing::UntilClose, false),
        ] {
            let head = whole(&format!("HTTP/1.1 200 OK\r\n{headers}\r\nrest"));
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{headers}");
        }
        let old = whole("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n");
        assert!(!old.keep_alive);
        let old = whole("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n");
        assert!(old.keep_alive);
        assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n").framing, Framing::Length(0));
    }

    #[test]
    fn what_is_no_head_is_refused_with_a_reason() {
        for (text, why) in [
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "no HTTP answer"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "no single"),
            ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", "no single number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", "no single number"),
        ] {
            let got = parse(text.as_bytes()).unwrap_err();
            assert!(got.contains(why), "{text:?}: {got}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_LIMIT));
        assert!(parse(long.as_bytes()).unwrap_err().contains("longer"));
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        assert_eq!(parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), Ok(Parsed::Interim(25)));
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_head_is_partial(cut in 0usize..60) {
            let text = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-a: b\r\n\r\n";
            prop_assert_eq!(parse(&text[..cut]), Ok(Parsed::Partial));
        }
    }
}
