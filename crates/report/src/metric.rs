//! What a metric is called, its unit, and which direction is better.
//!
//! What a metric is, is said by `model::metrics`; here is only how it is shown. A name that neither
//! knows is shown under its own name, with the unit that its ending tells.

use scalebeam_model::plan::Plan;
use scalebeam_model::request::Outcome;
use scalebeam_model::results::{Metrics, PointResult, lookup};
use scalebeam_model::stats::percentile;

pub use scalebeam_model::metrics::Better;

/// Which direction is better, in words for a panel.
pub(crate) const fn words(better: Better) -> &'static str {
    match better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
        Better::Neither => "",
    }
}

/// How a metric is shown. What it is, and which direction is better, is said by the model's own
/// catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name in `results.json`.
    pub name: &'static str,
    /// Title of a panel.
    pub label: &'static str,
    /// Head of a column.
    pub short: &'static str,
    /// Unit as shown.
    pub unit: &'static str,
}

const fn metric(
    name: &'static str,
    label: &'static str,
    short: &'static str,
    unit: &'static str,
) -> Metric {
    Metric { name, label, short, unit }
}

/// Metrics that are shown under better names than their own.
pub const METRICS: &[Metric] = &[
    metric("rps", "Throughput", "req/s", "req/s"),
    metric("output_tps", "Token throughput", "tok/s", "tok/s"),
    metric("output_tps_steady", "Token throughput, steady", "tok/s steady", "tok/s"),
    metric("total_tps", "Prompt and output throughput", "total tok/s", "tok/s"),
    metric("output_tps_per_gpu", "Throughput per GPU", "tok/s/GPU", "tok/s/GPU"),
    metric(
        "output_tps_per_working_gpu",
        "Throughput per working GPU",
        "tok/s/working GPU",
        "tok/s/GPU",
    ),
    metric(
        "output_tps_per_decode_gpu",
        "Throughput per decode GPU",
        "tok/s/decode GPU",
        "tok/s/GPU",
    ),
    metric(
        "prompt_tps_per_prefill_gpu",
        "Prompt throughput per prefill GPU",
        "prompt tok/s/prefill GPU",
        "tok/s/GPU",
    ),
    metric("output_tps_per_node", "Throughput per machine", "tok/s/node", "tok/s/node"),
    metric("rps_per_gpu", "Requests per GPU", "req/s/GPU", "req/s/GPU"),
    metric("output_tps_per_user", "Throughput per user", "tok/s/user", "tok/s/user"),
    metric("interactivity_tps", "User interactivity", "interactivity", "tok/s/user"),
    metric("output_tps_per_kw", "Power efficiency, GPU power only", "tok/s/kW (GPU)", "tok/s/kW"),
    metric(
        "joules_per_output_token",
        "Energy per output token, GPU power only",
        "GPU J/out tok",
        "J/token",
    ),
    metric("joules_per_token", "Energy per token, GPU power only", "GPU J/tok", "J/token"),
    metric("joules_per_request", "Energy per request, GPU power only", "GPU J/req", "J"),
    metric(
        "joules_per_good_request",
        "Energy per good request, GPU power only",
        "GPU J/good req",
        "J",
    ),
    metric("energy_j", "Energy of the GPUs", "J", "J"),
    metric("power_w", "Power of the GPUs", "GPU W", "W"),
    metric("host_output_tps_per_kw", "Power efficiency, with hosts", "tok/s/kW (all)", "tok/s/kW"),
    metric(
        "host_joules_per_output_token",
        "Energy per output token, with hosts",
        "J/out tok",
        "J/token",
    ),
    metric("host_joules_per_token", "Energy per token, with hosts", "J/tok", "J/token"),
    metric("host_energy_j", "Energy of GPUs and hosts", "J (all)", "J"),
    metric("host_power_w", "Power of GPUs and hosts", "all W", "W"),
    metric("busy_sample_power_w", "Power of a busy GPU, by samples", "busy W", "W"),
    metric("gpu_util", "GPU busy", "GPU %", "%"),
    metric("gpu_mem", "GPU memory", "GPU mem %", "%"),
    metric("cpu_util", "CPU busy", "CPU %", "%"),
    metric("mem_util", "Memory", "mem %", "%"),
    metric("net_gbps", "Network", "Gbit/s", "Gbit/s"),
    metric("rdma_gbps", "RDMA", "RDMA Gbit/s", "Gbit/s"),
    metric("success_rate", "Success rate", "ok %", "%"),
    metric("ttft_ms", "Time to first token", "TTFT", "ms"),
    metric("ttft_sent_ms", "Time to first token from sending", "TTFT sent", "ms"),
    metric("ttfo_ms", "Time to first output token", "TTFO", "ms"),
    metric("tpot_ms", "Time per output token", "TPOT", "ms"),
    metric("itl_ms", "Inter-token latency", "ITL", "ms"),
    metric("e2e_ms", "End-to-end latency", "E2E", "ms"),
    metric("e2e_sent_ms", "End-to-end latency from sending", "E2E sent", "ms"),
    metric("token_latency_ms", "Latency per token", "E2E/token", "ms/token"),
    metric("lateness_ms", "Lateness of the load generator", "late", "ms"),
    metric("connect_ms", "Time to connect", "connect", "ms"),
    metric("prompt_tokens", "Prompt length", "prompt tok", "tokens"),
    metric("output_tokens", "Output length", "output tok", "tokens"),
    metric("reasoning_tokens", "Reasoning length", "reasoning tok", "tokens"),
    metric("chunks_per_arrival", "Chunks in one read", "chunks/read", "chunks"),
    metric("prefix_hit_ratio", "Prompt tokens from the prefix cache", "cached %", "%"),
    metric("concurrency_reached", "Requests in flight", "in flight", "requests"),
    metric("concurrency_effective_ratio", "Concurrency reached / asked", "in flight/asked", ""),
    metric("wall_s", "Measured wall time", "wall", "s"),
    metric("requests", "Requests of a trial", "requests", ""),
    metric("gpus", "Allocated GPUs", "GPUs", ""),
    metric("concurrency", "Concurrency asked for", "asked", ""),
    metric("rate", "Rate asked for", "asked req/s", "req/s"),
    metric("goodput_rps", "Goodput", "good req/s", "req/s"),
    metric("goodput_tps", "Token goodput", "good tok/s", "tok/s"),
    metric("goodput_rps_per_gpu", "Goodput per GPU", "good req/s/GPU", "req/s/GPU"),
    metric("goodput_tps_per_gpu", "Token goodput per GPU", "good tok/s/GPU", "tok/s/GPU"),
    metric("slo_attainment", "Requests within the SLO", "good %", "%"),
    metric("slo_met", "SLO met", "SLO met", ""),
    metric("queue", "Requests in the engines' queues", "queued", ""),
    metric("running", "Requests in the engines' batches", "in batch", ""),
    metric("kv_usage", "Key-value cache in use", "KV cache %", "%"),
    metric("preemptions", "Preempted requests", "preempted", ""),
    metric("engine_prefix_hit_ratio", "Prefix-cache hits of the engines", "prefix hits %", "%"),
    metric("kv_received_bytes", "Key-value blocks received", "KV received", "bytes"),
    metric("engine_ttft_ms", "Time to first token by the engines", "engine TTFT", "ms"),
    metric("engine_queue_ms", "Time in the engines' queues", "in queue ms", "ms"),
    metric("engine_prefill_ms", "Prefill time by the engines", "prefill ms", "ms"),
    metric("engine_decode_ms", "Decode time by the engines", "decode ms", "ms"),
    metric("outside_engine_ms", "Network, router and frontend", "outside ms", "ms"),
    metric("engine_queue_share", "Queue's part of the time to first token", "queue %", "%"),
    metric("cost", "Cost of a trial", "cost", "currency"),
    metric("cost_per_mtok", "Cost per million output tokens", "cost/Mtok", "currency"),
    metric("cost_per_input_mtok", "Cost per million prompt tokens", "cost/Mtok in", "currency"),
    metric("cost_per_total_mtok", "Cost per million tokens", "cost/Mtok all", "currency"),
    metric("output_tokens_per_cost", "Output tokens per unit of cost", "tok/cost", "tok/currency"),
];

