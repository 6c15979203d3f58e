//! Every file name of a run directory, in one place.
//!
//! Names that come from the experiment file become path components only through [`component`], so no
//! name, however odd, can leave the run directory.

use std::path::{Path, PathBuf};

/// Format version, hashes, hosts, clocks, status.
pub const MANIFEST: &str = "manifest.json";
/// The experiment, as given.
pub const EXPERIMENT: &str = "experiment.toml";
/// The plan, as executed.
pub const PLAN: &str = "plan.json";
/// Every state change and every command, before it happens.
pub const JOURNAL: &str = "journal.jsonl";
/// Findings of the checks before the run.
pub const DOCTOR: &str = "doctor.json";
/// Versions, flags and hardware of what really ran.
pub const FINGERPRINT: &str = "fingerprint.json";
/// What the instrument was worth before the run, where that was measured.
pub const FLOOR: &str = "floor.json";
/// What analysis says of the run.
pub const RESULTS: &str = "results.json";
/// Held locked by the process that writes the run.
pub const LOCK: &str = "writer.lock";
/// Directory of the points.
pub const POINTS: &str = "points";
/// Directory of charts.
pub const CHARTS: &str = "charts";
/// Directory of process output.
pub const LOGS: &str = "logs";

/// State of a trial: begun, or ended with its instants.
pub const TRIAL: &str = "trial.json";
/// Records while the trial runs, one JSON line each.
pub const SEGMENT: &str = "requests.open.jsonl";
/// Records of a sealed trial.
pub const REQUESTS: &str = "requests.parquet";
/// Token arrivals of a sealed trial.
pub const TOKENS: &str = "tokens.parquet";
/// SHA-256 of the tables, as sealed.
pub const DIGESTS: &str = "sealed.json";
/// Readings of machines.
pub const TELEMETRY: &str = "telemetry.parquet";
/// What the engines said, look by look.
pub const ENGINES: &str = "engines.parquet";
/// Metrics page of the engines before and after.
pub const ENGINE_METRICS: &str = "engine.prom";

/// Suffix of a file that has not got its final name yet.
pub const TEMPORARY: &str = ".tmp";

/// The longest path component made from a name; most file systems allow 255 bytes.
const MAX_COMPONENT: usize = 120;

/// A name as one path component: anything but ASCII letters, digits, `.`, `-`, `_`, `+` and `=` becomes
/// `_`; `.`, `..`, hidden and empty names get a `_` in front; a name that had to be changed gets a short
/// hash of the original behind it, so that two names never share a directory.
pub fn component(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=".contains(c);
    let mut safe: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if safe.is_empty() || safe.starts_with('.') {
        safe.insert(0, '_');
    }
    safe.truncate(MAX_COMPONENT);
    if safe != name {
        safe.push('~');
        safe.push_str(&crate::manifest::sha256(name.as_bytes())[..8]);
    }
    safe
}

/// Directory of one trial of a point, below the run directory.
pub fn trial_dir(run: &Path, deployment: &str, load: &str, level: &str, trial: u32) -> PathBuf {
    point_dir(run, deployment, load, level).join(trial.to_string())
}

/// Directory of a point.
pub fn point_dir(run: &Path, deployment: &str, load: &str, level: &str) -> PathBuf {
    run.join(POINTS).join(component(deployment)).join(component(load)).join(component(level))
}

/// `YYYYMMDDTHHMMSSZ-<name>`: sorts by time.
pub fn run_id(created_unix_ns: u64, name: &str) -> String {
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(created_unix_ns))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}-{}", stamp.strftime("%Y%m%dT%H%M%SZ"), component(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_run_directory() {
        for name in ["..", ".", "", "a/b", "../../etc", "a\\b", "a\0b", ".hidden", "ü", "c128"] {
            let safe = component(name);
            assert!(!safe.contains('/') && !safe.starts_with('.') && !safe.is_empty(), "{safe}");
            assert_eq!(Path::new(&safe).components().count(), 1, "{safe}");
        }
        assert_eq!(component("dual-2x4gpu_v1.0"), "dual-2x4gpu_v1.0");
    }

    #[test]
    fn names_that_had_to_change_stay_apart() {
        assert_ne!(component("a/b"), component("a_b"));
        assert_ne!(component("a/b"), component("a\\b"));
        let long = "x".repeat(300);
        assert_ne!(component(&long), component(&"x".repeat(301)));
        assert!(component(&long).len() < 140);
    }

    #[test]
    fn run_ids_sort_by_time() {
        // 2026-11-21T10:15:00Z.
        assert_eq!(run_id(1_795_256_100_000_000_000, "a b"), {
            let tail = component("a b");
            format!("20261121T101500Z-{tail}")
        });
    }
}
