//! Doubts from what the engines say of themselves.

use super::{Seen, percent, reason};
use crate::analysis::sharing;
use crate::engine_metrics::{EngineReadings, Word};
use crate::trust::{Reason, TrustLevel};

/// A cache that is as full has no place for the next request.
const FULL: f64 = 0.95;
/// Of the tokens that are looked up, beyond what the workload shares.
const HITS: f64 = 0.05;

fn engines<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = &'a EngineReadings> {
    seen.trials.iter().filter_map(|t| t.facts.engines.as_ref())
}

/// A preempted request computes its prompt again: the deployment was asked for more than its cache holds.
pub(super) fn preemptions(seen: &Seen<'_>) -> Option<Reason> {
    let n: u64 = seen.trials.iter().filter_map(|t| t.facts.preemptions).sum();
    (n > 0).then(|| {
        reason(
            "preemptions",
            TrustLevel::Caution,
            format!(
                "the engine put {n} requests back in its queue for want of cache: their prompts were computed again, which latencies and rates hold"
            ),
            "lower the load, or give the engine more memory for its cache",
        )
    })
}

/// A full cache lets no further request in: what is measured is the queue before it.
pub(super) fn cache_full(seen: &Seen<'_>) -> Option<Reason> {
    let looks = engines(seen).flat_map(|e| e.samples(Word::KvUsage)).copied();
    let fullest = looks.filter(|share| *share > FULL).max_by(f64::total_cmp)?;
    Some(reason(
        "kv_cache_full",
        TrustLevel::Caution,
        format!(
            "the key-value cache of an engine was {} full, by its own count: the point is past the knee, where requests wait for memory",
            percent(fullest)
        ),
        "lower the load, or give the engine more memory for its cache",
    ))
}

/// Prompts that nobody was to have asked before were found in a cache. Answers may say it too, and then by
/// request, which is the better word: `cache_hits`.
pub(super) fn prefix_hits(seen: &Seen<'_>) -> Option<Reason> {
    if seen.value("prefix_hit_ratio").is_some() {
        return None;
    }
    let share = seen.value("engine_prefix_hit_ratio")?;
    let expected = sharing::expected_share(seen.workload, seen.trials)?;
    if share - expected <= HITS {
        return None;
    }
    Some(reason(
        "prefix_hits",
        TrustLevel::Caution,
        format!(
            "the engines found {} of the prompt tokens in their prefix caches, by their own count, and requests of a trial share {} at most: their prefill was not measured",
            percent(share),
            percent(expected)
        ),
        "set cache = \"salt\" in the [[workload]], or restart the server between points",
    ))
}
