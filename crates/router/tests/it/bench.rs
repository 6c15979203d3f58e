//! What the tests stand on.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use scalebeam_model::clock::ManualClock;
use scalebeam_router::{Router, RouterConfig};
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Where a prefill worker says that the blocks are.
pub(crate) const BLOCKS: &str = r#"{"do_remote_prefill":true,"remote_block_ids":[[1,2]]}"#;

/// The body of a worker's answer, fed by the test.
#[derive(Debug)]
pub(crate) struct Fed(UnboundedReceiver<Option<Bytes>>);

/// Feeds; `None` breaks the answer off.
pub(crate) type Feed = UnboundedSender<Option<Bytes>>;

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx).map(|fed| {
            fed.map(|piece| piece.map(Frame::data).ok_or(std::io::ErrorKind::BrokenPipe.into()))
        })
    }
}

/// An answer that the test feeds.
fn fed() -> (Feed, Response<Fed>) {
    let (feed, pieces) = unbounded_channel();
    (feed, Response::new(Fed(pieces)))
}

/// An answer that is there at once.
pub(crate) fn at_once(status: u16, body: &str) -> Response<Fed> {
    let (feed, mut response) = fed();
    feed.send(Some(Bytes::from(body.to_owned()))).unwrap();
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// What a prefill worker answers.
pub(crate) fn prefilled() -> Response<Fed> {
    at_once(200, &format!(r#"{{"choices":[],"kv_transfer_params":{BLOCKS}}}"#))
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Fed>> + Send>>;

/// A request as a worker saw it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Value,
}

/// A worker that answers by a script, and remembers what it was asked.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Worker {
    pub(crate) async fn new<A>(script: A) -> Self
    where
        A: Fn(Asked) -> Answering + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&asked), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&seen), Arc::clone(&script)));
            }
        });
        Self { url, asked }
    }

    /// One that answers everything alike, at once.
    pub(crate) async fn plain(answer: fn() -> Response<Fed>) -> Self {
        Self::new(move |_| Box::pin(async move { answer() })).await
    }

    /// One that answers a single request, as the test feeds.
    pub(crate) async fn fed() -> (Feed, Self) {
        let (feed, response) = fed();
        let response = Arc::new(Mutex::new(Some(response)));
        let script = move |_| -> Answering {
            let response = response.lock().unwrap().take().unwrap();
            Box::pin(async move { response })
        };
        (feed, Self::new(script).await)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve<A>(socket: TcpStream, seen: Arc<Mutex<Vec<Asked>>>, script: Arc<A>)
where
    A: Fn(Asked) -> Answering + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let asked = Asked {
                target: head.uri.to_string(),
                headers: head.headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            seen.lock().unwrap().push(asked.clone());
            Ok::<_, Infallible>(script(asked).await)
        }
    });
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service)
            .await,
    );
}

/// A router before workers; it ends with the test's runtime.
pub(crate) fn router(prefill: &[&Worker], decode: &[&Worker]) -> SocketAddr {
    let urls = |workers: &[&Worker]| workers.iter().map(|w| w.url.clone()).collect();
    router_of(urls(prefill), urls(decode))
}

pub(crate) fn router_of(prefill: Vec<String>, decode: Vec<String>) -> SocketAddr {
    let config = RouterConfig { bind: "127.0.0.1:0".parse().unwrap(), prefill, decode };
    let router = Router::bind(&config, Arc::new(ManualClock::default())).unwrap();
    let address = router.local_addr();
    tokio::spawn(router.run(std::future::pending()));
    address
}

/// One connection to the router.
#[derive(Debug)]
pub(crate) struct Client(http1::SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn new(router: SocketAddr) -> Self {
        let socket = TcpStream::connect(router).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends; the answer is there once its head is.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "router")
            .header("authorization", "Bearer k")
            .header("x-request-id", "id-1")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        self.0.send_request(request).await.unwrap()
    }
}

/// Status and whole body of an answer.
pub(crate) async fn said(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Asks once over a connection of its own.
pub(crate) async fn ask(router: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    said(Client::new(router).await.send(method, path, body).await).await
}

/// Waits until the router's page of metrics holds `line`.
pub(crate) async fn counted(router: SocketAddr, line: &str) {
    let looking = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
        loop {
            tick.tick().await;
            let page = ask(router, "GET", "/metrics", "").await.1;
            if page.lines().any(|l| l == line) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(20), looking).await;
    assert!(found.is_ok(), "never counted: {line}\n{}", ask(router, "GET", "/metrics", "").await.1);
}
