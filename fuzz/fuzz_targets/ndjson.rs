//! However a body of lines is cut into reads, the same lines come out of it, and the framing that its
//! first bytes show does not change with what follows.
//!
//! The first byte says how long the parts are, the second how low the size limit is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_load::ndjson::Splitter;
use scalebeam_load::sse::EVENT_LIMIT;
use scalebeam_model::framing::sniff;

fn split<'a>(parts: impl Iterator<Item = &'a [u8]>, limit: usize) -> Option<Vec<Vec<u8>>> {
    let mut splitter = Splitter::with_limit(limit);
    let mut lines = Vec::new();
    for part in parts {
        splitter.feed(part, |line| lines.push(line.to_vec())).ok()?;
    }
    splitter.finish(|line| lines.push(line.to_vec()));
    Some(lines)
}

fuzz_target!(|input: &[u8]| {
    let [size, limit, bytes @ ..] = input else { return };
    let limit = if *limit == 0 { EVENT_LIMIT } else { usize::from(*limit) };
    let size = usize::from(*size).max(1);
    let whole = split(std::iter::once(bytes), limit);
    assert_eq!(split(bytes.chunks(size), limit), whole);
    assert_eq!(split(bytes.chunks(1), limit), whole);
    if let Some(early) = sniff(&bytes[..bytes.len().min(size)]) {
        assert_eq!(sniff(bytes), Some(early));
    }
});
