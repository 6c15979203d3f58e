//! A deployment at the level that it is built on: its copies, and what they cost.

use super::levels::{Ladder, Level};
use super::{Asked, Choice, Demand, PerMtok, PowerUse, Unfit};
use crate::cost::{
    Bill, MOST_COPIES, Machines, OnlyWhenAsked, Power, Rent, Taken, Uptime, per_mtok,
};
use crate::distinct::distinct;
use crate::plan::DeploymentPlan;
use crate::results::Estimate;

/// A choice, and what its cost follows from.
pub(super) struct Weighed<'a> {
    pub(super) choice: Choice,
    pub(super) level: &'a Level<'a>,
    pub(super) ceiling: Option<&'a Level<'a>>,
    /// What one copy carries, in the unit of the demand, head-room taken off.
    pub(super) carries: f64,
    /// GPUs of one copy.
    pub(super) gpus: u32,
    /// Absent where there is no price.
    pub(super) priced: Option<Priced>,
    /// What its price is in, where that is named.
    pub(super) currency: Option<String>,
}

/// What one copy costs an hour while it is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Priced {
    pub(super) rent: f64,
    /// So many copies have what the rent is of.
    pub(super) shared_by: u32,
    /// Only where it is owned.
    pub(super) power: f64,
    pub(super) uptime: Uptime,
}

impl Priced {
    /// What copies that carry so much each cost an hour.
    fn cost(&self, carries: f64, demand: Demand) -> Option<f64> {
        self.bill(carries).cost_per_hour(demand.value())
    }

    pub(super) fn bill(&self, carries: f64) -> Bill {
        let machines = Machines { per_hour: self.rent, fits: self.shared_by };
        let is_shared = self.shared_by > 1;
        Bill {
            per_hour: self.power + if is_shared { 0.0 } else { self.rent },
            machines: is_shared.then_some(machines),
            carries_rps: carries,
            uptime: self.uptime,
        }
    }
}

/// Why a deployment cannot be chosen.
pub(super) enum Why {
    /// It would be more copies than are a plan.
    NeedsTooMany,
    /// Anything else, in words.
    Other(String),
}

impl From<String> for Why {
    fn from(words: String) -> Self {
        Self::Other(words)
    }
}

impl From<&str> for Why {
    fn from(words: &str) -> Self {
        Self::Other(words.to_owned())
    }
}

impl Why {
    pub(super) fn unfit(self, name: &str) -> Unfit {
        let needs_too_many = matches!(self, Self::NeedsTooMany);
        let why = match self {
            Self::NeedsTooMany => format!("more than {MOST_COPIES} copies of it would be needed"),
            Self::Other(words) => words,
        };
        Unfit { name: name.to_owned(), why, needs_too_many }
    }
}

/// A rent, what it does not say, and its currency where that is named.
struct Found {
    rent: Rent,
    note: Option<String>,
    currency: Option<String>,
}

impl<'a> Weighed<'a> {
    /// # Errors
    /// Why it cannot be chosen.
    pub(super) fn of(ladder: &'a Ladder<'a>, asked: &Asked<'_>) -> Result<Self, Why> {
        let level = ladder.best().ok_or_else(|| ladder.why_none(asked.slo))?;
        let (carried, at) = level.carried().zip(level.met()).ok_or("its rate is not known")?;
        let contender = ladder.contender();
        let deployment = contender.deployed().ok_or("its plan is not known")?;
        let taken = Taken::of(deployment, &contender.plan.hosts);
        let carries = carried.point / (1.0 + asked.headroom);
        let demand = asked.demand.value();
        let copies = unpriced(carries).copies(demand).ok_or(Why::NeedsTooMany)?;
        let found = rent(ladder, deployment, &taken, asked);
        let mut power = power(level, copies, price_of_power(ladder, asked));
        let priced = found.as_ref().map_err(Clone::clone);
        let priced = priced.and_then(|f| priced_at(&f.rent, ladder, level, &power, copies, asked));
        if let (Some(power), Ok(found), Ok(_)) = (&mut power, &found, &priced) {
            power.is_in_cost = found.rent.is_owned;
        }
        let currency = found.as_ref().ok().filter(|_| priced.is_ok());
        let currency = currency.and_then(|f| f.currency.clone());
        let mut choice = Choice {
            name: ladder.name.clone(),
            run: contender.results.run.clone(),
            deployment: contender.deployment.to_owned(),
            ceiling: ladder.ceiling(level).map(Level::as_ceiling),
            search: search(ladder, level, asked),
            copies,
            measured_copies: None,
            instances: taken.instances,
            gpus: deployment.gpus.saturating_mul(copies),
            nodes: taken.nodes(copies),
            utilisation: demand / (f64::from(copies) * carried.point),
            cost_per_hour: None,
            priced_by: found.as_ref().ok().map(|f| f.rent.by.clone()),
            no_cost: priced.as_ref().err().cloned(),
            mtok_at_slo: PerMtok::default(),
            mtok_at_demand: PerMtok::default(),
            mtok_at_utilisation: None,
            power,
            cold_share: None,
            missed_below: ladder.missed_below(level),
            price_note: found.ok().and_then(|f| f.note),
            at,
        };
        let priced = priced.ok();
        if let Some(priced) = &priced {
            add_costs(&mut choice, priced, &carried, level, asked);
        }
        let ceiling = ladder.ceiling(level);
        Ok(Self { choice, level, ceiling, carries, gpus: deployment.gpus, priced, currency })
    }

