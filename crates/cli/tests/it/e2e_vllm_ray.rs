//! A real vLLM over hosts that a Ray cluster joins, whose run is killed.

use crate::e2e_vllm::{example, nothing_left, written};
use crate::hosts::Hosts;
use crate::interrupt::signal;
use crate::support::json_lines;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A pipeline over two hosts answers. Then scalebeam is gone: `down` ends the raylets, the store of the cluster,
/// and the workers that they started, of which scalebeam was told nothing.
#[test]
#[ignore = "needs a real vLLM, root, ip and sshd; ci/test --all runs it"]
fn a_pipeline_over_ray_is_taken_down_after_kill_9() {
    let hosts = Hosts::new(&["a", "b"]);
    // More than are answered before the end.
    let text = example("real-vllm-ray").replacen("requests    = 16", "requests    = 4000", 1);
    let file = written(&hosts, &text);
    let out = hosts.path("runs").display().to_string();
    let run = ["run", &file, "--out", &out, "--selftest", "never", "--deploy", "pp2-ray"];
    let log = std::fs::File::create(hosts.path("run.log")).unwrap();
    let mut command = hosts.scalebeam();
    let mut child = command.args(run).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    until_answers(&hosts, &mut child);
    signal(child.id(), "KILL");
    child.wait().unwrap();

    // One stage is on each host, beside its raylet.
    for (host, parts) in [("a", &["raylet", "gcs_server"][..]), ("b", &["raylet"])] {
        let there = hosts.processes(host);
        for part in parts.iter().chain(&["RayWorkerProc"]) {
            assert!(
                there.iter().any(|line| line.contains(part)),
                "no {part} on {host}: {there:#?}"
            );
        }
    }
    let said = hosts.say(&run).expect_code(4);
    assert!(said.stderr.contains("pp2-ray/0/ray1 on b"), "{}", said.stderr);
    let said = hosts.say(&["down", &only_run(&hosts).unwrap().display().to_string()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    nothing_left(&hosts);
}

/// Returns once some requests were answered; whoever waits for them no longer says why.
fn until_answers(hosts: &Hosts, child: &mut Child) {
    let is_answered = |dir: &Path| {
        let records = dir.join("points/pp2-ray/closed/c4/1/requests.open.jsonl");
        json_lines(&records).iter().filter(|r| r["outcome"] == "completed").count() >= 8
    };
    while !only_run(hosts).is_some_and(|dir| is_answered(&dir)) {
        let log = || std::fs::read_to_string(hosts.path("run.log")).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it ended before: {}", log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The directory of the only run, once there is one.
fn only_run(hosts: &Hosts) -> Option<PathBuf> {
    let dirs = std::fs::read_dir(hosts.path("runs")).ok()?.flatten().map(|e| e.path());
    dirs.into_iter().find(|dir| dir.join("journal.jsonl").exists())
}
