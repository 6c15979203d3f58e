//! The pages of one instance over a measurement, taken one after the other.

use super::reading::{InstanceReading, Reading};
use super::snapshot::{Exported, Value};
use super::{Gap, Histogram, Part, Snapshot, Word};
use crate::plan::Role;
use std::collections::BTreeMap;

/// A later start than this many seconds is another process; below it, the same one rounds differently.
const SAME_START_S: f64 = 1.0;

/// What the pages of one instance have added up to so far. Only the newest page is kept.
#[derive(Debug, Clone)]
pub struct Watch {
    name: String,
    part: Part,
    role: Role,
    /// The page right before the measurement was read.
    has_begun: bool,
    last: Option<Snapshot>,
    /// The newest page was asked for and not had.
    is_behind: bool,
    counts: BTreeMap<Word, Count>,
    levels: BTreeMap<Word, Vec<f64>>,
    names: BTreeMap<Word, String>,
    reads: u32,
    missed: u32,
}

/// What a counter or a histogram has risen by.
#[derive(Debug, Clone)]
enum Count {
    Number(f64),
    Histogram(Histogram),
    Restarted,
}

impl Watch {
    /// Of the instance called `name`, which does `role` for a request.
    pub fn new(name: impl Into<String>, part: Part, role: Role) -> Self {
        Self {
            name: name.into(),
            part,
            role,
            has_begun: false,
            last: None,
            is_behind: false,
            counts: BTreeMap::new(),
            levels: BTreeMap::new(),
            names: BTreeMap::new(),
            reads: 0,
            missed: 0,
        }
    }

    /// Takes the page from right before the measurement: what counts are held against.
    pub fn begin(&mut self, page: Option<Snapshot>) {
        self.has_begun = page.is_some();
        self.count(page);
    }

    /// Takes a page from within the measurement, of which levels are samples. Returns each number that it has,
    /// of counters what they count since their engine was started.
    pub fn sample(&mut self, page: Option<Snapshot>) -> BTreeMap<Word, f64> {
        let mut seen = BTreeMap::new();
        for word in Word::ALL.into_iter().filter(|w| w.part() == self.part) {
            if let Some(value) = page.as_ref().and_then(|p| p.number(word)) {
                seen.insert(word, value);
            }
        }
        for (word, value) in seen.iter().filter(|(word, _)| word.is_level()) {
            self.levels.entry(*word).or_default().push(*value);
        }
        self.count(page);
        seen
    }

    /// Takes the page from right after the measurement, and says what came of it.
    pub fn end(mut self, page: Option<Snapshot>) -> InstanceReading {
        self.count(page);
        let words = Word::ALL.into_iter().filter(|w| w.part() == self.part);
        InstanceReading {
            values: words.map(|w| (w, self.reading(w))).collect(),
            name: self.name,
            part: self.part,
            role: self.role,
            called: self.names,
            reads: self.reads,
            missed: self.missed,
        }
    }

    fn reading(&self, word: Word) -> Reading {
        if self.reads == 0 {
            return Reading::Absent(Gap::NotRead);
        }
        if word.is_level() {
            return self.level(word);
        }
        match self.counts.get(&word) {
            None => Reading::Absent(Gap::NotExported),
            Some(_) if !self.has_begun || self.is_behind => Reading::Absent(Gap::NotRead),
            Some(Count::Restarted) => Reading::Absent(Gap::Restarted),
            Some(Count::Number(risen)) => Reading::Counter { risen: *risen },
            Some(Count::Histogram(new)) => Reading::of_histogram(new),
        }
    }

    fn level(&self, word: Word) -> Reading {
        match self.levels.get(&word) {
            Some(samples) => Reading::of_level(samples),
            None if self.names.contains_key(&word) => Reading::Absent(Gap::NoSample),
            None => Reading::Absent(Gap::NotExported),
        }
    }

    /// Adds what counters and histograms rose by since the page before.
    fn count(&mut self, page: Option<Snapshot>) {
        let Some(page) = page else {
            self.missed += 1;
            self.is_behind = true;
            return;
        };
        self.reads += 1;
        self.is_behind = false;
        for (word, found) in &page.series {
            self.names.entry(*word).or_insert_with(|| found.name.clone());
        }
        let is_same = self.last.as_ref().is_none_or(|last| same_process(last, &page));
        for word in Word::ALL.into_iter().filter(|w| !w.is_level()) {
            let before = self.last.as_ref().map(|last| last.series.get(&word));
            if let Some(step) = step(before, page.series.get(&word), is_same) {
                let sum = match self.counts.remove(&word) {
                    Some(so_far) => so_far.and(step),
                    None => step,
                };
                self.counts.insert(word, sum);
            }
        }
        self.last = Some(page);
    }
}

/// What does not say when it was started is taken for the same as long as no count of it falls.
fn same_process(last: &Snapshot, page: &Snapshot) -> bool {
    match (last.started_s, page.started_s) {
        (Some(then), Some(now)) => (now - then).abs() < SAME_START_S,
        _ => true,
    }
}

impl Count {
    fn and(self, step: Self) -> Self {
        match (self, step) {
            (Self::Number(a), Self::Number(b)) => Self::Number(a + b),
            (Self::Histogram(a), Self::Histogram(b)) => Self::Histogram(a.joined(&b)),
            _ => Self::Restarted,
        }
    }
}

/// From one page to the next. On the first page (no `before`) nothing has risen yet; a series that was not on
/// the page before began at zero, since many are shown only once there is something to count.
fn step(
    before: Option<Option<&Exported>>,
    now: Option<&Exported>,
    is_same_process: bool,
) -> Option<Count> {
    let Some(now) = now else {
        // What is gone was set back; what was never there is not exported.
        return before.flatten().map(|_| Count::Restarted);
    };
    let Some(before) = before else { return Some(zero(now)) };
    if !is_same_process || before.is_some_and(|b| b.name != now.name) {
        return Some(Count::Restarted);
    }
    let none = BTreeMap::new();
    let then = before.map_or(&none, |b| &b.parts);
    if then.keys().any(|part| !now.parts.contains_key(part)) {
        return Some(Count::Restarted);
    }
    let steps = now.parts.iter().map(|(part, value)| risen(then.get(part), value));
    steps.reduce(Count::and)
}

fn zero(now: &Exported) -> Count {
    match now.parts.values().next() {
        Some(Value::Histogram(_)) => Count::Histogram(Histogram::default()),
        _ => Count::Number(0.0),
    }
}

fn risen(before: Option<&Value>, now: &Value) -> Count {
    match (before, now) {
        (None, Value::Number(now)) if *now >= 0.0 => Count::Number(*now),
        (None, Value::Histogram(now)) if now.count() >= 0.0 => Count::Histogram(now.clone()),
        (Some(Value::Number(then)), Value::Number(now)) if now >= then => Count::Number(now - then),
        (Some(Value::Histogram(then)), Value::Histogram(now)) => {
            now.since(then).map_or(Count::Restarted, Count::Histogram)
        }
        _ => Count::Restarted,
    }
}
