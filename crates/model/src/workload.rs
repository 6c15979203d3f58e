//! What is asked of the deployment: prompts and lengths, drawn from a seed.
//!
//! Request `index` of a stream is a pure function of the plan, the stream's seed and the index, so any
//! shard on any host makes the same request, and a run can be repeated to the byte.

pub use crate::api::Api;
use serde::{Deserialize, Serialize};

mod cache;
pub mod dataset;
pub mod lengths;
mod sessions;
mod stream;
mod words;

pub use cache::{CachePolicy, Salt};
pub use dataset::{Conversations, Dataset, FileFormat, FileLine, Files, parse_prompt_file};
pub use lengths::{LengthDist, Lengths, PrefixGroups, RangeMeaning};
pub use sessions::{History, Spread, Talk, TurnContent};
pub use stream::PromptStream;
pub use words::{Sizing, Words};

/// How prompts are taken from a list or a file.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// In order, from the top again after the last.
    #[default]
    InOrder,
    /// Drawn with replacement, seeded.
    Random,
}

/// A prompt with its own length limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptText {
    /// Name in reports.
    pub id: String,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// The prompt.
    pub text: String,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// Texts in the experiment file.
    Prompts {
        /// How they are taken.
        pick: Pick,
        /// The texts.
        prompts: Vec<PromptText>,
    },
    /// A file of prompts, or a trace.
    File {
        /// Its path, as the experiment file gives it.
        file: String,
        /// How it is written.
        #[serde(default, skip_serializing_if = "FileFormat::is_default")]
        format: FileFormat,
        /// How lines are taken.
        pick: Pick,
        /// Longest answer: where a line does not say, or of all conversations. Traces have their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<u32>,
    },
    /// Random words of a given length.
    Synthetic {
        /// Lengths in tokens.
        lengths: Lengths,
        /// Distinct prompts; `None` = every request has its own.
        entries: Option<u32>,
    },
    /// Conversations: each request is a turn, and carries the turns before it.
    Sessions {
        /// What stands for the answers to earlier turns.
        history: History,
        /// What is said.
        talk: Talk,
    },
    /// Other workloads in turn.
    Mix {
        /// In this order, `count` of each per round; or drawn by `weight`.
        parts: Vec<MixPart>,
    },
}

/// One part of a mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MixPart {
    /// How much of the mix it is; all parts say it in the same way.
    #[serde(flatten)]
    pub share: Share,
    /// What they are.
    pub workload: Workload,
}

/// How much of a mix a part is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Requests of it per round, in the order of the parts.
    Count(u32),
    /// Each request is of it with this probability, over the sum of all weights.
    Weight(f64),
}

/// A workload, as planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Workload {
    /// Its name in the file.
    pub name: String,
    /// Endpoint family.
    pub api: Api,
    /// Stream the answer. Without it there is no time to first token.
    pub stream: bool,
    /// Sampling temperature; absent = the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// System message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Force the output length (`min_tokens = max_tokens`, `ignore_eos`).
    pub force_len: bool,
    /// Extra fields of the request body, verbatim.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Seed of every draw.
    pub seed: u64,
    /// What keeps a prefix cache from answering for an earlier point.
    #[serde(default, skip_serializing_if = "CachePolicy::is_default")]
    pub cache: CachePolicy,
    /// Where prompts come from.
    pub source: Source,
}

impl Workload {
    /// Whether any prompt of it has to be written to a length in tokens.
    pub fn is_synthetic(&self) -> bool {
        match &self.source {
            Source::Synthetic { .. } | Source::Sessions { talk: Talk::Synthetic { .. }, .. } => {
                true
            }
            Source::Sessions { talk: Talk::File { .. }, .. } => false,
            Source::Mix { parts } => parts.iter().any(|p| p.workload.is_synthetic()),
            Source::File { format, .. } => format.is_trace(),
            Source::Prompts { .. } => false,
        }
    }
}

/// A request's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Workload or prompt id, for per-class numbers.
    pub class: String,
    /// The prompt, or several in batch mode.
    pub texts: Vec<String>,
    /// Prompt tokens asked for, all texts together, where the workload has a length.
    pub asked_input_tokens: Option<u32>,
    /// Longest answer per text.
    pub max_tokens: u32,
}

/// Mixes the parts of a seed into one (`SplitMix64` over the parts in order).
pub fn derive_seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9E37_79B9_7F4A_7C15, |state, &part| {
        let mut z = (state ^ part).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests;
