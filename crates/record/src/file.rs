//! Writing and reading of whole small files.
//!
//! A file appears under its name whole or not at all: it is written beside it, synced, and renamed.

use crate::error::RecordError;
use crate::layout::TEMPORARY;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// Writes `content` so that `path` holds the old content or the new, never a part of it.
///
/// # Errors
/// When the directory cannot be written or the disk is full; the old content is then still there.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), RecordError> {
    let beside = temporary(path);
    let mut file = File::create(&beside).map_err(RecordError::io("create", &beside))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(source) = written {
        // A half-written neighbour would only confuse; that it cannot be removed changes nothing.
        let _ = std::fs::remove_file(&beside);
        return Err(RecordError::Io { action: "write", path: path.to_owned(), source });
    }
    publish(&beside, path)
}

/// Gives a written and synced file its final name.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), RecordError> {
    std::fs::rename(from, to).map_err(RecordError::io("rename to", to))?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Makes renames in `dir` survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), RecordError> {
    let open = File::open(dir).map_err(RecordError::io("open", dir))?;
    open.sync_all().map_err(RecordError::io("sync", dir))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(RecordError::json(path))?;
    text.push(b'\n');
    write_atomically(path, &text)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let text = std::fs::read(path).map_err(RecordError::io("read", path))?;
    serde_json::from_slice(&text).map_err(RecordError::json(path))
}

/// The `format` field of a JSON file, read on its own so that a newer form is refused for its version
/// and not for the first field that this version does not know.
pub(crate) fn read_format<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    #[derive(serde::Deserialize)]
    struct Versioned<T> {
        format: T,
    }
    Ok(read_json::<Versioned<T>>(path)?.format)
}
