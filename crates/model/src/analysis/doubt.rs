//! What speaks against a point's numbers. Each doubt has a stable code, says what was seen and what it
//! means for the number, and names the next step.

use super::{Frame, MeasuredPoint, TrialRecords, sharing};
use crate::driver::{LoadShape, PhasePlan};
use crate::plan::Mode;
use crate::request::{Outcome, RequestRecord};
use crate::results::{Metrics, PointContext, lookup};
use crate::telemetry::Usage;
use crate::trust::{Reason, Trust, TrustLevel};
use crate::units::{Nanos, significant};
use crate::workload::{CachePolicy, Workload};

mod around;
mod engines;
mod machines;
mod population;

pub(super) use machines::FOREIGN_LOAD;

/// All doubts about a point.
pub(super) fn doubts(
    context: &PointContext<'_>,
    measured: &MeasuredPoint<'_>,
    metrics: &Metrics,
    usages: &[Option<Usage>],
    frame: &Frame<'_>,
) -> Trust {
    let records: Vec<&RequestRecord> = measured.trials.iter().flat_map(|t| &t.records).collect();
    let (phase, workload) = (&measured.plan.measure, &measured.plan.workload);
    let trials = &measured.trials;
    let seen = Seen { context, phase, records: &records, trials, workload, metrics, usages, frame };
    let mut trust = Trust::default();
    let is_partial = measured.trials.iter().any(|t| t.partial);
    let damaged = measured.trials.iter().find_map(|t| t.damaged.as_ref());
    let checks: [fn(&Seen<'_>) -> Option<Reason>; 41] = [
        nothing_measured,
        failures,
        time_outs,
        few_requests,
        concurrency_not_reached,
        lateness,
        lengths,
        cache_hits,
        token_counts,
        unparsed,
        few_samples,
        rate_not_sustained,
        oversaturated,
        not_streamed,
        resent,
        merged,
        abandoned,
        population::little_law,
        population::cold_trial,
        population::cold_head,
        population::tail_samples,
        population::max_is_timeout,
        population::empty_outputs,
        population::no_steady_window,
        around::client_cpu,
        engines::preemptions,
        engines::cache_full,
        engines::prefix_hits,
        around::instrument_floor,
        machines::held_down,
        machines::slow_gpu,
        machines::clock_drop,
        machines::foreign_load,
        machines::cpu_throttled,
        machines::link_full,
        machines::memory_full,
        machines::energy_doubtful,
        machines::energy_absent,
        machines::energy_counted,
        machines::gpu_power_only,
        machines::clock_uncertain,
    ];
    // Of a trial that was cut short in its warm-up there is nothing else to say.
    let looked_at =
        checks.into_iter().filter(|_| !((is_partial || damaged.is_some()) && records.is_empty()));
    for check in looked_at {
        if let Some(reason) = check(&seen) {
            trust.add(reason);
        }
    }
    if let Some(why) = damaged {
        trust.add(reason(
            "damaged",
            TrustLevel::Invalid,
            format!("records of a trial cannot be read: {why}"),
            "scalebeam run --resume measures it again",
        ));
    }
    if let Some(why) = measured.trials.iter().find_map(|t| t.facts.cache_not_reset.as_ref()) {
        trust.add(reason(
            "cache_not_reset",
            TrustLevel::Caution,
            format!(
                "the prefix cache was not emptied before a trial ({why}): prompts may have been answered from what earlier trials asked"
            ),
            "set cache = \"salt\" in the [[workload]], or let the engine reset its cache (vLLM: VLLM_SERVER_DEV_MODE=1)",
        ));
    }
    if is_partial {
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
    phase: &'a PhasePlan,
    records: &'a [&'a RequestRecord],
    trials: &'a [TrialRecords],
    workload: &'a Workload,
    metrics: &'a Metrics,
    usages: &'a [Option<Usage>],
    frame: &'a Frame<'a>,
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

pub(super) fn reason(code: &str, level: TrustLevel, message: String, next_step: &str) -> Reason {
    Reason { code: code.to_owned(), level, message, next_step: next_step.to_owned() }
}

/// More than one in twenty changes what is measured: the survivors had a lighter server.
fn grave(share: f64) -> TrustLevel {
    if share > 0.05 { TrustLevel::Invalid } else { TrustLevel::Caution }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
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
    let lost = seen.count(|r| r.outcome.is_loss() && r.outcome != Outcome::TimedOut);
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
    // Of a trial that was cut short or cannot be read another reason says so; where all were, no mean is too small.
    let whole = seen.trials.iter().filter(|t| !t.partial && t.damaged.is_none());
    let requests: Vec<usize> = whole.map(|t| t.records.len()).collect();
    let trials = requests.iter().sum::<usize>() as f64 / requests.len() as f64;
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
    // A slot that thinks is not in flight, and is not meant to be; nor is a session between two turns.
    if seen.phase.sessions.as_ref().is_some_and(|sessions| sessions.think.is_some()) {
        return None;
    }
    let LoadShape::Closed { ramp_up, think: None, .. } = seen.phase.shape else { return None };
    let ratio = seen.value("concurrency_effective_ratio")? / share_of_ramp(ramp_up, seen);
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

/// The part of the asked concurrency that a ramp lets be in flight on average: half of it while it lasts.
fn share_of_ramp(ramp_up: Option<Nanos>, seen: &Seen<'_>) -> f64 {
    let (ramp, wall) = (ramp_up.map_or(0.0, Nanos::as_secs_f64), seen.value("wall_s"));
    wall.filter(|wall| *wall > 0.0).map_or(1.0, |wall| 1.0 - 0.5 * (ramp / wall).min(1.0))
}

/// Lateness is an error of the instrument: it counts in TTFT and E2E. In a burst over new connections
/// it is the time to open them, which users pay too; there it is judged as caution only.
fn lateness(seen: &Seen<'_>) -> Option<Reason> {
    let late = seen.value("lateness_ms.p99")?;
    let ttft = seen.value("ttft.p50").or_else(|| seen.value("e2e.p50"))?;
    // What waits for a slot because the file says so is late by intent.
    let cap = seen.phase.shape.max_in_flight().is_some() && seen.context.mode == Mode::Open;
    let capped = cap || seen.phase.max_prefill.is_some();
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
                "requests left up to {} ms (p99) after they were due, against a median TTFT of {} ms; {}",
                significant(late),
                significant(ttft),
                parts_of_lateness(seen),
            ),
            "lower the load, give the load generator more cores, or compare ttft_sent_ms",
        )
    })
}

