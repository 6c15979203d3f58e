//! Dependencies point one way. The rooms and their edges are `ARCHITECTURE.md`'s; any other edge
//! between crates of ours fails here.

use std::path::Path;

/// Each room and the rooms that it may know.
const RULES: &[(&str, &[&str])] = &[
    ("scalebeam-model", &[]),
    ("scalebeam-record", &["scalebeam-model"]),
    ("scalebeam-load", &["scalebeam-model"]),
    ("scalebeam-fleet", &["scalebeam-model"]),
    ("scalebeam-telemetry", &["scalebeam-model"]),
    ("scalebeam-endpoint", &["scalebeam-model"]),
    ("scalebeam-router", &["scalebeam-model", "scalebeam-endpoint"]),
    ("scalebeam-sim", &["scalebeam-model", "scalebeam-endpoint"]),
    ("scalebeam-report", &["scalebeam-model", "scalebeam-record"]),
    (
        "scalebeam",
        &[
            "scalebeam-model",
            "scalebeam-record",
            "scalebeam-load",
            "scalebeam-fleet",
            "scalebeam-telemetry",
            "scalebeam-router",
            "scalebeam-sim",
            "scalebeam-report",
        ],
    ),
    ("xtask", &["scalebeam-model"]),
];

/// What the pure room must never depend on, directly.
const NOT_IN_MODEL: &[&str] = &["tokio", "hyper", "rustix", "reqwest", "tempfile", "jiff"];

/// Checks every crate of the workspace.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    for dir in members(root)? {
        let manifest = crate::read(&dir.join("Cargo.toml"))?;
        let name =
            package_name(&manifest).ok_or_else(|| format!("{} has no name", dir.display()))?;
        let Some((_, allowed)) = RULES.iter().find(|(n, _)| *n == name) else {
            problems.push(format!(
                "'{name}' is no room of ARCHITECTURE.md; add it to xtask/src/layering.rs"
            ));
            continue;
        };
        for dep in dependencies(&manifest) {
            let ours = RULES.iter().any(|(n, _)| *n == dep);
            if ours && !allowed.contains(&dep.as_str()) {
                problems.push(format!("'{name}' must not know '{dep}'"));
            }
            if name == "scalebeam-model" && NOT_IN_MODEL.contains(&dep.as_str()) {
                problems.push(format!("'{name}' is pure and must not use '{dep}'"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn members(root: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let crates = root.join("crates");
    let entries = std::fs::read_dir(&crates).map_err(|e| format!("{}: {e}", crates.display()))?;
    let mut out: Vec<_> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.join("Cargo.toml").is_file())
        .collect();
    out.push(root.join("xtask"));
    out.sort();
    Ok(out)
}

fn package_name(manifest: &str) -> Option<String> {
    let line = manifest.lines().find(|l| l.starts_with("name = "))?;
    Some(line.trim_start_matches("name = ").trim_matches('"').to_owned())
}

/// Names under `[dependencies]`, `[dev-dependencies]` and `[build-dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            out.push(name.trim_matches('"').to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_know_only_the_rooms_they_may() {
        assert_eq!(check(&crate::root()), Ok(()));
    }

    #[test]
    fn every_kind_of_dependency_is_seen() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n\n[dev-dependencies]\nc = { path = \"..\" }\n[lints]\nworkspace = true\n";
        assert_eq!(dependencies(manifest), ["a", "b", "c"]);
    }
}
