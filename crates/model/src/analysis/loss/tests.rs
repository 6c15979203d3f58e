//! Losses that were planted are named first, for what they are worth, and all shares sum up to the loss.

use super::*;
use crate::analysis::TrialRecords;
use crate::analysis::scaling::{Measured, Shape, study};
use crate::analysis::tests::{deployment, plan, point_plan};
use crate::metrics::Better;
use crate::plan::{HostGpus, InstancePlan, Plan, PointPlan, Role};
use crate::results::{MetricValue, Metrics, PointResult, TrialResult};
use crate::telemetry::usage::{GpuUse, HostUse, LinkUse, MeanMax, ProcessUse};
use crate::trust::{Trust, TrustLevel};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Stages of a request, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    outside: f64,
    queue: f64,
    prefill: f64,
    decode: f64,
    /// Of decode, what the engine counts as its own.
    engine_decode: f64,
}

const BASE: Times =
    Times { outside: 5.0, queue: 5.0, prefill: 90.0, decode: 900.0, engine_decode: 890.0 };

/// Metrics of a deployment that keeps `in_flight` requests of `tokens` in these stages.
fn metrics(times: Times, in_flight: f64, tokens: f64) -> Metrics {
    let first = times.outside + times.queue + times.prefill;
    let rps = in_flight / (first + times.decode) * 1e3;
    [
        ("rps", rps),
        ("output_tps", rps * tokens),
        ("concurrency_reached", in_flight),
        ("ttft_sent_ms", first),
        ("engine_queue_ms", times.queue),
        ("engine_prefill_ms", times.prefill),
        ("engine_decode_ms", times.engine_decode),
        ("outside_engine_ms", times.outside),
        ("prompt_tokens", 1000.0),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), MetricValue::Number(value)))
    .collect()
}

fn instance(hosts: &[&str], pp: u32, role: Role) -> InstancePlan {
    InstancePlan {
        index: 0,
        role,
        tp: 1,
        pp,
        dp: 1,
        dp_balance: None,
        ep: None,
        place: hosts.iter().map(|h| HostGpus { host: (*h).to_owned(), ids: vec![0] }).collect(),
        port: 8000,
    }
}

fn result(name: &str, gpus: u32, metrics: Metrics, usage: Usage) -> PointResult {
    let trial = TrialResult {
        number: 1,
        bring_up: None,
        metrics: metrics.clone(),
        timeline: None,
        outcomes: BTreeMap::new(),
        usage: Some(usage),
        engines: Vec::new(),
    };
    PointResult {
        deployment: name.to_owned(),
        load: "load".to_owned(),
        level: "c16".to_owned(),
        mode: crate::plan::Mode::Closed,
        concurrency: Some(16),
        rate_rps: None,
        batch: None,
        is_probe: false,
        gpus,
        metrics,
        outcomes: BTreeMap::new(),
        failures: BTreeMap::new(),
        classes: BTreeMap::new(),
        targets: BTreeMap::new(),
        turns: BTreeMap::new(),
        by_target: Vec::new(),
        slo: None,
        account: None,
        trust: Trust::default(),
        trials: vec![trial],
    }
}

/// A deployment of twice the size under the same load, held against one whose machines did nothing special.
struct Case {
    times: Times,
    in_flight: f64,
    tokens: f64,
    instance: InstancePlan,
    usage: Usage,
    more: Vec<(&'static str, f64)>,
    paths: Vec<MeasuredPath>,
    exchanges: Vec<Exchange>,
    /// Kind of the GPUs of n1.
    gpu: Option<&'static str>,
    copies: u32,
}

impl Case {
    /// Half of every time, which is the ideal, and `slower` on top.
    fn slower(slower: Times) -> Self {
        let of = |base: f64, more: f64| base / 2.0 + more;
        let times = Times {
            outside: of(BASE.outside, slower.outside),
            queue: of(BASE.queue, slower.queue),
            prefill: of(BASE.prefill, slower.prefill),
            decode: of(BASE.decode, slower.decode),
            engine_decode: of(BASE.engine_decode, slower.engine_decode),
        };
        let (usage, instance) = (Usage::default(), instance(&["n1", "n2"], 1, Role::Aggregated));
        Self {
            times,
            in_flight: 16.0,
            tokens: 100.0,
            instance,
            usage,
            more: Vec::new(),
            paths: Vec::new(),
            exchanges: Vec::new(),
            gpu: None,
            copies: 1,
        }
    }

    fn loss(self) -> Loss {
        self.loss_of(16.0)
    }

