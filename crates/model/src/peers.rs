//! The same records under the definitions and the names of other tools, so that an old number can be
//! matched.
//!
//! [`PEERS`] is the catalogue: a tool is one entry, with where its formulas were read and in what its
//! numbers differ from ours. What a record does not hold is said there and not guessed.
//!
//! **Invariants:** no verdict, comparison or expectation uses anything of this module. A quantity without
//! a value is absent, also where the tool itself would print 0.

use crate::request::RequestRecord;
use crate::stats::quantile::quantile_sorted;
use crate::units::Nanos;
use serde_json::{Map, Value};

mod aiperf;
mod genai_bench;
mod genai_perf;
mod guidellm;
mod inference_perf;
mod llmperf;
mod parts;
mod sglang;
mod vllm;

/// Every tool whose definitions are known.
pub const PEERS: &[Peer] = &[
    vllm::PEER,
    sglang::PEER,
    aiperf::PEER,
    genai_perf::PEER,
    guidellm::PEER,
    inference_perf::PEER,
    llmperf::PEER,
    genai_bench::PEER,
];

/// A tool that measures the same things in its own way.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Its own command.
    pub tool: &'static str,
    /// Where its formulas were read: project and path.
    pub sources: &'static [&'static str],
    /// In what its numbers differ from ours, a sentence each.
    pub differs: &'static [&'static str],
    /// Which requests its latencies are of.
    counts: fn(&RequestRecord) -> bool,
    /// What it prints of a distribution: its word for it, and what that is.
    statistics: &'static [(&'static str, Statistic)],
    summary: Summary,
    /// Whether its file has the unit beside each value.
    pub(crate) says_unit: bool,
    /// What it measures, in the order of its file.
    pub quantities: &'static [Quantity],
}

/// Something that a tool measures.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// Its key in the tool's file; `/` goes one object deeper, `{}` stands for the statistic.
    pub key: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// What of ours it is.
    pub like: Like,
    /// Its formula, with the tool's own meaning of the words.
    pub formula: &'static str,
    of: Of,
}

/// What of ours a quantity of a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Like {
    /// This metric, but for what the tool's `differs` says.
    Same(&'static str),
    /// This metric, and in what it is another.
    Near(&'static str, &'static str),
    /// How many requests were answered.
    Completed,
    /// How many were not.
    Failed,
    /// No metric of ours.
    Nothing,
}

/// A unit, and how many of it are one of ours (a second, a token, a request).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// As the tool writes it.
    pub name: &'static str,
    scale: f64,
}

impl Unit {
    /// How many of the unit of `metric`, one of ours, are one of these.
    pub(crate) fn to_ours(self, metric: &str) -> f64 {
        let is_in_ms = crate::metrics::find(metric).is_some_and(|m| m.unit.starts_with("ms"));
        if is_in_ms { 1e3 / self.scale } else { 1.0 / self.scale }
    }
}

const fn unit(name: &'static str, scale: f64) -> Unit {
    Unit { name, scale }
}

/// How a quantity is found.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Samples of each request that counts.
    Counted(fn(&RequestRecord, &mut Vec<Sample>)),
    /// Samples of each request that was sent, whatever became of it.
    Sent(fn(&RequestRecord, &mut Vec<Sample>)),
    /// One number of a trial.
    Trial(fn(&Seen<'_>) -> Option<f64>),
}

/// A value, and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    value: f64,
    weight: f64,
}

impl Sample {
    const fn one(value: f64) -> Self {
        Self { value, weight: 1.0 }
    }
}

/// What is said of many values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Statistic {
    Mean,
    Std,
    Min,
    Max,
    Sum,
    Count,
    /// Of a hundred.
    Percentile(f64),
}

impl Statistic {
    /// Our word for it; we have none for sums and counts.
    fn name(self) -> Option<String> {
        Some(match self {
            Self::Mean => "mean".to_owned(),
            Self::Std => "std".to_owned(),
            Self::Min => "min".to_owned(),
            Self::Max => "max".to_owned(),
            Self::Percentile(p) => format!("p{p}"),
            Self::Sum | Self::Count => return None,
        })
    }
}

/// How a tool summarises values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Summary {
    /// numpy's defaults: percentiles by linear interpolation, deviation over n.
    Numpy,
    /// pandas' defaults: percentiles by linear interpolation, deviation over n - 1.
    Pandas,
    /// The least value up to which that share of the weights lies, deviation over all weights.
    Weighted,
}

/// The measured requests of one trial, as a tool sees them.
struct Seen<'a> {
    records: &'a [RequestRecord],
    counts: fn(&RequestRecord) -> bool,
}

