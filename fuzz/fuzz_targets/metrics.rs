//! Pages of metrics of any content: a page read after another never panics, no count goes down, and a quantile
//! stays within its bucket.
//!
//! A line of dashes parts the page before from the page after.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_model::engine_metrics::{EngineReadings, Part, Reading, Snapshot, Watch, Word};
use scalebeam_model::plan::Role;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let (before, after) = text.split_once("\n---\n").unwrap_or((&text, &text));
    let mut watch = Watch::new("0", Part::Engine, Role::Aggregated);
    watch.begin(Some(Snapshot::read(before)));
    watch.sample(Some(Snapshot::read(after)));
    let seen = watch.end(Some(Snapshot::read(after)));
    for reading in seen.values.values() {
        match reading {
            Reading::Counter { risen } => assert!(risen.is_finite() && *risen >= 0.0),
            Reading::Level { mean, max, .. } => assert!(mean.is_finite() && max.is_finite()),
            Reading::Histogram { count, sum, p50, p95, p99 } => {
                assert!(count.is_finite() && sum.is_finite() && *count >= 0.0);
                for q in [p50, p95, p99].into_iter().flatten() {
                    assert!(q.low <= q.value && q.high.is_none_or(|high| q.value <= high));
                }
            }
            Reading::Absent(_) => {}
        }
    }
    let all = EngineReadings { instances: vec![seen], ..EngineReadings::default() };
    for word in Word::ALL {
        assert!(all.mean(word).is_err() || all.mean(word).is_ok_and(f64::is_finite));
    }
});
