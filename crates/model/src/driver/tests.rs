//! The driver on a virtual clock: a server whose service time is known answers it.

use super::*;
use crate::arrival::{RateProfile, RateStep};
use crate::workload::{LengthDist, Pick, derive_seed};
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
        cancel: None,
        max_prefill: None,
        sessions: None,
    }
}

fn open(rate_rps: f64, max_in_flight: Option<u32>) -> LoadShape {
    let arrival = ArrivalKind::Constant;
    LoadShape::Open { arrival, rate_rps: rate_rps.into(), seed: 1, max_in_flight }
}

fn ramp_rate() -> ArrivalRate {
    let over = Nanos::from_millis(700);
    ArrivalRate::Profile(RateProfile::Ramp { from_rps: 20.0, to_rps: 500.0, over })
}

fn replay(ms: &[u64], speed: f64, window: Window, max_in_flight: Option<u32>) -> LoadShape {
    let due = ms.iter().map(|ms| Nanos::from_millis(*ms)).collect();
    LoadShape::Replay { speed, window, due, max_in_flight }
}

/// What became of one request on the virtual clock.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    index: u64,
    turn: Turn,
    target: u16,
    scheduled_at: Nanos,
    sent_at: Option<Nanos>,
    /// Why it was not sent.
    dropped: Option<DropReason>,
    ended_at: Option<Nanos>,
    cancelled: Option<(Nanos, CancelReason)>,
}

/// The most that was in flight, and the most of it that waited for a first token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Peak {
    in_flight: usize,
    prefilling: usize,
}

/// A server on the virtual clock: what it says, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    FirstToken,
    End,
}

/// A driver, a server whose times are known, and what was seen of the two.
struct Bench<F> {
    driver: Driver,
    /// Time to first token and to the end of a request.
    service: F,
    server: BinaryHeap<Reverse<(Nanos, u64, Says)>>,
    wake: Option<Nanos>,
    seen: Vec<Seen>,
    /// Turns that are to be made ready, and were not sent yet.
    preparing: Vec<u64>,
    /// Which answers do not come whole.
    breaks: fn(u64) -> bool,
    peak: Peak,
    done: bool,
}

impl<F: Fn(u64) -> (Nanos, Nanos)> Bench<F> {
    fn new(plan: &PhasePlan, shard: Shard, service: F) -> Self {
        Self {
            driver: Driver::new(plan, shard),
            service,
            server: BinaryHeap::new(),
            wake: None,
            seen: Vec::new(),
            preparing: Vec::new(),
            breaks: |_| false,
            peak: Peak::default(),
            done: false,
        }
    }

    fn step(&mut self, now: Nanos, input: Input) {
        assert!(!self.done, "stepped after Done");
        let mut out = Vec::new();
        self.driver.step(now, input, &mut out);
        self.peak.in_flight = self.peak.in_flight.max(self.driver.in_flight());
        self.peak.prefilling = self.peak.prefilling.max(self.driver.prefilling());
        self.wake = None;
        for action in out {
            self.act(now, action);
        }
    }

    fn act(&mut self, now: Nanos, action: Action) {
        let unsent = |index, turn, target, scheduled_at| {
            let (sent_at, dropped, ended_at, cancelled) = (None, None, None, None);
            Seen { index, turn, target, scheduled_at, sent_at, dropped, ended_at, cancelled }
        };
        match action {
            Action::Send(d) => {
                let (first, end) = (self.service)(d.index);
                self.server.push(Reverse((now + first.min(end), d.index, Says::FirstToken)));
                self.server.push(Reverse((now + end, d.index, Says::End)));
                let sent_at = Some(now);
                let seen = unsent(d.index, d.turn, d.target, d.scheduled_at);
                self.seen.push(Seen { sent_at, ..seen });
                let before = self.preparing.len();
                self.preparing.retain(|index| *index != d.index);
                let was_told = before - self.preparing.len() == 1;
                assert_eq!(was_told, d.turn.number > 0, "made ready just once: {d:?}");
            }
            Action::WakeAt(at) => self.wake = Some(self.wake.map_or(at, |w| w.min(at))),
            Action::Cancel { index, why } => {
                self.of(index).cancelled.get_or_insert((now, why));
                self.server.retain(|Reverse((_, i, _))| *i != index);
                self.server.push(Reverse((now, index, Says::End)));
            }
            Action::Prepare { index, .. } => self.preparing.push(index),
            Action::Drop { index, scheduled_at, turn, why } => {
                let seen = unsent(index, turn, 0, scheduled_at);
                self.seen.push(Seen { dropped: Some(why), ..seen });
            }
            Action::Done => self.done = true,
        }
    }

