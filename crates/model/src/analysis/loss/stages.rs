//! Stages of the time that a request is in flight, and what each of them is short of the ideal.

use super::Cause;
use crate::results::{Metrics, lookup};

/// What a rate is made of, by Little's law. Times are per completed request, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::analysis) struct Stages {
    /// Output tokens/s.
    pub(super) tps: f64,
    /// Requests in flight.
    pub(super) in_flight: f64,
    /// Output tokens of a completed request.
    pub(super) tokens: f64,
    /// All of the time in flight over completed requests: those that failed took their time too.
    pub(super) whole_ms: f64,
    /// From sending to the first token.
    pub(super) first_ms: f64,
    /// Of that in the engines' queues; absent where they do not say it.
    pub(super) queue_ms: Option<f64>,
    /// Of that in their prefill.
    pub(super) prefill_ms: Option<f64>,
    /// From the first token on, by the engines' own count.
    pub(super) engine_decode_ms: Option<f64>,
}

impl Stages {
    /// Absent where nothing was completed, or answers were not streamed.
    pub(in crate::analysis) fn of(metrics: &Metrics) -> Option<Self> {
        let value = |name: &str| lookup(metrics, name).filter(|v| v.is_finite() && *v >= 0.0);
        let (tps, rps) = (value("output_tps")?, value("rps").filter(|r| *r > 0.0)?);
        let in_flight = value("concurrency_reached").filter(|l| *l > 0.0)?;
        let whole_ms = 1e3 * in_flight / rps;
        let first_ms = value("ttft_sent_ms.mean")?.min(whole_ms);
        // Both or neither, and only where the engines saw these requests and no others.
        let said = value("outside_engine_ms")
            .and_then(|_| Some((value("engine_queue_ms")?, value("engine_prefill_ms")?)));
        let said = said.filter(|(queue, prefill)| queue + prefill <= first_ms);
        Some(Self {
            tps,
            in_flight,
            tokens: tps / rps,
            whole_ms,
            first_ms,
            queue_ms: said.map(|(queue, _)| queue),
            prefill_ms: said.map(|(_, prefill)| prefill),
            engine_decode_ms: said.and(value("engine_decode_ms")),
        })
    }

    /// Requests that are not in a queue, by Little's law: what engines say of their batches is a look each second.
    pub(super) fn at_work(&self) -> f64 {
        self.in_flight * (1.0 - self.queue_ms.unwrap_or(0.0) / self.whole_ms)
    }

    pub(super) fn decode_ms(&self) -> f64 {
        self.whole_ms - self.first_ms
    }

    /// Time of the request that is spent computing, as far as it is told apart.
    pub(super) fn compute_ms(&self) -> f64 {
        self.prefill_ms.unwrap_or(self.first_ms) + self.decode_ms()
    }

    /// Stages by name, as fine as both sides know them.
    fn times(&self, is_fine: bool) -> Vec<(Cause, f64)> {
        let fine = self.queue_ms.zip(self.prefill_ms).filter(|_| is_fine);
        let mut out = match fine {
            Some((queue, prefill)) => vec![
                (Cause::Outside, self.first_ms - queue - prefill),
                (Cause::Queue, queue),
                (Cause::Prefill, prefill),
            ],
            None => vec![(Cause::FirstToken, self.first_ms)],
        };
        out.push((Cause::Decode, self.decode_ms()));
        out
    }
}

/// The rate that answers as long as these allow where every stage is ideal, of the ideal rate: what a share of the time
/// in flight is worth. Absent where there is nothing to divide by.
pub(super) fn reachable(of: &Stages, base: &Stages, size: f64, grown: f64) -> Option<f64> {
    let per_token = (base.tokens > 0.0).then(|| of.tokens / base.tokens)?;
    let ideal_ms = (base.first_ms + base.decode_ms() * per_token) * grown / size;
    let reachable = 1e3 * base.in_flight * grown * of.tokens / ideal_ms / (base.tps * size);
    reachable.is_finite().then_some(reachable)
}

/// What each part is short of the ideal, as a share of the ideal rate, and the ideal rate. `size` times the baseline's
/// rate is the ideal, where the load is `grown` times the baseline's. Absent where there is nothing to divide by.
pub(super) fn parts(
    of: &Stages,
    base: &Stages,
    size: f64,
    grown: f64,
) -> Option<(Vec<(Cause, f64)>, f64)> {
    let ideal_tps = base.tps * size;
    let ideal_in_flight = base.in_flight * grown;
    // By how much each stage may differ from the baseline's: less time where the same load meets more machines.
    let scale = grown / size;
    let per_token = if base.tokens > 0.0 { of.tokens / base.tokens } else { return None };
    let is_fine = of.queue_ms.is_some() && base.queue_ms.is_some();
    let ideal: Vec<f64> = base
        .times(is_fine)
        .into_iter()
        .map(|(stage, ms)| ms * scale * if stage == Cause::Decode { per_token } else { 1.0 })
        .collect();
    let ideal_ms: f64 = ideal.iter().sum();
    if ideal_ms <= 0.0 || of.whole_ms <= 0.0 || ideal_tps <= 0.0 {
        return None;
    }
    let reachable = reachable(of, base, size, grown)?;
    let mut out = vec![(Cause::Answers, 1.0 - reachable)];
    for ((stage, ms), ideal) in of.times(is_fine).into_iter().zip(ideal) {
        out.push((stage, reachable * (ms - ideal) / of.whole_ms));
    }
    let short = 1.0 - of.in_flight / ideal_in_flight;
    out.push((Cause::InFlight, reachable * ideal_ms / of.whole_ms * short));
    Some((out, ideal_tps))
}
