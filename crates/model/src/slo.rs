//! Service-level objectives: what a load must meet, which requests are good, and how surely a level
//! meets it.
//!
//! A bound says that a percentile of a latency stays within a limit: `ttft.p99 <= 450ms`. A request is
//! good where it was completed within the loosest limit of each latency that the objective names.
//! Latencies count from `scheduled_at`, so time in a queue counts whoever keeps the queue.
//!
//! **Invariants:** a request that was due and not completed is within no limit; one that the client
//! gave up as planned is nobody's failure and does not count; a latency that a request cannot have (TPOT
//! of a single token) neither helps nor harms.

use crate::metrics::catalogue::tpot_ms;
use crate::request::{Outcome, RequestRecord};
use crate::spec::diagnostic::nearest;
use crate::stats::{binomial, order};
use crate::units::{Nanos, parse_duration};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::AddAssign;

mod presets;

pub use presets::{PRESETS, Preset};

/// How surely a verdict must be known before it is called sure: one-sided.
pub const CONFIDENCE: f64 = 0.95;

/// The percentile of a bound that names none.
const USUAL_PERCENTILE: f64 = 99.0;

/// A latency that can be bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Latency {
    /// Time to first token, from `scheduled_at`.
    Ttft,
    /// Time per output token of a request.
    Tpot,
    /// End of stream minus `scheduled_at`.
    E2e,
}

impl Latency {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ttft, Self::Tpot, Self::E2e];

    /// The name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::E2e => "e2e",
        }
    }

    /// Milliseconds that the request took. Infinite where it was not completed or does not say; `None`
    /// where there is no such latency: an answer of one token has no time between tokens.
    fn taken_ms(self, r: &RequestRecord) -> Option<f64> {
        if r.outcome != Outcome::Completed {
            return Some(f64::INFINITY);
        }
        let taken = match self {
            Self::Ttft => r.first_token_at.map(|at| at.millis_after(r.scheduled_at)),
            Self::Tpot if r.output_tokens.is_some_and(|n| n < 2 * r.prompts) => return None,
            Self::Tpot => tpot_ms(r),
            Self::E2e => Some(r.finished_at.millis_after(r.scheduled_at)),
        };
        Some(taken.unwrap_or(f64::INFINITY))
    }
}

/// A percentile of a latency that must stay within a limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Bound {
    /// Which latency.
    pub of: Latency,
    /// So many percent of the requests must be within the limit; 100 = all.
    pub percentile: f64,
    /// The limit.
    pub limit: Nanos,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistic = match self.percentile {
            p if p >= 100.0 => "max".to_owned(),
            p => format!("p{}", p.to_string().replace('.', "")),
        };
        write!(f, "{}.{statistic} <= {}", self.of.name(), self.limit)
    }
}

/// How many requests are within a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those within it.
    pub within: u64,
    /// Those that count.
    pub of: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.within += other.within;
        self.of += other.of;
    }
}

/// Whether something holds, and how surely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What was seen.
    pub holds: bool,
    /// The same is known of the load, not only of this sample, with [`CONFIDENCE`]; requests are taken
    /// to be independent of each other.
    pub is_sure: bool,
}

impl Bound {
    /// The share of requests that must be within the limit.
    pub fn share(&self) -> f64 {
        self.percentile / 100.0
    }

    /// Counts the requests within the limit.
    pub fn tally<'a>(&self, records: impl IntoIterator<Item = &'a RequestRecord>) -> Tally {
        let limit = self.limit.as_millis_f64();
        let mut tally = Tally::default();
        for taken in records.into_iter().filter(|r| is_due(r)).filter_map(|r| self.of.taken_ms(r)) {
            tally += Tally { within: u64::from(taken <= limit), of: 1 };
        }
        tally
    }

    /// The percentile that was seen, by nearest rank: so many percent took at most this long. Absent
    /// where that would need a request that was not completed.
    pub fn seen_ms<'a>(&self, records: impl IntoIterator<Item = &'a RequestRecord>) -> Option<f64> {
        let due = records.into_iter().filter(|r| is_due(r));
        let mut taken: Vec<f64> = due.filter_map(|r| self.of.taken_ms(r)).collect();
        taken.sort_by(f64::total_cmp);
        let rank = (0..taken.len()).find(|i| self.is_reached(*i as u64 + 1, taken.len() as u64))?;
        taken.get(rank).copied().filter(|t| t.is_finite())
    }

    /// `within / of >= share`, but for the rounding of a share like 0.999.
    fn is_reached(&self, within: u64, of: u64) -> bool {
        within as f64 >= self.share() * of as f64 - 1e-9 * of as f64
    }

    /// Whether the bound holds. The percentile lies within the limit exactly where the share of requests
    /// within it is large enough, so its order-statistics interval is the binomial interval of that
    /// share (Conover, *Practical Nonparametric Statistics*, section 3.2).
    pub fn judge(&self, tally: Tally) -> Judgement {
        let holds = tally.of > 0 && self.is_reached(tally.within, tally.of);
        let (beyond, all) = (tally.of.saturating_sub(tally.within), 1.0 - self.share());
        let chance = if holds {
            binomial::at_most(beyond, tally.of, all)
        } else {
            binomial::at_least(beyond, tally.of, all)
        };
        Judgement { holds, is_sure: tally.of > 0 && chance <= 1.0 - CONFIDENCE }
    }

    /// The fewest requests, all within the limit, that show surely that the bound holds; absent where no
    /// number does.
    pub fn fewest_to_be_sure(&self) -> Option<u64> {
        order::fewest(self.share())
    }
}

/// Whether the request was to be answered.
fn is_due(r: &RequestRecord) -> bool {
    r.outcome != Outcome::Abandoned
}