    /// Where the baseline keeps `in_flight` requests.
    fn loss_of(self, in_flight: f64) -> Loss {
        let mut over = deployment("over", 2);
        over.instances = (0..self.copies).map(|_| self.instance.clone()).collect();
        let mut plan = plan(vec![deployment("base", 1), over]);
        plan.hosts.extend(self.gpu.map(|kind| crate::plan::HostPlan {
            name: "n1".to_owned(),
            addr: "127.0.0.1".to_owned(),
            ssh: None,
            gpus: 8,
            gpu: Some(kind.to_owned()),
            iface: None,
            labels: BTreeMap::new(),
        }));
        let points = [point_plan("base", 16, 1), point_plan("over", 16, 1)];
        let mut grown = metrics(self.times, self.in_flight, self.tokens);
        for (name, value) in self.more {
            grown.insert(name.to_owned(), MetricValue::Number(value));
        }
        let results = [
            result("base", 1, metrics(BASE, in_flight, 100.0), Usage::default()),
            result("over", 2, grown, self.usage),
        ];
        let beside = Beside { paths: &self.paths, exchanges: &self.exchanges };
        of_results((&plan, self.copies), &points, &results, beside)
    }
}

fn of_results(
    (plan, copies): (&Plan, u32),
    points: &[PointPlan; 2],
    results: &[PointResult; 2],
    beside: Beside<'_>,
) -> Loss {
    let trials: [Vec<TrialRecords>; 2] = [Vec::new(), Vec::new()];
    let side = |i: usize| Side {
        result: &results[i],
        trials: &trials[i],
        point: &points[i],
        plan,
        class: None,
    };
    let sides = [side(0), side(1)];
    let measured = |i: usize| Measured {
        deployment: results[i].deployment.clone(),
        shape: Shape {
            gpus: Some(results[i].gpus),
            replicas: if i == 0 { 1 } else { copies },
            ..Shape::default()
        },
        level: results[i].level.clone(),
        asked: Some(16.0),
        is_rate_given: false,
        value: results[i].value("output_tps").unwrap(),
        spread: None,
        ratio_range: None,
        failed: 0.0,
        trust: TrustLevel::Sound,
        mark: None,
    };
    let basis = Basis::Load { level: "c16".to_owned() };
    let sizes = [measured(0), measured(1)];
    let study = study(("output_tps", Better::Higher), "load", basis, &sizes, Vec::new()).unwrap();
    let mut found = all(&[study], &sides, beside);
    assert_eq!(found.len(), 1);
    let loss = found.remove(0);
    let sum: f64 = loss.shares.iter().map(|s| s.share).sum();
    assert!((sum - loss.lost).abs() < 2e-3, "{sum} of {}: {:?}", loss.lost, loss.shares);
    loss
}

const NONE: Times =
    Times { outside: 0.0, queue: 0.0, prefill: 0.0, decode: 0.0, engine_decode: 0.0 };

fn steady(value: f64) -> Option<MeanMax> {
    Some(MeanMax { mean: value, max: Some(value) })
}

fn process(name: &str, role: Option<Role>, cores: f64) -> ProcessUse {
    let (host, name) = ("n1".to_owned(), name.to_owned());
    ProcessUse { host, name, role, cpu_cores: steady(cores), ..ProcessUse::default() }
}

fn gpu(index: u32, mhz: f64) -> GpuUse {
    GpuUse {
        host: "n1".to_owned(),
        index: Some(index),
        role: Some(Role::Aggregated),
        sm_clock_mhz: steady(mhz),
        busy_pct: steady(90.0),
        ..GpuUse::default()
    }
}

/// The first cause and its share, in percent of the ideal.
fn first(loss: &Loss) -> (Cause, f64) {
    let share = loss.shares.first().unwrap();
    (share.cause, (share.share * 1000.0).round() / 10.0)
}

#[test]
fn without_a_loss_nothing_is_named() {
    let loss = Case::slower(NONE).loss();
    assert!(loss.lost.abs() < 1e-9 && loss.shares.is_empty(), "{loss:?}");
}

/// A link that is busy for 80 % of the time takes 800 of 1300 ms of a request.
#[test]
fn a_rate_limited_link_is_named_first() {
    let mut case = Case::slower(Times { decode: 800.0, engine_decode: 800.0, ..NONE });
    let link = LinkUse {
        host: "n2".to_owned(),
        name: "eth0".to_owned(),
        sent_gbps: steady(0.8),
        speed_gbps: Some(1.0),
        ..LinkUse::default()
    };
    case.usage.links = vec![link.clone()];
    let loss = case.loss();
    assert_eq!(first(&loss), (Cause::Link, 61.5), "{}", loss.text);
    assert!(
        loss.text.contains("eth0 of n2 carried 80.0 % of the 1.00 Gbit/s of its speed, on average"),
        "{}",
        loss.text
    );

    // Behind an interface that says 10 Gbit/s the path may carry a hundredth of it.
    let mut case = Case::slower(Times { decode: 800.0, engine_decode: 800.0, ..NONE });
    case.usage.links = vec![LinkUse { speed_gbps: Some(10.0), ..link.clone() }];
    let host = |resent| HostUse {
        host: "n2".to_owned(),
        tcp_resent_pct: Some(resent),
        ..HostUse::default()
    };
    case.usage.hosts = vec![host(2.0)];
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::Link, "{}", loss.text);
    assert!(loss.text.contains("2.00 % of the segments were sent again"), "{}", loss.text);

