//! The CPU quota of a process's control group, and how often it was used up.
//!
//! A group with a quota may run for so much of each period (100 ms, where nobody says otherwise); what wants to run
//! after that waits for the next. The kernel counts the periods in which the group wanted to run, and those of them
//! in which it was made to wait.

use crate::readings::Roots;
use scalebeam_model::telemetry::Quantity;
use std::path::{Component, Path, PathBuf};

/// A group with a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    stat: PathBuf,
}

impl Quota {
    /// The quota that holds process `pid`: that of its group, or of the nearest group above that has one.
    pub(crate) fn of(roots: &Roots, pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(roots.proc.join(pid.to_string()).join("cgroup")).ok()?;
        let mounts = roots.sys.join("fs/cgroup");
        text.lines().filter_map(group).find_map(|(mount, path)| nearest(&mounts.join(mount), path))
    }

    /// Periods in which the group wanted to run, and those in which it had to wait, since it was made.
    pub(crate) fn read(&self) -> Option<[(Quantity, f64); 2]> {
        let text = std::fs::read_to_string(&self.stat).ok()?;
        Some([
            (Quantity::QuotaPeriods, counted(&text, "nr_periods")?),
            (Quantity::QuotaWaits, counted(&text, "nr_throttled")?),
        ])
    }
}

/// Where the controller of cores is mounted below `/sys/fs/cgroup`, and the group's path there: of a line
/// `ID:CONTROLLERS:PATH`, whose controllers are empty in version 2.
fn group(line: &str) -> Option<(&str, &Path)> {
    let (controllers, path) = controllers_and_path(line)?;
    let is_of_cores = controllers.is_empty() || controllers.split(',').any(|c| c == "cpu");
    (is_of_cores && is_seen(path)).then_some((controllers, path))
}

/// Of a line of `/proc/PID/cgroup`.
pub(crate) fn controllers_and_path(line: &str) -> Option<(&str, &Path)> {
    let mut parts = line.splitn(3, ':').skip(1);
    Some((parts.next()?, Path::new(parts.next()?)))
}

/// A group outside of what a container sees is no path that can be followed.
pub(crate) fn is_seen(path: &Path) -> bool {
    !path.components().any(|c| c == Component::ParentDir)
}

/// The directory of the group `path` below `mount`. A container sees its own group there alone, whatever its path is on
/// the node.
pub(crate) fn follow(mount: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix("/").ok().filter(|_| is_seen(path)).map(|p| mount.join(p));
    below.filter(|dir| dir.is_dir()).unwrap_or_else(|| mount.to_owned())
}

fn nearest(mount: &Path, path: &Path) -> Option<Quota> {
    let below = path.ancestors().filter_map(|p| p.strip_prefix("/").ok());
    let dir = below.map(|p| mount.join(p)).find(|dir| has_quota(dir))?;
    Some(Quota { stat: dir.join("cpu.stat") })
}

/// `cpu.max` of version 2 is `QUOTA PERIOD` or `max PERIOD`; `cpu.cfs_quota_us` of version 1 is -1 without one.
fn has_quota(dir: &Path) -> bool {
    let first = |file: &str| first_number(&dir.join(file));
    first("cpu.max").or_else(|| first("cpu.cfs_quota_us")).is_some_and(|quota| quota > 0.0)
}

/// The number behind `name` in lines of a name and a number.
pub(crate) fn counted(text: &str, name: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The number that a file begins with.
pub(crate) fn first_number(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn of_seven(cgroup: &str) -> Tree {
        let tree = Tree::new();
        tree.put("proc/7/cgroup", cgroup);
        tree
    }

    fn quota(tree: &Tree) -> Option<Quota> {
        Quota::of(&tree.roots(), 7)
    }

    const WAITED: [(Quantity, f64); 2] =
        [(Quantity::QuotaPeriods, 40.0), (Quantity::QuotaWaits, 30.0)];

    #[test]
    fn version_two_is_read_at_the_nearest_group_that_has_a_quota() {
        let tree = of_seven("0::/pod/engine\n");
        tree.put("sys/fs/cgroup/pod/engine/cpu.max", "max 100000\n");
        tree.put("sys/fs/cgroup/pod/engine/cpu.stat", "usage_usec 9\n");
        assert_eq!(quota(&tree), None);
        tree.put("sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
        tree.put("sys/fs/cgroup/pod/cpu.stat", "usage_usec 9\nnr_periods 40\nnr_throttled 30\n");
        assert_eq!(quota(&tree).unwrap().read(), Some(WAITED));
    }

    #[test]
    fn version_one_is_read_where_its_controllers_are_mounted() {
        let tree = of_seven("5:memory:/m\n4:cpu,cpuacct:/pod\n0::/\n");
        tree.put("sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "-1\n");
        assert_eq!(quota(&tree), None);
        tree.put("sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "50000\n");
        tree.put("sys/fs/cgroup/cpu,cpuacct/pod/cpu.stat", "nr_periods 40\nnr_throttled 30\n");
        assert_eq!(quota(&tree).unwrap().read(), Some(WAITED));
    }

    #[test]
    fn a_group_that_a_container_does_not_see_has_no_quota_that_is_known() {
        let tree = of_seven("0::/../other\nnonsense\n");
        tree.put("sys/fs/cgroup/cpu.max", "50000 100000\n");
        assert_eq!(quota(&tree), None);
        tree.put("proc/7/cgroup", "0::/\n");
        assert_eq!(quota(&tree).unwrap().read(), None, "there are no counts");
    }
}
