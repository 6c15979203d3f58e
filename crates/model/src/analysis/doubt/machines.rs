//! Doubts from what the machines did meanwhile.

use super::{Seen, percent, reason};
use crate::telemetry::usage::{GpuUse, HostUse, ProcessUse};
use crate::telemetry::{Absent, Flaw, FlawKind, Part, Quantity, Usage};
use crate::trust::{Reason, TrustLevel};
use crate::units::significant;

/// Readings at which a GPU was held down, of all, from which on it is told.
const HELD_DOWN_PCT: f64 = 10.0;
/// A GPU whose clock is this much below that of the fastest of its deployment holds the others up.
const SLOW_CLOCK: f64 = 0.9;
/// Clocks of GPUs that do little say nothing.
const AT_WORK_PCT: f64 = 20.0;
/// Below this a clock may fall because there was nothing to do.
const MOSTLY_AT_WORK_PCT: f64 = 80.0;
/// Of the periods of a quota: below this a burst at a start is all that it may be.
const WAITS_PCT: f64 = 5.0;
/// Of all cores of a machine: less is what every system does by itself.
const FOREIGN: f64 = 0.1;
/// Above this a core is not free at the moment when it is wanted.
const CROWDED_PCT: f64 = 70.0;
/// A link that carried this much of its speed between two readings was full for a part of that time.
const FULL_LINK: f64 = 0.9;
/// With less memory left than this, something is being pushed out.
const FULL_MEMORY_PCT: f64 = 97.0;

fn usages<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = &'a Usage> {
    seen.usages.iter().flatten()
}

fn name(gpu: &GpuUse) -> String {
    gpu.index.map_or_else(|| gpu.host.clone(), |index| format!("{} GPU {index}", gpu.host))
}

/// A GPU that is held down by its power or its heat is not the GPU that was bought.
pub(super) fn held_down(seen: &Seen<'_>) -> Option<Reason> {
    let all = usages(seen)
        .flat_map(Usage::given_gpus)
        .flat_map(|gpu| gpu.held_down_pct.iter().map(move |(why, share)| (name(gpu), why, *share)));
    let (gpu, why, share) = all.max_by(|a, b| a.2.total_cmp(&b.2))?;
    let level = if why == "power cap" { TrustLevel::Sound } else { TrustLevel::Caution };
    (share >= HELD_DOWN_PCT).then(|| {
        reason(
            "gpu_held_down",
            level,
            format!(
                "{gpu} was held down by {why} in {} % of its readings: another one, or a cooler room, may be faster",
                significant(share)
            ),
            "look at power limit and cooling of the machine before you compare with another",
        )
    })
}

/// A clock that falls while the work goes on makes the end of a measurement slower than its begin.
pub(super) fn clock_drop(seen: &Seen<'_>) -> Option<Reason> {
    let fallen = |gpu: &GpuUse| {
        let clock = gpu.sm_clock_mhz?;
        let is_at_work = gpu.busy_pct.is_some_and(|busy| busy.mean >= MOSTLY_AT_WORK_PCT);
        // Why is known then, and told.
        let is_explained = gpu.held_down_pct.values().any(|share| *share >= HELD_DOWN_PCT);
        let most = clock.max?;
        let is_lower = clock.mean < SLOW_CLOCK * most;
        (is_at_work && is_lower && !is_explained).then(|| (name(gpu), clock.mean, most))
    };
    let (gpu, mean, most) = usages(seen).flat_map(Usage::given_gpus).find_map(fallen)?;
    Some(reason(
        "clock_drop",
        TrustLevel::Caution,
        format!(
            "the clock of {gpu} was {} MHz on average and {} at most, and its driver names no reason: it was not as fast all of the time",
            significant(mean),
            significant(most)
        ),
        "warm up for longer, or lock its clocks (nvidia-smi --lock-gpu-clocks) for a comparison",
    ))
}

/// Something else used a machine.
pub(in crate::analysis) const FOREIGN_LOAD: &str = "foreign_load";

