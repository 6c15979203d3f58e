//! HTTP/2 against servers that keep its rules, bend them and break them.

use crate::support::{Bench, clock};
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use scalebeam_load::Control;
use scalebeam_model::api::HttpVersion;
use scalebeam_model::request::{FailureClass, Outcome, RequestRecord};
use scalebeam_model::units::Nanos;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &[u8] = b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Frames as a server writes them that has no library: empty settings, their acknowledgement, and a GOAWAY
/// without an error whose last stream is none.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
const LOOKED_AT_NOTHING: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What a server saw.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// Request id, body length, and when the last of it was there.
    requests: Mutex<Vec<(String, usize, Nanos)>>,
    /// When each first token was handed out.
    first: Mutex<Vec<Nanos>>,
    resets: AtomicUsize,
}

type Serve = fn(TcpStream, Arc<Seen>, usize) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// A server of one thread; `serve` gets each connection and its number.
fn start(serve: Serve) -> (String, Arc<Seen>) {
    let (tell, told) = channel();
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let number = theirs.connections.fetch_add(1, Ordering::SeqCst);
                tokio::task::spawn_local(serve(socket, Arc::clone(&theirs), number));
            }
        });
    });
    (format!("http://{}", told.recv().unwrap()), seen)
}

async fn wait(ms: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
}

/// Reads a request to its end, then answers with two tokens, after so many milliseconds each.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
    [first, second]: [u64; 2],
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let mut len = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        len += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let id = parts.headers["x-request-id"].to_str().unwrap().to_owned();
    seen.requests.lock().unwrap().push((id, len, clock().now()));
    let head = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
    let mut out = respond.send_response(head, false)?;
    wait(first).await;
    seen.first.lock().unwrap().push(clock().now());
    out.send_data(Bytes::from_static(TOKEN), false)?;
    let reset = std::future::poll_fn(|cx| out.poll_reset(cx));
    if let Ok(reason) = tokio::time::timeout(Duration::from_millis(second), reset).await {
        assert_eq!(reason.unwrap(), Reason::CANCEL);
        seen.resets.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    out.send_data(Bytes::from([TOKEN, DONE].concat()), true)
}

/// Answers everything on one connection, each on its own.
async fn answer_all(
    mut connection: Connection<TcpStream, Bytes>,
    seen: Arc<Seen>,
    waits: [u64; 2],
) {
    while let Some(Ok((request, respond))) = connection.accept().await {
        let now = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_under_way.fetch_max(now, Ordering::SeqCst);
        let seen = Arc::clone(&seen);
        tokio::task::spawn_local(async move {
            let _ = answer(request, respond, Arc::clone(&seen), waits).await;
            seen.under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn bench(url: &str, concurrency: u32, requests: u64) -> Bench {
    let mut bench = Bench::new(url, "m").closed(concurrency, requests);
    bench.endpoint.http = HttpVersion::Http2;
    bench.workload.force_len = false;
    bench
}

fn all_completed(records: &[RequestRecord], want: usize) {
    assert_eq!(records.len(), want);
    for r in records {
        assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
        assert_eq!(r.chunks(), 2, "{r:?}");
    }
}

fn steady(
    socket: TcpStream,
    seen: Arc<Seen>,
    _: usize,
) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        answer_all(h2::server::handshake(socket).await.unwrap(), seen, [20, 20]).await;
    })
}

#[test]
fn requests_share_connections_and_have_stamps_of_their_own() {
    let (url, seen) = start(steady);
    let (records, report) = bench(&url, 150, 600).run();
    all_completed(&records, 600);
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2, "a hundred requests on each");
    assert_eq!(report.reconnects, 0);
    let mut ids: Vec<_> = seen.requests.lock().unwrap().iter().map(|r| r.0.clone()).collect();
    ids.sort_by_key(|id| id.rsplit('-').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(ids, (0..600).map(|i| format!("test-{i}")).collect::<Vec<_>>());
    let fresh = records.iter().filter(|r| r.connect.is_some()).count();
    assert_eq!(fresh, 150, "those that waited for the two connections");
    // Of every request: sent before the server had it whole, first byte before the first token.
    let arrived: std::collections::HashMap<u64, Nanos> = seen
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|(id, _, at)| (id.rsplit('-').next().unwrap().parse().unwrap(), *at))
        .collect();
    for r in &records {
        let sent = r.sent_at.unwrap();
        assert!(sent >= r.scheduled_at && sent <= arrived[&r.index], "{r:?}");
        assert!(r.first_byte_at.unwrap() >= sent && r.first_token_at >= r.first_byte_at);
        assert!(r.arrivals.len() == 2 && r.finished_at >= r.last_token_at.unwrap());
    }
    let first = records.iter().filter_map(|r| r.first_token_at).min().unwrap();
    assert!(first >= *seen.first.lock().unwrap().iter().min().unwrap());
}

