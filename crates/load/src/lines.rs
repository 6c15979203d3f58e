//! The exchanges of one load thread over HTTP/1.1: choose a connection, send, read, end.
//!
//! **Invariants:** every exchange that is begun ends in exactly one record, whatever happens. A request
//! is sent a second time in one case only: on a connection that had carried requests before, when it
//! turns out at once that the server had closed it. That is the race that HTTP keep-alive has built in
//! (RFC 9112, 9.3.1), and some servers close after every answer without saying so. It is done once, on
//! a fresh connection, with `scheduled_at` kept; the record says that it was resent, and from then on
//! no connection to that server is kept. A server that takes longer to hang up has read the request,
//! and a failure on a fresh connection is final.

use crate::exchange::{
    Exchange, GRACE_AFTER_DONE, HANDSHAKES_AT_MOST, Outcomes, REQUEST_ID, Setup, Stamps,
};
use crate::http::line::{Flow, Line, Stage};
use crate::http::target::Address;
use crate::http::wire::Reader;
use crate::reactor::Ready;
use crate::stream::End;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};
use mio::{Registry, Token};
use scalebeam_model::driver::CancelReason;
use scalebeam_model::units::Nanos;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::Write;
use std::sync::Arc;

/// A server that hangs up later than this after the request was sent may have been at work on it.
const ROUND_TRIP_AT_MOST: Nanos = Nanos::from_millis(50);

/// One target, as one thread sees it.
#[derive(Debug)]
struct Side {
    /// The head of every request, up to the request's own id.
    head: Vec<u8>,
    /// TCP handshakes under way.
    handshakes: usize,
    /// Slots that wait for their turn to connect, with the request that they wait for.
    queue: VecDeque<(usize, u64)>,
    /// Connections that wait for a request. The one used last is taken first, so that a falling load
    /// leaves the others to grow old and be closed by the server.
    idle: Vec<usize>,
    /// The server was seen to close a connection that it had not said it would.
    closes_unasked: bool,
}

#[derive(Debug)]
struct Slot {
    line: Line,
    exchange: Option<Box<Exchange>>,
}

/// The connections of one thread, and what they carry.
pub(crate) struct Lines<'a> {
    setup: &'a Setup,
    registry: Registry,
    reader: Reader,
    sides: Vec<Side>,
    slots: Slab<Slot>,
    /// By request index, which slot carries it.
    carried_by: HashMap<u64, usize>,
    /// Slots whose sockets were not read to the end, with the request that they carry.
    unfinished: VecDeque<(usize, u64)>,
    /// Answers that said `[DONE]` and whose body is still open, by the instant at which that ends.
    done: VecDeque<(Nanos, u64)>,
    outcomes: Outcomes,
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Lines");
        out.field("open", &self.slots.len()).field("carried", &self.carried_by.len());
        out.finish_non_exhaustive()
    }
}

impl<'a> Lines<'a> {
    pub(crate) fn new(setup: &'a Setup, registry: Registry, outcomes: Outcomes) -> Self {
        let sides = setup.addresses.iter().map(|address| Side {
            head: head_of(address, &address.with_host(&setup.headers), &setup.id_prefix),
            handshakes: 0,
            queue: VecDeque::new(),
            idle: Vec::new(),
            closes_unasked: false,
        });
        Self {
            reader: Reader::new(Arc::clone(&setup.clock)),
            sides: sides.collect(),
            setup,
            registry,
            slots: Slab::new(),
            carried_by: HashMap::new(),
            unfinished: VecDeque::new(),
            done: VecDeque::new(),
            outcomes,
        }
    }

    pub(crate) fn outcomes(&mut self) -> &mut Outcomes {
        &mut self.outcomes
    }

    /// When [`Lines::expire`] has something to do, at the earliest.
    pub(crate) fn wake_at(&self) -> Option<Nanos> {
        self.done.front().map(|(at, _)| *at)
    }

    /// To be called once after each wait, before sockets are read.
    pub(crate) fn awake(&mut self) {
        self.reader.receiver.align();
    }

    fn now(&self) -> Nanos {
        self.setup.clock.now()
    }

    /// Sends a request, at once where a connection waits for one.
    pub(crate) fn send(&mut self, exchange: Box<Exchange>) {
        let (index, target) = (exchange.index(), exchange.target);
        match self.take_idle(target) {
            Some(key) => {
                self.slots[key].exchange = Some(exchange);
                self.carried_by.insert(index, key);
                self.begin(key);
                if self.slots[key].line.is_write_failed() {
                    self.read(key, true);
                }
            }
            None => self.open(exchange, index),
        }
    }

