use super::*;
use crate::telemetry::Reading;
use crate::units::Nanos;

const SECOND: Nanos = Nanos::from_secs(1);

fn device(part: Part, name: &str, index: Option<u32>) -> Device {
    Device { host: "node1".into(), part, name: name.into(), index, role: None }
}

/// Readings at every second from 0 to 20.
fn series(device: &Device, quantity: Quantity, of: impl Fn(u32) -> f64) -> Series {
    let reading = |s: u32| {
        let at = Nanos::from_secs(u64::from(s));
        Reading { from: at, to: at, value: of(s) }
    };
    Series { device: device.clone(), quantity, readings: (0..=20).map(reading).collect() }
}

fn telemetry(series: Vec<Series>) -> Telemetry {
    Telemetry { interval: SECOND, series, ..Telemetry::default() }
}

fn given(ids: &[u32]) -> Allocated {
    let gpu = |id: &u32| AllocatedGpu {
        host: "node1".into(),
        id: *id,
        instance: Some(0),
        role: Role::Aggregated,
    };
    let hosts = BTreeSet::from(["node1".to_owned()]);
    Allocated { hosts, gpus: ids.iter().map(gpu).collect(), ..Allocated::default() }
}

fn of(telemetry: &Telemetry, ids: &[u32]) -> Usage {
    let window = Window { from: Nanos::from_secs(2), to: Nanos::from_secs(12) };
    usage(telemetry, window, &given(ids), Some(5.0))
}

fn power(id: u32, watts: f64) -> Series {
    series(&device(Part::Gpu, &format!("GPU-{id}"), Some(id)), Quantity::Power, |_| watts)
}

fn counted(id: u32, watts: f64) -> Series {
    let gpu = device(Part::Gpu, &format!("GPU-{id}"), Some(id));
    series(&gpu, Quantity::Energy, |t| 1e6 + watts * f64::from(t))
}

#[test]
fn idle_gpus_of_the_deployment_count_and_others_do_not() {
    let telemetry = telemetry(vec![power(0, 700.0), power(1, 100.0), power(2, 500.0)]);
    let energy = of(&telemetry, &[0, 1]).energy.unwrap();
    assert_eq!(energy.gpus, 2);
    let by_role = energy.joules_by_role["aggregated"];
    let found = [energy.joules, energy.mean_w, energy.max_gpu_w.unwrap(), by_role];
    for (found, want) in found.into_iter().zip([8_000.0, 800.0, 700.0, 8_000.0]) {
        assert!((found - want).abs() < 1e-6, "{found} is not {want}");
    }
    assert_eq!(energy.counted_joules, None, "these have no counter");
}

/// What was not read from second 4 to 9 was counted; a counter that may have begun anew meanwhile says nothing.
#[test]
fn over_a_hole_in_its_readings_a_gpu_took_what_its_counter_says() {
    let with_hole = |series: &Series| {
        let is_read = |r: &&Reading| !(Nanos::from_secs(5)..Nanos::from_secs(9)).contains(&r.at());
        let readings = series.readings.iter().filter(is_read).copied().collect();
        Series { readings, ..series.clone() }
    };
    let both = vec![with_hole(&power(0, 300.0)), with_hole(&counted(0, 250.0))];
    let found = of(&telemetry(both), &[0]);
    let energy = found.energy.unwrap();
    assert!((energy.joules - 2_500.0).abs() < 1e-6, "{energy:?}");
    assert!((energy.mean_w - 250.0).abs() < 1e-6, "{energy:?}");
    assert_eq!((energy.counted_joules, energy.max_gpu_w), (Some(energy.joules), None));
    let codes: Vec<_> = found.flaws.iter().map(|f| (f.quantity, f.kind.code())).collect();
    assert_eq!(codes[0], (Quantity::Power, "gap"), "{codes:?}");

    let small = |t: u32| 250.0 * f64::from(t % 8);
    let gpu = device(Part::Gpu, "GPU-0", Some(0));
    let anew = with_hole(&series(&gpu, Quantity::Energy, small));
    let found = of(&telemetry(vec![with_hole(&power(0, 300.0)), anew]), &[0]);
    assert_eq!(found.energy, None);
    assert_eq!(found.flaws[0].kind.code(), "gap");
}

#[test]
fn a_gpu_without_readings_leaves_no_energy_and_is_named() {
    let usage = of(&telemetry(vec![power(0, 700.0)]), &[0, 3]);
    assert_eq!(usage.energy, None);
    let flaw = &usage.flaws[0];
    assert_eq!((flaw.device.as_str(), flaw.kind.code()), ("node1 gpu 3", "device_missing"));
}

