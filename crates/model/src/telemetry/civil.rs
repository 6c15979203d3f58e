//! Times of day as logs write them, without a zone: taken as UTC.

use crate::units::Nanos;

const DAY_S: u64 = 86_400;

/// Nanoseconds since the Unix epoch of `2026-01-02T03:04:05.25`, `2026/01/02 03:04:05.250`, `2026-01-02T03:04:05Z`, or
/// `1767323045.25`. Offsets other than UTC are none that is known.
pub fn parse(text: &str) -> Option<Nanos> {
    let text = text.trim();
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    match text.split_once(['T', ' ']) {
        Some((date, time)) => instant(days(date)?, time),
        None => seconds(text),
    }
}

/// `1767323045.25`
fn seconds(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(nanos(fraction)?).map(Nanos)
}

/// Days since the epoch of `2026-01-02` or `2026/01/02`.
fn days(date: &str) -> Option<u64> {
    let parts: Vec<&str> = date.split(['-', '/']).collect();
    let [year, month, day] = parts.as_slice() else { return None };
    let (year, month, day): (u64, u64, u64) =
        (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    if !(1_970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years are counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    let of_months = (153 * month + 2) / 5;
    (of_years + of_months + day - 1).checked_sub(719_468)
}

fn instant(days: u64, time: &str) -> Option<Nanos> {
    let (time, fraction) = time.trim().split_once('.').unwrap_or((time.trim(), ""));
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return None };
    let (hour, minute, second): (u64, u64, u64) =
        (hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?);
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let whole = days * DAY_S + hour * 3_600 + minute * 60 + second;
    is_time.then(|| whole.checked_mul(1_000_000_000)?.checked_add(nanos(fraction)?))?.map(Nanos)
}

/// Nanoseconds of the digits behind a point.
fn nanos(fraction: &str) -> Option<u64> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    nine.parse().ok()
}

/// The parts of an instant: year, month, day, hour, minute, second.
fn parts(unix: Nanos) -> [u64; 6] {
    let seconds = unix.0 / 1_000_000_000;
    let (days, rest) = (seconds / DAY_S + 719_468, seconds % DAY_S);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    [era * 400 + year_of_era + carry, month, day, rest / 3_600, rest / 60 % 60, rest % 60]
}

/// `2026-01-02T03:04:05.250000`, as Python's `isoformat` writes it.
pub fn iso(unix: Nanos) -> String {
    let [year, month, day, hour, minute, second] = parts(unix);
    let micros = unix.0 % 1_000_000_000 / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// `20260102_030405`, as in names of seed 4's logs.
pub fn stamp(unix: Nanos) -> String {
    let [year, month, day, hour, minute, second] = parts(unix);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_all_logs_are_read() {
        let want = Nanos(1_767_323_045_250_000_000);
        for text in [
            "2026-01-02T03:04:05.250000",
            "2026/01/02 03:04:05.250",
            " 2026-01-02T03:04:05.25Z ",
            "2026-01-02 03:04:05.25+00:00",
            "1767323045.25",
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00"), Some(Nanos::ZERO));
        assert_eq!(parse("2024-02-29T00:00:00"), Some(Nanos::from_secs(1_709_164_800)));
        for text in ["", "now", "19:47:29.596", "2026-13-01T00:00:00", "2026-01-02T03:04:05+02:00"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..9_000_000_000, micros in 0u64..1_000_000) {
            let unix = Nanos(seconds * 1_000_000_000 + micros * 1_000);
            prop_assert_eq!(parse(&iso(unix)), Some(unix));
            prop_assert_eq!(stamp(unix).len(), 15);
        }
    }
}
