//! Where a point went: how busy each role's machines were, what the time to the first token held, and how full
//! the fullest link was.
//!
//! An account is of what was read. It names no cause, and a part that nothing was read of is not in it.

use super::doubt::percent;
use crate::plan::Role;
use crate::results::{Metrics, is_zero, lookup};
use crate::telemetry::Usage;
use crate::telemetry::usage::{GpuUse, LinkUse, MeanMax, ProcessUse};
use crate::units::significant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a point went, over its trials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Account {
    /// What works for a role, in the order of roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleAccount>,
    /// Parts of the mean time to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<FirstToken>,
    /// The link that came nearest to its speed, or carried most where no speed is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<FullestLink>,
}

/// GPUs and processes of a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RoleAccount {
    /// Which.
    pub role: Role,
    /// GPUs that were given to it and read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: u32,
    /// Share of the time in which any kernel ran on its GPUs, in percent: their mean; they were idle for the
    /// rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_busy_pct: Option<f64>,
    /// The same of the least and of the most busy one, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_busy_range_pct: Option<[f64; 2]>,
    /// Watts of all its GPUs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_power_w: Option<f64>,
    /// Cores that its processes used together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
}

/// Parts of the mean time to the first token, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirstToken {
    /// From when a request was sent until its first token was there.
    pub total_ms: f64,
    /// In the engine's queue, by its own count.
    pub queue_ms: f64,
    /// In its prefill, by its own count.
    pub prefill_ms: f64,
    /// The rest: network, front end, router, transfer of blocks, the client.
    pub outside_ms: f64,
}

/// A link, by its busier direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FullestLink {
    /// Host in the file.
    pub host: String,
    /// Interface or port.
    pub name: String,
    /// Gigabits per second: mean, and the largest between two readings.
    pub gbps: MeanMax,
    /// What it can carry one way, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_gbps: Option<f64>,
}

/// The account of a point with these metrics, whose trials' machines did this; nothing where there is nothing
/// to say.
pub(super) fn account(metrics: &Metrics, usages: &[Option<Usage>]) -> Option<Account> {
    let usages: Vec<&Usage> = usages.iter().flatten().collect();
    let account = Account {
        roles: Role::ALL.into_iter().filter_map(|role| of_role(role, &usages)).collect(),
        first_token: first_token(metrics),
        link: fullest_link(&usages),
    };
    (account != Account::default()).then_some(account)
}

