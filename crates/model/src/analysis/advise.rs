//! Which measured deployment carries an asked load within an objective for the least money, and how sure that is.
//!
//! Of each deployment: the highest level that was measured and met the objective, the copies that carry what is asked
//! with head-room, and what they cost. Nothing between levels is guessed, and nothing above the highest.
//!
//! **Invariants:** a point that is not to be trusted never carries an answer, and is named. What has no price is
//! ranked after what has one. The order in which runs are given changes nothing.

use super::versus::provenance;
use super::versus::{Contender, Difference};
use crate::cost::{Prices, Terms};
use crate::slo::Slo;
use crate::units::Nanos;
use serde::Serialize;

mod choice;
mod copies;
mod form;
mod levels;
mod next;
mod rank;

use choice::Weighed;
pub use form::{
    Advice, BreakEven, Ceiling, Choice, MeasuredCopies, Met, Moved, Next, NotTrusted, PerMtok,
    PowerUse, Shift, Unfit,
};
use levels::Ladder;

/// Version of the form of `advise --json`.
pub const ADVICE_FORMAT: u32 = 1;

/// What is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "unit", content = "value", rename_all = "snake_case")]
pub enum Demand {
    /// Requests a second.
    Rps(f64),
    /// Users that each have one request in flight at all times.
    Users(f64),
}

impl Demand {
    /// The number, in its unit.
    pub const fn value(self) -> f64 {
        match self {
            Self::Rps(n) | Self::Users(n) => n,
        }
    }

    /// The unit in words.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rps(_) => "req/s",
            Self::Users(_) => "users",
        }
    }

    const fn times(self, factor: f64) -> Self {
        match self {
            Self::Rps(n) => Self::Rps(n * factor),
            Self::Users(n) => Self::Users(n * factor),
        }
    }
}

/// A deployment that was measured.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// It, and its run.
    pub contender: Contender<'a>,
    /// From its start to its first answer in that run, where that was kept.
    pub bring_up: Option<Nanos>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What must be met.
    pub slo: &'a Slo,
    /// What is to be carried.
    pub demand: Demand,
    /// So much more is to be carried than is asked: 0.2 is 20 %.
    pub headroom: f64,
    /// The share of what a copy can carry at which tokens are priced besides.
    pub utilisation: Option<f64>,
    /// The terms of prices; default: those of the table.
    pub terms: Option<Terms>,
    /// Prices that go before those of the runs.
    pub prices: Option<&'a Prices>,
    /// Loads that are looked at; empty for all.
    pub loads: &'a [String],
    /// Look at what was not asked the same, too.
    pub force: bool,
}

/// Why there is no advice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAdvice {
    /// Deployments were not asked the same.
    #[error("{} and {} were not asked the same: {}", .names.0, .names.1, super::versus::listed(.unlike))]
    Unlike {
        /// Their names.
        names: (String, String),
        /// In what.
        unlike: Vec<Difference>,
    },
    /// Loads ask different things, and one advice is about one of them.
    #[error("{name} was measured under several workloads: {}", .loads.join(", "))]
    SeveralWorkloads {
        /// Deployment.
        name: String,
        /// `load (workload)`.
        loads: Vec<String>,
    },
    /// Prices are in several currencies.
    #[error("prices are in {}, and none of them can be held against another", .names.join(" and "))]
    SeveralCurrencies {
        /// Their names.
        names: Vec<String>,
    },
    /// No point is there.
    #[error("nothing was measured of {}", .names.join(", "))]
    NothingMeasured {
        /// The deployments.
        names: Vec<String>,
    },
}

