//! One connection: opened, kept, and polled by the task whose request it carries.
//!
//! **Invariants:** nothing is retried or redirected here; hyper never runs in a task of its own, so a
//! read is parsed by the very poll that made it. hyper's halves wake each other for every frame; as
//! both are polled here until neither has more to do, those wakes only set a flag ([`Nudge`]), and
//! what wakes the task is the socket alone.

use crate::http::io::{Io, Socket, Stamps};
use crate::http::target::Address;
use crate::stream::End;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use scalebeam_model::clock::Clock;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A waker that remembers that it was woken.
#[derive(Debug, Default)]
struct Nudge(AtomicBool);

impl Nudge {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An open connection to one target.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Io>, Full<Bytes>>,
    /// Set once the driver has ended; it may not be polled again.
    ended: Option<Option<End>>,
    stamps: Rc<Stamps>,
    nudge: Arc<Nudge>,
    nudge_waker: Waker,
}

impl Connection {
    /// Opens a connection, with TLS where the address says so.
    pub(crate) async fn open(
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, End> {
        let stamps = Rc::new(Stamps::new(Arc::clone(clock)));
        let socket = Socket::new(dial(address).await.map_err(End::Connect)?, Rc::clone(&stamps));
        let io = match tls.filter(|_| address.is_tls) {
            None => Io::plain(socket),
            Some(config) => {
                let name = ServerName::try_from(address.host.clone());
                let name = name.map_err(|e| End::Tls(e.to_string()))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, socket).await;
                Io::tls(stream.map_err(|e| End::Tls(e.to_string()))?)
            }
        };
        let opened = http1::Builder::new().handshake(TokioIo::new(io)).await;
        let (sender, driver) = opened.map_err(|e| classify(&e))?;
        let nudge = Arc::new(Nudge::default());
        let nudge_waker = Waker::from(Arc::clone(&nudge));
        Ok(Self { sender, driver, ended: None, stamps, nudge, nudge_waker })
    }

    /// The stamps of the exchange under way.
    pub(crate) fn stamps(&self) -> &Rc<Stamps> {
        &self.stamps
    }

    /// Sends `request` and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, End> {
        self.stamps.begin();
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        let (driver, nudge_waker) = (&mut self.driver, &self.nudge_waker);
        let (ended, nudge, stamps) = (&mut self.ended, &self.nudge, &self.stamps);
        poll_fn(|cx| {
            stamps.wake_by_socket(cx.waker());
            loop {
                let mut inner = Context::from_waker(nudge_waker);
                drive(driver, ended, &mut inner);
                match answer.as_mut().poll(&mut inner) {
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                    // The driver knows better than the dispatcher why it gave up.
                    Poll::Ready(Err(e)) => {
                        let known = ended.take().flatten().filter(|_| e.is_canceled());
                        *ended = Some(None);
                        return Poll::Ready(Err(known.unwrap_or_else(|| classify(&e))));
                    }
                    Poll::Pending if nudge.take() => {}
                    Poll::Pending if ended.is_some() => {
                        let why = ended.take().flatten();
                        *ended = Some(None);
                        return Poll::Ready(Err(why.unwrap_or_else(closed)));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// The next frame of `body`; `None` at its end.
    pub(crate) async fn next_frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<Frame<Bytes>, End>> {
        poll_fn(|cx| self.poll_frame(cx, body)).await
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, End>>> {
        self.stamps.wake_by_socket(cx.waker());
        loop {
            let mut inner = Context::from_waker(&self.nudge_waker);
            drive(&mut self.driver, &mut self.ended, &mut inner);
            match Pin::new(&mut *body).poll_frame(&mut inner) {
                Poll::Ready(frame) => {
                    return Poll::Ready(frame.map(|f| f.map_err(|e| classify(&e))));
                }
                Poll::Pending if self.nudge.take() => {}
                Poll::Pending if self.ended.is_some() => {
                    let why = self.ended.take().flatten();
                    self.ended = Some(None);
                    return Poll::Ready(Some(Err(why.unwrap_or_else(closed))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether another request can be sent: the last exchange is over and the server has not closed
    /// the connection, as far as the kernel has told us.
    pub(crate) async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            self.stamps.wake_by_socket(cx.waker());
            let mut inner = Context::from_waker(&self.nudge_waker);
            for _ in 0..2 {
                drive(&mut self.driver, &mut self.ended, &mut inner);
            }
            Poll::Ready(self.ended.is_none() && self.sender.is_ready())
        })
        .await
    }
}

fn drive(
    driver: &mut http1::Connection<TokioIo<Io>, Full<Bytes>>,
    ended: &mut Option<Option<End>>,
    cx: &mut Context<'_>,
) {
    if ended.is_none()
        && let Poll::Ready(result) = Pin::new(driver).poll(cx)
    {
        *ended = Some(result.err().map(|e| classify(&e)));
    }
}

fn closed() -> End {
    End::Cut("the server closed the connection".to_owned())
}

async fn dial(address: &Address) -> Result<TcpStream, String> {
    let sockets = address.sockets.as_ref().map_err(Clone::clone)?;
    let mut why = String::new();
    for socket in sockets {
        match TcpStream::connect(socket).await {
            Ok(tcp) => {
                // Without it a request in two writes waits for an acknowledgement in between.
                tcp.set_nodelay(true).map_err(|e| e.to_string())?;
                return Ok(tcp);
            }
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

/// What an error of hyper means for the exchange.
fn classify(error: &hyper::Error) -> End {
    let text = chain(error);
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => End::Cut(text),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => End::Malformed(text),
                _ => End::Reset(text),
            };
        }
        source = e.source();
    }
    if error.is_incomplete_message() {
        End::Cut(text)
    } else if error.is_parse() {
        End::Malformed(text)
    } else {
        End::Reset(text)
    }
}

fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}
