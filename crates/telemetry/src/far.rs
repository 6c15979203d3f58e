//! Watching another machine: asks the agent there, and keeps what it says.
//!
//! A thread per machine holds one connection, and makes another where it breaks; the agent goes on
//! meanwhile, and its spool is told from where the last connection ended. Clocks are compared by bursts of
//! questions over the same connection: when it is made, when a measurement begins, and when it ends.
//!
//! **Invariants.** A measurement waits for a far machine no longer than [`BEGIN_WAIT`], and its end no longer
//! than [`END_WAIT`]; what has not come by then is absent with the reason. An agent that says that its spool
//! cannot be written is not waited for. Nothing here fails a run.

mod burst;

use crate::agent::LINGER;
use burst::Burst;
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::agent::{
    Ask, Border, PROTOCOL, Received, Say, Watching, line, read, whole,
};
use scalebeam_model::telemetry::clocks::FarClock;
use scalebeam_model::telemetry::{Absent, Telemetry};
use scalebeam_model::units::Nanos;
use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

/// A machine that has not begun to be read by then is measured without.
pub const BEGIN_WAIT: Nanos = Nanos::from_secs(10);
/// What has not come so long after the end is given up: longer than a broken connection takes to be noticed
/// and made again.
pub const END_WAIT: Nanos = Nanos::from_secs(40);
/// Who could not be reached for so long is not waited for: [`LOST_WAIT`] is for what is on its way already.
const LOST_AFTER: Nanos = Nanos::from_secs(20);
/// The wait for a machine that was lost.
const LOST_WAIT: Nanos = Nanos::from_secs(1);
/// Between two attempts to reach a machine.
const RETRY_EVERY: Nanos = Nanos::from_secs(2);
/// So that an agent that is not asked anything knows that it is not forgotten.
const BEAT_EVERY: Nanos = Nanos(LINGER.0 / 12);

/// A way to an agent, as it is once it was made.
pub struct Link {
    /// What is written here is read by the agent.
    pub input: Box<dyn Write + Send>,
    /// What the agent says.
    pub output: Box<dyn Read + Send>,
    /// Whoever carries both.
    pub carrier: Box<dyn Carrier>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// What carries a link; dropping it breaks it.
pub trait Carrier: Send {
    /// Why it broke, where it says so.
    fn last_words(&mut self) -> Option<String>;
}

/// Makes links to one agent.
pub trait Reach: Send + std::fmt::Debug {
    /// Makes another one. That it works is known once the agent says hello.
    ///
    /// # Errors
    /// When it cannot even be tried.
    fn connect(&self) -> Result<Link, String>;
}

/// A watch over another machine.
#[derive(Debug)]
pub struct FarWatch {
    events: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
enum Event {
    Begin(Sender<()>),
    End(Sender<Telemetry>),
    /// A line of connection number .0.
    Line(u64, Vec<u8>, Nanos),
    Closed(u64),
    Leave,
}

/// Waits for what a far machine was asked.
#[derive(Debug)]
pub struct Pending<T>(Option<Receiver<T>>);

impl<T> Pending<T> {
    /// What came of it; nothing where the thread has ended.
    pub fn wait(self) -> Option<T> {
        self.0?.recv().ok()
    }
}

impl FarWatch {
    /// Starts the thread, which reaches for the agent by `reach` at once.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        watching: Watching,
        reach: Box<dyn Reach>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (events, told) = channel();
        let far = Far {
            watching,
            reach,
            clock,
            events: events.clone(),
            link: None,
            links: 0,
            received: Received::default(),
            time: FarClock::default(),
            burst: None,
            measure: 0,
            phase: Phase::Idle,
            lost_at: None,
            retry_at: Nanos::ZERO,
            beat_at: Nanos::ZERO,
            trouble: None,
            unspooled: None,
        };
        let thread = std::thread::Builder::new().name("far telemetry".to_owned());
        let thread = thread.spawn(move || far.serve(&told))?;
        Ok(Self { events: Some(events), thread: Some(thread) })
    }

    /// Begins to read; over once everything was read there for the first time, or it takes too long.
    pub fn begin(&self) -> Pending<()> {
        self.ask(Event::Begin)
    }

    /// Reads once more, and gives what was read since the begin, in our time.
    pub fn end(&self) -> Pending<Telemetry> {
        self.ask(Event::End)
    }

    fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> Event) -> Pending<T> {
        let (sender, answer) = channel();
        let is_sent = self.events.as_ref().is_some_and(|e| e.send(event(sender)).is_ok());
        Pending(is_sent.then_some(answer))
    }
}

impl Drop for FarWatch {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            let _ = events.send(Event::Leave);
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is told where it happened.
            let _ = thread.join();
        }
    }
}

/// Where a measurement stands.
#[derive(Debug)]
enum Phase {
    Idle,
    /// Begun, and not answered yet; until then.
    Beginning(Sender<()>, Nanos),
    Measuring,
    /// Ended, and not all is here yet; until then.
    Ending(Sender<Telemetry>, Nanos),
}

/// A connection.
struct Live {
    link: Link,
    /// Its agent said hello.
    is_up: bool,
}

/// The thread's life.
struct Far {
    watching: Watching,
    reach: Box<dyn Reach>,
    clock: Arc<dyn Clock>,
    events: Sender<Event>,
    link: Option<Live>,
    /// Connections so far; the number of the present one.
    links: u64,
    received: Received,
    time: FarClock,
    burst: Option<Burst>,
    measure: u64,
    phase: Phase,
    /// Since when its agent cannot be reached.
    lost_at: Option<Nanos>,
    retry_at: Nanos,
    beat_at: Nanos,
    /// What is wrong at present.
    trouble: Option<Trouble>,
    /// The last border that its agent could not write, and why.
    unspooled: Option<(Border, u64, String)>,
}

/// What is wrong with a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    why: String,
    /// Nothing more will come.
    is_final: bool,
}

/// Until when to wait for an answer that may take `most`, from an agent that cannot be reached since `lost_at`.
fn patience(now: Nanos, lost_at: Option<Nanos>, most: Nanos) -> Nanos {
    let is_lost = lost_at.is_some_and(|since| now.since(since) >= LOST_AFTER);
    now + if is_lost { LOST_WAIT } else { most }
}

impl Far {
    fn serve(mut self, told: &Receiver<Event>) {
        loop {
            self.connect_if_due();
            let rest = self.next_due() - self.clock.now();
            match told.recv_timeout(rest.to_std()) {
                Ok(Event::Leave) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.go_on();
        }
        self.ask(&Ask::Bye);
    }

    fn next_due(&self) -> Nanos {
        let waited = match &self.phase {
            Phase::Beginning(_, until) | Phase::Ending(_, until) => *until,
            Phase::Idle | Phase::Measuring => Nanos(u64::MAX),
        };
        let own = if self.link.is_some() { self.beat_at } else { self.retry_at };
        let own = if self.is_over() { Nanos(u64::MAX) } else { own };
        // A wait of hours is cut, so that it is one that the system takes.
        waited.min(own).min(self.clock.now() + Nanos::from_secs(60))
    }

    fn is_over(&self) -> bool {
        self.link.is_none() && self.trouble.as_ref().is_some_and(|t| t.is_final)
    }

    fn connect_if_due(&mut self) {
        let now = self.clock.now();
        if self.link.is_some() || self.is_over() || now < self.retry_at {
            return;
        }
        self.retry_at = now + RETRY_EVERY;
        match self.connect() {
            Ok(live) => self.link = Some(live),
            Err(why) => {
                self.lost_at.get_or_insert(now);
                self.trouble = Some(Trouble { why, is_final: false });
            }
        }
    }

    /// Makes a connection, whose lines come as events.
    fn connect(&mut self) -> Result<Live, String> {
        let mut link = self.reach.connect()?;
        self.links += 1;
        let output = std::mem::replace(&mut link.output, Box::new(std::io::empty()));
        let (number, events, clock) = (self.links, self.events.clone(), Arc::clone(&self.clock));
        let thread = std::thread::Builder::new().name("far lines".to_owned());
        let spawned = thread.spawn(move || read_lines(number, output, &events, clock.as_ref()));
        spawned.map_err(|e| e.to_string())?;
        self.beat_at = self.clock.now() + BEAT_EVERY;
        Ok(Live { link, is_up: false })
    }

    /// Asks over the connection that there is. Before its agent said hello there is none: a shell may still
    /// be reading there.
    fn ask(&mut self, ask: &Ask) {
        let Some(live) = self.link.as_mut().filter(|live| live.is_up) else { return };
        let input = &mut live.link.input;
        // One that broke is told by its end.
        let _ = input.write_all(line(ask).as_bytes()).and_then(|()| input.flush());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Begin(answer) => self.begin(answer),
            Event::End(answer) => self.end(answer),
            Event::Line(number, line, at) if number == self.links => self.line(&line, at),
            Event::Closed(number) if number == self.links => self.closed(),
            // Of a connection that was given up.
            Event::Line(..) | Event::Closed(_) | Event::Leave => {}
        }
    }

