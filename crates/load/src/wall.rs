//! The driver on the wall clock: one thread, one runtime, one shard of the phase.
//!
//! The loop asks the driver what to do, does it, and waits for the next thing to happen:
//!
//! ```text
//!   driver.step ─► act: send / cancel / drop ─► wait: due? ended? told to stop?
//!        ▲                                              │
//!        └──────────────────────────────────────────────┘
//! ```
//!
//! **Invariants:** all exchanges of the shard are polled by this one task, so between a socket that is
//! ready and the stamp of its read lie no queue, no lock and no other thread; records leave by a
//! channel and are written, counted and tokenized on another thread.

use crate::control::{Control, Level};
use crate::cpu;
use crate::exchange::{Cancel, Lines, carry};
use crate::pace::Pacer;
use crate::stock::Stock;
use crate::stream::Finished;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use futures_util::task::AtomicWaker;
use scalebeam_model::driver::{Action, Dispatch, Driver, Input, PhasePlan};
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::units::Nanos;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};

/// Exchanges that may end before the first of them frees its slot.
const READ_AHEAD: usize = 256;

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
    pub(crate) lines: &'a Lines,
    pub(crate) stock: &'a Stock<'a>,
    pub(crate) control: &'a Control,
    /// Woken when the control has something to say.
    pub(crate) waker: Arc<AtomicWaker>,
    pub(crate) reports: Sender<Report>,
}

/// What a shard was while it ran.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardEnd {
    pub(crate) ended_at: Nanos,
    pub(crate) reconnects: u64,
    pub(crate) cpu: Option<Nanos>,
}

/// Runs one shard, from the instant `start` to its end.
pub(crate) async fn run_shard(post: Post<'_>, pacer: Pacer, start: Nanos) -> ShardEnd {
    let lines = post.lines;
    let mut wall = Wall::new(post, pacer);
    wall.run(start).await;
    ShardEnd {
        ended_at: lines.clock.now(),
        reconnects: lines.reconnects(),
        cpu: cpu::of_this_thread(),
    }
}

/// What the loop waits for.
enum Event {
    /// The instant that the driver asked for has come.
    Due,
    Ended(Box<Finished>),
    Told(Level),
}

struct Wall<'a> {
    post: Post<'a>,
    driver: Driver,
    pacer: Pacer,
    exchanges: FuturesUnordered<LocalBoxFuture<'a, Finished>>,
    /// Exchanges that ended and that the driver does not know of yet.
    ended: VecDeque<Box<Finished>>,
    cancels: HashMap<u64, Rc<Cancel>>,
    wake_at: Option<Nanos>,
    level: Level,
    done: bool,
    actions: Vec<Action>,
}

impl<'a> Wall<'a> {
    fn new(post: Post<'a>, pacer: Pacer) -> Self {
        Self {
            driver: Driver::new(post.plan, post.stock.shard()),
            post,
            pacer,
            exchanges: FuturesUnordered::new(),
            ended: VecDeque::new(),
            cancels: HashMap::new(),
            wake_at: None,
            level: Level::Run,
            done: false,
            actions: Vec::new(),
        }
    }

    async fn run(&mut self, start: Nanos) {
        self.wake_at = Some(start);
        // All shards count from the same instant, whenever each of them comes round to it.
        while let Event::Told(level) = self.next_event().await {
            self.level = level;
        }
        match self.level {
            Level::Run => self.step(start, Input::Start),
            // Told before it began: nothing is due then, so nothing is sent and nothing dropped.
            level => self.obey(level),
        }
        while !self.done {
            match self.next_event().await {
                Event::Due => self.step(self.now(), Input::Wake),
                Event::Ended(finished) => self.ended(finished),
                Event::Told(level) => self.obey(level),
            }
        }
    }

    fn now(&self) -> Nanos {
        self.post.lines.clock.now()
    }

    async fn next_event(&mut self) -> Event {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// What is due goes first: a request that is sent late is worse than a read that waits its turn.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.post.waker.register(cx.waker());
        let level = self.post.control.level();
        if level != self.level {
            return Poll::Ready(Event::Told(level));
        }
        if let Some(at) = self.wake_at
            && self.pacer.poll_reached(cx, at).is_ready()
        {
            return Poll::Ready(Event::Due);
        }
        self.read_all(cx);
        match self.ended.pop_front() {
            Some(finished) => Poll::Ready(Event::Ended(finished)),
            None => Poll::Pending,
        }
    }

    /// Reads every socket that is ready before any slot that became free sends again. Streams that end
    /// together would otherwise wait for each other's next request, and their last tokens be stamped
    /// late; what a send is late for it is on record, a stamp's error is not.
    fn read_all(&mut self, cx: &mut Context<'_>) {
        while self.ended.len() < READ_AHEAD
            && let Poll::Ready(Some(finished)) = Pin::new(&mut self.exchanges).poll_next(cx)
        {
            self.ended.push_back(Box::new(finished));
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
                Action::Cancel { index, why } => {
                    if let Some(cancel) = self.cancels.get(&index) {
                        cancel.give_up(why);
                    }
                }
                Action::Drop { index, scheduled_at } => self.drop_request(now, index, scheduled_at),
                Action::Done => self.done = true,
            }
        }
        self.actions = actions;
    }

    fn send(&mut self, dispatch: Dispatch) {
        let prepared = self.post.stock.take(dispatch.index);
        let record = self.record(dispatch.index, dispatch.target, dispatch.scheduled_at);
        let cancel = Rc::new(Cancel::default());
        self.cancels.insert(dispatch.index, Rc::clone(&cancel));
        self.post.control.count_started();
        let lines = self.post.lines;
        self.exchanges.push(Box::pin(async move { carry(lines, record, prepared, &cancel).await }));
    }

    fn ended(&mut self, finished: Box<Finished>) {
        let (index, at) = (finished.record.index, finished.record.finished_at);
        self.cancels.remove(&index);
        self.post.control.count_ended(&finished.record);
        self.report(Report::Ended(finished));
        self.step(self.now(), Input::Finished { index, at });
    }

    fn drop_request(&mut self, now: Nanos, index: u64, scheduled_at: Nanos) {
        let mut record = self.record(index, 0, scheduled_at);
        record.finished_at = now;
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

    fn record(&self, index: u64, target: u16, scheduled_at: Nanos) -> RequestRecord {
        let phase: Phase = self.post.plan.phase;
        let mut record = RequestRecord::new(index, phase, target, scheduled_at);
        record.worker = self.post.stock.shard().index;
        record
    }

    fn report(&self, report: Report) {
        // The receiver outlives the shards; without it there is nobody left to tell.
        let _ = self.post.reports.send(report);
    }
}
