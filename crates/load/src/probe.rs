//! Small questions to a server before a run: is it there, and how long is a word to it?
//!
//! **Invariant:** a probe is never part of a measurement; its requests carry ids of their own.

use crate::control::Control;
use crate::http::conn::Connection;
use crate::http::target::{Address, Endpoint, add_headers};
use crate::http::tls;
use crate::phase::{PhaseSpec, run_phase};
use crate::stream::End;
use crate::{LoadError, Target};
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Request, Uri};
use http_body_util::Full;
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Prompt, Sizing, Words, Workload, derive_seed};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
    let address = Address::resolve(url, path)?;
    let mut map = HeaderMap::new();
    add_headers(&mut map, headers)?;
    let tls = if address.is_tls { Some(tls::client_config(ca_file)?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let fail = |why: String| LoadError::Probe { url: url.to_owned(), path: path.to_owned(), why };
    let asked = runtime.map_err(LoadError::Runtime)?.block_on(async {
        let asked = ask(&address, tls.as_ref(), clock, address.with_host(&map));
        tokio::time::timeout(timeout.to_std(), asked).await
    });
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(end)) => Err(fail(words_of(end))),
        Err(_) => Err(fail(format!("no answer within {timeout}"))),
    }
}

async fn ask(
    address: &Address,
    tls: Option<&Arc<rustls::ClientConfig>>,
    clock: &Arc<dyn Clock>,
    headers: HeaderMap,
) -> Result<(u16, Vec<u8>), End> {
    let mut connection = Connection::open(address, tls, clock).await?;
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = Uri::from(address.path.clone());
    *request.headers_mut() = headers;
    let (head, mut body) = connection.send(request).await?.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = connection.next_frame(&mut body).await {
        text.extend_from_slice(&frame?.into_data().unwrap_or_default());
        if text.len() > BODY_LIMIT {
            return Err(End::Malformed(format!("the body is longer than {BODY_LIMIT} bytes")));
        }
    }
    Ok((head.status.as_u16(), text))
}

fn words_of(end: End) -> String {
    match end {
        End::Cut(text)
        | End::Reset(text)
        | End::Malformed(text)
        | End::Connect(text)
        | End::Tls(text) => text,
        End::Whole | End::Cancelled(_) => "no answer".to_owned(),
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
    let prompt = |index: u64| probe_prompt(&common, index);
    let first = endpoint.targets.first().cloned();
    let mut spec = PhaseSpec {
        plan: probe_plan(),
        endpoint: Arc::new(Endpoint {
            targets: first.into_iter().collect::<Vec<Target>>(),
            ..endpoint.clone()
        }),
        prompts: &prompt,
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
            path: endpoint.api.path().to_owned(),
            why: failure.detail,
        }),
        None => Ok(Words::common(GUESSED_TOKENS_PER_WORD, Sizing::Guess)),
    }
}

fn probe_plan() -> PhasePlan {
    PhasePlan {
        phase: Phase::Warmup,
        shape: LoadShape::Closed { concurrency: 1 },
        requests: Some(PROBE_WORDS.len() as u64),
        duration: None,
        timeout: TIMEOUT,
        targets: 1,
        balance: Balance::None,
    }
}

/// The prompt with the `index`th number of words: the common ones in a fixed mixed order, so that
/// both prompts hold the same kind of word.
fn probe_prompt(common: &Words, index: u64) -> Prompt {
    let count = PROBE_WORDS[usize::from(index > 0)];
    let pick = |i: u32| {
        let place = derive_seed(&[u64::from(i)]) % common.words.len().max(1) as u64;
        usize::try_from(place).ok().and_then(|at| common.words.get(at)).map_or("", String::as_str)
    };
    Prompt {
        class: "probe".to_owned(),
        texts: vec![(0..count).map(pick).collect::<Vec<_>>().join(" ")],
        asked_input_tokens: None,
        max_tokens: 1,
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
