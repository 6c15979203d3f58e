//! What of a side is drawn as a whole: the runs that it is made of, the bring-ups of its deployment, or its trials.
//!
//! Trials of one bring-up share what that bring-up decided by chance, and those of one run share its day. So the
//! largest of the three of which there are enough is what is counted, and each counts once, whatever it holds. Where
//! there are too few of the larger, what these differ by is in no interval, and that is said.
//!
//! **Invariant:** a run or a bring-up is never the only one of a side that is counted. The mean of its trials would
//! hide how far these lie apart, and what the other side spreads by would be taken for it.

use super::Side;
use super::ratio::are_alike;
use crate::plan::Platform;
use crate::results::{Drawn, lookup};
use crate::stats::contrast::is_spread_told;

/// From the largest to the smallest.
const UNITS: [Drawn; 3] = [Drawn::Runs, Drawn::BringUps, Drawn::Trials];

/// What two sides have enough of, so that their spread tells how such differ: of runs or bring-ups two a side, of
/// trials one a side and four in all. Where something else used a machine, one side tells nothing of how the other
/// spreads, so each needs two. Nothing where they have not even enough trials.
pub(in crate::analysis) fn of_two(side: &Side<'_>, base: &Side<'_>) -> Option<Drawn> {
    let are_alike = are_alike(side, base);
    UNITS.into_iter().find(|unit| {
        let counts = (unit.count(side), unit.count(base));
        match unit {
            Drawn::Trials if are_alike => is_spread_told(counts),
            _ => counts.0.min(counts.1) >= 2,
        }
    })
}

/// The same of a side by itself, which needs `fewest` of them.
pub(in crate::analysis) fn of_one(side: &Side<'_>, fewest: usize) -> Option<Drawn> {
    UNITS.into_iter().find(|unit| unit.count(side) >= fewest)
}

/// Of what it is in no interval between the two how one differs from the next, although it could be: of bring-ups, or
/// of runs. Sides of one run share its day.
pub(in crate::analysis) fn missed(
    side: &Side<'_>,
    base: &Side<'_>,
    are_of_one_run: bool,
) -> Option<Drawn> {
    let are_several = |unit: Drawn| unit.count(side).max(unit.count(base)) > 1;
    let are_both_brought_up = || is_brought_up(side) && is_brought_up(base);
    match of_two(side, base)? {
        Drawn::Runs => None,
        Drawn::BringUps | Drawn::Trials if are_several(Drawn::Runs) => Some(Drawn::Runs),
        Drawn::Trials if are_both_brought_up() || are_several(Drawn::BringUps) => {
            Some(Drawn::BringUps)
        }
        Drawn::BringUps | Drawn::Trials => (!are_of_one_run).then_some(Drawn::Runs),
    }
}

/// A server of somebody else was there before, and stays.
fn is_brought_up(side: &Side<'_>) -> bool {
    let deployment = side.plan.deployment(&side.point.deployment);
    deployment.is_some_and(|d| d.platform != Platform::External)
}

impl Drawn {
    /// The unit that each trial of a side is of.
    fn keys(self, side: &Side<'_>) -> Vec<(u32, u32, u32)> {
        let is_brought_up = is_brought_up(side);
        let key = |(n, trial): (u32, &super::TrialRecords)| {
            let run = trial.facts.run;
            let bring_up = trial.facts.bring_up.filter(|_| is_brought_up).unwrap_or(0);
            match self {
                Self::Runs => (run, 0, 0),
                Self::BringUps => (run, bring_up, 0),
                Self::Trials => (run, bring_up, n),
            }
        };
        (0..).zip(side.trials).map(key).collect()
    }

    /// How many of them a side has.
    pub(in crate::analysis) fn count(self, side: &Side<'_>) -> usize {
        let mut keys = self.keys(side);
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }

    /// The logarithm of `name` of each: the mean over its trials. Absent where a trial has no value, or none above
    /// zero.
    pub(super) fn logarithms(self, name: &str, side: &Side<'_>) -> Option<Vec<f64>> {
        self.means(name, side, |value| (value > 0.0).then(|| value.ln()))
    }

    /// What `of` makes of the value of `name`, by each: the mean over its trials. Absent where it makes nothing of one.
    pub(in crate::analysis) fn means(
        self,
        name: &str,
        side: &Side<'_>,
        of: impl Fn(f64) -> Option<f64>,
    ) -> Option<Vec<f64>> {
        let mut all: Vec<((u32, u32, u32), Vec<f64>)> = Vec::new();
        for (key, trial) in self.keys(side).into_iter().zip(&side.result.trials) {
            let value = of(lookup(&trial.metrics, name)?)?;
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(value),
                None => all.push((key, vec![value])),
            }
        }
        Some(all.into_iter().map(|(_, v)| v.iter().sum::<f64>() / v.len() as f64).collect())
    }
}
