//! What one event of an answer says.
//!
//! **Invariants:** parsing a chunk with one choice allocates nothing (texts stay raw JSON, escaped as
//! they came, and are read as strings only where somebody wants the text); an empty content or a lone
//! role is not a token; unknown fields are skipped, so engines may add what they like.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Token counts by the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Prompt tokens.
    #[serde(default)]
    pub prompt_tokens: Option<u32>,
    /// Output tokens.
    #[serde(default)]
    pub completion_tokens: Option<u32>,
    /// A breakdown of the prompt tokens.
    #[serde(default)]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// The part of [`Usage`] that says what the prefix cache did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PromptTokensDetails {
    /// Prompt tokens that were not computed anew.
    #[serde(default)]
    pub cached_tokens: Option<u32>,
}

impl Usage {
    /// Prompt tokens that the server took from a cache.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.prompt_tokens_details?.cached_tokens
    }
}

/// What one event says.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is a chunk, and a box is an allocation"
)]
pub enum Said<'a> {
    /// Content, a finish reason, usage, or nothing of interest.
    Chunk(Chunk<'a>),
    /// The server failed; its words.
    Error(String),
    /// `[DONE]`.
    Done,
}

/// A chunk of a streamed answer, or a whole answer that was not streamed.
#[derive(Debug, Default)]
pub struct Chunk<'a> {
    /// The choices it speaks of.
    pub choices: Choices<'a>,
    /// Token counts so far, or in all.
    pub usage: Option<Usage>,
}

impl Chunk<'_> {
    /// How many of its choices carry content.
    pub fn contents(&self) -> u32 {
        self.choices.iter().map(|c| u32::from(c.has_content())).sum()
    }
}

/// The choices of a chunk. Nearly always one, so the first needs no allocation.
#[derive(Debug, Default)]
pub struct Choices<'a> {
    first: Option<Choice<'a>>,
    rest: Vec<Choice<'a>>,
}

impl<'a> Choices<'a> {
    /// The choices in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Choice<'a>> {
        self.first.iter().chain(&self.rest)
    }
}

/// One choice: the next piece of the answer to one prompt.
#[derive(Debug, Default, Deserialize)]
pub struct Choice<'a> {
    /// Which of the prompts it answers.
    #[serde(default)]
    pub index: u32,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<ToolCalls<'a>>,
    #[serde(borrow, default)]
    function_call: Option<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

/// The first tool call with content; more than one in a chunk is one arrival all the same.
#[derive(Debug, Default)]
struct ToolCalls<'a>(Option<Function<'a>>);

/// Whether a raw JSON value is a text, or a list of parts, that is not empty.
fn is_content(raw: &RawValue) -> bool {
    match raw.get().as_bytes() {
        [b'"', b'"'] | [] => false,
        [b'"', ..] => true,
        [b'[', inner @ .., b']'] => inner.iter().any(|b| !b.is_ascii_whitespace()),
        _ => false,
    }
}

impl<'a> Function<'a> {
    fn content(&self) -> impl Iterator<Item = &'a RawValue> {
        [self.name, self.arguments].into_iter().flatten().filter(|raw| is_content(raw))
    }
}

impl<'a> Delta<'a> {
    fn texts(&self) -> impl Iterator<Item = &'a RawValue> {
        // Some servers send the same reasoning under both names.
        let reasoning = self.reasoning_content.filter(|r| is_content(r)).or(self.reasoning);
        let texts = [reasoning, self.content].into_iter().flatten().filter(|raw| is_content(raw));
        let tools = self.tool_calls.iter().filter_map(|t| t.0.as_ref());
        texts.chain(tools.chain(&self.function_call).flat_map(Function::content))
    }
}

