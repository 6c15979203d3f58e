//! What one side of the wire knows about one request, and how it travels between processes.
//!
//! **Invariants:** instants are exact (whole nanoseconds of `CLOCK_MONOTONIC`); a mark costs a few bytes
//! and no allocation of its own, so that a reader's memory and time are not the log's; bytes that are not
//! a log are an error.

use scalebeam_model::request::RequestRecord;
use scalebeam_model::units::Nanos;

/// Something happened at an instant, to so many bytes or tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// When.
    pub(crate) at: Nanos,
    /// Tokens (server, client) or bytes (raw reader).
    pub(crate) amount: u32,
}

/// One request, seen by the server, by the raw reader or by the load client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Which request: both sides agree on it through `x-request-id`.
    pub(crate) index: u64,
    /// When it was due, where there is a schedule.
    pub(crate) scheduled_at: Option<Nanos>,
    /// Client: when the kernel had taken the request. Server: when the kernel had received it.
    pub(crate) sent_at: Option<Nanos>,
    /// When the last byte was written or read.
    pub(crate) ended_at: Nanos,
    /// The answer is whole.
    pub(crate) is_whole: bool,
    /// Writes or reads, in order.
    pub(crate) marks: Vec<Mark>,
}

const WHOLE: u64 = 1;
const SCHEDULED: u64 = 2;
const SENT: u64 = 4;

/// Marks of a request that is under way, encoded as they come.
#[derive(Debug, Default)]
pub(crate) struct MarkLog {
    bytes: Vec<u8>,
    count: u64,
    last: u64,
}

impl MarkLog {
    /// Adds one. Instants must not decrease; one that does is kept as equal to the one before.
    pub(crate) fn mark(&mut self, at: Nanos, amount: u32) {
        put(&mut self.bytes, at.0.saturating_sub(self.last));
        put(&mut self.bytes, u64::from(amount));
        self.last = self.last.max(at.0);
        self.count += 1;
    }

    /// Writes the request out and begins anew. Of `head`, everything but the marks is taken.
    pub(crate) fn finish(&mut self, head: &Trace, out: &mut Vec<u8>) {
        let flags = u64::from(head.is_whole) * WHOLE
            + u64::from(head.scheduled_at.is_some()) * SCHEDULED
            + u64::from(head.sent_at.is_some()) * SENT;
        put(out, head.index);
        put(out, flags);
        for at in [head.scheduled_at, head.sent_at, Some(head.ended_at)].into_iter().flatten() {
            put(out, at.0);
        }
        put(out, self.count);
        out.extend_from_slice(&self.bytes);
        self.bytes.clear();
        (self.count, self.last) = (0, 0);
    }
}

/// A record of the load client, as a trace.
pub(crate) fn of_record(record: &RequestRecord, log: &mut MarkLog, out: &mut Vec<u8>) {
    for arrival in &record.arrivals {
        log.mark(arrival.at, arrival.chunks);
    }
    let head = Trace {
        index: record.index,
        scheduled_at: Some(record.scheduled_at),
        sent_at: record.sent_at,
        ended_at: record.finished_at,
        is_whole: record.is_completed(),
        marks: Vec::new(),
    };
    log.finish(&head, out);
}

/// Reads what [`MarkLog::finish`] wrote, to the end; `None` where it is something else.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Trace>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        out.push(decode_one(&mut bytes)?);
    }
    Some(out)
}

fn decode_one(bytes: &mut &[u8]) -> Option<Trace> {
    let index = take(bytes)?;
    let flags = take(bytes)?;
    let mut instant = |flag: u64| -> Option<Option<Nanos>> {
        if flags & flag == 0 { Some(None) } else { Some(Some(Nanos(take(bytes)?))) }
    };
    let (scheduled_at, sent_at) = (instant(SCHEDULED)?, instant(SENT)?);
    let ended_at = Nanos(take(bytes)?);
    let count = take(bytes)?;
    // A count is not believed before its marks are there.
    let mut marks = Vec::with_capacity(usize::try_from(count).ok()?.min(bytes.len()));
    let mut at = 0_u64;
    for _ in 0..count {
        at = at.checked_add(take(bytes)?)?;
        marks.push(Mark { at: Nanos(at), amount: u32::try_from(take(bytes)?).ok()? });
    }
    Some(Trace { index, scheduled_at, sent_at, ended_at, is_whole: flags & WHOLE != 0, marks })
}

/// LEB128: seven bits a byte, low ones first, the high bit says that more follow.
fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(first & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(trace: &Trace, out: &mut Vec<u8>) {
        let mut log = MarkLog::default();
        trace.marks.iter().for_each(|m| log.mark(m.at, m.amount));
        log.finish(trace, out);
    }

    fn any_trace() -> impl Strategy<Value = Trace> {
        let marks = prop::collection::vec((0..u64::MAX / 100, any::<u32>()), 0..50);
        let head = (any::<u64>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<u64>());
        (head, any::<bool>(), marks).prop_map(|((index, due, sent, end), is_whole, mut marks)| {
            marks.sort_unstable();
            let marks = marks.into_iter().map(|(at, amount)| Mark { at: Nanos(at), amount });
            Trace {
                index,
                scheduled_at: due.map(Nanos),
                sent_at: sent.map(Nanos),
                ended_at: Nanos(end),
                is_whole,
                marks: marks.collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(traces in prop::collection::vec(any_trace(), 0..10)) {
            let mut bytes = Vec::new();
            traces.iter().for_each(|t| encode(t, &mut bytes));
            prop_assert_eq!(decode(&bytes), Some(traces));
        }

        #[test]
        fn other_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_log_that_was_cut_is_no_log(trace in any_trace()) {
            let mut bytes = Vec::new();
            encode(&trace, &mut bytes);
            bytes.pop();
            prop_assert!(bytes.is_empty() || decode(&bytes).is_none());
        }
    }
}
