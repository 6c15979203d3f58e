//! Numbers as a reader wants them: three or four significant digits, no exponent below 10^15.

/// What stands where there is no value.
pub(crate) const ABSENT: &str = "n/a";

/// Beyond this its digits are more than anybody reads.
const LONGEST: f64 = 1e15;

/// For a table: digits as the size needs them, thousands told apart by a thin comma.
pub(crate) fn plain(value: f64) -> String {
    let value = unsigned_zero(value);
    let size = value.abs();
    if size >= LONGEST {
        return format!("{value:.2e}");
    }
    if size >= 1000.0 {
        return grouped(value);
    }
    let digits = match size {
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        _ if size < f64::EPSILON => 0,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if digits == 3 && text.trim_start_matches('-') == "0.000" {
        format!("{value:.1e}")
    } else {
        text
    }
}

/// A percentage: `100`, `98.2`; never 100 where one request failed, nor 0 where one did not.
pub(crate) fn percent(value: f64) -> String {
    let value = unsigned_zero(value);
    let rounded = format!("{value:.1}");
    match rounded.as_str() {
        "100.0" if value < 100.0 => ">99.9".to_owned(),
        "100.0" => "100".to_owned(),
        "0.0" if value > 0.0 => "<0.1".to_owned(),
        "0.0" => "0".to_owned(),
        _ => rounded,
    }
}

/// In the unit of a metric.
pub(crate) fn in_unit(value: f64, unit: &str) -> String {
    match unit {
        "%" => percent(value),
        // Counts of things.
        "" if value.fract().abs() < f64::EPSILON && value.abs() < 1000.0 => {
            format!("{:.0}", unsigned_zero(value))
        }
        _ => plain(value),
    }
}

/// Short, for labels of axes: `1.2k`, `37.1`, `40`.
pub(crate) fn tick(value: f64) -> String {
    let text = compact(value);
    let suffix = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let digits = text.trim_end_matches(char::is_alphabetic);
    if digits.contains('.') {
        format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.'))
    } else {
        text
    }
}

/// Short, for labels inside a chart: `1.20k`, `37.1`.
pub(crate) fn compact(value: f64) -> String {
    let value = unsigned_zero(value);
    let size = value.abs();
    let (scaled, suffix) = match size {
        999_500_000.0.. => (value / 1e9, "G"),
        999_500.0.. => (value / 1e6, "M"),
        9_995.0.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        99.95.. => 0,
        9.995.. => 1,
        1.0.. => 2,
        _ if size < f64::EPSILON => 0,
        _ => 3,
    };
    let text = format!("{scaled:.digits$}{suffix}");
    if digits == 3 && text.trim_start_matches('-') == "0.000" {
        format!("{value:.1e}")
    } else {
        text
    }
}

/// Zero without a sign: a sum over nothing is -0.
pub(crate) fn unsigned_zero(value: f64) -> f64 {
    value + 0.0
}

/// A ratio: `1.23x`.
pub(crate) fn ratio(value: f64) -> String {
    let digits = if value.abs() >= 10.0 { 1 } else { 2 };
    format!("{value:.digits$}x")
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (value, in_table, in_chart) in [
            (0.0, "0", "0"),
            (-0.0, "0", "0"),
            (0.000_02, "2.0e-5", "2.0e-5"),
            (0.123_4, "0.123", "0.123"),
            (37.123, "37.1", "37.1"),
            (100.0, "100", "100"),
            (1234.5, "1,234", "1234"),
            (12_345.0, "12,345", "12.3k"),
            (-1_234_567.0, "-1,234,567", "-1.23M"),
        ] {
            assert_eq!((plain(value).as_str(), compact(value).as_str()), (in_table, in_chart));
        }
        assert_eq!([0.0, 0.5, 40.0, 12_500.0].map(tick), ["0", "0.5", "40", "12.5k"]);
        assert_eq!((in_unit(8.0, "").as_str(), in_unit(8.0, "req/s").as_str()), ("8", "8.00"));
        assert_eq!(percent(99.99), ">99.9");
        assert_eq!(percent(98.2), "98.2");
        assert_eq!([-0.0, 0.0, 0.01].map(percent), ["0", "0", "<0.1"]);
        assert_eq!(ratio(0.876), "0.88x");
    }
}
