//! Real pages, and pages whose numbers are known.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use super::*;
use crate::plan::Role;
use proptest::prelude::*;

const VLLM: [&str; 2] =
    [include_str!("fixtures/vllm-0.32-before.prom"), include_str!("fixtures/vllm-0.32-after.prom")];
const LLAMA: [&str; 2] = [
    include_str!("fixtures/llama.cpp-b11549-before.prom"),
    include_str!("fixtures/llama.cpp-b11549-after.prom"),
];
const MOCKER: [&str; 2] = [
    include_str!("fixtures/dynamo-1.6-mocker-before.prom"),
    include_str!("fixtures/dynamo-1.6-mocker-after.prom"),
];
const FRONTEND: [&str; 2] = [
    include_str!("fixtures/dynamo-1.6-frontend-before.prom"),
    include_str!("fixtures/dynamo-1.6-frontend-after.prom"),
];

fn engine() -> Watch {
    Watch::new("0", Part::Engine, Role::Aggregated)
}

/// Before, meanwhile and after.
fn watched(mut watch: Watch, pages: &[&str]) -> InstanceReading {
    let [first, between @ .., last] = pages else { panic!("two pages at least") };
    watch.begin(Some(Snapshot::read(first)));
    for page in between {
        watch.sample(Some(Snapshot::read(page)));
    }
    watch.end(Some(Snapshot::read(last)))
}

fn of(reading: &InstanceReading, word: Word) -> Reading {
    reading.values[&word]
}

fn risen(reading: &InstanceReading, word: Word) -> f64 {
    match of(reading, word) {
        Reading::Counter { risen } => risen,
        other => panic!("{word:?}: {other:?}"),
    }
}

fn observed(reading: &InstanceReading, word: Word) -> (f64, f64) {
    match of(reading, word) {
        Reading::Histogram { count, sum, .. } => (count, sum),
        other => panic!("{word:?}: {other:?}"),
    }
}

/// 24 requests of 16 tokens were sent between the two pages.
#[test]
fn a_real_vllm_says_what_was_done_between_two_pages() {
    let seen = watched(engine(), &VLLM);
    assert_eq!(risen(&seen, Word::RequestsDone), 24.0);
    assert_eq!(risen(&seen, Word::GenerationTokens), 24.0 * 16.0);
    assert_eq!(risen(&seen, Word::PromptTokens), 1_744.0);
    assert_eq!(risen(&seen, Word::PrefixQueries), 1_744.0);
    assert_eq!((risen(&seen, Word::PrefixHits), risen(&seen, Word::Preemptions)), (0.0, 0.0));
    let (n, queued_s) = observed(&seen, Word::QueueTime);
    let (_, prefill_s) = observed(&seen, Word::PrefillTime);
    let (_, ttft_s) = observed(&seen, Word::Ttft);
    assert_eq!(n, 24.0);
    // What is left is the time before the queue.
    assert!(queued_s + prefill_s < ttft_s && ttft_s < 1.5 * (queued_s + prefill_s));
    let Reading::Histogram { p50: Some(p50), p99: Some(p99), .. } = of(&seen, Word::QueueTime)
    else {
        panic!("no quantiles")
    };
    assert!(p50.low <= p50.value && p50.value <= p50.high.unwrap() && p50.value <= p99.value);
    // 360 gaps between the tokens of 24 answers.
    assert_eq!(observed(&seen, Word::Itl).0, 24.0 * 15.0);
    assert_eq!(of(&seen, Word::Running), Reading::Absent(Gap::NoSample), "nobody looked meanwhile");
    assert_eq!(of(&seen, Word::KvReceivedBytes), Reading::Absent(Gap::NotExported));
    assert!(!seen.values.contains_key(&Word::FrontendQueued), "not an engine's word");
    assert_eq!(seen.called[&Word::KvUsage], "vllm:kv_cache_usage_perc");
}

#[test]
fn a_real_llama_cpp_says_less_and_that_is_said() {
    let seen = watched(engine(), &[LLAMA[0], LLAMA[1], LLAMA[1]]);
    assert_eq!(risen(&seen, Word::GenerationTokens), 12.0 * 16.0);
    assert_eq!(of(&seen, Word::Queued), Reading::Level { mean: 0.0, max: 0.0, samples: 1 });
    for word in [Word::Preemptions, Word::KvUsage, Word::QueueTime, Word::PrefixQueries] {
        assert_eq!(of(&seen, word), Reading::Absent(Gap::NotExported), "{word:?}");
    }
}

