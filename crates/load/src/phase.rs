//! One phase from plan to records: threads up, clock started, records out, threads down.
//!
//! **Invariants:** everything that can fail for want of a thread, a runtime or a valid URL fails before
//! the first request is due; every request of the plan reaches the sink exactly once; the sink and the
//! tokenizer run on the calling thread, so neither can delay a send or a stamp.

use crate::LoadError;
use crate::api;
use crate::control::{Control, Level};
use crate::desk::{CloseDesk, Desk};
use crate::exchange::Setup;
use crate::gate::Gate;
use crate::http::receive::Keeper;
use crate::http::source::Sources;
use crate::http::target::{Address, Endpoint};
use crate::http::tls;
use crate::reactor::Reactor;
use crate::stock::{CloseOnDrop, Recipe, Stock, Turns};
use crate::stream::Finished;
use crate::tokenizer::Tokenizer;
use crate::wall::{Post, Report, ShardEnd, run_shard};
use mio::Registry;
use scalebeam_model::clock::Clock;
use scalebeam_model::driver::{Itinerary, LoadShape, PhasePlan, Shard, Turn};
use scalebeam_model::request::{Failure, FailureClass, Outcome, RequestRecord, TokenSource};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{History, Prompt, Source, Workload};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

/// Between two looks for records that are ready to be written: what `kill -9` may cost.
const COLLECT_EVERY: Duration = Duration::from_millis(100);
/// Between two looks whether the phase is over.
const GLANCE_EVERY: Duration = Duration::from_millis(5);

/// One phase of one point, ready to run.
#[derive(Clone)]
pub struct PhaseSpec<'a> {
    /// What to send when.
    pub plan: PhasePlan,
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// The content of request `index`. Called ahead of time and from several threads, so it must
    /// depend on nothing but the index.
    pub prompts: &'a (dyn Fn(u64) -> Prompt + Sync),
    /// What each turn says, where requests are turns of sessions; `prompts` is not asked then. Called ahead
    /// of time and from several threads as well.
    pub turns: Option<&'a Turns<'a>>,
    /// How requests are written.
    pub workload: &'a Workload,
    /// Load threads.
    pub shards: u16,
    /// Counts the answers for which the server reports no usage.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Return the answers' texts.
    pub keep_text: bool,
    /// Each request carries `x-request-id: PREFIX-INDEX`, so that a server's log can be joined.
    pub request_id_prefix: String,
}

impl fmt::Debug for PhaseSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhaseSpec")
            .field("plan", &self.plan)
            .field("endpoint", &self.endpoint)
            .field("shards", &self.shards)
            .field("request_id_prefix", &self.request_id_prefix)
            .finish_non_exhaustive()
    }
}

/// An answer's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerText {
    /// The request's position in the phase.
    pub index: u64,
    /// Which of its prompts is answered; 0 except in batch mode.
    pub choice: u32,
    /// Reasoning, content and tool calls, in the order in which they came.
    pub text: String,
}

/// What a phase was, records apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseReport {
    /// The instant from which due times count.
    pub started_at: Nanos,
    /// When the last shard was done.
    pub ended_at: Nanos,
    /// Load threads that ran.
    pub shards: u16,
    /// CPU time of the load threads, where the system tells.
    pub client_cpu: Option<Nanos>,
    /// CPU time of the one of them that had the most, its preparation before the start left out.
    pub busiest_cpu: Option<Nanos>,
    /// Requests that were sent again on a fresh connection, because the kept one turned out to be
    /// closed before one byte of an answer had come.
    pub reconnects: u64,
    /// Prompt tokens that the server took from a cache, where it says so.
    pub cached_prompt_tokens: Option<u64>,
    /// The texts, where [`PhaseSpec::keep_text`] asks for them; ordered by index and choice.
    pub texts: Vec<AnswerText>,
}

