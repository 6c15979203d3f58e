use super::*;
use crate::results::MetricValue;

const fn steady(value: f64) -> Option<MeanMax> {
    Some(MeanMax { mean: value, max: Some(value) })
}

fn gpu(index: u32, role: Role, busy: f64) -> GpuUse {
    GpuUse {
        host: "node1".to_owned(),
        index: Some(index),
        instance: Some(0),
        role: Some(role),
        busy_pct: steady(busy),
        power_w: steady(busy * 4.0),
        ..GpuUse::default()
    }
}

fn process(role: Option<Role>, cores: f64) -> ProcessUse {
    ProcessUse { role, cpu_cores: steady(cores), ..ProcessUse::default() }
}

fn link(name: &str, gbps: f64, speed_gbps: Option<f64>) -> LinkUse {
    LinkUse {
        host: "node1".to_owned(),
        name: name.to_owned(),
        received_gbps: steady(gbps / 2.0),
        sent_gbps: steady(gbps),
        speed_gbps,
        dropped: None,
    }
}

fn pools() -> Usage {
    Usage {
        gpus: vec![
            gpu(0, Role::Prefill, 80.0),
            gpu(1, Role::Prefill, 100.0),
            gpu(2, Role::Decode, 30.0),
        ],
        processes: vec![
            process(Some(Role::Prefill), 1.5),
            process(Some(Role::Prefill), 0.5),
            process(None, 7.0),
        ],
        links: vec![
            link("lo", 90.0, None),
            link("eth0", 6.0, Some(10.0)),
            link("eth1", 20.0, Some(100.0)),
        ],
        ..Usage::default()
    }
}

#[test]
fn every_role_is_told_with_its_idle_time_and_a_part_without_readings_is_not() {
    let usage = pools();
    let account = account(&Metrics::new(), &[Some(usage)]).unwrap();
    assert_eq!(
        account.text(),
        "Prefill: 2 GPUs busy for 90.0 % of the time (80.0 % to 100 % each), idle for 10.0 %, 720 W; its processes used 2.00 cores. \
         Decode: 1 GPU busy for 30.0 % of the time, idle for 70.0 %, 120 W. \
         The fullest link, eth0 of node1, carried 6.00 of 10.0 Gbit/s at most (60.0 %), 6.00 on average."
    );
}

#[test]
fn trials_are_averaged_and_a_trial_that_was_not_watched_is_none_of_them() {
    let mut second = pools();
    second.gpus[2] = gpu(2, Role::Decode, 50.0);
    let account = account(&Metrics::new(), &[Some(pools()), None, Some(second)]).unwrap();
    let decode = &account.roles[1];
    assert_eq!((decode.role, decode.gpu_busy_pct), (Role::Decode, Some(40.0)));
    assert_eq!(decode.gpu_power_w, Some(160.0));
    assert_eq!(decode.gpu_busy_range_pct, None, "it is one GPU, seen twice");
}

#[test]
fn a_gpu_that_does_not_say_how_busy_it_is_leaves_its_role_without_a_share() {
    let mut usage = pools();
    usage.gpus[1].busy_pct = None;
    let account = account(&Metrics::new(), &[Some(usage)]).unwrap();
    assert_eq!(account.roles[0].gpu_busy_pct, None);
    assert!(account.text().starts_with("Prefill: 2 GPUs of unknown use, 720 W;"));
}

#[test]
fn a_link_without_a_speed_is_told_only_where_no_other_says_its_own() {
    let mut usage = Usage { links: vec![link("eth0", 6.0, None)], ..Usage::default() };
    let text = |usage: &Usage| account(&Metrics::new(), &[Some(usage.clone())]).unwrap().text();
    assert!(text(&usage).ends_with("it does not say its speed."), "{}", text(&usage));
    usage.links.push(link("eth1", 0.1, Some(10.0)));
    assert!(text(&usage).starts_with("The fullest link, eth1"), "{}", text(&usage));
    let quiet = Usage { links: vec![link("eth0", 1e-4, Some(10.0))], ..Usage::default() };
    assert_eq!(account(&Metrics::new(), &[Some(quiet)]), None, "a quiet link is not told");
}

#[test]
fn the_time_to_the_first_token_needs_all_of_its_parts() {
    let parts = [
        ("ttft_sent_ms.mean", 400.0),
        ("engine_queue_ms", 300.0),
        ("engine_prefill_ms", 80.0),
        ("outside_engine_ms", 20.0),
    ];
    let number = |(name, n): (&str, f64)| (name.to_owned(), MetricValue::Number(n));
    let mut metrics: Metrics = parts.map(number).into_iter().collect();
    assert_eq!(
        account(&metrics, &[]).unwrap().text(),
        "Of 400 ms to the first token, 300 ms (75.0 %) went in the engine's queue, 80.0 ms (20.0 %) in its prefill and 20.0 ms (5.00 %) outside of both."
    );
    metrics.remove("engine_queue_ms");
    assert_eq!(account(&metrics, &[]), None);
}
