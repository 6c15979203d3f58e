//! GPUs: of NVIDIA by the driver's own library where it can be loaded, of AMD by what the kernel shows, else by the
//! program of their maker.

pub(crate) mod amd;
pub(crate) mod amd_smi;
pub(crate) mod nvml;
pub(crate) mod smi;

use scalebeam_model::telemetry::{Device, Part};

/// A GPU of `host`: its UUID is its name, since numbers change with what a process may see.
fn device(host: &str, index: u32, uuid: &str) -> Device {
    Device {
        host: host.to_owned(),
        part: Part::Gpu,
        name: uuid.to_owned(),
        index: Some(index),
        role: None,
    }
}
