//! The search for the highest load that meets an objective.
//!
//! The plan holds every level that may be probed, ascending in steps of the asked precision. The search
//! starts at the lowest, doubles while the objective is met, and halves the distance between the highest
//! level that met it and the lowest that did not until they are neighbours. A level whose verdict chance
//! may explain is measured again, and after its last trial believed as it looks.
//!
//! **Invariants:** the next trial is a pure function of the plan and of what was measured, in whatever
//! session; nothing else is remembered, so a search that was cut short goes on where it was, and records
//! alone give its answer again. Never more trials than the budget.

use crate::plan::PointPlan;
use crate::slo::{Judgement, Slo, Tally};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// What a search may do, decided before it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SearchPlan {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// What a level must meet.
    pub slo: Slo,
    /// Step from level to level: 0.05 is 5 %.
    pub precision: f64,
    /// At most so many trials of a level.
    pub tries: u32,
    /// At most so many trials in all.
    pub probes: u32,
    /// No trial begins after so much time was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Nanos>,
    /// Every level that may be probed, ascending. The trials of each are begun in order, and only as
    /// many as its verdict needs.
    pub levels: Vec<PointPlan>,
}

impl SearchPlan {
    /// Where the search stands, and what comes next.
    pub fn progress(&self, measured: &Measured) -> Progress {
        let rules = Rules {
            slo: &self.slo,
            values: self.levels.iter().filter_map(value).collect(),
            tries: self.tries as usize,
            probes: self.probes,
            time: self.time,
        };
        rules.progress(measured)
    }
}

/// What decides, without what is sent.
#[derive(Debug)]
struct Rules<'a> {
    slo: &'a Slo,
    values: Vec<f64>,
    tries: usize,
    probes: u32,
    time: Option<Nanos>,
}

/// The number of a level.
pub(crate) fn value(point: &PointPlan) -> Option<f64> {
    point.level.rate_rps.or(point.level.concurrency.map(f64::from))
}

/// One trial of a level, as it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Requests within each bound of the objective.
    pub tallies: Vec<Tally>,
    /// How long it took.
    pub wall: Nanos,
    /// It was ended because its queue grew without end: whatever its requests met, a longer trial would
    /// not.
    pub is_oversaturated: bool,
}

/// What was measured, by level, in the order of the trials. Trials that were cut short are not here.
pub type Measured = std::collections::BTreeMap<usize, Vec<Probe>>;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Measure one more trial of this level.
    Measure {
        /// Position in [`SearchPlan::levels`].
        level: usize,
        /// Position in its trials.
        trial: usize,
    },
    /// There is nothing more to measure.
    Done(End),
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The two ends of the range are neighbours: the precision was reached.
    Found,
    /// Even the highest level meets the objective.
    AllMeet,
    /// Even the lowest level does not.
    NoneMeets,
    /// The budget of trials or of time was spent before.
    OutOfBudget,
}

/// What is known of where the objective is met, and the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The highest level that met it.
    pub met: Option<Side>,
    /// The lowest that did not.
    pub missed: Option<Side>,
    /// The highest level whose met objective chance does not explain; none of a higher one was missed for sure.
    pub sure_met: Option<usize>,
    /// The lowest level whose missed objective chance does not explain.
    pub sure_missed: Option<usize>,
    /// Trials so far.
    pub probes: u32,
    /// What comes next.
    pub next: Step,
}

/// One end of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Position in [`SearchPlan::levels`].
    pub level: usize,
    /// Chance does not explain its verdict.
    pub is_sure: bool,
}

