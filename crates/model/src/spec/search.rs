//! The keys of a load's `search`.

use super::values::{Dur, Rate};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// Step from level to level where none is given.
const USUAL_PRECISION: f64 = 0.05;
/// Trials of a level where no number is given.
const USUAL_TRIES: u32 = 3;
/// Trials in all where no number is given: doubling and halving over a thousandfold range take about
/// twenty levels.
const USUAL_PROBES: u32 = 30;

/// The search for the highest load that meets the objective.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchSpec {
    /// Lowest level, where it begins: a rate in open mode, `"1/s"`, or requests in flight in closed, `1`.
    pub from: SearchEnd,
    /// Highest level that may be sent.
    pub to: SearchEnd,
    /// Step from level to level; default 0.05, which is 5 %.
    #[serde(default)]
    pub precision: Option<f64>,
    /// A level whose verdict chance may explain is measured up to so many times; default 3.
    #[serde(default)]
    pub tries: Option<u32>,
    /// Trials in all; default 30.
    #[serde(default)]
    pub probes: Option<u32>,
    /// No trial begins after so much time was measured; default: no limit.
    #[serde(default)]
    pub time: Option<Dur>,
}

impl SearchSpec {
    /// Step from level to level.
    pub fn precision(&self) -> f64 {
        self.precision.unwrap_or(USUAL_PRECISION)
    }

    /// Trials of a level at most.
    pub fn tries(&self) -> u32 {
        self.tries.unwrap_or(USUAL_TRIES)
    }

    /// Trials in all at most.
    pub fn probes(&self) -> u32 {
        self.probes.unwrap_or(USUAL_PROBES)
    }
}

/// An end of the range that is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SearchEnd {
    /// Arrivals per second: `"5/s"`.
    Rate(f64),
    /// Requests in flight: `8`.
    Concurrency(u32),
}

impl SearchEnd {
    /// Its number, whatever it counts.
    pub fn value(self) -> f64 {
        match self {
            Self::Rate(rps) => rps,
            Self::Concurrency(n) => f64::from(n),
        }
    }
}

impl<'de> Deserialize<'de> for SearchEnd {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct End;
        impl Visitor<'_> for End {
            type Value = SearchEnd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate, as \"5/s\", or a number of requests in flight, as 8")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SearchEnd, E> {
                crate::units::parse_rate(text).map(SearchEnd::Rate).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<SearchEnd, E> {
                let count = u32::try_from(n).ok().filter(|n| (1..=1_000_000).contains(n));
                let wrong = || E::custom(format!("{n} is not between 1 and 1000000"));
                count.map(SearchEnd::Concurrency).ok_or_else(wrong)
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<SearchEnd, E> {
                self.visit_i64(i64::try_from(n).unwrap_or(i64::MAX))
            }
        }
        d.deserialize_any(End)
    }
}

impl Serialize for SearchEnd {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rate(rps) => Rate(*rps).serialize(s),
            Self::Concurrency(n) => s.serialize_u32(*n),
        }
    }
}

impl JsonSchema for SearchEnd {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SearchEnd".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let rate = generator.subschema_for::<Rate>();
        schemars::json_schema!({
            "description": "An end of what is searched: \"5/s\", or requests in flight, 8.",
            "anyOf": [rate, { "type": "integer", "minimum": 1 }]
        })
    }
}