    /// What its copies cost an hour where the price, power and the demand are so many times what they are.
    pub(super) fn cost(&self, demand: Demand, price: f64, power: f64) -> Option<f64> {
        let own = self.priced?;
        let moved = Priced { rent: own.rent * price, power: own.power * power, ..own };
        moved.cost(self.carries, demand)
    }

    /// What its copies would cost an hour if one carried so much.
    pub(super) fn cost_if_it_carried(&self, carries: f64, demand: Demand) -> Option<f64> {
        self.priced?.cost(carries, demand)
    }

    /// GPUs of the copies that carry `demand`.
    pub(super) fn gpus(&self, demand: Demand) -> u64 {
        let copies = unpriced(self.carries).copies(demand.value()).unwrap_or(MOST_COPIES);
        u64::from(copies) * u64::from(self.gpus)
    }
}

/// Copies that nobody pays for.
const fn unpriced(carries_rps: f64) -> Bill {
    Bill { per_hour: 0.0, machines: None, carries_rps, uptime: Uptime::Always }
}

fn add_costs(
    choice: &mut Choice,
    priced: &Priced,
    carried: &Estimate,
    level: &Level<'_>,
    asked: &Asked<'_>,
) {
    let demand = asked.demand.value();
    let cost_where = |carried: f64| priced.cost(carried / (1.0 + asked.headroom), asked.demand);
    choice.cost_per_hour = cost_where(carried.point).map(|point| Estimate {
        point,
        // The more a copy carries, the fewer are needed.
        low: cost_where(carried.high).unwrap_or(point),
        high: cost_where(carried.low).unwrap_or(point),
        confidence: carried.confidence,
        method: format!("copies at the ends of the rate's interval: {}", carried.method),
    });
    let rps = choice.at.rps.point;
    // What a token costs is told of copies that leave no machine empty; what all of them cost is not.
    let one = priced.bill(carried.point).full();
    choice.mtok_at_slo = mtok(level, one.per_hour, rps);
    // Requests a second that the demand comes to.
    let rate = rps * demand / carried.point;
    if let Some(cost) = &choice.cost_per_hour {
        choice.mtok_at_demand = mtok(level, cost.point, rate);
    }
    let used =
        |share: f64| Some(mtok(level, one.cost_per_hour(share * carried.point)?, share * rps));
    choice.mtok_at_utilisation = asked.utilisation.and_then(used);
    if let Uptime::OnlyWhenAsked(only) = priced.uptime {
        let rest = demand - f64::from(choice.copies - 1) * carried.point / (1.0 + asked.headroom);
        let rest = rest.max(0.0);
        choice.cold_share = Some(only.share_cold(rest) * rest / demand);
    }
}

/// `per_hour` over what `rate_rps` requests of the level are made of.
fn mtok(level: &Level<'_>, per_hour: f64, rate_rps: f64) -> PerMtok {
    let prompt = level.side.result.value("prompt_tokens.mean");
    let output = level.side.result.value("output_tokens.mean");
    let of = |tokens: Option<f64>| per_mtok(per_hour, rate_rps, tokens?);
    PerMtok {
        input: of(prompt),
        output: of(output),
        total: of(prompt.zip(output).map(|(p, o)| p + o)),
    }
}

/// The first that has a price: the table that was given; the run's own, where terms are asked for; `price_per_hour`,
/// or what the plan made of the run's table.
fn rent(
    ladder: &Ladder<'_>,
    deployment: &DeploymentPlan,
    taken: &Taken<'_>,
    asked: &Asked<'_>,
) -> Result<Found, String> {
    let of_run = ladder.contender().plan.prices.as_ref();
    let mut why = "no price is given".to_owned();
    let mut passed_over = None;
    for (table, is_given) in [(asked.prices, true), (of_run, false)] {
        let Some(table) = table else { continue };
        match table.rent(taken, asked.terms.unwrap_or_else(|| table.terms())) {
            // A price of the deployment itself, or of its hosts, goes before the run's table.
            Ok(rent) if is_given || asked.terms.is_some() || is_planned(deployment, &rent) => {
                return Ok(Found { rent, note: passed_over, currency: table.currency.clone() });
            }
            Ok(_) => {}
            Err(missing) => {
                if is_given {
                    passed_over = Some(format!(
                        "the prices that were given have {missing}; the run's own is taken"
                    ));
                }
                why = missing;
            }
        }
    }
    // What the plan made of the run's table is on the table's own terms, and on no others.
    let is_of_table = of_run.is_some_and(|table| {
        table.rent(taken, table.terms()).is_ok_and(|rent| is_planned(deployment, &rent))
    });
    if is_of_table && asked.terms.is_some() {
        return Err(why);
    }
    let per_hour = deployment.price_per_hour.ok_or(why)?;
    let of_terms = asked.terms.map(|terms| {
        format!("price_per_hour of the run says no terms; it is taken for {}", terms.name())
    });
    let notes: Vec<String> = passed_over.into_iter().chain(of_terms).collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    let (by, shared_by) = match deployment.price_is_of_hosts {
        true => ("price_per_hour of its machines in the run".to_owned(), taken.fits),
        false => ("price_per_hour of the run".to_owned(), 1),
    };
    let is_of_hosts = deployment.price_is_of_hosts;
    let rent = Rent { per_hour, by, is_owned: false, metered: None, shared_by, is_of_hosts };
    Ok(Found { rent, note, currency: of_run.and_then(|table| table.currency.clone()) })
}