/// Runs one phase to its end and hands every record to `sink`, in the order in which requests ended
/// (those that wait for the tokenizer come last). Blocks; `control` stops it from another thread.
///
/// # Errors
/// Before the first request is due: when the endpoint is malformed, or a thread or its means to wait
/// cannot be had. A request that fails is no error but a record.
pub fn run_phase(
    spec: &PhaseSpec<'_>,
    clock: Arc<dyn Clock>,
    control: &Control,
    sink: &(dyn Fn(RequestRecord) + Sync),
) -> Result<PhaseReport, LoadError> {
    let shards = spec.shards.max(1);
    let setup = Setup::new(spec, &clock)?;
    let engines = engines(shards, &clock)?;
    let _stamps = Keeper::new();
    let recipe = Recipe {
        prompts: spec.prompts,
        turns: spec.turns,
        workload: spec.workload,
        api: spec.endpoint.api,
        model: &spec.endpoint.model,
    };
    let stocks: Vec<Stock<'_>> = (0..shards)
        .map(|index| {
            let shard = Shard { index, count: shards };
            Stock::new(
                &recipe,
                shard,
                begun_by_themselves(&spec.plan),
                at_once(&spec.plan.shape, shards),
            )
        })
        .collect();
    let desk = |engine: &Engine| Desk::new(&recipe, engine.reactor.waker());
    let desks: Vec<Desk<'_>> =
        if spec.turns.is_some() { engines.iter().map(desk).collect() } else { Vec::new() };
    let gate = Gate::default();
    thread::scope(|scope| {
        let closing: Vec<_> = stocks.iter().map(CloseOnDrop).collect();
        let closing_desks: Vec<_> = desks.iter().map(CloseDesk).collect();
        let mut writers = spawn_writers(scope, &stocks)?;
        writers.extend(spawn_desks(scope, &desks, control)?);
        stocks.iter().for_each(|stock| wait_for(stock, control));
        let (reports, collected) = channel();
        let jobs = jobs(spec, &setup, (&stocks, &desks), control, engines, &gate, &reports);
        drop(reports);
        let loads = spawn_loads(scope, control, &gate, jobs)?;
        let started_at = gate.open_for(loads.len(), clock.as_ref());
        let mut collector = Collector::new(spec, sink);
        let is_over = || loads.iter().all(ScopedJoinHandle::is_finished);
        collector.collect(&collected, is_over);
        let ends = join_all(loads);
        drop((closing, closing_desks));
        join_all(writers)?;
        Ok(collector.finish(started_at, &ends?))
    })
}

/// Waits for every thread, also after one has panicked: a scope would panic for those left.
fn join_all<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Result<Vec<T>, LoadError> {
    let joined: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
    joined.into_iter().collect::<Result<_, _>>().map_err(|_| LoadError::Panicked)
}

fn spawn_writers<'scope, 'env, 's: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    stocks: &'s [Stock<'s>],
) -> Result<Vec<ScopedJoinHandle<'scope, ()>>, LoadError> {
    let spawn = |stock: &'s Stock<'s>| {
        let thread = thread::Builder::new().name("load-stock".to_owned());
        thread.spawn_scoped(scope, || stock.fill()).map_err(LoadError::Thread)
    };
    stocks.iter().map(spawn).collect()
}

fn spawn_desks<'scope, 'env, 's: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    desks: &'s [Desk<'s>],
    control: &'s Control,
) -> Result<Vec<ScopedJoinHandle<'scope, ()>>, LoadError> {
    let spawn = |desk: &'s Desk<'s>| {
        let thread = thread::Builder::new().name("load-desk".to_owned());
        thread.spawn_scoped(scope, || desk.write(control)).map_err(LoadError::Thread)
    };
    desks.iter().map(spawn).collect()
}

fn jobs<'a>(
    spec: &'a PhaseSpec<'a>,
    setup: &'a Setup,
    (stocks, desks): (&'a [Stock<'a>], &'a [Desk<'a>]),
    control: &'a Control,
    engines: Vec<Engine>,
    gate: &'a Gate,
    reports: &Sender<Report>,
) -> Vec<ShardJob<'a>> {
    control.attach(engines.iter().map(|engine| engine.reactor.waker()).collect());
    let plan = &spec.plan;
    let post = |shard: usize, stock| Post {
        plan,
        setup,
        api: spec.endpoint.api,
        stock,
        desk: desks.get(shard),
        control,
        reports: reports.clone(),
    };
    let parts = stocks.iter().zip(engines).enumerate();
    parts.map(|(n, (stock, engine))| ShardJob { post: post(n, stock), engine, gate }).collect()
}

fn spawn_loads<'scope, 'env, 'a: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    control: &Control,
    gate: &Gate,
    jobs: Vec<ShardJob<'a>>,
) -> Result<Vec<ScopedJoinHandle<'scope, ShardEnd>>, LoadError> {
    let spawn = |(index, job): (usize, ShardJob<'a>)| {
        let thread = thread::Builder::new().name(format!("load-{index}"));
        thread.spawn_scoped(scope, move || job.run())
    };
    let spawned: Result<Vec<_>, _> = jobs.into_iter().enumerate().map(spawn).collect();
    // Those that are up already must not carry out a phase that lacks a part.
    spawned.map_err(|e| {
        control.abort();
        gate.open(Nanos::ZERO);
        LoadError::Thread(e)
    })
}

