//! Turns: who is brought up next, what is left to be measured there, and what becomes of one that fails.

use super::{Campaign, search};
use crate::exit::Failure;
use crate::interrupt::Asked;
use crate::printer;
use scalebeam_model::plan::{DeploymentPlan, PointPlan, TrialPlan, Turn};
use scalebeam_model::results::Skipped;

impl Campaign<'_> {
    /// Brings each up, measures, and takes it down, turn by turn.
    pub(super) async fn deployments(&mut self) -> Result<(), Failure> {
        for turn in self.loaded.plan.turns() {
            let deployment = turn.deployment;
            // One that failed is not tried again before the user says so.
            if self.skipped.iter().any(|s| s.deployment == deployment.name) {
                continue;
            }
            let left = self.left(&turn)?;
            let searches = match turn.searches {
                true => search::unfinished(&self.writer, &self.loaded.plan, &deployment.name)?,
                false => Vec::new(),
            };
            if left.is_empty() && searches.is_empty() {
                continue;
            }
            if self.asked() != Asked::Not {
                self.interrupted = true;
                break;
            }
            self.guard.begin(deployment.price_per_hour);
            let outcome = self.deployment(deployment, &left, searches).await;
            self.guard.end();
            outcome?;
        }
        Ok(())
    }

    /// What of a turn is not measured yet.
    fn left<'b>(&self, turn: &Turn<'b>) -> Result<Vec<(&'b PointPlan, &'b TrialPlan)>, Failure> {
        let mut left = Vec::new();
        for (point, trial) in &turn.trials {
            if !self.writer.is_complete(&point.id, trial.number)? {
                left.push((*point, *trial));
            }
        }
        Ok(left)
    }

    /// The user is told at once and with the hint, and of what is measured already; the record keeps what happened.
    pub(super) fn give_up(
        &mut self,
        deployment: &DeploymentPlan,
        failure: Failure,
    ) -> Result<(), Failure> {
        self.failed = true;
        let name = &deployment.name;
        printer::say(&format!("error: {name}: {}", failure.text()));
        let (done, all) = self.progress_of(deployment)?;
        let mut reason = failure.message().to_owned();
        if done > 0 {
            printer::say(&format!(
                "{name}: {done} of its {all} trials are measured and stay; it is not brought up again by this \
                 command: scalebeam run --resume {} measures the others",
                self.writer.dir().display()
            ));
            reason = format!("after {done} of {all} trials: {reason}");
        }
        self.skipped.push(Skipped { deployment: name.clone(), reason });
        Ok(())
    }

    /// Trials of a deployment's points that are measured, and all that are planned; searches apart.
    fn progress_of(&self, deployment: &DeploymentPlan) -> Result<(usize, usize), Failure> {
        let points = self.loaded.plan.points_of(&deployment.name);
        let all: usize = points.map(|p| p.trials.len()).sum();
        let left = self.writer.remaining()?;
        let left = left.iter().filter(|(p, _)| p.deployment == deployment.name).count();
        Ok((all.saturating_sub(left), all))
    }
}
