//! Raw records and histograms, for other programs.
//!
//! A record is written as it is read, so any number of them take the memory of one.

use crate::csv::as_text;
use crate::error::ReportError;
use scalebeam_model::metrics::Metric;
use scalebeam_model::request::RequestRecord;
use scalebeam_model::stats::histogram::Histogram;
use scalebeam_model::units::Nanos;
use serde_json::{Value, json};
use std::io::{self, Write};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// A row a request; arrivals are counted.
    Csv,
    /// An object a line, with every arrival.
    Jsonl,
}

/// Which trial a record is of.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Deployment name.
    pub deployment: &'a str,
    /// Load name.
    pub load: &'a str,
    /// Level label.
    pub level: &'a str,
    /// From 1.
    pub trial: u32,
}

pub(crate) const PLACE: [&str; 4] = ["deploy", "load", "level", "trial"];

type Cell = fn(&RequestRecord) -> String;

/// Columns of a record. Instants are of the run's monotonic clock.
const CELLS: &[(&str, Cell)] = &[
    ("index", |r| r.index.to_string()),
    ("phase", |r| r.phase.to_string()),
    ("class", |r| r.class.clone()),
    ("target", |r| r.target.to_string()),
    ("prompts", |r| r.prompts.to_string()),
    ("session", |r| optional(r.session)),
    ("turn", |r| optional(r.turn)),
    ("scheduled_at_ns", |r| r.scheduled_at.0.to_string()),
    ("sent_at_ns", |r| instant(r.sent_at)),
    ("first_byte_at_ns", |r| instant(r.first_byte_at)),
    ("first_token_at_ns", |r| instant(r.first_token_at)),
    ("first_answer_at_ns", |r| instant(r.first_answer_at)),
    ("last_token_at_ns", |r| instant(r.last_token_at)),
    ("finished_at_ns", |r| r.finished_at.0.to_string()),
    ("arrivals", |r| r.arrivals.len().to_string()),
    ("chunks", |r| r.chunks().to_string()),
    ("prompt_tokens", |r| optional(r.prompt_tokens)),
    ("cached_prompt_tokens", |r| optional(r.cached_prompt_tokens)),
    ("output_tokens", |r| optional(r.output_tokens)),
    ("token_source", |r| optional(r.token_source.map(|s| s.name()))),
    ("reasoning_tokens", |r| optional(r.reasoning_tokens)),
    ("reasoning_source", |r| optional(r.reasoning_source.map(|s| s.name()))),
    ("asked_input_tokens", |r| optional(r.asked_input_tokens)),
    ("asked_output_tokens", |r| r.asked_output_tokens.to_string()),
    ("forced_length", |r| r.forced_length.to_string()),
    ("finish_reason", |r| optional(r.finish_reason.as_deref())),
    ("outcome", |r| r.outcome.to_string()),
    ("failure_class", |r| optional(r.failure.as_ref().map(|f| f.class))),
    ("failure_status", |r| optional(r.failure.as_ref().and_then(|f| f.status))),
    ("failure_detail", |r| optional(r.failure.as_ref().map(|f| &f.detail))),
    ("unparsed_events", |r| r.unparsed_events.to_string()),
    ("resent", |r| r.resent.to_string()),
    ("connect_ns", |r| instant(r.connect)),
    ("worker", |r| r.worker.to_string()),
];

fn instant(at: Option<Nanos>) -> String {
    optional(at.map(|n| n.0))
}

pub(crate) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// Writes records one after the other.
#[derive(Debug)]
pub struct RecordWriter<W: Write> {
    out: Out<W>,
}

#[derive(Debug)]
enum Out<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Jsonl(W),
}

impl<W: Write> RecordWriter<W> {
    /// Begins, with the head of a table.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(format: RecordFormat, out: W) -> io::Result<Self> {
        let out = match format {
            RecordFormat::Jsonl => Out::Jsonl(out),
            RecordFormat::Csv => {
                let mut out = csv::Writer::from_writer(out);
                out.write_record(PLACE.iter().chain(CELLS.iter().map(|(name, _)| name)))?;
                Out::Csv(Box::new(out))
            }
        };
        Ok(Self { out })
    }

    /// Writes a record of a trial.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, place: Place<'_>, record: &RequestRecord) -> io::Result<()> {
        match &mut self.out {
            Out::Csv(out) => {
                let number = place.trial.to_string();
                for cell in [place.deployment, place.load, place.level, &number] {
                    out.write_field(cell)?;
                }
                for (_, cell) in CELLS {
                    out.write_field(cell(record))?;
                }
                out.write_record(None::<&[u8]>)?;
            }
            Out::Jsonl(out) => {
                let mut line = json!({
                    PLACE[0]: place.deployment,
                    PLACE[1]: place.load,
                    PLACE[2]: place.level,
                    PLACE[3]: place.trial,
                });
                let record = serde_json::to_value(record)?;
                if let (Value::Object(line), Value::Object(record)) = (&mut line, record) {
                    line.extend(record);
                }
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Hands over what waits.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        match self.out {
            Out::Csv(mut out) => out.flush(),
            Out::Jsonl(mut out) => out.flush(),
        }
    }
}

