//! The cost guard: a limit stops a run as Ctrl-C does, says what was spent, and the run can go on.

use crate::support::{Lab, emulated, marked_processes, say};

/// Five seconds a deployment, by its first token and seven gaps: longer than the limits here.
const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 400\n";
const PACE: &str = "ttft = \"20ms\", itl = \"5ms\"";

fn with_limit(text: &str, limit: &str) -> String {
    format!("{text}[limit]\n{limit}\n")
}

fn priced(text: &str, per_hour: &str) -> String {
    text.replace("gpus = 8\n", &format!("gpus = 8\nprice_per_hour = {per_hour}\n"))
}

#[test]
fn time_that_is_up_ends_the_load_and_the_run_goes_on_with_more() {
    let lab = Lab::new(&with_limit(&emulated(&["one", "two"], PACE, LOAD), "wall = \"3s\""));
    let said = lab.say("run", &[]).expect_code(130);
    for part in [
        "limit.wall = 3.00 s is reached: finishing what is in flight",
        "stopped at limit.wall = 3.00 s, after ",
        "not measured: one/l/c4, two/l/c4",
        "scalebeam run --resume",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert_eq!(marked_processes(&lab.runs()), []);
    let dir = lab.run_dir();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["status"], "interrupted");
    assert!(manifest["note"].as_str().unwrap().contains("limit.wall = 3.00 s"), "{manifest}");
    let journal = std::fs::read_to_string(dir.join("journal.jsonl")).unwrap();
    assert!(journal.contains("stopped at limit.wall"), "{journal}");

    let dir = dir.to_str().unwrap();
    let more = ["run", "--selftest", "never", "--resume", dir, "--limit-wall", "1h", "--json"];
    let results = say(more).expect_code(0).json();
    assert_eq!(results["incomplete"], false);
    for point in results["points"].as_array().unwrap() {
        assert_eq!(point["outcomes"]["completed"], 400);
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// All bring-ups of all rounds count: three of each, of more than a second and a half.
#[test]
fn rounds_over_deployments_are_within_one_limit_and_go_on_in_theirs() {
    let load = LOAD.replace("requests = 400", "requests = 120\nrepeats = 3");
    let text = with_limit(&emulated(&["one", "two"], PACE, &load), "wall = \"6s\"");
    let text = text.replace("name = \"lab\"\n", "name = \"lab\"\ninterleave = \"bring-ups\"\n");
    let lab = Lab::new(&text);
    let said = lab.say("run", &[]).expect_code(130);
    assert!(said.stderr.contains("stopped at limit.wall = 6.00 s, after "), "{}", said.stderr);
    assert!(said.stderr.contains("not measured: one/l/c4"), "{}", said.stderr);
    assert_eq!(marked_processes(&lab.runs()), []);
    let dir = lab.run_dir();
    let dir = dir.to_str().unwrap();
    let more = ["run", "--selftest", "never", "--resume", dir, "--limit-wall", "1h", "--json"];
    let results = say(more).expect_code(0).json();
    for point in results["points"].as_array().unwrap() {
        assert_eq!(point["outcomes"]["completed"], 360, "{point:#}");
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn money_that_is_spent_ends_a_bring_up_too_whatever_stop_always_says() {
    let text = emulated(&["slow"], PACE, LOAD)
        .replace("params = {", "args = [\"--startup-delay\", \"10m\"]\nparams = {")
        .replace("stop = { ", "stop = { always = false, ");
    // A currency unit a second.
    let lab = Lab::new(&with_limit(&priced(&text, "3600.0"), "spend = 3.0"));
    let said = lab.say("run", &[]).expect_code(130);
    assert!(said.stderr.contains("limit.spend = 3.00 is reached"), "{}", said.stderr);
    assert!(said.stderr.contains("which cost about 3"), "{}", said.stderr);
    assert!(said.stderr.contains("not measured: slow/l/c4"), "{}", said.stderr);
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn a_run_within_its_limit_says_nothing_of_it() {
    let load = "mode = \"closed\"\nconcurrency = 1\nrequests = 2\n";
    let text = priced(&emulated(&["one"], PACE, load), "1.0");
    let lab = Lab::new(&with_limit(&text, "wall = \"1h\"\nspend = 100.0"));
    let said = lab.say("run", &[]);
    assert!(!said.stderr.contains("limit."), "{}", said.stderr);
}

#[test]
fn a_plan_shows_the_estimate_beside_the_limit_and_warns() {
    let text = priced(&emulated(&["one"], PACE, LOAD), "36000.0");
    let lab = Lab::new(&with_limit(&text, "wall = \"1h\"\nspend = 50.0"));
    let said = lab.say("plan", &[]).expect_code(0);
    let estimate = said.stdout.lines().find(|l| l.starts_with("estimate: ")).unwrap();
    assert!(estimate.contains(" of limit.wall = 1.00 h, cost about "), "{estimate}");
    assert!(estimate.contains(" of limit.spend = 50.0 ("), "{estimate}");
    let note = "note: limit.spend: the run is expected to be stopped before its end: about ";
    assert!(said.stdout.contains(note), "{}", said.stdout);
    assert!(!said.stdout.contains("note: limit.wall"), "{}", said.stdout);
    let said = lab.say("check", &["--json"]).expect_code(0).json();
    let notes = said["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note["path"] == "limit.spend"), "{said}");
    assert_eq!(lab.say("plan", &["--json"]).json()["limit"]["spend"], 50.0);
}

#[test]
fn a_cost_without_prices_cannot_be_limited() {
    let text = emulated(&["one", "two"], PACE, LOAD);
    let lab = Lab::new(&with_limit(&text, "spend = 50.0"));
    let said = lab.say("check", &[]).expect_code(2);
    assert!(said.stderr.contains("no price is known of one, two"), "{}", said.stderr);
    let lab = Lab::new(&text);
    let said = lab.say("run", &["--limit-spend", "5"]).expect_code(2);
    assert!(said.stderr.contains("limit.spend: no price is known of one, two"), "{}", said.stderr);
    let said = lab.say("run", &["--limit-wall", "0s"]).expect_code(2);
    assert!(said.stderr.contains("a limit of no time"), "{}", said.stderr);
}

#[test]
fn what_is_brought_up_by_hand_and_stopped_has_no_measurements_to_miss() {
    let text = emulated(&["slow"], PACE, LOAD)
        .replace("params = {", "args = [\"--startup-delay\", \"10m\"]\nparams = {");
    let lab = Lab::new(&with_limit(&text, "wall = \"3s\""));
    let said = lab.say("up", &["--deploy", "slow"]).expect_code(130);
    assert!(said.stderr.contains("stopped at limit.wall = 3.00 s, after "), "{}", said.stderr);
    assert!(!said.stderr.contains("not measured"), "{}", said.stderr);
    assert_eq!(marked_processes(&lab.runs()), []);
}
