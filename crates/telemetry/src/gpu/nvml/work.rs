//! What a GPU, or an instance of one, worked at, by the counters that come with Hopper (GPM).

use crate::readings::Readings;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Quantity};
use scalebeam_model::units::Nanos;

/// The unit in which GPM gives rates.
const MIB: f64 = 1_048_576.0;

/// What is asked for, and our unit of one of theirs.
const WORK: [(GpmMetricId, Quantity, f64); 7] = [
    (GpmMetricId::SmUtil, Quantity::SmActive, 1.0),
    (GpmMetricId::AnyTensorUtil, Quantity::TensorActive, 1.0),
    (GpmMetricId::DramBwUtil, Quantity::DramActive, 1.0),
    (GpmMetricId::PcieTxPerSec, Quantity::PcieSent, MIB),
    (GpmMetricId::PcieRxPerSec, Quantity::PcieReceived, MIB),
    (GpmMetricId::NvlinkTotalTxPerSec, Quantity::NvlinkSent, MIB),
    (GpmMetricId::NvlinkTotalRxPerSec, Quantity::NvlinkReceived, MIB),
];

/// The last look at its counters.
#[derive(Default)]
pub(super) struct Work<'n> {
    last: Option<(GpmSample<'n>, Nanos)>,
}

impl<'n> Work<'n> {
    /// Shares of the time since the last look; a value belongs to the middle of that time. What the driver does not tell
    /// of `device` is left out.
    pub(super) fn take(
        &mut self,
        nvml: &'n Nvml,
        sample: GpmSample<'n>,
        device: &Device,
        clock: &dyn Clock,
        out: &mut Readings,
    ) {
        let now = clock.now();
        if let Some((last, then)) = &self.last {
            let ids = WORK.map(|(id, ..)| id);
            let answers = gpm_metrics_get(nvml, last, &sample, &ids).unwrap_or_default();
            let values: Vec<(Quantity, f64)> = WORK
                .iter()
                .zip(answers)
                .filter_map(|((_, quantity, unit), answer)| {
                    let value = answer.ok()?.value;
                    value.is_finite().then_some((*quantity, value * unit))
                })
                .collect();
            let middle = Nanos(then.0 / 2 + now.0 / 2);
            out.add(device, middle, middle, &values);
        }
        self.last = Some((sample, now));
    }
}
