//! What claims the time that a stage took too long.
//!
//! Each cause has one function: what was read that speaks for it, which stages it can lengthen, and how much of the
//! time in flight it can be worth at most. What the baseline showed too speaks for nothing.

use super::{Beside, Cause, Share, Stages, usages};
use crate::analysis::compare::Side;
use crate::analysis::doubt::percent;
use crate::plan::{InstancePlan, Role};
use crate::units::significant;

mod collectives;
mod network;
mod processors;

pub(super) struct Seen<'a> {
    pub(super) over: &'a Side<'a>,
    pub(super) base: &'a Side<'a>,
    pub(super) of: &'a Stages,
    /// Of the baseline.
    pub(super) ideal: &'a Stages,
    pub(super) size: f64,
    /// The load, over that of the baseline.
    pub(super) grown: f64,
    /// It is more instances of the baseline's.
    pub(super) is_copies: bool,
    pub(super) beside: Beside<'a>,
}

/// What speaks for a cause.
struct Claim {
    cause: Cause,
    /// Stages that it can lengthen, in the order in which it takes from them.
    stages: &'static [Cause],
    /// Share of the time in flight that it is worth at most.
    most: f64,
    evidence: String,
}

const COMPUTE: &[Cause] = &[Cause::Decode, Cause::Prefill, Cause::FirstToken];
const BEFORE: &[Cause] = &[Cause::Outside, Cause::FirstToken, Cause::Decode];
const WAITING: &[Cause] = &[Cause::Queue, Cause::FirstToken];

/// A cache that is as full has no place for the next request.
const FULL_CACHE: f64 = 0.95;
/// A pool that is as busy has no room, and one that is less busy than the other bound waits.
const BUSY_POOL_PCT: f64 = 80.0;
const IDLE_POOL_PCT: f64 = 50.0;

type Look = fn(&Seen<'_>) -> Option<Claim>;

/// In the order in which they claim: what is read directly comes before what is inferred.
const LOOKS: &[Look] = &[
    cache,
    pools,
    processors::quota,
    processors::slow_rank,
    processors::throttled,
    processors::frontend,
    processors::client,
    network::link,
    network::nvlink,
    collectives::in_decode,
    collectives::in_prefill,
    too_little_load,
    bubble,
];

/// Parts by their causes. They sum up to what the parts do.
pub(super) fn shares(seen: &Seen<'_>, mut parts: Vec<(Cause, f64)>) -> Vec<Share> {
    let mut out: Vec<Share> = Vec::new();
    // What links were seen to be busy with is a part of what ranks waited for by a model, and is not claimed twice.
    let mut on_links = 0.0;
    for claim in LOOKS.iter().filter_map(|look| look(seen)) {
        let mut left = claim.most.max(0.0);
        if claim.cause == Cause::Collectives {
            let known = left.min(on_links);
            left -= known;
            on_links -= known;
        }
        let taken = take(&mut parts, claim.stages, left);
        if claim.cause == Cause::Link {
            on_links += taken;
        }
        if taken > 0.0 {
            add(&mut out, Share { cause: claim.cause, share: taken, evidence: claim.evidence });
        }
    }
    out.extend(parts.into_iter().map(|(cause, share)| Share {
        cause,
        share,
        evidence: plain(cause, seen),
    }));
    out
}

/// Takes up to `most` of what is left of `stages`, and says how much.
fn take(parts: &mut [(Cause, f64)], stages: &[Cause], most: f64) -> f64 {
    let mut taken = 0.0;
    for stage in stages {
        let Some((_, part)) = parts.iter_mut().find(|(c, _)| c == stage) else { continue };
        let takes = part.max(0.0).min(most - taken);
        *part -= takes;
        taken += takes;
    }
    taken
}

/// A cause is told once, with all that speaks for it.
fn add(out: &mut Vec<Share>, share: Share) {
    match out.iter_mut().find(|known| known.cause == share.cause) {
        Some(known) => {
            known.share += share.share;
            known.evidence = format!("{}; {}", known.evidence, share.evidence);
        }
        None => out.push(share),
    }
}

/// What is known of a stage that nothing claims.
fn plain(cause: Cause, seen: &Seen<'_>) -> String {
    let of = seen.of;
    let ms = |value: f64| format!("{} ms of a request", significant(value));
    match cause {
        Cause::Queue => format!(
            "{} in the engines' queues, with room in their caches",
            ms(of.queue_ms.unwrap_or(0.0))
        ),
        Cause::Prefill => ms(of.prefill_ms.unwrap_or(0.0)),
        Cause::FirstToken => format!("{} to the first token", ms(of.first_ms)),
        Cause::Decode => format!("{} for {} tokens", ms(of.decode_ms()), significant(of.tokens)),
        Cause::Outside => {
            let inside = of.queue_ms.unwrap_or(0.0) + of.prefill_ms.unwrap_or(0.0);
            format!("{} before and behind the engines", ms(of.first_ms - inside))
        }
        Cause::InFlight => format!("{} requests in flight", significant(of.in_flight)),
        Cause::Answers => format!("{} tokens of an answer", significant(of.tokens)),
        _ => String::new(),
    }
}

fn value(side: &Side<'_>, name: &str) -> Option<f64> {
    side.result.value(name)
}

fn instances<'a>(side: &Side<'a>) -> &'a [InstancePlan] {
    side.plan.deployment(&side.result.deployment).map_or(&[], |d| &d.instances)
}

