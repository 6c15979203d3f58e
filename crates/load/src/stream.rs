//! From reads to a record: what each read brought is parsed, counted and held until the answer ends.
//!
//! **Invariants:** no IO and no clock: bytes come in with the stamp of the read that brought them, so
//! a stamp can never include the cost of parsing. Every way an answer can end ([`End`]) becomes
//! exactly one outcome, in one place.

use crate::api::pattern::{Alike, Pattern};
use crate::api::{self, Choice, Chunk, Memory, Said, Usage};
use crate::http::receive::Stamp;
use crate::ndjson::Splitter;
use crate::sse::{self, SseError};
use scalebeam_model::driver::CancelReason;
use scalebeam_model::framing::{self, Framing, Kind};
use scalebeam_model::request::{
    Arrival, Failure, FailureClass, Outcome, RequestRecord, TokenSource,
};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;

/// The longest answer without a stream, or error body, that is kept.
const BODY_LIMIT: usize = 64 << 20;

/// Arrivals for which room is made before the request is sent.
const ARRIVALS_AHEAD: u32 = 8_192;

/// Longest text of a failure.
const DETAIL_CHARS: usize = 240;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Server-sent events.
    Events,
    /// One JSON document a line.
    Lines,
    /// One JSON document.
    Json,
    /// A stream was asked for and the head does not say what came: the first bytes will.
    Unsure,
    /// The words of an HTTP error.
    Error(u16),
}

impl From<Framing> for Format {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Events => Self::Events,
            Framing::Lines => Self::Lines,
            Framing::Document => Self::Json,
        }
    }
}

/// How an exchange ended, as far as the connection knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The body ended as HTTP says it ends.
    Whole,
    /// The connection was closed inside the body.
    Cut(String),
    /// The connection broke.
    Reset(String),
    /// What came is not HTTP, or not of a content type that can be read.
    Malformed(String),
    /// No connection.
    Connect(String),
    /// No TLS session.
    Tls(String),
    /// Given up by the driver.
    Cancelled(CancelReason),
}

/// One answer as it arrives.
#[derive(Debug)]
pub(crate) struct Answer {
    record: RequestRecord,
    api: Api,
    parser: sse::Parser,
    /// A stream was asked for.
    is_streamed: bool,
    splitter: Splitter,
    format: Format,
    /// The format was found by the first bytes.
    is_guess: bool,
    progress: Progress,
    /// A body that is only read when it is whole, or not understood yet.
    body: Vec<u8>,
}

/// What the events said so far.
#[derive(Debug, Default)]
struct Progress {
    memory: Memory,
    pattern: Pattern,
    /// Events of any kind.
    events: u32,
    done_at: Option<Nanos>,
    /// By choice index, which of the prompts' answers said that they ended.
    finished: Vec<bool>,
    finish_reason: Option<String>,
    contents: u32,
    /// Of `contents`, those that are reasoning and nothing else.
    reasoning: u32,
    first_answer_at: Option<Nanos>,
    usage: Option<Usage>,
    error: Option<String>,
    unparsed: u32,
    /// Raw JSON strings by choice, where the text is wanted.
    texts: Option<Vec<Vec<u8>>>,
    /// The same of the first choice's answer alone, where a later turn may carry it.
    answer: Option<Vec<u8>>,
}

/// A finished answer.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) record: RequestRecord,
    /// The texts by choice, as the raw JSON strings that arrived one after the other.
    pub(crate) texts: Option<Vec<Vec<u8>>>,
    /// What a later turn carries of it, in the same form.
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) cached_tokens: Option<u32>,
}

impl End {
    /// The same end, where no byte of an answer had come: a connection that ends there is no answer cut
    /// short.
    pub(crate) fn without_answer(self) -> Self {
        match self {
            Self::Cut(text) => Self::Reset(text),
            other => other,
        }
    }
}

