//! The load client, as a campaign runs it, in a process of its own.

use super::trace::{MarkLog, of_record};
use super::usage::CpuWatch;
use crate::campaign::shards;
use crate::exit::Failure;
use scalebeam_load::{Control, Endpoint, PhaseReport, PhaseSpec, run_phase};
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, Prompt, Source, Workload};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OursSpec {
    /// Where to.
    pub(crate) at: SocketAddr,
    /// Closed or open.
    pub(crate) shape: LoadShape,
    /// Requests in all.
    pub(crate) requests: u64,
    /// Tokens of each answer.
    pub(crate) tokens: u32,
    /// Through TLS, with a server for which this file vouches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// What a run of the client cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OursCost {
    /// CPU time of the whole process from the start of the phase until the last record was handed over.
    pub(crate) cpu: Nanos,
    /// Of that, the load threads' alone; preparation before the start is in it.
    pub(crate) load_cpu: Option<Nanos>,
    /// From start to end of the phase.
    pub(crate) wall: Nanos,
}

/// A request is given up after this long: longer than any answer here takes.
const TIMEOUT: Nanos = Nanos::from_secs(60);

/// Runs one phase. Records go to `out` as they come, so that memory is the client's and not the log's.
pub(crate) fn run(
    spec: &OursSpec,
    clock: &Arc<dyn Clock>,
    out: &mut (impl Write + Send),
) -> Result<OursCost, Failure> {
    let watch = CpuWatch::start(Arc::clone(clock))
        .map_err(|e| Failure::internal(format!("cannot start a thread: {e}")))?;
    let log = Mutex::new((MarkLog::default(), Vec::new(), out, Ok(())));
    let is_first = AtomicBool::new(true);
    let sink = |record: RequestRecord| {
        // The start lies behind; from here on looking would only be a cost.
        if is_first.swap(false, Ordering::Relaxed) {
            watch.enough();
        }
        let mut guard = log.lock().unwrap_or_else(PoisonError::into_inner);
        let (marks, bytes, out, written) = &mut *guard;
        bytes.clear();
        of_record(&record, marks, bytes);
        if written.is_ok() {
            *written = out.write_all(bytes);
        }
    };
    let report = phase(spec, clock, &sink)?;
    let cost = OursCost {
        cpu: watch.spent_since(report.started_at),
        load_cpu: report.client_cpu,
        wall: report.ended_at.since(report.started_at),
    };
    let (.., written) = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    written.map_err(|e| Failure::internal(format!("cannot hand over the records: {e}")))?;
    Ok(cost)
}

fn phase(
    spec: &OursSpec,
    clock: &Arc<dyn Clock>,
    sink: &(dyn Fn(RequestRecord) + Sync),
) -> Result<PhaseReport, Failure> {
    let plan = PhasePlan {
        phase: Phase::Measure,
        shape: spec.shape.clone(),
        requests: Some(spec.requests),
        duration: None,
        timeout: TIMEOUT,
        targets: 1,
        balance: Balance::None,
        cancel: None,
        max_prefill: None,
        sessions: None,
    };
    let prompts = |_| Prompt {
        class: String::new(),
        texts: vec![super::prompt()],
        asked_input_tokens: None,
        max_tokens: spec.tokens,
    };
    let workload = Workload {
        name: "selftest".to_owned(),
        api: Api::Chat,
        stream: true,
        temperature: None,
        system: None,
        force_len: true,
        body: serde_json::Map::new(),
        seed: 0,
        cache: scalebeam_model::workload::CachePolicy::Keep,
        source: Source::Mix { parts: Vec::new() },
    };
    let scheme = if spec.ca_file.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::new(format!("{scheme}://{}", spec.at), Api::Chat, "selftest");
    endpoint.ca_file.clone_from(&spec.ca_file);
    let spec = PhaseSpec {
        shards: shards(&plan),
        plan,
        endpoint: Arc::new(endpoint),
        prompts: &prompts,
        turns: None,
        workload: &workload,
        tokenizer: None,
        keep_text: false,
        request_id_prefix: "selftest".to_owned(),
    };
    Ok(run_phase(&spec, Arc::clone(clock), &Control::new(), sink)?)
}
