//! What speaks against a point's numbers. Each doubt has a stable code, says what was seen and what it
//! means for the number, and names the next step.

use super::MeasuredPoint;
use crate::plan::Mode;
use crate::request::{Outcome, RequestRecord};
use crate::results::{Metrics, PointContext, lookup};
use crate::trust::{Reason, Trust, TrustLevel};
use crate::units::significant;

/// All doubts about a point.
pub(super) fn doubts(
    context: &PointContext<'_>,
    measured: &MeasuredPoint<'_>,
    metrics: &Metrics,
) -> Trust {
    let records: Vec<&RequestRecord> = measured.trials.iter().flat_map(|t| &t.records).collect();
    let seen = Seen { context, records: &records, metrics };
    let mut trust = Trust::default();
    let checks: [fn(&Seen<'_>) -> Option<Reason>; 9] = [
        nothing_measured,
        failures,
        time_outs,
        few_requests,
        concurrency_not_reached,
        lateness,
        lengths,
        token_counts,
        unparsed,
    ];
    for check in checks {
        if let Some(reason) = check(&seen) {
            trust.add(reason);
        }
    }
    if measured.trials.iter().any(|t| t.partial) {
        trust.add(reason(
            "partial",
            TrustLevel::Invalid,
            "a trial was cut short; what is here is a part of it".to_owned(),
            "continue with scalebeam run --resume",
        ));
    }
    trust
}

struct Seen<'a> {
    context: &'a PointContext<'a>,
    records: &'a [&'a RequestRecord],
    metrics: &'a Metrics,
}

impl Seen<'_> {
    fn count(&self, is: impl Fn(&RequestRecord) -> bool) -> usize {
        self.records.iter().filter(|r| is(r)).count()
    }

    fn share(&self, n: usize) -> f64 {
        n as f64 / self.records.len().max(1) as f64
    }

    fn value(&self, name: &str) -> Option<f64> {
        lookup(self.metrics, name)
    }
}

fn reason(code: &str, level: TrustLevel, message: String, next_step: &str) -> Reason {
    Reason { code: code.to_owned(), level, message, next_step: next_step.to_owned() }
}

/// More than one in twenty changes what is measured: the survivors had a lighter server.
fn grave(share: f64) -> TrustLevel {
    if share > 0.05 { TrustLevel::Invalid } else { TrustLevel::Caution }
}

fn percent(share: f64) -> String {
    format!("{} %", significant(share * 100.0))
}

fn nothing_measured(seen: &Seen<'_>) -> Option<Reason> {
    (seen.count(RequestRecord::is_completed) == 0).then(|| {
        reason(
            "nothing_measured",
            TrustLevel::Invalid,
            format!("none of {} requests was completed", seen.records.len()),
            "read the failures below and the logs of the deployment",
        )
    })
}

fn failures(seen: &Seen<'_>) -> Option<Reason> {
    let lost = seen.count(|r| !r.is_completed() && r.outcome != Outcome::TimedOut);
    let (all, done) = (seen.records.len(), seen.count(RequestRecord::is_completed));
    (lost > 0 && done > 0).then(|| {
        let share = seen.share(lost);
        reason(
            "failures",
            grave(share),
            format!(
                "{lost} of {all} requests ({}) were not completed; rates and latencies are of the others",
                percent(share)
            ),
            "mend the failures, or lower the load until there are none",
        )
    })
}

fn time_outs(seen: &Seen<'_>) -> Option<Reason> {
    let lost = seen.count(|r| r.outcome == Outcome::TimedOut);
    (lost > 0).then(|| {
        let share = seen.share(lost);
        let timeout = seen.context.timeout;
        reason(
            "timeouts",
            grave(share),
            format!(
                "{lost} requests ({}) ran into the time-out of {timeout}: the tail is cut off there",
                percent(share)
            ),
            "raise timeout in the [[load]], or lower the load",
        )
    })
}

fn few_requests(seen: &Seen<'_>) -> Option<Reason> {
    let asked = seen.context.level.concurrency.filter(|c| *c > 1)?;
    let is_closed = seen.context.mode == Mode::Closed;
    let trials = seen.value("requests").unwrap_or(0.0);
    (is_closed && trials < 3.0 * f64::from(asked)).then(|| {
        reason(
            "few_requests",
            TrustLevel::Caution,
            format!("{trials:.0} requests a trial at concurrency {asked}: mostly ramp and tail"),
            "set requests = \"10x\" in the [[load]]",
        )
    })
}

fn concurrency_not_reached(seen: &Seen<'_>) -> Option<Reason> {
    let asked = seen.context.level.concurrency.filter(|c| *c > 1)?;
    if seen.context.mode != Mode::Closed {
        return None;
    }
    let ratio = seen.value("concurrency_effective_ratio")?;
    (ratio < 0.9).then(|| {
        let reached = seen.value("concurrency_reached").unwrap_or(0.0);
        reason(
            "concurrency_not_reached",
            if ratio < 0.5 { TrustLevel::Invalid } else { TrustLevel::Caution },
            format!("{} requests were in flight on average, not {asked}", significant(reached)),
            "give more requests, or a longer duration, so that ramp and tail weigh less",
        )
    })
}

/// Lateness is an error of the instrument: it counts in TTFT and E2E. In a burst over new connections
/// it is the time to open them, which users pay too; there it is judged as caution only.
fn lateness(seen: &Seen<'_>) -> Option<Reason> {
    let late = seen.value("lateness_ms.p99")?;
    let ttft = seen.value("ttft.p50").or_else(|| seen.value("e2e.p50"))?;
    let capped = seen.context.mode == Mode::Open && seen.context.level.concurrency.is_some();
    let budget = (0.1 * ttft).max(2.0);
    (late > budget && !capped).then(|| {
        let level = if late > 5.0 * budget && seen.context.mode == Mode::Open {
            TrustLevel::Invalid
        } else {
            TrustLevel::Caution
        };
        reason(
            "late",
            level,
            format!(
                "requests left up to {} ms (p99) after they were due, against a median TTFT of {} ms",
                significant(late),
                significant(ttft)
            ),
            "lower the load, give the load generator more cores, or compare ttft_sent_ms",
        )
    })
}

fn lengths(seen: &Seen<'_>) -> Option<Reason> {
    let wrong = seen.value("osl_mismatch")?;
    (wrong > 0.0).then(|| {
        reason(
            "osl_mismatch",
            TrustLevel::Caution,
            format!("{} of the answers are not as long as was forced", percent(wrong)),
            "check that the engine honours ignore_eos and min_tokens; compare per token, not per request",
        )
    })
}

fn token_counts(seen: &Seen<'_>) -> Option<Reason> {
    let own = seen.value("tokens_from_usage")?;
    (own < 1.0).then(|| {
        reason(
            "no_usage",
            TrustLevel::Caution,
            format!(
                "{} of the answers came without usage; their tokens were counted here",
                percent(1.0 - own)
            ),
            "let the server report usage (stream_options.include_usage), or give a tokenizer",
        )
    })
}

fn unparsed(seen: &Seen<'_>) -> Option<Reason> {
    let events: u32 = seen.records.iter().map(|r| r.unparsed_events).sum();
    (events > 0).then(|| {
        reason(
            "unparsed_events",
            TrustLevel::Caution,
            format!("{events} events of the streams were not JSON and were skipped"),
            "look at the server's stream; tokens may be missing",
        )
    })
}
