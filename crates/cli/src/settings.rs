//! Where things are when the command line does not say.

use std::path::PathBuf;

/// Directory that holds run directories when neither the command line nor the file names one.
pub(crate) const RUNS: &str = "runs";

/// What is written into manifests.
pub(crate) const TOOL: &str = concat!("scalebeam ", env!("CARGO_PKG_VERSION"));

fn folder(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Where managed engines live: `SCALEBEAM_CACHE`, else below the user's cache folder.
pub(crate) fn cache_dir() -> PathBuf {
    folder("SCALEBEAM_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|d| d.join("scalebeam")))
        .or_else(|| folder("HOME").map(|d| d.join(".cache/scalebeam")))
        .unwrap_or_else(|| std::env::temp_dir().join("scalebeam-cache"))
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
