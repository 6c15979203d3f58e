//! The exchanges of one load thread over HTTP/2: many requests share a connection.
//!
//! A request goes to the first connection of its target that has room for it; where none has, it waits
//! for one to be opened. A connection carries as many as its server allows, and [`STREAMS_AT_MOST`] at
//! the most: what shares a connection shares its reads, and with them the kernel's stamps.
//!
//! **Invariants:** every exchange that is begun ends in exactly one record, whatever happens. A request
//! is sent a second time in one case only: the server has said that it goes away and did not look at it
//! (RFC 9113, 6.8). That is done once, and the record says so. A server that does not speak HTTP/2 is a
//! failure with that name, never a reason to speak something else.

use crate::exchange::{
    Exchange, GRACE_AFTER_DONE, HANDSHAKES_AT_MOST, Outcomes, REQUEST_ID, Setup, Stamps,
};
use crate::http::mux::{Call, Ending, Mux, State};
use crate::http::receive::Stamp;
use crate::http::target::Address;
use crate::http::wire::{Fed, Reader, Reading, Wire};
use crate::reactor::Ready;
use crate::stream::End;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Request, Uri, Version};
use mio::{Registry, Token};
use scalebeam_model::api::ALPN_HTTP2;
use scalebeam_model::driver::CancelReason;
use scalebeam_model::units::Nanos;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Requests under way on one connection. Servers are advised to allow no fewer (RFC 9113, 6.5.2).
const STREAMS_AT_MOST: usize = 100;

/// One target, as one thread sees it.
#[derive(Debug)]
struct Side {
    template: Template,
    /// Connections that take requests.
    open: Vec<usize>,
    /// Connections that will.
    opening: usize,
    /// Exchanges that wait for a connection.
    queue: VecDeque<Box<Exchange>>,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the queue of its target.
    Queued(usize),
    /// On this connection, as this stream of it.
    Under(usize, u32),
}

/// The connections of one thread, and what they carry.
pub(crate) struct Links<'a> {
    setup: &'a Setup,
    registry: Registry,
    reader: Reader,
    sides: Vec<Side>,
    links: Slab<Link>,
    /// By request index.
    places: HashMap<u64, Place>,
    /// Connections that were not read to the end.
    unfinished: VecDeque<usize>,
    /// Answers that said `[DONE]` and whose stream is still open, by the instant at which that ends.
    done: VecDeque<(Nanos, u64)>,
    outcomes: Outcomes,
}

impl fmt::Debug for Links<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Links");
        out.field("open", &self.links.len()).field("carried", &self.places.len());
        out.finish_non_exhaustive()
    }
}

impl<'a> Links<'a> {
    pub(crate) fn new(setup: &'a Setup, registry: Registry, outcomes: Outcomes) -> Self {
        let sides = setup.addresses.iter().map(|address| Side {
            template: Template::new(address, setup),
            open: Vec::new(),
            opening: 0,
            queue: VecDeque::new(),
        });
        Self {
            reader: Reader::new(Arc::clone(&setup.clock)),
            sides: sides.collect(),
            setup,
            registry,
            links: Slab::new(),
            places: HashMap::new(),
            unfinished: VecDeque::new(),
            done: VecDeque::new(),
            outcomes,
        }
    }

    pub(crate) fn outcomes(&mut self) -> &mut Outcomes {
        &mut self.outcomes
    }

    /// When [`Links::expire`] has something to do, at the earliest.
    pub(crate) fn wake_at(&self) -> Option<Nanos> {
        self.done.front().map(|(at, _)| *at)
    }

    /// To be called once after each wait, before sockets are read.
    pub(crate) fn awake(&mut self) {
        self.reader.receiver.align();
    }

    fn now(&self) -> Nanos {
        self.setup.clock.now()
    }

    /// Sends a request, at once where a connection has room for it.
    pub(crate) fn send(&mut self, mut exchange: Box<Exchange>) {
        let target = exchange.target;
        let goes_at_once = self.sides[target].queue.is_empty() && self.with_room(target).is_some();
        exchange.opening_since = (!goes_at_once).then(|| self.now());
        self.places.insert(exchange.index(), Place::Queued(target));
        self.sides[target].queue.push_back(exchange);
        self.begin_waiting(target);
    }

