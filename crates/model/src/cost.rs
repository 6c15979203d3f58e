//! What deployments cost: prices that the user gives, and what follows from them.
//!
//! **Invariants:** nothing has a price that nobody gave: what has none has no cost, and a reason. Rent holds the
//! power of what is rented. Power is added to what is owned, and to nothing else.

use crate::plan::Platform;
use crate::spec::values::Dur;
use crate::spec::{Diagnostics, Problem, diagnostic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod fleet;
mod rent;

pub use fleet::{Bill, MOST_COPIES, Machines, OnlyWhenAsked, Uptime, per_mtok};
pub use rent::{Metered, Rent, Taken};

/// On which terms something is had.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// Rented by the hour.
    #[default]
    OnDemand,
    /// Rented for a long time ahead.
    Reserved,
    /// Rented until somebody pays more.
    Spot,
    /// Bought: what was paid, and the room, by the hour; its power is added.
    Owned,
}

impl Terms {
    /// The name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on_demand",
            Self::Reserved => "reserved",
            Self::Spot => "spot",
            Self::Owned => "owned",
        }
    }
}

/// An amount for each of the terms that it can be had on.
pub type ByTerms = BTreeMap<Terms, f64>;

/// Prices, all in one currency: `[prices]` of an experiment file, or a file of their own with the same keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// What reports call the currency, as `USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The terms that costs are at where no others are asked for; default `on_demand`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Terms>,
    /// Of a GPU per hour, by its kind as in `[host.X] gpu`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu: BTreeMap<String, ByTerms>,
    /// Of a whole machine per hour, by its name. Goes before the price of its GPUs. Copies of a deployment share one
    /// where they have room on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host: BTreeMap<String, ByTerms>,
    /// Of platforms that bill what is up by the second, as `modal`. Goes before both.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_second: BTreeMap<Platform, PerSecond>,
    /// Of power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
}

/// What a platform takes for each second in which an instance is up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerSecond {
    /// Of a GPU per second, by its kind as in `gpu` of the deployment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu: BTreeMap<String, f64>,
    /// Of an instance per second, for what is beside its GPUs; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<f64>,
    /// From nothing to the first answer; billed too. Default: what the bring-up of the run took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<Dur>,
    /// How long an idle instance stays up, and is billed; default: `scaledown` in `params` of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaledown: Option<Dur>,
}

/// The price of power.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Of a kilowatt-hour.
    pub per_kwh: f64,
    /// Power usage effectiveness: what the building takes / what its machines take; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pue: Option<f64>,
}

impl Power {
    /// Of machines that take `power_w` for an hour: kW x pue x price of a kilowatt-hour.
    pub fn per_hour(&self, power_w: f64) -> f64 {
        power_w / 1e3 * self.pue.unwrap_or(1.0) * self.per_kwh
    }
}

impl Prices {
    /// Reads a file of prices.
    ///
    /// # Errors
    /// Every problem that was found, each with its place in the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        let prices: Self = toml::from_str(text)
            .map_err(|e| Diagnostics::one(diagnostic::from_toml(text, file, &e)))?;
        let problems = prices.check("");
        if problems.is_empty() {
            Ok(prices)
        } else {
            Err(Diagnostics::locate(text, file, problems))
        }
    }

    /// The terms that costs are at where no others are asked for.
    pub fn terms(&self) -> Terms {
        self.plan.unwrap_or_default()
    }

    /// What is wrong, by key below `table`, which is empty or ends with a dot.
    pub fn check(&self, table: &str) -> Vec<Problem> {
        let mut out = Vec::new();
        for (what, priced) in [("gpu", &self.gpu), ("host", &self.host)] {
            for (name, by_terms) in priced {
                let path = format!("{table}{what}.{name}");
                if by_terms.is_empty() {
                    let hint = "write for example on_demand = 3.9";
                    out.push(Problem::new(&path, "it has no price", hint));
                }
                for (terms, price) in by_terms {
                    amount(format!("{path}.{}", terms.name()), *price, &mut out);
                }
            }
        }
        for (platform, per_second) in &self.per_second {
            let path = format!("{table}per_second.{}", platform.name());
            if per_second.gpu.is_empty() && per_second.instance.is_none() {
                let hint = "write for example gpu = { H100 = 0.0011 }, the price of a second";
                out.push(Problem::new(&path, "it has no price", hint));
            }
            for (kind, price) in &per_second.gpu {
                amount(format!("{path}.gpu.{kind}"), *price, &mut out);
            }
            if let Some(price) = per_second.instance {
                amount(format!("{path}.instance"), price, &mut out);
            }
        }
        if let Some(power) = self.power {
            amount(format!("{table}power.per_kwh"), power.per_kwh, &mut out);
            if power.pue.is_some_and(|pue| !(1.0..10.0).contains(&pue)) {
                let why = "a building takes at least what its machines take";
                let hint = "write for example pue = 1.3, or leave it out for 1";
                out.push(Problem::new(format!("{table}power.pue"), why, hint));
            }
        }
        out
    }
}

/// No GPU, machine or kilowatt-hour costs more in any currency; from here on sums are no prices any more.
const DEAREST: f64 = 1e9;

/// A problem where `price` is none.
pub(crate) fn amount(path: String, price: f64, problems: &mut Vec<Problem>) {
    if !(0.0..=DEAREST).contains(&price) {
        let why = "a price is a number from 0 on, at most 1000000000";
        problems.push(Problem::new(path, why, "all prices are in one currency"));
    }
}

#[cfg(test)]
mod tests;
