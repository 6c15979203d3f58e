//! Text Generation Inference: `POST /generate_stream`, and `POST /generate` without a stream.
//!
//! One event a token; the last one carries the whole text and the counts, and nothing follows it.

use super::body::Round;
use super::{Choice, Chunk, Said, Usage, error_text, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Writes the fields of a request. There is none that forces a length, and a temperature of zero is
/// refused: greedy decoding is what it does without sampling.
pub(super) fn ask(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    let mut parameters = json!({ "max_new_tokens": prompt.max_tokens, "details": true });
    match workload.temperature {
        Some(temperature) if temperature > 0.0 => {
            parameters["do_sample"] = true.into();
            parameters["temperature"] = temperature.into();
        }
        Some(_) => parameters["do_sample"] = false.into(),
        None => {}
    }
    map.insert("inputs".to_owned(), super::body::continued(past, &prompt.texts.join("\n")).into());
    map.insert("parameters".to_owned(), parameters);
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    token: Option<Token<'a>>,
    #[serde(borrow, default)]
    generated_text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    details: Option<Details<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    /// An end-of-sequence mark and its like: no part of the text.
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(default)]
    generated_tokens: Option<u32>,
    /// Since version 2.2.
    #[serde(default)]
    input_length: Option<u32>,
}

pub(super) fn read(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    if some(wire.error).is_some() {
        return Ok(Said::Error(error_text(data)));
    }
    let mut choice = Choice::default();
    match &wire.token {
        Some(token) if token.special => {}
        Some(token) => choice.say(token.text),
        // Only an answer without a stream has its text nowhere else.
        None => choice.say(wire.generated_text),
    }
    choice.finish_reason = wire.details.as_ref().and_then(|d| d.finish_reason);
    let mut chunk = Chunk::of(choice);
    chunk.is_last = wire.details.is_some() || some(wire.generated_text).is_some();
    chunk.usage = wire.details.map(|d| Usage {
        prompt_tokens: d.input_length,
        output_tokens: d.generated_tokens,
        ..Usage::default()
    });
    Ok(Said::Chunk(chunk))
}
