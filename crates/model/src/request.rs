//! What is known about one request: instants, counts and an outcome. Raw facts; every percentile,
//! chart and verdict is computed from these and never stored instead of them.

use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The part of a trial that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sent so that caches, graphs and connections are as they will be; never in a result.
    Warmup,
    /// What is reported.
    Measure,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warmup => "warmup",
            Self::Measure => "measure",
        })
    }
}

/// How a request ended. Every request that the plan asked for has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer arrived whole: a finish reason or `[DONE]` was seen.
    Completed,
    /// The answer began and the stream ended without saying that it was whole.
    Truncated,
    /// The server declined to serve it (HTTP 429 or 503).
    Rejected,
    /// It could not be sent, or the answer was an error.
    Failed,
    /// No whole answer within the load's time-out.
    TimedOut,
    /// Given up by us because the plan says so, as an impatient user does. No failure of anybody, and no
    /// measurement of a latency either.
    Abandoned,
    /// Given up by us, because the run was interrupted.
    Cancelled,
    /// Never sent: the run ended before a slot was free, or its session ended before its turn.
    Dropped,
}

impl Outcome {
    /// All outcomes, in the order in which tables show them.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::Truncated,
        Self::Rejected,
        Self::Failed,
        Self::TimedOut,
        Self::Abandoned,
        Self::Cancelled,
        Self::Dropped,
    ];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Truncated => "truncated",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
            Self::Cancelled => "cancelled",
            Self::Dropped => "dropped",
        }
    }

    /// Whether the request was to be answered and was not.
    pub const fn is_loss(self) -> bool {
        !matches!(self, Self::Completed | Self::Abandoned)
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What went wrong with a request that was not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// No TCP connection: refused, unreachable, name unknown.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// An HTTP status other than 2xx; [`Failure::status`] has it.
    HttpStatus,
    /// The time-out of the load passed.
    Timeout,
    /// The connection broke after the request was sent.
    Reset,
    /// What came was not HTTP, not an event stream, or not JSON throughout.
    MalformedStream,
    /// The server reported an error inside the stream.
    ServerError,
    /// The stream ended before the answer did.
    Truncated,
    /// The whole answer held no token.
    EmptyOutput,
    /// The run was interrupted.
    Interrupted,
    /// The run ended before the request could be sent.
    NeverSent,
    /// An earlier turn of its session was not completed, so there was nothing to go on from.
    SessionEnded,
}

impl FailureClass {
    /// All classes, in the order in which tables show them.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::Tls,
        Self::HttpStatus,
        Self::Timeout,
        Self::Reset,
        Self::MalformedStream,
        Self::ServerError,
        Self::Truncated,
        Self::EmptyOutput,
        Self::Interrupted,
        Self::NeverSent,
        Self::SessionEnded,
    ];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::HttpStatus => "http_status",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::MalformedStream => "malformed_stream",
            Self::ServerError => "server_error",
            Self::Truncated => "truncated",
            Self::EmptyOutput => "empty_output",
            Self::Interrupted => "interrupted",
            Self::NeverSent => "never_sent",
            Self::SessionEnded => "session_ended",
        }
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a request was not completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub class: FailureClass,
    /// The HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The server's or the system's own words, shortened to a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Where a count of output tokens comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The server's own `usage`.
    Usage,
    /// The text that arrived, counted with the tokenizer.
    Tokenizer,
    /// The number of non-empty chunks: a lower bound, since a chunk may hold several tokens.
    Chunks,
}

impl TokenSource {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Tokenizer => "tokenizer",
            Self::Chunks => "chunks",
        }
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Usage, Self::Tokenizer, Self::Chunks].into_iter().find(|s| s.name() == name)
    }
}

/// One arrival of output: everything that one read of the socket brought.
///
/// Chunks that came in one read cannot be told apart in time, so they are one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// When the bytes were there: by the kernel's stamp of the last segment, where the system has one,
    /// else when the read returned.
    pub at: Nanos,
    /// Non-empty chunks in it.
    pub chunks: u32,
    /// How long after `at` the client had read it, in nanoseconds (4.29 s where it was longer); zero
    /// where `at` is not the kernel's.
    #[serde(default)]
    pub lag_ns: u32,
}

impl Arrival {
    /// What a read that returned at `read_at` brought.
    pub fn new(at: Nanos, chunks: u32, read_at: Nanos) -> Self {
        Self { at, chunks, lag_ns: u32::try_from(read_at.since(at).0).unwrap_or(u32::MAX) }
    }
}