/// Requests that follow no other: all of them, or the first turns of sessions.
fn begun_by_themselves(plan: &PhasePlan) -> Option<u64> {
    let Some(sessions) = &plan.sessions else { return plan.requests };
    Itinerary::new(sessions.turns.clone(), Shard::WHOLE, plan.requests).sessions_left()
}

/// Requests of one shard that are due at the same time, as far as the shape says.
fn at_once(shape: &LoadShape, shards: u16) -> usize {
    let n = shape.max_in_flight().unwrap_or(0);
    n.div_ceil(u32::from(shards)) as usize
}

/// A stock is worth waiting for, unless nothing of it will be sent.
fn wait_for(stock: &Stock<'_>, control: &Control) {
    if control.level() == Level::Run {
        stock.wait_until_filled();
    }
}

/// What a shard waits with, made where failure can still be reported.
struct Engine {
    reactor: Reactor,
    registry: Registry,
}

fn engines(shards: u16, clock: &Arc<dyn Clock>) -> Result<Vec<Engine>, LoadError> {
    let build = |_| {
        let made = Reactor::new(Arc::clone(clock)).map_err(LoadError::Reactor)?;
        let (reactor, registry) = made;
        Ok(Engine { reactor, registry })
    };
    (0..shards).map(build).collect()
}

impl Setup {
    fn new(spec: &PhaseSpec<'_>, clock: &Arc<dyn Clock>) -> Result<Self, LoadError> {
        let endpoint = &spec.endpoint;
        if endpoint.targets.is_empty() || endpoint.targets.len() < usize::from(spec.plan.targets) {
            let have = endpoint.targets.len();
            return Err(LoadError::Targets { have, want: spec.plan.targets.max(1) });
        }
        let path = endpoint.api.path(spec.workload.stream);
        let resolve = |target: &crate::Target| Address::resolve(&target.base_url, path);
        let addresses =
            endpoint.targets.iter().map(resolve).collect::<Result<Vec<_>, LoadError>>()?;
        let is_tls = addresses.iter().any(|a| a.is_tls);
        let ca_file = endpoint.ca_file.as_deref();
        http::HeaderValue::try_from(spec.request_id_prefix.as_str())
            .map_err(|_| LoadError::Header { name: "x-request-id".to_owned() })?;
        Ok(Self {
            clock: Arc::clone(clock),
            addresses: addresses.into(),
            headers: endpoint.header_map()?,
            tls: if is_tls { Some(tls::client_config(ca_file, endpoint.http)?) } else { None },
            sources: Sources::new(endpoint.sources.clone()),
            http: endpoint.http,
            id_prefix: spec.request_id_prefix.clone(),
            keep_text: spec.keep_text || spec.tokenizer.is_some(),
            keep_answer: matches!(
                spec.workload.source,
                Source::Sessions { history: History::Real, .. }
            ),
        })
    }
}

/// What a shard carries out.
struct ShardJob<'a> {
    post: Post<'a>,
    engine: Engine,
    gate: &'a Gate,
}

impl ShardJob<'_> {
    fn run(self) -> ShardEnd {
        let Engine { reactor, registry } = self.engine;
        run_shard(&self.post, reactor, registry, self.gate.pass())
    }
}

/// Takes records from the shards and hands them on.
struct Collector<'a> {
    spec: &'a PhaseSpec<'a>,
    sink: &'a (dyn Fn(RequestRecord) + Sync),
    /// Records that the tokenizer completes, once nothing is measured any more.
    uncounted: Vec<(RequestRecord, Vec<String>)>,
    dropped: Vec<RequestRecord>,
    texts: Vec<AnswerText>,
    cached: Option<u64>,
}

impl<'a> Collector<'a> {
    fn new(spec: &'a PhaseSpec<'a>, sink: &'a (dyn Fn(RequestRecord) + Sync)) -> Self {
        let (uncounted, dropped, texts) = (Vec::new(), Vec::new(), Vec::new());
        Self { spec, sink, uncounted, dropped, texts, cached: None }
    }

