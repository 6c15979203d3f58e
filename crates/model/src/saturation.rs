//! Whether an open loop is beyond what the deployment serves, told while it runs.
//!
//! Beyond capacity the queue grows for as long as one looks: requests in flight and the time to first
//! token rise without end. Three things must hold over the later half of the run, so that a load that
//! is sustained is left alone:
//!
//! - the slope of requests in flight is surely above zero, by Student's t over means of equal spans;
//! - so is the slope of the time to first token, which is flat while slots merely fill;
//! - the growth in flight is more than chance gives a load on the edge: its queue is a random walk, so
//!   spans are not independent, and a slope alone would take an excursion for a trend.
//!
//! The first two are GuideLLM's rule (docs/guides/over_saturation_stopping.md of its repository); the
//! third bounds the difference of arrivals and completions, each counted with the variance of a Poisson
//! process.
//!
//! **Invariant:** memory and time of a step do not grow with the run: spans are merged in pairs.

use crate::request::RequestRecord;
use crate::stats::student::t_975;
use crate::units::Nanos;

/// Spans that are kept at most; when they are full, each two become one.
const SPANS: usize = 64;
/// Length of the first spans.
const FIRST_SPAN: Nanos = Nanos::from_millis(50);
/// Spans of the later half that hold a request, below which nothing is said.
const FEWEST_SPANS: usize = 12;
/// Requests of the later half that ended, below which nothing is said.
const FEWEST_REQUESTS: u64 = 60;
/// Standard deviations of a critical queue's growth that are put down to chance. Four, since the rule
/// looks many times in a run.
const CHANCE: f64 = 4.0;

/// A request that ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Nanos,
    /// Requests in flight at that instant.
    pub in_flight: u64,
    /// Its time to first token, from `scheduled_at`; of an answer that came whole, its end.
    pub ttft_ms: f64,
}

impl Ended {
    /// What a record says, with the requests in flight when it was written; nothing where the request was
    /// never sent.
    pub fn of(record: &RequestRecord, in_flight: u64) -> Option<Self> {
        record.sent_at?;
        let first = record.first_token_at.unwrap_or(record.finished_at);
        let ttft_ms = first.millis_after(record.scheduled_at);
        Some(Self { at: record.finished_at, in_flight, ttft_ms })
    }
}

/// Watches one phase.
#[derive(Debug, Clone)]
pub struct Detector {
    /// When the first request ended; time counts from there.
    origin: Option<Nanos>,
    span: Nanos,
    spans: Vec<Span>,
}

/// Sums over the requests that ended in a span of time.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    requests: u64,
    in_flight: f64,
    ttft_ms: f64,
}

impl Span {
    fn merged(pair: &[Self]) -> Self {
        pair.iter().fold(Self::default(), |sum, s| Self {
            requests: sum.requests + s.requests,
            in_flight: sum.in_flight + s.in_flight,
            ttft_ms: sum.ttft_ms + s.ttft_ms,
        })
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self { origin: None, span: FIRST_SPAN, spans: Vec::new() }
    }
}

impl Detector {
    /// Takes in a request that ended, and says whether the load is beyond capacity by now. Requests may
    /// come a little out of order.
    pub fn step(&mut self, ended: Ended) -> bool {
        let begins_span = self.add(ended);
        // A span is judged when it is whole.
        begins_span && self.is_saturated()
    }

    fn add(&mut self, ended: Ended) -> bool {
        let at = ended.at.since(*self.origin.get_or_insert(ended.at));
        let index = |span: Nanos| usize::try_from(at.0 / span.0).unwrap_or(usize::MAX);
        while index(self.span) >= SPANS {
            self.spans = self.spans.chunks(2).map(Span::merged).collect();
            self.span = Nanos(self.span.0.saturating_mul(2));
        }
        let (index, before) = (index(self.span), self.spans.len());
        if index >= before {
            self.spans.resize(index + 1, Span::default());
        }
        let span = &mut self.spans[index];
        span.requests += 1;
        span.in_flight += ended.in_flight as f64;
        span.ttft_ms += ended.ttft_ms;
        self.spans.len() > before
    }

    /// Judges the later half, without the span that has just begun.
    fn is_saturated(&self) -> bool {
        let whole = self.spans.len().saturating_sub(1);
        let half = whole / 2;
        let later = || {
            let spans = self.spans[half..whole].iter().enumerate();
            spans.filter(|(_, s)| s.requests > 0).map(|(i, s)| (i as f64, s))
        };
        let requests: u64 = later().map(|(_, s)| s.requests).sum();
        if requests < FEWEST_REQUESTS || later().count() < FEWEST_SPANS {
            return false;
        }
        let series = |of: fn(&Span) -> f64| -> Vec<(f64, f64)> {
            later().map(|(i, s)| (i, of(s) / s.requests as f64)).collect()
        };
        let in_flight = slope(&series(|s| s.in_flight));
        let ttft = slope(&series(|s| s.ttft_ms));
        let (Some(in_flight), Some(ttft)) = (in_flight, ttft) else { return false };
        let growth = in_flight.slope * (whole - half) as f64;
        let arrived = requests as f64 + growth.max(0.0);
        let chance = CHANCE * (arrived + requests as f64).sqrt();
        in_flight.is_rising() && ttft.is_rising() && growth > chance
    }
}

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy)]
struct Line {
    slope: f64,
    standard_error: f64,
    df: f64,
}

impl Line {
    /// The slope is above zero by more than its margin.
    fn is_rising(self) -> bool {
        self.slope > t_975(self.df) * self.standard_error
    }
}

fn slope(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let sxx: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let sxy: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    if points.len() < 3 || sxx <= 0.0 {
        return None;
    }
    let slope = sxy / sxx;
    let left: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
    let df = n - 2.0;
    Some(Line { slope, standard_error: (left / df / sxx).sqrt(), df })
}

#[cfg(test)]
mod tests;
