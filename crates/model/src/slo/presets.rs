//! Objectives that others have agreed on, by name.

use super::{Bound, Latency};
use crate::units::Nanos;

/// An objective with a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// As the file has it.
    pub name: &'static str,
    /// Limit of the time to first token, in milliseconds.
    pub ttft_ms: u64,
    /// Limit of the time per output token, in milliseconds.
    pub tpot_ms: u64,
    /// Both hold at this percentile.
    pub percentile: f64,
}

impl Preset {
    /// Its bounds.
    pub fn bounds(&self) -> Vec<Bound> {
        let bound =
            |of, ms| Bound { of, percentile: self.percentile, limit: Nanos::from_millis(ms) };
        vec![bound(Latency::Ttft, self.ttft_ms), bound(Latency::Tpot, self.tpot_ms)]
    }
}

/// MLPerf Inference: latencies from the scheduled time, at the 99th percentile.
const fn mlperf(name: &'static str, ttft_ms: u64, tpot_ms: u64) -> Preset {
    Preset { name, ttft_ms, tpot_ms, percentile: 99.0 }
}

/// The presets, as `loadgen/mlperf.conf` of github.com/mlcommons/inference has them for the Server
/// scenario (`ttft_latency`, `tpot_latency`, `target_latency_percentile`): what LoadGen judges a run by.
pub const PRESETS: &[Preset] = &[
    mlperf("mlperf-llama2-70b", 2_000, 200),
    mlperf("mlperf-llama2-70b-interactive", 450, 40),
    mlperf("mlperf-mixtral-8x7b", 2_000, 200),
    mlperf("mlperf-llama3.1-405b", 6_000, 175),
    mlperf("mlperf-llama3.1-405b-interactive", 4_500, 80),
    mlperf("mlperf-llama3.1-8b", 2_000, 100),
    mlperf("mlperf-llama3.1-8b-interactive", 500, 30),
    mlperf("mlperf-deepseek-r1", 2_000, 80),
    mlperf("mlperf-deepseek-r1-interactive", 1_500, 15),
    mlperf("mlperf-gpt-oss-120b", 3_000, 80),
    mlperf("mlperf-gpt-oss-120b-interactive", 2_000, 15),
];
