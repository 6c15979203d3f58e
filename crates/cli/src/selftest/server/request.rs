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
    /// Nothing that this server can serve.
    Bad,
}

/// Heads longer than this are no request of ours.
const MAX_HEAD: usize = 64 * 1024;

/// Looks for one request at the beginning of `inbox`.
pub(crate) fn parse(inbox: &[u8]) -> Parsed {
    let Some(end) = memmem::find(inbox, b"\r\n\r\n") else {
        return if inbox.len() > MAX_HEAD { Parsed::Bad } else { Parsed::Partial };
    };
    let Ok(head) = std::str::from_utf8(&inbox[..end]) else { return Parsed::Bad };
    let mut lines = head.split("\r\n");
    let starts_well =
        lines.next().is_some_and(|line| line.starts_with("POST ") && line.ends_with(" HTTP/1.1"));
    let (mut body, mut index) = (None, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Parsed::Bad };
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("x-request-id") {
            index = value.trim().rsplit('-').next().and_then(|n| n.parse().ok());
        }
    }
    let len = body.and_then(|body| body.checked_add(end + 4));
    match len {
        Some(len) if starts_well && len <= inbox.len() => Parsed::Whole { len, index },
        Some(_) if starts_well => Parsed::Partial,
        _ => Parsed::Bad,
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
            "GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 18446744073709551615\r\n\r\n",
            "POST / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Parsed::Bad, "{bad}");
        }
        let bare = "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(parse(bare.as_bytes()), Parsed::Whole { len: bare.len(), index: None });
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