impl<'a> Seen<'a> {
    fn counted(&self) -> impl Iterator<Item = &'a RequestRecord> + Clone {
        let counts = self.counts;
        self.records.iter().filter(move |r| counts(r))
    }

    fn sent(&self) -> impl Iterator<Item = &'a RequestRecord> + Clone {
        self.records.iter().filter(|r| r.sent_at.is_some())
    }

    /// Seconds from the first request's start to the last of `ends`.
    fn seconds_to(&self, ends: impl Iterator<Item = Nanos>) -> Option<f64> {
        let from = self.sent().filter_map(parts::begun).min()?;
        let to = ends.max()?;
        (to > from).then(|| (to - from).as_secs_f64())
    }

    /// The sum over the requests that count; absent where one of them has no value.
    fn total(&self, of: fn(&RequestRecord) -> Option<u32>) -> Option<f64> {
        let sum: Option<u64> = self.counted().map(|r| of(r).map(u64::from)).sum();
        sum.map(|n| n as f64)
    }
}

/// A quantity with its values in the tool's unit: one for each statistic, or one without a statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its key, with `{}` where a statistic goes.
    pub key: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The tool's word for the statistic (empty for a number of the whole trial), and the value.
    pub values: Vec<(&'static str, Option<f64>)>,
}

/// The tool called `name`.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|p| p.name.eq_ignore_ascii_case(name))
}

impl Peer {
    /// Its words for statistics, with ours.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        self.statistics.iter().map(|(word, statistic)| (*word, statistic.name()))
    }

    /// What the tool would have said of the measured requests of one trial.
    pub fn rows(&self, records: &[RequestRecord]) -> Vec<Row> {
        let seen = Seen { records, counts: self.counts };
        self.quantities.iter().map(|q| self.row(q, &seen)).collect()
    }

    fn row(&self, quantity: &Quantity, seen: &Seen<'_>) -> Row {
        let mut samples = Vec::new();
        let scale = quantity.unit.scale;
        match quantity.of {
            Of::Trial(of) => {
                let value = of(seen).map(|v| v * scale);
                let values = vec![("", value)];
                return Row { key: quantity.key, unit: quantity.unit.name, values };
            }
            Of::Counted(of) => seen.counted().for_each(|r| of(r, &mut samples)),
            Of::Sent(of) => seen.sent().for_each(|r| of(r, &mut samples)),
        }
        samples.retain(|s| s.value.is_finite() && s.weight > 0.0);
        samples.sort_by(|a, b| a.value.total_cmp(&b.value));
        let is_of_values = |s: Statistic| s != Statistic::Count;
        let value = |(word, statistic): &(&'static str, Statistic)| {
            let scale = if is_of_values(*statistic) { scale } else { 1.0 };
            (*word, self.summary.of(&samples, *statistic).map(|v| v * scale))
        };
        let values = self.statistics.iter().map(value).collect();
        Row { key: quantity.key, unit: quantity.unit.name, values }
    }

    /// `rows` as the tool's own file has them. What is absent is left out.
    pub fn json(&self, rows: &[Row]) -> Value {
        let mut out = Map::new();
        for row in rows {
            for (statistic, value) in &row.values {
                let Some(value) = value.and_then(serde_json::Number::from_f64) else { continue };
                let key = row.key.replace("{}", statistic);
                let (parents, leaf) = key.rsplit_once('/').unwrap_or(("", &key));
                let mut object = &mut out;
                for parent in parents.split('/').filter(|p| !p.is_empty()) {
                    let entry = object.entry(parent).or_insert_with(|| Value::Object(Map::new()));
                    // No key of a catalogue is another's parent; a test holds them to it.
                    let Value::Object(inner) = entry else { return Value::Object(out) };
                    object = inner;
                }
                if self.says_unit {
                    object.entry("unit").or_insert_with(|| row.unit.into());
                }
                object.insert(leaf.to_owned(), Value::Number(value));
            }
        }
        Value::Object(out)
    }
}

impl Summary {
    /// One statistic of samples that are in order of their values.
    fn of(self, sorted: &[Sample], statistic: Statistic) -> Option<f64> {
        let (first, last) = (sorted.first()?, sorted.last()?);
        let weight: f64 = sorted.iter().map(|s| s.weight).sum();
        let mean = sorted.iter().map(|s| s.value * s.weight).sum::<f64>() / weight;
        Some(match statistic {
            Statistic::Mean => mean,
            Statistic::Min => first.value,
            Statistic::Max => last.value,
            Statistic::Sum => mean * weight,
            Statistic::Count => weight.round(),
            Statistic::Std => {
                let squares: f64 = sorted.iter().map(|s| s.weight * (s.value - mean).powi(2)).sum();
                let of = if self == Self::Pandas { weight - 1.0 } else { weight };
                return (of > 0.0).then(|| (squares / of).sqrt());
            }
            Statistic::Percentile(p) => return self.percentile(sorted, weight, p / 100.0),
        })
    }

    fn percentile(self, sorted: &[Sample], weight: f64, q: f64) -> Option<f64> {
        if self != Self::Weighted {
            let values: Vec<f64> = sorted.iter().map(|s| s.value).collect();
            return quantile_sorted(&values, q);
        }
        let mut below = 0.0;
        let reaches = |s: &&Sample| {
            below += s.weight / weight;
            below >= q
        };
        // Rounding may leave the sum of all a little below one.
        sorted.iter().find(reaches).or(sorted.last()).map(|s| s.value)
    }
}

#[cfg(test)]
mod tests;
