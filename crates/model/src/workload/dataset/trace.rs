//! Public traces of what was asked when: Mooncake, `BurstGPT`, Azure.
//!
//! Instants count from the first entry. An entry without prompt or answer tokens (`BurstGPT` writes
//! failed requests so) has nothing to ask for; it is left out and counted.

use crate::units::Nanos;
use crate::workload::lengths::LONGEST;
use serde::Deserialize;
use std::sync::Arc;

/// Tokens that one `hash_ids` entry of a Mooncake trace stands for.
pub const BLOCK_TOKENS: u32 = 512;

/// One request of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// When it came, after the first.
    pub at: Nanos,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Answer tokens.
    pub output_tokens: u32,
    /// Blocks of [`BLOCK_TOKENS`] that the prompt is made of; equal ids are equal text. Empty where the
    /// trace does not say.
    pub hash_ids: Box<[u64]>,
}

/// A trace, in the order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    entries: Vec<TraceEntry>,
    due: Arc<[Nanos]>,
    left_out: usize,
}

impl Trace {
    /// Sorts `entries` by time and lets the first be at zero.
    fn new(mut entries: Vec<TraceEntry>, left_out: usize) -> Result<Self, String> {
        // Linear where they are in order, as in every trace that is published.
        entries.sort_by_key(|e| e.at);
        let Some(first) = entries.first().map(|e| e.at) else {
            return Err(match left_out {
                0 => "it holds no request".to_owned(),
                n => format!("none of its {n} requests has both prompt and answer tokens"),
            });
        };
        for entry in &mut entries {
            entry.at = entry.at.since(first);
        }
        let due = entries.iter().map(|e| e.at).collect();
        Ok(Self { entries, due, left_out })
    }

    /// Its requests.
    pub fn entries(&self) -> &[TraceEntry] {
        &self.entries
    }

    /// When each is due, after the first.
    pub fn due(&self) -> Arc<[Nanos]> {
        Arc::clone(&self.due)
    }

    pub(super) fn about(&self) -> String {
        let n = self.entries.len().max(1) as f64;
        let mean = |of: fn(&TraceEntry) -> u32| {
            self.entries.iter().map(|e| u64::from(of(e))).sum::<u64>() as f64 / n
        };
        let left_out = match self.left_out {
            0 => String::new(),
            n => format!(" ({n} without prompt or answer tokens were left out)"),
        };
        format!(
            "{} requests over {}, on average {:.0} prompt and {:.0} answer tokens{left_out}",
            self.entries.len(),
            self.due.last().copied().unwrap_or_default(),
            mean(|e| e.input_tokens),
            mean(|e| e.output_tokens),
        )
    }
}

/// Collects entries line by line.
#[derive(Default)]
struct Collector {
    entries: Vec<TraceEntry>,
    left_out: usize,
}

impl Collector {
    fn add(&mut self, entry: TraceEntry) -> Result<(), String> {
        for (what, n) in [("prompt", entry.input_tokens), ("answer", entry.output_tokens)] {
            if n > LONGEST {
                return Err(format!("a {what} of {n} tokens; at most {LONGEST}"));
            }
        }
        if entry.input_tokens == 0 || entry.output_tokens == 0 {
            self.left_out += 1;
        } else {
            self.entries.push(entry);
        }
        Ok(())
    }

    fn done(self) -> Result<Trace, String> {
        Trace::new(self.entries, self.left_out)
    }
}

fn at_line<T>(index: usize, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|why| format!("line {}: {why}", index + 1))
}

/// Reads a Mooncake trace: a JSON object a line; `timestamp` in milliseconds, `hash_ids` of
/// [`BLOCK_TOKENS`] tokens each, the last of a prompt holding what is left. Other keys are passed over.
///
/// # Errors
/// Names the line that is not as the format says.
pub fn parse_mooncake(text: &str) -> Result<Trace, String> {
    let mut found = Collector::default();
    for (i, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            at_line(i, mooncake_line(line).and_then(|entry| found.add(entry)))?;
        }
    }
    found.done()
}

