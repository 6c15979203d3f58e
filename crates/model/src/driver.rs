//! The load state machine: when is which request sent, and where to.
//!
//! **Architecture invariant:** no clock and no IO. Time and what happened come in as
//! `step(now, input)`, actions go out. The wall-clock loop (`load`) and a virtual clock (`sim`) are two
//! small loops over the same machine, so a simulated run and a real one differ in nothing but time.

use crate::arrival::{ArrivalKind, ArrivalRate};
use crate::request::Phase;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use supply::Supply;

mod draws;
mod supply;

pub use draws::{Cancellation, Think};
pub use supply::Window;

/// How the load of a phase comes about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LoadShape {
    /// `concurrency` slots; a slot sends its next request when its last one ended.
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
    /// Requests are due by a schedule, whatever the server does.
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
}

impl PhasePlan {
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

    /// The index over all shards of this shard's `n`th request.
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
    /// When it was due; latency counts from here.
    pub scheduled_at: Nanos,
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
    /// This request was due and will never be sent.
    Drop {
        /// Its index.
        index: u64,
        /// When it was due.
        scheduled_at: Nanos,
    },
    /// The phase is over: nothing is in flight and nothing more will be sent.
    Done,
}

/// The load state machine of one phase on one shard.
#[derive(Debug)]
pub struct Driver {
    shard: Shard,
    timeout: Nanos,
    duration: Option<Nanos>,
    cancel: Option<Cancellation>,
    /// Requests that this shard sends at most.
    budget: u64,
    begun: u64,
    /// What will be due.
    supply: Supply,
    /// Requests that are due and wait for a slot, by due time.
    due: VecDeque<(u64, Nanos)>,
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

/// What the driver knows of a request in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    target: u16,
    has_token: bool,
}

/// Instants at which requests are given up, in order: all lie equally long after a send.
type Deadlines = VecDeque<(Nanos, u64)>;

impl Driver {
    /// A driver for `shard` of the phase.
    pub fn new(plan: &PhasePlan, shard: Shard) -> Self {
        let (shard, has_work) = shard.among(plan.narrowest());
        let budget = match plan.requests {
            _ if !has_work => 0,
            Some(n) => shard.share(n),
            None => u64::MAX,
        };
        let share =
            |n: u32| usize::try_from(shard.share(u64::from(n)).max(1)).unwrap_or(usize::MAX);
        Self {
            shard,
            timeout: plan.timeout,
            duration: plan.duration,
            cancel: plan.cancel,
            budget,
            begun: 0,
            supply: Supply::new(&plan.shape, shard),
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
            Input::Finished { index, at } => self.finished(index, at),
            Input::Stop => self.stop(out),
            Input::Abort => {
                self.stop(out);
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
            while self.begun < self.budget {
                self.enqueue(now);
            }
        }
    }

    fn enqueue(&mut self, scheduled_at: Nanos) {
        self.due.push_back((self.shard.index_of(self.begun), scheduled_at));
        self.begun += 1;
    }

    fn first_token(&mut self, index: u64) {
        if let Some(flight) = self.in_flight.get_mut(&index)
            && !std::mem::replace(&mut flight.has_token, true)
        {
            self.prefilling -= 1;
        }
    }

    fn finished(&mut self, index: u64, at: Nanos) {
        let Some(flight) = self.in_flight.remove(&index) else { return };
        self.balancer.release(flight.target);
        self.prefilling -= usize::from(!flight.has_token);
        self.supply.slot_freed(index, at.since(self.origin));
    }

    fn within_duration(&self, offset: Nanos) -> bool {
        self.duration.is_none_or(|d| offset < d)
    }

    fn stop(&mut self, out: &mut Vec<Action>) {
        self.stopping = true;
        self.supply = Supply::Spent;
        out.extend(
            self.due.drain(..).map(|(index, scheduled_at)| Action::Drop { index, scheduled_at }),
        );
    }

    /// Past the duration, what was due before its end and still waits for a slot is dropped, on record.
    fn end_of_duration(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.stopping || self.within_duration(now.since(self.origin)) {
            return;
        }
        self.draw_due(now);
        self.stop(out);
    }

    /// Indices are given in the order in which requests become due.
    fn draw_due(&mut self, now: Nanos) {
        while self.begun < self.budget
            && let Some(offset) = self.supply.next()
            && self.origin + offset <= now
            && self.within_duration(offset)
        {
            self.supply.advance();
            self.enqueue(self.origin + offset);
        }
    }

    fn send_due(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let left =
            |limit: Option<usize>, used| limit.map_or(usize::MAX, |n| n.saturating_sub(used));
        let free = left(self.slots, self.in_flight.len())
            .min(left(self.prefill_slots, self.prefilling))
            .min(self.due.len());
        for (index, scheduled_at) in self.due.drain(..free) {
            let target = self.balancer.acquire(index);
            self.in_flight.insert(index, Flight { target, has_token: false });
            self.prefilling += 1;
            self.deadlines.push_back((now + self.timeout, index));
            if let Some(cancel) = self.cancel.filter(|c| c.picks(index)) {
                self.abandons.push_back((now + cancel.after, index));
            }
            out.push(Action::Send(Dispatch { index, target, scheduled_at }));
        }
    }

    fn ask_for_wake(&self, out: &mut Vec<Action>) {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let abandon = self.abandons.front().map(|(at, _)| *at);
        let next_due = self.supply.next().filter(|_| self.begun < self.budget);
        let next_due = next_due.map(|offset| self.origin + offset);
        let end = self.duration.filter(|_| !self.stopping).map(|d| self.origin + d);
        if let Some(at) = [deadline, abandon, next_due, end].into_iter().flatten().min() {
            out.push(Action::WakeAt(at));
        }
    }

    fn is_over(&self) -> bool {
        let nothing_ahead =
            self.stopping || self.begun >= self.budget || self.supply.next().is_none();
        nothing_ahead && self.due.is_empty() && self.in_flight.is_empty()
    }
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