    // So it is where the doctor found what the path carries.
    let mut case = Case::slower(Times { decode: 800.0, engine_decode: 800.0, ..NONE });
    case.usage.links = vec![LinkUse { speed_gbps: Some(10.0), ..link.clone() }];
    let path = |bytes_per_s| MeasuredPath { from: "n1".into(), to: "n2".into(), bytes_per_s };
    case.paths = vec![path(112_500_000)];
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::Link, "{}", loss.text);
    assert!(
        loss.text.contains("88.9 % of the 0.900 Gbit/s that the doctor found"),
        "{}",
        loss.text
    );

    // Nothing is lost on a network with room: the rest stays unexplained.
    let mut case = Case::slower(Times { decode: 800.0, engine_decode: 800.0, ..NONE });
    case.usage.links = vec![LinkUse { speed_gbps: Some(10.0), ..link }];
    case.usage.hosts = vec![host(0.0)];
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::Decode, "{}", loss.text);
    assert!(loss.text.contains("nothing that was read explains it"), "{}", loss.text);
}

fn exchange(deployment: &str, step_s: f64, token_s: f64) -> Exchange {
    Exchange {
        deployment: deployment.to_owned(),
        role: Role::Aggregated,
        step_s,
        token_s,
        over: "2 all-reduces a layer over 8 ranks".to_owned(),
    }
}

/// With 15.96 requests at work a step moves for 1 + 0.25 n = 4.99 ms, 494 of 1000 ms for 100 tokens; half of the baseline's
/// 99 ms is in the ideal, and is no loss.
#[test]
fn what_ranks_exchange_is_claimed_by_a_model_of_their_links() {
    let slower = Times { decode: 500.0, engine_decode: 500.0, ..NONE };
    let of = |more: &dyn Fn(&mut Case)| {
        let mut case = Case::slower(slower);
        case.exchanges = vec![exchange("base", 0.001, 0.0), exchange("over", 0.001, 0.00025)];
        more(&mut case);
        case.loss()
    };
    let alone = of(&|_| ());
    assert_eq!(first(&alone), (Cause::Collectives, 44.5), "{}", alone.text);
    let said = "2 all-reduces a layer over 8 ranks take 494 ms of the decode of 100 tokens, and 99.0 ms of the \
                baseline's";
    assert!(alone.text.contains(said), "{}", alone.text);

    // Prompts are moved too, in the time to the first token.
    let prefill = of(&|case| case.times.prefill += 300.0);
    assert!(
        prefill.text.contains("take 251 ms of the prefill of a prompt of which nothing is cached"),
        "{}",
        prefill.text
    );
    assert_eq!(prefill.shares.iter().filter(|s| s.cause == Cause::Collectives).count(), 1);

    // A link that was seen to be busy is a part of that, and not claimed beside it.
    let beside = of(&|case| {
        case.usage.links = vec![LinkUse {
            host: "n2".to_owned(),
            name: "eth0".to_owned(),
            sent_gbps: steady(0.4),
            speed_gbps: Some(1.0),
            ..LinkUse::default()
        }];
    });
    let share = |cause: Cause| beside.shares.iter().find(|s| s.cause == cause).unwrap().share;
    let both = share(Cause::Link) + share(Cause::Collectives);
    assert!((both - alone.shares[0].share).abs() < 1e-9, "{}", beside.text);

    // Copies move what the baseline does; and what is more than the stage took is not of these links.
    let copies = of(&|case| case.copies = 2);
    assert!(copies.shares.iter().all(|s| s.cause != Cause::Collectives), "{}", copies.text);
    let refuted = of(&|case| case.exchanges[1].step_s = 0.02);
    assert_eq!(first(&refuted).0, Cause::Decode, "{}", refuted.text);

    // Of links that are not known, and where the baseline's take as long, nothing is said.
    let unknown = of(&|case| case.exchanges.truncate(1));
    assert_eq!(first(&unknown).0, Cause::Decode, "{}", unknown.text);
    let alike = of(&|case| {
        case.exchanges = vec![exchange("base", 0.01, 0.0), exchange("over", 0.005, 0.0)];
    });
    assert_eq!(first(&alike).0, Cause::Decode, "{}", alike.text);
}

