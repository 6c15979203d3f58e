//! From a price table to the price of a deployment.

use super::{Prices, Terms};
use crate::plan::{DeploymentPlan, HostPlan, Platform};
use crate::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};

/// What a deployment takes, as prices see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken<'a> {
    /// Where it runs.
    pub platform: Platform,
    /// Its machines.
    pub hosts: BTreeSet<&'a str>,
    /// Its GPUs by kind; of a kind that nobody named, under the empty name.
    pub gpus: BTreeMap<&'a str, u32>,
    /// So many of it have room on as many machines, side by side; at least 1.
    pub fits: u32,
    /// Its instances.
    pub instances: u32,
    /// How long the platform was told to keep an idle instance.
    pub scaledown: Option<Nanos>,
    /// So many instances the platform was told to keep up though nobody asks.
    pub kept_up: u32,
}

impl<'a> Taken<'a> {
    /// What the plan gives to `deployment`.
    pub fn of(deployment: &'a DeploymentPlan, hosts: &'a [HostPlan]) -> Self {
        let only_kind = match deployment.gpu_kinds.as_slice() {
            [kind] => kind.as_str(),
            _ => "",
        };
        let kind_on = |name: &str| {
            let host = hosts.iter().find(|h| h.name == name);
            host.and_then(|h| h.gpu.as_deref()).unwrap_or(only_kind)
        };
        let mut out = Self {
            platform: deployment.platform,
            hosts: BTreeSet::new(),
            gpus: BTreeMap::new(),
            fits: 1,
            instances: u32::try_from(deployment.instances.len()).unwrap_or(u32::MAX),
            scaledown: deployment.span("scaledown"),
            kept_up: deployment.whole("min_containers").unwrap_or(0),
        };
        let mut placed = BTreeSet::new();
        for share in deployment.instances.iter().flat_map(|i| &i.place) {
            out.hosts.insert(&share.host);
            // Instances may share a GPU, which is had once.
            let own = share.ids.iter().filter(|id| placed.insert((&share.host, **id))).count();
            *out.gpus.entry(kind_on(&share.host)).or_default() += u32::try_from(own).unwrap_or(0);
        }
        if placed.is_empty() {
            out.gpus.insert(only_kind, deployment.gpus);
        }
        out.gpus.retain(|_, n| *n > 0);
        let fit = |name: &&str| {
            let own = placed.iter().filter(|(host, _)| host.as_str() == *name).count();
            let host = hosts.iter().find(|h| h.name == *name)?;
            host.gpus.checked_div(u32::try_from(own).ok()?)
        };
        out.fits = out.hosts.iter().map(fit).min().flatten().unwrap_or(1).max(1);
        out
    }

    /// The fewest machines that copies of it have room on, where those may share machines; zero where none is known.
    pub fn nodes(&self, copies: u32) -> u32 {
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        hosts.saturating_mul(copies.div_ceil(self.fits))
    }
}

/// What a deployment costs while it is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Rent {
    /// All of it, an hour.
    pub per_hour: f64,
    /// So many copies of it have that together, since it is whole machines that are paid for; at least 1.
    pub shared_by: u32,
    /// It is machines that are paid for, whole.
    pub is_of_hosts: bool,
    /// What that is made of, in words.
    pub by: String,
    /// It is bought: its power is not in it.
    pub is_owned: bool,
    /// Where it is billed by the second: what is billed besides the time in which it answers.
    pub metered: Option<Metered>,
}

/// What a platform that bills by the second bills besides the time in which requests are answered. Absent is what
/// nobody said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metered {
    /// From nothing to the first answer.
    pub cold_start: Option<Nanos>,
    /// How long an idle instance stays up.
    pub scaledown: Option<Nanos>,
    /// The part of it that stays up though nobody asks, from 0 to 1.
    pub kept_up: f64,
}

