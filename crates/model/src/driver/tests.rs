//! The driver on a virtual clock: a server whose service time is known answers it.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

fn plan(shape: LoadShape) -> PhasePlan {
    PhasePlan {
        phase: Phase::Measure,
        shape,
        requests: None,
        duration: None,
        timeout: Nanos::from_secs(3_600),
        targets: 1,
        balance: Balance::LeastInflight,
    }
}

fn open(rate_rps: f64, max_in_flight: Option<u32>) -> LoadShape {
    LoadShape::Open { arrival: ArrivalKind::Constant, rate_rps, seed: 1, max_in_flight }
}

/// What became of one request on the virtual clock.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    index: u64,
    target: u16,
    scheduled_at: Nanos,
    sent_at: Option<Nanos>,
    cancelled: Option<CancelReason>,
}

/// Runs a driver against a server that answers each request after `service(index)`.
fn run(plan: &PhasePlan, shard: Shard, service: impl Fn(u64) -> Nanos) -> (Vec<Seen>, usize) {
    let mut driver = Driver::new(plan, shard);
    let mut seen: Vec<Seen> = Vec::new();
    let mut heap: BinaryHeap<Reverse<(Nanos, u64)>> = BinaryHeap::new();
    let mut wake: Option<Nanos> = None;
    let (mut out, mut peak) = (Vec::new(), 0);
    let mut next = Some((Nanos::ZERO, Input::Start));
    while let Some((now, input)) = next {
        driver.step(now, input, &mut out);
        peak = peak.max(driver.in_flight());
        if wake.is_some_and(|at| at <= now) {
            wake = None;
        }
        for action in out.drain(..) {
            match action {
                Action::Send(d) => {
                    seen.push(Seen {
                        index: d.index,
                        target: d.target,
                        scheduled_at: d.scheduled_at,
                        sent_at: Some(now),
                        cancelled: None,
                    });
                    heap.push(Reverse((now + service(d.index), d.index)));
                }
                Action::WakeAt(at) => wake = Some(wake.map_or(at, |w: Nanos| w.min(at))),
                Action::Cancel { index, why } => {
                    seen.iter_mut().find(|s| s.index == index).unwrap().cancelled = Some(why);
                    heap.retain(|Reverse((_, i))| *i != index);
                    heap.push(Reverse((now, index)));
                }
                Action::Drop { index, scheduled_at } => seen.push(Seen {
                    index,
                    target: 0,
                    scheduled_at,
                    sent_at: None,
                    cancelled: None,
                }),
                Action::Done => return (seen, peak),
            }
        }
        let finish = heap.peek().map(|Reverse((at, _))| *at);
        next = match (finish, wake) {
            (Some(f), w) if w.is_none_or(|w| f <= w) => {
                let Reverse((at, index)) = heap.pop().unwrap();
                Some((at, Input::Finished { index, at }))
            }
            (_, Some(w)) => Some((w, Input::Wake)),
            _ => None,
        };
    }
    panic!("the driver never said Done: {seen:?}");
}

#[test]
fn a_closed_loop_keeps_its_slots_full_and_schedules_from_the_freed_slot() {
    let mut p = plan(LoadShape::Closed { concurrency: 3 });
    p.requests = Some(9);
    let (seen, peak) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(100));
    assert_eq!((seen.len(), peak), (9, 3));
    assert_eq!(seen[3].scheduled_at, Nanos::from_millis(100));
    assert_eq!(seen[8].scheduled_at, Nanos::from_millis(200));
}

#[test]
fn a_burst_sends_everything_at_once_in_order() {
    let mut p = plan(LoadShape::Burst);
    p.requests = Some(500);
    let (seen, peak) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(1));
    assert_eq!(peak, 500);
    assert!(
        seen.iter().enumerate().all(|(i, s)| s.index == i as u64 && s.sent_at == Some(Nanos::ZERO))
    );
}

#[test]
fn a_stalled_server_does_not_slow_an_open_loop_down() {
    let mut p = plan(open(100.0, None));
    p.requests = Some(50);
    let (seen, peak) = run(&p, Shard::WHOLE, |_| Nanos::from_secs(10));
    assert_eq!(peak, 50, "all are in flight together");
    assert!(seen.iter().all(|s| s.sent_at == Some(s.scheduled_at)));
    assert_eq!(seen[49].scheduled_at, Nanos::from_millis(490));
}

#[test]
fn a_cap_on_an_open_loop_shows_its_queue_as_lateness_and_drops_are_on_record() {
    let mut p = plan(open(10.0, Some(1)));
    p.duration = Some(Nanos::from_secs(1));
    let (seen, peak) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(300));
    assert_eq!((seen.len(), peak), (10, 1), "ten were due within the second");
    assert_eq!(seen[1].scheduled_at, Nanos::from_millis(100));
    assert_eq!(seen[1].sent_at, Some(Nanos::from_millis(300)));
    assert_eq!(seen.iter().filter(|s| s.sent_at.is_none()).count(), 6);
}

