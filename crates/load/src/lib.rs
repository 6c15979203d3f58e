//! Sends requests on time and stamps what comes back.
//!
//! [`run_phase`] is the way in: it runs [`scalebeam_model::driver`] on the wall clock and hands out one
//! [`scalebeam_model::request::RequestRecord`] for every request of the plan. The way of a request:
//!
//! ```text
//!   stock, desk (body written) ─► wall (due: send) ─► lines ─► http::line ─► http::wire ─► kernel
//!                                               └─► links ─► http::mux ─┘     │ http::receive (stamps)
//!   sink ◄─ phase (tokens counted) ◄─ stream (outcome) ◄─ api ◄─ sse, ndjson ◄─ http::{line, mux}
//! ```
//!
//! **Invariants:** time comes from the [`scalebeam_model::clock::Clock`] that is handed in; a stamp is
//! taken before what it stamps is looked at; nothing is retried in silence; nothing is lost.

pub mod api;
mod carrier;
mod control;
mod cpu;
mod desk;
mod error;
mod exchange;
mod gate;
pub mod http;
mod lines;
mod links;
pub mod ndjson;
mod phase;
pub mod probe;
mod reactor;
pub mod sse;
mod stock;
mod stream;
#[cfg(test)]
mod testing;
pub mod tokenizer;
mod wall;

pub use crate::control::{Control, Progress};
pub use crate::error::LoadError;
pub use crate::http::target::{Endpoint, Secret, Target};
pub use crate::phase::{AnswerText, PhaseReport, PhaseSpec, run_phase};
pub use crate::stock::Turns;
pub use crate::tokenizer::Tokenizer;
