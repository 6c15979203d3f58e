//! A streamed answer: tokens in, pieces of the body out, with its faults in their places.
//!
//! **Invariant:** one piece is one write. hyper joins the frames that a body has ready at the same time,
//! so after each piece this body reports "nothing yet" once, which makes hyper flush, and goes on.
//! The instant of each content chunk is read right before it is given to hyper, which writes it out
//! before it polls anything else.

use super::api::Kind;
use super::chunk::Wording;
use super::faults::{Drawn, Interrupt, Interruption, RoleChunk, Stall};
use super::generate::Live;
use super::pacer::Event;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use scalebeam_endpoint::pause;
use scalebeam_model::units::Nanos;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// The body was broken off on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the stream was broken off by an injected fault")]
pub(super) struct Broken;

/// What a body answers when it is asked for more.
type Polled = Poll<Option<Result<Frame<Bytes>, Broken>>>;

/// Something to do next.
#[derive(Debug)]
enum Piece {
    /// Bytes with this many tokens inside.
    Write(Bytes, u64),
    /// Nothing for a while.
    Pause(Nanos),
    /// The end, with its outcome.
    End(&'static str),
    /// An end that is none.
    Break(Interruption),
}

/// Where one choice stands.
#[derive(Debug, Default, Clone)]
struct Progress {
    tokens: u64,
    /// Text and tokens that wait for their chunk to fill.
    pending: String,
    pending_tokens: u64,
    chunks: u64,
    role_sent: bool,
}

/// A delay in progress.
struct Delay(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delay")
    }
}

/// The body of a streamed answer.
#[derive(Debug)]
pub(super) struct StreamBody {
    live: Live,
    wording: Wording,
    kind: Kind,
    include_usage: bool,
    stall: Option<Stall>,
    interrupt: Option<Interrupt>,
    reset: Arc<AtomicBool>,
    progress: Vec<Progress>,
    pieces: VecDeque<Piece>,
    delay: Option<Delay>,
    /// Tokens put into pieces, over all choices.
    told: u64,
    content_chunks: u64,
    /// What was last given to hyper is not known to be flushed.
    unflushed: bool,
    /// No more pieces will be made.
    closed: bool,
}

impl StreamBody {
    /// The body of `live`, with the faults drawn for it.
    pub(super) fn new(
        live: Live,
        wording: Wording,
        kind: Kind,
        include_usage: bool,
        drawn: Drawn,
        reset: Arc<AtomicBool>,
    ) -> Self {
        let progress = vec![Progress::default(); live.choices.len()];
        let include_usage = include_usage && !live.app.faults.omit_usage;
        let mut body = Self {
            live,
            wording,
            kind,
            include_usage,
            stall: drawn.stall,
            interrupt: drawn.interrupt,
            reset,
            progress,
            pieces: VecDeque::new(),
            delay: None,
            told: 0,
            content_chunks: 0,
            // The head of the response is out only once hyper had nothing else to do.
            unflushed: true,
            closed: false,
        };
        body.early_roles();
        body.disturb();
        body
    }

    fn early_roles(&mut self) {
        let RoleChunk::After(delay) = self.live.app.faults.role else { return };
        self.pieces.push_back(Piece::Pause(delay));
        for choice in 0..self.progress.len() {
            self.role(choice);
        }
    }

    /// The role chunk of `choice`, once, where there is one.
    fn role(&mut self, choice: usize) {
        let wanted = self.kind == Kind::Chat && self.live.app.faults.role != RoleChunk::Never;
        if wanted && !std::mem::replace(&mut self.progress[choice].role_sent, true) {
            self.write(self.wording.role(choice), 0);
        }
    }

    fn write(&mut self, bytes: Bytes, tokens: u64) {
        self.pieces.push_back(Piece::Write(bytes, tokens));
    }

    fn end(&mut self, piece: Piece) {
        self.pieces.push_back(piece);
        self.closed = true;
    }

