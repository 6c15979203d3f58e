//! A shell in a container of a pod, by the site's own `kubectl exec`.
//!
//! **Invariants.** kubectl asks nothing, and is told context, namespace and container: whatever the kubeconfig or an
//! annotation says by then, it is the same container. No limit of ours is given to it: one would end a way to an agent
//! in the midst of a measurement.

use serde::{Deserialize, Serialize};
use std::process::{Command, ExitStatus};

/// How kubectl ends where what it ran ended so.
const ENDED: &str = "command terminated with exit code";

/// What is said where the pod, or that container of it, is no more.
const OVER: [&str; 5] = [
    "(NotFound)",
    "pod does not exist",
    "cannot exec into a container in a completed pod",
    "container not found",
    "cannot exec in a stopped",
];

/// What is said of an image that has no shell, by runc and crun; behind it kubectl may tell of an exit code.
const NO_SHELL: [&str; 3] =
    ["executable file not found", "executable file `sh` not found", "no such file or directory"];

/// What kubectl or a container's runtime says, and what helps.
const HINTS: &[(&str, &str)] = &[
    (
        "orbidden",
        "agents come into pods by `kubectl exec`: this user needs `create` and `get` of pods/exec in that namespace",
    ),
    ("must be logged in", "log in to the cluster: try `kubectl auth whoami`"),
    ("Unauthorized", "log in to the cluster: try `kubectl auth whoami`"),
    (
        "pgrade",
        "what is between here and the API server must let connections be upgraded, which `kubectl exec` needs",
    ),
    ("was refused", "the API server does not answer: see `kubectl cluster-info`"),
    ("Unable to connect", "the API server does not answer: see `kubectl cluster-info`"),
];

/// A place for shells: a container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// Context of the kubeconfig; absent where scalebeam is a pod that uses its service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container.
    pub container: String,
}

impl Pod {
    /// What starts a shell there that takes its script by standard input.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["exec", "--stdin", "--quiet", &self.name, "--container", &self.container]);
        command.args(["--namespace", &self.namespace]);
        command.args(self.context.iter().flat_map(|context| ["--context", context.as_str()]));
        command.args(["--", "sh", "-s"]);
        command
    }
}

/// What was said, where `kubectl` or the container's runtime and not a script failed; nothing where a script ended, with
/// whatever status.
pub(super) fn failure(status: ExitStatus, stderr: &str) -> Option<String> {
    if status.success() {
        return None;
    }
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    // A runtime that finds no shell may be told of as if that had run.
    let is_no_shell = |line: &str| line.contains("exec") && lacks_shell(line);
    if let Some(line) = lines.clone().find(|line| is_no_shell(line)) {
        return Some(line.to_owned());
    }
    if lines.clone().any(|line| line.starts_with(ENDED)) {
        return None;
    }
    let said = |line: &&str| line.starts_with("error:") || line.starts_with("Error from server");
    let own: Vec<&str> = lines.clone().filter(said).collect();
    let all: Vec<&str> = if own.is_empty() { lines.collect() } else { own };
    Some(if all.is_empty() { "the connection broke".to_owned() } else { all.join("; ") })
}

fn lacks_shell(said: &str) -> bool {
    NO_SHELL.iter().any(|words| said.contains(words))
}

/// Whether `said` means that nothing of that container runs any more.
pub(super) fn is_over(said: &str) -> bool {
    OVER.iter().any(|words| said.contains(words))
}

/// What to do where this was `said`.
pub(super) fn hint(said: &str) -> String {
    if lacks_shell(said) {
        return "its image has no shell, so nothing can be read in it: let node_exporter or dcgm-exporter tell of its \
                node, by [telemetry.node_exporter]"
            .to_owned();
    }
    let known = HINTS.iter().find(|(words, _)| said.contains(words));
    known.map_or("see whether kubectl exec works there by hand", |(_, hint)| hint).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    /// Words of kubectl 1.32 and 1.37, containerd 1.7 and CRI-O 1.31.
    #[test]
    fn what_kubectl_says_of_itself_is_told_from_what_it_ran() {
        assert_eq!(failure(status(0), "Warning: whatever\n"), None);
        let own = "no room\ncommand terminated with exit code 73\n";
        assert_eq!(failure(status(73), own), None);
        let no = "Error from server (Forbidden): pods \"p\" is forbidden: User \"u\" cannot create resource \
                  \"pods/exec\" in API group \"\" in the namespace \"bench\"\n";
        let said = failure(status(1), no).unwrap();
        assert!(said.starts_with("Error from server (Forbidden)") && !is_over(&said), "{said}");
        assert!(hint(&said).contains("pods/exec"), "{}", hint(&said));
        let newer = "E0101 00:00:00.000000 1 v2.go:105] \"Copying stdin failed\" err=\"websocket: close sent\"\n\
                     error: unable to upgrade connection: pods \"p\" is forbidden: User \"u\" cannot create \
                     resource \"pods/exec\" in API group \"\" in the namespace \"bench\"\n";
        let said = failure(status(1), newer).unwrap();
        assert!(said.starts_with("error: unable to upgrade") && !is_over(&said), "{said}");
        assert!(hint(&said).contains("pods/exec"), "{}", hint(&said));
        assert_eq!(failure(status(1), "").unwrap(), "the connection broke");
    }

    #[test]
    fn an_image_without_a_shell_is_told_however_its_runtime_says_it() {
        let containerd = "error: Internal error occurred: error executing command in container: failed to exec in \
                          container: failed to start exec \"8a\": OCI runtime exec failed: exec failed: unable to \
                          start container process: exec: \"sh\": executable file not found in $PATH: unknown\n";
        let crio = "time=\"2026-01-01T00:00:00Z\" level=error msg=\"exec failed: unable to start container process: \
                    exec: \\\"sh\\\": executable file not found in $PATH\"\ncommand terminated with exit code 255\n";
        for (code, said) in [(1, containerd), (255, crio)] {
            let said = failure(status(code), said).unwrap();
            assert!(hint(&said).contains("has no shell"), "{said}");
            assert!(!is_over(&said), "{said}");
        }
        // A script that says so itself, of a program of its own, has run.
        let own = "sh: 1: foo: not found\ncommand terminated with exit code 127\n";
        assert_eq!(failure(status(127), own), None);
    }

    #[test]
    fn a_pod_that_is_gone_has_nothing_of_ours() {
        for said in [
            "Error from server (NotFound): pods \"p\" not found",
            "error: cannot exec into a container in a completed pod; current phase is Succeeded",
            "error: Internal error occurred: unable to upgrade connection: container not found (\"main\")",
        ] {
            assert!(is_over(&failure(status(1), said).unwrap()), "{said}");
        }
    }

    #[test]
    fn the_same_container_is_asked_whatever_the_kubeconfig_says_by_then() {
        let pod = Pod {
            context: Some("lab".into()),
            namespace: "bench".into(),
            name: "one-0".into(),
            container: "main".into(),
        };
        let words = |pod: &Pod| -> Vec<String> {
            pod.command().get_args().map(|a| a.to_string_lossy().into_owned()).collect()
        };
        let want =
            "exec --stdin --quiet one-0 --container main --namespace bench --context lab -- sh -s";
        assert_eq!(words(&pod).join(" "), want);
        assert!(!words(&Pod { context: None, ..pod }).contains(&"--context".to_owned()));
    }
}
