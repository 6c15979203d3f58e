//! The doctor moves data between hosts whose ranks talk, and leaves no listener behind.

use crate::hosts::Hosts;
use crate::support::Said;
use serde_json::Value;

/// One instance over two hosts, of which nothing has to be installed to be looked at.
const SPAN: &str = r#"
schema = 1
name = "span"
[model]
id = "org/m"
[host.a]
addr = "10.77.0.1"
ssh = "a"
gpus = 1
iface = "eth0"
[host.b]
addr = "10.77.0.2"
ssh = "b"
gpus = 1
iface = "eth0"
[[deploy]]
name = "pair"
platform = "ssh"
engine = "vllm"
launcher = "mp"
pp = 2
place = ["a:0 + b:0"]
[[workload]]
name = "w"
kind = "synthetic"
isl = 32
osl = 8
[[load]]
name = "l"
workload = "w"
concurrency = [1]
requests = 4
"#;

/// How a check came out on each host.
fn outcomes(said: &Said, check: &str) -> Vec<Value> {
    let findings = said.json()["findings"].as_array().unwrap().clone();
    findings.into_iter().filter(|f| f["check"] == check).collect()
}

/// Listeners of a host but its sshd.
fn listeners(hosts: &Hosts, name: &str) -> Vec<String> {
    let table = hosts.on_host(name, &["cat", "/proc/net/tcp"]).stdout;
    let is_other = |l: &&str| l.contains(" 0A ") && !l.contains(":0016 ");
    table.lines().filter(is_other).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_hosts_whose_ranks_talk_move_data_and_nobody_listens_afterwards() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = hosts.path("span.toml");
    std::fs::write(&file, SPAN).unwrap();
    let file = file.display().to_string();
    // Neither vLLM nor a GPU is there.
    let said = hosts.say(&["doctor", &file, "--json"]).expect_code(4);
    let open = outcomes(&said, "any port between hosts is open");
    assert_eq!(open.len(), 2, "{open:#?}");
    for (finding, other) in open.iter().zip(["b", "a"]) {
        assert_eq!(finding["status"], "pass", "{finding:#}");
        assert_eq!(finding["seen"], format!("a port that {other} chose is reached"));
    }
    for finding in outcomes(&said, "speed between hosts") {
        let seen = finding["seen"].as_str().unwrap();
        assert!(seen.contains(" Gbit/s by one socket, round trip "), "{seen}");
    }
    for name in ["a", "b"] {
        assert_eq!(listeners(&hosts, name), [""; 0], "{name}");
    }
    assert_eq!(hosts.remote_files(), [""; 0].map(std::path::PathBuf::from));
}
