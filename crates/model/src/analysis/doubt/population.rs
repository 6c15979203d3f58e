//! Doubts about which requests the numbers are of, and whether these are enough and of one kind.

use super::{Seen, grave, percent, reason};
use crate::analysis::{TrialRecords, expect};
use crate::driver::LoadShape;
use crate::metrics::{self, NoWindow, steady};
use crate::plan::Mode;
use crate::request::{Outcome, RequestRecord};
use crate::results::MetricValue;
use crate::stats::order::{bounds, fewest};
use crate::stats::percentile::{self, percentile_of};
use crate::stats::quantile::distribution;
use crate::stats::rank::mann_whitney;
use crate::trust::{Reason, TrustLevel};
use crate::units::significant;

/// Little's law, `L = X W`, held over two populations that should be one. Of all requests together it is an
/// identity and says nothing. Rates and latencies are of completed requests only, the concurrency that they
/// are reported under is of all: what the law lacks between these two is the time that slots were held by
/// requests without a latency. A few that run into a time-out can hold most of the slots, and then the
/// deployment was hardly loaded by what was measured. One part in twenty is let pass.
pub(super) fn little_law(seen: &Seen<'_>) -> Option<Reason> {
    let seconds = |is: fn(&RequestRecord) -> bool| -> f64 {
        let of = |r: &&&RequestRecord| Some((r.finished_at - r.sent_at?).as_secs_f64());
        seen.records.iter().filter(|r| is(r)).filter_map(|r| of(&r)).sum()
    };
    // Those that the client gives up as planned hold their slots as planned.
    let (all, done) =
        (seconds(|r| r.outcome != Outcome::Abandoned), seconds(RequestRecord::is_completed));
    let missing = 1.0 - done / all;
    (done > 0.0 && missing > 0.05).then(|| {
        reason(
            "little_law",
            if missing > 0.5 { TrustLevel::Invalid } else { TrustLevel::Caution },
            format!(
                "rate times latency of the completed requests is {} less than what was in flight: requests that were not completed held the slots meanwhile, so the load was lighter than it says",
                percent(missing)
            ),
            "mend the failures, or set a timeout that does not hold a slot for so much longer than an answer takes",
        )
    })
}

/// How much longer what is cold has to take, beside being told apart by ranks: a quarter.
const COLDER: f64 = 1.25;
/// Standard deviations of a rank test that one point in some hundreds passes by chance.
const SURE: f64 = 3.0;
/// Fewer say nothing by their ranks.
const FEWEST_RANKED: usize = 8;

/// Median of both and how many times `head` is `rest`, where it is surely the slower one.
fn is_colder(head: Vec<f64>, rest: Vec<f64>) -> Option<(f64, f64)> {
    if head.len() < FEWEST_RANKED || rest.len() < FEWEST_RANKED {
        return None;
    }
    let z = mann_whitney(&head, &rest)?;
    let (head, rest) = (distribution(head)?.p50, distribution(rest)?.p50);
    (z > SURE && head > COLDER * rest).then_some((head, rest))
}

fn ttfts<'a>(records: impl IntoIterator<Item = &'a RequestRecord>) -> Vec<f64> {
    let done = records.into_iter().filter(|r| r.is_completed());
    done.filter_map(|r| Some(r.first_token_at?.millis_after(r.scheduled_at))).collect()
}

/// Trials of a point differ in nothing but their prompts, so the first has no cause to be slower.
pub(super) fn cold_trial(seen: &Seen<'_>) -> Option<Reason> {
    let (first, later) = seen.trials.split_first()?;
    let later = later.iter().flat_map(|t| &t.records);
    let (first, later) = is_colder(ttfts(&first.records), ttfts(later))?;
    Some(cold("the first trial", first, "the later ones", later))
}

/// The first requests against the others of their trial. In a closed load of several slots the first of
/// each come at once, queue behind each other and stay in step for a while, which is no cold start: there
/// only trials can be told apart. An open load begins with an empty queue, so its first requests should be
/// the quicker ones.
pub(super) fn cold_head(seen: &Seen<'_>) -> Option<Reason> {
    let has_wave = match seen.context.mode {
        Mode::Burst => true,
        Mode::Closed => seen.context.level.concurrency.is_some_and(|n| n > 1),
        Mode::Open | Mode::Serial | Mode::Batch => false,
    };
    if has_wave {
        return None;
    }
    let (mut head, mut rest) = (Vec::new(), Vec::new());
    for trial in seen.trials {
        let mut records: Vec<&RequestRecord> = trial.records.iter().collect();
        records.sort_by_key(|r| r.index);
        let n = (records.len() / 10).max(FEWEST_RANKED).min(records.len() / 2);
        let (first, others) = records.split_at(n);
        // In a queue the slow ones come in runs, and one of these may come first.
        if others.chunks_exact(n.max(1)).any(|run| !is_slower(first, run)) {
            return None;
        }
        head.extend(ttfts(first.iter().copied()));
        rest.extend(ttfts(others.iter().copied()));
    }
    let (head, rest) = is_colder(head, rest)?;
    Some(cold("the first requests", head, "the rest", rest))
}

/// Whether the median of `a` is as far above that of `b` as what is cold has to be.
fn is_slower(a: &[&RequestRecord], b: &[&RequestRecord]) -> bool {
    let median = |of: &[&RequestRecord]| distribution(ttfts(of.iter().copied())).map(|d| d.p50);
    median(a).zip(median(b)).is_none_or(|(a, b)| a > COLDER * b)
}

