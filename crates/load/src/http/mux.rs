//! HTTP/2 without IO: what came goes in, what is to be written comes out, and the streams in between
//! are asked.
//!
//! The protocol itself is the `h2` crate's. It wants to be polled over an asynchronous socket; here it
//! gets a [`Pipe`] in memory, and is polled whenever something was put in, so nothing ever waits inside.
//!
//! **Invariants:** what one read brought is handed to the streams before the next read, so each piece
//! of an answer has the stamp of the read that completed its frame; a request counts as sent when the
//! kernel has the frame that ends it, which is found in the bytes that are written.

use crate::exchange::Stamps;
use crate::http::receive::Stamp;
use crate::stream::{Answer, End, format_of};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use http::header::CONTENT_TYPE;
use scalebeam_model::units::Nanos;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a server may send of one answer before we say that we took it: never a reason to pause.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same of a whole connection.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// What the client says before its first frame (RFC 9113, section 3.4).
const PREFACE_LEN: usize = 24;

/// How servers of HTTP/1 begin to answer what they do not understand.
const HTTP1_ANSWER: &[u8] = b"HTTP/1";

/// In place of a stream's number: the connection itself.
const CONNECTION: u32 = 0;

/// One HTTP/2 connection, as the client sees it.
pub(crate) struct Mux {
    pipe: Rc<RefCell<Pipe>>,
    client: Option<(SendRequest<Bytes>, Connection<PipeEnd, Bytes>)>,
    woken: Arc<Woken>,
    waker: Waker,
    /// Why the connection is over.
    over: Option<End>,
}

/// What a driven connection has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The server has not said its first word, so nothing is known of its limits.
    Greeting,
    /// Requests may be begun.
    Open,
    /// No request may be begun any more; those under way may go on.
    Leaving,
    /// Nothing goes on.
    Over,
}

