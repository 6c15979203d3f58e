//! Whole replies: JSON, text, and errors in OpenAI's shape.

use super::stream::{Broken, StreamBody};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of any reply.
#[derive(Debug)]
pub(super) enum Reply {
    /// Known in full.
    Whole(Full<Bytes>),
    /// Told as it happens.
    Stream(Box<StreamBody>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A header value from any text; what a header cannot hold becomes empty.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// `body` with a status and a content type.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON reply.
pub(super) fn json_reply(value: &Value) -> Response<Reply> {
    whole(StatusCode::OK, "application/json", value.to_string())
}

/// A stream that begins now.
pub(super) fn event_stream(body: StreamBody) -> Response<Reply> {
    let mut response = Response::new(Reply::Stream(Box::new(body)));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Adds `x-request-id`.
pub(super) fn with_id(mut response: Response<Reply>, id: &str) -> Response<Reply> {
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), header(id));
    response
}

/// An error as OpenAI-compatible servers word it.
pub(super) fn error_body(status: u16, kind: &str, message: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": status } })
}

/// A request that is not answered, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// The request is wrong.
    pub(super) fn bad(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }

    /// What is asked for does not exist.
    pub(super) fn missing(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, message }
    }

    /// As a reply.
    pub(super) fn reply(&self) -> Response<Reply> {
        error(self.status, &self.message)
    }
}

/// An error reply; those that may pass by themselves say when to try again.
pub(super) fn error(status: StatusCode, message: &str) -> Response<Reply> {
    let kind = match status.as_u16() {
        404 => "NotFoundError",
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        500..=599 => "InternalServerError",
        _ => "BadRequestError",
    };
    let body = error_body(status.as_u16(), kind, message).to_string();
    let mut response = whole(status, "application/json", body);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
