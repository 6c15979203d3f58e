//! The metrics, each with one definition, one unit and one implementation.
//!
//! [`METRICS`] is the catalogue: adding a metric is one entry. A metric is samples, of single requests or of
//! looks at the engines, described as a distribution, or one number of a whole trial.

use crate::engine_metrics::{EngineReadings, Word};
use crate::request::{Outcome, RequestRecord};
use crate::results::{MetricValue, Metrics, PointContext, percentile_key};
use crate::stats::percentile::{self, percentile_of};
use crate::stats::quantile::{distribution, quantile_sorted};
use crate::telemetry::{Usage, Window};
use std::collections::BTreeMap;

pub mod catalogue;
mod flight;
mod hint;
mod machines;
pub mod timeline;

pub use flight::{InFlight, NoWindow, steady, steady_window};
pub use hint::hint_for;
pub use timeline::{Slice, Timeline};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither; a fact.
    Neither,
}

/// The measured requests of one trial.
#[derive(Debug, Clone, Copy)]
pub struct TrialView<'a> {
    /// What was asked of it.
    pub context: &'a PointContext<'a>,
    /// Requests of the measure phase, all outcomes.
    pub records: &'a [RequestRecord],
    /// What its machines did meanwhile, where they were watched.
    pub usage: Option<&'a Usage>,
    /// What the engines said of themselves meanwhile, where they were asked.
    pub engines: Option<&'a EngineReadings>,
}

impl<'a> TrialView<'a> {
    /// Requests whose answer arrived whole; the only ones that latencies are taken of.
    pub fn completed(&self) -> impl Iterator<Item = &'a RequestRecord> + Clone {
        self.records.iter().filter(|r| r.outcome == Outcome::Completed)
    }

    /// From the first send to the last byte of the measured requests.
    pub fn window(&self) -> Option<Window> {
        let sent = self.records.iter().filter(|r| r.sent_at.is_some());
        let from = sent.clone().filter_map(|r| r.sent_at).min()?;
        let to = sent.map(|r| r.finished_at).max()?;
        (to > from).then_some(Window { from, to })
    }

    /// Seconds from the first send to the last byte of the measured requests.
    pub fn wall_s(&self) -> Option<f64> {
        self.window().map(|w| w.seconds())
    }
}

