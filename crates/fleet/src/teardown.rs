//! Taking down, from any state, as often as wanted, from memory or from the journal alone.
//!
//! **Invariants.** Order: entries, workers, infrastructure. Each: SIGTERM to its group, grace, SIGKILL
//! to its group, then whatever left the group and is provably ours; then its ports are seen free. What
//! cannot be proved ours ([`crate::process`]) is left alone and said so. A failure of one step is
//! reported and never keeps the next from being taken.

mod claims;
mod down;
mod pods;
mod remote;

pub(crate) use claims::{Claimed, remove as remove_claims};
pub use down::{DownReport, Leftover, down_run, leftovers};
pub(crate) use pods::{apart, end_in_pods};

use crate::host::Shell;
use crate::journal::{Event, Intent, Journal, Reach, Stage};
use crate::launch::Spawned;
use crate::process::{self, Identity, Mark, Marked, Member, Table};
use rustix::process::Signal;
use scalebeam_model::plan::PortPlan;
use scalebeam_model::units::Nanos;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After SIGKILL the kernel needs a moment to free what was held.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// What left its group gets at most so long after SIGTERM.
const STRAY_GRACE: Duration = Duration::from_secs(2);
/// Strays may fork while they are looked for.
const STRAY_ROUNDS: u32 = 3;
/// For processes of which nobody knows what the plan said.
const MARK_GRACE: Nanos = Nanos::from_secs(10);
/// A freed port may be held so long by a socket that is being closed.
const PORT_WAIT: Duration = Duration::from_secs(10);

/// A process to take down.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) process: String,
    pub(crate) deployment: String,
    pub(crate) host: String,
    /// Where it runs.
    pub(crate) shell: Shell,
    /// What scalebeam wrote there is in this directory.
    pub(crate) scratch: Option<String>,
    pub(crate) command: String,
    pub(crate) stage: Stage,
    pub(crate) grace: Nanos,
    pub(crate) mark: Mark,
    /// The boot in which it was started.
    pub(crate) boot_id: String,
    /// Absent where scalebeam was killed before it could record it.
    pub(crate) leader: Option<Identity>,
    pub(crate) known: BTreeSet<Member>,
    pub(crate) ports: Vec<PortPlan>,
    /// The journal says that nothing of it is left.
    pub(crate) gone: bool,
}

/// What of a target is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Its group, where that is provably still its own.
    pub(crate) group: Option<i32>,
    /// Living members of that group.
    pub(crate) in_group: Vec<Member>,
    /// Living processes of it outside that group.
    pub(crate) strays: Vec<Member>,
}

impl Survey {
    pub(crate) const fn is_empty(&self) -> bool {
        self.in_group.is_empty() && self.strays.is_empty()
    }
}

impl Target {
    /// What `intent` announced, as long as nothing more is known of it.
    pub(crate) fn of_intent(intent: &Intent) -> Self {
        Self {
            process: intent.process.clone(),
            deployment: intent.deployment.clone(),
            host: intent.host.clone(),
            shell: intent.shell(),
            scratch: intent.scratch.clone(),
            command: Spawned::command_line(&intent.program, &intent.args),
            stage: intent.stage,
            grace: intent.grace,
            mark: Mark { run: intent.run.clone(), dir: intent.run_dir.clone() },
            boot_id: intent.boot_id.clone(),
            leader: None,
            known: BTreeSet::new(),
            ports: intent.ports.clone(),
            gone: false,
        }
    }

    /// A process that carries the mark of a run, though the journal of that run does not name it: nothing more is known
    /// of it than where it is.
    pub(crate) fn of_mark(marked: &Marked, boot: &str) -> Self {
        Self {
            process: marked.process.clone(),
            deployment: marked.process.split('/').next().unwrap_or_default().to_owned(),
            host: "this machine".to_owned(),
            shell: Shell::Here,
            scratch: None,
            command: String::new(),
            stage: Stage::Worker,
            grace: MARK_GRACE,
            mark: marked.mark.clone(),
            boot_id: boot.to_owned(),
            leader: None,
            known: BTreeSet::new(),
            ports: Vec::new(),
            gone: false,
        }
    }