/// What else runs on a machine takes from what is measured: cores and caches where they are idle, time where
/// they are not.
pub(super) fn foreign_load(seen: &Seen<'_>) -> Option<Reason> {
    let share = |h: &HostUse| Some((h.host.clone(), h.foreign_cores?, h.cores?, h.cpu_pct?.mean));
    let all = usages(seen).flat_map(|u| &u.hosts).filter_map(share);
    let is_felt = |busy: f64| busy >= CROWDED_PCT;
    // Where it was felt first: another host, or another trial, may have had more of it and room for both.
    let rank = |(_, foreign, cores, busy): &(_, f64, f64, f64)| (is_felt(*busy), foreign / cores);
    let worst = all.filter(|(_, foreign, cores, _)| foreign / cores > FOREIGN).max_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    worst.map(|(host, foreign, cores, busy)| {
        let is_felt = is_felt(busy);
        reason(
            FOREIGN_LOAD,
            if is_felt { TrustLevel::Caution } else { TrustLevel::Sound },
            format!(
                "{} of the {} cores of {host} were in use by something that is not of this run, and {} % of all: {}",
                significant(foreign),
                significant(cores),
                significant(busy),
                if is_felt { "it took time from what was measured" } else { "there was room for both" }
            ),
            "end what else runs there, or measure on a machine of its own",
        )
    })
}

/// A process that waits for its quota has fewer cores than the machine, and answers in steps of the period.
pub(super) fn cpu_throttled(seen: &Seen<'_>) -> Option<Reason> {
    let waits = |p: &ProcessUse| Some((format!("{} of {}", p.name, p.host), p.quota_waits_pct?));
    let all = usages(seen).flat_map(|u| &u.processes).filter_map(waits);
    let (process, share) = all.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share > WAITS_PCT).then(|| {
        reason(
            "cpu_throttled",
            TrustLevel::Caution,
            format!(
                "{process} had used up the CPU quota of its container in {} % of the periods in which it wanted to run, and waited for the next",
                significant(share)
            ),
            "raise the CPU limit of the container, or leave it out",
        )
    })
}

/// Ranks wait for the slowest.
pub(super) fn slow_gpu(seen: &Seen<'_>) -> Option<Reason> {
    let clock = |gpu: &GpuUse| {
        let at_work = gpu.busy_pct.is_some_and(|busy| busy.mean >= AT_WORK_PCT);
        Some((name(gpu), gpu.role, gpu.sm_clock_mhz.filter(|_| at_work)?.mean))
    };
    let slowest = |usage: &Usage| {
        let clocks: Vec<_> = usage.given_gpus().filter_map(clock).collect();
        let slow = clocks.iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
        // Another role is another kind of work.
        let alike = clocks.iter().filter(|c| c.1 == slow.1).map(|c| c.2);
        let fastest = alike.reduce(f64::max)?;
        (slow.2 < SLOW_CLOCK * fastest).then(|| (slow.0.clone(), slow.2, fastest))
    };
    let (gpu, slow, fastest) = usages(seen).find_map(slowest)?;
    Some(reason(
        "slow_gpu",
        TrustLevel::Caution,
        format!(
            "{gpu} ran at {} MHz on average where another of the same role ran at {}: its neighbours waited for it",
            significant(slow),
            significant(fastest)
        ),
        "look at its temperature, its power limit and who else uses it",
    ))
}

/// A full link is a finding about the deployment, and no fault of the measurement.
pub(super) fn link_full(seen: &Seen<'_>) -> Option<Reason> {
    let shares = usages(seen).flat_map(Usage::all_links).filter_map(|link| {
        let share = link.peak_share()?;
        Some((format!("{} of {}", link.name, link.host), share))
    });
    let (link, share) = shares.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share >= FULL_LINK).then(|| {
        reason(
            "link_full",
            TrustLevel::Sound,
            format!(
                "{link} carried up to {} of what it can: the network may be what limits this point",
                percent(share)
            ),
            "give the deployment a faster network, or a shape that crosses it less",
        )
    })
}

/// A machine without memory pushes out the pages that it will need next.
pub(super) fn memory_full(seen: &Seen<'_>) -> Option<Reason> {
    let full = usages(seen).flat_map(|u| &u.hosts).filter_map(|h| Some((h, h.memory_pct?.max?)));
    let (host, share) = full.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share > FULL_MEMORY_PCT).then(|| {
        reason(
            "memory_full",
            TrustLevel::Caution,
            format!("{} % of the memory of {} was in use", significant(share), host.host),
            "look for what else runs there, or give it more memory",
        )
    })
}

fn power_flaws<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = &'a Flaw> {
    let of_power = |flaw: &&Flaw| flaw.quantity == Quantity::Power;
    usages(seen).flat_map(|u| &u.flaws).filter(of_power)
}

