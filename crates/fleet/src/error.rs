//! What can go wrong with a deployment, in words that name the process, the host and the next step.

use crate::host::ShellError;
use crate::launch::NotKept;
use crate::render::RenderError;
use scalebeam_model::doctor::Finding;
use scalebeam_model::plan::{GateKind, Platform};
use scalebeam_model::units::Nanos;
use std::fmt;
use std::path::PathBuf;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// Its exit status, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl Exit {
    /// What a shell's status of a process stands for: above 128 it is a signal.
    pub(crate) fn of_shell(status: Option<i32>) -> Self {
        match status {
            Some(status) if status > 128 => Self { code: None, signal: Some(status - 128) },
            code => Self { code, signal: None },
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self { code: status.code(), signal: status.signal() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "status {code}"),
            (None, Some(signal)) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            (None, None) => f.write_str("an unknown status"),
        }
    }
}

const fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// A process that ended although it was needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Id of the process in the plan.
    pub process: String,
    /// Its host.
    pub host: String,
    /// Its pid.
    pub pid: i32,
    /// Its command line.
    pub command: String,
    /// How it ended.
    pub exit: Exit,
    /// Last lines of its log, at most fifteen.
    pub tail: Vec<String>,
    /// Where its log is.
    pub log: PathBuf,
    /// What is known about this failure.
    pub known: Option<&'static str>,
}

/// A process that runs but does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Id of the process in the plan.
    pub process: String,
    /// `host b`; the platform, where that starts processes itself.
    pub place: String,
    /// That its host cannot be asked, and why.
    pub unreached: Option<String>,
    /// What it was doing, where its log tells.
    pub phase: Option<String>,
    /// How long its log has not grown, where that is watched.
    pub silent: Option<Nanos>,
    /// Last line of its log, empty where it wrote none.
    pub last_line: String,
    /// Where its log is.
    pub log: PathBuf,
}

