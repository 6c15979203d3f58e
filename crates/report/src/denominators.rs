//! Throughput by everything that it can be divided by, in one table: what is paid for, what worked, each pool, a
//! machine, a kilowatt, and money. Deployments are ranked by the first.

use crate::metric::Named;
use crate::table::{self, Grid, GridRow};
use scalebeam_model::plan::{Plan, Role};
use scalebeam_model::results::Results;

/// Metrics, and what each is called in a sentence.
const COLUMNS: [(&str, &str); 8] = [
    ("output_tps_per_gpu", "per allocated GPU"),
    ("output_tps_per_working_gpu", "per working GPU"),
    ("output_tps_per_decode_gpu", "per decode GPU"),
    ("prompt_tps_per_prefill_gpu", "per prefill GPU"),
    ("output_tps_per_node", "per machine"),
    ("output_tps_per_kw", "per kW of GPUs"),
    ("host_output_tps_per_kw", "per kW of machines"),
    ("output_tokens_per_cost", "per unit of cost"),
];

/// The table, with why columns are not in it below; absent where only one can be divided by.
pub(crate) fn grid(results: &Results, plan: &Plan) -> Option<Grid> {
    let points = || results.points.iter();
    let (there, missing): (Vec<_>, Vec<_>) = COLUMNS
        .iter()
        .map(|(name, words)| (Named::new(name), *words))
        .partition(|(metric, _)| points().any(|p| metric.of(p).is_some()));
    // Of one the verdict table says as much.
    if there.len() < 2 {
        return None;
    }
    let cells = |p| there.iter().map(|(metric, _)| table::cell(metric, p)).collect();
    let rows: Vec<GridRow<'_>> = points().map(|p| (p, cells(p))).collect();
    let heads = there.iter().map(|(metric, _)| metric.short.clone());
    let title = "Throughput by what it is divided by; ranked per allocated GPU";
    let grid = Grid::of_points(title, &[], heads, rows);
    let mut instances = plan.deployments.iter().flat_map(|d| &d.instances);
    let has_pools = instances.any(|i| i.role != Role::Aggregated);
    let is_of_pools = |words: &str| words.contains("decode") || words.contains("prefill");
    let asked = missing.into_iter().filter(|(_, words)| has_pools || !is_of_pools(words));
    let why = |(metric, words): (Named, &str)| {
        let why = points().next().map(|p| metric.why_absent(p, plan)).unwrap_or_default();
        format!("{words} ({why})")
    };
    let missing: Vec<String> = asked.map(why).collect();
    let note = (!missing.is_empty()).then(|| format!("not in the table: {}", missing.join(", ")));
    Some(Grid { note, ..grid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use scalebeam_model::results::MetricValue;

    #[test]
    fn what_is_known_has_a_column_and_what_is_not_a_reason() {
        let (mut results, plan) = testing::run();
        assert_eq!(grid(&results, &plan), None, "per allocated GPU is in the verdict table");
        for (i, point) in results.points.iter_mut().enumerate() {
            let mut put = |name: &str, value| {
                point.metrics.insert(name.to_owned(), MetricValue::Number(value));
            };
            put("output_tps_per_node", 884.0);
            if i == 0 {
                put("output_tokens_per_cost", 250_000.0);
            }
        }
        let grid = grid(&results, &plan).unwrap();
        assert_eq!(grid.head[3..], ["tok/s/GPU", "tok/s/node", "tok/cost", "Trust"]);
        assert_eq!(grid.rows[0][3..6], ["221", "884", "250,000"]);
        assert_eq!(grid.rows[1][5], "n/a");
        let note = grid.note.unwrap();
        assert!(note.contains("per working GPU (what its GPUs did is not known)"), "{note}");
        assert!(note.contains("per kW of GPUs (no power data)"), "{note}");
        assert!(!note.contains("decode"), "there are no pools: {note}");
        let page = crate::terminal(&results, &plan, 110, false);
        assert!(page.contains("Throughput by what it is divided by; ranked per allocated GPU"));
        assert!(page.contains("not in the table: per working GPU"), "{page}");
    }
}
