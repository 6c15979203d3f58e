//! A run directory over its whole life: written, killed, resumed, damaged, read.

use super::*;
use crate::read::{RunReader, TrialReader};
use crate::seal::Step;
use crate::trial::PhaseSpan;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scalebeam_model::clock::ManualClock;
use scalebeam_model::driver::{Balance, LoadShape, PhasePlan};
use scalebeam_model::plan::{Estimate, Level, Mode, ModelPlan};
use scalebeam_model::request::{
    Arrival, Failure, FailureClass, Outcome, Phase, RequestRecord, TokenSource,
};
use scalebeam_model::workload::{Api, CachePolicy, Pick, Source, Workload};
use std::ops::ControlFlow;

const POINT: &str = "d/l/c4";

fn plan() -> Plan {
    let workload = Workload {
        name: "w".to_owned(),
        api: Api::Chat,
        stream: true,
        temperature: None,
        system: None,
        force_len: false,
        body: serde_json::Map::new(),
        seed: 1,
        cache: CachePolicy::default(),
        source: Source::Prompts { pick: Pick::InOrder, prompts: Vec::new() },
    };
    let measure = PhasePlan {
        phase: Phase::Measure,
        shape: LoadShape::Burst,
        requests: Some(4),
        duration: None,
        timeout: Nanos::from_secs(1),
        targets: 1,
        balance: Balance::RoundRobin,
        cancel: None,
        max_prefill: None,
        sessions: None,
    };
    let trial = |number| TrialPlan { number, warmup_seed: 1, measure_seed: 2 };
    let point = PointPlan {
        id: POINT.to_owned(),
        deployment: "d".to_owned(),
        load: "l".to_owned(),
        mode: Mode::Burst,
        level: Level { label: "c4".to_owned(), concurrency: Some(4), rate_rps: None, batch: None },
        workload,
        batch: 1,
        warmup: None,
        measure,
        pause: Nanos::ZERO,
        stop_oversaturated: false,
        slo: None,
        trials: vec![trial(1), trial(2)],
    };
    Plan {
        telemetry: scalebeam_model::telemetry::TelemetryPlan::default(),
        format: scalebeam_model::plan::PLAN_FORMAT,
        name: "n".to_owned(),
        about: None,
        model: ModelPlan {
            id: "m".to_owned(),
            served: "m".to_owned(),
            revision: None,
            tokenizer: None,
            dtype: None,
            max_len: None,
        },
        sources: vec![],
        hosts: Vec::new(),
        deployments: Vec::new(),
        points: vec![point],
        interleave: Default::default(),
        searches: Vec::new(),
        notes: Vec::new(),
        prices: None,
        limit: scalebeam_model::limit::Limit::default(),
        estimate: Estimate { wall: Nanos::ZERO, cost: None, basis: String::new() },
    }
}

fn create(root: &Path) -> Result<RunWriter, RecordError> {
    let clock = ManualClock::default();
    clock.set(Nanos(1_795_256_100_000_000_000));
    let plan = plan();
    let new = NewRun {
        name: "n",
        id: None,
        experiment_text: "schema = 1\n",
        plan: &plan,
        tool: "0.1.0",
        hosts: Vec::new(),
    };
    RunWriter::create(root, &clock, new)
}

#[test]
fn a_run_whose_id_is_known_already_has_that_id_or_none() {
    let root = tempfile::tempdir().unwrap();
    let plan = plan();
    let new = NewRun {
        name: "n",
        id: Some("20261121T101500Z-n"),
        experiment_text: "schema = 1\n",
        plan: &plan,
        tool: "0.1.0",
        hosts: Vec::new(),
    };
    let clock = ManualClock::default();
    let first = RunWriter::create(root.path(), &clock, new.clone()).unwrap();
    assert_eq!(first.id(), "20261121T101500Z-n");
    assert!(first.dir().ends_with(first.id()));
    let error = RunWriter::create(root.path(), &clock, new).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
}

fn reopen(dir: &Path) -> Result<RunWriter, RecordError> {
    RunWriter::reopen(dir, &ManualClock::default(), "0.1.0")
}

fn info() -> TrialInfo {
    let measure = PhaseSpan { started_at: Nanos(5), ended_at: Nanos(9) };
    TrialInfo { measure: Some(measure), shards: 1, ..TrialInfo::default() }
}

