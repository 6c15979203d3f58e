//! Keeping an engine's prefix cache from answering with what an earlier point has asked.
//!
//! A prefix cache goes from the first token on: texts that differ in their first block share nothing. So
//! a mark at the head of each prompt is enough, and what requests of one trial share they go on sharing.

use super::{Source, Workload, derive_seed};
use serde::{Deserialize, Serialize};

/// What is done so that a prefix cache holds nothing of an earlier point.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CachePolicy {
    /// Prompts begin with a mark that no other run, point or trial uses. Words that are drawn anyway carry
    /// it in their length; a given text gets it in front, as `[k3v9q2xz] `.
    #[default]
    Salt,
    /// Prompts are what the seed or the file says, to the byte, whatever the server has seen before.
    Keep,
    /// Prompts as with `keep`, and the engine is asked to empty its prefix cache before the measurement of
    /// each trial.
    Reset,
}

impl CachePolicy {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Salt => "salt",
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }

    /// Whether it is the default, which plans leave out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What sets the prompts of one trial apart from those of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    /// The salt of what `texts` and `numbers` name together: a run, a point, a trial.
    pub fn of(texts: &[&str], numbers: &[u64]) -> Self {
        let of_texts = texts.iter().map(|text| {
            let bytes = text.bytes().map(u64::from);
            derive_seed(&bytes.chain([text.len() as u64]).collect::<Vec<_>>())
        });
        Self(derive_seed(&of_texts.chain(numbers.iter().copied()).collect::<Vec<_>>()))
    }

    /// A number for what `parts` name within the trial.
    pub(super) fn mark(self, parts: &[u64]) -> u64 {
        parts.iter().fold(derive_seed(&[self.0]), |mark, part| derive_seed(&[mark, *part]))
    }

    /// `text` behind the mark of `part` of the trial.
    fn before(self, part: u64, text: &str) -> String {
        format!("[{}] {text}", letters(self.mark(&[part])))
    }

    /// A system message, which comes before everything else: the trial's, warm-up included, which is there
    /// to fill the cache with it.
    pub(super) fn system(self, text: &str) -> String {
        self.before(0, text)
    }

    /// A given text, as one stream of the trial sends it.
    pub(super) fn given(self, stream: u64, text: &str) -> String {
        self.before(stream, text)
    }
}

/// Eight letters or digits, 40 bits of `mark`. Without the ones that are easily taken for one another.
fn letters(mark: u64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    mark.to_le_bytes()
        .into_iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}

impl Workload {
    /// The workload as a trial of `salt` sends it: system messages bear the mark.
    #[must_use]
    pub fn salted(mut self, salt: Salt) -> Self {
        self.system = self.system.map(|text| salt.system(&text));
        if let Source::Mix { parts } = &mut self.source {
            for part in parts {
                part.workload = part.workload.clone().salted(salt);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_differ_by_each_of_their_parts_and_are_the_same_for_the_same() {
        let all = [
            Salt::of(&["run", "point"], &[1]),
            Salt::of(&["run", "point"], &[2]),
            Salt::of(&["runp", "oint"], &[1]),
            Salt::of(&["point", "run"], &[1]),
            Salt::of(&["run"], &[1]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
        }
        assert_eq!(all[0], Salt::of(&["run", "point"], &[1]));
    }

    #[test]
    fn a_given_text_stands_whole_behind_a_mark_of_eight_letters() {
        let text = Salt::of(&["a"], &[]).given(1, "what is 1 + 1?");
        let (mark, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, "what is 1 + 1?");
        let inner = mark.strip_prefix('[').and_then(|m| m.strip_suffix(']')).unwrap();
        assert!(inner.len() == 8 && inner.bytes().all(|b| b.is_ascii_alphanumeric()), "{mark}");
        assert_ne!(text, Salt::of(&["a"], &[]).given(2, "what is 1 + 1?"));
    }
}
