//! Energy of a deployment's machines: its GPUs and what is around them.
//!
//! Of each machine one of two ways. Its management controller tells the power of all of it: then GPUs are inside,
//! and nothing is added. Else its processor packages, and their memory where that has a counter of its own, have
//! counted energy, to which that of the GPUs which were given is added; fans, disks and power supplies are in no
//! such sum. A machine without either leaves no number: a sum over some is not the sum.

use super::energy::{self, Energy};
use super::usage::{AllocatedGpu, name_of};
use super::window::{self, Flaw, FlawKind, Window};
use super::{Allocated, Device, Part, Quantity, Telemetry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How the power of a machine is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerBy {
    /// Its management controller tells that of all of it, GPUs included: also of those of others.
    WholeMachine,
    /// Counters of its processors and their memory, and its GPUs.
    PackagesAndGpus,
}

/// Energy of one machine over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostPower {
    /// Host in the file.
    pub host: String,
    /// How it is known.
    pub by: PowerBy,
    /// What is counted, once each: `chassis redfish`, or `package intel-rapl:0 package-0` and `gpu 0`.
    pub counted: Vec<String>,
    /// Energy.
    pub joules: f64,
    /// Energy / time.
    pub mean_w: f64,
}

/// Energy of all machines of a deployment over the window, GPUs included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostEnergy {
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Summed over the machines.
    pub joules: f64,
    /// Energy / time.
    pub mean_w: f64,
    /// Each machine.
    pub by_host: Vec<HostPower>,
}

/// Energy of the hosts of a deployment over `window`; why one that has a source has no number goes to `flaws`.
pub(super) fn of_hosts(
    telemetry: &Telemetry,
    allocated: &Allocated,
    window: Window,
    flaws: &mut Vec<Flaw>,
) -> Option<HostEnergy> {
    if allocated.is_emulated || allocated.hosts.is_empty() {
        return None;
    }
    let mut look = Look { telemetry, window, flaws };
    let found: Vec<Option<HostPower>> =
        allocated.hosts.iter().map(|host| look.host(host, allocated)).collect();
    let by_host: Vec<HostPower> = found.into_iter().collect::<Option<_>>()?;
    Some(HostEnergy {
        seconds: window.seconds(),
        joules: by_host.iter().map(|h| h.joules).sum(),
        mean_w: by_host.iter().map(|h| h.mean_w).sum(),
        by_host,
    })
}

struct Look<'a> {
    telemetry: &'a Telemetry,
    window: Window,
    flaws: &'a mut Vec<Flaw>,
}

impl<'a> Look<'a> {
    fn host(&mut self, host: &str, allocated: &Allocated) -> Option<HostPower> {
        self.whole(host).or_else(|| {
            let gpus: Vec<&AllocatedGpu> =
                allocated.gpus.iter().filter(|g| g.host == host).collect();
            self.packages_and_gpus(host, &gpus)
        })
    }

    fn whole(&mut self, host: &str) -> Option<HostPower> {
        let of_host = self.telemetry.devices(Part::Chassis).into_iter().filter(|d| d.host == host);
        for device in of_host {
            let found = energy::of_device(self.telemetry, device, self.window);
            if let Some(energy) = self.told(device, Quantity::Power, found) {
                return Some(self.power(host, PowerBy::WholeMachine, &[(device, energy.joules)]));
            }
        }
        None
    }

    fn packages_and_gpus(&mut self, host: &str, gpus: &[&AllocatedGpu]) -> Option<HostPower> {
        let packages = packages(self.telemetry, host);
        if packages.is_empty() {
            return None;
        }
        let mut counted = Vec::with_capacity(packages.len() + gpus.len());
        for device in packages {
            counted.push((device, self.package(device)?));
        }
        for gpu in gpus {
            let devices = self.telemetry.devices(Part::Gpu);
            let is = |d: &&Device| d.host == gpu.host && d.index == Some(gpu.id);
            let device = devices.into_iter().find(is)?;
            // Why a GPU has none is said where its own energy is found.
            let Energy { joules, .. } =
                energy::of_device(self.telemetry, device, self.window).ok()?;
            counted.push((device, joules));
        }
        Some(self.power(host, PowerBy::PackagesAndGpus, &counted))
    }

    fn package(&mut self, device: &'a Device) -> Option<f64> {
        let series = self.telemetry.of(device, Quantity::Energy)?;
        let cadence = self.telemetry.cadence(device.part);
        let found = window::counter(series, self.window, cadence).map(|c| c.delta);
        self.told(device, Quantity::Energy, found)
    }

    fn told<T>(
        &mut self,
        device: &Device,
        quantity: Quantity,
        found: Result<T, FlawKind>,
    ) -> Option<T> {
        let flaw = |kind| Flaw { device: name_of(device), quantity, kind };
        found.map_err(|kind| self.flaws.push(flaw(kind))).ok()
    }

    fn power(&self, host: &str, by: PowerBy, counted: &[(&Device, f64)]) -> HostPower {
        let joules: f64 = counted.iter().map(|(_, joules)| joules).sum();
        let mean_w = joules / self.window.seconds();
        let name = |(device, _): &(&Device, f64)| {
            let index = device.index.map(|index| index.to_string());
            format!("{} {}", device.part.name(), index.as_ref().unwrap_or(&device.name))
        };
        let counted = counted.iter().map(name).collect();
        HostPower { host: host.to_owned(), by, counted, joules, mean_w }
    }
}

/// Zones of `host` that are added up: each package once, and memory that is not in one. Cores and graphics are
/// inside of a package; `psys` is all of a board, the packages included; and a kernel may show the same counter
/// by two ways (`intel-rapl:0`, `intel-rapl-mmio:0`).
fn packages<'a>(telemetry: &'a Telemetry, host: &str) -> Vec<&'a Device> {
    let mut seen = BTreeSet::new();
    let devices = telemetry.devices(Part::Package).into_iter();
    devices
        .filter(|d| d.host == host)
        .filter(|d| zone(&d.name).is_some_and(|zone| seen.insert(zone)))
        .collect()
}

/// What is counted by the zone called `name`, where it is to be added: `intel-rapl:0:1 dram` is `0:1 dram`.
fn zone(name: &str) -> Option<(&str, &str)> {
    let (zone, called) = name.split_once(' ')?;
    let (_, place) = zone.split_once(':')?;
    if called.starts_with("package") {
        // Its own name says which one it is.
        return Some(("", called));
    }
    // The ways to a counter number what is inside of a package differently.
    let package = place.split_once(':').map_or(place, |(package, _)| package);
    (called == "dram").then_some((package, called))
}

#[cfg(test)]
mod tests;
