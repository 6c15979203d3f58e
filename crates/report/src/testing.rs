//! A made-up run for tests: three deployments under three levels, one point not to be trusted, one with
//! metrics missing, one long name.

use crate::spec::{Kind, ReportSpec};
use scalebeam_model::analysis::fairness::ways::{Way, Ways};
use scalebeam_model::analysis::fairness::{ClassFairness, Evenness, Fairness, Slowdown, USUAL};
use scalebeam_model::analysis::pareto::{
    Axes, Front, FrontPoint, Neighbour, ReadOut, USUAL_X, USUAL_Y,
};
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::fingerprint::Fact;
use scalebeam_model::metrics::Timeline;
use scalebeam_model::plan::{
    Estimate, Level, Mode, ModelPlan, PLAN_FORMAT, Plan, PointPlan, TrialPlan,
};
use scalebeam_model::ran::{Ran, RanHost, RanProcess};
use scalebeam_model::request::Phase;
use scalebeam_model::results::{
    Comparison, ComparisonVerdict, Distribution, Estimate as Range, ExpectResult, MetricValue,
    Metrics, PointResult, RESULTS_FORMAT, Results, Skipped, TrialResult, Verdict,
};
use scalebeam_model::trust::{Reason, Trust, TrustLevel};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, CachePolicy, Lengths, Source, Workload};
use std::collections::BTreeMap;

pub(crate) const DEPLOYMENTS: [(&str, u32, f64); 3] =
    [("single-4gpu", 4, 1.0), ("dual-8gpu-tp4-pp2-over-ray", 8, 0.86), ("dual-2x4gpu", 8, 1.94)];
const LEVELS: [u32; 3] = [16, 64, 256];

fn spread(mean: f64) -> MetricValue {
    MetricValue::Distribution(Distribution {
        mean,
        std: mean * 0.2,
        min: mean * 0.5,
        p1: mean * 0.55,
        p5: mean * 0.6,
        p25: mean * 0.85,
        p50: mean * 0.96,
        p75: mean * 1.1,
        p90: mean * 1.4,
        p95: mean * 1.7,
        p99: mean * 2.3,
        p999: mean * 2.6,
        max: mean * 2.75,
        count: 480,
    })
}