/// Everything that is known about one request.
///
/// All instants are of the run's monotonic clock. An instant that never came is absent, never zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Position in its phase, counted over all shards.
    pub index: u64,
    /// The phase it belongs to.
    pub phase: Phase,
    /// The workload (of a mix: the part) or prompt id that it was drawn from.
    pub class: String,
    /// Which of the deployment's entries it was sent to.
    pub target: u16,
    /// How many prompts it carried (1, except in batch mode).
    pub prompts: u32,
    /// The session that it is a turn of; absent where requests stand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Which turn of its session, from zero; absent where requests stand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// Open loop: the due time. Closed loop: when its slot became free. A later turn of a session: when
    /// the turn before it had ended and been thought about; of one that was never due, when the session
    /// ended.
    pub scheduled_at: Nanos,
    /// When the kernel had taken the last byte of the request.
    pub sent_at: Option<Nanos>,
    /// When the first byte of the answer's head was read.
    pub first_byte_at: Option<Nanos>,
    /// When the first non-empty text, reasoning or tool-call content was read.
    pub first_token_at: Option<Nanos>,
    /// When the first non-empty text or tool-call content was read: the first that is no reasoning.
    #[serde(default)]
    pub first_answer_at: Option<Nanos>,
    /// When the last content of any kind was read.
    pub last_token_at: Option<Nanos>,
    /// When the stream ended, or the failure was known.
    pub finished_at: Nanos,
    /// Arrivals of output in order; the first is at `first_token_at`, the last at `last_token_at`.
    pub arrivals: Vec<Arrival>,
    /// Prompt tokens by the server's own count.
    pub prompt_tokens: Option<u32>,
    /// Of these, the ones that the server took from its prefix cache, where it says so. Servers leave it
    /// out for none as well as for not knowing.
    #[serde(default)]
    pub cached_prompt_tokens: Option<u32>,
    /// Output tokens by the best source there is.
    pub output_tokens: Option<u32>,
    /// Where `output_tokens` comes from.
    pub token_source: Option<TokenSource>,
    /// Of the output tokens, those of reasoning; absent where neither the server counts them nor its
    /// stream tells them apart.
    #[serde(default)]
    pub reasoning_tokens: Option<u32>,
    /// Where `reasoning_tokens` comes from.
    #[serde(default)]
    pub reasoning_source: Option<TokenSource>,
    /// Prompt tokens that the plan asked for, where the workload has a length.
    pub asked_input_tokens: Option<u32>,
    /// The `max_tokens` of the request, times its prompts.
    pub asked_output_tokens: u32,
    /// The output length was forced (`ignore_eos`), so `output_tokens` should equal `asked_output_tokens`.
    pub forced_length: bool,
    /// The server's finish reason.
    pub finish_reason: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was not completed; absent of an abandoned one, which nothing went wrong with.
    pub failure: Option<Failure>,
    /// Events that could not be parsed as JSON and were skipped.
    pub unparsed_events: u32,
    /// Sent a second time, on a fresh connection: the server had closed the kept one, without a word,
    /// before one byte of an answer came. The server may have seen it twice.
    #[serde(default)]
    pub resent: bool,
    /// Time spent to open a connection for this request; absent where one was reused.
    pub connect: Option<Nanos>,
    /// The load thread that carried it.
    pub worker: u16,
}

impl RequestRecord {
    /// A record of a request of which nothing is known yet but its schedule.
    pub fn new(index: u64, phase: Phase, target: u16, scheduled_at: Nanos) -> Self {
        Self {
            index,
            phase,
            class: String::new(),
            target,
            prompts: 1,
            session: None,
            turn: None,
            scheduled_at,
            sent_at: None,
            first_byte_at: None,
            first_token_at: None,
            first_answer_at: None,
            last_token_at: None,
            finished_at: scheduled_at,
            arrivals: Vec::new(),
            prompt_tokens: None,
            cached_prompt_tokens: None,
            output_tokens: None,
            token_source: None,
            reasoning_tokens: None,
            reasoning_source: None,
            asked_input_tokens: None,
            asked_output_tokens: 0,
            forced_length: false,
            finish_reason: None,
            outcome: Outcome::Dropped,
            failure: None,
            unparsed_events: 0,
            resent: false,
            connect: None,
            worker: 0,
        }
    }

    /// Non-empty chunks that arrived.
    pub fn chunks(&self) -> u32 {
        self.arrivals.iter().map(|a| a.chunks).sum()
    }

    /// Whether its length was forced, it arrived whole, and the server itself says how long it is. Counts
    /// of ours cannot tell a length that was not kept from tokens that came in one chunk.
    pub fn is_forced_and_counted(&self) -> bool {
        self.is_completed() && self.forced_length && self.token_source == Some(TokenSource::Usage)
    }

    /// Whether the answer arrived whole.
    pub fn is_completed(&self) -> bool {
        self.outcome == Outcome::Completed
    }
}