/// GPUs of one machine wait for NVLink by what their kind can send; of a kind that is in no table nothing is known.
#[test]
fn a_full_nvlink_is_named_with_its_gpu() {
    let of = |kind| {
        let mut case = Case::slower(Times { decode: 800.0, engine_decode: 800.0, ..NONE });
        let sent = Some(MeanMax { mean: 270.0, max: Some(400.0) });
        case.usage.gpus = vec![GpuUse { nvlink_sent_gbytes_per_s: sent, ..gpu(3, 1400.0) }];
        case.gpu = Some(kind);
        case.loss()
    };
    let loss = of("H100-SXM-80G");
    assert_eq!(first(&loss).0, Cause::Link, "{}", loss.text);
    assert!(
        loss.text.contains("n1 GPU 3 sent 270 GB/s over NVLink on average, 60.0 %"),
        "{}",
        loss.text
    );
    assert_eq!(first(&of("RTX-4090")).0, Cause::Decode);
}

/// A link inside of one machine is no link between its parts.
#[test]
fn an_instance_on_one_host_waits_for_no_network() {
    let mut case = Case::slower(Times { decode: 300.0, ..NONE });
    case.instance = instance(&["n1"], 1, Role::Aggregated);
    let link = LinkUse {
        host: "n1".to_owned(),
        name: "eth0".to_owned(),
        sent_gbps: steady(0.9),
        speed_gbps: Some(1.0),
        ..LinkUse::default()
    };
    case.usage.links = vec![link];
    assert_eq!(first(&case.loss()).0, Cause::Decode);
}

#[test]
fn one_slowed_rank_is_named_first_for_what_its_clock_is_worth() {
    let mut case = Case::slower(Times { decode: 200.0, engine_decode: 200.0, ..NONE });
    case.usage.gpus = vec![gpu(0, 1400.0), gpu(1, 1050.0)];
    let loss = case.loss();
    // A quarter of the clock, of the time that is spent computing.
    assert_eq!(first(&loss).0, Cause::SlowRank, "{}", loss.text);
    assert!(loss.text.contains("n1 GPU 1 ran at 1050 MHz"), "{}", loss.text);

    // The clock of one that does nothing says nothing.
    let mut case = Case::slower(Times { decode: 200.0, engine_decode: 200.0, ..NONE });
    case.usage.gpus = vec![gpu(0, 1400.0), GpuUse { busy_pct: steady(3.0), ..gpu(1, 210.0) }];
    assert_eq!(first(&case.loss()).0, Cause::Decode);

    let mut case = Case::slower(Times { decode: 200.0, engine_decode: 200.0, ..NONE });
    let held = ProcessUse {
        quota_waits_pct: Some(60.0),
        ..process("over/0/engine 12 VLLM::Worker_TP1", Some(Role::Aggregated), 0.5)
    };
    case.usage.processes = vec![held];
    assert_eq!(first(&case.loss()).0, Cause::CpuQuota);
}

#[test]
fn a_router_that_has_no_more_to_give_is_named_first() {
    let slower = Times { outside: 150.0, decode: 200.0, ..NONE };
    let mut case = Case::slower(slower);
    case.usage.processes = vec![
        process("over/router 11 python", None, 0.99),
        process("over/0/engine 12 vllm", Some(Role::Aggregated), 3.0),
        process("load generator", None, 1.0),
    ];
    let loss = case.loss();
    // All of 350 ms are outside of what engines count, of 850.
    assert_eq!(first(&loss), (Cause::Frontend, 41.2), "{}", loss.text);
    assert!(
        loss.text.contains("over/router 11 python of n1 used 0.990 cores all of the time"),
        "{}",
        loss.text
    );

    // The load generator alone is no router.
    let mut case = Case::slower(slower);
    case.usage.processes = vec![process("load generator", None, 1.0)];
    assert_eq!(first(&case.loss()).0, Cause::Decode);
}

