//! `POST /v1/embeddings`: a vector for each text. No stream and no output tokens; what is measured is
//! how long the whole answer takes.

use super::{Choice, Chunk, Few, Said, Text, Usage, error_text, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Writes the fields of a request that all families do not share.
pub(super) fn ask(map: &mut Map<String, Value>, _workload: &Workload, prompt: &Prompt) {
    let input = match prompt.texts.as_slice() {
        [text] => Value::from(text.as_str()),
        texts => Value::from(texts.to_vec()),
    };
    map.insert("input".to_owned(), input);
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    data: Option<Few<Vector<'a>, 1>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Vector<'a> {
    #[serde(default)]
    index: u32,
    /// A list of numbers, or base64.
    #[serde(borrow, default)]
    embedding: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    // Some servers add `completion_tokens: 0`, which is not a length of anything.
    #[serde(default)]
    prompt_tokens: Option<u32>,
}

pub(super) fn document(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    if some(wire.error).is_some() || super::is_string(wire.object, "error") {
        return Ok(Said::Error(error_text(data)));
    }
    let mut chunk = Chunk { is_last: true, ..Chunk::default() };
    for vector in wire.data.iter().flat_map(Few::iter) {
        let mut choice = Choice { index: vector.index, ..Choice::default() };
        if vector.embedding.is_some_and(super::is_content) {
            choice.texts.push(Text::Opaque);
        }
        chunk.choices.push(choice);
    }
    let count = |c: &Counts| Usage { prompt_tokens: c.prompt_tokens, ..Usage::default() };
    chunk.usage = wire.usage.as_ref().map(count);
    Ok(Said::Chunk(chunk))
}
