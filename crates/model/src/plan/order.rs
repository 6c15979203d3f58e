//! When each deployment and each trial has its turn.
//!
//! **Invariant:** every trial of a plan is in one turn, and in one only; so is the search of a deployment. Which turns
//! there are follows from the plan alone: a run that goes on passes over what is measured and changes no order.

use super::{DeploymentPlan, Plan, PointPlan, TrialPlan};
use crate::search::SearchPlan;
use serde::{Deserialize, Serialize};

/// What the repeats of a run go round over.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Interleave {
    /// The points of a deployment, which is brought up once.
    #[default]
    Points,
    /// The deployments, there and back again: one that ends a round begins the next, and stays up between.
    Deployments,
    /// The same, and each is brought up anew for each of its rounds: what a bring-up decides by chance is then in
    /// what its trials differ by.
    BringUps,
}

impl Interleave {
    /// As in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Deployments => "deployments",
            Self::BringUps => "bring-ups",
        }
    }

    /// Whether it is the one of files that say nothing.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is measured from the time that a deployment comes up until it is taken down.
#[derive(Debug, Clone)]
pub struct Turn<'a> {
    /// What is brought up.
    pub deployment: &'a DeploymentPlan,
    /// Trials in the order in which they are measured.
    pub trials: Vec<(&'a PointPlan, &'a TrialPlan)>,
    /// Its searches come after them: of the last turn that it has.
    pub searches: bool,
}

impl Plan {
    /// Every turn, in order.
    pub fn turns(&self) -> Vec<Turn<'_>> {
        self.turns_of(self.interleave)
    }

    /// The same, were it to go round over something else.
    pub fn turns_of(&self, interleave: Interleave) -> Vec<Turn<'_>> {
        turns(interleave, &self.deployments, &self.points, &self.searches)
    }
}

/// The turns of `deployments`. A deployment that nothing is asked of has none.
///
/// In the first round each has its turn in the order of the plan, in the second from the last to the first, and so on;
/// within a turn the points go the same way. So the trials of a point are spread over all the time that there is, and
/// what drifts meanwhile is in what they differ by; a drift at a steady pace weighs on all alike after each second
/// round.
pub(super) fn turns<'a>(
    interleave: Interleave,
    deployments: &'a [DeploymentPlan],
    points: &'a [PointPlan],
    searches: &'a [SearchPlan],
) -> Vec<Turn<'a>> {
    let all: Vec<Turn<'a>> = match interleave {
        Interleave::Points => {
            let whole = |d: &'a DeploymentPlan| {
                let rounds = (0..rounds(points)).flat_map(|round| of_round(round, d, points));
                Turn { deployment: d, trials: rounds.collect(), searches: false }
            };
            deployments.iter().map(whole).collect()
        }
        Interleave::Deployments | Interleave::BringUps => {
            let round = |round| {
                let turn = move |d| Turn {
                    deployment: d,
                    trials: of_round(round, d, points),
                    searches: false,
                };
                there_and_back(round, deployments.iter()).map(turn)
            };
            (0..rounds(points)).flat_map(round).collect()
        }
    };
    let mut turns: Vec<Turn<'a>> = Vec::new();
    for turn in all.into_iter().filter(|turn| !turn.trials.is_empty()) {
        let before = turns.last_mut().filter(|t| t.deployment.name == turn.deployment.name);
        match before.filter(|_| interleave != Interleave::BringUps) {
            Some(before) => before.trials.extend(turn.trials),
            None => turns.push(turn),
        }
    }
    searched(turns, deployments, searches)
}

fn rounds(points: &[PointPlan]) -> usize {
    points.iter().map(|p| p.trials.len()).max().unwrap_or(0)
}

/// The trial of that round of each point of `deployment` that has one.
fn of_round<'a>(
    round: usize,
    deployment: &DeploymentPlan,
    points: &'a [PointPlan],
) -> Vec<(&'a PointPlan, &'a TrialPlan)> {
    let own = points.iter().filter(|p| p.deployment == deployment.name);
    there_and_back(round, own).filter_map(|p| Some((p, p.trials.get(round)?))).collect()
}