/// Whose part of the card took which part of its power nobody reads.
#[test]
fn a_part_of_a_card_has_its_memory_and_never_the_power_of_the_card() {
    let gpu = device(Part::Gpu, "GPU-0", Some(0));
    let part = device(Part::Gpu, "MIG-7c1b", None);
    let usage = of(
        &telemetry(vec![
            power(0, 400.0),
            series(&gpu, Quantity::MigEnabled, |_| 1.0),
            series(&gpu, Quantity::GpuBusy, |_| 50.0),
            series(&part, Quantity::GpuMemoryUsed, |_| 4e9),
            series(&part, Quantity::GpuMemoryTotal, |_| 10e9),
            power(1, 300.0),
        ]),
        &[0, 1],
    );
    assert_eq!((usage.energy, usage.host_energy, usage.busy_sample_power_w), (None, None, None));
    let flaw = usage.flaws.iter().find(|f| f.device == "node1 gpu 0").unwrap();
    assert_eq!(flaw.kind, FlawKind::CutIntoInstances);
    let [card, other, part] = &usage.gpus[..] else { panic!("{:#?}", usage.gpus) };
    assert_eq!((card.role, other.role, part.role), (None, Some(Role::Aggregated), None));
    assert_eq!((part.name.as_deref(), part.index), (Some("MIG-7c1b"), None));
    assert!((part.memory_pct.unwrap().mean - 40.0).abs() < 1e-9, "{part:#?}");
    assert_eq!((part.power_w, part.busy_pct), (None, None));
}

#[test]
fn an_energy_counter_that_disagrees_is_told_and_one_that_agrees_is_not() {
    let agreeing = of(&telemetry(vec![power(0, 700.0), counted(0, 690.0)]), &[0]);
    assert_eq!(agreeing.energy.unwrap().counted_joules, Some(6_900.0));
    assert_eq!(agreeing.flaws, []);
    let usage = of(&telemetry(vec![power(0, 700.0), counted(0, 350.0)]), &[0]);
    assert_eq!(usage.flaws[0].kind, FlawKind::Disagrees { ratio: 2.0 });
    assert!(usage.energy.is_some(), "a number in doubt is shown with its doubt");
}

#[test]
fn cores_memory_and_network_of_a_host_are_shares_and_rates() {
    let host = device(Part::Host, "node1", None);
    let eth0 = device(Part::Nic, "eth0", None);
    let usage = of(
        &telemetry(vec![
            series(&host, Quantity::CpuAll, |t| 8.0 * f64::from(t)),
            // Two cores busy, and four for one second.
            series(&host, Quantity::CpuBusy, |t| {
                2.0 * f64::from(t) + if t > 5 { 2.0 } else { 0.0 }
            }),
            series(&host, Quantity::MemoryTotal, |_| 64e9),
            series(&host, Quantity::MemoryUsed, |t| if t == 7 { 48e9 } else { 16e9 }),
            series(&eth0, Quantity::Received, |t| 125e6 * f64::from(t)),
            series(&eth0, Quantity::Sent, |_| 0.0),
            series(&eth0, Quantity::LinkSpeed, |_| 1e9),
        ]),
        &[],
    );
    let found = &usage.hosts[0];
    assert!(found.serves);
    assert_eq!(found.cores, Some(8.0));
    let cpu = found.cpu_pct.unwrap();
    assert!((cpu.mean - 27.5).abs() < 1e-9 && (cpu.max.unwrap() - 50.0).abs() < 1e-9, "{cpu:?}");
    assert_eq!(found.memory_pct.and_then(|m| m.max), Some(75.0));
    let link = &usage.links[0];
    assert!((link.received_gbps.unwrap().mean - 1.0).abs() < 1e-9);
    assert!((link.peak_share().unwrap() - 1.0).abs() < 1e-9);
    assert_eq!(usage.energy, None, "no GPU was read");
}

/// Nobody read from 4 to 9 s.
fn unread(mut series: Series) -> Series {
    series.readings.retain(|r| r.at() <= Nanos::from_secs(4) || r.at() >= Nanos::from_secs(9));
    series
}

/// A machine of eight cores that has run for `up_s` by then, and what was read of it around a hole.
fn around_a_hole(up_s: impl Fn(f64) -> f64) -> Usage {
    let (host, eth0) = (device(Part::Host, "node1", None), device(Part::Nic, "eth0", None));
    let engine = device(Part::Process, "a/0/engine 4711 python3", None);
    of(
        &telemetry(vec![
            unread(series(&host, Quantity::CpuAll, |t| 8.0 * up_s(f64::from(t)))),
            unread(series(&host, Quantity::CpuBusy, |t| 2.0 * f64::from(t))),
            unread(series(&host, Quantity::MemoryUsed, |_| 16e9)),
            unread(series(&host, Quantity::TcpSent, |t| 1e6 + f64::from(t))),
            unread(series(&engine, Quantity::ProcessCpu, |t| 1.5 * f64::from(t))),
            unread(series(&eth0, Quantity::Received, |t| 1e12 + 125e6 * f64::from(t))),
        ]),
        &[],
    )
}

