//! OpenAI `POST /v1/chat/completions` and `POST /v1/completions`.

use super::body::Round;
use super::{Choice, Chunk, Few, Said, Usage, error_text, is_content, is_string, some};
use scalebeam_model::workload::{Prompt, Workload};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::fmt;

/// Writes the fields of a chat request.
pub(super) fn ask_chat(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    map.insert("messages".to_owned(), messages(workload, past, prompt));
    settings(map, workload, prompt);
}

/// Writes the fields of a request for plain text.
pub(super) fn ask_text(
    map: &mut Map<String, Value>,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) {
    map.insert("prompt".to_owned(), prompts(workload, past, prompt));
    settings(map, workload, prompt);
}

fn settings(map: &mut Map<String, Value>, workload: &Workload, prompt: &Prompt) {
    map.insert("max_tokens".to_owned(), prompt.max_tokens.into());
    super::body::temperature(map, workload);
    if workload.force_len {
        map.insert("ignore_eos".to_owned(), true.into());
        map.insert("min_tokens".to_owned(), prompt.max_tokens.into());
    }
}

pub(super) fn messages(workload: &Workload, past: &[Round], prompt: &Prompt) -> Value {
    let system = workload.system.iter().map(|text| json!({ "role": "system", "content": text }));
    // A chat has one answer; several texts are turns of one user.
    let user = prompt.texts.iter().map(|text| json!({ "role": "user", "content": text }));
    Value::Array(system.chain(super::body::spoken(past)).chain(user).collect())
}

fn prompts(workload: &Workload, past: &[Round], prompt: &Prompt) -> Value {
    // The completions endpoint has no system message; it goes in front, as a template would put it.
    let full = |text: &String| {
        let text = super::body::continued(past, text);
        Value::from(match &workload.system {
            Some(system) => format!("{system}\n\n{text}"),
            None => text,
        })
    };
    match prompt.texts.as_slice() {
        [text] => full(text),
        texts => Value::Array(texts.iter().map(full).collect()),
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    choices: Option<Few<Choice<'a>, 1>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(default)]
    prompt_tokens_details: Option<Cached>,
    #[serde(default)]
    completion_tokens_details: Option<Reasoned>,
}

#[derive(Deserialize)]
pub(super) struct Reasoned {
    #[serde(default)]
    pub(super) reasoning_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Cached {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Counts {
    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.completion_tokens,
            cached_tokens: self.prompt_tokens_details.as_ref().and_then(|d| d.cached_tokens),
            reasoning_tokens: self
                .completion_tokens_details
                .as_ref()
                .and_then(|d| d.reasoning_tokens),
        }
    }
}

#[derive(Deserialize)]
struct WireChoice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
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

#[derive(Default, Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

/// The first tool call with content; more than one in a chunk is one arrival all the same.
#[derive(Default)]
struct ToolCalls<'a>(Option<Function<'a>>);

impl<'a> Function<'a> {
    fn is_filled(&self) -> bool {
        [self.name, self.arguments].into_iter().flatten().any(is_content)
    }

    fn tell(&self, choice: &mut Choice<'a>) {
        choice.remark(self.name);
        choice.remark(self.arguments);
    }
}

impl<'a> Delta<'a> {
    fn tell(&self, choice: &mut Choice<'a>) {
        // Some servers send the same reasoning under both names.
        choice.think(self.reasoning_content.filter(|r| is_content(r)).or(self.reasoning));
        choice.say(self.content);
        let tool = self.tool_calls.as_ref().and_then(|t| t.0.as_ref());
        for function in tool.into_iter().chain(&self.function_call) {
            function.tell(choice);
        }
    }
}

pub(super) fn read(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    let wire: Wire<'_> = serde_json::from_slice(data)?;
    if some(wire.error).is_some() || is_string(wire.object, "error") {
        return Ok(Said::Error(error_text(data)));
    }
    let usage = wire.usage.as_ref().map(Counts::usage);
    Ok(Said::Chunk(Chunk { choices: wire.choices.unwrap_or_default(), usage, is_last: false }))
}

impl<'de: 'a, 'a> Deserialize<'de> for Choice<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireChoice::deserialize(deserializer)?;
        let mut choice =
            Self { index: wire.index, finish_reason: some(wire.finish_reason), ..Self::default() };
        for delta in wire.delta.iter().chain(&wire.message) {
            delta.tell(&mut choice);
        }
        choice.say(wire.text);
        Ok(choice)
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
                        && function.is_filled()
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
