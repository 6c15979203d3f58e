//! The floor: what a campaign's own numbers cannot be truer than, on this machine, today.

use super::beside::Others;
use super::case::{self, Case, TOKENS_A_SECOND};
use super::summary::Row;
use super::{Reader, measure};
use crate::exit::Failure;
use scalebeam_model::driver::LoadShape;
use scalebeam_model::floor::{Floor, FloorAt};
use scalebeam_model::plan::{Plan, PointPlan};
use scalebeam_model::units::{Nanos, significant};

impl From<&Row> for FloorAt {
    fn from(row: &Row) -> Self {
        Self {
            streams: row.streams,
            ttft_error_ms_p99: row.ours.ttft_error_each_ms_p99,
            ttft_median_error_ms: row.ours.ttft_error_ms_p50,
            itl_error_ms_p99: row.ours.itl_error_each_ms_p99,
            itl_mean_error_ms: row.ours.itl_error_mean_ms,
            wrong: row.ours.lost + row.ours.miscounted,
        }
    }
}

/// What was measured, as a floor.
pub(crate) fn of(rows: &[Row], load_average: Option<f64>) -> Floor {
    let mut at: Vec<FloorAt> =
        rows.iter().filter(|row| row.rate_rps.is_none()).map(FloorAt::from).collect();
    at.sort_by_key(|f| f.streams);
    let late = |row: &&Row| row.rate_rps.is_some() && row.ours.lateness_ms_p99.is_some();
    let worst = rows.iter().filter(late).max_by(|a, b| f64::total_cmp(&lateness(a), &lateness(b)));
    Floor {
        at,
        rate_rps: worst.and_then(|row| row.rate_rps),
        lateness_ms_p99: worst.map(lateness),
        load_average,
    }
}

fn lateness(row: &Row) -> f64 {
    row.ours.lateness_ms_p99.unwrap_or(0.0)
}

/// Which cases stand for a campaign.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Demand {
    /// Streams at once, fewest first.
    streams: Vec<u32>,
    /// The highest rate of an open loop.
    rate_rps: Option<f64>,
}

/// Levels measured at most: a campaign waits for them.
const LEVELS: usize = 3;
/// More than these would measure the truth server.
const MOST_STREAMS: u32 = 4_000;
const MOST_RPS: f64 = 2_000.0;
/// What an open loop is taken to have in flight for each request a second: requests of two seconds.
const OPEN_SECONDS: f64 = 2.0;

impl Demand {
    /// The most and the fewest streams of the plan and some between, and its highest rate.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut streams: Vec<u32> = plan.every_point().map(streams).collect();
        streams.sort_unstable();
        streams.dedup();
        let rates = plan.every_point().filter_map(rate);
        Self { streams: levels(&streams), rate_rps: rates.max_by(f64::total_cmp) }
    }

    fn cases(&self) -> Vec<Case> {
        let paced = self.streams.iter().map(|n| case::paced(*n, 2));
        let open = self.rate_rps.map(|rate| case::open_at(rate.min(MOST_RPS), 1));
        let alone = |case| Case { has_raw: false, ..case };
        paced.chain(open).map(alone).collect()
    }

    /// About how long it takes to measure: the waves of [`case::paced`], and processes that start and end.
    pub(crate) fn lasts(&self) -> Nanos {
        let wave = |n: &u32| (f64::from(*n) * 5.0 / TOKENS_A_SECOND as f64).max(1.0);
        let paced: f64 = self.streams.iter().map(|n| 2.0 * wave(n) + 0.5).sum();
        Nanos::from_secs_f64(paced + self.rate_rps.map_or(0.0, |_| 1.5))
    }
}

/// Streams that a point may have at once.
fn streams(point: &PointPlan) -> u32 {
    let phase = &point.measure;
    let many = |n: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of streams; `as` saturates"
        )]
        let n = n as u32;
        n
    };
    let n = match (&phase.shape, phase.most_in_flight()) {
        (_, Some(n)) => u32::try_from(n).unwrap_or(u32::MAX),
        (LoadShape::Open { rate_rps, .. }, None) => many(rate_rps.peak_rps() * OPEN_SECONDS),
        // What a trace asks for is not known before it is read.
        (LoadShape::Replay { .. }, None) => 64,
        (LoadShape::Burst | LoadShape::Closed { .. }, None) => 1,
    };
    n.clamp(1, MOST_STREAMS)
}

