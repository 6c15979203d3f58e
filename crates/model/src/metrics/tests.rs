//! Metrics of requests whose instants are known, against numbers worked out by hand.

use super::*;
use crate::engine_metrics::{Part, Snapshot, Watch};
use crate::plan::{Level, Mode, Role};
use crate::request::{Arrival, Phase, TokenSource};
use crate::results::lookup;
use crate::units::Nanos;

fn level(concurrency: u32) -> Level {
    Level { label: "c".into(), concurrency: Some(concurrency), rate_rps: None, batch: None }
}

fn context(level: &Level) -> PointContext<'_> {
    PointContext {
        deployment: "d",
        load: "l",
        level,
        mode: Mode::Closed,
        gpus: 4,
        nodes: 2,
        prefill_gpus: 1,
        decode_gpus: 3,
        price_per_hour: Some(36.0),
        timeout: Nanos::from_secs(60),
        batch: 1,
        slo: None,
    }
}

/// Scheduled at `start` ms, sent 1 ms later, first token after `ttft` ms, then `tokens - 1` gaps.
fn request(index: u64, start: u64, ttft: u64, gap: u64, tokens: u32) -> RequestRecord {
    let ms = Nanos::from_millis;
    let mut r = RequestRecord::new(index, Phase::Measure, 0, ms(start));
    r.sent_at = Some(ms(start + 1));
    let first = start + ttft;
    r.arrivals = (0..u64::from(tokens))
        .map(|i| Arrival::new(ms(first + i * gap), 1, ms(first + i * gap)))
        .collect();
    r.first_token_at = r.arrivals.first().map(|a| a.at);
    r.last_token_at = r.arrivals.last().map(|a| a.at);
    r.finished_at = ms(first + u64::from(tokens - 1) * gap + 2);
    r.output_tokens = Some(tokens);
    r.token_source = Some(TokenSource::Usage);
    r.prompt_tokens = Some(100);
    r.asked_output_tokens = tokens;
    r.forced_length = true;
    r.outcome = Outcome::Completed;
    r
}

fn metrics(records: &[RequestRecord], asked: u32) -> Metrics {
    let level = level(asked);
    of_trial(&TrialView { context: &context(&level), records, engines: None, usage: None })
}

#[track_caller]
fn near(metrics: &Metrics, name: &str, want: f64) {
    let got = lookup(metrics, name).unwrap_or_else(|| panic!("no {name}"));
    assert!((got - want).abs() < 1e-9 * want.abs().max(1.0), "{name} is {got}, not {want}");
}

/// Engines that were looked at between two pages.
fn engines(before: &str, looks: &[&str], after: &str) -> EngineReadings {
    let mut watch = Watch::new("0", Part::Engine, Role::Aggregated);
    watch.begin(Some(Snapshot::read(before)));
    let mut readings = EngineReadings::default();
    for page in looks {
        let said = watch.sample(Some(Snapshot::read(page)));
        readings.add_look(std::iter::once((Part::Engine, Some(&said))));
    }
    readings.instances = vec![watch.end(Some(Snapshot::read(after)))];
    readings
}

fn observed(name: &str, n: u32, sum_s: f64) -> String {
    format!(
        "vllm:request_{name}_time_seconds_count {n}\nvllm:request_{name}_time_seconds_sum {sum_s}\n"
    )
}