    /// Begins what waits at `target`, as far as there is room, and opens connections for the rest.
    fn begin_waiting(&mut self, target: usize) {
        while let Some(key) = self.with_room(target)
            && let Some(exchange) = self.sides[target].queue.pop_front()
        {
            self.begin(key, exchange);
        }
        self.open_missing(target);
    }

    /// A connection to `target` that takes one more request.
    fn with_room(&self, target: usize) -> Option<usize> {
        self.sides[target].open.iter().copied().find(|key| self.links[*key].has_room())
    }

    /// Opens as many connections as what waits needs.
    fn open_missing(&mut self, target: usize) {
        while let side = &mut self.sides[target]
            && side.opening < side.queue.len().div_ceil(STREAMS_AT_MOST).min(HANDSHAKES_AT_MOST)
        {
            side.opening += 1;
            let key = self.links.insert(Link::new(target));
            self.connect(key);
        }
    }

    fn connect(&mut self, key: usize) {
        let link = &mut self.links[key];
        let (address, sources) = (&self.setup.addresses[link.target], &self.setup.sources);
        match link.wire.connect(address, sources, &self.registry, Token(key)) {
            Ok(()) => link.stage = Stage::Connecting,
            Err(end) => self.cannot_open(key, &end),
        }
    }

    /// The connection on its way did not come about: the requests that it was for have failed.
    fn cannot_open(&mut self, key: usize, end: &End) {
        let target = self.links.remove(key).target;
        self.sides[target].opening -= 1;
        let now = self.now();
        for _ in 0..STREAMS_AT_MOST {
            let Some(exchange) = self.sides[target].queue.pop_front() else { break };
            self.ended(*exchange, Stamps::default(), end.clone(), now);
        }
        self.open_missing(target);
    }

    /// Gives `exchange` to a connection that has room.
    fn begin(&mut self, key: usize, mut exchange: Box<Exchange>) {
        let now = self.now();
        let (index, target) = (exchange.index(), exchange.target);
        let request = match self.sides[target].template.request(&exchange, self.setup) {
            Ok(request) => request,
            Err(why) => {
                return self.ended(*exchange, Stamps::default(), End::Malformed(why), now);
            }
        };
        let link = &mut self.links[key];
        let Some(mut call) = link.mux.begin(request, exchange.json.clone()) else {
            // It goes away: the request waits for another.
            exchange.opening_since.get_or_insert(now);
            self.sides[target].queue.push_front(exchange);
            return self.leave(key);
        };
        if let Some(since) = exchange.opening_since.take() {
            exchange.answer.record_mut().connect = Some(now.since(since));
        }
        // Nothing has come yet; from now on the stream says when something has.
        let ending = call.read(Stamp::own(now), &mut exchange.answer);
        self.places.insert(index, Place::Under(key, call.id));
        let id = call.id;
        link.calls.insert(id, (call, exchange));
        link.mux.drive();
        link.flush(self.setup);
        if let Some(ending) = ending {
            self.end_call(key, id, ending, now);
        }
    }

    /// Does what a socket is ready for; says what time it is by then, as far as that is known.
    pub(crate) fn handle(&mut self, ready: Ready) -> Nanos {
        let key = ready.token;
        // A socket that was closed after the wait had found it ready is gone from here.
        match self.links.get(key).map(|link| link.stage) {
            None => {}
            Some(Stage::Connecting) => self.connecting(key),
            Some(Stage::Securing) => self.securing(key),
            Some(Stage::Greeting | Stage::Open | Stage::Leaving) => {
                if ready.writable {
                    self.links[key].flush(self.setup);
                }
                self.read(key, ready.closing);
            }
        }
        self.reader.receiver.last_read()
    }

