//! The endpoint families: how each is asked, and what each event of its answers says.
//!
//! A family is a module with two functions: one writes the fields of its request ([`body`] puts them
//! together), one reads one event. Both are chosen by a `match` on [`Api`]; there is no table of
//! functions between a read and its tokens.
//!
//! **Invariants:** reading an event of a stream allocates nothing in the common case (texts stay raw
//! JSON, escaped as they came, and are read as strings only where somebody wants the text); an empty
//! content or a lone role is not a token; unknown fields and unknown events are skipped, so engines may
//! add what they like.

pub mod body;
pub mod embeddings;
pub mod messages;
pub mod ollama;
pub mod openai;
pub(crate) mod pattern;
pub mod responses;
pub mod sglang;
pub mod tgi;

use scalebeam_model::workload::Api;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// What the events of one answer have said before, where a family needs to know.
#[derive(Debug, Default)]
pub struct Memory {
    pub(crate) sglang: sglang::Text,
}

/// Token counts by the server, whatever the family calls them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, those from a cache among them.
    pub prompt_tokens: Option<u32>,
    /// Output tokens.
    pub output_tokens: Option<u32>,
    /// Prompt tokens that were not computed anew.
    pub cached_tokens: Option<u32>,
    /// Output tokens that are reasoning.
    pub reasoning_tokens: Option<u32>,
}

impl Usage {
    /// Takes in a later count. Counts of one answer only grow, and some servers begin with a zero that
    /// they correct at the end; what a later event leaves out still holds.
    pub fn absorb(&mut self, later: Self) {
        self.prompt_tokens = self.prompt_tokens.max(later.prompt_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cached_tokens = self.cached_tokens.max(later.cached_tokens);
        self.reasoning_tokens = self.reasoning_tokens.max(later.reasoning_tokens);
    }
}

/// What one event says.
#[derive(Debug)]
pub enum Said<'a> {
    /// Content, a finish reason, usage, or nothing of interest.
    Chunk(Chunk<'a>),
    /// The server failed; its words.
    Error(String),
    /// The answer is over, and nothing of interest follows.
    Done,
}

/// A chunk of a streamed answer, or a whole answer that was not streamed.
#[derive(Debug, Default)]
pub struct Chunk<'a> {
    /// The choices it speaks of.
    pub choices: Few<Choice<'a>, 1>,
    /// Token counts so far, or in all.
    pub usage: Option<Usage>,
    /// The answer is over with this event.
    pub is_last: bool,
}

impl<'a> Chunk<'a> {
    /// How many of its choices carry content.
    pub fn contents(&self) -> u32 {
        self.choices.iter().map(|c| u32::from(c.has_content())).sum()
    }

    /// How many of its choices carry reasoning and nothing else.
    pub fn reasoning(&self) -> u32 {
        self.choices.iter().map(|c| u32::from(c.is_reasoning())).sum()
    }

    /// A chunk of one choice.
    fn of(choice: Choice<'a>) -> Self {
        let mut choices = Few::default();
        choices.push(choice);
        Self { choices, usage: None, is_last: false }
    }
}

/// One choice: the next piece of the answer to one prompt.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// Which of the prompts it answers.
    pub index: u32,
    texts: Few<Text<'a>, 4>,
    /// Something in `texts` is no reasoning.
    answers: bool,
    finish_reason: Option<&'a RawValue>,
}

impl<'a> Choice<'a> {
    /// Its non-empty texts: reasoning, content, tool-call names and arguments.
    pub fn texts(&self) -> impl Iterator<Item = Text<'a>> {
        self.texts.iter().copied()
    }

    /// Whether any text in it is not empty.
    pub fn has_content(&self) -> bool {
        self.texts.iter().next().is_some()
    }

    /// Whether its content is reasoning and nothing else.
    pub fn is_reasoning(&self) -> bool {
        self.has_content() && !self.answers
    }

    /// The finish reason, where this chunk has one.
    pub fn finish_reason(&self) -> Option<Cow<'a, str>> {
        string(self.finish_reason?).filter(|reason| !reason.is_empty())
    }

    /// Takes `raw` in as content, unless it is empty.
    fn say(&mut self, raw: Option<&'a RawValue>) {
        if let Some(raw) = raw.filter(|raw| is_content(raw)) {
            self.answer(Text::Value(raw));
        }
    }

    /// Takes in a piece that is no reasoning.
    fn answer(&mut self, text: Text<'a>) {
        self.texts.push(text);
        self.answers = true;
    }

    /// Takes `raw` in as output that is neither reasoning nor text, as calls of tools are, unless it is empty.
    fn remark(&mut self, raw: Option<&'a RawValue>) {
        if let Some(raw) = raw.filter(|raw| is_content(raw)) {
            self.answer(Text::Aside(raw));
        }
    }

    /// Takes `raw` in as reasoning, unless it is empty.
    fn think(&mut self, raw: Option<&'a RawValue>) {
        if let Some(raw) = raw.filter(|raw| is_content(raw)) {
            self.texts.push(Text::Aside(raw));
        }
    }
}

