//! What a bootstrap within a run draws: whole requests, or whole sessions where requests are turns of one.

use super::Side;
use crate::analysis;
use crate::metrics::{self, Metric, Of};
use crate::request::RequestRecord;
use crate::results::lookup;
use crate::stats::percentile::percentile_of;
use crate::stats::quantile::quantile_sorted;

/// Resampling units, in the order of their keys.
pub(super) struct Blocks {
    /// Trial, and index of the request or number of the session: the same of one plan has the same key on every
    /// deployment.
    pub(super) keys: Vec<Key>,
    /// What they hold.
    pub(super) of: Values,
}

pub(super) type Key = (u32, u64);

impl Blocks {
    /// Trials that any unit is of.
    pub(super) fn trials(&self) -> usize {
        self.keys.chunk_by(|a, b| a.0 == b.0).count()
    }
}

pub(super) enum Values {
    /// Samples of each unit.
    Samples(Vec<Vec<f64>>),
    /// Amount, and seconds in flight, of each unit, and the mean number in flight: by Little's law
    /// the rate is `in flight x amount / seconds`.
    Rate { amounts: Vec<(f64, f64)>, in_flight: f64, scale: f64 },
}

impl Values {
    /// The statistic over the units that were picked.
    pub(super) fn value(&self, pick: &[usize], stat: &str, pool: &mut Vec<f64>) -> Option<f64> {
        match self {
            Self::Samples(samples) => {
                pool.clear();
                pick.iter().for_each(|i| pool.extend(&samples[*i]));
                statistic(pool, stat)
            }
            Self::Rate { amounts, in_flight, scale } => {
                let (amount, seconds) = pick
                    .iter()
                    .fold((0.0, 0.0), |(a, s), i| (a + amounts[*i].0, s + amounts[*i].1));
                (seconds > 0.0).then(|| in_flight * amount / seconds * scale)
            }
        }
    }
}

fn statistic(values: &mut [f64], stat: &str) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let q = match stat {
        "mean" => return Some(values.iter().sum::<f64>() / values.len() as f64),
        "min" => 0.0,
        "max" => 1.0,
        p => percentile_of(p)? / 100.0,
    };
    values.sort_unstable_by(f64::total_cmp);
    quantile_sorted(values, q)
}

/// The units of a side; absent where there are fewer than two, or the metric has none.
pub(super) fn blocks(metric: &Metric, side: &Side<'_>) -> Option<Blocks> {
    let mut all: Vec<(Key, &RequestRecord)> =
        side.records().map(|(trial, r)| (key(trial, r), r)).collect();
    all.sort_by_key(|(key, r)| (*key, r.index));
    let blocks = match metric.of {
        Of::Completed(_) | Of::Sent(_) => sample_blocks(metric, &all),
        Of::Trial(_) => rate_blocks(metric, side, &all)?,
        // One look follows from the one before: they are no independent values.
        Of::Looks(_) => return None,
    };
    (blocks.keys.len() >= 2).then_some(blocks)
}

/// Whole trials as units of samples: what all requests of a trial share is then drawn with them.
pub(super) fn of_trials(blocks: Blocks) -> Option<Blocks> {
    let Values::Samples(samples) = blocks.of else { return None };
    let mut out: Vec<(Key, Vec<f64>)> = Vec::new();
    for ((trial, _), samples) in blocks.keys.into_iter().zip(samples) {
        match out.last_mut().filter(|((last, _), _)| *last == trial) {
            Some((_, all)) => all.extend(samples),
            None => out.push(((trial, 0), samples)),
        }
    }
    let (keys, samples) = out.into_iter().unzip();
    Some(Blocks { keys, of: Values::Samples(samples) })
}

/// What one turn of a session is follows from the turns before it, so a session is one unit.
fn key(trial: u32, record: &RequestRecord) -> Key {
    (trial, record.session.unwrap_or(record.index))
}

fn sample_blocks(metric: &Metric, all: &[(Key, &RequestRecord)]) -> Blocks {
    let of = |unit: &[(Key, &RequestRecord)]| {
        let mut samples = Vec::new();
        unit.iter().for_each(|(_, r)| metric.sample_one(r, &mut samples));
        (!samples.is_empty()).then_some((unit[0].0, samples))
    };
    let (keys, samples) = all.chunk_by(|a, b| a.0 == b.0).filter_map(of).unzip();
    Blocks { keys, of: Values::Samples(samples) }
}

fn rate_blocks(metric: &Metric, side: &Side<'_>, all: &[(Key, &RequestRecord)]) -> Option<Blocks> {
    let context = analysis::context(side.plan, side.point);
    let amount: fn(&RequestRecord) -> Option<f64> = match metric.name {
        "rps" | "rps_per_gpu" => |_| Some(1.0),
        "output_tps" | "output_tps_per_gpu" => |r| r.output_tokens.map(f64::from),
        "total_tps" => |r| Some(f64::from(r.output_tokens?) + f64::from(r.prompt_tokens?)),
        _ => return None,
    };
    let of = |r: &RequestRecord| {
        let seconds = (r.finished_at - r.sent_at?).as_secs_f64();
        Some((if r.is_completed() { amount(r)? } else { 0.0 }, seconds))
    };
    let of_unit = |unit: &[(Key, &RequestRecord)]| {
        let mut sum = (0.0, 0.0);
        for (_, r) in unit {
            let (amount, seconds) = of(r)?;
            sum = (sum.0 + amount, sum.1 + seconds);
        }
        Some((unit[0].0, sum))
    };
    let sent: Vec<(Key, &RequestRecord)> =
        all.iter().filter(|(_, r)| r.sent_at.is_some()).copied().collect();
    let units: Option<Vec<_>> = sent.chunk_by(|a, b| a.0 == b.0).map(of_unit).collect();
    let (keys, amounts) = units?.into_iter().unzip();
    let views = side.trials.iter().map(|t| t.view(&context));
    let reached = metrics::of_trials(&views.collect::<Vec<_>>());
    let scale = match metric.name.ends_with("_per_gpu") {
        true if context.gpus == 0 => return None,
        true => 1.0 / f64::from(context.gpus),
        false => 1.0,
    };
    let in_flight = lookup(&reached, "concurrency_reached")?;
    Some(Blocks { keys, of: Values::Rate { amounts, in_flight, scale } })
}