#[test]
fn what_engines_say_is_held_against_the_client_where_both_saw_the_same_requests() {
    // TTFT from sending: 49 ms.
    let records = [request(0, 0, 50, 10, 11), request(1, 0, 50, 5, 11)];
    let level = level(2);
    let with = |engines: &EngineReadings| {
        let context = context(&level);
        of_trial(&TrialView {
            context: &context,
            records: &records,
            engines: Some(engines),
            usage: None,
        })
    };
    let before = observed("queue", 7, 1.0) + &observed("prefill", 7, 1.0);
    let after = observed("queue", 9, 1.040) + &observed("prefill", 9, 1.050);
    let looks = [1, 3].map(|n| format!("{before}vllm:num_requests_waiting {n}\n"));
    let looks = looks.each_ref().map(String::as_str);
    let m = with(&engines(&before, &looks, &after));
    near(&m, "engine_queue_ms", 20.0);
    near(&m, "engine_prefill_ms", 25.0);
    near(&m, "outside_engine_ms", 4.0);
    near(&m, "engine_queue_share", 20.0 / 49.0);
    near(&m, "queue.mean", 2.0);
    near(&m, "queue.max", 3.0);
    for absent in ["preemptions", "kv_usage", "engine_prefix_hit_ratio", "kv_received_bytes"] {
        assert_eq!(lookup(&m, absent), None, "{absent} is not exported");
    }
    // Somebody else asked too: the engine's mean is of other requests than ours.
    let others = observed("queue", 10, 9.0) + &observed("prefill", 10, 9.0);
    let m = with(&engines(&before, &looks, &others));
    near(&m, "engine_queue_ms", 8.0 / 3.0 * 1e3);
    assert_eq!(lookup(&m, "outside_engine_ms"), None);
}

#[test]
fn looks_at_some_of_the_trials_are_no_looks_at_the_point() {
    let records = [request(0, 0, 50, 10, 11)];
    let level = level(1);
    let context = context(&level);
    let looked = engines("", &["vllm:num_requests_waiting 4"], "");
    let view = |engines| TrialView { context: &context, records: &records, engines, usage: None };
    near(&of_trials(&[view(Some(&looked)), view(Some(&looked))]), "queue.count", 2.0);
    let m = of_trials(&[view(Some(&looked)), view(None)]);
    assert_eq!(lookup(&m, "queue"), None);
}

#[test]
fn definitions_hold_on_requests_worked_out_by_hand() {
    // Two at a time: 0..153 ms and 0..103 ms, then 200..301 ms.
    let records = [request(0, 0, 50, 10, 11), request(1, 0, 50, 5, 11), request(2, 200, 40, 20, 4)];
    let m = metrics(&records, 2);
    near(&m, "ttft.p50", 50.0);
    near(&m, "ttft_sent_ms.min", 39.0);
    near(&m, "tpot.min", 5.0);
    near(&m, "tpot.max", 20.0);
    near(&m, "itl.mean", (10.0 * 10.0 + 10.0 * 5.0 + 3.0 * 20.0) / 23.0);
    near(&m, "itl.count", 23.0);
    near(&m, "e2e.max", 152.0);
    near(&m, "e2e_sent_ms.max", 151.0);
    near(&m, "lateness_ms.max", 1.0);
    near(&m, "interactivity_tps.max", 200.0);
    near(&m, "wall_s", 0.301);
    near(&m, "rps", 3.0 / 0.301);
    near(&m, "output_tps", 26.0 / 0.301);
    near(&m, "output_tps_per_gpu", 26.0 / 0.301 / 4.0);
    near(&m, "total_tps", 326.0 / 0.301);
    near(&m, "concurrency_reached", (151.0 + 101.0 + 101.0) / 301.0);
    near(&m, "cost_per_mtok", 36.0 * 0.301 / 3600.0 / 26e-6);
    near(&m, "output_tokens_per_cost", 26.0 / (36.0 * 0.301 / 3600.0));
    near(&m, "output_tps_per_node", 26.0 / 0.301 / 2.0);
    near(&m, "output_tps_per_decode_gpu", 26.0 / 0.301 / 3.0);
    assert_eq!(lookup(&m, "output_tps_per_working_gpu"), None, "no GPU was watched");
    near(&m, "success_rate", 1.0);
    near(&m, "osl_mismatch", 0.0);
    near(&m, "ttst.max", 20.0);
    near(&m, "prefill_tps.max", 100.0 / 0.040);
    near(&m, "tokens_per_chunk.mean", 1.0);
    near(&m, "merged_arrivals", 0.0);
    assert_eq!(lookup(&m, "rate"), None, "a closed loop has no rate");
}

