//! The cost guard: what a run may take, and what it has taken.
//!
//! **Invariants.** Time is counted while a deployment is up, from the first act of its bring-up to the end
//! of its teardown: that is what is paid for. A cost is known only where everything that was up has a
//! price. A limit that is reached stays reached.

use crate::plan::{DeploymentPlan, Estimate, PlanNote};
use crate::spec::Problem;
use crate::units::{Nanos, significant};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a run may take before it is stopped; each session of a resumed run has it anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Limit {
    /// Time that deployments may be up, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Nanos>,
    /// Cost of that time at `price_per_hour`, in the currency of the prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<f64>,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reached {
    /// Of time.
    Wall(Nanos),
    /// Of cost.
    Spend(f64),
}

/// In the words of the file.
impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wall(wall) => write!(f, "limit.wall = {wall}"),
            Self::Spend(spend) => write!(f, "limit.spend = {}", significant(*spend)),
        }
    }
}

impl Limit {
    /// Whether nothing is limited.
    pub const fn is_none(&self) -> bool {
        self.wall.is_none() && self.spend.is_none()
    }

    /// What is wrong with it by itself, by key of the file.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.wall == Some(Nanos::ZERO) {
            let hint = "give the time that deployments may be up, as \"2h\"";
            problems.push(Problem::new("limit.wall", "a limit of no time", hint));
        }
        if self.spend.is_some_and(|s| !s.is_finite() || s <= 0.0) {
            let hint = "give an amount in the currency of price_per_hour";
            problems.push(Problem::new("limit.spend", "a limit must be above zero", hint));
        }
        if self.is_none() {
            let hint = "add wall = \"2h\", or spend = 40.0 where prices are given";
            problems.push(Problem::new("limit", "nothing is limited here", hint));
        }
        problems
    }

    /// A cost cannot be limited where one of `deployments` has no price.
    pub fn unpriced(&self, deployments: &[DeploymentPlan]) -> Option<Problem> {
        let unpriced = deployments.iter().filter(|d| d.price_per_hour.is_none());
        let names: Vec<&str> = unpriced.map(|d| d.name.as_str()).collect();
        (self.spend.is_some() && !names.is_empty()).then(|| {
            let message = format!("no price is known of {}", names.join(", "));
            let hint = "give price_per_hour of the deployment, or of every host it is on, or [prices] of \
                        its GPUs; 0.0 where it costs nothing";
            Problem::new("limit.spend", message, hint)
        })
    }

    /// What `estimate` is above of. An estimate is rough, so this is told and nothing is refused.
    pub fn beyond(&self, estimate: &Estimate) -> Vec<PlanNote> {
        let hint = "raise it, or measure less: --deploy and --load choose a part; what is missing then can \
                    be measured by run --resume";
        let note = |reached: Reached, estimated: String| PlanNote {
            path: match reached {
                Reached::Wall(_) => "limit.wall".to_owned(),
                Reached::Spend(_) => "limit.spend".to_owned(),
            },
            message: format!(
                "the run is expected to be stopped before its end: about {estimated} of {reached}"
            ),
            hint: hint.to_owned(),
        };
        let wall = self.wall.filter(|w| estimate.wall > *w);
        let spend = self.spend.zip(estimate.cost).filter(|(limit, cost)| cost > limit);
        let wall = wall.map(|w| note(Reached::Wall(w), estimate.wall.to_string()));
        let spend = spend.map(|(s, cost)| note(Reached::Spend(s), significant(cost)));
        wall.into_iter().chain(spend).collect()
    }
}

/// What deployments have taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Time that they were up.
    pub up: Nanos,
    /// What that cost, where all of them have a price.
    pub cost: Option<f64>,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} up", self.up)?;
        match self.cost {
            Some(cost) => write!(f, ", which cost about {}", significant(cost)),
            None => Ok(()),
        }
    }
}

/// A deployment that is up.
#[derive(Debug, Clone, Copy)]
struct Up {
    since: Nanos,
    price_per_hour: Option<f64>,
}

/// Counts what is spent, and says when a limit is reached.
#[derive(Debug)]
pub struct Meter {
    limit: Limit,
    /// By deployments that are gone.
    gone: Spent,
    up: Option<Up>,
}

impl Meter {
    /// Nothing is spent yet.
    pub const fn new(limit: Limit) -> Self {
        Self { limit, gone: Spent { up: Nanos::ZERO, cost: Some(0.0) }, up: None }
    }

    /// A deployment begins to come up. One that was up until now is gone.
    pub fn begin(&mut self, now: Nanos, price_per_hour: Option<f64>) {
        self.end(now);
        self.up = Some(Up { since: now, price_per_hour });
    }

