//! Server, raw reader and load client against each other: counts and order, never a duration.

use super::*;
use crate::clock::WallClock;
use crate::selftest::errors::{Errors, bytes_to_tokens, compare};
use crate::selftest::ours::{self, OursSpec};
use crate::selftest::raw::{RawSpec, read_all};
use crate::selftest::trace::decode;
use scalebeam_model::driver::LoadShape;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;

fn spec(tokens: u32) -> ServerSpec {
    ServerSpec {
        tokens,
        ttft: Nanos::from_millis(3),
        ttft_spread: 0.5,
        itl: Nanos::from_millis(1),
        itl_jitter: 0.5,
        early_role: false,
        stall: None,
        tls: false,
        seed: 1,
    }
}

/// Serves in a thread for as long as `client` takes.
fn beside<T>(spec: &ServerSpec, client: impl FnOnce(SocketAddr) -> T) -> (Vec<Trace>, T) {
    let listener = listen().unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = std::io::pipe().map(|(r, w)| (w, r)).unwrap();
    let spec = spec.clone();
    let serve = move || serve(listener, spec, WallClock::shared().as_ref(), stopped.as_fd());
    let server = std::thread::spawn(serve);
    let out = client(at);
    drop(stop);
    let served = server.join().unwrap().unwrap();
    // What goes to another process is what there was.
    assert_eq!(decode(&served.encode()).as_ref(), Some(&served.traces));
    (served.traces, out)
}

fn raw(
    spec: &ServerSpec,
    streams: u32,
    requests: u64,
    every: Option<Nanos>,
) -> (Vec<Trace>, Errors) {
    let read = |at| read_all(&RawSpec { at, streams, requests, every }, &WallClock).unwrap();
    let (truth, read) = beside(spec, read);
    let mut seen = decode(&read.log).unwrap();
    bytes_to_tokens(&mut seen, &Answer::new(spec.tokens, spec.early_role));
    let errors = compare(&truth, &seen, requests);
    (truth, errors)
}

fn ours(spec: &ServerSpec, streams: u32, requests: u64) -> (Vec<Trace>, Errors) {
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(wire::CA).unwrap();
    let run = |at| {
        let shape = LoadShape::closed(streams);
        let mut log = Vec::new();
        let ca_file = spec.tls.then(|| ca.path().to_owned());
        let spec = OursSpec { at, shape, requests, tokens: spec.tokens, ca_file };
        ours::run(&spec, &WallClock::shared(), &mut log).unwrap();
        decode(&log).unwrap()
    };
    let (truth, seen) = beside(spec, run);
    let errors = compare(&truth, &seen, requests);
    (truth, errors)
}

#[track_caller]
fn agree(truth: &[Trace], errors: &Errors, requests: u64, tokens: u64) {
    assert_eq!((errors.lost, errors.miscounted), (0, 0), "{errors:?}");
    assert_eq!(errors.tokens, requests * tokens);
    let mut indices: Vec<u64> = truth.iter().map(|t| t.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..requests).collect::<Vec<_>>(), "each request came once");
    for trace in truth {
        assert!(trace.marks.is_sorted_by_key(|m| m.at));
        assert!(trace.sent_at.unwrap() <= trace.marks[0].at);
        assert!(trace.marks.last().unwrap().at <= trace.ended_at);
    }
    // A token cannot arrive before it was written; the gaps add up to what lies between.
    assert!(errors.read_lag.unwrap().p50_ms > 0.0, "{errors:?}");
}

#[test]
fn the_raw_reader_and_the_server_agree() {
    for tokens in [1, 2, 20] {
        let (truth, errors) = raw(&spec(tokens), 8, 40, None);
        agree(&truth, &errors, 40, u64::from(tokens));
    }
}

/// An answer of so many tokens at once is more than a socket takes, and than TLS keeps for it.
#[test]
fn the_load_client_and_the_server_agree_through_tls() {
    let flat = ServerSpec { ttft: Nanos::ZERO, itl: Nanos::ZERO, ..spec(20_000) };
    for (spec, requests) in [(spec(20), 40), (flat, 4)] {
        let (truth, errors) = ours(&ServerSpec { tls: true, ..spec.clone() }, 8, requests);
        agree(&truth, &errors, requests, u64::from(spec.tokens));
    }
}

