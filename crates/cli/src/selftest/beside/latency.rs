//! Latencies under the names and definitions that vLLM's clients use, said by a client or known to the server.

use crate::selftest::trace::Trace;
use scalebeam_model::stats::quantile::distribution;
use scalebeam_model::units::Nanos;
use serde::{Deserialize, Serialize};

/// Milliseconds, as vLLM's result files name them. What was not said, or has no value, is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Latencies {
    /// Mean time to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mean_ttft_ms: Option<f64>,
    /// Its 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ttft_ms: Option<f64>,
    /// Mean of all gaps between tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mean_itl_ms: Option<f64>,
    /// Their 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_itl_ms: Option<f64>,
    /// Mean over the requests of their mean gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mean_tpot_ms: Option<f64>,
}

impl Latencies {
    /// What a result file says; nothing where it is no JSON object.
    pub(crate) fn said(text: &str) -> Self {
        let said: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let of = |key: &str| said.get(key).and_then(serde_json::Value::as_f64);
        Self {
            mean_ttft_ms: of("mean_ttft_ms"),
            p99_ttft_ms: of("p99_ttft_ms"),
            mean_itl_ms: of("mean_itl_ms"),
            p99_itl_ms: of("p99_itl_ms"),
            mean_tpot_ms: of("mean_tpot_ms"),
        }
    }

    /// What the server knows of the requests that it answered whole.
    pub(crate) fn of(truth: &[Trace]) -> Self {
        let (mut ttft, mut itl, mut tpot) = (Vec::new(), Vec::new(), Vec::new());
        for trace in truth.iter().filter(|t| t.is_whole) {
            let (Some(first), Some(last)) = (trace.marks.first(), trace.marks.last()) else {
                continue;
            };
            ttft.extend(trace.sent_at.map(|sent| first.at.millis_after(sent)));
            itl.extend(trace.marks.windows(2).map(|m| m[1].at.millis_after(m[0].at)));
            if let Some(gaps) = trace.marks.len().checked_sub(1).filter(|n| *n > 0) {
                tpot.push(last.at.millis_after(first.at) / gaps as f64);
            }
        }
        let (ttft, itl) = (distribution(ttft), distribution(itl));
        Self {
            mean_ttft_ms: ttft.map(|d| d.mean),
            p99_ttft_ms: ttft.map(|d| d.p99),
            mean_itl_ms: itl.map(|d| d.mean),
            p99_itl_ms: itl.map(|d| d.p99),
            mean_tpot_ms: distribution(tpot).map(|d| d.mean),
        }
    }

    /// What was said here, less what is `true_` there.
    pub(crate) fn less(&self, truth: &Self) -> Self {
        let less = |said: Option<f64>, truth: Option<f64>| Some(said? - truth?);
        Self {
            mean_ttft_ms: less(self.mean_ttft_ms, truth.mean_ttft_ms),
            p99_ttft_ms: less(self.p99_ttft_ms, truth.p99_ttft_ms),
            mean_itl_ms: less(self.mean_itl_ms, truth.mean_itl_ms),
            p99_itl_ms: less(self.p99_itl_ms, truth.p99_itl_ms),
            mean_tpot_ms: less(self.mean_tpot_ms, truth.mean_tpot_ms),
        }
    }
}

/// When the server's kernel had the first request, and when the last answer ended.
pub(crate) fn span(truth: &[Trace]) -> Option<(Nanos, Nanos)> {
    let first = truth.iter().filter_map(|t| t.sent_at).min()?;
    Some((first, truth.iter().map(|t| t.ended_at).max()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::trace::Mark;

    fn trace(sent: u64, marks: &[u64]) -> Trace {
        let at = |ms: u64| Nanos::from_millis(ms);
        Trace {
            index: 0,
            scheduled_at: None,
            sent_at: Some(at(sent)),
            ended_at: at(*marks.last().unwrap()),
            is_whole: true,
            marks: marks.iter().map(|ms| Mark { at: at(*ms), amount: 1 }).collect(),
        }
    }

    #[test]
    fn the_truth_is_counted_as_the_client_counts() {
        // TTFT 10 and 20; gaps 1, 3 and 8; mean gaps 2 and 8.
        let mut cut = trace(0, &[500]);
        cut.is_whole = false;
        let truth = Latencies::of(&[trace(0, &[10, 11, 14]), trace(10, &[30, 38]), cut]);
        assert_eq!(truth.mean_ttft_ms, Some(15.0));
        assert_eq!(truth.p99_ttft_ms.map(|x| (x * 100.0).round()), Some(1990.0));
        assert_eq!((truth.mean_itl_ms, truth.mean_tpot_ms), (Some(4.0), Some(5.0)));
        let single = Latencies::of(&[trace(0, &[10])]);
        assert_eq!((single.mean_ttft_ms, single.mean_tpot_ms), (Some(10.0), None));
    }

    #[test]
    fn an_error_is_known_where_both_have_spoken() {
        let said =
            Latencies::said(r#"{"mean_ttft_ms": 16.5, "p99_itl_ms": null, "mean_tpot_ms": 4}"#);
        let error = said.less(&Latencies::of(&[trace(0, &[15, 20])]));
        let want =
            Latencies { mean_ttft_ms: Some(1.5), mean_tpot_ms: Some(-1.0), ..Latencies::default() };
        assert_eq!(error, want);
        for text in ["", "[1]", "not JSON", "{\"mean_ttft_ms\": \"fast\"}"] {
            assert_eq!(Latencies::said(text), Latencies::default(), "{text}");
        }
    }
}
