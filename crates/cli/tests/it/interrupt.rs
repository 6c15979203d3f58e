//! Ctrl-C: once drains, seals and takes down; twice does so at once; the run goes on with `--resume`.

use crate::route::stand_in;
use crate::support::{Lab, Said, emulated, json_lines, marked_processes, wait_for};
use std::path::Path;
use std::process::{Child, Stdio};

const LONG: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 400\nwarmup = 2\n";

pub(crate) fn start(lab: &Lab) -> Child {
    lab.command("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Lines in whatever holds the records of the trial of deployment `name`.
pub(crate) fn records(runs: &Path, name: &str) -> usize {
    let Ok(dirs) = std::fs::read_dir(runs) else { return 0 };
    let files =
        dirs.flatten().map(|d| d.path().join(format!("points/{name}/l/c4/1/requests.open.jsonl")));
    files.map(|f| json_lines(&f).len()).max().unwrap_or(0)
}

#[test]
fn once_seals_what_is_there_takes_down_and_can_be_continued() {
    let lab = Lab::new(&emulated(&["one", "two"], "ttft = \"20ms\", itl = \"5ms\"", LONG));
    let child = start(&lab);
    wait_for("records of the first deployment", || records(&lab.runs(), "one") > 10);
    signal(child.id(), "INT");
    let said = Said::from(child.wait_with_output().unwrap()).expect_code(130);
    assert!(said.stderr.contains("finishing what is in flight"), "{}", said.stderr);
    assert!(said.stderr.contains("scalebeam run --resume"), "{}", said.stderr);
    assert_eq!(marked_processes(&lab.runs()), []);
    let dir = lab.run_dir();
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    assert!(manifest.contains("interrupted"), "{manifest}");

    let said = crate::support::say([
        "run",
        "--selftest",
        "never",
        "--resume",
        dir.to_str().unwrap(),
        "--json",
    ])
    .expect_code(0);
    let results = said.json();
    assert_eq!(results["incomplete"], false);
    for point in results["points"].as_array().unwrap() {
        assert_eq!(point["outcomes"]["completed"], 400);
        assert_eq!(point["outcomes"].as_object().unwrap().len(), 1);
    }
    assert_eq!(results["points"].as_array().unwrap().len(), 2);
    assert_eq!(marked_processes(&lab.runs()), []);
    // Nothing is left to do.
    let again = crate::support::say([
        "run",
        "--selftest",
        "never",
        "--resume",
        dir.to_str().unwrap(),
        "--json",
    ])
    .expect_code(0);
    assert_eq!(again.json()["points"], results["points"]);
}

#[test]
fn twice_gives_up_what_is_in_flight() {
    // Requests take a minute, so a drain would be long.
    let lab = Lab::new(
        &emulated(&["one"], "ttft = \"20ms\", itl = \"10s\"", LONG)
            .replace("params = {", "ready = { probe = \"health\" }\nparams = {")
            .replace(
                "kind = \"synthetic\"\nisl = 32\nosl = 8",
                "kind = \"prompts\"\nprompts = [ { id = \"p\", max_tokens = 8, text = \"t\" } ]",
            ),
    );
    let child = start(&lab);
    wait_for("the trial", || {
        lab.runs().exists() && {
            let dirs = std::fs::read_dir(lab.runs()).unwrap().flatten();
            dirs.map(|d| d.path().join("points/one/l/c4/1/trial.json")).any(|f| f.exists())
        }
    });
    signal(child.id(), "INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(child.id(), "INT");
    Said::from(child.wait_with_output().unwrap()).expect_code(130);
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn while_a_deployment_comes_up_takes_it_down() {
    let text = emulated(&["slow"], "ttft = \"20ms\", itl = \"5ms\"", LONG)
        .replace("params = {", "args = [\"--startup-delay\", \"10m\"]\nparams = {");
    let lab = Lab::new(&text);
    let child = start(&lab);
    wait_for("the engine", || !marked_processes(&lab.runs()).is_empty());
    signal(child.id(), "TERM");
    Said::from(child.wait_with_output().unwrap()).expect_code(130);
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// Nobody who asked twice waits for a grace, also one that runs already.
#[test]
fn a_second_one_ends_the_grace_of_a_teardown() {
    for is_up in [true, false] {
        let lab = Lab::new("");
        let bin = stand_in(lab.dir.path(), "moved");
        let serves = std::fs::read_to_string(&bin).unwrap();
        let deaf = match is_up {
            true => serves.replacen("exec ", "trap '' TERM; exec ", 1),
            false => "#!/bin/sh\ntrap '' TERM\nsleep 600\n".to_owned(),
        };
        assert_ne!(deaf, serves);
        std::fs::write(&bin, deaf).unwrap();
        let text = emulated(&["one"], &format!("bin = \"{bin}\""), LONG)
            .replace("engine = \"emulated\"", "engine = \"vllm\"")
            .replace("Qwen/Qwen2.5-7B-Instruct", "plain")
            .replace("grace = \"5s\"", "grace = \"10m\"");
        std::fs::write(lab.file(), text).unwrap();
        let child = start(&lab);
        match is_up {
            true => wait_for("records", || records(&lab.runs(), "one") > 10),
            false => wait_for("the engine", || !marked_processes(&lab.runs()).is_empty()),
        }
        signal(child.id(), "INT");
        let is_draining = || {
            let journal = lab.run_dir().join("journal.jsonl");
            std::fs::read_to_string(journal).unwrap().contains("\"to\":\"draining\"")
        };
        wait_for("the teardown", is_draining);
        signal(child.id(), "INT");
        Said::from(child.wait_with_output().unwrap()).expect_code(130);
        assert_eq!(marked_processes(&lab.runs()), []);
    }
}