    fn of(&mut self, index: u64) -> &mut Seen {
        self.seen.iter_mut().find(|s| s.index == index).unwrap()
    }

    /// When something happens next.
    fn next_at(&self) -> Option<Nanos> {
        let said = self.server.peek().map(|Reverse((at, ..))| *at);
        [said, self.wake].into_iter().flatten().min()
    }

    /// Lets the next thing happen, as late as `not_before`: a loop that is busy hears of it later.
    fn go_on(&mut self, not_before: Nanos) {
        let at = self.next_at().unwrap_or_else(|| panic!("never Done: {:?}", self.seen));
        let now = at.max(not_before);
        let said = self.server.peek().is_some_and(|Reverse((said, ..))| *said <= at);
        if !said {
            return self.step(now, Input::Wake);
        }
        let Reverse((at, index, says)) = self.server.pop().unwrap();
        let input = match says {
            Says::FirstToken => Input::FirstToken { index, at },
            Says::End => {
                self.of(index).ended_at = Some(at);
                let is_broken = (self.breaks)(index) || self.of(index).cancelled.is_some();
                if is_broken { Input::Broken { index, at } } else { Input::Finished { index, at } }
            }
        };
        self.step(now, input);
    }
}

/// Runs a driver against a server that answers each request after `service(index)`.
fn run(plan: &PhasePlan, shard: Shard, service: impl Fn(u64) -> Nanos) -> (Vec<Seen>, usize) {
    let (seen, peak) = run_tokens(plan, shard, |i| (service(i), service(i)));
    (seen, peak.in_flight)
}

/// The same with a first token on the way.
fn run_tokens(
    plan: &PhasePlan,
    shard: Shard,
    service: impl Fn(u64) -> (Nanos, Nanos),
) -> (Vec<Seen>, Peak) {
    let mut bench = Bench::new(plan, shard, service);
    bench.step(Nanos::ZERO, Input::Start);
    while !bench.done {
        bench.go_on(Nanos::ZERO);
    }
    (bench.seen, bench.peak)
}

#[test]
fn a_closed_loop_keeps_its_slots_full_and_schedules_from_the_freed_slot() {
    let mut p = plan(LoadShape::closed(3));
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
    let mut p = plan(LoadShape::closed(2));
    p.duration = Some(Nanos::from_millis(1_000));
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(300));
    assert_eq!(seen.len(), 8, "sent at 0, 300, 600, 900 on two slots");
    assert!(seen.iter().all(|s| s.cancelled.is_none()));
}

#[test]
fn a_request_past_its_time_out_is_given_up_and_frees_its_slot() {
    let mut p = plan(LoadShape::closed(1));
    p.requests = Some(3);
    p.timeout = Nanos::from_millis(50);
    let slow_second = |i| Nanos::from_millis(if i == 1 { 10_000 } else { 10 });
    let (seen, _) = run(&p, Shard::WHOLE, slow_second);
    assert_eq!(seen[1].cancelled, Some((Nanos::from_millis(60), CancelReason::TimedOut)));
    assert_eq!(seen[2].scheduled_at, Nanos::from_millis(60));
}

#[test]
fn stop_sends_nothing_new_and_abort_gives_up_what_is_in_flight() {
    let mut p = plan(LoadShape::closed(2));
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
    let mut p = plan(LoadShape::closed(4));
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
    for shape in [LoadShape::Burst, LoadShape::closed(4), open(5.0, None)] {
        let mut p = plan(shape);
        p.requests = Some(0);
        assert_eq!(run(&p, Shard::WHOLE, |_| Nanos(1)).0, vec![]);
    }
}

#[test]
fn slots_come_in_evenly_over_the_ramp() {
    let ramp_up = Some(Nanos::from_secs(10));
    let mut p = plan(LoadShape::Closed { concurrency: 4, ramp_up, think: None });
    p.requests = Some(8);
    for shards in [1, 2, 4] {
        let mut seen: Vec<Seen> = (0..shards)
            .flat_map(|index| run(&p, Shard { index, count: shards }, |_| Nanos::from_secs(60)).0)
            .collect();
        seen.sort_by_key(|s| s.scheduled_at);
        let at: Vec<u64> = seen.iter().map(|s| s.sent_at.unwrap().0 / 1_000_000).collect();
        assert_eq!(at, [0, 2_500, 5_000, 7_500, 60_000, 62_500, 65_000, 67_500], "{shards}");
    }
}

