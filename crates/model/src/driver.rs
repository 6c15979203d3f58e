//! The load state machine: when is which request sent, and where to.
//!
//! **Architecture invariant:** no clock and no IO. Time and what happened come in as
//! `step(now, input)`, actions go out. The wall-clock loop (`load`) and a virtual clock (`sim`) are two
//! small loops over the same machine, so a simulated run and a real one differ in nothing but time.

use crate::arrival::{ArrivalKind, ArrivalRate};
use crate::request::Phase;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use sessions::Step;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use supply::Supply;

mod draws;
mod sessions;
mod supply;

pub use draws::{Cancellation, Think};
pub(crate) use sessions::conversation_of;
pub use sessions::{Itinerary, SessionPlan, Turn, Turns};
pub use supply::Window;

/// How the load of a phase comes about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LoadShape {
    /// `concurrency` slots; a slot sends its next request when its last one ended. With sessions, a slot
    /// carries one to its end and then takes the next.
    Closed {
        /// Requests in flight.
        concurrency: u32,
        /// Slots come in evenly over this time; absent = all at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp_up: Option<Nanos>,
        /// What a slot waits after an answer; its next request is due when it has waited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        think: Option<Think>,
    },
    /// All requests at once.
    Burst,
    /// Requests are due by a schedule, whatever the server does. With sessions, it is their first turns
    /// that are.
    Open {
        /// The arrival process.
        arrival: ArrivalKind,
        /// Requests per second, perhaps changing over time.
        rate_rps: ArrivalRate,
        /// Seed of the arrival process.
        seed: u64,
        /// At most this many in flight; what is due beyond it waits, and its wait is counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_in_flight: Option<u32>,
    },
    /// Requests are due when those of a trace were.
    Replay {
        /// How many times faster than the trace.
        speed: f64,
        /// The part of the trace that is replayed.
        #[serde(default)]
        window: Window,
        /// Due times from the start of the trace, not decreasing. Read from the trace's file before a
        /// run and never part of a plan's text; empty until then.
        #[serde(skip)]
        due: Arc<[Nanos]>,
        /// At most this many in flight; what is due beyond it waits, and its wait is counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_in_flight: Option<u32>,
    },
}

impl LoadShape {
    /// A closed loop whose slots all begin at once and never pause.
    pub const fn closed(concurrency: u32) -> Self {
        Self::Closed { concurrency, ramp_up: None, think: None }
    }

    /// An open loop without a cap.
    pub fn open(arrival: ArrivalKind, rate: impl Into<ArrivalRate>, seed: u64) -> Self {
        Self::Open { arrival, rate_rps: rate.into(), seed, max_in_flight: None }
    }

    /// The most requests that may be in flight; absent where nothing limits them.
    pub const fn max_in_flight(&self) -> Option<u32> {
        match self {
            Self::Closed { concurrency, .. } => Some(*concurrency),
            Self::Burst => None,
            Self::Open { max_in_flight, .. } | Self::Replay { max_in_flight, .. } => *max_in_flight,
        }
    }

    /// A replay whose trace was not read.
    pub fn lacks_trace(&self) -> bool {
        matches!(self, Self::Replay { due, .. } if due.is_empty())
    }
}

/// How requests are spread over the entries of a deployment.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By request index.
    RoundRobin,
    /// To the entry with the fewest of our requests in flight; ties to the one used longest ago.
    #[default]
    LeastInflight,
    /// Everything to the first entry.
    None,
}

/// One phase of a trial, as planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PhasePlan {
    /// Warm-up or measurement.
    pub phase: Phase,
    /// How the load comes about.
    pub shape: LoadShape,
    /// Stop after this many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Send nothing new after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Nanos>,
    /// A request is given up this long after it was sent.
    pub timeout: Nanos,
    /// Number of entries.
    pub targets: u16,
    /// How requests are spread over them.
    pub balance: Balance,
    /// Requests that the client gives up, as an impatient user does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancellation>,
    /// At most this many that still wait for their first token; what is due beyond them waits, and its
    /// wait is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefill: Option<u32>,
    /// Requests are turns of sessions; absent = each stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionPlan>,
}

