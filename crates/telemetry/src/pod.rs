//! A pod, by the control group of the container that this process is in.
//!
//! **Invariant.** Only what is the container's own is read. `/proc/stat` and `/proc/meminfo` are the whole node's in a
//! container too, and which part of them is the pod's nobody could tell. A process that is in no group but the
//! machine's own is in no container, and nothing is read then.

use crate::host::{PRESSURES, tcp, waited};
use crate::quota::{Quota, controllers_and_path, counted, first_number, follow};
use crate::readings::{Readings, Roots, Source, number, timed_text};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::agent::WatchedPod;
use scalebeam_model::telemetry::{Device, Part, Quantity};
use std::path::{Path, PathBuf};

/// Version 1 has no word for "no limit": a limit beyond this is one.
const NO_LIMIT_BYTES: f64 = 4e18;

/// The container's group.
#[derive(Debug)]
pub(crate) struct Pod {
    device: Device,
    proc: PathBuf,
    group: Group,
    quota: Option<Quota>,
}

/// Where the files of a group are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Group {
    /// All in one directory.
    Two(PathBuf),
    /// A hierarchy for each controller.
    One { time: PathBuf, cores: PathBuf, memory: PathBuf },
}

impl Pod {
    /// # Errors
    /// Says why its group cannot be read.
    pub(crate) fn open(roots: &Roots, host: &str, pod: &WatchedPod) -> Result<Self, String> {
        let file = roots.proc.join("self/cgroup");
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let group = Group::of(&text, &roots.sys.join("fs/cgroup"))?;
        let device = Device {
            host: host.to_owned(),
            part: Part::Pod,
            name: pod.node.clone(),
            index: None,
            role: pod.role,
        };
        let quota = Quota::of(roots, std::process::id());
        Ok(Self { device, proc: roots.proc.clone(), group, quota })
    }
}

impl Group {
    fn of(cgroup: &str, mounts: &Path) -> Result<Self, String> {
        let of = |controller: &str| {
            let is_of = |names: &str| names.split(',').any(|name| name == controller);
            let mut lines = cgroup.lines().filter_map(controllers_and_path);
            let (names, path) = lines.find(|(names, _)| is_of(names))?;
            let mount = [controller, names].map(|name| mounts.join(name)).into_iter();
            Some(follow(&mount.clone().find(|dir| dir.is_dir())?, path))
        };
        if mounts.join("cgroup.controllers").exists() {
            let dir = of("").unwrap_or_else(|| mounts.to_owned());
            // The group of the whole machine has no events.
            return match dir.join("cgroup.events").exists() {
                true => Ok(Self::Two(dir)),
                false => Err(format!("{} is the machine's own group", dir.display())),
            };
        }
        let lacks =
            |name: &str| format!("no control group of {name} is seen below {}", mounts.display());
        let time = of("cpuacct").ok_or_else(|| lacks("cpuacct"))?;
        let cores = of("cpu").ok_or_else(|| lacks("cpu"))?;
        let memory = of("memory").ok_or_else(|| lacks("memory"))?;
        // Only the group of the whole machine has such a file.
        match time.join("release_agent").exists() || memory.join("release_agent").exists() {
            true => Err(format!("{} is the machine's own group", time.display())),
            false => Ok(Self::One { time, cores, memory }),
        }
    }

    /// CPU time in seconds.
    fn cpu_s(&self) -> Option<f64> {
        match self {
            Self::Two(dir) => Some(named(&dir.join("cpu.stat"), "usage_usec")? / 1e6),
            Self::One { time, .. } => Some(number(&time.join("cpuacct.usage"))? / 1e9),
        }
    }

