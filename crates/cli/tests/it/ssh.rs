//! Deployments on hosts that are reached by ssh: real sshd, one network namespace a host.
//!
//! They need root, `ip` and sshd; `ci/test` sets that up and runs them by name.

use crate::hosts::Hosts;
use crate::interrupt::signal;
use crate::support::{marked_processes, wait_for};
use std::path::PathBuf;
use std::process::{Child, Stdio};

const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 80\nwarmup = 4\n";

/// An experiment with one emulated replica on each host.
fn experiment(hosts: &Hosts, names: &[&str], params: &str, load: &str) -> PathBuf {
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_scalebeam"));
    let path = format!("{}:/usr/bin:/bin", exe.parent().unwrap().display());
    let mut text =
        String::from("schema = 1\nname = \"fleet\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n");
    for (n, name) in names.iter().enumerate() {
        text.push_str(&format!(
            "[host.{name}]\naddr = \"10.77.0.{}\"\nssh = \"{name}\"\ngpus = 1\ngpu = \"H100-SXM-80G\"\n\
             iface = \"eth0\"\n[host.{name}.env]\nPATH = \"{path}\"\n",
            n + 1
        ));
    }
    let place: Vec<String> = names.iter().map(|n| format!("\"{n}:0\"")).collect();
    text.push_str(&format!(
        "[[deploy]]\nname = \"pair\"\nplatform = \"ssh\"\nengine = \"emulated\"\nport = 8100\n\
         replicas = {}\nplace = [{}]\nparams = {{ {params} }}\nstop = {{ grace = \"5s\" }}\n\
         ready = {{ timeout = \"60s\" }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\n{load}\n",
        names.len(),
        place.join(", ")
    ));
    let file = hosts.path("fleet.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn runs(hosts: &Hosts) -> PathBuf {
    hosts.path("runs")
}

fn run_args<'a>(file: &'a str, runs: &'a str) -> Vec<&'a str> {
    vec!["run", file, "--out", runs, "--selftest", "never"]
}

fn nothing_left(hosts: &Hosts) {
    assert_eq!(marked_processes(&runs(hosts)), []);
    let files = std::fs::read_dir(Hosts::remote_files()).map(|d| d.flatten().count()).unwrap_or(0);
    let dirs: Vec<_> = std::fs::read_dir(Hosts::remote_files())
        .map(|d| d.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    assert_eq!(files, 0, "{dirs:?}");
}

struct Live {
    child: Child,
}

impl Live {
    fn start(hosts: &Hosts, file: &str) -> Self {
        let runs = runs(hosts).display().to_string();
        let mut command = hosts.scalebeam();
        command.args(run_args(file, &runs)).stdout(Stdio::null());
        let log = std::fs::File::create(hosts.path("run.log")).unwrap();
        Self { child: command.stderr(log).spawn().unwrap() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn only_run(hosts: &Hosts) -> PathBuf {
    let mut dirs = std::fs::read_dir(runs(hosts)).unwrap().flatten().map(|e| e.path());
    dirs.find(|d| d.join("journal.jsonl").exists()).unwrap()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_two_hosts_are_weighed_and_left_as_they_were() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = experiment(&hosts, &["a", "b"], "ttft = \"10ms\", itl = \"2ms\"", LOAD);
    let (file, out) = (file.display().to_string(), runs(&hosts).display().to_string());
    let mut args = run_args(&file, &out);
    args.push("--json");
    let said = hosts.say(&args).expect_code(0);
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80, "{results:#}");
    nothing_left(&hosts);
    // Both served, and their logs are here.
    let dir = only_run(&hosts);
    for log in ["logs/pair/0-serve.log", "logs/pair/1-serve.log"] {
        let text = std::fs::read_to_string(dir.join(log)).unwrap();
        assert!(text.contains("listening"), "{log}: {text}");
    }
    let journal = std::fs::read_to_string(dir.join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"process_gone\"").count(), 2, "{journal}");
    assert_eq!(journal.matches("\"port_released\"").count(), 2, "{journal}");
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_after_kill_9_down_ends_what_is_on_the_hosts() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = experiment(&hosts, &["a", "b"], "ttft = \"200ms\", itl = \"20ms\"", LOAD);
    let file = file.display().to_string();
    let mut live = Live::start(&hosts, &file);
    wait_for("two engines", || marked_processes(&runs(&hosts)).len() >= 4);
    signal(live.child.id(), "KILL");
    live.child.wait().unwrap();
    // Another run does not start over them, and names them.
    let out = runs(&hosts).display().to_string();
    let said = hosts.say(&run_args(&file, &out)).expect_code(4);
    assert!(said.stderr.contains("pair/1/serve on b"), "{}", said.stderr);
    assert!(said.stderr.contains("scalebeam down"), "{}", said.stderr);
    let dir = only_run(&hosts).display().to_string();
    let said = hosts.say(&["down", &dir]).expect_code(0);
    assert!(said.stdout.contains("pair/0/serve on a: terminated"), "{}", said.stdout);
    assert!(said.stdout.contains("pair/1/serve on b: terminated"), "{}", said.stdout);
    nothing_left(&hosts);
    let said = hosts.say(&["down", &dir]).expect_code(0);
    assert!(said.stdout.contains("nothing left running"), "{}", said.stdout);
}
