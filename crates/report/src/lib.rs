//! Draws and writes what the model computed from a record.
//!
//! **Architecture invariant:** nothing is computed here that another report would have to compute
//! again: every number comes from `model::results`. A metric that has no value at a point is shown as
//! `n/a` with its reason, never as 0; a point that is not to be trusted is marked wherever it appears.
//!
//! A chart is data → [`chart::Scene`] → SVG, and PNG from that same SVG with an embedded font, so a
//! picture is the same on every machine.

mod advise;
mod beside;
pub mod chart;
mod csv;
mod denominators;
mod engines;
mod error;
mod export;
mod fairness;
mod files;
mod fronts;
mod glossary;
mod html;
mod imported;
mod json;
mod machines;
mod markdown;
pub mod metric;
mod number;
mod palette;
mod peers;
mod png;
mod profile;
mod ran;
mod records;
mod samples;
mod scaling;
mod spec;
mod svg;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod versus;

pub use advise::advice;
pub use beside::beside;
pub use chart::chart;
pub use csv::{parts_csv, results_csv, timeline_csv};
pub use error::ReportError;
pub use export::{
    ExportFiles, ExportForm, ExportInput, ExportTrial, FORMS as EXPORT_FORMS, export, export_form,
};
pub use files::write_all;
pub use html::html;
pub use imported::imported;
pub use json::results_json;
pub use machines::machines_csv;
pub use markdown::markdown;
pub use peers::{Redefined, redefined, redefined_json};
pub use png::png;
pub use records::{
    Place, PointHistogram, RecordFormat, RecordWriter, histograms_csv, histograms_json,
};
pub use samples::SampleWriter;
pub use spec::{Format, Kind, Profile, ReportInput, ReportSpec};
pub use svg::svg;
pub use text::{terminal, terminal_percentiles, terminal_table};
pub use versus::versus;