#[test]
fn a_slot_thinks_between_an_answer_and_its_next_request() {
    let think = Some(Think::Fixed { span: Nanos::from_millis(500) });
    let mut p = plan(LoadShape::Closed { concurrency: 2, ramp_up: None, think });
    p.requests = Some(6);
    // The first slot answers faster, so the second's next request comes after the first's.
    let (seen, _) = run(&p, Shard::WHOLE, |i| Nanos::from_millis(100 + 50 * (i % 2)));
    let at: Vec<_> = seen.iter().map(|s| (s.index, s.scheduled_at.0 / 1_000_000)).collect();
    assert_eq!(at, [(0, 0), (1, 0), (2, 600), (3, 650), (4, 1_200), (5, 1_300)]);
    assert!(seen.iter().all(|s| s.sent_at == Some(s.scheduled_at)));
    // Who still thinks at the end of the duration sends nothing more.
    (p.requests, p.duration) = (None, Some(Nanos::from_millis(620)));
    let (seen, _) = run(&p, Shard::WHOLE, |i| Nanos::from_millis(100 + 50 * (i % 2)));
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn a_trace_is_replayed_faster_and_in_part() {
    let ms = [0, 10, 10, 40, 100, 250, 251, 900];
    let due = |shape| {
        let (seen, _) = run(&plan(shape), Shard::WHOLE, |_| Nanos::from_secs(5));
        seen.iter().map(|s| s.scheduled_at.0 / 100_000).collect::<Vec<_>>()
    };
    let whole = Window::default();
    assert_eq!(due(replay(&ms, 1.0, whole, None)), ms.map(|ms| ms * 10));
    assert_eq!(due(replay(&ms, 2.0, whole, None)), ms.map(|ms| ms * 5));
    let window = Window { from: Nanos::from_millis(10), to: Some(Nanos::from_millis(250)) };
    assert_eq!(due(replay(&ms, 1.0, window, None)), [0, 0, 300, 900]);
    assert_eq!(due(replay(&ms, 0.5, window, None)), [0, 0, 600, 1_800]);
    let of = |from, to| Window { from: Nanos(from), to: Some(Nanos(to)) }.range(&[Nanos(5); 3]);
    assert_eq!([of(0, 5), of(5, 6), of(6, 9), of(9, 2)], [0..0, 0..3, 3..3, 3..3]);
    assert_eq!(due(replay(&[], 1.0, whole, None)), [0; 0]);
    assert!(replay(&[], 1.0, whole, None).lacks_trace());
}

#[test]
fn a_trace_beyond_what_a_double_holds_is_exact_at_its_own_speed() {
    let due: Vec<Nanos> = (0..3).map(|i| Nanos((1 << 60) + i)).collect();
    let window = Window { from: Nanos((1 << 60) - 1), to: None };
    let shape = LoadShape::Replay { speed: 1.0, window, due: due.into(), max_in_flight: None };
    let (seen, _) = run(&plan(shape), Shard::WHOLE, |_| Nanos(1));
    assert_eq!(seen.iter().map(|s| s.scheduled_at.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_rate_that_ends_ends_the_phase() {
    let lasts = Some(Nanos::from_secs(2));
    let steps = RateProfile::Steps { steps: vec![RateStep { rate_rps: 5.0, lasts }] };
    let rate = ArrivalRate::Profile(steps);
    let mut p = plan(LoadShape::open(ArrivalKind::Constant, rate, 1));
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(10));
    assert_eq!(seen.len(), 10);
    p.requests = Some(4);
    assert_eq!(run(&p, Shard::WHOLE, |_| Nanos(1)).0.len(), 4);
}

#[test]
fn a_share_of_requests_is_given_up_by_the_client_and_frees_its_slot() {
    let mut p = plan(LoadShape::closed(3));
    p.requests = Some(2_000);
    p.cancel = Some(Cancellation { share: 0.2, after: Nanos::from_millis(40), seed: 5 });
    // Every third answer is there before anybody loses patience.
    let service = |i| Nanos::from_millis(if i % 3 == 0 { 10 } else { 100 });
    let (seen, _) = run(&p, Shard::WHOLE, service);
    for s in &seen {
        let is_picked = p.cancel.unwrap().picks(s.index) && s.index % 3 != 0;
        let want = s.sent_at.unwrap() + Nanos::from_millis(40);
        assert_eq!(s.cancelled, is_picked.then_some((want, CancelReason::Abandoned)), "{s:?}");
    }
    let given_up = seen.iter().filter(|s| s.cancelled.is_some()).count() as f64;
    assert!((given_up / 2_000.0 - 0.2 * 2.0 / 3.0).abs() < 0.03, "{given_up}");
    // The time-out of a slow one still comes first where it is shorter.
    p.timeout = Nanos::from_millis(20);
    let (seen, _) = run(&p, Shard::WHOLE, service);
    let why = |s: &Seen| s.cancelled.is_none_or(|(_, why)| why == CancelReason::TimedOut);
    assert!(seen.iter().all(why));
}

#[test]
fn what_is_due_beyond_the_prefill_limit_waits_for_a_first_token() {
    let mut p = plan(LoadShape::Burst);
    (p.requests, p.max_prefill) = (Some(6), Some(2));
    let service = |_| (Nanos::from_millis(100), Nanos::from_millis(1_000));
    let (seen, peak) = run_tokens(&p, Shard::WHOLE, service);
    assert_eq!(peak, Peak { in_flight: 6, prefilling: 2 });
    let sent: Vec<u64> = seen.iter().map(|s| s.sent_at.unwrap().0 / 1_000_000).collect();
    assert_eq!(sent, [0, 0, 100, 100, 200, 200]);
    assert!(seen.iter().all(|s| s.scheduled_at == Nanos::ZERO), "the wait is counted");
    assert!(Driver::new(&p, Shard::WHOLE).wants_first_tokens());
}

#[test]
fn a_request_that_ends_without_a_token_frees_its_prefill_once() {
    let mut p = plan(LoadShape::Burst);
    (p.requests, p.max_prefill) = (Some(4), Some(1));
    let mut driver = Driver::new(&p, Shard::WHOLE);
    let mut out = Vec::new();
    driver.step(Nanos(0), Input::Start, &mut out);
    driver.step(Nanos(1), Input::Finished { index: 0, at: Nanos(1) }, &mut out);
    for at in [2, 3] {
        driver.step(Nanos(at), Input::FirstToken { index: 1, at: Nanos(at) }, &mut out);
    }
    // Said twice, and of a request that is gone: both of no effect.
    driver.step(Nanos(4), Input::FirstToken { index: 0, at: Nanos(4) }, &mut out);
    driver.step(Nanos(5), Input::Finished { index: 1, at: Nanos(5) }, &mut out);
    let sent = |a: &Action| matches!(a, Action::Send(_));
    assert_eq!(out.iter().filter(|a| sent(a)).count(), 3);
    assert_eq!((driver.prefilling(), driver.in_flight()), (1, 1));
}

#[test]
fn limits_are_shared_by_shards_and_never_exceeded_by_more_shards_than_there_are_places() {
    let limited = |shape, max_prefill| {
        let mut p = plan(shape);
        (p.requests, p.max_prefill) = (Some(40), max_prefill);
        let service = |_| (Nanos::from_millis(10), Nanos::from_millis(30));
        let parts = (0..4).map(|index| run_tokens(&p, Shard { index, count: 4 }, service));
        let (seen, peaks): (Vec<_>, Vec<_>) = parts.unzip();
        assert_eq!(seen.concat().len(), 40);
        let sum = |of: fn(&Peak) -> usize| peaks.iter().map(of).sum::<usize>();
        (sum(|p| p.in_flight), sum(|p| p.prefilling))
    };
    assert_eq!(limited(LoadShape::Burst, Some(2)).1, 2);
    assert_eq!(limited(LoadShape::Burst, Some(6)).1, 6);
    assert_eq!(limited(open(1e6, Some(3)), None).0, 3);
    assert_eq!(limited(LoadShape::closed(9), Some(5)), (9, 5));
}

#[test]
fn an_old_plan_reads_as_what_it_meant() {
    let read = |text: &str| serde_json::from_str::<LoadShape>(text).unwrap();
    assert_eq!(read(r#"{"kind":"closed","concurrency":8}"#), LoadShape::closed(8));
    let text = r#"{"kind":"open","arrival":"poisson","rate_rps":5.0,"seed":3}"#;
    let shape = LoadShape::open(ArrivalKind::Poisson, 5.0, 3);
    assert_eq!(read(text), shape);
    assert_eq!(serde_json::to_string(&shape).unwrap(), text);
    let trace = replay(&[1, 2], 2.0, Window::default(), None);
    let json = serde_json::to_string(&trace).unwrap();
    assert!(!json.contains("due"), "{json}");
    assert_eq!(read(&json), replay(&[], 2.0, Window::default(), None));
}

fn sessions(turns: Turns, think_ms: u64) -> SessionPlan {
    let span = Nanos::from_millis(think_ms);
    let think = (think_ms > 0).then_some(Think::Fixed { span });
    SessionPlan { think, sticky: true, turns }
}

/// Runs sessions against a server whose answers to the requests that `breaks` names do not come whole.
fn run_sessions(plan: &PhasePlan, shard: Shard, ms: u64, breaks: fn(u64) -> bool) -> Vec<Seen> {
    let mut bench = Bench::new(plan, shard, served(ms));
    bench.breaks = breaks;
    bench.step(Nanos::ZERO, Input::Start);
    while !bench.done {
        bench.go_on(Nanos::ZERO);
    }
    bench.seen
}

#[test]
fn a_slot_carries_a_session_to_its_end_and_then_takes_the_next() {
    let mut p = plan(LoadShape::closed(2));
    p.sessions = Some(sessions(Turns::Fixed(3), 50));
    p.requests = Some(11);
    let (seen, peak) = run(&p, Shard::WHOLE, |i| Nanos::from_millis(100 + i));
    assert_eq!(peak, 2);
    let at: Vec<_> =
        seen.iter().map(|s| (s.index, s.turn.session, s.sent_at.unwrap().0 / 1_000_000)).collect();
    // By hand: each turn takes 100 ms and its index, 50 ms of thinking follow but after the last.
    let want = [
        (0, 0, 0),
        (3, 1, 0),
        (1, 0, 150),
        (4, 1, 153),
        (2, 0, 301),
        (5, 1, 307),
        (6, 2, 403),
        (9, 3, 412),
        (7, 2, 559),
        (10, 3, 571),
        (8, 2, 716),
    ];
    assert_eq!(at, want);
    assert!(seen.iter().all(|s| s.sent_at == Some(s.scheduled_at)));
}

#[test]
fn sessions_arrive_by_a_schedule_and_stay_at_their_entry() {
    let mut p = plan(open(10.0, None));
    (p.targets, p.balance, p.requests) = (3, Balance::RoundRobin, Some(24));
    p.sessions = Some(sessions(Turns::Fixed(4), 30));
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(20));
    for s in &seen {
        let Turn { session, number } = s.turn;
        assert_eq!(u64::from(s.target), session % 3, "{s:?}");
        let want = 100 * session + 50 * u64::from(number);
        assert_eq!(s.scheduled_at, Nanos::from_millis(want), "{s:?}");
    }
    // Without that, turns are spread as requests are.
    p.sessions = Some(SessionPlan { sticky: false, ..sessions(Turns::Fixed(4), 30) });
    let (seen, _) = run(&p, Shard::WHOLE, |_| Nanos::from_millis(20));
    assert!(seen.iter().all(|s| u64::from(s.target) == s.index % 3));
}

#[test]
fn a_session_ends_with_a_turn_that_was_not_answered() {
    let mut p = plan(LoadShape::closed(1));
    p.sessions = Some(sessions(Turns::Fixed(4), 10));
    p.requests = Some(8);
    let seen = run_sessions(&p, Shard::WHOLE, 30, |index| index == 1);
    let ended = seen.iter().find(|s| s.index == 1).unwrap().ended_at.unwrap();
    let by_index = |index| *seen.iter().find(|s| s.index == index).unwrap();
    for index in [2, 3] {
        let lost = by_index(index);
        assert_eq!(lost.dropped, Some(DropReason::SessionEnded));
        assert_eq!((lost.scheduled_at, lost.turn.session), (ended, 0));
    }
    assert_eq!(by_index(4).scheduled_at, ended, "the slot takes the next session at once");
    assert!((4..8).all(|index| by_index(index).dropped.is_none()));
}

#[test]
fn a_stop_leaves_no_session_without_an_end_and_a_duration_asks_for_no_more() {
    let mut p = plan(LoadShape::closed(2));
    p.sessions = Some(sessions(Turns::Fixed(5), 1_000));
    // Session 0 thinks and session 1 is being answered.
    let mut driver = Driver::new(&p, Shard::WHOLE);
    let mut out = Vec::new();
    driver.step(Nanos(0), Input::Start, &mut out);
    driver.step(Nanos(5), Input::Finished { index: 0, at: Nanos(5) }, &mut out);
    out.clear();
    driver.step(Nanos(6), Input::Stop, &mut out);
    let dropped = |out: &[Action]| -> Vec<u64> {
        let index = |a: &Action| match a {
            Action::Drop { index, why: DropReason::LoadEnded, .. } => Some(*index),
            _ => None,
        };
        out.iter().filter_map(index).collect()
    };
    assert_eq!(dropped(&out), [1, 2, 3, 4, 6, 7, 8, 9]);
    out.clear();
    driver.step(Nanos(8), Input::Broken { index: 5, at: Nanos(8) }, &mut out);
    assert_eq!(out, [Action::Done]);
    // A turn that is not due by the end of the duration is none of the load's requests.
    p.duration = Some(Nanos(700));
    let mut driver = Driver::new(&p, Shard::WHOLE);
    driver.step(Nanos(0), Input::Start, &mut out);
    driver.step(Nanos(5), Input::Finished { index: 0, at: Nanos(5) }, &mut out);
    out.clear();
    driver.step(Nanos(700), Input::Wake, &mut out);
    driver.step(Nanos(900), Input::Broken { index: 5, at: Nanos(900) }, &mut out);
    assert_eq!((dropped(&out), out.last()), (vec![], Some(&Action::Done)));
}

fn turn_counts() -> impl Strategy<Value = Turns> {
    prop_oneof![
        Just(Turns::One),
        (1u32..6).prop_map(Turns::Fixed),
        any::<u64>().prop_map(|seed| Turns::Drawn { dist: LengthDist::uniform(1, 6), seed }),
        proptest::collection::vec(1u32..7, 1..9).prop_map(|counts| Turns::Listed {
            counts: counts.into(),
            pick: Pick::InOrder,
            seed: 1
        }),
    ]
}

fn shapes() -> impl Strategy<Value = LoadShape> {
    let slots = || 1u32..20;
    let ms = |range: std::ops::Range<u64>| range.prop_map(Nanos::from_millis);
    let arrival = || {
        prop_oneof![
            Just(ArrivalKind::Poisson),
            Just(ArrivalKind::Constant),
            (0.1f64..9.0).prop_map(|burstiness| ArrivalKind::Gamma { burstiness }),
        ]
    };
    let rate = prop_oneof![
        (50.0f64..900.0).prop_map(ArrivalRate::Constant),
        Just(ramp_rate()),
        Just(ArrivalRate::Profile(RateProfile::Sine {
            mean_rps: 300.0,
            amplitude_rps: 300.0,
            period: Nanos::from_millis(90),
        })),
        Just(ArrivalRate::Profile(RateProfile::Steps {
            steps: vec![
                RateStep { rate_rps: 0.0, lasts: Some(Nanos::from_millis(20)) },
                RateStep { rate_rps: 700.0, lasts: Some(Nanos::from_millis(50)) },
                RateStep { rate_rps: 100.0, lasts: None },
            ],
        })),
    ];
    let think = prop_oneof![
        Just(None),
        ms(1..60).prop_map(|span| Some(Think::Fixed { span })),
        (ms(1..60), any::<u64>()).prop_map(|(mean, seed)| Some(Think::Exponential { mean, seed })),
    ];
    let trace = proptest::collection::vec(0u64..15, 200..300);
    prop_oneof![
        (slots(), proptest::option::of(ms(1..300)), think).prop_map(
            |(concurrency, ramp_up, think)| LoadShape::Closed { concurrency, ramp_up, think }
        ),
        Just(LoadShape::Burst),
        (arrival(), rate, any::<u64>(), proptest::option::of(slots())).prop_map(
            |(arrival, rate_rps, seed, max_in_flight)| LoadShape::Open {
                arrival,
                rate_rps,
                seed,
                max_in_flight
            }
        ),
        (trace, 0.3f64..4.0, proptest::option::of(slots())).prop_map(|(gaps, speed, cap)| {
            let mut at = 0;
            let ms: Vec<u64> = gaps
                .iter()
                .map(|gap| {
                    at += gap;
                    at
                })
                .collect();
            replay(&ms, speed, Window::default(), cap)
        }),
    ]
}

/// Time to first token and to the end: some answer at once, some slowly.
fn served(ms: u64) -> impl Fn(u64) -> (Nanos, Nanos) {
    move |i| (Nanos::from_millis(ms % 9 + i % 5), Nanos::from_millis(ms + 3 * (i % 7)))
}

/// The order in which a closed loop's slots come free decides what falls to whom; of a schedule,
/// everything follows from the index.
fn is_scheduled(shape: &LoadShape) -> bool {
    matches!(shape, LoadShape::Open { .. } | LoadShape::Replay { .. } | LoadShape::Burst)
}

proptest! {
    /// Whatever the shape and the number of shards: every index exactly once, in ascending order, never
    /// more in flight or in prefill than asked, never sent before it is due, given up when it should be.
    #[test]
    fn every_request_is_sent_once_and_never_early(
        shape in shapes(), requests in 0u64..200, shards in 1u16..5, ms in 1u64..50,
        max_prefill in proptest::option::of(1u32..8), share in 0.0f64..0.5,
    ) {
        let mut p = plan(shape.clone());
        p.requests = Some(requests);
        p.max_prefill = max_prefill;
        p.cancel = Some(Cancellation { share, after: Nanos::from_millis(12), seed: ms });
        let (mut all, mut peak) = (Vec::new(), Peak::default());
        for index in 0..shards {
            let (seen, of_shard) = run_tokens(&p, Shard { index, count: shards }, served(ms));
            prop_assert!(seen.windows(2).all(|w| w[0].index < w[1].index), "out of order");
            peak.in_flight += of_shard.in_flight;
            peak.prefilling += of_shard.prefilling;
            all.extend(seen);
        }
        let within = |n: usize, limit: Option<u32>| limit.is_none_or(|limit| n <= limit as usize);
        prop_assert!(within(peak.in_flight, shape.max_in_flight()), "{:?}", peak);
        prop_assert!(within(peak.prefilling, max_prefill), "{:?}", peak);
        all.sort_by_key(|s| s.index);
        let indices: Vec<u64> = all.iter().map(|s| s.index).collect();
        prop_assert_eq!(indices, (0..requests).collect::<Vec<_>>());
        for s in &all {
            let sent = s.sent_at.unwrap();
            prop_assert!(sent >= s.scheduled_at);
            let wanted = p.cancel.is_some_and(|c| c.picks(s.index));
            let end = sent + served(ms)(s.index).1;
            let due = sent + Nanos::from_millis(12);
            let want = (wanted && end > due).then_some((due, CancelReason::Abandoned));
            // An answer that ends just when it would be given up may be either.
            prop_assert!(s.cancelled == want || end == due, "{:?}", s);
        }
    }

    /// Sharding does not change when a schedule's requests are due, nor which.
    #[test]
    fn shards_of_a_schedule_add_up_to_the_schedule(
        shape in shapes().prop_filter("of a schedule", is_scheduled), shards in 1u16..6,
    ) {
        let mut p = plan(shape);
        p.requests = Some(120);
        let due = |seen: Vec<Seen>| seen.into_iter().map(|s| (s.index, s.scheduled_at));
        let whole: Vec<_> = due(run(&p, Shard::WHOLE, |_| Nanos(1)).0).collect();
        let mut parts: Vec<_> = (0..shards)
            .flat_map(|index| due(run(&p, Shard { index, count: shards }, |_| Nanos(1)).0))
            .collect();
        parts.sort_by_key(|(index, _)| *index);
        prop_assert_eq!(whole, parts);
    }

    /// The slots of a ramp come in at the same instants however they are shared out.
    #[test]
    fn shards_of_a_ramp_add_up_to_the_ramp(concurrency in 1u32..40, shards in 1u16..6, ms in 1u64..9_999) {
        let ramp_up = Some(Nanos::from_millis(ms));
        let mut p = plan(LoadShape::Closed { concurrency, ramp_up, think: None });
        p.requests = Some(u64::from(concurrency));
        let of = |shard| run(&p, shard, |_| Nanos::from_secs(100)).0;
        let at = |seen: Vec<Seen>| {
            let mut at: Vec<Nanos> = seen.iter().map(|s| s.scheduled_at).collect();
            at.sort_unstable();
            at
        };
        let parts = (0..shards).flat_map(|index| of(Shard { index, count: shards })).collect();
        prop_assert_eq!(at(of(Shard::WHOLE)), at(parts));
    }

    /// Between the end of an answer and the next request that is due lies the think time; with one slot
    /// it is plain which end that is.
    #[test]
    fn a_slot_never_sends_before_it_has_thought(ms in 1u64..80, mean in 1u64..200, seed: u64) {
        let think = Think::Exponential { mean: Nanos::from_millis(mean), seed };
        let mut p = plan(LoadShape::Closed { concurrency: 1, ramp_up: None, think: Some(think) });
        p.requests = Some(60);
        let (seen, _) = run(&p, Shard::WHOLE, |i| Nanos::from_millis(ms + i % 3));
        for pair in seen.windows(2) {
            let want = pair[0].ended_at.unwrap() + think.after(pair[0].index);
            prop_assert_eq!(pair[1].scheduled_at, want);
        }
    }

    /// After a stop nothing is sent, what was due is on record, and what is in flight ends; also where
    /// the loop hears of everything late.
    #[test]
    fn nothing_is_sent_after_a_stop(
        shape in shapes(), stop_ms in 0u64..300, late_ms in 0u64..20, abort: bool, ms in 1u64..50,
    ) {
        let mut p = plan(shape);
        (p.requests, p.max_prefill) = (Some(150), Some(9));
        let mut bench = Bench::new(&p, Shard::WHOLE, served(ms));
        bench.step(Nanos::ZERO, Input::Start);
        let stop = Nanos::from_millis(stop_ms);
        while !bench.done && bench.next_at().is_some_and(|at| at < stop) {
            let at = bench.next_at().unwrap();
            bench.go_on(at + Nanos::from_millis(late_ms));
        }
        if bench.done {
            return Ok(());
        }
        let stop = stop + Nanos::from_millis(late_ms);
        bench.step(stop, if abort { Input::Abort } else { Input::Stop });
        let sent = bench.seen.len();
        while !bench.done {
            bench.go_on(stop);
        }
        prop_assert_eq!(bench.seen.len(), sent, "sent or dropped after the stop");
        let at_rest = |s: &Seen| s.sent_at.is_none() || s.ended_at.is_some();
        prop_assert!(bench.seen.iter().all(at_rest), "{:?}", bench.seen);
        let mut indices: Vec<u64> = bench.seen.iter().map(|s| s.index).collect();
        indices.sort_unstable();
        prop_assert_eq!(indices, (0..sent as u64).collect::<Vec<_>>(), "each once, none left out");
    }

    /// Whatever the shape, the shards and the failures: every index exactly once; a turn is never sent
    /// before the one before it has ended and been thought about, and goes where that went; after a turn
    /// that broke, none of its session is sent and all are on record.
    #[test]
    fn turns_follow_each_other(
        shape in shapes(), turns in turn_counts(), requests in 0u64..150, shards in 1u16..5,
        ms in 1u64..50, think_ms in 0u64..40, max_prefill in proptest::option::of(1u32..8),
    ) {
        let breaks = |index: u64| derive_seed(&[index]).is_multiple_of(7);
        let mut p = plan(shape.clone());
        (p.requests, p.max_prefill, p.targets) = (Some(requests), max_prefill, 3);
        p.sessions = Some(sessions(turns.clone(), think_ms));
        let mut all: Vec<Seen> = (0..shards)
            .flat_map(|index| run_sessions(&p, Shard { index, count: shards }, ms, breaks))
            .collect();
        all.sort_by_key(|s| s.index);
        let indices: Vec<u64> = all.iter().map(|s| s.index).collect();
        prop_assert_eq!(indices, (0..requests).collect::<Vec<_>>());
        let think = Nanos::from_millis(think_ms);
        for pair in all.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if before.turn.session != after.turn.session {
                prop_assert_eq!(after.turn, Turn { session: before.turn.session + 1, number: 0 });
                continue;
            }
            prop_assert_eq!(after.turn.number, before.turn.number + 1);
            let goes_on = before.dropped.is_none() && !breaks(before.index);
            let dropped = (!goes_on).then_some(DropReason::SessionEnded);
            prop_assert_eq!(after.dropped, dropped);
            if goes_on {
                prop_assert_eq!(after.scheduled_at, before.ended_at.unwrap() + think);
                prop_assert!(after.sent_at.unwrap() >= after.scheduled_at);
                prop_assert_eq!(after.target, before.target);
            }
        }
    }

    /// A stop leaves every turn of every session that was begun on record, and sends no more.
    #[test]
    fn no_session_is_left_without_an_end_by_a_stop(
        shape in shapes(), turns in turn_counts(), stop_ms in 0u64..300, abort: bool, ms in 1u64..50,
    ) {
        let mut p = plan(shape);
        p.requests = Some(150);
        p.sessions = Some(sessions(turns.clone(), 20));
        let mut bench = Bench::new(&p, Shard::WHOLE, served(ms));
        bench.step(Nanos::ZERO, Input::Start);
        let stop = Nanos::from_millis(stop_ms);
        while !bench.done && bench.next_at().is_some_and(|at| at < stop) {
            bench.go_on(Nanos::ZERO);
        }
        if bench.done {
            return Ok(());
        }
        let sent = |seen: &[Seen]| seen.iter().filter(|s| s.sent_at.is_some()).count();
        let before = sent(&bench.seen);
        bench.step(stop, if abort { Input::Abort } else { Input::Stop });
        while !bench.done {
            bench.go_on(stop);
        }
        prop_assert_eq!(sent(&bench.seen), before);
        let mut indices: Vec<u64> = bench.seen.iter().map(|s| s.index).collect();
        indices.sort_unstable();
        prop_assert_eq!(indices, (0..bench.seen.len() as u64).collect::<Vec<_>>());
        if let Some(last) = bench.seen.iter().max_by_key(|s| s.index) {
            let whole = last.index + 1 == 150 || last.turn.number + 1 == turns.of(last.turn.session);
            prop_assert!(whole, "{:?}", last);
        }
    }
}
