//! The parts of a measurement, each a process of its own, so that its CPU time and memory are its own.
//!
//! A part is this binary with a hidden command and a [`PartSpec`]. Its standard output is its log, then
//! a [`PartEnd`] as JSON, then the length of that in eight bytes. The server first says its port in a
//! line, and serves until its standard input is closed: it cannot outlive the process that started it.

use super::beside::program::{self, ProgramEnd, ProgramSpec};
use super::ours::{self, OursSpec};
use super::raw::{self, RawSpec};
use super::server::{self, ServerSpec};
use super::trace::{Trace, decode};
use super::usage;
use crate::clock::WallClock;
use crate::exit::{Failure, Status};
use scalebeam_model::units::Nanos;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The hidden command.
pub(crate) const COMMAND: &str = "selftest-part";

/// What a part is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartSpec {
    /// Serve.
    Serve(ServerSpec),
    /// Read, and parse nothing.
    Raw(RawSpec),
    /// Run the load client.
    Ours(OursSpec),
    /// Run another client.
    Program(ProgramSpec),
}

/// What a part cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartEnd {
    /// CPU time of the process; of a reader, from the first request on.
    pub(crate) cpu: Nanos,
    /// CPU time of the threads that send and read.
    pub(crate) load_cpu: Option<Nanos>,
    /// From the first request to the last byte.
    pub(crate) wall: Option<Nanos>,
    /// The most memory that was resident at once, in bytes.
    pub(crate) peak_rss: Option<u64>,
}

/// The hidden command itself.
pub(crate) fn run(spec: &str, streams: u64) -> Result<Status, Failure> {
    let spec: PartSpec = serde_json::from_str(spec).map_err(|e| {
        Failure::usage(format!("{COMMAND}: {e}")).hint("this command is for selftest alone")
    })?;
    crate::limits::raise_file_limit(streams)?;
    let out = std::io::stdout().as_fd().try_clone_to_owned().map_err(pipe)?;
    let mut out = BufWriter::with_capacity(64 * 1024, File::from(out));
    let end = match spec {
        PartSpec::Serve(spec) => serve(spec, &mut out)?,
        PartSpec::Raw(spec) => read_raw(&spec, &mut out)?,
        PartSpec::Ours(spec) => load(&spec, &mut out)?,
        PartSpec::Program(spec) => return run_program(&spec, &mut out),
    };
    finish(&mut out, &end).map_err(pipe)?;
    Ok(Status::Ok)
}

fn pipe(error: std::io::Error) -> Failure {
    Failure::internal(format!("cannot hand over what was measured: {error}"))
}

fn serve(spec: ServerSpec, out: &mut BufWriter<File>) -> Result<PartEnd, Failure> {
    let fail = |e: std::io::Error| Failure::internal(format!("the truth server: {e}"));
    let listener = server::listen().map_err(fail)?;
    let port = listener.local_addr().map_err(fail)?.port();
    writeln!(out, "{port}").and_then(|()| out.flush()).map_err(pipe)?;
    let stdin = std::io::stdin();
    let served = server::serve(listener, spec, WallClock::shared().as_ref(), stdin.as_fd());
    let served = served.map_err(fail)?;
    // Before the log is written, which is none of the cost of serving.
    let end =
        PartEnd { cpu: usage::cpu(), load_cpu: None, wall: None, peak_rss: usage::peak_rss() };
    out.write_all(&served.encode()).map_err(pipe)?;
    Ok(end)
}

fn read_raw(spec: &RawSpec, out: &mut BufWriter<File>) -> Result<PartEnd, Failure> {
    let read = raw::read_all(spec, WallClock::shared().as_ref())
        .map_err(|e| Failure::deployment(format!("the raw reader: {e}")))?;
    let end = PartEnd {
        cpu: read.cpu,
        load_cpu: None,
        wall: Some(read.wall),
        peak_rss: usage::peak_rss(),
    };
    out.write_all(&read.log).map_err(pipe)?;
    Ok(end)
}

fn load(spec: &OursSpec, out: &mut BufWriter<File>) -> Result<PartEnd, Failure> {
    let cost = ours::run(spec, &WallClock::shared(), out)?;
    Ok(PartEnd {
        cpu: cost.cpu,
        load_cpu: cost.load_cpu,
        wall: Some(cost.wall),
        peak_rss: usage::peak_rss(),
    })
}

