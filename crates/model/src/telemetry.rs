//! What machines did while the load ran: readings, each with the time in which it was taken, and what a
//! window of them says.
//!
//! Readings are raw. A counter is kept as the count that it had, so that rates, and what a counter that
//! began anew means for them, are found by analysis and can be found again.

use crate::plan::Role;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod agent;
pub mod amd_json;
pub mod civil;
pub mod clocks;
pub mod controller;
pub mod energy;
pub mod exporter;
pub mod host_energy;
pub mod log_results;
pub mod power_log;
pub mod prometheus;
pub mod samples;
pub mod table;
pub mod usage;
pub mod window;

pub use clocks::HostClock;
pub use energy::{Energy, EnergyUse};
pub use host_energy::{HostEnergy, HostPower, PowerBy};
pub use usage::{Allocated, Usage};
pub use window::{CounterStat, Flaw, FlawKind, GaugeStat, Window};

/// Whether a value stands for itself, or only its growth means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value at a time.
    Gauge,
    /// A count that only grows, until it begins anew.
    Counter,
}

macro_rules! quantities {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $kind:ident;)+) => {
        /// What was read. Names end in their unit.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            schemars::JsonSchema,
        )]
        pub enum Quantity {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Quantity {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name used in files, with the unit last.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether it is a gauge or a counter.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }
        }
    };
}

quantities! {
    /// Time that all cores together were in use, by whomever: all but idle, waiting for a disk, and stolen.
    CpuBusy = "cpu_busy_s", Counter;
    /// Time of all cores together, busy or not.
    CpuAll = "cpu_all_s", Counter;
    /// Time that another guest of the same machine had.
    CpuStolen = "cpu_stolen_s", Counter;
    /// Memory that is not available: total minus `MemAvailable`.
    MemoryUsed = "memory_used_bytes", Gauge;
    /// All memory.
    MemoryTotal = "memory_total_bytes", Gauge;
    /// Time in which some task waited for a core.
    CpuPressure = "cpu_pressure_s", Counter;
    /// Time in which some task waited for memory.
    MemoryPressure = "memory_pressure_s", Counter;
    /// Time in which some task waited for a disk.
    IoPressure = "io_pressure_s", Counter;
    /// TCP segments sent.
    TcpSent = "tcp_sent_segments", Counter;
    /// TCP segments sent again.
    TcpResent = "tcp_resent_segments", Counter;
    /// Bytes that came in.
    Received = "received_bytes", Counter;
    /// Bytes that went out.
    Sent = "sent_bytes", Counter;
    /// Packets that came in.
    ReceivedPackets = "received_packets", Counter;
    /// Packets that went out.
    SentPackets = "sent_packets", Counter;
    /// Packets that were dropped on the way in.
    ReceivedDrops = "received_dropped_packets", Counter;
    /// Packets that were dropped on the way out.
    SentDrops = "sent_dropped_packets", Counter;
    /// What the link can carry, one way.
    LinkSpeed = "link_speed_bits_per_s", Gauge;
    /// CPU time of a process, in user and kernel.
    ProcessCpu = "process_cpu_s", Counter;
    /// Periods in which a control group, of a process or a pod, that has a quota of cores wanted to run.
    QuotaPeriods = "quota_periods", Counter;
    /// Those of them in which it had used up its quota, and waited.
    QuotaWaits = "quota_waits", Counter;
    /// CPU time of all processes of a pod's container, in user and kernel.
    PodCpu = "pod_cpu_s", Counter;
    /// Cores that it may use at most.
    PodCores = "pod_cores", Gauge;
    /// Memory of it that cannot be taken back at once: all that is charged to its control group minus what was read
    /// from files and is not in use (the `working set` of Kubernetes).
    PodMemory = "pod_memory_bytes", Gauge;
    /// Memory beyond which it is ended.
    PodMemoryLimit = "pod_memory_limit_bytes", Gauge;
    /// Resident memory of a process.
    ProcessMemory = "process_memory_bytes", Gauge;
    /// Share of the time in which any kernel ran on the GPU, over the driver's own period.
    GpuBusy = "gpu_busy_pct", Gauge;
    /// Share of the time in which the GPU's memory was read or written; not the share of it that is full.
    GpuMemoryBusy = "gpu_memory_busy_pct", Gauge;
    /// GPU memory in use.
    GpuMemoryUsed = "gpu_memory_used_bytes", Gauge;
    /// All memory of the GPU.
    GpuMemoryTotal = "gpu_memory_total_bytes", Gauge;
    /// Power as the driver gives it first: the mean of about the last second on most GPUs since 2020.
    Power = "power_w", Gauge;
    /// Power at the moment, where the driver tells it apart.
    PowerInstant = "power_instant_w", Gauge;
    /// Power that the GPU is held to.
    PowerLimit = "power_limit_w", Gauge;
    /// Energy by the device's own counter.
    Energy = "energy_j", Counter;
    /// Temperature of the chip.
    Temperature = "temperature_c", Gauge;
    /// Clock of the multiprocessors.
    SmClock = "sm_clock_mhz", Gauge;
    /// Clock of the memory.
    MemoryClock = "memory_clock_mhz", Gauge;
    /// Why clocks are what they are, as the driver's bits (`clocks_event_reasons.active`).
    ClockReasons = "clock_reasons_bits", Gauge;
    /// Bytes per second that the GPU sent over PCIe.
    PcieSent = "pcie_sent_bytes_per_s", Gauge;
    /// Bytes per second that the GPU received over PCIe.
    PcieReceived = "pcie_received_bytes_per_s", Gauge;
    /// Share of the multiprocessors' time with a warp at work.
    SmActive = "sm_active_pct", Gauge;
    /// Share of the time in which tensor cores worked.
    TensorActive = "tensor_active_pct", Gauge;
    /// Share of the memory's bandwidth in use.
    DramActive = "dram_active_pct", Gauge;
    /// 1 where the GPU is cut into instances (MIG), each of which is a device too: what is read of the GPU is then of
    /// all of it.
    MigEnabled = "mig_enabled", Gauge;
    /// Bytes per second sent over all NVLinks of the GPU.
    NvlinkSent = "nvlink_sent_bytes_per_s", Gauge;
    /// Bytes per second received over all NVLinks of the GPU.
    NvlinkReceived = "nvlink_received_bytes_per_s", Gauge;
}

