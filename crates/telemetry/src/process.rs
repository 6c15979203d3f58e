//! Processes of the deployment, and our own, by `/proc/PID`.
//!
//! A process belongs to the deployment while its environment carries the markers that everything which the
//! plan starts is started with, and which children inherit however they detach themselves.

use crate::host::ticks_per_s;
use crate::quota::Quota;
use crate::readings::{Readings, Roots, Source};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::Role;
use scalebeam_model::telemetry::{Device, Part, Quantity};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What tells processes of a deployment from all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// `NAME=value` that each of them has in its environment.
    pub marker: String,
    /// Name of the variable that holds the process's id in the plan.
    pub id_variable: String,
    /// What the processes of a plan do, by their ids.
    pub roles: BTreeMap<String, Role>,
    /// Ids of those that are on other hosts, whose processes may be seen here too.
    pub elsewhere: BTreeSet<String>,
    /// What our own process is called, where it is to be read.
    pub own_name: Option<String>,
}

/// A process that is watched.
#[derive(Debug)]
struct Ours {
    device: Device,
    quota: Option<Quota>,
}

/// A process, told from a later one with the same number.
type Born = (u32, u64);

/// All processes that are watched.
#[derive(Debug)]
pub(crate) struct Processes {
    roots: Roots,
    host: String,
    watched: Watched,
    own_pid: u32,
    /// What was found of each process that is there.
    known: BTreeMap<Born, Option<Ours>>,
    ticks_per_s: f64,
    page_bytes: f64,
}

impl Processes {
    pub(crate) fn new(roots: &Roots, host: &str, watched: Watched) -> Self {
        Self {
            roots: roots.clone(),
            host: host.to_owned(),
            watched,
            own_pid: std::process::id(),
            known: BTreeMap::new(),
            ticks_per_s: ticks_per_s(),
            page_bytes: rustix::param::page_size() as f64,
        }
    }

    fn pids(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(&self.roots.proc).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    fn ours(&self, pid: u32, stat: &Stat<'_>) -> Option<Ours> {
        let device = self.device(pid, stat)?;
        Some(Ours { device, quota: Quota::of(&self.roots, pid) })
    }

    /// The device that a process is, where it is one of ours.
    fn device(&self, pid: u32, stat: &Stat<'_>) -> Option<Device> {
        let named = |name: String, role| Device {
            host: self.host.clone(),
            part: Part::Process,
            name,
            index: None,
            role,
        };
        if pid == self.own_pid {
            return self.watched.own_name.clone().map(|name| named(name, None));
        }
        let environ = std::fs::read(self.roots.proc.join(pid.to_string()).join("environ")).ok()?;
        let environ = String::from_utf8_lossy(&environ);
        let mut variables = environ.split('\0');
        if !variables.clone().any(|v| v == self.watched.marker) {
            return None;
        }
        let id =
            variables.find_map(|v| v.strip_prefix(&self.watched.id_variable)?.strip_prefix('='))?;
        if self.watched.elsewhere.contains(id) {
            return None;
        }
        let role = self.watched.roles.get(id).copied();
        Some(named(format!("{id} {pid} {}", stat.name), role))
    }
}

impl Source for Processes {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let mut known = BTreeMap::new();
        for pid in self.pids() {
            let path = self.roots.proc.join(pid.to_string()).join("stat");
            let from = clock.now();
            let Some(text) = read(&path) else { continue };
            let to = clock.now();
            let Some(stat) = Stat::parse(&text) else { continue };
            let born = (pid, stat.started);
            let ours = match self.known.remove(&born) {
                // Between fork and exec it has its parent's environment and name.
                Some(Some(found)) if found.device.name.ends_with(stat.name) => Some(found),
                Some(None) => None,
                _ => self.ours(pid, &stat),
            };
            if let Some(Ours { device, quota }) = &ours {
                let values = [
                    (Quantity::ProcessCpu, stat.cpu_ticks / self.ticks_per_s),
                    (Quantity::ProcessMemory, stat.resident_pages * self.page_bytes),
                ];
                out.add(device, from, to, &values);
                let from = clock.now();
                if let Some(counts) = quota.as_ref().and_then(Quota::read) {
                    out.add(device, from, clock.now(), &counts);
                }
            }
            known.insert(born, ours);
        }
        self.known = known;
    }
}

fn read(path: &Path) -> Option<String> {
    // A process may name itself with any bytes.
    Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
}

/// What `/proc/PID/stat` says, as far as it is needed here.
#[derive(Debug, PartialEq)]
struct Stat<'a> {
    name: &'a str,
    /// User and kernel.
    cpu_ticks: f64,
    started: u64,
    resident_pages: f64,
}

impl<'a> Stat<'a> {
    /// The name is in parentheses and may hold some.
    fn parse(text: &'a str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // Field 3, the state, is the first behind the name.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = |number| field(number)?.parse::<f64>().ok();
        Some(Self {
            name,
            cpu_ticks: ticks(14)? + ticks(15)?,
            started: field(22)?.parse().ok()?,
            resident_pages: ticks(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::units::Nanos;

    const TEXT: &str =
        "7 (VLLM::E (x) y) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 9 0 4711 99 2048 1 2";

    fn put(proc: &Path, pid: u32, stat: &str, environ: &str) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("stat"), stat).unwrap();
        std::fs::write(dir.join("environ"), environ).unwrap();
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        let want =
            Stat { name: "VLLM::E (x) y", cpu_ticks: 200.0, started: 4711, resident_pages: 2048.0 };
        assert_eq!(Stat::parse(TEXT), Some(want));
        assert_eq!(Stat::parse("7 (x"), None);
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }

    #[test]
    fn processes_are_ours_by_their_environment_and_by_nothing_else() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { proc: tree.path().to_owned(), ..Roots::default() };
        put(tree.path(), 7, TEXT, "A=b\0RUN=r1\0PROCESS=a/0/engine\0");
        put(tree.path(), 8, TEXT, "RUN=r2\0PROCESS=a/0/engine\0");
        put(tree.path(), 9, TEXT, "");
        put(tree.path(), 10, TEXT, "RUN=r1\0PROCESS=a/1/engine\0");
        let watched = Watched {
            marker: "RUN=r1".into(),
            id_variable: "PROCESS".into(),
            roles: BTreeMap::from([("a/0/engine".to_owned(), Role::Decode)]),
            elsewhere: BTreeSet::from(["a/1/engine".to_owned()]),
            own_name: None,
        };
        let mut source = Processes::new(&roots, "node1", watched);
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        source.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        let device = &found.series[0].device;
        assert_eq!(device.name, "a/0/engine 7 VLLM::E (x) y");
        assert_eq!(device.role, Some(Role::Decode));
        assert_eq!(found.series.len(), 2, "CPU and memory of one process");
        assert_eq!(found.series[0].readings.len(), 2);
    }

    #[test]
    fn our_own_process_is_read_where_it_is_asked_for() {
        let own_name = Some("load generator".to_owned());
        let watched = Watched { own_name, marker: "NO=such".into(), ..Watched::default() };
        let mut source = Processes::new(&Roots::default(), "here", watched);
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        assert_eq!(found.series[0].device.name, "load generator");
        assert!(found.series[1].readings[0].value > 1e5, "resident bytes of this test");
    }
}