fn mooncake_line(line: &str) -> Result<TraceEntry, String> {
    #[derive(Deserialize)]
    struct Line {
        timestamp: f64,
        input_length: u32,
        output_length: u32,
        #[serde(default)]
        hash_ids: Vec<u64>,
    }
    let line: Line = serde_json::from_str(line).map_err(|e| {
        // The line of the error is the line of the file, which is named already.
        let why = e.to_string();
        why.split(" at line ").next().unwrap_or(&why).to_owned()
    })?;
    if !(0.0..=MOST_MS).contains(&line.timestamp) {
        return Err(format!("a timestamp of {} ms", line.timestamp));
    }
    let blocks = line.input_length.div_ceil(BLOCK_TOKENS);
    if line.hash_ids.len() > blocks as usize {
        return Err(format!(
            "{} hash_ids for {} tokens; each stands for {BLOCK_TOKENS}, so there can be {blocks}",
            line.hash_ids.len(),
            line.input_length
        ));
    }
    Ok(TraceEntry {
        at: Nanos::from_secs_f64(line.timestamp / 1e3),
        input_tokens: line.input_length,
        output_tokens: line.output_length,
        hash_ids: line.hash_ids.into_boxed_slice(),
    })
}

/// A hundred years: beyond are slips of the unit.
const MOST_MS: f64 = 100.0 * 366.0 * 86_400.0 * 1e3;

/// Columns of a CSV file that are wanted, by name.
struct Columns<'a, const N: usize> {
    names: [&'a str; N],
    places: [usize; N],
    width: usize,
}

impl<'a, const N: usize> Columns<'a, N> {
    fn find(header: &str, names: [&'a str; N]) -> Result<Self, String> {
        let found: Vec<&str> = header.split(',').map(str::trim).collect();
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            *place = found.iter().position(|f| *f == name).ok_or_else(|| {
                format!(
                    "no column '{name}'; the first line has to name the columns, it is '{header}'"
                )
            })?;
        }
        Ok(Self { names, places, width: found.len() })
    }

    fn cells<'l>(&self, line: &'l str) -> Result<[&'l str; N], String> {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != self.width {
            return Err(format!("{} cells; the first line names {}", cells.len(), self.width));
        }
        Ok(self.places.map(|place| cells[place]))
    }

    fn count(&self, column: usize, cell: &str) -> Result<u32, String> {
        // Some tools write whole numbers as 906.0.
        let whole = cell.strip_suffix(".0").unwrap_or(cell);
        whole.parse().map_err(|_| {
            format!("{} is '{cell}', which is no number of tokens", self.names[column])
        })
    }
}

fn parse_csv(
    text: &str,
    names: [&str; 3],
    instant: fn(&str) -> Option<Nanos>,
    example: &str,
) -> Result<Trace, String> {
    let mut lines = text.lines().enumerate();
    let header = lines.by_ref().find(|(_, line)| !line.trim().is_empty());
    let (first, header) = header.ok_or("it is empty")?;
    let columns = at_line(first, Columns::find(header, names))?;
    let mut found = Collector::default();
    let mut read = |line: &str| {
        let [at, input, output] = columns.cells(line)?;
        found.add(TraceEntry {
            at: instant(at)
                .ok_or_else(|| format!("{} is '{at}', not an instant as {example}", names[0]))?,
            input_tokens: columns.count(1, input)?,
            output_tokens: columns.count(2, output)?,
            hash_ids: Box::default(),
        })
    };
    for (i, line) in lines {
        if !line.trim().is_empty() {
            at_line(i, read(line))?;
        }
    }
    found.done()
}

/// Reads a `BurstGPT` trace, with or without `Session ID` and `Elapsed time`: CSV with `Timestamp` in
/// seconds, `Request tokens` and `Response tokens`.
///
/// # Errors
/// Names the line that is not as the format says.
pub fn parse_burstgpt(text: &str) -> Result<Trace, String> {
    parse_csv(text, ["Timestamp", "Request tokens", "Response tokens"], seconds, "19440110.5")
}

