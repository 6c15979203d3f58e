//! The two steps of a request.

use crate::app::App;
use crate::reply::{Refusal, Reply, passed_on, passing};
use crate::request::{Members, blocks};
use crate::worker::{Lease, Worker};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, Uri};
use std::sync::Arc;

/// Largest body of a request, and of a prefill worker's answer: a million-token prompt is below it.
const MAX_BODY: usize = 64 << 20;

/// Answers a request for a completion.
pub(crate) async fn relay(app: &App, request: Request<Incoming>) -> Response<Reply> {
    let mut tally = app.counts.begin();
    match two_steps(app, request).await {
        Ok((answer, lease)) => passing(answer, lease, tally),
        Err(refusal) => {
            tally.ends(refusal.outcome);
            refusal.reply()
        }
    }
}

/// The answer of the decode worker, or that of a prefill worker that refuses.
async fn two_steps(
    app: &App,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|e| Refusal::bad(format!("cannot read the body: {e}")))?.to_bytes();
    let received_at = app.clock.now();
    let asked = Asked { target: head.uri, headers: passed_on(head.headers) };
    let members = Members::read(&body).map_err(Refusal::bad)?;
    let for_prefill = members.for_prefill();
    let sent_at = app.clock.now();

    let worker = app.prefill.next();
    let (answer, lease) = asked.of(worker, for_prefill).await?;
    if !answer.status().is_success() {
        return Ok((answer, lease));
    }
    let prefilled = whole(answer, lease).await?;
    let prefilled_at = app.clock.now();
    let params = blocks(&prefilled).ok_or_else(|| no_blocks(worker))?;
    let for_decode = members.for_decode(params);
    let own = sent_at.since(received_at) + app.clock.now().since(prefilled_at);
    app.counts.own.add(own);
    app.counts.prefill.add(prefilled_at.since(sent_at));

    asked.of(app.decode.next(), for_decode).await
}

/// What both workers are asked alike.
struct Asked {
    target: Uri,
    headers: HeaderMap,
}

impl Asked {
    async fn of(
        &self,
        worker: &Arc<Worker>,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let path = self.target.path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        *request.headers_mut() = self.headers.clone();
        worker.counts.sent();
        let answer = worker.send(request).await;
        if answer.as_ref().map_or(true, |(answer, _)| !answer.status().is_success()) {
            worker.counts.failed();
        }
        Ok(answer?)
    }
}

/// The whole answer of a prefill worker, whose connection is kept.
async fn whole(answer: Response<Incoming>, lease: Lease) -> Result<Bytes, Refusal> {
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|e| {
        lease.worker.counts.failed();
        let url = &lease.worker.url;
        Refusal::cut(format!("the answer of prefill worker {url} broke off: {e}"))
    })?;
    lease.give_back();
    Ok(body.to_bytes())
}

fn no_blocks(worker: &Worker) -> Refusal {
    Refusal::worker(format!(
        "prefill worker {} answered without kv_transfer_params, so a decode worker would compute the prompt \
         again: start both with --kv-transfer-config '{{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\"}}'",
        worker.url
    ))
}