fn run_program(spec: &ProgramSpec, out: &mut BufWriter<File>) -> Result<Status, Failure> {
    let end = program::run(spec, WallClock::shared().as_ref(), std::io::stdin().as_fd())
        .map_err(|e| Failure::internal(format!("cannot run {}: {e}", spec.words[0])))?;
    finish(out, &end).map_err(pipe)?;
    Ok(Status::Ok)
}

fn finish(out: &mut impl Write, end: &impl Serialize) -> std::io::Result<()> {
    let text = serde_json::to_vec(end)?;
    out.write_all(&text)?;
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.flush()
}

/// The other side of [`finish`]: the log and the end.
fn split<T: DeserializeOwned>(bytes: &[u8]) -> Option<(Vec<Trace>, T)> {
    let (rest, len) = bytes.split_last_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let (log, text) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
    Some((decode(log)?, serde_json::from_slice(text).ok()?))
}

/// A part that was started. It ends with this value, whatever happens.
#[derive(Debug)]
pub(crate) struct Part {
    child: Child,
    out: BufReader<ChildStdout>,
    name: &'static str,
    /// It ends by itself, and what it has started with it, when its input is closed.
    ends_itself: bool,
}

impl Part {
    /// Starts one that may have `streams` connections.
    pub(crate) fn start(spec: &PartSpec, streams: u64) -> Result<Self, Failure> {
        let name = match spec {
            PartSpec::Serve(_) => "the truth server",
            PartSpec::Raw(_) => "the raw reader",
            PartSpec::Ours(_) => "the load client",
            PartSpec::Program(_) => "the keeper of another client",
        };
        let ends_itself = matches!(spec, PartSpec::Program(_));
        let fail = |e: String| Failure::internal(format!("cannot start {name}: {e}"));
        let this = std::env::current_exe().map_err(|e| fail(e.to_string()))?;
        let spec = serde_json::to_string(spec).map_err(|e| fail(e.to_string()))?;
        let mut command = Command::new(this);
        command.arg(COMMAND).arg(spec).arg(streams.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if ends_itself {
            // An interrupt from the terminal is not for it: it has to outlive this process by a moment, to
            // end what it has started.
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(|e| fail(e.to_string()))?;
        let out = child.stdout.take().ok_or_else(|| fail("it has no output".to_owned()))?;
        Ok(Self { child, out: BufReader::new(out), name, ends_itself })
    }

    /// The port that a server says it has.
    pub(crate) fn port(&mut self) -> Result<u16, Failure> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line);
        read.ok().and_then(|_| line.trim().parse().ok()).ok_or_else(|| self.broken())
    }

    /// Closes its input and takes what it has measured.
    pub(crate) fn take(mut self) -> Result<(Vec<Trace>, PartEnd), Failure> {
        drop(self.child.stdin.take());
        self.read()
    }

    /// Waits until it ends by itself, and takes what it has measured.
    pub(crate) fn wait(mut self) -> Result<(Vec<Trace>, PartEnd), Failure> {
        self.read()
    }

    /// Waits until a program has ended or was ended, and takes what it cost.
    pub(crate) fn wait_program(mut self) -> Result<ProgramEnd, Failure> {
        self.read().map(|(_, end)| end)
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<(Vec<Trace>, T), Failure> {
        let mut bytes = Vec::new();
        self.out.read_to_end(&mut bytes).map_err(pipe)?;
        split(&bytes).ok_or_else(|| self.broken())
    }

    fn broken(&mut self) -> Failure {
        let how = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        Failure::internal(format!("{} ended without a result ({how})", self.name))
            .hint("what it said itself is above, if anything")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !self.ends_itself {
            // One that has ended cannot be killed, and is only waited for.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_hands_over_is_read_whole_or_not_at_all() {
        let end = PartEnd {
            cpu: Nanos(5),
            load_cpu: Some(Nanos(4)),
            wall: None,
            peak_rss: Some(1 << 20),
        };
        let mut bytes = Vec::new();
        finish(&mut bytes, &end).unwrap();
        assert_eq!(split(&bytes), Some((Vec::new(), end)));
        for cut in 0..bytes.len() {
            assert_eq!(split::<PartEnd>(&bytes[..cut]), None, "{cut}");
        }
    }
}
