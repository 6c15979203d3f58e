//! What each GPU and each machine did step by step, beside what the engine on it had to do: rows that a model of
//! power is fitted to.
//!
//! A step is as long as the interval of the readings, and not shorter than a second, since drivers give power as
//! the mean of about the last second. Every number is the mean over its step, found as over any window: a gap, a
//! reset or a missing reading leaves the field without a number.

use super::usage::Allocated;
use super::window::{self, Window};
use super::{Device, Part, Quantity, Reading, Telemetry};
use crate::engine_metrics::{Kind, Said, Word};
use crate::plan::Role;
use crate::units::Nanos;

/// Drivers average power over about as long.
const SHORTEST_STEP: Nanos = Nanos::from_secs(1);

/// One device over one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Begin of the step after that of the window, in seconds.
    pub at_s: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Host in the file.
    pub host: String,
    /// [`Part::Gpu`] or [`Part::Host`].
    pub part: Part,
    /// Number of the GPU on its host.
    pub index: Option<u32>,
    /// The instance that the GPU works for.
    pub instance: Option<u32>,
    /// What that one does.
    pub role: Option<Role>,
    /// What the device did, in the order of [`DEVICE_COLUMNS`].
    pub device: Vec<Option<f64>>,
    /// What the engine of the instance did, in the order of [`ENGINE_COLUMNS`].
    pub engine: Vec<Option<f64>>,
}

/// How a column follows from a device's readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The mean of a gauge.
    Mean(Quantity),
    /// The growth of a counter per second.
    Rate(Quantity),
    /// The growth of a counter as a share of that of another, in percent.
    Share(Quantity, Quantity),
}

/// Columns of a device. What a GPU has a host lacks, and the other way round.
pub const DEVICE_COLUMNS: [(&str, From); 11] = [
    ("power_w", From::Mean(Quantity::Power)),
    ("power_limit_w", From::Mean(Quantity::PowerLimit)),
    ("counted_power_w", From::Rate(Quantity::Energy)),
    ("gpu_busy_pct", From::Mean(Quantity::GpuBusy)),
    ("sm_active_pct", From::Mean(Quantity::SmActive)),
    ("tensor_active_pct", From::Mean(Quantity::TensorActive)),
    ("dram_active_pct", From::Mean(Quantity::DramActive)),
    ("sm_clock_mhz", From::Mean(Quantity::SmClock)),
    ("temperature_c", From::Mean(Quantity::Temperature)),
    ("gpu_memory_bytes", From::Mean(Quantity::GpuMemoryUsed)),
    ("cpu_pct", From::Share(Quantity::CpuBusy, Quantity::CpuAll)),
];

/// Columns of an engine: levels as their mean, counters as their growth per second.
pub const ENGINE_COLUMNS: [(&str, Word); 5] = [
    ("running", Word::Running),
    ("queued", Word::Queued),
    ("kv_usage", Word::KvUsage),
    ("prompt_tokens_per_s", Word::PromptTokens),
    ("output_tokens_per_s", Word::GenerationTokens),
];

/// The rows of a trial's `window`: the GPUs of the deployment, then the machines.
pub fn samples(
    telemetry: &Telemetry,
    looks: &[Vec<Said>],
    window: Window,
    allocated: &Allocated,
) -> Vec<Sample> {
    let step = telemetry.interval.max(SHORTEST_STEP);
    let mut out = Vec::new();
    for device in telemetry.devices(Part::Gpu) {
        let Some(gpu) = allocated.of_device(telemetry, device) else { continue };
        let name = gpu.instance.map(|instance| gpu.role.instance_name(instance));
        let said = |word| name.as_ref().map(|name| of_engine(looks, name, word));
        let engine = ENGINE_COLUMNS.map(|(_, word)| (word, said(word).unwrap_or_default()));
        for at in steps(window, step) {
            out.push(Sample {
                instance: gpu.instance,
                role: Some(gpu.role),
                engine: engine.iter().map(|(w, r)| engine_value(*w, r, at, step)).collect(),
                ..sample(telemetry, device, window, at)
            });
        }
    }
    for device in telemetry.devices(Part::Host) {
        let rows = steps(window, step).map(|at| sample(telemetry, device, window, at));
        out.extend(rows);
    }
    out
}