impl<'a> Choice<'a> {
    /// Its non-empty texts, as raw JSON: reasoning, content, tool-call names and arguments.
    pub fn texts(&self) -> impl Iterator<Item = &'a RawValue> {
        let deltas = self.delta.iter().chain(&self.message);
        deltas.flat_map(Delta::texts).chain(self.text.filter(|raw| is_content(raw)))
    }

    /// Whether any text in it is not empty.
    pub fn has_content(&self) -> bool {
        self.texts().next().is_some()
    }

    /// The finish reason, where this chunk has one.
    pub fn finish_reason(&self) -> Option<Cow<'a, str>> {
        string(self.finish_reason?).filter(|reason| !reason.is_empty())
    }
}

/// A raw JSON string as text; borrowed unless it holds escapes. `None` where it is no string.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw.get()).ok().map(Cow::Owned)
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    choices: Option<Choices<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

/// Reads one event's data. `name` is the event's name.
///
/// # Errors
/// When the data is not JSON of the shape of an answer.
pub fn parse<'a>(name: &[u8], data: &'a [u8]) -> Result<Said<'a>, serde_json::Error> {
    if name == b"error" {
        return Ok(Said::Error(error_text(data)));
    }
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        return Ok(Said::Done);
    }
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    let is_error_object = wire.object.is_some_and(|o| o.get() == "\"error\"");
    if wire.error.is_some() || is_error_object {
        return Ok(Said::Error(error_text(data)));
    }
    Ok(Said::Chunk(Chunk { choices: wire.choices.unwrap_or_default(), usage: wire.usage }))
}

