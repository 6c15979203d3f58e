//! What a bootstrap within a run draws: blocks of requests that were in flight together, or of sessions where requests
//! are turns of one.

use super::Side;
use crate::analysis;
use crate::metrics::{self, Metric, Of};
use crate::request::RequestRecord;
use crate::results::lookup;
use crate::stats::percentile::percentile_of;
use crate::stats::quantile::quantile_sorted;

/// One block tells nothing of how they differ, so that those of a trial are made smaller than what was in flight.
const FEWEST_BLOCKS: usize = 2;

/// Resampling units, in the order of their keys.
pub(super) struct Blocks {
    /// Trial, and index of the request or number of the session: the same of one plan has the same key on every
    /// deployment.
    pub(super) keys: Vec<Key>,
    /// What they hold.
    pub(super) of: Values,
    /// How many units were in flight at a time, in the mean.
    pub(super) at_once: f64,
    /// A unit is more than one request or session.
    pub(super) are_several_together: bool,
}

pub(super) type Key = (u32, u64);

impl Blocks {
    /// Each request or session by itself.
    fn each(keys: Vec<Key>, of: Values, at_once: f64) -> Self {
        Self { keys, of, at_once, are_several_together: false }
    }

    /// Trials that any unit is of.
    pub(super) fn trials(&self) -> usize {
        self.keys.chunk_by(|a, b| a.0 == b.0).count()
    }

    /// Whether both are of the same requests or sessions.
    pub(super) fn are_of_the_same(&self, other: &Self) -> bool {
        self.keys == other.keys
    }

    /// Neighbours of a trial, about `together` of them, as one unit: what is in flight at one time shares its batches
    /// and its queue, so the requests of such a block are no independent values (Carlstein 1986). The parts of a trial
    /// are alike in length, and at least [`FEWEST_BLOCKS`] where it has so many units.
    pub(super) fn together(self, together: f64) -> Self {
        let mut blocks = Vec::new();
        for trial in self.keys.chunk_by(|a, b| a.0 == b.0) {
            let n = trial.len();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let length = together.round().clamp(1.0, (n / FEWEST_BLOCKS).max(1) as f64) as usize;
            let parts = n / length;
            blocks.extend((0..n).map(|i| (trial[0].0, (i * parts / n) as u64)));
        }
        self.merged(blocks)
    }

    /// Whole trials as units: what all requests of a trial share is then drawn with them.
    pub(super) fn by_trial(self) -> Self {
        let trials = self.keys.iter().map(|(trial, _)| (*trial, 0)).collect();
        self.merged(trials)
    }

    /// Neighbours that have the same one of `keys` as one unit.
    fn merged(self, keys: Vec<Key>) -> Self {
        let of = match self.of {
            Values::Samples(samples) => Values::Samples(merged(&keys, samples, |all, more| {
                all.extend(more);
            })),
            Values::Rate { amounts, in_flight, scale } => Values::Rate {
                amounts: merged(&keys, amounts, |all, more| {
                    *all = (all.0 + more.0, all.1 + more.1)
                }),
                in_flight,
                scale,
            },
        };
        let (each, mut keys) = (keys.len(), keys);
        keys.dedup();
        Self { are_several_together: keys.len() < each, keys, of, at_once: self.at_once }
    }
}

/// One value for neighbours of one key.
fn merged<T>(keys: &[Key], values: Vec<T>, add: impl Fn(&mut T, T)) -> Vec<T> {
    let mut out: Vec<(Key, T)> = Vec::new();
    for (key, value) in keys.iter().zip(values) {
        match out.last_mut().filter(|(last, _)| last == key) {
            Some((_, all)) => add(all, value),
            None => out.push((*key, value)),
        }
    }
    out.into_iter().map(|(_, value)| value).collect()
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
    Blocks::each(keys, Values::Samples(samples), at_once(all))
}

/// How many units were in flight at a time, in the mean over the trials: by Little's law what each took, over what all
/// took.
fn at_once(all: &[(Key, &RequestRecord)]) -> f64 {
    let span = |unit: &[(Key, &RequestRecord)]| {
        let sent = unit.iter().filter_map(|(_, r)| r.sent_at).min()?;
        let finished = unit.iter().map(|(_, r)| r.finished_at).max()?;
        Some((sent, finished))
    };
    let of_trial = |trial: &[(Key, &RequestRecord)]| {
        let spans: Vec<_> = trial.chunk_by(|a, b| a.0 == b.0).filter_map(span).collect();
        let first = spans.iter().map(|s| s.0).min()?;
        let whole = (spans.iter().map(|s| s.1).max()? - first).as_secs_f64();
        let each: f64 = spans.iter().map(|s| (s.1 - s.0).as_secs_f64()).sum();
        (whole > 0.0).then(|| each / whole)
    };
    let trials = all.chunk_by(|a, b| a.0.0 == b.0.0);
    let found: Vec<f64> = trials.filter_map(of_trial).collect();
    if found.is_empty() { 1.0 } else { found.iter().sum::<f64>() / found.len() as f64 }
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
    Some(Blocks::each(keys, Values::Rate { amounts, in_flight, scale }, at_once(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(trials: &[(u32, u64)]) -> Blocks {
        let keys: Vec<Key> = trials.iter().flat_map(|(t, n)| (0..*n).map(|i| (*t, i))).collect();
        let samples = keys.iter().map(|(t, i)| vec![f64::from(*t) * 100.0 + *i as f64]).collect();
        let of = Values::Samples(samples);
        Blocks::each(keys, of, 1.0)
    }

    fn sizes(blocks: &Blocks) -> Vec<usize> {
        let Values::Samples(samples) = &blocks.of else { panic!("samples") };
        samples.iter().map(Vec::len).collect()
    }

    #[test]
    fn neighbours_of_a_trial_are_drawn_together_and_nothing_is_lost() {
        let blocks = units(&[(1, 10), (2, 20)]).together(4.2);
        assert_eq!(sizes(&blocks), [5, 5, 4, 4, 4, 4, 4]);
        let Values::Samples(samples) = &blocks.of else { panic!("samples") };
        assert_eq!(samples[2], [200.0, 201.0, 202.0, 203.0]);
        assert_eq!(samples.concat().len(), 30);
        assert!(blocks.are_several_together && blocks.trials() == 2);
    }

    #[test]
    fn a_trial_has_two_blocks_where_it_has_as_many_requests() {
        assert_eq!(sizes(&units(&[(1, 16)]).together(64.0)), [8; 2]);
        assert_eq!(sizes(&units(&[(1, 19)]).together(64.0)).len(), 2);
        let few = units(&[(1, 2)]).together(64.0);
        assert_eq!((sizes(&few), few.are_several_together), (vec![1; 2], false));
        assert_eq!(sizes(&units(&[(1, 5)]).together(0.2)), [1; 5]);
    }

    #[test]
    fn amounts_and_seconds_of_a_block_are_sums() {
        let keys = (0..8).map(|i| (1, i)).collect();
        let of = Values::Rate { amounts: vec![(10.0, 2.0); 8], in_flight: 2.0, scale: 1.0 };
        let blocks = Blocks::each(keys, of, 2.0).together(2.0);
        let Values::Rate { amounts, .. } = &blocks.of else { panic!("a rate") };
        assert_eq!(amounts, &[(20.0, 4.0); 4]);
    }
}
