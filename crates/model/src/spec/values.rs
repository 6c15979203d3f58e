//! Values of the file that are more than a number or a text. Each has one reader with one error text,
//! in place of serde's untagged enums, whose errors say nothing.

use crate::units::{Nanos, parse_duration, parse_rate, parse_rate_or_zero};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// A span with its unit: `"30s"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dur(pub Nanos);

/// A rate with its unit: `"5/s"`, in events per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// A rate that may also be zero: `"0/s"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateOrZero(pub f64);

/// Levels of a load: `8`, `[1, 2, 4]`, or `"pow2:0..7"` (1, 2, 4, .. 128).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(pub Vec<u32>);

/// Rates of a load: `"5/s"` or `["1/s", "2/s"]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(pub Vec<f64>);

/// A text or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

/// A number or several.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers(pub Vec<f64>);

/// A number of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// That many.
    Fixed(u64),
    /// So many times the concurrency, and at least a number.
    Times {
        /// The factor.
        factor: u64,
        /// The least.
        at_least: u64,
    },
}

impl Count {
    /// The number for `concurrency`.
    pub fn of(self, concurrency: Option<u32>) -> Option<u64> {
        match self {
            Self::Fixed(n) => Some(n),
            Self::Times { factor, at_least } => {
                concurrency.map(|c| (factor * u64::from(c)).max(at_least))
            }
        }
    }
}

/// Reads one form of a value.
type Reader<From, T> = fn(From) -> Result<T, String>;

struct TextOr<T> {
    expecting: &'static str,
    text: fn(&str) -> Result<T, String>,
    number: Option<Reader<u64, T>>,
    list: Option<Reader<Vec<toml::Value>, T>>,
}

impl<'de, T> Visitor<'de> for TextOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<T, E> {
        match (self.number, u64::try_from(n)) {
            (Some(number), Ok(n)) => number(n).map_err(E::custom),
            (None, _) if n >= 0 => {
                Err(E::custom(format!("the number {n} has no unit; expected {}", self.expecting)))
            }
            _ => Err(E::custom(format!("{n} is negative; expected {}", self.expecting))),
        }
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<T, E> {
        match self.number {
            Some(number) => number(n).map_err(E::custom),
            None => {
                Err(E::custom(format!("the number {n} has no unit; expected {}", self.expecting)))
            }
        }
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<T, E> {
        Err(E::custom(format!("the number {n} is not {}", self.expecting)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let Some(list) = self.list else {
            return Err(de::Error::custom(format!("a list is not {}", self.expecting)));
        };
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<toml::Value>()? {
            values.push(value);
        }
        list(values).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a span with its unit, as \"30s\"",
            text: |t| parse_duration(t).map(Dur).map_err(|e| e.to_string()),
            number: None,
            list: None,
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a rate with its unit, as \"5/s\"",
            text: |t| parse_rate(t).map(Rate).map_err(|e| e.to_string()),
            number: None,
            list: None,
        })
    }
}

impl<'de> Deserialize<'de> for RateOrZero {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a rate with its unit, as \"5/s\" or \"0/s\"",
            text: |t| parse_rate_or_zero(t).map(RateOrZero).map_err(|e| e.to_string()),
            number: None,
            list: None,
        })
    }
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a rate with its unit, as \"5/s\", or a list of them",
            text: |t| parse_rate(t).map(|r| Rates(vec![r])).map_err(|e| e.to_string()),
            number: None,
            list: Some(|values| {
                let rates: Result<Vec<f64>, String> = values
                    .iter()
                    .map(|v| {
                        let text = v.as_str().ok_or_else(|| {
                            format!("{v} has no unit; write for example \"{v}/s\"")
                        })?;
                        parse_rate(text).map_err(|e| e.to_string())
                    })
                    .collect();
                non_empty(rates?).map(Rates)
            }),
        })
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a whole number above zero, a list of them, or \"pow2:0..7\"",
            text: |t| parse_pow2(t).map(Levels),
            number: Some(|n| level(n).map(|n| Levels(vec![n]))),
            list: Some(|values| {
                let levels: Result<Vec<u32>, String> = values
                    .iter()
                    .map(|v| {
                        let n = v.as_integer().and_then(|n| u64::try_from(n).ok());
                        level(n.ok_or_else(|| format!("{v} is not a whole number above zero"))?)
                    })
                    .collect();
                non_empty(levels?).map(Levels)
            }),
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a whole number, \"10x\" or \"10x>=100\"",
            text: parse_count,
            number: Some(|n| Ok(Count::Fixed(n))),
            list: None,
        })
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr {
            expecting: "a text or a list of texts",
            text: |t| Ok(OneOrMany(vec![t.to_owned()])),
            number: None,
            list: Some(|values| {
                let texts: Result<Vec<String>, String> = values
                    .iter()
                    .map(|v| v.as_str().map(str::to_owned).ok_or(format!("{v} is not a text")))
                    .collect();
                non_empty(texts?).map(OneOrMany)
            }),
        })
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = |v: &toml::Value| {
            #[expect(clippy::cast_precision_loss, reason = "a target, not a count")]
            let whole = v.as_integer().map(|n| n as f64);
            v.as_float().or(whole).ok_or_else(|| format!("{v} is not a number"))
        };
        let read = |value: toml::Value| match &value {
            toml::Value::Array(list) => {
                non_empty(list.iter().map(number).collect::<Result<_, _>>()?).map(Numbers)
            }
            one => number(one).map(|n| Numbers(vec![n])),
        };
        read(toml::Value::deserialize(d)?).map_err(de::Error::custom)
    }
}

