//! Request bodies.
//!
//! **Invariant:** the `body` fields of the workload are written verbatim and win over ours, so a user
//! can say anything that the server understands and we do not. An object that both have (`options`,
//! `parameters`, `sampling_params`) is merged by the same rule.

use super::{embeddings, messages, ollama, openai, responses, sglang, tgi};
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
    /// Whether it asks for answers of exactly the longest length.
    pub forces_len: bool,
}

/// A turn of a session that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// What the user said.
    pub user: String,
    /// What was answered, or stands for it.
    pub assistant: String,
}

/// What was said before and `text`, for families that continue a text: each answer stands right behind what
/// it continued, as the server has it, and a line break before what the user says next.
pub(super) fn continued(past: &[Round], text: &str) -> String {
    let mut whole = String::new();
    for round in past {
        whole.push_str(&round.user);
        whole.push_str(&round.assistant);
        whole.push('\n');
    }
    whole.push_str(text);
    whole
}

/// What was said before, in a role and a text each.
pub(super) fn spoken(past: &[Round]) -> impl Iterator<Item = Value> {
    past.iter().flat_map(|round| {
        [("user", &round.user), ("assistant", &round.assistant)]
            .map(|(role, text)| json!({ "role": role, "content": text }))
    })
}

/// Writes the body that asks `model` for `prompt` by the settings of `workload`.
pub fn build(api: Api, model: &str, workload: &Workload, prompt: &Prompt) -> Body {
    build_turn(api, model, workload, &[], prompt)
}

/// The same, where `past` was said before. Families that cannot carry it are refused by the file's check.
pub fn build_turn(
    api: Api,
    model: &str,
    workload: &Workload,
    past: &[Round],
    prompt: &Prompt,
) -> Body {
    let mut map = Map::new();
    // These two serve one model and have no field for its name.
    if !matches!(api, Api::Tgi | Api::Sglang) {
        map.insert("model".to_owned(), Value::from(model));
    }
    match api {
        Api::Chat => openai::ask_chat(&mut map, workload, past, prompt),
        Api::Completions => openai::ask_text(&mut map, workload, past, prompt),
        Api::Responses => responses::ask(&mut map, workload, past, prompt),
        Api::Embeddings => embeddings::ask(&mut map, workload, prompt),
        Api::Messages => messages::ask(&mut map, workload, past, prompt),
        Api::Tgi => tgi::ask(&mut map, workload, past, prompt),
        Api::Sglang => sglang::ask(&mut map, workload, past, prompt),
        Api::OllamaChat => ollama::ask_chat(&mut map, workload, past, prompt),
        Api::OllamaGenerate => ollama::ask_generate(&mut map, workload, prompt),
    }
    // The path says it to TGI, and there is no stream of embeddings.
    let has_stream_field = !matches!(api, Api::Tgi | Api::Embeddings);
    if has_stream_field {
        map.insert("stream".to_owned(), workload.stream.into());
    }
    merge(&mut map, &workload.body);
    let stream = match api {
        Api::Embeddings => false,
        Api::Tgi => workload.stream,
        _ => map.get("stream").and_then(Value::as_bool).unwrap_or(false),
    };
    if stream && matches!(api, Api::Chat | Api::Completions) {
        // After the user's fields, because servers refuse the options on a request without a stream.
        map.entry("stream_options").or_insert_with(|| json!({ "include_usage": true }));
    }
    let prompts = if api.takes_batch() { prompt.texts.len() } else { 1 };
    let prompts = u32::try_from(prompts).unwrap_or(u32::MAX);
    let limit = if api.generates() { limit(api, &map).unwrap_or(prompt.max_tokens) } else { 0 };
    Body {
        asked_output_tokens: limit.saturating_mul(prompts),
        prompts,
        stream,
        forces_len: workload.force_len && api.can_force_len(),
        json: Value::Object(map).to_string().into_bytes(),
    }
}

pub(super) fn temperature(map: &mut Map<String, Value>, workload: &Workload) {
    if let Some(temperature) = workload.temperature {
        map.insert("temperature".to_owned(), Value::from(temperature));
    }
}

