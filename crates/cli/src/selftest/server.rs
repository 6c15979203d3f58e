//! The truth server: streams whose every instant is known.
//!
//! One thread, one poll loop, no allocation and one system call a token. A token's due time is absolute,
//! counted from the instant at which the kernel had the request, so a late token does not make the next
//! one late.
//!
//! **Invariants:** the truth is what was done, not what was planned: a write is logged with the instant
//! just before the call that took its first byte; a request with the kernel's own receive time of its
//! last byte, so that a server that is busy does not hide its queue. Nothing is logged for bytes that
//! were not taken.

pub(crate) mod answer;
mod receive;
mod request;
pub(crate) mod wire;

use super::alarm::Alarm;
use super::trace::{Mark, MarkLog, Trace};
use answer::{Answer, Piece};
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use request::Parsed;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use wire::{Wire, pass, tls_config};

/// What is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    /// Tokens of each answer.
    pub(crate) tokens: u32,
    /// From the request's arrival to the first token.
    pub(crate) ttft: Nanos,
    /// Part of `ttft` by which it varies, evenly, to both sides: so that streams are not in lockstep.
    pub(crate) ttft_spread: f64,
    /// Between tokens; 0 is as fast as the socket takes them.
    pub(crate) itl: Nanos,
    /// Part of `itl` by which a token may be later than its place in the schedule, below 1.
    pub(crate) itl_jitter: f64,
    /// Head and role chunk are written as soon as the request is there.
    pub(crate) early_role: bool,
    /// For a while it neither accepts nor reads nor writes.
    pub(crate) stall: Option<Stall>,
    /// Everything goes through TLS.
    pub(crate) tls: bool,
    /// Of spread and jitter.
    pub(crate) seed: u64,
}

/// A pause of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// After the first request.
    pub(crate) after: Nanos,
    /// For so long.
    pub(crate) lasts: Nanos,
}

/// What a server did, until it was told to stop.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Every request, in the order of their arrival. `sent_at` is when the kernel had it.
    pub(crate) traces: Vec<Trace>,
}

/// Connections that wait to be accepted. The kernel takes at most `somaxconn` of them.
const BACKLOG: i32 = 16_384;

