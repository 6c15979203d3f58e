//! Every way a server answers, and the outcome and numbers that must come of it.

use crate::support::{Bench, Server, clock};
use scalebeam_load::{Target, Tokenizer, probe};
use scalebeam_model::driver::{Balance, LoadShape};
use scalebeam_model::request::{FailureClass, Outcome, RequestRecord, TokenSource};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, Sizing};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

fn server() -> Server {
    Server::start(&[
        "--ttft-ms=5",
        "--itl-ms=2",
        "--stall-ms=200",
        "--slow-head-ms=100",
        "--idle-close-ms=10",
    ])
}

fn class(record: &RequestRecord) -> Option<FailureClass> {
    record.failure.as_ref().map(|f| f.class)
}

fn detail(record: &RequestRecord) -> &str {
    record.failure.as_ref().map_or("", |f| f.detail.as_str())
}

#[test]
fn every_honest_stream_is_completed_with_the_servers_numbers() {
    let server = server();
    for (model, chunks, source) in [
        ("plain", 8, TokenSource::Usage),
        ("role-first", 8, TokenSource::Usage),
        ("k-tokens", 2, TokenSource::Usage),
        ("no-usage", 8, TokenSource::Chunks),
        ("crlf", 8, TokenSource::Usage),
        ("cr-split", 8, TokenSource::Usage),
        ("byte-split", 8, TokenSource::Usage),
        ("utf8-cut", 8, TokenSource::Usage),
        ("no-space", 8, TokenSource::Usage),
        ("comments", 8, TokenSource::Usage),
        ("no-done", 8, TokenSource::Usage),
        ("stall", 8, TokenSource::Usage),
        ("reasoning", 8, TokenSource::Usage),
        ("tool", 8, TokenSource::Usage),
        ("slow-head", 8, TokenSource::Usage),
        ("multi-line", 8, TokenSource::Usage),
        ("usage-every-chunk", 8, TokenSource::Usage),
        ("huge", 8, TokenSource::Usage),
        ("content-length", 8, TokenSource::Usage),
        ("keepalive-close", 8, TokenSource::Usage),
    ] {
        let r = Bench::new(&server.url(), model).one();
        assert_eq!(r.outcome, Outcome::Completed, "{model}: {:?}", r.failure);
        assert_eq!((r.output_tokens, r.token_source), (Some(8), Some(source)), "{model}");
        assert_eq!(r.chunks(), chunks, "{model}");
        assert_eq!(r.unparsed_events, 0, "{model}");
        let order = [
            Some(r.scheduled_at),
            r.sent_at,
            r.first_byte_at,
            r.first_token_at,
            r.last_token_at,
            Some(r.finished_at),
        ];
        let order: Vec<Nanos> = order.into_iter().map(Option::unwrap).collect();
        assert!(order.is_sorted(), "{model}: {order:?}");
        assert!(r.connect.is_some(), "{model}");
        assert_eq!((r.asked_output_tokens, r.forced_length), (8, true), "{model}");
        let reason = if model == "tool" { "tool_calls" } else { "length" };
        assert_eq!(r.finish_reason.as_deref(), Some(reason), "{model}");
    }
}

#[test]
fn a_role_is_no_token_and_a_stall_is_one_gap() {
    let server = Server::start(&["--ttft-ms=80", "--itl-ms=5", "--stall-ms=200"]);
    let r = Bench::new(&server.url(), "role-first").one();
    assert!(r.first_token_at.unwrap().since(r.sent_at.unwrap()) >= Nanos::from_millis(70));
    assert!(r.first_byte_at.unwrap().since(r.sent_at.unwrap()) < Nanos::from_millis(70));
    let r = Bench::new(&server.url(), "stall").one();
    let gaps: Vec<Nanos> = r.arrivals.windows(2).map(|w| w[1].at.since(w[0].at)).collect();
    assert_eq!(gaps.iter().filter(|g| **g >= Nanos::from_millis(100)).count(), 1, "{gaps:?}");
}

