//! Asks the machines: the only part of the doctor that touches any.
//!
//! **Invariant:** read-only. One script a machine collects facts; beside it there are a few dates asked
//! for over the same channel, and one TCP connection that is closed at once. No value of a variable that
//! may hold a secret is asked for.

use super::checks;
use super::facts::Facts;
use super::machine::{Machine, peers};
use super::sections::{Known, Unknown};
use super::seen::{ClockOffset, Unreached};
use crate::error::in_words;
use crate::host::{Shell, ShellError, quote, side_by_side};
use crate::remote::COMMON;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, Plan, Platform};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout};

/// Functions that collect facts.
pub(crate) const PROBE: &str = include_str!("probe.sh");
/// A host that takes longer has a driver or a file system that hangs.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// For the tools of clusters beside that: each is left after seconds, and there are several.
const CLUSTERS_LIMIT: Duration = Duration::from_secs(120);
/// For all dates of a clock, the way there included.
const CLOCK_LIMIT: Duration = Duration::from_secs(20);
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// The narrowest of so many rounds bounds the offset of a clock.
const ROUNDS: usize = 8;
/// Variables of a plan that move the model cache.
const CACHE_VARIABLES: [&str; 2] = ["HF_HOME", "HF_HUB_CACHE"];

/// What to ask one machine.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    shell: Shell,
    script: String,
    limit: Duration,
    dial: Option<(String, u16)>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) facts: Result<Facts, Unreached>,
    pub(super) clock: Known<ClockOffset>,
    pub(super) rtt: Known<Nanos>,
}

/// One errand a machine, in their order.
pub(super) fn errands(
    plan: &Plan,
    deployments: &[&DeploymentPlan],
    machines: &[Machine<'_>],
) -> Vec<Errand> {
    let errand = |machine: &Machine<'_>| Errand {
        shell: machine.shell.clone(),
        script: script(plan, deployments, machines, machine),
        limit: match machine.shell == Shell::Here && !tools(deployments, machines).is_empty() {
            true => PROBE_LIMIT + CLUSTERS_LIMIT,
            false => PROBE_LIMIT,
        },
        dial: machine.hosts.first().map(|host| (host.addr.clone(), machine.first_port())),
    };
    machines.iter().map(errand).collect()
}

/// The functions, and the calls of those whose facts the plan needs of this machine.
fn script(
    plan: &Plan,
    deployments: &[&DeploymentPlan],
    machines: &[Machine<'_>],
    machine: &Machine<'_>,
) -> String {
    let mut calls = String::from("base\n");
    // Writing to a String cannot fail.
    for (program, path) in programs(machine).into_iter().filter(|_| !machine.is_in_containers()) {
        let (path, program) = (on_path(path), quote(program));
        let _ = writeln!(calls, "({path}program {program}; versions {program})");
    }
    for (port, _) in machine.ports().keys() {
        let _ = writeln!(calls, "held {port}");
    }
    for (name, addr, port) in peers(machines, machine) {
        let _ = writeln!(calls, "peer {} {} {port}", quote(&name), quote(addr));
    }
    if machine.on_gpus().is_ok() {
        calls.push_str("gpus\n");
    }
    if machine.loading().is_ok() && !machine.is_in_containers() {
        calls.push_str(&model_call("model", plan, machine));
    }
    if machine.shell == Shell::Here {
        calls.push_str(&tools(deployments, machines));
    }
    whole("", &calls)
}

/// The functions, `more` of them, and `calls`, a line each.
pub(crate) fn whole(more: &str, calls: &str) -> String {
    format!("{COMMON}\n{PROBE}\n{more}\nmain() {{\n{calls}section end\n}}\nmain </dev/null\n")
}

/// What lets a call look for programs along `path`, where the plan gives one.
pub(crate) fn on_path(path: Option<&str>) -> String {
    path.map_or(String::new(), |path| format!("PATH={}; ", quote(path)))
}

/// The line that has `function` look at the model of `plan`.
pub(crate) fn model_call(function: &str, plan: &Plan, machine: &Machine<'_>) -> String {
    let revision = plan.model.revision.as_deref().unwrap_or_default();
    let (id, revision) = (quote(&plan.model.id), quote(revision));
    format!("({}{function} {id} {revision})\n", cache(machine))
}

/// Programs of the plan on a machine but our own, each with the search path that the plan gives it.
pub(crate) fn programs<'a>(machine: &Machine<'a>) -> BTreeMap<&'a str, Option<&'a str>> {
    let of = |process: &'a scalebeam_model::plan::ProcessPlan| {
        (process.program.as_str(), process.env.get("PATH").and_then(EnvValue::given))
    };
    let all = machine.duties.iter().map(|d| of(d.process));
    // On this machine it is the one that asks.
    let is_asker = |program: &str| machine.shell == Shell::Here && program == "scalebeam";
    all.filter(|(program, _)| !is_asker(program)).collect()
}

