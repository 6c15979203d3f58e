//! `telemetry.parquet`: one long table of a trial, a row a reading.
//!
//! Columns: `from_at`, `to_at` (ns of the session's monotonic clock, between which the value was true),
//! `host`, `device` (what kind of thing), `name`, `index`, `role`, `metric` (its name ends in its unit),
//! `value`. What could not be read is a row without a value, whose `reason` says why: absent, never zero.

use crate::digest;
use crate::error::RecordError;
use crate::file;
use crate::layout;
use crate::read::{guarded, open_parquet};
use crate::seal::Table;
use crate::table::{Columns, at, batch};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use scalebeam_model::plan::Role;
use scalebeam_model::telemetry::{Absent, Device, Part, Quantity, Reading, Series, Telemetry};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const INTERVAL_KEY: &str = "scalebeam.interval_ns";
const CLOCKS_KEY: &str = "scalebeam.clocks";
const UNITS: &str = "*_at: ns of the session's monotonic clock (see manifest.json), before a value was asked \
    for and after it was there; value: in the unit at the end of metric's name; absent is null, never 0";

/// Writes the readings of the trial in `dir`.
pub(crate) fn write(dir: &Path, telemetry: &Telemetry) -> Result<(), RecordError> {
    let path = dir.join(layout::TELEMETRY);
    let mut notes = vec![
        (INTERVAL_KEY, telemetry.interval.0.to_string()),
        ("scalebeam.units", UNITS.to_owned()),
    ];
    if !telemetry.clocks.is_empty() {
        notes.push((CLOCKS_KEY, serde_json::to_string(&telemetry.clocks).unwrap_or_default()));
    }
    let mut table = Table::new(&path, notes, &["from_at", "to_at"]);
    table.write(&rows(telemetry)?)?;
    table.close()?;
    file::publish(&file::temporary(&path), &path)
}

fn rows(telemetry: &Telemetry) -> Result<RecordBatch, RecordError> {
    let readings = || telemetry.series.iter().flat_map(|s| s.readings.iter().map(move |r| (s, r)));
    let absent = &telemetry.absent;
    let none = || absent.iter().map(|_| None::<&str>);
    let times = |of: fn(&Reading) -> Nanos| -> UInt64Array {
        readings().map(|(_, r)| Some(of(r).0)).chain(absent.iter().map(|_| None)).collect()
    };
    let hosts = readings().map(|(s, _)| Some(s.device.host.as_str()));
    let parts = readings().map(|(s, _)| Some(s.device.part.name()));
    let names = readings().map(|(s, _)| Some(s.device.name.as_str()));
    let indices = readings().map(|(s, _)| s.device.index).chain(absent.iter().map(|_| None));
    let roles = readings().map(|(s, _)| s.device.role.map(Role::name));
    let metrics = readings().map(|(s, _)| Some(s.quantity.name()));
    let values = readings().map(|(_, r)| Some(r.value)).chain(absent.iter().map(|_| None));
    let reasons = readings().map(|_| None).chain(absent.iter().map(|a| Some(a.why.as_str())));
    let host: StringArray = hosts.chain(absent.iter().map(|a| Some(a.host.as_str()))).collect();
    let name: StringArray = names.chain(absent.iter().map(|a| Some(a.what.as_str()))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("from_at", Arc::new(times(|r| r.from))),
        ("to_at", Arc::new(times(|r| r.to))),
        ("host", Arc::new(host)),
        ("device", Arc::new(parts.chain(none()).collect::<StringArray>())),
        ("name", Arc::new(name)),
        ("index", Arc::new(indices.collect::<UInt32Array>())),
        ("role", Arc::new(roles.chain(none()).collect::<StringArray>())),
        ("metric", Arc::new(metrics.chain(none()).collect::<StringArray>())),
        ("value", Arc::new(values.collect::<Float64Array>())),
        ("reason", Arc::new(reasons.collect::<StringArray>())),
    ];
    batch(columns)
}

/// The readings of the trial in `dir`; nothing where its machines were not watched.
pub(crate) fn read(dir: &Path) -> Result<Option<Telemetry>, RecordError> {
    let path = dir.join(layout::TELEMETRY);
    if !path.exists() {
        return Ok(None);
    }
    guarded(&path, "it has impossible metadata", || read_file(&path)).map(Some)
}

/// The readings of the trial in `dir`. A damaged file must not cost the point its requests: what is then
/// absent is said instead.
pub(crate) fn read_or_why(dir: &Path) -> Result<Option<Telemetry>, RecordError> {
    let is_sealed = dir.join(layout::REQUESTS).exists();
    let checked = match dir.join(layout::TELEMETRY).exists() && is_sealed {
        true => digest::verify_telemetry(dir),
        false => Ok(()),
    };
    match checked.and_then(|()| read(dir)) {
        Err(error @ RecordError::Damaged { .. }) => {
            let (host, what) = ("all".to_owned(), "readings of machines".to_owned());
            let absent = vec![Absent { host, what, why: error.to_string() }];
            Ok(Some(Telemetry { absent, ..Telemetry::default() }))
        }
        read => read,
    }
}

