//! When each trial has its turn.

use super::{Plan, PointPlan, TrialPlan};

impl Plan {
    /// Every trial of the points in the order in which it is measured, searches apart: the first of each point, then
    /// the second of each from the last point to the first, and so on. So the trials of a point are spread over all
    /// the time that its deployment is up, and what drifts meanwhile is in what they differ by; a drift at a steady
    /// pace weighs on all points alike after each second round.
    pub fn in_turn(&self) -> Vec<(&PointPlan, &TrialPlan)> {
        let rounds = self.points.iter().map(|p| p.trials.len()).max().unwrap_or(0);
        let of_round = |round: usize| {
            let own = self.points.iter().filter_map(move |p| Some((p, p.trials.get(round)?)));
            let mut own: Vec<(&PointPlan, &TrialPlan)> = own.collect();
            if round % 2 == 1 {
                own.reverse();
            }
            own
        };
        (0..rounds).flat_map(of_round).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::tests::{plan, point_plan};

    #[test]
    fn each_point_has_its_turn_once_a_round_and_every_second_round_goes_back() {
        let mut plan = plan(vec![]);
        plan.points = vec![point_plan("a", 1, 3), point_plan("a", 2, 3), point_plan("a", 4, 2)];
        let order: Vec<String> = plan
            .in_turn()
            .iter()
            .map(|(point, trial)| format!("{}.{}", point.level.label, trial.number))
            .collect();
        assert_eq!(order, ["c1.1", "c2.1", "c4.1", "c4.2", "c2.2", "c1.2", "c1.3", "c2.3"]);
    }
}