#[test]
fn every_failure_has_its_class() {
    use FailureClass as C;
    use Outcome as O;
    let server = server();
    for (model, outcome, failure, chunks) in [
        ("reset", O::Failed, C::Reset, 3),
        ("cut", O::Truncated, C::Truncated, 3),
        ("429", O::Rejected, C::HttpStatus, 0),
        ("500", O::Failed, C::HttpStatus, 0),
        ("500-html", O::Failed, C::HttpStatus, 0),
        ("error-event", O::Failed, C::ServerError, 3),
        ("empty", O::Failed, C::EmptyOutput, 0),
        ("redirect", O::Failed, C::HttpStatus, 0),
        ("no such model", O::Failed, C::HttpStatus, 0),
    ] {
        let r = Bench::new(&server.url(), model).one();
        assert_eq!((r.outcome, class(&r)), (outcome, Some(failure)), "{model}: {:?}", r.failure);
        assert_eq!(r.chunks(), chunks, "{model}");
        let status = r.failure.as_ref().and_then(|f| f.status);
        let want = match model {
            "429" => Some(429),
            "500" | "500-html" => Some(500),
            "redirect" => Some(307),
            "no such model" => Some(404),
            _ => None,
        };
        assert_eq!(status, want, "{model}");
        assert!(detail(&r).contains(&format!("127.0.0.1:{}", server.port)), "{model}");
        assert!(r.sent_at.is_some(), "{model}");
    }
    let r = Bench::new(&server.url(), "error-event").one();
    assert!(detail(&r).ends_with("the engine died"), "{}", detail(&r));
    let r = Bench::new(&server.url(), "429").one();
    assert!(detail(&r).ends_with("Too many requests"), "{}", detail(&r));
}

#[test]
fn a_malformed_event_is_counted_and_does_not_fail_an_answer_that_finishes() {
    let server = server();
    let r = Bench::new(&server.url(), "bad-json").one();
    assert_eq!((r.outcome, r.unparsed_events, r.chunks()), (Outcome::Completed, 1, 8));
}

#[test]
fn a_stream_that_never_goes_on_is_timed_out_with_what_it_had() {
    let server = server();
    let mut bench = Bench::new(&server.url(), "stall-forever");
    bench.plan.timeout = Nanos::from_millis(300);
    let r = bench.one();
    assert_eq!((r.outcome, class(&r)), (Outcome::TimedOut, Some(FailureClass::Timeout)));
    assert_eq!((r.chunks(), r.output_tokens), (3, Some(3)));
    assert!(r.sent_at.is_some() && r.finished_at.since(r.scheduled_at) >= bench.plan.timeout);
}

#[test]
fn an_answer_without_a_stream_is_counted_and_has_no_first_token() {
    let server = server();
    let mut bench = Bench::new(&server.url(), "plain");
    bench.workload.stream = false;
    bench.keep_text = true;
    let (records, report) = bench.run();
    let r = &records[0];
    assert_eq!((r.outcome, r.output_tokens), (Outcome::Completed, Some(8)));
    assert_eq!((r.first_token_at, r.arrivals.len()), (None, 0));
    assert_eq!(report.texts[0].text, " w0 w1 w2 w3 w4 w5 w6 w7");
}

#[test]
fn without_usage_the_tokenizer_counts_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let vocab: serde_json::Map<_, _> =
        (0..8).map(|i| (format!("w{i}"), serde_json::Value::from(i))).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let server = server();
    let mut bench = Bench::new(&server.url(), "no-usage");
    bench.tokenizer = Some(Arc::new(Tokenizer::load(dir.path()).unwrap()));
    let r = bench.one();
    assert_eq!((r.output_tokens, r.token_source), (Some(8), Some(TokenSource::Tokenizer)));
    assert_eq!(r.chunks(), 8);
    bench.endpoint.model = "plain".to_owned();
    assert_eq!(bench.one().token_source, Some(TokenSource::Usage));
}