fn merge(ours: &mut Map<String, Value>, theirs: &Map<String, Value>) {
    for (key, value) in theirs {
        match (ours.get_mut(key), value) {
            (Some(Value::Object(mine)), Value::Object(more)) => merge(mine, more),
            _ => {
                ours.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The longest answer that the finished body allows, in the family's own field.
fn limit(api: Api, map: &Map<String, Value>) -> Option<u32> {
    let inner = |object: &str, key: &str| map.get(object)?.get(key);
    let limit = match api {
        Api::Chat | Api::Completions => {
            map.get("max_completion_tokens").or_else(|| map.get("max_tokens"))
        }
        Api::Responses => map.get("max_output_tokens"),
        Api::Embeddings => None,
        Api::Messages => map.get("max_tokens"),
        Api::Tgi => inner("parameters", "max_new_tokens"),
        Api::Sglang => inner("sampling_params", "max_new_tokens"),
        Api::OllamaChat | Api::OllamaGenerate => inner("options", "num_predict"),
    };
    limit.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::workload::{CachePolicy, MixPart, Share};

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
            cache: CachePolicy::default(),
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
        insta::assert_snapshot!(text(Api::Chat, &w, &["a"]), @r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"a"}],"max_tokens":8,"temperature":0.5,"ignore_eos":true,"min_tokens":8,"stream":false}"#);
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
    fn every_family_is_asked_in_its_own_words() {
        let mut w = Workload { temperature: Some(0.0), force_len: true, ..workload() };
        let mut all = String::new();
        for api in Api::ALL {
            w.stream = api.generates();
            w.system = api.has_system().then(|| "brief".to_owned());
            let body = build(api, "m", &w, &prompt(&["a"]));
            let json = String::from_utf8(body.json).unwrap();
            all += &format!(
                "{} {} {} {json}\n",
                api.name(),
                body.asked_output_tokens,
                body.forces_len
            );
            assert_eq!((body.stream, body.prompts), (api.generates(), 1), "{}", api.name());
        }
        insta::assert_snapshot!(all, @r#"
        chat 8 true {"model":"m","messages":[{"role":"system","content":"brief"},{"role":"user","content":"a"}],"max_tokens":8,"temperature":0.0,"ignore_eos":true,"min_tokens":8,"stream":true,"stream_options":{"include_usage":true}}
        completions 8 true {"model":"m","prompt":"a","max_tokens":8,"temperature":0.0,"ignore_eos":true,"min_tokens":8,"stream":true,"stream_options":{"include_usage":true}}
        responses 8 true {"model":"m","instructions":"brief","input":"a","max_output_tokens":8,"temperature":0.0,"store":false,"ignore_eos":true,"stream":true}
        embeddings 0 false {"model":"m","input":"a"}
        messages 8 false {"model":"m","system":"brief","messages":[{"role":"user","content":"a"}],"max_tokens":8,"temperature":0.0,"stream":true}
        tgi 8 false {"inputs":"a","parameters":{"max_new_tokens":8,"details":true,"do_sample":false}}
        sglang 8 true {"text":"a","sampling_params":{"max_new_tokens":8,"temperature":0.0,"ignore_eos":true,"min_new_tokens":8},"stream":true}
        ollama_chat 8 false {"model":"m","messages":[{"role":"system","content":"brief"},{"role":"user","content":"a"}],"options":{"num_predict":8,"temperature":0.0},"stream":true}
        ollama_generate 8 false {"model":"m","prompt":"a","system":"brief","options":{"num_predict":8,"temperature":0.0},"stream":true}
        "#);
    }

    #[test]
    fn the_users_options_join_ours_and_win() {
        let mut w = workload();
        w.body = serde_json::from_str(r#"{"options":{"num_ctx":4096,"num_predict":3}}"#).unwrap();
        let body = build(Api::OllamaChat, "m", &w, &prompt(&["a"]));
        assert_eq!(body.asked_output_tokens, 3);
        let json: Value = serde_json::from_slice(&body.json).unwrap();
        assert_eq!(json["options"], json!({ "num_predict": 3, "num_ctx": 4096 }));
        w.body = serde_json::from_str(r#"{"sampling_params":{"top_k":1}}"#).unwrap();
        let json = text(Api::Sglang, &w, &["a"]);
        assert!(json.contains(r#""sampling_params":{"max_new_tokens":8,"top_k":1}"#), "{json}");
    }

    #[test]
    fn a_list_of_texts_is_embedded_as_one_batch() {
        let body = build(Api::Embeddings, "m", &workload(), &prompt(&["a", "b"]));
        assert_eq!((body.prompts, body.asked_output_tokens, body.stream), (2, 0, false));
        assert_eq!(body.json, br#"{"model":"m","input":["a","b"]}"#);
    }

    #[test]
    fn a_part_of_a_mix_keeps_its_own_settings() {
        let part = Workload { name: "part".to_owned(), temperature: Some(1.0), ..workload() };
        let mut mix = workload();
        mix.source =
            Source::Mix { parts: vec![MixPart { share: Share::Count(1), workload: part }] };
        let drawn = Prompt { class: "part".to_owned(), ..prompt(&["a"]) };
        assert_eq!(settings_of(&mix, &drawn).temperature, Some(1.0));
        assert_eq!(settings_of(&mix, &prompt(&["a"])).temperature, None);
    }
}
