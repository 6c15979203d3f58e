//! Tokens at fixed absolute instants, whatever the load: the ground truth for measuring tools.
//!
//! A request that starts at `s` has its n-th token (from 0) at exactly `s + ttft + n · itl`. It starts
//! when it arrives, or, with slots, at the instant at which the token that freed its slot existed.

use super::{Emulator, TimedToken};
use crate::engine::{EngineStats, Request, RequestId, SubmitError, Token};
use crate::timing::TimingError;
use scalebeam_model::units::Nanos;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// The fixed emulator.
#[derive(Debug)]
pub struct Fixed {
    ttft: Nanos,
    itl: Nanos,
    slots: Option<u64>,
    running: HashMap<RequestId, Left>,
    waiting: VecDeque<Request>,
    /// When a slot was last freed: a request stamped before that, but seen after it, had none.
    freed_at: Nanos,
    /// Due tokens. Those of cancelled requests stay until their time and are then passed over.
    due: BinaryHeap<Reverse<(Nanos, RequestId)>>,
    prompt_tokens: u64,
    generation_tokens: u64,
}

/// What a running request still has to come.
#[derive(Debug, Clone, Copy)]
struct Left {
    tokens: u64,
    /// Prompt tokens that are not yet counted.
    prompt: u64,
    started_at: Nanos,
}

impl Fixed {
    /// First tokens after `ttft`, then one every `itl`; at most `slots` requests at a time, others wait.
    pub fn new(ttft: Nanos, itl: Nanos, slots: Option<u64>) -> Self {
        Self {
            ttft,
            itl,
            slots,
            running: HashMap::new(),
            waiting: VecDeque::new(),
            freed_at: Nanos::ZERO,
            due: BinaryHeap::new(),
            prompt_tokens: 0,
            generation_tokens: 0,
        }
    }

    fn start(&mut self, at: Nanos, request: Request) {
        let left =
            Left { tokens: request.max_tokens, prompt: request.prompt_tokens, started_at: at };
        self.running.insert(request.id, left);
        self.due.push(Reverse((at + self.ttft, request.id)));
    }

    fn free(&self) -> bool {
        self.slots.is_none_or(|slots| (self.running.len() as u64) < slots)
    }

    /// Starts who waits, as long as there are slots.
    fn fill(&mut self, at: Nanos) {
        self.freed_at = self.freed_at.max(at);
        while self.free()
            && let Some(next) = self.waiting.pop_front()
        {
            self.start(at, next);
        }
    }

    fn emit(&mut self, at: Nanos, id: RequestId, out: &mut Vec<TimedToken>) {
        let Some(left) = self.running.get_mut(&id) else { return };
        left.tokens -= 1;
        self.prompt_tokens += std::mem::take(&mut left.prompt);
        self.generation_tokens += 1;
        let finished = left.tokens == 0;
        let started_at = left.started_at;
        out.push(TimedToken { at, token: Token { id, finished, started_at } });
        if finished {
            self.running.remove(&id);
            self.fill(at);
        } else {
            self.due.push(Reverse((at + self.itl, id)));
        }
    }
}

impl Emulator for Fixed {
    fn submit(&mut self, now: Nanos, request: Request) -> Result<(), SubmitError> {
        if request.prompt_tokens == 0 || request.max_tokens == 0 {
            return Err(SubmitError::Empty);
        }
        if self.free() {
            let unlimited = self.slots.is_none();
            self.start(if unlimited { now } else { now.max(self.freed_at) }, request);
        } else {
            self.waiting.push_back(request);
        }
        Ok(())
    }

    fn cancel(&mut self, now: Nanos, id: RequestId) {
        if self.running.remove(&id).is_some() {
            self.fill(now);
        } else {
            self.waiting.retain(|request| request.id != id);
        }
    }

    fn next_at(&self) -> Option<Nanos> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    fn advance(&mut self, now: Nanos, out: &mut Vec<TimedToken>) -> Result<(), TimingError> {
        while let Some((at, id)) = self.due.peek().map(|next| next.0).filter(|(at, _)| *at <= now) {
            self.due.pop();
            self.emit(at, id, out);
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.running.len() as u64,
            waiting: self.waiting.len() as u64,
            prompt_tokens: self.prompt_tokens,
            generation_tokens: self.generation_tokens,
            ..EngineStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, max_tokens: u64) -> Request {
        Request { id: RequestId(id), prompt_tokens: 3, max_tokens }
    }

    fn fixed(slots: Option<u64>) -> Fixed {
        Fixed::new(Nanos::from_millis(100), Nanos::from_millis(10), slots)
    }

    fn millis(out: &[TimedToken], id: u64) -> Vec<u64> {
        let own = out.iter().filter(|t| t.token.id == RequestId(id));
        own.map(|t| t.at.0 / 1_000_000).collect()
    }

    #[test]
    fn tokens_are_at_their_absolute_instants_under_any_load() {
        let mut emulator = fixed(None);
        for id in 0..500 {
            emulator.submit(Nanos::from_millis(id), request(id, 3)).unwrap();
        }
        let mut out = Vec::new();
        emulator.advance(Nanos::from_secs(9), &mut out).unwrap();
        for id in 0..500 {
            assert_eq!(millis(&out, id), [100 + id, 110 + id, 120 + id]);
        }
        assert!(out.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert_eq!(emulator.stats().prompt_tokens, 1_500);
    }

    #[test]
    fn with_slots_the_next_starts_where_the_last_ended() {
        let mut emulator = fixed(Some(1));
        emulator.submit(Nanos::ZERO, request(1, 2)).unwrap();
        emulator.submit(Nanos::from_millis(1), request(2, 2)).unwrap();
        assert_eq!(emulator.stats().waiting, 1);
        let mut out = Vec::new();
        emulator.advance(Nanos::from_secs(9), &mut out).unwrap();
        assert_eq!(millis(&out, 1), [100, 110]);
        assert_eq!(millis(&out, 2), [210, 220]);
    }

    #[test]
    fn cancelling_frees_the_slot_at_that_instant() {
        let mut emulator = fixed(Some(1));
        emulator.submit(Nanos::ZERO, request(1, 9)).unwrap();
        emulator.submit(Nanos::ZERO, request(2, 1)).unwrap();
        emulator.cancel(Nanos::from_millis(50), RequestId(1));
        let mut out = Vec::new();
        emulator.advance(Nanos::from_secs(9), &mut out).unwrap();
        assert_eq!((millis(&out, 1), millis(&out, 2)), (vec![], vec![150]));
    }
}
