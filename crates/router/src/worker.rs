//! One worker: where it is, and the connections to it that are kept.

use crate::counts::WorkerCounts;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

/// vLLM's server closes a connection that was idle for 5 s, and one that it is about to close must not be
/// used: nobody could tell then whether the request was taken.
const KEPT_FOR: Nanos = Nanos::from_secs(4);
/// A question beside the measured path that takes longer is not answered.
const ASIDE_WITHIN: Nanos = Nanos::from_secs(5);
/// No answer to such a question is larger.
const ASIDE_LIMIT: usize = 4 << 20;

/// What is sent to a worker.
pub(crate) type Body = Full<Bytes>;
type Sender = http1::SendRequest<Body>;

/// A URL that no worker can be reached at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("worker '{url}' is not of the form http://HOST:PORT")]
pub struct BadUrl {
    /// What was given.
    pub url: String,
}

/// Why a worker did not answer, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {why}")]
pub(crate) struct NoAnswer {
    url: String,
    why: String,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Base URL, without a path.
    pub(crate) url: String,
    pub(crate) counts: WorkerCounts,
    host: String,
    port: u16,
    authority: HeaderValue,
    /// Connections without a request, each since when; the last returned is the first taken.
    idle: Mutex<Vec<(Sender, Nanos)>>,
    clock: Arc<dyn Clock>,
}

impl Worker {
    /// The worker at `url`, to which nothing is connected yet.
    pub(crate) fn new(url: &str, clock: Arc<dyn Clock>) -> Result<Self, BadUrl> {
        let bad = || BadUrl { url: url.to_owned() };
        let url_text = url.trim_end_matches('/').to_owned();
        let uri: Uri = url_text.parse().map_err(|_| bad())?;
        let is_base = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|_| is_base).ok_or_else(bad)?;
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            counts: WorkerCounts::default(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?,
            idle: Mutex::default(),
            clock,
            url: url_text,
        })
    }

    /// Sends `request`, whose URI is a path. It goes to a second connection only where no byte of it has
    /// left on the first.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Lease), NoAnswer> {
        request.headers_mut().insert(HOST, self.authority.clone());
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.no_answer(&error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|e| self.no_answer(&e))?;
        Ok((response, self.lease(sender)))
    }

    async fn connect(&self) -> Result<Sender, NoAnswer> {
        let address = (self.host.as_str(), self.port);
        let socket = TcpStream::connect(address).await.map_err(|e| self.no_answer(&e))?;
        socket.set_nodelay(true).map_err(|e| self.no_answer(&e))?;
        let made = http1::handshake(TokioIo::new(socket)).await;
        let (sender, connection) = made.map_err(|e| self.no_answer(&e))?;
        // It ends with its sender; what went wrong is told to whoever waits for the answer.
        tokio::spawn(connection);
        self.counts.connected();
        Ok(sender)
    }

    fn no_answer(&self, error: &dyn std::error::Error) -> NoAnswer {
        NoAnswer { url: self.url.clone(), why: in_words(error) }
    }

    fn lease(self: &Arc<Self>, sender: Sender) -> Lease {
        Lease { worker: Arc::clone(self), sender }
    }

    /// The connection that was used last. When that one is too old to be trusted, all are.
    fn take(&self) -> Option<Sender> {
        let now = self.clock.now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop() {
            if now.since(since) > KEPT_FOR {
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// A question beside the measured path: status and body of the answer, on a connection of its own.
    pub(crate) async fn aside(
        &self,
        method: Method,
        path: &str,
        headers: hyper::HeaderMap,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let asked = async {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::default())
                .map_err(|e| self.no_answer(&e))?;
            *request.headers_mut() = headers;
            request.headers_mut().insert(HOST, self.authority.clone());
            let mut sender = self.connect().await?;
            let answer = sender.send_request(request).await.map_err(|e| self.no_answer(&e))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ASIDE_LIMIT).collect().await;
            let body = body.map_err(|e| self.no_answer(e.as_ref()))?;
            Ok((status, body.to_bytes()))
        };
        let late = |_| NoAnswer { url: self.url.clone(), why: "no answer in time".to_owned() };
        tokio::time::timeout(ASIDE_WITHIN.to_std(), asked).await.map_err(late)?
    }
}

/// A connection with an answer on it. Dropped before the answer's end, it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) worker: Arc<Worker>,
    sender: Sender,
}

impl Lease {
    /// Keeps the connection for the next request; the answer was read to its end.
    pub(crate) fn give_back(self) {
        let now = self.worker.clock.now();
        let mut idle = self.worker.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((self.sender, now));
    }
}

/// The error and what caused it: hyper's own words name no cause.
fn in_words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", in_words(cause)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;

    fn worker(url: &str) -> Result<Worker, BadUrl> {
        Worker::new(url, Arc::new(ManualClock::default()))
    }

    #[test]
    fn a_worker_is_a_host_and_a_port() {
        for (url, want) in [
            ("http://127.0.0.1:8001", Some(("127.0.0.1", 8001))),
            ("http://node1:8001/", Some(("node1", 8001))),
            ("http://[::1]:9", Some(("::1", 9))),
            ("http://node1", Some(("node1", 80))),
            ("https://node1:8001", None),
            ("node1:8001", None),
            ("http://node1:8001/v1", None),
            ("http://", None),
            ("", None),
        ] {
            let got = worker(url).ok();
            assert_eq!(got.as_ref().map(|w| (w.host.as_str(), w.port)), want, "{url}");
        }
        assert_eq!(
            worker("node1:1").unwrap_err().to_string(),
            "worker 'node1:1' is not of the form http://HOST:PORT"
        );
    }
}
