//! A server on a free port, and a raw client.

use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use scalebeam_sim::config::{EmulatedConfig, Timing};
use scalebeam_sim::serve::{Faults, ServeConfig, ServeError, Server};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longer than any test may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nanoseconds since it was made (plus one second, so that nothing is at zero).
#[derive(Debug)]
pub(crate) struct WallClock(Instant);

impl WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is given"
    )]
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now(&self) -> Nanos {
        Nanos::from_secs(1) + Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }

    fn unix_now(&self) -> Nanos {
        Nanos::from_secs(1_800_000_000)
    }
}

/// A server in a thread of its own, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<WallClock>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// Fixed timing: fast enough for tests, slow enough to see an order.
pub(crate) fn fixed(ttft_ms: u64, itl_ms: u64, slots: Option<u64>) -> EmulatedConfig {
    let (ttft, itl) = (Nanos::from_millis(ttft_ms), Nanos::from_millis(itl_ms));
    EmulatedConfig {
        model: "test/model".to_owned(),
        timing: Timing::Fixed { ttft, itl, slots },
        max_model_len: 2_000,
        ..EmulatedConfig::default()
    }
}

/// A quick server with these faults.
pub(crate) fn faulty(faults: Faults) -> Running {
    Running::start(ServeConfig { engine: fixed(5, 1, None), faults, ..ServeConfig::default() })
}

impl Running {
    pub(crate) fn start(config: ServeConfig) -> Self {
        let clock = Arc::new(WallClock::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config, shared)?;
                tell.send(server.local_addr()).unwrap();
                server.run(async { drop(stopped.await) }).await
            })
        });
        let address = told.recv().expect("the server starts");
        Self { address, clock, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops the server and waits for its last line.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    /// Sends a request and leaves the answer to be read.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }

    /// Sends a request and reads to the end of the connection.
    pub(crate) fn exchange(&self, method: &str, path: &str, body: &str) -> Answer {
        self.read(self.open(method, path, "", body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.exchange("GET", path, "")
    }

    pub(crate) fn chat(&self, fields: &str) -> Answer {
        self.exchange("POST", "/v1/chat/completions", &chat_body(fields))
    }

    pub(crate) fn completion(&self, fields: &str) -> Answer {
        self.exchange("POST", "/v1/completions", &format!("{{{fields}}}"))
    }

    /// Reads to the end of the connection, however it ends.
    pub(crate) fn read(&self, mut stream: TcpStream) -> Answer {
        let mut raw = Vec::new();
        let mut reads = Vec::new();
        let mut buffer = [0_u8; 65_536];
        let reset = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => {
                    reads.push((raw.len() + n, self.clock.now()));
                    raw.extend_from_slice(&buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("{error}"),
            }
        };
        Answer::parse(raw, reads, reset)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

pub(crate) fn chat_body(fields: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"weigh this for me"}}],{fields}}}"#)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body without chunk framing.
    pub(crate) body: Vec<u8>,
    /// The HTTP chunks of the body, each with the instant at which its last byte was read.
    pub(crate) chunks: Vec<(Vec<u8>, Nanos)>,
    /// The body ended as HTTP wants it.
    pub(crate) whole: bool,
    /// The connection was reset.
    pub(crate) reset: bool,
}

impl Answer {
    fn parse(raw: Vec<u8>, reads: Vec<(usize, Nanos)>, reset: bool) -> Self {
        let split = raw.windows(4).position(|w| w == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
        let head = String::from_utf8(raw[..split].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut answer = Self {
            status,
            body: raw[split..].to_vec(),
            chunks: Vec::new(),
            whole: !reset,
            reset,
            head,
        };
        if answer.head.contains("transfer-encoding: chunked") {
            answer.unchunk(&raw, split, &reads);
        }
        answer
    }

    fn unchunk(&mut self, raw: &[u8], mut at: usize, reads: &[(usize, Nanos)]) {
        self.whole = false;
        self.body.clear();
        while let Some(end) = raw[at..].windows(2).position(|w| w == b"\r\n") {
            let size = std::str::from_utf8(&raw[at..at + end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let start = at + end + 2;
            if size == 0 {
                self.whole = raw.len() >= start + 2;
                return;
            }
            let Some(data) = raw.get(start..start + size) else { return };
            let read_at = reads.iter().find(|(total, _)| *total >= start + size).unwrap().1;
            self.chunks.push((data.to_vec(), read_at));
            self.body.extend_from_slice(data);
            at = (start + size + 2).min(raw.len());
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The payloads of all events, `[DONE]` included.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let lines = self.text().lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|payload| payload.trim().to_owned()).collect()
    }

    /// The payloads that are JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let payloads = self.payloads();
        let json = payloads.iter().filter(|payload| payload.as_str() != "[DONE]");
        json.map(|payload| serde_json::from_str(payload).unwrap()).collect()
    }

    pub(crate) fn done(&self) -> bool {
        self.payloads().last().is_some_and(|payload| payload == "[DONE]")
    }

    /// The texts of `choice`, one a chunk, from whichever field of a delta holds them; empty ones left out.
    pub(crate) fn pieces(&self, choice: u64, field: &str) -> Vec<String> {
        let events = self.events();
        let choices = events
            .iter()
            .flat_map(|event| event["choices"].as_array().cloned().unwrap_or_default());
        let own = choices.filter(|c| c["index"] == choice);
        let texts = own.filter_map(|c| c.pointer(field).and_then(Value::as_str).map(str::to_owned));
        texts.filter(|text| !text.is_empty()).collect()
    }

    pub(crate) fn contents(&self) -> Vec<String> {
        self.pieces(0, "/delta/content")
    }

    /// The last finish reason of `choice`.
    pub(crate) fn finish(&self, choice: u64) -> Option<String> {
        self.pieces(choice, "/finish_reason").pop()
    }
}

/// Waits until `ready` is true.
pub(crate) fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if ready() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}