impl Mux {
    /// A connection whose greeting is ready to be written.
    pub(crate) fn new() -> Self {
        let pipe = Rc::new(RefCell::new(Pipe::new()));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let woken = Arc::new(Woken::default());
        let waker = woken.waker(CONNECTION);
        let greeting = pin!(builder.handshake(PipeEnd(Rc::clone(&pipe))));
        // Writing into memory neither waits nor fails; if it did, the connection would be over.
        let (client, over) = match greeting.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(client)) => (Some(client), None),
            Poll::Ready(Err(e)) => (None, Some(end_of(&e))),
            Poll::Pending => (None, Some(closed())),
        };
        Self { pipe, client, woken, waker, over }
    }

    /// Takes in what a read brought.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.came.walk(bytes, |_| {});
        pipe.inbound.extend(bytes);
    }

    /// The other side sends no more.
    pub(crate) fn close(&mut self) {
        self.pipe.borrow_mut().is_closed = true;
    }

    /// Goes on with everything that can go on. Which streams have news is then in [`Mux::next_woken`].
    pub(crate) fn drive(&mut self) -> State {
        while self.over.is_none()
            && let Some((_, connection)) = &mut self.client
        {
            match Pin::new(connection).poll(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(Ok(())) => self.over = Some(closed()),
                Poll::Ready(Err(e)) => self.over = Some(self.end_of(&e)),
                Poll::Pending if self.woken.take(CONNECTION) => {}
                Poll::Pending => break,
            }
        }
        self.state()
    }

    /// How far the connection is.
    pub(crate) fn state(&mut self) -> State {
        let has_greeted = self.pipe.borrow().came.frames > 0;
        let is_over = self.over.is_some();
        match self.ready() {
            _ if is_over => State::Over,
            _ if !has_greeted => State::Greeting,
            Poll::Ready(None) => State::Leaving,
            Poll::Ready(Some(_)) | Poll::Pending => State::Open,
        }
    }

    /// What takes requests; none where no more are taken.
    fn ready(&mut self) -> Poll<Option<&mut SendRequest<Bytes>>> {
        let Some((requests, _)) = &mut self.client else { return Poll::Ready(None) };
        let ready = requests.poll_ready(&mut Context::from_waker(Waker::noop()));
        ready.map(|ready| ready.is_ok().then_some(requests))
    }

    /// Why the connection is over.
    pub(crate) fn why(&self) -> End {
        self.over.clone().unwrap_or_else(closed)
    }

    fn end_of(&self, error: &h2::Error) -> End {
        if self.pipe.borrow().speaks_http1() {
            return End::Malformed("the server speaks HTTP/1.1 and not HTTP/2".to_owned());
        }
        end_of(error)
    }

    /// A stream that has news.
    pub(crate) fn next_woken(&mut self) -> Option<u32> {
        self.woken.next()
    }

    /// Requests that may be under way at a time, by what the server says.
    pub(crate) fn streams_at_most(&self) -> usize {
        self.client.as_ref().map_or(0, |(requests, _)| requests.current_max_send_streams())
    }

    /// Begins a request; `None` where the server takes no more on this connection.
    pub(crate) fn begin(&mut self, request: Request<()>, body: Bytes) -> Option<Call> {
        let Poll::Ready(Some(requests)) = self.ready() else { return None };
        let (response, mut sending) = requests.send_request(request, false).ok()?;
        sending.send_data(body, true).ok()?;
        let id = sending.stream_id().as_u32();
        let reply = Reply::Head(response);
        Some(Call { id, reply, waker: self.woken.waker(id), stamps: Stamps::default() })
    }

    /// What is to be written.
    pub(crate) fn with_outbound<T>(&self, write: impl FnOnce(&[u8]) -> T) -> T {
        write(&self.pipe.borrow().outbound)
    }

    /// `len` bytes of it were taken. Names the streams whose requests the kernel has whole since `at`,
    /// which is absent while something of what was taken still waits.
    pub(crate) fn taken(
        &mut self,
        len: usize,
        at: Option<Nanos>,
        mut on_sent: impl FnMut(u32, Nanos),
    ) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.outbound.drain(..len);
        pipe.taken += len as u64;
        let Pipe { ends, taken, .. } = &mut *pipe;
        while let Some(at) = at
            && let Some((_, stream)) = ends.pop_front_if(|(end, _)| *end <= *taken)
        {
            on_sent(stream, at);
        }
    }
}

fn closed() -> End {
    End::Cut("the server closed the connection".to_owned())
}

fn end_of(error: &h2::Error) -> End {
    let text = error.to_string();
    match error {
        e if e.is_io() => closed(),
        e if e.is_library() => End::Malformed(text),
        _ => End::Reset(text),
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) end: End,
    /// The server has said that it did not look at the request (RFC 9113, section 6.8).
    pub(crate) is_unprocessed: bool,
}

impl Ending {
    fn of(error: &h2::Error) -> Self {
        let is_unprocessed = error.is_go_away() && error.is_remote();
        Self { end: end_of(error), is_unprocessed }
    }
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        Self { end, is_unprocessed: false }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: u32,
    reply: Reply,
    waker: Waker,
    pub(crate) stamps: Stamps,
}

#[derive(Debug)]
enum Reply {
    /// Nothing has come.
    Head(ResponseFuture),
    Body(RecvStream),
}