impl Answer {
    /// An answer of which nothing has come; makes room for its arrivals, so that none is made later.
    pub(crate) fn new(
        mut record: RequestRecord,
        api: Api,
        is_streamed: bool,
        keep_text: bool,
    ) -> Self {
        let prompts = record.prompts.max(1) as usize;
        let room = record.asked_output_tokens.saturating_add(1).min(ARRIVALS_AHEAD);
        record.arrivals = Vec::with_capacity(room as usize);
        let texts = keep_text.then(|| vec![Vec::new(); prompts]);
        let progress = Progress { finished: vec![false; prompts], texts, ..Progress::default() };
        Self {
            record,
            api,
            parser: sse::Parser::new(),
            is_streamed,
            splitter: Splitter::default(),
            format: Format::Events,
            is_guess: false,
            progress,
            body: Vec::new(),
        }
    }

    /// Keeps what a later turn carries.
    pub(crate) fn for_later_turns(mut self) -> Self {
        self.progress.answer = Some(Vec::new());
        self
    }

    /// The record under way, for the stamps that the connection sets.
    pub(crate) fn record_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }

    /// The request's position in the phase.
    pub(crate) fn index(&self) -> u64 {
        self.record.index
    }

    /// Whether the answer was asked for as a stream.
    pub(crate) fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    /// Whether any output has come.
    pub(crate) fn has_token(&self) -> bool {
        !self.record.arrivals.is_empty()
    }

    /// The head has come; the body will be of `format`.
    pub(crate) fn begin(&mut self, format: Format) {
        self.format = format;
    }

    /// Whether the answer said that it is over (`[DONE]` or the family's own word), so that nothing of interest can follow.
    pub(crate) fn is_done(&self) -> bool {
        self.progress.done_at.is_some()
    }

    /// Takes in bytes of the body that one read brought.
    ///
    /// # Errors
    /// How the exchange ends, where no more of the body is wanted.
    pub(crate) fn take(&mut self, bytes: &[u8], stamp: Stamp) -> Result<(), End> {
        self.read(bytes, stamp).map_err(|e| End::Malformed(e.to_string()))?;
        let is_full = matches!(self.format, Format::Error(_)) && self.body.len() > 4 * DETAIL_CHARS;
        if is_full {
            return Err(End::Cut("the rest of the error was not read".to_owned()));
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], at: Stamp) -> Result<(), SseError> {
        let (api, progress, arrivals) = (self.api, &mut self.progress, &mut self.record.arrivals);
        match self.format {
            Format::Events => {
                return self.parser.feed(bytes, |e| progress.event(api, e, at, arrivals));
            }
            Format::Lines => {
                return self.splitter.feed(bytes, |line| progress.line(api, line, at, arrivals));
            }
            Format::Json | Format::Unsure | Format::Error(_) => {}
        }
        if self.body.len() + bytes.len() > BODY_LIMIT {
            return Err(SseError::TooLong(BODY_LIMIT));
        }
        self.body.extend_from_slice(bytes);
        if self.format == Format::Unsure {
            return self.look(at);
        }
        Ok(())
    }

    /// Decides what a body is, once enough of it is there. No event can be complete before, so none gets
    /// a stamp that is not its own.
    fn look(&mut self, at: Stamp) -> Result<(), SseError> {
        let Some(framing) = framing::sniff(&self.body) else { return Ok(()) };
        self.format = framing.into();
        self.is_guess = true;
        if framing == Framing::Document {
            return Ok(());
        }
        let held = std::mem::take(&mut self.body);
        self.read(&held, at)
    }

    /// The exchange ended at `at`. `host` names the server in the words of a failure.
    pub(crate) fn finish(mut self, end: End, at: Nanos, host: &str) -> Finished {
        if end == End::Whole {
            self.read_rest(Stamp::own(at));
        }
        // A document on one line looks like a stream of one line, but says nothing of when it was written.
        let is_one_line = self.format == Format::Lines && self.progress.events == 1;
        if self.is_guess && is_one_line && self.progress.says_whole() {
            self.record.arrivals.clear();
        }
        // A server that says `[DONE]` and then dawdles, or breaks off, had answered by then.
        let finished_at = self.progress.done_at.filter(|_| end != End::Whole).unwrap_or(at);
        let Self { mut record, mut progress, format, body, .. } = self;
        let verdict = match judge(&progress, format, &body, end) {
            Verdict::Lost(Outcome::TimedOut, class, _) if record.sent_at.is_none() => {
                let text = "time-out before there was a connection to send it on".to_owned();
                Verdict::Lost(Outcome::TimedOut, class, text)
            }
            other => other,
        };
        record.finished_at = finished_at;
        (record.outcome, record.failure) = match verdict {
            Verdict::Whole => (Outcome::Completed, None),
            Verdict::Abandoned => (Outcome::Abandoned, None),
            Verdict::Lost(outcome, class, text) => {
                (outcome, Some(failure(class, format, host, &text)))
            }
        };
        record.first_token_at = record.arrivals.first().map(|a| a.at);
        record.last_token_at = record.arrivals.last().map(|a| a.at);
        // What came whole has no time of a token.
        record.first_answer_at = record.first_token_at.and(progress.first_answer_at);
        record.unparsed_events = progress.unparsed;
        record.finish_reason = progress.finish_reason.take();
        count_tokens(&mut record, progress.usage, progress.reasoning);
        let cached_tokens = progress.usage.and_then(|u| u.cached_tokens);
        record.cached_prompt_tokens = cached_tokens;
        Finished { record, texts: progress.texts, answer: progress.answer, cached_tokens }
    }

    /// What only the end of the body completes: a last event without its blank line, a JSON document.
    fn read_rest(&mut self, at: Stamp) {
        let (api, progress, arrivals) = (self.api, &mut self.progress, &mut self.record.arrivals);
        match self.format {
            Format::Events => {
                let fed = self.parser.finish(|e| progress.event(api, e, at, arrivals));
                progress.unparsed += u32::from(fed.is_err());
            }
            Format::Lines => self.splitter.finish(|line| progress.line(api, line, at, arrivals)),
            Format::Json | Format::Unsure => {
                // Without a stream there is no time of a token, so no arrivals are noted.
                let data = std::mem::take(&mut self.body);
                if data.trim_ascii().is_empty() {
                    return;
                }
                progress.said(api::document(api, &data), at, &mut Vec::new());
            }
            Format::Error(_) => {}
        }
    }
}