impl Rules<'_> {
    /// Follows the search through what was measured, from its beginning.
    fn progress(&self, measured: &Measured) -> Progress {
        let (mut met, mut missed): (Option<Side>, Option<Side>) = (None, None);
        let (mut sure_met, mut sure_missed) = (None, None);
        let (mut probes, mut time) = (0, Nanos::ZERO);
        let next = loop {
            let at = |side: Option<Side>| side.map(|s| s.level);
            let level = match target(&self.values, at(met), at(missed)) {
                Ok(level) => level,
                Err(end) => break Step::Done(end),
            };
            let trials = measured.get(&level).map_or(&[][..], Vec::as_slice);
            let (judged, used) = self.believe(trials);
            probes += u32::try_from(used).unwrap_or(u32::MAX);
            time = trials[..used].iter().fold(time, |sum, p| sum + p.wall);
            let Some(Judgement { holds, is_sure }) = judged else {
                let is_spent = probes >= self.probes || self.time.is_some_and(|t| time >= t);
                break if is_spent {
                    Step::Done(End::OutOfBudget)
                } else {
                    Step::Measure { level, trial: used }
                };
            };
            let side = Some(Side { level, is_sure });
            if holds {
                met = side
            } else {
                missed = side
            }
            // Levels that met it rise and those that did not fall, so the last of each is the nearest.
            match (holds, is_sure) {
                (true, true) => sure_met = Some(level),
                (false, true) => sure_missed = Some(level),
                (_, false) => {}
            }
        };
        Progress { met, missed, sure_met, sure_missed, probes, next }
    }

    /// The verdict on a level and the trials that it took; none where another trial is needed. Trials
    /// are pooled one by one, as they were when the search decided.
    fn believe(&self, trials: &[Probe]) -> (Option<Judgement>, usize) {
        let mut pooled = vec![Tally::default(); self.slo.bounds.len()];
        for (n, trial) in trials.iter().take(self.tries).enumerate() {
            pooled.iter_mut().zip(&trial.tallies).for_each(|(sum, t)| *sum += *t);
            let judged = if trial.is_oversaturated {
                Judgement { holds: false, is_sure: true }
            } else {
                self.slo.judge(&pooled)
            };
            if judged.is_sure || n + 1 >= self.tries {
                return (Some(judged), n + 1);
            }
        }
        (None, trials.len().min(self.tries))
    }
}

/// The level to judge next, or why there is none.
fn target(values: &[f64], met: Option<usize>, missed: Option<usize>) -> Result<usize, End> {
    match (met, missed) {
        (None, None) if values.is_empty() => Err(End::NoneMeets),
        (None, None) => Ok(0),
        (None, Some(_)) => Err(End::NoneMeets),
        (Some(low), None) if low + 1 >= values.len() => Err(End::AllMeet),
        (Some(low), None) => {
            let double = values.partition_point(|v| *v < 2.0 * values[low]);
            Ok(double.clamp(low + 1, values.len() - 1))
        }
        // Levels are steps of one ratio, so the middle one is the geometric mean.
        (Some(low), Some(high)) if high - low > 1 => Ok(low + (high - low) / 2),
        (Some(_), Some(_)) => Err(End::Found),
    }
}

/// Levels from `from` to `to` in steps of `precision`, both ends included. Three digits of each, as
/// labels have them, so that a level is the number that it is called by.
pub(crate) fn rates(from: f64, to: f64, precision: f64) -> Vec<f64> {
    let mut levels: Vec<f64> = steps(from, to, precision).chain([to]).map(three_digits).collect();
    levels.dedup();
    levels
}

/// The same in whole numbers.
pub(crate) fn counts(from: u32, to: u32, precision: f64) -> Vec<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two numbers of this type"
    )]
    let whole = |v: f64| v.round() as u32;
    let steps = steps(f64::from(from), f64::from(to), precision).map(whole);
    let mut levels: Vec<u32> = steps.chain([to]).collect();
    levels.dedup();
    levels
}

fn steps(from: f64, to: f64, precision: f64) -> impl Iterator<Item = f64> {
    let ratio = 1.0 + precision;
    (0..).map(move |i| from * ratio.powi(i)).take_while(move |v| *v < to)
}

fn three_digits(value: f64) -> f64 {
    let scale = 10_f64.powf(2.0 - value.log10().floor());
    (value * scale).round() / scale
}

/// How many levels [`rates`] and [`counts`] would give at most, without making them.
pub(crate) fn number_of_levels(from: f64, to: f64, precision: f64) -> f64 {
    (to / from).ln() / (1.0 + precision).ln() + 2.0
}

#[cfg(test)]
mod tests;
