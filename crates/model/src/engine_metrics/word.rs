//! The words.

use super::Part;
use serde::{Deserialize, Serialize};

/// How a series is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A level at this moment, that parts add up to.
    Level,
    /// A share at this moment, of which the fullest part counts.
    Share,
    /// A count since the start.
    Counter,
    /// Observations since the start, by bucket.
    Histogram,
}

/// What an engine, or what stands before it, can say.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Requests in the batch.
    Running,
    /// Requests in the queue.
    Queued,
    /// The part of the key-value cache that is in use, 0 to 1.
    KvUsage,
    /// Requests that were put back in the queue to make room.
    Preemptions,
    /// Prompt tokens that were found in the prefix cache.
    PrefixHits,
    /// Prompt tokens that were looked up there.
    PrefixQueries,
    /// Prompt tokens.
    PromptTokens,
    /// Output tokens.
    GenerationTokens,
    /// Requests that ended.
    RequestsDone,
    /// Bytes of key-value blocks that came from another instance.
    KvReceivedBytes,
    /// Transfers of such blocks that failed.
    KvTransfersFailed,
    /// Tokens of one step of the engine.
    IterationTokens,
    /// Seconds from a request's arrival to its first token.
    Ttft,
    /// Seconds between tokens.
    Itl,
    /// Seconds from a request's arrival to its last token.
    E2e,
    /// Seconds of a request in the queue.
    QueueTime,
    /// Seconds from a request's leaving the queue to its first token.
    PrefillTime,
    /// Seconds from its first token to its last.
    DecodeTime,
    /// Seconds of one transfer of key-value blocks.
    KvTransferTime,
    /// Requests that a frontend has taken and not yet answered.
    FrontendInFlight,
    /// Requests that wait in a frontend.
    FrontendQueued,
    /// Seconds from a request's arrival at a frontend to its first token.
    FrontendTtft,
    /// Seconds from a request's arrival at a frontend to its last token.
    FrontendE2e,
}

impl Word {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Running,
        Self::Queued,
        Self::KvUsage,
        Self::Preemptions,
        Self::PrefixHits,
        Self::PrefixQueries,
        Self::PromptTokens,
        Self::GenerationTokens,
        Self::RequestsDone,
        Self::KvReceivedBytes,
        Self::KvTransfersFailed,
        Self::IterationTokens,
        Self::Ttft,
        Self::Itl,
        Self::E2e,
        Self::QueueTime,
        Self::PrefillTime,
        Self::DecodeTime,
        Self::KvTransferTime,
        Self::FrontendInFlight,
        Self::FrontendQueued,
        Self::FrontendTtft,
        Self::FrontendE2e,
    ];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Queued => "queued",
            Self::KvUsage => "kv_usage",
            Self::Preemptions => "preemptions",
            Self::PrefixHits => "prefix_hits",
            Self::PrefixQueries => "prefix_queries",
            Self::PromptTokens => "prompt_tokens",
            Self::GenerationTokens => "generation_tokens",
            Self::RequestsDone => "requests_done",
            Self::KvReceivedBytes => "kv_received_bytes",
            Self::KvTransfersFailed => "kv_transfers_failed",
            Self::IterationTokens => "iteration_tokens",
            Self::Ttft => "ttft",
            Self::Itl => "itl",
            Self::E2e => "e2e",
            Self::QueueTime => "queue_time",
            Self::PrefillTime => "prefill_time",
            Self::DecodeTime => "decode_time",
            Self::KvTransferTime => "kv_transfer_time",
            Self::FrontendInFlight => "frontend_in_flight",
            Self::FrontendQueued => "frontend_queued",
            Self::FrontendTtft => "frontend_ttft",
            Self::FrontendE2e => "frontend_e2e",
        }
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.name() == name)
    }

    /// How it is to be understood.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Running | Self::Queued | Self::FrontendInFlight | Self::FrontendQueued => {
                Kind::Level
            }
            Self::KvUsage => Kind::Share,
            Self::Preemptions
            | Self::PrefixHits
            | Self::PrefixQueries
            | Self::PromptTokens
            | Self::GenerationTokens
            | Self::RequestsDone
            | Self::KvReceivedBytes
            | Self::KvTransfersFailed => Kind::Counter,
            Self::IterationTokens
            | Self::Ttft
            | Self::Itl
            | Self::E2e
            | Self::QueueTime
            | Self::PrefillTime
            | Self::DecodeTime
            | Self::KvTransferTime
            | Self::FrontendTtft
            | Self::FrontendE2e => Kind::Histogram,
        }
    }

    /// Whether it is a level or a share: something to look at while it is, not to be held against another
    /// instant.
    pub const fn is_level(self) -> bool {
        matches!(self.kind(), Kind::Level | Kind::Share)
    }

    /// What its numbers count.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Running
            | Self::Queued
            | Self::FrontendInFlight
            | Self::FrontendQueued
            | Self::Preemptions
            | Self::RequestsDone => "requests",
            Self::KvUsage => "",
            Self::PrefixHits
            | Self::PrefixQueries
            | Self::PromptTokens
            | Self::GenerationTokens
            | Self::IterationTokens => "tokens",
            Self::KvReceivedBytes => "bytes",
            Self::KvTransfersFailed => "transfers",
            _ => "s",
        }
    }

    /// Who says it.
    pub const fn part(self) -> Part {
        match self {
            Self::FrontendInFlight
            | Self::FrontendQueued
            | Self::FrontendTtft
            | Self::FrontendE2e => Part::Frontend,
            _ => Part::Engine,
        }
    }
}