impl Progress {
    fn event(&mut self, api: Api, e: sse::Event<'_>, at: Stamp, arrivals: &mut Vec<Arrival>) {
        self.data(api, e.name, e.data, at, arrivals);
    }

    fn line(&mut self, api: Api, line: &[u8], at: Stamp, arrivals: &mut Vec<Arrival>) {
        self.data(api, b"", line, at, arrivals);
    }

    fn data(&mut self, api: Api, name: &[u8], data: &[u8], at: Stamp, arrivals: &mut Vec<Arrival>) {
        // An event of SGLang says what those before it did not; it must be read in any case.
        let is_plain = name.is_empty() && api != Api::Sglang;
        if is_plain && let Some(alike) = self.pattern.text(data) {
            return self.text(alike, at, arrivals);
        }
        let said = api::event(api, &mut self.memory, name, data);
        if is_plain && let Ok(Said::Chunk(chunk)) = &said {
            self.pattern.learn(data, chunk);
        }
        self.said(said, at, arrivals);
    }

    /// An event of which only its text is new.
    fn text(&mut self, alike: Alike<'_>, at: Stamp, arrivals: &mut Vec<Arrival>) {
        self.events += 1;
        self.content(1, u32::from(alike.is_reasoning), at, arrivals);
        if let Some(texts) = self.texts.as_mut().and_then(|t| t.get_mut(alike.choice as usize)) {
            texts.extend_from_slice(alike.text);
        }
        let is_answer = alike.choice == 0 && alike.is_answer;
        if let Some(answer) = self.answer.as_mut().filter(|_| is_answer) {
            answer.extend_from_slice(alike.text);
        }
    }

