//! Pods: what each has of its node, and which GPUs are the deployment's.
//!
//! **Invariant.** A pod's number is not a machine's: of its node's other load it sees nothing, so no machine is made
//! of pods.

use super::{Allocated, AllocatedGpu, Look, MeanMax};
use crate::plan::Role;
use crate::telemetry::{Absent, Device, Part, Quantity, Telemetry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pod, by the control group of the container that the engine runs in: what it takes of its node, whose other load
/// it does not see. The agent that reads it is counted with it. What has no number is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct PodUse {
    /// Its name in the cluster.
    pub host: String,
    /// The node that it is on.
    pub node: String,
    /// What it works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Cores in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<MeanMax>,
    /// Cores that it may use at most; absent where it has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_cores: Option<f64>,
    /// Share of the cores that it may use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<MeanMax>,
    /// Share of the periods in which it wanted to run and had used up its cores, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_waits_pct: Option<f64>,
    /// Share of the time in which some task of it waited for a core, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_pct: Option<MeanMax>,
    /// Memory that it cannot be without, in bytes: charged to it, minus files that can be dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<MeanMax>,
    /// Memory beyond which it is ended; absent where it has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<f64>,
    /// Share of the memory that it may use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pct: Option<MeanMax>,
    /// Share of TCP segments that were sent again, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_resent_pct: Option<f64>,
}

/// What a deployment was given, where its GPUs were read in pods; else nothing. Or why nobody knows which they are.
///
/// Which GPUs a pod gets is decided by its node, after the plan: they are the deployment's where the pods that work for
/// an instance see as many as was asked for. One that two pods see (shared in turns) is one.
pub(super) fn allocated(
    telemetry: &Telemetry,
    planned: &Allocated,
) -> (Option<Allocated>, Option<Absent>) {
    let of_pod = |d: &Device| Some((d.host.clone(), d.role?));
    let roles: BTreeMap<String, Role> =
        telemetry.devices(Part::Pod).into_iter().filter_map(of_pod).collect();
    let mut seen: BTreeMap<&str, AllocatedGpu> = BTreeMap::new();
    for device in telemetry.devices(Part::Gpu) {
        let Some((role, id)) = roles.get(&device.host).zip(device.index) else { continue };
        let gpu = AllocatedGpu { host: device.host.clone(), id, instance: None, role: *role };
        seen.entry(&device.name).or_insert(gpu);
    }
    if seen.is_empty() || planned.is_emulated {
        return (None, None);
    }
    let (count, wanted) = (seen.len(), planned.wanted);
    let is_theirs = u32::try_from(count) == Ok(wanted);
    let unknown = (!is_theirs).then(|| Absent {
        host: roles.into_keys().collect::<Vec<_>>().join(", "),
        what: "energy of the deployment's GPUs".to_owned(),
        why: format!("{count} GPUs were seen in its pods, and it was given {wanted}"),
    });
    let gpus = if is_theirs { seen.into_values().collect() } else { Vec::new() };
    (Some(Allocated { gpus, ..planned.clone() }), unknown)
}