    fn begin(&mut self, answer: Sender<()>) {
        self.measure += 1;
        self.time.forget_but_last();
        // What came behind the end of the last measurement is none of this one.
        drop(self.received.readings(self.watching.plan.interval));
        self.phase = Phase::Beginning(answer, patience(self.clock.now(), self.lost_at, BEGIN_WAIT));
        self.ask(&Ask::Begin { measure: self.measure });
    }

    fn end(&mut self, answer: Sender<Telemetry>) {
        self.phase = Phase::Ending(answer, patience(self.clock.now(), self.lost_at, END_WAIT));
        self.ask(&Ask::End { measure: self.measure });
    }

    fn line(&mut self, line: &[u8], at: Nanos) {
        // What a login shell prints before the agent speaks is none of the spool.
        let is_up = self.link.as_ref().is_some_and(|live| live.is_up);
        if !is_up && !matches!(read::<Say>(line), Some(Say::Hello { .. })) {
            return;
        }
        let was = self.borders();
        match self.received.take(line) {
            Some(Say::Hello { protocol, version, pid }) => self.hello(protocol, &version, pid),
            Some(Say::Pong { n, got, sent }) => self.pong(n, (got, sent), at),
            Some(Say::Unspooled { border, measure, why }) => {
                self.unspooled = Some((border, measure, why));
            }
            _ => {}
        }
        if self.borders() != was {
            self.start_burst();
        }
        if let Some(why) = self.received.sealed() {
            let why = format!("its telemetry agent has ended: {why}");
            self.trouble = Some(Trouble { why, is_final: true });
        }
    }

    /// Whether the borders of this measurement are known, or known not to come.
    fn borders(&self) -> (bool, bool) {
        let of = |border| self.why_unspooled(border).is_some();
        let (begun, ended) = (of(Border::Begun), of(Border::Ended));
        let (measure, received) = (self.measure, &self.received);
        (begun || received.has_begun(measure), ended || received.has_ended(measure))
    }

    /// Why its agent could not write this border of this measurement, where it said so.
    fn why_unspooled(&self, border: Border) -> Option<&str> {
        let of_this = |(which, measure, _): &&(Border, u64, String)| {
            *which == border && *measure == self.measure
        };
        self.unspooled.as_ref().filter(of_this).map(|(.., why)| why.as_str())
    }

    fn hello(&mut self, protocol: u32, version: &str, pid: Option<u32>) {
        if protocol != PROTOCOL {
            let why = format!("its telemetry agent (scalebeam {version}) speaks another protocol");
            self.trouble = Some(Trouble { why, is_final: true });
            self.link = None;
            return;
        }
        self.trouble = pid.is_none().then(|| Trouble {
            why: "its telemetry agent was ended by somebody".to_owned(),
            is_final: true,
        });
        if let Some(live) = self.link.as_mut() {
            live.is_up = true;
        }
        self.lost_at = None;
        self.ask(&Ask::From { byte: self.received.next_byte() });
        if pid.is_none() {
            return;
        }
        self.ask(&Ask::Watch(Box::new(self.watching.clone())));
        self.start_burst();
        // What was asked over the last connection may not have been heard.
        let measure = self.measure;
        match self.phase {
            Phase::Idle => {}
            Phase::Beginning(..) | Phase::Measuring => self.ask(&Ask::Begin { measure }),
            Phase::Ending(..) => {
                self.ask(&Ask::Begin { measure });
                self.ask(&Ask::End { measure });
            }
        }
    }

    fn start_burst(&mut self) {
        let (burst, first) = Burst::begin(self.clock.now());
        self.burst = Some(burst);
        self.ask(&first);
    }

