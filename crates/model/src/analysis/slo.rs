//! Whether a point meets its service-level objective, in numbers and words.

use super::TrialRecords;
use crate::request::RequestRecord;
use crate::results::{Estimate, SloBoundResult, SloResult};
use crate::slo::{Bound, CONFIDENCE, Slo, Tally};
use crate::stats::binomial;

/// Over the requests of all trials.
pub(super) fn result(slo: &Slo, trials: &[TrialRecords]) -> SloResult {
    let records = || trials.iter().flat_map(|t| &t.records);
    let tallies: Vec<Tally> = slo.bounds.iter().map(|b| b.tally(records())).collect();
    let judged = slo.judge(&tallies);
    let bounds = slo.bounds.iter().zip(&tallies);
    SloResult {
        slo: slo.to_string(),
        met: judged.holds,
        sure: judged.is_sure,
        bounds: bounds.map(|(bound, tally)| of_bound(bound, *tally, records())).collect(),
    }
}

fn of_bound<'a>(
    bound: &Bound,
    tally: Tally,
    records: impl Iterator<Item = &'a RequestRecord>,
) -> SloBoundResult {
    let judged = bound.judge(tally);
    SloBoundResult {
        bound: bound.to_string(),
        value_ms: bound.seen_ms(records),
        within: (tally.of > 0).then(|| share(tally)),
        holds: judged.holds,
        sure: judged.is_sure,
    }
}

fn share(tally: Tally) -> Estimate {
    let (low, high) = binomial::interval(tally.within, tally.of, CONFIDENCE);
    Estimate {
        point: tally.within as f64 / tally.of as f64,
        low,
        high,
        confidence: CONFIDENCE,
        method: format!("Clopper-Pearson over {} requests, taken to be independent", tally.of),
    }
}