#[test]
fn a_dynamo_worker_is_read_under_its_engine_s_names_and_the_frontend_apart() {
    let worker = watched(engine(), &[MOCKER[0], MOCKER[1], MOCKER[1]]);
    assert_eq!(observed(&worker, Word::E2e).0, 12.0);
    assert_eq!(worker.called[&Word::E2e], "vllm:e2e_request_latency_seconds");
    assert_eq!(worker.called[&Word::Queued], "vllm:num_requests_waiting");
    // Its other endpoint, over which blocks are asked for, is not counted.
    assert_eq!(risen(&worker, Word::RequestsDone), 12.0);
    let frontend = Watch::new("frontend", Part::Frontend, Role::Aggregated);
    let frontend = watched(frontend, &[FRONTEND[0], FRONTEND[1], FRONTEND[1]]);
    assert_eq!(observed(&frontend, Word::FrontendTtft).0, 12.0);
    assert_eq!(
        of(&frontend, Word::FrontendQueued),
        Reading::Level { mean: 0.0, max: 0.0, samples: 1 }
    );
    assert!(observed(&frontend, Word::FrontendE2e).1 >= observed(&worker, Word::E2e).1);
}

#[test]
fn names_are_known_as_they_are_shown_by_others_and_counted_once() {
    // Ray shows a counter under both names.
    let page = "ray_vllm_num_preemptions{WorkerId=\"a\"} 3\n\
        ray_vllm_num_preemptions_total{WorkerId=\"a\"} 3\n\
        ray_vllm_num_preemptions_total{WorkerId=\"b\"} 4\n\
        ray_vllm:num_requests_waiting{WorkerId=\"a\"} 2\n";
    let seen = Snapshot::read(page);
    assert_eq!(seen.number(Word::Preemptions), Some(7.0));
    assert_eq!(seen.number(Word::Queued), Some(2.0));
    assert_eq!(Snapshot::read("sglang_num_queue_reqs 4").number(Word::Queued), Some(4.0));
    // The old name of a share, in a page of an old version.
    assert_eq!(Snapshot::read("vllm:gpu_cache_usage_perc 0.5").number(Word::KvUsage), Some(0.5));
    for other in ["myvllm:num_preemptions 3", "vllm:num_preemptions_created 1.7e9", "vllm:x 1"] {
        assert_eq!(Snapshot::read(other), Snapshot::default(), "{other}");
    }
}

#[test]
fn ranks_are_added_up_and_copies_of_one_count_are_not() {
    let dp = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n\
        vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.9\n";
    let seen = Snapshot::read(dp);
    assert_eq!(seen.number(Word::Running), Some(7.0));
    assert_eq!(seen.number(Word::KvUsage), Some(0.9), "the fuller rank is the one that preempts");
    let sglang = "sglang:num_retracted_reqs{tp_rank=\"0\"} 9\n\
        sglang:num_retracted_requests_total{dp_rank=\"0\",tp_rank=\"0\"} 2\n\
        sglang:num_retracted_requests_total{dp_rank=\"0\",tp_rank=\"1\"} 2\n\
        sglang:num_retracted_requests_total{dp_rank=\"1\",tp_rank=\"0\"} 1\n";
    assert_eq!(Snapshot::read(sglang).number(Word::Preemptions), Some(3.0));
}

fn preempted(parts: &[(&str, f64)]) -> String {
    let line =
        |(rank, n): &(&str, f64)| format!("vllm:num_preemptions_total{{engine=\"{rank}\"}} {n}\n");
    parts.iter().map(line).collect()
}