fn is_planned(deployment: &DeploymentPlan, rent: &Rent) -> bool {
    let is_it = |price: f64| (price - rent.per_hour).abs() <= 1e-9 * price.abs();
    deployment.price_per_hour.is_none_or(is_it)
}

fn price_of_power(ladder: &Ladder<'_>, asked: &Asked<'_>) -> Option<Power> {
    let given = asked.prices.and_then(|p| p.power);
    given.or_else(|| ladder.contender().plan.prices.as_ref()?.power)
}

/// The currency of all prices.
///
/// # Errors
/// The names, where there are several: numbers of one cannot be held against those of another.
pub(super) fn currency(weighed: &[Weighed<'_>]) -> Result<Option<String>, Vec<String>> {
    let mut named = distinct(weighed.iter().filter_map(|w| w.currency.clone()));
    named.sort();
    if named.len() > 1 { Err(named) } else { Ok(named.pop()) }
}

/// # Errors
/// In words, what is not known of it.
fn priced_at(
    rent: &Rent,
    ladder: &Ladder<'_>,
    level: &Level<'_>,
    power: &Option<PowerUse>,
    copies: u32,
    asked: &Asked<'_>,
) -> Result<Priced, String> {
    let power = match (rent.is_owned, power) {
        (false, _) => 0.0,
        (true, None) => return Err("it is owned, and its power was not read".to_owned()),
        (true, Some(power)) => {
            let cost = power.cost_per_hour.ok_or("it is owned, and power has no price")?;
            cost / f64::from(copies)
        }
    };
    let uptime = match (rent.metered, asked.demand) {
        // Users that always have a request in flight keep all of it up.
        (None, _) | (Some(_), Demand::Users(_)) => Uptime::Always,
        (Some(metered), Demand::Rps(_)) => {
            let start = metered.cold_start.or(ladder.candidate.bring_up);
            let start = start.ok_or("its cold start is not known; say cold_start")?;
            let wait =
                metered.scaledown.ok_or("how long it waits idle is not known; say scaledown")?;
            let e2e_ms =
                level.side.result.value("e2e.mean").ok_or("how long requests take is not known")?;
            Uptime::OnlyWhenAsked(OnlyWhenAsked {
                cold_start_s: start.as_secs_f64(),
                lingers_s: wait.as_secs_f64() + e2e_ms / 1e3,
                kept_up: metered.kept_up,
            })
        }
    };
    Ok(Priced { rent: rent.per_hour, shared_by: rent.shared_by, power, uptime })
}

/// Of all copies, with the machines where their power is known.
fn power(level: &Level<'_>, copies: u32, price: Option<Power>) -> Option<PowerUse> {
    let value = |name: &str| level.side.result.value(name);
    let whole = value("host_power_w");
    let of_copy = whole.or_else(|| value("power_w"))?;
    let joules = match whole {
        Some(_) => value("host_joules_per_output_token"),
        None => value("joules_per_output_token"),
    };
    let power_w = of_copy * f64::from(copies);
    Some(PowerUse {
        power_w,
        with_hosts: whole.is_some(),
        joules_per_output_token: joules,
        cost_per_hour: price.map(|p| p.per_hour(power_w)),
        is_in_cost: false,
    })
}

/// What a search of the run for the same objective said.
fn search(ladder: &Ladder<'_>, level: &Level<'_>, asked: &Asked<'_>) -> Option<String> {
    let contender = ladder.contender();
    let is_it = |s: &&crate::search::SearchPlan| {
        s.deployment == contender.deployment
            && s.load == level.side.result.load
            && s.slo.bounds == asked.slo.bounds
    };
    let searched = contender.plan.searches.iter().find(is_it)?;
    let mut told = contender.results.searches.iter();
    let told = told.find(|r| r.deployment == searched.deployment && r.load == searched.load)?;
    Some(told.text.clone())
}
