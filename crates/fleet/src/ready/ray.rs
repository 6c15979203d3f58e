//! What `ray status` says about a cluster. Pure.
//!
//! It adds up what all nodes offer and, depending on the version, names them by an id, an address or not
//! at all. Each raylet of a plan therefore offers one resource of its own.

use scalebeam_model::plan::RayNode;
use std::collections::BTreeMap;

/// What a cluster lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lack<'a> {
    /// These hosts have not joined.
    Hosts(Vec<&'a str>),
    /// All have; these are the GPUs that they brought.
    Gpus(u32),
}

/// What the cluster lacks of `nodes` by `status`; nothing where it is whole.
pub(super) fn lack<'a>(status: &str, nodes: &'a [RayNode]) -> Option<Lack<'a>> {
    let totals: BTreeMap<&str, u32> = status.lines().filter_map(total).collect();
    let absent = nodes.iter().filter(|node| !totals.contains_key(node.resource.as_str()));
    let hosts: Vec<&str> = absent.map(|node| node.host.as_str()).collect();
    if !hosts.is_empty() {
        return Some(Lack::Hosts(hosts));
    }
    let gpus = totals.get("GPU").copied().unwrap_or(0);
    (gpus < nodes.iter().map(|node| node.gpus).sum()).then_some(Lack::Gpus(gpus))
}

/// Name and whole number of a line ` USED/TOTAL NAME`. Memory has a unit and is not asked for.
fn total(line: &str) -> Option<(&str, u32)> {
    let mut words = line.split_ascii_whitespace();
    let (_, total) = words.next()?.split_once('/')?;
    let (whole, part) = total.split_once('.').unwrap_or((total, "0"));
    part.parse::<u32>().ok()?;
    Some((words.next()?, whole.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Ray 2.60.0, of two raylets.
    const WHOLE: &str = "======== Autoscaler status: 2026-11-26 06:02:22.413899 ========
Node status
---------------------------------------------------------------
Active:
 1 node_208ce5fec7eec5dd9f5a6fc3069a0249f74b38832158b344d67fdae6
 1 node_d50b5ee55f57930532ec9afb29b6e4b2946861cab94ccd55b2a6af50
Pending:
 (no pending nodes)
Recent failures:
 (no failures)

Resources
---------------------------------------------------------------
Total Usage:
 0.0/2.0 CPU
 0.0/2.0 GPU
 0B/27.10GiB memory
 0B/11.61GiB object_store_memory
 0.0/1.0 scalebeam:a
 0.0/1.0 scalebeam:b

From request_resources:
 (none)
Pending Demands:
 (no resource demands)
";

    fn nodes() -> [RayNode; 2] {
        ["a", "b"].map(|host| RayNode {
            host: host.into(),
            resource: format!("scalebeam:{host}"),
            gpus: 1,
        })
    }

    #[test]
    fn a_cluster_is_whole_once_every_host_and_gpu_is_in_its_sums() {
        let nodes = nodes();
        assert_eq!(lack(WHOLE, &nodes), None);
        let alone = WHOLE.replace(" 0.0/1.0 scalebeam:b\n", "");
        assert_eq!(lack(&alone, &nodes), Some(Lack::Hosts(vec!["b"])));
        let few = WHOLE.replace("/2.0 GPU", "/1.0 GPU");
        assert_eq!(lack(&few, &nodes), Some(Lack::Gpus(1)));
        let early = "No cluster status. It may take a few seconds for the Ray internal services to start up.";
        assert_eq!(lack(early, &nodes), Some(Lack::Hosts(vec!["a", "b"])));
    }

    #[test]
    fn what_is_in_use_is_there() {
        let used = " 2.0/2.0 GPU (2.0 used of 2.0 reserved in placement groups)";
        assert_eq!(total(used), Some(("GPU", 2)));
        assert_eq!(total(" 0B/9.31GiB memory"), None);
    }
}