#[test]
fn a_counter_that_was_set_back_has_no_value_though_the_sum_rises() {
    let of_pages = |pages: &[String]| {
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        of(&watched(engine(), &pages), Word::Preemptions)
    };
    let (one, two) = (preempted(&[("0", 5.0), ("1", 5.0)]), preempted(&[("0", 9.0), ("1", 6.0)]));
    assert_eq!(of_pages(&[one.clone(), two.clone()]), Reading::Counter { risen: 5.0 });
    for (why, last) in [
        ("a rank began anew, and the other made more of it", preempted(&[("0", 1.0), ("1", 99.0)])),
        ("a rank is gone", preempted(&[("1", 99.0)])),
        ("the whole series is gone", "vllm:num_requests_running 0\n".to_owned()),
    ] {
        assert_eq!(of_pages(&[one.clone(), last]), Reading::Absent(Gap::Restarted), "{why}");
    }
    let back_and_past = [one.clone(), preempted(&[("0", 0.0), ("1", 5.0)]), two.clone()];
    assert_eq!(of_pages(&back_and_past), Reading::Absent(Gap::Restarted), "seen only in between");
    let started = |s: f64, page: &str| format!("process_start_time_seconds {s}\n{page}");
    let anew = [started(1.7e9, &one), started(1.7e9 + 60.0, &two)];
    assert_eq!(of_pages(&anew), Reading::Absent(Gap::Restarted), "by the time of its start");
    let same = [started(1.7e9, &one), started(1.7e9 + 0.01, &two)];
    assert_eq!(of_pages(&same), Reading::Counter { risen: 5.0 });
}

#[test]
fn a_series_that_is_shown_once_there_is_something_to_count_began_at_zero() {
    let seen = watched(engine(), &["up 1", &preempted(&[("0", 2.0)])]);
    assert_eq!(of(&seen, Word::Preemptions), Reading::Counter { risen: 2.0 });
    let later = [preempted(&[("0", 2.0)]), preempted(&[("0", 3.0), ("1", 4.0)])];
    let seen = watched(engine(), &[&later[0], &later[1]]);
    assert_eq!(of(&seen, Word::Preemptions), Reading::Counter { risen: 5.0 });
}

#[test]
fn pages_that_were_not_had_leave_gaps() {
    let page = |n: f64| Some(Snapshot::read(&preempted(&[("0", n)])));
    let run = |first: Option<Snapshot>, between: Option<Snapshot>, last: Option<Snapshot>| {
        let mut watch = engine();
        watch.begin(first);
        watch.sample(between);
        watch.end(last)
    };
    let lost = run(page(1.0), None, page(4.0));
    assert_eq!(of(&lost, Word::Preemptions), Reading::Counter { risen: 3.0 }, "it spans the gap");
    assert_eq!((lost.reads, lost.missed), (2, 1));
    for (first, last) in [(None, page(4.0)), (page(1.0), None)] {
        let seen = run(first, page(2.0), last);
        assert_eq!(of(&seen, Word::Preemptions), Reading::Absent(Gap::NotRead));
    }
    let none = run(None, None, None);
    assert!(none.values.values().all(|r| *r == Reading::Absent(Gap::NotRead)));
}

#[test]
fn quantiles_are_bounded_by_their_bucket() {
    let hist = Histogram::new(vec![(1.0, 10.0), (2.0, 30.0), (4.0, 30.0)], 40.0, 80.0);
    let q = |q| hist.quantile(q).unwrap();
    assert_eq!(q(0.5), Quantile { value: 1.5, low: 1.0, high: Some(2.0) });
    assert_eq!(q(0.125), Quantile { value: 0.5, low: 0.0, high: Some(1.0) });
    assert_eq!(q(0.99), Quantile { value: 4.0, low: 4.0, high: None }, "beyond the last bound");
    assert_eq!(hist.mean(), Some(2.0));
    let without = Histogram::new(vec![], 4.0, 8.0);
    assert_eq!((without.mean(), without.quantile(0.5)), (Some(2.0), None));
    let wrong = Histogram::new(vec![(1.0, 9.0), (2.0, 3.0)], 9.0, 1.0);
    assert_eq!((wrong.quantile(0.5), wrong.count()), (None, 9.0), "buckets that fall say nothing");
    assert_eq!(Histogram::default().quantile(0.5), None);
}

fn readings(instances: Vec<InstanceReading>) -> EngineReadings {
    EngineReadings { instances, ..EngineReadings::default() }
}

