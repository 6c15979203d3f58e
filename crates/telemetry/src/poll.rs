//! What takes long to answer and is asked seldom: pages of other programs, programs of the system.
//!
//! A thread of its own asks, so that no other source waits: once when a measurement begins, at every interval
//! meanwhile, and once when it ends. For the first and the last answer the measurement waits, since they are its
//! borders, but no longer than [`PATIENCE`].
//!
//! A page that is gathered at an interval of its own says the same until then, and does not say how old that is. At the
//! borders such a page is asked again until it says something else, which then is new.

use crate::readings::{Readings, Source};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Absent, Told};
use scalebeam_model::units::Nanos;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Who has not answered by then is not waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// From question to question where something new is waited for.
const AGAIN: Duration = Duration::from_millis(100);

/// The most that is waited for something new.
const LONGEST_WAIT: Nanos = Nanos::from_secs(4);

/// Gets an answer and reads it; says in words why there is none.
pub type Ask = Box<dyn FnMut() -> Result<Told, String> + Send>;

/// Something to ask now and then.
pub struct Poll {
    /// The host that it tells of.
    pub host: String,
    /// What is absent where it does not answer, as `power by IPMI`.
    pub what: String,
    /// From question to question.
    pub interval: Nanos,
    /// It says the same again until it has gathered anew.
    pub repeats: bool,
    /// Asks once, and ends by itself.
    pub ask: Ask,
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll").field("host", &self.host).field("what", &self.what).finish()
    }
}

/// What the thread is told. A round is a measurement: answers of an earlier one are not believed.
#[derive(Debug, Clone, Copy)]
enum Order {
    Begin(u64),
    End,
}

#[derive(Debug)]
struct Answer {
    round: u64,
    is_last: bool,
    from: Nanos,
    to: Nanos,
    told: Result<Told, String>,
}

/// A running poll.
#[derive(Debug)]
pub(crate) struct Poller {
    host: String,
    what: String,
    round: u64,
    orders: Sender<Order>,
    answers: Receiver<Answer>,
}

impl Poller {
    /// Starts its thread, which asks nothing before a measurement begins.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(poll: Poll, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let (orders, ordered) = channel();
        let (sender, answers) = channel();
        let (host, what) = (poll.host.clone(), poll.what.clone());
        let clock = Arc::clone(clock);
        let thread = std::thread::Builder::new().name("poll".to_owned());
        let asker = Asker { poll, clock, answers: sender, last: Told::new() };
        // It ends at the first order that does not come, once its question is answered.
        thread.spawn(move || asker.serve(&ordered)).map_err(|e| e.to_string())?;
        Ok(Self { host, what, round: 0, orders, answers })
    }

    /// Waits for an answer of this round that is the last one, or any where `is_last` is false.
    fn wait(&self, is_last: bool, out: &mut Readings) {
        while let Ok(answer) = self.answers.recv_timeout(PATIENCE) {
            let is_it = answer.round == self.round && (answer.is_last || !is_last);
            self.keep(answer, out);
            if is_it {
                return;
            }
        }
        let waited = PATIENCE.as_secs();
        out.absent(self.absence(format!("there was no answer within {waited} s")));
    }

    fn keep(&self, answer: Answer, out: &mut Readings) {
        if answer.round != self.round {
            return;
        }
        match answer.told {
            Ok(told) => {
                for (device, values) in told {
                    out.add(&device, answer.from, answer.to, &values);
                }
            }
            Err(why) => out.absent(self.absence(why)),
        }
    }

    fn absence(&self, why: String) -> Absent {
        Absent { host: self.host.clone(), what: self.what.clone(), why }
    }
}

impl Source for Poller {
    fn before_begin(&mut self) {
        self.round += 1;
        // Without the thread nothing answers, and that is told.
        let _ = self.orders.send(Order::Begin(self.round));
    }

    fn begin(&mut self, _: &dyn Clock, out: &mut Readings) {
        self.wait(false, out);
    }

    fn read(&mut self, _: &dyn Clock, out: &mut Readings) {
        for answer in self.answers.try_iter() {
            self.keep(answer, out);
        }
    }

    fn before_end(&mut self) {
        let _ = self.orders.send(Order::End);
    }

    fn end(&mut self, _: &dyn Clock, out: &mut Readings) {
        self.wait(true, out);
    }
}

struct Asker {
    poll: Poll,
    clock: Arc<dyn Clock>,
    answers: Sender<Answer>,
    /// What it said last, where it repeats itself.
    last: Told,
}

/// Where in a measurement something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Begin,
    Between,
    End,
}

