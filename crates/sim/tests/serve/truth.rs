//! The truth log against what a client saw.

use crate::client::{Running, chat_body, eventually, fixed};
use scalebeam_model::units::Nanos;
use scalebeam_sim::serve::{Faults, ServeConfig, StatusFault, TruthRecord};
use std::path::Path;

const TTFT: Nanos = Nanos::from_millis(50);
const ITL: Nanos = Nanos::from_millis(10);

fn logged(path: &Path, faults: Faults) -> Running {
    let engine = fixed(50, 10, None);
    let truth_log = Some(path.to_owned());
    Running::start(ServeConfig { engine, faults, truth_log, ..ServeConfig::default() })
}

fn records(path: &Path) -> Vec<TruthRecord> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_log_is_what_the_client_saw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let server = logged(&path, Faults::default());
    let body = chat_body(r#""model":"test/model","stream":true,"max_tokens":20,"ignore_eos":true"#);
    let answer =
        server.read(server.open("POST", "/v1/chat/completions", "x-request-id: r-1\r\n", &body));
    // A line is there as soon as its request has ended, while the server goes on.
    eventually("logged", || !records(&path).is_empty());
    let record = records(&path).remove(0);
    assert_eq!((record.id.as_str(), record.outcome.as_str()), ("r-1", "completed"));
    assert_eq!(
        (record.model.as_str(), record.path.as_str()),
        ("test/model", "/v1/chat/completions")
    );
    assert_eq!((record.tokens, record.writes.len(), record.choices), (20, 20, 1));
    assert!(record.accepted_at_ns <= record.received_at_ns);
    let seen: Vec<Nanos> = answer.chunks[1..21].iter().map(|(_, at)| *at).collect();
    for (n, (written, read)) in (0..).zip(record.writes.iter().zip(&seen)) {
        let due = record.received_at_ns + TTFT + Nanos(ITL.0 * n);
        assert!(*written >= due, "token {n} was written before it existed");
        assert!(written <= read, "token {n} was read before it was written");
        assert!(read.since(*written) < Nanos::from_secs(2));
        assert!(written.since(due) < Nanos::from_secs(2));
    }
    assert!(record.finished_at_ns >= *record.writes.last().unwrap());
}

#[test]
fn every_way_to_end_has_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let server = logged(&path, Faults::default());
    server.completion(r#""prompt":"a","max_tokens":4,"ignore_eos":true"#);
    let endless = chat_body(r#""stream":true,"max_tokens":1000,"ignore_eos":true"#);
    let runs = |n: u32| {
        let want = format!("running{{model_name=\"test/model\"}} {n}");
        eventually("running", || server.get("/metrics").text().contains(&want));
    };
    // Hung up before the server has read it, a request was never made.
    let given_up = server.open("POST", "/v1/chat/completions", "", &endless);
    runs(1);
    drop(given_up);
    eventually("logged", || records(&path).len() == 2);
    runs(0);
    let unfinished = server.open("POST", "/v1/chat/completions", "", &endless);
    runs(1);
    server.stop();
    drop(unfinished);
    let outcomes: Vec<String> = records(&path).into_iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, ["completed", "cancelled", "cancelled"]);
    let whole = &records(&path)[0];
    assert_eq!((whole.tokens, whole.writes.len(), whole.stream), (4, 1, false));
}

#[test]
fn injected_errors_are_logged_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let status = Some(StatusFault { status: 429, share: 1.0 });
    let server = logged(&path, Faults { status, ..Faults::default() });
    let answer = server.chat(r#""stream":true"#);
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("retry-after: 1"));
    server.stop();
    assert_eq!(records(&path)[0].outcome, "injected-status-429");
}

#[test]
fn a_log_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    for _ in 0..2 {
        let server = logged(&path, Faults::default());
        server.chat(r#""max_tokens":1"#);
        server.stop();
    }
    assert_eq!(records(&path).len(), 2);
}
