//! Ranks of one instance that move activations to each other. What that takes is computed, not read: engines do not say
//! it, and a link that is waited for is idle between its bursts.

use super::{Cause, Claim, Seen, instances, value};
use crate::analysis::compare::Side;
use crate::analysis::loss::{Exchange, Stages, stages};
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

    /// Milliseconds for a step of `tokens` of `sequences`, which a pipeline cuts into as many microbatches as it has
    /// stages, and no sequence in two.
    fn step_ms(&self, tokens: f64, sequences: f64) -> f64 {
        let deepest = self.instances.iter().map(|i| i.pp).max().unwrap_or(1);
        let parts = f64::from(deepest).min(sequences).max(1.0);
        1e3 * (self.of.step_s + self.of.token_s * tokens / parts)
    }

    /// Milliseconds of the decode of one of `tokens`: a step for each but the first, with all that are at work beside it.
    fn decode_ms(&self, stages: &Stages, tokens: f64) -> f64 {
        let groups: u32 = self.instances.iter().map(|i| i.dp).sum();
        let sequences = stages.at_work() / f64::from(groups.max(1));
        self.step_ms(sequences, sequences) * (tokens - 1.0).max(0.0)
    }

    /// Milliseconds of the prefill of what is not in the cache of prefixes, which has that part of a prompt.
    fn prefill_ms(&self, side: &Side<'_>, cached: f64) -> Option<f64> {
        Some(self.step_ms(value(side, "prompt_tokens.mean")? * (1.0 - cached), 1.0))
    }
}

/// The part of its prompts that was in the cache of prefixes, by its answers or by its engines' own count.
fn cached(side: &Side<'_>) -> Option<f64> {
    ["prefix_hit_ratio", "engine_prefix_hit_ratio"].iter().find_map(|name| value(side, name))
}

/// What moving takes of the time in flight beyond the ideal's part of it. Nothing where it is far more than the stage took,
/// `measured_ms`: then the links are not those of the model.
fn beyond(seen: &Seen<'_>, here: f64, there: f64, measured_ms: f64) -> Option<f64> {
    /// How far such a model may be off.
    const OFF: f64 = 1.2;
    let ideal = there * seen.grown / seen.size;
    // No more than the stage took.
    let worth = stages::reachable(seen.of, seen.ideal, seen.size, seen.grown)?;
    let most = worth * (here.min(measured_ms) - ideal) / seen.of.whole_ms;
    // Copies move what the baseline does, each for itself.
    (!seen.is_copies && most > 0.0 && here <= OFF * measured_ms).then_some(most)
}

/// In words, with what it would be in the baseline for the same tokens.
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
    let tokens = seen.of.tokens;
    let (here, there) = (over.decode_ms(seen.of, tokens), base.decode_ms(seen.ideal, tokens));
    let most = beyond(seen, here, there, seen.of.decode_ms())?;
    let what = format!("the decode of {} tokens", significant(tokens));
    let evidence = evidence(&over, here, there, &what);
    Some(Claim { cause: Cause::Collectives, stages: &[Cause::Decode], most, evidence })
}

pub(super) fn in_prefill(seen: &Seen<'_>) -> Option<Claim> {
    let group = |side| Group::find(side, seen.beside.exchanges, Role::Prefill);
    let (over, base) = (group(seen.over)?, group(seen.base)?);
    let known = cached(seen.over).zip(cached(seen.base));
    let (of_over, of_base) = known.unwrap_or_default();
    let here = over.prefill_ms(seen.over, of_over.clamp(0.0, 1.0))?;
    let there = base.prefill_ms(seen.base, of_base.clamp(0.0, 1.0))?;
    let most = beyond(seen, here, there, seen.of.prefill_ms.unwrap_or(seen.of.first_ms))?;
    let what = match known {
        Some(_) => "a prompt's prefill",
        None => "the prefill of a prompt of which nothing is cached",
    };
    Some(Claim {
        cause: Cause::Collectives,
        stages: &[Cause::Prefill, Cause::FirstToken],
        most,
        evidence: evidence(&over, here, there, what),
    })
}