/// Assignments of what the plan says of the model cache.
pub(crate) fn cache(machine: &Machine<'_>) -> String {
    let mut assignments = String::new();
    for name in CACHE_VARIABLES {
        let value =
            machine.duties.iter().find_map(|d| d.process.env.get(name).and_then(EnvValue::given));
        if let Some(value) = value {
            let _ = write!(assignments, "{name}={}; ", quote(value));
        }
    }
    assignments
}

fn tools(deployments: &[&DeploymentPlan], machines: &[Machine<'_>]) -> String {
    // A job that has its nodes need not ask whether there are any.
    let has_none = |d: &DeploymentPlan| !machines.iter().any(|m| m.serves(d));
    let uses_slurm = deployments.iter().any(|d| d.platform == Platform::Slurm && has_none(d));
    let slurm = if uses_slurm { "slurm\n" } else { "" };
    checks::kubernetes::calls(deployments) + slurm + &checks::modal::calls(deployments)
}

/// Runs all errands at the same time; what they brought is in their order.
pub(super) async fn run(errands: Vec<Errand>, clock: &Arc<dyn Clock>) -> Vec<Brought> {
    let runs = errands.into_iter().map(|errand| {
        let clock = Arc::clone(clock);
        async move { errand.run(clock.as_ref()).await }
    });
    let brought = side_by_side(runs).await;
    brought.into_iter().map(|b| b.unwrap_or_else(Brought::nothing)).collect()
}

impl Brought {
    /// Of an errand that broke off.
    fn nothing() -> Self {
        Self::nothing_because("the question broke off")
    }

    /// Of an errand that nobody went on.
    pub(super) fn nothing_because(why: &str) -> Self {
        let unknown = || Unknown::because(why);
        let facts = Err(Unreached { said: why.to_owned(), hint: "try again".to_owned() });
        Self { facts, clock: Err(unknown()), rtt: Err(unknown()) }
    }
}

impl Errand {
    async fn run(self, clock: &dyn Clock) -> Brought {
        let (facts, offset, rtt) =
            tokio::join!(self.facts(), offset(&self.shell, clock), self.rtt(clock));
        Brought { facts, clock: offset, rtt }
    }

    async fn facts(&self) -> Result<Facts, Unreached> {
        let ran = self.shell.run(&self.script, self.limit).await.map_err(unreached)?;
        Ok(Facts::read(&ran.stdout))
    }

    async fn rtt(&self, clock: &dyn Clock) -> Known<Nanos> {
        if self.shell == Shell::Here {
            return Err(Unknown::because("it is this machine"));
        }
        let (addr, port) = self.dial.as_ref().ok_or_else(|| Unknown::because("no address"))?;
        let begun = clock.now();
        let dialled = TcpStream::connect((addr.as_str(), *port));
        match tokio::time::timeout(DIAL_LIMIT, dialled).await {
            Ok(Ok(_)) => Ok(clock.now().since(begun)),
            // The far end's refusal came the same way.
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Ok(clock.now().since(begun))
            }
            Ok(Err(error)) => Err(Unknown(format!("{addr}:{port}: {error}"))),
            Err(_) => Err(Unknown(format!("{addr}:{port} gave no answer"))),
        }
    }
}

fn unreached(error: ShellError) -> Unreached {
    Unreached { said: in_words(&error), hint: error.hint() }
}