#[test]
fn a_small_cache_is_named_first_and_a_queue_with_room_is_a_queue() {
    let mut case = Case::slower(Times { queue: 400.0, ..NONE });
    case.more = vec![("kv_usage.max", 0.99), ("preemptions", 12.0)];
    let loss = case.loss();
    assert_eq!(first(&loss), (Cause::KvCache, 44.4), "{}", loss.text);
    assert!(loss.text.contains("12 requests were put back"), "{}", loss.text);

    let mut case = Case::slower(Times { queue: 400.0, ..NONE });
    case.more = vec![("kv_usage.max", 0.30), ("preemptions", 0.0)];
    assert_eq!(first(&case.loss()).0, Cause::Queue);
}

#[test]
fn a_deeper_pipeline_with_one_batch_under_way_stands_still_by_model() {
    let mut case = Case::slower(Times { decode: 450.0, engine_decode: 450.0, ..NONE });
    case.instance = instance(&["n1", "n2"], 2, Role::Aggregated);
    case.in_flight = 1.0;
    let loss = case.loss_of(1.0);
    assert_eq!(first(&loss).0, Cause::PipelineBubble, "{}", loss.text);
    assert!(
        loss.text
            .contains("by model, 2 stages with 0.997 requests at a time stand still for 50.1 %"),
        "{}",
        loss.text
    );

    // As many requests as stages keep it full.
    let mut case = Case::slower(Times { decode: 450.0, engine_decode: 450.0, ..NONE });
    case.instance = instance(&["n1", "n2"], 2, Role::Aggregated);
    assert_eq!(first(&case.loss()).0, Cause::Decode);
}

#[test]
fn what_was_not_asked_or_not_answered_is_not_blamed_on_the_machines() {
    let mut case = Case::slower(NONE);
    case.in_flight = 8.0;
    assert_eq!(first(&case.loss()), (Cause::InFlight, 50.0));

    // Answers of half the tokens take half the time to decode; the prefill is the same.
    let mut case = Case::slower(NONE);
    case.tokens = 50.0;
    case.times.decode /= 2.0;
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::Answers, "{}", loss.text);
    assert!(loss.shares.iter().skip(1).all(|s| s.share.abs() < 1e-3), "{loss:?}");
}

/// Two copies that answer as fast as one with half of the requests each lack nothing but load.
#[test]
fn copies_that_are_no_slower_lack_load() {
    let full =
        Times { outside: 2.5, queue: 2.5, prefill: 45.0, decode: 400.0, engine_decode: 395.0 };
    let mut case = Case::slower(full);
    (case.copies, case.instance) = (2, instance(&["n1"], 1, Role::Aggregated));
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::TooLittleLoad, "{}", loss.text);
    assert!(loss.text.contains("each of 2 copies had "), "{}", loss.text);

    // What is slower with fewer requests lacks something else.
    let slower = Times { decode: 700.0, engine_decode: 700.0, ..full };
    let mut case = Case::slower(slower);
    (case.copies, case.instance) = (2, instance(&["n1"], 1, Role::Aggregated));
    assert_eq!(first(&case.loss()).0, Cause::Decode);
}

/// Without the engines' own times there are two stages, and a reader is told.
#[test]
fn stages_that_no_engine_tells_are_not_made_up() {
    let mut case = Case::slower(Times { prefill: 100.0, ..NONE });
    case.more = vec![("outside_engine_ms", f64::NAN)];
    let loss = case.loss();
    assert_eq!(first(&loss).0, Cause::FirstToken);
    assert!(loss.unread.iter().any(|u| u.contains("queue and prefill times")), "{loss:?}");
}

proptest! {
    #[test]
    fn shares_sum_up_to_the_loss(
        slower in prop::array::uniform4(0.0..500.0_f64),
        in_flight in 1.0..20.0_f64,
        tokens in 10.0..200.0_f64,
        cores in 0.0..2.0_f64,
        cache in 0.0..1.0_f64,
    ) {
        let [outside, queue, prefill, decode] = slower;
        let mut case = Case::slower(Times { outside, queue, prefill, decode, engine_decode: decode / 2.0 });
        case.in_flight = in_flight;
        case.tokens = tokens;
        case.usage.processes = vec![process("over/router 1 r", None, cores)];
        case.usage.gpus = vec![gpu(0, 1000.0), gpu(1, 1000.0 - 400.0 * cache)];
        case.more = vec![("kv_usage.max", cache)];
        // Asserted where it is made.
        let loss = case.loss();
        prop_assert!(loss.shares.windows(2).all(|w| w[0].share >= w[1].share));
        prop_assert!(!loss.text.contains("NaN"), "{}", loss.text);
    }
}
