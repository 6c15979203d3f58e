//! Request bodies.
//!
//! **Invariant:** the `body` fields of the workload are written verbatim and win over ours, so a user
//! can say anything that the server understands and we do not.

use scalebeam_model::workload::{Api, Prompt, Source, Workload};
use serde_json::{Map, Value, json};

/// The settings that hold for `prompt`: of a mix, those of the part that it was drawn from.
pub fn settings_of<'a>(workload: &'a Workload, prompt: &Prompt) -> &'a Workload {
    let Source::Mix { parts } = &workload.source else { return workload };
    parts.iter().map(|p| &p.workload).find(|w| w.name == prompt.class).unwrap_or(workload)
}

/// The body of one request, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The JSON text.
    pub json: Vec<u8>,
    /// Output tokens that it asks for, all prompts together.
    pub asked_output_tokens: u32,
    /// Answers that will come: one per text of a batch, one for a chat.
    pub prompts: u32,
    /// Whether it asks for a stream.
    pub stream: bool,
}

/// Writes the body that asks `model` for `prompt` by the settings of `workload`.
pub fn build(api: Api, model: &str, workload: &Workload, prompt: &Prompt) -> Body {
    let mut map = Map::new();
    map.insert("model".to_owned(), Value::from(model));
    match api {
        Api::Chat => map.insert("messages".to_owned(), messages(workload, prompt)),
        Api::Completions => map.insert("prompt".to_owned(), prompts(workload, prompt)),
    };
    map.insert("max_tokens".to_owned(), Value::from(prompt.max_tokens));
    if let Some(temperature) = workload.temperature {
        map.insert("temperature".to_owned(), Value::from(temperature));
    }
    map.insert("stream".to_owned(), Value::from(workload.stream));
    if workload.force_len {
        map.insert("ignore_eos".to_owned(), Value::from(true));
        map.insert("min_tokens".to_owned(), Value::from(prompt.max_tokens));
    }
    for (key, value) in &workload.body {
        map.insert(key.clone(), value.clone());
    }
    let stream = map.get("stream").and_then(Value::as_bool).unwrap_or(false);
    if stream {
        // After the user's fields, because servers refuse the options on a request without a stream.
        map.entry("stream_options").or_insert_with(|| json!({ "include_usage": true }));
    }
    let limit = ["max_completion_tokens", "max_tokens"].into_iter().find_map(|key| map.get(key));
    let limit = limit.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let prompts = match api {
        Api::Chat => 1,
        Api::Completions => u32::try_from(prompt.texts.len()).unwrap_or(u32::MAX),
    };
    Body {
        asked_output_tokens: limit.unwrap_or(prompt.max_tokens).saturating_mul(prompts),
        prompts,
        stream,
        json: Value::Object(map).to_string().into_bytes(),
    }
}

fn messages(workload: &Workload, prompt: &Prompt) -> Value {
    let system = workload.system.iter().map(|text| json!({ "role": "system", "content": text }));
    // A chat has one answer; several texts are turns of one user.
    let user = prompt.texts.iter().map(|text| json!({ "role": "user", "content": text }));
    Value::Array(system.chain(user).collect())
}

fn prompts(workload: &Workload, prompt: &Prompt) -> Value {
    // The completions endpoint has no system message; it goes in front, as a template would put it.
    let full = |text: &String| match &workload.system {
        Some(system) => Value::from(format!("{system}\n\n{text}")),
        None => Value::from(text.as_str()),
    };
    match prompt.texts.as_slice() {
        [text] => full(text),
        texts => Value::Array(texts.iter().map(full).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::workload::MixPart;

    fn workload() -> Workload {
        Workload {
            name: "w".to_owned(),
            api: Api::Chat,
            stream: true,
            temperature: None,
            system: None,
            force_len: false,
            body: Map::new(),
            seed: 1,
            source: Source::Mix { parts: Vec::new() },
        }
    }

    fn prompt(texts: &[&str]) -> Prompt {
        Prompt {
            class: "w".to_owned(),
            texts: texts.iter().map(|&t| t.to_owned()).collect(),
            asked_input_tokens: None,
            max_tokens: 8,
        }
    }

    fn text(api: Api, workload: &Workload, texts: &[&str]) -> String {
        String::from_utf8(build(api, "m", workload, &prompt(texts)).json).unwrap()
    }

    #[test]
    fn a_plain_chat_body_asks_for_a_stream_and_its_usage() {
        insta::assert_snapshot!(text(Api::Chat, &workload(), &["say \"hi\"\n"]), @r#"{"model":"m","messages":[{"role":"user","content":"say \"hi\"\n"}],"max_tokens":8,"stream":true,"stream_options":{"include_usage":true}}"#);
    }

    #[test]
    fn every_setting_reaches_the_body() {
        let w = Workload {
            system: Some("be brief".to_owned()),
            temperature: Some(0.5),
            force_len: true,
            stream: false,
            ..workload()
        };
        insta::assert_snapshot!(text(Api::Chat, &w, &["a"]), @r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"a"}],"max_tokens":8,"temperature":0.5,"stream":false,"ignore_eos":true,"min_tokens":8}"#);
    }

    #[test]
    fn a_batch_is_a_list_of_prompts_and_asks_for_the_tokens_of_all() {
        let w = workload();
        let body = build(Api::Completions, "m", &w, &prompt(&["a", "b"]));
        assert_eq!(body.asked_output_tokens, 16);
        insta::assert_snapshot!(String::from_utf8(body.json).unwrap(), @r#"{"model":"m","prompt":["a","b"],"max_tokens":8,"stream":true,"stream_options":{"include_usage":true}}"#);
        assert!(text(Api::Completions, &w, &["a"]).contains(r#""prompt":"a""#));
    }

    #[test]
    fn the_users_fields_win() {
        let mut w = workload();
        w.body = serde_json::from_str(
            r#"{"max_tokens":3,"stream":false,"chat_template_kwargs":{"enable_thinking":false}}"#,
        )
        .unwrap();
        let body = build(Api::Chat, "m", &w, &prompt(&["a"]));
        assert_eq!((body.asked_output_tokens, body.stream), (3, false));
        insta::assert_snapshot!(String::from_utf8(body.json).unwrap(), @r#"{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":3,"stream":false,"chat_template_kwargs":{"enable_thinking":false}}"#);
    }

    #[test]
    fn a_part_of_a_mix_keeps_its_own_settings() {
        let part = Workload { name: "part".to_owned(), temperature: Some(1.0), ..workload() };
        let mut mix = workload();
        mix.source = Source::Mix { parts: vec![MixPart { count: 1, workload: part }] };
        let drawn = Prompt { class: "part".to_owned(), ..prompt(&["a"]) };
        assert_eq!(settings_of(&mix, &drawn).temperature, Some(1.0));
        assert_eq!(settings_of(&mix, &prompt(&["a"])).temperature, None);
    }
}
