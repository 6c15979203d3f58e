//! One deployment against another of another run: what differs is told first, what is unlike is refused.

use super::*;
use crate::analysis::versus::{Asked, Contender, NotComparable, Provenance, Versus, versus};
use crate::fingerprint::Fact;
use crate::plan::ProcessPlan;
use crate::ran::{Ran, RanHost};
use crate::results::Drawn;

/// A run of one deployment, `tpot_us` for each of its trials.
struct OneRun {
    plan: Plan,
    point: PointPlan,
    trials: Vec<TrialRecords>,
    ran: Vec<Ran>,
}

impl OneRun {
    fn new(name: &str, tpot_us: &[u64]) -> Self {
        let mut deployment = deployment(name, 4);
        deployment.instances = vec![instance(4)];
        let trials =
            tpot_us.iter().zip(1..).map(|(us, n)| trial(n, 60, *us, 1)).collect::<Vec<_>>();
        let point = point_plan(name, 2, u32::try_from(trials.len()).unwrap());
        Self { plan: plan(vec![deployment]), point, trials, ran: vec![ran(name, "0.11.0")] }
    }

    fn deployment(&mut self) -> &mut DeploymentPlan {
        &mut self.plan.deployments[0]
    }
}

fn ran(deployment: &str, version: &str) -> Ran {
    let known = |text: &str| Fact::Known(text.to_owned());
    let packages = [("python", "3.12"), ("vllm", version)];
    let packages = packages.map(|(name, v)| (name.to_owned(), v.to_owned()));
    let host = RanHost {
        host: "box".into(),
        kernel: known("Linux 6.1"),
        gpus: known("4 x H100"),
        gpu_driver: known("550.54"),
        cuda: known("12.8"),
        packages: [("vllm".to_owned(), Fact::Known(BTreeMap::from(packages)))].into(),
    };
    Ran {
        deployment: deployment.into(),
        sessions: vec![0],
        bring_ups: vec![1],
        engine: known(version),
        hosts: vec![host],
        processes: vec![],
    }
}

/// Records of the `nth` run: no two runs have requests of the same nanoseconds.
fn records_of(run: &OneRun, nth: u64) -> Vec<MeasuredPoint<'_>> {
    let mut trials = run.trials.clone();
    trials.iter_mut().flat_map(|t| &mut t.records).for_each(|r| r.finished_at += Nanos(nth));
    vec![MeasuredPoint { plan: &run.point, trials }]
}

fn hold(a: &OneRun, b: &OneRun, asked: &Asked<'_>) -> Result<Versus, NotComparable> {
    let measured = [(a, 0), (b, 1)].map(|(run, nth)| records_of(run, nth));
    let results = [0, 1].map(|i| {
        let run = [a, b][i];
        let frame = Frame { run: ["r0", "r1"][i], ..Frame::default() };
        let results = analyse(&run.plan, &measured[i], &frame);
        Results { ran: run.ran.clone(), ..results }
    });
    let [of_a, of_b] = [0, 1].map(|i| {
        let run = [a, b][i];
        let deployment = run.plan.deployments[0].name.as_str();
        Contender {
            deployment,
            plan: &run.plan,
            measured: &measured[i],
            results: &results[i],
            tool: "1",
        }
    });
    versus(&[of_a], &[of_b], asked)
}

fn told(versus: &Versus) -> Vec<(&str, &str, &str)> {
    versus.differences.iter().map(|d| (d.what.as_str(), d.a.as_str(), d.b.as_str())).collect()
}

const PLAIN: [u64; 4] = [1_000, 1_010, 995, 1_004];
const SLOWER: [u64; 4] = [1_100, 1_111, 1_095, 1_104];

