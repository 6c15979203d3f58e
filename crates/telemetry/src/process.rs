//! Processes of the deployment, and our own, by `/proc/PID`.
//!
//! A process belongs to the deployment when its environment carries the markers that everything which the plan
//! starts is started with, and which children inherit however they detach themselves; else when its parent does, or when
//! it was started under its pid. For who gives itself a title writes it over its environment, as vLLM's engine core and
//! workers do, Ray's, and routers.
//!
//! In a pod it is another way round: its container was not started by us, so that nothing there has the markers but what
//! was brought there, and every other process in the container's control group is the deployment's.

use crate::host::ticks_per_s;
use crate::quota::{Quota, controllers_and_path, is_seen};
use crate::readings::{Readings, Roots, Source};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::Role;
use scalebeam_model::telemetry::agent::WatchedPod;
use scalebeam_model::telemetry::{Device, Part, Quantity};
use scalebeam_model::units::Nanos;
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
    /// Pids that processes were started with, by their ids.
    pub started: BTreeMap<String, u32>,
    /// What our own process is called, where it is to be read.
    pub own_name: Option<String>,
    /// We are in a container of this pod, and so is what is watched.
    pub pod: Option<WatchedPod>,
}

/// A process that is watched.
#[derive(Debug)]
struct Ours {
    /// Its id in the plan; our own process has none.
    id: Option<String>,
    device: Device,
    quota: Option<Quota>,
}

/// What was read of a process, between two instants.
struct Look {
    pid: u32,
    from: Nanos,
    to: Nanos,
    stat: String,
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

    /// Every process that there is, parents before their children.
    fn looks(&self, clock: &dyn Clock) -> Vec<Look> {
        let look = |pid: u32| {
            let path = self.roots.proc.join(pid.to_string()).join("stat");
            let from = clock.now();
            let stat = read(&path)?;
            Some(Look { pid, from, to: clock.now(), stat })
        };
        let mut looks: Vec<Look> = self.pids().into_iter().filter_map(look).collect();
        looks.sort_by_cached_key(|look| (Stat::parse(&look.stat).map(|s| s.started), look.pid));
        looks
    }

    /// What a process is, where it is one of ours. `known` are those that were looked at before it.
    fn ours(
        &self,
        pid: u32,
        stat: &Stat<'_>,
        known: &BTreeMap<Born, Option<Ours>>,
    ) -> Option<Ours> {
        if pid == self.own_pid {
            let device = self.device(self.watched.own_name.clone()?, None);
            return Some(Ours { id: None, device, quota: Quota::of(&self.roots, pid) });
        }
        let id = self.marked(pid).or_else(|| parent(stat, known)?.id.clone());
        let started = || self.watched.started.iter().find(|(_, its)| **its == pid);
        let id = id.or_else(|| started().map(|(id, _)| id.clone()));
        let id = id.or_else(|| self.in_container(pid).map(|pod| pod.container.clone()))?;
        if self.watched.elsewhere.contains(&id) {
            return None;
        }
        Some(self.named(id, pid, stat))
    }

    /// Our own process has a name of our choice.
    fn is_still(&self, found: &Ours, pid: u32, stat: &Stat<'_>) -> bool {
        pid == self.own_pid || found.device.name.ends_with(stat.name)
    }

    fn named(&self, id: String, pid: u32, stat: &Stat<'_>) -> Ours {
        let pod = self.watched.pod.as_ref().filter(|pod| pod.container == id);
        let role = self.watched.roles.get(&id).copied().or_else(|| pod?.role);
        let device = self.device(format!("{id} {pid} {}", stat.name), role);
        Ours { id: Some(id), device, quota: Quota::of(&self.roots, pid) }
    }

    fn device(&self, name: String, role: Option<Role>) -> Device {
        Device { host: self.host.clone(), part: Part::Process, name, index: None, role }
    }

