//! An [`Engine`] over time: a step begins where the last one ended, or when work arrives at an idle
//! engine.

use super::{Emulator, TimedToken};
use crate::engine::{Engine, EngineStats, Request, RequestId, StepResult, SubmitError};
use crate::timing::TimingError;
use scalebeam_model::units::Nanos;

/// The stepped engine and the step that it is in.
#[derive(Debug)]
pub struct Stepped {
    engine: Engine,
    current: Option<StepResult>,
    /// When an idle engine got work; its first step begins there.
    idle_since: Nanos,
}

impl Stepped {
    /// An idle engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine, current: None, idle_since: Nanos::ZERO }
    }
}

impl Emulator for Stepped {
    fn submit(&mut self, now: Nanos, request: Request) -> Result<(), SubmitError> {
        if !self.engine.has_work() && self.current.is_none() {
            self.idle_since = now;
        }
        self.engine.submit(request)
    }

    fn cancel(&mut self, _now: Nanos, id: RequestId) {
        self.engine.cancel(id);
        // Its token of the step under way is computed on real hardware too, and thrown away.
        if let Some(step) = &mut self.current {
            step.tokens.retain(|token| token.id != id);
        }
    }

    fn next_at(&self) -> Option<Nanos> {
        match &self.current {
            Some(step) => Some(step.ends_at),
            None => self.engine.has_work().then_some(self.idle_since),
        }
    }

    fn advance(&mut self, now: Nanos, out: &mut Vec<TimedToken>) -> Result<(), TimingError> {
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            if let Some(step) = self.current.take() {
                out.extend(step.tokens.into_iter().map(|token| TimedToken { at, token }));
            }
            self.current = self.engine.step(at)?;
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;
    use crate::timing::{BatchShape, TimingModel};

    #[derive(Debug)]
    struct TenMillis;

    impl TimingModel for TenMillis {
        fn step(&self, _: &BatchShape) -> Result<Nanos, TimingError> {
            Ok(Nanos::from_millis(10))
        }
    }

    fn stepped() -> Stepped {
        let config = EngineConfig {
            max_num_seqs: 4,
            max_num_batched_tokens: 100,
            block_size: 16,
            kv_tokens: 1_600,
            chunked_prefill: true,
        };
        Stepped::new(Engine::new(config, Box::new(TenMillis)))
    }

    fn request(id: u64) -> Request {
        Request { id: RequestId(id), prompt_tokens: 10, max_tokens: 2 }
    }

    #[test]
    fn steps_follow_each_other_without_drift_however_late_the_loop_is() {
        let mut emulator = stepped();
        emulator.submit(Nanos::from_millis(5), request(1)).unwrap();
        let mut out = Vec::new();
        emulator.advance(Nanos::from_millis(8), &mut out).unwrap();
        emulator.submit(Nanos::from_millis(9), request(2)).unwrap();
        emulator.advance(Nanos::from_millis(100), &mut out).unwrap();
        let seen: Vec<_> = out.iter().map(|t| (t.at.0 / 1_000_000, t.token.id.0)).collect();
        assert_eq!(seen, [(15, 1), (25, 1), (25, 2), (35, 2)]);
        assert_eq!(emulator.next_at(), None);
    }

    #[test]
    fn requests_that_arrive_together_share_the_first_step() {
        let mut emulator = stepped();
        for id in 0..3 {
            emulator.submit(Nanos::from_millis(1), request(id)).unwrap();
        }
        let mut out = Vec::new();
        emulator.advance(Nanos::from_millis(11), &mut out).unwrap();
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn a_cancelled_request_gets_nothing_more() {
        let mut emulator = stepped();
        emulator.submit(Nanos::ZERO, request(1)).unwrap();
        let mut out = Vec::new();
        emulator.advance(Nanos::ZERO, &mut out).unwrap();
        emulator.cancel(Nanos::from_millis(2), RequestId(1));
        emulator.advance(Nanos::from_secs(1), &mut out).unwrap();
        assert_eq!(out, []);
        assert_eq!(emulator.next_at(), None);
    }
}
