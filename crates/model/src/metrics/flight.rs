//! Requests in flight over time, and the part of a trial in which their number is what it was meant to be.

use super::TrialView;
use crate::plan::Mode;
use crate::request::RequestRecord;
use crate::units::Nanos;

/// A step function: from each instant on, so many requests are in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight(pub Vec<(Nanos, u32)>);

impl InFlight {
    /// Counts requests from `sent_at` to `finished_at`.
    pub fn of(records: &[RequestRecord]) -> Self {
        let mut edges: Vec<(Nanos, i64)> = records
            .iter()
            .filter_map(|r| Some([(r.sent_at?, 1), (r.finished_at, -1)]))
            .flatten()
            .collect();
        edges.sort_unstable();
        let mut steps: Vec<(Nanos, u32)> = Vec::new();
        let mut level = 0i64;
        for (at, change) in edges {
            level += change;
            let count = u32::try_from(level).unwrap_or(0);
            match steps.last_mut() {
                Some(last) if last.0 == at => last.1 = count,
                _ => steps.push((at, count)),
            }
        }
        Self(steps)
    }
}

/// From the first instant at which at least 90 % of `asked` is in flight to the last one.
///
/// Between the two it may dip for as long as a slot takes to send its next request; ramp and drain lie
/// outside. Absent where the level was never reached.
pub fn steady_window(in_flight: &InFlight, asked: u32) -> Option<(Nanos, Nanos)> {
    let enough = |n: u32| f64::from(n) >= 0.9 * f64::from(asked);
    let from = in_flight.0.iter().find(|(_, n)| enough(*n))?.0;
    let last = in_flight.0.iter().rposition(|(_, n)| enough(*n))?;
    let to = in_flight.0.get(last + 1)?.0;
    (to > from).then_some((from, to))
}

/// Why a trial has no steady window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWindow {
    /// All requests were due at once or one after the other: there is no level to hold.
    NoLevel,
    /// A closed load never had 90 % of its concurrency in flight.
    NotReached,
    /// The last request of an open load was due before the first ones had been answered.
    StillFilling,
}

/// The steady window of a trial. A closed load's is [`steady_window`]. An open load's goes from the instant
/// at which the first tenth of the requests due had ended, so that what is in flight has built up, to the
/// last due time, from which on it only drains.
///
/// # Errors
/// Why there is none.
pub fn steady(t: &TrialView<'_>) -> Result<(Nanos, Nanos), NoWindow> {
    match (t.context.mode, t.context.level.concurrency) {
        (Mode::Open, _) => open_window(t.records).ok_or(NoWindow::StillFilling),
        (_, None) => Err(NoWindow::NoLevel),
        (_, Some(asked)) => {
            steady_window(&InFlight::of(t.records), asked).ok_or(NoWindow::NotReached)
        }
    }
}

fn open_window(records: &[RequestRecord]) -> Option<(Nanos, Nanos)> {
    let mut due: Vec<(Nanos, Nanos)> =
        records.iter().map(|r| (r.scheduled_at, r.finished_at)).collect();
    due.sort_unstable();
    let first = due.len().div_ceil(10);
    let from = due.iter().take(first).map(|(_, finished)| *finished).max()?;
    let to = due.last()?.0;
    (to > from).then_some((from, to))
}
