//! The raw reader: the least that a client can do. It sends, reads to the end of each stream, stamps
//! every read in user space, and parses nothing.
//!
//! What it costs and how late its stamps are is the limit of this machine; the load client is held
//! against it. It keeps one fixed request and looks for the five last bytes of an answer, no more.

use super::alarm::Alarm;
use super::trace::{MarkLog, Trace};
use super::usage;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RawSpec {
    /// Where to.
    pub(crate) at: SocketAddr,
    /// Connections: all are busy in a closed loop; an open loop begins with so many and opens more.
    pub(crate) streams: u32,
    /// Requests in all.
    pub(crate) requests: u64,
    /// Between due times of an open loop; a closed loop has none.
    pub(crate) every: Option<Nanos>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct ReadAll {
    /// The encoded traces; amounts are bytes.
    pub(crate) log: Vec<u8>,
    /// CPU time of the process from just before the first request to the last byte.
    pub(crate) cpu: Nanos,
    /// The same span on the clock.
    pub(crate) wall: Nanos,
}

const ALARM: Token = Token(usize::MAX);
/// Nothing for so long is the end.
const PATIENCE: Duration = Duration::from_secs(20);
/// In an open loop it does not sleep this close before a due time.
const SPIN: Nanos = Nanos::from_millis(1);
const BUFFER: usize = 64 * 1024;
const EVENTS_A_POLL: usize = 1024;
/// The terminal chunk of HTTP/1.1.
const END: &[u8; 5] = b"0\r\n\r\n";

struct Conn {
    tcp: TcpStream,
    /// Its request, while there is one.
    current: Option<Current>,
    marks: MarkLog,
    tail: [u8; 5],
}

#[derive(Debug, Clone, Copy)]
struct Current {
    index: u64,
    due: Option<Nanos>,
    sent_at: Nanos,
}

struct Reader<'a> {
    spec: &'a RawSpec,
    clock: &'a dyn Clock,
    poll: Poll,
    conns: Vec<Conn>,
    idle: Vec<usize>,
    request: Request,
    buffer: Vec<u8>,
    sent: u64,
    ended: u64,
    out: ReadAll,
}

/// Sends and reads everything.
pub(crate) fn read_all(spec: &RawSpec, clock: &dyn Clock) -> io::Result<ReadAll> {
    let poll = Poll::new()?;
    let alarm = Alarm::new(&poll, ALARM)?;
    let mut reader = Reader {
        spec,
        clock,
        poll,
        conns: Vec::new(),
        idle: Vec::new(),
        request: Request::new(),
        buffer: vec![0; BUFFER],
        sent: 0,
        ended: 0,
        out: ReadAll::default(),
    };
    for _ in 0..u64::from(spec.streams).min(spec.requests) {
        reader.connect()?;
    }
    let (began, cpu) = (clock.now(), usage::cpu());
    reader.run(began, alarm)?;
    let mut out = reader.out;
    (out.cpu, out.wall) = (usage::cpu().since(cpu), clock.now().since(began));
    Ok(out)
}

