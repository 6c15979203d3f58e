//! What an HTTP endpoint of ours is made of, whatever it answers: a listener with its loop, and replies that
//! are known in full.
//!
//! The emulated engine (`sim`) and the router of split deployments (`router`) stand on it.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use scalebeam_model::units::Nanos;
use serde_json::{Value, json};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Connections that may wait to be accepted; the kernel lowers it to its own limit.
const BACKLOG: u32 = 8_192;
/// Out of descriptors, most likely: some connections end before the next try.
const BACK_OFF: Nanos = Nanos::from_millis(20);

/// The body of any reply: known in full, or told as it happens.
pub type Reply<S> = Either<Full<Bytes>, Box<S>>;

/// An address that is bound, and not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`, port 0 to a free one; connections queue until [`Listener::serve`].
    ///
    /// Has to be called inside a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address that was bound, with the real port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands each connection to `converse` until `shutdown` resolves; those under way are then cut off.
    pub async fn serve<C>(
        self,
        shutdown: impl Future<Output = ()>,
        converse: impl Fn(TcpStream) -> C,
    ) where
        C: Future<Output = ()> + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.socket.accept() => match accepted {
                    // A token is a small write, and Nagle's algorithm would hold every second one back.
                    Ok((socket, _)) => if socket.set_nodelay(true).is_ok() {
                        connections.spawn(converse(socket));
                    },
                    Err(_) => pause(BACK_OFF).await,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        connections.shutdown().await;
    }
}

/// Waits for `span`, to the millisecond: for back-off and injected delays, never for pacing.
pub async fn pause(span: Nanos) {
    drop(tokio::time::timeout(span.to_std(), std::future::pending::<()>()).await);
}

/// `body` with a status and a content type.
pub fn whole<S>(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Reply<S>> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error as OpenAI-compatible servers word it.
pub fn error_body(status: StatusCode, kind: &str, message: &str) -> Value {
    let code = status.as_u16();
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}
