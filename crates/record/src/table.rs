//! Records as columns: the two Parquet files of a sealed trial.
//!
//! `requests.parquet` has one row a request. `tokens.parquet` has one row an arrival of output, in the
//! order of the requests; its instants are delta-coded: the first of a request against `scheduled_at`,
//! every other against the one before. Both directions are exact for every record, also an absurd one.
//!
//! Columns are found by name, so a later minor version may add some.

use crate::error::RecordError;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt16Array, UInt32Array,
    UInt64Array,
};
use scalebeam_model::request::{
    Arrival, Failure, FailureClass, Outcome, Phase, RequestRecord, TokenSource,
};
use scalebeam_model::units::Nanos;
use std::path::Path;
use std::sync::Arc;

/// Units and meaning of the columns, written into the files.
pub(crate) const UNIT_NOTES: &str = "*_at: ns of the session's monotonic clock (see manifest.json); \
    connect_ns: ns; tokens.delta_ns: ns after the previous arrival of the request, the first after \
    scheduled_at; tokens.lag_ns: ns from then until the client had read it; absent values are null, never 0";

fn instants(
    records: &[RequestRecord],
    get: impl Fn(&RequestRecord) -> Option<Nanos>,
) -> UInt64Array {
    records.iter().map(|r| get(r).map(|n| n.0)).collect()
}

fn texts<'a>(
    records: &'a [RequestRecord],
    get: impl Fn(&'a RequestRecord) -> Option<&'a str>,
) -> StringArray {
    records.iter().map(get).collect()
}

/// The rows of `requests.parquet`.
pub(crate) fn requests(records: &[RequestRecord]) -> Result<RecordBatch, RecordError> {
    let u32s = |get: fn(&RequestRecord) -> Option<u32>| -> UInt32Array {
        records.iter().map(get).collect()
    };
    let u16s = |get: fn(&RequestRecord) -> Option<u16>| -> UInt16Array {
        records.iter().map(get).collect()
    };
    let index: UInt64Array = records.iter().map(|r| Some(r.index)).collect();
    let arrivals: UInt64Array = records.iter().map(|r| Some(r.arrivals.len() as u64)).collect();
    let forced: BooleanArray = records.iter().map(|r| Some(r.forced_length)).collect();
    let failure = |r: &RequestRecord| r.failure.as_ref().map(|f| f.class.name());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("index", Arc::new(index)),
        ("phase", Arc::new(texts(records, |r| Some(phase_name(r.phase))))),
        ("class", Arc::new(texts(records, |r| Some(&r.class)))),
        ("target", Arc::new(u16s(|r| Some(r.target)))),
        ("prompts", Arc::new(u32s(|r| Some(r.prompts)))),
        ("session", Arc::new(records.iter().map(|r| r.session).collect::<UInt64Array>())),
        ("turn", Arc::new(u32s(|r| r.turn))),
        ("scheduled_at", Arc::new(instants(records, |r| Some(r.scheduled_at)))),
        ("sent_at", Arc::new(instants(records, |r| r.sent_at))),
        ("first_byte_at", Arc::new(instants(records, |r| r.first_byte_at))),
        ("first_token_at", Arc::new(instants(records, |r| r.first_token_at))),
        ("first_answer_at", Arc::new(instants(records, |r| r.first_answer_at))),
        ("last_token_at", Arc::new(instants(records, |r| r.last_token_at))),
        ("finished_at", Arc::new(instants(records, |r| Some(r.finished_at)))),
        ("arrivals", Arc::new(arrivals)),
        ("prompt_tokens", Arc::new(u32s(|r| r.prompt_tokens))),
        ("cached_prompt_tokens", Arc::new(u32s(|r| r.cached_prompt_tokens))),
        ("output_tokens", Arc::new(u32s(|r| r.output_tokens))),
        ("token_source", Arc::new(texts(records, |r| r.token_source.map(TokenSource::name)))),
        ("reasoning_tokens", Arc::new(u32s(|r| r.reasoning_tokens))),
        (
            "reasoning_source",
            Arc::new(texts(records, |r| r.reasoning_source.map(TokenSource::name))),
        ),
        ("asked_input_tokens", Arc::new(u32s(|r| r.asked_input_tokens))),
        ("asked_output_tokens", Arc::new(u32s(|r| Some(r.asked_output_tokens)))),
        ("forced_length", Arc::new(forced)),
        ("finish_reason", Arc::new(texts(records, |r| r.finish_reason.as_deref()))),
        ("outcome", Arc::new(texts(records, |r| Some(r.outcome.name())))),
        ("failure_class", Arc::new(texts(records, failure))),
        ("failure_status", Arc::new(u16s(|r| r.failure.as_ref()?.status))),
        ("failure_detail", Arc::new(texts(records, |r| Some(r.failure.as_ref()?.detail.as_str())))),
        ("unparsed_events", Arc::new(u32s(|r| Some(r.unparsed_events)))),
        ("resent", Arc::new(records.iter().map(|r| Some(r.resent)).collect::<BooleanArray>())),
        ("connect_ns", Arc::new(instants(records, |r| r.connect))),
        ("worker", Arc::new(u16s(|r| Some(r.worker)))),
    ];
    batch(columns)
}

