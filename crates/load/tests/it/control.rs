//! Plans, not answers: who is sent when, over which connections, and how a phase is ended early.

use crate::support::{Bench, Server, clock, median};
use scalebeam_load::{Control, LoadError, PhaseSpec, run_phase};
use scalebeam_model::api::HttpVersion;
use scalebeam_model::arrival::ArrivalKind;
use scalebeam_model::driver::{Balance, LoadShape};
use scalebeam_model::request::{FailureClass, Outcome};
use scalebeam_model::units::Nanos;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[test]
fn a_dead_port_is_a_failure_to_connect_for_every_request() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (records, _) = Bench::new(&format!("http://127.0.0.1:{port}"), "m").closed(2, 6).run();
    assert_eq!(records.len(), 6);
    for r in &records {
        let failure = r.failure.as_ref().unwrap();
        assert_eq!((r.outcome, failure.class), (Outcome::Failed, FailureClass::Connect));
        assert!(failure.detail.starts_with(&format!("127.0.0.1:{port}: ")), "{}", failure.detail);
        assert_eq!((r.sent_at, r.connect), (None, None));
        assert!(r.finished_at >= r.scheduled_at);
    }
}

#[test]
fn a_name_that_does_not_resolve_is_a_failure_to_connect() {
    let r = Bench::new("http://no-such-host.invalid:80", "m").one();
    assert_eq!(r.failure.unwrap().class, FailureClass::Connect);
}

#[test]
fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        tcp.read_to_end(&mut Vec::new())
    });
    let r = Bench::new(&url, "plain").one();
    assert_eq!(r.failure.unwrap().class, FailureClass::Tls);
}

#[test]
fn a_closed_loop_keeps_its_connections() {
    let server = Server::start(&["--ttft-ms=2", "--itl-ms=1"]);
    let (records, report) = Bench::new(&server.url(), "plain").closed(4, 40).run();
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed));
    assert_eq!(records.iter().filter(|r| r.connect.is_some()).count(), 4);
    assert_eq!(report.reconnects, 0);
    assert!(server.truth(40).values().all(|t| t.connections <= 4));
}