/// Reads an Azure LLM inference trace of 2023 or 2024: CSV with `TIMESTAMP` as a date and time,
/// `ContextTokens` and `GeneratedTokens`.
///
/// # Errors
/// Names the line that is not as the format says.
pub fn parse_azure(text: &str) -> Result<Trace, String> {
    let names = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
    parse_csv(text, names, date_time, "2023-11-16 18:15:46.6805900")
}

/// Seconds with up to nine digits behind the point, exactly: a float would lose them.
fn seconds(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(nanos_behind_point(fraction)?).map(Nanos)
}

/// The digits behind a point, as nanoseconds; those below a nanosecond are dropped.
fn nanos_behind_point(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// `2023-11-16 18:15:46.6805900`, with an optional `Z` or `+00:00`, after the Unix epoch.
fn date_time(text: &str) -> Option<Nanos> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let (time, offset_min) = zone(time)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let days = days_since_epoch(year, month, day)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let utc = seconds.checked_add_signed(-offset_min * 60)?;
    utc.checked_mul(1_000_000_000)?.checked_add(nanos_behind_point(fraction)?).map(Nanos)
}

/// The time without its zone, and the minutes that the zone is ahead of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let [hours, minutes] = numbers(time.get(at + 1..)?, ':', [2, 2])?;
    let ahead = (hours * 60 + minutes).cast_signed();
    Some((&time[..at], if time[at..].starts_with('-') { -ahead } else { ahead }))
}