impl PhasePlan {
    /// The most requests that the phase itself lets be in flight at a time; absent where only the arrivals
    /// and the server decide.
    pub fn most_in_flight(&self) -> Option<u64> {
        match &self.shape {
            LoadShape::Burst => self.requests,
            shape => shape.max_in_flight().map(u64::from),
        }
    }

    /// The most requests that may wait for a first token or an answer at a time.
    fn narrowest(&self) -> Option<u32> {
        [self.shape.max_in_flight(), self.max_prefill].into_iter().flatten().min()
    }
}

/// The part of a phase that one load thread carries: indices that leave `index` when divided by `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This shard, from zero.
    pub index: u16,
    /// Number of shards.
    pub count: u16,
}

impl Shard {
    /// The only shard.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// A phase with fewer slots than shards is carried by as many shards as it has slots: a request
    /// that fell to a shard without a slot would never be sent, and a slot for each would be too many.
    /// `false` where nothing is left for this one.
    fn among(self, slots: Option<u32>) -> (Self, bool) {
        let slots = slots.map_or(u16::MAX, |n| u16::try_from(n).unwrap_or(u16::MAX));
        let shard = Self { index: self.index, count: self.count.min(slots.max(1)) };
        (shard, self.index < shard.count)
    }

    /// How many of `total` things fall to this shard.
    fn share(self, total: u64) -> u64 {
        let (index, count) = (u64::from(self.index), u64::from(self.count));
        total / count + u64::from(index < total % count)
    }

    /// The number over all shards of this shard's `n`th slot.
    fn index_of(self, n: u64) -> u64 {
        n * u64::from(self.count) + u64::from(self.index)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The phase begins now.
    Start,
    /// A requested instant has come.
    Wake,
    /// The first token of a request came. Needed where [`Driver::wants_first_tokens`] says so, and
    /// of no effect elsewhere; a request that ends without one needs none.
    FirstToken {
        /// Its index.
        index: u64,
        /// When it came.
        at: Nanos,
    },
    /// A request ended, in whatever way, at the instant given.
    Finished {
        /// Its index.
        index: u64,
        /// When it ended; its slot is free from then on.
        at: Nanos,
    },
    /// A request ended, at the instant given, without the answer that the next turn of its session would
    /// go on from: the session ends with it. Of a request that stands alone the same as
    /// [`Input::Finished`].
    Broken {
        /// Its index.
        index: u64,
        /// When it ended.
        at: Nanos,
    },
    /// Send nothing new; what is in flight goes on.
    Stop,
    /// Give up what is in flight as well.
    Abort,
}

/// Why a request in flight is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Its time-out passed.
    TimedOut,
    /// The run was interrupted.
    Interrupted,
    /// The plan says that the client gives it up: [`PhasePlan::cancel`].
    Abandoned,
}

/// One request to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    /// Position in the phase, over all shards. Decides the request's content.
    pub index: u64,
    /// The entry to send it to.
    pub target: u16,
    /// When it was due; latency counts from here. A later turn of a session is due when the turn before
    /// it has ended and been thought about.
    pub scheduled_at: Nanos,
    /// Its place; of a request that stands alone, the only turn of session `index`.
    pub turn: Turn,
}

/// Why a request will never be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The load ended before it could be.
    LoadEnded,
    /// An earlier turn of its session was not completed.
    SessionEnded,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send this request.
    Send(Dispatch),
    /// Step with [`Input::Wake`] at this instant, or later; the earliest one asked for counts.
    WakeAt(Nanos),
    /// Give this request up; report it as finished afterwards.
    Cancel {
        /// Its index.
        index: u64,
        /// Why.
        why: CancelReason,
    },
    /// The turn before this one has ended, and it will be due: make it ready. Comes at once after the end,
    /// before it can be sent.
    Prepare {
        /// Its index.
        index: u64,
        /// Its place.
        turn: Turn,
    },
    /// This request will never be sent.
    Drop {
        /// Its index.
        index: u64,
        /// When it was due; of a turn that was not, when its session ended.
        scheduled_at: Nanos,
        /// Its place.
        turn: Turn,
        /// Why.
        why: DropReason,
    },
    /// The phase is over: nothing is in flight and nothing more will be sent.
    Done,
}

