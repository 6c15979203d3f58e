//! What all connections share, and which path goes where.

use crate::counts::{self, Counts};
use crate::relay::relay;
use crate::reply::{Refusal, Reply, passed_on};
use crate::worker::{NoAnswer, Worker};
use crate::{BadUrl, RouterConfig, RouterError};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use scalebeam_endpoint::whole;
use scalebeam_model::clock::Clock;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// Workers of one role, taken in turn.
#[derive(Debug)]
pub(crate) struct Pool {
    role: &'static str,
    workers: Vec<Arc<Worker>>,
    /// Requests so far.
    turn: AtomicUsize,
}

impl Pool {
    fn new(
        role: &'static str,
        urls: &[String],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, RouterError> {
        if urls.is_empty() {
            return Err(RouterError::NoWorker(role));
        }
        let worker = |url: &String| Worker::new(url, Arc::clone(clock)).map(Arc::new);
        let workers = urls.iter().map(worker).collect::<Result<_, BadUrl>>()?;
        Ok(Self { role, workers, turn: AtomicUsize::new(0) })
    }

    /// The worker whose turn it is.
    pub(crate) fn next(&self) -> &Arc<Worker> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.workers[turn % self.workers.len()]
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) prefill: Pool,
    pub(crate) decode: Pool,
    pub(crate) counts: Arc<Counts>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl App {
    pub(crate) fn new(config: &RouterConfig, clock: Arc<dyn Clock>) -> Result<Self, RouterError> {
        Ok(Self {
            prefill: Pool::new("prefill", &config.prefill, &clock)?,
            decode: Pool::new("decode", &config.decode, &clock)?,
            counts: Arc::default(),
            clock,
        })
    }

    fn pools(&self) -> [&Pool; 2] {
        [&self.prefill, &self.decode]
    }

    /// Asks every worker at the same time; answers in the order of the pools.
    async fn ask_all(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Vec<(&'static str, Arc<Worker>, Result<StatusCode, NoAnswer>)> {
        let all = self.pools().into_iter().flat_map(|p| p.workers.iter().map(|w| (p.role, w)));
        let mut asking = JoinSet::new();
        for (at, (role, worker)) in all.enumerate() {
            let worker = Arc::clone(worker);
            let (method, path, headers) = (method.clone(), path.to_owned(), headers.clone());
            asking.spawn(async move {
                let answer = worker.aside(method, &path, headers).await;
                (at, (role, worker, answer.map(|(status, _)| status)))
            });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asking.join_next().await {
            answers.extend(answer);
        }
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Answers one request.
pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Response<Reply> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::POST, "/v1/chat/completions" | "/v1/completions") => relay(&app, request).await,
        (&Method::GET, "/health") => health(&app).await,
        (&Method::GET, "/v1/models") => models(&app, request.headers().clone()).await,
        (&Method::GET, "/metrics") => {
            let pools = app.pools().map(|p| (p.role, p.workers.as_slice()));
            let page = counts::page(&app.counts, &pools);
            whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
        }
        (&Method::POST, "/reset_prefix_cache") => reset(&app, request).await,
        (method, path) => Refusal::missing(format!(
            "nothing answers {method} {path}: chat and text completions are sent through two workers"
        ))
        .reply(),
    }
}

/// 200 once every worker answers its own `/health`, with a list of those that do in the form of Dynamo's
/// frontend.
async fn health(app: &App) -> Response<Reply> {
    let answers = app.ask_all(&Method::GET, "/health", &HeaderMap::new()).await;
    let mut instances: Vec<Value> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    for (role, worker, answer) in answers {
        match answer {
            Ok(StatusCode::OK) => instances
                .push(json!({ "component": role, "endpoint": "generate", "url": worker.url })),
            Ok(status) => missing.push(format!("{role} {}: {status}", worker.url)),
            Err(error) => missing.push(format!("{role} {error}")),
        }
    }
    let (code, status) = match missing.is_empty() {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "waiting"),
    };
    let page = json!({ "status": status, "missing": missing, "instances": instances });
    whole(code, "application/json", page.to_string())
}

/// What a decode worker lists: all serve the same.
async fn models(app: &App, headers: HeaderMap) -> Response<Reply> {
    let Some(worker) = app.decode.workers.first() else {
        return Refusal::worker("no decode worker".to_owned()).reply();
    };
    match worker.aside(Method::GET, "/v1/models", passed_on(headers)).await {
        Ok((status, body)) => whole(status, "application/json", body),
        Err(error) => Refusal::from(error).reply(),
    }
}

/// Empties the prefix cache of every worker: 200, or the first that did not.
async fn reset(app: &App, request: Request<Incoming>) -> Response<Reply> {
    let target = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let headers = passed_on(request.into_parts().0.headers);
    for (role, worker, answer) in app.ask_all(&Method::POST, &target, &headers).await {
        match answer {
            Ok(status) if status.is_success() => {}
            Ok(status) => {
                let message =
                    format!("{role} worker {} answered {target} with {status}", worker.url);
                return Refusal::worker(message).reply();
            }
            Err(error) => return Refusal::from(error).reply(),
        }
    }
    whole(StatusCode::OK, "text/plain", Bytes::new())
}
