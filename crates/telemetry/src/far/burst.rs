//! A burst of questions to a far clock, one after the other.

use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::agent::Ask;
use scalebeam_model::telemetry::clocks::{Fix, Ping};
use scalebeam_model::units::Nanos;

/// Questions of a burst: enough that one of them meets nobody on its way.
const QUESTIONS: u64 = 12;

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    Wait,
    Ask(Ask),
    Done(Option<Fix>),
}

/// A burst under way.
#[derive(Debug)]
pub(super) struct Burst {
    /// Number and time of the question that is not answered yet.
    asked: (u64, Nanos),
    pings: Vec<Ping>,
}

impl Burst {
    /// Begins one at `now`, which also numbers its questions: no answer of an earlier one fits.
    pub(super) fn begin(now: Nanos) -> (Self, Ask) {
        (Self { asked: (now.0, now), pings: Vec::new() }, Ask::Ping { n: now.0 })
    }

    /// Takes an answer: its number, its two times there, and when it was here.
    pub(super) fn take(
        &mut self,
        n: u64,
        (got, answered): (Nanos, Nanos),
        arrived: Nanos,
        clock: &dyn Clock,
    ) -> Next {
        let (asked, sent) = self.asked;
        if n != asked {
            return Next::Wait;
        }
        self.pings.push(Ping { sent, got, answered, arrived });
        if self.pings.len() as u64 >= QUESTIONS {
            return Next::Done(Fix::of(&self.pings));
        }
        let next = asked + 1;
        self.asked = (next, clock.now());
        Next::Ask(Ask::Ping { n: next })
    }
}
