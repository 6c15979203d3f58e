//! Where bytes cross into and out of the kernel, with a stamp on each crossing.
//!
//! **Invariants:** a read that brought bytes is stamped before anything looks at them, below TLS and
//! HTTP, so that a stamp holds neither decryption nor parsing; a read or write that failed is not
//! stamped; the request counts as sent when the kernel had taken its last byte, not when we had
//! written it into a buffer.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What is known about the exchange under way on one connection.
#[derive(Debug)]
pub(crate) struct Stamps {
    clock: Arc<dyn Clock>,
    last_read: Cell<Nanos>,
    first_byte: Cell<Option<Nanos>>,
    eof: Cell<Option<Nanos>>,
    last_write: Cell<Option<Nanos>>,
    sent: Cell<Option<Nanos>>,
    /// Who is woken by the socket. Kept here because hyper is polled with a waker of our own (see
    /// `conn`), and a socket that woke that one would wake nobody.
    task: RefCell<Waker>,
}

impl Stamps {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            last_read: Cell::new(Nanos::ZERO),
            first_byte: Cell::new(None),
            eof: Cell::new(None),
            last_write: Cell::new(None),
            sent: Cell::new(None),
            task: RefCell::new(Waker::noop().clone()),
        }
    }

    /// A new exchange begins.
    pub(crate) fn begin(&self) {
        self.first_byte.set(None);
        self.eof.set(None);
        self.last_write.set(None);
        self.sent.set(None);
    }

    /// When the last read that brought bytes returned.
    pub(crate) fn last_read(&self) -> Nanos {
        self.last_read.get()
    }

    /// When the first byte of the answer was read.
    pub(crate) fn first_byte(&self) -> Option<Nanos> {
        self.first_byte.get()
    }

    /// When the kernel had taken the last byte of the request.
    pub(crate) fn sent(&self) -> Option<Nanos> {
        self.sent.get()
    }

    /// When the end of the body was known: the read that brought it, or the end of the connection.
    pub(crate) fn ended(&self) -> Nanos {
        self.eof.get().unwrap_or_else(|| self.last_read())
    }

    /// From now on the socket wakes this task.
    pub(crate) fn wake_by_socket(&self, task: &Waker) {
        let mut current = self.task.borrow_mut();
        if !current.will_wake(task) {
            current.clone_from(task);
        }
    }
}

/// The socket itself.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    stamps: Rc<Stamps>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, stamps: Rc<Stamps>) -> Self {
        Self { tcp, stamps }
    }

    fn stamp_write(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(n)) if *n > 0) {
            self.stamps.last_write.set(Some(self.stamps.clock.now()));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        let now = self.stamps.clock.now();
        if buf.filled().len() > before {
            self.stamps.last_read.set(now);
        } else {
            self.stamps.eof.set(Some(now));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.stamp_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.stamp_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[derive(Debug)]
enum Layer {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What HTTP reads from and writes to.
#[derive(Debug)]
pub(crate) struct Io {
    layer: Layer,
    stamps: Rc<Stamps>,
}

impl Io {
    pub(crate) fn plain(socket: Socket) -> Self {
        Self { stamps: Rc::clone(&socket.stamps), layer: Layer::Plain(socket) }
    }

    pub(crate) fn tls(stream: TlsStream<Socket>) -> Self {
        Self { stamps: Rc::clone(&stream.get_ref().0.stamps), layer: Layer::Tls(Box::new(stream)) }
    }
}

/// Runs `$call` on the layer below, with the socket's own task to be woken.
macro_rules! below {
    ($self:ident, |$io:ident, $cx:ident| $call:expr) => {{
        let this = &mut *$self;
        let task = this.stamps.task.borrow();
        let mut cx = Context::from_waker(&task);
        let $cx = &mut cx;
        match &mut this.layer {
            Layer::Plain(socket) => {
                let $io = Pin::new(socket);
                $call
            }
            Layer::Tls(stream) => {
                let $io = Pin::new(&mut **stream);
                $call
            }
        }
    }};
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _hyper: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(below!(self, |io, cx| io.poll_read(cx, buf)))?;
        // Here and not below TLS: a session ticket is not the first byte of an answer.
        if buf.filled().len() > before && self.stamps.first_byte().is_none() {
            self.stamps.first_byte.set(Some(self.stamps.last_read()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _hyper: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        below!(self, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _hyper: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below!(self, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Plain(socket) => socket.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    /// hyper flushes when its buffer is empty, so a flush that is done means that all was taken.
    fn poll_flush(mut self: Pin<&mut Self>, _hyper: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(below!(self, |io, cx| io.poll_flush(cx)))?;
        self.stamps.sent.set(self.stamps.last_write.get());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _hyper: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, |io, cx| io.poll_shutdown(cx))
    }
}
