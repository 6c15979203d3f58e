//! One connection of an agent: lines in, lines out.

use super::spool::Spool;
use scalebeam_model::telemetry::agent::{Ask, LONGEST_LINE, Say, line, read};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Ends with this value, and with it the thread that tells the spool.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Answers and the spool go the same way, line by line.
    out: Arc<Mutex<UnixStream>>,
    is_open: Arc<AtomicBool>,
    teller: Option<(Arc<Spool>, JoinHandle<()>)>,
}

impl Connection {
    /// Says `hello` on `stream`.
    pub(super) fn open(stream: UnixStream, hello: &Say) -> io::Result<Self> {
        let out = Arc::new(Mutex::new(stream.try_clone()?));
        let is_open = Arc::new(AtomicBool::new(true));
        let connection = Self { stream, out, is_open, teller: None };
        connection.say(hello)?;
        Ok(connection)
    }

    /// Takes asks until the other end closes.
    pub(super) fn serve(
        &mut self,
        take: impl Fn(Ask, &mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut lines = BufReader::new(self.stream.try_clone()?);
        while let Some(line) = next_line(&mut lines)? {
            // What is not understood may be of a newer version.
            if let Some(ask) = read::<Ask>(&line) {
                take(ask, self)?;
            }
        }
        Ok(())
    }

    /// Says one thing.
    pub(super) fn say(&self, say: &Say) -> io::Result<()> {
        write(&self.out, line(say).as_bytes())
    }

    /// Tells the spool from `byte` on, beside everything else; once for a connection.
    pub(super) fn tell(&mut self, spool: Arc<Spool>, byte: u64) -> io::Result<()> {
        if self.teller.is_some() {
            return Ok(());
        }
        let (told, out, is_open) =
            (Arc::clone(&spool), Arc::clone(&self.out), Arc::clone(&self.is_open));
        let thread = std::thread::Builder::new().name("spool".to_owned());
        let thread = thread.spawn(move || {
            let mut lines = Whole::default();
            let wanted = || is_open.load(Ordering::Acquire);
            let mut send = |bytes: &[u8]| write(&out, lines.of(bytes));
            // Whoever no longer listens comes again and says from where.
            let _ = told.tell(byte, &wanted, &mut send);
        })?;
        self.teller = Some((spool, thread));
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.is_open.store(false, Ordering::Release);
        // Ends a write that the other end does not take.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some((spool, thread)) = self.teller.take() {
            spool.wake();
            // A panic of the thread is told where it happened.
            let _ = thread.join();
        }
    }
}

fn write(out: &Mutex<UnixStream>, bytes: &[u8]) -> io::Result<()> {
    out.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
}

/// Gives whole lines: an answer must not come into the middle of one.
#[derive(Debug, Default)]
struct Whole {
    held: Vec<u8>,
    given: Vec<u8>,
}

impl Whole {
    /// The lines that `bytes` complete.
    fn of(&mut self, bytes: &[u8]) -> &[u8] {
        self.held.extend_from_slice(bytes);
        let end = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.given.clear();
        self.given.extend(self.held.drain(..end));
        &self.given
    }
}

/// The next line without its end; nothing at the end of input.
///
/// # Errors
/// When reading fails, or a line is longer than [`LONGEST_LINE`].
pub(crate) fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let longest = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    if lines.by_ref().take(longest).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        // The connection broke inside of it.
        _ if line.len() + 1 < LONGEST_LINE => Ok(None),
        _ => Err(io::Error::other("a line is too long")),
    }
}
