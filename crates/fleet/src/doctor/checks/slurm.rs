//! D61: what Slurm says of the partition, the account and the time that a job would ask for.

use super::{Verdict, fail, many, pass, skip, unless};
use crate::doctor::seen::Seen;
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_model::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};

/// A job's limit where the file gives none.
const TIME: Nanos = Nanos::from_secs(2 * 60 * 60);

/// Part of a partition: nodes that are alike, by `sinfo -h -o '%P|%a|%G|%D|%t|%l'`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row<'a> {
    partition: &'a str,
    is_default: bool,
    is_up: bool,
    gpus_each: u64,
    nodes: u64,
    is_usable: bool,
    limit: &'a str,
}

fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [partition, up, resources, nodes, state, limit] = cells.as_slice() else { return None };
    Some(Row {
        partition: partition.trim_end_matches('*'),
        is_default: partition.ends_with('*'),
        is_up: *up == "up",
        gpus_each: gpus_of(resources),
        nodes: nodes.parse().ok()?,
        is_usable: ["idle", "mix", "alloc", "comp"].iter().any(|s| state.starts_with(s)),
        limit,
    })
}

/// `gpu:h100:8(S:0-1),nvme:1` has eight.
fn gpus_of(resources: &str) -> u64 {
    // A comma within brackets is part of a list of sockets; what follows it names no GPU.
    let of = |r: &str| -> Option<u64> {
        let gpus = r.split('(').next()?.strip_prefix("gpu:")?;
        gpus.rsplit(':').next()?.parse().ok()
    };
    resources.split(',').filter_map(of).sum()
}

/// Nodes that a job of `d` takes, and GPUs of the one that needs the most.
fn asked(d: &DeploymentPlan) -> (u64, u64) {
    let places = || d.instances.iter().flat_map(|i| &i.place);
    if places().next().is_none() {
        let each = d.instances.iter().map(|i| u64::from(i.gpus())).max().unwrap_or(0);
        return (d.instances.len() as u64, if d.gpus == 0 { 0 } else { each });
    }
    // What stands before the instances may have a node of its own.
    let mut hosts: BTreeMap<&str, u64> =
        d.processes.iter().map(|process| (process.host.as_str(), 0)).collect();
    for place in places() {
        *hosts.entry(&place.host).or_default() += place.ids.len() as u64;
    }
    (hosts.len() as u64, hosts.values().max().copied().unwrap_or(0))
}

/// Rows of the partition of `d`: the one that it names, or Slurm's default. Where neither is there, why not.
fn partition<'a>(d: &DeploymentPlan, rows: &[Row<'a>]) -> Result<Vec<Row<'a>>, String> {
    let named = d.text("partition");
    let is_it = |row: &&Row<'a>| named.map_or(row.is_default, |name| row.partition == name);
    let mine: Vec<Row<'a>> = rows.iter().filter(is_it).cloned().collect();
    if !mine.is_empty() {
        return Ok(mine);
    }
    let names: BTreeSet<&str> = rows.iter().map(|row| row.partition).collect();
    let there = names.into_iter().collect::<Vec<_>>().join(", ");
    Err(match named {
        Some(name) => format!("there is no partition {name}; Slurm has {there}"),
        None => {
            format!("the file names no partition, and none is default; Slurm has {there}")
        }
    })
}

pub(super) fn nodes(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    const HINT: &str = "name another partition in params, or ask for fewer GPUs";
    let said = seen.client()?.tool("slurm")?;
    let rows: Vec<Row<'_>> = said.lines().filter_map(row).collect();
    let mine = match partition(d, &rows) {
        Ok(mine) => mine,
        Err(why) => return fail(why, HINT),
    };
    let name = mine.first().map_or("", |row| row.partition);
    if !mine.iter().any(|row| row.is_up) {
        return fail(format!("partition {name} is down"), HINT);
    }
    let (nodes, gpus) = asked(d);
    let fit = |row: &&Row<'_>| row.is_up && row.is_usable && row.gpus_each >= gpus;
    let there: u64 = mine.iter().filter(fit).map(|row| row.nodes).sum();
    let each =
        if gpus == 0 { String::new() } else { format!(" with {} or more", many(gpus, "GPU", "s")) };
    let there_words = many(there, "node", "s");
    let words =
        format!("partition {name}: {there_words}{each}, {} asked for", many(nodes, "node", "s"));
    if there >= nodes { pass(words) } else { fail(words, HINT) }
}

pub(super) fn time(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let said = seen.client()?.tool("slurm")?;
    let rows: Vec<Row<'_>> = said.lines().filter_map(row).collect();
    let Ok(mine) = partition(d, &rows) else { return skip("its partition is not there") };
    let wanted = d.span("time").unwrap_or(TIME);
    let Some(limit) = mine.first().map(|row| row.limit) else { return skip("no limit is told") };
    let words = format!("the job may take {wanted}, the partition's limit is {limit}");
    match span(limit) {
        Some(most) if wanted > most => {
            fail(words, "lower `time` in params, or name another partition")
        }
        _ => pass(words),
    }
}

/// `1-02:03:04`, `02:03:04` or `03:04` of Slurm; nothing for `infinite`.
fn span(text: &str) -> Option<Nanos> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (days.parse::<u64>().ok()?, clock),
        None => (0, text),
    };
    let parts = clock.split(':').map(|part| part.parse::<u64>().ok());
    let parts: Vec<u64> = parts.collect::<Option<_>>()?;
    let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
    Some(Nanos::from_secs(days * 86_400 + seconds))
}

/// Rows `account|partition|qos,qos` of what this user may charge.
pub(super) fn account(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let (account, qos) = (d.text("account"), d.text("qos"));
    if account.is_none() && qos.is_none() {
        return skip("the file names no account and no qos");
    }
    let said = seen.client()?.tool("slurm_accounts")?;
    let rows: Vec<Vec<&str>> =
        said.lines().map(|l| l.split('|').map(str::trim).collect()).collect();
    let cells = |at: usize| {
        let all = rows.iter().filter_map(move |row| row.get(at)).flat_map(|cell| cell.split(','));
        all.filter(|name| !name.is_empty()).collect::<BTreeSet<&str>>()
    };
    let wrong = |what: &str, name: Option<&str>, known: &BTreeSet<&str>| {
        let name = name.filter(|name| !known.contains(name))?;
        let known = known.iter().copied().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        Some(format!("{what} {name} is not among those of this user ({known})"))
    };
    let all = [wrong("account", account, &cells(0)), wrong("qos", qos, &cells(2))];
    let named: Vec<&str> = [account, qos].into_iter().flatten().collect();
    unless(
        all.into_iter().flatten().collect(),
        format!("this user may use {}", named.join(", ")),
        "correct account and qos in params: `sacctmgr show assoc user=$USER` lists them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_slurm_are_read() {
        for (text, seconds) in [
            ("1-02:03:04", Some(93_784)),
            ("02:03:04", Some(7_384)),
            ("30:00", Some(1_800)),
            ("infinite", None),
            ("n/a", None),
        ] {
            assert_eq!(span(text), seconds.map(Nanos::from_secs), "{text}");
        }
    }

    #[test]
    fn gpus_are_counted_whatever_stands_beside_them() {
        for (text, gpus) in [
            ("gpu:h100:8(S:0-1),nvme:1", 8),
            ("gpu:4", 4),
            ("gpu:a100:2(S:0,2),gpu:t4:1", 3),
            ("(null)", 0),
        ] {
            assert_eq!(gpus_of(text), gpus, "{text}");
        }
    }
}