    fn take_idle(&mut self, target: usize) -> Option<usize> {
        while let Some(key) = self.sides[target].idle.pop() {
            if self.slots[key].line.is_reusable(&mut self.reader) {
                return Some(key);
            }
            self.slots.remove(key);
        }
        None
    }

    /// Gives the exchange a connection of its own, as soon as it is its turn.
    fn open(&mut self, exchange: Box<Exchange>, index: u64) {
        let target = exchange.target;
        let key = self.slots.insert(Slot { line: Line::new(), exchange: Some(exchange) });
        self.carried_by.insert(index, key);
        self.sides[target].queue.push_back((key, index));
        self.connect_waiting(target);
    }

    fn connect_waiting(&mut self, target: usize) {
        while self.sides[target].handshakes < HANDSHAKES_AT_MOST
            && let Some((key, index)) = self.sides[target].queue.pop_front()
        {
            // Given up while it waited: the slot is gone, or is another's by now.
            if self.carried_by.get(&index) == Some(&key) {
                self.sides[target].handshakes += 1;
                let now = self.now();
                if let Some(exchange) = &mut self.slots[key].exchange {
                    exchange.opening_since = Some(now);
                }
                self.connect(key);
            }
        }
    }

    /// Begins a TCP handshake, which may be over at once.
    fn connect(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Some(exchange) = &slot.exchange else { return };
        let target = exchange.target;
        let address = &self.setup.addresses[target];
        if let Err(end) =
            slot.line.connect(address, &self.setup.sources, &self.registry, Token(key))
        {
            self.sides[target].handshakes -= 1;
            self.fail(key, end);
        }
    }

    /// Does what a socket is ready for; says what time it is by then, as far as that is known.
    pub(crate) fn handle(&mut self, ready: Ready) -> Nanos {
        self.look(ready);
        self.reader.receiver.last_read()
    }

    fn look(&mut self, ready: Ready) {
        let key = ready.token;
        // A socket that was closed after the wait had found it ready.
        let Some(slot) = self.slots.get_mut(key) else { return };
        match slot.line.stage() {
            Stage::Waiting => {}
            Stage::Connecting => self.connecting(key, ready.closing),
            Stage::Securing => self.securing(key, ready.closing),
            Stage::Open if slot.exchange.is_none() => self.disturbed(key),
            Stage::Open => {
                if ready.writable {
                    slot.line.write(self.setup.clock.as_ref());
                }
                self.read(key, ready.closing);
            }
        }
    }

    fn connecting(&mut self, key: usize, is_closing: bool) {
        let slot = &mut self.slots[key];
        let Some(exchange) = &slot.exchange else { return };
        let target = exchange.target;
        let address = &self.setup.addresses[target];
        match slot.line.is_connected() {
            Ok(false) => return,
            Ok(true) => {
                self.sides[target].handshakes -= 1;
                match slot.line.secure(address, self.setup.tls.as_ref()) {
                    Ok(()) => self.securing(key, is_closing),
                    Err(end) => self.fail(key, end),
                }
            }
            Err(_) if slot.line.has_address_left(address) => self.connect(key),
            Err(why) => {
                self.sides[target].handshakes -= 1;
                self.fail(key, End::Connect(why));
            }
        }
        self.connect_waiting(target);
    }

    fn securing(&mut self, key: usize, is_closing: bool) {
        match self.slots[key].line.handshake(&mut self.reader) {
            Ok(true) => {
                let now = self.now();
                if let Some(exchange) = &mut self.slots[key].exchange {
                    let since = exchange.opening_since.unwrap_or(now);
                    exchange.answer.record_mut().connect = Some(now.since(since));
                }
                self.begin(key);
                // A server that speaks first has used up the wake that its bytes gave.
                self.read(key, is_closing);
            }
            Ok(false) => {}
            Err(end) => self.fail(key, end),
        }
    }

    /// Writes the request of `key`'s exchange on its connection, which is open.
    fn begin(&mut self, key: usize) {
        let Slot { line, exchange } = &mut self.slots[key];
        let Some(exchange) = exchange else { return };
        let index = exchange.index();
        let head = &self.sides[exchange.target].head;
        let write_head = |out: &mut Vec<u8>| {
            out.extend_from_slice(head);
            // Writing into memory cannot fail.
            let _ = write!(out, "{index}\r\ncontent-length: {}\r\n\r\n", exchange.json.len());
        };
        line.begin(write_head, exchange.json.clone());
        line.write(self.setup.clock.as_ref());
    }

