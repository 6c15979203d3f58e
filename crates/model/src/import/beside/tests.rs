//! Files of other tools against each other, with numbers worked out by hand.

use super::*;
use crate::import::read;
use std::slice::from_ref as one;

const VLLM: &str = include_str!("../fixtures/vllm.json");
const SGLANG: &str = include_str!("../fixtures/sglang.jsonl");

fn find<'a>(of: &'a Beside, metric: &str) -> &'a BesideMetric {
    let found = of.points[0].metrics.iter().find(|m| m.metric == metric);
    found.unwrap_or_else(|| panic!("no {metric}: {of:#?}"))
}

#[test]
fn a_ratio_of_two_tools_stands_with_what_each_means() {
    let (a, b) = (read("a.json", VLLM).unwrap(), read("b.jsonl", SGLANG).unwrap());
    let found = beside(one(&a), one(&b), false).unwrap();
    assert_eq!(found.a.tool, "vllm bench serve");
    let rps = find(&found, "rps");
    assert!((rps.ratio - 34.147_250_356 / 34.622_002_744).abs() < 1e-9, "{rps:?}");
    assert!(rps.differs.is_empty());
    let latency = find(&found, "e2e_sent_ms.mean");
    assert!(
        latency.differs.iter().any(|d| d.starts_with("A: it ends with the last token")),
        "{latency:?}"
    );
    assert!(
        found.points[0].flaws.iter().any(|f| f.starts_with("A: ") && f.contains("few_samples"))
    );
    assert_eq!(found.sure, NO_SPREAD);
}

#[test]
fn what_was_not_asked_the_same_is_refused_unless_it_is_forced() {
    let other = VLLM
        .replace("\"smollm2\"", "\"llama\"")
        .replace("\"max_concurrency\": 4", "\"max_concurrency\": 8");
    let (a, b) = (read("a.json", VLLM).unwrap(), read("b.json", &other).unwrap());
    let said = beside(one(&a), one(&b), false).unwrap_err().to_string();
    assert!(said.contains("model: smollm2 and llama"), "{said}");
    assert!(said.contains("requests at once: 4 and 8"), "{said}");
    let forced = beside(one(&a), one(&b), true).unwrap();
    assert_eq!(forced.unlike.len(), 2);
    assert!((find(&forced, "rps").ratio - 1.0).abs() < 1e-12);
}

