//! Units: one integer unit inside (nanoseconds, bytes), text with a unit at the edge.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// An instant or a span in nanoseconds. Which of the two is said by the field's name
/// (`_at` is an instant of the run's monotonic clock).
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Later than any instant of a run (584 years).
    pub const MAX: Self = Self(u64::MAX);

    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// `us` microseconds.
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// `s` whole seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000_000_000)
    }

    /// `s` seconds, rounded to the nearest nanosecond; negative and non-finite values become zero.
    pub fn from_secs_f64(s: f64) -> Self {
        if !s.is_finite() || s <= 0.0 {
            return Self::ZERO;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive by the test above; `as` saturates at u64::MAX, which is what a caller wants"
        )]
        Self((s * 1e9).round() as u64)
    }

    /// As seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// As milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// As the standard library's span.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0)
    }

    /// The span from `earlier` to `self`, zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// The signed span from `other` to `self` in milliseconds.
    pub fn millis_after(self, other: Self) -> f64 {
        if self >= other {
            (self.0 - other.0) as f64 / 1e6
        } else {
            -((other.0 - self.0) as f64 / 1e6)
        }
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.since(other)
    }
}

impl fmt::Display for Nanos {
    /// The largest unit that keeps three significant digits: `1.25 s`, `37.1 ms`, `820 us`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0 as f64;
        let (value, unit) = match self.0 {
            0..1_000 => (ns, "ns"),
            1_000..1_000_000 => (ns / 1e3, "us"),
            1_000_000..1_000_000_000 => (ns / 1e6, "ms"),
            1_000_000_000..60_000_000_000 => (ns / 1e9, "s"),
            60_000_000_000..3_600_000_000_000 => (ns / 60e9, "min"),
            _ => (ns / 3_600e9, "h"),
        };
        write!(f, "{} {unit}", significant(value))
    }
}