fn record(index: u64) -> RequestRecord {
    let mut r = RequestRecord::new(index, Phase::Measure, 0, Nanos(1000 * index));
    r.outcome = Outcome::Completed;
    r.arrivals = (1..20)
        .map(|i| Arrival { at: Nanos(1000 * index + 7 * i), chunks: 1, lag_ns: 9 })
        .collect();
    r
}

/// Records that are handed over one by one end when nobody wants more of them.
#[test]
fn a_reader_that_has_enough_gets_no_more() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path()).unwrap();
    let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
    let dir = trial.dir().to_owned();
    (0..5).for_each(|i| trial.append(record(i)).unwrap());
    trial.seal(info()).unwrap();
    for most in [2, 5, 9] {
        let mut got = Vec::new();
        let torn = TrialReader::open(&dir)
            .unwrap()
            .each(&mut |r| {
                got.push(r);
                if got.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        let want: Vec<RequestRecord> = (0..5).map(record).take(most).collect();
        assert_eq!((got, torn), (want, 0));
    }
}

fn read_one(dir: &Path) -> Result<crate::read::TrialRecords, RecordError> {
    TrialReader::open(dir)?.records()
}

prop_compose! {
    fn failure()(class in 0..FailureClass::ALL.len(), status in option::of(any::<u16>()), detail in ".*") -> Failure {
        Failure { class: FailureClass::ALL[class], status, detail }
    }
}

fn nanos() -> impl Strategy<Value = Nanos> {
    prop_oneof![any::<u64>(), 0..10_u64, Just(u64::MAX)].prop_map(Nanos)
}

prop_compose! {
    fn any_record()(
        (index, warm, class, target, prompts) in (any::<u64>(), any::<bool>(), ".*", any::<u16>(), any::<u32>()),
        (scheduled_at, finished_at, outcome) in (nanos(), nanos(), 0..Outcome::ALL.len()),
        times in vec(option::of(nanos()), 6),
        arrivals in vec((nanos(), any::<u32>(), any::<u32>()), 0..6),
        counts in vec(option::of(any::<u32>()), 5),
        (asked, forced, unparsed, worker) in (any::<u32>(), any::<bool>(), any::<u32>(), any::<u16>()),
        (resent, session, turn) in (any::<bool>(), option::of(any::<u64>()), option::of(any::<u32>())),
        (source, thought, reason, failure) in (0..4_usize, 0..4_usize, option::of(".*"), option::of(failure())),
    ) -> RequestRecord {
        let sources = [None, Some(TokenSource::Usage), Some(TokenSource::Tokenizer), Some(TokenSource::Chunks)];
        RequestRecord {
            index,
            phase: if warm { Phase::Warmup } else { Phase::Measure },
            class, target, prompts, session, turn, scheduled_at, finished_at,
            sent_at: times[0],
            first_byte_at: times[1],
            first_token_at: times[2],
            last_token_at: times[3],
            first_answer_at: times[5],
            connect: times[4],
            arrivals: arrivals.into_iter().map(|(at, chunks, lag_ns)| Arrival { at, chunks, lag_ns }).collect(),
            prompt_tokens: counts[0],
            output_tokens: counts[1],
            cached_prompt_tokens: counts[3],
            token_source: sources[source],
            reasoning_tokens: counts[4],
            reasoning_source: sources[thought],
            asked_input_tokens: counts[2],
            asked_output_tokens: asked,
            forced_length: forced,
            finish_reason: reason,
            outcome: Outcome::ALL[outcome],
            failure,
            unparsed_events: unparsed,
            resent,
            worker,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_records_come_back_exactly_from_the_segment_and_from_parquet(
        records in vec(any_record(), 0..12)
    ) {
        let root = tempfile::tempdir().unwrap();
        let run = create(root.path()).unwrap();
        let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
        let dir = trial.dir().to_owned();
        for r in &records {
            trial.append(r.clone()).unwrap();
        }
        trial.end(info()).unwrap();
        let from_segment = read_one(&dir).unwrap();
        prop_assert_eq!(&from_segment.records, &records);
        seal::seal(&dir, &trial.file).unwrap();
        prop_assert!(!dir.join(layout::SEGMENT).exists());
        let from_parquet = read_one(&dir).unwrap();
        prop_assert_eq!(&from_parquet, &from_segment);
    }
}

#[test]
fn killed_between_any_two_steps_of_a_seal_the_trial_is_whole_and_a_resume_ends_it() {
    for step in [Step::TablesWritten, Step::TokensPublished, Step::RequestsPublished] {
        let root = tempfile::tempdir().unwrap();
        let run = create(root.path()).unwrap();
        let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
        let dir = trial.dir().to_owned();
        let records: Vec<_> = (0..50).map(record).collect();
        for r in &records {
            trial.append(r.clone()).unwrap();
        }
        trial.end(info()).unwrap();
        seal::seal_up_to(&dir, &trial.file, step).unwrap();
        let read = read_one(&dir).unwrap();
        assert_eq!((&read.records, read.state), (&records, TrialState::Complete), "{step:?}");
        let run_dir = run.dir().to_owned();
        drop((run, trial));
        let run = reopen(&run_dir).unwrap();
        assert!(run.is_complete(POINT, 1).unwrap());
        assert!(!dir.join(layout::SEGMENT).exists(), "{step:?}");
        assert_eq!(read_one(&dir).unwrap().records, records, "{step:?}");
        assert!(matches!(run.trial(POINT, 1, Nanos(1), 1), Err(RecordError::AlreadySealed { .. })));
    }
}

#[test]
fn a_killed_trial_is_partial_and_a_resume_sets_it_aside() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path()).unwrap();
    let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
    trial.append(record(0)).unwrap();
    let dir = trial.dir().to_owned();
    trial.abandon().unwrap();
    let read = read_one(&dir).unwrap();
    assert_eq!((read.records.len(), read.state, read.info), (1, TrialState::Partial, None));
    let run_dir = run.dir().to_owned();
    run.finish(RunStatus::Interrupted, None).unwrap();

    let run = reopen(&run_dir).unwrap();
    assert_eq!(run.remaining().unwrap().len(), 2);
    let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
    trial.append(record(7)).unwrap();
    trial.seal(info()).unwrap();
    assert_eq!(run.remaining().unwrap().len(), 1);
    assert!(dir.with_file_name("1.partial-1").join(layout::SEGMENT).exists());
    run.finish(RunStatus::Complete, None).unwrap();

    let reader = RunReader::open(&run_dir).unwrap();
    let trials = reader.trials(&reader.plan().points[0]).unwrap();
    assert_eq!(trials.len(), 1, "what was set aside is no trial");
    assert_eq!(trials[0].session(), Some(1), "measured by the second process");
    assert_eq!(trials[0].records().unwrap().records, [record(7)]);
    let measured = reader.measured_points().unwrap();
    assert_eq!(measured.len(), 1);
    assert_eq!(measured[0].trials.len(), 1, "the second trial was never begun");
    assert_eq!((measured[0].trials[0].number, measured[0].trials[0].partial), (1, false));
    assert_eq!(reader.manifest().status, RunStatus::Complete);
    assert!(!reader.is_complete().unwrap());
}

/// Of rounds in one session a cut-short trial must not be taken for one of the first bring-up.
#[test]
fn a_trial_says_its_bring_up_from_its_begin_and_older_runs_by_their_session() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path()).unwrap();
    let trial = run.trial(POINT, 1, Nanos(1), 3).unwrap();
    let dir = trial.dir().to_owned();
    trial.abandon().unwrap();
    let reader = RunReader::open(run.dir()).unwrap();
    let of = || reader.measured_points().unwrap()[0].trials[0].facts.bring_up;
    assert_eq!(TrialReader::open(&dir).unwrap().state(), TrialState::Partial);
    assert_eq!(of(), Some(3));

    let mut file = TrialFile { bring_up: None, ..TrialFile::read(&dir).unwrap() };
    file.write(&dir).unwrap();
    assert!(!std::fs::read_to_string(dir.join(layout::TRIAL)).unwrap().contains("bring_up"));
    assert_eq!(of(), Some(1), "written before there were rounds: the first session");
    let info = TrialInfo { bring_up: Some(2), ..info() };
    file.ended = Some(crate::trial::Ended { records: 0, info });
    file.write(&dir).unwrap();
    assert_eq!(of(), Some(2), "written at the end only");
}

