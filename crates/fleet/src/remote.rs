//! What is said to a host that is reached by ssh, as a step of a job, or in a pod, and what it answers: scripts and
//! their parsing.
//!
//! **Invariants.** Pure: nothing here runs anything. A script holds every text of ours as one quoted
//! word. It needs a POSIX `sh`, `/proc`, `setsid`, `tail`, `awk`, `grep` and `tr`, and says so where one
//! is absent. It never signals a pid or a group that is not provably of this run (the rules are those
//! of [`crate::process`]).

use crate::host::quote;
use crate::journal::Intent;
use crate::process::{DIR_MARKER, Mark, PROCESS_MARKER, RUN_MARKER};
use scalebeam_model::plan::{EnvValue, PortPlan, ProcessPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Functions on `/proc`, for whatever is asked of a host.
pub(crate) const COMMON: &str = include_str!("remote/common.sh");
const LOOK: &str = include_str!("remote/look.sh");
const START: &str = include_str!("remote/start.sh");
const HOLD: &str = include_str!("remote/hold.sh");
const FOLLOW: &str = include_str!("remote/follow.sh");
const REST: &str = include_str!("remote/rest.sh");
const END: &str = include_str!("remote/end.sh");
const END_TAIL: &str = include_str!("remote/end_tail.sh");
const CLEAN: &str = include_str!("remote/clean.sh");
const AGENT_LOOK: &str = include_str!("remote/agent_look.sh");
const AGENT_TAKE: &str = include_str!("remote/agent_take.sh");

/// What a host said when it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The boot; pids mean nothing beyond it.
    pub(crate) boot_id: String,
    /// Directory for what scalebeam writes there.
    pub(crate) base: String,
    /// Tools that our scripts need and that are absent.
    pub(crate) lacks: Vec<String>,
    /// Programs of the plan that are absent.
    pub(crate) absent: BTreeSet<String>,
    /// Ports of the plan on which somebody listens, and who, as far as it could be seen.
    pub(crate) taken: BTreeMap<u16, String>,
}

/// Looks at a host for `processes`, which are to be started there.
pub(crate) fn look(processes: &[&ProcessPlan]) -> String {
    let mut script = format!("{COMMON}\n{LOOK}\n");
    script.push_str("printf 'base %s\\n' \"${TMPDIR:-/tmp}/scalebeam-$(id -u)\"\n");
    for process in processes {
        // In a subshell: the PATH of one process is not that of the next.
        let path = process.env.get("PATH").and_then(EnvValue::given);
        let path = path.map_or_else(String::new, |p| format!("PATH={}; ", quote(p)));
        let _ = writeln!(script, "( {path}program {} )", quote(&process.program));
        for port in &process.ports {
            let _ = writeln!(script, "port {}", port.port);
        }
    }
    script
}

/// What [`look`] printed; nothing where it is not the answer of our script.
pub(crate) fn parse_look(text: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "boot" => seen.boot_id = rest.to_owned(),
            "base" => seen.base = rest.to_owned(),
            "lacks" => seen.lacks.push(rest.to_owned()),
            "absent" => drop(seen.absent.insert(rest.to_owned())),
            "taken" => {
                let (port, who) = rest.split_once(' ').unwrap_or((rest, ""));
                seen.taken.insert(port.parse().ok()?, who.to_owned());
            }
            // A login script that talks is none of our business.
            _ => {}
        }
    }
    (!seen.boot_id.is_empty() && !seen.base.is_empty()).then_some(seen)
}

/// The directory of a run's deployment on a host, under `base`.
///
/// Its name is as short as can be: the path of a socket may have 107 bytes, and Ray puts its own below a
/// directory whose name alone has 42.
pub(crate) fn dir_of(base: &str, mark: &Mark, deployment: &str) -> String {
    // Two controllers may have runs of one name: their run directories tell them apart.
    let mut hasher = DefaultHasher::new();
    (mark, deployment).hash(&mut hasher);
    format!("{base}/{:08x}", hasher.finish() & 0xffff_ffff)
}

/// The files of process `id` in `dir`, without their endings.
pub(crate) fn file(dir: &str, id: &str) -> String {
    format!("{dir}/{}", plain(id))
}

/// `text` as a file name.
fn plain(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    text.chars().map(keep).collect()
}