#[test]
fn the_load_client_and_the_server_agree() {
    for (tokens, early_role) in [(1, false), (20, false), (20, true)] {
        let (truth, errors) = ours(&ServerSpec { early_role, ..spec(tokens) }, 8, 40);
        agree(&truth, &errors, 40, u64::from(tokens));
    }
}

/// More than a socket's buffers hold, so that writes are taken in part.
#[test]
fn flat_out_loses_nothing() {
    let flat = ServerSpec { ttft: Nanos::ZERO, itl: Nanos::ZERO, ..spec(20_000) };
    let (truth, errors) = raw(&flat, 2, 4, None);
    agree(&truth, &errors, 4, 20_000);
    let (truth, errors) = ours(&flat, 2, 4);
    agree(&truth, &errors, 4, 20_000);
}

#[test]
fn an_open_loop_sends_all_and_a_stall_is_in_the_latency() {
    let lasts = Nanos::from_millis(300);
    let stall = Some(Stall { after: Nanos::from_millis(50), lasts });
    let stalled = ServerSpec { stall, ..spec(4) };
    let (truth, errors) = raw(&stalled, 2, 100, Some(Nanos::from_millis(2)));
    agree(&truth, &errors, 100, 4);
    // Somebody was due just after it began.
    let worst = errors.e2e_due_true.unwrap().max_ms;
    assert!(worst >= 200.0, "{errors:?}");
    assert!(errors.e2e_due_seen.unwrap().max_ms >= 200.0, "{errors:?}");
}

#[test]
fn nothing_is_due_before_its_time_and_the_order_holds() {
    let spec = ServerSpec { itl_jitter: 0.99, ..spec(50) };
    for index in 0..50 {
        let due: Vec<Nanos> = (0..50).map(|k| spec.offset(index, k)).collect();
        assert!(due.is_sorted());
        assert!(due[0] >= Nanos(1_500_000) && due[0] <= Nanos(4_500_000 + 1_000_000), "{due:?}");
    }
    assert_ne!(spec.offset(1, 0), spec.offset(2, 0), "streams are not in lockstep");
    assert_eq!(spec.offset(1, 7), spec.offset(1, 7));
}

#[test]
fn a_client_that_is_no_client_of_ours_is_let_go() {
    use std::io::Read;
    let (truth, ()) = beside(&spec(2), |at| {
        let mut tcp = std::net::TcpStream::connect(at).unwrap();
        tcp.write_all(b"PUT / HTTP/1.1\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let _ = tcp.read_to_end(&mut all);
        assert!(all.is_empty());
        // And one that goes away in the middle of its answer.
        let mut tcp = std::net::TcpStream::connect(at).unwrap();
        let request = "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        tcp.write_all(request.as_bytes()).unwrap();
        let mut some = [0; 10];
        tcp.read_exact(&mut some).unwrap();
    });
    assert_eq!(truth.len(), 1);
}

/// Other clients ask before they begin; what they ask is no part of the truth.
#[test]
fn what_is_asked_beside_streams_is_answered_on_the_same_connection() {
    use std::io::Read;
    let (truth, said) = beside(&spec(2), |at| {
        let mut tcp = std::net::TcpStream::connect(at).unwrap();
        let ask = "GET /health HTTP/1.1\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n\
            POST /tokenize HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}\
            POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        tcp.write_all(ask.as_bytes()).unwrap();
        let mut said = Vec::new();
        let mut some = [0; 1000];
        while !said.ends_with(b"\r\n0\r\n\r\n") {
            let n = tcp.read(&mut some).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&some[..n]);
        }
        String::from_utf8(said).unwrap()
    });
    let statuses: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|head| &head[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404", "200"]);
    assert!(said.contains("\"id\":\"selftest\""));
    assert_eq!((truth.len(), truth[0].marks.len()), (1, 2));
}
