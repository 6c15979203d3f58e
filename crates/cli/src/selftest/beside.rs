//! Another client in the same run, as far as it can be known from outside.
//!
//! It is any program that can be told an address and a load. It has its turns between our readers and
//! meets the same server. What it costs is the system's to say, what it read the server's; only where it
//! leaves a result with vLLM's keys can its own numbers be held against the truth.
//!
//! **Invariants:** a program that fails or hangs is a row with a reason, never a failed selftest; what it
//! does not tell is absent; its numbers are medians of the rounds in which it ended well.

pub(crate) mod client;
mod latency;
pub(crate) mod program;
mod row;
mod scratch;

use super::case::Case;
use super::part::{Part, PartEnd, PartSpec};
use super::trace::Trace;
use super::usage;
use crate::clock::WallClock;
use crate::exit::Failure;
use client::Client;
use latency::{Latencies, span};
use program::{ProgramEnd, ProgramSpec};
pub(crate) use row::{OtherRow, rows};
use scalebeam_model::units::Nanos;
use scratch::Scratch;
use serde::{Deserialize, Serialize};

/// The other clients of a selftest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Others {
    /// All of them; a case may not be for each.
    pub(crate) clients: Vec<Client>,
    /// How long one may take for a case, where the user says it.
    pub(crate) limit: Option<Nanos>,
}

impl Others {
    /// Positions of those that can run `case`.
    pub(super) fn fit(&self, case: &Case) -> Vec<usize> {
        let all = self.clients.iter().enumerate();
        all.filter(|(_, client)| client.why_not(case).is_none()).map(|(i, _)| i).collect()
    }

    fn limit(&self, case: &Case) -> Nanos {
        self.limit.unwrap_or_else(|| Nanos(case.lasts().0.saturating_mul(3)) + Nanos::from_secs(60))
    }
}

/// Why a run of a client is no measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unmeasured {
    /// In words.
    pub(crate) reason: String,
    /// The last lines of what it printed.
    pub(crate) said_last: Vec<String>,
}

/// One run of another client.
#[derive(Debug, Clone)]
pub(crate) struct OtherReading {
    /// Absent where it ended well and asked for something.
    unmeasured: Option<Unmeasured>,
    /// Requests that the server answered whole.
    whole: u64,
    /// Tokens of these.
    tokens: u64,
    /// What the client said minus what is true.
    errors: Latencies,
    /// What the program cost.
    end: ProgramEnd,
    /// CPU time that it had spent when its first request was there; absent where that is not known.
    start_cpu: Option<Nanos>,
    /// What the server cost.
    server: PartEnd,
    /// From its start to its first request in the server's kernel.
    launch: Option<Nanos>,
    /// From its first request to the end of the last answer.
    span: Option<Nanos>,
}

/// Lets the client at position `which` run `case` once.
pub(super) fn measure_once(
    case: &Case,
    others: &Others,
    which: usize,
) -> Result<OtherReading, Failure> {
    let scratch = Scratch::new()?;
    let (server, at) = super::serve(case)?;
    let spec = ProgramSpec {
        words: others.clients[which].command(case, at.port(), &scratch.result()),
        output: scratch.output(),
        scratch: scratch.dir().to_owned(),
        limit: others.limit(case),
    };
    let started = WallClock::shared().now();
    let end = Part::start(&PartSpec::Program(spec), case.sockets())?.wait_program()?;
    let (truth, server) = server.take()?;
    Ok(reading(&truth, started, end, server, &scratch))
}

fn reading(
    truth: &[Trace],
    started: Nanos,
    end: ProgramEnd,
    server: PartEnd,
    scratch: &Scratch,
) -> OtherReading {
    let (first, last) = span(truth).unzip();
    let whole = || truth.iter().filter(|t| t.is_whole);
    let silent = whole().next().is_none().then(|| "it had no request answered".to_owned());
    let reason = end.failure.clone().or(silent);
    let start_cpu = first
        .filter(|_| !end.looks.is_empty())
        .map(|first: Nanos| usage::between(&end.looks, first));
    OtherReading {
        unmeasured: reason.map(|reason| Unmeasured { reason, said_last: scratch.said_last() }),
        whole: whole().count() as u64,
        tokens: whole().map(|t| t.marks.len() as u64).sum(),
        errors: Latencies::said(&scratch.result_text()).less(&Latencies::of(truth)),
        end,
        start_cpu,
        server,
        launch: first.map(|first| first.since(started)),
        span: first.zip(last).map(|(first, last): (Nanos, Nanos)| last.since(first)),
    }
}
