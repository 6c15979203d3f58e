//! Requests in flight over time.

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