/// The rows of `tokens.parquet` that belong to `records`.
pub(crate) fn tokens(records: &[RequestRecord]) -> Result<RecordBatch, RecordError> {
    let rows: usize = records.iter().map(|r| r.arrivals.len()).sum();
    let mut phase = Vec::with_capacity(rows);
    let mut index = Vec::with_capacity(rows);
    let mut number = Vec::with_capacity(rows);
    let mut delta = Vec::with_capacity(rows);
    let mut chunks = Vec::with_capacity(rows);
    let mut lag = Vec::with_capacity(rows);
    for record in records {
        let mut before = record.scheduled_at.0;
        for (i, arrival) in record.arrivals.iter().enumerate() {
            phase.push(phase_name(record.phase));
            index.push(record.index);
            number.push(i as u64);
            // Wrapping is exact in both directions, whatever the instants are.
            delta.push(arrival.at.0.wrapping_sub(before).cast_signed());
            chunks.push(arrival.chunks);
            lag.push(arrival.lag_ns);
            before = arrival.at.0;
        }
    }
    batch(vec![
        ("phase", Arc::new(StringArray::from(phase))),
        ("index", Arc::new(UInt64Array::from(index))),
        ("number", Arc::new(UInt64Array::from(number))),
        ("delta_ns", Arc::new(Int64Array::from(delta))),
        ("chunks", Arc::new(UInt32Array::from(chunks))),
        ("lag_ns", Arc::new(UInt32Array::from(lag))),
    ])
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, RecordError> {
    // Nullable throughout, so that every batch of a file has one schema.
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|e| RecordError::damaged(Path::new("the records in memory"), e.to_string()))
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Warmup => "warmup",
        Phase::Measure => "measure",
    }
}

/// Columns of a batch that was read, by name.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) path: &'a Path,
    pub(crate) batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    pub(crate) fn get<A: Array + 'static>(&self, name: &str) -> Result<&'a A, RecordError> {
        self.find(name)?
            .ok_or_else(|| RecordError::damaged(self.path, format!("it has no column '{name}'")))
    }

    /// A column that files of an earlier minor version lack.
    fn find<A: Array + 'static>(&self, name: &str) -> Result<Option<&'a A>, RecordError> {
        let Some(column) = self.batch.column_by_name(name) else { return Ok(None) };
        column.as_any().downcast_ref().map(Some).ok_or_else(|| {
            let why = format!("column '{name}' has type {}", column.data_type());
            RecordError::damaged(self.path, why)
        })
    }

    /// A column that runs of an earlier minor version do not have.
    fn since<A: Array + 'static>(&self, name: &str) -> Result<Option<&'a A>, RecordError> {
        self.batch.column_by_name(name).map(|_| self.get(name)).transpose()
    }

    pub(crate) fn need<T>(
        &self,
        value: Option<T>,
        name: &str,
        row: usize,
    ) -> Result<T, RecordError> {
        value.ok_or_else(|| {
            RecordError::damaged(
                self.path,
                format!("column '{name}' has no legal value in row {row}"),
            )
        })
    }
}

pub(crate) fn at<'a, A>(
    array: &'a A,
    row: usize,
) -> Option<<&'a A as arrow_array::ArrayAccessor>::Item>
where
    &'a A: arrow_array::ArrayAccessor,
{
    use arrow_array::ArrayAccessor;
    (!array.is_null(row)).then(|| array.value(row))
}

