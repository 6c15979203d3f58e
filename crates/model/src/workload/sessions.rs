//! Sessions: what a user says turn after turn.
//!
//! **Invariant:** what a user says, how long an answer may be and how many turns there are is a function of
//! workload, files, the stream's seed, salt, session and turn. Only what was answered before is not, where
//! the history is the real one.

use super::dataset::FileFormat;
use super::{LengthDist, Lengths, Pick, Prompt};
use serde::{Deserialize, Serialize};

/// What later turns carry as the answers to earlier ones.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// What the server answered, as a chat client sends it.
    #[default]
    Real,
    /// The answers of the file, or words of the length that was asked for: every request is the same in
    /// every run, and no prefix cache knows the answers.
    Planned,
}

impl History {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Planned => "planned",
        }
    }
}

/// A number with a mean and perhaps a spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Spread {
    /// Its mean.
    pub mean: u32,
    /// How it is spread; absent = always the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dist: Option<LengthDist>,
}

impl Spread {
    pub(super) fn draw(&self, rng: &mut impl rand::Rng) -> u32 {
        self.dist.as_ref().map_or(self.mean.max(1), |dist| dist.draw(rng))
    }

    /// The largest that can be drawn.
    pub fn max(&self) -> u32 {
        self.dist.as_ref().map_or(self.mean, LengthDist::max)
    }
}

/// Where the turns of sessions come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Talk {
    /// Random words of a given length.
    Synthetic {
        /// Lengths of the first prompt and of every answer.
        lengths: Lengths,
        /// Turns of a session.
        turns: Spread,
        /// What the user adds in each later turn, in tokens.
        turn_isl: Spread,
    },
    /// A file of conversations.
    File {
        /// Its path, as the experiment file gives it.
        file: String,
        /// How it is written.
        format: FileFormat,
        /// How conversations are taken.
        pick: Pick,
        /// Longest answer, as of a file of prompts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<u32>,
        /// At most this many turns of each conversation.
        turns: u32,
    },
}

/// What one turn says.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnContent {
    /// What the user says, and how long the answer may be.
    pub prompt: Prompt,
    /// The conversation's own system message.
    pub system: Option<String>,
    /// What later turns carry as the answer; absent = what the server answers.
    pub planned_answer: Option<String>,
}
