//! Deployments that come up.

use crate::bench::{Bench, is_anywhere, plan, process, servers, set_env};
use scalebeam_fleet::journal::Event;
use scalebeam_fleet::teardown::Ended;
use scalebeam_fleet::{FleetError, State};
use scalebeam_model::plan::{EnvValue, Platform};
use scalebeam_model::units::Nanos;
use std::time::Duration;

const GRACE: Nanos = Nanos::from_secs(5);

#[tokio::test]
async fn two_replicas_pass_every_gate_and_leave_nothing() {
    let bench = Bench::new();
    let plan = servers(&bench, 2);
    let running = bench.up(&plan).await.unwrap();
    assert_eq!(running.state(), State::Verified);
    assert_eq!(running.endpoints().len(), 2);
    running.check_alive().unwrap();
    let pids: Vec<i32> = running.processes().iter().map(|p| p.pid).collect();
    assert_ne!(pids[0], pids[1]);

    let report = running.take_down(GRACE).await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.ends.iter().all(|e| e.ended == Ended::Terminated), "{report:?}");
    assert_eq!(bench.states(), ["starting", "alive", "serving", "verified", "draining", "gone"]);
    let released =
        bench.events().iter().filter(|e| matches!(e, Event::PortReleased { .. })).count();
    assert_eq!(released, 2);
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn intents_are_in_the_journal_before_starts() {
    let bench = Bench::new();
    let plan = servers(&bench, 1);
    let running = bench.up(&plan).await.unwrap();
    let events = bench.events();
    let at = |want: fn(&Event) -> bool| events.iter().position(want).unwrap();
    assert!(
        at(|e| matches!(e, Event::ProcessIntent(_)))
            < at(|e| matches!(e, Event::ProcessStarted { .. }))
    );
    running.take_down(GRACE).await;
}

#[tokio::test]
async fn a_death_under_load_is_noticed_at_once() {
    let bench = Bench::new();
    let mut plan = servers(&bench, 1);
    plan.processes.push(process(
        "d/0/helper",
        "/bin/sh",
        &["-c", "read x < /dev/zero & sleep 2; echo bye; exit 3"],
    ));
    let running = bench.up(&plan).await.unwrap();
    running.check_alive().unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), running.died()).await.unwrap();
    let text = error.to_string();
    assert!(
        text.contains("d/0/helper") && text.contains("status 3") && text.contains("bye"),
        "{text}"
    );
    assert!(running.check_alive().is_err());
    // What the dead leader left in its group goes too.
    assert!(running.take_down(GRACE).await.is_clean());
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn an_inherited_secret_reaches_the_process_and_no_file() {
    let name = "CARGO_PKG_DESCRIPTION";
    let secret = std::env::var(name).expect("cargo sets it");
    let bench = Bench::new();
    let mut one = process(
        "d/0/serve",
        "/bin/sh",
        &["-c", "test -n \"$CARGO_PKG_DESCRIPTION\" && echo it is set; sleep 60"],
    );
    set_env(&mut one, name, EnvValue::INHERIT);
    set_env(&mut one, "PLAIN", EnvValue::Set("visible".into()));
    let running = bench.up(&plan(vec![one])).await.unwrap();
    let log = bench.dir.path().join("logs/d-0-serve.log");
    crate::bench::eventually(|| {
        std::fs::read_to_string(&log).ok().filter(|t| t.contains("it is set"))
    })
    .await;
    running.take_down(GRACE).await;
    assert!(is_anywhere(bench.dir.path(), "visible").is_some());
    assert!(is_anywhere(bench.dir.path(), name).is_some());
    assert_eq!(is_anywhere(bench.dir.path(), &secret), None);
}

#[tokio::test]
async fn attaching_starts_and_stops_nothing() {
    let theirs = Bench::new();
    let deployment = servers(&theirs, 1);
    let running = theirs.up(&deployment).await.unwrap();

    let ours = Bench::new();
    let mut attached = deployment.clone();
    attached.platform = Platform::External;
    attached.processes.clear();
    attached.ready.gates.remove(0);
    let session = ours.up(&attached).await.unwrap();
    assert!(session.processes().is_empty());
    assert!(session.take_down(GRACE).await.is_clean());
    running.check_alive().unwrap();

    let mut other = attached.clone();
    other.ready.gates = vec![scalebeam_model::plan::Gate::ModelListed { model: "mm".into() }];
    let error = ours.up(&other).await.unwrap_err();
    assert!(matches!(error, FleetError::ModelNotServed { .. }), "{error}");
    assert!(error.hint().unwrap().contains("served = \"m\""), "{error}");
    running.take_down(GRACE).await;
}

/// The binary may spawn it on any of its threads.
#[test]
fn a_bring_up_can_be_moved_between_threads() {
    fn check<T: Send>(_: T) {}
    let bench = Bench::new();
    let plan = plan(Vec::new());
    check(scalebeam_fleet::bring_up(&plan, &bench.ctx, &|_| {}));
    check(scalebeam_fleet::down_run(bench.dir.path(), None, bench.ctx.clock.clone()));
}
