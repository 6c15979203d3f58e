//! The truth log: what the server did with each request, on the machine's monotonic clock.
//!
//! One JSON line a request, appended when it ends, by a thread of its own so that no token waits for a
//! disk. Every line is flushed: `kill -9` loses at most the last one. Requests that were refused before
//! they reached the engine (400, 404, 503 while starting) have no line.

use super::ServeError;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// One line of the truth log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruthRecord {
    /// The `x-request-id` header, or a name given here.
    pub id: String,
    /// The request's path.
    pub path: String,
    /// The model asked for.
    pub model: String,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// Choices answered (prompts of a batch times `n`).
    pub choices: u64,
    /// Prompt tokens of all choices' prompts, each prompt once.
    pub prompt_tokens: u64,
    /// Right after the request's head was read.
    pub accepted_at_ns: Nanos,
    /// Right after the request's body was read to its end; tokens are due relative to this.
    pub received_at_ns: Nanos,
    /// Right before each content chunk was handed to the socket (one for a whole answer).
    pub writes: Vec<Nanos>,
    /// Tokens in those chunks.
    pub tokens: u64,
    /// When the request ended, however it did.
    pub finished_at_ns: Nanos,
    /// `completed`, `cancelled` (the client went away, or the server stopped), `failed` (the engine
    /// could not serve it), or `injected-...`.
    pub outcome: String,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Line {
    /// A request ended.
    Request(Box<TruthRecord>),
    /// No more will come.
    Close,
}

/// The log's writer thread.
#[derive(Debug)]
pub(super) struct TruthLog {
    path: PathBuf,
    sender: Sender<Line>,
    thread: JoinHandle<io::Result<()>>,
}

impl TruthLog {
    /// Opens `path` for appending and starts the writer.
    pub(super) fn open(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::TruthLog { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let (sender, lines) = channel();
        let thread = std::thread::Builder::new()
            .name("truth-log".to_owned())
            .spawn(move || write_lines(file, &lines))
            .map_err(ServeError::Thread)?;
        Ok(Self { path: path.to_owned(), sender, thread })
    }

    /// Where to send lines.
    pub(super) fn sender(&self) -> Sender<Line> {
        self.sender.clone()
    }

    /// Writes what was sent before this call and ends the thread.
    pub(super) fn close(self) -> Result<(), ServeError> {
        // A writer that failed has ended already and left its error behind.
        drop(self.sender.send(Line::Close));
        let written =
            self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        written.map_err(|source| ServeError::TruthLog { path: self.path, source })
    }
}

fn write_lines(file: File, lines: &Receiver<Line>) -> io::Result<()> {
    let mut writer = BufWriter::new(file);
    while let Ok(Line::Request(record)) = lines.recv() {
        serde_json::to_writer(&mut writer, &record)?;
        writer.write_all(b"\n")?;
        writer.flush()?;
    }
    Ok(())
}