fn metrics(speed: f64, gpus: u32, users: u32, success: f64) -> Metrics {
    let users = f64::from(users);
    let busy = users / (users + 40.0 * speed);
    let output = 3100.0 * speed * busy;
    let tpot = 21.0 + 30.0 * busy / speed;
    let ttft = 140.0 + 9.0 * users / speed;
    let number = MetricValue::Number;
    [
        ("rps", number(output / 256.0)),
        ("output_tps", number(output)),
        ("output_tps_steady", number(output * 1.06)),
        ("total_tps", number(output * 5.0)),
        ("output_tps_per_gpu", number(output / f64::from(gpus))),
        ("success_rate", number(success)),
        ("concurrency_reached", number(users * 0.96)),
        ("concurrency_effective_ratio", number(0.96)),
        ("wall_s", number(480.0 * 256.0 / output)),
        ("ttft_ms", spread(ttft)),
        ("tpot_ms", spread(tpot)),
        ("itl_ms", spread(tpot)),
        ("e2e_ms", spread(ttft + 255.0 * tpot)),
        ("interactivity_tps", spread(1000.0 / tpot)),
        ("prompt_tokens", spread(1024.0)),
        ("output_tokens", spread(256.0)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Up, level with a wobble, and down.
fn timeline(speed: f64, users: u32) -> Timeline {
    let buckets = if speed > 1.0 { 48 } else { 60 };
    let share = |i: usize| {
        let ramp = (i as f64 / 4.0).min((buckets - i) as f64 / 6.0).min(1.0);
        ramp * (0.97 + 0.03 * ((i * 7) % 5) as f64 / 4.0)
    };
    let of = |most: f64| (0..buckets).map(|i| most * share(i)).collect::<Vec<f64>>();
    Timeline {
        bucket_s: 2.0,
        wall_s: 2.0 * buckets as f64 - 0.7,
        in_flight: of(f64::from(users)),
        sent: vec![8; buckets],
        completed: vec![8; buckets],
        failed: vec![0; buckets],
        output_tokens: Some(of(6_200.0 * speed)),
    }
}

fn point((name, gpus, speed): (&str, u32, f64), users: u32) -> PointResult {
    let is_bad = users == 256 && gpus == 8 && speed < 1.0;
    let failed: u64 = if is_bad { 81 } else { 0 };
    let success = 1.0 - failed as f64 / 480.0;
    let mut trust = Trust::default();
    if is_bad {
        trust.add(Reason {
            code: "failures".to_owned(),
            level: TrustLevel::Invalid,
            message: "81 of 480 requests were not completed, so the rates count survivors only"
                .to_owned(),
            next_step: "raise `timeout` or lower the concurrency, and look at logs/".to_owned(),
        });
    } else if users == 16 && speed > 1.5 {
        trust.add(Reason {
            code: "short".to_owned(),
            level: TrustLevel::Caution,
            message: "the measurement took 9 s; ramp and tail are a large part of it".to_owned(),
            next_step: "ask for more requests".to_owned(),
        });
    }
    let mut values = metrics(speed, gpus, users, success);
    if users == 16 && speed > 1.5 {
        for name in ["ttft_ms", "tpot_ms", "itl_ms", "interactivity_tps"] {
            values.remove(name);
        }
    }
    let trial = |(i, f): (u32, f64)| TrialResult {
        usage: None,
        number: i,
        bring_up: Some(1),
        metrics: metrics(speed * f, gpus, users, success),
        timeline: (!(users == 16 && speed > 1.5)).then(|| timeline(speed * f, users)),
        outcomes: BTreeMap::new(),
        engines: Vec::new(),
    };
    let mut outcomes = BTreeMap::from([("completed".to_owned(), 480 - failed)]);
    let mut failures = BTreeMap::new();
    if failed > 0 {
        outcomes.insert("timed_out".to_owned(), failed);
        failures.insert("timeout".to_owned(), failed);
    }
    PointResult {
        deployment: name.to_owned(),
        load: "users".to_owned(),
        level: format!("c{users}"),
        mode: Mode::Closed,
        concurrency: Some(users),
        rate_rps: None,
        batch: None,
        is_probe: false,
        gpus,
        metrics: values,
        outcomes,
        failures,
        classes: BTreeMap::new(),
        targets: BTreeMap::new(),
        turns: BTreeMap::new(),
        by_target: Vec::new(),
        slo: None,
        account: None,
        trust,
        trials: [(1, 0.97), (2, 1.0), (3, 1.04)].into_iter().map(trial).collect(),
    }
}

fn comparisons(points: &[PointResult]) -> Vec<Comparison> {
    let mut rows = Vec::new();
    for metric in ["output_tps_per_gpu", "rps", "ttft_ms.p50", "e2e_ms.p95"] {
        for p in points.iter().filter(|p| p.deployment != DEPLOYMENTS[0].0) {
            let base =
                points.iter().find(|b| b.deployment == DEPLOYMENTS[0].0 && b.level == p.level);
            let Some(base) = base else { continue };
            let (Some(value), Some(baseline_value)) = (p.value(metric), base.value(metric)) else {
                continue;
            };
            let ratio = value / baseline_value;
            let is_more_better = !metric.contains("_ms");
            rows.push(Comparison {
                drawn: Default::default(),
                metric: metric.to_owned(),
                load: p.load.clone(),
                level: p.level.clone(),
                deployment: p.deployment.clone(),
                baseline: DEPLOYMENTS[0].0.to_owned(),
                value,
                baseline_value,
                ratio: scalebeam_model::results::Estimate {
                    point: ratio,
                    low: ratio * 0.95,
                    high: ratio * 1.04,
                    confidence: 0.95,
                    method: "bootstrap over trials".to_owned(),
                },
                verdict: match () {
                    () if p.trust.level == TrustLevel::Invalid => ComparisonVerdict::NotTrusted,
                    () if ratio * 0.95 < 1.0 && ratio * 1.04 > 1.0 => {
                        ComparisonVerdict::NoDifferenceSeen
                    }
                    () if (ratio > 1.0) == is_more_better => ComparisonVerdict::Better,
                    () => ComparisonVerdict::Worse,
                },
                p_value: None,
                detectable: None,
                trials_to_decide: None,
            });
        }
    }
    rows
}

/// What a deployment ran on, with GPUs or without.
fn ran(deployment: &str, on_gpus: bool) -> Ran {
    let known = |text: &str| Fact::Known(text.to_owned());
    let gpus = |text| if on_gpus { known(text) } else { Fact::absent("it computes on no GPU") };
    let versions = [("python", "3.12.3"), ("vllm", "0.11.0")];
    let versions = versions.map(|(name, version)| (name.to_owned(), version.to_owned()));
    let packages = [("vllm".to_owned(), Fact::Known(BTreeMap::from(versions)))];
    let words = ["vllm", "serve", "--kv-transfer-config", r#"{"kv_role":"kv_both"}"#];
    Ran {
        deployment: deployment.to_owned(),
        sessions: vec![0],
        bring_ups: vec![1],
        engine: known("0.11.0"),
        hosts: vec![RanHost {
            host: "a".to_owned(),
            kernel: known("Linux 6.1.0"),
            gpus: gpus("4 x NVIDIA H100 80GB HBM3"),
            gpu_driver: gpus("550.54.15"),
            cuda: Fact::absent("nvidia-smi is old"),
            packages: if on_gpus { BTreeMap::from(packages) } else { BTreeMap::new() },
        }],
        processes: vec![RanProcess {
            process: format!("{deployment}/0/serve"),
            host: "a".to_owned(),
            command: Fact::Known(words.map(str::to_owned).to_vec()),
        }],
    }
}

/// The made-up run.
pub(crate) fn run() -> (Results, Plan) {
    let points: Vec<PointResult> =
        DEPLOYMENTS.into_iter().flat_map(|d| LEVELS.map(|users| point(d, users))).collect();
    let verdict = |level: &str, best: Option<&str>, text: &str| Verdict {
        load: "users".to_owned(),
        level: level.to_owned(),
        metric: "output_tps_per_gpu".to_owned(),
        best: best.map(str::to_owned),
        text: text.to_owned(),
        more: Vec::new(),
    };
    let results = Results {
        format: RESULTS_FORMAT,
        name: "r1-32b-4gpu-vs-8gpu".to_owned(),
        run: "20261121T101500Z-r1-32b-4gpu-vs-8gpu".to_owned(),
        incomplete: false,
        comparisons: comparisons(&points),
        searches: Vec::new(),
        scaling: Vec::new(),
        losses: Vec::new(),
        fairness: fairness(&points),
        ways: ways(),
        fronts: vec![front(&points)],
        points,
        verdicts: vec![
            verdict(
                "c16",
                Some("single-4gpu"),
                "single-4gpu gives the most tokens per GPU; dual-2x4gpu follows at 0.63x [0.60, 0.66].",
            ),
            verdict(
                "c256",
                None,
                "No deployment can be called best: one of the points is not trusted.",
            ),
        ],
        expects: vec![ExpectResult {
            what: "success_rate == 1".to_owned(),
            point: "dual-8gpu-tp4-pp2-over-ray/users/c256".to_owned(),
            value: Some(0.831_25),
            holds: false,
            absent: None,
            not_checked: false,
            warn_only: false,
        }],
        unrecorded: Vec::new(),
        skipped: vec![Skipped {
            deployment: "quad-16gpu".to_owned(),
            reason: "host 'c' did not answer\n    tried: ssh c true\n\nhint: see ssh_config(5)"
                .to_owned(),
        }],
        ran: vec![ran(DEPLOYMENTS[0].0, true), ran(DEPLOYMENTS[1].0, false)],
    };
    let plan = plan(&results);
    (results, plan)
}

fn plan(results: &Results) -> Plan {
    let workload = Workload {
        name: "isl1024-osl256".to_owned(),
        api: Api::Chat,
        stream: true,
        temperature: None,
        system: None,
        force_len: true,
        body: serde_json::Map::new(),
        seed: 7,
        cache: CachePolicy::default(),
        source: Source::Synthetic { lengths: Lengths::fixed(1024, 256), entries: None },
    };
    let phase = |users: u32| PhasePlan {
        phase: Phase::Measure,
        shape: LoadShape::closed(users),
        requests: Some(480),
        duration: None,
        timeout: Nanos::from_secs(180),
        targets: 1,
        balance: Balance::LeastInflight,
        cancel: None,
        max_prefill: None,
        sessions: None,
    };
    let points = results.points.iter().map(|p| PointPlan {
        id: format!("{}/{}/{}", p.deployment, p.load, p.level),
        deployment: p.deployment.clone(),
        load: p.load.clone(),
        mode: p.mode,
        level: Level {
            label: p.level.clone(),
            concurrency: p.concurrency,
            rate_rps: None,
            batch: None,
        },
        workload: workload.clone(),
        batch: 1,
        warmup: None,
        measure: phase(p.concurrency.unwrap_or(1)),
        pause: Nanos::ZERO,
        stop_oversaturated: false,
        slo: None,
        trials: vec![TrialPlan { number: 1, warmup_seed: 1, measure_seed: 2 }],
    });
    Plan {
        telemetry: scalebeam_model::telemetry::TelemetryPlan::default(),
        format: PLAN_FORMAT,
        name: results.name.clone(),
        about: Some("4 GPUs of one node against 8 of two".to_owned()),
        model: ModelPlan {
            id: "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B".to_owned(),
            served: "llm".to_owned(),
            revision: None,
            tokenizer: None,
            dtype: None,
            max_len: None,
        },
        hosts: Vec::new(),
        sources: Vec::new(),
        deployments: Vec::new(),
        points: points.collect(),
        interleave: Default::default(),
        searches: Vec::new(),
        notes: Vec::new(),
        prices: None,
        limit: scalebeam_model::limit::Limit::default(),
        estimate: Estimate { wall: Nanos::ZERO, cost: None, basis: String::new() },
    }
}

/// Six deployments under eight levels, to see what happens where there is little room.
pub(crate) fn crowded() -> (Results, Plan) {
    let (mut results, _) = run();
    let names = ["a-name-that-goes-on-and-on-tp8-pp2", "b", "c-2x4", "d-4x2", "e-pd-1p3d", "f-8x1"];
    results.points = names
        .iter()
        .zip(1_u32..)
        .flat_map(|(name, i)| {
            let speed = 0.7 + 0.25 * f64::from(i);
            [1, 2, 4, 8, 16, 32, 64, 128].map(|users| point((name, i, speed), users))
        })
        .collect();
    results.fronts = vec![front(&results.points)];
    results.fairness = fairness(&results.points);
    let plan = plan(&results);
    (results, plan)
}

/// Where the front is read.
const TARGETS: [f64; 2] = [30.0, 200.0];

/// The front of the points, and what two of the deployments give at targets.
fn front(points: &[PointResult]) -> Front {
    let mut all: Vec<FrontPoint> = points
        .iter()
        .map(|p| FrontPoint {
            deployment: p.deployment.clone(),
            load: p.load.clone(),
            level: p.level.clone(),
            x: p.value(USUAL_X),
            y: p.value(USUAL_Y),
            is_on_front: false,
            trust: p.trust.level,
        })
        .collect();
    let axes = Axes::of(USUAL_X, USUAL_Y).unwrap();
    let place = |p: &FrontPoint| p.x.zip(p.y).filter(|_| p.trust < TrustLevel::Invalid);
    let placed: Vec<usize> = (0..all.len()).filter(|i| place(&all[*i]).is_some()).collect();
    let places: Vec<(f64, f64)> = placed.iter().filter_map(|i| place(&all[*i])).collect();
    for (i, is_on_front) in placed.into_iter().zip(axes.front(&places)) {
        all[i].is_on_front = is_on_front;
    }
    let neighbour = |i: usize| Neighbour {
        load: all[i].load.clone(),
        level: all[i].level.clone(),
        x: all[i].x.unwrap(),
        y: all[i].y.unwrap(),
    };
    let read = |at, deployment: &str, y: Option<f64>, absent: Option<&str>| ReadOut {
        at,
        deployment: deployment.to_owned(),
        y,
        between: if y.is_some() { vec![neighbour(1), neighbour(0)] } else { Vec::new() },
        ratio: y.filter(|_| deployment != all[0].deployment).map(|_| 0.86),
        baseline: (deployment != all[0].deployment).then(|| all[0].deployment.clone()),
        absent: absent.map(str::to_owned),
    };
    let outside = Some("interactivity_tps.p50 of 200 was not measured");
    let names = [all[0].deployment.clone(), all[all.len() / 2].deployment.clone()];
    let read_outs = vec![
        read(TARGETS[0], &names[0], Some(402.0), None),
        read(TARGETS[0], &names[1], Some(346.0), None),
        read(TARGETS[1], &names[0], None, outside),
        read(TARGETS[1], &names[1], None, outside),
    ];
    Front {
        x: USUAL_X.to_owned(),
        y: USUAL_Y.to_owned(),
        deploy: Vec::new(),
        load: Vec::new(),
        at: TARGETS.to_vec(),
        workload: "isl1024-osl256".to_owned(),
        points: all,
        read_outs,
    }
}

/// Each deployment with a class beside another under its second level; one has no yardstick.
fn fairness(points: &[PointResult]) -> Vec<Fairness> {
    let mut names: Vec<&str> = points.iter().map(|p| p.deployment.as_str()).collect();
    names.dedup();
    let estimate = |point: f64| Range {
        point,
        low: point * 0.8,
        high: point * 1.3,
        confidence: 0.95,
        method: "bootstrap over 20 and 20 whole trials".to_owned(),
    };
    let slowdown = |metric: &str, times: f64, is_known: bool| Slowdown {
        metric: metric.to_owned(),
        beside: is_known.then_some(52.0 * times),
        alone: is_known.then_some(52.0),
        ratio: is_known.then(|| estimate(times)),
        absent: (!is_known).then(|| "load 'alone' was not measured here".to_owned()),
    };
    let of = |(i, name): (usize, &&str)| {
        let is_known = i != 1;
        let slowdowns = USUAL.iter().zip([2.1, 4.4, 1.3, 1.6]);
        let slowdowns = slowdowns.map(|(m, x)| slowdown(m, x / (1.0 + i as f64 * 0.4), is_known));
        let class = |name: &str, overtaken, slowdowns| ClassFairness {
            class: name.to_owned(),
            requests: 40,
            overtaken,
            slowdowns,
        };
        Fairness {
            deployment: (*name).to_owned(),
            load: "users".to_owned(),
            level: "c64".to_owned(),
            by: Some("short".to_owned()),
            alone: Some("alone".to_owned()),
            alone_level: is_known.then(|| "c2".to_owned()),
            evenness: Some(Evenness {
                jain: 0.61 + 0.1 * i as f64 / names.len() as f64,
                max_over_min: 6.2,
                requests: 80,
                of: "token_latency_ms".to_owned(),
            }),
            classes: vec![class("long", 2, Vec::new()), class("short", 31, slowdowns.collect())],
            trust: if i == 2 { TrustLevel::Invalid } else { TrustLevel::Sound },
        }
    };
    names.iter().enumerate().map(of).collect()
}

fn ways() -> Vec<Ways> {
    let way = |mode, load: &str, tps: f64, speedup: Option<f64>| Way {
        mode,
        load: load.to_owned(),
        level: "c1".to_owned(),
        output_tps: Some(tps),
        e2e_ms_p50: Some(812.0),
        speedup: speedup.map(|point| Range {
            point,
            low: point * 0.97,
            high: point * 1.02,
            confidence: 0.95,
            method: "Welch over 3 and 3 trials, on logarithms".to_owned(),
        }),
        trust: TrustLevel::Sound,
    };
    vec![Ways {
        deployment: DEPLOYMENTS[0].0.to_owned(),
        workload: "ten".to_owned(),
        prompts: 10,
        ways: vec![
            way(Mode::Batch, "exp2-batch", 402.0, Some(6.5)),
            way(Mode::Burst, "exp2-concurrent", 396.0, Some(6.4)),
            way(Mode::Serial, "exp2-serial", 61.9, None),
        ],
    }]
}

/// One report of each kind, and some odd ones.
pub(crate) fn specs() -> Vec<ReportSpec> {
    let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let seed1 = ["rps", "output_tps", "e2e.mean", "e2e.p95", "ttft.mean", "success_rate"];
    let seed4 =
        ["output_tps_per_gpu", "e2e.mean", "interactivity_tps", "ttft.mean", "output_tps_per_kw"];
    let of = |kind| ReportSpec { kind, ..ReportSpec::default() };
    vec![
        ReportSpec { metrics: names(&seed1), by: Some("load".to_owned()), ..of(Kind::Panels) },
        ReportSpec { metrics: names(&seed4), by: Some("point".to_owned()), ..of(Kind::Panels) },
        ReportSpec { baseline: Some("single-4gpu".to_owned()), ..of(Kind::Compare) },
        ReportSpec { title: "How it scales".to_owned(), ..of(Kind::Curve) },
        ReportSpec {
            x: Some("interactivity_tps".to_owned()),
            y: names(&["output_tps_per_gpu"]),
            title: "Throughput against interactivity".to_owned(),
            ..of(Kind::Curve)
        },
        ReportSpec { metrics: names(&["rps", "ttft.p95", "output_tps_per_kw"]), ..of(Kind::Table) },
        ReportSpec {
            metrics: names(&["rps"]),
            deploy: names(&["dual-2x4gpu"]),
            ..of(Kind::Panels)
        },
        of(Kind::Timeline),
        ReportSpec { at: TARGETS.to_vec(), ..of(Kind::Pareto) },
        ReportSpec {
            alone: Some("alone".to_owned()),
            mixed: Some("users".to_owned()),
            by: Some("short".to_owned()),
            ..of(Kind::Fairness)
        },
    ]
}
