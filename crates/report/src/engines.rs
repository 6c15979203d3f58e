//! What the engines said of themselves: a table of their queues, caches and times, and one of where the time to
//! first token went.

use crate::metric::Named;
use crate::number;
use crate::table::{self, Grid, GridRow};
use scalebeam_model::engine_metrics::{Gap, Word, gap};
use scalebeam_model::plan::Role;
use scalebeam_model::results::{PointResult, Results};
use std::collections::BTreeMap;

/// Metrics of the first table, each with the word that it is made of.
const COLUMNS: [(&str, Word); 10] = [
    ("running.mean", Word::Running),
    ("queue.mean", Word::Queued),
    ("queue.max", Word::Queued),
    ("kv_usage.max", Word::KvUsage),
    ("preemptions", Word::Preemptions),
    ("engine_prefix_hit_ratio", Word::PrefixHits),
    ("engine_queue_ms", Word::QueueTime),
    ("engine_prefill_ms", Word::PrefillTime),
    ("engine_decode_ms", Word::DecodeTime),
    ("kv_received_bytes", Word::KvReceivedBytes),
];

/// There only between instances that do different things.
const BETWEEN_POOLS: Word = Word::KvReceivedBytes;

/// Metrics of the second: the parts add up to the first.
const TTFT: [&str; 5] = [
    "ttft_sent_ms.mean",
    "engine_queue_ms",
    "engine_prefill_ms",
    "outside_engine_ms",
    "engine_queue_share",
];

/// Both tables, as far as there is something to say.
pub(crate) fn grids(results: &Results) -> impl Iterator<Item = Grid> {
    [by_word(results), ttft(results)].into_iter().flatten()
}

/// Points whose engines had a page.
fn with_a_page(results: &Results) -> Vec<&PointResult> {
    let has_page = |p: &&PointResult| p.trials.iter().flat_map(|t| &t.engines).any(|i| i.reads > 0);
    results.points.iter().filter(has_page).collect()
}

/// What engines with a page do not say: `(why, what)`, each once for all points.
pub(crate) fn absences(results: &Results) -> Vec<(String, String)> {
    let mut all: Vec<(String, String, Vec<String>)> = Vec::new();
    for point in with_a_page(results) {
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, word) in COLUMNS.iter().filter(|(_, word)| is_of(point, *word)) {
            let metric = Named::new(name);
            if metric.of(point).is_none() && of_some_trials(&metric, point).is_none() {
                by_reason.entry(why(point, *word)).or_default().push(metric.short);
            }
        }
        let id = format!("{}/{}/{}", point.deployment, point.load, point.level);
        for (why, what) in by_reason {
            let what = what.join(", ");
            match all.iter_mut().find(|(w, m, _)| *w == why && *m == what) {
                Some((.., ids)) => ids.push(id.clone()),
                None => all.push((why, what, vec![id.clone()])),
            }
        }
    }
    let row = |(why, what, ids): (String, String, Vec<String>)| {
        (format!("{why} by the engine"), format!("{what} of {}", ids.join(", ")))
    };
    all.into_iter().map(row).collect()
}

/// Whether a point's engines could have anything to say of `word`.
fn is_of(point: &PointResult, word: Word) -> bool {
    let mut instances = point.trials.iter().flat_map(|t| &t.engines);
    word != BETWEEN_POOLS || instances.any(|i| i.role != Role::Aggregated)
}

/// Those points in a table, with what they do not say said as such.
fn by_word(results: &Results) -> Option<Grid> {
    let points = with_a_page(results);
    let columns = COLUMNS.iter().map(|(name, word)| (Named::new(name), *word));
    // What nobody says has no column; it is among the absences.
    let columns: Vec<(Named, Word)> =
        columns.filter(|(metric, _)| points.iter().any(|p| is_said(metric, p))).collect();
    let cell = |p: &PointResult, (metric, word): &(Named, Word)| match metric.of(p) {
        Some(_) => table::cell(metric, p),
        None => of_some_trials(metric, p).unwrap_or_else(|| why(p, *word)),
    };
    let heads = columns.iter().map(|(metric, _)| metric.head()).collect();
    let rows = points.iter().map(|p| (*p, columns.iter().map(|c| cell(p, c)).collect()));
    grid("Engines, by their own metrics", rows.collect(), heads)
}

fn is_said(metric: &Named, point: &PointResult) -> bool {
    metric.of(point).is_some() || of_some_trials(metric, point).is_some()
}

/// The mean of the trials that have a value, or the largest of the largest, where others have none, and of how many it is.
fn of_some_trials(metric: &Named, point: &PointResult) -> Option<String> {
    let values: Vec<f64> = point.trials.iter().filter_map(|t| metric.value(&t.metrics)).collect();
    let (some, all) = (values.len(), point.trials.len());
    (some > 0 && some < all).then(|| {
        let value = match metric.key.ends_with(".max") {
            true => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            false => values.iter().sum::<f64>() / some as f64,
        };
        format!("{} ({some} of {all} trials)", number::in_unit(value, &metric.unit))
    })
}

