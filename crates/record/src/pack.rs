//! A whole run directory as one stream, for a way that may break in its midst.
//!
//! **Invariants.** The stream is a tar archive whose last entry lists every file with its SHA-256: one that was cut
//! has no list, and one that differs from its list is refused. Only plain files go in, and only plain files whose
//! path leads below the directory come out.

use crate::error::RecordError;
use crate::layout;
use crate::manifest::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Builder, Entry, EntryType, Header};

/// The last entry of a stream: SHA-256 by path.
const LIST: &str = "packed.json";

/// So much comes at most, and so much of it as the list: a way that never ends must not fill a disk, or memory.
const MOST_BYTES: u64 = 256 << 30;
const MOST_OF_LIST: u64 = 64 << 20;

type List = BTreeMap<String, String>;

/// Writes every file of the run directory `dir` to `out`, but for its lock; how many there were. A directory that is not
/// there has none.
///
/// # Errors
/// When a file cannot be read, or nobody reads `out` any more.
pub fn pack(dir: &Path, out: impl Write) -> Result<usize, RecordError> {
    let mut archive = Builder::new(out);
    let mut list = List::new();
    let files = if dir.exists() { files_below(dir)? } else { Vec::new() };
    for path in files {
        let name = name_of(dir, &path);
        let digest = append(&mut archive, &name, &path).map_err(RecordError::io("pack", &path))?;
        list.insert(name, digest);
    }
    let text = serde_json::to_vec(&list).map_err(RecordError::json(dir))?;
    let mut header = header(text.len() as u64);
    archive
        .append_data(&mut header, LIST, text.as_slice())
        .map_err(RecordError::io("pack", dir))?;
    archive.into_inner().and_then(|mut out| out.flush()).map_err(RecordError::io("pack", dir))?;
    Ok(list.len())
}

/// Writes what [`pack`] wrote, as `from` has it, below `dir`; how many files there were.
///
/// # Errors
/// When the stream was cut or changed on its way, or a file cannot be written. What came until then is in `dir`.
pub fn unpack(from: impl Read, dir: &Path) -> Result<usize, RecordError> {
    unpack_at_most(MOST_BYTES, from, dir)
}

fn unpack_at_most(bytes: u64, from: impl Read, dir: &Path) -> Result<usize, RecordError> {
    let fail = || RecordError::io("unpack into", dir);
    // What is cut off here is told as what was cut on its way.
    let mut archive = Archive::new(from.take(bytes));
    let (mut found, mut list) = (List::new(), None::<List>);
    for entry in archive.entries().map_err(fail())? {
        let mut entry = entry.map_err(fail())?;
        let path = entry.path().map_err(fail())?.into_owned();
        if path == Path::new(LIST) {
            let text = entry.take(MOST_OF_LIST);
            list = Some(serde_json::from_reader(text).map_err(RecordError::json(LIST))?);
            continue;
        }
        if entry.header().entry_type() != EntryType::Regular || !leads_below(&path) {
            let why = "it is no plain file of a run directory";
            return Err(RecordError::damaged(&path, why));
        }
        let digest = write(&mut entry, &dir.join(&path))?;
        found.insert(path.to_string_lossy().into_owned(), digest);
    }
    match list {
        Some(list) if list == found => Ok(found.len()),
        Some(_) => Err(RecordError::damaged(dir, "a file that came is not the one that was sent")),
        None => Err(RecordError::damaged(dir, "the stream with its files was cut")),
    }
}

/// Every plain file below `dir`, sorted, so that the same directory gives the same stream.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let mut files = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).map_err(RecordError::io("read", &dir))? {
            let entry = entry.map_err(RecordError::io("read", &dir))?;
            let kind = entry.file_type().map_err(RecordError::io("read", entry.path()))?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() && entry.file_name() != layout::LOCK {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Its path from `dir`. Names of a run directory are ASCII.
fn name_of(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned()
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header
}

fn append(archive: &mut Builder<impl Write>, name: &str, path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    // As much as was announced, whatever is added meanwhile.
    let mut hashed = Hashed { inner: file.take(bytes), hash: Sha256::new() };
    archive.append_data(&mut header(bytes), name, &mut hashed)?;
    Ok(hashed.digest())
}

fn write(entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<String, RecordError> {
    let fail = || RecordError::io("write", path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail())?;
    }
    let mut hashed = Hashed { inner: entry, hash: Sha256::new() };
    let mut file = File::create(path).map_err(fail())?;
    io::copy(&mut hashed, &mut file).map_err(fail())?;
    Ok(hashed.digest())
}

fn leads_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// What is read is hashed on its way.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashed<R> {
    fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("points").join("d".repeat(110)).join("l").join("c1").join("1");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("tokens.parquet"), vec![7_u8; 100_000]).unwrap();
        std::fs::write(dir.path().join("manifest.json"), "{}").unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        std::fs::write(dir.path().join(layout::LOCK), "").unwrap();
        dir
    }

    fn packed(dir: &Path) -> Vec<u8> {
        let mut stream = Vec::new();
        assert_eq!(pack(dir, &mut stream).unwrap(), 3);
        stream
    }

    #[test]
    fn what_was_packed_is_what_comes_out_but_for_the_lock() {
        let (from, to) = (directory(), tempfile::tempdir().unwrap());
        assert_eq!(unpack(packed(from.path()).as_slice(), to.path()).unwrap(), 3);
        let files = files_below(from.path()).unwrap();
        assert_eq!(files.len(), files_below(to.path()).unwrap().len());
        for file in files {
            let other = to.path().join(name_of(from.path(), &file));
            assert!(std::fs::read(&file).unwrap() == std::fs::read(&other).unwrap(), "{other:?}");
        }
        assert!(!to.path().join(layout::LOCK).exists());
    }

    /// A way through a control plane ends in silence: it must be seen wherever that is.
    #[test]
    fn a_stream_that_was_cut_is_refused_wherever_that_was() {
        let from = directory();
        let whole = packed(from.path());
        let to = tempfile::tempdir().unwrap();
        let needed = whole.len() - 1024;
        for length in (0..needed).step_by(509).chain([needed - 513]) {
            assert!(unpack(&whole[..length], to.path()).is_err(), "{length} of {}", whole.len());
        }
    }

    #[test]
    fn a_stream_without_an_end_is_taken_to_a_limit() {
        let whole = packed(directory().path());
        let to = tempfile::tempdir().unwrap();
        let limit = 50_000;
        assert!(unpack_at_most(limit, whole.as_slice(), to.path()).is_err());
        let files = files_below(to.path()).unwrap();
        let came: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(came < limit, "{came}");
    }

    #[test]
    fn a_byte_that_changed_on_the_way_is_seen() {
        let mut stream = packed(directory().path());
        let at = stream.iter().rposition(|byte| *byte == 7).unwrap();
        stream[at] = 8;
        let error = unpack(stream.as_slice(), tempfile::tempdir().unwrap().path()).unwrap_err();
        assert!(error.to_string().contains("is not the one that was sent"), "{error}");
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let to = tempfile::tempdir().unwrap();
        for name in ["../out", "/tmp/out", "a/../../out"] {
            let mut archive = Builder::new(Vec::new());
            let mut header = header(1);
            // The builder refuses such names itself.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
            let stream = archive.into_inner().unwrap();
            let error = unpack(stream.as_slice(), &to.path().join("run")).unwrap_err();
            assert!(error.to_string().contains("no plain file"), "{name}: {error}");
        }
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    }
}
