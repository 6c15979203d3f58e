//! The open segment: records of a running trial, one JSON line each.
//!
//! A thread of its own serialises and writes, so that whoever measures never waits for the disk unless
//! [`CAPACITY`] records are waiting. It hands everything to the kernel as soon as nothing more waits, so
//! that `kill -9` loses what is in the channel and nothing else. Nothing is synced per record: that
//! protects against a power cut only, and would disturb the measurement.
//!
//! A reader accepts a last line that was cut off anywhere, and counts it. A line before the last that
//! cannot be read means that the file was changed by something else, and is an error.

use crate::error::RecordError;
use scalebeam_model::request::RequestRecord;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

/// Records that may wait for the writer.
const CAPACITY: usize = 8192;

/// Under a load that never lets the channel run empty, everything is handed over at least this often.
const RECORDS_BETWEEN_FLUSHES: u32 = 256;

/// Writes a segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    path: PathBuf,
    sender: Option<SyncSender<RequestRecord>>,
    thread: Option<JoinHandle<Result<u64, RecordError>>>,
}

impl SegmentWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, RecordError> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)
            .map_err(RecordError::io("create", path))?;
        Self::from_file(file, path)
    }

    fn from_file(file: File, path: &Path) -> Result<Self, RecordError> {
        let (sender, receiver) = sync_channel(CAPACITY);
        let of = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("segment".to_owned())
            .spawn(move || write_all(&receiver, file, &of))
            .map_err(RecordError::io("start a writer for", path))?;
        Ok(Self { path: path.to_owned(), sender: Some(sender), thread: Some(thread) })
    }

    /// Hands over a record; waits only while the writer is far behind.
    pub(crate) fn append(&mut self, record: RequestRecord) -> Result<(), RecordError> {
        let is_taken = self.sender.as_ref().is_some_and(|s| s.send(record).is_ok());
        if is_taken {
            return Ok(());
        }
        // The writer ends before its sender only by an error, which the thread returns.
        Err(match self.close() {
            Err(error) => error,
            Ok(_) => RecordError::damaged(&self.path, "the segment was closed already"),
        })
    }

    /// Writes and syncs what waits, and says how many records the segment has got.
    pub(crate) fn close(&mut self) -> Result<u64, RecordError> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => {
                Err(RecordError::damaged(&self.path, "its writer ended before the segment did"))
            }
        }
    }
}

impl Drop for SegmentWriter {
    /// An abandoned trial keeps what it got.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(
    receiver: &Receiver<RequestRecord>,
    file: File,
    path: &Path,
) -> Result<u64, RecordError> {
    let failed = |source| RecordError::Io { action: "write", path: path.to_owned(), source };
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    let mut written = 0;
    let mut unflushed = 0;
    loop {
        let record = match receiver.try_recv() {
            Ok(record) => record,
            Err(TryRecvError::Empty) => {
                out.flush().map_err(failed)?;
                unflushed = 0;
                match receiver.recv() {
                    Ok(record) => record,
                    Err(_) => break,
                }
            }
            Err(TryRecvError::Disconnected) => break,
        };
        line.clear();
        serde_json::to_writer(&mut line, &record).map_err(RecordError::json(path))?;
        line.push(b'\n');
        out.write_all(&line).map_err(failed)?;
        written += 1;
        unflushed += 1;
        if unflushed >= RECORDS_BETWEEN_FLUSHES {
            out.flush().map_err(failed)?;
            unflushed = 0;
        }
    }
    out.flush().map_err(failed)?;
    // Not every file can be synced (a pipe, /dev/null), and a run need not fail for it.
    let _ = out.get_ref().sync_data();
    Ok(written)
}

/// Reads a segment record by record.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    path: PathBuf,
    input: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    torn: u64,
}

impl SegmentReader {
    pub(crate) fn open(path: &Path) -> Result<Self, RecordError> {
        let file = File::open(path).map_err(RecordError::io("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(1 << 18, file),
            line: Vec::new(),
            number: 0,
            torn: 0,
        })
    }

    /// Lines that were cut off: 0 or 1.
    pub(crate) fn torn(&self) -> u64 {
        self.torn
    }

    /// The next record; `None` at the end.
    pub(crate) fn next_record(&mut self) -> Result<Option<RequestRecord>, RecordError> {
        self.line.clear();
        let got = self
            .input
            .read_until(b'\n', &mut self.line)
            .map_err(RecordError::io("read", &self.path))?;
        if got == 0 {
            return Ok(None);
        }
        self.number += 1;
        match serde_json::from_slice(&self.line) {
            Ok(record) => Ok(Some(record)),
            Err(_) if self.line.last() != Some(&b'\n') => {
                self.torn += 1;
                Ok(None)
            }
            Err(why) => {
                Err(RecordError::damaged(&self.path, format!("line {}: {why}", self.number)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::request::Phase;
    use scalebeam_model::units::Nanos;

    fn record(index: u64) -> RequestRecord {
        let mut record = RequestRecord::new(index, Phase::Measure, 0, Nanos(index));
        record.class = "ünï\n\"x\"".to_owned();
        record
    }

    #[test]
    fn a_segment_cut_at_any_byte_gives_every_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        let mut writer = SegmentWriter::create(&path).unwrap();
        for i in 0..3 {
            writer.append(record(i)).unwrap();
        }
        assert_eq!(writer.close().unwrap(), 3);
        let whole = std::fs::read(&path).unwrap();
        let length = whole.len() / 3;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut reader = SegmentReader::open(&path).unwrap();
            let mut got = 0;
            while let Some(r) = reader.next_record().unwrap() {
                assert_eq!(r, record(got));
                got += 1;
            }
            // A line that lacks its line end only is whole.
            let expected = (cut + 1) / length;
            assert_eq!(usize::try_from(got).unwrap(), expected, "cut at {cut}");
            let is_between = cut == expected * length || cut + 1 == expected * length;
            assert_eq!(reader.torn(), u64::from(!is_between), "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_line_before_the_last_is_an_error_that_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        std::fs::write(&path, b"{\"index\": nonsense}\n{}\n").unwrap();
        let error = SegmentReader::open(&path).unwrap().next_record().unwrap_err().to_string();
        assert!(error.contains("s.jsonl") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_path() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut writer = SegmentWriter::from_file(full, Path::new("/runs/r/s.jsonl")).unwrap();
        let appended = (0..100_000).try_for_each(|i| writer.append(record(i)));
        let error = match appended {
            Err(error) => error,
            Ok(()) => writer.close().unwrap_err(),
        };
        assert_eq!(error.to_string(), "cannot write /runs/r/s.jsonl");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("No space left"), "{cause}");
    }

    #[test]
    fn a_record_is_on_disk_while_the_segment_is_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        let mut writer = SegmentWriter::create(&path).unwrap();
        writer.append(record(7)).unwrap();
        let is_there = (0..2000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            std::fs::read(&path).unwrap().ends_with(b"\n")
        });
        assert!(is_there, "the record waits in a buffer of ours");
    }
}
