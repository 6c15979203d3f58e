//! The instrument that measures the instrument.
//!
//! A truth server, whose every write and every received request is known, serves the load client and a
//! raw reader in turns; what each of them says is held against the server's log. Server and readers are
//! processes of their own, so that CPU time and memory are each one's own; they share the machine, which
//! is what they will do when it matters, and what is said is about this machine as it was meanwhile.
//!
//! ```text
//!   case ─► measure ─► part: serve ◄── loopback ──► part: raw | ours | another client (beside)
//!                        │ truth                      │ what it says
//!                        └────────► errors ◄──────────┘ ─► summary ─► table, floor
//! ```
//!
//! **Invariants:** nothing of a reader's own clock enters the truth; whatever both readers are held
//! against was measured in the same run; a request that is not in both logs is lost, never left out.

mod alarm;
pub(crate) mod beside;
pub(crate) mod case;
mod errors;
pub(crate) mod floor;
mod ours;
pub(crate) mod part;
mod raw;
mod server;
pub(crate) mod summary;
pub(crate) mod table;
mod trace;
pub(crate) mod usage;

use crate::clock::WallClock;
use crate::exit::Failure;
use crate::settings;
use beside::Others;
use case::Case;
use errors::{Errors, compare};
use ours::OursSpec;
use part::{Part, PartEnd, PartSpec};
use raw::RawSpec;
use scalebeam_model::units::Nanos;
use server::answer::Answer;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use summary::Row;
use trace::Trace;

/// Who read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The load client.
    Ours,
    /// The raw reader.
    Raw,
    /// Another client: its position among [`Others`].
    Other(usize),
}

/// One run of one reader.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Against the truth.
    pub(crate) errors: Errors,
    /// What the reader cost.
    pub(crate) end: PartEnd,
    /// What the server cost.
    pub(crate) server: PartEnd,
    /// From the reader's start as a process to the first request in the server's kernel.
    pub(crate) launch: Option<Nanos>,
    /// From the first request in the server's kernel to the last.
    pub(crate) sending: Option<Nanos>,
}

/// The prompt of every request.
fn prompt() -> String {
    "word ".repeat(128)
}

/// Measures `case`: all readers in turns, `rounds` times. `tell` is called before each run.
pub(crate) fn measure(
    case: &Case,
    rounds: u32,
    others: &Others,
    mut tell: impl FnMut(&str, Reader),
) -> Result<Row, Failure> {
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let mut beside = vec![Vec::new(); others.clients.len()];
    let mut order = readers(case, others);
    for _ in 0..rounds.max(1) {
        for reader in &order {
            tell(&case.name, *reader);
            match reader {
                Reader::Ours => ours.push(measure_once(case, ours_spec)?),
                Reader::Raw => raw.push(measure_once(case, raw_spec)?),
                Reader::Other(i) => beside[*i].push(beside::measure_once(case, others, *i)?),
            }
        }
        // Whoever is first finds the machine as the last one left it, so they take turns.
        order.rotate_left(1);
    }
    let mut row = Row::new(case, &ours, &raw);
    row.beside = beside::rows(case, others, &beside, row.raw.as_ref());
    Ok(row)
}

/// Who reads in `case`, in the order of its first round.
fn readers(case: &Case, others: &Others) -> Vec<Reader> {
    let raw = case.has_raw.then_some(Reader::Raw);
    let others = others.fit(case).into_iter().map(Reader::Other);
    raw.into_iter().chain([Reader::Ours]).chain(others).collect()
}

/// Runs left to [`measure`] for `case`, for a bar.
pub(crate) fn runs(case: &Case, rounds: u32, others: &Others) -> u64 {
    u64::from(rounds.max(1)) * readers(case, others).len() as u64
}

/// Starts the server of `case`, and says where it is.
fn serve(case: &Case) -> Result<(Part, SocketAddr), Failure> {
    let mut server = Part::start(&PartSpec::Serve(case.server.clone()), case.sockets())?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()?));
    Ok((server, at))
}

/// What a reader is to do in a case against a server at an address.
type SpecOf = fn(&Case, SocketAddr) -> Result<PartSpec, Failure>;

fn ours_spec(case: &Case, at: SocketAddr) -> Result<PartSpec, Failure> {
    Ok(PartSpec::Ours(OursSpec {
        at,
        shape: case.shape(),
        requests: case.requests,
        tokens: case.server.tokens,
        ca_file: case.server.tls.then(ca_file).transpose()?,
    }))
}

fn raw_spec(case: &Case, at: SocketAddr) -> Result<PartSpec, Failure> {
    Ok(PartSpec::Raw(RawSpec {
        at,
        streams: case.streams,
        requests: case.requests,
        every: case.rate_rps.map(|rate| Nanos::from_secs_f64(1.0 / rate)),
    }))
}

fn measure_once(case: &Case, spec_of: SpecOf) -> Result<Reading, Failure> {
    let (server, at) = serve(case)?;
    let spec = spec_of(case, at)?;
    let started = WallClock::shared().now();
    let (mut seen, end) = Part::start(&spec, case.sockets())?.wait()?;
    let (truth, server) = server.take()?;
    if matches!(spec, PartSpec::Raw(_)) {
        let answer = Answer::new(case.server.tokens, case.server.early_role);
        errors::bytes_to_tokens(&mut seen, &answer);
    }
    if case.rate_rps.is_none() {
        // A closed loop has no schedule but the reader's own, against which nobody can be late.
        seen.iter_mut().for_each(|trace| trace.scheduled_at = None);
    }
    let (first, last) = span(&truth).unzip();
    Ok(Reading {
        errors: compare(&truth, &seen, case.requests),
        end,
        server,
        launch: first.map(|first| first.since(started)),
        sending: first.zip(last).map(|(first, last): (Nanos, Nanos)| last.since(first)),
    })
}

/// Where the load client finds whom to trust of a server with TLS.
fn ca_file() -> Result<PathBuf, Failure> {
    let dir = settings::cache_dir();
    let path = dir.join("selftest-ca.pem");
    let made = std::fs::create_dir_all(&dir);
    made.map_err(|e| Failure::usage(format!("cannot create {}: {e}", dir.display())))?;
    scalebeam_record::write_atomically(&path, server::wire::CA)?;
    Ok(path)
}

/// When the server's kernel had the first request and the last.
fn span(truth: &[Trace]) -> Option<(Nanos, Nanos)> {
    let received = || truth.iter().filter_map(|t| t.sent_at);
    Some((received().min()?, received().max()?))
}
