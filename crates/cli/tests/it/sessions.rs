//! Sessions through the binary, against a server that logs what it was sent.

use crate::interrupt::signal;
use crate::support::{Lab, Said, Server, json_lines, say, truth_server, wait_for};
use scalebeam_model::driver::Turn;
use scalebeam_model::request::{FailureClass, Outcome, Phase, RequestRecord};
use scalebeam_record::RunReader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

struct Talk {
    server: Server,
    dir: tempfile::TempDir,
}

impl Talk {
    fn new(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let args = ["--log-bodies", "--log", log.to_str().unwrap()];
        let server = truth_server(&[&args[..], more].concat());
        Self { server, dir }
    }

    /// An experiment against the server; its answers are `model`'s.
    fn lab(&self, model: &str, workload: &str, load: &str) -> Lab {
        Lab::new(&format!(
            "schema = 1\nname = \"talk\"\n[model]\nid = \"{model}\"\n[[deploy]]\nname = \"there\"\n\
             platform = \"external\"\nengine = \"openai\"\nendpoint = \"{}\"\n\
             [[workload]]\nname = \"w\"\n{workload}\n[[load]]\nname = \"l\"\nworkload = \"w\"\n{load}\n",
            self.server.url
        ))
    }

    /// What the server logged of the measured requests, by index.
    fn log(&self) -> BTreeMap<u64, Value> {
        let lines = json_lines(&self.dir.path().join("log.jsonl"));
        let index = |line: &Value| -> Option<u64> {
            let id = line["id"].as_str()?;
            let (trial, index) = id.rsplit_once('-')?;
            trial.ends_with('m').then(|| index.parse().unwrap())
        };
        lines.into_iter().filter_map(|line| Some((index(&line)?, line))).collect()
    }
}

fn records(dir: &Path) -> BTreeMap<u64, RequestRecord> {
    let run = RunReader::open(dir).unwrap();
    let mut all = BTreeMap::new();
    for trial in run.plan().points.iter().flat_map(|point| run.trials(point).unwrap()) {
        let records = trial.records().unwrap().records;
        let measured = records.into_iter().filter(|r| r.phase == Phase::Measure);
        all.extend(measured.map(|r| (r.index, r)));
    }
    all
}

const SYNTHETIC: &str = "kind = \"synthetic\"\nisl = 20\nturns = 3\nturn_isl = 6\nosl = 5\n";
const CLOSED: &str = "mode = \"closed\"\nconcurrency = 2\nwarmup = 2\n";

fn texts(body: &Value) -> Vec<(&str, &str)> {
    let list = body["messages"].as_array().unwrap();
    list.iter().map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap())).collect()
}

#[test]
fn context_grows_by_what_the_server_really_answered() {
    let talk = Talk::new(&["--ttft-ms", "10", "--itl-ms", "2"]);
    let load = format!("{CLOSED}requests = 12\nthink = \"20ms\"\n");
    let lab = talk.lab("varied", &format!("{SYNTHETIC}system = \"be brief\"\n"), &load);
    let said = lab.say("run", &["--json"]).expect_code(0);
    let point = said.json()["points"][0].clone();
    assert_eq!(point["outcomes"]["completed"], 12, "{point:#}");
    let (log, records) = (talk.log(), records(&lab.run_dir()));
    assert_eq!((log.len(), records.len()), (12, 12));
    for (index, r) in &records {
        let turn = u32::try_from(index % 3).unwrap();
        assert_eq!((r.session, r.turn), (Some(index / 3), Some(turn)));
        let sent = texts(&log[index]["body"]);
        assert_eq!(sent.len(), 2 + 2 * turn as usize, "system, rounds, user");
        if turn > 0 {
            let before = &log[&(index - 1)];
            let mut want = texts(&before["body"]);
            want.push(("assistant", before["text"].as_str().unwrap()));
            assert_eq!(sent[..sent.len() - 1], want, "to the byte");
            let due = records[&(index - 1)].finished_at.0 + 20_000_000;
            assert_eq!(r.scheduled_at.0, due);
        }
    }
    // Longer prompts turn by turn, and the numbers of each.
    let prompt = |turn: &str| point["turns"][turn]["prompt_tokens"]["p50"].as_f64().unwrap();
    assert!(prompt("0") < prompt("1") && prompt("1") < prompt("2"), "{:#}", point["turns"]);
    assert_eq!(point["turns"]["2"]["ttft_ms"]["count"], 4);
}

#[test]
fn a_turn_that_fails_ends_its_session_on_record() {
    let talk = Talk::new(&["--ttft-ms", "5", "--itl-ms", "1"]);
    let workload = SYNTHETIC.replace("turns = 3", "turns = 5");
    let lab = talk.lab("500-third-turn", &workload, &format!("{CLOSED}requests = 20\n"));
    let said = lab.say("run", &["--json"]).expect_code(3);
    let point = said.json()["points"][0].clone();
    let outcomes = [("completed", 8), ("failed", 4), ("dropped", 8)];
    for (name, n) in outcomes {
        assert_eq!(point["outcomes"][name], n, "{point:#}");
    }
    assert_eq!(point["failures"]["session_ended"], 8);
    assert_eq!(talk.log().len(), 12, "what was dropped was not sent");
    for r in records(&lab.run_dir()).values().filter(|r| r.turn > Some(2)) {
        assert_eq!(r.outcome, Outcome::Dropped);
        assert_eq!(r.failure.as_ref().unwrap().class, FailureClass::SessionEnded);
    }
}

