//! `doctor`: on this machine, on a host behind a stand-in for `ssh`, and before a run.

use crate::support::{Lab, Said, emulated, free_port, json_lines, root, scalebeam};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Rows without what differs from machine to machine: what a check that passed has seen, and how far
/// clocks are known on a busy one. What this version can bring up is not this test's business.
fn shape(stdout: &str) -> String {
    let is_ours = |l: &&str| !l.contains(" D01 ") && !l.contains("hint: check, plan");
    let row = |line: &str| match line.trim_start() {
        l if l.starts_with("ok ") || l.starts_with("note ") => {
            line.chars().take(54).collect::<String>().trim_end().to_owned()
        }
        _ => line.to_owned(),
    };
    let rows = stdout
        .lines()
        .skip(1)
        .filter(is_ours)
        .filter(|l| !l.contains(" D42  ") && !l.contains("skip   D42:"));
    rows.map(row).collect::<Vec<_>>().join("\n")
}

fn without_proxies(command: &mut std::process::Command) -> &mut std::process::Command {
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

#[test]
fn an_emulated_deployment_on_this_machine() {
    let lab = Lab::new(&emulated(&["one"], "ttft = \"1ms\"", "concurrency = [4]\nrequests = 40"));
    let said: Said = without_proxies(&mut lab.command("doctor")).output().unwrap().into();
    let said = said.expect_code(0);
    assert_eq!(said.stderr, "");
    assert!(said.stdout.starts_with("lab: 0 failed, 0 warnings, "), "{}", said.stdout);
    insta::assert_snapshot!(shape(&said.stdout));
}

#[test]
fn its_json_is_of_the_published_form() {
    let schema = std::fs::read_to_string(root().join("schemas/doctor.schema.json")).unwrap();
    let schema = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for name in ["quickstart", "seed2-kuberay-scaling", "seed4-modal-gpu-users"] {
        let file = root().join(format!("experiments/{name}.toml"));
        let said: Said = scalebeam().arg("doctor").arg(file).arg("--json").output().unwrap().into();
        let problems: Vec<String> =
            validator.iter_errors(&said.json()).map(|e| e.to_string()).collect();
        assert_eq!(problems, [""; 0], "{name}");
    }
}

/// Programs of a host that is not there.
const STAND_INS: &[(&str, &str)] = &[
    (
        "df",
        "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho 'tmpfs 67108864 0 67108864 0% /x'",
    ),
    ("stat", "echo ext2/ext3"),
    ("getconf", "echo 1"),
    ("getent", "echo '127.0.1.1 STREAM head'"),
    ("ip", "echo '1: lo    inet 127.0.0.1/8 scope host lo'"),
    ("ray", "exit 1"),
    (
        "lspci",
        "printf '00:01.0 PCI bridge: Intel\\n\\t\\tACSCtl:\\tSrcValid+ TransBlk- ReqRedir+\\n'",
    ),
    (
        "nvidia-smi",
        "case \"$*\" in\n\
         *index,name*)\n\
         echo 'index, name, uuid, memory.total [MiB], memory.free [MiB], driver_version'\n\
         echo '0, NVIDIA A100-SXM4-80GB, GPU-0, 81920 MiB, 81000 MiB, 550.54'\n\
         echo '1, NVIDIA A100-SXM4-80GB, GPU-1, 81920 MiB, [N/A], 550.54' ;;\n\
         *index,mig*)\n\
         echo 'index, mig.mode.current, power.limit [W], power.default_limit [W]'\n\
         echo '0, Disabled, 300.00 W, 400.00 W'\n\
         echo '1, [N/A], [N/A], [N/A]' ;;\n\
         *compute-apps*) echo 'pid, gpu_uuid, process_name, used_gpu_memory [MiB]'; echo '99, GPU-1, python, 70000 MiB' ;;\n\
         *-m*) printf '\\tGPU0\\tGPU1\\tCPU Affinity\\nGPU0\\t X \\tSYS\\t0-31\\nGPU1\\tSYS\\t X \\t0-31\\n' ;;\n\
         *) echo 'Field is not a valid field to query.'; exit 2 ;;\n\
         esac",
    ),
];

fn program(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A lab with an `ssh` that reaches `gpu-head`, whose programs are stand-ins, and nobody else.
fn two_hosts() -> (Lab, std::ffi::OsString) {
    let port = free_port();
    let lab = Lab::new(&format!(
        r#"schema = 1
name = "two-hosts"
[model]
id = "/models/that/is/not/there"
[host.head]
ssh = "gpu-head"
addr = "127.0.0.1"
gpus = 4
[host.worker]
ssh = "gpu-worker"
addr = "127.0.0.2"
gpus = 4
[[deploy]]
name = "dual"
platform = "ssh"
engine = "vllm"
launcher = "ray"
port = {port}
tp = 2
pp = 2
place = ["head:0-1 + worker:0-1"]
[[workload]]
name = "w"
kind = "synthetic"
isl = 32
osl = 8
[[load]]
name = "l"
workload = "w"
concurrency = [4]
requests = 40
"#
    ));
    let (here, there) = (lab.dir.path().join("here"), lab.dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    std::fs::create_dir(&there).unwrap();
    STAND_INS.iter().for_each(|(name, body)| program(&there.join(name), body));
    let path = std::env::var_os("PATH").unwrap();
    let joined = |dir: &Path| {
        let rest = std::env::split_paths(&path);
        std::env::join_paths(std::iter::once(dir.to_owned()).chain(rest)).unwrap()
    };
    let ssh = format!(
        "case \"$*\" in\n\
         *' -- gpu-head '*) ulimit -n 1024; PATH={}; export PATH; exec sh -s ;;\n\
         *) echo 'ssh: Could not resolve hostname gpu-worker: Name or service not known' >&2; exit 255 ;;\n\
         esac",
        joined(&there).to_string_lossy()
    );
    program(&here.join("ssh"), &ssh);
    let path = joined(&here);
    (lab, path)
}

#[test]
fn one_host_of_two_is_reached_and_much_is_wrong_there() {
    let (lab, path) = two_hosts();
    let mut command = lab.command("doctor");
    command
        .env("PATH", path)
        .env("HF_TOKEN", "hf_never_shown")
        .env_remove("HF_HOME")
        .env_remove("HF_HUB_CACHE");
    let said: Said = without_proxies(&mut command).output().unwrap().into();
    let said = said.expect_code(4);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("hf_never_shown"));
    let home = std::env::var("HOME").unwrap_or_default();
    insta::assert_snapshot!(shape(&said.stdout).replace(&home, "HOME"));
}

#[test]
fn a_clock_of_another_host_is_known_within_its_bound() {
    let (lab, path) = two_hosts();
    let said: Said = lab.command("doctor").arg("--json").env("PATH", path).output().unwrap().into();
    let json = said.expect_code(4).json();
    let findings = json["findings"].as_array().unwrap();
    let of = |host: &str| findings.iter().find(|f| f["id"] == "D42" && f["host"] == host).unwrap();
    // The stand-in has this machine's clock; a busy machine may not be able to tell.
    let head = of("head");
    assert_ne!(head["status"], "fail", "{head}");
    assert!(head.to_string().contains("known to +-"), "{head}");
    let link = findings.iter().find(|f| f["id"] == "D13" && f["host"] == "head").unwrap();
    assert!(link["seen"].as_str().unwrap().contains("round trip from here "), "{link}");
    assert_eq!(of("worker")["reason"], "the host was not reached (D10)");
}

/// An emulated deployment whose port somebody has.
fn on_a_taken_port() -> (Lab, TcpListener) {
    let text = emulated(&["one"], "ttft = \"1ms\"", "concurrency = [4]\nrequests = 40");
    let port = text.lines().find_map(|l| l.strip_prefix("port = ")).unwrap();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    (Lab::new(&text), listener)
}

#[test]
fn run_and_up_start_nothing_over_what_could_not_work() {
    for (verb, more) in [("run", &[][..]), ("up", &["--deploy", "one"][..])] {
        let (lab, _listener) = on_a_taken_port();
        let said = lab.say(verb, more).expect_code(4);
        assert!(said.stderr.contains("nothing was started; it could not work"), "{}", said.stderr);
        assert!(said.stderr.contains("is taken by"), "{}", said.stderr);
        let doctor = std::fs::read_to_string(lab.run_dir().join("doctor.json")).unwrap();
        let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
        let failed = |f: &&serde_json::Value| f["status"] == "fail" && f["severity"] == "E";
        let findings = doctor["findings"].as_array().unwrap();
        let ids: Vec<_> = findings.iter().filter(failed).map(|f| f["id"].clone()).collect();
        assert_eq!(ids, ["D12"]);
        assert_eq!(json_lines(&lab.run_dir().join("journal.jsonl")).len(), 0);
    }
}

#[test]
fn a_deployment_that_the_run_does_not_need_is_not_looked_at() {
    let text = emulated(&["one", "two"], "ttft = \"1ms\"", "concurrency = [4]\nrequests = 40");
    let port = text.lines().rev().find_map(|l| l.strip_prefix("port = ")).unwrap();
    let _listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let lab = Lab::new(&format!("{text}[[run]]\ndeploy = [\"one\"]\nload = [\"l\"]\n"));
    lab.say("doctor", &[]).expect_code(4);
    lab.say("run", &[]).expect_code(0);
    let doctor = std::fs::read_to_string(lab.run_dir().join("doctor.json")).unwrap();
    let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
    assert_eq!(doctor["deployments"], serde_json::json!(["one"]));
}

#[test]
fn without_the_doctor_the_run_says_so_and_goes_its_way() {
    let (lab, _listener) = on_a_taken_port();
    let said = lab.say("run", &["--no-doctor"]).expect_code(4);
    assert!(said.stderr.contains("doctor: not asked (--no-doctor)"), "{}", said.stderr);
    assert!(!said.stderr.contains("nothing was started; it could not work"), "{}", said.stderr);
    let doctor = std::fs::read_to_string(lab.run_dir().join("doctor.json")).unwrap();
    let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
    assert_eq!(doctor["not_run"], "--no-doctor");
    assert_eq!(doctor["findings"], serde_json::json!([]));
}