impl Quantity {
    /// Whether the kernel counts it in 64 bits from the start of its machine on, or of a process of that machine: it
    /// begins anew with these alone. Interfaces, control groups and namespaces of networks can be made anew while their
    /// machine runs, ports can be set back, and energy of processors wraps.
    pub const fn is_since_boot(self) -> bool {
        matches!(
            self,
            Self::CpuBusy
                | Self::CpuAll
                | Self::CpuStolen
                | Self::ProcessCpu
                | Self::CpuPressure
                | Self::MemoryPressure
                | Self::IoPressure
        )
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|q| q.name() == name)
    }
}

/// What kind of thing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A machine: its cores and its memory.
    Host,
    /// A pod: what its container has of the machine that it is on.
    Pod,
    /// A network interface.
    Nic,
    /// An InfiniBand or RoCE port.
    Rdma,
    /// A process.
    Process,
    /// A GPU.
    Gpu,
    /// A package of cores, or its memory, with an energy counter.
    Package,
    /// A whole machine with everything in it, as its management controller tells.
    Chassis,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Host,
        Self::Pod,
        Self::Nic,
        Self::Rdma,
        Self::Process,
        Self::Gpu,
        Self::Package,
        Self::Chassis,
    ];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pod => "pod",
            Self::Nic => "nic",
            Self::Rdma => "rdma",
            Self::Process => "process",
            Self::Gpu => "gpu",
            Self::Package => "package",
            Self::Chassis => "chassis",
        }
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// A thing that was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Its host, by its name in the file; the name of a pod, where that is all that is seen of a host.
    pub host: String,
    /// What it is.
    pub part: Part,
    /// What it is called there: `eth0`, the UUID of a GPU, `a/0/engine 4711 python3`; of a pod, its node.
    pub name: String,
    /// The number by which a plan names it, where it does.
    pub index: Option<u32>,
    /// The role of what it works for, where it works for an instance of the deployment.
    pub role: Option<Role>,
}

/// One value, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Before it was asked for, on the run's monotonic clock.
    pub from: Nanos,
    /// After the answer was there. The value was true somewhere between the two.
    pub to: Nanos,
    /// In the unit of its quantity.
    pub value: f64,
}

impl Reading {
    /// The middle of its time.
    pub const fn at(&self) -> Nanos {
        Nanos(self.from.0 / 2 + self.to.0 / 2)
    }
}

/// Values of devices that one answer tells.
pub type Told = Vec<(Device, Vec<(Quantity, f64)>)>;

/// Everything that was read of one quantity of one thing, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Of what.
    pub device: Device,
    /// What.
    pub quantity: Quantity,
    /// The values.
    pub readings: Vec<Reading>,
}

/// Readings by what they are of.
pub type ByDevice = BTreeMap<Device, BTreeMap<Quantity, Vec<Reading>>>;

/// The same as series.
pub fn series_of(readings: ByDevice) -> Vec<Series> {
    let of_device = |(device, quantities): (Device, BTreeMap<Quantity, Vec<Reading>>)| {
        let series =
            move |(quantity, readings)| Series { device: device.clone(), quantity, readings };
        quantities.into_iter().map(series)
    };
    readings.into_iter().flat_map(of_device).collect()
}

impl Series {
    /// The value that was read nearest to `at`, where that is of the same look, when looks come every `interval`.
    pub fn near(&self, at: Nanos, interval: Nanos) -> Option<f64> {
        let next = self.readings.partition_point(|r| r.at() < at);
        let around = next.saturating_sub(1)..(next + 1).min(self.readings.len());
        let away = |r: &Reading| r.at().0.abs_diff(at.0);
        let nearest = self.readings.get(around)?.iter().min_by_key(|r| away(r))?;
        (away(nearest) <= interval.0 / 2).then_some(nearest.value)
    }
}

