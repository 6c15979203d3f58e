//! Ending processes on hosts that are reached by the site's own ssh.
//!
//! **Invariants.** The rules are those of this machine, kept by the script that runs there. A host that
//! cannot be asked is a problem that names it, and keeps nothing else from being ended. What scalebeam
//! wrote on a host is removed once nothing of the run lives there.

use super::{Drain, Ended, ProcessEnd, Target, end};
use crate::error::FleetError;
use crate::host::Shell;
use crate::journal::{Event, Reach};
use crate::process::Mark;
use crate::remote::{self, Act, How, Said, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// What ending takes beside the grace: the kill, the ports, the way there.
const BESIDE_GRACE: Duration = Duration::from_secs(60);
const LOOK_LIMIT: Duration = Duration::from_secs(60);
const CLEAN_LIMIT: Duration = Duration::from_secs(30);

/// Targets that one script speaks of: of one run, on one host.
type Group<'a> = Vec<(usize, &'a Target)>;

fn by_host<'a>(targets: &'a [Target]) -> BTreeMap<(Shell, Mark), Group<'a>> {
    let mut groups: BTreeMap<(Shell, Mark), Group<'a>> = BTreeMap::new();
    for (index, target) in targets.iter().enumerate().filter(|(_, t)| t.shell != Shell::Here) {
        groups
            .entry((target.shell.clone(), target.mark.clone()))
            .or_default()
            .push((index, target));
    }
    groups
}

fn wanted(target: &Target) -> Wanted<'_> {
    Wanted {
        process: &target.process,
        leader: target.leader.as_ref().map(|l| (l.pid, l.start_ticks)),
        boot_id: &target.boot_id,
        ports: &target.ports,
    }
}

/// Ends the targets of one stage on all hosts at once; by position in `targets`, what became of each.
pub(super) async fn stage(
    drain: &mut Drain<'_>,
    targets: &[Target],
) -> BTreeMap<usize, ProcessEnd> {
    let mut asked = Vec::new();
    for ((shell, mark), group) in by_host(targets) {
        for (_, target) in &group {
            announce(drain, target);
        }
        let grace = group.iter().map(|(_, t)| t.grace).max().unwrap_or_default().to_std();
        let act = Act::End { grace_s: grace.as_secs() + u64::from(grace.subsec_nanos() > 0) };
        let wanted: Vec<Wanted<'_>> = group.iter().map(|(_, t)| wanted(t)).collect();
        let script = remote::end(&mark, &wanted, act);
        let limit = grace + BESIDE_GRACE;
        let answer = tokio::spawn(async move { shell.run(&script, limit).await });
        asked.push((group, answer));
    }
    let mut ends = BTreeMap::new();
    for (group, answer) in asked {
        let said = match answer.await {
            Ok(Ok(ran)) => remote::parse_end(&ran.stdout),
            Ok(Err(error)) => {
                let host = group.first().map_or("", |(_, t)| t.host.as_str());
                drain.problems.push(format!(
                    "host {host} could not be asked to end {}: {error}; {}",
                    group.iter().map(|(_, t)| t.process.as_str()).collect::<Vec<_>>().join(", "),
                    error.hint()
                ));
                Vec::new()
            }
            Err(error) => {
                drain.problems.push(error.to_string());
                Vec::new()
            }
        };
        for (index, target) in group {
            ends.insert(index, conclude(drain, target, &said));
        }
    }
    ends
}

fn announce(drain: &mut Drain<'_>, target: &Target) {
    let Some(leader) = &target.leader else { return };
    let (process, pid) = (target.process.clone(), leader.pgid);
    drain.write(Event::Signal { process, signal: "SIGTERM".to_owned(), reach: Reach::Group, pid });
}

