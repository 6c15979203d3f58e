//! The connections of one load thread, of whichever version of HTTP.

use crate::exchange::{Exchange, Outcomes, Setup};
use crate::lines::Lines;
use crate::links::Links;
use crate::reactor::Ready;
use crate::stock::Prepared;
use crate::stream::{Answer, End};
use mio::Registry;
use scalebeam_model::api::HttpVersion;
use scalebeam_model::driver::CancelReason;
use scalebeam_model::request::RequestRecord;
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;

/// Carries requests and brings back what came of them.
#[derive(Debug)]
pub(crate) enum Carrier<'a> {
    /// HTTP/1.1: a connection for each request in flight.
    Lines(Lines<'a>),
    /// HTTP/2: connections that many requests share.
    Links(Links<'a>),
}

/// The same call on either.
macro_rules! on {
    ($carrier:expr, $it:ident => $call:expr) => {
        match $carrier {
            Carrier::Lines($it) => $call,
            Carrier::Links($it) => $call,
        }
    };
}

impl<'a> Carrier<'a> {
    pub(crate) fn new(setup: &'a Setup, registry: Registry, wants_first_tokens: bool) -> Self {
        let outcomes = Outcomes::new(wants_first_tokens);
        match setup.http {
            HttpVersion::Http1 => Self::Lines(Lines::new(setup, registry, outcomes)),
            HttpVersion::Http2 => Self::Links(Links::new(setup, registry, outcomes)),
        }
    }

    /// What happened and was not handed out yet.
    pub(crate) fn outcomes(&mut self) -> &mut Outcomes {
        on!(self, it => it.outcomes())
    }

    /// Sends a request, at once where a connection is free for it.
    pub(crate) fn send(&mut self, record: RequestRecord, prepared: &Prepared, setup: &Setup) {
        let exchange = Exchange::new(record, prepared, setup);
        on!(self, it => it.send(exchange));
    }

    /// Gives up a request that was due and is not written yet.
    pub(crate) fn give_up_unsent(
        &mut self,
        record: RequestRecord,
        api: Api,
        why: CancelReason,
        setup: &Setup,
    ) {
        let label = &setup.addresses[usize::from(record.target)].label;
        let answer = Answer::new(record, api, false, false);
        self.outcomes().push(answer.finish(End::Cancelled(why), setup.clock.now(), label));
    }

    /// When [`Carrier::expire`] has something to do, at the earliest.
    pub(crate) fn wake_at(&self) -> Option<Nanos> {
        on!(self, it => it.wake_at())
    }

    /// To be called once after each wait, before sockets are read.
    pub(crate) fn awake(&mut self) {
        on!(self, it => it.awake());
    }

    /// Does what a socket is ready for; says what time it is by then, as far as that is known.
    pub(crate) fn handle(&mut self, ready: Ready) -> Nanos {
        on!(self, it => it.handle(ready))
    }

    /// Whether sockets are left that have more, and that the kernel will not name again.
    pub(crate) fn is_unfinished(&self) -> bool {
        on!(self, it => it.is_unfinished())
    }

    /// Goes on with one socket that was left unfinished.
    pub(crate) fn go_on(&mut self) {
        on!(self, it => it.go_on());
    }

    /// Gives up request `index`.
    pub(crate) fn cancel(&mut self, index: u64, why: CancelReason) {
        on!(self, it => it.cancel(index, why));
    }

    /// Ends exchanges whose body a server keeps open after `[DONE]`.
    pub(crate) fn expire(&mut self, now: Nanos) {
        on!(self, it => it.expire(now));
    }
}
