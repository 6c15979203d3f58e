//! One entry in front of prefill and decode workers that move key-value blocks themselves.
//!
//! Each request goes to a prefill worker first, which answers one token and says where the blocks of the
//! prompt lie, and then, with that, to a decode worker, whose answer is passed on as it comes. The words
//! are those of vLLM's NixlConnector (`kv_transfer_params`).
//!
//! **Invariants.**
//! - It stands on the measured path: no JSON tree of a request or of a stream is built, bytes of an
//!   answer are passed on as they were read, and nothing waits but for a worker.
//! - A status and a body of a worker reach the client as they are. A stream that breaks off is broken
//!   off, never ended as if it were whole; a client that goes away takes its request at the worker along.
//! - Nothing is sent twice, unless no byte of it has left.
//! - What would be answered, but by recomputing in the decode worker, is refused: it would be measured as
//!   something that it is not.

mod app;
mod counts;
mod relay;
mod reply;
mod request;
mod worker;

pub use worker::BadUrl;

use app::App;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use scalebeam_endpoint::Listener;
use scalebeam_model::clock::Clock;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// One router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Base URLs of the prefill workers, `http://HOST:PORT`; at least one.
    pub prefill: Vec<String>,
    /// Base URLs of the decode workers; at least one.
    pub decode: Vec<String>,
}

/// Why a router cannot be.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A worker cannot be reached at what was given.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// A pool is empty.
    #[error("no {0} worker is given")]
    NoWorker(&'static str),
    /// The address is not to be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A bound router that does not serve yet.
#[derive(Debug)]
pub struct Router {
    listener: Listener,
    app: Arc<App>,
}

impl Router {
    /// Binds the address; connections queue until [`Router::run`].
    ///
    /// Has to be called inside a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// When a pool is empty, a URL is none, or the address is taken.
    pub fn bind(config: &RouterConfig, clock: Arc<dyn Clock>) -> Result<Self, RouterError> {
        let app = Arc::new(App::new(config, clock)?);
        let failed = |source| RouterError::Bind { address: config.bind, source };
        let listener = Listener::bind(config.bind).map_err(failed)?;
        Ok(Self { listener, app })
    }

    /// The address that was bound, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `shutdown` resolves; requests under way are then cut off.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let converse = |socket| converse(Arc::clone(&self.app), socket);
        self.listener.serve(shutdown, converse).await;
    }
}

/// Serves one connection until either side ends it. hyper drops the service when the client goes away,
/// and with it what is under way at a worker.
async fn converse(app: Arc<App>, socket: TcpStream) {
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app::answer(app, request).await) }
    });
    // HTTP/1.1, or HTTP/2 where the client begins with its preface.
    let server = auto::Builder::new(TokioExecutor::new());
    // An error here is the client's going away or a worker's stream that broke; both are counted.
    drop(server.serve_connection(TokioIo::new(socket), service).await);
}