/// Whose the lateness is: opening connections costs a user too, the rest is the load generator's own.
fn parts_of_lateness(seen: &Seen<'_>) -> String {
    let ours = seen.value("send_delay_ms.p99").unwrap_or(0.0);
    let opened = seen.value("connect_ms.count").unwrap_or(0.0);
    match seen.value("connect_ms.p99") {
        Some(connecting) => format!(
            "the load generator's own part is {} ms (p99), connecting took {} ms (p99 of the {opened} that had to)",
            significant(ours),
            significant(connecting)
        ),
        None => format!("all of it is the load generator's own, {} ms (p99)", significant(ours)),
    }
}

fn lengths(seen: &Seen<'_>) -> Option<Reason> {
    let wrong = seen.value("osl_mismatch")?;
    let forced = || seen.records.iter().filter(|r| r.is_forced_and_counted());
    let mean = |of: fn(&RequestRecord) -> u32| {
        forced().map(|r| f64::from(of(r))).sum::<f64>() / forced().count().max(1) as f64
    };
    (wrong > 0.0).then(|| {
        reason(
            "osl_mismatch",
            TrustLevel::Caution,
            format!(
                "{} of the answers are not as long as was forced: by the server's usage {} tokens on average, not {}",
                percent(wrong),
                significant(mean(|r| r.output_tokens.unwrap_or(0))),
                significant(mean(|r| r.asked_output_tokens))
            ),
            "check that the engine honours ignore_eos and min_tokens; compare per token, not per request",
        )
    })
}