fn non_empty<T>(list: Vec<T>) -> Result<Vec<T>, String> {
    if list.is_empty() { Err("the list is empty".to_owned()) } else { Ok(list) }
}

fn level(n: u64) -> Result<u32, String> {
    u32::try_from(n)
        .ok()
        .filter(|n| (1..=1_000_000).contains(n))
        .ok_or_else(|| format!("{n} is not between 1 and 1000000"))
}

/// Reads `pow2:A..B`, both ends included.
fn parse_pow2(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("'{text}' is not of the form \"pow2:0..7\"");
    let (a, b) = text.strip_prefix("pow2:").and_then(|r| r.split_once("..")).ok_or_else(wrong)?;
    let (a, b): (u32, u32) =
        (a.trim().parse().map_err(|_| wrong())?, b.trim().parse().map_err(|_| wrong())?);
    if a > b || b > 19 {
        return Err(format!("'{text}' must run upwards and end at 19 or below"));
    }
    Ok((a..=b).map(|e| 1 << e).collect())
}

/// Reads `10x` or `10x>=100`.
fn parse_count(text: &str) -> Result<Count, String> {
    let wrong = || format!("'{text}' is not of the form \"10x\" or \"10x>=100\"");
    let (factor, rest) = text.split_once('x').ok_or_else(wrong)?;
    let factor = factor.trim().parse().map_err(|_| wrong())?;
    let at_least = match rest.trim() {
        "" => 1,
        rest => rest.strip_prefix(">=").and_then(|n| n.trim().parse().ok()).ok_or_else(wrong)?,
    };
    Ok(Count::Times { factor, at_least })
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{}ns", self.0.0))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{}/s", self.0))
    }
}

impl Serialize for RateOrZero {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Rate(self.0).serialize(s)
    }
}

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(|r| format!("{r}/s")))
    }
}

impl Serialize for Levels {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(n) => s.serialize_u64(*n),
            Self::Times { factor, at_least } => s.serialize_str(&format!("{factor}x>={at_least}")),
        }
    }
}

macro_rules! schema {
    ($type:ty, $name:literal, $json:tt) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($json)
            }
        }
    };
}