/// Formats with three significant digits and no exponent.
pub fn significant(value: f64) -> String {
    /// Beyond this its digits are more than anybody reads.
    const LONGEST: f64 = 1e12;
    let size = value.abs();
    if size >= LONGEST {
        return format!("{value:.2e}");
    }
    let digits = match size {
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        f64::EPSILON..1.0 => 3,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// Why a text with a unit could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The number before the unit is missing or malformed.
    #[error("'{0}' does not begin with a number")]
    Number(String),
    /// The unit is missing.
    #[error("'{0}' has no unit; write for example {1}")]
    Missing(String, &'static str),
    /// The unit is none that is known here.
    #[error("'{0}' has the unknown unit '{1}'; known are {2}")]
    Unknown(String, String, &'static str),
    /// The value is outside what makes sense.
    #[error("'{0}' is out of range")]
    Range(String),
}

fn split(text: &str) -> Result<(f64, &str), UnitError> {
    let text = text.trim();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let number = text[..end].replace('_', "");
    let value: f64 = number.parse().map_err(|_| UnitError::Number(text.to_owned()))?;
    Ok((value, text[end..].trim()))
}

/// Reads a span: `250us`, `30s`, `1.5m`, `2h`, `1d`.
///
/// # Errors
/// When the number or the unit is missing or unknown, or the span exceeds ten years.
pub fn parse_duration(text: &str) -> Result<Nanos, UnitError> {
    const KNOWN: &str = "ns, us, ms, s, m, h, d";
    let (value, unit) = split(text)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "" => return Err(UnitError::Missing(text.to_owned(), "\"30s\" or \"5m\"")),
        other => return Err(UnitError::Unknown(text.to_owned(), other.to_owned(), KNOWN)),
    };
    let total = value * seconds;
    if total > 10.0 * 365.0 * 86_400.0 {
        return Err(UnitError::Range(text.to_owned()));
    }
    Ok(Nanos::from_secs_f64(total))
}

/// Reads a rate in events per second: `5/s`, `300/m`, `0.5/s`.
///
/// # Errors
/// When the number or the unit is missing or unknown, or the rate is not above zero.
pub fn parse_rate(text: &str) -> Result<f64, UnitError> {
    let (value, unit) = split(text)?;
    let rate = match unit.replace(' ', "").as_str() {
        "/s" | "rps" | "req/s" => value,
        "/m" | "/min" => value / 60.0,
        "/h" => value / 3_600.0,
        "" => return Err(UnitError::Missing(text.to_owned(), "\"5/s\"")),
        other => {
            return Err(UnitError::Unknown(text.to_owned(), other.to_owned(), "/s, /m, /h"));
        }
    };
    // From one a fortnight to more than a machine has ports for.
    if (1e-6..=1e7).contains(&rate) { Ok(rate) } else { Err(UnitError::Range(text.to_owned())) }
}

/// Reads a rate that may also be none at all: `0/s`.
///
/// # Errors
/// As [`parse_rate`], zero apart.
pub fn parse_rate_or_zero(text: &str) -> Result<f64, UnitError> {
    match parse_rate(text) {
        // What is out of range was read as a number with a known unit.
        Err(UnitError::Range(_)) if split(text)?.0 <= 0.0 => Ok(0.0),
        read => read,
    }
}

/// Reads a size in bytes: `16Gi`, `300G`, `64Mi`, `512B`.
///
/// # Errors
/// When the number or the unit is missing or unknown.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (value, unit) = split(text)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "k" | "K" | "kB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        "" => return Err(UnitError::Missing(text.to_owned(), "\"16Gi\"")),
        other => {
            return Err(UnitError::Unknown(
                text.to_owned(),
                other.to_owned(),
                "B, k, M, G, T, Ki, Mi, Gi, Ti",
            ));
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "non-negative by `split`; `as` saturates"
    )]
    Ok((value * unit_bytes as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, want) in [
            ("30s", Ok(Nanos::from_secs(30))),
            ("500ms", Ok(Nanos::from_millis(500))),
            ("1.5m", Ok(Nanos::from_secs(90))),
            ("2h", Ok(Nanos::from_secs(7_200))),
            ("30", Err("'30' has no unit; write for example \"30s\" or \"5m\"")),
            ("30 sx", Err("'30 sx' has the unknown unit 'sx'; known are ns, us, ms, s, m, h, d")),
            ("soon", Err("'soon' does not begin with a number")),
            ("-3s", Err("'-3s' does not begin with a number")),
            ("99999d", Err("'99999d' is out of range")),
        ] {
            assert_eq!(
                parse_duration(text).map_err(|e| e.to_string()),
                want.map_err(str::to_owned)
            );
        }
    }

    #[test]
    fn rates_and_sizes_carry_their_unit() {
        assert!((parse_rate("300/m").unwrap() - 5.0).abs() < 1e-12);
        assert!(parse_rate("0/s").is_err());
        assert!(parse_rate_or_zero("0/m").unwrap().abs() < 1e-12);
        assert!((parse_rate_or_zero("60/m").unwrap() - 1.0).abs() < 1e-12);
        assert!(parse_rate_or_zero("0").is_err() && parse_rate_or_zero("0.0000001/s").is_err());
        assert!(parse_rate("5").unwrap_err().to_string().contains("no unit"));
        assert_eq!(parse_size("16Gi").unwrap(), 16 << 30);
        assert_eq!(parse_size("300G").unwrap(), 300_000_000_000);
        assert!(parse_size("16").is_err());
    }

    #[test]
    fn spans_print_in_the_unit_a_reader_wants() {
        assert_eq!(Nanos(820_000).to_string(), "820 us");
        assert_eq!(Nanos(37_123_000).to_string(), "37.1 ms");
        assert_eq!(Nanos(1_250_000_000).to_string(), "1.25 s");
        assert_eq!(Nanos::from_secs(600).to_string(), "10.0 min");
    }
}