/// Opens a port of the loopback interface.
pub(crate) fn listen() -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    // Listening once more is how a socket gets a longer queue than the 128 of the standard library.
    rustix::net::listen(&listener, BACKLOG)?;
    receive::stamp_arrivals(&listener)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stop` can be read or is closed.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    spec: ServerSpec,
    clock: &dyn Clock,
    stop: BorrowedFd<'_>,
) -> io::Result<Served> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let stop = stop.as_raw_fd();
    poll.registry().register(&mut mio::unix::SourceFd(&stop), STOP, Interest::READABLE)?;
    let alarm = Alarm::new(&poll, ALARM)?;
    let answer = Answer::new(spec.tokens, spec.early_role);
    let state = Server {
        clock,
        answer,
        conns: Vec::new(),
        free: Vec::new(),
        due: BinaryHeap::new(),
        traces: Vec::new(),
        inbox: vec![0; INBOX],
        stall: spec.stall.map(StallState::After),
        tls: spec.tls.then(tls_config).transpose()?,
        spec,
    };
    state.run(poll, &listener, alarm)
}

const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);

const INBOX: usize = 64 * 1024;
/// Writes between two looks at the sockets, when there is always one more due.
const WRITES_A_TURN: usize = 64;
const EVENTS_A_POLL: usize = 1024;

/// One connection, with the request that is being answered on it.
#[derive(Debug)]
struct Conn {
    wire: Wire,
    /// What came of a request that is not whole yet, or came too early.
    inbox: Vec<u8>,
    /// Position of its current request in the traces.
    at: Option<usize>,
    /// What the socket did not take whole, and how much it took.
    rest: Option<(Piece, usize)>,
}

/// A token that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Nanos,
    conn: usize,
    /// Position in the traces: a connection may have gone, and another come into its place.
    request: usize,
    token: u32,
}

#[derive(Debug, Clone, Copy)]
enum StallState {
    After(Stall),
    At { begin: Nanos, lasts: Nanos },
}

struct Server<'a> {
    spec: ServerSpec,
    clock: &'a dyn Clock,
    answer: Answer,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<Due>>,
    traces: Vec<Trace>,
    inbox: Vec<u8>,
    stall: Option<StallState>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server<'_> {
    fn run(
        mut self,
        mut poll: Poll,
        listener: &TcpListener,
        mut alarm: Alarm,
    ) -> io::Result<Served> {
        let mut events = Events::with_capacity(EVENTS_A_POLL);
        loop {
            let now = self.write_due();
            self.maybe_stall(now);
            let next = self.due.peek().map(|Reverse(due)| due.at);
            let wait = alarm.until(next, self.clock.now())?;
            match poll.poll(&mut events, wait) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(self.finish()),
                    LISTENER => self.accept(listener, &poll)?,
                    ALARM => {}
                    Token(conn) => self.ready(conn, event),
                }
            }
        }
    }

    fn finish(self) -> Served {
        Served { traces: self.traces }
    }

    /// Neither accepts nor reads nor writes, once its time has come.
    fn maybe_stall(&mut self, now: Nanos) {
        match self.stall {
            Some(StallState::After(Stall { after, lasts })) => {
                let first = self.traces.first().and_then(|t| t.sent_at);
                if let Some(first) = first {
                    self.stall = Some(StallState::At { begin: first + after, lasts });
                }
            }
            Some(StallState::At { begin, lasts }) if now >= begin => {
                self.stall = None;
                std::thread::sleep(lasts.to_std());
            }
            _ => {}
        }
    }

    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut tcp = match listener.accept() {
                Ok((tcp, _)) => tcp,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                // One that was given up before it was accepted.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(e) => return Err(e),
            };
            // Refused only by a connection that is gone already; reading will tell.
            let _ = tcp.set_nodelay(true);
            let slot = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut tcp, Token(slot), interest)?;
            let wire = Wire::new(tcp, self.tls.as_ref())?;
            self.conns[slot] = Some(Conn { wire, inbox: Vec::new(), at: None, rest: None });
        }
    }

    fn ready(&mut self, slot: usize, event: &Event) {
        let is_alive =
            (!event.is_writable() || self.go_on(slot)) && (!event.is_readable() || self.read(slot));
        if !is_alive
            && let Some(conn) = self.conns.get_mut(slot)
            && conn.take().is_some()
        {
            self.free.push(slot);
        }
    }

    /// Reads what is there. False when the connection is at its end.
    fn read(&mut self, slot: usize) -> bool {
        loop {
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { return true };
            let read = conn.wire.receive(&mut self.inbox, &mut conn.inbox, self.clock);
            let (n, at) = match read {
                Ok((0, _)) => return false,
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            if !self.begin(slot, at) {
                return false;
            }
            if n < self.inbox.len() {
                return true;
            }
        }
    }

    /// Begins to answer, if a whole request is there and none is being answered. `at` is when the last
    /// byte of the inbox came. False when it is no request.
    fn begin(&mut self, slot: usize, at: Nanos) -> bool {
        let Some(conn) = self.conns[slot].as_mut().filter(|c| c.at.is_none()) else { return true };
        let index = loop {
            match request::parse(&conn.inbox) {
                Parsed::Partial => return true,
                Parsed::Bad => return false,
                Parsed::Aside { len, aside } => {
                    conn.inbox.drain(..len);
                    if !write_whole(&mut conn.wire, answer::aside(aside).as_bytes()) {
                        return false;
                    }
                }
                Parsed::Whole { len, index } => {
                    conn.inbox.drain(..len);
                    break index;
                }
            }
        };
        let request = self.traces.len();
        conn.at = Some(request);
        self.traces.push(Trace {
            index: index.unwrap_or(request as u64),
            scheduled_at: None,
            sent_at: Some(at),
            ended_at: at,
            is_whole: false,
            marks: Vec::with_capacity(self.answer.tokens as usize),
        });
        if let Some(opening) = self.answer.opening() {
            self.write(slot, opening, 0);
        }
        self.plan(slot, request, 0);
        true
    }

    fn plan(&mut self, conn: usize, request: usize, token: u32) {
        let trace = &self.traces[request];
        let at = trace.sent_at.unwrap_or(trace.ended_at) + self.spec.offset(trace.index, token);
        self.due.push(Reverse(Due { at, conn, request, token }));
    }

    /// Writes what is due, up to a limit, and returns the present instant.
    fn write_due(&mut self) -> Nanos {
        let mut now = self.clock.now();
        for _ in 0..WRITES_A_TURN {
            let Some(Reverse(due)) = self.due.peek().copied().filter(|Reverse(d)| d.at <= now)
            else {
                break;
            };
            self.due.pop();
            let conn = self.conns[due.conn].as_ref();
            let is_current = conn.is_some_and(|c| c.at == Some(due.request));
            if !is_current {
                continue;
            }
            // An opening that the socket did not take whole goes first; the token follows it.
            if conn.is_some_and(|c| c.rest.is_some()) {
                self.due.push(Reverse(Due { at: now + RETRY, ..due }));
                continue;
            }
            self.write(due.conn, Piece::Token(due.token), 0);
            now = self.clock.now();
        }
        now
    }

    /// The socket takes bytes again. False when the connection is at its end.
    fn go_on(&mut self, slot: usize) -> bool {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { return true };
        let rest = conn.rest.take();
        pass(conn.wire.flush()).is_ok()
            && rest.is_none_or(|(piece, from)| self.write(slot, piece, from))
    }

    /// Writes `piece` from its byte `from` on, and plans what comes after it. False when the connection
    /// is at its end.
    fn write(&mut self, slot: usize, piece: Piece, mut from: usize) -> bool {
        let Some(conn) = self.conns[slot].as_mut() else { return false };
        let Some(request) = conn.at else { return true };
        let bytes = self.answer.bytes(piece);
        while from < bytes.len() {
            let at = self.clock.now();
            match conn.wire.write(&bytes[from..]) {
                Ok(n) => {
                    if from == 0 && matches!(piece, Piece::Token(_)) {
                        self.traces[request].marks.push(Mark { at, amount: 1 });
                    }
                    from += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    conn.rest = Some((piece, from));
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        match piece {
            Piece::Role => {}
            Piece::Token(n) if n + 1 < self.answer.tokens => self.plan(slot, request, n + 1),
            Piece::Token(_) => return self.end(slot, request),
        }
        true
    }

    /// The answer is whole; what came meanwhile is the next request.
    fn end(&mut self, slot: usize, request: usize) -> bool {
        let now = self.clock.now();
        let trace = &mut self.traces[request];
        (trace.ended_at, trace.is_whole) = (now, true);
        let Some(conn) = self.conns[slot].as_mut() else { return false };
        conn.at = None;
        conn.inbox.is_empty() || self.begin(slot, now)
    }
}

/// Writes some bytes to a socket from which nothing else is outstanding. False where it does not take them all.
fn write_whole(wire: &mut Wire, bytes: &[u8]) -> bool {
    wire.write(bytes).is_ok_and(|n| n == bytes.len())
}

/// How soon a token is tried again that waits for an opening.
const RETRY: Nanos = Nanos::from_micros(100);

impl ServerSpec {
    /// When a token of request `index` is due, from the arrival of the request on.
    fn offset(&self, index: u64, token: u32) -> Nanos {
        let seconds = |span: Nanos, share: f64| Nanos::from_secs_f64(span.as_secs_f64() * share);
        let draw = unit(self.seed ^ hash(index));
        let first = seconds(self.ttft, 1.0 + self.ttft_spread * (2.0 * draw - 1.0));
        let place = Nanos(self.itl.0.saturating_mul(u64::from(token)));
        let draw = if self.itl_jitter > 0.0 {
            unit(hash(self.seed ^ index) ^ u64::from(token))
        } else {
            0.0
        };
        first + place + seconds(self.itl, self.itl_jitter * draw)
    }
}

/// `SplitMix64`'s mixing function: a number that looks random for each one that does not.
fn hash(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Between 0 and 1.
fn unit(x: u64) -> f64 {
    (hash(x) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Served {
    /// The whole log, for another process.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut log, mut out) = (MarkLog::default(), Vec::new());
        for trace in &self.traces {
            trace.marks.iter().for_each(|m| log.mark(m.at, m.amount));
            log.finish(trace, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests;