    fn connecting(&mut self, key: usize) {
        let link = &mut self.links[key];
        let address = &self.setup.addresses[link.target];
        match link.wire.is_connected() {
            Ok(false) => {}
            Ok(true) => match link.wire.secure(address, self.setup.tls.as_ref()) {
                Ok(_) => {
                    link.stage = Stage::Securing;
                    self.securing(key);
                }
                Err(end) => self.cannot_open(key, &end),
            },
            Err(_) if link.wire.has_address_left(address) => self.connect(key),
            Err(why) => self.cannot_open(key, &End::Connect(why)),
        }
    }

    fn securing(&mut self, key: usize) {
        let link = &mut self.links[key];
        match link.secure(&mut self.reader) {
            Ok(false) => {}
            Ok(true) => {
                link.flush(self.setup);
                // A server that speaks first has used up the wake that its bytes gave.
                self.read(key, false);
            }
            Err(end) => self.cannot_open(key, &end),
        }
    }

    fn read(&mut self, key: usize, is_closing: bool) {
        // One that was left unfinished may be over by now, and its place another's.
        let link = self.links.get_mut(key).filter(|link| link.stage >= Stage::Greeting);
        let Some(link) = link else { return };
        let mut news = Vec::new();
        let reading =
            link.read(&mut self.reader, is_closing, &mut self.outcomes, &mut |stream, what| {
                news.push((stream, what));
            });
        // Before anything is sent again, which must not go here.
        if matches!(link.mux.state(), State::Leaving | State::Over) && link.stage == Stage::Open {
            link.stage = Stage::Leaving;
            self.sides[link.target].open.retain(|k| *k != key);
        }
        let end = link.mux.why();
        for (stream, what) in news {
            match what {
                News::Done(index) => {
                    self.done.push_back((self.setup.clock.now() + GRACE_AFTER_DONE, index));
                }
                News::Ended(ending, at) => self.end_call(key, stream, ending, at),
            }
        }
        match reading {
            Reading::Unfinished => self.unfinished.push_back(key),
            Reading::Blocked => {}
            Reading::Ended(stamp) | Reading::Closed(stamp) => {
                return self.over(key, &end, stamp.read_at);
            }
            Reading::Failed(end, at) => return self.over(key, &end, at),
            Reading::Broken(e, at) => return self.over(key, &End::Reset(e.to_string()), at),
        }
        self.settle(key);
    }

