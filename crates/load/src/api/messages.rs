//! Anthropic `POST /v1/messages`.
//!
//! A stream is a message that begins (with the prompt's tokens), blocks that begin, grow and stop, the
//! message's delta (stop reason, output tokens) and its stop. Pings come between.

use super::body::Round;
use super::{Choice, Chunk, Few, Said, Usage, error_text, is_string, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Writes the fields of a request. There is none that forces a length.
pub(super) fn ask(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    if let Some(system) = &workload.system {
        map.insert("system".to_owned(), system.as_str().into());
    }
    let turn = |text: &String| json!({ "role": "user", "content": text });
    let said = super::body::spoken(past).chain(prompt.texts.iter().map(turn));
    map.insert("messages".to_owned(), said.collect());
    map.insert("max_tokens".to_owned(), prompt.max_tokens.into());
    super::body::temperature(map, workload);
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(default)]
    message: Option<Start>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    usage: Option<Counts>,
}

/// A block as it begins, or whole in an answer without a stream.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    /// Of a tool that is called.
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    /// Without those of the two caches.
    #[serde(default)]
    input_tokens: Option<u32>,
    #[serde(default)]
    cache_read_input_tokens: Option<u32>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
}

impl Counts {
    fn usage(&self) -> Usage {
        let cached = [self.cache_read_input_tokens, self.cache_creation_input_tokens];
        let prompt = |own: u32| cached.into_iter().flatten().fold(own, u32::saturating_add);
        Usage {
            prompt_tokens: self.input_tokens.map(prompt),
            output_tokens: self.output_tokens,
            cached_tokens: self.cache_read_input_tokens,
            reasoning_tokens: None,
        }
    }
}

impl<'a> Choice<'a> {
    fn begin(&mut self, block: &Block<'a>) {
        self.think(block.thinking);
        self.say(block.text);
        self.remark(block.name);
    }
}

pub(super) fn event(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    if is_string(wire.kind, "message_stop") {
        return Ok(Said::Done);
    }
    if is_string(wire.kind, "error") {
        return Ok(Said::Error(error_text(data)));
    }
    let mut choice = Choice::default();
    if let Some(block) = &wire.content_block {
        choice.begin(block);
    }
    if let Some(delta) = &wire.delta {
        choice.think(delta.thinking);
        choice.say(delta.text);
        choice.remark(delta.partial_json);
        choice.finish_reason = some(delta.stop_reason);
    }
    let mut chunk = Chunk::of(choice);
    chunk.usage = match wire.message.and_then(|m| m.usage) {
        // The count that a message begins with is of what is there already, not of the answer.
        Some(counts) => Some(Usage { output_tokens: None, ..counts.usage() }),
        None => wire.usage.as_ref().map(Counts::usage),
    };
    Ok(Said::Chunk(chunk))
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<Few<Block<'a>, 1>>,
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

pub(super) fn document(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let whole: Whole<'_> = serde_json::from_slice(data)?;
    if some(whole.error).is_some() || is_string(whole.kind, "error") {
        return Ok(Said::Error(error_text(data)));
    }
    let mut choice = Choice::default();
    for block in whole.content.iter().flat_map(Few::iter) {
        choice.begin(block);
    }
    choice.finish_reason = some(whole.stop_reason);
    let mut chunk = Chunk::of(choice);
    chunk.usage = whole.usage.as_ref().map(Counts::usage);
    Ok(Said::Chunk(chunk))
}
