//! How the body of an answer is cut into events: by its content type, and where that is vague or wrong,
//! by its first bytes.
//!
//! **Invariant:** the readiness probe and the load path ask this module, so a body that passes the one
//! is read in the same way by the other.

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// So much of a body is looked at; a longer first line belongs to a document.
const LOOK: usize = 1 << 20;

/// So many blanks begin no stream that anybody wrote.
const BLANKS: usize = 4 << 10;

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON document a line (NDJSON).
    Lines,
    /// One JSON document.
    Document,
}

/// What a content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The framing is certain.
    Is(Framing),
    /// The first bytes decide: gateways forget what they carry, and call a stream JSON.
    Unsure,
    /// Not a type that an answer can have.
    Foreign,
}

/// What `content_type` says of an answer; `stream` is whether a stream was asked for.
pub fn kind(content_type: Option<&str>, stream: bool) -> Kind {
    let named = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is = |name: &str| named.eq_ignore_ascii_case(name);
    let unsure = if stream { Kind::Unsure } else { Kind::Is(Framing::Document) };
    if is("text/event-stream") {
        Kind::Is(Framing::Events)
    } else if ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .into_iter()
        .any(is)
    {
        Kind::Is(Framing::Lines)
    } else if ["", "application/json", "text/plain", "application/octet-stream"].into_iter().any(is)
    {
        unsure
    } else {
        Kind::Foreign
    }
}

/// The framing of a body by its beginning; `None` while more bytes are needed. No event is complete
/// before this is decided: what decides is shorter than any event, or is the end of the first line.
pub fn sniff(start: &[u8]) -> Option<Framing> {
    let len = start.len();
    let start = match start.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest,
        None if BYTE_ORDER_MARK.starts_with(start) => return None,
        None => start,
    }
    .trim_ascii_start();
    let Some(first) = start.first() else {
        return (len > BLANKS).then_some(Framing::Document);
    };
    match first {
        b':' => Some(Framing::Events),
        b'{' => first_line(start),
        _ => field(start),
    }
}

/// A first line that is an object by itself begins a body of lines.
fn first_line(start: &[u8]) -> Option<Framing> {
    let seen = &start[..start.len().min(LOOK)];
    let Some(end) = seen.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
        return (start.len() >= LOOK).then_some(Framing::Document);
    };
    let is_closed = start[..end].trim_ascii_end().ends_with(b"}") && closes(&start[..end]);
    Some(if is_closed { Framing::Lines } else { Framing::Document })
}

/// Whether every bracket that a line opens is closed in it; brackets inside strings are text.
fn closes(line: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_i64, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    depth == 0 && !in_string
}

fn field(start: &[u8]) -> Option<Framing> {
    const FIELDS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];
    if FIELDS.iter().any(|field| start.starts_with(field)) {
        return Some(Framing::Events);
    }
    let may_become = FIELDS.iter().any(|field| field.starts_with(start));
    if may_become { None } else { Some(Framing::Document) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_content_type_is_believed_where_it_is_precise() {
        for (named, stream, want) in [
            (Some("Text/Event-Stream; charset=utf-8"), true, Kind::Is(Framing::Events)),
            (Some("text/event-stream"), false, Kind::Is(Framing::Events)),
            (Some("application/x-ndjson"), true, Kind::Is(Framing::Lines)),
            (Some("application/json"), true, Kind::Unsure),
            (Some("application/json"), false, Kind::Is(Framing::Document)),
            (Some("text/plain"), true, Kind::Unsure),
            (None, true, Kind::Unsure),
            (None, false, Kind::Is(Framing::Document)),
            (Some("text/html"), true, Kind::Foreign),
        ] {
            assert_eq!(kind(named, stream), want, "{named:?} {stream}");
        }
    }

    #[test]
    fn the_first_bytes_tell_a_stream_from_a_document() {
        for (start, want) in [
            ("data: {}", Some(Framing::Events)),
            ("\n\nevent: x", Some(Framing::Events)),
            (": ping", Some(Framing::Events)),
            ("id:1", Some(Framing::Events)),
            ("retry: 3", Some(Framing::Events)),
            ("\u{feff}data:", Some(Framing::Events)),
            ("dat", None),
            ("data", None),
            ("database", Some(Framing::Document)),
            ("", None),
            ("{\"a\":1", None),
            ("{\"a\":1}", None),
            ("{\"a\":1}\n", Some(Framing::Lines)),
            ("{\"a\":\"}\"}\r\n{", Some(Framing::Lines)),
            ("{\n  \"a\": 1\n}", Some(Framing::Document)),
            ("{\"a\":{}\n}", Some(Framing::Document)),
            ("{\"a\":\"\\\"{\"}\n", Some(Framing::Lines)),
            ("[1]", Some(Framing::Document)),
            ("<html>", Some(Framing::Document)),
        ] {
            assert_eq!(sniff(start.as_bytes()), want, "{start:?}");
        }
        assert_eq!(sniff(b"\xEF\xBB"), None);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_the_answer(
            body in prop::collection::vec(
                prop::sample::select(b"{}[]\"\\\n\r:datevnrtyi \xEF\xBB\xBF".to_vec()),
                0..40,
            ),
            cut: prop::sample::Index,
        ) {
            let cut = cut.index(body.len() + 1);
            if let Some(early) = sniff(&body[..cut]) {
                prop_assert_eq!(sniff(&body), Some(early));
            }
        }
    }
}
