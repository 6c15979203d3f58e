//! `engines.parquet`: what the engines said at each look at them, a row a number.
//!
//! Columns: `look` (its number, from zero), `asked_at`, `answered_at` (ns of the session's monotonic clock,
//! between which the number was true), `instance`, `part`, `role`, `answered`, `metric` (our word for it), `value`
//! (of a counter: since the engine was started). An instance that said nothing, or did not answer, is a row
//! without metric and value.

use crate::digest;
use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::read::{guarded, open_parquet};
use crate::seal::Table;
use crate::table::{Columns, at, batch};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use scalebeam_model::engine_metrics::{Part, Said, Word};
use scalebeam_model::plan::Role;
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const UNITS: &str = "*_at: ns of the session's monotonic clock (see manifest.json), before an instance was asked \
    and after its answer was there; value: seconds, bytes, tokens, requests or a share, of counters since the engine \
    was started; an instance that did not answer has no metric and no value, never 0";

/// A number that was said, or that nothing was.
type Row<'a> = (usize, &'a Said, Option<(Word, f64)>);

/// Writes what was said in the trial in `dir`.
pub(crate) fn write(dir: &Path, looks: &[Vec<Said>]) -> Result<(), RecordError> {
    let path = dir.join(layout::ENGINES);
    let notes = vec![("scalebeam.units", UNITS.to_owned())];
    let mut table = Table::new(&path, notes, &["asked_at", "answered_at"]);
    table.write(&as_batch(&rows(looks))?)?;
    table.close()?;
    file::publish(&file::temporary(&path), &path)
}

fn rows(looks: &[Vec<Said>]) -> Vec<Row<'_>> {
    let mut out = Vec::new();
    for (look, said) in looks.iter().enumerate().flat_map(|(i, l)| l.iter().map(move |s| (i, s))) {
        match said.numbers.as_ref().filter(|numbers| !numbers.is_empty()) {
            None => out.push((look, said, None)),
            Some(numbers) => out.extend(numbers.iter().map(|(w, n)| (look, said, Some((*w, *n))))),
        }
    }
    out
}

fn as_batch(rows: &[Row<'_>]) -> Result<RecordBatch, RecordError> {
    let times = |of: fn(&Said) -> Nanos| -> UInt64Array {
        rows.iter().map(|(_, said, _)| Some(of(said).0)).collect()
    };
    let texts = |of: fn(&Said) -> &str| -> StringArray {
        rows.iter().map(|(_, said, _)| Some(of(said))).collect()
    };
    let answered: BooleanArray =
        rows.iter().map(|(_, said, _)| Some(said.numbers.is_some())).collect();
    let looks: UInt32Array = rows.iter().map(|(look, ..)| u32::try_from(*look).ok()).collect();
    let metrics: StringArray = rows.iter().map(|(.., n)| n.map(|(word, _)| word.name())).collect();
    let values: Float64Array = rows.iter().map(|(.., n)| n.map(|(_, value)| value)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("look", Arc::new(looks)),
        ("asked_at", Arc::new(times(|s| s.asked_at))),
        ("answered_at", Arc::new(times(|s| s.answered_at))),
        ("instance", Arc::new(texts(|s| s.instance.as_str()))),
        ("part", Arc::new(texts(|s| s.part.name()))),
        ("role", Arc::new(texts(|s| s.role.name()))),
        ("answered", Arc::new(answered)),
        ("metric", Arc::new(metrics)),
        ("value", Arc::new(values)),
    ];
    batch(columns)
}

/// What was said in the trial in `dir`; nothing where its engines were not looked at.
///
/// # Errors
/// When the file is damaged, or not the one that was sealed.
pub(crate) fn read(dir: &Path) -> Result<Vec<Vec<Said>>, RecordError> {
    let path = dir.join(layout::ENGINES);
    if !path.exists() {
        return Ok(Vec::new());
    }
    if dir.join(layout::REQUESTS).exists() {
        digest::verify_engines(dir)?;
    }
    guarded(&path, "it has impossible metadata", || read_file(&path))
}

fn read_file(path: &Path) -> Result<Vec<Vec<Said>>, RecordError> {
    let (_, batches) = open_parquet(path)?;
    let failed = RecordError::parquet("read", path);
    let mut looks: BTreeMap<u32, Vec<Said>> = BTreeMap::new();
    for batch in batches {
        let batch = batch.map_err(|e| failed(e.into()))?;
        let rows = Rows::of(path, &batch)?;
        for row in 0..batch.num_rows() {
            let (look, said) = rows.row(row)?;
            add(looks.entry(look).or_default(), said, rows.number(row)?);
        }
    }
    Ok(looks.into_values().collect())
}

/// Adds a row to its look; the numbers of an instance follow each other.
fn add(look: &mut Vec<Said>, said: Said, number: Option<(Word, f64)>) {
    let is_new = look.last().is_none_or(|last| {
        (&last.instance, last.part, last.asked_at) != (&said.instance, said.part, said.asked_at)
    });
    if is_new {
        look.push(said);
    }
    if let (Some(last), Some((word, value))) = (look.last_mut(), number) {
        last.numbers.get_or_insert_default().insert(word, value);
    }
}

/// Columns of a batch.
struct Rows<'a> {
    columns: Columns<'a>,
    look: &'a UInt32Array,
    asked: &'a UInt64Array,
    answered_at: &'a UInt64Array,
    instance: &'a StringArray,
    part: &'a StringArray,
    role: &'a StringArray,
    answered: &'a BooleanArray,
    metric: &'a StringArray,
    value: &'a Float64Array,
}