#[test]
fn goodput_counts_what_was_completed_within_the_limits() {
    // TTFT 50, 50, 40 ms; TPOT 10, 5, 20 ms; all over a wall of 301 ms.
    let mut records =
        vec![request(0, 0, 50, 10, 11), request(1, 0, 50, 5, 11), request(2, 200, 40, 20, 4)];
    let level = level(2);
    let of = |slo: &str, records: &[RequestRecord]| {
        let slo = crate::slo::Slo::parse(&[slo.to_owned()]).unwrap();
        let context = PointContext { slo: Some(&slo), ..context(&level) };
        of_trial(&TrialView { context: &context, records, engines: None, usage: None })
    };
    let m = of("tpot.p50 <= 10ms", &records);
    near(&m, "goodput_rps", 2.0 / 0.301);
    near(&m, "goodput_tps", 22.0 / 0.301);
    near(&m, "goodput_rps_per_gpu", 2.0 / 0.301 / 4.0);
    near(&m, "goodput_tps_per_gpu", 22.0 / 0.301 / 4.0);
    near(&m, "slo_attainment", 2.0 / 3.0);
    near(&m, "slo_met", 1.0);
    near(&of("tpot.p95 <= 10ms", &records), "slo_met", 0.0);
    near(&of("ttft.p50 <= 39ms", &records), "goodput_rps", 0.0);
    // A failed request is one of those that were due; one given up as planned is not.
    records[0].outcome = Outcome::Failed;
    near(&of("tpot.p50 <= 10ms", &records), "slo_attainment", 1.0 / 3.0);
    records[0].outcome = Outcome::Abandoned;
    near(&of("tpot.p50 <= 10ms", &records), "slo_attainment", 1.0 / 2.0);
    records[1].output_tokens = None;
    let m = of("e2e.p50 <= 1s", &records);
    assert_eq!(lookup(&m, "goodput_tps"), None, "a sum over some is not the sum");
    near(&m, "goodput_rps", 2.0 / 0.301);
    let none = metrics(&records, 2);
    assert!(none.keys().all(|name| !name.starts_with("goodput") && !name.starts_with("slo_")));
}

#[test]
fn what_one_read_brought_is_no_gap_and_is_counted() {
    let ms = Nanos::from_millis;
    let mut r = request(0, 0, 50, 10, 8);
    r.arrivals = vec![
        Arrival::new(ms(50), 2, ms(53)),
        Arrival::new(ms(70), 1, ms(70)),
        Arrival::new(ms(120), 5, ms(121)),
    ];
    let m = metrics(&[r], 1);
    near(&m, "merged_arrivals", 5.0 / 8.0);
    near(&m, "chunks_per_arrival.max", 5.0);
    near(&m, "chunks_per_arrival.mean", 8.0 / 3.0);
    near(&m, "read_lag_ms.max", 3.0);
    near(&m, "read_lag_ms.count", 3.0);
    near(&m, "itl.count", 2.0);
    assert_eq!(lookup(&m, "ttst.p50"), None, "the second token came with the first");
}

#[test]
fn the_steady_window_leaves_out_ramp_and_drain() {
    let mut records: Vec<_> = (0..4).map(|i| request(i, i * 10, 20, 10, 11)).collect();
    records.push(request(9, 500, 20, 10, 11));
    // All four are in flight from 31 to 122 ms; the straggler is alone.
    let window = steady_window(&InFlight::of(&records), 4).unwrap();
    assert_eq!(window, (Nanos::from_millis(31), Nanos::from_millis(122)));
    let inside = records
        .iter()
        .flat_map(|r| &r.arrivals)
        .filter(|a| a.at > window.0 && a.at <= window.1)
        .count();
    near(&metrics(&records, 4), "output_tps_steady", inside as f64 / 0.091);
}

#[test]
fn a_failed_request_is_never_averaged_away() {
    let mut failed = request(1, 0, 5_000, 1, 2);
    failed.outcome = Outcome::TimedOut;
    let m = metrics(&[request(0, 0, 50, 10, 11), failed], 2);
    near(&m, "ttft.count", 1.0);
    near(&m, "success_rate", 0.5);
    near(&m, "requests", 2.0);
    near(&m, "lateness_ms.count", 2.0);
}

