//! The text of a file as JSON values: one, one a line, one a row of a table, one of tables below each other, or one of
//! names and values.

use super::sections;
use serde_json::{Map, Value};

/// The values of `text`; a list is its elements.
///
/// # Errors
/// Says why it is neither.
pub(super) fn roots(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with(['{', '[']) {
        return json(&finite(text)).or_else(|whole| lines(text).ok_or(whole));
    }
    if text.contains(LOADGEN) {
        return Ok(vec![named_lines(text)]);
    }
    if sections::is(text) {
        return Ok(vec![sections::object(text)?]);
    }
    table(text)
}

/// What stands at the head of a summary of MLPerf's `LoadGen`.
const LOADGEN: &str = "MLPerf Results Summary";

/// `name : value` a line. What comes first under a name stays.
fn named_lines(text: &str) -> Value {
    let mut out = Map::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.trim(), value.trim());
        if !name.is_empty() && !value.is_empty() {
            out.entry(name).or_insert_with(|| value.into());
        }
    }
    Value::Object(out)
}

fn json(text: &str) -> Result<Vec<Value>, String> {
    match serde_json::from_str(text).map_err(|why| why.to_string())? {
        Value::Array(elements) => Ok(elements),
        one => Ok(vec![one]),
    }
}

fn lines(text: &str) -> Option<Vec<Value>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(&finite(line)).ok()).collect()
}

/// Python writes numbers that JSON does not have. They are no numbers here either.
fn finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (outside, from) = rest.split_at(quote);
        out.push_str(&without_infinities(outside));
        let end = end_of_string(from);
        let (string, after) = from.split_at(end);
        out.push_str(string);
        rest = after;
    }
    out.push_str(&without_infinities(rest));
    out
}

fn without_infinities(text: &str) -> String {
    text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
}

/// Where the string that `text` begins with is over.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    text.len()
}

/// A row is an object by the names of the head; a cell that is no number is a text.
fn table(text: &str) -> Result<Vec<Value>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().map_err(|why| why.to_string())?.clone();
    if head.len() < 2 {
        return Err("its first line is no head of a table".to_owned());
    }
    let row = |record: csv::StringRecord| -> Value {
        let cells =
            head.iter().zip(&record).map(|(name, cell)| (name.trim().to_owned(), cell.into()));
        Value::Object(cells.collect::<Map<_, _>>())
    };
    reader.records().map(|record| record.map(row).map_err(|why| why.to_string())).collect()
}