/// A metric as a report names it: `ttft.p95`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As written in the experiment.
    pub asked: String,
    /// Name in the results, with the statistic.
    pub key: String,
    /// Title of a panel: `Time to first token, p95`.
    pub label: String,
    /// Head of a column: `TTFT p95`.
    pub short: String,
    /// Unit as shown; values are [`Named::scale`] times those of the results.
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
    base: String,
}

/// Names of metrics that are given without their unit.
fn find(base: &str) -> Option<&'static Metric> {
    let exact = METRICS.iter().find(|m| m.name == base);
    exact.or_else(|| METRICS.iter().find(|m| m.name.strip_suffix("_ms") == Some(base)))
}

/// Which direction is better. Metrics that the model does not compute yet are known by their nature.
fn direction(name: &str) -> Better {
    match (scalebeam_model::metrics::find(name), name) {
        (Some(m), _) => m.better,
        (None, "output_tps_per_kw") => Better::Higher,
        (None, "joules_per_output_token") => Better::Lower,
        (None, _) => Better::Neither,
    }
}

/// Statistics that may stand behind a point in a name, percentiles apart.
const STATISTICS: &[&str] = &["mean", "std", "min", "max", "count"];

fn is_statistic(name: &str) -> bool {
    STATISTICS.contains(&name) || percentile::percentile_of(name).is_some()
}

