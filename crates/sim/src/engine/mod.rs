//! Continuous batching in the manner of vLLM V1, pure and stepped.
//!
//! [`Engine::step`] takes an instant and answers when the step that begins there ends and whose tokens
//! exist then. It reads no clock, does no IO and draws nothing at random: the same calls give the same
//! answers.
//!
//! **Invariants** (each kept by a test): a request that is accepted gets exactly `max_tokens` tokens
//! unless it is cancelled; blocks in use never exceed the cache; blocks are all free when nothing runs.
//! A request that could never fit is refused at [`Engine::submit`], since otherwise it would sit at the
//! head of the queue for ever.
//!
//! This is the seam at which a larger simulator takes over: callers hold nothing but these types.

mod batching;
mod blocks;

pub use batching::Engine;

use scalebeam_model::units::Nanos;

/// Names one request to the engine; unique among the requests that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What is asked of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The caller's name for it.
    pub id: RequestId,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens that will be generated, no fewer and no more.
    pub max_tokens: u64,
}

/// The scheduler's limits, in vLLM's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences that run at the same time.
    pub max_num_seqs: u64,
    /// Tokens that one step computes at most.
    pub max_num_batched_tokens: u64,
    /// Tokens of one KV block.
    pub block_size: u64,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
    /// Whether a prompt may be computed over several steps.
    pub chunked_prefill: bool,
}

/// One generated token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub id: RequestId,
    /// Whether it is the last.
    pub finished: bool,
    /// When its request first left the queue.
    pub started_at: Nanos,
}

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepResult {
    /// When the step ends and its tokens exist.
    pub ends_at: Nanos,
    /// The tokens, in the order of the batch.
    pub tokens: Vec<Token>,
}

/// What the engine would tell a metrics endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineStats {
    /// Sequences in the running batch.
    pub running: u64,
    /// Requests that wait to be admitted.
    pub waiting: u64,
    /// Share of the KV blocks in use, 0 to 1.
    pub kv_usage: f64,
    /// Sequences that lost their blocks and were computed again, since the start.
    pub preemptions: u64,
    /// Prompt tokens of requests that gave their first token, since the start.
    pub prompt_tokens: u64,
    /// Generated tokens, since the start.
    pub generation_tokens: u64,
}

/// Why a request cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing to generate or nothing to read.
    #[error("a request needs at least one prompt token and one token to generate")]
    Empty,
    /// The cache could not hold it, even alone.
    #[error("{needed} tokens do not fit into a KV cache of {kv_tokens} tokens")]
    Cache {
        /// Prompt and answer.
        needed: u64,
        /// What the cache holds.
        kv_tokens: u64,
    },
    /// Without chunked prefill, a prompt has to be computed in one step.
    #[error("{needed} tokens exceed the {budget} tokens of one step, and chunked prefill is off")]
    Budget {
        /// Prompt and answer (all of it is recomputed after a preemption).
        needed: u64,
        /// Tokens of one step.
        budget: u64,
    },
}
