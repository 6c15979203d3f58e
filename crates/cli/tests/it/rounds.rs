//! Repeats that go round over the deployments: who is up when, what a run goes on with, and what one that failed costs.

use crate::interrupt::{signal, start};
use crate::support::{Lab, emulated, json_lines, marked_processes, say, unwrapped, wait_for};
use serde_json::Value;
use std::path::Path;

const LOAD: &str = "mode = \"closed\"\nconcurrency = [1, 2]\nrequests = 6\nwarmup = 1\nrepeats = 3\npause = \"200ms\"\n";
const PACE: &str = "ttft = \"10ms\", itl = \"2ms\"";

fn round(names: &[&str], interleave: &str) -> String {
    let text = emulated(names, PACE, LOAD);
    text.replace("name = \"lab\"\n", &format!("name = \"lab\"\ninterleave = \"{interleave}\"\n"))
}

/// Deployments in the order in which they were brought up, by the journal.
fn brought_up(dir: &Path) -> Vec<String> {
    let up = |e: &Value| e["event"] == "deployment_state" && e["to"] == "verified";
    let lines = json_lines(&dir.join("journal.jsonl"));
    lines.iter().filter(|e| up(e)).map(|e| e["deployment"].as_str().unwrap().to_owned()).collect()
}

/// `one/c1/1`, in the order in which they were begun.
fn begun(dir: &Path) -> Vec<String> {
    let mut all: Vec<(u64, String)> = Vec::new();
    for deployment in std::fs::read_dir(dir.join("points")).unwrap().flatten() {
        for level in std::fs::read_dir(deployment.path().join("l")).unwrap().flatten() {
            for trial in std::fs::read_dir(level.path()).unwrap().flatten() {
                let text = std::fs::read(trial.path().join("trial.json")).unwrap();
                let file: Value = serde_json::from_slice(&text).unwrap();
                let name = [deployment.file_name(), level.file_name(), trial.file_name()];
                let name = name.map(|n| n.to_string_lossy().into_owned()).join("/");
                all.push((file["begun_at"].as_u64().unwrap(), name));
            }
        }
    }
    all.sort();
    all.into_iter().map(|(_, name)| name).collect()
}

fn resume(dir: &Path) -> Value {
    let args = ["run", "--selftest", "never", "--resume", dir.to_str().unwrap(), "--json"];
    say(args).expect_code(0).json()
}

