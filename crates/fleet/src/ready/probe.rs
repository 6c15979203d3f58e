//! The question of the last gate in each family's words, and what the answers to it hold. Pure.

use scalebeam_model::framing::{self, Framing, Kind};
use scalebeam_model::workload::Api;
use serde_json::{Value, json};

const PROMPT: &str = "Say hello.";
const ASKED_TOKENS: u32 = 8;

/// A small request; streamed, where the family can.
pub(super) fn request(api: Api, model: &str) -> Value {
    asking(api, model, PROMPT)
}

/// The same about `prompt`.
pub(super) fn asking(api: Api, model: &str, prompt: &str) -> Value {
    let messages = json!([{ "role": "user", "content": prompt }]);
    let options = json!({ "num_predict": ASKED_TOKENS, "temperature": 0.0 });
    match api {
        Api::Chat => json!({
            "model": model,
            "messages": messages,
            "max_tokens": ASKED_TOKENS,
            "temperature": 0.0,
            "stream": true,
            "stream_options": { "include_usage": true },
        }),
        Api::Completions => json!({
            "model": model,
            "prompt": prompt,
            "max_tokens": ASKED_TOKENS,
            "temperature": 0.0,
            "stream": true,
            "stream_options": { "include_usage": true },
        }),
        Api::Responses => json!({
            "model": model,
            "input": prompt,
            // The least that OpenAI takes.
            "max_output_tokens": 16,
            "store": false,
            "stream": true,
        }),
        Api::Embeddings => json!({ "model": model, "input": prompt }),
        Api::Messages => json!({
            "model": model,
            "messages": messages,
            "max_tokens": ASKED_TOKENS,
            "stream": true,
        }),
        Api::Tgi => json!({
            "inputs": prompt,
            "parameters": { "max_new_tokens": ASKED_TOKENS, "details": true },
        }),
        Api::Sglang => json!({
            "text": prompt,
            "sampling_params": { "max_new_tokens": ASKED_TOKENS, "temperature": 0.0 },
            "stream": true,
        }),
        Api::OllamaChat => {
            json!({ "model": model, "messages": messages, "options": options, "stream": true })
        }
        Api::OllamaGenerate => {
            json!({ "model": model, "prompt": prompt, "options": options, "stream": true })
        }
    }
}

/// Where a family's events keep output and the count of it.
struct Marks {
    text: &'static [&'static str],
    usage: &'static str,
}

fn marks(api: Api) -> Marks {
    match api {
        Api::Chat | Api::Completions => Marks {
            text: &[
                "/choices/0/text",
                "/choices/0/delta/content",
                "/choices/0/delta/reasoning_content",
                "/choices/0/delta/reasoning",
                "/choices/0/delta/tool_calls",
            ],
            usage: "/usage/completion_tokens",
        },
        Api::Responses => Marks { text: &["/delta"], usage: "/response/usage/output_tokens" },
        // There is no output to be counted; that the prompt is shows that the server counts.
        Api::Embeddings => Marks { text: &["/data/0/embedding"], usage: "/usage/prompt_tokens" },
        Api::Messages => Marks {
            text: &["/delta/text", "/delta/thinking", "/delta/partial_json"],
            usage: "/usage/output_tokens",
        },
        Api::Tgi => Marks { text: &["/token/text"], usage: "/details/generated_tokens" },
        Api::Sglang => Marks { text: &["/text"], usage: "/meta_info/completion_tokens" },
        Api::OllamaChat => {
            Marks { text: &["/message/content", "/message/thinking"], usage: "/eval_count" }
        }
        Api::OllamaGenerate => Marks { text: &["/response", "/thinking"], usage: "/eval_count" },
    }
}

/// What a whole answer held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) events: usize,
    /// It came in events, and not as one document.
    pub(super) is_stream: bool,
    pub(super) has_text: bool,
    pub(super) usage_tokens: Option<u64>,
    pub(super) error: Option<String>,
}

impl Held {
    /// Reads an answer of family `api`; `None` where its type is none that an answer has. The rule by
    /// which the body is cut is that of the load path.
    pub(super) fn read(api: Api, content_type: &str, body: &str) -> Option<Self> {
        let framing = match framing::kind(Some(content_type), api.generates()) {
            Kind::Is(framing) => framing,
            Kind::Unsure => framing::sniff(body.as_bytes()).unwrap_or(Framing::Document),
            Kind::Foreign => return None,
        };
        let payloads = match framing {
            Framing::Events => events(body),
            Framing::Lines => body.lines().map(str::to_owned).collect(),
            Framing::Document => vec![body.to_owned()],
        };
        let mut held = Self::default();
        for event in payloads.iter().filter_map(|p| serde_json::from_str::<Value>(p.trim()).ok()) {
            held.event(&marks(api), &event);
        }
        // One document on one line is no stream, whatever comes after it.
        held.is_stream =
            framing == Framing::Events || (framing == Framing::Lines && held.events > 1);
        Some(held)
    }

