use super::*;
use crate::plan::Role;
use crate::telemetry::{Reading, Series};
use crate::units::Nanos;

fn device(part: Part, name: &str, index: Option<u32>) -> Device {
    Device { host: "node1".into(), part, name: name.into(), index, role: None }
}

/// Readings from 0 to 20 s.
fn series(device: Device, quantity: Quantity, every_s: usize, of: impl Fn(u32) -> f64) -> Series {
    let reading = |s: u32| {
        let at = Nanos::from_secs(u64::from(s));
        Reading { from: at, to: at, value: of(s) }
    };
    Series { device, quantity, readings: (0..=20).step_by(every_s).map(reading).collect() }
}

fn zone_of(name: &str, watts: f64) -> Series {
    series(device(Part::Package, name, None), Quantity::Energy, 1, |t| 7.0 + watts * f64::from(t))
}

fn gpu(id: u32, watts: f64) -> Series {
    series(device(Part::Gpu, &format!("GPU-{id}"), Some(id)), Quantity::Power, 1, |_| watts)
}

fn chassis(watts: f64) -> Series {
    series(device(Part::Chassis, "redfish", None), Quantity::Power, 5, |_| watts)
}

fn given(gpus: &[u32]) -> Allocated {
    let gpu = |id: &u32| AllocatedGpu {
        host: "node1".into(),
        id: *id,
        instance: Some(0),
        role: Role::Aggregated,
    };
    let hosts = BTreeSet::from(["node1".to_owned()]);
    Allocated { hosts, gpus: gpus.iter().map(gpu).collect(), ..Allocated::default() }
}

fn of(series: Vec<Series>, allocated: &Allocated) -> (Option<HostEnergy>, Vec<Flaw>) {
    let telemetry = Telemetry { interval: Nanos::from_secs(1), series, ..Telemetry::default() };
    let window = Window { from: Nanos::from_secs(2), to: Nanos::from_secs(12) };
    let mut flaws = Vec::new();
    (of_hosts(&telemetry, allocated, window, &mut flaws), flaws)
}

fn watts(series: Vec<Series>, allocated: &Allocated) -> f64 {
    let (energy, flaws) = of(series, allocated);
    assert_eq!(flaws, []);
    energy.unwrap().mean_w
}

#[track_caller]
fn close(found: f64, want: f64) {
    assert!((found - want).abs() < 1e-6, "{found} is not {want}");
}

#[test]
fn packages_and_their_memory_are_counted_once_each() {
    let zones = || {
        vec![
            zone_of("intel-rapl:0 package-0", 100.0),
            zone_of("intel-rapl:0:0 core", 60.0),
            zone_of("intel-rapl:0:1 dram", 20.0),
            zone_of("intel-rapl:1 package-1", 110.0),
            zone_of("intel-rapl:1:1 dram", 25.0),
            zone_of("intel-rapl:2 psys", 400.0),
            zone_of("intel-rapl-mmio:0 package-0", 100.0),
            zone_of("intel-rapl-mmio:0:1 dram", 20.0),
        ]
    };
    close(watts(zones(), &given(&[])), 255.0);
    let with_gpus = [zones(), vec![gpu(0, 700.0), gpu(1, 90.0), gpu(2, 500.0)]].concat();
    close(watts(with_gpus, &given(&[0, 1])), 255.0 + 790.0);
}

#[test]
fn a_whole_machine_has_its_gpus_inside() {
    let read = vec![zone_of("intel-rapl:0 package-0", 100.0), gpu(0, 700.0), chassis(1_300.0)];
    let (energy, flaws) = of(read, &given(&[0]));
    assert_eq!(flaws, [], "it answers every five seconds, and that is no hole");
    let energy = energy.unwrap();
    close(energy.joules, 13_000.0);
    assert_eq!(energy.by_host[0].by, PowerBy::WholeMachine);
    assert_eq!(energy.by_host[0].counted, ["chassis redfish"]);
}

#[test]
fn a_controller_that_fell_silent_leaves_the_packages() {
    let mut silent = chassis(1_300.0);
    silent.readings.truncate(1);
    let read = vec![zone_of("intel-rapl:0 package-0", 100.0), gpu(0, 700.0), silent];
    let (energy, flaws) = of(read, &given(&[0]));
    close(energy.unwrap().mean_w, 800.0);
    assert_eq!(flaws[0].device, "node1 chassis redfish");
}

#[test]
fn a_machine_or_a_gpu_without_power_leaves_no_sum() {
    let zone = || zone_of("intel-rapl:0 package-0", 100.0);
    assert_eq!(of(vec![zone()], &given(&[0])).0, None, "its GPU was not read");
    assert_eq!(of(vec![gpu(0, 700.0)], &given(&[0])).0, None, "nothing of the host");
    let mut two = given(&[]);
    two.hosts.insert("node2".to_owned());
    assert_eq!(of(vec![zone()], &two).0, None, "node2 was not read");
    let emulated = Allocated { is_emulated: true, ..given(&[]) };
    assert_eq!(of(vec![zone()], &emulated).0, None, "watts of an idea");
}

#[test]
fn a_package_whose_counter_began_anew_is_told() {
    let name = "intel-rapl:0 package-0";
    let reset = |t: u32| if t < 6 { 1e4 + f64::from(t) } else { f64::from(t) };
    let read = vec![series(device(Part::Package, name, None), Quantity::Energy, 1, reset)];
    let (energy, flaws) = of(read, &given(&[]));
    assert_eq!(energy, None);
    assert_eq!((flaws[0].kind, flaws[0].quantity), (FlawKind::CounterReset, Quantity::Energy));
}