/// Two ways to the same energy that disagree: one of them is wrong.
pub(super) fn energy_doubtful(seen: &Seen<'_>) -> Option<Reason> {
    let flaw = power_flaws(seen).find(|f| matches!(f.kind, FlawKind::Disagrees { .. }))?;
    Some(reason(
        "energy_doubtful",
        TrustLevel::Caution,
        format!("energy of {} is in doubt: {}", flaw.device, flaw.kind.text()),
        "read power more often ([telemetry] interval), or measure for longer",
    ))
}

/// Power was read, and yet there is no energy: a reader must know why.
pub(super) fn energy_absent(seen: &Seen<'_>) -> Option<Reason> {
    let without = usages(seen).filter(|u| u.energy.is_none()).flat_map(|u| &u.flaws);
    let mut of_power = without.filter(|flaw| flaw.quantity == Quantity::Power);
    let flaw = of_power.find(|f| !matches!(f.kind, FlawKind::Disagrees { .. }))?;
    let next = match flaw.kind {
        FlawKind::CutIntoInstances => "weigh whole GPUs where energy counts",
        _ => "read power more often ([telemetry] interval), or measure for longer",
    };
    Some(reason(
        "energy_absent",
        TrustLevel::Sound,
        format!(
            "there is no energy ({}): of {}, {}",
            flaw.kind.code(),
            flaw.device,
            flaw.kind.text()
        ),
        next,
    ))
}

/// Power was not read for a while, and the GPU counted on.
pub(super) fn energy_counted(seen: &Seen<'_>) -> Option<Reason> {
    // A machine's controller has gaps too, and no counter.
    let is_it = |gpu: &GpuUse, flaw: &Flaw| {
        gpu.index.is_some_and(|i| flaw.device == format!("{} {} {i}", gpu.host, Part::Gpu.name()))
    };
    let is_given = |usage: &Usage, flaw: &Flaw| usage.given_gpus().any(|gpu| is_it(gpu, flaw));
    let is_gap =
        |flaw: &Flaw| flaw.quantity == Quantity::Power && matches!(flaw.kind, FlawKind::Gap { .. });
    let counted = |usage: &'_ Usage| {
        let mut flaws = usage.flaws.iter();
        flaws.find(|flaw| is_gap(flaw) && is_given(usage, flaw)).cloned()
    };
    let flaw = usages(seen).filter(|u| u.energy.is_some()).find_map(counted)?;
    Some(reason(
        "energy_counted",
        TrustLevel::Sound,
        format!(
            "of {}, {}: its energy is what its own counter grew by, and its largest power is not known",
            flaw.device,
            flaw.kind.text()
        ),
        "read power more often ([telemetry] interval), or look what held the readings up",
    ))
}

/// What is made of GPU power alone is not what the machines took, which costs as much to feed.
pub(super) fn gpu_power_only(seen: &Seen<'_>) -> Option<Reason> {
    let usage = usages(seen).find(|u| u.energy.is_some() && u.host_energy.is_none())?;
    let serves = |host: &str| usage.hosts.iter().any(|h| h.serves && h.host == host);
    let is_of_power = |absent: &&Absent| absent.what.starts_with("power ") && serves(&absent.host);
    let unread: Vec<String> = usage
        .absent
        .iter()
        .filter(is_of_power)
        .map(|a| format!("{} of {}: {}", a.what, a.host, a.why))
        .collect();
    let why = if unread.is_empty() { String::new() } else { format!(" ({})", unread.join("; ")) };
    Some(reason(
        "gpu_power_only",
        TrustLevel::Sound,
        format!(
            "GPU power only: energy and what is divided by it leave out processors, memory and fans, since the power of the machines is not known{why}"
        ),
        "let RAPL be read, or name the machine's controller: [telemetry.redfish.HOST], or ipmi = true",
    ))
}

/// What a host did cannot be laid over the load where its clock is not known.
pub(super) fn clock_uncertain(seen: &Seen<'_>) -> Option<Reason> {
    let uncertain = |flaw: &&Flaw| matches!(flaw.kind, FlawKind::ClockUncertain { .. });
    let flaw = usages(seen).flat_map(|u| &u.flaws).find(uncertain)?;
    Some(reason(
        "clock_uncertain",
        TrustLevel::Caution,
        format!(
            "the clock of {} is known worse than readings lie apart: {}",
            flaw.device,
            flaw.kind.text()
        ),
        "look whether the host slept or its link was slow, and measure again",
    ))
}