/// How a metric is found.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// Samples of one completed request.
    Completed(fn(&RequestRecord, &mut Vec<f64>)),
    /// Samples of one request that was sent, whatever became of it.
    Sent(fn(&RequestRecord, &mut Vec<f64>)),
    /// Looks at the engines while the trial ran.
    Looks(Word),
    /// One number of a trial.
    Trial(fn(&TrialView<'_>) -> Option<f64>),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in files, with the unit last.
    pub name: &'static str,
    /// Its unit for axes and tables.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Its definition, for the glossary.
    pub doc: &'static str,
    /// How it is found.
    pub of: Of,
}

impl Metric {
    /// The samples of this metric in a trial; empty for a number of it.
    pub fn samples(&self, trial: &TrialView<'_>) -> Vec<f64> {
        if let Of::Looks(word) = self.of {
            return trial.engines.map_or_else(Vec::new, |e| e.samples(word).to_vec());
        }
        let mut out = Vec::new();
        for record in trial.records {
            self.sample_one(record, &mut out);
        }
        out
    }

    /// The samples of all trials; none where one of them was not looked at, which would pass for idle.
    fn pooled(&self, views: &[TrialView<'_>]) -> Vec<f64> {
        let each: Vec<Vec<f64>> = views.iter().map(|v| self.samples(v)).collect();
        if matches!(self.of, Of::Looks(_)) && each.iter().any(Vec::is_empty) {
            return Vec::new();
        }
        each.concat()
    }

    /// Whether it is samples of requests.
    pub fn is_of_requests(&self) -> bool {
        matches!(self.of, Of::Completed(_) | Of::Sent(_))
    }

    /// Whether it is one number of a trial.
    pub fn is_of_trial(&self) -> bool {
        matches!(self.of, Of::Trial(_))
    }

    /// Appends the samples of one request.
    pub fn sample_one(&self, record: &RequestRecord, out: &mut Vec<f64>) {
        match self.of {
            Of::Completed(f) if record.outcome == Outcome::Completed => f(record, out),
            Of::Sent(f) if record.sent_at.is_some() => f(record, out),
            _ => {}
        }
    }
}

pub use catalogue::METRICS;

/// The metric called `name`, without a statistic; `ttft` stands for `ttft_ms`.
pub fn find(name: &str) -> Option<&'static Metric> {
    let exact = METRICS.iter().find(|m| m.name == name);
    exact.or_else(|| METRICS.iter().find(|m| m.name.strip_suffix("_ms") == Some(name)))
}

/// All metrics of one trial.
pub fn of_trial(view: &TrialView<'_>) -> Metrics {
    of_trials(&[*view])
}

/// All metrics over repeats of one point: samples are pooled, a trial's number is the mean over trials.
pub fn of_trials(views: &[TrialView<'_>]) -> Metrics {
    let mut out = Metrics::new();
    for metric in METRICS {
        let value = match metric.of {
            Of::Trial(f) => {
                let numbers: Vec<f64> = views.iter().filter_map(f).collect();
                // A mean over some of the trials only would hide that the others had none.
                (!numbers.is_empty() && numbers.len() == views.len()).then(|| {
                    MetricValue::Number(numbers.iter().sum::<f64>() / numbers.len() as f64)
                })
            }
            _ => distribution(metric.pooled(views)).map(MetricValue::Distribution),
        };
        if let Some(value) = value {
            out.insert(metric.name.to_owned(), value);
        }
    }
    out
}

/// Metrics of some of the requests of a point, all trials pooled: those that a part has of its own. Rates are
/// none of them, since the parts share one wall time.
pub fn of_part(records: &[&RequestRecord]) -> Metrics {
    let mut out = Metrics::new();
    for metric in METRICS {
        let mut samples = Vec::new();
        records.iter().for_each(|r| metric.sample_one(r, &mut samples));
        if let Some(described) = distribution(samples) {
            out.insert(metric.name.to_owned(), MetricValue::Distribution(described));
        }
    }
    let numbers = [
        ("requests", Some(records.len() as f64)),
        ("success_rate", catalogue::success_rate(records.iter().copied())),
        ("prefix_hit_ratio", catalogue::prefix_hit_ratio(records.iter().copied())),
    ];
    for (name, value) in numbers {
        out.extend(value.map(|v| (name.to_owned(), MetricValue::Number(v))));
    }
    out
}

/// Percentiles by metric, those apart that every distribution keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Percentiles(BTreeMap<&'static str, Vec<f64>>);

impl Percentiles {
    /// What `names` (`ttft.p99.5`) need, and `of_all` distributions, each of a hundred.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, of_all: &[f64]) -> Self {
        let mut out = Self::default();
        for name in names {
            let (base, statistic) = percentile::split(name);
            if let Some((metric, p)) = find(base).zip(statistic.and_then(percentile_of)) {
                out.add(metric, p);
            }
        }
        for metric in METRICS {
            of_all.iter().for_each(|p| out.add(metric, *p));
        }
        out
    }

    fn add(&mut self, metric: &Metric, of_hundred: f64) {
        if metric.is_of_trial() {
            return;
        }
        let asked = self.0.entry(metric.name).or_default();
        if !asked.contains(&of_hundred) {
            asked.push(of_hundred);
        }
    }

    /// Their values over repeats of one point, samples pooled; none for what distributions keep anyway.
    pub fn of_trials(&self, views: &[TrialView<'_>]) -> Metrics {
        let mut out = Metrics::new();
        for (name, asked) in &self.0 {
            let Some(metric) = find(name) else { continue };
            let mut samples = metric.pooled(views);
            let Some(kept) = distribution(samples.clone()) else { continue };
            samples.retain(|x| x.is_finite());
            samples.sort_by(f64::total_cmp);
            for p in asked.iter().filter(|p| kept.stat(&percentile::name_of(**p)).is_none()) {
                if let Some(value) = quantile_sorted(&samples, p / 100.0) {
                    out.insert(percentile_key(name, *p), MetricValue::Number(value));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
