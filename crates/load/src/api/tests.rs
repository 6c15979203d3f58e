use super::*;
use proptest::prelude::*;

fn chat(data: &str) -> Result<Said<'_>, serde_json::Error> {
    bytes(data.as_bytes())
}

fn bytes(data: &[u8]) -> Result<Said<'_>, serde_json::Error> {
    event(Api::Chat, &mut Memory::default(), b"", data)
}

fn contents(data: &str) -> u32 {
    match chat(data) {
        Ok(Said::Chunk(chunk)) => chunk.contents(),
        other => panic!("{data}: {other:?}"),
    }
}

#[test]
fn only_non_empty_content_is_a_token() {
    for (want, choice) in [
        (0, r#"{"index":0,"delta":{"role":"assistant"}}"#),
        (0, r#"{"index":0,"delta":{"role":"assistant","content":""}}"#),
        (0, r#"{"index":0,"delta":{"content":null}}"#),
        (0, r#"{"index":0,"delta":null,"finish_reason":"stop"}"#),
        (1, r#"{"index":0,"delta":{"content":" a"}}"#),
        (1, r#"{"index":0,"delta":{"content":"\n"}}"#),
        (1, r#"{"index":0,"delta":{"content":"\u00e9\ud83d\ude00\"q\""}}"#),
        (1, r#"{"index":0,"delta":{"reasoning_content":"a"}}"#),
        (1, r#"{"index":0,"delta":{"reasoning":"a","reasoning_content":"a","content":""}}"#),
        (1, r#"{"index":0,"text":"a"}"#),
        (0, r#"{"index":0,"text":""}"#),
        (1, r#"{"index":0,"message":{"role":"assistant","content":"whole"}}"#),
        (1, r#"{"delta":{"content":[{"type":"text","text":"a"}]}}"#),
        (0, r#"{"delta":{"content":[]}}"#),
        (1, r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}"#),
        (1, r#"{"delta":{"tool_calls":[{},{"function":{"arguments":"{\"a\""}},{"x":1}]}}"#),
        (0, r#"{"delta":{"tool_calls":[{"index":0,"function":{"arguments":""}}]}}"#),
        (0, r#"{"delta":{"tool_calls":[]}}"#),
        (1, r#"{"delta":{"function_call":{"name":"f"}}}"#),
    ] {
        assert_eq!(contents(&format!("{{\"choices\":[{choice}]}}")), want, "{choice}");
    }
    assert_eq!(contents(r#"{"choices":[]}"#), 0);
    assert_eq!(contents(r#"{"choices":null,"usage":null}"#), 0);
    assert_eq!(
        contents(r#"{"choices":[{"index":0,"text":"a"},{"index":1,"text":""},{"text":"b"}]}"#),
        2
    );
}

#[test]
fn a_finish_reason_and_usage_are_read() {
    let data = br#"{"id":"x","choices":[{"index":3,"delta":{},"finish_reason":"len\u0067th"}],
        "usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,
        "prompt_tokens_details":{"cached_tokens":4}}}"#;
    let Ok(Said::Chunk(chunk)) = bytes(data) else { panic!("a chunk") };
    let choice = chunk.choices.iter().next().unwrap();
    assert_eq!((choice.index, choice.finish_reason().as_deref()), (3, Some("length")));
    let usage = chunk.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.output_tokens), (Some(7), Some(5)));
    assert_eq!(usage.cached_tokens, Some(4));
    let Ok(Said::Chunk(chunk)) =
        bytes(br#"{"choices":[{"finish_reason":null}],"usage":{"prompt_tokens_details":null}}"#)
    else {
        panic!("a chunk")
    };
    assert!(chunk.choices.iter().next().unwrap().finish_reason().is_none());
    assert_eq!(chunk.usage, Some(Usage::default()));
}

#[test]
fn errors_and_the_end_are_told_apart_from_chunks() {
    let error = |name: &[u8], data: &str| match event(
        Api::Chat,
        &mut Memory::default(),
        name,
        data.as_bytes(),
    ) {
        Ok(Said::Error(text)) => text,
        other => panic!("{data}: {other:?}"),
    };
    assert_eq!(error(b"", r#"{"error":{"message":"no memory","code":500}}"#), "no memory");
    assert_eq!(error(b"", r#"{"error":"no memory"}"#), "no memory");
    assert_eq!(error(b"", r#"{"object":"error","message":"bad","code":400}"#), "bad");
    assert_eq!(error(b"error", r#"{"message":"gone"}"#), "gone");
    assert_eq!(error(b"error", "plain words"), "plain words");
    assert_eq!(contents(r#"{"error":null,"choices":[{"text":"a"}]}"#), 1);
    assert!(matches!(bytes(b" [DONE] "), Ok(Said::Done)));
    assert!(bytes(b"{\"choices\":[").is_err());
    assert!(bytes(b"").is_err());
    assert!(bytes(b"{\"choices\":[{\"text\":\"\xFF\"}]}").is_err(), "not UTF-8");
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was_sent(text in ".*") {
        let data = serde_json::json!({"choices": [{"delta": {"content": text}}]}).to_string();
        let Ok(Said::Chunk(chunk)) = chat(&data) else { panic!("a chunk") };
        prop_assert_eq!(chunk.contents(), u32::from(!text.is_empty()));
        let choice = chunk.choices.iter().next().unwrap();
        prop_assert_eq!(text_of(choice.texts()), text);
    }

    #[test]
    fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for api in Api::ALL {
            let mut memory = Memory::default();
            let _ = event(api, &mut memory, b"", &data);
            let _ = event(api, &mut memory, b"error", &data);
            let _ = document(api, &data);
        }
    }
}

/// The text of pieces, as a reader would have it.
fn text_of<'a>(pieces: impl Iterator<Item = Text<'a>>) -> String {
    let mut raw = Vec::new();
    pieces.for_each(|piece| piece.append_to(&mut raw));
    let values = serde_json::Deserializer::from_slice(&raw).into_iter::<String>();
    values.map_while(Result::ok).collect()
}

/// What a stream said, event by event: its text, or what else it was.
fn told(api: Api, events: &[&str]) -> Vec<String> {
    let mut memory = Memory::default();
    let tell = |data: &&str| match event(api, &mut memory, b"", data.as_bytes()) {
        Ok(Said::Chunk(chunk)) => {
            let mut words: Vec<String> = chunk.choices.iter().map(|c| text_of(c.texts())).collect();
            words.retain(|text| !text.is_empty());
            assert_eq!(chunk.contents() as usize, words.len());
            words.extend(
                chunk.choices.iter().filter_map(|c| Some(format!("<{}>", c.finish_reason()?))),
            );
            words.extend(chunk.usage.map(|u| counts(&u)));
            words.extend(chunk.is_last.then(|| "end".to_owned()));
            words.join(" ")
        }
        Ok(Said::Done) => "done".to_owned(),
        Ok(Said::Error(words)) => format!("error: {words}"),
        Err(e) => format!("unparsed: {e}"),
    };
    events.iter().map(tell).collect()
}

fn counts(usage: &Usage) -> String {
    let part = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
    let parts = [usage.prompt_tokens, usage.cached_tokens, usage.output_tokens].map(part);
    parts.join("/")
}

fn whole(api: Api, data: &str) -> String {
    match document(api, data.as_bytes()) {
        Ok(Said::Chunk(chunk)) => {
            let texts: Vec<String> = chunk.choices.iter().map(|c| text_of(c.texts())).collect();
            let reason = chunk.choices.iter().find_map(|c| Some(c.finish_reason()?.into_owned()));
            let usage = chunk.usage.as_ref().map(counts);
            format!("{} of {texts:?} {reason:?} {usage:?} {}", chunk.contents(), chunk.is_last)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn responses_are_read_by_their_deltas() {
    let told = told(
        Api::Responses,
        &[
            r#"{"type":"response.created","response":{"id":"r","status":"in_progress","output":[],"usage":null},"sequence_number":0}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"m","type":"message","content":[],"role":"assistant"}}"#,
            r#"{"type":"response.content_part.added","item_id":"m","part":{"type":"output_text","text":"","annotations":[]}}"#,
            r#"{"type":"response.reasoning_text.delta","item_id":"m","content_index":0,"delta":"hm"}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"m","delta":"so"}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","delta":"","logprobs":[]}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","delta":" a\n","logprobs":[]}"#,
            r#"{"type":"response.output_text.done","item_id":"m","text":" a\n"}"#,
            r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":" a\n"}]}}"#,
            r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":"","call_id":"c"}}"#,
            r#"{"type":"response.function_call_arguments.delta","delta":"{\"x\""}"#,
            r#"{"type":"response.completed","response":{"status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","content":[{"type":"output_text","text":" a"}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":12}}}"#,
        ],
    );
    let want = ["", "", "", "hm", "so", "", " a\n", "", "", "f", "{\"x\"", "<completed> 9/4/3 end"];
    assert_eq!(told, want);
}

#[test]
fn a_response_may_end_in_other_ways() {
    let told = told(
        Api::Responses,
        &[
            r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":2,"output_tokens":8}}}"#,
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"no memory"}}}"#,
            r#"{"type":"error","code":"rate_limit","message":"slow down","param":null,"sequence_number":3}"#,
            r#"{"type":"response.refusal.delta","delta":"no"}"#,
            r#"{"type":"response.of.tomorrow","delta":"x","payload":{"a":[1]}}"#,
        ],
    );
    let want = ["<max_output_tokens> 2/-/8 end", "error: no memory", "error: slow down", "no", ""];
    assert_eq!(told, want);
}

#[test]
fn messages_are_read_block_by_block() {
    let told = told(
        Api::Messages,
        &[
            r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"model":"x","stop_reason":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCg"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi \u00e9"}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\": 1}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"output_tokens":15}}"#,
            r#"{"type":"message_stop"}"#,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "[DONE]",
        ],
    );
    let want = [
        "10/3/-",
        "",
        "",
        "hm",
        "",
        "",
        "",
        "Hi \u{e9}",
        "f",
        "",
        "{\"x\": 1}",
        "<max_tokens> -/-/15",
        "done",
        "error: Overloaded",
        "done",
    ];
    assert_eq!(told, want);
}

#[test]
fn tgi_tells_tokens_and_at_last_the_counts() {
    let told = told(
        Api::Tgi,
        &[
            r#"{"index":1,"token":{"id":1,"text":" a","logprob":-0.1,"special":false},"generated_text":null,"details":null}"#,
            r#"{"index":2,"token":{"id":2,"text":"","logprob":-0.1,"special":false},"top_tokens":[],"generated_text":null,"details":null}"#,
            r#"{"index":3,"token":{"id":3,"text":"</s>","logprob":-0.1,"special":true},"generated_text":" a","details":{"finish_reason":"eos_token","generated_tokens":3,"seed":null,"input_length":7}}"#,
            r#"{"error":"Request failed during generation","error_type":"generation"}"#,
        ],
    );
    let want = [" a", "", "<eos_token> 7/-/3 end", "error: Request failed during generation"];
    assert_eq!(told, want);
}

#[test]
fn sglang_repeats_itself_and_is_counted_once() {
    let e = |text: &str, n: u32, reason: &str| {
        format!(
            r#"{{"text":{text:?},"output_ids":[1],"meta_info":{{"id":"x","finish_reason":{reason},"prompt_tokens":6,"completion_tokens":{n},"cached_tokens":2,"e2e_latency":0.1}}}}"#
        )
    };
    let length = r#"{"type":"length","length":4}"#;
    let stream = [
        e("", 1, "null"),
        e(" a", 2, "null"),
        e(" a", 3, "null"),
        e(" a\"b\n", 4, "null"),
        e(" a\"b\n", 4, length),
    ];
    let events: Vec<&str> = stream.iter().map(String::as_str).chain(["[DONE]"]).collect();
    let want = ["6/2/1", " a 6/2/2", "6/2/3", "\"b\n 6/2/4", "<length> 6/2/4", "done"];
    assert_eq!(told(Api::Sglang, &events), want);
    // The same in disjoint segments.
    let stream = [e(" a", 1, "null"), e(" b", 2, "null"), e(" b", 3, "null"), e("", 3, length)];
    let events: Vec<&str> = stream.iter().map(String::as_str).collect();
    let want = [" a 6/2/1", " b 6/2/2", " b 6/2/3", "<length> 6/2/3"];
    assert_eq!(told(Api::Sglang, &events), want);
    let events = [
        r#"{"text":"","meta_info":{"finish_reason":{"type":"abort","message":"no room","status_code":503}}}"#,
        r#"{"error":{"message":"input is too long"}}"#,
        r#"{"text":"a","meta_info":{"finish_reason":"stop"}}"#,
    ];
    let want = ["error: no room", "error: input is too long", "a <stop> -/-/-"];
    assert_eq!(told(Api::Sglang, &events), want);
}

#[test]
fn ollama_tells_its_counts_in_the_last_line() {
    let chat = told(
        Api::OllamaChat,
        &[
            r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":" a"},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":""},"done_reason":"length","done":true,"total_duration":9,"prompt_eval_count":6,"eval_count":3,"eval_duration":5}"#,
            r#"{"error":"an error was encountered while running the model"}"#,
        ],
    );
    let failed = "error: an error was encountered while running the model";
    assert_eq!(chat, ["", "hm", " a", "<length> 6/-/3 end", failed]);
    let text = told(
        Api::OllamaGenerate,
        &[
            r#"{"model":"m","response":"The","done":false}"#,
            r#"{"model":"m","response":"","done":true,"context":[1,2],"eval_count":1}"#,
        ],
    );
    assert_eq!(text, ["The", "-/-/1 end"]);
    let tool = r#"{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}"#;
    let Ok(Said::Chunk(chunk)) =
        event(Api::OllamaChat, &mut Memory::default(), b"", tool.as_bytes())
    else {
        panic!("a chunk")
    };
    assert_eq!(chunk.contents(), 1);
}

#[test]
fn whole_answers_are_read_too() {
    for (api, data, want) in [
        (
            Api::Responses,
            r#"{"object":"response","status":"completed","error":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","content":[{"type":"output_text","text":" a"}]},{"type":"function_call","name":"f","arguments":"{}"}],"usage":{"input_tokens":4,"output_tokens":2}}"#,
            r#"1 of ["hm af{}"] Some("completed") Some("4/-/2") true"#,
        ),
        (
            Api::Messages,
            r#"{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":4,"output_tokens":2}}"#,
            r#"1 of ["Hi"] Some("end_turn") Some("4/-/2") false"#,
        ),
        (
            Api::Tgi,
            r#"{"generated_text":" a","details":{"finish_reason":"length","generated_tokens":2,"tokens":[]}}"#,
            r#"1 of [" a"] Some("length") Some("-/-/2") true"#,
        ),
        (
            Api::Sglang,
            r#"{"text":" a","meta_info":{"finish_reason":{"type":"stop"},"prompt_tokens":4,"completion_tokens":2}}"#,
            r#"1 of [" a"] Some("stop") Some("4/-/2") false"#,
        ),
        (
            Api::OllamaChat,
            r#"{"message":{"content":"a"},"done":true,"done_reason":"stop","eval_count":2}"#,
            r#"1 of ["a"] Some("stop") Some("-/-/2") true"#,
        ),
        (
            Api::Embeddings,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2]},{"index":1,"embedding":"AACAPw=="}],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4,"completion_tokens":0}}"#,
            r#"2 of ["", ""] None Some("4/-/-") true"#,
        ),
        (
            Api::Embeddings,
            r#"{"object":"list","data":[{"index":0,"embedding":[]}]}"#,
            r#"0 of [""] None None true"#,
        ),
        (Api::Embeddings, r#"{"error":{"message":"m"}}"#, r#"Ok(Error("m"))"#),
        (
            Api::Messages,
            r#"{"type":"error","error":{"type":"t","message":"m"}}"#,
            r#"Ok(Error("m"))"#,
        ),
        (
            Api::Responses,
            r#"{"object":"response","status":"failed","error":{"code":"c","message":"m"}}"#,
            r#"Ok(Error("m"))"#,
        ),
    ] {
        assert_eq!(whole(api, data), want, "{api:?}");
    }
}

proptest! {
    #[test]
    fn a_growing_text_comes_back_whole(parts in proptest::collection::vec("[a-c\"\\\\\n\u{e9}]{0,3}", 1..12)) {
        let mut text = sglang::Text::default();
        let (mut so_far, mut got) = (String::new(), String::new());
        for part in parts {
            so_far.push_str(&part);
            let data = serde_json::json!({ "text": so_far }).to_string();
            let Ok(Said::Chunk(chunk)) = sglang::read(&mut text, data.as_bytes()) else {
                panic!("a chunk")
            };
            prop_assert_eq!(chunk.contents(), u32::from(!part.is_empty()));
            got += &chunk.choices.iter().map(|c| text_of(c.texts())).collect::<String>();
        }
        prop_assert_eq!(got, so_far);
    }
}

#[test]
fn reasoning_is_told_from_the_answer_in_every_family_that_marks_it() {
    for (api, data, reasoning) in [
        (Api::Chat, r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#, 1),
        (Api::Chat, r#"{"choices":[{"delta":{"reasoning":"a","reasoning_content":""}}]}"#, 1),
        (Api::Chat, r#"{"choices":[{"delta":{"reasoning":"a","content":"b"}}]}"#, 0),
        (Api::Chat, r#"{"choices":[{"delta":{"content":"b"}}]}"#, 0),
        (Api::Completions, r#"{"choices":[{"text":"b"}]}"#, 0),
        (Api::Responses, r#"{"type":"response.reasoning_text.delta","delta":"a"}"#, 1),
        (Api::Responses, r#"{"type":"response.reasoning_summary_text.delta","delta":"a"}"#, 1),
        (Api::Responses, r#"{"type":"response.output_text.delta","delta":"b"}"#, 0),
        (Api::Messages, r#"{"type":"content_block_delta","delta":{"thinking":"a"}}"#, 1),
        (Api::Messages, r#"{"type":"content_block_delta","delta":{"text":"b"}}"#, 0),
        (Api::OllamaChat, r#"{"message":{"content":"","thinking":"a"},"done":false}"#, 1),
        (Api::OllamaGenerate, r#"{"response":"","thinking":"a","done":false}"#, 1),
        (Api::OllamaGenerate, r#"{"response":"b","done":false}"#, 0),
    ] {
        let said = event(api, &mut Memory::default(), b"", data.as_bytes()).unwrap();
        let Said::Chunk(chunk) = said else { panic!("{data}") };
        assert_eq!((chunk.contents(), chunk.reasoning()), (1, reasoning), "{data}");
    }
}

#[test]
fn reasoning_tokens_are_read_where_the_usage_has_them() {
    for (api, data, want) in [
        (
            Api::Chat,
            r#"{"choices":[],"usage":{"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":4}}}"#,
            Some(4),
        ),
        (
            Api::Chat,
            r#"{"choices":[],"usage":{"completion_tokens":9,"completion_tokens_details":null}}"#,
            None,
        ),
        (
            Api::Responses,
            r#"{"type":"response.completed","response":{"usage":{"output_tokens":9,"output_tokens_details":{"reasoning_tokens":0}}}}"#,
            Some(0),
        ),
    ] {
        let said = event(api, &mut Memory::default(), b"", data.as_bytes()).unwrap();
        let Said::Chunk(chunk) = said else { panic!("{data}") };
        assert_eq!(chunk.usage.unwrap().reasoning_tokens, want, "{data}");
    }
}
