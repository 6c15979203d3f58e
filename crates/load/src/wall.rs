//! The driver on the wall clock: one thread, one shard of the phase.
//!
//! The loop asks the driver what to do, does it, and waits for the next thing to happen:
//!
//! ```text
//!   driver.step ─► act: send / cancel / drop ─► wait: due? ready sockets? told to stop?
//!        ▲                                              │
//!        └──────────────────────────────────────────────┘
//! ```
//!
//! **Invariants:** between a socket that is ready and the stamp of its read lie no queue, no lock and no
//! other thread; what is due goes before what can be read, since the kernel stamps what waits to be
//! read and nobody stamps what waits to be sent; records leave by a channel and are written, counted
//! and tokenized on another thread.

use crate::carrier::Carrier;
use crate::control::{Control, Level};
use crate::cpu;
use crate::desk::Desk;
use crate::exchange::Setup;
use crate::reactor::Reactor;
use crate::stock::{Prepared, Stock};
use crate::stream::Finished;
use mio::Registry;
use scalebeam_model::driver::{
    Action, CancelReason, Dispatch, Driver, DropReason, Input, PhasePlan, Turn,
};
use scalebeam_model::request::{Failure, FailureClass, Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use std::collections::HashMap;
use std::sync::mpsc::Sender;

/// What a shard reports while it runs.
#[derive(Debug)]
pub(crate) enum Report {
    /// A request that was sent has ended.
    Ended(Box<Finished>),
    /// A request was due and will not be sent.
    Dropped {
        /// What is known of it.
        record: Box<RequestRecord>,
    },
}

/// What a shard needs to run.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    pub(crate) plan: &'a PhasePlan,
    pub(crate) setup: &'a Setup,
    pub(crate) api: Api,
    pub(crate) stock: &'a Stock<'a>,
    /// Where later turns are written, where requests are turns of sessions.
    pub(crate) desk: Option<&'a Desk<'a>>,
    pub(crate) control: &'a Control,
    pub(crate) reports: Sender<Report>,
}

/// What a shard was while it ran.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardEnd {
    pub(crate) ended_at: Nanos,
    pub(crate) reconnects: u64,
    pub(crate) cpu: Option<Nanos>,
    /// Of that, from the start on.
    pub(crate) cpu_in_phase: Option<Nanos>,
}

/// Runs one shard, from the instant `start` to its end.
pub(crate) fn run_shard(
    post: &Post<'_>,
    mut reactor: Reactor,
    registry: Registry,
    start: Nanos,
) -> ShardEnd {
    let mut wall = Wall::new(post, registry);
    let before = cpu::of_this_thread();
    wall.run(&mut reactor, start);
    let cpu = cpu::of_this_thread();
    ShardEnd {
        ended_at: post.setup.clock.now(),
        reconnects: wall.carrier.outcomes().resent,
        cpu,
        cpu_in_phase: cpu.zip(before).map(|(cpu, before)| cpu.since(before)),
    }
}

struct Wall<'a> {
    post: &'a Post<'a>,
    driver: Driver,
    carrier: Carrier<'a>,
    wake_at: Option<Nanos>,
    level: Level,
    done: bool,
    actions: Vec<Action>,
    /// Requests that were due before they were written.
    unwritten: HashMap<u64, Dispatch>,
    /// What the request that ended just now was answered with, until the turn after it is ordered.
    answer: Option<Vec<u8>>,
    /// The session of the request that ended just now has another turn.
    goes_on: bool,
}

impl<'a> Wall<'a> {
    fn new(post: &'a Post<'a>, registry: Registry) -> Self {
        let driver = Driver::new(post.plan, post.stock.shard());
        Self {
            carrier: Carrier::new(post.setup, registry, driver.wants_first_tokens()),
            driver,
            post,
            wake_at: None,
            level: Level::Run,
            done: false,
            actions: Vec::new(),
            unwritten: HashMap::new(),
            answer: None,
            goes_on: false,
        }
    }

    fn run(&mut self, reactor: &mut Reactor, start: Nanos) {
        // All shards count from the same instant, whenever each of them comes round to it.
        while self.post.control.level() == Level::Run && self.now() < start {
            self.wait(reactor, Some(start));
        }
        match self.post.control.level() {
            Level::Run => self.step(start, Input::Start),
            // Told before it began: nothing is due then, so nothing is sent and nothing dropped.
            level => self.obey(level),
        }
        // What failed at once, for want of an address for example, is no socket that could wake us.
        self.attend(self.now());
        while !self.done {
            let until = [self.wake_at, self.carrier.wake_at()].into_iter().flatten().min();
            let until = if self.carrier.is_unfinished() { Some(Nanos::ZERO) } else { until };
            self.wait(reactor, until);
            self.carrier.awake();
            self.attend(self.now());
            let mut nth = 0;
            while let Some(ready) = reactor.ready(nth) {
                let now = self.carrier.handle(ready);
                self.attend(now);
                nth += 1;
            }
            if self.carrier.is_unfinished() {
                self.carrier.go_on();
                self.attend(self.now());
            }
        }
    }

