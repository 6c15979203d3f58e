//! How long one engine step takes.
//!
//! **Invariant:** a model answers with a time above zero or with an error. A failed interpolation, an
//! impossible input or an overflow is never 0 ns: a simulator that treats "unknown" as "free" is
//! confidently wrong.

mod links;
mod roofline;

pub use links::{Fabric, InterNode, Layout};
pub use roofline::Roofline;

use scalebeam_model::units::Nanos;

/// New tokens of one request whose keys and values are computed in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Tokens computed now.
    pub new_tokens: u64,
    /// Tokens of the same request that are already in the KV cache.
    pub context_before: u64,
}

/// What one step computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchShape {
    /// Prefill work, one chunk a request.
    pub prefill: Vec<Chunk>,
    /// Sequences that decode one token each.
    pub decode_seqs: u64,
    /// Tokens in the KV cache of all decoding sequences together.
    pub decode_context: u64,
}

impl BatchShape {
    /// Tokens that pass through the linear maps.
    pub fn tokens(&self) -> u64 {
        self.decode_seqs + self.prefill.iter().map(|chunk| chunk.new_tokens).sum::<u64>()
    }

    /// Requests that take part.
    pub fn sequences(&self) -> u64 {
        self.decode_seqs + self.prefill.len() as u64
    }
}

/// Time that the ranks of an instance spend in moving activations to each other for one microbatch of `n` tokens, through
/// all of its stages: `step_s + token_s * n` seconds, since every term of it is a latency or bytes over a bandwidth.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exchange {
    /// However few tokens there are.
    pub step_s: f64,
    /// For each token.
    pub token_s: f64,
}

/// Predicts the duration of one engine step.
pub trait TimingModel: Send + Sync + std::fmt::Debug {
    /// The time from the start of a step over `batch` until its tokens exist.
    ///
    /// # Errors
    /// When the batch is empty or outside what the model can answer.
    fn step(&self, batch: &BatchShape) -> Result<Nanos, TimingError>;
}

/// Why a step could not be timed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TimingError {
    /// A step without work was asked for.
    #[error("a step over an empty batch has no duration")]
    EmptyBatch,
    /// The formulas gave no usable number.
    #[error("the timing model gives {seconds} s for a step over {tokens} tokens")]
    Unusable {
        /// What came out.
        seconds: f64,
        /// Size of the batch.
        tokens: u64,
    },
}
