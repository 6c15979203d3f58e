//! What becomes of a request's body on its way through two workers. Pure.
//!
//! **Invariants.** A value that is not changed is written as it came, byte for byte.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What a prefill worker is told instead: one token, at once, and to keep the blocks of the prompt.
const PREFILL: &str = r#""stream":false,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;
/// Members that must not reach it: each says something else about what [`PREFILL`] says, or about a length
/// that one token cannot have.
const NOT_FOR_PREFILL: [&str; 6] = [
    r#""stream""#,
    r#""stream_options""#,
    r#""max_tokens""#,
    r#""max_completion_tokens""#,
    r#""min_tokens""#,
    KV_TRANSFER,
];
const KV_TRANSFER: &str = r#""kv_transfer_params""#;

/// The members of a request's JSON object in their order, keys (with their quotes) and values as written.
#[derive(Debug)]
pub(crate) struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;
        impl<'de> Visitor<'de> for Raw {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Raw).map(Self)
    }
}

impl<'a> Members<'a> {
    /// Reads the body of a request. `Err` says what is wrong with it.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, String> {
        let members: Self =
            serde_json::from_slice(body).map_err(|e| format!("cannot read the body: {e}"))?;
        members.is_one_answer().map(|()| members)
    }

    /// A prefill worker says where the blocks of one prompt lie, and they are fetched once.
    fn is_one_answer(&self) -> Result<(), String> {
        if self.value("n").is_some_and(|n| !matches!(n, "1" | "null")) {
            return Err(
                "n has to be 1: blocks that were computed elsewhere are fetched once".into()
            );
        }
        match self.value("prompt").map_or(0, prompts) {
            0 | 1 => Ok(()),
            n => Err(format!("prompt is a list of {n}: send each prompt as a request of its own")),
        }
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let is_it = |key: &RawValue| key.get().trim_matches('"') == name;
        self.0.iter().rfind(|(key, _)| is_it(key)).map(|(_, value)| value.get())
    }

    /// The body for a prefill worker.
    pub(crate) fn for_prefill(&self) -> Vec<u8> {
        self.write(&NOT_FOR_PREFILL, &[PREFILL])
    }

    /// The body for a decode worker, which fetches its blocks by `params`.
    pub(crate) fn for_decode(&self, params: &RawValue) -> Vec<u8> {
        self.write(&[KV_TRANSFER], &[KV_TRANSFER, ":", params.get()])
    }

    /// All members but those called one of `without`, and then `tail`, the text of at least one member.
    fn write(&self, without: &[&str], tail: &[&str]) -> Vec<u8> {
        let kept = || self.0.iter().filter(|(key, _)| !without.contains(&key.get()));
        let length =
            |(key, value): &(&RawValue, &RawValue)| key.get().len() + value.get().len() + 2;
        let tail_length: usize = tail.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(kept().map(length).sum::<usize>() + tail_length + 2);
        out.push(b'{');
        for (key, value) in kept() {
            out.extend_from_slice(key.get().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
            out.push(b',');
        }
        tail.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        out.push(b'}');
        out
    }
}

/// Prompts in the value of `prompt`: a text or a list of token ids is one, a list of either is many.
fn prompts(value: &str) -> usize {
    let inner = value.trim_start().strip_prefix('[').map(str::trim_start);
    if !inner.is_some_and(|inner| inner.starts_with(['"', '['])) {
        return 1;
    }
    serde_json::from_str::<Vec<IgnoredAny>>(value).map_or(1, |list| list.len())
}

/// Where a prefill worker's `answer` says that the blocks of the prompt lie; absent where it does not.
pub(crate) fn blocks(answer: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Prefilled<'a> {
        #[serde(borrow)]
        kv_transfer_params: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Prefilled<'_>>(answer).ok()?.kv_transfer_params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Members<'_>, String> {
        Members::read(body.as_bytes())
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_prefill_is_one_token_at_once_whatever_was_asked() {
        let body = r#"{ "model":"m", "messages" : [{"role":"user","content":"a \"b\" \u00e9"}],"stream":true,
            "stream_options":{"include_usage":true},"max_tokens":512,"max_completion_tokens":512,
            "min_tokens":9,"temperature":0.0,"kv_transfer_params":{"mine":1}}"#;
        assert_eq!(
            text(read(body).unwrap().for_prefill()),
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"a \"b\" \u00e9"}}],"temperature":0.0,{PREFILL}}}"#
            )
        );
        assert_eq!(text(read("{}").unwrap().for_prefill()), format!("{{{PREFILL}}}"));
    }

    #[test]
    fn a_decode_is_what_was_asked_and_where_the_blocks_lie() {
        let answer =
            r#"{"id":"x","kv_transfer_params": {"remote_block_ids":[[1, 2]],"remote_port":5600}}"#;
        let params = blocks(answer.as_bytes()).unwrap();
        let body = r#"{"prompt":[5,6],"max_tokens":1e1,"kv_transfer_params":null,"stream":true}"#;
        assert_eq!(
            text(read(body).unwrap().for_decode(params)),
            r#"{"prompt":[5,6],"max_tokens":1e1,"stream":true,"kv_transfer_params":{"remote_block_ids":[[1, 2]],"remote_port":5600}}"#
        );
    }

    #[test]
    fn an_answer_that_keeps_no_blocks_is_told() {
        for answer in [r#"{"id":"x"}"#, r#"{"kv_transfer_params":null}"#, "[]", "<html>", ""] {
            assert!(blocks(answer.as_bytes()).is_none(), "{answer}");
        }
    }

    #[test]
    fn what_has_more_than_one_answer_is_refused() {
        for (body, want) in [
            (r#"{"prompt":"a"}"#, None),
            (r#"{"prompt":["a"],"n":1}"#, None),
            (r#"{"prompt":[1,2,3],"n":null}"#, None),
            (r#"{"prompt":[[1,2]]}"#, None),
            (r#"{"prompt":["a","b"]}"#, Some("a list of 2")),
            (r#"{"prompt":[ [1],[2],[3]]}"#, Some("a list of 3")),
            (r#"{"messages":[],"n":2}"#, Some("n has to be 1")),
            (r#"{"prompt":"a""#, Some("cannot read the body")),
            ("[]", Some("a JSON object")),
            (r#"{"a":1} x"#, Some("cannot read the body")),
        ] {
            match (read(body).err(), want) {
                (Some(got), Some(want)) => assert!(got.contains(want), "{body}: {got}"),
                (got, want) => assert_eq!(got.as_deref(), want, "{body}"),
            }
        }
    }
}