/// Starts a process, which reads `files` of its directory; `secrets` are the values of the variables that it
/// inherits.
pub(crate) fn start(
    intent: &Intent,
    files: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) -> String {
    let dir = intent.scratch.as_deref().unwrap_or_default();
    let base = dir.rsplit_once('/').map_or(dir, |(base, _)| base);
    let mut script = format!("{COMMON}\nbase={}\ndir={}\n", quote(base), quote(dir));
    let _ = writeln!(script, "file={}", quote(&file(dir, &intent.process)));
    let given = intent.env.iter().filter_map(|(name, value)| {
        let value = value.given().or_else(|| secrets.get(name).map(String::as_str))?;
        is_name(name).then_some((name.as_str(), value))
    });
    script += &exports(given);
    script += &marks(intent);
    let words = std::iter::once(&intent.program).chain(&intent.args).map(|w| quote(w));
    let _ = writeln!(script, "set -- {}", words.collect::<Vec<_>>().join(" "));
    script.push_str("write_files() {\n:\n");
    for (name, text) in files {
        let path = format!("{dir}/{}", plain(name));
        let _ = writeln!(script, "printf %s {} > {} || return 1", quote(text), quote(&path));
    }
    script.push_str("}\n");
    script + START
}

/// Runs a process to its end, beside whose directory `own` its `copied` program may lie; its first line is as that of
/// [`start`]. What it writes goes with it.
pub(crate) fn hold(intent: &Intent, own: &str, copied: Option<&str>) -> String {
    let dir = intent.scratch.as_deref().unwrap_or_default();
    let base = dir.rsplit_once('/').map_or(dir, |(base, _)| base);
    let [base, dir, own, program] = [base, dir, own, copied.unwrap_or_default()].map(quote);
    let mut script = format!("{COMMON}\nbase={base}\ndir={dir}\nown={own}\nprogram={program}\n");
    script += &marks(intent);
    let words = std::iter::once(&intent.program).chain(&intent.args).map(|w| quote(w));
    let _ = writeln!(script, "set -- {}", words.collect::<Vec<_>>().join(" "));
    script + HOLD
}

/// Whether a shell takes it for the name of a variable.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Pid, group and start time of what was started; nothing where it does not say.
pub(crate) fn parse_start(text: &str) -> Option<(i32, i32, u64)> {
    let line = text.lines().find_map(|l| l.strip_prefix("started "))?;
    let mut words = line.split_ascii_whitespace();
    let pid = words.next()?.parse().ok().filter(|pid| *pid > 1)?;
    Some((pid, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Sends the log in `file` from its byte `from` (the first is 0) until the process has ended.
pub(crate) fn follow(file: &str, pid: i32, ticks: u64, from: u64) -> String {
    let given = format!("file={}\npid={pid}\nticks={ticks}\nfrom={}\n", quote(file), from + 1);
    format!("{COMMON}\n{given}{FOLLOW}")
}

/// Asks for the rest of a log and for how its process ended.
pub(crate) fn rest(file: &str, pid: i32, ticks: u64, from: u64) -> String {
    let given = format!("file={}\npid={pid}\nticks={ticks}\nfrom={}\n", quote(file), from + 1);
    format!("{COMMON}\n{given}{REST}")
}

/// How a process ended by what [`rest`] said, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// With this status, as a shell gives it; absent where nobody was left to write it down.
    Ended(Option<i32>),
}

/// What [`rest`] said; nothing where it is not the answer of our script.
pub(crate) fn parse_rest(stderr: &str) -> Option<Fate> {
    stderr.lines().find_map(|line| match line.split_once(' ') {
        None if line == "lives" => Some(Fate::Lives),
        Some(("exit", status)) => Some(Fate::Ended(status.trim().parse().ok())),
        _ => None,
    })
}

/// Asks whether processes with these pids and start times all live.
pub(crate) fn all_live(leaders: &[(i32, u64)]) -> String {
    let asks = leaders.iter().map(|(pid, ticks)| format!("is_alive {pid} {ticks} || exit 1\n"));
    format!("{COMMON}\n{}", asks.collect::<String>())
}

/// A process to look for, and to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    pub(crate) process: &'a str,
    /// Pid and start time, where they were recorded.
    pub(crate) leader: Option<(i32, u64)>,
    pub(crate) boot_id: &'a str,
    pub(crate) ports: &'a [PortPlan],
}

/// What is to be done with what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Look,
    End {
        /// Between SIGTERM and SIGKILL.
        grace_s: u64,
    },
}

