//! OpenAI `POST /v1/responses`.
//!
//! A stream is a response that is created, items that are added, grow by deltas and are done, and the
//! response again, completed, incomplete or failed. Only deltas are new output: the events that repeat
//! a text once it is done are not counted.

use super::body::Round;
use super::openai::Reasoned;
use super::{Choice, Chunk, Few, Said, Usage, error_text, inside, is_string, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Writes the fields of a request.
pub(super) fn ask(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    if let Some(system) = &workload.system {
        map.insert("instructions".to_owned(), system.as_str().into());
    }
    let turn = |text: &String| json!({ "role": "user", "content": text });
    let input = match prompt.texts.as_slice() {
        [text] if past.is_empty() => Value::from(text.as_str()),
        texts => super::body::spoken(past).chain(texts.iter().map(turn)).collect(),
    };
    map.insert("input".to_owned(), input);
    map.insert("max_output_tokens".to_owned(), prompt.max_tokens.into());
    super::body::temperature(map, workload);
    // The server's default is to keep every answer; a load test must leave nothing behind.
    map.insert("store".to_owned(), false.into());
    if workload.force_len {
        map.insert("ignore_eos".to_owned(), true.into());
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<Item<'a>>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

/// An item of the output: a message, reasoning, or a call.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<Few<Part<'a>, 1>>,
    #[serde(borrow, default)]
    summary: Option<Few<Part<'a>, 1>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
}

/// How a response ended, without what it says: that was said by deltas.
#[derive(Deserialize)]
struct State<'a> {
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    incomplete_details: Option<Incomplete<'a>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default)]
    reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
    #[serde(default)]
    input_tokens_details: Option<Cached>,
    #[serde(default)]
    output_tokens_details: Option<Reasoned>,
}

#[derive(Deserialize)]
struct Cached {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Counts {
    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_tokens: self.input_tokens_details.as_ref().and_then(|d| d.cached_tokens),
            reasoning_tokens: self.output_tokens_details.as_ref().and_then(|d| d.reasoning_tokens),
        }
    }
}

pub(super) fn event(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    let kind = wire.kind.and_then(inside).unwrap_or_default();
    let mut choice = Choice::default();
    match kind {
        "response.completed" | "response.incomplete" | "response.failed" => {
            let response = wire.response.map_or("{}", RawValue::get);
            return end(serde_json::from_str(response)?, response, choice);
        }
        "error" => return Ok(Said::Error(error_text(data))),
        // The name of a tool is output too; its arguments follow as deltas.
        "response.output_item.added" => choice.remark(wire.item.and_then(|item| item.name)),
        // Its text, or the summary that stands for it.
        _ if kind.starts_with("response.reasoning") && kind.ends_with(".delta") => {
            choice.think(wire.delta);
        }
        "response.output_text.delta" | "response.refusal.delta" => choice.say(wire.delta),
        _ if kind.ends_with(".delta") => choice.remark(wire.delta),
        _ => {}
    }
    Ok(Said::Chunk(Chunk::of(choice)))
}

/// The end of a response: an answer that ran into its limit is one, a failed one is not.
fn end<'a>(
    state: State<'a>,
    text: &str,
    mut choice: Choice<'a>,
) -> Result<Said<'a>, serde_json::Error> {
    if some(state.error).is_some() || is_string(state.status, "failed") {
        return Ok(Said::Error(error_text(text.as_bytes())));
    }
    choice.finish_reason = state.incomplete_details.and_then(|d| d.reason).or(state.status);
    let mut chunk = Chunk::of(choice);
    chunk.is_last = true;
    chunk.usage = state.usage.as_ref().map(Counts::usage);
    Ok(Said::Chunk(chunk))
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow, default)]
    output: Option<Few<Item<'a>, 1>>,
}

pub(super) fn document(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let state: State<'_> = serde_json::from_slice(data)?;
    let whole: Output<'_> = serde_json::from_slice(data)?;
    let mut choice = Choice::default();
    for item in whole.output.iter().flat_map(Few::iter) {
        for part in item.summary.iter().flat_map(Few::iter) {
            choice.think(part.text);
        }
        for part in item.content.iter().flat_map(Few::iter) {
            choice.say(part.text);
            choice.say(part.refusal);
        }
        choice.remark(item.name);
        choice.remark(item.arguments);
    }
    end(state, text, choice)
}
