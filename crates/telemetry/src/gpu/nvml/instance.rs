//! An instance of a GPU that is cut (MIG), as a device of its own.
//!
//! The driver has no utilisation of it, and its power would be the card's. From Hopper on the counters of
//! work are there for each GPU instance, by a number that the driver names with the processes that run on it. A device
//! that is only a part of such an instance shares its counters with the other parts, and has none of its own.

use super::super::device;
use super::memory;
use super::work::Work;
use crate::readings::Readings;
use nvml_wrapper::{Device as NvmlDevice, Nvml};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Absent, Device};

/// The mode of a card that is cut into instances.
const MIG_ENABLED: u32 = 1;

/// One of them.
pub(super) struct Instance<'n> {
    device: Device,
    handle: NvmlDevice<'n>,
    /// Number of its GPU instance, once it is known.
    number: Option<u32>,
    work: Work<'n>,
}

/// What `card` is cut into; nothing where it is not.
pub(super) fn of_card<'n>(host: &str, card: &NvmlDevice<'n>) -> Option<Vec<Instance<'n>>> {
    let is_cut = card.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED);
    let most = is_cut.then(|| card.mig_device_count().unwrap_or(0))?;
    let open = |index| {
        // Of as many as there may be, some are not there.
        let handle = card.mig_device_by_index(index).ok()?;
        let device = Device { index: None, ..device(host, index, &handle.uuid().ok()?) };
        Some(Instance { device, handle, number: None, work: Work::default() })
    };
    Some((0..most).filter_map(open).collect())
}

impl<'n> Instance<'n> {
    /// Reads its memory, and what it worked at where its `card` has the counters.
    pub(super) fn read(
        &mut self,
        card: Option<(&'n Nvml, &NvmlDevice<'n>)>,
        clock: &dyn Clock,
        out: &mut Readings,
    ) {
        let from = clock.now();
        let memory = memory(&self.handle);
        out.add(&self.device, from, clock.now(), &memory);
        let sample =
            card.ok_or_else(|| "its card is older than Hopper, and counts no work".to_owned());
        let sample = sample.and_then(|(nvml, card)| {
            let number = self.number()?;
            Ok((nvml, card.gpm_mig_sample(number).map_err(|e| e.to_string())?))
        });
        match sample {
            Ok((nvml, sample)) => self.work.take(nvml, sample, &self.device, clock, out),
            Err(why) => {
                let (host, what) =
                    (self.device.host.clone(), format!("work of {}", self.device.name));
                out.absent(Absent { host, what, why });
            }
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        if let Some(number) = self.number {
            return Ok(number);
        }
        let shape = self.handle.attributes().map_err(|e| e.to_string())?;
        if !is_whole(shape.gpu_instance_slice_count, shape.compute_instance_slice_count) {
            return Err("it shares the counters of its GPU instance with others".to_owned());
        }
        let processes = self.handle.running_compute_processes().map_err(|e| e.to_string())?;
        let number = same(processes.iter().map(|process| process.gpu_instance_id));
        self.number = number;
        number.ok_or_else(|| "no process on it tells the number of its GPU instance".to_owned())
    }
}

/// Whether a compute instance has all slices of its GPU instance.
fn is_whole(of_gpu: u32, of_compute: u32) -> bool {
    of_gpu > 0 && of_gpu == of_compute
}

/// The one number that all say; nothing where there is none, or they disagree.
fn same(mut numbers: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = numbers.next()??;
    numbers.all(|number| number == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nvidia-smi mig -lcip` names them: 3g.40gb is whole, 1c.3g.40gb a third of one.
    #[test]
    fn only_a_device_that_is_all_of_its_gpu_instance_has_counters_of_its_own() {
        assert!(is_whole(3, 3) && is_whole(1, 1));
        assert!(!is_whole(3, 1));
        assert!(!is_whole(0, 0), "a driver that does not say it says nothing");
    }

    #[test]
    fn the_number_of_a_gpu_instance_is_what_all_of_its_processes_say() {
        assert_eq!(same([Some(9), Some(9)].into_iter()), Some(9));
        assert_eq!(same([Some(9), Some(5)].into_iter()), None);
        assert_eq!(same([Some(9), None].into_iter()), None);
        assert_eq!(same([None].into_iter()), None);
        assert_eq!(same(std::iter::empty()), None);
    }
}
