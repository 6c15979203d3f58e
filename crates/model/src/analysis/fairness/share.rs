//! How latency is shared out over the requests of one load.

use super::ClassFairness;
use crate::analysis::compare::Side;
use crate::metrics;
use crate::request::RequestRecord;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What latencies are divided by before they are held against each other: a long answer takes longer and is not
/// wronged by that.
const NORMALISED: &str = "token_latency_ms";

/// How evenly the latency per output token is spread over requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Evenness {
    /// Jain's index `(sum x)^2 / (n sum x^2)` (Jain, Chiu and Hawe, DEC-TR-301, 1984): 1 where all are alike, `1/n`
    /// where one has everything.
    pub jain: f64,
    /// The largest `x` over the smallest.
    pub max_over_min: f64,
    /// `n`: completed requests, over all trials.
    pub requests: u64,
    /// What `x` is: the name of a metric of requests.
    pub of: String,
}

/// Over all completed requests; absent below two.
pub(super) fn evenness(side: &Side<'_>) -> Option<Evenness> {
    let metric = metrics::find(NORMALISED)?;
    let mut values = Vec::new();
    side.records().for_each(|(_, r)| metric.sample_one(r, &mut values));
    let (jain, max_over_min) = jain(&values)?;
    Some(Evenness { jain, max_over_min, requests: values.len() as u64, of: NORMALISED.to_owned() })
}

/// Jain's index, and the largest over the smallest; absent below two values, or where one is not above zero.
pub(super) fn jain(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 || !values.iter().all(|x| x.is_finite() && *x > 0.0) {
        return None;
    }
    let max = values.iter().copied().fold(0.0, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    // Of shares of the largest: squares of them neither overflow nor vanish all together.
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(s, q), x| {
        let share = x / max;
        (s + share, q + share * share)
    });
    Some((sum * sum / (values.len() as f64 * squares), max / min))
}

/// Each class with its requests, and how many of them waited behind others.
pub(super) fn classes(side: &Side<'_>) -> Vec<ClassFairness> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for trial in side.trials {
        let answered: Vec<Answered<'_>> = trial.records.iter().filter_map(answered).collect();
        for (class, is_overtaken) in overtaken(answered) {
            let (requests, overtaken) = counts.entry(class).or_default();
            *requests += 1;
            *overtaken += u64::from(is_overtaken);
        }
        // A class of which nothing was answered is still one.
        for record in &trial.records {
            counts.entry(&record.class).or_default();
        }
    }
    let class = |(class, (requests, overtaken)): (&str, (u64, u64))| ClassFairness {
        class: class.to_owned(),
        requests,
        overtaken,
        slowdowns: Vec::new(),
    };
    counts.into_iter().map(class).collect()
}

/// A request that had a first token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered<'a> {
    pub(super) class: &'a str,
    /// When it was asked for. The order in which a client writes requests that are due together is no order of users.
    pub(super) due: Nanos,
    pub(super) first_token: Nanos,
}

fn answered(record: &RequestRecord) -> Option<Answered<'_>> {
    let first_token = record.first_token_at?;
    Some(Answered { class: &record.class, due: record.scheduled_at, first_token })
}

/// Of each request, whether one of another class that was due no earlier had its first token before.
pub(super) fn overtaken(mut all: Vec<Answered<'_>>) -> Vec<(&str, bool)> {
    all.sort_by_key(|a| std::cmp::Reverse(a.due));
    let mut out = Vec::with_capacity(all.len());
    let mut earliest = Earliest::default();
    for together in all.chunk_by(|a, b| a.due == b.due) {
        together.iter().for_each(|a| earliest.take(*a));
        out.extend(together.iter().map(|a| {
            (a.class, earliest.of_another(a.class).is_some_and(|first| first < a.first_token))
        }));
    }
    out
}

/// The earliest first token, and the earliest of another class than that.
#[derive(Debug, Default)]
struct Earliest<'a> {
    first: Option<Answered<'a>>,
    other: Option<Answered<'a>>,
}

impl<'a> Earliest<'a> {
    fn take(&mut self, new: Answered<'a>) {
        let is_before =
            |old: Option<Answered<'_>>| old.is_none_or(|old| new.first_token < old.first_token);
        let is_same_class = self.first.is_some_and(|first| first.class == new.class);
        match (is_before(self.first), is_same_class) {
            (true, true) => self.first = Some(new),
            (true, false) => self.other = self.first.replace(new),
            (false, false) if is_before(self.other) => self.other = Some(new),
            (false, _) => {}
        }
    }

    fn of_another(&self, class: &str) -> Option<Nanos> {
        let first = self.first.filter(|first| first.class != class);
        first.or(self.other).map(|found| found.first_token)
    }
}