    /// Looks for what is left of it. `boot` is the present boot.
    pub(crate) fn survey(&self, table: &Table, marked: &[Marked], boot: &str) -> Survey {
        if self.boot_id != boot || self.shell != Shell::Here {
            return Survey::default();
        }
        let me = std::process::id();
        let mine = marked.iter().filter(|m| m.process == self.process && m.mark == self.mark);
        let mut ours: BTreeSet<Member> = mine.clone().map(|m| m.member).collect();
        ours.extend(self.known.iter().copied().filter(|m| m.is_alive()));
        ours.retain(|m| u32::try_from(m.pid) != Ok(me));
        let group = match &self.leader {
            Some(leader) => self.owned_group(leader, &ours, table),
            // Never recorded: it leads a group of its own, so its number is that of a marked process.
            None => mine.clone().find(|m| m.member.pid == m.pgid).map(|m| m.pgid),
        };
        let Some(pgid) = group else {
            return Survey {
                group: None,
                in_group: Vec::new(),
                strays: ours.into_iter().collect(),
            };
        };
        let in_group = table.group(pgid);
        // Children that cleared their environment and left the group are still children.
        ours.extend(table.family(pgid, pgid));
        let strays = ours.into_iter().filter(|m| table.group_of(m.pid) != Some(pgid)).collect();
        Survey { group, in_group, strays }
    }

    /// The recorded group, if its leader (dead or alive) or a process of ours still holds its number.
    fn owned_group(
        &self,
        leader: &Identity,
        ours: &BTreeSet<Member>,
        table: &Table,
    ) -> Option<i32> {
        let leads = process::stat(leader.pid).is_some_and(|s| s.start_ticks == leader.start_ticks);
        let held = leads || ours.iter().any(|m| table.group_of(m.pid) == Some(leader.pgid));
        held.then_some(leader.pgid)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was gone already.
    WasGone,
    /// It obeyed SIGTERM.
    Terminated,
    /// It had to be killed.
    Killed,
    /// It could not be ended.
    Alive,
}

/// What became of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Id in the plan.
    pub process: String,
    /// Host in the file.
    pub host: String,
    /// How it ended.
    pub ended: Ended,
    /// Descendants that had left its group and were ended one by one.
    pub strays: usize,
}

/// What a teardown did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeardownReport {
    /// Each process, in the order in which they were taken down.
    pub ends: Vec<ProcessEnd>,
    /// What went wrong, in words that name process, pid or port.
    pub problems: Vec<String>,
}

impl TeardownReport {
    /// Whether nothing is left and nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Takes all targets down. What they wrote is still there then: see [`clean`].
pub(crate) async fn take_down(targets: &[Target], journal: Option<&Journal>) -> TeardownReport {
    let boot = match process::boot_id() {
        Ok(boot) => boot,
        Err(error) => {
            let problems = vec![format!("cannot read /proc, so nothing was signalled: {error}")];
            return TeardownReport { ends: Vec::new(), problems };
        }
    };
    // Within a stage the last started goes first in the report; all are signalled together.
    let targets: Vec<&Target> = targets.iter().rev().collect();
    let marks = targets.iter().map(|t| t.mark.clone()).collect();
    let mut drain = Drain { journal, boot, marks, problems: Vec::new() };
    let mut ends = Vec::new();
    for stage in Stage::ALL {
        let of_stage: Vec<Target> =
            targets.iter().filter(|t| t.stage == stage).map(|t| (*t).clone()).collect();
        ends.extend(drain.stage_everywhere(&of_stage).await);
    }
    TeardownReport { ends, problems: drain.problems }
}

/// Removes what `targets` wrote on hosts where, by `report`, everything of them has ended.
pub(crate) async fn clean(targets: &[Target], report: &mut TeardownReport) {
    let problems = remote::clean(targets, &report.ends).await;
    report.problems.extend(problems);
}

struct Drain<'a> {
    journal: Option<&'a Journal>,
    boot: String,
    marks: BTreeSet<Mark>,
    problems: Vec<String>,
}

