//! A made-up run over machines that were watched, for tests of profiles.

use crate::testing;
use scalebeam_model::plan::Plan;
use scalebeam_model::results::Results;
use scalebeam_model::telemetry::Usage;
use scalebeam_model::telemetry::usage::{HostUse, LinkUse, MeanMax};

/// Two nodes were watched under the first point; nobody read the sent bytes of the second.
pub(super) fn seed2_run() -> (Results, Plan) {
    let (mut results, plan) = testing::run();
    results.points.truncate(2);
    let of = |mean: f64, max: f64| Some(MeanMax { mean, max: Some(max) });
    let host = |name: &str| HostUse {
        host: name.to_owned(),
        serves: true,
        cpu_pct: of(12.5, 40.0),
        memory_pct: of(30.0, 31.0),
        ..HostUse::default()
    };
    let link = |host: &str, sent| LinkUse {
        host: host.to_owned(),
        name: "eth0".to_owned(),
        received_gbps: of(1.5, 4.0),
        sent_gbps: sent,
        ..LinkUse::default()
    };
    results.points[0].trials[0].usage = Some(Usage {
        hosts: vec![host("a"), host("b")],
        links: vec![link("a", of(0.5, 2.0)), link("b", None)],
        ..Usage::default()
    });
    (results, plan)
}
