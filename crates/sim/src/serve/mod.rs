//! The emulator behind an OpenAI-compatible HTTP endpoint, at wall speed.
//!
//! One thread owns the emulator and the pace (`pacer`); every connection is a task that turns the
//! tokens it is handed into bytes (`stream`). What was really written, and when, goes to a truth log
//! (`truth`) that a measuring tool can be held against.

mod api;
mod app;
mod chunk;
mod faults;
mod generate;
mod metrics;
mod pacer;
mod replies;
mod stream;
mod tokens;
mod truth;
mod wire;

pub use faults::{ContentField, Faults, Interrupt, Interruption, RoleChunk, Stall, StatusFault};
pub use tokens::count_tokens;
pub use truth::TruthRecord;

use crate::config::{ConfigError, EmulatedConfig};
use app::App;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pacer::Pacer;
use scalebeam_endpoint::Listener;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::TcpStream;
use truth::TruthLog;
use wire::Wire;

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeConfig {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Names that the model answers to; empty means the engine's model id.
    pub model_names: Vec<String>,
    /// What is emulated.
    pub engine: EmulatedConfig,
    /// What goes wrong, and what shape answers have.
    pub faults: Faults,
    /// How long after the start everything is answered with 503.
    pub startup_delay: Nanos,
    /// Where to append one JSON line a request.
    pub truth_log: Option<PathBuf>,
}

impl Default for ServeConfig {
    /// The default instance on a free port of the loopback interface.
    fn default() -> Self {
        Self {
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            model_names: Vec::new(),
            engine: EmulatedConfig::default(),
            faults: Faults::default(),
            startup_delay: Nanos::ZERO,
            truth_log: None,
        }
    }
}

/// Why an endpoint cannot be, or stopped being.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The emulated instance is impossible.
    #[error("cannot emulate the instance")]
    Config(#[from] ConfigError),
    /// The fault plan is impossible.
    #[error("{0}")]
    Faults(String),
    /// The address is not to be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The pace thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The truth log cannot be written.
    #[error("cannot write the truth log {path}")]
    TruthLog {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// A bound endpoint that does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    app: Arc<App>,
    pacer: Pacer,
    truth: Option<TruthLog>,
    split_bytes: bool,
}

/// Binds and serves until `shutdown` resolves; requests under way are then cut off.
///
/// # Errors
/// When the configuration is impossible, the address is taken, or the truth log cannot be written.
pub async fn serve(
    config: ServeConfig,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::bind(config, clock)?.run(shutdown).await
}

impl Server {
    /// Binds the address and starts the emulator; connections queue until [`Server::run`].
    ///
    /// Has to be called inside a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// When the configuration is impossible, the address is taken, or the truth log cannot be opened.
    pub fn bind(config: ServeConfig, clock: Arc<dyn Clock>) -> Result<Self, ServeError> {
        config.faults.validate().map_err(ServeError::Faults)?;
        let emulator = config.engine.build()?;
        let listener = Listener::bind(config.bind)
            .map_err(|source| ServeError::Bind { address: config.bind, source })?;
        let truth = config.truth_log.as_deref().map(TruthLog::open).transpose()?;
        let pacer = Pacer::start(emulator, Arc::clone(&clock), config.engine.speed)
            .map_err(ServeError::Thread)?;
        let split_bytes = config.faults.split_bytes;
        let truth_sender = truth.as_ref().map(TruthLog::sender);
        let app = Arc::new(App::new(config, clock, pacer.handle(), truth_sender));
        Ok(Self { listener, app, pacer, truth, split_bytes })
    }

    /// The address that was bound, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `shutdown` resolves; requests under way are then cut off.
    ///
    /// # Errors
    /// When a line of the truth log could not be written.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let converse = |socket| converse(Arc::clone(&self.app), socket, self.split_bytes);
        self.listener.serve(shutdown, converse).await;
        self.pacer.stop();
        self.truth.map_or(Ok(()), TruthLog::close)
    }
}

/// Serves one connection until either side ends it.
async fn converse(app: Arc<App>, socket: TcpStream, split_bytes: bool) {
    let reset = Arc::new(AtomicBool::new(false));
    let wire = Wire::new(socket, split_bytes, Arc::clone(&reset));
    let service = service_fn(move |request| {
        let (app, reset) = (Arc::clone(&app), Arc::clone(&reset));
        async move { Ok::<_, Infallible>(app::answer(app, reset, request).await) }
    });
    // HTTP/1.1, or HTTP/2 where the client begins with its preface.
    let server = auto::Builder::new(TokioExecutor::new());
    // An error here is the client's going away or an injected fault; both are in the truth log.
    drop(server.serve_connection(TokioIo::new(wire), service).await);
}