/// A service-level objective: bounds that must all hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Slo {
    /// The preset that it is, where it is one and nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// At least one.
    pub bounds: Vec<Bound>,
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.preset {
            write!(f, "{name}: ")?;
        }
        let bounds: Vec<String> = self.bounds.iter().map(Bound::to_string).collect();
        f.write_str(&bounds.join(", "))
    }
}

impl Slo {
    /// Whether the request was completed within the loosest limit of each latency that is bounded.
    pub fn is_good(&self, r: &RequestRecord) -> bool {
        let loosest = |of| self.bounds.iter().filter(|b| b.of == of).map(|b| b.limit).max();
        r.outcome == Outcome::Completed
            && Latency::ALL.into_iter().all(|of| match (loosest(of), of.taken_ms(r)) {
                (Some(limit), Some(taken)) => taken <= limit.as_millis_f64(),
                (None, _) | (_, None) => true,
            })
    }

    /// Good requests of those that were due.
    pub fn good<'a>(&self, records: impl IntoIterator<Item = &'a RequestRecord>) -> Tally {
        let mut tally = Tally::default();
        for record in records.into_iter().filter(|r| is_due(r)) {
            tally += Tally { within: u64::from(self.is_good(record)), of: 1 };
        }
        tally
    }

    /// One count for each bound.
    pub fn tallies(&self, records: &[RequestRecord]) -> Vec<Tally> {
        self.bounds.iter().map(|b| b.tally(records)).collect()
    }

    /// Whether all bounds hold. It is sure that they do where each is sure, and that they do not where
    /// one surely does not.
    pub fn judge(&self, tallies: &[Tally]) -> Judgement {
        let judged = self.bounds.iter().zip(tallies).map(|(b, t)| b.judge(*t));
        let judged: Vec<Judgement> = judged.collect();
        let holds = !judged.is_empty() && judged.iter().all(|j| j.holds);
        let is_sure = if holds {
            judged.iter().all(|j| j.is_sure)
        } else {
            judged.iter().any(|j| !j.holds && j.is_sure)
        };
        Judgement { holds, is_sure }
    }

    /// Reads presets and bounds.
    ///
    /// # Errors
    /// The first text that is neither, with its place in the list.
    pub fn parse(texts: &[String]) -> Result<Self, SloError> {
        let mut bounds = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let text = text.trim();
            let read = if text.contains(['<', '>', '=']) {
                bound(text).map(|b| vec![b])
            } else {
                preset(text)
            };
            bounds.extend(read.map_err(|(message, hint)| SloError { index, message, hint })?);
        }
        let preset = match texts {
            [only] => PRESETS.iter().find(|p| p.name == only.trim()).map(|p| p.name.to_owned()),
            _ => None,
        };
        Ok(Self { preset, bounds })
    }
}

/// Why a text is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SloError {
    /// Position in the list.
    pub index: usize,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: String,
}

type Wrong = (String, String);

fn preset(name: &str) -> Result<Vec<Bound>, Wrong> {
    if let Some(preset) = PRESETS.iter().find(|p| p.name == name) {
        return Ok(preset.bounds());
    }
    let names = PRESETS.iter().map(|p| p.name);
    let hint = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!(
            "write a bound, as \"ttft.p99 <= 450ms\", or one of {}",
            names.collect::<Vec<_>>().join(", ")
        ),
    };
    Err((format!("'{name}' is no bound and no preset of an SLO"), hint))
}

/// Reads `ttft.p99 <= 450ms`.
fn bound(text: &str) -> Result<Bound, Wrong> {
    let example = || "write for example \"ttft.p99 <= 450ms\"".to_owned();
    let Some((name, limit)) = text.split_once("<=").or_else(|| text.split_once('<')) else {
        let message = format!("'{text}' bounds no latency from above");
        return Err((message, example()));
    };
    let (name, limit) = (name.trim(), limit.trim());
    let (of, statistic) = name.split_once('.').map_or((name, None), |(of, s)| (of, Some(s)));
    let base = of.strip_suffix("_ms").unwrap_or(of);
    let Some(of) = Latency::ALL.into_iter().find(|l| l.name() == base) else {
        let hint = match base {
            "itl" => {
                "use tpot, the mean gap of a request: a gap belongs to no request alone".to_owned()
            }
            _ => "ttft, tpot and e2e can be bounded; for other metrics write an [[expect]]"
                .to_owned(),
        };
        return Err((format!("'{of}' cannot be bounded by an SLO"), hint));
    };
    let percentile = match statistic {
        None => USUAL_PERCENTILE,
        Some(text) => percentile(text).ok_or_else(|| {
            let message = format!("'{text}' is no percentile");
            (message, "write p50, p95, p99, p999 (99.9 %), or max for every request".to_owned())
        })?,
    };
    let limit = parse_duration(limit).map_err(|e| (e.to_string(), example()))?;
    if limit == Nanos::ZERO {
        return Err(("a limit must be above zero".to_owned(), example()));
    }
    Ok(Bound { of, percentile, limit })
}

/// Reads `p99`; further digits are decimals: `p999` is 99.9.
fn percentile(text: &str) -> Option<f64> {
    match text {
        "max" => return Some(100.0),
        "median" => return Some(50.0),
        _ => {}
    }
    let digits = text.strip_prefix('p')?;
    let is_plain = !digits.is_empty() && digits.len() <= 5 && !digits.starts_with('0');
    if !is_plain || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // p100 would be 10.0 by the rule of decimals, which nobody means.
    let (whole, decimals) = digits.split_at(digits.len().min(2));
    if digits.len() > 2 && !digits.starts_with('9') {
        return None;
    }
    format!("{whole}.{decimals}0").parse().ok()
}

#[cfg(test)]
mod tests;