#[test]
fn a_duration_ends_sending_and_lets_the_rest_finish() {
    let mut p = plan(LoadShape::Closed { concurrency: 2 });
    p.duration = Some(Nanos::from_millis(1_000));
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(300));
    assert_eq!(seen.len(), 8, "sent at 0, 300, 600, 900 on two slots");
    assert!(seen.iter().all(|s| s.cancelled.is_none()));
}

#[test]
fn a_request_past_its_time_out_is_given_up_and_frees_its_slot() {
    let mut p = plan(LoadShape::Closed { concurrency: 1 });
    p.requests = Some(3);
    p.timeout = Nanos::from_millis(50);
    let slow_second = |i| Nanos::from_millis(if i == 1 { 10_000 } else { 10 });
    let (seen, _) = run(&p, Shard::WHOLE, slow_second);
    assert_eq!(seen[1].cancelled, Some(CancelReason::TimedOut));
    assert_eq!(seen[2].scheduled_at, Nanos::from_millis(60));
}

#[test]
fn stop_sends_nothing_new_and_abort_gives_up_what_is_in_flight() {
    let mut p = plan(LoadShape::Closed { concurrency: 2 });
    p.requests = Some(100);
    let mut driver = Driver::new(&p, Shard::WHOLE);
    let mut out = Vec::new();
    driver.step(Nanos(0), Input::Start, &mut out);
    out.clear();
    driver.step(Nanos(5), Input::Stop, &mut out);
    driver.step(Nanos(6), Input::Finished { index: 0, at: Nanos(6) }, &mut out);
    assert!(!out.iter().any(|a| matches!(a, Action::Send(_) | Action::Done)));
    driver.step(Nanos(7), Input::Abort, &mut out);
    assert!(out.contains(&Action::Cancel { index: 1, why: CancelReason::Interrupted }));
    driver.step(Nanos(8), Input::Finished { index: 1, at: Nanos(8) }, &mut out);
    assert_eq!(out.last(), Some(&Action::Done));
}

#[test]
fn round_robin_and_least_inflight_spread_over_entries() {
    let mut p = plan(LoadShape::Closed { concurrency: 4 });
    p.requests = Some(40);
    p.targets = 2;
    p.balance = Balance::RoundRobin;
    // Entry 0 is ten times slower: round-robin does not care, least-inflight does.
    let by_target = |seen: &[Seen], t| seen.iter().filter(|s| s.target == t).count();
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(10));
    assert_eq!((by_target(&seen, 0), by_target(&seen, 1)), (20, 20));
    p.balance = Balance::LeastInflight;
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(10));
    assert_eq!((by_target(&seen, 0), by_target(&seen, 1)), (20, 20));
}

#[test]
fn no_request_at_all_is_over_at_once() {
    for shape in [LoadShape::Burst, LoadShape::Closed { concurrency: 4 }, open(5.0, None)] {
        let mut p = plan(shape);
        p.requests = Some(0);
        assert_eq!(run(&p, Shard::WHOLE, |_| Nanos(1)).0, vec![]);
    }
}

proptest! {
    /// Whatever the shape and the number of shards: every index exactly once, never more in flight
    /// than asked, never sent before it is due.
    #[test]
    fn every_request_is_sent_once_and_never_early(
        requests in 0u64..200, concurrency in 1u32..20, shards in 1u16..5, mode in 0u8..4, ms in 1u64..50,
    ) {
        let shape = match mode {
            0 => LoadShape::Closed { concurrency },
            1 => LoadShape::Burst,
            2 => LoadShape::Open { arrival: ArrivalKind::Poisson, rate_rps: 500.0, seed: 3, max_in_flight: None },
            _ => open(500.0, Some(concurrency)),
        };
        let mut p = plan(shape.clone());
        p.requests = Some(requests);
        let (mut all, mut peaks) = (Vec::new(), 0);
        for index in 0..shards {
            let shard = Shard { index, count: shards };
            let (seen, peak) = run(&p, shard, |i| Nanos::from_millis(ms + i % 7));
            peaks += peak;
            all.extend(seen);
        }
        if let LoadShape::Closed { concurrency } = shape {
            prop_assert!(peaks <= concurrency as usize);
        }
        let mut indices: Vec<u64> = all.iter().map(|s| s.index).collect();
        indices.sort_unstable();
        prop_assert_eq!(indices, (0..requests).collect::<Vec<_>>());
        prop_assert!(all.iter().all(|s| s.sent_at.is_some_and(|at| at >= s.scheduled_at)));
    }

    /// Sharding an open loop does not change when its requests are due.
    #[test]
    fn shards_of_a_schedule_add_up_to_the_schedule(shards in 1u16..6, seed: u64) {
        let shape = LoadShape::Open { arrival: ArrivalKind::Poisson, rate_rps: 100.0, seed, max_in_flight: None };
        let mut p = plan(shape);
        p.requests = Some(60);
        let (whole, _) = run(&p, Shard::WHOLE, |_| Nanos(1));
        let mut parts: Vec<Seen> = (0..shards)
            .flat_map(|index| run(&p, Shard { index, count: shards }, |_| Nanos(1)).0)
            .collect();
        parts.sort_by_key(|s| s.index);
        prop_assert_eq!(whole, parts);
    }
}