/// Why a point has no value of `word`: the first trial's reason.
fn why(point: &PointResult, word: Word) -> String {
    let mut gaps = point.trials.iter().filter_map(|t| gap(&t.engines, word));
    gaps.next().map_or("nothing counted", Gap::text).to_owned()
}

fn ttft(results: &Results) -> Option<Grid> {
    let metrics = TTFT.map(Named::new);
    let is_split = |p: &&PointResult| metrics.iter().all(|m| m.of(p).is_some());
    let points = results.points.iter().filter(is_split);
    let rows = points.map(|p| (p, metrics.iter().map(|m| table::cell(m, p)).collect()));
    let heads = metrics.iter().map(Named::head).collect();
    grid("Where the time to first token went", rows.collect(), heads)
}

/// Nothing where there is no point or no column.
fn grid(title: &str, rows: Vec<GridRow<'_>>, heads: Vec<String>) -> Option<Grid> {
    let is_there = !rows.is_empty() && !heads.is_empty();
    is_there.then(|| Grid::of_points(title, &[], heads, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::engine_metrics::{Part, Snapshot, Watch};
    use scalebeam_model::results::MetricValue;
    use scalebeam_model::stats::quantile::distribution;

    /// A llama.cpp that was looked at, and an engine without a page.
    fn results() -> Results {
        let (mut results, _) = testing::run();
        let page = || Some(Snapshot::read("llamacpp:requests_deferred 3\n"));
        let mut watch = Watch::new("aggregated 0", Part::Engine, Role::Aggregated);
        watch.begin(page());
        watch.sample(page());
        results.points[0].trials[0].engines = vec![watch.end(page())];
        let silent = Watch::new("aggregated 0", Part::Engine, Role::Aggregated);
        results.points[1].trials[0].engines = vec![silent.end(None)];
        results.points[2].metrics.insert("preemptions".to_owned(), MetricValue::Number(2.0));
        let queue = distribution(vec![3.0]).map(MetricValue::Distribution).unwrap();
        results.points[0].metrics.insert("queue".to_owned(), queue);
        results
    }

    #[test]
    fn what_an_engine_does_not_say_is_said_as_such() {
        let results = results();
        let grids: Vec<Grid> = grids(&results).collect();
        let [grid] = &grids[..] else { panic!("{grids:?}") };
        assert_eq!(grid.rows.len(), 1, "an engine without a page has nothing to be told apart");
        let of = |head: &str| {
            let at = grid.head.iter().position(|h| h.starts_with(head));
            grid.rows[0][at.unwrap_or_else(|| panic!("{head} in {:?}", grid.head))].clone()
        };
        assert_eq!(of("queued mean"), "3");
        assert!(!grid.head.iter().any(|h| h.starts_with("preempted")), "nobody shown says it");
        let absences = absences(&results);
        let [(why, what)] = &absences[..] else { panic!("{absences:?}") };
        assert_eq!(why, "not exported by the engine");
        assert!(what.starts_with("in batch mean, KV cache % max, preempted"), "{what}");
        assert!(!what.contains("KV received"), "there are no pools");
    }

    /// One trial whose pages were not read takes nothing from the others but their number.
    #[test]
    fn what_some_trials_have_is_shown_with_how_many_they_are() {
        let mut results = results();
        for (trial, n) in results.points[0].trials.iter_mut().take(2).zip([3.0, 5.0]) {
            trial.metrics.insert("preemptions".to_owned(), MetricValue::Number(n));
        }
        let grid = grids(&results).next().unwrap();
        let at = grid.head.iter().position(|h| h.starts_with("preempted")).unwrap();
        assert_eq!(grid.rows[0][at], "4 (2 of 3 trials)");
        let absences = absences(&results);
        assert!(absences.iter().all(|(_, what)| !what.contains("preempted")), "{absences:?}");
    }

    #[test]
    fn the_time_to_first_token_is_split_where_all_parts_are_known() {
        let mut results = results();
        let parts = [
            ("engine_queue_ms", 300.0),
            ("engine_prefill_ms", 90.0),
            ("outside_engine_ms", 22.0),
            ("engine_queue_share", 0.73),
        ];
        for (name, value) in parts {
            results.points[0].metrics.insert(name.to_owned(), MetricValue::Number(value));
        }
        let ttft = results.points[0].metrics["ttft_ms"];
        results.points[0].metrics.insert("ttft_sent_ms".to_owned(), ttft);
        let grid = grids(&results).nth(1).unwrap();
        assert_eq!(grid.rows.len(), 1);
        let row = &grid.rows[0];
        assert_eq!(row.len(), grid.head.len());
        assert_eq!((row[4].as_str(), row[7].as_str()), ("300", "73.0"), "{row:?}");
    }
}
