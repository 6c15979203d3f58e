//! What came of a measurement, by instance and for the deployment.

use super::{Gap, Histogram, Part, Quantile, Word};
use crate::plan::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One word of one instance over a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// A level or a share, over the pages read meanwhile.
    Level {
        /// Mean of the samples.
        mean: f64,
        /// Largest of them: what was between two samples is not known.
        max: f64,
        /// How many.
        samples: u32,
    },
    /// A counter.
    Counter {
        /// What it rose by.
        risen: f64,
    },
    /// A histogram.
    Histogram {
        /// Observations.
        count: f64,
        /// Their sum.
        sum: f64,
        /// Median; absent without observations or buckets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        p50: Option<Quantile>,
        /// 95th percentile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        p95: Option<Quantile>,
        /// 99th percentile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        p99: Option<Quantile>,
    },
    /// No value, and why.
    Absent(Gap),
}

impl Reading {
    pub(super) fn of_level(samples: &[f64]) -> Self {
        let n = samples.len();
        Self::Level {
            mean: samples.iter().sum::<f64>() / n.max(1) as f64,
            max: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            samples: u32::try_from(n).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn of_histogram(new: &Histogram) -> Self {
        Self::Histogram {
            count: new.count(),
            sum: new.sum(),
            p50: new.quantile(0.5),
            p95: new.quantile(0.95),
            p99: new.quantile(0.99),
        }
    }
}

/// One instance over a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstanceReading {
    /// What it is called: its role and number, or its address.
    pub name: String,
    /// Whether it computes, or stands before what does.
    pub part: Part,
    /// What it does for a request.
    pub role: Role,
    /// What it said, by word.
    pub values: BTreeMap<Word, Reading>,
    /// What its page calls the words that it has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub called: BTreeMap<Word, String>,
    /// Pages read.
    pub reads: u32,
    /// Pages asked for and not had.
    pub missed: u32,
}

impl InstanceReading {
    fn value(&self, word: Word) -> Reading {
        self.values.get(&word).copied().unwrap_or(Reading::Absent(Gap::NotExported))
    }
}

/// The readings of `word`, of those whose word it is.
fn of(instances: &[InstanceReading], word: Word) -> impl Iterator<Item = (Role, Reading)> {
    let mine = instances.iter().filter(move |i| i.part == word.part());
    mine.map(move |i| (i.role, i.value(word)))
}

/// Why a deployment of `instances` has no value of `word`, where it has none.
pub fn gap(instances: &[InstanceReading], word: Word) -> Option<Gap> {
    let mut all = of(instances, word).peekable();
    if all.peek().is_none() {
        return Some(Gap::NotExported);
    }
    all.find_map(|(_, reading)| match reading {
        Reading::Absent(gap) => Some(gap),
        _ => None,
    })
}

/// The engines of a deployment over a measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineReadings {
    /// Each instance, and each frontend.
    pub instances: Vec<InstanceReading>,
    /// Levels and shares over all instances at each look, in order: levels added up, of shares the largest.
    /// A look at which an instance did not answer is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub samples: BTreeMap<Word, Vec<f64>>,
}

impl EngineReadings {
    /// The readings of `word`, of those whose word it is.
    fn of(&self, word: Word) -> impl Iterator<Item = (Role, Reading)> {
        of(&self.instances, word)
    }

    /// Why there is no value of `word` for the whole deployment, where there is none.
    pub fn gap(&self, word: Word) -> Option<Gap> {
        gap(&self.instances, word)
    }

    /// What a counter rose by over all instances.
    ///
    /// # Errors
    /// Where one of them has no value, or there is none.
    pub fn risen(&self, word: Word) -> Result<f64, Gap> {
        self.gap(word).map_or(Ok(()), Err)?;
        let risen = self.of(word).filter_map(|(_, reading)| match reading {
            Reading::Counter { risen } => Some(risen),
            _ => None,
        });
        Ok(risen.sum())
    }

    /// What a counter rose by over those instances that count it, as a decode instance counts what it is sent;
    /// absent where none does, or one of them has another gap.
    pub fn risen_where_exported(&self, word: Word) -> Option<f64> {
        let mut sum = None;
        for (_, reading) in self.of(word) {
            match reading {
                Reading::Counter { risen } => sum = Some(sum.unwrap_or(0.0) + risen),
                Reading::Absent(Gap::NotExported) => {}
                _ => return None,
            }
        }
        sum
    }

    /// Mean of a histogram over the observations of all instances that do the same, added up over roles: a
    /// request passes a prefill and a decode instance one after the other.
    ///
    /// # Errors
    /// Where one of them has no value; [`Gap::NoSample`] where a role has observed nothing.
    pub fn mean(&self, word: Word) -> Result<f64, Gap> {
        self.gap(word).map_or(Ok(()), Err)?;
        let mut by_role: BTreeMap<Role, (f64, f64)> = BTreeMap::new();
        for (role, reading) in self.of(word) {
            if let Reading::Histogram { count, sum, .. } = reading {
                let all = by_role.entry(role).or_default();
                *all = (all.0 + count, all.1 + sum);
            }
        }
        let means = by_role.values().map(|(n, sum)| (*n > 0.0).then(|| sum / n));
        means.sum::<Option<f64>>().filter(|mean| mean.is_finite()).ok_or(Gap::NoSample)
    }

    /// Whether each role has observed `n` requests, within a hundredth: then its means are of the same
    /// requests as those of the client.
    pub fn has_observed(&self, word: Word, n: f64) -> bool {
        let mut by_role: BTreeMap<Role, f64> = BTreeMap::new();
        for (role, reading) in self.of(word) {
            if let Reading::Histogram { count, .. } = reading {
                *by_role.entry(role).or_default() += count;
            }
        }
        !by_role.is_empty() && by_role.values().all(|count| (count - n).abs() <= 0.01 * n)
    }

    /// Looks at a level or share over all instances.
    pub fn samples(&self, word: Word) -> &[f64] {
        self.samples.get(&word).map_or(&[], Vec::as_slice)
    }

    /// Takes what each instance said at one look, in their order. Words that an instance does not have are
    /// left out, since a sum over some is not the sum.
    pub fn add_look<'a>(
        &mut self,
        looks: impl Iterator<Item = (Part, Option<&'a BTreeMap<Word, f64>>)> + Clone,
    ) {
        for word in Word::ALL.into_iter().filter(|w| w.is_level()) {
            let mine = looks.clone().filter(|(part, _)| *part == word.part());
            let values: Option<Vec<f64>> =
                mine.map(|(_, said)| said.and_then(|s| s.get(&word)).copied()).collect();
            let Some(values) = values else { continue };
            let joined = match word.kind() {
                super::Kind::Share => values.into_iter().reduce(f64::max),
                _ => values.into_iter().reduce(|sum, n| sum + n),
            };
            self.samples.entry(word).or_default().extend(joined);
        }
        self.samples.retain(|_, looks| !looks.is_empty());
    }
}