impl Named {
    /// Understands `name`.
    pub fn new(name: &str) -> Self {
        let (base, stat) = match percentile::split(name) {
            (base, Some(stat)) if is_statistic(stat) => (base, Some(stat)),
            _ => (name, None),
        };
        let modelled = scalebeam_model::metrics::find(base);
        let (label, short, unit, key) = match (find(base), modelled) {
            (Some(m), _) => (m.label, m.short, m.unit, m.name),
            (None, Some(m)) => (m.name, m.name, m.unit, m.name),
            (None, None) => (base, base, unit_of(base), base),
        };
        let with = |text: &str, join: &str| {
            stat.map_or_else(|| text.to_owned(), |s| format!("{text}{join}{s}"))
        };
        Self {
            asked: name.to_owned(),
            key: with(key, "."),
            label: with(label, ", "),
            short: with(short, " "),
            unit: unit.to_owned(),
            better: direction(key),
            base: key.to_owned(),
        }
    }

    /// Several at once.
    pub fn all<S: AsRef<str>>(names: &[S]) -> Vec<Self> {
        names.iter().map(|n| Self::new(n.as_ref())).collect()
    }

    /// Head of a column with its unit, where the name does not say it.
    pub(crate) fn head(&self) -> String {
        let is_said = self.unit.is_empty() || self.short.contains(&self.unit);
        let unit = if is_said { String::new() } else { format!(" ({})", self.unit) };
        format!("{}{unit}", self.short)
    }

    /// The value in the unit shown.
    pub fn value(&self, metrics: &Metrics) -> Option<f64> {
        let found = lookup(metrics, &self.key).or_else(|| lookup(metrics, &self.asked));
        found.filter(|v| v.is_finite()).map(|v| v * self.scale())
    }

    /// The value of a point in the unit shown.
    pub fn of(&self, point: &PointResult) -> Option<f64> {
        match self.base.as_str() {
            "gpus" if point.gpus > 0 => Some(f64::from(point.gpus)),
            _ => self.value(&point.metrics),
        }
    }

