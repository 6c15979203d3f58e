//! Doubts from what was seen around the requests: the client's machine, the floor.

use super::{Seen, percent, reason};
use crate::plan::Mode;
use crate::trust::{Reason, TrustLevel};
use crate::units::significant;

/// Above this a load thread has no time left in which to be on time.
const BUSY_THREAD: f64 = 0.8;
/// Above this nothing on the machine runs when it wants to.
const BUSY_MACHINE: f64 = 0.95;

fn largest(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().max_by(f64::total_cmp)
}

/// A busy client reads late and sends late; on a machine without an idle core it also takes time from a
/// server that runs there.
pub(super) fn client_cpu(seen: &Seen<'_>) -> Option<Reason> {
    let facts = || seen.trials.iter().map(|t| &t.facts);
    let thread = largest(facts().map(|f| f.busiest_worker_cpu)).filter(|n| *n > BUSY_THREAD);
    let machine = largest(facts().map(|f| f.machine_cpu)).filter(|n| *n > BUSY_MACHINE);
    let seen = match (thread, machine) {
        (None, None) => return None,
        (Some(thread), _) => {
            format!("a load thread was busy for {} of the time", percent(thread))
        }
        (None, Some(machine)) => format!(
            "{} of all cores of the client's machine were in use: whatever runs on it, a server of this run too, waited for its turn",
            percent(machine)
        ),
    };
    Some(reason(
        "client_cpu",
        TrustLevel::Caution,
        format!("{seen}; latencies hold the client's own queue"),
        "give the load generator more cores, or a machine of its own",
    ))
}

/// Single values may be off by a tenth of the median before it is told, since medians and means are truer
/// than those; a median or mean that is itself off by a fiftieth is told, by a fifth says nothing.
const SPREAD: f64 = 0.1;
const BIAS: f64 = 0.02;
const BIAS_INVALID: f64 = 0.2;

/// What was measured is not far enough above what the instrument would have measured of nothing.
pub(super) fn instrument_floor(seen: &Seen<'_>) -> Option<Reason> {
    let floor = seen.frame.floor?;
    let streams = match seen.context.mode {
        // As many as there were, of which a schedule says nothing.
        Mode::Open | Mode::Burst => seen.value("concurrency_reached")?.ceil(),
        Mode::Closed | Mode::Serial | Mode::Batch => {
            f64::from(seen.context.level.concurrency.unwrap_or(1))
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of streams; `as` saturates"
    )]
    let streams = streams as u32;
    let limit = |is_bias| if is_bias { BIAS } else { SPREAD };
    let worst = floor
        .shares(streams, seen.metrics)
        .into_iter()
        .filter(|s| s.of_value() > limit(s.is_bias))
        .max_by(|a, b| {
            (a.of_value() / limit(a.is_bias)).total_cmp(&(b.of_value() / limit(b.is_bias)))
        })?;
    let is_void = worst.is_bias && worst.of_value() > BIAS_INVALID;
    let error = format!("{} ms, {} of it", significant(worst.error_ms), percent(worst.of_value()));
    let error = if worst.is_bias {
        format!("the load client said it {error}, wrong")
    } else {
        format!("99 of 100 values of the load client were true to {error}")
    };
    Some(reason(
        "instrument_floor",
        if is_void { TrustLevel::Invalid } else { TrustLevel::Caution },
        format!(
            "the median {} is {} ms; on this machine, before the run, {error}",
            worst.what,
            significant(worst.value_ms),
        ),
        "give the load generator a quieter machine or more cores; scalebeam selftest says what it is worth",
    ))
}