    fn event(&mut self, marks: &Marks, event: &Value) {
        self.events += 1;
        let errors = ["/error", "/response/error"].into_iter().filter_map(|at| event.pointer(at));
        let named = (event["type"] == "error").then_some(event);
        if let Some(error) = errors.filter(|e| !e.is_null()).chain(named).next() {
            self.error = Some(error.to_string().chars().take(300).collect());
        }
        let usage = event.pointer(marks.usage).and_then(Value::as_u64);
        self.usage_tokens = usage.or(self.usage_tokens);
        self.has_text |= marks.text.iter().any(|at| is_filled(event.pointer(at)));
    }
}

fn is_filled(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        _ => false,
    }
}

/// The data of server-sent events, lines of one event joined.
fn events(body: &str) -> Vec<String> {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body).replace("\r\n", "\n");
    let mut events = Vec::new();
    let mut data: Vec<&str> = Vec::new();
    for line in body.split(['\n', '\r']).chain([""]) {
        if let Some(part) = line.strip_prefix("data:") {
            data.push(part);
        } else if line.is_empty() && !data.is_empty() {
            events.push(data.join("\n"));
            data.clear();
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, body: &str) -> Held {
        Held::read(api, "application/json", body).unwrap()
    }

    /// Per family: an event with output, and one with the count.
    fn transcript(api: Api) -> (&'static str, &'static str) {
        match api {
            Api::Chat => (
                r#"{"choices":[{"delta":{"content":"Hi"}}]}"#,
                r#"{"choices":[],"usage":{"completion_tokens":2}}"#,
            ),
            Api::Completions => {
                (r#"{"choices":[{"text":"Hi"}]}"#, r#"{"usage":{"completion_tokens":2}}"#)
            }
            Api::Responses => (
                r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
                r#"{"type":"response.completed","response":{"error":null,"usage":{"output_tokens":2}}}"#,
            ),
            Api::Embeddings => {
                (r#"{"data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":2}}"#, "")
            }
            Api::Messages => (
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
                r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":2}}"#,
            ),
            Api::Tgi => (
                r#"{"token":{"text":"Hi"},"generated_text":null,"details":null}"#,
                r#"{"token":{"text":""},"generated_text":"Hi","details":{"generated_tokens":2}}"#,
            ),
            Api::Sglang => (
                r#"{"text":"Hi","meta_info":{"completion_tokens":1}}"#,
                r#"{"text":"Hi","meta_info":{"completion_tokens":2}}"#,
            ),
            Api::OllamaChat => (
                r#"{"message":{"content":"Hi"},"done":false}"#,
                r#"{"message":{"content":""},"done":true,"eval_count":2}"#,
            ),
            Api::OllamaGenerate => (
                r#"{"response":"Hi","done":false}"#,
                r#"{"response":"","done":true,"eval_count":2}"#,
            ),
        }
    }

    #[test]
    fn every_family_is_understood_however_its_type_is_named() {
        for api in Api::ALL {
            let (text, count) = transcript(api);
            let stream = format!("data: {text}\n\ndata: {count}\n\ndata: [DONE]\n\n");
            let lines = format!("{text}\n{count}\n");
            let body = match api {
                Api::Embeddings => text.to_owned(),
                Api::OllamaChat | Api::OllamaGenerate => lines,
                _ => stream,
            };
            let held = read(api, &body);
            assert!(held.has_text && held.error.is_none(), "{api:?} {held:?}");
            assert_eq!((held.usage_tokens, held.is_stream), (Some(2), api.generates()), "{api:?}");
        }
    }

    #[test]
    fn errors_and_documents_are_told_from_streams() {
        let doc = r#"{"choices":[{"message":{"content":"a"}}]}"#;
        assert!(!read(Api::Chat, doc).is_stream);
        assert!(!read(Api::Chat, &format!("{doc}\n")).is_stream);
        let held =
            read(Api::Responses, "event: error\ndata: {\"type\":\"error\",\"message\":\"m\"}\n\n");
        assert!(held.error.unwrap().contains("\"m\""));
        let held = read(Api::OllamaChat, "{\"done\":false}\n{\"error\":\"m\"}\n");
        assert_eq!(held.error.as_deref(), Some("\"m\""));
        assert!(Held::read(Api::Chat, "text/html", doc).is_none());
        let split = "data: {\"choices\":\r\ndata: [{\"text\":\"a\"}]}\r\n\r\n";
        assert!(read(Api::Completions, split).has_text, "data over two lines is one event");
    }
}