#[test]
fn cores_in_use_are_known_across_a_gap_and_what_may_have_begun_anew_in_it_is_not() {
    let usage = around_a_hole(|t| 3_600.0 + t);
    let (host, process) = (&usage.hosts[0], &usage.processes[0]);
    for (found, mean) in [(host.cpu_pct, 25.0), (process.cpu_cores, 1.5)] {
        let found = found.unwrap();
        assert!((found.mean - mean).abs() < 1e-9 && found.max.is_none(), "{found:?}");
    }
    assert!((host.foreign_cores.unwrap() - 0.5).abs() < 1e-9, "{host:?}");
    assert_eq!(
        (host.memory_bytes, host.tcp_resent_pct, usage.links[0].received_gbps),
        (None, None, None)
    );
    // Each number that is absent, whole or in part, has its reason.
    let told: Vec<(&str, Quantity)> =
        usage.flaws.iter().map(|f| (f.device.as_str(), f.quantity)).collect();
    for quantity in [Quantity::CpuAll, Quantity::CpuBusy, Quantity::MemoryUsed, Quantity::TcpSent] {
        assert!(told.contains(&("node1", quantity)), "{quantity:?}: {told:?}");
    }
    assert!(told.contains(&("node1 nic eth0", Quantity::Received)), "{told:?}");
    assert!(usage.flaws.iter().all(|f| f.kind == FlawKind::Gap { seconds: 5.0 }), "{told:?}");
}

#[test]
fn a_machine_that_may_have_been_started_anew_in_a_gap_has_no_number() {
    // As many cores' seconds behind the hole as before it.
    let usage = around_a_hole(|t| if t < 5.0 { t } else { t - 5.0 });
    assert_eq!((usage.hosts[0].cpu_pct, usage.processes[0].cpu_cores), (None, None), "{usage:?}");
}

#[test]
fn processes_beside_the_instances_are_what_the_plan_has_them_for() {
    let router = device(Part::Process, "a/infra/router 4711 scalebeam", None);
    let engine = Device {
        role: Some(Role::Decode),
        ..device(Part::Process, "a/0/engine 4712 python3", None)
    };
    let telemetry = telemetry(vec![
        series(&router, Quantity::ProcessCpu, f64::from),
        series(&engine, Quantity::ProcessCpu, f64::from),
        series(&device(Part::Process, "load generator", None), Quantity::ProcessCpu, f64::from),
    ]);
    let mut plan = crate::analysis::tests::deployment("a", 1);
    let infra = serde_json::json!({
        "id": "a/infra/router", "host": "node1", "program": "scalebeam", "args": [], "env": {},
        "ports": [], "gpus": [], "rank": 0, "log": "logs/a/infra-router.log"
    });
    plan.processes.push(serde_json::from_value(infra).unwrap());
    let window = Window { from: Nanos::from_secs(2), to: Nanos::from_secs(12) };
    let usage = usage(&telemetry, window, &Allocated::of(&plan, &[]), None);
    let parts: Vec<(&str, Option<&str>)> =
        usage.processes.iter().map(|p| (p.name.split(' ').next().unwrap(), p.part())).collect();
    assert_eq!(
        parts,
        [("a/0/engine", Some("decode")), ("a/infra/router", Some("router")), ("load", None)]
    );
}

#[test]
fn an_energy_counter_that_began_anew_is_told_and_the_integral_stands() {
    let reset = series(&device(Part::Gpu, "GPU-0", Some(0)), Quantity::Energy, |t| {
        if t < 7 { 1e6 + 700.0 * f64::from(t) } else { 700.0 * f64::from(t) }
    });
    let usage = of(&telemetry(vec![power(0, 700.0), reset]), &[0]);
    let energy = usage.energy.unwrap();
    assert!((energy.mean_w - 700.0).abs() < 1e-9 && energy.counted_joules.is_none(), "{energy:?}");
    let [flaw] = &usage.flaws[..] else { panic!("{:?}", usage.flaws) };
    assert_eq!((flaw.quantity, flaw.kind), (Quantity::Energy, FlawKind::CounterReset));
}