/// Reads rows of `requests.parquet`; each comes with the number of its arrivals.
pub(crate) fn read_requests(
    path: &Path,
    batch: &RecordBatch,
) -> Result<Vec<(RequestRecord, u64)>, RecordError> {
    let columns = Columns { path, batch };
    let times = |name| columns.get::<UInt64Array>(name);
    let counts = |name| columns.get::<UInt32Array>(name);
    let shorts = |name| columns.get::<UInt16Array>(name);
    let words = |name| columns.get::<StringArray>(name);
    let (index, phase, class) = (times("index")?, words("phase")?, words("class")?);
    let (target, prompts) = (shorts("target")?, counts("prompts")?);
    let (scheduled, sent) = (times("scheduled_at")?, times("sent_at")?);
    let (first_byte, first_token) = (times("first_byte_at")?, times("first_token_at")?);
    let (last_token, finished) = (times("last_token_at")?, times("finished_at")?);
    let (arrivals, connect) = (times("arrivals")?, times("connect_ns")?);
    let (prompt_tokens, output_tokens) = (counts("prompt_tokens")?, counts("output_tokens")?);
    // Format 1.1 had none of these.
    let first_answer = columns.since::<UInt64Array>("first_answer_at")?;
    let reasoning = columns.since::<UInt32Array>("reasoning_tokens")?;
    let reasoning_source = columns.since::<StringArray>("reasoning_source")?;
    let cached = columns.since::<UInt32Array>("cached_prompt_tokens")?;
    let session = columns.since::<UInt64Array>("session")?;
    let turn = columns.since::<UInt32Array>("turn")?;
    let (source, reason) = (words("token_source")?, words("finish_reason")?);
    let (asked_in, asked_out) = (counts("asked_input_tokens")?, counts("asked_output_tokens")?);
    let flags = |name| columns.get::<BooleanArray>(name);
    let (forced, resent) = (flags("forced_length")?, flags("resent")?);
    let (outcome, failure) = (words("outcome")?, words("failure_class")?);
    let (status, detail) = (shorts("failure_status")?, words("failure_detail")?);
    let (unparsed, worker) = (counts("unparsed_events")?, shorts("worker")?);
    let nanos = |array, row| at(array, row).map(Nanos);
    let mut records = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let phase = columns.need(at(phase, row).and_then(phase_from), "phase", row)?;
        let target = columns.need(at(target, row), "target", row)?;
        let due = columns.need(nanos(scheduled, row), "scheduled_at", row)?;
        let index = columns.need(at(index, row), "index", row)?;
        let mut r = RequestRecord::new(index, phase, target, due);
        r.class = columns.need(at(class, row), "class", row)?.to_owned();
        r.prompts = columns.need(at(prompts, row), "prompts", row)?;
        r.session = session.and_then(|c| at(c, row));
        r.turn = turn.and_then(|c| at(c, row));
        r.sent_at = nanos(sent, row);
        r.first_byte_at = nanos(first_byte, row);
        r.first_token_at = nanos(first_token, row);
        r.first_answer_at = first_answer.and_then(|c| nanos(c, row));
        r.last_token_at = nanos(last_token, row);
        r.finished_at = columns.need(nanos(finished, row), "finished_at", row)?;
        r.prompt_tokens = at(prompt_tokens, row);
        r.cached_prompt_tokens = cached.and_then(|c| at(c, row));
        r.output_tokens = at(output_tokens, row);
        r.token_source = named(&columns, source, "token_source", row, TokenSource::from_name)?;
        r.reasoning_tokens = reasoning.and_then(|c| at(c, row));
        if let Some(source) = reasoning_source {
            let from = TokenSource::from_name;
            r.reasoning_source = named(&columns, source, "reasoning_source", row, from)?;
        }
        r.asked_input_tokens = at(asked_in, row);
        r.asked_output_tokens = columns.need(at(asked_out, row), "asked_output_tokens", row)?;
        r.forced_length = columns.need(at(forced, row), "forced_length", row)?;
        r.finish_reason = at(reason, row).map(str::to_owned);
        let ended = at(outcome, row).and_then(Outcome::from_name);
        r.outcome = columns.need(ended, "outcome", row)?;
        let class = named(&columns, failure, "failure_class", row, FailureClass::from_name)?;
        let detail = at(detail, row).unwrap_or_default();
        r.failure = class.map(|class| Failure {
            class,
            status: at(status, row),
            detail: detail.to_owned(),
        });
        r.unparsed_events = columns.need(at(unparsed, row), "unparsed_events", row)?;
        r.resent = columns.need(at(resent, row), "resent", row)?;
        r.connect = nanos(connect, row);
        r.worker = columns.need(at(worker, row), "worker", row)?;
        records.push((r, columns.need(at(arrivals, row), "arrivals", row)?));
    }
    Ok(records)
}

fn phase_from(name: &str) -> Option<Phase> {
    [Phase::Warmup, Phase::Measure].into_iter().find(|p| phase_name(*p) == name)
}

/// An absent name is absent; a name that is not known is damage.
fn named<T>(
    columns: &Columns<'_>,
    array: &StringArray,
    name: &str,
    row: usize,
    from: fn(&str) -> Option<T>,
) -> Result<Option<T>, RecordError> {
    at(array, row).map(|text| columns.need(from(text), name, row)).transpose()
}

/// One row of `tokens.parquet`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenRow {
    pub(crate) index: u64,
    pub(crate) delta_ns: i64,
    pub(crate) chunks: u32,
    pub(crate) lag_ns: u32,
}

impl TokenRow {
    /// The arrival, given the instant before it.
    pub(crate) fn after(self, before: Nanos) -> Arrival {
        let at = Nanos(before.0.wrapping_add_signed(self.delta_ns));
        Arrival { at, chunks: self.chunks, lag_ns: self.lag_ns }
    }
}

/// Reads rows of `tokens.parquet`.
pub(crate) fn read_tokens(path: &Path, batch: &RecordBatch) -> Result<Vec<TokenRow>, RecordError> {
    let columns = Columns { path, batch };
    let index = columns.get::<UInt64Array>("index")?;
    let delta = columns.get::<Int64Array>("delta_ns")?;
    let chunks = columns.get::<UInt32Array>("chunks")?;
    // Format 1.0 had none.
    let lag = columns.find::<UInt32Array>("lag_ns")?;
    (0..batch.num_rows())
        .map(|row| {
            Ok(TokenRow {
                index: columns.need(at(index, row), "index", row)?,
                delta_ns: columns.need(at(delta, row), "delta_ns", row)?,
                chunks: columns.need(at(chunks, row), "chunks", row)?,
                lag_ns: lag.and_then(|lag| at(lag, row)).unwrap_or(0),
            })
        })
        .collect()
}