fn read_file(path: &Path) -> Result<Telemetry, RecordError> {
    let (notes, batches) = open_parquet(path)?;
    let interval = notes.get(INTERVAL_KEY).and_then(|text| text.parse().ok()).map(Nanos);
    let interval =
        interval.ok_or_else(|| RecordError::damaged(path, "it does not say its interval"))?;
    let clocks = match notes.get(CLOCKS_KEY) {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|_| RecordError::damaged(path, "its clocks of hosts cannot be read"))?,
    };
    let mut found: BTreeMap<(Device, Quantity), Vec<Reading>> = BTreeMap::new();
    let mut absent = Vec::new();
    let failed = RecordError::parquet("read", path);
    for batch in batches {
        let batch = batch.map_err(|e| failed(e.into()))?;
        let rows = Rows::of(path, &batch)?;
        for row in 0..batch.num_rows() {
            match rows.reading(row)? {
                Ok((device, quantity, reading)) => {
                    found.entry((device, quantity)).or_default().push(reading);
                }
                Err(missing) => absent.push(missing),
            }
        }
    }
    let series = found
        .into_iter()
        .map(|((device, quantity), readings)| Series { device, quantity, readings })
        .collect();
    Ok(Telemetry { interval, series, absent, clocks })
}

/// Columns of a batch.
struct Rows<'a> {
    columns: Columns<'a>,
    from: &'a UInt64Array,
    to: &'a UInt64Array,
    host: &'a StringArray,
    part: &'a StringArray,
    name: &'a StringArray,
    index: &'a UInt32Array,
    role: &'a StringArray,
    metric: &'a StringArray,
    value: &'a Float64Array,
    reason: &'a StringArray,
}

impl<'a> Rows<'a> {
    fn of(path: &'a Path, batch: &'a RecordBatch) -> Result<Self, RecordError> {
        let columns = Columns { path, batch };
        Ok(Self {
            from: columns.get("from_at")?,
            to: columns.get("to_at")?,
            host: columns.get("host")?,
            part: columns.get("device")?,
            name: columns.get("name")?,
            index: columns.get("index")?,
            role: columns.get("role")?,
            metric: columns.get("metric")?,
            value: columns.get("value")?,
            reason: columns.get("reason")?,
            columns,
        })
    }

    /// The reading of a row, or what it says is absent.
    fn reading(
        &self,
        row: usize,
    ) -> Result<Result<(Device, Quantity, Reading), Absent>, RecordError> {
        let need = |text: Option<&str>, name| self.columns.need(text.map(str::to_owned), name, row);
        let host = need(at(self.host, row), "host")?;
        let name = need(at(self.name, row), "name")?;
        let Some(value) = at(self.value, row) else {
            let why = need(at(self.reason, row), "reason")?;
            return Ok(Err(Absent { host, what: name, why }));
        };
        let part = at(self.part, row).and_then(Part::from_name);
        let part = self.columns.need(part, "device", row)?;
        let quantity = at(self.metric, row).and_then(Quantity::from_name);
        let quantity = self.columns.need(quantity, "metric", row)?;
        let from = self.columns.need(at(self.from, row).map(Nanos), "from_at", row)?;
        let to = self.columns.need(at(self.to, row).map(Nanos), "to_at", row)?;
        let role = at(self.role, row).and_then(Role::from_name);
        let device = Device { host, part, name, index: at(self.index, row), role };
        Ok(Ok((device, quantity, Reading { from, to, value })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::telemetry::HostClock;

    fn telemetry() -> Telemetry {
        let gpu = Device {
            host: "node1".into(),
            part: Part::Gpu,
            name: "GPU-1".into(),
            index: Some(3),
            role: Some(Role::Decode),
        };
        let host = Device {
            host: "node1".into(),
            part: Part::Host,
            name: "node1".into(),
            index: None,
            role: None,
        };
        let at = |t: u64| Reading { from: Nanos(t), to: Nanos(t + 7), value: t as f64 / 3.0 };
        let series = |device: &Device, quantity, n| Series {
            device: device.clone(),
            quantity,
            readings: (0..n).map(|i| at(i * 1_000_000_007)).collect(),
        };
        Telemetry {
            interval: Nanos::from_millis(100),
            series: vec![
                series(&host, Quantity::CpuBusy, 12_000),
                series(&gpu, Quantity::Power, 3),
                series(&gpu, Quantity::Energy, 2),
            ],
            absent: vec![Absent {
                host: "node1".into(),
                what: "power of the host".into(),
                why: "no RAPL".into(),
            }],
            clocks: vec![HostClock {
                host: "node1".into(),
                offset_s: 1234.5,
                drift_ppm: Some(-3.0),
                bound_s: 0.000_25,
                stepped_s: None,
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), &telemetry()).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap(), telemetry());
        write(dir.path(), &Telemetry::default()).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap(), Telemetry::default());
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &telemetry()).unwrap();
        let path = dir.path().join(layout::TELEMETRY);
        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, 10, bytes.len() / 2, bytes.len() - 9] {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            assert!(read(dir.path()).is_err(), "{keep} bytes of {}", bytes.len());
        }
    }
}
