//! The vocabulary and every pure decision of scalebeam.
//!
//! **Architecture invariant:** this crate depends on no other room, and on no tokio, file system,
//! network or clock. Time comes in as a [`units::Nanos`], randomness as a seed, text as a `&str`.
//! What it decides can therefore be tested by a table, and is the same on a real and a simulated run.

pub mod analysis;
pub mod api;
pub mod arrival;
pub mod clock;
pub mod cost;
pub mod distinct;
pub mod doctor;
pub mod driver;
pub mod engine;
pub mod engine_metrics;
pub mod exposition;
pub mod fingerprint;
pub mod floor;
pub mod framing;
pub mod import;
pub mod limit;
pub mod metrics;
pub mod peers;
pub mod plan;
pub mod ran;
pub mod request;
pub mod results;
pub mod saturation;
pub mod search;
pub mod slo;
pub mod spec;
pub mod stats;
pub mod telemetry;
pub mod trust;
pub mod units;
pub mod workload;
