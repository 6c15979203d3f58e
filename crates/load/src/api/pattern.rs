//! Events that differ in nothing but their text, told without reading them as JSON.
//!
//! The events of one stream are nearly all alike: same id, same model, same everything but one string.
//! Once an event was read and held just one text, another that begins and ends with the very same bytes
//! and has one JSON string in between says the same, with that string for its text. Comparing bytes
//! costs a tenth of parsing them.
//!
//! **Invariant:** never a guess. What is not byte for byte the same around a string that is plain to see
//! (no escapes, no control characters, valid UTF-8, not empty) is read as JSON like everything else. A
//! property test holds streams that were read with and without a pattern against each other.

use super::{Chunk, Text};

/// Patterns that are learnt in a row before a stream counts as one whose events are never alike.
const MOST_MISSES: u8 = 8;

/// What the last event that was read as JSON looked like around its text.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    before: Vec<u8>,
    after: Vec<u8>,
    choice: u32,
    is_reasoning: bool,
    is_answer: bool,
    is_set: bool,
    misses: u8,
}

/// An event of which only its text is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alike<'a> {
    /// Which choice it belongs to.
    pub(crate) choice: u32,
    /// The text is reasoning.
    pub(crate) is_reasoning: bool,
    /// The text is a part of the answer, as a later turn carries it.
    pub(crate) is_answer: bool,
    /// A JSON string with its quotes.
    pub(crate) text: &'a [u8],
}

impl Pattern {
    /// What `data` says, if it is like the event that was learnt; nothing where it must be read.
    pub(crate) fn text<'a>(&mut self, data: &'a [u8]) -> Option<Alike<'a>> {
        if !self.is_set {
            return None;
        }
        let text = data.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let is_plain = |b: &u8| *b >= 0x20 && *b != b'"' && *b != b'\\';
        if inner.is_empty() || !inner.iter().all(is_plain) || std::str::from_utf8(inner).is_err() {
            return None;
        }
        self.misses = 0;
        let Self { choice, is_reasoning, is_answer, .. } = *self;
        Some(Alike { choice, is_reasoning, is_answer, text })
    }

    /// Learns from `data`, which was read as `chunk`.
    pub(crate) fn learn(&mut self, data: &[u8], chunk: &Chunk<'_>) {
        if self.misses >= MOST_MISSES {
            return;
        }
        let Some(OnlyText { choice, is_answer, start, end }) = only_text(data, chunk) else {
            return;
        };
        // The key of the text is among the bytes that must be the same.
        self.is_reasoning = chunk.reasoning() > 0;
        self.misses += 1;
        self.is_set = self.misses < MOST_MISSES;
        self.before.clear();
        self.before.extend_from_slice(&data[..start]);
        self.after.clear();
        self.after.extend_from_slice(&data[end..]);
        (self.choice, self.is_answer) = (choice, is_answer);
    }
}

/// The one text of an event, and where it lies.
struct OnlyText {
    choice: u32,
    is_answer: bool,
    start: usize,
    end: usize,
}

/// Where in `data` the text of `chunk` lies, if it has just one and says nothing else.
fn only_text(data: &[u8], chunk: &Chunk<'_>) -> Option<OnlyText> {
    let mut choices = chunk.choices.iter();
    let (Some(choice), None, None, false) =
        (choices.next(), choices.next(), chunk.usage, chunk.is_last)
    else {
        return None;
    };
    let mut texts = choice.texts();
    let (Some(text), None, None) = (texts.next(), texts.next(), choice.finish_reason) else {
        return None;
    };
    let (Text::Value(raw) | Text::Aside(raw)) = text else { return None };
    let raw = raw.get().as_bytes();
    let start = raw.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let end = start.checked_add(raw.len())?;
    // It is borrowed from `data`; should that ever change, nothing is learnt.
    (data.get(start..end)? == raw && raw.first() == Some(&b'"')).then_some(OnlyText {
        choice: choice.index,
        is_answer: text.is_answer(),
        start,
        end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Memory, Said, event};
    use scalebeam_model::workload::Api;

    fn learnt(data: &str) -> Pattern {
        let mut pattern = Pattern::default();
        match event(Api::Chat, &mut Memory::default(), b"", data.as_bytes()).unwrap() {
            Said::Chunk(chunk) => pattern.learn(data.as_bytes(), &chunk),
            other => panic!("{other:?}"),
        }
        pattern
    }

    const CHUNK: &str = r#"{"id":"a","choices":[{"index":3,"delta":{"content":"one"}}],"n":1}"#;

    #[test]
    fn the_same_around_another_string_is_that_string() {
        let mut pattern = learnt(CHUNK);
        let other = CHUNK.replace("one", " zw\u{f6}lf, {}");
        let want = "\" zw\u{f6}lf, {}\"";
        let want = Alike { choice: 3, is_reasoning: false, is_answer: true, text: want.as_bytes() };
        assert_eq!(pattern.text(other.as_bytes()), Some(want));
    }

    #[test]
    fn reasoning_is_like_reasoning_and_not_like_an_answer() {
        for key in ["reasoning", "reasoning_content"] {
            let thought = CHUNK.replace("content", key);
            let mut pattern = learnt(&thought);
            let said = pattern.text(thought.as_bytes()).unwrap();
            assert!(said.is_reasoning && said.text == b"\"one\"", "{said:?}");
            assert_eq!(pattern.text(CHUNK.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn anything_else_is_read() {
        for other in [
            CHUNK.replace("\"one\"", "\"\""),
            CHUNK.replace("\"one\"", "null"),
            CHUNK.replace("\"one\"", "\"a\\nb\""),
            CHUNK.replace("\"one\"", "\"a\nb\""),
            CHUNK.replace("\"one\"", "\"a\",\"role\":\"b\""),
            CHUNK.replace(":3", ":4"),
            CHUNK.replace("\"n\":1", "\"n\":2"),
            CHUNK[..CHUNK.len() - 1].to_owned(),
            "\"".to_owned(),
            String::new(),
        ] {
            assert_eq!(learnt(CHUNK).text(other.as_bytes()), None, "{other}");
        }
        let mut cut = CHUNK.replace("one", "\u{f6}").into_bytes();
        let at = cut.iter().position(|b| *b == 0xC3).unwrap();
        cut.remove(at);
        assert_eq!(learnt(CHUNK).text(&cut), None, "half a character");
    }

    #[test]
    fn what_says_more_than_a_text_is_no_pattern() {
        for data in [
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a","reasoning":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
            r#"{"choices":[]}"#,
        ] {
            assert!(!learnt(data).is_set, "{data}");
        }
    }

    #[test]
    fn a_stream_whose_events_are_never_alike_is_left_alone() {
        let mut pattern = learnt(CHUNK);
        for _ in 0..MOST_MISSES {
            match event(Api::Chat, &mut Memory::default(), b"", CHUNK.as_bytes()).unwrap() {
                Said::Chunk(chunk) => pattern.learn(CHUNK.as_bytes(), &chunk),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pattern.text(CHUNK.as_bytes()), None);
    }
}
