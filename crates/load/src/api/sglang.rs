//! `SGLang`'s own `POST /generate`.
//!
//! Every event repeats the whole text so far, unless the server was started to send disjoint segments.
//! Nothing in an answer says which, so the texts themselves tell: the first one that does not begin
//! with its predecessor cannot be a whole.

use super::body::Round;
use super::{Choice, Chunk, Said, Text as Piece, Usage, error_text, inside, is_string, some};
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
    let mut sampling = json!({ "max_new_tokens": prompt.max_tokens });
    if let Some(temperature) = workload.temperature {
        sampling["temperature"] = temperature.into();
    }
    if workload.force_len {
        sampling["ignore_eos"] = true.into();
        sampling["min_new_tokens"] = prompt.max_tokens.into();
    }
    map.insert("text".to_owned(), super::body::continued(past, &prompt.texts.join("\n")).into());
    map.insert("sampling_params".to_owned(), sampling);
}

/// The text of an answer so far.
#[derive(Debug, Default)]
pub struct Text {
    /// The inside of the last event's JSON string; grows by what each event adds.
    so_far: String,
    is_disjoint: bool,
}

impl Text {
    /// What `whole` says that was not said before.
    fn news<'a>(&mut self, whole: &'a str) -> &'a str {
        if self.is_disjoint {
            return whole;
        }
        match whole.strip_prefix(self.so_far.as_str()) {
            Some(more) => {
                self.so_far.push_str(more);
                more
            }
            None => {
                self.is_disjoint = true;
                self.so_far = String::new();
                whole
            }
        }
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    meta_info: Option<Meta<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(default)]
    cached_tokens: Option<u32>,
    /// `{"type": ..}`; a string in old versions.
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Finish<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a RawValue,
}

pub(super) fn read<'a>(text: &mut Text, data: &'a [u8]) -> Result<Said<'a>, serde_json::Error> {
    let wire: Wire<'a> = serde_json::from_slice(data)?;
    if some(wire.error).is_some() {
        return Ok(Said::Error(error_text(data)));
    }
    let mut choice = Choice::default();
    let news = wire.text.and_then(inside).map_or("", |whole| text.news(whole));
    if !news.is_empty() {
        choice.answer(Piece::Inside(news));
    }
    let mut usage = None;
    if let Some(meta) = wire.meta_info {
        if let Some(finish) = some(meta.finish_reason) {
            choice.finish_reason = Some(kind_of(finish));
            if is_string(choice.finish_reason, "abort") {
                return Ok(Said::Error(error_text(finish.get().as_bytes())));
            }
        }
        usage = Some(Usage {
            prompt_tokens: meta.prompt_tokens,
            output_tokens: meta.completion_tokens,
            cached_tokens: meta.cached_tokens,
            reasoning_tokens: None,
        });
    }
    let mut chunk = Chunk::of(choice);
    chunk.usage = usage;
    Ok(Said::Chunk(chunk))
}

fn kind_of(finish: &RawValue) -> &RawValue {
    serde_json::from_str::<Finish<'_>>(finish.get()).map_or(finish, |f| f.kind)
}