#[test]
fn a_run_directory_belongs_to_one_run_and_one_writer() {
    let root = tempfile::tempdir().unwrap();
    let first = create(root.path()).unwrap();
    let second = create(root.path()).unwrap();
    assert_eq!(first.id(), "20261121T101500Z-n");
    assert_eq!(second.id(), "20261121T101500Z-n-2");
    assert!(matches!(reopen(first.dir()), Err(RecordError::InUse { .. })));
    let reader = RunReader::open(first.dir()).unwrap();
    assert!(reader.is_being_written() && reader.is_experiment_intact());
    let dir = first.dir().to_owned();
    drop(first);
    assert!(!reader.is_being_written());
    std::fs::write(dir.join(layout::EXPERIMENT), "schema = 1\nname = \"x\"\n").unwrap();
    assert!(matches!(reopen(&dir), Err(RecordError::ExperimentChanged { .. })));
    let listed = crate::list_runs(root.path()).unwrap();
    assert_eq!(listed.len(), 2);
}

#[test]
fn another_major_version_is_refused_with_what_can_read_it() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path()).unwrap();
    let path = run.dir().join(layout::MANIFEST);
    std::fs::write(&path, r#"{"format": {"major": 9, "minor": 0}, "novel": true}"#).unwrap();
    let error = RunReader::open(run.dir()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("manifest.json"), "{error}");
    assert!(cause.contains("format 9.0") && cause.contains("newer scalebeam"), "{cause}");
}