/// Why a deployment could not be brought up, watched or taken down.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// This version cannot bring it up.
    #[error("deployment '{deployment}' cannot be brought up: {reason}")]
    Unsupported {
        /// The deployment.
        deployment: String,
        /// Why.
        reason: String,
    },
    /// A program that the plan names is not on this machine.
    #[error("program '{program}' of process {process} is not on host {host}")]
    ProgramMissing {
        /// Id of the process.
        process: String,
        /// Its host.
        host: String,
        /// What the plan names.
        program: String,
        /// What to do about it.
        advice: String,
    },
    /// A model that the plan names is not on this machine.
    #[error("model '{model}' of process {process} is not on this machine")]
    ModelAbsent {
        /// Id of the process.
        process: String,
        /// What the plan names.
        model: String,
        /// What to do about it.
        advice: String,
    },
    /// A flag that the managed llama.cpp server does not have.
    #[error("the managed llama.cpp server has no flag '{flag}' (process {process})")]
    FlagUnknown {
        /// Id of the process.
        process: String,
        /// The flag.
        flag: String,
    },
    /// A port of the plan is taken.
    #[error("port {port} on {addr}, needed by process {process}, is taken{by}")]
    PortTaken {
        /// Id of the process.
        process: String,
        /// Address.
        addr: String,
        /// Port.
        port: u16,
        /// ` by NAME (pid N)`, or empty where the listener could not be named.
        by: String,
    },
    /// A port of the plan cannot be listened on, whoever asks.
    #[error("process {process} cannot listen on {addr}:{port}")]
    PortUnusable {
        /// Id of the process.
        process: String,
        /// Address.
        addr: String,
        /// Port.
        port: u16,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused to start a process.
    #[error("cannot start process {process} on host {host}: `{command}`")]
    Spawn {
        /// Id of the process.
        process: String,
        /// Its host.
        host: String,
        /// Its command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file that fleet writes or reads could not be.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `write`, `read`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A process ended while it was needed.
    #[error("process {} on host {} (pid {}) ended with {}: `{}`{}", .0.process, .0.host, .0.pid, .0.exit, .0.command, indent(&.0.tail))]
    Exited(Box<Death>),
    /// A host could not be asked.
    #[error("host {host} cannot be asked{needed_for}")]
    Host {
        /// Its name in the file.
        host: String,
        /// ` to WHAT`.
        needed_for: String,
        /// Why.
        #[source]
        source: ShellError,
    },
    /// A host answers, and cannot do what is asked of it.
    #[error("host {host}: {said}")]
    HostUnfit {
        /// Its name in the file.
        host: String,
        /// What is wrong with it.
        said: String,
        /// What to do about it.
        advice: String,
    },
    /// A process that was needed cannot be watched any more.
    #[error("process {process} on host {host} was lost: {said}{}", last_said(last_line, log))]
    HostLost {
        /// Id of the process.
        process: String,
        /// Its host.
        host: String,
        /// What happened to the connection.
        said: String,
        /// Last line of its log, empty where it wrote none.
        last_line: String,
        /// Where what came of its log is.
        log: PathBuf,
    },
    /// A platform that starts processes itself refused a deployment, ended it, or cannot be asked.
    #[error("deployment '{deployment}' on {}: {what}{}", platform.name(), indent(tail))]
    Platform {
        /// The deployment.
        deployment: String,
        /// The platform.
        platform: Platform,
        /// What happened, in the platform's words.
        what: String,
        /// Last lines of the logs, where there are any.
        tail: Vec<String>,
        /// What to do about it.
        advice: String,
    },
    /// The pod that measures inside of a cluster could not begin, or did not come to its end.
    #[error("the run inside of the cluster: {what}")]
    Inside {
        /// What happened, in the cluster's words.
        what: String,
        /// What to do about it.
        advice: String,
    },
    /// The machines that a platform gave cannot run it.
    #[error(
        "deployment '{deployment}': nothing of it was started; it could not work on its nodes{}",
        lines(findings)
    )]
    NodesUnfit {
        /// The deployment.
        deployment: String,
        /// Checks of the doctor that failed and stop it.
        findings: Vec<Finding>,
    },
    /// What the doctor found could not be kept.
    #[error("deployment '{deployment}': what the doctor found on its nodes cannot be kept")]
    FindingsNotKept {
        /// The deployment.
        deployment: String,
        /// Why.
        #[source]
        source: NotKept,
    },
    /// The files for a platform cannot be written.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The time for readiness, or for one of its gates, is over.
    #[error(
        "deployment '{deployment}' {} {waited}: {doing}{}",
        not_passed(*gate),
        stuck_lines(stuck)
    )]
    NotReady {
        /// The deployment.
        deployment: String,
        /// The gate whose own time is over; absent where that of all is.
        gate: Option<GateKind>,
        /// How long was waited.
        waited: Nanos,
        /// What was waited for, and the last answer.
        doing: String,
        /// Its processes with their last log lines: who does not serve first, the longest silent first of
        /// all.
        stuck: Vec<Stuck>,
        /// What is known about such a log.
        known: Option<&'static str>,
    },
    /// An endpoint answers, but not as an OpenAI-compatible server.
    #[error("{url} gave {got}")]
    WrongAnswer {
        /// What was asked.
        url: String,
        /// What came back, shortened.
        got: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The endpoint does not serve the model.
    #[error("{url} does not list model '{model}'; it lists {listed}")]
    ModelNotServed {
        /// What was asked.
        url: String,
        /// The model of the plan.
        model: String,
        /// What it lists, nearest first.
        listed: String,
        /// The nearest name, where one is near.
        nearest: Option<String>,
    },
    /// Other than the expected number of instances answer.
    #[error("deployment '{deployment}' has {found}, expected {expected}")]
    InstanceCount {
        /// The deployment.
        deployment: String,
        /// Instances found.
        found: String,
        /// Instances expected.
        expected: String,
    },
    /// Ray Serve has given up an application.
    #[error(
        "deployment '{deployment}': Ray Serve could not deploy application {application}: {said}"
    )]
    NotDeployed {
        /// The deployment.
        deployment: String,
        /// The application.
        application: String,
        /// What Ray says.
        said: String,
    },
    /// Decode instances compute the prompts that prefill instances were to compute for them.
    #[error(
        "deployment '{deployment}' is not split: {instances} answered and was sent no key-value bytes, so \
         it computed the prompt again"
    )]
    NothingMoved {
        /// The deployment.
        deployment: String,
        /// The decode instances, each with where its metrics are.
        instances: String,
    },
    /// An address that cannot be asked.
    #[error("'{url}' is not an address that can be asked: {reason}")]
    BadUrl {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// A variable that holds a secret is not set.
    #[error("environment variable {variable}, which holds {what}, is not set or not usable")]
    SecretMissing {
        /// Its name.
        variable: String,
        /// What it should hold.
        what: String,
    },
    /// The caller asked to stop.
    #[error("bringing up deployment '{deployment}' was interrupted")]
    Cancelled {
        /// The deployment.
        deployment: String,
    },
    /// A step of a setup failed.
    #[error("setup of {what} failed: {step}{}", indent(tail))]
    Setup {
        /// What is set up.
        what: &'static str,
        /// The step, with its command.
        step: String,
        /// Last lines of output.
        tail: Vec<String>,
    },
}