/// By load where names differ; what only one has is named.
#[test]
fn points_of_the_same_load_are_held_against_each_other() {
    let lines = |of: &[(u32, f64)]| {
        let line = |(n, rps): &(u32, f64)| {
            format!(
                "{{\"request_throughput\": {rps}, \"mean_ttft_ms\": 5, \"completed\": 200, \"max_concurrency\": {n}}}"
            )
        };
        of.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let a = read("a", &lines(&[(1, 10.0), (8, 40.0)])).unwrap();
    let b = read("b", &lines(&[(8, 60.0), (16, 70.0)])).unwrap();
    let found = beside(one(&a), one(&b), false).unwrap();
    assert_eq!(found.points.len(), 1);
    assert!((find(&found, "rps").ratio - 1.5).abs() < 1e-12);
    assert_eq!(found.alone, ["c1 of a", "c16 of b"]);
    let nothing = read("b", &lines(&[(2, 60.0), (16, 70.0)])).unwrap();
    assert!(matches!(beside(&[a], &[nothing], false), Err(NotBeside::NothingInCommon)));
}

#[test]
fn files_of_a_side_are_repeats_and_give_an_interval() {
    let file = |name: &str, rps: f64| {
        let text = VLLM.replace("34.622002744353736", &rps.to_string());
        assert!(text != VLLM, "the fixture has that rate");
        read(name, &text).unwrap()
    };
    let of = |rates: &[f64]| -> Vec<ImportedFile> {
        rates.iter().zip(1..).map(|(rps, n): (_, u32)| file(&format!("{n}.json"), *rps)).collect()
    };
    // Geometric means 20 and 30; logarithms 0.1 beside them, so the error is 0.1 times the root of 2, and t with 2
    // degrees of freedom 4.3027.
    let spread = |middle: f64| of(&[middle * 0.1_f64.exp(), middle / 0.1_f64.exp()]);
    let found = beside(&spread(20.0), &spread(30.0), false).unwrap();
    assert_eq!((found.a.more.as_slice(), found.sure), (&["2.json".to_owned()][..], BY_FILES));
    let rps = find(&found, "rps");
    assert!((rps.a - 20.0).abs() < 1e-9 && (rps.ratio - 1.5).abs() < 1e-9, "{rps:?}");
    let interval = rps.interval.as_ref().unwrap();
    assert!(interval.method.starts_with("Student over 2 and 2 files"), "{interval:?}");
    assert!((interval.high.ln() - (1.5_f64.ln() + 0.608_49)).abs() < 1e-4, "{interval:?}");
    assert!(
        found.points[0].flaws.iter().all(|f| f.contains(", 1.json: ") || f.contains(", 2.json: "))
    );
    // Two files in all tell nothing of what files differ by.
    let found = beside(&spread(20.0)[..1], &spread(30.0)[..1], false).unwrap();
    assert_eq!((find(&found, "rps").interval.is_none(), found.sure), (true, NO_SPREAD));
}

#[test]
fn files_of_a_side_that_are_no_repeats_are_refused() {
    let other = VLLM.replace("\"max_concurrency\": 4", "\"max_concurrency\": 8");
    let (a, b) = (read("a.json", VLLM).unwrap(), read("b.json", &other).unwrap());
    let c = read("c.jsonl", SGLANG).unwrap();
    let again = read("again.json", &VLLM.replace("34.6220", "35.6220")).unwrap();
    let said = beside(one(&again), &[a.clone(), b], false).unwrap_err().to_string();
    let want =
        "files a.json and b.json of B are no repeats of one thing: requests at once: 4 and 8";
    assert_eq!(said, want);
    let said = beside(&[a.clone(), c.clone()], one(&again), false).unwrap_err().to_string();
    assert!(said.contains("tool: vllm bench serve and "), "{said}");
    let forced = beside(&[a, c], &[again], true).unwrap();
    assert!(forced.unlike[0].starts_with("a.json and c.jsonl of A: tool: "), "{forced:?}");
}

/// Tools write a table with two decimals beside their JSON: both are one measurement.
#[test]
fn a_table_beside_its_json_is_no_repeat() {
    let whole = read("a.json", VLLM).unwrap();
    let mut table = ImportedFile { file: "a.csv".to_owned(), ..whole.clone() };
    let stats = table.points.iter_mut().flat_map(|p| p.metrics.values_mut());
    stats.flat_map(|s| s.values_mut()).for_each(|v| *v = (*v * 100.0).round() / 100.0);
    let other = read("b.jsonl", SGLANG).unwrap();
    let said = beside(&[whole.clone(), table.clone()], one(&other), false).unwrap_err().to_string();
    assert!(said.contains("files a.json and a.csv hold the same numbers"), "{said}");
    let times = table.points[0].metrics.get_mut("ttft_sent_ms").unwrap();
    times.values_mut().for_each(|v| *v += 0.02);
    let said = beside(&[whole, table], one(&other), false).map(|found| found.a.more);
    assert_eq!(said.unwrap(), ["a.csv"], "of another measurement");
}

/// The two files that srt-slurm makes of one measurement share no latency, and its rates.
#[test]
fn both_rollups_of_srt_slurm_are_one_measurement() {
    let csv = read("a.csv", include_str!("../fixtures/srt-rollup.csv")).unwrap();
    let json = read("a.json", include_str!("../fixtures/srt-rollup.json")).unwrap();
    let found = beside(one(&csv), one(&json), false);
    assert!(matches!(found, Err(NotBeside::Copies(..))), "{found:?}");
}
