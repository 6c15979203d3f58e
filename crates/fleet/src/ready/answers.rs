//! What an answer means to a gate. Pure: text in, verdict out.

use super::counts;
use super::probe::Held;
use crate::error::FleetError;
use crate::http::{Answer, NoAnswer};
use scalebeam_model::workload::Api;
use serde_json::Value;
use std::collections::BTreeMap;

/// What one answer says about a gate.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Passed, perhaps with something to note.
    Pass(Option<String>),
    /// Not yet.
    Wait(String),
    /// Wrong, but may still be starting.
    Wrong(FleetError),
    /// Wrong for good.
    Fail(FleetError),
}

const AUTH: &str = "set `api_key_env` (and `headers_env`) of the deployment to the variables that hold \
                    what the endpoint asks for";
const OTHER_SERVER: &str = "something else answers there: check host, port and path of `endpoint`, and \
                            proxies in between";
const NO_HEALTH: &str = "say which path is 200 once it serves: ready = { health = \"/path\" }; without one, a \
                         line of its log: ready = { log = \"text\" }";
const NO_LIST: &str = "a server that lists no models needs ready = { models = false }; else check that it is \
                       the server that was meant";
const NOT_THE_FAMILY: &str = "the endpoint must answer in the workload's `api`, and stream where it is \
                              asked to";
const NOT_OPENAI: &str =
    "the endpoint must speak the OpenAI API: streamed chat or text completions";

fn wrong(url: &str, answer: &Answer, advice: &'static str) -> FleetError {
    FleetError::WrongAnswer { url: url.to_owned(), got: answer.summary(), advice }
}

/// Statuses and pages that mean the same to every gate; the answer back if it is a plain 200.
fn common(url: &str, answer: Result<Answer, NoAnswer>) -> Result<Answer, Verdict> {
    let answer = answer.map_err(|NoAnswer(why)| Verdict::Wait(why))?;
    match answer.status {
        200 if answer.is_html() => Err(Verdict::Wrong(wrong(url, &answer, OTHER_SERVER))),
        200 => Ok(answer),
        401 | 403 => Err(Verdict::Fail(wrong(url, &answer, AUTH))),
        300..=399 => Err(Verdict::Wrong(wrong(url, &answer, OTHER_SERVER))),
        // Gateways say so while what is behind them starts.
        429 | 500..=599 => Err(Verdict::Wait(answer.summary())),
        _ => Err(Verdict::Wrong(wrong(url, &answer, OTHER_SERVER))),
    }
}

/// Whether a server lives and has no such path.
fn is_absent(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 405)
}

/// Any plain 200 is health.
pub(super) fn health(url: &str, answer: Result<Answer, NoAnswer>) -> Verdict {
    match &answer {
        Ok(answer) if is_absent(answer) => return Verdict::Wrong(wrong(url, answer, NO_HEALTH)),
        _ => {}
    }
    match common(url, answer) {
        Ok(_) => Verdict::Pass(None),
        Err(verdict) => verdict,
    }
}

/// The list must hold `model`; an empty list may still fill. Some gateways have no list: there the
/// completion that follows is the proof.
pub(super) fn models(
    url: &str,
    model: &str,
    may_lack: bool,
    answer: Result<Answer, NoAnswer>,
) -> Verdict {
    match &answer {
        Ok(answer) if is_absent(answer) && may_lack => {
            let note = format!("{url} lists no models; '{model}' was not looked up");
            return Verdict::Pass(Some(note));
        }
        Ok(answer) if is_absent(answer) => return Verdict::Wrong(wrong(url, answer, NO_LIST)),
        _ => {}
    }
    let answer = match common(url, answer) {
        Ok(answer) => answer,
        Err(verdict) => return verdict,
    };
    let parsed: Option<Value> = serde_json::from_str(&answer.body).ok();
    let Some(data) = parsed.as_ref().and_then(|v| v.get("data")).and_then(Value::as_array) else {
        return Verdict::Wrong(wrong(url, &answer, NOT_OPENAI));
    };
    let mut names: Vec<&str> =
        data.iter().filter_map(|m| m.get("id").and_then(Value::as_str)).collect();
    if names.is_empty() {
        return Verdict::Wait("it lists no model yet".to_owned());
    }
    if names.contains(&model) {
        return Verdict::Pass(None);
    }
    names.sort_by_key(|name| distance(name, model));
    let nearest = names.first().filter(|n| is_near(n, model)).map(|n| (*n).to_owned());
    let listed = names.iter().take(5).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    Verdict::Wrong(FleetError::ModelNotServed {
        url: url.to_owned(),
        model: model.to_owned(),
        listed,
        nearest,
    })
}