/// Numbers of the given widths between `separator`s, and nothing else.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (value, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days of the proleptic Gregorian calendar after 1970-01-01, for the years 1970 to 2199.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const LENGTH: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1970..2200).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let index = usize::try_from(month - 1).ok()?;
    let length = LENGTH[index] + u64::from(is_leap && month == 2);
    if !(1..=length).contains(&day) {
        return None;
    }
    let leap_days = |years: u64| years / 4 - years / 100 + years / 400;
    let passed = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(passed + BEFORE[index] + u64::from(is_leap && month > 2) + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOONCAKE: &str = r#"{"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 10535, "input_length": 672, "output_length": 26, "hash_ids": [46, 48], "session": "x"}

{"timestamp": 27482.5, "input_length": 100, "output_length": 1}
"#;

    fn rows(trace: &Trace) -> Vec<(u64, u32, u32)> {
        trace.entries().iter().map(|e| (e.at.0, e.input_tokens, e.output_tokens)).collect()
    }

    #[test]
    fn mooncake_counts_in_milliseconds_and_blocks() {
        let trace = parse_mooncake(MOONCAKE).unwrap();
        let want = [(0, 655, 52), (10_535_000_000, 672, 26), (27_482_500_000, 100, 1)];
        assert_eq!(rows(&trace), want);
        assert_eq!(*trace.entries()[1].hash_ids, [46, 48]);
        assert!(trace.entries()[2].hash_ids.is_empty());
        assert_eq!(trace.due().last(), Some(&Nanos(27_482_500_000)));
    }

    #[test]
    fn burstgpt_is_read_by_the_names_of_its_columns_and_failures_are_left_out() {
        let old = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                   5,ChatGPT,472,18,490,Conversation log\n\
                   45,ChatGPT,1087,0,1087,Conversation log\n\
                   118,GPT-4,417,276,693,Conversation log\n";
        let trace = parse_burstgpt(old).unwrap();
        assert_eq!(rows(&trace), [(0, 472, 18), (113_000_000_000, 417, 276)]);
        assert!(trace.about().contains("(1 without prompt or answer tokens were left out)"));
        let new = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n\
                   19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\r\n\
                   19440161.123456789,d5983bf9,2,ChatGPT,36,29,65,Conversation log\r\n";
        assert_eq!(rows(&parse_burstgpt(new).unwrap()), [(0, 906, 446), (51_123_456_789, 36, 29)]);
    }

    #[test]
    fn azure_dates_are_exact_to_their_last_digit_whatever_the_zone() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                    2023-11-16 18:15:46.6805900,374,44\n\
                    2023-11-16 18:15:50.9951690,396,109\n\
                    2023-11-17 00:00:00,879,55\n\
                    2023-11-17 02:00:00.5+02:00,91,16\n";
        let trace = parse_azure(text).unwrap();
        let at: Vec<u64> = trace.entries().iter().map(|e| e.at.0).collect();
        assert_eq!(at, [0, 4_314_579_000, 20_653_319_410_000, 20_653_819_410_000]);
    }

    #[test]
    fn dates_follow_the_calendar() {
        let days = |y, m, d| days_since_epoch(y, m, d);
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!(days(2023, 11, 16), Some(19_677));
        assert_eq!(days(2100, 3, 1), Some(47_541));
        for (y, m, d) in [(2023, 2, 29), (2100, 2, 29), (2023, 13, 1), (2023, 4, 31), (1969, 1, 1)]
        {
            assert_eq!(days(y, m, d), None);
        }
    }

    #[test]
    fn entries_come_in_the_order_of_time() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                    2024-05-10 00:00:01+00:00,2,1\n2024-05-10 00:00:00.009930+00:00,1,1\n";
        assert_eq!(rows(&parse_azure(text).unwrap()), [(0, 1, 1), (990_070_000, 2, 1)]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let mooncake = |line: &str| parse_mooncake(&format!("{MOONCAKE}{line}")).unwrap_err();
        assert_eq!(mooncake("{\"timestamp\": 1}"), "line 5: missing field `input_length`");
        assert_eq!(
            mooncake(r#"{"timestamp":-1,"input_length":1,"output_length":1}"#),
            "line 5: a timestamp of -1 ms"
        );
        assert_eq!(
            mooncake(r#"{"timestamp":1,"input_length":512,"output_length":1,"hash_ids":[1,2]}"#),
            "line 5: 2 hash_ids for 512 tokens; each stands for 512, so there can be 1"
        );
        assert!(mooncake("nonsense").starts_with("line 5: expected ident"));
        let azure = |rest: &str| {
            parse_azure(&format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rest}")).unwrap_err()
        };
        assert_eq!(azure("2023-11-16 18:15:46,1"), "line 2: 2 cells; the first line names 3");
        assert_eq!(
            azure("2023-11-16,1,1"),
            "line 2: TIMESTAMP is '2023-11-16', not an instant as 2023-11-16 18:15:46.6805900"
        );
        assert_eq!(
            azure("2023-11-16 18:15:46,-1,1"),
            "line 2: ContextTokens is '-1', which is no number of tokens"
        );
        assert_eq!(azure("\n"), "it holds no request");
        assert!(
            parse_azure("a,b\n1,2\n").unwrap_err().starts_with("line 1: no column 'TIMESTAMP'")
        );
        let huge = parse_burstgpt("Timestamp,Request tokens,Response tokens\n1,99999999,1\n");
        assert_eq!(huge.unwrap_err(), "line 2: a prompt of 99999999 tokens; at most 10000000");
    }

    proptest! {
        #[test]
        fn every_trace_that_is_written_is_read_back(
            gaps in prop::collection::vec((0u64..10_000_000, 1u32..100_000, 1u32..5_000), 1..50),
        ) {
            let mut at = 0;
            let (mut mooncake, mut burst) = (String::new(), "Timestamp,Request tokens,Response tokens\n".to_owned());
            let mut want = Vec::new();
            for (gap, input, output) in gaps {
                at += if want.is_empty() { 0 } else { gap };
                want.push((at * 1_000_000, input, output));
                mooncake += &format!("{{\"timestamp\":{at},\"input_length\":{input},\"output_length\":{output}}}\n");
                burst += &format!("{}.{:03},{input},{output}\n", 1_000 + at / 1_000, at % 1_000);
            }
            prop_assert_eq!(&rows(&parse_mooncake(&mooncake).unwrap()), &want);
            prop_assert_eq!(&rows(&parse_burstgpt(&burst).unwrap()), &want);
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,200}") {
            let header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
            let _ = parse_mooncake(&text);
            let _ = parse_azure(&format!("{header}{text},1,1"));
            let _ = date_time(&text);
            let _ = seconds(&text);
        }
    }
}