#[test]
fn ctrl_c_leaves_every_turn_of_every_session_on_record_and_a_resume_measures_anew() {
    let talk = Talk::new(&["--ttft-ms", "10", "--itl-ms", "4"]);
    let workload = SYNTHETIC.replace("turns = 3", "turns = 40");
    let lab = talk.lab("varied", &workload, &format!("{CLOSED}requests = 80\n"));
    let mut command = lab.command("run");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("some turns", || talk.log().len() > 6);
    signal(child.id(), "INT");
    Said::from(child.wait_with_output().unwrap()).expect_code(130);
    let dir: PathBuf = lab.run_dir();
    let found = records(&dir);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (0..80).collect::<Vec<_>>());
    for (index, r) in &found {
        let turn = Turn { session: index / 40, number: u32::try_from(index % 40).unwrap() };
        assert_eq!((r.session, r.turn), (Some(turn.session), Some(turn.number)));
        if r.outcome == Outcome::Dropped {
            assert_eq!(r.failure.as_ref().unwrap().class, FailureClass::NeverSent);
        }
    }
    let dropped = found.values().filter(|r| r.outcome == Outcome::Dropped).count();
    assert!((20..74).contains(&dropped), "{dropped}");

    let said = say(["run", "--resume", dir.to_str().unwrap(), "--json"]).expect_code(0);
    assert_eq!(said.json()["points"][0]["outcomes"], serde_json::json!({ "completed": 80 }));
}

#[test]
fn conversations_of_a_file_arrive_by_a_schedule() {
    let talk = Talk::new(&["--ttft-ms", "5", "--itl-ms", "1"]);
    let workload = "kind = \"file\"\nfile = \"talks.jsonl\"\nturns = 9\nmax_tokens = 4\ncache = \"keep\"\nhistory = \"planned\"\n";
    let load = "mode = \"open\"\nrate = \"50/s\"\narrival = \"constant\"\nrequests = 6\nthink = { mean = \"5ms\" }\n";
    let lab = talk.lab("plain", workload, load);
    let lines = [
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
        r#"{"session_id":1,"prompt":"d"}"#,
        r#"{"session_id":1,"prompt":"e"}"#,
    ];
    std::fs::write(lab.dir.path().join("talks.jsonl"), lines.join("\n")).unwrap();
    let said = lab.say("run", &["--json"]).expect_code(0);
    assert!(said.stderr.contains("2 conversations of 2.0 turns on average"), "{}", said.stderr);
    let log = talk.log();
    let sent = |index: u64| texts(&log[&index]["body"]);
    // Two conversations, and the first again: six requests.
    assert_eq!(sent(0), [("user", "a")]);
    assert_eq!(sent(1), [("user", "a"), ("assistant", "b"), ("user", "c")]);
    assert_eq!((sent(2), sent(4)), (vec![("user", "d")], sent(0)));
    assert_eq!(sent(5), sent(1));
    let records = records(&lab.run_dir());
    let starts: Vec<u64> = [0, 2, 4].map(|i| records[&i].scheduled_at.0).to_vec();
    assert_eq!([starts[1] - starts[0], starts[2] - starts[1]], [20_000_000; 2]);
}

#[test]
fn bench_and_plan_know_sessions() {
    let talk = Talk::new(&["--ttft-ms", "5", "--itl-ms", "1"]);
    let out = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        &talk.server.url,
        "--model",
        "plain",
        "--isl",
        "16",
        "--osl",
        "4",
        "--turns",
        "4",
        "--think",
        "exp:5ms",
        "--concurrency",
        "3",
        "--requests",
        "24",
        "--warmup",
        "0",
        "--json",
        "--out",
    ];
    let said = say([&args[..], &[out.path().to_str().unwrap()]].concat()).expect_code(0);
    let point = said.json()["points"][0].clone();
    assert_eq!(point["turns"].as_object().unwrap().len(), 4, "{point:#}");
    let lab = talk.lab(
        "plain",
        SYNTHETIC,
        "mode = \"closed\"\nconcurrency = 2\nrequests = 6\nthink = \"1s\"\nsticky = false\n",
    );
    let plan = lab.say("plan", &[]).expect_code(0).stdout;
    for want in [
        "thinking 1.00 s after each answer, turns spread over the entries",
        "sessions of 3 turns with 6 tokens more each, real answers",
    ] {
        assert!(plan.contains(want), "{want}: {plan}");
    }
    let lab = talk.lab(
        "plain",
        "kind = \"synthetic\"\nisl = 8\nosl = 4\n",
        "mode = \"open\"\nrate = \"5/s\"\nrequests = 5\nthink = \"1s\"\nsticky = true\n",
    );
    let said = lab.say("check", &[]).expect_code(2).stderr;
    assert!(said.contains("'think' has no meaning in open mode"), "{said}");
    assert!(said.contains("workload 'w' has no sessions"), "{said}");
}
