//! One HTTP/1.1 connection: opened, written to, read from.
//!
//! **Invariants:** nothing is retried and nothing is redirected here; a request counts as sent at the
//! instant at which its last byte was handed to the kernel.

use crate::http::body::{BadFraming, Body, Progress};
use crate::http::head::{self, Parsed};
use crate::http::receive::Stamp;
use crate::http::source::Sources;
use crate::http::target::Address;
use crate::http::wire::{Fed, Reader, Reading, Wire};
use crate::stream::{Answer, End, format_of};
use bytes::Bytes;
use mio::{Registry, Token};
use rustls::ClientConfig;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Interim answers (1xx) that a server may send before the real one.
const INTERIM_AT_MOST: usize = 16;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun.
    Waiting,
    /// The TCP handshake is under way.
    Connecting,
    /// The TLS handshake is under way.
    Securing,
    /// Requests can be sent.
    Open,
}

/// What came of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Nothing more is there.
    Blocked,
    /// More may be there: nobody will say so again, and it is others' turn first.
    Unfinished,
    /// The exchange ended, at this instant.
    Ended(End, Nanos),
}

/// A connection to one target.
#[derive(Debug)]
pub(crate) struct Line {
    stage: Stage,
    wire: Wire,
    outbox: Outbox,
    reply: Reply,
    sent: Option<Nanos>,
    /// Why the request could not be written; the answer may say more.
    write_failed: Option<String>,
}

/// The answer on its way in.
#[derive(Debug)]
struct Reply {
    /// The part of its head that came so far.
    head: Vec<u8>,
    interim: usize,
    body: Option<Body>,
    keep_alive: bool,
    first_byte: Option<Nanos>,
}

/// A request on its way into the kernel.
#[derive(Debug, Default)]
struct Outbox {
    head: Vec<u8>,
    body: Bytes,
    written: usize,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.written >= self.head.len() + self.body.len()
    }

    /// What is left to write.
    fn rest(&self) -> [IoSlice<'_>; 2] {
        let head = self.head.get(self.written..).unwrap_or_default();
        let body = self.body.get(self.written.saturating_sub(self.head.len())..);
        [IoSlice::new(head), IoSlice::new(body.unwrap_or_default())]
    }
}

impl Line {
    /// A connection of which nothing has begun.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Waiting,
            wire: Wire::default(),
            outbox: Outbox::default(),
            reply: Reply {
                head: Vec::new(),
                interim: 0,
                body: None,
                keep_alive: true,
                first_byte: None,
            },
            sent: None,
            write_failed: None,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// When the first byte of the answer was there.
    pub(crate) fn first_byte(&self) -> Option<Nanos> {
        self.reply.first_byte
    }

    /// When the last byte of the request was handed to the kernel.
    pub(crate) fn sent(&self) -> Option<Nanos> {
        self.sent
    }

    /// Whether the kernel refused to take the request.
    pub(crate) fn is_write_failed(&self) -> bool {
        self.write_failed.is_some()
    }

    /// Begins to connect to the next of the target's addresses.
    ///
    /// # Errors
    /// When none is left: why the last one failed.
    pub(crate) fn connect(
        &mut self,
        address: &Address,
        sources: &Sources,
        registry: &Registry,
        token: Token,
    ) -> Result<(), End> {
        self.wire.connect(address, sources, registry, token)?;
        self.stage = Stage::Connecting;
        Ok(())
    }

    /// Looks whether the TCP handshake is over.
    ///
    /// # Errors
    /// When it failed; another address may be left.
    pub(crate) fn is_connected(&self) -> Result<bool, String> {
        self.wire.is_connected()
    }

    pub(crate) fn has_address_left(&self, address: &Address) -> bool {
        self.wire.has_address_left(address)
    }

