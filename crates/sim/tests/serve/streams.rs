//! The shape of answers, streamed and whole.

use crate::client::{Running, chat_body, fixed};
use scalebeam_sim::config::EmulatedConfig;
use scalebeam_sim::serve::{ServeConfig, count_tokens};

fn quick() -> Running {
    Running::start(ServeConfig { engine: fixed(5, 1, None), ..ServeConfig::default() })
}

#[test]
fn a_chat_stream_is_role_tokens_usage_done() {
    let fields =
        r#""stream":true,"max_tokens":5,"ignore_eos":true,"stream_options":{"include_usage":true}"#;
    let answer = quick().chat(fields);
    assert_eq!(answer.status, 200);
    assert!(answer.whole && answer.done());
    assert!(answer.head.contains("content-type: text/event-stream"));
    let events = answer.events();
    assert_eq!(events.len(), 1 + 5 + 1);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[0]["choices"][0]["delta"]["content"], "");
    assert!(events[4]["choices"][0]["finish_reason"].is_null());
    assert_eq!(events[5]["choices"][0]["finish_reason"], "length");
    assert!(!events[5]["choices"][0]["delta"]["content"].as_str().unwrap().is_empty());
    assert!(events[6]["choices"].as_array().unwrap().is_empty());
    assert_eq!(events[6]["usage"]["completion_tokens"], 5);
    assert_eq!(events[6]["usage"]["prompt_tokens"], 3 + 4 + count_tokens("weigh this for me"));
    assert_eq!(count_tokens(&answer.contents().concat()), 5);
}

#[test]
fn each_token_is_an_http_chunk_of_its_own() {
    // All tokens are due at once, so nothing but the server keeps them apart.
    let server =
        Running::start(ServeConfig { engine: fixed(5, 0, None), ..ServeConfig::default() });
    let answer = server.chat(r#""stream":true,"max_tokens":200,"ignore_eos":true"#);
    let events =
        answer.chunks.iter().map(|(bytes, _)| bytes.windows(2).filter(|w| w == b"\n\n").count());
    assert!(events.clone().all(|n| n == 1));
    assert_eq!(events.count(), 1 + 200 + 1);
}

#[test]
fn usage_is_sent_only_when_asked_for() {
    let answer = quick().chat(r#""stream":true,"max_tokens":3"#);
    assert!(answer.events().iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn a_text_stream_has_texts_and_no_role() {
    let answer = quick().completion(r#""prompt":"a","stream":true,"max_tokens":4,"min_tokens":4"#);
    assert_eq!(answer.pieces(0, "/text").len(), 4);
    assert_eq!(answer.events().len(), 4);
    assert_eq!(answer.events()[0]["object"], "text_completion");
}

#[test]
fn a_batch_of_prompts_is_one_choice_each() {
    let fields = r#""prompt":["a","b c","d"],"stream":true,"max_tokens":6,"ignore_eos":true,
        "stream_options":{"include_usage":true}"#;
    let answer = quick().completion(fields);
    let texts: Vec<String> = (0..3).map(|choice| answer.pieces(choice, "/text").concat()).collect();
    assert!(texts.iter().all(|text| count_tokens(text) == 6), "{texts:?}");
    assert_ne!(texts[0], texts[1]);
    assert!((0..3).all(|choice| answer.finish(choice).as_deref() == Some("length")));
    let usage = answer.events().pop().unwrap()["usage"].clone();
    assert_eq!(
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()),
        (Some(4), Some(18))
    );
    // They run at the same time: the first tokens of all come before the second of any.
    let order: Vec<u64> =
        answer.events().iter().filter_map(|event| event["choices"][0]["index"].as_u64()).collect();
    let mut first_three = order[..3].to_vec();
    first_three.sort_unstable();
    assert_eq!(first_three, [0, 1, 2]);
}

#[test]
fn a_whole_answer_has_the_text_that_a_stream_has() {
    let server = quick();
    let whole = server.chat(r#""max_tokens":20"#);
    let streamed = server.chat(r#""max_tokens":20,"stream":true"#);
    let message = &whole.json()["choices"][0]["message"];
    assert_eq!(message["content"], streamed.contents().concat());
    assert_eq!(whole.json()["choices"][0]["finish_reason"], streamed.finish(0).unwrap());
    assert_eq!(whole.json()["usage"]["completion_tokens"], streamed.contents().len());
    assert!(whole.head.contains("content-length"));
    let text = server.completion(r#""prompt":[1,2,3],"max_tokens":4,"ignore_eos":true"#).json();
    assert_eq!(text["usage"]["prompt_tokens"], 3);
    assert_eq!(count_tokens(text["choices"][0]["text"].as_str().unwrap()), 4);
}

#[test]
fn answers_end_by_themselves_unless_told_not_to() {
    let server = quick();
    let reasons: Vec<String> = (0..30)
        .map(|n| {
            let fields = format!(r#""prompt":"prompt {n}","stream":true,"max_tokens":10"#);
            let answer = server.completion(&fields);
            let tokens = answer.pieces(0, "/text").len();
            let reason = answer.finish(0).unwrap();
            assert!((6..=10).contains(&tokens));
            assert_eq!(reason == "length", tokens == 10);
            reason
        })
        .collect();
    assert!(reasons.iter().any(|r| r == "stop") && reasons.iter().any(|r| r == "length"));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed| {
        let engine = EmulatedConfig { seed, ..fixed(5, 1, None) };
        let server = Running::start(ServeConfig { engine, ..ServeConfig::default() });
        let body = chat_body(r#""stream":true,"max_tokens":30"#);
        let stream = server.open("POST", "/v1/chat/completions", "x-request-id: one\r\n", &body);
        let answer = server.read(stream);
        assert!(answer.head.contains("x-request-id: one"));
        answer.body
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn the_roofline_answers_too() {
    // A hundred emulated seconds a second: the engine's times are checked elsewhere.
    let engine = EmulatedConfig { speed: 100.0, ..EmulatedConfig::default() };
    let server = Running::start(ServeConfig { engine, ..ServeConfig::default() });
    let answer = server.chat(r#""stream":true,"max_tokens":100,"ignore_eos":true"#);
    assert_eq!(answer.contents().len(), 100);
    assert!(answer.done());
}