fn rate(point: &PointPlan) -> Option<f64> {
    match &point.measure.shape {
        LoadShape::Open { rate_rps, .. } => Some(rate_rps.peak_rps()),
        LoadShape::Closed { .. } | LoadShape::Burst | LoadShape::Replay { .. } => None,
    }
}

/// Of sorted numbers of streams the most and the fewest, and some between: an error grows with the streams.
fn levels(planned: &[u32]) -> Vec<u32> {
    let last = planned.len().checked_sub(1).filter(|last| *last >= LEVELS);
    let Some(last) = last else { return planned.to_vec() };
    (0..LEVELS).map(|i| planned[last * i / (LEVELS - 1)]).collect()
}

/// Measures the floor that holds for `demand`.
pub(crate) fn measure_floor(
    demand: &Demand,
    mut tell: impl FnMut(&str, Reader),
) -> Result<Floor, Failure> {
    let load_average = super::usage::load_average();
    let mut rows = Vec::new();
    for case in demand.cases() {
        rows.push(measure(&case, 1, &Others::default(), &mut tell)?);
    }
    Ok(of(&rows, load_average))
}

/// A floor in a line: that of the most streams, which is the highest.
pub(crate) fn line(floor: &Floor) -> String {
    let ms =
        |value: Option<f64>| value.map_or("n/a".to_owned(), |v| format!("{} ms", significant(v)));
    let most = floor.at.last().map(|at| {
        let (ttft, itl) = (ms(at.ttft_error_ms_p99), ms(at.itl_error_ms_p99));
        format!("at {} streams TTFT is true to {ttft}, gaps between tokens to {itl}", at.streams)
    });
    let late = floor.lateness_ms_p99.zip(floor.rate_rps).map(|(late, rate)| {
        format!("at {}/s requests leave {} after they are due", significant(rate), ms(Some(late)))
    });
    let wrong: u64 = floor.at.iter().map(|at| at.wrong).sum();
    let wrong = (wrong > 0).then(|| format!("{wrong} requests were lost or miscounted"));
    let parts: Vec<String> = [most, late, wrong].into_iter().flatten().collect();
    format!("instrument: {} (p99)", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn few_levels_stand_for_many(planned in prop::collection::btree_set(1_u32..2_000, 0..30)) {
            let planned: Vec<u32> = planned.into_iter().collect();
            let levels = levels(&planned);
            prop_assert!(levels.len() <= LEVELS && levels.is_sorted_by(|a, b| a < b));
            prop_assert!(levels.iter().all(|n| planned.contains(n)));
            prop_assert_eq!(levels.last(), planned.last());
            prop_assert_eq!(levels.first(), planned.first());
        }
    }

    #[test]
    fn a_floor_is_measured_at_what_is_planned_and_no_more() {
        let demand = Demand { streams: vec![4, 64], rate_rps: Some(10_000.0) };
        let cases = demand.cases();
        let seen: Vec<_> = cases.iter().map(|c| (c.streams, c.rate_rps, c.has_raw)).collect();
        assert_eq!(seen, [(4, None, false), (64, None, false), (64, Some(2_000.0), false)]);
        assert_eq!(demand.lasts(), Nanos::from_millis(6_500));
        let none = Demand { streams: Vec::new(), rate_rps: None };
        assert_eq!((none.cases().len(), none.lasts()), (0, Nanos::ZERO));
    }

    #[test]
    fn a_floor_is_said_in_a_line() {
        let at = FloorAt {
            streams: 64,
            ttft_error_ms_p99: Some(0.1234),
            wrong: 2,
            ..FloorAt::default()
        };
        let floor = Floor {
            at: vec![at],
            rate_rps: Some(500.0),
            lateness_ms_p99: Some(0.5),
            load_average: None,
        };
        insta::assert_snapshot!(line(&floor), @"instrument: at 64 streams TTFT is true to 0.123 ms, gaps between tokens to n/a; at 500/s requests leave 0.500 ms after they are due; 2 requests were lost or miscounted (p99)");
    }
}