impl FleetError {
    /// What to do next, where something is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unsupported { .. } => "bring it up by its own means and attach: platform = \
                \"external\", endpoint = \"http://HOST:PORT\""
                .to_owned(),
            Self::ProgramMissing { advice, .. } | Self::ModelAbsent { advice, .. } => {
                advice.clone()
            }
            Self::FlagUnknown { .. } => "install llama.cpp's own llama-server (put it on PATH, or \
                name it in params.server), or remove the flag from args"
                .to_owned(),
            Self::PortTaken { by, .. } if by.contains("scalebeam") => {
                "an earlier run may still be up: `scalebeam down RUN_DIR`, or choose another port \
                 in the deployment"
                    .to_owned()
            }
            Self::PortTaken { .. } => {
                "stop what listens there, or choose another `port` in the deployment".to_owned()
            }
            Self::PortUnusable { .. } => "the address must belong to this machine and the port be \
                1024 or above; see `addr` of the host and `port` of the deployment"
                .to_owned(),
            Self::Spawn { .. } => "check that the program may be executed by this user".to_owned(),
            Self::File { .. } => "check the path, its permissions, and free space".to_owned(),
            Self::Exited(death) => match death.known {
                Some(known) => known.to_owned(),
                None => format!("the whole log is in {}", death.log.display()),
            },
            Self::Host { source, .. } => source.hint(),
            Self::HostUnfit { advice, .. } => advice.clone(),
            Self::HostLost { host, .. } => format!(
                "see whether host {host} is up and reachable; `scalebeam down RUN_DIR` ends what is \
                 left on it once it is"
            ),
            Self::Platform { advice, .. } | Self::Inside { advice, .. } => advice.clone(),
            Self::NodesUnfit { .. } => "all findings are in doctor.json of the run; --no-doctor starts in spite \
                of them"
                .to_owned(),
            Self::FindingsNotKept { .. } => {
                "check the run directory, its permissions, and free space".to_owned()
            }
            Self::Render(error) => error.hint.clone(),
            Self::NotReady { known: Some(known), .. } => (*known).to_owned(),
            Self::NotReady { stuck, .. } if stuck.iter().any(|s| s.unreached.is_some()) => {
                "see whether the host that cannot be asked is up, and the network to it".to_owned()
            }
            Self::NotReady { gate: Some(gate), .. } => format!(
                "raise `ready = {{ within = {{ {gate} = \"..\" }} }}` if it was only slow; otherwise see \
                 what is named above"
            ),
            Self::NotReady { .. } => "raise `ready = { timeout = \"..\" }` if it was still \
                loading; otherwise see the logs named above"
                .to_owned(),
            Self::WrongAnswer { advice, .. } => (*advice).to_owned(),
            Self::ModelNotServed { nearest: Some(name), .. } => {
                format!("set `served = \"{name}\"` in [model] if that is the one you mean")
            }
            Self::ModelNotServed { .. } => {
                "set `served` in [model] to a name that the endpoint lists".to_owned()
            }
            Self::InstanceCount { .. } => {
                "see the logs of the missing workers, or correct replicas/workers".to_owned()
            }
            Self::NotDeployed { .. } => {
                "correct args, params or place by what Ray says there; the log of the application has more"
                    .to_owned()
            }
            Self::NothingMoved { .. } => {
                "see the decode instance's log for NIXL; both pools need the same \
                --kv-transfer-config, --block-size and version, and a network that joins them \
                (VLLM_NIXL_SIDE_CHANNEL_HOST, UCX_NET_DEVICES, UCX_TLS)"
                    .to_owned()
            }
            Self::BadUrl { .. } => "write it as http://HOST:PORT or https://HOST".to_owned(),
            Self::SecretMissing { variable, .. } => {
                format!("export {variable} before running; its value is never written anywhere")
            }
            Self::Cancelled { .. } => return None,
            Self::Setup { .. } => "pip must reach a package index (PIP_INDEX_URL, PIP_PROXY); run \
                the setup again afterwards, it resumes cleanly"
                .to_owned(),
        })
    }
}

/// The error and what caused it, one after the other.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", in_words(cause)),
        None => error.to_string(),
    }
}

fn last_said(last_line: &str, log: &std::path::Path) -> String {
    match last_line {
        "" => String::new(),
        line => format!("\n    last log line: {line} ({})", log.display()),
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n{}", finding.line())).collect()
}

fn indent(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

fn not_passed(gate: Option<GateKind>) -> String {
    match gate {
        Some(gate) => format!("did not pass gate '{gate}' within"),
        None => "was not ready after".to_owned(),
    }
}

fn stuck_lines(stuck: &[Stuck]) -> String {
    stuck
        .iter()
        .map(|s| {
            let Stuck { process, place, last_line, log, .. } = s;
            let phase = s.phase.as_ref().map_or(String::new(), |phase| format!("{phase}, "));
            let silent = s.silent.map_or(String::new(), |span| format!("silent for {span}; "));
            let said = match last_line.as_str() {
                "" => "wrote no log line".to_owned(),
                line => format!("last log line: {line}"),
            };
            let unreached = s.unreached.as_ref().map_or(String::new(), |why| format!("{why}; "));
            format!(
                "\n    {process} on {place}: {unreached}{phase}{silent}{said} ({})",
                log.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_names_process_host_pid_command_and_tail() {
        let error = FleetError::Exited(Box::new(Death {
            process: "d/0/serve".into(),
            host: "box".into(),
            pid: 7,
            command: "vllm serve m".into(),
            exit: Exit { code: None, signal: Some(9) },
            tail: vec!["one".into(), "two".into()],
            log: "run/logs/x.log".into(),
            known: None,
        }));
        assert_eq!(
            error.to_string(),
            "process d/0/serve on host box (pid 7) ended with signal 9 (SIGKILL): `vllm serve m`\n    one\n    two"
        );
        assert_eq!(error.hint().unwrap(), "the whole log is in run/logs/x.log");
    }
}