/// Whole steps of a window.
fn steps(window: Window, step: Nanos) -> impl Iterator<Item = Window> {
    let begins = (0u64..).map(move |i| Nanos(window.from.0 + i * step.0));
    begins.map(move |from| Window { from, to: from + step }).take_while(move |w| w.to <= window.to)
}

fn sample(telemetry: &Telemetry, device: &Device, window: Window, at: Window) -> Sample {
    let columns = DEVICE_COLUMNS.iter();
    Sample {
        at_s: (at.from - window.from).as_secs_f64(),
        seconds: at.seconds(),
        host: device.host.clone(),
        part: device.part,
        index: device.index,
        instance: None,
        role: None,
        device: columns.map(|(_, from)| device_value(telemetry, device, *from, at)).collect(),
        engine: vec![None; ENGINE_COLUMNS.len()],
    }
}

fn device_value(telemetry: &Telemetry, device: &Device, from: From, at: Window) -> Option<f64> {
    let readings = |quantity| Some(telemetry.of(device, quantity)?.readings.as_slice());
    let rate = |quantity| counter(readings(quantity)?, at, telemetry.interval);
    match from {
        From::Mean(quantity) => gauge(readings(quantity)?, at, telemetry.interval),
        From::Rate(quantity) => rate(quantity),
        From::Share(part, whole) => {
            let whole = rate(whole).filter(|w| *w > 0.0)?;
            Some(100.0 * rate(part)? / whole)
        }
    }
}

fn gauge(readings: &[Reading], at: Window, interval: Nanos) -> Option<f64> {
    window::gauge_of(window::around(readings, at), at, interval).ok().map(|g| g.mean)
}

fn counter(readings: &[Reading], at: Window, interval: Nanos) -> Option<f64> {
    window::counter_of(window::around(readings, at), at, interval).ok().map(|c| c.rate)
}

fn engine_value(word: Word, readings: &[Reading], at: Window, interval: Nanos) -> Option<f64> {
    if word.is_level() { gauge(readings, at, interval) } else { counter(readings, at, interval) }
}

/// What the servers of the instance called `name` said of `word`, added up (of a share: the fullest); looks at
/// which one of them did not say it are left out.
fn of_engine(looks: &[Vec<Said>], name: &str, word: Word) -> Vec<Reading> {
    looks.iter().filter_map(|look| at_look(look, name, word)).collect()
}

