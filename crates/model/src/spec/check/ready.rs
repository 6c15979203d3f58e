//! Checks of `ready`: that what it waits for can be looked at.

use crate::plan::Platform;
use crate::spec::{Deploy, Problem};

/// Problems of deployment `index`, which is on `platform`.
pub(super) fn check(
    index: usize,
    deploy: &Deploy,
    platform: Platform,
    problems: &mut Vec<Problem>,
) {
    let Some(ready) = &deploy.ready else { return };
    let path = |key: &str| format!("deploy[{index}].ready.{key}");
    if let Some(health) = &ready.health
        && !is_path(health)
    {
        problems.push(Problem::new(
            path("health"),
            format!("'{health}' is not a path of a URL"),
            "write it from the root of the server, as \"/health\"",
        ));
    }
    let Some(text) = &ready.log else { return };
    if text.trim().is_empty() || text.contains(['\n', '\r']) {
        problems.push(Problem::new(
            path("log"),
            "one line of a log is looked at, and something of it must be said",
            "give a part of the line that says that it serves, as \"startup complete\"",
        ));
    }
    if !platform.places_processes() {
        problems.push(Problem::new(
            path("log"),
            format!(
                "on platform {} scalebeam starts no process, so it reads no log",
                platform.name()
            ),
            "use ready = { health = \"/path\" }, which is asked over HTTP",
        ));
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(|c: char| c.is_whitespace() || c == '#')
}
