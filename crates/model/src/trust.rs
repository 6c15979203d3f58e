//! Whether a number can be relied on, and if not, why, and what to do about it.

use serde::{Deserialize, Serialize};

/// How far the numbers of a point can be relied on.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TrustLevel {
    /// Nothing speaks against them.
    #[default]
    Sound,
    /// They hold with a reservation that a reader must know.
    Caution,
    /// They do not say what they seem to say.
    Invalid,
}

impl TrustLevel {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Caution => "caution",
            Self::Invalid => "invalid",
        }
    }
}

/// One reason not to rely on a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Reason {
    /// Stable code, as `failures`.
    pub code: String,
    /// How grave.
    pub level: TrustLevel,
    /// What was seen and what it means for the number.
    pub message: String,
    /// What to do.
    pub next_step: String,
}

/// The verdict on a point's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Trust {
    /// The gravest of the reasons.
    pub level: TrustLevel,
    /// All reasons, gravest first.
    pub reasons: Vec<Reason>,
}

impl Trust {
    /// Adds a reason.
    pub fn add(&mut self, reason: Reason) {
        self.level = self.level.max(reason.level);
        self.reasons.push(reason);
        self.reasons.sort_by_key(|r| std::cmp::Reverse(r.level));
    }
}