    /// Looks for reports at intervals and never waits for one: a load thread that had to wake this one
    /// would pay for the wake-up between two stamps, and on few cores be set aside for it. Streams that
    /// end together are rather collected together, later, than while the last of them are being read.
    fn collect(&mut self, reports: &Receiver<Report>, is_over: impl Fn() -> bool) {
        loop {
            match reports.try_recv() {
                Ok(Report::Ended(finished)) => self.ended(*finished),
                Ok(Report::Dropped { record }) => self.dropped.push(*record),
                Err(TryRecvError::Empty) => rest(&is_over),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn ended(&mut self, finished: Finished) {
        let Finished { record, texts, cached_tokens, .. } = finished;
        if let Some(n) = cached_tokens {
            self.cached = Some(self.cached.unwrap_or(0) + u64::from(n));
        }
        let texts: Vec<String> = texts.unwrap_or_default().iter().map(|t| unescape(t)).collect();
        if self.spec.keep_text {
            let named = (0..).zip(&texts).map(|(choice, text)| AnswerText {
                index: record.index,
                choice,
                text: text.clone(),
            });
            self.texts.extend(named);
        }
        let wants_count = record.token_source == Some(TokenSource::Chunks);
        if self.spec.tokenizer.is_some() && wants_count {
            self.uncounted.push((record, texts));
        } else {
            (self.sink)(record);
        }
    }

    /// What is only done when nothing is in flight: counting tokens, and naming the dropped requests.
    fn finish(mut self, started_at: Nanos, ends: &[ShardEnd]) -> PhaseReport {
        for (mut record, texts) in self.uncounted.drain(..) {
            let counts = texts.iter().map(|text| self.spec.tokenizer.as_ref()?.count(text));
            if let Some(total) = counts.sum::<Option<u32>>() {
                record.output_tokens = Some(total);
                record.token_source = Some(TokenSource::Tokenizer);
            }
            (self.sink)(record);
        }
        for record in self.dropped.drain(..) {
            (self.sink)(self.spec.name_dropped(record));
        }
        self.texts.sort_by_key(|t| (t.index, t.choice));
        PhaseReport {
            started_at,
            ended_at: ends.iter().map(|e| e.ended_at).max().unwrap_or(started_at),
            shards: self.spec.shards.max(1),
            busiest_cpu: ends.iter().filter_map(|e| e.cpu_in_phase).max(),
            client_cpu: ends.iter().try_fold(Nanos::ZERO, |sum, e| Some(sum + e.cpu?)),
            reconnects: ends.iter().map(|e| e.reconnects).sum(),
            cached_prompt_tokens: self.cached,
            texts: self.texts,
        }
    }
}

/// Sleeps until the next look, or until the phase is over.
fn rest(is_over: impl Fn() -> bool) {
    let mut left = COLLECT_EVERY;
    while !left.is_zero() && !is_over() {
        thread::sleep(GLANCE_EVERY);
        left = left.saturating_sub(GLANCE_EVERY);
    }
}

impl PhaseSpec<'_> {
    fn name_dropped(&self, mut record: RequestRecord) -> RequestRecord {
        record.class = match (self.turns, record.session.zip(record.turn)) {
            (Some(turns), Some((session, number))) => turns(Turn { session, number }).prompt.class,
            _ => (self.prompts)(record.index).class,
        };
        record.outcome = Outcome::Dropped;
        record.failure.get_or_insert_with(|| Failure {
            class: FailureClass::NeverSent,
            status: None,
            detail: match record.turn {
                Some(turn) if turn > 0 => "the load ended before its turn".to_owned(),
                _ => "the load ended before a slot was free".to_owned(),
            },
        });
        record
    }
}

/// Raw JSON strings, one after the other, as text. A piece that is no valid string by itself (half
/// of a surrogate pair) is left out.
pub(crate) fn unescape(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while !rest.is_empty() {
        let mut pieces =
            serde_json::Deserializer::from_slice(rest).into_iter::<&serde_json::value::RawValue>();
        let Some(Ok(piece)) = pieces.next() else { break };
        text.push_str(&api::string(piece).unwrap_or_default());
        let used = pieces.byte_offset();
        rest = &rest[used..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_pieces_become_text() {
        assert_eq!(unescape(br#""a"" b\n""\u00e9""#), "a b\n\u{e9}");
        assert_eq!(unescape(br#""a""\ud83d""b""#), "ab", "half a pair is left out");
        assert_eq!(unescape(b""), "");
        assert_eq!(unescape(br#""a""cut"#), "a");
    }
}