impl Call {
    /// Takes in what has come for it; says how it ended, where it did.
    pub(crate) fn read(&mut self, stamp: Stamp, answer: &mut Answer) -> Option<Ending> {
        match self.advance(stamp, answer) {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) => Some(End::Whole.into()),
            Err(ending) => Some(ending),
        }
    }

    fn advance(&mut self, stamp: Stamp, answer: &mut Answer) -> Result<Poll<()>, Ending> {
        let mut context = Context::from_waker(&self.waker);
        loop {
            match &mut self.reply {
                Reply::Head(response) => {
                    let Poll::Ready(head) = Pin::new(response).poll(&mut context) else {
                        return Ok(Poll::Pending);
                    };
                    let head = head.map_err(|e| Ending::of(&e))?;
                    self.stamps.first_byte = Some(stamp.at);
                    let kind = head.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
                    answer.begin(format_of(head.status().as_u16(), kind, answer.is_streamed())?);
                    self.reply = Reply::Body(head.into_body());
                }
                Reply::Body(body) => match body.poll_data(&mut context) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(None) => return Ok(Poll::Ready(())),
                    Poll::Ready(Some(data)) => {
                        let data = data.map_err(|e| Ending::of(&e))?;
                        // Fails where the connection is over, which the next look shows.
                        let _ = body.flow_control().release_capacity(data.len());
                        answer.take(&data, stamp)?;
                    }
                },
            }
        }
    }
}

/// The streams that have news, in the order in which they got them. Wakers must be sharable, so this is
/// behind a lock; the one thread of the connection is the only one that ever takes it.
#[derive(Debug, Default)]
struct Woken(Mutex<VecDeque<u32>>);

impl Woken {
    fn waker(self: &Arc<Self>, stream: u32) -> Waker {
        Waker::from(Arc::new(Bell { woken: Arc::clone(self), stream }))
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next stream with news, the connection itself left out.
    fn next(&self) -> Option<u32> {
        let mut queue = self.queue();
        let at = queue.iter().position(|stream| *stream != CONNECTION)?;
        queue.remove(at)
    }

    /// Whether `stream` has news, which it has no more afterwards.
    fn take(&self, stream: u32) -> bool {
        let mut queue = self.queue();
        let before = queue.len();
        queue.retain(|s| *s != stream);
        queue.len() < before
    }
}

struct Bell {
    woken: Arc<Woken>,
    stream: u32,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.queue().push_back(self.stream);
    }
}

/// What came and was not looked at, and what is to be written.
#[derive(Debug)]
struct Pipe {
    inbound: VecDeque<u8>,
    came: Frames,
    is_closed: bool,
    outbound: Vec<u8>,
    left: Frames,
    /// Bytes of all that was ever outbound that were taken.
    taken: u64,
    /// Where requests end in all that was ever outbound, and whose they are.
    ends: VecDeque<(u64, u32)>,
}

impl Pipe {
    fn new() -> Self {
        Self {
            inbound: VecDeque::new(),
            came: Frames::after(0),
            is_closed: false,
            outbound: Vec::new(),
            left: Frames::after(PREFACE_LEN),
            taken: 0,
            ends: VecDeque::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let ends = &mut self.ends;
        self.left.walk(bytes, |frame| {
            if frame.ends_stream() {
                ends.push_back((frame.end, frame.stream));
            }
        });
        self.outbound.extend_from_slice(bytes);
    }

    /// What came first is no frame of HTTP/2.
    fn speaks_http1(&self) -> bool {
        self.came.first.starts_with(HTTP1_ANSWER)
    }
}

/// One frame of the wire format (RFC 9113, section 4.1), without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Where it ends, counted from the first byte of all.
    end: u64,
}

impl Frame {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;

    fn ends_stream(self) -> bool {
        matches!(self.kind, Self::DATA | Self::HEADERS) && self.flags & Self::END_STREAM != 0
    }
}

/// Where one frame ends and the next begins, in bytes that pass by.
#[derive(Debug)]
struct Frames {
    /// Bytes that belong to no frame, or to the content of one.
    skip: usize,
    head: [u8; 9],
    have: usize,
    /// The frame whose content passes by.
    current: Option<Frame>,
    at: u64,
    /// Frames that passed whole.
    frames: u64,
    /// The first bytes of all.
    first: Vec<u8>,
}

impl Frames {
    fn after(skip: usize) -> Self {
        let (head, first) = ([0; 9], Vec::new());
        Self { skip, head, have: 0, current: None, at: 0, frames: 0, first }
    }

