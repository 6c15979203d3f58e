//! Tokens without a tokenizer: a deterministic rule for counting, and a fixed list of words for answers.
//!
//! Counting: a word (text between white space) costs one token for every six characters begun; a chat
//! adds [`PER_MESSAGE`] tokens a message and [`PER_CHAT`] once, as chat templates do. English text comes
//! out near one token per 4.5 characters, like the tokenizers of real models.
//!
//! Answers: every generated token is one word of at most six characters, so counting an answer by the
//! rule gives back the number of tokens that were generated.

use crate::hash;

/// Characters of a word that one token covers.
const PIECE: usize = 6;
/// Tokens that a chat template adds to each message.
pub(super) const PER_MESSAGE: u64 = 4;
/// Tokens that a chat template adds once, to open the answer.
pub(super) const PER_CHAT: u64 = 3;
/// Token ids are below this.
const VOCAB: u64 = 32_000;

/// Two of them are not ASCII, so that a client which cuts UTF-8 in the middle is found out.
const WORDS: &[&str] = &[
    "the", "beam", "rests", "on", "its", "pivot", "and", "each", "pan", "holds", "one", "weight",
    "so", "that", "a", "small", "excess", "tips", "it", "slowly", "while", "both", "arms", "keep",
    "their", "length", "we", "wait", "until", "motion", "ends", "then", "read", "scale", "mark",
    "twice", "café", "naïve", "error", "bound", "by", "mass", "not", "force", "as", "level", "air",
    "moves", "every", "glass", "case", "shut", "before", "first", "grain", "falls", "into",
    "place", "at", "rest", "true", "count", "stays", "known",
];

/// Tokens of `text` by the rule of this module.
pub fn count_tokens(text: &str) -> u64 {
    text.split_whitespace().map(|word| word.chars().count().div_ceil(PIECE) as u64).sum()
}

/// The id of each token of `text`: a hash of its piece.
pub(super) fn token_ids(text: &str) -> Vec<u64> {
    let mut ids = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        ids.extend(letters.chunks(PIECE).map(|piece| {
            let piece: String = piece.iter().collect();
            hash::of_bytes(piece.as_bytes()) % VOCAB
        }));
    }
    ids
}

/// The `n`-th word (from 0) of the answer named by `subject`.
pub(super) fn word(subject: u64, n: u64) -> &'static str {
    let index = hash::draw(subject, n, 0) % WORDS.len() as u64;
    usize::try_from(index).ok().and_then(|index| WORDS.get(index)).copied().unwrap_or("the")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_follows_the_rule() {
        for (text, want) in [("", 0), ("a", 1), ("sixsix", 1), ("sevenxx", 2), ("two  words\n", 2)]
        {
            assert_eq!(count_tokens(text), want, "{text}");
            assert_eq!(token_ids(text).len() as u64, want, "{text}");
        }
    }

    #[test]
    fn an_answer_counts_as_many_tokens_as_it_has_words() {
        assert!(WORDS.iter().all(|word| count_tokens(word) == 1));
        let text: Vec<&str> = (0..500).map(|n| word(9, n)).collect();
        assert_eq!(count_tokens(&text.join(" ")), 500);
    }

    #[test]
    fn words_need_no_escaping_in_json() {
        assert!(WORDS.iter().all(|w| !w.contains(['"', '\\']) && !w.chars().any(char::is_control)));
    }
}
