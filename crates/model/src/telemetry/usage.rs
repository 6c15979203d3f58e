//! What the machines of a deployment did over the window of a trial.

use super::energy::{self, EnergyUse};
use super::host_energy::{self, HostEnergy};
use super::window::{self, CounterStat, Flaw, FlawKind, GaugeStat, Window};
use super::{Absent, Device, HostClock, Part, Quantity, Series, Telemetry};
use crate::plan::{DeploymentPlan, HostGpus, HostPlan, InstancePlan, Platform, Role};
use crate::results::is_false;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod pods;

pub use pods::PodUse;

/// A GPU that a deployment was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllocatedGpu {
    /// Its host, by the name that readings carry.
    pub host: String,
    /// Its number there.
    pub id: u32,
    /// The instance that it works for, where that is known.
    pub instance: Option<u32>,
    /// What that one does.
    pub role: Role,
}

/// Machines and GPUs that a deployment was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Hosts of its processes, by the names that readings carry.
    pub hosts: BTreeSet<String>,
    /// In the order of their numbers.
    pub gpus: Vec<AllocatedGpu>,
    /// GPUs that its instances work on, wherever those are.
    pub wanted: u32,
    /// What processes that belong to no instance are, by their ids: `router`, `frontend`, `etcd`.
    pub services: BTreeMap<String, String>,
    /// Its engine emulates what it runs on, whose watts then are not its own.
    pub is_emulated: bool,
}

impl Allocated {
    /// What the plan gives to `deployment`; of one that emulates its GPUs, none. Hosts that are this machine under several names are one.
    pub fn of(deployment: &DeploymentPlan, hosts: &[HostPlan]) -> Self {
        let name = |host: &str| machine(deployment, hosts, host).to_owned();
        let mut gpus: Vec<AllocatedGpu> = Vec::new();
        let is_real = !deployment.engine.emulates_gpus();
        for instance in deployment.instances.iter().filter(|_| is_real) {
            let given = |share: &HostGpus| {
                let host = name(&share.host);
                let gpu = |id: &u32| AllocatedGpu {
                    host: host.clone(),
                    id: *id,
                    instance: Some(instance.index),
                    role: instance.role,
                };
                share.ids.iter().map(gpu).collect::<Vec<_>>()
            };
            gpus.extend(instance.place.iter().flat_map(given));
        }
        gpus.sort();
        gpus.dedup_by(|a, b| (&a.host, a.id) == (&b.host, b.id));
        let hosts = deployment.processes.iter().map(|p| name(&p.host)).collect();
        let wanted = deployment.instances.iter().filter(|_| is_real).map(InstancePlan::gpus).sum();
        Self { hosts, gpus, wanted, services: services(deployment), is_emulated: !is_real }
    }

    /// The same with the GPUs that `telemetry` has of its pods, where it has them: which those are a plan cannot say.
    pub fn seen(self, telemetry: &Telemetry) -> Self {
        pods::allocated(telemetry, &self).0.unwrap_or(self)
    }

    /// The GPU that `device` is, where the deployment was given it: all of it, and not a part.
    pub fn of_device(&self, telemetry: &Telemetry, device: &Device) -> Option<&AllocatedGpu> {
        let is = |gpu: &&AllocatedGpu| gpu.host == device.host && Some(gpu.id) == device.index;
        self.gpus.iter().find(is).filter(|_| !telemetry.is_cut(device))
    }
}

/// The last part of the id of such a process says what it is.
fn services(deployment: &DeploymentPlan) -> BTreeMap<String, String> {
    let alone = deployment.processes.iter().filter(|p| p.instance.is_none());
    alone.filter_map(|p| Some((p.id.clone(), p.id.rsplit('/').next()?.to_owned()))).collect()
}

/// What this machine is called where the file names no host that is it.
pub const THIS_MACHINE: &str = "localhost";

/// What our own process is called among those of a machine.
pub const LOAD_GENERATOR: &str = "load generator";

/// What readings of the machine that scalebeam runs on are called: the first of its names in the file.
pub fn this_machine<'a>(deployment: &DeploymentPlan, hosts: &'a [HostPlan]) -> &'a str {
    let here = hosts.iter().find(|host| is_here(deployment, host));
    here.map_or(THIS_MACHINE, |host| host.name.as_str())
}

