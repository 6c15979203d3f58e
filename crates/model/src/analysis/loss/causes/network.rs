//! Links between the machines of a deployment, and between the GPUs of one.

use super::{Cause, Claim, Seen, instances, usages};
use crate::analysis::compare::Side;
use crate::analysis::doubt::percent;
use crate::doctor::MeasuredPath;
use crate::plan::Role;
use crate::telemetry::Usage;
use crate::telemetry::usage::{GpuUse, LinkUse};
use crate::units::significant;

/// Below this a link is no limit by itself.
const BUSY_LINK: f64 = 0.3;
/// Segments that are sent again, in percent: a network with room loses none.
const RESENT_PCT: f64 = 0.5;
/// A rate is flat where its mean is this near to its largest.
const FLAT: f64 = 0.5;

/// Of links between machines: the fullest by its own speed, else one whose rate is flat while segments are lost.
pub(super) fn link(seen: &Seen<'_>) -> Option<Claim> {
    let crosses = instances(seen.over).iter().any(|i| i.place.len() > 1)
        || instances(seen.over).iter().any(|i| i.role != Role::Aggregated);
    if !crosses {
        return None;
    }
    let (most, evidence) = by_speed(seen).or_else(|| by_losses(seen.over))?;
    let stages = &[Cause::Decode, Cause::Prefill, Cause::Outside, Cause::FirstToken];
    Some(Claim { cause: Cause::Link, stages, most, evidence })
}

/// What NVLink carries one way, in gigabytes per second, by the kind of GPU as files name it: half of what NVIDIA's data
/// sheets give for both ways (A100 SXM 600, H100 SXM and H200 900, B200 and GB200 1,800). Bridged cards have other
/// numbers, and are in no row.
const NVLINK_GBYTES_PER_S: &[(&str, f64)] =
    &[("A100-SXM", 300.0), ("H100-SXM", 450.0), ("H200", 450.0), ("B200", 900.0)];

/// Of the links between GPUs of one machine: the fullest GPU's, by what its kind can send.
pub(super) fn nvlink(seen: &Seen<'_>) -> Option<Claim> {
    let fullest = |side: &Side<'_>| {
        let of = |gpu: &GpuUse| {
            let host = side.plan.hosts.iter().find(|h| h.name == gpu.host)?;
            let kind = host.gpu.as_deref()?;
            let (_, gbytes) = NVLINK_GBYTES_PER_S.iter().find(|(name, _)| kind.contains(name))?;
            let sent = gpu.nvlink_sent_gbytes_per_s?.mean;
            Some((sent / gbytes, format!("{} GPU {}", gpu.host, gpu.index?), sent))
        };
        usages(side).flat_map(Usage::given_gpus).filter_map(of).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (busy, name, sent) = fullest(seen.over)?;
    let before = fullest(seen.base).map_or(0.0, |(b, ..)| b);
    (busy >= BUSY_LINK && busy > before).then(|| Claim {
        cause: Cause::Link,
        stages: &[Cause::Decode, Cause::Prefill, Cause::FirstToken],
        most: (busy - before).min(1.0),
        evidence: format!(
            "{name} sent {} GB/s over NVLink on average, {} of what its kind can",
            significant(sent),
            percent(busy)
        ),
    })
}

fn busier(link: &LinkUse) -> Option<(f64, f64)> {
    let directions = link.received_gbps.into_iter().chain(link.sent_gbps);
    directions.filter_map(|d| Some((d.mean, d.max?))).max_by(|a, b| a.0.total_cmp(&b.0))
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
        let (gbps, whose) = speed(l, seen.beside.paths)?;
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
