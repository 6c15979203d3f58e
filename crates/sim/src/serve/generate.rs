//! From a completion request to its answer: understood, drawn, submitted, then streamed or collected.

use super::api::{Asked, Kind};
use super::app::{App, read_body};
use super::chunk::{Usage, Wording};
use super::faults::ContentField;
use super::pacer::{Event, Job};
use super::replies::{Refusal, Reply, error, event_stream, json_reply, with_id};
use super::stream::StreamBody;
use super::tokens::word;
use super::truth::{Line, TruthRecord};
use crate::engine::{Request as EngineRequest, RequestId};
use crate::hash;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use scalebeam_model::units::Nanos;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// One choice of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// Names the words.
    pub(super) subject: u64,
    /// Ends by itself before its limit.
    pub(super) stops: bool,
    /// Tokens that will come.
    tokens: u64,
    prompt_tokens: u64,
    id: RequestId,
}

impl Choice {
    /// The text of token `n`.
    pub(super) fn text(&self, n: u64) -> String {
        let space = if n == 0 { "" } else { " " };
        format!("{space}{}", word(self.subject, n))
    }

    /// Why it ends.
    pub(super) fn reason(&self, content: ContentField) -> &'static str {
        match (self.stops, content) {
            (true, ContentField::ToolCalls) => "tool_calls",
            (true, _) => "stop",
            (false, _) => "length",
        }
    }
}

/// An answer under way. Dropping it, whoever does, cancels what is left and writes the truth.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) app: Arc<App>,
    pub(super) choices: Vec<Choice>,
    pub(super) events: UnboundedReceiver<Event>,
    pub(super) record: TruthRecord,
    /// Choices that are not finished.
    pub(super) open: usize,
}

impl Live {
    /// Marks the end of the request; the first call counts.
    pub(super) fn finish(&mut self, outcome: &str) {
        if self.record.outcome.is_empty() {
            outcome.clone_into(&mut self.record.outcome);
            self.record.finished_at_ns = self.app.clock.now();
        }
    }

    /// Tokens asked and answered so far.
    pub(super) fn usage(&self) -> Usage {
        Usage { prompt: self.record.prompt_tokens, completion: self.record.tokens }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish("cancelled");
        if self.open > 0 {
            self.app.pacer.cancel(self.choices.iter().map(|choice| choice.id).collect());
        }
        self.app.log(Line::Request(Box::new(std::mem::take(&mut self.record))));
    }
}

/// Answers a completion request.
pub(super) async fn respond(
    app: Arc<App>,
    reset: Arc<AtomicBool>,
    kind: Kind,
    request: Request<Incoming>,
) -> Response<Reply> {
    let accepted_at = app.clock.now();
    let path = request.uri().path().to_owned();
    let given =
        request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal.reply(),
    };
    let received_at = app.clock.now();
    let number = App::next(&app.requests);
    let id =
        given.unwrap_or_else(|| format!("{:016x}", hash::draw(app.seed, received_at.0, number)));
    let reply = match understood(&app, kind, &body) {
        Err(refusal) => refusal.reply(),
        Ok((asked, choices)) => {
            let record = TruthRecord {
                id: id.clone(),
                path,
                model: asked.model.clone().unwrap_or_else(|| app.names[0].clone()),
                stream: asked.stream,
                choices: choices.len() as u64,
                prompt_tokens: asked.prompts.iter().map(|prompt| prompt.tokens).sum(),
                accepted_at_ns: accepted_at,
                received_at_ns: received_at,
                ..TruthRecord::default()
            };
            begin(app, reset, kind, asked.include_usage, Begun { choices, record, number }).await
        }
    };
    with_id(reply, &id)
}

/// What `begin` needs to know of a request.
struct Begun {
    choices: Vec<Choice>,
    record: TruthRecord,
    number: u64,
}

/// The request and its choices.
fn understood(app: &App, kind: Kind, body: &[u8]) -> Result<(Asked, Vec<Choice>), Refusal> {
    let asked = Asked::read(kind, body).map_err(Refusal::bad)?;
    if let Some(model) = asked.model.as_ref().filter(|model| !app.names.contains(model)) {
        return Err(Refusal::missing(format!("the model '{model}' does not exist")));
    }
    let mut choices = Vec::new();
    for prompt in &asked.prompts {
        let limit = asked.limit(*prompt, app.max_model_len).map_err(Refusal::bad)?;
        for nth in 0..asked.n {
            let subject = hash::draw(app.seed, nth, prompt.subject);
            let length = asked.length(subject, app.seed, limit);
            let id = RequestId(App::next(&app.choices));
            let (tokens, stops, prompt_tokens) = (length.tokens, length.stops, prompt.tokens);
            choices.push(Choice { subject, stops, tokens, prompt_tokens, id });
        }
    }
    Ok((asked, choices))
}

