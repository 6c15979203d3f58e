//! The load state machine: when is which request sent, and where to.
//!
//! **Architecture invariant:** no clock and no IO. Time and what happened come in as
//! `step(now, input)`, actions go out. The wall-clock loop (`load`) and a virtual clock (`sim`) are two
//! small loops over the same machine, so a simulated run and a real one differ in nothing but time.

use crate::arrival::{ArrivalKind, Arrivals};
use crate::request::Phase;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};

/// How the load of a phase comes about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LoadShape {
    /// `concurrency` slots; a slot sends its next request when its last one ended.
    Closed {
        /// Requests in flight.
        concurrency: u32,
    },
    /// All requests at once.
    Burst,
    /// Requests are due by a schedule, whatever the server does.
    Open {
        /// The arrival process.
        arrival: ArrivalKind,
        /// Requests per second.
        rate_rps: f64,
        /// Seed of the arrival process.
        seed: u64,
        /// At most this many in flight; what is due beyond it waits, and its wait is counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_in_flight: Option<u32>,
    },
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

    /// A closed loop with fewer slots than shards is carried by as many shards as it has slots: a
    /// request that fell to a shard without a slot would never be sent.
    fn among_slots(self, shape: &LoadShape) -> (Self, bool) {
        let LoadShape::Closed { concurrency } = shape else { return (self, true) };
        let slots = u16::try_from(*concurrency).unwrap_or(u16::MAX).max(1);
        let shard = Self { index: self.index, count: self.count.min(slots) };
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
    /// Requests that this shard sends at most.
    budget: u64,
    begun: u64,
    /// Requests that are due and wait for a slot, by due time; never more than one for a closed loop slot.
    due: VecDeque<(u64, Nanos)>,
    /// Due times of an open loop that lie ahead.
    schedule: Option<Schedule>,
    slots: Option<u64>,
    in_flight: HashMap<u64, u16>,
    deadlines: VecDeque<(Nanos, u64)>,
    balancer: Balancer,
    origin: Nanos,
    stopping: bool,
    done: bool,
}

#[derive(Debug)]
struct Schedule {
    arrivals: Arrivals,
    shard: Shard,
    /// Arrivals drawn so far, over all shards.
    drawn: u64,
    next: Option<Nanos>,
}

impl Schedule {
    fn new(arrivals: Arrivals, shard: Shard) -> Self {
        let mut schedule = Self { arrivals, shard, drawn: 0, next: None };
        schedule.advance();
        schedule
    }

    /// Moves on to this shard's next arrival. Every shard draws the whole sequence and keeps its own
    /// share, so that the union over shards is the sequence of one.
    fn advance(&mut self) {
        loop {
            let at = self.arrivals.next();
            let mine = self.drawn % u64::from(self.shard.count) == u64::from(self.shard.index);
            self.drawn += 1;
            if mine {
                self.next = at;
                return;
            }
        }
    }
}

impl Driver {
    /// A driver for `shard` of the phase.
    pub fn new(plan: &PhasePlan, shard: Shard) -> Self {
        let (shard, has_work) = shard.among_slots(&plan.shape);
        let budget = match plan.requests {
            _ if !has_work => 0,
            Some(n) => shard.share(n),
            None => u64::MAX,
        };
        let (slots, schedule) = match &plan.shape {
            LoadShape::Closed { concurrency } => (Some(shard.share(u64::from(*concurrency))), None),
            LoadShape::Burst => (None, None),
            LoadShape::Open { arrival, rate_rps, seed, max_in_flight } => (
                max_in_flight.map(|n| shard.share(u64::from(n)).max(1)),
                Some(Schedule::new(Arrivals::new(*arrival, *rate_rps, *seed), shard)),
            ),
        };
        Self {
            shard,
            timeout: plan.timeout,
            duration: plan.duration,
            budget,
            begun: 0,
            due: VecDeque::new(),
            schedule,
            slots,
            in_flight: HashMap::new(),
            deadlines: VecDeque::new(),
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

    /// Takes in what happened at `now` and appends what is to be done to `out`.
    pub fn step(&mut self, now: Nanos, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Start => self.start(now),
            Input::Wake => {}
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
        self.expire(now, out);
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
        if self.schedule.is_some() {
            return;
        }
        let at_once = self.slots.unwrap_or(self.budget).min(self.budget);
        for _ in 0..at_once {
            self.enqueue(now);
        }
    }

    fn enqueue(&mut self, scheduled_at: Nanos) {
        if self.begun < self.budget {
            self.due.push_back((self.shard.index_of(self.begun), scheduled_at));
            self.begun += 1;
        }
    }

    fn finished(&mut self, index: u64, at: Nanos) {
        let Some(target) = self.in_flight.remove(&index) else { return };
        self.balancer.release(target);
        let is_closed_loop = self.schedule.is_none() && self.slots.is_some();
        if is_closed_loop && !self.stopping && self.within_duration(at) {
            self.enqueue(at);
        }
    }

    fn within_duration(&self, at: Nanos) -> bool {
        self.duration.is_none_or(|d| at < self.origin + d)
    }

    fn stop(&mut self, out: &mut Vec<Action>) {
        self.stopping = true;
        self.schedule = None;
        out.extend(
            self.due.drain(..).map(|(index, scheduled_at)| Action::Drop { index, scheduled_at }),
        );
    }

    /// Past the duration, what was due before its end and still waits for a slot is dropped, on record.
    fn end_of_duration(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.stopping || self.within_duration(now) {
            return;
        }
        self.draw_due(now);
        self.stop(out);
    }

    fn draw_due(&mut self, now: Nanos) {
        while let Some(schedule) = &mut self.schedule {
            let Some(offset) = schedule.next else { return };
            let at = self.origin + offset;
            if at > now || self.begun >= self.budget || self.duration.is_some_and(|d| offset >= d) {
                return;
            }
            schedule.advance();
            self.enqueue(at);
        }
    }

    fn send_due(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let free = self.slots.map_or(usize::MAX, |slots| {
            usize::try_from(slots).unwrap_or(usize::MAX).saturating_sub(self.in_flight.len())
        });
        for _ in 0..free.min(self.due.len()) {
            let Some((index, scheduled_at)) = self.due.pop_front() else { return };
            let target = self.balancer.acquire(index);
            self.in_flight.insert(index, target);
            self.deadlines.push_back((now + self.timeout, index));
            out.push(Action::Send(Dispatch { index, target, scheduled_at }));
        }
    }

    fn expire(&mut self, now: Nanos, out: &mut Vec<Action>) {
        while let Some(&(deadline, index)) = self.deadlines.front() {
            let is_gone = !self.in_flight.contains_key(&index);
            if !is_gone && deadline > now {
                return;
            }
            self.deadlines.pop_front();
            if !is_gone {
                out.push(Action::Cancel { index, why: CancelReason::TimedOut });
            }
        }
    }

    fn ask_for_wake(&self, out: &mut Vec<Action>) {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let schedule = self.schedule.as_ref().filter(|_| self.begun < self.budget);
        let next_due = schedule.and_then(|s| s.next).map(|offset| self.origin + offset);
        let end = self.duration.filter(|_| !self.stopping).map(|d| self.origin + d);
        if let Some(at) = [deadline, next_due, end].into_iter().flatten().min() {
            out.push(Action::WakeAt(at));
        }
    }

    fn is_over(&self) -> bool {
        let nothing_ahead = self.stopping
            || self.begun >= self.budget
            || (self.schedule.is_none() && self.slots.is_none_or(|s| s == 0));
        nothing_ahead && self.due.is_empty() && self.in_flight.is_empty()
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