#[test]
fn a_slower_version_is_a_regression_and_is_all_that_differs() {
    let (old, mut new) = (OneRun::new("a", &PLAIN), OneRun::new("a", &SLOWER));
    new.ran = vec![ran("a", "0.12.0")];
    let found = hold(&old, &new, &Asked::default()).unwrap();
    assert_eq!(told(&found), [("engine version", "0.11.0", "0.12.0")]);
    assert_eq!((found.provenance, found.not_known.len()), (Provenance::Single, 0));
    assert!(found.has_regression() && found.has_difference() && found.is_trusted());
    assert_eq!(found.points[0].trials, (4, 4));
    let tpot = found.comparisons().find(|c| c.metric == "tpot.p50").unwrap();
    assert!((tpot.ratio.point - 1.1).abs() < 0.005 && tpot.ratio.low > 1.05, "{tpot:?}");
    assert_eq!(tpot.verdict, ComparisonVerdict::Worse);
    // The other way round nothing is worse.
    let found = hold(&new, &old, &Asked::default()).unwrap();
    assert!(!found.has_regression() && found.has_difference());
}

/// Of records that cannot be read nobody knows who counted the tokens: that is no other question.
#[test]
fn a_damaged_side_is_told_as_damaged_and_not_as_asked_otherwise() {
    let (a, mut b) = (OneRun::new("a", &PLAIN), OneRun::new("a", &SLOWER));
    for trial in &mut b.trials {
        trial.records.clear();
        trial.damaged = Some("its SHA-256 differs".to_owned());
    }
    let found = hold(&a, &b, &Asked::default()).unwrap();
    let [point] = &found.points[..] else { panic!("{found:#?}") };
    assert!(point.comparisons.is_empty() && !found.is_trusted(), "{point:#?}");
    assert!(point.reasons.iter().any(|r| r.contains("invalid (damaged)")), "{:?}", point.reasons);
}

#[test]
fn what_is_alike_within_a_margin_is_neither() {
    let (a, b) = (OneRun::new("a", &PLAIN), OneRun::new("a", &[1_002, 1_008, 997, 1_003]));
    let asked = Asked { margin: Some(0.03), metrics: vec!["output_tps", "tpot.p50"], force: false };
    let found = hold(&a, &b, &asked).unwrap();
    assert_eq!(found.provenance, Provenance::Nothing);
    let verdicts: Vec<_> = found.comparisons().map(|c| (c.metric.as_str(), c.verdict)).collect();
    let alike = ComparisonVerdict::Equivalent;
    assert_eq!(verdicts, [("output_tps", alike), ("tpot.p50", alike)]);
    assert!(!found.has_difference());
}

#[test]
fn a_changed_shape_is_one_difference_and_a_changed_flag_is_told_with_its_value() {
    let with = |args: &[&str], tp: u32| {
        let mut run = OneRun::new("a", &PLAIN);
        run.deployment().instances[0].tp = tp;
        run.deployment().processes = vec![ProcessPlan {
            id: "a/0/serve".into(),
            instance: Some(0),
            host: "box".into(),
            program: "vllm".into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: BTreeMap::new(),
            ports: vec![],
            gpus: vec![],
            rank: 0,
            log: String::new(),
            after: None,
            files: BTreeMap::new(),
        }];
        run
    };
    let plain = with(&["serve", "--tp", "4", "--max-num-seqs", "64"], 4);
    let flag = with(&["serve", "--tp", "4", "--max-num-seqs", "128"], 4);
    let found = hold(&plain, &flag, &Asked::default()).unwrap();
    assert_eq!(told(&found), [("command line", "--max-num-seqs 64", "--max-num-seqs 128")]);
    let shape = with(&["serve", "--tp", "8", "--max-num-seqs", "64"], 8);
    let found = hold(&plain, &shape, &Asked::default()).unwrap();
    let (a, b) = ("1 x aggregated tp4, 4 GPUs", "1 x aggregated tp8, 4 GPUs");
    assert_eq!(told(&found), [("shape", a, b)]);
    let mut both = with(&["serve", "--tp", "8", "--max-num-seqs", "64"], 8);
    both.ran = vec![ran("a", "0.12.0")];
    assert_eq!(hold(&plain, &both, &Asked::default()).unwrap().provenance, Provenance::Several);
}

