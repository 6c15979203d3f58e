//! The emulated endpoint over real sockets, seen by a client that knows nothing but TCP.
//!
//! No test asserts a tight wall time: this runs on busy machines. Order, counts and lower bounds are
//! exact; upper bounds are generous.

#![expect(
    clippy::unwrap_used,
    reason = "the lint's exception for tests does not reach their helpers"
)]

mod client;
mod endpoints;
mod faults;
mod life;
mod streams;
mod truth;
