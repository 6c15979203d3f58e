//! Why a report could not be made.

use std::path::PathBuf;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The operating system refused.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The results hold something that the format cannot.
    #[error("cannot write the results as {format}: {why}")]
    Encode {
        /// The format.
        format: &'static str,
        /// Why.
        why: String,
    },
    /// A picture could not be drawn from its own SVG.
    #[error("cannot draw '{title}' as PNG: {why}")]
    Draw {
        /// Title of the chart.
        title: String,
        /// Why.
        why: String,
    },
    /// The page could not be filled in.
    #[error("cannot write the HTML page")]
    Page(#[source] askama::Error),
    /// Somebody asked for a chart that does not exist.
    #[error("there is no chart '{name}'; known are {known}")]
    UnknownChart {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}