/// The advice.
///
/// # Errors
/// Where nothing was measured, or not the same was asked of all and it is not forced.
pub fn advise(candidates: &[Candidate<'_>], asked: &Asked<'_>) -> Result<Advice, NoAdvice> {
    let mut ladders: Vec<Ladder<'_>> = Vec::new();
    for candidate in in_order(candidates) {
        ladders.push(Ladder::of(candidate, name(candidate, candidates), asked)?);
    }
    if ladders.iter().all(|l| l.levels.is_empty()) {
        let names = ladders.into_iter().map(|l| l.name).collect();
        return Err(NoAdvice::NothingMeasured { names });
    }
    let unlike = unlike(&ladders, asked.force)?;
    let mut weighed: Vec<Weighed<'_>> = Vec::new();
    let mut unfit = Vec::new();
    for ladder in &ladders {
        match Weighed::of(ladder, asked) {
            Ok(one) => weighed.push(one),
            Err(why) => unfit.push(why.unfit(&ladder.name)),
        }
    }
    let currency =
        choice::currency(&weighed).map_err(|names| NoAdvice::SeveralCurrencies { names })?;
    rank::sort(&mut weighed, asked.demand);
    let seen: Vec<_> = weighed.iter().map(|w| copies::measured(w, &weighed)).collect();
    for (one, seen) in weighed.iter_mut().zip(seen) {
        one.choice.measured_copies = seen;
    }
    let (alike, break_even, shifts) =
        (rank::alike(&weighed), rank::break_even(&weighed, asked), rank::shifts(&weighed, asked));
    Ok(Advice {
        format: ADVICE_FORMAT,
        slo: asked.slo.to_string(),
        demand: asked.demand,
        headroom: asked.headroom,
        utilisation: asked.utilisation,
        currency,
        not_trusted: ladders
            .iter()
            .flat_map(|l| l.not_trusted(|c| might_win(l, c, &weighed, asked)))
            .collect(),
        next: next::next(&weighed, &alike, asked.slo),
        choices: weighed.into_iter().map(|w| w.choice).collect(),
        alike,
        unfit,
        break_even,
        shifts,
        unlike,
    })
}

/// Whether a deployment might come first if one copy of it carried so much: it is first already, or would cost less
/// than what is; and whatever has no cost might.
fn might_win(
    ladder: &Ladder<'_>,
    carried: f64,
    weighed: &[Weighed<'_>],
    asked: &Asked<'_>,
) -> bool {
    let own = weighed.iter().find(|w| w.choice.name == ladder.name);
    let (Some(own), Some(first)) = (own, weighed.first()) else { return true };
    let would_cost = own.cost_if_it_carried(carried / (1.0 + asked.headroom), asked.demand);
    match (would_cost, first.cost(asked.demand, 1.0, 1.0)) {
        (Some(would), Some(least)) => own.choice.name == first.choice.name || would < least,
        _ => true,
    }
}

/// Each once, by run and name.
fn in_order<'a, 'b>(candidates: &'b [Candidate<'a>]) -> Vec<&'b Candidate<'a>> {
    let key = |c: &&Candidate<'a>| {
        let c = &c.contender;
        (c.results.run.as_str(), c.deployment)
    };
    let mut out: Vec<&Candidate<'a>> = candidates.iter().collect();
    out.sort_by(|a, b| key(a).cmp(&key(b)));
    out.dedup_by(|a, b| key(a) == key(b));
    out
}

fn name(of: &Candidate<'_>, all: &[Candidate<'_>]) -> String {
    let of = &of.contender;
    let is_other = |c: &Candidate<'_>| {
        c.contender.deployment == of.deployment && c.contender.results.run != of.results.run
    };
    match all.iter().any(is_other) {
        true => format!("{}:{}", of.results.run, of.deployment),
        false => of.deployment.to_owned(),
    }
}

/// What was not asked the same of all as of the first.
fn unlike(ladders: &[Ladder<'_>], force: bool) -> Result<Vec<Difference>, NoAdvice> {
    let mut measured = ladders.iter().filter_map(|l| Some((l, l.levels.first()?)));
    let Some((first, its)) = measured.next() else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (other, level) in measured {
        let mut unlike = provenance::unlike(first.contender(), other.contender());
        unlike.extend(provenance::unlike_requests(&its.side, &level.side));
        if !unlike.is_empty() && !force {
            let names = (first.name.clone(), other.name.clone());
            return Err(NoAdvice::Unlike { names, unlike });
        }
        all.extend(unlike);
    }
    Ok(all)
}
