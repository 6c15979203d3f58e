//! Closed forms and properties of the scheduler, with a timing model of one number.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// One millisecond a step plus one microsecond a token.
#[derive(Debug)]
struct PerToken;

impl TimingModel for PerToken {
    fn step(&self, batch: &BatchShape) -> Result<Nanos, TimingError> {
        match batch.tokens() {
            0 => Err(TimingError::EmptyBatch),
            tokens => Ok(Nanos::from_millis(1) + Nanos::from_micros(tokens)),
        }
    }
}

const ROOMY: EngineConfig = EngineConfig {
    max_num_seqs: 8,
    max_num_batched_tokens: 100,
    block_size: 16,
    kv_tokens: 16_000,
    chunked_prefill: true,
};

fn request(id: u64, prompt_tokens: u64, max_tokens: u64) -> Request {
    Request { id: RequestId(id), prompt_tokens, max_tokens }
}

fn engine(config: EngineConfig, requests: &[Request]) -> Engine {
    let mut engine = Engine::new(config, Box::new(PerToken));
    for request in requests {
        engine.submit(*request).unwrap();
    }
    engine
}

/// Every token with the instant at which it exists.
fn run(engine: &mut Engine) -> Vec<(Nanos, Token)> {
    let mut seen = Vec::new();
    let mut now = Nanos::ZERO;
    while let Some(step) = engine.step(now).unwrap() {
        assert!(step.ends_at > now);
        now = step.ends_at;
        seen.extend(step.tokens.into_iter().map(|token| (now, token)));
    }
    seen
}

#[test]
fn one_request_is_prefill_then_one_token_a_step() {
    let mut engine = engine(ROOMY, &[request(1, 250, 3)]);
    // 250 tokens of prompt in chunks of 100, 100, 50, then two decode steps of one token.
    let instants: Vec<u64> = run(&mut engine).iter().map(|(at, _)| at.0 / 1_000).collect();
    assert_eq!(instants, [3_250, 4_251, 5_252]);
    assert_eq!(engine.stats().prompt_tokens, 250);
    assert_eq!(engine.stats().generation_tokens, 3);
}

#[test]
fn a_saturated_batch_gives_seats_tokens_a_step() {
    let requests: Vec<Request> = (0..8).map(|id| request(id, 1, 50)).collect();
    let seen = run(&mut engine(ROOMY, &requests));
    assert_eq!(seen.len(), 400);
    assert_eq!(seen.last().unwrap().0, Nanos::from_micros(50 * 1_008));
}

#[test]
fn seats_are_given_first_come_first_served() {
    let config = EngineConfig { max_num_seqs: 2, ..ROOMY };
    let requests: Vec<Request> = (0..5).map(|id| request(id, 10, 4)).collect();
    let seen = run(&mut engine(config, &requests));
    let finished: Vec<u64> = seen.iter().filter(|(_, t)| t.finished).map(|(_, t)| t.id.0).collect();
    assert_eq!(finished, [0, 1, 2, 3, 4]);
}

#[test]
fn an_exhausted_cache_preempts_the_last_and_still_finishes_everything() {
    let config = EngineConfig { kv_tokens: 96, ..ROOMY };
    let requests: Vec<Request> = (0..4).map(|id| request(id, 16, 60)).collect();
    let mut engine = engine(config, &requests);
    let seen = run(&mut engine);
    assert_eq!(seen.len(), 240);
    assert!(engine.stats().preemptions > 0);
    // The one that came first is never the one to give way.
    let first_done = seen.iter().find(|(_, token)| token.finished).unwrap();
    assert_eq!(first_done.1.id, RequestId(0));
    assert!(engine.stats().kv_usage.abs() < f64::EPSILON);
}

#[test]
fn without_chunking_a_prompt_waits_for_a_step_of_its_own() {
    let config = EngineConfig { chunked_prefill: false, ..ROOMY };
    let mut engine = engine(config, &[request(1, 60, 2), request(2, 60, 2)]);
    let first = engine.step(Nanos::ZERO).unwrap().unwrap();
    assert_eq!(first.tokens.len(), 1);
    assert_eq!(engine.stats().waiting, 1);
    assert_eq!(
        engine.submit(request(3, 99, 2)),
        Err(SubmitError::Budget { needed: 101, budget: 100 })
    );
}

#[test]
fn what_can_never_run_is_refused() {
    let mut engine = engine(ROOMY, &[]);
    assert_eq!(engine.submit(request(1, 0, 1)), Err(SubmitError::Empty));
    assert_eq!(
        engine.submit(request(1, 16_000, 1)),
        Err(SubmitError::Cache { needed: 16_001, kv_tokens: 16_000 })
    );
    assert_eq!(engine.step(Nanos::ZERO).unwrap(), None);
}

#[test]
fn cancelling_frees_blocks_and_seat() {
    let config = EngineConfig { max_num_seqs: 1, ..ROOMY };
    let mut engine = engine(config, &[request(1, 30, 9), request(2, 30, 1)]);
    engine.step(Nanos::ZERO).unwrap();
    assert!(engine.stats().kv_usage > 0.0);
    assert!(engine.cancel(RequestId(1)));
    assert!(!engine.cancel(RequestId(1)));
    assert!(engine.stats().kv_usage.abs() < f64::EPSILON);
    assert_eq!(run(&mut engine).len(), 1);
}

proptest! {
    #[test]
    fn every_request_gets_exactly_its_tokens(
        sizes in prop::collection::vec((1_u64..120, 1_u64..60), 1..40),
        max_num_seqs in 1_u64..12,
        max_num_batched_tokens in 1_u64..300,
        blocks in 12_u64..60,
    ) {
        let config = EngineConfig {
            max_num_seqs, max_num_batched_tokens, block_size: 16, kv_tokens: blocks * 16,
            chunked_prefill: true,
        };
        let requests: Vec<Request> =
            (0..).zip(&sizes).map(|(id, (prompt, max))| request(id, *prompt, *max)).collect();
        let mut first = engine(config, &requests);
        let seen = run(&mut first);
        let mut count: HashMap<u64, u64> = HashMap::new();
        let mut finished: HashMap<u64, u64> = HashMap::new();
        for (_, token) in &seen {
            *count.entry(token.id.0).or_default() += 1;
            *finished.entry(token.id.0).or_default() += u64::from(token.finished);
        }
        for request in &requests {
            prop_assert_eq!(count[&request.id.0], request.max_tokens);
            prop_assert_eq!(finished[&request.id.0], 1);
        }
        let stats = first.stats();
        prop_assert_eq!((stats.running, stats.waiting), (0, 0));
        prop_assert!(stats.kv_usage.abs() < f64::EPSILON);
        prop_assert_eq!(stats.prompt_tokens, sizes.iter().map(|(prompt, _)| prompt).sum::<u64>());
        // The same calls give the same answers.
        prop_assert_eq!(seen, run(&mut engine(config, &requests)));
    }
}
