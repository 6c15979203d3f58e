//! Words that prompts are written with, so that a text has a given number of tokens.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// Words at the head of a text that a mark replaces: enough that no two marks agree by chance (180^8),
/// few enough that short prompts still have words of their own.
const MARK_WORDS: usize = 8;

/// How the length of a synthetic prompt was arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// Words that are one token each by the model's tokenizer.
    Tokenizer,
    /// Words whose mean size was learnt from the server's `usage`.
    ServerUsage,
    /// A rule of thumb, because the server reports no `usage` either.
    Guess,
}

/// Words to write synthetic prompts with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Words {
    /// The words, without spaces.
    pub words: Vec<String>,
    /// Tokens per word.
    pub tokens_per_word: f64,
    /// Where that number comes from.
    pub sizing: Sizing,
}

impl Words {
    /// Short common English words, at `tokens_per_word`.
    pub fn common(tokens_per_word: f64, sizing: Sizing) -> Self {
        let words = COMMON_WORDS.split_ascii_whitespace().map(str::to_owned).collect();
        Self { words, tokens_per_word, sizing }
    }

    /// A text of `tokens` tokens. With a `mark` its first words follow from that alone, and the others are
    /// the same as without: two marks make two texts that no prefix cache takes for one another, of the
    /// same length.
    pub fn write(&self, tokens: u32, rng: &mut impl rand::Rng, mark: Option<u64>) -> String {
        if self.words.is_empty() {
            return String::new();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a length in words; `as` saturates and is never negative"
        )]
        let count = (f64::from(tokens) / self.tokens_per_word).round().max(1.0) as usize;
        let mut marks = mark.map(Xoshiro256PlusPlus::seed_from_u64);
        let mut text = String::with_capacity(count * 7);
        for i in 0..count {
            if i > 0 {
                text.push(' ');
            }
            let mut place = rng.random_range(0..self.words.len());
            if let Some(marks) = marks.as_mut().filter(|_| i < MARK_WORDS) {
                place = marks.random_range(0..self.words.len());
            }
            text.push_str(&self.words[place]);
        }
        text
    }
}

const COMMON_WORDS: &str = "time way year work day man world life hand part child eye woman place \
    week case point company number group problem fact be have do say get make go know take see come \
    think look want give use find tell ask seem feel try leave call good new first last long great \
    little own other old right big high small large next early young public bad same able to of in \
    for on with at by from up about into over after house water room mother area money story month \
    lot book job word business issue side kind head service friend father power hour game line end \
    member law car city name team minute idea body back parent face level office door health person \
    art war history party result change morning reason research girl guy moment air teacher force";

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tokens: u32, mark: Option<u64>) -> String {
        let words = Words::common(1.0, Sizing::Guess);
        words.write(tokens, &mut Xoshiro256PlusPlus::seed_from_u64(3), mark)
    }

    #[test]
    fn a_mark_changes_the_head_of_a_text_and_neither_its_rest_nor_its_length() {
        let (plain, marked, other) = (write(40, None), write(40, Some(1)), write(40, Some(2)));
        let split = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (plain, marked, other) = (split(&plain), split(&marked), split(&other));
        assert_eq!((plain.len(), marked.len(), other.len()), (40, 40, 40));
        assert_eq!(plain[8..], marked[8..]);
        assert_eq!(plain[8..], other[8..]);
        assert!(plain[..8] != marked[..8] && marked[..8] != other[..8]);
        assert_eq!(write(3, Some(1)).split(' ').count(), 3, "shorter than a mark");
    }
}