/// What carried no more had no part in it.
const LEAST_GBPS: f64 = 1e-3;

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sum over all of `values`; absent where one is, or none is there.
fn sum(values: impl Iterator<Item = Option<MeanMax>>) -> Option<f64> {
    let values: Vec<f64> = values.map(|v| v.map(|v| v.mean)).collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The mean over the trials of what each of them has as a sum.
fn of_trials<T>(
    usages: &[&Usage],
    parts: impl Fn(&Usage) -> Vec<&T>,
    value: fn(&T) -> Option<MeanMax>,
) -> Option<f64> {
    mean(usages.iter().filter_map(|u| sum(parts(u).into_iter().map(value))))
}

fn of_role(role: Role, usages: &[&Usage]) -> Option<RoleAccount> {
    let n = usages.iter().map(|u| gpus_of(role, u).len()).max().unwrap_or(0);
    let busy = busy_of_gpus(role, usages);
    let account = RoleAccount {
        role,
        gpus: u32::try_from(n).unwrap_or(u32::MAX),
        gpu_busy_pct: mean(busy.iter().copied()),
        gpu_busy_range_pct: range(&busy).filter(|_| n > 1),
        gpu_power_w: of_trials(usages, |u| gpus_of(role, u), |g: &GpuUse| g.power_w),
        cpu_cores: of_trials(usages, |u| processes_of(role, u), |p: &ProcessUse| p.cpu_cores),
    };
    (account.gpus > 0 || account.cpu_cores.is_some()).then_some(account)
}

fn gpus_of(role: Role, usage: &Usage) -> Vec<&GpuUse> {
    usage.given_gpus().filter(|gpu| gpu.role == Some(role)).collect()
}

fn processes_of(role: Role, usage: &Usage) -> Vec<&ProcessUse> {
    usage.processes.iter().filter(|p| p.role == Some(role)).collect()
}

/// Each GPU's share of busy time, over the trials; empty where one of them has none.
fn busy_of_gpus(role: Role, usages: &[&Usage]) -> Vec<f64> {
    let mut by_gpu: BTreeMap<(&str, Option<u32>), Vec<f64>> = BTreeMap::new();
    for gpu in usages.iter().flat_map(|u| gpus_of(role, u)) {
        let Some(busy) = gpu.busy_pct else { return Vec::new() };
        by_gpu.entry((gpu.host.as_str(), gpu.index)).or_default().push(busy.mean);
    }
    by_gpu.into_values().filter_map(|values| mean(values.into_iter())).collect()
}

fn range(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().reduce(f64::min)?;
    Some([least, values.iter().copied().reduce(f64::max)?])
}

fn first_token(metrics: &Metrics) -> Option<FirstToken> {
    Some(FirstToken {
        total_ms: lookup(metrics, "ttft_sent_ms.mean")?,
        queue_ms: lookup(metrics, "engine_queue_ms")?,
        prefill_ms: lookup(metrics, "engine_prefill_ms")?,
        outside_ms: lookup(metrics, "outside_engine_ms")?,
    })
}

fn fullest_link(usages: &[&Usage]) -> Option<FullestLink> {
    let all = usages.iter().flat_map(|u| u.all_links()).filter(|link| link.name != "lo");
    let by_fullness = |a: &FullestLink, b: &FullestLink| a.rank().total_cmp(&b.rank());
    all.filter_map(FullestLink::of).filter(|l| l.most() >= LEAST_GBPS).max_by(by_fullness)
}

/// Links have a largest rate wherever they have a mean.
fn most(rate: &MeanMax) -> f64 {
    rate.max.unwrap_or(rate.mean)
}

impl FullestLink {
    fn of(link: &LinkUse) -> Option<Self> {
        let directions = link.received_gbps.into_iter().chain(link.sent_gbps);
        Some(Self {
            host: link.host.clone(),
            name: link.name.clone(),
            gbps: directions
                .filter(|d| d.max.is_some())
                .max_by(|a, b| most(a).total_cmp(&most(b)))?,
            speed_gbps: link.speed_gbps.filter(|s| *s > 0.0),
        })
    }

    fn most(&self) -> f64 {
        most(&self.gbps)
    }

    /// The largest rate / the speed.
    pub fn share(&self) -> Option<f64> {
        self.speed_gbps.map(|speed| self.most() / speed)
    }

    /// Links of unknown speed come after those of which it is known: a share says more than a rate.
    fn rank(&self) -> f64 {
        const UNKNOWN: f64 = 1e9;
        self.share().unwrap_or(self.most() / UNKNOWN)
    }

    fn text(&self) -> String {
        let (name, host, most) = (&self.name, &self.host, significant(self.most()));
        let mean = significant(self.gbps.mean);
        match (self.share(), self.speed_gbps) {
            (Some(share), Some(speed)) => format!(
                "The fullest link, {name} of {host}, carried {most} of {} Gbit/s at most ({}), {mean} on average.",
                significant(speed),
                percent(share)
            ),
            _ => format!(
                "The busiest link, {name} of {host}, carried {most} Gbit/s at most, {mean} on average; it does not say its speed."
            ),
        }
    }
}

impl FirstToken {
    fn text(&self) -> String {
        let part = |ms: f64| {
            let share = percent(ms / self.total_ms);
            format!("{} ms ({share})", significant(ms))
        };
        format!(
            "Of {} ms to the first token, {} went in the engine's queue, {} in its prefill and {} outside of both.",
            significant(self.total_ms),
            part(self.queue_ms),
            part(self.prefill_ms),
            part(self.outside_ms)
        )
    }
}

impl RoleAccount {
    fn text(&self) -> String {
        let cores = self.cpu_cores.map(|c| format!("its processes used {}", cores(c)));
        let parts: Vec<String> = self.gpu_text().into_iter().chain(cores).collect();
        format!("{}: {}.", capitalised(self.role.name()), parts.join("; "))
    }

    fn gpu_text(&self) -> Option<String> {
        let what = match self.gpus {
            0 => return None,
            1 => "1 GPU".to_owned(),
            n => format!("{n} GPUs"),
        };
        let busy = self.gpu_busy_pct.map_or_else(
            || "of unknown use".to_owned(),
            |busy| format!("busy for {} % of the time", significant(busy)),
        );
        let range = self.gpu_busy_range_pct.map(|[least, most]| {
            format!(" ({} % to {} % each)", significant(least), significant(most))
        });
        let idle =
            self.gpu_busy_pct.map(|busy| format!(", idle for {} %", significant(100.0 - busy)));
        let watts = self.gpu_power_w.map(|w| format!(", {} W", significant(w)));
        let parts = [Some(format!("{what} {busy}")), range, idle, watts];
        Some(parts.into_iter().flatten().collect())
    }
}

fn cores(n: f64) -> String {
    let n = significant(n);
    if n == "1" { "1 core".to_owned() } else { format!("{n} cores") }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

impl Account {
    /// In sentences.
    pub fn text(&self) -> String {
        let roles = self.roles.iter().map(RoleAccount::text);
        let first_token = self.first_token.as_ref().map(FirstToken::text);
        let link = self.link.as_ref().map(FullestLink::text);
        let all: Vec<String> = roles.chain(first_token).chain(link).collect();
        all.join(" ")
    }
}

#[cfg(test)]
mod tests;
