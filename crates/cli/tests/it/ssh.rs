//! Deployments on hosts that are reached by ssh: real sshd, one network namespace a host.
//!
//! They need root, `ip` and sshd; `ci/test` sets that up and runs them by name.

use crate::hosts::Hosts;
use crate::interrupt::signal;
use crate::support::{marked_processes, root, wait_for};
use std::path::PathBuf;
use std::process::{Child, Stdio};

mod clocks;
mod faults;
mod machines;
mod readings;

const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 80\nwarmup = 4\n";

/// An experiment with one emulated replica on each host.
pub(crate) fn experiment(hosts: &Hosts, names: &[&str], params: &str, load: &str) -> PathBuf {
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
    let files = hosts.remote_files();
    assert!(files.is_empty(), "{files:?}");
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

pub(crate) fn only_run(hosts: &Hosts) -> PathBuf {
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
    // Two engines, and an agent beside each.
    assert_eq!(journal.matches("\"process_gone\"").count(), 4, "{journal}");
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

/// A deployment that must fail before it is measured: what the doctor says, and what the launcher says
/// where nobody asks the doctor.
fn refused(hosts: &Hosts, file: &str) -> (String, String) {
    let out = runs(hosts).display().to_string();
    let foreseen = hosts.say(&run_args(file, &out)).expect_code(4).stderr;
    let mut args = run_args(file, &out);
    args.push("--no-doctor");
    let found = hosts.say(&args).expect_code(4).stderr;
    nothing_left(hosts);
    (foreseen, found)
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_host_that_does_not_let_us_in_is_named_with_the_cure() {
    let mut hosts = Hosts::new(&["a", "b"]);
    let file = experiment(&hosts, &["a", "b"], "ttft = \"10ms\"", LOAD).display().to_string();
    hosts.change_host_key("b");
    let (foreseen, said) = refused(&hosts, &file);
    assert!(said.contains("host b cannot be asked"), "{said}");
    assert!(said.contains("ssh-keygen -R b"), "{said}");
    assert!(foreseen.contains("D10 host b") && foreseen.contains("ssh-keygen -R b"), "{foreseen}");
    // Another key of ours: it is not let in.
    let key = hosts.path("key");
    let other = std::fs::read_to_string(hosts.path("host_a")).unwrap();
    std::fs::write(&key, other).unwrap();
    let (foreseen, said) = refused(&hosts, &file);
    assert!(foreseen.contains("D10 host a"), "{foreseen}");
    assert!(said.contains("host a cannot be asked"), "{said}");
    assert!(said.contains("never types a password"), "{said}");
    hosts.link("a", "down");
    let (foreseen, said) = refused(&hosts, &file);
    assert!(foreseen.contains("D10 host a") && foreseen.contains("hint:"), "{foreseen}");
    assert!(said.contains("host a cannot be asked") && said.contains("hint:"), "{said}");
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_what_is_absent_or_taken_on_a_host_stops_before_anything_starts() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = experiment(&hosts, &["a", "b"], "ttft = \"10ms\"", LOAD);
    let file = file.display().to_string();
    let mut holder = hosts.start_on("b", &["python3", "-m", "http.server", "8100"]);
    wait_for("the port", || {
        hosts.on_host("b", &["sh", "-c", "ss -ltn | grep 8100"]).code == Some(0)
    });
    let (foreseen, said) = refused(&hosts, &file);
    assert!(foreseen.contains("D12 host b") && foreseen.contains("python3"), "{foreseen}");
    assert!(said.contains("port 8100"), "{said}");
    assert!(said.contains("python3") && said.contains("on host b"), "{said}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&*exe_dir(), "/nowhere");
    std::fs::write(&file, text).unwrap();
    let (foreseen, said) = refused(&hosts, &file);
    assert!(foreseen.contains("D31 host a"), "{foreseen}");
    assert!(
        said.contains("program 'scalebeam' of process pair/0/serve is not on host a"),
        "{said}"
    );
}

fn exe_dir() -> String {
    PathBuf::from(env!("CARGO_BIN_EXE_scalebeam")).parent().unwrap().display().to_string()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_an_engine_that_dies_on_its_host_is_told_with_its_last_words() {
    let hosts = Hosts::new(&["a", "b"]);
    // It refuses its own parameters as soon as it is started.
    let file = experiment(&hosts, &["a", "b"], "ttft = \"10ms\", timing = \"no-such\"", LOAD);
    let file = file.display().to_string();
    let out = runs(&hosts).display().to_string();
    let said = hosts.say(&run_args(&file, &out));
    assert!(matches!(said.code, Some(2 | 4)), "{said:?}");
    nothing_left(&hosts);

    let file = experiment(&hosts, &["a", "b"], "ttft = \"300ms\", itl = \"30ms\"", LOAD);
    let file = file.display().to_string();
    let mut live = Live::start(&hosts, &file);
    wait_for("two engines", || engines(&hosts).len() >= 2);
    let victim = engines(&hosts)[1];
    wait_for("the load", || crate::interrupt::records(&runs(&hosts), "pair") > 4);
    signal(u32::try_from(victim).unwrap(), "KILL");
    let status = live.child.wait().unwrap();
    let said = std::fs::read_to_string(hosts.path("run.log")).unwrap();
    assert!(matches!(status.code(), Some(3 | 4)), "{said}");
    assert!(said.contains("signal 9 (SIGKILL)") && said.contains("on host "), "{said}");
    nothing_left(&hosts);
}

/// Pids of the engines themselves, not of what waits for them.
fn engines(hosts: &Hosts) -> Vec<i32> {
    let all = marked_processes(&runs(hosts));
    let serves = all.into_iter().filter(|(_, command)| command.contains("scalebeam serve"));
    serves.filter(|(_, command)| !command.starts_with("sh ")).map(|(pid, _)| pid).collect()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_an_interrupt_drains_and_takes_the_hosts_down() {
    let hosts = Hosts::new(&["a", "b"]);
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 4000\n";
    let file = experiment(&hosts, &["a", "b"], "ttft = \"100ms\", itl = \"10ms\"", load);
    let mut live = Live::start(&hosts, &file.display().to_string());
    wait_for("the load", || crate::interrupt::records(&runs(&hosts), "pair") > 4);
    signal(live.child.id(), "INT");
    assert_eq!(live.child.wait().unwrap().code(), Some(130));
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_cut_link_ends_the_run_and_down_works_once_it_is_back() {
    let hosts = Hosts::new(&["a", "b"]);
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 100000\ntimeout = \"5s\"\n";
    let file = experiment(&hosts, &["a", "b"], "ttft = \"100ms\", itl = \"10ms\"", load);
    let mut live = Live::start(&hosts, &file.display().to_string());
    wait_for("the load", || crate::interrupt::records(&runs(&hosts), "pair") > 4);
    hosts.link("b", "down");
    let status = live.child.wait().unwrap();
    let said = std::fs::read_to_string(hosts.path("run.log")).unwrap();
    assert!(matches!(status.code(), Some(3 | 4)), "{said}");
    assert!(said.contains("on host b was lost"), "{said}");
    assert!(said.contains("scalebeam down"), "{said}");
    // It lives on, out of reach; once the link is back nothing of it is left.
    assert_eq!(engines(&hosts).len(), 1);
    hosts.link("b", "up");
    wait_for("the link", || hosts.ssh("b", "true").code == Some(0));
    let dir = only_run(&hosts).display().to_string();
    hosts.say(&["down", &dir]).expect_code(0);
    nothing_left(&hosts);
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_a_program_of_the_file_serves_from_a_port_a_replica() {
    let hosts = Hosts::new(&["a", "b"]);
    let script = root().join("tests-support/truth_server.py");
    let host =
        |n: u32, name: &str| format!("[host.{name}]\naddr = \"10.77.0.{n}\"\nssh = \"{name}\"\n");
    let text = format!(
        "schema = 1\nname = \"fleet\"\n[model]\nid = \"plain\"\n{}{}\
         [[deploy]]\nname = \"pair\"\nplatform = \"ssh\"\nengine = \"command\"\nport = 8100\n\
         replicas = 3\nplace = [\"a\", \"a\", \"b\"]\nparams = {{ program = \"python3\" }}\n\
         args = [\"-B\", \"{}\", \"--host\", \"{{host}}\", \"--port\", \"{{port}}\", \"--ttft-ms\", \"5\", \
         \"--log\", \"{{scratch}}/{{index}}.jsonl\"]\n\
         ready = {{ timeout = \"60s\", log = \"listening \" }}\nstop = {{ grace = \"5s\" }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\n{LOAD}\n",
        host(1, "a"),
        host(2, "b"),
        script.display()
    );
    let file = hosts.path("own.toml");
    std::fs::write(&file, text).unwrap();
    let (file, out) = (file.display().to_string(), runs(&hosts).display().to_string());
    let mut args = run_args(&file, &out);
    args.push("--json");
    let results = hosts.say(&args).expect_code(0).json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80, "{results:#}");
    let shares = results["points"][0]["by_target"].as_array().unwrap().clone();
    assert!(shares.len() == 3 && shares.iter().all(|n| n.as_u64() > Some(20)), "{shares:?}");
    nothing_left(&hosts);
}