impl Drain<'_> {
    /// Ends the targets of one stage, here and on other hosts; in their order.
    async fn stage_everywhere(&mut self, targets: &[Target]) -> Vec<ProcessEnd> {
        let mut ends = remote::stage(self, targets).await;
        let here = |(_, t): &(usize, &Target)| t.shell == Shell::Here;
        let (at, local): (Vec<usize>, Vec<Target>) =
            targets.iter().enumerate().filter(here).map(|(i, t)| (i, t.clone())).unzip();
        ends.extend(at.into_iter().zip(self.stage(&local).await));
        ends.into_values().collect()
    }

    async fn stage(&mut self, targets: &[Target]) -> Vec<ProcessEnd> {
        let before = self.look(targets);
        if before.iter().all(Survey::is_empty) {
            return targets.iter().map(|t| self.was_gone(t)).collect();
        }
        for (target, survey) in targets.iter().zip(&before) {
            self.signal_group(target, survey, Signal::TERM);
        }
        let grace = targets.iter().map(|t| t.grace).max().unwrap_or_default().to_std();
        let groups: Vec<i32> = before.iter().filter_map(|s| s.group).collect();
        wait_until(grace, || groups_are_empty(&groups)).await;

        // Looked at anew: during the grace a number may have become somebody else's.
        let stubborn = self.look(targets);
        for (target, survey) in targets.iter().zip(&stubborn) {
            self.signal_group(target, survey, Signal::KILL);
        }
        let groups: Vec<i32> =
            stubborn.iter().filter(|s| !s.in_group.is_empty()).filter_map(|s| s.group).collect();
        wait_until(KILL_WAIT, || groups_are_empty(&groups)).await;
        let strays = self.end_strays(targets, grace.min(STRAY_GRACE)).await;

        let after = self.look(targets);
        let mut ends = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let seen = [&before[index], &stubborn[index], &after[index]];
            let end = self.conclude(target, seen, strays[index]);
            if matches!(end.ended, Ended::Terminated | Ended::Killed) {
                self.ports_released(target).await;
            }
            ends.push(end);
        }
        ends
    }

    fn look(&self, targets: &[Target]) -> Vec<Survey> {
        let marked = process::marked(&self.marks);
        let table = Table::read();
        targets.iter().map(|t| t.survey(&table, &marked, &self.boot)).collect()
    }

    /// Ends what left its group, one by one; how many of each target.
    async fn end_strays(&mut self, targets: &[Target], grace: Duration) -> Vec<usize> {
        let mut ended: Vec<BTreeSet<Member>> = vec![BTreeSet::new(); targets.len()];
        for round in 0..STRAY_ROUNDS {
            let surveys = self.look(targets);
            let mut all = Vec::new();
            for (index, survey) in surveys.iter().enumerate() {
                // A group that was joined late is ended like strays are: member by member.
                let left = survey.strays.iter().chain(&survey.in_group);
                for member in left.copied() {
                    ended[index].insert(member);
                    all.push((&targets[index], member));
                }
            }
            if all.is_empty() {
                break;
            }
            if round == 0 {
                self.signal_each(&all, Signal::TERM);
                wait_until(grace, || all.iter().all(|(_, m)| !m.is_alive())).await;
            }
            self.signal_each(&all, Signal::KILL);
            wait_until(KILL_WAIT, || all.iter().all(|(_, m)| !m.is_alive())).await;
        }
        ended.iter().map(BTreeSet::len).collect()
    }

    fn signal_group(&mut self, target: &Target, survey: &Survey, signal: Signal) {
        let Some(pgid) = survey.group.filter(|_| !survey.in_group.is_empty()) else { return };
        self.announce(target, signal, Reach::Group, pgid);
        if let Err(error) = process::signal_group(pgid, signal) {
            self.problems
                .push(format!("cannot signal group {pgid} of {}: {error}", target.process));
        }
    }

    fn signal_each(&mut self, members: &[(&Target, Member)], signal: Signal) {
        for (target, member) in members.iter().filter(|(_, m)| m.is_alive()) {
            self.announce(target, signal, Reach::Process, member.pid);
            if let Err(error) = member.signal(signal) {
                let text =
                    format!("cannot signal pid {} of {}: {error}", member.pid, target.process);
                self.problems.push(text);
            }
        }
    }

    fn announce(&mut self, target: &Target, signal: Signal, reach: Reach, pid: i32) {
        let name = if signal == Signal::KILL { "SIGKILL" } else { "SIGTERM" };
        let process = target.process.clone();
        self.write(Event::Signal { process, signal: name.to_owned(), reach, pid });
    }

    fn was_gone(&mut self, target: &Target) -> ProcessEnd {
        if !target.gone {
            self.write(Event::ProcessGone { process: target.process.clone() });
        }
        end(target, Ended::WasGone, 0)
    }

    fn conclude(&mut self, target: &Target, seen: [&Survey; 3], strays: usize) -> ProcessEnd {
        let [before, stubborn, after] = seen;
        if !after.is_empty() {
            let left = after.in_group.iter().chain(&after.strays);
            let pids = left.map(|m| m.pid.to_string()).collect::<Vec<_>>().join(", ");
            self.problems.push(format!(
                "process {} on host {} could not be ended: pid {pids} is still there",
                target.process, target.host
            ));
            return end(target, Ended::Alive, strays);
        }
        if before.is_empty() {
            return self.was_gone(target);
        }
        self.write(Event::ProcessGone { process: target.process.clone() });
        let killed = !stubborn.in_group.is_empty();
        end(target, if killed { Ended::Killed } else { Ended::Terminated }, strays)
    }

    async fn ports_released(&mut self, target: &Target) {
        for port in &target.ports {
            let free = || process::try_listen(&port.addr, port.port).is_ok();
            wait_until(PORT_WAIT, free).await;
            if free() {
                self.write(Event::PortReleased {
                    process: target.process.clone(),
                    addr: port.addr.clone(),
                    port: port.port,
                });
            } else {
                let by = process::listener(port.port).unwrap_or_else(|| "somebody".to_owned());
                self.problems.push(format!(
                    "port {} on {} of process {} is not free: {by} listens there",
                    port.port, port.addr, target.process
                ));
            }
        }
    }

    /// A journal that cannot be written must not keep processes alive.
    fn write(&mut self, event: Event) {
        let Some(journal) = self.journal else { return };
        if let Err(error) = journal.write(event) {
            let text = error.to_string();
            if !self.problems.contains(&text) {
                self.problems.push(text);
            }
        }
    }
}