/// Draws faults, submits, and answers.
async fn begin(
    app: Arc<App>,
    reset: Arc<AtomicBool>,
    kind: Kind,
    include_usage: bool,
    begun: Begun,
) -> Response<Reply> {
    let Begun { choices, record, number } = begun;
    let drawn = app.faults.drawn(app.seed, number);
    let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
    let id = format!("{prefix}-{}", record.id);
    let wording = Wording::new(kind, &app.faults, &id, &record.model, app.created);
    let (sender, events) = unbounded_channel();
    let open = choices.len();
    let mut live = Live { app, choices, events, record, open: 0 };
    if let Some(status) = drawn.status {
        live.finish(&format!("injected-status-{status}"));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return error(status, "this error was injected");
    }
    let job = |(index, choice): (usize, &Choice)| Job {
        request: EngineRequest {
            id: choice.id,
            prompt_tokens: choice.prompt_tokens,
            max_tokens: choice.tokens,
        },
        arrived_at: live.record.received_at_ns,
        choice: index,
        stops: choice.stops,
        events: sender.clone(),
    };
    let jobs: Vec<Job> = live.choices.iter().enumerate().map(job).collect();
    // Only from here on is there anything to cancel.
    live.open = open;
    live.app.pacer.submit(jobs);
    drop(sender);
    if live.record.stream {
        event_stream(StreamBody::new(live, wording, kind, include_usage, drawn, reset))
    } else {
        collected(live, kind, &id).await
    }
}

/// Waits for every token and answers as a whole.
async fn collected(mut live: Live, kind: Kind, id: &str) -> Response<Reply> {
    let mut texts: Vec<(String, u64)> = vec![(String::new(), 0); live.choices.len()];
    let empty = live.app.faults.empty_output;
    while live.open > 0 {
        match live.events.recv().await {
            Some(Event::Token { choice, last }) => {
                let (text, n) = &mut texts[choice];
                if !empty {
                    text.push_str(&live.choices[choice].text(*n));
                    live.record.tokens += 1;
                }
                *n += 1;
                live.open -= usize::from(last);
            }
            Some(Event::Failed(problem)) => {
                live.finish("failed");
                return error(StatusCode::BAD_REQUEST, &problem);
            }
            None => {
                live.finish("failed");
                return error(StatusCode::INTERNAL_SERVER_ERROR, "the engine is gone");
            }
        }
    }
    let reply = json_reply(&whole_answer(&live, kind, id, texts));
    let now: Nanos = live.app.clock.now();
    live.record.writes.push(now);
    live.finish("completed");
    reply
}

fn whole_answer(live: &Live, kind: Kind, id: &str, texts: Vec<(String, u64)>) -> Value {
    let content = live.app.faults.content;
    let choice = |(index, (text, _)): (usize, (String, u64))| {
        let reason = live.choices[index].reason(content);
        match kind {
            Kind::Chat => json!({
                "index": index, "message": message(content, id, &text), "logprobs": null,
                "finish_reason": reason,
            }),
            Kind::Text => json!({
                "index": index, "text": text, "logprobs": null, "finish_reason": reason,
            }),
        }
    };
    let choices: Vec<Value> = texts.into_iter().enumerate().map(choice).collect();
    let object = if kind == Kind::Chat { "chat.completion" } else { "text_completion" };
    json!({
        "id": id, "object": object, "created": live.app.created, "model": live.record.model,
        "choices": choices, "usage": live.usage().json(),
    })
}

fn message(content: ContentField, id: &str, text: &str) -> Value {
    match content {
        ContentField::Content => json!({ "role": "assistant", "content": text }),
        ContentField::Reasoning => {
            json!({ "role": "assistant", "content": null, "reasoning_content": text })
        }
        ContentField::ToolCalls => json!({
            "role": "assistant", "content": null,
            "tool_calls": [{
                "id": format!("call-{id}"), "type": "function",
                "function": { "name": "weigh", "arguments": text },
            }],
        }),
    }
}
