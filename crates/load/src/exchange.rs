//! What the two ways to carry requests have in common: what is sent, and what came of it.

use crate::http::source::Sources;
use crate::http::target::Address;
use crate::stock::Prepared;
use crate::stream::{Answer, End, Finished};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use rustls::ClientConfig;
use scalebeam_model::api::HttpVersion;
use scalebeam_model::clock::Clock;
use scalebeam_model::request::RequestRecord;
use scalebeam_model::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// How long a server may keep a body open after `[DONE]` before the connection is given up instead of
/// kept. The answer is complete by then either way.
pub(crate) const GRACE_AFTER_DONE: Nanos = Nanos::from_secs(1);

/// TCP handshakes with one target under way at a time. More at once overflow the queues of most servers, whose kernel
/// then drops some and is asked again only a second later.
pub(crate) const HANDSHAKES_AT_MOST: usize = 256;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all exchanges of a phase share.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) addresses: Arc<[Address]>,
    /// What every request carries, `Host` apart.
    pub(crate) headers: HeaderMap,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) sources: Sources,
    pub(crate) http: HttpVersion,
    pub(crate) id_prefix: String,
    pub(crate) keep_text: bool,
    /// Later turns carry what was answered.
    pub(crate) keep_answer: bool,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) answer: Answer,
    pub(crate) json: Bytes,
    pub(crate) target: usize,
    /// When its own connection was begun; absent where one was kept.
    pub(crate) opening_since: Option<Nanos>,
}

impl Exchange {
    pub(crate) fn new(record: RequestRecord, prepared: &Prepared, setup: &Setup) -> Box<Self> {
        let target = usize::from(record.target);
        let record = prepared.label(record);
        let answer = Answer::new(record, prepared.api, prepared.stream, setup.keep_text);
        let answer = if setup.keep_answer { answer.for_later_turns() } else { answer };
        let json = prepared.json.clone();
        Box::new(Self { answer, json, target, opening_since: None })
    }

    /// The request's position in the phase.
    pub(crate) fn index(&self) -> u64 {
        self.answer.index()
    }

    /// Its record, whole. `label` names the server in the words of a failure.
    pub(crate) fn finish(mut self, stamps: Stamps, end: End, at: Nanos, label: &str) -> Finished {
        let record = self.answer.record_mut();
        (record.sent_at, record.first_byte_at) = (stamps.sent, stamps.first_byte);
        let end = if stamps.first_byte.is_none() { end.without_answer() } else { end };
        self.answer.finish(end, at, label)
    }
}

/// What a connection knows of one exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// When the last byte of the request was handed to the kernel.
    pub(crate) sent: Option<Nanos>,
    /// When the first byte of the answer was there.
    pub(crate) first_byte: Option<Nanos>,
}

/// What happened and was not handed out yet.
#[derive(Debug)]
pub(crate) struct Outcomes {
    ended: VecDeque<Box<Finished>>,
    /// First tokens, where somebody wants them.
    first_tokens: Option<VecDeque<(u64, Nanos)>>,
    /// Requests that were sent again on another connection.
    pub(crate) resent: u64,
}

impl Outcomes {
    pub(crate) fn new(wants_first_tokens: bool) -> Self {
        let first_tokens = wants_first_tokens.then(VecDeque::new);
        Self { ended: VecDeque::new(), first_tokens, resent: 0 }
    }

    pub(crate) fn push(&mut self, finished: Finished) {
        self.ended.push_back(Box::new(finished));
    }

    /// Notes the first token of `answer`, which had none before something was read.
    pub(crate) fn note_first_token(&mut self, answer: &mut Answer) {
        if let Some(first) = &mut self.first_tokens {
            let record = answer.record_mut();
            first.extend(record.arrivals.first().map(|arrival| (record.index, arrival.at)));
        }
    }

    /// The next exchange that ended.
    pub(crate) fn next_ended(&mut self) -> Option<Box<Finished>> {
        self.ended.pop_front()
    }

    /// The next request whose first token arrived, and when.
    pub(crate) fn next_first_token(&mut self) -> Option<(u64, Nanos)> {
        self.first_tokens.as_mut()?.pop_front()
    }
}