    fn on_event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Token { choice, last }) => self.on_token(choice, last),
            Some(Event::Failed(problem)) => self.fail(&problem),
            None => self.fail("the engine is gone"),
        }
    }

    fn fail(&mut self, problem: &str) {
        self.write(self.wording.error(problem), 0);
        self.write(self.wording.done(), 0);
        self.end(Piece::End("failed"));
    }

    fn on_token(&mut self, choice: usize, last: bool) {
        self.role(choice);
        let faults = &self.live.app.faults;
        let (empty, per_chunk) = (faults.empty_output, faults.tokens_per_chunk);
        let progress = &mut self.progress[choice];
        if !empty {
            progress.pending.push_str(&self.live.choices[choice].text(progress.tokens));
            progress.pending_tokens += 1;
        }
        progress.tokens += 1;
        if last || progress.pending_tokens >= per_chunk {
            self.chunk(choice, last);
            self.disturb();
        }
        if last && !self.closed {
            self.live.open -= 1;
            if self.live.open == 0 {
                self.conclude();
            }
        }
    }

    /// Puts the pending text of `choice` into a chunk.
    fn chunk(&mut self, choice: usize, last: bool) {
        let faults = &self.live.app.faults;
        let finish = last.then(|| self.live.choices[choice].reason(faults.content));
        let every = faults.heartbeat_every;
        if every > 0 && self.content_chunks.is_multiple_of(every) {
            self.write(self.wording.heartbeat(), 0);
        }
        let progress = &mut self.progress[choice];
        let text = std::mem::take(&mut progress.pending);
        let tokens = std::mem::take(&mut progress.pending_tokens);
        let first = progress.chunks == 0;
        progress.chunks += 1;
        self.told += tokens;
        self.content_chunks += 1;
        self.write(self.wording.text(choice, &text, first, finish), tokens);
    }

    /// Puts the drawn stall and interruption in, when their turn has come.
    fn disturb(&mut self) {
        let told = self.told;
        if let Some(stall) = self.stall.take_if(|stall| told >= stall.after_tokens) {
            self.pieces.push_back(Piece::Pause(stall.span));
        }
        if let Some(interrupt) = self.interrupt.take_if(|i| told >= i.after_tokens) {
            self.interrupted(interrupt.how);
        }
    }

    fn interrupted(&mut self, how: Interruption) {
        match how {
            Interruption::Reset | Interruption::Close => self.end(Piece::Break(how)),
            Interruption::End => self.end(Piece::End(how.outcome())),
            Interruption::Error => {
                self.write(self.wording.error("this error was injected"), 0);
                self.write(self.wording.done(), 0);
                self.end(Piece::End(how.outcome()));
            }
        }
    }

    /// Usage, end mark, end.
    fn conclude(&mut self) {
        if self.include_usage {
            let mut usage = self.live.usage();
            usage.completion = self.told;
            self.write(self.wording.usage(usage), 0);
        }
        if !self.live.app.faults.omit_done {
            self.write(self.wording.done(), 0);
        }
        self.end(Piece::End("completed"));
    }

    /// Books a piece that is being handed over. A client may leave the moment it has the last one, so
    /// the request ends with it and not with the end of the body.
    fn hand_over(&mut self, tokens: u64) {
        if tokens > 0 {
            self.live.record.writes.push(self.live.app.clock.now());
            self.live.record.tokens += tokens;
        }
        if let Some(Piece::End(outcome)) = self.pieces.front() {
            self.live.finish(outcome);
        }
    }

    /// Does the next piece; `None` when there is none.
    fn next_piece(&mut self) -> Option<Polled> {
        match self.pieces.pop_front()? {
            Piece::Write(bytes, tokens) => {
                self.hand_over(tokens);
                self.unflushed = true;
                Some(Poll::Ready(Some(Ok(Frame::data(bytes)))))
            }
            Piece::Pause(span) => {
                self.delay = Some(Delay(Box::pin(pause(span))));
                None
            }
            Piece::End(outcome) => {
                self.live.finish(outcome);
                Some(Poll::Ready(None))
            }
            Piece::Break(how) => {
                self.live.finish(how.outcome());
                self.reset.store(how == Interruption::Reset, Ordering::Relaxed);
                Some(Poll::Ready(Some(Err(Broken))))
            }
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        loop {
            if let Some(delay) = &mut self.delay {
                if delay.0.as_mut().poll(cx).is_pending() {
                    self.unflushed = false;
                    return Poll::Pending;
                }
                self.delay = None;
            }
            if self.pieces.is_empty() {
                if self.closed {
                    return Poll::Ready(None);
                }
                let Poll::Ready(event) = self.live.events.poll_recv(cx) else {
                    self.unflushed = false;
                    return Poll::Pending;
                };
                self.on_event(event);
            }
            if !self.pieces.is_empty() && std::mem::take(&mut self.unflushed) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(polled) = self.next_piece() {
                return polled;
            }
        }
    }
}