#[test]
fn completions_and_texts_are_read() {
    let server = server();
    let mut bench = Bench::new(&server.url(), "utf8-cut");
    bench.endpoint.api = Api::Completions;
    bench.keep_text = true;
    let (records, report) = bench.run();
    assert_eq!((records[0].outcome, records[0].chunks()), (Outcome::Completed, 8));
    assert!(report.texts[0].text.starts_with(" \u{e9}0 \u{65e5}1 \u{1f642}2 "));
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_replaced_once_and_on_record() {
    let server = Server::start(&["--ttft-ms=1", "--itl-ms=1", "--idle-close-ms=0"]);
    let (records, _) = Bench::new(&server.url(), "keepalive-close").closed(1, 40).run();
    assert_eq!(records.len(), 40);
    for r in &records {
        assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
    }
}

#[test]
fn a_kept_connection_that_dies_under_the_request_is_replaced_once() {
    // Answers one request a connection, then closes it when the next one has come.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |mut tcp: std::net::TcpStream| {
        let mut buf = [0; 4_096];
        let _ = tcp.read(&mut buf);
        let body = "{\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}";
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = tcp.write_all((head + body).as_bytes());
        let _ = tcp.read(&mut buf);
    };
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    let (records, report) = Bench::new(&url, "m").closed(1, 3).run();
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed), "{records:?}");
    assert!(records.iter().all(|r| r.connect.is_some()));
    // It is on record, and a server that does so once gets no kept connection again.
    assert_eq!((report.reconnects, records.iter().filter(|r| r.resent).count()), (1, 1));
}

#[test]
fn a_kept_connection_that_dies_after_the_server_had_the_request_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&served);
    let answer = move |mut tcp: std::net::TcpStream| {
        let mut buf = [0; 4_096];
        let mut requests = 0;
        while tcp.read(&mut buf).is_ok_and(|n| n > 0) {
            requests += 1;
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if requests == 2 {
                // At work on it for a while, then gone.
                thread::sleep(std::time::Duration::from_millis(200));
                return;
            }
            let body = "{\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}";
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = tcp.write_all((head + body).as_bytes());
        }
    };
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    let (records, report) = Bench::new(&url, "m").closed(1, 4).run();
    let failed: Vec<_> = records.iter().filter(|r| r.outcome == Outcome::Failed).collect();
    assert_eq!((failed.len(), report.reconnects), (2, 0), "{records:?}");
    assert!(failed.iter().all(|r| r.failure.as_ref().unwrap().class == FailureClass::Reset));
    assert_eq!(served.load(std::sync::atomic::Ordering::SeqCst), 4, "nothing was sent twice");
}

#[test]
fn what_is_no_http_and_what_closes_at_once_are_failures_of_their_own() {
    for (reply, want) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..], FailureClass::MalformedStream),
        (b"", FailureClass::Reset),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<p>", FailureClass::MalformedStream),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            FailureClass::MalformedStream,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: ",
            FailureClass::Truncated,
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let _ = tcp.read(&mut [0; 4_096]);
            let _ = tcp.write_all(reply);
        });
        let r = Bench::new(&url, "m").one();
        assert_eq!(class(&r), Some(want), "{:?}", r.failure);
        server.join().unwrap();
    }
}

#[test]
fn a_done_without_an_end_of_the_body_is_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4_096]);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let events = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
        let _ = tcp.write_all((head.to_owned() + events).as_bytes());
        let _ = tcp.read(&mut [0; 1]);
    });
    let r = Bench::new(&url, "m").one();
    assert_eq!(r.outcome, Outcome::Completed);
    assert!(r.finished_at.since(r.last_token_at.unwrap()) < Nanos::from_millis(500));
}

#[test]
fn a_server_is_asked_for_what_it_is_before_a_run() {
    let server = server();
    let get = |path: &str| {
        let second = Nanos::from_secs(5);
        probe::get(&clock(), &server.url(), path, &[], None, second).unwrap()
    };
    let (status, body) = get("/v1/models");
    assert_eq!(status, 200);
    assert!(String::from_utf8(body).unwrap().contains("role-first"));
    assert_eq!(get("/nothing").0, 404);
    let gone = probe::get(&clock(), "http://127.0.0.1:1", "/", &[], None, Nanos::from_secs(5));
    assert!(gone.unwrap_err().to_string().contains("127.0.0.1:1"));
}

#[test]
fn words_are_sized_by_the_servers_own_count() {
    let server = server();
    let mut bench = Bench::new(&server.url(), "plain");
    let words = probe::measure_words(&clock(), &bench.endpoint, &bench.workload).unwrap();
    assert_eq!(words.sizing, Sizing::ServerUsage);
    assert!((words.tokens_per_word - 1.0).abs() < 1e-9, "the truth server counts words");
    bench.endpoint.model = "no-usage".to_owned();
    let words = probe::measure_words(&clock(), &bench.endpoint, &bench.workload).unwrap();
    assert_eq!(words.sizing, Sizing::Guess);
    bench.endpoint.targets[0].base_url = "http://127.0.0.1:1".to_owned();
    assert!(probe::measure_words(&clock(), &bench.endpoint, &bench.workload).is_err());
}

