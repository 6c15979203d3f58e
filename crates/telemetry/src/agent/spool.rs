//! The file that holds everything that an agent has read, line by line.

use scalebeam_model::telemetry::Absent;
use scalebeam_model::telemetry::agent::{Say, line};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that are told at once.
const CHUNK: usize = 64 << 10;

/// The file, and who waits for more of it.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    written: Mutex<Written>,
    grown: Condvar,
}

#[derive(Debug)]
struct Written {
    file: File,
    /// Bytes of whole lines.
    len: u64,
    /// Why lines before this one are not there.
    lost: Option<String>,
}

impl Spool {
    /// Makes an empty one at `path`, for this user alone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
        let written = Mutex::new(Written { file, len: 0, lost: None });
        Ok(Self { path: path.to_owned(), written, grown: Condvar::new() })
    }

    /// Adds lines: all of them, or none (then this is false) and a line that says so with the next ones.
    pub(super) fn append(&self, says: &[Say]) -> bool {
        if says.is_empty() {
            return true;
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = written.lost.clone().map(|why| {
            let (host, what) = ("its spool".to_owned(), "some readings".to_owned());
            line(&Say::Absent(Absent { host, what, why }))
        });
        let text: String = lost.into_iter().chain(says.iter().map(line)).collect();
        let len = written.len;
        let is_written = match written.file.write_all(text.as_bytes()) {
            Ok(()) => {
                (written.len, written.lost) = (len + text.len() as u64, None);
                true
            }
            Err(error) => {
                // A part of a line would damage the next one.
                let _ = written
                    .file
                    .set_len(len)
                    .and_then(|()| written.file.seek(SeekFrom::Start(len)));
                written.lost = Some(format!("they could not be written there: {error}"));
                false
            }
        };
        drop(written);
        self.grown.notify_all();
        is_written
    }

    /// Wakes whoever waits, so that it looks whether it is still wanted.
    pub(super) fn wake(&self) {
        // Whoever is between its look and its wait holds the lock.
        drop(self.written.lock());
        self.grown.notify_all();
    }

    /// Gives `out` everything from `byte` on, and what is added, until `wanted` is false.
    pub(super) fn tell(
        &self,
        byte: u64,
        wanted: &dyn Fn() -> bool,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let mut at = byte;
        while let Some(len) = self.beyond(at, wanted) {
            at = copy(&mut file, at, len, out)?;
        }
        Ok(())
    }

    /// Waits until there is more than `at` bytes; nothing once nobody wants them.
    fn beyond(&self, at: u64, wanted: &dyn Fn() -> bool) -> Option<u64> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        while wanted() {
            if written.len > at {
                return Some(written.len);
            }
            written = self.grown.wait(written).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

/// Copies bytes `at` to `end` of `file`; where it came to.
pub(super) fn copy(
    file: &mut File,
    at: u64,
    end: u64,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(at))?;
    let mut rest = file.take(end.saturating_sub(at));
    let (mut chunk, mut at) = (vec![0; CHUNK], at);
    loop {
        let len = rest.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return Ok(at);
        };
        out(bytes)?;
        at += len as u64;
    }
}
