//! What is said about the instrument: tables, and a verdict in words.

use super::summary::{Row, Summary};
use serde::Serialize;
use std::fmt::Write as _;

/// Whether numbers taken on this machine can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trust {
    /// Nearly all of them are true to [`SOUND_MS`].
    Sound,
    /// To [`CAUTION_MS`].
    Caution,
    /// Further off, or requests were lost or miscounted.
    Invalid,
}

/// An error that no one will notice in an answer that takes tens of milliseconds to begin.
const SOUND_MS: f64 = 1.0;
/// An error that changes a verdict.
const CAUTION_MS: f64 = 10.0;

/// What 99 of 100 errors of a case stay below, whichever kind it is about.
fn worst(ours: &Summary, is_open: bool) -> Option<f64> {
    let late = if is_open { ours.lateness_ms_p99 } else { None };
    [ours.ttft_error_each_ms_p99, late].into_iter().flatten().max_by(f64::total_cmp)
}

impl Row {
    /// Whether the load client's numbers of this case can be believed.
    pub(crate) fn trust(&self) -> Trust {
        match worst(&self.ours, self.rate_rps.is_some()) {
            _ if self.ours.lost + self.ours.miscounted > 0 => Trust::Invalid,
            Some(ms) if ms <= SOUND_MS => Trust::Sound,
            Some(ms) if ms <= CAUTION_MS => Trust::Caution,
            _ => Trust::Invalid,
        }
    }

    /// The verdict, in one sentence.
    pub(crate) fn verdict(&self) -> String {
        let Summary { lost, miscounted, .. } = self.ours;
        if lost + miscounted > 0 {
            return format!(
                "{}: invalid: {lost} requests lost, {miscounted} with a wrong number of tokens",
                self.case
            );
        }
        let mut text = format!("at {} ", self.case);
        let ours = &self.ours;
        if self.rate_rps.is_some() {
            let (p50, p99) = (rough(ours.lateness_ms_p50), rough(ours.lateness_ms_p99));
            let _ = write!(text, "requests leave {p50} ms after they are due (p99 {p99} ms)");
        } else {
            let mean = rough(ours.ttft_error_mean_ms.map(f64::abs));
            let (each, itl) = (ours.ttft_error_each_ms_p99, ours.itl_error_each_ms_p99);
            let _ = write!(text, "TTFT is true to {mean} ms (p99 {} ms)", rough(each));
            let _ = write!(text, ", the time between tokens to {} ms (p99)", rough(itl));
        }
        text + match self.trust() {
            Trust::Sound => "",
            Trust::Caution => "; caution: do not compare what differs by less",
            Trust::Invalid => "; invalid: this machine is too slow or too busy for this load",
        }
    }
}

/// Two significant digits, for a sentence.
fn rough(value: Option<f64>) -> String {
    let Some(x) = value else { return "n/a".to_owned() };
    let decimals = match x.abs() {
        a if a >= 9.95 => 0,
        a if a >= 0.995 => 1,
        a if a >= 0.0995 => 2,
        _ => 3,
    };
    format!("{x:.decimals$}")
}

