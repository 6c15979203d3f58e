//! Processors, of GPUs and of machines.

use super::{BEFORE, COMPUTE, Cause, Claim, Seen, computing, outside, usages};
use crate::analysis::compare::Side;
use crate::analysis::doubt::percent;
use crate::telemetry::Usage;
use crate::telemetry::agent::AGENT_NAME;
use crate::telemetry::usage::{GpuUse, LOAD_GENERATOR, ProcessUse};
use crate::units::significant;

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
/// Clocks of GPUs that do little say nothing.
const AT_WORK_PCT: f64 = 20.0;

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
    let is_ours = [LOAD_GENERATOR, AGENT_NAME].contains(&process.name.as_str());
    process.role.is_none() && !is_ours
}

pub(super) fn quota(seen: &Seen<'_>) -> Option<Claim> {
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

fn clock_at_work(gpu: &GpuUse) -> Option<f64> {
    let is_at_work = gpu.busy_pct.is_some_and(|busy| busy.mean >= AT_WORK_PCT);
    Some(gpu.sm_clock_mhz.filter(|_| is_at_work)?.mean)
}

/// Of GPUs of one role: the slowest clock over the fastest, where all are at work.
fn clocks(usage: &Usage) -> Option<(String, f64, f64)> {
    let clock = |g: &GpuUse| Some((g.role?, g.index, g.host.clone(), clock_at_work(g)?));
    let all: Vec<_> = usage.given_gpus().filter_map(clock).collect();
    let slow = all.iter().min_by(|a, b| a.3.total_cmp(&b.3))?;
    let alike = all.iter().filter(|c| c.0 == slow.0).map(|c| c.3);
    let name = slow.1.map_or_else(|| slow.2.clone(), |index| format!("{} GPU {index}", slow.2));
    Some((name, slow.3, alike.reduce(f64::max)?))
}

pub(super) fn slow_rank(seen: &Seen<'_>) -> Option<Claim> {
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
pub(super) fn throttled(seen: &Seen<'_>) -> Option<Claim> {
    let held = usages(seen.over).flat_map(Usage::given_gpus).flat_map(|g| &g.held_down_pct);
    let (why, share) = held.max_by(|a, b| a.1.total_cmp(b.1))?;
    let mean = |side| {
        let clocks: Vec<f64> =
            usages(side).flat_map(Usage::given_gpus).filter_map(clock_at_work).collect();
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
pub(super) fn frontend(seen: &Seen<'_>) -> Option<Claim> {
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

pub(super) fn client(seen: &Seen<'_>) -> Option<Claim> {
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