/// From the first to the last, or in each second round from the last to the first.
fn there_and_back<T>(round: usize, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut all: Vec<T> = all.collect();
    if round % 2 == 1 {
        all.reverse();
    }
    all.into_iter()
}

/// `turns` with the searches: each deployment's in its last turn, and one that has no other turn has one for them, at
/// its place among the others of the plan as far as these are in its order.
fn searched<'a>(
    mut turns: Vec<Turn<'a>>,
    deployments: &'a [DeploymentPlan],
    searches: &[SearchPlan],
) -> Vec<Turn<'a>> {
    let mut next = 0;
    for deployment in deployments {
        let is_own = |turn: &Turn<'_>| turn.deployment.name == deployment.name;
        let is_searched = searches.iter().any(|s| s.deployment == deployment.name);
        match turns.iter().rposition(is_own) {
            Some(last) => turns[last].searches = is_searched,
            None if is_searched => {
                turns.insert(next, Turn { deployment, trials: Vec::new(), searches: true });
            }
            None => {}
        }
        next = turns.iter().position(is_own).map_or(next, |first| first + 1);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{deployment, plan, point_plan};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn of(interleave: Interleave, points: Vec<PointPlan>) -> Plan {
        let mut names: Vec<&str> = points.iter().map(|p| p.deployment.as_str()).collect();
        names.dedup();
        let deployments = names.into_iter().map(|name| deployment(name, 1)).collect();
        let mut plan = plan(deployments);
        (plan.points, plan.interleave) = (points, interleave);
        plan
    }

    fn in_turn(plan: &Plan) -> Vec<(&PointPlan, &TrialPlan)> {
        plan.turns().into_iter().flat_map(|turn| turn.trials).collect()
    }

    /// `a: c1.1 c2.1`
    fn told(plan: &Plan) -> Vec<String> {
        let one = |(p, t): &(&PointPlan, &TrialPlan)| format!("{}.{}", p.level.label, t.number);
        let turn = |turn: Turn<'_>| {
            let trials: Vec<String> = turn.trials.iter().map(one).collect();
            format!("{}: {}", turn.deployment.name, trials.join(" "))
        };
        plan.turns().into_iter().map(turn).collect()
    }

    #[test]
    fn each_point_has_its_turn_once_a_round_and_every_second_round_goes_back() {
        let points = vec![point_plan("a", 1, 3), point_plan("a", 2, 3), point_plan("a", 4, 2)];
        let plan = of(Interleave::Points, points);
        assert_eq!(told(&plan), ["a: c1.1 c2.1 c4.1 c4.2 c2.2 c1.2 c1.3 c2.3"]);
    }

    #[test]
    fn a_deployment_has_one_turn_unless_the_file_says_otherwise() {
        let points = vec![point_plan("a", 1, 2), point_plan("b", 1, 2)];
        let plan = of(Interleave::Points, points);
        assert_eq!(told(&plan), ["a: c1.1 c1.2", "b: c1.1 c1.2"]);
    }

    #[test]
    fn rounds_go_there_and_back_and_who_is_up_stays_up() {
        let points = |n| ["a", "b", "c"].map(|name| point_plan(name, 1, n)).to_vec();
        let plan = of(Interleave::Deployments, points(3));
        assert_eq!(
            told(&plan),
            ["a: c1.1", "b: c1.1", "c: c1.1 c1.2", "b: c1.2", "a: c1.2 c1.3", "b: c1.3", "c: c1.3"]
        );
        let plan = of(Interleave::BringUps, points(2));
        let each = ["a: c1.1", "b: c1.1", "c: c1.1", "c: c1.2", "b: c1.2", "a: c1.2"];
        assert_eq!(told(&plan), each);
    }

    #[test]
    fn a_deployment_of_fewer_repeats_has_fewer_turns() {
        let points = vec![point_plan("a", 1, 3), point_plan("b", 1, 1)];
        let plan = of(Interleave::Deployments, points);
        assert_eq!(told(&plan), ["a: c1.1", "b: c1.1", "a: c1.2 c1.3"]);
    }

    #[test]
    fn searches_come_in_the_last_turn_and_one_alone_keeps_its_place() {
        let slo = crate::slo::Slo::parse(&["tpot.p50 <= 1s".to_owned()]).unwrap();
        let search = |name: &str| SearchPlan {
            deployment: name.into(),
            load: "search".into(),
            slo: slo.clone(),
            precision: 1.0,
            tries: 1,
            probes: 1,
            time: None,
            levels: vec![],
        };
        let points = vec![point_plan("a", 1, 2), point_plan("c", 1, 2)];
        let mut plan = of(Interleave::Deployments, points);
        plan.deployments.insert(1, deployment("b", 1));
        plan.searches = ["a", "b", "c"].map(search).to_vec();
        let searched = |plan: &Plan| -> Vec<(String, bool)> {
            let turns = plan.turns().into_iter();
            turns.map(|turn| (turn.deployment.name.clone(), turn.searches)).collect()
        };
        let want = |of: &[(&str, bool)]| -> Vec<(String, bool)> {
            of.iter().map(|(name, is)| ((*name).to_owned(), *is)).collect()
        };
        let rounds = want(&[("a", false), ("b", true), ("c", true), ("a", true)]);
        assert_eq!(searched(&plan), rounds);
        plan.interleave = Interleave::Points;
        assert_eq!(searched(&plan), want(&[("a", true), ("b", true), ("c", true)]));
    }

    proptest! {
        /// Each trial of each point has its turn once, rounds follow each other, and where one round ends the next
        /// begins.
        #[test]
        fn every_trial_has_one_turn(
            shape in prop::collection::vec((0_usize..4, 1_u32..5), 1..8),
            interleave in prop::sample::select(vec![
                Interleave::Points, Interleave::Deployments, Interleave::BringUps,
            ]),
        ) {
            let names = ["a", "b", "c", "d"];
            let mut points: Vec<PointPlan> = Vec::new();
            for (name, (level, (_, repeats))) in
                shape.iter().map(|(d, _)| names[*d]).zip((1..).zip(&shape))
            {
                points.push(point_plan(name, level, *repeats));
            }
            points.sort_by(|a, b| a.deployment.cmp(&b.deployment));
            let plan = of(interleave, points);
            let turns = plan.turns();
            let all: Vec<(&str, u32)> =
                in_turn(&plan).iter().map(|(p, t)| (p.id.as_str(), t.number)).collect();
            let once: BTreeSet<_> = all.iter().collect();
            let asked: usize = plan.points.iter().map(|p| p.trials.len()).sum();
            prop_assert_eq!((all.len(), once.len()), (asked, asked));
            for point in &plan.points {
                let own = all.iter().filter(|(id, _)| *id == point.id).map(|(_, n)| *n);
                prop_assert!(own.eq(1..=u32::try_from(point.trials.len()).unwrap()));
            }
            let neighbours = turns.windows(2).filter(|w| w[0].deployment.name == w[1].deployment.name);
            let is_fresh = interleave == Interleave::BringUps;
            prop_assert!(is_fresh || neighbours.count() == 0, "who is up stays up");
            let rounds_of = |turn: &Turn<'_>| -> Vec<u32> {
                turn.trials.iter().map(|(_, t)| t.number).collect()
            };
            if interleave == Interleave::Points {
                prop_assert!(turns.len() <= plan.deployments.len());
            } else {
                let numbers: Vec<u32> = turns.iter().flat_map(rounds_of).collect();
                prop_assert!(numbers.is_sorted(), "one round after the other: {numbers:?}");
            }
            let of_one_round = |turn: &Turn<'_>| rounds_of(turn).windows(2).all(|w| w[0] == w[1]);
            prop_assert!(!is_fresh || turns.iter().all(of_one_round), "a bring-up is of one round");
            // With as many repeats everywhere, whoever ends a round begins the next.
            let repeats: BTreeSet<usize> = plan.points.iter().map(|p| p.trials.len()).collect();
            if interleave != Interleave::Points && repeats.len() == 1 {
                let of_round = |n: u32| {
                    let own = in_turn(&plan).into_iter().filter(move |(_, t)| t.number == n);
                    own.map(|(p, _)| p.id.clone()).collect::<Vec<_>>()
                };
                let last = u32::try_from(*repeats.first().unwrap()).unwrap();
                for n in 1..last {
                    let mut back = of_round(n);
                    back.reverse();
                    prop_assert_eq!(back, of_round(n + 1));
                }
            }
        }
    }
}