/// Something that could not be read.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Absent {
    /// Host in the file.
    pub host: String,
    /// What: `gpu`, `power of the host`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The readings of a trial, from just before its measurement until just after.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// Between two readings, as asked for.
    pub interval: Nanos,
    /// By device and quantity.
    pub series: Vec<Series>,
    /// What is not among them, and why.
    pub absent: Vec<Absent>,
    /// Clocks of other hosts against ours: their readings are in our time, as wide as these are uncertain.
    pub clocks: Vec<HostClock>,
}

impl Telemetry {
    /// Adds the readings of another host.
    pub fn join(&mut self, other: Self) {
        self.series.extend(other.series);
        self.absent.extend(other.absent);
        self.clocks.extend(other.clocks);
    }

    /// The readings of `quantity` of `device`.
    pub fn of(&self, device: &Device, quantity: Quantity) -> Option<&Series> {
        self.series.iter().find(|s| s.quantity == quantity && s.device == *device)
    }

    /// Whether `device` is a GPU that is cut into instances: its numbers are not those of whoever has a part of it.
    pub fn is_cut(&self, device: &Device) -> bool {
        let series = self.of(device, Quantity::MigEnabled);
        series.is_some_and(|s| s.readings.iter().any(|r| r.value > 0.0))
    }

    /// How often things of a kind were to be read.
    pub fn cadence(&self, part: Part) -> Nanos {
        match part {
            Part::Chassis => self.interval.max(CONTROLLER_INTERVAL),
            _ => self.interval,
        }
    }

    /// Things of a kind, in order.
    pub fn devices(&self, part: Part) -> Vec<&Device> {
        let mut devices: Vec<&Device> =
            self.series.iter().map(|s| &s.device).filter(|d| d.part == part).collect();
        devices.sort();
        devices.dedup();
        devices
    }
}

/// What is watched while the load runs, as a plan has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct TelemetryPlan {
    /// Between two readings.
    pub interval: Nanos,
    /// GPUs are read.
    pub gpu: bool,
    /// Cores, memory, network and processes are read.
    pub host: bool,
    /// InfiniBand and RoCE counters are read.
    pub rdma: bool,
    /// The engines' own metrics are read.
    pub engine: bool,
    /// The steady part of the measurement is looked at, not all of it.
    pub steady: bool,
    /// Seed 4's power number is given too: the mean of the samples above this utilisation, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_floor_pct: Option<f64>,
    /// The program that is carried to other hosts, where it is not this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// `ipmitool` is asked for the power of the machine; where it is not said, if there is a controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipmi: Option<bool>,
    /// Pages of other programs that are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<PagePlan>,
}

/// Whose a page is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PageKind {
    /// A power resource of a machine's management controller.
    Redfish,
    /// GPUs, by dcgm-exporter.
    Dcgm,
    /// A machine, by node_exporter.
    NodeExporter,
    /// Both of all hosts, by a Prometheus server that keeps them.
    Prometheus,
}

impl PageKind {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Dcgm => "dcgm",
            Self::NodeExporter => "node_exporter",
            Self::Prometheus => "prometheus",
        }
    }
}

/// A page of another program that says something of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PagePlan {
    /// Host in the file, or `localhost`.
    pub host: String,
    /// Whose page it is.
    pub kind: PageKind,
    /// Its address.
    pub url: String,
    /// Who asks, where it wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The environment variable that holds that user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// Headers whose values are in environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_env: BTreeMap<String, String>,
    /// Certificates to trust beside the system's, relative to the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

impl TelemetryPlan {
    /// What is watched where the file does not say.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Between two readings, where the file does not say.
pub const INTERVAL: Nanos = Nanos::from_secs(1);

/// From look to look at a machine's management controller, which may take a second to answer.
pub const CONTROLLER_INTERVAL: Nanos = Nanos::from_secs(5);

impl Default for TelemetryPlan {
    fn default() -> Self {
        Self {
            interval: INTERVAL,
            gpu: true,
            host: true,
            rdma: true,
            engine: true,
            steady: false,
            busy_floor_pct: None,
            ipmi: None,
            pages: Vec::new(),
            agent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_none_is_given_twice() {
        for quantity in Quantity::ALL {
            assert_eq!(Quantity::from_name(quantity.name()), Some(*quantity));
        }
        for part in Part::ALL {
            assert_eq!(Part::from_name(part.name()), Some(part));
        }
        assert_eq!(Quantity::from_name("power"), None);
    }

    #[test]
    fn the_middle_of_a_reading_does_not_overflow() {
        let late = Nanos(u64::MAX);
        assert!(Reading { from: late, to: late, value: 0.0 }.at() >= Nanos(u64::MAX - 1));
    }
}
