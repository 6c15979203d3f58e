//! What claims the time that a stage took too long.
//!
//! Each cause has one function: what was read that speaks for it, which stages it can lengthen, and how much of the
//! time in flight it can be worth at most. What the baseline showed too speaks for nothing.

use super::{Cause, Share, Stages, usages};
use crate::analysis::compare::Side;
use crate::analysis::doubt::percent;
use crate::doctor::MeasuredPath;
use crate::plan::{InstancePlan, Role};
use crate::telemetry::Usage;
use crate::telemetry::usage::{GpuUse, LinkUse, ProcessUse};
use crate::units::significant;

pub(super) struct Seen<'a> {
    pub(super) over: &'a Side<'a>,
    pub(super) base: &'a Side<'a>,
    pub(super) of: &'a Stages,
    /// Of the baseline.
    pub(super) ideal: &'a Stages,
    pub(super) size: f64,
    /// It is more instances of the baseline's.
    pub(super) is_copies: bool,
    /// What paths between hosts carried before the run.
    pub(super) paths: &'a [MeasuredPath],
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
/// Below this a link is no limit by itself.
const BUSY_LINK: f64 = 0.3;
/// Segments that are sent again, in percent: a network with room loses none.
const RESENT_PCT: f64 = 0.5;
/// A rate is flat where its mean is this near to its largest.
const FLAT: f64 = 0.5;
/// Periods in which a quota was used up, in percent.
const QUOTA_PCT: f64 = 10.0;
/// What one thread that never waits uses, give or take its helpers.
const ONE_THREAD: std::ops::Range<f64> = 0.85..1.15;
/// A machine without a free core.
const CROWDED_PCT: f64 = 95.0;
/// Readings at which a clock was held down, in percent.
const HELD_DOWN_PCT: f64 = 10.0;
/// Clocks that differ by less are alike.
const SLOW_CLOCK: f64 = 0.95;
/// A pool that is as busy has no room, and one that is less busy than the other bound waits.
const BUSY_POOL_PCT: f64 = 80.0;
const IDLE_POOL_PCT: f64 = 50.0;