fn conclude(drain: &mut Drain<'_>, target: &Target, said: &[Said]) -> ProcessEnd {
    for line in said {
        match line {
            Said::Port { process, port, taken_by } if *process == target.process => {
                port_of(drain, target, *port, taken_by.as_deref());
            }
            _ => {}
        }
    }
    let found = said.iter().find_map(|line| match line {
        Said::End { process, how, strays, pids } if *process == target.process => {
            Some((*how, *strays, pids))
        }
        _ => None,
    });
    let Some((how, strays, pids)) = found else { return end(target, Ended::Alive, 0) };
    let ended = match how {
        How::Gone => Ended::WasGone,
        How::Terminated => Ended::Terminated,
        How::Killed => Ended::Killed,
        How::Alive => {
            drain.problems.push(format!(
                "process {} on host {} could not be ended: pids {pids:?} are still there",
                target.process, target.host
            ));
            return end(target, Ended::Alive, strays);
        }
    };
    if !target.gone {
        drain.write(Event::ProcessGone { process: target.process.clone() });
    }
    end(target, ended, strays)
}

fn port_of(drain: &mut Drain<'_>, target: &Target, port: u16, taken_by: Option<&str>) {
    let addr = target.ports.iter().find(|p| p.port == port).map_or("", |p| &p.addr).to_owned();
    match taken_by {
        None => {
            drain.write(Event::PortReleased { process: target.process.clone(), addr, port });
        }
        Some(who) => {
            let who = if who.is_empty() { "somebody" } else { who };
            drain.problems.push(format!(
                "port {port} on host {} of process {} is not free: {who} listens there",
                target.host, target.process
            ));
        }
    }
}

/// Removes what scalebeam wrote on hosts where everything of it has ended; says what went wrong.
pub(super) async fn clean(targets: &[Target], ends: &[ProcessEnd]) -> Vec<String> {
    let alive = |t: &Target| ends.iter().any(|e| e.process == t.process && e.ended == Ended::Alive);
    let keeps: BTreeSet<&Shell> = targets.iter().filter(|t| alive(t)).map(|t| &t.shell).collect();
    let dirs: BTreeSet<(&Shell, &str)> = targets
        .iter()
        .filter(|t| !keeps.contains(&t.shell))
        .filter_map(|t| Some((&t.shell, t.scratch.as_deref()?)))
        .collect();
    let mut problems = Vec::new();
    for (shell, dir) in dirs {
        let problem = match shell {
            Shell::Here => remove(dir).err(),
            Shell::Ssh(_) => match shell.run(&remote::clean(dir), CLEAN_LIMIT).await {
                Ok(ran) if ran.status == Some(0) => None,
                Ok(ran) => Some(ran.stderr.trim().to_owned()),
                Err(error) => Some(error.to_string()),
            },
        };
        if let Some(problem) = problem {
            problems.push(format!("on host {}: {problem}", shell.name()));
        }
    }
    problems
}

/// Removes `dir` on this machine, and what it lies in where that holds nothing more.
fn remove(dir: &str) -> Result<(), String> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {dir}: {e}"));
        }
        _ => {}
    }
    if let Some(base) = Path::new(dir).parent() {
        // Another run may have something in it.
        let _ = std::fs::remove_dir(base);
    }
    Ok(())
}

/// Of `targets` on other hosts, what lives: by position, its pids.
///
/// # Errors
/// A host that cannot be asked: nobody knows then.
pub(super) async fn look(targets: &[Target]) -> Result<BTreeMap<usize, Vec<i32>>, FleetError> {
    let mut living = BTreeMap::new();
    for ((shell, mark), group) in by_host(targets) {
        let wanted: Vec<Wanted<'_>> = group.iter().map(|(_, t)| wanted(t)).collect();
        let script = remote::end(&mark, &wanted, Act::Look);
        let ran = shell.run(&script, LOOK_LIMIT).await.map_err(|source| FleetError::Host {
            host: group.first().map_or_else(String::new, |(_, t)| t.host.clone()),
            needed_for: " what an earlier run has left on it".to_owned(),
            source,
        })?;
        for line in remote::parse_end(&ran.stdout) {
            let Said::Left { process, pids } = line else { continue };
            let of = group.iter().filter(|(_, t)| t.process == process);
            living.extend(of.map(|(index, _)| (*index, pids.clone())));
        }
    }
    Ok(living)
}