/// Three significant digits, and never more than three decimals.
fn number(value: Option<f64>) -> String {
    let Some(x) = value else { return "n/a".to_owned() };
    let decimals = match x.abs() {
        a if a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        a if a >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{x:.decimals$}");
    // Rounded to nothing, a sign says nothing.
    if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// A number that is an error: with its sign.
pub(super) fn signed(value: Option<f64>) -> String {
    let text = number(value);
    if value.is_some_and(|x| x > 0.0) && text.contains(|c: char| c.is_ascii_digit() && c != '0') {
        format!("+{text}")
    } else {
        text
    }
}

/// A column: its head, and what it says of a reader.
type Column = (&'static str, fn(&Summary) -> String);

const COLUMNS: &[Column] = &[
    ("TTFT err mean ms", |s| signed(s.ttft_error_mean_ms)),
    ("p99", |s| signed(s.ttft_error_ms_p99)),
    ("each p99", |s| number(s.ttft_error_each_ms_p99)),
    ("ITL err p99 ms", |s| signed(s.itl_error_ms_p99)),
    ("each p99", |s| number(s.itl_error_each_ms_p99)),
    ("late p50 ms", |s| number(s.lateness_ms_p50)),
    ("late p99", |s| number(s.lateness_ms_p99)),
    ("CPU us/token", |s| number(s.cpu_us_per_token)),
    ("us/request", |s| number(s.cpu_us_per_request)),
    ("RSS MB", |s| number(s.peak_rss_mb)),
];

/// Columns that only the journal needs.
const MORE: &[Column] = &[
    ("E2E err mean ms", |s| signed(s.e2e_error_mean_ms)),
    ("E2E err p99 ms", |s| signed(s.e2e_error_ms_p99)),
    ("read lag p50/p99 ms", |s| {
        format!("{}/{}", number(s.read_lag_ms_p50), number(s.read_lag_ms_p99))
    }),
    ("send lag p50/p99 ms", |s| {
        format!("{}/{}", signed(s.send_lag_ms_p50), signed(s.send_lag_ms_p99))
    }),
    ("sent/s", |s| number(s.sent_rps)),
    ("E2E from due p99 ms, true/said", |s| {
        format!("{}/{}", number(s.e2e_true_ms_p99), number(s.e2e_seen_ms_p99))
    }),
    ("load threads us/token", |s| number(s.load_cpu_us_per_token)),
    ("tokens/arrival", |s| number(s.tokens_per_arrival)),
    ("tokens/s", |s| number(s.tokens_per_s)),
    ("cores", |s| number(s.cores)),
    ("launch ms", |s| number(s.launch_ms)),
    ("server us/token", |s| number(s.server_cpu_us_per_token)),
    ("lost", |s| (s.lost + s.miscounted).to_string()),
];

/// The CPU time of a token as a multiple of the raw reader's, with a mark where that is no comparison.
fn over_raw(reader: &Summary, raw: Option<&Summary>) -> String {
    let Some(ratio) = raw.and_then(|raw| reader.cpu_over(raw)) else { return "n/a".to_owned() };
    let mark = if is_marked(reader, raw) { "?" } else { "" };
    format!("{ratio:.2}{mark}")
}

fn is_marked(reader: &Summary, raw: Option<&Summary>) -> bool {
    raw.is_some_and(|raw| {
        reader.cpu_over(raw).is_some() && reader.arrivals_alike(raw) == Some(false)
    })
}

/// What the mark means, where there is one.
const MARK: &str = "? the server's own CPU time a token differs from that with the raw reader by more than a quarter: \
    tokens came in another rhythm, so CPU/raw compares different work and is not to be trusted";

/// What is to be said below a table.
pub(crate) fn notes(rows: &[Row]) -> Vec<String> {
    let readers = |row: &Row| {
        let others = row.beside.iter().map(|other| other.measured.clone());
        std::iter::once(row.ours.clone()).chain(others).collect::<Vec<_>>()
    };
    let has_mark = |row: &Row| readers(row).iter().any(|r| is_marked(r, row.raw.as_ref()));
    let mark = rows.iter().any(has_mark).then(|| MARK.to_owned());
    let others = rows.iter().flat_map(|row| row.beside.iter().map(|other| other.note(&row.case)));
    mark.into_iter().chain(others).collect()
}

/// The lines of a table: a head, then the load client, the raw reader and other clients of each case.
fn cells(rows: &[Row], columns: &[&[Column]]) -> Vec<Vec<String>> {
    let columns = || columns.iter().copied().flatten();
    let mut head = vec!["case".to_owned(), "reader".to_owned()];
    head.extend(columns().map(|c| c.0.to_owned()));
    head.push("CPU/raw".to_owned());
    let mut out = vec![head];
    for row in rows {
        let mut add = |name: &str, summary: &Summary, ratio: String| {
            let mut line = vec![row.case.clone(), name.to_owned()];
            line.extend(columns().map(|c| c.1(summary)));
            line.push(ratio);
            out.push(line);
        };
        add("ours", &row.ours, over_raw(&row.ours, row.raw.as_ref()));
        if let Some(raw) = &row.raw {
            add("raw", raw, "1".to_owned());
        }
        for other in row.beside.iter().filter(|other| other.skipped.is_none()) {
            add(&other.client, &other.measured, over_raw(&other.measured, row.raw.as_ref()));
        }
    }
    out
}

/// For a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let cells = cells(rows, &[COLUMNS]);
    let width = |i: usize| cells.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    let mut out = String::new();
    for line in &cells {
        let padded = line.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// For the journal.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut out = String::new();
    for (i, line) in cells(rows, &[COLUMNS, MORE]).iter().enumerate() {
        let _ = writeln!(out, "| {} |", line.join(" | "));
        if i == 0 {
            let _ = writeln!(out, "|{}", " --- |".repeat(line.len()));
        }
    }
    for note in notes(rows) {
        let _ = write!(out, "\n{note}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::beside::OtherRow;
    use super::super::case::{open_loop, paced};
    use super::*;

    fn row(ttft_ms: f64) -> Row {
        let mut row = Row::new(&paced(256, 2), &[], &[]);
        row.ours = Summary {
            ttft_error_mean_ms: Some(-0.12),
            ttft_error_ms_p99: Some(0.4),
            ttft_error_each_ms_p99: Some(ttft_ms),
            itl_error_ms_p99: Some(0.0),
            itl_error_each_ms_p99: Some(0.2),
            cpu_us_per_token: Some(3.0),
            cpu_us_per_request: Some(300.0),
            peak_rss_mb: Some(12.34),
            ..Summary::default()
        };
        row.raw = Some(Summary { cpu_us_per_token: Some(2.0), ..Summary::default() });
        row
    }

    #[test]
    fn trust_follows_the_error_and_what_was_lost() {
        for (ms, want) in [(0.4, Trust::Sound), (3.0, Trust::Caution), (30.0, Trust::Invalid)] {
            assert_eq!(row(ms).trust(), want, "{ms}");
        }
        let mut lost = row(0.1);
        lost.ours.lost = 1;
        assert_eq!(lost.trust(), Trust::Invalid);
        let mut nothing = row(0.1);
        nothing.ours.ttft_error_each_ms_p99 = None;
        assert_eq!(nothing.trust(), Trust::Invalid, "what was not measured is not sound");
    }

    #[test]
    fn verdicts_are_sentences() {
        let mut open = Row::new(&open_loop(2), &[], &[]);
        open.ours = Summary {
            ttft_error_each_ms_p99: Some(0.1),
            lateness_ms_p50: Some(0.02),
            lateness_ms_p99: Some(0.5),
            ..Summary::default()
        };
        let mut lost = row(0.1);
        lost.ours.lost = 3;
        let all = [row(0.4), row(2.0), row(20.0), open, lost].map(|r| r.verdict());
        insta::assert_snapshot!(all.join("\n"), @"
        at 256 streams TTFT is true to 0.12 ms (p99 0.40 ms), the time between tokens to 0.20 ms (p99)
        at 256 streams TTFT is true to 0.12 ms (p99 2.0 ms), the time between tokens to 0.20 ms (p99); caution: do not compare what differs by less
        at 256 streams TTFT is true to 0.12 ms (p99 20 ms), the time between tokens to 0.20 ms (p99); invalid: this machine is too slow or too busy for this load
        at 500 req/s requests leave 0.020 ms after they are due (p99 0.50 ms)
        256 streams: invalid: 3 requests lost, 0 with a wrong number of tokens
        ");
    }

    #[test]
    fn tables_have_both_readers() {
        insta::assert_snapshot!(text(&[row(0.4)]), @"
        case         reader  TTFT err mean ms     p99  each p99  ITL err p99 ms  each p99  late p50 ms  late p99  CPU us/token  us/request  RSS MB  CPU/raw
        256 streams  ours              -0.120  +0.400     0.400           0.000     0.200          n/a       n/a          3.00         300    12.3     1.50
        256 streams  raw                  n/a     n/a       n/a             n/a       n/a          n/a       n/a          2.00         n/a     n/a        1
        ");
        insta::assert_snapshot!(markdown(&[row(0.4)]), @"
        | case | reader | TTFT err mean ms | p99 | each p99 | ITL err p99 ms | each p99 | late p50 ms | late p99 | CPU us/token | us/request | RSS MB | E2E err mean ms | E2E err p99 ms | read lag p50/p99 ms | send lag p50/p99 ms | sent/s | E2E from due p99 ms, true/said | load threads us/token | tokens/arrival | tokens/s | cores | launch ms | server us/token | lost | CPU/raw |
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
        | 256 streams | ours | -0.120 | +0.400 | 0.400 | 0.000 | 0.200 | n/a | n/a | 3.00 | 300 | 12.3 | n/a | n/a | n/a/n/a | n/a/n/a | n/a | n/a/n/a | n/a | n/a | n/a | n/a | n/a | n/a | 0 | 1.50 |
        | 256 streams | raw | n/a | n/a | n/a | n/a | n/a | n/a | n/a | 2.00 | n/a | n/a | n/a | n/a | n/a/n/a | n/a/n/a | n/a | n/a/n/a | n/a | n/a | n/a | n/a | n/a | n/a | 0 | 1 |
        ");
    }

    #[test]
    fn a_ratio_of_different_work_is_marked_and_explained() {
        let served = |us: f64| {
            let mut row = row(0.4);
            row.ours.server_cpu_us_per_token = Some(us);
            row.raw.as_mut().unwrap().server_cpu_us_per_token = Some(5.0);
            [row]
        };
        let last = |rows: &[Row]| text(rows).lines().nth(1).unwrap().to_owned();
        assert!(last(&served(15.0)).ends_with(" 1.50?"));
        assert_eq!(notes(&served(15.0)), [MARK]);
        assert!(markdown(&served(15.0)).ends_with(&format!(" |\n\n{MARK}\n")));
        assert!(last(&served(5.5)).ends_with(" 1.50"));
        assert!(notes(&served(5.5)).is_empty() && !markdown(&served(5.5)).contains('?'));
    }

    #[test]
    fn other_clients_have_rows_where_they_ran_and_a_note_each() {
        let mut row = row(0.4);
        row.raw.as_mut().unwrap().server_cpu_us_per_token = Some(5.0);
        let measured = Summary {
            cpu_us_per_token: Some(8.0),
            server_cpu_us_per_token: Some(9.0),
            ..Summary::default()
        };
        let ran = OtherRow { client: "theirs".to_owned(), measured, ..OtherRow::default() };
        let skipped = OtherRow { skipped: Some("no {rate}".to_owned()), ..ran.clone() };
        row.beside = vec![ran, skipped];
        let rows = [row];
        let text = text(&rows);
        let lines: Vec<&str> = text.lines().filter(|l| l.contains("theirs")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].ends_with(" 4.00?"), "{text}");
        let notes = notes(&rows);
        assert_eq!((notes.len(), notes[0].as_str()), (3, MARK));
        assert_eq!(notes[2], "theirs at 256 streams: not run: no {rate}");
    }

    #[test]
    fn numbers_are_short() {
        let all = [Some(1234.5), Some(12.345), Some(1.2345), Some(0.01234), Some(-0.0001), None];
        assert_eq!(all.map(number).join(" "), "1234 12.3 1.23 0.012 0.000 n/a");
        let all = [Some(12.3), Some(1.23), Some(0.123), Some(0.0123), None];
        assert_eq!(all.map(rough).join(" "), "12 1.2 0.12 0.012 n/a");
        let all = [Some(0.5), Some(-0.5), Some(0.0001), Some(0.0), None];
        assert_eq!(all.map(signed).join(" "), "+0.500 -0.500 0.000 0.000 n/a");
    }
}