    /// What was up is gone.
    pub fn end(&mut self, now: Nanos) {
        self.gone = self.spent(now);
        self.up = None;
    }

    /// What is spent by now.
    pub fn spent(&self, now: Nanos) -> Spent {
        let Some(up) = self.up else { return self.gone };
        let span = now.since(up.since);
        let cost = |price: f64| price * span.as_secs_f64() / 3_600.0;
        Spent {
            up: self.gone.up + span,
            cost: self.gone.cost.zip(up.price_per_hour).map(|(gone, price)| gone + cost(price)),
        }
    }

    /// The limit that is reached by now, time before cost.
    pub fn reached(&self, now: Nanos) -> Option<Reached> {
        let spent = self.spent(now);
        let wall = self.limit.wall.filter(|limit| spent.up >= *limit).map(Reached::Wall);
        let spend = self.limit.spend.zip(spent.cost).filter(|(limit, cost)| cost >= limit);
        wall.or(spend.map(|(limit, _)| Reached::Spend(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Nanos = Nanos::from_secs(3_600);

    fn estimate(wall: Nanos, cost: Option<f64>) -> Estimate {
        Estimate { wall, cost, basis: String::new() }
    }

    #[test]
    fn time_is_counted_while_something_is_up() {
        let mut meter = Meter::new(Limit { wall: Some(HOUR), spend: None });
        assert_eq!(meter.reached(Nanos::MAX), None, "nothing was up yet");
        meter.begin(HOUR, None);
        let half = Nanos::from_secs(1_800);
        assert_eq!(meter.spent(HOUR + half).up, half);
        meter.end(HOUR + half);
        assert_eq!(meter.reached(Nanos::MAX), None, "half an hour was up");
        meter.begin(Nanos::from_secs(36_000), None);
        let end = Nanos::from_secs(36_000) + half;
        assert_eq!(meter.reached(end - Nanos(1)), None);
        assert_eq!(meter.reached(end), Some(Reached::Wall(HOUR)));
        meter.end(end);
        assert_eq!(meter.reached(end), Some(Reached::Wall(HOUR)), "it stays reached");
    }

    #[test]
    fn cost_follows_the_price_of_what_is_up() {
        let mut meter = Meter::new(Limit { wall: None, spend: Some(30.0) });
        meter.begin(Nanos::ZERO, Some(20.0));
        meter.begin(HOUR, Some(40.0));
        let quarter = HOUR + Nanos::from_secs(900);
        assert_eq!(meter.spent(quarter - Nanos::from_secs(90)).cost, Some(29.0));
        assert_eq!(meter.reached(quarter), Some(Reached::Spend(30.0)));
        assert_eq!(meter.spent(quarter).to_string(), "1.25 h up, which cost about 30.0");
    }

    #[test]
    fn a_cost_without_a_price_is_not_known() {
        let mut meter = Meter::new(Limit { wall: None, spend: Some(1.0) });
        meter.begin(Nanos::ZERO, None);
        assert_eq!(meter.spent(HOUR), Spent { up: HOUR, cost: None });
        assert_eq!(meter.reached(HOUR), None);
        assert_eq!(meter.spent(HOUR).to_string(), "1.00 h up");
    }

    #[test]
    fn an_estimate_above_the_limit_is_told() {
        let limit = Limit { wall: Some(HOUR), spend: Some(10.0) };
        let told = |wall, cost| -> Vec<String> {
            let notes = limit.beyond(&estimate(wall, cost));
            notes.into_iter().map(|n| format!("{}: {}", n.path, n.message)).collect()
        };
        assert!(told(HOUR, Some(10.0)).is_empty());
        assert!(told(HOUR, None).is_empty(), "a cost that is not known is not above anything");
        let both = told(HOUR + HOUR, Some(12.5));
        assert_eq!(
            both,
            [
                "limit.wall: the run is expected to be stopped before its end: about 2.00 h of limit.wall = 1.00 h",
                "limit.spend: the run is expected to be stopped before its end: about 12.5 of limit.spend = 10.0",
            ]
        );
    }

    #[test]
    fn a_limit_limits_something() {
        let paths =
            |limit: Limit| -> Vec<String> { limit.check().into_iter().map(|p| p.path).collect() };
        assert_eq!(paths(Limit::default()), ["limit"]);
        let wrong = Limit { wall: Some(Nanos::ZERO), spend: Some(-1.0) };
        assert_eq!(paths(wrong), ["limit.wall", "limit.spend"]);
        assert!(paths(Limit { wall: Some(HOUR), spend: None }).is_empty());
    }
}
