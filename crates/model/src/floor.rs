//! The floor: what a campaign's numbers cannot be truer than, on the machine that sent the load.
//!
//! It is measured by a selftest of the load client before the first deployment, at the numbers of streams
//! that the campaign plans, and kept beside the records.

use crate::results::{Metrics, lookup};
use serde::{Deserialize, Serialize};

/// The errors of the load client on this machine, measured just before a campaign.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// By number of streams, fewest first.
    pub at: Vec<FloorAt>,
    /// Requests a second of the open loop whose lateness this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rps: Option<f64>,
    /// 99th percentile of what a request of that open loop is late by, in milliseconds.
    pub lateness_ms_p99: Option<f64>,
    /// Load average of the machine when it began; the floor of a busy machine is higher.
    pub load_average: Option<f64>,
}

/// At one number of streams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloorAt {
    /// Streams at once.
    pub streams: u32,
    /// 99th percentile of the absolute errors of TTFT, in milliseconds.
    pub ttft_error_ms_p99: Option<f64>,
    /// Median TTFT as the client said it minus the true one, in milliseconds.
    #[serde(default)]
    pub ttft_median_error_ms: Option<f64>,
    /// 99th percentile of the absolute errors of gaps between tokens, in milliseconds.
    pub itl_error_ms_p99: Option<f64>,
    /// Mean gap between tokens as the client said it minus the true one, in milliseconds.
    #[serde(default)]
    pub itl_mean_error_ms: Option<f64>,
    /// Requests that were lost or miscounted.
    pub wrong: u64,
}

/// A number of a point and what the instrument may have added to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The number, in words.
    pub what: &'static str,
    /// Its value in milliseconds.
    pub value_ms: f64,
    /// The error that holds for it, in milliseconds.
    pub error_ms: f64,
    /// The error is of the statistic itself, not of single values around it.
    pub is_bias: bool,
}

impl Share {
    /// Error over value; infinite where the value is zero.
    pub fn of_value(&self) -> f64 {
        self.error_ms / self.value_ms
    }
}

impl Floor {
    /// The floor that holds for `streams`: of the fewest measured that are at least as many, else of the
    /// most that were measured.
    pub fn for_streams(&self, streams: u32) -> Option<&FloorAt> {
        self.at.iter().find(|f| f.streams >= streams).or(self.at.last())
    }

    /// What the floor at `streams` is worth beside the medians of a point.
    pub fn shares(&self, streams: u32, metrics: &Metrics) -> Vec<Share> {
        let Some(at) = self.for_streams(streams) else { return Vec::new() };
        let share = |what, name, error: Option<f64>, is_bias| {
            let (value_ms, error_ms) = (lookup(metrics, name)?, error?.abs());
            Some(Share { what, value_ms, error_ms, is_bias })
        };
        let all = [
            share("TTFT", "ttft.p50", at.ttft_error_ms_p99, false),
            share("TTFT", "ttft.p50", at.ttft_median_error_ms, true),
            share("time between tokens", "itl.p50", at.itl_error_ms_p99, false),
            share("time between tokens", "itl.p50", at.itl_mean_error_ms, true),
        ];
        all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::MetricValue;
    use crate::stats::quantile::distribution;

    fn at(streams: u32) -> FloorAt {
        FloorAt { streams, ..FloorAt::default() }
    }

    #[test]
    fn the_floor_of_a_level_is_not_that_of_fewer_streams() {
        let floor = Floor { at: vec![at(8), at(64)], ..Floor::default() };
        for (streams, want) in [(1, 8), (8, 8), (9, 64), (64, 64), (1_000, 64)] {
            assert_eq!(floor.for_streams(streams).map(|f| f.streams), Some(want));
        }
        assert_eq!(Floor::default().for_streams(1), None);
    }

    #[test]
    fn an_error_is_held_against_the_median_it_belongs_to() {
        let of = |value| MetricValue::Distribution(distribution(vec![value]).unwrap());
        let metrics = Metrics::from([("ttft_ms".to_owned(), of(50.0))]);
        let known = FloorAt {
            ttft_error_ms_p99: Some(5.0),
            ttft_median_error_ms: Some(-0.5),
            itl_error_ms_p99: Some(9.0),
            ..at(8)
        };
        let floor = Floor { at: vec![known], ..Floor::default() };
        let shares: Vec<_> =
            floor.shares(4, &metrics).iter().map(|s| (s.of_value(), s.is_bias)).collect();
        assert_eq!(shares, [(0.1, false), (0.01, true)], "gaps were not measured");
    }

    #[test]
    fn a_floor_of_an_earlier_version_is_read() {
        let text = r#"{"at":[{"streams":4,"ttft_error_ms_p99":1.0,"itl_error_ms_p99":null,"wrong":0}],
            "lateness_ms_p99":0.5,"load_average":null}"#;
        let floor: Floor = serde_json::from_str(text).unwrap();
        assert_eq!((floor.at[0].ttft_error_ms_p99, floor.rate_rps), (Some(1.0), None));
    }
}
