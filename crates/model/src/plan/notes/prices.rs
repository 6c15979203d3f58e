//! Prices that nothing of the plan is.

use super::note;
use crate::cost::{Prices, Taken};
use crate::plan::{DeploymentPlan, HostPlan, PlanNote};
use crate::spec::Experiment;
use crate::spec::diagnostic::nearest;
use std::collections::BTreeSet;

/// Prices by which no deployment has one: on other terms, or of another platform.
fn of_none(
    prices: &Prices,
    deployments: &[DeploymentPlan],
    hosts: &[HostPlan],
) -> Option<PlanNote> {
    let first =
        deployments.first().filter(|_| deployments.iter().all(|d| d.price_per_hour.is_none()))?;
    let why = prices.rent(&Taken::of(first, hosts), prices.terms()).err()?;
    let message = format!("no deployment has a price by it; of '{}': {why}", first.name);
    let terms = prices.terms().name();
    let hint = format!("costs are at the terms '{terms}', unless `plan` in [prices] says another");
    Some(note("prices".to_owned(), message, &hint))
}

/// A table may price more GPUs than one file has, so a price without a GPU is told and not refused.
pub(super) fn prices(
    experiment: &Experiment,
    deployments: &[DeploymentPlan],
    hosts: &[HostPlan],
    out: &mut Vec<PlanNote>,
) {
    let Some(prices) = &experiment.prices else { return };
    out.extend(of_none(prices, deployments, hosts));
    let of_hosts = hosts.iter().filter_map(|h| h.gpu.as_deref());
    let of_deployments = deployments.iter().flat_map(|d| Taken::of(d, hosts).gpus.into_keys());
    let kinds: BTreeSet<&str> = of_hosts.chain(of_deployments).filter(|k| !k.is_empty()).collect();
    let hourly = prices.gpu.keys().map(|kind| (format!("prices.gpu.{kind}"), kind));
    let by_second = prices.per_second.iter().flat_map(|(platform, of)| {
        of.gpu
            .keys()
            .map(move |kind| (format!("prices.per_second.{}.gpu.{kind}", platform.name()), kind))
    });
    for (path, kind) in hourly.chain(by_second).filter(|(_, kind)| !kinds.contains(kind.as_str())) {
        let hint = match nearest(kind, kinds.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None if kinds.is_empty() => "its hosts say no gpu".to_owned(),
            None => {
                format!("its GPUs are {}", kinds.iter().copied().collect::<Vec<_>>().join(", "))
            }
        };
        out.push(note(
            path,
            format!("no GPU of this file is a '{kind}', so the price is of nothing"),
            &hint,
        ));
    }
}