    fn walk(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Frame)) {
        let wanted = HTTP1_ANSWER.len().saturating_sub(self.first.len());
        self.first.extend_from_slice(&bytes[..wanted.min(bytes.len())]);
        loop {
            let len = self.skip.min(bytes.len());
            bytes = &bytes[len..];
            self.skip -= len;
            self.at += len as u64;
            if self.skip > 0 {
                return;
            }
            if let Some(frame) = self.current.take() {
                self.frames += 1;
                on_frame(frame);
            }
            let len = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.have += len;
            self.at += len as u64;
            if self.have < self.head.len() {
                return;
            }
            self.have = 0;
            self.begin();
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
        self.current = Some(Frame { kind, flags, stream, end: self.at + self.skip as u64 });
    }
}

/// The end of the pipe that the protocol reads and writes.
#[derive(Debug)]
struct PipeEnd(Rc<RefCell<Pipe>>);

impl AsyncRead for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.inbound.is_empty() && !pipe.is_closed {
            return Poll::Pending;
        }
        let (front, _) = pipe.inbound.as_slices();
        let len = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..len]);
        pipe.inbound.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        parts.iter().for_each(|part| pipe.write(part));
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(len).unwrap().to_be_bytes();
        let mut out = vec![a, b, c, kind, flags];
        out.extend(stream.to_be_bytes());
        out.resize(9 + len, 0xff);
        out
    }

    proptest! {
        /// However the bytes are cut, the same frames end at the same places.
        #[test]
        fn frames_are_found_in_any_cut(
            frames in proptest::collection::vec((0u8..10, any::<u8>(), 0u32..1 << 31, 0usize..300), 0..12),
            cuts in proptest::collection::vec(1usize..40, 1..400),
            skip in 0usize..30,
        ) {
            let mut bytes = vec![0; skip];
            let mut want = Vec::new();
            for (kind, flags, stream, len) in frames {
                bytes.extend(frame(kind, flags, stream, len));
                want.push(Frame { kind, flags, stream, end: bytes.len() as u64 });
            }
            let (mut walker, mut got, mut rest) = (Frames::after(skip), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                walker.walk(now, |frame| got.push(frame));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(walker.frames, want.len() as u64);
            prop_assert_eq!(got, want);
        }

        /// A server may say anything.
        #[test]
        fn bytes_of_any_kind_do_not_panic(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8),
            greets: bool,
        ) {
            let mut mux = Mux::new();
            if greets {
                mux.feed(&frame(4, 0, 0, 0));
                prop_assert_eq!(mux.drive(), State::Open);
                let body = Bytes::from_static(b"{}");
                let call = mux.begin(Request::new(()), body);
                prop_assert!(call.is_some());
            }
            for piece in pieces {
                mux.feed(&piece);
                mux.drive();
                while mux.next_woken().is_some() {}
            }
            mux.close();
            prop_assert_eq!(mux.drive(), State::Over);
        }
    }

    #[test]
    fn a_request_is_sent_when_the_frame_that_ends_it_is_taken() {
        let mut mux = Mux::new();
        mux.feed(&frame(4, 0, 0, 0));
        mux.drive();
        let request = Request::post("http://h/p").body(()).unwrap();
        let call = mux.begin(request, Bytes::from(vec![b'x'; 3_000])).unwrap();
        mux.drive();
        let len = mux.with_outbound(<[u8]>::len);
        assert!(len > 3_000, "{len}");
        let mut sent = Vec::new();
        mux.taken(len - 1, Some(Nanos(5)), |stream, at| sent.push((stream, at)));
        assert_eq!(sent, []);
        mux.taken(1, None, |stream, at| sent.push((stream, at)));
        assert_eq!(sent, [], "taken, and not yet with the kernel");
        mux.taken(0, Some(Nanos(7)), |stream, at| sent.push((stream, at)));
        assert_eq!(sent, [(call.id, Nanos(7))]);
    }
}
