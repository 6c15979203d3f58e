//! Ollama: `POST /api/chat` and `POST /api/generate`. A stream is one JSON document a line; the last
//! one says `done` and carries the counts.

use super::body::Round;
use super::{Choice, Chunk, Said, Usage, error_text, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Writes the fields of a chat request.
pub(super) fn ask_chat(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    map.insert("messages".to_owned(), super::openai::messages(workload, past, prompt));
    options(map, workload, prompt);
}

/// Writes the fields of a request for plain text.
pub(super) fn ask_generate(map: &mut Map<String, Value>, workload: &Workload, prompt: &Prompt) {
    map.insert("prompt".to_owned(), prompt.texts.join("\n").into());
    if let Some(system) = &workload.system {
        map.insert("system".to_owned(), system.as_str().into());
    }
    options(map, workload, prompt);
}

/// `num_predict` is a limit; there is no field that keeps an answer from ending before it.
fn options(map: &mut Map<String, Value>, workload: &Workload, prompt: &Prompt) {
    let mut options = json!({ "num_predict": prompt.max_tokens });
    if let Some(temperature) = workload.temperature {
        options["temperature"] = temperature.into();
    }
    map.insert("options".to_owned(), options);
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(default)]
    done: bool,
    #[serde(borrow, default)]
    done_reason: Option<&'a RawValue>,
    #[serde(default)]
    prompt_eval_count: Option<u32>,
    #[serde(default)]
    eval_count: Option<u32>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    /// Whole calls; Ollama does not stream arguments.
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

pub(super) fn read(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    if some(wire.error).is_some() {
        return Ok(Said::Error(error_text(data)));
    }
    let mut choice = Choice::default();
    if let Some(message) = &wire.message {
        choice.think(message.thinking);
        choice.say(message.content);
        choice.remark(message.tool_calls);
    }
    choice.think(wire.thinking);
    choice.say(wire.response);
    choice.finish_reason = wire.done_reason.filter(|_| wire.done);
    let mut chunk = Chunk::of(choice);
    chunk.is_last = wire.done;
    let usage = Usage {
        prompt_tokens: wire.prompt_eval_count,
        output_tokens: wire.eval_count,
        ..Usage::default()
    };
    chunk.usage = (usage != Usage::default()).then_some(usage);
    Ok(Said::Chunk(chunk))
}