/// A piece of output as it came: JSON, still escaped.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// A JSON value.
    Value(&'a RawValue),
    /// A JSON value that a chat client does not send back as the answer: reasoning, calls of tools.
    Aside(&'a RawValue),
    /// The inside of a JSON string: what a text that is sent over and over has more than before.
    Inside(&'a str),
    /// Output that is no text.
    Opaque,
}

impl Text<'_> {
    /// Whether it is a part of the answer, as a later turn carries it.
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Value(_) | Self::Inside(_))
    }

    /// Appends it to raw JSON values that stand one after the other.
    pub fn append_to(self, values: &mut Vec<u8>) {
        match self {
            Self::Value(raw) | Self::Aside(raw) => values.extend_from_slice(raw.get().as_bytes()),
            Self::Inside(inner) => {
                values.push(b'"');
                values.extend_from_slice(inner.as_bytes());
                values.push(b'"');
            }
            Self::Opaque => {}
        }
    }
}

/// A list that is nearly always of at most `N`, which need no allocation.
#[derive(Debug)]
pub struct Few<T, const N: usize> {
    first: [Option<T>; N],
    rest: Vec<T>,
}

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self { first: [const { None }; N], rest: Vec::new() }
    }
}

impl<T, const N: usize> Few<T, N> {
    /// The items in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().flatten().chain(&self.rest)
    }

    fn push(&mut self, item: T) {
        match self.first.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(item),
            None => self.rest.push(item),
        }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Seq<T, N> {
            type Value = Few<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T, N>, A::Error> {
                let mut few = Few::default();
                while let Some(item) = seq.next_element()? {
                    few.push(item);
                }
                Ok(few)
            }
        }
        deserializer.deserialize_seq(Seq(PhantomData))
    }
}

/// Reads one event of a stream. `name` is the event's name, empty where the stream has none.
///
/// # Errors
/// When the data is not JSON of the shape of an answer.
pub fn event<'a>(
    api: Api,
    memory: &mut Memory,
    name: &[u8],
    data: &'a [u8],
) -> Result<Said<'a>, serde_json::Error> {
    if name == b"error" {
        return Ok(Said::Error(error_text(data)));
    }
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        return Ok(Said::Done);
    }
    match api {
        Api::Chat | Api::Completions => openai::read(data),
        Api::Responses => responses::event(data),
        Api::Embeddings => embeddings::document(data),
        Api::Messages => messages::event(data),
        Api::Tgi => tgi::read(data),
        Api::Sglang => sglang::read(&mut memory.sglang, data),
        Api::OllamaChat | Api::OllamaGenerate => ollama::read(data),
    }
}

/// Reads an answer that came as one document.
///
/// # Errors
/// When it is not JSON of the shape of an answer.
pub fn document(api: Api, data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let data = data.trim_ascii();
    match api {
        Api::Responses => responses::document(data),
        Api::Messages => messages::document(data),
        _ => event(api, &mut Memory::default(), b"", data),
    }
}

/// Whether a raw JSON value is a text, or a list of parts, that is not empty.
fn is_content(raw: &RawValue) -> bool {
    match raw.get().as_bytes() {
        [b'"', b'"'] | [] => false,
        [b'"', ..] => true,
        [b'[', inner @ .., b']'] => inner.iter().any(|b| !b.is_ascii_whitespace()),
        _ => false,
    }
}

/// Whether a raw JSON value is the string `text`; `text` must need no escapes.
fn is_string(raw: Option<&RawValue>, text: &str) -> bool {
    raw.and_then(inside) == Some(text)
}

/// The inside of a raw JSON string, escaped as it came.
fn inside(raw: &RawValue) -> Option<&str> {
    raw.get().strip_prefix('"')?.strip_suffix('"')
}

/// A raw JSON value that is there and not `null`.
fn some(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// A raw JSON string as text; borrowed unless it holds escapes. `None` where it is no string.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = inside(raw)?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw.get()).ok().map(Cow::Owned)
}

/// The words of an error, in whichever of the usual wrappings: `{"error": {"message": ..}}`,
/// `{"error": ".."}`, `{"message": ..}`, `{"detail": ..}`, or bare text.
pub fn error_text(data: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else {
        return String::from_utf8_lossy(data).into_owned();
    };
    let inner = value.get("error").filter(|e| !e.is_null()).unwrap_or(&value);
    let message = ["message", "detail"].into_iter().find_map(|key| inner.get(key)?.as_str());
    message.or(inner.as_str()).map_or_else(|| inner.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