    /// The pod, where `pid` is in the container that we are in: in its control group, or below that.
    fn in_container(&self, pid: u32) -> Option<&WatchedPod> {
        let pod = self.watched.pod.as_ref()?;
        let group_of = |process: &str| {
            let text = read(&self.roots.proc.join(process).join("cgroup"))?;
            let lines = || text.lines().filter_map(controllers_and_path);
            let of_memory = lines().find(|(names, _)| names.split(',').any(|n| n == "memory"));
            let (_, path) = of_memory.or_else(|| lines().find(|(names, _)| names.is_empty()))?;
            Some(path.to_owned())
        };
        let group = group_of(&pid.to_string())?;
        (is_seen(&group) && group.starts_with(group_of("self")?)).then_some(pod)
    }

    /// The id in its environment, where that is of this run.
    fn marked(&self, pid: u32) -> Option<String> {
        let environ = std::fs::read(self.roots.proc.join(pid.to_string()).join("environ")).ok()?;
        let environ = String::from_utf8_lossy(&environ);
        let mut variables = environ.split('\0');
        if !variables.clone().any(|v| v == self.watched.marker) {
            return None;
        }
        let id =
            variables.find_map(|v| v.strip_prefix(&self.watched.id_variable)?.strip_prefix('='))?;
        Some(id.to_owned())
    }
}

/// The parent, where it is one of ours.
fn parent<'a>(stat: &Stat<'_>, known: &'a BTreeMap<Born, Option<Ours>>) -> Option<&'a Ours> {
    let of_pid = known.range((stat.parent, 0)..=(stat.parent, u64::MAX));
    // Of two with its number the later one is there.
    of_pid.last().and_then(|(_, ours)| ours.as_ref())
}

impl Source for Processes {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let mut known = BTreeMap::new();
        for Look { pid, from, to, stat } in self.looks(clock) {
            let Some(stat) = Stat::parse(&stat) else { continue };
            let born = (pid, stat.started);
            let ours = match self.known.remove(&born) {
                Some(Some(found)) if self.is_still(&found, pid, &stat) => Some(found),
                Some(None) => None,
                // Between fork and exec it has its parent's environment and name; later it may call itself otherwise.
                Some(Some(renamed)) => {
                    self.marked(pid).or(renamed.id).map(|id| self.named(id, pid, &stat))
                }
                None => self.ours(pid, &stat, &known),
            };
            if let Some(ours) = &ours {
                self.add(ours, &stat, (from, to), clock, out);
            }
            known.insert(born, ours);
        }
        self.known = known;
    }
}

impl Processes {
    fn add(
        &self,
        ours: &Ours,
        stat: &Stat<'_>,
        (from, to): (Nanos, Nanos),
        clock: &dyn Clock,
        out: &mut Readings,
    ) {
        let values = [
            (Quantity::ProcessCpu, stat.cpu_ticks / self.ticks_per_s),
            (Quantity::ProcessMemory, stat.resident_pages * self.page_bytes),
        ];
        out.add(&ours.device, from, to, &values);
        let from = clock.now();
        if let Some(counts) = ours.quota.as_ref().and_then(Quota::read) {
            out.add(&ours.device, from, clock.now(), &counts);
        }
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
    parent: u32,
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
            parent: field(4)?.parse().ok()?,
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
        let want = Stat {
            name: "VLLM::E (x) y",
            parent: 1,
            cpu_ticks: 200.0,
            started: 4711,
            resident_pages: 2048.0,
        };
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
            started: BTreeMap::new(),
            own_name: None,
            pod: None,
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

    /// vLLM's engine core and its workers: their titles lie over their environments.
    #[test]
    fn who_wrote_a_title_over_its_environment_is_known_by_its_parent() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { proc: tree.path().to_owned(), ..Roots::default() };
        let stat = |pid: u32, name: &str, parent: u32, started: u32| {
            format!(
                "{pid} ({name}) S {parent} 7 7 0 -1 0 9 0 0 0 150 50 0 0 20 0 9 0 {started} 99 2048 1 2"
            )
        };
        // Numbers begin anew: the worker's is below that of its parent.
        put(tree.path(), 70, &stat(70, "python", 1, 100), "RUN=r1\0PROCESS=a/0/engine\0");
        put(tree.path(), 71, &stat(71, "VLLM::EngineCor", 70, 200), "VLLM::EngineCore");
        put(tree.path(), 5, &stat(5, "VLLM::Worker", 71, 300), "");
        put(tree.path(), 80, &stat(80, "python", 1, 100), "");
        put(tree.path(), 81, &stat(81, "VLLM::Worker", 80, 300), "");
        // A router that nobody of ours is the parent of.
        put(tree.path(), 90, &stat(90, "sglang::router", 1, 400), "sglang::router");
        let watched = Watched {
            marker: "RUN=r1".into(),
            id_variable: "PROCESS".into(),
            started: BTreeMap::from([("a/router".to_owned(), 90)]),
            ..Watched::default()
        };
        let mut source = Processes::new(&roots, "node1", watched);
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        // One that was seen before it took its title is still the same.
        put(tree.path(), 70, &stat(70, "VLLM::API", 1, 100), "VLLM::API");
        source.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        let mut names: Vec<&str> = found.series.iter().map(|s| s.device.name.as_str()).collect();
        names.dedup();
        assert_eq!(
            names,
            [
                "a/0/engine 5 VLLM::Worker",
                "a/0/engine 70 VLLM::API",
                "a/0/engine 70 python",
                "a/0/engine 71 VLLM::EngineCor",
                "a/router 90 sglang::router",
            ]
        );
    }