fn at_look(look: &[Said], name: &str, word: Word) -> Option<Reading> {
    let is_mine = |said: &&Said| {
        let rest = said.instance.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" at "))
    };
    let mine: Vec<&Said> = look.iter().filter(is_mine).collect();
    let value = |said: &&Said| said.numbers.as_ref()?.get(&word).copied();
    let values: Vec<f64> = mine.iter().map(value).collect::<Option<_>>()?;
    let value = match word.kind() {
        Kind::Share => values.into_iter().reduce(f64::max),
        _ => values.into_iter().reduce(|sum, n| sum + n),
    }?;
    let from = mine.iter().map(|s| s.asked_at).min()?;
    Some(Reading { from, to: mine.iter().map(|s| s.answered_at).max()?, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Series;
    use crate::telemetry::usage::AllocatedGpu;
    use std::collections::{BTreeMap, BTreeSet};

    fn at(s: u32) -> Nanos {
        Nanos::from_secs(u64::from(s))
    }

    fn series(part: Part, quantity: Quantity, of: fn(u32) -> f64) -> Series {
        let index = (part == Part::Gpu).then_some(0);
        let name = part.name().to_owned();
        let device = Device { host: "node1".into(), part, name, index, role: None };
        let readings = (0..=10).map(|s| Reading { from: at(s), to: at(s), value: of(s) });
        Series { device, quantity, readings: readings.collect() }
    }

    /// At each second, of two servers of decode 1 and of one of decode 10.
    fn looks() -> Vec<Vec<Said>> {
        let said = |instance: &str, s: u32, running: f64, tokens: f64| Said {
            instance: instance.to_owned(),
            part: crate::engine_metrics::Part::Engine,
            role: Role::Decode,
            asked_at: at(s),
            answered_at: at(s),
            numbers: Some(BTreeMap::from([
                (Word::Running, running),
                (Word::GenerationTokens, tokens),
            ])),
        };
        let look = |s: u32| {
            let n = 50.0 * f64::from(s);
            vec![
                said("decode 1 at http://a", s, 3.0, n),
                said("decode 1 at http://b", s, 1.0, n),
                said("decode 10", s, 99.0, 0.0),
            ]
        };
        (0..=10).map(look).collect()
    }

    fn given() -> Allocated {
        let gpu =
            AllocatedGpu { host: "node1".into(), id: 0, instance: Some(1), role: Role::Decode };
        Allocated {
            hosts: BTreeSet::from(["node1".to_owned()]),
            gpus: vec![gpu],
            ..Allocated::default()
        }
    }

    fn value(sample: &Sample, column: &str) -> Option<f64> {
        let device = DEVICE_COLUMNS.iter().map(|(name, _)| *name).zip(&sample.device);
        let engine = ENGINE_COLUMNS.iter().map(|(name, _)| *name).zip(&sample.engine);
        *device.chain(engine).find(|(name, _)| *name == column).unwrap().1
    }

    #[test]
    fn a_step_has_the_means_of_its_gpu_beside_those_of_its_engine() {
        let telemetry = Telemetry {
            interval: at(1),
            series: vec![
                series(Part::Gpu, Quantity::Power, |s| 100.0 * f64::from(s)),
                series(Part::Gpu, Quantity::Energy, |s| 50.0 * f64::from(s)),
                series(Part::Host, Quantity::CpuBusy, |s| 2.0 * f64::from(s)),
                series(Part::Host, Quantity::CpuAll, |s| 8.0 * f64::from(s)),
            ],
            ..Telemetry::default()
        };
        let window = Window { from: at(2), to: Nanos(at(5).0 + 500_000_000) };
        let samples = samples(&telemetry, &looks(), window, &given());
        let (gpu, host) = samples.split_at(3);
        assert_eq!(host.len(), 3, "half a step is none");
        assert_eq!((gpu[1].at_s, gpu[1].seconds), (1.0, 1.0));
        let of_gpu = ["power_w", "counted_power_w", "running", "output_tokens_per_s", "kv_usage"];
        let found = of_gpu.map(|column| value(&gpu[1], column));
        assert_eq!(found, [Some(350.0), Some(50.0), Some(4.0), Some(100.0), None]);
        assert_eq!(value(&host[0], "cpu_pct"), Some(25.0));
        assert_eq!(value(&host[0], "power_w"), None);
    }

    #[test]
    fn an_engine_that_did_not_answer_or_was_started_anew_has_no_number_then() {
        let mut looks = looks();
        looks[4][0].numbers = None;
        let restarted = looks[8][0].numbers.as_mut().unwrap();
        restarted.insert(Word::GenerationTokens, 0.0);
        let readings = of_engine(&looks, "decode 1", Word::GenerationTokens);
        assert_eq!(readings.len(), 10);
        let rate = |from: u32| {
            let window = Window { from: at(from), to: at(from + 1) };
            engine_value(Word::GenerationTokens, &readings, window, at(1))
        };
        assert_eq!(rate(4), Some(100.0), "a count that was missed once goes on");
        assert_eq!(rate(7), None);
    }
}
