//! D70: what the machine that sends the load may have.

use super::{Verdict, skip, unless};
use crate::doctor::facts::Limit;
use crate::doctor::sections::told;
use crate::doctor::seen::Seen;

/// Streams, timers and files beside the sockets.
const OTHER_FILES: u64 = 64;

pub(super) fn limits(seen: &Seen<'_>) -> Verdict {
    let of = |p: &scalebeam_model::plan::PointPlan| p.measure.most_in_flight();
    let ours = |p: &&scalebeam_model::plan::PointPlan| {
        seen.deployments.iter().any(|d| d.name == p.deployment)
    };
    let Some(most) = seen.plan.every_point().filter(ours).filter_map(of).max() else {
        return skip("no load says how many requests are in flight at most");
    };
    let facts = seen.client()?;
    let ports = *told(&facts.local_ports)?;
    let mut wrong = Vec::new();
    let files = told(&facts.open_files)?;
    if let Limit::Of(files) = files
        && *files < most.saturating_add(OTHER_FILES)
    {
        wrong.push(format!("{files} files may be open, and {most} requests are in flight"));
    }
    if ports < most.saturating_mul(2) {
        wrong.push(format!("{ports} local ports for {most} requests in flight"));
    }
    unless(
        wrong,
        format!("{most} requests in flight, {ports} local ports"),
        "raise ulimit -n and net.ipv4.ip_local_port_range, or name more addresses in [client] source",
    )
}
