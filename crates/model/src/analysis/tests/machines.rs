//! What is doubted because of what the machines did.

use super::*;
use crate::plan::{HostGpus, HostPlan, InstancePlan};
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

/// What machines that did `rows` for two minutes were seen to do.
fn telemetry(rows: &[Row]) -> Telemetry {
    let series = rows.iter().map(|(device, quantity, of)| series(*device, *quantity, *of));
    let interval = Nanos::from_secs(1);
    Telemetry { interval, series: series.collect(), ..Telemetry::default() }
}

/// Half of a machine that others use.
const CROWDED: [Row; 3] = [
    (HOST, Quantity::CpuAll, |s| 8.0 * s),
    (ENGINE, Quantity::ProcessCpu, |s| 3.0 * s),
    (HOST, Quantity::CpuBusy, |s| 7.5 * s),
];

/// A machine of which something else took time.
pub(super) fn crowded() -> Telemetry {
    telemetry(&CROWDED)
}

/// Engines on a machine that is not this one.
pub(super) fn plan_of(names: &[&str]) -> Plan {
    let on_host = |name: &&str| {
        let mut given = deployment(name, 1);
        given.engine = EngineKind::Vllm;
        given.instances = vec![InstancePlan {
            place: vec![HostGpus { host: "gpu1".to_owned(), ids: vec![0] }],
            ..instance(1)
        }];
        given
    };
    Plan { hosts: vec![host("gpu1")], ..plan(names.iter().map(on_host).collect()) }
}

/// The reason called `code` of a trial of a minute whose machines did `rows`.
fn reason_of(code: &str, rows: &[Row]) -> Option<crate::trust::Reason> {
    let mut trial = trial(1, 60, 100_000, 0);
    trial.facts.telemetry = Some(telemetry(rows));
    let plan = plan_of(&["a"]);
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

/// Where it took time is said, also where it did not it was more.
#[test]
fn a_machine_with_room_for_something_else_hides_no_crowded_one() {
    let plan = plan_of(&["a"]);
    let point = point_plan("a", 2, 2);
    let rows = |engine: fn(f64) -> f64, busy: fn(f64) -> f64| {
        telemetry(&[
            (HOST, Quantity::CpuAll, |s| 8.0 * s),
            (ENGINE, Quantity::ProcessCpu, engine),
            (HOST, Quantity::CpuBusy, busy),
        ])
    };
    let (mut roomy, mut crowded) = (trial(1, 60, 100_000, 0), trial(2, 60, 100_000, 0));
    roomy.facts.telemetry = Some(rows(|s| s, |s| 4.8 * s));
    crowded.facts.telemetry = Some(rows(|s| 5.2 * s, |s| 7.6 * s));
    let points = [MeasuredPoint { plan: &point, trials: vec![roomy, crowded] }];
    let results = analyse(&plan, &points, &Frame::default());
    let reasons = &results.points[0].trust.reasons;
    let reason = reasons.iter().find(|r| r.code == "foreign_load").unwrap();
    assert_eq!(reason.level, TrustLevel::Caution, "{}", reason.message);
    assert!(reason.message.starts_with("2.40 of the 8.00 cores"), "{}", reason.message);
}

/// Half of a machine that something else used may be all of it, or nothing, in the next trial.
#[test]
fn few_trials_beside_something_else_are_taken_for_nothing_alike() {
    const ALONE: [Row; 3] = [CROWDED[0], CROWDED[1], (HOST, Quantity::CpuBusy, |s| 3.0 * s)];
    let found = |rows: &[Row], a: &[u64], b: &[u64]| {
        let plan = plan_of(&["a", "b"]);
        let trials = |of: &[u64]| -> Vec<TrialRecords> {
            let one = |(n, us): (u32, &u64)| {
                let mut trial = trial(n, 60, *us, 1);
                trial.facts.telemetry = Some(telemetry(rows));
                trial
            };
            (1..).zip(of).map(one).collect()
        };
        let points = ["a", "b"].map(|name| point_plan(name, 2, 1));
        let points = [
            MeasuredPoint { plan: &points[0], trials: trials(a) },
            MeasuredPoint { plan: &points[1], trials: trials(b) },
        ];
        let results = analyse(&plan, &points, &Frame { run: "r", ..Frame::default() });
        let c = comparison(&results, "output_tps").clone();
        (c.verdict, c.ratio, results.verdicts[0].more.join("; "))
    };
    let (is, ratio, _) = found(&ALONE, &[1_000, 1_030], &[1_500, 1_545]);
    assert_eq!(is, ComparisonVerdict::Worse);
    assert!(ratio.method.starts_with("Student over 2 and 2"), "{ratio:?}");
    let (is, ratio, said) = found(&CROWDED, &[1_000, 1_030], &[1_500, 1_545]);
    assert_eq!(is, ComparisonVerdict::NoDifferenceSeen);
    assert!(ratio.method.starts_with("Welch over 2 and 2"), "{ratio:?}");
    assert!(ratio.method.ends_with("nothing is taken to be alike"), "{ratio:?}");
    assert!(said.contains("something else took time from the machines of a, b"), "{said}");

    let (is, ..) = found(&ALONE, &[1_000], &[1_500]);
    assert_eq!(is, ComparisonVerdict::Worse);
    for more in [&[1_500][..], &[1_500, 1_510, 1_505]] {
        let (is, ratio, said) = found(&CROWDED, &[1_000], more);
        assert_eq!(is, ComparisonVerdict::NoDifferenceSeen, "{ratio:?}");
        assert!(ratio.method.contains("widened by 400 %"), "{ratio:?}");
        assert!(said.contains("with fewer than 3 trials a side only a very large"), "{said}");
    }
    // What is ten times as fast is told all the same, and so is what three trials a side tell.
    let (is, ..) = found(&CROWDED, &[1_000], &[10_000]);
    assert_eq!(is, ComparisonVerdict::Worse);
    let (is, _, said) = found(&CROWDED, &[1_000, 1_010, 1_005], &[1_500, 1_510, 1_505]);
    assert_eq!(is, ComparisonVerdict::Worse);
    assert!(!said.contains("something else"), "{said}");
}
