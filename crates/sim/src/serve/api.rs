//! Reading a completion request: what is asked, or an error that says which field is wrong.
//!
//! Fields that change nothing here (temperature, penalties, ...) are accepted and ignored, as a server
//! with greedy defaults would.

use super::tokens::{self, count_tokens};
use crate::hash;
use serde::Deserialize;
use serde_json::Value;

/// Which endpoint was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// vLLM's default for `/v1/completions`.
const DEFAULT_TEXT_TOKENS: u64 = 16;
/// Without a limit a chat runs until its end; here that is drawn below this.
const DEFAULT_CHAT_TOKENS: u64 = 256;
/// Choices that one request may ask for.
const MAX_CHOICES: u64 = 4_096;
/// Purpose of [`hash::draw`].
const LENGTH: u64 = 0x1e46;

/// The fields that matter, as they come.
#[derive(Debug, Default, Deserialize)]
struct Fields {
    model: Option<String>,
    prompt: Option<Value>,
    messages: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    min_tokens: Option<u64>,
    ignore_eos: Option<bool>,
    n: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// A prompt as far as anything here depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prompt {
    /// Its length.
    pub(super) tokens: u64,
    /// Its identity, from which the answer's length and words are drawn.
    pub(super) subject: u64,
}

/// A request that has been understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model's name, where one is given.
    pub(super) model: Option<String>,
    /// At least one prompt.
    pub(super) prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub(super) n: u64,
    /// Whether to stream.
    pub(super) stream: bool,
    /// Whether a stream ends with a usage chunk.
    pub(super) include_usage: bool,
    max_tokens: Option<u64>,
    min_tokens: u64,
    ignore_eos: bool,
    kind: Kind,
}

/// How long one answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// Tokens.
    pub(super) tokens: u64,
    /// Whether it ends by itself before its limit.
    pub(super) stops: bool,
}

impl Asked {
    /// Reads a request body.
    pub(super) fn read(kind: Kind, body: &[u8]) -> Result<Self, String> {
        let fields: Fields = serde_json::from_slice(body)
            .map_err(|error| format!("cannot read the body: {error}"))?;
        let prompts = match kind {
            Kind::Chat => vec![chat_prompt(fields.messages.as_ref())?],
            Kind::Text => text_prompts(fields.prompt.as_ref())?,
        };
        let n = fields.n.unwrap_or(1);
        if n == 0 || n.saturating_mul(prompts.len() as u64) > MAX_CHOICES {
            return Err(format!("n is {n}, but 1 to {MAX_CHOICES} choices are possible"));
        }
        let max_tokens = fields.max_completion_tokens.or(fields.max_tokens);
        if max_tokens == Some(0) {
            return Err("max_tokens is 0, but at least 1 is needed".to_owned());
        }
        let options = fields.stream_options.unwrap_or_default();
        Ok(Self {
            model: fields.model,
            prompts,
            n,
            stream: fields.stream.unwrap_or(false),
            include_usage: options.include_usage.unwrap_or(false),
            max_tokens,
            min_tokens: fields.min_tokens.unwrap_or(0),
            ignore_eos: fields.ignore_eos.unwrap_or(false),
            kind,
        })
    }

    /// Most tokens that `prompt` may be answered with in a context of `max_model_len`.
    pub(super) fn limit(&self, prompt: Prompt, max_model_len: u64) -> Result<u64, String> {
        let room = max_model_len.saturating_sub(prompt.tokens);
        let default = match self.kind {
            Kind::Chat => DEFAULT_CHAT_TOKENS.min(room).max(1),
            Kind::Text => DEFAULT_TEXT_TOKENS,
        };
        let limit = self.max_tokens.unwrap_or(default);
        if limit > room {
            let prompt = prompt.tokens;
            return Err(format!(
                "this model's maximum context length is {max_model_len} tokens, but {} were requested \
                 ({prompt} in the prompt, {limit} to generate)",
                prompt.saturating_add(limit)
            ));
        }
        Ok(limit)
    }

    /// The answer's length: the limit itself with `ignore_eos` (or when `min_tokens` reaches it), and
    /// otherwise drawn evenly from 60 % to 100 % of it.
    pub(super) fn length(&self, subject: u64, seed: u64, limit: u64) -> Length {
        if self.ignore_eos || self.min_tokens >= limit {
            return Length { tokens: limit, stops: false };
        }
        let low = (limit * 3).div_ceil(5).max(self.min_tokens).max(1);
        let tokens = low + hash::draw(seed, LENGTH, subject) % (limit - low + 1);
        Length { tokens, stops: tokens < limit }
    }
}

/// All messages as one prompt. Parts that are not text have no meaning here and are refused, rather
/// than counted as nothing.
fn chat_prompt(messages: Option<&Value>) -> Result<Prompt, String> {
    let messages = messages.and_then(Value::as_array).filter(|list| !list.is_empty());
    let messages = messages.ok_or("messages has to be a list of at least one message")?;
    let mut total = Prompt { tokens: tokens::PER_CHAT, subject: 0 };
    for message in messages {
        let content = message_text(message.get("content"))?;
        total.tokens += tokens::PER_MESSAGE + count_tokens(&content);
        total.subject = hash::mix(total.subject ^ hash::of_bytes(content.as_bytes()));
    }
    Ok(total)
}

fn message_text(content: Option<&Value>) -> Result<String, String> {
    match content {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<&str>> =
                parts.iter().map(|part| part.get("text")?.as_str()).collect();
            Ok(texts.ok_or("a message has a part that is not text")?.join("\n"))
        }
        Some(_) => Err("a message's content has to be a string or a list of parts".to_owned()),
    }
}

