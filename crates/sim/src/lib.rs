//! A cluster that does not exist, behind the same seam as a real one; also served over HTTP at wall speed.
//!
//! From the inside out:
//!
//! - [`catalog`]: what models and GPUs are, as published numbers and fitted constants;
//! - [`timing`]: how long one engine step takes ([`timing::TimingModel`]);
//! - [`memory`]: whether the weights fit, and how many tokens of KV cache the rest holds;
//! - [`engine`]: continuous batching, pure and stepped: no clock, no IO;
//! - [`emulator`]: the seam between an engine and a loop that owns time;
//! - [`config`]: one emulated deployment from plain values;
//! - [`serve`]: the emulator behind an OpenAI-compatible HTTP endpoint at wall speed.
//!
//! **Architecture invariant:** only [`serve`] reads a clock or touches a socket, a file or a thread.
//! Everything else is a function of its arguments, so the same engine can be driven by a virtual
//! clock, and two runs with the same seed are the same run.

pub mod catalog;
pub mod config;
pub mod emulator;
pub mod engine;
pub mod memory;
pub mod serve;
pub mod timing;

mod hash;
