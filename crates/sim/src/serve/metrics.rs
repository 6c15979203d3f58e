//! Prometheus text under vLLM's names, so that whatever reads a vLLM can read this.
//!
//! The pace thread is the only writer. Times are wall times on the schedule, not what a slow client saw.

use crate::engine::EngineStats;
use scalebeam_model::units::Nanos;

/// Upper bounds in seconds, as vLLM has them.
const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const ITL_BOUNDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const E2E_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// A histogram with fixed bounds.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds; not cumulative.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts one observation.
    pub(super) fn observe(&mut self, span: Nanos) {
        let seconds = span.as_secs_f64();
        self.counts[self.bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    fn render(&self, page: &mut Page<'_>, name: &str, help: &str) {
        page.head(name, "histogram", help);
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(self.bounds) {
            total += count;
            page.line(&format!("{name}_bucket"), &format!("le=\"{bound:?}\","), total as f64);
        }
        total += self.counts.last().copied().unwrap_or(0);
        page.line(&format!("{name}_bucket"), "le=\"+Inf\",", total as f64);
        page.line(&format!("{name}_count"), "", total as f64);
        page.line(&format!("{name}_sum"), "", self.sum);
    }
}

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub(super) struct Metrics {
    /// The engine's own state.
    pub(super) engine: EngineStats,
    /// Arrival to first token.
    pub(super) ttft: Histogram,
    /// Between tokens.
    pub(super) itl: Histogram,
    /// Arrival to last token.
    pub(super) e2e: Histogram,
    /// Arrival to the first step that holds it.
    pub(super) queue: Histogram,
    /// From there to the first token.
    pub(super) prefill: Histogram,
    /// First to last token.
    pub(super) decode: Histogram,
    /// Requests that ended by themselves before their limit.
    pub(super) stopped: u64,
    /// Requests that ended at their limit.
    pub(super) lengths: u64,
    /// Requests that were cancelled.
    pub(super) aborted: u64,
    /// Why the engine is of no further use.
    pub(super) failure: Option<String>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            engine: EngineStats::default(),
            ttft: Histogram::new(TTFT_BOUNDS),
            itl: Histogram::new(ITL_BOUNDS),
            e2e: Histogram::new(E2E_BOUNDS),
            queue: Histogram::new(E2E_BOUNDS),
            prefill: Histogram::new(E2E_BOUNDS),
            decode: Histogram::new(E2E_BOUNDS),
            stopped: 0,
            lengths: 0,
            aborted: 0,
            failure: None,
        }
    }
}

impl Metrics {
    /// The page of the model called `model`.
    pub(super) fn render(&self, model: &str) -> String {
        let mut page = Page { text: String::with_capacity(8_192), model };
        self.gauges(&mut page);
        self.counters(&mut page);
        self.ttft.render(&mut page, "vllm:time_to_first_token_seconds", "Arrival to first token.");
        self.itl.render(&mut page, "vllm:inter_token_latency_seconds", "Between tokens.");
        self.e2e.render(&mut page, "vllm:e2e_request_latency_seconds", "Arrival to last token.");
        for (histogram, name, help) in [
            (&self.queue, "vllm:request_queue_time_seconds", "Arrival to first step."),
            (&self.prefill, "vllm:request_prefill_time_seconds", "First step to first token."),
            (&self.decode, "vllm:request_decode_time_seconds", "First to last token."),
        ] {
            histogram.render(&mut page, name, help);
        }
        page.text
    }

    fn gauges(&self, page: &mut Page<'_>) {
        let engine = &self.engine;
        for (name, help, value) in [
            ("vllm:num_requests_running", "Requests in the batch.", engine.running as f64),
            ("vllm:num_requests_waiting", "Requests in the queue.", engine.waiting as f64),
            ("vllm:kv_cache_usage_perc", "KV cache in use, 1 is all.", engine.kv_usage),
        ] {
            page.head(name, "gauge", help);
            page.line(name, "", value);
        }
    }

    fn counters(&self, page: &mut Page<'_>) {
        let engine = &self.engine;
        for (name, help, value) in [
            ("vllm:num_preemptions_total", "Preempted requests.", engine.preemptions),
            ("vllm:prompt_tokens_total", "Prompt tokens.", engine.prompt_tokens),
            ("vllm:generation_tokens_total", "Generated tokens.", engine.generation_tokens),
            ("vllm:prefix_cache_queries_total", "Tokens looked up; none are.", 0),
            ("vllm:prefix_cache_hits_total", "Tokens found; none are.", 0),
        ] {
            page.head(name, "counter", help);
            page.line(name, "", value as f64);
        }
        let name = "vllm:request_success_total";
        page.head(name, "counter", "Requests by how they ended.");
        for (reason, value) in
            [("stop", self.stopped), ("length", self.lengths), ("abort", self.aborted)]
        {
            page.line(name, &format!("finished_reason=\"{reason}\","), value as f64);
        }
    }
}

/// A page being written.
struct Page<'a> {
    text: String,
    model: &'a str,
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // A counter's family name is without the suffix of its samples.
        let family = name.strip_suffix("_total").unwrap_or(name);
        self.text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let model = self.model.replace('\\', "\\\\").replace('"', "\\\"");
        self.text.push_str(&format!("{name}{{{labels}model_name=\"{model}\"}} {value:?}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let mut metrics = Metrics::default();
        for ms in [1, 3, 30, 9_000_000] {
            metrics.ttft.observe(Nanos::from_millis(ms));
        }
        let page = metrics.render("m\"x");
        for want in [
            "# TYPE vllm:time_to_first_token_seconds histogram",
            "vllm:time_to_first_token_seconds_bucket{le=\"0.001\",model_name=\"m\\\"x\"} 1.0",
            "vllm:time_to_first_token_seconds_bucket{le=\"0.04\",model_name=\"m\\\"x\"} 3.0",
            "vllm:time_to_first_token_seconds_bucket{le=\"+Inf\",model_name=\"m\\\"x\"} 4.0",
            "vllm:time_to_first_token_seconds_count{model_name=\"m\\\"x\"} 4.0",
            "vllm:request_success_total{finished_reason=\"abort\",model_name=\"m\\\"x\"} 0.0",
        ] {
            assert!(page.contains(want), "{want} in {page}");
        }
    }
}
