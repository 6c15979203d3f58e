//! What to measure to be surer.

use super::Next;
use super::choice::Weighed;
use crate::slo::{Bound, Slo};

/// Neighbours closer than this, relative, leave nothing worth a measurement between them.
const CLOSE: f64 = 0.1;

/// Of the choice, and of those that cannot be told from it.
pub(super) fn next(weighed: &[Weighed<'_>], alike: &[String], slo: &Slo) -> Vec<Next> {
    let Some(first) = weighed.first() else { return Vec::new() };
    let mut out = Vec::new();
    let close = weighed.iter().filter(|w| alike.contains(&w.choice.name));
    for w in std::iter::once(first).chain(close) {
        let choice = &w.choice;
        let (name, load) = (choice.name.clone(), choice.at.load.clone());
        if !choice.at.sure {
            // Each bound must be sure by itself.
            let fewest: Option<Vec<u64>> =
                slo.bounds.iter().map(Bound::fewest_to_be_sure).collect();
            let fewest = fewest.and_then(|all| all.into_iter().max());
            let (name, load) = (name.clone(), load.clone());
            out.push(Next::Requests { name, load, level: choice.at.level.clone(), fewest });
        }
        match w.ceiling {
            None => out.push(Next::Higher { name, load, level: choice.at.level.clone() }),
            Some(ceiling) => {
                let (met, missed) = (w.level.asked(), ceiling.asked());
                let try_at = (met * missed).sqrt();
                // Concurrencies are whole, and may have none between them.
                let is_whole = w.level.side.result.rate_rps.is_none();
                let try_at = if is_whole { try_at.round() } else { try_at };
                if missed > met * (1.0 + CLOSE) && try_at > met && try_at < missed {
                    let (met, missed) = (choice.at.level.clone(), ceiling.as_ceiling().level);
                    out.push(Next::Between { name, load, met, missed, try_at });
                }
            }
        }
    }
    let choice = &first.choice;
    let seen = choice.measured_copies.as_ref().map(|c| c.times);
    let is_seen = seen.is_some_and(|times| times >= f64::from(choice.copies));
    if choice.copies > 1 && !is_seen {
        out.push(Next::Copies { name: choice.name.clone(), copies: choice.copies });
    }
    for other in alike {
        out.push(Next::RunnerUp { name: first.choice.name.clone(), other: other.clone() });
    }
    out
}
