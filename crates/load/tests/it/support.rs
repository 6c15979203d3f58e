//! A clock, a truth server in a child process, and a phase in one call.

use scalebeam_load::{Control, Endpoint, PhaseReport, PhaseSpec, Turns, run_phase};
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan, Turn};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, CachePolicy, Prompt, Source, TurnContent, Workload};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// `CLOCK_MONOTONIC`, which the truth server reads too.
#[derive(Debug)]
pub(crate) struct MonotonicClock;

fn read(clock: rustix::time::ClockId) -> Nanos {
    let t = rustix::time::clock_gettime(clock);
    Nanos(u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap())
}

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        read(rustix::time::ClockId::Monotonic)
    }

    fn unix_now(&self) -> Nanos {
        read(rustix::time::ClockId::Realtime)
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(MonotonicClock)
}

/// What the truth server wrote about one request.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) received: Nanos,
    pub(crate) writes: Vec<Nanos>,
    pub(crate) tokens: u64,
    pub(crate) connections: u64,
}

/// The truth server; it dies with this.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("truth.jsonl");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests-support/truth_server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--exit-with-stdin", "--log"])
            .arg(&log)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").unwrap().parse().unwrap();
        Self { child, port, log, _dir: dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The lines of its log, of `requests`, by their index.
    pub(crate) fn log(&self, requests: usize) -> HashMap<u64, serde_json::Value> {
        self.truth(requests);
        let log = std::fs::read_to_string(&self.log).unwrap();
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            (parse_truth(line).0, value)
        };
        log.lines().map(line).collect()
    }

    /// Its log of `requests` by their index. It writes a line after the answer has gone out, so the
    /// client may be here first.
    pub(crate) fn truth(&self, requests: usize) -> HashMap<u64, Truth> {
        for _ in 0..500 {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.ends_with('\n') && log.lines().count() >= requests {
                return log.lines().map(parse_truth).collect();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the truth server logged fewer than {requests} requests");
    }
}

fn parse_truth(line: &str) -> (u64, Truth) {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let index = value["id"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
    let list = |key: &str| -> Vec<u64> {
        value[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
    };
    let truth = Truth {
        received: Nanos(value["received_ns"].as_u64().unwrap()),
        writes: list("write_ns").into_iter().map(Nanos).collect(),
        tokens: list("write_tokens").iter().sum(),
        connections: value["connections"].as_u64().unwrap(),
    };
    (index, truth)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A phase that is run with [`Bench::run`]; tests change what they care about.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) endpoint: Endpoint,
    pub(crate) plan: PhasePlan,
    pub(crate) workload: Workload,
    pub(crate) max_tokens: u32,
    pub(crate) prompt_bytes: usize,
    pub(crate) prompts: usize,
    pub(crate) shards: u16,
    pub(crate) keep_text: bool,
    /// What turns of sessions say.
    pub(crate) turns: Option<fn(Turn) -> TurnContent>,
    pub(crate) tokenizer: Option<Arc<scalebeam_load::Tokenizer>>,
}

impl Bench {
    /// One request of 8 forced tokens.
    pub(crate) fn new(url: &str, model: &str) -> Self {
        Self {
            endpoint: Endpoint::new(url, Api::Chat, model),
            plan: PhasePlan {
                phase: Phase::Measure,
                shape: LoadShape::closed(1),
                requests: Some(1),
                duration: None,
                timeout: Nanos::from_secs(20),
                targets: 1,
                balance: Balance::LeastInflight,
                cancel: None,
                max_prefill: None,
                sessions: None,
            },
            workload: Workload {
                name: "w".to_owned(),
                api: Api::Chat,
                stream: true,
                temperature: None,
                system: None,
                force_len: true,
                body: serde_json::Map::new(),
                seed: 1,
                cache: CachePolicy::default(),
                source: Source::Mix { parts: Vec::new() },
            },
            max_tokens: 8,
            prompt_bytes: 5,
            prompts: 1,
            shards: 1,
            keep_text: false,
            turns: None,
            tokenizer: None,
        }
    }

    /// The same of another family. The model is also in the body, for those that have no field for it.
    pub(crate) fn of(mut self, api: Api) -> Self {
        self.endpoint.api = api;
        self.workload.api = api;
        self.workload.stream = api.generates();
        if matches!(api, Api::Tgi | Api::Sglang) {
            let model = self.endpoint.model.clone();
            self.workload.body.insert("model".to_owned(), model.into());
        }
        self
    }

    /// `concurrency` slots, `requests` in all.
    pub(crate) fn closed(mut self, concurrency: u32, requests: u64) -> Self {
        self.plan.shape = LoadShape::closed(concurrency);
        self.plan.requests = Some(requests);
        self
    }

    pub(crate) fn run(&self) -> (Vec<RequestRecord>, PhaseReport) {
        self.run_under(&Control::new())
    }

    /// The records by index, and the report.
    pub(crate) fn run_under(&self, control: &Control) -> (Vec<RequestRecord>, PhaseReport) {
        let prompt = |index: u64| Prompt {
            class: "c".to_owned(),
            texts: vec![format!("{index} {}", "x".repeat(self.prompt_bytes)); self.prompts],
            asked_input_tokens: None,
            max_tokens: self.max_tokens,
        };
        let spec = PhaseSpec {
            plan: self.plan.clone(),
            endpoint: Arc::new(self.endpoint.clone()),
            prompts: &prompt,
            turns: self.turns.as_ref().map(|turns| turns as &Turns<'_>),
            workload: &self.workload,
            shards: self.shards,
            tokenizer: self.tokenizer.clone(),
            keep_text: self.keep_text,
            request_id_prefix: "test".to_owned(),
        };
        let records = Mutex::new(Vec::new());
        let report =
            run_phase(&spec, clock(), control, &|r| records.lock().unwrap().push(r)).unwrap();
        let mut records = records.into_inner().unwrap();
        records.sort_by_key(|r: &RequestRecord| r.index);
        let indices: Vec<u64> = records.iter().map(|r| r.index).collect();
        assert!(indices.windows(2).all(|w| w[0] < w[1]), "one record a request: {indices:?}");
        (records, report)
    }

    /// The record of a single request.
    pub(crate) fn one(&self) -> RequestRecord {
        let (mut records, _) = self.run();
        assert_eq!(records.len(), 1);
        records.remove(0)
    }
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