/// Near enough to be meant: part of each other, or a few letters apart.
fn is_near(name: &str, wanted: &str) -> bool {
    let (a, b) = (name.to_lowercase(), wanted.to_lowercase());
    let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    last(&a) == last(&b) || a.contains(&b) || b.contains(&a) || distance(&a, &b) <= 1 + b.len() / 4
}

/// Edit distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = cost.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Dynamo's frontend lists its instances in `/health`; one that does not cannot be counted.
pub(super) fn instances(
    url: &str,
    expected: &BTreeMap<String, u32>,
    answer: Result<Answer, NoAnswer>,
) -> Verdict {
    let uncounted = || {
        let text =
            format!("{url} does not list instances, so {} were not counted", counts(expected));
        Verdict::Pass(Some(text))
    };
    let answer = match answer {
        // An endpoint of somebody else may have no /health at all.
        Ok(answer) if answer.status == 404 => return uncounted(),
        other => match common(url, other) {
            Ok(answer) => answer,
            Err(verdict) => return verdict,
        },
    };
    let parsed: Option<Value> = serde_json::from_str(&answer.body).ok();
    let Some(list) = parsed.as_ref().and_then(|v| v.get("instances")).and_then(Value::as_array)
    else {
        return uncounted();
    };
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for instance in list {
        let text = |key: &str| instance.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("endpoint") == "generate" {
            *found.entry(role_of(text("component"), expected).to_owned()).or_default() += 1;
        }
    }
    if expected.iter().all(|(role, n)| found.get(role).copied().unwrap_or(0) >= *n) {
        return Verdict::Pass(None);
    }
    Verdict::Wait(registered(&found, expected))
}

/// SGLang's router lists its workers, and says of each whether it is well.
pub(super) fn workers(url: &str, expected: u32, answer: Result<Answer, NoAnswer>) -> Verdict {
    let answer = match common(url, answer) {
        Ok(answer) => answer,
        Err(verdict) => return verdict,
    };
    let parsed: Option<Value> = serde_json::from_str(&answer.body).ok();
    let Some(list) = parsed.as_ref().and_then(|v| v.get("workers")).and_then(Value::as_array)
    else {
        return Verdict::Wrong(wrong(url, &answer, OTHER_SERVER));
    };
    let is_well = |worker: &&Value| worker.get("is_healthy") == Some(&Value::Bool(true));
    let well = list.iter().filter(is_well).count();
    match usize::try_from(expected) {
        Ok(expected) if well < expected => {
            Verdict::Wait(format!("{well} of {expected} workers are well"))
        }
        _ => Verdict::Pass(None),
    }
}

/// `0 of 1 decode, 1 of 2 prefill workers registered`.
fn registered(found: &BTreeMap<String, u32>, expected: &BTreeMap<String, u32>) -> String {
    let of = |(role, all): (&String, &u32)| {
        format!("{} of {all} {role}", found.get(role).copied().unwrap_or(0))
    };
    let counts: Vec<String> = expected.iter().map(of).collect();
    format!("{} workers registered", counts.join(", "))
}

/// Dynamo calls the decode workers of a split deployment `decode` or, by the engine, `backend`.
fn role_of<'a>(component: &'a str, expected: &BTreeMap<String, u32>) -> &'a str {
    match component {
        "prefill" | "decode" => component,
        _ if expected.contains_key("decode") => "decode",
        _ => "aggregated",
    }
}