    /// Lowest and highest trial, where there are at least two with a value.
    pub fn range(&self, point: &PointResult) -> Option<(f64, f64)> {
        let values: Vec<f64> = point.trials.iter().filter_map(|t| self.value(&t.metrics)).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        (values.len() > 1).then_some((low, high))
    }

    /// Values of the results are multiplied by this for showing.
    pub fn scale(&self) -> f64 {
        if self.unit == "%" { 100.0 } else { 1.0 }
    }

    /// Why a point has no value of this metric.
    pub fn why_absent(&self, point: &PointResult, plan: &Plan) -> String {
        let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
        let planned = plan.every_point().find(|p| p.id == id);
        let is_streamed = planned.is_none_or(|p| p.workload.stream);
        let completed = point.ended(Outcome::Completed);
        let is_token_time = ["ttft", "ttfo", "tpot", "itl", "interactivity"];
        let base = self.base.as_str();
        let why = if base.starts_with("host_") {
            "the power of the hosts is not known"
        } else if base.contains("power") || base.contains("joule") || base.ends_with("_per_kw") {
            "no power data"
        } else if point.trust.reasons.iter().any(|r| r.code == "damaged") {
            "the records cannot be read"
        } else if completed == 0 {
            "no request was completed"
        } else if !is_streamed && is_token_time.iter().any(|m| base.starts_with(m)) {
            "answers were not streamed"
        } else if (base.ends_with("_per_gpu") || base == "gpus") && point.gpus == 0 {
            "the number of GPUs is not known"
        } else if base.ends_with("_per_node") {
            "the machines are not known"
        } else if base.ends_with("_per_working_gpu") {
            "what its GPUs did is not known"
        } else if base.ends_with("_per_decode_gpu") || base.ends_with("_per_prefill_gpu") {
            "it has no prefill and decode pools"
        } else if base.starts_with("cost") || base.ends_with("_per_cost") {
            "no price given, or a price of 0"
        } else {
            "not measured"
        };
        why.to_owned()
    }
}

fn unit_of(name: &str) -> &'static str {
    const ENDINGS: &[(&str, &str)] = &[
        ("_ms", "ms"),
        ("_tps", "tok/s"),
        ("_rps", "req/s"),
        ("_gbps", "Gbit/s"),
        ("_w", "W"),
        ("_s", "s"),
        ("_pct", "%"),
    ];
    ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map_or("", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_catalogue_are_unique() {
        let mut names: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.iter().all(|m| !m.short.is_empty() && !m.label.is_empty()));
    }

    #[test]
    fn every_metric_of_the_model_is_shown_with_a_unit_of_its_kind_and_its_direction() {
        for metric in scalebeam_model::metrics::METRICS {
            let named = Named::new(metric.name);
            assert_eq!((named.key.as_str(), named.better), (metric.name, metric.better));
            let is_time = metric.unit.starts_with("ms");
            assert_eq!(named.unit.starts_with("ms"), is_time, "{}", metric.name);
        }
    }

    #[test]
    fn names_are_understood_with_and_without_unit_and_statistic() {
        for (name, short, key) in [
            ("ttft.p95", "TTFT p95", "ttft_ms.p95"),
            ("ttft_ms.p95", "TTFT p95", "ttft_ms.p95"),
            ("ttft.p99.95", "TTFT p99.95", "ttft_ms.p99.95"),
            ("output_tps_per_user", "tok/s/user", "output_tps_per_user"),
            ("interactivity_tps", "interactivity", "interactivity_tps"),
            ("queue_depth.max", "queue_depth max", "queue_depth.max"),
            ("efficiency.rps", "efficiency.rps", "efficiency.rps"),
        ] {
            let named = Named::new(name);
            assert_eq!((named.short.as_str(), named.key.as_str()), (short, key));
        }
    }
}
