//! What engines say of themselves on their pages of `/metrics`, in words of our own.
//!
//! Engines name the same thing differently, and rename it from version to version. [`Word`] is what is meant;
//! the data files beside this one (`engine_metrics/NAME.toml`) say what each engine calls it. A page is read
//! with all of them: one of Dynamo's workers has its own names beside vLLM's, and of an endpoint that somebody
//! else runs it is not known what serves there.
//!
//! [`Snapshot`] is one page. [`Watch`] takes the pages of one instance over a measurement, one after the
//! other, and ends as an [`InstanceReading`]: counters as what they rose by, histograms as what came in each
//! bucket, gauges as mean and maximum. [`EngineReadings`] joins the instances of a deployment.
//!
//! **Invariants.**
//! - What a page does not say is [`Gap::NotExported`], never 0.
//! - A counter that fell was set back: [`Gap::Restarted`], never a negative or a too small number. That is
//!   looked for in each labelled part, since a sum over ranks may rise while one of them starts anew.
//! - A sum over some of the instances is not the sum: where one has a gap, so has the deployment.

use serde::{Deserialize, Serialize};

mod histogram;
mod maps;
mod reading;
mod said;
mod snapshot;
mod watch;
mod word;

pub use histogram::{Histogram, Quantile};
pub use reading::{EngineReadings, InstanceReading, Reading, gap};
pub use said::Said;
pub use snapshot::Snapshot;
pub use watch::Watch;
pub use word::{Kind, Word};

/// Why a word has no value.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// The page has no such series under any name that is known.
    NotExported,
    /// The page was not read when it had to be: before and after the measurement.
    NotRead,
    /// The series was set back meanwhile, or vanished: the engine, or a part of it, was started anew.
    Restarted,
    /// No page was read while the measurement ran, or nothing was observed meanwhile.
    NoSample,
}

impl Gap {
    /// In words, for a reader of a report.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotExported => "not exported",
            Self::NotRead => "metrics page not read",
            Self::Restarted => "engine restarted",
            Self::NoSample => "no sample in the measurement",
        }
    }
}

/// What a page is scraped for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// One engine.
    Engine,
    /// What stands before the engines, and counts whole requests.
    Frontend,
}

impl Part {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Frontend => "frontend",
        }
    }

    /// Reads the name used in files.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Engine, Self::Frontend].into_iter().find(|part| part.name() == name)
    }
}

#[cfg(test)]
mod tests;
