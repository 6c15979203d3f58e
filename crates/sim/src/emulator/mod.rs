//! The seam between an engine and a loop that owns time.
//!
//! An [`Emulator`] is told what arrives and asked what has happened by now; it names the next instant
//! at which anything will. The loop may be a thread at wall speed (`serve`) or a heap of virtual events.
//! All instants are absolute, so a late loop is late once and never drifts.

mod fixed;
mod stepped;

pub use fixed::Fixed;
pub use stepped::Stepped;

use crate::engine::{EngineStats, Request, RequestId, SubmitError, Token};
use crate::timing::TimingError;
use scalebeam_model::units::Nanos;

/// A token and the instant at which it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedToken {
    /// When it exists.
    pub at: Nanos,
    /// Whose it is and whether it is the last.
    pub token: Token,
}

/// Something that turns requests into tokens over time.
pub trait Emulator: Send + std::fmt::Debug {
    /// Takes a request that arrives at `now`.
    ///
    /// # Errors
    /// When it could never be served.
    fn submit(&mut self, now: Nanos, request: Request) -> Result<(), SubmitError>;

    /// Forgets a request and frees its place.
    fn cancel(&mut self, now: Nanos, id: RequestId);

    /// The next instant at which [`Emulator::advance`] has something to do; `None` when idle.
    fn next_at(&self) -> Option<Nanos>;

    /// Does everything that is due by `now` and appends its tokens to `out`, in order of time.
    ///
    /// # Errors
    /// When a step cannot be timed; the emulator is then of no further use.
    fn advance(&mut self, now: Nanos, out: &mut Vec<TimedToken>) -> Result<(), TimingError>;

    /// The state and the totals.
    fn stats(&self) -> EngineStats;
}