/// The words of an error, in whichever of the usual wrappings: `{"error": {"message": ..}}`,
/// `{"error": ".."}`, `{"message": ..}`, `{"detail": ..}`, or bare text.
pub fn error_text(data: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else {
        return String::from_utf8_lossy(data).into_owned();
    };
    let inner = value.get("error").unwrap_or(&value);
    let message = ["message", "detail"].into_iter().find_map(|key| inner.get(key)?.as_str());
    message.or(inner.as_str()).map_or_else(|| inner.to_string(), str::to_owned)
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Seq<'a> {
            type Value = Choices<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<'a>, A::Error> {
                let mut choices = Choices { first: seq.next_element()?, rest: Vec::new() };
                while let Some(choice) = seq.next_element()? {
                    choices.rest.push(choice);
                }
                Ok(choices)
            }
        }
        deserializer.deserialize_seq(Seq(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ToolCalls<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Seq<'a> {
            type Value = ToolCalls<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tool calls")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ToolCalls<'a>, A::Error> {
                while let Some(call) = seq.next_element::<ToolCall<'a>>()? {
                    if let Some(function) = call.function
                        && function.content().next().is_some()
                    {
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(ToolCalls(Some(function)));
                    }
                }
                Ok(ToolCalls(None))
            }
        }
        deserializer.deserialize_seq(Seq(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(data: &str) -> u32 {
        match parse(b"", data.as_bytes()) {
            Ok(Said::Chunk(chunk)) => chunk.contents(),
            other => panic!("{data}: {other:?}"),
        }
    }

    #[test]
    fn only_non_empty_content_is_a_token() {
        for (want, choice) in [
            (0, r#"{"index":0,"delta":{"role":"assistant"}}"#),
            (0, r#"{"index":0,"delta":{"role":"assistant","content":""}}"#),
            (0, r#"{"index":0,"delta":{"content":null}}"#),
            (0, r#"{"index":0,"delta":null,"finish_reason":"stop"}"#),
            (1, r#"{"index":0,"delta":{"content":" a"}}"#),
            (1, r#"{"index":0,"delta":{"content":"\n"}}"#),
            (1, r#"{"index":0,"delta":{"content":"\u00e9\ud83d\ude00\"q\""}}"#),
            (1, r#"{"index":0,"delta":{"reasoning_content":"a"}}"#),
            (1, r#"{"index":0,"delta":{"reasoning":"a","reasoning_content":"a","content":""}}"#),
            (1, r#"{"index":0,"text":"a"}"#),
            (0, r#"{"index":0,"text":""}"#),
            (1, r#"{"index":0,"message":{"role":"assistant","content":"whole"}}"#),
            (1, r#"{"delta":{"content":[{"type":"text","text":"a"}]}}"#),
            (0, r#"{"delta":{"content":[]}}"#),
            (1, r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}"#),
            (1, r#"{"delta":{"tool_calls":[{},{"function":{"arguments":"{\"a\""}},{"x":1}]}}"#),
            (0, r#"{"delta":{"tool_calls":[{"index":0,"function":{"arguments":""}}]}}"#),
            (0, r#"{"delta":{"tool_calls":[]}}"#),
            (1, r#"{"delta":{"function_call":{"name":"f"}}}"#),
        ] {
            assert_eq!(contents(&format!("{{\"choices\":[{choice}]}}")), want, "{choice}");
        }
        assert_eq!(contents(r#"{"choices":[]}"#), 0);
        assert_eq!(contents(r#"{"choices":null,"usage":null}"#), 0);
        assert_eq!(
            contents(r#"{"choices":[{"index":0,"text":"a"},{"index":1,"text":""},{"text":"b"}]}"#),
            2
        );
    }

    #[test]
    fn a_finish_reason_and_usage_are_read() {
        let data = br#"{"id":"x","choices":[{"index":3,"delta":{},"finish_reason":"len\u0067th"}],
            "usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,
            "prompt_tokens_details":{"cached_tokens":4}}}"#;
        let Ok(Said::Chunk(chunk)) = parse(b"", data) else { panic!("a chunk") };
        let choice = chunk.choices.iter().next().unwrap();
        assert_eq!((choice.index, choice.finish_reason().as_deref()), (3, Some("length")));
        let usage = chunk.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (Some(7), Some(5)));
        assert_eq!(usage.cached_tokens(), Some(4));
        let Ok(Said::Chunk(chunk)) = parse(
            b"",
            br#"{"choices":[{"finish_reason":null}],"usage":{"prompt_tokens_details":null}}"#,
        ) else {
            panic!("a chunk")
        };
        assert!(chunk.choices.iter().next().unwrap().finish_reason().is_none());
        assert_eq!(chunk.usage, Some(Usage::default()));
    }

    #[test]
    fn errors_and_the_end_are_told_apart_from_chunks() {
        let error = |name: &[u8], data: &str| match parse(name, data.as_bytes()) {
            Ok(Said::Error(text)) => text,
            other => panic!("{data}: {other:?}"),
        };
        assert_eq!(error(b"", r#"{"error":{"message":"no memory","code":500}}"#), "no memory");
        assert_eq!(error(b"", r#"{"error":"no memory"}"#), "no memory");
        assert_eq!(error(b"", r#"{"object":"error","message":"bad","code":400}"#), "bad");
        assert_eq!(error(b"error", r#"{"message":"gone"}"#), "gone");
        assert_eq!(error(b"error", "plain words"), "plain words");
        assert_eq!(contents(r#"{"error":null,"choices":[{"text":"a"}]}"#), 1);
        assert!(matches!(parse(b"", b" [DONE] "), Ok(Said::Done)));
        assert!(parse(b"", b"{\"choices\":[").is_err());
        assert!(parse(b"", b"").is_err());
        assert!(parse(b"", b"{\"choices\":[{\"text\":\"\xFF\"}]}").is_err(), "not UTF-8");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was_sent(text in ".*") {
            let data = serde_json::json!({"choices": [{"delta": {"content": text}}]}).to_string();
            let Ok(Said::Chunk(chunk)) = parse(b"", data.as_bytes()) else { panic!("a chunk") };
            prop_assert_eq!(chunk.contents(), u32::from(!text.is_empty()));
            let choice = chunk.choices.iter().next().unwrap();
            let got: String = choice.texts().filter_map(string).collect();
            prop_assert_eq!(got, text);
        }

        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(b"", &data);
            let _ = parse(b"error", &data);
        }
    }
}
