//! Small questions to a server before a run: is it there, and how long is a word to it?
//!
//! **Invariant:** a probe is never part of a measurement; its requests carry ids of their own.

use crate::control::Control;
use crate::http::body::{BadFraming, Body, Progress};
use crate::http::head::{self, Framing, Parsed};
use crate::http::target::{Address, Endpoint, add_headers};
use crate::http::tls;
use crate::phase::{PhaseSpec, run_phase};
use crate::{LoadError, Target};
use http::header::HeaderMap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use scalebeam_model::api::HttpVersion;
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, Prompt, Sizing, Words, Workload, derive_seed};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most of a body that a probe reads.
const BODY_LIMIT: usize = 16 << 20;

/// Words of the two probe prompts. The difference of their token counts holds no template.
const PROBE_WORDS: [u32; 2] = [40, 200];

/// Tokens of an English word, where nobody tells: the rule of thumb of 0.75 words a token.
const GUESSED_TOKENS_PER_WORD: f64 = 1.0 / 0.75;

const TIMEOUT: Nanos = Nanos::from_secs(60);

/// Asks for `path` below `url` and returns the status and the body. Redirects are not followed.
///
/// # Errors
/// When the URL is malformed, no connection can be had, or no whole answer came within `timeout`.
pub fn get(
    clock: &Arc<dyn Clock>,
    url: &str,
    path: &str,
    headers: &[(String, String)],
    ca_file: Option<&Path>,
    timeout: Nanos,
) -> Result<(u16, Vec<u8>), LoadError> {
    let mut map = HeaderMap::new();
    add_headers(&mut map, headers)?;
    request(("GET", path), clock, url, &map, ca_file, timeout)
}