#[test]
fn an_abandoned_request_is_neither_a_failure_nor_a_latency() {
    let mut abandoned = request(1, 0, 5_000, 1, 2);
    abandoned.outcome = Outcome::Abandoned;
    let m = metrics(&[request(0, 0, 50, 10, 11), abandoned.clone()], 2);
    for name in ["ttft.count", "e2e.count", "tpot.count", "success_rate"] {
        near(&m, name, 1.0);
    }
    near(&m, "requests", 2.0);
    assert_eq!(lookup(&metrics(&[abandoned], 1), "success_rate"), None);
    let not_lost: Vec<_> = Outcome::ALL.into_iter().filter(|o| !o.is_loss()).collect();
    assert_eq!(not_lost, [Outcome::Completed, Outcome::Abandoned]);
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let mut r = request(0, 0, 50, 10, 1);
    r.prompt_tokens = None;
    let m = metrics(&[r], 1);
    assert_eq!(lookup(&m, "tpot.p50"), None, "one token has no time per token");
    assert_eq!(lookup(&m, "total_tps"), None);
    let mut none = request(0, 0, 50, 10, 5);
    none.output_tokens = None;
    assert_eq!(lookup(&metrics(&[none], 1), "output_tps"), None);
    assert!(!metrics(&[], 1).contains_key("rps"));
}

#[test]
fn a_batch_counts_all_its_answers_and_no_gap_between_them() {
    let mut r = request(0, 0, 50, 10, 11);
    r.prompts = 2;
    r.output_tokens = Some(22);
    r.asked_output_tokens = 22;
    let m = metrics(&[r], 1);
    near(&m, "tpot.p50", 10.0);
    assert_eq!(lookup(&m, "itl.mean"), None);
    near(&m, "osl_mismatch", 0.0);
}

#[test]
fn the_catalogue_is_uniform() {
    let mut names: Vec<_> = METRICS.iter().map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), METRICS.len(), "no name twice");
    for m in METRICS {
        assert!(!m.doc.is_empty() && m.doc.len() < 160, "{}", m.name);
        if m.unit == "ms" {
            assert!(m.name.ends_with("_ms"), "{} carries its unit", m.name);
        }
        assert!(catalogue::is_known(m.name));
    }
    for name in [
        "e2e.p95",
        "ttft.p50",
        "speedup.output_tps",
        "slowdown.ttft.p95",
        "gpu_mem.imbalance",
        "e2e.p96",
        "ttft.p99.95",
    ] {
        assert!(catalogue::is_known(name), "{name}");
    }
    for name in ["e2e.p101", "e2e.q5", "rps.p50", "speed", "slowdown.x"] {
        assert!(!catalogue::is_known(name), "{name}");
    }
}

#[test]
fn the_hit_ratio_is_of_prompt_tokens_and_absent_where_no_answer_says_it() {
    let mut records = [request(0, 0, 50, 10, 11), request(1, 0, 50, 5, 11)];
    assert_eq!(lookup(&metrics(&records, 2), "prefix_hit_ratio"), None);
    // A server that leaves zero out: 60 of 2 x 100.
    records[0].cached_prompt_tokens = Some(60);
    near(&metrics(&records, 2), "prefix_hit_ratio", 0.3);
    records[0].cached_prompt_tokens = Some(0);
    near(&metrics(&records, 2), "prefix_hit_ratio", 0.0);
}

#[test]
fn a_forced_length_is_held_against_the_servers_own_count_alone() {
    let mut records = [request(0, 0, 50, 10, 11), request(1, 0, 50, 5, 11)];
    for r in &mut records {
        r.asked_output_tokens = 12;
    }
    records[1].token_source = Some(TokenSource::Chunks);
    near(&metrics(&records, 2), "osl_mismatch", 1.0);
    records[0].token_source = Some(TokenSource::Tokenizer);
    assert_eq!(lookup(&metrics(&records, 2), "osl_mismatch"), None);
}