impl Look<'_> {
    /// What `device` did, held against its own limits.
    pub(super) fn pod(&mut self, device: &Device) -> PodUse {
        let cpu = self.rate(device, Quantity::PodCpu, 1.0);
        let memory = self.gauge(device, Quantity::PodMemory);
        let limit_cores = self.gauge(device, Quantity::PodCores).and_then(|c| c.max);
        let memory_limit = self.gauge(device, Quantity::PodMemoryLimit).and_then(|m| m.max);
        let share = |(used, all): (MeanMax, f64)| (all > 0.0).then(|| used.scaled(100.0 / all));
        PodUse {
            host: device.host.clone(),
            node: device.name.clone(),
            role: device.role,
            cpu_cores: cpu,
            limit_cores,
            cpu_pct: cpu.zip(limit_cores).and_then(share),
            quota_waits_pct: self.quota_waits_pct(device),
            cpu_pressure_pct: self.rate(device, Quantity::CpuPressure, 100.0),
            memory_bytes: memory,
            memory_limit_bytes: memory_limit,
            memory_pct: memory.zip(memory_limit).and_then(share),
            tcp_resent_pct: self.tcp_resent_pct(device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Usage, Window, usage};
    use super::*;
    use crate::telemetry::{Reading, Series};
    use crate::units::Nanos;

    fn device(pod: &str, part: Part, name: &str, index: Option<u32>) -> Device {
        let role = (part == Part::Pod && pod != "frontend").then_some(Role::Prefill);
        Device { host: pod.into(), part, name: name.into(), index, role }
    }

    /// Readings at every second from 0 to 20.
    fn series(device: &Device, quantity: Quantity, of: impl Fn(f64) -> f64) -> Series {
        let reading = |s: u32| {
            let at = Nanos::from_secs(u64::from(s));
            Reading { from: at, to: at, value: of(f64::from(s)) }
        };
        Series { device: device.clone(), quantity, readings: (0..=20).map(reading).collect() }
    }

    fn of(series: Vec<Series>, wanted: u32) -> Usage {
        let interval = Nanos::from_secs(1);
        let telemetry = Telemetry { interval, series, ..Telemetry::default() };
        let window = Window { from: Nanos::from_secs(2), to: Nanos::from_secs(12) };
        usage(&telemetry, window, &Allocated { wanted, ..Allocated::default() }, None)
    }

    #[test]
    fn a_pod_is_held_against_its_own_limits() {
        let pod = device("p", Part::Pod, "n1", None);
        let all = vec![
            series(&pod, Quantity::PodCpu, |t| 1.5 * t),
            series(&pod, Quantity::PodCores, |_| 2.0),
            series(&pod, Quantity::PodMemory, |_| 3e9),
            series(&pod, Quantity::QuotaPeriods, |t| 10.0 * t),
            series(&pod, Quantity::QuotaWaits, |t| 4.0 * t),
        ];
        let found = &of(all, 0).pods[0];
        assert_eq!((found.host.as_str(), found.node.as_str()), ("p", "n1"));
        assert_eq!(found.role, Some(Role::Prefill));
        let cpu = (found.cpu_cores.unwrap().mean, found.cpu_pct.unwrap().mean);
        assert!((cpu.0 - 1.5).abs() < 1e-9 && (cpu.1 - 75.0).abs() < 1e-9, "{cpu:?}");
        assert_eq!(found.quota_waits_pct, Some(40.0));
        assert_eq!((found.memory_pct, found.memory_limit_bytes), (None, None), "it has no limit");
        assert!((found.memory_bytes.unwrap().mean - 3e9).abs() < 1.0);
    }

    #[test]
    fn pods_are_no_machines() {
        let pod = device("p", Part::Pod, "n1", None);
        let found = of(vec![series(&pod, Quantity::PodCpu, |t| t)], 0);
        assert_eq!((found.hosts.len(), found.pods.len()), (0, 1));
    }

    fn watched(pod: &str, gpus: &[&str]) -> Vec<Series> {
        let mut all = vec![series(&device(pod, Part::Pod, "n1", None), Quantity::PodCpu, |t| t)];
        for (index, name) in (0..).zip(gpus) {
            let gpu = device(pod, Part::Gpu, name, Some(index));
            all.push(series(&gpu, Quantity::Power, |_| 300.0));
        }
        all
    }

    #[test]
    fn gpus_of_pods_are_the_deployment_s_where_they_are_as_many_as_it_was_given() {
        let pods = || [watched("a", &["GPU-1", "GPU-2"]), watched("b", &["GPU-3"])].concat();
        let found = of([pods(), watched("frontend", &["GPU-9"])].concat(), 3);
        let energy = found.energy.unwrap();
        assert_eq!((energy.gpus, energy.joules_by_role.len()), (3, 1));
        assert!((energy.joules - 9_000.0).abs() < 1e-6, "{energy:?}");
        let of_roles = found.gpus.iter().filter(|g| g.role == Some(Role::Prefill));
        assert_eq!(of_roles.count(), 3, "{:?}", found.gpus);
        let found = of(pods(), 4);
        assert_eq!(found.energy, None);
        assert_eq!(found.absent[0].why, "3 GPUs were seen in its pods, and it was given 4");
        assert!(found.gpus.iter().all(|g| g.role.is_none()), "{:?}", found.gpus);
    }

    #[test]
    fn a_gpu_that_two_pods_see_is_one() {
        let found = of([watched("a", &["GPU-1"]), watched("b", &["GPU-1"])].concat(), 1);
        assert!((found.energy.unwrap().joules - 3_000.0).abs() < 1e-6);
    }
}