    /// The TCP handshake is over; TLS begins where it is asked for.
    ///
    /// # Errors
    /// When there can be no TLS session.
    pub(crate) fn secure(
        &mut self,
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<(), End> {
        let is_secured = self.wire.secure(address, tls)?;
        self.stage = if is_secured { Stage::Securing } else { Stage::Open };
        Ok(())
    }

    /// Goes on with the TLS handshake; says whether it is over.
    ///
    /// # Errors
    /// Why there is no TLS session.
    pub(crate) fn handshake(&mut self, reader: &mut Reader) -> Result<bool, End> {
        let is_over = self.wire.handshake(reader)?;
        if is_over {
            self.stage = Stage::Open;
        }
        Ok(is_over)
    }

    /// Takes a request: what `write_head` writes, then `body`. The exchange before it is forgotten.
    pub(crate) fn begin(&mut self, write_head: impl FnOnce(&mut Vec<u8>), body: Bytes) {
        self.outbox.head.clear();
        write_head(&mut self.outbox.head);
        self.outbox.body = body;
        self.outbox.written = 0;
        self.reply.begin();
        self.sent = None;
        self.write_failed = None;
    }

    /// Writes as much of the request as the kernel takes. A failure shows when the answer is read.
    pub(crate) fn write(&mut self, clock: &dyn Clock) {
        while self.sent.is_none() && self.write_failed.is_none() {
            match self.wire.write(self.outbox.rest(), clock) {
                Ok((taken, sent)) => {
                    self.outbox.written += taken;
                    self.sent = sent.filter(|_| self.outbox.is_empty());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.write_failed = Some(e.to_string()),
            }
        }
    }

    /// Reads what is there. `is_closing` says that the end of the connection is known to be near, so
    /// that reading goes on to it.
    pub(crate) fn read(
        &mut self,
        reader: &mut Reader,
        is_closing: bool,
        answer: &mut Answer,
    ) -> Flow {
        let reply = &mut self.reply;
        let take = |bytes: &[u8], stamp| reply.feed(bytes, stamp, answer);
        match self.wire.read(reader, is_closing, take) {
            Reading::Blocked => self.stuck(reader),
            Reading::Unfinished => Flow::Unfinished,
            Reading::Ended(stamp) => Flow::Ended(End::Whole, stamp.at),
            Reading::Closed(stamp) => self.closed(stamp),
            Reading::Failed(end, at) => Flow::Ended(end, at),
            Reading::Broken(e, at) => {
                let why = self.write_failed.take().unwrap_or_else(|| e.to_string());
                Flow::Ended(End::Reset(why), at)
            }
        }
    }

    /// Nothing more can be read now, which is the end where nothing more could be written either.
    fn stuck(&mut self, reader: &Reader) -> Flow {
        match self.write_failed.take() {
            None => Flow::Blocked,
            Some(why) => Flow::Ended(End::Reset(why), reader.receiver.now()),
        }
    }

    fn closed(&mut self, stamp: Stamp) -> Flow {
        self.reply.keep_alive = false;
        let end = match &self.reply.body {
            Some(Body::UntilClose) => End::Whole,
            Some(_) => End::Cut("the server closed the connection within the answer".to_owned()),
            None => match self.write_failed.take() {
                Some(why) => End::Reset(why),
                None => End::Cut("the server closed the connection".to_owned()),
            },
        };
        Flow::Ended(end, stamp.read_at)
    }

    /// Whether another request may be sent: the last one was written whole, its answer ended, and the
    /// server neither said that it would close nor, as far as the kernel knows, has.
    pub(crate) fn is_reusable(&mut self, reader: &mut Reader) -> bool {
        // A server that answered before it had read the request would take the next one for its rest.
        let is_written = self.sent.is_some() && self.write_failed.is_none();
        let is_open = self.stage == Stage::Open && self.reply.keep_alive;
        is_open && is_written && self.wire.is_quiet(reader)
    }
}

impl Reply {
    fn begin(&mut self) {
        self.head.clear();
        self.interim = 0;
        self.body = None;
        self.first_byte = None;
    }

    /// Takes in bytes of the answer.
    fn feed(&mut self, bytes: &[u8], stamp: Stamp, answer: &mut Answer) -> Result<Fed, End> {
        self.first_byte = self.first_byte.or(Some(stamp.at));
        let mut rest = bytes;
        if self.body.is_none() {
            let Some(left) = self.take_head(bytes, answer)? else { return Ok(Fed::More) };
            rest = &bytes[bytes.len() - left..];
        }
        let Some(body) = &mut self.body else { return Ok(Fed::More) };
        if body.is_empty() {
            self.keep_alive &= rest.is_empty();
            return Ok(Fed::Ended);
        }
        match body.feed(rest, |data| answer.take(data, stamp))? {
            Progress::More => Ok(Fed::More),
            Progress::Ended(used) => {
                // What nobody asked for would be taken for the next answer.
                self.keep_alive &= used == rest.len();
                Ok(Fed::Ended)
            }
        }
    }

    /// Looks for the end of the head in `bytes`; says how many of them follow it.
    fn take_head(&mut self, bytes: &[u8], answer: &mut Answer) -> Result<Option<usize>, End> {
        self.head.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match head::parse(&self.head[at..]).map_err(End::Malformed)? {
                Parsed::Partial => {
                    self.head.drain(..at);
                    return Ok(None);
                }
                Parsed::Interim(len) => {
                    at += len;
                    self.interim += 1;
                    if self.interim > INTERIM_AT_MOST {
                        let why = format!("more than {INTERIM_AT_MOST} interim answers (1xx)");
                        return Err(End::Malformed(why));
                    }
                }
                Parsed::Whole(head, len) => {
                    answer.begin(format_of(
                        head.status,
                        head.content_type.as_deref(),
                        answer.is_streamed(),
                    )?);
                    self.keep_alive = head.keep_alive;
                    self.body = Some(Body::new(head.framing));
                    let left = self.head.len() - at - len;
                    self.head.clear();
                    return Ok(Some(left));
                }
            }
        }
    }
}

impl From<BadFraming> for End {
    fn from(e: BadFraming) -> Self {
        Self::Malformed(e.to_string())
    }
}