type Look = fn(&Seen<'_>) -> Option<Claim>;

/// In the order in which they claim: what is read directly comes before what is inferred.
const LOOKS: &[Look] =
    &[cache, pools, quota, slow_rank, throttled, frontend, client, link, too_little_load, bubble];

/// Parts by their causes. They sum up to what the parts do.
pub(super) fn shares(seen: &Seen<'_>, mut parts: Vec<(Cause, f64)>) -> Vec<Share> {
    let mut out = Vec::new();
    for claim in LOOKS.iter().filter_map(|look| look(seen)) {
        let mut left = claim.most.max(0.0);
        let mut taken = 0.0;
        for stage in claim.stages {
            let Some((_, part)) = parts.iter_mut().find(|(c, _)| c == stage) else { continue };
            let takes = part.max(0.0).min(left);
            *part -= takes;
            left -= takes;
            taken += takes;
        }
        if taken > 0.0 {
            out.push(Share { cause: claim.cause, share: taken, evidence: claim.evidence });
        }
    }
    out.extend(parts.into_iter().map(|(cause, share)| Share {
        cause,
        share,
        evidence: plain(cause, seen),
    }));
    out
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

/// The most of `share` over the processes of engines, with the name.
fn of_processes(
    side: &Side<'_>,
    is: impl Fn(&ProcessUse) -> bool,
    share: impl Fn(&ProcessUse) -> Option<f64>,
) -> Option<(String, f64)> {
    let all = usages(side).flat_map(|u| &u.processes).filter(|p| is(p));
    all.filter_map(|p| Some((format!("{} of {}", p.name, p.host), share(p)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn is_engine(process: &ProcessUse) -> bool {
    process.role.is_some()
}

/// Routers, frontends and what they need have no role, and are none of ours.
fn is_before(process: &ProcessUse) -> bool {
    let is_ours = process.name.starts_with("load generator") || process.name.contains("agent");
    process.role.is_none() && !is_ours
}

fn quota(seen: &Seen<'_>) -> Option<Claim> {
    let of = |side| of_processes(side, is_engine, |p| p.quota_waits_pct);
    let (name, waits) = of(seen.over)?;
    let before = of(seen.base).map_or(0.0, |(_, w)| w);
    (waits - before >= QUOTA_PCT).then(|| Claim {
        cause: Cause::CpuQuota,
        stages: COMPUTE,
        most: computing(seen) * (waits - before) / 100.0,
        evidence: format!(
            "{name} had used up its quota of cores in {} % of its periods",
            significant(waits)
        ),
    })
}

/// Of GPUs of one role: the slowest clock over the fastest, where all are at work.
fn clocks(usage: &Usage) -> Option<(String, f64, f64)> {
    let clock = |g: &GpuUse| Some((g.role?, g.index, g.host.clone(), g.sm_clock_mhz?.mean));
    let all: Vec<_> = usage.given_gpus().filter_map(clock).collect();
    let slow = all.iter().min_by(|a, b| a.3.total_cmp(&b.3))?;
    let alike = all.iter().filter(|c| c.0 == slow.0).map(|c| c.3);
    let name = slow.1.map_or_else(|| slow.2.clone(), |index| format!("{} GPU {index}", slow.2));
    Some((name, slow.3, alike.reduce(f64::max)?))
}

fn slow_rank(seen: &Seen<'_>) -> Option<Claim> {
    let (name, slow, fast) = usages(seen.over).find_map(clocks)?;
    (slow < SLOW_CLOCK * fast).then(|| Claim {
        cause: Cause::SlowRank,
        stages: COMPUTE,
        most: computing(seen) * (1.0 - slow / fast),
        evidence: format!(
            "{name} ran at {} MHz where its fastest neighbour ran at {}",
            significant(slow),
            significant(fast)
        ),
    })
}

/// All clocks together, against those of the baseline.
fn throttled(seen: &Seen<'_>) -> Option<Claim> {
    let held = usages(seen.over).flat_map(Usage::given_gpus).flat_map(|g| &g.held_down_pct);
    let (why, share) = held.max_by(|a, b| a.1.total_cmp(b.1))?;
    let mean = |side| {
        let clocks: Vec<f64> = usages(side)
            .flat_map(Usage::given_gpus)
            .filter_map(|g| Some(g.sm_clock_mhz?.mean))
            .collect();
        (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
    };
    let (over, base) = (mean(seen.over)?, mean(seen.base)?);
    (*share >= HELD_DOWN_PCT && over < base).then(|| Claim {
        cause: Cause::Throttled,
        stages: COMPUTE,
        most: computing(seen) * (1.0 - over / base),
        evidence: format!(
            "held down by {why} in {} % of the readings, to {} MHz where the baseline ran at {}",
            significant(*share),
            significant(over),
            significant(base)
        ),
    })
}

/// A process before the engines that has no more to give. It lengthens all that passes through it, but not what the
/// engines count themselves.
fn frontend(seen: &Seen<'_>) -> Option<Claim> {
    let waits = of_processes(seen.over, is_before, |p| p.quota_waits_pct)
        .filter(|(_, waits)| *waits >= QUOTA_PCT)
        .map(|(name, waits)| {
            format!(
                "{name} had used up its quota of cores in {} % of its periods",
                significant(waits)
            )
        });
    let thread = || {
        let cores = |p: &ProcessUse| p.cpu_cores.map(|c| c.mean).filter(|c| ONE_THREAD.contains(c));
        let (name, cores) = of_processes(seen.over, is_before, cores)?;
        Some(format!(
            "{name} used {} cores all of the time, as one thread that never waits",
            significant(cores)
        ))
    };
    Some(Claim {
        cause: Cause::Frontend,
        stages: BEFORE,
        most: outside(seen),
        evidence: waits.or_else(thread).or_else(|| crowded(seen))?,
    })
}

/// A machine without a free core, most of which is not an engine's.
fn crowded(seen: &Seen<'_>) -> Option<String> {
    for usage in usages(seen.over) {
        for host in usage.hosts.iter().filter(|h| h.serves) {
            let busy = host.cpu_pct.map_or(0.0, |c| c.mean);
            let of = |is: fn(&ProcessUse) -> bool| -> f64 {
                let mine = usage.processes.iter().filter(|p| p.host == host.host && is(p));
                mine.filter_map(|p| p.cpu_cores.map(|c| c.mean)).sum()
            };
            if busy >= CROWDED_PCT && of(is_before) > of(is_engine) {
                let (cores, name) = (significant(of(is_before)), &host.host);
                return Some(format!(
                    "no core of {name} was free, and what stands before the engines used {cores}"
                ));
            }
        }
    }
    None
}

/// Time in flight that no engine counts as its own. Where they do not say it, all of it may be.
fn outside(seen: &Seen<'_>) -> f64 {
    let of = seen.of;
    let Some((queue, prefill)) = of.queue_ms.zip(of.prefill_ms) else { return 1.0 };
    let before = of.first_ms - queue - prefill;
    let behind = of.engine_decode_ms.map_or(0.0, |own| (of.decode_ms() - own).max(0.0));
    (before + behind) / of.whole_ms
}

fn client(seen: &Seen<'_>) -> Option<Claim> {
    /// A load thread that is as busy delays what it sends and reads.
    const BUSY: f64 = 0.8;
    let busiest = |side: &Side<'_>| {
        side.trials.iter().filter_map(|t| t.facts.busiest_worker_cpu).reduce(f64::max)
    };
    let busy = busiest(seen.over).filter(|b| *b >= BUSY)?;
    let was_busy = busiest(seen.base).is_some_and(|b| b >= BUSY);
    (!was_busy).then(|| Claim {
        cause: Cause::Client,
        stages: &[Cause::Outside, Cause::FirstToken, Cause::Decode, Cause::InFlight],
        most: outside(seen),
        evidence: format!(
            "a thread of the load generator was busy for {} of the time",
            percent(busy)
        ),
    })
}

/// Of links between machines: the fullest by its own speed, else one whose rate is flat while segments are lost.
fn link(seen: &Seen<'_>) -> Option<Claim> {
    let crosses = instances(seen.over).iter().any(|i| i.place.len() > 1)
        || instances(seen.over).iter().any(|i| i.role != Role::Aggregated);
    if !crosses {
        return None;
    }
    let (most, evidence) = by_speed(seen).or_else(|| by_losses(seen.over))?;
    let stages = &[Cause::Decode, Cause::Prefill, Cause::Outside, Cause::FirstToken];
    Some(Claim { cause: Cause::Link, stages, most, evidence })
}

fn busier(link: &LinkUse) -> Option<(f64, f64)> {
    let directions = link.received_gbps.into_iter().chain(link.sent_gbps);
    directions.map(|d| (d.mean, d.max)).max_by(|a, b| a.0.total_cmp(&b.0))
}

fn links<'a>(side: &Side<'a>) -> impl Iterator<Item = &'a LinkUse> {
    usages(side).flat_map(Usage::all_links).filter(|l| l.name != "lo")
}

/// What a link can carry, in gigabits per second, and who says so. One socket does not fill a fast link; but a path that
/// carries a tenth of what its interface says is not the interface's.
fn speed(link: &LinkUse, paths: &[MeasuredPath]) -> Option<(f64, &'static str)> {
    /// Between what an interface says and what one socket found.
    const ANOTHER_PATH: f64 = 10.0;
    let of_host = paths.iter().filter(|p| p.from == link.host || p.to == link.host);
    let moved = of_host.map(|p| p.bytes_per_s as f64 * 8.0 / 1e9).filter(|gbps| *gbps > 0.0);
    let moved = moved.reduce(f64::min).map(|gbps| (gbps, "that the doctor found on its path"));
    let said = link.speed_gbps.filter(|s| *s > 0.0).map(|gbps| (gbps, "of its speed"));
    match (said, moved) {
        (Some(said), Some(moved)) if moved.0 * ANOTHER_PATH < said.0 => Some(moved),
        (said, moved) => said.or(moved),
    }
}

/// While the wire is busy ranks wait: of the time in flight it is worth as much as of all time.
fn by_speed(seen: &Seen<'_>) -> Option<(f64, String)> {
    let share = |l: &LinkUse| {
        let (gbps, whose) = speed(l, seen.paths)?;
        let busy = (busier(l)?.0 / gbps).min(1.0);
        Some((busy, format!("{} of {}", l.name, l.host), gbps, whose))
    };
    let fullest = |side| links(side).filter_map(share).max_by(|a, b| a.0.total_cmp(&b.0));
    let (busy, name, gbps, whose) = fullest(seen.over)?;
    let before = fullest(seen.base).map_or(0.0, |(b, ..)| b);
    (busy >= BUSY_LINK && busy > before).then(|| {
        let (share, gbps) = (percent(busy), significant(gbps));
        (busy - before, format!("{name} carried {share} of the {gbps} Gbit/s {whose}, on average"))
    })
}

/// What an interface says of its speed is not what the path behind it carries.
fn by_losses(side: &Side<'_>) -> Option<(f64, String)> {
    let resent = |host: &str| {
        let hosts = usages(side).flat_map(|u| &u.hosts).filter(|h| h.host == host);
        hosts.filter_map(|h| h.tcp_resent_pct).reduce(f64::max)
    };
    let flat = |l: &LinkUse| {
        let (mean, max) = busier(l)?;
        let lost = resent(&l.host).filter(|r| *r >= RESENT_PCT)?;
        let name = format!("{} of {}", l.name, l.host);
        (max > 0.0 && mean / max >= FLAT).then_some((mean / max, name, max, lost))
    };
    let (share, name, max, lost) =
        links(side).filter_map(flat).max_by(|a, b| a.2.total_cmp(&b.2))?;
    let text = format!(
        "{name} never carried more than {} Gbit/s, {} of that on average, and {} % of the segments were sent again: the path is full, whatever the interface says",
        significant(max),
        percent(share),
        significant(lost)
    );
    Some((share, text))
}

/// Instances like the baseline's, each with fewer requests and no slower than it: nothing but the load is missing.
fn too_little_load(seen: &Seen<'_>) -> Option<Claim> {
    /// Times that differ by less are alike.
    const ALIKE: f64 = 1.05;
    let each = |side: &Side<'_>, of: &Stages| {
        let n = instances(side).len().max(1) as f64;
        value(side, "running.mean").unwrap_or(of.in_flight) / n
    };
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
    let running = value(seen.over, "running.mean").unwrap_or(seen.of.in_flight) / n;
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