/// How far the clock behind `shell` is from ours: dates asked for in turn on one open channel. The true
/// offset is within half a round trip, whatever the way there and back have of it.
async fn offset(shell: &Shell, clock: &dyn Clock) -> Known<ClockOffset> {
    if *shell == Shell::Here {
        return Err(Unknown::because("it is the clock that the others are held against"));
    }
    match tokio::time::timeout(CLOCK_LIMIT, ping_pong(shell, clock)).await {
        Ok(offset) => offset,
        Err(_) => Err(Unknown::because("the host gave no date in time")),
    }
}

async fn ping_pong(shell: &Shell, clock: &dyn Clock) -> Known<ClockOffset> {
    let broken = |what: &str| Unknown(format!("asking for the date failed: {what}"));
    let started = shell.start(Stdio::piped(), Stdio::null());
    let mut child: Child = started.map_err(|e| broken(&e.to_string()))?;
    let (Some(mut ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(broken("no channel"));
    };
    let mut answers = BufReader::new(answers).lines();
    let mut best: Option<ClockOffset> = None;
    for _ in 0..ROUNDS {
        let found = round(&mut ask, &mut answers, clock).await?;
        if best.is_none_or(|b| found.bound_ms < b.bound_ms) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| broken("no answer"))
}

async fn round(
    ask: &mut ChildStdin,
    answers: &mut Lines<BufReader<ChildStdout>>,
    clock: &dyn Clock,
) -> Known<ClockOffset> {
    let broken = |e: std::io::Error| Unknown(format!("asking for the date failed: {e}"));
    let (asked_unix, asked) = (clock.unix_now(), clock.now());
    ask.write_all(b"date +%s%N\n").await.map_err(broken)?;
    ask.flush().await.map_err(broken)?;
    let line = answers.next_line().await.map_err(broken)?;
    let took = clock.now().since(asked);
    let said = line.ok_or_else(|| Unknown::because("the host closed the channel"))?;
    let there = said.trim().parse::<u64>();
    let there =
        there.map_err(|_| Unknown(format!("the host's date knows no nanoseconds: {said}")))?;
    let half_ms = took.as_millis_f64() / 2.0;
    let ahead_ms = Nanos(there).millis_after(asked_unix);
    Ok(ClockOffset { offset_ms: ahead_ms - half_ms, bound_ms: half_ms })
}

#[cfg(test)]
mod tests {
    use super::super::machine::machines;
    use super::super::testing::{emulated, two_nodes};
    use super::*;
    use scalebeam_model::clock::ManualClock;

    fn scripts(plan: &Plan) -> Vec<String> {
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(plan, &deployments);
        errands(plan, &deployments, &machines).into_iter().map(|e| e.script).collect()
    }

    /// What is asked for beside the base, without the functions.
    fn calls(script: &str) -> Vec<&str> {
        let (_, main) = script.split_once("main() {\n").unwrap();
        main.lines().filter(|l| *l != "base").take_while(|l| *l != "section end").collect()
    }

    #[test]
    fn a_host_is_asked_for_what_the_plan_needs_of_it() {
        let scripts = scripts(&two_nodes());
        assert_eq!(calls(&scripts[0]), [""; 0]);
        assert_eq!(
            calls(&scripts[2]),
            [
                "(program ray; versions ray)",
                "peer head 10.0.0.1 6379",
                "gpus",
                "(model org/Model-32B '')",
            ]
        );
    }

    #[test]
    fn of_the_variables_of_a_plan_only_paths_are_in_a_script() {
        let mut plan = two_nodes();
        for process in &mut plan.deployments[0].processes {
            for (name, value) in
                [("HF_HOME", "/big disk"), ("API_TOKEN", "hush"), ("PATH", "/v/bin")]
            {
                process.env.insert(name.into(), EnvValue::Set(value.into()));
            }
        }
        let scripts = scripts(&plan);
        let calls = calls(&scripts[2]);
        assert!(calls.contains(&"(HF_HOME='/big disk'; model org/Model-32B '')"), "{calls:?}");
        assert!(calls.contains(&"(PATH=/v/bin; program ray; versions ray)"), "{calls:?}");
        assert!(scripts.iter().all(|s| !s.contains("hush")));
    }

    #[tokio::test]
    async fn this_machine_tells_what_every_linux_knows() {
        let plan = emulated();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(&plan, &deployments);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let brought = run(errands(&plan, &deployments, &machines), &clock).await;
        let facts = brought[0].facts.as_ref().unwrap();
        assert!(facts.cpus.as_ref().is_ok_and(|n| *n > 0), "{:?}", facts.cpus);
        assert!(facts.listeners.is_ok() && facts.open_files.is_ok(), "{facts:?}");
        assert!(facts.links.as_ref().is_ok_and(|l| l.contains_key("lo")), "{:?}", facts.links);
        let why = facts.gpus.as_ref().unwrap_err().to_string();
        assert_eq!(why, "the host said nothing of 'gpus'");
        assert!(brought[0].clock.is_err() && brought[0].rtt.is_err());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_left_and_said_to_hang() {
        let script = format!(
            "{PROBE}\nask slow 1 sleep 30\nask bad 5 sh -c 'echo no; exit 3'\nask none 5 no-such-program\nsection end\n"
        );
        let ran = Shell::Here.run(&script, PROBE_LIMIT).await.unwrap();
        assert_eq!(
            ran.stdout,
            "\n@@ slow\n\n@- sleep gave no answer within 1 s\n\n@@ bad\nno\n\n@- sh ended with status 3\n\n@@ none\n\n@- no-such-program is not installed\n\n@@ end\n"
        );
    }

    #[tokio::test]
    async fn an_lspci_that_lists_nothing_says_nothing_of_acs() {
        let silent = "d=$(mktemp -d)\nprintf '#!/bin/sh\\nexit 1\\n' >\"$d/lspci\"\nchmod +x \"$d/lspci\"\n\
                      PATH=$d:$PATH\nacs\nrm -r \"$d\"";
        let why = asked(silent).await.acs.unwrap_err().to_string();
        assert_eq!(why, "lspci lists no device");
    }

    /// What the functions say when `calls` are made of them.
    async fn asked(calls: &str) -> Facts {
        let script = format!("{PROBE}\nmain() {{\n{calls}\nsection end\n}}\nmain </dev/null\n");
        Facts::read(&Shell::Here.run(&script, PROBE_LIMIT).await.unwrap().stdout)
    }

    fn write(file: &std::path::Path, text: &str) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    #[tokio::test]
    async fn a_model_is_found_in_the_cache_of_the_hub_by_its_main_revision_or_a_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("hub/models--org--Model");
        write(&repo.join("refs/main"), "abc");
        write(&repo.join("snapshots/abc/config.json"), r#"{"num_attention_heads": 8}"#);
        write(&repo.join("snapshots/abc/model.safetensors"), "12345");
        let home = quote(dir.path().to_str().unwrap());
        let here = |model: &str| format!("(unset HF_HUB_CACHE; HF_HOME={home}; model {model})");

        let found = asked(&here("org/Model ''")).await.model;
        assert!(found.place.is_ok_and(|p| p.ends_with("snapshots/abc")));
        assert_eq!(found.config.unwrap()["num_attention_heads"], 8);
        assert_eq!(found.weight_bytes, Ok(5));
        assert_eq!(found.hashes.unwrap()["config.json"].len(), 64);

        let other = asked(&here("org/Model def")).await;
        assert!(other.model.place.unwrap_err().to_string().starts_with("neither org/Model nor"));
        assert!(other.disk.is_ok(), "{:?}", other.disk);
    }

    #[tokio::test]
    async fn a_model_of_one_file_has_a_size_and_no_config() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.gguf");
        write(&file, "123");
        let found = asked(&format!("model {} ''", quote(file.to_str().unwrap()))).await.model;
        assert_eq!((found.place.is_ok(), found.weight_bytes), (true, Ok(3)));
        assert!(found.config.unwrap_err().to_string().contains("one file"));
    }

    #[tokio::test]
    async fn versions_are_those_beside_the_python_that_runs_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("engine");
        write(&program, "#!/usr/bin/env python3\n");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = program.to_str().unwrap();
        let quoted = quote(name);
        let facts = asked(&format!("program {quoted}; versions {quoted}; versions sh")).await;
        assert_eq!(facts.programs[name].as_deref(), Ok(name));
        let versions = facts.versions[name].as_ref().unwrap();
        assert!(versions["python"].starts_with("3."), "{versions:?}");
        assert_eq!(facts.versions.len(), 1);
    }
}