#[test]
fn a_deployment_has_a_value_where_all_its_instances_have() {
    let one = || watched(engine(), &VLLM);
    let two = readings(vec![one(), one()]);
    assert_eq!(two.risen(Word::RequestsDone), Ok(48.0));
    let mean = readings(vec![one()]).mean(Word::QueueTime).unwrap();
    assert!((two.mean(Word::QueueTime).unwrap() - mean).abs() < 1e-12);
    let mixed = readings(vec![one(), watched(engine(), &LLAMA)]);
    assert_eq!(mixed.risen(Word::RequestsDone), Err(Gap::NotExported));
    let mut pools = vec![one(), one()];
    (pools[0].role, pools[1].role) = (Role::Prefill, Role::Decode);
    let through_both = readings(pools).mean(Word::QueueTime).unwrap();
    assert!((through_both - 2.0 * mean).abs() < 1e-12, "one after the other");
    assert_eq!(EngineReadings::default().risen(Word::RequestsDone), Err(Gap::NotExported));
}

#[test]
fn looks_add_up_over_instances_and_are_left_out_where_one_is_silent() {
    let said = |queued: f64, kv: f64| [(Word::Queued, queued), (Word::KvUsage, kv)].into();
    let (a, b) = (said(3.0, 0.2), said(4.0, 0.7));
    let mut all = readings(Vec::new());
    all.add_look([(Part::Engine, Some(&a)), (Part::Engine, Some(&b))].into_iter());
    all.add_look([(Part::Engine, Some(&a)), (Part::Engine, None)].into_iter());
    assert_eq!((all.samples(Word::Queued), all.samples(Word::KvUsage)), (&[7.0][..], &[0.7][..]));
    assert!(all.samples(Word::Running).is_empty());
}

#[test]
fn readings_survive_their_file() {
    let all = readings(vec![watched(engine(), &[VLLM[0], VLLM[1], VLLM[1]])]);
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<EngineReadings>(&text).unwrap(), all);
    assert!(text.contains(r#""kv_received_bytes":{"absent":"not_exported"}"#), "{text}");
}

proptest! {
    #[test]
    fn no_page_is_an_error(
        a in ".*",
        b in "(vllm:(num_preemptions_total|request_queue_time_seconds_(bucket|sum|count))[{}le=\"0-9. ]{0,30}\n){0,8}",
    ) {
        let seen = watched(engine(), &[&a, &b, &b, &a]);
        for reading in seen.values.values() {
            if let Reading::Counter { risen } = reading {
                prop_assert!(*risen >= 0.0);
            }
        }
    }

    #[test]
    fn a_counter_s_rise_is_exact_or_absent(counts in prop::collection::vec(0_u32..50, 2..8)) {
        let pages: Vec<String> =
            counts.iter().map(|n| preempted(&[("0", f64::from(*n))])).collect();
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        let seen = of(&watched(engine(), &pages), Word::Preemptions);
        let want = if counts.is_sorted() {
            Reading::Counter { risen: f64::from(counts[counts.len() - 1] - counts[0]) }
        } else {
            Reading::Absent(Gap::Restarted)
        };
        prop_assert_eq!(seen, want);
    }

    #[test]
    fn a_quantile_is_in_the_bucket_of_the_true_one(mut values in prop::collection::vec(0.0_f64..10.0, 1..60), q in 0.01_f64..1.0) {
        let bounds = [0.5, 1.0, 2.0, 4.0, 8.0];
        let up_to = |bound: f64| values.iter().filter(|v| **v <= bound).count() as f64;
        let buckets = bounds.iter().map(|b| (*b, up_to(*b))).collect();
        let hist = Histogram::new(buckets, values.len() as f64, values.iter().sum());
        values.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let truth = values[rank - 1];
        let found = hist.quantile(q).unwrap();
        prop_assert!(found.low <= truth, "{:?} {}", found, truth);
        prop_assert!(found.high.is_none_or(|high| truth <= high), "{:?} {}", found, truth);
    }
}

#[test]
fn names_in_files_are_those_of_the_results() {
    for word in Word::ALL {
        assert_eq!(serde_json::to_value(word).unwrap(), word.name());
        assert_eq!(Word::from_name(word.name()), Some(word));
    }
    for part in [Part::Engine, Part::Frontend] {
        assert_eq!(serde_json::to_value(part).unwrap(), part.name());
        assert_eq!(Part::from_name(part.name()), Some(part));
    }
}