#[test]
fn what_is_not_known_is_never_held_to_be_the_same() {
    let (a, mut b) = (OneRun::new("a", &PLAIN), OneRun::new("a", &PLAIN));
    b.ran = vec![];
    let found = hold(&a, &b, &Asked::default()).unwrap();
    assert_eq!(found.provenance, Provenance::Unknown);
    let why: Vec<&str> = found.not_known.iter().map(|n| n.why.as_str()).collect();
    assert!(!why.is_empty() && why.iter().all(|w| *w == "of B: what ran was not kept"), "{why:?}");
}

#[test]
fn sides_that_were_not_asked_the_same_are_refused_unless_it_is_forced() {
    let plain = OneRun::new("a", &PLAIN);
    let refused = |change: fn(&mut OneRun), what: &str| {
        let mut other = OneRun::new("a", &PLAIN);
        change(&mut other);
        let error = hold(&plain, &other, &Asked::default()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        let asked = Asked { force: true, ..Asked::default() };
        let forced = hold(&plain, &other, &asked).unwrap();
        assert!(forced.forced);
        // Every number is marked, whatever it is that differs.
        assert!(forced.points.iter().all(|p| !p.unlike.is_empty()));
    };
    refused(|run| run.deployment().model = "other".into(), "model (m and other)");
    refused(|run| run.plan.model.tokenizer = Some("t".into()), "tokenizer (not given and t)");
    let longer = |run: &mut OneRun| {
        run.trials.iter_mut().flat_map(|t| &mut t.records).for_each(|r| r.output_tokens = Some(12));
    };
    refused(longer, "output tokens under load/c2 (10.0 on average and 12.0)");
    let cached = |run: &mut OneRun| {
        run.trials.iter_mut().flat_map(|t| &mut t.records).for_each(|r| {
            r.cached_prompt_tokens = Some(4);
        });
    };
    // Of one side it is not known: nothing can be said.
    let mut other = OneRun::new("a", &PLAIN);
    cached(&mut other);
    assert!(hold(&plain, &other, &Asked::default()).is_ok());
    let mut none = OneRun::new("a", &PLAIN);
    none.trials.iter_mut().flat_map(|t| &mut t.records).for_each(|r| {
        r.cached_prompt_tokens = Some(0);
    });
    let error = hold(&none, &other, &Asked::default()).unwrap_err().to_string();
    assert!(error.contains("prefix_hit_ratio under load/c2 (0 % and 80 %)"), "{error}");
}

/// What broke off before the server counted was counted here, and makes no other workload.
#[test]
fn a_request_that_broke_off_says_nothing_of_who_counts_tokens() {
    let (whole, mut died) = (OneRun::new("a", &PLAIN), OneRun::new("a", &PLAIN));
    let last = &mut died.trials[3].records[59];
    (last.outcome, last.token_source) = (Outcome::Failed, Some(TokenSource::Chunks));
    hold(&whole, &died, &Asked::default()).unwrap();
    died.trials[3].records[59].outcome = Outcome::Completed;
    let error = hold(&whole, &died, &Asked::default()).unwrap_err().to_string();
    assert!(error.contains("who counts tokens under load/c2 (usage and usage, chunks)"), "{error}");
}

#[test]
fn costs_of_two_currencies_are_not_compared() {
    let priced = |currency: &str| {
        let mut run = OneRun::new("a", &PLAIN);
        run.deployment().price_per_hour = Some(4.0);
        let currency = Some(currency.to_owned());
        run.plan.prices = Some(crate::cost::Prices { currency, ..Default::default() });
        run
    };
    let (dollars, euros) = (priced("USD"), priced("EUR"));
    let asked = Asked { metrics: vec!["cost"], ..Asked::default() };
    let error = hold(&dollars, &euros, &asked).unwrap_err().to_string();
    assert!(error.contains("currency (USD and EUR)"), "{error}");
    assert!(hold(&dollars, &dollars, &asked).is_ok());
    assert!(hold(&dollars, &euros, &Asked::default()).is_ok(), "no cost is asked for");
}

/// A comparison of a run with itself would always find nothing.
#[test]
fn a_run_is_not_on_both_sides() {
    let run = OneRun::new("a", &PLAIN);
    let measured = [MeasuredPoint { plan: &run.point, trials: run.trials.clone() }];
    let results = analyse(&run.plan, &measured, &Frame { run: "r", ..Frame::default() });
    let results = Results { ran: run.ran.clone(), ..results };
    let of = |measured| Contender {
        deployment: "a",
        plan: &run.plan,
        measured,
        results: &results,
        tool: "1",
    };
    let asked = Asked { force: true, ..Asked::default() };
    let error = versus(&[of(&measured)], &[of(&measured)], &asked).unwrap_err().to_string();
    assert_eq!(error, "a of run r is on both sides");
    // A run of that name that another machine began in the same second.
    let mut trials = run.trials.clone();
    trials[0].records[0].finished_at = Nanos(1);
    let others = [MeasuredPoint { plan: &run.point, trials }];
    assert!(versus(&[of(&measured)], &[of(&others)], &asked).is_ok());
}

#[test]
fn loads_that_only_one_has_met_are_named() {
    let (a, mut b) = (OneRun::new("a", &PLAIN), OneRun::new("b", &PLAIN));
    b.point.load = "other".into();
    let error = hold(&a, &b, &Asked::default()).unwrap_err().to_string();
    let want =
        "a and b met no level of a load in common: the first met load/c2, the second met other/c2";
    assert_eq!(error, want);
}

#[test]
fn a_point_that_is_not_trusted_stays_so() {
    let (a, mut b) = (OneRun::new("a", &PLAIN), OneRun::new("a", &SLOWER));
    for r in b.trials[0].records.iter_mut().take(20) {
        r.outcome = Outcome::TimedOut;
        r.failure =
            Some(Failure { class: FailureClass::Timeout, status: None, detail: String::new() });
    }
    let found = hold(&a, &b, &Asked::default()).unwrap();
    assert!(!found.is_trusted() && !found.has_difference());
    assert!(found.points[0].reasons.iter().any(|r| r.starts_with("B: invalid (timeouts)")));
    assert!(found.comparisons().all(|c| c.verdict == ComparisonVerdict::NotTrusted));
}

/// `hold` of several runs a side.
fn hold_all(sides: [&[&OneRun]; 2], asked: &Asked<'_>) -> Result<Versus, NotComparable> {
    let all: Vec<&OneRun> = sides.concat();
    let measured: Vec<Vec<MeasuredPoint<'_>>> =
        all.iter().zip(0..).map(|(run, nth)| records_of(run, nth)).collect();
    let names: Vec<String> = (0..all.len()).map(|n| format!("r{n}")).collect();
    let results: Vec<Results> = (0..all.len())
        .map(|n| {
            let frame = Frame { run: &names[n], ..Frame::default() };
            Results { ran: all[n].ran.clone(), ..analyse(&all[n].plan, &measured[n], &frame) }
        })
        .collect();
    let contenders: Vec<Contender<'_>> = (0..all.len())
        .map(|n| Contender {
            deployment: &all[n].plan.deployments[0].name,
            plan: &all[n].plan,
            measured: &measured[n],
            results: &results[n],
            tool: "1",
        })
        .collect();
    let (a, b) = contenders.split_at(sides[0].len());
    versus(a, b, asked)
}

/// A thousand trials of one run are one draw of what runs differ by.
#[test]
fn each_run_of_a_side_counts_once_and_its_doubts_stay() {
    let of = |middle: u64| OneRun::new("a", &[middle, middle + 2, middle - 2]);
    let (a, b) = ([of(1_000), of(1_040)], [of(1_010), of(1_050)]);
    let found = hold_all([&[&a[0], &a[1]], &[&b[0], &b[1]]], &Asked::default()).unwrap();
    assert_eq!((found.a.run.as_str(), found.a.more.as_slice()), ("r0", &["r1".to_owned()][..]));
    assert_eq!((found.points[0].trials, found.points[0].runs), ((6, 6), (2, 2)));
    assert_eq!(found.points[0].not_held, None);
    let tpot = found.comparisons().find(|c| c.metric == "tpot.p50").unwrap();
    assert!(tpot.ratio.method.starts_with("Student over 2 and 2 runs"), "{tpot:?}");
    assert_eq!((tpot.drawn, tpot.verdict), (Drawn::Runs, ComparisonVerdict::NoDifferenceSeen));
    // A single pair of them says that it is sure, and what it leaves out.
    let pair = hold_all([&[&a[0]], &[&b[1]]], &Asked::default()).unwrap();
    let tpot = pair.comparisons().find(|c| c.metric == "tpot.p50").unwrap();
    assert_eq!((tpot.drawn, tpot.verdict), (Drawn::Trials, ComparisonVerdict::Worse));
    assert!(pair.points[0].not_held.as_ref().unwrap().contains("one bring-up to the next"));
    // The only run of a side does not count as one: its trials do, and that is said.
    let found = hold_all([&[&a[0], &a[1]], &[&b[0]]], &Asked::default()).unwrap();
    let tpot = found.comparisons().find(|c| c.metric == "tpot.p50").unwrap();
    assert_eq!(tpot.drawn, Drawn::Trials);
    assert!(tpot.ratio.method.starts_with("Welch over 3 and 6 trials"), "{tpot:?}");
    let not_held = found.points[0].not_held.as_ref().unwrap();
    assert!(not_held.starts_with("what differs from one run to the next, since a side has only"));
    // One that is not trusted makes its side so, by name.
    let mut bad = of(1_050);
    bad.trials[0].records.iter_mut().take(20).for_each(|r| {
        r.outcome = Outcome::TimedOut;
        r.failure =
            Some(Failure { class: FailureClass::Timeout, status: None, detail: String::new() });
    });
    let found = hold_all([&[&a[0], &a[1]], &[&b[0], &bad]], &Asked::default()).unwrap();
    assert!(!found.is_trusted());
    let reasons = &found.points[0].reasons;
    assert!(
        reasons.iter().any(|r| r.starts_with("B: invalid (timeouts): run r3: ")),
        "{reasons:?}"
    );
}

#[test]
fn runs_that_are_no_repeats_are_refused_before_any_number() {
    let (a, mut newer) = (OneRun::new("a", &PLAIN), OneRun::new("a", &PLAIN));
    newer.ran = vec![ran("a", "0.12.0")];
    let error = hold_all([&[&a], &[&a, &newer]], &Asked::default()).unwrap_err().to_string();
    let want =
        "runs r1 and r2 of B are no repeats of one thing: engine version (0.11.0 and 0.12.0)";
    assert_eq!(error, want);
    let asked = Asked { force: true, ..Asked::default() };
    let forced = hold_all([&[&a], &[&a, &newer]], &asked).unwrap();
    assert!(forced.forced);
    assert_eq!(forced.points[0].unlike[0].what, "engine version of runs r1 and r2 of B");
    // The machines of a run that nobody looked at may be other ones.
    let mut unseen = OneRun::new("a", &PLAIN);
    unseen.ran = vec![];
    let found = hold_all([&[&a, &unseen], &[&a]], &Asked::default()).unwrap();
    assert!(found.not_known.iter().all(|n| n.why == "of A: what ran was not kept"));
    assert!(!found.not_known.is_empty());
}
