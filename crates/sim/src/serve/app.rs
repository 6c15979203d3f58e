//! What all connections share, and which path goes where.

use super::ServeConfig;
use super::api::{self, Kind};
use super::faults::Faults;
use super::generate;
use super::pacer::Handle;
use super::replies::{Refusal, Reply, error, json_reply};
use super::tokens;
use super::truth::Line;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use scalebeam_endpoint::whole;
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// Largest request body: a million-token prompt as JSON is below it.
const MAX_BODY: usize = 64 << 20;

/// What all connections share.
#[derive(Debug)]
pub(super) struct App {
    /// Names of the model; never empty.
    pub(super) names: Vec<String>,
    pub(super) seed: u64,
    pub(super) max_model_len: u64,
    pub(super) faults: Faults,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pacer: Handle,
    truth: Option<Sender<Line>>,
    ready_at: Nanos,
    /// Seconds since the Unix epoch, as `created` everywhere.
    pub(super) created: u64,
    /// Completion requests so far; faults are drawn by this number.
    pub(super) requests: AtomicU64,
    /// Engine requests so far.
    pub(super) choices: AtomicU64,
}

impl App {
    /// Everything from its parts; the start-up delay begins now.
    pub(super) fn new(
        config: ServeConfig,
        clock: Arc<dyn Clock>,
        pacer: Handle,
        truth: Option<Sender<Line>>,
    ) -> Self {
        let mut names = config.model_names;
        if names.is_empty() {
            names.push(config.engine.model);
        }
        Self {
            names,
            seed: config.engine.seed,
            max_model_len: u64::from(config.engine.max_model_len),
            faults: config.faults,
            ready_at: clock.now() + config.startup_delay,
            created: clock.unix_now().0 / 1_000_000_000,
            clock,
            pacer,
            truth,
            requests: AtomicU64::new(0),
            choices: AtomicU64::new(0),
        }
    }

    /// The next number of `counter`.
    pub(super) fn next(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a line to the truth log, where there is one.
    pub(super) fn log(&self, line: Line) {
        if let Some(truth) = &self.truth {
            // The writer is gone only when it failed, which `Server::run` reports.
            drop(truth.send(line));
        }
    }

    /// The failed health check, if the server is not ready or of no further use.
    fn unhealthy(&self) -> Option<Response<Reply>> {
        if self.clock.now() < self.ready_at {
            return Some(error(StatusCode::SERVICE_UNAVAILABLE, "the engine is starting"));
        }
        let failure = self.pacer.metrics().failure.clone();
        failure.map(|problem| error(StatusCode::INTERNAL_SERVER_ERROR, &problem))
    }
}

/// Answers one request.
pub(super) async fn answer(
    app: Arc<App>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Response<Reply> {
    if let Some(unhealthy) = app.unhealthy() {
        return unhealthy;
    }
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    match request.uri().path() {
        "/health" | "/ping" if get => whole(StatusCode::OK, "text/plain", ""),
        "/v1/models" if get => models(&app),
        "/version" if get => {
            json_reply(&json!({ "version": env!("CARGO_PKG_VERSION"), "engine": "emulated" }))
        }
        "/metrics" if get => metrics(&app),
        "/reset_prefix_cache" if post => whole(StatusCode::OK, "text/plain", ""),
        "/tokenize" if post => tokenize(&app, request).await,
        "/v1/chat/completions" if post => generate::respond(app, reset, Kind::Chat, request).await,
        "/v1/completions" if post => generate::respond(app, reset, Kind::Text, request).await,
        path => {
            error(StatusCode::NOT_FOUND, &format!("nothing answers {} {path}", request.method()))
        }
    }
}

/// The whole body, or why not.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|problem| Refusal::bad(format!("cannot read the body: {problem}")))
}

fn models(app: &App) -> Response<Reply> {
    let entry = |name: &String| {
        json!({
            "id": name,
            "object": "model",
            "created": app.created,
            "owned_by": "scalebeam",
            "root": app.names[0],
            "parent": null,
            "max_model_len": app.max_model_len,
        })
    };
    let data: Vec<_> = app.names.iter().map(entry).collect();
    json_reply(&json!({ "object": "list", "data": data }))
}

fn metrics(app: &App) -> Response<Reply> {
    let page = app.pacer.metrics().render(&app.names[0]);
    whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

async fn tokenize(app: &App, request: Request<Incoming>) -> Response<Reply> {
    let body = read_body(request).await;
    match body.and_then(|body| api::tokenize_text(&body).map_err(Refusal::bad)) {
        Ok((text, template)) => {
            let ids = tokens::token_ids(&text);
            json_reply(&json!({
                "count": ids.len() as u64 + template,
                "max_model_len": app.max_model_len,
                "tokens": ids,
            }))
        }
        Err(refusal) => refusal.reply(),
    }
}
