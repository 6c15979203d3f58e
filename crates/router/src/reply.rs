//! What a client gets: a worker's answer as it comes, or a reply of the router's own.

use crate::counts::{Outcome, Tally};
use crate::worker::{Lease, NoAnswer};
use bytes::Bytes;
use http_body_util::Either;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode, header};
use scalebeam_endpoint::{error_body, whole};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Headers that are between two neighbours, and those that say how a body is sent: each side has its own.
/// An answer that was compressed for the client could not be read here.
const NOT_PASSED_ON: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::ACCEPT_ENCODING,
];

/// `headers` without those that are not passed on.
pub(crate) fn passed_on(mut headers: HeaderMap) -> HeaderMap {
    for name in &NOT_PASSED_ON {
        headers.remove(name);
    }
    headers
}

/// The body of any reply.
pub(crate) type Reply = scalebeam_endpoint::Reply<Passing>;

/// An answer on its way through. Dropped before its end, it closes the connection to the worker, by which
/// an engine knows that nobody waits any more.
#[derive(Debug)]
pub(crate) struct Passing {
    body: Incoming,
    /// Until the end.
    lease: Option<Lease>,
    tally: Tally,
    /// What its end means.
    whole: Outcome,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.tally.passed_on(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => self.breaks_off(),
            None => {}
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.settle();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Passing {
    /// The worker did not answer to the end.
    fn breaks_off(&mut self) {
        self.tally.ends(Outcome::Cut);
        if let Some(lease) = &self.lease {
            lease.worker.counts.failed();
        }
    }

    /// The answer is at its end.
    fn settle(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.tally.ends(self.whole);
            lease.give_back();
        }
    }
}

/// A worker's answer, passed on.
pub(crate) fn passing(answer: Response<Incoming>, lease: Lease, tally: Tally) -> Response<Reply> {
    let (head, body) = answer.into_parts();
    let is_success = head.status.is_success();
    let whole = if is_success { Outcome::Completed } else { Outcome::Refused };
    let mut passing = Passing { body, lease: Some(lease), tally, whole };
    if passing.body.is_end_stream() {
        passing.settle();
    }
    let mut response = Response::new(Either::Right(Box::new(passing)));
    *response.status_mut() = head.status;
    *response.headers_mut() = passed_on(head.headers);
    response
}

/// Why the router answers in a worker's place.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    pub(crate) outcome: Outcome,
}

impl Refusal {
    /// The request is wrong.
    pub(crate) fn bad(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message, outcome: Outcome::Refused }
    }

    /// There is no such path.
    pub(crate) fn missing(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, message, outcome: Outcome::Refused }
    }

    /// A worker did something that it should not have.
    pub(crate) fn worker(message: String) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, message, outcome: Outcome::Refused }
    }

    /// A worker's answer broke off before any of it was passed on.
    pub(crate) fn cut(message: String) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, message, outcome: Outcome::Cut }
    }

    /// As OpenAI-compatible servers word it.
    pub(crate) fn reply(&self) -> Response<Reply> {
        let kind = match self.status {
            StatusCode::BAD_REQUEST => "BadRequestError",
            StatusCode::NOT_FOUND => "NotFoundError",
            _ => "BadGatewayError",
        };
        let body = error_body(self.status, kind, &self.message).to_string();
        whole(self.status, "application/json", body)
    }
}

impl From<NoAnswer> for Refusal {
    fn from(error: NoAnswer) -> Self {
        let message = format!("no answer of worker {error}");
        Self { status: StatusCode::BAD_GATEWAY, message, outcome: Outcome::Unreachable }
    }
}
