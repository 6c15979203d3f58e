//! What the words of a report mean: the metrics from the model's catalogue, and a few more.

use crate::metric::Named;
use scalebeam_model::metrics::METRICS;
use scalebeam_model::results::Results;

/// Words that are no metrics.
const WORDS: &[(&str, &str)] = &[
    ("Deployment", "One way of serving the model: instances on GPUs behind an entry."),
    (
        "Load, level",
        "What was asked of it; the level is the variable that was stepped, as c64 = 64 requests in flight.",
    ),
    ("Trial", "One repeat of a point, with its own seed."),
    (
        "p50, p95",
        "Exact percentiles of the measured requests with linear interpolation; warm-up is not in them.",
    ),
    (
        "sound, caution, INVALID",
        "Whether the numbers of a point can be relied on; each reason says what to do next.",
    ),
    (
        "1.23x [1.10, 1.35]",
        "Ratio to the baseline with its 95 % interval; where the interval holds 1, no difference was seen.",
    ),
];

/// Words of a report with what they mean: [`WORDS`], and the metrics that the results have.
pub(crate) fn of(results: &Results) -> Vec<Word> {
    let is_there = |name: &str| results.points.iter().any(|p| p.metrics.contains_key(name));
    let words =
        WORDS.iter().map(|(word, meaning)| Word { word: (*word).to_owned(), key: "", meaning });
    let metrics = METRICS.iter().filter(|m| is_there(m.name)).map(|m| {
        let named = Named::new(m.name);
        let is_known = named.short != m.name;
        Word {
            word: if is_known { named.short } else { String::new() },
            key: m.name,
            meaning: m.doc,
        }
    });
    words.chain(metrics).collect()
}

/// A word with what it means.
pub(crate) struct Word {
    /// As tables show it; empty for a metric that they show under its key.
    pub(crate) word: String,
    /// The name in `results.json`; empty for what is no metric.
    pub(crate) key: &'static str,
    pub(crate) meaning: &'static str,
}