    /// `cpu.max` of version 2 is `QUOTA PERIOD` or `max PERIOD`; the quota of version 1 is -1 without one.
    fn cores(&self) -> Option<f64> {
        let (quota, period) = match self {
            Self::Two(dir) => {
                let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            Self::One { cores, .. } => (
                first_number(&cores.join("cpu.cfs_quota_us"))?,
                first_number(&cores.join("cpu.cfs_period_us"))?,
            ),
        };
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    }

    fn memory_bytes(&self) -> Option<f64> {
        let (dir, all, inactive) = match self {
            Self::Two(dir) => (dir, "memory.current", "inactive_file"),
            Self::One { memory, .. } => (memory, "memory.usage_in_bytes", "total_inactive_file"),
        };
        let all = number(&dir.join(all))?;
        // It is counted at another moment.
        Some((all - named(&dir.join("memory.stat"), inactive)?).max(0.0))
    }

    fn memory_limit_bytes(&self) -> Option<f64> {
        let limit = match self {
            Self::Two(dir) => number(&dir.join("memory.max")),
            Self::One { memory, .. } => number(&memory.join("memory.limit_in_bytes")),
        };
        limit.filter(|bytes| *bytes < NO_LIMIT_BYTES)
    }

    /// Version 1 has no pressure.
    fn pressures(&self) -> Vec<(Quantity, f64)> {
        let Self::Two(dir) = self else { return Vec::new() };
        let of = |(name, quantity): (&str, Quantity)| {
            let file = dir.join(format!("{name}.pressure"));
            Some((quantity, waited(&std::fs::read_to_string(file).ok()?)?))
        };
        PRESSURES.into_iter().filter_map(of).collect()
    }
}

/// The number behind `name` in a file of such lines.
fn named(path: &Path, name: &str) -> Option<f64> {
    counted(&std::fs::read_to_string(path).ok()?, name)
}

impl Source for Pod {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let mut add = |values: &dyn Fn() -> Vec<(Quantity, f64)>| {
            let from = clock.now();
            let values = values();
            out.add(&self.device, from, clock.now(), &values);
        };
        let group = &self.group;
        let one = |quantity, value: Option<f64>| value.map(|value| (quantity, value));
        add(&|| one(Quantity::PodCpu, group.cpu_s()).into_iter().collect());
        add(&|| {
            let memory = [
                one(Quantity::PodCores, group.cores()),
                one(Quantity::PodMemory, group.memory_bytes()),
                one(Quantity::PodMemoryLimit, group.memory_limit_bytes()),
            ];
            memory.into_iter().flatten().collect()
        });
        add(&|| group.pressures());
        add(&|| self.quota.as_ref().and_then(Quota::read).into_iter().flatten().collect());
        // Of the pod's own network, whose processes we are one of.
        if let Some((from, to, text)) = timed_text(clock, &self.proc.join("net/snmp")) {
            out.add(&self.device, from, to, &tcp(&text).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::plan::Role;
    use scalebeam_model::units::Nanos;
    use std::collections::BTreeMap;

    /// What both files say where this process' own number is asked for.
    fn of_this_process(cgroup: &str) -> Tree {
        let tree = Tree::new();
        tree.put("proc/self/cgroup", cgroup);
        tree.put(&format!("proc/{}/cgroup", std::process::id()), cgroup);
        tree
    }

    fn open(tree: &Tree) -> Result<Pod, String> {
        let role = Some(Role::Decode);
        let pod = WatchedPod { node: "n1".into(), container: "main".into(), role };
        Pod::open(&tree.roots(), "pod-1", &pod)
    }

    fn read(tree: &Tree) -> BTreeMap<Quantity, f64> {
        let (mut pod, mut readings) = (open(tree).unwrap(), Readings::default());
        pod.read(&ManualClock::default(), &mut readings);
        let found = readings.finish(Nanos::from_secs(1), Vec::new());
        let device = &found.series[0].device;
        assert_eq!((device.host.as_str(), device.name.as_str()), ("pod-1", "n1"));
        assert_eq!((device.part, device.role), (Part::Pod, Some(Role::Decode)));
        found.series.iter().map(|s| (s.quantity, s.readings[0].value)).collect()
    }

    #[test]
    fn version_two_is_read_in_the_container_s_own_directory() {
        let tree = of_this_process("0::/\n");
        for (file, text) in [
            ("cgroup.controllers", "cpu memory\n"),
            ("cgroup.events", "populated 1\n"),
            ("cpu.stat", "usage_usec 2500000\nnr_periods 40\nnr_throttled 30\n"),
            ("cpu.max", "150000 100000\n"),
            ("memory.current", "3000\n"),
            ("memory.stat", "anon 5\ninactive_file 1000\n"),
            ("memory.max", "8000\n"),
            ("cpu.pressure", "some avg10=0.00 total=500000\n"),
        ] {
            tree.put(&format!("sys/fs/cgroup/{file}"), text);
        }
        let want = [
            (Quantity::CpuPressure, 0.5),
            (Quantity::QuotaPeriods, 40.0),
            (Quantity::QuotaWaits, 30.0),
            (Quantity::PodCpu, 2.5),
            (Quantity::PodCores, 1.5),
            (Quantity::PodMemory, 2000.0),
            (Quantity::PodMemoryLimit, 8000.0),
        ];
        assert_eq!(read(&tree), BTreeMap::from(want));
        tree.put("sys/fs/cgroup/cpu.max", "max 100000\n");
        tree.put("sys/fs/cgroup/memory.max", "max\n");
        let found = read(&tree);
        assert!(!found.contains_key(&Quantity::PodCores), "{found:?}");
        assert!(!found.contains_key(&Quantity::PodMemoryLimit), "{found:?}");
    }

    /// Paths of version 1 are those of the node, and what is mounted is the container's part.
    #[test]
    fn version_one_is_read_controller_by_controller() {
        let tree =
            of_this_process("5:memory:/kubepods/pod7/c\n4:cpu,cpuacct:/kubepods/pod7/c\n0::/\n");
        for (file, text) in [
            ("cpu,cpuacct/cpuacct.usage", "2500000000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("memory/memory.usage_in_bytes", "3000\n"),
            ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ] {
            tree.put(&format!("sys/fs/cgroup/{file}"), text);
        }
        let want =
            [(Quantity::PodCpu, 2.5), (Quantity::PodCores, 2.0), (Quantity::PodMemory, 2000.0)];
        assert_eq!(read(&tree), BTreeMap::from(want));
    }

    #[test]
    fn the_machine_s_own_group_is_no_pod() {
        let two = of_this_process("0::/\n");
        two.put("sys/fs/cgroup/cgroup.controllers", "cpu\n");
        assert!(open(&two).unwrap_err().contains("the machine's own group"));
        let one = of_this_process("3:cpuacct:/\n2:cpu:/\n1:memory:/\n");
        for controller in ["cpu", "cpuacct", "memory"] {
            one.put(&format!("sys/fs/cgroup/{controller}/release_agent"), "");
        }
        assert!(open(&one).unwrap_err().contains("the machine's own group"));
        let none = of_this_process("");
        assert!(open(&none).unwrap_err().contains("cpuacct"));
    }
}
