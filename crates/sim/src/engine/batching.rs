//! The scheduler: who computes how many tokens in the next step.
//!
//! As read from vLLM's `v1/core/sched/scheduler.py`: the running sequences come first, in the order of
//! their admission, each with the tokens that it still lacks (one when decoding); then the waiting ones,
//! first come first served, while budget, seats and blocks last. Since a prompt is left unfinished only
//! when the budget ran out, at most the last running sequence is mid-prefill, so decoding comes first.
//! When blocks run out, the sequence admitted last gives its own up and goes to the front of the queue,
//! to be computed again; nothing new is admitted in such a step.

use super::blocks::Blocks;
use super::{EngineConfig, EngineStats, Request, RequestId, StepResult, SubmitError, Token};
use crate::timing::{BatchShape, Chunk, TimingError, TimingModel};
use scalebeam_model::units::Nanos;
use std::collections::VecDeque;

/// One request inside the engine.
#[derive(Debug, Clone)]
struct Sequence {
    request: Request,
    generated: u64,
    /// Tokens whose keys and values are in the cache.
    computed: u64,
    /// KV blocks held.
    blocks: u64,
    /// Tokens that the step being put together computes.
    scheduled: u64,
    /// When it first left the queue.
    started_at: Option<Nanos>,
}

impl Sequence {
    fn new(request: Request) -> Self {
        Self { request, generated: 0, computed: 0, blocks: 0, scheduled: 0, started_at: None }
    }

    /// Tokens that are known but not yet computed: the prompt, what was lost to a preemption, or the
    /// one token generated last.
    fn lacking(&self) -> u64 {
        self.request.prompt_tokens + self.generated - self.computed
    }

    fn decoding(&self) -> bool {
        self.generated > 0 && self.lacking() == 1
    }

    fn finished(&self) -> bool {
        self.generated == self.request.max_tokens
    }
}

/// A continuous-batching engine that is stepped from outside.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    timing: Box<dyn TimingModel>,
    blocks: Blocks,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    preemptions: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
}

impl Engine {
    /// An idle engine.
    pub fn new(config: EngineConfig, timing: Box<dyn TimingModel>) -> Self {
        Self {
            blocks: Blocks::new(config.kv_tokens, config.block_size),
            config,
            timing,
            running: Vec::new(),
            waiting: VecDeque::new(),
            preemptions: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
        }
    }

    /// Puts `request` at the end of the queue.
    ///
    /// # Errors
    /// When it is empty or could never be computed.
    pub fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        let needed = request.prompt_tokens.saturating_add(request.max_tokens);
        let budget = self.config.max_num_batched_tokens;
        if request.prompt_tokens == 0 || request.max_tokens == 0 {
            return Err(SubmitError::Empty);
        }
        if needed > self.blocks.capacity() {
            return Err(SubmitError::Cache { needed, kv_tokens: self.blocks.capacity() });
        }
        if budget == 0 || (!self.config.chunked_prefill && needed > budget) {
            return Err(SubmitError::Budget { needed, budget });
        }
        self.waiting.push_back(Sequence::new(request));
        Ok(())
    }

    /// Forgets a request and frees what it held; false when it is not here (any more).
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if let Some(at) = self.running.iter().position(|s| s.request.id == id) {
            let mut sequence = self.running.remove(at);
            self.blocks.release(&mut sequence.blocks);
            return true;
        }
        let at = self.waiting.iter().position(|s| s.request.id == id);
        at.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// Whether a step would have anything to compute.
    pub fn has_work(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// The state and the totals.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.running.len() as u64,
            waiting: self.waiting.len() as u64,
            kv_usage: self.blocks.usage(),
            preemptions: self.preemptions,
            prompt_tokens: self.prompt_tokens,
            generation_tokens: self.generation_tokens,
        }
    }

    /// Runs the step that begins at `now`; `None` when there is nothing to do.
    ///
    /// The state afterwards is that of the step's end.
    ///
    /// # Errors
    /// When the timing model cannot time the batch. The engine is then of no further use.
    pub fn step(&mut self, now: Nanos) -> Result<Option<StepResult>, TimingError> {
        self.schedule(now);
        let batch = self.batch();
        if batch.tokens() == 0 {
            return Ok(None);
        }
        let ends_at = now + self.timing.step(&batch)?;
        Ok(Some(StepResult { ends_at, tokens: self.advance(now) }))
    }

    fn schedule(&mut self, now: Nanos) {
        let mut budget = self.config.max_num_batched_tokens;
        let before = self.preemptions;
        let mut at = 0;
        while at < self.running.len() && budget > 0 {
            budget -= self.schedule_running(at, budget);
            at += 1;
        }
        if self.preemptions == before {
            self.admit(budget, now);
        }
    }

    /// Gives the running sequence at `at` its tokens, taking blocks from the tail where it must; answers
    /// how many of the budget were used (0 when the sequence itself had to go).
    fn schedule_running(&mut self, at: usize, budget: u64) -> u64 {
        while let Some(sequence) = self.running.get_mut(at) {
            let tokens = sequence.lacking().min(budget);
            if self.blocks.grow(&mut sequence.blocks, sequence.computed + tokens) {
                sequence.scheduled = tokens;
                return tokens;
            }
            self.preempt_last();
        }
        0
    }

    fn preempt_last(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.blocks.release(&mut sequence.blocks);
            sequence.computed = 0;
            self.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    fn admit(&mut self, mut budget: u64, now: Nanos) {
        while budget > 0 && (self.running.len() as u64) < self.config.max_num_seqs {
            let Some(head) = self.waiting.front_mut() else { return };
            let lacking = head.lacking();
            if lacking > budget && !self.config.chunked_prefill {
                return;
            }
            let tokens = lacking.min(budget);
            if !self.blocks.grow(&mut head.blocks, tokens) {
                return;
            }
            head.scheduled = tokens;
            head.started_at.get_or_insert(now);
            budget -= tokens;
            self.running.extend(self.waiting.pop_front());
        }
    }

    fn batch(&self) -> BatchShape {
        let mut batch = BatchShape::default();
        for sequence in self.running.iter().filter(|s| s.scheduled > 0) {
            if sequence.decoding() {
                batch.decode_seqs += 1;
                batch.decode_context += sequence.computed;
            } else {
                let (new_tokens, context_before) = (sequence.scheduled, sequence.computed);
                batch.prefill.push(Chunk { new_tokens, context_before });
            }
        }
        batch
    }

    /// Books what the step computed and drops what it finished.
    fn advance(&mut self, now: Nanos) -> Vec<Token> {
        let mut tokens = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            let scheduled = std::mem::take(&mut sequence.scheduled);
            sequence.computed += scheduled;
            if scheduled == 0 || sequence.lacking() > 0 {
                continue;
            }
            if sequence.generated == 0 {
                self.prompt_tokens += sequence.request.prompt_tokens;
            }
            sequence.generated += 1;
            self.generation_tokens += 1;
            if sequence.finished() {
                self.blocks.release(&mut sequence.blocks);
            }
            tokens.push(Token {
                id: sequence.request.id,
                finished: sequence.finished(),
                started_at: sequence.started_at.unwrap_or(now),
            });
        }
        self.running.retain(|sequence| !sequence.finished());
        tokens
    }
}

#[cfg(test)]
mod tests;
