//! What a token and a request cost the load client, beside a reader that does nothing but read.
//!
//! `cargo run --release -p scalebeam-load --example cost [STREAMS] [TOKENS] [REQUESTS] [ITL_US]`
//!
//! A server in a thread of its own writes one chunk a token, each in its own TCP write; CPU time is that
//! of the client's threads alone. `ITL_US` 0 is as fast as possible, where reads merge and flatter all.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for a person to read")]

use scalebeam_load::{Control, Endpoint, PhaseSpec, run_phase};
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, Prompt, Source, Workload};
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug)]
struct Monotonic;

fn read(clock: rustix::time::ClockId) -> Nanos {
    let t = rustix::time::clock_gettime(clock);
    Nanos(u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap())
}

impl Clock for Monotonic {
    fn now(&self) -> Nanos {
        read(rustix::time::ClockId::Monotonic)
    }

    fn unix_now(&self) -> Nanos {
        read(rustix::time::ClockId::Realtime)
    }
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    streams: u32,
    tokens: u32,
    requests: u64,
    itl_us: u64,
}

fn local<T>(work: impl Future<Output = T>) -> T {
    let set = tokio::task::LocalSet::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    set.block_on(&runtime, work)
}

/// Starts the server and returns where it listens.
fn serve(shape: Shape) -> SocketAddr {
    let (tell, told) = channel();
    thread::spawn(move || {
        local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                tokio::task::spawn_local(answer_all(tcp, shape));
            }
        });
    });
    told.recv().unwrap()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes()
}

async fn answer_all(mut tcp: TcpStream, shape: Shape) {
    let token = chunk(
        "{\"id\":\"chatcmpl-8a3f2c1d9b7e4f60a1b2c3d4e5f60718\",\"object\":\"chat.completion.chunk\",\
         \"created\":1763700000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\
         \"logprobs\":null,\"finish_reason\":null}]}",
    );
    let mut end = chunk("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}");
    end.extend(chunk("[DONE]"));
    end.extend(b"0\r\n\r\n");
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut buf = vec![0; 16_384];
    // The requests of this measurement fit into one segment.
    while let Ok(1..) = tcp.read(&mut buf).await {
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut tick =
            (shape.itl_us > 0).then(|| tokio::time::interval(Duration::from_micros(shape.itl_us)));
        for _ in 0..shape.tokens {
            if let Some(tick) = &mut tick {
                tick.tick().await;
            }
            if tcp.write_all(&token).await.is_err() {
                return;
            }
        }
        tcp.write_all(&end).await.unwrap();
    }
}

fn workload() -> Workload {
    Workload {
        name: "w".to_owned(),
        api: Api::Chat,
        stream: true,
        temperature: None,
        system: None,
        force_len: true,
        body: serde_json::Map::new(),
        seed: 1,
        source: Source::Mix { parts: Vec::new() },
    }
}

/// CPU of the load threads, and the wall time.
fn ours(at: SocketAddr, shape: Shape) -> (Nanos, Nanos) {
    let prompt = |_| Prompt {
        class: String::new(),
        texts: vec!["x".repeat(512)],
        asked_input_tokens: None,
        max_tokens: shape.tokens,
    };
    let workload = workload();
    let spec = PhaseSpec {
        plan: PhasePlan {
            phase: Phase::Measure,
            shape: LoadShape::Closed { concurrency: shape.streams },
            requests: Some(shape.requests),
            duration: None,
            timeout: Nanos::from_secs(100),
            targets: 1,
            balance: Balance::None,
        },
        endpoint: Arc::new(Endpoint::new(format!("http://{at}"), Api::Chat, "m")),
        prompts: &prompt,
        workload: &workload,
        shards: 1,
        tokenizer: None,
        keep_text: false,
        request_id_prefix: "cost".to_owned(),
    };
    let records: Mutex<Vec<RequestRecord>> = Mutex::default();
    let sink = |r| records.lock().unwrap().push(r);
    let report = run_phase(&spec, Arc::new(Monotonic), &Control::new(), &sink).unwrap();
    let records = records.into_inner().unwrap();
    assert!(records.iter().all(|r| r.is_completed() && r.chunks() == shape.tokens));
    let arrivals: usize = records.iter().map(|r| r.arrivals.len()).sum();
    println!("  tokens an arrival: {:.2}", tokens(shape) / arrivals as f64);
    (report.client_cpu.unwrap(), report.ended_at.since(report.started_at))
}

/// The same requests by a reader that looks for the last bytes of an answer and no more.
fn raw(at: SocketAddr, shape: Shape) -> (Nanos, Nanos) {
    let reader = move || {
        let began = Monotonic.now();
        local(async move {
            let each = shape.requests / u64::from(shape.streams);
            let streams = (0..shape.streams).map(|_| tokio::task::spawn_local(read_all(at, each)));
            for stream in streams.collect::<Vec<_>>() {
                stream.await.unwrap();
            }
        });
        (read(rustix::time::ClockId::ThreadCPUTime), Monotonic.now().since(began))
    };
    thread::spawn(reader).join().unwrap()
}

async fn read_all(at: SocketAddr, requests: u64) {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let body = "x".repeat(600);
    let request = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 600\r\n\r\n{body}");
    let mut buf = vec![0; 65_536];
    for _ in 0..requests {
        tcp.write_all(request.as_bytes()).await.unwrap();
        loop {
            let n = tcp.read(&mut buf).await.unwrap();
            std::hint::black_box(Monotonic.now());
            if buf[..n].ends_with(b"\r\n0\r\n\r\n") {
                break;
            }
        }
    }
}

fn tokens(shape: Shape) -> f64 {
    shape.requests as f64 * f64::from(shape.tokens)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap());
    let mut next = |default| args.next().unwrap_or(default);
    let shape = Shape {
        streams: u32::try_from(next(64)).unwrap(),
        tokens: u32::try_from(next(128)).unwrap(),
        requests: next(2_048),
        itl_us: next(0),
    };
    let at = serve(shape);
    for round in 0..3 {
        for (name, run) in [("ours", ours as fn(_, _) -> _), ("raw", raw)] {
            let (cpu, wall) = run(at, shape);
            let us = cpu.0 as f64 / 1e3;
            let (token, request) = (us / tokens(shape), us / shape.requests as f64);
            let rate = tokens(shape) / wall.as_secs_f64();
            println!(
                "{round} {name}: {token:.2} us/token {request:.0} us/request {rate:.0} tokens/s"
            );
        }
    }
}