/// What readings of `host` are called.
pub fn machine<'a>(deployment: &DeploymentPlan, hosts: &'a [HostPlan], host: &'a str) -> &'a str {
    let found = hosts.iter().find(|h| h.name == host);
    let is_another = found.is_some_and(|h| !is_here(deployment, h));
    if is_another { host } else { this_machine(deployment, hosts) }
}

/// Hosts of a cluster have no name for ssh either, and are other machines.
fn is_here(deployment: &DeploymentPlan, host: &HostPlan) -> bool {
    let places_here = matches!(deployment.platform, Platform::Local | Platform::Ssh);
    places_here && host.ssh.is_none()
}

/// Mean and maximum over a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MeanMax {
    /// Over the time of the window.
    pub mean: f64,
    /// The largest of what was read, or of the rates between two readings; absent where a gap may hide a larger one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl MeanMax {
    /// One number, of which nothing is larger.
    pub const fn only(n: f64) -> Self {
        Self { mean: n, max: Some(n) }
    }

    fn scaled(self, by: f64) -> Self {
        Self { mean: self.mean * by, max: self.max.map(|max| max * by) }
    }

    fn at_most(self, most: f64) -> Self {
        Self { mean: self.mean.min(most), max: self.max.map(|max| max.min(most)) }
    }
}

impl From<GaugeStat> for MeanMax {
    fn from(gauge: GaugeStat) -> Self {
        Self { mean: gauge.mean, max: Some(gauge.max) }
    }
}

impl From<CounterStat> for MeanMax {
    fn from(counter: CounterStat) -> Self {
        Self { mean: counter.rate, max: counter.max_rate }
    }
}

/// A machine. What has no number is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct HostUse {
    /// Host in the file.
    pub host: String,
    /// Processes of the deployment run on it; else it is the load generator's own.
    pub serves: bool,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<f64>,
    /// Share of all cores' time that was in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<MeanMax>,
    /// Share of all cores' time that other guests of the machine had, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stolen_pct: Option<MeanMax>,
    /// Share of the time in which some task waited for a core, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_pct: Option<MeanMax>,
    /// Cores that were in use by what is neither of this run nor of its load generator: all in use minus those
    /// of the processes that were read. Absent where a process has no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_cores: Option<f64>,
    /// Share of memory that is not available, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pct: Option<MeanMax>,
    /// The same in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<MeanMax>,
    /// Share of TCP segments that were sent again, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_resent_pct: Option<f64>,
}

/// A network interface or RDMA port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct LinkUse {
    /// Host in the file.
    pub host: String,
    /// Interface, as `eth0`.
    pub name: String,
    /// Gigabits per second that came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_gbps: Option<MeanMax>,
    /// Gigabits per second that went out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_gbps: Option<MeanMax>,
    /// What the link can carry one way, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_gbps: Option<f64>,
    /// Packets that were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<f64>,
}

impl LinkUse {
    /// The busier direction's largest rate / the speed.
    pub fn peak_share(&self) -> Option<f64> {
        let rates = self.received_gbps.into_iter().chain(self.sent_gbps);
        let busiest = rates.filter_map(|rate| rate.max);
        Some(busiest.reduce(f64::max)? / self.speed_gbps.filter(|s| *s > 0.0)?)
    }
}

/// A process of the deployment, or our own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct ProcessUse {
    /// Host in the file.
    pub host: String,
    /// Its process in the plan, its pid, and what it is called.
    pub name: String,
    /// What it works for; absent where it works for no instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What it is among the processes that the plan starts beside the instances: `router`, `frontend`, `etcd`, `nats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Cores in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<MeanMax>,
    /// Resident memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<MeanMax>,
    /// Share of the periods in which its control group wanted to run and had used up its quota of cores, in
    /// percent. Absent where it has no quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_waits_pct: Option<f64>,
}