/// A cache that was filled by somebody else makes prefill look cheaper than it is. One part in twenty is
/// let pass: caches match in blocks, and templates differ.
fn cache_hits(seen: &Seen<'_>) -> Option<Reason> {
    let cached = sharing::cached(seen.workload, seen.trials)?;
    let share = |n: u64| n as f64 / cached.prompt.max(1) as f64;
    let next_step = match seen.workload.cache {
        CachePolicy::Keep => {
            "set cache = \"salt\" in the [[workload]], or restart the server between points"
        }
        CachePolicy::Reset => {
            "the engine said that it emptied its cache, and may not have: set cache = \"salt\" in the [[workload]]"
        }
        CachePolicy::Salt => {
            "prompts were salted: look for a cache that matches more than prefixes, before the server or in it"
        }
    };
    (share(cached.unexplained) > 0.05).then(|| {
        reason(
            "cache_hits",
            TrustLevel::Caution,
            format!(
                "{} of the prompt tokens came from the server's prefix cache, {} beyond what requests of a trial share: their prefill was not measured",
                percent(share(cached.cached)),
                percent(share(cached.unexplained))
            ),
            next_step,
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

/// A percentile is no better than the number of values beyond it.
fn few_samples(seen: &Seen<'_>) -> Option<Reason> {
    let n = seen.count(RequestRecord::is_completed);
    (n > 0 && n < FEW_SAMPLES).then(|| {
        reason(
            "few_samples",
            TrustLevel::Caution,
            format!("{n} completed requests in all: a p95 or p99 of them is about the largest"),
            "give more requests or repeats before you rely on a tail",
        )
    })
}

/// Fewer than this have no 95th percentile to speak of.
const FEW_SAMPLES: usize = 20;

/// An open loop above what the deployment can serve has no latency of its own: it grows with the run.
fn rate_not_sustained(seen: &Seen<'_>) -> Option<Reason> {
    if seen.context.mode != Mode::Open {
        return None;
    }
    let due = |r: &&RequestRecord| r.scheduled_at;
    let first = seen.records.iter().copied().map(|r| due(&r)).min()?;
    let last = seen.records.iter().copied().map(|r| due(&r)).max()?;
    let end = seen.records.iter().map(|r| r.finished_at).max()?;
    let (schedule, drain) = ((last - first).as_secs_f64(), (end - last).as_secs_f64());
    let quickest = seen.value("e2e.min").unwrap_or(0.0) / 1e3;
    (drain > (0.25 * schedule).max(4.0 * quickest)).then(|| {
        reason(
            "rate_not_sustained",
            TrustLevel::Caution,
            format!(
                "requests came for {} s and took {} s more to be served: the queue grew, and latencies depend on how long one looks",
                significant(schedule),
                significant(drain)
            ),
            "lower the rate until the queue empties",
        )
    })
}

/// The trial was ended early, so its latencies are those of a queue on its way up.
fn oversaturated(seen: &Seen<'_>) -> Option<Reason> {
    let ended = |t: &TrialRecords| {
        let first = t.records.iter().map(|r| r.scheduled_at).min()?;
        Some(t.facts.oversaturated_at?.since(first))
    };
    let after = seen.trials.iter().filter_map(ended).min()?;
    Some(reason(
        "oversaturated",
        TrustLevel::Invalid,
        format!(
            "requests in flight and TTFT surely grew without end, so a trial was ended after {after}: its latencies say how long it ran, not how the deployment serves"
        ),
        "lower the rate, or search the highest that is served with 'search' in the [[load]]",
    ))
}

fn not_streamed(seen: &Seen<'_>) -> Option<Reason> {
    let done = seen.count(RequestRecord::is_completed);
    let whole = seen.count(|r| r.is_completed() && r.first_token_at.is_none());
    (seen.workload.stream && whole > 0).then(|| {
        reason(
            "not_streamed",
            TrustLevel::Caution,
            format!("{whole} of {done} answers came whole although streams were asked for: they have no TTFT"),
            "look whether the server or a proxy before it collects answers",
        )
    })
}

/// The kernel has one stamp for a read. A client that reads late gets more chunks in a read, and the gaps
/// between these are lost; a server that writes several at once is its own affair.
fn merged(seen: &Seen<'_>) -> Option<Reason> {
    let (share, lag) = (seen.value("merged_arrivals")?, seen.value("read_lag_ms.p99")?);
    let gap = seen.value("itl.p50")?;
    // A read within a fifth of a millisecond is as soon as a thread can be woken.
    (share > 0.05 && lag > (0.5 * gap).max(0.2)).then(|| {
        reason(
            "merged_reads",
            TrustLevel::Caution,
            format!(
                "{} of the chunks came in one read with others, because the client read late (p99 {} ms): gaps between tokens are coarser than they were",
                percent(share),
                significant(lag)
            ),
            "give the load generator more cores, or a machine of its own",
        )
    })
}

fn resent(seen: &Seen<'_>) -> Option<Reason> {
    let n = seen.count(|r| r.resent);
    (n > 0).then(|| {
        reason(
            "resent",
            // The first few are how one learns what the server does.
            if n > 2 && seen.share(n) > 0.05 { TrustLevel::Caution } else { TrustLevel::Sound },
            format!("{n} requests were sent again on a fresh connection: the server had closed the kept one without a word and may have seen them twice"),
            "let the server announce that it closes (Connection: close), or keep connections open",
        )
    })
}

/// As planned, so no doubt; but a reader of the latencies must know whose they are.
fn abandoned(seen: &Seen<'_>) -> Option<Reason> {
    let n = seen.count(|r| r.outcome == Outcome::Abandoned);
    (n > 0).then(|| {
        reason(
            "abandoned",
            TrustLevel::Sound,
            format!(
                "{n} requests ({}) were given up by the client, as the load says; latencies and token rates are of the others",
                percent(seen.share(n))
            ),
            "leave 'cancel' out of the [[load]] to see what they would have waited",
        )
    })
}