/// Share of the time in flight that is spent computing.
fn computing(seen: &Seen<'_>) -> f64 {
    seen.of.compute_ms() / seen.of.whole_ms
}

/// Of the waiting all, since nothing else keeps requests from a batch where the cache is full.
fn cache(seen: &Seen<'_>) -> Option<Claim> {
    let fullest = value(seen.over, "kv_usage.max")?;
    let preempted = value(seen.over, "preemptions").unwrap_or(0.0);
    let was_full = value(seen.base, "kv_usage.max").is_some_and(|f| f >= FULL_CACHE);
    let was_preempted = value(seen.base, "preemptions").unwrap_or(0.0);
    let is_more = !was_full || preempted > was_preempted * seen.size.max(1.0);
    (is_more && (fullest >= FULL_CACHE || preempted > 0.0)).then(|| Claim {
        cause: Cause::KvCache,
        stages: &[Cause::Queue, Cause::FirstToken, Cause::Prefill, Cause::Decode],
        most: 1.0,
        evidence: format!(
            "an engine's cache was {} full, and {preempted:.0} requests were put back",
            percent(fullest)
        ),
    })
}

/// A pool that works all of the time beside one that waits.
fn pools(seen: &Seen<'_>) -> Option<Claim> {
    let roles = &seen.over.result.account.as_ref()?.roles;
    let busy = |role: Role| roles.iter().find(|r| r.role == role)?.gpu_busy_pct;
    let (prefill, decode) = (busy(Role::Prefill)?, busy(Role::Decode)?);
    let (full, idle) = if prefill > decode { (prefill, decode) } else { (decode, prefill) };
    let name = if prefill > decode { "prefill" } else { "decode" };
    (full >= BUSY_POOL_PCT && idle <= IDLE_POOL_PCT).then(|| Claim {
        cause: Cause::PoolImbalance,
        stages: WAITING,
        most: 1.0,
        evidence: format!(
            "GPUs of {name} were busy for {} % of the time, those of the other pool for {} %",
            significant(full),
            significant(idle)
        ),
    })
}

/// Time in flight that no engine counts as its own. Where they do not say it, all of it may be.
fn outside(seen: &Seen<'_>) -> f64 {
    let of = seen.of;
    let Some((queue, prefill)) = of.queue_ms.zip(of.prefill_ms) else { return 1.0 };
    let before = of.first_ms - queue - prefill;
    let behind = of.engine_decode_ms.map_or(0.0, |own| (of.decode_ms() - own).max(0.0));
    (before + behind) / of.whole_ms
}

/// Instances like the baseline's, each with fewer requests and no slower than it: nothing but the load is missing.
fn too_little_load(seen: &Seen<'_>) -> Option<Claim> {
    /// Times that differ by less are alike.
    const ALIKE: f64 = 1.05;
    let each = |side: &Side<'_>, of: &Stages| of.at_work() / instances(side).len().max(1) as f64;
    let (here, there) = (each(seen.over, seen.of), each(seen.base, seen.ideal));
    let per_token = |of: &Stages| of.decode_ms() / of.tokens.max(1.0);
    let is_no_slower = per_token(seen.of) <= ALIKE * per_token(seen.ideal)
        && seen.of.first_ms <= ALIKE * seen.ideal.first_ms;
    (seen.is_copies && here * ALIKE < there && is_no_slower).then(|| Claim {
        cause: Cause::TooLittleLoad,
        stages: COMPUTE,
        most: computing(seen),
        evidence: format!(
            "each of {} copies had {} requests at a time where the baseline had {}, and a step for fewer takes nearly as long",
            instances(seen.over).len(),
            significant(here),
            significant(there)
        ),
    })
}

/// Stages of a pipeline that is kept full by as many batches as it has stages stand still where there are fewer
/// requests than that: `1 - m / p` of the time with `m` of them.
fn bubble(seen: &Seen<'_>) -> Option<Claim> {
    let deepest = |side| instances(side).iter().map(|i| i.pp).max().unwrap_or(1);
    let (pp, before) = (deepest(seen.over), deepest(seen.base));
    if pp <= before {
        return None;
    }
    let n = instances(seen.over).len().max(1) as f64;
    let running = seen.of.at_work() / n;
    let idle = 1.0 - running / f64::from(pp);
    (idle > 0.0).then(|| Claim {
        cause: Cause::PipelineBubble,
        stages: COMPUTE,
        most: computing(seen) * idle,
        evidence: format!(
            "by model, {pp} stages with {} requests at a time stand still for {} of it",
            significant(running),
            percent(idle)
        ),
    })
}