impl ProcessUse {
    /// What the plan has it for: the role of its instance, or what it is beside them.
    pub fn part(&self) -> Option<&str> {
        self.role.map(Role::name).or(self.service.as_deref())
    }
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct GpuUse {
    /// Host in the file.
    pub host: String,
    /// Its number there; absent for an instance of a GPU that is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What it is called, where it has no number: the UUID of an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The instance that it works for; absent where it was not given to the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// What it works for; absent where it was not given to the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Share of the time in which any kernel ran, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_pct: Option<MeanMax>,
    /// Share of the time in which its memory was read or written, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_busy_pct: Option<MeanMax>,
    /// Share of its memory in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pct: Option<MeanMax>,
    /// Memory in use, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<MeanMax>,
    /// Watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_w: Option<MeanMax>,
    /// Watts that it is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_w: Option<f64>,
    /// Degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<MeanMax>,
    /// Clock of the multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_clock_mhz: Option<MeanMax>,
    /// Share of the multiprocessors' time with a warp at work, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_active_pct: Option<MeanMax>,
    /// Share of the time in which tensor cores worked, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_active_pct: Option<MeanMax>,
    /// Share of the memory's bandwidth in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dram_active_pct: Option<MeanMax>,
    /// Gigabytes per second sent over PCIe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_sent_gbytes_per_s: Option<MeanMax>,
    /// Gigabytes per second received over PCIe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_received_gbytes_per_s: Option<MeanMax>,
    /// Gigabytes per second sent over NVLink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_sent_gbytes_per_s: Option<MeanMax>,
    /// Share of the readings at which its clocks were held down, by why, in percent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held_down_pct: BTreeMap<String, f64>,
}

/// What the machines of a deployment did over the window of a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Usage {
    /// All of it is of the steady part of the measurement.
    #[serde(skip_serializing_if = "is_false")]
    pub is_steady: bool,
    /// Machines.
    pub hosts: Vec<HostUse>,
    /// Pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodUse>,
    /// Network interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkUse>,
    /// InfiniBand and RoCE ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rdma: Vec<LinkUse>,
    /// Processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessUse>,
    /// GPUs of the machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUse>,
    /// Energy of the GPUs that the deployment was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy: Option<EnergyUse>,
    /// Energy of the GPUs and of the machines around them, where the power of every machine is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_energy: Option<HostEnergy>,
    /// Seed 4's own number: the mean of the power samples of the window above a utilisation, over the GPUs
    /// that have any; watts of one GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_sample_power_w: Option<f64>,
    /// Numbers that are absent or in doubt, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flaws: Vec<Flaw>,
    /// What could not be read at all, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// Clocks of other hosts against that of the load generator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<HostClock>,
}

impl Usage {
    /// The GPUs that the deployment was given.
    pub fn given_gpus(&self) -> impl Iterator<Item = &GpuUse> {
        self.gpus.iter().filter(|gpu| gpu.role.is_some())
    }

    /// Network interfaces and RDMA ports.
    pub fn all_links(&self) -> impl Iterator<Item = &LinkUse> {
        self.links.iter().chain(&self.rdma)
    }

    /// Whether something was to be read for `quantity` and was not.
    pub fn misses(&self, quantity: Quantity) -> bool {
        let is = |f: &Flaw| f.quantity == quantity && f.kind == FlawKind::DeviceMissing;
        self.flaws.iter().any(is)
    }
}

/// What `telemetry` says of `window`. `busy_floor_pct` is the utilisation of seed 4's number.
pub fn usage(
    telemetry: &Telemetry,
    window: Window,
    allocated: &Allocated,
    busy_floor_pct: Option<f64>,
) -> Usage {
    let (in_pods, unknown) = pods::allocated(telemetry, allocated);
    let allocated = in_pods.as_ref().unwrap_or(allocated);
    let mut look = Look { telemetry, window, allocated, flaws: Vec::new() };
    let mut hosts = look.each(Part::Host, Look::host);
    let pods = look.each(Part::Pod, Look::pod);
    let links = look.each(Part::Nic, Look::link);
    let rdma = look.each(Part::Rdma, Look::link);
    let processes = look.each(Part::Process, Look::process);
    let gpus = look.each(Part::Gpu, Look::gpu);
    for host in &mut hosts {
        host.foreign_cores = foreign_cores(host, &processes);
    }
    look.name_missing_hosts();
    look.name_uncertain_clocks();
    let energy = look.energy();
    let host_energy = host_energy::of_hosts(telemetry, allocated, window, &mut look.flaws);
    let busy = busy_floor_pct.and_then(|floor| look.busy_samples(floor));
    Usage {
        is_steady: false,
        hosts,
        pods,
        links,
        rdma,
        processes,
        gpus,
        energy,
        host_energy,
        busy_sample_power_w: busy,
        flaws: look.flaws,
        absent: telemetry.absent.iter().cloned().chain(unknown).collect(),
        clocks: telemetry.clocks.clone(),
    }
}

