//! OpenMetrics text, as `promtool tsdb create-blocks-from openmetrics` takes it.

use super::gauges::{Gauge, GaugePoint, gauges};
use super::{ExportFiles, ExportForm, ExportInput};
use crate::error::ReportError;
use std::fmt::Write as _;

pub(super) const FORM: ExportForm = ExportForm {
    name: "openmetrics",
    about: "one OpenMetrics page of all points, with the instants at which they ended",
    peer: None,
    says: &[
        "a metric is `scalebeam_` and our name of it; every sample has the labels deployment, load, level and trust, one of a distribution has `stat` too",
        "the values are over all trials of a point, and stand at the end of its last one",
        "`scalebeam_distrust` is 0 for a sound point, 1 for caution, 2 for invalid",
    ],
    write,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of every form")]
fn write(input: &ExportInput<'_>) -> Result<ExportFiles, ReportError> {
    let mut out = String::new();
    for gauge in gauges(input) {
        family(&gauge, &mut out);
    }
    out.push_str("# EOF\n");
    Ok(vec![("metrics.om".to_owned(), out.into_bytes())])
}

/// A string takes all that is written to it.
fn family(gauge: &Gauge, out: &mut String) {
    let name =
        format!("scalebeam_{}", gauge.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let unit = if gauge.unit.is_empty() { String::new() } else { format!(" ({})", gauge.unit) };
    let _ = writeln!(out, "# TYPE {name} gauge");
    let _ = writeln!(out, "# HELP {name} {}", escaped(&format!("{}{unit}", gauge.doc)));
    for point in &gauge.points {
        sample(&name, point, out);
    }
}

fn sample(name: &str, point: &GaugePoint, out: &mut String) {
    let label = |(name, value): &(&str, String)| format!("{name}=\"{}\"", escaped(value));
    let labels: Vec<String> = point.labels.iter().map(label).collect();
    let _ = write!(out, "{name}{{{}}} {:?}", labels.join(","), point.value);
    if let Some(at) = point.ended {
        let _ = write!(out, " {}.{:03}", at.0 / 1_000_000_000, at.0 / 1_000_000 % 1_000);
    }
    out.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
