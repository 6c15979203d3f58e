//! Reads machines and engines while the load runs.
//!
//! A [`Watch`] is a thread that reads every [`Source`] once before a measurement, at every interval while it
//! lasts, and once after it, so that the borders of any window inside lie between two readings. A source
//! that is not there is absent with its reason. What readings mean is found in `model`.
//!
//! **Invariants.** Nothing here changes a machine: no setting, no reset, no file. A reading carries the time
//! before it was asked for and after it was there, by the one clock that the caller gives. What takes long
//! to answer is asked on a thread of its own ([`poll`]).

pub mod agent;
mod controller;
pub mod far;
mod gpu;
mod host;
mod network;
mod package;
pub mod pod;
pub mod poll;
mod process;
mod program;
mod quota;
mod readings;
pub mod scrape;
#[cfg(test)]
mod testing;
mod watch;

pub use process::Watched;
pub use readings::{Readings, Source};
pub use watch::{Watch, WatchConfig};
