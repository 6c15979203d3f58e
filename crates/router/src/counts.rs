//! What the router counts, and the page that says so.

use crate::worker::Worker;
use scalebeam_model::units::Nanos;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The decode worker's answer was passed on to its end.
    Completed,
    /// It got an error status, a worker's or the router's own.
    Refused,
    /// A worker could not be asked.
    Unreachable,
    /// The answer broke off.
    Cut,
    /// The client went away.
    Cancelled,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Completed, "completed"),
    (Outcome::Refused, "refused"),
    (Outcome::Unreachable, "unreachable"),
    (Outcome::Cut, "cut"),
    (Outcome::Cancelled, "cancelled"),
];

/// A sum of spans.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    sum_ns: AtomicU64,
    count: AtomicU64,
}

impl Spans {
    pub(crate) fn add(&self, span: Nanos) {
        self.sum_ns.fetch_add(span.0, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }
}

/// Counts of the whole router.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    outcomes: [AtomicU64; OUTCOMES.len()],
    in_flight: AtomicU64,
    bytes: AtomicU64,
    /// What was spent on reading and writing the bodies of a request.
    pub(crate) own: Spans,
    /// From a request's way to the prefill worker until that had answered.
    pub(crate) prefill: Spans,
}

impl Counts {
    /// A request that has arrived.
    pub(crate) fn begin(self: &Arc<Self>) -> Tally {
        self.in_flight.fetch_add(1, Relaxed);
        Tally { counts: Arc::clone(self), outcome: Outcome::Cancelled }
    }
}

/// A request under way; counted as cancelled when it is dropped before it was said how it ended.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: Arc<Counts>,
    outcome: Outcome,
}

impl Tally {
    pub(crate) fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    pub(crate) fn passed_on(&self, bytes: usize) {
        self.counts.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(1, Relaxed);
        if let Some(at) = OUTCOMES.iter().position(|(outcome, _)| *outcome == self.outcome) {
            self.counts.outcomes[at].fetch_add(1, Relaxed);
        }
    }
}

/// Counts of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounts {
    sent: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
}

impl WorkerCounts {
    /// A request is on its way to it.
    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// It did not answer, not to its end, or with an error status.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }
}

/// The page, in Prometheus' text form.
pub(crate) fn page(counts: &Counts, pools: &[(&str, &[Arc<Worker>])]) -> String {
    let mut page = Page(String::with_capacity(4_096));
    page.head("scalebeam_router_requests", "counter", "Requests by how they ended.");
    for ((_, name), count) in OUTCOMES.iter().zip(&counts.outcomes) {
        page.line("scalebeam_router_requests_total", &format!("{{outcome=\"{name}\"}}"), count);
    }
    page.head("scalebeam_router_requests_in_flight", "gauge", "Requests under way.");
    page.line("scalebeam_router_requests_in_flight", "", &counts.in_flight);
    page.head("scalebeam_router_relayed_bytes", "counter", "Bytes of answers passed on.");
    page.line("scalebeam_router_relayed_bytes_total", "", &counts.bytes);
    page.spans(
        "scalebeam_router_own_seconds",
        "Reading and writing the bodies of a request; sockets and scheduling are not in it.",
        &counts.own,
    );
    page.spans(
        "scalebeam_router_prefill_seconds",
        "From sending a request to a prefill worker to the end of its answer.",
        &counts.prefill,
    );
    type Of = fn(&WorkerCounts) -> &AtomicU64;
    let of_workers: [(&str, &str, Of); 3] = [
        ("sent", "Requests sent to a worker.", |c| &c.sent),
        (
            "failed",
            "Requests that a worker did not answer to the end, or with an error status.",
            |c| &c.failed,
        ),
        ("connections", "Connections opened to a worker.", |c| &c.connections),
    ];
    for (name, help, of) in of_workers {
        let name = format!("scalebeam_router_worker_{name}");
        page.head(&name, "counter", help);
        for (role, worker) in
            pools.iter().flat_map(|(role, all)| all.iter().map(move |w| (role, w)))
        {
            let labels = format!("{{role=\"{role}\",worker=\"{}\"}}", worker.url);
            page.line(&format!("{name}_total"), &labels, of(&worker.counts));
        }
    }
    page.0
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &str, value: &AtomicU64) {
        let _ = writeln!(self.0, "{name}{labels} {}", value.load(Relaxed));
    }

    fn spans(&mut self, name: &str, help: &str, spans: &Spans) {
        self.head(name, "summary", help);
        let sum = Nanos(spans.sum_ns.load(Relaxed)).as_secs_f64();
        let _ = writeln!(self.0, "{name}_sum {sum}");
        self.line(&format!("{name}_count"), "", &spans.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_in_one_outcome() {
        let counts = Arc::new(Counts::default());
        let mut one = counts.begin();
        let two = counts.begin();
        assert!(page(&counts, &[]).contains("scalebeam_router_requests_in_flight 2\n"));
        one.ends(Outcome::Completed);
        one.passed_on(7);
        drop((one, two));
        counts.own.add(Nanos::from_millis(1_500));
        let page = page(&counts, &[]);
        for want in [
            "# TYPE scalebeam_router_requests counter\n",
            "scalebeam_router_requests_total{outcome=\"completed\"} 1\n",
            "scalebeam_router_requests_total{outcome=\"refused\"} 0\n",
            "scalebeam_router_requests_total{outcome=\"cancelled\"} 1\n",
            "scalebeam_router_requests_in_flight 0\n",
            "scalebeam_router_relayed_bytes_total 7\n",
            "scalebeam_router_own_seconds_sum 1.5\nscalebeam_router_own_seconds_count 1\n",
        ] {
            assert!(page.contains(want), "{want} in {page}");
        }
    }
}