    /// Notes chunks with output, of which `reasoning` are no part of the answer.
    fn content(&mut self, chunks: u32, reasoning: u32, at: Stamp, arrivals: &mut Vec<Arrival>) {
        self.contents += chunks;
        self.reasoning += reasoning;
        if reasoning < chunks && self.first_answer_at.is_none() {
            self.first_answer_at = Some(at.at);
        }
        note_arrival(arrivals, at, chunks);
    }

    fn said(
        &mut self,
        said: Result<Said<'_>, serde_json::Error>,
        at: Stamp,
        arrivals: &mut Vec<Arrival>,
    ) {
        self.events += 1;
        match said {
            Ok(Said::Chunk(chunk)) => self.chunk(&chunk, at, arrivals),
            Ok(Said::Done) => self.done_at = self.done_at.or(Some(at.at)),
            Ok(Said::Error(text)) => self.error = self.error.take().or(Some(text)),
            Err(_) => self.unparsed += 1,
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, at: Stamp, arrivals: &mut Vec<Arrival>) {
        for choice in chunk.choices.iter() {
            self.choice(choice);
        }
        let contents = chunk.contents();
        if contents > 0 {
            self.content(contents, chunk.reasoning(), at, arrivals);
        }
        // Engines that report usage with every chunk count up; the last one is the whole.
        if let Some(usage) = chunk.usage {
            self.usage.get_or_insert_default().absorb(usage);
        }
        if chunk.is_last {
            self.done_at = self.done_at.or(Some(at.at));
        }
    }

    fn choice(&mut self, choice: &Choice<'_>) {
        let index = choice.index as usize;
        if let Some(reason) = choice.finish_reason() {
            if let Some(finished) = self.finished.get_mut(index) {
                *finished = true;
            }
            if self.finish_reason.as_deref() != Some(&*reason) {
                self.finish_reason = Some(reason.into_owned());
            }
        }
        if let Some(text) = self.texts.as_mut().and_then(|t| t.get_mut(index)) {
            for piece in choice.texts() {
                piece.append_to(text);
            }
        }
        if let Some(answer) = self.answer.as_mut().filter(|_| index == 0) {
            for piece in choice.texts().filter(|piece| piece.is_answer()) {
                piece.append_to(answer);
            }
        }
    }

    fn says_whole(&self) -> bool {
        self.done_at.is_some() || self.finished.iter().all(|&f| f)
    }
}

/// Chunks that one read brought cannot be told apart in time: they are one arrival.
fn note_arrival(arrivals: &mut Vec<Arrival>, stamp: Stamp, chunks: u32) {
    match arrivals.last_mut() {
        Some(last) if last.at == stamp.at => last.chunks += chunks,
        _ => arrivals.push(Arrival::new(stamp.at, chunks, stamp.read_at)),
    }
}

/// How the body is to be read.
///
/// # Errors
/// When it cannot be read at all.
pub(crate) fn format_of(
    status: u16,
    content_type: Option<&str>,
    is_streamed: bool,
) -> Result<Format, End> {
    if !(200..300).contains(&status) {
        return Ok(Format::Error(status));
    }
    match framing::kind(content_type, is_streamed) {
        Kind::Is(framing) => Ok(framing.into()),
        Kind::Unsure => Ok(Format::Unsure),
        Kind::Foreign => Err(End::Malformed(format!(
            "the answer is of type {}",
            content_type.unwrap_or_default()
        ))),
    }
}

/// What is to be said of an answer.
enum Verdict {
    Whole,
    /// Given up because the plan says so.
    Abandoned,
    Lost(Outcome, FailureClass, String),
}

fn judge(progress: &Progress, format: Format, body: &[u8], end: End) -> Verdict {
    let failed = |class, text| Verdict::Lost(Outcome::Failed, class, text);
    if let Format::Error(status) = format {
        let outcome = if matches!(status, 429 | 503) { Outcome::Rejected } else { Outcome::Failed };
        return Verdict::Lost(outcome, FailureClass::HttpStatus, api::error_text(body));
    }
    if let Some(text) = &progress.error {
        return failed(FailureClass::ServerError, text.clone());
    }
    let is_done = progress.done_at.is_some();
    match end {
        End::Connect(text) => failed(FailureClass::Connect, text),
        End::Tls(text) => failed(FailureClass::Tls, text),
        End::Reset(text) if !is_done => failed(FailureClass::Reset, text),
        End::Malformed(text) if !is_done => failed(FailureClass::MalformedStream, text),
        End::Cut(text) if !is_done => {
            Verdict::Lost(Outcome::Truncated, FailureClass::Truncated, text)
        }
        End::Cancelled(CancelReason::TimedOut) if !is_done => {
            let seen = format!("time-out after {} chunks", progress.contents);
            Verdict::Lost(Outcome::TimedOut, FailureClass::Timeout, seen)
        }
        End::Cancelled(CancelReason::Interrupted) if !is_done => {
            let text = "interrupted".to_owned();
            Verdict::Lost(Outcome::Cancelled, FailureClass::Interrupted, text)
        }
        End::Cancelled(CancelReason::Abandoned) if !is_done => Verdict::Abandoned,
        End::Whole if progress.events == 0 => {
            failed(FailureClass::EmptyOutput, "the answer held nothing".to_owned())
        }
        _ if progress.says_whole() => judge_whole(progress),
        _ if progress.unparsed > 0 => {
            let text = format!("{} events could not be parsed", progress.unparsed);
            failed(FailureClass::MalformedStream, text)
        }
        _ => {
            let text = "the stream ended without a finish reason or [DONE]".to_owned();
            Verdict::Lost(Outcome::Truncated, FailureClass::Truncated, text)
        }
    }
}

fn judge_whole(progress: &Progress) -> Verdict {
    if progress.contents > 0 {
        return Verdict::Whole;
    }
    let text = "the whole answer held no token".to_owned();
    Verdict::Lost(Outcome::Failed, FailureClass::EmptyOutput, text)
}

fn failure(class: FailureClass, format: Format, host: &str, text: &str) -> Failure {
    let status = match format {
        Format::Error(status) => Some(status),
        Format::Events | Format::Lines | Format::Json | Format::Unsure => None,
    };
    Failure { class, status, detail: shorten(&format!("{host}: {text}")) }
}

/// One line, at most [`DETAIL_CHARS`] characters.
pub(crate) fn shorten(text: &str) -> String {
    let mut line = String::new();
    for (i, word) in text.split_whitespace().enumerate() {
        if i > 0 {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > 4 * DETAIL_CHARS {
            break;
        }
    }
    match line.char_indices().nth(DETAIL_CHARS) {
        Some((end, _)) => {
            line.truncate(end);
            line + "..."
        }
        None => line,
    }
}

/// `reasoning` chunks were told apart from the answer's.
fn count_tokens(record: &mut RequestRecord, usage: Option<Usage>, reasoning: u32) {
    record.prompt_tokens = usage.and_then(|u| u.prompt_tokens);
    let counted = usage.and_then(|u| u.output_tokens).map(|n| (n, TokenSource::Usage));
    let chunks = record.chunks();
    let counted = counted.or((chunks > 0).then_some((chunks, TokenSource::Chunks)));
    record.output_tokens = counted.map(|(n, _)| n);
    record.token_source = counted.map(|(_, source)| source);
    let told = usage.and_then(|u| u.reasoning_tokens).map(|n| (n, TokenSource::Usage));
    let is_told_apart = chunks > 0 && reasoning > 0;
    let told = told.or(is_told_apart.then_some((reasoning, TokenSource::Chunks)));
    record.reasoning_tokens = told.map(|(n, _)| n);
    record.reasoning_source = told.map(|(_, source)| source);
}

#[cfg(test)]
mod tests;
