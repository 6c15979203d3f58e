//! The medians of a case's rounds, as tables and files have them.

use super::Reading;
use super::beside::OtherRow;
use super::case::Case;
use super::errors::{Errors, Off, Spread, median};
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};

/// One case, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The case.
    pub(crate) case: String,
    /// Streams at once.
    pub(crate) streams: u32,
    /// Requests a second of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate_rps: Option<f64>,
    /// Requests of each round.
    pub(crate) requests: u64,
    /// Tokens of each answer.
    pub(crate) tokens: u32,
    /// The load client.
    pub(crate) ours: Summary,
    /// The raw reader, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw: Option<Summary>,
    /// Other clients, where the user named some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<OtherRow>,
}

/// One reader's rounds: of each number the median, of what went wrong the sum.
///
/// Errors are "said minus true", in milliseconds; `_each_` is of the absolute errors one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// Requests of all rounds that were not read to their end.
    pub(crate) lost: u64,
    /// Requests of all rounds with a wrong number of tokens.
    pub(crate) miscounted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttft_error_mean_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttft_error_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttft_error_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttft_error_each_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) itl_error_mean_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) itl_error_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) itl_error_each_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) e2e_error_mean_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) e2e_error_ms_p99: Option<f64>,
    /// Stamp of a token minus its write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_lag_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_lag_ms_p99: Option<f64>,
    /// The reader's "sent" minus the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) send_lag_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) send_lag_ms_p99: Option<f64>,
    /// In the server's kernel minus due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lateness_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lateness_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lateness_ms_max: Option<f64>,
    /// End minus due, by the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) e2e_true_ms_p99: Option<f64>,
    /// The same, as the reader said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) e2e_seen_ms_p99: Option<f64>,
    /// Requests a second as they came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_rps: Option<f64>,
    /// CPU time of the reader's process from the first request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_token: Option<f64>,
    /// Of that, the threads' that send and read; preparation before the first request is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load_cpu_us_per_token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_request: Option<f64>,
    /// The share of a core that this was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens_per_arrival: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_rss_mb: Option<f64>,
    /// From the start of the process to the first request in the server's kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) launch_ms: Option<f64>,
    /// CPU time of the server's whole process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_us_per_token: Option<f64>,
}

impl Row {
    pub(super) fn new(case: &Case, ours: &[Reading], raw: &[Reading]) -> Self {
        Self {
            case: case.name.clone(),
            streams: case.streams,
            rate_rps: case.rate_rps,
            requests: case.requests,
            tokens: case.server.tokens,
            ours: Summary::of(ours),
            raw: (!raw.is_empty()).then(|| Summary::of(raw)),
            beside: Vec::new(),
        }
    }

    /// CPU time a token, as a multiple of the raw reader's.
    pub(crate) fn cpu_ratio(&self) -> Option<f64> {
        self.ours.cpu_over(self.raw.as_ref()?)
    }

    /// Whether the load client faced the arrivals that the raw reader faced.
    pub(crate) fn arrivals_alike(&self) -> Option<bool> {
        self.ours.arrivals_alike(self.raw.as_ref()?)
    }
}

/// How far the server's cost of a token may differ between two readers that are compared, as a part of
/// what it was for the raw one.
const ALIKE: f64 = 0.25;

impl Summary {
    /// CPU time a token, as a multiple of `raw`'s.
    pub(crate) fn cpu_over(&self, raw: &Self) -> Option<f64> {
        Some(self.cpu_us_per_token? / positive(raw.cpu_us_per_token?)?)
    }

    /// Whether this reader and `raw` faced the same arrivals; absent where either server's cost is.
    ///
    /// The server writes the same tokens for both. Where one of them made it pay clearly more, tokens came
    /// one by one and woke it and the reader for each; where less, they came in bursts, and both worked in
    /// batches. The readers' own costs are then prices of different work.
    pub(crate) fn arrivals_alike(&self, raw: &Self) -> Option<bool> {
        let served_raw = positive(raw.server_cpu_us_per_token?)?;
        Some((self.server_cpu_us_per_token? - served_raw).abs() <= ALIKE * served_raw)
    }

