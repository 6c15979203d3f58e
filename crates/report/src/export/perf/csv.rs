//! CSV files of `genai-perf` and `aiperf`: distributions, an empty line, and single numbers, with two decimals.

use scalebeam_model::peers::Row;

/// How one of the tools writes its file.
pub(super) struct CsvForm {
    /// Statistics, in its order.
    statistics: &'static [&'static str],
    /// Its name and unit of a quantity, by key.
    title: fn(&str, &str) -> String,
    /// A number.
    shown: fn(f64) -> String,
    /// Whether rows are in order of their keys.
    sorted: bool,
}

pub(super) const GENAI_PERF: CsvForm = CsvForm {
    statistics: &["avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10", "p5", "p1"],
    title: |key, unit| {
        let unit = match unit {
            "requests/sec" => "per sec",
            "requests" => "count",
            other => other,
        };
        format!("{} ({unit})", words(key, &[]))
    },
    shown: grouped,
    sorted: false,
};

pub(super) const AIPERF: CsvForm = CsvForm {
    statistics: &[
        "avg", "min", "max", "sum", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99",
        "std",
    ],
    title: |key, unit| {
        let words = words(key, &["to"]);
        if unit == "requests" { words } else { format!("{words} ({unit})") }
    },
    shown: |value| format!("{value:.2}"),
    sorted: true,
};

impl CsvForm {
    /// The file.
    pub(super) fn text(&self, rows: &[Row]) -> String {
        let mut rows: Vec<&Row> = rows.iter().collect();
        if self.sorted {
            rows.sort_by_key(|row| row.key);
        }
        let (many, single): (Vec<&Row>, Vec<&Row>) =
            rows.into_iter().partition(|row| row.key.contains("{}"));
        let mut out = line(std::iter::once("Metric").chain(self.statistics.iter().copied()));
        for row in many.into_iter().filter(|row| row.values.iter().any(|(_, v)| v.is_some())) {
            let of = |word: &&str| row.values.iter().find(|(name, _)| name == word)?.1;
            let cells = self.statistics.iter().map(|word| of(word).map(self.shown));
            let cells = cells.map(Option::unwrap_or_default);
            out.push_str(&line(std::iter::once(self.head(row)).chain(cells)));
        }
        out.push_str("\r\n");
        out.push_str(&line(["Metric", "Value"].into_iter()));
        for row in single {
            let Some(value) = row.values.first().and_then(|(_, value)| *value) else { continue };
            out.push_str(&line([self.head(row), (self.shown)(value)].into_iter()));
        }
        out
    }

    fn head(&self, row: &Row) -> String {
        let key = row.key.split('/').next().unwrap_or(row.key);
        (self.title)(key, row.unit)
    }
}

/// A row as Python's `csv` writes it.
fn line(cells: impl Iterator<Item = impl AsRef<str>>) -> String {
    let quoted = |cell: &str| {
        if cell.contains([',', '"']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_owned()
        }
    };
    let cells: Vec<String> = cells.map(|cell| quoted(cell.as_ref())).collect();
    cells.join(",") + "\r\n"
}

/// `time_to_first_token` as `Time To First Token`; words of `small` stay small.
fn words(key: &str, small: &[&str]) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        match chars.next() {
            Some(first) if !small.contains(&word) => {
                first.to_uppercase().chain(chars).collect::<String>()
            }
            _ => word.to_owned(),
        }
    };
    key.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

/// `1,146.31`
fn grouped(value: f64) -> String {
    let text = format!("{:.2}", value.abs());
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{out}.{cents}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_as_the_tool_groups_them() {
        for (value, want) in [
            (0.5, "0.50"),
            (999.994, "999.99"),
            (1_146.31, "1,146.31"),
            (1_234_567.0, "1,234,567.00"),
            (-1_000.0, "-1,000.00"),
        ] {
            assert_eq!(grouped(value), want);
        }
        assert_eq!(line(["a", "1,0"].into_iter()), "a,\"1,0\"\r\n");
    }
}
