//! One page, in our words.

use super::maps::{Map, Series, maps};
use super::{Histogram, Kind, Word};
use crate::exposition::{Sample, samples};
use std::collections::{BTreeMap, HashMap};

/// What a page says. Parts that labels tell apart are kept apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub(super) series: BTreeMap<Word, Exported>,
    /// When the process was started, in seconds since 1970, by its own word.
    pub(super) started_s: Option<f64>,
}

/// One word of a page.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exported {
    /// What the page calls it.
    pub(super) name: String,
    /// By labels: what is counted apart.
    pub(super) parts: BTreeMap<String, Value>,
}

/// The value of a part.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Of a level, a share or a counter.
    Number(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

impl Value {
    const fn number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Histogram(_) => None,
        }
    }
}

/// The samples of a page by name.
struct Index<'a> {
    by_name: HashMap<&'a str, Vec<Sample<'a>>>,
}

impl Snapshot {
    /// Reads a page. No text is an error.
    pub fn read(page: &str) -> Self {
        let mut index = Index { by_name: HashMap::new() };
        for sample in samples(page) {
            index.by_name.entry(sample.name).or_default().push(sample);
        }
        let mut series = BTreeMap::new();
        for map in maps() {
            for (word, names) in &map.series {
                if !series.contains_key(word)
                    && let Some(found) = index.exported(*word, names, map)
                {
                    series.insert(*word, found);
                }
            }
        }
        let started = index.by_name.get("process_start_time_seconds").and_then(|s| s.first());
        Self { series, started_s: started.map(|s| s.value) }
    }

    /// The number of a level, a share or a counter over all its parts; absent where it is not exported.
    pub fn number(&self, word: Word) -> Option<f64> {
        let numbers = self.series.get(&word)?.parts.values().filter_map(Value::number);
        match word.kind() {
            Kind::Share => numbers.reduce(f64::max),
            _ => numbers.reduce(|sum, n| sum + n),
        }
    }
}

impl<'a> Index<'a> {
    fn exported(&self, word: Word, series: &Series, map: &Map) -> Option<Exported> {
        let is_histogram = word.kind() == Kind::Histogram;
        let ending = if is_histogram { "_count" } else { "" };
        series.names.iter().find_map(|alias| {
            let name = self.name_like(&format!("{alias}{ending}"))?;
            let base = name.strip_suffix(ending)?;
            let parts = if is_histogram {
                self.histograms(base, series, map)
            } else {
                self.numbers(base, series, map)
            };
            (!parts.is_empty()).then(|| Exported { name: base.to_owned(), parts })
        })
    }

    /// The name on the page that is `alias`, or ends like it: exporters put a word before names, and `_` for
    /// the colon.
    fn name_like(&self, alias: &str) -> Option<&'a str> {
        if let Some((name, _)) = self.by_name.get_key_value(alias) {
            return Some(name);
        }
        self.by_name.keys().copied().filter(|name| ends_like(name, alias)).min()
    }

    fn matching<'s>(
        &'s self,
        name: &str,
        series: &'s Series,
    ) -> impl Iterator<Item = &'s Sample<'a>> + use<'s, 'a> {
        let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        all.iter().filter(move |s| {
            series.only.iter().all(|(label, value)| s.label(label) == Some(value.as_str()))
        })
    }

    fn numbers(&self, name: &str, series: &Series, map: &Map) -> BTreeMap<String, Value> {
        let mut parts: BTreeMap<String, f64> = BTreeMap::new();
        for sample in self.matching(name, series) {
            let value = sample.value * series.scale;
            let part = parts.entry(key(sample, &map.copies)).or_insert(value);
            // Copies are shown one after the other; the newest is the largest.
            *part = part.max(value);
        }
        parts.into_iter().map(|(key, n)| (key, Value::Number(n))).collect()
    }

    fn histograms(&self, base: &str, series: &Series, map: &Map) -> BTreeMap<String, Value> {
        let mut parts: BTreeMap<String, Histogram> = BTreeMap::new();
        let mut buckets: HashMap<String, Vec<(f64, f64)>> = HashMap::new();
        for sample in self.matching(&format!("{base}_bucket"), series) {
            if let Some(bound) = sample.label("le").and_then(|le| le.parse().ok()) {
                buckets.entry(key(sample, &[])).or_default().push((bound, sample.value));
            }
        }
        let sums: HashMap<String, f64> =
            self.matching(&format!("{base}_sum"), series).map(|s| (key(s, &[]), s.value)).collect();
        for sample in self.matching(&format!("{base}_count"), series) {
            let whole = key(sample, &[]);
            let Some(sum) = sums.get(&whole) else { continue };
            let buckets = buckets.remove(&whole).unwrap_or_default();
            let found = Histogram::new(buckets, sample.value, *sum).scaled(series.scale);
            let part = parts.entry(key(sample, &map.copies)).or_default();
            if found.count() >= part.count() {
                *part = found;
            }
        }
        parts.into_iter().map(|(key, h)| (key, Value::Histogram(h))).collect()
    }
}

/// The labels of a sample in order, those left out that are `copies` or a bucket's bound.
fn key(sample: &Sample<'_>, copies: &[String]) -> String {
    let tells_apart = |label: &str| label != "le" && !copies.iter().any(|c| c == label);
    let mut labels: Vec<(&str, &str)> =
        sample.labels().filter(|(label, _)| tells_apart(label)).collect();
    labels.sort_unstable();
    let written: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    written.join(",")
}

/// Whether `name` is `alias`, or ends with it after a separator; `_` stands for a colon.
fn ends_like(name: &str, alias: &str) -> bool {
    let plain = |byte: u8| if byte == b':' { b'_' } else { byte };
    let (name, alias) = (name.as_bytes(), alias.as_bytes());
    let Some(head) = name.len().checked_sub(alias.len()) else { return false };
    let (before, tail) = name.split_at(head);
    before.last().is_none_or(|byte| plain(*byte) == b'_')
        && tail.iter().zip(alias).all(|(a, b)| plain(*a) == plain(*b))
}
