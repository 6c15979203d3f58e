//! Turning the open segment of an ended trial into Parquet.
//!
//! The steps are ordered so that a kill between any two leaves one readable source: both tables are
//! written and synced under temporary names, and their digests beside them; `tokens.parquet` gets its name, then `requests.parquet`,
//! whose presence says that both are whole; only then is the segment removed. Doing it again from any
//! of these states ends in the same state.

use crate::digest;
use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::segment::SegmentReader;
use crate::table;
use crate::trial::TrialFile;
use crate::version::StoreFormat;
use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use scalebeam_model::request::RequestRecord;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Key of the format version in a file's metadata.
pub(crate) const FORMAT_KEY: &str = "scalebeam.format";

/// Requests and arrivals held in memory at a time.
const MAX_REQUESTS: usize = 4096;
const MAX_ARRIVALS: usize = 1 << 18;

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    TablesWritten,
    TokensPublished,
    RequestsPublished,
    SegmentRemoved,
}

/// Seals the trial in `dir`, whose state file says that it has ended.
pub(crate) fn seal(dir: &Path, trial: &TrialFile) -> Result<(), RecordError> {
    seal_up_to(dir, trial, Step::SegmentRemoved)
}

pub(crate) fn seal_up_to(dir: &Path, trial: &TrialFile, last: Step) -> Result<(), RecordError> {
    let segment = dir.join(layout::SEGMENT);
    let requests = dir.join(layout::REQUESTS);
    let tokens = dir.join(layout::TOKENS);
    if !requests.exists() {
        write_tables(&segment, &requests, &tokens, trial)?;
        digest::remember(dir)?;
        if last == Step::TablesWritten {
            return Ok(());
        }
        file::publish(&file::temporary(&tokens), &tokens)?;
        if last == Step::TokensPublished {
            return Ok(());
        }
        file::publish(&file::temporary(&requests), &requests)?;
    }
    if last == Step::RequestsPublished {
        return Ok(());
    }
    if segment.exists() {
        std::fs::remove_file(&segment).map_err(RecordError::io("remove", &segment))?;
        file::sync_dir(dir)?;
    }
    Ok(())
}

fn write_tables(
    segment: &Path,
    requests: &Path,
    tokens: &Path,
    trial: &TrialFile,
) -> Result<(), RecordError> {
    let mut reader = SegmentReader::open(segment)?;
    let mut requests = Table::new(requests, notes(requests, trial)?, &[]);
    let deltas = &["delta_ns", "index", "number"];
    let mut tokens = Table::new(tokens, notes(tokens, trial)?, deltas);
    let mut batch: Vec<RequestRecord> = Vec::new();
    let mut arrivals = 0;
    let mut total = 0_u64;
    while let Some(record) = reader.next_record()? {
        arrivals += record.arrivals.len();
        total += 1;
        batch.push(record);
        if batch.len() >= MAX_REQUESTS || arrivals >= MAX_ARRIVALS {
            requests.write(&table::requests(&batch)?)?;
            tokens.write(&table::tokens(&batch)?)?;
            batch.clear();
            arrivals = 0;
        }
    }
    let expected = trial.ended.as_ref().map_or(total, |e| e.records);
    if total != expected || reader.torn() > 0 {
        let why = format!("it holds {total} records where the trial made {expected}");
        return Err(RecordError::damaged(segment, why));
    }
    // Also where it is empty: a file without rows still has a schema.
    requests.write(&table::requests(&batch)?)?;
    tokens.write(&table::tokens(&batch)?)?;
    requests.close()?;
    tokens.close()
}

/// What the tables of a trial say of themselves, besides their format.
fn notes(path: &Path, trial: &TrialFile) -> Result<Vec<(&'static str, String)>, RecordError> {
    let json = serde_json::to_string(trial).map_err(RecordError::json(path))?;
    Ok(vec![
        ("scalebeam.point", trial.point.clone()),
        ("scalebeam.trial", trial.trial.to_string()),
        ("scalebeam.trial_json", json),
        ("scalebeam.units", table::UNIT_NOTES.to_owned()),
    ])
}

/// A Parquet file under its temporary name.
pub(crate) struct Table {
    path: PathBuf,
    properties: WriterProperties,
    writer: Option<ArrowWriter<File>>,
}

impl Table {
    /// `notes` stand in the file beside its format. `deltas` are columns whose values lie close together, and so
    /// are stored as differences.
    pub(crate) fn new(path: &Path, notes: Vec<(&str, String)>, deltas: &[&str]) -> Self {
        let format = (FORMAT_KEY, StoreFormat::CURRENT.to_string());
        let notes = [format].into_iter().chain(notes);
        let notes = notes.map(|(k, v)| KeyValue::new(k.to_owned(), v)).collect();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(notes));
        for name in deltas {
            let column = ColumnPath::from(*name);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        Self { path: path.to_owned(), properties: properties.build(), writer: None }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), RecordError> {
        let failed = RecordError::parquet("write", &self.path);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let beside = file::temporary(&self.path);
                let out = File::create(&beside).map_err(RecordError::io("create", &beside))?;
                let made = ArrowWriter::try_new(out, batch.schema(), Some(self.properties.clone()));
                self.writer.insert(made.map_err(&failed)?)
            }
        };
        writer.write(batch).map_err(failed)
    }

    pub(crate) fn close(self) -> Result<(), RecordError> {
        let failed = RecordError::parquet("write", &self.path);
        let Some(writer) = self.writer else { return Ok(()) };
        let out = writer.into_inner().map_err(failed)?;
        out.sync_all().map_err(RecordError::io("sync", &self.path))
    }
}