/// What is in use on `host` beyond `processes`. Counts of processes end at other instants than those of the
/// machine, so that a small difference may fall below zero.
fn foreign_cores(host: &HostUse, processes: &[ProcessUse]) -> Option<f64> {
    let mut mine = processes.iter().filter(|p| p.host == host.host).peekable();
    mine.peek()?;
    let ours: f64 = mine.map(|p| p.cpu_cores.map(|c| c.mean)).sum::<Option<_>>()?;
    let busy = host.cores? * host.cpu_pct?.mean / 100.0;
    Some((busy - ours).max(0.0))
}

/// What a device is called in words: `node1 gpu 0`.
pub(super) fn name_of(device: &Device) -> String {
    let name = device.index.map_or_else(|| device.name.clone(), |index| index.to_string());
    match device.part {
        Part::Host | Part::Pod => device.host.clone(),
        part => format!("{} {} {name}", device.host, part.name()),
    }
}

struct Look<'a> {
    telemetry: &'a Telemetry,
    window: Window,
    allocated: &'a Allocated,
    flaws: Vec<Flaw>,
}

impl<'a> Look<'a> {
    fn each<T>(&mut self, part: Part, of: impl Fn(&mut Self, &'a Device) -> T) -> Vec<T> {
        self.telemetry.devices(part).into_iter().map(|device| of(self, device)).collect()
    }

    fn found<T>(
        &mut self,
        device: &Device,
        quantity: Quantity,
        of: impl Fn(&Series, &Self) -> Result<T, FlawKind>,
    ) -> Option<T> {
        let series = self.telemetry.of(device, quantity)?;
        match of(series, self) {
            Ok(value) => Some(value),
            Err(kind) => {
                self.flaws.push(Flaw { device: name_of(device), quantity, kind });
                None
            }
        }
    }

    fn gauge(&mut self, device: &Device, quantity: Quantity) -> Option<MeanMax> {
        self.found(device, quantity, |series, look| {
            window::gauge(series, look.window, look.telemetry.interval).map(MeanMax::from)
        })
    }

    fn counter(&mut self, device: &Device, quantity: Quantity) -> Option<CounterStat> {
        let (stat, gap) = self.found(device, quantity, |series, look| {
            let interval = look.telemetry.interval;
            match window::counter(series, look.window, interval) {
                Err(FlawKind::Gap { .. })
                    if quantity.is_since_boot() && look.was_up(&device.host) =>
                {
                    window::counter_over_gaps(series, look.window, interval)
                }
                found => found.map(|stat| (stat, None)),
            }
        })?;
        let flaw = |kind| Flaw { device: name_of(device), quantity, kind };
        self.flaws.extend(gap.map(flaw));
        Some(stat)
    }

    /// Whether the time of all cores shows that `host` was not started anew while nobody read it.
    fn was_up(&self, host: &str) -> bool {
        let is_its = |s: &&Series| s.quantity == Quantity::CpuAll && s.device.host == host;
        let all = self.telemetry.series.iter().find(is_its);
        all.is_some_and(|s| window::outlasts_gaps(s, self.window, self.telemetry.interval))
    }

    fn rate(&mut self, device: &Device, quantity: Quantity, by: f64) -> Option<MeanMax> {
        self.counter(device, quantity).map(|c| MeanMax::from(c).scaled(by))
    }

    fn gigabytes(&mut self, device: &Device, quantity: Quantity) -> Option<MeanMax> {
        self.gauge(device, quantity).map(|rate| rate.scaled(1e-9))
    }

    fn host(&mut self, device: &Device) -> HostUse {
        let all = self.counter(device, Quantity::CpuAll);
        // The clock of the cores' count is the wall: all of them together are its rate.
        let cores = all.map(|c| c.rate).filter(|rate| *rate > 0.0);
        let of_cores = |seconds: MeanMax| {
            // Ticks of 10 ms are a tenth of the shortest interval: more than all cores is that.
            Some(seconds.scaled(100.0 / cores?).at_most(100.0))
        };
        let total = self.gauge(device, Quantity::MemoryTotal).and_then(|m| m.max);
        let memory = self.gauge(device, Quantity::MemoryUsed);
        HostUse {
            host: device.host.clone(),
            serves: self.allocated.hosts.contains(&device.host),
            cores,
            cpu_pct: self.rate(device, Quantity::CpuBusy, 1.0).and_then(of_cores),
            cpu_stolen_pct: self.rate(device, Quantity::CpuStolen, 1.0).and_then(of_cores),
            cpu_pressure_pct: self.rate(device, Quantity::CpuPressure, 100.0),
            foreign_cores: None,
            memory_pct: memory.zip(total).map(|(used, all)| used.scaled(100.0 / all)),
            memory_bytes: memory,
            tcp_resent_pct: self.tcp_resent_pct(device),
        }
    }

    fn tcp_resent_pct(&mut self, device: &Device) -> Option<f64> {
        let sent = self.counter(device, Quantity::TcpSent)?.delta;
        let resent = self.counter(device, Quantity::TcpResent)?.delta;
        (sent > 0.0).then(|| 100.0 * resent / sent)
    }

    fn link(&mut self, device: &Device) -> LinkUse {
        let dropped = [Quantity::ReceivedDrops, Quantity::SentDrops]
            .map(|q| self.counter(device, q).map(|c| c.delta));
        LinkUse {
            host: device.host.clone(),
            name: device.name.clone(),
            received_gbps: self.rate(device, Quantity::Received, 8e-9),
            sent_gbps: self.rate(device, Quantity::Sent, 8e-9),
            speed_gbps: self.gauge(device, Quantity::LinkSpeed).map(|s| s.mean / 1e9),
            dropped: dropped.into_iter().flatten().reduce(|a, b| a + b),
        }
    }

    fn process(&mut self, device: &Device) -> ProcessUse {
        // Its name begins with its id.
        let id = device.name.split(' ').next().unwrap_or_default();
        ProcessUse {
            host: device.host.clone(),
            name: device.name.clone(),
            role: device.role,
            service: self.allocated.services.get(id).cloned(),
            cpu_cores: self.rate(device, Quantity::ProcessCpu, 1.0),
            memory_bytes: self.gauge(device, Quantity::ProcessMemory),
            quota_waits_pct: self.quota_waits_pct(device),
        }
    }

    fn quota_waits_pct(&mut self, device: &Device) -> Option<f64> {
        let waits = self.counter(device, Quantity::QuotaWaits)?.delta;
        let periods = self.counter(device, Quantity::QuotaPeriods)?.delta;
        (periods > 0.0).then(|| 100.0 * waits / periods)
    }

    fn gpu(&mut self, device: &Device) -> GpuUse {
        let allocated = self.allocated.of_device(self.telemetry, device);
        let total = self.gauge(device, Quantity::GpuMemoryTotal).and_then(|m| m.max);
        let memory = self.gauge(device, Quantity::GpuMemoryUsed);
        let power = self.gauge(device, Quantity::Power);
        GpuUse {
            host: device.host.clone(),
            index: device.index,
            name: device.index.is_none().then(|| device.name.clone()),
            instance: allocated.and_then(|gpu| gpu.instance),
            role: allocated.map(|gpu| gpu.role),
            busy_pct: self.gauge(device, Quantity::GpuBusy),
            memory_busy_pct: self.gauge(device, Quantity::GpuMemoryBusy),
            memory_pct: memory.zip(total).map(|(used, all)| used.scaled(100.0 / all)),
            memory_bytes: memory,
            power_w: power.or_else(|| self.gauge(device, Quantity::PowerInstant)),
            power_limit_w: self.gauge(device, Quantity::PowerLimit).map(|p| p.mean),
            temperature_c: self.gauge(device, Quantity::Temperature),
            sm_clock_mhz: self.gauge(device, Quantity::SmClock),
            sm_active_pct: self.gauge(device, Quantity::SmActive),
            tensor_active_pct: self.gauge(device, Quantity::TensorActive),
            dram_active_pct: self.gauge(device, Quantity::DramActive),
            pcie_sent_gbytes_per_s: self.gigabytes(device, Quantity::PcieSent),
            pcie_received_gbytes_per_s: self.gigabytes(device, Quantity::PcieReceived),
            nvlink_sent_gbytes_per_s: self.gigabytes(device, Quantity::NvlinkSent),
            held_down_pct: self.held_down(device),
        }
    }

    /// Readings are looked at one by one: bits have no mean.
    fn held_down(&self, device: &Device) -> BTreeMap<String, f64> {
        let mut out = BTreeMap::new();
        let Some(series) = self.telemetry.of(device, Quantity::ClockReasons) else { return out };
        let inside: Vec<u64> = self.inside(series).map(|(_, value)| bits(value)).collect();
        for (bit, name) in HELD_DOWN {
            let n = inside.iter().filter(|reasons| *reasons & bit != 0).count();
            if n > 0 {
                out.insert((*name).to_owned(), 100.0 * n as f64 / inside.len() as f64);
            }
        }
        out
    }

    /// Times and values of the readings inside the window.
    fn inside(&self, series: &'a Series) -> impl Iterator<Item = (u64, f64)> + 'a {
        let Window { from, to } = self.window;
        let is_inside = move |at| from <= at && at <= to;
        series.readings.iter().filter(move |r| is_inside(r.at())).map(|r| (r.at().0, r.value))
    }

    fn name_missing_hosts(&mut self) {
        let read: BTreeSet<&str> =
            self.telemetry.devices(Part::Host).into_iter().map(|d| d.host.as_str()).collect();
        if read.is_empty() {
            return;
        }
        for host in self.allocated.hosts.iter().filter(|h| !read.contains(h.as_str())) {
            self.flaws.push(Flaw {
                device: host.clone(),
                quantity: Quantity::CpuBusy,
                kind: FlawKind::DeviceMissing,
            });
        }
    }

    /// Readings whose time is known worse than they lie apart say nothing of the moments of a load.
    fn name_uncertain_clocks(&mut self) {
        // A reading is twice as wide as the bound, and one that is too wide is of no use.
        let most = window::widest(self.telemetry.interval).as_secs_f64() / 2.0;
        for clock in self.telemetry.clocks.iter().filter(|c| c.bound_s > most) {
            let kind = FlawKind::ClockUncertain { bound_s: clock.bound_s };
            let device = clock.host.clone();
            self.flaws.push(Flaw { device, quantity: Quantity::CpuBusy, kind });
        }
    }

    fn energy(&mut self) -> Option<EnergyUse> {
        let read = self.telemetry.devices(Part::Gpu);
        if read.is_empty() {
            return None;
        }
        let gpus = self.allocated.gpus.iter().map(|gpu| {
            let is = |d: &&&Device| d.host == gpu.host && d.index == Some(gpu.id);
            let device = read.iter().find(is).copied();
            (device.ok_or_else(|| format!("{} gpu {}", gpu.host, gpu.id)), Some(gpu.role))
        });
        energy::of_gpus(self.telemetry, gpus, self.window, &mut self.flaws)
    }

    /// Mean power of the samples at which a GPU was busier than `floor`.
    fn busy_samples(&self, floor: f64) -> Option<f64> {
        let mut samples = Vec::new();
        for gpu in self.telemetry.devices(Part::Gpu) {
            let both = self.telemetry.of(gpu, Quantity::Power);
            let both = both.zip(self.telemetry.of(gpu, Quantity::GpuBusy));
            let given = self.allocated.of_device(self.telemetry, gpu);
            let (Some((power, busy)), Some(_)) = (both, given) else { continue };
            let is_busy = |at: u64| {
                busy.near(Nanos(at), self.telemetry.interval).is_some_and(|busy| busy > floor)
            };
            samples.extend(self.inside(power).filter(|(at, _)| is_busy(*at)).map(|(_, w)| w));
        }
        (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
    }
}

/// Bits of `clocks_event_reasons.active` that say that a GPU could have been faster; idle, the user's own
/// setting and sync boost are none of them.
const HELD_DOWN: &[(u64, &str)] = &[
    (0x04, "power cap"),
    (0x08, "hardware slowdown"),
    (0x20, "thermal slowdown"),
    (0x40, "hardware thermal slowdown"),
    (0x80, "power brake"),
];

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the driver's bits, which a float holds exactly; `as` saturates"
)]
fn bits(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests;
