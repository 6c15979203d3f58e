//! Ranks of one instance that move activations to each other. What that takes is computed, not read: engines do not say
//! it, and a link that is waited for is idle between its bursts.

use super::{Cause, Claim, Seen, instances, value};
use crate::analysis::compare::Side;
use crate::analysis::loss::{Exchange, Stages};
use crate::plan::{InstancePlan, Role};
use crate::units::significant;

/// Of one side, what its instances that do a stage exchange.
struct Group<'a> {
    of: &'a Exchange,
    instances: Vec<&'a InstancePlan>,
}

impl<'a> Group<'a> {
    /// Of instances of `role`, else of those that do everything; absent where their links are not known.
    fn find(side: &Side<'a>, exchanges: &'a [Exchange], role: Role) -> Option<Self> {
        let with = |role: Role| {
            let is_it = |e: &&Exchange| e.deployment == side.result.deployment && e.role == role;
            let of = exchanges.iter().find(is_it)?;
            let instances = instances(side).iter().filter(|i| i.role == role).collect();
            Some(Self { of, instances })
        };
        with(role).or_else(|| with(Role::Aggregated))
    }

    /// Milliseconds for a step of `tokens`, which a pipeline cuts into as many microbatches as it has stages.
    fn step_ms(&self, tokens: f64) -> f64 {
        let deepest = self.instances.iter().map(|i| i.pp).max().unwrap_or(1);
        let parts = f64::from(deepest).min(tokens).max(1.0);
        1e3 * (self.of.step_s + self.of.token_s * tokens / parts)
    }

    /// Milliseconds of the decode of one request: a step for each of its tokens, with all that are at work beside it.
    fn decode_ms(&self, stages: &Stages) -> f64 {
        let beside = stages.at_work() / self.instances.len().max(1) as f64;
        self.step_ms(beside) * stages.tokens
    }
}

/// What moving takes of the time in flight beyond the ideal's part of it, and what it is here, in milliseconds.
fn beyond(seen: &Seen<'_>, here: f64, there: f64) -> (f64, f64) {
    let ideal = there * seen.grown / seen.size;
    ((here - ideal) / seen.of.whole_ms, here)
}

/// In words, with what it would be in the baseline.
fn evidence(group: &Group<'_>, here: f64, there: f64, what: &str) -> String {
    format!(
        "{} take {} ms of {what}, and {} ms of the baseline's",
        group.of.over,
        significant(here),
        significant(there)
    )
}

pub(super) fn in_decode(seen: &Seen<'_>) -> Option<Claim> {
    let group = |side| Group::find(side, seen.beside.exchanges, Role::Decode);
    let (over, base) = (group(seen.over)?, group(seen.base)?);
    let there = base.decode_ms(seen.ideal);
    let (most, here) = beyond(seen, over.decode_ms(seen.of), there);
    let what = format!("the decode of {} tokens", significant(seen.of.tokens));
    (most > 0.0).then(|| Claim {
        cause: Cause::Collectives,
        stages: &[Cause::Decode],
        most,
        evidence: evidence(&over, here, there, &what),
    })
}

pub(super) fn in_prefill(seen: &Seen<'_>) -> Option<Claim> {
    let group = |side| Group::find(side, seen.beside.exchanges, Role::Prefill);
    let (over, base) = (group(seen.over)?, group(seen.base)?);
    let prompt = |side| value(side, "prompt_tokens.mean");
    let (prompt, before) = (prompt(seen.over)?, prompt(seen.base)?);
    let there = base.step_ms(before);
    let (most, here) = beyond(seen, over.step_ms(prompt), there);
    let what = format!("the prefill of {} tokens", significant(prompt));
    (most > 0.0).then(|| Claim {
        cause: Cause::Collectives,
        stages: &[Cause::Prefill, Cause::FirstToken],
        most,
        evidence: evidence(&over, here, there, &what),
    })
}
