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
    /// What readings call this machine.
    host: String,
    /// Bytes of whole lines.
    len: u64,
    /// Why lines before this one are not there.
    lost: Option<String>,
    /// Borders of measurements that are not there yet.
    owed: Vec<Say>,
}

impl Written {
    fn add(&mut self, says: &[Say]) -> Result<(), String> {
        if self.owed.is_empty() && says.is_empty() {
            return Ok(());
        }
        let lost = self.lost.clone().map(|why| {
            let (host, what) = (self.host.clone(), "some readings".to_owned());
            Say::Absent(Absent { host, what, why })
        });
        // What is absent belongs to the measurement that began last.
        let begun = self.owed.iter().rposition(|say| matches!(say, Say::Begun { .. }));
        let (before, behind) = self.owed.split_at(begun.map_or(0, |at| at + 1));
        let all = before.iter().chain(&lost).chain(behind).chain(says);
        let text: String = all.map(line).collect();
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                (self.len, self.lost) = (self.len + text.len() as u64, None);
                self.owed.clear();
                Ok(())
            }
            Err(error) => {
                // A part of a line would damage the next one.
                let start = SeekFrom::Start(self.len);
                let _ = self.file.set_len(self.len).and_then(|()| self.file.seek(start));
                self.lost = Some(format!("they could not be written there: {error}"));
                Err(error.to_string())
            }
        }
    }
}

impl Spool {
    /// Makes an empty one at `path`, for this user alone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
        let (host, owed) = ("the machine of this spool".to_owned(), Vec::new());
        let written = Mutex::new(Written { file, host, len: 0, lost: None, owed });
        Ok(Self { path: path.to_owned(), written, grown: Condvar::new() })
    }

    /// What lines of its own call this machine from now on.
    pub(super) fn is_of(&self, host: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        host.clone_into(&mut written.host);
    }

    /// Adds lines: all of them, or none, and a line that says so with the next ones.
    ///
    /// # Errors
    /// Why they are not there.
    pub(super) fn append(&self, says: &[Say]) -> Result<(), String> {
        self.write(says, &[])
    }

    /// As [`Self::append`], but lines that cannot be written now come before the next ones that can: whoever
    /// takes part in a measurement must see its borders in their order.
    pub(super) fn append_borders(&self, says: &[Say]) -> Result<(), String> {
        self.write(&[], says)
    }

    /// Writes what is owed, where there is anything.
    pub(super) fn catch_up(&self) -> Result<(), String> {
        self.write(&[], &[])
    }

    fn write(&self, says: &[Say], borders: &[Say]) -> Result<(), String> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.owed.extend_from_slice(borders);
        let done = written.add(says);
        drop(written);
        self.grown.notify_all();
        done
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

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::telemetry::agent::read;
    use scalebeam_model::units::Nanos;
    use std::collections::BTreeMap;

    /// The disk is full, or has room again: what was in the spool file stays in it.
    fn disk(spool: &Spool, is_full: bool) {
        let mut options = File::options();
        let path = if is_full { Path::new("/dev/full") } else { &spool.path };
        let mut file = options.write(true).open(path).unwrap();
        let mut written = spool.written.lock().unwrap();
        if !is_full {
            file.seek(SeekFrom::Start(written.len)).unwrap();
        }
        written.file = file;
    }

    fn reading(id: u32) -> Say {
        let (from, to) = (Nanos::ZERO, Nanos(1));
        Say::Read { id, from, to, values: BTreeMap::new() }
    }

    #[test]
    fn borders_that_found_no_room_come_before_the_next_lines_and_readings_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        spool.is_of("node1");
        let (begun, ended) = (Say::Begun { measure: 2 }, Say::Ended { measure: 2 });
        spool.append_borders(&[Say::Begun { measure: 1 }]).unwrap();
        disk(&spool, true);
        assert!(spool.append(&[reading(1)]).is_err());
        for border in [Say::Ended { measure: 1 }, begun.clone()] {
            let why = spool.append_borders(&[border]).unwrap_err();
            assert!(why.contains("No space left"), "{why}");
        }
        assert!(spool.catch_up().is_err());
        disk(&spool, false);
        spool.append(&[reading(2)]).unwrap();
        spool.append_borders(std::slice::from_ref(&ended)).unwrap();
        spool.catch_up().unwrap();
        let text = std::fs::read_to_string(&spool.path).unwrap();
        let mut says: Vec<Say> = text.lines().map(|l| read(l.as_bytes()).unwrap()).collect();
        let Say::Absent(absent) = says.remove(3) else { panic!("{text}") };
        assert_eq!((absent.host.as_str(), absent.what.as_str()), ("node1", "some readings"));
        let borders = [Say::Begun { measure: 1 }, Say::Ended { measure: 1 }, begun];
        assert_eq!(says, [&borders[..], &[reading(2), ended]].concat());
    }
}