#[test]
fn what_cannot_be_written_or_is_no_run_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = create(&file.join("runs")).unwrap_err().to_string();
    assert!(error.starts_with("cannot create") && error.contains("file/runs"), "{error}");
    let error = RunReader::open(root.path()).unwrap_err().to_string();
    assert!(error.contains("is not a run directory"), "{error}");
    let run = create(root.path()).unwrap();
    let error = run.trial("d/l/../../x", 1, Nanos(1), 1).unwrap_err().to_string();
    assert!(error.contains("no trial 1 of point"), "{error}");
}

#[test]
fn a_damaged_file_is_an_error_that_names_it_and_never_a_panic() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path()).unwrap();
    let mut trial = run.trial(POINT, 1, Nanos(1), 1).unwrap();
    let dir = trial.dir().to_owned();
    for i in 0..5 {
        trial.append(record(i)).unwrap();
    }
    trial.seal(info()).unwrap();
    for name in [layout::REQUESTS, layout::TOKENS] {
        let path = dir.join(name);
        let whole = std::fs::read(&path).unwrap();
        // Each panic inside the Parquet reader costs a backtrace, so not every byte is tried.
        for i in (0..whole.len()).step_by(23) {
            let mut bytes = whole.clone();
            bytes[i] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = read_one(&dir) {
                assert!(error.to_string().contains(".parquet"), "{error}");
            }
            std::fs::write(&path, &whole[..i]).unwrap();
            let error = read_one(&dir).unwrap_err().to_string();
            assert!(error.contains(name), "cut at {i}: {error}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
    std::fs::write(dir.join(layout::TRIAL), "{").unwrap();
    let error = read_one(&dir).unwrap_err().to_string();
    assert!(error.contains("trial.json is damaged"), "{error}");
}

#[test]
fn results_can_be_written_and_read_and_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut results = scalebeam_model::results::Results {
        format: scalebeam_model::results::RESULTS_FORMAT,
        name: "n".to_owned(),
        run: "r".to_owned(),
        incomplete: false,
        points: Vec::new(),
        comparisons: Vec::new(),
        verdicts: Vec::new(),
        searches: Vec::new(),
        scaling: Vec::new(),
        losses: Vec::new(),
        fairness: Vec::new(),
        ways: Vec::new(),
        fronts: Vec::new(),
        expects: Vec::new(),
        unrecorded: vec![],
        skipped: Vec::new(),
        ran: Vec::new(),
    };
    crate::write_results(dir.path(), &results).unwrap();
    assert_eq!(crate::read_results(dir.path()).unwrap(), results);
    results.format += 1;
    crate::write_results(dir.path(), &results).unwrap();
    let error = crate::read_results(dir.path()).unwrap_err().to_string();
    assert!(error.contains("results.json") && error.contains("makes it again"), "{error}");
}