#[test]
fn a_servers_limit_of_streams_is_kept() {
    let (url, seen) = start(|socket, seen, _| {
        Box::pin(async move {
            let made = Builder::new().max_concurrent_streams(3).handshake(socket).await;
            answer_all(made.unwrap(), seen, [10, 10]).await;
        })
    });
    let (records, _) = bench(&url, 3, 9).run();
    all_completed(&records, 9);
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    // More than one connection takes: what waits gets another.
    let (records, _) = bench(&url, 8, 24).run();
    all_completed(&records, 24);
    assert!(seen.most_under_way.load(Ordering::SeqCst) <= 8);
}

#[test]
fn a_long_prompt_waits_for_the_servers_window_and_counts_as_sent_when_it_has_left() {
    let (url, seen) = start(steady);
    let mut bench = bench(&url, 2, 4);
    bench.prompt_bytes = 1 << 20;
    let (records, _) = bench.run();
    all_completed(&records, 4);
    for (id, len, at) in seen.requests.lock().unwrap().iter() {
        assert!(*len > 1 << 20);
        let index: usize = id.rsplit('-').next().unwrap().parse().unwrap();
        let sent = records[index].sent_at.unwrap();
        assert!(sent <= *at && at.since(sent) < Nanos::from_secs(1), "{sent} {at}");
    }
}

#[test]
fn a_server_that_goes_away_is_left_without_a_loss() {
    let (url, seen) = start(|socket, seen, _| {
        Box::pin(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let mut taken = 0;
            while let Some(Ok((request, respond))) = connection.accept().await {
                taken += 1;
                if taken == 5 {
                    connection.graceful_shutdown();
                }
                tokio::task::spawn_local(answer(request, respond, Arc::clone(&seen), [5, 5]));
            }
        })
    });
    let (records, _) = bench(&url, 4, 60).run();
    all_completed(&records, 60);
    let connections = seen.connections.load(Ordering::SeqCst);
    assert!(connections > 3, "{connections}");
}

#[test]
fn what_a_leaving_server_did_not_look_at_is_sent_once_more_and_says_so() {
    // The first connection takes one request, and says of all others that it never saw them.
    let (url, _) = start(|mut socket, seen, number| {
        Box::pin(async move {
            if number > 0 {
                return steady(socket, seen, number).await;
            }
            let mut came = vec![0; 64 << 10];
            let _ = socket.read(&mut came).await.unwrap();
            // Settings, their acknowledgement, and once requests are here: last stream 0, no error.
            socket.write_all(SETTINGS).await.unwrap();
            socket.write_all(SETTINGS_ACK).await.unwrap();
            let _ = socket.read(&mut came).await.unwrap();
            wait(20).await;
            socket.write_all(LOOKED_AT_NOTHING).await.unwrap();
            wait(1_000).await;
        })
    });
    let (records, report) = bench(&url, 3, 3).run();
    all_completed(&records, 3);
    assert!(records.iter().all(|r| r.resent), "{records:?}");
    assert_eq!(report.reconnects, 3);
}

#[test]
fn a_server_that_goes_away_and_hangs_up_in_one_breath_loses_nothing_either() {
    // One slot: what ends is the last that the connection carried.
    for concurrency in [1, 5] {
        // Of the first: settings, then nothing was looked at, then the end.
        let (url, seen) = start(|mut socket, seen, number| {
            Box::pin(async move {
                if number > 0 {
                    return steady(socket, seen, number).await;
                }
                let mut came = vec![0; 64 << 10];
                let _ = socket.read(&mut came).await.unwrap();
                socket.write_all(SETTINGS).await.unwrap();
                let _ = socket.read(&mut came).await.unwrap();
                wait(30).await;
                let _ = socket.write_all(LOOKED_AT_NOTHING).await;
            })
        });
        let (records, _) = bench(&url, concurrency, 40).run();
        all_completed(&records, 40);
        assert_eq!(records.iter().filter(|r| r.resent).count(), concurrency as usize);
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_connection_that_breaks_is_a_failure_of_what_it_carried() {
    let (url, _) = start(|socket, seen, number| {
        Box::pin(async move {
            if number > 0 {
                return steady(socket, seen, number).await;
            }
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let head = Response::builder().header("content-type", "text/event-stream");
            let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
            out.send_data(Bytes::from_static(TOKEN), false).unwrap();
            let _second = connection.accept().await.unwrap().unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
        })
    });
    let (records, _) = bench(&url, 2, 6).run();
    assert_eq!(records.len(), 6);
    let lost: Vec<_> = records.iter().filter(|r| r.outcome != Outcome::Completed).collect();
    let of = |outcome| lost.iter().filter(|r| r.outcome == outcome).count();
    assert_eq!((of(Outcome::Truncated), of(Outcome::Failed)), (1, 1), "{lost:?}");
    let reset = lost.iter().find(|r| r.outcome == Outcome::Failed).unwrap();
    assert_eq!(reset.failure.as_ref().unwrap().class, FailureClass::Reset);
}

#[test]
fn a_refused_stream_fails_alone() {
    let (url, _) = start(|socket, seen, _| {
        Box::pin(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let mut n = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                n += 1;
                if n % 3 == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    tokio::task::spawn_local(answer(request, respond, Arc::clone(&seen), [5, 5]));
                }
            }
        })
    });
    let (records, _) = bench(&url, 4, 30).run();
    let lost: Vec<_> = records.iter().filter(|r| r.outcome != Outcome::Completed).collect();
    assert_eq!((records.len(), lost.len()), (30, 10));
    for r in lost {
        let failure = r.failure.as_ref().unwrap();
        assert_eq!(failure.class, FailureClass::Reset);
        assert!(failure.detail.contains("refused"), "{failure:?}");
    }
}

