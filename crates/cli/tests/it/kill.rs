//! `kill -9` of scalebeam at any moment: `down` leaves nothing, the run opens, `--resume` completes it.

use crate::interrupt::{records, signal, start};
use crate::support::{Lab, emulated, marked_processes, say, wait_for};
use std::time::Duration;

const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 120\nwarmup = 4\n";

fn kill_and_continue(lab: &Lab, until: impl FnMut() -> bool) {
    let mut child = start(lab);
    wait_for("the phase to be killed in", until);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let dir = lab.run_dir();

    let left = !marked_processes(&lab.runs()).is_empty();
    if left {
        // A second run does not start over the leftovers, and names the cure.
        let said = lab.say("run", &[]).expect_code(4);
        assert!(said.stderr.contains("scalebeam down"), "{}", said.stderr);
    }
    let said = say(["down", dir.to_str().unwrap()]).expect_code(0);
    assert_eq!(marked_processes(&lab.runs()), [], "{}", said.stdout);
    let said = say(["down", dir.to_str().unwrap()]).expect_code(0);
    assert!(said.stdout.contains("nothing left running"), "{}", said.stdout);

    // It opens, whatever was torn; what is there is not taken for a result.
    let said = say(["report", dir.to_str().unwrap(), "--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    assert_eq!(said.json()["incomplete"], true);

    let results = say(["run", "--selftest", "never", "--resume", dir.to_str().unwrap(), "--json"])
        .expect_code(0)
        .json();
    assert_eq!(results["incomplete"], false);
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|p| p["outcomes"]["completed"] == 120), "{results:#}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

fn lab() -> Lab {
    Lab::new(&emulated(&["one", "two"], "ttft = \"10ms\", itl = \"2ms\"", LOAD))
}

#[test]
fn while_the_first_engine_comes_up() {
    let lab = lab();
    kill_and_continue(&lab, || !marked_processes(&lab.runs()).is_empty());
}

#[test]
fn while_the_first_load_runs() {
    let lab = lab();
    kill_and_continue(&lab, || records(&lab.runs(), "one") > 20);
}

#[test]
fn while_the_second_load_runs() {
    let lab = lab();
    kill_and_continue(&lab, || records(&lab.runs(), "two") > 20);
}

#[test]
fn between_deployments() {
    let lab = lab();
    let sealed = lab.runs();
    kill_and_continue(&lab, || {
        let Ok(dirs) = std::fs::read_dir(&sealed) else { return false };
        dirs.flatten().any(|d| d.path().join("points/one/l/c4/1/requests.parquet").exists())
    });
}

/// A flipped bit in a sealed table is seen, costs its own point only, and is mended by a resume.
#[test]
fn a_damaged_trial_is_marked_and_measured_again() {
    let lab = lab();
    lab.say("run", &[]).expect_code(0);
    let dir = lab.run_dir();
    let table = dir.join("points/one/l/c4/1/requests.parquet");
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let results = say(["report", dir.to_str().unwrap(), "--json"]).expect_code(3).json();
    assert_eq!(results["points"][0]["trust"]["reasons"][0]["code"], "damaged", "{results:#}");
    assert_eq!(results["points"][1]["outcomes"]["completed"], 120);
    let results = say(["run", "--selftest", "never", "--resume", dir.to_str().unwrap(), "--json"])
        .expect_code(0)
        .json();
    assert!(
        results["points"].as_array().unwrap().iter().all(|p| p["outcomes"]["completed"] == 120)
    );
}

/// A power cut may leave a file of nothing: it costs its own trial only.
#[test]
fn a_trial_whose_state_is_empty_is_no_result_and_measured_again() {
    let lab = lab();
    lab.say("run", &[]).expect_code(0);
    let dir = lab.run_dir();
    std::fs::write(dir.join("points/one/l/c4/1/trial.json"), "").unwrap();
    let results = say(["report", dir.to_str().unwrap(), "--json"]).expect_code(3).json();
    assert_eq!(results["points"][0]["trust"]["level"], "invalid", "{results:#}");
    assert_ne!(results["points"][1]["trust"]["level"], "invalid", "{results:#}");
    let again = ["run", "--selftest", "never", "--resume", dir.to_str().unwrap(), "--json"];
    let results = say(again).expect_code(0).json();
    let whole = |p: &serde_json::Value| p["outcomes"]["completed"] == 120;
    assert!(results["points"].as_array().unwrap().iter().all(whole), "{results:#}");
}

/// What a journal does not name any more is found by its mark.
#[test]
fn a_journal_that_is_lost_or_unreadable_hides_nothing() {
    for journal in [None, Some("not a line of any journal\n")] {
        let lab = lab();
        let mut child = start(&lab);
        wait_for("the load", || records(&lab.runs(), "one") > 20);
        signal(child.id(), "KILL");
        child.wait().unwrap();
        let dir = lab.run_dir();
        let file = dir.join("journal.jsonl");
        match journal {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => std::fs::write(&file, text).unwrap(),
        }
        assert_ne!(marked_processes(&lab.runs()), []);
        let said = lab.say("run", &[]).expect_code(4);
        assert!(said.stderr.contains("scalebeam down"), "{}", said.stderr);
        let said = say(["down", dir.to_str().unwrap()]).expect_code(0);
        assert!(said.stdout.contains("one/0/serve on this machine: terminated"), "{}", said.stdout);
        assert_eq!(marked_processes(&lab.runs()), [], "{}", said.stdout);
    }
}

/// A directory of runs means all of them, and one of something else is no reason to say that nothing is left.
#[test]
fn down_of_a_directory_of_runs_takes_all_of_them_down() {
    let lab = lab();
    let mut child = start(&lab);
    wait_for("the load", || records(&lab.runs(), "one") > 20);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let elsewhere = lab.dir.path().join("empty");
    std::fs::create_dir(&elsewhere).unwrap();
    let said = say(["down", elsewhere.to_str().unwrap()]).expect_code(2);
    assert!(said.stderr.contains("is no run directory, and holds none"), "{}", said.stderr);
    assert_ne!(marked_processes(&lab.runs()), []);
    let said = say(["down", lab.runs().to_str().unwrap()]).expect_code(0);
    assert!(said.stdout.contains("one/0/serve on box: terminated"), "{}", said.stdout);
    assert_eq!(marked_processes(&lab.runs()), [], "{}", said.stdout);
}

/// At instants that no phase was chosen for.
#[test]
fn at_random_moments() {
    for ms in [3, 17, 60, 140, 333, 700, 1_100] {
        let lab = lab();
        let mut child = start(&lab);
        std::thread::sleep(Duration::from_millis(ms));
        if child.try_wait().unwrap().is_none() {
            signal(child.id(), "KILL");
        }
        child.wait().unwrap();
        let down = say(["down", "--out", lab.runs().to_str().unwrap()]).expect_code(0);
        assert_eq!(marked_processes(&lab.runs()), [], "after {ms} ms: {}", down.stdout);
        let Ok(mut dirs) = std::fs::read_dir(lab.runs()) else { continue };
        let Some(dir) = dirs.next() else { continue };
        let dir = dir.unwrap().path();
        if dir.join("manifest.json").exists() {
            say(["run", "--selftest", "never", "--resume", dir.to_str().unwrap()]).expect_code(0);
        }
    }
}