impl<'a> Rows<'a> {
    fn of(path: &'a Path, batch: &'a RecordBatch) -> Result<Self, RecordError> {
        let columns = Columns { path, batch };
        Ok(Self {
            look: columns.get("look")?,
            asked: columns.get("asked_at")?,
            answered_at: columns.get("answered_at")?,
            instance: columns.get("instance")?,
            part: columns.get("part")?,
            role: columns.get("role")?,
            answered: columns.get("answered")?,
            metric: columns.get("metric")?,
            value: columns.get("value")?,
            columns,
        })
    }

    /// The look of a row, and who said it.
    fn row(&self, row: usize) -> Result<(u32, Said), RecordError> {
        let instance = self.columns.need(at(self.instance, row), "instance", row)?.to_owned();
        let answered = self.columns.need(at(self.answered, row), "answered", row)?;
        let said = Said {
            instance,
            part: self.columns.need(at(self.part, row).and_then(Part::from_name), "part", row)?,
            role: self.columns.need(at(self.role, row).and_then(Role::from_name), "role", row)?,
            asked_at: self.columns.need(at(self.asked, row).map(Nanos), "asked_at", row)?,
            answered_at: self.columns.need(
                at(self.answered_at, row).map(Nanos),
                "answered_at",
                row,
            )?,
            numbers: answered.then(BTreeMap::new),
        };
        let look = self.columns.need(at(self.look, row), "look", row)?;
        Ok((look, said))
    }

    fn number(&self, row: usize) -> Result<Option<(Word, f64)>, RecordError> {
        let Some(name) = at(self.metric, row) else { return Ok(None) };
        let word = self.columns.need(Word::from_name(name), "metric", row)?;
        Ok(Some((word, self.columns.need(at(self.value, row), "value", row)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(instance: &str, at: u64, numbers: Option<&[(Word, f64)]>) -> Said {
        Said {
            instance: instance.to_owned(),
            part: Part::Engine,
            role: Role::Decode,
            asked_at: Nanos(at),
            answered_at: Nanos(at + 5),
            numbers: numbers.map(|n| n.iter().copied().collect()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Vec::<Vec<Said>>::new());
        let numbers = [(Word::Queued, 3.0), (Word::GenerationTokens, 1e15 + 1.0)];
        let looks = vec![
            vec![said("one", 1, Some(&numbers)), said("two", 1, Some(&numbers[..1]))],
            vec![said("one", 1_000, None), said("two", 1_000, Some(&[]))],
        ];
        write(dir.path(), &looks).unwrap();
        assert_eq!(read(dir.path()).unwrap(), looks);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[vec![said("one", 1, None)]]).unwrap();
        let path = dir.path().join(layout::ENGINES);
        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, 10, bytes.len() / 2, bytes.len() - 9] {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            assert!(read(dir.path()).is_err(), "{keep} bytes of {}", bytes.len());
        }
    }
}