/// Of each trial of each point, in the order of the points.
fn bring_ups(results: &Value) -> Vec<(String, Vec<u64>)> {
    let of = |point: &Value| {
        let trials = point["trials"].as_array().unwrap();
        let id = format!("{}/{}", point["deployment"], point["level"]).replace('"', "");
        (id, trials.iter().map(|t| t["bring_up"].as_u64().unwrap()).collect())
    };
    results["points"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn rounds_go_there_and_back_over_deployments_and_results_say_of_which_bring_up_a_trial_is() {
    let lab = Lab::new(&round(&["one", "two"], "deployments"));
    let said = lab.say("plan", &[]).expect_code(0);
    let order = "order (interleave = \"deployments\"): one trial 1, then two trials 1 to 2, then one trials 2 to 3, \
                 then two trial 3\n  4 bring-ups, where each deployment up once takes 2";
    assert!(said.stdout.contains(order), "{}", said.stdout);

    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let dir = lab.run_dir();
    assert_eq!(brought_up(&dir), ["one", "two", "one", "two"]);
    let order = [
        "one/c1/1", "one/c2/1", "two/c1/1", "two/c2/1", "two/c2/2", "two/c1/2", "one/c2/2",
        "one/c1/2", "one/c1/3", "one/c2/3", "two/c1/3", "two/c2/3",
    ];
    assert_eq!(begun(&dir), order);
    let of = |name: &str, n: &[u64]| (name.to_owned(), n.to_vec());
    let (a, b) = ([1, 2, 2], [1, 1, 2]);
    assert_eq!(
        bring_ups(&results),
        [of("one/c1", &a), of("one/c2", &a), of("two/c1", &b), of("two/c2", &b)]
    );
    // What came up was the same each time, so it is told once.
    let ran = results["ran"].as_array().unwrap();
    assert_eq!(ran.len(), 2, "{ran:#?}");
    assert_eq!(ran[0]["bring_ups"], serde_json::json!([1, 2]));
    let method = results["comparisons"][0]["ratio"]["method"].as_str().unwrap();
    assert!(method.starts_with("Student over 2 and 2 bring-ups"), "{method}");
    assert_eq!(marked_processes(&lab.runs()), []);
    // Nothing is left to do, and nothing is brought up for it.
    assert_eq!(resume(&dir)["points"], results["points"]);
    assert_eq!(brought_up(&dir).len(), 4);
}

#[test]
fn each_trial_has_a_bring_up_of_its_own_where_the_file_asks_for_it() {
    let lab = Lab::new(&round(&["one", "two"], "bring-ups"));
    let said = lab.say("run", &[]).expect_code(0);
    let dir = lab.run_dir();
    assert_eq!(brought_up(&dir), ["one", "two", "two", "one", "one", "two"]);
    let results = say(["report", dir.to_str().unwrap(), "--json"]).expect_code(0).json();
    assert!(bring_ups(&results).iter().all(|(_, of)| of == &[1, 2, 3]), "{results:#}");
    let method = results["comparisons"][0]["ratio"]["method"].as_str().unwrap();
    assert!(method.starts_with("Welch over 3 and 3 bring-ups"), "{method}");
    assert!(!said.stdout.contains("is in no interval"), "{}", said.stdout);
    // Of one bring-up each the verdict says what is not in it.
    let once = Lab::new(&round(&["one", "two"], "points"));
    let said = once.say("run", &[]).expect_code(0);
    let words = unwrapped(&said.stdout);
    assert!(
        words.contains("what differs from one bring-up to the next is in no interval"),
        "{words}"
    );
    let said = once.say("plan", &[]).expect_code(0);
    assert!(
        said.stdout.contains("note: interleave: the repeats of a deployment"),
        "{}",
        said.stdout
    );
    assert!(!said.stdout.contains("order (interleave"), "{}", said.stdout);
}

#[test]
fn killed_in_the_second_round_it_goes_on_there() {
    let lab = Lab::new(&round(&["one", "two"], "deployments"));
    let mut child = start(&lab);
    wait_for("the second round of the first", || {
        lab.runs().exists() && {
            let dirs = std::fs::read_dir(lab.runs()).unwrap().flatten();
            dirs.map(|d| d.path().join("points/one/l/c2/2/trial.json")).any(|f| f.exists())
        }
    });
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let dir = lab.run_dir();
    say(["down", dir.to_str().unwrap()]).expect_code(0);
    assert_eq!(marked_processes(&lab.runs()), []);
    let before = brought_up(&dir);
    assert_eq!(before, ["one", "two", "one"]);
    let results = resume(&dir);
    assert_eq!(brought_up(&dir)[before.len()..], ["one", "two"]);
    for (point, of) in bring_ups(&results) {
        let want: &[u64] = if point.starts_with("one") { &[1, 3, 3] } else { &[1, 1, 2] };
        // The trial that was not yet sealed is the only one that could be of either bring-up.
        assert!(of == want || of == [1, 2, 3], "{point}: {of:?}");
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn interrupted_between_rounds_it_is_taken_down_and_goes_on_in_the_right_one() {
    let lab = Lab::new(&round(&["one", "two"], "bring-ups"));
    let child = start(&lab);
    wait_for("the second round of the second", || {
        lab.runs().exists() && {
            let dirs = std::fs::read_dir(lab.runs()).unwrap().flatten();
            dirs.map(|d| d.path().join("points/two/l/c2/2/trial.json")).any(|f| f.exists())
        }
    });
    signal(child.id(), "INT");
    let said = crate::support::Said::from(child.wait_with_output().unwrap()).expect_code(130);
    assert!(said.stderr.contains("scalebeam run --resume"), "{}", said.stderr);
    assert_eq!(marked_processes(&lab.runs()), []);
    let dir = lab.run_dir();
    assert_eq!(brought_up(&dir), ["one", "two", "two"]);
    let results = resume(&dir);
    assert_eq!(results["incomplete"], false);
    assert_eq!(brought_up(&dir)[3..], ["two", "one", "one", "two"]);
    let points = results["points"].as_array().unwrap();
    assert!(points.iter().all(|p| p["outcomes"]["completed"] == 18), "{results:#}");
}

/// Its port is taken by somebody else while the other is up.
#[test]
fn one_that_fails_in_the_second_round_keeps_its_first_and_the_others_go_on() {
    let lab = Lab::new(&round(&["one", "two"], "bring-ups"));
    let text = std::fs::read_to_string(lab.file()).unwrap();
    let port = text.split("port = ").nth(1).unwrap().lines().next().unwrap();
    let address = format!("127.0.0.1:{port}");
    let child = start(&lab);
    wait_for("the second of the first round", || {
        let dirs = std::fs::read_dir(lab.runs()).into_iter().flatten().flatten();
        dirs.map(|d| brought_up(&d.path())).any(|up| up == ["one", "two"])
    });
    let taken = std::net::TcpListener::bind(address).unwrap();
    let said = crate::support::Said::from(child.wait_with_output().unwrap()).expect_code(4);
    assert!(said.stderr.contains("error: one: "), "{}", said.stderr);
    let kept = "one: 2 of its 6 trials are measured and stay; it is not brought up again by this command: \
                scalebeam run --resume ";
    assert!(said.stderr.contains(kept), "{}", said.stderr);
    let dir = lab.run_dir();
    assert_eq!(brought_up(&dir), ["one", "two", "two", "two"]);
    let words = unwrapped(&said.stdout);
    for part in ["one has 1 of 3 trials", "not measured: one: after 2 of 6 trials: "] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let results = say(["report", dir.to_str().unwrap(), "--json"]).json();
    let method = results["comparisons"][0]["ratio"]["method"].as_str().unwrap();
    assert!(method.starts_with("Student over 3 and 1 trials"), "{method}");
    assert_eq!(marked_processes(&lab.runs()), []);
    drop(taken);
    let results = resume(&dir);
    assert_eq!(brought_up(&dir)[4..], ["one", "one"]);
    assert_eq!(results["skipped"].as_array().map_or(0, Vec::len), 0, "{results:#}");
    assert!(bring_ups(&results).iter().all(|(_, of)| of == &[1, 2, 3]), "{results:#}");
}

/// A search comes last, and each deployment is searched once.
#[test]
fn searches_come_after_the_last_round() {
    let search = "[[load]]\nname = \"s\"\nworkload = \"w\"\nmode = \"closed\"\nrequests = 4\n\
                  slo = \"ttft.p50 <= 5s\"\nsearch = { from = 1, to = 2 }\n";
    let text = round(&["one", "two"], "deployments").replace("repeats = 3", "repeats = 2");
    let lab = Lab::new(&(text + search));
    let said = lab.say("plan", &[]).expect_code(0);
    let order =
        "one trial 1, then two trials 1 to 2 and its search, then one trial 2 and its search\n";
    assert!(said.stdout.contains(order), "{}", said.stdout);
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(brought_up(&lab.run_dir()), ["one", "two", "one"]);
    assert_eq!(results["searches"].as_array().unwrap().len(), 2, "{results:#}");
}

#[test]
fn what_there_is_nothing_to_go_round_over_is_told() {
    let lab = Lab::new(&round(&["one"], "deployments"));
    let said = lab.say("plan", &[]).expect_code(0);
    assert!(
        said.stdout.contains(
            "interleave = \"deployments\" has nothing to go round over: one deployment is"
        ),
        "{}",
        said.stdout
    );
    let wrong = Lab::new(&round(&["one"], "rounds"));
    let said = wrong.say("plan", &[]).expect_code(2);
    for part in ["rounds", "points", "deployments", "bring-ups"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}
