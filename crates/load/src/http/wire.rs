//! One socket, with TLS where it is asked for: bytes go out, and come in with their stamps.
//!
//! **Invariants:** nothing blocks and nothing is retried here; what a read brought is stamped before
//! anything looks at it, below TLS and HTTP, so that a stamp holds neither decryption nor parsing.

use crate::http::receive::{Receiver, Stamp};
use crate::http::source::Sources;
use crate::http::target::Address;
use crate::stream::End;
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

/// Reads of one connection after which others, and the clock, are looked at.
const READS_IN_A_ROW: usize = 16;

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

/// What the bytes of one read mean to whoever reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// More is wanted.
    More,
    /// What was waited for ended with them.
    Ended,
    /// The other side said that it sends no more.
    Closed,
}

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Nothing more is there.
    Blocked,
    /// More may be there: nobody will say so again, and it is others' turn first.
    Unfinished,
    /// What was waited for ended with what came with this stamp.
    Ended(Stamp),
    /// The other side sends no more.
    Closed(Stamp),
    /// What came cannot be used.
    Failed(End, Nanos),
    /// The connection broke.
    Broken(io::Error, Nanos),
}

impl Reading {
    /// What bytes that came with `stamp` mean for reading on, where they end it.
    fn end(fed: Result<Fed, End>, stamp: Stamp) -> Option<Self> {
        match fed {
            Ok(Fed::More) => None,
            Ok(Fed::Ended) => Some(Self::Ended(stamp)),
            Ok(Fed::Closed) => Some(Self::Closed(stamp)),
            Err(end) => Some(Self::Failed(end, stamp.at)),
        }
    }
}

/// A socket to one target.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    socket: Option<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    /// How many of the target's addresses were tried.
    tried: usize,
}

impl Wire {
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
        let sockets = address.sockets.as_ref().map_err(|e| End::Connect(e.clone()))?;
        let mut why = "the target has no address".to_owned();
        while let Some(to) = sockets.get(self.tried) {
            self.tried += 1;
            let begun = sources.connect(*to).and_then(|mut socket| {
                // Without it a request in two writes waits for an acknowledgement in between.
                socket.set_nodelay(true)?;
                Receiver::watch(&socket);
                registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(e) => why = sources.explain(&e),
            }
        }
        Err(End::Connect(why))
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

    /// The TCP handshake is over; TLS begins where it is asked for. Says whether it does.
    ///
    /// # Errors
    /// When there can be no TLS session.
    pub(crate) fn secure(
        &mut self,
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<bool, End> {
        let Some(config) = tls.filter(|_| address.is_tls) else { return Ok(false) };
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|e| End::Tls(e.to_string()))?;
        let session = ClientConnection::new(Arc::clone(config), name);
        let mut session = session.map_err(|e| End::Tls(e.to_string()))?;
        // Long prompts are written in one go; what the kernel does not take waits here.
        session.set_buffer_limit(None);
        self.tls = Some(Box::new(session));
        Ok(true)
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

    /// Whether TLS carries this, and if so, the protocol that both sides agreed on by ALPN.
    pub(crate) fn agreed_protocol(&self) -> Option<Option<&[u8]>> {
        self.tls.as_ref().map(|tls| tls.alpn_protocol())
    }

    /// Writes `parts`, as much of them as is taken: how much, and the instant before the write that gave
    /// the kernel the last of all that was ever taken here. It is absent while some of that waits.
    ///
    /// With TLS everything is taken at once, and what the kernel does not take then goes with the next
    /// call.
    ///
    /// # Errors
    /// As the socket says; `WouldBlock` where it takes no more now.
    pub(crate) fn write(
        &mut self,
        parts: [IoSlice<'_>; 2],
        clock: &dyn Clock,
    ) -> io::Result<(usize, Option<Nanos>)> {
        let Some(socket) = &mut self.socket else { return Ok((0, None)) };
        let left = parts[0].len() + parts[1].len();
        let Some(tls) = &mut self.tls else {
            // Before the call and not after it: the kernel takes the bytes at once, but may let the
            // server run before it comes back.
            let at = clock.now();
            let taken = socket.write_vectored(&parts)?;
            return match taken {
                0 if left > 0 => Err(io::ErrorKind::WriteZero.into()),
                _ => Ok((taken, Some(at))),
            };
        };
        for part in parts {
            tls.writer().write_all(&part)?;
        }
        // What had to wait may have gone out since, beside an answer of TLS's own.
        let mut sent = Some(clock.now()).filter(|_| !tls.wants_write());
        while tls.wants_write() {
            let at = clock.now();
            match tls.write_tls(socket) {
                Ok(_) => sent = Some(at).filter(|_| !tls.wants_write()),
                // Taken, if not sent: the next call goes on.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && left > 0 => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((left, sent))
    }

    /// Whether something that was taken has yet to be given to the kernel.
    pub(crate) fn has_waiting(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads what is there and hands on each piece with its stamp, decrypted. `is_closing` says that
    /// the end of the connection is known to be near, so that reading goes on to it.
    pub(crate) fn read(
        &mut self,
        reader: &mut Reader,
        is_closing: bool,
        mut take: impl FnMut(&[u8], Stamp) -> Result<Fed, End>,
    ) -> Reading {
        if self.tls.is_some() {
            // What came in one read with the end of the TLS handshake is not in the socket any more.
            let stamp = Stamp::own(reader.receiver.now());
            let fed = self.decrypt(&[], &mut reader.plain, stamp, &mut take);
            if let Some(end) = Reading::end(fed, stamp) {
                return end;
            }
        }
        for _ in 0..READS_IN_A_ROW {
            let Some(socket) = &self.socket else { return Reading::Blocked };
            let (len, stamp) = match reader.receiver.receive(socket, &mut reader.buffer) {
                Ok((0, stamp)) => return Reading::Closed(stamp),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Reading::Blocked,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Reading::Broken(e, reader.receiver.now()),
            };
            let bytes = &reader.buffer[..len];
            let fed = match self.tls.is_some() {
                false => take(bytes, stamp),
                true => self.decrypt(bytes, &mut reader.plain, stamp, &mut take),
            };
            if let Some(end) = Reading::end(fed, stamp) {
                return end;
            }
            // A short read has emptied the socket; what comes now comes with another wake.
            if len < reader.buffer.len() && !is_closing {
                return Reading::Blocked;
            }
        }
        Reading::Unfinished
    }

    fn decrypt(
        &mut self,
        mut records: &[u8],
        plain: &mut [u8],
        stamp: Stamp,
        take: &mut impl FnMut(&[u8], Stamp) -> Result<Fed, End>,
    ) -> Result<Fed, End> {
        let broken = |e: &dyn std::error::Error| End::Reset(format!("TLS: {e}"));
        let (Some(tls), Some(socket)) = (&mut self.tls, &mut self.socket) else {
            return Ok(Fed::More);
        };
        loop {
            match tls.reader().read(plain) {
                Ok(0) => return Ok(Fed::Closed),
                Ok(len) => match take(&plain[..len], stamp)? {
                    Fed::More => continue,
                    other => return Ok(other),
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(broken(&e)),
            }
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

    /// Reads what nobody asked for: tickets and key updates of TLS are welcome, all else is the end.
    /// Says whether it was quiet.
    pub(crate) fn is_quiet(&mut self, reader: &mut Reader) -> bool {
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
