//! However a stream is cut into reads, the same events come out of it.
//!
//! The first byte says how long the parts are, the second how low the size limit is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_load::sse::{EVENT_LIMIT, Parser, SseError};

type Parsed = (Vec<(Vec<u8>, Vec<u8>)>, Option<SseError>);

fn parse<'a>(parts: impl Iterator<Item = &'a [u8]>, limit: usize) -> Parsed {
    let mut parser = Parser::with_limit(limit);
    let mut events = Vec::new();
    for part in parts {
        if let Err(e) = parser.feed(part, |e| events.push((e.name.to_vec(), e.data.to_vec()))) {
            return (events, Some(e));
        }
    }
    let end = parser.finish(|e| events.push((e.name.to_vec(), e.data.to_vec()))).err();
    (events, end)
}

fuzz_target!(|input: &[u8]| {
    let [size, limit, bytes @ ..] = input else { return };
    let limit = if *limit == 0 { EVENT_LIMIT } else { usize::from(*limit) };
    let whole = parse(std::iter::once(bytes), limit);
    let size = usize::from(*size).max(1);
    assert_eq!(parse(bytes.chunks(size), limit), whole);
    assert_eq!(parse(bytes.chunks(1), limit), whole);
});