/// Posts nothing to `path` at every target of `endpoint`.
///
/// # Errors
/// Names the first target that did not answer 200 within a minute, and what it answered.
pub fn post_to_all(clock: &Arc<dyn Clock>, endpoint: &Endpoint, path: &str) -> Result<(), String> {
    let headers = endpoint.header_map().map_err(|e| e.to_string())?;
    let ca_file = endpoint.ca_file.as_deref();
    for Target { base_url } in &endpoint.targets {
        // Such a path is the engine's own, beside those of the API.
        let base = base_url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        match request(("POST", path), clock, base, &headers, ca_file, TIMEOUT) {
            Ok((200, _)) => {}
            Ok((status, body)) => {
                let said = crate::stream::shorten(&crate::api::error_text(&body));
                let said = if said.is_empty() { said } else { format!(": {said}") };
                return Err(format!("{base}{path} answered {status}{said}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn request(
    (method, path): (&str, &str),
    clock: &Arc<dyn Clock>,
    url: &str,
    headers: &HeaderMap,
    ca_file: Option<&Path>,
    timeout: Nanos,
) -> Result<(u16, Vec<u8>), LoadError> {
    let address = Address::resolve(url, path)?;
    let tls =
        if address.is_tls { Some(tls::client_config(ca_file, HttpVersion::Http1)?) } else { None };
    let deadline = Deadline { clock, at: clock.now() + timeout };
    ask(method, &address, tls, &address.with_host(headers), &deadline).map_err(|e| {
        let is_late = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let why = if is_late { format!("no answer within {timeout}") } else { e.to_string() };
        LoadError::Probe { url: url.to_owned(), path: path.to_owned(), why }
    })
}

/// When a probe is given up.
struct Deadline<'a> {
    clock: &'a Arc<dyn Clock>,
    at: Nanos,
}

impl Deadline<'_> {
    /// The time that is left, which is some.
    fn left(&self) -> io::Result<Duration> {
        let left = self.at.since(self.clock.now());
        if left == Nanos::ZERO { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.to_std()) }
    }
}

fn ask(
    method: &str,
    address: &Address,
    tls: Option<Arc<ClientConfig>>,
    headers: &HeaderMap,
    deadline: &Deadline<'_>,
) -> io::Result<(u16, Vec<u8>)> {
    let socket = dial(address, deadline)?;
    let request = write_request(method, address, headers);
    let Some(config) = tls else { return converse(&socket, &socket, &request, deadline) };
    let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    converse(StreamOwned::new(session, &socket), &socket, &request, deadline)
}

fn dial(address: &Address, deadline: &Deadline<'_>) -> io::Result<TcpStream> {
    let sockets = address.sockets.as_ref().map_err(|e| io::Error::other(e.clone()))?;
    let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for socket in sockets {
        match TcpStream::connect_timeout(socket, deadline.left()?) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => why = e,
        }
    }
    Err(why)
}

fn write_request(method: &str, address: &Address, headers: &HeaderMap) -> Vec<u8> {
    let mut text = format!("{method} {} HTTP/1.1\r\n", address.path).into_bytes();
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    text.extend_from_slice(format!("{length}connection: close\r\n\r\n").as_bytes());
    text
}

/// Sends `request` over `stream`, whose time-outs are set on `socket`, and reads the answer.
fn converse(
    mut stream: impl Read + Write,
    socket: &TcpStream,
    request: &[u8],
    deadline: &Deadline<'_>,
) -> io::Result<(u16, Vec<u8>)> {
    socket.set_write_timeout(Some(deadline.left()?))?;
    socket.set_read_timeout(Some(deadline.left()?))?;
    stream.write_all(request)?;
    stream.flush()?;
    let mut reply = Reply::default();
    let mut buffer = [0; 16 << 10];
    loop {
        socket.set_read_timeout(Some(deadline.left()?))?;
        let len = match stream.read(&mut buffer) {
            // Many servers end TLS without a word; whether the answer is whole is HTTP's to say.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if let Some(whole) = reply.feed(&buffer[..len])? {
            return Ok(whole);
        }
    }
}

/// An answer that is being read.
#[derive(Default)]
struct Reply {
    head: Vec<u8>,
    body: Option<(u16, Body)>,
    text: Vec<u8>,
}

impl Reply {
    /// Takes in bytes, none of which means the end; gives the answer once it is whole.
    fn feed(&mut self, bytes: &[u8]) -> io::Result<Option<(u16, Vec<u8>)>> {
        let cut = || io::Error::other("the server closed the connection");
        let mut rest = bytes.to_vec();
        if self.body.is_none() {
            if bytes.is_empty() {
                return Err(cut());
            }
            self.head.extend_from_slice(bytes);
            let Some((status, framing, len)) = self.parse_head()? else { return Ok(None) };
            self.body = Some((status, Body::new(framing)));
            rest = self.head.split_off(len);
        }
        let Some((status, body)) = &mut self.body else { return Ok(None) };
        let is_over = match (&*body, bytes.is_empty()) {
            (Body::UntilClose, true) | (Body::Length(0), _) => true,
            (_, true) => return Err(cut()),
            (_, false) => false,
        };
        let text = &mut self.text;
        let fed = body.feed::<BadFraming>(&rest, |data| {
            text.extend_from_slice(data);
            Ok(())
        });
        let progress = fed.map_err(io::Error::other)?;
        if text.len() > BODY_LIMIT {
            let why = format!("the body is longer than {BODY_LIMIT} bytes");
            return Err(io::Error::other(why));
        }
        let is_over = is_over || matches!(progress, Progress::Ended(_));
        Ok(is_over.then(|| (*status, std::mem::take(text))))
    }

    fn parse_head(&mut self) -> io::Result<Option<(u16, Framing, usize)>> {
        loop {
            match head::parse(&self.head).map_err(io::Error::other)? {
                Parsed::Partial => return Ok(None),
                Parsed::Interim(len) => drop(self.head.drain(..len)),
                Parsed::Whole(head, len) => return Ok(Some((head.status, head.framing, len))),
            }
        }
    }
}

/// Words for synthetic prompts, sized by what the server itself counts: two short prompts of different
/// length are sent, and the difference of their `usage.prompt_tokens` is divided by that of their
/// words. A server that reports no usage gets words by a rule of thumb, marked as a guess.
///
/// # Errors
/// When the endpoint is malformed or nothing completes: then a run would fail as well.
pub fn measure_words(
    clock: &Arc<dyn Clock>,
    endpoint: &Endpoint,
    workload: &Workload,
) -> Result<Words, LoadError> {
    let common = Words::common(1.0, Sizing::Guess);
    // OpenAI's responses take no lower limit than this one.
    let max_tokens = if endpoint.api == Api::Responses { 16 } else { 1 };
    let prompt = |index: u64| probe_prompt(&common, index, max_tokens);
    let first = endpoint.targets.first().cloned();
    let mut spec = PhaseSpec {
        plan: probe_plan(),
        endpoint: Arc::new(Endpoint {
            targets: first.into_iter().collect::<Vec<Target>>(),
            ..endpoint.clone()
        }),
        prompts: &prompt,
        turns: None,
        workload,
        shards: 1,
        tokenizer: None,
        keep_text: false,
        request_id_prefix: "probe".to_owned(),
    };
    spec.plan.targets = 1;
    let records = Mutex::new(Vec::new());
    run_phase(&spec, Arc::clone(clock), &Control::new(), &|record| {
        records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    })?;
    let mut records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
    records.sort_by_key(|r| r.index);
    if let Some(tokens_per_word) = fit(&records) {
        return Ok(Words::common(tokens_per_word, Sizing::ServerUsage));
    }
    match records.into_iter().find_map(|r| if r.first_byte_at.is_some() { None } else { r.failure })
    {
        Some(failure) => Err(LoadError::Probe {
            url: endpoint.targets.first().map(|t| t.base_url.clone()).unwrap_or_default(),
            path: endpoint.api.path(workload.stream).to_owned(),
            why: failure.detail,
        }),
        None => Ok(Words::common(GUESSED_TOKENS_PER_WORD, Sizing::Guess)),
    }
}

fn probe_plan() -> PhasePlan {
    PhasePlan {
        phase: Phase::Warmup,
        shape: LoadShape::closed(1),
        requests: Some(PROBE_WORDS.len() as u64),
        duration: None,
        timeout: TIMEOUT,
        targets: 1,
        balance: Balance::None,
        cancel: None,
        max_prefill: None,
        sessions: None,
    }
}

/// The prompt with the `index`th number of words: the common ones in a fixed mixed order, so that
/// both prompts hold the same kind of word.
fn probe_prompt(common: &Words, index: u64, max_tokens: u32) -> Prompt {
    let count = PROBE_WORDS[usize::from(index > 0)];
    let pick = |i: u32| {
        let place = derive_seed(&[u64::from(i)]) % common.words.len().max(1) as u64;
        usize::try_from(place).ok().and_then(|at| common.words.get(at)).map_or("", String::as_str)
    };
    Prompt {
        class: "probe".to_owned(),
        texts: vec![(0..count).map(pick).collect::<Vec<_>>().join(" ")],
        asked_input_tokens: None,
        max_tokens,
    }
}

fn fit(records: &[RequestRecord]) -> Option<f64> {
    let [short, long] = records else { return None };
    let tokens = f64::from(long.prompt_tokens?) - f64::from(short.prompt_tokens?);
    let words = f64::from(PROBE_WORDS[1]) - f64::from(PROBE_WORDS[0]);
    let per_word = tokens / words;
    // A count that does not grow with the prompt is no count of it.
    (0.2..10.0).contains(&per_word).then_some(per_word)
}
