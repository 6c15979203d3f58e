//! The router between real sockets: workers that a test scripts, and a client that reads piece by piece.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod two_steps;
mod workers;