schema!(Dur, "Duration", {
    "description": "A span with its unit: 250us, 30s, 1.5m, 2h.",
    "type": "string", "pattern": "^[0-9][0-9._]* *(ns|us|ms|s|sec|m|min|h|d)$"
});
schema!(Rate, "Rate", {
    "description": "A rate with its unit: 5/s, 300/m.",
    "type": "string", "pattern": "^[0-9][0-9._]* *(/s|/m|/min|/h|rps|req/s)$"
});
schema!(RateOrZero, "RateOrZero", {
    "description": "A rate with its unit, perhaps zero: 5/s, 0/s.",
    "type": "string", "pattern": "^[0-9][0-9._]* *(/s|/m|/min|/h|rps|req/s)$"
});
schema!(Rates, "Rates", {
    "description": "A rate with its unit, or a list of them.",
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]
});
schema!(Levels, "Levels", {
    "description": "A number, a list, or powers of two: 8, [1, 2, 4], \"pow2:0..7\".",
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
        {"type": "string", "pattern": "^pow2:[0-9]+\\.\\.[0-9]+$"}
    ]
});
schema!(Count, "Count", {
    "description": "A number of requests, or a multiple of the concurrency: 100, \"10x\", \"10x>=100\".",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9]+x(>=[0-9]+)?$"}
    ]
});
schema!(Numbers, "Numbers", {
    "description": "A number or a list of numbers.",
    "anyOf": [{"type": "number"}, {"type": "array", "minItems": 1, "items": {"type": "number"}}]
});
schema!(OneOrMany, "OneOrMany", {
    "description": "A text or a list of texts.",
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder<T> {
        v: T,
    }

    fn read<T: serde::de::DeserializeOwned>(value: &str) -> Result<T, String> {
        toml::from_str::<Holder<T>>(&format!("v = {value}"))
            .map(|h| h.v)
            .map_err(|e| e.message().to_owned())
    }

    #[test]
    fn levels_are_a_number_a_list_or_powers_of_two() {
        assert_eq!(read::<Levels>("8").unwrap().0, [8]);
        assert_eq!(read::<Levels>("[1, 4]").unwrap().0, [1, 4]);
        assert_eq!(read::<Levels>("\"pow2:0..7\"").unwrap().0, [1, 2, 4, 8, 16, 32, 64, 128]);
        for (bad, want) in [
            ("0", "0 is not between 1 and 1000000"),
            ("[]", "the list is empty"),
            ("[1, \"x\"]", "\"x\" is not a whole number above zero"),
            ("\"pow2:7..0\"", "'pow2:7..0' must run upwards and end at 19 or below"),
            ("\"many\"", "'many' is not of the form \"pow2:0..7\""),
            (
                "1.5",
                "the number 1.5 is not a whole number above zero, a list of them, or \"pow2:0..7\"",
            ),
            (
                "-2",
                "-2 is negative; expected a whole number above zero, a list of them, or \"pow2:0..7\"",
            ),
        ] {
            assert_eq!(read::<Levels>(bad).unwrap_err(), want);
        }
    }

    #[test]
    fn counts_may_be_a_multiple_of_the_concurrency() {
        assert_eq!(read::<Count>("100").unwrap().of(None), Some(100));
        assert_eq!(read::<Count>("\"10x\"").unwrap().of(Some(4)), Some(40));
        assert_eq!(read::<Count>("\"10x>=100\"").unwrap().of(Some(4)), Some(100));
        assert_eq!(read::<Count>("\"10x\"").unwrap().of(None), None);
        assert!(read::<Count>("\"lots\"").unwrap_err().contains("10x>=100"));
    }

    #[test]
    fn rates_and_spans_need_their_unit() {
        assert_eq!(read::<Rates>("[\"1/s\", \"120/m\"]").unwrap().0, [1.0, 2.0]);
        assert!(read::<Rates>("5").unwrap_err().contains("no unit"));
        assert!(read::<Rates>("[5]").unwrap_err().contains("\"5/s\""));
        assert_eq!(
            read::<Dur>("30").unwrap_err(),
            "the number 30 has no unit; expected a span with its unit, as \"30s\""
        );
    }
}