    #[test]
    fn processes_of_a_container_are_ours_by_its_group_and_no_others_are() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { proc: tree.path().to_owned(), ..Roots::default() };
        let stat = |pid: u32| {
            format!("{pid} (vllm) S 0 7 7 0 -1 0 9 0 0 0 150 50 0 0 20 0 9 0 {pid} 99 2048 1 2")
        };
        for (pid, group) in [
            ("self", "/pod"),
            ("1", "/pod"),
            ("2", "/pod/ray"),
            ("3", "/pod2"),
            ("4", "/../other"),
            ("5", "/pod"),
        ] {
            let number = pid.parse().unwrap_or(0);
            // The last one is a shell that asks the agent.
            let environ = if number == 5 { "RUN=r1\0PROCESS=a/agent/pod\0" } else { "RUN=r0" };
            std::fs::create_dir_all(tree.path().join(pid)).unwrap();
            std::fs::write(tree.path().join(pid).join("cgroup"), format!("0::{group}\n")).unwrap();
            if number > 0 {
                put(tree.path(), number, &stat(number), environ);
            }
        }
        let pod =
            WatchedPod { node: "n1".into(), container: "main".into(), role: Some(Role::Prefill) };
        let watched = Watched {
            marker: "RUN=r1".into(),
            id_variable: "PROCESS".into(),
            pod: Some(pod),
            ..Watched::default()
        };
        let mut source = Processes::new(&roots, "pod-1", watched);
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        let mut seen: Vec<(&str, Option<Role>)> =
            found.series.iter().map(|s| (s.device.name.as_str(), s.device.role)).collect();
        seen.dedup();
        let want = [
            ("a/agent/pod 5 vllm", None),
            ("main 1 vllm", Some(Role::Prefill)),
            ("main 2 vllm", Some(Role::Prefill)),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn an_agent_is_itself_at_every_look_although_it_has_the_marks() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { proc: tree.path().to_owned(), ..Roots::default() };
        put(tree.path(), std::process::id(), TEXT, "RUN=r1\0PROCESS=a/agent/node1\0");
        let watched = Watched {
            marker: "RUN=r1".into(),
            id_variable: "PROCESS".into(),
            own_name: Some("telemetry agent".into()),
            ..Watched::default()
        };
        let mut source = Processes::new(&roots, "node1", watched);
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        source.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        assert_eq!(found.series.len(), 2, "{found:?}");
        assert_eq!(found.series[0].device.name, "telemetry agent");
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
