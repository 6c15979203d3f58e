//! The floor: what a campaign's own numbers cannot be truer than, on this machine, today.

use super::case::{self, Case};
use super::summary::Row;
use super::{Reader, measure};
use crate::exit::Failure;
use serde::{Deserialize, Serialize};

/// The errors of the load client on this machine, measured just before a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// By number of streams, fewest first.
    pub(crate) at: Vec<FloorAt>,
    /// 99th percentile of what a request of an open loop at 500 requests/s is late by, in milliseconds.
    pub(crate) lateness_ms_p99: Option<f64>,
    /// Load average of the machine when it began; the floor of a busy machine is higher.
    pub(crate) load_average: Option<f64>,
}

/// At one number of streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FloorAt {
    /// Streams at once.
    pub(crate) streams: u32,
    /// 99th percentile of the absolute errors of TTFT, in milliseconds.
    pub(crate) ttft_error_ms_p99: Option<f64>,
    /// 99th percentile of the absolute errors of gaps between tokens, in milliseconds.
    pub(crate) itl_error_ms_p99: Option<f64>,
    /// Requests that were lost or miscounted.
    pub(crate) wrong: u64,
}

impl FloorAt {
    fn of(row: &Row) -> Self {
        Self {
            streams: row.streams,
            ttft_error_ms_p99: row.ours.ttft_error_each_ms_p99,
            itl_error_ms_p99: row.ours.itl_error_each_ms_p99,
            wrong: row.ours.lost + row.ours.miscounted,
        }
    }
}

impl Floor {
    /// What was measured, as a floor.
    pub(crate) fn of(rows: &[Row], load_average: Option<f64>) -> Self {
        let is_open = |row: &&Row| row.rate_rps.is_some();
        let mut at: Vec<FloorAt> =
            rows.iter().filter(|row| !is_open(row)).map(FloorAt::of).collect();
        at.sort_by_key(|f| f.streams);
        let late = rows.iter().filter(is_open).filter_map(|row| row.ours.lateness_ms_p99);
        Self { at, lateness_ms_p99: late.max_by(f64::total_cmp), load_average }
    }

    #[cfg_attr(not(test), expect(dead_code, reason = "the campaign is to mark points by it"))]
    /// The floor that holds for `streams`: of the fewest measured that are at least as many, else of the
    /// most that were measured.
    pub(crate) fn for_streams(&self, streams: u32) -> Option<&FloorAt> {
        self.at.iter().find(|f| f.streams >= streams).or(self.at.last())
    }
}

/// Levels measured at most: a campaign waits for them.
const LEVELS: usize = 4;

#[expect(dead_code, reason = "the campaign is to call it before its first deployment")]
/// Measures the floor at the stream counts that a campaign plans: about two seconds a level.
pub(crate) fn measure_floor(
    planned: &[u32],
    mut tell: impl FnMut(&str, Reader),
) -> Result<Floor, Failure> {
    let load_average = super::usage::load_average();
    let mut cases: Vec<Case> = levels(planned).into_iter().map(|n| case::paced(n, 2)).collect();
    cases.push(case::open_loop(1));
    let mut rows = Vec::new();
    for mut case in cases {
        case.has_raw = false;
        rows.push(measure(&case, 1, &mut tell)?);
    }
    Ok(Floor::of(&rows, load_average))
}

/// The most and the fewest, and some between: an error grows with the streams.
fn levels(planned: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = planned.iter().copied().filter(|n| *n > 0).collect();
    all.sort_unstable();
    all.dedup();
    let Some(last) = all.len().checked_sub(1).filter(|last| *last >= LEVELS) else { return all };
    (0..LEVELS).map(|i| all[last * i / (LEVELS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_floor_of_a_level_is_not_that_of_fewer_streams() {
        let at = |streams| FloorAt {
            streams,
            ttft_error_ms_p99: None,
            itl_error_ms_p99: None,
            wrong: 0,
        };
        let floor =
            Floor { at: vec![at(8), at(64)], lateness_ms_p99: None, load_average: Some(0.5) };
        for (streams, want) in [(1, 8), (8, 8), (9, 64), (64, 64), (1_000, 64)] {
            assert_eq!(floor.for_streams(streams).map(|f| f.streams), Some(want));
        }
        let none = Floor { at: Vec::new(), lateness_ms_p99: None, load_average: None };
        assert_eq!(none.for_streams(1), None);
    }

    proptest! {
        #[test]
        fn few_levels_stand_for_many(planned in prop::collection::vec(0_u32..2_000, 0..30)) {
            let levels = levels(&planned);
            prop_assert!(levels.len() <= LEVELS && levels.is_sorted_by(|a, b| a < b));
            prop_assert!(levels.iter().all(|n| *n > 0 && planned.contains(n)));
            let most = planned.iter().max().filter(|n| **n > 0);
            prop_assert_eq!(levels.last(), most);
        }
    }
}