/// A server of our own that serves one connection after the other.
fn serve(mut each: impl FnMut(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().for_each(&mut each));
    url
}

#[test]
fn a_server_that_never_stops_sending_is_timed_out_and_others_are_served() {
    // Endless heartbeats, as fast as they are taken; endless interim answers.
    for (head, more) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"[..], &b": ping\n\n"[..]),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        let url = serve(move |mut tcp| {
            thread::spawn(move || {
                let _ = tcp.read(&mut [0; 4_096]);
                let flood = more.repeat(8_192);
                let _ = tcp.write_all(head);
                while tcp.write_all(&flood).is_ok() {}
            });
        });
        let mut bench = Bench::new(&url, "m").closed(2, 2);
        bench.plan.timeout = Nanos::from_millis(300);
        let (records, _) = bench.run();
        let classes: Vec<_> = records.iter().map(class).collect();
        let want =
            if head.is_empty() { FailureClass::MalformedStream } else { FailureClass::Timeout };
        assert_eq!(classes, [Some(want); 2]);
    }
}

#[test]
fn a_connection_whose_request_was_not_taken_whole_carries_no_other() {
    // Answers before it has read the request, and keeps the connection open.
    let (seen, count) = (std::sync::Arc::new(std::sync::Mutex::new(Vec::new())), 4);
    let log = std::sync::Arc::clone(&seen);
    let url = serve(move |mut tcp| {
        let log = std::sync::Arc::clone(&log);
        thread::spawn(move || {
            let mut first = [0; 64];
            let len = tcp.read(&mut first).unwrap_or(0);
            log.lock().unwrap().push(first[..len.min(5)].to_vec());
            let _ = tcp.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
            thread::sleep(std::time::Duration::from_millis(100));
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest);
        });
    });
    let mut bench = Bench::new(&url, "m").closed(1, count);
    bench.prompt_bytes = 30_000_000;
    let (records, _) = bench.run();
    assert!(records.iter().all(|r| class(r) == Some(FailureClass::HttpStatus)), "{records:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, vec![b"POST ".to_vec(); 4], "each on a connection of its own");
}

#[test]
fn a_target_that_takes_no_connections_holds_up_nobody_else() {
    // Its queue is full and nobody takes from it, so that handshakes with it never end.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&dead, 0).unwrap();
    let at = dead.local_addr().unwrap();
    let _full: Vec<_> = (0..4)
        .filter_map(|_| {
            std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_millis(50)).ok()
        })
        .collect();
    let server = server();
    let mut bench = Bench::new(&server.url(), "plain");
    bench.endpoint.targets.push(Target { base_url: format!("http://{at}") });
    bench.plan.targets = 2;
    bench.plan.balance = Balance::RoundRobin;
    bench.plan.shape = LoadShape::Burst;
    bench.plan.requests = Some(700);
    bench.plan.timeout = Nanos::from_secs(4);
    bench.max_tokens = 2;
    let (records, _) = bench.run();
    for r in &records {
        match r.target {
            0 => assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure),
            _ => assert_eq!(r.outcome, Outcome::TimedOut, "{:?}", r.failure),
        }
    }
    let lost = records.iter().find(|r| r.target == 1 && r.sent_at.is_none()).unwrap();
    assert!(detail(lost).contains("before there was a connection"), "{}", detail(lost));
}

#[test]
fn an_answer_of_nothing_is_an_empty_one() {
    for reply in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n\r\n",
    ] {
        let url = serve(move |mut tcp| {
            let _ = tcp.read(&mut [0; 4_096]);
            let _ = tcp.write_all(reply);
        });
        let r = Bench::new(&url, "m").one();
        assert_eq!(class(&r), Some(FailureClass::EmptyOutput), "{:?}", r.failure);
    }
}

#[test]
fn a_body_of_blanks_is_no_stream() {
    let url = serve(move |mut tcp| {
        let _ = tcp.read(&mut [0; 4_096]);
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n");
        let _ = tcp.write_all(&vec![b' '; 20_000_000]);
    });
    let r = Bench::new(&url, "m").one();
    assert_eq!(class(&r), Some(FailureClass::EmptyOutput), "{:?}", r.failure);
}