/// Looks for what is left of `wanted`, all of the run `mark`, and does `act`.
pub(crate) fn end(mark: &Mark, wanted: &[Wanted<'_>], act: Act) -> String {
    let (word, grace) = match act {
        Act::Look => ("look", 0),
        Act::End { grace_s } => ("end", grace_s),
    };
    let mut script = format!("{COMMON}\nrun={}\nrun_dir={}\n", quote(&mark.run), quote(&mark.dir));
    let _ = writeln!(script, "act={word}\ngrace={grace}\n{END}");
    for process in wanted {
        let (pid, ticks) = match process.leader {
            Some((pid, ticks)) => (pid.to_string(), ticks.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let boot = if process.boot_id.is_empty() { "-" } else { process.boot_id };
        let ports = process.ports.iter().map(|p| p.port.to_string()).collect::<Vec<_>>().join(" ");
        let [id, boot, ports] = [process.process, boot, &ports].map(quote);
        let _ = writeln!(script, "target {id} {pid} {ticks} {boot} {ports}");
    }
    script + END_TAIL
}

/// One line of what [`end`] said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It lives.
    Left { process: String, pids: Vec<i32> },
    /// It was ended, or could not be.
    End { process: String, how: How, strays: usize, pids: Vec<i32> },
    /// A port of it, and who listens there still.
    Port { process: String, port: u16, taken_by: Option<String> },
    /// Its pid is another process now.
    Reused { process: String, pid: i32 },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Gone,
    Terminated,
    Killed,
    Alive,
}

/// What [`end`] said.
pub(crate) fn parse_end(text: &str) -> Vec<Said> {
    text.lines().filter_map(parse_said).collect()
}

fn parse_said(line: &str) -> Option<Said> {
    let mut words = line.split('\t');
    let kind = words.next()?;
    let process = words.next()?.to_owned();
    let mut next = || words.next();
    let pids = |text: &str| text.split_ascii_whitespace().filter_map(|p| p.parse().ok()).collect();
    Some(match kind {
        "left" => Said::Left { process, pids: pids(next()?) },
        "end" => {
            let how = match next()? {
                "gone" => How::Gone,
                "term" => How::Terminated,
                "kill" => How::Killed,
                _ => How::Alive,
            };
            let strays = next()?.trim().parse().ok()?;
            Said::End { process, how, strays, pids: pids(next().unwrap_or_default()) }
        }
        "port" => {
            let port = next()?.parse().ok()?;
            let is_taken = next()? == "taken";
            let who = next().unwrap_or_default().to_owned();
            Said::Port { process, port, taken_by: is_taken.then_some(who) }
        }
        "reused" => Said::Reused { process, pid: next()?.parse().ok()? },
        _ => return None,
    })
}

/// Removes what scalebeam wrote into `dir`.
pub(crate) fn clean(dir: &str) -> String {
    let base = dir.rsplit_once('/').map_or(dir, |(base, _)| base);
    format!("{COMMON}\nbase={}\ndir={}\n{CLEAN}", quote(base), quote(dir))
}

/// What a host said when it was looked at for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentSeen {
    pub(crate) host: Seen,
    /// What `uname -sm` says.
    pub(crate) system: String,
    /// The very program is there, under the same path.
    pub(crate) has_it: bool,
}

/// Looks at a host that is to have an agent, and for the program of it.
pub(crate) fn agent_look(path: &str, size: u64, digest: &str) -> String {
    let given = format!("path={}\nsize={size}\ndigest={}\n", quote(path), quote(digest));
    format!("{}{given}{AGENT_LOOK}", look(&[]))
}

/// What [`agent_look`] printed; nothing where it is not the answer of our script.
pub(crate) fn parse_agent_look(text: &str) -> Option<AgentSeen> {
    let host = parse_look(text)?;
    let system = text.lines().find_map(|l| l.strip_prefix("system "))?.trim().to_owned();
    Some(AgentSeen { host, system, has_it: text.lines().any(|l| l == "has it") })
}

/// Takes a program of `size` bytes to `path` in `dir`.
pub(crate) fn agent_take(dir: &str, path: &str, size: u64, digest: &str) -> String {
    let base = dir.rsplit_once('/').map_or(dir, |(base, _)| base);
    let [base, dir, program, digest] = [base, dir, path, digest].map(quote);
    let given =
        format!("base={base}\ndir={dir}\nprogram={program}\nsize={size}\ndigest={digest}\n");
    format!("{given}{AGENT_TAKE}")
}

/// Whether the program at `path` can run on a host.
pub(crate) fn agent_prove(path: &str) -> String {
    format!("{} --version\n", quote(path))
}

/// Becomes a way to the agent that `intent` started in `dir`.
pub(crate) fn agent_attach(intent: &Intent, dir: &str) -> String {
    format!("{}exec {} agent --attach {}\n", marks(intent), quote(&intent.program), quote(dir))
}

/// Lines that put the marks of `intent` on whatever a script behind them starts.
pub(crate) fn marks(intent: &Intent) -> String {
    exports(marks_of(&intent.run, &intent.run_dir, &intent.process))
}

/// Variables that mark what is started for `process` of a run.
pub(crate) const fn marks_of<'a>(
    run: &'a str,
    run_dir: &'a str,
    process: &'a str,
) -> [(&'static str, &'a str); 3] {
    [(RUN_MARKER, run), (DIR_MARKER, run_dir), (PROCESS_MARKER, process)]
}

/// Lines that export variables.
pub(crate) fn exports<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(name, value): (&str, &str)| format!("{name}={}; export {name}\n", quote(value));
    variables.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests;
