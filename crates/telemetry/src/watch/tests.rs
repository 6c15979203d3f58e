use super::*;
use scalebeam_model::telemetry::{Part, Quantity};
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that goes on by a millisecond at each look, so that nothing depends on the machine's load.
#[derive(Debug, Default)]
struct Stepping(AtomicU64);

impl Clock for Stepping {
    fn now(&self) -> Nanos {
        Nanos(self.0.fetch_add(1_000_000, Ordering::SeqCst))
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}

fn watch() -> Watch {
    let plan = TelemetryPlan { interval: Nanos::from_millis(100), ..TelemetryPlan::default() };
    let own_name = Some("this test".to_owned());
    let watched = Watched { own_name, marker: "NO=such".into(), ..Watched::default() };
    let config = WatchConfig { host: "here".into(), plan, watched: Some(watched) };
    Watch::start(config, Arc::new(Stepping::default())).unwrap()
}

#[test]
fn what_is_read_lies_around_the_measurement() {
    let watch = watch();
    watch.begin();
    let found = watch.end().unwrap();
    let hosts = found.devices(Part::Host);
    assert_eq!(hosts.len(), 1);
    let busy = found.of(hosts[0], Quantity::CpuBusy).unwrap();
    assert!(busy.readings.len() >= 2, "one before and one after: {busy:?}");
    assert!(busy.readings.windows(2).all(|w| w[0].to < w[1].from), "{busy:?}");
    assert!(busy.readings.iter().all(|r| r.from < r.to), "{busy:?}");
    assert!(!found.devices(Part::Nic).is_empty());
    assert_eq!(found.devices(Part::Process).len(), 1, "this test itself");
}

#[test]
fn a_second_measurement_has_nothing_of_the_first() {
    let watch = watch();
    watch.begin();
    let first = watch.end().unwrap();
    assert!(watch.end().is_none(), "nothing was begun");
    watch.begin();
    let second = watch.end().unwrap();
    let last = |t: &Telemetry| t.series[0].readings.last().unwrap().to;
    let begin = second.series.iter().flat_map(|s| &s.readings).map(|r| r.from).min().unwrap();
    assert!(begin > last(&first));
}

#[test]
fn what_is_not_there_is_told_with_its_reason() {
    let found = {
        let watch = watch();
        watch.begin();
        watch.end().unwrap()
    };
    for absent in &found.absent {
        assert!(!absent.why.is_empty() && absent.host == "here", "{absent:?}");
    }
    if found.devices(Part::Gpu).is_empty() {
        let named = found.absent.iter().filter(|a| a.what.starts_with("GPUs")).count();
        assert!(named >= 1, "{:?}", found.absent);
    }
}