    fn now(&self) -> Nanos {
        self.post.setup.clock.now()
    }

    fn wait(&mut self, reactor: &mut Reactor, until: Option<Nanos>) {
        // A system that cannot wait cannot measure: what is in flight is given up, on record.
        if reactor.wait(until).is_err() {
            self.post.control.abort();
        }
    }

    /// Everything but sockets: what is due, what ended, what we were told.
    fn attend(&mut self, now: Nanos) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.step(now, Input::Wake);
        }
        if self.carrier.wake_at().is_some_and(|at| at <= now) {
            self.carrier.expire(now);
        }
        let level = self.post.control.level();
        if level != self.level {
            self.obey(level);
        }
        for prepared in self.post.desk.map(Desk::news).unwrap_or_default() {
            if let Some(dispatch) = self.unwritten.remove(&prepared.index) {
                self.send_prepared(dispatch, &prepared);
            }
        }
        while let Some((index, at)) = self.carrier.outcomes().next_first_token() {
            self.step(now, Input::FirstToken { index, at });
        }
        while let Some(finished) = self.carrier.outcomes().next_ended() {
            self.ended(finished);
        }
    }

    fn step(&mut self, now: Nanos, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        self.wake_at = None;
        self.driver.step(now, input, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(dispatch) => self.send(dispatch),
                Action::WakeAt(at) => self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at))),
                Action::Cancel { index, why } => self.cancel(index, why),
                Action::Prepare { index, turn } => self.prepare(index, turn),
                Action::Drop { index, scheduled_at, turn, why } => {
                    let record = self.record(index, 0, scheduled_at, turn);
                    self.drop_request(now, record, why);
                }
                Action::Done => self.done = true,
            }
        }
        self.actions = actions;
    }

    fn send(&mut self, dispatch: Dispatch) {
        self.post.control.count_started();
        let Turn { session, number } = dispatch.turn;
        let prepared = match self.post.desk.filter(|_| number > 0) {
            Some(desk) => desk.take(dispatch.index),
            None => Some(self.post.stock.take(session)),
        };
        match prepared {
            Some(prepared) => self.send_prepared(dispatch, &prepared),
            None => {
                self.unwritten.insert(dispatch.index, dispatch);
            }
        }
    }

    fn send_prepared(&mut self, dispatch: Dispatch, prepared: &Prepared) {
        let Dispatch { index, target, scheduled_at, turn } = dispatch;
        let record = self.record(index, target, scheduled_at, turn);
        self.carrier.send(record, prepared, self.post.setup);
    }

    fn prepare(&mut self, index: u64, turn: Turn) {
        self.goes_on = true;
        if let Some(desk) = self.post.desk {
            desk.order(index, turn, self.answer.take().unwrap_or_default());
        }
    }

    fn cancel(&mut self, index: u64, why: CancelReason) {
        let Some(dispatch) = self.unwritten.remove(&index) else {
            return self.carrier.cancel(index, why);
        };
        let Dispatch { target, scheduled_at, turn, .. } = dispatch;
        let mut record = self.record(index, target, scheduled_at, turn);
        record.class = self.post.desk.map(|desk| desk.class(turn)).unwrap_or_default();
        self.carrier.give_up_unsent(record, self.post.api, why, self.post.setup);
    }

    fn ended(&mut self, mut finished: Box<Finished>) {
        let record = &finished.record;
        let (index, at, session) = (record.index, record.finished_at, record.session);
        let input = if record.is_completed() {
            Input::Finished { index, at }
        } else {
            Input::Broken { index, at }
        };
        self.post.control.count_ended(record);
        (self.answer, self.goes_on) = (finished.answer.take(), false);
        self.report(Report::Ended(finished));
        self.step(self.now(), input);
        if let (Some(desk), Some(session), false) = (self.post.desk, session, self.goes_on) {
            desk.forget(session);
        }
    }

    fn drop_request(&mut self, now: Nanos, mut record: RequestRecord, why: DropReason) {
        record.finished_at = now;
        if why == DropReason::SessionEnded {
            record.failure = Some(Failure {
                class: FailureClass::SessionEnded,
                status: None,
                detail: "an earlier turn of its session was not completed".to_owned(),
            });
        }
        self.report(Report::Dropped { record: Box::new(record) });
    }

    fn obey(&mut self, level: Level) {
        self.level = level;
        match level {
            Level::Run => {}
            Level::Stop => self.step(self.now(), Input::Stop),
            Level::Abort => self.step(self.now(), Input::Abort),
        }
    }

    fn record(&self, index: u64, target: u16, scheduled_at: Nanos, turn: Turn) -> RequestRecord {
        let phase: Phase = self.post.plan.phase;
        let mut record = RequestRecord::new(index, phase, target, scheduled_at);
        record.worker = self.post.stock.shard().index;
        if self.post.desk.is_some() {
            (record.session, record.turn) = (Some(turn.session), Some(turn.number));
        }
        record
    }

    fn report(&self, report: Report) {
        // The receiver outlives the shards; without it there is nobody left to tell.
        let _ = self.post.reports.send(report);
    }
}
