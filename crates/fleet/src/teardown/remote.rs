//! Ending processes on hosts that are reached by the site's own ssh, by a step of a job that runs there, or in a pod.
//!
//! **Invariants.** The rules are those of this machine, kept by the script that runs there. A host that
//! cannot be asked is a problem that names it, and keeps nothing else from being ended. What scalebeam
//! wrote on a host is removed once nothing of the run lives there. With a job its steps have ended, and have
//! taken away what they wrote.

use super::{Drain, Ended, ProcessEnd, Target, end};
use crate::error::FleetError;
use crate::host::{Question, Shell, ShellError, ask_all};
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

fn wanted<'a>(group: &Group<'a>) -> Vec<Wanted<'a>> {
    let of = |(_, target): &(usize, &'a Target)| Wanted {
        process: &target.process,
        leader: target.leader.as_ref().map(|l| (l.pid, l.start_ticks)),
        boot_id: &target.boot_id,
        ports: &target.ports,
    };
    group.iter().map(of).collect()
}

/// The host of a group, as the file names it.
fn host_of<'a>(group: &Group<'a>) -> &'a str {
    group.first().map_or("", |(_, target)| &target.host)
}

/// Ends the targets of one stage on all hosts at once; by position in `targets`, what became of each.
pub(super) async fn stage(
    drain: &mut Drain<'_>,
    targets: &[Target],
) -> BTreeMap<usize, ProcessEnd> {
    let groups = by_host(targets);
    for (_, target) in groups.values().flatten() {
        announce(drain, target);
    }
    let question = |((shell, mark), group): (&(Shell, Mark), &Group<'_>)| {
        let grace = group.iter().map(|(_, t)| t.grace).max().unwrap_or_default().to_std();
        let act = Act::End { grace_s: grace.as_secs() + u64::from(grace.subsec_nanos() > 0) };
        Question {
            shell: shell.clone(),
            script: remote::end(mark, &wanted(group), act),
            limit: grace + BESIDE_GRACE,
        }
    };
    let answers = ask_all(groups.iter().map(question).collect()).await;
    let mut ends = BTreeMap::new();
    for (group, answer) in groups.into_values().zip(answers) {
        let said = answer.map(|ran| remote::parse_end(&ran.stdout)).unwrap_or_else(|error| {
            if error.is_place_gone() {
                return group.iter().map(|(_, target)| gone(target)).collect();
            }
            let processes = group.iter().map(|(_, t)| t.process.as_str()).collect::<Vec<_>>();
            drain.problems.push(format!(
                "host {} could not be asked to end {}: {error}; {}",
                host_of(&group),
                processes.join(", "),
                error.hint()
            ));
            Vec::new()
        });
        for (index, target) in group {
            ends.insert(index, conclude(drain, target, &said));
        }
    }
    ends
}

/// What is said of a process whose job or pod has ended.
fn gone(target: &Target) -> Said {
    Said::End { process: target.process.clone(), how: How::Gone, strays: 0, pids: Vec::new() }
}

fn announce(drain: &mut Drain<'_>, target: &Target) {
    let Some(leader) = &target.leader else { return };
    let (process, pid) = (target.process.clone(), leader.pgid);
    drain.write(Event::Signal { process, signal: "SIGTERM".to_owned(), reach: Reach::Group, pid });
}

fn conclude(drain: &mut Drain<'_>, target: &Target, said: &[Said]) -> ProcessEnd {
    for line in said {
        if let Said::Port { process, port, taken_by } = line
            && *process == target.process
        {
            port_of(drain, target, *port, taken_by.as_deref());
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
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        dirs.into_iter().partition(|(shell, _)| **shell == Shell::Here);
    let mut problems: Vec<String> = here
        .into_iter()
        .filter_map(|(shell, dir)| {
            Some(format!("on host {}: {}", shell.name(), remove(dir).err()?))
        })
        .collect();
    let question = |(shell, dir): &(&Shell, &str)| Question {
        shell: (*shell).clone(),
        script: remote::clean(dir),
        limit: CLEAN_LIMIT,
    };
    let answers = ask_all(elsewhere.iter().map(question).collect()).await;
    for ((shell, _), answer) in elsewhere.into_iter().zip(answers) {
        let problem = match answer {
            Ok(ran) if ran.status == Some(0) => continue,
            Err(error) if error.is_place_gone() => continue,
            Ok(ran) => ran.stderr.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        problems.push(format!("on host {}: {problem}", shell.name()));
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
    let groups = by_host(targets);
    let question = |((shell, mark), group): (&(Shell, Mark), &Group<'_>)| Question {
        shell: shell.clone(),
        script: remote::end(mark, &wanted(group), Act::Look),
        limit: LOOK_LIMIT,
    };
    let answers = ask_all(groups.iter().map(question).collect()).await;
    let mut living = BTreeMap::new();
    for (group, answer) in groups.values().zip(answers) {
        if answer.as_ref().is_err_and(ShellError::is_place_gone) {
            continue;
        }
        let ran = answer.map_err(|source| FleetError::Host {
            host: host_of(group).to_owned(),
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