impl Prices {
    /// What a deployment that takes `taken` costs on `terms`.
    ///
    /// # Errors
    /// In words, what has no price.
    pub fn rent(&self, taken: &Taken<'_>, terms: Terms) -> Result<Rent, String> {
        if let Some(rent) = self.by_second(taken) {
            return rent;
        }
        match self.by_host(taken, terms) {
            Some(rent) => Ok(rent),
            None => self.by_gpu(taken, terms),
        }
    }

    fn by_second(&self, taken: &Taken<'_>) -> Option<Result<Rent, String>> {
        let prices = self.per_second.get(&taken.platform)?;
        let beside = prices.instance.unwrap_or(0.0) * f64::from(taken.instances);
        let of_gpus = sum(taken, |kind| prices.gpu.get(kind).copied());
        let platform = taken.platform.name();
        Some(match of_gpus {
            Ok(of_gpus) => Ok(Rent {
                per_hour: (of_gpus + beside) * 3_600.0,
                by: format!("{} on {platform}, by the second", gpus(taken)),
                shared_by: 1,
                is_of_hosts: false,
                is_owned: false,
                metered: Some(Metered {
                    kept_up: f64::from(taken.kept_up.min(taken.instances))
                        / f64::from(taken.instances.max(1)),
                    cold_start: prices.cold_start.map(|d| d.0),
                    scaledown: prices.scaledown.map(|d| d.0).or(taken.scaledown),
                }),
            }),
            Err(kind) => Err(format!("no price of a second of {kind} on {platform}")),
        })
    }

    /// Only where each of its machines has a price.
    fn by_host(&self, taken: &Taken<'_>, terms: Terms) -> Option<Rent> {
        let price = |name: &&str| {
            // `node-0` and `node-1` are `[host.node]` with `count = 2`.
            let of_table = || self.host.get(name.rsplit_once('-')?.0);
            self.host.get(*name).or_else(of_table)?.get(&terms).copied()
        };
        let prices: Vec<f64> = taken.hosts.iter().map(price).collect::<Option<_>>()?;
        (!prices.is_empty()).then(|| Rent {
            per_hour: prices.iter().sum(),
            by: format!("{}, {}", whole(taken), terms.name()),
            shared_by: taken.fits,
            is_of_hosts: true,
            is_owned: terms == Terms::Owned,
            metered: None,
        })
    }

    fn by_gpu(&self, taken: &Taken<'_>, terms: Terms) -> Result<Rent, String> {
        if taken.gpus.is_empty() {
            return Err("it has no GPUs that are known, and its machines have no price".to_owned());
        }
        let per_hour = sum(taken, |kind| self.gpu.get(kind)?.get(&terms).copied());
        let per_hour = per_hour.map_err(|kind| format!("no {} price of {kind}", terms.name()))?;
        Ok(Rent {
            per_hour,
            by: format!("{}, {}", gpus(taken), terms.name()),
            shared_by: 1,
            is_of_hosts: false,
            is_owned: terms == Terms::Owned,
            metered: None,
        })
    }
}

/// Over all GPUs; the kind that has no price where there is one.
fn sum(taken: &Taken<'_>, price: impl Fn(&str) -> Option<f64>) -> Result<f64, String> {
    let of = |(kind, n): (&&str, &u32)| match price(kind) {
        Some(price) => Ok(price * f64::from(*n)),
        None if kind.is_empty() => Err("GPUs whose kind is not named".to_owned()),
        None => Err((*kind).to_owned()),
    };
    taken.gpus.iter().map(of).sum()
}

/// Machines that are paid for whole, and by how many copies.
fn whole(taken: &Taken<'_>) -> String {
    let machines = joined(taken.hosts.iter().copied());
    match taken.fits {
        1 => format!("{machines} whole for each copy"),
        n => format!("{machines} whole for every {n} copies"),
    }
}

fn gpus(taken: &Taken<'_>) -> String {
    let of = |(kind, n): (&&str, &u32)| format!("{n} x {kind}");
    joined(taken.gpus.iter().map(of))
}

fn joined<T: Into<String>>(words: impl Iterator<Item = T>) -> String {
    words.map(Into::into).collect::<Vec<String>>().join(" + ")
}