fn end(target: &Target, ended: Ended, strays: usize) -> ProcessEnd {
    ProcessEnd { process: target.process.clone(), host: target.host.clone(), ended, strays }
}

fn groups_are_empty(groups: &[i32]) -> bool {
    if groups.is_empty() {
        return true;
    }
    let table = Table::read();
    groups.iter().all(|g| table.group(*g).is_empty())
}

/// Looks until `done`, at most `limit`.
async fn wait_until(limit: Duration, done: impl Fn() -> bool) {
    let looking = async {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            if done() {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(limit, looking).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(leader: Option<Identity>, boot: &str) -> Target {
        Target {
            process: "d/0/serve".into(),
            deployment: "d".into(),
            host: "box".into(),
            shell: Shell::Here,
            scratch: None,
            command: "x".into(),
            stage: Stage::Entry,
            grace: Nanos::from_millis(100),
            mark: Mark { run: "r".into(), dir: "/d".into() },
            boot_id: boot.into(),
            leader,
            known: BTreeSet::new(),
            ports: Vec::new(),
            gone: false,
        }
    }

    fn me() -> Identity {
        Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_reused_pid_a_reused_group_and_another_boot_are_left_alone() {
        let boot = process::boot_id().unwrap();
        let table = Table::read();
        let reused = Identity { start_ticks: me().start_ticks + 1, ..me() };
        assert!(target(Some(reused), &boot).survey(&table, &[], &boot).is_empty());
        assert!(target(Some(me()), "another boot").survey(&table, &[], &boot).is_empty());
    }

    #[tokio::test]
    async fn nothing_to_take_down_is_clean() {
        let gone = Identity { pid: 999_999_999, pgid: 999_999_999, ..me() };
        let boot = process::boot_id().unwrap();
        let report = take_down(&[target(Some(gone), &boot)], None).await;
        assert!(report.is_clean());
        assert_eq!(report.ends[0].ended, Ended::WasGone);
    }
}
