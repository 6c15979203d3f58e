//! Whole replies: JSON, text, and errors in OpenAI's shape.

use super::stream::StreamBody;
use http_body_util::Either;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use scalebeam_endpoint::{error_body, whole};
use serde_json::Value;

/// The body of any reply.
pub(super) type Reply = scalebeam_endpoint::Reply<StreamBody>;

/// A header value from any text; what a header cannot hold becomes empty.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A JSON reply.
pub(super) fn json_reply(value: &Value) -> Response<Reply> {
    whole(StatusCode::OK, "application/json", value.to_string())
}

/// A stream that begins now.
pub(super) fn event_stream(body: StreamBody) -> Response<Reply> {
    let mut response = Response::new(Either::Right(Box::new(body)));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Adds `x-request-id`.
pub(super) fn with_id(mut response: Response<Reply>, id: &str) -> Response<Reply> {
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), header(id));
    response
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
    let body = error_body(status, kind, message).to_string();
    let mut response = whole(status, "application/json", body);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
