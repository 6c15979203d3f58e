//! The thread that owns the emulator and keeps wall time.
//!
//! Why a thread and not a task: tokio's timers tick in milliseconds, which is coarser than the token
//! gaps that this server has to be a reference for, and a task that spins would hold up every stream
//! of its worker. A thread may block: it waits on its command channel until shortly before the next due
//! instant and spins the rest, so a token is released within microseconds of its time.
//!
//! Spinning is limited to gaps of at least twice [`SPIN`]. When thousands of streams make instants denser
//! than that, the thread sleeps through to the next one instead and releases whatever has become due
//! (some 0.1 ms late at worst), since burning the core that the streams need would cost them more.
//!
//! Due instants are absolute and come from the emulator, so lateness never adds up.

use super::metrics::Metrics;
use crate::emulator::{Emulator, TimedToken};
use crate::engine::{Request, RequestId};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedSender;

/// The end of a wait that is spun instead of slept: above the usual timer slack (50 us) and wake-up.
const SPIN: Nanos = Nanos::from_micros(120);

/// One choice to be generated.
#[derive(Debug)]
pub(super) struct Job {
    /// What the emulator is asked for.
    pub(super) request: Request,
    /// When the HTTP request had been read: tokens are due relative to this.
    pub(super) arrived_at: Nanos,
    /// Index of the choice in its answer.
    pub(super) choice: usize,
    /// Whether the answer ends by itself, before its limit.
    pub(super) stops: bool,
    /// Where tokens go. Unbounded, since a paced engine cannot wait for a slow client; an answer's
    /// token limit bounds it all the same.
    pub(super) events: UnboundedSender<Event>,
}

/// What an answer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A token of one choice exists.
    Token {
        /// Which choice.
        choice: usize,
        /// Whether it is the choice's last.
        last: bool,
    },
    /// The request cannot be served.
    Failed(String),
}

#[derive(Debug)]
enum Command {
    Submit(Vec<Job>),
    Cancel(Vec<RequestId>),
    Stop,
}

/// What requests and the metrics page hold of the pacer.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    commands: Sender<Command>,
    metrics: Arc<Mutex<Metrics>>,
}

impl Handle {
    /// Hands jobs over; they enter the engine together. Their channels close when the pacer is gone.
    pub(super) fn submit(&self, jobs: Vec<Job>) {
        drop(self.commands.send(Command::Submit(jobs)));
    }

    /// Takes back whatever is left of `ids`.
    pub(super) fn cancel(&self, ids: Vec<RequestId>) {
        drop(self.commands.send(Command::Cancel(ids)));
    }

    /// The metrics as of the last instant at which anything happened.
    pub(super) fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Pacer {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Starts a thread that drives `emulator` at `speed` emulated seconds per wall second.
    pub(super) fn start(
        emulator: Box<dyn Emulator>,
        clock: Arc<dyn Clock>,
        speed: f64,
    ) -> io::Result<Self> {
        let (commands, inbox) = channel();
        let metrics = Arc::new(Mutex::new(Metrics::default()));
        let handle = Handle { commands, metrics };
        let scale = Scale { origin: clock.now(), speed };
        let streams = HashMap::new();
        let metrics = handle.clone();
        let looped = Loop {
            emulator,
            clock,
            scale,
            inbox,
            streams,
            handle: metrics,
            due: Vec::new(),
            failed: None,
        };
        let thread =
            std::thread::Builder::new().name("pacer".to_owned()).spawn(move || looped.run())?;
        Ok(Self { handle, thread })
    }

    /// What requests hold.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.handle.commands.send(Command::Stop));
        // A panic there has closed every stream already; there is nothing to add here.
        drop(self.thread.join());
    }
}

/// Wall time to emulated time and back.
#[derive(Debug, Clone, Copy)]
struct Scale {
    origin: Nanos,
    speed: f64,
}

impl Scale {
    fn is_identity(self) -> bool {
        (self.speed - 1.0).abs() < 1e-12
    }

    fn emulated(self, wall: Nanos) -> Nanos {
        if self.is_identity() {
            return wall;
        }
        self.origin + Nanos::from_secs_f64(wall.since(self.origin).as_secs_f64() * self.speed)
    }

    fn wall(self, emulated: Nanos) -> Nanos {
        if self.is_identity() {
            return emulated;
        }
        self.origin + Nanos::from_secs_f64(emulated.since(self.origin).as_secs_f64() / self.speed)
    }
}

/// One choice under way.
#[derive(Debug)]
struct Stream {
    events: UnboundedSender<Event>,
    choice: usize,
    stops: bool,
    arrived_at: Nanos,
    first_at: Option<Nanos>,
    last_at: Option<Nanos>,
}

#[derive(Debug)]
struct Loop {
    emulator: Box<dyn Emulator>,
    clock: Arc<dyn Clock>,
    scale: Scale,
    inbox: Receiver<Command>,
    streams: HashMap<RequestId, Stream>,
    handle: Handle,
    /// Kept to save an allocation a step.
    due: Vec<TimedToken>,
    failed: Option<String>,
}

/// Why a wait ended.
enum Wake {
    Due,
    Command(Command),
    Closed,
}

/// A token in wall time.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Nanos,
    started_at: Nanos,
    is_last: bool,
}

