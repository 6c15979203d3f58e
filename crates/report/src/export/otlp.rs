//! OTLP metrics in their JSON encoding, one request a line, as the collector's `otlpjsonfile` receiver reads them.

use super::gauges::{Gauge, GaugePoint, gauges};
use super::{ExportFiles, ExportForm, ExportInput};
use crate::error::ReportError;
use scalebeam_model::units::Nanos;
use serde_json::{Map, Value, json};

pub(super) const FORM: ExportForm = ExportForm {
    name: "otlp",
    about: "one line of OTLP metrics as JSON, for a collector's otlpjsonfile receiver",
    peer: None,
    says: &[
        "a metric is `scalebeam.` and our name of it, a gauge; every data point has the attributes deployment, load, level and trust, one of a distribution has `stat` too",
        "the values are over all trials of a point, from the begin of its first to the end of its last",
        "`scalebeam.distrust` is 0 for a sound point, 1 for caution, 2 for invalid",
    ],
    write,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of every form")]
fn write(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let metrics: Vec<Value> = gauges(input).iter().map(metric).collect();
    let resource = [
        ("service.name", "scalebeam"),
        ("scalebeam.run", &input.results.run),
        ("scalebeam.experiment", &input.results.name),
        ("scalebeam.model", &input.plan.model.id),
    ];
    let resource: Vec<Value> = resource.iter().map(|(k, v)| attribute(k, v)).collect();
    let request = json!({
        "resourceMetrics": [{
            "resource": {"attributes": resource},
            "scopeMetrics": [{
                "scope": {"name": "scalebeam", "version": input.tool},
                "metrics": metrics,
            }],
        }],
    });
    Ok(vec![("metrics.json".to_owned(), format!("{request}\n").into_bytes())])
}

fn metric(gauge: &Gauge) -> Value {
    json!({
        "name": format!("scalebeam.{}", gauge.name),
        "description": gauge.doc,
        "unit": gauge.unit,
        "gauge": {"dataPoints": gauge.points.iter().map(point).collect::<Vec<_>>()},
    })
}

/// Whole numbers of 64 bits are texts in this encoding.
fn point(point: &GaugePoint) -> Value {
    let mut out = Map::new();
    let attributes = point.labels.iter().map(|(name, value)| attribute(name, value));
    out.insert("attributes".to_owned(), attributes.collect());
    let mut at = |key: &str, at: Option<Nanos>| {
        if let Some(at) = at {
            out.insert(key.to_owned(), at.0.to_string().into());
        }
    };
    at("startTimeUnixNano", point.began);
    at("timeUnixNano", point.ended);
    out.insert("asDouble".to_owned(), json!(point.value));
    Value::Object(out)
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}