/// The samples of a metric at a point, all trials pooled.
#[derive(Debug, Clone)]
pub struct PointHistogram {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// What is counted.
    pub metric: &'static Metric,
    /// The counts.
    pub histogram: Histogram,
}

/// A row a bucket.
///
/// # Errors
/// Only when memory cannot be written.
pub fn histograms_csv(all: &[PointHistogram]) -> Result<String, ReportError> {
    as_text(|out| {
        out.write_record(["deploy", "load", "level", "metric", "unit", "low", "high", "count"])?;
        for of in all {
            for bucket in of.histogram.buckets() {
                let ends =
                    [bucket.low.to_string(), bucket.high.to_string(), bucket.count.to_string()];
                let names =
                    [of.deployment.as_str(), &of.load, &of.level, of.metric.name, of.metric.unit];
                out.write_record(names.into_iter().chain(ends.iter().map(String::as_str)))?;
            }
        }
        Ok(())
    })
}

/// The same as JSON, with the error of the buckets.
pub fn histograms_json(all: &[PointHistogram]) -> Value {
    let of = |h: &PointHistogram| {
        json!({
            "deployment": h.deployment,
            "load": h.load,
            "level": h.level,
            "metric": h.metric.name,
            "unit": h.metric.unit,
            "relative_error": h.histogram.relative_error(),
            "count": h.histogram.count(),
            "buckets": h.histogram.buckets(),
        })
    };
    all.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::metrics;
    use scalebeam_model::request::{Arrival, Failure, FailureClass, Outcome, Phase};

    fn record() -> RequestRecord {
        let mut r = RequestRecord::new(3, Phase::Measure, 1, Nanos(5));
        r.class = "a \"b\", c".to_owned();
        r.arrivals = vec![Arrival::new(Nanos(9), 2, Nanos(9))];
        r.outcome = Outcome::Failed;
        r.failure =
            Some(Failure { class: FailureClass::Reset, status: None, detail: "x\ny".to_owned() });
        r
    }

    fn written(format: RecordFormat) -> String {
        let mut bytes = Vec::new();
        let mut out = RecordWriter::new(format, &mut bytes).unwrap();
        let place = Place { deployment: "d", load: "l", level: "c8", trial: 2 };
        out.write(place, &record()).unwrap();
        out.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_record_is_a_row_of_cells_and_what_is_absent_is_empty() {
        let text = written(RecordFormat::Csv);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let cell = |name: &str| &row[head.iter().position(|h| h == name).unwrap()];
        assert_eq!((cell("deploy"), cell("trial"), cell("index")), ("d", "2", "3"));
        assert_eq!((cell("class"), cell("failure_detail")), ("a \"b\", c", "x\ny"));
        assert_eq!((cell("chunks"), cell("sent_at_ns"), cell("outcome")), ("2", "", "failed"));
    }

    #[test]
    fn a_record_is_a_line_that_reads_back_as_it_was() {
        let text = written(RecordFormat::Jsonl);
        assert_eq!(text.matches('\n').count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["deploy"], &line["trial"]), (&"d".into(), &2.into()));
        assert_eq!(serde_json::from_value::<RequestRecord>(line).unwrap(), record());
    }

    #[test]
    fn a_histogram_is_written_with_its_ends() {
        let mut histogram = Histogram::new(1.0 / 3.0);
        [0.0, 1.5, 1.6].into_iter().for_each(|v| histogram.add(v));
        let metric = metrics::find("ttft").unwrap();
        let [deployment, load, level] = ["d", "l", "c8"].map(str::to_owned);
        let all = [PointHistogram { deployment, load, level, metric, histogram }];
        let text = histograms_csv(&all).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("deploy,load,level,metric,unit,low,high,count"));
        assert_eq!(lines.next(), Some("d,l,c8,ttft_ms,ms,0,0,1"));
        let last: Vec<&str> = lines.next().unwrap().split(',').collect();
        assert_eq!((last[5].parse::<f64>().unwrap().round(), last[7]), (1.0, "2"));
        assert_eq!(histograms_json(&all)[0]["count"], 3);
    }
}
