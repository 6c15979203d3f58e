//! Energy of GPUs over a window.
//!
//! Of each device: the trapezoid of its power over the window, whose borders are interpolated; beside it, what
//! the device's own energy counter grew by. Where its power was not read for too long, what that counter grew by is its
//! energy: it counted on meanwhile. Of a deployment: the sum over every GPU that it has been given,
//! idle ones included, since they are paid for and warm. One device without a number leaves the sum without
//! one. A GPU that is cut into instances has none: its power is that of all who have a part of it.

use super::window::{self, Flaw, FlawKind, Window};
use super::{Device, Quantity, Telemetry};
use crate::plan::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The two ways to find an energy may differ by this share.
pub const MOST_DISAGREEMENT: f64 = 0.05;
/// Below this the counter's own grain is a part of the difference.
const LEAST_COUNTED_J: f64 = 50.0;

/// Energy of one device over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Energy {
    /// Integral of its power, in joules; over a hole in its readings, what its own counter grew by.
    pub joules: f64,
    /// The hole, where there is one.
    pub gap: Option<FlawKind>,
    /// What its own counter grew by, where it has one.
    pub counted_joules: Option<f64>,
    /// Why that counter says nothing, where it was read.
    pub uncounted: Option<FlawKind>,
    /// Energy / time.
    pub mean_w: f64,
    /// The largest power that was read; absent where a hole may hide a larger one.
    pub max_w: Option<f64>,
}

impl Energy {
    /// How far its two ways disagree, where they do.
    pub fn disagreement(&self) -> Option<FlawKind> {
        let counted = self.counted_joules.filter(|j| *j >= LEAST_COUNTED_J)?;
        let ratio = self.joules / counted;
        ((ratio - 1.0).abs() > MOST_DISAGREEMENT).then_some(FlawKind::Disagrees { ratio })
    }
}

/// Energy of `device` over `window`.
///
/// # Errors
/// Says why there is no number.
pub fn of_device(
    telemetry: &Telemetry,
    device: &Device,
    window: Window,
) -> Result<Energy, FlawKind> {
    if telemetry.is_cut(device) {
        return Err(FlawKind::CutIntoInstances);
    }
    let power = [Quantity::Power, Quantity::PowerInstant];
    let series = power.into_iter().find_map(|q| telemetry.of(device, q));
    let series = series.ok_or(FlawKind::DeviceMissing)?;
    let cadence = telemetry.cadence(device.part);
    let power = match window::gauge(series, window, cadence) {
        Ok(power) => power,
        Err(gap @ FlawKind::Gap { .. }) => return over_gap(telemetry, device, window, gap),
        Err(flaw) => return Err(flaw),
    };
    let counted = telemetry.of(device, Quantity::Energy);
    let counted = counted.map(|s| window::counter(s, window, cadence));
    Ok(Energy {
        joules: power.integral,
        gap: None,
        counted_joules: counted.and_then(|c| Some(c.ok()?.delta)),
        uncounted: counted.and_then(Result::err),
        mean_w: power.mean,
        max_w: Some(power.max),
    })
}

/// What the counter of `device` grew by, where it did not begin anew in `gap`, in which its power was not read.
fn over_gap(
    telemetry: &Telemetry,
    device: &Device,
    window: Window,
    gap: FlawKind,
) -> Result<Energy, FlawKind> {
    let cadence = telemetry.cadence(device.part);
    let series = telemetry.of(device, Quantity::Energy).ok_or(gap)?;
    if !window::outlasts_gaps(series, window, cadence) {
        return Err(gap);
    }
    let (counted, _) = window::counter_over_gaps(series, window, cadence).map_err(|_| gap)?;
    Ok(Energy {
        joules: counted.delta,
        gap: Some(gap),
        counted_joules: Some(counted.delta),
        uncounted: None,
        mean_w: counted.rate,
        max_w: None,
    })
}

/// Energy of all GPUs of a deployment over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EnergyUse {
    /// GPUs that were given to the deployment.
    pub gpus: u32,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Integral of power over the window, summed over the GPUs; of one whose readings have a hole, what its counter grew by.
    pub joules: f64,
    /// What their own counters grew by, where all have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_joules: Option<f64>,
    /// Joules by role of the instances.
    pub joules_by_role: BTreeMap<String, f64>,
    /// Mean power of all of them together.
    pub mean_w: f64,
    /// The largest power that one of them was read at; absent where a hole may hide a larger one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gpu_w: Option<f64>,
}

/// Energy of `gpus` over `window`; what speaks against it, or why there is none, goes to `flaws`.
pub(super) fn of_gpus<'a>(
    telemetry: &Telemetry,
    gpus: impl Iterator<Item = (Result<&'a Device, String>, Option<Role>)>,
    window: Window,
    flaws: &mut Vec<Flaw>,
) -> Option<EnergyUse> {
    let mut sum = EnergyUse {
        gpus: 0,
        seconds: window.seconds(),
        joules: 0.0,
        counted_joules: Some(0.0),
        joules_by_role: BTreeMap::new(),
        mean_w: 0.0,
        max_gpu_w: Some(0.0),
    };
    let mut is_whole = true;
    for (gpu, role) in gpus {
        let (name, energy) = match gpu {
            Ok(device) => (super::usage::name_of(device), of_device(telemetry, device, window)),
            Err(name) => (name, Err(FlawKind::DeviceMissing)),
        };
        let flaw = match &energy {
            Ok(energy) => energy.gap.or_else(|| energy.disagreement()),
            Err(flaw) => Some(*flaw),
        };
        let of = |quantity| {
            let device = name.clone();
            move |kind| Flaw { device, quantity, kind }
        };
        flaws.extend(flaw.map(of(Quantity::Power)));
        let uncounted = energy.as_ref().ok().and_then(|energy| energy.uncounted);
        flaws.extend(uncounted.map(of(Quantity::Energy)));
        match energy {
            Ok(energy) => sum.add(&energy, role),
            Err(_) => is_whole = false,
        }
    }
    (is_whole && sum.gpus > 0).then_some(sum)
}

impl EnergyUse {
    fn add(&mut self, energy: &Energy, role: Option<Role>) {
        self.gpus += 1;
        self.joules += energy.joules;
        self.mean_w += energy.mean_w;
        self.max_gpu_w = self.max_gpu_w.zip(energy.max_w).map(|(most, w)| most.max(w));
        self.counted_joules =
            self.counted_joules.zip(energy.counted_joules).map(|(sum, j)| sum + j);
        if let Some(role) = role {
            *self.joules_by_role.entry(role.name().to_owned()).or_default() += energy.joules;
        }
    }
}
