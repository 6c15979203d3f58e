//! The folder that `plan --render` writes into: what is in it, and what of that is ours.

use crate::exit::Failure;
use scalebeam_fleet::render::{Rendered, RenderedFile};
use scalebeam_record::sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The list of what was written, in the same folder.
const LIST: &str = "rendered.json";

/// What was written into a folder: name to SHA-256 of the text.
#[derive(Debug, Default, Serialize, Deserialize)]
struct List {
    files: BTreeMap<String, String>,
}

/// Writes the files of `rendered` into `dir`, and removes those of an earlier time that are no more.
///
/// # Errors
/// Where `dir` has a file that was not written here, or was changed since: nothing is touched then.
pub(crate) fn write(dir: &Path, rendered: &[Rendered]) -> Result<(), Failure> {
    let fail = |path: &Path, e: std::io::Error| {
        Failure::usage(format!("cannot write {}: {e}", path.display()))
            .hint("look at the disk and at who may write there")
    };
    std::fs::create_dir_all(dir).map_err(|e| fail(dir, e))?;
    let old = list(dir)?;
    refuse_foreign(dir, &old)?;
    let files: Vec<&RenderedFile> = rendered.iter().flat_map(|r| &r.files).collect();
    let new =
        List { files: files.iter().map(|f| (f.path.clone(), sha256(f.text.as_bytes()))).collect() };
    // Names only: a list that was tampered with leads nowhere else.
    let is_name = |name: &&String| Path::new(name).file_name().is_some_and(|n| n == name.as_str());
    let gone = old.files.keys().filter(|name| !new.files.contains_key(*name));
    for name in gone.filter(is_name) {
        let path = dir.join(name);
        // It may have been removed by hand already.
        let _ = std::fs::remove_file(path);
    }
    // The list first: a file that is not written whole is then seen as one that was changed.
    let text = serde_json::to_string_pretty(&new)
        .map_err(|e| Failure::internal(format!("cannot write JSON: {e}")))?;
    std::fs::write(dir.join(LIST), text).map_err(|e| fail(&dir.join(LIST), e))?;
    for file in files {
        let path = dir.join(&file.path);
        std::fs::write(&path, &file.text).map_err(|e| fail(&path, e))?;
    }
    Ok(())
}

fn list(dir: &Path) -> Result<List, Failure> {
    match std::fs::read_to_string(dir.join(LIST)) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| {
            Failure::usage(format!(
                "{} is not a list of rendered files: {e}",
                dir.join(LIST).display()
            ))
            .hint("name another folder, or remove that file if it is not needed")
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(List::default()),
        Err(e) => Err(Failure::usage(format!("cannot read {}: {e}", dir.join(LIST).display()))),
    }
}

fn refuse_foreign(dir: &Path, ours: &List) -> Result<(), Failure> {
    let fail = |e| Failure::usage(format!("cannot read {}: {e}", dir.display()));
    let mut foreign = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = || {
            let text = std::fs::read(entry.path()).ok()?;
            Some(ours.files.get(&name)? == &sha256(&text))
        };
        if name != LIST && is_ours() != Some(true) {
            let how = if ours.files.contains_key(&name) { " (changed since)" } else { "" };
            foreign.push(format!("  {name}{how}"));
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.sort();
    Err(Failure::usage(format!(
        "{} has files that `plan --render` did not write; nothing was touched\n{}",
        dir.display(),
        foreign.join("\n")
    ))
    .hint("name an empty folder, or move them elsewhere"))
}
