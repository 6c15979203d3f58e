//! The model's own tokenizer: counts answers for which the server reports no usage, and finds words
//! with which a prompt of a given length can be written exactly.
//!
//! **Invariant:** it is never used while requests are in flight (see `phase`).

use crate::LoadError;
use scalebeam_model::workload::{Sizing, Words, derive_seed};
use std::path::{Path, PathBuf};

/// Fewer words than this would make prompts that a prefix cache or a draft model sees through.
const FEWEST_WORDS: usize = 50;

/// More words than this make no prompt better and only take time to find.
const MOST_WORDS: usize = 4_000;

/// Words that are tried together to see whether their tokens add up.
const SAMPLE_WORDS: usize = 64;

/// A tokenizer in Hugging Face's `tokenizer.json` format.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, or the one in a directory.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        match tokenizers::Tokenizer::from_file(&file) {
            Ok(inner) => Ok(Self { inner, path: file }),
            Err(e) => Err(LoadError::Tokenizer { path: file, why: e.to_string() }),
        }
    }

    /// Tokens in `text`, without special ones. `None` where the tokenizer refuses the text.
    pub fn count(&self, text: &str) -> Option<u32> {
        let encoded = self.inner.encode_fast(text, false).ok()?;
        u32::try_from(encoded.len()).ok()
    }

    /// Words that are one token each, with and without a space before them, and stay so side by side.
    ///
    /// # Errors
    /// When fewer than 50 can be found.
    pub fn words(&self) -> Result<Words, LoadError> {
        let mut words = self.candidates();
        if !self.adds_up(&words) {
            // Rare: a normalizer that looks across spaces. Keep the words that add up in pairs.
            words.retain(|w| self.count(&format!("{w} {w} {w}")) == Some(3));
        }
        if words.len() < FEWEST_WORDS || !self.adds_up(&words) {
            return Err(LoadError::Words { path: self.path.clone(), found: words.len() });
        }
        Ok(Words { words, tokens_per_word: 1.0, sizing: Sizing::Tokenizer })
    }

    fn candidates(&self) -> Vec<String> {
        let mut plain: Vec<String> = self
            .inner
            .get_vocab(false)
            .into_keys()
            .filter_map(|token| {
                // The marks by which byte-level and sentence-piece vocabularies write a space.
                let word = token.strip_prefix(['\u{120}', '\u{2581}']).unwrap_or(&token);
                let fits = (2..=12).contains(&word.len());
                (fits && word.bytes().all(|b| b.is_ascii_lowercase())).then(|| word.to_owned())
            })
            .collect();
        // The vocabulary comes as a hash map: without an order, no two runs would draw the same words.
        plain.sort_unstable();
        plain.dedup();
        plain.retain(|word| {
            self.count(word) == Some(1) && self.count(&format!("{word} {word}")) == Some(2)
        });
        thin_out(plain)
    }

    /// Whether texts of many random words have as many tokens as words.
    fn adds_up(&self, words: &[String]) -> bool {
        !words.is_empty()
            && (0..8).all(|round| {
                let chosen: Vec<&str> = (0..SAMPLE_WORDS as u64)
                    .map(|i| {
                        let place = derive_seed(&[round, i]) % words.len() as u64;
                        usize::try_from(place).map_or("", |at| words[at].as_str())
                    })
                    .collect();
                self.count(&chosen.join(" ")) == u32::try_from(SAMPLE_WORDS).ok()
            })
    }
}

/// At most [`MOST_WORDS`], evenly over the alphabet.
fn thin_out(words: Vec<String>) -> Vec<String> {
    let step = words.len().div_ceil(MOST_WORDS).max(1);
    words.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A word-level tokenizer of `count` words: small, and what it does is plain to see.
    fn write(dir: &Path, count: u32) {
        let word = |i: u32| -> String {
            let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).unwrap());
            [letter(i / 26), letter(i), 'x'].iter().collect()
        };
        let mut vocab: serde_json::Map<_, _> =
            (0..count).map(|i| (word(i), serde_json::Value::from(i + 1))).collect();
        vocab.insert("[UNK]".to_owned(), 0.into());
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
        });
        fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
    }

    #[test]
    fn a_directory_or_a_file_is_loaded_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 100);
        for path in [dir.path().to_owned(), dir.path().join("tokenizer.json")] {
            let tokenizer = Tokenizer::load(&path).unwrap();
            assert_eq!(tokenizer.count("aax abx, nonsense"), Some(4));
            assert_eq!(tokenizer.count(""), Some(0));
        }
    }

    #[test]
    fn words_are_one_token_each_and_come_in_the_same_order_each_time() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 100);
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let words = tokenizer.words().unwrap();
        assert_eq!((words.words.len(), words.sizing), (100, Sizing::Tokenizer));
        assert_eq!(words, Tokenizer::load(dir.path()).unwrap().words().unwrap());
        assert_eq!(tokenizer.count(&words.words.join(" ")), Some(100));
    }

    #[test]
    fn too_few_words_and_no_file_are_errors_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 20);
        let text = Tokenizer::load(dir.path()).unwrap().words().unwrap_err().to_string();
        assert!(text.contains("20") && text.contains("tokenizer.json"), "{text}");
        let text = Tokenizer::load(Path::new("/no/such")).unwrap_err().to_string();
        assert!(text.contains("/no/such"), "{text}");
    }
}
