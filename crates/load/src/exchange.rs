//! One request from dispatch to record: choose a connection, send, read, end.
//!
//! **Invariants:** every dispatch ends in exactly one record, whatever happens. A request is sent a
//! second time in one case only: on a connection that had carried requests before, when it turns out
//! at once that the server had closed it. That is the race that HTTP keep-alive has built in (RFC 9112,
//! 9.3.1), and some servers close after every answer without saying so. It is done once, on a fresh
//! connection, with `scheduled_at` kept; the record says that it was resent, and from then on no
//! connection to that server is kept. A server that takes longer to hang up has read the request, and
//! a failure on a fresh connection is final.

use crate::http::conn::Connection;
use crate::http::io::Stamps;
use crate::http::target::Address;
use crate::stock::Prepared;
use crate::stream::{Answer, End, Finished, Format};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::ClientConfig;
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::CancelReason;
use scalebeam_model::request::RequestRecord;
use scalebeam_model::units::Nanos;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a server may keep a body open after `[DONE]` before the connection is given up instead of
/// kept. The answer is complete by then either way.
const GRACE_AFTER_DONE: Duration = Duration::from_secs(1);

/// A server that hangs up later than this after the request was sent may have been at work on it.
const ROUND_TRIP_AT_MOST: Nanos = Nanos::from_millis(50);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all exchanges of a shard share.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) addresses: Arc<[Address]>,
    /// By target, the headers of every request.
    pub(crate) headers: Vec<HeaderMap>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) id_prefix: String,
    pub(crate) keep_text: bool,
    /// By target, the connections that wait for a request. The one used last is taken first, so that
    /// a falling load leaves the others to grow old and be closed by the server.
    idle: Vec<RefCell<Vec<Connection>>>,
    /// By target, whether the server was seen to close a connection that it had not said it would.
    closes_unasked: Vec<Cell<bool>>,
    reconnects: Cell<u64>,
}

/// Tells one exchange to give up.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    why: Cell<Option<CancelReason>>,
    task: RefCell<Option<Waker>>,
}

impl Cancel {
    /// The first reason given counts.
    pub(crate) fn give_up(&self, why: CancelReason) {
        if self.why.get().is_none() {
            self.why.set(Some(why));
        }
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn wake_later(&self, task: &Waker) {
        let mut current = self.task.borrow_mut();
        if !current.as_ref().is_some_and(|w| w.will_wake(task)) {
            *current = Some(task.clone());
        }
    }

    /// `work`, unless it is told to give up first.
    async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, CancelReason> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Some(why) = self.why.get() {
                return Poll::Ready(Err(why));
            }
            self.wake_later(cx.waker());
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

impl Lines {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        addresses: Arc<[Address]>,
        headers: &HeaderMap,
        tls: Option<Arc<ClientConfig>>,
        id_prefix: String,
        keep_text: bool,
    ) -> Self {
        Self {
            clock,
            headers: addresses.iter().map(|a| a.with_host(headers)).collect(),
            idle: addresses.iter().map(|_| RefCell::default()).collect(),
            tls,
            id_prefix,
            keep_text,
            closes_unasked: addresses.iter().map(|_| Cell::new(false)).collect(),
            addresses,
            reconnects: Cell::new(0),
        }
    }

    /// Whether a connection that ended now had been closed by the server before the request came: the
    /// word of it needs no longer than the way there and back.
    fn was_closed_before(&self, stamps: &Stamps) -> bool {
        stamps.sent().is_none_or(|sent| self.clock.now().since(sent) < ROUND_TRIP_AT_MOST)
    }

    /// Connections to `target` are used once from now on.
    fn never_keep(&self, target: usize) {
        self.closes_unasked[target].set(true);
        self.idle[target].borrow_mut().clear();
    }

    /// Requests that were sent again because a kept connection turned out to be closed.
    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.get()
    }

    async fn take_idle(&self, target: usize) -> Option<Connection> {
        loop {
            let mut kept = self.idle[target].borrow_mut().pop()?;
            if kept.is_reusable().await {
                return Some(kept);
            }
        }
    }

    async fn keep(&self, target: usize, mut connection: Connection) {
        if !self.closes_unasked[target].get() && connection.is_reusable().await {
            self.idle[target].borrow_mut().push(connection);
        }
    }