fn cold(first: &str, first_ms: f64, rest: &str, rest_ms: f64) -> Reason {
    reason(
        "cold_start",
        TrustLevel::Caution,
        format!(
            "the median TTFT of {first} is {} ms, of {rest} {} ms: caches, graphs or connections may have been cold still",
            significant(first_ms),
            significant(rest_ms)
        ),
        "set a larger warmup in the [[load]]",
    )
}

/// The percentiles that the file asks for by name, each with the values it is taken of. Where even the
/// largest of these is not above it with 95 % confidence, the number is no more than the largest seen.
pub(super) fn tail_samples(seen: &Seen<'_>) -> Option<Reason> {
    let worst = asked(seen)
        .filter_map(|name| Tail::of(seen, name))
        .filter(|tail| tail.have < tail.need)
        .max_by_key(|tail| tail.need)?;
    let Tail { name, have, need, low } = worst;
    let above = low.map_or(String::new(), |low| format!(", and lies above {}", significant(low)));
    Some(reason(
        "tail_samples",
        TrustLevel::Caution,
        format!(
            "{name} is of {have} values: it has no upper bound at 95 % confidence below {need}{above}"
        ),
        "give more requests or repeats, or ask for a lower percentile",
    ))
}

/// Names of metrics that expectations and reports want of this point.
fn asked<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = &'a str> {
    let context = seen.context;
    let expects = seen.frame.expects.iter();
    let here = expects.filter(|e| expect::is_about(e, context.deployment, context.load));
    here.map(|e| e.metric.as_str()).chain(seen.frame.shown.iter().copied())
}

struct Tail<'a> {
    name: &'a str,
    have: u64,
    need: u64,
    low: Option<f64>,
}

impl<'a> Tail<'a> {
    fn of(seen: &Seen<'_>, name: &'a str) -> Option<Self> {
        let (base, stat) = percentile::split(name);
        // The tail alone: of few values a median is as good as they are.
        let p = percentile_of(stat?).filter(|p| *p >= 90.0)? / 100.0;
        let metric = metrics::find(base)?;
        let Some(MetricValue::Distribution(d)) = seen.metrics.get(metric.name) else { return None };
        let need = fewest(p)?;
        // Looked at only where there are few.
        let low = (d.count < need).then(|| {
            let mut values: Vec<f64> =
                seen.trials.iter().flat_map(|t| metric.samples(&t.view(seen.context))).collect();
            values.sort_by(f64::total_cmp);
            bounds(&values, p).low
        });
        Some(Self { name, have: d.count, need, low: low.flatten() })
    }
}

/// A largest latency that is the time-out, though nobody ran into it: something gave up at the same limit,
/// and answered in its own way.
pub(super) fn max_is_timeout(seen: &Seen<'_>) -> Option<Reason> {
    let (largest, timeout) = (seen.value("e2e_sent.max")?, seen.context.timeout);
    let limit = timeout.as_millis_f64();
    (limit > 0.0 && (largest - limit).abs() <= 0.01 * limit).then(|| {
        reason(
            "max_is_timeout",
            TrustLevel::Caution,
            format!(
                "the longest answer took {} ms, which is the time-out of {timeout}: the tail may be cut off there",
                significant(largest)
            ),
            "raise timeout in the [[load]], and look for the same limit in the server or a proxy",
        )
    })
}

/// Answers that count as completed and hold next to nothing. One that holds nothing at all is a failure
/// (`empty_output`) already; but a server may say zero tokens beside an empty-looking chunk, or end where
/// the model's first token is the last.
pub(super) fn empty_outputs(seen: &Seen<'_>) -> Option<Reason> {
    let holds = |r: &RequestRecord, from: u32, to: u32| {
        r.is_completed() && r.output_tokens.is_some_and(|n| (from..=to).contains(&n))
    };
    let empty = seen.count(|r| r.asked_output_tokens > 0 && holds(r, 0, 0));
    let single = seen.count(|r| r.asked_output_tokens > r.prompts && holds(r, 1, r.prompts));
    let is_many = seen.share(single) > 0.05;
    (empty > 0 || is_many).then(|| {
        reason(
            "empty_outputs",
            grave(seen.share(empty)),
            format!(
                "of {} requests, {empty} were completed without a token and {single} with a single one where more was asked: their latencies are not those of an answer",
                seen.records.len()
            ),
            "set force_len in the [[workload]], or look at what the server answers to these prompts",
        )
    })
}

/// Without a steady window the rates hold ramp and drain, and nothing tells by how much.
pub(super) fn no_steady_window(seen: &Seen<'_>) -> Option<Reason> {
    // A slot that thinks is not in flight, and a limit keeps requests out as it is meant to.
    let is_held_back = matches!(seen.phase.shape, LoadShape::Closed { think: Some(_), .. });
    if is_held_back || seen.phase.max_prefill.is_some() || seen.value("wall_s").is_none() {
        return None;
    }
    let without = |t: &TrialRecords| steady(&t.view(seen.context)).err();
    let why = match seen.trials.iter().find_map(without)? {
        NoWindow::NoLevel => return None,
        NoWindow::NotReached => "90 % of the asked concurrency was never in flight",
        NoWindow::StillFilling => {
            "the last request was due before the first tenth of them had been answered"
        }
    };
    Some(reason(
        "no_steady_window",
        TrustLevel::Caution,
        format!("a trial has no steady part, since {why}: its rates are of ramp and drain"),
        "give more requests or a longer duration",
    ))
}