/// The load state machine of one phase on one shard.
#[derive(Debug)]
pub struct Driver {
    timeout: Nanos,
    duration: Option<Nanos>,
    cancel: Option<Cancellation>,
    /// The sessions that this shard has not begun.
    itinerary: Itinerary,
    /// When they will be due.
    supply: Supply,
    sticky: bool,
    think: Option<Think>,
    /// Later turns of sessions that were begun, by when they are due, with the entry of the last.
    follow_ups: BinaryHeap<Reverse<(Nanos, Step, u16)>>,
    /// Requests that are due and wait for a slot, by due time.
    due: VecDeque<Due>,
    slots: Option<usize>,
    prefill_slots: Option<usize>,
    in_flight: HashMap<u64, Flight>,
    /// How many of those in flight have no token yet.
    prefilling: usize,
    deadlines: Deadlines,
    abandons: Deadlines,
    balancer: Balancer,
    origin: Nanos,
    stopping: bool,
    done: bool,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    step: Step,
    scheduled_at: Nanos,
    /// The entry that it must go to, where it follows another.
    target: Option<u16>,
}

/// What the driver knows of a request in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    step: Step,
    target: u16,
    has_token: bool,
}

/// Instants at which requests are given up, in order: all lie equally long after a send.
type Deadlines = VecDeque<(Nanos, u64)>;