impl Asker {
    /// The thread's life.
    fn serve(mut self, ordered: &Receiver<Order>) {
        while let Ok(order) = ordered.recv() {
            if let Order::Begin(round) = order
                && self.measure(round, ordered).is_none()
            {
                return;
            }
        }
    }

    /// Asks until the measurement ends; nothing where nobody listens any more.
    fn measure(&mut self, round: u64, ordered: &Receiver<Order>) -> Option<()> {
        let (mut due, mut at) = (self.clock.now(), At::Begin);
        loop {
            match ordered.recv_timeout((due - self.clock.now()).to_std()) {
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Order::End) => return self.ask(round, At::End),
                Ok(Order::Begin(next)) => return self.measure(next, ordered),
                Err(RecvTimeoutError::Timeout) => self.ask(round, at)?,
            }
            at = At::Between;
            // Who answers slowly is asked more seldom, and never twice at once.
            due = self.clock.now().max(due + self.poll.interval);
        }
    }

    fn ask(&mut self, round: u64, at: At) -> Option<()> {
        let mut answer = self.answer(round, at);
        if self.poll.repeats {
            let until = self.clock.now() + self.waits(at);
            let mut is_new = self.is_new(&answer);
            while !is_new && self.clock.now() < until {
                std::thread::sleep(AGAIN);
                answer = self.answer(round, at);
                is_new = self.is_new(&answer);
            }
            // Old values are none of now. Those of before a begin are the best that there is of it.
            if let (Ok(told), false, true) = (&mut answer.told, is_new, at != At::Begin) {
                told.clear();
            }
        }
        self.answers.send(answer).ok()
    }

    fn answer(&mut self, round: u64, at: At) -> Answer {
        let from = self.clock.now();
        let told = (self.poll.ask)();
        Answer { round, is_last: at == At::End, from, to: self.clock.now(), told }
    }

    /// Whether it says something else than before; how old the first that it ever said is nobody knows.
    fn is_new(&mut self, answer: &Answer) -> bool {
        let Ok(told) = &answer.told else { return true };
        let is_new = !self.last.is_empty() && *told != self.last;
        self.last.clone_from(told);
        is_new
    }

    /// At a border, as long as two answers are to lie apart, but within the patience of who waits for it.
    fn waits(&self, at: At) -> Nanos {
        match at {
            At::Between => Nanos::ZERO,
            At::Begin | At::End => self.poll.interval.min(LONGEST_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readings::device;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::telemetry::{Part, Quantity, Telemetry};

    fn poller(
        repeats: bool,
        mut ask: impl FnMut() -> Result<f64, String> + Send + 'static,
    ) -> Poller {
        let (host, what) = ("a".to_owned(), "power".to_owned());
        let chassis = device("a", Part::Chassis, "bmc");
        let ask = move || ask().map(|w| vec![(chassis.clone(), vec![(Quantity::Power, w)])]);
        let interval = Nanos::from_secs(3_600);
        let poll = Poll { host, what, interval, repeats, ask: Box::new(ask) };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        Poller::start(poll, &clock).unwrap()
    }

    fn measured(poller: &mut Poller) -> Telemetry {
        let (clock, mut out) = (ManualClock::default(), Readings::default());
        poller.before_begin();
        poller.begin(&clock, &mut out);
        poller.read(&clock, &mut out);
        poller.before_end();
        poller.end(&clock, &mut out);
        out.finish(Nanos::from_secs(1), Vec::new())
    }

    #[test]
    fn a_measurement_lies_between_two_answers_of_its_own() {
        let mut asked = 0.0;
        let mut poller = poller(false, move || {
            asked += 1.0;
            Ok(asked)
        });
        for want in [[1.0, 2.0], [3.0, 4.0]] {
            let found = measured(&mut poller);
            let values: Vec<f64> = found.series[0].readings.iter().map(|r| r.value).collect();
            assert_eq!(values, want);
            assert_eq!(found.absent, []);
        }
    }

    #[test]
    fn why_there_is_no_answer_is_told_once() {
        let found = measured(&mut poller(false, || Err("HTTP 401".to_owned())));
        assert_eq!(found.series, []);
        let whys: Vec<&str> = found.absent.iter().map(|a| a.why.as_str()).collect();
        assert_eq!(whys, ["HTTP 401"]);
    }
    #[test]
    fn a_page_that_repeats_itself_is_asked_at_the_borders_until_it_is_new() {
        let mut asked = 0;
        // It gathers anew for every third question.
        let mut poller = poller(true, move || {
            asked += 1;
            Ok(f64::from(asked / 3))
        });
        for want in [[1.0, 2.0], [3.0, 4.0]] {
            let found = measured(&mut poller);
            let values: Vec<f64> = found.series[0].readings.iter().map(|r| r.value).collect();
            assert_eq!(values, want);
        }
    }
}