    fn request(&self, target: usize, index: u64, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from(self.addresses[target].path.clone());
        *request.headers_mut() = self.headers[target].clone();
        if let Ok(id) = HeaderValue::try_from(format!("{}-{index}", self.id_prefix)) {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        request
    }
}

/// Carries one request to its end.
pub(crate) async fn carry(
    lines: &Lines,
    record: RequestRecord,
    prepared: Prepared,
    cancel: &Cancel,
) -> Finished {
    let address = &lines.addresses[usize::from(record.target)];
    let stream = prepared.stream;
    let mut answer = Answer::new(prepared.label(record), lines.keep_text);
    // Outside the exchange, because a cancelled one is dropped and its stamps count all the same.
    let line = RefCell::new(None);
    let exchange = exchange(lines, &mut answer, &prepared.json, stream, &line);
    let (end, at) = match cancel.or(exchange).await {
        Ok(ended) => ended,
        Err(why) => (End::Cancelled(why), lines.clock.now()),
    };
    if let Some(stamps) = line.take() {
        note_stamps(answer.record_mut(), &stamps);
    }
    answer.finish(end, at, &address.label)
}

fn note_stamps(record: &mut RequestRecord, stamps: &Stamps) {
    record.sent_at = stamps.sent();
    record.first_byte_at = stamps.first_byte();
}

type Line = RefCell<Option<Rc<Stamps>>>;

async fn exchange(
    lines: &Lines,
    answer: &mut Answer,
    json: &Bytes,
    stream: bool,
    line: &Line,
) -> (End, Nanos) {
    let (index, target) = (answer.record_mut().index, usize::from(answer.record_mut().target));
    if let Some(mut kept) = lines.take_idle(target).await {
        *line.borrow_mut() = Some(Rc::clone(kept.stamps()));
        match kept.send(lines.request(target, index, json)).await {
            Ok(head) => return read(lines, kept, head, answer, stream).await,
            Err(end) if kept.stamps().first_byte().is_some() => return (end, lines.clock.now()),
            Err(end) if !lines.was_closed_before(kept.stamps()) => {
                return (end.without_answer(), lines.clock.now());
            }
            Err(_) => {
                answer.record_mut().resent = true;
                lines.reconnects.set(lines.reconnects.get() + 1);
                lines.never_keep(target);
            }
        }
    }
    let mut fresh = match open(lines, target, answer).await {
        Ok(fresh) => fresh,
        Err(end) => return (end, lines.clock.now()),
    };
    *line.borrow_mut() = Some(Rc::clone(fresh.stamps()));
    match fresh.send(lines.request(target, index, json)).await {
        Ok(head) => read(lines, fresh, head, answer, stream).await,
        Err(end) => (end.without_answer(), lines.clock.now()),
    }
}

async fn open(lines: &Lines, target: usize, answer: &mut Answer) -> Result<Connection, End> {
    let began = lines.clock.now();
    let opened =
        Connection::open(&lines.addresses[target], lines.tls.as_ref(), &lines.clock).await?;
    answer.record_mut().connect = Some(lines.clock.now().since(began));
    Ok(opened)
}

/// Reads the answer to its end and keeps the connection where that is allowed.
async fn read(
    lines: &Lines,
    mut connection: Connection,
    head: Response<Incoming>,
    answer: &mut Answer,
    stream: bool,
) -> (End, Nanos) {
    let target = usize::from(answer.record_mut().target);
    let (head, mut body) = head.into_parts();
    match format_of(head.status, head.headers.get(CONTENT_TYPE), stream) {
        Ok(format) => answer.begin(format),
        Err(end) => return (end, connection.stamps().last_read()),
    }
    let end = read_body(&mut connection, &mut body, answer).await;
    let at = match &end {
        End::Whole | End::Cut(_) => connection.stamps().ended(),
        _ => lines.clock.now(),
    };
    if end == End::Whole {
        lines.keep(target, connection).await;
    }
    (end, at)
}

async fn read_body(connection: &mut Connection, body: &mut Incoming, answer: &mut Answer) -> End {
    loop {
        let next = connection.next_frame(body);
        let next = if answer.is_done() {
            match tokio::time::timeout(GRACE_AFTER_DONE, next).await {
                Ok(next) => next,
                Err(_) => return End::Cut("the body was left open after [DONE]".to_owned()),
            }
        } else {
            next.await
        };
        let bytes = match next {
            None => return End::Whole,
            Some(Err(end)) => return end,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        // The frame came with, or was left over from, the read that was stamped last.
        if let Err(e) = answer.read(&bytes, connection.stamps().last_read()) {
            return End::Malformed(e.to_string());
        }
        if answer.is_full() {
            return End::Cut("the rest of the error was not read".to_owned());
        }
    }
}

/// How the body is to be read.
fn format_of(
    status: StatusCode,
    content_type: Option<&HeaderValue>,
    stream: bool,
) -> Result<Format, End> {
    if !status.is_success() {
        return Ok(Format::Error(status.as_u16()));
    }
    let asked = if stream { Format::Events } else { Format::Json };
    let Some(named) = content_type.and_then(|v| v.to_str().ok()) else { return Ok(asked) };
    let kind = named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => Ok(Format::Events),
        "application/json" => Ok(Format::Json),
        // Some proxies forget what they carry.
        "" | "text/plain" | "application/octet-stream" => Ok(asked),
        _ => Err(End::Malformed(format!("the answer is of type {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides_how_an_answer_is_read() {
        let of = |status, kind: &'static str, stream| {
            format_of(status, Some(&HeaderValue::from_static(kind)), stream)
        };
        let ok = StatusCode::OK;
        assert_eq!(of(ok, "Text/Event-Stream; charset=utf-8", true), Ok(Format::Events));
        assert_eq!(of(ok, "application/json", true), Ok(Format::Json));
        assert_eq!(of(ok, "text/plain", true), Ok(Format::Events));
        assert_eq!(format_of(ok, None, false), Ok(Format::Json));
        assert!(matches!(of(ok, "text/html", true), Err(End::Malformed(_))));
        let redirect = StatusCode::TEMPORARY_REDIRECT;
        assert_eq!(of(redirect, "text/html", true), Ok(Format::Error(307)));
    }
}
