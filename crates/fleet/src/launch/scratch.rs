//! The directory that a deployment's processes may write to, and that goes with it.
//!
//! An engine writes `{scratch}` where it needs one (the data of etcd, a file for discovery) and `{run}`
//! where names of two runs must differ; both are known only when the run has begun.

use super::Mark;
use crate::error::FleetError;
use crate::remote;
use scalebeam_model::plan::{DeploymentPlan, EnvValue};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

const SCRATCH: &str = "{scratch}";
const RUN: &str = "{run}";

/// `text` with what is known by now.
pub(super) fn fill(text: &str, mark: &Mark, scratch: &str) -> String {
    text.replace(SCRATCH, scratch).replace(RUN, &mark.run)
}

/// The values of `env` with what is known by now.
pub(super) fn fill_env(
    env: &BTreeMap<String, EnvValue>,
    mark: &Mark,
    scratch: &str,
) -> BTreeMap<String, EnvValue> {
    let filled = |value: &EnvValue| match value {
        EnvValue::Set(text) => EnvValue::Set(fill(text, mark, scratch)),
        EnvValue::Inherit { .. } => EnvValue::INHERIT,
    };
    env.iter().map(|(name, value)| (name.clone(), filled(value))).collect()
}

/// Writes `files` into the directory `scratch` of this machine, where they are this user's alone.
///
/// # Errors
/// The first that cannot be written.
pub(super) fn write(files: &BTreeMap<String, String>, scratch: &str) -> Result<(), FleetError> {
    for (name, text) in files {
        let path = Path::new(scratch).join(name);
        std::fs::write(&path, text).map_err(|source| FleetError::File {
            action: "write",
            path,
            source,
        })?;
    }
    Ok(())
}

/// The directory on this machine for `plan`, where one of its processes asks for it. Not in the run
/// directory: that may lie on a network's disk, which etcd for one does not bear.
///
/// # Errors
/// When it cannot be made, or is somebody else's.
pub(super) fn of(plan: &DeploymentPlan, mark: &Mark) -> Result<Option<String>, FleetError> {
    let set = |value: &EnvValue| value.given().is_some_and(|text| text.contains(SCRATCH));
    let asks = plan
        .processes
        .iter()
        .any(|p| p.args.iter().any(|arg| arg.contains(SCRATCH)) || p.env.values().any(set));
    if !asks {
        return Ok(None);
    }
    let base =
        std::env::temp_dir().join(format!("scalebeam-{}", rustix::process::getuid().as_raw()));
    let dir = remote::dir_of(&base.to_string_lossy(), mark, &plan.name);
    for path in [&base, Path::new(&dir)] {
        own_dir(path).map_err(|source| FleetError::File {
            action: "create",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(Some(dir))
}

/// Makes a directory for this user alone, or finds that it is one.
fn own_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let found = path.symlink_metadata()?;
    if found.is_dir() && found.uid() == rustix::process::getuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it is there and is not a directory of this user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_only_now_is_filled_in() {
        let mark = Mark { run: "r1".into(), dir: "/d".into() };
        assert_eq!(fill("{scratch}/etcd-{run}", &mark, "/tmp/s"), "/tmp/s/etcd-r1");
        assert_eq!(fill(r#"{"kv_role":"kv_both"}"#, &mark, "/tmp/s"), r#"{"kv_role":"kv_both"}"#);
    }

    #[test]
    fn a_directory_is_ours_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        own_dir(&dir.path().join("new")).unwrap();
        own_dir(&dir.path().join("new")).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("link")).unwrap();
        assert!(own_dir(&dir.path().join("link")).is_err());
    }
}