/// Whether the server has no chat at all, or a model without a chat template.
pub(super) fn has_no_chat(answer: &Result<Answer, NoAnswer>) -> bool {
    answer.as_ref().is_ok_and(|a| {
        matches!(a.status, 404 | 405)
            || (a.status == 400 && a.body.to_lowercase().contains("chat template"))
    })
}

/// An answer counts if it was streamed (where the family can), held output and the count of it. An
/// endpoint that is not `ours` may leave the count out, which is noted.
pub(super) fn completion(
    api: Api,
    url: &str,
    ours: bool,
    answer: Result<Answer, NoAnswer>,
) -> Verdict {
    let answer = match common(url, answer) {
        Ok(answer) => answer,
        Err(verdict) => return verdict,
    };
    let Some(held) = Held::read(api, &answer.content_type, &answer.body) else {
        return Verdict::Wrong(wrong(url, &answer, OTHER_SERVER));
    };
    let got = |got: &str, advice| {
        Verdict::Wrong(FleetError::WrongAnswer { url: url.to_owned(), got: got.to_owned(), advice })
    };
    if let Some(error) = held.error {
        return got(&error, "the engine answers with an error inside the stream: see its log");
    }
    if held.events == 0 {
        return Verdict::Wrong(wrong(url, &answer, NOT_THE_FAMILY));
    }
    match (held.has_text, held.usage_tokens) {
        _ if !held.is_stream && api.generates() => {
            Verdict::Wrong(wrong(url, &answer, NOT_THE_FAMILY))
        }
        (true, _) if !api.generates() => Verdict::Pass(None),
        (false, _) if !api.generates() => {
            got("an answer without a vector", "the model must be one that embeds")
        }
        (_, Some(tokens)) if tokens >= 1 => Verdict::Pass(None),
        (true, None) if !ours => {
            Verdict::Pass(Some(format!("{url} sends no usage; tokens will be counted otherwise")))
        }
        (true, None) => {
            got("a stream without usage", "the engine must honour stream_options.include_usage")
        }
        _ => got(
            "a stream without a single token",
            "the engine answers but generates nothing: see its log",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(body: &str) -> Result<Answer, NoAnswer> {
        answer(200, "application/json", body)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for what the client returns")]
    fn answer(status: u16, kind: &str, body: &str) -> Result<Answer, NoAnswer> {
        Ok(Answer { status, content_type: kind.to_owned(), body: body.to_owned() })
    }

    fn text(verdict: Verdict) -> String {
        match verdict {
            Verdict::Pass(None) => "pass".to_owned(),
            Verdict::Pass(Some(note)) => format!("pass: {note}"),
            Verdict::Wait(why) => format!("wait: {why}"),
            Verdict::Wrong(error) => format!("wrong: {error}"),
            Verdict::Fail(error) => format!("fail: {error}"),
        }
    }

    #[test]
    fn statuses_and_pages() {
        for (got, want) in [
            (ok("{}"), "pass"),
            (
                answer(200, "text/html", "<html>hi</html>"),
                "wrong: U gave HTTP 200 (text/html): <html>hi</html>",
            ),
            (answer(503, "", "loading"), "wait: HTTP 503: loading"),
            (answer(401, "", "no"), "fail: U gave HTTP 401: no"),
            (answer(404, "", ""), "wrong: U gave HTTP 404"),
            (Err(NoAnswer("refused".into())), "wait: refused"),
        ] {
            assert_eq!(text(health("U", got)), want);
        }
    }

    #[test]
    fn a_path_that_a_server_lacks_is_told_with_the_key_that_does_without() {
        let hint = |verdict| match verdict {
            Verdict::Wrong(error) => error.hint().unwrap(),
            other => panic!("{other:?}"),
        };
        for status in [404, 405] {
            let absent = || answer(status, "", "");
            assert!(hint(health("U", absent())).contains("ready = { health = "), "{status}");
            assert!(hint(models("U", "m", false, absent())).contains("models = false"), "{status}");
            let attached = text(models("U", "m", true, absent()));
            assert_eq!(attached, "pass: U lists no models; 'm' was not looked up", "{status}");
        }
    }

    #[test]
    fn the_model_must_be_listed_under_its_name() {
        for (body, want) in [
            (r#"{"data":[{"id":"a"},{"id":"m"}]}"#, "pass"),
            (r#"{"data":[]}"#, "wait: it lists no model yet"),
            ("[]", "wrong: U gave HTTP 200 (application/json): []"),
            (
                r#"{"data":[{"id":"zzzzz"},{"id":"org/M"}]}"#,
                "wrong: U does not list model 'm'; it lists 'org/M', 'zzzzz'",
            ),
        ] {
            assert_eq!(text(models("U", "m", false, ok(body))), want, "{body}");
        }
        let Verdict::Wrong(error) = models(
            "U",
            "SmolLM2-135M",
            false,
            ok(r#"{"data":[{"id":"other"},{"id":"smollm2-135m"}]}"#),
        ) else {
            panic!("a near name is not the name");
        };
        assert_eq!(
            error.hint().unwrap(),
            "set `served = \"smollm2-135m\"` in [model] if that is the one you mean"
        );
    }

    #[test]
    fn dynamo_is_counted_by_component() {
        let expected = BTreeMap::from([("prefill".to_owned(), 2), ("decode".to_owned(), 1)]);
        let p = r#"{"component":"prefill","endpoint":"generate"}"#;
        let d = r#"{"component":"backend","endpoint":"generate"}"#;
        let c = r#"{"component":"backend","endpoint":"clear_kv"}"#;
        for (body, want) in [
            (
                format!(r#"{{"status":"unhealthy","instances":[{p},{c}]}}"#),
                "wait: 0 of 1 decode, 1 of 2 prefill workers registered",
            ),
            (format!(r#"{{"instances":[{p},{d},{p}]}}"#), "pass"),
            (
                "ok".to_owned(),
                "pass: U does not list instances, so 1 decode and 2 prefill were not counted",
            ),
        ] {
            assert_eq!(text(instances("U", &expected, ok(&body))), want);
        }
    }

    /// By sglang-router 0.3.2, shortened.
    #[test]
    fn workers_of_a_router_count_once_they_are_well() {
        let worker = |well: bool| format!(r#"{{"worker_type":"regular","is_healthy":{well}}}"#);
        let list = |of: &[bool]| {
            let workers: Vec<String> = of.iter().map(|well| worker(*well)).collect();
            format!(r#"{{"workers":[{}],"total":{}}}"#, workers.join(","), of.len())
        };
        for (body, want) in [
            (list(&[]), "wait: 0 of 2 workers are well"),
            (list(&[true, false]), "wait: 1 of 2 workers are well"),
            (list(&[true, true]), "pass"),
            ("{}".to_owned(), "wrong: U gave HTTP 200 (application/json): {}"),
        ] {
            assert_eq!(text(workers("U", 2, ok(&body))), want);
        }
    }

    #[test]
    fn a_completion_needs_a_token_and_its_usage() {
        let role =
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let token = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\r\n\r\n";
        let usage =
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
        for (ours, body, want) in [
            (true, format!("{role}{token}{usage}"), "pass"),
            (true, format!("{role}{token}"), "wrong: U gave a stream without usage"),
            (
                false,
                format!("{role}{token}"),
                "pass: U sends no usage; tokens will be counted otherwise",
            ),
            (true, role.to_owned(), "wrong: U gave a stream without a single token"),
            (
                true,
                "data: {\"error\":{\"message\":\"dead\"}}\n\n".to_owned(),
                "wrong: U gave {\"message\":\"dead\"}",
            ),
            (
                true,
                "{\"choices\":[]}".to_owned(),
                "wrong: U gave HTTP 200 (application/json): {\"choices\":[]}",
            ),
        ] {
            assert_eq!(text(completion(Api::Chat, "U", ours, ok(&body))), want, "{body}");
        }
    }

    #[test]
    fn servers_without_chat_are_recognised() {
        assert!(has_no_chat(&answer(404, "", "")));
        assert!(has_no_chat(&answer(400, "", "no Chat Template is set")));
        assert!(!has_no_chat(&answer(400, "", "bad model")));
        assert!(!has_no_chat(&ok("")));
    }
}
