//! The bytes of every fault.

use crate::client::{Answer, faulty};
use scalebeam_model::units::Nanos;
use scalebeam_sim::serve::{
    ContentField, Faults, Interrupt, Interruption, RoleChunk, Stall, StatusFault, count_tokens,
};

const FIELDS: &str =
    r#""stream":true,"max_tokens":12,"ignore_eos":true,"stream_options":{"include_usage":true}"#;

fn stream(faults: Faults) -> Answer {
    faulty(faults).chat(FIELDS)
}

fn plain() -> Faults {
    Faults::default()
}

fn interrupted(how: Interruption) -> Answer {
    let interrupt = Some(Interrupt { how, after_tokens: 4, share: 1.0 });
    stream(Faults { interrupt, ..plain() })
}

#[test]
fn several_tokens_a_chunk() {
    let answer = stream(Faults { tokens_per_chunk: 5, ..plain() });
    let sizes: Vec<u64> = answer.contents().iter().map(|text| count_tokens(text)).collect();
    assert_eq!(sizes, [5, 5, 2]);
    assert_eq!(answer.events().pop().unwrap()["usage"]["completion_tokens"], 12);
}

#[test]
fn role_chunk_early_or_never() {
    let early = stream(Faults { role: RoleChunk::After(Nanos::ZERO), ..plain() });
    assert_eq!(early.events()[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(early.contents().len(), 12);
    let never = stream(Faults { role: RoleChunk::Never, ..plain() });
    assert!(never.events()[0]["choices"][0]["delta"].get("role").is_none());
    assert_eq!(never.contents().len(), 12);
}

#[test]
fn usage_and_end_mark_left_out() {
    let answer = stream(Faults { omit_usage: true, omit_done: true, ..plain() });
    assert!(answer.whole && !answer.done());
    assert!(answer.events().iter().all(|event| event.get("usage").is_none()));
    assert_eq!(answer.finish(0).as_deref(), Some("length"));
}

#[test]
fn odd_but_legal_framing() {
    let answer = stream(Faults { crlf: true, no_space: true, ..plain() });
    assert!(answer.text().starts_with("data:{"));
    assert!(answer.text().ends_with("data:[DONE]\r\n\r\n"));
    assert_eq!(answer.text().matches('\n').count(), answer.text().matches("\r\n").count());
    assert_eq!(answer.contents().len(), 12);
}

#[test]
fn heartbeats() {
    let answer = stream(Faults { heartbeat_every: 4, ..plain() });
    assert_eq!(answer.text().matches(": ping\n\n").count(), 3);
    assert_eq!(answer.contents().len(), 12);
}

#[test]
fn every_byte_a_write() {
    let answer = stream(Faults { split_bytes: true, ..plain() });
    assert_eq!(answer.contents().len(), 12);
    // How many reads the bytes come in is the kernel's and the reader's business: not looked at here.
    assert!(answer.done() && answer.whole);
}

#[test]
fn reset_in_the_middle() {
    let answer = interrupted(Interruption::Reset);
    assert!(answer.reset && !answer.whole && !answer.done());
    assert!(answer.contents().len() <= 4);
}

#[test]
fn closed_in_the_middle() {
    let answer = interrupted(Interruption::Close);
    assert!(!answer.reset && !answer.whole);
    assert_eq!(answer.contents().len(), 4);
}

#[test]
fn ended_too_early() {
    let answer = interrupted(Interruption::End);
    assert!(answer.whole && !answer.done());
    assert_eq!((answer.contents().len(), answer.finish(0)), (4, None));
}

#[test]
fn an_error_in_the_middle() {
    let answer = interrupted(Interruption::Error);
    assert!(answer.whole && answer.done());
    assert_eq!(answer.contents().len(), 4);
    assert_eq!(answer.events().pop().unwrap()["error"]["code"], 500);
}

#[test]
fn an_interruption_before_the_first_token() {
    let interrupt = Some(Interrupt { how: Interruption::Close, after_tokens: 0, share: 1.0 });
    let answer = stream(Faults { interrupt, ..plain() });
    assert_eq!((answer.status, answer.whole, answer.body.len()), (200, false, 0));
}

#[test]
fn a_stall_is_a_gap_and_loses_nothing() {
    let stall = Some(Stall { span: Nanos::from_millis(300), after_tokens: 6, share: 1.0 });
    let answer = stream(Faults { stall, ..plain() });
    let at: Vec<Nanos> = answer.chunks[1..13].iter().map(|(_, at)| *at).collect();
    assert!(at[6].since(at[5]) > Nanos::from_millis(250));
    assert_eq!(answer.contents().len(), 12);
    assert!(answer.done());
}

#[test]
fn an_answer_without_content() {
    let answer = stream(Faults { empty_output: true, ..plain() });
    assert!(answer.contents().is_empty() && answer.done());
    assert_eq!(answer.finish(0).as_deref(), Some("length"));
    assert_eq!(answer.events().pop().unwrap()["usage"]["completion_tokens"], 0);
}

#[test]
fn text_in_other_fields() {
    let reasoning = stream(Faults { content: ContentField::Reasoning, ..plain() });
    assert_eq!(reasoning.pieces(0, "/delta/reasoning_content").len(), 12);
    assert!(reasoning.contents().is_empty());
    let tools = stream(Faults { content: ContentField::ToolCalls, ..plain() });
    let arguments = "/delta/tool_calls/0/function/arguments";
    assert_eq!(count_tokens(&tools.pieces(0, arguments).concat()), 12);
    assert_eq!(tools.pieces(0, "/delta/tool_calls/0/function/name"), ["weigh"]);
}

#[test]
fn an_error_status_for_a_share() {
    let status = Some(StatusFault { status: 503, share: 0.5 });
    let server = faulty(Faults { status, ..plain() });
    let statuses: Vec<u16> = (0..40).map(|_| server.chat(r#""max_tokens":1"#).status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)));
    assert!(statuses.contains(&200) && statuses.contains(&503));
}
