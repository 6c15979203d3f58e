//! As much of HTTP/1.1 as a request of a load generator needs.

use memchr::memmem;

/// What lies in a connection's inbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not a whole request yet.
    Partial,
    /// A whole request.
    Whole {
        /// Bytes of it.
        len: usize,
        /// The number at the end of its `x-request-id`.
        index: Option<u64>,
    },
    /// A whole request for something beside a stream: what clients ask before they begin.
    Aside {
        /// Bytes of it.
        len: usize,
        /// What it is about.
        aside: Aside,
    },
    /// Nothing that this server can serve.
    Bad,
}

/// What is asked beside streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Whether the server is well.
    Health,
    /// Which models there are.
    Models,
    /// What this server does not have.
    Other,
}

/// The one path at which there are streams.
const STREAMS: &str = "/v1/chat/completions";

/// Heads longer than this are no request of ours.
const MAX_HEAD: usize = 64 * 1024;

/// Looks for one request at the beginning of `inbox`.
pub(crate) fn parse(inbox: &[u8]) -> Parsed {
    let Some(end) = memmem::find(inbox, b"\r\n\r\n") else {
        return if inbox.len() > MAX_HEAD { Parsed::Bad } else { Parsed::Partial };
    };
    let Ok(head) = std::str::from_utf8(&inbox[..end]) else { return Parsed::Bad };
    let mut lines = head.split("\r\n");
    let Some((method, path)) = lines.next().and_then(start_line) else { return Parsed::Bad };
    let (mut body, mut index) = (None, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Parsed::Bad };
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("x-request-id") {
            index = value.trim().rsplit('-').next().and_then(|n| n.parse().ok());
        }
    }
    // What is only asked for has no body unless it says so.
    let body = body.or((method == "GET").then_some(0));
    match body.and_then(|body| body.checked_add(end + 4)) {
        Some(len) if len > inbox.len() => Parsed::Partial,
        Some(len) if method == "POST" && path == STREAMS => Parsed::Whole { len, index },
        Some(len) => Parsed::Aside { len, aside: Aside::of(method, path) },
        None => Parsed::Bad,
    }
}

/// Method and path, where they are those of a request that is answered here.
fn start_line(line: &str) -> Option<(&str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?;
    matches!(method, "GET" | "POST").then_some((method, path))
}

impl Aside {
    fn of(method: &str, path: &str) -> Self {
        match (method, path) {
            ("GET", "/health") => Self::Health,
            ("GET", "/v1/models") => Self::Models,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\
        X-Request-Id: ours-17\r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn a_request_is_whole_with_its_last_byte() {
        assert_eq!(parse(ONE.as_bytes()), Parsed::Whole { len: ONE.len(), index: Some(17) });
        let two = format!("{ONE}{ONE}");
        assert_eq!(parse(two.as_bytes()), Parsed::Whole { len: ONE.len(), index: Some(17) });
        for cut in 0..ONE.len() {
            assert_eq!(parse(&ONE.as_bytes()[..cut]), Parsed::Partial, "{cut}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_told_apart() {
        for bad in [
            "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 18446744073709551615\r\n\r\n",
            "POST / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Parsed::Bad, "{bad}");
        }
        let bare = "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(parse(bare.as_bytes()), Parsed::Whole { len: bare.len(), index: None });
    }

    #[test]
    fn what_is_asked_beside_streams_is_no_stream() {
        for (text, aside) in [
            ("GET /health HTTP/1.1\r\nhost: x\r\n\r\n", Aside::Health),
            ("GET /v1/models HTTP/1.1\r\n\r\n", Aside::Models),
            ("GET /metrics HTTP/1.1\r\n\r\n", Aside::Other),
            ("POST /tokenize HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", Aside::Other),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Aside { len: text.len(), aside }, "{text}");
        }
        let cut = "POST /tokenize HTTP/1.1\r\ncontent-length: 2\r\n\r\n{";
        assert_eq!(parse(cut.as_bytes()), Parsed::Partial);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
