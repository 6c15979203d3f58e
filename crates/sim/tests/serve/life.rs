//! Connections that come in numbers, and connections that go away.

use crate::client::{Running, chat_body, eventually, fixed};
use scalebeam_sim::serve::ServeConfig;

fn server(ttft_ms: u64, itl_ms: u64, slots: Option<u64>) -> Running {
    Running::start(ServeConfig { engine: fixed(ttft_ms, itl_ms, slots), ..ServeConfig::default() })
}

fn metric(server: &Running, name: &str) -> f64 {
    let answer = server.get("/metrics");
    let line = answer.text().lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = server(5, 20, Some(1));
    // Twenty seconds of tokens in the only slot.
    let endless = chat_body(r#""stream":true,"max_tokens":1000,"ignore_eos":true"#);
    let leaving = server.open("POST", "/v1/chat/completions", "", &endless);
    eventually("running", || metric(&server, "vllm:num_requests_running") > 0.5);
    let begun = scalebeam_model::clock::Clock::now(&*server.clock);
    drop(leaving);
    let answer = server.chat(r#""stream":true,"max_tokens":3,"ignore_eos":true"#);
    assert_eq!(answer.contents().len(), 3);
    let took = scalebeam_model::clock::Clock::now(&*server.clock).since(begun);
    assert!(took.as_secs_f64() < 15.0, "{took}");
    assert!(metric(&server, r#"vllm:request_success_total{finished_reason="abort""#) > 0.5);
}

#[test]
fn a_client_that_leaves_a_whole_answer_frees_its_slot_too() {
    let server = server(20_000, 0, Some(1));
    let leaving = server.open("POST", "/v1/chat/completions", "", &chat_body(r#""max_tokens":3"#));
    eventually("running", || metric(&server, "vllm:num_requests_running") > 0.5);
    drop(leaving);
    eventually("freed", || metric(&server, "vllm:num_requests_running") < 0.5);
}

#[test]
fn those_beyond_the_slots_wait() {
    let server = server(500, 0, Some(1));
    let body = chat_body(r#""stream":true,"max_tokens":1"#);
    let streams: Vec<_> =
        (0..3).map(|_| server.open("POST", "/v1/chat/completions", "", &body)).collect();
    eventually("waiting", || metric(&server, "vllm:num_requests_waiting") > 1.5);
    for stream in streams {
        assert!(server.read(stream).done());
    }
}

#[test]
fn hundreds_of_streams_all_get_their_tokens() {
    let server = server(20, 5, None);
    let body = chat_body(r#""stream":true,"max_tokens":40,"ignore_eos":true"#);
    let streams: Vec<_> =
        (0..300).map(|_| server.open("POST", "/v1/chat/completions", "", &body)).collect();
    for stream in streams {
        let answer = server.read(stream);
        assert_eq!(answer.contents().len(), 40);
        assert!(answer.whole && answer.done());
    }
    assert!((metric(&server, "vllm:generation_tokens_total") - 12_000.0).abs() < 0.5);
}