    fn of(readings: &[Reading]) -> Self {
        let of = |value: &dyn Fn(&Reading) -> Option<f64>| median(readings.iter().map(value));
        let off = |which: fn(&Errors) -> Option<Off>, part: fn(&Off) -> f64| {
            of(&|r| which(&r.errors).as_ref().map(part))
        };
        let spread = |which: fn(&Errors) -> Option<Spread>, part: fn(&Spread) -> f64| {
            of(&|r| which(&r.errors).as_ref().map(part))
        };
        Self {
            lost: readings.iter().map(|r| r.errors.lost).sum(),
            miscounted: readings.iter().map(|r| r.errors.miscounted).sum(),
            ttft_error_mean_ms: off(|e| e.ttft, |o| o.mean_ms),
            ttft_error_ms_p50: off(|e| e.ttft, |o| o.p50_ms),
            ttft_error_ms_p99: off(|e| e.ttft, |o| o.p99_ms),
            ttft_error_each_ms_p99: off(|e| e.ttft, |o| o.each_ms_p99),
            itl_error_mean_ms: off(|e| e.itl, |o| o.mean_ms),
            itl_error_ms_p99: off(|e| e.itl, |o| o.p99_ms),
            itl_error_each_ms_p99: off(|e| e.itl, |o| o.each_ms_p99),
            e2e_error_mean_ms: off(|e| e.e2e, |o| o.mean_ms),
            e2e_error_ms_p99: off(|e| e.e2e, |o| o.p99_ms),
            read_lag_ms_p50: spread(|e| e.read_lag, |s| s.p50_ms),
            read_lag_ms_p99: spread(|e| e.read_lag, |s| s.p99_ms),
            send_lag_ms_p50: spread(|e| e.send_lag, |s| s.p50_ms),
            send_lag_ms_p99: spread(|e| e.send_lag, |s| s.p99_ms),
            lateness_ms_p50: spread(|e| e.lateness, |s| s.p50_ms),
            lateness_ms_p99: spread(|e| e.lateness, |s| s.p99_ms),
            lateness_ms_max: spread(|e| e.lateness, |s| s.max_ms),
            e2e_true_ms_p99: spread(|e| e.e2e_due_true, |s| s.p99_ms),
            e2e_seen_ms_p99: spread(|e| e.e2e_due_seen, |s| s.p99_ms),
            sent_rps: of(&sent_rps),
            cpu_us_per_token: of(&|r| per(r.end.cpu, r.errors.tokens)),
            load_cpu_us_per_token: of(&|r| per(r.end.load_cpu?, r.errors.tokens)),
            cpu_us_per_request: of(&|r| per(r.end.cpu, r.errors.requests - r.errors.lost)),
            cores: of(&|r| Some(r.end.cpu.as_secs_f64() / positive(r.end.wall?.as_secs_f64())?)),
            tokens_per_arrival: of(&|r| ratio(r.errors.tokens, r.errors.arrivals)),
            tokens_per_s: of(&|r| {
                Some(r.errors.tokens as f64 / positive(r.end.wall?.as_secs_f64())?)
            }),
            peak_rss_mb: of(&|r| Some(r.end.peak_rss? as f64 / 1e6)),
            launch_ms: of(&|r| Some(r.launch?.as_millis_f64())),
            server_cpu_us_per_token: of(&|r| per(r.server.cpu, r.errors.tokens)),
        }
    }
}

/// Microseconds of `cpu` for each of `n`; absent for none.
pub(super) fn per(cpu: Nanos, n: u64) -> Option<f64> {
    Some(cpu.as_secs_f64() * 1e6 / positive(n as f64)?)
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    Some(a as f64 / positive(b as f64)?)
}

pub(super) fn positive(x: f64) -> Option<f64> {
    (x > 0.0).then_some(x)
}

/// Of an open loop: gaps between the first request and the last, over the time between them.
fn sent_rps(r: &Reading) -> Option<f64> {
    r.errors.lateness?;
    Some(r.errors.requests.checked_sub(1)? as f64 / positive(r.sending?.as_secs_f64())?)
}

#[cfg(test)]
mod tests {
    use super::super::case::paced;
    use super::super::part::PartEnd;
    use super::*;

    fn reading(cpu_us: u64, tokens: u64, lost: u64) -> Reading {
        let end = PartEnd {
            cpu: Nanos::from_micros(cpu_us),
            load_cpu: None,
            wall: Some(Nanos::from_secs(2)),
            peak_rss: Some(3_000_000),
        };
        let errors =
            Errors { requests: 10, lost, tokens, arrivals: tokens / 2, ..Errors::default() };
        Reading { errors, end, server: end, launch: None, sending: Some(Nanos::from_secs(1)) }
    }

    #[test]
    fn rounds_become_medians_and_what_was_lost_adds_up() {
        let ours = [reading(400, 100, 1), reading(200, 100, 0), reading(300, 100, 2)];
        let raw = [reading(100, 100, 0), reading(150, 100, 0)];
        let row = Row::new(&paced(10, 1), &ours, &raw);
        assert_eq!((row.ours.lost, row.ours.miscounted), (3, 0));
        assert_eq!(row.ours.cpu_us_per_token, Some(3.0));
        assert_eq!(row.ours.tokens_per_arrival, Some(2.0));
        assert_eq!(row.ours.tokens_per_s, Some(50.0));
        assert_eq!(row.ours.peak_rss_mb, Some(3.0));
        assert_eq!(row.cpu_ratio(), Some(3.0 / 1.25));
        assert_eq!(row.ours.launch_ms, None, "what was not seen is absent");
    }

    #[test]
    fn readers_are_alike_where_the_server_paid_about_the_same() {
        let served = |us: f64| Summary { server_cpu_us_per_token: Some(us), ..Summary::default() };
        for (case, ours, raw, want) in [
            ("paced, spread", 15.9, 15.5, true),
            ("paced, in lockstep", 15.0, 5.0, false),
            ("flat out", 1.1, 1.2, true),
            ("flat out, the other way", 1.0, 1.5, false),
            ("just a quarter more", 5.0, 4.0, true),
            ("just a quarter less", 3.0, 4.0, true),
        ] {
            assert_eq!(served(ours).arrivals_alike(&served(raw)), Some(want), "{case}");
        }
        let unknown = Summary::default();
        assert_eq!(served(1.0).arrivals_alike(&unknown), None);
        assert_eq!(unknown.arrivals_alike(&served(1.0)), None);
        assert_eq!(served(1.0).arrivals_alike(&served(0.0)), None, "nothing to compare with");
    }

    #[test]
    fn no_tokens_have_no_price() {
        let row = Row::new(&paced(10, 1), &[reading(400, 0, 10)], &[]);
        assert_eq!((row.ours.cpu_us_per_token, row.ours.cpu_us_per_request), (None, None));
        assert_eq!((row.raw.clone(), row.cpu_ratio()), (None, None));
    }
}
