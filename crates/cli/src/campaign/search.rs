//! A search under way: what its records say, and the trial that follows from them.

use crate::exit::Failure;
use scalebeam_model::analysis::search::probes;
use scalebeam_model::plan::{Plan, PointPlan, TrialPlan};
use scalebeam_model::search::{Measured, SearchPlan, Step};
use scalebeam_record::{RunReader, RunWriter};

/// A search with what was measured of it, in this session and those before.
pub(super) struct Search<'a> {
    plan: &'a SearchPlan,
    measured: Measured,
}

/// The searches at a deployment that have not come to their end.
pub(super) fn unfinished<'a>(
    writer: &RunWriter,
    plan: &'a Plan,
    deployment: &'a str,
) -> Result<Vec<Search<'a>>, Failure> {
    let mut out = Vec::new();
    for plan in plan.searches_of(deployment) {
        let search = Search::read(writer, plan)?;
        if search.next().is_some() {
            out.push(search);
        }
    }
    Ok(out)
}

impl<'a> Search<'a> {
    fn read(writer: &RunWriter, plan: &'a SearchPlan) -> Result<Self, Failure> {
        let reader = RunReader::open(writer.dir())?;
        let mut measured = Measured::new();
        for (level, point) in plan.levels.iter().enumerate() {
            measured.insert(level, probes(&plan.slo, &reader.measured_trials(point)?));
        }
        Ok(Self { plan, measured })
    }

    /// Whose and of what.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.plan.deployment, self.plan.load)
    }

    /// The next trial, where there is one.
    pub(super) fn next(&self) -> Option<(&'a PointPlan, &'a TrialPlan)> {
        let Step::Measure { level, trial } = self.plan.progress(&self.measured).next else {
            return None;
        };
        let point = self.plan.levels.get(level)?;
        Some((point, point.trials.get(trial)?))
    }

    /// Takes in a trial of `point` that was measured: from the disk, as a resume would.
    pub(super) fn read_again(
        &mut self,
        writer: &RunWriter,
        point: &PointPlan,
    ) -> Result<(), Failure> {
        let trials = RunReader::open(writer.dir())?.measured_trials(point)?;
        if let Some(level) = self.plan.levels.iter().position(|p| p.id == point.id) {
            self.measured.insert(level, probes(&self.plan.slo, &trials));
        }
        Ok(())
    }
}
