//! CSV files of genai-perf and AIPerf: tables one below the other, as the one object that their JSON files are.
//!
//! A quantity is named in words with its unit behind them, `Time To First Token (ms)`; statistics are columns, and a
//! single number is called `Value`, which is `avg` in the JSON files. Quantities of a GPU have what names it in columns
//! of their own, and stand below that.
//!
//! **Invariants.** A row that does not fit its head is an error, and so is a quantity that is there twice: neither is
//! guessed at.

use csv::StringRecord;
use serde_json::{Map, Value, json};

/// The column that names the quantity, which every table has.
const QUANTITY: &str = "Metric";

/// What the object has that no JSON file has, so that a form can ask for it.
const MARK: &str = "csv";

/// Columns that say which GPU a quantity is of.
const WHOSE: [&str; 5] = ["Endpoint", "GPU", "GPU_Index", "GPU_Name", "GPU_UUID"];

/// Whether `text` begins with a head of such a table.
pub(super) fn is(text: &str) -> bool {
    text.lines().next().is_some_and(|line| cells(line).next() == Some(QUANTITY))
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"'))
}

/// What the tables of `text` say, quantity by quantity.
///
/// # Errors
/// Says which row is wrong.
pub(super) fn object(text: &str) -> Result<Value, String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut out = Map::from_iter([(MARK.to_owned(), true.into())]);
    let mut head = StringRecord::new();
    for record in reader.records() {
        let mut record = record.map_err(|why| why.to_string())?;
        record.trim();
        if record.iter().any(|cell| cell == QUANTITY) {
            head = record;
        } else {
            take(&head, &record, &mut out)?;
        }
    }
    Ok(Value::Object(out))
}

fn take(
    head: &StringRecord,
    row: &StringRecord,
    out: &mut Map<String, Value>,
) -> Result<(), String> {
    let named = |name: &str| head.iter().position(|cell| cell == name).and_then(|at| row.get(at));
    let title = named(QUANTITY).or(row.get(0)).unwrap_or_default();
    if head.len() != row.len() {
        return Err(format!("'{title}' has {} cells below a head of {}", row.len(), head.len()));
    }
    let whose: Vec<&str> = WHOSE.iter().filter_map(|name| named(name)).collect();
    let there_twice = || format!("'{title}' is there twice");
    let quantities = match whose.is_empty() {
        true => Some(out),
        false => out.entry(whose.join(" ")).or_insert_with(|| json!({})).as_object_mut(),
    };
    let before =
        quantities.ok_or_else(there_twice)?.insert(key(title), quantity(title, head, row)?);
    before.map_or(Ok(()), |_| Err(there_twice()))
}

fn quantity(title: &str, head: &StringRecord, row: &StringRecord) -> Result<Value, String> {
    let is_number = |name: &str| name != QUANTITY && !WHOSE.contains(&name);
    let cells = head.iter().zip(row).filter(|(name, cell)| is_number(name) && !cell.is_empty());
    let number = |(name, cell): (&str, &str)| {
        let as_told = if name == "Value" { "avg" } else { name };
        let number = ungrouped(cell);
        if is_statistic(name) && is_like_a_number(&number) && number.parse::<f64>().is_err() {
            return Err(format!(
                "'{title}' has '{cell}' for {name}: nobody can tell which number that is"
            ));
        }
        Ok((as_told.to_owned(), Value::from(number)))
    };
    let unit = unit(title).map(|unit| Ok(("unit".to_owned(), unit.into())));
    unit.into_iter().chain(cells.map(number)).collect::<Result<_, _>>().map(Value::Object)
}

/// Of others, such as the name of a host, a cell that begins like a number may be none.
fn is_statistic(name: &str) -> bool {
    let is_percentile = name.strip_prefix('p').is_some_and(|p| p.parse::<f64>().is_ok());
    is_percentile || ["Value", "avg", "min", "max", "sum", "std", "count"].contains(&name)
}

/// `1.157,26` and `100 ms`: not so a date or a time of the day.
fn is_like_a_number(cell: &str) -> bool {
    let digits = cell.trim_start_matches('-');
    digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.contains([':', '-', '/'])
}

/// `Time To First Token (ms)` in its words and its unit.
fn parts(title: &str) -> Option<(&str, &str)> {
    let (words, unit) = title.strip_suffix(')')?.rsplit_once('(')?;
    Some((words.trim_end(), unit))
}

fn unit(title: &str) -> Option<&str> {
    parts(title).map(|(_, unit)| unit)
}

/// `time_to_first_token`, as in the JSON files.
fn key(title: &str) -> String {
    let words = parts(title).map_or(title, |(words, _)| words);
    words.to_lowercase().replace([' ', '-'], "_")
}

/// `1,146.31` as `1146.31`. What is no number with groups of three digits stays, and so does one group alone: a comma
/// may as well stand before what is smaller than one.
fn ungrouped(cell: &str) -> String {
    let (whole, fraction) = cell.split_once('.').unwrap_or((cell, ""));
    let mut groups = whole.trim_start_matches('-').split(',');
    let is_head = groups
        .next()
        .is_some_and(|group| (1..=3).contains(&group.len()) && !group.starts_with('0'));
    let is_told = cell.contains('.') || whole.matches(',').count() > 1;
    if is_head && is_told && !fraction.contains(',') && groups.all(|group| group.len() == 3) {
        cell.replace(',', "")
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_groups_are_numbers() {
        for (cell, want) in [
            ("1,146.31", "1146.31"),
            ("-1,000,000.00", "-1000000.00"),
            ("12.50", "12.50"),
            ("1,14.5", "1,14.5"),
            ("1,146,31", "1,146,31"),
            ("1,146,310", "1146310"),
            ("12,345", "12,345"),
            ("0,125", "0,125"),
            ("0,125.5", "0,125.5"),
            ("1.157,26", "1.157,26"),
            ("", ""),
        ] {
            assert_eq!(ungrouped(cell), want);
        }
    }

    #[test]
    fn what_may_be_two_numbers_is_none() {
        for (cell, is_refused) in [
            ("1.157,26", true),
            ("157,26", true),
            ("12,345", true),
            ("100 ms", true),
            ("-3", false),
            ("1e3", false),
            ("n/a", false),
            ("2026-11-27 10:00", false),
        ] {
            let text = format!("Metric,avg\nRequest Latency (ms),\"{cell}\"\n");
            assert_eq!(object(&text).is_err(), is_refused, "{cell}");
        }
        let hosts = "Endpoint,GPU_Index,GPU_Name,GPU_UUID,Metric,Hostname,avg,p50\n\
                     e,0,H100,u,GPU Power Usage (W),7f3a9c1b2d4e,1,2\n";
        assert!(object(hosts).is_ok(), "{:?}", object(hosts));
    }

    #[test]
    fn a_name_is_its_words_without_the_unit() {
        for (title, want, unit) in [
            ("Time To First Token (ms)", "time_to_first_token", Some("ms")),
            ("Request Count", "request_count", None),
            (
                "Output Token Throughput Per User (tokens/sec/user)",
                "output_token_throughput_per_user",
                Some("tokens/sec/user"),
            ),
            ("(ms)", "", Some("ms")),
        ] {
            assert_eq!((key(title).as_str(), super::unit(title)), (want, unit));
        }
    }
}