impl Driver {
    /// A driver for `shard` of the phase.
    pub fn new(plan: &PhasePlan, shard: Shard) -> Self {
        let (shard, has_work) = shard.among(plan.narrowest());
        let requests = if has_work { plan.requests } else { Some(0) };
        let sessions = plan.sessions.as_ref();
        let turns = sessions.map(|s| s.turns.clone()).unwrap_or_default();
        let share =
            |n: u32| usize::try_from(shard.share(u64::from(n)).max(1)).unwrap_or(usize::MAX);
        Self {
            timeout: plan.timeout,
            duration: plan.duration,
            cancel: plan.cancel,
            itinerary: Itinerary::new(turns, shard, requests),
            supply: Supply::new(&plan.shape, shard),
            sticky: sessions.is_some_and(|s| s.sticky),
            think: sessions.and_then(|s| s.think),
            follow_ups: BinaryHeap::new(),
            due: VecDeque::new(),
            slots: plan.shape.max_in_flight().map(share),
            prefill_slots: plan.max_prefill.map(share),
            in_flight: HashMap::new(),
            prefilling: 0,
            deadlines: VecDeque::new(),
            abandons: VecDeque::new(),
            balancer: Balancer::new(plan.balance, plan.targets, shard),
            origin: Nanos::ZERO,
            stopping: false,
            done: false,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Requests in flight that wait for their first token.
    pub fn prefilling(&self) -> usize {
        self.prefilling
    }

    /// Whether the driver has a use for [`Input::FirstToken`].
    pub fn wants_first_tokens(&self) -> bool {
        self.prefill_slots.is_some()
    }

    /// Takes in what happened at `now` and appends what is to be done to `out`.
    pub fn step(&mut self, now: Nanos, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Start => self.start(now),
            Input::Wake => {}
            Input::FirstToken { index, .. } => self.first_token(index),
            Input::Finished { index, at } => self.finished(index, at, out),
            Input::Broken { index, at } => self.broken(index, at, out),
            Input::Stop => self.told_to_stop(now, out),
            Input::Abort => {
                self.told_to_stop(now, out);
                let mut left: Vec<u64> = self.in_flight.keys().copied().collect();
                left.sort_unstable();
                let why = CancelReason::Interrupted;
                out.extend(left.into_iter().map(|index| Action::Cancel { index, why }));
            }
        }
        self.end_of_duration(now, out);
        expire(&mut self.deadlines, CancelReason::TimedOut, &self.in_flight, now, out);
        expire(&mut self.abandons, CancelReason::Abandoned, &self.in_flight, now, out);
        self.draw_due(now);
        self.send_due(now, out);
        self.ask_for_wake(out);
        if self.is_over() && !self.done {
            self.done = true;
            out.push(Action::Done);
        }
    }

    fn start(&mut self, now: Nanos) {
        self.origin = now;
        if matches!(self.supply, Supply::AtOnce) {
            while self.begin_session(now) {}
        }
    }

    /// The next session of the itinerary is due.
    fn begin_session(&mut self, scheduled_at: Nanos) -> bool {
        let first = self.itinerary.take().map(|step| Due { step, scheduled_at, target: None });
        self.due.extend(first);
        first.is_some()
    }

    fn first_token(&mut self, index: u64) {
        if let Some(flight) = self.in_flight.get_mut(&index)
            && !std::mem::replace(&mut flight.has_token, true)
        {
            self.prefilling -= 1;
        }
    }

    fn finished(&mut self, index: u64, at: Nanos, out: &mut Vec<Action>) {
        let Some(flight) = self.landed(index) else { return };
        let offset = at.since(self.origin);
        let Some(next) = flight.step.next() else {
            return self.supply.slot_freed(index, offset);
        };
        // What is not due by the end of a load is none of its requests.
        if !self.stopping {
            let due = offset + self.think.map_or(Nanos::ZERO, |think| think.after(index));
            self.follow_ups.push(Reverse((due, next, flight.target)));
            out.push(Action::Prepare { index: next.index, turn: next.turn });
        }
    }

    /// The session ends with the request, and the turns after it are on record as such.
    fn broken(&mut self, index: u64, at: Nanos, out: &mut Vec<Action>) {
        let Some(flight) = self.landed(index) else { return };
        drop_all(flight.step.rest(), at, DropReason::SessionEnded, out);
        self.supply.slot_freed(index, at.since(self.origin));
    }

    fn landed(&mut self, index: u64) -> Option<Flight> {
        let flight = self.in_flight.remove(&index)?;
        self.balancer.release(flight.target);
        self.prefilling -= usize::from(!flight.has_token);
        Some(flight)
    }

    fn within_duration(&self, offset: Nanos) -> bool {
        self.duration.is_none_or(|d| offset < d)
    }

    /// What was due and waits is dropped, on record. No session goes on.
    fn stop(&mut self, out: &mut Vec<Action>) {
        self.stopping = true;
        self.supply = Supply::Spent;
        for Due { step, scheduled_at, .. } in self.due.drain(..) {
            drop_all(std::iter::once(step), scheduled_at, DropReason::LoadEnded, out);
        }
        self.follow_ups.clear();
        self.in_flight.values_mut().for_each(|flight| flight.step.left = 0);
    }

    /// A load that is cut short leaves no session without an end: its turns that were not due yet are
    /// dropped as well.
    fn told_to_stop(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let begun = self.due.iter().map(|due| due.step);
        let begun = begun.chain(self.in_flight.values().map(|flight| flight.step));
        let thinking = self.follow_ups.iter().map(|Reverse((_, step, _))| *step);
        let mut rest: Vec<Step> =
            begun.flat_map(Step::rest).chain(thinking.flat_map(|s| s.and_rest())).collect();
        rest.sort_unstable();
        self.stop(out);
        drop_all(rest.into_iter(), now, DropReason::LoadEnded, out);
    }

    /// Past the duration, what was due before its end and still waits for a slot is dropped, on record.
    fn end_of_duration(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.stopping || self.within_duration(now.since(self.origin)) {
            return;
        }
        self.draw_due(now);
        self.stop(out);
    }

    /// When the next request is due, and whether it is the first turn of a session.
    fn next_due(&self) -> Option<(Nanos, bool)> {
        let first = self.supply.next().filter(|_| !self.itinerary.is_spent());
        let later = self.follow_ups.peek().map(|Reverse((at, ..))| *at);
        let both = [later.map(|at| (at, false)), first.map(|at| (at, true))];
        both.into_iter().flatten().min()
    }

    /// Sessions begin in the order of their numbers, so the indices of first turns ascend.
    fn draw_due(&mut self, now: Nanos) {
        while let Some((offset, is_first)) = self.next_due()
            && self.origin + offset <= now
            && self.within_duration(offset)
        {
            let scheduled_at = self.origin + offset;
            if is_first {
                self.supply.advance();
                self.begin_session(scheduled_at);
            } else if let Some(Reverse((_, step, target))) = self.follow_ups.pop() {
                let target = self.sticky.then_some(target);
                self.due.push_back(Due { step, scheduled_at, target });
            }
        }
    }

    fn send_due(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let left =
            |limit: Option<usize>, used| limit.map_or(usize::MAX, |n| n.saturating_sub(used));
        let free = left(self.slots, self.in_flight.len())
            .min(left(self.prefill_slots, self.prefilling))
            .min(self.due.len());
        for Due { step, scheduled_at, target } in self.due.drain(..free) {
            let Step { index, turn, .. } = step;
            let by_turn = if self.sticky { turn.session } else { index };
            let target = match target {
                Some(target) => self.balancer.go_on_at(target),
                None => self.balancer.acquire(by_turn),
            };
            self.in_flight.insert(index, Flight { step, target, has_token: false });
            self.prefilling += 1;
            self.deadlines.push_back((now + self.timeout, index));
            if let Some(cancel) = self.cancel.filter(|c| c.picks(index)) {
                self.abandons.push_back((now + cancel.after, index));
            }
            out.push(Action::Send(Dispatch { index, target, scheduled_at, turn }));
        }
    }

    fn ask_for_wake(&self, out: &mut Vec<Action>) {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let abandon = self.abandons.front().map(|(at, _)| *at);
        let next_due = self.next_due().map(|(offset, _)| self.origin + offset);
        let end = self.duration.filter(|_| !self.stopping).map(|d| self.origin + d);
        if let Some(at) = [deadline, abandon, next_due, end].into_iter().flatten().min() {
            out.push(Action::WakeAt(at));
        }
    }

    fn is_over(&self) -> bool {
        let nothing_ahead = self.stopping || self.next_due().is_none();
        nothing_ahead && self.due.is_empty() && self.in_flight.is_empty()
    }
}

fn drop_all(
    steps: impl Iterator<Item = Step>,
    scheduled_at: Nanos,
    why: DropReason,
    out: &mut Vec<Action>,
) {
    out.extend(steps.map(|step| {
        let Step { index, turn, .. } = step;
        Action::Drop { index, scheduled_at, turn, why }
    }));
}

/// Gives up what is past its deadline, and forgets the deadlines of what is gone.
fn expire(
    deadlines: &mut Deadlines,
    why: CancelReason,
    in_flight: &HashMap<u64, Flight>,
    now: Nanos,
    out: &mut Vec<Action>,
) {
    while let Some(&(deadline, index)) = deadlines.front() {
        let is_gone = !in_flight.contains_key(&index);
        if !is_gone && deadline > now {
            return;
        }
        deadlines.pop_front();
        if !is_gone {
            out.push(Action::Cancel { index, why });
        }
    }
}

#[derive(Debug)]
struct Balancer {
    rule: Balance,
    in_flight: Vec<u32>,
    next: usize,
}

impl Balancer {
    fn new(rule: Balance, targets: u16, shard: Shard) -> Self {
        let targets = usize::from(targets.max(1));
        // Shards begin at different entries, so that few requests over many shards do not all meet.
        Self { rule, in_flight: vec![0; targets], next: usize::from(shard.index) % targets }
    }

    /// The entry that the turn before went to.
    fn go_on_at(&mut self, target: u16) -> u16 {
        if let Some(n) = self.in_flight.get_mut(usize::from(target)) {
            *n += 1;
        }
        target
    }

    fn acquire(&mut self, index: u64) -> u16 {
        let n = self.in_flight.len();
        let chosen = match self.rule {
            Balance::None => 0,
            Balance::RoundRobin => usize::try_from(index % n as u64).unwrap_or(0),
            Balance::LeastInflight => {
                let order = (0..n).map(|i| (self.next + i) % n);
                order.min_by_key(|&t| self.in_flight[t]).unwrap_or(0)
            }
        };
        self.next = (chosen + 1) % n;
        self.in_flight[chosen] += 1;
        u16::try_from(chosen).unwrap_or(0)
    }

    fn release(&mut self, target: u16) {
        if let Some(n) = self.in_flight.get_mut(usize::from(target)) {
            *n = n.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