#[test]
fn a_time_out_gives_up_one_stream_and_tells_the_server() {
    let (url, seen) = start(|socket, seen, _| {
        Box::pin(async move {
            answer_all(h2::server::handshake(socket).await.unwrap(), seen, [20, 30_000]).await;
        })
    });
    let mut bench = bench(&url, 3, 3);
    bench.plan.timeout = Nanos::from_millis(1_500);
    let (records, _) = bench.run();
    assert_eq!(records.len(), 3);
    for r in &records {
        assert_eq!(r.outcome, Outcome::TimedOut, "{r:?}");
        assert_eq!(r.chunks(), 1, "the first token came");
    }
    for _ in 0..200 {
        if seen.resets.load(Ordering::SeqCst) == 3 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the server was not told");
}

#[test]
fn an_error_answer_keeps_its_status_and_words() {
    let (url, _) = start(|socket, _, _| {
        Box::pin(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = Response::builder().status(429).body(()).unwrap();
                let mut out = respond.send_response(head, false).unwrap();
                out.send_data(Bytes::from_static(b"{\"error\":{\"message\":\"slow down\"}}"), true)
                    .unwrap();
            }
        })
    });
    let r = bench(&url, 1, 1).one();
    let failure = r.failure.unwrap();
    assert_eq!((r.outcome, failure.status), (Outcome::Rejected, Some(429)));
    assert!(failure.detail.contains("slow down"), "{failure:?}");
}

#[test]
fn a_server_of_http1_is_named_as_such() {
    let (url, _) = start(|mut socket, _, _| {
        Box::pin(async move {
            let mut came = vec![0; 4_096];
            let _ = socket.read(&mut came).await;
            let _ =
                socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        })
    });
    for r in bench(&url, 2, 4).run().0 {
        let failure = r.failure.unwrap();
        assert_eq!(failure.class, FailureClass::MalformedStream);
        assert!(failure.detail.contains("speaks HTTP/1.1 and not HTTP/2"), "{failure:?}");
    }
}

#[test]
fn a_server_that_never_greets_or_is_not_there_costs_nobody_more_than_the_time_out() {
    let (url, _) = start(|socket, _, _| {
        Box::pin(async move {
            wait(60_000).await;
            drop(socket);
        })
    });
    let mut bench = bench(&url, 2, 2);
    bench.plan.timeout = Nanos::from_millis(200);
    for r in bench.run().0 {
        assert_eq!((r.outcome, r.sent_at), (Outcome::TimedOut, None));
    }
    bench.endpoint.targets[0].base_url = "http://127.0.0.1:1".to_owned();
    for r in bench.run().0 {
        assert_eq!(r.failure.unwrap().class, FailureClass::Connect);
    }
}

#[test]
fn a_stop_and_an_abort_leave_one_record_each() {
    let (url, _) = start(|socket, seen, _| {
        Box::pin(async move {
            answer_all(h2::server::handshake(socket).await.unwrap(), seen, [5_000, 0]).await;
        })
    });
    let control = Control::new();
    let theirs = control.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(150));
        theirs.abort();
    });
    let mut bench = bench(&url, 5, 50);
    bench.shards = 2;
    let (records, _) = bench.run_under(&control);
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|r| r.outcome == Outcome::Cancelled), "{records:?}");
}
