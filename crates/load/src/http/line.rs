//! One connection: opened, written to, read from.
//!
//! **Invariants:** nothing blocks, nothing is retried and nothing is redirected here; what a read
//! brought is stamped before anything looks at it, below TLS and HTTP, so that a stamp holds neither
//! decryption nor parsing; a request counts as sent at the instant at which its last byte was handed
//! to the kernel.

use crate::http::body::{BadFraming, Body, Progress};
use crate::http::head::{self, Parsed};
use crate::http::receive::{Receiver, Stamp};
use crate::http::target::Address;
use crate::stream::{Answer, End, format_of};
use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

/// What one read can bring. Larger reads would only merge more arrivals.
const READ_SIZE: usize = 64 << 10;

/// What the connections of one thread read with.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) receiver: Receiver,
    buffer: Box<[u8]>,
    /// What TLS made of it.
    plain: Box<[u8]>,
}

impl Reader {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let room = || vec![0; READ_SIZE].into_boxed_slice();
        Self { receiver: Receiver::new(clock), buffer: room(), plain: room() }
    }
}

/// Reads of one connection after which others, and the clock, are looked at.
const READS_IN_A_ROW: usize = 16;

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

/// What came of the bytes of one read.
enum Fed {
    /// The answer goes on.
    More,
    /// The answer ended with them.
    Ended,
    /// The other side said that it sends no more.
    Closed,
}

/// A connection to one target.
#[derive(Debug)]
pub(crate) struct Line {
    stage: Stage,
    socket: Option<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    /// How many of the target's addresses were tried.
    tried: usize,
    outbox: Outbox,
    /// The part of an answer's head that came so far.
    head: Vec<u8>,
    interim: usize,
    body: Option<Body>,
    keep_alive: bool,
    first_byte: Option<Nanos>,
    sent: Option<Nanos>,
    /// Why the request could not be written; the answer may say more.
    write_failed: Option<String>,
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
            socket: None,
            tls: None,
            tried: 0,
            outbox: Outbox::default(),
            head: Vec::new(),
            interim: 0,
            body: None,
            keep_alive: true,
            first_byte: None,
            sent: None,
            write_failed: None,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// When the first byte of the answer was there.
    pub(crate) fn first_byte(&self) -> Option<Nanos> {
        self.first_byte
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
        registry: &Registry,
        token: Token,
    ) -> Result<(), End> {
        let sockets = address.sockets.as_ref().map_err(|e| End::Connect(e.clone()))?;
        let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
        while let Some(to) = sockets.get(self.tried) {
            self.tried += 1;
            let begun = TcpStream::connect(*to).and_then(|mut socket| {
                // Without it a request in two writes waits for an acknowledgement in between.
                socket.set_nodelay(true)?;
                Receiver::watch(&socket);
                registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.stage = Stage::Connecting;
                    return Ok(());
                }
                Err(e) => why = e,
            }
        }
        Err(End::Connect(why.to_string()))
    }

    /// Looks whether the TCP handshake is over.
    ///
    /// # Errors
    /// When it failed; another address may be left.
    pub(crate) fn is_connected(&self) -> Result<bool, String> {
        let Some(socket) = &self.socket else { return Ok(false) };
        if let Ok(Some(e)) | Err(e) = socket.take_error() {
            return Err(e.to_string());
        }
        match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Ok(false)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    pub(crate) fn has_address_left(&self, address: &Address) -> bool {
        address.sockets.as_ref().is_ok_and(|sockets| self.tried < sockets.len())
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
        let Some(config) = tls.filter(|_| address.is_tls) else {
            self.stage = Stage::Open;
            return Ok(());
        };
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|e| End::Tls(e.to_string()))?;
        let session = ClientConnection::new(Arc::clone(config), name);
        let mut session = session.map_err(|e| End::Tls(e.to_string()))?;
        // Long prompts are written in one go; what the kernel does not take waits here.
        session.set_buffer_limit(None);
        self.tls = Some(Box::new(session));
        self.stage = Stage::Securing;
        Ok(())
    }

