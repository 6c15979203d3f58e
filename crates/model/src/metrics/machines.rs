//! Metrics of the machines of a trial.

use super::TrialView;
use super::catalogue::{output_tokens, output_tps_steady};
use crate::telemetry::energy::EnergyUse;
use crate::telemetry::host_energy::HostEnergy;
use crate::telemetry::usage::{GpuUse, HostUse, LinkUse, MeanMax, Usage};
use crate::telemetry::{Part, Quantity};
use std::collections::BTreeMap;

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(super) fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Energy of the GPUs that the deployment was given.
pub(super) fn energy<'a>(t: &TrialView<'a>) -> Option<&'a EnergyUse> {
    t.usage?.energy.as_ref()
}

/// The same, where it is of all of the measured time.
pub(super) fn whole_energy<'a>(t: &TrialView<'a>) -> Option<&'a EnergyUse> {
    t.usage.filter(|u| !u.is_steady)?.energy.as_ref()
}

/// Energy of the GPUs and of the machines around them.
pub(super) fn host_energy<'a>(t: &TrialView<'a>) -> Option<&'a HostEnergy> {
    t.usage?.host_energy.as_ref()
}

/// The same, where it is of all of the measured time.
pub(super) fn whole_host_energy<'a>(t: &TrialView<'a>) -> Option<&'a HostEnergy> {
    t.usage.filter(|u| !u.is_steady)?.host_energy.as_ref()
}

/// Output tokens per second of the time that the energy is of.
pub(super) fn output_tps(t: &TrialView<'_>) -> Option<f64> {
    match t.usage?.is_steady {
        true => output_tps_steady(t),
        false => Some(output_tokens(t)? / t.wall_s()?),
    }
}

/// One number over the GPUs of the deployment; absent where one of them has none.
pub(super) fn gpus(
    t: &TrialView<'_>,
    of: fn(&GpuUse) -> Option<f64>,
    over: fn(&[f64]) -> f64,
) -> Option<f64> {
    let values: Vec<f64> = t.usage?.given_gpus().map(of).collect::<Option<_>>()?;
    (!values.is_empty() && !t.usage?.misses(Quantity::Power)).then(|| over(&values))
}

/// GPUs of the deployment on which any kernel ran; absent where it is not known of one of them.
pub(super) fn working_gpus(t: &TrialView<'_>) -> Option<f64> {
    let worked = |gpu: &GpuUse| Some(f64::from(u8::from(gpu.busy_pct?.max? > 0.0)));
    gpus(t, worked, |each| each.iter().sum())
}

/// (max - min) / max of the memory in use, within an instance; the largest.
pub(super) fn memory_imbalance(t: &TrialView<'_>) -> Option<f64> {
    imbalance(t, |gpu| gpu.memory_bytes)
}

/// The same of the share of the time in which a GPU was busy.
pub(super) fn busy_imbalance(t: &TrialView<'_>) -> Option<f64> {
    imbalance(t, |gpu| gpu.busy_pct)
}

fn imbalance(t: &TrialView<'_>, of: fn(&GpuUse) -> Option<MeanMax>) -> Option<f64> {
    let mut by_instance: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    // Of which instance a pod's GPU is nobody tells.
    for (gpu, instance) in t.usage?.given_gpus().filter_map(|gpu| Some((gpu, gpu.instance?))) {
        by_instance.entry(instance).or_default().push(of(gpu)?.mean);
    }
    let of_instance = |used: &Vec<f64>| {
        let (most, least) = (max(used), used.iter().copied().fold(f64::INFINITY, f64::min));
        (most > 0.0).then(|| (most - least) / most)
    };
    let several = by_instance.values().filter(|used| used.len() > 1);
    several.filter_map(of_instance).reduce(f64::max)
}

/// One number over the hosts of the deployment; absent where one of them has none.
pub(super) fn hosts(
    t: &TrialView<'_>,
    of: fn(&HostUse) -> Option<f64>,
    over: fn(&[f64]) -> f64,
) -> Option<f64> {
    let values: Vec<f64> = serving(t.usage?)?.map(of).collect::<Option<_>>()?;
    (!values.is_empty()).then(|| over(&values))
}

/// The hosts of the deployment, where all of them were read.
fn serving(usage: &Usage) -> Option<impl Iterator<Item = &HostUse>> {
    let all = !usage.misses(Quantity::CpuBusy);
    all.then(|| usage.hosts.iter().filter(|host| host.serves))
}

/// One number over the hosts of the deployment of what their links carried; absent where none has one.
pub(super) fn network(
    t: &TrialView<'_>,
    part: Part,
    of: fn(MeanMax) -> Option<f64>,
    over: fn(&[f64]) -> f64,
) -> Option<f64> {
    let usage = t.usage?;
    let links = match part {
        Part::Rdma => &usage.rdma,
        _ => &usage.links,
    };
    let of_host = |host: &HostUse| {
        let mine = |link: &&LinkUse| link.host == host.host && link.name != "lo";
        let mut rates = links.iter().filter(mine).flat_map(|l| [l.received_gbps, l.sent_gbps]);
        rates.try_fold(0.0, |sum, rate| Some(sum + of(rate?)?))
    };
    if links.is_empty() {
        return None;
    }
    let values: Vec<f64> = serving(usage)?.map(of_host).collect::<Option<_>>()?;
    (!values.is_empty()).then(|| over(&values))
}