    /// Acts on how far the connection has come, and writes what it has to say: window updates,
    /// acknowledgements, streams that were given up.
    fn settle(&mut self, key: usize) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.flush(self.setup);
        let target = link.target;
        match (link.mux.state(), link.stage) {
            (State::Over, _) => {
                let (end, now) = (link.mux.why(), self.now());
                self.over(key, &end, now);
            }
            (State::Leaving, _) => self.leave(key),
            (State::Open, Stage::Greeting) => {
                link.stage = Stage::Open;
                self.sides[target].opening -= 1;
                self.sides[target].open.push(key);
                self.begin_waiting(target);
            }
            (State::Open, _) if !self.sides[target].queue.is_empty() => self.begin_waiting(target),
            (State::Open | State::Greeting, _) => {}
        }
    }

    /// The connection takes no more requests; it is kept while it carries some.
    fn leave(&mut self, key: usize) {
        let link = &mut self.links[key];
        let target = link.target;
        match std::mem::replace(&mut link.stage, Stage::Leaving) {
            Stage::Connecting | Stage::Securing | Stage::Greeting => {
                let end = End::Reset("the server goes away before it takes a request".to_owned());
                return self.cannot_open(key, &end);
            }
            Stage::Open => self.sides[target].open.retain(|k| *k != key),
            Stage::Leaving => {}
        }
        if self.links[key].calls.is_empty() {
            self.links.remove(key);
        }
        self.begin_waiting(target);
    }

    /// The connection is over: whatever it carries has ended, in the order in which it was begun.
    fn over(&mut self, key: usize, end: &End, at: Nanos) {
        let Some(link) = self.links.get(key) else { return };
        if link.stage < Stage::Open {
            return self.cannot_open(key, end);
        }
        let target = link.target;
        self.sides[target].open.retain(|k| *k != key);
        let mut left: Vec<_> = self.links.remove(key).calls.into_iter().collect();
        left.sort_unstable_by_key(|(stream, _)| *stream);
        for (_, (call, exchange)) in left {
            self.ended(*exchange, call.stamps, end.clone(), at);
        }
        self.begin_waiting(target);
    }

    /// One stream ended at its other end.
    fn end_call(&mut self, key: usize, stream: u32, ending: Ending, at: Nanos) {
        let Some((call, mut exchange)) = self.links[key].calls.remove(&stream) else { return };
        let record = exchange.answer.record_mut();
        if ending.is_unprocessed && !std::mem::replace(&mut record.resent, true) {
            self.outcomes.resent += 1;
            return self.send(exchange);
        }
        self.ended(*exchange, call.stamps, ending.end, at);
    }

    fn ended(&mut self, exchange: Exchange, stamps: Stamps, end: End, at: Nanos) {
        self.places.remove(&exchange.index());
        let label = &self.setup.addresses[exchange.target].label;
        self.outcomes.push(exchange.finish(stamps, end, at, label));
    }

    /// Whether connections are left that have more, and that the kernel will not name again.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Goes on with one connection that was left unfinished.
    pub(crate) fn go_on(&mut self) {
        if let Some(key) = self.unfinished.pop_front() {
            self.read(key, true);
        }
    }

    /// Gives up request `index`.
    pub(crate) fn cancel(&mut self, index: u64, why: CancelReason) {
        let now = self.now();
        self.give_up(index, End::Cancelled(why), now);
    }

    /// Ends exchanges whose stream a server keeps open after `[DONE]`.
    pub(crate) fn expire(&mut self, now: Nanos) {
        while let Some(&(at, index)) = self.done.front() {
            if self.places.contains_key(&index) && at > now {
                return;
            }
            self.done.pop_front();
            self.give_up(index, End::Cut("the body was left open after [DONE]".to_owned()), now);
        }
    }

    /// Ends request `index` from our side, wherever it is.
    fn give_up(&mut self, index: u64, end: End, now: Nanos) {
        match self.places.get(&index).copied() {
            None => {}
            Some(Place::Queued(target)) => {
                let queue = &mut self.sides[target].queue;
                let at = queue.iter().position(|exchange| exchange.index() == index);
                if let Some(exchange) = at.and_then(|at| queue.remove(at)) {
                    self.ended(*exchange, Stamps::default(), end, now);
                }
            }
            Some(Place::Under(key, stream)) => {
                if let Some((call, exchange)) = self.links[key].calls.remove(&stream) {
                    self.ended(*exchange, call.stamps, end, now);
                    // Dropped, it lets the connection tell the server that nobody waits any more.
                    drop(call);
                    self.links[key].mux.drive();
                    self.settle(key);
                }
            }
        }
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The TCP handshake is under way, or not begun.
    Connecting,
    /// The TLS handshake is under way.
    Securing,
    /// The server's settings are awaited.
    Greeting,
    /// Requests can be sent.
    Open,
    /// No more requests can be sent; answers still come.
    Leaving,
}

/// One connection and what it carries.
struct Link {
    stage: Stage,
    wire: Wire,
    target: usize,
    mux: Mux,
    calls: HashMap<u32, (Call, Box<Exchange>)>,
}

/// What a look at a stream brought.
#[derive(Debug)]
enum News {
    /// The answer to this request said `[DONE]`, and its stream is still open.
    Done(u64),
    Ended(Ending, Nanos),
}

