//! How a load's requests follow each other: the keys of `[[load]]` that are tables of their own.

use super::values::{Dur, Rate, RateOrZero};
use crate::arrival::{RateProfile, RateStep};
use crate::driver::Window;
use crate::units::Nanos;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The arrival process of an open loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArrivalSpec {
    /// Independent arrivals: exponential gaps.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution; see `burstiness`.
    Gamma,
    /// When the requests of the workload's trace arrived; see `speed` and `window`.
    Trace,
}

impl ArrivalSpec {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
            Self::Gamma => "gamma",
            Self::Trace => "trace",
        }
    }
}

/// A rate that changes over time.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateProfileSpec {
    /// Which form it has.
    pub kind: RateProfileKind,
    /// Ramp: rate at the start.
    #[serde(default)]
    pub from: Option<RateOrZero>,
    /// Ramp: rate at the end, which then holds.
    #[serde(default)]
    pub to: Option<RateOrZero>,
    /// Ramp: how long it takes.
    #[serde(default)]
    pub over: Option<Dur>,
    /// Steps: one constant rate after the other.
    #[serde(default)]
    pub steps: Vec<RateStepSpec>,
    /// Sine: mean rate.
    #[serde(default)]
    pub mean: Option<Rate>,
    /// Sine: by how much it rises and falls; at most the mean.
    #[serde(default)]
    pub amplitude: Option<RateOrZero>,
    /// Sine: from crest to crest.
    #[serde(default)]
    pub period: Option<Dur>,
}

/// Forms of a rate over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateProfileKind {
    /// In a straight line from one rate to another.
    Ramp,
    /// One constant rate after the other.
    Steps,
    /// A wave.
    Sine,
}

impl RateProfileKind {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Steps => "steps",
            Self::Sine => "sine",
        }
    }
}

/// A stretch of constant rate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateStepSpec {
    /// Arrivals per time; `"0/s"` is a pause.
    pub rate: RateOrZero,
    /// How long; only the last may do without and then holds to the end of the load.
    #[serde(default, rename = "for")]
    pub lasts: Option<Dur>,
}

impl RateProfileSpec {
    /// The profile, of a table that passed the check.
    pub(crate) fn resolved(&self) -> RateProfile {
        let rate = |r: Option<RateOrZero>| r.map_or(0.0, |r| r.0);
        let span = |d: Option<Dur>| d.map_or(Nanos::ZERO, |d| d.0);
        match self.kind {
            RateProfileKind::Ramp => RateProfile::Ramp {
                from_rps: rate(self.from),
                to_rps: rate(self.to),
                over: span(self.over),
            },
            RateProfileKind::Steps => {
                let step =
                    |s: &RateStepSpec| RateStep { rate_rps: s.rate.0, lasts: s.lasts.map(|d| d.0) };
                RateProfile::Steps { steps: self.steps.iter().map(step).collect() }
            }
            RateProfileKind::Sine => RateProfile::Sine {
                mean_rps: self.mean.map_or(0.0, |r| r.0),
                amplitude_rps: rate(self.amplitude),
                period: span(self.period),
            },
        }
    }
}

/// A part of a trace, in the trace's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// From here on; default: from the start.
    #[serde(default)]
    pub from: Option<Dur>,
    /// Up to here; default: to the end.
    #[serde(default)]
    pub to: Option<Dur>,
}

impl From<WindowSpec> for Window {
    fn from(spec: WindowSpec) -> Self {
        Self { from: spec.from.map_or(Nanos::ZERO, |d| d.0), to: spec.to.map(|d| d.0) }
    }
}

/// Requests that the client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelSpec {
    /// Their share of all requests: above 0, at most 1.
    pub share: f64,
    /// How long after it was sent; a request that ends earlier is not given up.
    pub after: Dur,
}

/// How long a slot of a closed loop waits after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkSpec {
    /// The same each time: `"2s"`.
    Fixed(Dur),
    /// Exponentially distributed: `{ mean = "2s" }`.
    Exponential(Dur),
}

impl ThinkSpec {
    /// Its mean.
    pub const fn mean(self) -> Nanos {
        match self {
            Self::Fixed(span) | Self::Exponential(span) => span.0,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mean {
    mean: Dur,
}

impl<'de> Deserialize<'de> for ThinkSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TextOrMean;
        impl<'de> Visitor<'de> for TextOrMean {
            type Value = ThinkSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span with its unit, as \"2s\", or { mean = \"2s\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ThinkSpec, E> {
                let span = crate::units::parse_duration(text).map_err(E::custom)?;
                Ok(ThinkSpec::Fixed(Dur(span)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ThinkSpec, A::Error> {
                let Mean { mean } = Mean::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(ThinkSpec::Exponential(mean))
            }
        }
        d.deserialize_any(TextOrMean)
    }
}

impl Serialize for ThinkSpec {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(span) => span.serialize(s),
            Self::Exponential(mean) => Mean { mean: *mean }.serialize(s),
        }
    }
}

impl JsonSchema for ThinkSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Think".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let span = generator.subschema_for::<Dur>();
        schemars::json_schema!({
            "description": "Wait after an answer: \"2s\", or { mean = \"2s\" } for exponential ones.",
            "anyOf": [
                span,
                {
                    "type": "object", "properties": { "mean": span },
                    "required": ["mean"], "additionalProperties": false
                }
            ]
        })
    }
}