#[test]
fn any_percentile_is_found_by_its_name() {
    // Times to first token of 1 to 101 ms: the p-th percentile is p + 1.
    let records: Vec<_> = (0..101).map(|i| request(i, 0, i + 1, 10, 2)).collect();
    let level = level(2);
    let context = context(&level);
    let views = [TrialView { context: &context, records: &records, engines: None, usage: None }];
    let mut m = of_trials(&views);
    let asked = Percentiles::new(["ttft.p87.5", "ttft_ms.p99", "rps", "ttft.mean", "nope.p3"], &[]);
    m.extend(asked.of_trials(&views));
    near(&m, "ttft.p87.5", 88.5);
    near(&m, "ttft_ms.p87.5", 88.5);
    near(&m, "ttft.p99.9", 100.9);
    near(&m, "ttft.p99.90", 100.9);
    near(&m, "ttft.p100", 101.0);
    assert_eq!(lookup(&m, "ttft.p87.6"), None, "nobody asked");
    let added: Vec<_> = m.keys().filter(|k| k.contains('.')).collect();
    assert_eq!(added, ["ttft_ms.p87.5"], "what a distribution keeps is there once");
    let all = Percentiles::new([], &[12.0]).of_trials(&views);
    assert!(all.contains_key("e2e_ms.p12") && !all.contains_key("rps.p12"));
}

#[test]
fn reasoning_is_told_apart_and_absent_where_nobody_tells() {
    let ms = Nanos::from_millis;
    let mut records = [request(0, 100, 50, 10, 11), request(1, 100, 50, 10, 11)];
    // The first answers from its fifth token on, the second only thinks.
    records[0].first_answer_at = Some(ms(190));
    records[0].reasoning_tokens = Some(4);
    let m = metrics(&records, 2);
    near(&m, "ttfo.max", 90.0);
    near(&m, "ttfo.count", 1.0);
    near(&m, "ttft.max", 50.0);
    near(&m, "reasoning_tokens.mean", 4.0);
    near(&m, "reasoning_tokens.count", 1.0);
    let m = metrics(&records[1..], 2);
    assert_eq!((lookup(&m, "ttfo.p50"), lookup(&m, "reasoning_tokens.p50")), (None, None));
}

#[test]
fn connecting_is_no_delay_of_the_load_generator_s_own() {
    let mut records = [request(0, 0, 50, 10, 11), request(1, 0, 50, 10, 11)];
    records[0].sent_at = Some(Nanos::from_millis(9));
    records[0].connect = Some(Nanos::from_millis(6));
    let m = metrics(&records, 2);
    near(&m, "lateness_ms.max", 9.0);
    near(&m, "send_delay_ms.max", 3.0);
    near(&m, "send_delay_ms.min", 1.0);
}

#[test]
fn an_open_load_is_steady_from_its_first_answers_to_its_last_due_time() {
    // One every 10 ms, each in flight for 1 to 122 ms of its own: twenty are due until 190 ms.
    let records: Vec<_> = (0..20).map(|i| request(i, i * 10, 20, 10, 11)).collect();
    let level = Level { label: "r".into(), concurrency: None, rate_rps: Some(100.0), batch: None };
    let context = PointContext { mode: Mode::Open, ..context(&level) };
    let view = TrialView { context: &context, records: &records, engines: None, usage: None };
    // The first two have ended at 122 and 132 ms.
    assert_eq!(steady(&view), Ok((Nanos::from_millis(132), Nanos::from_millis(190))));
    let m = of_trial(&view);
    near(&m, "steady_share", 58.0 / 311.0);
    let is_inside = |at: Nanos| Nanos::from_millis(132) < at && at <= Nanos::from_millis(190);
    let inside = records.iter().flat_map(|r| &r.arrivals).filter(|a| is_inside(a.at)).count();
    near(&m, "output_tps_steady", inside as f64 / 0.058);
    // Ten at once are all due before one is answered.
    let at_once =
        TrialView { context: &context, records: &records[..10], engines: None, usage: None };
    assert_eq!(steady(&at_once), Err(NoWindow::StillFilling));
}