#[test]
fn cores_that_are_in_use_by_others_are_all_but_those_of_the_run() {
    let host = device(Part::Host, "node1", None);
    let engine = device(Part::Process, "a/0/engine 4711", None);
    let elsewhere = Device { host: "node2".into(), ..engine.clone() };
    let mut all = vec![
        series(&host, Quantity::CpuAll, |t| 8.0 * f64::from(t)),
        series(&host, Quantity::CpuBusy, |t| 3.0 * f64::from(t)),
        series(&elsewhere, Quantity::ProcessCpu, f64::from),
    ];
    assert_eq!(of(&telemetry(all.clone()), &[]).hosts[0].foreign_cores, None, "none was read here");
    all.push(series(&engine, Quantity::ProcessCpu, |t| 1.75 * f64::from(t)));
    let foreign = of(&telemetry(all.clone()), &[]).hosts[0].foreign_cores.unwrap();
    assert!((foreign - 1.25).abs() < 1e-9, "{foreign}");
    // One that began within the window has no mean, and what it used would be called another's.
    let late = device(Part::Process, "a/0/worker 4712", None);
    let mut begun = series(&late, Quantity::ProcessCpu, f64::from);
    begun.readings.drain(..8);
    all.push(begun);
    assert_eq!(of(&telemetry(all), &[]).hosts[0].foreign_cores, None);
}

#[test]
fn seed_four_s_number_is_the_mean_of_the_busy_samples() {
    let gpu = device(Part::Gpu, "GPU-0", Some(0));
    let is_busy = |t: u32| (4..6).contains(&t);
    let usage = of(
        &telemetry(vec![
            series(&gpu, Quantity::Power, |t| if is_busy(t) { 600.0 } else { 100.0 }),
            series(&gpu, Quantity::GpuBusy, |t| if is_busy(t) { 99.0 } else { 5.0 }),
        ]),
        &[0],
    );
    assert_eq!(usage.busy_sample_power_w, Some(600.0));
    assert!(usage.energy.unwrap().mean_w < 250.0, "the energy is another thing");
}

#[test]
fn why_clocks_were_held_down_is_counted_by_reading() {
    let gpu = device(Part::Gpu, "GPU-0", Some(0));
    // Idle is no reason to worry; a power cap in one reading of eleven is told.
    let reasons = |t: u32| if t == 5 { 4.0 } else { 1.0 };
    let usage = of(&telemetry(vec![series(&gpu, Quantity::ClockReasons, reasons)]), &[0]);
    let held = &usage.gpus[0].held_down_pct;
    assert_eq!(held.keys().collect::<Vec<_>>(), ["power cap"]);
    assert!((held["power cap"] - 100.0 / 11.0).abs() < 1e-9);
}

#[test]
fn hosts_that_are_this_machine_are_one() {
    let host = |name: &str, ssh: Option<&str>| HostPlan {
        name: name.into(),
        addr: "127.0.0.1".into(),
        ssh: ssh.map(str::to_owned),
        gpus: 0,
        gpu: None,
        iface: None,
        labels: BTreeMap::new(),
    };
    let hosts = [host("far", Some("far")), host("here", None), host("also-here", None)];
    let mut deployment = crate::analysis::tests::deployment("a", 1);
    deployment.platform = Platform::Ssh;
    assert_eq!(machine(&deployment, &hosts, "also-here"), "here");
    assert_eq!(machine(&deployment, &hosts, "far"), "far");
    assert_eq!(this_machine(&deployment, &hosts), "here");
    // Nodes of a cluster have no name for ssh, and are not this machine.
    deployment.platform = Platform::Kuberay;
    assert_eq!(machine(&deployment, &hosts, "also-here"), "also-here");
    assert_eq!(this_machine(&deployment, &hosts), THIS_MACHINE);
}

#[test]
fn a_clock_that_is_known_worse_than_readings_lie_apart_is_named() {
    let clock = |bound_s| HostClock { host: "node1".into(), bound_s, ..HostClock::default() };
    let host = device(Part::Host, "node1", None);
    let mut found = telemetry(vec![series(&host, Quantity::CpuBusy, f64::from)]);
    found.clocks = vec![clock(0.4)];
    let usage = of(&found, &[]);
    assert_eq!((usage.clocks.len(), usage.flaws.len()), (1, 0), "{usage:?}");
    found.clocks = vec![clock(0.6)];
    let flaws = of(&found, &[]).flaws;
    assert_eq!(flaws[0].device, "node1");
    assert_eq!(flaws[0].kind, FlawKind::ClockUncertain { bound_s: 0.6 });
    assert_eq!(flaws[0].kind.code(), "clock_uncertain");
}
