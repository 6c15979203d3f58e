//! What is doubted because of what the machines did.

use super::*;
use crate::plan::{HostGpus, HostPlan, InstancePlan, Role};
use crate::telemetry::{Device, Part, Quantity, Reading, Series, Telemetry};

const GPU: (Part, &str) = (Part::Gpu, "GPU-0");
const HOST: (Part, &str) = (Part::Host, "gpu1");
const ENGINE: (Part, &str) = (Part::Process, "a/0/engine 4711");

/// A quantity of a device by the second.
type Row = ((Part, &'static str), Quantity, fn(f64) -> f64);

fn series((part, name): (Part, &str), quantity: Quantity, of: fn(f64) -> f64) -> Series {
    let device = Device {
        host: "gpu1".to_owned(),
        part,
        name: name.to_owned(),
        index: (part == Part::Gpu).then_some(0),
        role: None,
    };
    let reading = |s: u32| {
        let at = Nanos::from_secs(u64::from(s));
        Reading { from: at, to: at, value: of(f64::from(s)) }
    };
    Series { device, quantity, readings: (0..=120).map(reading).collect() }
}

/// A host that is not this machine.
fn host(name: &str) -> HostPlan {
    HostPlan {
        name: name.to_owned(),
        addr: "10.0.0.1".to_owned(),
        ssh: Some(name.to_owned()),
        gpus: 1,
        gpu: None,
        iface: None,
        labels: BTreeMap::new(),
    }
}

/// The reason called `code` of a trial of a minute whose machines did `rows`.
fn reason_of(code: &str, rows: &[Row]) -> Option<crate::trust::Reason> {
    let mut trial = trial(1, 60, 100_000, 0);
    let series = rows.iter().map(|(device, quantity, of)| series(*device, *quantity, *of));
    let interval = Nanos::from_secs(1);
    trial.facts.telemetry =
        Some(Telemetry { interval, series: series.collect(), ..Telemetry::default() });
    let mut given = deployment("a", 1);
    given.engine = EngineKind::Vllm;
    given.instances = vec![InstancePlan {
        index: 0,
        role: Role::Aggregated,
        tp: 1,
        pp: 1,
        dp: 1,
        dp_balance: None,
        ep: None,
        place: vec![HostGpus { host: "gpu1".to_owned(), ids: vec![0] }],
        port: 8000,
    }];
    let plan = Plan { hosts: vec![host("gpu1")], ..plan(vec![given]) };
    let point = point_plan("a", 2, 1);
    let points = [MeasuredPoint { plan: &point, trials: vec![trial] }];
    let results = analyse(&plan, &points, &Frame::default());
    results.points[0].trust.reasons.iter().find(|r| r.code == code).cloned()
}

#[test]
fn a_clock_that_falls_at_work_without_a_reason_is_told() {
    let busy: Row = (GPU, Quantity::GpuBusy, |_| 99.0);
    let falls: Row = (GPU, Quantity::SmClock, |s| if s < 5.0 { 1_980.0 } else { 1_400.0 });
    let reason = reason_of("clock_drop", &[busy, falls]).unwrap();
    assert_eq!(reason.level, TrustLevel::Caution);
    assert!(reason.message.contains("and 1980 at most"), "{}", reason.message);
    let steady: Row = (GPU, Quantity::SmClock, |_| 1_980.0);
    assert_eq!(reason_of("clock_drop", &[busy, steady]), None);
    let idle: Row = (GPU, Quantity::GpuBusy, |_| 30.0);
    assert_eq!(reason_of("clock_drop", &[idle, falls]), None, "it had little to do");
    let capped: Row = (GPU, Quantity::ClockReasons, |_| 4.0);
    assert_eq!(reason_of("clock_drop", &[busy, falls, capped]), None, "its reason is told");
    assert!(reason_of("gpu_held_down", &[busy, falls, capped]).is_some());
}

#[test]
fn what_else_runs_on_a_machine_is_told_and_doubted_where_it_is_felt() {
    let cores: Row = (HOST, Quantity::CpuAll, |s| 8.0 * s);
    let engine: Row = (ENGINE, Quantity::ProcessCpu, |s| 4.0 * s);
    let with_busy = |busy: fn(f64) -> f64| {
        reason_of("foreign_load", &[cores, engine, (HOST, Quantity::CpuBusy, busy)])
    };
    assert_eq!(with_busy(|s| 4.5 * s), None, "every system does a little by itself");
    let beside = with_busy(|s| 5.2 * s).unwrap();
    assert_eq!(beside.level, TrustLevel::Sound);
    assert!(beside.message.starts_with("1.20 of the 8.00 cores of gpu1"), "{}", beside.message);
    assert_eq!(with_busy(|s| 6.4 * s).unwrap().level, TrustLevel::Caution);
}

#[test]
fn a_process_that_waits_for_its_quota_is_doubted() {
    let periods: Row = (ENGINE, Quantity::QuotaPeriods, |s| 10.0 * s);
    let with_waits = |waits: fn(f64) -> f64| {
        reason_of("cpu_throttled", &[periods, (ENGINE, Quantity::QuotaWaits, waits)])
    };
    let reason = with_waits(|s| 3.0 * s).unwrap();
    assert_eq!(reason.level, TrustLevel::Caution);
    assert!(reason.message.contains("in 30.0 % of the periods"), "{}", reason.message);
    assert_eq!(with_waits(|s| 0.3 * s), None);
    assert_eq!(reason_of("cpu_throttled", &[periods]), None, "nothing is known of its waits");
}