impl Reader<'_> {
    fn connect(&mut self) -> io::Result<()> {
        let tcp = std::net::TcpStream::connect(self.spec.at)?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let mut tcp = TcpStream::from_std(tcp);
        let slot = self.conns.len();
        self.poll.registry().register(&mut tcp, Token(slot), Interest::READABLE)?;
        self.conns.push(Conn { tcp, current: None, marks: MarkLog::default(), tail: [0; 5] });
        self.idle.push(slot);
        Ok(())
    }

    fn run(&mut self, began: Nanos, mut alarm: Alarm) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_A_POLL);
        while self.ended < self.spec.requests {
            let next = self.send_due(began)?;
            let now = self.clock.now();
            let wait = match next {
                None => Some(PATIENCE),
                Some(at) if at.since(now) <= SPIN => Some(Duration::ZERO),
                Some(at) => alarm.until(Some(Nanos(at.0 - SPIN.0)), now)?,
            };
            match self.poll.poll(&mut events, wait) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            if events.is_empty() && wait == Some(PATIENCE) {
                break;
            }
            for event in &events {
                if event.token() != ALARM {
                    self.read(event.token().0)?;
                }
            }
        }
        self.give_up_rest();
        Ok(())
    }

    /// Sends what is due and says when the next one is.
    fn send_due(&mut self, began: Nanos) -> io::Result<Option<Nanos>> {
        while self.sent < self.spec.requests {
            let due = self.spec.every.map(|every| began + Nanos(every.0.saturating_mul(self.sent)));
            if let Some(due) = due.filter(|due| *due > self.clock.now()) {
                return Ok(Some(due));
            }
            let Some(slot) = self.idle.pop() else {
                if due.is_none() {
                    break;
                }
                self.connect()?;
                continue;
            };
            self.send(slot, due)?;
        }
        Ok(None)
    }

    fn send(&mut self, slot: usize, due: Option<Nanos>) -> io::Result<()> {
        let bytes = self.request.numbered(self.sent);
        let conn = &mut self.conns[slot];
        let sent_at = self.clock.now();
        // A request is shorter than an empty send buffer, so it is taken whole or not at all.
        conn.tcp.write_all(bytes)?;
        conn.current = Some(Current { index: self.sent, due, sent_at });
        self.sent += 1;
        Ok(())
    }

    fn read(&mut self, slot: usize) -> io::Result<()> {
        loop {
            let conn = &mut self.conns[slot];
            let n = match conn.tcp.read(&mut self.buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let at = self.clock.now();
            if n == 0 {
                self.end(slot, at, false);
                return Ok(());
            }
            conn.marks.mark(at, u32::try_from(n).unwrap_or(u32::MAX));
            if ends_here(&mut conn.tail, &self.buffer[..n]) {
                self.end(slot, at, true);
                self.idle.push(slot);
                if self.spec.every.is_none() && self.sent < self.spec.requests {
                    self.send_due(at)?;
                }
            }
            // The poll tells of edges; a read that did not fill the buffer has emptied the socket.
            if n < self.buffer.len() {
                return Ok(());
            }
        }
    }

    fn end(&mut self, slot: usize, at: Nanos, is_whole: bool) {
        let conn = &mut self.conns[slot];
        let Some(current) = conn.current.take() else { return };
        let head = Trace {
            index: current.index,
            scheduled_at: current.due,
            sent_at: Some(current.sent_at),
            ended_at: at,
            is_whole,
            marks: Vec::new(),
        };
        conn.marks.finish(&head, &mut self.out.log);
        conn.tail = [0; 5];
        self.ended += 1;
    }

    fn give_up_rest(&mut self) {
        let now = self.clock.now();
        for slot in 0..self.conns.len() {
            self.end(slot, now, false);
        }
    }
}

/// Whether an answer ends with these bytes; `tail` holds the last ones of the reads before.
fn ends_here(tail: &mut [u8; 5], bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<5>() {
        *tail = *last;
    } else {
        tail.rotate_left(bytes.len());
        let kept = tail.len() - bytes.len();
        tail[kept..].copy_from_slice(bytes);
    }
    tail == END
}

/// A request, rendered but for its number.
struct Request {
    bytes: Vec<u8>,
    number_at: usize,
}

/// Digits of a request's number.
const DIGITS: usize = 8;

impl Request {
    /// About as long as the load client's.
    fn new() -> Self {
        let prompt = super::prompt();
        let body = format!(
            "{{\"model\":\"selftest\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}],\"stream\":true}}"
        );
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n\
            content-type: application/json\r\naccept: text/event-stream\r\nx-request-id: raw-";
        let rest = format!("\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let bytes = [head, &"0".repeat(DIGITS), &rest].concat().into_bytes();
        Self { bytes, number_at: head.len() }
    }

    fn numbered(&mut self, mut number: u64) -> &[u8] {
        for digit in self.bytes[self.number_at..][..DIGITS].iter_mut().rev() {
            *digit =
                b'0' + number.to_le_bytes()[0].wrapping_sub((number / 10 * 10).to_le_bytes()[0]);
            number /= 10;
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_numbered() {
        let mut request = Request::new();
        for n in [0, 7, 10, 255, 256, 12_345_678] {
            let text = String::from_utf8(request.numbered(n).to_vec()).unwrap();
            assert!(text.contains(&format!("x-request-id: raw-{n:08}\r\n")), "{text}");
        }
    }

    proptest! {
        /// However the bytes are cut, the end is seen with the last of them and not before.
        #[test]
        fn the_end_is_seen_once(cuts in prop::collection::vec(1_usize..9, 1..40)) {
            let stream = b"HTTP/1.1 200 OK\r\n\r\n9\r\ndata: 0\n\n\r\n0\r\n\r\n";
            let (mut tail, mut rest) = ([0; 5], &stream[..]);
            for cut in cuts.iter().cycle() {
                let (bytes, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                prop_assert_eq!(ends_here(&mut tail, bytes), rest.is_empty());
                if rest.is_empty() { break; }
            }
        }
    }
}