impl Link {
    fn new(target: usize) -> Self {
        Self {
            stage: Stage::Connecting,
            wire: Wire::default(),
            target,
            mux: Mux::new(),
            calls: HashMap::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.calls.len() < self.mux.streams_at_most().min(STREAMS_AT_MOST)
    }

    /// Goes on with the TLS handshake, where there is one; says whether the protocol can begin.
    fn secure(&mut self, reader: &mut Reader) -> Result<bool, End> {
        if !self.wire.handshake(reader)? {
            return Ok(false);
        }
        match self.wire.agreed_protocol() {
            Some(agreed) if agreed != Some(ALPN_HTTP2) => {
                Err(End::Tls("the server does not offer HTTP/2".to_owned()))
            }
            Some(_) | None => {
                self.stage = Stage::Greeting;
                Ok(true)
            }
        }
    }

    /// Writes what is to be written, as far as the kernel takes it. A failure shows when it is read.
    fn flush(&mut self, setup: &Setup) {
        let Self { wire, mux, calls, .. } = self;
        loop {
            let written = mux.with_outbound(|out| match out {
                [] if !wire.has_waiting() => None,
                out => {
                    Some(wire.write([IoSlice::new(out), IoSlice::new(&[])], setup.clock.as_ref()))
                }
            });
            match written {
                Some(Ok((len, at))) => mux.taken(len, at, |stream, at| {
                    if let Some((call, _)) = calls.get_mut(&stream) {
                        call.stamps.sent = Some(at);
                    }
                }),
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    /// Reads what is there and lets every stream that has news take it.
    fn read(
        &mut self,
        reader: &mut Reader,
        is_closing: bool,
        outcomes: &mut Outcomes,
        tell: &mut impl FnMut(u32, News),
    ) -> Reading {
        let Self { wire, mux, calls, .. } = self;
        let reading = wire.read(reader, is_closing, |bytes, stamp| {
            mux.feed(bytes);
            match listen(mux, calls, stamp, outcomes, tell) {
                State::Over => Ok(Fed::Ended),
                State::Greeting | State::Open | State::Leaving => Ok(Fed::More),
            }
        });
        if let Reading::Closed(stamp) = reading {
            mux.close();
            listen(mux, calls, stamp, outcomes, tell);
        }
        reading
    }
}

/// Drives the connection and hands its streams what came with `stamp`.
fn listen(
    mux: &mut Mux,
    calls: &mut HashMap<u32, (Call, Box<Exchange>)>,
    stamp: Stamp,
    outcomes: &mut Outcomes,
    tell: &mut impl FnMut(u32, News),
) -> State {
    let state = mux.drive();
    while let Some(stream) = mux.next_woken() {
        let Some((call, exchange)) = calls.get_mut(&stream) else { continue };
        let answer = &mut exchange.answer;
        let (was_done, had_token) = (answer.is_done(), answer.has_token());
        let ending = call.read(stamp, answer);
        if !had_token {
            outcomes.note_first_token(answer);
        }
        match ending {
            Some(ending) => tell(stream, News::Ended(ending, stamp.at)),
            None if answer.is_done() && !was_done => tell(stream, News::Done(answer.index())),
            None => {}
        }
    }
    state
}

/// What the requests to one target have in common.
#[derive(Debug)]
struct Template {
    /// Or why no request can be made of it.
    uri: Result<Uri, String>,
    headers: HeaderMap,
}

impl Template {
    fn new(address: &Address, setup: &Setup) -> Self {
        let headers = address.with_host(&setup.headers);
        let authority = headers.get(HOST).map_or(&[][..], HeaderValue::as_bytes);
        let scheme = if address.is_tls { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(address.path.clone())
            .build();
        // What HTTP/2 says in its own way, or not at all (RFC 9113, 8.2.2 and 8.3.1).
        let is_ours = |name: &HeaderName| {
            [HOST, REQUEST_ID, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING].contains(name)
        };
        let kept = headers.iter().filter(|(name, _)| !is_ours(name));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { uri: uri.map_err(|e| e.to_string()), headers }
    }

    fn request(&self, exchange: &Exchange, setup: &Setup) -> Result<Request<()>, String> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone()?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(exchange.json.len()));
        let id = format!("{}-{}", setup.id_prefix, exchange.index());
        headers.insert(REQUEST_ID, HeaderValue::try_from(id).map_err(|e| e.to_string())?);
        Ok(request)
    }
}