impl Metrics {
    /// Counts a token of `stream` at `at`, the one after that at `last_at`; it left the queue at `started_at`. The
    /// stages of a request are counted at its end, as vLLM does.
    fn count(&mut self, stream: &Stream, token: Due, last_at: Option<Nanos>) {
        let Due { at, started_at, is_last } = token;
        match last_at {
            None => self.ttft.observe(at.since(stream.arrived_at)),
            Some(last) => self.itl.observe(at.since(last)),
        }
        if is_last {
            let first_at = stream.first_at.unwrap_or(at);
            self.queue.observe(started_at.since(stream.arrived_at));
            self.prefill.observe(first_at.since(started_at));
            self.decode.observe(at.since(first_at));
            self.e2e.observe(at.since(stream.arrived_at));
            let ended = if stream.stops { &mut self.stopped } else { &mut self.lengths };
            *ended += 1;
        }
    }
}

impl Loop {
    fn run(mut self) {
        loop {
            match self.wait() {
                Wake::Closed | Wake::Command(Command::Stop) => return,
                Wake::Command(command) => self.take(command),
                Wake::Due => {}
            }
            self.advance();
        }
    }

    /// Waits for the next due instant or command.
    fn wait(&self) -> Wake {
        let next = if self.failed.is_some() { None } else { self.emulator.next_at() };
        let Some(due) = next.map(|at| self.scale.wall(at)) else {
            return self.inbox.recv().map_or(Wake::Closed, Wake::Command);
        };
        let left = due.since(self.clock.now());
        if left == Nanos::ZERO {
            return self.poll().unwrap_or(Wake::Due);
        }
        let sparse = left > SPIN + SPIN;
        let sleep = if sparse { left - SPIN } else { left };
        match self.inbox.recv_timeout(sleep.to_std()) {
            Ok(command) => Wake::Command(command),
            Err(RecvTimeoutError::Disconnected) => Wake::Closed,
            Err(RecvTimeoutError::Timeout) => self.spin(due),
        }
    }

    fn spin(&self, due: Nanos) -> Wake {
        while self.clock.now() < due {
            if let Some(wake) = self.poll() {
                return wake;
            }
            std::hint::spin_loop();
        }
        Wake::Due
    }

    fn poll(&self) -> Option<Wake> {
        match self.inbox.try_recv() {
            Ok(command) => Some(Wake::Command(command)),
            Err(TryRecvError::Disconnected) => Some(Wake::Closed),
            Err(TryRecvError::Empty) => None,
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(jobs) => jobs.into_iter().for_each(|job| self.submit(job)),
            Command::Cancel(ids) => ids.into_iter().for_each(|id| self.cancel(id)),
            Command::Stop => {}
        }
    }

    fn submit(&mut self, job: Job) {
        let Job { request, arrived_at, choice, stops, events } = job;
        let problem = match &self.failed {
            Some(failed) => Some(failed.clone()),
            None => {
                let at = self.scale.emulated(arrived_at);
                self.emulator.submit(at, request).err().map(|error| error.to_string())
            }
        };
        if let Some(problem) = problem {
            // An answer that is gone already needs no news.
            drop(events.send(Event::Failed(problem)));
            return;
        }
        let stream = Stream { events, choice, stops, arrived_at, first_at: None, last_at: None };
        self.streams.insert(request.id, stream);
    }

    fn cancel(&mut self, id: RequestId) {
        if self.streams.remove(&id).is_some() {
            let now = self.scale.emulated(self.clock.now());
            self.emulator.cancel(now, id);
            self.handle.metrics().aborted += 1;
        }
    }

    /// Releases every token that is due.
    fn advance(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let now = self.scale.emulated(self.clock.now());
        let mut due = std::mem::take(&mut self.due);
        let outcome = self.emulator.advance(now, &mut due);
        // Before anybody gets a token: whoever has read a whole answer finds it counted.
        self.handle.metrics().engine = self.emulator.stats();
        for token in due.drain(..) {
            self.release(token);
        }
        self.due = due;
        if let Err(error) = outcome {
            self.fail(&error.to_string());
        }
    }

    fn release(&mut self, timed: TimedToken) {
        let TimedToken { at, token } = timed;
        let (at, started_at) = (self.scale.wall(at), self.scale.wall(token.started_at));
        let Some(stream) = self.streams.get_mut(&token.id) else { return };
        let last_at = stream.last_at.replace(at);
        stream.first_at.get_or_insert(at);
        let due = Due { at, started_at, is_last: token.finished };
        self.handle.metrics().count(stream, due, last_at);
        // A receiver that is gone sends its own cancellation.
        drop(stream.events.send(Event::Token { choice: stream.choice, last: token.finished }));
        if token.finished {
            self.streams.remove(&token.id);
        }
    }

    /// Tells everyone that the engine is of no further use.
    fn fail(&mut self, problem: &str) {
        for (_, stream) in self.streams.drain() {
            drop(stream.events.send(Event::Failed(problem.to_owned())));
        }
        self.failed = Some(problem.to_owned());
        self.handle.metrics().failure = self.failed.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_exact_at_speed_one_and_inverts_otherwise() {
        let at = |speed| Scale { origin: Nanos::from_secs(100), speed };
        let instant = Nanos(123_456_789_123);
        assert_eq!(at(1.0).emulated(instant), instant);
        assert_eq!(at(10.0).emulated(Nanos::from_secs(101)), Nanos::from_secs(110));
        let there_and_back = at(10.0).wall(at(10.0).emulated(instant));
        assert!(there_and_back.since(instant).max(instant.since(there_and_back)) < Nanos(100));
    }
}