    /// Goes on with the TLS handshake; says whether it is over.
    ///
    /// # Errors
    /// Why there is no TLS session.
    pub(crate) fn handshake(&mut self, reader: &mut Reader) -> Result<bool, End> {
        let (Some(socket), Some(tls)) = (&mut self.socket, &mut self.tls) else {
            return Ok(true);
        };
        let failed = |e: &dyn std::error::Error| End::Tls(e.to_string());
        loop {
            flush_tls(tls, socket).map_err(|e| failed(&e))?;
            if !tls.is_handshaking() {
                self.stage = Stage::Open;
                return Ok(true);
            }
            match reader.receiver.receive(socket, &mut reader.buffer) {
                Ok((0, _)) => return Err(End::Tls("the server closed the connection".to_owned())),
                Ok((len, _)) => take_records(tls, &reader.buffer[..len]).map_err(|e| failed(&e))?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(&e)),
            }
        }
    }

    /// Takes a request: what `write_head` writes, then `body`. The exchange before it is forgotten.
    pub(crate) fn begin(&mut self, write_head: impl FnOnce(&mut Vec<u8>), body: Bytes) {
        self.outbox.head.clear();
        write_head(&mut self.outbox.head);
        self.outbox.body = body;
        self.outbox.written = 0;
        self.head.clear();
        self.interim = 0;
        self.body = None;
        self.first_byte = None;
        self.sent = None;
        self.write_failed = None;
    }

    /// Writes as much of the request as the kernel takes. A failure shows when the answer is read.
    pub(crate) fn write(&mut self, clock: &dyn Clock) {
        let written = match &mut self.tls {
            _ if self.write_failed.is_some() || self.sent.is_some() => return,
            None => self.write_plain(clock),
            Some(_) => self.write_secured(clock),
        };
        match written {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => self.write_failed = Some(e.to_string()),
        }
    }

    fn write_plain(&mut self, clock: &dyn Clock) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.outbox.is_empty() {
            // Before the call and not after it: the kernel takes the bytes at once, but may let the
            // server run before it comes back.
            let at = clock.now();
            match socket.write_vectored(&self.outbox.rest()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.outbox.written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.sent = Some(at).filter(|_| self.outbox.is_empty());
        }
        Ok(())
    }

    fn write_secured(&mut self, clock: &dyn Clock) -> io::Result<()> {
        let (Some(socket), Some(tls)) = (&mut self.socket, &mut self.tls) else { return Ok(()) };
        if self.outbox.written == 0 {
            let mut writer = tls.writer();
            writer.write_all(&self.outbox.head)?;
            writer.write_all(&self.outbox.body)?;
            self.outbox.written = self.outbox.head.len() + self.outbox.body.len();
        }
        while tls.wants_write() {
            let at = clock.now();
            tls.write_tls(socket)?;
            self.sent = Some(at).filter(|_| !tls.wants_write());
        }
        Ok(())
    }

    /// Reads what is there. `is_closing` says that the end of the connection is known to be near, so
    /// that reading goes on to it.
    pub(crate) fn read(
        &mut self,
        reader: &mut Reader,
        is_closing: bool,
        answer: &mut Answer,
    ) -> Flow {
        if self.tls.is_some() {
            // What came in one read with the end of the TLS handshake is not in the socket any more.
            let stamp = Stamp::own(reader.receiver.now());
            let fed = self.feed_secured(&[], &mut reader.plain, stamp, answer);
            if let Some(ended) = self.flow(fed, stamp) {
                return ended;
            }
        }
        for _ in 0..READS_IN_A_ROW {
            let Some(socket) = &self.socket else { return Flow::Blocked };
            let (len, stamp) = match reader.receiver.receive(socket, &mut reader.buffer) {
                Ok((0, stamp)) => return self.closed(stamp),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.stuck(reader),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let why = self.write_failed.take().unwrap_or_else(|| e.to_string());
                    return Flow::Ended(End::Reset(why), reader.receiver.now());
                }
            };
            let bytes = &reader.buffer[..len];
            let fed = match self.tls.is_some() {
                false => self.feed(bytes, stamp, answer),
                true => self.feed_secured(bytes, &mut reader.plain, stamp, answer),
            };
            if let Some(ended) = self.flow(fed, stamp) {
                return ended;
            }
            // A short read has emptied the socket; what comes now comes with another wake.
            if len < reader.buffer.len() && !is_closing {
                return self.stuck(reader);
            }
        }
        Flow::Unfinished
    }

    /// What bytes that came with `stamp` mean for the exchange, where they end it.
    fn flow(&mut self, fed: Result<Fed, End>, stamp: Stamp) -> Option<Flow> {
        match fed {
            Ok(Fed::More) => None,
            Ok(Fed::Ended) => Some(Flow::Ended(End::Whole, stamp.at)),
            Ok(Fed::Closed) => Some(self.closed(stamp)),
            Err(end) => Some(Flow::Ended(end, stamp.at)),
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
        self.keep_alive = false;
        let end = match &self.body {
            Some(Body::UntilClose) => End::Whole,
            Some(_) => End::Cut("the server closed the connection within the answer".to_owned()),
            None => match self.write_failed.take() {
                Some(why) => End::Reset(why),
                None => End::Cut("the server closed the connection".to_owned()),
            },
        };
        Flow::Ended(end, stamp.read_at)
    }

    fn feed_secured(
        &mut self,
        mut records: &[u8],
        plain: &mut [u8],
        stamp: Stamp,
        answer: &mut Answer,
    ) -> Result<Fed, End> {
        let broken = |e: &dyn std::error::Error| End::Reset(format!("TLS: {e}"));
        loop {
            let Some(tls) = &mut self.tls else { return Ok(Fed::More) };
            match tls.reader().read(plain) {
                Ok(0) => return Ok(Fed::Closed),
                Ok(len) => match self.feed(&plain[..len], stamp, answer)? {
                    Fed::More => continue,
                    other => return Ok(other),
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(broken(&e)),
            }
            let (Some(tls), Some(socket)) = (&mut self.tls, &mut self.socket) else {
                return Ok(Fed::More);
            };
            if records.is_empty() {
                // Key updates want an answer; whether it can be written shows with the next request.
                let _ = flush_tls(tls, socket);
                return Ok(Fed::More);
            }
            // After its goodbye rustls takes nothing in any more.
            if tls.read_tls(&mut records).map_err(|e| broken(&e))? == 0 {
                return Ok(Fed::Closed);
            }
            tls.process_new_packets().map_err(|e| broken(&e))?;
        }
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

    /// Whether another request may be sent: the last one was written whole, its answer ended, and the
    /// server neither said that it would close nor, as far as the kernel knows, has.
    pub(crate) fn is_reusable(&mut self, reader: &mut Reader) -> bool {
        // A server that answered before it had read the request would take the next one for its rest.
        let is_written = self.sent.is_some() && self.write_failed.is_none();
        self.stage == Stage::Open && self.keep_alive && is_written && self.is_quiet(reader)
    }

    /// Reads what nobody asked for: tickets and key updates of TLS are welcome, all else is the end.
    fn is_quiet(&mut self, reader: &mut Reader) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        loop {
            match (reader.receiver.receive(socket, &mut reader.buffer), &mut self.tls) {
                (Ok((len, _)), Some(tls)) if len > 0 => {
                    let taken = take_records(tls, &reader.buffer[..len]);
                    let state =
                        taken.and_then(|()| tls.process_new_packets().map_err(io::Error::other));
                    if !state
                        .is_ok_and(|s| !s.peer_has_closed() && s.plaintext_bytes_to_read() == 0)
                    {
                        return false;
                    }
                }
                (Ok(_), _) => return false,
                (Err(e), _) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl From<BadFraming> for End {
    fn from(e: BadFraming) -> Self {
        Self::Malformed(e.to_string())
    }
}

/// Hands `bytes` to TLS, all of them.
fn take_records(tls: &mut ClientConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        if tls.read_tls(&mut bytes)? == 0 {
            return Err(io::Error::other("bytes after the end of the TLS session"));
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Writes what TLS has to say, as far as the kernel takes it.
fn flush_tls(tls: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