    fn pong(&mut self, n: u64, there: (Nanos, Nanos), at: Nanos) {
        let Some(burst) = &mut self.burst else { return };
        match burst.take(n, there, at, self.clock.as_ref()) {
            burst::Next::Wait => {}
            burst::Next::Ask(ask) => self.ask(&ask),
            burst::Next::Done(fix) => {
                fix.into_iter().for_each(|fix| self.time.learn(fix));
                self.burst = None;
            }
        }
    }

    fn closed(&mut self) {
        self.burst = None;
        let Some(mut live) = self.link.take() else { return };
        let said = live.link.carrier.last_words();
        self.lost_at.get_or_insert(self.clock.now());
        if self.trouble.as_ref().is_some_and(|t| t.is_final) {
            return;
        }
        let why = said.unwrap_or_else(|| "the connection to its telemetry agent broke".to_owned());
        self.trouble = Some(Trouble { why, is_final: false });
    }

    /// Answers whoever waits, once there is something to answer or the time is over.
    fn go_on(&mut self) {
        let now = self.clock.now();
        if self.link.is_some() && now >= self.beat_at {
            self.beat_at = now + BEAT_EVERY;
            // No answer of it is a part of a burst.
            self.ask(&Ask::Ping { n: u64::MAX });
        }
        match &self.phase {
            Phase::Beginning(_, until) => {
                let is_there = self.borders().0 && self.burst.is_none();
                if is_there || self.is_over() || now >= *until {
                    self.answer_begin();
                }
            }
            Phase::Ending(_, until) => {
                let is_there = self.borders().1 && self.burst.is_none();
                if is_there || self.is_over() || now >= *until {
                    self.answer_end();
                }
            }
            Phase::Idle | Phase::Measuring => {}
        }
    }

    fn answer_begin(&mut self) {
        if let Phase::Beginning(answer, _) = std::mem::replace(&mut self.phase, Phase::Measuring) {
            // Nobody waits any more: nothing to tell.
            let _ = answer.send(());
        }
    }

    fn answer_end(&mut self) {
        let telemetry = self.telemetry();
        if let Phase::Ending(answer, _) = std::mem::replace(&mut self.phase, Phase::Idle) {
            // As above.
            let _ = answer.send(telemetry);
        }
    }

    /// Why the end of a measurement is not here.
    fn why_unended(&self) -> String {
        if let Some(why) = self.why_unspooled(Border::Ended) {
            return format!(
                "its telemetry agent cannot write what it reads: {why}; make room, or give it another TMPDIR"
            );
        }
        let why = self.trouble.as_ref().map(|trouble| trouble.why.clone());
        why.unwrap_or_else(|| "its telemetry agent does not answer".to_owned())
    }

    /// What was read, in our time.
    fn telemetry(&mut self) -> Telemetry {
        let host = self.watching.host.clone();
        let whole = whole(self.watching.pod.as_ref());
        let mut found = self.received.readings(self.watching.plan.interval);
        let times = found.series.iter().flat_map(|s| &s.readings).flat_map(|r| [r.from, r.to]);
        let clock = self.time.summary(&host, times);
        let is_timeless = clock.is_none() && !found.series.is_empty();
        for series in &mut found.series {
            series.readings.retain_mut(|reading| {
                let ours = self.time.here(reading.from, reading.to);
                ours.map(|(from, to)| (reading.from, reading.to) = (from, to)).is_some()
            });
        }
        found.series.retain(|series| !series.readings.is_empty());
        found.clocks.extend(clock);
        if is_timeless {
            let why = "its clock was never compared with ours, so its readings have no time";
            let (host, what, why) = (host.clone(), whole.to_owned(), why.to_owned());
            found.absent.push(Absent { host, what, why });
        }
        if !self.received.has_ended(self.measure) {
            let why = self.why_unended();
            let what = if found.series.is_empty() { whole } else { "the end of its readings" };
            found.absent.push(Absent { host, what: what.to_owned(), why });
        }
        found
    }
}

/// Reads lines until the connection ends; each with the time at which it was here.
fn read_lines(
    number: u64,
    output: Box<dyn Read + Send>,
    events: &Sender<Event>,
    clock: &dyn Clock,
) {
    let mut lines = BufReader::new(output);
    // A line that is too long, or an error, is the end of it.
    while let Ok(Some(line)) = crate::agent::next_line(&mut lines) {
        if events.send(Event::Line(number, line, clock.now())).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed(number));
}

#[cfg(test)]
mod tests;
