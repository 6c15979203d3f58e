//! What a process is started after: asked on a host where earlier ones of its plan run.

use super::ray::{self, Lack};
use super::{Doing, Wait, begin};
use crate::error::FleetError;
use crate::host::{Ran, Shell, quote};
use crate::launch::{Spawned, State};
use crate::remote::{self, COMMON};
use scalebeam_model::plan::{GateKind, ProcessPlan, RayNode, StartGate};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Between two questions, each of which starts a program on its host.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Ray's own command takes seconds on a host that is busy with starting.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

impl Wait<'_> {
    /// Returns once `process` may be started.
    pub(crate) async fn until_may_start(
        &self,
        process: &ProcessPlan,
        gate: &StartGate,
    ) -> Result<(), FleetError> {
        let doing = Mutex::new(Doing::at(State::Starting));
        let work = self.until_holds(process, gate, &doing);
        self.watched(self.within(Some(GateKind::Start), work, &doing), &doing).await
    }

    async fn until_holds(
        &self,
        process: &ProcessPlan,
        gate: &StartGate,
        doing: &Mutex<Doing>,
    ) -> Result<(), FleetError> {
        let (shell, script) = (self.shell_of(gate), self.script(process, gate));
        let mut turn = tokio::time::interval(ASK_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let what = format!("{} waits for {}", process.id, subject(gate));
        begin(&what, "not asked yet", doing);
        loop {
            turn.tick().await;
            let why = match shell.run(&script, ANSWER_WITHIN).await {
                Ok(ran) => match self.why_not_yet(process, gate, &ran) {
                    None => return Ok(()),
                    Some(why) => why,
                },
                // Whether the host is lost, those who follow its processes find out.
                Err(error) => error.to_string(),
            };
            self.say(&what, &why, doing);
        }
    }

    fn shell_of(&self, gate: &StartGate) -> Shell {
        let (StartGate::Listening { host, .. } | StartGate::RayCluster { head: host, .. }) = gate;
        self.ctx.shell(self.plan, host)
    }

    /// Asks a host whether `gate` holds, with the environment that the plan gives to `process`, and with the
    /// marks of what is asked about: a question that outlives the asking is taken down with that.
    fn script(&self, process: &ProcessPlan, gate: &StartGate) -> String {
        let (StartGate::Listening { host, .. } | StartGate::RayCluster { head: host, .. }) = gate;
        let mut script = format!("{COMMON}\n{}", remote::exports(given_to(process)));
        let about = |p: &&Spawned| p.plan().host == *host && p.plan().instance == process.instance;
        if let Some(asked) = self.processes.iter().find(about) {
            let mark = self.ctx.mark();
            let marks = remote::marks_of(&mark.run, &mark.dir, &asked.plan().id);
            script += &remote::exports(marks);
        }
        let _ = match gate {
            StartGate::Listening { port, .. } => writeln!(script, "[ -n \"$(listeners {port})\" ]"),
            StartGate::RayCluster { ray, address, .. } => {
                writeln!(script, "exec {} status --address {}", quote(ray), quote(address))
            }
        };
        script
    }

    /// Why `gate` does not hold by the answer to [`Self::script`].
    fn why_not_yet(&self, process: &ProcessPlan, gate: &StartGate, ran: &Ran) -> Option<String> {
        match gate {
            StartGate::Listening { .. } if ran.status == Some(0) => None,
            StartGate::Listening { host, .. } => {
                let last = self.last_line(|p| p.host == *host && p.instance == process.instance);
                Some(format!("nobody listens yet{last}"))
            }
            StartGate::RayCluster { ray, nodes, .. } if ran.status == Some(0) => {
                let lack = ray::lack(&ran.stdout, nodes)?;
                let last = |host: &str| {
                    self.last_line(|p| {
                        p.host == host && p.program == *ray && p.instance == process.instance
                    })
                };
                Some(said(&lack, nodes, last))
            }
            StartGate::RayCluster { .. } => {
                let last = ran.stderr.lines().rev().find(|line| !line.trim().is_empty());
                Some(format!("`ray status` failed: {}", last.unwrap_or_default().trim()))
            }
        }
    }

    /// What the last started process that `is_it` said last, in brackets.
    fn last_line(&self, is_it: impl Fn(&ProcessPlan) -> bool) -> String {
        let found = self.processes.iter().rfind(|p| is_it(p.plan()));
        match found.map(Spawned::last_line) {
            Some(line) if !line.is_empty() => format!(" (last log line: {line})"),
            _ => String::new(),
        }
    }
}

/// Variables that the plan gives to `process`, for a question that is to find what it finds.
pub(super) fn given_to(process: &ProcessPlan) -> impl Iterator<Item = (&str, &str)> {
    let given =
        process.env.iter().filter_map(|(name, value)| Some((name.as_str(), value.given()?)));
    // A directory of the deployment is not for a question.
    given.filter(|(name, text)| remote::is_name(name) && !text.contains('{'))
}

/// What a cluster lacks, for the user; `last` is what the raylet of a host said last, in brackets.
fn said(lack: &Lack<'_>, nodes: &[RayNode], last: impl Fn(&str) -> String) -> String {
    match lack {
        Lack::Gpus(found) => {
            let all: u32 = nodes.iter().map(|node| node.gpus).sum();
            format!("it has {found} of {all} GPUs")
        }
        Lack::Hosts(hosts) => {
            let absent = |host: &&str| format!("host {host} has not joined{}", last(host));
            hosts.iter().map(absent).collect::<Vec<_>>().join("; ")
        }
    }
}

fn subject(gate: &StartGate) -> String {
    match gate {
        StartGate::Listening { host, port } => format!("port {port} of host {host}"),
        StartGate::RayCluster { address, .. } => format!("the Ray cluster at {address}"),
    }
}