    fn read(&mut self, key: usize, is_closing: bool) {
        let Slot { line, exchange } = &mut self.slots[key];
        let Some(exchange) = exchange else { return };
        let (was_done, had_token) = (exchange.answer.is_done(), exchange.answer.has_token());
        let flow = line.read(&mut self.reader, is_closing, &mut exchange.answer);
        if !had_token {
            self.outcomes.note_first_token(&mut exchange.answer);
        }
        match flow.clone() {
            Flow::Ended(end, at) => self.end(key, end, at),
            Flow::Blocked | Flow::Unfinished => {
                let index = exchange.index();
                if exchange.answer.is_done() && !was_done {
                    self.done.push_back((self.setup.clock.now() + GRACE_AFTER_DONE, index));
                }
                if flow == Flow::Unfinished {
                    self.unfinished.push_back((key, index));
                }
            }
        }
    }

    /// Whether sockets are left that have more, and that the kernel will not name again.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Goes on with one socket that was left unfinished.
    pub(crate) fn go_on(&mut self) {
        if let Some((key, index)) = self.unfinished.pop_front()
            && self.carried_by.get(&index) == Some(&key)
        {
            self.read(key, true);
        }
    }

    /// Something came on a connection that waits for a request.
    fn disturbed(&mut self, key: usize) {
        if !self.slots[key].line.is_reusable(&mut self.reader) {
            for side in &mut self.sides {
                side.idle.retain(|k| *k != key);
            }
            self.slots.remove(key);
        }
    }

    /// The exchange on `key` failed before its request was sent.
    fn fail(&mut self, key: usize, end: End) {
        let now = self.now();
        self.end(key, end, now);
    }

    /// The exchange on `key` ended, or is to be sent again.
    fn end(&mut self, key: usize, end: End, at: Nanos) {
        let slot = &mut self.slots[key];
        let Some(exchange) = slot.exchange.take() else { return };
        let (sent, first_byte) = (slot.line.sent(), slot.line.first_byte());
        let is_kept = exchange.opening_since.is_none();
        let was_cut = matches!(end, End::Cut(_) | End::Reset(_));
        let was_closed_before = sent.is_none_or(|sent| self.now().since(sent) < ROUND_TRIP_AT_MOST);
        if is_kept && was_cut && first_byte.is_none() && was_closed_before {
            self.slots.remove(key);
            self.resend(exchange);
            return;
        }
        let (index, target) = (exchange.index(), exchange.target);
        let keeps = end == End::Whole && !self.sides[target].closes_unasked;
        if keeps && self.slots[key].line.is_reusable(&mut self.reader) {
            self.sides[target].idle.push(key);
        } else {
            self.slots.remove(key);
        }
        self.carried_by.remove(&index);
        let label = &self.setup.addresses[target].label;
        self.outcomes.push(exchange.finish(Stamps { sent, first_byte }, end, at, label));
    }

    fn resend(&mut self, mut exchange: Box<Exchange>) {
        exchange.answer.record_mut().resent = true;
        self.outcomes.resent += 1;
        let side = &mut self.sides[exchange.target];
        side.closes_unasked = true;
        for key in side.idle.drain(..) {
            self.slots.remove(key);
        }
        let index = exchange.index();
        self.open(exchange, index);
    }

    /// Gives up request `index`.
    pub(crate) fn cancel(&mut self, index: u64, why: CancelReason) {
        let Some(&key) = self.carried_by.get(&index) else { return };
        let slot = &self.slots[key];
        let connecting = slot.exchange.as_ref().filter(|_| slot.line.stage() == Stage::Connecting);
        let target = connecting.map(|exchange| exchange.target);
        self.fail(key, End::Cancelled(why));
        if let Some(target) = target {
            self.sides[target].handshakes -= 1;
            self.connect_waiting(target);
        }
    }

    /// Ends exchanges whose body a server keeps open after `[DONE]`.
    pub(crate) fn expire(&mut self, now: Nanos) {
        while let Some(&(at, index)) = self.done.front() {
            let open = self.carried_by.get(&index).copied();
            if open.is_some() && at > now {
                return;
            }
            self.done.pop_front();
            if let Some(key) = open {
                self.end(key, End::Cut("the body was left open after [DONE]".to_owned()), now);
            }
        }
    }
}

/// The head of a request to `address`, up to the value of its id.
fn head_of(address: &Address, headers: &HeaderMap, id_prefix: &str) -> Vec<u8> {
    let mut head = format!("POST {} HTTP/1.1\r\n", address.path).into_bytes();
    let is_ours = |name: &HeaderName| {
        *name == REQUEST_ID || *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING
    };
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(format!("{REQUEST_ID}: {id_prefix}-").as_bytes());
    head
}
