//! Everything around completions.

use crate::client::{Running, fixed};
use scalebeam_model::units::Nanos;
use scalebeam_sim::config::EmulatedConfig;
use scalebeam_sim::serve::{ServeConfig, ServeError, Server, count_tokens};

fn quick() -> Running {
    Running::start(ServeConfig { engine: fixed(5, 1, None), ..ServeConfig::default() })
}

#[test]
fn health_version_and_models_answer() {
    let server = quick();
    assert_eq!(server.get("/health").status, 200);
    assert!(server.get("/version").json()["version"].is_string());
    let models = server.get("/v1/models").json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "test/model");
    assert_eq!(models["data"][0]["max_model_len"], 2_000);
    assert_eq!(server.exchange("POST", "/reset_prefix_cache", "").status, 200);
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/v1/completions").status, 404);
}

#[test]
fn a_starting_server_is_unavailable_and_then_ready() {
    let startup_delay = Nanos::from_millis(300);
    let config = ServeConfig { engine: fixed(5, 1, None), startup_delay, ..ServeConfig::default() };
    let server = Running::start(config);
    let early = server.get("/health");
    assert_eq!(early.status, 503);
    assert!(early.head.contains("retry-after"));
    crate::client::eventually("ready", || server.get("/health").status == 200);
}

#[test]
fn tokenize_counts_by_the_published_rule() {
    let server = quick();
    let text = "one two threethree";
    let reply = server.exchange("POST", "/tokenize", &format!(r#"{{"prompt":"{text}"}}"#)).json();
    assert_eq!(reply["count"], count_tokens(text));
    assert_eq!(reply["tokens"].as_array().unwrap().len() as u64, count_tokens(text));
    assert_eq!(server.exchange("POST", "/tokenize", "{}").status, 400);
}

#[test]
fn what_is_wrong_is_refused_in_openais_words() {
    let server = quick();
    let cases = [
        ("/v1/completions", "{", 400),
        ("/v1/completions", r#"{"messages":[]}"#, 400),
        ("/v1/completions", r#"{"model":"other","prompt":"a"}"#, 404),
        ("/v1/completions", r#"{"prompt":"a","max_tokens":2000}"#, 400),
        ("/v1/chat/completions", r#"{"prompt":"a"}"#, 400),
    ];
    for (path, body, status) in cases {
        let answer = server.exchange("POST", path, body);
        assert_eq!(answer.status, status, "{body}");
        let error = &answer.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string());
        assert_eq!(error["code"], status);
    }
}

#[test]
fn metrics_count_what_happened() {
    let server = quick();
    let answer = server.completion(r#""prompt":"a b c","max_tokens":7,"ignore_eos":true"#);
    assert_eq!(answer.status, 200);
    let page = server.get("/metrics").text().to_owned();
    let label = r#"model_name="test/model""#;
    for want in [
        format!("vllm:prompt_tokens_total{{{label}}} 3.0"),
        format!("vllm:generation_tokens_total{{{label}}} 7.0"),
        format!("vllm:num_requests_running{{{label}}} 0.0"),
        format!(r#"vllm:request_success_total{{finished_reason="length",{label}}} 1.0"#),
        format!("vllm:time_to_first_token_seconds_count{{{label}}} 1.0"),
        format!("vllm:inter_token_latency_seconds_count{{{label}}} 6.0"),
        format!("vllm:e2e_request_latency_seconds_count{{{label}}} 1.0"),
    ] {
        assert!(page.contains(&want), "{want} in {page}");
    }
}

#[tokio::test]
async fn an_impossible_instance_is_refused_before_anything_starts() {
    let engine = EmulatedConfig { gpu: "H1000".into(), ..EmulatedConfig::default() };
    let clock = std::sync::Arc::new(scalebeam_model::clock::ManualClock::default());
    let refused = Server::bind(ServeConfig { engine, ..ServeConfig::default() }, clock);
    assert!(matches!(refused, Err(ServeError::Config(_))));
}