#[test]
fn a_burst_is_sent_at_once_and_all_of_it() {
    let server = Server::start(&["--ttft-ms=300", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain");
    bench.plan.shape = LoadShape::Burst;
    bench.plan.requests = Some(500);
    bench.shards = 2;
    bench.max_tokens = 2;
    let (records, _) = bench.run();
    assert_eq!(records.len(), 500);
    for r in &records {
        assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
        assert_eq!(r.scheduled_at, records[0].scheduled_at);
        assert_eq!(u64::from(r.worker), r.index % 2);
    }
    assert!(server.truth(500).values().map(|t| t.connections).max().unwrap() > 250);
}

#[test]
fn long_prompts_do_not_make_a_burst_late() {
    let server = Server::start(&["--ttft-ms=500", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain");
    bench.plan.shape = LoadShape::Burst;
    bench.plan.requests = Some(20);
    bench.prompt_bytes = 1_000_000;
    bench.max_tokens = 1;
    let (records, _) = bench.run();
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed));
    assert!(records.iter().all(|r| r.sent_at.is_some_and(|at| at > r.scheduled_at)));
}

#[test]
fn an_open_loop_is_on_time_whatever_the_server_does() {
    let server = Server::start(&["--ttft-ms=150", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain");
    let arrival = ArrivalKind::Constant;
    bench.plan.shape = LoadShape::open(arrival, 200.0, 1);
    bench.plan.requests = Some(200);
    bench.max_tokens = 2;
    bench.shards = 2;
    let (records, report) = bench.run();
    assert_eq!(records.len(), 200);
    for r in &records {
        assert_eq!(r.outcome, Outcome::Completed);
        assert_eq!(r.scheduled_at.since(report.started_at), Nanos(r.index * 5_000_000));
    }
    let late = median(records.iter().map(|r| r.sent_at.unwrap().millis_after(r.scheduled_at)));
    assert!(late < 1.0, "median lateness {late} ms");
}

#[test]
fn what_is_due_and_never_sent_is_on_record() {
    let server = Server::start(&["--ttft-ms=200", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain");
    let arrival = ArrivalKind::Constant;
    let max_in_flight = Some(2);
    bench.plan.shape = LoadShape::Open { arrival, rate_rps: 100.0.into(), seed: 1, max_in_flight };
    bench.plan.requests = None;
    bench.plan.duration = Some(Nanos::from_millis(500));
    let (records, _) = bench.run();
    assert_eq!(records.len(), 50, "one every 10 ms for 500 ms");
    let dropped: Vec<_> = records.iter().filter(|r| r.outcome == Outcome::Dropped).collect();
    assert!(dropped.len() >= 35, "{} dropped", dropped.len());
    for r in dropped {
        assert_eq!(r.failure.as_ref().unwrap().class, FailureClass::NeverSent);
        assert_eq!((r.class.as_str(), r.sent_at), ("c", None));
    }
}

fn run_and(bench: &Bench, after_ms: u64, act: fn(&Control)) -> Vec<(Outcome, Nanos)> {
    let control = Control::new();
    let other = control.clone();
    let actor = thread::spawn(move || {
        thread::sleep(Duration::from_millis(after_ms));
        act(&other);
    });
    let (records, report) = bench.run_under(&control);
    actor.join().unwrap();
    let progress = control.progress();
    assert_eq!((progress.in_flight, progress.finished), (0, progress.started));
    assert!(control.is_stopped());
    records.into_iter().map(|r| (r.outcome, report.ended_at.since(report.started_at))).collect()
}

#[test]
fn a_stop_lets_what_is_in_flight_end() {
    let server = Server::start(&["--ttft-ms=300", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain").closed(3, 1_000_000);
    bench.plan.requests = None;
    let ended = run_and(&bench, 100, Control::stop);
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|(outcome, _)| *outcome == Outcome::Completed));
}

/// A load that comes to an end by a rule of its own was stopped by nobody.
#[test]
fn an_end_is_a_stop_that_leaves_the_phase_whole() {
    let server = Server::start(&["--ttft-ms=300", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain").closed(3, 1_000_000);
    bench.plan.requests = None;
    let control = Control::new();
    let other = control.clone();
    let actor = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        other.end();
    });
    let (records, _) = bench.run_under(&control);
    actor.join().unwrap();
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed));
    assert!(!control.is_stopped());
    control.stop();
    assert!(control.is_stopped(), "and can still be stopped by somebody");
}

#[test]
fn an_abort_gives_up_what_is_in_flight_at_once() {
    let server = Server::start(&["--ttft-ms=15000"]);
    let bench = Bench::new(&server.url(), "plain").closed(3, 3);
    let ended = run_and(&bench, 100, Control::abort);
    assert_eq!(ended.len(), 3);
    for (outcome, took) in ended {
        assert_eq!(outcome, Outcome::Cancelled);
        assert!(took < Nanos::from_secs(5), "{took}");
    }
}

#[test]
fn a_control_that_is_stopped_already_lets_nothing_be_sent() {
    for act in [Control::stop, Control::abort] {
        let control = Control::new();
        act(&control);
        let bench = Bench::new("http://127.0.0.1:1", "m").closed(2, 10);
        let (records, _) = bench.run_under(&control);
        assert_eq!((records.len(), control.progress().started), (0, 0));
    }
}

#[test]
fn a_prompt_source_that_panics_is_an_error_and_no_hang() {
    let bench = Bench::new("http://127.0.0.1:1", "m").closed(2, 10);
    let prompt = |_| panic!("a defect");
    let spec = PhaseSpec {
        plan: bench.plan.clone(),
        endpoint: Arc::new(bench.endpoint.clone()),
        prompts: &prompt,
        turns: None,
        workload: &bench.workload,
        shards: 2,
        tokenizer: None,
        keep_text: false,
        request_id_prefix: "test".to_owned(),
    };
    let ended = run_phase(&spec, clock(), &Control::new(), &|_| {});
    assert!(matches!(ended, Err(LoadError::Panicked)), "{ended:?}");
}

#[test]
fn requests_are_spread_over_targets() {
    let servers = [Server::start(&["--ttft-ms=5"]), Server::start(&["--ttft-ms=5"])];
    let mut bench = Bench::new(&servers[0].url(), "plain").closed(4, 20);
    let second = scalebeam_load::Target { base_url: servers[1].url() + "/v1" };
    bench.endpoint.targets.push(second);
    bench.plan.targets = 2;
    bench.plan.balance = Balance::RoundRobin;
    let (records, _) = bench.run();
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed));
    assert!(records.iter().all(|r| u64::from(r.target) == r.index % 2));
    assert_eq!((servers[0].truth(10).len(), servers[1].truth(10).len()), (10, 10));
}

#[test]
fn shards_without_work_end_at_once() {
    let server = Server::start(&["--ttft-ms=2", "--itl-ms=1"]);
    let mut bench = Bench::new(&server.url(), "plain").closed(1, 3);
    bench.shards = 4;
    let (records, report) = bench.run();
    assert_eq!((records.len(), report.shards), (3, 4), "one slot carries them all");
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_even_begin_to_connect_fails_on_record_and_waits_for_nobody() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let mut bench = Bench::new("http://127.0.0.1:1", "m").closed(2, 7);
        bench.endpoint.http = http;
        // No address of this machine, so the system refuses before a handshake.
        bench.endpoint.sources = vec!["192.0.2.1".parse().unwrap()];
        let (records, _) = bench.run();
        assert_eq!(records.len(), 7, "{http:?}");
        for r in records {
            assert_eq!(r.failure.unwrap().class, FailureClass::Connect);
        }
    }
}
