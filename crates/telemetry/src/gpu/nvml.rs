//! GPUs by NVML, the library that comes with the driver. It is loaded at run time.
//!
//! A card that is cut (MIG) is read as before, and says that it is; each of its instances is a device beside it
//! ([`instance`]). How a card is cut is looked at when it is opened; an instance that is made later is not read.

mod instance;
mod work;

use super::device;
use crate::readings::{Readings, Source};
use instance::Instance;
use nvml_wrapper::enum_wrappers::device::{Clock as ClockKind, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;
use nvml_wrapper::{Device as NvmlDevice, Nvml};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Quantity};
use std::ffi::OsStr;
use work::Work;

/// The name that every driver installs; the one without a number comes with development files only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Loads the library.
///
/// # Errors
/// Says why it cannot be used.
pub(crate) fn load() -> Result<Nvml, String> {
    let loaded = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init();
    loaded.map_err(|e| format!("{LIBRARY}: {e}"))
}

/// Every GPU of the machine.
#[derive(Debug)]
pub(crate) struct Gpus<'n>(Vec<Gpu<'n>>);

/// A GPU.
struct Gpu<'n> {
    nvml: &'n Nvml,
    device: Device,
    handle: NvmlDevice<'n>,
    /// From Hopper on.
    has_gpm: bool,
    work: Work<'n>,
    /// What it is cut into, where it is.
    instances: Option<Vec<Instance<'n>>>,
}

impl std::fmt::Debug for Gpu<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<'n> Gpus<'n> {
    /// # Errors
    /// Says why no GPU can be read.
    pub(crate) fn open(nvml: &'n Nvml, host: &str) -> Result<Self, String> {
        let count = nvml.device_count().map_err(|e| e.to_string())?;
        let open = |index| Gpu::open(nvml, host, index);
        let gpus: Result<Vec<_>, NvmlError> = (0..count).map(open).collect();
        let gpus = gpus.map_err(|e| e.to_string())?;
        match gpus.is_empty() {
            true => Err("the driver knows no GPU".to_owned()),
            false => Ok(Self(gpus)),
        }
    }
}

impl Source for Gpus<'_> {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        for gpu in &mut self.0 {
            gpu.read(clock, out);
        }
    }
}

impl<'n> Gpu<'n> {
    fn open(nvml: &'n Nvml, host: &str, index: u32) -> Result<Self, NvmlError> {
        let handle = nvml.device_by_index(index)?;
        let device = device(host, index, &handle.uuid()?);
        let has_gpm = handle.gpm_support().unwrap_or(false);
        let instances = instance::of_card(host, &handle);
        Ok(Self { nvml, device, handle, has_gpm, work: Work::default(), instances })
    }

    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        let from = clock.now();
        let power = self.power();
        out.add(&self.device, from, clock.now(), &power);
        let from = clock.now();
        let state = self.state();
        out.add(&self.device, from, clock.now(), &state);
        if self.has_gpm
            && let Ok(sample) = self.handle.gpm_sample()
        {
            self.work.take(self.nvml, sample, &self.device, clock, out);
        }
        let card = self.has_gpm.then_some((self.nvml, &self.handle));
        for instance in self.instances.iter_mut().flatten() {
            instance.read(card, clock, out);
        }
    }

    /// Energy and power first and together: one is held against the other.
    fn power(&self) -> Vec<(Quantity, f64)> {
        let milli = |value: u32| f64::from(value) / 1e3;
        let mut values = Vec::new();
        let energy = self.handle.total_energy_consumption();
        values.extend(energy.ok().map(|mj| (Quantity::Energy, mj as f64 / 1e3)));
        let power = self.handle.power_usage();
        values.extend(power.ok().map(|mw| (Quantity::Power, milli(mw))));
        let limit = self.handle.enforced_power_limit();
        values.extend(limit.ok().map(|mw| (Quantity::PowerLimit, milli(mw))));
        values.extend(self.fields());
        values
    }

    /// What has no call of its own.
    fn fields(&self) -> Vec<(Quantity, f64)> {
        // Its counts of PCIe bytes have 32 bits, which a busy link fills many times a second.
        const FIELDS: [(u32, Quantity, f64); 1] =
            [(field_id::NVML_FI_DEV_POWER_INSTANT, Quantity::PowerInstant, 1e-3)];
        let ids = FIELDS.map(|(id, ..)| FieldId(id));
        let answers = self.handle.field_values_for(&ids).unwrap_or_default();
        let value = |((_, quantity, unit), answer): (
            &(u32, Quantity, f64),
            Result<nvml_wrapper::struct_wrappers::device::FieldValueSample, NvmlError>,
        )| { Some((*quantity, number(&answer.ok()?.value.ok()?) * unit)) };
        FIELDS.iter().zip(answers).filter_map(value).collect()
    }

    fn state(&self) -> Vec<(Quantity, f64)> {
        let gpu = &self.handle;
        let mut values = Vec::new();
        if let Ok(busy) = gpu.utilization_rates() {
            values.push((Quantity::GpuBusy, f64::from(busy.gpu)));
            values.push((Quantity::GpuMemoryBusy, f64::from(busy.memory)));
        }
        values.extend(memory(gpu));
        values.extend(self.instances.as_ref().map(|_| (Quantity::MigEnabled, 1.0)));
        let more = [
            (Quantity::Temperature, gpu.temperature(TemperatureSensor::Gpu)),
            (Quantity::SmClock, gpu.clock_info(ClockKind::SM)),
            (Quantity::MemoryClock, gpu.clock_info(ClockKind::Memory)),
        ];
        values.extend(more.into_iter().filter_map(|(q, v)| Some((q, f64::from(v.ok()?)))));
        let reasons = gpu.current_throttle_reasons();
        values.extend(reasons.ok().map(|bits| (Quantity::ClockReasons, bits.bits() as f64)));
        values
    }
}

fn memory(gpu: &NvmlDevice<'_>) -> Vec<(Quantity, f64)> {
    let Ok(memory) = gpu.memory_info() else { return Vec::new() };
    vec![
        (Quantity::GpuMemoryUsed, memory.used as f64),
        (Quantity::GpuMemoryTotal, memory.total as f64),
    ]
}

fn number(value: &SampleValue) -> f64 {
    match *value {
        SampleValue::F64(v) => v,
        SampleValue::U32(v) => f64::from(v),
        SampleValue::U64(v) => v as f64,
        SampleValue::I64(v) => v as f64,
    }
}
