//! What advice says, field for field: the form of `advise --json`.

use super::Demand;
use crate::analysis::versus::Difference;
use crate::results::Estimate;
use crate::trust::TrustLevel;
use serde::Serialize;

/// The level that an answer rests on.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Met {
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// Requests a second that were completed there.
    pub rps: Estimate,
    /// Requests in flight there.
    pub users: f64,
    /// Chance does not explain that it met the objective, at 95 %.
    pub sure: bool,
    /// How far its numbers can be relied on.
    pub trust: TrustLevel,
    /// Codes of what speaks against them.
    pub codes: Vec<String>,
    /// Trials of it.
    pub trials: usize,
}

/// A level that did not meet the objective.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Ceiling {
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// Chance does not explain that it missed, at 95 %.
    pub sure: bool,
}

/// What a million tokens cost: all of the cost over one sort of them, and not a part of it beside another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct PerMtok {
    /// Prompt tokens.
    pub input: Option<f64>,
    /// Output tokens.
    pub output: Option<f64>,
    /// Both.
    pub total: Option<f64>,
}

/// Power of the copies, all at the level that they were measured at.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct PowerUse {
    /// Of all copies.
    pub power_w: f64,
    /// Machines around the GPUs are in it.
    pub with_hosts: bool,
    /// Joules an output token.
    pub joules_per_output_token: Option<f64>,
    /// What it costs an hour, where power has a price.
    pub cost_per_hour: Option<f64>,
    /// That is in the cost of the choice. It is not where machines are rented.
    pub is_in_cost: bool,
}

/// A deployment that meets the objective, in as many copies as carry what is asked.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Choice {
    /// Deployment, with its run where several have that name.
    pub name: String,
    /// Run id.
    pub run: String,
    /// Deployment name.
    pub deployment: String,
    /// The highest level that met the objective.
    pub at: Met,
    /// The next level of that load that did not; absent where none was measured.
    pub ceiling: Option<Ceiling>,
    /// What the run's own search said of this objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Copies of what was measured.
    pub copies: u32,
    /// What copies lose to each other, where that can be seen: another deployment is several of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_copies: Option<MeasuredCopies>,
    /// Instances in one copy.
    pub instances: u32,
    /// GPUs of all copies; zero where they are not known.
    pub gpus: u32,
    /// The fewest machines that all copies have room on; zero where they are not known.
    pub nodes: u32,
    /// What is asked / what the copies carried when measured.
    pub utilisation: f64,
    /// All copies an hour, with the range that the interval of `at.rps` leaves.
    pub cost_per_hour: Option<Estimate>,
    /// What the price is made of.
    pub priced_by: Option<String>,
    /// Why there is no cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cost: Option<String>,
    /// Of a million tokens with each copy at the level that it was measured at.
    pub mtok_at_slo: PerMtok,
    /// At what is asked.
    pub mtok_at_demand: PerMtok,
    /// At the utilisation that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtok_at_utilisation: Option<PerMtok>,
    /// Absent where power was not read.
    pub power: Option<PowerUse>,
    /// Share of requests that wait for a cold start, where copies are only up when asked; the objective was measured
    /// without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_share: Option<f64>,
    /// Levels of its load below `at` that did not meet the objective.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed_below: Vec<String>,
    /// What its price does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_note: Option<String>,
}

/// A measured deployment that is several of another by engine and shape.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct MeasuredCopies {
    /// It.
    pub name: String,
    /// It has so many times the instances.
    pub times: f64,
    /// It carried so many times as much within the objective.
    pub carried: f64,
    /// Where it did, and where the other: load and level.
    pub at: [String; 2],
}

/// A deployment that cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unfit {
    /// Deployment, with its run where several have that name.
    pub name: String,
    /// Why.
    pub why: String,
    /// It meets the objective, by more copies than are a plan.
    #[serde(skip)]
    pub needs_too_many: bool,
}

/// A point that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct NotTrusted {
    /// Deployment, with its run where several have that name.
    pub name: String,
    /// `load/level`.
    pub point: String,
    /// Codes of the reasons.
    pub codes: Vec<String>,
    /// Were it trusted, its deployment would carry more, and might be the answer.
    pub would_count: bool,
}

/// Rates, or users, beyond which another deployment is cheaper than the chosen one.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct BreakEven {
    /// The other.
    pub other: String,
    /// Below this it is cheaper; absent where it is not, down to a hundredth of what is asked.
    pub below: Option<f64>,
    /// Above this it is cheaper; absent where it is not, up to ten times what is asked.
    pub above: Option<f64>,
}

/// What is moved to see whether the choice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// The price of the choice alone.
    Price,
    /// The price of power.
    Power,
    /// What is asked.
    Load,
}

/// The choice after something was moved.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Shift {
    /// What.
    pub moved: Moved,
    /// By which factor.
    pub factor: f64,
    /// The choice then.
    pub best: String,
    /// It is another.
    pub changes: bool,
}

/// What to measure to be surer.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Next {
    /// A level between the one that met the objective and the one that did not.
    Between {
        /// Deployment.
        name: String,
        /// Load.
        load: String,
        /// Met.
        met: String,
        /// Missed.
        missed: String,
        /// The level half way: their geometric mean.
        try_at: f64,
    },
    /// A higher level: none missed.
    Higher {
        /// Deployment.
        name: String,
        /// Load.
        load: String,
        /// The highest that was measured.
        level: String,
    },
    /// More requests at a level whose verdict chance may explain.
    Requests {
        /// Deployment.
        name: String,
        /// Load.
        load: String,
        /// Level.
        level: String,
        /// The fewest that can be sure, all of them good; absent where no number can.
        fewest: Option<u64>,
    },
    /// As many copies as are advised.
    Copies {
        /// Deployment.
        name: String,
        /// Copies.
        copies: u32,
    },
    /// Repeats of the choice and of one whose cost cannot be told from it.
    RunnerUp {
        /// The choice.
        name: String,
        /// The other.
        other: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Advice {
    /// Version of the form.
    pub format: u32,
    /// What must be met, in words.
    pub slo: String,
    /// What is to be carried.
    pub demand: Demand,
    /// So much more is to be carried than is asked.
    pub headroom: f64,
    /// The share at which tokens are priced besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// What the prices are in.
    pub currency: Option<String>,
    /// The least cost first; those without a cost by their GPUs, after all that have one.
    pub choices: Vec<Choice>,
    /// Others whose cost cannot be told from that of the first.
    pub alike: Vec<String>,
    /// Deployments that cannot be chosen.
    pub unfit: Vec<Unfit>,
    /// Points that are left out.
    pub not_trusted: Vec<NotTrusted>,
    /// The first against each other that has a cost.
    pub break_even: Vec<BreakEven>,
    /// Whether the first stays the first.
    pub shifts: Vec<Shift>,
    /// What to measure to be surer.
    pub next: Vec<Next>,
    /// What was not asked the same; only where it was forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlike: Vec<Difference>,
}

impl Advice {
    /// The JSON schema of the form.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// What to run.
    pub fn best(&self) -> Option<&Choice> {
        self.choices.first()
    }

    /// Whether it might be another, were points trusted that are not.
    pub fn hangs_on_what_is_not_trusted(&self) -> bool {
        self.not_trusted.iter().any(|p| p.would_count)
    }
}
