//! The bytes of a stream: server-sent events with OpenAI chunks inside, shaped as vLLM's.
//!
//! Texts come from a list of words that need no escaping, so a chunk is put together by pasting.

use super::api::Kind;
use super::faults::{ContentField, Faults};
use bytes::Bytes;
use hyper::StatusCode;
use scalebeam_endpoint::error_body;
use serde_json::json;

/// Everything that the chunks of one answer share.
#[derive(Debug, Clone)]
pub(super) struct Wording {
    kind: Kind,
    content: ContentField,
    crlf: bool,
    no_space: bool,
    id: String,
    /// The chunk up to its list of choices.
    open: String,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompts.
    pub(super) prompt: u64,
    /// Of the choices.
    pub(super) completion: u64,
}

impl Usage {
    /// As OpenAI has it.
    pub(super) fn json(self) -> serde_json::Value {
        json!({
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
        })
    }
}

impl Wording {
    /// The wording of the answer `id` by `model`.
    pub(super) fn new(kind: Kind, faults: &Faults, id: &str, model: &str, created: u64) -> Self {
        let object = match kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        let open = format!(
            r#"{{"id":{},"object":"{object}","created":{created},"model":{},"choices":["#,
            json!(id),
            json!(model)
        );
        let (content, crlf, no_space) = (faults.content, faults.crlf, faults.no_space);
        Self { kind, content, crlf, no_space, id: id.to_owned(), open }
    }

    fn line_end(&self) -> &'static str {
        if self.crlf { "\r\n" } else { "\n" }
    }

    /// One event.
    pub(super) fn event(&self, data: &str) -> Bytes {
        let (space, end) = (if self.no_space { "" } else { " " }, self.line_end());
        Bytes::from(format!("data:{space}{data}{end}{end}"))
    }

    /// A comment, which a client has to skip.
    pub(super) fn heartbeat(&self) -> Bytes {
        let end = self.line_end();
        Bytes::from(format!(": ping{end}{end}"))
    }

    /// The chunk that carries only the role.
    pub(super) fn role(&self, choice: usize) -> Bytes {
        self.chunk(choice, r#"{"role":"assistant","content":""}"#, None)
    }

    /// A chunk with text; `first` when it is the choice's first, `finish` when it is its last.
    pub(super) fn text(
        &self,
        choice: usize,
        text: &str,
        first: bool,
        finish: Option<&str>,
    ) -> Bytes {
        let delta = match (self.kind, self.content) {
            (Kind::Text, _) => return self.completion(choice, text, finish),
            (Kind::Chat, ContentField::Content) => format!(r#"{{"content":"{text}"}}"#),
            (Kind::Chat, ContentField::Reasoning) => format!(r#"{{"reasoning_content":"{text}"}}"#),
            (Kind::Chat, ContentField::ToolCalls) => self.tool_call(choice, text, first),
        };
        self.chunk(choice, &delta, finish)
    }

    fn tool_call(&self, choice: usize, text: &str, first: bool) -> String {
        if !first {
            return format!(
                r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":"{text}"}}}}]}}"#
            );
        }
        let id = json!(format!("call-{}-{choice}", self.id));
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":{id},"type":"function","function":{{"name":"weigh","arguments":"{text}"}}}}]}}"#
        )
    }

    fn chunk(&self, choice: usize, delta: &str, finish: Option<&str>) -> Bytes {
        let (open, reason) = (&self.open, Reason(finish));
        self.event(&format!(
            r#"{open}{{"index":{choice},"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]}}"#
        ))
    }

    fn completion(&self, choice: usize, text: &str, finish: Option<&str>) -> Bytes {
        let (open, reason) = (&self.open, Reason(finish));
        self.event(&format!(
            r#"{open}{{"index":{choice},"text":"{text}","logprobs":null,"finish_reason":{reason}}}]}}"#
        ))
    }

    /// The chunk without choices that carries the usage.
    pub(super) fn usage(&self, usage: Usage) -> Bytes {
        self.event(&format!(r#"{}],"usage":{}}}"#, self.open, usage.json()))
    }

    /// An error in the middle of a stream.
    pub(super) fn error(&self, message: &str) -> Bytes {
        self.event(
            &error_body(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
                .to_string(),
        )
    }

    /// The end mark.
    pub(super) fn done(&self) -> Bytes {
        self.event("[DONE]")
    }
}

/// A finish reason as JSON.
struct Reason<'a>(Option<&'a str>);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(reason) => write!(f, "\"{reason}\""),
            None => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn wording(faults: &Faults) -> Wording {
        Wording::new(Kind::Chat, faults, "chat\"1", "m/x", 7)
    }

    fn parsed(bytes: &Bytes) -> Value {
        let text = std::str::from_utf8(bytes).unwrap();
        serde_json::from_str(text.strip_prefix("data:").unwrap().trim()).unwrap()
    }

    #[test]
    fn every_chunk_is_json_of_the_right_shape() {
        let plain = wording(&Faults::default());
        assert_eq!(parsed(&plain.role(1))["choices"][0]["delta"]["role"], "assistant");
        let last = parsed(&plain.text(0, " café", false, Some("stop")));
        assert_eq!(last["choices"][0]["delta"]["content"], " café");
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert_eq!(last["id"], "chat\"1");
        let usage = parsed(&plain.usage(Usage { prompt: 3, completion: 4 }));
        assert_eq!(
            (usage["choices"].as_array().unwrap().len(), &usage["usage"]["total_tokens"]),
            (0, &json!(7))
        );
        assert_eq!(parsed(&plain.error("gone"))["error"]["message"], "gone");
        for first in [true, false] {
            let tools = wording(&Faults { content: ContentField::ToolCalls, ..Faults::default() });
            let call =
                &parsed(&tools.text(0, "x", first, None))["choices"][0]["delta"]["tool_calls"][0];
            assert_eq!(call["function"]["arguments"], "x");
            assert_eq!(call["id"].is_string(), first);
        }
    }

    #[test]
    fn framing_follows_the_faults() {
        let odd = wording(&Faults { crlf: true, no_space: true, ..Faults::default() });
        assert_eq!(odd.done(), "data:[DONE]\r\n\r\n");
        assert_eq!(odd.heartbeat(), ": ping\r\n\r\n");
        assert_eq!(wording(&Faults::default()).done(), "data: [DONE]\n\n");
    }
}
