//! The published JSON schemas, generated from the types and compared in CI.

use scalebeam_model::{
    analysis::advise::Advice, analysis::versus::Versus, doctor::DoctorReport,
    fingerprint::Fingerprint, plan::Plan, results::Results, spec::Experiment,
};
use std::path::Path;

fn schemas() -> [(&'static str, serde_json::Value); 7] {
    [
        ("experiment.schema.json", Experiment::json_schema()),
        ("plan.schema.json", Plan::json_schema()),
        ("results.schema.json", Results::json_schema()),
        ("doctor.schema.json", DoctorReport::json_schema()),
        ("fingerprint.schema.json", Fingerprint::json_schema()),
        ("compare.schema.json", Versus::json_schema()),
        ("advise.schema.json", Advice::json_schema()),
    ]
}

fn text(value: &serde_json::Value) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|s| s + "\n").map_err(|e| e.to_string())
}

/// Writes `schemas/*.json`.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    for (name, value) in schemas() {
        let path = root.join("schemas").join(name);
        std::fs::write(&path, text(&value)?).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Fails where a committed schema is not the one that the types give.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    for (name, value) in schemas() {
        let path = root.join("schemas").join(name);
        if crate::read(&path)? != text(&value)? {
            return Err(format!("schemas/{name} is stale; run `cargo xtask schema` and commit it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_schemas_are_fresh() {
        assert_eq!(super::check(&crate::root()), Ok(()));
    }
}