/// A string, a list of strings, token ids, or a list of token id lists.
fn text_prompts(prompt: Option<&Value>) -> Result<Vec<Prompt>, String> {
    const WANTED: &str = "prompt has to be a string, a list of strings, or token ids";
    match prompt {
        Some(Value::String(text)) => Ok(vec![of_text(text)]),
        Some(Value::Array(list)) if list.is_empty() => Err("prompt is an empty list".to_owned()),
        Some(Value::Array(list)) => match of_ids(list) {
            Some(prompt) => Ok(vec![prompt]),
            None => {
                list.iter().map(of_item).collect::<Option<_>>().ok_or_else(|| WANTED.to_owned())
            }
        },
        _ => Err(WANTED.to_owned()),
    }
}

fn of_item(item: &Value) -> Option<Prompt> {
    match item {
        Value::String(text) => Some(of_text(text)),
        Value::Array(ids) if !ids.is_empty() => of_ids(ids),
        _ => None,
    }
}

/// A prompt has at least one token: engines put one before the text.
fn of_text(text: &str) -> Prompt {
    Prompt { tokens: count_tokens(text).max(1), subject: hash::of_bytes(text.as_bytes()) }
}

fn of_ids(list: &[Value]) -> Option<Prompt> {
    let ids: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
    let subject = ids?.into_iter().fold(0, |subject, id| hash::mix(subject ^ id));
    Some(Prompt { tokens: list.len() as u64, subject })
}

/// The text of a `/tokenize` request, and the tokens that a chat template adds to it.
pub(super) fn tokenize_text(body: &[u8]) -> Result<(String, u64), String> {
    let fields: Fields =
        serde_json::from_slice(body).map_err(|error| format!("cannot read the body: {error}"))?;
    if let Some(Value::String(text)) = fields.prompt {
        return Ok((text, 0));
    }
    let messages = fields.messages.as_ref().and_then(Value::as_array);
    let messages = messages.ok_or("prompt has to be a string, or messages a list")?;
    let texts: Result<Vec<String>, String> =
        messages.iter().map(|message| message_text(message.get("content"))).collect();
    Ok((texts?.join("\n"), tokens::PER_CHAT + tokens::PER_MESSAGE * messages.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> Result<Asked, String> {
        Asked::read(Kind::Text, body.as_bytes())
    }

    fn lengths(body: &str) -> Vec<u64> {
        text(body).unwrap().prompts.iter().map(|prompt| prompt.tokens).collect()
    }

    #[test]
    fn prompts_come_in_four_forms() {
        assert_eq!(lengths(r#"{"prompt":"a b c"}"#), [3]);
        assert_eq!(lengths(r#"{"prompt":["a b","c"]}"#), [2, 1]);
        assert_eq!(lengths(r#"{"prompt":[5,6,7]}"#), [3]);
        assert_eq!(lengths(r#"{"prompt":[[5,6],[7]]}"#), [2, 1]);
        assert_eq!(lengths(r#"{"prompt":""}"#), [1]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (body, want) in [
            ("{", "cannot read the body"),
            ("{}", "prompt has to be"),
            (r#"{"prompt":[]}"#, "empty list"),
            (r#"{"prompt":[1,"a"]}"#, "prompt has to be"),
            (r#"{"prompt":"a","n":0}"#, "n is 0"),
            (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens is 0"),
            (r#"{"prompt":"a","max_tokens":-1}"#, "cannot read the body"),
        ] {
            let got = text(body).unwrap_err();
            assert!(got.contains(want), "{got}");
        }
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#;
        assert!(Asked::read(Kind::Chat, image.as_bytes()).unwrap_err().contains("not text"));
    }

    #[test]
    fn a_chat_counts_its_template() {
        let body = r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":
            [{"type":"text","text":"why"}]}]}"#;
        let asked = Asked::read(Kind::Chat, body.as_bytes()).unwrap();
        assert_eq!(asked.prompts[0].tokens, 3 + 2 * 4 + 3);
    }

    #[test]
    fn lengths_are_exact_or_drawn_from_the_upper_two_fifths() {
        let asked = text(r#"{"prompt":"a","max_tokens":100}"#).unwrap();
        let drawn: Vec<Length> = (0..2_000).map(|s| asked.length(s, 1, 100)).collect();
        assert!(
            drawn.iter().all(|l| (60..=100).contains(&l.tokens) && l.stops == (l.tokens < 100))
        );
        assert!(drawn.iter().any(|l| l.tokens == 60) && drawn.iter().any(|l| l.tokens == 100));
        let mean = drawn.iter().map(|l| l.tokens).sum::<u64>() / 2_000;
        assert!((78..=82).contains(&mean));
        for exact in [r#""ignore_eos":true"#, r#""min_tokens":100"#] {
            let asked = text(&format!(r#"{{"prompt":"a",{exact}}}"#)).unwrap();
            assert_eq!(asked.length(3, 1, 100), Length { tokens: 100, stops: false });
        }
        assert_eq!(asked.length(0, 1, 1), Length { tokens: 1, stops: false });
    }

    #[test]
    fn the_context_is_a_limit() {
        let asked = text(r#"{"prompt":"a b","max_tokens":9}"#).unwrap();
        assert_eq!(asked.limit(asked.prompts[0], 11), Ok(9));
        assert!(asked.limit(asked.prompts[0], 10).unwrap_err().contains("11 were requested"));
    }
}
